"""Speckle-reducing anisotropic diffusion, SRAD (Yu & Acton 2002, IEEE Trans. Image Process. 11:1260).

The one loop behind `baselines.srad` (log-compressed B-modes) and `drus.despeckle.srad` (amplitudes), which differ in how
they read the speckle's own variation off the image.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

FLOOR = 1e-6  # the coefficient of variation divides by the image


def diffuse(
    image: np.ndarray, n_iterations: int, step: float, speckle_scale: Callable[[np.ndarray, np.ndarray], float]
) -> np.ndarray:
    """Return the image after `n_iterations` of the SRAD equation.

    Parameters
    ----------
    image : (nz, nx) amplitude, above 0.
    step : of time, at most 0.25 for stability.
    speckle_scale : q0², the squared coefficient of variation of plain speckle, of (image, its local q²); read at every step.
    """
    u = image
    for _ in range(n_iterations):
        padded = np.pad(u, 1, mode="edge")
        north, south = padded[:-2, 1:-1] - u, padded[2:, 1:-1] - u
        west, east = padded[1:-1, :-2] - u, padded[1:-1, 2:] - u
        gradient = (north**2 + south**2 + west**2 + east**2) / u**2
        laplacian = (north + south + west + east) / u
        variation = np.maximum(0, gradient / 2 - laplacian**2 / 16) / (1 + laplacian / 4) ** 2  # q², instantaneous
        scale = max(speckle_scale(u, variation), 1e-12)
        conduction = 1 / (1 + (variation - scale) / (scale * (1 + scale)))
        c = np.pad(np.clip(conduction, 0, 1), ((0, 1), (0, 1)), mode="edge")
        u = u + step * (c[1:, :-1] * south + c[:-1, :-1] * (north + west) + c[:-1, 1:] * east)
        u = np.maximum(u, FLOOR)
    return u
