"""Delay-and-sum of matrix arrays: row of elements by row, each a linear array that sees a pixel at a depth of its own.

An element at (x_e, y_e, 0) is sqrt((x - x_e)² + ζ²) away from a pixel at (x, y, z), ζ² = (y - y_e)² + z²: what a linear
array has for a pixel at (x, ζ). So a volume is the sum of as many images of linear arrays as there are rows, by any engine.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .acquisition import Acquisition
from .arrays import to_numpy
from .beamforming.adaptive import name_of
from .beamforming.grids import AnyGrid, PointGrid
from .beamforming.volumes import Pixels, arrivals, beam_weights
from .beamforming.windows import BOXCAR
from .engines.protocol import Engine
from .plan import Beamforming
from .probes import MatrixProbe, Probe
from .transmits import PlaneWaves
from .types import ImageGrid


def pixels_of(grid: AnyGrid) -> Pixels:
    """Return the pixels in rows and columns; those of a grid without a y lie in the plane of y = 0.

    Raises
    ------
    ValueError
        The grid is not an ImageGrid.
    """
    if not isinstance(grid, ImageGrid):
        raise ValueError(f"grid: expected an ImageGrid with a matrix array, got {type(grid).__name__}")
    x, z = grid.mesh()
    y = np.zeros(x.shape) if grid.y is None else np.broadcast_to(grid.y[:, None], x.shape)
    columns = grid.shape[-1]
    return Pixels(*(np.ascontiguousarray(axis).reshape(-1, columns) for axis in (x, y, z)))


def resolve_weights(weights: Any, acquisition: Acquisition, grid: AnyGrid) -> np.ndarray | None:
    """Return the transmits' weights (n_transmits, rows, columns) float32 at the pixels, None where all count."""
    pixels = pixels_of(grid)
    shape = (acquisition.n_transmits, *pixels.x.shape)
    if weights is None or (isinstance(weights, str) and weights == "beam"):
        return None if weights is None else beam_weights(acquisition, pixels)
    if isinstance(weights, str):
        raise ValueError(f'transmit_weights: expected "beam", None or an array with a matrix array, got {weights!r}')
    values = np.asarray(weights)
    if values.shape not in (shape[:1], (shape[0], *grid.shape)) or values.dtype.kind not in "biuf":
        raise ValueError(
            f"transmit_weights: expected real numbers of shape {(shape[0], *grid.shape)} or {shape[:1]}, got {values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError("transmit_weights: expected finite real numbers")
    values = values.reshape(-1, 1, 1) if values.ndim == 1 else values.reshape(shape)
    return np.broadcast_to(values.astype(np.float32), shape).copy()


def delay_and_sum(engine: Engine, samples: np.ndarray, b: Beamforming) -> np.ndarray:
    """Images (..., *grid.shape) of a matrix array's channel data, in host memory.

    Parameters
    ----------
    engine : of the rows.
    samples : (..., n_transmits, n_elements, n_samples).
    b : with the matrix array's acquisition, and weights as `resolve_weights` gives them.

    Raises
    ------
    ValueError
        The elements are to be combined in another way than their sum, or a window has no aperture to lie over.
    """
    if b.combination is not None:
        raise ValueError(f'combine: expected "sum" with a matrix array, got "{name_of(b.combination)}"')
    acquisition, probe = b.acquisition, b.acquisition.probe
    assert isinstance(probe, MatrixProbe)
    pixels = pixels_of(b.grid)
    times = arrivals(acquisition, pixels, b.speed_of_sound)
    each = "none" if b.compounding == "incoherent" else b.compounding
    total: Any = 0.0
    count = np.zeros(pixels.x.shape)
    for row in range(probe.n_rows):
        elements = slice(row * probe.n_columns, (row + 1) * probe.n_columns)
        if not acquisition.receiving[:, elements].any():
            continue
        across = pixels.y - probe.element_y[elements.start]
        share = _share(b, across, pixels.z)
        part = _row(b, probe, elements, pixels, across, times, each)
        image = to_numpy(engine.delay_and_sum(np.ascontiguousarray(samples[..., elements, :]), part))
        total = total + share * image
        if b.normalize:
            count += share * _heard(part, pixels, across)
    if b.compounding == "incoherent":
        total = np.sqrt((np.abs(total) ** 2).sum(axis=-3))
    if b.normalize:
        total = total / np.where(count > 0, count, 1)
    kind = (np.complex64 if np.iscomplexobj(total) else np.float32) if engine.name != "reference" else total.dtype
    transmits = (acquisition.n_transmits,) if b.compounding == "none" else ()
    return np.asarray(total).astype(kind).reshape(*samples.shape[:-3], *transmits, *b.grid.shape)


def _share(b: Beamforming, across: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return how much a row counts at the pixels: within atan(1 / (2 f#)) of its normal, and the window's weight there."""
    if b.f_number == 0:
        return (z >= 0).astype(np.float64)
    place = 2 * b.f_number * np.abs(across) / np.maximum(z, 1e-12)
    share: np.ndarray = ((place <= 1) & (z >= 0)) * (1.0 if b.window == BOXCAR else b.window.at(np.minimum(place, 1)))
    return share


def _row(
    b: Beamforming,
    probe: MatrixProbe,
    elements: slice,
    pixels: Pixels,
    across: np.ndarray,
    times: np.ndarray,
    compounding: str,
) -> Beamforming:
    """Return the delay-and-sum of one row as that of a linear array."""
    acquisition = b.acquisition
    line = Probe(
        probe.name,
        probe.center_frequency,
        probe.bandwidth,
        probe.n_columns,
        probe.pitch,
        probe.element_width,
        baffle=probe.baffle,
    )
    delays = acquisition.receive_delays
    as_line = replace(
        acquisition,
        probe=line,
        waves=PlaneWaves(np.zeros(acquisition.n_transmits)),  # not used: `times` says when its waves arrive
        receive_delays=None if delays is None else delays[elements],
        receive_mask=acquisition.receiving[:, elements],
        element_errors=None,
        receive_chain=None,
    )
    return replace(
        b,
        acquisition=as_line,
        grid=PointGrid(pixels.x, np.hypot(across, pixels.z)),
        times=times,
        compounding=compounding,
        normalize=False,
        gains=None if b.gains is None else b.gains[elements],
        progress=None,
    )


def _heard(part: Beamforming, pixels: Pixels, across: np.ndarray) -> np.ndarray:
    """Return the sum of the weights of a row's elements at the pixels."""
    z, line = np.hypot(across, pixels.z), part.acquisition.probe
    heard = np.zeros(pixels.x.shape)
    for e in range(line.n_elements):
        heard += part.element_weights(e, pixels.x - line.element_x[e], z) * part.live[e]
    return heard


def check_apodization(apodization: Any, f_number: float) -> None:
    """Refuse a window that has no aperture of a pixel to lie over."""
    if isinstance(apodization, str) and apodization != "boxcar" and f_number == 0:
        raise ValueError(
            f'apodization: "{apodization}" lies over a pixel\'s aperture: expected an f_number above 0 with a matrix array'
        )
