"""The fit: the shared numbers and the wires' positions by least squares through the simulator.

Echo of wire k on element e in transmit a: a_k g_e p_kae(t - d_e), with p of the simulator (`Model`). Amplitudes a and
gains g are linear and solved inside (variable projection; Golub & Pereyra 1973, with Kaufman's Jacobian), so that the outer
fit has the shared numbers and two coordinates per wire only. Delays d_e of single elements come last, with all others free
again, by Gauss-Newton steps on the whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.fft import irfft
from scipy.optimize import least_squares

from ..plan import make_plan
from ..transmits import CustomTransmits
from .model import Model
from .parameters import DELAY_DOUBT, Belief, Values, acquisition_at, fitted_bounds

REACH = 5.0  # wavelengths that a wire may move from where it was found
ROUNDS = 30  # of amplitudes and gains in turn
SHARED_STEPS = 25  # of the outer fit, which need not end: the joint one follows
JOINT_STEPS = 8
SMALLEST_DAMPING, LARGEST_DAMPING = 1e-5, 1e4  # of the diagonal
FINE = 4  # lags per sample
DEAD = 0.1  # of the median gain: an element below hears nothing


@dataclass(frozen=True, eq=False)
class State:
    """A point of the fit.

    Attributes
    ----------
    values : Values
        The shared numbers.
    x, z : np.ndarray
        (n_wires,) positions, m.
    amplitudes : np.ndarray
        (n_wires,) of the echoes.
    gains : np.ndarray
        (n_elements,) mean 1 over the elements that are alive; NaN where nothing was heard that could tell.
    delays : np.ndarray
        (n_elements,) s by which an element's echoes come late, mean 0.
    """

    values: Values
    x: np.ndarray
    z: np.ndarray
    amplitudes: np.ndarray
    gains: np.ndarray
    delays: np.ndarray

    @property
    def alive(self) -> np.ndarray:
        """(n_elements,) bool: elements that hear."""
        gains = np.nan_to_num(np.abs(self.gains))
        alive: np.ndarray = gains > DEAD * np.median(gains[gains > 0])
        return alive

    def vector(self, names: tuple[str, ...], scale: float) -> np.ndarray:
        """Return the numbers named, then x and z in units of `scale`."""
        vector: np.ndarray = np.r_[[self.values.get(name) for name in names], self.x / scale, self.z / scale]
        return vector

    def moved(self, vector: np.ndarray, names: tuple[str, ...], scale: float) -> State:
        """Return the state at a `vector`."""
        m, n = len(names), len(self.x)
        values = self.values.put(dict(zip(names, vector[:m], strict=True)))
        return replace(self, values=values, x=vector[m : m + n] * scale, z=vector[m + n :] * scale)


def solve_linear(model: Model, echoes: np.ndarray, start: State) -> tuple[np.ndarray, np.ndarray]:
    """Return amplitudes and gains that fit the windows best, given the echoes of unit ones: in turn, until they stay."""
    views = model.views
    energy = (echoes**2).sum(axis=-1)  # (n_views, n_elements)
    overlap = (echoes * views.samples).sum(axis=-1)
    gains = np.nan_to_num(start.gains)
    amplitudes = start.amplitudes
    for _ in range(ROUNDS):
        before = amplitudes
        top, bottom = np.zeros(views.n_wires), np.zeros(views.n_wires)
        np.add.at(top, views.wire, (gains * overlap).sum(axis=1))
        np.add.at(bottom, views.wire, (gains**2 * energy).sum(axis=1))
        amplitudes = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
        each = amplitudes[views.wire][:, None]
        bottom = (each**2 * energy).sum(axis=0)
        gains = np.divide((each * overlap).sum(axis=0), bottom, out=np.zeros_like(bottom), where=bottom > 0)
        if np.abs(amplitudes - before).max() <= 1e-10 * np.abs(amplitudes).max():
            break
    loud = np.abs(gains) > DEAD * np.median(np.abs(gains[gains != 0])) if gains.any() else gains != 0
    mean = gains[loud].mean() if loud.any() else 1.0
    mean = mean or 1.0
    return amplitudes * mean, np.where(bottom > 0, gains / mean, np.nan)


def with_delays(model: Model, delays: np.ndarray) -> Model:
    """Return the model of elements that are late by `delays` s (beyond the acquisition's own)."""
    given = model.acquisition.receive_delays
    acquisition = replace(model.acquisition, receive_delays=delays if given is None else given + delays)
    return model.of(acquisition)


def shared_fit(model: Model, state: State, names: tuple[str, ...], belief: Belief) -> State:
    """Return the state with the shared numbers and the positions fitted, amplitudes and gains solved inside."""
    strength = math.sqrt(misfit_of(model, state) / model.count)  # of the noise, which a start can only overrate
    known = np.c_[np.diag(strength / belief.doubts(names)), np.zeros((len(names), 2 * len(state.x)))]
    scale = model.scale
    low, high = (np.array([fitted_bounds(name)[i] for name in names]) for i in (0, 1))
    low = np.r_[low, state.x / scale - REACH, state.z / scale - REACH]
    high = np.r_[high, state.x / scale + REACH, state.z / scale + REACH]
    used = np.broadcast_to(model.views.used[:, :, None], model.views.samples.shape)
    latest = {"state": state}

    def misfit(vector: np.ndarray) -> np.ndarray:
        moved = state.moved(vector, names, scale)
        echoes = model.echoes(moved.values, moved.x, moved.z)
        amplitudes, gains = solve_linear(model, echoes, latest["state"])
        latest["state"] = replace(moved, amplitudes=amplitudes, gains=gains)
        misfit: np.ndarray = np.r_[
            residual(model, echoes, latest["state"])[used], strength * belief.off(moved.values, names)
        ]
        return misfit

    def slope(vector: np.ndarray) -> np.ndarray:
        moved = state.moved(vector, names, scale)
        jacobian = Jacobian.of(model, replace(latest["state"], values=moved.values, x=moved.x, z=moved.z), names)
        rows: np.ndarray = np.r_[jacobian.projected(used), known]
        return rows

    start = np.clip(state.vector(names, scale), low + 1e-9, high - 1e-9)
    found = least_squares(
        misfit, start, slope, bounds=(low, high), x_scale="jac", max_nfev=SHARED_STEPS, xtol=1e-6, ftol=1e-4
    )
    misfit(found.x)
    return latest["state"]


def residual(model: Model, echoes: np.ndarray, state: State) -> np.ndarray:
    """Return (n_views, n_elements, n_window), predicted minus recorded."""
    views = model.views
    factor = state.amplitudes[views.wire][:, None] * np.nan_to_num(state.gains)
    difference: np.ndarray = factor[:, :, None] * echoes - views.samples
    return difference


@dataclass(frozen=True, eq=False)
class Jacobian:
    """Derivatives of the predicted windows at a state.

    Attributes
    ----------
    shared : np.ndarray
        (n_views, n_elements, n_window, n_names) in the shared numbers.
    x, z : np.ndarray
        (n_views, n_elements, n_window) in the position of each view's own wire, per wavelength.
    amplitude, gain, delay : np.ndarray
        (n_views, n_elements, n_window) in its own wire's amplitude, its own element's gain and delay (periods).
    residual : np.ndarray
        (n_views, n_elements, n_window) predicted minus recorded.
    wire : np.ndarray
        (n_views,) of each view.
    """

    shared: np.ndarray
    x: np.ndarray
    z: np.ndarray
    amplitude: np.ndarray
    gain: np.ndarray
    delay: np.ndarray
    residual: np.ndarray
    wire: np.ndarray

    @classmethod
    def of(cls, model: Model, state: State, names: tuple[str, ...]) -> Jacobian:
        """Return the Jacobian of a model at a state."""
        echoes, by = model.derivatives(state.values, state.x, state.z, names)
        gains = np.nan_to_num(state.gains)[None, :, None]
        amplitudes = state.amplitudes[model.views.wire][:, None, None]
        factor, scale = amplitudes * gains, model.scale
        period = 1 / model.acquisition.probe.center_frequency
        shared = np.stack([factor * by[name] for name in names], axis=-1)
        return cls(
            shared,
            factor * by["x"] * scale,
            factor * by["z"] * scale,
            gains * echoes,
            amplitudes * echoes,
            factor * by["later"] * period,
            residual(model, echoes, state),
            model.views.wire,
        )

    def columns(self, *per_wire: np.ndarray) -> np.ndarray:
        """Return (n_views, n_elements, n_window, n_names + n_wires * len(per_wire)): the shared, then each wire's own."""
        n_wires, m = int(self.wire.max()) + 1, self.shared.shape[-1]
        full = np.zeros((*self.residual.shape, m + n_wires * len(per_wire)))
        full[..., :m] = self.shared
        views = np.arange(len(self.wire))
        for i, own in enumerate(per_wire):
            full[views, :, :, m + i * n_wires + self.wire] = own
        return full

    def projected(self, used: np.ndarray) -> np.ndarray:
        """Return (n_used, n_names + 2 n_wires): derivatives without what amplitudes and gains can make up for (Kaufman)."""
        full = self.columns(self.x, self.z, self.amplitude)
        norm = np.sqrt((self.gain**2).sum(axis=(0, 2)))
        unit = self.gain / np.where(norm > 0, norm, 1.0)[None, :, None]
        full -= unit[..., None] * np.einsum("vew,vewp->ep", unit, full)[None, :, None, :]
        rows = full[used]
        n_wires = int(self.wire.max()) + 1
        rest, amplitude = rows[:, :-n_wires], rows[:, -n_wires:]
        basis, weight, _ = np.linalg.svd(amplitude, full_matrices=False)
        basis = basis[:, weight > 1e-8 * weight[0]] if weight[0] > 0 else basis[:, :0]
        remainder: np.ndarray = rest - basis @ (basis.T @ rest)
        return remainder


@dataclass(frozen=True, eq=False)
class Normal:
    """The normal equations of all unknowns: shared numbers, x and z (wavelengths), amplitudes, gains, delays (periods).

    Attributes
    ----------
    matrix : np.ndarray
        (n, n) of second derivatives, J^T J.
    gradient : np.ndarray
        (n,) J^T residual.
    constraints : np.ndarray
        (m, n) rows that a step must be orthogonal to: gains keep their mean, delays theirs.
    n_shared, n_wires, n_elements : int
        How the unknowns are laid out.
    gains, delays : np.ndarray
        Elements whose gains and delays are among the unknowns.
    """

    matrix: np.ndarray
    gradient: np.ndarray
    constraints: np.ndarray
    n_shared: int
    n_wires: int
    n_elements: int
    gains: np.ndarray
    delays: np.ndarray

    @classmethod
    def of(
        cls,
        jacobian: Jacobian,
        state: State,
        names: tuple[str, ...],
        with_delays: bool,
        belief: Belief,
        variance: float,
    ) -> Normal:
        """Assemble them, with what is known beforehand beside noise of a variance."""
        full = jacobian.columns(jacobian.x, jacobian.z, jacobian.amplitude)
        n_wires, p = len(state.x), full.shape[-1]
        heard = (jacobian.gain**2).sum(axis=(0, 2)) > 0
        gains = np.flatnonzero(heard)
        delays = np.flatnonzero(heard & state.alive) if with_delays else np.zeros(0, dtype=int)
        n = p + len(gains) + len(delays)
        matrix, gradient = np.zeros((n, n)), np.zeros(n)
        flat = full.transpose(1, 0, 2, 3).reshape(full.shape[1], -1, p)
        matrix[:p, :p] = np.einsum("erp,erq->pq", flat, flat, optimize=True)
        gradient[:p] = np.einsum("vewp,vew->p", full, jacobian.residual)
        at = p
        blocks = []
        for own, elements in ((jacobian.gain, gains), (jacobian.delay, delays)):
            column = own[:, elements]
            here = at + np.arange(len(elements))
            cross = np.einsum("vewp,vew->pe", full[:, elements], column)
            matrix[:p, here], matrix[here, :p] = cross, cross.T
            matrix[here, here] = (column**2).sum(axis=(0, 2))
            gradient[here] = (column * jacobian.residual[:, elements]).sum(axis=(0, 2))
            blocks.append((elements, here))
            at += len(elements)
        both = np.isin(gains, delays)
        g, d = blocks[0][1][both], blocks[1][1]
        mixed = (jacobian.gain[:, delays] * jacobian.delay[:, delays]).sum(axis=(0, 2))
        matrix[g, d] = matrix[d, g] = mixed
        shared = np.arange(len(names))
        matrix[shared, shared] += variance / belief.doubts(names) ** 2
        gradient[shared] += variance * belief.off(state.values, names) / belief.doubts(names)
        matrix[d, d] += variance / DELAY_DOUBT**2
        gradient[d] += variance * state.delays[delays] / belief.period / DELAY_DOUBT**2
        rows = [np.where(np.isin(np.arange(n), blocks[0][1][state.alive[gains]]), 1.0, 0.0)]
        if len(delays):
            rows.append(np.where(np.isin(np.arange(n), d), 1.0, 0.0))
        return cls(
            matrix, gradient, np.array(rows), jacobian.shared.shape[-1], n_wires, len(state.gains), gains, delays
        )

    def inverse(self, damping: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Return the covariance for noise of variance 1, and the eigenvalues of the matrix scaled to a diagonal of 1.

        `damping` is added to that diagonal (Levenberg & Marquardt). Directions that nothing tells get a very large variance.
        """
        size = np.sqrt(np.maximum(np.diag(self.matrix), 1e-300))
        scaled = self.matrix / np.outer(size, size)
        rows = self.constraints / size
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        # the null space of the constraints carries everything that may vary
        _, _, basis = np.linalg.svd(rows, full_matrices=True)
        free = basis[len(rows) :].T
        weight, vectors = np.linalg.eigh(free.T @ scaled @ free)
        inner = (vectors / np.maximum(weight + damping, 1e-14)) @ vectors.T
        covariance = free @ inner @ free.T / np.outer(size, size)
        return covariance, weight

    def step(self, damping: float) -> np.ndarray:
        """Return the Gauss-Newton step, damped."""
        step: np.ndarray = -self.inverse(damping)[0] @ self.gradient
        return step


def joint_fit(model: Model, state: State, names: tuple[str, ...], delays: bool, belief: Belief) -> tuple[State, Model]:
    """Return the state with all unknowns fitted together, delays too if asked, and the model that has the delays."""
    best = model if not state.delays.any() else with_delays(model, state.delays)
    variance = misfit_of(best, state) / model.count

    def cost_of(model: Model, state: State) -> float:
        known = (belief.off(state.values, names) ** 2).sum()
        known += ((state.delays / belief.period / DELAY_DOUBT) ** 2).sum() if delays else 0.0
        total: float = misfit_of(model, state) + variance * known
        return total

    cost, damping = cost_of(best, state), 0.0
    for _ in range(JOINT_STEPS):
        normal = Normal.of(Jacobian.of(best, state, names), state, names, delays, belief, variance)
        while damping < LARGEST_DAMPING:
            moved = _stepped(state, normal.step(damping), normal, names, model)
            changed = with_delays(model, moved.delays) if delays else model
            new = cost_of(changed, moved)
            if new <= cost:
                damping = damping / 10 if damping > SMALLEST_DAMPING else 0.0
                break
            damping = max(SMALLEST_DAMPING, 30 * damping)
        else:
            break
        gain = cost - new
        state, best, cost = moved, changed, new
        if gain < 1e-7 * cost:
            break
    return state, best


def _stepped(state: State, step: np.ndarray, normal: Normal, names: tuple[str, ...], model: Model) -> State:
    m, n = normal.n_shared, normal.n_wires
    low, high = (np.array([fitted_bounds(name)[i] for name in names]) for i in (0, 1))
    vector = state.vector(names, model.scale) + step[: m + 2 * n]
    vector[:m] = np.clip(vector[:m], low, high)
    moved = state.moved(vector, names, model.scale)
    p = m + 3 * n
    gains, delays = state.gains.copy(), state.delays.copy()
    gains[normal.gains] += step[p : p + len(normal.gains)]
    delays[normal.delays] += step[p + len(normal.gains) :] / model.acquisition.probe.center_frequency
    return replace(moved, amplitudes=state.amplitudes + step[m + 2 * n : p], gains=gains, delays=delays)


def misfit_of(model: Model, state: State) -> float:
    """Return the sum of squares of predicted minus recorded."""
    return float((residual(model, model.echoes(state.values, state.x, state.z), state) ** 2).sum())


def fresh_state(model: Model, values: Values, x: np.ndarray, z: np.ndarray) -> State:
    """Return a state whose amplitudes and gains are those of elements that are all alike."""
    n_elements = model.acquisition.probe.n_elements
    state = State(values, x, z, np.ones(len(x)), np.ones(n_elements), np.zeros(n_elements))
    amplitudes, gains = solve_linear(model, model.echoes(values, x, z), state)
    return replace(state, amplitudes=amplitudes, gains=gains)


def subdivided(model: Model, state: State) -> Model:
    """Return the model with elements divided as the simulator does at a state; within a fit that stays, or it would jump."""
    free = replace(acquisition_at(model.acquisition, state.values), n_subelements=None)
    n_sub = make_plan(free).sub_x.shape[1]
    return model.of(replace(model.acquisition, n_subelements=n_sub))


def with_transmit_gains(model: Model, state: State) -> Model:
    """Return the model whose elements send as well as they hear: firing weights times the gains, dead ones silent."""
    acquisition = model.acquisition
    gains = np.where(state.alive, np.nan_to_num(state.gains, nan=1.0), 0.0)
    waves = CustomTransmits(acquisition.transmit_delays, acquisition.transmit_weights * gains)
    return model.of(replace(acquisition, waves=waves))


def aligned(model: Model, state: State) -> State:
    """Return the state with each element's delay where its echoes match best, within a period: no slip by one can last."""
    views = model.views
    now = with_delays(model, state.delays)
    echoes = now.echoes(state.values, state.x, state.z) * state.amplitudes[views.wire][:, None, None]
    n = 2 * views.samples.shape[-1]
    both = np.fft.rfft(views.samples, n) * np.conj(np.fft.rfft(echoes, n))
    match = irfft(both.sum(axis=0), FINE * n, axis=-1)  # (n_elements, lags)
    period = FINE * model.sampling_frequency / model.acquisition.probe.center_frequency
    lags = np.arange(-math.ceil(period), math.ceil(period) + 1)
    near = match[:, lags]
    delays = state.delays + np.where(near.max(axis=1) > 0, lags[near.argmax(axis=1)], 0) / (
        FINE * model.sampling_frequency
    )
    alive = state.alive
    common = float(delays[alive].mean())  # of all: that is the clock
    delays = np.where(alive, delays - common, 0.0)
    moved = replace(state, delays=delays, values=replace(state.values, time_zero=state.values.time_zero + common))
    now = with_delays(model, delays)
    amplitudes, gains = solve_linear(now, now.echoes(moved.values, state.x, state.z), moved)
    return replace(moved, amplitudes=amplitudes, gains=gains)


def without_others(model: Model, state: State, recorded: np.ndarray) -> Model:
    """Return the model beside the recorded windows less what other wires' edge waves put there, as simulated at a state."""
    now = with_delays(model, state.delays)
    own = residual(now, now.echoes(state.values, state.x, state.z), state) + now.views.samples
    everything = now.record(state.values, state.x, state.z, state.amplitudes, state.gains)
    return model.seeing(recorded - (everything - own))
