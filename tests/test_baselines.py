"""Classical filters: each removes speckle, keeps edges, and runs only when it can."""

from __future__ import annotations

import numpy as np
import pytest
import pywt
from speckle_pairs import make_pair

from irsde.evaluation import metrics
from irsde.evaluation.anisotropic import diffuse
from irsde.evaluation.baselines import (
    BASELINES,
    Baseline,
    BaselineUnavailable,
    fit_tone_curve,
    obnlm,
    srad,
    tune,
    wavelet,
)


def speckled_step(size=64):
    """A step of 16 dB in the middle, Rayleigh speckle on both sides, 40 dB display."""
    rng = np.random.default_rng(0)
    amplitude = np.where(np.arange(size) < size // 2, 0.04, 0.25) * rng.rayleigh(size=(size, size)) / 1.25
    return np.clip(1 + 20 * np.log10(amplitude) / 40, 0, 1)


@pytest.mark.parametrize("name", [n for n, b in BASELINES.items() if not b.lacks])
def test_filter_calms_speckle_and_keeps_the_step(name):
    image = speckled_step()
    filtered = BASELINES[name](image)
    assert filtered.shape == image.shape
    assert filtered.dtype == np.float32
    assert 0 <= filtered.min() <= filtered.max() <= 1
    left, right = np.s_[8:-8, 8:24], np.s_[8:-8, 40:56]
    assert filtered[left].std() < 0.75 * image[left].std()
    assert filtered[right].mean() - filtered[left].mean() > 0.6 * (image[right].mean() - image[left].mean())


@pytest.mark.parametrize("name", [n for n, b in BASELINES.items() if not b.lacks])
def test_filter_keeps_a_flat_image(name):
    np.testing.assert_allclose(BASELINES[name](np.full((40, 48), 0.4)), 0.4, atol=1e-3)


def test_a_step_of_srad_is_its_published_equation():
    """Yu & Acton 2002, eqs. 31 to 37 and 57 to 61, pixel by pixel; `step` is a quarter of their time step."""
    rng = np.random.default_rng(4)
    image, step, scale = rng.uniform(0.5, 2, (7, 6)), 0.05, 0.04

    def at(values, z, x):
        return values[min(max(z, 0), 6), min(max(x, 0), 5)]

    def sides(z, x):
        return [at(image, *place) - image[z, x] for place in ((z - 1, x), (z + 1, x), (z, x - 1), (z, x + 1))]

    c, expected = np.empty((7, 6)), image.copy()
    for z in range(7):
        for x in range(6):
            gradient = np.sqrt(sum(d**2 for d in sides(z, x))) / image[z, x]
            laplacian = sum(sides(z, x)) / image[z, x]
            q2 = (gradient**2 / 2 - (laplacian / 4) ** 2) / (1 + laplacian / 4) ** 2
            c[z, x] = np.clip(1 / (1 + (max(q2, 0) - scale) / (scale * (1 + scale))), 0, 1)
    for z in range(7):
        for x in range(6):
            north, south, west, east = sides(z, x)
            flow = c[z, x] * (north + west) + at(c, z + 1, x) * south + at(c, z, x + 1) * east
            expected[z, x] += step * flow
    np.testing.assert_allclose(diffuse(image, 1, step, lambda u, q: scale), expected, rtol=1e-12)


def test_srad_smooths_along_an_edge_not_across_it():
    image = speckled_step()
    filtered = srad(image, 100)
    across = filtered[:, 36:40].mean() - filtered[:, 24:28].mean()
    assert across > 0.8 * (image[:, 40:].mean() - image[:, :24].mean())


def test_srad_is_not_misled_by_black_surroundings():
    """Pixels that the display cut off have no speckle; they must not pass for the calmest."""
    image = np.pad(speckled_step(), 32)
    inside = np.s_[40:-40, 40:56]
    assert srad(image, 100)[inside].std() < 0.75 * image[inside].std()


def test_obnlm_of_a_periodic_image_is_that_image():
    """Every block has exact copies: the weighted mean of equals changes nothing."""
    tile = np.random.default_rng(1).uniform(0.2, 0.8, (6, 6))
    image = np.tile(tile, (8, 8))
    np.testing.assert_allclose(obnlm(image, 1e-4)[8:-8, 8:-8], image[8:-8, 8:-8], atol=1e-3)


def test_obnlm_is_its_definition():
    """Coupé et al. 2009, eqs. 13 to 16, literally: blocks, Pearson distance, selection by mean, averaged overlaps."""
    image, half, reach, gap, offset = np.random.default_rng(5).uniform(0.05, 0.9, (12, 10)), 1, 3, 2, 0.1
    u = np.pad(image + offset, half, mode="reflect")

    def block(z, x):
        return u[z : z + 3, x : x + 3]

    def pearson(a, b):
        return np.mean((a - b) ** 2 / b)

    h2 = 0.8 * np.mean([pearson(block(z, x), block(z + 3, x)) for z in range(0, 9, 3) for x in range(0, 7, 3)])
    total, count = np.zeros_like(u), np.zeros_like(u)
    for z in [min(z, 11) for z in range(0, 14, gap)]:
        for x in [min(x, 9) for x in range(0, 12, gap)]:
            matches, weights = [], []
            for i in range(max(z - reach, 0), min(z + reach + 1, 12)):
                for j in range(max(x - reach, 0), min(x + reach + 1, 10)):
                    if (i, j) != (z, x) and 0.5 <= block(i, j).mean() / block(z, x).mean() <= 2:
                        matches.append(block(i, j))
                        weights.append(np.exp(-pearson(block(z, x), block(i, j)) / h2))
            matches.append(block(z, x))
            weights.append(max(weights, default=1.0))
            total[z : z + 3, x : x + 3] += np.average(matches, axis=0, weights=weights)
            count[z : z + 3, x : x + 3] += 1
    expected = (total / count)[half:-half, half:-half] - offset
    np.testing.assert_allclose(obnlm(image, 0.8, patch=3, search=7, gap=gap), expected, atol=1e-12)


def test_obnlm_between_all_blocks_and_none():
    image = np.random.default_rng(2).uniform(0.3, 0.7, (9, 9))
    assert np.ptp(obnlm(image, 1e6)) < 0.6 * np.ptp(image)  # every block matches: near the plain mean
    np.testing.assert_allclose(obnlm(image, 1e-9), image, atol=1e-9)  # no block matches but itself


def test_wavelets_are_thresholded_as_visushrink_does():
    from scipy import ndimage
    from skimage.restoration import denoise_wavelet

    image = speckled_step()
    details = pywt.dwt2(image, "db4", mode="symmetric")[1]
    sigma = np.median(np.abs(details[2])) / 0.6745  # HH1
    options = {"sigma": sigma, "wavelet": "db4", "mode": "soft", "wavelet_levels": 3, "method": "VisuShrink"}
    first = denoise_wavelet(image, rescale_sigma=False, **options)
    np.testing.assert_allclose(wavelet(image, "median"), ndimage.median_filter(first, 3), atol=1e-9)


@pytest.mark.parametrize(("harmonic", "cutoff"), [(8, 0.125), (16, 0.125), (4, 0.125), (32, 0.25)])
def test_butterworth_is_of_second_order(harmonic, cutoff):
    """A cosine of the mirrored image comes back smaller by 1 / (1 + (f / fc)^4)."""
    wave = 0.1 * np.cos(np.pi * harmonic * (np.arange(64) + 0.5) / 64)
    filtered = wavelet(np.tile(0.5 + wave, (64, 1)), "butterworth", cutoff)
    ratio = harmonic / 128 / cutoff
    np.testing.assert_allclose(filtered[20] - 0.5, wave / (1 + ratio**4), atol=1e-6)


def test_ideal_low_pass_removes_what_is_above_the_cutoff():
    x = np.arange(64)
    fine, coarse = 0.1 * np.cos(np.pi * x * 0.9), 0.1 * np.cos(2 * np.pi * x / 64)
    filtered = wavelet(np.tile(0.5 + fine + coarse, (64, 1)), "ideal")
    assert np.abs(np.fft.rfft(filtered[32]))[24:].max() < 0.1 * np.abs(np.fft.rfft(fine))[24:].max()
    with pytest.raises(ValueError, match="butterworth"):
        wavelet(speckled_step(), "gauss")


def test_missing_package_is_no_row(monkeypatch):
    monkeypatch.setattr("ussim.extras.find_spec", lambda name: None)
    with pytest.raises(
        BaselineUnavailable, match=r"not run: PyWavelets is not installed: pip install 'ussim\[train\]'"
    ):
        Baseline(lambda image: image, packages=("pywt",))(np.zeros((8, 8)))


def test_tuning_picks_the_best_setting_on_the_pairs():
    pairs = [make_pair(64, np.random.default_rng(k)) for k in range(2)]
    median = BASELINES["median"]

    def score(size):
        return np.mean([metrics.psnr(median(lq, size=size), hq) for hq, lq in pairs])

    best = max((setting["size"] for setting in median.settings), key=score)
    assert tune(median, pairs) == {"size": best}


def test_tone_curve_recovers_a_grey_level_map():
    rng = np.random.default_rng(3)
    lq = np.repeat(np.repeat(rng.uniform(0, 1, (8, 8)), 16, 0), 16, 1)
    curve = fit_tone_curve([(lq**2, lq)], sizes=(3,))
    inside = np.s_[4:-4, 4:-4]
    assert metrics.psnr(curve(lq)[inside], (lq**2)[inside]) > 30  # 64 bins of a curve of slope 2


def test_tone_curve_is_better_than_the_median_it_starts_from():
    train = [make_pair(64, np.random.default_rng(k)) for k in range(4)]
    hq, lq = make_pair(64, np.random.default_rng(9))
    curve = fit_tone_curve(train)
    assert metrics.psnr(curve(lq), hq) > metrics.psnr(BASELINES["median"](lq, size=curve.size), hq)
    with pytest.raises(ValueError, match="at least one pair"):
        fit_tone_curve([])


@pytest.mark.parametrize("second", ["median", "butterworth", "ideal"])
def test_wavelets_keep_an_image_that_is_mostly_black(second):
    image = np.zeros((64, 64), dtype=np.float32)
    image[20:30, 20:30] = 0.5
    filtered = wavelet(image, second)
    assert np.isfinite(filtered).all()
    assert filtered[25, 25] > 0.3
