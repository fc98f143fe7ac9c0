"""The receive chain between the elements and the beamformer."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from .arrays import device_of
from .engines import engine_of
from .types import IQData, RFData


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
    samples = data.samples
    start = np.asarray(data.start_time, dtype=np.float64)
    if start.ndim:  # one per transmit
        start = start[:, None, None]
    time = np.maximum(start + np.arange(samples.shape[-1]) / data.sampling_frequency, 0.0)
    gain_db = attenuation * frequency / 1e6 * (speed * time * 100)
    with device_of(samples):
        gain = engine_of(samples).to_device(10 ** (gain_db / 20)).astype(samples.real.dtype)
        if in_place:
            samples *= gain
            return data
        return dataclasses.replace(data, samples=samples * gain)
