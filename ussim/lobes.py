"""Resolution over depth: how wide a point is, and how high the lobes beside it are, as an acquisition images it.

Widths are those of `resolution.point_spread`. Lobes are looked for in all directions from the middle of the array, the
largest of the envelope along each, so that they are found wherever in depth the waves and the receive aperture put them.

    side lobe       the largest farther than 1.1 of the main lobe's widths at -6 dB from the point, nearer than grating lobes
    grating lobe    the largest where neighboring elements' echoes differ by a wavelength: |sin θ - sin θ_0| = λ / pitch
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .acquisition import Acquisition
from .arrays import to_numpy
from .beamform import UnseenWarning, delay_and_sum
from .beamforming.grids import PointGrid
from .demodulation import demodulate
from .doors import own
from .imaging import echo_size
from .resolution import LEVEL_DB, point_spread, width
from .simulation import simulate
from .types import Scatterers

WIDEST = math.radians(80)  # directions that are looked at, to either side
PER_BEAM = 3.0  # directions per width of a beam of the whole array, λ / D
PER_ECHO = 2.0  # ranges per height of a point's echo: the largest of two lies within 1.5 dB of the peak
NEARER, FARTHER = (
    0.75,
    1.55,
)  # ranges that are looked at, of the point's own: a plane wave's lobes lie deeper, at 2 / (1 + cos θ)
MAIN_LOBE_DB = -6.0
MAIN_LOBES = (
    1.1  # widths from the point that a main lobe ends at: behind the null of a boxcar, 0.83, and of a Hann window, 1
)
FLOOR_DB = -120.0  # of a profile
PIECE = 200_000  # points that are beamformed at once


@dataclass(frozen=True, eq=False)
class DepthResolution:
    """Widths and lobes of points at some depths.

    Attributes
    ----------
    x : float
        Lateral position of the points, m.
    depths : np.ndarray
        (n_depths,) m, from z = 0.
    lateral, axial : np.ndarray
        (n_depths,) widths at `level_db`, m; NaN where the image of the point does not fall that far on both sides.
    side_lobe_db, grating_lobe_db : np.ndarray
        (n_depths,) levels relative to the point, dB; NaN where there is none: no main lobe to be beside, no direction that
        a grating lobe could have.
    grating_angle : np.ndarray
        (n_depths,) where the higher grating lobe is expected at the center frequency, rad from the array's normal in its
        middle; NaN where there is none.
    sines : np.ndarray
        (n_directions,) of the profiles' angles to the normal, increasing.
    profiles_db : np.ndarray
        (n_depths, n_directions) largest envelope along each direction, dB of the point's.
    level_db : float
        Of the widths.
    """

    x: float
    depths: np.ndarray
    lateral: np.ndarray
    axial: np.ndarray
    side_lobe_db: np.ndarray
    grating_lobe_db: np.ndarray
    grating_angle: np.ndarray
    sines: np.ndarray
    profiles_db: np.ndarray
    level_db: float = LEVEL_DB

    def to_dict(self) -> dict[str, Any]:
        """Return widths and lobes as JSON has them, SI units, None for NaN; the profiles are left out.

        Returns
        -------
        dict
        """
        plain: dict[str, Any] = {"x": self.x, "level_db": self.level_db}
        for name in ("depths", "lateral", "axial", "side_lobe_db", "grating_lobe_db", "grating_angle"):
            plain[name] = [None if math.isnan(value) else float(value) for value in getattr(self, name)]
        return plain


def resolution_over_depth(
    acquisition: Acquisition,
    depths: ArrayLike | None = None,
    x: float = 0.0,
    f_number: float | None = None,
    *,
    level_db: float = LEVEL_DB,
    frequency: float | None = None,
    bandwidth: float | None = None,
    engine: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> DepthResolution:
    """Measure how wide points are, and how high their side and grating lobes, over depth.

    Each point is simulated and imaged alone.

    Parameters
    ----------
    acquisition : Acquisition
        Probe, waves, medium and sampling.
    depths : array_like, optional
        (n_depths,) m, from z = 0; by default eight over the probe's field of view.
    x : float
        Lateral position of the points, m; 0 by default.
    f_number : float, optional
        Of the receive aperture (see `delay_and_sum`); 0 is the full one. The default keeps grating lobes out.
    level_db : float
        Of the widths, below 0; -6 by default.
    frequency, bandwidth : float, optional
        Carrier (Hz) and pass band (a fraction of it) of `demodulate`.
    engine : str
        As in `simulate`.
    progress : callable, optional
        Called with the depths done and their number.
    **options
        Those of `delay_and_sum`.

    Returns
    -------
    DepthResolution

    Raises
    ------
    ValueError
        A point is behind the array, a value is out of range, or the probe has no field of view and `depths` are not given.
    EngineError
        No such engine or device, or not enough memory.
    """
    places = _checked_depths(acquisition, depths, x)
    sines = _directions(acquisition)
    rows = []
    for i, depth in enumerate(places):
        spread = point_spread(
            acquisition, x, depth, f_number, frequency=frequency, bandwidth=bandwidth, engine=engine, **options
        )
        rf = simulate(Scatterers([x], [depth], [1.0]), acquisition, engine)
        image = {"f_number": f_number, "engine": engine, **options}
        profile = _profile(demodulate(rf, frequency, bandwidth), x, float(depth), sines, image)
        rows.append((*spread.widths(level_db), profile))
        if progress is not None:
            progress(i + 1, len(places))
    lateral, axial, profiles = (np.array(column) for column in zip(*rows, strict=True))
    lobes = [
        lobe_levels(sines, profile, _sine_to(acquisition, x, depth), *_spacing(acquisition))
        for profile, depth in zip(profiles, places, strict=True)
    ]
    side, grating = (np.array(column) for column in zip(*lobes, strict=True))
    angle = np.array([_grating_angle(acquisition, x, depth) for depth in places])
    return DepthResolution(x, places, lateral, axial, side, grating, angle, sines, profiles, level_db)


def lobe_levels(
    sines: np.ndarray, profile_db: np.ndarray, sine: float, nearest: float, farthest: float
) -> tuple[float, float]:
    """Return the levels of the highest side lobe and of the highest grating lobe of a profile.

    Parameters
    ----------
    sines : np.ndarray
        (n,) of the directions, increasing.
    profile_db : np.ndarray
        (n,) dB.
    sine : float
        Of the point's direction.
    nearest, farthest : float
        Differences of sines at which grating lobes begin and end: those of the band's shortest and longest wavelength over
        the pitch.

    Returns
    -------
    (float, float)
        dB of the point's; NaN where there is none.
    """
    away = np.abs(sines - sine)
    grating = profile_db[(away >= nearest) & (away <= farthest)]
    main = width(sines, 10 ** (np.where(away < nearest, profile_db, -np.inf) / 20), MAIN_LOBE_DB)
    side = profile_db[(away > MAIN_LOBES * main) & (away < nearest)]  # none where the main lobe has no width
    return (
        float(side.max()) if side.size else math.nan,
        float(grating.max()) if grating.size else math.nan,
    )


def _checked_depths(acquisition: Acquisition, depths: ArrayLike | None, x: float) -> np.ndarray:
    probe = acquisition.probe
    if depths is None:
        if probe.imaging is None:
            raise ValueError(f"depths: {probe.name} has no [imaging] field of view: expected depths in m, got none")
        low, high = probe.imaging.z
        depths = np.linspace(low, high, 9)[1:]
    places: np.ndarray = own("depths", depths)
    if places.ndim != 1 or places.size == 0 or not np.isfinite(places).all() or np.any(np.diff(places) <= 0):
        raise ValueError(f"depths: expected finite increasing depths in m, got {depths!r}")
    if not math.isfinite(x):
        raise ValueError(f"x: expected m, got {x!r}")
    if probe.is_behind(np.full(places.shape, x), places).any():
        raise ValueError(
            f"depths: expected points in front of the array, got z = {1e3 * places[0]:g} mm at x = {1e3 * x:g} mm"
        )
    return places


def _middle(acquisition: Acquisition) -> float:
    """Return the depth of the middle of the array's face, m: at x = 0."""
    probe = acquisition.probe
    return 0.0 if probe.is_flat else float(probe.radius + probe.center_of_curvature)


