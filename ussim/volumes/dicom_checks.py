"""Claims of a DICOM header, held against the file and the budget before any pixel is decoded."""

from __future__ import annotations

import os
from collections.abc import MutableSequence
from typing import Any

import numpy as np

from ..errors import DataError
from .budget import RUN_LENGTH, check_there, check_unpacked, check_values, inflated_size, unpacked_limit

_FRAME = 4096  # bytes that the geometry of one frame takes when it is sorted
_ITEM = 8  # bytes that a frame takes in a file at least: the head of its item
_RLE = "1.2.840.10008.1.2.5"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_JPEG_SIZES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7})


def check_claims(header: Any, path: str | os.PathLike[str], where: str) -> None:
    """Raise DataError where a header claims what its file cannot hold, or more than may be decoded; of a `read_header`."""
    n_frames = _count(header, "NumberOfFrames", where)
    shape = (n_frames, _count(header, "Rows", where), _count(header, "Columns", where))
    _count(header, "SamplesPerPixel", where)
    bits = _count(header, "BitsAllocated", where, otherwise=16)
    if bits not in (1, 8, 16, 32, 64):
        raise DataError(f"{where}: BitsAllocated is {bits}, expected 8, 16, 32 or 64")
    size = os.path.getsize(path)
    if n_frames > 1 and syntax_of(header) != _DEFLATED and not os.fspath(path).lower().endswith(".gz"):
        check_there(where, n_frames * _ITEM, size)
    check_values(where, (n_frames,), _FRAME)
    check_values(where, shape, max(1, bits // 8))


def check_pixels(dataset: Any, where: str) -> None:
    """Raise DataError where the pixel data of a whole file cannot be what its header claims; before they are decoded."""
    content = dataset.get("PixelData")
    if not isinstance(content, bytes):
        return
    shape = tuple(_count(dataset, name, where) for name in ("NumberOfFrames", "Rows", "Columns", "SamplesPerPixel"))
    n_bytes = int(np.prod([float(size) for size in shape])) * max(1, int(dataset.get("BitsAllocated") or 8) // 8)
    if syntax_of(dataset) == _RLE:
        check_there(where, n_bytes, len(content), RUN_LENGTH)
    check_values(where, shape, max(1, int(dataset.get("BitsAllocated") or 8) // 8))
    claimed = _size_of_codestream(content)
    if claimed and claimed[0] * claimed[1] > 2 * max(1, int(dataset.Rows) * int(dataset.Columns)):
        raise DataError(
            f"{where}: damaged: {claimed[0]} x {claimed[1]} pixels in the picture, {dataset.Rows} x {dataset.Columns} in "
            "the header"
        )


def check_deflated(path: str | os.PathLike[str], where: str) -> None:
    """Raise DataError where a deflated file unpacks to more than is allowed: pydicom unpacks the whole of it."""
    import pydicom

    try:
        with open(path, "rb") as file:
            if file.read(132)[128:] != b"DICM":
                return
            file.seek(0)
            meta = pydicom.filereader.read_file_meta_info(path)
            if str(meta.get("TransferSyntaxUID", "")) != _DEFLATED:
                return
            pydicom.filereader.read_preamble(file, force=False)
            pydicom.filereader._read_file_meta_info(file)
            check_unpacked(where, inflated_size(file.read(), unpacked_limit()))
    except OSError as error:
        raise DataError(f"{where}: {error.strerror or error}") from None


def directions(values: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Return the directions of rows and columns, None where they span no plane: zero, parallel, or no unit vectors."""
    if values is None:
        return None
    row, column = np.array(values[:3]), np.array(values[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if not all(0.5 < length < 2 for length in lengths):
        return None
    return values if abs(row @ column) < 0.9 * lengths[0] * lengths[1] else None


def padded(image: np.ndarray, dataset: Any) -> np.ndarray:
    """Return which stored values are padding, by PixelPaddingValue, and up to PixelPaddingRangeLimit where there is one."""
    padding = dataset.get("PixelPaddingValue")
    limit = dataset.get("PixelPaddingRangeLimit")
    if not isinstance(padding, int):
        return np.zeros(image.shape, bool)
    if not isinstance(limit, int):
        padded: np.ndarray = image == padding
        return padded
    return (image >= min(padding, limit)) & (image <= max(padding, limit))


def display_window(dataset: Any, index: int, scale: float = 0.0) -> list[tuple[float, float]]:
    """Return the VOI window of a frame as (black, white), in a list of one; none where the file has no usable one.

    Parameters
    ----------
    scale : by which values were divided, 0 = they were not.
    """
    places = [dataset]
    for name, number in (("PerFrameFunctionalGroupsSequence", index), ("SharedFunctionalGroupsSequence", 0)):
        groups = dataset.get(name) or []
        if number < len(groups) and (inner := groups[number].get("FrameVOILUTSequence")):
            places.append(inner[0])
    for place in places:
        pair = [place.get(name) for name in ("WindowCenter", "WindowWidth")]
        center, width = (value[0] if isinstance(value, MutableSequence) and value else value for value in pair)
        try:
            low, high = float(center) - float(width) / 2, float(center) + float(width) / 2
        except (TypeError, ValueError):
            continue
        if np.isfinite([low, high]).all() and low < high:
            return [(low / (scale or 1.0), high / (scale or 1.0))]
    return []


def syntax_of(header: Any) -> str:
    """Return the transfer syntax that a file names, "" where it names none."""
    meta = getattr(header, "file_meta", None)
    return str(meta.get("TransferSyntaxUID", "")) if meta is not None else ""


def _count(header: Any, name: str, where: str, otherwise: int = 1) -> int:
    """Return a whole number above 0 of a header."""
    value = header.get(name)
    if value is None or value == "":
        return otherwise
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise DataError(f"{where}: {name} is {str(value)[:40]!r}, expected a whole number") from None
    if number < 1:
        raise DataError(f"{where}: {name} is {number}, expected a number above 0")
    return number


def _size_of_codestream(content: bytes) -> tuple[int, int] | None:
    """Rows and columns as the first JPEG, JPEG-LS or JPEG 2000 picture in pixel data has them; None of others."""
    start = content.find(b"\xff\xd8\xff", 0, 4096)
    other = content.find(b"\xff\x4f\xff\x51", 0, 4096)
    if other >= 0 and (start < 0 or other < start):  # JPEG 2000: SIZ follows at once
        size = content[other + 8 : other + 24]
        if len(size) < 16:
            return None
        width, height, left, top = (int.from_bytes(size[n : n + 4], "big") for n in (0, 4, 8, 12))
        return max(0, height - top), max(0, width - left)
    place = start + 2
    while start >= 0 and place + 9 < len(content) and content[place] == 0xFF:
        if content[place + 1] in _JPEG_SIZES:
            return tuple(int.from_bytes(content[place + n : place + n + 2], "big") for n in (5, 7))  # type: ignore[return-value]
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return None
