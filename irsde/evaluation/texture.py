"""Faults that PSNR does not see: texture that is missing, contours that were not there, contrast by smoothing alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from irsde.data import GREY_LEVEL
from irsde.evaluation.metrics import Patches, gcnr

PATCH, HOP = 16, 8  # pixels: of the local spectra
LOWEST = 1.5  # cycles per patch: slower than that is shading, not texture
ROUNDING = GREY_LEVEL**2 / 12  # variance that 8 bits add to a pixel
CALMEST = 0.25  # of the pixels with echoes: where there is no contour
DARK = 10 * GREY_LEVEL  # below it there is no echo to speak of


def texture_distance(image: ArrayLike, reference: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Mean distance of the local power spectra of two images, dB; 0 for the same texture wherever it lies.

    Spectra of 16 x 16 pixels under a Hann window, every 8 pixels, averaged over the image (those wholly in `mask` where
    there are any), lateral and axial frequencies apart, without what is slower than 1.5 cycles per patch; what rounding to
    8 bits adds, is added to both. A smooth image is far away because it lacks power, a noisy one because it has too much.
    """
    a, b = (local_spectrum(x, mask) for x in (image, reference))
    rows, columns = np.meshgrid(np.fft.fftfreq(PATCH, 1 / PATCH), np.fft.rfftfreq(PATCH, 1 / PATCH), indexing="ij")
    fast = np.hypot(rows, columns) > LOWEST
    return float(np.abs(10 * np.log10(a[fast] / b[fast])).mean())


def local_spectrum(image: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.float64]:
    """Mean power of the patches of an image, (16, 9), 1 for white noise of variance 1."""
    image = np.asarray(image, np.float64)
    if min(image.shape) < PATCH:
        raise ValueError(f"expected images of at least {PATCH} x {PATCH} pixels for their texture, got {image.shape}")
    patches = np.lib.stride_tricks.sliding_window_view(image, (PATCH, PATCH))[::HOP, ::HOP].reshape(-1, PATCH, PATCH)
    if mask is not None:
        inside = np.lib.stride_tricks.sliding_window_view(np.asarray(mask, bool), (PATCH, PATCH))[::HOP, ::HOP]
        whole = inside.all(axis=(2, 3)).ravel()
        patches = patches[whole] if whole.any() else patches
    window = np.outer(np.hanning(PATCH + 1)[:-1], np.hanning(PATCH + 1)[:-1])
    window /= np.sqrt((window**2).sum())
    power = np.abs(np.fft.rfft2((patches - patches.mean(axis=(1, 2), keepdims=True)) * window)) ** 2
    return power.mean(axis=0) + ROUNDING


def contour_ratio(image: ArrayLike, calm: ArrayLike) -> float:
    """Steepness of the steepest hundredth of calm tissue over its median: where smoothing has made facets with rims.

    Speckle has 3 to 7. NaN where nothing is steeper than a grey level per pixel, or fewer than 64 pixels are calm.
    """
    steepness = gradient(image)[np.asarray(calm, bool)]
    if steepness.size < 64:
        return math.nan
    high, middle = np.percentile(steepness, (99, 50))
    return math.nan if high < GREY_LEVEL else float(high / max(middle, GREY_LEVEL / 10))


def calm_tissue(hq: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.bool_]:
    """Return the calmest quarter of the pixels with echoes by the HQ image, none of them within a pixel of the border."""
    from scipy import ndimage

    hq = np.asarray(hq, np.float64)
    steepness = gradient(ndimage.gaussian_filter(hq, 1.0))
    inside = np.zeros(hq.shape, bool)
    inside[1:-1, 1:-1] = True
    inside &= ndimage.gaussian_filter(hq, 1.0) > DARK
    if mask is not None:
        inside &= np.asarray(mask, bool)
    if not inside.any():
        return inside
    return inside & (steepness <= np.quantile(steepness[inside], CALMEST))


def gradient(image: ArrayLike) -> NDArray[np.float64]:
    """Magnitude of the gradient, grey levels in [0, 1] per pixel."""
    return np.hypot(*np.gradient(np.asarray(image, np.float64)))


def gcnr_null(image: ArrayLike, patches: Patches) -> float:
    """GCNR where there is no lesion: of each calm patch against the others, their mean; NaN for fewer than two.

    Smoothing raises it, as it raises that of a lesion: only what a lesion has beyond it is contrast.
    """
    image = np.asarray(image, np.float64)
    values = []
    for place in patches.places:
        one = np.zeros(image.shape, bool)
        one[place] = True
        if (patches.mask & ~one).any():
            values.append(gcnr(image, one, patches.mask & ~one))
    return float(np.mean(values)) if values else math.nan


def drift(image: ArrayLike, lq: ArrayLike, mask: ArrayLike | None = None, sigma: float = 16.0) -> float:
    """Mean distance of the local means (Gaussian, `sigma` pixels) of two images, in grey levels of 255."""
    from scipy import ndimage

    inside = np.ones(np.shape(lq)) if mask is None else np.asarray(mask, np.float64)
    weight = np.maximum(ndimage.gaussian_filter(inside, sigma), 1e-6)
    difference = (np.asarray(image, np.float64) - np.asarray(lq, np.float64)) * inside
    return float(255 * np.abs(ndimage.gaussian_filter(difference, sigma) / weight)[inside > 0].mean())
