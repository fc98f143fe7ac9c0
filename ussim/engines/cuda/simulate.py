"""Simulation on a graphics card: scatterers into boxes, boxes into launches.

Boxes are squares of a fixed lattice, so that windows, bands and references belong to the acquisition and not to the image:
they are made once and serve every image of a dataset. A box's scatterers in one image are a cell; cells of all images in
flight are sorted by the length of their window, and as many as the memory holds are computed at once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ... import physics
from ...errors import EngineError
from ...plan import Lens, Plan, Progress
from ...types import ImageGrid, Scatterers
from . import structs
from .backend import Backend
from .boxes import Boxes, Sides

LANES = 32
MAX_TRANSMITS = 16  # sums in registers; more transmits go in groups
MAX_POINTS = 1024  # scatterers in a cell: a box with more is several cells, which bounds the memory of one
SHARED_MEMORY = 24 * 1024  # bytes a block of `transmit` or `receive` aims at: at least two blocks on any card
RECORD_STRETCH = 128 * 8  # samples a block of `accumulate` writes (RECORD_THREADS x RECORD_SAMPLES)
IMAGES = 4  # prepared at once: the host cuts the next ones while the card computes these


@dataclass(frozen=True)
class Tuning:
    """Shape of a block: points and frequencies per thread, groups of frequencies a block."""

    points: int = 2
    frequencies: int = 2  # even
    groups: int = 6


def choose_sizes(plan: Plan, shared_memory: int, tuning: Tuning | None = None) -> dict[str, int]:
    """Return the sizes `simulate.cu` is compiled with.

    Raises
    ------
    EngineError
        A block of that shape does not fit the card's shared memory.
    """
    n_transmits = plan.acquisition.n_transmits
    transmits = math.ceil(n_transmits / math.ceil(n_transmits / MAX_TRANSMITS))
    if tuning is None:
        tuning = Tuning() if transmits > 8 else Tuning(frequencies=4, groups=3)
    n_sub = plan.sub_x.shape[1]
    one = (
        8 * tuning.groups * tuning.frequencies * (transmits + LANES * tuning.points)
    )  # weights and G of one inner step
    if one > shared_memory:
        raise EngineError(
            f'engine "cuda": a block of {tuning} takes {one} bytes of shared memory, the card has {shared_memory}; '
            "give fewer groups, frequencies or points"
        )
    inner = min(16, SHARED_MEMORY // one)
    return {
        "TRANSMITS": transmits,
        "POINTS": tuning.points,
        "FREQUENCIES": tuning.frequencies,
        "GROUPS": tuning.groups,
        "INNER": max(inner, 1),
        "N_SUB": n_sub,
        "FULL_DIRECTIVITY": int(plan.acquisition.full_frequency_directivity),
        "ELEVATED": int(plan.lens is not None),
    }


class Simulator:
    """An acquisition on a device: tables, boxes seen so far, compiled kernels.

    `receive` False is for pressure fields: windows of the way there alone.
    """

    def __init__(
        self,
        backend: Backend,
        plan: Plan,
        receive: bool = True,
        threshold_db: float | None = None,
        tuning: Tuning | None = None,
    ) -> None:
        self.backend = backend
        self.plan = plan
        self.receive = receive
        self.sizes = choose_sizes(plan, backend.shared_memory, tuning)
        self.launch = backend.kernels("simulate.cu", self.sizes)
        self.boxes = Boxes(plan, receive, threshold_db)
        self._sides = Sides(plan, receive, self.boxes, LANES * self.sizes["POINTS"])
        self._tables = {name: backend.to_device(table) for name, table in _element_tables(plan).items()}
        self._box_tables: dict[str, Any] = {}
        self._n_uploaded = -1

    @property
    def chunk(self) -> int:
        """Frequencies a block."""
        return self.sizes["GROUPS"] * self.sizes["FREQUENCIES"]

    def echoes(
        self,
        media: Sequence[Scatterers],
        n_samples: int,
        start_sample: int = 0,
        max_memory: float | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """(n_media, n_transmits, n_elements, n_samples) float32 on the device."""
        probe = self.plan.acquisition.probe
        n_transmits, xp = self.plan.acquisition.n_transmits, self.backend.array_module
        one = n_transmits * probe.n_elements * n_samples * 4
        free = self.backend.free_memory()
        if one * len(media) > free:
            raise EngineError(
                f"out of memory: the records of {len(media)} media take {_megabytes(one * len(media))}, "
                f"{_megabytes(free)} are free; give at most {int(free // one)} media at once"
            )
        record = xp.zeros((len(media), n_transmits, probe.n_elements, n_samples), dtype=np.float32)
        budget = _budget(max_memory, free - one * len(media))
        report = _Report(self.backend, progress, len(media))
        for first in range(0, len(media), IMAGES):
            cells = self._cut(media[first : first + IMAGES])
            part = record[first : first + IMAGES]
            work = _Work(self, cells, budget)
            for group in work.groups():
                for first_transmit in range(0, n_transmits, self.sizes["TRANSMITS"]):
                    work.transmit(group, first_transmit)
                    work.receive(group, first_transmit)
                    work.accumulate(group, first_transmit, part, start_sample)
                report.queued(first + len(part) * group.end / len(cells.box))
            del work  # its memory, before the next one asks for as much
        report.end()
        return record

    def projection(
        self,
        points: Scatterers,
        samples: Any,
        start_sample: int = 0,
        max_memory: float | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """Project a record (n_transmits, n_elements, n_samples) float32 on points: (n_points,), both on the device."""
        xp = self.backend.array_module
        projected = xp.zeros(len(points), dtype=np.float32)
        if len(points) == 0:
            return projected
        cells = self._cut([Scatterers(points.x, points.z, np.ones(len(points)), points.y)])
        work = _Work(self, cells, _budget(max_memory, self.backend.free_memory()))
        report = _Report(self.backend, progress, 1)
        in_order = xp.zeros(len(points), dtype=np.float32)
        for group in work.groups():
            for first_transmit in range(0, self.plan.acquisition.n_transmits, self.sizes["TRANSMITS"]):
                work.transmit(group, first_transmit)
                work.gather(group, first_transmit, samples, start_sample)
                work.project(group, first_transmit, in_order)
            report.queued(group.end / len(cells.box))
        report.end()
        projected[self.backend.to_device(cells.order)] = in_order
        return projected

    def pressure(
        self, grid: ImageGrid, max_memory: float | None = None, progress: Progress | None = None, y: float = 0.0
    ) -> Any:
        """RMS pressure (n_transmits, nz, nx) float32 on the device, of the plane at an elevation of y m."""
        acquisition, xp = self.plan.acquisition, self.backend.array_module
        x, z = (axis.ravel() for axis in grid.mesh())
        front = np.flatnonzero(~acquisition.probe.is_behind(x, z))
        power = xp.zeros((acquisition.n_transmits, x.size), dtype=np.float32)
        if len(front):
            cells = self._cut([Scatterers(x[front], z[front], np.ones(len(front)), np.full(len(front), y))])
            work = _Work(self, cells, _budget(max_memory, self.backend.free_memory()))
            report = _Report(self.backend, progress, 1)
            energy = xp.empty((acquisition.n_transmits, len(front)), dtype=np.float32)
            for group in work.groups():
                for first_transmit in range(0, acquisition.n_transmits, self.sizes["TRANSMITS"]):
                    work.transmit(group, first_transmit)
                    work.energy(group, first_transmit, energy)
                report.queued(group.end / len(cells.box))
            report.end()
            power[:, self.backend.to_device(front[cells.order])] = energy
        return xp.sqrt(power).reshape(-1, *grid.shape)

    def count_work(self, media: Sequence[Scatterers]) -> dict[str, float]:
        """Operations and memory traffic of `echoes`, counted from the cells: what `docs/gpu.md` derives limits from.

        Keys: flop (multiply-add = 2; a complex product and sum a transmit, both ways, and the recurrence of each
        sub-element), flop_padded (with the idle lanes of last tiles and chunks), bytes (each array once written, once read,
        in device memory), n_cells, n_samples (of all windows of a channel).
        """
        acquisition = self.plan.acquisition
        n_transmits, n_elements = acquisition.n_transmits, acquisition.probe.n_elements
        cells, tile = self._cut(media), LANES * self.sizes["POINTS"]
        n, n_bins = self.boxes.window_length(cells.box), self.boxes.n_bins(cells.box)
        count = cells.count.astype(np.int64)
        padded_bins = -(-n_bins // self.chunk) * self.chunk
        one_way = 8 * n_transmits + 8 * self.sizes["N_SUB"]
        padded = (-(-count // tile) * tile * n_elements + count * (-(-n_elements // tile) * tile)) * padded_bins
        groups = math.ceil(n_transmits / self.sizes["TRANSMITS"])
        padded_way = groups * 8 * (self.sizes["TRANSMITS"] + self.sizes["N_SUB"])
        channels = n_transmits * n_elements
        q = 2 * 8 * n_transmits * count * padded_bins
        spectra = 8 * channels * (2 * (n // 2 + 1) + n_bins)  # cleared, the band written, read by the transform
        windows = 2 * 4 * channels * n
        return {
            "flop": float(2 * one_way * n_elements * (count * n_bins).sum()),
            "flop_padded": float(padded_way * padded.sum()),
            "bytes": float((q + spectra + windows).sum()),
            "n_cells": float(len(n)),
            "n_samples": float(n.sum()),
        }

    def box_tables(self) -> dict[str, Any]:
        """Return the tables of all boxes seen so far, on the device."""
        if self._n_uploaded != len(self.boxes):
            self._box_tables = {name: self.backend.to_device(table) for name, table in self.boxes.tables().items()}
            self._n_uploaded = len(self.boxes)
        return self._box_tables

    def table(self, name: str) -> Any:
        """Return a table of the elements, on the device."""
        return self._tables[name]

    def _cut(self, media: Sequence[Scatterers]) -> _Cells:
        """Cells of some media, sorted by the length of their window."""
        box, image, count, first, order, local, strength = [], [], [], [], [], [], []
        begin = 0
        for i, medium in enumerate(media):
            if len(medium) == 0:
                continue
            height = np.zeros(len(medium)) if medium.y is None else np.abs(medium.y)
            side = self._sides.choose(medium.x, medium.z, height)
            ix, iz, iy = (np.floor(axis / side).astype(np.int64) for axis in (medium.x, medium.z, height))
            low_x, low_z, low_y = int(ix.min()), int(iz.min()), int(iy.min())
            n_columns, n_layers = int(ix.max()) - low_x + 1, int(iy.max()) - low_y + 1
            square, members, sizes = _sort(((iz - low_z) * n_columns + ix - low_x) * n_layers + iy - low_y)
            square, box_y = square // n_layers, square % n_layers + low_y
            box_x, box_z = square % n_columns + low_x, square // n_columns + low_z
            found = self.boxes.find(side, box_x, box_z, box_y)
            for k in range(len(square)):
                for at in range(0, int(sizes[k]), MAX_POINTS):
                    n = min(MAX_POINTS, int(sizes[k]) - at)
                    box.append(found[k])
                    image.append(i)
                    count.append(n)
                    first.append(begin)
                    begin += n
            x, z = medium.x[members], medium.z[members]
            center_x, center_z = (np.repeat((axis + 0.5) * side, sizes) for axis in (box_x, box_z))
            place = [x - center_x, z - center_z]
            if self.plan.lens is not None:
                raised = height[members] ** 2 - np.repeat((box_y + 0.5) * side, sizes) ** 2
                place += [raised, np.zeros(len(x))]
            local.append(np.stack(place, axis=1).astype(np.float32))
            strength.append(medium.reflectivity[members].astype(np.float32))
            order.append(members)
        boxes = np.array(box, dtype=np.int32)
        by_length = np.argsort(self.boxes.window_length(boxes), kind="stable")  # of one length: by image, then by place
        return _Cells(
            boxes[by_length],
            np.array(image, dtype=np.int32)[by_length],
            np.array(first, dtype=np.int32)[by_length],
            np.array(count, dtype=np.int32)[by_length],
            np.concatenate(order) if order else np.zeros(0, np.int64),
            np.concatenate(local) if local else np.zeros((0, 2 if self.plan.lens is None else 4), np.float32),
            np.concatenate(strength) if strength else np.zeros(0, np.float32),
        )


# --- launches --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Cells:
    """Scatterers of some images, each image's sorted by box."""

    box: np.ndarray  # (n_cells,) int32
    image: np.ndarray  # (n_cells,) int32
    first: np.ndarray  # (n_cells,) int32: scatterers first .. first + count - 1 of `local`
    count: np.ndarray
    order: np.ndarray  # (n,) int64: which of its medium each scatterer is
    local: (
        np.ndarray
    )  # float32: (n, 2) x and z from the box's center, m; (n, 4) with an elevation (`Local` of simulate.cu)
    reflectivity: np.ndarray  # (n,) float32


