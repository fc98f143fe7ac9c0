"""The imaging model of one transmit: H (pixels to channel data), B (weighted matched filter) and BH, from ussim's physics.

    y_e(t) = Σ_j o_j g_e(j) w(t - τ_e(j)),        (B y)_i = Σ_e a_e(i) ∫ w(t - τ_e(i)) y_e(t) dt / ∫ w² dt

for pixel j, element e: τ the transmit plus receive time, g the amplitude (transmit field, obliquity, directivity,
spreading, attenuation), w the two-way waveform, a the receive apodization (Tukey(0.25), of f-number 1.4 unless said:
Zhang et al., "Diffusion reconstruction of ultrasound images with informative uncertainty", sec. 2) times a gain against
the medium's loss at f_c on the way to pixel i and back, so that BH errs alike at all depths. It is SIMUS (`ussim.physics`)
in delay form: what `ussim.simulate` does and this does not is the spread of a pulse over the elements' edge waves, a pulse
whose shape changes with depth (attenuation colors it as at the field's mean depth), and sub-elements with delays of their
own.

The transmit field of a 2-D array is a sum of line sources without their half-order filter, so a wavefront carries
sqrt(c/f) exp(iπ/4) (stationary phase): w contains it, and each pixel's complex transmit amplitude is the projection of
the exact field on that spectrum; its phase is taken up as a delay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.interpolate import RegularGridInterpolator
from scipy.signal.windows import tukey

from ussim import physics
from ussim.acquisition import Acquisition
from ussim.arrays import to_numpy
from ussim.engines.reference import Geometry, transmitted_pressure
from ussim.plan import Plan, make_plan
from ussim.transmits import CustomTransmits
from ussim.types import ImageGrid, RFData

from .loops import banded, entries, gather, scatter

F_NUMBER = 1.4  # of B, unless said: the authors'
TUKEY_FRACTION = 0.25
OVERSAMPLING = 8  # of 4 f_c, for the time axis of H and B: linear interpolation then errs by 0.3 % at f_c
TABLE_OVERSAMPLING = 32  # of the waveform's autocorrelation
TRANSMIT_SAMPLES = 25  # points per axis and frequencies at which the exact transmit field is taken
ENERGY_KEPT = 0.998  # of a point's image near the point, within the band of a banded BH
NEAR = 4000  # pixels of a window that still is near: beyond are the edge waves of a wide field, wherever the band ends


@dataclass(frozen=True, eq=False)
class EchoModel:
    """H, B and BH of one transmit on a grid. Pixels are flattened row by row (x fastest)."""

    acquisition: Acquisition
    grid: ImageGrid
    arrival: np.ndarray  # (n_pixels, n_elements) s, transmit + receive time of the waveform's center
    gain: np.ndarray  # (n_pixels, n_elements)
    apodization: np.ndarray  # (n_pixels, n_elements), of B, its time gain included
    n_samples: int
    path: float  # m, there and back: the waveform is the one after the attenuation of so long a way
    start_time: float = 0.0  # s

    @property
    def n_pixels(self) -> int:
        """Pixels of the grid."""
        return len(self.arrival)

    # --- H, its adjoint, and B, on sampled channel data --------------------------------------------------------------

    def forward(self, image: np.ndarray) -> np.ndarray:
        """H o: channel data (n_elements, n_samples) of an image (nz, nx)."""
        impulses = scatter(self._positions, self.gain, np.ravel(image).astype(np.float64), self._n_fine)
        return self._resample(rfft(impulses, axis=-1) * self._spectrum)

    def adjoint(self, samples: np.ndarray) -> np.ndarray:
        """H' y (nz, nx): the transpose of `forward`, channel data (n_elements, n_samples)."""
        return gather(self._positions, self.gain, self._correlate(samples)).reshape(self.grid.shape)

    def beamform(self, samples: np.ndarray) -> np.ndarray:
        """B y (nz, nx): the weighted matched filter of channel data (n_elements, n_samples)."""
        energy = self.acquisition.sampling_frequency * self._waveform_energy
        return (gather(self._positions, self.apodization, self._correlate(samples)) / energy).reshape(self.grid.shape)

    @cached_property
    def pixel_energy(self) -> np.ndarray:
        """(nz, nx) sum of the squared samples of each pixel's echo of reflectivity 1: the diagonal of H' H."""
        energy = self.acquisition.sampling_frequency * self._waveform_energy
        return (energy * (self.gain**2).sum(axis=1)).reshape(self.grid.shape)

    def noise_gain(self) -> np.ndarray:
        """(nz, nx) standard deviation of B n for white channel noise n of standard deviation one."""
        norm = np.sqrt((self.apodization**2).sum(axis=1))
        return (norm / math.sqrt(self.acquisition.sampling_frequency * self._waveform_energy)).reshape(self.grid.shape)

    def noise_correlation(self, reach: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Axial and lateral autocorrelation (reach + 1,) of B n for white channel noise n, at 0, 1, ... pixels.

        DRUS takes B n for white (1, 0, 0, ...); this is how far it is from that.
        """
        white = np.random.default_rng(seed).standard_normal((self.arrival.shape[1], self.n_samples))
        image = self.beamform(white) / self.noise_gain()
        power = float(np.mean(image**2))
        nz, nx = image.shape
        axial = [np.mean(image[: nz - k] * image[k:]) / power for k in range(min(reach, nz - 1) + 1)]
        lateral = [np.mean(image[:, : nx - k] * image[:, k:]) / power for k in range(min(reach, nx - 1) + 1)]
        return np.array(axial), np.array(lateral)

    # --- BH without channel data --------------------------------------------------------------------------------------

    def matrix(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Entries of BH (len(rows), len(columns)) float32 for pixel indices: exact in continuous time."""
        table, step = self._autocorrelation
        first, last = self._aperture
        return entries((self.arrival, self.gain, self.apodization, first, last, table, step), rows, columns)

    def banded(self, max_memory: float = 2e9) -> tuple[np.ndarray, float]:
        """BH near its diagonal, rearranged for `nearest_kronecker`.

        (nz, 2 bz + 1, nx, 2 bx + 1) float32, row pixel and offset of the column pixel; and the relative energy
        (amplitude) outside the band, from a few points' images.

        Raises
        ------
        ValueError
            The array would not fit in `max_memory` bytes.
        """
        (half_z, half_x), outside = self._band_size()
        nz, nx = self.grid.shape
        size = 4.0 * nz * nx * (2 * half_z + 1) * (2 * half_x + 1)
        if size > max_memory:
            raise ValueError(
                f"a banded BH of {nz} x {nx} pixels takes {size / 1e9:.1f} GB, more than the {max_memory / 1e9:.1f} GB "
                "allowed: use fewer pixels, or raise max_memory"
            )
        table, step = self._autocorrelation
        first, last = self._aperture
        model = (self.arrival, self.gain, self.apodization, first, last, table, step)
        return banded(model, nz, nx, half_z, half_x), outside

    def _band_size(self) -> tuple[tuple[int, int], float]:
        """Return the half sizes (z, x) of the smallest window about a point, and the share of the energy outside it.

        It holds ENERGY_KEPT of what a near point's window can of its image, over a few points.
        """
        nz, nx = self.grid.shape
        inside = []  # (nz, nx): share of a point's energy within |dz|, |dx|
        for z in np.unique([nz // 8, nz // 2, nz - 1 - nz // 8]):
            for x in np.unique([nx // 8, nx // 2, nx - 1 - nx // 8]):
                row = self.matrix(np.array([z * nx + x]), np.arange(nz * nx)).reshape(nz, nx).astype(np.float64) ** 2
                energy = np.zeros((nz, nx))
                np.add.at(energy, np.ix_(np.abs(np.arange(nz) - z), np.abs(np.arange(nx) - x)), row / row.sum())
                inside.append(energy.cumsum(axis=0).cumsum(axis=1))
        # The median: a shallow point at the edge spreads a few percent over the whole field, whatever the window.
        typical = np.median(inside, axis=0)
        area = np.outer(2.0 * np.arange(nz) + 1, 2.0 * np.arange(nx) + 1)
        area[typical < ENERGY_KEPT * typical[area <= NEAR].max()] = np.inf
        half_z, half_x = np.unravel_index(np.argmin(area), area.shape)
        outside = 1 - np.mean([share[half_z, half_x] for share in inside])
        return (int(half_z), int(half_x)), math.sqrt(max(0.0, outside))

    # --- helpers -------------------------------------------------------------------------------------------------------

    @property
    def _rate(self) -> float:
        return OVERSAMPLING * self.acquisition.sampling_frequency

    @cached_property
    def _padding(self) -> int:
        """Samples before and after the record, so that a pulse at its edge does not wrap around."""
        half_length = make_plan(self.acquisition).pulse_half_length(0.0)
        return math.ceil(half_length * self.acquisition.sampling_frequency)

    @cached_property
    def _n_coarse(self) -> int:
        return next_fast_len(self.n_samples + 2 * self._padding, real=True)

    @property
    def _n_fine(self) -> int:
        return OVERSAMPLING * self._n_coarse

    @cached_property
    def _positions(self) -> np.ndarray:
        """Arrival times in fine samples from the start of the padded record; outside it, -1."""
        origin = self.start_time - self._padding / self.acquisition.sampling_frequency
        positions = (self.arrival - origin) * self._rate
        return np.where((positions >= 0) & (positions < self._n_fine - 1), positions, -1.0)

    @cached_property
    def _spectrum(self) -> np.ndarray:
        """Spectrum of the waveform on the fine axis, times the fine rate (so that impulses need none)."""
        frequency = np.fft.rfftfreq(self._n_fine, 1 / self._rate)
        spectrum = waveform_spectrum(make_plan(self.acquisition), frequency, self.path)
        spectrum[self._n_coarse // 2 :] = 0  # the coarse Nyquist bin has no transpose; 100 dB down at f_s = 4 f_c
        return spectrum * self._rate

    @cached_property
    def _waveform_energy(self) -> float:
        """∫ w² dt."""
        plan = make_plan(self.acquisition)
        frequency = np.linspace(*plan.band(), 4097)
        return 2 * float(np.trapezoid(np.abs(waveform_spectrum(plan, frequency, self.path)) ** 2, frequency))

    def _resample(self, spectrum: np.ndarray) -> np.ndarray:
        """Real samples (n_elements, n_samples) of fine spectra: the band lies below half the coarse rate."""
        kept = spectrum[:, : self._n_coarse // 2 + 1] / OVERSAMPLING
        padding = self._padding
        return irfft(kept, self._n_coarse, axis=-1)[:, padding : padding + self.n_samples]

    def _correlate(self, samples: np.ndarray) -> np.ndarray:
        """Σ_k w(t_k - t) y(t_k) on the fine axis: the transpose of filtering and `_resample`."""
        padded = np.zeros((len(samples), self._n_coarse))
        padded[:, self._padding : self._padding + self.n_samples] = samples
        spectrum = np.zeros((len(samples), self._n_fine // 2 + 1), dtype=complex)
        spectrum[:, : self._n_coarse // 2 + 1] = rfft(padded, axis=-1)
        return irfft(spectrum * np.conj(self._spectrum), self._n_fine, axis=-1)

    @cached_property
    def _autocorrelation(self) -> tuple[np.ndarray, float]:
        """∫ w(t) w(t + lag) dt / ∫ w² dt for lag = 0, step, ...: an even function, tabulated until it has died out."""
        plan = make_plan(self.acquisition)
        rate = TABLE_OVERSAMPLING * self.acquisition.sampling_frequency
        half_length = 2 * plan.pulse_half_length(0.0, tail=1e-3)
        n = next_fast_len(math.ceil(4 * half_length * rate), real=True)
        power = np.abs(waveform_spectrum(plan, np.fft.rfftfreq(n, 1 / rate), self.path)) ** 2
        table = irfft(power, n)[: math.ceil(half_length * rate) + 1]
        return (table / table[0]).astype(np.float32), 1 / rate

    @cached_property
    def _aperture(self) -> tuple[np.ndarray, np.ndarray]:
        """First and one past the last element of B's aperture, a pixel."""
        active = self.apodization > 0
        first = active.argmax(axis=1)
        last = active.shape[1] - active[:, ::-1].argmax(axis=1)
        return first, np.where(active.any(axis=1), last, first)


def echo_model(
    acquisition: Acquisition,
    grid: ImageGrid,
    transmit: int = 0,
    n_samples: int | None = None,
    start_time: float = 0.0,
    f_number: float = F_NUMBER,
) -> EchoModel:
    """Return the model of one transmit of the acquisition on the grid, `f_number` that of B's receive aperture.

    Raises
    ------
    ValueError
        No such transmit, a pixel lies behind the array, or an f-number that is not above 0.
    """
    if acquisition.probe.is_matrix:
        raise ValueError(f"probe: expected an array of one row, {acquisition.probe.name} is a matrix array")
    if not (math.isfinite(f_number) and f_number > 0):
        raise ValueError(f"f_number: expected a number above 0, got {f_number!r}")
    if not 0 <= transmit < acquisition.n_transmits:
        raise ValueError(f"transmit: expected 0..{acquisition.n_transmits - 1}, got {transmit}")
    if not acquisition.transmit_weights[transmit].any():
        raise ValueError(f"transmit: expected one that fires, got {transmit}, whose elements are all off")
    probe, speed_of_sound = acquisition.probe, acquisition.medium.speed_of_sound
    x, z = (a.ravel() for a in grid.mesh())
    if probe.is_behind(x, z).any():
        raise ValueError(f"grid: expected pixels in front of {probe.name}, got some behind it: start z deeper")
    plan = make_plan(acquisition)
    distance = np.hypot(x[:, None] - probe.element_x, z[:, None] - probe.element_z)
    path = 2 * float(distance.min(axis=1).mean())
    amplitude, transmit_time = _transmit(plan, grid, transmit, path)
    arrival = transmit_time[:, None] + distance / speed_of_sound - plan.receive_delays
    if n_samples is None:
        longest = float(arrival.max()) + 2 * plan.pulse_half_length(2 * float(distance.max())) - start_time
        n_samples = math.ceil(longest * acquisition.sampling_frequency)
    return EchoModel(
        acquisition=acquisition,
        grid=grid,
        arrival=arrival,
        gain=amplitude[:, None] * _receive_gain(plan, x, z, distance) * acquisition.receiving[transmit],
        apodization=_apodization(acquisition, x, z, f_number) * _time_gain(plan, transmit_time, distance)[:, None],
        n_samples=n_samples,
        path=path,
        start_time=start_time,
    )


def echo_model_of(rf: RFData, grid: ImageGrid, transmit: int = 0, f_number: float = F_NUMBER) -> EchoModel:
    """Return the model whose B takes the channel data of `rf`: its record length and start."""
    acquisition = replace(rf.acquisition, sampling_frequency=rf.sampling_frequency)
    start_time = float(rf.start_times[transmit])
    return echo_model(acquisition, grid, transmit, rf.samples.shape[2], start_time, f_number)


def of_transmit(acquisition: Acquisition, transmit: int) -> Acquisition:
    """Return the acquisition with one of its transmits alone, on the same clock."""
    delays, weights = (a[transmit : transmit + 1] for a in (acquisition.transmit_delays, acquisition.transmit_weights))
    waves = CustomTransmits(delays[:, 0] if delays.shape[1] == 1 else delays, weights)
    mask = None if acquisition.receive_mask is None else acquisition.receiving[transmit]
    return replace(acquisition, waves=waves, receive_mask=mask)


def beamform(rf: RFData, grid: ImageGrid, transmit: int = 0, f_number: float = F_NUMBER) -> np.ndarray:
    """B y (nz, nx) float32 of one transmit: what `sample` takes with `operator(rf.acquisition, grid, ...)`."""
    return echo_model_of(rf, grid, transmit, f_number).beamform(to_numpy(rf.samples[transmit])).astype(np.float32)


def waveform_spectrum(plan: Plan, frequency: np.ndarray, path: float) -> np.ndarray:
    """Spectrum of the two-way waveform w.

    Element width · conj(S B² sqrt(c/f) exp(iπ/4)), zero outside the band, colored by the attenuation of `path` meters
    (1 at f_c: the loss there is the pixel's gain).
    """
    low, high = plan.band()
    spectrum = np.zeros(len(frequency), dtype=complex)
    inside = (frequency >= low) & (frequency <= high) & (frequency > 0)
    f = frequency[inside]
    spectrum[inside] = plan.excitation(f) * plan.response(f) * _wavefront(plan, f) * _coloration(plan, f, path)
    return plan.acquisition.probe.element_width * np.conj(spectrum)


def bandpass_step(acquisition: Acquisition) -> float:
    """Axial pixel, m, that puts the pulse-echo carrier 2 f_c / c at 3/4 cycle a pixel.

    The middle of the grid's second Nyquist zone, which holds the band [2/3, 4/3] f_c without aliasing at a third of the
    pixels.
    """
    return 3 * acquisition.medium.speed_of_sound / (8 * acquisition.carrier_frequency)


def _wavefront(plan: Plan, frequency: np.ndarray) -> np.ndarray:
    return np.sqrt(plan.acquisition.medium.speed_of_sound / frequency) * np.exp(0.25j * np.pi)


def _coloration(plan: Plan, frequency: np.ndarray, path: float) -> np.ndarray:
    """exp(-(κ(f) - κ(f_c)) path): what attenuation does to the shape of a pulse."""
    medium, center = plan.acquisition.medium, plan.acquisition.carrier_frequency
    return np.exp(-physics.attenuation(frequency - center, medium.attenuation_db_cm_mhz) * path)


def _transmit(plan: Plan, grid: ImageGrid, transmit: int, path: float) -> tuple[np.ndarray, np.ndarray]:
    """Amplitude and time of the transmitted wavefront at each pixel, (n_pixels,) each.

    The exact field at a few points and frequencies is projected on the wavefront's spectrum; smooth, so interpolated.
    """
    acquisition = plan.acquisition
    axes = [np.linspace(a[0], a[-1], min(len(a), TRANSMIT_SAMPLES)) for a in (grid.z, grid.x)]
    z, x = (a.ravel() for a in np.meshgrid(*axes, indexing="ij"))
    time = _first_arrival(plan, x, z, transmit)
    geometry = Geometry(plan, x, z)
    numerator, denominator = np.zeros(len(x), dtype=complex), 0.0
    for f in np.linspace(*plan.band(-30.0), TRANSMIT_SAMPLES):
        frequency = np.array([f])
        model = (plan.excitation(frequency) * _wavefront(plan, frequency) * _coloration(plan, frequency, path / 2))[0]
        weight = abs(plan.response(frequency)[0] * _coloration(plan, frequency, path / 2)[0]) ** 2
        field = transmitted_pressure(plan, geometry.response(f), f)[transmit] * np.exp(-2j * np.pi * f * time)
        numerator += weight * np.conj(model) * field
        denominator += weight * abs(model) ** 2
    coarse = (numerator / denominator).reshape(len(axes[0]), len(axes[1]))
    pixel_x, pixel_z = (a.ravel() for a in grid.mesh())
    if min(coarse.shape) > 1:
        points = np.stack([pixel_z, pixel_x], axis=-1)
        amplitude = RegularGridInterpolator(axes, coarse)(points)
    else:
        amplitude = np.broadcast_to(coarse, grid.shape).ravel()
    lag = np.angle(amplitude) / (2 * np.pi * acquisition.carrier_frequency)
    return np.abs(amplitude), _first_arrival(plan, pixel_x, pixel_z, transmit) + lag


def _first_arrival(plan: Plan, x: np.ndarray, z: np.ndarray, transmit: int) -> np.ndarray:
    """Min over firing elements of τ_e + d_e / c, elements interpolated 4x, (n_points,) s."""
    probe = plan.acquisition.probe
    times = []
    for delays, weights in zip(plan.delays[transmit], plan.weights[transmit], strict=True):
        firing = np.flatnonzero(weights)
        fine = np.linspace(firing[0], firing[-1], 4 * (firing[-1] - firing[0]) + 1)
        ex, ez, delay = (np.interp(fine, firing, a[firing]) for a in (probe.element_x, probe.element_z, delays))
        distance = np.hypot(x[:, None] - ex, z[:, None] - ez)
        times.append((delay + distance / plan.acquisition.medium.speed_of_sound).min(axis=1))
    return np.min(times, axis=0)


def _receive_gain(plan: Plan, x: np.ndarray, z: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Amplitude of an element's response to each pixel at f_c, its phase taken out, (n_pixels, n_elements)."""
    acquisition = plan.acquisition
    frequency = acquisition.carrier_frequency
    k = physics.wavenumber(frequency, acquisition.medium.speed_of_sound)
    gain = np.empty(distance.shape)
    for first in range(0, len(x), 4096):
        part = slice(first, first + 4096)
        response = Geometry(plan, x[part], z[part]).response(frequency)
        gain[part] = np.real(response * np.exp(-1j * k * distance[part]))
    return gain


def _time_gain(plan: Plan, transmit_time: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Gain of B against what the medium took from each pixel's echo at f_c, 1 at the nearest pixel, (n_pixels,)."""
    medium = plan.acquisition.medium
    path = medium.speed_of_sound * transmit_time + distance.min(axis=1)
    coefficient = physics.attenuation(plan.acquisition.carrier_frequency, medium.attenuation_db_cm_mhz)
    return np.exp(coefficient * (path - path.min()))


def _apodization(acquisition: Acquisition, x: np.ndarray, z: np.ndarray, f_number: float) -> np.ndarray:
    """Tukey window over the receive aperture about each pixel, (n_pixels, n_elements)."""
    probe = acquisition.probe
    dx, dz = x[:, None] - probe.element_x, z[:, None] - probe.element_z
    if probe.is_flat:
        position = np.abs(dx) / (dz / f_number / 2)
    else:
        angle = np.arcsin(dx / np.hypot(dx, dz)) - probe.element_angle
        position = np.abs(angle) / math.atan(1 / (2 * f_number))
    window = tukey(2001, TUKEY_FRACTION)[1000:]
    weights = np.interp(position, np.linspace(0, 1, 1001), window, right=0.0)
    nearest = np.abs(dx).argmin(axis=1)  # a very shallow pixel keeps one element
    weights[np.arange(len(x)), nearest] = np.maximum(weights[np.arange(len(x)), nearest], 1e-3)
    return weights


__all__ = ["EchoModel", "bandpass_step", "beamform", "echo_model", "echo_model_of", "of_transmit", "waveform_spectrum"]
