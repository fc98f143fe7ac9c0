"""`ussim.calibrate`: a recording in, a calibration out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..acquisition import Acquisition
from ..errors import DataError
from ..probes import one_row
from ..types import IQData, RFData
from . import fit
from .findings import Estimate
from .model import Model
from .parameters import DELAY_LIMIT, PARAMETERS, Belief, Values, acquisition_at, fitted_names
from .recording import as_rf, usable_band
from .result import Calibration, field_of, fitted_acquisition
from .start import from_arrivals, from_spectrum
from .views import background, cut, fixed_firing
from .wires import Wires, find_wires

PHANTOMS = ("wires", "speckle")
FEWEST_CHANNELS = 0.02  # of the windows, below which a wire is no wire
EXPLAINED = 0.5  # of a wire's energy, at least: a point's echoes are those of a point
ASTRAY = 0.4  # periods: arrivals of a point fit a point better than that
ROUNDS = 5
SETTLED = 1e-3  # relative change of the misfit between rounds
STRONG = 0.9  # correlation that is worth a word
EXCESS = 1.5  # of the misfit over the noise: the model lacks something


def calibrate(
    data: RFData | IQData,
    phantom: str = "wires",
    *,
    name: str | None = None,
    element_delays: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Calibration:
    """Fit probe, pulse, medium and clock to a recording, by least squares through the simulator.

    Of a phantom of wires (or of points): center frequency, bandwidth, length and phase of the pulse, speed of sound, time
    zero, attenuation, and the gain and the delay of each element, those that are dead among them. Of speckle: center
    frequency, bandwidth and attenuation from spectra, speed of sound from focusing, gains. What the recording does not tell
    is named, and not better than what the file says of it.

    Parameters
    ----------
    data : RFData or IQData
        One record; what its acquisition says is the start, and holds for all that is not fitted: geometry, firing times.
    phantom : str
        "wires" or "speckle".
    name : str, optional
        Of the probe fitted; the recording's with "-calibrated" by default.
    element_delays : bool
        Fit the delay of each element too ("wires").
    progress : callable, optional
        Called with words for what is being done.

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError
        `phantom` is of no known name.
    DataError
        There is nothing in the recording to calibrate on.
    """
    one_row(data.acquisition.probe, "calibrate")
    if phantom not in PHANTOMS:
        raise ValueError(f"phantom: expected one of {', '.join(PHANTOMS)}, got {phantom!r}")
    rf = as_rf(data)
    say = progress or (lambda words: None)
    name = f"{rf.acquisition.probe.name}-calibrated" if name is None else name
    replace(rf.acquisition.probe, name=name)  # a name that cannot be is told before the work
    if phantom == "speckle":
        from .speckle import calibrate_speckle

        return calibrate_speckle(rf, usable_band(data), name, say)
    return _Wires.of(rf, say).calibration(name, element_delays, say)


@dataclass(frozen=True, eq=False)
class _Wires:
    """A recording of wires, ready to be fitted."""

    rf: RFData
    nominal: Acquisition  # firing times as numbers
    found: Wires
    start: Values
    model: Model
    state: fit.State

    @classmethod
    def of(cls, rf: RFData, say: Callable[[str], None]) -> _Wires:
        """Find the wires, and where the fit starts."""
        say("looking for wires")
        nominal = fixed_firing(rf.acquisition)
        found = find_wires(rf)
        if not len(found.x):
            raise DataError(
                "recording: expected wires, bright points that stand out, found none (speckle? --phantom speckle)"
            )
        start, x, z = Values.of(nominal), found.x, found.z
        say(f"fitting the arrivals of {len(x)} bright points")
        values, x, z, astray = from_arrivals(rf, nominal, x, z)
        if (astray > ASTRAY).any():
            kept = astray <= ASTRAY
            if not kept.any():
                raise DataError("recording: expected wires, found bright points whose echoes are not those of a point")
            values, x, z, _ = from_arrivals(rf, nominal, found.x[kept], found.z[kept])
        views = cut(rf, nominal, x, z, values.speed_of_sound, values.time_zero)
        lone = np.array([k for k in range(len(x)) if views.used[views.wire == k].mean() < FEWEST_CHANNELS], dtype=int)
        views, x, z = views.without(lone), np.delete(x, lone), np.delete(z, lone)
        names, _ = fitted_names(nominal)
        while True:
            if not len(x):
                raise DataError("recording: expected wires, found bright points whose echoes are not those of a point")
            model = Model(nominal, views, rf.start_times, rf.sampling_frequency)
            fitted = from_spectrum(model, values, x, z, names)
            state = fit.aligned(model, fit.fresh_state(model, fitted, x, z))
            share = _explained(fit.with_delays(model, state.delays), state)
            strangers = np.flatnonzero(share < EXPLAINED)
            if not len(strangers):
                return cls(rf, nominal, found, start, model, state)
            worst = strangers[[np.argmin(share[strangers])]]
            views, x, z = views.without(worst), np.delete(x, worst), np.delete(z, worst)

    def calibration(self, of: str, element_delays: bool, say: Callable[[str], None]) -> Calibration:
        """Fit, hold what the recording does not tell, and fit the rest again."""
        names, held = fitted_names(self.nominal)
        belief = Belief(self.start, 1 / self.nominal.probe.center_frequency)
        say(f"fitting the echoes of {len(self.state.x)} wires on {self.nominal.probe.n_elements} elements")
        state = self.state if element_delays else replace(self.state, delays=np.zeros_like(self.state.delays))
        state = fit.shared_fit(fit.with_delays(self.model, state.delays), state, names, belief)
        say("fitting everything at once")
        fitted = _rounds(self.model, state, names, element_delays, belief)
        spread = _Spread.of(fitted, names, element_delays, belief)
        return self._result(of, fitted, spread, names, held, element_delays, element_delays and spread.tells_delays())

    def _result(
        self,
        name: str,
        fitted: _Fitted,
        spread: _Spread,
        names: tuple[str, ...],
        held: dict[str, str],
        asked: bool,
        element_delays: bool,
    ) -> Calibration:
        """Return the calibration; delays of elements were `asked` for, and are told."""
        state, nominal = fitted.state, self.nominal
        values = _turned(state)
        estimates = {}
        for parameter in PARAMETERS.values():
            value, start = getattr(values, parameter.name), getattr(self.start, parameter.name)
            uncertainty = spread.of_value(parameter.name, value) if parameter.name in names else math.nan
            estimates[parameter.name] = Estimate(
                parameter.name,
                parameter.words,
                value,
                uncertainty,
                start,
                parameter.unit,
                parameter.per_unit,
                held.get(parameter.name, ""),
                parameter.name in names and parameter.name not in spread.untold(),
            )
        dead = np.flatnonzero(~state.alive & np.isfinite(state.gains))
        delays = np.where(state.alive, state.delays, np.nan) if element_delays else np.full(len(state.gains), np.nan)
        phase = values.pulse_phase
        if "pulse_phase" not in names or abs(phase) < estimates["pulse_phase"].uncertainty:
            phase = 0.0
        at = acquisition_at(nominal, values)
        acquisition = fitted_acquisition(
            self.rf.acquisition, at, phase, delays, dead, name, field_of(self.found.grid, nominal)
        )
        level = math.sqrt((fitted.model.views.samples**2).sum() / fitted.model.count)
        misfit = math.sqrt(spread.variance) / level
        noise = background(self.rf, fitted.model.views) / level
        correlated = spread.correlated()
        untold = _untold(self, fitted, estimates, held, correlated, misfit, noise, asked, element_delays)
        start_time = np.array(self.rf.start_times) - values.time_zero
        return Calibration(
            phantom="wires",
            estimates=estimates,
            gains=state.gains,
            gain_uncertainty=spread.gains,
            delays=delays,
            delay_uncertainty=spread.delays if element_delays else np.full(len(state.gains), np.nan),
            dead=dead,
            wires=np.stack([state.x, state.z], axis=1),
            correlated=correlated,
            cannot_tell=untold,
            misfit=misfit,
            noise=noise,
            recording=self.rf.acquisition,
            start_time=start_time,
            acquisition=acquisition,
            pictures={
                "rf": self.rf,
                "found": self.found,
                "model": fitted.model,
                "state": state,
                "residual": fit.residual(fitted.model, fitted.model.echoes(state.values, state.x, state.z), state),
                "sends_as_hears": fitted.both_ways,
            },
        )


@dataclass(frozen=True, eq=False)
class _Fitted:
    """The end of a fit."""

    model: Model  # beside the recorded windows less what other wires put there; with the elements' delays
    state: fit.State
    both_ways: bool  # whether elements send as they hear
    cost: float


def _rounds(model: Model, state: fit.State, names: tuple[str, ...], delays: bool, belief: Belief) -> _Fitted:
    """Fit everything at once, again and again, as others' edge waves and the sent weights follow from the state."""
    recorded, last, both_ways = model.views.samples, math.inf, True
    for i in range(ROUNDS):
        base = fit.subdivided(model, state)
        choices = (True, False) if i == 1 else (both_ways,)
        tried = []
        for both in choices:
            sending = fit.with_transmit_gains(base, state) if both else base
            beside = fit.without_others(sending, state, recorded)
            start = fit.aligned(beside, state) if delays and i == 0 else state
            moved, best = fit.joint_fit(beside, start, names, delays, belief)
            tried.append(_Fitted(best, moved, both, fit.misfit_of(best, moved)))
        fitted = min(tried, key=lambda one: one.cost)
        state, both_ways = fitted.state, fitted.both_ways
        if i > 1 and abs(last - fitted.cost) < SETTLED * fitted.cost:
            break
        last = fitted.cost
    return fitted


