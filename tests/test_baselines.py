"""Classical filters: each removes speckle, keeps edges, and runs only when it can."""

from __future__ import annotations

import numpy as np
import pytest
from speckle_pairs import make_pair

from irsde import metrics
from irsde.baselines import BASELINES, Baseline, BaselineUnavailable, fit_tone_curve, obnlm, srad, tune, wavelet


def speckled_step(size=64):
    """A step of 16 dB in the middle, Rayleigh speckle on both sides, 40 dB display."""
    rng = np.random.default_rng(0)
    amplitude = np.where(np.arange(size) < size // 2, 0.04, 0.25) * rng.rayleigh(size=(size, size)) / 1.25
    return np.clip(1 + 20 * np.log10(amplitude) / 40, 0, 1)


@pytest.mark.parametrize("name", [n for n, b in BASELINES.items() if b.available])
def test_filter_calms_speckle_and_keeps_the_step(name):
    image = speckled_step()
    filtered = BASELINES[name](image)
    assert filtered.shape == image.shape
    assert filtered.dtype == np.float32
    assert 0 <= filtered.min() <= filtered.max() <= 1
    left, right = np.s_[8:-8, 8:24], np.s_[8:-8, 40:56]
    assert filtered[left].std() < 0.75 * image[left].std()
    assert filtered[right].mean() - filtered[left].mean() > 0.6 * (image[right].mean() - image[left].mean())


@pytest.mark.parametrize("name", [n for n, b in BASELINES.items() if b.available])
def test_filter_keeps_a_flat_image(name):
    np.testing.assert_allclose(BASELINES[name](np.full((40, 48), 0.4)), 0.4, atol=1e-3)


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


def test_obnlm_agrees_with_its_definition_for_one_block():
    """An image of one block's size: the centre block is the weighted mean of all whole-window matches."""
    image = np.random.default_rng(2).uniform(0.3, 0.7, (9, 9))
    assert np.ptp(obnlm(image, 1e6)) < 0.6 * np.ptp(image)  # every block matches: near the plain mean
    np.testing.assert_allclose(obnlm(image, 1e-9), image, atol=1e-9)  # no block matches but itself


def test_ideal_low_pass_removes_what_is_above_the_cutoff():
    x = np.arange(64)
    fine, coarse = 0.1 * np.cos(np.pi * x * 0.9), 0.1 * np.cos(2 * np.pi * x / 64)
    filtered = wavelet(np.tile(0.5 + fine + coarse, (64, 1)), "ideal")
    assert np.abs(np.fft.rfft(filtered[32]))[24:].max() < 0.1 * np.abs(np.fft.rfft(fine))[24:].max()
    with pytest.raises(ValueError, match="butterworth"):
        wavelet(speckled_step(), "gauss")


def test_missing_package_is_no_row():
    with pytest.raises(BaselineUnavailable, match="not_a_package"):
        Baseline(lambda image: image, package="not_a_package")(np.zeros((8, 8)))


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
