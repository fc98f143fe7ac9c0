"""zea files (HDF5, version 0.1), which OpenH-RF uses too: frames of RF or IQ with scan and probe.

`tracks/track_0/data/raw_data` (frames, transmits, samples, elements, 1 of RF or 2 of IQ), `scan/` beside it, `probe/` at
the root; earlier files have data and scan at the root. Time 0 is when the first element fires; `initial_times` are those
of sample 0, and the pulse has its middle t_peak after the firing: at the peak of `waveforms_two_way`, or
1 / center_frequency. IQ is counted from sample 0, not from time 0.
"""

from __future__ import annotations

import math
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ...acquisition import Acquisition
from ...arrays import to_numpy
from ...errors import DataError
from ...medium import Medium
from ...probes import Probe
from ...transmits import CustomTransmits, PlaneWaves, Waves
from ..atomic import replacing
from .facts import Facts
from .geometry import preset_named, probe_at
from .hdf5 import Stored, data_set, find, number, numbers, opened, text
from .recording import Recording

VERSION = "0.1.8"  # of the layout that is written
WAVEFORM_RATE = 250e6  # Hz, of waveforms_two_way
SAME_TIME = 2e-9  # s: firing times in float32 against those of a plane wave
CLOCK = "the first element fires"


def is_zea(file: Any) -> bool:
    """Return whether an HDF5 file has this layout."""
    return track_of(file) is not None


def track_of(file: Any) -> Any:
    """Return the group with `data/raw_data` and `scan`, None where there is none."""
    tracks = find(file, "tracks")
    names = sorted(tracks) if hasattr(tracks, "keys") else []
    for group in [*(find(tracks, name) for name in names), file]:
        if hasattr(group, "keys") and hasattr(find(group, "data"), "keys") and hasattr(find(group, "scan"), "keys"):
            return group
    return None


def open_zea(path: Path, variable: str | None, facts: Facts) -> Recording:
    """Open a zea file: the track named `variable`, the first one by default."""
    with opened(path) as file:
        tracks = find(file, "tracks")
        if variable is not None:
            names = sorted(tracks) if hasattr(tracks, "keys") else []
            if variable not in names:
                raise DataError(f"{path}: variable: expected a track, {', '.join(names) or 'none'}, got {variable!r}")
            track = find(tracks, variable)
        else:
            track = track_of(file)
        raw = None if track is None else data_set(track, "data/raw_data")
        if track is None or raw is None:
            held: Any = find(track, "data") if track is not None else None
            raise DataError(
                f"{path}: expected a zea file with data/raw_data, got "
                f"{'data/' + ', data/'.join(sorted(held)) if hasattr(held, 'keys') and len(held) else 'none'}"
            )
        if raw.ndim != 5 or raw.shape[-1] not in (1, 2) or 0 in raw.shape or raw.dtype.kind not in "fi":
            raise DataError(
                f"{path}: data/raw_data: expected (frames, transmits, samples, elements, 1 or 2), "
                f"got {raw.shape} {raw.dtype}"
            )
        n_frames, n_transmits, n_samples, n_channels, parts = raw.shape
        scan, notes = find(track, "scan"), list[str]()
        probe = facts.probe or _probe(file, scan, notes)
        rate = number(scan, "sampling_frequency")
        carrier = _one(scan, "center_frequency", probe.center_frequency)
        demodulation = _one(scan, "demodulation_frequency", carrier) if parts == 2 else None
        speed = number(scan, "sound_speed", 1540.0)
        delays = _table(scan, "t0_delays", (n_transmits, probe.n_elements))
        if delays is None:
            raise DataError(
                f"{path}: scan/t0_delays: expected ({n_transmits}, {probe.n_elements}) firing times, got none"
            )
        weights = _table(scan, "tx_apodizations", (n_transmits, probe.n_elements))
        angles = _table(scan, "polar_angles", (n_transmits,))
        times = _table(scan, "initial_times", (n_transmits,))
        waits = _waits(scan)
        peak = _time_to_peak(scan, carrier, n_transmits)
        start_times = (np.zeros(n_transmits) if times is None else times) - peak
        places = _apertures(scan, n_transmits, n_channels, probe.n_elements)
        if data_set(scan, "tgc_gain_curve") is not None:
            notes.append("the samples have the time gain of the scanner")
        name = raw.name
    stored = Stored(str(path), name)

    def read(frame: int) -> np.ndarray:
        samples = stored[frame]  # (n_transmits, n_samples, n_channels, parts)
        if demodulation is None:
            values = samples[..., 0]
        else:
            pairs = np.asarray(samples, dtype=np.float32)
            values = pairs[..., 0] + 1j * pairs[..., 1]
            values = values * np.exp(-2j * np.pi * ((demodulation * start_times) % 1.0))[:, None, None]
        values = values.transpose(0, 2, 1)
        if places is None:
            return values
        whole = np.zeros((n_transmits, probe.n_elements, n_samples), dtype=values.dtype)
        for transmit, place in enumerate(places):
            whole[transmit, place] = values[transmit]
        return whole

    waves = _waves(delays, weights, angles, probe, Medium(speed))
    mask = None
    if places is not None:
        mask = np.zeros((n_transmits, probe.n_elements), dtype=bool)
        for transmit, place in enumerate(places):
            mask[transmit, place] = True
    same = abs(carrier - probe.center_frequency) <= 1e-3 * probe.center_frequency
    acquisition = Acquisition(
        probe,
        waves,
        Medium(speed),
        sampling_frequency=rate,
        transmit_frequency=None if same else carrier,
        receive_mask=mask,
    )
    return Recording(
        str(path),
        "zea",
        acquisition,
        rate,
        start_times if np.ptp(start_times) else float(start_times[0]),
        n_frames=n_frames,
        n_samples=n_samples,
        read=read,
        demodulation_frequency=demodulation,
        clock=CLOCK,
        notes=tuple(notes),
        firing_times=_firing_times(waits, n_frames, n_transmits),
    )


