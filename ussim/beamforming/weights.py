"""Transmit weights: how much each transmit counts at each pixel.

A focused wave is a beam: two cones of rays that meet in the focus, opened by the transmit aperture. Outside them there are
edge waves alone, whose times no single number describes; added to other transmits they are clutter. So a focused transmit
counts within its beam, which is as wide as the rays and, where those meet, as diffraction lets it be.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from .. import physics
from ..acquisition import Acquisition
from ..arrays import to_numpy
from ..foci import has_foci, law_foci
from .grids import AnyGrid
from .scanlines import line_weights

WAIST = 1.0  # half width of a beam at its focus, in wavelengths x the transmit's f-number: the first zero of a flat aperture


def resolve_weights(weights: str | np.ndarray | None, acquisition: Acquisition, grid: AnyGrid) -> np.ndarray | None:
    """Return the weights that `delay_and_sum` is asked for.

    Parameters
    ----------
    weights : str, np.ndarray or None
        "beam", "line", or weights of shape (n_transmits,) or (n_transmits, *grid.shape).

    Returns
    -------
    np.ndarray or None
        (n_transmits, *grid.shape) float32, None where each transmit counts everywhere.

    Raises
    ------
    ValueError
        The name or the shape is another, or a weight is not a finite real number.
    """
    if weights is None:
        return None
    if isinstance(weights, str):
        if weights == "beam":
            return beam_weights(acquisition, grid)
        if weights == "line":
            return line_weights(acquisition, grid)
        raise ValueError(f'transmit_weights: expected "beam", "line", None or an array, got {weights!r}')
    values = to_numpy(weights)
    shape = (acquisition.n_transmits, *grid.shape)
    if values.shape not in (shape[:1], shape):
        raise ValueError(f"transmit_weights: expected the shape {shape} or {shape[:1]}, got {values.shape}")
    if values.dtype.kind not in "biuf" or not (np.abs(values) <= np.finfo(np.float32).max).all():
        raise ValueError("transmit_weights: expected finite real numbers")
    values = values.astype(np.float32)
    return values if values.ndim > 1 else np.broadcast_to(values.reshape(-1, *[1] * len(grid.shape)), shape).copy()


@lru_cache(maxsize=1)
def beam_weights(acquisition: Acquisition, grid: AnyGrid) -> np.ndarray | None:
    """Return the weight of each transmit at each pixel: 1 on the axis of its beam, 1/2 at its edge, 0 half a width outside.

    The beam's edges are the rays from the ends of the transmit aperture through the focus, rounded off to a waist where they
    meet; the aperture is that of the elements that fire and within whose automatic f-number the focus lies. A transmit
    without a focus counts everywhere, one of several simultaneous foci in the beam of each, a silent one nowhere.

    Returns
    -------
    np.ndarray or None
        (n_transmits, *grid.shape) float32, not to be written to; None where no transmit is focused: each counts everywhere.
    """
    if not has_foci(acquisition):
        return None
    x, z = grid.mesh()
    foci = law_foci(acquisition)
    wavelength = acquisition.medium.speed_of_sound / acquisition.probe.center_frequency
    weights = np.zeros((acquisition.n_transmits, *grid.shape), dtype=np.float32)
    for transmit, law in np.ndindex(foci.shape[:2]):
        ends = _ends(acquisition, transmit, law)
        if ends is not None:
            beam = 1.0 if np.isnan(foci[transmit, law]).any() else _beam(x, z, foci[transmit, law], ends, wavelength)
            weights[transmit] = np.maximum(weights[transmit], beam)
    weights.setflags(write=False)  # kept, and shared by all who ask
    return weights


def _ends(acquisition: Acquisition, transmit: int, law: int) -> np.ndarray | None:
    """(2, 2) x and z in m of the outermost elements that fire and can be heard at the focus; None where none fires."""
    probe, focus = acquisition.probe, law_foci(acquisition)[transmit, law]
    firing = ~np.isnan(acquisition.transmit_delays[transmit, law]) & (acquisition.transmit_weights[transmit] != 0)
    shortest = physics.shortest_wavelength(probe.center_frequency, probe.bandwidth, acquisition.medium.speed_of_sound)
    acceptance = math.atan(1 / (2 * physics.automatic_f_number(probe.element_width, shortest)))
    angle = np.arctan2(focus[0] - probe.element_x, focus[1] - probe.element_z)
    heard = firing & (np.abs(angle - probe.element_angle) <= acceptance)
    used = np.flatnonzero(heard if heard.any() else firing)
    if not used.size:
        return None
    return np.stack([probe.element_x[used[[0, -1]]], probe.element_z[used[[0, -1]]]], axis=1)


def _beam(x: np.ndarray, z: np.ndarray, focus: np.ndarray, ends: np.ndarray, wavelength: float) -> Any:
    """Weights of one beam at points: a raised cosine about half the beam's half width to one and a half of it."""
    rays = focus - ends
    rays = rays / np.maximum(np.linalg.norm(rays, axis=1, keepdims=True), 1e-12)
    axis = rays.sum(axis=0)
    axis = axis / np.linalg.norm(axis)
    half_angle = 0.5 * math.acos(float(np.clip(rays[0] @ rays[1], -1, 1)))
    slope = math.tan(half_angle)
    if slope < 1e-6:  # a single element radiates everywhere
        return 1.0
    along = (x - focus[0]) * axis[0] + (z - focus[1]) * axis[1]
    across = (x - focus[0]) * axis[1] - (z - focus[1]) * axis[0]
    half_width = np.hypot(along * slope, WAIST * wavelength / (2 * slope))
    return 0.5 + 0.5 * np.cos(np.pi * np.clip(np.abs(across) / half_width - 0.5, 0, 1))
