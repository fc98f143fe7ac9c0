"""Transmit sequences: when each element fires. SI units; x lateral, z depth, angles from the z axis towards +x.

Every sequence answers `delays(probe, medium)`: firing times (n_transmits, n_elements) in seconds, NaN where an element is
off. Several simultaneous foci (multi-line transmission) make a third axis: (n_transmits, n_foci, n_elements). The laws are
those of MUST's `txdelay` (Garcia 2021), each from geometry alone.

Times are absolute, on the clock of the channel data. When it reads 0 is `time_reference`:

    "first"    the first element of the transmit fires: one that is not off and whose apodization is not 0
    "center"   the wave passes the center of the array, (0, 0) of a flat one, the apex of a convex one, whether an element
               fires there or not
    "given"    whatever the delays say: `CustomTransmits` keeps them as they are
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from .doors import own
from .shown import Shown

if TYPE_CHECKING:
    from .medium import Medium
    from .shown import Shown
from .probes import Probe, one_row


class Waves(Protocol):
    """Protocol of a transmit sequence: what an `Acquisition` needs of it."""

    @property
    def apodization(self) -> np.ndarray | None:
        """None, (n_elements,) or (n_transmits, n_elements)."""
        ...

    def delays(self, probe: Probe, medium: Medium) -> np.ndarray:
        """(n_transmits, n_elements) or (n_transmits, n_foci, n_elements) firing times in s, NaN where off."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class PlaneWaves(Shown):
    """Plane waves steered by `angles`, one transmit each, from a flat or convex array.

    Attributes
    ----------
    angles : np.ndarray
        (n_transmits,) from the z axis towards +x, rad.
    apodization : np.ndarray, optional
        Transmit weights, (n_elements,) or (n_transmits, n_elements), without unit; None, the default: all 1.
    time_reference : str
        When time is 0: "first" (the default), the first element fires whose apodization is not 0; "center", the wave passes
        the center of the array.
    elevation_angles : np.ndarray, optional
        (n_transmits,) of a matrix array, from the z axis towards +y, rad: the wave travels along (sin of the one, sin of the
        other, what is left). None, the default: 0.

    Raises
    ------
    ValueError
        An angle is not finite or not within ±π/2, or both together are no direction.
    """

    angles: np.ndarray
    apodization: np.ndarray | None = None
    time_reference: str = "first"
    elevation_angles: np.ndarray | None = None

    if TYPE_CHECKING:  # lists and numbers become arrays

        def __init__(
            self,
            angles: ArrayLike,
            apodization: ArrayLike | None = None,
            time_reference: str = "first",
            elevation_angles: ArrayLike | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "angles", _row("angles", self.angles))
        _own_apodization(self)
        _check_angles("angles", self.angles)
        _check_reference("PlaneWaves", self.time_reference)
        if self.elevation_angles is not None:
            angles, elevation = np.broadcast_arrays(self.angles, _row("elevation_angles", self.elevation_angles))
            steepest = float((np.sin(angles) ** 2 + np.sin(elevation) ** 2).max())
            _check_angles("elevation_angles", elevation)
            if steepest >= 1:
                raise ValueError(
                    f"elevation_angles: expected sin² of both angles below 1 together, got {steepest:.4g}: no such wave"
                )
            object.__setattr__(self, "angles", own("angles", angles))
            object.__setattr__(self, "elevation_angles", own("elevation_angles", elevation))

    def delays(self, probe: Probe, medium: Medium) -> np.ndarray:
        """Compute the firing times: the front along (sin t, cos t) passes an element at (x sin t + z cos t) / c.

        Of a matrix array, whose z is 0, at (x sin t + y sin e) / c.

        Parameters
        ----------
        probe : Probe
            The array.
        medium : Medium
            Its speed of sound counts.

        Returns
        -------
        np.ndarray
            (n_transmits, n_elements) firing times, s.
        """
        sine, cosine = np.sin(self.angles)[:, None], np.cos(self.angles)[:, None]
        times = (probe.element_x * sine + probe.element_z * cosine) / medium.speed_of_sound
        if self.elevation_angles is not None:
            _check_matrix("PlaneWaves: elevation_angles", probe)
            times = times + probe.element_y * np.sin(self.elevation_angles)[:, None] / medium.speed_of_sound
        return _on_clock(self.time_reference, self.apodization, times, _apex(probe) * cosine / medium.speed_of_sound)


