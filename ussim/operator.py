"""The simulator as a linear operator: reflectivity at given positions to channel data, and its exact transpose.

Channel data are linear in the reflectivity (MODEL: R = B Σ_s ρ_s P_s G_s, Garcia 2022), so that reconstruction, inverse
problems and calibration can use the simulator itself: matrix-free, by the engine that simulates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from .acquisition import Acquisition
from .arrays import to_numpy
from .engines import get_engine
from .reach import check_reach
from .receive import as_heard
from .simulation import _check_reach, _checked_plan, _record_length, _start_sample
from .types import ImageGrid, RFData, Scatterers, one_plane


class ImagingOperator(LinearOperator):  # type: ignore[misc]  # SciPy has no types
    """H: reflectivity (n_points,) -> channel data (n_transmits * n_elements * n_samples,), with its exact transpose.

    A `scipy.sparse.linalg.LinearOperator`: `A @ reflectivity`, `A.H @ samples`, `scipy.sparse.linalg.lsqr(A, samples)`. The
    transpose uses the cells, windows and bands of the forward: <A x, y> = <x, A.H y> to the rounding of float32.
    Points behind the array echo nothing: their columns are zero. Aberration and element errors of the acquisition are in
    it; its receive chain is not.

    Attributes
    ----------
    acquisition : Acquisition
        What the channel data are acquired with.
    image_shape : tuple of int
        Shape of the reflectivity as an image: (nz, nx) on a grid, else (n_points,).
    data_shape : tuple of int
        (n_transmits, n_elements, n_samples).
    start_time : float
        Time of the first sample, s.
    """

    def __init__(
        self,
        acquisition: Acquisition,
        positions: ImageGrid | Scatterers,
        engine: str = "auto",
        n_samples: int | None = None,
        start_time: float = 0.0,
        max_memory: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        one_plane(positions, "positions")
        acquisition = replace(acquisition, receive_chain=None)  # noise is not linear
        self._engine = get_engine(engine)
        self._plan = _checked_plan(acquisition, [positions] if isinstance(positions, Scatterers) else [])
        self._max_memory, self._progress = max_memory, progress
        if isinstance(positions, ImageGrid):
            x, z = (axis.ravel() for axis in positions.mesh())
            y = None
            self.image_shape: tuple[int, ...] = positions.shape
        else:
            x, z = (to_numpy(axis).astype(np.float64) for axis in (positions.x, positions.z))
            y = None if positions.y is None else to_numpy(positions.y).astype(np.float64)
            self.image_shape = x.shape
        self._in_front = np.flatnonzero(~acquisition.probe.is_behind(x, z))
        self._points = Scatterers(x, z, np.ones(len(x)), y).select(self._in_front)
        check_reach("positions", self._points.x, self._points.z, acquisition, self._points.y)
        _check_reach(self._plan, [self._points])
        self._start_sample = _start_sample(start_time, acquisition)
        if n_samples is None:
            n_samples = max(1, _record_length(self._plan, [self._points]) - self._start_sample)
        elif n_samples < 1:
            raise ValueError(f"n_samples: expected at least 1, got {n_samples}")
        self.acquisition = acquisition
        self.start_time = self._start_sample / acquisition.sampling_frequency
        self.data_shape = (acquisition.n_transmits, acquisition.probe.n_elements, int(n_samples))
        super().__init__(self._engine.precision, (math.prod(self.data_shape), math.prod(self.image_shape)))

    def forward(self, reflectivity: Any) -> RFData:
        """Simulate the channel data of a reflectivity.

        Parameters
        ----------
        reflectivity : array_like
            Of the shape `image_shape`, or flat: one number per point, real.

        Returns
        -------
        RFData
            As `ussim.simulate` of scatterers at the points: equal to it where no reflectivity is 0.

        Raises
        ------
        ValueError
            The shape is another, or a number is not real and finite.
        EngineError
            The budget cannot hold the smallest piece of work.
        """
        values = _real("reflectivity", reflectivity, self.shape[1])
        points = Scatterers(self._points.x, self._points.z, values[self._in_front], self._points.y)
        n_samples = self.data_shape[-1]
        samples = self._engine.simulate(
            points, self._plan, n_samples, self._start_sample, self._max_memory, self._progress
        )
        samples = as_heard(samples, self.acquisition)
        return RFData(samples, self.acquisition, self.acquisition.sampling_frequency, self.start_time)

    def adjoint(self, samples: Any) -> np.ndarray:
        """Project channel data on the points: H' y.

        Parameters
        ----------
        samples : array_like or RFData
            Of the shape `data_shape`, or flat.

        Returns
        -------
        np.ndarray
            Of the shape `image_shape`, in host memory.

        Raises
        ------
        ValueError
            The shape is another, or a number is not real and finite.
        EngineError
            The engine has no transpose, or the budget cannot hold the smallest piece of work.
        """
        if isinstance(samples, RFData):
            samples = samples.samples
        values = _real("samples", samples, self.shape[0]).reshape(self.data_shape)
        values = as_heard(values, self.acquisition)
        projected = np.zeros(self.shape[1], self.dtype)
        projected[self._in_front] = self._engine.adjoint(
            self._points, self._plan, values, self._start_sample, self._max_memory, self._progress
        )
        return projected.reshape(self.image_shape)

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return to_numpy(self.forward(x).samples).ravel()

    def _rmatvec(self, x: np.ndarray) -> np.ndarray:
        return self.adjoint(x).ravel()


def imaging_operator(
    acquisition: Acquisition,
    positions: ImageGrid | Scatterers,
    engine: str = "auto",
    n_samples: int | None = None,
    start_time: float = 0.0,
    max_memory: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImagingOperator:
    """Return the simulator as a linear operator: reflectivity on a grid, or at given positions, to channel data.

    Parameters
    ----------
    acquisition : Acquisition
        Probe, waves, medium and sampling.
    positions : ImageGrid or Scatterers
        A grid, each pixel a point scatterer at its center, or positions, m; the reflectivity of Scatterers is not read.
    engine : str
        As in `ussim.simulate`.
    n_samples : int, optional
        Length of the record; until the last echo has passed by default.
    start_time : float
        Time of the first sample, s: at least 0, a multiple of the sampling period; 0 by default.
    max_memory : float, optional
        Bytes of working memory that the engine may take beside the result.
    progress : callable, optional
        As in `ussim.simulate`, in each product.

    Returns
    -------
    ImagingOperator
        A `scipy.sparse.linalg.LinearOperator` (n_transmits * n_elements * n_samples, n_points) of
        float32 (reference: float64).

    Raises
    ------
    ValueError
        As `ussim.simulate`.
    EngineError
        No such engine or device.
    """
    return ImagingOperator(acquisition, positions, engine, n_samples, start_time, max_memory, progress)


def _real(name: str, values: Any, size: int) -> np.ndarray:
    """Return the values, flat, in host memory, in an array of their own."""
    array = to_numpy(values)
    if array.size != size:
        raise ValueError(f"{name}: expected {size} numbers, got an array of shape {array.shape}")
    if array.dtype.kind not in "buif" or not np.all(np.isfinite(array)):
        raise ValueError(
            f"{name}: expected real finite numbers, got {array.dtype} with complex, NaN or infinite values"
        )
    return np.array(array, dtype=np.float32 if array.dtype == np.float32 else np.float64).ravel()
