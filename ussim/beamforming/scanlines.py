"""Scan lines: each focused transmit images the line through its focus, and lines are interpolated onto the grid.

A pixel between two lines is beamformed from both transmits, each with its own times, and weighs them as linear interpolation
does, with their phases. So lines may be steered and the grid stays Cartesian: no scan conversion follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from ..acquisition import Acquisition
from ..foci import law_foci
from ..types import ImageGrid
from .grids import AnyGrid

BLOCK_VALUES = 1_000_000  # lines x points looked at together
SAME_LINE = 1e-6  # m: lines that pass a depth closer than that are one line, of several focal zones


@lru_cache(maxsize=1)
def line_weights(acquisition: Acquisition, grid: AnyGrid) -> np.ndarray:
    """Return the weight of each transmit at each pixel: linear between the scan lines on its left and right.

    A line runs from the middle of the elements that fire through the focus. Outside the outermost lines weights fall to 0
    over the distance to the next line. Where lines coincide, the one whose focus is nearest in depth counts (focal zones).
    Transmits without a focus have no line, and count nowhere.

    Returns
    -------
    np.ndarray
        (n_transmits, *grid.shape) float32, not to be written to.

    Raises
    ------
    ValueError
        There are fewer than two lines.
    """
    foci = law_foci(acquisition).reshape(-1, 2)
    transmits = np.repeat(np.arange(acquisition.n_transmits), len(foci) // acquisition.n_transmits)
    firing = ~np.isnan(acquisition.transmit_delays) & (acquisition.transmit_weights != 0)[:, None, :]
    firing = firing.reshape(-1, acquisition.probe.n_elements)
    lines = np.flatnonzero(~np.isnan(foci[:, 0]) & firing.any(axis=1))
    foci, transmits, firing = foci[lines], transmits[lines], firing[lines]
    weights = np.zeros((acquisition.n_transmits, *grid.shape), dtype=np.float32)
    middle = [(firing * axis).sum(axis=1) / firing.sum(axis=1) for axis in _positions(acquisition)]
    slope = (foci[:, 0] - middle[0]) / (foci[:, 1] - middle[1])
    x, z = (axis.ravel() for axis in grid.mesh())
    flat, most = weights.reshape(len(weights), -1), 0
    rows = np.repeat(np.arange(grid.shape[0]), grid.shape[1]) if isinstance(grid, ImageGrid) else np.arange(x.size)
    depths = grid.z if isinstance(grid, ImageGrid) else z
    block = max(1, BLOCK_VALUES // max(len(lines), 1))
    for first in range(0, x.size if len(lines) > 1 else 0, block):
        points = np.arange(first, min(first + block, x.size))
        at, place = np.unique(rows[points], return_inverse=True)
        crossing = foci[:, :1] + (depths[at] - foci[:, 1:]) * slope[:, None]
        order, crossing, n = _side_by_side(crossing, np.abs(depths[at] - foci[:, 1:]))
        most = max(most, int(n.max()))
        for which, share in _neighbors(crossing[:, place.ravel()], n[place.ravel()], x[points]):
            np.add.at(flat, (transmits[order[which, place.ravel()]], points), share)
    if most < 2:
        raise ValueError(
            f'transmit_weights: "line" needs two scan lines at least, of focused transmits; found {most} '
            f"among {acquisition.n_transmits} transmits"
        )
    weights.setflags(write=False)  # kept, and shared by all who ask
    return weights


def _positions(acquisition: Acquisition) -> tuple[np.ndarray, np.ndarray]:
    return acquisition.probe.element_x, acquisition.probe.element_z


def _side_by_side(crossing: np.ndarray, off_focus: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort the places of lines at some depths, (n_lines, n_depths); of those in one place the nearest focus counts alone.

    Returns the lines in their order, their places, those that do not count at infinity behind the others, and the number of
    those that do.
    """
    order = np.argsort(crossing, axis=0)
    steps = np.diff(np.take_along_axis(crossing, order, axis=0), axis=0, prepend=-np.inf) > SAME_LINE
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.cumsum(steps, axis=0), axis=0)
    order = np.lexsort((off_focus, place), axis=0)
    first = np.diff(np.take_along_axis(place, order, axis=0), axis=0, prepend=0) > 0
    crossing = np.where(first, np.take_along_axis(crossing, order, axis=0), np.inf)
    again = np.argsort(crossing, axis=0, kind="stable")
    return (
        np.take_along_axis(order, again, axis=0),
        np.take_along_axis(crossing, again, axis=0),
        first.sum(axis=0),
    )


def _neighbors(crossing: np.ndarray, n: np.ndarray, x: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the lines left and right of points, and their shares in the linear interpolation between them.

    Outside the outermost line its share falls to 0 over the distance to the next one.
    """
    columns = np.arange(len(x))
    left = np.clip((crossing <= x).sum(axis=0) - 1, 0, np.maximum(n - 2, 0))
    right = np.minimum(left + 1, len(crossing) - 1)
    with np.errstate(invalid="ignore"):
        place = (x - crossing[left, columns]) / (crossing[right, columns] - crossing[left, columns])
    several = n > 1
    yield left, np.where(several, np.clip(1 - np.abs(place), 0, 1), 0)
    yield right, np.where(several, np.clip(1 - np.abs(1 - place), 0, 1), 0)
