"""Delay-and-sum, literally: float64 NumPy, element by element. The oracle of the other engines."""

from __future__ import annotations

import numpy as np

from ..plan import Beamforming


def delay_and_sum(samples: np.ndarray, beamforming: Beamforming) -> np.ndarray:
    """Images (..., nz, nx), complex128 or float64 as the samples (..., n_transmits, n_elements, n_samples) are."""
    records = samples.reshape(-1, *samples.shape[-3:])
    images = np.stack([_image(record, beamforming, i, len(records)) for i, record in enumerate(records)])
    return images.reshape(*samples.shape[:-3], *beamforming.image_shape)


def arrival_bounds(
    x: np.ndarray,
    z: np.ndarray,
    source_x: np.ndarray,
    source_z: np.ndarray,
    delays: np.ndarray,
    speed_of_sound: float,
    with_last: bool = True,
) -> tuple[np.ndarray, np.ndarray | None]:
    """First and last arrival of each law at points (see `Engine.arrival_bounds`)."""
    way = np.hypot(x[:, None] - source_x, z[:, None] - source_z) / speed_of_sound
    first = np.array([(way + law).min(axis=1) for law in delays])
    return first, np.array([(way + law).max(axis=1) for law in delays]) if with_last else None


def _image(samples: np.ndarray, b: Beamforming, number: int, n_records: int) -> np.ndarray:
    """Return the image of one record, the `number`-th of `n_records`: Σ_transmits w Σ_elements (Perrot et al.

    2021), or what `b.compounding` asks for.
    """
    probe = b.acquisition.probe
    n_transmits, n_elements, n_samples = samples.shape
    x, z = b.grid.mesh()
    transmit_positions = b.transmit_samples(x, z, n_samples, arrival_bounds)
    images = np.zeros((n_transmits, *b.grid.shape), dtype=np.complex128 if np.iscomplexobj(samples) else np.float64)
    n_active = np.zeros(b.grid.shape)
    for e in range(n_elements):
        dx, dz = x - probe.element_x[e], z - probe.element_z[e]
        distance = np.hypot(dx, dz)
        weight = b.element_weights(e, dx, dz)
        n_active += weight * b.live[e]
        receive_position = (distance / b.speed_of_sound + b.receive_delays[e]) * b.sampling_frequency
        for a in np.flatnonzero(b.acquisition.receiving[:, e]):
            index = transmit_positions[a] + receive_position
            whole = np.floor(index).astype(np.int64)
            weights = b.interpolation.weights(index - whole)
            value = np.zeros(b.grid.shape, dtype=images.dtype)
            for k in range(b.interpolation.n_taps):
                tap = whole + b.interpolation.first_tap + k
                recorded = (tap >= 0) & (tap < n_samples)
                value += weights[..., k] * np.where(recorded, samples[a, e, np.clip(tap, 0, n_samples - 1)], 0)
            if b.demodulation_frequency:
                cycles = index * (b.demodulation_frequency / b.sampling_frequency) + b.transmit_phases[a]
                value = value * np.exp(2j * np.pi * cycles)
            images[a] += np.where(weight != 0, weight * value, 0)
        if b.progress is not None:
            b.progress(number * n_elements + e + 1, n_records * n_elements)
    if b.weights is not None:
        images *= b.weights
    if b.normalize:
        images /= np.where(n_active > 0, n_active, 1)
    images[:, probe.is_behind(x, z)] = 0
    if b.compounding == "none":
        return images
    compounded: np.ndarray = (
        images.sum(axis=0) if b.compounding == "coherent" else np.sqrt((np.abs(images) ** 2).sum(axis=0))
    )
    return compounded
