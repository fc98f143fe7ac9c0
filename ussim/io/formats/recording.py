"""A file of channel data that is open: what it was acquired with is known, its samples are read frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...acquisition import Acquisition
from ...errors import DataError
from ...medium import Medium
from ...transmits import PlaneWaves
from .facts import Facts

ATTENUATION, TIME_ZERO = "attenuation", "time zero"  # what a file may state, of what none has to
HUGEST = 1e30  # of a sample: beyond it sums of squares overflow in float32, and no converter counts so far


@dataclass(frozen=True, eq=False)
class Recording:
    """Recording as its file describes it, and the way to its samples.

    Attributes
    ----------
    path : name of the file, as messages give it.
    format : name of its format.
    acquisition, sampling_frequency, start_time : as of `RFData`.
    demodulation_frequency : Hz, of IQ; None of RF.
    n_frames : number of frames, each a record (n_transmits, n_elements, n_samples).
    n_samples : samples per channel and transmit.
    read : frame number -> its samples (n_transmits, n_elements, n_samples), as the file has them.
    clock : what time 0 of the format is, in words.
    notes : what was taken for granted where the file is silent.
    stated : ATTENUATION and TIME_ZERO where the file holds them.
    firing_times : (n_frames, n_transmits) s, when the transmits fired; None where the file is silent.
    """

    path: str
    format: str
    acquisition: Acquisition
    sampling_frequency: float
    start_time: float | np.ndarray
    n_frames: int
    n_samples: int
    read: Callable[[int], np.ndarray]
    demodulation_frequency: float | None = None
    clock: str = ""
    notes: tuple[str, ...] = ()
    stated: frozenset[str] = frozenset({TIME_ZERO})
    firing_times: np.ndarray | None = None

    def samples(self, frame: int) -> np.ndarray:
        """Return the samples of a frame, (n_transmits, n_elements, n_samples) float32 or complex64, checked to be numbers.

        Raises
        ------
        DataError
            There is no such frame, or samples are NaN, infinite or absurd.
        """
        if not 0 <= frame < self.n_frames:
            raise DataError(f"{self.path}: frame: expected 0 to {self.n_frames - 1}, got {frame}")
        samples = self.read(frame)
        single = np.complex64 if self.demodulation_frequency is not None else np.float32
        with np.errstate(over="ignore", invalid="ignore"):
            samples = np.ascontiguousarray(samples, dtype=single)
            largest = float(np.abs(samples).max(initial=0.0))  # NaN where one is
        if not np.isfinite(largest):
            bad = int((~np.isfinite(samples)).sum())
            raise DataError(
                f"{self.path}: frame {frame}: expected finite samples, got {bad} of {samples.size} that are NaN or infinite"
            )
        if largest > HUGEST:
            raise DataError(
                f"{self.path}: frame {frame}: expected samples of a converter, got values up to {largest:g} "
                "(bytes in the wrong order?)"
            )
        return samples


def with_facts(recording: Recording, facts: Facts) -> Recording:
    """Return the recording with what the user says in place of what the file says.

    Raises
    ------
    DataError
        A fact does not fit the samples.
    """
    acquisition, path = recording.acquisition, recording.path
    changes: dict[str, Any] = {}
    if facts.probe is not None and facts.probe != acquisition.probe:
        if facts.probe.n_elements != acquisition.probe.n_elements:
            raise DataError(
                f"{path}: probe: expected one of {acquisition.probe.n_elements} elements, as the file has, "
                f"got {facts.probe.name} of {facts.probe.n_elements}"
            )
        changes["probe"] = facts.probe
    if facts.speed_of_sound is not None:
        changes["medium"] = Medium(facts.speed_of_sound, acquisition.medium.attenuation_db_cm_mhz)
    if facts.angles is not None:
        if len(facts.angles) != acquisition.n_transmits:
            raise DataError(
                f"{path}: angles: expected {acquisition.n_transmits}, one of each transmit, got {len(facts.angles)}"
            )
        reference = str(facts.clock or getattr(acquisition.waves, "time_reference", "first"))
        changes["waves"] = PlaneWaves(facts.angles, time_reference="first" if reference == "given" else reference)
    elif facts.clock is not None:
        if getattr(acquisition.waves, "time_reference", "given") == "given":
            raise DataError(f"{path}: clock: its firing times are given by element and begin where they say")
        changes["waves"] = replace(acquisition.waves, time_reference=facts.clock)  # type: ignore[type-var]
    if facts.sampling_frequency is not None:
        changes["sampling_frequency"] = facts.sampling_frequency
    changed = replace(acquisition, **changes) if changes else acquisition
    demodulation = recording.demodulation_frequency
    if facts.demodulation_frequency is not None:
        if demodulation is None:
            raise DataError(f"{path}: demodulation_frequency: it is of IQ data, and the file holds RF")
        demodulation = facts.demodulation_frequency
    return replace(
        recording,
        acquisition=changed,
        sampling_frequency=facts.sampling_frequency or recording.sampling_frequency,
        start_time=recording.start_time if facts.start_time is None else facts.start_time,
        demodulation_frequency=demodulation,
    )
