"""From channel data to the envelope on a pixel grid, and the whole line in one call: image to B-mode.

A pixel stands for the whole of its cell. Where cells are larger than the echo of a point, an envelope taken at their centers
alone misses points that lie between them; it is therefore detected on a grid fine enough for the probe's resolution, and
each pixel gets the peak of its cell.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from . import physics
from .acquisition import Acquisition
from .arrays import device_of, to_numpy
from .beamform import delay_and_sum, log_compress
from .beamforming.grids import AnyGrid
from .beamforming.scan_convert import PolarGrid
from .demodulation import demodulate
from .probes import Probe
from .receive import time_gain_compensation
from .scatterers import scatterers_from_image
from .simulation import simulate
from .types import ImageGrid, IQData, RFData, one_plane

FINE_STEP = 0.6  # between detected samples, in widths of a point's echo at half its height: 2.2 dB at most between two
MOST_FINE = 8  # samples along either side of a cell: a coarser picture is a thumbnail


def bmode(
    image: np.ndarray,
    acquisition: Acquisition,
    grid: ImageGrid,
    seed: int | np.random.Generator = 0,
    *,
    mean_distance: float | None = None,
    dynamic_range_db: float = 40.0,
    scatterer_range_db: float | None = None,
    f_number: float | None = None,
    frequency: float | None = None,
    bandwidth: float | None = None,
    tgc: bool = False,
    engine: str = "auto",
    thickness: float | None = None,
) -> np.ndarray:
    """Simulate the B-mode of an image.

    Scatterers from the image, channel data, demodulation, delay-and-sum and detection (`envelope_image`), log compression,
    each with its defaults.

    Parameters
    ----------
    image : np.ndarray
        (rows, columns) float in [0, 1] or uint8, stretched onto the grid; with a thickness also a volume.
    acquisition : Acquisition
        Probe, waves, medium and sampling.
    grid : ImageGrid
        Pixel centers, m.
    seed : int or np.random.Generator
        Of the scatterers, 0 by default.
    mean_distance : float, optional
        Between scatterers, m (see `scatterers_from_image`).
    dynamic_range_db : float
        Of the display, from white to black, dB; 40 by default.
    scatterer_range_db : float, optional
        Of the scatterers, from white to black of the image, dB; `dynamic_range_db` by default.
    f_number : float, optional
        Of the receive aperture (see `delay_and_sum`).
    frequency, bandwidth : float, optional
        Carrier (Hz) and pass band (a fraction of it) of `demodulate`. The default, the probe's band, makes a point longer
        in depth than its pulse; 2 leaves the pulse as it is.
    tgc : bool
        Compensate the medium's attenuation (see `time_gain_compensation`); False by default.
    engine : str
        As in `simulate`.
    thickness : float, optional
        Of a slab of scatterers in elevation, m (see `scatterers_from_image`); none by default: two dimensions.

    Returns
    -------
    np.ndarray
        (nz, nx) float32 in [0, 1].

    Raises
    ------
    ValueError
        A value is out of range (see the functions named above).
    EngineError
        No such engine or device, or not enough memory.
    """
    scatterer_range_db = dynamic_range_db if scatterer_range_db is None else scatterer_range_db
    scatterers = scatterers_from_image(image, grid, acquisition, seed, mean_distance, scatterer_range_db, thickness)
    rf = simulate(scatterers, acquisition, engine)
    if tgc:
        time_gain_compensation(rf, frequency=frequency, in_place=True)
    iq = demodulate(rf, frequency, bandwidth)
    return log_compress(envelope_image(iq, grid, f_number, engine=engine), dynamic_range_db)


def envelope_image(
    data: IQData | RFData,
    grid: AnyGrid,
    f_number: float | None = None,
    *,
    fine: tuple[int, int] | None = None,
    **options: Any,
) -> np.ndarray:
    """Beamform channel data and detect the envelope on a grid fine enough for the band, resampled to `grid`.

    Each pixel is the peak of the envelope in its cell, as in a scanner's peak detector: a point between two pixels is as
    bright as one on a pixel. Where cells hold several samples, the speckle's mean / standard deviation grows with them
    (docs/command-line.md has both, by probe).

    Parameters
    ----------
    data : IQData or RFData
        (..., n_transmits, n_elements, n_samples); RF data are demodulated first.
    grid : ImageGrid, PolarGrid or PointGrid
        Pixel centers asked for. Points have no cells: the envelope is that at them.
    f_number : float, optional
        As in `delay_and_sum`.
    fine : (int, int), optional
        Samples per cell in z and in x; from the probe's resolution (`fine_factors`) by default, (1, 1) detects at the pixel
        centers alone.
    **options
        Those of `delay_and_sum`.

    Returns
    -------
    np.ndarray
        (..., nz, nx) envelope, float32 (the reference engine: float64), where the engine computes; of coherences (combine
        "slsc") those above 0.

    Raises
    ------
    ValueError
        A value is out of range.
    """
    iq = data if isinstance(data, IQData) else demodulate(data)
    one_plane(grid, "envelope_image")
    nz, nx = fine_factors(iq.acquisition.probe, grid, iq.acquisition.medium.speed_of_sound) if fine is None else fine
    weights = options.get("transmit_weights")
    if weights is not None and np.ndim(weights) == 3:  # of each pixel: all samples of its cell have them
        options["transmit_weights"] = to_numpy(weights).repeat(nz, axis=-2).repeat(nx, axis=-1)
    image = delay_and_sum(iq, refine(grid, nz, nx), f_number, **options)
    with device_of(image):
        return peaks(abs(image) if image.dtype.kind == "c" else image.clip(0), nz, nx)


def peaks(image: np.ndarray, nz: int, nx: int) -> np.ndarray:
    """Return the largest of each nz x nx samples of an image (..., nz * rows, nx * columns) -> (..., rows, columns)."""
    if (nz, nx) == (1, 1):
        return image
    rows, columns = image.shape[-2] // nz, image.shape[-1] // nx
    blocks: np.ndarray = image.reshape(*image.shape[:-2], rows, nz, columns, nx).max(axis=(-3, -1))
    return blocks


def fine_factors(probe: Probe, grid: AnyGrid, speed_of_sound: float) -> tuple[int, int]:
    """Return samples per cell in z and in x that resolve a point's echo, 1 where the cells do already.

    Of a polar grid along the radius and along its longest arc.
    """
    height, width = echo_size(probe, speed_of_sound)
    if isinstance(grid, PolarGrid):
        return _factor(grid.radius, height), _factor(grid.angle * grid.radius[-1], width)
    if not isinstance(grid, ImageGrid):
        return 1, 1
    return _factor(grid.z, height), _factor(grid.x, width)


def echo_size(probe: Probe, speed_of_sound: float) -> tuple[float, float]:
    """Height and width of a point's echo at half its height (-6 dB), m.

    Of the pulse-echo band, and of the receive aperture that the elements' directivity leaves.
    """
    height = 0.88 * speed_of_sound / (2 * probe.bandwidth * probe.center_frequency)
    wavelength = physics.shortest_wavelength(probe.center_frequency, probe.bandwidth, speed_of_sound)
    width = 1.2 * speed_of_sound / probe.center_frequency * physics.automatic_f_number(probe.element_width, wavelength)
    return height, width


def refine(grid: AnyGrid, nz: int, nx: int) -> AnyGrid:
    """Return the grid of nz x nx samples spread evenly over the cell of each pixel."""
    if (nz, nx) == (1, 1):
        return grid
    if isinstance(grid, PolarGrid):
        return replace(grid, radius=_split(grid.radius, nz), angle=_split(grid.angle, nx))
    if not isinstance(grid, ImageGrid):
        raise ValueError(f"fine: expected (1, 1) of points, which have no cells, got {(nz, nx)}")
    return replace(grid, x=_split(grid.x, nx), z=_split(grid.z, nz))


def _factor(axis: np.ndarray, size: float) -> int:
    if len(axis) < 2:
        return 1
    return min(MOST_FINE, math.ceil(float(np.diff(axis).max()) / (FINE_STEP * size) - 1e-9))


def _split(axis: np.ndarray, n: int) -> np.ndarray:
    """N positions spread evenly over the cell of each of an axis's; cells end half way between neighbors."""
    if n == 1:
        return axis
    between = (axis[1:] + axis[:-1]) / 2
    edges = np.r_[2 * axis[0] - between[0], between, 2 * axis[-1] - between[-1]]
    places = (np.arange(n) + 0.5) / n
    fine: np.ndarray = (edges[:-1, None] + np.diff(edges)[:, None] * places).ravel()
    return fine
