"""NPY stacks and pictures: grey values without a place in the patient."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ..errors import DataError
from .budget import check_there, check_values
from .damage import told, told_of_ref
from .files import sha256_of
from .own import read_bmode, refuse_figure
from .values import filled_outside, narrowed
from .volume import ACQUIRED, Volume, VolumeRef, named

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


@told_of_ref
def load_npy(ref: VolumeRef) -> Volume:
    """Read a NumPy array: a stack (slice, row, column), or a single slice (row, column). The file has no voxel size."""
    path = ref.paths[0]
    notes = ["no voxel size in the file: pixels taken as square"]
    with named(ref):
        voxels = narrowed(_read_npy(path), notes)
        if voxels.ndim == 2:
            voxels = voxels[np.newaxis]
        if voxels.ndim != 3:
            raise DataError(f"{path}: expected (slice, row, column) or (row, column), got shape {voxels.shape}")
        if voxels.shape[2] in (3, 4) and min(voxels.shape[:2]) > 16:
            raise DataError(f"{path}: shape {voxels.shape} looks like a color picture; expected (slice, row, column)")
    if ref.source != "file" or len(voxels) > 1:  # an image opened on its own may be computed: NaN in it is a fault
        voxels = filled_outside(voxels, notes)
    return _stack(ref, voxels, notes)


@told_of_ref
def load_pictures(ref: VolumeRef) -> Volume:
    """Read PNG, JPEG, BMP or TIFF files, one slice each, as a stack."""
    with named(ref):
        (columns, rows), _ = picture_header(ref.paths[0])
        check_values(ref.name, (len(ref.paths), rows, columns), 1)
        images = [_read_picture(path) for path in ref.paths]
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise DataError(f"{ref.name}: pictures of one stack differ in size: {sorted(shapes)}")
    return _stack(ref, np.stack(images), ["no voxel size in the file: pixels taken as square"])


@told_of_ref
def load_bmode(ref: VolumeRef) -> Volume:
    """Read the B-mode that `ussim render` or `ussim beamform` wrote as .npz, one slice, or a movie's frames."""
    with named(ref):
        bmode = read_bmode(ref.paths[0])
    return _stack(ref, bmode if bmode.ndim == 3 else bmode[np.newaxis], [])


def npy_header(path: str | os.PathLike[str]) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and number type of an .npy file, whose values are there; raises DataError of any other file."""
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            start = file.read(4)
            if start == b"PK\x03\x04":
                raise DataError(f"{path}: holds several arrays (.npz); save one array as .npy")
            file.seek(0)
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            there = os.fstat(file.fileno()).st_size - file.tell()
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except Exception:  # the header is Python's text: NumPy's parser raises many kinds on a damaged one
        raise DataError(f"{path}: not an .npy file of numbers (np.save writes one)") from None
    if not all(isinstance(size, int) and size >= 0 for size in shape) or dtype.hasobject:
        raise DataError(f"{path}: not an .npy file of numbers (np.save writes one)")
    check_there(str(path), math.prod(shape) * dtype.itemsize, there)
    return shape, dtype


def _read_npy(path: str) -> np.ndarray:
    shape, dtype = npy_header(path)
    if dtype.kind not in "buif":
        raise DataError(f"{path}: expected real numbers, got {dtype}")
    check_values(path, shape, dtype.itemsize)
    with told(path):
        array = np.load(path, allow_pickle=False)
    native: np.ndarray = array.astype(array.dtype.newbyteorder("="), copy=False)
    return native


def picture_header(path: str | os.PathLike[str]) -> tuple[tuple[int, int], str]:
    """Return size (columns, rows) and mode of a picture; raises DataError where Pillow opens none, or one too large."""
    from PIL import Image

    with _told_of_picture(path), Image.open(path) as picture:
        refuse_figure(path, picture.info)
        return picture.size, picture.mode


@contextmanager
def _told_of_picture(path: str | os.PathLike[str]) -> Iterator[None]:
    """Yield what Pillow makes of damaged and of very large pictures, in one line that names the file."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, which the budget judges
            yield
    except UnidentifiedImageError:
        raise DataError(f"{path}: not a picture that can be read") from None
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise DataError(f"{path}: a picture of more than {most:,} pixels: save a smaller one") from None
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # Pillow's plug-ins raise many kinds on damaged files
        raise DataError(f"{path}: not a picture that can be read ({type(error).__name__})") from None


def _read_picture(path: str) -> np.ndarray:
    """Return a picture as grey values: 8- or 16-bit as stored, color by its luminance, transparency over black."""
    from PIL import Image

    with _told_of_picture(path), Image.open(path) as file:
        picture: Image.Image = file
        refuse_figure(path, picture.info)
        check_values(path, (picture.height, picture.width, len(picture.getbands())), 1)
        if picture.mode in ("P", "PA"):
            picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
        elif picture.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
            picture = picture.convert("RGB")
        array = np.array(picture)
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.ndim == 3:
        has_alpha = array.shape[2] in (2, 4)
        color = array[..., :-1] * (array[..., -1:] / 255.0) if has_alpha else array
        weights = [1.0] if color.shape[2] == 1 else [0.2125, 0.7154, 0.0721]  # ITU-R BT.709 luminance
        array = np.rint(color @ np.array(weights)).astype(np.uint8)
    if array.dtype == np.int32:  # Pillow's mode "I": 16-bit values in 32
        array = array.astype(np.uint16) if array.min() >= 0 and array.max() < 2**16 else array.astype(np.float32)
    return array


def _stack(ref: VolumeRef, voxels: np.ndarray, notes: Sequence[str]) -> Volume:
    """Return a bare stack of slices as they are to be displayed."""
    return Volume(
        source=ref.source,
        subject=ref.subject,
        name=ref.name,
        voxels=voxels,
        spacing=(None, None, None),
        orientation=ref.orientation or ACQUIRED,
        file_sha256=sha256_of(ref.paths),
        notes=(*ref.notes, *notes),
    )
