"""The simulator at the wires: what each element records of each wire in each transmit, cut to the windows of a recording.

The formulas are those of the reference engine (`engines.reference`: Garcia 2022), evaluated for each wire in its own window
of time, as the CPU engine does for its cells.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

import numpy as np
from scipy.fft import irfft, next_fast_len

from ..acquisition import Acquisition
from ..engines.reference import Geometry
from ..plan import make_plan
from .parameters import PARAMETERS, Values, acquisition_at
from .views import Views, echo_times, lateness

HIGHEST_RATIO = 2.2  # of the center frequency at the start: the model ends at 2, and the center frequency moves


class Model:
    """Predicted echoes of wires of amplitude 1 under elements of gain 1, and their derivatives.

    Attributes
    ----------
    acquisition : Acquisition
        The start: firing times and weights, receive delays, all that is not fitted.
    views : Views
        The windows.
    """

    def __init__(
        self, acquisition: Acquisition, views: Views, start_times: np.ndarray, sampling_frequency: float
    ) -> None:
        self.acquisition, self.views = acquisition, views
        self._times = start_times, sampling_frequency
        self._n_fft = next_fast_len(2 * views.samples.shape[-1], real=True)  # what is heard ends before it comes round
        self._clock = _Clock(acquisition, views, start_times, sampling_frequency, self._n_fft)

    @property
    def count(self) -> int:
        """Number of samples compared."""
        count: int = int(self.views.used.sum()) * self.views.samples.shape[-1]
        return count

    @property
    def sampling_frequency(self) -> float:
        """Of the windows, Hz."""
        return self._times[1]

    @property
    def frequency(self) -> np.ndarray:
        """(n_frequencies,) of the windows' spectra, Hz."""
        return self._clock.frequency

    def of(self, acquisition: Acquisition) -> Model:
        """Return the model of another acquisition at the same windows."""
        return Model(acquisition, self.views, *self._times)

    def seeing(self, samples: np.ndarray) -> Model:
        """Return the model beside other samples (n_views, n_elements, n_window) at the same windows."""
        return Model(self.acquisition, replace(self.views, samples=samples), *self._times)

    def spectra(self, values: Values, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return (n_views, n_elements, n_frequencies), the spectra of the windows of wires at x, z (m)."""
        return self._clock.spectra(acquisition_at(self.acquisition, values), values, x, z, self.views.wire)

    def signals(self, spectra: np.ndarray) -> np.ndarray:
        """Return (n_views, n_elements, n_window), the windows that spectra stand for, 0 where not used."""
        whole = np.zeros((*spectra.shape[:-1], self._n_fft // 2 + 1), dtype=np.complex128)
        whole[..., self._clock.bins] = spectra
        signals = irfft(whole, self._n_fft, axis=-1)[..., : self.views.samples.shape[-1]]
        return np.where(self.views.used[:, :, None], signals, 0.0)

    def echoes(self, values: Values, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return (n_views, n_elements, n_window), the predicted windows."""
        return self.signals(self.spectra(values, x, z))

    def derivatives(
        self, values: Values, x: np.ndarray, z: np.ndarray, names: tuple[str, ...]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the windows, and their derivatives in each named number (as it is fitted), in "x", "z" and "later" (s).

        Time and phase are exact; the others are differences of the simulator.
        """
        spectra = self.spectra(values, x, z)
        echoes = self.signals(spectra)
        later = self.signals(-2j * np.pi * self.frequency * spectra)
        found = {"later": later}
        for name in names:
            if name == "time_zero":
                found[name] = later
            elif name == "pulse_phase":
                found[name] = self.signals(1j * spectra)
            else:
                step = PARAMETERS[name].step
                moved = values.put({name: values.get(name) + step})
                found[name] = (self.echoes(moved, x, z) - echoes) / step
        step = 1e-5 * values.speed_of_sound / values.center_frequency
        found["x"] = (self.echoes(values, x + step, z) - echoes) / step
        found["z"] = (self.echoes(values, x, z + step) - echoes) / step
        return echoes, found

    def record(
        self, values: Values, x: np.ndarray, z: np.ndarray, amplitudes: np.ndarray, gains: np.ndarray
    ) -> np.ndarray:
        """Return (n_views, n_elements, n_window), what all wires with all their edge waves put into the windows."""
        start_times, rate = self._times
        n_window = self.views.samples.shape[-1]
        transmits = np.unique(self.views.transmit)
        late = lateness(self.acquisition, x, z, values.speed_of_sound)
        times = echo_times(self.acquisition, x, z, values.speed_of_sound) + values.time_zero
        n_fft = next_fast_len(
            math.ceil(float(late[transmits][np.isfinite(late[transmits])].max()) * rate) + 2 * n_window, real=True
        )
        first = np.rint((times - start_times[:, None, None]) * rate).astype(int) - n_window // 2
        lowest = int(min(first.min(), self.views.first.min()))
        length = int(max(first.max() + n_fft, self.views.first.max() + n_window)) - lowest
        total = np.zeros(self.views.samples.shape)
        wire, elements = np.arange(len(x)), np.arange(first.shape[-1])
        for a in transmits:
            every = np.ones((len(x), *late.shape[2:]), dtype=bool)
            views = Views(wire, np.full(len(x), a), first[a], np.zeros((len(x), 1, n_fft)), every[:, 0], every)
            clock = _Clock(self.acquisition, views, start_times, rate, n_fft)
            spectra = clock.spectra(acquisition_at(self.acquisition, values), values, x, z, wire)
            whole = np.zeros((*spectra.shape[:-1], n_fft // 2 + 1), dtype=np.complex128)
            whole[..., clock.bins] = spectra * (amplitudes[:, None] * np.nan_to_num(gains))[:, :, None]
            echoes = irfft(whole, n_fft, axis=-1)
            line = np.zeros((len(elements), length))
            for k in wire:
                at = first[a, k][:, None] - lowest + np.arange(n_fft)
                line[elements[:, None], at] += echoes[k]
            for v in np.flatnonzero(self.views.transmit == a):
                at = self.views.first[v][:, None] - lowest + np.arange(n_window)
                total[v] = line[elements[:, None], at]
        return np.where(self.views.used[:, :, None], total, 0.0)

    @cached_property
    def scale(self) -> float:
        """Wavelength at the start, m."""
        return self.acquisition.medium.speed_of_sound / self.acquisition.probe.center_frequency


class _Clock:
    """Spectra of windows: the phases of firing times and of the windows' starts, which do not change in a fit."""

    def __init__(
        self, acquisition: Acquisition, views: Views, start_times: np.ndarray, sampling_frequency: float, n_fft: int
    ) -> None:
        frequency = np.fft.rfftfreq(n_fft, 1 / sampling_frequency)
        highest = min(HIGHEST_RATIO * acquisition.probe.center_frequency, sampling_frequency / 2)
        self.bins = np.flatnonzero((frequency > 0) & (frequency < highest))
        self.frequency = frequency[self.bins]
        start = start_times[views.transmit][:, None] + views.first / sampling_frequency  # (n_views, n_elements)
        self._start = np.exp(2j * np.pi * self.frequency * start[:, :, None])
        plan = make_plan(acquisition)
        weights = (plan.weights * np.ones_like(plan.delays))[
            views.transmit
        ] * views.heard  # (n_views, n_laws, n_elements)
        fired = np.exp(2j * np.pi * self.frequency * plan.delays[views.transmit][..., None])
        self._drive = np.einsum("vle,vlef->vef", weights, fired)

    def spectra(
        self, acquisition: Acquisition, values: Values, x: np.ndarray, z: np.ndarray, wire: np.ndarray
    ) -> np.ndarray:
        """(n_views, n_elements, n_frequencies) of an acquisition's echoes of wires."""
        plan = make_plan(acquisition)
        with np.errstate(over="ignore"):  # far outside of a narrow band, where the response is exp(-inf)
            shared = plan.excitation(self.frequency) * plan.response(self.frequency)
        shared = shared * np.exp(2j * np.pi * self.frequency * values.time_zero - 1j * values.pulse_phase)
        delays = np.exp(2j * np.pi * self.frequency * plan.receive_delays[:, None])
        echoes = np.empty(self._start.shape, dtype=np.complex128)
        geometry = Geometry(plan, x, z)
        for i, f in enumerate(self.frequency):
            response = geometry.response(f)[wire]
            echoes[:, :, i] = (self._drive[:, :, i] * response).sum(axis=1)[:, None] * response
        slope: np.ndarray = np.conj(echoes * (shared * delays)) * self._start
        return slope