@dataclass(frozen=True, eq=False, repr=False)
class DivergingWaves(Shown):
    """Circular waves, either `tilts` and `width` (MUST's form, flat arrays) or virtual sources (`x`, `z`) behind any array.

    Attributes
    ----------
    tilts : np.ndarray, optional
        (n_transmits,) direction of the sector's axis from the z axis towards +x, rad; None where sources are given.
    width : float or np.ndarray, optional
        Opening of the sector, one or (n_transmits,), rad; None where sources are given.
    x, z : np.ndarray, optional
        (n_transmits,) lateral position and depth of the virtual sources, m; None where tilts are given.
    apodization : np.ndarray, optional
        Transmit weights, (n_elements,) or (n_transmits, n_elements), without unit; None, the default: all 1.
    time_reference : str
        When time is 0: "first" (the default), the first element fires whose apodization is not 0; "center", the wave passes
        the center of the array.
    y : np.ndarray, optional
        (n_transmits,) elevation of the virtual sources of a matrix array, m; None, the default: 0.

    Raises
    ------
    ValueError
        Both or neither form is given, a sector leaves ±π/2, or (in `delays`) a source is not behind the array.
    """

    tilts: np.ndarray | None = None
    width: float | np.ndarray | None = None
    x: np.ndarray | None = None
    z: np.ndarray | None = None
    apodization: np.ndarray | None = None
    time_reference: str = "first"
    y: np.ndarray | None = None

    if TYPE_CHECKING:  # lists and numbers become arrays

        def __init__(
            self,
            tilts: ArrayLike | None = None,
            width: ArrayLike | None = None,
            x: ArrayLike | None = None,
            z: ArrayLike | None = None,
            apodization: ArrayLike | None = None,
            time_reference: str = "first",
            y: ArrayLike | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        _check_reference("DivergingWaves", self.time_reference)
        by_angle = self.tilts is not None and self.width is not None
        by_source = self.x is not None and self.z is not None
        if (
            by_angle == by_source
            or (self.tilts is None) != (self.width is None)
            or (self.x is None) != (self.z is None)
        ):
            raise ValueError("DivergingWaves: expected tilts and width, or x and z of virtual sources")
        if self.y is not None and not by_source:
            raise ValueError("DivergingWaves: y: expected x and z of virtual sources beside it, got tilts and width")
        if by_angle:
            tilts, width = np.broadcast_arrays(_row("tilts", self.tilts), _row("width", self.width))
            for key, edge in (("tilts - width/2", tilts - width / 2), ("tilts + width/2", tilts + width / 2)):
                _check_angles(key, edge)
            if np.any(width <= 0):
                raise ValueError(f"width: expected a sector of more than 0 rad, got {width.min():g}")
            object.__setattr__(self, "tilts", own("tilts", tilts))
            object.__setattr__(self, "width", own("width", width))
        else:
            _own_points(self)
        _own_apodization(self)

    def sources(self, probe: Probe) -> tuple[np.ndarray, np.ndarray]:
        """Locate the virtual sources.

        Parameters
        ----------
        probe : Probe
            The array; a flat one of two elements or more where tilts and width are given.

        Returns
        -------
        tuple of np.ndarray
            x and z, each (n_transmits,), m.

        Raises
        ------
        ValueError
            Tilts and width are not defined on this array.
        """
        if self.x is not None and self.z is not None:
            return self.x, self.z
        if not probe.is_flat:
            raise ValueError(
                f"DivergingWaves(tilts, width) is defined on flat arrays; {probe.name} is convex. Give virtual sources: "
                f"DivergingWaves(x=0, z={probe.center_of_curvature:.4f}) fires all elements at once"
            )
        if probe.n_elements == 1:
            raise ValueError(
                f"DivergingWaves(tilts, width): a sector is made by several elements, {probe.name} has 1: "
                "use PlaneWaves(0), which fires it, or virtual sources x, z"
            )
        # The sector's edges pass through the array's ends: tan(tilt ± width/2) = (±L/2 - x) / -z.
        assert self.tilts is not None
        assert self.width is not None
        right, left = np.tan(self.tilts + self.width / 2), np.tan(self.tilts - self.width / 2)
        aperture = probe.element_x[-1] - probe.element_x[0]
        z = -aperture / (right - left)
        return aperture / 2 + z * right, z

    def delays(self, probe: Probe, medium: Medium) -> np.ndarray:
        """Compute the firing times: the distances from the virtual sources over c.

        Parameters
        ----------
        probe : Probe
            The array.
        medium : Medium
            Its speed of sound counts.

        Returns
        -------
        np.ndarray
            (n_transmits, n_elements) firing times, s.

        Raises
        ------
        ValueError
            A source is not behind the array.
        """
        x, z = self.sources(probe)
        if not np.all(probe.is_behind(x, z)):
            raise ValueError(
                f"DivergingWaves: expected virtual sources behind the {probe.name} array, got "
                f"x={x.tolist()}, z={z.tolist()} m. For a focus in front use FocusedWaves"
            )
        y = _elevation("DivergingWaves: y", self.y, probe, x)
        to_center = np.hypot(np.hypot(x, z - _apex(probe)), y)[:, None]
        return _on_clock(
            self.time_reference,
            self.apodization,
            _distances(probe, x, z, y) / medium.speed_of_sound,
            to_center / medium.speed_of_sound,
        )


@dataclass(frozen=True, eq=False, repr=False)
class FocusedWaves(Shown):
    """One focus in front of the array per transmit.

    Attributes
    ----------
    x, z : np.ndarray
        (n_transmits,) lateral position and depth of the foci, m.
    apodization : np.ndarray, optional
        Transmit weights, (n_elements,) or (n_transmits, n_elements), without unit; None, the default: all 1.
    time_reference : str
        When time is 0: "first" (the default), the first element fires whose apodization is not 0; "center", the wave passes
        the center of the array.
    y : np.ndarray, optional
        (n_transmits,) elevation of the foci of a matrix array, m; None, the default: 0.

    Raises
    ------
    ValueError
        Positions are not finite, or (in `delays`) a focus is behind the array.
    """

    x: np.ndarray
    z: np.ndarray
    apodization: np.ndarray | None = None
    time_reference: str = "first"
    y: np.ndarray | None = None

    if TYPE_CHECKING:  # lists and numbers become arrays

        def __init__(
            self,
            x: ArrayLike,
            z: ArrayLike,
            apodization: ArrayLike | None = None,
            time_reference: str = "first",
            y: ArrayLike | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        _check_reference("FocusedWaves", self.time_reference)
        _own_points(self)
        _own_apodization(self)

    def delays(self, probe: Probe, medium: Medium) -> np.ndarray:
        """Compute the firing times: all elements' waves come together at the focus.

        Parameters
        ----------
        probe : Probe
            The array.
        medium : Medium
            Its speed of sound counts.

        Returns
        -------
        np.ndarray
            (n_transmits, n_elements) firing times, s.

        Raises
        ------
        ValueError
            A focus is behind the array.
        """
        if np.any(probe.is_behind(self.x, self.z)):
            raise ValueError(
                f"FocusedWaves: expected foci in front of the {probe.name} array, got x={self.x.tolist()}, "
                f"z={self.z.tolist()} m. For a source behind it use DivergingWaves"
            )
        y = _elevation("FocusedWaves: y", self.y, probe, self.x)
        from_center = np.hypot(np.hypot(self.x, self.z - _apex(probe)), y)[:, None]
        times = -_distances(probe, self.x, self.z, y) / medium.speed_of_sound
        return _on_clock(self.time_reference, self.apodization, times, -from_center / medium.speed_of_sound)


@dataclass(frozen=True, eq=False, repr=False)
class CustomTransmits(Shown):
    """Any firing times: (n_elements,), (n_transmits, n_elements) or (n_transmits, n_foci, n_elements).

    Several foci are simultaneous laws (multi-line transmission). NaN switches an element off; a transmit without
    elements is silent.

    Times are kept as given, on the clock of the channel data: a constant added to them moves every echo by it. With
    `time_reference` "first" the first element that fires does so at 0. `_delays` holds the times as given.

    Parameters
    ----------
    delays : array_like
        Firing times, s, of the shapes above. As an attribute, `delays` is the method that every sequence has.

    Attributes
    ----------
    apodization : np.ndarray, optional
        Transmit weights, (n_elements,) or (n_transmits, n_elements), without unit; None, the default: all 1.
    time_reference : str
        "given" (the default) or "first".

    Raises
    ------
    ValueError
        A time is infinite, or no transmit has a firing element.
    """

    _delays: np.ndarray
    apodization: np.ndarray | None = None
    time_reference: str = "given"

    def __init__(self, delays: ArrayLike, apodization: ArrayLike | None = None, time_reference: str = "given") -> None:
        _check_reference("CustomTransmits", time_reference, ("given", "first"))
        times = np.atleast_2d(own("delays", delays))
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
        object.__setattr__(self, "time_reference", time_reference)
        _own_apodization(self)

    def delays(self, probe: Probe, medium: Medium) -> np.ndarray:
        """Return the firing times on the clock of `time_reference`.

        Parameters
        ----------
        probe : Probe
            The array.
        medium : Medium
            Not used: times are given.

        Returns
        -------
        np.ndarray
            (n_transmits, n_elements) or (n_transmits, n_foci, n_elements) firing times, s, NaN where an element is off.

        Raises
        ------
        ValueError
            The delays are not of this array's elements.
        """
        if self._delays.shape[-1] != probe.n_elements:
            raise ValueError(
                f"CustomTransmits: expected delays for the {probe.n_elements} elements of {probe.name}, "
                f"got {self._delays.shape[-1]}"
            )
        return self._delays if self.time_reference == "given" else _from_zero(self._delays, self.apodization)


@dataclass(frozen=True, eq=False, repr=False)
class SyntheticAperture(Shown):
    """One element per transmit, at time 0: full-matrix capture, as many transmits as elements, or those of `elements`.

    Attributes
    ----------
    elements : np.ndarray, optional
        (n_transmits,) numbers of the elements that fire, from 0; None, the default: each in turn.
    apodization : np.ndarray, optional
        Transmit weights, (n_elements,) or (n_transmits, n_elements), without unit; None, the default: all 1.

    Raises
    ------
    ValueError
        An element is not a whole number of at least 0, or (in `delays`) the array has no such element.
    """

    elements: np.ndarray | None = None
    apodization: np.ndarray | None = None

    if TYPE_CHECKING:  # lists and numbers become arrays

        def __init__(
            self,
            elements: ArrayLike | None = None,
            apodization: ArrayLike | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        if self.elements is not None:
            elements = _row("elements", self.elements)
            if np.any(elements < 0) or np.any(elements != np.rint(elements)):
                raise ValueError(f"elements: expected whole numbers of at least 0, got {self.elements!r}")
            object.__setattr__(self, "elements", own("elements", elements, np.int64))
        _own_apodization(self)

    def delays(self, probe: Probe, medium: Medium) -> np.ndarray:
        """Return the firing times: 0 at the element that fires.

        Parameters
        ----------
        probe : Probe
            The array.
        medium : Medium
            Not used: there is one firing, at 0.

        Returns
        -------
        np.ndarray
            (n_transmits, n_elements) firing times, s, NaN where an element is off.

        Raises
        ------
        ValueError
            The array has no such element.
        """
        elements = np.arange(probe.n_elements) if self.elements is None else self.elements
        if elements.max() >= probe.n_elements:
            raise ValueError(f"elements: expected 0 to {probe.n_elements - 1} of {probe.name}, got {elements.max()}")
        return np.where(np.arange(probe.n_elements) == elements[:, None], 0.0, np.nan)


def imaging_waves(
    probe: Probe,
    transmit: str | None = None,
    n_transmits: int | None = None,
    max_angle: float | None = None,
    width: float | None = None,
) -> PlaneWaves | DivergingWaves:
    """Return the probe's default imaging sequence, any part of it overridden.

    On a convex array "diverging" means virtual sources at the center of curvature's distance from the apex, turned by the
    tilt: tilt 0 fires all elements at once.

    Parameters
    ----------
    probe : Probe
        Its `imaging` gives the defaults; without it they are 15 plane waves over ±10 degrees.
    transmit : str, optional
        "plane" or "diverging".
    n_transmits : int, optional
        Number of waves, evenly spread over ±`max_angle`; one goes straight ahead.
    max_angle : float, optional
        Largest steering or tilt, rad.
    width : float, optional
        Sector width of a diverging wave of a flat array, rad; 75 degrees where the probe has no default.

    Returns
    -------
    PlaneWaves or DivergingWaves

    Raises
    ------
    ValueError
        A value is out of range.
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


def focused_scan(
    probe: Probe,
    focus_depth: float,
    n_lines: int | None = None,
    f_number: float = 2.0,
    max_angle: float | None = None,
) -> FocusedWaves:
    """Return one focused wave per scan line, from an aperture that walks along the array with the lines.

    On a linear or convex array the lines leave the array at right angles, evenly spread over it, and the elements within
    `focus_depth` / (2 `f_number`) of a line fire. On an array that images by diverging waves (phased) all lines leave from
    its middle, evenly spread over ±`max_angle`.

    Parameters
    ----------
    probe : Probe
        The array that the lines leave from.
    focus_depth : float
        Of the foci from the array, along the lines, m.
    n_lines : int, optional
        Default 64.
    f_number : float
        Depth of the focus over the width of the firing aperture; 0 fires all elements.
    max_angle : float, optional
        Of the lines of a phased array, rad; the probe's default otherwise.

    Returns
    -------
    FocusedWaves
        `n_lines` transmits, apodization (n_lines, n_elements) of 0 and 1: at least one element per line fires.

    Raises
    ------
    ValueError
        A value is out of range.
    """
    one_row(probe, "focused_scan")
    n_lines = 64 if n_lines is None else n_lines
    if n_lines < 1:
        raise ValueError(f"expected at least 1 line, got {n_lines}")
    for name, value, lowest in (("focus_depth", focus_depth, "above 0"), ("f_number", f_number, "of at least 0")):
        if not (np.isfinite(value) and value >= 0 and (value > 0 or lowest != "above 0")):
            raise ValueError(f"{name}: expected a number {lowest}, got {value!r}")
    default = probe.imaging
    if probe.is_flat and default is not None and default.transmit == "diverging":
        angle = np.linspace(-1, 1, n_lines) * (default.max_angle if max_angle is None else max_angle)
        angle = angle if n_lines > 1 else np.zeros(1)
        x, z = focus_depth * np.sin(angle), focus_depth * np.cos(angle)
        along = np.abs(np.broadcast_to(probe.element_x, (n_lines, probe.n_elements)))
    else:
        # Lines leave at (fractional) elements: positions and normals of the array between its ends.
        place = np.linspace(0, probe.n_elements - 1, n_lines) if n_lines > 1 else np.array([(probe.n_elements - 1) / 2])
        number = np.arange(probe.n_elements)
        normal = np.interp(place, number, probe.element_angle)
        if probe.is_flat:
            x, z = np.interp(place, number, probe.element_x), np.full(n_lines, float(focus_depth))
        else:
            reach = probe.radius + focus_depth
            x, z = reach * np.sin(normal), probe.center_of_curvature + reach * np.cos(normal)
        along = np.abs(number - place[:, None]) * probe.pitch
    half = focus_depth / (2 * f_number) if f_number > 0 else np.inf
    fires = (along <= half) | (along == along.min(axis=1, keepdims=True))
    return FocusedWaves(x=x, z=z, apodization=fires.astype(np.float64))


# --- helpers ---------------------------------------------------------------------------------------------------------


def _row(name: str, values: Any) -> np.ndarray:
    row = np.atleast_1d(own(name, values))
    if row.ndim != 1 or row.size == 0 or not np.all(np.isfinite(row)):
        raise ValueError(f"{name}: expected finite numbers, one per transmit, got {values!r}")
    return row


def _own_apodization(waves: Waves) -> None:
    if waves.apodization is not None:
        object.__setattr__(waves, "apodization", own("apodization", waves.apodization))


def _check_angles(name: str, angles: np.ndarray) -> None:
    worst = angles[np.argmax(np.abs(angles))]
    if abs(worst) >= np.pi / 2:
        raise ValueError(
            f"{name}: expected radians within ±π/2 (90 degrees), got {worst:.4g} rad ({np.rad2deg(worst):.4g} degrees)"
        )


def _distances(probe: Probe, x: np.ndarray, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n_points, n_elements) distance of points to element centers, m."""
    distance: np.ndarray = np.hypot(x[:, None] - probe.element_x, z[:, None] - probe.element_z)
    return np.hypot(distance, y[:, None] - probe.element_y) if probe.is_matrix else distance


def _own_points(waves: Any) -> None:
    """Keep x, z and, where it is given, y of sources or foci, one per transmit."""
    names = ("x", "z") if waves.y is None else ("x", "z", "y")
    rows = np.broadcast_arrays(*(_row(name, getattr(waves, name)) for name in names))
    for name, row in zip(names, rows, strict=True):
        object.__setattr__(waves, name, own(name, row))


def _elevation(name: str, y: np.ndarray | None, probe: Probe, x: np.ndarray) -> np.ndarray:
    """Return the y of sources or foci, 0 where none is given, m."""
    if y is None:
        return np.zeros(x.shape)
    _check_matrix(name, probe)
    return y


def _check_matrix(name: str, probe: Probe) -> None:
    if not probe.is_matrix:
        raise ValueError(f"{name}: expected a matrix array, {probe.name} has one row of elements and cannot steer in y")


def _check_reference(kind: str, reference: str, known: tuple[str, ...] = ("first", "center")) -> None:
    if reference not in known:
        words = " or ".join(f'"{name}"' for name in known)
        raise ValueError(f"{kind}: time_reference: expected {words}, got {reference!r}")


def _apex(probe: Probe) -> float:
    """Depth of the center of the array, m: there x is 0."""
    return 0.0 if probe.is_flat else probe.center_of_curvature + probe.radius


def _on_clock(reference: str, apodization: np.ndarray | None, times: np.ndarray, at_center: np.ndarray) -> np.ndarray:
    """Return firing times on the clock of the reference.

    The waves pass the array's center at `at_center` (n_transmits, 1).
    """
    return times - at_center if reference == "center" else _from_zero(times, apodization)


def _from_zero(times: np.ndarray, apodization: np.ndarray | None) -> np.ndarray:
    """Return firing times with the first firing of each transmit at 0.

    Those of a silent transmit from any of its elements.
    """
    axes = tuple(range(1, times.ndim))
    on = ~np.isnan(times)
    firing = on & _not_zero(apodization, times.shape)
    firing |= on & ~firing.any(axis=axes, keepdims=True)
    earliest = np.where(firing, times, np.inf).min(axis=axes, keepdims=True)
    return times - np.where(np.isfinite(earliest), earliest, 0.0)


def _not_zero(apodization: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """Return where the apodization is not 0, to broadcast with (n_transmits, [n_laws,] n_elements).

    All of one that does not fit, which `Acquisition` refuses.
    """
    if apodization is None or np.shape(apodization) not in ((shape[-1],), (shape[0], shape[-1])):
        return np.ones(shape[-1], dtype=bool)
    weights = np.asarray(apodization) != 0
    full: np.ndarray = weights[:, None, :] if weights.ndim == 2 and len(shape) == 3 else weights
    return full
