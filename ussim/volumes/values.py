"""Values as files hold them: voxels that float32 cannot hold, NaN around the body, numbers of headers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

_MOST, _LEAST = 1e30, 1e-30  # beyond: sums and squares of float32 overflow, or vanish


def absurd(numbers: Iterable[float]) -> float:
    """Return the largest size among slopes and intercepts where float32 cannot hold values so scaled, else 0."""
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
    spread: np.ndarray = np.fmax.reduce(pixels, axis=None) + (np.fmin.reduce(pixels, axis=None) - pixels)
    return spread


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


# --- numbers of headers ----------------------------------------------------------------------------------------------


def finite(value: Any, otherwise: float) -> float:
    """Return a finite number, `otherwise` where the value is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return otherwise
    return number if np.isfinite(number) else otherwise


def finite_or_none(value: Any) -> float | None:
    """Return a finite number, None where the value is none."""
    number = finite(value, float("nan"))
    return number if np.isfinite(number) else None


def positive(value: Any) -> float | None:
    """Return a number above 0, None where the value is none."""
    number = finite(value, 0.0)
    return number if number > 0 else None


def floats(values: Any, count: int) -> tuple[float, ...] | None:
    """Return `count` finite numbers, None where the values are not."""
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(np.isfinite(numbers)) else None


def positive_pair(values: Any) -> tuple[float, float] | None:
    """Return two numbers above 0, None where the values are not."""
    pair = floats(values, 2)
    return (pair[0], pair[1]) if pair and min(pair) > 0 else None
