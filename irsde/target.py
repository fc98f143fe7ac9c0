"""The expected B-mode of a simulated image: what its speckle averages to, by backfitting.

In dB of envelope L, averaged over draws of speckle, T = c(h) + P(x, z): h the grey level of the high-quality image, c a
curve that never falls (clutter lifts its dark end), P what changes slowly over the field (depth gain, transmit beams). T has
the image's structure and the B-mode's own tone. Displayed, the expected image is the mean of the displayed speckle about T.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

BINS = 24
ROUNDS = 4
SMOOTH = 1 / 8  # standard deviation of P's smoothing, of the image's side
SILENCE_DB = -90.0  # below the largest: nothing was heard there, and a mean of dB would be of rounding
# Log-compressed fully developed speckle: 20 log10 of a Rayleigh variable about its mean.
SPECKLE_DB = 5.57  # its standard deviation


@dataclass(frozen=True, eq=False)
class Target:
    """A fitted expected image.

    Attributes
    ----------
    expected_db : (nz, nx) float32, T.
    levels, curve_db : (BINS,) grey levels or dB of `hq`, and c there, dB; its mean over the image's pixels is 0.
    profile_db : (nz, nx) float32, P.
    """

    expected_db: NDArray[np.float32]
    levels: NDArray[np.float64]
    curve_db: NDArray[np.float64]
    profile_db: NDArray[np.float32]


def expected_image(
    envelope_db: ArrayLike, hq: NDArray, contrast: float | None = None, where: NDArray[np.bool_] | None = None
) -> Target:
    """Fit the expected image of one or several draws of speckle.

    Parameters
    ----------
    envelope_db : (nz, nx) or (draws, nz, nx), dB of envelope.
    hq : (nz, nx) grey levels in [0, 1], or uint8.
    contrast : dB of scatterer amplitude between white and black. Given, h is not the grey level but the scatterers' mean
        power blurred to the size of the speckle's grain, in dB: structure that the image does not resolve is not in its
        expectation, and would be learned as contours about clumps of speckle.
    where : (nz, nx) bool, pixels that are fitted; the probe's field. All by default.
    """
    draws = np.maximum(np.asarray(envelope_db, np.float32), SILENCE_DB)
    draws = draws[None] if draws.ndim == 2 else draws
    level = draws.mean(axis=0)
    grey = np.asarray(hq, np.float32)
    if hq.dtype == np.uint8:
        grey = grey / np.float32(255)
    if level.shape != grey.shape:
        raise ValueError(f"hq: expected the shape of the envelope {level.shape}, got {grey.shape}")
    weight = np.ones(level.shape, np.float32) if where is None else where.astype(np.float32)
    fitted = _backfit(level, grey, weight)
    if contrast is None:
        return fitted
    power = (10 ** (contrast / 10 * (grey - 1))).astype(np.float32)
    # What draws do not share is speckle alone; of a single one, what is left of a first fit.
    speckle = draws - level if len(draws) > 1 else draws - fitted.expected_db
    grain = grain_covariance(speckle) / 2  # of a point's echo: the correlation of speckle's power is twice as wide
    return _backfit(level, 10 * np.log10(np.maximum(_blurred(power, grain), 1e-12)).astype(np.float32), weight)


def _backfit(level: NDArray[np.float32], h: NDArray[np.float32], weight: NDArray[np.float32]) -> Target:
    """Fit c and P by turns."""
    low, high = float(h.min()), float(h.max())
    bins = np.minimum(((h - low) / max(high - low, 1e-6) * BINS).astype(int), BINS - 1)
    sigma = SMOOTH * min(level.shape)
    norm = np.maximum(ndimage.gaussian_filter(weight, sigma), 1e-6)
    profile = np.zeros_like(level)
    count = np.bincount(bins.ravel(), weight.ravel(), BINS)
    total = np.bincount(bins.ravel(), (weight * h).ravel(), BINS)
    empty = low + (high - low) * (np.arange(BINS) + 0.5) / BINS
    centers = np.where(count > 0, total / np.maximum(count, 1e-9), empty)
    for _ in range(ROUNDS):
        sums = np.bincount(bins.ravel(), (weight * (level - profile)).ravel(), BINS)
        curve = monotone(sums / np.maximum(count, 1e-9), count)
        shown = np.interp(h, centers, curve).astype(np.float32)
        offset = float(np.average(shown, weights=weight))
        curve, shown = curve - offset, shown - offset
        profile = ndimage.gaussian_filter(weight * (level - shown), sigma) / norm
    return Target(shown + profile, centers, curve, profile)


def grain_covariance(speckle: NDArray, reach: int = 16) -> NDArray[np.float64]:
    """Return the covariance (2, 2) of the speckle's autocorrelation taken as a Gaussian: rows and columns, pixels squared.

    Parameters
    ----------
    speckle : (nz, nx) or (draws, nz, nx), about a mean of 0.
    """
    draws = np.atleast_3d(speckle) if speckle.ndim == 3 else speckle[None]
    power = (np.abs(np.fft.rfft2(draws - draws.mean(axis=(1, 2), keepdims=True), axes=(1, 2))) ** 2).mean(axis=0)
    correlation = np.fft.irfft2(power, s=draws.shape[1:])
    correlation = np.fft.fftshift(correlation / max(correlation[0, 0], 1e-30))
    middle = [n // 2 for n in correlation.shape]
    reach = min(reach, *(m - 1 for m in middle))
    z, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    near = correlation[middle[0] - reach : middle[0] + reach + 1, middle[1] - reach : middle[1] + reach + 1]
    lobe, _ = ndimage.label(near > 0.25)
    used = (lobe == lobe[reach, reach]) & (z**2 + x**2 > 0)
    if used.sum() < 4:  # grains of one pixel
        return np.diag([0.3, 0.3])
    # -2 log correlation = q11 z² + 2 q12 z x + q22 x², in least squares
    terms = np.stack([z[used] ** 2, 2 * z[used] * x[used], x[used] ** 2], axis=1).astype(float)
    q11, q12, q22 = np.linalg.lstsq(terms, -2 * np.log(near[used]), rcond=None)[0]
    values, vectors = np.linalg.eigh([[q11, q12], [q12, q22]])
    return vectors @ np.diag(1 / np.clip(values, 1 / reach**2, 4.0)) @ vectors.T


def _blurred(image: NDArray[np.float32], covariance: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return an image after a Gaussian filter of any orientation, mirrored at its borders; what is positive stays so."""
    from scipy.signal import fftconvolve

    n = min(int(np.ceil(3 * np.sqrt(np.diag(covariance).max()))) + 1, *image.shape)
    z, x = np.mgrid[-n : n + 1, -n : n + 1]
    q = np.linalg.inv(covariance)
    kernel = np.exp(-0.5 * (q[0, 0] * z**2 + 2 * q[0, 1] * z * x + q[1, 1] * x**2))
    padded = np.pad(image.astype(np.float64), n, mode="symmetric")
    return np.maximum(fftconvolve(padded, kernel / kernel.sum(), mode="valid"), 0).astype(np.float32)


