"""Formats of a dataset: new stores by the rules of today, old ones by those that they were begun with."""

import dataclasses
import shutil

import numpy as np
import pytest
from datasets import fast_recipe, write_stacks

import ussim
from datagen.make import build as pipeline
from datagen.make.build import build
from datagen.make.pairs import Settings, make_imager, simulate_pair
from datagen.make.verify import TOLERANCE, verify
from datagen.plan.formats import FORMAT, rules_of
from datagen.plan.recipe import Recipe
from datagen.plan.samples import image_of, make_plan
from datagen.store import read
from datagen.store.location import open_storage

# The first two rows of what the version before formats made of these settings.
FIRST = {
    "L11-5v": [[76, 127, 34, 0, 80, 0, 0, 64, 0, 100], [130, 107, 82, 57, 140, 61, 89, 93, 123, 203]],
    "P4-2v": [[143, 18, 107, 113, 139, 189, 77, 122, 9, 105], [102, 175, 107, 241, 195, 145, 174, 188, 221, 171]],
}


def settings(name, **changes):
    return Settings(
        probe=ussim.load_probe(name), engine="cpu", size=10, n_transmits=1, mean_distance_wavelengths=6.0, **changes
    )


@pytest.mark.parametrize("name", FIRST)
def test_the_first_format_makes_what_it_made(name):
    imager = make_imager(settings(name))
    lq = simulate_pair(np.full((10, 10), 220, np.uint8), imager, 5).lq
    assert np.abs(lq[:2].astype(int) - FIRST[name]).max() <= TOLERANCE
    assert imager.acquisition.n_subelements == "must"


@pytest.mark.parametrize("name", FIRST)
def test_formats_differ(name):
    old, new = (make_imager(settings(name, format=number)) for number in (1, FORMAT))
    hq = np.full((10, 10), 220, np.uint8)
    assert (simulate_pair(hq, old, 5).lq != simulate_pair(hq, new, 5).lq).any()
    assert (new.mask() >= old.mask()).all()


# Of the version before formats: samples, digest of the plan (recipe, names, boxes, pixel sizes, digests of files), mean and
# standard deviation of the HQ images.
REAL = {
    "demo": (None, 1, 49, "b2876d9b8d47", 111.951, 53.234),
    "nifti": ("mri_nifti", 16, 59, "d66821ab9efc", 126.973, 62.552),
    "npy": ("mri_npy", 1, 20, "7bb8a0f29471", 84.335, 51.591),
    "dicom": ("mri_dicom", 4, 15, "611170500d24", 73.881, 52.39),
}


@pytest.mark.parametrize("source", REAL)
def test_images_of_real_volumes_stay_what_they_were(source, request, monkeypatch):
    folder, every, count, digest, mean, deviation = REAL[source]
    monkeypatch.delenv("DATAGEN_SALT", raising=False)
    root = request.getfixturevalue("shared") / "data" / folder if folder else None
    plan = make_plan(Recipe(source=source, root=root, probes="P4-2v", size=64, every=every).resolve("cpu", 1))
    assert len(plan.samples) == count
    assert plan.digest[:12] == digest
    images = np.stack([image_of(sample, plan.recipe.cutting) for sample in plan.samples]).astype(float)
    # Rounded to whole grey levels, which a last digit may turn: far less than one level in the mean.
    assert images.mean() == pytest.approx(mean, abs=0.01)
    assert images.std(axis=(1, 2)).mean() == pytest.approx(deviation, abs=0.01)


@pytest.fixture
def old_store(tmp_path, monkeypatch):
    """(folder of the stacks, a finished store of format 1)."""
    root = write_stacks(tmp_path / "stacks")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "FORMAT", 1)
        build(fast_recipe(root, limit=4, samples_per_shard=2), tmp_path / "old.zarr")
    return root, tmp_path / "old.zarr"


def test_an_old_store_keeps_its_format(old_store, tmp_path):
    root, path = old_store
    attributes = read.read_document(open_storage(path))
    assert "format" not in attributes["recipe"]  # as it was written then
    report = verify(path, resimulate=4, root=str(root), seed=0)
    assert (report.faults, report.notes, report.n_resimulated) == ((), (), 4)

    cut = shutil.copytree(path, tmp_path / "cut.zarr")
    for shard in (cut / "lq").rglob("1"):
        shutil.rmtree(shard)
    summary = build(fast_recipe(root, limit=4, samples_per_shard=2), cut, resume=True)
    assert summary.n_built == 2
    assert summary.digest == attributes["digest"]

    new = build(fast_recipe(root, limit=4, samples_per_shard=2), path, overwrite=True)
    assert new.digest != attributes["digest"]
    assert read.read_attributes(open_storage(path)).recipe.format == FORMAT


def test_every_format_has_rules_and_others_are_refused():
    assert [rules_of(number) for number in range(1, FORMAT + 1)]
    with pytest.raises(ValueError, match=r"format: expected one of 1, 2, 3, got 99: a store of a newer version"):
        rules_of(99)
    assert dataclasses.replace(settings("P4-2v"), format=FORMAT).format == FORMAT
