"""Which files are pictures or cines; all others are volumes, which `irsde.stacks` opens."""

from __future__ import annotations

from pathlib import Path

from ussim.errors import DataError

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
        return None
    try:
        with open(path, "rb") as file:
            start = file.read(132)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file or folder") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    name = path.name.lower()
    if name.endswith(SUFFIXES):
        return open_picture(path)
    if (name.endswith(DICOM_NAMES) or start[128:] == b"DICM") and is_clinical(path):
        return open_dicom(path)
    return None
