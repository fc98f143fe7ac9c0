"""A volume to the high-quality (HQ) images that are simulated: full slices, and the patch wholly inside the tissue.

Grey values are scaled by percentiles of the series' foreground, so that one contrast holds for all its slices; the
square is cut in millimeters where the pixel size is known, and resized with anti-aliasing to 8-bit grey.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ussim.errors import DataError
from ussim.volumes.grey import foreground, to_unit
from ussim.volumes.volume import Volume
from ussim.volumes.window import Window, is_noise, window_of

Segmenter = Callable[[np.ndarray], np.ndarray]  # (n_rows, n_columns) in [0, 1] -> bool mask of the tissue
OnSkip = Callable[[str, int, str, str], None]  # plane, index, kind ("full" or "patch"), reason

MIN_SIDE = 48  # pixels: a smaller square of MRI has too little in it to fill an image
_MAX_ANISOTROPY = 1.01  # pixels nearer to square than this are cut as they are


@dataclass(frozen=True, eq=False)
class HQSlice:
    """One HQ image and where it comes from."""

    image: np.ndarray  # (size, size) uint8, or the MRI's own pixels where no size was asked for
    plane: str
    index: int
    kind: Literal["full", "patch"]
    box: tuple[int, int, int, int]  # row0, col0, row1, col1 in MRI pixels; beyond the slice where it was padded
    pixel_size_mm: tuple[float | None, float | None]  # of the MRI (row, column), None = not known


def hq_slices(
    volume: Volume,
    planes: Sequence[str] | None = None,
    every: int = 1,
    min_tissue: float = 0.1,
    size: int | None = 256,
    *,
    fit: Literal["crop", "pad"] = "crop",
    patches: bool = False,
    segmenter: Segmenter | None = None,
    on_skip: OnSkip | None = None,
    window: Window | None = None,
) -> Iterator[HQSlice]:
    """Yield the HQ images of one volume: a full slice each, followed by its patch where `patches` is set.

    Parameters
    ----------
    planes : of "axial", "coronal", "sagittal"; None or empty = those of near-square pixels. A bare stack of unknown
        orientation gives its own plane whatever is asked for.
    every : take every n-th slice, counted so that the middle slice is among them
    min_tissue : least fraction of the square that the foreground must fill
    size : side of the image in pixels, None = as in the MRI
    fit : "crop" takes the center square, "pad" the whole slice on black
    segmenter : finds the tissue in a slice; None = `foreground`
    window : which values become black and white; None = `window_of(volume)`
    on_skip : called with plane, index, kind and reason for each image that is left out

    Raises
    ------
    DataError
        The volume has no grey values to speak of, or an argument is out of range.
    """
    if every < 1:
        raise DataError(f"every: expected a whole number of at least 1, got {every}")
    if not 0 <= min_tissue < 1:
        raise DataError(f"min_tissue: expected a fraction in [0, 1), got {min_tissue}")
    skip = on_skip or (lambda plane, index, kind, reason: None)
    chosen = window or window_of(volume)
    for plane in chosen_planes(volume, planes):
        count = volume.n_slices(plane)
        for index in range((count // 2) % every, count, every):
            cut = _Cut.of(volume, plane, index, chosen, segmenter)
            try:
                yield cut.full(size, fit, min_tissue)
            except Unusable as reason:
                skip(plane, index, "full", str(reason))
            if patches:
                try:
                    yield cut.patch(size)
                except Unusable as reason:
                    skip(plane, index, "patch", str(reason))


class Unusable(DataError):
    """A slice that makes no HQ image; the message is the reason."""


def chosen_planes(volume: Volume, planes: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the planes to cut: those asked for that the volume has.

    By default those of near-square pixels and enough of them.
    """
    if not planes:
        square = volume.square_planes()
        large = tuple(plane for plane in square if min(volume.slice_shape(plane)) >= MIN_SIDE)
        return large or square or volume.planes()
    if volume.planes() == ("acquired",):
        return volume.planes()
    return tuple(plane for plane in planes if plane in volume.planes())


