"""The receive chain between the elements and the beamformer: gain over time, noise, sampling, converter.

Random numbers are drawn in host memory, so that all engines hear the same noise.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .acquisition import Acquisition
from .arrays import device_of
from .chain import WHITE, ReceiveChain, TimeGain
from .engines import engine_of
from .numerics import fast_length
from .physics import probe_spectrum
from .plan import make_plan
from .types import IQData, RFData

JITTER_ORDER = 4  # of the series in the timing error: its rest is 1e-4 of the error, at the longest jitter
JITTER_STREAM = 1  # of a record's seed, beside that of its noise, which is the seed's own


def time_gain_compensation(
    data: RFData | IQData,
    attenuation_db_cm_mhz: float | None = None,
    *,
    frequency: float | None = None,
    speed_of_sound: float | None = None,
    in_place: bool = False,
) -> RFData | IQData:
    """Amplify echoes by what the medium took from them on their way, so that deep tissue is as bright as shallow tissue.

    The gain at time t is that of the path c t at one frequency: attenuation x frequency x c t dB, and 0 dB before t = 0.
    What is noise is amplified with the echoes.

    Parameters
    ----------
    data : RFData or IQData
        (..., n_transmits, n_elements, n_samples): one record or a stack.
    attenuation_db_cm_mhz : float, optional
        dB/cm/MHz; the acquisition's medium by default.
    frequency : float, optional
        Hz; the probe's center frequency by default.
    speed_of_sound : float, optional
        m/s; the acquisition's medium by default.
    in_place : bool
        Change the samples that were given, as memory is short; otherwise they stay.

    Returns
    -------
    RFData or IQData
        The same axes, sampling frequency and start time; on a card where the samples are.

    Raises
    ------
    ValueError
        A value is out of range.
    """
    medium, probe = data.acquisition.medium, data.acquisition.probe
    attenuation = medium.attenuation_db_cm_mhz if attenuation_db_cm_mhz is None else attenuation_db_cm_mhz
    frequency = probe.center_frequency if frequency is None else frequency
    speed = medium.speed_of_sound if speed_of_sound is None else speed_of_sound
    if not (math.isfinite(attenuation) and attenuation >= 0):
        raise ValueError(f"attenuation_db_cm_mhz: expected dB/cm/MHz of at least 0, got {attenuation!r}")
    for name, value, unit in (("frequency", frequency, "Hz"), ("speed_of_sound", speed, "m/s")):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}: expected {unit} above 0, got {value!r}")
    return _amplified(data, attenuation * frequency / 1e6 * (speed * _times(data) * 100), in_place)


def apply_time_gain(
    data: RFData | IQData, time_gain: TimeGain, *, speed_of_sound: float | None = None, in_place: bool = False
) -> RFData | IQData:
    """Amplify echoes by a time-gain curve; its `inverse()` undoes it.

    Parameters
    ----------
    data : RFData or IQData
        (..., n_transmits, n_elements, n_samples): one record or a stack.
    time_gain : TimeGain
        Decibels over depth: an echo at time t is taken for one of the depth c t / 2.
    speed_of_sound : float, optional
        c, m/s; the acquisition's medium by default.
    in_place : bool
        Change the samples that were given, as memory is short; otherwise they stay.

    Returns
    -------
    RFData or IQData
        The same axes, sampling frequency and start time; on a card where the samples are.

    Raises
    ------
    ValueError
        A value is out of range.
    """
    speed = data.acquisition.medium.speed_of_sound if speed_of_sound is None else speed_of_sound
    if not (math.isfinite(speed) and speed > 0):
        raise ValueError(f"speed_of_sound: expected m/s above 0, got {speed!r}")
    return _amplified(data, time_gain.at(speed * _times(data) / 2), in_place)


def apply_receive_chain(
    data: RFData,
    chain: ReceiveChain,
    *,
    seeds: Sequence[np.random.SeedSequence] | None = None,
    in_place: bool = False,
) -> RFData:
    """Pass channel data through a receive chain: noise, time gain, uneven sampling, converter, in this order.

    Parameters
    ----------
    data : RFData
        (..., n_transmits, n_elements, n_samples): one record or a stack, that has been through no chain.
    chain : ReceiveChain
        What it does.
    seeds : sequence of np.random.SeedSequence, optional
        One per record, in place of the streams of `chain.seed`.
    in_place : bool
        Change the samples that were given, as memory is short; otherwise they stay.

    Returns
    -------
    RFData
        The same axes; on a card where the samples are. Its acquisition has the chain.

    Raises
    ------
    ValueError
        The data are IQ, or have been through a chain, or there are not as many seeds as records.
    """
    if not isinstance(data, RFData):
        raise ValueError(f"data: expected RFData, as the elements give them, got {type(data).__name__}")
    if data.acquisition.receive_chain is not None:
        raise ValueError("data: expected channel data that have been through no receive chain, got some that have")
    shape = data.samples.shape
    n_records = math.prod(shape[:-3])
    if seeds is None:
        seeds = chain.streams(n_records)
    if len(seeds) != n_records:
        raise ValueError(f"seeds: expected one per record ({n_records}), got {len(seeds)}")
    passed = dataclasses.replace(data, acquisition=dataclasses.replace(data.acquisition, receive_chain=chain))
    with device_of(data.samples):
        if not in_place:
            passed = dataclasses.replace(passed, samples=data.samples.copy())
        records = passed.samples.reshape(n_records, *shape[-3:])
        _add_noise(records, passed, chain, seeds)
        if chain.compensation:
            time_gain_compensation(passed, in_place=True)
        if chain.time_gain is not None:
            apply_time_gain(passed, chain.time_gain, in_place=True)
        if chain.jitter:
            _sample_unevenly(records, passed.sampling_frequency, chain.jitter, seeds)
        if chain.n_bits is not None:
            for record in records:
                _convert(record, chain)
        silence_masked(passed.samples, passed.acquisition)
    return passed


def silence_masked(samples: np.ndarray, acquisition: Acquisition) -> np.ndarray:
    """Return the samples (..., n_transmits, n_elements, n_samples), 0 on channels that do not receive; in place."""
    if acquisition.receive_mask is not None:
        with device_of(samples):
            for transmit, element in np.argwhere(~acquisition.receiving):
                samples[..., transmit, element, :] = 0
    return samples


def as_heard(samples: np.ndarray, acquisition: Acquisition) -> np.ndarray:
    """Return echoes (..., n_transmits, n_elements, n_samples) as elements of uneven gain and masked channels give them.

    In place. It is its own transpose.
    """
    if acquisition.element_errors is not None:
        with device_of(samples):
            gains = engine_of(samples).to_device(acquisition.element_gains.astype(samples.dtype))
            samples *= gains[:, None]
    return silence_masked(samples, acquisition)


def _times(data: RFData | IQData) -> np.ndarray:
    """Return the time of each sample, s, at least 0: (n_samples,), or (n_transmits, 1, n_samples) of clocks of their own."""
    start = np.asarray(data.start_time, dtype=np.float64)
    if start.ndim:  # one per transmit
        start = start[:, None, None]
    times: np.ndarray = np.maximum(start + np.arange(data.samples.shape[-1]) / data.sampling_frequency, 0.0)
    return times


def _amplified(data: RFData | IQData, gain_db: np.ndarray, in_place: bool) -> RFData | IQData:
    samples = data.samples
    with device_of(samples):
        gain = engine_of(samples).to_device(10 ** (gain_db / 20)).astype(samples.real.dtype)
        if in_place:
            samples *= gain
            return data
        return dataclasses.replace(data, samples=samples * gain)


def _add_noise(records: np.ndarray, data: RFData, chain: ReceiveChain, seeds: Sequence[np.random.SeedSequence]) -> None:
    """Add noise to each record of a stack (n_records, n_transmits, n_elements, n_samples), in place."""
    if chain.snr_db is None:
        return
    shape = noise_shape(data, chain)
    to_device = engine_of(records).to_device
    for record, seed in zip(records, seeds, strict=True):
        level = (record.astype(np.float64) ** 2).mean() ** 0.5 * 10 ** (-chain.snr_db / 20)
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal(record.shape, dtype=np.float32)
        if shape is not None:
            noise = np.fft.irfft(np.fft.rfft(noise, axis=-1) * shape, record.shape[-1], axis=-1).astype(np.float32)
        # On a card the level stays there: noise is drawn while the echoes are still being computed.
        record += (level.astype(np.float32) * to_device(noise)).astype(record.dtype)


def noise_shape(data: RFData, chain: ReceiveChain) -> np.ndarray | None:
    """Return the noise's spectrum at the frequencies of `rfft`, of mean square 1 over a record; None of white noise."""
    if chain.noise_bandwidth == WHITE:
        return None
    n = data.samples.shape[-1]
    frequency = np.fft.rfftfreq(n, 1 / data.sampling_frequency)
    probe = data.acquisition.probe
    if chain.noise_bandwidth is None:
        spectrum = np.abs(make_plan(data.acquisition).probe_response(frequency))
    else:
        spectrum = probe_spectrum(frequency, probe.center_frequency, chain.noise_bandwidth)
    twice = np.full(len(frequency), 2.0)  # bins that have a mirror
    twice[0] = 1.0
    if n % 2 == 0:
        twice[-1] = 1.0
    power = float((twice * spectrum**2).sum() / n)
    return spectrum / math.sqrt(power) if power > 0 else None