def write_zea(path: str | PathLike[str], recording: Recording) -> None:
    """Write a zea file, frame by frame. Times are float32 there, so that they come back to within 1e-7 of themselves.

    Raises
    ------
    ValueError
        zea has no word for the acquisition.
    """
    import h5py

    acquisition, probe = recording.acquisition, recording.acquisition.probe
    laws = acquisition.transmit_delays
    if laws.shape[1] != 1:
        raise ValueError(f"{path}: a zea file has one law of delays per transmit: save as .npz")
    weights = acquisition.transmit_weights
    off = np.isnan(laws[:, 0]) | (weights == 0)
    earliest = np.where(off, np.inf, laws[:, 0]).min(axis=1)
    if not np.isfinite(earliest).all():
        raise ValueError(
            f"{path}: a zea file has no silent transmits, got one without an element that fires: save as .npz"
        )
    delays = np.where(off, 0.0, laws[:, 0] - earliest[:, None])
    starts = np.broadcast_to(np.asarray(recording.start_time, dtype=float), len(delays)) - earliest
    carrier = acquisition.carrier_frequency
    scan = {
        "sampling_frequency": (recording.sampling_frequency, "Hz", "Sampling frequency."),
        "center_frequency": (carrier, "Hz", "Center frequency of the transmitted pulse."),
        "demodulation_frequency": (recording.demodulation_frequency or carrier, "Hz", "Demodulation frequency."),
        "initial_times": (starts + 1 / carrier, "s", "Time of the first sample of each transmit."),
        "t0_delays": (delays, "s", "Firing time of each element."),
        "tx_apodizations": (np.where(off, 0.0, weights), "–", "Transmit apodization of each element."),
        "focus_distances": (_focus_distances(acquisition), "m", "Distance of the focus; infinite of a plane wave."),
        "transmit_origins": (np.zeros((len(delays), 3)), "m", "Where each transmit starts (x, y, z)."),
        "polar_angles": (_angles(acquisition), "rad", "Angle of each transmit."),
        "sound_speed": (acquisition.medium.speed_of_sound, "m/s", "Speed of sound."),
    }
    if recording.firing_times is not None and recording.firing_times.size > 1:
        fired = recording.firing_times.ravel()
        waits = np.append(np.diff(fired), np.diff(fired).mean()).reshape(recording.firing_times.shape)
        scan["time_to_next_transmit"] = (waits, "s", "Time from each transmit to the next.")
    geometry = np.stack([probe.element_x, np.zeros(probe.n_elements), probe.element_z - probe.element_z.max()], axis=1)
    array = {
        "name": (probe.name, "–", "Name of the probe."),
        "type": ("linear" if probe.is_flat else "curved", "–", "Kind of array."),
        "probe_center_frequency": (probe.center_frequency, "Hz", "Center frequency of the probe."),
        "probe_bandwidth_percent": (100 * probe.bandwidth, "%", "Fractional bandwidth."),
        "probe_geometry": (geometry, "m", "Element positions (x, y, z)."),
        "element_width": (probe.element_width, "m", "Width of an element."),
    }
    if math.isfinite(probe.element_height):
        array["element_height"] = (probe.element_height, "m", "Height of an element.")
    with replacing(path) as temporary, h5py.File(temporary, "w", libver=("earliest", "v110")) as file:
        file.attrs["zea_version"] = VERSION
        file.attrs["description"] = "Written by ussim"
        for name in ("metadata", "metrics"):
            file.create_group(name)
        track = file.create_group("tracks/track_0")
        _write_table(file.create_group("probe"), array)
        _write_table(track.create_group("scan"), scan)
        parts = 1 if recording.demodulation_frequency is None else 2
        shape = (recording.n_frames, len(delays), recording.n_samples, probe.n_elements, parts)
        raw = track.create_dataset("data/raw_data", shape, np.float32, chunks=(1, *shape[1:]) if _fits(shape) else True)
        raw.attrs["unit"], raw.attrs["description"] = "–", "Raw channel data."
        for frame in range(recording.n_frames):
            samples = to_numpy(recording.read(frame)).transpose(0, 2, 1)
            if recording.demodulation_frequency is None:
                raw[frame, ..., 0] = samples
            else:  # counted from sample 0
                turned = np.exp(2j * np.pi * ((recording.demodulation_frequency * (starts + earliest)) % 1.0))
                samples = samples * turned[:, None, None]
                raw[frame] = np.stack([samples.real, samples.imag], axis=-1)


