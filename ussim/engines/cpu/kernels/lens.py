"""The beam in elevation for one tile and element: `physics.elevation_beam`, sixteen scatterers at once.

It is evaluated, with its slope, at both ends and in the middle of a segment of frequencies; between those it is a
polynomial (`ussim.elevation`). The way that the elevation adds to the distance is the caller's.
"""

from __future__ import annotations

import math

from .... import physics
from .layout import BEAM, LANES, NODE
from .simd import compiled, cosine_sine, exp, fma, inverse_root, load, store

_A, _B = physics.BEAM_AMPLITUDES, physics.BEAM_DECAYS
ROOT_PI = math.sqrt(math.pi)


@compiled
def start_beam(lens, at, distance):
    """Keep what a segment begins with: the inverse of the distance to the element, averaged over its sub-elements."""
    store(lens, at, 1.0 / distance)


@compiled
def renew_beam(elements, square_y, lens, at, first_bin, bins, wavenumber):
    """Evaluate the beam for the segment of `bins` frequencies from `first_bin` on; `wavenumber` is that of one bin.

    The end of the segment before is the beginning of this one, but for the first one (`first_bin` negative: -1 - bin).
    """
    inverse = load(lens, at)
    length = bins * wavenumber
    if first_bin < 0:
        first_bin = -1 - first_bin
        _evaluate(elements, square_y, inverse, first_bin * wavenumber, length, lens, at + LANES)
    else:
        for part in range(NODE // LANES):
            store(lens, at + LANES + part * LANES, load(lens, at + LANES + 2 * NODE + part * LANES))
    start = first_bin * wavenumber
    _evaluate(elements, square_y, inverse, start + length / 2, length, lens, at + LANES + NODE)
    _evaluate(elements, square_y, inverse, start + length, length, lens, at + LANES + 2 * NODE)


@compiled(inline="always")
def beam_batch(lens, at, weights, w_at):
    """Real and imaginary part of the beam at four frequencies of the segment: what is known of it is loaded once."""
    re, im = load(lens, at + LANES), load(lens, at + 2 * LANES)
    re0, im0, re1, im1 = re * weights[w_at], im * weights[w_at], re * weights[w_at + 6], im * weights[w_at + 6]
    re2, im2, re3, im3 = (
        re * weights[w_at + 12],
        im * weights[w_at + 12],
        re * weights[w_at + 18],
        im * weights[w_at + 18],
    )
    for known in range(1, 6):
        of, w = at + LANES + known * 2 * LANES, w_at + known
        re, im = load(lens, of), load(lens, of + LANES)
        re0, im0 = fma(re, weights[w], re0), fma(im, weights[w], im0)
        re1, im1 = fma(re, weights[w + 6], re1), fma(im, weights[w + 6], im1)
        re2, im2 = fma(re, weights[w + 12], re2), fma(im, weights[w + 12], im2)
        re3, im3 = fma(re, weights[w + 18], re3), fma(im, weights[w + 18], im3)
    return re0, im0, re1, im1, re2, im2, re3, im3


@compiled
def _evaluate(elements, square_y, inverse, wavenumber, length, lens, to):
    """Beam and its slope per `length` (rad/m) at one wavenumber: [re, im, slope re, slope im]."""
    height = elements.lens_height
    bend = (elements.lens_vergence - inverse) * (height * height / 2)
    angle, path = bend * wavenumber, inverse * (height / 2 * wavenumber)
    square = square_y * path * path
    twice = square * (2 / wavenumber)
    re0, im0, slope_re0, slope_im0 = _term(_A[0].real, _A[0].imag, _B[0].real, _B[0].imag, angle, bend, square, twice)
    re1, im1, slope_re1, slope_im1 = _term(_A[1].real, _A[1].imag, _B[1].real, _B[1].imag, angle, bend, square, twice)
    re2, im2, slope_re2, slope_im2 = _term(_A[2].real, _A[2].imag, _B[2].real, _B[2].imag, angle, bend, square, twice)
    re3, im3, slope_re3, slope_im3 = _term(_A[3].real, _A[3].imag, _B[3].real, _B[3].imag, angle, bend, square, twice)
    scale = height * ROOT_PI
    store(lens, to, ((re0 + re2) + (re1 + re3)) * scale)
    store(lens, to + LANES, ((im0 + im2) + (im1 + im3)) * scale)
    store(lens, to + 2 * LANES, ((slope_re0 + slope_re2) + (slope_re1 + slope_re3)) * (scale * length))
    store(lens, to + 3 * LANES, ((slope_im0 + slope_im2) + (slope_im1 + slope_im3)) * (scale * length))


@compiled
def _term(a_re, a_im, b_re, b_im, angle, bend, square, twice):
    """Evaluate one Gaussian, A sqrt(q) exp(-V² q) with q = 1 / (B + iW), and its derivative by the wavenumber.

    W goes with the wavenumber, V² with its square.
    """
    turned = angle + b_im
    square_length = fma(turned, turned, b_re * b_re)  # of B + iW, whose real part is positive
    inverse_length = inverse_root(square_length)
    size = inverse_length * inverse_length
    q_re, q_im = size * b_re, -(size * turned)
    half = fma(square_length, inverse_length, b_re) * 0.5
    over = inverse_root(half) * inverse_length  # sqrt(B - iW) / |B + iW|
    root_re, root_im = half * over, turned * over * -0.5
    v_re, v_im = square * q_re, square * q_im
    damped = exp(-v_re)
    cosine, sine = cosine_sine(v_im * (0.5 / math.pi))
    value_re, value_im = fma(root_re, cosine, root_im * sine), fma(root_im, cosine, -(root_re * sine))
    re, im = damped * fma(value_re, a_re, value_im * -a_im), damped * fma(value_re, a_im, value_im * a_re)
    inner_re, inner_im = -fma(bend, v_im, twice), bend * (v_re - 0.5)
    rate_re, rate_im = fma(q_re, inner_re, -(q_im * inner_im)), fma(q_re, inner_im, q_im * inner_re)
    return re, im, fma(re, rate_re, -(im * rate_im)), fma(re, rate_im, im * rate_re)


@compiled
def beam_place(tile, e, n_elements):
    """Place of lens[tile][element e]."""
    return (tile * n_elements + e) * BEAM
