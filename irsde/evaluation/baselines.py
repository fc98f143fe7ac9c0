"""Classical despeckling filters as rows of the same table: libraries where they exist, SRAD and OBNLM of our own.

Every filter takes a log-compressed B-mode image (nz, nx) in [0, 1], where speckle is close to additive, and returns an
image in [0, 1]. `BASELINES` holds each with the settings that `tune` may choose from on training pairs; the first is the
default. Parameters of the despeckling paper's own baselines are not published: these are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ussim.errors import MissingPackageError
from ussim.extras import how_to_install, installed

from .anisotropic import diffuse

Image = NDArray[np.float32]


class BaselineUnavailable(MissingPackageError, RuntimeError):
    """A filter whose package is not installed."""


@dataclass(frozen=True)
class Baseline:
    """A filter, its settings best guess first, and what a reader of the table should know."""

    function: Callable[..., NDArray]
    settings: tuple[dict[str, Any], ...] = ({},)
    note: str = ""
    packages: tuple[str, ...] = ()  # beyond what `pip install .` brings: keys of `ussim.extras.PACKAGES`

    @property
    def lacks(self) -> str:
        """What is not installed, in words, and how to install it; empty where nothing is."""
        return next((how_to_install(package) for package in self.packages if not installed(package)), "")

    def __call__(self, image: NDArray, **settings: Any) -> Image:
        """Filter an image (nz, nx) in [0, 1]."""
        if self.lacks:
            raise BaselineUnavailable(f"not run: {self.lacks}")
        filtered = self.function(np.asarray(image, np.float64), **(settings or self.settings[0]))
        return np.clip(filtered, 0, 1).astype(np.float32)


# --- filters from libraries ------------------------------------------------------------------------------------------


def median(image: NDArray, size: int) -> NDArray:
    """Median over `size` x `size` pixels."""
    return ndimage.median_filter(image, size, mode="reflect")


def total_variation(image: NDArray, weight: float) -> NDArray:
    """Rudin-Osher-Fatemi denoising by Chambolle's algorithm."""
    from skimage.restoration import denoise_tv_chambolle

    return denoise_tv_chambolle(image, weight=weight)


def non_local_means(image: NDArray, strength: float) -> NDArray:
    """Buades et al. 2005 on 5 x 5 patches in a 21 x 21 window; h = `strength` times the estimated noise."""
    from skimage.restoration import denoise_nl_means

    sigma = noise_level(image)
    return denoise_nl_means(image, patch_size=5, patch_distance=10, h=strength * sigma, sigma=sigma, fast_mode=True)


def bm3d(image: NDArray, strength: float) -> NDArray:
    """Dabov et al. 2007, by the package `bm3d` (its licence allows non-commercial use only)."""
    import bm3d as package

    return package.bm3d(image, sigma_psd=strength * noise_level(image))


def wavelet(image: NDArray, second: str, cutoff: float = 0.25, name: str = "db4", levels: int = 3) -> NDArray:
    """Soft thresholding of wavelet details at the universal threshold, then a second stage.

    `second` is "median" (3 x 3), "butterworth" (second order) or "ideal" (sharp), the last two radial low-pass filters at
    `cutoff` cycles per pixel. Noise is estimated from the finest diagonal details: median(|HH1|) / .6745.
    """
    import pywt

    levels = min(levels, pywt.dwt_max_level(min(image.shape), name))
    coefficients = pywt.wavedec2(image, name, mode="symmetric", level=max(levels, 1))
    sigma = np.median(np.abs(coefficients[-1][2])) / 0.6745
    threshold = sigma * np.sqrt(2 * np.log(image.size))
    details = coefficients[1:]
    # A threshold of 0, of an image that is mostly flat, changes nothing; pywt divides by the coefficients, zeros too.
    if threshold > 0:
        details = [tuple(pywt.threshold(d, threshold, "soft") for d in level) for level in details]
    smooth = pywt.waverec2([coefficients[0], *details], name, mode="symmetric")[: image.shape[0], : image.shape[1]]
    if second == "median":
        return median(smooth, 3)
    frequency = np.hypot(np.fft.fftfreq(image.shape[0] * 2)[:, None], np.fft.rfftfreq(image.shape[1] * 2))
    if second == "butterworth":
        response = 1 / (1 + (frequency / cutoff) ** 4)
    elif second == "ideal":
        response = (frequency <= cutoff).astype(float)
    else:
        raise ValueError(f"second stage: expected median, butterworth or ideal, got {second!r}")
    mirrored = np.pad(smooth, [(0, n) for n in smooth.shape], mode="symmetric")  # no jump at the borders
    return np.fft.irfft2(np.fft.rfft2(mirrored) * response, mirrored.shape)[: image.shape[0], : image.shape[1]]


