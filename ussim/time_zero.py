"""Time zero of a recording, judged by its own image: where its clock is off, points are less sharp and move.

A start time that is wrong by the same in all transmits moves a point in depth and curves its wavefronts wrongly over the
receive aperture: the phases of its echoes in the parts of the aperture tell by how much, the better the wider the aperture.
One that is wrong by another amount in each transmit (a clock that begins with another element, a steering of the other
sign) puts the point of each transmit at another depth: their distances tell that, and much more finely.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .arrays import to_numpy
from .beamform import delay_and_sum
from .demodulation import demodulate
from .types import ImageGrid, IQData, RFData

REACH = 2.0  # periods of the carrier over which a shift is sought
STEPS = 17
NEAR = 0.5  # wavelengths: a shift of less is the pulse's own length, and what wavefronts can tell
ALIKE = 0.25  # wavelengths of path by which the transmits may disagree
TOLD = 5e-4  # by which a wrong shift must lower the coherence for the best one to mean anything
APERTURE = 1.0  # f-number of the receive aperture that judges
PARTS = 5  # that it is divided into: their echoes of a point are in phase where its wavefront is the right one
CLEAR = 6.0  # wavelengths between points, and from the edge of the picture
SIMILAR = 0.3  # correlation of what two transmits see below which they cannot be compared


@dataclass(frozen=True, eq=False)
class TimeZero:
    """Time zero of a recording, as its brightest points tell it.

    Attributes
    ----------
    shift : float
        Added to `start_time`, s, it focuses the points best; NaN where they cannot tell.
    wavelengths : float
        The same in periods of the carrier, which are wavelengths of path.
    coherence : float
        Of the parts of the receive aperture with that shift, in [0, 1].
    transmit_shifts : np.ndarray
        (n_transmits,) by how much later than the flattest one each transmit has the points, s; NaN of one that does not
        see them.
    transmit_wavelengths : float
        From the earliest to the latest of them, wavelengths.
    points : np.ndarray
        (n_points, 2) x and z of the points, m.
    is_right : bool
        Whether neither is far from 0: half a wavelength of shift, a quarter among transmits.
    """

    shift: float
    wavelengths: float
    coherence: float
    transmit_shifts: np.ndarray
    transmit_wavelengths: float
    points: np.ndarray
    is_right: bool

    def __str__(self) -> str:
        text = "the points cannot tell: they are as sharp with any shift"
        if np.isfinite(self.shift):
            text = f"best focused {1e6 * self.shift:+.3f} µs from the file's ({self.wavelengths:+.2f} wavelengths)"
        if len(self.transmit_shifts) > 1:
            text += f"; the transmits agree within {self.transmit_wavelengths:.2f} wavelengths"
        return f"{len(self.points)} bright points: {text}"


def check_time_zero(
    data: RFData | IQData,
    grid: ImageGrid,
    *,
    n_points: int = 5,
    speed_of_sound: float | None = None,
    engine: str = "auto",
) -> TimeZero:
    """Find the shift of time zero, over ±2 wavelengths, that focuses the brightest points best.

    Parameters
    ----------
    data : RFData or IQData
        One record.
    grid : ImageGrid
        Where the points are sought.
    n_points : int
        How many, at most; 5 by default.
    speed_of_sound : float, optional
        m/s; the medium's by default.
    engine : str
        As in `delay_and_sum`.

    Returns
    -------
    TimeZero

    Raises
    ------
    ValueError
        The data are a stack, or nothing echoes in the field.
    """
    if data.samples.ndim > 3:
        raise ValueError(f"check_time_zero: expected one record, got a stack {data.samples.shape}")
    iq = data if isinstance(data, IQData) else demodulate(data)
    speed = iq.acquisition.medium.speed_of_sound if speed_of_sound is None else speed_of_sound
    options: dict[str, Any] = {"engine": engine, "speed_of_sound": speed}
    period = 1 / iq.acquisition.carrier_frequency
    wavelength = speed * period
    points = _bright_points(np.abs(to_numpy(delay_and_sum(iq, grid, **options))), grid, n_points, CLEAR * wavelength)
    if not len(points):
        raise ValueError("check_time_zero: expected points that echo in the field, got none")

    shifts = np.linspace(-REACH, REACH, STEPS) * period
    parts = [_parts(iq, x, z) for x, z in points]
    seen = np.array([_coherence(parts, points, shift, wavelength, speed, options) for shift in shifts])
    best, top = _vertex(shifts, seen)
    told = top - seen.min() > TOLD and not np.isclose(abs(best), shifts[-1])
    shift = best if told else np.nan
    apart = _transmit_shifts(iq, points, wavelength, speed, options)
    off = told and abs(best) > NEAR * period
    return TimeZero(
        shift=float(shift),
        wavelengths=float(shift / period),
        coherence=float(top),
        transmit_shifts=apart,
        transmit_wavelengths=float(np.nanmax(apart) - np.nanmin(apart)) / period,
        points=points,
        is_right=bool(not off and np.nanmax(np.abs(apart)) <= ALIKE * period),
    )


def _bright_points(image: np.ndarray, grid: ImageGrid, n: int, clear: float) -> np.ndarray:
    """(n, 2) x and z of the brightest pixels that are `clear` apart and that far from the edge."""
    image = image.copy()
    x, z = grid.mesh()
    margin = min(clear, np.ptp(grid.x) / 8, np.ptp(grid.z) / 8)
    inside = (x > grid.x[0] + margin) & (x < grid.x[-1] - margin) & (z > grid.z[0] + margin) & (z < grid.z[-1] - margin)
    image[~inside] = 0
    points: list[tuple[float, float]] = []
    first = image.max(initial=0.0)
    while len(points) < n and image.max(initial=0.0) > 0.1 * first:
        row, column = np.unravel_index(image.argmax(), image.shape)
        points.append((grid.x[column], grid.z[row]))
        image[np.hypot(x - grid.x[column], z - grid.z[row]) < clear] = 0
    return np.array(points).reshape(-1, 2)


def _parts(iq: IQData, x: float, z: float) -> list[IQData]:
    """Return the data of each part of the receive aperture that looks at a point."""
    probe = iq.acquisition.probe
    across = (probe.element_x - x) * np.cos(probe.element_angle) - (probe.element_z - z) * np.sin(probe.element_angle)
    aperture = np.flatnonzero(np.abs(across) <= np.hypot(probe.element_x - x, probe.element_z - z) / (2 * APERTURE))
    aperture = aperture if len(aperture) >= PARTS else np.arange(probe.n_elements)
    parts = []
    for chosen in np.array_split(aperture, min(PARTS, len(aperture))):
        mask = np.zeros(probe.n_elements, dtype=bool)
        mask[chosen] = True
        mask = mask & iq.acquisition.receiving
        if mask.any():
            parts.append(replace(iq, acquisition=replace(iq.acquisition, receive_mask=mask)))
    return parts


def _coherence(
    parts: list[list[IQData]],
    points: np.ndarray,
    shift: float,
    wavelength: float,
    speed: float,
    options: dict[str, Any],
) -> float:
    """Return how well the parts of the aperture agree in phase on the points, in [0, 1]; each is where the shift puts it."""
    found = []
    for (x, z), data in zip(points, parts, strict=True):
        middle = max(z + shift * speed / 2, 1.5 * wavelength)
        patch = ImageGrid(
            x=x + np.linspace(-0.5, 0.5, 5) * wavelength, z=middle + np.linspace(-0.75, 0.75, 13) * wavelength
        )
        moved = [replace(part, start_time=part.start_time + shift) for part in data]
        images = np.stack([to_numpy(delay_and_sum(part, patch, 0, **options)) for part in moved])
        together, apart = np.abs(images.sum(axis=0)), np.abs(images).sum(axis=0)
        pixel = np.unravel_index(together.argmax(), together.shape)
        found.append(together[pixel] / max(apart[pixel], 1e-30))
    return float(np.mean(found))


def _transmit_shifts(
    iq: IQData, points: np.ndarray, wavelength: float, speed: float, options: dict[str, Any]
) -> np.ndarray:
    """Return by how much each transmit has the points later than the flattest, (n_transmits,) s; NaN: other points."""
    delays = iq.acquisition.transmit_delays
    if len(delays) == 1:
        return np.zeros(1)
    spans = np.nanmax(delays, axis=(1, 2)) - np.nanmin(delays, axis=(1, 2))
    reference = int(np.argmin(np.where(np.isnan(spans), np.inf, spans)))
    reach = 3 * wavelength + speed * float(np.nanmax(spans)) / 2  # a clock that begins with another element
    step = wavelength / 8
    n = int(np.ceil(reach / step))
    total = np.zeros((len(delays), 4 * n + 1))
    for x, z in points:
        depths = z + np.arange(-n, n + 1) * step
        patch = ImageGrid(x=x + np.linspace(-1, 1, 9) * wavelength, z=depths[depths > 0])
        images = np.abs(to_numpy(delay_and_sum(iq, patch, APERTURE, compounding="none", **options)))
        profiles = np.zeros((len(delays), 2 * n + 1))
        profiles[:, depths > 0] = images.max(axis=-1)
        profiles /= np.maximum(np.linalg.norm(profiles, axis=-1, keepdims=True), 1e-30)
        total += np.array([np.correlate(profile, profiles[reference], "full") for profile in profiles])
    lags = np.arange(-2 * n, 2 * n + 1) * step
    places = np.array([_vertex(lags, values)[0] for values in total])
    places[total.max(axis=-1) < SIMILAR * len(points)] = np.nan
    return 2 * places / speed


def _vertex(places: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Place and height of the vertex of the parabola through the largest value and its neighbors."""
    i = int(np.argmax(values))
    if not 0 < i < len(values) - 1:
        return float(places[i]), float(values[i])
    before, here, after = values[i - 1 : i + 2]
    curve = before - 2 * here + after
    step = 0.0 if curve == 0 else float(0.5 * (before - after) / curve)
    return float(places[i] + step * (places[i + 1] - places[i])), float(here - 0.25 * (before - after) * step)
