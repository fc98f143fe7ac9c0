"""One cell of scatterers in the CPU engine: the spectrum of its echoes, the power of its pressure.

What runs in the innermost loops is here, compiled, in vectors of 16 (`simd`); `engine` says what is computed, and
in which order.
Arrays are flat float32, their layout given as [axes], the last axis 16 lanes. A complex number is two vectors (real,
imaginary) or, where a product follows, three (their sum as well: `simd.complex_outer`).
"""

from __future__ import annotations

import math

import numpy as np

from .layout import BATCH, LANES, PAIR, ROWS, STATE, TILES, TRIPLE, WIDE
from .lens import beam_batch, beam_place, renew_beam
from .simd import (
    compiled,
    complex_outer,
    cosine_sine,
    fma,
    load,
    store,
    total,
    transpose_block,
    turn_minus_one,
)
from .ways import start_waves


@compiled
def cell_spectrum(elements, cell, space, n_full, n_left, out):
    """Spectrum of a cell's echoes, out[group][element][frequency][2]."""
    n_elements, n_transmits = len(elements.x), len(cell.transmit_reference)
    n_tiles, n_bins = cell.points.shape[1] // LANES, len(cell.factor)
    reflectivity = cell.points[2]
    left = n_full * LANES  # first transmit with lanes on scatterers
    lanes = (n_full + (n_left > 0)) * LANES
    start_waves(elements, cell, space)
    _start_drive(elements, cell, space.drive_waves)
    for first in range(0, n_bins, BATCH):
        n_batch = min(BATCH, n_bins - first)
        _advance_drive(elements, lanes // LANES, space)
        space.sums[:] = 0
        for tile in range(0, n_tiles, TILES):
            n_now = min(TILES, n_tiles - tile)
            for half in range(n_now):
                _advance_field(elements, cell, tile + half, half, first, space)
                if elements.elevated:
                    _apply_beam(elements, cell, tile + half, half, first, space)
            for i in range(n_batch):
                for half in range(n_now):
                    _transmit(i, half, n_elements, n_transmits, lanes, space)
                    _turn_pressure(n_full, n_transmits, load(reflectivity, (tile + half) * LANES), half, space)
                    for a in range(n_left):
                        at = _sums_at_left(i, a, n_full, n_left, n_elements)
                        _receive_alone(i, half, n_elements, left + a, at, space)
                for group in range(n_full):
                    at = _sums_at_group(i, group, n_full, n_elements)
                    _receive_group(i, n_elements, n_now * LANES, group, at, space)
        for i in range(n_batch):
            for group in range(n_full):
                at = _sums_at_group(i, group, n_full, n_elements)
                _finish_group(space.sums, at, elements, cell, first + i, out, spectrum_at(group, 0, n_elements, n_bins))
            if n_left > 0:
                at, to = _sums_at_left(i, 0, n_full, n_left, n_elements), spectrum_at(n_full, 0, n_elements, n_bins)
                _finish_left(space.sums, at, n_left, elements, cell, first + i, out, to)


@compiled
def cell_power(elements, cell, space, out):
    """Σ_f |P|² of a cell's points, out[transmit][tile], added."""
    n_elements, n_transmits = len(elements.x), len(cell.transmit_reference)
    n_tiles, n_bins = cell.points.shape[1] // LANES, len(cell.factor)
    n_groups = (n_transmits + LANES - 1) // LANES
    start_waves(elements, cell, space)
    _start_drive(elements, cell, space.drive_waves)
    for first in range(0, n_bins, BATCH):
        _advance_drive(elements, n_groups, space)
        for tile in range(n_tiles):
            _advance_field(elements, cell, tile, 0, first, space)
            if elements.elevated:
                _apply_beam(elements, cell, tile, 0, first, space)
            for i in range(min(BATCH, n_bins - first)):
                _transmit(i, 0, n_elements, n_transmits, n_groups * LANES, space)
                factor = cell.factor[first + i]
                spectrum = factor.real * factor.real + factor.imag * factor.imag
                for a in range(n_transmits):
                    re, im = _complex(space.pressure, a * TRIPLE)
                    at = (a * n_tiles + tile) * LANES
                    store(out, at, fma(re * re + im * im, spectrum, load(out, at)))


@compiled
def cell_adjoint(elements, cell, space, back, spectra, out):
    """Project echoes on a cell's points, out[tile][lane], added: the adjoint of `cell_spectrum` in the reflectivity.

    With Z the echoes' spectra as `take_echoes` leaves them, spectra[group][element][frequency][2]:

        out(s) += Re Σ_f Σ_a P_a(s, f) Σ_e factor(e, f) Z_a(e, f) G(s, e, f)

    `back` is `space` with a drive and a pressure of its own: the sum over elements is that of the transmit.
    """
    n_elements, n_transmits = len(elements.x), len(cell.transmit_reference)
    n_tiles, n_bins = cell.points.shape[1] // LANES, len(cell.factor)
    n_groups = (n_transmits + LANES - 1) // LANES
    lanes = n_groups * LANES
    start_waves(elements, cell, space)
    _start_drive(elements, cell, space.drive_waves)
    for first in range(0, n_bins, BATCH):
        n_batch = min(BATCH, n_bins - first)
        _advance_drive(elements, n_groups, space)
        _drive_by_echoes(elements, cell, first, n_batch, n_groups, spectra, back.drive)
        for tile in range(n_tiles):
            _advance_field(elements, cell, tile, 0, first, space)
            if elements.elevated:
                _apply_beam(elements, cell, tile, 0, first, space)
            projected = load(out, tile * LANES)
            for i in range(n_batch):
                _transmit(i, 0, n_elements, n_transmits, lanes, space)
                _transmit(i, 0, n_elements, n_transmits, lanes, back)
                for a in range(n_transmits):
                    re, im = _complex(space.pressure, a * TRIPLE)
                    echo_re, echo_im = _complex(back.pressure, a * TRIPLE)
                    projected = fma(re, echo_re, fma(-im, echo_im, projected))
            store(out, tile * LANES, projected)


@compiled
def _drive_by_echoes(elements, cell, first, n_batch, n_groups, spectra, drive):
    """Echoes' spectra at the next frequencies, times `_receive_factor`, as drive[frequency][element][3][group]."""
    n_elements, n_bins, lanes = len(elements.x), len(cell.factor), n_groups * LANES
    for group in range(n_groups):
        for e in range(n_elements):
            for i in range(n_batch):
                factor = _receive_factor(elements, cell, first + i, e)
                re, im = load_pair(spectra, spectrum_at(group, e, n_elements, n_bins) + (first + i) * PAIR)
                re, im = product(re, im, factor.real, factor.imag)
                _store_triple(drive, _drive_at(i, e, group * LANES, n_elements, lanes), lanes, re, im)


@compiled
def _start_drive(elements, cell, drive_waves):
    """W exp(2πi f τ) of each transmit, focus and element at the cell's first frequency, and its step.

    Τ from the firing to the reference distance, relative to the transmit's reference.
    """
    n_transmits, n_foci, n_elements = elements.delays.shape
    start, step, weight = np.empty(LANES, np.float32), np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    at = 0
    for k in range(n_foci):
        for e in range(n_elements):
            for group in range((n_transmits + LANES - 1) // LANES):
                start[:] = 0
                step[:] = 0
                weight[:] = 0
                for lane in range(min(LANES, n_transmits - group * LANES)):
                    a = group * LANES + lane
                    samples = elements.delays[a, k, e] + (cell.element_reference[e] - cell.transmit_reference[a])
                    turns = samples / cell.window_length
                    step[lane] = turns - np.rint(turns)
                    turns *= cell.first_bin
                    start[lane] = turns - np.rint(turns)
                    weight[lane] = elements.weights[a, k, e]
                amplitude = load(weight, 0)
                re, im = cosine_sine(load(start, 0))
                _store_pair(drive_waves, at, re * amplitude, im * amplitude)
                re, im = turn_minus_one(load(step, 0))
                _store_pair(drive_waves, at + PAIR, re, im)
                at += STATE


@compiled
def _advance_drive(elements, n_groups, space):
    """Return the next frequencies of the drive, drive[frequency][element][3][group]."""
    n_foci, n_elements = elements.delays.shape[1:]
    lanes = n_groups * LANES
    at = 0
    for k in range(n_foci):
        for e in range(n_elements):
            for group in range(n_groups):
                re, im = load_pair(space.drive_waves, at)
                step_re, step_im = load_pair(space.drive_waves, at + PAIR)
                for i in range(BATCH):
                    to = _drive_at(i, e, group * LANES, n_elements, lanes)
                    if k == 0:
                        sum_re, sum_im = re, im
                    else:
                        sum_re, sum_im = load(space.drive, to) + re, load(space.drive, to + lanes) + im
                    _store_triple(space.drive, to, lanes, sum_re, sum_im)
                    re, im = _advance(re, im, step_re, step_im)
                _store_pair(space.drive_waves, at, re, im)
                at += STATE


@compiled
def _advance_field(elements, cell, tile, half, first, space):
    """G of a tile at the next frequencies, field[frequency][element][3][half]: the mean over the sub-elements."""
    n_elements, n_sub = elements.sub_x.shape
    full = elements.full_directivity
    hertz = cell.rate / cell.window_length
    waves, field = space.waves, space.field
    at = tile * n_elements * n_sub * STATE
    for e in range(n_elements):
        zero = load(waves, at) * 0
        re0, im0, re1, im1, re2, im2, re3, im3 = zero, zero, zero, zero, zero, zero, zero, zero
        for _ in range(n_sub):
            re, im = load_pair(waves, at)
            step_re, step_im = load_pair(waves, at + PAIR)
            if full:
                half_width = load(space.widths, at // STATE * LANES)
                bin0 = cell.first_bin + first
                w0 = np.sinc(half_width * ((bin0) * hertz / math.pi))
                w1 = np.sinc(half_width * ((bin0 + 1) * hertz / math.pi))
                w2 = np.sinc(half_width * ((bin0 + 2) * hertz / math.pi))
                w3 = np.sinc(half_width * ((bin0 + 3) * hertz / math.pi))
                if elements.matrix:
                    half_height = load(space.widths, len(space.widths) // 2 + at // STATE * LANES)
                    w0 = w0 * np.sinc(half_height * ((bin0) * hertz / math.pi))
                    w1 = w1 * np.sinc(half_height * ((bin0 + 1) * hertz / math.pi))
                    w2 = w2 * np.sinc(half_height * ((bin0 + 2) * hertz / math.pi))
                    w3 = w3 * np.sinc(half_height * ((bin0 + 3) * hertz / math.pi))
                re0, im0 = fma(re, w0, re0), fma(im, w0, im0)
                re, im = _advance(re, im, step_re, step_im)
                re1, im1 = fma(re, w1, re1), fma(im, w1, im1)
                re, im = _advance(re, im, step_re, step_im)
                re2, im2 = fma(re, w2, re2), fma(im, w2, im2)
                re, im = _advance(re, im, step_re, step_im)
                re3, im3 = fma(re, w3, re3), fma(im, w3, im3)
            else:
                re0, im0 = re0 + re, im0 + im
                re, im = _advance(re, im, step_re, step_im)
                re1, im1 = re1 + re, im1 + im
                re, im = _advance(re, im, step_re, step_im)
                re2, im2 = re2 + re, im2 + im
                re, im = _advance(re, im, step_re, step_im)
                re3, im3 = re3 + re, im3 + im
            re, im = _advance(re, im, step_re, step_im)
            _store_pair(waves, at, re, im)
            at += STATE
        _store_triple(field, _field_at(0, e, half, n_elements), WIDE, re0, im0)
        _store_triple(field, _field_at(1, e, half, n_elements), WIDE, re1, im1)
        _store_triple(field, _field_at(2, e, half, n_elements), WIDE, re2, im2)
        _store_triple(field, _field_at(3, e, half, n_elements), WIDE, re3, im3)


@compiled
def _apply_beam(elements, cell, tile, half, first, space):
    """Multiply G of a tile at the next frequencies by the beam in elevation."""
    hertz = cell.rate / cell.window_length
    wavenumber = 2 * math.pi * hertz / elements.speed_of_sound  # of one bin
    n_elements = len(elements.x)
    square_y = load(cell.points[3], tile * LANES) + cell.center[2] * cell.center[2]
    for e in range(n_elements):
        bins, lens_at = cell.segment[e], beam_place(tile, e, n_elements)
        within = first % bins
        if within == 0:
            begins = cell.first_bin + first if first > 0 else -1 - cell.first_bin
            renew_beam(elements, square_y, space.lens, lens_at, begins, bins, wavenumber)
        w_at = 6 * (bins // BATCH * (bins - BATCH) // 2 + within)  # weights of all shorter lengths come before
        re0, im0, re1, im1, re2, im2, re3, im3 = beam_batch(space.lens, lens_at, elements.beam_weights, w_at)
        _multiply(space.field, _field_at(0, e, half, n_elements), re0, im0)
        _multiply(space.field, _field_at(1, e, half, n_elements), re1, im1)
        _multiply(space.field, _field_at(2, e, half, n_elements), re2, im2)
        _multiply(space.field, _field_at(3, e, half, n_elements), re3, im3)


@compiled
def _multiply(field, at, re, im):
    """Multiply one vector of the field."""
    re, im = product(load(field, at), load(field, at + WIDE), re, im)
    _store_triple(field, at, WIDE, re, im)


@compiled
def _transmit(i, half, n_elements, n_transmits, lanes, space):
    """Pressure of a tile at frequency i of the batch, pressure[transmit][3] in the three sums of `complex_outer`."""
    space.pressure[: n_transmits * TRIPLE] = 0
    for a in range(0, n_transmits, ROWS):
        complex_outer(
            sums=space.pressure,
            at=a * TRIPLE,
            scalars=space.drive,
            s_at=_drive_at(i, 0, a, n_elements, lanes),
            s_part=lanes,
            s_row=1,
            s_step=3 * lanes,
            vectors=space.field,
            v_at=_field_at(i, 0, half, n_elements),
            v_part=WIDE,
            v_step=3 * WIDE,
            n=n_elements,
            rows=min(ROWS, n_transmits - a),
        )


@compiled
def _turn_pressure(n_full, n_transmits, reflectivity, half, space):
    """Pressure times reflectivity with lanes on transmits, source[group][scatterer][3]; left-over transmits stay."""
    for group in range(n_full):
        for lane in range(LANES):
            a = group * LANES + lane
            re, im = reflectivity * 0, reflectivity * 0
            if a < n_transmits:
                re, im = _complex(space.pressure, a * TRIPLE)
            _store_pair(space.rows, lane * PAIR, re * reflectivity, im * reflectivity)
        at = _source_at(group, half * LANES)
        transpose_block(space.rows, 0, PAIR, space.source, at, TRIPLE)
        transpose_block(space.rows, LANES, PAIR, space.source, at + LANES, TRIPLE)
        for s in range(LANES):
            to = _source_at(group, half * LANES + s)
            store(space.source, to + 2 * LANES, load(space.source, to) + load(space.source, to + LANES))
    for a in range(n_full * LANES, n_transmits):
        re, im = _complex(space.pressure, a * TRIPLE)
        _store_triple(space.pressure, a * TRIPLE, LANES, re * reflectivity, im * reflectivity)


@compiled
def _receive_group(i, n_elements, n_scatterers, group, at, space):
    """Echoes of a group of transmits from one or two tiles, added to sums[element][3] from `at` on."""
    for e in range(0, n_elements, ROWS):
        complex_outer(
            sums=space.sums,
            at=at + e * TRIPLE,
            scalars=space.field,
            s_at=_field_at(i, e, 0, n_elements),
            s_part=WIDE,
            s_row=3 * WIDE,
            s_step=1,
            vectors=space.source,
            v_at=_source_at(group, 0),
            v_part=LANES,
            v_step=TRIPLE,
            n=n_scatterers,
            rows=min(ROWS, n_elements - e),
        )


@compiled
def _receive_alone(i, half, n_elements, transmit, at, space):
    """Echo of one transmit with lanes on scatterers, added to sums[element][3] from `at` on."""
    at_pressure = transmit * TRIPLE
    re, im = load(space.pressure, at_pressure), load(space.pressure, at_pressure + LANES)
    both = load(space.pressure, at_pressure + 2 * LANES)
    for e in range(n_elements):
        of, to = _field_at(i, e, half, n_elements), at + e * TRIPLE
        store(space.sums, to, fma(load(space.field, of), re, load(space.sums, to)))
        store(space.sums, to + LANES, fma(load(space.field, of + WIDE), im, load(space.sums, to + LANES)))
        store(space.sums, to + 2 * LANES, fma(load(space.field, of + 2 * WIDE), both, load(space.sums, to + 2 * LANES)))


@compiled
def _finish_group(sums, at, elements, cell, j, out, out_at):
    """Spectrum at frequency j of one group of transmits: times S B² and the receive delay's fraction of a sample."""
    n_bins = len(cell.factor)
    for e in range(len(elements.x)):
        factor = _receive_factor(elements, cell, j, e)
        re, im = _complex(sums, at + e * TRIPLE)
        re, im = product(re, im, factor.real, factor.imag)
        _store_pair(out, out_at + (e * n_bins + j) * PAIR, re, im)


@compiled
def _finish_left(sums, at, n_left, elements, cell, j, out, out_at):
    """Return the same for transmits with lanes on scatterers: the sum over the lanes first."""
    n_elements, n_bins = len(elements.x), len(cell.factor)
    for e in range(n_elements):
        factor = _receive_factor(elements, cell, j, e)
        to = out_at + (e * n_bins + j) * PAIR
        out[to : to + PAIR] = 0
        for a in range(n_left):
            re, im = _complex(sums, at + (a * n_elements + e) * TRIPLE)
            re, im = product(re, im, factor.real, factor.imag)
            out[to + a] = total(re)
            out[to + LANES + a] = total(im)


@compiled
def _receive_factor(elements, cell, j, e):
    if elements.receive_fraction[e] == 0.0:
        return cell.factor[j]
    angle = 2 * math.pi * (cell.first_bin + j) * elements.receive_fraction[e] / cell.window_length
    return np.complex64(cell.factor[j] * complex(math.cos(angle), math.sin(angle)))


@compiled
def product(re, im, other_re, other_im):
    """Complex product."""
    return fma(re, other_re, -(im * other_im)), fma(re, other_im, im * other_re)


@compiled
def _advance(re, im, step_re, step_im):
    """Complex product with 1 + step.

    The 1 kept apart, float32 rounds the step itself and not its distance from 1: hundreds of products of one step would
    add its error up.
    """
    return fma(re, step_re, fma(-im, step_im, re)), fma(re, step_im, fma(im, step_re, im))


@compiled
def _complex(sums, at):
    """Real and imaginary part of a complex number from the three sums of `complex_outer`."""
    a, b = load(sums, at), load(sums, at + LANES)
    return a - b, load(sums, at + 2 * LANES) - a - b


@compiled
def load_pair(array, at):
    """Real and imaginary part of a complex vector in two parts."""
    return load(array, at), load(array, at + LANES)


@compiled
def _store_pair(array, at, re, im):
    store(array, at, re)
    store(array, at + LANES, im)


@compiled
def _store_triple(array, at, step, re, im):
    store(array, at, re)
    store(array, at + step, im)
    store(array, at + 2 * step, re + im)


# --- where things lie in the buffers; compiled into their callers ----------------------------------------------------


@compiled
def spectrum_at(group, e, n_elements, n_bins):
    """Place of out[group][element e][frequency 0][re]."""
    return (group * n_elements + e) * n_bins * PAIR


@compiled
def _drive_at(i, e, lane, n_elements, lanes):
    """Place of drive[frequency i][element e][re][lane]; parts are `lanes` apart."""
    return (i * n_elements + e) * 3 * lanes + lane


@compiled
def _field_at(i, e, half, n_elements):
    """Place of field[frequency i][element e][re][half]; parts are WIDE apart."""
    return (i * n_elements + e) * 3 * WIDE + half * LANES


@compiled
def _source_at(group, scatterer):
    """Place of source[group][scatterer][re]."""
    return (group * WIDE + scatterer) * TRIPLE


@compiled
def _sums_at_group(i, group, n_full, n_elements):
    """Place of sums[frequency i][group][element 0][0]."""
    return (i * n_full + group) * n_elements * TRIPLE


@compiled
def _sums_at_left(i, a, n_full, n_left, n_elements):
    """Place of sums[frequency i][left-over transmit a][element 0][0], behind those of all groups."""
    return (BATCH * n_full + i * n_left + a) * n_elements * TRIPLE
