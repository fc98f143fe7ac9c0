"""Beamforming on the CPU: Numba loops, float32 but for delays.

Delay-and-sum works tile by tile, a tile being a few rows of neighboring pixels. Echoes of a tile lie in a short stretch of
each record, so for every element the stretches of all transmits are copied into a buffer that stays in the first-level
cache. Receive delay and phase are computed once a (pixel, element) and shared by all transmits; the rotation
exp(2πi f_0 τ) is the product of a receive factor, applied as elements are summed, and a transmit factor, applied at the
end. Delays are whole samples plus a fraction, so float32 loses nothing. A pixel is summed by one thread in one order: the
same bytes whatever the number of threads.
"""

# Numba's intrinsics take the typing context as a first argument that no caller gives.
# mypy: disable-error-code="call-arg,var-annotated"
from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ...compiling import njit
from ...plan import FILTER_ORDER, Beamforming
from .simd import LANES, compiled, fma, load, store
from .threads import as_input, in_threads

TABLE = 2048  # steps of the interpolation table; linear between them: weights to 1e-6
ROUNDING = 1.5 * 2**23  # added to a float32 below 2**22, it leaves the nearest whole number in the low bits
ROUNDING_BITS = 0x4B400000
TILE_SAMPLES = 96  # two-way samples across a tile at most; the stretches of 16 transmits then fill a 32 KiB cache
TILE_COLUMNS = 32
TILE_ROWS = 16
LONGEST_STRETCH = 2**16  # samples, whatever the pixels of a tile: 8 MiB for 16 transmits
LONGEST_JUMP = 2**11  # samples from pixel to pixel: TILE_ROWS + TILE_COLUMNS of them are a stretch
GROUP = 8  # pixels interpolated before they are added up: their values stay close, the stores have landed
POINTS = 64  # points at once in the search for first arrivals
BLOCK_VALUES = 4_000_000  # transmit times held at once (float64)
COMPOUNDINGS = ("coherent", "incoherent", "none")
NO_WEIGHTS = np.zeros((1, 1, 1), np.float32)


class Transmits(NamedTuple):
    """Some rows of the image as the transmits see them, for the compiled functions."""

    positions: np.ndarray  # (n_transmits, rows, nx) samples from the record's first to the wave's arrival
    phases: np.ndarray  # (n_transmits,) cycles
    weights: np.ndarray  # (n_transmits, rows, nx) float32, used if `weighted`
    weighted: bool
    compounding: int  # place in COMPOUNDINGS


class Pixels(NamedTuple):
    """Some rows of the image."""

    x: np.ndarray  # (nx,) m
    z: np.ndarray  # (rows,) m
    in_front: np.ndarray  # (rows, nx) bool, of the array
    tile_rows: int
    tile_columns: int


class Aperture(NamedTuple):
    """The elements as they receive."""

    x: np.ndarray  # (n_elements,) m
    z: np.ndarray
    sine: np.ndarray  # of the normal
    cosine: np.ndarray
    delays: np.ndarray  # (n_elements,) s
    receiving: np.ndarray  # (n_transmits, n_elements) bool
    live: np.ndarray  # (n_elements,) share of the transmits that each receives
    cos_acceptance: float
    normalize: bool  # divide by the number of elements that see a pixel


class Clock(NamedTuple):
    """Samples to meters and cycles, and the taps between samples."""

    speed_of_sound: float  # m/s
    sampling_frequency: float  # Hz
    frequency: float  # Hz, of demodulation
    first_tap: int  # samples from the one before
    table: np.ndarray  # (TABLE + 2, n_taps) weights over the fraction of a sample


# --- delay-and-sum ---------------------------------------------------------------------------------------------------


