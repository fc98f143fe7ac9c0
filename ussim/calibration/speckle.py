"""Calibration on speckle: spectra of the channels, and the speed of sound that focuses best.

Of scatterers that lie anywhere, an element hears at each time the power of all that are as far, each with the spectrum
|S B² T_a G_e|² of the model (T_a the field of transmit a, G_e the way back). The simulator gives T and G at points spread
over the field; fitted are S and B by their magnitude, and attenuation by how the spectrum sinks over time. Phases are those
of chance, and tell nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import median_filter
from scipy.optimize import least_squares
from scipy.stats import t as student

from .. import physics
from ..acquisition import Acquisition
from ..arrays import to_numpy
from ..beamform import delay_and_sum
from ..demodulation import demodulate
from ..engines.reference import Geometry
from ..errors import DataError
from ..plan import make_plan
from ..types import ImageGrid, IQData, RFData
from .findings import Estimate
from .parameters import PARAMETERS, Belief, Values, acquisition_at, fitted_names
from .result import Calibration, field_of, fitted_acquisition
from .views import fixed_firing
from .wires import image_grid

GATE_PERIODS = 24.0  # length of a gate in periods
GATES = 12
POINTS = 600  # at which the simulator is asked for the field
GROUPS = 8  # of neighboring elements, each fitted apart: their scatter is the uncertainty
WINDOW_POWER = np.array([1, 4, 1]) / 6  # of the gates' Hann window, at neighboring frequencies
FLOOR = 10 ** (-15 / 10)  # of a gate's strongest frequency, below which noise and side lobes of the window count
CLEAR = 3.0  # times the noise
FEWEST_BINS = 6  # of a gate, or it is left out
SPEEDS = np.linspace(0.94, 1.06, 13)  # of the file's
FINER = np.linspace(-0.012, 0.012, 9)  # about the best of them
OFF_FOCUS = 1e-3  # by which speckle may be brightest beside the speed of sound
STRIPES = 8  # of the image, each focused apart
DEAD_RMS = 0.25  # of the neighbors' RMS
# What the spectra's model leaves out, two standard deviations as fitted: seen on simulated speckle (tests).
MODEL_ERROR = {"center_frequency": 0.01, "bandwidth": 0.02, "attenuation_db_cm_mhz": 0.03}
UNTOLD = {"speed_of_sound": "this speckle is as bright at any speed (it takes several transmits)"}
FITTED = ("center_frequency", "bandwidth", "attenuation_db_cm_mhz")


@dataclass(frozen=True, eq=False)
class Spectra:
    """Power spectra of gates.

    Attributes
    ----------
    frequency : np.ndarray
        (n_frequencies,) Hz.
    time : np.ndarray
        (n_gates,) s, their middles on the recording's clock.
    power : np.ndarray
        (n_gates, n_elements, n_frequencies), mean over the transmits.
    """

    frequency: np.ndarray
    time: np.ndarray
    power: np.ndarray


def calibrate_speckle(rf: RFData, band: tuple[float, float], name: str, say: Callable[[str], None]) -> Calibration:
    """Calibrate on a recording of speckle whose spectrum is whole within a band, Hz.

    Raises
    ------
    DataError
        The record is too short.
    """
    nominal = fixed_firing(rf.acquisition)
    start = Values.of(nominal)
    belief = Belief(start, 1 / nominal.probe.center_frequency)
    grid = image_grid(rf)
    say("measuring spectra")
    spectra = gated_spectra(rf, band)
    gains, gain_spread, dead = channel_gains(spectra)
    field = expected_field(nominal, spectra, grid)
    names = tuple(n for n in fitted_names(nominal)[0] if n in FITTED)
    held = {n: reason for n, reason in fitted_names(nominal)[1].items()}
    held["pulse_phase"] = "speckle has no phase"
    held["time_zero"] = "speckle looks alike at all depths"
    held.setdefault("n_cycles", "one spectrum does not tell it from the bandwidth")
    say("focusing at several speeds of sound")
    speed, speed_spread, sharpness = best_speed(rf, grid)
    say(f"fitting spectra of {len(spectra.time)} depths")
    focused = replace(start, speed_of_sound=speed)
    values, spread, fits = fit_spectra(
        spectra, field, nominal, focused, names, np.setdiff1d(np.arange(len(gains)), dead)
    )
    spread["speed_of_sound"] = speed_spread / speed
    estimates, cannot = _estimates(values, start, spread, held, belief)
    delays = np.full(len(gains), np.nan)
    at = acquisition_at(nominal, values)
    acquisition = fitted_acquisition(rf.acquisition, at, 0.0, delays, dead, name, field_of(grid, nominal))
    model, level = fits
    misfit = float(np.sqrt(np.mean((model[level] - np.log(_mean(spectra))[level]) ** 2)))
    return Calibration(
        phantom="speckle",
        estimates=estimates,
        gains=gains,
        gain_uncertainty=gain_spread,
        delays=delays,
        delay_uncertainty=delays.copy(),
        dead=dead,
        wires=np.zeros((0, 2)),
        correlated=(),
        cannot_tell=cannot,
        misfit=misfit,
        noise=math.nan,
        recording=rf.acquisition,
        start_time=np.array(rf.start_times),
        acquisition=acquisition,
        pictures={"rf": rf, "grid": grid, "spectra": spectra, "model": model, "level": level, "sharpness": sharpness},
    )


def _mean(spectra: Spectra) -> np.ndarray:
    mean: np.ndarray = spectra.power.mean(axis=1)
    return mean


# --- spectra ---------------------------------------------------------------------------------------------------------


def gated_spectra(rf: RFData, band: tuple[float, float]) -> Spectra:
    """Return the power spectra of gates that follow each other, in a band, Hz."""
    rate, center = rf.sampling_frequency, rf.acquisition.probe.center_frequency
    record = np.asarray(to_numpy(rf.samples), dtype=np.float64)
    length = round(GATE_PERIODS / center * rate)
    start = float(np.max(rf.start_times))
    latest = float(np.nanmax(rf.acquisition.transmit_delays))
    first = max(
        0, math.ceil((latest + 12 / center - start) * rate)
    )  # after all have fired: what comes before is no echo
    count = (record.shape[-1] - first) // length
    if count < 3:
        raise DataError(
            f"recording: expected speckle over at least {3 * length} samples after the last firing, got "
            f"{max(0, record.shape[-1] - first)}"
        )
    window = np.hanning(length + 2)[1:-1]
    starts = first + length * np.unique(np.linspace(0, count - 1, min(GATES, count)).round().astype(int))
    frequency = np.fft.rfftfreq(length, 1 / rate)
    inside = np.flatnonzero((frequency > max(band[0], 0.1 * center)) & (frequency < min(band[1], 1.95 * center)))
    power = np.stack(
        [
            (np.abs(np.fft.rfft(record[..., s : s + length] * window, axis=-1)[..., inside]) ** 2).mean(axis=0)
            for s in starts
        ]
    )
    return Spectra(frequency[inside], start + (starts + length / 2) / rate, power)


def expected_field(nominal: Acquisition, spectra: Spectra, grid: ImageGrid) -> np.ndarray:
    """Return (n_gates, n_frequencies), the power |T G|² that the simulator gives for points anywhere in the field."""
    speed = nominal.medium.speed_of_sound
    plain = replace(nominal, medium=replace(nominal.medium, attenuation_db_cm_mhz=0.0))
    plan = make_plan(plain)
    rng = np.random.default_rng(0)
    x = rng.uniform(grid.x[0], grid.x[-1], POINTS)
    z = np.sort(rng.uniform(grid.z[0], grid.z[-1], POINTS))
    geometry = Geometry(plan, x, z)
    step = spectra.time[1] - spectra.time[0]
    gate = np.clip(np.searchsorted(spectra.time + step / 2, 2 * z / speed), 0, len(spectra.time) - 1)
    power = np.zeros((len(spectra.time), len(spectra.frequency)))
    for i, f in enumerate(spectra.frequency):
        response = geometry.response(f)
        fired = (plan.weights * np.exp(2j * np.pi * f * plan.delays)).sum(axis=1)
        sent = (np.abs(fired @ response.T) ** 2).sum(axis=0)
        np.add.at(power[:, i], gate, sent * (np.abs(response) ** 2).sum(axis=1))
    shape = power.sum(axis=0)  # a gate without a point has the shape of all
    return np.where(power.sum(axis=1, keepdims=True) > 0, power, shape)


def fit_spectra(
    spectra: Spectra,
    field: np.ndarray,
    nominal: Acquisition,
    start: Values,
    names: tuple[str, ...],
    alive: np.ndarray,
) -> tuple[Values, dict[str, float], tuple[np.ndarray, np.ndarray]]:
    """Return the values, two standard deviations of those fitted (as fitted), and the spectra fitted to all elements.

    The level of each gate is free (gain over time, depth of the focus), and so is a white floor of noise.
    """
    path = start.speed_of_sound * spectra.time  # there and back

    def model(values: Values, noise: float, power: np.ndarray, level: np.ndarray) -> np.ndarray:
        plan = make_plan(acquisition_at(nominal, values))
        with np.errstate(over="ignore"):
            band = np.abs(plan.excitation(spectra.frequency) * plan.response(spectra.frequency)) ** 2
        loss = physics.attenuation(spectra.frequency, values.attenuation_db_cm_mhz)
        shape = np.maximum(band * field * np.exp(-2 * loss * path[:, None]), 1e-300)
        shape = shape / shape.max(axis=1, keepdims=True)
        around = np.pad(shape, ((0, 0), (1, 1)), mode="edge")
        shape = WINDOW_POWER[0] * around[:, :-2] + WINDOW_POWER[1] * shape + WINDOW_POWER[2] * around[:, 2:]
        # powers scatter by as much as they are: each counts by its inverse
        top = np.where(level, (power - noise) / power, 0.0).sum(axis=1)
        height = np.maximum(top / np.maximum(np.where(level, shape / power, 0.0).sum(axis=1), 1e-300), 1e-300)
        logarithm: np.ndarray = np.log(height[:, None] * shape + noise)
        return logarithm

    def fitted(power: np.ndarray, values: Values, share: float) -> tuple[Values, float, np.ndarray, np.ndarray]:
        ground = noise_level(power)
        level = power > np.maximum(FLOOR * power.max(axis=1, keepdims=True), CLEAR * ground)
        level &= level.sum(axis=1, keepdims=True) >= FEWEST_BINS
        if level.any(axis=1).sum() < 2:
            raise DataError("recording: expected speckle over the noise at two depths or more, got noise")

        def misfit(p: np.ndarray) -> np.ndarray:
            moved = values.put(dict(zip(names, p[:-1], strict=True)))
            logarithms: np.ndarray = (model(moved, ground * math.exp(p[-1]), power, level) - np.log(power))[level]
            return logarithms

        low = [math.log(0.5 * values.center_frequency), math.log(0.05), 0.0]
        high = [math.log(2.0 * values.center_frequency), math.log(1.9), 10.0]
        bounds = {n: (a, b) for n, a, b in zip(FITTED, low, high, strict=True)}
        lower, upper = np.array([*(bounds[n] for n in names), (-3.0, 1.0)]).T
        first = np.clip(np.r_[[values.get(n) for n in names], share], lower + 1e-6, upper - 1e-6)
        found = least_squares(misfit, first, bounds=(lower, upper), diff_step=1e-4, x_scale=0.1, max_nfev=40)
        moved = values.put(dict(zip(names, found.x[:-1], strict=True)))
        return moved, float(found.x[-1]), model(moved, ground * math.exp(found.x[-1]), power, level), level

    values, floor, logs, level = fitted(spectra.power[:, alive].mean(axis=1), start, 0.0)
    groups = np.array_split(alive, min(GROUPS, len(alive)))
    each = [fitted(spectra.power[:, group].mean(axis=1), values, floor)[0] for group in groups]
    spread = {}
    for n in names:
        found = np.array([one.get(n) for one in each])
        spread[n] = math.hypot(_interval(found), MODEL_ERROR[n])
    return values, spread, (logs, level)


def noise_level(power: np.ndarray) -> float:
    """Return the power where there is least of it: of noise that is the same at all times and frequencies."""
    return float(np.quantile(power, 0.02))


def _interval(found: np.ndarray) -> float:
    """Half the 95 % interval of the mean of values found apart."""
    if len(found) < 3:
        return math.inf
    return float(student.ppf(0.975, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found)))


# --- focusing --------------------------------------------------------------------------------------------------------


def best_speed(rf: RFData, grid: ImageGrid) -> tuple[float, float, np.ndarray]:
    """Return the speed of sound at which speckle is brightest, m/s, its uncertainty, and the curve (2, n_speeds).

    The image follows the speed in depth, so that the same echoes count at each (Nock, Trahey & Smith 1989).
    """
    speed = rf.acquisition.medium.speed_of_sound
    wavelength = speed / rf.acquisition.probe.center_frequency
    half = min(abs(float(rf.acquisition.probe.element_x[0])), float(grid.x[-1])) * 0.8
    columns = max(STRIPES * 4, min(128, round(2 * half / wavelength)))
    rows = max(32, min(256, round((grid.z[-1] - grid.z[0]) / (wavelength / 2))))
    x = np.linspace(-half, half, columns)
    z = np.linspace(max(grid.z[0], 8 * wavelength), grid.z[-1], rows)
    iq = demodulate(rf)
    coarse = _brightness(iq, x, z, SPEEDS * speed)
    first = _peak(SPEEDS, np.log(coarse.mean(axis=0)))
    if not math.isfinite(first):
        return speed, math.inf, np.stack([SPEEDS * speed, coarse.mean(axis=0)])
    fine = first + FINER
    close = _brightness(iq, x, z, fine * speed)
    found = np.array([_peak(fine, np.log(row)) for row in close])
    whole = _peak(fine, np.log(close.mean(axis=0)))
    inside = np.isfinite(found)
    curve = np.stack([SPEEDS * speed, coarse.mean(axis=0)])
    if not math.isfinite(whole) or inside.sum() < STRIPES // 2:
        return speed * first, math.inf, curve
    return speed * whole, speed * math.hypot(_interval(found[inside]), OFF_FOCUS), curve


def _brightness(iq: IQData, x: np.ndarray, z: np.ndarray, speeds: np.ndarray) -> np.ndarray:
    """(n_stripes, n_speeds), the mean power of the image in stripes, deep rows counting as much as shallow ones."""
    nominal = iq.acquisition.medium.speed_of_sound
    found, level = [], None
    for speed in speeds:
        grid = ImageGrid(x=x, z=z * speed / nominal)
        image = delay_and_sum(iq, grid, 1.0, transmit_weights=None, normalize=True, speed_of_sound=float(speed))
        power = np.abs(to_numpy(image)) ** 2
        level = np.maximum(power.mean(axis=1, keepdims=True), 1e-30) if level is None else level
        found.append([part.mean() for part in np.array_split(power / level, STRIPES, axis=1)])
    return np.array(found).T


def _peak(at: np.ndarray, values: np.ndarray) -> float:
    """Place of the highest value by a parabola through what is near it; NaN at an end."""
    top = int(np.argmax(values))
    if not 1 < top < len(at) - 2:
        return math.nan
    part = slice(top - 2, top + 3)
    bend, slope, _ = np.polyfit(at[part] - at[top], values[part], 2)
    return float(at[top] - slope / (2 * bend)) if bend < 0 else math.nan


# --- elements --------------------------------------------------------------------------------------------------------


def channel_gains(spectra: Spectra) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return gains (n_elements,) beside those of neighbors, two standard deviations, and the numbers of dead elements."""
    ground = noise_level(spectra.power.mean(axis=1)) * len(spectra.frequency)
    power = spectra.power.sum(axis=2)  # (n_gates, n_elements)
    clear = np.median(power, axis=1) > CLEAR * ground
    if clear.sum() < 2:
        raise DataError("recording: expected speckle over the noise at two depths or more, got noise")
    level = np.sqrt(np.maximum(power[clear] - ground, 0.0))
    wide = 2 * min(6, (level.shape[1] - 1) // 2) + 1
    relative = level / np.maximum(median_filter(level, (1, wide), mode="mirror"), 1e-300)
    gains = np.median(relative, axis=0)
    dead = np.flatnonzero(gains < DEAD_RMS)
    alive = np.setdiff1d(np.arange(len(gains)), dead)
    mean = gains[alive].mean() if len(alive) else 1.0
    spread = (
        student.ppf(0.975, len(level) - 1) * relative.std(axis=0, ddof=1) / math.sqrt(len(level)) * 1.25
    )  # of a median
    return gains / mean, spread / mean, dead


# --- words -----------------------------------------------------------------------------------------------------------


def _estimates(
    values: Values, start: Values, spread: dict[str, float], held: dict[str, str], belief: Belief
) -> tuple[dict[str, Estimate], tuple[str, ...]]:
    """Return the numbers, and what speckle cannot tell."""
    estimates, cannot = {}, []
    for p in PARAMETERS.values():
        reason = held.get(p.name, "")
        value, first = getattr(values, p.name), getattr(start, p.name)
        told = False
        uncertainty = math.nan
        if not reason:
            deviation = spread[p.name]
            told = bool(deviation <= belief.limits((p.name,))[0])
            if not math.isfinite(deviation) or deviation > 4 * belief.doubts((p.name,))[0]:
                reason, value = UNTOLD.get(p.name, "the recording does not tell it"), first
            else:
                uncertainty = deviation * (abs(value) if p.logarithmic else 1.0)
        estimates[p.name] = Estimate(p.name, p.words, value, uncertainty, first, p.unit, p.per_unit, reason, told)
        if reason:
            cannot.append(f"{p.words}: held, {reason}")
        elif not told:
            cannot.append(f"{p.words}: no better than {estimates[p.name].span}")
    cannot += [
        "the scatterers' own spectrum from that of the probe: they are taken for points",
        "bandwidth from the length of the excitation: the bandwidth is that which goes with the file's excitation",
        "speed of sound from time zero: the speed is that which goes with the file's clock",
        "the part of attenuation that all frequencies share from a gain over time",
        "delays of single elements",
        "gains of many elements together, as an aperture that fades to its ends: gains are beside the neighbors'",
        "element width, baffle, pitch and elevation: held as the file has them",
    ]
    return estimates, tuple(cannot)
