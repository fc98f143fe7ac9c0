"""The store: what a dataset looks like on disk.

    pairs.zarr/
      zarr.json            Zarr v3 group; attributes: complete, recipe, recipe_digest, digest, source, licence, versions, ...
      hq/                  (n, H, W) uint8, dimensions sample, z, x
      lq/<PROBE>/          (n, H, W) uint8; a slash in a probe's name is written as an underscore
                           with K > 1 speckle draws (n, K, H, W), dimensions sample, draw, z, x
      envelope/<PROBE>/    shaped as lq, float16: dB of LQ's white, -120 and less as -120; where `keep` has "envelope"
      labels/              (n, H, W) uint16, names and colors in its attributes; where samples have labels
      lq/z/, lq/x/         pixel centers, mm (`datagen.store.coordinates`)
      mask/<PROBE>/        (H, W) bool, or (n, H, W) where the acquisition is drawn for each sample
      samples.csv          one row per sample, in the order of the arrays
      volumes.csv          one row per volume that was read: its grey window, what is odd about it, why it was set aside
      build/shards/*.json  one record a finished shard: its rows, and a checksum of every file
      build/files.json     digest of every other file: the seal of a finished store (`datagen.store.seal`)
      build/log.jsonl      times and host names; no digest covers it

A shard is encoded in memory, its files are put in place whole, and its record, written last, is what makes it exist.
Until the end the group says `complete: false`, and readers refuse it.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ussim.errors import DataError

from ..plan.resolved import ResolvedRecipe, array_name
from ..sources.scene import Label
from .coordinates import coordinates_of, named_by, ome_of

FORMAT = 1
DIMENSIONS = ("sample", "z", "x")
DRAW = "draw"  # the second dimension where there are several draws
LABELS = "labels"
SAMPLES = "samples.csv"
VOLUMES = "volumes.csv"
BEGUN = "build/begun"
LARGEST_SHARD = 64  # samples: 4 MiB of 256 x 256
SHARDS = 128  # a dataset is cut into about this many until shards have their largest size
CHUNK = 8  # samples compressed together: a whole shard reads four times as fast as with one
COMPRESSION_LEVEL = 3
ALL_CHUNKS = {"write_empty_chunks": True}  # images of zeros are written too: every file that a record names exists


Value = str | int | float | None
Row = dict[str, Value]  # of the table of samples: column -> value


class StoreError(DataError):
    """A store that is missing, unfinished or damaged; the message says what to do."""


@dataclass(frozen=True)
class Terms:
    """Under which terms the images of a source are."""

    name: str
    title: str
    licence: str
    citation: str
    terms: str
    redistributable: bool


@dataclass(frozen=True)
class Attributes:
    """Attributes of the group of a store. A dictionary at the disk only."""

    recipe: ResolvedRecipe
    recipe_digest: str  # over the recipe and the identity of every sample
    source: str
    licence: str
    citation: str
    sources: tuple[Terms, ...]
    probes: dict[str, str]  # name -> name of its arrays
    n_samples: int
    n_shards: int
    samples_per_shard: int
    subject_rules: tuple[str, ...] = ()
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)  # images left out, by reason
    unreadable: tuple[str, ...] = ()
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    labels: tuple[Label, ...] = ()  # what the labels of the samples are called
    n_set_aside: int = 0
    complete: bool = False
    digest: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return what a store that is begun says: nothing yet of its end."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        for name in ("n_set_aside", "complete", "digest"):
            del values[name]
        if not self.labels:
            del values["labels"]
        else:
            values["labels"] = [dataclasses.asdict(label) | {"color": list(label.color)} for label in self.labels]
        return values | {
            "recipe": self.recipe.to_dict(),
            "sources": [dataclasses.asdict(terms) for terms in self.sources],
            "subject_rules": list(self.subject_rules),
            "unreadable": list(self.unreadable),
        }

    @classmethod
    def from_dict(cls, attributes: dict[str, Any]) -> Attributes:
        """Return what the attributes of a group on disk say."""
        known = {item.name for item in dataclasses.fields(cls)}
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in attributes.items()
            if name in known
        }
        values["recipe"] = ResolvedRecipe.from_dict(attributes["recipe"])
        values["sources"] = tuple(Terms(**terms) for terms in attributes["sources"])
        values["labels"] = tuple(
            Label(label["value"], label["name"], tuple(label["color"])) for label in attributes.get("labels", ())
        )
        return cls(**values)


@dataclass(frozen=True)
class ShardRecord:
    """Record that makes a shard exist: its rows of the table, and checksums of its files and images."""

    index: int
    files: dict[str, tuple[int, int]]  # key -> bytes, CRC-32
    rows: list[Row]
    hashes: dict[str, list[str]]  # key of an array -> SHA-256 of each image
    recipe_digest: str = ""  # of the build that wrote it; "" = written before it was recorded

    def to_dict(self) -> dict[str, Any]:
        """Return what is written."""
        files = {name: list(sums) for name, sums in self.files.items()}
        record = {"shard": self.index, "files": files, "rows": self.rows, "hashes": self.hashes}
        return record | ({"recipe_digest": self.recipe_digest} if self.recipe_digest else {})

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> ShardRecord:
        """Return what was written; raises KeyError, TypeError or ValueError where it is not that."""
        files = {name: (length, checksum) for name, (length, checksum) in record["files"].items()}
        for row in record["rows"]:
            row["id"], row["set_aside"]
        return cls(record["shard"], files, record["rows"], record["hashes"], record.get("recipe_digest", ""))

    def is_of(self, recipe_digest: str) -> bool:
        """Return whether a build of this recipe wrote it, as far as it says."""
        return self.recipe_digest in ("", recipe_digest)

    @property
    def set_aside(self) -> list[tuple[str, str]]:
        """(sample, reason) of those that were set aside."""
        return [(str(row["id"]), str(row["set_aside"])) for row in self.rows if row["set_aside"]]


def shard_size(n_samples: int) -> int:
    """Return samples in a shard: a power of two, more of them the larger the dataset."""
    wanted = max(1, math.ceil(n_samples / SHARDS))
    return min(LARGEST_SHARD, 1 << (wanted - 1).bit_length())


def lq_key(probe_name: str) -> str:
    """Path of a probe's simulated images in a store."""
    return f"lq/{array_name(probe_name)}"