def _explained(model: Model, state: fit.State) -> np.ndarray:
    """(n_wires,) share of each wire's energy that the model explains."""
    residual = fit.residual(model, model.echoes(state.values, state.x, state.z), state)
    left, whole = np.zeros(len(state.x)), np.zeros(len(state.x))
    np.add.at(left, model.views.wire, (residual**2).sum(axis=(1, 2)))
    np.add.at(whole, model.views.wire, (model.views.samples**2).sum(axis=(1, 2)))
    return 1 - left / np.maximum(whole, 1e-300)


def _turned(state: fit.State) -> Values:
    """Return the shared numbers, the phase in (-180, 180] degrees with most amplitudes above 0: a phase of 180 is a sign."""
    phase = state.values.pulse_phase + (math.pi if state.amplitudes.sum() < 0 else 0.0)
    return replace(state.values, pulse_phase=math.pi - (math.pi - phase) % (2 * math.pi))


@dataclass(frozen=True, eq=False)
class _Spread:
    """Uncertainties at the end of a fit: the noise that is left through the inverse of the normal equations.

    The noise counts as it is where the echoes are: its spectrum weighted by theirs, so that noise of a narrow band (an
    oversampled recording) does not look smaller than it is.
    """

    names: tuple[str, ...]
    covariance: np.ndarray
    weights: np.ndarray  # eigenvalues of the normal matrix scaled to a diagonal of 1
    variance: float
    gains: np.ndarray  # (n_elements,) two standard deviations
    delays: np.ndarray  # s
    belief: Belief

    @classmethod
    def of(cls, fitted: _Fitted, names: tuple[str, ...], delays: bool, belief: Belief) -> _Spread:
        """Work them out; of numbers that are held, what the file may be wrong by counts."""
        state, model = fitted.state, fitted.model
        jacobian = fit.Jacobian.of(model, state, names)
        signal = np.abs(np.fft.rfft(jacobian.residual + model.views.samples, axis=-1)) ** 2
        left = np.abs(np.fft.rfft(jacobian.residual, axis=-1)) ** 2
        weight = signal.sum(axis=(0, 1))
        density = left.sum(axis=(0, 1)) / model.count
        n_unknown = len(names) + 3 * len(state.x) + 2 * len(state.gains)
        variance = float((weight * density).sum() / weight.sum()) * model.count / max(model.count - n_unknown, 1)
        normal = fit.Normal.of(jacobian, state, names, delays, belief, variance)
        inverse, weights = normal.inverse()
        covariance = inverse * variance
        deviation = 2 * np.sqrt(np.diag(covariance))
        n_elements, p = len(state.gains), normal.n_shared + 3 * len(state.x)
        gains, late = np.full(n_elements, np.nan), np.full(n_elements, np.nan)
        gains[normal.gains] = deviation[p : p + len(normal.gains)]
        late[normal.delays] = deviation[p + len(normal.gains) :] * belief.period
        return cls(names, covariance, weights, variance, gains, late, belief)

    def deviation(self, name: str) -> float:
        """Two standard deviations of a number as it is fitted."""
        i = self.names.index(name)
        return 2 * math.sqrt(max(self.covariance[i, i], 0.0))

    def of_value(self, name: str, value: float) -> float:
        """Two standard deviations of a number in its own unit."""
        return self.deviation(name) * (abs(value) if PARAMETERS[name].logarithmic else 1.0)

    def untold(self) -> tuple[str, ...]:
        """Return the numbers that the recording does not tell well enough."""
        limits = self.belief.limits(self.names)
        return tuple(n for n, limit in zip(self.names, limits, strict=True) if not self.deviation(n) <= limit)

    def tells_delays(self) -> bool:
        """Return whether delays of elements are told well enough, most of them."""
        told = self.delays[np.isfinite(self.delays)]
        return bool(told.size) and float(np.median(told)) <= DELAY_LIMIT * self.belief.period

    def words(self, name: str) -> str:
        """Return the uncertainty of a number in words."""
        parameter, deviation = PARAMETERS[name], self.deviation(name)
        if parameter.logarithmic:
            return f"{100 * deviation:.3g} %" if deviation < 10 else "any value"
        return f"{deviation / parameter.per_unit:.3g} {parameter.unit}"

    def correlated(self) -> tuple[tuple[str, str, float], ...]:
        """Pairs of shared numbers of a strong correlation."""
        n = len(self.names)
        size = np.sqrt(np.diag(self.covariance)[:n])
        matrix = self.covariance[:n, :n] / np.outer(size, size)
        pairs = [(i, j) for i in range(n) for j in range(i) if abs(matrix[i, j]) > STRONG]
        return tuple((self.names[j], self.names[i], float(matrix[i, j])) for i, j in pairs)


