"""Verification: a store as built passes, and whatever is changed in it is found and named."""

import shutil

import numpy as np
import pytest
from datasets import PROBE, fast_recipe, write_stacks

from datagen.make.build import build
from datagen.make.verify import verify


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
