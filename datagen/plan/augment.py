"""Variants of an HQ image made before simulation: flips, rotations, rescaling. Nothing that degrades the target.

A variant shows part of the same picture, turned: every pixel of it is interpolated from the MRI, none is invented (no black
corners, no mirrored borders), and no noise, blur or change of contrast is added. The ultrasound image is then simulated
from the variant, so that speckle and point spread function stay true to the probe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..sources.scene import Scene
from .slices import resize, to_uint8


@dataclass(frozen=True)
class Augmentation:
    """One variant: flip left to right, then quarter turns, then a turned and scaled square cut out of the result."""

    flip: bool = False
    quarter_turns: int = 0  # anticlockwise
    angle: float = 0.0  # rad, of the square that is cut out
    scale: float = 1.0  # its side relative to the largest square at that angle
    offset: tuple[float, float] = (0.5, 0.5)  # where it lies in the room left (row, column), 0 to 1

    @property
    def reach(self) -> float:
        """Side of the upright square around a turned square of side 1."""
        return abs(math.cos(self.angle)) + abs(math.sin(self.angle))

    @property
    def side(self) -> float:
        """Side of the square that is cut out, relative to that of the image."""
        return self.scale / self.reach


def draw_augmentation(
    rng: np.random.Generator, max_angle: float = math.radians(10.0), min_scale: float = 0.8
) -> Augmentation:
    """Return a random variant; the same generator state gives the same one.

    Raises
    ------
    ValueError
        `max_angle` is outside [0, π/4] or `min_scale` outside (0, 1].
    """
    if not 0 <= max_angle <= math.pi / 4:
        raise ValueError(f"max_angle: expected rad in [0, π/4], got {max_angle!r}")
    if not 0 < min_scale <= 1:
        raise ValueError(f"min_scale: expected a fraction in (0, 1], got {min_scale!r}")
    return Augmentation(
        flip=bool(rng.integers(2)),
        quarter_turns=int(rng.integers(4)),
        angle=float(rng.uniform(-max_angle, max_angle)),
        scale=float(rng.uniform(min_scale, 1.0)),
        offset=(float(rng.uniform()), float(rng.uniform())),
    )


def apply_augmentation(image: np.ndarray, augmentation: Augmentation, size: int | None = None) -> np.ndarray:
    """Return the variant of a square image.

    Parameters
    ----------
    image : (n, n), uint8 or floating point
    size : side of the result, None = n. Give the MRI's own pixels and the final size to interpolate once only.

    Returns
    -------
    variant : (size, size), same type; values stay within those of the image

    Raises
    ------
    ValueError
        The image is not square.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates

    turned = _turned(image, augmentation)
    n, size = image.shape[0], size or image.shape[0]
    if augmentation.angle == 0 and augmentation.scale == 1 and size == n:
        return np.ascontiguousarray(turned)
    rows, columns = _places(n, augmentation, size)
    source = turned.astype(np.float32)
    step = augmentation.side * n / size  # MRI pixels a pixel of the result
    if step > 1:
        source = gaussian_filter(source, (step - 1) / 2, mode="nearest")  # scikit-image's anti-aliasing
    # The outermost pixel centers may lie half a pixel beyond the image's own: "nearest" holds the border there.
    variant = map_coordinates(source, [rows, columns], order=3, mode="nearest")
    variant = np.clip(variant, image.min(), image.max())
    return np.rint(variant).astype(image.dtype) if image.dtype.kind in "ui" else variant.astype(image.dtype)


def apply_to_labels(labels: np.ndarray, augmentation: Augmentation, size: int) -> np.ndarray:
    """Return the variant of labels (n, n), (size, size) of the same type: each pixel as the nearest one says."""
    n = labels.shape[0]
    # Half way between two pixels the later one counts, whatever the last digit of the place.
    rows, columns = (
        np.clip(np.floor(axis + 0.5 + 1e-9).astype(int), 0, n - 1) for axis in _places(n, augmentation, size)
    )
    return _turned(labels, augmentation)[rows, columns]


def apply_to_points(points: np.ndarray, augmentation: Augmentation) -> np.ndarray:
    """Return points (k, 3), places across and down as shares of an image and a level, as they lie in its variant.

    Those that lie outside it are left out.
    """
    across, down = points[:, 0], points[:, 1]
    if augmentation.flip:
        across = 1 - across
    for _ in range(augmentation.quarter_turns % 4):
        across, down = down, 1 - across
    cosine, sine = math.cos(augmentation.angle), math.sin(augmentation.angle)
    side, extent = augmentation.side, augmentation.scale  # of the square, and of the upright one around it
    row, column = (
        place - (extent / 2 + (1 - extent) * offset)
        for place, offset in zip((down, across), augmentation.offset, strict=True)
    )
    moved = np.stack(
        [(cosine * column + sine * row) / side + 0.5, (cosine * row - sine * column) / side + 0.5, points[:, 2]], axis=1
    )
    return moved[((moved[:, :2] > 0) & (moved[:, :2] < 1)).all(axis=1)]


def at_size(made: Scene, variant: Augmentation | None, size: int) -> Scene:
    """Return a scene of its own size as a variant of it at the size of the dataset."""
    how = variant or Augmentation()
    if variant is None:
        hq = to_uint8(resize(made.hq / np.float32(255), (size, size)))
    else:
        hq = apply_augmentation(made.hq, variant, size)
    return Scene(
        hq,
        None if made.labels is None else apply_to_labels(made.labels, how, size),
        None if made.density is None else apply_to_labels(made.density, how, size),
        None if made.points is None else apply_to_points(made.points, how),
    )


def _turned(image: np.ndarray, augmentation: Augmentation) -> np.ndarray:
    if image.ndim != 2 or image.shape[0] != image.shape[1]:
        raise ValueError(f"expected a square image, got shape {image.shape}")
    return np.rot90(image[:, ::-1] if augmentation.flip else image, augmentation.quarter_turns)


def _places(n: int, augmentation: Augmentation, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns in a turned image of n x n pixels that the pixels of a variant are taken from."""
    cosine, sine = math.cos(augmentation.angle), math.sin(augmentation.angle)
    reach = augmentation.reach
    side = augmentation.scale * n / reach
    room = n - side * reach
    centre_row, centre_column = (side * reach / 2 + room * offset - 0.5 for offset in augmentation.offset)
    along = (np.arange(size) + 0.5) / size - 0.5  # pixel centers across the square
    rows = centre_row + side * (cosine * along[:, None] + sine * along[None, :])
    columns = centre_column + side * (cosine * along[None, :] - sine * along[:, None])
    return rows, columns


def augment(
    image: np.ndarray,
    rng: np.random.Generator,
    size: int | None = None,
    max_angle: float = math.radians(10.0),
    min_scale: float = 0.8,
) -> np.ndarray:
    """Return a random variant of a square image: `draw_augmentation`, then `apply_augmentation`."""
    return apply_augmentation(image, draw_augmentation(rng, max_angle, min_scale), size)
