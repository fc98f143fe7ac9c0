"""Reading channel data: files of our own, and recordings of others (`ussim.io.formats`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..acquisition import Acquisition
from ..errors import DataError
from ..types import IQData, RFData, frame_rate_of
from .formats import open_recording, writer_of
from .formats.facts import facts_from
from .formats.recording import Recording


class ChannelDataFile:
    """An open file of channel data, whose frames are read when they are asked for.

    Attributes
    ----------
    acquisition : Acquisition
        What all frames were acquired with.
    n_frames : int
        Number of frames.
    n_samples : int
        Samples per channel and transmit.
    sampling_frequency : float
        Hz.
    start_time : float or np.ndarray
        Time of the first sample, s, as of `RFData`.
    format : str
        Name of the file's format.
    clock : str
        What time 0 of the format is, in words.
    notes : tuple of str
        What was taken for granted where the file is silent.
    firing_times : np.ndarray or None
        (n_frames, n_transmits) s, when the transmits fired; None where the file is silent.
    frame_rate : float or None
        Frames per second, Hz; None where the file is silent.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    @property
    def acquisition(self) -> Acquisition:
        """What all frames were acquired with."""
        return self._recording.acquisition

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return self._recording.n_frames

    @property
    def n_samples(self) -> int:
        """Samples per channel and transmit."""
        return self._recording.n_samples

    @property
    def sampling_frequency(self) -> float:
        """Hz."""
        return self._recording.sampling_frequency

    @property
    def start_time(self) -> Any:
        """Time of the first sample, s."""
        return self._recording.start_time

    @property
    def format(self) -> str:
        """Name of the file's format."""
        return self._recording.format

    @property
    def clock(self) -> str:
        """What time 0 of the format is, in words."""
        return self._recording.clock

    @property
    def notes(self) -> tuple[str, ...]:
        """What was taken for granted where the file is silent."""
        return self._recording.notes

    @property
    def firing_times(self) -> np.ndarray | None:
        """(n_frames, n_transmits) s, when the transmits fired; None where the file is silent."""
        return self._recording.firing_times

    @property
    def frame_rate(self) -> float | None:
        """Frames per second, Hz; None where the file is silent."""
        return frame_rate_of(self.firing_times)

    def __len__(self) -> int:
        return self.n_frames

    def __iter__(self) -> Iterator[RFData | IQData]:
        return (self.frame(i) for i in range(self.n_frames))

    def frame(self, frame: int = 0) -> RFData | IQData:
        """Read one frame.

        Parameters
        ----------
        frame : int
            Its number, from 0.

        Returns
        -------
        RFData or IQData
            One record, in host memory.

        Raises
        ------
        DataError
            There is no such frame, or it is damaged.
        """
        r = self._recording
        try:
            samples = r.read(0) if r.format == "ussim" and frame == 0 else r.samples(frame)
            fired = None if r.firing_times is None else r.firing_times[frame]
            if r.demodulation_frequency is not None:
                carrier = r.demodulation_frequency
                return IQData(samples, r.acquisition, r.sampling_frequency, carrier, r.start_time, fired)
            return RFData(samples, r.acquisition, r.sampling_frequency, r.start_time, firing_times=fired)
        except DataError:
            raise
        except (ValueError, TypeError, MemoryError, OSError) as error:
            raise DataError(f"{r.path}: {error}") from None

    def stack(self, frames: Sequence[int] | None = None) -> RFData | IQData:
        """Read frames into one stack, which `demodulate` and `delay_and_sum` take whole.

        Parameters
        ----------
        frames : sequence of int, optional
            Their numbers, all by default.

        Returns
        -------
        RFData or IQData
            (n_frames, n_transmits, n_elements, n_samples), in host memory.

        Raises
        ------
        DataError
            There is no such frame, or it is damaged.
        ValueError
            No frame was asked for.
        """
        chosen = list(range(self.n_frames) if frames is None else frames)
        if not chosen:
            raise ValueError("frames: expected at least one number, got none")
        records = [self.frame(i) for i in chosen]
        fired = None if self.firing_times is None else self.firing_times[chosen]
        return replace(records[0], samples=np.stack([record.samples for record in records]), firing_times=fired)

    def save(self, path: str | Path, frames: Sequence[int] | None = None) -> None:
        """Write frames to another file, one by one.

        Parameters
        ----------
        path : str or Path
            The file; its suffix is its format, as of `RFData.save`.
        frames : sequence of int, optional
            Their numbers, all by default; .npz holds one.

        Raises
        ------
        ValueError
            The format holds one frame, or has no word for the acquisition.
        DataError
            There is no such frame, or it is damaged.
        """
        chosen = list(range(self.n_frames) if frames is None else frames)
        write = writer_of(path)
        if write is not None:
            fired = None if self.firing_times is None else self.firing_times[chosen]
            kept = replace(self._recording, n_frames=len(chosen), firing_times=fired)
            write(path, replace(kept, read=lambda i: self.frame(chosen[i]).samples))
            return
        if len(chosen) != 1:
            raise ValueError(
                f"{path}: .npz holds one frame, got {len(chosen)}: choose one, or write .hdf5, .uff or .mat"
            )
        self.frame(chosen[0]).save(path)


def open_channel_data(path: str | Path, variable: str | None = None, **facts: Any) -> ChannelDataFile:
    """Open a file of channel data without reading its samples.

    Parameters
    ----------
    path : str or Path
        The file.
    variable : str, optional
        Name of the array in it, where several may be channel data.
    **facts
        What the file does not say, or says wrongly, as of `load_channel_data`.

    Returns
    -------
    ChannelDataFile

    Raises
    ------
    FileNotFoundError
        There is no such file.
    DataError
        It holds no channel data, or is damaged, or a fact is missing.
    ConfigError
        A fact cannot be.
    """
    said, named = facts_from(facts)
    return ChannelDataFile(open_recording(path, named if variable is None else variable, said))


def load_channel_data(path: str | Path, variable: str | None = None, frame: int = 0, **facts: Any) -> RFData | IQData:
    """Read one frame of channel data from a file.

    Parameters
    ----------
    path : str or Path
        The file: of `rf.save`, or a recording of one of the formats that docs/recordings.md lists.
    variable : str, optional
        Name of the array in it, where several may be channel data.
    frame : int
        Its number, from 0, the default; the others are not read.
    **facts
        What the file does not say, or says wrongly: probe (a `Probe`, a preset's name or a file), sampling_frequency (Hz),
        angles (of plane waves, rad), start_time (s), speed_of_sound (m/s), demodulation_frequency (of IQ, Hz), clock
        ("first" or "center", when time is 0), axes ("samples,elements,frames"), or facts, the path of a TOML file that
        gives them.

    Returns
    -------
    RFData or IQData
        One record, in host memory.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    DataError
        It holds no channel data, or is damaged, or a fact is missing.
    ConfigError
        A fact cannot be.
    """
    return open_channel_data(path, variable, **facts).frame(frame)
