"""Echogenicity maps p (nz, nx): the two test layouts of the DRUSvar paper, and random maps to train a prior on.

Training maps never show a test layout: they hold a few shapes of random position, size, aspect and level, none in rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from ussim.errors import DataError
from ussim.types import ImageGrid

FLOOR_DB = -60.0  # dynamic range of the training maps
PAPER_EXTENT = 36e-3  # m: the layouts are those of a 36 x 36 mm field, scaled to the grid's


@dataclass(frozen=True, eq=False)
class Layout:
    """Equal discs on a regular lattice, in a field. Positions in m."""

    name: str  # "occlusion" (echo-free discs in speckle) or "scatterers" (echoing discs in nothing)
    centers: np.ndarray  # (n, 2) x, z
    radius: float  # m
    rois: np.ndarray  # (m, 2) x, z of the centers of speckle regions; (0, 2) without speckle
    roi_half_size: float  # m

    def map(self, grid: ImageGrid) -> np.ndarray:
        """P (nz, nx) in {0, 1}: a pixel is in a disc if its center is less than a radius away."""
        x, z = grid.mesh()
        inside = np.zeros(grid.shape, dtype=bool)
        for cx, cz in self.centers:
            inside |= np.hypot(x - cx, z - cz) < self.radius
        return (inside if self.name == "scatterers" else ~inside).astype(np.float64)


def occlusion(grid: ImageGrid) -> Layout:
    """Nine echo-free discs (radius 3.5 mm, 11 mm apart on the paper's field) in uniform speckle."""
    return _layout("occlusion", grid, np.array([-11.0, 0.0, 11.0]), 3.5, np.array([-5.5, 5.5]))


def scatterers(grid: ImageGrid) -> Layout:
    """25 small echoing discs (radius 0.5 mm, 7 mm apart on the paper's field) in nothing."""
    return _layout("scatterers", grid, np.array([-14.0, -7.0, 0.0, 7.0, 14.0]), 0.5, np.zeros(0))


LAYOUTS = {"occlusion": occlusion, "scatterers": scatterers}


def paper_grid(n: int = 256) -> ImageGrid:
    """N x n pixels over the field of the numerical study: x ±18 mm, z 10 to 46 mm."""
    return ImageGrid(x=np.linspace(-18e-3, 18e-3, n), z=np.linspace(10e-3, 46e-3, n))


def training_map(shape: tuple[int, int], rng: np.random.Generator, slices: Sequence[np.ndarray] = ()) -> np.ndarray:
    """Return a random echogenicity map (nz, nx) in [0, 1].

    Shapes on a layered or plain background, a quarter of them MRI slices where there are any, one in eight a field of
    separate small targets. Levels are uniform in dB over 60 dB.
    """
    kind = rng.random()
    if kind < 0.25 and slices:
        decibels = _slice_map(shape, rng, slices)
    elif kind < 0.375:
        decibels = _targets(shape, rng)
    else:
        decibels = _shapes(shape, rng)
    if rng.random() < 0.5:  # a smooth gain over the field
        drift = ndimage.zoom(
            rng.standard_normal((3, 3)), [n / 3 for n in shape], order=3, grid_mode=True, mode="nearest"
        )
        decibels = decibels + 3.0 * drift
    decibels = decibels - decibels.max()
    return np.where(decibels < FLOOR_DB, 0.0, 10 ** (decibels / 20))


def load_slices(paths: Sequence[str | Path] = ()) -> list[np.ndarray]:
    """2-D slices in [0, 1] of MRI files (.npy slice or stack, .dcm, .nii, .nii.gz); without any, those that pydicom ships.

    Raises
    ------
    DataError
        A file is missing or of no kind that is read here.
    """
    if not paths:
        from pydicom.data import get_testdata_file

        names = ("examples_overlay.dcm", "MR_small.dcm")
        paths = [str(found) for name in names if (found := get_testdata_file(name, download=False))]
    slices = []
    for path in map(Path, paths):
        volume = _read_volume(path)
        for plane in volume.reshape(-1, *volume.shape[-2:]):
            low, high = np.percentile(plane, [1, 99.5])
            if high > low and min(plane.shape) >= 32:
                slices.append(np.clip((plane - low) / (high - low), 0, 1).astype(np.float32))
    return slices


def _read_volume(path: Path) -> np.ndarray:
    """(slices, rows, columns) or (rows, columns)."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    name = path.name.lower()
    if name.endswith(".npy"):
        try:
            volume = np.load(path, allow_pickle=False)
        except (ValueError, EOFError):
            raise DataError(f"{path}: not an .npy file of numbers (np.save writes one)") from None
    elif name.endswith((".nii", ".nii.gz")):
        import nibabel

        volume = np.moveaxis(np.asarray(nibabel.load(path).dataobj), 2, 0)  # type: ignore[attr-defined]
        volume = volume if volume.ndim == 3 else np.moveaxis(volume, -1, 0).reshape(-1, *volume.shape[1:3])
    elif name.endswith(".dcm"):
        import pydicom

        volume = pydicom.dcmread(path).pixel_array
    else:
        raise DataError(f"{path}: expected .npy, .dcm, .nii or .nii.gz")
    if volume.ndim not in (2, 3):
        raise DataError(f"{path}: expected a slice or a stack of slices, got shape {volume.shape}")
    return volume.astype(np.float64)


def _layout(name: str, grid: ImageGrid, lattice: np.ndarray, radius: float, roi_lattice: np.ndarray) -> Layout:
    """Return the paper's lattices (mm about the field's center), scaled to the grid's extent along each axis."""
    center = (grid.x[0] + grid.x[-1]) / 2, (grid.z[0] + grid.z[-1]) / 2
    scale = (grid.x[-1] - grid.x[0]) / PAPER_EXTENT, (grid.z[-1] - grid.z[0]) / PAPER_EXTENT

    def points(steps: np.ndarray) -> np.ndarray:
        x, z = np.meshgrid(center[0] + 1e-3 * scale[0] * steps, center[1] + 1e-3 * scale[1] * steps)
        return np.stack([x.ravel(), z.ravel()], axis=-1)

    return Layout(name, points(lattice), 1e-3 * radius * min(scale), points(roi_lattice), 2e-3 * min(scale))


