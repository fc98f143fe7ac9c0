"""A build from recipe to finished store.

    plan ─► create | resume | overwrite ─► shards, each one task that owns its files ─► finish

Which shards exist is read from their records, so a build that was stopped, however it was stopped, resumes where it was.
"""

from __future__ import annotations

import errno
import json
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ussim.commands import console
from ussim.errors import ChangedError, DataError, ExistsError

from ..plan.formats import FORMAT, format_for
from ..plan.recipe import Recipe
from ..plan.resolved import ResolvedRecipe, array_name, differences, engine_family
from ..plan.samples import Plan, Sample, make_plan
from ..sources import get_source, under_terms
from ..store import layout, read, seal, write
from ..store.layout import Attributes, Terms
from ..store.location import LocalStorage, Storage, open_storage
from . import manifest
from .cluster import Workers, open_workers
from .pairs import make_imager
from .progress import Count, Watcher
from .shards import HOPELESS, Job, Streak, log

if TYPE_CHECKING:
    from .cluster import Client

SMALL_SHARE = 0.05  # of the samples: with more than these set aside a dataset is not what was asked for


@dataclass(frozen=True)
class Summary:
    """Outcome of a build."""

    url: str
    n_samples: int
    n_built: int  # by this run
    set_aside: tuple[tuple[str, str], ...]  # (sample, reason)
    unreadable: tuple[tuple[str, str], ...]  # (volume, reason)
    skipped: dict[str, int]  # images left out, by reason
    notes: tuple[str, ...]
    n_subjects: int
    n_volumes: int
    folds: int
    seconds: float
    digest: str
    sources: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()

    @property
    def is_incomplete(self) -> bool:
        """Whether more than SMALL_SHARE of the samples were set aside."""
        return len(self.set_aside) > SMALL_SHARE * self.n_samples


def build(
    recipe: Recipe,
    out: str | Path,
    client: Client | None = None,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    watcher: Watcher | None = None,
    storage_options: dict[str, Any] | None = None,
) -> Summary:
    """Build a dataset.

    Parameters
    ----------
    out : folder or fsspec URL of the store.
    client : a dask.distributed.Client to work on; None = `workers` or `scheduler`, else this process.
    workers : local worker processes (threads where `scheduler` is "threads"), each with its share of the cores.
    scheduler : "threads", "processes", the address of a scheduler, or the path of a scheduler file.
    resume : go on with a store of the same recipe: missing, cut short or complete.
    overwrite : delete a store that is there.
    storage_options : of the file system of `out`, where it is a URL, as fsspec takes them.

    Raises
    ------
    DataError, RecipeError, ussim.ProbeError, ussim.EngineError
        The data, the recipe, or the machine will not do.
    ExistsError
        Something is at `out` already.
    ChangedError
        `resume`, but what is there was built from another recipe, other data or by another engine.
    OSError
        The store cannot be written.
    """
    started = time.monotonic()
    watcher = watcher or Watcher()
    storage = open_storage(out, storage_options)
    _check_output(storage, resume, overwrite)
    if overwrite:
        _check_inputs_survive(recipe, storage)
    with open_workers(recipe.engine, client, workers, scheduler, watcher) as crew:
        engine, begun = crew.engine(recipe.engine), _begun(storage) if resume else None
        number = begun.format if begun else format_for(recipe.augmentations, FORMAT)
        same_family = begun is not None and engine_family(begun.engine) == engine_family(engine)
        resolved = recipe.resolve(engine, number, begun.engine if begun and same_family else None)
        kept = partial(manifest.restored, storage) if resume else None
        plan = make_plan(resolved, crew.map, kept)
        _check_output(storage, resume, overwrite)  # reading may have taken long
        with storage.exclusively():  # before anything is deleted or written: another build may be at work
            _check_output(storage, resume, overwrite)
            if overwrite and storage.exists():
                storage.delete()
            if not storage.exists() or read.is_begun(storage) or _is_damaged(storage):
                _create(storage, _attributes(plan, recipe.samples_per_shard), plan)
            return _build(storage, plan, crew, watcher, started)


# --- the store -------------------------------------------------------------------------------------------------------


def _in_words(url: str, plan: Plan) -> str:
    """Return in a line what a store will hold, in bytes as many as its images have before they are compressed."""
    recipe, count = plan.recipe, len(plan.samples)
    n_bytes = count * layout.bytes_per_sample(recipe)
    return (
        f"{url}: {count} samples of {plan.n_volumes} volumes, under {', '.join(probe.name for probe in recipe.probes)}; "
        f"{recipe.size} x {recipe.size} pixels, at most {n_bytes / 1e6:.3g} MB"
    )


