"""Demodulation: from radio-frequency channel data to its complex envelope.

RF(t) = Re[IQ(t) exp(2πi f t)]: RF is multiplied by 2 exp(-2πi f t) and low-pass filtered by a Butterworth filter of order 5,
forwards and backwards so that nothing is delayed (MUST's `rf2iq`; Madiena et al. 2018, IEEE TUFFC 65:795, for sampling below
twice the carrier).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.signal import butter, lfilter_zi

from .engines import engine_of
from .types import IQData, RFData, device_of, to_numpy

ORDER = 5
EDGE = 3 * (ORDER + 1)  # samples by which filtfilt extends a record at each end (odd extension)


def demodulate(rf: RFData, frequency: float | None = None, bandwidth: float | None = None) -> IQData:
    """Complex envelope of channel data.

    The sampling frequency may be any that the band allows, below the carrier too (band-pass sampling): what must not
    happen is that the band falls onto its own mirror image.

    Parameters
    ----------
    rf : RFData
        (..., n_transmits, n_elements, n_samples): one record or a stack.
    frequency : float, optional
        Carrier in Hz; the probe's centre frequency by default.
    bandwidth : float, optional
        Width of the pass band as a fraction of `frequency`, in (0, 2]; the probe's by default. 2 keeps everything that is
        not image (MUST's choice when no bandwidth is known, at 4 samples a period).

    Returns
    -------
    IQData
        complex64, the same axes, sampling frequency and start time.

    Raises
    ------
    ValueError
        A value is out of range, the samples are not finite, or sampling folds the band onto itself.
    """
    probe = rf.acquisition.probe
    frequency = probe.center_frequency if frequency is None else float(frequency)
    bandwidth = probe.bandwidth if bandwidth is None else float(bandwidth)
    _check_band(frequency, bandwidth, rf.sampling_frequency)
    together = np.ndim(rf.start_time) == 0  # otherwise one carrier that begins at 0, and a phase of each transmit
    start_time = float(rf.start_times[0]) if together else 0.0
    law = filter_law(frequency, bandwidth, rf.sampling_frequency, start_time, rf.samples.shape[-1])
    engine = engine_of(rf.samples)
    iq = _mix_and_filter(rf.samples, *law) if engine is None else engine.mix_and_filter(rf.samples, *law)
    with device_of(iq):
        if not together:
            phases = np.exp(-2j * np.pi * ((frequency * rf.start_times) % 1.0)).astype(np.complex64)[:, None, None]
            iq *= phases if engine is None else engine.backend.to_device(phases)
        finite = bool(np.isfinite(iq[..., 0]).all())  # the backward pass carries a NaN anywhere to the first sample
    if not finite:
        raise ValueError("demodulate: expected finite samples, got NaN or infinity in the channel data")
    return IQData(iq, rf.acquisition, rf.sampling_frequency, frequency, rf.start_time)


def filter_law(
    frequency: float, bandwidth: float, sampling_frequency: float, start_time: float, n_samples: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """What an engine's `mix_and_filter` takes beside the samples: carrier (n_samples,), numerator and denominator of the
    filter, its state under a constant 1, samples by which to extend the record."""
    cutoff = bandwidth * frequency / sampling_frequency  # -6 dB, of half the sampling frequency; at most 0.5
    numerator, denominator = butter(ORDER, cutoff)
    time = start_time + np.arange(n_samples) / sampling_frequency
    carrier = 2 * np.exp(-2j * np.pi * ((frequency * time) % 1.0))
    return carrier, numerator, denominator, lfilter_zi(numerator, denominator), min(EDGE, n_samples - 1)


def _mix_and_filter(samples, carrier, numerator, denominator, steady, edge: int) -> np.ndarray:
    from .engines.cpu_beamform import mix_and_filter

    samples = to_numpy(samples)
    if samples.dtype not in (np.float32, np.float64):
        samples = samples.astype(np.float32)
    iq = np.empty(samples.shape, dtype=np.complex64)
    shape = math.prod(samples.shape[:-1]), samples.shape[-1]
    channels = np.ascontiguousarray(samples).reshape(shape)
    mix_and_filter(channels, carrier, numerator, denominator, steady, edge, iq.reshape(shape))
    return iq


def _check_band(frequency: float, bandwidth: float, sampling_frequency: float) -> None:
    if not (math.isfinite(frequency) and frequency > 0):
        raise ValueError(f"frequency: expected a carrier in Hz above 0, got {frequency!r}")
    if not 0 < bandwidth <= 2:
        raise ValueError(f"bandwidth: expected a fraction of the carrier in (0, 2], got {bandwidth!r}")
    # Mixing leaves the band at 0 and its mirror image at -2f, both repeated every sampling frequency.
    apart = abs(2 * frequency - sampling_frequency * round(2 * frequency / sampling_frequency))
    band = bandwidth * frequency
    if apart < band * (1 - 1e-9):
        raise ValueError(
            f"sampling_frequency: {sampling_frequency:g} Hz folds the band {frequency - band / 2:g} to "
            f"{frequency + band / 2:g} Hz onto itself: expected 2 x {frequency:g} Hz to be at least {band:g} Hz from a "
            f"multiple of it, got {apart:g} Hz. Give a bandwidth of at most {apart / frequency:.3g}, or sample faster"
        )