def envelope_key(probe_name: str) -> str:
    """Path of a probe's envelopes in a store."""
    return f"envelope/{array_name(probe_name)}"


def mask_key(probe_name: str) -> str:
    """Path of a probe's field of view in a store."""
    return f"mask/{array_name(probe_name)}"


def record_key(index: int) -> str:
    """Path of a shard's record in a store."""
    return f"build/shards/{index:06d}.json"


def shard_file(key: str, index: int, image: tuple[int, ...]) -> str:
    """Path of the file of one array in one shard; `image` is the shape of one sample in it."""
    return "/".join([key, "c", str(index), *("0" for _ in image)])


def image_shape(key: str, recipe: ResolvedRecipe) -> tuple[int, ...]:
    """Return the shape of one sample in an array of a store."""
    square = (recipe.size, recipe.size)
    drawn = recipe.speckle_draws > 1 and key.startswith(("lq/", "envelope/"))
    return (recipe.speckle_draws, *square) if drawn else square


def dtype_of(key: str) -> str:
    """Return the type of the numbers in an array of a store."""
    return {"mask": "bool", "envelope": "float16", LABELS: "uint16"}.get(key.partition("/")[0], "uint8")


def stacks_of(recipe: ResolvedRecipe) -> dict[str, dict[str, Any]]:
    """Return the arrays with an image of each sample in a store, but for the masks: key -> attributes."""
    names = [probe.name for probe in recipe.probes]
    stacks: dict[str, dict[str, Any]] = {"hq": {}}
    stacks |= {lq_key(name): {"probe": name} for name in names}
    if "envelope" in recipe.keep:
        stacks |= {envelope_key(name): {"probe": name, "unit": "dB"} for name in names}
    return stacks | ({LABELS: {}} if recipe.has_labels else {})


# --- content ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Content:
    """Sum of all records: the table of samples, and a hash of each array's images in order."""

    table: str
    hashes: dict[str, str]

    def digest(self, masks: dict[str, np.ndarray]) -> str:
        """SHA-256 over hq, lq, masks and samples, given the masks that hold for all samples.

        The same whatever the shards, the workers and the order they ended in.
        """
        total = hashlib.sha256(self.table.encode())
        for key, value in sorted(({key: image_hash(mask) for key, mask in masks.items()} | self.hashes).items()):
            total.update(f"\n{key} {value}".encode())
        return total.hexdigest()


