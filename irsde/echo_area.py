"""The echo area of a B-mode picture: what the scanner imaged, apart from border, captions and the outside of a sector.

Captions drawn over the echoes are not recognized: they count as echoes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

TOLERANCE = 2  # grey levels of 255 about the border's own: JPEG spreads it by as much
BLACK = 4  # grey levels of 255
SOLID = 7  # pixels: a border holds squares of this side everywhere, black gaps between speckle grains do not
THINNEST = 3  # pixels, of a border along the picture's edge
SMALLEST_BORDER = 0.01  # of the picture
SMALLEST_AREA = 0.05  # of the picture: less is taken for a failure of the rules here
SHORTEST_SIDE = 16  # pixels
KEPT = 1024  # areas that `EchoPairs` keeps in memory


@dataclass(frozen=True, eq=False)
class EchoArea:
    """The pixels of a picture that are echo, and the smallest rectangle that holds them.

    Attributes
    ----------
    mask : (nz, nx) bool, True where there is echo.
    box : rows and columns of the rectangle.
    """

    mask: NDArray[np.bool_]
    box: tuple[slice, slice]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the rectangle."""
        rows, columns = self.box
        return rows.stop - rows.start, columns.stop - columns.start

    def grown(self, least: int) -> EchoArea:
        """Return the area with a rectangle of at least `least` pixels a side, as far as the picture has them."""
        sides = []
        for side, n in zip(self.box, self.mask.shape, strict=True):
            more = max(0, min(least, n) - (side.stop - side.start))
            start = min(max(0, side.start - more // 2), n - (side.stop - side.start) - more)
            sides.append(slice(start, start + side.stop - side.start + more))
        return replace(self, box=(sides[0], sides[1]))

    def cut(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the rectangle of an image (nz, nx), what is not echo in it replaced by echoes mirrored at the area's edge.

        So nothing that a network computes of the rectangle depends on pixels outside the area.
        """
        image, mask = image[self.box], self.mask[self.box]
        if mask.all():
            return image
        nearest = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
        places = np.indices(mask.shape)
        limits = np.array(mask.shape)[:, None, None] - 1
        mirrored = np.clip(2 * nearest - places, 0, limits)
        usable = mask[tuple(mirrored)]
        return np.where(usable, image[tuple(mirrored)], image[tuple(nearest)])

    def put(self, image: NDArray[np.float32], result: NDArray[np.float32]) -> None:
        """Write a result of the rectangle into an image (nz, nx), in place, where there is echo."""
        image[self.box] = np.where(self.mask[self.box], result, image[self.box])


def echo_area(image: NDArray[np.floating], mask: ArrayLike | str | None = "auto") -> EchoArea:
    """Find or take the echo area of a picture.

    "auto": the border is the constant grey, black or not, that lies along the picture's edges in solid pieces; echo is the
    largest connected piece of the rest, so that captions in the border are not echo. A picture without such a border, as
    simulated B-modes are, is echo everywhere.

    Parameters
    ----------
    image : (nz, nx) grey levels in [0, 1].
    mask : "auto"; None for all pixels; or (nz, nx) bool, True where there is echo.

    Raises
    ------
    ValueError
        The mask has another shape, or marks no rectangle of at least 2 x 2 pixels.
    """
    if mask is None:
        return area_of(np.ones(image.shape, dtype=bool))
    if isinstance(mask, str):
        if mask != "auto":
            raise ValueError(f'mask: expected "auto", None or an array, got {mask!r}')
        return area_of(_find(image))
    given = np.asarray(mask, dtype=bool)
    if given.shape != image.shape:
        raise ValueError(f"mask: expected the shape of the image {image.shape}, got {given.shape}")
    if not given.any() or min(area_of(given).shape) < 2:
        raise ValueError("mask: expected echo in at least 2 x 2 pixels, got less")
    return area_of(given)


class EchoPairs:
    """Pairs of one probe cut to its field, LQ and HQ alike: what lies around it is echoes mirrored at its edge.

    So training sees, and takes statistics of, what restoring shows the network of a sector. A pair whose field is the whole
    picture stays as it is.

    Parameters
    ----------
    pairs : as `datagen.open_pairs` returns them for one probe.
    least : pixels a side that an image has at least, if it has them at all.
    """

    def __init__(self, pairs: Any, least: int):
        self.pairs, self.least = pairs, least
        self.probes, self.samples = pairs.probes, pairs.samples
        self.attributes = getattr(pairs, "attributes", {})
        if hasattr(pairs, "read"):
            self.read = pairs.read  # many at once and whole: to scan a store for pairs without contrast
        self._whole: set[int] = set()
        self._areas: dict[int, EchoArea] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        hq, lq = self.pairs[i]
        area = self._area(int(i))
        return (hq, lq) if area is None else (area.cut(hq), area.cut(lq))

    def mask(self, i: int) -> NDArray[np.bool_]:
        """(nz, nx) bool, the pixels inside the probe's field."""
        area = self._area(int(i))
        return np.asarray(self.pairs.mask(i)) if area is None else area.mask[area.box]

    def _area(self, i: int) -> EchoArea | None:
        """Return the field of a pair; None where it is the whole picture."""
        if i in self._whole:
            return None
        if i not in self._areas:
            mask = np.asarray(self.pairs.mask(i), dtype=bool)
            if mask.all() or not mask.any():
                self._whole.add(i)
                return None
            if len(self._areas) >= KEPT:
                self._areas.clear()
            self._areas[i] = area_of(mask).grown(self.least)
        return self._areas[i]


def area_of(mask: NDArray[np.bool_]) -> EchoArea:
    """Return the area of a mask that marks at least one pixel."""
    return EchoArea(mask, ndimage.find_objects(mask.astype(np.uint8))[0])


def _find(image: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(nz, nx) bool by the rules of `echo_area`."""
    everything = np.ones(image.shape, dtype=bool)
    if min(image.shape) < 2 * SHORTEST_SIDE:
        return everything
    levels = np.round(np.asarray(image, dtype=np.float32) * 255).astype(np.int16)
    frame = np.concatenate([levels[0], levels[-1], levels[1:-1, 0], levels[1:-1, -1]])
    nearby = 1 + TOLERANCE - np.abs(np.arange(-TOLERANCE, TOLERANCE + 1))
    grey = np.convolve(np.bincount(frame.clip(0, 255), minlength=256), nearby, mode="same").argmax()
    # Beyond the picture the border goes on, so that a strip narrower than a square is solid too, and all of it one piece.
    around = SOLID - THINNEST
    flat = np.pad(np.abs(levels - grey) <= TOLERANCE, around, constant_values=True)
    solid = ndimage.binary_opening(flat, np.ones((SOLID, SOLID), dtype=bool))
    solid[[0, -1]] = solid[:, [0, -1]] = True
    pieces, _ = ndimage.label(solid)
    outside = pieces == pieces[0, 0]
    if grey <= BLACK:  # squares leave out the steps of a slanted edge: black there is border, too
        outside = ndimage.binary_dilation(outside, iterations=around, mask=flat)
    outside = outside[around:-around, around:-around]
    if outside.mean() < SMALLEST_BORDER:
        return everything
    pieces, n = ndimage.label(~outside)
    if n == 0:
        return everything
    sizes = np.bincount(pieces.ravel())[1:]
    mask = pieces == 1 + int(sizes.argmax())
    if mask.mean() < SMALLEST_AREA or min(area_of(mask).shape) < SHORTEST_SIDE:
        return everything
    return mask
