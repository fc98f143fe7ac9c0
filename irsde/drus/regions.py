"""Regions where scores are read, and the scores: gCNR and SNR of discs and speckle regions, FWHM of point targets.

Regions follow the PICMUS evaluation: inside a disc less 1.1 resolutions (1.0 on PICMUS's own phantoms), a ring of equal
area outside it (its inner radius the disc's plus as much), rectangles of speckle. A region of which the grid holds too
little is empty, and counts as not scored. gCNR is read on decibel images clipped to the dynamic range (64 bins unless said):
it does not change under the monotone map from a standard deviation to a variance. SNR is
m / s in linear amplitude, of the variance as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ussim.types import ImageGrid

from ..evaluation.metrics import fwhm, gcnr, speckle_snr
from .phantoms import Layout

GUARD = 1.1  # resolutions between a disc's edge and the regions on both sides, in the numerical study
PICMUS_GUARD = 1.0  # the same in the evaluation of PICMUS's recordings
DYNAMIC_RANGE_DB = 60.0
GCNR_BINS = 64
RING_SEEN = 0.5  # of the area about a disc that the grid must hold, and of a speckle region
TARGET_WINDOW = 1.8e-3  # m, half size of the region about a point target
CYCLE_ROWS = 1  # on either side of an RF-like image's maximum: they hold a cycle of the carrier, half to one per row


@dataclass(frozen=True, eq=False)
class Regions:
    """Boolean masks (nz, nx)."""

    inside: list[np.ndarray]
    outside: list[np.ndarray]
    speckle: list[np.ndarray]


def disc_regions(
    grid: ImageGrid, centers: np.ndarray, radius: float | np.ndarray, resolution: float, guard: float = GUARD
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Inside and outside of each disc, `guard` lateral resolutions (m) off its edge.

    Of a disc too small for that, the inner seven tenths are used. Both are empty where the grid does not hold all of
    the inside and half of the outside.
    """
    x, z = grid.mesh()
    inside, outside = [], []
    for (cx, cz), r in zip(centers, np.broadcast_to(radius, len(centers)), strict=True):
        distance = np.hypot(x - cx, z - cz)
        inner = r - guard * resolution
        inner = inner if inner > 0.3 * r else 0.7 * r
        ring = r + guard * resolution
        within = distance < inner
        around = (distance > ring) & (distance < np.hypot(inner, ring))
        seen = _holds(grid, cx, cz, inner) and around.sum() >= RING_SEEN * np.pi * inner**2 / _pixel_area(grid)
        inside.append(within & seen)
        outside.append(around & seen)
    return inside, outside


def _holds(grid: ImageGrid, x: float, z: float, radius: float) -> bool:
    """Return whether a disc lies on the grid."""
    return grid.x[0] <= x - radius and x + radius <= grid.x[-1] and grid.z[0] <= z - radius and z + radius <= grid.z[-1]


def _pixel_area(grid: ImageGrid) -> float:
    return float(np.diff(grid.x).mean() * np.diff(grid.z).mean())


def rectangle(grid: ImageGrid, center: tuple[float, float], half_x: float, half_z: float) -> np.ndarray:
    """Pixels within the half sizes (m) of `center` = (x, z); none where the grid holds less than half of them."""
    x, z = grid.mesh()
    region = (np.abs(x - center[0]) <= half_x) & (np.abs(z - center[1]) <= half_z)
    return region & (region.sum() >= RING_SEEN * 4 * half_x * half_z / _pixel_area(grid))


def layout_regions(layout: Layout, grid: ImageGrid, resolution: float) -> Regions:
    """Return the regions of an occlusion layout."""
    inside, outside = disc_regions(grid, layout.centers, layout.radius, resolution)
    half = layout.roi_half_size
    speckle = [rectangle(grid, (float(x), float(z)), half, half) for x, z in layout.rois]
    return Regions(inside, outside, speckle)


def to_decibels(image: np.ndarray, dynamic_range_db: float = DYNAMIC_RANGE_DB) -> np.ndarray:
    """20 log10 of |image| over its maximum, clipped to [-dynamic_range_db, 0]; an image of zeros is all floor."""
    magnitude = np.abs(np.asarray(image, dtype=np.float64))
    top = magnitude.max()
    floor = 10 ** (-dynamic_range_db / 20)
    return 20 * np.log10(np.maximum(magnitude / top, floor)) if top > 0 else np.full(magnitude.shape, -dynamic_range_db)


def contrast_scores(image: np.ndarray, regions: Regions, gcnr_bins: int = GCNR_BINS) -> tuple[np.ndarray, np.ndarray]:
    """GCNR of each disc and SNR of each speckle region; those with an empty region are left out."""
    decibels, magnitude = to_decibels(image), np.abs(image)
    pairs = [(i, o) for i, o in zip(regions.inside, regions.outside, strict=True) if i.any() and o.any()]
    return (
        np.array([gcnr(decibels, i, o, gcnr_bins) for i, o in pairs]),
        np.array([speckle_snr(magnitude, region) for region in regions.speckle if region.any()]),
    )


def target_widths(
    image: np.ndarray, grid: ImageGrid, centers: np.ndarray, envelope: bool = True, bridge_across: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Axial and lateral -6 dB widths, m, of the targets near `centers` (n, 2); NaN where one cannot be measured.

    Lines through the maximum within 1.8 mm of the center, of the whole region's extent. `envelope` bridges the carrier of
    RF-like images, in both directions: with speckle the sign changes across too. Of single points it does not, and the
    spline between a narrow lobe and the next maximum would be measured in place of the lobe: without `bridge_across` the
    lateral line is the largest of each column over a cycle of the carrier.
    """
    magnitude = np.abs(image)
    step_x, step_z = np.diff(grid.x).mean(), np.diff(grid.z).mean()
    axial, lateral = [], []
    for x, z in centers:
        columns = np.flatnonzero(np.abs(grid.x - x) <= TARGET_WINDOW)
        rows = np.flatnonzero(np.abs(grid.z - z) <= TARGET_WINDOW)
        if columns.size < 5 or rows.size < 5 or not _holds(grid, x, z, 0.0):
            axial.append(np.nan)
            lateral.append(np.nan)
            continue
        region = magnitude[np.ix_(rows, columns)]
        top_z, top_x = np.unravel_index(region.argmax(), region.shape)
        axial.append(_width(region[:, top_x], step_z, envelope))
        cycle = CYCLE_ROWS if envelope and not bridge_across else 0
        line = region[max(0, top_z - cycle) : top_z + cycle + 1].max(axis=0)
        lateral.append(_width(line, step_x, envelope and bridge_across))
    return np.array(axial), np.array(lateral)


def _width(profile: np.ndarray, step: float, envelope: bool) -> float:
    """With the envelope where it can be drawn, without it where the profile has a single peak."""
    width = fwhm(profile, step, envelope=True) if envelope else np.nan
    return width if np.isfinite(width) else fwhm(profile, step)
