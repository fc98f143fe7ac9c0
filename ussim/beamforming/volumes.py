"""Images of matrix arrays: arrival times and beams in three dimensions, and the aperture of a pixel.

A wave of a matrix array arrives at a point with the first of its elements' waves; a focused one, beyond its focus, with the
last (`ussim.arrivals` has the same in two dimensions). Elements are as close as their directivity asks for, so that no
sources between them are needed: half a pitch beside the ray changes its way by pitch² / (8 distance).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..acquisition import Acquisition
from ..transmits import FocusedWaves
from .weights import WAIST

BLOCK = 4_000_000  # distances held at once


class Pixels(NamedTuple):
    """Pixel centers in rows and columns, each (rows, columns) m."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray


class _Beam(NamedTuple):
    """Rays of one focused transmit."""

    focus: np.ndarray  # (3,) m
    axis: np.ndarray  # (3,) of length 1
    half_angle: float  # rad, of the cone of rays


def arrivals(acquisition: Acquisition, pixels: Pixels, speed_of_sound: float) -> np.ndarray:
    """Return when each transmit's wave passes the pixels, (n_transmits, rows, columns) s; infinity of a silent transmit.

    Raises
    ------
    ValueError
        A transmit has several simultaneous laws.
    """
    probe, delays = acquisition.probe, acquisition.transmit_delays
    if delays.shape[1] > 1:
        raise ValueError(
            f"waves: expected one law per transmit of a matrix array, got {delays.shape[1]} simultaneous ones"
        )
    x, y, z = (axis.ravel() for axis in pixels)
    times = np.full((len(delays), x.size), np.inf)
    firing = ~np.isnan(delays[:, 0]) & (acquisition.transmit_weights != 0)
    beams = [_beam(acquisition, a, firing[a], speed_of_sound) for a in range(len(delays))]
    size = max(1, BLOCK // probe.n_elements)
    for first in range(0, x.size, size):
        part = slice(first, first + size)
        ways = np.hypot(x[part, None] - probe.element_x, y[part, None] - probe.element_y)
        ways = np.hypot(ways, z[part, None] - probe.element_z) / speed_of_sound
        for a, beam in enumerate(beams):
            if not firing[a].any():
                continue
            arriving = ways[:, firing[a]] + delays[a, 0, firing[a]]
            times[a, part] = arriving.min(axis=1)
            if beam is not None:
                beyond = _beyond(beam, np.stack([x[part], y[part], z[part]], axis=-1))
                times[a, part] += beyond * (arriving.max(axis=1) - times[a, part])
    return times.reshape(-1, *pixels.x.shape)


def beam_weights(acquisition: Acquisition, pixels: Pixels) -> np.ndarray | None:
    """Return the weight of each transmit at each pixel, (n_transmits, rows, columns) float32; None where all count.

    A focused transmit counts within its cone of rays, rounded off to a waist, as `weights.beam_weights` has it in a plane.
    """
    firing = ~np.isnan(acquisition.transmit_delays[:, 0]) & (acquisition.transmit_weights != 0)
    speed = acquisition.medium.speed_of_sound
    beams = [_beam(acquisition, a, firing[a], speed) for a in range(acquisition.n_transmits)]
    if all(beam is None for beam in beams):
        return None
    wavelength = speed / acquisition.probe.center_frequency
    weights = np.ones((len(beams), *pixels.x.shape), np.float32)
    for a, beam in enumerate(beams):
        if beam is None or beam.half_angle < 1e-6:
            continue
        way = np.stack(pixels, axis=-1) - beam.focus
        along = way @ beam.axis
        across = np.sqrt(np.maximum((way * way).sum(axis=-1) - along * along, 0))
        slope = math.tan(beam.half_angle)
        half_width = np.hypot(along * slope, WAIST * wavelength / (2 * slope))
        weights[a] = 0.5 + 0.5 * np.cos(np.pi * np.clip(across / half_width - 0.5, 0, 1))
    return weights


def _beam(acquisition: Acquisition, transmit: int, firing: np.ndarray, speed_of_sound: float) -> _Beam | None:
    """Return the rays of a transmit, None where it has no focus (or fires no element).

    At another speed of sound than the medium's the same firing times have their focus at about focus x medium's / other.
    """
    waves, probe = acquisition.waves, acquisition.probe
    if not isinstance(waves, FocusedWaves) or not firing.any():
        return None
    elements = np.stack([probe.element_x, probe.element_y, probe.element_z], axis=1)[firing]
    center = elements.mean(axis=0)
    focus = np.array([waves.x[transmit], 0.0 if waves.y is None else waves.y[transmit], waves.z[transmit]])
    focus = center + (focus - center) * (acquisition.medium.speed_of_sound / speed_of_sound)
    rays = focus - elements
    rays = rays / np.maximum(np.linalg.norm(rays, axis=1, keepdims=True), 1e-12)
    axis = rays.mean(axis=0)
    axis = axis / np.linalg.norm(axis)
    return _Beam(focus, axis, math.acos(float(np.clip(rays @ axis, -1, 1).min())))


def _beyond(beam: _Beam, points: np.ndarray) -> np.ndarray:
    """0 in the cone of rays before the focus, 1 in the cone beyond it, linear in the angle about the focus between them."""
    way = points - beam.focus
    cosine = way @ beam.axis / np.maximum(np.linalg.norm(way, axis=-1), 1e-12)
    angle = np.arccos(np.clip(cosine, -1, 1))
    beyond: np.ndarray = np.clip((np.pi - beam.half_angle - angle) / max(np.pi - 2 * beam.half_angle, 1e-9), 0, 1)
    return beyond
