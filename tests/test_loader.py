"""Loading: pairs by index, fold and shard, in NumPy and in torch workers."""

import os
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


# --- passes and processes --------------------------------------------------------------------------------------------


@pytest.fixture
def sampler(path):
    """`ShardBatches` of the 24 pairs, by its options."""
    pytest.importorskip("torch")
    from datagen.store.torch_data import ShardBatches

    dataset = datagen.open_pairs(path, probe=PROBE).torch()
    return lambda *arguments, **options: ShardBatches(dataset, *arguments, **options)


def flat(batches):
    return [index for batch in batches for index in batch]


def test_each_pass_has_another_order_unasked(sampler):
    batches = sampler(4)
    first, second, third = (list(batches) for _ in range(3))
    assert first != second != third != first
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(24))
    batches.set_epoch(1)
    assert list(batches) == second
    assert list(sampler(4, shuffle=False)) == list(sampler(4, shuffle=False))


def test_a_pass_that_is_left_early_does_not_come_again(sampler):
    batches = sampler(4)
    begun = next(iter(batches))
    assert begun == next(iter(sampler(4)))
    assert begun != next(iter(batches))


@pytest.mark.parametrize("done", [0, 1, 5, 6])
def test_a_pass_goes_on_after_the_batches_that_were_done(sampler, done):
    whole, rest = sampler(4), sampler(4)
    whole.set_epoch(3)
    rest.set_epoch(3, done)
    assert len(rest) == 6 - done
    assert list(rest) == list(whole)[done:]
    assert len(rest) == 6  # the pass after it is whole
    assert list(rest) == list(whole)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 30])
def test_processes_share_an_epoch(sampler, size, drop_last):
    """None gets a pair of another, all have the same number of batches, and together they have every pair."""
    parts = [sampler(4, rank=rank, world_size=size, drop_last=drop_last) for rank in range(size)]
    found = [list(part) for part in parts]
    assert len({len(part) for part in parts}) == 1
    assert [len(batches) for batches in found] == [len(part) for part in parts]
    sets = [set(flat(batches)) for batches in found]
    if size <= 24:
        assert sum(map(len, sets)) == len(set().union(*sets))
    if not drop_last:
        assert set().union(*sets) == set(range(24))
    if size <= 5:  # of six shards, at most one at each cut is read by two
        shards = [{index // 4 for index in part} for part in sets]
        assert sum(map(len, shards)) <= 6 + size - 1
    again = [list(part) for part in parts]
    assert size > 6 or again != found


def test_accelerate_shares_out_the_batches_of_one_process(sampler):
    accelerate = pytest.importorskip("accelerate")
    parts = [
        accelerate.data_loader.BatchSamplerShard(sampler(4, world_size=1), num_processes=2, process_index=rank)
        for rank in range(2)
    ]
    for _ in range(2):
        one, other = (flat(part) for part in parts)
        assert len(one) == len(other) == 12
        assert sorted(one + other) == list(range(24))


@pytest.mark.parametrize(("rank", "size"), [(0, None), (None, 2), (2, 2), (-1, 2)])
def test_a_place_that_cannot_be_is_refused(sampler, rank, size):
    with pytest.raises(ValueError, match="0 <= rank < world_size"):
        sampler(4, rank=rank, world_size=size)


def test_two_gloo_processes_read_different_pairs(path, tmp_path):
    """Without a word from their script: through DataLoaders with a worker each, over two passes."""
    pytest.importorskip("torch")
    program = f"""
import sys
import torch, datagen
def main():
    rank = int(sys.argv[1])
    torch.distributed.init_process_group("gloo", init_method="file://{tmp_path}/meet", rank=rank, world_size=2)
    dataset = datagen.open_pairs({str(path)!r}, probe={PROBE!r}).torch(dtype="uint8")
    loader = torch.utils.data.DataLoader(dataset, batch_sampler=dataset.batches(4), num_workers=1)
    for _ in range(2):
        print(len(loader), *(hash(image.numpy().tobytes()) for _, lq in loader for image in lq), flush=True)
    torch.distributed.destroy_process_group()
main()
"""
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(rank)], stdout=subprocess.PIPE, text=True, env=environment)
        for rank in range(2)
    ]
    lines = [process.communicate(timeout=300)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    passes = [[line.split() for line in of_rank] for of_rank in lines]
    for one, other in zip(*passes, strict=True):
        assert one[0] == other[0] == "3"
        assert len(set(one[1:] + other[1:])) == 24
    assert passes[0][0] != passes[0][1]
