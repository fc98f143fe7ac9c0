"""Plans for the engines, worked out once in float64: `Plan` of a simulation, `Beamforming` of a delay-and-sum.

A `Plan` holds sub-elements, transmit laws, spectra and the length of the record. Neither knows which engine will take it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from . import physics
from .acquisition import Acquisition
from .arrays import to_numpy
from .arrivals import ArrivalBounds, arrival_times
from .beamforming.adaptive import COHERENCES, Combination
from .beamforming.apertures import cos_acceptance
from .beamforming.grids import AnyGrid
from .beamforming.windows import BOXCAR, Window
from .interpolation import Interpolation
from .numerics import fast_length
from .probes import one_row
from .types import Scatterers

Progress = Callable[
    [int, int], None
]  # called with the steps done and their total, in the thread that called the engine

PULSE_TAIL = 3e-5  # energy of a pulse that may lie outside its half-length, relative L2
LARGEST_EDGE = 0.1  # of a measured spectrum's peak, where the band is cut: beyond, the cut itself would be seen
# Widest sub-element, in shortest wavelengths: RF of every preset within 1.5 % (relative L2) of what ever finer sub-elements
# tend to. Its far field, beyond width² / (4 wavelength), then begins at a sixteenth of a wavelength: well below
# `minimum_distance`, which no distance goes under.
SUBELEMENT_WIDTH = 0.47
LONGEST = 2**29  # samples of a record, and of the way back: sums of them are whole numbers of 32 bits
OUTSIDE = 16.0  # samples outside a record, farther than an interpolation reaches
BAFFLES = {"soft": 0.0, "rigid": math.inf}


@dataclass(frozen=True)
class Lens:
    """Elements in elevation, for scatterers that have a y."""

    height: float  # m
    focus: float  # m, infinite without a lens


@dataclass(frozen=True, eq=False)
class Plan:
    """An acquisition in the terms of the model. Arrays are float64."""

    acquisition: Acquisition
    sub_x: np.ndarray  # (n_elements, n_subelements) m, centroids
    sub_z: np.ndarray
    sub_width: float  # m
    sin_element: np.ndarray  # (n_elements,) of the element's normal
    cos_element: np.ndarray
    baffle: float  # impedance ratio: 0 soft, inf rigid
    delays: np.ndarray  # (n_transmits, n_foci, n_elements) s, 0 where off
    weights: np.ndarray  # (n_transmits, n_foci, n_elements), 0 where off
    receive_delays: np.ndarray  # (n_elements,) s
    minimum_distance: float  # m, distances are floored here
    lens: Lens | None = None  # None: two dimensions, or a matrix array
    sub_y: np.ndarray | None = None  # (n_elements, n_subelements) m, of a matrix array
    sub_height: float = 0.0  # m, of a matrix array

    @property
    def is_deep(self) -> bool:
        """Whether the model has three dimensions."""
        return self.lens is not None or self.sub_y is not None

    @property
    def width(self) -> float:
        """Factor of the integral over frequency, m: an element's width; 1, without unit, in three dimensions (as MUST)."""
        return 1.0 if self.is_deep else self.acquisition.probe.element_width

    @cached_property
    def firing_times(self) -> tuple[np.ndarray, np.ndarray]:
        """Earliest and latest firing of each transmit, (n_transmits,) s each; 0 of a silent one."""
        firing = self.weights != 0
        silent = ~firing.any(axis=(1, 2))
        earliest = np.where(firing, self.delays, np.inf).min(axis=(1, 2))
        latest = np.where(firing, self.delays, -np.inf).max(axis=(1, 2))
        return np.where(silent, 0.0, earliest), np.where(silent, 0.0, latest)

    def record_shape(self, n_samples: int) -> tuple[int, int, int]:
        """(n_transmits, n_elements, n_samples), the shape of a record."""
        return (self.acquisition.n_transmits, self.acquisition.probe.n_elements, n_samples)

    @property
    def half_width_wavenumber(self) -> float:
        """k_c L / 2 of a sub-element, for the directivity at the center frequency."""
        medium, probe = self.acquisition.medium, self.acquisition.probe
        return physics.wavenumber(probe.center_frequency, medium.speed_of_sound) * self.sub_width / 2

    @property
    def half_height_wavenumber(self) -> float:
        """k_c H / 2 of a sub-element of a matrix array."""
        medium, probe = self.acquisition.medium, self.acquisition.probe
        return physics.wavenumber(probe.center_frequency, medium.speed_of_sound) * self.sub_height / 2

    def excitation(self, frequency: np.ndarray) -> np.ndarray:
        """S(f) B(f): the transmitted spectrum, complex."""
        a = self.acquisition
        if a.waveform is not None:
            spectrum = 2 * a.carrier_frequency * a.waveform.spectrum(frequency)
        elif a.is_continuous:
            spectrum = np.where(frequency == a.carrier_frequency, 1j, 0j)
        else:
            spectrum = physics.excitation_spectrum(frequency, a.carrier_frequency, a.n_cycles, a.frequency_sweep)
        measured = a.impulse_response
        excitation: np.ndarray = spectrum * (
            self.probe_response(frequency) if measured is None else measured.transmit(frequency)
        )
        return excitation

    def response(self, frequency: np.ndarray) -> np.ndarray:
        """B(f) of the way back, complex where it was measured, times what the scatterers' own spectrum adds to echoes."""
        response, exponent = self.probe_response(frequency), self.acquisition.medium.backscatter_exponent
        if exponent == 0:
            return response
        echoed: np.ndarray = response * physics.backscatter(
            frequency, self.acquisition.probe.center_frequency, exponent
        )
        return echoed

    def probe_response(self, frequency: np.ndarray) -> np.ndarray:
        """B(f): the response of the probe on the way back; complex where it was measured."""
        probe, measured = self.acquisition.probe, self.acquisition.impulse_response
        if measured is not None:
            return measured.receive(frequency)
        return physics.probe_spectrum(frequency, probe.center_frequency, probe.bandwidth)

    def band(self, threshold_db: float | None = None) -> tuple[float, float]:
        """Lowest and highest frequency in [0, 2 f_c] where |S B| is above the threshold, relative to its peak, Hz."""
        threshold_db = self.acquisition.threshold_db if threshold_db is None else threshold_db
        if threshold_db not in self._bands:
            self._bands[threshold_db] = self._find_band(threshold_db)
        return self._bands[threshold_db]

    @cached_property
    def _bands(self) -> dict[float, tuple[float, float]]:
        """Bands found so far, by threshold: windows and boxes ask for them many times."""
        return {}

    def _find_band(self, threshold_db: float) -> tuple[float, float]:
        if self.acquisition.is_continuous:
            return self.acquisition.carrier_frequency, self.acquisition.carrier_frequency
        frequency = np.linspace(0, 2 * self.acquisition.probe.center_frequency, 20001)
        amplitude = np.abs(self.excitation(frequency))
        if not amplitude.any():
            raise ValueError(
                "waveform: it has nothing in the band of the probe's response: expected a common frequency"
            )
        if self.acquisition.impulse_response is not None and amplitude[-1] > LARGEST_EDGE * amplitude.max():
            raise ValueError(
                "impulse_response: expected a spectrum that falls by 20 dB before 2 center_frequency "
                f"({frequency[-1]:g} Hz), where the model ends, got {20 * np.log10(amplitude[-1] / amplitude.max()):.3g} dB "
                "there: check its rate, or raise the probe's center_frequency"
            )
        kept = frequency[amplitude > 10 ** (threshold_db / 20) * amplitude.max()]
        return float(kept[0]), float(kept[-1])

    def pulse_half_length(self, path: float, tail: float = PULSE_TAIL) -> float:
        """T_h: half-length of the two-way pulse after `path` meters of attenuation, s.

        The smallest T for which the part of irfft(S B² exp(-κ path)) outside ±T is below `tail` in relative L2.
        """
        acquisition, probe = self.acquisition, self.acquisition.probe
        if acquisition.is_continuous:
            raise ValueError(
                "n_cycles: a continuous wave (inf) has a pressure_field only: expected a finite number here"
            )
        span = 64 / (probe.bandwidth * probe.center_frequency) + 4 * acquisition.excitation_duration
        if acquisition.impulse_response is not None:
            span += 8 * acquisition.impulse_response.duration
        half = self._half_length(span, path, tail)
        for _ in range(4):  # a spectrum of steep edges rings for longer than its width tells
            if half < 0.4 * span:
                break
            span *= 2
            half = self._half_length(span, path, tail)
        return half

    def _half_length(self, span: float, path: float, tail: float) -> float:
        """`pulse_half_length` of a pulse of period `span`, s: at most half of it."""
        acquisition = self.acquisition
        rate = 4 * acquisition.sampling_frequency
        n = fast_length(math.ceil(span * rate))
        frequency = np.fft.rfftfreq(n, 1 / rate)
        low, high = self.band()
        loss = physics.attenuation(frequency, acquisition.medium.attenuation_db_cm_mhz)
        spectrum = self.excitation(frequency) * self.response(frequency) * np.exp(-loss * path)
        spectrum[(frequency < low) | (frequency > high)] = 0
        energy = np.fft.irfft(np.conj(spectrum), n) ** 2
        n_half = n // 2
        two_sided = energy[: n_half + 1].copy()  # energy at ±t, by t
        two_sided[1:n_half] += energy[:-n_half:-1]
        outside = two_sided[::-1].cumsum()[::-1]  # energy at |t| >= t
        first = int(np.argmax(outside <= tail**2 * outside[0]))
        return (first if outside[first] <= tail**2 * outside[0] else n_half) / rate

    def longest_distance(self, x: np.ndarray, z: np.ndarray, y: np.ndarray | None = None) -> float:
        """Largest way from an element to a point, m, with what the elevation adds to it; 0 without points."""
        if len(x) == 0:
            return 0.0
        probe = self.acquisition.probe
        if probe.is_matrix:  # the farthest element is at a corner
            half_x, half_y = float(probe.element_x.max()), float(probe.element_y.max())
            aside = np.hypot(np.abs(x) + half_x, (0.0 if y is None else np.abs(y)) + half_y)
            return float(np.hypot(aside, z).max())
        # Of a line or an arc of less than half a circle, one end is the farthest from any point in front.
        way = np.maximum(*(np.hypot(x - probe.element_x[e], z - probe.element_z[e]) for e in (0, -1)))
        if y is not None and self.lens is not None:  # from the farther edge; `elevation_path` is y / 2 at most
            way = np.hypot(way, np.abs(y) + self.lens.height / 2) + np.abs(y) / 2
        return float(way.max())

    def echo_end(self, longest_distance: float) -> float:
        """Time after which nothing comes back from scatterers up to `longest_distance` m away, s."""
        medium = self.acquisition.medium
        path = 2 * longest_distance
        late = self.firing_times[1].max() + max(self.receive_delays.max(), 0.0)
        latest: float = path / medium.speed_of_sound + late + 2 * self.pulse_half_length(path)
        return latest


