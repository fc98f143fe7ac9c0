"""UFF files of USTB (HDF5, version 0.0.1): channel data with a sequence of waves and a probe.

A `uff.channel_data` group has `data` (samples, channels, waves, frames in MATLAB's order: reversed in HDF5), a pair real and
imag where it is complex, and `sequence`, one `uff.wave` or several. Time 0 is when the wave passes the origin;
`initial_time` + the wave's `delay` is the time of sample 0. Its bytes are read by h5py, frame by frame.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ...acquisition import Acquisition
from ...arrays import to_numpy
from ...errors import DataError
from ...medium import Medium
from ...probes import Probe
from ...transmits import DivergingWaves, FocusedWaves, PlaneWaves, Waves
from ..atomic import replacing
from .axes import find_layout
from .facts import Facts
from .geometry import middle_of, preset_named, probe_at
from .hdf5 import Stored, data_set, find, number, numbers, opened
from .recording import Recording

USUAL = ("frames", "transmits", "elements", "samples")  # as HDF5 has the axes
PLANE, SPHERICAL = 0, 1
CLOCK = "the wave passes the origin"


def channel_data_name(file: Any) -> str | None:
    """Name of the first group of channel data, None where there is none."""
    return next((name for name in file if _class_of(find_quietly(file, name)) == "uff.channel_data"), None)


def find_quietly(group: Any, name: str) -> Any:
    """As `find`; None of links out."""
    try:
        return find(group, name)
    except ValueError:
        return None


def open_uff(path: Path, variable: str | None, facts: Facts) -> Recording:
    """Open the channel data of a UFF file, of the group `variable` or the first one."""
    with opened(path) as file:
        name = variable or channel_data_name(file)
        group = None if name is None else find(file, name)
        if _class_of(group) != "uff.channel_data":
            raise DataError(f"{path}: expected UFF channel data, got {', '.join(sorted(file)[:8]) or 'nothing'}")
        rate, speed = number(group, "sampling_frequency"), number(group, "sound_speed", 1540.0)
        start, modulation = number(group, "initial_time", 0.0), number(group, "modulation_frequency", 0.0)
        notes: list[str] = []
        carrier = number(group, "pulse/center_frequency", 0.0) or modulation
        probe, middle = _probe(group, carrier, facts, notes)
        sequence = _sequence(group)
        waves, delays = _waves(sequence, middle, float(probe.element_z.max()))
        start_times = start + delays
        if isinstance(waves, PlaneWaves) and middle:
            start_times = start_times - middle * np.sin(waves.angles) / speed
        data = find(group, "data")
        parts = ["data/real", "data/imag"] if hasattr(data, "keys") else ["data"]
        arrays = [data_set(group, part) for part in parts]
        if any(array is None for array in arrays):
            raise DataError(f"{path}: expected the samples of {name}/data, got none")
        shapes = [array.shape for array in arrays if array is not None]
        if shapes[0] != shapes[-1]:
            raise DataError(
                f"{path}: {name}/data: expected real and imag of one shape, got {shapes[0]} and {shapes[-1]}"
            )
        words = f"{probe.n_elements} elements and {len(sequence)} waves"
        try:
            layout = find_layout(shapes[0], probe.n_elements, len(sequence), facts.axes, USUAL, words)
        except ValueError as error:
            raise DataError(f"{path}: {name}/data: {error}") from None
    stored = [Stored(str(path), f"{name}/{part}") for part in parts]

    def read(frame: int) -> np.ndarray:
        samples = [layout.read(part, frame) for part in stored]
        return samples[0] if len(samples) == 1 else samples[0] + 1j * samples[1]

    is_iq = len(stored) == 2
    if is_iq and not modulation:
        raise DataError(f"{path}: {name}/modulation_frequency: expected Hz of complex data, got 0")
    same = np.ptp(start_times) == 0
    return Recording(
        str(path),
        "UFF",
        Acquisition(probe, waves, Medium(speed), sampling_frequency=rate),
        rate,
        float(start_times[0]) if same else start_times,
        n_frames=layout.length("frames"),
        n_samples=layout.length("samples"),
        read=read,
        demodulation_frequency=modulation if is_iq else None,
        clock=CLOCK,
        notes=tuple(notes),
    )


def write_uff(path: str | PathLike[str], recording: Recording) -> None:
    """Write UFF channel data of plane, diverging or focused waves, frame by frame.

    Raises
    ------
    ValueError
        UFF has no word for the acquisition.
    """
    import h5py

    acquisition, probe = recording.acquisition, recording.acquisition.probe
    waves, n = acquisition.waves, acquisition.n_transmits
    if not isinstance(waves, PlaneWaves | DivergingWaves | FocusedWaves) or waves.apodization is not None:
        raise ValueError(f"{path}: UFF holds plane, diverging and focused waves of all elements: save as .npz or .hdf5")
    shift = _to_center(waves, acquisition)
    apex = float(probe.element_z.max())  # z = 0 of UFF is the middle of a convex array, not its ends
    starts = np.broadcast_to(np.asarray(recording.start_time, dtype=float), n) + shift
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["version"] = "v1.2.0"
        group = _object(file, "channel_data", "uff.channel_data")
        _value(group, "sampling_frequency", recording.sampling_frequency)
        _value(group, "initial_time", float(starts[0]))
        _value(group, "sound_speed", acquisition.medium.speed_of_sound)
        _value(group, "modulation_frequency", recording.demodulation_frequency or 0.0)
        pulse = _object(group, "pulse", "uff.pulse")
        _value(pulse, "center_frequency", acquisition.carrier_frequency)
        _value(pulse, "fractional_bandwidth", probe.bandwidth)
        _write_probe(group, probe, apex)
        sequence = group if n == 1 else _object(group, "sequence", "uff.wave", n)
        for i in range(n):
            wave = _object(sequence, "sequence" if n == 1 else f"sequence_{i + 1:04d}", "uff.wave")
            _value(wave, "delay", float(starts[i] - starts[0]))
            _value(wave, "sound_speed", acquisition.medium.speed_of_sound)
            _value(wave, "wavefront", PLANE if isinstance(waves, PlaneWaves) else SPHERICAL)
            source = _object(wave, "source", "uff.point")
            if isinstance(waves, PlaneWaves):
                distance, azimuth = np.inf, waves.angles[i]
            else:
                x, z = (waves.x, waves.z) if isinstance(waves, FocusedWaves) else waves.sources(probe)
                distance, azimuth = np.hypot(x[i], z[i] - apex), np.arctan2(x[i], z[i] - apex)
            for name, value in (("distance", distance), ("azimuth", azimuth), ("elevation", 0.0)):
                _value(source, name, float(value))
        shape = (recording.n_frames, n, probe.n_elements, recording.n_samples)
        _write_samples(group, recording, shape, shift)


# --- reading ---------------------------------------------------------------------------------------------------------


def _class_of(group: Any) -> str:
    value = group.attrs.get("class", "") if hasattr(group, "keys") else ""
    value = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _probe(group: Any, carrier: float, facts: Facts, notes: list[str]) -> tuple[Probe, float]:
    """Return the array, and the x of its middle."""
    held = find(group, "probe")
    positions = None if held is None else numbers(held, "geometry")
    if positions is None and held is not None and find(held, "N") is not None:
        positions = _even(int(number(held, "N")), number(held, "pitch"), number(held, "radius", np.inf), held)
    elif positions is not None:
        positions = positions if positions.shape[0] == 7 else positions.T  # 7 values of each element
    if facts.probe is not None:
        return facts.probe, 0.0
    if positions is None or positions.ndim != 2 or positions.shape[0] < 3:
        raise ValueError("probe/geometry: expected (7, elements), got none: say the probe, --probe")
    known: dict[str, Any] = {"center_frequency": carrier, "bandwidth": number(group, "pulse/fractional_bandwidth", 0.0)}
    known["bandwidth"] = known["bandwidth"] / (100 if known["bandwidth"] > 2 else 1)
    if len(positions) == 7:
        known["element_width"], known["element_height"] = float(positions[5, 0]), float(positions[6, 0])
    base = preset_named(_name(held))
    known["name"] = base.name if base is not None else _name(held)
    return probe_at(positions[:3].T, base, notes, **known), middle_of(positions[:3].T)


def _name(group: Any) -> str:
    """Return a text of MATLAB: numbers of its letters."""
    found = find(group, "name")
    letters = numbers(group, "name") if found is not None and not hasattr(found, "keys") else None
    return (
        "" if letters is None else "".join(chr(int(letter)) for letter in letters.ravel()[:100] if 31 < letter < 1000)
    )


def _even(n: int, pitch: float, radius: float, held: Any) -> np.ndarray:
    """(7, n) of an even array that is given by its pitch."""
    if not 0 < n <= 1 << 16:
        raise ValueError(f"probe/N: expected a number of elements, got {n}")
    steps = np.arange(n) - (n - 1) / 2
    width = number(held, "element_width", 0.0) or pitch
    table = np.zeros((7, n))
    table[5], table[6] = width, number(held, "element_height", 0.0)
    if np.isfinite(radius):
        table[3] = steps * 2 * np.arcsin(pitch / (2 * radius))
        table[0], table[2] = radius * np.sin(table[3]), radius * np.cos(table[3]) - radius
    else:
        table[0] = steps * pitch
    return table


def _sequence(group: Any) -> list[Any]:
    """Return the waves, in their order."""
    held = find(group, "sequence")
    if not hasattr(held, "keys"):
        raise ValueError("sequence: expected uff.wave, got none")
    if "source" in held or "wavefront" in held:
        return [held]
    waves = [find(held, name) for name in sorted(held)]
    waves = [wave for wave in waves if hasattr(wave, "keys")]
    if not waves:
        raise ValueError("sequence: expected uff.wave, got none")
    return waves


def _waves(sequence: list[Any], middle: float, apex: float) -> tuple[Waves, np.ndarray]:
    """Return the transmits, and how much later than `initial_time` the first sample of each is."""
    delays = np.array([number(wave, "delay", 0.0) for wave in sequence])
    kinds = {int(number(wave, "wavefront", SPHERICAL)) for wave in sequence}
    table = np.array(
        [[_number_of(find(wave, "source"), name) for name in ("distance", "azimuth", "elevation")] for wave in sequence]
    )
    if np.any(table[:, 2] != 0):
        raise ValueError("sequence: expected waves in the plane of the image, got an elevation")
    distance, azimuth = table[:, 0], table[:, 1]
    if kinds == {PLANE} or (kinds == {SPHERICAL} and np.isinf(distance).all()):
        return PlaneWaves(azimuth, time_reference="center"), delays
    if kinds != {SPHERICAL} or not np.isfinite(distance).all():
        raise ValueError(f"sequence: expected plane waves or spherical waves, got wavefronts {sorted(kinds)}")
    if abs(middle) > 1e-6:
        raise ValueError(
            f"probe/geometry: expected an array with its middle at x = 0 for spherical waves, got {middle:g} m"
        )
    x, z = distance * np.sin(azimuth), distance * np.cos(azimuth)  # from the apex, where UFF has its origin
    if np.all(z > 0):
        return FocusedWaves(x=x, z=z + apex, time_reference="center"), delays
    if np.all(z < 0):
        # A source behind: its wave reaches the origin distance / c after it starts, as "center" has it.
        return DivergingWaves(x=x, z=z + apex, time_reference="center"), delays
    raise ValueError("sequence: expected sources all in front of the array, or all behind it")


def _number_of(point: Any, name: str) -> float:
    found = None if point is None else numbers(point, name)
    value = 0.0 if found is None or not found.size else float(found.ravel()[0])
    if np.isnan(value):
        raise ValueError(f"source/{name}: expected a number, got NaN")
    return value


# --- writing ---------------------------------------------------------------------------------------------------------


def _to_center(waves: Any, acquisition: Acquisition) -> np.ndarray:
    """Return what is added to times of the data to count from the passage through the array's center, (n_transmits,) s."""
    from dataclasses import replace

    if waves.time_reference == "center":
        return np.zeros(acquisition.n_transmits)
    centered = replace(waves, time_reference="center").delays(acquisition.probe, acquisition.medium)
    offsets: np.ndarray = centered[:, 0] - waves.delays(acquisition.probe, acquisition.medium)[:, 0]
    return offsets


