"""Geometry of a DICOM series: axes, distances and tilts of its slices in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .files import sha256_of
from .grouping import Frame
from .volume import ACQUIRED, CANONICAL, Volume, VolumeRef


def placed(ref: VolumeRef, frames: Sequence[Frame], pixels: np.ndarray) -> Volume:
    """Give pixels (slice, row, column) their place in the patient."""
    from nibabel.orientations import apply_orientation, io_orientation

    notes = list(ref.notes)
    first = frames[0]
    rows, columns = first.pixel_spacing or (None, None)
    if first.pixel_spacing is None:
        notes.append("no pixel spacing in the file: pixels taken as square")
    digest = sha256_of(ref.paths)
    common: dict[str, Any] = {"source": ref.source, "subject": ref.subject, "name": ref.name, "file_sha256": digest}
    if first.position is None or first.cosines is None:
        step, by = _location_step(frames)
        notes.append(f"no position or orientation in the file: slices in the order of their {by}")
        return Volume(
            **common,
            voxels=pixels,
            spacing=(step or first.thickness, rows, columns),
            orientation=ref.orientation or ACQUIRED,
            notes=tuple(notes),
        )
    step, irregular = step_between(frames)
    notes += irregular
    row_direction, column_direction = np.array(first.cosines[:3]), np.array(first.cosines[3:])
    affine = np.eye(4)
    affine[:3, 0] = row_direction * (columns or 1.0)
    affine[:3, 1] = column_direction * (rows or 1.0)
    affine[:3, 2] = np.cross(row_direction, column_direction) * (step or 1.0)
    affine[:3, 3] = first.position
    affine[:2] *= -1  # DICOM's axes run to Left and Posterior, NIfTI's to Right and Anterior
    orientation = io_orientation(affine)
    tilt = obliquity_degrees(affine)
    if tilt > 10:
        notes.append(f"oblique: {tilt:.0f} degrees off the anatomical axes; planes are the closest ones")
    shift = _shift(frames, affine)
    only_plane = ""
    if shift is not None:
        degrees = float(np.degrees(np.arctan2(np.linalg.norm(shift), step or 1.0)))
        only_plane = ("sagittal", "coronal", "axial")[int(orientation[2, 0])]
        notes.append(f"tilted gantry: slices shifted by {degrees:.0f} degrees, only the {only_plane} plane is cut")
        affine[:3, 2] += shift
    voxels = apply_orientation(pixels.transpose(2, 1, 0), orientation)
    spacing: list[float | None] = [None, None, None]
    for size, (axis, _) in zip((columns, rows, step), orientation, strict=True):
        spacing[int(axis)] = size
    return Volume(
        **common,
        voxels=voxels,
        spacing=(spacing[0], spacing[1], spacing[2]),
        orientation=CANONICAL,
        notes=tuple(notes),
        file_affine=affine,
        only_plane=only_plane,
    )


def _shift(frames: Sequence[Frame], affine: np.ndarray) -> np.ndarray | None:
    """Return the shift of each slice beside the one before (mm in RAS), where a tilted gantry shifted them; None where not.

    Under 1 degree, or a pixel from end to end, it is the rounding of positions.
    """
    if len(frames) < 2 or frames[0].position is None or frames[-1].position is None:
        return None
    moved = (np.array(frames[-1].position) - np.array(frames[0].position)) * (-1, -1, 1)
    normal = affine[:3, 2] / np.linalg.norm(affine[:3, 2])
    along = float(moved @ normal)
    beside = moved - along * normal
    pixel = float(np.linalg.norm(affine[:3, :2], axis=0).min())
    length = float(np.linalg.norm(beside))
    if length <= max(pixel, abs(along) * np.tan(np.radians(1.0))):
        return None
    spacing: np.ndarray = beside / (len(frames) - 1)
    return spacing


def obliquity_degrees(affine: np.ndarray) -> float:
    """Largest angle between a voxel axis and the anatomical axis closest to it."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.degrees(np.arccos(np.clip(np.abs(directions).max(axis=0), -1, 1))).max())


def step_between(frames: Sequence[Frame]) -> tuple[float | None, list[str]]:
    """Distance between slices from their positions (not SliceThickness, which leaves out gaps), and what is odd."""
    if len(frames) == 1:
        return frames[0].thickness, []
    steps = np.diff([frame.depth() or 0.0 for frame in frames])
    step = float(np.median(steps))
    if np.ptp(steps) > max(0.05 * step, 0.02):
        return step, [f"slices {steps.min():.3g} to {steps.max():.3g} mm apart, not evenly: slices may be missing"]
    return float(np.mean(steps)), []


def _location_step(frames: Sequence[Frame]) -> tuple[float | None, str]:
    """Distance between slices whose positions are lost, by SliceLocation, and what they are ordered by."""
    locations = [frame.location for frame in frames if frame.location is not None]
    if len(locations) == len(frames) > 1 and min(np.diff(locations)) > 0:
        return float(np.median(np.diff(locations))), "SliceLocation"
    return None, "numbers"