def make_plan(acquisition: Acquisition, elevated: bool = False) -> Plan:
    """Return the plan of an acquisition, in three dimensions where points are `elevated`.

    Raises
    ------
    ValueError
        Points are elevated, and the probe has no element height.
    """
    probe, medium = acquisition.probe, acquisition.medium
    if probe.is_matrix:
        return _matrix_plan(acquisition)
    if elevated and math.isinf(probe.element_height):
        raise ValueError(
            f"Scatterers: y: expected a probe with an element_height, {probe.name} has none (infinite): give it one in "
            "m, or leave y out"
        )
    shortest = physics.shortest_wavelength(probe.center_frequency, probe.bandwidth, medium.speed_of_sound)
    n_sub = _n_subelements(acquisition.n_subelements, probe.element_width, shortest)
    sub_width = probe.element_width / n_sub
    offsets = (np.arange(n_sub) - (n_sub - 1) / 2) * sub_width  # along the element's tangent
    sine, cosine = np.sin(probe.element_angle), np.cos(probe.element_angle)
    return Plan(
        sub_x=probe.element_x[:, None] + offsets * cosine[:, None],
        sub_z=probe.element_z[:, None] - offsets * sine[:, None],
        sub_width=sub_width,
        lens=Lens(probe.element_height, probe.elevation_focus) if elevated else None,
        **_common(acquisition),
    )


