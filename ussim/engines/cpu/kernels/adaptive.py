"""Kernels of adaptive beamforming: channels delayed to points, and ways to combine them; `cpu.adaptive` says what and why.

Sums are float64, what is stored float32. Points are shared out in chunks; a point is computed by one thread in one order.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .beamform import element_weight
from .simd import compiled

CHUNK = 64  # points whose samples are read together: neighbors, whose echoes lie close in a record


@compiled(error_model="numpy", fastmath={"contract", "nsz", "arcp"})
def align(samples, points, transmits, aperture, clock, shifts, channels, counts, watch, worker, n_workers):
    """Fill channels (n_points, n_elements, n_shifts), delayed and summed over transmits, and counts (n_points, n_elements).

    An element counts by its weight in the aperture of a point, 0 outside it or where it hears none of the transmits. Samples
    outside the record are 0; `margin` beyond it lie the times of waves that never come.
    """
    x, z = points
    positions, phases, weights, weighted, margin = transmits
    table, first_tap, rate = clock.table, clock.first_tap, clock.sampling_frequency
    n_transmits, n_elements, n_floats = samples.shape  # (re, im) pairs on the last axis
    n_samples, n_taps, steps, n_shifts = n_floats // 2, table.shape[1], table.shape[0] - 2, len(shifts)
    slowness, cycles_per_sample = rate / clock.speed_of_sound, clock.frequency / rate
    way, weight, turn = np.empty(CHUNK), np.empty(CHUNK), np.empty(CHUNK, np.complex128)
    sums = np.empty((CHUNK, n_shifts), np.complex128)
    turns = np.empty((n_transmits, CHUNK), np.complex128)
    for chunk in range(worker, (len(x) + CHUNK - 1) // CHUNK, n_workers):
        if watch[0]:
            break
        first = chunk * CHUNK
        n = min(CHUNK, len(x) - first)
        for a in range(n_transmits):
            for p in range(n):
                cycles = positions[a, first + p] * cycles_per_sample + phases[a]
                amount = np.float64(weights[a, first + p]) if weighted else 1.0
                turns[a, p] = amount * _unit(cycles)
        for e in range(n_elements):
            hears = False
            for a in range(n_transmits):
                hears = hears or aperture.receiving[a, e]
            any_counts = False
            for p in range(n):
                dx, dz = x[first + p] - aperture.x[e], z[first + p] - aperture.z[e]
                distance = math.sqrt(dx * dx + dz * dz)
                weight[p] = element_weight(dx, dz, distance, e, aperture) if hears else 0.0
                any_counts = any_counts or weight[p] != 0.0
                way[p] = distance * slowness + aperture.delays[e] * rate
                turn[p] = _unit(way[p] * cycles_per_sample)
                for t in range(n_shifts):
                    sums[p, t] = 0.0
            if any_counts:
                for a in range(n_transmits):
                    if not aperture.receiving[a, e]:
                        continue
                    record = samples[a, e]
                    for p in range(n):
                        if weight[p] == 0.0 or turns[a, p] == 0.0:
                            continue
                        index = positions[a, first + p] + way[p]
                        if not -margin < index < n_samples + margin:  # NaN too
                            continue
                        for t in range(n_shifts):
                            value = _sample(record, n_samples, index + shifts[t], first_tap, n_taps, steps, table)
                            sums[p, t] += turns[a, p] * value
            for p in range(n):
                counts[first + p, e] = weight[p]
                for t in range(n_shifts):
                    channels[first + p, e, t] = turn[p] * sums[p, t]


@njit(inline="always")
def _unit(cycles):
    phase = 2 * math.pi * (cycles - math.floor(cycles))
    return complex(math.cos(phase), math.sin(phase))


@njit(inline="always")
def _sample(record, n_samples, index, first_tap, n_taps, steps, table):
    """Return the record between its samples; those outside it are 0."""
    floor = math.floor(index)
    whole = np.int64(floor) + first_tap
    position = (index - floor) * steps
    j = min(max(np.int64(position), 0), steps)
    part = position - j
    re = im = 0.0
    for k in range(n_taps):
        at = whole + k
        if 0 <= at < n_samples:
            weight = np.float64(table[j, k]) + part * (np.float64(table[j + 1, k]) - np.float64(table[j, k]))
            re += weight * record[2 * at]
            im += weight * record[2 * at + 1]
    return complex(re, im)


# --- ways to combine -------------------------------------------------------------------------------------------------


@njit(nogil=True, error_model="numpy")
def weigh_by_coherence(channels, counts, scales, order, exponent, out, watch, worker, n_workers):
    """Out = sum of the weighted channels times the share of their energy at spatial frequencies up to `order`."""
    n_points, n_elements, n_times = channels.shape
    middle = n_times // 2
    for p in range(worker, n_points, n_workers):
        if watch[0]:
            break
        total, energy, n = 0.0 + 0.0j, 0.0, 0
        for e in range(n_elements):
            if counts[p, e] > 0:
                value = np.complex128(channels[p, e, middle])
                total += np.float64(counts[p, e]) * value
                energy += value.real * value.real + value.imag * value.imag
                n += 1
        low = 0.0
        if energy > 0.0:
            for k in range(max(-order, -((n - 1) // 2)), min(order, n // 2) + 1):
                low += _power_at(channels[p, :, middle], counts[p], k / n)
            out[p] = total * scales[p] * (low / (n * energy)) ** exponent
        watch[1 + worker] += 1


@njit
def _power_at(channels, counts, frequency):
    """|Σ s_i exp(-2πi f i)|² over the elements that count, numbered one after the other."""
    step = _unit(-frequency)
    turn, total = 1.0 + 0.0j, 0.0 + 0.0j
    for e in range(len(channels)):
        if counts[e] > 0:
            total += turn * np.complex128(channels[e])
            turn *= step
    return total.real * total.real + total.imag * total.imag


@njit(nogil=True, error_model="numpy")
def multiply_pairs(channels, counts, scales, out, watch, worker, n_workers):
    """Out = Σ_{i<j} ŝ_i ŝ_j times 2 / (n - 1), as half of (Σ ŝ)² - Σ ŝ²; ŝ = s / √|s|."""
    n_points, n_elements, n_times = channels.shape
    middle = n_times // 2
    for p in range(worker, n_points, n_workers):
        if watch[0]:
            break
        total, squares, n = 0.0 + 0.0j, 0.0 + 0.0j, 0
        for e in range(n_elements):
            if counts[p, e] > 0:
                value = np.complex128(channels[p, e, middle]) * np.float64(counts[p, e])
                magnitude = abs(value)
                n += 1
                if magnitude > 0.0:
                    root = value / math.sqrt(magnitude)
                    total += root
                    squares += root * root
        out[p] = (total * total - squares) * (scales[p] / max(n - 1, 1))
        watch[1 + worker] += 1


@njit(nogil=True, error_model="numpy")
def correlate_short_lags(channels, counts, most, out, watch, worker, n_workers):
    """Out = mean over lags up to most[n] of the mean normalized correlation of channels so far apart."""
    n_points, n_elements, n_times = channels.shape
    chosen, energy = np.empty(n_elements, np.int64), np.empty(n_elements)
    for p in range(worker, n_points, n_workers):
        if watch[0]:
            break
        n = _choose(counts[p], chosen)
        for i in range(n):
            energy[i] = 0.0
            for t in range(n_times):
                value = np.complex128(channels[p, chosen[i], t])
                energy[i] += value.real * value.real + value.imag * value.imag
        total = 0.0
        for lag in range(1, most[n] + 1):
            correlation = 0.0
            for i in range(n - lag):
                scale = math.sqrt(energy[i] * energy[i + lag])
                if scale > 0.0:
                    product = 0.0
                    for t in range(n_times):
                        one = np.complex128(channels[p, chosen[i], t])
                        other = np.complex128(channels[p, chosen[i + lag], t])
                        product += one.real * other.real + one.imag * other.imag
                    correlation += product / scale
            total += correlation / (n - lag)
        out[p] = total / max(most[n], 1)
        watch[1 + worker] += 1


@njit
def _choose(counts, chosen):
    """List the elements that count, and return how many there are."""
    n = 0
    for e in range(len(counts)):
        if counts[e] > 0:
            chosen[n] = e
            n += 1
    return n


@njit(nogil=True, error_model="numpy")
def minimize_variance(channels, counts, lengths, loading, times_n, out, watch, worker, n_workers):
    """Out = mean of wᴴs over the subarrays of lengths[n] channels, w = R⁻¹1 / (1ᴴR⁻¹1); times n if `times_n`."""
    n_points, n_elements, n_times = channels.shape
    chosen = np.empty(n_elements, np.int64)
    values = np.empty((n_times, n_elements), np.complex128)
    largest = 0
    for n in range(len(lengths)):  # np.max would bring code of Numba's runtime along
        largest = max(largest, lengths[n])
    re, im = np.zeros((largest, largest)), np.zeros((largest, largest))
    solution = np.empty(largest, np.complex128)
    for p in range(worker, n_points, n_workers):
        if watch[0]:
            break
        n = _choose(counts[p], chosen)
        if n > 0:
            for t in range(n_times):
                for i in range(n):
                    values[t, i] = channels[p, chosen[i], t]
            length = lengths[n]
            power = _covariance(values, n, length, re, im)
            if power > 0.0:
                _solve_for_ones(re, im, length, power, loading, solution)
                out[p] = _mean_over_subarrays(values[n_times // 2], n, length, solution) * (n if times_n else 1)
        watch[1 + worker] += 1


@njit(error_model="numpy")
def _covariance(values, n, length, re, im):
    """Fill the lower triangle of R, the mean over subarrays and times; return the mean power on its diagonal.

    The first column is summed; each other entry is that before it on its diagonal, less the subarray that it leaves and more
    the one that it gains.
    """
    n_times = values.shape[0]
    n_parts = n - length + 1
    scale = 1.0 / (n_parts * n_times)
    for i in range(length):
        total = 0.0 + 0.0j
        for t in range(n_times):
            for k in range(n_parts):
                total += values[t, i + k] * np.conj(values[t, k])
        re[i, 0], im[i, 0] = total.real * scale, total.imag * scale
    for i in range(1, length):
        for j in range(1, i + 1):
            change = 0.0 + 0.0j
            for t in range(n_times):
                gained = values[t, i - 1 + n_parts] * np.conj(values[t, j - 1 + n_parts])
                change += gained - values[t, i - 1] * np.conj(values[t, j - 1])
            re[i, j] = re[i - 1, j - 1] + change.real * scale
            im[i, j] = im[i - 1, j - 1] + change.imag * scale
    power = 0.0
    for i in range(length):
        power += re[i, i]
    return power / length


@njit(error_model="numpy", fastmath={"contract", "nsz", "arcp", "reassoc"})
def _solve_for_ones(re, im, length, power, loading, solution):
    """Solve (R + loading power I) u = 1 by Cholesky's decomposition, R's lower triangle overwritten."""
    if math.isinf(loading):
        for i in range(length):
            solution[i] = 1.0
        return
    # What rounding may leave of a pivot: true ones are at least loading times power.
    smallest = min(loading, 1.0) * power * 1e-3
    for i in range(length):
        for j in range(i + 1):
            a, b = re[i, j], im[i, j]
            if i == j:
                a, b = a + loading * power, 0.0
            for k in range(j):
                a -= re[i, k] * re[j, k] + im[i, k] * im[j, k]
                b -= im[i, k] * re[j, k] - re[i, k] * im[j, k]
            if i == j:
                re[i, i], im[i, i] = math.sqrt(max(a, smallest)), 0.0
            else:
                re[i, j], im[i, j] = a / re[j, j], b / re[j, j]
    for i in range(length):  # L y = 1
        value = 1.0 + 0.0j
        for k in range(i):
            value -= complex(re[i, k], im[i, k]) * solution[k]
        solution[i] = value / re[i, i]
    for i in range(length - 1, -1, -1):  # Lᴴ u = y
        value = solution[i]
        for k in range(i + 1, length):
            value -= complex(re[k, i], -im[k, i]) * solution[k]
        solution[i] = value / re[i, i]


@njit(error_model="numpy")
def _mean_over_subarrays(values, n, length, solution):
    """Σ_i conj(w_i) (mean of s_i over the subarrays), w the solution over its sum."""
    n_parts = n - length + 1
    window, total, scale = 0.0 + 0.0j, 0.0 + 0.0j, 0.0 + 0.0j
    for k in range(n_parts):
        window += values[k]
    for i in range(length):
        total += np.conj(solution[i]) * window
        scale += solution[i]
        if i + 1 < length:
            window += values[i + n_parts] - values[i]
    return total / (n_parts * np.conj(scale))
