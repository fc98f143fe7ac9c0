"""Parameters of a calibration: the numbers that all wires share, their units, bounds, and how well each must be known."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ..acquisition import Acquisition
from ..medium import Medium

HIGHEST = 10.0  # dB/cm/MHz
DEGREE = math.pi / 180
LATE = "delay of all echoes against the clock of the recording"


@dataclass(frozen=True)
class Parameter:
    """One number of the fit.

    Attributes
    ----------
    name : str
        As in `Values` and in the report.
    words : str
        What it is.
    unit : str
        Of the report.
    per_unit : float
        SI value of one `unit`.
    logarithmic : bool
        Whether its logarithm is fitted (it is above 0), so that steps are relative.
    bounds : (float, float)
        Lowest and highest value, SI.
    step : float
        Of a finite difference, in fitted units.
    limit : float
        Largest uncertainty (two standard deviations) with which the recording tells it: relative where `logarithmic`,
        in SI units elsewhere, in periods of the center frequency where the unit is a time.
    doubt : float
        By how much (one standard deviation, units as of `limit`) the file may be wrong about it: so weakly the fit is drawn
        to the file, and so much the uncertainties of others take into account where the recording does not tell it.
    """

    name: str
    words: str
    unit: str
    per_unit: float
    logarithmic: bool
    bounds: tuple[float, float]
    step: float
    limit: float
    doubt: float


PARAMETERS = {
    p.name: p
    for p in (
        Parameter("center_frequency", "center frequency", "MHz", 1e6, True, (1e2, 1e9), 1e-5, 0.05, 0.1),
        Parameter("bandwidth", "bandwidth, pulse-echo at -6 dB", "%", 1e-2, True, (0.05, 1.95), 1e-5, 0.2, 0.3),
        Parameter("n_cycles", "length of the excitation", "cycles", 1.0, True, (0.05, 50.0), 1e-4, 0.25, 0.4),
        Parameter("pulse_phase", "phase of the pulse", "degrees", DEGREE, False, (-20.0, 20.0), 1e-5, 0.5, math.pi),
        Parameter("speed_of_sound", "speed of sound", "m/s", 1.0, True, (200.0, 1e4), 1e-6, 0.02, 0.03),
        Parameter("time_zero", LATE, "ns", 1e-9, False, (-1e-3, 1e-3), 1e-11, 0.5, 5.0),
        Parameter("attenuation_db_cm_mhz", "attenuation", "dB/cm/MHz", 1.0, False, (0.0, HIGHEST), 1e-4, 0.2, 0.5),
    )
}


DELAY_DOUBT = 0.25  # periods, of the delay of an element
DELAY_LIMIT = 0.1


@dataclass(frozen=True)
class Values:
    """The shared numbers of a calibration, SI: a point at which the simulator is asked.

    Attributes
    ----------
    center_frequency, bandwidth : float
        Of the probe, Hz and a fraction.
    n_cycles : float
        Length of the excitation in periods of the center frequency.
    pulse_phase : float
        rad, added to the phase of the simulated pulse.
    speed_of_sound, attenuation_db_cm_mhz : float
        Of the medium.
    time_zero : float
        s by which echoes come later than the recording's clock says.
    """

    center_frequency: float
    bandwidth: float
    n_cycles: float
    pulse_phase: float
    speed_of_sound: float
    time_zero: float
    attenuation_db_cm_mhz: float

    @classmethod
    def of(cls, acquisition: Acquisition) -> Values:
        """Return what an acquisition says, as the start of a fit."""
        probe, medium = acquisition.probe, acquisition.medium
        return cls(
            probe.center_frequency,
            probe.bandwidth,
            acquisition.n_cycles,
            0.0,
            medium.speed_of_sound,
            0.0,
            medium.attenuation_db_cm_mhz,
        )

    def get(self, name: str) -> float:
        """Return a number as it is fitted."""
        value = getattr(self, name)
        return math.log(value) if PARAMETERS[name].logarithmic else value

    def put(self, fitted: dict[str, float]) -> Values:
        """Return these numbers with some replaced, given as they are fitted."""
        return replace(
            self,
            **{name: math.exp(v) if PARAMETERS[name].logarithmic else float(v) for name, v in fitted.items()},
        )


def fitted_bounds(name: str) -> tuple[float, float]:
    """Return the bounds of a number as it is fitted."""
    parameter = PARAMETERS[name]
    low, high = parameter.bounds
    return (math.log(low), math.log(high)) if parameter.logarithmic else (low, high)


def fitted_names(acquisition: Acquisition) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the numbers that a recording of this acquisition may tell, and the others with the reason.

    Whoever gives a waveform or an impulse response has measured it: it is not fitted over.
    """
    held: dict[str, str] = {}
    if acquisition.waveform is not None or acquisition.frequency_sweep is not None:
        held["n_cycles"] = "the file gives the excitation"
    if acquisition.impulse_response is not None:
        held["bandwidth"] = "the file gives the impulse response"
        held["center_frequency"] = "the file gives the impulse response"
    return tuple(name for name in PARAMETERS if name not in held), held


def acquisition_at(nominal: Acquisition, values: Values) -> Acquisition:
    """Return the acquisition with these numbers; what fired, and when, stays (see `fixed_firing`)."""
    probe = replace(nominal.probe, center_frequency=values.center_frequency, bandwidth=values.bandwidth)
    medium = Medium(values.speed_of_sound, max(values.attenuation_db_cm_mhz, 0.0))
    own = nominal.waveform is not None or nominal.frequency_sweep is not None
    return replace(nominal, probe=probe, medium=medium, n_cycles=nominal.n_cycles if own else values.n_cycles)


@dataclass(frozen=True)
class Belief:
    """Belief held before the recording: the file's values, and how wrong they may be.

    Attributes
    ----------
    center : Values
        The file's.
    period : float
        Of its center frequency, s.
    """

    center: Values
    period: float

    def doubts(self, names: tuple[str, ...]) -> np.ndarray:
        """Return (n_names,) standard deviations of numbers as they are fitted."""
        return np.array([PARAMETERS[n].doubt * (self.period if n == "time_zero" else 1.0) for n in names])

    def limits(self, names: tuple[str, ...]) -> np.ndarray:
        """Return (n_names,) two standard deviations with which numbers are told, as they are fitted."""
        return np.array([PARAMETERS[n].limit * (self.period if n == "time_zero" else 1.0) for n in names])

    def off(self, values: Values, names: tuple[str, ...]) -> np.ndarray:
        """Return (n_names,) how many standard deviations numbers are from the file's."""
        distance: np.ndarray = np.array([values.get(n) - self.center.get(n) for n in names]) / self.doubts(names)
        return distance
