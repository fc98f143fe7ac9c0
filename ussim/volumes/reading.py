"""Files to volumes: NIfTI, NPY, pictures and (through `dicom.py`) DICOM; and one file to one grey image.

Each `load_*` takes a `VolumeRef` and gives a `Volume` in the file's own number type where it can, so that a large volume
is never held in float64. `read_image` is what `ussim render` opens its phantom with.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .dicom import load_dicom, obliquity_degrees, scan_dicom
from .files import sha256_of, walk
from .nrrd import META, NRRD, PAIRS, Block, files_of, open_block
from .values import absurd, filled_outside, narrowed
from .volume import ACQUIRED, CANONICAL, Volume, VolumeRef

NIFTI_SUFFIXES = (".nii", ".nii.gz")
MGH_SUFFIXES = (".mgz", ".mgh", ".mgh.gz")
# Volumes of one file, or of a header and a file of voxels, that are read as NIfTI is.
VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *MGH_SUFFIXES, *PAIRS, *PAIRS.values(), *NRRD, *META)
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


def load_nifti(ref: VolumeRef) -> Volume:
    """Read a NIfTI volume in its closest canonical orientation; of a 4-D file, frame `ref.part`.

    The other formats of `VOLUME_SUFFIXES` (Analyze, MGH, NRRD, MetaImage) are read alike.
    Compression is told by the file's first bytes, not its name: uncompressed files called .nii.gz are common.

    Raises
    ------
    DataError
        The file is missing, damaged, in colour or complex, or has no such frame.
    """
    from nibabel.orientations import apply_orientation, io_orientation

    path = ref.paths[0]
    with _named(ref), open_nifti(path) as (image, oddities):
        voxels, spacing, affine, notes = _nifti_frame(path, image, ref.part)
    voxels = filled_outside(voxels, notes)
    orientation = io_orientation(affine)
    along: list[float | None] = [None, None, None]
    for size, (axis, _) in zip(spacing, orientation, strict=True):
        along[int(axis)] = size
    return Volume(
        source=ref.source,
        subject=ref.subject,
        name=ref.name,
        voxels=apply_orientation(voxels, orientation),
        spacing=(along[0], along[1], along[2]),
        orientation=CANONICAL,
        file_sha256=sha256_of(ref.paths),
        notes=(*ref.notes, *(note for note in (*oddities, *notes) if note not in ref.notes)),
        file_affine=affine,
    )


@contextmanager
def open_nifti(path: str | os.PathLike[str]) -> Iterator[tuple[Any, list[str]]]:
    """A nibabel image (header read, voxels not) for as long as the block lasts, and what is odd about the file."""
    from nibabel.fileholders import FileHolder
    from nibabel.spatialimages import HeaderDataError

    lower = str(path).lower()
    if lower.endswith((*NRRD, *META)):
        block = open_block(Path(path))
        yield block, [*block.notes, *_geometry(block)[2]]
        return
    is_pair = lower.endswith((*PAIRS, *PAIRS.values()))
    files = files_of(Path(path)) if is_pair else (Path(path),)
    path = files[0]
    is_gzip, start = _first_bytes(path)
    kind = _kind_of(path, start, is_pair)
    notes = []
    if str(path).lower().endswith(".gz") and not is_gzip:
        notes.append("uncompressed file named .gz")
    elif is_gzip and not str(path).lower().endswith((".gz", ".mgz")):
        notes.append("gzip file not named .gz")
    # A name ending in .gz would make nibabel decompress whatever the bytes are, so it is given an open file.
    with ExitStack() as opened:
        streams = [opened.enter_context(_stream(file)) for file in files]
        holders = [FileHolder(fileobj=stream) for stream in streams]
        parts = dict(zip(("header", "image") if is_pair else ("image",), holders, strict=True))
        parts["mat"] = FileHolder(filename=os.fspath(path)[: -len(path.suffix)] + ".mat")  # SPM's, beside Analyze
        try:
            image = kind.from_file_map(parts)
        except (HeaderDataError, ValueError, OSError, EOFError, TypeError, zlib.error) as error:
            raise DataError(f"{path}: damaged {_format(path)} header: {' '.join(str(error).split())}") from None
        yield image, [*notes, *_geometry(image)[2]]


def _stream(path: Path) -> Any:
    return gzip.open(path) if _first_bytes(path)[0] else open(path, "rb")


def _first_bytes(path: Path) -> tuple[bool, bytes]:
    """Whether a file is gzip, told by its first bytes, and how its content begins."""
    try:
        with open(path, "rb") as file:
            is_gzip = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            return is_gzip, (gzip.GzipFile(fileobj=file) if is_gzip else file).read(348)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def _format(path: Path) -> str:
    return "MGH" if path.name.lower().endswith(MGH_SUFFIXES) else "NIfTI"


def _kind_of(path: Path, start: bytes, is_pair: bool) -> Any:
    """The class of nibabel that reads a file that begins so; raises DataError where none does."""
    import nibabel as nib

    if path.name.lower().endswith(MGH_SUFFIXES):
        if start[:4] != b"\0\0\0\1":
            raise DataError(f"{path}: not an MGH file (expected version 1)")
        return nib.MGHImage
    sizes = {struct.unpack(order + "i", start[:4])[0] for order in "<>"} if len(start) >= 4 else set()
    if not sizes & {348, 540}:
        what = "NIfTI or Analyze header" if is_pair else "NIfTI file"
        raise DataError(f"{path}: not a {what} (expected a header of 348 or 540 bytes)")
    if not is_pair:
        return nib.Nifti2Image if 540 in sizes else nib.Nifti1Image
    if 540 in sizes:
        return nib.Nifti2Pair
    return nib.Nifti1Pair if start[344:347] in (b"ni1", b"n+1") else nib.Spm99AnalyzeImage


def four_d_note(n_frames: int, part: int = 0) -> str:
    """What is said of a file with several frames."""
    return f"4-D file of {n_frames} frames: frame {part} used"


def _nifti_frame(path: str, image: Any, part: int) -> tuple[np.ndarray, list[float | None], np.ndarray, list[str]]:
    """Voxels of one 3-D frame in their own type where possible, voxel size in mm, affine, and what is odd."""
    from nibabel.arrayproxy import ArrayProxy

    header, notes = image.header, []
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    if dtype.kind not in "buif":
        raise DataError(f"{path}: expected real grey values, got {dtype} (colour or complex)")
    if len(shape) < 2 or 0 in shape:
        raise DataError(f"{path}: expected a volume, got shape {shape}")
    shape = (*shape, 1)[: max(3, len(shape))]
    n_frames = math.prod(shape[3:])
    if not 0 <= part < n_frames:
        raise DataError(f"{path}: frame {part} asked for; there are 0 to {n_frames - 1}")
    if n_frames > 1:
        notes.append(four_d_note(n_frames, part))
    # Through a proxy without scaling, so that the values come in the file's own type and only this frame is read.
    frame = np.unravel_index(part, shape[3:], order="F") if len(shape) > 3 else ()
    try:
        raw: Any = (
            image.raw()
            if isinstance(image, Block)
            else ArrayProxy(image.dataobj.file_like, (shape, dtype, image.dataobj.offset, 1.0, 0.0))
        )
        voxels = np.asarray(raw[(slice(None), slice(None), slice(None), *frame)])
    except DataError:
        raise
    except (OSError, EOFError, ValueError, zlib.error) as error:  # cut short, or a damaged gzip stream
        raise DataError(f"{path}: voxels cannot be read: {' '.join(str(error).split())}") from None
    voxels = voxels.astype(dtype.newbyteorder("="), copy=False)
    slope, intercept = (1.0, 0.0) if isinstance(image, Block) else (image.dataobj.slope, image.dataobj.inter)
    if (slope, intercept) != (1.0, 0.0):
        if not absurd((slope, intercept)):
            voxels = voxels.astype(np.float32) * np.float32(slope) + np.float32(intercept)
        else:
            voxels = voxels.astype(np.float64) * (slope / abs(slope)) + intercept / abs(slope)
            notes.append(f"scale {slope:g} in the header: values given without it")
    voxels = narrowed(voxels, notes)
    spacing, affine, _ = _geometry(image)
    return voxels, spacing, affine, notes


def _geometry(image: Any) -> tuple[list[float | None], np.ndarray, list[str]]:
    """Voxel size in mm along the file's axes, affine, and what is odd about them. Reads the header only."""
    header, affine, notes = image.header, image.affine, []
    codes = [int(header[name]) if name in header else None for name in ("sform_code", "qform_code")]
    sform, qform = codes
    sizes = [float(zoom) if np.isfinite(zoom) and zoom > 0 else None for zoom in header.get_zooms()]
    spacing = [*sizes, None, None, None][:3]
    if not _is_usable(affine) and qform and qform > 0 and _is_usable(header.get_qform()):
        notes.append("sform in the header is singular: qform used")
        affine = header.get_qform()
    if _is_usable(affine) and None not in spacing:
        # The affine that gives the orientation gives the size: some tools leave 1 x 1 x 1 in pixdim.
        columns = [float(length) for length in np.linalg.norm(affine[:3, :3], axis=0)]
        pixdim = [size for size in spacing if size is not None]
        if not np.allclose(columns, pixdim, rtol=1e-3):
            if not np.allclose(columns, pixdim, rtol=0.01):
                said, used = (" x ".join(f"{size:.3g}" for size in sizes[:3]) for sizes in (spacing, columns))
                notes.append(f"pixdim {said} mm and affine {used} mm differ: affine used")
            spacing = [*columns]
        if sform and qform and sform > 0 and qform > 0 and _is_usable(header.get_qform()):
            other = header.get_qform()[:3, :3]
            if not np.allclose(other, affine[:3, :3], atol=0.01 * max(columns)):
                notes.append("sform and qform in the header differ: sform used")
    if not _is_usable(affine):
        notes.append("no usable affine in the header: axes taken as Right, Anterior, Superior")
        affine = np.eye(4)
    elif codes == [None, None]:
        if "goodRASFlag" not in header:
            notes.append("Analyze says nothing of orientation: left and right are a guess")
        elif not header["goodRASFlag"]:
            notes.append("no orientation in the header (goodRASFlag 0): axes are a guess")
    elif sform == 0 and qform == 0:
        notes.append("no orientation in the header (sform and qform codes 0): axes are a guess")
    if None in spacing:
        notes.append("no voxel size in the header: voxels taken as cubes")
    elif spacing == [1.0, 1.0, 1.0]:
        notes.append("voxel size 1 x 1 x 1 mm: often a size that was lost on the way")
    tilt = obliquity_degrees(affine)
    if tilt > 10:
        notes.append(f"oblique: {tilt:.0f} degrees off the anatomical axes; planes are the closest ones")
    return spacing, affine, notes


