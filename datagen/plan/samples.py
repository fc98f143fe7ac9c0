"""Samples that a recipe makes of its volumes: each has a name, a seed and a fold before any is simulated.

    sources ─► volumes ─► (slice | patch) x (itself + augmented variants) ─► chosen by hash ─► in order of name

A `Sample` is small; its image is cut from the volume again where it is simulated.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from ussim.errors import DataError, DeviceError
from ussim.volumes.anatomy import looks_like_labels
from ussim.volumes.budget import limited_memory
from ussim.volumes.files import printable
from ussim.volumes.volume import Skipped, VolumeRef
from ussim.volumes.window import Window

from ..identity import choose_folds, fold_of, sample_id, sample_seed, stable_hash
from ..sources import get_source
from ..sources.scene import Label, Scene
from .augment import Augmentation, apply_augmentation, apply_to_labels, at_size, draw_augmentation
from .examples import LeftOut, left_out, some
from .labels import cut_labels, table_of
from .opened import open_volume
from .packed import Gathering, Packed
from .resolved import KINDS, Cutting, ResolvedRecipe, canonical_json
from .slices import Segmenter, hq_patch, hq_slice, hq_slices

BETWEEN_NOTES = " | "  # of one volume, in the table of volumes
COPIED = "the same pixels as an image of another volume"


@dataclass(frozen=True)
class Sample:
    """One image of the dataset, before it is simulated."""

    id: str
    ref: VolumeRef
    plane: str
    index: int  # of the slice
    kind: str  # "full" or "patch"
    box: tuple[int, int, int, int]  # row0, column0, row1, column1 in MRI pixels
    augmentation: int  # 0: the image itself
    seed: int
    pixel_size_mm: tuple[float | None, float | None]  # of the MRI
    file_sha256: str
    pixels: str = ""  # digest of the image as cut, for finding equal ones; not recorded
    labels_sha256: str = ""  # of the file with its labels, where they have one of their own

    @classmethod
    def of_row(cls, row: Mapping[str, Any], ref: VolumeRef) -> Sample:
        """Return the sample that a row of the table describes, in a volume that was found again."""
        return cls(
            id=row["id"],
            ref=ref,
            plane=row["plane"],
            index=row["slice"],
            kind=row["kind"],
            box=(row["box_row0"], row["box_column0"], row["box_row1"], row["box_column1"]),
            augmentation=row["augmentation"],
            seed=row["seed"],
            pixel_size_mm=(row["mri_pixel_row_mm"], row["mri_pixel_column_mm"]),
            file_sha256=row["file_sha256"],
            labels_sha256=row.get("labels_sha256", ""),
        )

    @property
    def variant(self) -> Augmentation | None:
        """How it was made of the image it is a variant of; None of the image itself."""
        if self.augmentation == 0:
            return None
        return draw_augmentation(np.random.default_rng([self.seed, stable_hash("augmentation")]))

    def row(self, size: int, folds: int, tells_variants: bool = False) -> dict[str, str | int | float | None]:
        """Return what the table of samples says of it, but for what is simulated.

        Parameters
        ----------
        tells_variants : say how a variant was made, and give the size of its own pixels (`datagen.plan.formats`).
        """
        row0, column0, row1, column1 = self.box
        row_mm, column_mm = self.pixel_size_mm
        variant = self.variant if tells_variants else None
        heights = None if row_mm is None else (row1 - row0) * row_mm / size
        widths = None if column_mm is None else (column1 - column0) * column_mm / size
        if variant is not None and heights is not None and widths is not None:
            if variant.quarter_turns % 2:
                heights, widths = widths, heights
            heights, widths = heights * variant.side, widths * variant.side
        return {
            "id": self.id,
            "source": self.ref.source,
            "subject": self.ref.subject,
            "volume": self.ref.name,
            "slice": self.index,
            "plane": self.plane,
            "kind": self.kind,
            "box_row0": row0,
            "box_column0": column0,
            "box_row1": row1,
            "box_column1": column1,
            "augmentation": self.augmentation,
            "seed": self.seed,
            "fold": fold_of(self.ref.source, self.ref.subject, folds),
            "mri_pixel_row_mm": _digits(row_mm),
            "mri_pixel_column_mm": _digits(column_mm),
            "hq_pixel_row_mm": _digits(heights),
            "hq_pixel_column_mm": _digits(widths),
            **(_told(variant) if tells_variants else {}),
            "file_sha256": self.file_sha256,
            **({"labels_sha256": self.labels_sha256} if self.labels_sha256 else {}),
            "set_aside": "",  # the reason, where the images are blank because it could not be simulated
        }


@dataclass(frozen=True)
class VolumeSamples:
    """Samples of one volume."""

    ref: VolumeRef
    samples: tuple[Sample, ...] = ()
    skipped: tuple[tuple[str, int], ...] = ()  # (reason without its numbers, how many images)
    failure: str = ""  # why the volume could not be read
    note: str = ""  # what its voxels say against it
    oddities: tuple[str, ...] = ()  # what was odd about its files, seen when they were read
    file_sha256: str = ""
    window: Window | None = None  # which of its values are black and white
    labels: tuple[tuple[int, str], ...] = ()  # number and name ("" = none) of each of its labels
    left_out: tuple[LeftOut, ...] = ()  # a picture for each reason

    def row(self) -> dict[str, str | int | float | None]:
        """Return what the table of volumes says of it."""
        low, high, by = ("", "", "") if self.window is None else (*self.window.grey, self.window.by)
        return {
            "source": self.ref.source,
            "volume": self.ref.name,
            "subject": self.ref.subject,
            "file_sha256": self.file_sha256,
            "grey_low": low if isinstance(low, str) else f"{low:.6g}",
            "grey_high": high if isinstance(high, str) else f"{high:.6g}",
            "window": by,
            "images": len({(sample.plane, sample.index, sample.kind) for sample in self.samples}),
            "notes": BETWEEN_NOTES.join(dict.fromkeys((*([self.note] if self.note else []), *self.oddities))),
            "set_aside": self.failure,
        }


@dataclass(frozen=True)
class Plan:
    """Every sample of a dataset, in the order of the store, and what was left out."""

    recipe: ResolvedRecipe
    samples: Packed[Sample]
    digest: str  # SHA-256 over the recipe and the identity of every sample, the digests of their files among it
    n_volumes: int  # read
    skipped: dict[str, int]  # images left out, by reason
    unreadable: tuple[tuple[str, str], ...]  # (volume or file, reason)
    notes: tuple[str, ...]
    volumes: tuple[
        dict[str, str | int | float | None], ...
    ] = ()  # what the table of volumes says of those that were read
    subject_rules: tuple[str, ...] = ()  # how it was told whose each volume is, without paths
    labels: tuple[Label, ...] = ()  # what the labels of the samples are called
    asked: str = ""  # digest of the recipe as it was asked for, its folds perhaps not settled
    found: tuple[VolumeRef, ...] = ()  # volumes, read or not, in the order in which they are read
    left_out: tuple[LeftOut, ...] = ()  # pictures of some images that were left out

    @cached_property
    def subjects(self) -> set[tuple[str, str]]:
        """(source, subject) of every sample."""
        return _subjects(self.samples)


@dataclass(frozen=True)
class FoundVolumes:
    """Volumes that the sources of a recipe found, in the order in which they are read."""

    refs: tuple[VolumeRef, ...]
    left_out: tuple[tuple[str, Skipped], ...]  # source, file
    notes: tuple[str, ...]
    subject_rules: tuple[str, ...]


Map = Callable[[Callable[[VolumeRef], VolumeSamples], Iterable[VolumeRef]], Iterator[VolumeSamples]]


def make_plan(
    recipe: ResolvedRecipe,
    map_volumes: Map = map,
    kept: Callable[[ResolvedRecipe, FoundVolumes], Plan | None] | None = None,
) -> Plan:
    """Find the volumes, cut them, choose and order the samples.

    Parameters
    ----------
    map_volumes : `map`, or one that works on several volumes at a time and keeps their order.
    kept : returns the plan that was made of the same volumes before, None where there is none.

    Raises
    ------
    DataError
        There is nothing to make, with the reasons.
    FoldError
        The number of folds asked for leaves one empty.
    """
    found = find_volumes(recipe)
    before = None if kept is None else kept(recipe, found)
    return plan_volumes(recipe, found, map_volumes) if before is None else before


def find_volumes(recipe: ResolvedRecipe) -> FoundVolumes:
    """Find the volumes of a recipe's sources, by names and headers; raises DataError where a source has none."""
    refs: list[VolumeRef] = []
    left_out: list[tuple[str, Skipped]] = []
    notes: list[str] = []
    rules: list[str] = []
    memory = recipe.inputs.max_memory
    for name, root in zip(recipe.source, recipe.inputs.roots, strict=True):
        with limited_memory(memory):
            found = get_source(name, recipe.selection).find(root)
        refs += [replace(ref, max_memory=memory) for ref in found]
        rules += [f"{name}: {rule.partition(': ')[0]}" for rule in found.subjects]
        left_out += [(name, item) for item in found.skipped]
        notes += [f"{name}: {note}" for note in found.notes]
    # In the order of their hashes, so that a small choice need not read every volume.
    refs.sort(key=lambda ref: (stable_hash(ref.source, ref.name), ref.source, ref.name))
    return FoundVolumes(tuple(refs), tuple(left_out), tuple(notes), tuple(rules))