def delay_and_sum(samples: np.ndarray, beamforming: Beamforming) -> np.ndarray:
    """Images (..., nz, nx) complex64 (float32 of real channel data) of samples (..., n_transmits, n_elements, n_samples)."""
    b = beamforming
    n_transmits, n_elements, n_samples = samples.shape[-3:]
    pairs = np.ascontiguousarray(samples, dtype=np.complex64).view(np.float32)
    records = as_input(pairs.reshape(-1, n_transmits, n_elements, pairs.shape[-1]))
    probe, z_all, x = b.acquisition.probe, b.grid.z.copy(), b.grid.x.copy()
    n_images = n_transmits if b.compounding == "none" else 1
    images = np.zeros((len(records), n_images, *b.grid.shape), dtype=np.complex64)
    rows = max(1, BLOCK_VALUES // (n_transmits * len(x)))
    fraction = np.arange(TABLE + 2) / TABLE
    table = b.interpolation.weights(fraction).astype(np.float32)
    aperture = Aperture(
        probe.element_x,
        probe.element_z,
        np.sin(probe.element_angle),
        np.cos(probe.element_angle),
        b.receive_delays,
        np.ascontiguousarray(b.acquisition.receiving),
        b.live,
        float(b.cos_acceptance),
        bool(b.normalize),
    )
    clock = Clock(
        float(b.speed_of_sound),
        float(b.sampling_frequency),
        float(b.demodulation_frequency),
        int(b.interpolation.first_tap),
        table,
    )
    done, total = 0, len(records) * z_all.size * x.size
    for first in range(0, len(z_all), rows):
        z = z_all[first : first + rows]
        xx, zz = np.meshgrid(x, z)
        positions = b.transmit_samples(xx, zz, n_samples, arrival_bounds)
        pixels = Pixels(x, z, ~probe.is_behind(xx, zz), *((1, 1) if _jumps(positions) else _tile_shape(b)))
        transmits = Transmits(
            positions,
            b.transmit_phases,
            NO_WEIGHTS if b.weights is None else b.weights[:, first : first + rows].copy(),
            b.weights is not None,
            COMPOUNDINGS.index(b.compounding),
        )
        for record, image in zip(records, images, strict=True):
            block = np.zeros((n_images, *xx.shape), dtype=np.complex64)
            in_threads(_sum_tiles, (record, pixels, transmits, aperture, clock, block), b.progress, done, total)
            done += xx.size
            image[:, first : first + rows] = block
    images = images.reshape(*samples.shape[:-3], *b.image_shape)
    return images if b.has_phase and np.iscomplexobj(samples) else images.real.copy()


def _jumps(positions: np.ndarray) -> bool:
    """Return whether transmit times of neighboring pixels, in samples, lie too far apart for the stretches of one tile."""
    if np.ptp(positions) < LONGEST_STRETCH:
        return False
    return any(np.abs(np.diff(positions, axis=axis)).max(initial=0.0) > LONGEST_JUMP for axis in (1, 2))


def _tile_shape(b: Beamforming) -> tuple[int, int]:
    """Rows and columns of a tile: small enough that its stretch of samples stays short on coarse grids too."""

    def count(axis, samples_a_meter, largest):
        step = float(np.diff(axis).max()) if len(axis) > 1 else 0.0
        return int(np.clip(TILE_SAMPLES / max(step * samples_a_meter, 1e-9), 1, largest))

    rate = b.sampling_frequency / b.speed_of_sound
    return count(b.grid.z, 2 * rate, TILE_ROWS), count(b.grid.x, rate, TILE_COLUMNS)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"})
def _sum_tiles(samples, pixels, transmits, aperture, clock, image, watch, worker, n_workers):
    """Sum every n_workers-th tile: deep tiles have more elements than shallow ones.

    With weights, a tile takes the transmits alone that count somewhere in it.
    """
    x, z, in_front, tile_rows, tile_columns = pixels
    positions, phases, weights, weighted, compounding = transmits
    first_tap, table, sampling_frequency = clock.first_tap, clock.table, clock.sampling_frequency
    live, normalize = aperture.live, aperture.normalize
    n_transmits, n_elements, _ = samples.shape  # (re, im) pairs on the last axis
    n_taps = table.shape[1]
    n_pixels = tile_rows * tile_columns
    slowness = sampling_frequency / clock.speed_of_sound  # samples per meter
    cycles_a_sample = clock.frequency / sampling_frequency
    px, pz = np.empty(n_pixels), np.empty(n_pixels)
    tx_index = np.zeros(n_pixels * LANES, np.float32)  # samples after the tile's earliest
    earliest, latest = np.zeros(LANES), np.zeros(LANES)
    distance = np.empty(n_pixels)
    rx_index, rx_active = np.empty(n_pixels, np.float32), np.empty(n_pixels, np.uint8)
    rx_cos, rx_sin = np.empty(n_pixels, np.float32), np.empty(n_pixels, np.float32)
    n_active = np.zeros(n_pixels)
    # (pixels, lanes), flat
    value_re, value_im = np.zeros(GROUP * LANES, np.float32), np.zeros(GROUP * LANES, np.float32)
    sum_re, sum_im = np.zeros(n_pixels * LANES, np.float32), np.zeros(n_pixels * LANES, np.float32)
    total = np.empty((n_pixels, 2))
    chosen, n_chosen = np.arange(n_transmits), n_transmits
    plain, ones = compounding == 0 and not weighted, np.ones(n_pixels)
    stretch = np.zeros(LANES * 256 * 2, np.float32)  # (lanes, length, 2): grows when a tile needs more

    n_tile_columns = (len(x) + tile_columns - 1) // tile_columns
    n_tiles = (len(z) + tile_rows - 1) // tile_rows * n_tile_columns
    for tile in range(worker, n_tiles, n_workers):
        if watch[0]:
            break
        row0, column0 = tile // n_tile_columns * tile_rows, tile % n_tile_columns * tile_columns
        rows, columns = min(tile_rows, len(z) - row0), min(tile_columns, len(x) - column0)
        used = rows * columns
        for p in range(used):
            px[p], pz[p] = x[column0 + p % columns], z[row0 + p // columns]
            total[p, 0] = total[p, 1] = 0.0

        if weighted:
            n_chosen = 0
            for transmit in range(n_transmits):
                if np.any(weights[transmit, row0 : row0 + rows, column0 : column0 + columns]):
                    chosen[n_chosen] = transmit
                    n_chosen += 1

        for first_chosen in range(0, n_chosen, LANES):
            lanes = min(LANES, n_chosen - first_chosen)
            for a in range(lanes):
                transmit = chosen[first_chosen + a]
                low, high = np.inf, -np.inf
                for p in range(used):
                    index = positions[transmit, row0 + p // columns, column0 + p % columns]
                    low, high = min(low, index), max(high, index)
                earliest[a], latest[a] = np.floor(low), high
                for p in range(used):
                    index = positions[transmit, row0 + p // columns, column0 + p % columns]
                    tx_index[p * LANES + a] = np.float32(index - earliest[a])
            sum_re[:] = np.float32(0)
            sum_im[:] = np.float32(0)
            n_active[:used] = 0

            for e in range(n_elements):
                if live[e] == 0.0:
                    continue
                nearest, farthest = _distances(px[:used], pz[:used], e, aperture, distance, rx_active)
                if nearest > farthest:  # the element is in no pixel's aperture
                    continue
                rx_delay = aperture.delays[e] * sampling_frequency
                rx_first = np.floor(nearest * slowness + rx_delay)
                _receive(
                    used,
                    distance,
                    slowness,
                    rx_delay,
                    rx_first,
                    cycles_a_sample,
                    rx_index,
                    rx_cos,
                    rx_sin,
                )

                # Copy what the tile needs of each transmit; samples outside the record are zero.
                length = np.int64(0)
                for a in range(lanes):
                    span = latest[a] - earliest[a] + farthest * slowness + rx_delay - rx_first
                    length = max(length, np.int64(span) + 2 + n_taps)
                if len(stretch) < 2 * length * LANES:
                    stretch = np.zeros(2 * length * LANES, np.float32)
                for a in range(lanes):
                    begin = np.int64(earliest[a] + rx_first) + first_tap
                    transmit = chosen[first_chosen + a]
                    if not aperture.receiving[transmit, e]:
                        begin = -length  # outside the record
                    _copy_stretch(samples[transmit, e], 2 * begin, 2 * length, stretch[2 * a * length :])

                for begin in range(0, used, GROUP):
                    end = min(begin + GROUP, used)
                    _interpolate(
                        begin, end, lanes, n_taps, tx_index, rx_index, rx_active, stretch, length, table, value_re, value_im
                    )  # fmt: skip
                    _accumulate(begin, end, rx_active, rx_cos, rx_sin, value_re, value_im, sum_re, sum_im)
                for p in range(used):
                    n_active[p] += rx_active[p] * live[e]

            for p in range(used):  # the transmit's part of the rotation, and the sum over transmits
                for a in range(lanes):
                    transmit = chosen[first_chosen + a]
                    index = positions[transmit, row0 + p // columns, column0 + p % columns]
                    cycles = index * cycles_a_sample + phases[transmit]
                    phase = 2 * np.pi * (cycles - np.floor(cycles))
                    c, s = math.cos(phase), math.sin(phase)
                    re, im = sum_re[p * LANES + a], sum_im[p * LANES + a]
                    if plain:
                        total[p, 0] += c * re - s * im
                        total[p, 1] += c * im + s * re
                    else:
                        sum_re[p * LANES + a], sum_im[p * LANES + a] = c * re - s * im, c * im + s * re
            if not plain:
                scaled = n_active if normalize else ones
                some = chosen[first_chosen : first_chosen + lanes]
                _compound(
                    some, used, (row0, column0, columns), sum_re, sum_im, transmits, in_front, scaled, total, image
                )

        for p in range(used):
            row, column = row0 + p // columns, column0 + p % columns
            if in_front[row, column] and compounding < 2:
                scale = 1.0 / n_active[p] if normalize and n_active[p] > 0 else 1.0
                if compounding == 1:
                    image[0, row, column] = math.sqrt(total[p, 0]) * scale
                else:
                    image[0, row, column] = complex(total[p, 0] * scale, total[p, 1] * scale)
        watch[1 + worker] += used


@njit(cache=True, nogil=True, error_model="numpy")
def _compound(chosen, used, place, sum_re, sum_im, transmits, in_front, scaled, total, image):
    """Weigh what the chosen transmits gave a tile's pixels, and sum it, sum its power, or keep it, divided by `scaled`."""
    row0, column0, columns = place
    weights, weighted, compounding = transmits.weights, transmits.weighted, transmits.compounding
    for p in range(used):
        row, column = row0 + p // columns, column0 + p % columns
        for a in range(len(chosen)):
            re, im = np.float64(sum_re[p * LANES + a]), np.float64(sum_im[p * LANES + a])
            if weighted:
                weight = weights[chosen[a], row, column]
                re, im = re * weight, im * weight
            if compounding == 0:
                total[p, 0] += re
                total[p, 1] += im
            elif compounding == 1:
                total[p, 0] += re * re + im * im
            elif in_front[row, column]:
                count = scaled[p] if scaled[p] > 0 else 1.0
                image[chosen[a], row, column] = complex(re / count, im / count)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz", "nnan", "arcp"})
def _distances(px, pz, e, aperture, distance, active):
    """Distance of pixels to element e and whether it is in their aperture; the least and the greatest of those."""
    element_x, element_z, sin_element, cos_element = aperture.x[e], aperture.z[e], aperture.sine[e], aperture.cosine[e]
    cos_acceptance, used = aperture.cos_acceptance, len(px)
    for p in range(used):
        dx, dz = px[p] - element_x, pz[p] - element_z
        distance[p] = math.sqrt(dx * dx + dz * dz)
        active[p] = abs(dz) * cos_element + dx * sin_element >= cos_acceptance * distance[p]
    nearest, farthest = np.inf, -np.inf
    for p in range(used):
        if active[p]:
            nearest, farthest = min(nearest, distance[p]), max(farthest, distance[p])
    return nearest, farthest


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"})
def _receive(used, distance, slowness, delay, first, cycles_a_sample, rx_index, rx_cos, rx_sin):
    """Index and phase factor of the way back from pixels to one element. Those not in the aperture get no valid index."""
    for p in range(used):
        index = distance[p] * slowness + delay
        rx_index[p] = np.float32(index - first)
        cycles = index * cycles_a_sample
        cos, sin = _cos_sin(np.float32(cycles - np.floor(cycles + 0.5)))
        rx_cos[p], rx_sin[p] = cos, sin


@njit(cache=True, inline="always")
def _cos_sin(turn):
    """Cos and sin of 2π turn, |turn| <= 1/2, float32: Taylor series of the half angle (error 2e-7), which vectorize."""
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
    """out[:length] = record[begin : begin + length], zero outside the record."""
    low, high = min(max(0, -begin), length), max(0, min(length, len(record) - begin))
    for j in range(low):
        out[j] = np.float32(0)
    if low < high:  # unsigned: else Numba looks out for indices from the end, and the loop is four times slower
        source = record[begin + low : begin + high]
        for j in range(np.uintp(high - low)):
            out[np.uintp(low) + j] = source[j]
    for j in range(max(low, high), length):
        out[j] = np.float32(0)


@compiled
def _interpolate(begin, end, lanes, n_taps, tx_index, rx_index, active, stretch, length, table, value_re, value_im):
    """Return samples of one element at the two-way time of every (pixel, transmit)."""
    rounded, part = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    whole = rounded.view(np.int32)
    magic = np.float32(ROUNDING)
    for p in range(begin, end):
        if not active[p]:
            continue
        at = (p - begin) * LANES
        index = load(tx_index, p * LANES) + rx_index[p]
        floor = (index - np.float32(0.5)) + magic  # rounds: the whole number is in the low bits
        store(rounded, 0, floor)
        store(part, 0, index - (floor - magic))
        if n_taps == 2:
            for a in range(lanes):
                i, f = 2 * np.uintp(whole[a] - ROUNDING_BITS + a * length), part[a]
                re, im = stretch[i], stretch[i + np.uintp(1)]
                value_re[at + a] = re + f * (stretch[i + np.uintp(2)] - re)
                value_im[at + a] = im + f * (stretch[i + np.uintp(3)] - im)
        else:
            for a in range(lanes):
                i = 2 * np.uintp(whole[a] - ROUNDING_BITS + a * length)
                position = max(part[a], np.float32(0)) * np.float32(TABLE)
                j = np.uintp(position)
                g = position - np.float32(j)
                re = im = np.float32(0)
                for k in range(np.uintp(n_taps)):
                    weight = table[j, k] + g * (table[j + np.uintp(1), k] - table[j, k])
                    re += weight * stretch[i]
                    im += weight * stretch[i + np.uintp(1)]
                    i += np.uintp(2)
                value_re[at + a], value_im[at + a] = re, im


@compiled
def _accumulate(begin, end, active, rx_cos, rx_sin, value_re, value_im, sum_re, sum_im):
    """Turn the values by the receive phase and add them up."""
    for p in range(begin, end):
        if active[p]:
            c, s = rx_cos[p], rx_sin[p]
            re, im = load(value_re, (p - begin) * LANES), load(value_im, (p - begin) * LANES)
            at = p * LANES
            store(sum_re, at, fma(re, c, fma(im, -s, load(sum_re, at))))
            store(sum_im, at, fma(im, c, fma(re, s, load(sum_im, at))))


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
    in_threads(_extreme_arrivals, (*laws, 1.0, first))
    if not with_last:
        return first, None
    last = np.empty_like(first)
    in_threads(_extreme_arrivals, (*laws, -1.0, last))
    return first, last


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nnan", "nsz"})
def _extreme_arrivals(x, z, source_x, source_z, delays, slowness, sign, out, watch, worker, n_workers):
    """Out = sign min(sign (delay + distance / c)): the first arrivals with sign 1, the last ones with -1."""
    n_laws, n_sources = delays.shape
    for chunk in range(worker, (len(x) + POINTS - 1) // POINTS, n_workers):
        if watch[0]:
            break
        first = chunk * POINTS
        n = min(POINTS, len(x) - first)
        px, pz, way = np.zeros(POINTS), np.zeros(POINTS), np.empty(POINTS)
        for p in range(n):  # slices would bring the text of their error along: a second of compilation
            px[p], pz[p] = x[first + p], z[first + p]
        best = np.full((n_laws, POINTS), 1e300)
        for e in range(n_sources):
            for p in range(POINTS):
                dx, dz = px[p] - source_x[e], pz[p] - source_z[e]
                way[p] = sign * slowness * math.sqrt(dx * dx + dz * dz)
            for a in range(n_laws):
                delay = sign * delays[a, e]
                for p in range(POINTS):
                    time = way[p] + delay
                    best[a, p] = time if time < best[a, p] else best[a, p]
        for a in range(n_laws):
            for p in range(n):
                out[a, first + p] = sign * best[a, p]


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
    in_threads(_mix_and_filter, (*both, *law, edge, out))


@njit(cache=True, nogil=True)
def _mix_and_filter(singles, doubles, carrier, numerator, denominator, steady, edge, out, watch, worker, n_workers):
    single = len(singles) > 0
    n_channels, n_samples = out.shape
    n = n_samples + 2 * edge
    for block in range(worker, (n_channels + LANES - 1) // LANES, n_workers):
        if watch[0]:
            break
        first = block * LANES
        lanes = min(LANES, n_channels - first)
        signal = np.zeros((n, 2 * LANES))
        for k in range(lanes):
            for j in range(n_samples):
                value = np.float64(singles[first + k, j]) if single else doubles[first + k, j]
                signal[edge + j, 2 * k] = value * carrier[j].real
                signal[edge + j, 2 * k + 1] = value * carrier[j].imag
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
    """Direct form II transposed along the first axis, order FILTER_ORDER, the lanes of the second axis abreast."""
    width = signal.shape[1]
    state = np.empty((FILTER_ORDER, width))
    for i in range(FILTER_ORDER):
        for k in range(width):
            state[i, k] = steady[i] * signal[begin, k]
    for j in range(begin, end, step):
        for k in range(width):
            v = signal[j, k]
            y = numerator[0] * v + state[0, k]
            for i in range(FILTER_ORDER - 1):  # a constant: unrolled
                state[i, k] = numerator[i + 1] * v - denominator[i + 1] * y + state[i + 1, k]
            state[FILTER_ORDER - 1, k] = numerator[FILTER_ORDER] * v - denominator[FILTER_ORDER] * y
            signal[j, k] = y
