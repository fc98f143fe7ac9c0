"""Flow phantoms: scatterers that move as is known at every point, to measure on.

    vessel = ussim.flow.parabolic_vessel(acquisition, z=20e-3, radius=4e-3, angle=np.deg2rad(20), peak_velocity=0.3)
    frames = ussim.simulate_frames(vessel, acquisition, n_frames=16, prf=4000.0)
    velocity_x, velocity_z = vessel.velocity(*grid.mesh())

`parabolic_vessel` is steady laminar flow in a straight tube (Poiseuille); `rotating_disk` turns as one piece. Scatterers of
blood or of the disk are uniform at random, their amplitudes Rayleigh distributed of mean 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from . import physics
from .acquisition import Acquisition
from .shown import Shown
from .types import Scatterers

Velocity = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False, repr=False)
class ParabolicVessel(Shown):
    """Steady laminar flow in a straight vessel: v(r) = peak_velocity (1 - r² / radius²) along it.

    Scatterers that leave the vessel at one end come in again at the other, so that it is full at any time.

    Attributes
    ----------
    x, z : float
        A point on the vessel's axis, its middle, m.
    radius : float
        m.
    angle : float
        Of the flow to the x axis, rad: 0 to the right, positive away from the array.
    peak_velocity : float
        On the axis, m/s; the mean over a round vessel's cross-section is half of it, over the diameter two thirds.
    length : float
        Of what is filled with blood, m, half on either side of the middle.
    along, across : np.ndarray
        (n,) where the scatterers are at time 0, m: along the axis from the middle, and from the axis.
    reflectivity : np.ndarray
        (n,) amplitude.
    still : Scatterers or None
        Tissue about the vessel.

    Raises
    ------
    ValueError
        A value is not finite, or the radius or length not above 0.
    """

    x: float
    z: float
    radius: float
    angle: float
    peak_velocity: float
    length: float
    along: np.ndarray
    across: np.ndarray
    reflectivity: np.ndarray
    still: Scatterers | None = None

    def __post_init__(self) -> None:
        _check_finite(x=self.x, z=self.z, angle=self.angle, peak_velocity=self.peak_velocity)
        _check_positive(radius=self.radius, length=self.length)

    def at(self, time: float) -> Scatterers:
        """Return the blood's scatterers at a time.

        Parameters
        ----------
        time : float
            s.

        Returns
        -------
        Scatterers
        """
        speed = self.peak_velocity * (1 - (self.across / self.radius) ** 2)
        along = (self.along + speed * time + self.length / 2) % self.length - self.length / 2
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        x = self.x + along * cosine - self.across * sine
        z = self.z + along * sine + self.across * cosine
        return Scatterers(x, z, self.reflectivity)

    def distance(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return the distance of points from the axis, m: positive on its deeper side (of a flow to the right).

        Parameters
        ----------
        x, z : np.ndarray
            Points, m.

        Returns
        -------
        np.ndarray
            m, of the points' shape.
        """
        away: np.ndarray = -(x - self.x) * math.sin(self.angle) + (z - self.z) * math.cos(self.angle)
        return away

    def velocity(self, x: np.ndarray, z: np.ndarray) -> Velocity:
        """Return the velocity at points, 0 outside the vessel.

        Parameters
        ----------
        x, z : np.ndarray
            Points, m.

        Returns
        -------
        (np.ndarray, np.ndarray)
            Lateral and away from the array, m/s.
        """
        share = np.maximum(1 - (self.distance(x, z) / self.radius) ** 2, 0.0)
        return self.peak_velocity * math.cos(self.angle) * share, self.peak_velocity * math.sin(self.angle) * share


@dataclass(frozen=True, eq=False, repr=False)
class RotatingDisk(Shown):
    """A disk that turns as one piece: speed in proportion to the distance from its center.

    Attributes
    ----------
    x, z : float
        The center, m.
    radius : float
        m.
    angular_velocity : float
        rad/s, positive from the x axis towards depth: clockwise in the image.
    start_x, start_z : np.ndarray
        (n,) where the scatterers are at time 0, m from the center.
    reflectivity : np.ndarray
        (n,) amplitude.
    still : Scatterers or None
        What does not turn.

    Raises
    ------
    ValueError
        A value is not finite, or the radius not above 0.
    """

    x: float
    z: float
    radius: float
    angular_velocity: float
    start_x: np.ndarray
    start_z: np.ndarray
    reflectivity: np.ndarray
    still: Scatterers | None = None

    def __post_init__(self) -> None:
        _check_finite(x=self.x, z=self.z, angular_velocity=self.angular_velocity)
        _check_positive(radius=self.radius)

    def at(self, time: float) -> Scatterers:
        """Return the disk's scatterers at a time.

        Parameters
        ----------
        time : float
            s.

        Returns
        -------
        Scatterers
        """
        turned = self.angular_velocity * time
        cosine, sine = math.cos(turned), math.sin(turned)
        x = self.x + self.start_x * cosine - self.start_z * sine
        z = self.z + self.start_x * sine + self.start_z * cosine
        return Scatterers(x, z, self.reflectivity)

    def velocity(self, x: np.ndarray, z: np.ndarray) -> Velocity:
        """Return the velocity at points, 0 outside the disk.

        Parameters
        ----------
        x, z : np.ndarray
            Points, m.

        Returns
        -------
        (np.ndarray, np.ndarray)
            Lateral and away from the array, m/s.
        """
        inside = np.hypot(x - self.x, z - self.z) <= self.radius
        rate = self.angular_velocity * inside
        return -rate * (z - self.z), rate * (x - self.x)


