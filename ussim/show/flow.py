"""Pictures of flow: velocities in color over a B-mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..types import ImageGrid
from .figures import _bar, _extent, image_row, show_grey

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def doppler_figure(bmode: np.ndarray, velocity: np.ndarray, grid: ImageGrid, limit: float, title: str = "") -> Figure:
    """Return a B-mode (nz, nx) in [0, 1], and velocities (nz, nx), m/s, over it: red comes closer, NaN is not drawn."""
    figure, (left, right) = image_row(grid, 2)
    for axes in (left, right):
        show_grey(axes, bmode, grid)
    shown = np.ma.masked_invalid(100 * velocity)
    scale = right.imshow(shown, extent=_extent(grid), cmap="RdBu_r", vmin=-100 * limit, vmax=100 * limit)
    left.set_title(title)
    right.set_title("color Doppler")
    right.set_ylabel("")
    _bar(figure, right, scale, "velocity towards the array [cm/s]")
    return figure
