"""Is a store what was built? Every checksum computed again, and, where asked, some samples simulated again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ussim.errors import DataError
from ussim.volumes.volume import VolumeRef

from ..plan.resolved import ResolvedRecipe
from ..plan.samples import Sample
from ..sources import get_source, resolve_root
from ..store import layout, read, seal, write
from ..store.layout import Attributes, ShardRecord
from ..store.location import Storage, open_storage
from .shards import Job, make_sample

# What another processor or library version may round otherwise: grey levels (0.3 dB of 40), and decibels of an envelope.
TOLERANCE = 2
TOLERANCES = {"lq": TOLERANCE, "envelope": 0.5}
UNITS = {"envelope": "dB", "labels": "in number"}
HEARD_DB = -60.0  # of an envelope: what is weaker is rounding of the float32 sums that stronger echoes are in, too


@dataclass(frozen=True)
class Report:
    """Result of a check: what was read, and every fault found."""

    n_samples: int
    n_resimulated: int
    faults: tuple[str, ...]
    notes: tuple[str, ...]
    digest: str


def verify(
    path: str | Path,
    resimulate: int = 0,
    *,
    root: str | Path | tuple[str | None, ...] | None = None,
    seed: int | None = None,
    on_shard: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Check a finished store.

    Parameters
    ----------
    resimulate : how many samples to simulate again from the source, drawn at random, and compare byte for byte.
    root : of the source or sources, as in a recipe; only to simulate again.
    seed : of the draw; None = another one each time.
    on_shard : called with the number of shards checked and their total.

    Raises
    ------
    StoreError
        There is no store, or it is unfinished.
    DataError
        The source is not there to be simulated again.
    """
    storage = open_storage(path)
    attributes = read.require_complete(storage)
    broken = seal.broken(storage)
    faults: list[str] = []
    notes: list[str] = []
    lost = False

    def records() -> Iterator[ShardRecord]:
        nonlocal lost
        for index, record in enumerate(read.each_record(storage, range(attributes.n_shards))):
            if record is None:
                lost = True
                faults.append(f"shard {index}: its record {layout.record_key(index)} is missing or damaged")
            elif not record.is_of(attributes.recipe_digest):
                lost = True
                faults.append(f"shard {index}: written by a build of another recipe")
            else:
                faults.extend(_check_shard(storage, record, attributes))
                yield record
            on_shard(index + 1, attributes.n_shards)

    content = layout.Content()
    table = content.table(records())
    wrong_table = _check_table(storage, table)
    for _ in table:  # what comes after a difference
        pass
    if not lost:
        faults += wrong_table or _check_whole(storage, attributes, content)
    faults += [f"{name}: {fault}" for name, fault in broken.items() if not any(name in said for said in faults)]
    n_resimulated = 0
    if resimulate:
        notes += _other_kernels(attributes)
        for wrong, text in _resimulate(storage, attributes, resimulate, root, seed):
            n_resimulated += 1
            if text:
                (faults if wrong else notes).append(text)
    return Report(attributes.n_samples, n_resimulated, tuple(faults), tuple(notes), attributes.digest)


def _check_shard(storage: Storage, record: ShardRecord, attributes: Attributes) -> list[str]:
    """Every image of a shard against its checksums, then its files."""
    faults = []
    harmed = set()
    samples_per_shard = attributes.samples_per_shard
    for key in record.hashes:
        image = layout.image_shape(key, attributes.recipe)
        name = layout.shard_file(key, record.index, image)
        try:
            images = read.decode_shard(storage.read(name), key, image, samples_per_shard)
        except FileNotFoundError:
            images = [f"{name} is missing"] * samples_per_shard
        except OSError as error:
            images = [f"{name} cannot be read: {error.strerror or error}"] * samples_per_shard
        for position, row in enumerate(record.rows):
            fault = _fault(images[position], record, key, position)
            if fault:
                harmed.add(name)
                faults.append(f"sample {row['id']}: {key}: {fault}")
    for name in read.damaged_files(storage, record):
        if name not in harmed:  # a byte that no image is made of
            first, last = record.rows[0]["id"], record.rows[-1]["id"]
            faults.append(f"{name} (samples {first} to {last}): not the file that was written, though its images are")
    return faults


def _fault(image: np.ndarray | str, record: ShardRecord, key: str, position: int) -> str:
    """Return what is wrong with one image, "" where nothing is."""
    if isinstance(image, str):
        return image
    if layout.image_hash(image) != record.hashes[key][position]:
        return "not the image that was written: its checksum differs"
    actual = layout.image_crc32(image)
    recorded = record.rows[position].get(layout.crc_column(key), actual)
    return "" if recorded == actual else "the recorded crc32 is not that of the image"


def _check_table(storage: Storage, table: Iterator[bytes]) -> list[str]:
    """Return what is wrong with the table of samples, by what the shards record."""
    try:
        line = read.first_difference(storage.read_parts(layout.SAMPLES), table)
    except OSError as error:
        return [f"the store cannot be read: {type(error).__name__}: {error}"]
    return [] if line is None else [f"{layout.SAMPLES}: line {line} is not what the shards record"]


