"""The oracle: the model of `physics` evaluated literally, in float64, frequency by frequency. No windows, no recurrence.

Slow on purpose; every other engine is compared with it.
"""

from __future__ import annotations

import math

import numpy as np

from .. import physics
from ..numerics import fast_length
from ..plan import Beamforming, FilterLaw, Plan, Progress
from ..types import ImageGrid, Scatterers
from . import reference_adaptive, reference_beamform
from .protocol import Engine


class ReferenceEngine(Engine):
    """The oracle of the other engines."""

    name = "reference"
    precision = np.float64

    def simulate(
        self,
        scatterers: Scatterers,
        plan: Plan,
        n_samples: int,
        start_sample: int = 0,
        max_memory: float | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Echoes (n_transmits, n_elements, n_samples) float64: R = B Σ_s ρ_s P_s G_s (Garcia 2022).

        The period of the transform outlasts every echo, so nothing wraps around.
        """
        acquisition = plan.acquisition
        n_transmits, n_elements = acquisition.n_transmits, acquisition.probe.n_elements
        if len(scatterers) == 0:
            return np.zeros((n_transmits, n_elements, n_samples))
        n_fft, frequency, bins = _frequency_bins(plan, scatterers, start_sample + n_samples)
        spectrum = np.zeros((n_transmits, n_elements, len(frequency)), dtype=np.complex128)
        block = _block_size(plan, max_memory)
        total = math.ceil(len(scatterers) / block) * len(bins)
        for first in range(0, len(scatterers), block):
            part = slice(first, first + block)
            geometry = Geometry(plan, scatterers.x[part], scatterers.z[part], _part(scatterers.y, part))
            for k, i in enumerate(bins, first // block * len(bins) + 1):
                response = geometry.response(frequency[i])
                pressure = transmitted_pressure(plan, response, frequency[i]) * scatterers.reflectivity[part]
                spectrum[:, :, i] += pressure @ response
                if progress is not None:
                    progress(k, total)
        spectrum *= plan.response(frequency) * np.exp(2j * np.pi * frequency * plan.receive_delays[:, None])
        # Integral over frequency, Σ df = f_s irfft: independent of the record length.
        scale = plan.width * acquisition.sampling_frequency
        rf = scale * np.fft.irfft(np.conj(spectrum), n_fft, axis=-1)
        record: np.ndarray = rf[:, :, start_sample : start_sample + n_samples]
        return record

    def adjoint(
        self,
        points: Scatterers,
        plan: Plan,
        samples: np.ndarray,
        start_sample: int = 0,
        max_memory: float | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Project echoes on points: the transpose of `simulate` in the reflectivity, (n_points,) float64."""
        projected = np.zeros(len(points))
        if len(points) == 0:
            return projected
        acquisition, n_samples = plan.acquisition, samples.shape[-1]
        n_fft, frequency, bins = _frequency_bins(plan, points, start_sample + n_samples)
        record = np.zeros((*samples.shape[:-1], n_fft))
        record[..., start_sample : start_sample + n_samples] = samples
        spectrum = np.fft.rfft(record, axis=-1) * plan.response(frequency)
        spectrum *= np.exp(2j * np.pi * frequency * plan.receive_delays[:, None])
        mirrored = np.where((bins == 0) | (2 * bins == n_fft), 1, 2)  # bins stand for their mirror in a real record
        scale = plan.width * acquisition.sampling_frequency / n_fft
        block = _block_size(plan, max_memory)
        total = math.ceil(len(points) / block) * len(bins)
        for first in range(0, len(points), block):
            part = slice(first, first + block)
            geometry = Geometry(plan, points.x[part], points.z[part], _part(points.y, part))
            for k, (i, twice) in enumerate(zip(bins, mirrored, strict=True), first // block * len(bins) + 1):
                response = geometry.response(frequency[i])
                pressure = transmitted_pressure(plan, response, frequency[i])
                projected[part] += scale * twice * (pressure * (spectrum[:, :, i] @ response.T)).sum(axis=0).real
                if progress is not None:
                    progress(k, total)
        return projected

    def pressure_field(
        self,
        plan: Plan,
        grid: ImageGrid,
        threshold_db: float,
        max_memory: float | None = None,
        progress: Progress | None = None,
        y: float = 0.0,
    ) -> np.ndarray:
        """RMS pressure (n_transmits, nz, nx): sqrt(width Σ_f |P|² df) (MUST's pfield); 0 behind the array."""
        probe = plan.acquisition.probe
        x, z = (axis.ravel() for axis in grid.mesh())
        front = np.flatnonzero(~probe.is_behind(x, z))
        power = np.zeros((plan.acquisition.n_transmits, x.size))
        block = _block_size(plan, max_memory)
        frequency, step = pressure_frequencies(plan, x[front], z[front], threshold_db, np.full(len(front), y))
        total = math.ceil(len(front) / block) * len(frequency)
        for first in range(0, len(front), block):
            part = front[first : first + block]
            geometry = Geometry(plan, x[part], z[part], np.full(len(part), y))
            for k, f in enumerate(frequency, first // block * len(frequency) + 1):
                power[:, part] += np.abs(transmitted_pressure(plan, geometry.response(f), f)) ** 2
                if progress is not None:
                    progress(k, total)
        return np.sqrt(plan.width * power * step).reshape(-1, *grid.shape)

    def delay_and_sum(self, samples: np.ndarray, beamforming: Beamforming) -> np.ndarray:
        """Images (..., nz, nx), complex128 or float64 as the samples are."""
        if beamforming.combination is not None:
            return reference_adaptive.combine(samples, beamforming)
        return reference_beamform.delay_and_sum(samples, beamforming)

    def mix_and_filter(self, samples: np.ndarray, law: FilterLaw) -> np.ndarray:
        """`scipy.signal.filtfilt` of the mixed samples: computed as complex128, returned as complex64."""
        from scipy.signal import filtfilt

        mixed = samples * law.carrier
        filtered = filtfilt(law.numerator, law.denominator, mixed, axis=-1, padtype="odd", padlen=law.edge)
        return np.asarray(filtered, dtype=np.complex64)

    def arrival_bounds(
        self,
        x: np.ndarray,
        z: np.ndarray,
        source_x: np.ndarray,
        source_z: np.ndarray,
        delays: np.ndarray,
        speed_of_sound: float,
        with_last: bool = True,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """First and last arrival of each law at points."""
        return reference_beamform.arrival_bounds(x, z, source_x, source_z, delays, speed_of_sound, with_last)


ENGINE = ReferenceEngine()


def _frequency_bins(plan: Plan, scatterers: Scatterers, last_sample: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Length of the transform, samples; its frequencies, Hz; and those of them within the band."""
    rate = plan.acquisition.sampling_frequency
    longest = plan.longest_distance(scatterers.x, scatterers.z, scatterers.y)
    span = plan.echo_end(longest) + 2 * plan.pulse_half_length(2 * longest)
    early = math.ceil(max(0.0, -float(plan.firing_times[0].min())) * rate)  # fired before time 0
    n_fft = fast_length(max(last_sample, math.ceil(span * rate)) + early)
    frequency = np.fft.rfftfreq(n_fft, 1 / rate)
    low, high = plan.band()
    return n_fft, frequency, np.flatnonzero((frequency >= low) & (frequency <= high))


def pressure_frequencies(
    plan: Plan, x: np.ndarray, z: np.ndarray, threshold_db: float, y: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Frequencies of a pressure field and their step, Hz: the period outlasts the longest way there (Garcia 2022)."""
    low, high = plan.band(threshold_db)
    if plan.acquisition.is_continuous:
        return np.array([low]), 1.0
    longest = plan.longest_distance(x, z, y)
    earliest, latest = plan.firing_times
    spread = float((latest - earliest).max())
    step = 1 / (longest / plan.acquisition.medium.speed_of_sound + spread + 4 * plan.pulse_half_length(0.0))
    return np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step, step


class Geometry:
    """Distances and amplitudes of points to sub-elements: all of G but its dependence on frequency."""

    def __init__(self, plan: Plan, x: np.ndarray, z: np.ndarray, y: np.ndarray | None = None) -> None:
        self.is_matrix = plan.sub_y is not None
        if plan.sub_y is not None:
            self._of_matrix(plan, plan.sub_y, x, z, np.zeros_like(x) if y is None else y)
            return
        dx = x[:, None, None] - plan.sub_x  # (n_points, n_elements, n_subelements)
        dz = z[:, None, None] - plan.sub_z
        sine, cosine = physics.incidence(dx, dz, plan.sin_element[:, None], plan.cos_element[:, None])
        self.plan = plan
        self.sine = sine
        if plan.lens is None:
            self.distance = np.maximum(np.sqrt(dx * dx + dz * dz), plan.minimum_distance)
            spreading = np.sqrt(self.distance)
        else:
            self.square_y: np.ndarray = (np.zeros_like(x) if y is None else y * y)[:, None]
            distance = np.sqrt(dx * dx + dz * dz + self.square_y[..., None])
            spreading = self.distance = np.maximum(distance, plan.minimum_distance)
            self.mean_distance = self.distance.mean(axis=-1)  # of an element, as MUST's beam in elevation takes it
        self.amplitude = physics.obliquity(cosine, plan.baffle) / spreading / plan.sub_x.shape[1]
        if not plan.acquisition.full_frequency_directivity:
            self.amplitude = self.amplitude * physics.directivity(sine, plan.half_width_wavenumber)

    def _of_matrix(self, plan: Plan, sub_y: np.ndarray, x: np.ndarray, z: np.ndarray, y: np.ndarray) -> None:
        """Lay out the ways of a matrix array, each sub-element with a directivity along both of its sides."""
        dx, dy, dz = x[:, None, None] - plan.sub_x, y[:, None, None] - sub_y, z[:, None, None] - plan.sub_z
        distance = np.maximum(np.sqrt(dx * dx + dy * dy + dz * dz), 1e-12)
        self.plan = plan
        self.sine, self.sine_y = dx / distance, dy / distance
        self.distance = np.maximum(distance, plan.minimum_distance)
        self.amplitude = physics.obliquity(dz / distance, plan.baffle) / self.distance / plan.sub_x.shape[1]
        if not plan.acquisition.full_frequency_directivity:
            self.amplitude = self.amplitude * physics.directivity(self.sine, plan.half_width_wavenumber)
            self.amplitude = self.amplitude * physics.directivity(self.sine_y, plan.half_height_wavenumber)

    def response(self, frequency: float) -> np.ndarray:
        """G (n_points, n_elements) at one frequency: the mean over the sub-elements (Garcia 2022)."""
        medium = self.plan.acquisition.medium
        k = physics.wavenumber(frequency, medium.speed_of_sound)
        loss = physics.attenuation(frequency, medium.attenuation_db_cm_mhz)
        response = self.amplitude * np.exp((1j * k - loss) * self.distance)
        if self.plan.acquisition.full_frequency_directivity:
            response = response * physics.directivity(self.sine, k * self.plan.sub_width / 2)
            if self.is_matrix:
                response = response * physics.directivity(self.sine_y, k * self.plan.sub_height / 2)
        total: np.ndarray = response.sum(axis=-1)
        return total if self.plan.lens is None else total * self.beam(k)

    def beam(self, k: float) -> np.ndarray:
        """(n_points, n_elements) field in elevation at one wavenumber, rad/m, with the way that the elevation adds."""
        lens, distance = self.plan.lens, self.mean_distance
        assert lens is not None
        way = physics.elevation_path(distance, self.square_y)
        beam: np.ndarray = physics.elevation_beam(k, distance, self.square_y, lens.height, lens.focus) * np.exp(
            1j * k * way
        )
        return beam


def transmitted_pressure(plan: Plan, response: np.ndarray, frequency: float) -> np.ndarray:
    """P (n_transmits, n_points) = S B Σ_e w_e exp(2πi f τ_e) G_e (Garcia 2022)."""
    drive = (plan.weights * np.exp(2j * np.pi * frequency * plan.delays)).sum(axis=1)
    pressure: np.ndarray = plan.excitation(np.array([frequency]))[0] * (drive @ response.T)
    return pressure


def _part(y: np.ndarray | None, part: slice) -> np.ndarray | None:
    return None if y is None else y[part]


def _block_size(plan: Plan, max_memory: float | None) -> int:
    """Points at once: half a dozen complex (points, elements, sub-elements) arrays within the budget (default 256 MB)."""
    return max(1, int((max_memory or 256e6) / (6 * 16 * plan.sub_x.size)))
