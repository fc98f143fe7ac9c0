"""The fast engine: cells of scatterers, all transmits at once, vectors of 16 (`simd`), threads.

Echoes of one cell (`cells`), for each frequency of its grid and each tile of 16 scatterers:

    field      G_e(s), from the last frequency's by one complex product (a recurrence on phases relative to the cell)
    pressure   P_a(s) = Σ_e drive_ae G_e(s)         lanes on scatterers, drive broadcast
    echo       R_ae'  = Σ_s ρ_s P_a(s) G_e'(s)      lanes on transmits, G broadcast (few transmits: lanes on scatterers)

Then, element by element: inverse transform, and the sum into the record at whole-sample offsets. Threads share the cells
of a round in the first step and the elements in the second, where cells are added in their order: the same input gives
the same bytes whatever the number of threads. They are Python threads running compiled code without the interpreter's
lock, so that the engine may be called from several threads (Dask) at once.

Arrays of the compiled functions are flat float32, their layout given as [axes], the last axis 16 lanes. A complex number is
two vectors (real, imaginary) or, where a product follows, three (their sum as well: `simd.complex_outer`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from queue import SimpleQueue
from typing import NamedTuple

import numba as nb
import numpy as np

from .. import physics
from ..cells import Cells, make_cells
from ..plan import Plan
from ..types import ImageGrid, Scatterers
from . import EngineError
from .cpu_beamform import arrival_bounds, delay_and_sum  # noqa: F401
from .simd import (
    LANES,
    ROWS,
    aligned_empty,
    compiled,
    complex_outer,
    cosine_sine,
    exp,
    exp_minus_one,
    fma,
    load,
    store,
    total,
    transpose_block,
    turn_minus_one,
)

DEFAULT_MEMORY = 1e9  # bytes beside the result
BATCH = 4  # frequencies a load of the recurrence's state
FEW = 3  # fewer transmits than this, left over from groups of 16, are cheaper with lanes on scatterers
PAIR = 2 * LANES  # floats of a complex vector in two parts
TRIPLE = 3 * LANES  # and in three
TILES = 2  # tiles of scatterers whose echoes are summed in registers at a time
WIDE = TILES * LANES


def simulate(
    scatterers: Scatterers, plan: Plan, n_samples: int, start_sample: int = 0, max_memory: float | None = None
) -> np.ndarray:
    """Echoes (n_transmits, n_elements, n_samples) float32, from sample `start_sample` on.

    Raises
    ------
    EngineError
        `max_memory` (bytes beside the result, default 1 GB) cannot hold one cell.
    """
    acquisition = plan.acquisition
    record = np.zeros((acquisition.n_transmits, acquisition.probe.n_elements, n_samples), dtype=np.float32)
    if len(scatterers) == 0:
        return record
    cells = make_cells(scatterers.x, scatterers.z, plan, LANES)
    work = _Work(plan, cells, scatterers.x, scatterers.z, scatterers.reflectivity)
    _in_rounds(work, max_memory, partial(_add_round, work, record, start_sample))
    return record


def pressure_field(plan: Plan, grid: ImageGrid, threshold_db: float, max_memory: float | None = None) -> np.ndarray:
    """RMS pressure (n_transmits, nz, nx) float64: sqrt(width Σ_f |P|² df) (MUST's pfield); 0 behind the array.

    The sum over a cell's coarse grid equals the sum over a fine one: the window holds all of the wave (Parseval).
    """
    probe = plan.acquisition.probe
    x, z = (axis.ravel() for axis in grid.mesh())
    front = np.flatnonzero(~probe.is_behind(x, z))
    power = np.zeros((plan.acquisition.n_transmits, x.size))
    if len(front):
        cells = make_cells(x[front], z[front], plan, LANES, receive=False, threshold_db=threshold_db)
        work = _Work(plan, cells, x[front], z[front], np.ones(len(front)))
        power[:, front] = _powers(work, max_memory)
    return np.sqrt(probe.element_width * power).reshape(-1, *grid.shape)


# --- work and memory -------------------------------------------------------------------------------------------------


class _Elements(NamedTuple):
    """What the compiled functions need of the plan, float64."""

    sub_x: np.ndarray  # (n_elements, n_subelements) m
    sub_z: np.ndarray
    sine: np.ndarray  # (n_elements,) of the normal
    cosine: np.ndarray
    x: np.ndarray  # (n_elements,) m
    z: np.ndarray
    receive_fraction: np.ndarray  # (n_elements,) receive delay beyond whole samples, samples
    delays: np.ndarray  # (n_transmits, n_foci, n_elements) samples
    weights: np.ndarray  # (n_transmits, n_foci, n_elements)
    constants: (
        np.ndarray
    )  # minimum_distance, baffle, k L / 2 at the centre, the same a Hz, c, attenuation, full directivity


class _Cell(NamedTuple):
    """One cell, for the compiled functions."""

    points: np.ndarray  # (3, n_tiles * 16) float32: x and z from the centre, reflectivity
    center: np.ndarray  # (2,) m
    element_reference: np.ndarray  # (n_elements,) samples
    transmit_reference: np.ndarray  # (n_transmits,) samples
    first_bin: int
    window_length: int
    rate: float  # Hz
    factor: np.ndarray  # (n_bins,) complex64: S B² and the scale


class _Workspace(NamedTuple):
    """One thread's buffers."""

    waves: np.ndarray  # [tile][element][sub-element][re, im, step - 1 (re, im)]
    widths: np.ndarray  # [tile][element][sub-element]: k L / 2 sin θ a Hz, for full-frequency directivity only
    drive_waves: np.ndarray  # [focus][element][group][re, im, step - 1 (re, im)]
    drive: np.ndarray  # [frequency][element][3][group]: group and lane number the transmits
    field: np.ndarray  # [frequency][element][3][tile of two]
    pressure: np.ndarray  # [transmit][3]
    rows: np.ndarray  # [transmit in group][2]: the same in two parts
    source: np.ndarray  # [group][scatterer of two tiles][3]: lanes on transmits
    sums: np.ndarray  # [frequency][group][element][3], then [frequency][left-over transmit][element][3]


class _Work:
    """A simulation laid out for the threads: per-cell arguments, sizes of buffers."""

    def __init__(self, plan: Plan, cells: Cells, x: np.ndarray, z: np.ndarray, reflectivity: np.ndarray) -> None:
        acquisition, medium = plan.acquisition, plan.acquisition.medium
        self.plan, self.cells, self._points = plan, cells, (x, z, reflectivity)
        self.rate = acquisition.sampling_frequency
        self.n_transmits, self.n_foci, self.n_elements = plan.delays.shape
        self.n_groups = -(-self.n_transmits // LANES)
        left = self.n_transmits % LANES
        self.n_left = left if left < FEW else 0  # transmits with lanes on scatterers
        self.n_full = self.n_groups - (self.n_left > 0)  # groups with lanes on transmits
        self.receive_samples = np.rint(plan.receive_delays * self.rate).astype(np.int64)
        self.elements = _Elements(
            plan.sub_x,
            plan.sub_z,
            plan.sin_element,
            plan.cos_element,
            acquisition.probe.element_x,
            acquisition.probe.element_z,
            plan.receive_delays * self.rate - self.receive_samples,
            plan.delays * self.rate,
            plan.weights,
            np.array(
                [
                    plan.minimum_distance,
                    plan.baffle,
                    plan.half_width_wavenumber,
                    physics.wavenumber(1.0, medium.speed_of_sound) * plan.sub_width / 2,
                    medium.speed_of_sound,
                    medium.attenuation_db_cm_mhz,
                    float(acquisition.full_frequency_directivity),
                ]
            ),
        )
        self._spectra: dict[int, np.ndarray] = {}
        lengths = np.unique(cells.window_length)
        self.twiddles = np.concatenate([_twiddles(n) for n in lengths.tolist()])
        self.twiddles_at = dict(zip(lengths.tolist(), (np.cumsum(lengths) - lengths).tolist(), strict=True))

    def cell(self, i: int, receive: bool = True) -> _Cell:
        cells = self.cells
        part = cells.order[cells.first[i] : cells.first[i + 1]]
        padded = np.concatenate([part, np.full(-len(part) % LANES, part[-1])])
        points = np.empty((3, len(padded)), dtype=np.float32)
        points[0] = self._points[0][padded] - cells.center_x[i]
        points[1] = self._points[1][padded] - cells.center_z[i]
        points[2] = self._points[2][padded]
        points[2, len(part) :] = 0
        return _Cell(
            points,
            np.array([cells.center_x[i], cells.center_z[i]]),
            cells.element_reference[i],
            cells.transmit_reference[i],
            int(cells.first_bin[i]),
            int(cells.window_length[i]),
            self.rate,
            self._factor(i, receive),
        )

    def _factor(self, i: int, receive: bool) -> np.ndarray:
        """Spectrum (n_bins,) that multiplies the sum over scatterers, with the scale and the inverse transform's 1/n."""
        n, first = int(self.cells.window_length[i]), int(self.cells.first_bin[i])
        if n not in self._spectra:
            frequency = np.arange(n // 2 + 1) * self.rate / n
            spectrum = self.plan.excitation(frequency)
            if receive:
                scale = self.plan.acquisition.probe.element_width * self.rate / n
                spectrum = spectrum * self.plan.response(frequency) * scale
            self._spectra[n] = spectrum.astype(np.complex64)
        return self._spectra[n][first : first + int(self.cells.n_bins[i])]

    @property
    def spectrum_size(self) -> int:
        """Floats of the largest cell's spectrum [group][element][frequency][2]."""
        return self.n_groups * self.n_elements * int(self.cells.n_bins.max()) * PAIR

    def workspace_sizes(self) -> list[int]:
        """Floats of each buffer of a `_Workspace`."""
        n_tiles = -(-int(np.diff(self.cells.first).max()) // LANES)
        lanes = self.n_groups * LANES
        return [
            n_tiles * self.plan.sub_x.size * 4 * LANES,
            n_tiles * self.plan.sub_x.size * LANES if self.plan.acquisition.full_frequency_directivity else 0,
            self.n_foci * self.n_elements * self.n_groups * 4 * LANES,
            BATCH * self.n_elements * 3 * lanes,
            BATCH * self.n_elements * 3 * WIDE,
            lanes * TRIPLE,
            LANES * PAIR,
            self.n_groups * WIDE * TRIPLE,
            BATCH * (self.n_full + self.n_left) * self.n_elements * TRIPLE,
        ]

    def transform_size(self) -> int:
        """Floats of one buffer of a transform; there are three."""
        return (int(self.cells.window_length.max()) + LANES) * PAIR

    def workspace(self) -> tuple[_Workspace, list[np.ndarray]]:
        buffers = _Workspace(*(aligned_empty(n) for n in self.workspace_sizes()))
        return buffers, [aligned_empty(self.transform_size()) for _ in range(3)]

    def workspace_bytes(self) -> int:
        return 4 * (sum(self.workspace_sizes()) + 3 * self.transform_size())


def _in_rounds(work: _Work, max_memory: float | None, add_round: Callable) -> None:
    """Spectra of a round of cells by all threads; then, while the next round runs, their sum into the record."""
    n_threads, n_round = _share_memory(work, max_memory)
    workspaces: SimpleQueue = SimpleQueue()
    for _ in range(n_threads):
        workspaces.put(work.workspace())
    size = work.spectrum_size
    buffers = [aligned_empty(n_round * size) for _ in range(2)]

    def with_workspace(task):
        workspace = workspaces.get()
        try:
            task(*workspace)
        finally:
            workspaces.put(workspace)

    def spectrum(i: int, out: np.ndarray) -> None:
        with_workspace(
            lambda space, _: _cell_spectrum(work.elements, work.cell(i), space, work.n_full, work.n_left, out)
        )

    n_cells = len(work.cells)
    with ThreadPoolExecutor(n_threads) as pool:
        previous = range(0)
        for turn, first in enumerate(range(0, n_cells + n_round, n_round)):
            current = range(first, min(first + n_round, n_cells))
            spectra, finished = buffers[turn % 2], buffers[1 - turn % 2]
            tasks = [pool.submit(spectrum, i, spectra[k * size : (k + 1) * size]) for k, i in enumerate(current)]
            # The small tasks come last and fill the gap until all threads are done.
            if len(previous):
                add = partial(add_round, previous, finished)
                tasks += [pool.submit(with_workspace, partial(add, part)) for part in _parts(work, n_threads)]
            for task in wait(tasks).done:
                task.result()
            previous = current


def _parts(work: _Work, n_threads: int) -> Iterator[tuple[int, int]]:
    """Elements in even-sized runs, about four a thread."""
    step = 2 * max(1, round(work.n_elements / n_threads / 8))
    return ((first, min(first + step, work.n_elements)) for first in range(0, work.n_elements, step))


def _share_memory(work: _Work, max_memory: float | None) -> tuple[int, int]:
    """Threads and cells of a round that the budget allows."""
    budget = DEFAULT_MEMORY if max_memory is None else max_memory
    cells = work.cells
    fixed = sum(array.nbytes for array in vars(cells).values())
    one_cell = 2 * 4 * work.spectrum_size  # two rounds at once
    needed = fixed + work.workspace_bytes() + one_cell
    if needed > budget:
        raise EngineError(
            f"max_memory: expected at least {math.ceil(needed / 1e6)} MB for {work.n_transmits} transmits and "
            f"{work.n_elements} elements, got {budget / 1e6:.3g} MB. Give more, or simulate fewer transmits at a time"
        )
    n_threads = min(_thread_count(), len(cells))
    while n_threads > 1 and fixed + n_threads * (work.workspace_bytes() + one_cell) > budget:
        n_threads -= 1
    room = int((budget - fixed - n_threads * work.workspace_bytes()) / one_cell)
    return n_threads, max(1, min(room, 4 * n_threads))


def _thread_count() -> int:
    """NUMBA_NUM_THREADS, by default the cores that the process may use."""
    return int(nb.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]


def _add_round(
    work: _Work,
    record: np.ndarray,
    start_sample: int,
    round_: range,
    spectra: np.ndarray,
    part: tuple[int, int],
    _: _Workspace,
    buffers: list[np.ndarray],
) -> None:
    """Add the echoes of a round's cells, in order, to the record of elements part[0] to part[1] - 1."""
    cells, these = work.cells, slice(round_.start, round_.stop)
    n = cells.window_length[these]
    windows = np.stack([n, cells.window_start[these], cells.first_bin[these], cells.n_bins[these]], axis=1)
    _add_cells(
        record.reshape(-1),
        record.shape,
        part,
        spectra,
        work.spectrum_size,
        windows,
        cells.transmit_reference[these] - start_sample,
        cells.element_reference[these] + work.receive_samples,
        work.twiddles,
        np.array([work.twiddles_at[length] for length in n.tolist()]),
        *buffers,
    )


def _powers(work: _Work, max_memory: float | None) -> np.ndarray:
    """Σ_f |P|² df (n_transmits, n_points) float64."""
    budget = DEFAULT_MEMORY if max_memory is None else max_memory
    n_threads = int(min(_thread_count(), len(work.cells), budget // work.workspace_bytes()))
    if n_threads < 1:
        raise EngineError(
            f"max_memory: expected at least {math.ceil(work.workspace_bytes() / 1e6)} MB, got {budget / 1e6:.3g} MB"
        )
    cells = work.cells
    power = np.empty((work.n_transmits, len(cells.order)))
    workspaces: SimpleQueue = SimpleQueue()
    for _ in range(n_threads):
        workspaces.put(work.workspace()[0])

    def run(i: int) -> None:
        cell = work.cell(i, receive=False)
        space = workspaces.get()
        out = np.zeros((work.n_transmits, cell.points.shape[1]), dtype=np.float32)
        _cell_power(work.elements, cell, space, out.reshape(-1))
        workspaces.put(space)
        part = cells.order[cells.first[i] : cells.first[i + 1]]
        power[:, part] = out[:, : len(part)] * (work.rate / float(cells.window_length[i]))

    with ThreadPoolExecutor(n_threads) as pool:
        for task in [pool.submit(run, i) for i in range(len(cells))]:
            task.result()
    return power


# --- one cell --------------------------------------------------------------------------------------------------------

_incidence = compiled(physics.incidence)
_obliquity = compiled(physics.obliquity)
_directivity = compiled(physics.directivity)
_attenuation = compiled(physics.attenuation)


@compiled
def _cell_spectrum(elements, cell, space, n_full, n_left, out):
    """Spectrum of a cell's echoes, out[group][element][frequency][2]."""
    n_elements, n_transmits = len(elements.x), len(cell.transmit_reference)
    n_tiles, n_bins = cell.points.shape[1] // LANES, len(cell.factor)
    reflectivity = cell.points[2]
    left = n_full * LANES  # first transmit with lanes on scatterers
    lanes = (n_full + (n_left > 0)) * LANES
    _start_waves(elements, cell, space.waves, space.widths)
    _start_drive(elements, cell, space.drive_waves)
    for first in range(0, n_bins, BATCH):
        n_batch = min(BATCH, n_bins - first)
        _advance_drive(elements, lanes // LANES, space)
        space.sums[:] = 0
        for tile in range(0, n_tiles, TILES):
            n_now = min(TILES, n_tiles - tile)
            for half in range(n_now):
                _advance_field(elements, cell, tile + half, half, first, space)
            for i in range(n_batch):
                for half in range(n_now):
                    _transmit(i, half, n_elements, n_transmits, lanes, space)
                    _turn_pressure(n_full, n_transmits, load(reflectivity, (tile + half) * LANES), half, space)
                    for a in range(n_left):
                        at = (BATCH * n_full + i * n_left + a) * n_elements * TRIPLE
                        _receive_alone(i, half, n_elements, left + a, at, space)
                for group in range(n_full):
                    _receive_group(
                        i, n_elements, n_now * LANES, group, (i * n_full + group) * n_elements * TRIPLE, space
                    )
        for i in range(n_batch):
            for group in range(n_full):
                at = (i * n_full + group) * n_elements * TRIPLE
                _finish_group(space.sums, at, elements, cell, first + i, out, group * n_elements * n_bins * PAIR)
            if n_left > 0:
                at = (BATCH * n_full + i * n_left) * n_elements * TRIPLE
                _finish_left(
                    space.sums, at, n_left, elements, cell, first + i, out, n_full * n_elements * n_bins * PAIR
                )


@compiled
def _cell_power(elements, cell, space, out):
    """Σ_f |P|² of a cell's points, out[transmit][tile], added."""
    n_elements, n_transmits = len(elements.x), len(cell.transmit_reference)
    n_tiles, n_bins = cell.points.shape[1] // LANES, len(cell.factor)
    n_groups = (n_transmits + LANES - 1) // LANES
    _start_waves(elements, cell, space.waves, space.widths)
    _start_drive(elements, cell, space.drive_waves)
    for first in range(0, n_bins, BATCH):
        _advance_drive(elements, n_groups, space)
        for tile in range(n_tiles):
            _advance_field(elements, cell, tile, 0, first, space)
            for i in range(min(BATCH, n_bins - first)):
                _transmit(i, 0, n_elements, n_transmits, n_groups * LANES, space)
                factor = cell.factor[first + i]
                spectrum = factor.real * factor.real + factor.imag * factor.imag
                for a in range(n_transmits):
                    re, im = _complex(space.pressure, a * TRIPLE)
                    at = (a * n_tiles + tile) * LANES
                    store(out, at, fma(re * re + im * im, spectrum, load(out, at)))


@compiled
def _start_waves(elements, cell, waves, widths):
    """Amplitude and phase of each scatterer's way to each sub-element at the cell's first frequency, and their step.

    Phases are relative to the cell's references. The way beyond the reference, r - R, comes from positions in the cell:
    (r² - R²) / (r + R), so that float32 holds it to a fraction of a nanometre.
    """
    minimum_distance, baffle, half_wavenumber, half_wavenumber_a_hz, speed, loss, full = elements.constants
    step = cell.rate / cell.window_length
    turns_start, turns_step = cell.first_bin * step / speed, step / speed
    loss_start, loss_step = -_attenuation(cell.first_bin * step, loss), -_attenuation(step, loss)
    n_elements, n_sub = elements.sub_x.shape
    at = 0
    for tile in range(cell.points.shape[1] // LANES):
        x, z = load(cell.points[0], tile * LANES), load(cell.points[1], tile * LANES)
        for e in range(n_elements):
            reference = cell.element_reference[e] / cell.rate * speed
            for m in range(n_sub):
                center_x, center_z = cell.center[0] - elements.sub_x[e, m], cell.center[1] - elements.sub_z[e, m]
                center_distance = math.sqrt(center_x * center_x + center_z * center_z)
                dx, dz = x + center_x, z + center_z
                sine, cosine = _incidence(dx, dz, elements.sine[e], elements.cosine[e])
                distance = np.sqrt(dx * dx + dz * dz)
                beyond = (x * (x + 2 * center_x) + z * (z + 2 * center_z)) / (distance + center_distance)
                beyond = np.maximum(beyond + (center_distance - reference), minimum_distance - reference)
                distance = np.maximum(distance, minimum_distance)
                amplitude = _obliquity(cosine, baffle) / np.sqrt(distance) / n_sub
                if full == 0.0:
                    amplitude = amplitude * _directivity(sine, half_wavenumber)
                re, im = cosine_sine(beyond * turns_start)
                amplitude = amplitude * exp(distance * loss_start)
                store(waves, at, re * amplitude)
                store(waves, at + LANES, im * amplitude)
                re, im = turn_minus_one(beyond * turns_step)
                decay = exp_minus_one(distance * loss_step)
                store(waves, at + 2 * LANES, fma(re, decay, re + decay))
                store(waves, at + 3 * LANES, fma(im, decay, im))
                if full != 0.0:
                    store(widths, at // 4, sine * half_wavenumber_a_hz)
                at += 4 * LANES


@compiled
def _start_drive(elements, cell, drive_waves):
    """w exp(2πi f τ) of each transmit, focus and element at the cell's first frequency, and its step; τ from the firing
    to the reference distance, relative to the transmit's reference."""
    n_transmits, n_foci, n_elements = elements.delays.shape
    start, step, weight = np.empty(LANES, np.float32), np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    at = 0
    for k in range(n_foci):
        for e in range(n_elements):
            for group in range((n_transmits + LANES - 1) // LANES):
                start[:] = 0
                step[:] = 0
                weight[:] = 0
                for lane in range(min(LANES, n_transmits - group * LANES)):
                    a = group * LANES + lane
                    samples = elements.delays[a, k, e] + (cell.element_reference[e] - cell.transmit_reference[a])
                    turns = samples / cell.window_length
                    step[lane] = turns - np.rint(turns)
                    turns *= cell.first_bin
                    start[lane] = turns - np.rint(turns)
                    weight[lane] = elements.weights[a, k, e]
                amplitude = load(weight, 0)
                re, im = cosine_sine(load(start, 0))
                store(drive_waves, at, re * amplitude)
                store(drive_waves, at + LANES, im * amplitude)
                re, im = turn_minus_one(load(step, 0))
                store(drive_waves, at + 2 * LANES, re)
                store(drive_waves, at + 3 * LANES, im)
                at += 4 * LANES


@compiled
def _advance_drive(elements, n_groups, space):
    """The next frequencies of the drive, drive[frequency][element][3][group]."""
    n_foci, n_elements = elements.delays.shape[1:]
    lanes = n_groups * LANES
    at = 0
    for k in range(n_foci):
        for e in range(n_elements):
            for group in range(n_groups):
                re, im = load(space.drive_waves, at), load(space.drive_waves, at + LANES)
                step_re, step_im = load(space.drive_waves, at + 2 * LANES), load(space.drive_waves, at + 3 * LANES)
                for i in range(BATCH):
                    to = (i * n_elements + e) * 3 * lanes + group * LANES
                    if k == 0:
                        sum_re, sum_im = re, im
                    else:
                        sum_re, sum_im = load(space.drive, to) + re, load(space.drive, to + lanes) + im
                    store(space.drive, to, sum_re)
                    store(space.drive, to + lanes, sum_im)
                    store(space.drive, to + 2 * lanes, sum_re + sum_im)
                    re, im = _advance(re, im, step_re, step_im)
                store(space.drive_waves, at, re)
                store(space.drive_waves, at + LANES, im)
                at += 4 * LANES


@compiled
def _advance_field(elements, cell, tile, half, first, space):
    """G of a tile at the next frequencies, field[frequency][element][3][half]: the mean over the sub-elements."""
    n_elements, n_sub = elements.sub_x.shape
    full = elements.constants[6] != 0.0
    hertz = cell.rate / cell.window_length
    waves, field = space.waves, space.field
    per_frequency = n_elements * 3 * WIDE
    at = tile * n_elements * n_sub * 4 * LANES
    for e in range(n_elements):
        zero = load(waves, at) * 0
        re0, im0, re1, im1, re2, im2, re3, im3 = zero, zero, zero, zero, zero, zero, zero, zero
        for _ in range(n_sub):
            re, im = load(waves, at), load(waves, at + LANES)
            step_re, step_im = load(waves, at + 2 * LANES), load(waves, at + 3 * LANES)
            if full:
                half_width = load(space.widths, at // 4)
                bin0 = cell.first_bin + first
                w0 = np.sinc(half_width * ((bin0) * hertz / math.pi))
                w1 = np.sinc(half_width * ((bin0 + 1) * hertz / math.pi))
                w2 = np.sinc(half_width * ((bin0 + 2) * hertz / math.pi))
                w3 = np.sinc(half_width * ((bin0 + 3) * hertz / math.pi))
                re0, im0 = fma(re, w0, re0), fma(im, w0, im0)
                re, im = _advance(re, im, step_re, step_im)
                re1, im1 = fma(re, w1, re1), fma(im, w1, im1)
                re, im = _advance(re, im, step_re, step_im)
                re2, im2 = fma(re, w2, re2), fma(im, w2, im2)
                re, im = _advance(re, im, step_re, step_im)
                re3, im3 = fma(re, w3, re3), fma(im, w3, im3)
            else:
                re0, im0 = re0 + re, im0 + im
                re, im = _advance(re, im, step_re, step_im)
                re1, im1 = re1 + re, im1 + im
                re, im = _advance(re, im, step_re, step_im)
                re2, im2 = re2 + re, im2 + im
                re, im = _advance(re, im, step_re, step_im)
                re3, im3 = re3 + re, im3 + im
            re, im = _advance(re, im, step_re, step_im)
            store(waves, at, re)
            store(waves, at + LANES, im)
            at += 4 * LANES
        to = e * 3 * WIDE + half * LANES
        _store_triple(field, to, WIDE, re0, im0)
        _store_triple(field, to + per_frequency, WIDE, re1, im1)
        _store_triple(field, to + 2 * per_frequency, WIDE, re2, im2)
        _store_triple(field, to + 3 * per_frequency, WIDE, re3, im3)


@compiled
def _transmit(i, half, n_elements, n_transmits, lanes, space):
    """Pressure of a tile at frequency i of the batch, pressure[transmit][3] in the three sums of `complex_outer`."""
    space.pressure[: n_transmits * TRIPLE] = 0
    for a in range(0, n_transmits, ROWS):
        complex_outer(
            space.pressure,
            a * TRIPLE,
            space.drive,
            i * n_elements * 3 * lanes + a,
            lanes,
            1,
            3 * lanes,
            space.field,
            i * n_elements * 3 * WIDE + half * LANES,
            WIDE,
            3 * WIDE,
            n_elements,
            min(ROWS, n_transmits - a),
        )


@compiled
def _turn_pressure(n_full, n_transmits, reflectivity, half, space):
    """Pressure times reflectivity with lanes on transmits, source[group][scatterer][3]; left-over transmits stay."""
    for group in range(n_full):
        for lane in range(LANES):
            a = group * LANES + lane
            re, im = reflectivity * 0, reflectivity * 0
            if a < n_transmits:
                re, im = _complex(space.pressure, a * TRIPLE)
            store(space.rows, lane * PAIR, re * reflectivity)
            store(space.rows, lane * PAIR + LANES, im * reflectivity)
        at = (group * WIDE + half * LANES) * TRIPLE
        transpose_block(space.rows, 0, PAIR, space.source, at, TRIPLE)
        transpose_block(space.rows, LANES, PAIR, space.source, at + LANES, TRIPLE)
        for s in range(LANES):
            to = at + s * TRIPLE
            store(space.source, to + 2 * LANES, load(space.source, to) + load(space.source, to + LANES))
    for a in range(n_full * LANES, n_transmits):
        re, im = _complex(space.pressure, a * TRIPLE)
        _store_triple(space.pressure, a * TRIPLE, LANES, re * reflectivity, im * reflectivity)


@compiled
def _receive_group(i, n_elements, n_scatterers, group, at, space):
    """Echoes of a group of transmits from one or two tiles, added to sums[element][3] from `at` on."""
    for e in range(0, n_elements, ROWS):
        complex_outer(
            space.sums,
            at + e * TRIPLE,
            space.field,
            (i * n_elements + e) * 3 * WIDE,
            WIDE,
            3 * WIDE,
            1,
            space.source,
            group * WIDE * TRIPLE,
            LANES,
            TRIPLE,
            n_scatterers,
            min(ROWS, n_elements - e),
        )


@compiled
def _receive_alone(i, half, n_elements, transmit, at, space):
    """Echo of one transmit with lanes on scatterers, added to sums[element][3] from `at` on."""
    at_pressure = transmit * TRIPLE
    re, im = load(space.pressure, at_pressure), load(space.pressure, at_pressure + LANES)
    both = load(space.pressure, at_pressure + 2 * LANES)
    for e in range(n_elements):
        of, to = (i * n_elements + e) * 3 * WIDE + half * LANES, at + e * TRIPLE
        store(space.sums, to, fma(load(space.field, of), re, load(space.sums, to)))
        store(space.sums, to + LANES, fma(load(space.field, of + WIDE), im, load(space.sums, to + LANES)))
        store(space.sums, to + 2 * LANES, fma(load(space.field, of + 2 * WIDE), both, load(space.sums, to + 2 * LANES)))


@compiled
def _finish_group(sums, at, elements, cell, j, out, out_at):
    """Spectrum at frequency j of one group of transmits: times S B² and the receive delay's fraction of a sample."""
    n_bins = len(cell.factor)
    for e in range(len(elements.x)):
        factor = _receive_factor(elements, cell, j, e)
        re, im = _complex(sums, at + e * TRIPLE)
        re, im = _product(re, im, factor.real, factor.imag)
        to = out_at + (e * n_bins + j) * PAIR
        store(out, to, re)
        store(out, to + LANES, im)


@compiled
def _finish_left(sums, at, n_left, elements, cell, j, out, out_at):
    """The same for transmits with lanes on scatterers: the sum over the lanes first."""
    n_elements, n_bins = len(elements.x), len(cell.factor)
    for e in range(n_elements):
        factor = _receive_factor(elements, cell, j, e)
        to = out_at + (e * n_bins + j) * PAIR
        out[to : to + PAIR] = 0
        for a in range(n_left):
            re, im = _complex(sums, at + (a * n_elements + e) * TRIPLE)
            re, im = _product(re, im, factor.real, factor.imag)
            out[to + a] = total(re)
            out[to + LANES + a] = total(im)


@compiled
def _receive_factor(elements, cell, j, e):
    if elements.receive_fraction[e] == 0.0:
        return cell.factor[j]
    angle = 2 * math.pi * (cell.first_bin + j) * elements.receive_fraction[e] / cell.window_length
    return np.complex64(cell.factor[j] * complex(math.cos(angle), math.sin(angle)))


@compiled
def _product(re, im, other_re, other_im):
    """Complex product."""
    return fma(re, other_re, -(im * other_im)), fma(re, other_im, im * other_re)


@compiled
def _advance(re, im, step_re, step_im):
    """Complex product with 1 + step. The 1 kept apart, float32 rounds the step itself and not its distance from 1:
    hundreds of products of one step would add its error up."""
    return fma(re, step_re, fma(-im, step_im, re)), fma(re, step_im, fma(im, step_re, im))


@compiled
def _complex(sums, at):
    """Real and imaginary part of a complex number from the three sums of `complex_outer`."""
    a, b = load(sums, at), load(sums, at + LANES)
    return a - b, load(sums, at + 2 * LANES) - a - b


@compiled
def _store_triple(array, at, step, re, im):
    store(array, at, re)
    store(array, at + step, im)
    store(array, at + 2 * step, re + im)


# --- transform and sum -----------------------------------------------------------------------------------------------


def _twiddles(n: int) -> np.ndarray:
    """exp(-2πi k / n), (n, 2) float32."""
    angle = -2 * np.pi * np.arange(n) / n
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


@compiled
def _add_cells(
    record, shape, part, spectra, spectrum_size, windows, transmit_at, element_at, twiddles, twiddles_at, x, y, rows
):
    """Add the echoes of cells to record[:, part[0] : part[1]], record of `shape` but flat.

    Two elements a transform: the spectra R of real echoes make R_1 + i R_2 and its mirror conj(R_1) + i conj(R_2), whose
    transform has the first element's echoes for its real part and the second's for its imaginary part.
    """
    n_transmits, n_elements, n_samples = shape
    for e in range(part[0], part[1], 2):
        both = 2 if e + 1 < part[1] else 1
        for i in range(len(windows)):  # cells inside, so that an element's record stays in the cache
            n, start, first_bin, n_bins = windows[i]
            for group in range((n_transmits + LANES - 1) // LANES):
                at = i * spectrum_size + (group * n_elements + e) * n_bins * PAIR
                _fill(x, n, spectra, at, first_bin, n_bins, both)
                echoes = x if _transform(n, twiddles[twiddles_at[i] :], x, y) else y
                for k in range(0, LANES * PAIR, LANES):  # a block may run over the end of the period
                    store(echoes, n * PAIR + k, load(echoes, k))
                for second in range(both):
                    row = (group * LANES * n_elements + e + second) * n_samples
                    offsets = transmit_at[i, group * LANES : (group + 1) * LANES] + (element_at[i, e + second] + start)
                    _add_echoes(
                        echoes, second * LANES, n, start, record, row, n_elements * n_samples, n_samples, offsets, rows
                    )


@compiled
def _fill(x, n, spectra, at, first_bin, n_bins, both):
    """x[n][2] = the spectra of one or two elements packed in one, with their mirror."""
    x[: n * PAIR] = 0
    for j in range(n_bins):
        re, im = load(spectra, at + j * PAIR), load(spectra, at + j * PAIR + LANES)
        re2, im2 = re * 0, re * 0
        if both == 2:
            re2, im2 = load(spectra, at + (n_bins + j) * PAIR), load(spectra, at + (n_bins + j) * PAIR + LANES)
        to, mirror = (first_bin + j) * PAIR, (n - first_bin - j) * PAIR
        store(x, to, re - im2)
        store(x, to + LANES, im + re2)
        store(x, mirror, re + im2)
        store(x, mirror + LANES, re2 - im)


@compiled
def _add_echoes(echoes, part, n, start, record, first_row, row_step, n_samples, offsets, rows):
    """Add real echoes, lanes on transmits, to the rows of the record that begin at first_row + lane row_step: sample k of
    the window, which is sample (start + k) % n of the period, at offsets[lane] + k, as far as the row goes."""
    earliest, latest = offsets.min(), offsets.max()
    for k in range(0, n, LANES):
        transpose_block(echoes, (start + k) % n * PAIR + part, PAIR, rows, 0, LANES)
        if earliest + k >= 0 and latest + k <= n_samples - LANES and k <= n - LANES:
            for lane in range(len(offsets)):
                at = first_row + lane * row_step + offsets[lane] + k
                store(record, at, load(record, at) + load(rows, lane * LANES))
        else:
            _add_clipped(rows, min(LANES, n - k), record, first_row, row_step, n_samples, offsets, k)


@compiled
def _add_clipped(rows, count, record, first_row, row_step, n_samples, offsets, k):
    """The same for a block that is cut by the end of the window or of the record."""
    for lane in range(len(offsets)):
        offset = offsets[lane] + k
        for j in range(max(0, -offset), min(count, n_samples - offset)):
            record[first_row + lane * row_step + offset + j] += rows[lane * LANES + j]


@compiled
def _transform(n, twiddles, x, y):
    """Discrete Fourier transform of x[n][2] with lanes apart (Stockham's autosort, mixed radix); True if the answer is in
    x, else it is in y."""
    stride, in_x = 1, True
    while stride < n:
        source, target = (x, y) if in_x else (y, x)
        rest = n // stride
        radix = 4 if rest % 4 == 0 else 5 if rest % 5 == 0 else 3 if rest % 3 == 0 else 2
        rest //= radix
        for p in range(rest):
            for q in range(stride):
                at, step = (q + stride * p) * PAIR, stride * rest * PAIR
                to, stride_to = (q + stride * radix * p) * PAIR, stride * PAIR
                if radix == 4:
                    _radix4(source, at, step, target, to, stride_to, twiddles, p * stride)
                elif radix == 2:
                    _radix2(source, at, step, target, to, stride_to, twiddles, p * stride)
                elif radix == 3:
                    _radix3(source, at, step, target, to, stride_to, twiddles, p * stride)
                else:
                    _radix5(source, at, step, target, to, stride_to, twiddles, p * stride)
        stride *= radix
        in_x = not in_x
    return in_x


@compiled
def _get(source, at):
    return load(source, at), load(source, at + LANES)


@compiled
def _put(target, to, re, im, twiddles, k):
    re, im = _product(re, im, twiddles[k, 0], twiddles[k, 1])
    store(target, to, re)
    store(target, to + LANES, im)


@compiled
def _radix2(source, at, step, target, to, stride, twiddles, k):
    a, b = _get(source, at)
    c, d = _get(source, at + step)
    _put(target, to, a + c, b + d, twiddles, 0)
    _put(target, to + stride, a - c, b - d, twiddles, k)


@compiled
def _radix3(source, at, step, target, to, stride, twiddles, k):
    re0, im0 = _get(source, at)
    re1, im1 = _get(source, at + step)
    re2, im2 = _get(source, at + 2 * step)
    sum_re, sum_im = re1 + re2, im1 + im2
    half_re, half_im = fma(sum_re, -0.5, re0), fma(sum_im, -0.5, im0)
    turn_re, turn_im = (im1 - im2) * math.sqrt(0.75), (re2 - re1) * math.sqrt(0.75)  # -i sin(2π/3) (x1 - x2)
    _put(target, to, re0 + sum_re, im0 + sum_im, twiddles, 0)
    _put(target, to + stride, half_re + turn_re, half_im + turn_im, twiddles, k)
    _put(target, to + 2 * stride, half_re - turn_re, half_im - turn_im, twiddles, 2 * k)


@compiled
def _radix4(source, at, step, target, to, stride, twiddles, k):
    re0, im0 = _get(source, at)
    re1, im1 = _get(source, at + step)
    re2, im2 = _get(source, at + 2 * step)
    re3, im3 = _get(source, at + 3 * step)
    even_re, even_im, odd_re, odd_im = re0 + re2, im0 + im2, re1 + re3, im1 + im3
    half_re, half_im = re0 - re2, im0 - im2
    turn_re, turn_im = im1 - im3, re3 - re1  # -i (x1 - x3)
    _put(target, to, even_re + odd_re, even_im + odd_im, twiddles, 0)
    _put(target, to + stride, half_re + turn_re, half_im + turn_im, twiddles, k)
    _put(target, to + 2 * stride, even_re - odd_re, even_im - odd_im, twiddles, 2 * k)
    _put(target, to + 3 * stride, half_re - turn_re, half_im - turn_im, twiddles, 3 * k)


@compiled
def _radix5(source, at, step, target, to, stride, twiddles, k):
    cosine1, cosine2 = math.cos(2 * math.pi / 5), math.cos(4 * math.pi / 5)
    sine1, sine2 = math.sin(2 * math.pi / 5), math.sin(4 * math.pi / 5)
    re0, im0 = _get(source, at)
    re1, im1 = _get(source, at + step)
    re2, im2 = _get(source, at + 2 * step)
    re3, im3 = _get(source, at + 3 * step)
    re4, im4 = _get(source, at + 4 * step)
    sum1_re, sum1_im, sum2_re, sum2_im = re1 + re4, im1 + im4, re2 + re3, im2 + im3
    gap1_re, gap1_im, gap2_re, gap2_im = re1 - re4, im1 - im4, re2 - re3, im2 - im3
    a_re, a_im = fma(sum1_re, cosine1, fma(sum2_re, cosine2, re0)), fma(sum1_im, cosine1, fma(sum2_im, cosine2, im0))
    b_re, b_im = fma(sum1_re, cosine2, fma(sum2_re, cosine1, re0)), fma(sum1_im, cosine2, fma(sum2_im, cosine1, im0))
    c_re, c_im = fma(gap1_im, sine1, gap2_im * sine2), -fma(gap1_re, sine1, gap2_re * sine2)
    d_re, d_im = fma(gap1_im, sine2, gap2_im * -sine1), -fma(gap1_re, sine2, gap2_re * -sine1)
    _put(target, to, re0 + sum1_re + sum2_re, im0 + sum1_im + sum2_im, twiddles, 0)
    _put(target, to + stride, a_re + c_re, a_im + c_im, twiddles, k)
    _put(target, to + 2 * stride, b_re + d_re, b_im + d_im, twiddles, 2 * k)
    _put(target, to + 3 * stride, b_re - d_re, b_im - d_im, twiddles, 3 * k)
    _put(target, to + 4 * stride, a_re - c_re, a_im - c_im, twiddles, 4 * k)
