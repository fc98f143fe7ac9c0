"""Channel data on disk, and an acquisition as plain values.

A channel-data file is one record, an uncompressed `.npz` without pickles:

    format    "ussim channel data"
    version   the format's version, VERSION
    samples   (n_transmits, n_elements, n_samples), real for RF, complex for IQ
    header    JSON text: kind ("rf" or "iq"), sampling_frequency, start_time, demodulation_frequency (IQ), acquisition

Every number comes back exactly: JSON holds the shortest text that reads back to the same float64. Numbers that JSON has no
word for are the strings "nan", "inf" and "-inf".
"""

from __future__ import annotations

import json
import lzma
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from .probes import Imaging, Probe
from .transmits import CustomTransmits, DivergingWaves, FocusedWaves, PlaneWaves, SyntheticAperture, Waves
from .types import HIGHEST_THRESHOLD_DB, Acquisition, IQData, Medium, RFData, to_numpy
from .waveforms import ImpulseResponse, Waveform

FORMAT = "ussim channel data"
VERSION = 1
ZIP_START = b"PK\x03\x04"
# What reading a damaged archive raises, by which of its bytes are wrong: lengths, names, method, flags, data, array headers.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    KeyError,
    OSError,
    OverflowError,
    RuntimeError,  # NotImplementedError too: an unknown method
    SyntaxError,
    ValueError,
)
SIGNALS = {"waveform": Waveform, "impulse_response": ImpulseResponse}
OPTIONAL = ("transmit_frequency", "waveform", "impulse_response", "receive_mask")  # fields that older files do not have
WAVES = {kind.__name__: kind for kind in (PlaneWaves, DivergingWaves, FocusedWaves, CustomTransmits, SyntheticAperture)}


class DataError(ValueError):
    """A file that is not what it should be: the message names it, what was expected and what came."""

    exit_code = 3


# --- channel data ----------------------------------------------------------------------------------------------------


def save_channel_data(data: RFData | IQData, path: str | Path) -> None:
    """Write RF or IQ with its whole acquisition to `path`; the file appears when it is complete.

    Raises
    ------
    ValueError
        The data are a stack of records.
    OSError
        The file cannot be written; nothing is left of it.
    """
    if data.samples.ndim > 3:
        raise ValueError(
            f"save: a file holds one record (n_transmits, n_elements, n_samples), got a stack {data.samples.shape}: "
            "save each of its records, dataclasses.replace(data, samples=data.samples[i])"
        )
    header: dict[str, Any] = {
        "kind": "iq" if isinstance(data, IQData) else "rf",
        "sampling_frequency": float(data.sampling_frequency),
        "start_time": _to_plain(data.start_time),
        "acquisition": acquisition_to_dict(data.acquisition),
    }
    if isinstance(data, IQData):
        header["demodulation_frequency"] = float(data.demodulation_frequency)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            format=np.array(FORMAT),
            version=np.array(VERSION),
            header=np.array(json.dumps(header, allow_nan=False)),
            samples=to_numpy(data.samples),
        )


def load_channel_data(path: str | Path) -> RFData | IQData:
    """Read the channel data of a file that `save_channel_data` (or `rf.save`) wrote.

    Parameters
    ----------
    path : str or Path
        The .npz file.

    Returns
    -------
    RFData or IQData
        What was saved, in host memory.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    DataError
        It is not a channel-data file, of another version, cut short or damaged.
    """
    arrays = _read_arrays(Path(path), ("format", "version", "header", "samples"))
    if str(arrays["format"]) != FORMAT:
        raise DataError(f"{path}: format: expected {FORMAT!r}, got {str(arrays['format'])!r}")
    if arrays["version"] != VERSION:
        raise DataError(
            f"{path}: version: expected {VERSION}, got {arrays['version']}. "
            "It was written by another release: read it with that one, or simulate again"
        )
    try:
        header = json.loads(str(arrays["header"]))
        acquisition = acquisition_from_dict(header["acquisition"])
        start_time = _to_array(header["start_time"])
        if hasattr(acquisition.waves, "time_reference") and "time_reference" not in header["acquisition"]["waves"]:
            start_time = _from_older_clock(start_time, acquisition)
        times = header["sampling_frequency"], start_time
        if arrays["samples"].ndim > 3:
            raise ValueError(f"samples: expected one record, got an array of shape {arrays['samples'].shape}")
        if header["kind"] == "iq":
            return IQData(arrays["samples"], acquisition, times[0], header["demodulation_frequency"], times[1])
        return RFData(arrays["samples"], acquisition, *times)
    except KeyError as error:
        raise DataError(f"{path}: header: expected the key {error}, got none") from None
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: {error}") from None


