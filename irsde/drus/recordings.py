"""Recordings as DRUS takes them: real RF at 4 f_c or more, with the acquisition that made it.

Files of every format that ussim reads (`ussim.io.formats`), each on its own clock. What the file does not hold is assumed,
and a `Recording` lists it: `conditions` settles the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ussim.acquisition import Acquisition
from ussim.arrays import to_numpy
from ussim.demodulation import demodulate
from ussim.demodulation import remodulate as with_carrier
from ussim.errors import DataError
from ussim.io import formats
from ussim.io.channel_data import ChannelDataFile
from ussim.io.formats.picmus import CYCLES as PICMUS_CYCLES
from ussim.io.formats.picmus import GROUP as PICMUS_GROUP
from ussim.io.formats.picmus import PicmusPhantom
from ussim.io.formats.picmus import read_phantom as read_picmus_phantom
from ussim.io.formats.recording import ATTENUATION, TIME_ZERO  # what a file may state and `conditions` asks for
from ussim.transmits import PlaneWaves
from ussim.types import IQData, RFData

from .acoustics import of_transmit

LOWEST_RATIO = 4.0  # f_s / f_c that H and B need


@dataclass(frozen=True, eq=False)
class Recording:
    """RF with the acquisition that made it, what its file states, and what was assumed of the rest.

    Attributes
    ----------
    rf : RFData
    stated : frozenset of str
        ATTENUATION and TIME_ZERO where the file holds them.
    assumed : tuple of str
        In words: what else the file does not hold, and the value taken for it.
    """

    rf: RFData
    stated: frozenset[str]
    assumed: tuple[str, ...] = ()


def read_recording(path: str | Path) -> RFData:
    """RF of the first frame of a recording.

    Raises
    ------
    FileNotFoundError
        No such file.
    DataError
        Of no format that is known, or something is missing.
    """
    return open_recording(path).rf


def open_recording(path: str | Path, frame: int = 0) -> Recording:
    """Return the same of a frame, with what the file states of its physics; raises as `read_recording`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    found = formats.open_recording(path)
    return Recording(_fast(ChannelDataFile(found).frame(frame)), found.stated, found.notes)


def read_must(path: str | Path, frame: int = 0) -> RFData:
    """One frame of a MUST-style .mat; sampling below 4 f_c goes through `ussim.demodulate` and up again."""
    return open_must(path, frame).rf


def open_must(path: str | Path, frame: int = 0) -> Recording:
    """`read_must` with what the file states: `param.attenuation` (dB/cm/MHz), `param.t0` and the like."""
    return open_recording(path, frame)


def read_picmus(path: str | Path, max_angles: int | None = None) -> RFData:
    """Return a PICMUS data set (RF, or IQ that is remodulated), all its angles or `max_angles` evenly kept.

    The angle of 0 is among them.

    PICMUS counts time from the wave's passage through the origin, the center of the array: so do the waves returned.
    """
    return open_picmus(path, max_angles).rf


def open_picmus(path: str | Path, max_angles: int | None = None) -> Recording:
    """`read_picmus` with what the file states; of attenuation none of them says a word."""
    found = formats.open_recording(path)
    waves = found.acquisition.waves
    if found.format != "PICMUS" or not isinstance(waves, PlaneWaves):
        raise DataError(
            f"{path}: expected a PICMUS data set ({PICMUS_GROUP} with data/real, angles, ...), got {found.format}"
        )
    data = ChannelDataFile(found).frame(0)
    kept = np.sort(_kept_angles(waves.angles, max_angles))
    acquisition = replace(found.acquisition, waves=PlaneWaves(waves.angles[kept], time_reference="center"))
    start_time = data.start_time if np.ndim(data.start_time) == 0 else data.start_times[kept]
    data = replace(data, samples=data.samples[kept], acquisition=acquisition, start_time=start_time)
    return Recording(_fast(data), found.stated, found.notes)


def _fast(data: RFData | IQData) -> RFData:
    return remodulate(data) if isinstance(data, IQData) else as_fast_rf(data)


def as_fast_rf(rf: RFData) -> RFData:
    """Return the same RF if it has 4 samples per period or more.

    Otherwise demodulated, and remodulated on a faster clock.
    """
    if rf.sampling_frequency >= LOWEST_RATIO * rf.acquisition.probe.center_frequency * (1 - 1e-9):
        return rf
    return remodulate(demodulate(rf))


def remodulate(iq: IQData) -> RFData:
    """RF(t) = Re[IQ(t) exp(2πi f_0 t)] on a clock of at least 4 f_c, a whole multiple of the recording's."""
    rf = with_carrier(iq, LOWEST_RATIO * iq.acquisition.probe.center_frequency)
    rate = rf.sampling_frequency
    return RFData(rf.samples.astype(np.float32), _clocked(iq.acquisition, rate), rate, iq.start_time)


def single(rf: RFData) -> RFData:
    """Return the one transmit with the flattest delays: the 0 degree plane wave where there is one.

    Silent ones do not count.
    """
    delays, weights = rf.acquisition.transmit_delays, rf.acquisition.transmit_weights
    spans = [
        np.nanmax(law) - np.nanmin(law) if weight.any() else np.inf for law, weight in zip(delays, weights, strict=True)
    ]
    i = int(np.argmin(spans))
    acquisition = of_transmit(rf.acquisition, i)
    return RFData(to_numpy(rf.samples)[i : i + 1], acquisition, rf.sampling_frequency, rf.start_times[i])


def _clocked(acquisition: Acquisition, rate: float) -> Acquisition:
    return replace(acquisition, sampling_frequency=rate)


def _kept_angles(angles: np.ndarray, max_angles: int | None) -> np.ndarray:
    if max_angles is None or max_angles >= len(angles):
        return np.arange(len(angles))
    kept = np.round(np.linspace(0, len(angles) - 1, max_angles)).astype(int)
    kept[np.argmin(np.abs(angles[kept]))] = np.argmin(np.abs(angles))
    return np.unique(kept)


__all__ = [
    "ATTENUATION",
    "PICMUS_CYCLES",
    "PICMUS_GROUP",
    "TIME_ZERO",
    "PicmusPhantom",
    "Recording",
    "as_fast_rf",
    "open_must",
    "open_picmus",
    "open_recording",
    "read_must",
    "read_picmus",
    "read_picmus_phantom",
    "read_recording",
    "remodulate",
    "single",
]