def parabolic_vessel(
    acquisition: Acquisition,
    x: float = 0.0,
    z: float = 20e-3,
    radius: float = 4e-3,
    angle: float = 0.0,
    peak_velocity: float = 0.3,
    *,
    length: float | None = None,
    tissue_db: float | None = None,
    tissue_margin: float = 3e-3,
    mean_distance: float | None = None,
    seed: int | np.random.Generator = 0,
) -> ParabolicVessel:
    """Make a vessel with laminar flow, and tissue beside it where it is asked for.

    Parameters
    ----------
    acquisition : Acquisition
        Its probe and medium give the default distance between scatterers, and the default length: as wide as the array.
    x, z : float
        The middle of the vessel, m; (0, 20 mm) by default.
    radius : float
        m; 4 mm by default.
    angle : float
        Of the flow to the x axis, rad: 0 to the right, the default, positive away from the array.
    peak_velocity : float
        On the axis, m/s; 0.3 by default.
    length : float, optional
        Of the vessel, m: more than is looked at, as scatterers come in at one end and leave at the other.
    tissue_db : float, optional
        Amplitude of tissue over that of blood, dB (real tissue: 20 to 60), in a layer along both sides that does not move.
        None, the default: no tissue.
    tissue_margin : float
        Thickness of that layer, m; 3 mm by default.
    mean_distance : float, optional
        Side of the square that holds one scatterer on average, m; the shortest wavelength by default.
    seed : int or np.random.Generator
        Of the scatterers, 0 by default.

    Returns
    -------
    ParabolicVessel

    Raises
    ------
    ValueError
        A value is out of range.
    """
    rng = np.random.default_rng(seed)
    distance = _mean_distance(acquisition, mean_distance)
    if length is None:
        length = acquisition.probe.n_elements * acquisition.probe.pitch
    _check_positive(radius=radius, length=length)
    made = ParabolicVessel(x, z, radius, angle, peak_velocity, length, *_scattered(rng, length, 2 * radius, distance))
    if tissue_db is None:
        return made
    _check_finite(tissue_db=tissue_db)
    _check_positive(tissue_margin=tissue_margin)
    along, across, reflectivity = _scattered(rng, length, 2 * (radius + tissue_margin), distance)
    kept = np.abs(across) > radius
    shell = ParabolicVessel(x, z, radius, angle, 0.0, length, along[kept], across[kept], reflectivity[kept])
    placed = shell.at(0.0)
    still = Scatterers(placed.x, placed.z, 10 ** (tissue_db / 20) * placed.reflectivity)
    return ParabolicVessel(
        x, z, radius, angle, peak_velocity, length, made.along, made.across, made.reflectivity, still
    )


def rotating_disk(
    acquisition: Acquisition,
    x: float = 0.0,
    z: float = 20e-3,
    radius: float = 8e-3,
    angular_velocity: float = 20.0,
    *,
    mean_distance: float | None = None,
    seed: int | np.random.Generator = 0,
) -> RotatingDisk:
    """Make a disk that turns.

    Parameters
    ----------
    acquisition : Acquisition
        Its probe and medium give the default distance between scatterers.
    x, z : float
        The center, m; (0, 20 mm) by default.
    radius : float
        m; 8 mm by default.
    angular_velocity : float
        rad/s; 20 by default.
    mean_distance : float, optional
        As in `parabolic_vessel`.
    seed : int or np.random.Generator
        Of the scatterers, 0 by default.

    Returns
    -------
    RotatingDisk

    Raises
    ------
    ValueError
        A value is out of range.
    """
    _check_positive(radius=radius)
    rng = np.random.default_rng(seed)
    start_x, start_z, reflectivity = _scattered(rng, 2 * radius, 2 * radius, _mean_distance(acquisition, mean_distance))
    kept = np.hypot(start_x, start_z) <= radius
    return RotatingDisk(x, z, radius, angular_velocity, start_x[kept], start_z[kept], reflectivity[kept])


def _mean_distance(acquisition: Acquisition, asked: float | None) -> float:
    probe = acquisition.probe
    if asked is None:
        return physics.shortest_wavelength(probe.center_frequency, probe.bandwidth, acquisition.medium.speed_of_sound)
    _check_positive(mean_distance=asked)
    return asked


def _scattered(
    rng: np.random.Generator, width: float, height: float, distance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two coordinates, uniform over a centered rectangle, and amplitudes; one scatterer in `distance`² on average."""
    n = max(1, round(width * height / distance**2))
    place = rng.random((2, n)) - 0.5
    return width * place[0], height * place[1], rng.rayleigh(scale=math.sqrt(2 / math.pi), size=n)


def _check_finite(**numbers: float) -> None:
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise ValueError(f"{name}: expected a finite number, got {number!r}")


def _check_positive(**sizes: float) -> None:
    for name, size in sizes.items():
        if not (math.isfinite(size) and size > 0):
            raise ValueError(f"{name}: expected m above 0, got {size!r}")
