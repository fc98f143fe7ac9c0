"""The store: what a dataset looks like on disk, and how a shard of it is written.

    pairs.zarr/
      zarr.json            Zarr v3 group; attributes: complete, recipe, recipe_digest, digest, source, licence, versions, ...
      hq/                  (n, H, W) uint8, dimensions sample, z, x
      lq/<PROBE>/          (n, H, W) uint8; a slash in a probe's name is written as an underscore
      mask/<PROBE>/        (H, W) bool, or (n, H, W) where the acquisition is drawn for each sample
      samples.csv          one row a sample, in the order of the arrays
      build/shards/*.json  one record a finished shard: its rows, and a checksum of every file
      build/log.jsonl      times and host names; no digest covers it

A shard is encoded in memory, its files are put in place whole, and its record, written last, is what makes it exist.
Until the end the group says `complete: false`, and readers refuse it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import platform
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from ussim.errors import DataError

from ..plan.recipe import array_name
from .location import Storage, open_storage

FORMAT = 1
DIMENSIONS = ("sample", "z", "x")
SAMPLES = "samples.csv"
LARGEST_SHARD = 64  # samples: 4 MiB of 256 x 256
SHARDS = 128  # a dataset is cut into about this many until shards have their largest size
CHUNK = 8  # samples compressed together: a whole shard reads four times as fast as with one
COMPRESSION_LEVEL = 3
ALL_CHUNKS = {"write_empty_chunks": True}  # images of zeros are written too: every file that a record names exists
_BEGUN = "build/begun"
PACKAGES = ("numpy", "scipy", "numba", "zarr", "scikit-image", "pydicom", "nibabel", "ussim")


class StoreError(DataError):
    """A store that is missing, unfinished or damaged; the message says what to do."""


def shard_size(n_samples: int) -> int:
    """Samples in a shard: a power of two, more of them the larger the dataset."""
    wanted = max(1, math.ceil(n_samples / SHARDS))
    return min(LARGEST_SHARD, 1 << (wanted - 1).bit_length())


def lq_key(probe_name: str) -> str:
    """Path of a probe's simulated images in a store."""
    return f"lq/{array_name(probe_name)}"


def mask_key(probe_name: str) -> str:
    """Path of a probe's field of view in a store."""
    return f"mask/{array_name(probe_name)}"


# --- writing ---------------------------------------------------------------------------------------------------------


def create(
    storage: Storage,
    attributes: dict[str, Any],
    n_samples: int,
    size: int,
    samples_per_shard: int,
    masks: dict[str, np.ndarray | None],
) -> None:
    """An unfinished store with empty arrays.

    Parameters
    ----------
    masks : (size, size) bool of every probe; None where each sample has its own.
    """
    group, memory = _memory_group(attributes | {"format": FORMAT, "complete": False})
    probes = list(masks)
    stacks = [("hq", "uint8", {}), *((lq_key(name), "uint8", {"probe": name}) for name in probes)]
    for name, mask in masks.items():
        if mask is None:
            stacks.append((mask_key(name), "bool", {"probe": name}))
        else:
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
    for key, dtype, described in stacks:
        _create_stack(group, key, dtype, n_samples, size, samples_per_shard, described)
    storage.write(_BEGUN, b"")
    # The group's own metadata come last: with them the store is one that can be resumed.
    for key, content in sorted(_contents(memory).items(), key=lambda item: item[0] == "zarr.json"):
        storage.write(key, content)


def is_begun(storage: Storage) -> bool:
    """Whether a store was being created when something stopped it: there is nothing in it yet."""
    return "zarr.json" not in storage.names("") and _BEGUN.rpartition("/")[2] in storage.names("build")


