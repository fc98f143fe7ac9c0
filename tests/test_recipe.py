"""Recipes: what they accept, what they say of what they do not, and what of them a digest covers."""

import json

import pytest

from datagen import Recipe, RecipeError
from datagen.identity import FoldError, choose_folds, fold_of, sample_id, sample_seed
from datagen.plan.randomize import Ranges
from datagen.plan.resolved import ResolvedRecipe, array_name, differences, digest, probe_of_record, probe_record


def recipe(**changes):
    return Recipe(**({"source": "demo", "probes": "P4-2v"} | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 0}, ["size", "8", "0"]),
        ({"size": "big"}, ["size", "integer", "'big'"]),
        ({"folds": 0}, ["folds"]),
        ({"max_angle_deg": 95}, ["max_angle_deg", "90", "95"]),
        ({"snr_db": float("nan")}, ["snr_db"]),
        ({"source": "mrnett"}, ["unknown source", "mrnett", "did you mean 'mrnet'"]),
        ({"probes": ()}, ["probes"]),
        ({"probes": "C5-2"}, ["C5-2v"]),
        ({"probes": ("P4-2v", "p4-2v")}, ["each probe once"]),
        ({"probe": "P4-2v"}, ["probe", "did you mean 'probes'"]),
        ({"full": False, "patches": False}, ["at least one"]),
        ({"root": ("a", "b")}, ["root", "one folder a source"]),
        ({"segmenter": "sam2"}, ["sam2_checkpoint"]),
        ({"planes": ("oblique",)}, ["planes", "axial"]),
        ({"randomize": {"f_number": [2, 1]}}, ["randomize.f_number", "low <= high"]),
        ({"randomize": {"fnumber": [1, 2]}}, ["fnumber", "unknown"]),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_field(changes, words):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as error:
        recipe(**changes)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_one_value_does_for_several():
    assert recipe(root="a", planes="axial").model_dump() == recipe(root=("a",), planes=["axial"]).model_dump()


def test_the_record_leaves_out_where_the_data_lies():
    first, second = (recipe(root=root, samples_per_shard=n).record("cpu", 2) for root, n in (("a", 1), ("b", None)))
    assert digest(first) == digest(second)


def test_the_record_holds_every_choice():
    base = recipe().record("cpu", 2)
    for change in ({"seed": 1}, {"snr_db": 30.0}, {"probes": ("P4-2v", "L11-5v")}, {"attenuation_db_cm_mhz": 0.5}):
        assert digest(recipe(**change).record("cpu", 2)) != digest(base), change
    assert digest(recipe().record("reference", 2)) != digest(base)
    assert differences(base, recipe(seed=1).record("cpu", 2)) == ["seed 0 -> 1"]


def test_tgc_is_on_where_there_is_attenuation():
    assert not recipe().with_tgc
    assert recipe(attenuation_db_cm_mhz=0.5).with_tgc
    assert not recipe(attenuation_db_cm_mhz=0.5, tgc=False).with_tgc
    assert recipe(randomize={"attenuation_db_cm_mhz": [0, 1]}).with_tgc


