"""Demodulation: from radio-frequency channel data to its complex envelope.

RF(t) = Re[IQ(t) exp(2πi f t)]: RF is multiplied by 2 exp(-2πi f t) and low-pass filtered by a Butterworth filter of order 5,
forwards and backwards so that nothing is delayed (MUST's `rf2iq`; Madiena et al. 2018, IEEE TUFFC 65:795, for sampling below
twice the carrier).

    demodulate ─► filter_law ─► engines.engine_of ─► Engine.mix_and_filter ─► kernels (`engines.cpu.kernels`, `beamform.cu`)
"""

from __future__ import annotations

import math
from typing import overload

import numpy as np
from numpy.typing import NDArray

from .arrays import as_float_array, device_of, to_numpy
from .engines import engine_of
from .numerics import butterworth, steady_state
from .plan import FILTER_EDGE, FILTER_ORDER, FilterLaw
from .types import IQData, RFData


@overload
def demodulate(rf: RFData, frequency: float | None = None, bandwidth: float | None = None) -> IQData: ...


@overload
def demodulate(
    rf: np.ndarray,
    frequency: float | None = None,
    bandwidth: float | None = None,
    *,
    sampling_frequency: float,
    center_frequency: float | None = None,
    start_time: float = 0.0,
) -> NDArray[np.complex64]: ...


def demodulate(
    rf: RFData | np.ndarray,
    frequency: float | None = None,
    bandwidth: float | None = None,
    *,
    sampling_frequency: float | None = None,
    center_frequency: float | None = None,
    start_time: float | None = None,
) -> IQData | NDArray[np.complex64]:
    """Return the complex envelope of channel data, or of RF lines without an array.

    The sampling frequency may be any that the band allows, below the carrier too (band-pass sampling): what must not
    happen is that the band falls onto its own mirror image.

    Parameters
    ----------
    rf : RFData or np.ndarray
        (..., n_transmits, n_elements, n_samples): one record or a stack; or bare lines (..., n_samples).
    frequency : float, optional
        Carrier in Hz; of channel data by default the acquisition's transmit_frequency, else the probe's center frequency.
    bandwidth : float, optional
        Width of the pass band as a fraction of `frequency`, in (0, 2]; by default the probe's band, of bare lines the
        widest that sampling does not fold onto itself. 2 keeps everything that is not image (MUST's choice when no
        bandwidth is known, at 4 samples per period).
    sampling_frequency, center_frequency : float, optional
        Hz, of bare lines; `center_frequency` is another name of `frequency` there.
    start_time : float, optional
        Time of the first sample of bare lines, s; 0 by default.

    Returns
    -------
    IQData or np.ndarray
        complex64, the same axes, sampling frequency and start time; of bare lines the array alone.

    Raises
    ------
    ValueError
        A value is out of range, the samples are not finite, or sampling folds the band onto itself.
    """
    if not isinstance(rf, RFData):
        if frequency is not None and center_frequency is not None:
            raise ValueError("demodulate: frequency and center_frequency are one number: give one of them")
        carrier = center_frequency if frequency is None else frequency
        return _demodulate_lines(rf, sampling_frequency, carrier, bandwidth, start_time or 0.0)
    for name, value in (
        ("sampling_frequency", sampling_frequency),
        ("center_frequency", center_frequency),
        ("start_time", start_time),
    ):
        if value is not None:
            raise ValueError(f"{name}: RFData brings its own: expected it for bare lines (..., n_samples) only")
    probe, carrier = rf.acquisition.probe, rf.acquisition.carrier_frequency
    if bandwidth is None:  # the probe's band in Hz, whatever the carrier
        narrow = frequency is not None or carrier == probe.center_frequency
        bandwidth = probe.bandwidth if narrow else min(2.0, probe.bandwidth * probe.center_frequency / carrier)
    frequency = carrier if frequency is None else float(frequency)
    iq = _demodulated(rf.samples, frequency, float(bandwidth), rf.sampling_frequency, rf.start_time)
    return IQData(iq, rf.acquisition, rf.sampling_frequency, frequency, rf.start_time, rf.firing_times)


def remodulate(iq: IQData, lowest_rate: float) -> RFData:
    """Return the echoes with their carrier: RF(t) = Re[IQ(t) exp(2πi f t)].

    Parameters
    ----------
    iq : IQData
        Demodulated at f.
    lowest_rate : float
        Hz, of which the real samples have at least so many: a whole multiple of the rate of `iq`.

    Returns
    -------
    RFData
        float64, on the clock of `iq`, in host memory; its acquisition is that of `iq`, whatever the rate.
    """
    factor = max(1, math.ceil(lowest_rate / iq.sampling_frequency - 1e-9))
    from scipy.signal import resample_poly

    fine = resample_poly(to_numpy(iq.samples).astype(np.complex128), factor, 1, axis=-1)
    rate = factor * iq.sampling_frequency
    time = iq.start_times[:, None, None] + np.arange(fine.shape[-1]) / rate
    samples = np.real(fine * np.exp(2j * np.pi * iq.demodulation_frequency * time))
    return RFData(samples, iq.acquisition, rate, iq.start_time, firing_times=iq.firing_times)


