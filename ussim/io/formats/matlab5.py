"""MAT-files of version 5 (MATLAB 5 to 7.2, SciPy): arrays of numbers, and the numbers in structures.

SciPy's reader trusts the file: a wrong byte in one can end the process. This one reads numbers alone, and each length is
held against what encloses it. An array that is not compressed stays in the file, mapped into memory.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .sizes import check_declared

HEADER = 128
MATRIX, COMPRESSED = 14, 15
STORED = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}  # as it is written
STRUCTURE, NUMERIC = 2, range(6, 16)  # classes
COMPLEX = 0x0800  # flag
PREFIX = 1 << 16  # bytes in which an array's description ends
LARGEST_STRUCTURE = 1 << 26  # bytes: one of parameters is small


@dataclass(frozen=True)
class Parts:
    """An array in one part, or in a real and an imaginary one, that is indexed as one array."""

    real: Any
    imag: Any = None

    def __getitem__(self, index: Any) -> np.ndarray:
        real = np.asarray(self.real[index])
        return real if self.imag is None else real + 1j * np.asarray(self.imag[index])


@dataclass(frozen=True)
class Variable:
    """A variable of a MAT-file.

    Attributes
    ----------
    name : of it.
    shape : of an array.
    is_array, is_structure : what it is; neither of text, cells and other things.
    is_complex : whether an array has an imaginary part.
    """

    name: str
    shape: tuple[int, ...]
    is_array: bool
    is_structure: bool
    is_complex: bool
    _source: _Source
    _body: int  # where the description ends

    def array(self) -> Parts:
        """Return the array, mapped where it lies in the file as it is."""
        data, order = self._source.whole(), self._source.order
        parts, position = [], self._body
        for _ in range(2 if self.is_complex else 1):
            kind, start, length, position = _element(data, position, len(data), order)
            parts.append(_numbers(data, kind, start, length, order, self.shape, self.name))
        return Parts(*parts)

    def fields(self) -> dict[str, np.ndarray]:
        """Return the fields of a structure of one element that hold small real arrays."""
        self._source.check_small()
        data, order = self._source.whole(), self._source.order
        return dict(_fields(data, self._body, len(data), order)) if math.prod(self.shape) == 1 else {}


@dataclass(frozen=True)
class _Source:
    """The bytes of one variable: in the file, or compressed there."""

    path: Path
    start: int
    length: int
    order: str
    compressed: bool

    def begin(self) -> Any:
        """Return the first bytes."""
        if not self.compressed:
            return self._mapped()[:PREFIX]
        return zlib.decompressobj().decompress(self._mapped()[:PREFIX].tobytes(), PREFIX)

    def whole(self) -> Any:
        """All of them."""
        if not self.compressed:
            return self._mapped()
        needed = self._declared()
        check_declared("a compressed variable", needed, self.length)
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(self._mapped().tobytes(), needed)
        if len(data) < needed:
            raise ValueError(f"a compressed variable: expected {needed} bytes, got {len(data)}")
        return np.frombuffer(data, np.uint8)

    def check_small(self) -> None:
        """Refuse to unpack what is too large to be a structure of parameters."""
        if max(self.length, self._declared() if self.compressed else 0) > LARGEST_STRUCTURE:
            raise ValueError(f"expected a structure of parameters, got one of more than {LARGEST_STRUCTURE >> 20} MB")

    def _declared(self) -> int:
        head = self.begin()[:8]
        if len(head) < 8:
            raise ValueError("a compressed variable: expected an array, got nothing")
        size: int = 8 + struct.unpack(f"{self.order}II", bytes(head))[1]
        return size

    def _mapped(self) -> np.ndarray:
        return np.memmap(self.path, np.uint8, "r", self.start, (self.length,))


def variables(path: Path) -> list[Variable]:
    """Return the variables of a MAT-file of version 5.

    Raises
    ------
    ValueError
        It is none, or damaged.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(HEADER)
        if len(head) < HEADER or head[126:128] not in (b"IM", b"MI") or b"MATLAB" not in head[:20]:
            raise ValueError("a file of another kind" if len(head) >= 8 else "a file that is cut short")
        order, found, position = "<" if head[126:128] == b"IM" else ">", [], HEADER
        while position + 8 <= size:
            file.seek(position)
            kind, length = struct.unpack(f"{order}II", file.read(8))
            if kind not in (MATRIX, COMPRESSED):
                raise ValueError(f"an element of kind {kind} at byte {position}, where a variable was expected")
            if position + 8 + length > size:
                raise ValueError(f"a file that is cut short: {position + 8 + length} bytes declared, {size} there")
            if length:
                packed = kind == COMPRESSED
                source = _Source(
                    path, position if not packed else position + 8, length + (0 if packed else 8), order, packed
                )
                variable = _described(source)
                if variable is not None:
                    found.append(variable)
            position += 8 + length + (-length % 8 if kind == MATRIX else 0)
    return found


