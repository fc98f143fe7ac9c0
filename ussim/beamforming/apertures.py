"""Apertures: which elements hear a pixel, by the f-number or by the elements' own directivity; which waves reach it."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from .. import physics
from ..acquisition import Acquisition
from ..arrivals import SOURCES_PER_ELEMENT, apertures, has_ray
from ..probes import MatrixProbe, Probe

FINE_PITCH = 0.7  # wavelengths at the center frequency, below which all elements receive


class Mesh(Protocol):
    """Points in rows and columns, or in any arrangement."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The arrangement."""
        ...

    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x and z of every point, m."""
        ...


def automatic_f_number(probe: Probe, speed_of_sound: float) -> float:
    """Return the receive f-number that guards against grating lobes where there can be any, 0 (all elements) where not.

    Elements closer than FINE_PITCH wavelengths have no grating lobe within the field: limiting their aperture would gain
    nothing, and would cut off the sides of a sector. Others count as far as `directivity_f_number` says.
    """
    pitch = max(probe.pitch, probe.row_pitch) if isinstance(probe, MatrixProbe) else probe.pitch
    if pitch * probe.center_frequency <= FINE_PITCH * speed_of_sound:
        return 0.0
    return directivity_f_number(probe, speed_of_sound)


def directivity_f_number(probe: Probe, speed_of_sound: float) -> float:
    """Return the f-number at whose edge an element's sensitivity at the shortest wavelength is 0.71 (Perrot et al. 2021)."""
    shortest = physics.shortest_wavelength(probe.center_frequency, probe.bandwidth, speed_of_sound)
    side = max(probe.element_width, probe.element_height) if probe.is_matrix else probe.element_width
    return physics.automatic_f_number(side, shortest)


def unseen_share(acquisition: Acquisition, grid: Mesh, f_number: float) -> float:
    """Share of the pixels in front of the array that no element receives from, judged by some 32 x 32 of them."""
    probe, hears = acquisition.probe, np.asarray(acquisition.receiving.any(axis=0))
    if f_number == 0 and hears.any():
        return 0.0
    some = tuple(slice(None, None, n // 32 or 1) for n in grid.shape)
    x, z = (axis[some].ravel() for axis in grid.mesh())
    front = ~probe.is_behind(x, z)
    if not front.any():
        return 0.0
    return 1 - float(is_seen(probe, x[front], z[front], cos_acceptance(f_number), hears).mean())


def reached(acquisition: Acquisition, x: np.ndarray, z: np.ndarray, f_number: float | None = None) -> np.ndarray:
    """Tell which points are in front of the array, reached by a ray of a transmit, seen by an element that ever receives.

    Parameters
    ----------
    acquisition : Acquisition
    x, z : np.ndarray
        Points of one shape, m.
    f_number : float, optional
        Of the receive aperture, automatic by default.

    Returns
    -------
    np.ndarray
        bool, of the points' shape (`beamform.field_mask` says what counts as reached).
    """
    probe, c = acquisition.probe, acquisition.medium.speed_of_sound
    shape, x, z = x.shape, x.ravel(), z.ravel()
    mask = np.zeros(x.size, dtype=bool)
    front = np.flatnonzero(~probe.is_behind(x, z))
    period = 1 / acquisition.carrier_frequency
    hears = np.asarray(acquisition.receiving.any(axis=0))
    block = max(1, 4_000_000 // (SOURCES_PER_ELEMENT * probe.n_elements))
    acceptance = cos_acceptance(automatic_f_number(probe, c) if f_number is None else f_number)
    for first in range(0, len(front), block):
        part = front[first : first + block]
        px, pz = x[part], z[part]
        seen = is_seen(probe, px, pz, acceptance, hears)
        lit = np.zeros(len(part), dtype=bool)
        for aperture in apertures(acquisition):
            way = np.hypot(px[:, None] - aperture.x, pz[:, None] - aperture.z) / c
            for law in aperture.delays:
                lit |= has_ray(way + law, period)
        mask[part] = seen & lit
    return mask.reshape(shape)


def cos_acceptance(f_number: float) -> float:
    """Cosine of the widest angle to an element's normal that counts; -1 for all angles."""
    return math.cos(math.atan(1 / (2 * f_number))) if f_number > 0 else -1.0


def is_seen(probe: Probe, x: np.ndarray, z: np.ndarray, cos_acceptance: float, hears: np.ndarray) -> np.ndarray:
    """Return whether points (n,) are in the receive aperture of any element that hears, (n_elements,) bool."""
    dx, dz = x[:, None] - probe.element_x, z[:, None] - probe.element_z
    toward = np.abs(dz) * np.cos(probe.element_angle) + dx * np.sin(probe.element_angle)
    heard: np.ndarray = (toward >= cos_acceptance * np.hypot(dx, dz))[:, hears].any(axis=1)
    return heard