def plan_volumes(recipe: ResolvedRecipe, found: FoundVolumes, map_volumes: Map = map) -> Plan:
    """Cut volumes, choose and order the samples; `make_plan` of what was found."""
    notes = list(found.notes)
    read: list[VolumeSamples] = []  # without the samples
    rows = []
    seen: dict[bytes, VolumeRef] = {}
    limits = dict(zip(KINDS, (recipe.limit_full, recipe.limit_patches), strict=True))
    gathering = Gathering(Sample, KINDS, recipe.limit, limits)
    skipped = Counter[str]()
    pictures: tuple[LeftOut, ...] = ()
    for volume in map_volumes(_Cutter(recipe.cutting), found.refs):
        volume, copied = _without_copies(volume, seen)
        notes += copied
        notes += [f"{volume.ref.source}: {volume.ref.name}: {volume.note}"] if volume.note else []
        rows.append(volume.row())
        skipped.update(dict(volume.skipped))
        gathering.add(volume.ref, volume.samples)
        pictures = some(pictures, volume.left_out)
        read.append(replace(volume, samples=(), left_out=()))
        if _enough(gathering.holding, recipe):
            break
    oddities = [(volume.ref.source, note) for volume in read for note in dict.fromkeys(volume.oddities)]
    unreadable = [(f"{volume.ref.source}: {volume.ref.name}", volume.failure) for volume in read if volume.failure]
    samples = gathering.packed()
    if not samples:
        reasons = [(f"{name}: {item.path}", item.reason) for name, item in found.left_out]
        raise DataError(_nothing(recipe, len(read), skipped, [*reasons, *unreadable]))
    subjects = _subjects(samples)
    folds = choose_folds(subjects, recipe.folds or None)
    settled = replace(recipe, folds=folds)
    return Plan(
        recipe=settled,
        samples=samples,
        digest=_digest(settled, samples),
        n_volumes=len(read),
        skipped=dict(sorted(skipped.items())),
        unreadable=tuple(unreadable),
        notes=(
            *notes,
            *fold_notes(folds, recipe.folds, subjects),
            *left_out_notes(found.left_out),
            *oddity_notes(oddities),
        ),
        volumes=tuple(sorted(rows, key=lambda row: (str(row["source"]), str(row["volume"])))),
        subject_rules=found.subject_rules,
        labels=_label_table(recipe, read),
        asked=recipe.digest,
        found=found.refs,
        left_out=pictures,
    )


