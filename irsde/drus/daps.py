"""Posterior sampling of o given y = H o + n by H and its transpose alone: decoupled annealing with conjugate gradients.

At noise level s the prior's denoiser gives mean μ and variance v of o given x = o + s ε. Where o given x is Gaussian, so is
o given x and y, and one draw of it is

    o = μ + r u,   (r H' H r + 1) u = r (H' (y + n₁ - H μ)) + n₂,   r² = v,   n₁, n₂ ~ N(0, 1)

(y, H whitened; Papandreou & Yuille 2010, "Gaussian sampling by local perturbations": perturb the data, then solve). Then
x = o + s' ε at the next lower level: if x ~ p(x_s | y), then the new one is of p(x_s' | y) (Zhang et al. 2024, "Improving
diffusion inverse problem solving with decoupled noise annealing", arXiv 2407.01521, Prop. 1).

Why this one. DDNM projects on H o = y and knows noise in the basis of an SVD alone. PiGDM (Song et al. 2023) needs the
network's Jacobian, a backward pass per step and sample, and takes v = s² / (1 + s²) for all pixels. DiffPIR (Zhu et al.
2023) solves the same system without n₁ and n₂: a chain of best guesses, whose spread is not the posterior's, and the spread
is the image of DRUSvar. A variance per pixel is what resolves: where the prior is sure that nothing echoes v is 0, H loses
those columns, and an echo must come from the pixels that are left (Peng et al. 2024, arXiv 2402.02149, take such variances
for the guidance of a chain). With a Gaussian prior the samples are those of the posterior, at any number of steps.

Samples of one scene share its echogenicity. With `shared` o given p is N(0, p²) again at low levels, p² the mean over all
chains of μ² + v (the step of sparse Bayesian learning; Tipping 2001): of lone echoes by the pixel, which resolves, of tissue
within a window, as by the pixel it would break up into points too. Which is which its evenness says: (mean of p²)² / mean of
p⁴ about a pixel is 0.02 beside points and 0.2 to 0.7 in tissue with discs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, uniform_filter

from .channels import ChannelModel, conjugate_gradients
from .ddrm import PIXELS_AT_ONCE, Prior

FIRST, LAST = 12.0, 0.03  # noise levels of the chain, in the prior's units
EXACT_BELOW = 1.0  # level: above it the delay form's error is less than what the chain forgets anyway
SHARED_BELOW = 1.0  # level below which chains share their echogenicity
EVENNESS_WINDOW = 17, 9  # px, rows and columns
LONE, TISSUE = 0.05, 0.15  # evenness of lone echoes and of tissue; between them some of both
TISSUE_WINDOW = 3.0, 2.0  # px, standard deviation in rows and columns, of tissue's mean
STEPS = 20
ITERATIONS = 15  # of conjugate gradients, at most
TOLERANCE = 0.05  # rms of what is left of their equation: its solution is then as near, in the posterior's deviations


class SurePrior(Prior, Protocol):
    """A denoiser that also gives the variance of what it expects."""

    def denoise_with_variance(self, x: torch.Tensor, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
        """E[o | o + sigma n = x] and the variance of each pixel about it, for a stack (n, nz, nx)."""
        ...


def sample_posterior(
    model: ChannelModel,
    prior: SurePrior,
    n_samples: int = 10,
    steps: int = STEPS,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
    shared: bool = False,
) -> np.ndarray:
    """Return samples (n_samples, nz, nx) float32 of the reflectivity on the model's field.

    Parameters
    ----------
    model : ChannelModel
        What was observed, and how.
    prior : SurePrior
        A denoiser that says how sure it is: all of `priors` do.
    n_samples, steps, seed
        Sample c depends on `seed` and c alone, but for `shared`.
    batch_size : int, optional
        Images through the prior at once.
    device
        Of the prior.
    progress : callable, optional
        Called with (draws done, draws).
    shared : bool
        Whether the samples share one echogenicity, estimated from all of them: sharper points, for priors that are not sure.

    Raises
    ------
    ValueError
        A number is out of range.
    """
    levels = noise_levels(prior.sigmas, steps)
    if n_samples < 1:
        raise ValueError(f"n_samples: expected at least 1, got {n_samples}")
    scale = 1.0 if prior.bright_std is None else model.scale / prior.bright_std
    shape = model.grid.shape
    at_once = batch_size or max(1, PIXELS_AT_ONCE // (shape[0] * shape[1]))
    generators = [np.random.default_rng([seed, c]) for c in range(n_samples)]
    x = np.stack([levels[0] * g.standard_normal(shape) for g in generators])
    done, total = 0, n_samples * (len(levels) - 1)
    for level, following in itertools.pairwise(levels):
        mean, variance = _denoised(prior, x, float(level), at_once, device)
        if shared and level < SHARED_BELOW:
            power = echogenicity(np.mean(mean**2 + variance, axis=0))
            mean, variance = np.zeros_like(mean), np.broadcast_to(power, mean.shape)
        for c, rng in enumerate(generators):
            x[c] = draw(model, scale * mean[c], scale**2 * variance[c], rng, level < EXACT_BELOW) / scale
            if following > 0:
                x[c] += following * rng.standard_normal(shape)
            done += 1
            if progress is not None:
                progress(done, total)
    return (x[(slice(None), *model.inside)] * scale).astype(np.float32)


def echogenicity(power: np.ndarray) -> np.ndarray:
    """Return p² (nz, nx) of the chains' mean power: by the pixel about lone echoes, within a window in tissue."""
    squared = uniform_filter(power**2, EVENNESS_WINDOW)
    evenness = uniform_filter(power, EVENNESS_WINDOW) ** 2 / np.maximum(squared, np.finfo(float).tiny)
    lone = np.clip((TISSUE - evenness) / (TISSUE - LONE), 0, 1)
    return lone * power + (1 - lone) * gaussian_filter(power, TISSUE_WINDOW)


