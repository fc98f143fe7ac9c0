"""Volume files of one header: NIfTI, and what is read as NIfTI is (Analyze, MGH, NRRD, MetaImage).

Voxels come in the file's own number type where they can, so that a large volume is never held in float64.
"""

from __future__ import annotations

import gzip
import logging
import math
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .budget import DEFLATE, check_there, check_values
from .damage import told, told_of_ref
from .dicom_geometry import obliquity_degrees
from .files import sha256_of
from .nrrd import META, NRRD, PAIRS, Block, files_of, open_block
from .values import absurd, filled_outside, narrowed
from .volume import CANONICAL, Volume, VolumeRef, named

_LARGEST = 100.0  # mm; a voxel of more is one whose unit is wrong
NIFTI_SUFFIXES = (".nii", ".nii.gz")
MGH_SUFFIXES = (".mgz", ".mgh", ".mgh.gz")
# Volumes of one file, or of a header and a file of voxels, that are read as NIfTI is.
VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *MGH_SUFFIXES, *PAIRS, *PAIRS.values(), *NRRD, *META)


@told_of_ref
def load_nifti(ref: VolumeRef) -> Volume:
    """Read a NIfTI volume in its closest canonical orientation; of a 4-D file, frame `ref.part`.

    The other formats of `VOLUME_SUFFIXES` (Analyze, MGH, NRRD, MetaImage) are read alike.
    Compression is told by the file's first bytes, not its name: uncompressed files called .nii.gz are common.

    Raises
    ------
    DataError
        The file is missing, damaged, in color or complex, or has no such frame.
    """
    from nibabel.orientations import apply_orientation, io_orientation

    path = ref.paths[0]
    with named(ref), open_nifti(path) as (image, oddities):
        voxels, spacing, affine, notes = _nifti_frame(path, image, ref.part)
        window = _window(image.header)
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
        window=window,
    )


def _window(header: Any) -> tuple[float, float] | None:
    """Return the values that a header says are to be shown as black and white; None where it says nothing."""
    try:
        low, high = float(header["cal_min"]), float(header["cal_max"])
    except (KeyError, TypeError, ValueError):
        return None
    return (low, high) if np.isfinite([low, high]).all() and low < high else None


@contextmanager
def open_nifti(path: str | os.PathLike[str]) -> Iterator[tuple[Any, list[str]]]:
    """Yield a nibabel image (header read, voxels not) for as long as the block lasts, and what is odd about the file."""
    from nibabel.fileholders import FileHolder
    from nibabel.imageglobals import logger

    logger.setLevel(logging.CRITICAL)  # what it says of odd headers `_geometry` says where it matters
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
        except Exception as error:  # NiBabel raises many kinds on damaged headers
            raise DataError(f"{path}: damaged {_format(path)} header: {' '.join(str(error).split())}") from None
        _check_size(path, files[-1], image)
        yield image, [*notes, *_geometry(image)[2]]


def _check_size(path: Path, data: Path, image: Any) -> None:
    """Raise DataError where a frame of the size in the header cannot be in the file, or is more than may be decoded."""
    with told(f"{path}: header"):
        shape, dtype = tuple(int(size) for size in image.header.get_data_shape()), image.header.get_data_dtype()
        offset = int(image.dataobj.offset)
    if min(shape, default=1) < 1 or offset < 0:
        raise DataError(f"{path}: damaged {_format(path)} header: size {shape}, voxels at byte {offset}")
    frame = shape[:3]
    packed = _first_bytes(data)[0]
    check_there(str(path), math.prod(frame) * dtype.itemsize + offset, data.stat().st_size, DEFLATE if packed else 1)
    check_values(str(path), frame, dtype.itemsize)


def _stream(path: Path) -> Any:
    return gzip.open(path) if _first_bytes(path)[0] else open(path, "rb")


def _first_bytes(path: Path) -> tuple[bool, bytes]:
    """Return whether a file is gzip, told by its first bytes, and how its content begins."""
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
    """Return the class of nibabel that reads a file that begins so; raises DataError where none does."""
    import nibabel as nib

    if path.name.lower().endswith(MGH_SUFFIXES):
        if start[:4] != b"\0\0\0\1":
            raise DataError(f"{path}: not an MGH file (expected version 1)")
        # Before NiBabel looks for what follows the voxels, through all that a compressed file unpacks to.
        if len(start) >= 16 and min(frame := struct.unpack(">3i", start[4:16])) > 0:
            check_values(str(path), frame, 1)
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
    """Return what is said of a file with several frames."""
    return f"4-D file of {n_frames} frames: frame {part} used"


def _nifti_frame(path: str, image: Any, part: int) -> tuple[np.ndarray, list[float | None], np.ndarray, list[str]]:
    """Voxels of one 3-D frame in their own type where possible, voxel size in mm, affine, and what is odd."""
    from nibabel.arrayproxy import ArrayProxy

    header, notes = image.header, []
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    if dtype.kind not in "buif":
        raise DataError(f"{path}: expected real grey values, got {dtype} (color or complex)")
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
    header, affine = image.header, image.affine
    notes: list[str] = []
    unit = _unit(header, notes)
    if unit != 1.0:
        affine = np.diag([unit, unit, unit, 1.0]) @ affine
    codes = [int(header[name]) if name in header else None for name in ("sform_code", "qform_code")]
    sform, qform = codes
    sizes = [float(zoom) * unit if np.isfinite(zoom) and zoom > 0 else None for zoom in header.get_zooms()]
    spacing = [*sizes, None, None, None][:3]
    if not _is_usable(affine) and qform and qform > 0 and _is_usable(header.get_qform()):
        notes.append("sform in the header is singular: qform used")
        affine = np.diag([unit, unit, unit, 1.0]) @ header.get_qform()
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
            other = unit * header.get_qform()[:3, :3]
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


def _unit(header: Any, notes: list[str]) -> float:
    """Return what the header's unit of length is in mm: xyzt_units says meters or micrometers where it is not mm."""
    try:
        named = header.get_xyzt_units()[0]
    except (AttributeError, KeyError):  # of formats without it, and of codes that mean nothing
        return 1.0
    unit = {"meter": 1000.0, "micron": 1e-3}.get(named, 1.0)
    largest = max((float(zoom) for zoom in header.get_zooms()[:3] if np.isfinite(zoom)), default=0.0)
    if unit * largest > _LARGEST:
        notes.append(f"voxels of {largest:g} m by the unit in the header: taken as mm")
        return 1.0
    return unit


def _is_usable(affine: np.ndarray) -> bool:
    return bool(np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-9)
