"""DDRM: sampling o given B y = M o + noise in the singular basis of M, with any denoiser as the prior.

Kawar et al., "Denoising diffusion restoration models", NeurIPS 2022, eqs. 7 and 8, in variance-exploding coordinates
x = o + s n; Zhang et al. (DRUSvar), sec. II: the variance of C such samples is an image of echogenicity.

DDRM is not an exact posterior sampler: with a Gaussian prior its mean is right to a few percent where a mode is well
measured, its spread is not (the table in the tests).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from .operators import SpectralOperator

ETA, ETA_B = 0.85, 1.0
BLOCK = 12  # px, blocks over which the local noise and signal levels are taken
MAD_TO_STD = 1.4826
PIXELS_AT_ONCE = 2**19  # through the prior, unless said: about 1 GB in a network of 32 channels
MODEL_ERROR = 0.05  # of By, between H in delay form and the full acoustics: 2 to 10 % (tests/test_drus_acoustics.py)


class Prior(Protocol):
    """A denoiser. `sigmas` (T,) rising are the noise levels that it knows.

    `bright_std` is the standard deviation of the brightest reflectivity in its own units, None where the prior is in
    the units of the data.
    """

    sigmas: np.ndarray
    bright_std: float | None

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """E[o | o + sigma n = x] for a stack (n, nz, nx)."""
        ...


def vp_sigmas(n: int = 1000, first: float = 1e-4, last: float = 0.02) -> np.ndarray:
    """(n,) s_t = sqrt((1 - ᾱ_t) / ᾱ_t) of the DDPM schedule with linear betas."""
    remaining = np.cumprod(1 - np.linspace(first, last, n))
    return np.sqrt((1 - remaining) / remaining)


def sample(
    operator: SpectralOperator,
    by: np.ndarray,
    prior: Prior,
    n_samples: int = 10,
    steps: int = 50,
    seed: int = 0,
    noise_level: float | None = None,
    scale: float | None = None,
    eta: float = ETA,
    eta_b: float = ETA_B,
    chains: int = 1,
    batch_size: int | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return samples (n_samples, nz, nx) float32 of the reflectivity, in the units of `by` over those of the operator.

    Parameters
    ----------
    by
        Beamformed observation B y (nz, nx).
    noise_level
        Standard deviation of the error of `by`, model error included; None estimates it (`estimate_noise`).
    scale
        Reflectivity that the prior knows as 1; None takes it from the data where the prior has units of its own.
    chains
        A sample is the mean of so many chains, each with noise of its own. Where the prior's network has as many channels,
        it sees them together and couples them, as the authors' network of three does; else they are independent.
    batch_size
        Images through the prior at once: bounds memory; the samples do not depend on it. None: half a million pixels.
    progress
        Called with (steps done, steps).

    Sample c depends on `seed` and c alone, not on how many there are.

    Raises
    ------
    ValueError
        Shapes do not agree or a number is out of range.
    """
    by = np.asarray(by, dtype=np.float32)
    if by.shape != tuple(operator.shape):
        raise ValueError(f"by: expected the operator's shape {tuple(operator.shape)}, got {by.shape}")
    if not np.isfinite(by).all():
        raise ValueError("by: expected finite numbers, got NaN or infinity")
    if n_samples < 1 or not 1 <= steps <= len(prior.sigmas):
        raise ValueError(
            f"expected n_samples of at least 1 and 1..{len(prior.sigmas)} steps, got {n_samples} and {steps}"
        )
    if chains < 1:
        raise ValueError(f"chains: expected a number of at least 1, got {chains!r}")
    noise_level = estimate_noise(operator, by) if noise_level is None else noise_level
    if not (math.isfinite(noise_level) and noise_level >= 0):
        raise ValueError(f"noise_level: expected a number of at least 0, got {noise_level!r}")
    if scale is None:
        scale = 1.0 if prior.bright_std is None else reflectivity_scale(operator, by) / prior.bright_std
    operator = operator.to(device)
    observed = torch.as_tensor(by / scale, device=device)
    at_once = batch_size or max(1, PIXELS_AT_ONCE // by.size)
    generators = [np.random.default_rng([seed, c]) for c in range(n_samples)]

    def noise() -> torch.Tensor:
        drawn = [g.standard_normal((chains, *by.shape), dtype=np.float32) for g in generators]
        return operator.Vt(torch.as_tensor(np.concatenate(drawn), device=device))

    together = getattr(prior, "denoise_coupled", None) if chains == getattr(prior, "channels", 1) > 1 else None

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        if together is None:
            return torch.cat([prior.denoise(part, sigma) for part in x.split(at_once)])
        groups = x.unflatten(0, (-1, chains)).split(max(1, at_once // chains))
        return torch.cat([together(part, sigma) for part in groups]).flatten(0, 1)

    with torch.inference_mode():
        samples = _reverse(
            operator,
            observed,
            noise_level / scale,
            denoise,
            noise,
            step_sigmas(prior.sigmas, steps),
            eta,
            eta_b,
            progress,
        )
    return (samples.unflatten(0, (-1, chains)).mean(dim=1) * scale).cpu().numpy()


def step_sigmas(sigmas: np.ndarray, steps: int) -> np.ndarray:
    """Return the (steps + 1,) noise levels visited, falling.

    Every (T / steps)-th from the first, or those nearest to that where `steps` does not divide T, so that a chain of
    many steps starts at full noise too; then 0.
    """
    last = len(sigmas) - len(sigmas) // steps
    kept = sigmas[np.round(np.linspace(0, last, steps)).astype(int)]
    return np.concatenate([kept[::-1], [0.0]])


def mean(samples: np.ndarray) -> np.ndarray:
    """DRUSmean (nz, nx)."""
    return np.asarray(samples).mean(axis=0)


def variance_image(samples: np.ndarray, beta: float = 0.5) -> np.ndarray:
    """DRUSvar (nz, nx): (1/(C-1) Σ (o_c - mean)²)^(1/(2 beta)); beta = 0.5 is the unbiased variance itself.

    Raises
    ------
    ValueError
        Fewer than two samples, or a beta that is not above 0.
    """
    samples = np.asarray(samples)
    if samples.ndim != 3 or len(samples) < 2:
        raise ValueError(f"samples: expected (at least 2, nz, nx), got {samples.shape}")
    if not beta > 0:
        raise ValueError(f"beta: expected a number above 0, got {beta!r}")
    return samples.var(axis=0, ddof=1) ** (1 / (2 * beta))


def estimate_noise(operator: SpectralOperator, by: np.ndarray) -> float:
    """Return the standard deviation of the error of `by`.

    The darkest 1 % of local levels (median absolute deviations of blocks, so clutter counts), and the operator's
    relative residual and H's own error times the rms of `by`, added in squares.

    Without an echo-free block in the image it errs on the high side: give the level where it is known.
    """
    levels = block_levels(np.abs(by), lambda block: MAD_TO_STD * np.median(block, axis=-1))
    rms = float(np.sqrt(np.mean(np.square(by, dtype=np.float64))))
    return math.hypot(float(np.quantile(levels, 0.01)), rms * operator.relative_residual, rms * MODEL_ERROR)


def reflectivity_scale(operator: SpectralOperator, by: np.ndarray, n_probes: int = 16) -> float:
    """Return the standard deviation of the reflectivity where the image is bright.

    The 90 % quantile of local levels, or a quarter of the highest where little of the image echoes.

    Local rms of `by` over that of the operator's answer to white images of variance 1 (so depth gain cancels).
    """
    rng = np.random.default_rng(0)
    device = operator.singular_values.device
    white = torch.as_tensor(rng.standard_normal((n_probes, *by.shape), dtype=np.float32), device=device)
    response = operator.apply(white.to(operator.singular_values.dtype)).cpu().numpy()
    expected = np.sqrt(np.mean(response**2, axis=0))
    floor = 0.05 * expected.max()  # where hardly anything is heard, noise would pass for reflectivity
    heard = expected > floor
    if not heard.any() or not np.any(by):
        return 1.0
    local = block_levels(
        np.where(heard, by / np.maximum(expected, floor), 0.0), lambda b: np.sqrt(np.mean(b**2, axis=-1))
    )
    return max(float(np.quantile(local, 0.9)), 0.25 * float(local.max()))


def block_levels(image: np.ndarray, level: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`level` of each block of BLOCK pixels a side (or the image's, if smaller), the last ones flush with the edge."""
    height, width = (min(BLOCK, n) for n in image.shape)
    blocks = np.lib.stride_tricks.sliding_window_view(image, (height, width))
    starts = [
        np.unique(np.append(np.arange(0, n, size // 2 or 1), n - 1))
        for n, size in zip(blocks.shape, (height, width), strict=False)
    ]
    return level(blocks[np.ix_(*starts)].reshape(len(starts[0]), len(starts[1]), -1)).ravel()


def _reverse(
    operator: SpectralOperator,
    observed: torch.Tensor,
    noise_level: float,
    denoise: Callable[[torch.Tensor, float], torch.Tensor],
    noise: Callable[[], torch.Tensor],
    sigmas: np.ndarray,
    eta: float,
    eta_b: float,
    progress: Callable[[int, int], None] | None,
) -> torch.Tensor:
    """Return the chain from sigmas[0] to 0 (n, nz, nx). Every mode i obeys its measurement ȳ_i = (Uᵀy)_i / S_i."""
    s = operator.singular_values
    measured = s > 0
    safe = torch.where(measured, s, torch.ones_like(s))
    target = torch.where(measured, operator.Ut(observed) / safe, torch.zeros_like(s))
    error = torch.where(measured, noise_level / safe, torch.full_like(s, math.inf))  # of ȳ_i

    clear = error < sigmas[0]
    spread = torch.where(clear, sigmas[0] ** 2 - error**2, torch.full_like(s, sigmas[0] ** 2)).clamp(min=0).sqrt()
    x = operator.V(torch.where(clear, target, torch.zeros_like(s)) + spread * noise())
    for i, (sigma, following) in enumerate(itertools.pairwise(sigmas)):
        estimate = denoise(x, float(sigma))
        x0, direction = operator.Vt(estimate), operator.Vt((x - estimate) / sigma)
        z = noise()
        kept = math.sqrt(1 - eta**2) * following
        unmeasured = x0 + kept * direction + eta * following * z
        noisier = x0 + kept * torch.where(measured, (target - x0) / error.clamp(min=1e-30), 0.0) + eta * following * z
        left = (following**2 - eta_b**2 * error**2).clamp(min=0).sqrt()
        clearer = (1 - eta_b) * x0 + eta_b * target + left * z
        update = torch.where(
            error > following, noisier, clearer
        )  # equality counts as clearer: ȳ is as good as the step
        x = operator.V(torch.where(measured, update, unmeasured))
        if progress is not None:
            progress(i + 1, len(sigmas) - 1)
    return x
