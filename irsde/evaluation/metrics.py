"""Image quality: how close to a reference, and what can be said without one.

Grey-scale images are (nz, nx), in [0, 1] unless a function says otherwise; a region is a boolean mask of that shape.
With a reference: `psnr`, `aligned_psnr`, `ssim`, `lpips`. On regions: `cnr`, `gcnr`, `enl`, `speckle_snr`. On a point
target: `fwhm`. `background_patches` finds speckle regions beside a lesion. BRISQUE has a module of its own.

`enl` and `speckle_snr` describe whatever pixels they are given. Fully developed speckle has ENL 3.66 and SNR 1.91 in
amplitude, ENL 1 in intensity; on log-compressed pixels both are much larger and mean something else: state the domain.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import MetricUnavailable

SMALL = 1e-12  # added to variances in denominators, far below that of any image quantized to 8 bits (1e-6)


# --- against a reference ---------------------------------------------------------------------------------------------


def psnr(image: ArrayLike, reference: ArrayLike, data_range: float = 1.0, mask: ArrayLike | None = None) -> float:
    """Peak signal-to-noise ratio 10 log10(data_range² / MSE), dB, over the pixels of `mask`; inf for equal images."""
    image, reference = _pair(image, reference)
    error = (image - reference) ** 2
    mse = float(np.mean(error if mask is None else error[_mask(mask, error.shape)]))
    return math.inf if mse == 0 else 10 * math.log10(data_range**2 / mse)


def aligned_psnr(
    image: ArrayLike, reference: ArrayLike, data_range: float = 1.0, mask: ArrayLike | None = None
) -> float:
    """PSNR after the gain and offset that fit `image` to `reference` best (least squares), dB.

    The fit uses the reference, so this measures structure only: a wrong grey level or contrast costs nothing.
    """
    image, reference = _pair(image, reference)
    inside = np.ones(image.shape, bool) if mask is None else _mask(mask, image.shape)
    return psnr(align(image, reference, inside), reference, data_range, inside)


def align(image: ArrayLike, reference: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.float64]:
    """`gain * image + offset`, the two chosen by least squares against `reference` over `mask`."""
    image, reference = _pair(image, reference)
    inside = np.ones(image.shape, bool) if mask is None else _mask(mask, image.shape)
    x, y = image[inside], reference[inside]
    variance = np.var(x)
    gain = 0.0 if variance == 0 else float(np.mean((x - x.mean()) * (y - y.mean())) / variance)
    return gain * (image - x.mean()) + y.mean()


def ssim(image: ArrayLike, reference: ArrayLike, data_range: float = 1.0, mask: ArrayLike | None = None) -> float:
    """Structural similarity with the Gaussian window of Wang et al. 2004: 11 x 11, sigma 1.5, K1 = .01, K2 = .03.

    The mean of the local index over the image less a border of half a window, or over the pixels of `mask` in it.
    scikit-image's default (7 x 7 uniform window) and a `data_range` of 2 give other numbers.
    """
    from skimage.metrics import structural_similarity

    image, reference = _pair(image, reference)
    if min(image.shape) < 11:
        raise ValueError(f"expected images of at least 11 x 11 pixels for SSIM, got {image.shape}")
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": data_range}
    mean, local = structural_similarity(image, reference, full=True, **options)
    if mask is None:
        return float(mean)
    inside = np.zeros(image.shape, bool)
    inside[5:-5, 5:-5] = _mask(mask, image.shape)[5:-5, 5:-5]
    return float(local[inside].mean())


def lpips(image: ArrayLike, reference: ArrayLike, backbone: str | Path | None = None) -> float:
    """Learned perceptual distance (Zhang et al. 2018, AlexNet, v0.1); the lower the better.

    `backbone` is torchvision's ImageNet AlexNet state dict (`alexnet-owt-7be5be79.pth`), which no package ships; without
    it MetricUnavailable is raised, for a random backbone would measure something else. Linear heads: torchmetrics' copy.
    """
    if backbone is None:
        raise MetricUnavailable("LPIPS needs ImageNet AlexNet weights: --lpips-backbone alexnet.pth")
    from .perceptual import load_lpips

    image, reference = _pair(image, reference)
    return load_lpips(str(backbone))(image, reference)


# --- on regions ------------------------------------------------------------------------------------------------------


def cnr(image: ArrayLike, foreground: ArrayLike, background: ArrayLike, decibels: bool = False) -> float:
    """Contrast-to-noise ratio of two regions.

    Linear: |m_f - m_b| / sqrt(s_f² + s_b²). With `decibels`, the form of PICMUS and zea:
    20 log10(|m_f - m_b| / sqrt((s_f² + s_b²) / 2)).
    """
    image = np.asarray(image, np.float64)
    f, b = image[_mask(foreground, image.shape)], image[_mask(background, image.shape)]
    difference, variance = abs(f.mean() - b.mean()), f.var() + b.var() + SMALL
    if decibels:
        return float(20 * np.log10(max(difference, SMALL) / np.sqrt(variance / 2)))
    return float(difference / np.sqrt(variance))


def gcnr(image: ArrayLike, inside: ArrayLike, outside: ArrayLike, bins: int = 64) -> float:
    """Generalized CNR: one less the overlap of the two regions' histograms (Rodriguez-Molares et al. 2020, eq. 13).

    Edges are common and span both regions. Few pixels a bin bias it upwards: two regions of 1400 pixels drawn from one
    distribution give about .1 with 64 bins, .2 with 256.
    """
    image = np.asarray(image, np.float64)
    a, b = image[_mask(inside, image.shape)], image[_mask(outside, image.shape)]
    low, high = min(a.min(), b.min()), max(a.max(), b.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("expected finite pixels for gCNR; clip decibel images to their dynamic range first")
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    p, q = np.histogram(a, edges)[0] / a.size, np.histogram(b, edges)[0] / b.size
    return float(1 - np.minimum(p, q).sum())


def enl(image: ArrayLike, region: ArrayLike | None = None) -> float:
    """Equivalent number of looks m² / s² over `region` (all of the image without one)."""
    values = _values(image, region)
    return float(values.mean() ** 2 / (values.var() + SMALL))


def speckle_snr(image: ArrayLike, region: ArrayLike | None = None, decibels: bool = False) -> float:
    """Speckle signal-to-noise ratio m / s over `region`, or 20 log10 of it with `decibels`."""
    values = _values(image, region)
    ratio = values.mean() / (values.std() + SMALL)
    return float(20 * np.log10(max(ratio, SMALL))) if decibels else float(ratio)


@dataclass(frozen=True)
class Patches:
    """The patches that ENL and speckle SNR are read in.

    Attributes
    ----------
    mask : (nz, nx) bool, the chosen ones together.
    considered : how many lie beside the lesion.
    refused : why a patch shows no speckle -> how many of them.
    places : rows and columns of each.
    """

    mask: NDArray[np.bool_]
    considered: int
    refused: dict[str, int]
    places: tuple[tuple[slice, slice], ...] = ()


def background_patches(image: ArrayLike, lesion: ArrayLike, size: int = 16, count: int = 5) -> NDArray[np.bool_]:
    """Return the mask of `calm_patches`."""
    return calm_patches(image, lesion, size, count).mask


def calm_patches(image: ArrayLike, lesion: ArrayLike | None, size: int = 16, count: int = 5) -> Patches:
    """Choose the `count` calmest `size` x `size` patches of speckle beside a lesion: where ENL and speckle SNR are read.

    Patches tile the rows that the lesion spans (None: all rows) without overlap and without touching it. They are ranked
    by their mean Sobel magnitude plus their standard deviation. One that shows no speckle is refused (`not_speckle`):
    nothing is as calm as black, white or a caption. The despeckling paper names no patch size; this one is ours.

    Raises
    ------
    ValueError
        No patch is left: the message counts them by what they were refused for.
    """
    from scipy import ndimage

    image = np.asarray(image, np.float64)
    lesion = np.zeros(image.shape, bool) if lesion is None else _mask(lesion, image.shape)
    rows = np.flatnonzero(lesion.any(axis=1)) if lesion.any() else np.array([0, image.shape[0] - 1])
    top = min(int(rows[0]), max(0, image.shape[0] - size))
    bottom = max(int(rows[-1]) + 1, top + size)  # a lesion flatter than a patch still gets one row of them
    edges = np.hypot(ndimage.sobel(image, 0), ndimage.sobel(image, 1))
    candidates = []
    considered, refused = 0, Counter[str]()
    for z in range(top, min(bottom, image.shape[0]) - size + 1, size):
        for x in range(0, image.shape[1] - size + 1, size):
            patch = np.s_[z : z + size, x : x + size]
            if lesion[patch].any():
                continue
            considered += 1
            why = not_speckle(image[patch])
            if why:
                refused[why] += 1
            else:
                candidates.append((edges[patch].mean() + image[patch].std(), z, x))
    if not candidates:
        found = f" ({', '.join(f'{n} {why}' for why, n in refused.items())})" if refused else ""
        raise ValueError(
            f"no {size} x {size} patch beside the lesion is free of it and shows speckle{found}: use a smaller patch size"
        )
    chosen = np.zeros(image.shape, bool)
    places = tuple((slice(z, z + size), slice(x, x + size)) for _, z, x in sorted(candidates)[:count])
    for place in places:
        chosen[place] = True
    return Patches(chosen, considered, dict(refused), places)


def not_speckle(patch: NDArray) -> str:
    """Return why a patch of a B-mode in [0, 1] cannot be speckle alone; empty where it can.

    "black" and "saturated": the display cut off a tenth of it below, or a fiftieth above. "constant": it varies by less than
    a grey level. "text or lines": one grey level holds a third of it, as a flat background does, or a twentieth of it lies
    over six robust standard deviations from the median, as strokes do; log-compressed Rayleigh speckle has 0.04 % there.
    """
    levels = np.round(patch * 255)
    if (levels <= 0).mean() > 0.1:
        return "black"
    if (levels >= 255).mean() > 0.02:
        return "saturated"
    if patch.std() < 1 / 255:
        return "constant"
    distance = np.abs(patch - np.median(patch))
    commonest = np.unique(levels, return_counts=True)[1].max() / levels.size
    if (commonest > 1 / 3 and patch.std() > 3 / 255) or (distance > 6 * 1.4826 * np.median(distance)).mean() > 0.05:
        return "text or lines"
    return ""


# --- on a point target -----------------------------------------------------------------------------------------------


def fwhm(
    profile: ArrayLike, spacing: float, level_db: float = 6.0, oversampling: int = 10, envelope: bool = False
) -> float:
    """Width of the main lobe of an amplitude profile, in the unit of `spacing`; NaN where it cannot be measured.

    The recipe of the PICMUS and DRUS evaluations: the absolute value in decibels, linear interpolation to `oversampling`
    times as many samples over the same length, distance from the first to the last sample within `level_db` of the
    maximum. With `envelope` the decibels are first replaced by a spline through their local maxima (RF-like profiles).
    A lobe cut by the end of the profile is not measured.
    """
    from scipy.interpolate import CubicSpline

    amplitude = np.abs(np.asarray(profile, np.float64))
    if amplitude.ndim != 1:
        raise ValueError(f"expected a profile with one axis, got shape {amplitude.shape}")
    if amplitude.size < 3 or not np.isfinite(amplitude).all() or amplitude.max() == 0:
        return math.nan
    with np.errstate(divide="ignore"):
        decibels = np.maximum(20 * np.log10(amplitude / amplitude.max()), -1e4)
    index = np.arange(amplitude.size)
    if envelope:
        padded = np.concatenate([[-np.inf], decibels, [-np.inf]])
        peaks = np.flatnonzero((padded[1:-1] >= padded[:-2]) & (padded[1:-1] > padded[2:]))
        if peaks.size < 2:
            return math.nan
        decibels = CubicSpline(peaks, decibels[peaks], bc_type="natural")(np.clip(index, peaks[0], peaks[-1]))
    fine, step = np.linspace(0, amplitude.size - 1, amplitude.size * oversampling, retstep=True)
    curve = np.interp(fine, index, decibels)
    above = np.flatnonzero(curve >= curve.max() - level_db)
    if above[0] == 0 or above[-1] == curve.size - 1:
        return math.nan
    return float((above[-1] - above[0]) * step * spacing)


# --- helpers ---------------------------------------------------------------------------------------------------------


def _pair(image: ArrayLike, reference: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    image, reference = np.asarray(image, np.float64), np.asarray(reference, np.float64)
    if image.shape != reference.shape or image.ndim != 2:
        raise ValueError(f"expected two images of one shape (nz, nx), got {image.shape} and {reference.shape}")
    return image, reference


def _mask(mask: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    mask = np.asarray(mask, bool)
    if mask.shape != shape:
        raise ValueError(f"expected a mask of the image's shape {shape}, got {mask.shape}")
    if not mask.any():
        raise ValueError("the region is empty: its mask has no pixel")
    return mask


def _values(image: ArrayLike, region: ArrayLike | None) -> NDArray[np.float64]:
    image = np.asarray(image, np.float64)
    return image.ravel() if region is None else image[_mask(region, image.shape)]