def _sample_unevenly(records: np.ndarray, rate: float, jitter: float, seeds: Sequence[np.random.SeedSequence]) -> None:
    """Take each sample at its time plus an error of RMS `jitter` s, in place: a Taylor series in the error."""
    engine = engine_of(records)
    fft: Any = engine.array_module.fft
    n = records.shape[-1]
    n_fft = fast_length(n + 64)  # zeros between the end and the beginning
    slope = engine.to_device((2j * np.pi * np.fft.rfftfreq(n_fft)).astype(np.complex64))  # per sample
    for record, seed in zip(records, seeds, strict=True):
        own = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, JITTER_STREAM))
        rng = np.random.default_rng(own)
        for transmit in record:  # one at a time, as memory is short
            error = engine.to_device(jitter * rate * rng.standard_normal(transmit.shape, dtype=np.float32))
            spectrum = fft.rfft(transmit, n_fft, axis=-1)
            factor: Any = 1.0
            for order in range(1, JITTER_ORDER + 1):
                spectrum = spectrum * slope
                factor = factor * error / order
                transmit += (factor * fft.irfft(spectrum, n_fft, axis=-1)[:, :n]).astype(transmit.dtype)


def _convert(record: np.ndarray, chain: ReceiveChain) -> None:
    """Round a record to the levels of its converter, and clip it at full scale, in place."""
    assert chain.n_bits is not None
    full_scale = chain.full_scale
    if full_scale is None:
        full_scale = float(abs(record).max()) * 10 ** (chain.headroom_db / 20)
    if full_scale == 0:
        return  # silence
    levels = 2 ** (chain.n_bits - 1)  # to either side
    step = full_scale / levels
    rounded = (record / step).round().clip(-levels, levels - 1)
    record[...] = rounded * step
