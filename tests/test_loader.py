"""Loading: pairs by index, fold and shard, in NumPy and in torch workers."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from datasets import PROBE, fast_recipe, write_stacks

import datagen
from datagen.make.build import build
from datagen.store.layout import StoreError

PROBES = (PROBE, "PA4-2/20")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """24 samples under two probes, four a shard."""
    folder = tmp_path_factory.mktemp("built")
    recipe = fast_recipe(write_stacks(folder / "stacks"), probes=PROBES, samples_per_shard=4)
    build(recipe, folder / "pairs.zarr")
    return folder / "pairs.zarr"


def test_a_pair_is_two_images_between_0_and_1(path):
    pairs = datagen.open_pairs(path, probe=PROBE)
    assert len(pairs) == 24
    for hq, lq in (pairs[0], pairs[-1]):
        assert hq.dtype == lq.dtype == np.float32
        assert hq.shape == lq.shape == pairs.shape == (16, 16)
        assert min(hq.min(), lq.min()) >= 0
        assert max(hq.max(), lq.max()) <= 1
    assert sum(1 for _ in pairs) == 24
    with pytest.raises(IndexError):
        pairs[24]


def test_several_probes_give_a_pair_each(path):
    both = datagen.open_pairs(path)
    assert len(both) == 48
    assert both.probes == PROBES
    one = datagen.open_pairs(path, probe="pa4-2/20")
    assert (both[7][1] == one[3][1]).all()
    assert both.samples[7] == one.samples[3]
    assert both.mask(7).shape == (16, 16)


def test_folds_part_the_subjects(path):
    pairs = datagen.open_pairs(path, probe=PROBE)
    parts = [pairs.fold(k) for k in range(pairs.n_folds)]
    assert sum(map(len, parts)) == len(pairs)
    for k, part in enumerate(parts):
        others = pairs.fold(k, complement=True)
        assert len(part) + len(others) == len(pairs)
        assert len(others.fold(k)) == 0
        assert len(part.fold(k)) == len(part)
        assert not {row["subject"] for row in part.samples} & {row["subject"] for row in others.samples}
    with pytest.raises(ValueError, match="expected 0 to"):
        pairs.fold(pairs.n_folds)


def test_reading_many_equals_reading_each(path):
    pairs = datagen.open_pairs(path)
    order = np.random.default_rng(0).permutation(len(pairs))[:20]
    hq, lq = pairs.read(order)
    for i, index in enumerate(order):
        expected = pairs[int(index)]
        assert np.allclose(hq[i] / 255, expected[0], atol=1e-6)
        assert np.allclose(lq[i] / 255, expected[1], atol=1e-6)
    assert sum(len(hq) for hq, _ in pairs.batches(7)) == len(pairs)


def test_a_slice_is_again_a_set_of_pairs(path):
    pairs = datagen.open_pairs(path, probe=PROBE)
    assert [row["id"] for row in pairs[3:5].samples] == [row["id"] for row in pairs.samples[3:5]]


def test_a_pickled_copy_reads_the_same(path):
    pairs = datagen.open_pairs(path, probe=PROBE)
    expected = pairs[3]
    again = pickle.loads(pickle.dumps(pairs))
    assert (again[3][1] == expected[1]).all()


def test_a_wrong_probe_or_place_is_said(path, tmp_path):
    with pytest.raises(StoreError, match=r"no probe 'L11-5v'.*P4-2v"):
        datagen.open_pairs(path, probe="L11-5v")
    with pytest.raises(StoreError, match="no store of pairs"):
        datagen.open_pairs(tmp_path)


def test_torch_is_not_imported_unless_asked_for():
    code = (
        "import sys, datagen, datagen.cli, datagen.make.build, datagen.store.loader; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'dask', 'distributed')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- torch -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [None, "fork", "spawn"])
def test_a_data_loader_gives_every_pair_once(path, start):
    torch = pytest.importorskip("torch")
    pairs = datagen.open_pairs(path, probe=PROBE)
    _ = pairs[0]  # the parent has read before its workers begin
    dataset = pairs.torch()
    workers = {} if start is None else {"num_workers": 2, "multiprocessing_context": start}
    loader = torch.utils.data.DataLoader(dataset, batch_sampler=dataset.batches(5, seed=1), **workers)
    batches = list(loader)
    assert [len(hq) for hq, _ in batches] == [5, 5, 5, 5, 4]
    hq, lq = (torch.cat(images) for images in zip(*batches, strict=True))
    assert hq.shape == (24, 1, 16, 16)
    assert hq.dtype == lq.dtype == torch.float32
    seen = sorted(image.tobytes() for image in (lq.numpy() * 255).round().astype(np.uint8))
    assert seen == sorted(image.tobytes() for image in pairs.read(range(24))[1])


def test_torch_can_leave_the_scaling_to_the_device(path):
    torch = pytest.importorskip("torch")
    dataset = datagen.open_pairs(path, probe=PROBE).torch(dtype="uint8")
    hq, lq = dataset[2]
    assert hq.dtype == lq.dtype == torch.uint8
    assert np.allclose(lq.numpy()[0] / 255, dataset.pairs[2][1], atol=1e-6)


def test_shuffling_keeps_to_few_shards_and_follows_the_seed(path):
    pytest.importorskip("torch")
    from datagen.store.torch_data import ShardBatches

    dataset = datagen.open_pairs(path, probe=PROBE).torch()

    def epoch(seed, number):
        batches = ShardBatches(dataset, 4, seed=seed, mixed=2)
        batches.set_epoch(number)
        assert len(batches) == 6
        return list(batches)

    assert epoch(0, 0) == epoch(0, 0) != epoch(0, 1)
    assert sorted(index for batch in epoch(0, 1) for index in batch) == list(range(24))
    assert all(len({index // 4 for index in batch}) <= 2 for batch in epoch(0, 0))
    for drop_last, count in ((True, 4), (False, 5)):
        batches = ShardBatches(dataset, 5, drop_last=drop_last)
        assert len(batches) == len(list(batches)) == count


def test_each_worker_has_shards_of_its_own(path):
    pytest.importorskip("torch")
    from datagen.store.torch_data import ShardBatches

    dataset = datagen.open_pairs(path, probe=PROBE).torch()
    batches = list(ShardBatches(dataset, 2, mixed=1, n_workers=2))
    assert sorted(index for batch in batches for index in batch) == list(range(24))
    shards = [{index // 4 for batch in batches[worker::2] for index in batch} for worker in (0, 1)]
    assert not shards[0] & shards[1]
