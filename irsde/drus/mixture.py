"""Reflectivity maps of many kinds to train one prior on: sparse points, points in speckle, tissue, discs, layers, anatomy.

Tissue is white Gaussian noise under an echogenicity map. A point is not: it is one scatterer between the pixels, as the grid
holds it, so that a prior that has seen points on an empty ground takes a narrow echo for one point and not for a small disc.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from ussim import phantoms as ussim_phantoms

from .phantoms import training_map
from .priors import DEFAULT_BRIGHT_STD

SHARES = {"points": 0.25, "points in speckle": 0.15, "tissue": 0.25, "shapes": 0.2, "phantoms": 0.15}  # of the images
POINT_DB = (0.0, 24.0)  # of the brightest point over tissue where p = 1
SPREAD_DB = 20.0  # from the brightest point down
PIXELS_PER_POINT = 100.0  # where points lie densest
HALF_Z, HALF_X = 6, 4  # px, of a point's image on the grid
POOL = 60  # phantoms, cut and scaled anew each time
POOL_ROWS = 256


def batch(n: int, size: int, gain: tuple[float, float], rng: np.random.Generator, maps: Maps) -> np.ndarray:
    """Return reflectivity maps (n, 1, size, size) float32, standard deviation 0.9 g where p = 1, g in `gain`."""
    images = np.empty((n, 1, size, size), dtype=np.float32)
    for image in images:
        kind = rng.choice(list(SHARES), p=list(SHARES.values()))
        scale = DEFAULT_BRIGHT_STD * math.exp(rng.uniform(*np.log(gain)))
        image[0] = scale * reflectivity(str(kind), (size, size), rng, maps)
    return images


def reflectivity(kind: str, shape: tuple[int, int], rng: np.random.Generator, maps: Maps) -> np.ndarray:
    """Return a map (nz, nx) of one of `SHARES`, of standard deviation 1 where tissue is brightest."""
    white = rng.standard_normal(shape)
    if kind == "shapes":
        return white * training_map(shape, rng, maps.slices)
    if kind == "phantoms":
        return white * maps.cut(shape, rng)
    if kind == "tissue":
        return white * tissue_map(shape, rng)
    if kind == "points":
        ground = 10 ** (rng.uniform(-80, -30) / 20) * white
    else:
        ground = 10 ** (rng.uniform(-40, 0) / 20) * white * training_map(shape, rng, maps.slices)
    return ground + points(shape, rng)


def tissue_map(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return the echogenicity (nz, nx) of tissue all over the map, with up to three ellipses that echo less, or nothing."""
    rows, columns = np.indices(shape)
    image = np.ones(shape)
    for _ in range(int(rng.integers(0, 4))):
        half = rng.uniform(0.08, 0.6, 2) * shape
        center = rng.uniform(-0.2, 1.2, 2) * shape
        inside = ((rows - center[0]) / half[0]) ** 2 + ((columns - center[1]) / half[1]) ** 2 < 1
        image[inside] = 0.0 if rng.random() < 0.5 else 10 ** (-rng.uniform(0, 30) / 20)
    return image


def points(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return single scatterers (nz, nx) anywhere between the pixels, as many as drawn, of either sign."""
    most = shape[0] * shape[1] / PIXELS_PER_POINT
    n = max(1, int(math.exp(rng.uniform(0, math.log(most)))))
    level = rng.uniform(*POINT_DB) - SPREAD_DB * rng.random(n) * (np.arange(n) > 0)
    amplitude = rng.choice((-1.0, 1.0), n) * 10 ** (level / 20)
    image = np.zeros(shape)
    for z, x, a in zip(rng.uniform(0, shape[0], n), rng.uniform(0, shape[1], n), amplitude, strict=True):
        image += a * np.outer(axial_kernel(np.arange(shape[0]) - z), lateral_kernel(np.arange(shape[1]) - x))
    return image


def axial_kernel(offset: np.ndarray) -> np.ndarray:
    """Return what pixels hold of a point `offset` rows away.

    The band between half a cycle and one cycle per row, in which `acoustics.bandpass_step` puts the echoes.
    """
    return (2 * np.sinc(2 * offset) - np.sinc(offset)) * _window(offset / HALF_Z)


def lateral_kernel(offset: np.ndarray) -> np.ndarray:
    """Return what pixels hold of a point `offset` columns away: the band up to half a cycle per column."""
    return np.sinc(offset) * _window(offset / HALF_X)


def _window(u: np.ndarray) -> np.ndarray:
    return np.where(np.abs(u) < 1, np.cos(np.pi * u / 2) ** 2, 0.0)


class Maps:
    """Sources of maps: slices of MRI, and phantoms of `ussim.phantoms` of all kinds, not in their regular form."""

    def __init__(self, slices: Sequence[np.ndarray], seed: int) -> None:
        self.slices = list(slices)
        kinds = ussim_phantoms.names()
        made = (ussim_phantoms.make(kinds[i % len(kinds)], seed=1000 * seed + i, rows=POOL_ROWS) for i in range(POOL))
        self.levels = [phantom.level_db.astype(np.float32) for phantom in made]

    def cut(self, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Return the echogenicity (nz, nx) in [0, 1] of a part of a phantom, a column twice as wide as a row is high."""
        level = self.levels[int(rng.integers(len(self.levels)))]
        stretch = float(np.exp(rng.uniform(np.log(0.5), np.log(1.5))))  # pixels of the phantom per row
        height, width = (
            min(n, max(8, int(m * stretch * k))) for n, m, k in zip(level.shape, shape, (1, 2), strict=True)
        )
        z, x = (int(rng.integers(0, n - m + 1)) for n, m in zip(level.shape, (height, width), strict=True))
        part = level[z : z + height, x : x + width]
        zoom = [n / m for n, m in zip(shape, part.shape, strict=True)]
        decibels = ndimage.zoom(part, zoom, order=1, grid_mode=True, mode="nearest")[: shape[0], : shape[1]]
        decibels = decibels - max(decibels.max(), ussim_phantoms.FLOOR_DB + 1)
        return np.where(decibels <= ussim_phantoms.FLOOR_DB, 0.0, 10 ** (np.minimum(decibels, 0) / 20))
