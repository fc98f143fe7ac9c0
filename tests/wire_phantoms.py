"""Simulated recordings of wires and of speckle by a scanner that differs from what its file says."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import hilbert

import ussim

PROBE = ussim.Probe("test", 5e6, 0.7, 40, 0.3e-3, 0.27e-3, imaging=ussim.Imaging(x=(-6e-3, 6e-3), z=(4e-3, 30e-3)))
WIRES = np.array([[0.2, 6.0], [-3.0, 9.5], [2.8, 13.0], [-0.4, 17.0], [3.5, 21.0], [-2.5, 25.0], [0.5, 29.0]]) * 1e-3


@dataclass(frozen=True, eq=False)
class Scanner:
    """What a scanner is; `recording` gives what it records, in a file that believes the nominal values."""

    center_frequency: float = 5.3e6
    bandwidth: float = 0.62
    n_cycles: float = 1.5
    pulse_phase: float = 0.7
    speed_of_sound: float = 1490.0
    attenuation_db_cm_mhz: float = 0.5
    time_zero: float = 0.6e-6
    gains: np.ndarray = None
    delays: np.ndarray = None
    sends_as_hears: bool = True

    @classmethod
    def drawn(cls, seed: int, dead=(7, 30), **given) -> Scanner:
        """A scanner with elements of all sorts: gains of 10 % spread, delays of 8 ns, dead ones."""
        rng = np.random.default_rng([seed, 1])
        gains = 1 + 0.1 * rng.standard_normal(PROBE.n_elements)
        gains[list(dead)] = 0
        alive = gains != 0
        gains /= gains[alive].mean()
        delays = np.where(alive, 8e-9 * rng.standard_normal(PROBE.n_elements), 0)
        return cls(gains=gains, delays=np.where(alive, delays - delays[alive].mean(), 0), **given)

    def speckle(self, seed: int, snr_db=20.0, angles=(-8.0, -4.0, 0.0, 4.0, 8.0), count=5000) -> ussim.RFData:
        """The same of scatterers anywhere, to 30 mm."""
        rng = np.random.default_rng([seed, 3])
        points = np.c_[rng.uniform(-9e-3, 9e-3, count), rng.uniform(1e-3, 32e-3, count)]
        whole = self.recording(seed, points, snr_db, angles, level=rng.standard_normal(count))
        return replace(whole, samples=whole.samples[..., : int(40e-6 * whole.sampling_frequency)])

    def recording(
        self, seed: int, wires=WIRES, snr_db=20.0, angles=(-6.0, 0.0, 6.0), probe=PROBE, level=None
    ) -> ussim.RFData:
        """Channel data with white noise `snr_db` below the RMS of the record, as `datagen` counts it."""
        rng = np.random.default_rng([seed, 2])
        nominal = ussim.Acquisition(
            probe,
            ussim.PlaneWaves(np.deg2rad(angles)),
            ussim.Medium(1540.0),
            sampling_frequency=5 * probe.center_frequency,
        )
        gains = np.ones(probe.n_elements) if self.gains is None else self.gains
        true = ussim.Acquisition(
            replace(probe, center_frequency=self.center_frequency, bandwidth=self.bandwidth),
            ussim.CustomTransmits(nominal.transmit_delays, gains if self.sends_as_hears else None),
            ussim.Medium(self.speed_of_sound, self.attenuation_db_cm_mhz),
            sampling_frequency=nominal.sampling_frequency,
            n_cycles=self.n_cycles,
            receive_delays=self.delays,
        )
        level = rng.uniform(0.8, 1.2, len(wires)) if level is None else level
        rf = ussim.simulate(ussim.Scatterers(wires[:, 0], wires[:, 1], level), true, engine="cpu")
        analytic = hilbert(np.asarray(rf.samples, np.float64), axis=-1)
        samples = np.real(analytic * np.exp(1j * self.pulse_phase)) * gains[None, :, None]
        samples += np.sqrt((samples**2).mean()) * 10 ** (-snr_db / 20) * rng.standard_normal(samples.shape)
        return ussim.RFData(samples.astype(np.float32), nominal, nominal.sampling_frequency, self.time_zero)
