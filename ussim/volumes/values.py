"""Voxel values as files hold them: sizes that float32 cannot hold, and NaN around the body."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

_MOST, _LEAST = 1e30, 1e-30  # beyond: sums and squares of float32 overflow, or vanish


def absurd(numbers: Iterable[float]) -> float:
    """The largest size among the slopes and intercepts of a series where float32 cannot hold values so scaled, else 0."""
    largest = max((abs(number) for number in numbers), default=0.0)
    return largest if largest >= _MOST or 0 < largest < _LEAST else 0.0


def narrowed(voxels: np.ndarray, notes: list[str]) -> np.ndarray:
    """Voxels of 8 bytes and more as float32, scaled to 1 where they are too large or too small for it."""
    if voxels.dtype.itemsize < 8 or not voxels.size:
        return voxels
    if voxels.dtype.kind == "f":
        largest = np.fmax.reduce(np.abs(voxels), axis=None)  # NaN only where all are
        if np.isfinite(largest) and (peak := absurd([largest])):
            notes.append(f"values up to {peak:g}: scaled to 1")
            voxels = voxels / peak
    with np.errstate(over="ignore"):  # beside infinity, which no volume may hold
        return voxels.astype(np.float32)


def inverted(pixels: np.ndarray) -> np.ndarray:
    """Dark for bright, in the same range; NaN stays."""
    return np.fmax.reduce(pixels, axis=None) + (np.fmin.reduce(pixels, axis=None) - pixels)


def filled_outside(voxels: np.ndarray, notes: list[str]) -> np.ndarray:
    """NaN that reaches the border of the volume, as masking tools leave it, becomes the lowest value; others stay."""
    if voxels.dtype.kind != "f" or not (empty := np.isnan(voxels)).any() or empty.all():
        return voxels
    from scipy.ndimage import binary_propagation

    border = np.ones(voxels.shape, bool)
    border[tuple(slice(1, -1) if n > 2 else slice(None) for n in voxels.shape)] = False
    outside = binary_propagation(empty & (border | (border.sum() == 0)), mask=empty)
    if not outside.any():
        return voxels
    notes.append(f"{outside.mean():.0%} of the voxels are NaN, outside the body: taken as the lowest value")
    return np.where(outside, np.nanmin(voxels), voxels)
