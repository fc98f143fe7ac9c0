"""Beamforming on the CPU: Numba loops, float32 but for delays.

Delay-and-sum works tile by tile, a tile being a few rows of neighbouring pixels. Echoes of a tile lie in a short stretch of
each record, so for every element the stretches of all transmits are copied into a buffer that stays in the first-level
cache. Receive delay and phase are computed once a (pixel, element) and shared by all transmits; the rotation
exp(2πi f_0 τ) is the product of a receive factor, applied as elements are summed, and a transmit factor, applied at the
end. Delays are whole samples plus a fraction, so float32 loses nothing. A pixel is summed by one thread in one order: the
same bytes whatever the number of threads.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import get_num_threads, njit, prange

if TYPE_CHECKING:
    from ..beamform import Beamforming

LANES = 16  # transmits at once, and channels at once in the demodulation: a vector register of float32
TABLE = 2048  # steps of the interpolation table; linear between them: weights to 1e-6
TILE_SAMPLES = 24  # two-way samples across a tile's depth: the stretches of 16 transmits fill half of a 32 KiB cache
TILE_COLUMNS = 16
MAX_TILE_ROWS = 8
BLOCK_VALUES = 4_000_000  # transmit times held at once (float64)


# --- delay-and-sum ---------------------------------------------------------------------------------------------------


def delay_and_sum(samples: np.ndarray, beamforming: Beamforming) -> np.ndarray:
    """Beamformed image (nz, nx) complex64 (float32 of real channel data), summed over all transmits."""
    b = beamforming
    if samples.dtype not in (np.float32, np.float64, np.complex64, np.complex128):
        samples = samples.astype(np.float32)
    n_transmits = len(samples)
    z_all, x = b.grid.z, b.grid.x
    image = np.zeros(b.grid.shape, dtype=np.complex64)
    rows = max(1, BLOCK_VALUES // (n_transmits * len(x)))
    fraction = np.linspace(0, 1, TABLE + 1)
    table = b.interpolation.weights(fraction).astype(np.float32)
    tile_rows, tile_columns = _tile_shape(b)
    for first in range(0, len(z_all), rows):
        z = z_all[first : first + rows]
        xx, zz = np.meshgrid(x, z)
        _sum_tiles(
            samples,
            b.transmit_times(xx, zz),
            (~b.acquisition.probe.is_behind(xx, zz)),
            x,
            z,
            b.acquisition.probe.element_x,
            b.acquisition.probe.element_z,
            np.sin(b.acquisition.probe.element_angle),
            np.cos(b.acquisition.probe.element_angle),
            b.receive_delays,
            b.cos_acceptance,
            b.speed_of_sound,
            b.sampling_frequency,
            b.start_time,
            b.demodulation_frequency,
            b.interpolation.shift,
            b.interpolation.first_tap,
            table,
            b.normalize,
            tile_rows,
            tile_columns,
            get_num_threads(),
            image[first : first + rows],
        )
    return image if np.iscomplexobj(samples) else image.real.copy()


def _tile_shape(b: Beamforming) -> tuple[int, int]:
    """Rows and columns of a tile: small enough that its stretch of samples stays short on coarse grids too."""

    def count(axis, samples_a_metre, largest):
        step = float(np.diff(axis).max()) if len(axis) > 1 else 0.0
        return int(np.clip(TILE_SAMPLES / max(step * samples_a_metre, 1e-9), 1, largest))

    rate = b.sampling_frequency / b.speed_of_sound
    return count(b.grid.z, 2 * rate, MAX_TILE_ROWS), count(b.grid.x, rate / 2, TILE_COLUMNS)  # sideways paths vary less


@njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def _sum_tiles(
    samples, transmit_times, in_front, x, z, element_x, element_z, sin_element, cos_element, receive_delays, cos_acceptance,
    speed_of_sound, sampling_frequency, start_time, frequency, shift, first_tap, table, normalize, tile_rows, tile_columns,
    n_workers, image,
):  # fmt: skip
    n_tile_columns = (len(x) + tile_columns - 1) // tile_columns
    n_tiles = (len(z) + tile_rows - 1) // tile_rows * n_tile_columns
    for worker in prange(n_workers):  # interleaved: deep tiles have more elements than shallow ones
        _sum_some_tiles(
            samples, transmit_times, in_front, x, z, element_x, element_z, sin_element, cos_element, receive_delays,
            cos_acceptance, speed_of_sound, sampling_frequency, start_time, frequency, shift, first_tap, table, normalize,
            tile_rows, tile_columns, n_tile_columns, worker, n_tiles, n_workers, image,
        )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"})
def _sum_some_tiles(
    samples, transmit_times, in_front, x, z, element_x, element_z, sin_element, cos_element, receive_delays, cos_acceptance,
    speed_of_sound, sampling_frequency, start_time, frequency, shift, first_tap, table, normalize, tile_rows, tile_columns,
    n_tile_columns, first_tile, n_tiles, step, image,
):  # fmt: skip
    n_transmits, n_elements, n_samples = samples.shape
    n_taps = table.shape[1]
    n_pixels = tile_rows * tile_columns
    slowness = sampling_frequency / speed_of_sound  # samples a metre
    px, pz = np.empty(n_pixels), np.empty(n_pixels)
    # transmit part of the index, (pixels, lanes): whole samples and fraction
    tx_whole = np.zeros((n_pixels, LANES), np.int32)
    tx_part = np.zeros((n_pixels, LANES), np.float32)
    earliest, latest = np.zeros(LANES, np.int64), np.zeros(LANES, np.int64)
    rx_whole, rx_part = np.empty(n_pixels, np.int32), np.empty(n_pixels, np.float32)
    rx_cos, rx_sin = np.empty(n_pixels, np.float32), np.empty(n_pixels, np.float32)
    rx_weight = np.empty(n_pixels, np.float32)
    n_active = np.zeros(n_pixels, np.int32)
    offset = np.zeros(LANES, np.int32)
    place, part = np.empty(LANES, np.int32), np.empty(LANES, np.float32)
    value = np.zeros(2 * LANES, np.float32)  # re, im of each lane
    by_cos, by_sin = np.empty((n_pixels, 2 * LANES), np.float32), np.empty((n_pixels, 2 * LANES), np.float32)
    total = np.empty((n_pixels, 2))
    stretch = np.zeros(LANES * 256 * 2, np.float32)  # (lanes, length, 2): grows when a tile needs more

    for tile in range(first_tile, n_tiles, step):
        row0, column0 = tile // n_tile_columns * tile_rows, tile % n_tile_columns * tile_columns
        rows, columns = min(tile_rows, len(z) - row0), min(tile_columns, len(x) - column0)
        used = rows * columns
        for p in range(used):
            px[p], pz[p] = x[column0 + p % columns], z[row0 + p // columns]
            total[p, 0] = total[p, 1] = 0.0

        for first_transmit in range(0, n_transmits, LANES):
            lanes = min(LANES, n_transmits - first_transmit)
            for a in range(lanes):
                low, high = np.int64(2**62), np.int64(-(2**62))
                for p in range(used):
                    time = transmit_times[first_transmit + a, row0 + p // columns, column0 + p % columns] - start_time
                    index = time * sampling_frequency + shift
                    whole = np.floor(index)
                    tx_whole[p, a], tx_part[p, a] = np.int32(whole), np.float32(index - whole)
                    low, high = min(low, np.int64(whole)), max(high, np.int64(whole))
                earliest[a], latest[a] = low, high
            by_cos[:used] = np.float32(0)
            by_sin[:used] = np.float32(0)
            n_active[:used] = 0

            for e in range(n_elements):
                active = _receive(
                    used, px, pz, element_x[e], element_z[e], sin_element[e], cos_element[e], receive_delays[e],
                    cos_acceptance, slowness, sampling_frequency, frequency,
                    rx_whole, rx_part, rx_cos, rx_sin, rx_weight,
                )  # fmt: skip
                if not active:
                    continue
                rx_low, rx_high = rx_whole[0], rx_whole[0]
                for p in range(1, used):
                    rx_low, rx_high = min(rx_low, rx_whole[p]), max(rx_high, rx_whole[p])

                # Copy what the tile needs of each transmit; samples outside the record are zero.
                length = np.int64(0)
                for a in range(lanes):
                    length = max(length, latest[a] - earliest[a] + rx_high - rx_low + 1 + n_taps)
                if len(stretch) < 2 * length * lanes:
                    stretch = np.zeros(2 * length * lanes, np.float32)
                for a in range(lanes):
                    begin = earliest[a] + rx_low + first_tap
                    offset[a] = a * length - begin + first_tap
                    _copy_stretch(samples[first_transmit + a, e], begin, length, stretch[2 * a * length :])

                for p in range(used):
                    if rx_weight[p] == 0:
                        continue
                    n_active[p] += 1
                    whole_p, part_p = rx_whole[p], rx_part[p]
                    for a in range(LANES):
                        f = tx_part[p, a] + part_p
                        carry = np.int32(f >= np.float32(1))
                        place[a] = tx_whole[p, a] + offset[a] + whole_p + carry
                        part[a] = f - np.float32(carry)
                    if n_taps == 2:
                        for a in range(lanes):
                            i, f = 2 * place[a], part[a]
                            re, im = stretch[i], stretch[i + 1]
                            value[2 * a] = re + f * (stretch[i + 2] - re)
                            value[2 * a + 1] = im + f * (stretch[i + 3] - im)
                    else:
                        _interpolate(lanes, n_taps, place, part, stretch, table, value)
                    c, s = rx_cos[p], rx_sin[p]
                    for k in range(2 * LANES):
                        by_cos[p, k] += c * value[k]
                        by_sin[p, k] += s * value[k]

            for p in range(used):  # the transmit's part of the rotation, and the sum over transmits
                for a in range(lanes):
                    time = transmit_times[first_transmit + a, row0 + p // columns, column0 + p % columns]
                    phase = 2 * np.pi * (frequency * time - np.floor(frequency * time))
                    c, s = math.cos(phase), math.sin(phase)
                    re = by_cos[p, 2 * a] - by_sin[p, 2 * a + 1]
                    im = by_cos[p, 2 * a + 1] + by_sin[p, 2 * a]
                    total[p, 0] += c * re - s * im
                    total[p, 1] += c * im + s * re

        for p in range(used):
            row, column = row0 + p // columns, column0 + p % columns
            if in_front[row, column]:
                scale = 1.0 / max(n_active[p], 1) if normalize else 1.0
                image[row, column] = complex(total[p, 0] * scale, total[p, 1] * scale)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"})
def _receive(
    used, px, pz, element_x, element_z, sin_element, cos_element, delay, cos_acceptance, slowness, sampling_frequency,
    frequency, rx_whole, rx_part, rx_cos, rx_sin, rx_weight,
):  # fmt: skip
    """Index (whole, part), phase factor and weight (0 outside the aperture) of the way from pixels back to one element."""
    active = 0
    for p in range(used):
        dx, dz = px[p] - element_x, pz[p] - element_z
        distance = math.sqrt(dx * dx + dz * dz)
        index = distance * slowness + delay * sampling_frequency
        whole = np.floor(index)
        rx_whole[p], rx_part[p] = np.int32(whole), np.float32(index - whole)
        cycles = index * (frequency / sampling_frequency)
        cos, sin = _cos_sin(np.float32(cycles - np.floor(cycles + 0.5)))
        inside = abs(dz) * cos_element + dx * sin_element >= cos_acceptance * distance
        rx_weight[p] = np.float32(inside)
        rx_cos[p], rx_sin[p] = cos, sin
        active += inside
    return active


@njit(cache=True, inline="always")
def _cos_sin(turn):
    """cos and sin of 2π turn, |turn| <= 1/2, float32: Taylor series of the half angle (error 2e-7), which vectorise."""
    h = np.float32(math.pi) * turn
    q = h * h
    s = h * (
        np.float32(1) + q * (np.float32(-1 / 6) + q * (np.float32(1 / 120) + q * (np.float32(-1 / 5040)
        + q * (np.float32(1 / 362880) + q * np.float32(-1 / 39916800)))))
    )  # fmt: skip
    c = np.float32(1) + q * (np.float32(-1 / 2) + q * (np.float32(1 / 24) + q * (np.float32(-1 / 720)
        + q * (np.float32(1 / 40320) + q * (np.float32(-1 / 3628800) + q * np.float32(1 / 479001600))))))  # fmt: skip
    return np.float32(1) - np.float32(2) * s * s, np.float32(2) * s * c


@njit(cache=True, nogil=True)
def _copy_stretch(record, begin, length, out):
    """Samples begin .. begin + length - 1 of a record as (re, im) pairs, zero outside it."""
    low, high = min(max(0, -begin), length), max(0, min(length, len(record) - begin))
    for j in range(low):
        out[2 * j] = out[2 * j + 1] = np.float32(0)
    for j in range(low, high):
        sample = record[begin + j]
        out[2 * j], out[2 * j + 1] = np.float32(sample.real), np.float32(sample.imag)
    for j in range(max(low, high), length):
        out[2 * j] = out[2 * j + 1] = np.float32(0)


@njit(cache=True, nogil=True, fastmath={"contract"})
def _interpolate(lanes, n_taps, place, part, stretch, table, value):
    for a in range(lanes):
        position = part[a] * np.float32(TABLE)
        j = np.int32(position)
        g = position - np.float32(j)
        re = im = np.float32(0)
        for k in range(n_taps):
            weight = table[j, k] + g * (table[j + 1, k] - table[j, k])
            re += weight * stretch[2 * (place[a] + k)]
            im += weight * stretch[2 * (place[a] + k) + 1]
        value[2 * a], value[2 * a + 1] = re, im


# --- transmit delays -------------------------------------------------------------------------------------------------


@njit(cache=True, parallel=True, nogil=True, fastmath={"contract", "nnan", "nsz"})
def arrival_bounds(x, z, source_x, source_z, delays, speed_of_sound):
    """First and last arrival of each law at points: min and max over sources of delay + distance / speed.

    x, z (n_points,); source_x, source_z (n_sources,); delays (n_laws, n_sources) -> two (n_laws, n_points), s.
    """
    n_laws, n_sources = delays.shape
    first, last = np.empty((n_laws, len(x))), np.empty((n_laws, len(x)))
    n_chunks = (len(x) + 63) // 64
    for chunk in prange(n_chunks):
        way = np.empty(n_sources)
        for p in range(chunk * 64, min(chunk * 64 + 64, len(x))):
            for e in range(n_sources):
                dx, dz = x[p] - source_x[e], z[p] - source_z[e]
                way[e] = math.sqrt(dx * dx + dz * dz) / speed_of_sound
            for a in range(n_laws):
                low = high = delays[a, 0] + way[0]
                for e in range(1, n_sources):
                    time = delays[a, e] + way[e]
                    low, high = min(low, time), max(high, time)
                first[a, p], last[a, p] = low, high
    return first, last


# --- demodulation ----------------------------------------------------------------------------------------------------


@njit(cache=True, parallel=True, nogil=True)
def mix_and_filter(samples, carrier, numerator, denominator, steady, edge, out):
    """out = filtfilt(numerator, denominator, samples * carrier), samples (n_channels, n_samples), LANES channels at once.

    As scipy.signal.filtfilt: odd extension by `edge` samples at both ends, and the filter started in the state `steady` that
    a constant equal to the first sample would leave.
    """
    n_channels, n_samples = samples.shape
    n = n_samples + 2 * edge
    for block in prange((n_channels + LANES - 1) // LANES):
        first = block * LANES
        lanes = min(LANES, n_channels - first)
        signal = np.zeros((n, 2 * LANES))
        for k in range(lanes):
            record = samples[first + k]
            for j in range(n_samples):
                signal[edge + j, 2 * k] = record[j] * carrier[j].real
                signal[edge + j, 2 * k + 1] = record[j] * carrier[j].imag
        last = edge + n_samples - 1
        for j in range(1, edge + 1):
            for k in range(2 * LANES):
                signal[edge - j, k] = 2 * signal[edge, k] - signal[edge + j, k]
                signal[last + j, k] = 2 * signal[last, k] - signal[last - j, k]
        _filter_in_place(signal, 0, n, 1, numerator, denominator, steady)
        _filter_in_place(signal, n - 1, -1, -1, numerator, denominator, steady)
        for k in range(lanes):
            for j in range(n_samples):
                out[first + k, j] = complex(signal[edge + j, 2 * k], signal[edge + j, 2 * k + 1])


@njit(cache=True, nogil=True, fastmath={"contract"})
def _filter_in_place(signal, begin, end, step, numerator, denominator, steady):
    """Direct form II transposed along the first axis, order 5, the lanes of the second axis abreast."""
    width = signal.shape[1]
    state = np.empty((6, width))
    for i in range(5):
        for k in range(width):
            state[i, k] = steady[i] * signal[begin, k]
    state[5] = 0.0
    for j in range(begin, end, step):
        for k in range(width):
            v = signal[j, k]
            y = numerator[0] * v + state[0, k]
            state[0, k] = numerator[1] * v - denominator[1] * y + state[1, k]
            state[1, k] = numerator[2] * v - denominator[2] * y + state[2, k]
            state[2, k] = numerator[3] * v - denominator[3] * y + state[3, k]
            state[3, k] = numerator[4] * v - denominator[4] * y + state[4, k]
            state[4, k] = numerator[5] * v - denominator[5] * y
            signal[j, k] = y