def _subjects(samples: Packed[Sample]) -> set[tuple[str, str]]:
    """Return (source, subject) of every sample."""
    return {(samples.refs[place].source, samples.refs[place].subject) for place in samples.used}


def _label_table(recipe: ResolvedRecipe, read: Sequence[VolumeSamples]) -> tuple[Label, ...]:
    """Return what the labels of a dataset are called; () where there are none."""
    known = tuple(label for name in recipe.source for label in get_source(name).labels)
    named = [] if recipe.tissues is None else recipe.tissues.labels()
    return known or table_of(((volume.ref.name, volume.labels) for volume in read), named)


def _digest(recipe: ResolvedRecipe, samples: Iterable[Sample]) -> str:
    """Return the digest of {"recipe": ..., "samples": [row, ...]}, one row in memory at a time."""
    total = hashlib.sha256(f'{{"recipe":{canonical_json(recipe.to_dict())},"samples":['.encode())
    for place, sample in enumerate(samples):
        row = canonical_json(sample.row(recipe.size, recipe.folds, recipe.tells_variants))
        total.update(f"{',' if place else ''}{row}".encode())
    total.update(b"]}")
    return total.hexdigest()


def fold_notes(folds: int, asked: int, subjects: Collection[tuple[str, str]]) -> list[str]:
    """Return what is to be said where no split into training and test is possible.

    Parameters
    ----------
    asked : how many folds were asked for, 0 = as many as there can be.
    """
    if folds > 1:
        return []
    if len(subjects) == 1:
        why = "all samples are of one subject"
    else:
        why = "one fold was asked for" if asked else f"the {len(subjects)} subjects fall into one fold by their names"
    return [f"{why}: no split into training and test is possible"]


