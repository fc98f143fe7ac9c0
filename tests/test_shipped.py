"""The shipped despeckler: its target, lessons, network, folder, and `irsde restore` without a run."""

from __future__ import annotations

import json
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as picture

from irsde import models
from irsde.cli import run
from irsde.clinic.display import PLAIN, Look, draw_look, show
from irsde.config import TrainConfig
from irsde.data import Normalization
from irsde.network import Model, build_network, build_sde, load
from irsde.sample import restore
from irsde.shipped import examples as shipped_examples
from irsde.shipped.examples import Example, Examples, lesion_sheet, load_examples, plan, save, simulate
from irsde.shipped.lessons import lesson, prepare
from irsde.shipped.network import Despeckler, blurred
from irsde.shipped.tone import LEVELS, fit_tone, toned
from irsde.target import displayed_mean, expected_image, grain_covariance, monotone, speckle_quantiles
from irsde.training import train
from ussim.errors import DataError

REPOSITORY = Path(__file__).resolve().parents[1]


def speckle(shape, rng):
    """Log-compressed fully developed speckle, one pixel a grain, dB about its mean of -2.51."""
    return 10 * np.log10(rng.exponential(size=shape)) + 2.507


def disc_image(size=128):
    z, x = np.indices((size, size)) / size
    return (0.2 + 0.5 * (np.hypot(z - 0.5, x - 0.4) < 0.25) + 0.2 * (x > 0.8)).astype(np.float32)