def draw(
    model: ChannelModel, mean: np.ndarray, variance: np.ndarray, rng: np.random.Generator, exact: bool = True
) -> np.ndarray:
    """Draw o (nz, nx) given the channel data, where before them it is Gaussian with that mean and variance by the pixel.

    Where `exact`, H and H' of the mean's misfit are those of the simulator. What is left to solve, a correction as large as
    the standard deviation, is solved with the delay form: its 2 to 10 % are of the correction, which ends at nothing.
    """
    spread = np.sqrt(variance)
    forward, adjoint = (model.forward, model.adjoint) if exact else (model.quick_forward, model.quick_adjoint)
    noise = rng.standard_normal(model.data.shape)
    b = spread * (adjoint(model.data - forward(mean)) + model.quick_adjoint(noise)) + rng.standard_normal(mean.shape)

    def normal(u: np.ndarray) -> np.ndarray:
        return u + spread * model.quick_adjoint(model.quick_forward(spread * u))

    found, _ = conjugate_gradients(normal, b, ITERATIONS, TOLERANCE)
    return mean + spread * found


def noise_levels(sigmas: np.ndarray, steps: int) -> np.ndarray:
    """Return the (steps + 1,) levels of a chain: from `FIRST` to `LAST` by one factor, as the prior has them, then 0.

    The first comes twice: a chain begins with noise about nothing, and only its first draw is about what was observed.
    """
    low, high = max(LAST, float(sigmas[0])), min(FIRST, float(sigmas[-1]))
    if not 1 <= steps <= len(sigmas):
        raise ValueError(f"steps: expected 1..{len(sigmas)}, got {steps}")
    wanted = np.append(high, np.geomspace(high, low, steps - 1))
    nearest = np.abs(np.log(sigmas)[None] - np.log(wanted)[:, None]).argmin(axis=1)
    return np.append(sigmas[nearest], 0.0)


@torch.inference_mode()
def _denoised(
    prior: SurePrior, x: np.ndarray, level: float, at_once: int, device: str | torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (n, nz, nx) of o given x at a noise level, by the prior."""
    means, variances = [], []
    for part in torch.as_tensor(x, dtype=torch.float32, device=device).split(at_once):
        mean, variance = prior.denoise_with_variance(part, level)
        means.append(mean.cpu())
        variances.append(variance.cpu())
    return torch.cat(means).double().numpy(), torch.cat(variances).double().clamp(min=0.0).numpy()
