"""Sizes that a file declares, held against its bytes before memory is asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

DENSEST = 1100  # bytes that a compressed byte can stand for: deflate reaches 1032
SMALL = 1 << 28  # bytes that are read whatever the file's size: silence compresses well
METADATA = 1 << 22  # numbers of a table of delays, angles, positions


def n_bytes(shape: Sequence[int], itemsize: int) -> int:
    """Bytes of an array, as a whole number of any size."""
    return math.prod(int(n) for n in shape) * int(itemsize)


def check_declared(what: str, needed: int, stored: int) -> None:
    """Refuse what cannot come from so few bytes.

    Raises
    ------
    ValueError
        `needed` bytes cannot be stored in `stored`, however compressed.
    """
    if needed > SMALL and needed > DENSEST * stored:
        raise ValueError(f"{what}: expected at most what {stored} stored bytes can hold, got {_large(needed)} declared")


def check_uncompressed(what: str, needed: int, stored: int) -> None:
    """Refuse an array that is larger than the bytes that hold it."""
    if needed > stored:
        raise ValueError(f"{what}: expected at most {stored} bytes, which the file has, got {_large(needed)} declared")


def check_small(what: str, shape: Sequence[int]) -> None:
    """Refuse a table that is too large to be one."""
    if math.prod(int(n) for n in shape) > METADATA:
        raise ValueError(f"{what}: expected a table of at most {METADATA} numbers, got shape {tuple(shape)}")


def file_size(path: str | Path) -> int:
    """Bytes of a file."""
    return os.stat(path).st_size


def read_npy_header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that an .npy file declares. Raises ValueError where it is none."""
    major, _ = npy.read_magic(file)
    shape, _, dtype = npy.read_array_header_1_0(file) if major == 1 else npy.read_array_header_2_0(file)
    return shape, dtype


def _large(number: int) -> str:
    return f"{number} bytes" if number < 10**9 else f"{number / 1e9:.3g} GB"
