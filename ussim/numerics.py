"""Textbook computations that each simulation needs, in NumPy: to import SciPy for them takes half a second of every process.

SciPy stays where it is asked for more, and is what the tests compare these with. Their operations are elementwise, but for
one system of five equations: no result depends on how a library of linear algebra was built.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def fast_length(n: int) -> int:
    """Return the least m >= n without a prime factor above 5: a length that a real Fourier transform is fast at."""
    best = 1 << max(n - 1, 0).bit_length()
    fives = 1
    while fives < best:
        odd = fives
        while odd < best:
            best = min(best, odd << max(-(-n // odd) - 1, 0).bit_length())
            odd *= 3
        fives *= 5
    return best


def butterworth(order: int, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Return numerator and denominator of a digital low-pass filter.

    The poles of the analog prototype lie evenly on the left half of a circle; the bilinear transform takes them into the
    unit circle, and the zeros at infinity to -1.

    Parameters
    ----------
    cutoff : -3 dB, a fraction of half the sampling frequency.
    """
    m = np.arange(1 - order, order, 2, dtype=np.float64)
    radius = 4 * np.tan(np.pi * cutoff / 2)
    poles = radius * -np.exp(1j * np.pi * m / (2 * order))
    gain = radius**order * np.real(1 / np.prod(4 - poles))
    return gain * np.poly(-np.ones(order)), np.real(np.poly((4 + poles) / (4 - poles)))


def steady_state(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the state (direct form II transposed) in which a filter answers a constant 1 with a constant from the start."""
    order = len(denominator) - 1
    step = np.eye(order, k=1)  # the state of the next sample from that of this one
    step[:, 0] = -denominator[1:]
    return np.linalg.solve(np.eye(order) - step, numerator[1:] - denominator[1:] * numerator[0])


def bracketed_root(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function of one change of sign in [low, high] is zero, to the last bit."""
    is_negative = function(low) < 0
    while True:
        middle = (low + high) / 2
        if not low < middle < high:
            return middle
        if (function(middle) < 0) == is_negative:
            low = middle
        else:
            high = middle


def spline(rows: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Interpolate rows (n_rows, n >= 2) of values at 0, 1, ..., n - 1 at positions in [0, n - 1].

    Cubic, without a knot at the second value and at the last but one; the polynomial through them where there are less than
    four.
    """
    n = rows.shape[1]
    bend = _second_derivatives(rows)
    left = np.minimum(at.astype(np.intp), n - 2)
    b = at - left
    a = 1 - b
    line = a * rows[:, left] + b * rows[:, left + 1]
    value: np.ndarray = line + ((a**3 - a) * bend[:, left] + (b**3 - b) * bend[:, left + 1]) / 6
    return value


def _second_derivatives(rows: np.ndarray) -> np.ndarray:
    """Return those of the cubic spline at the knots.

    1, 4, 1 times those of three neighbors is six times their second difference. Without a knot at 1 the ends lie on the line
    through the next two, so that there the second derivative is the second difference itself.
    """
    n = rows.shape[1]
    bend = np.zeros_like(rows)
    if n == 2:
        return bend
    difference = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    bend[:, 1], bend[:, -2] = difference[:, 0], difference[:, -1]
    if n == 3:
        bend[:] = difference
        return bend
    right, pivot = 6 * difference[:, 1:-1], np.full(n - 4, 4.0)  # the unknowns 2 ... n - 3, by elimination and back
    if n > 4:
        right[:, 0] -= bend[:, 1]
        right[:, -1] -= bend[:, -2]
        for i in range(1, n - 4):
            pivot[i] -= 1 / pivot[i - 1]
            right[:, i] -= right[:, i - 1] / pivot[i - 1]
        bend[:, n - 3] = right[:, -1] / pivot[-1]
        for i in range(n - 6, -1, -1):
            bend[:, i + 2] = (right[:, i] - bend[:, i + 3]) / pivot[i]
    bend[:, 0] = 2 * bend[:, 1] - bend[:, 2]
    bend[:, -1] = 2 * bend[:, -2] - bend[:, -3]
    return bend


def bilinear(image: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return values of an image (n_rows, n_columns) at fractional rows and columns, which are held to it."""
    places = []
    for position, n in ((row, image.shape[0]), (column, image.shape[1])):
        position = np.clip(position, 0, n - 1)
        low = np.minimum(np.floor(position).astype(np.intp), max(n - 2, 0))
        share = position - low
        places.append(((low, 1 - share), (np.minimum(low + 1, n - 1), share)))
    value: np.ndarray = np.zeros(np.shape(row))
    for r, row_share in places[0]:
        for c, column_share in places[1]:
            value = value + image[r, c] * row_share * column_share
    return value
