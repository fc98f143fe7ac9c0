"""The door of an engine: what the public steps ask of it, and all that they know about it.

    simulate ─► Plan ─► Engine.simulate            demodulate ─► FilterLaw ─► Engine.mix_and_filter
    delay_and_sum ─► Beamforming ─► Engine.delay_and_sum

Arguments have been checked. Arrays are NumPy's, or CuPy's where the engine is `on_device`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Protocol, runtime_checkable

import numpy as np

from ..plan import Beamforming, FilterLaw, Plan, Progress
from ..types import ImageGrid, Scatterers


@runtime_checkable
class Engine(Protocol):
    """The model, computed on one kind of machine. Engines derive from it, and inherit what has a body here.

    Attributes
    ----------
    name : str
        As `get_engine` takes it.
    on_device : bool
        Whether results lie on a graphics card, and samples that lie there are taken as they are.
    precision : type
        Of echoes and projections: np.float32, or np.float64.
    """

    name: str
    on_device: bool = False
    precision: type[np.float32] | type[np.float64] = np.float32

    def simulate(
        self,
        scatterers: Scatterers,
        plan: Plan,
        n_samples: int,
        start_sample: int = 0,
        max_memory: float | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Return echoes (n_transmits, n_elements, n_samples), from sample `start_sample` on.

        Parameters
        ----------
        scatterers : those in front of the array (`plan.audible`).
        max_memory : bytes beside the result; None: the engine's own bound.

        Raises
        ------
        EngineError
            The memory cannot hold the smallest piece of work.
        """
        ...

    def simulate_batch(
        self,
        media: Sequence[Scatterers],
        plan: Plan,
        n_samples: int,
        start_sample: int = 0,
        max_memory: float | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Return echoes (n_media, n_transmits, n_elements, n_samples): here of one medium after the other."""
        records: np.ndarray | None = None
        for i, medium in enumerate(media):
            whole = progress if len(media) == 1 else None
            record = self.simulate(medium, plan, n_samples, start_sample, max_memory, whole)
            if len(media) == 1:
                return record[None]
            if records is None:
                records = np.empty((len(media), *record.shape), record.dtype)
            records[i] = record
            if progress is not None:
                progress(i + 1, len(media))
        return np.empty((0, *plan.record_shape(n_samples)), self.precision) if records is None else records

    def batch_size(self, bytes_each: float) -> int:
        """Return how many records that take `bytes_each` are best computed together: one where nothing is gained by it."""
        return 1

    def adjoint(
        self,
        points: Scatterers,
        plan: Plan,
        samples: np.ndarray,
        start_sample: int = 0,
        max_memory: float | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Return echoes projected on points (n_points,), in host memory: the transpose of `simulate` in the reflectivity.

        Parameters
        ----------
        points : in front of the array; their reflectivity is not read.
        samples : (n_transmits, n_elements, n_samples), from sample `start_sample` on.
        """
        ...

    def pressure_field(
        self,
        plan: Plan,
        grid: ImageGrid,
        threshold_db: float,
        max_memory: float | None = None,
        progress: Progress | None = None,
        y: float = 0.0,
    ) -> np.ndarray:
        """Return the RMS pressure (n_transmits, nz, nx), 0 behind the array.

        Parameters
        ----------
        y : elevation of the grid's plane, m; of account in a plan of three dimensions.
        """
        ...

    def delay_and_sum(self, samples: np.ndarray, beamforming: Beamforming) -> np.ndarray:
        """Return images (..., nz, nx) of samples (..., n_transmits, n_elements, n_samples)."""
        ...

    def mix_and_filter(self, samples: np.ndarray, law: FilterLaw) -> np.ndarray:
        """Return filtfilt(samples x carrier), (..., n_samples) real -> complex64."""
        ...

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
        """Return the first and the last arrival (n_laws, n_points), s, in host memory: min and max over the sources.

        Parameters
        ----------
        x, z : (n_points,) m.
        source_x, source_z : (n_sources,) m.
        delays : (n_laws, n_sources) s, after which a source fires.
        with_last : False leaves the last arrival out, None in its place.
        """
        ...

    @property
    def array_module(self) -> ModuleType:
        """The module of the engine's arrays: numpy, or cupy."""
        return np

    def to_device(self, array: np.ndarray) -> np.ndarray:
        """Return the array where the engine computes."""
        return array
