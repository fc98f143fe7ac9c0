"""Speckle draws, envelopes and zoomed fields: stored, read, verified; stores without them are as before."""

import numpy as np
import pytest
from datasets import FAST, PROBE, fast_recipe, write_stacks

import datagen
from datagen.make import shards
from datagen.make.build import build
from datagen.make.pairs import ENVELOPE_FLOOR_DB, Settings, draw_seed, make_imager, simulate_pair
from datagen.make.verify import verify
from datagen.plan.randomize import Ranges
from datagen.show.export import export
from datagen.show.preview import preview_png
from datagen.show.report import write_report
from datagen.store import layout
from ussim.probes import load_probe

DRAWS = 3
RANGES = {"zoom": [1, 5], "zoom_x": [0, 1], "zoom_z": [0, 1], "n_transmits": [1, 2], "gain_db": [-6, 6]}
MANY = {"limit": 5, "samples_per_shard": 2, "speckle_draws": DRAWS, "keep": "envelope", "randomize": RANGES}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_stacks(tmp_path_factory.mktemp("stacks"))


@pytest.fixture(scope="module")
def one(root, tmp_path_factory):
    """A store without draws, and its summary."""
    path = tmp_path_factory.mktemp("one") / "pairs.zarr"
    return path, build(fast_recipe(root, limit=4), path)


@pytest.fixture(scope="module")
def several(root, tmp_path_factory):
    """A store with everything: draws, envelopes, drawn fields."""
    path = tmp_path_factory.mktemp("several") / "pairs.zarr"
    return path, build(fast_recipe(root, **MANY), path)


def test_one_draw_is_the_store_of_before(one, root, tmp_path):
    """By digest, of the recipe and of the content, as they were before there were draws, envelopes and fields."""
    assert fast_recipe(root, limit=4, speckle_draws=1, keep=()).digest == fast_recipe(root, limit=4).digest
    record = fast_recipe(root, limit=4, randomize={"f_number": [1, 2]}).record("cpu", 2)
    assert not {"speckle_draws", "keep", "phantoms"} & record.keys()
    assert len(record["randomize"]) == 10
    summary = build(fast_recipe(root, limit=4, speckle_draws=1), tmp_path / "pairs.zarr")
    assert summary.digest == one[1].digest
    assert datagen.open_pairs(one[0]).draws(0).shape == (1, 16, 16)


@pytest.mark.parametrize("store", ["one", "several"])
def test_bytes_of_a_sample_are_those_of_its_arrays(store, request):
    import zarr

    path, _ = request.getfixturevalue(store)
    recipe, group = datagen.open_pairs(path).recipe, zarr.open_group(path, mode="r")
    arrays = [array for _, array in group.members(max_depth=None) if isinstance(array, zarr.Array)]
    n = group["hq"].shape[0]
    per_sample = [array for array in arrays if array.ndim > 2 and array.shape[0] == n]
    assert layout.bytes_per_sample(recipe) * n == sum(array.nbytes for array in per_sample)


def test_the_first_draw_is_that_of_one_and_the_others_differ(one, root, tmp_path):
    build(fast_recipe(root, limit=4, speckle_draws=DRAWS), tmp_path / "pairs.zarr")
    pairs, alone = datagen.open_pairs(tmp_path / "pairs.zarr"), datagen.open_pairs(one[0])
    for i, (hq, lq) in enumerate(alone):
        np.testing.assert_array_equal(pairs[i][0], hq)
        np.testing.assert_array_equal(pairs[i][1], lq)
        draws = pairs.draws(i)
        assert draws.shape == (DRAWS, 16, 16)
        np.testing.assert_array_equal(draws[0], lq)
        assert all((draws[a] != draws[b]).mean() > 0.5 for a, b in ((0, 1), (0, 2), (1, 2)))
        np.testing.assert_array_equal(pairs.pair(i, draw=2)[1], draws[2])
    for row in pairs.samples:
        assert [row[f"seed_draw{k}"] for k in range(1, DRAWS)] == [draw_seed(row["seed"], k) for k in range(1, DRAWS)]
        assert draw_seed(row["seed"], 0) == row["seed"]


def test_every_draw_is_a_pair_of_its_own_to_train_on(several):
    pairs = datagen.open_pairs(several[0])
    every = pairs.every_draw()
    assert len(every) == DRAWS * len(pairs)
    hq, lq = every.read(np.arange(len(every)))
    items = every.torch(dtype="uint8")
    for i in range(len(every)):
        pair, draw = divmod(i, DRAWS)
        np.testing.assert_array_equal(lq[i] / np.float32(255), pairs.draws(pair)[draw])
        np.testing.assert_array_equal(every[i][1], pairs.draws(pair)[draw])
        np.testing.assert_array_equal(items[i][1].numpy()[0], lq[i])
        np.testing.assert_array_equal(hq[i] / np.float32(255), pairs[pair][0])
    assert [row["draw"] for row in every[3:6].samples] == [0, 1, 2]
    with pytest.raises(IndexError, match="draw 3 of 3"):
        pairs.pair(0, draw=3)


