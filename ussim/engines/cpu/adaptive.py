"""Adaptive beamforming on the CPU: channels delayed to a block of points, then combined, by loops that Numba compiles.

Unlike a sum, the combinations need all channels of a point at once: (points, elements, times of the axial kernel) complex64,
held for as many points as BLOCK_BYTES allow. Minimum variance solves one Hermitian system per point; its covariance is built
along diagonals, so that spatial smoothing costs no more than one subarray.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...beamforming.adaptive import (
    CoherenceFactor,
    DelayMultiplyAndSum,
    GeneralizedCoherenceFactor,
    MinimumVariance,
    ShortLagSpatialCoherence,
    kernel_times,
)
from ...plan import OUTSIDE, Beamforming
from . import beamform, kernels
from .kernels.layout import Arrivals, Points
from .threads import as_input, in_threads

BLOCK_BYTES = 48_000_000  # of delayed channels held at once
BLOCK_VALUES = 1_000_000  # transmit times held at once
NO_WEIGHTS = np.zeros((1, 1), np.float32)


def combine(samples: np.ndarray, b: Beamforming) -> np.ndarray:
    """Images (..., nz, nx) complex64, float32 of magnitudes and coherences.

    Parameters
    ----------
    samples : (..., n_transmits, n_elements, n_samples).
    """
    assert b.combination is not None
    n_transmits, n_elements, n_samples = samples.shape[-3:]
    pairs = np.ascontiguousarray(samples, dtype=np.complex64).view(np.float32)
    records = pairs.reshape(-1, n_transmits, n_elements, pairs.shape[-1])
    x, z = (axis.ravel() for axis in b.grid.mesh())
    front = np.flatnonzero(~b.acquisition.probe.is_behind(x, z))
    groups = [slice(None)] if b.compounding == "coherent" else [slice(a, a + 1) for a in range(n_transmits)]
    images = np.zeros((len(records), len(groups), x.size), np.complex64)
    times = np.array(kernel_times(b.combination, b.acquisition.carrier_frequency)) * b.sampling_frequency
    size = max(1, min(int(BLOCK_BYTES / (8 * n_elements * len(times))), BLOCK_VALUES // n_transmits))
    aperture, clock = beamform.aperture_of(b), beamform.clock_of(b)
    weights = None if b.weights is None else b.weights.reshape(n_transmits, -1)
    done, total = 0, len(records) * len(groups) * len(front)
    for first in range(0, len(front), size):
        part = front[first : first + size]
        points = Points(as_input(x[part]), as_input(z[part]))
        positions = b.transmit_samples(x[part], z[part], n_samples, beamform.arrival_bounds)
        for record, image in zip(records, images, strict=True):
            for group, values in zip(groups, image, strict=True):
                arrivals = Arrivals(
                    as_input(positions[group]),
                    as_input(b.transmit_phases[group]),
                    as_input(NO_WEIGHTS if weights is None else weights[group, part]),
                    weights is not None,
                    OUTSIDE - 1,
                )
                receiving = np.ascontiguousarray(b.acquisition.receiving[group])
                heard = aperture._replace(receiving=receiving)
                channels = np.empty((len(part), n_elements, len(times)), np.complex64)
                counts = np.empty((len(part), n_elements), np.float32)
                arguments = (as_input(record[group]), points, arrivals, heard, clock, as_input(times))
                in_threads(kernels.align, (*arguments, channels, counts))
                out = np.zeros(len(part), np.complex64)
                _combine(b, channels, counts, out, done, total)
                values[part] = out
                done += len(part)
    return _compounded(images, b).reshape(*samples.shape[:-3], *b.image_shape)


def _compounded(images: np.ndarray, b: Beamforming) -> np.ndarray:
    """Images of the records from those of their groups of transmits (n_records, n_groups, n_points)."""
    if b.compounding == "incoherent":
        magnitude: np.ndarray = np.sqrt((np.abs(images) ** 2).sum(axis=1))
        return magnitude
    return images if b.has_phase else images.real.copy()


def _combine(b: Beamforming, channels: np.ndarray, counts: np.ndarray, out: np.ndarray, done: int, total: int) -> None:
    """Fill the points of one block from their channels."""
    n_elements = counts.shape[1]
    scales = np.ones(len(out))
    if b.normalize:
        weight = counts @ b.live
        scales = 1 / np.where(weight > 0, weight, 1)
    kernel: Callable[..., None]
    parameters: tuple[Any, ...]
    match b.combination:
        case CoherenceFactor(exponent):
            kernel, parameters = kernels.weigh_by_coherence, (scales, 0, float(exponent))
        case GeneralizedCoherenceFactor(order):
            kernel, parameters = kernels.weigh_by_coherence, (scales, int(order), 1.0)
        case DelayMultiplyAndSum():
            kernel, parameters = kernels.multiply_pairs, (scales,)
        case MinimumVariance() as method:
            lengths = np.array([method.length(n) for n in range(n_elements + 1)])
            kernel, parameters = kernels.minimize_variance, (lengths, float(method.loading), not b.normalize)
        case ShortLagSpatialCoherence() as method:
            kernel, parameters = (
                kernels.correlate_short_lags,
                (np.array([method.most(n) for n in range(n_elements + 1)]),),
            )
        case _:
            raise AssertionError(f"no such combination: {b.combination}")
    in_threads(kernel, (channels, counts, *parameters, out), b.progress, done, total)
