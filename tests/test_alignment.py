"""HQ and LQ of a pair lie on one pixel grid: real slices, each of the three kinds of array."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import datagen

DYNAMIC_RANGE_DB = 40.0
BLUR = 2.0  # pixels, about the speckle's own size
LOCAL = 20.0  # pixels: gain that varies slower than this is divided out


def local_amplitude(grey, mask):
    """Blurred amplitude over its local mean.

    Sensitivity changes with depth (by a factor of two on L11-5v, whose aperture grows with it), and a slope of gain under a
    wide structure moves its correlation peak by more than a pixel without anything being out of place.
    """
    amplitude = np.where(mask, 10 ** (DYNAMIC_RANGE_DB / 20 * (grey - 1)), 0.0)
    return gaussian_filter(amplitude, BLUR) / gaussian_filter(amplitude + 1e-3, LOCAL)


def shift_between(hq, lq, mask):
    """Sub-pixel (row, column) by which lq lies off hq: the peak of their cross-correlation, summed over the pairs."""
    total = np.zeros(mask.shape)
    for pair in zip(hq, lq, strict=True):
        one, other = (local_amplitude(image, mask) for image in pair)
        one, other = (np.fft.fft2((image - image[mask].mean()) * mask) for image in (one, other))
        total += np.fft.ifft2(np.conj(one) * other).real
    row, column = np.unravel_index(np.argmax(total), total.shape)
    around = np.roll(total, (1 - row, 1 - column), axis=(0, 1))[:3, :3]

    def vertex(before, peak, after):
        return 0.5 * (before - after) / (before - 2 * peak + after)

    def signed(index, n):
        return index - n if index > n // 2 else index

    return signed(row, mask.shape[0]) + vertex(*around[:, 1]), signed(column, mask.shape[1]) + vertex(*around[1, :])


@pytest.mark.parametrize("probe", ["L11-5v", "C5-2v", "P4-2v"])
def test_pairs_of_the_knee_are_aligned(shared, tmp_path, probe):
    """Within half a pixel of a 128 x 128 image, over six slices."""
    root = shared / "data" / "mri_dicom" / "knee_mese_te1"
    store = tmp_path / "knee.zarr"
    datagen.build(
        datagen.Recipe(
            source="dicom", root=str(root), probes=(probe,), size=128, every=4, patches=False, n_transmits=3
        ),
        store,
    )
    pairs = datagen.open_pairs(store, probe=probe)
    hq, lq = zip(*(pairs[i] for i in range(len(pairs))), strict=True)
    assert len(hq) >= 4
    row, column = shift_between(hq, lq, pairs.mask(0))
    assert abs(row) < 0.5
    assert abs(column) < 0.5
