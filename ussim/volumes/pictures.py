"""NPY stacks and pictures: grey values without a place in the patient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import DataError
from .files import sha256_of
from .values import filled_outside, narrowed
from .volume import ACQUIRED, Volume, VolumeRef, named

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


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
            raise DataError(f"{path}: shape {voxels.shape} looks like a colour picture; expected (slice, row, column)")
    if ref.source != "file" or len(voxels) > 1:  # an image opened on its own may be computed: NaN in it is a fault
        voxels = filled_outside(voxels, notes)
    return _stack(ref, voxels, notes)


def load_pictures(ref: VolumeRef) -> Volume:
    """Read PNG, JPEG, BMP or TIFF files, one slice each, as a stack."""
    with named(ref):
        images = [_read_picture(path) for path in ref.paths]
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise DataError(f"{ref.name}: pictures of one stack differ in size: {sorted(shapes)}")
    return _stack(ref, np.stack(images), ["no voxel size in the file: pixels taken as square"])


def _read_npy(path: str) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except (ValueError, EOFError):
        raise DataError(f"{path}: not an .npy file of numbers (np.save writes one)") from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: holds several arrays (.npz); save one array as .npy")
    if array.dtype.kind not in "buif":
        raise DataError(f"{path}: expected real numbers, got {array.dtype}")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _read_picture(path: str) -> np.ndarray:
    """A picture as grey values: 8- or 16-bit as stored, colour by its luminance, transparency over black."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            picture: Image.Image = file
            if picture.mode in ("P", "PA"):
                picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
            elif picture.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
                picture = picture.convert("RGB")
            array = np.array(picture)
    except UnidentifiedImageError:
        raise DataError(f"{path}: not a picture that can be read") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.ndim == 3:
        has_alpha = array.shape[2] in (2, 4)
        colour = array[..., :-1] * (array[..., -1:] / 255.0) if has_alpha else array
        weights = [1.0] if colour.shape[2] == 1 else [0.2125, 0.7154, 0.0721]  # ITU-R BT.709 luminance
        array = np.rint(colour @ np.array(weights)).astype(np.uint8)
    if array.dtype == np.int32:  # Pillow's mode "I": 16-bit values in 32
        array = array.astype(np.uint16) if array.min() >= 0 and array.max() < 2**16 else array.astype(np.float32)
    return array


def _stack(ref: VolumeRef, voxels: np.ndarray, notes: Sequence[str]) -> Volume:
    """A bare stack of slices as they are to be displayed."""
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
