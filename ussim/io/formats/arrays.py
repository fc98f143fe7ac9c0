"""Bare arrays (.npy, .npz, .mat, .hdf5) of which the user says what they are.

Time zero is where the first element of a transmit fires, or where the wave passes the array's center if the user says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...acquisition import Acquisition
from ...errors import DataError
from ...medium import Medium
from ...transmits import PlaneWaves
from .axes import Layout, find_layout
from .facts import Facts
from .recording import TIME_ZERO, Recording
from .sizes import check_uncompressed, file_size, n_bytes, read_npy_header


@dataclass(frozen=True)
class Bare:
    """An array of a file: its name, shape and type, and the way to something that can be indexed as it."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    open: Callable[[], Any]


def open_npy(path: Path, variable: str | None, facts: Facts) -> Recording:
    """Open an .npy file, mapped into memory: only the frames asked for are read."""
    try:
        with open(path, "rb") as file:
            shape, dtype = read_npy_header(file)
        if dtype.hasobject:
            raise ValueError("expected numbers, got a pickle, which is not read")
        check_uncompressed("the array", n_bytes(shape, dtype.itemsize), file_size(path))
    except (ValueError, OverflowError, EOFError, SyntaxError) as error:
        raise DataError(f"{path}: expected an .npy array: {str(error).splitlines()[0]}") from None
    bare = Bare(path.stem, shape, dtype, lambda: np.load(path, mmap_mode="r", allow_pickle=False))
    return bare_recording(path, ".npy", {bare.name: bare}, variable, facts)


def other_of_ours(names: Iterable[str]) -> str:
    """Return why the arrays of another file of ours are not channel data; "" where it is none of ours."""
    names = set(names)
    if not {"x", "z"} <= names:
        return ""
    if "bmode" in names:
        return "a B-mode, not channel data: `ussim render --channel-data FILE` keeps the echoes that one is made of"
    if "pressure" in names:
        return "the pressure field of a transmit, not channel data"
    return "images of `irsde drus`, not channel data" if "drusmean" in names else ""


def bare_recording(
    path: Path, kind: str, arrays: Mapping[str, Bare], variable: str | None, facts: Facts, notes: tuple[str, ...] = ()
) -> Recording:
    """Return a recording of the array named `variable`, or of the only one that fits, with the facts that the user gave.

    Raises
    ------
    DataError
        A fact is missing, or no array, or more than one, fits.
    """
    probe, rate = facts.probe, facts.sampling_frequency
    if probe is None or rate is None:
        if reason := other_of_ours(arrays):
            raise DataError(f"{path}: {reason}")
        held = ", ".join(f"{bare.name} {bare.shape}" for bare in arrays.values()) or "nothing"
        needed = " and ".join(
            [*(["--probe NAME|FILE"] if probe is None else []), *(["--sampling-mhz MHZ"] if rate is None else [])]
        )
        raise DataError(
            f"{path}: holds arrays alone ({held}): say what they were acquired with, {needed} (also --angles-deg, "
            "--start-us, --speed-of-sound, or all of them in a TOML file, --facts)"
        )
    angles = np.zeros(1) if facts.angles is None else facts.angles
    n, m = probe.n_elements, len(angles)
    words = f"{n} elements ({probe.name}) and {m} {'transmit' if m == 1 else 'transmits'}"

    def layout_of(bare: Bare) -> Layout:
        return find_layout(bare.shape, n, m, facts.axes, words=words)

    bare, layout = choose(path, arrays, variable, layout_of)
    is_iq = bare.dtype.kind == "c"
    if facts.angles is None:
        notes = (*notes, "one plane wave of 0° (--angles-deg)")
    if is_iq and facts.demodulation_frequency is None:
        notes = (
            *notes,
            f"IQ at {probe.center_frequency / 1e6:.4g} MHz, the probe's center frequency (--demodulation-mhz)",
        )
    notes = (*notes, f"axes of {bare.name} {bare.shape}: {', '.join(layout.roles)}")
    clock = facts.clock or "first"
    try:
        acquisition = Acquisition(
            probe,
            PlaneWaves(angles, time_reference=clock),
            Medium(facts.speed_of_sound or 1540.0),
            sampling_frequency=rate,
        )
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    return Recording(
        str(path),
        kind,
        acquisition,
        rate,
        0.0 if facts.start_time is None else facts.start_time,
        n_frames=layout.length("frames"),
        n_samples=layout.length("samples"),
        read=lambda frame: layout.read(bare.open(), frame),
        demodulation_frequency=(facts.demodulation_frequency or probe.center_frequency) if is_iq else None,
        clock="the first element fires" if clock == "first" else "the wave passes the array's center",
        stated=frozenset() if facts.start_time is None else frozenset({TIME_ZERO}),
        notes=notes,
    )


def choose(
    path: Path, arrays: Mapping[str, Bare], variable: str | None, layout_of: Callable[[Bare], Layout]
) -> tuple[Bare, Layout]:
    """Return the array asked for, or the only one that can be channel data, and its axes.

    Raises
    ------
    DataError
        There is none, or there are several.
    """
    if variable is not None:
        if variable not in arrays:
            raise DataError(f"{path}: variable: expected one of {', '.join(arrays) or 'none'}, got {variable!r}")
        candidates = [arrays[variable]]
    else:
        candidates = [bare for bare in arrays.values() if bare.dtype.kind in "fiuc" and len(bare.shape) > 1]
    fitting, why = [], ""
    for bare in candidates:
        if bare.dtype.kind not in "fiuc":
            why = f"{bare.name}: expected an array of numbers, got {bare.dtype}"
            continue
        try:
            fitting.append((bare, layout_of(bare)))
        except ValueError as error:
            why = f"{bare.name}: {error}"
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        held = ", ".join(f"{bare.name} {bare.shape}" for bare in arrays.values()) or "nothing"
        raise DataError(
            f"{path}: {why}" if len(candidates) == 1 else f"{path}: expected channel data, got {held}. {why}"
        )
    names = ", ".join(f"{bare.name} {bare.shape}" for bare, _ in fitting)
    raise DataError(f"{path}: several arrays may be channel data, {names}: say which (variable=, --variable NAME)")
