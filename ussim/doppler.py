"""Doppler: velocity and power of what moves, from the complex images of a sequence.

    images = ussim.delay_and_sum(ussim.demodulate(frames), grid)             (n_frames, nz, nx) complex
    moving = ussim.wall_filter(images, order=1)                              without what stands still
    velocity, power = ussim.color_doppler(moving, frames.frame_rate, acquisition)

Color Doppler is the phase of the autocorrelation at lag one: Kasai, Namekawa, Koyano & Omoto 1985, "Real-time
two-dimensional blood flow imaging using an autocorrelation technique", IEEE Trans. Sonics Ultrason. 32:458; averaged over a
neighborhood as Loupas, Powers & Gill 1995, IEEE TUFFC 42:672. Velocities are positive towards the array, as on scanners and
in MUST's `iq2doppler`; vectors are along the axes of the image, z away from the array.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from . import physics
from .acquisition import Acquisition
from .arrays import to_numpy
from .arrivals import arrival_times
from .beamforming.apertures import automatic_f_number, cos_acceptance
from .engines import get_engine
from .plan import BAFFLES
from .probes import one_row
from .types import ImageGrid, one_plane

WALL_FILTERS = ("polynomial", "svd")
BLOCK = 2_000_000  # points x elements at once
LEAST_SPREAD = 1e-3  # of the directions of two beams (determinant, 2 x 2): nearer, the vector is not known


class ColorDoppler(NamedTuple):
    """Velocity and power of an ensemble of frames.

    Attributes
    ----------
    velocity : np.ndarray
        (..., nz, nx) float32, m/s along the beam, positive towards the array, within ± `nyquist_velocity`.
    power : np.ndarray
        (..., nz, nx) float32, mean of |image|² over the ensemble and the neighborhood.
    """

    velocity: np.ndarray
    power: np.ndarray


class VectorDoppler(NamedTuple):
    """Velocity vectors.

    Attributes
    ----------
    x, z : np.ndarray
        (nz, nx) float32, m/s to the right and away from the array; NaN where no two beams of different directions see the
        pixel.
    """

    x: np.ndarray
    z: np.ndarray


def color_doppler(
    frames: np.ndarray,
    prf: float,
    acquisition: Acquisition,
    *,
    smoothing: int | tuple[int, int] = 1,
    lag: int = 1,
    frequency: float | np.ndarray | None = None,
) -> ColorDoppler:
    """Estimate velocities by the phase of the autocorrelation (Kasai et al. 1985; MUST's `iq2doppler`).

    v = -c prf / (4π f lag) arg Σ conj(frame_i) frame_(i + lag), negated: an echo that comes later every time recedes. f is
    the frequency of the echoes; a wide aperture or a steered wave sees less than the whole velocity (`beam_directions`).

    Parameters
    ----------
    frames : np.ndarray
        (n_frames, ..., nz, nx) complex images, in the order of time, without walls (`wall_filter`).
    prf : float
        Images per second, Hz: of compounded ones the frame rate.
    acquisition : Acquisition
        Its medium and carrier.
    smoothing : int or (int, int)
        Pixels, in z and in x, of the Hamming window that the autocorrelation is averaged over; 1, the default: none.
    lag : int
        Between the frames of a pair; 1 by default. More makes slow motion plainer and the Nyquist velocity lower.
    frequency : float or np.ndarray, optional
        Of the echoes, Hz, one or of each pixel (`echo_frequency`); the acquisition's carrier by default. Short pulses come
        back lower, by 5 % of one period, and deep ones of an attenuating medium more: so much too small are the velocities.

    Returns
    -------
    ColorDoppler
        (velocity, power).

    Raises
    ------
    ValueError
        The frames are not complex images, fewer than lag + 1, or a value is out of range.
    """
    limit = _limit(prf, acquisition, lag, frequency)
    frames = _checked_frames(frames, lag + 1)
    correlation = (frames[lag:] * frames[:-lag].conj()).sum(axis=0)
    velocity = limit / math.pi * np.angle(_smoothed(correlation, smoothing))
    return ColorDoppler(velocity.astype(np.float32), power_doppler(frames, smoothing=smoothing))


def power_doppler(frames: np.ndarray, *, smoothing: int | tuple[int, int] = 1) -> np.ndarray:
    """Return the mean power of an ensemble: of what moves, where the walls were filtered out.

    Rubin, Bude, Carson, Bree & Adler 1994, "Power Doppler US", Radiology 190:853.

    Parameters
    ----------
    frames : np.ndarray
        (n_frames, ..., nz, nx) complex images, without walls (`wall_filter`).
    smoothing : int or (int, int)
        As in `color_doppler`.

    Returns
    -------
    np.ndarray
        (..., nz, nx) float32, in the square of the images' unit.

    Raises
    ------
    ValueError
        The frames are not complex images, or a value is out of range.
    """
    frames = _checked_frames(frames, 1)
    power = (frames.real**2 + frames.imag**2).mean(axis=0)
    return _smoothed(power, smoothing).astype(np.float32)


def velocity_spread(
    frames: np.ndarray,
    prf: float,
    acquisition: Acquisition,
    *,
    smoothing: int | tuple[int, int] = 1,
    lag: int = 1,
    frequency: float | np.ndarray | None = None,
) -> np.ndarray:
    """Estimate the standard deviation of the velocities in each pixel, from how much correlation is lost in a lag.

    σ² = 2 (v_N / π)² (1 - |R(lag)| / R(0)), v_N the Nyquist velocity (Jensen 1996, "Estimation of Blood Velocities Using
    Ultrasound", eq. 7.48, as MUST's `iq2doppler`).

    Parameters
    ----------
    frames : np.ndarray
        As in `color_doppler`, as all that follows.
    prf : float
        Hz.
    acquisition : Acquisition
        Its medium and carrier.
    smoothing : int or (int, int)
        Pixels.
    lag : int
        Between the frames of a pair.
    frequency : float or np.ndarray, optional
        Hz.

    Returns
    -------
    np.ndarray
        (..., nz, nx) float32, m/s.

    Raises
    ------
    ValueError
        As `color_doppler`.
    """
    limit = _limit(prf, acquisition, lag, frequency)
    frames = _checked_frames(frames, lag + 1)
    correlation = _smoothed((frames[lag:] * frames[:-lag].conj()).mean(axis=0), smoothing)
    power = _smoothed((frames.real**2 + frames.imag**2).mean(axis=0), smoothing)
    lost = 1 - np.abs(correlation) / np.where(power > 0, power, 1)
    spread = limit / math.pi * np.sqrt(2 * np.clip(lost, 0, None)) * (power > 0)
    return np.asarray(spread, dtype=np.float32)


def wall_filter(frames: np.ndarray, order: int = 0, *, method: str = "polynomial") -> np.ndarray:
    """Remove what stands still or moves slowly, tissue and vessel walls, from an ensemble.

    "polynomial": each pixel less the polynomial of `order` in time that fits it best (regression filter: Bjærum, Torp &
    Kristoffersen 2002, IEEE TUFFC 49:204; MUST's `wfilt`): 0 takes the mean, 1 a linear trend, too. "svd": the ensemble less
    its `order` largest singular components in space and time (Demené et al. 2015, IEEE Trans. Med. Imaging 34:2271), which
    follow tissue that moves.

    Parameters
    ----------
    frames : np.ndarray
        (n_frames, ..., nz, nx) complex images, in the order of time.
    order : int
        Of the polynomial, from 0, the default; or the number of components.
    method : str
        "polynomial" (the default) or "svd".

    Returns
    -------
    np.ndarray
        complex, of the same shape.

    Raises
    ------
    ValueError
        The frames are not complex images, too few for the order, or the method has no known name.
    """
    if method not in WALL_FILTERS:
        raise ValueError(f"method: expected one of {', '.join(WALL_FILTERS)}, got {method!r}")
    frames = _checked_frames(frames, 2)
    removed = order + 1 if method == "polynomial" else order
    if isinstance(order, bool) or order != int(order) or not (order >= 0 and removed < len(frames)):
        most = len(frames) - (2 if method == "polynomial" else 1)
        raise ValueError(f"order: expected a whole number of 0 to {most} for {len(frames)} frames, got {order!r}")
    flat = frames.reshape(len(frames), -1)
    if method == "polynomial":
        time = np.linspace(-1, 1, len(frames))
        basis = np.linalg.qr(np.polynomial.legendre.legvander(time, int(order)))[0].astype(flat.dtype)
    else:  # the left singular vectors: eigenvectors of the correlation between frames, the largest last
        correlation = flat.astype(np.complex128) @ flat.astype(np.complex128).conj().T
        basis = np.linalg.eigh(correlation)[1][:, len(frames) - int(order) :].astype(flat.dtype)
    kept: np.ndarray = flat - basis @ (basis.conj().T @ flat)
    return kept.reshape(frames.shape)


def nyquist_velocity(prf: float, acquisition: Acquisition, *, lag: int = 1, frequency: float | None = None) -> float:
    """Return the highest velocity that is seen as it is: beyond it the phase wraps around (aliasing). c prf / (4 f lag).

    Parameters
    ----------
    prf : float
        Images per second, Hz.
    acquisition : Acquisition
        Its medium and carrier.
    lag : int
        Between the frames of a pair; 1 by default.
    frequency : float, optional
        Of the echoes, Hz; the acquisition's carrier by default.

    Returns
    -------
    float
        m/s along the beam.

    Raises
    ------
    ValueError
        A value is out of range.
    """
    return float(_limit(prf, acquisition, lag, frequency))


def echo_frequency(
    frames: np.ndarray,
    acquisition: Acquisition,
    grid: ImageGrid,
    f_number: float | None = None,
    *,
    smoothing: int | tuple[int, int] = 9,
) -> np.ndarray:
    """Measure the frequency of the echoes in the images: how fast their phase turns with depth.

    With it, `color_doppler` is the two-dimensional autocorrelator of Loupas, Powers & Gill 1995 (IEEE TUFFC 42:672).

    Parameters
    ----------
    frames : np.ndarray
        (n_frames, ..., nz, nx) complex images, or (n_frames, n_transmits, nz, nx) of the acquisition's transmits.
    acquisition : Acquisition
        Its waves say how the way there and back grows with depth (`beam_directions`), its carrier what is expected.
    grid : ImageGrid
        Pixel centers, evenly spaced in z.
    f_number : float, optional
        Of the receive aperture, as it was in `delay_and_sum`.
    smoothing : int or (int, int)
        As in `color_doppler`; 9 by default.

    Returns
    -------
    np.ndarray
        (..., nz, nx) Hz, within half of the carrier of it.

    Raises
    ------
    ValueError
        The frames are not complex images on the grid, or a value is out of range.
    """
    frames = _checked_frames(frames, 1)
    steps = np.diff(grid.z)
    if frames.shape[-2:] != grid.shape or not steps.size or np.ptp(steps) > 1e-6 * steps.mean():
        raise ValueError(
            f"frames: expected images of the grid's {grid.shape} pixels, two rows or more, evenly spaced in z, "
            f"got {frames.shape}"
        )
    directions = beam_directions(acquisition, grid, f_number)[:, 1]
    directions = directions if frames.shape[1:-2] == (acquisition.n_transmits,) else directions.mean(axis=0)
    speed, carrier = acquisition.medium.speed_of_sound, acquisition.carrier_frequency
    expected = 2 * np.pi * carrier / speed * directions  # rad/m
    between = (frames[..., 1:, :] * frames[..., :-1, :].conj()).sum(axis=0)
    between = between * np.exp(-0.5j * steps.mean() * np.nan_to_num(expected[..., 1:, :] + expected[..., :-1, :]))
    edge = [(0, 0)] * (between.ndim - 2)
    around = np.pad(between, [*edge, (1, 0), (0, 0)]) + np.pad(between, [*edge, (0, 1), (0, 0)])
    more = np.angle(_smoothed(around, smoothing)) / steps.mean()
    frequency = carrier * (1 + more / np.where(np.isfinite(expected), expected, np.inf))
    return np.asarray(np.clip(frequency, 0.5 * carrier, 1.5 * carrier))


def vector_doppler(
    frames: np.ndarray,
    prf: float,
    acquisition: Acquisition,
    grid: ImageGrid,
    f_number: float | None = None,
    *,
    smoothing: int | tuple[int, int] = 1,
    frequency: float | np.ndarray | None = None,
) -> VectorDoppler:
    """Estimate velocity vectors from the images of two or more steered waves, by least squares.

    Each wave sees the velocity along its own direction, on its way there and back (Yiu & Yu 2016, "Least-squares multi-angle
    Doppler estimators for plane-wave vector flow imaging", IEEE TUFFC 63:1733).

    Parameters
    ----------
    frames : np.ndarray
        (n_frames, n_transmits, nz, nx) complex images of `delay_and_sum(..., compounding="none")`, without walls.
    prf : float
        Images per second of one transmit, Hz: the frame rate.
    acquisition : Acquisition
        Of a frame; its transmits differ in direction.
    grid : ImageGrid
        Pixel centers of the images.
    f_number : float, optional
        Of the receive aperture, as it was in `delay_and_sum`.
    smoothing : int or (int, int)
        As in `color_doppler`.
    frequency : float or np.ndarray, optional
        As in `color_doppler`.

    Returns
    -------
    VectorDoppler
        (x, z).

    Raises
    ------
    ValueError
        The images are not those of the acquisition's transmits, or a value is out of range.
    """
    expected = (acquisition.n_transmits, *grid.shape)
    if np.ndim(frames) != 4 or tuple(frames.shape[1:]) != expected or acquisition.n_transmits < 2:
        raise ValueError(
            f"frames: expected (n_frames, n_transmits, nz, nx) = (n, {', '.join(map(str, expected))}) of two transmits or "
            f'more (delay_and_sum(..., compounding="none")), got {np.shape(frames)}'
        )
    velocity = color_doppler(frames, prf, acquisition, smoothing=smoothing, frequency=frequency).velocity
    return velocity_from_beams(velocity, beam_directions(acquisition, grid, f_number))


def velocity_from_beams(velocity: np.ndarray, directions: np.ndarray) -> VectorDoppler:
    """Solve for the vectors whose projections on several beams were measured, by least squares.

    Parameters
    ----------
    velocity : np.ndarray
        (n_beams, nz, nx) m/s, as `color_doppler` gives it: positive towards the array.
    directions : np.ndarray
        (n_beams, 2, nz, nx) of `beam_directions`.

    Returns
    -------
    VectorDoppler
        (x, z).

    Raises
    ------
    ValueError
        The shapes do not agree.
    """
    velocity, directions = np.asarray(velocity, np.float64), np.asarray(directions, np.float64)
    if velocity.ndim != 3 or directions.shape != (len(velocity), 2, *velocity.shape[1:]):
        raise ValueError(
            f"directions: expected (n_beams, 2, nz, nx) beside velocity (n_beams, nz, nx), got {directions.shape} "
            f"beside {velocity.shape}"
        )
    seen = np.isfinite(directions).all(axis=1) & np.isfinite(velocity)
    across, down = (np.where(seen, directions[:, i], 0.0) for i in (0, 1))
    paths = np.where(seen, -2 * velocity, 0.0)  # change of the way there and back, per second
    xx, xz, zz = (across * across).sum(axis=0), (across * down).sum(axis=0), (down * down).sum(axis=0)
    right, deep = (across * paths).sum(axis=0), (down * paths).sum(axis=0)
    determinant = xx * zz - xz * xz
    determinant = np.where(determinant > LEAST_SPREAD, determinant, np.nan)
    x = (zz * right - xz * deep) / determinant
    z = (xx * deep - xz * right) / determinant
    return VectorDoppler(x.astype(np.float32), z.astype(np.float32))


def beam_directions(acquisition: Acquisition, grid: ImageGrid, f_number: float | None = None) -> np.ndarray:
    """Return how the way there and back grows as a point moves: the gradient of its length, for each transmit.

    The direction in which the transmitted wave passes the pixel, and the mean over the receive aperture of the directions
    from the elements to it, weighted as their echoes are strong. Straight down and narrow, the sum d is (0, 2); the color
    Doppler velocity of a scatterer that moves with v is -(v · d) / 2, which a wide aperture makes smaller.

    Parameters
    ----------
    acquisition : Acquisition
        Its waves and, where it has one, its receive mask.
    grid : ImageGrid
        Pixel centers.
    f_number : float, optional
        Of the receive aperture, as in `delay_and_sum`.

    Returns
    -------
    np.ndarray
        (n_transmits, 2, nz, nx) float64, x and z, without unit; NaN where no element sees the pixel.

    Raises
    ------
    ValueError
        The f-number is out of range.
    """
    one_row(acquisition.probe, "beam_directions")
    one_plane(grid, "beam_directions")
    speed = acquisition.medium.speed_of_sound
    if f_number is None:
        f_number = automatic_f_number(acquisition.probe, speed)
    if not (math.isfinite(f_number) and f_number >= 0):
        raise ValueError(f"f_number: expected a number of at least 0 (0 = all elements) or None, got {f_number!r}")
    x, z = (axis.ravel() for axis in grid.mesh())
    sent = _transmit_directions(acquisition, x, z)
    received = np.empty((acquisition.n_transmits, 2, x.size))
    rows = max(1, BLOCK // acquisition.probe.n_elements)
    for first in range(0, x.size, rows):
        part = slice(first, first + rows)
        received[:, :, part] = _receive_directions(acquisition, x[part], z[part], f_number)
    directions: np.ndarray = (sent + received).reshape(-1, 2, *grid.shape)
    return directions


def _limit(prf: float, acquisition: Acquisition, lag: int, frequency: float | np.ndarray | None) -> np.ndarray:
    """Nyquist velocity, m/s: one, or of each pixel."""
    frequency = np.asarray(acquisition.carrier_frequency if frequency is None else frequency, dtype=np.float64)
    if not (math.isfinite(prf) and prf > 0):
        raise ValueError(f"prf: expected images per second above 0, got {prf!r}")
    if not (np.isfinite(frequency).all() and (frequency > 0).all()):
        raise ValueError(f"frequency: expected Hz above 0, got {frequency!r}")
    if isinstance(lag, bool) or lag != int(lag) or lag < 1:
        raise ValueError(f"lag: expected a whole number of at least 1, got {lag!r}")
    limit: np.ndarray = acquisition.medium.speed_of_sound * prf / (4 * frequency * lag)
    return limit


def _transmit_directions(acquisition: Acquisition, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """(n_transmits, 2, n_points), of length 1: the gradient of the arrival times, by differences of half a wavelength."""
    speed, bounds = acquisition.medium.speed_of_sound, get_engine("cpu").arrival_bounds
    half = speed / acquisition.probe.center_frequency / 4

    def slope(dx: float, dz: float) -> np.ndarray:
        after = arrival_times(acquisition, x + dx, z + dz, speed, bounds)
        before = arrival_times(acquisition, x - dx, z - dz, speed, bounds)
        return np.asarray(after - before)

    gradient = np.stack([slope(half, 0.0), slope(0.0, half)], axis=1)
    length = np.linalg.norm(gradient, axis=1, keepdims=True)
    directions: np.ndarray = gradient / np.where(length > 0, length, np.nan)
    return directions


def _receive_directions(acquisition: Acquisition, x: np.ndarray, z: np.ndarray, f_number: float) -> np.ndarray:
    """(n_transmits, 2, n_points): mean direction from the elements of the aperture to points."""
    probe, speed = acquisition.probe, acquisition.medium.speed_of_sound
    dx, dz = x[:, None] - probe.element_x, z[:, None] - probe.element_z
    distance = np.maximum(np.hypot(dx, dz), 1e-9)
    sine, cosine = physics.incidence(dx, dz, np.sin(probe.element_angle), np.cos(probe.element_angle))
    half = physics.wavenumber(probe.center_frequency, speed) * probe.element_width / 2
    weight = physics.directivity(sine, half) * physics.obliquity(cosine, BAFFLES.get(probe.baffle, probe.baffle))  # type: ignore[arg-type]
    weight = np.abs(weight) * (cosine >= cos_acceptance(f_number)) / np.sqrt(distance)
    heard = acquisition.receiving.astype(np.float64)
    total = heard @ weight.T
    total = np.where(total > 0, total, np.nan)
    return np.stack([heard @ (weight * dx / distance).T / total, heard @ (weight * dz / distance).T / total], axis=1)


def _checked_frames(frames: Any, least: int) -> np.ndarray:
    """Return complex images (n_frames, ..., nz, nx) in host memory."""
    frames = to_numpy(frames)
    if not np.iscomplexobj(frames):
        raise ValueError(f"frames: expected complex images (of IQ data), got {frames.dtype}")
    if frames.ndim < 3 or len(frames) < least or 0 in frames.shape:
        raise ValueError(f"frames: expected (n_frames, ..., nz, nx) with at least {least} frames, got {frames.shape}")
    if not np.isfinite(frames).all():
        raise ValueError("frames: expected finite images, got NaN or infinity")
    return np.asarray(frames)


def _smoothed(values: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Return the mean over a Hamming window about each pixel, the image mirrored at its edges."""
    sizes = (size, size) if isinstance(size, int | np.integer) else tuple(size)
    if len(sizes) != 2 or any(isinstance(n, bool) or n != int(n) or n < 1 for n in sizes):
        raise ValueError(f"smoothing: expected pixels, a whole number of at least 1 or two of them, got {size!r}")
    from scipy.ndimage import convolve1d
    from scipy.signal.windows import hamming

    for axis, n in zip((-2, -1), sizes, strict=True):
        if n > 1:
            window = hamming(int(n))
            values = convolve1d(values, window / window.sum(), axis=axis, mode="reflect")
    return values
