"""Ultrasound images with lesion masks in files beside them, as public collections name those (BrEaST, BUSI)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from irsde.data import DataError
from ussim.volumes.files import walk
from ussim.volumes.pictures import PICTURE_SUFFIXES
from ussim.volumes.reading import read_image

# BrEaST: case001.png, case001_tumor.png, case001_other1.png; BUSI: "benign (1).png", "benign (1)_mask.png" and "_mask_1".
MASK_SUFFIXES = ("_tumor", "_other", "_mask")
Image = NDArray[np.float32]


def unmasked(folder: str | Path) -> list[Path]:
    """Return the pictures, arrays and DICOM files in the folder or below, where none can be the mask of another.

    A picture whose name begins with that of another one beside it can be its mask, by whatever name: nothing is returned
    then, for `read_breast` to say what it expects.
    """
    found = [path for path in walk(Path(folder)) if path.suffix.lower() in (*PICTURE_SUFFIXES, ".npy", ".dcm")]
    pictures = [path.with_suffix("") for path in found if path.suffix.lower() in PICTURE_SUFFIXES]
    stems = {(path.parent, path.name) for path in pictures}
    longer = any((p.parent, p.name[:n]) in stems for p in pictures for n in range(1, len(p.name)))
    return [] if longer else found


def _mask_name(mask_suffixes: Sequence[str]) -> re.Pattern[str]:
    return re.compile(rf"(.+?)(?:{'|'.join(re.escape(suffix) for suffix in mask_suffixes)})(?:_?\d+)?")


def read_breast(
    folder: str | Path, mask_suffixes: Sequence[str] = MASK_SUFFIXES
) -> Iterable[tuple[str, Image, NDArray[np.bool_]]]:
    """Read each image that has a mask beside it, in the folder or below, and the union of its masks.

    A mask has the image's name and one of `mask_suffixes`, which a number may follow, and is a picture of any format. Images
    without a mask, or with one that marks nothing (BUSI's normal cases), are passed over.

    Returns
    -------
    Name (with the sub-folder, if it lies in one), grey levels (nz, nx) in [0, 1], lesion mask (nz, nx) for each image.

    Raises
    ------
    DataError
        A picture cannot be read, a mask has another shape than its image, or there is no image with a mask.
    """
    folder = Path(folder)
    is_mask = _mask_name(mask_suffixes)
    images, masks = [], defaultdict(list)
    for path in walk(folder):  # in natural order
        if path.suffix.lower() in PICTURE_SUFFIXES:
            found = is_mask.fullmatch(path.stem)
            if found:
                masks[path.parent, found[1]].append(path)
            else:
                images.append(path)
    n_found = 0
    for path in images:
        if not masks[path.parent, path.stem]:
            continue  # a normal case
        image = read_image(path)
        lesion = np.zeros(image.shape, bool)
        for mask_path in masks[path.parent, path.stem]:
            mask = read_image(mask_path)
            if mask.shape != image.shape:
                raise DataError(f"{mask_path}: expected a mask of the image's shape {image.shape}, got {mask.shape}")
            lesion |= mask > mask.max() / 2  # marked by 1, 255, or in JPEG by what is near 255
        if lesion.any():
            n_found += 1
            yield path.relative_to(folder).with_suffix("").as_posix(), image, lesion
    if not n_found:
        names = ", ".join(f"NAME{suffix}.png" for suffix in mask_suffixes)
        raise DataError(
            f"{folder}: expected NAME.png with {names} beside it, here or in sub-folders, found no such pair (--mask-suffix)"
        )
