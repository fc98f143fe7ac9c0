"""Color in ultrasound pictures: most is grey stored as color; what is not (color Doppler, icons) stays as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

TOLERANCE = 10  # of 255, between the channels of a pixel: JPEG gives grey as much where color is near
LUMINANCE = (2125, 7154, 721)  # of 10,000: ITU-R BT.709, as pictures are read elsewhere


def grey_of(picture: NDArray[Any]) -> NDArray[Any]:
    """Grey values (n_rows, n_columns) of a picture: its own, or the luminance of its colors."""
    if picture.ndim == 2:
        return picture
    red, green, blue = (picture[..., k] * np.uint32(weight) for k, weight in enumerate(LUMINANCE))
    return ((red + green + blue + 5_000) // 10_000).astype(np.uint8)


def colored(picture: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Return where a picture is colored, with the pixels beside, which hold half of it; None where nowhere."""
    if picture.ndim == 2:
        return None
    red, green, blue = (picture[..., k] for k in range(3))  # three times faster than along the axis of three
    found = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue) > TOLERANCE
    return ndimage.binary_dilation(found, np.ones((3, 3), bool)) if found.any() else None


def ybr_partial_to_rgb(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colors of YBR_PARTIAL (luma 16 to 235, chroma 16 to 240; DICOM PS3.3 C.7.6.3.1.2) as RGB."""
    y, b, r = (picture[..., k].astype(np.float64) - offset for k, offset in enumerate((16, 128, 128)))
    rgb = [1.1644 * y + 1.5960 * r, 1.1644 * y - 0.3917 * b - 0.8130 * r, 1.1644 * y + 2.0173 * b]
    return np.rint(np.clip(np.stack(rgb, axis=-1), 0, 255)).astype(np.uint8)
