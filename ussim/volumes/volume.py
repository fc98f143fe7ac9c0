"""The values that pass from files to slices: a reference to a volume on disk, and the volume itself.

A `VolumeRef` is small and picklable (no voxels), so it can be sent to a worker; a `Volume` holds the voxels and
knows how to cut itself along the anatomical planes. Nothing here knows a file format.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import overload

import numpy as np

from ..errors import DataError

PLANES = ("axial", "coronal", "sagittal")  # standard anatomical planes
ACQUIRED = "acquired"  # the plane of a stack whose orientation is not known
CANONICAL = "RAS"  # voxel axes run to the patient's Right, Anterior, Superior

# The voxel axis that a plane's index runs along, in a canonical volume.
_NORMAL_AXIS = {"sagittal": 0, "coronal": 1, "axial": 2}


@dataclass(frozen=True)
class VolumeRef:
    """Reference to one volume: where it lies on disk, and who it is. Small, picklable, made without reading voxels."""

    source: str
    subject: str  # anonymous: collection ids as they are, identifiers from DICOM as salted hashes
    name: str  # unique in its source
    paths: tuple[str, ...]
    orientation: str = ""  # of a bare stack whose folder names its plane; "" = read it from the file
    part: int = 0  # which 4-D frame, or which group of frames of a multi-frame DICOM file
    notes: tuple[str, ...] = ()  # oddities seen on the way
    # How this volume was told from others of its series: attribute and value (("EchoTime", "20"),), () = it is alone.
    splits: tuple[tuple[str, str], ...] = ()
    max_memory: float | None = None  # bytes that reading it may take (`ussim.volumes.budget`)
    described: str = ""  # size, voxel size and name of the series, by the header; for whoever looks, recorded nowhere


def described(shape: Sequence[int], spacing: Sequence[float | None] = (), words: str = "") -> str:
    """Return the size of a volume in words: "64 x 64 x 12, 1.6 x 1.6 x 6 mm, AX T1"."""
    size = " x ".join(map(str, shape))
    known = [step for step in spacing if step is not None]
    steps = " x ".join(f"{step:.3g}" for step in known) + " mm" if known and len(known) == len(spacing) else ""
    return ", ".join(text for text in (size, steps, words.strip()) if text)


@dataclass(frozen=True)
class Skipped:
    """A file or folder that a source could not use, and why."""

    path: str
    reason: str
    kind: str = ""  # what such reasons are counted under, where each names a file of its own; "" = the reason

    @property
    def counted_as(self) -> str:
        """What it is counted under."""
        return self.kind or self.reason

    @property
    def shown(self) -> str:
        """The path, with the reason where the kind does not say it."""
        return f"{self.path}: {self.reason}" if self.kind else self.path


class Found(Sequence[VolumeRef]):
    """Findings of a source under a root: the volumes, in a fixed order, and what was left out with reasons."""

    def __init__(
        self,
        refs: Sequence[VolumeRef],
        skipped: Sequence[Skipped] = (),
        notes: Sequence[str] = (),
        subjects: Sequence[str] = (),
    ) -> None:
        self.refs = tuple(sorted(refs, key=lambda ref: (ref.subject, ref.name)))
        self.skipped = tuple(sorted(skipped, key=lambda item: (item.path, item.reason)))
        self.notes = tuple(notes)  # oddities of the collection as a whole
        self.subjects = tuple(subjects)  # how it was told whose each volume is, a line per rule
        names = [ref.name for ref in self.refs]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"two volumes are both called {twice!r}; rename one of the files")

    def __len__(self) -> int:
        return len(self.refs)

    @overload
    def __getitem__(self, index: int) -> VolumeRef: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[VolumeRef]: ...

    def __getitem__(self, index: int | slice) -> VolumeRef | Sequence[VolumeRef]:
        return self.refs[index]

    def __iter__(self) -> Iterator[VolumeRef]:
        return iter(self.refs)


@dataclass(frozen=True, eq=False)
class Volume:
    """One series of slices, or one canonical block of voxels.

    `orientation` is "RAS" (voxels[x, y, z], the axes run to Right, Anterior, Superior as nearly as the acquisition
    allows) or the plane of a bare stack (voxels[slice, row, column], each slice as it is to be displayed).

    Raises
    ------
    DataError
        Voxels are not three-dimensional, hold NaN or infinity, or a spacing is not positive.
    """

    source: str
    subject: str
    name: str
    voxels: np.ndarray  # 3-D, the file's own type where possible
    spacing: tuple[float | None, float | None, float | None]  # mm between voxels along each axis, None = not known
    orientation: str
    file_sha256: str  # of the file; of the sorted digests where there are several
    notes: tuple[str, ...] = ()
    # (4, 4), index along the axes of the file, before they were turned to RAS, to mm in RAS; None = bare stack
    file_affine: np.ndarray | None = None
    # The one plane of a canonical block whose slices are shifted against each other; "" = all planes are true.
    only_plane: str = ""
    # The values that the files say are to be shown as black and white: DICOM's VOI window, NIfTI's cal_min and cal_max.
    window: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        label = f"{self.source} {self.name}"
        if self.voxels.ndim != 3 or 0 in self.voxels.shape:
            raise DataError(f"{label}: expected voxels in three dimensions, got shape {self.voxels.shape}")
        if self.voxels.dtype.kind not in "buif":
            raise DataError(f"{label}: expected real numbers, got {self.voxels.dtype}")
        if self.voxels.dtype.kind == "f" and not np.isfinite(self.voxels).all():
            count = int(np.count_nonzero(~np.isfinite(self.voxels)))
            raise DataError(
                f"{label}: {count} of {self.voxels.size} values are NaN or infinite; repair or drop the file"
            )
        if any(step is not None and not (np.isfinite(step) and step > 0) for step in self.spacing):
            raise DataError(f"{label}: expected spacings above 0 mm, got {self.spacing}")
        if self.orientation not in (CANONICAL, ACQUIRED, *PLANES):
            raise DataError(f"{label}: unknown orientation {self.orientation!r}")

    def planes(self) -> tuple[str, ...]:
        """Return the planes this volume can be cut along: those in which an image has at least two rows and columns."""
        if self.orientation != CANONICAL:
            return (self.orientation,)
        return tuple(plane for plane in PLANES if min(self._across(plane)) > 1 and self.only_plane in ("", plane))

    def square_planes(self, max_anisotropy: float = 2.0) -> tuple[str, ...]:
        """Return the planes whose pixels are near enough to square to make an image: both sizes within `max_anisotropy`.

        A series of thick slices gives its acquired plane only; an isotropic block gives all three.
        """

        def near_square(plane: str) -> bool:
            row, column = self.pixel_size(plane)
            return row is None or column is None or max(row, column) <= max_anisotropy * min(row, column)

        return tuple(plane for plane in self.planes() if near_square(plane))

    def slice_shape(self, plane: str) -> tuple[int, int]:
        """Rows and columns of a slice as it is displayed."""
        first, second = self._across(plane)
        return (second, first) if self._canonical(plane) else (first, second)

    def n_slices(self, plane: str) -> int:
        """Return how many slices the plane has."""
        count: int = self.voxels.shape[self.normal_axis(plane)]
        return count

    def normal_axis(self, plane: str) -> int:
        """Return the axis of `voxels` that a plane's index runs along."""
        return _NORMAL_AXIS[plane] if self._canonical(plane) else 0

    def pixel_size(self, plane: str) -> tuple[float | None, float | None]:
        """Size of a pixel (row step, column step) in mm in this plane; None where the file does not say."""
        return (
            {
                "axial": (self.spacing[1], self.spacing[0]),
                "coronal": (self.spacing[2], self.spacing[0]),
                "sagittal": (self.spacing[2], self.spacing[1]),
            }[plane]
            if self._canonical(plane)
            else (self.spacing[1], self.spacing[2])
        )

    def slice(self, plane: str, index: int) -> tuple[np.ndarray, tuple[float | None, float | None]]:
        """One slice as it is displayed, and its pixel size.

        Radiological convention: axial and coronal show the patient's right on the left, sagittal shows anterior on the
        left; superior (anterior in axial) is up. Indices run to Right, Anterior, Superior, or along a bare stack.

        Returns
        -------
        image : (n_rows, n_columns) float32
        pixel_size : (row, column) in mm, None where not known
        """
        count = self.n_slices(plane)
        if not 0 <= index < count:
            raise DataError(f"{self.source} {self.name}: {plane} slice {index} asked for; there are 0 to {count - 1}")
        if not self._canonical(plane):
            image = self.voxels[index]
        elif plane == "axial":
            image = self.voxels[::-1, ::-1, index].T
        elif plane == "coronal":
            image = self.voxels[::-1, index, ::-1].T
        else:
            image = self.voxels[index, ::-1, ::-1].T
        return np.ascontiguousarray(image, dtype=np.float32), self.pixel_size(plane)

    def assemble(self, plane: str, images: np.ndarray) -> np.ndarray:
        """Return the inverse of `slice`: consecutive images (n, n_rows, n_columns) along the axes of `voxels`, as a view."""
        if not self._canonical(plane):
            return images
        return np.moveaxis(images[:, ::-1, ::-1].transpose(0, 2, 1), 0, self.normal_axis(plane))

    def _canonical(self, plane: str) -> bool:
        """Return True where `plane` is cut from a canonical block, False where it is the plane of the stack itself."""
        if plane not in self.planes():
            raise DataError(f"{self.source} {self.name}: no {plane!r} plane here; there is {', '.join(self.planes())}")
        return self.orientation == CANONICAL

    def _across(self, plane: str) -> tuple[int, ...]:
        """Voxels along the two axes of a slice."""
        axis = _NORMAL_AXIS[plane] if self.orientation == CANONICAL else 0
        return self.voxels.shape[:axis] + self.voxels.shape[axis + 1 :]


@contextmanager
def named(ref: VolumeRef) -> Iterator[None]:
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
