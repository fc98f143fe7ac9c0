"""Scatterers cut into cells, each with its own short record: what makes an engine fast without approximating the model.

Echoes of a cell on one element last only as long as the cell and the aperture are wide, a small part of the whole record.
So a cell's spectrum is taken relative to whole-sample reference delays (transmit: first arrival at the cell's center;
receive: center to element), on a frequency grid as coarse as that short window allows, and its inverse transform is added
to the record at an integer offset. What is lost is the tail of the pulse beyond the window (`plan.PULSE_TAIL`) and the
frequencies below `BAND_THRESHOLD_DB`. Engine-independent, float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from . import physics
from .elevation import beam_of
from .numerics import fast_length
from .plan import Plan

BAND_THRESHOLD_DB = -80.0  # two-way spectrum, after the attenuation of the shortest way; a tighter band costs accuracy
BAND_TAIL = 4e-5  # energy of the spectrum that may lie outside the band, relative L2
BATCH = 4  # bins that a segment of the beam in elevation has at least (as the CPU engine advances them)
BLOCK = 64  # cells whose arrival times are held at once
MAX_TILES = 64  # scatterers in one cell, in tiles, however close they lie: bounds an engine's workspace
MAX_TURNS = (
    40  # cycles of the highest frequency from a cell's center to its corner: float32 phases keep 2e-5 of a radian
)
CELL_OVERHEAD = 2.0  # cost of a cell beside its scatterers' (transforms, drive), in tiles


@dataclass(frozen=True, eq=False)
class Cells:
    """Scatterers in cells. Cell i holds scatterers order[first[i]:first[i + 1]] of those given.

    The echo on element e of transmit a begins no earlier than sample
    transmit_reference[i, a] + element_reference[i, e] + receive delay in whole samples + window_start[i],
    and is over window_length[i] samples later.
    """

    order: np.ndarray  # (n,) int64
    first: np.ndarray  # (n_cells + 1,) int64
    center_x: np.ndarray  # (n_cells,) m
    center_z: np.ndarray
    element_reference: np.ndarray  # (n_cells, n_elements) int64 samples, center to element
    transmit_reference: np.ndarray  # (n_cells, n_transmits) int64 samples, first arrival at the center
    window_start: np.ndarray  # (n_cells,) int64 samples
    window_length: np.ndarray  # (n_cells,) int64 samples, a fast transform length
    first_bin: np.ndarray  # (n_cells,) int64: frequencies kept are bins of sampling_frequency / window_length
    n_bins: np.ndarray  # (n_cells,) int64
    center_y: np.ndarray  # (n_cells,) m, of |y|, of a matrix array of y; 0 in two dimensions
    segment: np.ndarray  # (n_cells, n_elements) bins that the beam in elevation is a polynomial over (`elevation`)

    def __len__(self) -> int:
        return len(self.center_x)


def make_cells(
    x: np.ndarray,
    z: np.ndarray,
    plan: Plan,
    tile: int = 16,
    receive: bool = True,
    threshold_db: float | None = None,
    y: np.ndarray | None = None,
) -> Cells:
    """Cut the points (x, z) into cells and find each cell's window and band.

    Parameters
    ----------
    x, z : (n,) m, in front of the array.
    tile : cells hold whole multiples of this many points where they can, as suits an engine's vectors.
    receive : False leaves out the way back (for a pressure field).
    threshold_db : of the transmitted spectrum that counts, default the acquisition's.
    y : (n,) m, elevation; of no sign but with a matrix array, as others are symmetric.
    """
    pulse = PulseLength(plan, x, z, y)
    height = None if y is None else y if plan.sub_y is not None else np.abs(y)
    order, first = _cut(x, z, plan, tile, _lone_window(plan, pulse, x, z, receive, height), height)
    axes = (x, z) if height is None else (x, z, height)
    sides = [_sides(axis[order], first) for axis in axes]
    center, half = ([side[k] for side in sides] for k in (0, 1))
    level = (None, None) if height is None else (center[2], half[2])
    windows = windows_of_boxes(plan, pulse, center[0], center[1], half[0], half[1], receive, threshold_db, *level)
    *fields, segment = windows
    center_y = center[2] if height is not None else np.zeros(len(center[0]))
    return Cells(order, first, center[0], center[1], *fields, center_y=center_y, segment=segment)  # type: ignore[misc]


def windows_of_boxes(
    plan: Plan,
    pulse: PulseLength,
    center_x: np.ndarray,
    center_z: np.ndarray,
    half_x: np.ndarray,
    half_z: np.ndarray,
    receive: bool = True,
    threshold_db: float | None = None,
    center_y: np.ndarray | None = None,
    half_y: np.ndarray | None = None,
    shortest: int = BATCH,
) -> tuple[np.ndarray, ...]:
    """Return references, window and band of boxes, whatever points they hold.

    The fields of `Cells` from `element_reference` on, without `center_y`.

    center_x, center_z, half_x, half_z : (n_boxes,) m.
    center_y, half_y : of |y|, in three dimensions.
    shortest : bins that a segment of the beam in elevation has at least.
    """
    length, start, element_reference, transmit_reference, first_bin, n_bins = [], [], [], [], [], []
    segment: list[np.ndarray] = []
    for at in range(0, len(center_x), BLOCK):
        part = slice(at, at + BLOCK)
        level = None if center_y is None or half_y is None else (center_y[part], half_y[part])
        window = _window(plan, center_x[part], center_z[part], half_x[part], half_z[part], receive, level)
        band_start, band_stop, n = _band(plan, window, pulse, receive, threshold_db, shortest)
        segment.append(np.floor(window.segment * (n / plan.acquisition.sampling_frequency)[:, None] + 1e-9))
        element_reference.append(window.element_reference)
        transmit_reference.append(window.transmit_reference)
        start.append(window.first - pulse.samples(window.farthest))
        length.append(n)
        first_bin.append(band_start)
        n_bins.append(band_stop - band_start)
    fields = (element_reference, transmit_reference, start, length, first_bin, n_bins, segment)
    return tuple(np.concatenate(field) for field in fields)


# --- cutting ---------------------------------------------------------------------------------------------------------


def _cut(
    x: np.ndarray, z: np.ndarray, plan: Plan, tile: int, fixed: float, y: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Order of the points and first point of each cell.

    Boxes halved along their longest side while that makes the work less. The work of a cell goes as (tiles +
    CELL_OVERHEAD) x window, the window as `fixed` + two ways through the box. An elevation counts by what it adds to the
    way from the element above, `elevation_path` included; below a matrix array as any side does.
    """
    further = np.zeros(0) if y is None else y
    if y is not None and plan.sub_y is None:
        further = 2 * (np.hypot(np.maximum(z, plan.minimum_distance), y) - z)
    speed = plan.acquisition.medium.speed_of_sound
    per_meter = 2 * plan.acquisition.sampling_frequency / speed
    longest = 2 * MAX_TURNS * speed / plan.band()[1]  # diagonal of a cell, m

    def box(part: np.ndarray) -> _Box:
        of_x, of_z = x[part], z[part]
        width, depth = float(of_x.max() - of_x.min()), float(of_z.max() - of_z.min())
        along, height = of_x if width > depth else of_z, 0.0
        if y is not None:
            of_y = further[part]
            height = float(of_y.max() - of_y.min())
            along = of_y if height > max(width, depth) else along
        work = (math.ceil(len(part) / tile) + CELL_OVERHEAD) * (fixed + per_meter * (width + depth + height))
        return _Box(part, along, math.hypot(width, depth, height), work)

    cells: list[np.ndarray] = []
    waiting = [box(np.arange(len(x)))]
    while waiting:
        whole = waiting.pop()
        if len(whole.part) > 1:
            left, right = (box(part) for part in _halves(whole, tile))
            must = len(whole.part) > MAX_TILES * tile or whole.diagonal > longest
            if must or left.work + right.work < whole.work:
                waiting += [right, left]
                continue
        cells.append(np.sort(whole.part))
    first = np.concatenate([[0], np.cumsum([len(part) for part in cells])]).astype(np.int64)
    return np.concatenate(cells).astype(np.int64), first


