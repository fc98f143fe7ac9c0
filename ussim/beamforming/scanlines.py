"""Scan lines: each focused transmit images the line through its focus, and lines are interpolated onto the grid.

A pixel between two lines is beamformed from both transmits, each with its own times, and weighs them as linear interpolation
does, with their phases. So lines may be steered and the grid stays Cartesian: no scan conversion follows.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..acquisition import Acquisition
from ..foci import law_foci
from ..types import ImageGrid

SAME_LINE = 1e-6  # m: lines that pass a depth closer than that are one line, of several focal zones


@lru_cache(maxsize=1)
def line_weights(acquisition: Acquisition, grid: ImageGrid) -> np.ndarray:
    """Return the weight of each transmit at each pixel: linear between the scan lines on its left and right.

    A line runs from the middle of the elements that fire through the focus. Outside the outermost lines weights fall to 0
    over the distance to the next line. Where lines coincide, the one whose focus is nearest in depth counts (focal zones).
    Transmits without a focus have no line, and count nowhere.

    Returns
    -------
    np.ndarray
        (n_transmits, nz, nx) float32, not to be written to.

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
    most = 0
    for row, z in enumerate(grid.z):
        crossing = foci[:, 0] + (z - foci[:, 1]) * slope
        order = np.argsort(crossing)
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.cumsum(np.diff(crossing[order], prepend=-np.inf) > SAME_LINE)
        order = np.lexsort((np.abs(z - foci[:, 1]), place))  # of those in one place, the nearest focus first
        chosen = order[np.diff(place[order], prepend=0) > 0]
        most = max(most, len(chosen))
        if len(chosen) > 1:
            for line, share in zip(chosen, _shares(crossing[chosen], grid.x), strict=True):
                weights[transmits[line], row] += share
    if most < 2:
        raise ValueError(
            f'transmit_weights: "line" needs two scan lines at least, of focused transmits; found {most} '
            f"among {acquisition.n_transmits} transmits"
        )
    weights.setflags(write=False)  # kept, and shared by all who ask
    return weights


def _positions(acquisition: Acquisition) -> tuple[np.ndarray, np.ndarray]:
    return acquisition.probe.element_x, acquisition.probe.element_z


def _shares(lines: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(n_lines, nx): the share of each of some increasing positions in the linear interpolation at x."""
    outer = 2 * lines[[0, -1]] - lines[[1, -2]]
    knots = np.concatenate([outer[:1], lines, outer[1:]])
    return np.stack([np.interp(x, knots, row) for row in np.eye(len(knots))[1:-1]])
