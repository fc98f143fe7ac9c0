"""BRISQUE (Mittal, Moorthy & Bovik 2012): the quality of an image by how its local contrasts are distributed.

The features are computed as the authors' MATLAB release does, the score by their regression: `brisque.npz` holds the
support vectors and feature ranges of that release (trained on the whole LIVE database) under its notice,
`brisque-LICENSE.txt`, which asks publications to name its source. On log-compressed B-modes the score is out of the
domain it was trained on, natural photographs: it ranks, no more.
"""

from __future__ import annotations

import math
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.special import gamma

SMALLEST = 14  # pixels a side: the window of 7 pixels fits into the half-size image
SHIFTS = ((0, 1), (1, 0), (1, 1), (-1, 1))  # rows and columns between the two pixels of a product
SHAPES = np.arange(200, 10001) / 1000  # of the (asymmetric) generalized Gaussian, searched exhaustively
RATIOS = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))  # (E|x|)² / E x², rising with the shape
_taps = np.exp(-((np.arange(-3, 4) / (7 / 6)) ** 2) / 2)
WINDOW = _taps / _taps.sum()  # 7 x 7 Gaussian of 7/6 pixels, along one axis
# Bicubic interpolation at half size with its kernel stretched twofold, as MATLAB's imresize does against aliasing.
HALVING = np.array([-0.0234375, -0.0703125, 0.2265625, 0.8671875, 0.8671875, 0.2265625, -0.0703125, -0.0234375]) / 2


def brisque(image: ArrayLike) -> float:
    """Return the BRISQUE score of an image (nz, nx) in [0, 1]: about 0 for the best, 100 for the worst, unbounded.

    The image is rounded to 8 bits first. NaN where there is no contrast to measure, as in a black image.

    Raises
    ------
    ValueError
        The image is not (nz, nx), not finite, or smaller than 14 x 14 pixels.
    """
    values = features(image)
    return math.nan if np.isnan(values).any() else regress(values)


def features(image: ArrayLike) -> NDArray[np.float64]:
    """Return the 36 features of an image (nz, nx) in [0, 1]: 18 at full, 18 at half size."""
    grey = np.asarray(image, np.float64)
    if grey.ndim != 2 or min(grey.shape) < SMALLEST or not np.isfinite(grey).all():
        raise ValueError(
            f"BRISQUE: expected a finite image of at least {SMALLEST} x {SMALLEST} pixels, got shape {grey.shape}"
        )
    grey = np.round(np.clip(grey, 0, 1) * 255)
    return np.array([*_of_one_scale(grey), *_of_one_scale(_halved(grey))])


def regress(values: ArrayLike) -> float:
    """Return the score of 36 features: support vector regression with a Gaussian kernel."""
    model = _model()
    scaled = 2 * (np.asarray(values) - model["low"]) / (model["high"] - model["low"]) - 1
    distances = np.sum((model["support_vectors"] - scaled) ** 2, axis=1)
    return float(model["coefficients"] @ np.exp(-model["gamma"] * distances) - model["rho"])


def _of_one_scale(grey: NDArray[np.float64]) -> list[float]:
    """Shape and variance of the normalized image; shape, mean and both variances of four products of neighbors."""
    mean, square = _smoothed(grey), _smoothed(grey**2)
    normal = (grey - mean) / (np.sqrt(np.abs(square - mean**2)) + 1)
    found = [_shape(np.mean(np.abs(normal)) ** 2, np.mean(normal**2)), float(np.mean(normal**2))]
    for shift in SHIFTS:
        found += _asymmetric(normal * np.roll(normal, shift, axis=(0, 1)))
    return found


def _asymmetric(x: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Shape, mean, left and right variance of an asymmetric generalized Gaussian, by moments (eqs. 10 to 15)."""
    negative, positive = x[x < 0], x[x > 0]
    if not (negative.size and positive.size):
        return (math.nan,) * 4
    left, right = math.sqrt(np.mean(negative**2)), math.sqrt(np.mean(positive**2))
    skew = left / right
    asymmetry = (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = _shape(np.mean(np.abs(x)) ** 2 * asymmetry, np.mean(x**2))
    mean = (right - left) * gamma(2 / shape) / math.sqrt(gamma(1 / shape) * gamma(3 / shape))
    return shape, float(mean), left**2, right**2


def _shape(first: float | np.floating, second: float | np.floating) -> float:
    """Return the generalized Gaussian's shape whose (E|x|)² / E x² is first / second; NaN of nothing."""
    return float(SHAPES[np.argmin(np.abs(RATIOS - first / second))]) if second > 0 else math.nan


def _smoothed(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian mean, zeros beyond the image as in the release."""
    for axis in (0, 1):
        image = ndimage.correlate1d(image, WINDOW, axis, mode="constant")
    return image


def _halved(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Image at half size, sides rounded up."""
    for axis in (0, 1):
        image = ndimage.correlate1d(image, HALVING, axis, mode="reflect", origin=-1)
    return image[::2, ::2]


@cache
def _model() -> dict[str, Any]:
    with (
        resources.as_file(resources.files(__package__) / "brisque.npz") as path,
        np.load(path, allow_pickle=False) as file,
    ):
        return {name: file[name].astype(np.float64) for name in file.files}