def test_a_file_says_the_same_as_the_options(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('source = "demo"\nprobe = "P4-2v"\nmax-angle-deg = 7\n[randomize]\nsnr_db = [20, 40]\n')
    assert Recipe.from_file(path) == recipe(max_angle_deg=7, randomize={"snr_db": (20, 40)})
    assert Recipe.from_file(path, seed=3).seed == 3


@pytest.mark.parametrize("content", ["sorce = 'demo'", "source = ", "\xff"])
def test_a_bad_file_is_named(tmp_path, content):
    path = tmp_path / "recipe.toml"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(RecipeError, match=r"recipe\.toml"):
        Recipe.from_file(path)
    with pytest.raises(RecipeError, match="none\\.toml"):
        Recipe.from_file(tmp_path / "none.toml")


def test_a_probe_survives_its_record(any_probe):
    again = probe_of_record(probe_record(any_probe))
    assert probe_record(again) == probe_record(any_probe)
    assert (again.element_x == any_probe.element_x).all()
    assert "/" not in array_name(any_probe.name)


def test_settings_carry_what_the_record_says():
    record = recipe(n_transmits=7, attenuation_db_cm_mhz=0.5, snr_db=30.0).record("cpu", 2)
    (settings,) = ResolvedRecipe.from_dict(record).settings
    assert (settings.n_transmits, settings.attenuation_db_cm_mhz, settings.snr_db) == (7, 0.5, 30.0)
    assert settings.tgc
    assert settings.engine == "cpu"


@pytest.mark.parametrize("format", [1, 2])
def test_a_resolved_recipe_is_what_its_record_says(format):
    asked = recipe(probes=("P4-2v", "C5-2v"), planes="axial", frames=3, randomize={"snr_db": [20, 40]}, folds=2)
    resolved = asked.resolve("cpu", format)
    again = ResolvedRecipe.from_dict(json.loads(json.dumps(resolved.to_dict())))
    assert again == resolved
    assert again.to_dict() == resolved.to_dict() == asked.record("cpu", 2, format)
    assert (again.format, again.folds, again.settings[1].format) == (format, 2, format)


def test_the_first_stores_recorded_less():
    record = {name: value for name, value in recipe().record("cpu", 2, 1).items()}
    assert not {"format", "subjects", "frames", "include_derived"} & record.keys()
    resolved = ResolvedRecipe.from_dict(record | {"of_a_later_version": 1})
    assert (resolved.format, resolved.selection.frames, resolved.selection.include_derived) == (1, "first", False)


# --- identity --------------------------------------------------------------------------------------------------------


def test_identity_is_stable():
    """Written down: a change here would give every dataset other seeds and folds."""
    assert sample_id("npy", "a/stack", "axial", 7, "patch", 2) == "npy/a/stack/axial-0007/patch/v2"
    assert sample_seed(0, "npy/a/stack/axial-0007/patch/v2") == 6729833707574757848
    assert [fold_of("npy", name, 5) for name in "abcdef"] == [1, 2, 0, 1, 4, 3]


def test_seeds_differ_between_samples_and_recipes():
    seeds = {sample_seed(seed, f"s{i}") for seed in range(3) for i in range(100)}
    assert len(seeds) == 300
    assert max(seeds) < 2**63


def test_adding_subjects_moves_nobody():
    few = {subject: fold_of("npy", subject, 5) for subject in "abc"}
    many = {subject: fold_of("npy", subject, 5) for subject in "abcdefgh"}
    assert few.items() <= many.items()


def test_an_empty_fold_is_an_error_that_suggests_another_number():
    subjects = [("npy", name) for name in "abc"]
    with pytest.raises(FoldError, match=r"use --folds [123]"):
        choose_folds(subjects, 5)
    folds = choose_folds(subjects, None)
    assert {fold_of(*subject, folds) for subject in subjects} == set(range(folds))
    assert choose_folds(subjects, folds) == folds
    assert choose_folds([("npy", str(i)) for i in range(100)], None) == 5


# --- randomization ---------------------------------------------------------------------------------------------------


def test_drawn_values_lie_in_their_ranges_and_are_spread():
    import numpy as np

    ranges = Ranges(snr_db=(20, 60), f_number=(1, 2))
    drawn = [ranges.draw(np.random.default_rng(seed)) for seed in range(200)]
    assert set(drawn[0]) == {"snr_db", "f_number"}
    values = np.array([value["snr_db"] for value in drawn])
    assert values.min() >= 20
    assert values.max() <= 60
    assert abs(values.mean() - 40) < 3  # 200 uniform draws: standard error 0.8


def test_adding_a_range_changes_no_other_value():
    import numpy as np

    one = Ranges(f_number=(1, 2)).draw(np.random.default_rng(0))
    two = Ranges(f_number=(1, 2), snr_db=(20, 60)).draw(np.random.default_rng(0))
    assert one["f_number"] == two["f_number"]


def test_fields_that_are_not_used_leave_the_record_as_it_was(tmp_path):
    assert not {"subjects", "frames", "include_derived"} & recipe().record("cpu", 2).keys()
    assert recipe(frames="3").record("cpu", 2)["frames"] == 3
    assert recipe(include_derived=True).record("cpu", 2)["include_derived"] is True
    for wrong in ("0", "none", -1, 1.5):
        with pytest.raises(RecipeError, match="frames: expected first, all or a number from 1"):
            recipe(frames=wrong)
    told = recipe(source="nifti", subjects="(PAT)").record("cpu", 2)
    assert told["subjects"] == "(PAT)"
    table = tmp_path / "who.csv"
    table.write_text("a,kim\n")
    assert recipe(source="nifti", subjects=str(table)).record("cpu", 2)["subjects"].startswith("table sha256:")
    with pytest.raises(RecipeError, match=r"subjects: for files of your own .*; mrnet has its own subjects"):
        recipe(source="mrnet", subjects="(PAT)")
