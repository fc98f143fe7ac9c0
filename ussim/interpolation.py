"""Interpolation between samples: which neighbors count, and how much.

The methods and names are MUST's (`dasmtx`): 1, 2, 3, 4 and 6 taps. Its "lanczos3" has three lobes, sinc(t) sinc(t/2), and
"lanczos5" five, sinc(t) sinc(t/3). Samples outside the record count as zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interpolation:
    """The value at index i is Σ_k weights(f)[k] samples[n + first_tap + k]: n = floor(i + shift), f what is left."""

    first_tap: int
    n_taps: int
    weights: Callable[[np.ndarray], np.ndarray]  # fraction in [0, 1) (...) -> (..., n_taps)
    shift: float = 0.0


def _lanczos(first_tap: int, n_taps: int) -> Interpolation:
    half_width = n_taps // 2

    def weights(fraction: np.ndarray) -> np.ndarray:
        t = np.asarray(fraction)[..., None] - (first_tap + np.arange(n_taps))
        return np.sinc(t) * np.sinc(t / half_width)

    return Interpolation(first_tap, n_taps, weights)


INTERPOLATIONS = {
    "nearest": Interpolation(0, 1, lambda f: np.ones((*np.shape(f), 1)), shift=0.5),
    "linear": Interpolation(0, 2, lambda f: np.stack([1 - f, f], axis=-1)),
    "quadratic": Interpolation(
        0, 3, lambda f: np.stack([(f - 1) * (f - 2) / 2, f * (2 - f), f * (f - 1) / 2], axis=-1)
    ),
    "lanczos3": _lanczos(-1, 4),
    "lanczos5": _lanczos(-2, 6),
}
