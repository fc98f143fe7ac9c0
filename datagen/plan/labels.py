"""Labels of volumes: which file has them, on the voxels of the image, cut as the image is.

Which file is told by a pattern, as seen from the folder of the image's first file:

    {name}_seg.nii.gz              beside scan.nii.gz: scan_seg.nii.gz
    ../labelsTr/{subject}.nii.gz   of nnU-Net, where {name} still has its channel (_0000)
    ../segmentations/*.dcm         the only one that fits
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ussim.errors import DataError
from ussim.volumes.files import natural, printable, stem
from ussim.volumes.segmentation import LARGEST, load_labels, on_grid
from ussim.volumes.volume import Volume, VolumeRef

from ..sources.scene import Label, color_of

PLACEHOLDERS = ("name", "subject", "volume")


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of a volume, on its voxels."""

    volume: Volume  # as the image's, with labels for voxels, uint16
    sha256: str  # of their file
    names: dict[int, str]  # by the file itself
    values: tuple[int, ...]  # that there are, without 0


def check_pattern(pattern: str) -> str:
    """Return a pattern that can be filled in; raises ValueError, in one line, where it cannot."""
    unknown = [word for word in re.findall(r"\{([^}]*)\}", pattern) if word not in PLACEHOLDERS]
    if not pattern or unknown or pattern.count("{") != pattern.count("}"):
        got = f"{{{unknown[0]}}}" if unknown else repr(pattern)
        raise ValueError(f"labels: expected a path with {{{'}, {'.join(PLACEHOLDERS)}}} or *, got {got}")
    return pattern


def label_file(ref: VolumeRef, pattern: str) -> Path:
    """Return the file with the labels of a volume.

    Raises
    ------
    DataError
        No file fits the pattern, or several do.
    """
    first = Path(ref.paths[0])
    words = {"name": stem(first), "subject": ref.subject, "volume": ref.name}
    filled = re.sub(r"\{(\w+)\}", lambda match: glob.escape(words[match[1]]), pattern)
    found = glob.glob(os.path.join(glob.escape(str(first.parent)), filled), recursive=True)
    own = {os.path.realpath(path) for path in ref.paths}
    files = sorted({path for path in found if os.path.isfile(path) and os.path.realpath(path) not in own}, key=natural)
    if len(files) != 1:
        shown = re.sub(r"\{(\w+)\}", lambda match: words[match[1]], pattern)
        others = f": {', '.join(printable(Path(path).name) for path in files[:3])}" if files else ""
        raise DataError(f"labels: expected one file that fits {printable(shown)}, got {len(files)}{others}")
    return Path(files[0])


def labels_of(ref: VolumeRef, volume: Volume, pattern: str) -> Labels:
    """Read the labels of a volume and bring them to its voxels; raises DataError as `load_labels` and `on_grid` do."""
    path = label_file(ref, pattern)
    try:
        found = load_labels(path)
        voxels = on_grid(found.volume, volume)
    except DataError as error:  # paths are nobody else's business once they are in a store
        raise DataError(f"labels: {str(error).replace(str(path), printable(path.name))}") from None
    return Labels(replace(volume, voxels=voxels), found.volume.file_sha256, found.names, values_of(voxels))


def values_of(labels: np.ndarray) -> tuple[int, ...]:
    """Return the numbers in some labels, without 0."""
    there = np.zeros(LARGEST + 1, bool)
    there[labels.ravel()] = True
    return tuple(int(value) for value in np.flatnonzero(there) if value)


def cut_labels(labels: Volume, plane: str, index: int, box: tuple[int, int, int, int], size: int | None) -> np.ndarray:
    """Return the labels of a square of a slice, uint16, 0 beyond the slice.

    Parameters
    ----------
    box : of the image: row0, column0, row1, column1.
    size : of a side in pixels, None for the pixels there are, the longer side both ways.
    """
    values = labels.slice(plane, index)[0].astype(np.uint16)
    row0, column0, row1, column1 = box
    side = size or max(row1 - row0, column1 - column0)
    places = []
    for first, last, n in ((row0, row1, values.shape[0]), (column0, column1, values.shape[1])):
        place = first + np.floor((np.arange(side) + 0.5) / side * (last - first) + 1e-9).astype(int)
        places.append((np.clip(place, 0, n - 1), (place >= 0) & (place < n)))
    (rows, row_inside), (columns, column_inside) = places
    return np.where(row_inside[:, None] & column_inside, values[np.ix_(rows, columns)], np.uint16(0))


def table_of(found: Iterable[tuple[str, Sequence[tuple[int, str]]]], named: Iterable[Label]) -> tuple[Label, ...]:
    """Return what every label is called: as the user says, else as the files say, else by its number.

    Parameters
    ----------
    found : volume, and the number and name ("" = none) of each of its labels.
    named : by the user.

    Raises
    ------
    DataError
        Two files call one number by different names.
    """
    known = {label.value: label for label in named}
    first: dict[int, tuple[str, str]] = {}
    for volume, labels in found:
        for value, name in labels:
            other, where = first.setdefault(value, (name, volume))
            if other != name and value not in known:
                raise DataError(
                    f"labels: {value} is {other!r} in {where} and {name!r} in {volume}: one name for it is expected; "
                    "say it with --tissues"
                )
    for value, (name, _) in first.items():
        known.setdefault(value, Label(value, name or f"label {value}", color_of(value)))
    return tuple(known[value] for value in sorted(known))
