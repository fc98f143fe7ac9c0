"""Scan conversion and its inverse: images of beams from an apex (radius, angle) and images of pixels (z, x).

What a sector probe scans is a rectangle in polar coordinates; on a Cartesian grid it is a sector with empty corners.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ..acquisition import Acquisition
from ..doors import own
from ..types import ImageGrid
from .apertures import reached

PROBED_DEPTHS, PROBED_ANGLES = 33, 181  # at which it is looked whether transmits reach a sector
DIRECTIONS = 361  # between which the largest sector is looked for


@dataclass(frozen=True, eq=False)
class PolarGrid:
    """Points of a polar image: rows at `radius` from the apex, columns at `angle` from the z axis.

    Attributes
    ----------
    radius : np.ndarray
        (n_radii,) distances from the apex, m, increasing, above 0.
    angle : np.ndarray
        (n_angles,) directions, rad, increasing; positive to positive x.
    apex : float
        Depth z of the apex, m, at x = 0: below 0 for a convex array, 0 for a phased one (`Probe.beam_apex`).
    shape : tuple of int
        (n_radii, n_angles).

    Raises
    ------
    ValueError
        An axis is not finite and increasing, a radius is not above 0, or an angle is not within ±π.
    """

    radius: np.ndarray
    angle: np.ndarray
    apex: float = 0.0

    if TYPE_CHECKING:  # lists and numbers become arrays

        def __init__(self, radius: ArrayLike, angle: ArrayLike, apex: float = 0.0) -> None: ...

    def __post_init__(self) -> None:
        for name, unit in (("radius", "m"), ("angle", "rad")):
            axis = own(f"PolarGrid: {name}", getattr(self, name))
            if axis.ndim != 1 or axis.size == 0 or not np.isfinite(axis).all() or (np.diff(axis) <= 0).any():
                raise ValueError(f"PolarGrid: {name}: expected finite increasing {unit}, got {axis!r}")
            object.__setattr__(self, name, axis)
        if self.radius[0] <= 0:
            raise ValueError(f"PolarGrid: radius: expected m above 0, got {self.radius[0]:g}")
        if np.abs(self.angle).max() > np.pi:
            raise ValueError(f"PolarGrid: angle: expected rad within ±π, got {np.abs(self.angle).max():g}")
        if not np.isfinite(self.apex):
            raise ValueError(f"PolarGrid: apex: expected a depth in m, got {self.apex!r}")

    @classmethod
    def for_acquisition(
        cls,
        acquisition: Acquisition,
        shape: tuple[int, int] = (256, 256),
        depth: tuple[float, float] | None = None,
        angle: tuple[float, float] | None = None,
    ) -> PolarGrid:
        """Lay points over the sector that a convex or phased probe scans: `delay_and_sum` on them leaves no corner empty.

        Parameters
        ----------
        acquisition : Acquisition
            Its probe has the default field of view.
        shape : (int, int)
            (n_radii, n_angles), (256, 256) by default.
        depth : (float, float), optional
            Low and high, m along a beam from the array's face; from the probe's field of view by default.
        angle : (float, float), optional
            Low and high, rad; by default as far to either side as the transmits reach at all depths, at most to the
            outermost elements' normals, of a phased array the sector of the probe's diverging waves.

        Returns
        -------
        PolarGrid

        Raises
        ------
        ValueError
            The probe is linear, or has no default field of view and `depth` is missing, or a value is out of range.
        """
        probe = acquisition.probe
        apex, imaging = probe.beam_apex, probe.imaging
        if apex is None:
            raise ValueError(
                f"PolarGrid: expected a convex or phased probe, got {probe.name}, whose beams run straight down: "
                "use ImageGrid"
            )
        if depth is None and imaging is None:
            raise ValueError(
                f"{probe.name} has no default field of view ([imaging] in its file): give depth, (low, high) in m"
            )
        face = 0.0 if probe.is_flat else probe.radius
        if depth is None:
            top = apex + face  # z of the face, on the axis
            depth = max(imaging.z[0] - top, 0.0), imaging.z[1] - top  # type: ignore[union-attr]
        if angle is None:
            half = imaging.width / 2 if probe.is_flat and imaging is not None else float(probe.element_angle[-1])
            angle = _lit_angles(acquisition, apex, face + np.linspace(*depth, PROBED_DEPTHS), half)
        for name, extent in (("depth", depth), ("angle", angle)):
            if not extent[0] < extent[1]:
                raise ValueError(f"PolarGrid: {name}: expected (low, high) with low < high, got {tuple(extent)}")
        if min(shape) < 1:
            raise ValueError(f"shape: expected (n_radii, n_angles) of at least 1, got {shape}")
        radius = np.linspace(face + depth[0], face + depth[1], shape[0])
        return cls(radius, np.linspace(*angle, shape[1]), apex)

    @classmethod
    def within(cls, grid: ImageGrid, apex: float, shape: tuple[int, int] | None = None) -> PolarGrid:
        """Lay the largest sector that lies wholly in an image: its polar image has no empty corners.

        Parameters
        ----------
        grid : ImageGrid
            Of the image.
        apex : float
            Depth of the apex, m; above the image.
        shape : (int, int), optional
            (n_radii, n_angles); the image's (nz, nx) by default.

        Returns
        -------
        PolarGrid

        Raises
        ------
        ValueError
            The apex does not lie above the image.
        """
        top, bottom = (float(end) - apex for end in grid.z[[0, -1]])
        left, right = (float(end) for end in grid.x[[0, -1]])
        if top <= 0:
            raise ValueError(f"apex: expected a depth above the image, which begins at {grid.z[0]:g} m, got {apex:g}")
        ends = [float(np.arctan2(x, z)) for x in (left, right) for z in (top, bottom)]
        # Straight down is among them: the largest radius is reached there first.
        angles = np.unique(np.append(np.linspace(min(ends), max(ends), DIRECTIONS), 0.0))
        angles = angles[(angles >= min(ends)) & (angles <= max(ends))]
        sine, cosine = np.sin(angles), np.cos(angles)
        with np.errstate(divide="ignore", invalid="ignore"):
            sides = np.sort([left / sine, right / sine], axis=0)  # where a beam meets the image's sides, or their lines
        sides = np.where(sine == 0, [[-np.inf if left <= 0 <= right else np.inf], [np.inf]], sides)
        nearest, farthest = np.maximum(sides[0], top / cosine), np.minimum(sides[1], bottom / cosine)
        best = (0.0, 0, 0, 0.0, 0.0)
        for first in range(len(angles) - 1):
            low, high = np.maximum.accumulate(nearest[first:]), np.minimum.accumulate(farthest[first:])
            area = (angles[first:] - angles[first]) * np.where(high > low, high**2 - low**2, 0)
            last = int(area.argmax())
            if area[last] > best[0]:
                best = (float(area[last]), first, first + last, float(low[last]), float(high[last]))
        _, first, last, low_radius, high_radius = best
        n_radii, n_angles = shape or grid.shape
        return cls(
            np.linspace(low_radius, high_radius, n_radii), np.linspace(angles[first], angles[last], n_angles), apex
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(n_radii, n_angles), the shape of an image on this grid."""
        return len(self.radius), len(self.angle)

    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x and z of every point, each (n_radii, n_angles), m."""
        radius, angle = self.radius[:, None], self.angle[None, :]
        return radius * np.sin(angle), self.apex + radius * np.cos(angle)


def _lit_angles(acquisition: Acquisition, apex: float, radius: np.ndarray, half: float) -> tuple[float, float]:
    """Return the beams about the middle one, within ± half, at all of whose radii a transmit passes; ± half without any."""
    angle = np.linspace(-half, half, PROBED_ANGLES)
    x, z = radius[:, None] * np.sin(angle), apex + radius[:, None] * np.cos(angle)
    lit: np.ndarray = np.logical_and.reduce(reached(acquisition, x, z), axis=0)
    middle = PROBED_ANGLES // 2
    if not lit[middle]:
        return -half, half
    dark = np.flatnonzero(~lit)
    first = int(dark[dark < middle].max(initial=-1)) + 1
    last = int(dark[dark > middle].min(initial=PROBED_ANGLES)) - 1
    return (float(angle[first]), float(angle[last])) if first < last else (-half, half)


def scan_convert(image: np.ndarray, polar: PolarGrid, grid: ImageGrid, outside: float = 0.0) -> np.ndarray:
    """Interpolate a polar image onto pixels.

    Parameters
    ----------
    image : np.ndarray
        (..., n_radii, n_angles) on `polar`.
    polar : PolarGrid
        Points of the image.
    grid : ImageGrid
        Pixels of the result.
    outside : float
        Value of pixels outside the sector, 0 by default.

    Returns
    -------
    np.ndarray
        (..., nz, nx) of the image's type, whole numbers rounded; linear between the points.

    Raises
    ------
    ValueError
        The image is not on the grid.
    """
    x, z = grid.mesh()
    radius, angle = np.hypot(x, z - polar.apex), np.arctan2(x, z - polar.apex)
    return _interpolate(image, (polar.radius, polar.angle), (radius, angle), outside)


def to_polar(image: np.ndarray, grid: ImageGrid, polar: PolarGrid, outside: float = 0.0) -> np.ndarray:
    """Interpolate an image of pixels onto the points of a polar one: the inverse of `scan_convert`.

    Parameters
    ----------
    image : np.ndarray
        (..., nz, nx) on `grid`.
    grid : ImageGrid
        Pixels of the image.
    polar : PolarGrid
        Points of the result; `PolarGrid.within` has those that lie in the image.
    outside : float
        Value of points outside the image, 0 by default.

    Returns
    -------
    np.ndarray
        (..., n_radii, n_angles) of the image's type, whole numbers rounded; linear between the pixels.

    Raises
    ------
    ValueError
        The image is not on the grid.
    """
    x, z = polar.mesh()
    return _interpolate(image, (grid.z, grid.x), (z, x), outside)


def _interpolate(
    image: np.ndarray,
    axes: tuple[np.ndarray, np.ndarray],
    places: tuple[np.ndarray, np.ndarray],
    outside: float,
) -> np.ndarray:
    """Values at places, linear between the points of two axes."""
    from scipy.ndimage import map_coordinates

    image = np.asarray(image)
    shape = (len(axes[0]), len(axes[1]))
    if image.shape[-2:] != shape:
        raise ValueError(f"image: expected the grid's shape (..., {shape[0]}, {shape[1]}), got {image.shape}")
    indices, inside = [], np.ones(places[0].shape, bool)
    for axis, place in zip(axes, places, strict=True):
        indices.append(np.interp(place, axis, np.arange(len(axis), dtype=float)))
        slack = 1e-9 * max(abs(float(axis[0])), abs(float(axis[-1])))  # the rounding of sines and square roots
        inside &= (place >= axis[0] - slack) & (place <= axis[-1] + slack)
    whole = image.dtype.kind in "iub"
    values = image.reshape(-1, *shape).astype(np.float64 if whole else image.dtype)
    found = np.stack([map_coordinates(each, indices, order=1, mode="nearest") for each in values])
    found = np.where(inside, found, outside).reshape(*image.shape[:-2], *places[0].shape)
    if image.dtype.kind == "b":
        return found > 0.5
    return np.rint(found).astype(image.dtype) if whole else found.astype(image.dtype)
