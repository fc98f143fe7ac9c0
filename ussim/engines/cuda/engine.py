"""The engine for graphics cards, apart from the card: what is computed where, in which order, in how much memory.

The kernels are CUDA C++ (`*.cu`, with the formulas of `physics.cuh`). This module and its two halves, `simulate` and
`beamform`, prepare tables in float64 NumPy and launch the kernels through a `Backend`: `cupy` gives the one for NVIDIA
cards, and the tests give one that runs the same kernels, compiled as C++, on the host.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from types import ModuleType

import numpy as np

from ...arrays import device_errors
from ...beamforming.adaptive import name_of
from ...errors import EngineError
from ...plan import Beamforming, FilterLaw, Plan, Progress
from ...types import ImageGrid, Scatterers
from ..protocol import Engine
from ..reference import ENGINE as reference
from .backend import Backend
from .beamform import Beamformer
from .simulate import Simulator, Tuning

KEPT_ACQUISITIONS = 4


class GpuEngine(Engine):
    """An engine on a backend. Results stay on the device.

    Tables that depend on the acquisition alone are kept for the last few, so that a second image costs less than the first.
    """

    on_device = True

    def __init__(self, backend: Backend, tuning: Tuning | None = None) -> None:
        self.backend = backend
        self.name = backend.name
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
    ) -> np.ndarray:
        """Echoes (n_transmits, n_elements, n_samples) float32."""
        rf: np.ndarray = self.simulate_batch([scatterers], plan, n_samples, start_sample, max_memory, progress)[0]
        return rf

    def simulate_batch(
        self,
        media: Sequence[Scatterers],
        plan: Plan,
        n_samples: int,
        start_sample: int = 0,
        max_memory: float | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Echoes (n_media, n_transmits, n_elements, n_samples) float32. A medium's echoes do not depend on the others."""
        _refuse_matrix(plan, self.name)
        with self._device():
            rf: np.ndarray = self._simulator(plan).echoes(media, n_samples, start_sample, max_memory, progress)
            return rf

    def adjoint(
        self,
        points: Scatterers,
        plan: Plan,
        samples: np.ndarray,
        start_sample: int = 0,
        max_memory: float | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Project echoes on points: the transpose of `simulate` in the reflectivity, (n_points,) float32 in host memory."""
        _refuse_matrix(plan, self.name)
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
        y: float = 0.0,
    ) -> np.ndarray:
        """RMS pressure (n_transmits, nz, nx) float32, 0 behind the array."""
        _refuse_matrix(plan, self.name)
        with self._device():
            if plan.acquisition.is_continuous:  # one frequency: nothing for cells to save
                field = reference.pressure_field(plan, grid, threshold_db, max_memory, progress, y)
                return self.backend.to_device(field.astype(np.float32))
            pressure: np.ndarray = Simulator(self.backend, plan, False, threshold_db, self.tuning).pressure(
                grid, max_memory, progress, y
            )
            return pressure

    def delay_and_sum(self, samples: np.ndarray, beamforming: Beamforming) -> np.ndarray:
        """Images (..., nz, nx) of channel data (..., n_transmits, n_elements, n_samples).

        Raises
        ------
        EngineError
            The elements are to be combined in another way than their sum.
        """
        if beamforming.combination is not None:
            raise EngineError(
                f'engine "{self.name}" sums the elements; combine "{name_of(beamforming.combination)}" is computed on the '
                'CPU: use engine="cpu"'
            )
        with self._device():
            return self._beamformer.delay_and_sum(samples, beamforming)

    def mix_and_filter(self, samples: np.ndarray, law: FilterLaw) -> np.ndarray:
        """Demodulated channels (..., n_samples) complex64."""
        with self._device():
            return self._beamformer.mix_and_filter(samples, law)

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
        """First and last arrival of each law at points, in host memory."""
        with self._device():
            return self._beamformer.arrival_bounds(x, z, source_x, source_z, delays, speed_of_sound, with_last)

    def batch_size(self, bytes_each: float) -> int:
        """Return how many records take at most half of what is free."""
        return max(1, int(0.5 * self.free_memory() / bytes_each))

    @property
    def array_module(self) -> ModuleType:
        """Numpy or cupy, as the backend has it."""
        return self.backend.array_module

    def to_device(self, array: np.ndarray) -> np.ndarray:
        """Return the array, in one piece, on the device."""
        return self.backend.to_device(array)

    def free_memory(self) -> float:
        """Bytes that arrays may still take."""
        with device_errors(self.backend.name):
            return self.backend.free_memory()

    @contextmanager
    def _device(self) -> Iterator[None]:
        """Yield the device, for one thread at a time: tables and compiled kernels are shared."""
        with self._lock, device_errors(self.backend.name), self.backend.device():
            try:
                yield
            except MemoryError as error:
                raise EngineError(
                    f"{self.backend.name}: out of memory ({error}); {self.backend.free_memory() / 1e6:,.0f} MB are free: "
                    "give a smaller max_memory, or fewer media or frames at once"
                ) from None

    def _simulator(self, plan: Plan) -> Simulator:
        key = plan.acquisition.key(), plan.lens
        if key not in self._simulators:
            self._simulators[key] = Simulator(self.backend, plan, tuning=self.tuning)
        self._simulators.move_to_end(key)
        while len(self._simulators) > KEPT_ACQUISITIONS:
            self._simulators.popitem(last=False)
        return self._simulators[key]


def _refuse_matrix(plan: Plan, name: str) -> None:
    """Refuse a matrix array, which cards beamform and do not simulate."""
    if plan.sub_y is not None:
        raise EngineError(f'engine "{name}" does not simulate matrix arrays: use engine="cpu" or "reference"')
