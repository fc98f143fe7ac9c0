"""Grey levels of a volume: what becomes black and white, and where the tissue is."""

from __future__ import annotations

import numpy as np

from ..errors import DataError
from .volume import Volume

_SAMPLE = 2_000_000  # voxels that are enough for percentiles
_PADDED = 0.001  # share of the voxels
_FAR = 2.0  # ranges of all other values


def grey_range(volume: Volume, percentiles: tuple[float, float] = (0.5, 99.5)) -> tuple[float, float]:
    """Return the values that become black and white: percentiles of the series' foreground.

    One range for a whole series, since scanners may scale each slice on its own (Philips) and the reader has undone it.

    Raises
    ------
    DataError
        All voxels have the same value.
    """
    values = sampled(volume)
    if values.min() == values.max():
        raise DataError(f"{volume.source} {volume.name}: all voxels have the value {values.min():g}")
    values, _ = without_padding(values)
    compressed, threshold = _parted(values)
    tissue = values[compressed > threshold]
    low, high = np.percentile(tissue, percentiles)
    # Black is the air around, not the darkest tissue: bone and fluid inside the body keep their contrast.
    low = min(float(low), float(np.percentile(values, 1)))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    return float(low), float(high)


def sampled(volume: Volume) -> np.ndarray:
    """Voxels that are enough for percentiles, float32."""
    return volume.voxels.reshape(-1)[:: max(1, volume.voxels.size // _SAMPLE)].astype(np.float32)


def tissue_threshold(values: np.ndarray) -> float:
    """Return the value that parts tissue from the air around it, by Otsu's method."""
    return float(values.min() + _parted(values)[1] ** 2)


def _parted(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Square roots of values above the least, and the threshold between air and tissue among them."""
    from skimage.filters import threshold_otsu

    # The square root keeps a few very bright voxels (fat, vessels) from drawing the threshold up into the tissue.
    compressed = np.sqrt(values - values.min())
    return compressed, threshold_otsu(compressed)


def without_padding(values: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Values without the padding of a scanner, and its value, None where there is none.

    Padding is a value that many voxels have exactly, so far below all others that an image that shows it as black has
    only a third of its greys for the rest. Air that a mask has set to zero is not: it stays black.
    """
    least = values.min()
    rest = values[values > least]
    if rest.size == 0 or values.size - rest.size < _PADDED * values.size:
        return values, None
    first, last = np.percentile(rest, (0.1, 99.9))
    if not last > first or first - least <= _FAR * (last - first):
        return values, None
    return rest, float(least)


def to_unit(image: np.ndarray, grey: tuple[float, float]) -> np.ndarray:
    """Grey values to float32 in [0, 1]: `grey[0]` and below is 0, `grey[1]` and above is 1."""
    low, high = grey
    mapped: np.ndarray = np.clip((image.astype(np.float32) - low) / np.float32(high - low), 0, 1)
    return mapped


def foreground(image: np.ndarray) -> np.ndarray:
    """Tissue in one slice: Otsu's threshold, holes filled, small regions dropped, the largest component kept.

    Parameters
    ----------
    image : (n_rows, n_columns) in [0, 1]

    Returns
    -------
    mask : (n_rows, n_columns) bool; all False where there is nothing but noise
    """
    from scipy.ndimage import binary_fill_holes
    from skimage.filters import gaussian, threshold_otsu
    from skimage.morphology import closing, disk, opening

    # The square root gives dark tissue a say; the blur keeps noise from breaking it up.
    smooth = gaussian(np.sqrt(image), sigma=1.0, preserve_range=True)
    if smooth.max() - smooth.min() < 0.05:
        return np.zeros(image.shape, bool)
    mask = smooth > threshold_otsu(smooth)
    mask = binary_fill_holes(closing(mask, disk(3)))
    mask = opening(mask, disk(2))
    return largest_component(mask)


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected region of a mask with its holes filled; empty where the mask is."""
    from scipy.ndimage import binary_fill_holes
    from skimage.measure import label

    labels = label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return binary_fill_holes(labels == sizes.argmax()) if sizes.max() else np.zeros(mask.shape, bool)
