"""Writing a store: begun empty, shards put in place one by one, finished with the table of samples."""

from __future__ import annotations

import json
import platform
import zlib
from importlib import metadata

import numpy as np

from . import layout
from .layout import (
    SAMPLES,
    VOLUMES,
    Attributes,
    Row,
    ShardRecord,
    crc_column,
    image_crc32,
    image_hash,
    lq_key,
    mask_key,
)
from .location import Storage
from .read import read_fixed_masks, read_metadata, read_records
from .seal import seal, unseal

PACKAGES = ("numpy", "scipy", "numba", "zarr", "scikit-image", "pydicom", "nibabel", "ussim")


def create(
    storage: Storage,
    attributes: Attributes,
    masks: dict[str, np.ndarray | None],
) -> None:
    """An unfinished store with empty arrays.

    Parameters
    ----------
    masks : (size, size) bool of every probe; None where each sample has its own.
    """
    group, memory = layout.memory_group(attributes.to_dict() | {"format": layout.FORMAT, "complete": False})
    probes, size = list(masks), attributes.recipe.size
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
                dimension_names=layout.DIMENSIONS[1:],
                attributes={"probe": name},
                config=layout.ALL_CHUNKS,
            )
            array[:] = mask
    for key, dtype, described in stacks:
        layout.create_stack(group, key, dtype, attributes.n_samples, size, attributes.samples_per_shard, described)
    storage.write(layout.BEGUN, b"")
    # The group's own metadata come last: with them the store is one that can be resumed.
    for key, content in sorted(layout.contents(memory).items(), key=lambda item: item[0] == "zarr.json"):
        storage.write(key, content)


def write_shard(
    storage: Storage,
    index: int,
    arrays: dict[str, np.ndarray],
    rows: list[Row],
    samples_per_shard: int,
    recipe_digest: str = "",
) -> ShardRecord:
    """Put the files of a shard in place, then its record, which makes the shard exist; returns the record.

    Parameters
    ----------
    arrays : "hq", "lq/..." and, where they vary, "mask/..." -> (k, H, W), k at most `samples_per_shard`.
    rows : of the table of samples, one a sample; `crc32_...` are added here.
    recipe_digest : of the build, recorded with the shard.
    """
    files: dict[str, tuple[int, int]] = {}
    for key, images in arrays.items():
        content = _encode_shard(images, samples_per_shard)
        name = f"{key}/c/{index}/0/0"
        storage.write(name, content)
        files[name] = (len(content), zlib.crc32(content))
    for i, row in enumerate(rows):
        for key, images in arrays.items():
            if not key.startswith("mask/"):
                row[crc_column(key)] = image_crc32(images[i])
    hashes = {key: [image_hash(image) for image in images] for key, images in arrays.items()}
    record = ShardRecord(index, files, rows, hashes, recipe_digest)
    # Not sorted: the order of a row's keys is the order of the columns.
    storage.write(
        layout.record_key(index), json.dumps(record.to_dict(), separators=(",", ":"), allow_nan=False).encode()
    )
    return record


def finish(storage: Storage, n_shards: int, n_set_aside: int = 0, recipe_digest: str = "") -> str:
    """Write the table of samples and, last, the attributes that say that the store is complete; returns its digest.

    Raises
    ------
    StoreError
        The record of a shard is missing, damaged, or of another recipe than `recipe_digest`.
    """
    content = layout.gather(read_records(storage, n_shards, recipe_digest))
    storage.write(SAMPLES, content.table.encode())
    total = content.digest(read_fixed_masks(storage))
    nodes = read_metadata(storage)
    group, memory = layout.memory_group({}, nodes)
    group.attrs.update({"n_set_aside": n_set_aside, "complete": True, "digest": total})
    layout.consolidate(memory)
    names = [name for name in nodes if name != "zarr.json"]
    names += [f"{key}/c/0/0" for key in read_fixed_masks(storage)]
    names += [name for name in (VOLUMES,) if name in storage.names("")]
    names += [SAMPLES, *(layout.record_key(index) for index in range(n_shards))]
    seal(storage, json.loads(layout.contents(memory)["zarr.json"]), names)
    return total


def reopen(storage: Storage) -> None:
    """Mark a store as unfinished again, before parts of it are redone."""
    document = json.loads(storage.read("zarr.json"))
    if document["attributes"].get("complete"):
        document["attributes"]["complete"] = False
        document["attributes"].pop("digest", None)
        unseal(document)
        document.pop("consolidated_metadata", None)
        storage.write("zarr.json", json.dumps(document, indent=2).encode())


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


def _encode_shard(images: np.ndarray, samples_per_shard: int) -> bytes:
    """The file of one shard: what Zarr makes of an array that is a single shard long."""
    group, memory = layout.memory_group({})
    padded = np.zeros((samples_per_shard, *images.shape[1:]), images.dtype)
    padded[: len(images)] = images
    dtype = "bool" if images.dtype == bool else "uint8"
    array = layout.create_stack(group, "shard", dtype, samples_per_shard, images.shape[1], samples_per_shard)
    array[:] = padded
    return layout.contents(memory)["shard/c/0/0/0"]