def write_shard(
    storage: Storage,
    index: int,
    arrays: dict[str, np.ndarray],
    rows: list[dict[str, Any]],
    samples_per_shard: int,
) -> dict[str, Any]:
    """Put the files of a shard in place, then its record, which makes the shard exist; returns the record.

    Parameters
    ----------
    arrays : "hq", "lq/..." and, where they vary, "mask/..." -> (k, H, W), k at most `samples_per_shard`.
    rows : of the table of samples, one a sample; `crc32_...` are added here.
    """
    files = {}
    for key, images in arrays.items():
        content = _encode_shard(images, samples_per_shard)
        name = f"{key}/c/{index}/0/0"
        storage.write(name, content)
        files[name] = [len(content), zlib.crc32(content)]
    for i, row in enumerate(rows):
        for key, images in arrays.items():
            if not key.startswith("mask/"):
                row[crc_column(key)] = image_crc32(images[i])
    hashes = {key: [image_hash(image) for image in images] for key, images in arrays.items()}
    record = {"shard": index, "files": files, "rows": rows, "hashes": hashes}
    # Not sorted: the order of a row's keys is the order of the columns.
    storage.write(_record_key(index), json.dumps(record, separators=(",", ":"), allow_nan=False).encode())
    return record


def read_record(storage: Storage, index: int) -> dict[str, Any] | None:
    """The record of a finished shard, None where there is none (or not all of one)."""
    try:
        record = json.loads(storage.read(_record_key(index)))
    except (FileNotFoundError, ValueError):
        return None
    return record if {"shard", "files", "rows", "hashes"} <= record.keys() else None


def damaged_files(storage: Storage, record: dict[str, Any]) -> list[str]:
    """The files of a shard that are missing or not what was written."""
    damaged = []
    for name, (length, checksum) in record["files"].items():
        try:
            content = storage.read(name)
        except FileNotFoundError:
            content = b""
        if len(content) != length or zlib.crc32(content) != checksum:
            damaged.append(name)
    return damaged


def finish(storage: Storage, n_shards: int, attributes: dict[str, Any]) -> str:
    """Write the table of samples and, last, the attributes that say that the store is complete; returns its digest."""
    content = gather(read_records(storage, n_shards))
    storage.write(SAMPLES, content.table.encode())
    total = content.digest(read_fixed_masks(storage))
    group, memory = _memory_group({}, read_metadata(storage))
    group.attrs.update(attributes | {"complete": True, "digest": total})
    _consolidate(memory)
    storage.write("zarr.json", _contents(memory)["zarr.json"])
    return total


def is_whole(storage: Storage, n_shards: int) -> bool:
    """Whether a store is finished, and what is not in its shards is as its digest says."""
    attributes = read_attributes(storage)
    content = gather(read_records(storage, n_shards))
    try:
        kept = storage.read(SAMPLES).decode() == content.table
        masks = read_fixed_masks(storage)
        for node in read_metadata(storage).values():
            json.loads(node)
    except (OSError, ValueError, KeyError, RuntimeError):
        return False
    return bool(attributes.get("complete")) and kept and content.digest(masks) == attributes.get("digest")


def reopen(storage: Storage) -> None:
    """Mark a store as unfinished again, before parts of it are redone."""
    document = json.loads(storage.read("zarr.json"))
    if document["attributes"].get("complete"):
        document["attributes"]["complete"] = False
        document["attributes"].pop("digest", None)
        document.pop("consolidated_metadata", None)
        storage.write("zarr.json", json.dumps(document, indent=2).encode())


@dataclass(frozen=True)
class Content:
    """What all records say together: the table of samples, and a hash of each array's images in order."""

    table: str
    hashes: dict[str, str]

    def digest(self, masks: dict[str, np.ndarray]) -> str:
        """SHA-256 over hq, lq, masks and samples, given the masks that hold for all samples. The same whatever the shards,
        the workers and the order they ended in."""
        total = hashlib.sha256(self.table.encode())
        for key, value in sorted(({key: image_hash(mask) for key, mask in masks.items()} | self.hashes).items()):
            total.update(f"\n{key} {value}".encode())
        return total.hexdigest()


def gather(records: Iterable[dict[str, Any]]) -> Content:
    """The content of some records, one after the other: a million samples need not be in memory."""
    text = io.StringIO()
    writer: Any = None
    hashes: dict[str, Any] = {}
    for record in records:
        if writer is None:
            writer = _table_writer(text, record["rows"])
        writer.writerows(record["rows"])
        for key, values in record["hashes"].items():
            hashes.setdefault(key, hashlib.sha256()).update("".join(values).encode())
    return Content(text.getvalue(), {key: value.hexdigest() for key, value in hashes.items()})