def _from_older_clock(start_time: Any, acquisition: Acquisition) -> Any:
    """The start time in a file of before `time_reference`: its clock began with the first element that is on, be its
    apodization 0."""
    delays = acquisition.transmit_delays
    earliest = np.where(np.isnan(delays), np.inf, delays).min(axis=(1, 2))
    return start_time + np.where(np.isfinite(earliest), earliest, 0.0) if np.any(earliest < 0) else start_time


def _read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The named arrays of an .npz, each checked against its CRC as it is read."""
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            kind = "a file that is cut short" if file.read(4) == ZIP_START else "a file of another kind"
            raise DataError(f"{path}: expected channel data (.npz) as rf.save writes it, got {kind}")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as archive:
                missing = [name for name in names if name not in archive.files]
                if missing:
                    held = ", ".join(archive.files) or "nothing"
                    raise DataError(f"{path}: expected the arrays {', '.join(names)}, got {held}")
                return {name: archive[name] for name in names}
        except DataError:
            raise
        except DAMAGE as error:
            raise DataError(f"{path}: the file is damaged ({error})") from None


# --- an acquisition as plain values ----------------------------------------------------------------------------------


def acquisition_to_dict(acquisition: Acquisition) -> dict[str, Any]:
    """The acquisition as dicts, lists, strings and numbers that JSON can hold; `acquisition_from_dict` gives it back.

    Raises
    ------
    ValueError
        Its waves are of a class of one's own: give their delays as CustomTransmits.
    """
    plain = {
        f.name: _to_plain(getattr(acquisition, f.name)) for f in fields(Acquisition) if f.init and f.name not in SIGNALS
    }
    for name in OPTIONAL:  # left out where not given: files of before and after are the same
        if name in plain and plain[name] is None:
            del plain[name]
    for name in SIGNALS:
        signal = getattr(acquisition, name)
        if signal is not None:
            plain[name] = {f.name: _to_plain(getattr(signal, f.name)) for f in fields(signal)}
    plain["probe"] = probe_to_dict(acquisition.probe)
    plain["waves"] = _waves_to_dict(acquisition.waves)
    plain["medium"] = {f.name: _to_plain(getattr(acquisition.medium, f.name)) for f in fields(Medium)}
    return plain


def acquisition_from_dict(plain: Mapping[str, Any]) -> Acquisition:
    """The acquisition that `acquisition_to_dict` described.

    Raises
    ------
    ValueError
        A key is missing or unknown, or a value is out of range.
    """
    _check_keys("acquisition", plain, {f.name for f in fields(Acquisition)}, required=("probe", "waves", "medium"))
    values = {
        key: _to_array(value) for key, value in plain.items() if key not in ("probe", "waves", "medium", *SIGNALS)
    }
    for name, kind in SIGNALS.items():
        if plain.get(name) is not None:
            _check_keys(name, plain[name], {f.name for f in fields(kind)}, required=("samples", "rate"))
            values[name] = kind(**{key: _to_array(value) for key, value in plain[name].items()})
    if "threshold_db" in values:  # earlier releases took higher ones; recorded samples do not depend on it
        values["threshold_db"] = min(values["threshold_db"], HIGHEST_THRESHOLD_DB)
    _check_keys("medium", plain["medium"], {f.name for f in fields(Medium)})
    medium = Medium(**{key: _to_array(value) for key, value in plain["medium"].items()})
    return Acquisition(probe_from_dict(plain["probe"]), _waves_from_dict(plain["waves"]), medium, **values)


def probe_to_dict(probe: Probe) -> dict[str, Any]:
    """The probe as plain values, without the place on this machine that it was read from."""
    plain = {f.name: _to_plain(getattr(probe, f.name)) for f in fields(Probe) if f.name not in ("imaging", "path")}
    if probe.imaging is not None:
        plain["imaging"] = {f.name: _to_plain(getattr(probe.imaging, f.name)) for f in fields(Imaging)}
    return plain


def probe_from_dict(plain: Mapping[str, Any]) -> Probe:
    """The probe that `probe_to_dict` described. Raises ValueError as `acquisition_from_dict` does."""
    _check_keys("probe", plain, {f.name for f in fields(Probe)}, required=("name", "center_frequency"))
    values: dict[str, Any] = {key: value for key, value in plain.items() if key != "imaging"}
    for key, value in values.items():  # strings that stand for numbers; the probe's own words stay
        if isinstance(value, str) and key not in ("name", "source", "baffle"):
            values[key] = float(value)
    if values.get("baffle") == "inf":
        values["baffle"] = math.inf
    imaging = plain.get("imaging")
    if imaging is not None:
        _check_keys("probe.imaging", imaging, {f.name for f in fields(Imaging)}, required=("x", "z"))
        values["imaging"] = Imaging(**dict(imaging) | {axis: tuple(imaging[axis]) for axis in ("x", "z")})
    return Probe(**values)


def _waves_to_dict(waves: Waves) -> dict[str, Any]:
    kind = type(waves).__name__
    if WAVES.get(kind) is not type(waves):
        raise ValueError(
            f"waves: expected one of {', '.join(WAVES)}, got {kind}. Describe them by their delays: "
            "CustomTransmits(waves.delays(probe, medium), waves.apodization)"
        )
    if isinstance(waves, CustomTransmits):  # `delays` is its method: the times as given have another name
        values = {"delays": waves._delays, "apodization": waves.apodization, "time_reference": waves.time_reference}
    else:
        values = {f.name: getattr(waves, f.name) for f in fields(waves)}  # type: ignore[arg-type]
    return {"kind": kind} | {key: _to_plain(value) for key, value in values.items() if value is not None}


def _waves_from_dict(plain: Mapping[str, Any]) -> Waves:
    kind = WAVES.get(plain.get("kind", ""))
    if kind is None:
        raise ValueError(f"waves: kind: expected one of {', '.join(WAVES)}, got {plain.get('kind')!r}")
    known = {"delays" if f.name == "_delays" else f.name for f in fields(kind)}
    _check_keys("waves", plain, known | {"kind"})
    words = {"kind", "time_reference"}
    values: dict[str, Any] = {key: np.asarray(_to_array(value)) for key, value in plain.items() if key not in words}
    if "time_reference" in known:
        values["time_reference"] = plain.get("time_reference", "first")  # what there was before it had a name
    return kind(**values)  # type: ignore[no-any-return]


def _check_keys(where: str, plain: Mapping[str, Any], known: set[str], required: tuple[str, ...] = ()) -> None:
    if not isinstance(plain, Mapping):
        raise ValueError(f"{where}: expected a table of values, got {type(plain).__name__}")
    for key in required:
        if key not in plain:
            raise ValueError(f"{where}: expected the key {key!r}, got {', '.join(plain) or 'none'}")
    for key in plain:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r} (known: {', '.join(sorted(known))})")


def _to_plain(value: Any) -> Any:
    """Python's own numbers and lists; what JSON has no number for as text."""
    if isinstance(value, np.ndarray | tuple | list):
        return [_to_plain(entry) for entry in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _to_array(value: Any) -> Any:
    """The inverse of `_to_plain`: text to numbers, lists to float64 arrays."""
    if isinstance(value, list):
        return np.array([_to_array(entry) for entry in value], dtype=np.float64)
    return float(value) if isinstance(value, str) else value


# --- writing ---------------------------------------------------------------------------------------------------------


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`: what is written there becomes `path` at the end of the block, at once.

    If the block raises, the temporary file is removed and whatever `path` held before stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as file:  # on the disk before it takes the name
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # the user knows the file by its own name
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
