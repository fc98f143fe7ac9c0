"""Foci of transmits: as `FocusedWaves` says, or found in the firing times of `CustomTransmits`.

The elements of a focused law fire so that their waves meet: τ_e = T - d_e / c, d_e the way from the element to the focus.
Plane and diverging waves have no focus in front of the array, and neither has a law of another form.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from .acquisition import Acquisition
from .probes import Probe
from .transmits import CustomTransmits, FocusedWaves

MISFIT = 1 / 8  # wavelengths by which a focused law's times may miss those of the focus (times are rounded to a clock)
SAG = 1 / 4  # wavelengths: a front less curved than that over its aperture is flat, its focus beyond the near field
SAG_AMONG_FOCI = 1 / 64  # the same beside focused transmits: the last of a walking aperture have few elements
STEPS = 20  # of Gauss and Newton at most


@lru_cache(maxsize=8)
def law_foci(acquisition: Acquisition) -> np.ndarray:
    """Return the focus of each law of each transmit.

    Returns
    -------
    np.ndarray
        (n_transmits, n_laws, 2) x and z in m, NaN where a law has no focus in front of the array.
    """
    delays, waves, probe = acquisition.transmit_delays, acquisition.waves, acquisition.probe
    foci = np.full((*delays.shape[:2], 2), np.nan)
    if isinstance(waves, FocusedWaves):
        foci[:] = np.stack([waves.x, waves.z], axis=-1)[:, None]
    elif isinstance(waves, CustomTransmits):
        wavelength = acquisition.medium.speed_of_sound / probe.center_frequency
        sag = np.zeros(delays.shape[:2])
        for i, law in np.ndindex(sag.shape):
            firing = ~np.isnan(delays[i, law]) & (acquisition.transmit_weights[i] != 0)
            ahead = delays[i, law, firing] * acquisition.medium.speed_of_sound
            foci[i, law], sag[i, law] = _fit(probe, firing, ahead, wavelength)
        foci[sag < (SAG_AMONG_FOCI if (sag >= SAG).any() else SAG) * wavelength] = np.nan
    foci.setflags(write=False)  # kept, and shared by all who ask
    return foci


@lru_cache(maxsize=8)
def law_foci_at(acquisition: Acquisition, speed_of_sound: float) -> np.ndarray:
    """Return where the waves of each law come together at a speed of sound, (n_transmits, n_laws, 2) m, NaN as `law_foci`.

    The foci themselves at the medium's own speed. At another one the same firing times have their focus elsewhere, about at
    focus x medium's speed / other speed: where the arrivals of the firing elements lie closest together.
    """
    foci, speed = law_foci(acquisition), acquisition.medium.speed_of_sound
    if speed_of_sound == speed:
        return foci
    moved = foci.copy()
    for i, law in np.argwhere(~np.isnan(foci).any(axis=-1)):
        delays = acquisition.transmit_delays[i, law]
        firing = np.flatnonzero(~np.isnan(delays) & (acquisition.transmit_weights[i] != 0))
        elements = np.stack([acquisition.probe.element_x[firing], acquisition.probe.element_z[firing]], axis=1)
        if len(firing) > 2:
            center = elements.mean(axis=0)
            start = center + (foci[i, law] - center) * speed / speed_of_sound
            moved[i, law] = _closest_arrivals(elements, delays[firing] * speed_of_sound, start)
    moved.setflags(write=False)
    return moved


def _closest_arrivals(elements: np.ndarray, ahead: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Return the point (2,) near `point` that waves of the elements (n, 2), each `ahead` m late, reach most together."""
    center = elements.mean(axis=0)
    for _ in range(STEPS):
        ways = point - elements
        distance = np.maximum(np.linalg.norm(ways, axis=1), 1e-12)
        slope, late = ways / distance[:, None], ahead + distance
        step = np.linalg.lstsq(slope - slope.mean(axis=0), late.mean() - late, rcond=1e-9)[0]
        longest = 0.5 * float(np.linalg.norm(point - center))  # far from a focus the parabola leads astray
        point = point + step * min(1.0, longest / max(float(np.linalg.norm(step)), 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    return point


def has_foci(acquisition: Acquisition) -> bool:
    """Return whether some transmit is focused in front of the array."""
    return not bool(np.isnan(law_foci(acquisition)).all())


def _fit(probe: Probe, firing: np.ndarray, ahead: np.ndarray, wavelength: float) -> tuple[np.ndarray, float]:
    """Return the focus (2,) of the firing elements, c τ_e = `ahead` m, and the sag of the front over them, m.

    NaN and 0 if none.

    The squares of d_e = K - c τ_e are linear in the focus, in K and in K² - |focus|²: where the search begins.
    """
    none = np.full(2, np.nan), 0.0
    x, z = probe.element_x[firing], probe.element_z[firing]
    if len(x) < 4:  # as many numbers as unknowns: any times would fit
        return none
    middle, earliest = np.array([x.mean(), z.mean()]), ahead.min()
    x, z, ahead = x - middle[0], z - middle[1], ahead - earliest
    extent = math.hypot(np.ptp(x), np.ptp(z))
    if not np.ptp(ahead) < 10 * extent:
        return none
    flat = np.ptp(z) < 1e-9
    columns = [2 * x, -2 * ahead, np.ones_like(x)] + ([] if flat else [2 * z])
    solution = np.linalg.lstsq(np.stack(columns, axis=1), x**2 + z**2 - ahead**2, rcond=None)[0]
    fx, way = solution[:2]
    square = way**2 - fx**2 - solution[2]
    fz = math.sqrt(max(square, 0.0)) if flat else solution[3]
    guess = np.array([fx, max(fz, 0.1 * extent), way])
    for _ in range(STEPS):
        dx, dz = x - guess[0], z - guess[1]
        distance = np.maximum(np.hypot(dx, dz), 1e-12)
        slopes = np.stack([dx / distance, dz / distance, np.ones_like(x)], axis=1)
        step = np.linalg.lstsq(slopes, ahead - (guess[2] - distance), rcond=None)[0]
        guess = guess + step
        if not np.abs(guess).max() < 1e4 * extent:
            return none
        if np.abs(step).max() < 1e-9:
            break
    distance = np.hypot(x - guess[0], z - guess[1])
    misfit = np.abs(ahead - (guess[2] - distance)).max()
    focus = guess[:2] + middle
    if misfit > MISFIT * wavelength or bool(probe.is_behind(*focus[:, None])[0]):
        return none
    way = math.hypot(guess[0], guess[1])
    sag = (distance - (way - (x * guess[0] + z * guess[1]) / way)).max()
    return focus, float(sag)