def encoded_size(images: np.ndarray) -> int:
    """Bytes that a shard of these images takes."""
    return len(_encode_shard(images, len(images)))


def versions() -> dict[str, str]:
    """Of Python and of the packages that shape a dataset."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


# --- reading ---------------------------------------------------------------------------------------------------------


def read_attributes(storage: Storage) -> dict[str, Any]:
    """The attributes of a store, finished or not.

    Raises
    ------
    StoreError
        There is no store, or it is not one of ours.
    """
    try:
        document = json.loads(storage.read("zarr.json"))
        attributes = document["attributes"]
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{storage.url}: no store of pairs here; expected what `datagen build` writes") from None
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{storage.url}: zarr.json is damaged; build the store again with --overwrite") from None
    if "recipe_digest" not in attributes:
        raise StoreError(f"{storage.url}: a Zarr group, but not one that `datagen build` wrote")
    return attributes


def require_complete(storage: Storage) -> dict[str, Any]:
    """The attributes of a finished store; raises StoreError where it is unfinished."""
    attributes = read_attributes(storage)
    if not attributes.get("complete"):
        done = len(storage.names("build/shards"))
        raise StoreError(
            f"{storage.url}: unfinished ({done} of {attributes.get('n_shards', '?')} shards); run the same "
            "`datagen build` with --resume"
        )
    return attributes


def open_group(storage: Storage, use_consolidated: bool | None = None) -> Any:
    """The Zarr group of a finished store, read-only."""
    import zarr

    require_complete(storage)
    return zarr.open_group(storage.url, mode="r", use_consolidated=use_consolidated)


def read_records(storage: Storage, n_shards: int) -> Iterator[dict[str, Any]]:
    """The records of all shards, one after the other; raises StoreError where one is missing."""
    for index in range(n_shards):
        record = read_record(storage, index)
        if record is None:
            raise StoreError(
                f"{storage.url}: the record of shard {index} is missing or damaged; `datagen build --resume` redoes it"
            )
        yield record


def read_metadata(storage: Storage) -> dict[str, bytes]:
    """The zarr.json of every node of a store, by key."""
    probes = read_attributes(storage)["recipe"]["probes"]
    nodes = ["hq", "lq", "mask", *map(lq_key, probes), *map(mask_key, probes)]
    return {key: storage.read(key) for key in ("zarr.json", *(f"{node}/zarr.json" for node in nodes))}


def read_fixed_masks(storage: Storage) -> dict[str, np.ndarray]:
    """The masks that hold for all samples, by key."""
    masks = {}
    for name in read_attributes(storage)["recipe"]["probes"]:
        key = mask_key(name)
        document = json.loads(storage.read(f"{key}/zarr.json"))
        if len(document["shape"]) == 2:
            files = {name: storage.read(name) for name in (f"{key}/zarr.json", f"{key}/c/0/0")}
            masks[key] = np.asarray(_memory_group({}, files)[0][key][:])
    return masks


def read_columns(storage: Storage, names: Sequence[str]) -> dict[str, list[Any]]:
    """Some columns of the table of samples."""
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for row in csv.DictReader(io.StringIO(storage.read(SAMPLES).decode())):
        for name in names:
            columns[name].append(_typed(row[name], name))
    return columns


def read_samples(storage: Storage) -> list[dict[str, Any]]:
    """The table of samples: whole numbers, decimals and text as such, empty fields as None."""
    return parse_table(storage.read(SAMPLES).decode())


def decode_shard(content: bytes, key: str, size: int, samples_per_shard: int) -> list[np.ndarray | str]:
    """The images in the file of a shard; in place of one that cannot be decoded, the reason."""
    group, memory = _memory_group({})
    _create_stack(
        group, "shard", "bool" if key.startswith("mask/") else "uint8", samples_per_shard, size, samples_per_shard
    )
    files = _contents(memory) | {"shard/c/0/0/0": content}
    array = _memory_group({}, files)[0]["shard"]
    images: list[np.ndarray | str] = []
    count = math.gcd(CHUNK, samples_per_shard)
    for first in range(0, samples_per_shard, count):
        try:
            images += list(np.asarray(array[first : first + count]))
        except Exception as error:  # whatever the codecs make of a damaged file
            images += [f"cannot be decoded ({type(error).__name__}: {error})"] * count
    return images


def image_hash(image: np.ndarray) -> str:
    """SHA-256 of an image's pixels, row by row."""
    return hashlib.sha256(image.tobytes()).hexdigest()


