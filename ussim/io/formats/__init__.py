"""Files of channel data of each kind: one module per format, one table of them, told apart by what they begin with.

A format's module turns a file into a `Recording`, which reads its samples when they are asked for, and some write one.
Files are not trusted: no pickles, no links out of a file, and what a file declares is held against its bytes first.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from os import PathLike
from pathlib import Path
from types import ModuleType

from ...errors import DataError
from .facts import Facts
from .recording import Recording, with_facts

KNOWN = "ussim's .npz, PICMUS, zea or OpenH-RF .hdf5, UFF, MUST-style .mat, or an array .npy, .npz, .mat, .hdf5"
WRITERS = {".hdf5": "zea", ".h5": "zea", ".mat": "must_mat", ".uff": "uff"}  # beside .npz, our own
MATLAB = (b"MATLAB 5.0", b"MATLAB 7.")


def open_recording(path: str | Path, variable: str | None = None, facts: Facts | None = None) -> Recording:
    """Open a file of channel data of any format that is known.

    Parameters
    ----------
    path : of the file.
    variable : name of the array in it, where there are several.
    facts : what the file does not say, or says wrongly.

    Raises
    ------
    OSError
        The file cannot be opened.
    DataError
        It is none of these formats, or damaged.
    """
    path, facts = Path(path), facts or Facts()
    with open(path, "rb") as file:
        start = file.read(1024)
    try:
        return with_facts(_opener(path, start)(path, variable, facts), facts)
    except DataError:
        raise
    except (ValueError, TypeError, KeyError, OSError, OverflowError, MemoryError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: {text}") from None


def writer_of(path: str | PathLike[str]) -> Callable[[str | PathLike[str], Recording], None] | None:
    """Return the function that writes files of this suffix, None where that is our own format."""
    name = WRITERS.get(Path(path).suffix.lower())
    return None if name is None else getattr(_module(name), {"must_mat": "write_mat"}.get(name, f"write_{name}"))


def _opener(path: Path, start: bytes) -> Callable[[Path, str | None, Facts], Recording]:
    suffix = path.suffix.lower()
    if suffix == ".npz" or start.startswith(b"PK\x03\x04"):  # an .npz whatever it holds: it is told as a bad one
        from ussim.io.formats.npz import open_npz

        return open_npz
    if start.startswith(b"\x93NUMPY"):
        from ussim.io.formats.arrays import open_npy

        return open_npy
    if b"\x89HDF\r\n\x1a\n" in (start[:8], start[512:520]):
        return _opener_of_hdf5(path)
    if suffix == ".mat" or start.startswith(MATLAB):
        from ussim.io.formats.must_mat import open_mat

        return open_mat
    raise DataError(
        f"{path}: expected channel data ({KNOWN}), got {'another kind of file' if start else 'an empty file'}"
    )


def _opener_of_hdf5(path: Path) -> Callable[[Path, str | None, Facts], Recording]:
    from ussim.io.formats import hdf5, must_mat, picmus, uff, zea

    with hdf5.opened(path) as file:
        if picmus.group_of(file) is not None:
            return picmus.open_picmus
        if uff.channel_data_name(file) is not None:
            return uff.open_uff
        if zea.is_zea(file):
            return zea.open_zea
    return must_mat.open_mat_hdf5


def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name}")