def _is_usable(affine: np.ndarray) -> bool:
    return bool(np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-9)


def load_npy(ref: VolumeRef) -> Volume:
    """Read a NumPy array: a stack (slice, row, column), or a single slice (row, column). The file has no voxel size."""
    path = ref.paths[0]
    notes = ["no voxel size in the file: pixels taken as square"]
    with _named(ref):
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
    with _named(ref):
        images = [_read_picture(path) for path in ref.paths]
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise DataError(f"{ref.name}: pictures of one stack differ in size: {sorted(shapes)}")
    return _stack(ref, np.stack(images), ["no voxel size in the file: pixels taken as square"])


def read_image(
    path: str | os.PathLike[str], slice_index: int | None = None, plane: str | None = None, voi: bool = False
) -> np.ndarray:
    """One grey image from an NPY, PNG, JPEG, NIfTI or DICOM file, or from a folder with one DICOM series.

    Whole 8-bit values are divided by 255 and fractions in [0, 1] stay as they are; anything else (what a scanner
    writes) is scaled by percentiles of the series' foreground, as `datagen` does.

    Returns
    -------
    image : (n_rows, n_columns) float32 in [0, 1]

    Raises
    ------
    DataError
        The file is missing or damaged, holds NaN, or holds several slices and none was chosen.
    """
    from .grey import to_unit

    volume = open_volume(path, voi)
    plane = choose_plane(volume, plane)
    image, _ = volume.slice(plane, choose_slice(volume, plane, slice_index))
    return to_unit(image, display_range(volume))


