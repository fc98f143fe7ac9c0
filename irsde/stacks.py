"""Files that are restored: one image, or the slices of a volume along one plane; written as PNG, NPY or NIfTI.

    open_stack(path) ─► Stack ─► sample.restore_stack(models, stack) ─► mean, variance ─► write_stack(path, stack, ...)

All slices of a volume share one grey window, the one that `read_image` shows a single slice with.
A file appears under its name when it is whole.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.plan.slices import to_uint8
from ussim.io.atomic import replacing
from ussim.volumes.files import stem
from ussim.volumes.grey import grey_range, to_unit
from ussim.volumes.nifti import NIFTI_SUFFIXES
from ussim.volumes.reading import choose_plane, choose_slice, display_range, open_volume
from ussim.volumes.volume import Volume

Image = NDArray[np.float32]
DICOM_SUFFIXES = (".dcm", ".dicom")  # of clinical files alone
SUFFIXES = (".png", ".npy", *NIFTI_SUFFIXES)
Window = str | tuple[float, float]  # "auto", "voi", "percentile", or the values that are black and white


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices `indices` of a volume along `plane` as grey levels in [0, 1]."""

    volume: Volume
    plane: str
    indices: range
    grey: tuple[float, float]  # the file's values that are 0 and 1, for every slice

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns, as displayed."""
        return (len(self.indices), *self.volume.slice_shape(self.plane))

    def images(self, part: slice) -> Image:
        """Return some of the slices, (n, n_rows, n_columns)."""
        return np.stack([to_unit(self.volume.slice(self.plane, i)[0], self.grey) for i in self.indices[part]])

    def seeds(self, seed: int, part: slice) -> list[int]:
        """Seeds of the slices' noise: of a lone image `seed` itself, of a slice what `seed` and its index give."""
        if self.volume.n_slices(self.plane) == 1:
            return [seed]
        return [image_seed(seed, i) for i in self.indices[part]]


def image_seed(seed: int, index: int, *part: int) -> int:
    """Seed of the noise of one slice or image among several, or of one part of it.

    They differ in it: noise that repeats from slice to slice would look like structure, and a mean over images would hold
    one draw of it.
    """
    return int(np.random.SeedSequence([seed, index, *part]).generate_state(1, np.uint64)[0])


def open_stack(
    path: Path,
    slice_index: int | None = None,
    plane: str | None = None,
    only_one: bool = False,
    otherwise: str = "",
    window: Window = "auto",
) -> Stack:
    """Return the slices of a file, or of a folder with one DICOM series; with `slice_index` that one alone.

    `plane` defaults to the acquired one. The grey values that `window` names become 0 and 1: two numbers, "voi" (the file's
    window), "percentile" (of the foreground), or "auto", as a single slice is shown.

    Raises DataError where the file cannot be read or has no such slice or plane, or if `only_one` image is wanted and there
    are several (`otherwise` then says what else to do).
    """
    volume = open_volume(path, voi=window == "voi")
    plane = choose_plane(volume, plane)
    indices = range(volume.n_slices(plane))
    if only_one or slice_index is not None:
        chosen = choose_slice(volume, plane, slice_index, otherwise)
        indices = indices[chosen : chosen + 1]
    if not isinstance(window, str):
        return Stack(volume, plane, indices, window)
    return Stack(volume, plane, indices, grey_range(volume) if window == "percentile" else display_range(volume))


# --- writing ---------------------------------------------------------------------------------------------------------


def beside(path: Path, what: str, suffix: str) -> Path:
    """Return the name of a file that goes with `path`: clean.nii.gz -> clean-variance.nii.gz."""
    return path.with_name(f"{stem(path)}-{what}{suffix}")


def companions(path: Path) -> list[Path]:
    """Return what `write_image` and `write_stack` write besides `path` where there is a variance."""
    if is_nifti(path):
        return [beside(path, "variance", path.name[len(stem(path)) :])]
    return [beside(path, "variance", ".npy"), beside(path, "uncertainty", ".png")]