def _matrix_plan(acquisition: Acquisition) -> Plan:
    """Return the plan of a matrix array, whose elements are cut along both sides."""
    probe, asked = acquisition.probe, acquisition.n_subelements
    shortest = physics.shortest_wavelength(probe.center_frequency, probe.bandwidth, acquisition.medium.speed_of_sound)
    sides = probe.element_width, probe.element_height
    counts = [_n_subelements(asked, side, shortest) for side in sides]
    offset_x, offset_y = ((np.arange(n) - (n - 1) / 2) * (side / n) for side, n in zip(sides, counts, strict=True))
    along_x, along_y = (axis.ravel() for axis in np.meshgrid(offset_x, offset_y))
    return Plan(
        sub_x=probe.element_x[:, None] + along_x,
        sub_z=np.zeros((probe.n_elements, along_x.size)),
        sub_width=sides[0] / counts[0],
        sub_y=probe.element_y[:, None] + along_y,
        sub_height=sides[1] / counts[1],
        **_common(acquisition),
    )


def _common(acquisition: Acquisition) -> dict[str, Any]:
    """Return what plans of all arrays have."""
    probe, medium = acquisition.probe, acquisition.medium
    sine, cosine = np.sin(probe.element_angle), np.cos(probe.element_angle)
    off = np.isnan(acquisition.transmit_delays)
    delays, weights = acquisition.transmit_delays, acquisition.transmit_weights
    receive_delays = (
        np.zeros(probe.n_elements) if acquisition.receive_delays is None else acquisition.receive_delays.copy()
    )
    if acquisition.aberration is not None:  # of both ways; what beamforms is not told
        one_row(probe, "aberration")
        screen = acquisition.aberration.delays(probe)
        delays, receive_delays = delays + screen, receive_delays + screen
    if acquisition.element_errors is not None:
        weights = weights * acquisition.element_gains
    return dict(
        acquisition=acquisition,
        sin_element=sine,
        cos_element=cosine,
        baffle=BAFFLES.get(probe.baffle, probe.baffle),  # type: ignore[arg-type]
        delays=np.where(off, 0.0, delays),
        weights=np.where(off, 0.0, weights[:, None, :]),
        receive_delays=receive_delays,
        minimum_distance=medium.speed_of_sound / probe.center_frequency / 2,
    )