def _write_probe(group: Any, probe: Probe, apex: float) -> None:
    flat = probe.is_flat
    held = _object(group, "probe", "uff.linear_array" if flat else "uff.curvilinear_array")
    height = probe.element_height if np.isfinite(probe.element_height) else 0.0
    table = np.zeros((7, probe.n_elements))
    table[0], table[2], table[3] = probe.element_x, probe.element_z - apex, probe.element_angle
    table[5], table[6] = probe.element_width, height
    _value(held, "N", float(probe.n_elements))
    _value(held, "pitch", probe.pitch)
    if not flat:
        _value(held, "radius", probe.radius)
    _value(held, "element_width", probe.element_width)
    if height:
        _value(held, "element_height", height)
    _value(held, "geometry", table)
    letters = held.create_dataset("name", data=np.array([[ord(c)] for c in probe.name], dtype=np.uint16))
    letters.attrs["class"], letters.attrs["name"] = "char", "name"
    origin = _object(held, "origin", "uff.point")
    for name in ("distance", "azimuth", "elevation"):
        _value(origin, name, 0.0)


def _write_samples(group: Any, recording: Recording, shape: tuple[int, ...], shift: np.ndarray) -> None:
    """Write the frames; the carrier of IQ begins with the clock, which is `shift` later here."""
    if recording.demodulation_frequency is None:
        array = group.create_dataset("data", shape, np.float32)
        _mark(array, "data")
        for frame in range(recording.n_frames):
            array[frame] = to_numpy(recording.read(frame))
        return
    held = group.create_group("data")
    _mark(held, "data", is_complex=True)
    real, imag = (held.create_dataset(part, shape, np.float32) for part in ("real", "imag"))
    _mark(real, "data")
    _mark(imag, "data", imaginary=True)
    for frame in range(recording.n_frames):
        turn = np.exp(-2j * np.pi * ((recording.demodulation_frequency * shift) % 1.0))[:, None, None]
        samples = to_numpy(recording.read(frame)) * turn
        real[frame], imag[frame] = samples.real, samples.imag


def _object(parent: Any, name: str, kind: str, n: int = 1) -> Any:
    group = parent.create_group(name)
    group.attrs["class"], group.attrs["name"] = kind, name
    group.attrs["array"], group.attrs["size"] = np.array([int(n > 1)]), np.array([1, n])
    return group


def _value(group: Any, name: str, value: Any) -> None:
    data = np.asarray(value, dtype=np.float64)
    _mark(group.create_dataset(name, data=data if data.ndim else data.reshape(1, 1)), name)


def _mark(item: Any, name: str, is_complex: bool = False, imaginary: bool = False) -> None:
    item.attrs["class"], item.attrs["name"] = "single", name
    item.attrs["complex"], item.attrs["imaginary"] = np.array([int(is_complex)]), np.array([int(imaginary)])