def small_examples(n=4, size=64, seed=0):
    """Examples made without a simulator: an image in decibels, and speckle of three pixels a grain."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    hq, envelope = [], []
    for _ in range(n):
        z, x = np.indices((size, size)) / size
        grey = (0.3 + 0.5 * (np.hypot(z - rng.random(), x - rng.random()) < 0.3)).astype(np.float32)
        draws = []
        for _ in range(2):
            field = gaussian_filter(rng.standard_normal((2, size, size)), (0, 1, 1.5))
            level = 10 * np.log10((field**2).sum(axis=0)) + 40 * (grey - 1)
            draws.append(level - level.max())
        hq.append(np.uint8(np.round(grey * 255)))
        envelope.append(draws)
    subjects = ["a", "b", "phantom"]
    made = tuple(Example(subjects[k % 3], "0", "L11-5v", 1.0, 15, 40.0, k, "train") for k in range(n))
    return Examples(made, np.stack(hq), np.asarray(envelope, np.float16))


@pytest.fixture(scope="module")
def model():
    """An untrained despeckler: what it restores is no good, but everything around it is the same."""
    torch.manual_seed(0)
    config = TrainConfig.create(store="none", recipe="shipped", preset="tiny")
    network = build_network(config).eval()
    curve = np.linspace(0.5, 1, LEVELS).tolist()
    details = {"tone": {"mri": {"all": curve, "L11-5v": np.linspace(0, 0.5, LEVELS).tolist()}}}
    return Model(config, network, build_sde(config), Normalization("own", floor=0.02), "test", 3, details)


# --- the target ------------------------------------------------------------------------------------------------------


def test_the_target_finds_the_curve_and_the_profile_that_made_the_image():
    rng = np.random.default_rng(0)
    hq = disc_image()
    z = np.linspace(-1, 1, 128)[:, None]
    curve, profile = 30 * hq**1.5, 4 * np.cos(z) + 2 * np.linspace(-1, 1, 128)
    truth = curve + profile
    draws = truth + speckle((2, 128, 128), rng)
    fitted = expected_image(draws, hq)
    error = (fitted.expected_db - truth)[16:-16, 16:-16]
    # Two draws over a window of some 3000 pixels: 0.07 dB of noise; the window flattens the profile, most at the borders.
    assert np.abs(error).mean() < 0.3
    assert np.abs(fitted.expected_db - truth).mean() < 0.6
    assert (np.diff(fitted.curve_db) >= 0).all()


def test_a_target_in_scatterer_power_is_blurred_as_the_image_is():
    """Bars that the speckle's grain is too coarse to show are not in the expectation."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(1)
    bars = np.broadcast_to(np.where(np.arange(128) // 2 % 2, 1.0, 0.5), (128, 128)).astype(np.float32)
    amplitude = 10 ** (40 / 20 * (bars - 1))
    field = gaussian_filter(amplitude * rng.standard_normal((2, 2, 128, 128)), (0, 0, 1, 5))
    draws = 10 * np.log10((field**2).sum(axis=1))
    sharp, seen = expected_image(draws, bars), expected_image(draws, bars, contrast=40.0)
    middle = (slice(None), slice(16, -16))
    assert seen.expected_db[middle].std(axis=1).mean() < 0.5
    assert sharp.expected_db.shape == seen.expected_db.shape
    row = draws.mean(axis=(0, 1))
    assert np.abs(seen.expected_db.mean() - row.mean()) < 0.1


def test_grain_of_a_tilted_speckle_is_found():
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(2)
    field = gaussian_filter(rng.standard_normal((2, 256, 256)), (0, 1.5, 4))
    level = 10 * np.log10((field**2).sum(axis=0))
    covariance = grain_covariance(level)
    # The correlation of speckle's power is as wide as a point's amplitude; log compression narrows it.
    assert np.sqrt(covariance[0, 0]) == pytest.approx(1.5, rel=0.3)
    assert np.sqrt(covariance[1, 1]) == pytest.approx(4, rel=0.3)
    assert grain_covariance(rng.standard_normal((32, 32))).shape == (2, 2)


def test_target_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"hq: expected the shape of the envelope \(8, 8\), got \(8, 9\)"):
        expected_image(np.zeros((8, 8)), np.zeros((8, 9)))


def test_a_monotone_curve_never_falls_and_fills_what_is_empty():
    fitted = monotone(np.array([0.0, 2.0, 1.0, 9.0, 4.0]), np.array([1.0, 1.0, 1.0, 0.0, 1.0]))
    np.testing.assert_allclose(fitted, [0, 1.5, 1.5, 2.75, 4])
    assert not monotone(np.arange(3.0), np.zeros(3)).any()


def test_displayed_expectation_is_the_mean_of_displayed_speckle():
    rng = np.random.default_rng(3)

    def display(level):
        return np.clip(1 + level / 40, 0, 1)

    mean = displayed_mean(display, -80, 20)
    for level in (-60.0, -38.0, -15.0, 0.0):
        drawn = display(level + speckle(200_000, rng)).mean()
        assert float(mean(np.array(level))) == pytest.approx(drawn, abs=0.003)  # 33 quantiles, half a dB of table
    assert speckle_quantiles(1001).std() == pytest.approx(5.57, rel=0.02)


# --- what is simulated, shown and learned ----------------------------------------------------------------------------


def test_a_plan_is_the_same_every_time_and_tests_all_probes():
    slices = {"knee": 5, "brain": 1}
    drawn = plan(slices, {"knee": 8}, 6, 1, seed=4)
    assert drawn == plan(slices, {"knee": 8}, 6, 1, seed=4)
    trained = [example for example in drawn if example.split == "train"]
    assert sum(example.subject == "phantom" for example in trained) == 6
    assert {example.subject for example in trained} == {"knee", "phantom"}
    tests = {(example.subject, example.probe, example.zoom) for example in drawn if example.split == "test"}
    assert {("brain", probe, zoom) for probe in shipped_examples.PROBES for zoom in (1.0, 2.5)} <= tests
    assert all(int(example.image) < 5 for example in trained if example.subject == "knee")


def test_an_example_is_simulated_by_its_own_entry_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped_examples, "SIZE", 32)
    one = Example("phantom", "lesions", "P4-2v", 4.0, 3, 40.0, 7, "train")
    two = Example("head", "0", "P4-2v", 4.0, 3, 40.0, 8, "train")
    slices = {"head": [np.uint8(255 * disc_image(64))]}
    both, alone = simulate([one, two], slices), simulate([two], slices)
    np.testing.assert_array_equal(both.envelope_db[1], alone.envelope_db[0])
    assert both.envelope_db.dtype == np.float16
    assert (both.envelope_db[0, 0] != both.envelope_db[0, 1]).any()
    assert both.envelope_db.max() == 0
    save(tmp_path / "e.npz", both)
    again = load_examples(tmp_path / "e.npz")
    assert again.plan == both.plan
    assert again.digest() == both.digest()
    (tmp_path / "bad.npz").write_bytes(b"no examples")
    with pytest.raises(DataError, match=r"bad\.npz: expected examples"):
        load_examples(tmp_path / "bad.npz")


