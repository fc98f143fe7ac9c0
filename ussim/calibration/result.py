"""The result of a calibration, and the acquisition that it makes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
from scipy.signal import hilbert

from ..acquisition import Acquisition
from ..probes import Imaging
from ..transmits import CustomTransmits
from ..types import ImageGrid
from .findings import Findings
from .recording import LOWEST_RATIO


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibration(Findings):
    """A probe and a medium fitted to a recording.

    Attributes
    ----------
    phantom : str
        "wires" or "speckle".
    estimates : dict
        Name -> `Estimate`, of center_frequency, bandwidth, n_cycles, pulse_phase, speed_of_sound, time_zero (s by which
        echoes come later than the recording's clock says) and attenuation_db_cm_mhz.
    gains, gain_uncertainty : np.ndarray
        (n_elements,) sensitivity of each element, mean 1, and two standard deviations; NaN where nothing tells.
    delays, delay_uncertainty : np.ndarray
        (n_elements,) s by which the echoes of each element are late, mean 0 (what they have in common is time_zero), and two
        standard deviations; NaN where nothing tells.
    dead : np.ndarray
        (n,) numbers of the elements that hear nothing, from 0.
    wires : np.ndarray
        (n_wires, 2) x and z found, m; empty of speckle.
    correlated : tuple
        (name, name, correlation) of numbers that the recording tells less well apart than each alone.
    cannot_tell : tuple of str
        What the recording could not tell, a sentence each.
    misfit, noise : float
        RMS of recorded minus simulated within the windows of the echoes, and of the record elsewhere, relative to the RMS of
        the echoes.
    recording : Acquisition
        What the file says of itself.
    start_time : np.ndarray
        (n_transmits,) time of each transmit's first sample with time_zero taken off, s.
    pictures : dict
        Arrays of the report.
    acquisition : Acquisition
        The recording's, with everything fitted: probe, medium, pulse, delays and dead elements.
    probe : Probe
        The probe fitted.
    """

    def save_probe(self, path: str | PathLike[str]) -> None:
        """Write the probe as a TOML file, which `load_probe` and every `--probe` take.

        Parameters
        ----------
        path : str or Path
            The .toml file.
        """
        from .files import write_probe

        write_probe(self, path)

    def save_report(self, path: str | PathLike[str]) -> None:
        """Write the report: one HTML file with all pictures in it.

        Parameters
        ----------
        path : str or Path
            The .html file.
        """
        from .report import write_report

        write_report(self, path)


def fitted_acquisition(
    recording: Acquisition,
    at: Acquisition,
    phase: float,
    delays: np.ndarray,
    dead: np.ndarray,
    name: str,
    field_of_view: Imaging,
) -> Acquisition:
    """Return the acquisition that simulates the scanner of a recording.

    Parameters
    ----------
    recording : Acquisition
        What the file says.
    at : Acquisition
        With the shared numbers fitted (`parameters.acquisition_at`), firing times as recorded.
    phase : float
        Of the pulse, rad; 0 keeps the built-in excitation, another makes a waveform of it.
    delays : np.ndarray
        (n_elements,) s, NaN where not told.
    dead : np.ndarray
        Numbers of elements that neither send nor hear.
    name : str
        Of the probe.
    field_of_view : Imaging
        Of the probe where it has none.

    Returns
    -------
    Acquisition
    """
    probe = replace(at.probe, name=name, path="", imaging=at.probe.imaging or field_of_view)
    probe = replace(probe, source=f"calibrated on a recording with {recording.probe.name}")
    changed: dict[str, Any] = {"probe": probe, "n_subelements": recording.n_subelements}
    if at.sampling_frequency < LOWEST_RATIO * probe.center_frequency:  # the simulator needs that many
        changed["sampling_frequency"] = LOWEST_RATIO * probe.center_frequency
    weights = at.transmit_weights.copy()
    weights[:, dead] = 0.0
    changed["waves"] = CustomTransmits(at.transmit_delays, weights)
    late = np.nan_to_num(delays)
    if late.any():
        changed["receive_delays"] = late if recording.receive_delays is None else recording.receive_delays + late
    if len(dead):
        mask = recording.receiving.copy()
        mask[:, dead] = False
        changed["receive_mask"] = mask
    if phase:
        changed |= {"waveform": turned_pulse(at.n_cycles, at.carrier_frequency, phase), "n_cycles": 1.0}
    return replace(at, **changed)


def field_of(grid: ImageGrid, acquisition: Acquisition) -> Imaging:
    """Return what a recording shows as a field of view: as wide as the array, within the depths of its image."""
    half = max(abs(float(acquisition.probe.element_x[0])), 1e-3)
    return Imaging(x=(-half, half), z=(float(grid.z[0]), float(grid.z[-1])))


def turned_pulse(n_cycles: float, frequency: float, phase: float) -> tuple[np.ndarray, float]:
    """Return (samples, rate) of the built-in excitation, n_cycles of a sine, with its phase turned by `phase` rad."""
    rate = 32 * frequency
    reach = int(np.ceil((n_cycles / 2 + 16) * 32))  # the turned pulse fades as 1 / t
    time = np.arange(-reach, reach + 1) / rate
    sine = np.where(np.abs(time) <= n_cycles / frequency / 2, np.sin(2 * np.pi * frequency * time), 0.0)
    return np.real(hilbert(sine) * np.exp(1j * phase)), rate
