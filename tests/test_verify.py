"""Verification: a store as built passes, and whatever is changed in it is found and named."""

import json
import shutil

import numpy as np
import pytest
from datasets import PROBE, fast_recipe, write_stacks

from datagen.make.build import build
from datagen.make.verify import verify
from datagen.store import write
from datagen.store.layout import StoreError
from datagen.store.location import open_storage
from datagen.store.read import read_attributes
from ussim.engines.cpu.native import shipped
from ussim.errors import DataError, ExistsError


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The stacks and a store of five samples, two a shard."""
    folder = tmp_path_factory.mktemp("built")
    root = write_stacks(folder / "stacks")
    build(fast_recipe(root, limit=5, samples_per_shard=2), folder / "pairs.zarr")
    return root, folder / "pairs.zarr"


@pytest.fixture
def copy(built, tmp_path):
    return shutil.copytree(built[1], tmp_path / "pairs.zarr")


def test_a_store_as_built_passes(built):
    root, path = built
    report = verify(path, resimulate=3, root=str(root), seed=0)
    assert (report.faults, report.notes) == ((), ())
    assert (report.n_samples, report.n_resimulated) == (5, 3)


def test_the_kernels_are_recorded_and_other_ones_noted(built, copy, monkeypatch):
    root, _ = built
    recorded = read_attributes(open_storage(copy)).versions
    assert recorded["kernels"] == shipped.identity()
    assert "numba" in recorded
    monkeypatch.setattr(shipped, "identity", lambda: "bitcode of tomorrow")
    report = verify(copy, resimulate=1, root=str(root), seed=0)
    assert report.faults == ()
    assert report.notes == (f"made by other kernels ({recorded['kernels']}; here bitcode of tomorrow)",)


def test_a_store_that_names_no_kernels_opens_passes_and_is_resumed(built, tmp_path, monkeypatch):
    """As those made before the kernels were shipped."""
    root, path = built
    recipe = fast_recipe(root, limit=5, samples_per_shard=2)
    with monkeypatch.context() as patch:
        patch.setattr(write, "provenance", lambda engine: write.versions())
        build(recipe, tmp_path / "old.zarr")
    assert "kernels" not in read_attributes(open_storage(tmp_path / "old.zarr")).versions
    (tmp_path / "old.zarr" / "build" / "shards" / "000001.json").unlink()
    build(recipe, tmp_path / "old.zarr", resume=True)
    report = verify(tmp_path / "old.zarr", resimulate=2, root=str(root), seed=0)
    assert (report.faults, report.notes, report.digest) == ((), (), verify(path).digest)


def test_any_flipped_byte_of_a_shard_is_found(copy):
    file = copy / f"lq/{PROBE}/c/1/0/0"
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    for position in [0, len(content) - 1, *rng.integers(0, len(content), 12)]:
        damaged = bytearray(content)
        damaged[position] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        faults = verify(copy).faults
        assert faults, position
        assert all(f"lq/{PROBE}" in fault and "npy/" in fault for fault in faults), faults  # the array and the sample
    file.write_bytes(content)
    assert verify(copy).faults == ()


def test_an_exchanged_pair_of_shards_is_found(copy):
    one, two = (copy / f"hq/c/{i}/0/0" for i in (0, 1))
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    assert len(verify(copy).faults) == 4


@pytest.mark.parametrize(
    ("file", "word"),
    [
        ("samples.csv", "samples.csv: line"),
        (f"mask/{PROBE}/c/0/0", ""),
        ("build/shards/000001.json", "shard 1"),
        (f"lq/{PROBE}/c/2/0/0", "missing"),
        ("hq/zarr.json", ""),
    ],
)
def test_what_is_lost_or_cut_is_found(copy, file, word):
    if word == "missing":
        (copy / file).unlink()
    else:
        content = (copy / file).read_bytes()
        (copy / file).write_bytes(content[: len(content) // 2])
    faults = verify(copy).faults
    assert faults
    assert word in faults[0]


def test_a_changed_cell_of_the_table_is_found(copy):
    table = (copy / "samples.csv").read_text()
    (copy / "samples.csv").write_text(table.replace(",full,", ",patch,", 1))
    assert "line" in verify(copy).faults[0]


def test_a_store_simulated_from_other_data_is_found(built, tmp_path):
    root, path = built
    other = shutil.copytree(root, tmp_path / "stacks")
    for stack in other.rglob("*.npy"):
        np.save(stack, np.load(stack)[:, ::-1])
    faults = verify(path, resimulate=1, root=str(other), seed=0).faults
    assert "the file changed" in faults[0]


def _flips(content, rng, count=6):
    for position in rng.integers(0, len(content), count):
        damaged = bytearray(content)
        damaged[position] ^= 1 << rng.integers(8)
        yield bytes(damaged)


COVERED = (
    "zarr.json",
    "samples.csv",
    "hq/zarr.json",
    "lq/zarr.json",
    "mask/zarr.json",
    f"lq/{PROBE}/zarr.json",
    f"mask/{PROBE}/zarr.json",
    f"mask/{PROBE}/c/0/0",
    "build/shards/000001.json",
    "build/files.json",
)


@pytest.mark.parametrize("file", COVERED)
def test_any_flipped_byte_of_any_file_is_found_and_the_file_is_named(copy, file):
    content = (copy / file).read_bytes()
    for damaged in _flips(content, np.random.default_rng(1)):
        (copy / file).write_bytes(damaged)
        try:
            faults = verify(copy).faults
        except StoreError as error:  # what the store says of itself cannot be read
            faults = (str(error),)
        assert any(file in fault for fault in faults), faults


@pytest.mark.parametrize("file", COVERED)
def test_resume_repairs_what_can_be_made_again(built, copy, file):
    root, whole = built
    digest = verify(whole).digest
    rng = np.random.default_rng(2)
    for damaged in (b"", *_flips((copy / file).read_bytes(), rng, 2)):
        (copy / file).write_bytes(damaged)
        build(fast_recipe(root, limit=5, samples_per_shard=2), copy, resume=True)
        report = verify(copy)
        assert (report.faults, report.digest) == ((), digest)


@pytest.mark.parametrize(
    ("file", "path", "value"),
    [
        ("zarr.json", ("attributes", "licence"), "public domain"),
        ("zarr.json", ("attributes", "recipe", "seed"), 5),
        ("zarr.json", ("attributes", "versions", "numpy"), "9.9"),
        ("lq/zarr.json", ("attributes",), {"made": "elsewhere"}),
        ("mask/zarr.json", ("attributes",), {"made": "elsewhere"}),
    ],
)
def test_a_changed_word_of_the_metadata_is_found(copy, file, path, value):
    document = json.loads((copy / file).read_text())
    part = document
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    (copy / file).write_text(json.dumps(document, indent=2))
    assert f"{file}: is not the file that was written" in verify(copy).faults


def test_a_store_without_a_seal_opens_and_is_checked_by_what_it_has(built, copy):
    (copy / "build" / "files.json").unlink()
    document = json.loads((copy / "zarr.json").read_text())
    for name in ("files_digest", "whole_digest"):
        del document["attributes"][name]
    (copy / "zarr.json").write_text(json.dumps(document))
    for record in (copy / "build" / "shards").iterdir():
        written = json.loads(record.read_text())
        del written["recipe_digest"]
        record.write_text(json.dumps(written))
    assert verify(copy).faults == ()
    assert build(fast_recipe(built[0], limit=5, samples_per_shard=2), copy, resume=True).n_built == 0
    (copy / "hq/c/0/0/0").write_bytes(b"")
    assert verify(copy).faults


def test_verify_goes_on_after_a_file_that_cannot_be_read(copy):
    for name in ("hq/c/0/0/0", f"lq/{PROBE}/c/2/0/0", "samples.csv"):
        (copy / name).unlink()
        (copy / name).symlink_to(copy / name)  # opening it is an error for whoever asks
    faults = "\n".join(verify(copy).faults)
    assert all(name in faults for name in ("hq/c/0/0/0", f"lq/{PROBE}/c/2/0/0", "samples.csv"))


def test_samples_of_another_recipe_are_found_and_made_again(built, copy, tmp_path):
    root, whole = built
    build(fast_recipe(root, limit=5, samples_per_shard=2, seed=7), tmp_path / "other.zarr")
    for name in ("hq/c/1/0/0", f"lq/{PROBE}/c/1/0/0", "build/shards/000001.json"):
        shutil.copy(tmp_path / "other.zarr" / name, copy / name)
    faults = verify(copy).faults
    assert "shard 1: written by a build of another recipe" in faults
    assert build(fast_recipe(root, limit=5, samples_per_shard=2), copy, resume=True).digest == verify(whole).digest
    assert verify(copy).faults == ()


def test_overwriting_a_store_that_a_build_is_writing_is_refused_before_anything_is_deleted(built, copy):
    recipe = fast_recipe(built[0], limit=5, samples_per_shard=2, seed=3)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with open_storage(copy).exclusively(), pytest.raises(DataError, match="another build is writing"):
        build(recipe, copy, overwrite=True)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    build(recipe, copy, overwrite=True)
    assert verify(copy).faults == ()


def test_a_store_that_cannot_say_what_it_is_can_be_overwritten(built, copy):
    (copy / "zarr.json").write_text("{")
    recipe = fast_recipe(built[0], limit=5, samples_per_shard=2)
    with pytest.raises(ExistsError, match="damaged"):
        build(recipe, copy)
    build(recipe, copy, overwrite=True)
    assert verify(copy).faults == ()


def test_the_store_is_no_data_of_the_folder_it_lies_in(tmp_path):
    from datagen.sources import get_source

    root = write_stacks(tmp_path / "stacks")
    recipe = fast_recipe(root, limit=2)
    build(recipe, root / "pairs.zarr")
    (root / "pairs.zarr" / "preview").mkdir()
    np.save(root / "pairs.zarr" / "preview" / "picture.npy", np.ones((64, 64)))
    assert not any("pairs.zarr" in path for ref in get_source("npy").find(root) for path in ref.paths)
    assert build(recipe, root / "pairs.zarr", resume=True).n_built == 0
