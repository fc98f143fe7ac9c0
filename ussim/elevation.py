"""Beam in elevation as the fast engines take it: how finely its spectrum is sampled, how long its echoes last. Float64.

The beam (`physics.elevation_beam`) is a smooth function of the frequency for each element and scatterer. Engines evaluate
it and its slope at the ends and in the middle of segments of consecutive frequencies, and take the polynomial of degree
five through those (Hermite) between. How long a segment may be, and by how much the beam lengthens an echo, is found here by
trying, over a lattice of distances and elevations.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from functools import cache
from threading import Lock
from typing import NamedTuple

import numpy as np

from . import physics
from .numerics import fast_length
from .plan import Plan

SEGMENT_ERROR = 5e-5  # of a segment's polynomial, of the largest field at that elevation
SPREAD_TAIL = 3e-5  # energy that may lie outside the spread, relative L2 (as `plan.PULSE_TAIL`)
DISTANCE_STEP = 1.3  # ratio of neighboring distances of the lattice
N_DISTANCES = 32  # from `Plan.minimum_distance`: three decades and a half; beyond, the last one serves
HEIGHT_PARTS = 4  # steps of the lattice's elevations over an element's height
N_STEPS = 512  # of the band
LENGTHS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)  # of segments, in those steps
KEPT = 8  # beams remembered


class Reach(NamedTuple):
    """Demands of the beam on boxes, each (n_boxes, n_elements)."""

    early: np.ndarray  # s, at most 0: by how much an echo begins before its distance says, one way
    late: np.ndarray  # s, at least 0: and ends after
    segment: np.ndarray  # Hz, longest


class _Row(NamedTuple):
    """The lattice at one elevation, each (N_DISTANCES,)."""

    early: np.ndarray
    late: np.ndarray
    segment: np.ndarray


class Beam:
    """The beam in elevation of an acquisition."""

    def __init__(self, plan: Plan) -> None:
        assert plan.lens is not None
        self._plan, self._lens = plan, plan.lens
        self._step = plan.lens.height / HEIGHT_PARTS
        self._distance = plan.minimum_distance * DISTANCE_STEP ** np.arange(N_DISTANCES)
        self._half_length = plan.pulse_half_length(0.0)
        self._rows: dict[int, _Row] = {}

    def reach(self, nearest: np.ndarray, y_low: np.ndarray, y_high: np.ndarray) -> Reach:
        """Bounds over boxes of points, for each element.

        Parameters
        ----------
        nearest : (n_boxes, n_elements) m, no point of a box is closer to an element.
        y_low, y_high : (n_boxes, 1) m, elevations of one sign between which its points lie.
        """
        first = np.searchsorted(self._distance, np.maximum(nearest, self._distance[0]), side="right") - 1
        low = np.maximum(np.floor(y_low[:, 0] / self._step), 0).astype(int)
        high = np.ceil(y_high[:, 0] / self._step).astype(int)
        early, late, segment = np.zeros(first.shape), np.zeros(first.shape), np.full(first.shape, np.inf)
        for part in set(zip(low.tolist(), high.tolist(), strict=True)):
            these = (low == part[0]) & (high == part[1])
            for number in range(part[0], part[1] + 1):
                row, at = self._row(number), first[these]
                early[these] = np.minimum(early[these], row.early[at])
                late[these] = np.maximum(late[these], row.late[at])
                segment[these] = np.minimum(segment[these], row.segment[at])
        return Reach(early, late, segment)

    def levels(
        self, frequency: np.ndarray, nearest: np.ndarray, y_low: np.ndarray, y_high: np.ndarray
    ) -> Iterator[np.ndarray]:
        """Yield the size of the beam at the ends of boxes and between, (n_boxes, n_frequencies) nepers each.

        Parameters
        ----------
        frequency : (n_frequencies,) Hz.
        nearest : (n_boxes,) m, no point of a box is closer to an element.
        y_low, y_high : (n_boxes,) m, elevations of one sign between which its points lie.
        """
        first = np.searchsorted(self._distance, np.maximum(nearest, self._distance[0]), side="right") - 1
        low = np.maximum(np.floor(y_low / self._step), 0).astype(int)
        high = np.ceil(y_high / self._step).astype(int)
        for step in range(int((high - low).max(initial=0)) + 1):
            number = np.minimum(low + step, high)
            for beyond in (0, 1):
                distance = self._distance[np.minimum(first + beyond, N_DISTANCES - 1)]
                y = number * self._step
                field = self._field(frequency, np.maximum(distance, y)[:, None], (y * y)[:, None])
                yield np.log(np.maximum(np.abs(field), 1e-300))

    def _row(self, number: int) -> _Row:
        """Of the points at an elevation of `number` steps: of each distance the worst of it and all beyond."""
        if number not in self._rows:
            y = number * self._step
            distance = np.maximum(self._distance, y)[:, None]
            early, late = self._spread(distance, y * y)
            segment = self._segment(distance, y * y)
            beyond = (np.minimum, early), (np.maximum, late), (np.minimum, segment)
            self._rows[number] = _Row(*(worst.accumulate(values[::-1])[::-1] for worst, values in beyond))
        return self._rows[number]

    def _field(self, frequency: np.ndarray, distance: np.ndarray, square_y: float | np.ndarray) -> np.ndarray:
        wavenumber = 2 * np.pi * frequency / self._plan.acquisition.medium.speed_of_sound
        lens = self._lens
        return physics.elevation_beam(wavenumber, distance, square_y, lens.height, lens.focus)

    def _spread(self, distance: np.ndarray, square_y: float) -> tuple[np.ndarray, np.ndarray]:
        """By how much an echo begins before and ends after the two-way pulse about its distance, s."""
        plan, speed = self._plan, self._plan.acquisition.medium.speed_of_sound
        rate = plan.acquisition.sampling_frequency
        y = math.sqrt(square_y)
        way: np.ndarray = physics.elevation_path(distance, np.asarray(square_y))
        # The beam of the height's edges, as far as it can be: Fresnel's way, which grows without bound at short distances,
        # is heard for a few periods of the lowest frequency only.
        edge = np.minimum((y + self._lens.height) ** 2 / 2 / distance, y + self._lens.height) + way
        span = 4 * self._half_length + 4 * float(edge.max()) / speed
        n = fast_length(math.ceil(span * rate))
        frequency = np.fft.rfftfreq(n, 1 / rate)
        low, high = plan.band()
        band = np.flatnonzero((frequency >= low) & (frequency <= high) & (frequency > 0))
        spectrum = np.zeros((len(distance), len(frequency)), complex)
        pulse: np.ndarray = plan.excitation(frequency[band]) * plan.response(frequency[band])
        turn: np.ndarray = np.exp(2j * np.pi * frequency[band] * way / speed)
        spectrum[:, band] = pulse * turn * self._field(frequency[band], distance, square_y)
        energy = np.roll(np.fft.irfft(np.conj(spectrum), n, axis=-1) ** 2, n // 2, axis=-1)
        before, after = energy.cumsum(axis=-1), energy[:, ::-1].cumsum(axis=-1)
        spare = SPREAD_TAIL**2 / 2 * before[:, -1:]
        begins = ((before > spare).argmax(axis=-1) - n // 2) / rate
        ends = (n - 1 - (after > spare).argmax(axis=-1) - n // 2) / rate
        return np.minimum(begins + self._half_length, 0.0), np.maximum(ends - self._half_length, 0.0)

    def _segment(self, distance: np.ndarray, square_y: float) -> np.ndarray:
        """Longest segment, Hz, that keeps the error of its polynomial."""
        low, high = self._plan.band()
        step = (high - low) / N_STEPS
        frequency = np.maximum(low, 1e-3 * high) + np.arange(N_STEPS + 1) * step
        weight = np.abs(self._plan.excitation(frequency))
        field = self._field(frequency, distance, square_y)
        slope = (self._field(frequency + step / 100, distance, square_y) - field) / (step / 100)
        allowed = SEGMENT_ERROR * (np.abs(field) * weight).max()
        longest = np.full(len(distance), LENGTHS[0])
        for length in LENGTHS:
            error = self._error(field, slope * step * length, weight, length)
            longest = np.where((error <= allowed) & (longest >= _before(length)), length, longest)
        longest_in_hertz: np.ndarray = longest * step
        return longest_in_hertz

    @staticmethod
    def _error(field: np.ndarray, slope: np.ndarray, weight: np.ndarray, length: int) -> np.ndarray:
        """Largest error, times the weight, of the polynomials of segments of `length` steps, (n_distances,)."""
        first = np.arange(0, field.shape[1] - length, max(1, length // 4))
        nodes = first[:, None] + np.array([0, length // 2, length])
        known = np.stack([field[:, nodes], slope[:, nodes]], axis=-1).reshape(*field.shape[:1], len(first), 6)
        tried, at = known @ segment_weights(length), first[:, None] + np.arange(length)
        largest: np.ndarray = (np.abs(tried - field[:, at]) * weight[at]).max(axis=(1, 2))
        return largest


@cache
def segment_weights(n: int) -> np.ndarray:
    """(6, n) weights of field and slope (per segment) at 0, 1/2 and 1 of a segment, at bins 0 to n - 1 of n."""
    conditions = []
    for at in (0.0, 0.5, 1.0):
        conditions += [at ** np.arange(6), np.arange(6) * at ** np.maximum(np.arange(6) - 1.0, 0)]
    bins = (np.arange(n) / n)[:, None] ** np.arange(6)
    weights: np.ndarray = np.linalg.solve(np.array(conditions).T, bins.T)
    return weights


_BEAMS: OrderedDict[Hashable, Beam] = OrderedDict()
_LOCK = Lock()


def beam_of(plan: Plan) -> Beam:
    """Return the beam of a plan: the one of the last plans of the same acquisition, if there was one."""
    key = plan.acquisition.key()
    with _LOCK:
        if key not in _BEAMS:
            _BEAMS[key] = Beam(plan)
        _BEAMS.move_to_end(key)
        while len(_BEAMS) > KEPT:
            _BEAMS.popitem(last=False)
        return _BEAMS[key]


def _before(length: int) -> int:
    """Return the next shorter length."""
    return LENGTHS[max(LENGTHS.index(length) - 1, 0)]
