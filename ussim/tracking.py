"""Speckle tracking: how far each block of an image moves from one frame to the next, by block matching.

Blocks are registered by scikit-image's `phase_cross_correlation` (Guizar-Sicairos, Thurman & Fienup 2008, "Efficient
subpixel image registration algorithms", Optics Letters 33:156): the maximum of their cross-correlation, to a fraction of a
pixel. The correlation of two blocks in one place is drawn towards no motion, by the speckle that left and came; the second
block is therefore cut anew where it was found, between pixels, until nothing is left to move.
Speckle has to change little between the frames: rotation, shear and motion out of the plane decorrelate it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .arrays import to_numpy
from .types import ImageGrid

UPSAMPLING = 20  # parts of a pixel that a displacement is found to
PASSES = 5  # at most, until a block comes to rest


class Tracked(NamedTuple):
    """Displacements on the centers of blocks.

    Attributes
    ----------
    x, z : np.ndarray
        (columns,) and (rows,) centers of the blocks, m.
    displacement_x, displacement_z : np.ndarray
        (rows, columns) m from one frame to the next, to the right and away from the array: the median over the pairs of
        frames. NaN where a block holds nothing.
    similarity : np.ndarray
        (rows, columns) correlation coefficient of the block and where it went, at most 1: the mean over the pairs.
    """

    x: np.ndarray
    z: np.ndarray
    displacement_x: np.ndarray
    displacement_z: np.ndarray
    similarity: np.ndarray


def track_speckle(
    images: np.ndarray,
    grid: ImageGrid,
    block: float | tuple[float, float] = 3e-3,
    *,
    overlap: float = 0.5,
) -> Tracked:
    """Track blocks of speckle through the frames of a sequence.

    Parameters
    ----------
    images : np.ndarray
        (n_frames, nz, nx) envelopes or B-modes, or complex images, whose magnitudes are tracked; two frames or more.
    grid : ImageGrid
        Pixel centers, evenly spaced.
    block : float or (float, float)
        Size of a block in z and in x, m; 3 mm by default. It holds several speckles, and moves by less than half of itself
        between two frames.
    overlap : float
        Of neighboring blocks, a share of their size from 0 to below 1; 0.5 by default.

    Returns
    -------
    Tracked
        Displacements; times the frame rate they are velocities, m/s.

    Raises
    ------
    ValueError
        The images are not on the grid, fewer than two, or a block is larger than they are or smaller than 4 pixels.
    """
    from scipy.ndimage import spline_filter

    images = to_numpy(images)
    if images.ndim != 3 or len(images) < 2 or images.shape[1:] != grid.shape:
        raise ValueError(
            f"images: expected two frames or more (n_frames, {grid.shape[0]}, {grid.shape[1]}), got {images.shape}"
        )
    images = np.abs(images).astype(np.float64)
    if not np.isfinite(images).all():
        raise ValueError("images: expected finite values, got NaN or infinity")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap: expected a share of at least 0 and below 1, got {overlap!r}")
    steps = _step("z", grid.z), _step("x", grid.x)
    sizes = block if isinstance(block, tuple) else (block, block)
    shape = tuple(_pixels(size, step, n) for size, step, n in zip(sizes, steps, grid.shape, strict=True))
    tops, lefts = (
        np.arange(0, n - side + 1, max(1, round(side * (1 - overlap))))
        for n, side in zip(grid.shape, shape, strict=True)
    )
    splines = np.stack([spline_filter(image) for image in images])
    found = np.array([[_followed(images, splines, (int(top), int(left)), shape) for left in lefts] for top in tops])
    return Tracked(
        x=grid.x[lefts] + (shape[1] - 1) / 2 * steps[1],
        z=grid.z[tops] + (shape[0] - 1) / 2 * steps[0],
        displacement_x=found[..., 1] * steps[1],
        displacement_z=found[..., 0] * steps[0],
        similarity=found[..., 2],
    )


def _followed(
    images: np.ndarray, splines: np.ndarray, corner: tuple[int, int], shape: tuple[int, ...]
) -> tuple[float, float, float]:
    """Displacement of a block in pixels, down and right, and its similarity; NaN of a block without speckle."""
    moves = []
    for before, after in zip(images[:-1], splines[1:], strict=True):
        block = before[corner[0] : corner[0] + shape[0], corner[1] : corner[1] + shape[1]]
        move = np.zeros(2)
        for _ in range(PASSES):
            there = _block_at(after, move + corner, shape)
            rest = _shift(block, there)
            if rest is None:
                break
            move += rest
            if np.abs(rest).max() < 1 / UPSAMPLING:
                break
        if rest is not None:
            there = _block_at(after, move + corner, shape)
            moves.append((*move, np.corrcoef(block.ravel(), there.ravel())[0, 1] if np.ptp(there) else 0.0))
    if not moves:
        return math.nan, math.nan, math.nan
    down, right, similarity = np.array(moves).T
    return float(np.median(down)), float(np.median(right)), float(similarity.mean())


def _block_at(spline: np.ndarray, corner: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the block at a corner between pixels, of the coefficients of an image's cubic spline."""
    from scipy.ndimage import map_coordinates

    rows, columns = (first + np.arange(n) for first, n in zip(corner, shape, strict=True))
    places = np.meshgrid(rows, columns, indexing="ij")
    block: np.ndarray = map_coordinates(spline, places, order=3, prefilter=False, mode="nearest")
    return block


def _shift(block: np.ndarray, other: np.ndarray) -> np.ndarray | None:
    """Pixels by which the second block's content lies further down and right than the first's; None where one is even."""
    from skimage.registration import phase_cross_correlation

    first, second = block - block.mean(), other - other.mean()
    if not (first.any() and second.any()):
        return None
    shift: np.ndarray = phase_cross_correlation(second, first, upsample_factor=UPSAMPLING, normalization=None)[0]
    return shift


def _step(name: str, axis: np.ndarray) -> float:
    """Return the distance of neighboring pixels, which is the same everywhere."""
    steps = np.diff(axis)
    if not steps.size or np.ptp(steps) > 1e-6 * steps.mean():
        raise ValueError(f"grid.{name}: expected evenly spaced pixels, got steps of {steps!r} m")
    return float(steps.mean())


def _pixels(size: float, step: float, n: int) -> int:
    """Return the side of a block in pixels."""
    side = round(size / step) if math.isfinite(size) else 0
    if not 4 <= side <= n:
        raise ValueError(f"block: expected m of 4 to {n} pixels ({4 * step:g} to {n * step:g} m), got {size!r}")
    return side
