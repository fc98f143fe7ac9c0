"""Arrival times: when each transmit's wave passes a point, from the times at which the elements fire.

The firing aperture is interpolated to a few sources per element, as MUST's `dasmtx` does, and a wave arrives with the first
of them; focused waves and simultaneous laws need more (see `ussim.beamform.transmit_time`). Whoever finds the bounds over
the sources, a compiled engine or NumPy, comes as an argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .acquisition import Acquisition
from .foci import has_foci, law_foci_at
from .numerics import spline

# An engine's `arrival_bounds` (see `engines.protocol`), which finds the bounds over the sources.
ArrivalBounds = Callable[..., tuple[np.ndarray, np.ndarray | None]]
SOURCES_PER_ELEMENT = 4  # the firing aperture is interpolated to this many sources an element (MUST)


@dataclass(frozen=True, eq=False)
class Aperture:
    """Sources along the firing aperture that some laws share."""

    x: np.ndarray  # (n_sources,) m
    z: np.ndarray
    delays: np.ndarray  # (n_laws, n_sources) s
    laws: np.ndarray  # (n_laws, 2) transmit and law within it
    ends: np.ndarray  # (2, 2) x and z of the first and the last firing element, m


def apertures(acquisition: Acquisition) -> Iterator[Aperture]:
    """Yield the laws of an acquisition, those that fire the same elements together."""
    probe = acquisition.probe
    delays = acquisition.transmit_delays
    firing = ~np.isnan(delays) & (acquisition.transmit_weights != 0)[:, None, :]
    masks, group = np.unique(firing.reshape(-1, probe.n_elements), axis=0, return_inverse=True)
    for i, mask in enumerate(masks):
        if not mask.any():
            continue
        laws = np.stack(np.unravel_index(np.flatnonzero(group.ravel() == i), firing.shape[:2]), axis=1)
        rows = [probe.element_x, probe.element_z, *delays[laws[:, 0], laws[:, 1]]]
        fine = _interpolate_runs(np.stack(rows), mask)
        first, last = np.flatnonzero(mask)[[0, -1]]
        ends = np.stack([probe.element_x[[first, last]], probe.element_z[[first, last]]], axis=1)
        yield Aperture(fine[0], fine[1], fine[2:], laws, ends)


def _interpolate_runs(rows: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Rows (n, n_elements) interpolated by cubic splines over each run of elements in the mask.

    n firing elements become 4n sources, from the first of the run to its last.
    """
    elements = np.flatnonzero(mask)
    pieces = []
    for run in np.split(elements, np.flatnonzero(np.diff(elements) > 1) + 1):
        n = len(run)
        if n == 1:
            pieces.append(rows[:, run])
            continue
        pieces.append(spline(rows[:, run], np.linspace(0, n - 1, SOURCES_PER_ELEMENT * n)))
    return np.concatenate(pieces, axis=1)


def arrival_times(
    acquisition: Acquisition, x: Any, z: Any, speed_of_sound: float, arrival_bounds: ArrivalBounds
) -> np.ndarray:
    """Return (n_transmits, *shape) s, the arrival of each transmit at points; `arrival_bounds` is an engine's."""
    x, z = np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(z, dtype=np.float64))
    px, pz = np.ascontiguousarray(x).ravel(), np.ascontiguousarray(z).ravel()
    n_transmits, n_laws, _ = acquisition.transmit_delays.shape
    times = np.full((n_transmits, x.size), np.inf)
    spread = np.full((n_transmits, x.size), np.inf) if n_laws > 1 else None
    foci, focused = law_foci_at(acquisition, speed_of_sound), has_foci(acquisition)
    for aperture in apertures(acquisition):
        first, last = arrival_bounds(
            px, pz, aperture.x, aperture.z, aperture.delays, speed_of_sound, focused or spread is not None
        )
        for i, (transmit, law) in enumerate(aperture.laws):
            time, focus = first[i], foci[transmit, law]
            if last is not None and not np.isnan(focus).any():
                time = time + _beyond_focus(px, pz, focus, aperture.ends) * (last[i] - first[i])
            if spread is None or last is None:
                times[transmit] = time
            else:
                closer = last[i] - first[i] < spread[transmit]
                times[transmit] = np.where(closer, time, times[transmit])
                spread[transmit] = np.where(closer, last[i] - first[i], spread[transmit])
    return times.reshape(n_transmits, *x.shape)


def _beyond_focus(x: np.ndarray, z: np.ndarray, focus: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """0 in the cone of rays before the focus, 1 in the cone beyond it, linear in the angle about the focus between them."""
    rays = focus - ends
    rays /= np.maximum(np.linalg.norm(rays, axis=1, keepdims=True), 1e-12)
    axis = rays.sum(axis=0)
    half_cone = 0.5 * math.acos(float(np.clip(rays[0] @ rays[1], -1, 1)))
    dx, dz = x - focus[0], z - focus[1]
    angle = np.abs(np.arctan2(axis[0] * dz - axis[1] * dx, axis[0] * dx + axis[1] * dz))  # from the beam's axis, [0, π]
    shadow: np.ndarray = np.clip((np.pi - half_cone - angle) / max(np.pi - 2 * half_cone, 1e-9), 0, 1)
    return shadow


def has_ray(arrivals: np.ndarray, period: float) -> np.ndarray:
    """Return where the arrivals (n_points, n_sources) have a ray (see `field_mask`), or nearly."""
    if arrivals.shape[1] < 3:
        return np.ones(len(arrivals), dtype=bool)  # a point source radiates everywhere
    near = arrivals.max(axis=1) - arrivals.min(axis=1) <= period / 2
    rises = []
    for a, b, c in (
        (arrivals[:, 0], arrivals[:, 1], arrivals[:, 2]),
        (arrivals[:, -1], arrivals[:, -2], arrivals[:, -3]),
    ):
        # Slope and curvature at the end, looking inwards: the parabola's extremum is slope² / (2 curvature) away in time.
        slope, curvature = (4 * b - 3 * a - c) / 2, a - 2 * b + c
        lag = slope**2 / np.maximum(2 * np.abs(curvature), 1e-30)
        near |= (slope * curvature > 0) & (lag <= period / 4)
        rises.append(slope > 0)
    # An extremum inside: the arrivals fall from both ends (a minimum), or rise from both (a maximum, beyond a focus).
    reached: np.ndarray = near | (rises[0] == rises[1])
    return reached
