"""Intervals hold what they say; texture, contours and lesions are measured on images whose answer is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from speckle_pairs import SpecklePairs
from test_cli_irsde import SETTINGS, store, train, trained  # noqa: F401 (fixtures)
from test_restore import make_model

import ussim
from irsde.cli import run
from irsde.data import DataError, whole
from irsde.evaluation import lesions
from irsde.evaluation.coverage import coverage, fit_intervals
from irsde.evaluation.evaluate import evaluate, evaluate_real, split_error
from irsde.evaluation.lesions import Case, Site, contrast_db, evaluate_lesions, lesion_cases, measure_case
from irsde.evaluation.metrics import Patches, calm_patches
from irsde.evaluation.results import Result
from irsde.evaluation.table import write_report
from irsde.evaluation.texture import calm_tissue, contour_ratio, drift, gcnr_null, local_spectrum, texture_distance
from irsde.intervals import Intervals, corrected_quantile, fit, level_of_groups, load_intervals, reach

# --- intervals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_exchangeable_pixels_are_covered_as_often_as_is_said(spread):
    """Calibrated on half of the pixels, skewed errors that grow with the variance; tested on the other half."""
    rng = np.random.default_rng(0)
    n = 40_000
    variance = np.full(n, 0.0) if spread == 0 else rng.uniform(0.2, 2, n) * spread**2
    mean = rng.random(n)
    errors = (rng.exponential(1, n) - 1) * np.sqrt(variance + 0.02**2)
    half = np.arange(n) < n // 2
    made = Intervals(**fit(errors[half], mean[half], variance[half], 0.9), n_samples=4)
    low = mean[~half] - np.asarray(made.below)[np.searchsorted(made.edges, mean[~half])] * np.sqrt(
        variance[~half] + made.floor**2
    )
    high = mean[~half] + np.asarray(made.above)[np.searchsorted(made.edges, mean[~half])] * np.sqrt(
        variance[~half] + made.floor**2
    )
    truth = (mean + errors)[~half]
    # Each tail is 5 %; two halves of 20,000, six bins: four standard deviations of the difference of two binomials.
    allowed = 4 * math.sqrt(2 * 0.05 * 0.95 / (n // 2))
    assert (truth < low).mean() == pytest.approx(0.05, abs=allowed)
    assert (truth > high).mean() == pytest.approx(0.05, abs=allowed)


def test_the_correction_for_few_scores_is_the_rank_of_conformal_prediction():
    scores = np.arange(1.0, 20.0)  # 19: the 95 % quantile of one more is the largest
    assert corrected_quantile(scores, 0.95) == 19
    assert corrected_quantile(scores, 0.5) == 10
    assert corrected_quantile(scores, 0.5, np.ones(19)) == pytest.approx(10, abs=1)
    assert corrected_quantile(np.array([1.0, 2.0, 3.0]), 0.5, np.array([0.0, 0.0, 1.0])) == 3


def test_over_many_calibrations_a_new_score_is_held_as_often_as_is_said():
    rng = np.random.default_rng(1)
    held = [rng.normal() <= corrected_quantile(rng.normal(size=19), 0.9) for _ in range(4000)]
    # Exactly ceil(20 * 0.9) / 20 = 0.9; three standard deviations of 4000 tosses.
    assert np.mean(held) == pytest.approx(0.9, abs=3 * math.sqrt(0.09 / 4000))


def test_a_new_subject_is_covered_as_often_as_is_said():
    """Six subjects to calibrate on, each with a drift and a spread of its own; twelve hundred others to test on.

    Quantiles over pixels hold fewer of them: the new subject's drift is beyond those seen more often than that of a pixel.
    """
    rng = np.random.default_rng(2)

    def subjects(n):
        groups = np.repeat(np.arange(n), 400)
        drift, spread = 0.04 * rng.standard_normal(n), np.exp(0.5 * rng.standard_normal(n))
        errors = drift[groups] + 0.03 * spread[groups] * rng.standard_normal(len(groups))
        return errors, rng.random(len(groups)), np.zeros(len(groups)), groups

    held = {"pixels": [], "groups": []}
    for _ in range(60):
        errors, mean, variance, groups = subjects(6)
        tested = subjects(20)
        levels = {"pixels": 0.9, "groups": level_of_groups(errors, mean, variance, 0.9, groups)}
        assert levels["groups"] >= 0.9
        for name, level in levels.items():
            below, above = reach(fit(errors, mean, variance, level), tested[1], tested[2])
            held[name].append(np.mean((tested[0] >= -below) & (tested[0] <= above)))
    assert np.mean(held["pixels"]) < 0.87
    assert np.mean(held["groups"]) == pytest.approx(0.9, abs=0.02)  # one of six left out: five, not six, were seen


def test_a_few_subjects_are_calibrated_as_they_were():
    rng = np.random.default_rng(3)
    errors, mean = rng.standard_normal((2, 900))
    assert level_of_groups(errors, mean, 0 * mean, 0.9, np.repeat(np.arange(3), 300)) == 0.9


def test_a_new_noise_is_covered_on_the_same_pairs():
    model = make_model()
    subset = whole(SpecklePairs(n=3, size=48))  # too few images to leave one out
    made = fit_intervals([model], [subset], n_samples=3, steps=2)
    assert made.subjects == tuple(sorted(set(subset.subjects)))
    rows = coverage(made, [model], [subset], seed=7)
    assert [row.subject for row in rows] == [*dict.fromkeys(subset.subjects), "all"]
    assert rows[-1].inside == pytest.approx(0.9, abs=0.03)  # the same images, other samples of an untrained network
    for row in rows:
        assert row.inside + row.below + row.above == pytest.approx(1)


def test_intervals_are_written_and_read(tmp_path):
    made = fit_intervals([make_model()], [whole(SpecklePairs(n=2, size=32))], n_samples=2, steps=2)
    made.save(tmp_path / "intervals.json")
    assert load_intervals(tmp_path) == made
    mean = np.full((4, 4), 0.5, np.float32)
    low, high = made.bounds(mean, mean * 0)
    assert (low <= mean).all()
    assert (mean <= high).all()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": 2}', '{"format": 1, "level": 0.9}', None])
def test_what_is_no_intervals_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "intervals.json").write_text(text)
    with pytest.raises(DataError, match="calibrate-intervals"):
        load_intervals(tmp_path)


def test_intervals_of_a_subject_that_was_learned_from_are_refused():
    model = make_model()
    subset = whole(SpecklePairs(n=2))
    object.__setattr__(model, "details", {"training_subjects": [subset.subjects[0]]})
    with pytest.raises(DataError, match="was trained on subject"):
        fit_intervals([model], [subset])


def test_the_commands_calibrate_restore_and_evaluate(store, trained, tmp_path, capsys):  # noqa: F811
    common = ["--data", str(store), "--probe", "L11-5v", "--fold", "1"]
    file = tmp_path / "i.json"
    options = ["--samples", "2", "--steps", "2", "-o", str(file)]
    assert run(["calibrate-intervals", str(trained), *common, *options]) == 0
    assert "with other noise the intervals hold" in capsys.readouterr().err
    assert json.loads(file.read_text())["n_samples"] == 2
    lq = (SpecklePairs(n=1)[0][1] * 255).astype(np.uint8)
    Image.fromarray(lq).save(tmp_path / "lq.png")
    out = tmp_path / "clean.npy"
    assert run(["restore", str(trained), str(tmp_path / "lq.png"), "-o", str(out), "--interval", str(file)]) == 0
    mean, low, high = (np.load(tmp_path / f"clean{end}.npy") for end in ("", "-lower", "-upper"))
    assert mean.shape == low.shape == high.shape == lq.shape
    assert (low <= high).all()
    assert (high - low).mean() > 0.01
    table = tmp_path / "t.md"
    evaluated = ["evaluate", str(trained), *common, "--no-baselines", "--steps", "2", "--interval", str(file)]
    assert run([*evaluated, "-o", str(table)]) == 0
    assert "## Coverage of intervals" in table.read_text()
    assert run(["restore", str(trained), str(store), "-o", str(tmp_path / "r"), "--interval", str(file)]) == 2
    assert run(["evaluate", str(trained), "--real", str(tmp_path), "--interval", str(file), "-o", str(table)]) == 2
    assert run(["calibrate-intervals", str(trained), *common, "--subject", "nobody", *options]) == 3


def test_intervals_of_another_run_are_refused(store, trained, tmp_path, capsys):  # noqa: F811
    fit_intervals([make_model()], [whole(SpecklePairs(n=1))], n_samples=2, steps=1).save(tmp_path / "i.json")
    Image.fromarray(np.zeros((40, 40), np.uint8) + 90).save(tmp_path / "lq.png")
    command = ["restore", str(trained), str(tmp_path / "lq.png"), "-o", str(tmp_path / "c.png")]
    assert run([*command, "--interval", str(tmp_path / "i.json")]) == 3
    assert "intervals of the runs m0, got a" in capsys.readouterr().err


# --- texture and contours --------------------------------------------------------------------------------------------


def noise(sigma, seed=0, size=96):
    image = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(size, size)), sigma, mode="wrap")
    return 0.5 + 0.05 * image / image.std()


def test_the_same_texture_elsewhere_is_near_and_smoothing_is_far():
    reference = noise(1.5)
    other = texture_distance(noise(1.5, seed=1), reference)
    assert texture_distance(reference, reference) == 0
    assert other < 1  # 121 patches of which a quarter is independent: 0.8 dB per frequency
    assert texture_distance(ndimage.gaussian_filter(reference, 2), reference) > 5 * other
    assert texture_distance(noise(0.7), reference) > 5 * other


def test_the_spectrum_of_white_noise_is_its_variance():
    image = np.random.default_rng(0).normal(0, 0.1, (256, 256))
    power = local_spectrum(image)
    assert power[3:13, 3:].mean() == pytest.approx(0.01, rel=0.05)  # 961 patches, half of each shared


def test_contours_of_facets_are_steeper_than_those_of_speckle():
    rng = np.random.default_rng(0)
    speckle = ndimage.gaussian_filter(rng.rayleigh(1, (128, 128)), 1.0)
    speckle = 0.5 + 0.1 * (speckle - speckle.mean()) / speckle.std()
    facets = ndimage.gaussian_filter(speckle, 3)
    facets = 0.5 + 0.05 * np.sign(facets - np.median(facets))
    everywhere = np.ones(speckle.shape, bool)
    assert 2 < contour_ratio(speckle, everywhere) < 7
    assert contour_ratio(facets, everywhere) > 50
    assert math.isnan(contour_ratio(np.full((32, 32), 0.5), np.ones((32, 32), bool)))
    assert math.isnan(contour_ratio(speckle, np.zeros(speckle.shape, bool)))


def test_calm_tissue_is_away_from_edges_and_from_silence():
    hq = np.full((64, 64), 0.5)
    hq[:, 32:] = 0.8
    hq[:10] = 0
    calm = calm_tissue(hq + 0.001 * noise(0.5, size=64))
    assert calm.any()
    assert not calm[:, 29:35].any()
    assert not calm[:10].any()


def test_gcnr_without_a_lesion_rises_by_smoothing_alone():
    speckle = noise(0.7, size=96)
    places = tuple((slice(16 * k, 16 * k + 16), slice(0, 16)) for k in range(5))
    mask = np.zeros(speckle.shape, bool)
    for place in places:
        mask[place] = True
    patches = Patches(mask, 5, {}, places)
    smooth = ndimage.gaussian_filter(speckle, 3)
    assert gcnr_null(smooth, patches) > gcnr_null(speckle, patches) + 0.1
    assert math.isnan(gcnr_null(speckle, Patches(mask, 1, {}, ())))
    assert len(calm_patches(np.clip(speckle, 0, 1), None).places) == 5


def test_drift_is_the_distance_of_local_means():
    lq = noise(1.0)
    assert drift(lq, lq) == 0
    assert drift(lq + 3 / 255, lq) == pytest.approx(3)


# --- errors over draws -----------------------------------------------------------------------------------------------


def test_bias_and_speckle_add_up_to_the_error():
    """Restorations with a known bias and noise: 0.1 and 0.05."""
    rng = np.random.default_rng(0)
    hq = rng.random((200, 200))
    drawn = [hq + 0.1 + 0.05 * rng.normal(size=hq.shape) for _ in range(3)]
    found = split_error(drawn, hq)
    assert found["bias"] == pytest.approx(25.5, rel=0.01)  # 120,000 draws
    assert found["speckle"] == pytest.approx(12.75, rel=0.01)
    assert split_error([hq, hq], hq) == {"bias": 0, "speckle": 0}


class Drawn(SpecklePairs):
    n_draws = 3

    def draws(self, i):
        lq = self[i][1]
        return np.stack(
            [lq, *(np.clip(lq + 0.1 * np.random.default_rng(k).normal(size=lq.shape), 0, 1) for k in (1, 2))]
        )


def test_a_table_splits_the_error_of_pairs_with_draws(tmp_path):
    options = {"steps": (1,), "baselines": False}
    result = evaluate([make_model()], [whole(Drawn(n=1))], speckle=True, **options)
    assert all(len(row.values["speckle"]) == 1 for row in result.rows)
    assert "one draw is from that mean" in write_report(result, tmp_path / "t.md")[0].read_text()
    without = evaluate([make_model()], [whole(SpecklePairs(n=1))], speckle=True, **options)
    assert "speckle" not in without.rows[0].values


# --- lesions ---------------------------------------------------------------------------------------------------------


def known_case():
    image = np.full((60, 60), 0.6, np.float32)
    sites, places = [], {-2: (10, 10), -4: (10, 40), -8: (40, 10), 0: (40, 40)}
    rows, columns = np.indices(image.shape)
    for level, (z, x) in places.items():
        distance = np.hypot(rows - z, columns - x)
        image[distance <= 6] += level / 40
        sites.append(Site(level, distance <= 5, (distance > 7) & (distance < 9)))
    return Case(image, tuple(sites))


def test_what_is_kept_lost_and_made_of_known_lesions():
    case = known_case()
    assert [contrast_db(case.lq, site) for site in case.sites] == pytest.approx([-2, -4, -8, 0], abs=1e-5)
    same = measure_case(case.lq, case)
    assert [same[name] for name in ("kept_2", "kept_4", "kept_8", "lost", "made")] == pytest.approx(
        [100, 100, 100, 0, 0]
    )
    assert same["lesion_gcnr"] == 1
    changed = case.lq.copy()
    changed[case.sites[0].inside] += 1.5 / 40  # of -2 dB a quarter is left
    changed[case.sites[3].inside] -= 3 / 40  # a lesion of -3 dB where none is
    found = measure_case(changed, case)
    assert found["kept_2"] == pytest.approx(25, abs=0.01)
    assert found["lost"] == pytest.approx(100 / 3)
    assert found["made"] == 100


def test_simulated_lesions_have_their_contrast_on_the_display(tmp_path, monkeypatch):
    waves = ussim.imaging_waves
    monkeypatch.setattr(ussim, "imaging_waves", lambda probe: waves(probe, n_transmits=3))
    (case,) = lesion_cases("L11-5v", 1, size=96, seed=1)
    assert [site.level for site in case.sites] == [-2, -4, -8, 0, 0, 0, 0]
    for site in case.sites:
        assert not (site.inside & site.around).any()
        # Of about 130 grains of speckle, each with a deviation of 5.6 dB: 0.5 dB inside, and as much around.
        assert contrast_db(case.lq, site) == pytest.approx(site.level, abs=2.5)
    result = Result()
    monkeypatch.setattr(lesions, "lesion_cases", lambda *settings: iter([case]))
    evaluate_lesions([], ["L11-5v"], 1, baselines=False, result=result)
    (row,) = result.rows
    assert row.mean("lost") == row.mean("made") == 0
    assert "| gCNR of lesions | gCNR of none |" in write_report(result, tmp_path / "t.md")[0].read_text()


# --- real images without masks ---------------------------------------------------------------------------------------


def test_real_images_without_masks_have_a_table(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(2):
        Image.fromarray(rng.normal(120, 15, (96, 96)).astype(np.uint8)).save(tmp_path / f"scan{k}.png")
    np.save(tmp_path / "array.npy", rng.normal(120, 15, (96, 96)).astype(np.uint8))
    np.save(tmp_path / "stack.npy", np.zeros((3, 96, 96), np.uint8))
    result = evaluate_real([], tmp_path, baselines=False)
    (row,) = result.rows
    assert len(row.values["enl"]) == 3
    assert "cnr" not in row.values
    assert row.mean("drift") == 0
    assert any("stack.npy" in line for line in result.not_run)
    text = write_report(result, tmp_path / "t.md")[0].read_text()
    assert "| gCNR of none |" in text
    assert "CNR |" not in text.replace("gCNR of none", "")
