"""A recording as the fit takes it: real samples fast enough for the model's band."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..arrays import to_numpy
from ..demodulation import demodulate, remodulate
from ..errors import DataError
from ..types import IQData, RFData

PASSED = 0.8  # of a band that a filter leaves, where it leaves it as it is
LOWEST_RATIO = 4.0  # samples per period of the center frequency: the model's band ends at twice the center frequency


def as_rf(data: RFData | IQData) -> RFData:
    """Return one record of real samples, at least 4 per period, of finite numbers that are not all 0.

    IQ data get their carrier back; a slower recording is demodulated and then sampled faster.

    Raises
    ------
    DataError
        It is a stack, silent, or not finite.
    """
    if not isinstance(data, RFData | IQData):
        raise ValueError(f"data: expected RFData or IQData, got {type(data).__name__}")
    if data.samples.ndim != 3:
        raise DataError(f"recording: expected one record, got a stack of shape {data.samples.shape}: choose one of it")
    data = replace(data, acquisition=data.acquisition.nominal)  # what else is true of it is to be found
    samples = to_numpy(data.samples)
    if not np.isfinite(samples).all():
        raise DataError("recording: expected finite samples, got NaN or infinity")
    if not samples.any():
        raise DataError("recording: expected echoes, got zeros only")
    center = data.acquisition.probe.center_frequency
    if data.acquisition.is_continuous:
        raise DataError("recording: expected pulses, got a continuous wave (n_cycles is infinite)")
    if isinstance(data, RFData):
        data = data.to_numpy()
        if data.sampling_frequency >= LOWEST_RATIO * center * (1 - 1e-9):
            return data
        data = demodulate(
            data, data.acquisition.carrier_frequency, _widest(data)
        )  # the file's bandwidth is in question
    return remodulate(data, LOWEST_RATIO * center)


def usable_band(data: RFData | IQData) -> tuple[float, float]:
    """Return the frequencies, Hz, at which the spectrum of `as_rf` is that of the recording: where nothing was filtered."""
    rate, center = data.sampling_frequency, data.acquisition.probe.center_frequency
    if isinstance(data, IQData):
        half = PASSED * rate / 2
        return data.demodulation_frequency - half, data.demodulation_frequency + half
    if rate >= LOWEST_RATIO * center * (1 - 1e-9):
        return 0.0, rate / 2
    carrier = data.acquisition.carrier_frequency
    half = PASSED * _widest(data) * carrier / 2
    return carrier - half, carrier + half


def _widest(data: RFData) -> float:
    """Return the widest band that sampling does not fold onto itself, a fraction of the carrier."""
    carrier, rate = data.acquisition.carrier_frequency, data.sampling_frequency
    return min(2.0, 0.999 * abs(2 * carrier - rate * round(2 * carrier / rate)) / carrier)