def test_looks_keep_the_expected_image_the_mean_of_the_speckled():
    rng = np.random.default_rng(5)
    expected = np.full((96, 96), -20.0, np.float32)
    for _ in range(20):
        look = draw_look(rng)
        (lq, other), clean = show(expected, [speckle((96, 96), rng).astype(np.float32) for _ in range(2)], look)
        assert lq.dtype == clean.dtype == np.float32
        assert 0 <= lq.min() <= lq.max() <= 1
        # 9216 grains of a pixel: 0.3 grey levels of noise; sharpening is cut off at black and white, JPEG rounds.
        assert abs(float(other.mean() - clean.mean())) * 255 < (6 if look.sharpen else 2)
    (plain,), _ = show(expected, [np.zeros((96, 96), np.float32)], PLAIN)
    assert (plain == 1).all()  # the largest is white
    (coded,), _ = show(expected, [speckle((96, 96), rng).astype(np.float32)], Look(quality=40))
    assert coded.std() > 0.05


def test_a_lesson_is_a_cut_of_one_example_by_its_random_stream():
    prepared = prepare(small_examples())
    drawn = [lesson(prepared[0], 32, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert all(image.shape == (32, 32) and image.dtype == np.float32 for image in drawn[0])
    for a, b in zip(drawn[0], drawn[1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(drawn[0], drawn[2], strict=True))


def test_the_recipe_trains_holds_out_and_goes_on(tmp_path):
    save(tmp_path / "e.npz", small_examples(6))
    settings = {
        "store": str(tmp_path / "e.npz"), "recipe": "shipped", "preset": "tiny", "steps": 3, "patch_size": 32, "fold": 1,
        "batch_size": 2, "device": "cpu", "checkpoint_every": 2, "validate_every": 0, "warmup": 0,
    }  # fmt: skip
    lines: list[str] = []
    train(TrainConfig.create(**settings), tmp_path / "run", report=lines.append)
    assert lines[0].startswith("recipe shipped: the model that comes with the package")
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["held_out_subjects"] == ["examples/b"]
    assert record["training_subjects"] == ["examples/a", "examples/phantom"]
    assert record["store_digests"]
    trained = load(tmp_path / "run", "raw")
    train(TrainConfig.create(**settings | {"steps": 2}), tmp_path / "two", report=lines.append)
    train(TrainConfig.create(**settings | {"steps": 2}), tmp_path / "again", report=lines.append)
    first, second = (load(tmp_path / name, "raw").network.state_dict() for name in ("two", "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    start = build_network(trained.config)
    assert any((a != b).any() for a, b in zip(start.parameters(), trained.network.parameters(), strict=True))


# --- the network -----------------------------------------------------------------------------------------------------


def test_the_network_begins_as_a_smoothing_of_its_input_and_takes_any_size():
    network = Despeckler((8, 16, 32)).eval()
    with torch.no_grad():
        network.last.weight.zero_()
        for shape in ((16, 16), (30, 27), (9, 41), (2, 5)):
            image = torch.randn(1, 1, *shape)
            assert network(image).shape == image.shape
        constant = torch.full((1, 1, 37, 50), 0.7)
        torch.testing.assert_close(network(constant), constant)
        network.guard = 0.0
        noise = torch.randn(1, 1, 64, 64)
        torch.testing.assert_close(network(noise), network.smoothed(noise))
        assert network(noise).std() < 0.35  # of 1: two binomial filters


def test_the_guard_keeps_the_local_mean_whatever_the_network_says():
    network = Despeckler((8, 16, 32)).eval()
    with torch.no_grad():
        network.last.bias.fill_(3.0)  # a network that bleaches
        image = torch.randn(1, 1, 96, 96)
        difference = network(image) - image
        assert blurred(difference, network.guard).mean().abs() < 0.05
        network.guard = 0.0
        assert blurred(network(image) - image, 12.0).mean() > 2.5


def test_tiles_give_what_the_whole_image_gives():
    torch.manual_seed(1)
    config = TrainConfig.create(store="none", recipe="shipped", preset="tiny")
    network = build_network(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # blocks begin as the identity: give them something to do
            parameter += 0.05 * torch.randn_like(parameter)
    model = Model(config, network, build_sde(config), Normalization("own", floor=0.02))
    image = np.random.default_rng(0).random((300, 280)).astype(np.float32)
    whole, parts = restore(model, image, mask=None), restore(model, image, tile=192, overlap=96, mask=None)
    assert np.abs(whole - image).max() > 0.05
    # A tile sees zeros beyond its border; over the overlap its weight falls to nothing.
    assert np.abs(whole - parts).mean() * 255 < 0.3


def test_standardization_is_undone(model):
    """A picture of half the contrast, and darker, is restored to the same picture of half the contrast."""
    image = (0.2 + 0.6 * np.random.default_rng(1).random((64, 64))).astype(np.float32)
    a, b = restore(model, image, mask=None), restore(model, 0.5 * image + 0.1, mask=None)
    np.testing.assert_allclose(b, 0.5 * a + 0.1, atol=2e-5)
    flat = np.full((64, 64), 0.4, np.float32)
    np.testing.assert_allclose(restore(model, flat, mask=None), flat, atol=1e-3)


# --- strength and tone -----------------------------------------------------------------------------------------------


def test_strength_blends_and_zero_gives_the_picture_back(model):
    image = np.random.default_rng(2).random((40, 50)).astype(np.float32)
    full, half = restore(model, image), restore(model, image, strength=0.5)
    np.testing.assert_array_equal(restore(model, image, strength=0), image)
    np.testing.assert_allclose(half, (full + image) / 2, atol=1e-6)
    with pytest.raises(ValueError, match=r"strength: expected 0 to 1, got 1\.5"):
        restore(model, image, strength=1.5)


def test_tone_of_mri_is_the_curve_of_the_model_by_probe(model):
    image = np.random.default_rng(3).random((40, 50)).astype(np.float32)
    plain = restore(model, image)
    np.testing.assert_allclose(restore(model, image, tone="mri"), 0.5 + plain / 2, atol=0.01)  # at the ends constant
    np.testing.assert_allclose(restore(model, image, tone="mri", probe="l11-5V"), plain / 2, atol=0.01)
    with pytest.raises(DataError, match="no curve of probe 'C5-2v'; expected one of all, L11-5v"):
        restore(model, image, tone="mri", probe="C5-2v")
    with pytest.raises(ValueError, match="tone: expected one of bmode, mri"):
        restore(model, image, tone="ct")
    without = Model(model.config, model.network, model.sde, model.normalization, "run")
    with pytest.raises(DataError, match="run: has no curve to tone 'mri'"):
        restore(without, image, tone="mri")


def test_a_tone_curve_is_fitted_and_never_falls():
    rng = np.random.default_rng(4)
    image = rng.random((200, 200)).astype(np.float32)
    curve = fit_tone([(image, image**2 + 0.05 * rng.standard_normal(image.shape).astype(np.float32))])
    assert len(curve) == LEVELS
    assert (np.diff(curve) >= 0).all()
    np.testing.assert_allclose(toned(image, curve), image**2, atol=0.03)


def test_lesions_of_a_sheet_have_the_levels_that_they_are_said_to_have():
    grey, labels = lesion_sheet(128)
    for k, level in enumerate(shipped_examples.SHEET_LEVELS, 1):
        assert (labels == k).any()
        np.testing.assert_allclose(40 * (grey[labels == k] - grey[0, 0]), level, atol=1e-4)


# --- the folder, and the command -------------------------------------------------------------------------------------


def test_a_saved_folder_is_loaded_as_it_was_and_holds_no_pickle(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "m", kind="despeckler")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    header = (folder / "model.safetensors").read_bytes()[8:200]
    assert b'"dtype":"F16"' in header
    again = load(folder)
    image = np.random.default_rng(5).random((40, 50)).astype(np.float32)
    np.testing.assert_allclose(restore(again, image), restore(model, image), atol=2e-3)  # float16 weights
    assert (again.step, again.normalization, again.config) == (3, model.normalization, model.config)
    (folder / "model.safetensors").write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(DataError, match=r"model\.safetensors"):
        load(folder)


def test_shipped_models_have_a_record_a_card_and_are_small():
    assert models.DEFAULT in models.names()
    for name in models.names():
        shipped = models.shipped(name)
        assert shipped.kind in ("despeckler", "prior")
        assert shipped.summary
        for word in ("licence", "command", "not for"):
            assert word in shipped.card.lower()
    assert sum(models.shipped(name).size for name in models.names()) < 12e6
    with pytest.raises(KeyError, match="no shipped model 'nobody'"):
        models.shipped("nobody")


def test_shipped_models_are_in_the_wheel():
    setup = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert {"irsde.models", "irsde.shipped"} <= set(setup["packages"])
    patterns = setup["package-data"]["irsde.models"]
    for name in models.names():
        for file in (models.WEIGHTS, models.RECORD, models.CARD):
            assert any(Path(name, file).match(pattern) for pattern in patterns)
            assert (models.HOME / name / file).is_file()


def test_models_command_lists_and_shows_cards(capsys):
    assert run(["models"]) == 0
    assert f"{models.DEFAULT}: despeckler, " in capsys.readouterr().out
    assert run(["models", models.DEFAULT]) == 0
    assert models.shipped(models.DEFAULT).card.strip() in capsys.readouterr().out
    assert run(["models", "nobody"]) == 2
    assert "no shipped model 'nobody'" in capsys.readouterr().err


def bmode(size=96):
    """A speckled picture with a black border and a caption in it, 8 bits."""
    rng = np.random.default_rng(6)
    image = np.zeros((size + 40, size + 30), np.uint8)
    level = np.clip(0.6 + speckle((size, size), rng) / 50 - 0.2 * (disc_image(size) > 0.5), 0.1, 1)
    image[30 : 30 + size, 15 : 15 + size] = np.round(255 * level)
    image[8:14, 10:60:4] = 220
    return image


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_restore_without_a_run_in_an_empty_folder(empty, capsys):
    image = bmode()
    picture.fromarray(image).save("image.png")
    assert run(["restore", "image.png", "-o", "clean.png"]) == 0
    clean = np.asarray(picture.open("clean.png"))
    assert clean.shape == image.shape
    inside = (slice(40, 116), slice(25, 101))
    assert clean[inside].std() < 0.8 * image[inside].std()
    assert abs(float(clean[inside].mean()) - float(image[inside].mean())) < 2
    outside = np.ones(image.shape, bool)
    outside[30:126, 15:111] = False
    np.testing.assert_array_equal(clean[outside], image[outside])
    assert run(["restore", "image.png", "-o", "same.png", "--strength", "0"]) == 0
    np.testing.assert_array_equal(np.asarray(picture.open("same.png")), image)
    assert run(["restore", models.DEFAULT, "image.png", "-o", "named.png"]) == 0
    np.testing.assert_array_equal(np.asarray(picture.open("named.png")), clean)
    assert run(["restore", "image.png", "-o", "mri.png", "--tone", "mri", "--probe", "C5-2v"]) == 0
    assert (np.asarray(picture.open("mri.png"))[inside] != clean[inside]).any()
    assert run(["restore", "image.png", "-o", "part.png", "--region", "15,30,60,90"]) == 0
    part = np.asarray(picture.open("part.png"))
    np.testing.assert_array_equal(part[:, 60:], image[:, 60:])
    assert (part[30:90, 15:60] != image[30:90, 15:60]).any()


def test_sixteen_bits_come_out_as_sixteen_bits(empty):
    image = bmode().astype(np.uint16) * 257 + 3 * (bmode() > 0)
    image = image.clip(0, 65535).astype(np.uint16)
    picture.fromarray(image).save("image.png")
    assert run(["restore", "image.png", "-o", "clean.png"]) == 0
    clean = np.asarray(picture.open("clean.png"))
    assert clean.max() > 300
    np.testing.assert_array_equal(clean[:28], image[:28])
    assert (clean[40:116, 25:101] != image[40:116, 25:101]).any()


def test_color_stays_as_it_is(empty):
    image = np.repeat(bmode()[..., None], 3, axis=2)
    image[60:70, 40:55] = (200, 30, 10)
    picture.fromarray(image).save("image.png")
    assert run(["restore", "image.png", "-o", "clean.png"]) == 0
    clean = np.asarray(picture.open("clean.png"))
    np.testing.assert_array_equal(clean[60:70, 40:55], image[60:70, 40:55])
    np.testing.assert_array_equal(clean[:28], image[:28])
    assert (clean[80:110, 25:101] != image[80:110, 25:101]).any()


def test_what_is_no_image_and_no_model_is_refused(empty, model, capsys):
    model.save_pretrained("a")
    assert run(["restore", "a", "-o", "x.png"]) == 2
    assert "expected an image after the run folder, got none (a is a run)" in capsys.readouterr().err
    picture.fromarray(bmode()).save("image.png")
    assert run(["restore", "nobody", "image.png", "-o", "x.png"]) != 0
    assert "nobody: not a run folder" in capsys.readouterr().err
    assert run(["restore", "a", "image.png", "-o", "x.png", "--strength", "2"]) == 2
    assert not Path("x.png").exists()


def test_other_runs_take_strength_too(empty):
    from test_restore import make_model

    image = np.random.default_rng(7).random((32, 32)).astype(np.float32)
    diffusion = make_model()
    with warnings.catch_warnings():
        np.testing.assert_array_equal(restore(diffusion, image, 2, strength=0), image)
