"""Anisotropic despeckling of an amplitude image: SRAD (Yu & Acton, "Speckle reducing anisotropic diffusion", 2002).

The DRUSvar paper compares with ADMSS (Ramos-Llordén et al. 2015), which adds a tissue classifier and memory to a
diffusion of this family; SRAD stands in for it, under its own name.
"""

from __future__ import annotations

import numpy as np

from ..evaluation.anisotropic import FLOOR, diffuse


def srad(
    image: np.ndarray, n_iterations: int = 100, step: float = 0.1, homogeneous: np.ndarray | None = None
) -> np.ndarray:
    """Despeckled amplitude (nz, nx) float64.

    Parameters
    ----------
    step
        Time step, at most 0.25 for stability.
    homogeneous
        (nz, nx) bool, a region of plain speckle that sets the speckle scale q0; None takes the median of the
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

    def speckle_scale(u: np.ndarray, variation: np.ndarray) -> float:
        if homogeneous is None:
            return float(np.median(variation))
        return float(u[homogeneous].var() / u[homogeneous].mean() ** 2)

    return (diffuse(intensity / top + FLOOR, n_iterations, step, speckle_scale) - FLOOR) * top
