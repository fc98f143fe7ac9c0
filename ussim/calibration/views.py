"""The echoes of wires in a recording: a window about each, by wire and transmit (a view) and element."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np

from ..acquisition import Acquisition
from ..arrays import to_numpy
from ..arrivals import arrival_times
from ..engines import get_engine
from ..engines.reference import Geometry, transmitted_pressure
from ..plan import Plan, make_plan
from ..transmits import CustomTransmits
from ..types import RFData

MOST_TRANSMITS = 5  # of each wire: more say nothing new and cost as much as the first
WINDOW_TAIL = 3e-3  # of the pulse's energy (relative L2) that may lie outside a window
MARGIN = 1.0  # periods on either side, for what the start does not know
FAINTEST = 0.1  # of a wire's strongest element, in the simulator: below, an echo tells little and clutter much


@dataclass(frozen=True, eq=False)
class Views:
    """Windows of a recording.

    Attributes
    ----------
    wire, transmit : np.ndarray
        (n_views,) which wire each view sees, and in which transmit.
    first : np.ndarray
        (n_views, n_elements) first sample of each window.
    samples : np.ndarray
        (n_views, n_elements, n_window) float64, 0 where not used.
    used : np.ndarray
        (n_views, n_elements) bool: inside the record, loud enough, and alone there.
    heard : np.ndarray
        (n_views, n_laws, n_elements) bool: the firing elements whose waves reach the wire in time for its windows. The waves
        of others, which make the edge waves of a plane wave, come later.
    """

    wire: np.ndarray
    transmit: np.ndarray
    first: np.ndarray
    samples: np.ndarray
    used: np.ndarray
    heard: np.ndarray

    @property
    def n_wires(self) -> int:
        """Number of wires."""
        return int(self.wire.max()) + 1

    def without(self, wires: np.ndarray) -> Views:
        """Return the views of the other wires, renumbered."""
        kept = ~np.isin(self.wire, wires)
        number = np.cumsum(~np.isin(np.arange(self.n_wires), wires)) - 1
        return Views(number[self.wire[kept]], *(getattr(self, f.name)[kept] for f in fields(self) if f.name != "wire"))


def fixed_firing(acquisition: Acquisition) -> Acquisition:
    """Return the acquisition with its firing times as given numbers: a scanner's delays do not follow the medium."""
    waves = CustomTransmits(acquisition.transmit_delays, acquisition.transmit_weights)
    n_sub = make_plan(acquisition).sub_x.shape[1]  # or it would jump with the band, and the misfit with it
    return replace(acquisition, waves=waves, n_subelements=n_sub)


def echo_times(acquisition: Acquisition, x: np.ndarray, z: np.ndarray, speed_of_sound: float) -> np.ndarray:
    """Return (n_transmits, n_wires, n_elements) s, when echoes of points have the middle of their pulse."""
    probe = acquisition.probe
    there = arrival_times(acquisition, x, z, speed_of_sound, get_engine("reference").arrival_bounds)
    back = np.hypot(x[:, None] - probe.element_x, z[:, None] - probe.element_z) / speed_of_sound
    times = there[:, :, None] + back
    arrivals: np.ndarray = times if acquisition.receive_delays is None else times + acquisition.receive_delays
    return arrivals


def lateness(acquisition: Acquisition, x: np.ndarray, z: np.ndarray, speed_of_sound: float) -> np.ndarray:
    """Return (n_transmits, n_wires, n_laws, n_elements) s, how long after a transmit's wave each element's passes points.

    Infinite of elements that do not fire.
    """
    probe = acquisition.probe
    there = arrival_times(acquisition, x, z, speed_of_sound, get_engine("reference").arrival_bounds)
    way = np.hypot(x[:, None] - probe.element_x, z[:, None] - probe.element_z) / speed_of_sound
    late = acquisition.transmit_delays[:, None] + way[:, None, :] - there[:, :, None, None]
    return np.where(np.isnan(late), np.inf, late)


def window_length(acquisition: Acquisition, sampling_frequency: float) -> int:
    """Return the samples of a window: the two-way pulse and a margin."""
    half = make_plan(acquisition).pulse_half_length(0.0, WINDOW_TAIL)
    half += MARGIN / acquisition.probe.center_frequency
    return 2 * math.ceil(half * sampling_frequency)