def _shapes(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """dB: a background of one to four tilted layers and up to seven ellipses, some with soft edges."""
    z, x = np.mgrid[: shape[0], : shape[1]]
    decibels = np.full(shape, rng.uniform(-20, 0))
    for _ in range(rng.integers(0, 4)):
        tilt, depth = rng.uniform(-0.5, 0.5), rng.uniform(0, shape[0])
        bend = (
            rng.uniform(0, 0.1) * shape[0] * np.sin(2 * np.pi * (x / shape[1] * rng.uniform(0.3, 1.5) + rng.random()))
        )
        decibels[z > depth + tilt * (x - shape[1] / 2) + bend] = rng.uniform(-30, 0)
    for _ in range(rng.integers(0, 8)):
        size = np.exp(rng.uniform(np.log(0.04), np.log(0.4))) * min(shape)
        aspect, angle = np.exp(rng.uniform(-0.7, 0.7)), rng.uniform(0, np.pi)
        dz, dx = z - rng.uniform(0, shape[0]), x - rng.uniform(0, shape[1])
        along, across = dx * np.cos(angle) + dz * np.sin(angle), dz * np.cos(angle) - dx * np.sin(angle)
        inside = np.hypot(along / aspect, across * aspect) < size
        decibels[inside] = rng.uniform(-30, 0) if rng.random() < 0.5 else rng.uniform(-70, -20)
    if rng.random() < 0.3:
        decibels = ndimage.gaussian_filter(decibels, rng.uniform(0.5, 2.5))
    return decibels


def _targets(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """dB: a few small bright discs at random places on a dark ground."""
    z, x = np.mgrid[: shape[0], : shape[1]]
    decibels = np.full(shape, rng.uniform(-80, -30))
    for _ in range(rng.integers(1, 2 + shape[0] * shape[1] // 300)):
        radius = rng.uniform(0.5, 4.0)
        inside = np.hypot(z - rng.uniform(0, shape[0]), x - rng.uniform(0, shape[1])) < radius
        decibels[inside] = rng.uniform(-10, 0)
    return decibels


def _slice_map(shape: tuple[int, int], rng: np.random.Generator, slices: Sequence[np.ndarray]) -> np.ndarray:
    """dB: a random crop of a random slice, grey levels spread over 20 to 60 dB."""
    image = slices[int(rng.integers(len(slices)))]
    if rng.random() < 0.5:
        image = image.T
    size = int(rng.uniform(0.3, 1.0) * min(image.shape))
    z, x = (rng.integers(0, n - size + 1) for n in image.shape)
    crop = ndimage.gaussian_filter(image[z : z + size, x : x + size], 0.5)
    resized = ndimage.zoom(crop, [n / size for n in shape], order=1, grid_mode=True, mode="nearest")
    return rng.uniform(20, 60) * (resized[: shape[0], : shape[1]] - 1)
