"""Wires in an image: bright points that stand out of what is around them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter, median_filter

from ..arrays import to_numpy
from ..demodulation import demodulate
from ..imaging import echo_size, envelope_image
from ..types import ImageGrid, RFData

MOST_WIRES = 12  # the clearest of them: more say nothing new
CONTRAST = 10 ** (15 / 20)  # over the median about it; the brightest of 400 cells of speckle is 9.4 dB over it
FAINTEST = 10 ** (-45 / 20)  # of the brightest wire
SHADOWED = 10 ** (-14 / 20)  # of a brighter one nearby: side lobes and edge waves of that one
NEARBY = (3e-3, 10e-3)  # m in z and in x
CLUTCH = (2e-3, 2.5e-3)  # m in z and in x: points closer than that are taken for one
ROWS = 384


@dataclass(frozen=True, eq=False)
class Wires:
    """Points found in an image.

    Attributes
    ----------
    x, z : np.ndarray
        (n,) m, shallow ones first.
    image : np.ndarray
        (nz, nx) envelope.
    grid : ImageGrid
        Of the image.
    """

    x: np.ndarray
    z: np.ndarray
    image: np.ndarray
    grid: ImageGrid


def image_grid(rf: RFData) -> ImageGrid:
    """Return a grid over what the record reaches: as wide as the array, as deep as the last echo."""
    probe, speed = rf.acquisition.probe, rf.acquisition.medium.speed_of_sound
    end = float(np.max(rf.start_times)) + rf.samples.shape[-1] / rf.sampling_frequency
    start = max(float(np.min(rf.start_times)), 0.0)
    deepest, shallowest = end * speed / 2, start * speed / 2
    first = max(shallowest, 4 * speed / probe.center_frequency, float(probe.element_z.max()))
    half = max(abs(float(probe.element_x[0])), 0.35 * deepest)  # a phased array sees a sector
    half = min(half, 1.2 * abs(float(probe.element_x[0])) + 0.5 * deepest)
    rows = min(ROWS, max(64, math.ceil((deepest - first) / (speed / probe.center_frequency / 2))))
    columns = max(32, min(2 * ROWS, math.ceil(2 * half / (deepest - first) * rows)))
    return ImageGrid(x=np.linspace(-half, half, columns), z=np.linspace(first, deepest, rows))


def find_wires(rf: RFData, grid: ImageGrid | None = None) -> Wires:
    """Find the points that stand out in the image of a recording.

    Parameters
    ----------
    rf : RFData
        One record.
    grid : ImageGrid, optional
        Where to look; all that the record reaches by default.

    Returns
    -------
    Wires
    """
    grid = image_grid(rf) if grid is None else grid
    image = to_numpy(envelope_image(demodulate(rf), grid, transmit_weights=None, f_number=1.0))
    dz, dx = float(np.diff(grid.z).mean()), float(np.diff(grid.x).mean())
    near = tuple(2 * max(1, round(size / step)) + 1 for size, step in zip(NEARBY, (dz, dx), strict=True))
    height, width = echo_size(rf.acquisition.probe, rf.acquisition.medium.speed_of_sound)
    peak = tuple(2 * max(1, round(size / step)) + 1 for size, step in ((height, dz), (width, dx)))
    tops = (image == maximum_filter(image, peak)) & (image > 0)
    tops &= image > SHADOWED * maximum_filter(image, near)
    tops[[0, -1]] = False
    tops[:, [0, -1]] = False
    skip = tuple(max(1, n // 8) for n in near)  # the median needs no more
    few = image[:: skip[0], :: skip[1]]
    ground = median_filter(few, tuple(max(3, n // s) for n, s in zip(near, skip, strict=True)))
    ground = ground.repeat(skip[0], axis=0)[: len(image)].repeat(skip[1], axis=1)[:, : image.shape[1]]
    contrast = image / np.maximum(ground, 1e-6 * image.max())
    rows, columns = np.nonzero(tops & (contrast > CONTRAST) & (image > FAINTEST * image.max()))
    best = np.argsort(-image[rows, columns])
    kept: list[int] = []
    for i in best:  # one of each clutch
        apart = [abs(rows[i] - rows[j]) * dz > CLUTCH[0] or abs(columns[i] - columns[j]) * dx > CLUTCH[1] for j in kept]
        if all(apart):
            kept.append(i)
    kept = sorted(kept, key=lambda i: -contrast[rows[i], columns[i]])[:MOST_WIRES]
    kept.sort(key=lambda i: rows[i])
    found = [_summit(image, rows[i], columns[i]) for i in kept]
    z = np.interp([r for r, _ in found], np.arange(len(grid.z)), grid.z)
    x = np.interp([c for _, c in found], np.arange(len(grid.x)), grid.x)
    return Wires(x, z, image, grid)


def _summit(image: np.ndarray, row: int, column: int) -> tuple[float, float]:
    """Row and column of the parabola through a peak and its neighbors."""
    place = []
    for line, at in ((image[:, column], row), (image[row], column)):
        low, peak, high = line[at - 1 : at + 2]
        bend = low - 2 * peak + high
        place.append(at + (float(np.clip(0.5 * (low - high) / bend, -0.5, 0.5)) if bend < 0 else 0.0))
    return place[0], place[1]
