"""PNG, JPEG, BMP and TIFF (pages are frames) as a viewer shows them: orientation, palette, transparency."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ussim.errors import DataError
from ussim.volumes.own import refuse_figure

from .source import Picture, Source

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
WITHOUT_COLOR = ("1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
FULL_RANGES = {"I;16": (0.0, 65535.0), "I": None, "F": None}  # other modes: 8 bits; None = of the values


def open_picture(path: Path) -> Source:
    """Read the header of a picture or of a TIFF's pages.

    Raises
    ------
    DataError
        The file is missing or damaged, or holds what is no picture.
    """
    with _opened(path) as file:
        pages, notes = _pages(file)
        shape = _values(file).shape[:2]
        mode = file.mode.replace("16B", "16").replace("16L", "16").replace("16N", "16")
    full_range = FULL_RANGES.get(mode, (0.0, 255.0))
    if mode == "I" and file.format == "PNG":  # Pillow's name of 16 bits in a PNG, formerly
        full_range = FULL_RANGES["I;16"]
    return Source(
        name=str(path),
        n_frames=len(pages),
        shape=(shape[0], shape[1]),
        decode=partial(_decode, path, pages),
        full_range=full_range,
        bits=8 if full_range == (0.0, 255.0) else 16,
        notes=tuple(notes),
    )


def _pages(file: Any) -> tuple[list[int], list[str]]:
    """Pages of the size of the first; the others are thumbnails. A picture in motion counts as its first."""
    count = getattr(file, "n_frames", 1) if file.format == "TIFF" else 1
    sizes = []
    for page in range(count):
        file.seek(page)
        sizes.append(file.size)
    file.seek(0)
    pages = [page for page in range(count) if sizes[page] == sizes[0]]
    others = count - len(pages)
    return pages, [f"{others} of {count} pages have another size than the first: left out"] if others else []


def _decode(path: Path, pages: list[int], indices: Iterable[int]) -> Iterator[Picture]:
    """Frames of some indices, one page in memory at a time."""
    with _opened(path) as file:
        for index in indices:
            file.seek(pages[index])
            yield _values(file)


def _values(picture: Any) -> Picture:
    """Return the page at hand upright: grey values as stored, or 8-bit colors, transparency over black."""
    from PIL import ImageOps

    with warnings.catch_warnings(action="ignore"):
        picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    elif picture.mode not in (*WITHOUT_COLOR, "RGB", "RGBA"):
        picture = picture.convert("RGBA" if picture.mode == "RGBa" else "RGB")
    array = np.array(picture)
    if array.dtype == bool:
        array = array.astype(np.uint8) * np.uint8(255)
    if array.ndim == 3 and array.shape[2] in (2, 4):
        array = np.rint(array[..., :-1] * (array[..., -1:] / 255.0)).astype(np.uint8)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    return array.astype(array.dtype.newbyteorder("="), copy=False)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Yield a picture of Pillow; what is wrong with the file is a DataError."""
    from PIL import Image, UnidentifiedImageError

    try:
        # An open file and not its name: Pillow maps a named TIFF into memory by the size it has after it is turned upright.
        with open(path, "rb") as stream:
            with warnings.catch_warnings(action="ignore"):  # of large pictures, and of EXIF that is cut short
                file = Image.open(stream)
            refuse_figure(path, file.info)
            with file:
                yield file
    except UnidentifiedImageError:
        raise DataError(f"{path}: not a picture that can be read") from None
    except DataError:
        raise
    except OSError as error:
        why = error.strerror or f"the picture cannot be read: {' '.join(str(error).split())}"
        raise DataError(f"{path}: {why}") from None
    except (SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:  # Pillow's, of damaged files
        raise DataError(f"{path}: the picture cannot be read: {' '.join(str(error).split())}") from None