def _check_output(storage: Storage, resume: bool, overwrite: bool) -> None:
    """Refuse, before the work, what would be refused after it."""
    if resume and overwrite:
        raise ExistsError("--resume and --overwrite exclude each other: go on with the store, or start it again")
    storage.check_writable()
    if not storage.exists() or read.is_begun(storage):
        return
    try:
        attributes = read.read_attributes(storage)
    except layout.StoreError as error:
        if (resume or overwrite) and read.is_ours(storage):
            return
        raise ExistsError(f"{error}; it is left alone: choose another --out") from None
    if not (resume or overwrite):
        state = "a finished store" if attributes.complete else "an unfinished store"
        verb = "--resume to check and keep it" if attributes.complete else "--resume to finish it"
        raise ExistsError(f"{storage.url}: {state} is here already; give {verb}, or --overwrite to start again")


def _check_inputs_survive(recipe: Recipe, storage: Storage) -> None:
    """Refuse to delete a store that holds what the new one is made of."""
    if not isinstance(storage, LocalStorage):
        return
    files = [Path(probe.path) for probe in recipe.load_probes() if probe.path]
    for path in (*recipe.roots(), *files):
        if console.is_inside(path, storage.folder):
            raise ExistsError(f"{storage.url}: --overwrite would delete the input {path}; choose another --out")


def _begun(storage: Storage) -> ResolvedRecipe | None:
    """Return the recipe of the store that is gone on with, None where there is none yet."""
    if not storage.exists() or read.is_begun(storage) or _is_damaged(storage):
        return None
    return read.read_attributes(storage).recipe


def _is_damaged(storage: Storage) -> bool:
    """Return whether what the store says of itself cannot be read any more."""
    try:
        read.read_attributes(storage)
    except layout.StoreError:
        return True
    return False


def _create(storage: Storage, attributes: Attributes, plan: Plan) -> None:
    """All of a store but the shards and what is made of them."""
    recipe = attributes.recipe
    drawn = recipe.randomize is not None  # each sample then has a mask of its own
    masks = {settings.probe.name: None if drawn else make_imager(settings).mask() for settings in recipe.settings}
    storage.write(layout.BEGUN, b"")
    storage.write(layout.VOLUMES, layout.format_table(plan.volumes).encode())
    storage.write_parts(layout.PLAN, manifest.parts(plan))
    if plan.left_out:  # a plan that was kept has none: they are there
        storage.write(layout.LEFT_OUT, json.dumps([asdict(example) for example in plan.left_out]).encode())
    write.create(storage, attributes, masks)


