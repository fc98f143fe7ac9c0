"""MATLAB files: MUST-style ones, and bare arrays.

MUST-style is an array of RF or IQ beside `param` (fs, fc, c, pitch, Nelements, TXdelay, t0, ...). Version 7.3 is HDF5, which
h5py reads; SciPy writes version 5.

Time zero is that of MUST: where the delays given to `simus` and `dasmtx` are 0; `param.t0` is the time of sample 0.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ...acquisition import Acquisition
from ...arrays import to_numpy
from ...errors import DataError
from ...medium import Medium
from ...probes import Probe, name_after
from ...transmits import CustomTransmits, PlaneWaves, Waves
from ..atomic import replacing
from .arrays import Bare, bare_recording, choose
from .axes import Layout, find_layout
from .facts import Facts
from .hdf5 import Stored, arrays_of, data_set, number_type, numbers, opened
from .matlab5 import Variable, variables
from .recording import ATTENUATION, TIME_ZERO, Recording
from .sizes import METADATA, n_bytes

USUAL = ("samples", "elements", "transmits", "frames")
NEEDED = ("fs", "fc", "pitch", "Nelements")
NUMBERS = {
    "fs", "fc", "c", "pitch", "Nelements", "width", "kerf", "bandwidth", "height", "focus", "radius",
    "TXdelay", "TXapodization", "t0", "attenuation", "TXfreq", "TXnow", "PRF", "PRP",
}  # fmt: skip
BANDWIDTH, KERF = 75.0, 0.1  # %, and of the pitch, where a file is silent: MUST's defaults
CLOCK = "MUST's: the transmit delays are 0"


def open_mat(path: Path, variable: str | None, facts: Facts) -> Recording:
    """Open a .mat file of version 5 or 7."""
    wanted = f"expected a .mat of MATLAB with RF or IQ and param.{', '.join(NEEDED)}"
    try:
        held = variables(path)
        param: dict[str, np.ndarray] = {}
        for found in held:
            if (
                found.is_array
                and found.name in NUMBERS
                and n_bytes(found.shape, 1) <= METADATA
                and not found.is_complex
            ):
                param |= _plain_numbers({found.name: found.array()[()]})
            elif found.is_structure and (found.name.lower() == "param" or len(held) == 2):
                param |= _plain_numbers(found.fields())
    except (ValueError, struct.error, zlib.error, OverflowError, MemoryError, OSError) as error:
        raise DataError(f"{path}: {wanted}, got {_first_line(error)}") from None
    arrays = {
        found.name: Bare(found.name, found.shape, np.dtype("c8" if found.is_complex else "f4"), _kept(path, found))
        for found in held
        if found.is_array and found.name not in NUMBERS
    }
    return _recording(path, "MUST .mat", arrays, param, variable, facts)


def _kept(path: Path, variable: Variable) -> Callable[[], Any]:
    """Return what gives an array of the file, found there once."""

    @cache
    def load() -> Any:
        try:
            return variable.array()
        except (ValueError, struct.error, zlib.error, OverflowError, MemoryError, OSError) as error:
            raise DataError(f"{path}: {variable.name}: the file is damaged ({_first_line(error)})") from None

    return load


def open_mat_hdf5(path: Path, variable: str | None, facts: Facts) -> Recording:
    """Open a .mat file of version 7.3, or any HDF5 file of bare arrays: MATLAB writes the axes in reverse."""
    import h5py

    with opened(path) as file:
        arrays, param = {}, {}
        for name in arrays_of(file):
            group, _, key = name.rpartition("/")
            found = data_set(file, name) if key not in NUMBERS else None
            if found is None:  # one of MUST's parameters, alone or in a group
                if not group or group.lower() == "param" or f"{group}/fs" in file:
                    param[key] = file[name]
            elif found.attrs.get("MATLAB_class", b"") not in (b"char", b"cell") and found.shape:
                kind = number_type(found.dtype)
                if kind is not None:
                    arrays[name] = Bare(name, found.shape, kind, lambda name=name: Stored(str(path), name))  # type: ignore[misc]
        table = {
            key: numbers(found.parent, key)
            for key, found in param.items()
            if isinstance(found, h5py.Dataset) and found.dtype.kind in "fiub"
        }
        is_matlab = any("MATLAB_class" in file[name].attrs for name in arrays)
    values = {key: value.T.squeeze() for key, value in table.items() if value is not None and value.size}
    usual, name = (USUAL[::-1], "MUST .mat") if is_matlab else ((), "HDF5")
    return _recording(path, name, arrays, values, variable, facts, usual)


def write_mat(path: str | PathLike[str], recording: Recording) -> None:
    """Write a MUST-style .mat (version 5): RF or IQ (samples, elements, transmits, frames) and param.

    Raises
    ------
    ValueError
        MUST has no word for the acquisition, or the samples are more than a file of this version holds.
    """
    from scipy.io import savemat

    acquisition = recording.acquisition
    probe, start = acquisition.probe, np.unique(recording.start_time)
    delays = acquisition.transmit_delays
    if delays.shape[1] != 1:
        raise ValueError(f"{path}: a .mat of MUST has one law of delays per transmit: save as .npz")
    if len(start) > 1:
        raise ValueError(f"{path}: a .mat of MUST has one start time for all transmits: save as .npz or .hdf5")
    iq = recording.demodulation_frequency
    if iq is not None and iq != probe.center_frequency:
        raise ValueError(f"{path}: IQ of MUST has the probe's center frequency as carrier, got {iq:g} Hz: save as .npz")
    frames = [to_numpy(recording.read(i)) for i in range(recording.n_frames)]
    samples = np.stack([frame.transpose(2, 1, 0) for frame in frames], axis=-1)
    if samples.nbytes >= 1 << 31:
        raise ValueError(f"{path}: a .mat of this version holds less than 2 GB, got {samples.nbytes / 1e9:.3g} GB")
    param: dict[str, Any] = {
        "fs": recording.sampling_frequency,
        "fc": probe.center_frequency,
        "c": acquisition.medium.speed_of_sound,
        "attenuation": acquisition.medium.attenuation_db_cm_mhz,
        "pitch": probe.pitch,
        "Nelements": float(probe.n_elements),
        "width": probe.element_width,
        "kerf": probe.kerf,
        "bandwidth": 100 * probe.bandwidth,
        "radius": probe.radius,
        "height": probe.element_height,
        "focus": probe.elevation_focus,
        "TXdelay": delays[:, 0],
        "TXapodization": acquisition.transmit_weights,
        "t0": float(start[0]),
    }
    intervals = None if recording.firing_times is None else np.diff(recording.firing_times.ravel())
    if intervals is not None and intervals.size and np.ptp(intervals) < 1e-6 * intervals.mean():
        param["PRF"] = 1 / float(intervals.mean())
    with replacing(path) as temporary, open(temporary, "wb") as file:
        savemat(file, {"RF" if iq is None else "IQ": samples, "param": param}, do_compression=False)


# --- parts -----------------------------------------------------------------------------------------------------------


def _recording(
    path: Path,
    kind: str,
    arrays: Mapping[str, Bare],
    param: Mapping[str, np.ndarray],
    variable: str | None,
    facts: Facts,
    usual: tuple[str, ...] = USUAL,
) -> Recording:
    missing = [name for name in NEEDED if name not in param]
    if facts.probe is not None:
        missing = [name for name in missing if name == "fs" and facts.sampling_frequency is None]
    if missing and not param:
        return bare_recording(path, kind, arrays, variable, facts)
    if missing:
        raise DataError(
            f"{path}: expected param.{', '.join(NEEDED)} (or --probe and --sampling-mhz), got no {missing[0]}"
        )
    notes: list[str] = []
    try:
        probe = _probe(path, param, notes) if facts.probe is None else facts.probe
        rate = facts.sampling_frequency or float(param["fs"])
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: param: {error}") from None
    laws = _laws(path, param, probe, facts, notes)

    def layout_of(bare: Bare) -> Layout:
        words = f"{probe.n_elements} elements and {len(laws)} {'transmit' if len(laws) == 1 else 'transmits'}"
        try:
            return find_layout(bare.shape, probe.n_elements, len(laws), facts.axes, usual, words)
        except ValueError:
            if len(laws) == 1 or facts.angles is not None:
                raise
            with suppress(ValueError):  # laws of one transmit that fires them at once
                return find_layout(bare.shape, probe.n_elements, 1, facts.axes, usual)
            raise

    bare, layout = choose(path, arrays, variable, layout_of)
    several = layout.length("transmits") != len(laws)
    waves: Waves = CustomTransmits(laws[None] if several else laws, _weights(param, probe))
    if "TXdelay" not in param and facts.angles is not None:
        waves = PlaneWaves(facts.angles)
    if "c" not in param and facts.speed_of_sound is None:
        notes.append("speed of sound 1540 m/s (param.c)")
    try:
        medium = Medium(float(param.get("c", 1540.0)), float(param.get("attenuation", 0.0)))
        acquisition = Acquisition(probe, waves, medium, sampling_frequency=rate)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: param: {error}") from None
    if not usual or [role for role in usual if role in layout.roles] != list(layout.roles):
        notes.append(f"axes of {bare.name} {bare.shape}: {', '.join(layout.roles)}")
    return Recording(
        str(path),
        kind,
        acquisition,
        rate,
        float(np.ravel(param.get("t0", 0.0))[0]),
        n_frames=layout.length("frames"),
        n_samples=layout.length("samples"),
        read=lambda frame: layout.read(bare.open(), frame),
        demodulation_frequency=probe.center_frequency if bare.dtype.kind == "c" else None,
        clock=CLOCK,
        notes=tuple(notes),
        stated=frozenset(name for name, key in ((ATTENUATION, "attenuation"), (TIME_ZERO, "t0")) if key in param),
        firing_times=_firing_times(param, layout.length("frames"), acquisition.n_transmits),
    )


def _firing_times(param: Mapping[str, np.ndarray], n_frames: int, n_transmits: int) -> np.ndarray | None:
    """(n_frames, n_transmits) s: one transmit after the other, param.PRF per second or param.PRP apart."""
    interval = 1 / _one(param, "PRF") if _one(param, "PRF") > 0 else _one(param, "PRP")
    if not (np.isfinite(interval) and interval > 0):
        return None
    return np.arange(n_frames * n_transmits).reshape(n_frames, n_transmits) * interval


def _one(param: Mapping[str, np.ndarray], name: str) -> float:
    """Return a parameter of one number, 0 where there is none."""
    return float(param[name]) if name in param and np.size(param[name]) == 1 else 0.0


def _probe(path: Path, param: Mapping[str, np.ndarray], notes: list[str]) -> Probe:
    value = {name: float(number) for name, number in param.items() if np.size(number) == 1}
    pitch = value["pitch"]
    if "bandwidth" not in value:
        notes.append(f"bandwidth {BANDWIDTH:g} % (param.bandwidth)")
    if "width" not in value and "kerf" not in value:
        notes.append(f"elements {1e3 * (1 - KERF) * pitch:.3g} mm wide (param.width)")
    width = value.get("width", pitch - value.get("kerf", KERF * pitch))
    return Probe(
        name=name_after(path),
        center_frequency=value["fc"],
        bandwidth=value.get("bandwidth", BANDWIDTH) / 100,
        n_elements=int(value["Nelements"]),
        pitch=pitch,
        element_width=width,
        element_height=value.get("height", np.inf),
        elevation_focus=value.get("focus", np.inf),
        radius=value.get("radius", np.inf),
    )


def _laws(path: Path, param: Mapping[str, np.ndarray], probe: Probe, facts: Facts, notes: list[str]) -> np.ndarray:
    """(n_laws, n_elements) firing times."""
    if "TXdelay" not in param:
        if facts.angles is None:
            notes.append("one plane wave of 0°: all elements fire at once (param.TXdelay)")
        return np.zeros((1 if facts.angles is None else len(facts.angles), probe.n_elements))
    laws = np.atleast_2d(param["TXdelay"]).astype(float)
    if laws.shape[-1] != probe.n_elements and laws.ndim == 2 and laws.shape[0] == probe.n_elements:
        laws = laws.T
    if laws.ndim != 2 or laws.shape[1] != probe.n_elements or np.isinf(laws).any() or np.isnan(laws).all():
        raise DataError(
            f"{path}: param.TXdelay: expected times of {probe.n_elements} elements, (transmits, elements), got {laws.shape}"
        )
    return laws


def _weights(param: Mapping[str, np.ndarray], probe: Probe) -> np.ndarray | None:
    weights = np.squeeze(param["TXapodization"]) if "TXapodization" in param else None
    return None if weights is None or weights.size in (0, 1) or weights.shape[-1] != probe.n_elements else weights


def _plain_numbers(fields: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the fields that hold real numbers."""
    found = {}
    for name, value in fields.items():
        if name in NUMBERS and getattr(np.asarray(value), "dtype", np.dtype("O")).kind in "fiub" and np.size(value):
            found[name] = np.squeeze(np.asarray(value, dtype=np.float64))
    return found


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