def _described(source: _Source) -> Variable | None:
    """Return what a variable is, from its first bytes; None of one without a name, which is MATLAB's own."""
    data, order = source.begin(), source.order
    end = len(data)
    kind, position, _, _ = _element(data, 0, 1 << 62, order, inside=False)
    if kind != MATRIX:
        raise ValueError(f"an element of kind {kind}, where an array was expected")
    described = _description(data, position, end, order)
    if described is None:
        return None
    name, shape, flags, body = described
    code = flags & 0xFF
    return (
        Variable(name, shape, code in NUMERIC, code == STRUCTURE, bool(flags & COMPLEX), source, body) if name else None
    )


def _description(data: Any, position: int, end: int, order: str) -> tuple[str, tuple[int, ...], int, int] | None:
    """(name, shape, flags, where the values begin) of an array."""
    kind, start, length, position = _element(data, position, end, order)
    if kind != 6 or length != 8:
        raise ValueError("an array without its flags")
    flags = struct.unpack(f"{order}I", bytes(data[start : start + 4]))[0]
    if flags & 0xFF == 17:  # an object of a class of MATLAB's, which has no shape
        return None
    kind, start, length, position = _element(data, position, end, order)
    if kind != 5 or length % 4 or not 8 <= length <= 4 * 32:
        raise ValueError("an array without its shape")
    shape = struct.unpack(f"{order}{length // 4}i", bytes(data[start : start + length]))
    if min(shape) < 0:
        raise ValueError(f"an array of shape {shape}")
    kind, start, length, position = _element(data, position, end, order)
    if kind != 1 or length > 1000:
        raise ValueError("an array without its name")
    return bytes(data[start : start + length]).decode("latin-1"), shape, flags, position


def _element(data: Any, position: int, end: int, order: str, inside: bool = True) -> tuple[int, int, int, int]:
    """(kind, start, length, start of the next) of an element; one of up to 4 bytes may lie in its own tag."""
    if position + 8 > min(end, len(data)):
        raise ValueError("an element that is cut short")
    kind, length = struct.unpack(f"{order}II", bytes(data[position : position + 8]))
    if kind >> 16:
        kind, length = kind & 0xFFFF, kind >> 16
        if length > 4:
            raise ValueError(f"an element of {length} bytes in a tag")
        return kind, position + 4, length, position + 8
    if inside and position + 8 + length > end:
        raise ValueError(f"an element of {length} bytes in an array of fewer")
    return kind, position + 8, length, position + 8 + length + -length % 8


def _numbers(
    data: Any, kind: int, start: int, length: int, order: str, shape: tuple[int, ...], name: str
) -> np.ndarray:
    if kind not in STORED:
        raise ValueError(f"{name}: expected numbers, got an element of kind {kind}")
    dtype = np.dtype(order + STORED[kind])
    if math.prod(shape) * dtype.itemsize != length:
        raise ValueError(f"{name}: shape {shape} of {dtype} declared, {length} bytes there")
    return np.asarray(data[start : start + length]).view(dtype).reshape(shape, order="F")


def _fields(data: Any, position: int, end: int, order: str) -> Iterator[tuple[str, np.ndarray]]:
    """Names and values of the numeric fields of a structure of one element."""
    kind, start, length, position = _element(data, position, end, order)
    if kind != 5 or length != 4:
        raise ValueError("a structure without the length of its names")
    width = struct.unpack(f"{order}i", bytes(data[start : start + 4]))[0]
    kind, start, length, position = _element(data, position, end, order)
    if kind != 1 or not 0 < width <= 256 or length % width:
        raise ValueError("a structure without its names")
    letters = bytes(data[start : start + length])
    for i in range(0, length, width):
        kind, inner, size, position = _element(data, position, end, order)
        if kind != MATRIX:
            raise ValueError(f"a field of kind {kind}")
        if not size:
            continue
        described = _description(data, inner, inner + size, order)
        if described is None or described[2] & 0xFF not in NUMERIC or described[2] & COMPLEX:
            continue
        name = letters[i : i + width].split(b"\0")[0].decode("latin-1")
        kind, at, stored, _ = _element(data, described[3], inner + size, order)
        yield name, _numbers(data, kind, at, stored, order, described[1], name)