def _attributes(plan: Plan, samples_per_shard: int | None) -> Attributes:
    """Return what the group says of itself."""
    recipe = plan.recipe
    own = [get_source(name) for name in recipe.source]
    # Files "of one's own" that look like a collection are under that one's terms.
    sources = [under_terms(source, root) for source, root in zip(own, recipe.inputs.roots, strict=True)]
    per_shard = samples_per_shard or layout.shard_size(len(plan.samples))
    return Attributes(
        recipe=recipe,
        recipe_digest=plan.digest,
        source=", ".join(recipe.source),
        licence="; ".join(source.licence for source in sources),
        citation="; ".join(source.citation for source in sources),
        sources=tuple(
            Terms(name, source.title, source.licence, source.citation, source.terms, source.redistributable)
            for name, source in zip(recipe.source, sources, strict=True)
        ),
        probes={probe.name: array_name(probe.name) for probe in recipe.probes},
        n_samples=len(plan.samples),
        n_shards=-(-len(plan.samples) // per_shard),
        samples_per_shard=per_shard,
        subject_rules=plan.subject_rules,
        skipped=plan.skipped,
        unreadable=tuple(f"{volume}: {reason}" for volume, reason in plan.unreadable),
        versions=write.provenance(recipe.engine),
        labels=plan.labels,
    )


def _build(storage: Storage, plan: Plan, crew: Workers, watcher: Watcher, started: float) -> Summary:
    document = read.read_document(storage)
    broken = seal.broken(storage)
    attributes = Attributes.from_dict(document)
    if "zarr.json" in broken:  # nothing that it says can be relied on: said anew
        attributes = _attributes(plan, _samples_per_shard(storage) or attributes.samples_per_shard)
    else:
        _check_unchanged(storage, document, plan)
    # Shards are no part of the recipe: they stay as the store was begun.
    per_shard = attributes.samples_per_shard
    n_shards = max(1, -(-len(plan.samples) // per_shard))  # at least one, empty where there are no samples
    storage.clean()
    there = _whole_shards(storage, plan, per_shard, n_shards, attributes.complete)
    for index in seal.shards_of(broken):
        there.pop(index, None)
    todo = [index for index in range(n_shards) if index not in there]
    if todo:
        write.reopen(storage)
        for index in todo if attributes.complete else ():  # what was found to be damaged is as if never made
            storage.remove(layout.record_key(index))
    jobs = (Job(storage.url, i, _part(plan, i, per_shard), plan.recipe, per_shard, plan.digest) for i in todo)
    n_before = sum(there.values())
    log(storage, "begin", samples=len(plan.samples), there=n_before, recipe_digest=plan.digest)
    watcher.message(_in_words(storage.url, plan))
    watcher.begin(len(plan.samples), n_before)
    count = Count(there, watcher)
    streak = Streak(of_one_volume=plan.n_volumes == 1)
    try:
        for record in crew.run(jobs, count):
            count.finished(record)
            if len(count.set_aside) == count.done - n_before >= min(HOPELESS, len(plan.samples)):
                sample, reason = count.set_aside[0]
                raise DataError(
                    f"{storage.url}: all of the first {len(count.set_aside)} samples failed; {sample}: {reason}"
                )
            for row in record.rows:
                streak.add(row)
    except OSError as error:
        raise _disk_error(error, storage) from None
    finally:
        watcher.end()
    total = attributes.digest
    if todo or not read.is_whole(storage, n_shards):
        write.reopen(storage)
        _create(storage, attributes, plan)  # in case it is there that something was lost
        total = write.finish(storage, n_shards, len(count.set_aside), plan.digest)
    set_aside = tuple(sorted(count.set_aside))
    seconds = time.monotonic() - started
    log(storage, "end", built=len(plan.samples) - n_before, seconds=round(seconds, 3), digest=total)
    storage.clean()
    return Summary(
        url=storage.url,
        n_samples=len(plan.samples),
        n_built=len(plan.samples) - n_before,
        set_aside=set_aside,
        unreadable=plan.unreadable,
        skipped=plan.skipped,
        notes=plan.notes,
        n_subjects=len(plan.subjects),
        n_volumes=plan.n_volumes,
        folds=plan.recipe.folds,
        seconds=seconds,
        digest=total,
        sources=plan.recipe.source,
        probes=tuple(attributes.probes),
    )


def _part(plan: Plan, index: int, samples_per_shard: int) -> tuple[Sample, ...]:
    """Return the samples of a shard."""
    return plan.samples[index * samples_per_shard : (index + 1) * samples_per_shard]


def _check_unchanged(storage: Storage, document: dict[str, Any], plan: Plan) -> None:
    """Raise ChangedError where a store on disk was begun from another recipe or other data."""
    if document["recipe_digest"] == plan.digest:
        return
    changed = differences(document["recipe"], plan.recipe.to_dict())
    what = "; ".join(changed) if changed else "the files of the source changed, or some came or went"
    raise ChangedError(f"{storage.url}: resume refused: {what}; build elsewhere, or start again with --overwrite")


def _whole_shards(
    storage: Storage, plan: Plan, samples_per_shard: int, n_shards: int, by_content: bool
) -> dict[int, int]:
    """Return the samples of each shard that is there with all its files as written, and with all its samples.

    Those that were set aside are given another chance.

    Parameters
    ----------
    by_content : compare each file's checksum, not its size alone. A build that was stopped leaves no file that is not
        whole, and `verify` checks every byte of what is finished.
    """
    size = storage.sizes()
    there = {}
    for index, record in enumerate(read.each_record(storage, range(n_shards))):
        part = _part(plan, index, samples_per_shard)
        if (
            record is not None
            and record.is_of(plan.digest)
            and [row["id"] for row in record.rows] == [sample.id for sample in part]
            and not record.set_aside
            and all(size(name) == length for name, (length, _) in record.files.items())
            and not (by_content and read.damaged_files(storage, record))
        ):
            there[index] = len(part)
    return there


def _samples_per_shard(storage: Storage) -> int | None:
    """Return samples in the first shard, by its record: what a store was begun with, where it cannot say so itself."""
    first, second = (read.read_record(storage, index) for index in (0, 1))
    return len(first.rows) if first is not None and second is not None else None


def _disk_error(error: OSError, storage: Storage) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(
            f"{storage.url}: no space left on the device; free some and run the same command with --resume: "
            "what is written stays"
        )
    return error