def _n_subelements(asked: int | str | None, element_width: float, shortest: float) -> int:
    if asked is None:
        return math.ceil(element_width / (SUBELEMENT_WIDTH * shortest))
    return math.ceil(element_width / shortest) if isinstance(asked, str) else asked


def audible(scatterers: Scatterers, acquisition: Acquisition) -> Scatterers:
    """Return the scatterers that can echo, in host memory as float64: in front of the array, of non-zero reflectivity."""
    x, z, reflectivity = (to_numpy(a).astype(np.float64) for a in (scatterers.x, scatterers.z, scatterers.reflectivity))
    kept = ~acquisition.probe.is_behind(x, z) & (reflectivity != 0)
    y = None if scatterers.y is None else to_numpy(scatterers.y).astype(np.float64)[kept]
    return Scatterers(x[kept], z[kept], reflectivity[kept], y)


# --- demodulation ----------------------------------------------------------------------------------------------------


FILTER_ORDER = 5  # of the low-pass that demodulates: kernels are compiled for it
FILTER_EDGE = 3 * (FILTER_ORDER + 1)  # samples by which filtfilt extends a record at each end (odd extension)


class FilterLaw(NamedTuple):
    """A demodulation in checked numbers: what an engine's `mix_and_filter` takes beside the samples."""

    carrier: np.ndarray  # (n_samples,) complex, that the samples are multiplied by
    numerator: np.ndarray  # of the low-pass filter
    denominator: np.ndarray
    steady: np.ndarray  # state of the filter under a constant 1
    edge: int  # samples by which a record is extended at each end


