"""Writing channel data: the format of our own.

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
from os import PathLike
from typing import Any

import numpy as np

from ..acquisition import Acquisition
from ..arrays import to_numpy
from .atomic import replacing
from .plain import acquisition_to_dict, to_plain

FORMAT = "ussim channel data"
VERSION = 1


def write_record(
    path: str | PathLike[str],
    kind: str,
    samples: np.ndarray,
    acquisition: Acquisition,
    **numbers: float | np.ndarray,
) -> None:
    """Write one record of RF or IQ with its whole acquisition; the file appears when it is complete.

    Parameters
    ----------
    kind : "rf" or "iq".
    numbers : sampling_frequency, start_time and, of IQ, demodulation_frequency.

    Raises
    ------
    ValueError
        The data are a stack of records.
    OSError
        The file cannot be written; nothing is left of it.
    """
    if samples.ndim > 3:
        raise ValueError(
            f"save: a file holds one record (n_transmits, n_elements, n_samples), got a stack {samples.shape}: "
            "save each of its records, dataclasses.replace(data, samples=data.samples[i], firing_times=None)"
        )
    header: dict[str, Any] = {"kind": kind}
    header |= {name: to_plain(number) for name, number in numbers.items()}
    header["acquisition"] = acquisition_to_dict(acquisition)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            format=np.array(FORMAT),
            version=np.array(VERSION),
            header=np.array(json.dumps(header, allow_nan=False)),
            samples=to_numpy(samples),
        )
