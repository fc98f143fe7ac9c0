"""Files of channel data of each kind: one module per format, one table of them, told apart by what they begin with.

A format's module turns a file into a `Recording`, which reads its samples when they are asked for, and some write one.
Files are not trusted: no pickles, no links out of a file, and what a file declares is held against its bytes first.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from ...errors import DataError
from .facts import Facts
from .recording import Recording, with_facts

MAGIC = {
    b"PK\x03\x04": ("npz", "open_npz"),
    b"\x93NUMPY": ("arrays", "open_npy"),
}
KNOWN = "ussim's .npz, a .npy array"


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
    recording = _opener(path, start)(path, variable, facts)
    try:
        return with_facts(recording, facts)
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


def _opener(path: Path, start: bytes):
    home = next((home for magic, home in MAGIC.items() if start.startswith(magic)), None)
    if path.suffix.lower() == ".npz":  # whatever it holds: it is told as a bad one
        home = ("npz", "open_npz")
    if home is None:
        raise DataError(
            f"{path}: expected channel data ({KNOWN}), got {'an empty file' if not start else 'another kind'}"
        )
    module, name = home
    return getattr(import_module(f"{__name__}.{module}"), name)
