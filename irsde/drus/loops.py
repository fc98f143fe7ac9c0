"""Loops of the echo model over pixels and elements, compiled by Numba and shared out among threads.

Python's threads rather than Numba's parallel loops, whose compilation takes three times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ussim.compiling import njit
from ussim.engines.cpu.threads import finish, n_threads, workers


def scatter(positions: np.ndarray, weights: np.ndarray, values: np.ndarray, n_fine: int) -> np.ndarray:
    """Impulses (n_elements, n_fine): each value at its position on every element, shared by the two nearest samples."""
    out = np.zeros((positions.shape[1], n_fine))
    _shared_out(_scatter, (positions, weights, values, out), len(out))
    return out


def gather(positions: np.ndarray, weights: np.ndarray, signals: np.ndarray) -> np.ndarray:
    """(n_pixels,) weighted sum over elements of the signals at each pixel's positions: the transpose of `scatter`."""
    out = np.zeros(len(positions))
    _shared_out(_gather, (positions, weights, signals, out), len(out))
    return out


def entries(model: tuple[Any, ...], rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Entries of BH (len(rows), len(columns)) float32.

    Parameters
    ----------
    model : arrival, gain, apodization (n_pixels, n_elements); first and last element of each pixel (n_pixels,); table of
        the autocorrelation, and its step in seconds.
    """
    out = np.empty((len(rows), len(columns)), np.float32)
    _shared_out(_entries, (*model, rows, columns, out), len(rows))
    return out


def banded(model: tuple[Any, ...], nz: int, nx: int, half_z: int, half_x: int) -> np.ndarray:
    """BH (nz, 2 half_z + 1, nx, 2 half_x + 1) float32 near its diagonal; `model` as in `entries`."""
    out = np.zeros((nz, 2 * half_z + 1, nx, 2 * half_x + 1), np.float32)
    _shared_out(_banded, (*model, nz, nx, half_z, half_x, out), nz)
    return out


def _shared_out(kernel: Callable[..., None], arguments: tuple[Any, ...], n: int) -> None:
    """Run kernel(*arguments, begin, end) over parts of range(n), some for each thread."""
    n_workers = n_threads()
    if n_workers == 1:
        kernel(*arguments, 0, n)
        return
    size = max(1, -(-n // (4 * n_workers)))
    with workers(n_workers) as pool:
        finish([pool.submit(kernel, *arguments, first, min(first + size, n)) for first in range(0, n, size)])


@njit(cache=True, nogil=True)
def _scatter(
    positions: np.ndarray, weights: np.ndarray, values: np.ndarray, out: np.ndarray, begin: int, end: int
) -> None:
    for e in range(begin, end):
        for j in range(len(values)):
            position = positions[j, e]
            if position >= 0 and values[j] != 0:
                sample = int(position)
                fraction = position - sample
                value = values[j] * weights[j, e]
                out[e, sample] += (1 - fraction) * value
                out[e, sample + 1] += fraction * value


@njit(cache=True, nogil=True)
def _gather(
    positions: np.ndarray, weights: np.ndarray, signals: np.ndarray, out: np.ndarray, begin: int, end: int
) -> None:
    for j in range(begin, end):
        total = 0.0
        for e in range(positions.shape[1]):
            position = positions[j, e]
            if position >= 0 and weights[j, e] != 0:
                sample = int(position)
                fraction = position - sample
                total += weights[j, e] * ((1 - fraction) * signals[e, sample] + fraction * signals[e, sample + 1])
        out[j] = total


@njit(fastmath=True)
def _entry(
    arrival: np.ndarray,
    gain: np.ndarray,
    apodization: np.ndarray,
    first: int,
    last: int,
    table: np.ndarray,
    step: float,
    i: int,
    j: int,
) -> float:
    """(BH)_ij = Σ_e a_e(i) g_e(j) R(τ_e(i) - τ_e(j))."""
    total = 0.0
    end = len(table) - 1
    for e in range(first, last):
        lag = abs(arrival[i, e] - arrival[j, e]) / step
        if lag < end:
            k = int(lag)
            fraction = lag - k
            total += apodization[i, e] * gain[j, e] * (table[k] + fraction * (table[k + 1] - table[k]))
    return total


@njit(cache=True, nogil=True, fastmath=True)
def _entries(
    arrival: np.ndarray,
    gain: np.ndarray,
    apodization: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    table: np.ndarray,
    step: float,
    rows: np.ndarray,
    columns: np.ndarray,
    out: np.ndarray,
    begin: int,
    end: int,
) -> None:
    for r in range(begin, end):
        i = rows[r]
        for c in range(len(columns)):
            out[r, c] = _entry(arrival, gain, apodization, first[i], last[i], table, step, i, columns[c])


@njit(cache=True, nogil=True, fastmath=True)
def _banded(
    arrival: np.ndarray,
    gain: np.ndarray,
    apodization: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    table: np.ndarray,
    step: float,
    nz: int,
    nx: int,
    half_z: int,
    half_x: int,
    out: np.ndarray,
    begin: int,
    end: int,
) -> None:
    for z in range(begin, end):
        for x in range(nx):
            i = z * nx + x
            for dz in range(max(-half_z, -z), min(half_z, nz - 1 - z) + 1):
                for dx in range(max(-half_x, -x), min(half_x, nx - 1 - x) + 1):
                    j = i + dz * nx + dx
                    out[z, dz + half_z, x, dx + half_x] = _entry(
                        arrival, gain, apodization, first[i], last[i], table, step, i, j
                    )
