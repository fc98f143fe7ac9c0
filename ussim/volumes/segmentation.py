"""Label volumes: what lies where, as whole numbers on a grid of their own, and that grid brought to an image's.

NIfTI and what is read as NIfTI is, NumPy arrays, and DICOM segmentations (SEG), whose segments bring their names.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .budget import RUN_LENGTH, check_there, check_values
from .damage import told
from .files import sha256_of
from .nifti import VOLUME_SUFFIXES, load_nifti
from .nrrd import files_of
from .pictures import load_npy
from .volume import CANONICAL, Volume, VolumeRef

LARGEST = 65535  # labels are kept as uint16
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
SAME_PLACE = 0.05  # voxels: grids whose corners lie closer are one grid, written with other digits
HALF = 0.5  # of a fractional segmentation: from here on a voxel is of the segment


@dataclass(frozen=True, eq=False)
class LabelVolume:
    """Labels on the grid of their file, and what their numbers are called where the file says it."""

    volume: Volume  # voxels uint16
    names: dict[int, str] = field(default_factory=dict)


def load_labels(path: str | os.PathLike[str]) -> LabelVolume:
    """Read a label volume.

    Parameters
    ----------
    path : of a NIfTI, MGH, NRRD, MetaImage, NPY or DICOM SEG file.

    Raises
    ------
    DataError
        The file is missing or damaged, of another format, or holds values that are no whole numbers of 0 to 65535.
    """
    path = Path(path)
    lower = path.name.lower()
    with told(str(path)):
        if lower.endswith(VOLUME_SUFFIXES):
            files = tuple(str(file) for file in files_of(path))
            found = LabelVolume(load_nifti(VolumeRef("file", "", str(path), files)))
        elif lower.endswith(".npy"):
            found = LabelVolume(load_npy(VolumeRef("file", "", str(path), (str(path),))))
        elif lower.endswith(DICOM_SUFFIXES) or _is_dicom(path):
            found = _load_seg(path)
        else:
            raise DataError(f"{path}: expected labels as .nii, .nrrd, .mha, .mgz, .npy or a DICOM segmentation")
        return replace(found, volume=replace(found.volume, voxels=whole_numbers(str(path), found.volume.voxels)))


def whole_numbers(where: str, voxels: np.ndarray) -> np.ndarray:
    """Return labels as uint16; raises DataError where they are no whole numbers of 0 to 65535."""
    low, high = voxels.min(), voxels.max()
    if low < 0 or high > LARGEST or (voxels.dtype.kind == "f" and (voxels != np.rint(voxels)).any()):
        raise DataError(f"{where}: expected labels, whole numbers of 0 to {LARGEST}, got values of {low:g} to {high:g}")
    return voxels.astype(np.uint16)


def on_grid(labels: Volume, image: Volume) -> np.ndarray:
    """Return labels on the voxels of an image, uint16: as they are where the grids are one, else of the nearest voxel.

    Beyond the labels' own grid there is 0.

    Raises
    ------
    DataError
        A file without a place in the patient has another shape than its image, or the two have no voxel in common.
    """
    if labels.file_affine is None or image.file_affine is None:
        if labels.voxels.shape != image.voxels.shape:
            lacks = "labels" if labels.file_affine is None else "image"
            raise DataError(
                f"{labels.name}: expected labels of shape {image.voxels.shape}, as their image, got {labels.voxels.shape} "
                f"(the {lacks} have no place in the patient by which to resample)"
            )
        if labels.orientation != image.orientation and CANONICAL in (labels.orientation, image.orientation):
            raise DataError(
                f"{labels.name}: expected labels and image both with a place in the patient, or both without one"
            )
        return labels.voxels
    to_labels = np.linalg.inv(_affine(labels)) @ _affine(image)
    ends = [(0, size - 1) for size in image.voxels.shape]
    corners = np.array([[x, y, z, 1] for x in ends[0] for y in ends[1] for z in ends[2]], dtype=float)
    if labels.voxels.shape == image.voxels.shape and np.abs(corners @ (to_labels.T - np.eye(4))).max() < SAME_PLACE:
        return labels.voxels
    return _resampled(labels, to_labels, image.voxels.shape)


def _resampled(labels: Volume, to_labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    check_values(labels.name, shape, 2)
    found = np.zeros(shape, np.uint16)
    met = False
    rows, columns = np.indices(shape[1:])
    for slab in range(shape[0]):
        places = [
            np.floor(axis[0] * slab + axis[1] * rows + axis[2] * columns + axis[3] + 0.5).astype(np.int64)
            for axis in to_labels[:3]
        ]
        inside = np.ones(shape[1:], dtype=bool)
        for place, size in zip(places, labels.voxels.shape, strict=True):
            inside &= (place >= 0) & (place < size)
        met = met or bool(inside.any())
        found[slab][inside] = labels.voxels[tuple(place[inside] for place in places)]
    if not met:
        raise DataError(f"{labels.name}: lies elsewhere in the patient: it has no voxel in common with its image")
    return found


def _affine(volume: Volume) -> np.ndarray:
    """Return index along the axes of `voxels` to mm in RAS."""
    from nibabel.orientations import inv_ornt_aff, io_orientation

    file_affine = volume.file_affine
    assert file_affine is not None
    own = io_orientation(file_affine)
    shape = tuple(volume.voxels.shape[int(axis)] for axis, _ in own)
    return np.asarray(file_affine @ inv_ornt_aff(own, shape))


# --- DICOM segmentations ---------------------------------------------------------------------------------------------


def _is_dicom(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _load_seg(path: Path) -> LabelVolume:
    """Read a DICOM segmentation: its frames put in their places, one number per segment; where two overlap, the higher."""
    import pydicom
    from nibabel.orientations import apply_orientation, io_orientation

    dataset = pydicom.dcmread(path)
    if dataset.get("Modality") != "SEG":
        raise DataError(f"{path}: expected a DICOM segmentation (Modality SEG), got {dataset.get('Modality')!r}")
    count, rows, columns = int(dataset.get("NumberOfFrames", 1)), int(dataset.Rows), int(dataset.Columns)
    if min(count, rows, columns) < 1:
        raise DataError(f"{path}: damaged: {count} frames of {rows} x {columns}")
    compressed = dataset.file_meta.TransferSyntaxUID.is_compressed
    claimed = count * rows * columns * int(dataset.BitsAllocated) // 8
    check_there(str(path), claimed, path.stat().st_size, RUN_LENGTH if compressed else 1)
    check_values(str(path), (count, rows, columns), max(1, int(dataset.BitsAllocated) // 8))
    pixels = np.asarray(dataset.pixel_array).reshape(count, rows, columns)
    frames = list(dataset.PerFrameFunctionalGroupsSequence)
    if len(frames) != count:
        raise DataError(f"{path}: damaged: {count} frames, places of {len(frames)}")
    positions = np.array([_of(dataset, frame, "PlanePositionSequence").ImagePositionPatient for frame in frames], float)
    cosines = np.array(_of(dataset, frames[0], "PlaneOrientationSequence").ImageOrientationPatient, float)
    measures = _of(dataset, frames[0], "PixelMeasuresSequence")
    affine, slices = _stacked(positions, cosines, [float(size) for size in measures.PixelSpacing], measures)
    shape = (columns, rows, int(slices.max()) + 1)
    check_values(str(path), shape, 2)
    voxels = np.zeros(shape, np.uint16)
    fractional = str(dataset.get("SegmentationType", "BINARY")) == "FRACTIONAL"
    least = HALF * float(dataset.get("MaximumFractionalValue", 1)) if fractional else 0.5
    for frame, image, place in zip(frames, pixels, slices, strict=True):
        into = voxels[:, :, place]
        if str(dataset.get("SegmentationType", "BINARY")) == "LABELMAP":
            np.maximum(into, whole_numbers(str(path), image.T), out=into)
            continue
        number = int(_of(dataset, frame, "SegmentIdentificationSequence").ReferencedSegmentNumber)
        member = image.T
        inside = member >= least
        into[inside] = np.maximum(into[inside], number)
    names = {int(segment.SegmentNumber): str(segment.SegmentLabel) for segment in dataset.SegmentSequence}
    volume = Volume(
        source="file",
        subject="",
        name=str(path),
        voxels=apply_orientation(voxels, io_orientation(affine)),
        spacing=(None, None, None),
        orientation=CANONICAL,
        file_sha256=sha256_of((str(path),)),
        file_affine=affine,
    )
    return LabelVolume(volume, {number: name for number, name in names.items() if number})


def _of(dataset: Any, frame: Any, sequence: str) -> Any:
    """Return the first item of a sequence that holds for a frame: its own, else that of all."""
    own = frame.get(sequence) or dataset.SharedFunctionalGroupsSequence[0].get(sequence)
    if not own:
        raise DataError(f"frames without a {sequence}")
    return own[0]


def _stacked(
    positions: np.ndarray, cosines: np.ndarray, pixel: list[float], measures: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return the affine (column, row, slice) to mm in RAS of frames, and the slice that each of them is."""
    normal = np.cross(cosines[:3], cosines[3:])
    depth = positions @ normal
    places = np.unique(np.round(depth, 3))
    said = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness")
    step = float(np.diff(places).min()) if len(places) > 1 else float(said or 1.0)
    slices = np.rint((depth - depth.min()) / step).astype(int)
    if np.abs((depth - depth.min()) / step - slices).max() > 0.1 or slices.max() > 10_000:
        raise DataError("frames that are not evenly spaced: no grid to put them on")
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = cosines[:3] * pixel[1], cosines[3:] * pixel[0], normal * step
    affine[:3, 3] = positions[int(np.argmin(depth))]
    affine[:2] *= -1  # DICOM's axes run to Left and Posterior
    return affine, slices
