"""The pressure of a transmit as it travels: what `pressure_field` is the RMS of, at points and times of one's choice.

    p(t) = Σ_e w_e A_e / √r_e h(t - τ_e - r_e / c; r_e)        h(t; r) = 2 Re Σ_f S B exp(-κ r - 2πi f t) df

The model of `physics` (Garcia 2022) with the sum over frequency done first: h is a pulse of one way, worn by attenuation,
from a table. Where the directivity depends on the frequency the sum is that of the reference engine, frequency by frequency.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import physics
from .acquisition import Acquisition
from .doors import own
from .engines.reference import Geometry, pressure_frequencies, transmitted_pressure
from .plan import Plan, make_plan
from .probes import one_row
from .reach import check_reach
from .types import ImageGrid, one_plane

THRESHOLD_DB = -60.0  # spectral components below it, relative to the strongest, are left out
BLOCK = 2**20  # of (points, sub-elements) at once
FINE = (
    64  # samples of the table of pulses per period of the highest frequency: straight lines err by 3e-4 there at most
)
WEAR = 0.05  # nepers between two pulses of the table, at the highest frequency: straight lines err by 3e-4
MOST_PULSES = 4096
TAIL = 3e-4  # of a pulse's height: what is lower at its ends is left out
MOST_BYTES = 4e9  # of the result


def wave_field(
    acquisition: Acquisition,
    grid: ImageGrid,
    times: ArrayLike,
    transmit: int = 0,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Compute the pressure of one transmit at some times.

    On the CPU, in float64; what `pressure_field` gives is the root of this pressure's square, integrated over time.

    Parameters
    ----------
    acquisition : Acquisition
        Probe, waves, medium and sampling.
    grid : ImageGrid
        Points of the field, m.
    times : array_like
        (n_times,) s, on the clock of the transmit delays: an element fires the middle of its pulse at its delay.
    transmit : int
        Its number, from 0; 0 by default.
    progress : callable, optional
        Called with the parts done and their total.

    Returns
    -------
    np.ndarray
        (n_times, nz, nx) float32, in the unit of `pressure_field` per square root of a second; 0 behind the array.

    Raises
    ------
    ValueError
        A value is out of range, or the wave is a continuous one.
    """
    n_transmits = acquisition.n_transmits
    if isinstance(transmit, bool) or int(transmit) != transmit or not 0 <= transmit < n_transmits:
        raise ValueError(f"transmit: expected a number of 0 to {n_transmits - 1}, got {transmit!r}")
    if acquisition.is_continuous:
        raise ValueError("n_cycles: a continuous wave (inf) has a pressure_field only: expected a finite number here")
    moments = own("times", times)
    if moments.ndim != 1 or moments.size == 0 or not np.isfinite(moments).all():
        raise ValueError(f"times: expected finite times in s, (n_times,), got {times!r}")
    if 4.0 * moments.size * math.prod(grid.shape) > MOST_BYTES:
        raise ValueError(
            f"times: expected at most {MOST_BYTES / 4:.3g} values in all, got {moments.size} times on a grid of {grid.shape}"
        )
    one_row(acquisition.probe, "wave_field")
    one_plane(grid, "wave_field")
    check_reach("grid", grid.x, grid.z, acquisition)
    plan = make_plan(acquisition)
    x, z = (axis.ravel() for axis in grid.mesh())
    front = np.flatnonzero(~acquisition.probe.is_behind(x, z))
    field = np.zeros((moments.size, x.size), np.float32)
    if front.size and plan.weights[transmit].any():
        scale = 2 * math.sqrt(acquisition.probe.element_width / 2)
        block = max(1, BLOCK // plan.sub_x.size)
        pulses = _make_pulses(plan, x[front], z[front])
        for first in range(0, front.size, block):
            part = front[first : first + block]
            if acquisition.full_frequency_directivity:
                field[:, part] = scale * _literal(plan, transmit, x[part], z[part], moments)
            else:
                field[:, part] = scale * _superposed(plan, transmit, x[part], z[part], moments, pulses)
            if progress is not None:
                progress(min(first + block, front.size), front.size)
    return field.reshape(-1, *grid.shape)


def crossing_times(acquisition: Acquisition, grid: ImageGrid, n_times: int, transmit: int = 0) -> np.ndarray:
    """Return times from the first firing of a transmit until its wave has left a grid.

    Parameters
    ----------
    acquisition : Acquisition
        Probe, waves and medium.
    grid : ImageGrid
        Points of the field, m.
    n_times : int
        How many, evenly spread.
    transmit : int
        Its number, from 0.

    Returns
    -------
    np.ndarray
        (n_times,) s.
    """
    plan, probe = make_plan(acquisition), acquisition.probe
    speed, pulse = acquisition.medium.speed_of_sound, plan.pulse_half_length(0.0) / 2  # of one way
    fired, element = np.nonzero(plan.weights[transmit])
    if fired.size == 0:
        return np.linspace(0.0, float(grid.z[-1]) / speed, n_times)
    delays = plan.delays[transmit][fired, element]
    way = np.hypot(grid.x[:, None] - probe.element_x[element], grid.z[-1] - probe.element_z[element])
    return np.linspace(float(delays.min()), float((delays + way / speed).min(axis=1).max()) + pulse, n_times)


class _Pulses(NamedTuple):
    """The pulse of one way after some distances.

    table : (n_distances, n_times), from -half_length on, `rate` samples per second; 0 at both ends.
    spacing : m between two distances, the first of which is 0.
    """

    table: np.ndarray
    half_length: float
    rate: float
    spacing: float


def _make_pulses(plan: Plan, x: np.ndarray, z: np.ndarray) -> _Pulses:
    """Tabulate the pulse as far as it travels."""
    medium = plan.acquisition.medium
    low, high = plan.band(THRESHOLD_DB)
    half, rate = plan.pulse_half_length(0.0), FINE * high
    longest = plan.longest_distance(x, z)
    n = min(
        max(2, math.ceil(physics.attenuation(high, medium.attenuation_db_cm_mhz) * longest / WEAR) + 1), MOST_PULSES
    )
    step = 1 / (4 * half)
    frequency = np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step
    n_half = math.ceil(half * rate)
    times = np.arange(-n_half, n_half + 1) / rate
    worn = np.exp(-physics.attenuation(frequency, medium.attenuation_db_cm_mhz) * np.linspace(0, longest, n)[:, None])
    spectrum = plan.excitation(frequency) * worn * step
    table = (spectrum @ np.exp(-2j * np.pi * frequency[:, None] * times)).real
    heard = np.flatnonzero((np.abs(table) > TAIL * np.abs(table).max()).any(axis=0))
    n_half = min(n_half, int(np.abs(heard - n_half).max()) + 1)
    table = table[:, len(times) // 2 - n_half : len(times) // 2 + n_half + 1]
    table[:, [0, -1]] = 0
    return _Pulses(table, n_half / rate, rate, longest / (n - 1))


def _superposed(
    plan: Plan, transmit: int, x: np.ndarray, z: np.ndarray, times: np.ndarray, pulses: _Pulses
) -> np.ndarray:
    """Return the sum of the sub-elements' pulses (n_times, n_points), the factor of 2 √(width / 2) left out."""
    geometry, n_sub, speed = Geometry(plan, x, z), plan.sub_x.shape[1], plan.acquisition.medium.speed_of_sound
    order = np.argsort(times)
    ordered = times[order]
    field = np.zeros(len(x) * len(times))
    for weights, delays in zip(plan.weights[transmit], plan.delays[transmit], strict=True):  # foci that fire together
        fired = np.flatnonzero(weights)
        distance = geometry.distance[:, fired].ravel()
        amplitude = (geometry.amplitude[:, fired] * weights[fired, None]).ravel()
        arrival = np.tile(np.repeat(delays[fired], n_sub), len(x)) + distance / speed
        point = np.repeat(np.arange(len(x)), fired.size * n_sub)
        moment = np.searchsorted(ordered, arrival - pulses.half_length)
        left = np.flatnonzero(moment < len(times))
        while left.size:
            late = ordered[moment[left]] - arrival[left]
            left, late = left[late < pulses.half_length], late[late < pulses.half_length]
            value = amplitude[left] * _looked_up(pulses, late, distance[left])
            field += np.bincount(moment[left] * len(x) + point[left], value, field.size)
            moment[left] += 1
            left = left[moment[left] < len(times)]
    unordered = np.empty((len(times), len(x)))
    unordered[order] = field.reshape(len(times), -1)
    return unordered


def _looked_up(pulses: _Pulses, time: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Return the pulses at some times and distances, by straight lines between those of the table."""
    n_distances, n_times = pulses.table.shape
    row, column = distance / pulses.spacing, (time + pulses.half_length) * pulses.rate
    i, j = np.minimum(row.astype(int), n_distances - 2), np.minimum(column.astype(int), n_times - 2)
    u, v = row - i, column - j
    flat, place = pulses.table.ravel(), i * n_times + j
    near: np.ndarray = (1 - v) * flat[place] + v * flat[place + 1]
    if n_distances == 2 and (pulses.table[0] == pulses.table[1]).all():
        return near
    far = (1 - v) * flat[place + n_times] + v * flat[place + n_times + 1]
    looked_up: np.ndarray = (1 - u) * near + u * far
    return looked_up


def _literal(plan: Plan, transmit: int, x: np.ndarray, z: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return what `_superposed` does, frequency by frequency."""
    frequency, step = pressure_frequencies(plan, x, z, THRESHOLD_DB)
    geometry = Geometry(plan, x, z)
    field = np.zeros((len(times), len(x)))
    seen = np.flatnonzero(_is_under_way(plan, transmit, x, z, times))
    for f in frequency:
        pressure = transmitted_pressure(plan, geometry.response(f), f)[transmit]
        field[seen] += step * (np.exp(-2j * np.pi * f * times[seen, None]) * pressure).real
    return field


def _is_under_way(plan: Plan, transmit: int, x: np.ndarray, z: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return which times are after the first firing and before the last arrival: others are those of another period."""
    earliest, latest = (float(each[transmit]) for each in plan.firing_times)
    half = plan.pulse_half_length(0.0)
    arrival = latest + plan.longest_distance(x, z) / plan.acquisition.medium.speed_of_sound
    under_way: np.ndarray = (times > earliest - half) & (times < arrival + half)
    return under_way
