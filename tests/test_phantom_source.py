"""Source phantom: endless, seeded, labeled, free to pass on."""

import re

import numpy as np
import pytest
from datasets import FAST

import datagen
from datagen.make.build import build
from datagen.make.verify import verify
from datagen.plan.augment import Augmentation, apply_augmentation, apply_to_labels, apply_to_points, draw_augmentation
from datagen.sources import Selection, get_source
from datagen.sources.phantom import NAMES
from datagen.store import read
from datagen.store.location import open_storage
from ussim import phantoms
from ussim.errors import DataError

KINDS = tuple(phantoms.names())


def recipe(**changes):
    return datagen.Recipe(**({"source": "phantom", "limit": 10} | FAST | changes))


def refs(count, seed=0, kinds=None):
    return get_source("phantom", Selection(count=count, seed=seed, kinds=kinds)).find()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """One phantom of each kind, at 32 pixels."""
    path = tmp_path_factory.mktemp("phantoms") / "pairs.zarr"
    return path, build(recipe(size=32), path)


def test_each_phantom_is_a_subject_and_says_that_it_may_be_passed_on(built):
    path, summary = built
    pairs = datagen.open_pairs(path)
    rows = pairs.samples
    assert len(rows) == summary.n_samples == summary.n_subjects == len(KINDS) == 10
    assert {str(row["volume"]).rpartition("-")[0] for row in rows} == set(KINDS)
    (terms,) = pairs.sources
    assert terms.redistributable
    assert terms.licence == "CC0-1.0"
    assert summary.folds > 1
    assert not any(row["set_aside"] for row in rows)


def test_labels_say_what_lies_where(built):
    pairs = datagen.open_pairs(built[0])
    assert pairs.label_names == dict(enumerate(NAMES, start=1))
    assert len(set(pairs.label_colors.values())) == len(NAMES)
    for i, row in enumerate(pairs.samples):
        labels = pairs.labels(i)
        kind = str(row["volume"]).rpartition("-")[0]
        assert (labels.dtype, labels.shape) == (np.uint16, (32, 32))
        found = {pairs.label_names[int(value)] for value in np.unique(labels) if value}
        if kind == "cysts":
            assert found == {"cyst", "bright disc"}
            hq = pairs[i][0]
            assert hq[labels == NAMES.index("cyst") + 1].mean() < 0.2 < hq[labels == 0].mean()
        if kind == "wires":
            assert not found
            assert pairs[i][0].max() > 0.5  # its points are seen in HQ


def test_every_name_that_a_phantom_has_is_in_the_table():
    for kind in KINDS:
        for seed in (None, 1, 2):
            made = phantoms.make(kind, seed=seed, rows=32)
            assert {re.sub(r" [-+].*", "", name) for name in made.label_names} <= set(NAMES), kind


def test_there_is_no_end_and_the_first_stay_the_same():
    few, more = refs(7), refs(23)
    assert {ref.name for ref in few} < {ref.name for ref in more}
    source = get_source("phantom")
    one = source.scene(few[0], 40.0).hq
    np.testing.assert_array_equal(one, source.scene(few[0], 40.0).hq)
    other = refs(7, seed=1)[0]
    assert other.name == few[0].name
    assert (source.scene(other, 40.0).hq != one).mean() > 0.05
    assert source.identity(other) != source.identity(few[0])