def hq_slice(
    volume: Volume,
    plane: str,
    index: int,
    size: int | None = 256,
    *,
    window: Window | None = None,
    fit: Literal["crop", "pad"] = "crop",
    min_tissue: float = 0.1,
    segmenter: Segmenter | None = None,
) -> HQSlice:
    """One full slice: its center square (or all of it on black) in 8-bit grey. `window` is `window_of(volume)`.

    Raises
    ------
    Unusable
        Too few pixels, or too little tissue.
    """
    return _Cut.of(volume, plane, index, window or window_of(volume), segmenter).full(size, fit, min_tissue)


def hq_patch(
    volume: Volume,
    plane: str,
    index: int,
    size: int | None = 256,
    *,
    window: Window | None = None,
    segmenter: Segmenter | None = None,
) -> HQSlice:
    """Return the largest axis-aligned square wholly inside the tissue of one slice, in 8-bit grey.

    Raises
    ------
    Unusable
        The square is smaller than MIN_SIDE pixels.
    """
    return _Cut.of(volume, plane, index, window or window_of(volume), segmenter).patch(size)


def largest_square(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return the largest axis-aligned square of True pixels: row0, col0, row1, col1 (half open).

    Exact, in time linear in the pixels. side[i, j], the largest square whose lower right corner is (i, j), is
    1 + min(side[i-1, j], side[i, j-1], side[i-1, j-1]). Within a row, side[j] - j is then the running minimum of
    1 + min(up, up-left) - j, which is one pass of `minimum.accumulate`. Of several largest squares the one nearest to the
    center of the mask is taken (the first of those in reading order), so the result is unique. An empty mask gives
    (0, 0, 0, 0).
    """
    mask = np.asarray(mask, dtype=bool)
    n_rows, n_columns = mask.shape
    side = np.zeros((n_rows, n_columns), np.int32)
    column = np.arange(n_columns, dtype=np.int32)
    above = np.zeros(n_columns + 1, np.int32)  # the row above, with a zero to its left
    for row in range(n_rows):
        limit = np.minimum(above[1:], above[:-1])
        limit[~mask[row]] = -1
        # A square in column j is at most j + 1 wide: the zero to the left of the row.
        side[row] = column + np.minimum(np.minimum.accumulate(limit + 1 - column), 1)
        above[1:] = side[row]
    largest = int(side.max(initial=0))
    if largest == 0:
        return (0, 0, 0, 0)
    rows, columns = np.nonzero(side == largest)
    centre_row, centre_column = (np.mean(axis) for axis in np.nonzero(mask))
    offset = (largest - 1) / 2
    distance = (rows - offset - centre_row) ** 2 + (columns - offset - centre_column) ** 2
    nearest = int(np.argmin(np.round(distance, 6)))
    row1, col1 = int(rows[nearest]) + 1, int(columns[nearest]) + 1
    return (row1 - largest, col1 - largest, row1, col1)


def square_box(
    shape: tuple[int, ...], pixel_size: tuple[float | None, float | None], fit: str = "crop"
) -> tuple[int, int, int, int]:
    """Return the center square of a slice in pixels, square in mm where the pixel size is known.

    "pad" goes beyond the slice.
    """
    row_mm, column_mm = _known(pixel_size)
    height, width = shape[0] * row_mm, shape[1] * column_mm
    side = min(height, width) if fit == "crop" else max(height, width)
    n_rows, n_columns = max(1, round(side / row_mm)), max(1, round(side / column_mm))
    row0, col0 = (shape[0] - n_rows) // 2, (shape[1] - n_columns) // 2
    return (row0, col0, row0 + n_rows, col0 + n_columns)


def resize(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize with anti-aliasing (bicubic, clipped to the range of the input)."""
    from skimage.transform import resize as skimage_resize

    if image.shape == shape:
        return image
    return skimage_resize(image, shape, order=3, anti_aliasing=True, preserve_range=True).astype(np.float32)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """[0, 1] to 8-bit grey, rounded."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class _Cut:
    """A slice in grey with its tissue, from which the full image and the patch are cut."""

    image: np.ndarray  # (n_rows, n_columns) in [0, 1]
    mask: np.ndarray  # tissue
    plane: str
    index: int
    pixel_size: tuple[float | None, float | None]
    is_noise: bool = False

    @classmethod
    def of(cls, volume: Volume, plane: str, index: int, window: Window, segmenter: Segmenter | None) -> _Cut:
        values, pixel_size = volume.slice(plane, index)
        image = to_unit(values, window.grey)
        # A sliver of a slice is refused by either cut; the filters of the segmentation may not take it.
        noise = is_noise(image, window)
        nothing = noise or min(image.shape) < MIN_SIDE
        mask = np.zeros(image.shape, bool) if nothing else (segmenter or foreground)(image)
        return cls(image, mask, plane, index, pixel_size, noise)

    def full(self, size: int | None, fit: str, min_tissue: float) -> HQSlice:
        n_rows, n_columns = self.image.shape
        if min(n_rows, n_columns) < MIN_SIDE:
            raise Unusable(f"{n_rows} x {n_columns} pixels, expected at least {MIN_SIDE} each way")
        box = square_box(self.image.shape, self.pixel_size, fit)
        tissue = float(_cut(self.mask, box).mean())
        if tissue < min_tissue or not tissue:
            raise Unusable(
                f"tissue fills {tissue:.0%} of the square, expected at least {min_tissue:.0%}{self._why_none()}"
            )
        return HQSlice(_render(self.image, box, size), self.plane, self.index, "full", box, self.pixel_size)

    def patch(self, size: int | None) -> HQSlice:
        row0, col0, row1, col1 = box = _largest_square_mm(self.mask, self.pixel_size)
        if min(row1 - row0, col1 - col0) < MIN_SIDE:
            raise Unusable(
                f"the largest square inside the tissue is {row1 - row0} x {col1 - col0} pixels, "
                f"expected {MIN_SIDE} or more{self._why_none()}"
            )
        return HQSlice(_render(self.image, box, size), self.plane, self.index, "patch", box, self.pixel_size)

    def _why_none(self) -> str:
        return ": nothing in it is brighter than the noise of its volume" if self.is_noise else ""


def _render(image: np.ndarray, box: tuple[int, int, int, int], size: int | None) -> np.ndarray:
    square = _cut(image, box)
    if size is not None:
        square = resize(square, (size, size))
    elif square.shape[0] != square.shape[1]:
        longest = max(square.shape)
        square = resize(square, (longest, longest))
    return to_uint8(square)


def _cut(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Return the box of an image, zero where it reaches beyond."""
    row0, col0, row1, col1 = box
    n_rows, n_columns = image.shape
    inside = image[max(row0, 0) : min(row1, n_rows), max(col0, 0) : min(col1, n_columns)]
    before_after = ((max(-row0, 0), max(row1 - n_rows, 0)), (max(-col0, 0), max(col1 - n_columns, 0)))
    return np.pad(inside, before_after)


def _largest_square_mm(mask: np.ndarray, pixel_size: tuple[float | None, float | None]) -> tuple[int, int, int, int]:
    """Return the largest square in mm, in whole pixels wholly inside the mask."""
    row_mm, column_mm = _known(pixel_size)
    if max(row_mm, column_mm) <= _MAX_ANISOTROPY * min(row_mm, column_mm):
        return largest_square(mask)
    # Stretch the mask to square pixels of the finer size by repeating pixels, find the square there, and come back,
    # rounding inwards so that no pixel outside the mask enters.
    fine = min(row_mm, column_mm)
    rows = np.minimum((np.arange(int(mask.shape[0] * row_mm / fine)) * fine / row_mm).astype(int), mask.shape[0] - 1)
    columns = np.minimum(
        (np.arange(int(mask.shape[1] * column_mm / fine)) * fine / column_mm).astype(int), mask.shape[1] - 1
    )
    row0, col0, row1, col1 = largest_square(mask[np.ix_(rows, columns)])
    if row1 == 0:
        return (0, 0, 0, 0)
    return (
        int(np.ceil(row0 * fine / row_mm)),
        int(np.ceil(col0 * fine / column_mm)),
        int(np.floor(row1 * fine / row_mm)),
        int(np.floor(col1 * fine / column_mm)),
    )


def _known(pixel_size: tuple[float | None, float | None]) -> tuple[float, float]:
    """Pixel size in mm, or (1, 1) where it is not known: pixels are taken as square."""
    row, column = pixel_size
    return (row, column) if row is not None and column is not None else (1.0, 1.0)
