"""Reading channel data: the files that `archive` writes."""

from __future__ import annotations

import json
import lzma
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..acquisition import Acquisition
from ..errors import DataError
from ..types import IQData, RFData
from .archive import FORMAT, VERSION
from .plain import acquisition_from_dict, to_array

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


def load_channel_data(path: str | Path) -> RFData | IQData:
    """Read the channel data of a file that `rf.save` wrote.

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
        start_time = to_array(header["start_time"])
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