def image_crc32(image: np.ndarray) -> int:
    """CRC-32 of an image's pixels, row by row."""
    return zlib.crc32(image.tobytes())


# --- the table of samples --------------------------------------------------------------------------------------------


def crc_column(key: str) -> str:
    """The column that holds the crc32 of an array's images: "crc32_hq", "crc32_L11-5v"."""
    return f"crc32_{key.removeprefix('lq/')}"


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV with a header, columns in the order of the first row."""
    text = io.StringIO()
    _table_writer(text, rows).writerows(rows)
    return text.getvalue()


def _table_writer(text: io.StringIO, rows: Sequence[dict[str, Any]]) -> Any:
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    return writer


def parse_table(text: str) -> list[dict[str, Any]]:
    """What `format_table` wrote, with types."""
    return [{name: _typed(value, name) for name, value in row.items()} for row in csv.DictReader(io.StringIO(text))]


_TEXT = frozenset({"id", "source", "subject", "volume", "plane", "kind", "file_sha256", "set_aside"})


def _typed(value: str, name: str) -> Any:
    if name in _TEXT:
        return value
    if value == "":
        return None
    try:
        return int(value)
    except ValueError:
        return float(value)


# --- helpers ---------------------------------------------------------------------------------------------------------


def _record_key(index: int) -> str:
    return f"build/shards/{index:06d}.json"


def _create_stack(
    group: Any,
    key: str,
    dtype: str,
    n_samples: int,
    size: int,
    samples_per_shard: int,
    attributes: dict[str, Any] | None = None,
) -> Any:
    from zarr.codecs import ZstdCodec

    return group.create_array(
        key,
        shape=(n_samples, size, size),
        shards=(samples_per_shard, size, size),
        chunks=(math.gcd(CHUNK, samples_per_shard), size, size),
        dtype=dtype,
        fill_value=False if dtype == "bool" else 0,
        compressors=ZstdCodec(level=COMPRESSION_LEVEL),
        dimension_names=DIMENSIONS,
        attributes=attributes,
        config=ALL_CHUNKS,
    )


def _encode_shard(images: np.ndarray, samples_per_shard: int) -> bytes:
    """The file of one shard: what Zarr makes of an array that is a single shard long."""
    group, memory = _memory_group({})
    padded = np.zeros((samples_per_shard, *images.shape[1:]), images.dtype)
    padded[: len(images)] = images
    dtype = "bool" if images.dtype == bool else "uint8"
    array = _create_stack(group, "shard", dtype, samples_per_shard, images.shape[1], samples_per_shard)
    array[:] = padded
    return _contents(memory)["shard/c/0/0/0"]


def _memory_group(attributes: dict[str, Any], files: dict[str, bytes] | None = None) -> tuple[Any, dict[str, Any]]:
    """A Zarr group in memory, made anew or of the files given, and the files it is kept in."""
    import zarr
    from zarr.core.buffer.cpu import Buffer
    from zarr.storage import MemoryStore

    memory: dict[str, Any] = {key: Buffer.from_bytes(content) for key, content in (files or {}).items()}
    if "zarr.json" in memory:
        return zarr.open_group(MemoryStore(memory), mode="r+", use_consolidated=False), memory
    return zarr.create_group(MemoryStore(memory), attributes=attributes), memory


def _contents(memory: dict[str, Any]) -> dict[str, bytes]:
    return {key: value.to_bytes() for key, value in memory.items()}


def _consolidate(memory: dict[str, Any]) -> None:
    """Gather the metadata of all nodes in the group's: members are then known without a listing, which would stumble over
    the files that are no part of the Zarr hierarchy."""
    import warnings

    import zarr
    from zarr.storage import MemoryStore

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that consolidated metadata is an extension of Zarr v3: readers may ignore it
        zarr.consolidate_metadata(MemoryStore(memory))


__all__ = ["Storage", "StoreError", "open_storage"]
