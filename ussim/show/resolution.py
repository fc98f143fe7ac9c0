"""Pictures of resolution: widths of points, lobes beside them, and directions of both, over depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..lobes import DepthResolution
from .figures import _bar, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = {"lateral": "#1f6feb", "axial": "#bc4c00", "side lobe": "#1f6feb", "grating lobe": "#bc4c00"}
RANGE_DB = 60.0  # of the map of directions
HIGHEST_PANEL = 4.6  # inches


def resolution_figure(found: DepthResolution, title: str = "") -> Figure:
    """Return a figure of widths and lobe levels over depth, and of the envelope over direction and depth.

    Parameters
    ----------
    found : DepthResolution
        What is drawn.
    title : str
        Above it.

    Returns
    -------
    Figure
        Dashes in the map: where grating lobes of the center frequency are.
    """
    figure = new_figure(13.2, HIGHEST_PANEL)
    widths, levels, directions = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
    figure.suptitle(title)
    depths = 1e3 * found.depths
    for name, values in (("lateral", found.lateral), ("axial", found.axial)):
        _draw(widths, depths, 1e3 * values, name)
    widths.set_ylabel(f"width at {found.level_db:g} dB [mm]")
    widths.set_ylim(bottom=0)
    for name, values in (("side lobe", found.side_lobe_db), ("grating lobe", found.grating_lobe_db)):
        _draw(levels, depths, values, name)
    levels.set_ylabel("level [dB of the point]")
    for axes in (widths, levels):
        axes.set_xlabel("depth [mm]")
        axes.grid(color="0.9", linewidth=0.7)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    _draw_map(figure, directions, found)
    return figure


def _draw(axes: Axes, depths: np.ndarray, values: np.ndarray, name: str) -> None:
    """Draw values over depth; of what there is none of, nothing."""
    if np.isfinite(values).any():
        axes.plot(depths, values, marker="o", markersize=4, color=COLORS[name], label=name)


def _draw_map(figure: Figure, axes: Axes, found: DepthResolution) -> None:
    """Draw the largest envelope along each direction, a row per depth."""
    angles = np.rad2deg(np.arcsin(found.sines))
    edges = np.r_[angles[0], (angles[1:] + angles[:-1]) / 2, angles[-1]]
    image: Any = axes.pcolormesh(
        edges, _edges(1e3 * found.depths), found.profiles_db, cmap="inferno", vmin=-RANGE_DB, vmax=0, rasterized=True
    )
    expected = np.rad2deg(found.grating_angle)
    seen = np.isfinite(expected) & (np.abs(expected) <= angles[-1])
    for sign in (-1, 1) if found.x == 0 else (1,):
        if seen.any():
            axes.plot(sign * expected[seen], 1e3 * found.depths[seen], color="white", linestyle="--", linewidth=1.2)
    axes.invert_yaxis()
    axes.set_xlabel("direction from the array's middle [°]")
    axes.set_ylabel("depth of the point [mm]")
    _bar(figure, axes, image, "largest envelope [dB]")


def _edges(depths: np.ndarray) -> np.ndarray:
    """Return the borders of rows about depths."""
    if depths.size == 1:
        return np.array([depths[0] - 0.5, depths[0] + 0.5])
    between = (depths[1:] + depths[:-1]) / 2
    edges: np.ndarray = np.r_[2 * depths[0] - between[0], between, 2 * depths[-1] - between[-1]]
    return edges
