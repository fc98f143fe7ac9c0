"""The engine for graphics cards, apart from the card: what is computed where, in which order, in how much memory.

The kernels are CUDA C++ (`*.cu`, with the formulas of `physics.cuh`). This module and its two halves, `simulate` and
`beamform`, prepare tables in float64 NumPy and launch the kernels through a `Backend`: `backend` gives the one for CuPy
and NVIDIA cards, and the tests give one that runs the same kernels, compiled as C++, on the host.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import resources
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...plan import Plan
from ...types import ImageGrid, Scatterers
from .. import EngineError, device_errors

if TYPE_CHECKING:
    from ...beamform import Beamforming
    from .simulate import Simulator, Tuning


KEPT_ACQUISITIONS = 4
Progress = Callable[[int, int], None]


class Launch(Protocol):
    """Runs one kernel: arrays pass as pointers, NumPy scalars by value."""

    def __call__(self, name: str, grid: tuple[int, ...], threads: int, *arguments: Any) -> None: ...


class Backend(Protocol):
    """Where arrays live and kernels run. Work is queued in order; only `to_host` waits for it."""

    array_module: Any  # numpy or cupy
    name: str
    n_processors: int  # blocks of kernels that keep it busy are a multiple of this
    shared_memory: int  # bytes a block may declare

    def kernels(self, file: str, sizes: Mapping[str, int | str]) -> Launch:
        """The kernels of a `.cu` file, compiled with these sizes (-D); compiled once."""
        ...

    def to_device(self, array: Any) -> Any:
        """The array, in one piece, on the device."""
        ...

    def to_host(self, array: Any) -> np.ndarray: ...

    def inverse_transform(self, spectra: Any, out: Any) -> None:
        """out (batch, n) float32 = n irfft of spectra (batch, n // 2 + 1) complex64, which may be overwritten."""
        ...

    def forward_transform(self, windows: Any, out: Any) -> None:
        """out (batch, n // 2 + 1) complex64 = rfft of windows (batch, n) float32, which may be overwritten."""
        ...

    def free_memory(self) -> float:
        """Bytes that arrays may still take."""
        ...

    def mark(self) -> Callable[[], None]:
        """A place in the queue: what is returned waits until all work queued before it is done."""
        ...

    def device(self) -> AbstractContextManager[Any]:
        """The device, current while the context lasts."""
        ...


class GpuEngine:
    """The functions of an engine (see `ussim.engines`) on a backend. Results stay on the device.

    Tables that depend on the acquisition alone are kept for the last few, so that a second image costs less than the first.
    """

    on_device = True

    def __init__(self, backend: Backend, tuning: Tuning | None = None) -> None:
        from .beamform import Beamformer

        self.backend = backend
        self.tuning = tuning
        self._simulators: OrderedDict[Hashable, Simulator] = OrderedDict()  # oldest first
        self._beamformer = Beamformer(backend)
        self._lock = RLock()  # delay-and-sum asks for first arrivals

    def simulate(
        self,
        scatterers: Scatterers,
        plan: Plan,
        n_samples: int,
        start_sample: int = 0,
        max_memory: float | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """Echoes (n_transmits, n_elements, n_samples) float32."""
        return self.simulate_batch([scatterers], plan, n_samples, start_sample, max_memory, progress)[0]

    def simulate_batch(
        self,
        media: Sequence[Scatterers],
        plan: Plan,
        n_samples: int,
        start_sample: int = 0,
        max_memory: float | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """Echoes (n_media, n_transmits, n_elements, n_samples) float32. A medium's echoes do not depend on the others."""
        with self._device():
            return self._simulator(plan).echoes(media, n_samples, start_sample, max_memory, progress)

    def adjoint(
        self,
        points: Scatterers,
        plan: Plan,
        samples: Any,
        start_sample: int = 0,
        max_memory: float | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Project echoes on points: the transpose of `simulate` in the reflectivity, (n_points,) float32 in host memory."""
        with self._device():
            record = self.backend.to_device(np.asarray(samples, np.float32))
            projected = self._simulator(plan).projection(points, record, start_sample, max_memory, progress)
            return self.backend.to_host(projected)

    def pressure_field(
        self,
        plan: Plan,
        grid: ImageGrid,
        threshold_db: float,
        max_memory: float | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """RMS pressure (n_transmits, nz, nx) float32, 0 behind the array."""
        from .. import reference
        from .simulate import Simulator

        with self._device():
            if plan.acquisition.is_continuous:  # one frequency: nothing for cells to save
                field = reference.pressure_field(plan, grid, threshold_db, max_memory, progress)
                return self.backend.to_device(field.astype(np.float32))
            return Simulator(self.backend, plan, False, threshold_db, self.tuning).pressure(grid, max_memory, progress)

    def delay_and_sum(self, samples: Any, beamforming: Beamforming) -> Any:
        """Images (..., nz, nx) of channel data (..., n_transmits, n_elements, n_samples)."""
        with self._device():
            return self._beamformer.delay_and_sum(samples, beamforming)

    def mix_and_filter(self, samples: Any, carrier, numerator, denominator, steady, edge: int) -> Any:
        """Demodulated channels (..., n_samples) complex64 (see `cpu.beamform.mix_and_filter`)."""
        with self._device():
            return self._beamformer.mix_and_filter(samples, carrier, numerator, denominator, steady, edge)

    def arrival_bounds(
        self, x, z, source_x, source_z, delays, speed_of_sound: float, with_last: bool = True
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """First and last arrival of each law at points (see `cpu.beamform.arrival_bounds`), in host memory."""
        with self._device():
            return self._beamformer.arrival_bounds(x, z, source_x, source_z, delays, speed_of_sound, with_last)

    def free_memory(self) -> float:
        """Bytes that arrays may still take."""
        with device_errors(self.backend.name):
            return self.backend.free_memory()

    @contextmanager
    def _device(self) -> Iterator[None]:
        """The device, for one thread at a time: tables and compiled kernels are shared."""
        with self._lock, device_errors(self.backend.name), self.backend.device():
            try:
                yield
            except MemoryError as error:
                raise EngineError(
                    f"{self.backend.name}: out of memory ({error}); {self.backend.free_memory() / 1e6:,.0f} MB are free: "
                    "give a smaller max_memory, or fewer media or frames at once"
                ) from None

    def _simulator(self, plan: Plan) -> Simulator:
        from .simulate import Simulator

        key = plan.acquisition.key()
        if key not in self._simulators:
            self._simulators[key] = Simulator(self.backend, plan, tuning=self.tuning)
        self._simulators.move_to_end(key)
        while len(self._simulators) > KEPT_ACQUISITIONS:
            self._simulators.popitem(last=False)
        return self._simulators[key]


def read_source(file: str) -> str:
    """A kernel file as one text: the headers it includes put in, so that a compiler needs no search path."""
    folder = resources.files("ussim.engines.cuda")
    text = (folder / file).read_text(encoding="utf-8")
    for header in ("physics.cuh",):
        text = text.replace(f'#include "{header}"', (folder / header).read_text(encoding="utf-8"))
    return text.replace("#pragma once", "")
