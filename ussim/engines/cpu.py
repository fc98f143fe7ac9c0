"""The fast engine."""

from __future__ import annotations

import numpy as np
from scipy.fft import irfft

from .. import physics
from ..cells import Cells, make_cells
from ..plan import Plan
from ..types import ImageGrid, Scatterers
from .reference import pressure_field  # noqa: F401


def simulate(
    scatterers: Scatterers, plan: Plan, n_samples: int, start_sample: int = 0, max_memory: float | None = None
) -> np.ndarray:
    """Echoes (n_transmits, n_elements, n_samples) float32."""
    acquisition = plan.acquisition
    record = np.zeros((acquisition.n_transmits, acquisition.probe.n_elements, n_samples), dtype=np.float32)
    if len(scatterers) == 0:
        return record
    cells = make_cells(scatterers.x, scatterers.z, plan)
    rate = acquisition.sampling_frequency
    receive_samples = np.rint(plan.receive_delays * rate).astype(np.int64)
    fraction = plan.receive_delays - receive_samples / rate
    for i in range(len(cells)):
        part = cells.order[cells.first[i] : cells.first[i + 1]]
        spectrum, frequency = _cell_spectrum(
            cells, i, plan, scatterers.x[part], scatterers.z[part], scatterers.reflectivity[part]
        )
        n = int(cells.window_length[i])
        full = np.zeros((*record.shape[:2], n // 2 + 1), dtype=np.complex64)
        full[:, :, cells.first_bin[i] : cells.first_bin[i] + cells.n_bins[i]] = np.moveaxis(spectrum, 0, -1) * (
            acquisition.probe.element_width
            * rate
            * plan.excitation(frequency)
            * plan.response(frequency)
            * np.exp(2j * np.pi * frequency * fraction[:, None])
        ).astype(np.complex64)
        echo = np.roll(irfft(np.conj(full), n), -int(cells.window_start[i]), axis=-1)
        offset = (
            cells.transmit_reference[i][:, None]
            + cells.element_reference[i]
            + receive_samples
            + cells.window_start[i]
            - start_sample
        )
        for a in range(record.shape[0]):
            for e in range(record.shape[1]):
                at = int(offset[a, e])
                low, high = max(at, 0), min(at + n, n_samples)
                if low < high:
                    record[a, e, low:high] += echo[a, e, low - at : high - at]
    return record


def _cell_spectrum(cells: Cells, i: int, plan: Plan, x, z, reflectivity):
    medium, rate = plan.acquisition.medium, plan.acquisition.sampling_frequency
    n_sub = plan.sub_x.shape[1]
    frequency = (cells.first_bin[i] + np.arange(cells.n_bins[i])) * rate / cells.window_length[i]
    dx = x[:, None, None] - plan.sub_x
    dz = z[:, None, None] - plan.sub_z
    sine, cosine = physics.incidence(dx, dz, plan.sin_element[:, None], plan.cos_element[:, None])
    distance = np.maximum(np.hypot(dx, dz), plan.minimum_distance)
    amplitude = physics.obliquity(cosine, plan.baffle) / np.sqrt(distance) / n_sub
    full = plan.acquisition.full_frequency_directivity
    if not full:
        amplitude = amplitude * physics.directivity(sine, plan.half_width_wavenumber)
    relative = distance - cells.element_reference[i][:, None] / rate * medium.speed_of_sound

    def propagation(f):
        phase = physics.wavenumber(f, medium.speed_of_sound) * relative
        return np.exp(1j * phase - physics.attenuation(f, medium.attenuation_db_cm_mhz) * distance)

    step = propagation(rate / cells.window_length[i]).astype(np.complex64)
    state = (amplitude * propagation(frequency[0])).astype(np.complex64)
    arrival = plan.delays + (cells.element_reference[i] - cells.transmit_reference[i][:, None, None]) / rate
    out = np.empty((len(frequency), arrival.shape[0], arrival.shape[2]), np.complex64)
    for j, f in enumerate(frequency):
        g = state
        if full:
            g = state * physics.directivity(sine, physics.wavenumber(f, medium.speed_of_sound) * plan.sub_width / 2)
        g = g.sum(axis=-1).astype(np.complex64)
        drive = (plan.weights * np.exp(2j * np.pi * f * arrival)).sum(axis=1).astype(np.complex64)
        out[j] = ((drive @ g.T) * reflectivity.astype(np.float32)) @ g
        state = state * step
    return out, frequency