# --- filters of our own ----------------------------------------------------------------------------------------------


def srad(image: NDArray, iterations: int, step: float = 0.05, dynamic_range_db: float = 40.0) -> NDArray:
    """SRAD (`anisotropic.diffuse`) on the amplitude that the image shows, 10^(dynamic_range_db / 20 (v - 1)).

    q0, the speckle's coefficient of variation, is that of the calmest blocks (their lower quartile); blocks with black
    pixels, cut off by the display, do not count.
    """
    amplitude, seen = 10 ** (dynamic_range_db / 20 * (image - 1)), image > 0
    u = diffuse(amplitude, iterations, step, lambda u, _: _calm_variation(u, seen) ** 2)
    return 1 + 20 * np.log10(u) / dynamic_range_db


def _calm_variation(u: NDArray, seen: NDArray[np.bool_], size: int = 8) -> float:
    """Lower quartile of the blocks' coefficient of variation, blocks with a pixel that is not `seen` left out."""
    rows, columns = (n // size for n in u.shape)

    def blocks(image: NDArray) -> NDArray:
        return image[: rows * size, : columns * size].reshape(rows, size, columns, size)

    whole = blocks(seen).all(axis=(1, 3)) if rows and columns else np.zeros(0, bool)
    if not whole.any():
        values = u[seen] if seen.any() else u
        return float(values.std() / values.mean())
    return float(np.quantile((blocks(u).std(axis=(1, 3)) / blocks(u).mean(axis=(1, 3)))[whole], 0.25))


def obnlm(image: NDArray, strength: float, patch: int = 5, search: int = 15, gap: int = 2) -> NDArray:
    """Optimized Bayesian non-local means (Coupé et al. 2009): block-wise, with the Pearson distance of speckle.

    Blocks of `patch` x `patch` lie `gap` pixels apart; each becomes the mean of the blocks in a `search` x `search` window
    weighted by exp(-d / h²), d the mean over pixels of (u - v)² / v^(2γ), γ = .5, h² = `strength` times its mean over
    direct neighbors; blocks whose means differ by more than a factor of two are left out. Overlaps are averaged.
    """
    offset = 0.1  # against division by zero on black pixels
    return _obnlm_kernel()(np.ascontiguousarray(image + offset), strength, patch // 2, search // 2, gap) - offset


@cache
def _obnlm_kernel() -> Callable[..., NDArray]:
    from ussim.compiling import njit

    @njit(cache=True, nogil=True)
    def run(image: NDArray, strength: float, half: int, reach: int, gap: int) -> NDArray:  # pragma: no cover - compiled
        height, width = image.shape
        n = 2 * half + 1
        padded = np.empty((height + 2 * half, width + 2 * half))
        for i in range(padded.shape[0]):
            for j in range(padded.shape[1]):
                z, x = abs(i - half), abs(j - half)
                z = z if z < height else max(2 * height - 2 - z, 0)
                x = x if x < width else max(2 * width - 2 - x, 0)
                padded[i, j] = image[z, x]
        means = np.zeros((height, width))
        for i in range(height):
            for j in range(width):
                for a in range(n):
                    for b in range(n):
                        means[i, j] += padded[i + a, j + b] / n**2

        # Typical distance of neighboring blocks: what "similar" means under this image's speckle.
        typical, count = 0.0, 0
        for i in range(0, height - n, gap + 1):
            for j in range(0, width - n, gap + 1):
                for a in range(n):
                    for b in range(n):
                        u, v = padded[i + a, j + b], padded[i + a + n, j + b]
                        typical += (u - v) ** 2 / v
                        count += 1
        h2 = max(strength * typical / max(count, 1), 1e-12)

        total, weight = np.zeros(padded.shape), np.zeros(padded.shape)
        block = np.empty((n, n))
        for i in range(0, height + gap, gap):
            for j in range(0, width + gap, gap):
                ci, cj = min(i, height - 1), min(j, width - 1)
                block[:] = 0
                norm, largest = 0.0, 0.0
                for z in range(max(ci - reach, 0), min(ci + reach + 1, height)):
                    for x in range(max(cj - reach, 0), min(cj + reach + 1, width)):
                        if z == ci and x == cj:
                            continue
                        ratio = means[z, x] / means[ci, cj]
                        if ratio > 2 or ratio < 0.5:
                            continue
                        d = 0.0
                        for a in range(n):
                            for b in range(n):
                                u, v = padded[ci + a, cj + b], padded[z + a, x + b]
                                d += (u - v) ** 2 / v
                        w = np.exp(-d / (n * n * h2))
                        largest = max(largest, w)
                        norm += w
                        for a in range(n):
                            for b in range(n):
                                block[a, b] += w * padded[z + a, x + b]
                own = largest if largest > 0 else 1.0  # the block itself weighs as its best match, not more
                norm += own
                for a in range(n):
                    for b in range(n):
                        total[ci + a, cj + b] += (block[a, b] + own * padded[ci + a, cj + b]) / norm
                        weight[ci + a, cj + b] += 1.0
        return (total / np.maximum(weight, 1e-12))[half : half + height, half : half + width]

    return run


def noise_level(image: NDArray) -> float:
    """Return the standard deviation of the noise, from the finest diagonal wavelet details' median; at least 1e-4."""
    from skimage.restoration import estimate_sigma

    return max(float(estimate_sigma(image)), 1e-4)


WAVELETS = ("pywt",)  # scikit-image's estimate of the noise too

BASELINES: dict[str, Baseline] = {
    "median": Baseline(median, tuple({"size": n} for n in (5, 3, 7, 9, 11, 15))),
    "total variation": Baseline(total_variation, tuple({"weight": w} for w in (0.3, 0.1, 0.2, 0.5, 0.8))),
    "NLM": Baseline(non_local_means, tuple({"strength": s} for s in (1.0, 0.6, 2.0, 4.0)), packages=WAVELETS),
    "wavelet + median": Baseline(
        wavelet, ({"second": "median"},), "re-implemented, parameters ours", packages=WAVELETS
    ),
    "wavelet + Butterworth": Baseline(
        wavelet,
        tuple({"second": "butterworth", "cutoff": c} for c in (0.25, 0.05, 0.1)),
        "re-implemented, parameters ours",
        packages=WAVELETS,
    ),
    "wavelet + ideal": Baseline(
        wavelet,
        tuple({"second": "ideal", "cutoff": c} for c in (0.25, 0.05, 0.1)),
        "re-implemented, parameters ours",
        packages=WAVELETS,
    ),
    "SRAD": Baseline(srad, tuple({"iterations": n} for n in (100, 30, 300)), "re-implemented"),
    "OBNLM": Baseline(obnlm, tuple({"strength": s} for s in (1.0, 0.5, 2.0)), "re-implemented, parameters ours"),
    "BM3D": Baseline(
        bm3d, tuple({"strength": s} for s in (1.0, 2.0, 4.0)), "non-commercial licence", packages=("bm3d", *WAVELETS)
    ),
}


def tune(baseline: Baseline, pairs: Iterable[tuple[NDArray, NDArray]]) -> dict[str, Any]:
    """Return the baseline's setting with the highest mean PSNR on (hq, lq) pairs; of training data, never of the test's."""
    from irsde.evaluation.metrics import psnr

    pairs = list(pairs)
    if len(baseline.settings) == 1:
        return baseline.settings[0]
    return max(baseline.settings, key=lambda s: float(np.mean([psnr(baseline(lq, **s), hq) for hq, lq in pairs])))


# --- a grey-level curve, so that learning one is not enough ----------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ToneCurve:
    """A median filter followed by the grey-level curve that fits HQ best on training pairs: E[HQ | filtered LQ]."""

    size: int
    levels: NDArray[np.float64]  # value at the middle of each of n equal bins of [0, 1]

    def __call__(self, image: NDArray) -> Image:
        """Filter an image (nz, nx) in [0, 1]."""
        centers = (np.arange(len(self.levels)) + 0.5) / len(self.levels)
        return np.interp(median(np.asarray(image, np.float64), self.size), centers, self.levels).astype(np.float32)


def fit_tone_curve(
    pairs: Iterable[tuple[NDArray, NDArray]], sizes: Iterable[int] = (3, 5, 7, 9, 11, 15, 21), bins: int = 64
) -> ToneCurve:
    """Return the best `ToneCurve` over median sizes, by mean squared error on (hq, lq) pairs.

    Least squares within each size.
    """
    pairs = list(pairs)
    if not pairs:
        raise ValueError("expected at least one pair to fit a tone curve to")
    best: tuple[float, ToneCurve] | None = None
    for size in sizes:
        filtered = np.concatenate([median(np.asarray(lq, np.float64), size).ravel() for _, lq in pairs])
        target = np.concatenate([np.asarray(hq, np.float64).ravel() for hq, _ in pairs])
        index = np.minimum((filtered * bins).astype(int), bins - 1)
        count, total = np.bincount(index, minlength=bins), np.bincount(index, target, minlength=bins)
        seen = count > 0
        levels = np.interp(np.arange(bins), np.flatnonzero(seen), total[seen] / count[seen])
        curve = ToneCurve(size, levels)
        centers = (np.arange(bins) + 0.5) / bins
        error = float(np.mean((np.interp(filtered, centers, levels) - target) ** 2))
        if best is None or error < best[0]:
            best = (error, curve)
    assert best is not None
    return best[1]
