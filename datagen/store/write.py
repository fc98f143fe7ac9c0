"""Writing a store: begun empty, shards put in place one by one, finished with the table of samples."""

from __future__ import annotations

import io
import json
import platform
from importlib import metadata

import numpy as np

from . import layout
from .layout import (
    SAMPLES,
    VOLUMES,
    Attributes,
    Row,
    ShardRecord,
)
from .location import Storage
from .read import read_attributes, read_fixed_masks, read_metadata, read_records
from .seal import seal, unseal

PACKAGES = ("numpy", "scipy", "numba", "zarr", "scikit-image", "pydicom", "nibabel", "ussim")


def create(storage: Storage, attributes: Attributes, masks: dict[str, np.ndarray | None]) -> None:
    """Create an unfinished store with empty arrays.

    Parameters
    ----------
    masks : (size, size) bool of every probe; None where each sample has its own.
    """
    files = layout.empty_store(attributes, masks)
    storage.write(layout.BEGUN, b"")
    for key, content in files.items():
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
    rows : of the table of samples, one per sample; `crc32_...` are added here.
    recipe_digest : of the build, recorded with the shard.
    """
    files, record = layout.encode_shard(index, arrays, rows, samples_per_shard, recipe_digest)
    for key, content in files.items():
        storage.write(key, content)
    return record


def finish(storage: Storage, n_shards: int, n_set_aside: int = 0, recipe_digest: str = "") -> str:
    """Write the table of samples and, last, the attributes that say that the store is complete; returns its digest.

    Raises
    ------
    StoreError
        The record of a shard is missing, damaged, or of another recipe than `recipe_digest`.
    """
    attributes = read_attributes(storage)
    content = layout.Content()
    storage.write_parts(SAMPLES, content.table(read_records(storage, n_shards, recipe_digest)))
    index = io.BytesIO()
    np.save(index, content.index)
    storage.write(layout.INDEX, index.getvalue())
    total = content.digest(read_fixed_masks(storage))
    nodes = read_metadata(storage)
    group, memory = layout.memory_group({}, nodes)
    group.attrs.update({"n_set_aside": n_set_aside, "complete": True, "digest": total})
    layout.consolidate(memory)
    names = [name for name in nodes if name != "zarr.json"]
    names += [f"{key}/c/0/0" for key in read_fixed_masks(storage)]
    names += [f"{key}/c/0" for key in layout.coordinate_keys(attributes.recipe) if f"{key}/zarr.json" in nodes]
    names += [name for name in (VOLUMES,) if name in storage.names("")]
    names += [SAMPLES, layout.INDEX, *(layout.record_key(index) for index in range(n_shards))]
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


def provenance(engine: str) -> dict[str, str]:
    """Return `versions`, and which kernels of the CPU engine run: they decide the bytes, not Numba's version."""
    if engine != "cpu":
        return versions()
    from ussim.engines.cpu.native.shipped import identity

    return versions() | {"kernels": identity()}


def versions() -> dict[str, str]:
    """Of Python and of the packages that shape a dataset."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
