"""Speckle: point scatterers whose echo strength follows an image (MUST's genscat, Garcia 2022, in a law of our own)."""

from __future__ import annotations

import numpy as np

from . import physics
from .acquisition import Acquisition
from .doors import check_real
from .numerics import bilinear
from .reach import check_reach
from .types import ImageGrid, Scatterers

DENSITY = 0.4  # scatterers in a square of one mean distance: one per cell, uniform in it, puts the mean nearest at 1.0
OVERLAP = 0.1  # of the mean distance: of two scatterers closer than this one is dropped


def scatterers_from_image(
    image: np.ndarray,
    grid: ImageGrid,
    acquisition: Acquisition,
    seed: int | np.random.Generator = 0,
    mean_distance: float | None = None,
    dynamic_range_db: float = 40.0,
) -> Scatterers:
    """Draw scatterers over the extent of `grid`, their local mean reflectivity set by the grey level of `image`.

    The plane is cut into square cells, DENSITY of them a mean_distance²; each holds one scatterer, uniform in its cell, so
    that the mean distance to the nearest neighbor is `mean_distance`. The reflectivity of a scatterer at grey level I is
    10^(g/20 (I - 1)), g = `dynamic_range_db`, times a Rayleigh variable of mean 1: white is 1 on average, black is -g dB.

    Parameters
    ----------
    image : np.ndarray
        (rows, columns) float in [0, 1] or uint8, stretched onto the grid: its corner pixels are the grid's corner pixels.
    grid : ImageGrid
        Its extent, m, is what is filled.
    acquisition : Acquisition
        Its probe bounds the scatterers, and with the medium gives the shortest wavelength.
    seed : int or np.random.Generator
        Of the random stream, 0 by default, or a generator to draw from.
    mean_distance : float, optional
        m; the shortest wavelength, c / (f_c (1 + bandwidth / 2)), by default, as MUST.
    dynamic_range_db : float
        From white to black, dB, above 0; 40 by default.

    Returns
    -------
    Scatterers
        Those in front of the array, in row order of their cells.

    Raises
    ------
    ValueError
        The image is not 2-D, not finite or not in [0, 1]; a distance or range is not above 0.
    """
    image = _grey(image)
    probe, medium = acquisition.probe, acquisition.medium
    if mean_distance is None:
        mean_distance = physics.shortest_wavelength(probe.center_frequency, probe.bandwidth, medium.speed_of_sound)
    if not (np.isfinite(mean_distance) and mean_distance > 0):
        raise ValueError(f"mean_distance: expected m above 0, got {mean_distance!r}")
    if not (np.isfinite(dynamic_range_db) and dynamic_range_db > 0):
        raise ValueError(f"dynamic_range_db: expected dB above 0, got {dynamic_range_db!r}")
    check_reach("grid", grid.x, grid.z, acquisition)
    rng = np.random.default_rng(seed)
    x, z = _positions(grid, mean_distance, rng)
    amplitude = rng.rayleigh(scale=np.sqrt(2 / np.pi), size=x.size)  # mean 1
    kept = (_apart(x, z, OVERLAP * mean_distance) & ~probe.is_behind(x, z)).ravel()
    x, z = x.ravel(), z.ravel()
    x, z, amplitude = x[kept], z[kept], amplitude[kept]
    level = _sample(image, grid, x, z)
    return Scatterers(x, z, 10 ** (dynamic_range_db / 20 * (level - 1)) * amplitude)


def _grey(image: np.ndarray) -> np.ndarray:
    from .arrays import to_numpy

    check_real("image", image)
    image = to_numpy(image)
    if image.ndim != 2 or image.size == 0:
        raise ValueError(f"image: expected 2-D (rows, columns), got shape {image.shape}")
    image = image / 255.0 if image.dtype == np.uint8 else image.astype(np.float64)
    if not np.all(np.isfinite(image)):
        raise ValueError("image: expected finite grey levels, got NaN or infinity")
    if image.min() < 0 or image.max() > 1:
        raise ValueError(
            f"image: expected grey levels in [0, 1] (or uint8), got {image.min():g} to {image.max():g}; rescale it first"
        )
    return image


def _positions(grid: ImageGrid, mean_distance: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """X and z, each (rows, columns): one uniform position in each cell of about mean_distance / sqrt(DENSITY) on a side."""
    side = mean_distance / np.sqrt(DENSITY)
    edges = []
    for axis in (grid.z, grid.x):
        extent = axis[-1] - axis[0]
        n = max(1, round(extent / side))
        edges.append((axis[0], extent / n, n))
    (z0, dz, nz), (x0, dx, nx) = edges
    place = rng.random((2, nz, nx))
    x = x0 + (np.arange(nx) + place[0]) * dx
    z = z0 + (np.arange(nz)[:, None] + place[1]) * dz
    return x, z


def _apart(x: np.ndarray, z: np.ndarray, distance: float) -> np.ndarray:
    """Return False for the later one, in row order, of every pair closer than `distance`, m; one point per cell.

    The distance is a fraction of a cell, so that only neighbors can be as close.
    """
    kept = np.ones(x.shape, dtype=bool)
    n_rows, n_columns = x.shape
    for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
        earlier = (slice(0, n_rows - down), slice(max(0, -right), n_columns - max(0, right)))
        later = (slice(down, n_rows), slice(max(0, right), n_columns - max(0, -right)))
        kept[later] &= np.hypot(x[later] - x[earlier], z[later] - z[earlier]) > distance
    return kept


def _sample(image: np.ndarray, grid: ImageGrid, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Bilinear grey level at points, the image stretched onto the grid's extent."""
    coordinates = []
    for position, axis, n in ((z, grid.z, image.shape[0]), (x, grid.x, image.shape[1])):
        index = np.interp(position, axis, np.arange(axis.size, dtype=np.float64))
        coordinates.append(index * ((n - 1) / max(axis.size - 1, 1)))
    grey: np.ndarray = np.clip(bilinear(image, *coordinates), 0.0, 1.0)
    return grey