def test_the_kinds_may_be_chosen(tmp_path):
    found = refs(6, kinds=("cysts", "lesions"))
    assert sorted(ref.name for ref in found) == [f"{kind}-{n:07d}" for kind in ("cysts", "lesions") for n in range(3)]
    build(recipe(limit=3, phantoms=("lesions",), folds=1), tmp_path / "pairs.zarr")
    rows = datagen.open_pairs(tmp_path / "pairs.zarr").samples
    assert [str(row["volume"]).partition("-")[0] for row in rows] == ["lesions"] * 3
    assert read.read_document(open_storage(tmp_path / "pairs.zarr"))["recipe"]["phantoms"] == ["lesions"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"limit": None}, r"limit.*--limit N"),
        ({"phantoms": ("cyst",)}, r"did you mean 'cysts'"),
        ({"phantoms": ("cysts", "cysts")}, r"each kind once"),
        ({"full": False}, r"whole images"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(changes, words):
    with pytest.raises(datagen.RecipeError, match=rf"^[^\n]*{words}[^\n]*$"):
        recipe(**changes)
    if changes == {"limit": None}:
        with pytest.raises(DataError, match="no end"):
            get_source("phantom").find()


def test_it_is_verified_resumed_and_made_of_several_sources(built, tmp_path):
    report = verify(built[0], resimulate=4, seed=1)
    assert (report.faults, report.notes, report.n_resimulated) == ((), (), 4)
    assert build(recipe(size=32), built[0], resume=True).n_built == 0
    both = recipe(source=("phantom", "demo"), limit=6, augmentations=1, speckle_draws=2)
    build(both, tmp_path / "both.zarr")
    pairs = datagen.open_pairs(tmp_path / "both.zarr")
    sources = [row["source"] for row in pairs.samples]
    assert {"phantom", "demo"} == set(sources)
    assert not pairs.labels(sources.index("demo")).any()
    assert verify(tmp_path / "both.zarr", resimulate=6, seed=0).faults == ()


# --- variants --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_labels_and_points_move_with_the_image(seed):
    """A disc, its label and its center are turned, scaled and shifted alike."""
    n, size = 120, 48
    row, column = np.mgrid[:n, :n]
    center = (52.0, 66.0)  # row, column
    inside = np.hypot(row - center[0], column - center[1]) < 12
    variant = draw_augmentation(np.random.default_rng(seed))
    image = apply_augmentation(np.where(inside, 255, 0).astype(np.uint8), variant, size)
    labels = apply_to_labels(inside.astype(np.uint16) * 7, variant, size)
    assert set(np.unique(labels)) == {0, 7}
    assert ((image > 127) != (labels == 7)).mean() < 0.02  # the outline, where the image is smoothed
    point = np.array([[(center[1] + 0.5) / n, (center[0] + 0.5) / n, -3.0]])
    ((x, z, level),) = apply_to_points(point, variant)
    rows, columns = np.nonzero(labels)
    assert (z * size - 0.5, x * size - 0.5) == pytest.approx((rows.mean(), columns.mean()), abs=0.5)
    assert level == -3.0


def test_labels_are_resized_by_the_nearest_pixel():
    labels = np.arange(16, dtype=np.uint16).reshape(4, 4)
    np.testing.assert_array_equal(apply_to_labels(labels, Augmentation(), 8), labels.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(apply_to_labels(labels, Augmentation(), 4), labels)


def test_a_wire_lies_where_hq_shows_it():
    """The brightest spots of LQ are the points of HQ: a point is one scatterer, not a cloud."""
    from datagen.make.pairs import Settings, make_imager, simulate_pair
    from datagen.sources.scene import Scene
    from ussim.probes import load_probe

    points = np.array([[0.3, 0.4, 0.0], [0.7, 0.6, 0.0]])
    scene = Scene(np.zeros((128, 128), np.uint8), density=np.zeros((128, 128), np.float32), points=points)
    settings = Settings(load_probe("L11-5v"), "cpu", 128, n_transmits=5)
    pair = simulate_pair(scene, make_imager(settings), 0)
    assert pair.n_scatterers == 2
    picture = scene.picture(40.0)
    for x, z, _ in points:
        near = np.s_[int(z * 128) - 6 : int(z * 128) + 7, int(x * 128) - 6 : int(x * 128) + 7]
        seen, shown = (np.unravel_index(np.argmax(image[near]), (13, 13)) for image in (pair.lq, picture))
        assert np.abs(np.subtract(seen, shown)).max() <= 1