def _check_whole(storage: Storage, attributes: Attributes, content: layout.Content) -> list[str]:
    """Return what is wrong with the masks, the metadata and the digest over all of it."""
    try:
        masks = read.read_fixed_masks(storage)
        group = read.open_group(storage, use_consolidated=False)  # each array's own metadata too
        for key in content.keys:
            expected = (attributes.n_samples, *layout.image_shape(key, attributes.recipe))
            if group[key].shape != expected:
                return [f"{key}: expected shape {expected}, got {group[key].shape}"]
    except Exception as error:  # whatever damaged metadata provoke in zarr
        return [f"the store cannot be read: {type(error).__name__}: {error}"]
    if content.digest(masks) != attributes.digest:
        return ["the digest in the attributes is not that of the content: a mask or an attribute was changed"]
    return []


def find_refs(
    recipe: ResolvedRecipe, root: str | Path | tuple[str | None, ...] | None
) -> dict[tuple[str, str], VolumeRef]:
    """Return the volumes of a recipe's sources, found again: (source, volume) -> where it is; raises DataError."""
    roots = (root,) * len(recipe.source) if root is None or isinstance(root, str | Path) else root
    refs: dict[tuple[str, str], VolumeRef] = {}
    # Who was imaged shapes the folds, not the images: it is not needed here.
    for name, folder in zip(recipe.source, roots, strict=True):
        refs |= {(name, ref.name): ref for ref in get_source(name, recipe.selection).find(resolve_root(name, folder))}
    return refs


def _resimulate(
    storage: Storage,
    attributes: Attributes,
    count: int,
    root: str | Path | tuple[str | None, ...] | None,
    seed: int | None,
) -> Iterator[tuple[bool, str]]:
    """Yield some samples made again from the source: (whether that is a fault, what differs)."""
    recipe = attributes.recipe
    refs = find_refs(recipe, root)
    made = np.flatnonzero(~read.read_index(storage, attributes.n_samples)["set_aside"])
    drawn = made[np.sort(np.random.default_rng(seed).permutation(len(made))[:count])]
    job = Job(storage.url, 0, (), recipe, attributes.samples_per_shard)
    for i in map(int, drawn):
        row = _row(storage, i, attributes.samples_per_shard)
        ref = refs.get((str(row["source"]), str(row["volume"])))
        if ref is None:
            raise DataError(f"{row['id']}: the volume {row['volume']!r} is not in the source any more")
        shard, position = divmod(i, attributes.samples_per_shard)
        yield _compare(storage, shard, position, Sample.of_row(row, ref), job)


def _other_kernels(attributes: Attributes) -> list[str]:
    """Return a note where other kernels made the store: what is simulated again may differ in the last grey level."""
    made, here = attributes.versions.get("kernels"), write.provenance(attributes.recipe.engine).get("kernels")
    return [f"made by other kernels ({made}; here {here})"] if made and here and made != here else []


def _row(storage: Storage, sample: int, samples_per_shard: int) -> layout.Row:
    """Return the row of one sample, as its shard records it."""
    shard, position = divmod(sample, samples_per_shard)
    record = read.read_record(storage, shard)
    if record is None:
        raise layout.StoreError(f"{storage.url}: {layout.record_key(shard)} is missing or damaged")
    return layout.typed_row(record.rows[position])


def _compare(
    storage: Storage,
    shard: int,
    position: int,
    sample: Sample,
    job: Job,
) -> tuple[bool, str]:
    """One sample made again, against what the store holds."""
    made = make_sample(sample, job)
    if made.row["set_aside"]:
        return True, f"sample {sample.id}: could not be made again: {made.row['set_aside']}"
    for key, image in made.images.items():
        name = layout.shard_file(key, shard, image.shape)
        stored = read.decode_shard(storage.read(name), key, image.shape, job.samples_per_shard)[position]
        if isinstance(stored, str):
            return True, f"sample {sample.id}: {key}: {stored}"
        kind = key.partition("/")[0]
        difference = np.abs(_comparable(image) - _comparable(stored))
        if not difference.any():
            continue
        share = np.count_nonzero(difference) / difference.size
        most = f"{difference.max():.3g} {UNITS.get(kind, 'grey levels')}"
        if difference.max() > TOLERANCES.get(kind, 0):
            return True, (
                f"sample {sample.id}: {key}: simulated again, {share:.1%} of the pixels differ, by up to {most}"
            )
        return False, f"sample {sample.id}: {key}: {share:.2%} of the pixels differ by {most}"
    return False, ""


def _comparable(image: np.ndarray) -> np.ndarray:
    """Return an image in float32; of an envelope, which has decibels, what is weaker than HEARD_DB as that."""
    values = image.astype(np.float32)
    return np.maximum(values, np.float32(HEARD_DB)) if image.dtype == np.float16 else values
