"""Factorisations kept on disk: an SVD that took minutes is read back in a second.

Files live in `USSIM_CACHE` or the user's cache directory. Each is written beside its final name and moved there whole, and
carries a checksum of its arrays: one that does not agree is made again.
"""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ussim.cached import cache_directory
from ussim.io.atomic import replacing

logger = logging.getLogger(__name__)


def digest(*parts: Any) -> str:
    """Return a name for the values: arrays by their bytes, anything else by its repr."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            state.update(f"{part.dtype}{part.shape}".encode())
            state.update(np.ascontiguousarray(part).tobytes())
        else:
            state.update(repr(part).encode())
        state.update(b"\0")
    return state.hexdigest()[:32]


def cached(key: str, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the arrays of `compute()`, from the file of that key if there is a sound one; written there otherwise.

    A directory that cannot be written costs the caching, not the result.
    """
    path = cache_directory() / f"drus-{key}.npz"
    arrays = _read(path)
    if arrays is None:
        arrays = {name: np.asarray(value) for name, value in compute().items()}
        try:
            _write(path, arrays)
        except OSError as error:
            logger.warning("not cached: %s (set USSIM_CACHE to a writable directory)", error)
    return arrays


def _read(path: Path) -> dict[str, np.ndarray] | None:
    if not path.is_file():
        return None
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        if str(arrays.pop("checksum", "")) == _checksum(arrays):
            return arrays
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass
    logger.warning("%s is damaged: made again", path)
    return None


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, checksum=np.array(_checksum(arrays)), **arrays)  # type: ignore[arg-type]


def _checksum(arrays: dict[str, np.ndarray]) -> str:
    return digest(*(part for name in sorted(arrays) for part in (name, arrays[name])))
