"""Anisotropic despeckling of an amplitude image: SRAD (Yu & Acton, "Speckle reducing anisotropic diffusion", 2002).

The DRUSvar paper compares with ADMSS (Ramos-Llordén et al. 2015), which adds a tissue classifier and memory to a
diffusion of this family; SRAD stands in for it, under its own name.
"""

from __future__ import annotations

import numpy as np


def srad(
    image: np.ndarray, n_iterations: int = 100, step: float = 0.1, homogeneous: np.ndarray | None = None
) -> np.ndarray:
    """Despeckled amplitude (nz, nx) float64.

    Parameters
    ----------
    step
        Time step, at most 0.25 for stability.
    homogeneous
        (nz, nx) bool, a region of plain speckle that sets the speckle scale q0 (eq. 37); None takes the median of the
        local coefficients of variation.

    Raises
    ------
    ValueError
        Negative or non-finite pixels, or a step out of range.
    """
    intensity = np.asarray(image, dtype=np.float64)
    if intensity.ndim != 2 or not np.isfinite(intensity).all() or intensity.min() < 0:
        raise ValueError("image: expected an amplitude image (nz, nx) of finite values of at least 0")
    if not 0 < step <= 0.25:
        raise ValueError(f"step: expected a number in (0, 0.25], got {step!r}")
    top = intensity.max()
    if top == 0:
        return intensity
    intensity = intensity / top + 1e-6  # eq. 31 divides by the image
    for _ in range(n_iterations):
        padded = np.pad(intensity, 1, mode="edge")
        north, south = padded[:-2, 1:-1] - intensity, padded[2:, 1:-1] - intensity
        west, east = padded[1:-1, :-2] - intensity, padded[1:-1, 2:] - intensity
        gradient = (north**2 + south**2 + west**2 + east**2) / intensity**2
        laplacian = (north + south + west + east) / intensity
        squared = (0.5 * gradient - laplacian**2 / 16) / (1 + laplacian / 4) ** 2  # q², eq. 31
        squared = np.maximum(squared, 0)
        if homogeneous is None:
            scale = float(np.median(squared))
        else:
            scale = float(intensity[homogeneous].var() / intensity[homogeneous].mean() ** 2)
        scale = max(scale, 1e-12)
        diffusion = 1 / (1 + (squared - scale) / (scale * (1 + scale)))  # eq. 33
        diffusion = np.clip(diffusion, 0, 1)
        below, right = (
            np.pad(diffusion, ((0, 1), (0, 0)), mode="edge")[1:],
            np.pad(diffusion, ((0, 0), (0, 1)), mode="edge")[:, 1:],
        )
        flux = below * south + diffusion * north + right * east + diffusion * west
        intensity = np.maximum(intensity + step * flux, 1e-6)
    return (intensity - 1e-6) * top
