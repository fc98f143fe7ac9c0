"""The pulse that a probe sends and hears."""

from __future__ import annotations

import numpy as np

from .acquisition import Acquisition
from .numerics import fast_length
from .plan import make_plan

TIME_STEP = 1e-9  # s, as MUST; between 20 and 1000 steps per period
SMALLEST = 1 / 1023  # of the peak: the record ends where the pulse stays below


def pulse(acquisition: Acquisition, ways: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Compute the pulse, transmitted or pulse-echo, without attenuation.

    The inverse transform of conj(S B) or conj(S B²), centered on time 0 (MUST's getpulse; Garcia 2022).

    Parameters
    ----------
    acquisition : Acquisition
        Probe, waves, medium and sampling.
    ways : int
        1: transmitted; 2, the default: pulse-echo.

    Returns
    -------
    tuple of np.ndarray
        Time (n,), s, and pulse (n,), without unit, of peak 1.

    Raises
    ------
    ValueError
        `ways` is neither 1 nor 2.
    """
    if ways not in (1, 2):
        raise ValueError(f"ways: expected 1 (transmitted) or 2 (pulse-echo), got {ways!r}")
    plan = make_plan(acquisition)
    period = 1 / acquisition.probe.center_frequency
    step = min(max(TIME_STEP, period / 1000), period / 20)
    n = fast_length(int(8 * plan.pulse_half_length(0.0, tail=1e-6) / step))
    frequency = np.fft.rfftfreq(n, step)
    inside = frequency <= 2 * acquisition.probe.center_frequency
    spectrum = np.zeros(len(frequency), dtype=np.complex128)
    spectrum[inside] = plan.excitation(frequency[inside])
    if ways == 2:
        spectrum[inside] *= plan.response(frequency[inside])
    wave = np.fft.fftshift(np.fft.irfft(np.conj(spectrum), n))
    wave /= np.abs(wave).max()
    center = n // 2
    half = np.abs(np.flatnonzero(np.abs(wave) > SMALLEST) - center).max()
    return np.arange(-half, half + 1) * step, wave[center - half : center + half + 1]