def test_an_envelope_says_what_lq_says_in_decibels(several):
    pairs = datagen.open_pairs(several[0])
    rows = pairs.samples
    span = pairs.recipe.dynamic_range_db
    for i in range(len(pairs)):
        for draw in range(DRAWS):
            decibels = pairs.envelope(i, draw)
            assert decibels.dtype == np.float32
            assert np.isfinite(decibels).all()
            assert decibels.min() >= ENVELOPE_FLOOR_DB
            # The brightest echo is the gain above white; rounding: half a grey level and float16 of up to 60 dB.
            assert decibels.max() == pytest.approx(rows[i][f"gain_db_{PROBE}"], abs=0.01)
            grey = np.clip(1 + decibels / span, 0, 1)
            assert np.abs(grey - pairs.pair(i, draw)[1]).max() < 0.5 / 255 + 0.04 / span
    assert np.dtype(pairs._array(f"envelope/{PROBE}").dtype) == np.float16


def test_a_silent_envelope_is_the_floor():
    settings = Settings(load_probe(PROBE), "cpu", 16, n_transmits=1, mean_distance_wavelengths=8.0, keep=("envelope",))
    silent = shards.Scene(np.zeros((16, 16), np.uint8), density=np.zeros((16, 16), np.float32))
    pair = simulate_pair(silent, make_imager(settings), 0)
    assert (pair.envelope == ENVELOPE_FLOOR_DB).all()
    assert not pair.lq.any()


def test_a_build_with_draws_is_the_same_however_it_is_run(several, root, tmp_path, monkeypatch):
    assert (
        build(fast_recipe(root, **MANY), tmp_path / "t.zarr", workers=2, scheduler="threads").digest
        == several[1].digest
    )

    class Stop(BaseException):
        pass

    simulate, count = shards.simulate_pairs, []

    def stopping(hqs, imager, seeds):
        count.append(len(hqs))
        if len(count) == 4:
            raise Stop
        return simulate(hqs, imager, seeds)

    monkeypatch.setattr(shards, "simulate_pairs", stopping)
    with pytest.raises(Stop):
        build(fast_recipe(root, **MANY), tmp_path / "r.zarr")
    assert build(fast_recipe(root, **MANY), tmp_path / "r.zarr", resume=True).digest == several[1].digest


def test_verify_covers_every_draw_and_the_envelope(several, root):
    path, _ = several
    report = verify(path, resimulate=3, root=str(root), seed=0)
    assert (report.faults, report.notes, report.n_resimulated) == ((), (), 3)
    for name in (f"lq/{PROBE}/c/1/0/0/0", f"envelope/{PROBE}/c/1/0/0/0"):
        content = (path / name).read_bytes()
        damaged = bytearray(content)
        damaged[len(content) // 3] ^= 4
        (path / name).write_bytes(damaged)
        assert any(name.rpartition("/c/")[0] in fault for fault in verify(path).faults)
        (path / name).write_bytes(content)
    assert verify(path).faults == ()


def test_pictures_reports_and_exports_take_stores_with_draws(several, tmp_path):
    path, _ = several
    assert preview_png(datagen.open_pairs(path, probe=PROBE), PROBE)
    assert "zoom 1 to 5" in write_report(path, tmp_path / "r.html").read_text()
    for kind in ("png", "webdataset"):
        export(path, tmp_path / kind, kind, licence="CC0")


def test_a_sample_set_aside_has_blank_draws(root, tmp_path, monkeypatch):
    simulate = shards.simulate_pairs
    seen = []

    def failing(hqs, imager, seeds):
        seen.append(1)
        if len(seen) <= shards.ATTEMPTS:
            raise ValueError("no")
        return simulate(hqs, imager, seeds)

    monkeypatch.setattr(shards, "simulate_pairs", failing)
    recipe = fast_recipe(root, **MANY | {"randomize": None})
    summary = build(recipe, tmp_path / "pairs.zarr")
    assert len(summary.set_aside) == 1
    pairs = datagen.open_pairs(tmp_path / "pairs.zarr", include_set_aside=True)
    assert not pairs.draws(0).any()
    monkeypatch.setattr(shards, "simulate_pairs", simulate)
    assert build(recipe, tmp_path / "pairs.zarr", resume=True).digest == build(recipe, tmp_path / "b.zarr").digest


# --- drawn fields and transmits --------------------------------------------------------------------------------------


def settings(**changes):
    return Settings(load_probe("L11-5v"), "cpu", 64, **({"n_transmits": 1} | changes))


def test_a_zoomed_field_is_so_many_times_smaller_and_lies_where_it_is_put():
    whole = make_imager(settings()).grid
    for x, z in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0)):
        part = make_imager(settings(zoom=4.0, zoom_x=x, zoom_z=z)).grid
        for axis, own, place in ((part.x, whole.x, x), (part.z, whole.z, z)):
            assert np.ptp(axis) == pytest.approx(np.ptp(own) / 4)
            assert axis[0] == pytest.approx(own[0] + place * (np.ptp(own) - np.ptp(axis)))


