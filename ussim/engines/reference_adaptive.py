"""Adaptive beamforming, literally: float64 NumPy, pixel by pixel, as the papers named in `beamforming.adaptive` write it."""

from __future__ import annotations

import math

import numpy as np

from ..beamforming.adaptive import (
    CoherenceFactor,
    DelayMultiplyAndSum,
    GeneralizedCoherenceFactor,
    MinimumVariance,
    ShortLagSpatialCoherence,
    kernel_times,
)
from ..plan import OUTSIDE, Beamforming
from .reference_beamform import arrival_bounds


def combine(samples: np.ndarray, b: Beamforming) -> np.ndarray:
    """Images (..., nz, nx), complex128 or float64, of samples (..., n_transmits, n_elements, n_samples)."""
    records = samples.reshape(-1, *samples.shape[-3:])
    images = [_image(record, b) for record in records]
    return np.stack(images).reshape(*samples.shape[:-3], *b.image_shape)


def _image(samples: np.ndarray, b: Beamforming) -> np.ndarray:
    """Return the image of one record: of all transmits' channels together, or of each transmit's (see `b.compounding`)."""
    transmits = np.arange(len(samples))
    groups = [transmits] if b.compounding == "coherent" else [transmits[a : a + 1] for a in transmits]
    x, z = b.grid.mesh()
    front = ~b.acquisition.probe.is_behind(x, z)
    images = np.zeros((len(groups), *b.grid.shape), dtype=np.complex128)
    for i, group in enumerate(groups):
        channels, weights = _channels(samples, b, group)
        for pixel in zip(*np.nonzero(front), strict=True):
            images[(i, *pixel)] = _pixel(channels[pixel], weights[pixel], b)
        if b.progress is not None:
            b.progress(i + 1, len(groups))
    compounded = np.sqrt((np.abs(images) ** 2).sum(axis=0)) if b.compounding == "incoherent" else images
    compounded = compounded[0] if b.compounding == "coherent" else compounded
    return compounded if b.has_phase else compounded.real