def _untold(
    wires: _Wires,
    fitted: _Fitted,
    estimates: dict[str, Estimate],
    held: dict[str, str],
    correlated: tuple[tuple[str, str, float], ...],
    misfit: float,
    noise: float,
    asked: bool,
    element_delays: bool,
) -> tuple[str, ...]:
    """Return what the recording could not tell, in sentences."""
    state = fitted.state
    lines = []
    for name, reason in held.items():
        lines.append(f"{PARAMETERS[name].words}: held, {reason}")
    for estimate in estimates.values():
        if not (estimate.told or estimate.held):
            start = estimate.start / estimate.per_unit
            lines.append(f"{estimate.words}: no better than {estimate.span}, the {start:.6g} of the file considered")
    if asked and not element_delays:
        lines.append("delays of single elements from the rest")
    for one, other, value in correlated:
        lines.append(
            f"{PARAMETERS[one].words} and {PARAMETERS[other].words} move together (correlation {value:+.2f}): "
            "their combination is known better than each"
        )
    lines.append("a delay that all elements share (a lens) from the time zero of the file: they are one number here")
    lines.append("the phase of a wire's reflection from the phase of the pulse")
    lines.append("element width, baffle, pitch and elevation: held as the file has them")
    unheard = np.flatnonzero(~np.isfinite(state.gains))
    if len(unheard):
        lines.append(f"gains of elements {', '.join(map(str, unheard))}: no echo reached them")
    gone = len(wires.found.x) - len(state.x)
    if gone:
        lines.append(f"{gone} of {len(wires.found.x)} bright points: their echoes are not those of a point")
    if noise > 0 and misfit > EXCESS * noise:
        lines.append(
            f"why the misfit ({100 * misfit:.2g} % of the echoes) is {misfit / noise:.1f} times the noise elsewhere: the "
            "recording holds what the model lacks, and the uncertainties, which come from the misfit, may be too small"
        )
    return tuple(lines)
