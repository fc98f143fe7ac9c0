"""Millimeters of the images of a store, in words that other programs know: coordinate arrays, and OME-Zarr metadata.

    lq/z, lq/x                      pixel centers of all LQ images, mm: xarray's coordinates
    lq/z_<PROBE>, lq/x_<PROBE>      where probes have different fields
    lq/zarr.json                    `ome`: scale and place of each probe's images, for napari and OME-Zarr readers

None where each sample has a field of its own: `Pairs.grid` has those. No digest of the content covers them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..plan.resolved import ResolvedRecipe, array_name

AXES = {"z": "depth", "x": "lateral position"}
OME_VERSION = "0.5"


@dataclass(frozen=True, eq=False)
class Coordinate:
    """Pixel centers along one axis."""

    axis: str  # the dimension, "z" or "x"
    values: np.ndarray  # mm
    probes: tuple[str, ...]

    @property
    def attributes(self) -> dict[str, str]:
        """What the array says of itself, in the words of the CF conventions."""
        return {"units": "mm", "long_name": AXES[self.axis]}


def coordinates_of(recipe: ResolvedRecipe) -> dict[str, Coordinate]:
    """Return the coordinates of the LQ images of a recipe, by the names of their arrays beside those of the probes."""
    if not recipe.fields_are_fixed:
        return {}
    grids = {settings.probe.name: settings.grid() for settings in recipe.settings}
    axes = {name: {"z": 1e3 * grid.z, "x": 1e3 * grid.x} for name, grid in grids.items()}
    first, *others = axes.values()
    shared = all(np.array_equal(each[axis], first[axis]) for each in others for axis in AXES)
    if shared:
        found = {axis: Coordinate(axis, first[axis], tuple(axes)) for axis in AXES}
    else:
        found = {
            f"{axis}_{array_name(name)}": Coordinate(axis, each[axis], (name,))
            for name, each in axes.items()
            for axis in AXES
        }
    return {} if found.keys() & set(map(array_name, axes)) else found  # a probe may be called "x"


def named_by(recipe: ResolvedRecipe, probe: str) -> dict[str, str]:
    """Return what the array of a probe's images says of its coordinates: nothing where their names are its dimensions'."""
    names = [name for name, each in coordinates_of(recipe).items() if probe in each.probes and name != each.axis]
    return {"coordinates": " ".join(names)} if names else {}


def ome_of(recipe: ResolvedRecipe, dimensions: tuple[str, ...]) -> dict[str, Any]:
    """Return OME-Zarr's metadata of the group of all probes' images; empty where there is nothing that holds for all.

    Parameters
    ----------
    dimensions : of the arrays; those before z and x are counted, and two of them are time and channel to OME-Zarr, which
        has one axis that is neither.
    """
    if not recipe.fields_are_fixed:
        return {}
    counted = [{"name": name} for name in dimensions[:-2]]
    if len(counted) > 1:
        counted = [each | {"type": kind} for each, kind in zip(counted, ("time", "channel"), strict=True)]
    axes = [*counted, *({"name": name, "type": "space", "unit": "millimeter"} for name in AXES)]
    images = []
    for settings in recipe.settings:
        grid = settings.grid()
        steps, starts = ([1e3 * float(number) for number in pair] for pair in _steps_and_starts(grid))
        before = len(counted)
        placed = [
            {"type": "scale", "scale": [1.0] * before + steps},
            {"type": "translation", "translation": [0.0] * before + starts},
        ]
        images.append(
            {
                "name": settings.probe.name,
                "axes": axes,
                "datasets": [{"path": array_name(settings.probe.name), "coordinateTransformations": placed}],
            }
        )
    return {"ome": {"version": OME_VERSION, "multiscales": images}}


def _steps_and_starts(grid: Any) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the distance of neighboring pixels and the first pixel, z and x, m."""
    (z0, z1), (x0, x1) = (grid.z[[0, -1]], grid.x[[0, -1]])
    return ((z1 - z0) / (len(grid.z) - 1), (x1 - x0) / (len(grid.x) - 1)), (z0, x0)