def gather(records: Iterable[ShardRecord]) -> Content:
    """Return the content of some records, one after the other: a million samples need not be in memory."""
    text = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    hashes: dict[str, Any] = {}
    for record in records:
        if writer is None:
            writer = _table_writer(text, record.rows)
        writer.writerows(record.rows)
        for key, values in record.hashes.items():
            hashes.setdefault(key, hashlib.sha256()).update("".join(values).encode())
    return Content(text.getvalue(), {key: value.hexdigest() for key, value in hashes.items()})


def image_hash(image: np.ndarray) -> str:
    """SHA-256 of an image's pixels, row by row."""
    return hashlib.sha256(image.tobytes()).hexdigest()


def image_crc32(image: np.ndarray) -> int:
    """CRC-32 of an image's pixels, row by row."""
    return zlib.crc32(image.tobytes())


# --- the table of samples --------------------------------------------------------------------------------------------


def crc_column(key: str) -> str:
    """Return the column that holds the crc32 of an array's images: "crc32_hq", "crc32_L11-5v"."""
    return f"crc32_{key.removeprefix('lq/').replace('/', '_')}"


def format_table(rows: Sequence[Mapping[str, Value]]) -> str:
    """Rows as CSV with a header, columns in the order of the first row."""
    text = io.StringIO()
    _table_writer(text, rows).writerows(rows)
    return text.getvalue()


def _table_writer(text: io.StringIO, rows: Sequence[Mapping[str, Value]]) -> csv.DictWriter[str]:
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    return writer


def parse_table(text: str) -> list[Row]:
    """Return what `format_table` wrote, with types."""
    return [{name: typed(value, name) for name, value in row.items()} for row in csv.DictReader(io.StringIO(text))]


TEXT_COLUMNS = frozenset(
    {"id", "source", "subject", "volume", "plane", "kind", "file_sha256", "labels_sha256", "set_aside"}
)


def typed(value: str, name: str) -> Value:
    """Return a field of the table: whole numbers, decimals and text as such, an empty field as None."""
    if name in TEXT_COLUMNS:
        return value
    if value == "":
        return None
    try:
        return int(value)
    except ValueError:
        return float(value)


# --- arrays in memory ------------------------------------------------------------------------------------------------


def create_stack(
    group: Any,
    key: str,
    dtype: str,
    n_samples: int,
    image: tuple[int, ...],
    samples_per_shard: int,
    attributes: dict[str, Any] | None = None,
) -> Any:
    """Create the array of one kind of image, (n_samples, *image), in shards; draws are read one by one."""
    from zarr.codecs import ZstdCodec

    return group.create_array(
        key,
        shape=(n_samples, *image),
        shards=(samples_per_shard, *image),
        chunks=(math.gcd(CHUNK, samples_per_shard), *(1 for _ in image[:-2]), *image[-2:]),
        dtype=dtype,
        fill_value=False if dtype == "bool" else 0,
        compressors=ZstdCodec(level=COMPRESSION_LEVEL),
        dimension_names=DIMENSIONS if len(image) == 2 else (DIMENSIONS[0], DRAW, *DIMENSIONS[1:]),
        attributes=attributes,
        config=ALL_CHUNKS,
    )


def memory_group(attributes: dict[str, Any], files: dict[str, bytes] | None = None) -> tuple[Any, dict[str, Any]]:
    """Return a Zarr group in memory, made anew or of the files given, and the files it is kept in."""
    import zarr
    from zarr.core.buffer.cpu import Buffer
    from zarr.storage import MemoryStore

    memory: dict[str, Any] = {key: Buffer.from_bytes(content) for key, content in (files or {}).items()}
    if "zarr.json" in memory:
        return zarr.open_group(MemoryStore(memory), mode="r+", use_consolidated=False), memory
    return zarr.create_group(MemoryStore(memory), attributes=attributes), memory


def contents(memory: dict[str, Any]) -> dict[str, bytes]:
    """Return the files that a group in memory is kept in, by key."""
    return {key: value.to_bytes() for key, value in memory.items()}


def consolidate(memory: dict[str, Any]) -> None:
    """Gather the metadata of all nodes in the group's.

    Members are then known without a listing, which would stumble over the files that are no part of the Zarr hierarchy.
    """
    import warnings

    import zarr
    from zarr.storage import MemoryStore

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that consolidated metadata is an extension of Zarr v3: readers may ignore it
        zarr.consolidate_metadata(MemoryStore(memory))


