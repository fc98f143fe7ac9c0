"""Image of a point under an acquisition, and how wide that is at some decibels below its peak."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .acquisition import Acquisition
from .arrays import to_numpy
from .beamform import UnseenWarning, delay_and_sum
from .demodulation import demodulate
from .imaging import echo_size
from .simulation import simulate
from .types import ImageGrid, Scatterers

LEVEL_DB = -6.0  # the usual level of a width
ROWS = 81  # of the image of a point, odd: the point lies on a pixel
WINDOW = 4.0  # sizes of an echo at half its height that the image of a point spans on either side
GROWTH, TRIES = 2.0, 4  # of the window, where the echo is cut by its edge


@dataclass(frozen=True, eq=False)
class PointSpread:
    """The image of one point and its widths.

    Attributes
    ----------
    x, z : float
        Where the point is, m.
    grid : ImageGrid
        Pixel centers about the point, m.
    envelope : np.ndarray
        (nz, nx) float, its maximum 1; 0 throughout where the array does not see the point.
    peak_x, peak_z : float
        Where the maximum is, m.
    lateral, axial : np.ndarray
        (nx,) and (nz,) profiles through the maximum, linear.
    """

    x: float
    z: float
    grid: ImageGrid
    envelope: np.ndarray
    peak_x: float
    peak_z: float
    lateral: np.ndarray
    axial: np.ndarray

    def widths(self, level_db: float = LEVEL_DB) -> tuple[float, float]:
        """Return the lateral and the axial width at a level below the peak.

        Parameters
        ----------
        level_db : float
            Below 0, dB; -6 by default.

        Returns
        -------
        (float, float)
            m; NaN where a profile does not fall that far on both sides.
        """
        return width(self.grid.x, self.lateral, level_db), width(self.grid.z, self.axial, level_db)


def width(positions: np.ndarray, profile: np.ndarray, level_db: float = LEVEL_DB) -> float:
    """Return the width of the main lobe of a profile: between the nearest crossings of the level on either side of its peak.

    Parameters
    ----------
    positions : np.ndarray
        (n,) ascending, m.
    profile : np.ndarray
        (n,) amplitude, not negative.
    level_db : float
        Of the crossings, below the peak, dB; -6 by default.

    Returns
    -------
    float
        In the unit of `positions`; NaN where the profile does not fall to the level on both sides, or is 0 throughout.
        Crossings are interpolated linearly in amplitude.

    Raises
    ------
    ValueError
        The level is not below 0 dB, or the arrays differ in length.
    """
    positions, profile = np.asarray(positions, np.float64), np.asarray(profile, np.float64)
    if positions.shape != profile.shape or positions.ndim != 1:
        raise ValueError(f"profile: expected as many values as positions, got {profile.shape} of {positions.shape}")
    if not (math.isfinite(level_db) and level_db < 0):
        raise ValueError(f"level_db: expected dB below 0, got {level_db!r}")
    peak = int(np.argmax(profile))
    threshold = profile[peak] * 10 ** (level_db / 20)
    below = np.flatnonzero(profile <= threshold)
    before, after = below[below < peak], below[below > peak]
    if profile[peak] == 0 or before.size == 0 or after.size == 0:
        return math.nan

    def crossing(low: int, high: int) -> float:
        share = (threshold - profile[low]) / (profile[high] - profile[low])
        return float(positions[low] + share * (positions[high] - positions[low]))

    return crossing(after[0], after[0] - 1) - crossing(before[-1], before[-1] + 1)


def point_spread(
    acquisition: Acquisition,
    x: float,
    z: float,
    f_number: float | None = None,
    *,
    frequency: float | None = None,
    bandwidth: float | None = None,
    engine: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> PointSpread:
    """Simulate one point and image it on a fine grid about it, so large that it holds the point's widths at -6 dB.

    Parameters
    ----------
    acquisition : Acquisition
        Probe, waves, medium and sampling.
    x, z : float
        Where the point is, m, in front of the array.
    f_number : float, optional
        Of the receive aperture (see `delay_and_sum`).
    frequency, bandwidth : float, optional
        Carrier (Hz) and pass band (a fraction of it) of `demodulate`.
    engine : str
        As in `simulate`.
    progress : callable, optional
        As in `simulate`.
    **options
        Those of `delay_and_sum`.

    Returns
    -------
    PointSpread

    Raises
    ------
    ValueError
        The point is behind the array, or a value is out of range.
    EngineError
        No such engine or device, or not enough memory.
    """
    if acquisition.probe.is_behind(np.array([x]), np.array([z])).any():
        raise ValueError(f"point: expected one in front of the array, got x = {1e3 * x:g}, z = {1e3 * z:g} mm")
    rf = simulate(Scatterers([x], [z], [1.0]), acquisition, engine, progress=progress)
    iq = demodulate(rf, frequency, bandwidth)
    height, across = echo_size(acquisition.probe, acquisition.medium.speed_of_sound)
    half_x, half_z = WINDOW * across, WINDOW * height
    for last in (False,) * (TRIES - 1) + (True,):
        spread = _image(iq, x, z, half_x, half_z, f_number, engine, progress, options)
        lateral, axial = spread.widths()
        if last or spread.envelope.max() == 0 or not (math.isnan(lateral) or math.isnan(axial)):
            break
        half_x *= GROWTH if math.isnan(lateral) else 1
        half_z *= GROWTH if math.isnan(axial) else 1
    return spread


def _image(
    iq: Any,
    x: float,
    z: float,
    half_x: float,
    half_z: float,
    f_number: float | None,
    engine: str,
    progress: Any,
    options: Any,
) -> PointSpread:
    """Image the point's echoes on ROWS x ROWS pixels; rows behind the array's plane are left out."""
    axis = np.linspace(-1, 1, ROWS)
    depths = z + half_z * axis
    grid = ImageGrid(x=x + half_x * axis, z=depths[depths > 0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnseenWarning)
        image = delay_and_sum(iq, grid, f_number, engine=engine, progress=progress, **options)
    envelope = to_numpy(abs(image)).astype(np.float64)
    envelope /= envelope.max() or 1.0
    row, column = np.unravel_index(int(envelope.argmax()), envelope.shape)
    return PointSpread(
        x=x,
        z=z,
        grid=grid,
        envelope=envelope,
        peak_x=float(grid.x[column]),
        peak_z=float(grid.z[row]),
        lateral=envelope[row],
        axial=envelope[:, column],
    )
