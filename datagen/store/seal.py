"""The seal of a finished store: a digest over every file of it, by which a change is found and the file is named.

    zarr.json            attributes: `files_digest` (of the list below), `whole_digest` (of zarr.json itself but for this)
    build/files.json     length and SHA-256 of each file that no record of a shard names: metadata, masks, table, the records
    build/shards/*.json  length and checksum of each file of a shard, digest of each image

What depends on the machine and the hour (the log, the lock) and pictures that are drawn from the rest are not covered.
Stores of before have no seal: they open, and are checked by what they have.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ..plan.resolved import canonical_json, digest
from . import layout
from .location import Storage

FILES = "build/files.json"
_SEALS = ("files_digest", "whole_digest")
MISSING, CHANGED = "is missing", "is not the file that was written"


def seal(storage: Storage, document: dict[str, Any], names: list[str]) -> None:
    """Write the list of files, then zarr.json with the digests over it and over itself.

    Parameters
    ----------
    document : what zarr.json is to hold, without digests of the whole.
    names : of the files that no record of a shard names.
    """
    listed = {name: _sums(storage, name) for name in names}
    content = canonical_json(listed).encode()
    storage.write(FILES, content)
    attributes = document["attributes"]
    attributes["files_digest"] = hashlib.sha256(content).hexdigest()
    attributes["whole_digest"] = digest(document)
    storage.write("zarr.json", json.dumps(document, indent=2).encode())


def unseal(document: dict[str, Any]) -> None:
    """Take the digests of the whole out of what zarr.json holds: parts of the store are about to be made again."""
    for name in _SEALS:
        document["attributes"].pop(name, None)


def broken(storage: Storage) -> dict[str, str]:
    """Return what the seal says against a store: file -> what is wrong with it; nothing of a store without a seal."""
    try:
        content = storage.read("zarr.json")
    except OSError:
        return {"zarr.json": CHANGED}
    try:
        document = json.loads(content)
        attributes = document["attributes"]
        sealed = [attributes.pop(name) if name == "whole_digest" else attributes[name] for name in _SEALS]
    except KeyError:  # of before there were seals, or unfinished
        return {}
    except (ValueError, TypeError, AttributeError):
        return {"zarr.json": CHANGED}
    faults = {} if digest(document) == sealed[1] else {"zarr.json": CHANGED}
    try:
        content = storage.read(FILES)
    except OSError:
        return faults | {FILES: MISSING}
    if hashlib.sha256(content).hexdigest() != sealed[0]:
        return faults | {FILES: CHANGED}
    for name, sums in json.loads(content).items():
        try:
            if _sums(storage, name) != sums:
                faults[name] = CHANGED
        except FileNotFoundError:
            faults[name] = MISSING
        except OSError as error:
            faults[name] = f"cannot be read: {error.strerror or error}"
    return faults


def shards_of(faults: dict[str, str]) -> set[int]:
    """Return the shards whose records are among the files that something is wrong with."""
    folder = layout.record_key(0).rpartition("/")[0]
    return {int(name.rpartition("/")[2].removesuffix(".json")) for name in faults if name.startswith(f"{folder}/")}


def _sums(storage: Storage, name: str) -> list[Any]:
    """Return length and SHA-256 of a file, which need not be in memory as a whole."""
    length, total = 0, hashlib.sha256()
    for part in storage.read_parts(name):
        length += len(part)
        total.update(part)
    return [length, total.hexdigest()]
