"""Speckle: point scatterers whose echo strength follows an image (MUST's genscat, Garcia 2022, in a law of our own)."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np

from . import physics
from .acquisition import Acquisition
from .doors import check_real
from .numerics import bilinear
from .reach import check_reach
from .types import ImageGrid, Scatterers, one_plane

DENSITY = 0.4  # scatterers in a square of one mean distance: one per cell, uniform in it, puts the mean nearest at 1.0
VOLUME_DENSITY = 0.256  # in a cube of one mean distance
MOST = 20_000_000  # scatterers of a slab
OVERLAP = 0.1  # of the mean distance: of two scatterers closer than this one is dropped


def scatterers_from_image(
    image: np.ndarray,
    grid: ImageGrid,
    acquisition: Acquisition,
    seed: int | np.random.Generator = 0,
    mean_distance: float | None = None,
    dynamic_range_db: float = 40.0,
    thickness: float | None = None,
) -> Scatterers:
    """Draw scatterers over the extent of `grid`, their local mean reflectivity set by the grey level of `image`.

    The plane is cut into square cells, DENSITY of them a mean_distance²; each holds one scatterer, uniform in its cell, so
    that the mean distance to the nearest neighbor is `mean_distance`. The reflectivity of a scatterer at grey level I is
    10^(g/20 (I - 1)), g = `dynamic_range_db`, times a Rayleigh variable of mean 1: white is 1 on average, black is -g dB.

    With a `thickness` the scatterers fill a slab, |y| up to half of it, cut into cubes in the same way: as many as the slab
    is mean distances thick, for each one without (docs/elevation.md has what that costs, and what it does to the speckle).

    Parameters
    ----------
    image : np.ndarray
        (rows, columns) float in [0, 1] or uint8, stretched onto the grid: its corner pixels are the grid's corner pixels.
        With a `thickness` also a volume (rows, planes, columns), its planes along y, from -thickness / 2 to thickness / 2.
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
    thickness : float, optional
        Of a slab of scatterers in elevation, m, above 0; none by default: scatterers without a y.

    Returns
    -------
    Scatterers
        Those in front of the array, in row order of their cells.

    Raises
    ------
    ValueError
        The image is not 2-D (nor, with a thickness, 3-D), not finite or not in [0, 1]; a distance or range is not above 0.
    """
    one_plane(grid, "scatterers_from_image")
    image = _grey(image, volume=thickness is not None)
    probe, medium = acquisition.probe, acquisition.medium
    if mean_distance is None:
        mean_distance = physics.shortest_wavelength(probe.center_frequency, probe.bandwidth, medium.speed_of_sound)
    if not (np.isfinite(mean_distance) and mean_distance > 0):
        raise ValueError(f"mean_distance: expected m above 0, got {mean_distance!r}")
    if not (np.isfinite(dynamic_range_db) and dynamic_range_db > 0):
        raise ValueError(f"dynamic_range_db: expected dB above 0, got {dynamic_range_db!r}")
    rng = np.random.default_rng(seed)
    if thickness is not None:
        if not (np.isfinite(thickness) and thickness > 0):
            raise ValueError(f"thickness: expected m above 0, got {thickness!r}")
        return _slab(image, grid, acquisition, rng, mean_distance, dynamic_range_db, thickness)
    check_reach("grid", grid.x, grid.z, acquisition)
    x, z = _positions(grid, mean_distance, rng)
    amplitude = rng.rayleigh(scale=np.sqrt(2 / np.pi), size=x.size)  # mean 1
    kept = (_apart((z, x), OVERLAP * mean_distance) & ~probe.is_behind(x, z)).ravel()
    x, z = x.ravel(), z.ravel()
    x, z, amplitude = x[kept], z[kept], amplitude[kept]
    level = _sample(image, grid, x, z)
    return Scatterers(x, z, 10 ** (dynamic_range_db / 20 * (level - 1)) * amplitude)


def _slab(
    image: np.ndarray,
    grid: ImageGrid,
    acquisition: Acquisition,
    rng: np.random.Generator,
    mean_distance: float,
    dynamic_range_db: float,
    thickness: float,
) -> Scatterers:
    """Scatterers of a slab, or of a volume: one per cube."""
    level = np.array([-thickness / 2, thickness / 2])
    check_reach("grid", grid.x, grid.z, acquisition, level)
    side = mean_distance / VOLUME_DENSITY ** (1 / 3)
    axes = (grid.z, level, grid.x)
    counts = [max(1, round((axis[-1] - axis[0]) / side)) for axis in axes]
    if math.prod(counts) > MOST:
        raise ValueError(
            f"thickness: would take {math.prod(counts):.3g} scatterers {mean_distance * 1e3:.3g} mm apart, expected at most "
            f"{MOST:.3g}: give a thinner slab, or a larger mean_distance"
        )
    place = rng.random((3, *counts))
    amplitude = rng.rayleigh(scale=np.sqrt(2 / np.pi), size=math.prod(counts))  # mean 1
    number = np.meshgrid(*(np.arange(n) for n in counts), indexing="ij", sparse=True)
    z, y, x = (
        axis[0] + (k + p) * ((axis[-1] - axis[0]) / n)
        for axis, k, p, n in zip(axes, number, place, counts, strict=True)
    )
    apart = _apart((z, y, x), OVERLAP * mean_distance).ravel()
    z, y, x = z.ravel(), y.ravel(), x.ravel()
    kept = apart & ~acquisition.probe.is_behind(x, z)
    x, y, z, amplitude = x[kept], y[kept], z[kept], amplitude[kept]
    if image.ndim == 2:
        level_of = _sample(image, grid, x, z)
    else:
        from scipy.ndimage import map_coordinates

        planes = (y / thickness + 0.5) * (image.shape[1] - 1)
        down, across = _pixels(image.shape[::2], grid, x, z)
        level_of = np.clip(map_coordinates(image, [down, planes, across], order=1, mode="nearest"), 0.0, 1.0)
    return Scatterers(x, z, 10 ** (dynamic_range_db / 20 * (level_of - 1)) * amplitude, y)


def _grey(image: np.ndarray, volume: bool) -> np.ndarray:
    from .arrays import to_numpy

    check_real("image", image)
    image = to_numpy(image)
    if image.size == 0 or not (image.ndim == 2 or (volume and image.ndim == 3)):
        also = ", or 3-D (rows, planes, columns)" if volume else ""
        hint = " (a volume (rows, planes, columns) needs a thickness)" if image.ndim == 3 and not volume else ""
        raise ValueError(f"image: expected 2-D (rows, columns){also}, got shape {image.shape}{hint}")
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


def _apart(axes: tuple[np.ndarray, ...], distance: float) -> np.ndarray:
    """Return False for the later one, in row order, of every pair closer than `distance`, m; one point per cell.

    The coordinates are given by axis, rows first. The distance is a fraction of a cell, so that only neighbors can be as
    close.
    """
    shape = np.broadcast_shapes(*(axis.shape for axis in axes))
    kept = np.ones(shape, dtype=bool)
    for steps in itertools.product((-1, 0, 1), repeat=len(shape)):
        if steps <= (0,) * len(shape):
            continue  # the other way round
        earlier = tuple(slice(max(0, -step), n - max(0, step)) for step, n in zip(steps, shape, strict=True))
        later = tuple(slice(max(0, step), n - max(0, -step)) for step, n in zip(steps, shape, strict=True))
        way = functools.reduce(np.hypot, (axis[later] - axis[earlier] for axis in reversed(axes)))
        kept[later] &= way > distance
    return kept


def _sample(image: np.ndarray, grid: ImageGrid, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Bilinear grey level at points, the image stretched onto the grid's extent."""
    grey: np.ndarray = np.clip(bilinear(image, *_pixels(image.shape, grid, x, z)), 0.0, 1.0)
    return grey


def _pixels(shape: tuple[int, ...], grid: ImageGrid, x: np.ndarray, z: np.ndarray) -> list[np.ndarray]:
    """Row and column of points in an image (n_rows, n_columns) over the grid, in fractions of pixels."""
    coordinates = []
    for position, axis, n in ((z, grid.z, shape[0]), (x, grid.x, shape[1])):
        index = np.interp(position, axis, np.arange(axis.size, dtype=np.float64))
        coordinates.append(index * ((n - 1) / max(axis.size - 1, 1)))
    return coordinates