def open_volume(path: str | os.PathLike[str], voi: bool = False) -> Volume:
    """The volume in a file of any known format (frame 0 of a 4-D one), or in a folder with one DICOM series.

    Its name is `path`, so that errors about it say where it lies. Raises DataError as `read_image` does.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    return _open_any(path, voi)


def choose_plane(volume: Volume, plane: str | None = None) -> str:
    """The plane asked for if the volume has it; without one the acquired plane, which lies across the coarsest axis."""
    if plane is None:
        return max(volume.planes(), key=lambda name: _across(volume, name))
    if plane not in volume.planes():
        raise DataError(f"{volume.name}: no {plane!r} plane here; choose from {', '.join(volume.planes())}")
    return plane


def choose_slice(volume: Volume, plane: str, index: int | None = None, otherwise: str = "") -> int:
    """The slice asked for, counted from the end if negative, or the only one there is.

    `otherwise` says what else the user may do where there are several and none was asked for.
    """
    count = volume.n_slices(plane)
    if index is None:
        if count > 1:
            others = [name for name in volume.planes() if name != plane]
            choice = f" (or another plane with --plane: {', '.join(others)})" if others else ""
            raise DataError(
                f"{volume.name}: expected one image, got {count} {plane} slices; choose one with --slice 0 to "
                f"{count - 1}{choice}{otherwise}"
            )
        return 0
    if not -count <= index < count:
        raise DataError(f"{volume.name}: slice {index} asked for; there are 0 to {count - 1} ({plane})")
    return index % count


def display_range(volume: Volume) -> tuple[float, float]:
    """The values that `read_image` shows as black and white, one pair for all slices of the volume."""
    voxels = volume.voxels
    if voxels.dtype == np.uint8:
        return 0.0, 255.0
    if voxels.dtype.kind == "b" or (voxels.dtype.kind == "f" and voxels.min() >= 0 and voxels.max() <= 1):
        return 0.0, 1.0
    from .grey import grey_range

    return grey_range(volume)


@contextmanager
def _named(ref: VolumeRef) -> Iterator[None]:
    """Errors that speak of the volume instead of its path, which is nobody else's business once it is in a store."""
    try:
        yield
    except DataError as error:
        if ref.source == "file":
            raise
        message = str(error)
        for number, path in enumerate(ref.paths, 1):
            which = f"{ref.name}: file {number} of {len(ref.paths)}" if len(ref.paths) > 1 else ref.name
            message = message.replace(path, which)
        raise DataError(message) from None