# --- files -----------------------------------------------------------------------------------------------------------


def empty_store(attributes: Attributes, masks: dict[str, np.ndarray | None]) -> dict[str, bytes]:
    """Return the files of a store without images, in the order in which they are written.

    The group's own metadata come last: with them the store is one that can be resumed.

    Parameters
    ----------
    masks : (size, size) bool of every probe; None where each sample has its own.
    """
    group, memory = memory_group(attributes.to_dict() | {"format": FORMAT, "complete": False})
    recipe = attributes.recipe
    stacks = stacks_of(recipe)
    if LABELS in stacks:
        stacks[LABELS] = {
            "names": {str(label.value): label.name for label in attributes.labels},
            "colors": {str(label.value): list(label.color) for label in attributes.labels},
        }
    for name, mask in masks.items():
        if mask is None:
            stacks[mask_key(name)] = {"probe": name}
            continue
        array = group.create_array(
            mask_key(name),
            shape=mask.shape,
            chunks=mask.shape,
            dtype="bool",
            dimension_names=DIMENSIONS[1:],
            attributes={"probe": name},
            config=ALL_CHUNKS,
        )
        array[:] = mask
    for key, described in stacks.items():
        create_stack(
            group, key, dtype_of(key), attributes.n_samples, image_shape(key, recipe), attributes.samples_per_shard,
            described,
        )  # fmt: skip
    _place(group, recipe)
    return dict(sorted(contents(memory).items(), key=lambda item: item[0] == "zarr.json"))


def coordinate_keys(recipe: ResolvedRecipe) -> list[str]:
    """Return the paths of the coordinate arrays in a store; stores of before have none."""
    return [f"{group}/{name}" for group in _placed(recipe) for name in coordinates_of(recipe)]


def _placed(recipe: ResolvedRecipe) -> list[str]:
    """Return the groups of a store that hold images on the probes' grids."""
    return list(dict.fromkeys(key.partition("/")[0] for key in stacks_of(recipe) if "/" in key))


def _place(store: Any, recipe: ResolvedRecipe) -> None:
    """Say in a store without images where their pixels lie."""
    for group in (store[name] for name in _placed(recipe)):
        for name, coordinate in coordinates_of(recipe).items():
            array = group.create_array(
                name,
                shape=coordinate.values.shape,
                chunks=coordinate.values.shape,
                dtype="float64",
                dimension_names=(coordinate.axis,),
                attributes=coordinate.attributes,
                config=ALL_CHUNKS,
            )
            array[:] = coordinate.values
        for probe in recipe.probes:
            array = group[array_name(probe.name)]
            array.attrs.update(named_by(recipe, probe.name))
            group.attrs.update(ome_of(recipe, array.metadata.dimension_names))


def encode_shard(
    index: int,
    arrays: dict[str, np.ndarray],
    rows: list[Row],
    samples_per_shard: int,
    recipe_digest: str = "",
) -> tuple[dict[str, bytes], ShardRecord]:
    """Return the files of a shard, its record the last of them, and the record; parameters as of `write_shard`."""
    files = {
        shard_file(key, index, images.shape[1:]): encode_array(images, samples_per_shard)
        for key, images in arrays.items()
    }
    sums = {name: (len(content), zlib.crc32(content)) for name, content in files.items()}
    for i, row in enumerate(rows):
        for key, images in arrays.items():
            if not key.startswith("mask/"):
                row[crc_column(key)] = image_crc32(images[i])
    hashes = {key: [image_hash(image) for image in images] for key, images in arrays.items()}
    record = ShardRecord(index, sums, rows, hashes, recipe_digest)
    # Not sorted: the order of a row's keys is the order of the columns.
    files[record_key(index)] = json.dumps(record.to_dict(), separators=(",", ":"), allow_nan=False).encode()
    return files, record


def encode_array(images: np.ndarray, samples_per_shard: int) -> bytes:
    """Return the file of one array in one shard: what Zarr makes of an array that is a single shard long."""
    group, memory = memory_group({})
    padded = np.zeros((samples_per_shard, *images.shape[1:]), images.dtype)
    padded[: len(images)] = images
    image = images.shape[1:]
    array = create_stack(group, "shard", str(images.dtype), samples_per_shard, image, samples_per_shard)
    array[:] = padded
    return contents(memory)[shard_file("shard", 0, image)]