def left_out_notes(files: Sequence[tuple[str, Skipped]]) -> list[str]:
    """Return a line per reason for which files were left out."""
    kinds: dict[tuple[str, str], list[Skipped]] = defaultdict(list)
    for source, item in files:
        kinds[source, item.counted_as].append(item)
    return [
        f"left out {source}: {items[0].path}: {items[0].reason}"
        if len(items) == 1
        else f"left out {source}: {len(items)} x {kind} (first: {items[0].shown})"
        for (source, kind), items in sorted(kinds.items(), key=lambda entry: -len(entry[1]))
    ]


def oddity_notes(oddities: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line per oddity of volumes that were read (its source, what is odd), the most frequent first."""
    count = Counter(oddities)
    return [f"{source}: {note} ({n} volume{'s' * (n != 1)})" for (source, note), n in count.most_common()]


def cut_volume(ref: VolumeRef, cutting: Cutting) -> VolumeSamples:
    """Every sample of one volume, without the images. A volume that cannot be read is a failure, not an error."""
    if get_source(ref.source).makes_images:
        return _made_samples(ref, cutting)
    skipped = Counter[str]()
    samples = []
    first: dict[str, tuple[str, int]] = {}  # plane and index of the first slice that was left out for a reason

    def skip(plane: str, index: int, kind: str, reason: str) -> None:
        counted = f"{kind}: {_kind_of_reason(reason)}"
        skipped[counted] += 1
        if kind in cutting.kinds:
            first.setdefault(counted, (plane, index))

    try:
        opened = open_volume(ref, cutting)
        volume, window, labels = opened.volume, opened.window, opened.labels
        for image in hq_slices(
            volume,
            dict(cutting.planes)[ref.source],
            cutting.every,
            cutting.min_tissue,
            cutting.size,
            patches="patch" in cutting.kinds,
            segmenter=_segmenter(cutting, ref.source),
            window=window,
            on_skip=skip,
        ):
            if image.kind not in cutting.kinds:
                continue
            pixels = f"{image.kind} {hashlib.sha256(image.image.tobytes()).hexdigest()}"
            samples += _variants(
                ref,
                cutting,
                plane=image.plane,
                index=image.index,
                kind=image.kind,
                box=image.box,
                pixel_size_mm=image.pixel_size_mm,
                file_sha256=volume.file_sha256,
                pixels=pixels,
                labels_sha256="" if labels is None else labels.sha256,
            )
        pictures = tuple(left_out(volume, window, *place, reason) for reason, place in first.items())
    except (DeviceError, ImportError):  # of the machine, not of this volume
        raise
    except Exception as error:
        failure = str(error) if isinstance(error, DataError | OSError) else f"{type(error).__name__}: {error}"
        return VolumeSamples(ref, failure=" ".join(failure.split()))
    counts = {reason: n for reason, n in skipped.items() if reason.partition(":")[0] in cutting.kinds}
    note = looks_like_labels(volume.voxels) if cutting.tissues is None else ""
    notes = (*volume.notes, *window.notes)
    return VolumeSamples(
        ref,
        tuple(samples),
        tuple(sorted(counts.items())),
        "",
        note,
        notes,
        volume.file_sha256,
        window,
        () if labels is None else tuple((value, labels.names.get(value, "")) for value in labels.values),
        pictures,
    )


def _made_samples(ref: VolumeRef, cutting: Cutting) -> VolumeSamples:
    """Every sample of an image that is made, not cut: it is not made yet."""
    source = get_source(ref.source)
    identity, side = source.identity(ref), source.side
    (plane,) = source.default_planes
    samples = _variants(
        ref,
        cutting,
        plane=plane,
        index=0,
        kind="full",
        box=(0, 0, side, side),
        pixel_size_mm=(None, None),
        file_sha256=identity,
        pixels=identity,
    )
    return VolumeSamples(ref, tuple(samples), file_sha256=identity)


def _variants(ref: VolumeRef, cutting: Cutting, *, plane: str, index: int, kind: str, **values: Any) -> list[Sample]:
    """Return the samples of one image: itself and its variants."""
    identifiers = [
        sample_id(ref.source, ref.name, plane, index, kind, augmentation)
        for augmentation in range(cutting.augmentations + 1)
    ]
    return [
        Sample(
            id=identifier,
            ref=ref,
            plane=plane,
            index=index,
            kind=kind,
            augmentation=augmentation,
            seed=sample_seed(cutting.seed, identifier),
            **values,
        )
        for augmentation, identifier in enumerate(identifiers)
    ]


def _without_copies(volume: VolumeSamples, seen: dict[bytes, VolumeRef]) -> tuple[VolumeSamples, list[str]]:
    """Return a volume without the images that another one has, pixel by pixel, and a line for each such volume.

    An image is built once, so that no copy of it, whatever its name, lands in another fold.
    """
    kept: list[Sample] = []
    copies = Counter[VolumeRef]()
    for sample in volume.samples:
        # 12 bytes of a digest: of a million images two are taken for one with a probability of 10^-17.
        first = seen.setdefault(hashlib.sha256(sample.pixels.encode()).digest()[:12], volume.ref)
        if first is volume.ref:
            kept.append(sample)
        elif not sample.augmentation:
            copies[first] += 1
    if not copies:
        return volume, []
    skipped = Counter(dict(volume.skipped)) + Counter({COPIED: copies.total()})
    lines = [
        f"{count} image{'s' * (count != 1)} of {printable(volume.ref.paths[0])} equal{'s' * (count == 1)} those of "
        f"{printable(first.paths[0])}: built once"
        for first, count in copies.items()
    ]
    return replace(volume, samples=tuple(kept), skipped=tuple(sorted(skipped.items()))), lines


def scene_of(sample: Sample, cutting: Cutting) -> Scene:
    """Return what is imaged of a sample: its HQ image, labels where there are any, and what else shapes an image of it.

    Raises
    ------
    DataError
        The volume is no longer what it was when the sample was planned, or cannot be read.
    """
    source, tissues = get_source(sample.ref.source), cutting.tissues
    made = source.scene(sample.ref, cutting.dynamic_range_db) if source.makes_images else None
    if made is None:
        scene = _cut_scene(sample, cutting)
    else:
        if tissues is not None and made.labels is not None:
            grey = tissues.painted(made.hq, made.labels, source.labels, cutting.dynamic_range_db)
            made = replace(made, hq=grey)
        scene = at_size(made, sample.variant, cutting.size)
    return scene if tissues is None else tissues.scene(scene, source.labels, source.is_labels)


def image_of(sample: Sample, cutting: Cutting) -> np.ndarray:
    """Return the HQ image of a sample, (size, size) uint8; raises DataError as `scene_of` does."""
    return scene_of(sample, cutting).picture(cutting.dynamic_range_db)


def _cut_scene(sample: Sample, cutting: Cutting) -> Scene:
    """Return the image of a sample, and its labels, cut from its volume."""
    opened = _opened(sample.ref, cutting)
    volume, window = opened.volume, opened.window
    if volume.file_sha256 != sample.file_sha256:
        raise DataError(f"{sample.ref.source} {sample.ref.name}: the file changed while the dataset was being built")
    if opened.labels is not None and sample.labels_sha256 not in ("", opened.labels.sha256):
        raise DataError(f"{sample.ref.source} {sample.ref.name}: its labels changed while the dataset was being built")
    # A variant is interpolated once, from the pixels of the MRI.
    variant, size = sample.variant, cutting.size if sample.augmentation == 0 else None
    segmenter = _segmenter(cutting, sample.ref.source)
    if sample.kind == "patch":
        cut = hq_patch(volume, sample.plane, sample.index, size, window=window, segmenter=segmenter)
    else:
        cut = hq_slice(
            volume, sample.plane, sample.index, size, window=window, min_tissue=cutting.min_tissue, segmenter=segmenter
        )
    labels = None
    if opened.labels is not None:
        labels = cut_labels(opened.labels.volume, sample.plane, sample.index, cut.box, size)
    if variant is None:
        return Scene(cut.image, labels)
    labels = None if labels is None else apply_to_labels(labels, variant, cutting.size)
    return Scene(apply_augmentation(cut.image, variant, cutting.size), labels)


# --- helpers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cutter:
    """`cut_volume` with its cutting bound: picklable."""

    cutting: Cutting

    def __call__(self, ref: VolumeRef) -> VolumeSamples:
        return cut_volume(ref, self.cutting)

    def lost(self, ref: VolumeRef, reason: str) -> VolumeSamples:
        """Return what is said of a volume that ends whoever reads it."""
        return VolumeSamples(ref, failure=reason)


# Consecutive samples are of one volume; two, for threads that meet at a border.
_opened = lru_cache(maxsize=2)(open_volume)


@lru_cache(maxsize=4)
def _segmenter(cutting: Cutting, source: str) -> Segmenter | None:
    if get_source(source).is_labels:
        return lambda image: image > 0  # whatever a tissue was painted in
    if cutting.segmenter == "otsu":
        return None  # the default of `datagen.plan.slices`
    from .segment import sam2_segmenter

    return sam2_segmenter(cutting.sam2_checkpoint)


def _enough(holding: Mapping[str | None, int], recipe: ResolvedRecipe) -> bool:
    """Tell whether reading more volumes would change nothing: each limit is met by the first sample of each volume.

    Parameters
    ----------
    holding : how many volumes have a sample of each kind, and of any (None).
    """
    if recipe.limit is not None:
        return recipe.limit_full is None and recipe.limit_patches is None and holding[None] >= recipe.limit
    limits = dict(zip(KINDS, (recipe.limit_full, recipe.limit_patches), strict=True))
    wanted = {kind: limits[kind] for kind in recipe.cutting.kinds}
    return all(limit is not None and holding[kind] >= limit for kind, limit in wanted.items())


def _kind_of_reason(reason: str) -> str:
    """Return a reason without its numbers, so that like ones are counted together."""
    if "noise" in reason:
        return "nothing brighter than the noise of the volume"
    if reason.startswith("the largest square"):
        return "too small a square inside the tissue"
    return "too little tissue" if "tissue" in reason else "too few pixels"


def _nothing(
    recipe: ResolvedRecipe, n_volumes: int, skipped: Counter[str], unreadable: Sequence[tuple[str, str]]
) -> str:
    """Return why there is no sample at all."""
    reasons = [f"{count} {reason}" for reason, count in skipped.most_common()]
    reasons += [f"{what}: {reason}" for what, reason in unreadable[:1]]
    more = f" (and {len(unreadable) - 1} more)" if len(unreadable) > 1 else ""
    why = "; ".join(reasons) or "the planes asked for are not there"
    return (
        f"{', '.join(recipe.source)}: nothing to build: {n_volumes} volumes gave no usable image: {why}{more}; "
        "try a lower --min-tissue, or other --planes"
    )


def _told(variant: Augmentation | None) -> dict[str, int | float | None]:
    """Return what the table says of how a variant was made: empty of the image itself."""
    said = variant or Augmentation()
    values = {
        "flip": int(said.flip),
        "quarter_turns": said.quarter_turns,
        "angle_deg": _digits(math.degrees(said.angle)),
        "scale": _digits(said.scale),
        "offset_row": _digits(said.offset[0]),
        "offset_column": _digits(said.offset[1]),
    }
    return {f"augmentation_{name}": None if variant is None else value for name, value in values.items()}


def _digits(value: float | None) -> float | None:
    """Six significant digits, as the table shows them."""
    return None if value is None else float(f"{value:.6g}")
