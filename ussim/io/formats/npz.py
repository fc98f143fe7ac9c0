""".npz files: records of our own, and bare arrays of others.

Time zero of our own records is that of the firing delays (`RFData`).
"""

from __future__ import annotations

import json
import lzma
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ...acquisition import Acquisition
from ...errors import DataError
from ..archive import FORMAT, VERSION
from ..plain import acquisition_from_dict, to_array
from .arrays import Bare, bare_recording, other_of_ours
from .facts import Facts
from .recording import ATTENUATION, TIME_ZERO, Recording
from .sizes import check_declared, check_uncompressed, file_size, n_bytes, read_npy_header

ZIP_START = b"PK\x03\x04"
NAMES = ("format", "version", "header", "samples")
# What reading a damaged archive raises, by which of its bytes are wrong: lengths, names, method, flags, data, array headers.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,  # NotImplementedError too: an unknown method
    SyntaxError,
    ValueError,
)


def open_npz(path: Path, variable: str | None, facts: Facts) -> Recording:
    """Open a record that `rf.save` wrote, or an archive of bare arrays where the facts say what they are."""
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            kind = "a file that is cut short" if file.read(4) == ZIP_START else "a file of another kind"
            raise DataError(f"{path}: expected channel data (.npz) as rf.save writes it, got {kind}")
    try:
        with zipfile.ZipFile(path) as archive:
            shapes = {
                entry.filename.removesuffix(".npy"): _declared(archive, entry, path) for entry in _arrays(archive)
            }
    except DAMAGE as error:
        raise DataError(f"{path}: the file is damaged ({error})") from None
    missing = [name for name in NAMES if name not in shapes]
    if not missing:
        return _own(path)
    if variable is not None or facts.probe is not None or facts.sampling_frequency is not None:
        bare = {
            name: Bare(name, shape, dtype, lambda name=name: _read(path, (name,))[name])  # type: ignore[misc]
            for name, (shape, dtype) in shapes.items()
        }
        return bare_recording(path, ".npz", bare, variable, facts)
    if reason := other_of_ours(shapes):
        raise DataError(f"{path}: {reason}")
    raise DataError(
        f"{path}: expected the arrays {', '.join(NAMES)}, got {', '.join(shapes) or 'nothing'}. "
        "Of an array of another program say what it is: --probe NAME --sampling-mhz MHZ (and --variable, --angles-deg)"
    )


def _own(path: Path) -> Recording:
    arrays = _read(path, NAMES)
    if str(arrays["format"]) != FORMAT:
        raise DataError(f"{path}: format: expected {FORMAT!r}, got {str(arrays['format'])!r}")
    if arrays["version"] != VERSION:
        raise DataError(
            f"{path}: version: expected {VERSION}, got {arrays['version']}. "
            "It was written by another release: read it with that one, or simulate again"
        )
    samples = arrays["samples"]
    try:
        header = json.loads(str(arrays["header"]))
        acquisition = acquisition_from_dict(header["acquisition"])
        start_time = to_array(header["start_time"])
        if hasattr(acquisition.waves, "time_reference") and "time_reference" not in header["acquisition"]["waves"]:
            start_time = _from_older_clock(start_time, acquisition)
        if samples.ndim != 3:
            raise ValueError(f"samples: expected one record, got an array of shape {samples.shape}")
        return Recording(
            str(path),
            "ussim",
            acquisition,
            header["sampling_frequency"],
            start_time,
            n_frames=1,
            n_samples=samples.shape[-1],
            read=lambda frame: samples,
            demodulation_frequency=header["demodulation_frequency"] if header["kind"] == "iq" else None,
            clock="the firing delays'",
            stated=frozenset({ATTENUATION, TIME_ZERO}),
        )
    except KeyError as error:
        raise DataError(f"{path}: header: expected the key {error}, got none") from None
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: {error}") from None


def _from_older_clock(start_time: Any, acquisition: Acquisition) -> Any:
    """Return the start time in a file of before `time_reference`.

    Its clock began with the first element that is on, be its apodization 0.
    """
    delays = acquisition.transmit_delays
    earliest = np.where(np.isnan(delays), np.inf, delays).min(axis=(1, 2))
    return start_time + np.where(np.isfinite(earliest), earliest, 0.0) if np.any(earliest < 0) else start_time


def _arrays(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    return [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]


def _declared(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array of the archive, checked against the bytes that are there for it."""
    check_uncompressed(entry.filename, entry.compress_size, file_size(path))
    check_declared(entry.filename, entry.file_size, entry.compress_size)
    with archive.open(entry) as file:
        shape, dtype = read_npy_header(file)
    check_uncompressed(entry.filename, n_bytes(shape, dtype.itemsize), entry.file_size)
    return shape, dtype


def _read(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the named arrays of an .npz, each checked against its CRC as it is read; never a pickle."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except DAMAGE as error:
        raise DataError(f"{path}: the file is damaged ({error})") from None
