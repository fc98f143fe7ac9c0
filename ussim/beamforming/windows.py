"""Receive apodization: windows across the aperture of a pixel, and weights of the elements themselves.

A window is a raised cosine of the place in the aperture, 0 in its middle and 1 at its edge:
w(u) = a0 + a1 cos(π s) + a2 cos(2π s), s = (|u| - flat) / (1 - flat), 0 where |u| < flat (Harris 1978, "On the use of
windows for harmonic analysis with the discrete Fourier transform", Proc. IEEE 66:51-83).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..arrays import to_numpy
from ..probes import Probe


class Window(NamedTuple):
    """A window by its cosines, and the share of the aperture where it is flat."""

    a0: float
    a1: float = 0.0
    a2: float = 0.0
    flat: float = 0.0

    def at(self, place: np.ndarray) -> np.ndarray:
        """Return the weight at places in the aperture, |place| from 0 in the middle to 1 at the edge."""
        s = np.clip((np.abs(place) - self.flat) / (1 - self.flat), 0, 1)
        weight: np.ndarray = self.a0 + self.a1 * np.cos(np.pi * s) + self.a2 * np.cos(2 * np.pi * s)
        return weight


BOXCAR = Window(1.0)
WINDOWS = {
    "boxcar": BOXCAR,
    "hann": Window(0.5, 0.5),
    "hamming": Window(0.54, 0.46),
    "blackman": Window(0.42, 0.5, 0.08),
    "tukey": Window(0.5, 0.5, flat=0.5),
}


def resolve_apodization(
    apodization: str | np.ndarray | None, probe: Probe, f_number: float
) -> tuple[Window, np.ndarray | None]:
    """Return the window that moves with the pixel, and the weights of the elements that stay.

    Parameters
    ----------
    apodization : str, np.ndarray or None
        Name of a window; or weights (n_elements,) of the elements; None: all count alike.
    probe : Probe
        The array.
    f_number : float
        Of the receive aperture. At 0 every pixel has the whole array, and the window lies over that.

    Returns
    -------
    (Window, np.ndarray or None)
        The second (n_elements,) float64; None where all are 1.

    Raises
    ------
    ValueError
        The name or the shape is another, or the weights are negative, not finite or all 0.
    """
    if apodization is None:
        return BOXCAR, None
    n = probe.n_elements
    if isinstance(apodization, str):
        if apodization not in WINDOWS:
            raise ValueError(
                f"apodization: expected one of {', '.join(WINDOWS)}, an array or None, got {apodization!r}"
            )
        window = WINDOWS[apodization]
        if f_number > 0 or window is BOXCAR:
            return window, None
        return BOXCAR, window.at((np.arange(n) - (n - 1) / 2) / (n / 2))
    weights = to_numpy(apodization)
    if weights.shape != (n,):
        raise ValueError(f"apodization: expected weights of the {n} elements, got the shape {weights.shape}")
    largest = np.finfo(np.float32).max
    if weights.dtype.kind not in "biuf" or not ((weights >= 0) & (weights <= largest)).all() or not weights.any():
        raise ValueError("apodization: expected finite real weights of at least 0, not all of them 0")
    return BOXCAR, weights.astype(np.float64)
