"""Kernels of delay-and-sum, of arrival times and of demodulation; `cpu.beamform` says what is computed."""

# Numba's intrinsics take the typing context as a first argument that no caller gives.
# mypy: disable-error-code="call-arg,var-annotated"
from __future__ import annotations

import math

import numpy as np
from numba import njit

from ....plan import FILTER_ORDER
from .layout import GROUP, LANES, POINTS, ROUNDING, ROUNDING_BITS, TABLE
from .simd import compiled, fma, load, store

# --- delay-and-sum ---------------------------------------------------------------------------------------------------


@njit(nogil=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"})
def sum_tiles(samples, pixels, transmits, aperture, clock, image, watch, worker, n_workers):
    """Sum every n_workers-th tile: deep tiles have more elements than shallow ones.

    With weights, a tile takes the transmits alone that count somewhere in it.
    """
    x, z, in_front, tile_rows, tile_columns = pixels
    positions, phases, weights, weighted, compounding = transmits
    first_tap, table, sampling_frequency = clock.first_tap, clock.table, clock.sampling_frequency
    live, normalize, tapered = aperture.live, aperture.normalize, aperture.taper.used
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

    n_rows, n_columns = x.shape
    n_tile_columns = (n_columns + tile_columns - 1) // tile_columns
    n_tiles = (n_rows + tile_rows - 1) // tile_rows * n_tile_columns
    for tile in range(worker, n_tiles, n_workers):
        if watch[0]:
            break
        row0, column0 = tile // n_tile_columns * tile_rows, tile % n_tile_columns * tile_columns
        rows, columns = min(tile_rows, n_rows - row0), min(tile_columns, n_columns - column0)
        used = rows * columns
        for p in range(used):
            row, column = row0 + p // columns, column0 + p % columns
            px[p], pz[p] = x[row, column], z[row, column]
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
                if live[e] == 0.0 or (tapered and aperture.taper.gains[e] == 0.0):
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

                if tapered:
                    _taper(px[:used], pz[:used], distance, e, aperture, rx_active, rx_cos, rx_sin, n_active)

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
                if not tapered:
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


@njit(nogil=True, error_model="numpy")
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


@njit(nogil=True, error_model="numpy", fastmath={"contract", "nsz", "nnan", "arcp"})
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


@njit(nogil=True, error_model="numpy")
def _taper(px, pz, distance, e, aperture, active, rx_cos, rx_sin, n_active):
    """Weigh the receive factors of one element at pixels, and count it by its weight."""
    for p in range(len(px)):
        if active[p]:
            weight = element_weight(px[p] - aperture.x[e], pz[p] - aperture.z[e], distance[p], e, aperture)
            rx_cos[p] *= np.float32(weight)
            rx_sin[p] *= np.float32(weight)
            n_active[p] += weight * aperture.live[e]


@njit(nogil=True, error_model="numpy")
def element_weight(dx, dz, distance, e, aperture):
    """Return how much an element counts at a point that lies dx, dz from it (`plan.Beamforming.element_weights`)."""
    cosine, sine, taper = aperture.cosine[e], aperture.sine[e], aperture.taper
    toward = abs(dz) * cosine + dx * sine
    if toward < aperture.cos_acceptance * distance:
        return 0.0
    if not taper.used:
        return 1.0
    place = min(taper.double_f_number * abs(dx * cosine - abs(dz) * sine) / toward, 1.0) if toward > 0.0 else 0.0
    s = max(0.0, (place - taper.flat) / (1.0 - taper.flat))
    return taper.gains[e] * (taper.a0 + taper.a1 * math.cos(math.pi * s) + taper.a2 * math.cos(2.0 * math.pi * s))


@njit(nogil=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"})
def _receive(used, distance, slowness, delay, first, cycles_a_sample, rx_index, rx_cos, rx_sin):
    """Index and phase factor of the way back from pixels to one element. Those not in the aperture get no valid index."""
    for p in range(used):
        index = distance[p] * slowness + delay
        rx_index[p] = np.float32(index - first)
        cycles = index * cycles_a_sample
        cos, sin = _cos_sin(np.float32(cycles - np.floor(cycles + 0.5)))
        rx_cos[p], rx_sin[p] = cos, sin


@njit(inline="always")
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


@njit(nogil=True)
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


@njit(nogil=True, error_model="numpy", fastmath={"contract", "nnan", "nsz"})
def extreme_arrivals(x, z, source_x, source_z, delays, slowness, sign, out, watch, worker, n_workers):
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


@njit(nogil=True)
def mix_and_filter(singles, doubles, carrier, numerator, denominator, steady, edge, out, watch, worker, n_workers):
    """Demodulate every n_workers-th block of LANES channels, of the two arrays that which has any."""
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


@njit(nogil=True, fastmath={"contract"})
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
