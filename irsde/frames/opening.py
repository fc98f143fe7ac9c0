"""Opening of pictures and cines; all other files are volumes, which `irsde.stacks` opens."""

from __future__ import annotations

from pathlib import Path

from ussim.errors import DataError
from ussim.volumes.files import walk

from .dicom_in import is_clinical, open_dicom
from .pictures import SUFFIXES, open_picture
from .source import Source

DICOM_NAMES = (".dcm", ".dicom", ".ima", ".dcm.gz", ".dicom.gz")


def open_source(path: Path) -> Source | None:
    """Read the header of a picture, a TIFF of several pages, or a DICOM file of ultrasound; None of other files.

    Raises
    ------
    DataError
        The file is missing, damaged, or holds no image that can be decoded here.
    """
    if path.is_dir():
        first = next(walk(path), None)
        if first is not None and _is_dicom(first) and is_clinical(first):
            raise DataError(
                f"{path}: expected a file, or a folder with one series of MR or CT, got a folder with {first.name}: restore "
                "pictures and cines one by one"
            )
        return None
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.name.lower().endswith(SUFFIXES):
        return open_picture(path)
    return open_dicom(path) if _is_dicom(path) and is_clinical(path) else None


def _is_dicom(path: Path) -> bool:
    """Tell a file that is called DICOM, or begins as one."""
    try:
        with open(path, "rb") as file:
            start = file.read(132)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    return path.name.lower().endswith(DICOM_NAMES) or start[128:] == b"DICM"