def monotone(values: NDArray, weights: NDArray) -> NDArray[np.float64]:
    """Return the curve that never falls nearest to values in weighted least squares; of no weight, interpolated."""
    from scipy.optimize import isotonic_regression

    known = np.flatnonzero(weights > 0)
    if known.size == 0:
        return np.zeros(len(values))
    fitted = isotonic_regression(values[known], weights=weights[known]).x
    return np.interp(np.arange(len(values)), known, fitted)


def speckle_quantiles(n: int = 33) -> NDArray[np.float32]:
    """`n` equally likely values of log-compressed fully developed speckle about its mean, dB."""
    share = (np.arange(n) + 0.5) / n
    values = 10 * np.log10(-np.log(share))  # of an exponential intensity
    return np.sort(values - values.mean()).astype(np.float32)


def displayed_mean(
    display: Callable[[NDArray], NDArray], low_db: float, high_db: float, strength: float = 1.0, n: int = 512
) -> Callable[[NDArray], NDArray[np.float32]]:
    """Return the mean grey level that speckle of an expected level has on a display, as a function of that level in dB.

    Where a display cuts off at black or white, this is not the display of the mean.

    Parameters
    ----------
    display : dB to grey levels in [0, 1], rising.
    low_db, high_db : levels between which it is tabulated; constant beyond.
    strength : of the speckle, 1 = fully developed.
    """
    levels = np.linspace(low_db, high_db, n, dtype=np.float32)
    table = display(levels[:, None] + strength * speckle_quantiles()).mean(axis=1)
    return lambda image: np.interp(image, levels, table).astype(np.float32)
