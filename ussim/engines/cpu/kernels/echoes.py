"""From spectra to the record in the CPU engine: inverse transforms of 16 transmits at a time, added at whole samples.

A Stockham transform (radix 2, 3, 4, 5) with lanes on transmits; layouts as in `cells`.
"""

from __future__ import annotations

import math

from .cells import load_pair, product, spectrum_at
from .layout import LANES, PAIR
from .simd import (
    compiled,
    fma,
    load,
    store,
    transpose_block,
)


@compiled
def add_cells(
    record, shape, part, spectra, spectrum_size, windows, transmit_at, element_at, twiddles, twiddles_at, x, y, rows
):
    """Add the echoes of cells to record[:, part[0] : part[1]], record of `shape` but flat.

    Two elements a transform: the spectra R of real echoes make R_1 + i R_2 and its mirror conj(R_1) + i conj(R_2), whose
    transform has the first element's echoes for its real part and the second's for its imaginary part.
    """
    n_transmits, n_elements, n_samples = shape
    for e in range(part[0], part[1], 2):
        both = 2 if e + 1 < part[1] else 1
        for i in range(len(windows)):  # cells inside, so that an element's record stays in the cache
            n, start, first_bin, n_bins = windows[i]
            for group in range((n_transmits + LANES - 1) // LANES):
                at = i * spectrum_size + spectrum_at(group, e, n_elements, n_bins)
                _fill(x, n, spectra, at, first_bin, n_bins, both)
                echoes = x if _transform(n, twiddles[twiddles_at[i] :], x, y) else y
                for k in range(0, LANES * PAIR, LANES):  # a block may run over the end of the period
                    store(echoes, n * PAIR + k, load(echoes, k))
                for second in range(both):
                    row = (group * LANES * n_elements + e + second) * n_samples
                    offsets = transmit_at[i, group * LANES : (group + 1) * LANES] + (element_at[i, e + second] + start)
                    _add_echoes(
                        echoes, second * LANES, n, start, record, row, n_elements * n_samples, n_samples, offsets, rows
                    )


@compiled
def _fill(x, n, spectra, at, first_bin, n_bins, both):
    """x[n][2] = the spectra of one or two elements packed in one, with their mirror."""
    x[: n * PAIR] = 0
    for j in range(n_bins):
        re, im = load_pair(spectra, at + j * PAIR)
        re2, im2 = re * 0, re * 0
        if both == 2:
            re2, im2 = load_pair(spectra, at + (n_bins + j) * PAIR)
        to, mirror = (first_bin + j) * PAIR, (n - first_bin - j) * PAIR
        store(x, to, re - im2)
        store(x, to + LANES, im + re2)
        store(x, mirror, re + im2)
        store(x, mirror + LANES, re2 - im)


@compiled
def take_echoes(record, shape, window, transmit_at, element_at, twiddles, x, y, rows, out):
    """Spectra of the record within a cell's window, out[group][element][frequency][2]: the adjoint of `add_cells`.

    Two elements a transform: y_1 + i y_2 has the spectrum X, of which X_j + conj(X_(n-j)) is twice the first element's
    and -i (X_j - conj(X_(n-j))) twice the second's; the factor 2 stands for the frequencies' mirror in a real record.
    """
    n_transmits, n_elements, n_samples = shape
    n, start, first_bin, n_bins = window
    rows[: LANES * LANES] = 0  # lanes beyond the last transmit
    for e in range(0, n_elements, 2):
        both = 2 if e + 1 < n_elements else 1
        for group in range((n_transmits + LANES - 1) // LANES):
            x[: n * PAIR] = 0
            for second in range(both):
                row = (group * LANES * n_elements + e + second) * n_samples
                offsets = transmit_at[group * LANES : (group + 1) * LANES] + (element_at[e + second] + start)
                _read_echoes(record, row, n_elements * n_samples, n_samples, offsets, n, start, x, second * LANES, rows)
            spectrum = x if _transform(n, twiddles, x, y) else y
            for second in range(both):
                at = spectrum_at(group, e + second, n_elements, n_bins)
                for j in range(first_bin, first_bin + n_bins):
                    re, im = load_pair(spectrum, j * PAIR)
                    mirror_re, mirror_im = load_pair(spectrum, (n - j) * PAIR)
                    if second == 0:
                        re, im = re + mirror_re, im - mirror_im
                    else:
                        re, im = im + mirror_im, mirror_re - re
                    to = at + (j - first_bin) * PAIR
                    store(out, to, re)
                    store(out, to + LANES, im)


@compiled
def _read_echoes(record, first_row, row_step, n_samples, offsets, n, start, x, part, rows):
    """x[(start + k) % n][part][lane] = sample offsets[lane] + k of each lane's row, 0 outside it: `_add_echoes` reversed."""
    earliest, latest = _extremes(offsets)
    for k in range(0, n, LANES):
        to = (start + k) % n
        if earliest + k >= 0 and latest + k <= n_samples - LANES and k <= n - LANES and to <= n - LANES:
            for lane in range(len(offsets)):
                store(rows, lane * LANES, load(record, first_row + lane * row_step + offsets[lane] + k))
            transpose_block(rows, 0, LANES, x, to * PAIR + part, PAIR)
        else:
            for lane in range(len(offsets)):
                offset = offsets[lane] + k
                for j in range(max(0, -offset), min(LANES, n - k, n_samples - offset)):
                    x[(start + k + j) % n * PAIR + part + lane] = record[first_row + lane * row_step + offset + j]


@compiled
def _add_echoes(echoes, part, n, start, record, first_row, row_step, n_samples, offsets, rows):
    """Add real echoes, lanes on transmits, to the rows of the record that begin at first_row + lane row_step.

    Sample k of the window, which is sample (start + k) % n of the period, at offsets[lane] + k, as far as the row goes.
    """
    earliest, latest = _extremes(offsets)
    for k in range(0, n, LANES):
        transpose_block(echoes, (start + k) % n * PAIR + part, PAIR, rows, 0, LANES)
        if earliest + k >= 0 and latest + k <= n_samples - LANES and k <= n - LANES:
            for lane in range(len(offsets)):
                at = first_row + lane * row_step + offsets[lane] + k
                store(record, at, load(record, at) + load(rows, lane * LANES))
        else:
            _add_clipped(rows, min(LANES, n - k), record, first_row, row_step, n_samples, offsets, k)


@compiled
def _extremes(offsets):
    """Return the least and the greatest; `.min()` brings an iterator over any number of axes, 0.4 s of compilation."""
    least = greatest = offsets[0]
    for lane in range(1, len(offsets)):
        least, greatest = min(least, offsets[lane]), max(greatest, offsets[lane])
    return least, greatest


@compiled
def _add_clipped(rows, count, record, first_row, row_step, n_samples, offsets, k):
    """Return the same for a block that is cut by the end of the window or of the record."""
    for lane in range(len(offsets)):
        offset = offsets[lane] + k
        for j in range(max(0, -offset), min(count, n_samples - offset)):
            record[first_row + lane * row_step + offset + j] += rows[lane * LANES + j]


@compiled
def _transform(n, twiddles, x, y):
    """Discrete Fourier transform of x[n][2] with lanes apart (Stockham's autosort, mixed radix).

    True if the answer is in x, else it is in y.
    """
    stride, in_x = 1, True
    while stride < n:
        source, target = (x, y) if in_x else (y, x)
        rest = n // stride
        radix = 4 if rest % 4 == 0 else 5 if rest % 5 == 0 else 3 if rest % 3 == 0 else 2
        rest //= radix
        for p in range(rest):
            for q in range(stride):
                at, step = (q + stride * p) * PAIR, stride * rest * PAIR
                to, stride_to = (q + stride * radix * p) * PAIR, stride * PAIR
                if radix == 4:
                    _radix4(source, at, step, target, to, stride_to, twiddles, p * stride)
                elif radix == 2:
                    _radix2(source, at, step, target, to, stride_to, twiddles, p * stride)
                elif radix == 3:
                    _radix3(source, at, step, target, to, stride_to, twiddles, p * stride)
                else:
                    _radix5(source, at, step, target, to, stride_to, twiddles, p * stride)
        stride *= radix
        in_x = not in_x
    return in_x


@compiled
def _put(target, to, re, im, twiddles, k):
    re, im = product(re, im, twiddles[k, 0], twiddles[k, 1])
    store(target, to, re)
    store(target, to + LANES, im)


@compiled
def _radix2(source, at, step, target, to, stride, twiddles, k):
    a, b = load_pair(source, at)
    c, d = load_pair(source, at + step)
    _put(target, to, a + c, b + d, twiddles, 0)
    _put(target, to + stride, a - c, b - d, twiddles, k)


@compiled
def _radix3(source, at, step, target, to, stride, twiddles, k):
    re0, im0 = load_pair(source, at)
    re1, im1 = load_pair(source, at + step)
    re2, im2 = load_pair(source, at + 2 * step)
    sum_re, sum_im = re1 + re2, im1 + im2
    half_re, half_im = fma(sum_re, -0.5, re0), fma(sum_im, -0.5, im0)
    turn_re, turn_im = (im1 - im2) * math.sqrt(0.75), (re2 - re1) * math.sqrt(0.75)  # -i sin(2π/3) (x1 - x2)
    _put(target, to, re0 + sum_re, im0 + sum_im, twiddles, 0)
    _put(target, to + stride, half_re + turn_re, half_im + turn_im, twiddles, k)
    _put(target, to + 2 * stride, half_re - turn_re, half_im - turn_im, twiddles, 2 * k)


@compiled
def _radix4(source, at, step, target, to, stride, twiddles, k):
    re0, im0 = load_pair(source, at)
    re1, im1 = load_pair(source, at + step)
    re2, im2 = load_pair(source, at + 2 * step)
    re3, im3 = load_pair(source, at + 3 * step)
    even_re, even_im, odd_re, odd_im = re0 + re2, im0 + im2, re1 + re3, im1 + im3
    half_re, half_im = re0 - re2, im0 - im2
    turn_re, turn_im = im1 - im3, re3 - re1  # -i (x1 - x3)
    _put(target, to, even_re + odd_re, even_im + odd_im, twiddles, 0)
    _put(target, to + stride, half_re + turn_re, half_im + turn_im, twiddles, k)
    _put(target, to + 2 * stride, even_re - odd_re, even_im - odd_im, twiddles, 2 * k)
    _put(target, to + 3 * stride, half_re - turn_re, half_im - turn_im, twiddles, 3 * k)


@compiled
def _radix5(source, at, step, target, to, stride, twiddles, k):
    cosine1, cosine2 = math.cos(2 * math.pi / 5), math.cos(4 * math.pi / 5)
    sine1, sine2 = math.sin(2 * math.pi / 5), math.sin(4 * math.pi / 5)
    re0, im0 = load_pair(source, at)
    re1, im1 = load_pair(source, at + step)
    re2, im2 = load_pair(source, at + 2 * step)
    re3, im3 = load_pair(source, at + 3 * step)
    re4, im4 = load_pair(source, at + 4 * step)
    sum1_re, sum1_im, sum2_re, sum2_im = re1 + re4, im1 + im4, re2 + re3, im2 + im3
    gap1_re, gap1_im, gap2_re, gap2_im = re1 - re4, im1 - im4, re2 - re3, im2 - im3
    a_re, a_im = fma(sum1_re, cosine1, fma(sum2_re, cosine2, re0)), fma(sum1_im, cosine1, fma(sum2_im, cosine2, im0))
    b_re, b_im = fma(sum1_re, cosine2, fma(sum2_re, cosine1, re0)), fma(sum1_im, cosine2, fma(sum2_im, cosine1, im0))
    c_re, c_im = fma(gap1_im, sine1, gap2_im * sine2), -fma(gap1_re, sine1, gap2_re * sine2)
    d_re, d_im = fma(gap1_im, sine2, gap2_im * -sine1), -fma(gap1_re, sine2, gap2_re * -sine1)
    _put(target, to, re0 + sum1_re + sum2_re, im0 + sum1_im + sum2_im, twiddles, 0)
    _put(target, to + stride, a_re + c_re, a_im + c_im, twiddles, k)
    _put(target, to + 2 * stride, b_re + d_re, b_im + d_im, twiddles, 2 * k)
    _put(target, to + 3 * stride, b_re - d_re, b_im - d_im, twiddles, 3 * k)
    _put(target, to + 4 * stride, a_re - c_re, a_im - c_im, twiddles, 4 * k)
