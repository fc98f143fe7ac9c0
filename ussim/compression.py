"""Pulse compression: echoes of a long excitation, a chirp or a code, made as short as its band allows."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from .arrays import device_of, to_numpy
from .engines import engine_of
from .plan import Plan, make_plan
from .types import IQData, RFData

BLOCK_VALUES = 4_000_000  # samples transformed at once
Channels = TypeVar("Channels", RFData, IQData)


def matched_filter(data: Channels) -> Channels:
    """Correlate channel data with the echo that the acquisition expects of a point: S B² of the model.

    The filter that raises a known pulse highest above white noise (Turin 1960, "An introduction to matched filters", IRE
    Trans. Inf. Theory 6). An echo stays at its time, centered; attenuation is not compensated. White noise in RF keeps its
    power, so that signals grow by the gain in signal-to-noise ratio; IQ data are filtered as their RF would be.

    Parameters
    ----------
    data : RFData or IQData
        (..., n_transmits, n_elements, n_samples): one record or a stack. RF needs twice the highest frequency of the pulse
        as its sampling frequency; otherwise demodulate first.

    Returns
    -------
    RFData or IQData
        As given, of the same shape, type and times.

    Raises
    ------
    ValueError
        The excitation is a continuous wave, or RF data are sampled too slowly.
    """
    plan = make_plan(data.acquisition)
    half, highest = plan.pulse_half_length(0.0), plan.band()[1]
    rate, n_samples = data.sampling_frequency, data.samples.shape[-1]
    carrier = data.demodulation_frequency if isinstance(data, IQData) else 0.0
    is_rf = not isinstance(data, IQData)
    if is_rf and rate < 2 * highest * (1 - 1e-9):
        raise ValueError(
            f"sampling_frequency: expected at least {2 * highest:g} Hz, twice the pulse's highest frequency, to filter RF, "
            f"got {rate:g} Hz: demodulate first"
        )
    from scipy.fft import next_fast_len

    n = next_fast_len(n_samples + int(np.ceil(2 * half * rate)), real=is_rf)  # nothing wraps into the record
    frequency = np.fft.rfftfreq(n, 1 / rate) if is_rf else carrier + np.fft.fftfreq(n, 1 / rate)
    response = _response(plan, frequency, n)
    engine = engine_of(data.samples)
    xp = engine.array_module
    with device_of(data.samples):
        samples = data.samples if engine.on_device else to_numpy(data.samples)
        response = xp.asarray(
            response, dtype=np.complex64 if samples.dtype in (np.float32, np.complex64) else np.complex128
        )
        forward, inverse = (xp.fft.rfft, xp.fft.irfft) if is_rf else (xp.fft.fft, xp.fft.ifft)
        filtered = xp.empty_like(samples)
        flat, out = samples.reshape(-1, n_samples), filtered.reshape(-1, n_samples)
        step = max(1, BLOCK_VALUES // n)
        for first in range(0, len(flat), step):
            part = slice(first, first + step)
            out[part] = inverse(forward(flat[part], n) * response, n)[:, :n_samples]
    return replace(data, samples=filtered)


def _response(plan: Plan, frequency: np.ndarray, n: int) -> np.ndarray:
    """S B² at frequencies of an n-point grid, of unit energy as a filter of RF: correlation with conj(S B²), the echo."""
    low, high = plan.band()
    inside = (frequency >= low) & (frequency <= high)
    response = np.zeros(len(frequency), dtype=np.complex128)
    # In their order, so that the grid is even: IQ frequencies come as 0, 1, ..., -1 about the carrier.
    order = np.argsort(frequency)
    kept = order[inside[order]]
    response[kept] = plan.excitation(frequency[kept]) * plan.response(frequency[kept])
    unit_power: np.ndarray = response / np.sqrt(2 * np.sum(np.abs(response) ** 2) / n)
    return unit_power
