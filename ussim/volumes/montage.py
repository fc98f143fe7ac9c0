"""Montages: the slices of a volume tiled in one picture (Siemens MOSAIC, UIH VFRAME), and where in the patient each lies.

Both fill rows of tiles from the top left. Siemens gives one ImagePositionPatient, that of a picture as large as the whole
montage around the center of the first slice; how many slices there are, and to which side they follow each other, is
private: (0019,100A) and the CSA header (0029,1010). UIH gives the number (0065,1050) and each slice's own position
(0065,1051). A montage is cut only where all of that is there: a guess would put slices in the wrong place.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import MutableSequence
from dataclasses import dataclass
from typing import Any

import numpy as np

WORDS = {"MOSAIC": "Siemens", "VFRAME": "UIH"}  # in ImageType
_MOST_TILES = 4096
_SIEMENS, _CSA, _UIH = (0x0019, "SIEMENS MR HEADER"), (0x0029, "SIEMENS CSA HEADER"), (0x0065, "Image Private Header")
# To be read from a header beside what every image needs: private blocks with the elements that say who owns them.
TAGS: list[Any] = [
    *((group << 16) + block for group, _ in (_SIEMENS, _CSA, _UIH) for block in range(0x10, 0x14)),
    *((0x0019 << 16) + (block << 8) + 0x0A for block in range(0x10, 0x14)),
    *((0x0029 << 16) + (block << 8) + 0x10 for block in range(0x10, 0x14)),
    *((0x0065 << 16) + (block << 8) + number for block in range(0x10, 0x14) for number in (0x50, 0x51)),
    "SpacingBetweenSlices",
]


class NotCut(ValueError):
    """A montage whose tags do not say how to cut it; the message says what is missing."""


@dataclass(frozen=True)
class Montage:
    """Cut of a picture into slices."""

    across: int  # tiles beside each other
    down: int  # tiles below each other
    positions: tuple[tuple[float, ...], ...]  # mm (LPS), of the center of the first pixel of each slice

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """Return the slices (n_slices, n_rows, n_columns) of a picture; what the last tiles hold beyond them is empty."""
        rows, columns = picture.shape[0] // self.down, picture.shape[1] // self.across
        tiles = picture.reshape(self.down, rows, self.across, columns).swapaxes(1, 2)
        return tiles.reshape(-1, rows, columns)[: len(self.positions)]


def word_of(header: Any) -> str:
    """Return "MOSAIC" or "VFRAME" where the header is of a montage, else "".

    Scanners that store the slices as frames of one file leave the word in ImageType; then it means nothing.
    """
    value = header.get("ImageType") or []
    values = [str(item).upper() for item in ([value] if isinstance(value, str) else value)]
    single = int(header.get("NumberOfFrames") or 1) == 1
    return next((word for word in WORDS if word in values), "") if single else ""


def montage_of(header: Any) -> Montage | None:
    """Return how the picture of a header is cut, None where it is no montage.

    Raises
    ------
    NotCut
        It is one, but its tags do not say how many slices it has, how far apart, or where they lie.
    """
    word = word_of(header)
    if not word:
        return None
    return _siemens(header) if word == "MOSAIC" else _uih(header)


def _siemens(header: Any) -> Montage:
    csa = _csa(header)
    count = _whole(csa.get("NumberOfImagesInMosaic") or _private(header, *_SIEMENS, 0x0A))
    side = _checked(header, count, math.ceil(math.sqrt(count)), math.ceil(math.sqrt(count)))[0]
    position, cosines = _numbers(header, "ImagePositionPatient", 3), _numbers(header, "ImageOrientationPatient", 6)
    spacing = _numbers(header, "PixelSpacing", 2)
    step = _step(header)
    row, column = cosines[:3], cosines[3:]
    # The position is that of a picture as large as the montage around the center of the first slice.
    rows, columns = int(header.Rows), int(header.Columns)
    first = (
        position + row * spacing[1] * (columns - columns // side) / 2 + column * spacing[0] * (rows - rows // side) / 2
    )
    normal = np.cross(row, column)
    said = np.array([value for value in csa.get("SliceNormalVector") or () if isinstance(value, float)])
    if said.shape != (3,):
        raise NotCut("no SliceNormalVector in a CSA header: to which side slices follow each other is not known")
    along = float(normal @ said)
    if not abs(along) > 0.99:
        raise NotCut("its SliceNormalVector is not across its slices")
    return Montage(side, side, tuple(tuple(first + k * step * np.sign(along) * normal) for k in range(count)))


def _step(header: Any) -> float:
    for name in ("SpacingBetweenSlices", "SliceThickness"):  # the first counts gaps, the second does not
        try:
            step = abs(float(header.get(name)))
        except (TypeError, ValueError):
            continue
        if step > 0 and np.isfinite(step):
            return step
    raise NotCut("no distance between slices")


def _uih(header: Any) -> Montage:
    count = _whole(_private(header, *_UIH, 0x50))
    across = math.ceil(math.sqrt(count))
    across, down = _checked(header, count, across, math.ceil(count / across))
    frames = _items(_private(header, *_UIH, 0x51))
    if not frames:
        raise NotCut("no positions of its slices (0065,1051)")
    positions = [tuple(_numbers(item, "ImagePositionPatient", 3)) for item in frames]
    if len(positions) != count:
        raise NotCut(f"{count} slices, but positions of {len(positions)}")
    _numbers(header, "ImageOrientationPatient", 6)
    return Montage(across, down, tuple(positions))


def _checked(header: Any, count: int, across: int, down: int) -> tuple[int, int]:
    """Return tiles beside and below each other, where they fill the picture."""
    rows, columns = int(header.Rows), int(header.Columns)
    if rows % down or columns % across or rows < 2 * down or columns < 2 * across:
        raise NotCut(f"{count} slices do not fit into {rows} x {columns} pixels")
    return across, down


def _csa(header: Any) -> dict[str, list[Any]]:
    """Return the values of the CSA image header by name, {} where there is none or it cannot be read."""
    content = _private(header, *_CSA, 0x10)
    if not isinstance(content, bytes) or not content:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NiBabel calls its DICOM readers experimental at import
        from nibabel.nicom import csareader
    try:
        return {name: tag["items"] for name, tag in csareader.read(content)["tags"].items()}
    except Exception:  # whatever damaged bytes provoke in the parser
        return {}


def _private(header: Any, group: int, creator: str, number: int) -> Any:
    """Return the value of a private element, None where it or its owner's name is missing."""
    try:
        return header.private_block(group, creator)[number].value
    except KeyError:
        return None


def _items(value: Any) -> list[Any]:
    """Return the datasets of a sequence; of one whose type nobody said, which is in implicit VR then (PS3.5, 6.2.2)."""
    if isinstance(value, bytes):
        from pydicom.values import convert_SQ

        try:
            value = convert_SQ(value, True, True)
        except Exception:  # whatever damaged bytes provoke in the parser
            return []
    return [item for item in value if hasattr(item, "get")] if isinstance(value, MutableSequence) else []


def _whole(value: Any) -> int:
    """Return the number of slices, as a number, text, bytes or a list of one holds it."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, bytes):  # implicit VR: nobody said what it is
        text = value.decode("ascii", "replace").strip("\0 ")
        value = text if text.isdigit() else int.from_bytes(value[:2], "little")
    try:
        count = int(float(value))
    except (TypeError, ValueError, OverflowError):
        raise NotCut("no number of slices") from None
    if not 2 <= count <= _MOST_TILES:
        raise NotCut(f"{count} slices, expected 2 to {_MOST_TILES}")
    return count


def _numbers(header: Any, name: str, count: int) -> np.ndarray:
    try:
        numbers = np.array([float(value) for value in header.get(name)])
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise NotCut(f"no {name}")
    return numbers