def _demodulate_lines(
    rf: np.ndarray,
    sampling_frequency: float | None,
    frequency: float | None,
    bandwidth: float | None,
    start_time: float,
) -> np.ndarray:
    if np.iscomplexobj(rf) or np.ndim(rf) == 0 or 0 in np.shape(rf):
        raise ValueError(f"demodulate: expected RFData, or real lines (..., n_samples), got {type(rf).__name__}")
    samples = as_float_array(rf)
    rate, carrier = _given("sampling_frequency", sampling_frequency), _given("center_frequency", frequency)
    if not math.isfinite(start_time):
        raise ValueError(f"start_time: expected s, got {start_time!r}")
    if bandwidth is None:
        bandwidth = min(2.0, _distance_to_image(carrier, rate) / carrier)
    return _demodulated(samples, carrier, float(bandwidth), rate, start_time)


def _given(name: str, value: float | None) -> float:
    if value is None or not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: lines without an array need it, in Hz above 0, got {value!r}")
    return float(value)


def _demodulated(
    samples: np.ndarray, frequency: float, bandwidth: float, sampling_frequency: float, start_time: float | np.ndarray
) -> np.ndarray:
    """Return the complex envelope (..., n_samples) of real samples, complex64, where the samples are.

    `start_time` a scalar or one per transmit.
    """
    _check_band(frequency, bandwidth, sampling_frequency)
    together = np.ndim(start_time) == 0  # otherwise one carrier that begins at 0, and a phase of each transmit
    start = float(start_time) if together else 0.0
    law = filter_law(frequency, bandwidth, sampling_frequency, start, samples.shape[-1])
    engine = engine_of(samples)
    iq = engine.mix_and_filter(samples if engine.on_device else to_numpy(samples), law)
    with device_of(iq):
        if not together:
            phases = np.exp(-2j * np.pi * ((frequency * np.asarray(start_time)) % 1.0)).astype(np.complex64)[
                :, None, None
            ]
            iq *= engine.to_device(phases)
        if engine.on_device:  # to look would be to wait: a NaN goes through to the image, of which it is told
            return iq
    if not np.isfinite(iq[..., 0]).all():  # the backward pass carries a NaN anywhere to the first sample
        raise ValueError("demodulate: expected finite samples, got NaN or infinity in the channel data")
    return iq


def filter_law(
    frequency: float, bandwidth: float, sampling_frequency: float, start_time: float, n_samples: int
) -> FilterLaw:
    """Return the carrier of a record, and the low-pass filter after it."""
    cutoff = bandwidth * frequency / sampling_frequency  # -6 dB, of half the sampling frequency; at most 0.5
    numerator, denominator = butterworth(FILTER_ORDER, cutoff)
    time = start_time + np.arange(n_samples) / sampling_frequency
    carrier = 2 * np.exp(-2j * np.pi * ((frequency * time) % 1.0))
    return FilterLaw(
        carrier, numerator, denominator, steady_state(numerator, denominator), min(FILTER_EDGE, n_samples - 1)
    )


def _distance_to_image(frequency: float, sampling_frequency: float) -> float:
    """Hz. Mixing leaves the band at 0 and its mirror image at -2f, both repeated every sampling frequency."""
    return abs(2 * frequency - sampling_frequency * round(2 * frequency / sampling_frequency))


def _check_band(frequency: float, bandwidth: float, sampling_frequency: float) -> None:
    if not (math.isfinite(frequency) and frequency > 0):
        raise ValueError(f"frequency: expected a carrier in Hz above 0, got {frequency!r}")
    if not 0 < bandwidth <= 2:
        raise ValueError(f"bandwidth: expected a fraction of the carrier in (0, 2], got {bandwidth!r}")
    apart = _distance_to_image(frequency, sampling_frequency)
    band = bandwidth * frequency
    if apart < band * (1 - 1e-9):
        if apart < 1e-9 * frequency:
            raise ValueError(
                f"sampling_frequency: {sampling_frequency:g} Hz folds a band about {frequency:g} Hz onto itself, however "
                "narrow: expected a rate of which 2 x the carrier is no multiple. Sample at 4 x the carrier, or name another"
            )
        raise ValueError(
            f"sampling_frequency: {sampling_frequency:g} Hz folds the band {frequency - band / 2:g} to "
            f"{frequency + band / 2:g} Hz onto itself: expected 2 x {frequency:g} Hz to be at least {band:g} Hz from a "
            f"multiple of it, got {apart:g} Hz. Give a bandwidth of at most {apart / frequency:.3g}, or sample faster"
        )