@dataclass(frozen=True)
class _Box:
    part: np.ndarray  # points in it
    along: np.ndarray  # their coordinate along its longer side
    diagonal: float  # m
    work: float


def _halves(box: _Box, tile: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of the two halves of a box.

    Whole tiles on the left, or to both sides of the widest gap where there are too few to fill tiles.
    """
    n = len(box.part)
    if n > 2 * tile:
        middle = tile * round(n / tile / 2)
        order = np.argpartition(box.along, middle)
    else:
        order = np.argsort(box.along, kind="stable")
        middle = int(np.argmax(np.diff(box.along[order]))) + 1
    return box.part[order[:middle]], box.part[order[middle:]]


def _sides(axis: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Center and half extent, along one axis, of the box around each cell's points."""
    low, high = np.minimum.reduceat(axis, first[:-1]), np.maximum.reduceat(axis, first[:-1])
    return (low + high) / 2, (high - low) / 2


def _lone_window(
    plan: Plan, pulse: PulseLength, x: np.ndarray, z: np.ndarray, receive: bool, y: np.ndarray | None, n: int = 32
) -> float:
    """Mean window of a cell of one point in samples, over `n` of the points."""
    some = np.linspace(0, len(x) - 1, min(n, len(x))).astype(int)
    zero = np.zeros(len(some))
    window = _window(plan, x[some], z[some], zero, zero, receive, None if y is None else (y[some], zero))
    return float(np.mean(window.length + 2 * pulse.samples(window.farthest)))


# --- windows ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Window:
    """Arrival of the echoes of boxes, the pulse's own length left out, in samples relative to the references."""

    first: np.ndarray  # (n_cells,) int64
    last: np.ndarray
    element_reference: np.ndarray  # (n_cells, n_elements) int64
    transmit_reference: np.ndarray  # (n_cells, n_transmits) int64
    nearest: np.ndarray  # (n_cells,) m, no scatterer of the cell is closer to an element
    farthest: np.ndarray  # (n_cells,) m
    segment: np.ndarray  # (n_cells, n_elements) Hz, longest segment of the beam in elevation; (n_cells, 0) without
    heights: tuple[np.ndarray, np.ndarray] | None  # (n_cells,) m each, |y| between which its points lie

    @property
    def length(self) -> np.ndarray:
        width: np.ndarray = self.last - self.first
        return width


def _window(
    plan: Plan,
    center_x: np.ndarray,
    center_z: np.ndarray,
    half_x: np.ndarray,
    half_z: np.ndarray,
    receive: bool,
    level: tuple[np.ndarray, np.ndarray] | None = None,
) -> _Window:
    """Bounds over each box, from its corners; `level` is its center and half extent in |y|.

    An element's distance d is convex, so that its largest value over a box is at a corner, and it lies above its tangent
    at the center; the earliest echo by those tangents is the minimum of linear functions, so at a corner too.
    """
    probe, medium = plan.acquisition.probe, plan.acquisition.medium
    rate = plan.acquisition.sampling_frequency
    per_meter = rate / medium.speed_of_sound
    dx, dz = center_x[:, None] - probe.element_x, center_z[:, None] - probe.element_z
    distance = np.hypot(dx, dz)  # (n_cells, n_elements)
    is_matrix = plan.sub_y is not None
    step_y: tuple[np.ndarray, ...] = (np.zeros(len(center_x)),)
    dy = np.zeros((1, 1))
    if level is not None:
        dy = level[0][:, None] - (probe.element_y if is_matrix else 0.0)
        distance = np.hypot(distance, dy)
    if level is not None and is_matrix:
        step_y = (-level[1], level[1])
    floored = np.maximum(distance, plan.minimum_distance) * per_meter
    element_reference = np.rint(floored).astype(np.int64)
    earliest, latest = _firing_times(plan)
    transmit_reference = np.rint((earliest + floored[:, None]).min(axis=-1)).astype(np.int64)
    ways = (np.broadcast_to(d, distance.shape) for d in (dx, dz, dy))
    slope_x, slope_z, slope_y = (np.divide(d, distance, out=np.zeros_like(distance), where=distance > 0) for d in ways)
    corners = [np.broadcast_arrays(sx * half_x, sz * half_z, sy) for sx in (-1, 1) for sz in (-1, 1) for sy in step_y]
    first, last, nearest, farthest = (np.full(len(center_x), v) for v in (np.inf, -np.inf, np.inf, -np.inf))
    early: float | np.ndarray = 0.0
    late: float | np.ndarray = 0.0
    fall: float | np.ndarray = 0.0
    segment = np.zeros((len(center_x), 0))
    with_beam = level is not None and not is_matrix
    if level is not None and with_beam:
        y, half_y = (values[:, None] for values in level)
        fall = np.divide(y, distance, out=np.zeros_like(distance), where=distance > 0) * half_y
        aside = np.abs(slope_x) * half_x[:, None] + np.abs(slope_z) * half_z[:, None]
        reach = beam_of(plan).reach(distance - aside - fall, y - half_y, y + half_y)
        early, late, segment = reach.early * rate, reach.late * rate, reach.segment
    for corner in corners:
        along_x, along_z, along_y = (step[:, None] for step in corner)
        low = distance + slope_x * along_x + slope_z * along_z
        high = np.hypot(dx + along_x, dz + along_z)
        if is_matrix:
            low, high = low + slope_y * along_y, np.hypot(high, dy + along_y)
        low = low * per_meter
        if with_beam:
            low, high = low - fall * per_meter, np.hypot(high, y + half_y)
        high = np.maximum(high, plan.minimum_distance) * per_meter
        begins = ((earliest + (low + early)[:, None]).min(axis=-1) - transmit_reference).min(axis=-1)
        ends = ((latest + (high + late)[:, None]).max(axis=-1) - transmit_reference).max(axis=-1)
        if receive:
            begins = begins + (low + early - element_reference).min(axis=-1)
            ends = ends + (high + late - element_reference).max(axis=-1)
        first, last = np.minimum(first, begins), np.maximum(last, ends)
        nearest, farthest = np.minimum(nearest, low.min(axis=-1)), np.maximum(farthest, high.max(axis=-1))
    # Sub-elements lie to both sides of the center that distances are taken to; a receive delay's fraction is 1/2 at most.
    margin = (2 if receive else 1) * _half_extent(plan) * per_meter + 1
    return _Window(
        np.floor(first - margin).astype(np.int64),
        np.ceil(last + margin).astype(np.int64),
        element_reference,
        transmit_reference,
        np.maximum(nearest, 0.0) / per_meter,
        farthest / per_meter,
        segment,
        (level[0] - level[1], level[0] + level[1]) if level is not None and with_beam else None,
    )


def _half_extent(plan: Plan) -> float:
    """Farthest center of a sub-element from that of its element, m."""
    probe = plan.acquisition.probe
    if plan.sub_y is None:
        return float((plan.sub_x.shape[1] - 1) / 2 * plan.sub_width)
    return float(np.hypot(plan.sub_x[0] - probe.element_x[0], plan.sub_y[0] - probe.element_y[0]).max())


def _firing_times(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Earliest and latest firing (n_transmits, n_elements) over a transmit's laws, samples; ±infinity where silent."""
    delays = plan.delays * plan.acquisition.sampling_frequency
    firing = plan.weights != 0
    firing |= ~firing.any(axis=(1, 2), keepdims=True)  # all weights 0: any times will do
    return np.where(firing, delays, np.inf).min(axis=1), np.where(firing, delays, -np.inf).max(axis=1)


class PulseLength:
    """Half-length of the two-way pulse by distance: a short table, as each entry costs a transform."""

    def __init__(self, plan: Plan, x: np.ndarray, z: np.ndarray, y: np.ndarray | None = None) -> None:
        """For points (x, z), or (x, y, z), the farthest of which ends the table."""
        self._rate = plan.acquisition.sampling_frequency
        attenuates = plan.acquisition.medium.attenuation_db_cm_mhz > 0
        corners = np.meshgrid([x.min(), x.max()], [z.min(), z.max()])
        height = None if y is None else np.full(4, float(np.abs(y).max()))
        longest = plan.longest_distance(corners[0].ravel(), corners[1].ravel(), height)
        self._distance = np.linspace(0, longest, 5) if attenuates else np.zeros(1)
        lengths = np.array([plan.pulse_half_length(2 * distance) for distance in self._distance])
        self._length = np.maximum(lengths, np.append(lengths[1:], lengths[-1:]))  # the longer end of each interval

    def at(self, distance: np.ndarray) -> np.ndarray:
        """Seconds."""
        at = np.searchsorted(self._distance, distance, side="right") - 1
        length: np.ndarray = self._length[np.clip(at, 0, len(self._length) - 1)]
        return length

    def samples(self, distance: np.ndarray) -> np.ndarray:
        """Return a distance, m, in samples."""
        return np.ceil(self.at(distance) * self._rate).astype(np.int64)


def _n_frequencies(plan: Plan) -> int:
    """Points of the spectrum that show its side lobes, which an excitation of many cycles has many of."""
    cycles = plan.acquisition.excitation_duration * plan.acquisition.probe.center_frequency
    return max(512, min(math.ceil(16 * cycles), 8192))


def _edges(level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last frequency that counts of spectra (n_cells, n_frequencies), in nepers."""
    kept = level >= level.max(axis=1, keepdims=True) + BAND_THRESHOLD_DB / 20 * math.log(10)
    # Many side lobes below the threshold (of many cycles) may hold more together than the engine's tolerance allows.
    energy = np.exp(2 * (level - level.max(axis=1, keepdims=True)))
    spare = BAND_TAIL**2 / 2 * energy.sum(axis=1, keepdims=True)
    rising, falling = (energy[:, ::way].cumsum(axis=1) > spare for way in (1, -1))
    first = np.minimum(np.argmax(kept, axis=1), np.argmax(rising, axis=1))
    last = level.shape[1] - 1 - np.minimum(np.argmax(kept[:, ::-1], axis=1), np.argmax(falling, axis=1))
    return first, last


def _band(
    plan: Plan, window: _Window, pulse: PulseLength, receive: bool, threshold_db: float | None, shortest: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and one past the last frequency bin of each cell, and its window length in samples."""
    rate, medium = plan.acquisition.sampling_frequency, plan.acquisition.medium
    low, high = plan.band(threshold_db)
    frequency = np.linspace(low, high, _n_frequencies(plan))
    amplitude = np.abs(plan.excitation(frequency))
    if receive:
        amplitude = amplitude * np.abs(plan.response(frequency))
    loss = physics.attenuation(frequency, medium.attenuation_db_cm_mhz) * (2 if receive else 1)
    level = np.log(np.maximum(amplitude, 1e-300)) - loss * window.nearest[:, None]
    first, last = _edges(level)
    if window.heights is not None:  # beside its middle the beam's low frequencies are all that there is
        for beam in beam_of(plan).levels(frequency, window.nearest, *window.heights):
            edges = _edges(level + (2 if receive else 1) * beam)
            first, last = np.minimum(first, edges[0]), np.maximum(last, edges[1])
    step = frequency[1] - frequency[0]
    lowest = np.maximum(frequency[first] - step, low)
    highest = np.minimum(frequency[last] + step, high)
    length = window.length + 2 * pulse.samples(window.farthest)
    if window.segment.size:
        length = np.maximum(length, np.ceil(shortest * rate / window.segment.min(axis=1)).astype(np.int64))
    length = np.array([fast_length(int(n)) for n in length], dtype=np.int64)
    # Neither 0 nor half the sampling frequency, which have no mirror in a real transform; the band all but ends before.
    start = np.maximum(np.ceil(lowest * length / rate).astype(np.int64), 1)
    stop = np.minimum(np.floor(highest * length / rate).astype(np.int64) + 1, (length + 1) // 2)
    return start, np.maximum(stop, start + 1), length
