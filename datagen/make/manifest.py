"""The plan that a store keeps, so that a build that was stopped need not read its volumes again.

    line 1   SHA-256 of the rest
    line 2   JSON: the recipe, versions of packages, what every volume's files were like, folds, digest, what was left out
    then     the samples, as `datagen.plan.packed` packs them

It holds no paths. It counts only where the sources have the same volumes, whose files, and those with their labels, have
the same sizes and times as when it was made; anything else, and it is as if it were not there. Whether a file still holds
the same is checked where a sample is made of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

from ussim.errors import DataError
from ussim.volumes.volume import VolumeRef

from ..plan.labels import label_file
from ..plan.packed import Packed
from ..plan.resolved import ResolvedRecipe
from ..plan.samples import BETWEEN_NOTES, FoundVolumes, Plan, Sample, fold_notes, left_out_notes, oddity_notes
from ..sources.scene import Label
from ..store import layout
from ..store.location import Storage
from ..store.write import versions


def parts(plan: Plan) -> Iterator[bytes]:
    """Yield what a store keeps of a plan."""
    samples = plan.samples
    head = {
        **_conditions(plan.asked, plan.found, plan.recipe.labels),
        "folds": plan.recipe.folds,
        "digest": plan.digest,
        "n_volumes": plan.n_volumes,
        "skipped": plan.skipped,
        "unreadable": plan.unreadable,
        "volumes": plan.volumes,
        "labels": [dataclasses.astuple(label) for label in plan.labels],
        "used": samples.used,
        "count": len(samples),
        "blocks": [len(block) for block in samples.blocks],
    }
    line = json.dumps(head, separators=(",", ":")).encode() + b"\n"
    total = hashlib.sha256(line)
    for block in samples.blocks:
        total.update(block)
    yield total.hexdigest().encode() + b"\n" + line
    yield from samples.blocks


def restored(storage: Storage, recipe: ResolvedRecipe, found: FoundVolumes) -> Plan | None:
    """Return the plan that a store keeps, None where it is not of this recipe and these volumes as they are now."""
    try:
        total, line, packed = storage.read(layout.PLAN).split(b"\n", 2)
        head = json.loads(line)
    except (OSError, ValueError):
        return None
    whole = hashlib.sha256(line + b"\n")
    whole.update(packed)
    conditions = json.loads(json.dumps(_conditions(recipe.digest, found.refs, recipe.labels)))
    if any(state is None for *_, state in conditions["found"]):
        return None
    if whole.hexdigest().encode() != total or any(head.get(name) != value for name, value in conditions.items()):
        return None
    blocks, at = [], 0
    for length in head["blocks"]:
        blocks.append(packed[at : at + length])
        at += length
    return _plan(recipe, found, head, Packed(Sample, found.refs, head["used"], blocks, head["count"]))


def _plan(recipe: ResolvedRecipe, found: FoundVolumes, head: dict[str, Any], samples: Packed[Sample]) -> Plan:
    settled = dataclasses.replace(recipe, folds=head["folds"])
    volumes = tuple(head["volumes"])
    subjects = {(found.refs[place].source, found.refs[place].subject) for place in head["used"]}
    odd = oddity_notes((row["source"], note) for row in volumes for note in row["notes"].split(BETWEEN_NOTES) if note)
    return Plan(
        recipe=settled,
        samples=samples,
        digest=head["digest"],
        n_volumes=head["n_volumes"],
        skipped=head["skipped"],
        unreadable=tuple((volume, reason) for volume, reason in head["unreadable"]),
        notes=(*found.notes, *fold_notes(settled.folds, recipe.folds, subjects), *left_out_notes(found.left_out), *odd),
        volumes=volumes,
        subject_rules=found.subject_rules,
        labels=tuple(Label(value, name, tuple(color)) for value, name, color in head["labels"]),
        asked=recipe.digest,
        found=found.refs,
    )


def _conditions(asked: str, refs: tuple[VolumeRef, ...], labels: str | None) -> dict[str, Any]:
    """Return what must be as it was when the plan was made."""
    return {
        "recipe": asked,
        "versions": versions(),
        "fields": [field.name for field in dataclasses.fields(Sample)],
        "found": [[ref.source, ref.subject, ref.name, _state(ref, labels)] for ref in refs],
    }


def _state(ref: VolumeRef, labels: str | None) -> str | None:
    """Return a digest of what a volume's files are like, without reading them and without their names; None: not known.

    Parameters
    ----------
    labels : pattern of the files with the labels of volumes; None = there are none.
    """
    total = hashlib.sha256(repr((ref.orientation, ref.part, ref.splits)).encode())
    paths = [*ref.paths]
    if labels is not None:
        try:
            paths.append(str(label_file(ref, labels)))
        except DataError as error:
            total.update(str(error).encode())
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            return None
        total.update(f" {status.st_size} {status.st_mtime_ns}".encode())
    return total.hexdigest()