class _Work:
    """The cells of some images on the device, worked off group by group in memory that all groups share."""

    def __init__(self, simulator: Simulator, cells: _Cells, budget: float) -> None:
        self.simulator, self.cells, self.backend = simulator, cells, simulator.backend
        self.launch, self.sizes = simulator.launch, simulator.sizes
        acquisition = simulator.plan.acquisition
        self.n_elements, self.n_transmits = acquisition.probe.n_elements, acquisition.n_transmits
        self.n = simulator.boxes.window_length(cells.box)
        self.n_chunks = -(-simulator.boxes.n_bins(cells.box) // simulator.chunk)
        row = self.sizes["GROUPS"] * self.sizes["TRANSMITS"] * self.sizes["FREQUENCIES"]
        channels = -(-self.sizes["TRANSMITS"] * self.n_elements // 2) * 2  # even: windows begin at multiples of 8 bytes
        self.q_size = self.n_chunks * cells.count.astype(np.int64) * row  # complex numbers per cell
        self.echo_size = channels * (self.n // 2 + 1) if simulator.receive else np.zeros_like(self.n)
        self.window_size = channels * self.n if simulator.receive else np.zeros_like(self.n)  # float32 numbers
        self._groups = self._split(8 * self.q_size + 8 * self.echo_size + 4 * self.window_size, budget)
        xp = self.backend.array_module
        largest = {
            name: max((int(size[group].sum()) for group in self._groups), default=0)
            for name, size in (("q", self.q_size), ("echo", self.echo_size), ("window", self.window_size))
        }
        self.q = xp.empty(largest["q"], dtype=np.complex64)
        self.spectra = xp.empty(largest["echo"], dtype=np.complex64)
        self.windows = xp.empty(largest["window"], dtype=np.float32)
        self.local = self.backend.to_device(cells.local)
        self.reflectivity = self.backend.to_device(cells.reflectivity)

    def groups(self) -> Iterator[_Group]:
        """Yield groups of cells that fit the memory, each with its tables on the device."""
        for part in self._groups:
            yield _Group(self, part)

    def transmit(self, group: _Group, first_transmit: int) -> None:
        """Q = reflectivity P of a group's scatterers."""
        s, boxes = self.simulator, self.simulator.box_tables()
        self.launch(
            "transmit",
            (group.n_tiles, group.n_chunks),
            LANES * self.sizes["GROUPS"],
            *(group.table[name] for name in ("tile_cell", "tile_first", "box", "first", "count", "q_begin")),
            *(boxes[name] for name in ("box", "sight", "element_reference", "transmit_reference")),
            s.table("element_normal"),
            self.local,
            self.reflectivity,
            *(s.table(name) for name in ("delay_whole", "delay_part", "weight")),
            np.int32(self.n_elements),
            np.int32(s.plan.delays.shape[1]),
            np.int32(self.n_transmits),
            np.int32(first_transmit),
            s.table("physics"),
            self.q,
        )

    def receive(self, group: _Group, first_transmit: int) -> None:
        """Windows of a group's echoes: spectra, then their inverse transforms."""
        s, boxes = self.simulator, self.simulator.box_tables()
        spectra = self.spectra[: group.n_echo]
        spectra.fill(0)
        element_tiles = -(-self.n_elements // (LANES * self.sizes["POINTS"]))
        self.launch(
            "receive",
            (group.n_cells * element_tiles, group.n_chunks),
            LANES * self.sizes["GROUPS"],
            *(group.table[name] for name in ("box", "first", "count", "q_begin", "echo_begin")),
            boxes["box"],
            boxes["sight"],
            s.table("element_normal"),
            s.table("receive_part"),
            self.local,
            boxes["spectrum"],
            self.q,
            np.int32(self.n_elements),
            np.int32(self._used(first_transmit)),
            np.int32(element_tiles),
            s.table("physics"),
            spectra,
        )
        for n, echo, window in group.transforms:
            self.backend.inverse_transform(
                self.spectra[echo].reshape(-1, n // 2 + 1), self.windows[window].reshape(-1, n)
            )

    def accumulate(self, group: _Group, first_transmit: int, record: Any, start_sample: int) -> None:
        """Add a group's windows to the record (images, n_transmits, n_elements, n_samples)."""
        s, boxes = self.simulator, self.simulator.box_tables()
        n_used, n_samples = self._used(first_transmit), record.shape[-1]
        self.launch(
            "accumulate",
            (len(record) * n_used * self.n_elements, -(-n_samples // RECORD_STRETCH)),
            128,
            *(group.table[name] for name in ("image_first", "image_cells", "box", "window_begin")),
            *(boxes[name] for name in ("box", "element_reference", "transmit_reference")),
            s.table("receive_whole"),
            self.windows,
            np.int32(self.n_elements),
            np.int32(self.n_transmits),
            np.int32(first_transmit),
            np.int32(n_used),
            np.int32(start_sample),
            np.int64(n_samples),
            record,
        )

    def gather(self, group: _Group, first_transmit: int, record: Any, start_sample: int) -> None:
        """Spectra of a group's windows of the record (n_transmits, n_elements, n_samples)."""
        s, boxes = self.simulator, self.simulator.box_tables()
        n_used = self._used(first_transmit)
        self.launch(
            "gather",
            (group.n_cells * n_used * self.n_elements,),
            128,
            *(group.table[name] for name in ("box", "window_begin")),
            *(boxes[name] for name in ("box", "element_reference", "transmit_reference")),
            s.table("receive_whole"),
            record,
            np.int32(self.n_elements),
            np.int32(self.n_transmits),
            np.int32(first_transmit),
            np.int32(n_used),
            np.int32(start_sample),
            np.int64(record.shape[-1]),
            self.windows,
        )
        for n, echo, window in group.transforms:
            self.backend.forward_transform(
                self.windows[window].reshape(-1, n), self.spectra[echo].reshape(-1, n // 2 + 1)
            )

    def project(self, group: _Group, first_transmit: int, out: Any) -> None:
        """Add to `out` (n_points,), in the order of the cells, what the gathered spectra say of a group's points."""
        s, boxes = self.simulator, self.simulator.box_tables()
        row = self.sizes["TRANSMITS"] * self.sizes["FREQUENCIES"]
        parts = self.backend.array_module.empty(len(self.q) // row, dtype=np.float32)
        self.launch(
            "project",
            (group.n_tiles, group.n_chunks),
            LANES * self.sizes["GROUPS"],
            *(
                group.table[name]
                for name in ("tile_cell", "tile_first", "box", "first", "count", "q_begin", "echo_begin")
            ),
            boxes["box"],
            boxes["sight"],
            s.table("element_normal"),
            s.table("receive_part"),
            self.local,
            boxes["spectrum"],
            self.q,
            self.spectra,
            np.int32(self.n_elements),
            np.int32(self._used(first_transmit)),
            s.table("physics"),
            parts,
        )
        self.launch(
            "fold",
            (max(1, min(65535, group.n_points // 128)),),
            128,
            *group.points(),
            *(group.table[name] for name in ("box", "first", "count", "q_begin")),
            boxes["box"],
            parts,
            np.int32(group.n_points),
            out,
        )

    def energy(self, group: _Group, first_transmit: int, energy: Any) -> None:
        """Energies (n_transmits, n_points) of a group's points, in the order of the cells."""
        boxes = self.simulator.box_tables()
        n_used = self._used(first_transmit)
        self.launch(
            "energy",
            (max(1, min(65535, group.n_points * n_used // 128)),),
            128,
            *group.points(),
            *(group.table[name] for name in ("box", "first", "count", "q_begin")),
            boxes["box"],
            boxes["spectrum"],
            self.q,
            np.int32(group.n_points),
            np.int32(energy.shape[1]),
            np.int32(first_transmit),
            np.int32(n_used),
            energy,
        )

    def _used(self, first_transmit: int) -> int:
        return min(self.sizes["TRANSMITS"], self.n_transmits - first_transmit)

    def _split(self, size: np.ndarray, budget: float) -> list[slice]:
        """Return runs of cells whose sizes in bytes stay within the budget."""
        if len(size) and size.max() > budget:
            raise EngineError(
                f"out of memory: max_memory or the card leaves {_megabytes(budget)}; the largest cell needs "
                f"{_megabytes(size.max())}"
            )
        groups, first, total = [], 0, 0
        for i, bytes_needed in enumerate(size.tolist()):
            if total + bytes_needed > budget:
                groups.append(slice(first, i))
                first, total = i, 0
            total += bytes_needed
        return [*groups, slice(first, len(size))] if len(size) else []


class _Group:
    """Cells computed at once, with the tables that the kernels read of them."""

    def __init__(self, work: _Work, part: slice) -> None:
        cells = work.cells
        self.end = part.stop  # of the cells
        n_images = int(cells.image.max()) + 1
        count = cells.count[part]
        self.n_cells, self.n_points = len(count), int(count.sum())
        self.n_chunks = int(work.n_chunks[part].max())
        echo_begin = _begins(work.echo_size[part])
        window_begin = _begins(work.window_size[part])
        self.n_echo = int(echo_begin[-1])
        tile = LANES * work.sizes["POINTS"]
        tiles = -(-count // tile)
        self.n_tiles = int(tiles.sum())
        tile_cell = np.repeat(np.arange(self.n_cells, dtype=np.int32), tiles)
        tile_first = (np.arange(self.n_tiles) - np.repeat(_begins(tiles)[:-1], tiles)) * tile
        by_image = np.argsort(cells.image[part], kind="stable")  # for each image its cells in their order
        tables = {
            "box": cells.box[part],
            "first": cells.first[part],
            "count": count,
            "q_begin": _begins(work.q_size[part])[:-1],
            "echo_begin": echo_begin[:-1],
            "window_begin": window_begin[:-1],
            "tile_cell": tile_cell,
            "tile_first": tile_first.astype(np.int32),
            "image_cells": by_image.astype(np.int32),
            "image_first": _begins(np.bincount(cells.image[part], minlength=n_images)).astype(np.int32),
        }
        self._points = cells.first[part], count, work.backend
        self.table = {name: work.backend.to_device(table) for name, table in tables.items()}
        n = work.n[part]
        edges = np.flatnonzero(np.diff(n, prepend=-1, append=-1))  # cells come sorted by n
        self.transforms = [
            (
                int(n[a]),
                slice(int(echo_begin[a]), int(echo_begin[b])),
                slice(int(window_begin[a]), int(window_begin[b])),
            )
            for a, b in pairwise(edges)
            if work.simulator.receive
        ]

    def points(self) -> tuple[Any, Any]:
        """For each scatterer of the group its place among all, and its cell; on the device."""
        first, count, backend = self._points
        within = np.arange(self.n_points) - np.repeat(_begins(count)[:-1], count)
        place = (np.repeat(first, count) + within).astype(np.int32)
        return backend.to_device(place), backend.to_device(np.repeat(np.arange(self.n_cells, dtype=np.int32), count))


class _Report:
    """Progress of what is queued on a device, reported when it is done.

    The host stays at most `AHEAD` groups ahead, so that ctrl-C does not wait for a long queue; that keeps the device busy.
    """

    AHEAD = 2
    STEPS = 1000

    def __init__(self, backend: Backend, progress: Progress | None, total: float) -> None:
        self._backend, self._progress, self._total = backend, progress, total
        self._queue: deque[tuple[float, Callable[[], None]]] = deque()

    def queued(self, done: float) -> None:
        """Work has been queued that brings `done` of the total."""
        self._queue.append((done, self._backend.mark()))
        while len(self._queue) > self.AHEAD:
            self._wait()

    def end(self) -> None:
        """All is queued: wait for it if somebody wants to hear of the end."""
        while self._progress is not None and self._queue:
            self._wait()

    def _wait(self) -> None:
        done, wait = self._queue.popleft()
        wait()
        if self._progress is not None:
            self._progress(round(self.STEPS * done / self._total), self.STEPS)


# --- helpers ---------------------------------------------------------------------------------------------------------


def _element_tables(plan: Plan) -> dict[str, np.ndarray]:
    """Return what the kernels read of the elements and the laws: times in whole samples and a rest, for float32."""
    acquisition, rate = plan.acquisition, plan.acquisition.sampling_frequency
    speed = acquisition.medium.speed_of_sound
    delay, receive_delay = plan.delays * rate, plan.receive_delays * rate
    lens = plan.lens or Lens(0.0, math.inf)
    loss = physics.attenuation(rate, acquisition.medium.attenuation_db_cm_mhz) * math.log2(math.e)
    return {
        "physics": structs.plain(
            structs.table(
                structs.PHYSICS,
                samples_per_meter=rate / speed,
                minimum_distance=plan.minimum_distance,
                baffle=plan.baffle,
                half_width_wavenumber=plan.half_width_wavenumber,
                half_width_per_cycle=physics.wavenumber(rate, speed) * plan.sub_width / 2,
                sub_width=plan.sub_width,
                loss_per_cycle=loss,
                wavenumber_per_cycle=physics.wavenumber(rate, speed),
                lens_height=lens.height,
                lens_vergence=1 / lens.focus,
            )
        ),
        "element_normal": np.stack([plan.sin_element, plan.cos_element], axis=1).astype(np.float32),
        "delay_whole": np.rint(delay).astype(np.int32),
        "delay_part": (delay - np.rint(delay)).astype(np.float32),
        "weight": np.ascontiguousarray(np.broadcast_to(plan.weights, plan.delays.shape), dtype=np.float32),
        "receive_whole": np.rint(receive_delay).astype(np.int32),
        "receive_part": (receive_delay - np.rint(receive_delay)).astype(np.float32),
    }


def _sort(square: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squares that occur, the scatterers sorted by square, and how many each holds."""
    n = int(square.max()) + 1
    if n > 16 * len(square) + 65536:  # far apart: no table of all squares
        names, square = np.unique(square, return_inverse=True)
    else:
        names = np.arange(n)
    kind = np.uint16 if len(names) <= 65536 else np.int64  # of 16 bits: a radix sort
    members = np.argsort(square.astype(kind), kind="stable")
    sizes = np.bincount(square, minlength=len(names))
    occupied = np.flatnonzero(sizes)
    return names[occupied], members, sizes[occupied]


def _begins(sizes: np.ndarray) -> np.ndarray:
    """Return where runs of these sizes begin, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _budget(max_memory: float | None, free: float) -> float:
    """Bytes for what is in flight: as asked, or half of what is free, which is more than a card needs to be busy."""
    return min(float(max_memory), free) if max_memory is not None else min(0.5 * free, 8e9)


def _megabytes(n: float) -> str:
    return f"{n / 1e6:,.0f} MB"