# --- parts -----------------------------------------------------------------------------------------------------------


def _probe(file: Any, scan: Any, notes: list[str]) -> Probe:
    group = find(file, "probe")
    group = group if hasattr(group, "keys") else scan  # earlier files have the array among the scan's values
    name = text(group, "name") or str(file.attrs.get("probe_name", file.attrs.get("probe", "")))[:200]
    positions = numbers(group, "probe_geometry")
    base = preset_named(name)
    if positions is None:
        if base is None:
            raise ValueError("probe/probe_geometry: expected element positions, got none: say the probe, --probe")
        notes.append(f"the probe is {base.name}")
        return base
    known = {
        "name": name,
        "center_frequency": number(group, "probe_center_frequency", 0.0),
        "bandwidth": number(group, "probe_bandwidth_percent", 0.0) / 100,
        "element_width": number(group, "element_width", 0.0),
        "element_height": number(group, "element_height", 0.0),
    }
    if base is None and not known["center_frequency"]:
        known["center_frequency"] = _one(scan, "center_frequency", 0.0)
    return probe_at(positions, base, notes, **known)


def _one(scan: Any, name: str, default: float) -> float:
    """Return a frequency that is the same of all transmits."""
    values = numbers(scan, name)
    if values is None or not values.size:
        return default
    if np.ptp(values) > 1e-6 * np.abs(values).max():
        raise ValueError(f"scan/{name}: expected one of all transmits, got {values.min():g} to {values.max():g} Hz")
    return float(values.ravel()[0]) or default