def _open_any(path: Path, voi: bool) -> Volume:
    """The volume in a file of any known format, or in a folder with one DICOM series."""
    ref = VolumeRef(source="file", subject="", name=str(path), paths=(str(path),))
    lower = path.name.lower()
    if path.is_dir():
        refs, skipped = scan_dicom(walk(path), path, "file")
        if len(refs) != 1:
            why = f" (the first of {len(skipped)} skipped: {skipped[0].path}: {skipped[0].reason})" if skipped else ""
            raise DataError(f"{path}: expected a folder with one DICOM series, got {len(refs)}{why}")
        return load_dicom(replace(refs[0], name=str(path)), voi)
    if lower.endswith(VOLUME_SUFFIXES):
        return load_nifti(replace(ref, paths=tuple(str(file) for file in files_of(path))))
    if lower.endswith(".npy"):
        return load_npy(ref)
    if lower.endswith(PICTURE_SUFFIXES):
        return load_pictures(ref)
    with open(path, "rb") as file:
        start = file.read(132)
    if lower.endswith((".dcm", ".dicom", ".ima", ".dcm.gz", ".dicom.gz")) or start[128:] == b"DICM":
        return load_dicom(ref, voi)
    raise DataError(
        f"{path}: expected .npy, .png, .jpg, .nii, .hdr, .mgz, .nrrd, .mha, a DICOM file, or a folder with one DICOM series"
    )


def _across(volume: Volume, plane: str) -> tuple[float, int]:
    """How likely a plane is the one acquired: the distance between its slices, then the pixels in each."""
    if volume.orientation != CANONICAL:
        return (0.0, 0)
    axis = {"sagittal": 0, "coronal": 1, "axial": 2}[plane]
    return (round(volume.spacing[axis] or 0.0, 2), -volume.voxels.shape[axis])


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