def _directions(acquisition: Acquisition) -> np.ndarray:
    """Return sines of directions that tell apart beams of the whole array."""
    probe, speed = acquisition.probe, acquisition.medium.speed_of_sound
    aperture = float(np.ptp(probe.element_x)) + probe.element_width
    beam = speed / probe.center_frequency / aperture
    n = 2 * math.ceil(math.sin(WIDEST) * PER_BEAM / beam) + 1
    return np.linspace(-math.sin(WIDEST), math.sin(WIDEST), n)


def _sine_to(acquisition: Acquisition, x: float, z: float) -> float:
    return x / math.hypot(x, z - _middle(acquisition))


def _spacing(acquisition: Acquisition) -> tuple[float, float]:
    """Return the shortest and the longest wavelength of the band over the pitch."""
    probe = acquisition.probe
    ratio = acquisition.medium.speed_of_sound / probe.center_frequency / probe.pitch
    return ratio / (1 + probe.bandwidth / 2), ratio / (1 - min(probe.bandwidth, 1.9) / 2)


def _grating_angle(acquisition: Acquisition, x: float, z: float) -> float:
    """Return the direction of a grating lobe at the center frequency that is nearer to the normal, rad; NaN of none."""
    probe, sine = acquisition.probe, _sine_to(acquisition, x, z)
    ratio = acquisition.medium.speed_of_sound / probe.center_frequency / probe.pitch
    found = min((sine - ratio, sine + ratio), key=abs) if sine else ratio
    return math.asin(found) if abs(found) <= 1 else math.nan


def _profile(iq: Any, x: float, z: float, sines: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    """Return the largest envelope along each direction from the middle of the array, dB of the point's."""
    acquisition = iq.acquisition
    middle = _middle(acquisition)
    range_ = math.hypot(x, z - middle)
    height, _ = echo_size(acquisition.probe, acquisition.medium.speed_of_sound)
    n = math.ceil((FARTHER - NEARER) * range_ * PER_ECHO / height) + 1
    radii = range_ * np.linspace(NEARER, FARTHER, n)
    angles = np.arcsin(sines)
    largest = np.zeros(len(sines))
    piece = max(1, PIECE // n)
    for first in range(0, len(sines), piece):
        part = slice(first, first + piece)
        points = PointGrid(np.outer(radii, sines[part]), middle + np.outer(radii, np.cos(angles[part])))
        largest[part] = _envelope(iq, points, options).max(axis=0)
    at_point = PointGrid([x], [z])
    reference = max(float(_envelope(iq, at_point, options)[0]), float(largest.max()), np.finfo(float).tiny)
    level: np.ndarray = 20 * np.log10(np.maximum(largest / reference, 10 ** (FLOOR_DB / 20)))
    return level


def _envelope(iq: Any, points: PointGrid, options: dict[str, Any]) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnseenWarning)
        image = delay_and_sum(iq, points, **options)
    return to_numpy(abs(image)).astype(np.float64)