def _table(scan: Any, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    values = numbers(scan, name)
    if values is None:
        return None
    if values.shape != shape or not np.isfinite(values).all():
        raise ValueError(f"scan/{name}: expected {shape} finite numbers, got shape {values.shape}")
    return values


def _waits(scan: Any) -> np.ndarray | None:
    """(n_frames, n_transmits) s from each transmit to the next; None where there is no such table that can be read."""
    try:
        return numbers(scan, "time_to_next_transmit")
    except ValueError:  # only what needs the times asks for them: the echoes are there all the same
        return None


def _firing_times(waits: np.ndarray | None, n_frames: int, n_transmits: int) -> np.ndarray | None:
    """(n_frames, n_transmits) s, from the times between transmits; None where they are not told, or are no times."""
    if waits is None or waits.shape != (n_frames, n_transmits):
        return None
    if not (np.isfinite(waits).all() and (waits.ravel()[:-1] > 0).all()):
        return None
    return np.concatenate([[0.0], np.cumsum(waits.ravel()[:-1], dtype=np.float64)]).reshape(n_frames, n_transmits)


def _time_to_peak(scan: Any, carrier: float, n_transmits: int) -> np.ndarray:
    """Time from the firing to the middle of the two-way pulse, (n_transmits,) s."""
    group = find(scan, "waveforms_two_way")
    waveforms = None if hasattr(group, "keys") else numbers(scan, "waveforms_two_way")
    if waveforms is None or waveforms.ndim != 2 or len(waveforms) != n_transmits or not waveforms.any(axis=1).all():
        return np.full(n_transmits, 1 / carrier)
    from scipy.signal import hilbert

    peaks: np.ndarray = np.abs(hilbert(waveforms, axis=-1)).argmax(axis=-1) / WAVEFORM_RATE
    return peaks


def _apertures(scan: Any, n_transmits: int, n_channels: int, n_elements: int) -> np.ndarray | None:
    """(n_transmits, n_channels) elements that the channels are of, None where every element has its channel."""
    places = numbers(scan, "rx_aperture_indices")
    if places is None:
        if n_channels != n_elements:
            raise ValueError(
                f"data/raw_data: expected {n_elements} elements, as the probe has, got {n_channels} channels"
            )
        return None
    if places.shape != (n_transmits, n_channels) or places.min() < 0 or places.max() >= n_elements:
        raise ValueError(
            f"scan/rx_aperture_indices: expected ({n_transmits}, {n_channels}) numbers of elements below {n_elements}, "
            f"got shape {places.shape}"
        )
    return places.astype(int)


def _waves(
    delays: np.ndarray, weights: np.ndarray | None, angles: np.ndarray | None, probe: Probe, medium: Medium
) -> Waves:
    """Plane waves where the firing times are theirs, else the times as given."""
    even = weights is None or bool((weights == 1).all())
    if angles is not None and even and np.all(np.abs(angles) < np.pi / 2):
        plane = PlaneWaves(angles)
        if np.abs(plane.delays(probe, medium) - delays).max() < SAME_TIME:
            return plane
    return CustomTransmits(delays, None if even else weights)


def _angles(acquisition: Acquisition) -> np.ndarray:
    angles = getattr(acquisition.waves, "angles", None)
    return np.zeros(acquisition.n_transmits) if angles is None else angles


def _focus_distances(acquisition: Acquisition) -> np.ndarray:
    """Signed distance of the focus of each transmit from the array, infinite of a plane wave."""
    x, z = getattr(acquisition.waves, "x", None), getattr(acquisition.waves, "z", None)
    if x is None or z is None:
        return np.full(acquisition.n_transmits, np.inf)
    distance: np.ndarray = np.hypot(x, z) * np.sign(z)
    return distance


def _write_table(group: Any, table: dict[str, tuple[Any, str, str]]) -> None:
    for name, (value, unit, description) in table.items():
        data = value if isinstance(value, str) else np.asarray(value, dtype=np.float32)
        group.create_dataset(name, data=data)
        group[name].attrs["unit"], group[name].attrs["description"] = unit, description


def _fits(shape: tuple[int, ...]) -> bool:
    """Return whether a frame is a chunk that HDF5 takes."""
    return 4 * math.prod(shape[1:]) < 1 << 31
