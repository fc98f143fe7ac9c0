"""The fast engine: cells of scatterers, all transmits at once, vectors of 16 (`kernels.simd`), threads.

Echoes of one cell (`kernels.cells`), for each frequency of its grid and each tile of 16 scatterers:

    field      G_e(s), from the last frequency's by one complex product (a recurrence on phases relative to the cell)
    pressure   P_a(s) = Σ_e drive_ae G_e(s)         lanes on scatterers, drive broadcast
    echo       R_ae'  = Σ_s ρ_s P_a(s) G_e'(s)      lanes on transmits, G broadcast (few transmits: lanes on scatterers)

Then, element by element: inverse transform, and the sum into the record at whole-sample offsets. Threads share the cells
of a round in the first step and the elements in the second, where cells are added in their order: the same input gives
the same bytes whatever the number of threads. They are Python threads running compiled code without the interpreter's
lock, so that the engine may be called from several threads (Dask) at once.

What is compiled: `kernels.cells` for the first step, `kernels.echoes` for the second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from queue import SimpleQueue
from typing import Any

import numpy as np

from ... import physics
from ...cells import Cells, make_cells
from ...elevation import segment_weights
from ...errors import EngineError
from ...plan import Beamforming, FilterLaw, Lens, Plan, Progress
from ...types import ImageGrid, Scatterers
from ..protocol import Engine
from ..reference import ENGINE as reference
from . import adaptive, beamform
from .kernels import add_cells, cell_adjoint, cell_power, cell_spectrum, take_echoes
from .kernels.layout import (
    BATCH,
    BEAM,
    LANES,
    LONGEST_SEGMENT,
    PAIR,
    TRIPLE,
    WIDE,
    Cell,
    Elements,
    Workspace,
    aligned_empty,
)
from .threads import as_input, finish, n_threads, workers

DEFAULT_MEMORY = 1e9  # bytes beside the result
FEW = 3  # fewer transmits than this, left over from groups of 16, are cheaper with lanes on scatterers


class CpuEngine(Engine):
    """The engine of any machine, in threads."""

    name = "cpu"

    def simulate(
        self,
        scatterers: Scatterers,
        plan: Plan,
        n_samples: int,
        start_sample: int = 0,
        max_memory: float | None = None,
        progress: Progress | None = None,
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
        # Copies: the value's own are read-only, and kernels would compile once more for those.
        x, z, reflectivity = (a.copy() for a in (scatterers.x, scatterers.z, scatterers.reflectivity))
        y = _elevations(scatterers, plan)
        work = _Work(plan, make_cells(x, z, plan, LANES, y=y), x, z, reflectivity, y)
        _in_rounds(work, max_memory, partial(_add_round, work, record, start_sample), progress)
        return record

    def adjoint(
        self,
        points: Scatterers,
        plan: Plan,
        samples: np.ndarray,
        start_sample: int = 0,
        max_memory: float | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Project echoes on points: the transpose of `simulate` in the reflectivity, by the same cells, windows and bands.

        Parameters
        ----------
        points : in front of the array; their reflectivity is not read.
        samples : (n_transmits, n_elements, n_samples) float32, from sample `start_sample` on.

        Returns
        -------
        (n_points,) float32

        Raises
        ------
        EngineError
            `max_memory` (bytes beside the result, default 1 GB) cannot hold one cell.
        """
        projected = np.zeros(len(points), np.float32)
        if len(points) == 0:
            return projected
        x, z, y = points.x.copy(), points.z.copy(), _elevations(points, plan)
        work = _Work(plan, make_cells(x, z, plan, LANES, y=y), x, z, np.ones(len(points)), y)
        cells, size = work.cells, work.spectrum_size
        shape, record = samples.shape, as_input(samples.astype(np.float32, copy=False)).reshape(-1)
        drive = work.workspace_sizes()[Workspace._fields.index("drive")]
        one = work.workspace_bytes() + 4 * (size + drive + work.n_groups * LANES * TRIPLE)
        spaces: SimpleQueue[Any] = SimpleQueue()
        n_workers = _n_workers(work, one, max_memory)
        _ = work.twiddles  # by one thread
        for _ in range(n_workers):
            space, buffers = work.workspace()
            back = space._replace(drive=aligned_empty(drive), pressure=aligned_empty(work.n_groups * LANES * TRIPLE))
            spaces.put((space, back, aligned_empty(size), buffers))

        def run(i: int) -> None:
            cell = work.cell(i)
            space, back, spectra, buffers = spaces.get()
            here, there, rows = buffers
            try:
                n, start = int(cells.window_length[i]), int(cells.window_start[i])
                take_echoes(
                    record,
                    shape,
                    (n, start, int(cells.first_bin[i]), int(cells.n_bins[i])),
                    cells.transmit_reference[i] - start_sample,
                    cells.element_reference[i] + work.receive_samples,
                    work.twiddles[work.twiddles_at[n] :],
                    here,
                    there,
                    rows,
                    spectra,
                )
                out = np.zeros(cell.points.shape[1], np.float32)
                cell_adjoint(work.elements, cell, space, back, spectra, out)
            finally:
                spaces.put((space, back, spectra, buffers))
            part = cells.order[cells.first[i] : cells.first[i + 1]]
            projected[part] = out[: len(part)]

        with workers(n_workers) as pool:
            finish([pool.submit(run, i) for i in range(len(cells))], progress)
        return projected

    def pressure_field(
        self,
        plan: Plan,
        grid: ImageGrid,
        threshold_db: float,
        max_memory: float | None = None,
        progress: Progress | None = None,
        y: float = 0.0,
    ) -> np.ndarray:
        """RMS pressure (n_transmits, nz, nx) float64: sqrt(width Σ_f |P|² df) (MUST's pfield); 0 behind the array.

        The sum over a cell's coarse grid equals the sum over a fine one: the window holds all of the wave (Parseval).
        """
        probe = plan.acquisition.probe
        if plan.acquisition.is_continuous:  # one frequency: nothing for cells to save
            return reference.pressure_field(plan, grid, threshold_db, max_memory, progress, y)
        x, z = (axis.ravel() for axis in grid.mesh())
        front = np.flatnonzero(~probe.is_behind(x, z))
        power = np.zeros((plan.acquisition.n_transmits, x.size))
        if len(front):
            points = x[front], z[front]
            level = np.full(len(front), float(y)) if plan.is_deep else None
            cells = make_cells(*points, plan, LANES, receive=False, threshold_db=threshold_db, y=level)
            work = _Work(plan, cells, *points, np.ones(len(front)), level)
            power[:, front] = _powers(work, max_memory, progress)
        return np.sqrt(plan.width * power).reshape(-1, *grid.shape)

    def delay_and_sum(self, samples: np.ndarray, beamforming: Beamforming) -> np.ndarray:
        """Images (..., nz, nx), complex64 or float32 as the samples are."""
        if beamforming.combination is not None:
            return adaptive.combine(samples, beamforming)
        return beamform.delay_and_sum(samples, beamforming)

    def mix_and_filter(self, samples: np.ndarray, law: FilterLaw) -> np.ndarray:
        """Demodulated channels (..., n_samples) complex64."""
        if samples.dtype not in (np.float32, np.float64):
            samples = samples.astype(np.float32)
        iq = np.empty(samples.shape, dtype=np.complex64)
        shape = math.prod(samples.shape[:-1]), samples.shape[-1]
        beamform.mix_and_filter(np.ascontiguousarray(samples).reshape(shape), *law, iq.reshape(shape))
        return iq

    def arrival_bounds(
        self,
        x: np.ndarray,
        z: np.ndarray,
        source_x: np.ndarray,
        source_z: np.ndarray,
        delays: np.ndarray,
        speed_of_sound: float,
        with_last: bool = True,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """First and last arrival of each law at points."""
        return beamform.arrival_bounds(x, z, source_x, source_z, delays, speed_of_sound, with_last)


ENGINE = CpuEngine()


# --- work and memory -------------------------------------------------------------------------------------------------


class _Work:
    """A simulation laid out for the threads: per-cell arguments, sizes of buffers."""

    def __init__(
        self,
        plan: Plan,
        cells: Cells,
        x: np.ndarray,
        z: np.ndarray,
        reflectivity: np.ndarray,
        y: np.ndarray | None = None,
    ) -> None:
        acquisition, medium = plan.acquisition, plan.acquisition.medium
        self.plan, self.cells, self._points, self._y = plan, cells, (x, z, reflectivity), y
        lens = plan.lens or Lens(0.0, math.inf)
        self._segment = _segments(cells.segment)
        self._n_widths = (1 if plan.sub_y is None else 2) if acquisition.full_frequency_directivity else 0
        self.rate = acquisition.sampling_frequency
        self.n_transmits, self.n_foci, self.n_elements = plan.delays.shape
        self.n_groups = -(-self.n_transmits // LANES)
        left = self.n_transmits % LANES
        self.n_left = left if left < FEW else 0  # transmits with lanes on scatterers
        self.n_full = self.n_groups - (self.n_left > 0)  # groups with lanes on transmits
        self.receive_samples = np.rint(plan.receive_delays * self.rate).astype(np.int64)
        self.elements = Elements(
            as_input(plan.sub_x),
            np.zeros((0, 0)) if plan.sub_y is None else as_input(plan.sub_y),
            as_input(plan.sub_z),
            as_input(plan.sin_element),
            as_input(plan.cos_element),
            as_input(acquisition.probe.element_x),
            as_input(acquisition.probe.element_z),
            as_input(plan.receive_delays * self.rate - self.receive_samples),
            as_input(plan.delays * self.rate),
            as_input(plan.weights),
            float(plan.minimum_distance),
            float(plan.baffle),
            float(plan.half_width_wavenumber),
            float(physics.wavenumber(1.0, medium.speed_of_sound) * plan.sub_width / 2),
            float(plan.half_height_wavenumber),
            float(physics.wavenumber(1.0, medium.speed_of_sound) * plan.sub_height / 2),
            float(medium.speed_of_sound),
            float(medium.attenuation_db_cm_mhz),
            bool(acquisition.full_frequency_directivity),
            plan.lens is not None,
            plan.sub_y is not None,
            float(lens.height),
            1.0 / lens.focus,
            _beam_weights() if plan.lens is not None else np.zeros(0, np.float32),
        )
        self._spectra: dict[int, np.ndarray] = {}
        lengths = np.unique(cells.window_length)
        self.twiddles_at = dict(zip(lengths.tolist(), (np.cumsum(lengths) - lengths).tolist(), strict=True))

    @cached_property
    def twiddles(self) -> np.ndarray:
        """Of all lengths of window, one after the other. Made after the budget is checked: windows may be long."""
        return np.concatenate([twiddles_of(n) for n in self.twiddles_at])

    def cell(self, i: int, receive: bool = True) -> Cell:
        cells = self.cells
        part = cells.order[cells.first[i] : cells.first[i + 1]]
        padded = np.concatenate([part, np.full(-len(part) % LANES, part[-1])])
        points = np.empty((4, len(padded)), dtype=np.float32)
        points[0] = self._points[0][padded] - cells.center_x[i]
        points[1] = self._points[1][padded] - cells.center_z[i]
        points[2] = self._points[2][padded]
        points[2, len(part) :] = 0
        if self.plan.sub_y is not None:
            points[3] = self._y[padded] - cells.center_y[i]  # type: ignore[index]
        else:
            points[3] = 0.0 if self._y is None else self._y[padded] ** 2 - cells.center_y[i] ** 2
        return Cell(
            points,
            np.array([cells.center_x[i], cells.center_z[i], cells.center_y[i]]),
            cells.element_reference[i],
            cells.transmit_reference[i],
            int(cells.first_bin[i]),
            int(cells.window_length[i]),
            self.rate,
            self._factor(i, receive),
            self._segment[i],
        )

    def _factor(self, i: int, receive: bool) -> np.ndarray:
        """Spectrum (n_bins,) that multiplies the sum over scatterers, with the scale and the inverse transform's 1/n."""
        n, first = int(self.cells.window_length[i]), int(self.cells.first_bin[i])
        if n not in self._spectra:
            frequency = np.arange(n // 2 + 1) * self.rate / n
            spectrum = self.plan.excitation(frequency)
            if receive:
                scale = self.plan.width * self.rate / n
                spectrum = spectrum * self.plan.response(frequency) * scale
            self._spectra[n] = spectrum.astype(np.complex64)
        return self._spectra[n][first : first + int(self.cells.n_bins[i])]

    @property
    def spectrum_size(self) -> int:
        """Floats of the largest cell's spectrum [group][element][frequency][2]."""
        size: int = self.n_groups * self.n_elements * int(self.cells.n_bins.max()) * PAIR
        return size

    def workspace_sizes(self) -> list[int]:
        """Floats of each buffer of a `Workspace`."""
        n_tiles = -(-int(np.diff(self.cells.first).max()) // LANES)
        lanes = self.n_groups * LANES
        return [
            n_tiles * self.plan.sub_x.size * 4 * LANES,
            n_tiles * self.plan.sub_x.size * LANES * self._n_widths,
            n_tiles * self.n_elements * BEAM if self.plan.lens is not None else 0,
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

    def workspace(self) -> tuple[Workspace, list[np.ndarray]]:
        buffers = Workspace(*(aligned_empty(n) for n in self.workspace_sizes()))
        return buffers, [aligned_empty(self.transform_size()) for _ in range(3)]

    def workspace_bytes(self) -> int:
        return 4 * (sum(self.workspace_sizes()) + 3 * self.transform_size())


def twiddles_of(n: int) -> np.ndarray:
    """exp(-2πi k / n), (n, 2) float32."""
    angle = -2 * np.pi * np.arange(n) / n
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def _elevations(points: Scatterers, plan: Plan) -> np.ndarray | None:
    """Return the elevations, m, in an array of their own, where the plan has three dimensions."""
    if not plan.is_deep:
        return None
    return np.zeros(len(points)) if points.y is None else points.y.copy()


def _segments(allowed: np.ndarray) -> np.ndarray:
    """Return lengths of segments that are multiples of BATCH, at most those allowed."""
    return np.clip(allowed.astype(np.int64) // BATCH * BATCH, BATCH, LONGEST_SEGMENT)


def _beam_weights() -> np.ndarray:
    """Return `segment_weights` of all lengths of segment, one after the other: [length][frequency][6]."""
    lengths = range(BATCH, LONGEST_SEGMENT + 1, BATCH)
    return np.concatenate([segment_weights(n).T.ravel() for n in lengths]).astype(np.float32)


def _in_rounds(
    work: _Work, max_memory: float | None, add_round: Callable[..., None], progress: Progress | None
) -> None:
    """Spectra of a round of cells by all threads; then, while the next round runs, their sum into the record."""
    n_workers, n_round = _share_memory(work, max_memory)
    _ = work.twiddles  # by one thread
    workspaces: SimpleQueue[Any] = SimpleQueue()
    for _ in range(n_workers):
        workspaces.put(work.workspace())
    size = work.spectrum_size
    buffers = [aligned_empty(n_round * size) for _ in range(2)]

    def with_workspace(task: Callable[..., None]) -> None:
        workspace = workspaces.get()
        try:
            task(*workspace)
        finally:
            workspaces.put(workspace)

    def spectrum(i: int, out: np.ndarray) -> None:
        with_workspace(
            lambda space, _: cell_spectrum(work.elements, work.cell(i), space, work.n_full, work.n_left, out)
        )

    n_cells = len(work.cells)
    with workers(n_workers) as pool:
        previous = range(0)
        for turn, first in enumerate(range(0, n_cells + n_round, n_round)):
            current = range(first, min(first + n_round, n_cells))
            spectra, finished = buffers[turn % 2], buffers[1 - turn % 2]
            tasks = [pool.submit(spectrum, i, spectra[k * size : (k + 1) * size]) for k, i in enumerate(current)]
            # The small tasks come last and fill the gap until all threads are done.
            if len(previous):
                add = partial(add_round, previous, finished)
                tasks += [pool.submit(with_workspace, partial(add, part)) for part in _parts(work, n_workers)]
            finish(tasks)
            if progress is not None and len(previous):
                progress(previous.stop, n_cells)
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
    n_workers = min(n_threads(), len(cells))
    while n_workers > 1 and fixed + n_workers * (work.workspace_bytes() + one_cell) > budget:
        n_workers -= 1
    room = int((budget - fixed - n_workers * work.workspace_bytes()) / one_cell)
    return n_workers, max(1, min(room, 4 * n_workers))


def _add_round(
    work: _Work,
    record: np.ndarray,
    start_sample: int,
    round_: range,
    spectra: np.ndarray,
    part: tuple[int, int],
    _: Workspace,
    buffers: list[np.ndarray],
) -> None:
    """Add the echoes of a round's cells, in order, to the record of elements part[0] to part[1] - 1."""
    cells, these = work.cells, slice(round_.start, round_.stop)
    n = cells.window_length[these]
    windows = np.stack([n, cells.window_start[these], cells.first_bin[these], cells.n_bins[these]], axis=1)
    add_cells(
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


def _n_workers(work: _Work, bytes_each: int, max_memory: float | None) -> int:
    """Threads that the budget allows, one cell each."""
    budget = DEFAULT_MEMORY if max_memory is None else max_memory
    n_workers = int(min(n_threads(), len(work.cells), budget // bytes_each))
    if n_workers < 1:
        raise EngineError(f"max_memory: expected at least {math.ceil(bytes_each / 1e6)} MB, got {budget / 1e6:.3g} MB")
    return n_workers


def _powers(work: _Work, max_memory: float | None, progress: Progress | None) -> np.ndarray:
    """Σ_f |P|² df (n_transmits, n_points) float64."""
    n_workers = _n_workers(work, work.workspace_bytes(), max_memory)
    cells = work.cells
    power = np.empty((work.n_transmits, len(cells.order)))
    workspaces: SimpleQueue[Any] = SimpleQueue()
    for _ in range(n_workers):
        workspaces.put(work.workspace()[0])

    def run(i: int) -> None:
        cell = work.cell(i, receive=False)
        space = workspaces.get()
        out = np.zeros((work.n_transmits, cell.points.shape[1]), dtype=np.float32)
        cell_power(work.elements, cell, space, out.reshape(-1))
        workspaces.put(space)
        part = cells.order[cells.first[i] : cells.first[i + 1]]
        power[:, part] = out[:, : len(part)] * (work.rate / float(cells.window_length[i]))

    with workers(n_workers) as pool:
        finish([pool.submit(run, i) for i in range(len(cells))], progress)
    return power
