"""NIfTI files of the images in mm, for viewers of volumes: one voxel thick, x lateral, y elevation, z depth.

LQ, masks and envelopes lie where the probe sees them; HQ and labels are in the mm of the MRI, its middle at x = 0 and its
upper edge at z = 0. Pixel (i, k) of one is pixel (i, k) of the other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...store import layout
from .card import Page
from .items import Item, Shown
from .png import METADATA, places

SUFFIX = ".nii.gz"
THICKNESS = 1.0  # mm across the image plane, which has none


def write(shown: Shown, out: Path, on_pair: Callable[[int, int], None]) -> Page:
    """Write the files, and a table that names those of each pair."""
    rows = []
    for done, item in enumerate(shown.items(), start=1):
        item = _without_polar(item)
        names = {
            kind: name.removesuffix(".npy").removesuffix(SUFFIX) + SUFFIX
            for kind, name in places(item, shown.pairs.has_own_masks, SUFFIX).items()
        }
        grid = shown.pairs.grid(item.index)
        for kind, name in names.items():
            path = out / name
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                affine = _of_mri(item) if kind in ("hq", "labels") else _of_grid(grid)
                _save(path, item.images[kind], affine)
        rows.append({f"{kind}_file_name": name for kind, name in names.items()} | item.facts)
        on_pair(done, len(shown))
    (out / METADATA).write_text(layout.format_table(rows), encoding="utf-8")
    more = {"labels": ", `labels/<key>.nii.gz`", "envelope": ", `envelope/<PROBE>/<key>.nii.gz` (dB)"}
    said = "".join(text for kind, text in more.items() if kind in shown.kinds)
    return Page(
        files=f"`hq/<key>.nii.gz`, `lq/<PROBE>/<key>.nii.gz`, `mask/<PROBE>...nii.gz`{said}; `metadata.csv` has a row for "
        "each pair. Voxels (x, 1, z); world axes x lateral, y elevation, z depth, mm: of LQ from the probe's face, of HQ "
        "as in the MRI. Pixel for pixel the two are one image, whatever their mm.",
        example=(
            "import csv, nibabel",
            f'row = next(csv.DictReader(open("{shown.name}/metadata.csv")))',
            f'lq = nibabel.load("{shown.name}/" + row["lq_file_name"])',
            "image, affine = lq.get_fdata()[:, 0].T, lq.affine  # (z, x); mm",
        ),
    )


def _without_polar(item: Item) -> Item:
    for kind in ("hq_polar", "lq_polar"):  # in radians: no affine places them
        item.images.pop(kind, None)
    return item


def _of_grid(grid: Any) -> np.ndarray:
    """Return the affine of images on a grid, voxel (i, j, k) to mm (x, y, z)."""
    affine = np.diag([1e3 * _step(grid.x), THICKNESS, 1e3 * _step(grid.z), 1.0])
    affine[:3, 3] = 1e3 * grid.x[0], 0.0, 1e3 * grid.z[0]
    return affine


def _of_mri(item: Item) -> np.ndarray | None:
    """Return the affine of an image in the MRI's mm; None where its pixels' size is not known."""
    steps = item.facts["hq_pixel_column_mm"], item.facts["hq_pixel_row_mm"]
    if None in steps:
        return None
    width, height = map(float, steps)
    n = item.images["hq"].shape[1]
    affine = np.diag([width, THICKNESS, height, 1.0])
    affine[:3, 3] = -width * (n - 1) / 2, 0.0, height / 2
    return affine


def _save(path: Path, image: np.ndarray, affine: np.ndarray | None) -> None:
    import nibabel

    kind = {"b": np.uint8, "f": np.float32}.get(image.dtype.kind, image.dtype)
    file = nibabel.Nifti1Image(image.T[:, None, :].astype(kind), np.eye(4) if affine is None else affine)
    file.header.set_xyzt_units("unknown" if affine is None else "mm")
    nibabel.save(file, path)


def _step(axis: np.ndarray) -> float:
    return float(axis[-1] - axis[0]) / (len(axis) - 1)