def _channels(samples: np.ndarray, b: Beamforming, transmits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return channels (*grid, n_elements, n_times) delayed, summed over transmits; weights (*grid, n_elements), 0 outside.

    The times of an axial kernel have the phase of the pixel's own: it is common to all elements.
    """
    probe, rate = b.acquisition.probe, b.sampling_frequency
    n_samples = samples.shape[-1]
    x, z = b.grid.mesh()
    assert b.combination is not None
    times = kernel_times(b.combination, b.acquisition.carrier_frequency)
    transmit_positions = b.transmit_samples(x, z, n_samples, arrival_bounds)
    channels = np.zeros((*b.grid.shape, probe.n_elements, len(times)), dtype=np.complex128)
    weights = np.zeros((*b.grid.shape, probe.n_elements))
    for e in range(probe.n_elements):
        dx, dz = x - probe.element_x[e], z - probe.element_z[e]
        hears = transmits[b.acquisition.receiving[transmits, e]]
        weights[..., e] = b.element_weights(e, dx, dz) * bool(hears.size)
        way = (np.hypot(dx, dz) / b.speed_of_sound + b.receive_delays[e]) * rate
        for a in hears:
            index = transmit_positions[a] + way
            cycles = index * (b.demodulation_frequency / rate) + b.transmit_phases[a]
            turn = np.exp(2j * np.pi * cycles) * (1 if b.weights is None else b.weights[a])
            heard = (index > 1 - OUTSIDE) & (index < n_samples + OUTSIDE - 1)  # beyond: waves that never come
            for t, time in enumerate(times):
                value = _interpolated(samples[a, e], index + time * rate, b)
                channels[..., e, t] += np.where(heard, turn * value, 0)
    return channels, weights


def _interpolated(record: np.ndarray, index: np.ndarray, b: Beamforming) -> np.ndarray:
    """Return the record at positions in samples, shifted for the interpolation; 0 outside."""
    whole = np.floor(index).astype(np.int64)
    weights = b.interpolation.weights(index - whole)
    value = np.zeros(index.shape, dtype=np.complex128)
    for k in range(b.interpolation.n_taps):
        tap = whole + b.interpolation.first_tap + k
        inside = (tap >= 0) & (tap < len(record))
        value += weights[..., k] * np.where(inside, record[np.clip(tap, 0, len(record) - 1)], 0)
    return value


def _pixel(channels: np.ndarray, weights: np.ndarray, b: Beamforming) -> complex:
    """Return a pixel from its channels (n_elements, n_times) and their weights, of those that have one."""
    active = weights > 0
    channels, weights = channels[active], weights[active]
    if not len(channels):
        return 0.0
    middle = channels[:, channels.shape[1] // 2]
    scale = 1 / (weights * b.live[active]).sum() if b.normalize else 1.0
    match b.combination:
        case CoherenceFactor(exponent):
            return complex((weights @ middle) * coherence(middle, 0) ** exponent * scale)
        case GeneralizedCoherenceFactor(order):
            return complex((weights @ middle) * coherence(middle, order) * scale)
        case DelayMultiplyAndSum():
            return products(weights * middle) * scale
        case MinimumVariance():
            return minimum_variance(channels, b.combination) * (1.0 if b.normalize else len(channels))
        case ShortLagSpatialCoherence():
            return short_lag_coherence(channels, b.combination)
    raise AssertionError(f"no such combination: {b.combination}")


def coherence(channels: np.ndarray, order: int) -> float:
    """Return the share of the energy of channels (n,) at spatial frequencies up to `order` (Li & Li 2003)."""
    n = len(channels)
    energy = float((np.abs(channels) ** 2).sum())
    spectrum = np.abs(np.fft.fft(channels)) ** 2
    low = np.minimum(np.arange(n), n - np.arange(n)) <= order
    return float(spectrum[low].sum() / (n * energy)) if energy > 0 else 0.0


def products(channels: np.ndarray) -> complex:
    """Return the sum over pairs of the products of channels (n,), of their own dimension, times 2 / (n - 1)."""
    magnitude = np.abs(channels)
    roots = np.where(magnitude > 0, channels / np.sqrt(np.where(magnitude > 0, magnitude, 1)), 0)
    pairs = np.outer(roots, roots)[np.triu_indices(len(channels), 1)]
    return complex(pairs.sum() * 2 / max(len(channels) - 1, 1))


def minimum_variance(channels: np.ndarray, method: MinimumVariance) -> complex:
    """Return the mean of wᴴs over the subarrays of channels (n, n_times), w their Capon weights."""
    n, n_times = channels.shape
    length = method.length(n)
    middle = channels[:, n_times // 2]
    parts = np.lib.stride_tricks.sliding_window_view(channels, length, axis=0)  # (n_subarrays, n_times, length)
    covariance = np.einsum("lti,ltj->ij", parts, parts.conj()) / (len(parts) * n_times)
    power = np.trace(covariance).real / length
    if power == 0:
        return 0.0
    steering = np.ones(length)
    loaded = covariance + method.loading * power * np.eye(length) if math.isfinite(method.loading) else np.eye(length)
    found = np.linalg.solve(loaded, steering)
    weights = found / (steering @ found)
    return complex(weights.conj() @ np.lib.stride_tricks.sliding_window_view(middle, length).mean(axis=0))


def short_lag_coherence(channels: np.ndarray, method: ShortLagSpatialCoherence) -> float:
    """Return the mean over lags of the mean correlation of channels (n, n_times) so far apart."""
    most = method.most(len(channels))
    energy = (np.abs(channels) ** 2).sum(axis=1)
    total = 0.0
    for lag in range(1, most + 1):
        products = (channels[:-lag] * channels[lag:].conj()).sum(axis=1).real
        scale = np.sqrt(energy[:-lag] * energy[lag:])
        total += float(np.where(scale > 0, products / np.where(scale > 0, scale, 1), 0).mean())
    return total / most if most else 0.0
