"""Beamforming on the CPU: loops compiled by Numba (`kernels.beamform`), float32 but for delays.

Delay-and-sum works tile by tile, a tile being a few rows of neighboring pixels. Echoes of a tile lie in a short stretch of
each record, so for every element the stretches of all transmits are copied into a buffer that stays in the first-level
cache. Receive delay and phase are computed once a (pixel, element) and shared by all transmits; the rotation
exp(2πi f_0 τ) is the product of a receive factor, applied as elements are summed, and a transmit factor, applied at the
end. Delays are whole samples plus a fraction, so float32 loses nothing. A pixel is summed by one thread in one order: the
same bytes whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...plan import FILTER_ORDER, Beamforming
from ...types import ImageGrid
from . import kernels
from .kernels.layout import TABLE, Aperture, Clock, Pixels, Taper, Transmits
from .threads import as_input, in_threads

TILE_SAMPLES = 96  # two-way samples across a tile at most; the stretches of 16 transmits then fill a 32 KiB cache
TILE_COLUMNS = 32
TILE_ROWS = 16
LONGEST_STRETCH = 2**16  # samples, whatever the pixels of a tile: 8 MiB for 16 transmits
LONGEST_JUMP = 2**11  # samples from pixel to pixel: TILE_ROWS + TILE_COLUMNS of them are a stretch
BLOCK_VALUES = 4_000_000  # transmit times held at once (float64)
COMPOUNDINGS = ("coherent", "incoherent", "none")
NO_WEIGHTS = np.zeros((1, 1, 1), np.float32)


# --- delay-and-sum ---------------------------------------------------------------------------------------------------


def delay_and_sum(samples: np.ndarray, beamforming: Beamforming) -> np.ndarray:
    """Images (..., nz, nx) complex64 (float32 of real channel data) of samples (..., n_transmits, n_elements, n_samples)."""
    b = beamforming
    n_transmits, n_elements, n_samples = samples.shape[-3:]
    pairs = np.ascontiguousarray(samples, dtype=np.complex64).view(np.float32)
    records = as_input(pairs.reshape(-1, n_transmits, n_elements, pairs.shape[-1]))
    x, z = (axis.reshape(b.rows_and_columns) for axis in b.grid.mesh())
    n_images = n_transmits if b.compounding == "none" else 1
    images = np.zeros((len(records), n_images, *x.shape), dtype=np.complex64)
    weights = None if b.weights is None else b.weights.reshape(n_transmits, *x.shape)
    aperture, clock, tile_shape = aperture_of(b), clock_of(b), _tile_shape(b)
    done, total = 0, len(records) * x.size
    for part in _blocks(x.shape, BLOCK_VALUES // n_transmits):
        xx, zz = x[part].copy(), z[part].copy()
        positions = b.transmit_samples(xx, zz, n_samples, arrival_bounds, part)
        tile = (1, 1) if _jumps(positions) else tile_shape
        pixels = Pixels(xx, zz, ~b.acquisition.probe.is_behind(xx, zz), *tile)
        transmits = Transmits(
            positions,
            b.transmit_phases,
            NO_WEIGHTS if weights is None else weights[:, *part].copy(),
            b.weights is not None,
            COMPOUNDINGS.index(b.compounding),
        )
        for record, image in zip(records, images, strict=True):
            block = np.zeros((n_images, *xx.shape), dtype=np.complex64)
            in_threads(kernels.sum_tiles, (record, pixels, transmits, aperture, clock, block), b.progress, done, total)
            done += xx.size
            image[:, *part] = block
    images = images.reshape(*samples.shape[:-3], *b.image_shape)
    return images if b.has_phase and np.iscomplexobj(samples) else images.real.copy()


def _blocks(shape: tuple[int, int], most: int) -> Iterator[tuple[slice, slice]]:
    """Cut rows and columns into blocks of at most that many pixels: of whole rows, where one fits."""
    columns = min(shape[1], max(1, most))
    rows = max(1, most // columns)
    for row in range(0, shape[0], rows):
        for column in range(0, shape[1], columns):
            yield slice(row, row + rows), slice(column, column + columns)


def aperture_of(b: Beamforming) -> Aperture:
    """Return the elements as they receive."""
    probe = b.acquisition.probe
    return Aperture(
        probe.element_x,
        probe.element_z,
        np.sin(probe.element_angle),
        np.cos(probe.element_angle),
        b.receive_delays,
        np.ascontiguousarray(b.acquisition.receiving),
        b.live,
        float(b.cos_acceptance),
        bool(b.normalize),
        Taper(b.is_windowed, b.element_gains, 2.0 * float(b.f_number), *map(float, b.window)),
    )


def clock_of(b: Beamforming) -> Clock:
    """Return samples in meters and cycles, and the interpolation between them."""
    fraction = np.arange(TABLE + 2) / TABLE
    return Clock(
        float(b.speed_of_sound),
        float(b.sampling_frequency),
        float(b.demodulation_frequency),
        int(b.interpolation.first_tap),
        b.interpolation.weights(fraction).astype(np.float32),
    )


def _jumps(positions: np.ndarray) -> bool:
    """Return whether transmit times of neighboring pixels, in samples, lie too far apart for the stretches of one tile."""
    if np.ptp(positions) < LONGEST_STRETCH:
        return False
    return any(np.abs(np.diff(positions, axis=axis)).max(initial=0.0) > LONGEST_JUMP for axis in (1, 2))


def _tile_shape(b: Beamforming) -> tuple[int, int]:
    """Rows and columns of a tile: small enough that its stretch of samples stays short on coarse grids too."""

    def count(step: float, samples_a_meter: float, largest: int) -> int:
        return int(np.clip(TILE_SAMPLES / max(step * samples_a_meter, 1e-9), 1, largest))

    rate = b.sampling_frequency / b.speed_of_sound
    if isinstance(b.grid, ImageGrid):
        down, across = (float(np.diff(axis).max(initial=0.0)) for axis in (b.grid.z, b.grid.x))
        return count(down, 2 * rate, TILE_ROWS), count(across, rate, TILE_COLUMNS)
    x, z = (axis.reshape(b.rows_and_columns) for axis in b.grid.mesh())
    down, across = (float(np.hypot(np.diff(x, axis=i), np.diff(z, axis=i)).max(initial=0.0)) for i in range(2))
    return count(down, 2 * rate, TILE_ROWS), count(across, 2 * rate, TILE_COLUMNS)


# --- transmit delays -------------------------------------------------------------------------------------------------


def arrival_bounds(
    x: np.ndarray,
    z: np.ndarray,
    source_x: np.ndarray,
    source_z: np.ndarray,
    delays: np.ndarray,
    speed_of_sound: float,
    with_last: bool = True,
) -> tuple[np.ndarray, np.ndarray | None]:
    """First and last arrival of each law at points: min and max over sources of delay + distance / speed.

    x, z (n_points,); source_x, source_z (n_sources,); delays (n_laws, n_sources) -> two (n_laws, n_points), s; the last is
    None unless asked for.
    """
    first = np.empty((len(delays), len(x)))
    laws = *map(as_input, (x, z, source_x, source_z, delays)), 1 / speed_of_sound
    in_threads(kernels.extreme_arrivals, (*laws, 1.0, first))
    if not with_last:
        return first, None
    last = np.empty_like(first)
    in_threads(kernels.extreme_arrivals, (*laws, -1.0, last))
    return first, last


# --- demodulation ----------------------------------------------------------------------------------------------------


def mix_and_filter(
    samples: np.ndarray,
    carrier: np.ndarray,
    numerator: np.ndarray,
    denominator: np.ndarray,
    steady: np.ndarray,
    edge: int,
    out: np.ndarray,
) -> None:
    """Out = filtfilt(numerator, denominator, samples * carrier), samples (n_channels, n_samples), LANES channels at once.

    Samples are float32 or float64, one kernel for both.

    As scipy.signal.filtfilt: odd extension by `edge` samples at both ends, and the filter started in the state `steady` that
    a constant equal to the first sample would leave.
    """
    if (len(numerator), len(denominator), len(steady)) != (FILTER_ORDER + 1, FILTER_ORDER + 1, FILTER_ORDER):
        raise ValueError(f"expected a filter of order {FILTER_ORDER}, got {len(denominator) - 1}")
    single = samples.dtype == np.float32
    none = np.empty((0, 0), np.float64 if single else np.float32)
    both = map(as_input, (samples, none) if single else (none, samples))
    law = map(as_input, (carrier, numerator, denominator, steady))
    in_threads(kernels.mix_and_filter, (*both, *law, edge, out))