# --- delay-and-sum ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Beamforming:
    """A delay-and-sum in checked numbers: what `Plan` is to a simulation."""

    acquisition: Acquisition
    grid: AnyGrid
    speed_of_sound: float  # m/s
    sampling_frequency: float  # Hz
    start_time: np.ndarray  # (n_transmits,) s; one number serves all
    demodulation_frequency: float  # Hz, 0 for RF data
    f_number: float  # 0: all elements
    interpolation: Interpolation
    normalize: bool
    weights: np.ndarray | None = None  # (n_transmits, nz, nx) float32; None: 1 everywhere
    compounding: str = "coherent"  # or "incoherent", "none"
    progress: Progress | None = None
    window: Window = BOXCAR  # over the aperture of a pixel
    gains: np.ndarray | None = None  # (n_elements,) weights of the elements; None: 1
    combination: Combination | None = None  # of the elements; None: their sum
    times: np.ndarray | None = (
        None  # (n_transmits, *grid.shape) s of arrival, known beforehand; None: by the acquisition
    )

    @property
    def has_phase(self) -> bool:
        """Whether images are sums of samples, complex where those are; otherwise magnitudes or coherences."""
        return self.compounding != "incoherent" and not isinstance(self.combination, COHERENCES)

    @property
    def rows_and_columns(self) -> tuple[int, int]:
        """The pixels as rows of neighbors, whatever their arrangement."""
        *rows, columns = self.grid.shape
        return math.prod(rows), columns

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(nz, nx), or (n_transmits, nz, nx) of transmits that are not compounded."""
        return (self.acquisition.n_transmits, *self.grid.shape) if self.compounding == "none" else self.grid.shape

    def __post_init__(self) -> None:
        starts = np.broadcast_to(np.asarray(self.start_time, dtype=np.float64), self.acquisition.n_transmits)
        object.__setattr__(self, "start_time", starts)
        reach = max(map(abs, self.receive_reach))
        if not reach <= LONGEST:  # NaN and infinity too
            raise ValueError(
                f"grid: its echoes take {reach:.3g} samples from a pixel to an element, expected at most "
                f"{LONGEST:.3g}: positions are in m, speeds in m/s, sampling frequencies in Hz, delays in s"
            )

    @cached_property
    def extents(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest x, and z, of the pixels, m."""
        x, z = self.grid.mesh()
        return np.array([x.min(), x.max()]), np.array([z.min(), z.max()])

    @cached_property
    def receive_reach(self) -> tuple[float, float]:
        """Bounds of the time from a pixel of the grid to an element, with the receive delay, in samples."""
        probe, delays = self.acquisition.probe, self.receive_delays * self.sampling_frequency
        x, z = np.meshgrid(*self.extents)  # a corner of the box about the pixels is the farthest from any element
        with np.errstate(over="ignore"):
            way = np.hypot(x.ravel()[:, None] - probe.element_x, z.ravel()[:, None] - probe.element_z).max()
            way = way / self.speed_of_sound * self.sampling_frequency
        return float(delays.min()), float(way + delays.max())

    def transmit_samples(
        self,
        x: np.ndarray,
        z: np.ndarray,
        n_samples: int,
        arrival_bounds: ArrivalBounds,
        part: tuple[slice, slice] | None = None,
    ) -> np.ndarray:
        """`transmit_times` as positions in records of `n_samples`, (n_transmits, *shape), shifted for the interpolation.

        Every one is finite and bounded, so that a kernel may index with it: a wave that never comes (a silent transmit), or
        whose echoes no element has in its record, stands just so far outside that none of them falls inside. `part` is where
        the points lie among `rows_and_columns`, the whole by default.
        """
        if n_samples > LONGEST:
            raise ValueError(f"samples: expected records of at most {LONGEST} samples, got {n_samples}")
        if self.times is None:
            positions = self.transmit_times(x, z, arrival_bounds)
        else:
            known = self.times.reshape(-1, *self.rows_and_columns)
            positions = (known if part is None else known[:, *part]).reshape(-1, *x.shape).copy()
        positions -= self.start_time.reshape(-1, *[1] * (positions.ndim - 1))
        positions *= self.sampling_frequency
        positions += self.interpolation.shift
        nearest, farthest = self.receive_reach
        return np.clip(positions, -OUTSIDE - farthest, n_samples + OUTSIDE - nearest, out=positions)

    @cached_property
    def transmit_phases(self) -> np.ndarray:
        """(n_transmits,) cycles of the demodulation frequency at `transmit_samples` of 0, less whole ones."""
        shift = self.interpolation.shift / self.sampling_frequency
        return (self.demodulation_frequency * (self.start_time - shift)) % 1.0

    @property
    def cos_acceptance(self) -> float:
        """Cosine of the widest angle to an element's normal that counts; -1 for all angles."""
        return cos_acceptance(self.f_number)

    @cached_property
    def receive_delays(self) -> np.ndarray:
        """(n_elements,) s, by which the acquisition delayed the echoes."""
        delays = self.acquisition.receive_delays
        return np.zeros(self.acquisition.probe.n_elements) if delays is None else delays.copy()

    @cached_property
    def live(self) -> np.ndarray:
        """(n_elements,) share of the transmits in which an element receives: 1 without a receive mask."""
        weights: np.ndarray = self.acquisition.receiving.mean(axis=0)
        return weights

    @cached_property
    def element_gains(self) -> np.ndarray:
        """(n_elements,) weights of the elements, 1 unless given."""
        return np.ones(self.acquisition.probe.n_elements) if self.gains is None else self.gains.copy()

    @property
    def is_windowed(self) -> bool:
        """Whether elements of an aperture count differently."""
        return self.gains is not None or self.window != BOXCAR

    def element_weights(self, element: int, dx: np.ndarray, dz: np.ndarray) -> np.ndarray:
        """Return how much an element counts at pixels that lie dx, dz from it: its weight and the window's, 0 outside.

        |arcsin(dx / d) - θ_e| <= atan(1 / (2 f#)), which is |dx| <= z / (2 f#) where θ_e = 0; the window is over the tangent
        of that angle, from 0 on the normal to 1 at the aperture's edge: over |dx| / (z / (2 f#)).
        """
        angle = self.acquisition.probe.element_angle[element]
        sine, cosine = np.sin(angle), np.cos(angle)
        toward = np.abs(dz) * cosine + dx * sine
        weight: np.ndarray = np.asarray(toward >= self.cos_acceptance * np.hypot(dx, dz)) * self.element_gains[element]
        if self.window != BOXCAR:
            across = np.abs(dx * cosine - np.abs(dz) * sine)
            place = np.where(toward > 0, 2 * self.f_number * across / np.where(toward > 0, toward, 1), 0)
            weight = weight * self.window.at(np.minimum(place, 1))
        return weight

    def transmit_times(self, x: np.ndarray, z: np.ndarray, arrival_bounds: ArrivalBounds) -> np.ndarray:
        """`transmit_time` at points: (n_transmits, *shape) s; the bounds are found by the engine that asks."""
        return arrival_times(self.acquisition, x, z, self.speed_of_sound, arrival_bounds)
