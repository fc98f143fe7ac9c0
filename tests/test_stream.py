"""Pairs made when they are asked for: the bytes of a build, a bounded cache, workers, and passes that go on."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from datasets import PROBE, fast_recipe, write_stacks

import datagen
from datagen.make import stream as streaming
from datagen.make.build import build
from datagen.make.shards import make_each
from datagen.make.stream import open_stream
from datagen.store.layout import StoreError
from ussim.errors import DataError

PROBES = (PROBE, "PA4-2/20")
DRAWN = {"randomize": {"speed_of_sound": [1500.0, 1580.0]}}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_stacks(tmp_path_factory.mktemp("stacks"), n_subjects=3, n_slices=2)


@pytest.fixture(scope="module")
def recipe(root):
    """12 samples under two probes, four a shard."""
    return fast_recipe(root, probes=PROBES, samples_per_shard=4)


@pytest.fixture(scope="module")
def stored(recipe, tmp_path_factory):
    path = tmp_path_factory.mktemp("built") / "pairs.zarr"
    build(recipe, path)
    return datagen.open_pairs(path)


@pytest.fixture
def pairs(recipe):
    return open_stream(recipe)


@pytest.fixture
def made(monkeypatch):
    """Ids of the samples that are made, in order."""
    seen = []

    def counting(samples, job):
        seen.extend((sample.id, job.recipe.probes[0].name) for sample in samples)
        return make_each(samples, job)

    monkeypatch.setattr(streaming, "make_each", counting)
    return seen


@pytest.mark.parametrize("more", [{}, {"augmentations": 1}, DRAWN, {"snr_db": 20.0, "attenuation_db_cm_mhz": 0.5}])
def test_a_pair_is_byte_for_byte_what_a_build_stores(root, tmp_path, more):
    recipe = fast_recipe(root, probes=PROBES, limit=4, **more)
    build(recipe, tmp_path / "pairs.zarr")
    stored, pairs = datagen.open_pairs(tmp_path / "pairs.zarr"), open_stream(recipe)
    assert len(pairs) == len(stored) == 8
    assert pairs.recipe_digest == stored.attributes["recipe_digest"]
    order = np.random.default_rng(0).permutation(len(pairs))
    for got, expected in zip(pairs.read(order), stored.read(order), strict=True):
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, expected)
    known = {"id", "subject", "fold", "seed", "probe"}
    assert [{k: row[k] for k in known} for row in pairs.samples] == [
        {k: row[k] for k in known} for row in stored.samples
    ]


def test_a_probe_alone_has_the_same_pairs(recipe, stored):
    pairs = open_stream(recipe, probe="pa4-2/20")
    assert pairs.probes == PROBES[1:]
    np.testing.assert_array_equal(pairs.read([3])[1], stored.read([7])[1])
    with pytest.raises(StoreError, match=r"recipe: no probe 'L11-5v' here; expected P4-2v, PA4-2/20"):
        open_stream(recipe, probe="L11-5v")


def test_folds_are_those_of_the_store(pairs, stored):
    for k in range(stored.n_folds):
        for complement in (False, True):
            ours, theirs = (each.fold(k, complement=complement) for each in (pairs, stored))
            assert [row["id"] for row in ours.samples] == [row["id"] for row in theirs.samples]
    with pytest.raises(ValueError, match="fold: expected 0 to"):
        pairs.fold(stored.n_folds)


def test_the_cache_keeps_the_pairs_asked_for_last_within_its_bytes(recipe, made):
    pairs = open_stream(recipe, probe=PROBE, cache_bytes=3 * 2 * 16 * 16)
    first = pairs.read([0, 1, 2, 1])
    assert len(made) == 3
    again = pairs.read([1, 0, 2])
    assert len(made) == 3
    np.testing.assert_array_equal(again[1][1], first[1][0])
    pairs.read([3])  # in place of 1, which was asked for before the others
    pairs.read([0, 2, 3])
    assert len(made) == 4
    pairs.read([1])
    assert len(made) == 5
    assert pairs._cached_bytes <= pairs.cache_bytes
    none = open_stream(recipe, probe=PROBE, cache_bytes=0)
    none.read([0])
    none.read([0])
    assert len(made) == 7
    with pytest.raises(ValueError, match="cache_bytes"):
        open_stream(recipe, cache_bytes=-1)


def test_a_batch_is_made_together_in_the_order_of_the_volumes(pairs, made):
    pairs.read([9, 0, 5, 4, 0])
    assert made == [(pairs.plan.samples[i].id, PROBES[p]) for i, p in ((0, 0), (2, 0), (2, 1), (4, 1))]


def test_a_pickled_copy_makes_the_same_and_brings_no_images(pairs, stored):
    pairs.read(range(len(pairs)))
    copy = pickle.dumps(pairs)
    again = pickle.loads(copy)
    assert not again._cache
    assert again._cached_bytes == 0
    np.testing.assert_array_equal(again.read([5])[1], stored.read([5])[1])


def test_a_sample_that_cannot_be_made_is_named(tmp_path):
    root = write_stacks(tmp_path / "stacks", n_subjects=2, n_slices=1)
    pairs = open_stream(fast_recipe(root))
    np.save(next(root.rglob("*.npy")), (np.arange(6400) % 250).reshape(1, 80, 80))  # since it was planned
    with pytest.raises(DataError, match=r"npy/.*: cannot be made: DataError: .*the file changed"):
        pairs.read(range(len(pairs)))


# --- torch -----------------------------------------------------------------------------------------------------------


def test_torch_is_imported_by_a_stream_alone():
    code = "import sys, datagen.make.stream, datagen; datagen.stream; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_tensor_is_the_stored_pair(recipe, stored):
    torch = pytest.importorskip("torch")
    dataset = datagen.stream(recipe, dtype="uint8")
    assert isinstance(dataset, torch.utils.data.Dataset)
    assert len(dataset) == len(stored) == 24
    for index in (0, 7, -1):
        hq, lq = dataset[index]
        assert hq.shape == lq.shape == (1, 16, 16)
        for tensor, image in zip((hq, lq), stored.read([index]), strict=True):
            assert tensor.numpy().tobytes() == image.tobytes()
    scaled = datagen.stream(recipe)[7]
    for tensor, image in zip(scaled, stored.torch()[7], strict=True):
        assert torch.equal(tensor, image)
    with pytest.raises(IndexError, match="pair 24 of 24"):
        dataset[24]
    with pytest.raises(ValueError, match="dtype"):
        datagen.stream(recipe, dtype="float16")
    assert len(dataset.fold(0)) + len(dataset.fold(0, complement=True)) == len(dataset)


def test_spawned_workers_make_every_pair_once(recipe, stored):
    torch = pytest.importorskip("torch")
    dataset = datagen.stream(recipe, dtype="uint8")
    batches = dataset.batches(5, seed=1, mixed=2, n_workers=2)
    loader = torch.utils.data.DataLoader(dataset, batch_sampler=batches, num_workers=2, multiprocessing_context="spawn")
    lq = torch.cat([lq for _, lq in loader]).numpy()
    assert sorted(image.tobytes() for image in lq) == sorted(image.tobytes() for image in stored.read(range(24))[1])


def test_workers_share_the_cores(monkeypatch):
    from ussim.engines.cpu import threads

    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "_share", 0)
    monkeypatch.setattr(threads, "_n_cores", lambda: 8)
    monkeypatch.setattr("numba.np.ufunc.parallel._is_initialized", False)  # Numba's own threads were not started
    threads.share_threads(3)
    assert threads.n_threads() == 2
    monkeypatch.setattr(threads, "_share", 0)
    threads.share_threads(100)
    assert threads.n_threads() == 1
    monkeypatch.setenv("NUMBA_NUM_THREADS", "4")  # what the user says holds
    monkeypatch.setattr(threads, "_share", 0)
    monkeypatch.setattr(threads, "_n_cores", lambda: 4)
    threads.share_threads(4)
    assert threads.n_threads() == 4


@pytest.fixture
def sampler(pairs):
    """Batches of the 24 pairs, by their options; nothing is made for them."""
    pytest.importorskip("torch")
    from datagen.store.torch_data import TorchStream

    return lambda **options: TorchStream(pairs).batches(5, **options)


def test_a_pass_goes_on_from_its_state(sampler):
    whole, stopped = sampler(), sampler()
    list(whole), list(stopped)
    expected, following = list(whole), list(whole)
    under_way = iter(stopped)
    for _ in range(2):
        next(under_way)
    state = pickle.loads(pickle.dumps(stopped.state_dict()))
    assert state["epoch"] == 1
    assert state["first_batch"] == 2
    again = sampler()
    again.load_state_dict(state)
    assert list(again) == expected[2:]
    assert list(again) == following
    again.load_state_dict(stopped.state_dict(n_batches_done=1))  # the loader drew one ahead
    assert list(again) == expected[1:]
    begun = iter(sampler())
    begun.load_state_dict(state)  # as torchdata's loader does
    assert list(begun) == expected[2:]


@pytest.mark.parametrize("other", [{"seed": 1}, {"mixed": 2}, {"drop_last": True}, {"rank": 0, "world_size": 2}])
def test_a_state_of_other_batches_is_refused(sampler, other):
    with pytest.raises(ValueError, match="state: expected batches drawn by"):
        sampler(**other).load_state_dict(sampler().state_dict())


def test_a_state_of_other_pairs_is_refused(recipe):
    pytest.importorskip("torch")
    one, other = datagen.stream(recipe), datagen.stream(recipe.model_copy(update={"seed": 7}))
    one.load_state_dict(one.state_dict())
    with pytest.raises(ValueError, match="the recipe or its files changed"):
        other.load_state_dict(one.state_dict())
