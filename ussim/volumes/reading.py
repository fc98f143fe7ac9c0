"""One file of any known format to a volume, and to one grey image: what `ussim render` opens its phantom with."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import DataError
from .dicom import load_dicom, scan_dicom
from .files import walk
from .grey import grey_range, to_unit
from .nifti import VOLUME_SUFFIXES, load_nifti
from .nrrd import files_of
from .own import refuse_drawing, refuse_echoes
from .pictures import PICTURE_SUFFIXES, load_bmode, load_npy, load_pictures
from .volume import CANONICAL, Volume, VolumeRef


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
    volume = open_volume(path, voi)
    plane = choose_plane(volume, plane)
    image, _ = volume.slice(plane, choose_slice(volume, plane, slice_index))
    return to_unit(image, display_range(volume))


def open_volume(path: str | os.PathLike[str], voi: bool = False) -> Volume:
    """Return the volume in a file of any known format (frame 0 of a 4-D one), or in a folder with one DICOM series.

    Its name is `path`, so that errors about it say where it lies. Raises DataError as `read_image` does.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    return _open_any(path, voi)


def choose_plane(volume: Volume, plane: str | None = None) -> str:
    """Return the plane asked for if the volume has it.

    Without one the acquired plane, which lies across the coarsest axis.
    """
    if plane is None:
        return max(volume.planes(), key=lambda name: _across(volume, name))
    if plane not in volume.planes():
        raise DataError(f"{volume.name}: no {plane!r} plane here; choose from {', '.join(volume.planes())}")
    return plane


def choose_slice(volume: Volume, plane: str, index: int | None = None, otherwise: str = "") -> int:
    """Return the slice asked for, counted from the end if negative, or the only one there is.

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
    """Return the values that `read_image` shows as black and white, one pair for all slices of the volume."""
    voxels = volume.voxels
    if voxels.dtype == np.uint8:
        return 0.0, 255.0
    if voxels.dtype.kind == "b" or (voxels.dtype.kind == "f" and voxels.min() >= 0 and voxels.max() <= 1):
        return 0.0, 1.0
    return grey_range(volume)


def _open_any(path: Path, voi: bool) -> Volume:
    """Return the volume in a file of any known format, or in a folder with one DICOM series."""
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
    if lower.endswith((".npz", ".mat")):
        return load_bmode(ref)
    refuse_drawing(path)
    refuse_echoes(path)
    if lower.endswith(PICTURE_SUFFIXES):
        return load_pictures(ref)
    with open(path, "rb") as file:
        start = file.read(132)
    if lower.endswith((".dcm", ".dicom", ".ima", ".dcm.gz", ".dicom.gz")) or start[128:] == b"DICM":
        return load_dicom(ref, voi)
    raise DataError(
        f"{path}: expected .npy, .npz, .mat, .png, .jpg, .nii, .hdr, .mgz, .nrrd, .mha, a DICOM file, or a folder with "
        "one DICOM series"
    )


def _across(volume: Volume, plane: str) -> tuple[float, int]:
    """Return how likely a plane is the one acquired: the distance between its slices, then the pixels in each."""
    if volume.orientation != CANONICAL:
        return (0.0, 0)
    axis = {"sagittal": 0, "coronal": 1, "axial": 2}[plane]
    return (round(volume.spacing[axis] or 0.0, 2), -volume.voxels.shape[axis])
