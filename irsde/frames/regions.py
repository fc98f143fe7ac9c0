"""SequenceOfUltrasoundRegions: which parts of a frame a scanner says it filled, and with what (DICOM PS3.3 C.8.5.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FORMATS = {0: "of no format", 1: "2-D", 2: "M-mode", 3: "spectral", 4: "waveform", 5: "graphics"}
DATA = {
    0: "", 1: "tissue", 2: "color flow", 3: "PW Doppler", 4: "CW Doppler", 5: "Doppler mean trace", 6: "Doppler mode trace",
    7: "Doppler max trace", 8: "volume trace", 10: "ECG", 11: "pulse", 12: "phonocardiogram", 13: "gray bar",
    14: "color bar", 15: "integrated backscatter", 16: "area trace", 17: "d(area)/dt",
}  # fmt: skip
CENTIMETRES = 3  # PhysicalUnitsXDirection
BEYOND = 1  # pixels: some scanners name the pixel after the last


@dataclass(frozen=True)
class Region:
    """One region of a frame.

    Attributes
    ----------
    number : its place in the file's list, from 1.
    box : rows and columns, inside the frame.
    pixel_size : mm of a row and a column; None where the region's axes are not both lengths.
    """

    number: int
    box: tuple[slice, slice]
    format: int
    data: int
    pixel_size: tuple[float, float] | None = None

    @property
    def is_echo(self) -> bool:
        """True of a 2-D image of tissue, with or without color flow over it."""
        return self.format == 1 and self.data in (1, 2)

    @property
    def area(self) -> int:
        """Pixels of the box."""
        rows, columns = self.box
        return (rows.stop - rows.start) * (columns.stop - columns.start)

    def __str__(self) -> str:
        kind = " ".join(word for word in (FORMATS.get(self.format, "unknown"), DATA.get(self.data, "")) if word)
        rows, columns = self.box
        return f"{self.number} ({kind}, {columns.stop - columns.start} x {rows.stop - rows.start} pixels)"

    def overlap(self, other: Region) -> int:
        """Pixels that both boxes hold."""
        sides = [max(0, min(a.stop, b.stop) - max(a.start, b.start)) for a, b in zip(self.box, other.box, strict=True)]
        return sides[0] * sides[1]


def read_regions(header: Any, shape: tuple[int, int]) -> tuple[tuple[Region, ...], list[str]]:
    """Return the regions of a DICOM header that lie in frames of a shape, and what is odd about the list."""
    regions, notes = [], []
    for number, item in enumerate(header.get("SequenceOfUltrasoundRegions") or [], 1):
        try:
            left, top, right, bottom = (
                int(item[f"RegionLocation{name}"].value) for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")
            )
        except (KeyError, TypeError, ValueError):
            notes.append(f"region {number} has no place: ignored")
            continue
        box = slice(max(top, 0), min(bottom + 1, shape[0])), slice(max(left, 0), min(right + 1, shape[1]))
        beyond = (bottom >= shape[0] + BEYOND, right >= shape[1] + BEYOND)
        if all(beyond):
            notes.append(
                f"region {number} ({left},{top} to {right},{bottom}) is of a picture larger than this one of {shape[1]} x "
                f"{shape[0]} pixels, which somebody resized: ignored, and its pixel size with it"
            )
            continue
        if min(side.stop - side.start for side in box) < 2:
            notes.append(f"region {number} ({left},{top} to {right},{bottom}) lies outside the picture: ignored")
            continue
        if any(beyond):
            notes.append(
                f"region {number} ({left},{top} to {right},{bottom}) reaches beyond the {shape[1]} x {shape[0]} picture: "
                "cut off there"
            )
        kinds = (_whole(item, "RegionSpatialFormat"), _whole(item, "RegionDataType"))
        regions.append(Region(number, box, *kinds, _pixel_size(item)))
    return tuple(regions), notes


def echo_regions(regions: Sequence[Region]) -> list[Region]:
    """Return the regions of echoes: two beside each other are two views, one inside another is its color box."""
    chosen: list[Region] = []
    # Tissue before color flow, large before small: what lies in a region that was taken is part of it.
    for region in sorted((r for r in regions if r.is_echo), key=lambda r: (r.data, -r.area, r.number)):
        if not any(2 * region.overlap(taken) > min(region.area, taken.area) for taken in chosen):
            chosen.append(region)
    return sorted(chosen, key=lambda r: r.number)


def left_alone(regions: Sequence[Region], chosen: Sequence[Region], shape: tuple[int, int]) -> np.ndarray:
    """Return where traces, spectra and bars lie, (n_rows, n_columns) bool: not in the echoes although inside their box.

    One that holds most of a chosen region is a frame around it, not a part of the picture.
    """
    others = np.zeros(shape, bool)
    for region in regions:
        if region not in chosen and not region.is_echo and all(2 * region.overlap(r) < r.area for r in chosen):
            others[region.box] = True
    return others


def _pixel_size(item: Any) -> tuple[float, float] | None:
    if {_whole(item, f"PhysicalUnits{axis}Direction") for axis in "XY"} != {CENTIMETRES}:
        return None
    sizes = []
    for axis in "YX":
        try:
            sizes.append(10 * abs(float(item.get(f"PhysicalDelta{axis}"))))
        except (TypeError, ValueError):
            return None
    return (sizes[0], sizes[1]) if all(np.isfinite(sizes)) and min(sizes) > 0 else None


def _whole(item: Any, name: str) -> int:
    try:
        return int(item.get(name) or 0)
    except (TypeError, ValueError):
        return 0
