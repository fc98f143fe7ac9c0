"""Files that this program wrote: B-modes are read as images; what is none is refused by name, with what to use instead.

Figures have axes and a color bar, which a reader would take for tissue. They carry the name of this program as software.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .budget import check_values
from .damage import told

SOFTWARE = "ussim"  # in a figure's metadata
BARE = "_bare.png"  # ends the name of the picture alone
DRAWINGS = (".pdf", ".svg")
MATLAB = ".mat"
ECHOES = "channel data, not an image: `ussim beamform` makes one of it"
CHANNEL_DATA = (".hdf5", ".h5", ".uff")  # and .npz and .mat, which may hold a B-mode too


def bare_path(figure: Path) -> Path:
    """Return the name of the picture alone that lies beside a figure."""
    return figure.with_name(figure.stem + BARE)


def refuse_figure(path: str | PathLike[str], metadata: Mapping[Any, Any]) -> None:
    """Raise DataError where a picture's metadata say that it is a figure of this program, which names the image to read."""
    if metadata.get("Software") == SOFTWARE:
        raise DataError(f"{path}: a figure with axes, not an image: {_instead(Path(path))}")


def refuse_drawing(path: Path) -> None:
    """Raise DataError of a PDF or SVG file, which names the image to read."""
    if path.suffix.lower() in DRAWINGS:
        raise DataError(f"{path}: a drawing, not an image: {_instead(path)}")


def refuse_echoes(path: Path) -> None:
    """Raise DataError of a file whose name is that of channel data."""
    if path.suffix.lower() in CHANNEL_DATA:
        raise DataError(f"{path}: {ECHOES}")


def _instead(path: Path) -> str:
    """Return what to read in place of a figure: what lies beside it, else what writes one."""
    for beside in (bare_path(path), path.with_suffix(".npz")):
        if beside.is_file():
            return f"use {beside}"
    return "use the .npz beside it, or the picture alone, which --bare writes (`ussim render`, `ussim beamform`)"


def read_bmode(path: str | Path) -> np.ndarray:
    """Read the B-mode in an .npz or .mat of `ussim render` or `beamform`: (nz, nx), of a movie (frame, nz, nx), in [0, 1].

    Raises
    ------
    DataError
        The file holds something else, which the message names with the command that reads it, or is damaged.
    """
    read = _of_matlab if str(path).lower().endswith(MATLAB) else _of_archive
    with told(str(path)):
        bmode = read(path)
    if bmode.dtype.kind != "f" or bmode.ndim not in (2, 3) or bmode.size == 0:
        raise DataError(f"{path}: bmode: expected (nz, nx) of floats in [0, 1], got {bmode.dtype} {bmode.shape}")
    return bmode.astype(np.float32)


def no_bmode(names: Iterable[str]) -> str:
    """Return why the arrays of an .npz are no image, and what reads them; "" where one is the B-mode."""
    names = set(names)
    if "bmode" in names:
        return ""
    if {"header", "samples"} <= names or names & {"RF", "IQ"}:
        return ECHOES
    if "pressure" in names:
        return "the pressure field of a transmit, not an image"
    if "drusmean" in names:
        return (
            "several images in linear amplitude (of `irsde drus`): save one in grey levels, "
            'np.save("drus.npy", ussim.log_compress(np.load("drus.npz")["drusmean"], 60))'
        )
    return f"expected the array bmode, as `ussim render` writes it, got {', '.join(sorted(names)) or 'nothing'}"


def _of_archive(path: str | Path) -> np.ndarray:
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
        if reason := no_bmode(archive.files):
            raise DataError(f"{path}: {reason}")
        check_values(str(path), _shape(archive), 4)
        bmode: np.ndarray = archive["bmode"]
        return bmode


def _of_matlab(path: str | Path) -> np.ndarray:
    from ..io.formats.matlab5 import variables

    held = {variable.name: variable for variable in variables(Path(path)) if variable.is_array}
    if reason := no_bmode(held):
        raise DataError(f"{path}: {reason}")
    check_values(str(path), held["bmode"].shape, 4)
    return held["bmode"].array()[...]


def _shape(archive: Any) -> tuple[int, ...]:
    """Return the shape that the B-mode of an open archive declares, before it is read."""
    from ..io.formats.sizes import read_npy_header

    with archive.zip.open("bmode.npy") as file:
        shape, _ = read_npy_header(file)
    return tuple(int(size) for size in shape)