def bounds_of(path: Path) -> tuple[Path, Path]:
    """Return where the lower and the upper bound of the pixels in `path` are written: NIfTI, or NPY."""
    suffix = path.name[len(stem(path)) :] if is_nifti(path) else ".npy"
    return beside(path, "lower", suffix), beside(path, "upper", suffix)


def is_dicom(path: Path) -> bool:
    """Tell a DICOM file by its name."""
    return path.name.lower().endswith(DICOM_SUFFIXES)


def is_nifti(path: Path) -> bool:
    """Tell a NIfTI file by its name."""
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def write_stack(path: Path, stack: Stack, mean: Image, variance: Image | None) -> None:
    """Write the restored slices by the suffix of `path`.

    The variance, where there is one, in a second file of the same kind.

    NIfTI keeps the axes and the affine of the file that was read. NPY holds a lone image as (row, column), several as
    (slice, row, column). For a lone image the standard deviation is also drawn, as in `write_image`.
    """
    if is_nifti(path):
        low, high = stack.grey
        write_nifti(path, to_nifti(stack, mean, f"restored; 0 to 1 was {low:.6g} to {high:.6g}", 1.0))
        if variance is not None:
            write_nifti(companions(path)[0], to_nifti(stack, variance, "variance over restorations (n - 1)"))
    elif len(mean) == 1:
        write_image(path, mean[0], None if variance is None else variance[0])
    else:
        write_npy(path, mean)
        if variance is not None:
            write_npy(companions(path)[0], variance)


def write_image(path: Path, mean: Image, variance: Image | None) -> None:
    """Write an image as PNG or NPY.

    Beside it the variance as NPY and the standard deviation, white at its largest, as PNG.
    """
    if path.suffix.lower() == ".npy":
        write_npy(path, mean)
    else:
        write_png(path, mean)
    if variance is not None:
        deviation = np.sqrt(variance)
        numbers, picture = companions(path)
        write_npy(numbers, variance)
        write_png(picture, deviation / max(float(deviation.max()), 1e-12))


def write_npy(path: Path, array: NDArray) -> None:
    """Write an array, whole or not at all."""
    with replacing(path) as temporary:
        np.save(temporary, array)


def write_png(path: Path, image: NDArray, bits: int = 8) -> None:
    """Write an image in [0, 1] as grey of 8 or 16 bits, whole or not at all."""
    from PIL import Image as picture

    levels = (
        to_uint8(image) if bits == 8 else np.rint(np.clip(image, 0, 1).astype(np.float64) * 65535).astype(np.uint16)
    )
    with replacing(path) as temporary:
        picture.fromarray(levels).save(temporary)


def write_nifti(path: Path, image: Any) -> None:
    """Write a NIfTI image, compressed if the name says so; the same image gives the same bytes."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as stream:
                image.to_stream(stream)
        else:
            image.to_stream(file)


def to_nifti(stack: Stack, images: Image, description: str, white: float = 0.0) -> Any:
    """Slices (n, n_rows, n_columns) as a nibabel image along the axes of the file they were cut from, in its place.

    A bare stack gets the axes (column, row, slice), and an affine under which viewers show each slice upright as an axial
    one. `white` is where a viewer's grey window ends; 0 leaves that to the viewer.
    """
    import nibabel as nib
    from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

    volume, plane = stack.volume, stack.plane
    voxels, canonical = volume.assemble(plane, images), axcodes2ornt("RAS")
    if volume.file_affine is not None:
        own, normal = io_orientation(volume.file_affine), volume.normal_axis(plane)
        shape = tuple(volume.voxels.shape[int(axis)] for axis, _ in own)
        affine = volume.file_affine @ inv_ornt_aff(own, shape)
    else:
        own, normal = canonical, 2
        step, row, column = (size or 1.0 for size in volume.spacing)
        voxels, affine = voxels.transpose(2, 1, 0), np.diag([-column, -row, step, 1.0])
    affine[:3, 3] += affine[:3, normal] * stack.indices[0]
    kind = nib.Nifti1Image if max(voxels.shape) < 2**15 else nib.Nifti2Image
    image = kind(voxels, affine).as_reoriented(ornt_transform(canonical, own))
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode()
    image.header["cal_max"] = white
    return image