def choose_transmits(acquisition: Acquisition, x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (wire, transmit) of the views: of each wire the transmits that reach it, a few, spread over the sequence."""
    level = transmitted_level(acquisition, x, z)  # (n_transmits, n_wires)
    wires, transmits = [], []
    for k in range(len(x)):
        reached = np.flatnonzero(level[:, k] > 0.5 * level[:, k].max())
        some = np.linspace(0, len(reached) - 1, min(MOST_TRANSMITS, len(reached))).round().astype(int)
        transmits += reached[some].tolist()
        wires += [k] * len(some)
    return np.array(wires), np.array(transmits)


def cut(
    rf: RFData, acquisition: Acquisition, x: np.ndarray, z: np.ndarray, speed_of_sound: float, time_zero: float
) -> Views:
    """Cut the windows about the echoes of wires at x, z (m), which come `time_zero` s after the clock says."""
    rate, record = rf.sampling_frequency, np.asarray(to_numpy(rf.samples), dtype=np.float64)
    n_window, n_samples = window_length(acquisition, rate), record.shape[-1]
    wire, transmit = choose_transmits(acquisition, x, z)
    times = echo_times(acquisition, x, z, speed_of_sound) + time_zero
    position = (times - rf.start_times[:, None, None]) * rate  # samples
    level = received_level(acquisition, x, z)  # (n_wires, n_elements)
    middle = position[transmit, wire]
    first = np.rint(middle).astype(int) - n_window // 2
    used = (first >= 0) & (first + n_window <= n_samples) & (level >= FAINTEST * level.max(axis=1, keepdims=True))[wire]
    used &= acquisition.receiving[transmit]
    used &= apart(position, wire, transmit) > n_window
    index = np.clip(first[:, :, None], 0, n_samples - n_window) + np.arange(n_window)
    samples = record[transmit[:, None, None], np.arange(first.shape[1])[None, :, None], index]
    late = lateness(acquisition, x, z, speed_of_sound)[transmit, wire]
    heard = late <= n_window / rate - MARGIN / acquisition.probe.center_frequency
    return Views(wire, transmit, first, np.where(used[:, :, None], samples, 0.0), used, heard)


def apart(times: np.ndarray, wire: np.ndarray, transmit: np.ndarray) -> np.ndarray:
    """Return (n_views, n_elements), how far the nearest other wire is in times (n_transmits, n_wires, n_elements)."""
    nearest = np.full((len(wire), times.shape[-1]), np.inf)
    for v, (k, a) in enumerate(zip(wire, transmit, strict=True)):
        others = np.delete(times[a], k, axis=0)
        if len(others):
            nearest[v] = np.abs(others - times[a, k]).min(axis=0)
    return nearest


def background(rf: RFData, views: Views) -> float:
    """Return the RMS of the record away from the windows; NaN where there is nothing else."""
    record = np.asarray(to_numpy(rf.samples), dtype=np.float64)
    elsewhere = np.ones(record.shape, dtype=bool)
    n_window = views.samples.shape[-1]
    for v, a in enumerate(views.transmit):
        for e in range(record.shape[1]):
            start = views.first[v, e]
            elsewhere[a, e, max(0, start - n_window // 2) : max(0, start + 3 * n_window // 2)] = False
    rest = record[np.unique(views.transmit)][elsewhere[np.unique(views.transmit)]]
    return (
        float(np.sqrt(np.median(rest**2) / 0.4549)) if rest.size else math.nan
    )  # of Gaussian noise; echoes do not count


def transmitted_level(acquisition: Acquisition, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return (n_transmits, n_wires), the magnitude at the center frequency of each transmit at points."""
    plan, frequency = make_plan(acquisition), acquisition.probe.center_frequency
    strength: np.ndarray = np.abs(transmitted_pressure(plan, _response(plan, x, z), frequency))
    return strength


def received_level(acquisition: Acquisition, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return (n_wires, n_elements), the magnitude at the center frequency with which elements hear points."""
    strength: np.ndarray = np.abs(_response(make_plan(acquisition), x, z))
    return strength


def _response(plan: Plan, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    return Geometry(plan, x, z).response(plan.acquisition.probe.center_frequency)
