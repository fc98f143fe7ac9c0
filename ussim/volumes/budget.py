"""Memory budget of reading a volume: sizes are held against the file and a budget before anything is decoded.

    with limited_memory(8e9):
        volume = load_nifti(ref)

A header of a few bytes can claim any size, and a compressed file of a megabyte can unpack to a gigabyte. What is read here
is first counted from its header; what unpacks is unpacked in pieces, and no further than was allowed.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import BinaryIO

from ..errors import ConfigError, DataError

DEFAULT_GB = 4.0  # decoded, scaled and held beside its copy: a volume of 400 million 16-bit values
VARIABLE = "USSIM_MAX_MEMORY"  # of the environment, GB
_WORKING = 8  # bytes per value, beside those of the file: scaled to float32, and the copy that is turned
DEFLATE = 1040  # most bytes that one byte of a deflate stream stands for, rounded up
RUN_LENGTH = 64  # most bytes that one byte of a run-length code stands for
_PIECE = 1 << 20

_budget: ContextVar[float | None] = ContextVar("budget", default=None)


@contextmanager
def limited_memory(n_bytes: float | None) -> Iterator[None]:
    """Allow each volume that is read inside so many bytes; None = as outside."""
    if n_bytes is None:
        yield
        return
    token = _budget.set(n_bytes)
    try:
        yield
    finally:
        _budget.reset(token)


def max_memory() -> float:
    """Return the bytes that reading a volume may take: by `limited_memory`, else $USSIM_MAX_MEMORY, else `DEFAULT_GB`."""
    allowed = _budget.get()
    if allowed is not None:
        return allowed
    text = os.environ.get(VARIABLE, "")
    try:
        number = float(text or DEFAULT_GB)
    except ValueError:
        number = math.nan
    if not number > 0:
        raise ConfigError(f"{VARIABLE}: expected GB above 0, got {text!r}")
    return number * 1e9


def check_values(where: str, shape: Sequence[int], itemsize: int) -> None:
    """Raise DataError where decoding so many values of so many bytes would take more memory than is allowed."""
    needed = math.prod(shape) * (itemsize + _WORKING)
    if needed > max_memory():
        said = " x ".join(f"{size:,}" for size in shape)
        raise DataError(f"{where}: {said} values need about {_gb(needed)} of memory, {_allowed()}")


def check_there(where: str, n_bytes: int, there: int, expansion: int = 1) -> None:
    """Raise DataError where a header claims more bytes than the file can hold.

    Parameters
    ----------
    expansion : most bytes that a byte of the file can stand for: 1 where it is not compressed.
    """
    if n_bytes > max(there, 0) * expansion:
        raise DataError(f"{where}: cut short or damaged: {n_bytes:,} bytes claimed, {max(there, 0):,} in the file")


def check_unpacked(where: str, n_bytes: float) -> None:
    """Raise DataError where a file that was unpacked so far is more than is allowed."""
    if n_bytes > unpacked_limit():
        limit = f"a quarter of the {_gb(max_memory())} allowed (--max-memory, or {VARIABLE} in GB)"
        raise DataError(f"{where}: unpacks to more than {_gb(unpacked_limit())}, {limit}")


def unpacked_limit() -> int:
    """Return the bytes that a whole file may unpack to: it is held beside the values that are decoded from it."""
    return int(max_memory() / 4)


def inflate(where: str, file: BinaryIO, n_bytes: int) -> bytes:
    """Return the next bytes of a zlib or gzip stream, no more than `n_bytes`; raises DataError where it is damaged."""
    parts, left = [], n_bytes
    unpacker = zlib.decompressobj(wbits=47)
    content = file.read(_PIECE)
    while content and left > 0 and not unpacker.eof:
        try:
            part = unpacker.decompress(content, left)
        except zlib.error as error:
            raise DataError(f"{where}: voxels cannot be read: {error}") from None
        parts.append(part)
        left -= len(part)
        content = unpacker.unconsumed_tail or file.read(_PIECE)
    return b"".join(parts)


def inflated_size(content: bytes, most: int) -> int:
    """Return how many bytes a raw deflate stream stands for, counted no further than just above `most`."""
    unpacker = zlib.decompressobj(wbits=-15)
    total = 0
    while content and total <= most and not unpacker.eof:
        total += len(unpacker.decompress(content, _PIECE))
        content = unpacker.unconsumed_tail
    return total


def _gb(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:,.3g} GB" if n_bytes < 1e15 else f"{n_bytes / 1e9:.1e} GB"


def _allowed() -> str:
    return f"more than the {_gb(max_memory())} allowed (--max-memory, or {VARIABLE} in GB)"
