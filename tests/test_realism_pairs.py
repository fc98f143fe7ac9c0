"""Datasets of many scanners: what is drawn of the hardware, its place in the stream, what a store records of it."""

import dataclasses

import numpy as np
import pytest
from datasets import FAST, fast_recipe, write_stacks

import datagen
import ussim
from datagen.make.build import build
from datagen.make.pairs import channel_data, make_imager, receive_chain, simulate_pair
from datagen.make.verify import verify
from datagen.plan.randomize import HARDWARE_SEED, Ranges
from datagen.plan.resolved import Settings
from datagen.sources.scene import Scene

HARDWARE = {
    "backscatter_exponent": [1, 4],
    "aberration_ns": [30, 60],
    "aberration_length_mm": [2, 6],
    "gain_spread_db": [1, 3],
    "dead_fraction": [0.05, 0.1],
    "noise_bandwidth": [0.6, 1.2],
    "tgc_spread_db": [2, 4],
    "jitter_ns": [0.1, 1.0],
    "n_bits": [6, 12],
    "headroom_db": [-3, 6],
}
SETTINGS = Settings(
    probe=ussim.load_probe("P4-2v"), engine="cpu", size=16, n_transmits=1, mean_distance_wavelengths=8.0
)
HQ = np.random.default_rng(0).integers(60, 256, (16, 16)).astype(np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_stacks(tmp_path_factory.mktemp("stacks"))


@pytest.fixture(scope="module")
def store(root, tmp_path_factory):
    path = tmp_path_factory.mktemp("real") / "pairs.zarr"
    recipe = fast_recipe(root, limit=4, samples_per_shard=2, snr_db=30.0, randomize=HARDWARE)
    return path, recipe, build(recipe, path)


def test_hardware_is_drawn_from_places_of_its_own():
    old = Ranges(f_number=(1, 2), gain_db=(-6, 6)).draw(np.random.default_rng(3))
    new = Ranges(f_number=(1, 2), gain_db=(-6, 6), **HARDWARE).draw(np.random.default_rng(3))
    assert {name: new[name] for name in old} == old
    assert new.keys() == old.keys() | HARDWARE.keys() | {HARDWARE_SEED}
    assert isinstance(new["n_bits"], int)
    fewer = Ranges(dead_fraction=(0.05, 0.1)).draw(np.random.default_rng(3))
    assert fewer == {name: new[name] for name in ("dead_fraction", HARDWARE_SEED)}
    assert Ranges(jitter_ns=(0, 1)).draw(np.random.default_rng(3)).keys() == {"jitter_ns"}  # no machine of its own
    seeds = {Ranges(aberration_ns=(0, 50)).draw(np.random.default_rng(i))[HARDWARE_SEED] for i in range(50)}
    assert len(seeds) == 50


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ({"headroom_db": [0, 3]}, "randomize.headroom_db: expected n_bits with it"),
        ({"aberration_length_mm": [2, 3]}, "randomize.aberration_length_mm: expected aberration_ns with it"),
        ({"noise_bandwidth": [0.5, 1]}, "randomize.noise_bandwidth: expected snr_db with it, got no noise"),
        ({"n_bits": [8.5, 12]}, "randomize.n_bits: expected whole numbers"),
        ({"n_bits": [8, 32]}, "randomize.n_bits: expected"),
        ({"jitter_ns": [0, 50]}, r"randomize.jitter_ns: expected at most 0.02 periods .*\(7.35 ns\)"),
        ({"hardware_seed": [0, 5]}, "hardware_seed"),
    ],
)
def test_ranges_that_cannot_be(ranges, words):
    with pytest.raises(datagen.RecipeError, match=rf"^[^\n]*{words}[^\n]*$"):
        datagen.Recipe(source="demo", randomize=ranges, **FAST)


def test_a_store_records_what_was_drawn_and_is_made_again_of_it(store, root):
    path, recipe, summary = store
    assert not summary.set_aside
    pairs = datagen.open_pairs(path)
    rows = [pairs.metadata(i) for i in range(len(pairs))]
    for name, (low, high) in HARDWARE.items():
        values = np.array([float(row[name]) for row in rows])
        assert ((values >= low) & (values <= high)).all()
        assert len(set(values)) > 1
    assert len({row[HARDWARE_SEED] for row in rows}) == len(rows)
    imagers = [make_imager(pairs.settings(i)) for i in range(len(pairs))]
    for imager in imagers:
        settings = imager.settings
        assert imager.acquisition.aberration.rms_delay == settings.aberration_ns / 1e9
        assert (imager.acquisition.element_gains == 0).sum() == round(settings.dead_fraction * 64)
        assert imager.acquisition.medium.backscatter_exponent == settings.backscatter_exponent
        assert receive_chain(settings).time_gain.gains_db.std() > 0.5
    assert len({imager.acquisition.aberration.delays(SETTINGS.probe)[0] for imager in imagers}) == len(rows)
    report = verify(path, resimulate=2, root=[str(root)])
    assert not report.faults
    record = recipe.record("cpu", 2)
    assert record["randomize"]["n_bits"] == [6, 12]


def test_the_content_is_that_of_any_number_of_turns(store, tmp_path):
    _, recipe, summary = store
    again = build(recipe, tmp_path / "again.zarr")
    assert again.digest == summary.digest


def test_recipes_without_hardware_are_recorded_as_before(root):
    record = fast_recipe(root, limit=4, randomize={"f_number": [1, 2]}).record("cpu", 2)
    assert len(record["randomize"]) == 10
    assert not HARDWARE.keys() & record["randomize"].keys()


def test_noise_and_gain_are_to_the_byte_what_they_were():
    """White noise at a level of the RMS of each record from the sample's second stream, then the gain of attenuation."""
    settings = dataclasses.replace(SETTINGS, snr_db=15.0, tgc=True, attenuation_db_cm_mhz=0.4, engine="reference")
    imager, seeds = make_imager(settings), [5, 9]
    got, _ = channel_data([Scene(HQ)] * 2, imager, seeds)
    expected, _ = channel_data(
        [Scene(HQ)] * 2, make_imager(dataclasses.replace(settings, snr_db=None, tgc=False)), seeds
    )
    for record, seed in zip(expected.samples, seeds, strict=True):
        rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(2)[1])
        level = float((record.astype(np.float64) ** 2).mean()) ** 0.5 * 10 ** (-15.0 / 20)
        record += (level * rng.standard_normal(record.shape, dtype=np.float32)).astype(record.dtype)
    ussim.time_gain_compensation(expected, in_place=True)
    assert got.samples.tobytes() == expected.samples.tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"backscatter_exponent": 4.0},
        {"aberration_ns": 60.0},
        {"gain_spread_db": 4.0},
        {"dead_fraction": 0.3},
        {"snr_db": 10.0, "noise_bandwidth": 0.5},
        {"tgc_spread_db": 6.0},
        {"jitter_ns": 6.0},
        {"n_bits": 3},
    ],
)
def test_each_part_changes_the_picture_and_a_seed_gives_it_again(change):
    settings = dataclasses.replace(SETTINGS, **change)
    plain, real, again = (simulate_pair(HQ, make_imager(s), 3).lq for s in (SETTINGS, settings, settings))
    np.testing.assert_array_equal(real, again)
    assert np.abs(real.astype(int) - plain).max() > 2
    if change.keys() & {"aberration_ns", "gain_spread_db", "dead_fraction", "tgc_spread_db"}:
        other = simulate_pair(HQ, make_imager(dataclasses.replace(settings, hardware_seed=1)), 3).lq
        assert (other != real).any()
