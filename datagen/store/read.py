"""Reading a store: its attributes, records, masks and table, and the images of a shard."""

from __future__ import annotations

import csv
import io
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from . import layout
from .layout import SAMPLES, Attributes, Row, ShardRecord, StoreError, Value, mask_key
from .location import Storage
from .seal import broken

_DAMAGED = "zarr.json is damaged; `datagen build` with --resume makes it again, with --overwrite all of the store"


def read_attributes(storage: Storage) -> Attributes:
    """Return what a store says of itself, finished or not; raises StoreError as `read_document` does."""
    document = read_document(storage)
    try:
        return Attributes.from_dict(document)
    except Exception:  # whatever changed values provoke where a recipe is made of them
        raise StoreError(f"{storage.url}: {_DAMAGED}") from None


def read_document(storage: Storage) -> dict[str, Any]:
    """Return the attributes of a store as they are on disk.

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
        raise StoreError(f"{storage.url}: {_DAMAGED}") from None
    if not isinstance(attributes, dict) or "recipe_digest" not in attributes:
        raise StoreError(f"{storage.url}: a Zarr group, but not one that `datagen build` wrote")
    return attributes


def require_complete(storage: Storage) -> Attributes:
    """Return the attributes of a finished store; raises StoreError where it is unfinished."""
    attributes = read_attributes(storage)
    if not attributes.complete:
        done = len(storage.names("build/shards"))
        raise StoreError(
            f"{storage.url}: unfinished ({done} of {attributes.n_shards} shards); run the same "
            "`datagen build` with --resume"
        )
    return attributes


def is_begun(storage: Storage) -> bool:
    """Return whether a store was being created when something stopped it: there is nothing in it yet."""
    return "zarr.json" not in storage.names("") and is_ours(storage)


def is_ours(storage: Storage) -> bool:
    """Return whether a build created what is there, whatever became of it since."""
    return layout.BEGUN.rpartition("/")[2] in storage.names("build")


def is_whole(storage: Storage, n_shards: int) -> bool:
    """Return whether a store is finished, and what is not in its shards is as its digest says."""
    attributes = read_attributes(storage)
    content = layout.gather(read_records(storage, n_shards))
    try:
        kept = storage.read(SAMPLES).decode() == content.table and not broken(storage)
        masks = read_fixed_masks(storage)
        for node in read_metadata(storage).values():
            json.loads(node)
    except Exception:  # whatever damaged files provoke in zarr
        return False
    return attributes.complete and kept and content.digest(masks) == attributes.digest


def open_group(storage: Storage, use_consolidated: bool | None = None) -> Any:
    """Return the Zarr group of a finished store, read-only."""
    import zarr

    require_complete(storage)
    return zarr.open_group(storage.url, mode="r", use_consolidated=use_consolidated)


def read_record(storage: Storage, index: int) -> ShardRecord | None:
    """Return the record of a finished shard, None where there is none (or not all of one)."""
    try:
        return ShardRecord.from_dict(json.loads(storage.read(layout.record_key(index))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_records(storage: Storage, n_shards: int, recipe_digest: str = "") -> Iterator[ShardRecord]:
    """Yield the records of all shards, one after the other; raises StoreError where one is missing, or of another recipe."""
    for index in range(n_shards):
        record = read_record(storage, index)
        if record is None:
            raise StoreError(
                f"{storage.url}: the record of shard {index} is missing or damaged; `datagen build --resume` redoes it"
            )
        if recipe_digest and not record.is_of(recipe_digest):
            raise StoreError(
                f"{storage.url}: shard {index} was written by a build of another recipe; `datagen build --resume` redoes it"
            )
        yield record


def damaged_files(storage: Storage, record: ShardRecord) -> list[str]:
    """Return the files of a shard that are missing or not what was written."""
    damaged = []
    for name, (length, checksum) in record.files.items():
        try:
            content = storage.read(name)
        except OSError:
            content = b""
        if len(content) != length or zlib.crc32(content) != checksum:
            damaged.append(name)
    return damaged


def read_metadata(storage: Storage) -> dict[str, bytes]:
    """Return the zarr.json of every node of a store, by key."""
    attributes = read_attributes(storage)
    stacks = layout.stacks_of(attributes.recipe)
    groups = dict.fromkeys(key.partition("/")[0] for key in stacks if "/" in key)
    nodes = [*groups, "mask", *stacks, *map(mask_key, attributes.probes)]
    found = {key: storage.read(key) for key in ("zarr.json", *(f"{node}/zarr.json" for node in nodes))}
    for key in (f"{node}/zarr.json" for node in layout.coordinate_keys(attributes.recipe)):
        with suppress(FileNotFoundError):  # of stores of before
            found[key] = storage.read(key)
    return found


def read_fixed_masks(storage: Storage) -> dict[str, np.ndarray]:
    """Return the masks that hold for all samples, by key."""
    masks = {}
    for name in read_attributes(storage).probes:
        key = mask_key(name)
        document = json.loads(storage.read(f"{key}/zarr.json"))
        if len(document["shape"]) == 2:
            files = {name: storage.read(name) for name in (f"{key}/zarr.json", f"{key}/c/0/0")}
            masks[key] = np.asarray(layout.memory_group({}, files)[0][key][:])
    return masks


def read_columns(storage: Storage, names: Sequence[str]) -> dict[str, list[Value]]:
    """Return some columns of the table of samples."""
    columns: dict[str, list[Value]] = {name: [] for name in names}
    for row in csv.DictReader(io.StringIO(storage.read(SAMPLES).decode())):
        for name in names:
            columns[name].append(layout.typed(row[name], name))
    return columns


def read_samples(storage: Storage) -> list[Row]:
    """Return the table of samples: whole numbers, decimals and text as such, empty fields as None."""
    return layout.parse_table(storage.read(SAMPLES).decode())


def decode_shard(content: bytes, key: str, image: tuple[int, ...], samples_per_shard: int) -> list[np.ndarray | str]:
    """Return the images in the file of a shard, each of shape `image`; for one that cannot be decoded, the reason."""
    group, memory = layout.memory_group({})
    layout.create_stack(group, "shard", layout.dtype_of(key), samples_per_shard, image, samples_per_shard)
    files = layout.contents(memory) | {layout.shard_file("shard", 0, image): content}
    array = layout.memory_group({}, files)[0]["shard"]
    images: list[np.ndarray | str] = []
    count = math.gcd(layout.CHUNK, samples_per_shard)
    for first in range(0, samples_per_shard, count):
        try:
            images += list(np.asarray(array[first : first + count]))
        except Exception as error:  # whatever the codecs make of a damaged file
            images += [f"cannot be decoded ({type(error).__name__}: {error})"] * count
    return images