def lateral_grain(lq):
    """Lag, pixels, at which the speckle of an even image is half as like itself."""
    grey = lq.astype(float) - lq.mean()
    like = [np.mean(grey[:, : 64 - lag] * grey[:, lag:]) for lag in range(20)]
    return float(np.interp(-0.5, -np.array(like) / like[0], np.arange(20)))


def test_speckle_grows_with_the_zoom_and_does_not_fade_at_the_borders():
    even = np.full((64, 64), 200, np.uint8)
    grains = {}
    for zoom in (1.0, 4.0):
        imager = make_imager(settings(zoom=zoom, mean_distance_wavelengths=0.7, keep=("envelope",)))
        pairs = [simulate_pair(even, imager, seed) for seed in range(3)]
        grains[zoom] = np.mean([lateral_grain(pair.lq) for pair in pairs])
        if zoom > 1:
            power = np.mean([10 ** (pair.envelope.astype(float) / 10) for pair in pairs], axis=0)
            edges = np.r_[power[:, :4].ravel(), power[:, -4:].ravel()].mean() / power.mean()
            assert 0.5 < edges < 2  # without tissue beyond the border a few dB are lost there; speckle scatters by 1 dB
    assert grains[4.0] > 2 * grains[1.0]


def test_ranges_are_drawn_from_places_of_their_own():
    """A new range moves no value that older recipes draw; whole numbers reach both ends."""
    old = Ranges(f_number=(1, 2), snr_db=(20, 40)).draw(np.random.default_rng(3))
    new = Ranges(f_number=(1, 2), snr_db=(20, 40), **RANGES).draw(np.random.default_rng(3))
    assert {name: new[name] for name in old} == old
    assert new.keys() == old.keys() | RANGES.keys()
    counts = {Ranges(n_transmits=(1, 3)).draw(np.random.default_rng(i))["n_transmits"] for i in range(40)}
    assert counts == {1, 2, 3}


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ({"zoom": [0.5, 2]}, "zoom"),
        ({"zoom_x": [0, 2]}, "zoom_x"),
        ({"n_transmits": [1.5, 3]}, "whole numbers"),
        ({"gain_db": [5, -5]}, "gain_db"),
    ],
)
def test_wrong_ranges_are_refused_in_one_line(ranges, words):
    with pytest.raises(datagen.RecipeError, match=rf"^[^\n]*{words}[^\n]*$"):
        datagen.Recipe(source="demo", randomize=ranges, **FAST)


def test_gain_and_contrast_shape_the_picture():
    step = np.repeat(np.repeat(np.array([[120, 200]], np.uint8), 64, 0), 32, 1)
    plain = simulate_pair(step, make_imager(settings()), 0).lq.astype(int)
    bright = simulate_pair(step, make_imager(settings(gain_db=10.0)), 0).lq.astype(int)
    seen = (plain > 0) & (bright < 255)
    assert np.abs(bright - plain - 255 * 10 / 40)[seen].max() <= 1
    strong = simulate_pair(step, make_imager(settings(scatterer_range_db=60.0)), 0).lq.astype(int)

    def contrast(lq):
        return lq[:, 40:].mean() - lq[:, :24].mean()

    assert contrast(strong) > contrast(plain) + 10


def test_training_sees_the_first_draw_or_every_one(several):
    """Pairs by name, and the LQ images of a batch: in network units they tell draws apart."""
    from irsde.config import TrainConfig
    from irsde.data import Augmentation, TrainingBatches
    from irsde.lessons import prepare

    counts = {}
    for draws in ("first", "every"):
        config = TrainConfig.create(store=str(several[0]), probes=(PROBE,), draws=draws, patch_size=16, floor=0.0)
        lessons = prepare(config, several[0], None, None, lambda text: None)
        (subset,) = lessons.training
        assert len(set(subset.names)) == len(subset)
        batches = TrainingBatches(lessons.training, lessons.normalization, Augmentation(16, False), len(subset), 0)
        counts[draws] = len({image.numpy().tobytes() for image in batches[0][1]})
    assert counts == {"first": 5, "every": 5 * DRAWS}
