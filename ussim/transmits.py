"""Transmit sequences: when each element fires. SI units; x lateral, z depth, angles from the z axis towards +x.

Every sequence answers `delays(probe, medium)`: firing times (n_transmits, n_elements) in seconds, the minimum of each
transmit 0, NaN where an element is off. Several simultaneous foci (multi-line transmission) make a third axis:
(n_transmits, n_foci, n_elements). The laws are those of MUST's `txdelay` (Garcia 2021), each from geometry alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from .probes import Probe
    from .types import Medium


class Waves(Protocol):
    """What an `Acquisition` needs of a transmit sequence."""

    @property
    def apodization(self) -> np.ndarray | None:
        """None, (n_elements,) or (n_transmits, n_elements)."""
        ...

    def delays(self, probe: Probe, medium: Medium) -> np.ndarray:
        """(n_transmits, n_elements) or (n_transmits, n_foci, n_elements) firing times in s, NaN where off."""
        ...


@dataclass(frozen=True, eq=False)
class PlaneWaves:
    """Plane waves steered by `angles`, one transmit each, from a flat or convex array.

    Raises
    ------
    ValueError
        An angle is not finite or not within ±π/2.
    """

    angles: np.ndarray  # (n_transmits,) rad
    apodization: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "angles", _row("angles", self.angles))
        _check_angles("angles", self.angles)

    def delays(self, probe: Probe, medium: Medium) -> np.ndarray:
        """The front along (sin t, cos t) passes an element at (x sin t + z cos t) / c."""
        sine, cosine = np.sin(self.angles)[:, None], np.cos(self.angles)[:, None]
        return _from_zero((probe.element_x * sine + probe.element_z * cosine) / medium.speed_of_sound)


@dataclass(frozen=True, eq=False)
class DivergingWaves:
    """Circular waves, either `tilts` and `width` (MUST's form, flat arrays) or virtual sources (`x`, `z`) behind any array.

    Raises
    ------
    ValueError
        Both or neither form is given, a sector leaves ±π/2, or (in `delays`) a source is not behind the array.
    """

    tilts: np.ndarray | None = None  # (n_transmits,) rad, direction of the sector's axis
    width: float | np.ndarray | None = None  # rad, opening of the sector
    x: np.ndarray | None = None  # (n_transmits,) m, virtual sources
    z: np.ndarray | None = None
    apodization: np.ndarray | None = None

    def __post_init__(self) -> None:
        by_angle = self.tilts is not None and self.width is not None
        by_source = self.x is not None and self.z is not None
        if (
            by_angle == by_source
            or (self.tilts is None) != (self.width is None)
            or (self.x is None) != (self.z is None)
        ):
            raise ValueError("DivergingWaves: expected tilts and width, or x and z of virtual sources")
        if by_angle:
            tilts, width = np.broadcast_arrays(_row("tilts", self.tilts), _row("width", self.width))
            for key, edge in (("tilts - width/2", tilts - width / 2), ("tilts + width/2", tilts + width / 2)):
                _check_angles(key, edge)
            if np.any(width <= 0):
                raise ValueError(f"width: expected a sector of more than 0 rad, got {width.min():g}")
            object.__setattr__(self, "tilts", tilts.copy())
            object.__setattr__(self, "width", width.copy())
        else:
            x, z = np.broadcast_arrays(_row("x", self.x), _row("z", self.z))
            object.__setattr__(self, "x", x.copy())
            object.__setattr__(self, "z", z.copy())

    def sources(self, probe: Probe) -> tuple[np.ndarray, np.ndarray]:
        """(n_transmits,) x and z of the virtual sources, m."""
        if self.x is not None and self.z is not None:
            return self.x, self.z
        if not probe.is_flat:
            raise ValueError(
                f"DivergingWaves(tilts, width) is defined on flat arrays; {probe.name} is convex. Give virtual sources: "
                f"DivergingWaves(x=0, z={probe.center_of_curvature:.4f}) fires all elements at once"
            )
        # The sector's edges pass through the array's ends: tan(tilt ± width/2) = (±L/2 - x) / -z.
        assert self.tilts is not None
        assert self.width is not None
        right, left = np.tan(self.tilts + self.width / 2), np.tan(self.tilts - self.width / 2)
        aperture = probe.element_x[-1] - probe.element_x[0]
        z = -aperture / (right - left)
        return aperture / 2 + z * right, z

    def delays(self, probe: Probe, medium: Medium) -> np.ndarray:
        x, z = self.sources(probe)
        if not np.all(probe.is_behind(x, z)):
            raise ValueError(
                f"DivergingWaves: expected virtual sources behind the {probe.name} array, got "
                f"x={x.tolist()}, z={z.tolist()} m. For a focus in front use FocusedWaves"
            )
        return _from_zero(_distances(probe, x, z) / medium.speed_of_sound)


@dataclass(frozen=True, eq=False)
class FocusedWaves:
    """One focus in front of the array a transmit.

    Raises
    ------
    ValueError
        Positions are not finite, or (in `delays`) a focus is behind the array.
    """

    x: np.ndarray  # (n_transmits,) m
    z: np.ndarray
    apodization: np.ndarray | None = None

    def __post_init__(self) -> None:
        x, z = np.broadcast_arrays(_row("x", self.x), _row("z", self.z))
        object.__setattr__(self, "x", x.copy())
        object.__setattr__(self, "z", z.copy())

    def delays(self, probe: Probe, medium: Medium) -> np.ndarray:
        if np.any(probe.is_behind(self.x, self.z)):
            raise ValueError(
                f"FocusedWaves: expected foci in front of the {probe.name} array, got x={self.x.tolist()}, "
                f"z={self.z.tolist()} m. For a source behind it use DivergingWaves"
            )
        return _from_zero(-_distances(probe, self.x, self.z) / medium.speed_of_sound)


@dataclass(frozen=True, eq=False)
class CustomTransmits:
    """Any firing times: (n_elements,), (n_transmits, n_elements), or (n_transmits, n_foci, n_elements) for several
    simultaneous laws (multi-line transmission). NaN switches an element off.

    `_delays` holds the times as given; `delays(probe, medium)` starts each transmit at 0.

    Raises
    ------
    ValueError
        A time is infinite, or no transmit has a firing element.
    """

    _delays: np.ndarray
    apodization: np.ndarray | None = None

    def __init__(self, delays: np.ndarray, apodization: np.ndarray | None = None) -> None:
        times = np.atleast_2d(np.asarray(delays, dtype=np.float64))
        if times.ndim > 3 or times.size == 0:
            raise ValueError(
                "CustomTransmits: expected delays of shape (n_transmits, n_elements) or (n_transmits, n_foci, n_elements), "
                f"got {np.shape(delays)}"
            )
        if np.any(np.isinf(times)):
            raise ValueError("CustomTransmits: expected finite delays (NaN = element off), got an infinite one")
        if np.isnan(times).all():
            raise ValueError("CustomTransmits: no transmit has a firing element (all NaN)")
        object.__setattr__(self, "_delays", times)
        object.__setattr__(self, "apodization", apodization)

    def delays(self, probe: Probe, medium: Medium) -> np.ndarray:
        if self._delays.shape[-1] != probe.n_elements:
            raise ValueError(
                f"CustomTransmits: expected delays for the {probe.n_elements} elements of {probe.name}, "
                f"got {self._delays.shape[-1]}"
            )
        return _from_zero(self._delays)


def imaging_waves(
    probe: Probe,
    transmit: str | None = None,
    n_transmits: int | None = None,
    max_angle: float | None = None,
    width: float | None = None,
) -> PlaneWaves | DivergingWaves:
    """The probe's default imaging sequence, any part of it overridden: `n_transmits` waves over ±`max_angle` rad.

    On a convex array "diverging" means virtual sources at the centre of curvature's distance from the apex, turned by the
    tilt: tilt 0 fires all elements at once.

    Raises
    ------
    ValueError
        The probe has no imaging defaults and `transmit` or `max_angle` is missing, or a value is out of range.
    """
    default = probe.imaging
    transmit = transmit or (default.transmit if default else "plane")
    n_transmits = n_transmits if n_transmits is not None else (default.n_transmits if default else 15)
    max_angle = max_angle if max_angle is not None else (default.max_angle if default else np.deg2rad(10.0))
    width = width if width is not None else (default.width if default else np.deg2rad(75.0))
    if n_transmits < 1:
        raise ValueError(f"expected at least 1 transmit, got {n_transmits}")
    angles = np.linspace(-max_angle, max_angle, n_transmits) if n_transmits > 1 else np.zeros(1)
    if transmit == "plane":
        return PlaneWaves(angles)
    if transmit != "diverging":
        raise ValueError(f'transmit: expected "plane" or "diverging", got {transmit!r}')
    if probe.is_flat:
        return DivergingWaves(tilts=angles, width=width)
    apex = probe.center_of_curvature + probe.radius
    return DivergingWaves(x=-probe.radius * np.sin(angles), z=apex - probe.radius * np.cos(angles))


# --- helpers ---------------------------------------------------------------------------------------------------------


def _row(name: str, values) -> np.ndarray:
    row = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if row.ndim != 1 or row.size == 0 or not np.all(np.isfinite(row)):
        raise ValueError(f"{name}: expected finite numbers, one a transmit, got {values!r}")
    return row


def _check_angles(name: str, angles: np.ndarray) -> None:
    worst = angles[np.argmax(np.abs(angles))]
    if abs(worst) >= np.pi / 2:
        raise ValueError(
            f"{name}: expected radians within ±π/2 (90 degrees), got {worst:.4g} rad ({np.rad2deg(worst):.4g} degrees)"
        )


def _distances(probe: Probe, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """(n_points, n_elements) distance of points to element centres, m."""
    return np.hypot(x[:, None] - probe.element_x, z[:, None] - probe.element_z)


def _from_zero(times: np.ndarray) -> np.ndarray:
    """Firing times with each transmit's earliest at 0."""
    axes = tuple(range(1, times.ndim))
    firing = ~np.isnan(times)
    earliest = np.where(firing, times, np.inf).min(axis=axes, keepdims=True)
    return times - np.where(np.isfinite(earliest), earliest, 0.0)
