"""What a million samples need: memory that hardly grows, reads that do not, and a plan that a stopped build keeps."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import datagen
from datagen.identity import stable_hash
from datagen.make import manifest, shards
from datagen.make.build import build
from datagen.make.verify import verify
from datagen.plan import samples as planning
from datagen.plan.packed import BLOCK, Gathering
from datagen.plan.resolved import KINDS, digest
from datagen.store import layout, location, read
from datagen.store.location import LocalStorage, open_storage
from ussim.errors import ChangedError, DataError
from ussim.volumes.volume import VolumeRef

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import scale

SMALL, LARGE = 800, 3_200  # samples


@pytest.fixture
def fakes(monkeypatch):
    """Volumes that are not read, an engine that simulates nothing; calls are counted by the volume's name."""
    cuts = Counter()

    def cut(ref, cutting):
        cuts[ref.name] += 1
        return scale.cut_volume(ref, cutting)

    monkeypatch.setattr(planning, "cut_volume", cut)
    monkeypatch.setattr(shards, "scene_of", scale.scene_of)
    monkeypatch.setattr(shards, "simulate_pairs", scale.Fake().simulate)
    return cuts


def volumes(folder: Path, n_samples: int) -> Path:
    scale.write_volumes(folder / f"volumes{n_samples}", n_samples)
    return folder / f"volumes{n_samples}"


def peak_of(step) -> int:
    """Bytes that a step allocates at its peak."""
    tracemalloc.start()
    try:
        step()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_plan_takes_a_few_hundred_bytes_a_sample(fakes, tmp_path):
    recipes = [scale.recipe(volumes(tmp_path, n)).resolve("cpu") for n in (SMALL, LARGE)]
    planning.make_plan(recipes[0])  # what is imported and cached once
    small, large = (peak_of(lambda recipe=recipe: planning.make_plan(recipe)) for recipe in recipes)
    # 80 packed, 190 for the digests by which copies are found: a sample as an object alone takes 700.
    assert (large - small) / (LARGE - SMALL) < 400


def test_the_digest_of_a_plan_is_that_of_all_its_rows(fakes, tmp_path):
    plan = planning.make_plan(scale.recipe(volumes(tmp_path, 1000)).resolve("cpu"))
    rows = [sample.row(plan.recipe.size, plan.recipe.folds) for sample in plan.samples]
    assert plan.digest == digest({"recipe": plan.recipe.to_dict(), "samples": rows})
    assert len(plan.samples) == 1000 > 3 * BLOCK
    ids = [sample.id for sample in plan.samples]
    assert ids == sorted(ids)
    assert [sample.id for sample in plan.samples[250:260]] == ids[250:260]
    assert plan.samples[-1] == plan.samples[999]
    with pytest.raises(IndexError):
        plan.samples[1000]


def _samples(names: list[str], rng: np.random.Generator) -> dict[VolumeRef, list[planning.Sample]]:
    """Samples of some volumes, whose names run into each other."""
    found = {}
    for name in names:
        ref = VolumeRef("npy", name, name, ())
        found[ref] = [
            planning.Sample(
                f"npy/{name}{'/' if i % 2 else '-'}{i:02d}/{kind}", ref, "axial", i, kind, (0, 0, 1, 2), 0, i,
                (None, 0.1), "", str(rng.integers(2**60)),
            )
            for i in range(rng.integers(0, 9)) for kind in rng.permutation(KINDS)[: rng.integers(1, 3)].tolist()
        ]  # fmt: skip
    return found


def _expected(samples, limit, limits):
    """The choice, spelled out: one of each volume, then a second of each, ..., volumes and samples by their hashes."""

    def first(some, count):
        turn, ranked = Counter(), []
        for sample in sorted(some, key=lambda sample: (stable_hash(sample.id), sample.id)):
            volume = sample.ref.source, sample.ref.name
            ranked.append((turn[volume], stable_hash(*volume), sample.id, sample))
            turn[volume] += 1
        return [sample for *_, sample in sorted(ranked, key=lambda entry: entry[:3])[:count]]

    chosen = [sample for some in samples.values() for sample in some]
    for kind, count in limits.items():
        if count is not None:
            others = [sample for sample in chosen if sample.kind != kind]
            chosen = others + first([sample for sample in chosen if sample.kind == kind], count)
    return sorted(chosen if limit is None else first(chosen, limit), key=lambda sample: sample.id)


@pytest.mark.parametrize("limit", [None, 0, 1, 7, 1000])
@pytest.mark.parametrize("limits", [(None, None), (3, None), (0, 5), (4, 4)])
def test_samples_are_chosen_and_ordered_as_if_all_were_at_hand(limit, limits):
    rng = np.random.default_rng(0)
    samples = _samples(["a", "a-1", "a/b", "a/b-0", "b", "", "ab", "a-", "c/d", "c"], rng)
    by_kind = dict(zip(KINDS, limits, strict=True))
    gathering = Gathering(planning.Sample, KINDS, limit, by_kind)
    for ref, some in samples.items():
        gathering.add(ref, rng.permutation(np.array(some, dtype=object)).tolist())
    packed = gathering.packed()
    expected = _expected(samples, limit, by_kind)
    assert list(packed) == expected
    assert {packed.refs[i] for i in packed.used} == {sample.ref for sample in expected}


def test_a_store_is_written_checked_and_opened_a_shard_at_a_time(fakes, tmp_path, monkeypatch):
    monkeypatch.setattr(location, "_PART", 1 << 14)  # what is read of a file at a time: a MB, more than these tables
    stores, finished, verified = {}, {}, {}
    finish = layout.Content.table

    for n in (SMALL, LARGE):
        recipe = scale.recipe(volumes(tmp_path, n)).model_copy(update={"samples_per_shard": 32})
        build(recipe, tmp_path / f"{n}.zarr")
        stores[n] = storage = open_storage(tmp_path / f"{n}.zarr")
        n_shards = read.read_attributes(storage).n_shards

        def write_table(storage=storage, n_shards=n_shards):
            storage.write_parts("again.csv", finish(layout.Content(), read.read_records(storage, n_shards)))

        finished[n] = peak_of(write_table)
        assert storage.read("again.csv") == storage.read(layout.SAMPLES)
        storage.remove("again.csv")
        verified[n] = peak_of(
            # Zarr's groups hold themselves: what they leave behind is not held by the check.
            lambda storage=storage: verify(storage.url, on_shard=lambda *_: gc.collect() if _[0] % 5 == 0 else None)
        )
    table = len(stores[LARGE].read(layout.SAMPLES)) - len(stores[SMALL].read(layout.SAMPLES))
    # The table is 240 bytes a sample; what is held of each is its place in the index (5), of each shard a line of the seal.
    assert finished[LARGE] - finished[SMALL] < table / 8
    assert verified[LARGE] - verified[SMALL] < table / 8

    reads = {}
    kept = LocalStorage.read

    def counting(self, key):
        content = kept(self, key)
        reads.setdefault(self.url, []).append((key, len(content)))
        return content

    monkeypatch.setattr(LocalStorage, "read", counting)
    for n, storage in stores.items():
        pairs = datagen.open_pairs(storage.url)
        assert len(pairs) == n
        pairs.row(n // 2)
        keys = [key for key, _ in reads[storage.url]]
        assert len(keys) == 4  # zarr.json twice, the index, one record
        assert layout.SAMPLES not in keys
        assert sum(size for key, size in reads[storage.url] if key == layout.INDEX) < 5 * n + 200


def test_a_row_is_that_of_the_table(fakes, tmp_path):
    recipe = scale.recipe(volumes(tmp_path, 600)).model_copy(update={"probes": ("P4-2v", "L11-5v")})
    build(recipe, tmp_path / "pairs.zarr")
    pairs = datagen.open_pairs(tmp_path / "pairs.zarr")
    rows = [pairs.row(i) for i in (0, 1, 7, 600, -1)]
    assert rows == [pairs.samples[i] for i in (0, 1, 7, 600, -1)]
    assert list(rows[0]) == list(pairs.samples[0])
    with pytest.raises(IndexError):
        pairs.row(1200)
    open_storage(tmp_path / "pairs.zarr").remove(layout.record_key(0))
    with pytest.raises(DataError, match=r"shards/000000.json is missing"):
        datagen.open_pairs(tmp_path / "pairs.zarr").row(0)


def test_a_store_without_an_index_opens_all_the_same(fakes, tmp_path):
    build(scale.recipe(volumes(tmp_path, 600)), tmp_path / "pairs.zarr")
    before = datagen.open_pairs(tmp_path / "pairs.zarr")
    index = tmp_path / "pairs.zarr" / layout.INDEX
    for damage in (lambda: index.write_bytes(index.read_bytes()[:-9]), lambda: index.write_bytes(b""), index.unlink):
        damage()
        after = datagen.open_pairs(tmp_path / "pairs.zarr")
        np.testing.assert_array_equal(after.items, before.items)
        np.testing.assert_array_equal(after.folds, before.folds)


# --- the plan that a store keeps -------------------------------------------------------------------------------------


class Stop(BaseException):
    """Ends a build as a kill does."""


def stopped_build(root: Path, store: Path, monkeypatch) -> None:
    """A build that is stopped when a few of its shards are made."""
    made = []

    def stopping(scenes, imager, seeds):
        made.extend(seeds)
        if len(made) > 100:
            raise Stop
        return simulate(scenes, imager, seeds)

    simulate = shards.simulate_pairs
    with monkeypatch.context() as patch:
        patch.setattr(shards, "simulate_pairs", stopping)
        with pytest.raises(Stop):
            build(scale.recipe(root), store)


def test_a_stopped_build_does_not_read_its_volumes_again(fakes, tmp_path, monkeypatch):
    root = volumes(tmp_path, 1000)
    whole = build(scale.recipe(root), tmp_path / "whole.zarr")
    stopped_build(root, tmp_path / "pairs.zarr", monkeypatch)
    kept = (tmp_path / "pairs.zarr" / layout.PLAN).read_bytes()
    assert str(tmp_path).encode() not in kept
    assert b"subject000000.npy" not in kept
    fakes.clear()
    summary = build(scale.recipe(root), tmp_path / "pairs.zarr", resume=True)
    assert not fakes
    assert 0 < summary.n_built < 1000
    assert summary.digest == whole.digest
    assert (summary.folds, summary.n_subjects, summary.n_volumes, summary.skipped, summary.unreadable, summary.notes) == (
        whole.folds, whole.n_subjects, whole.n_volumes, whole.skipped, whole.unreadable, whole.notes
    )  # fmt: skip


@pytest.mark.parametrize("change", ["file", "more", "plan", "no plan", "versions"])
def test_a_plan_of_other_files_does_not_count(fakes, tmp_path, monkeypatch, change):
    root, store = volumes(tmp_path, 1000), tmp_path / "pairs.zarr"
    stopped_build(root, store, monkeypatch)
    fakes.clear()
    if change == "file":
        np.save(root / "subject000001.npy", np.full((2, 8, 8), 77, np.uint16))
    elif change == "more":
        np.save(root / "subject000077.npy", np.full((2, 8, 8), 77, np.uint16))
    elif change == "plan":
        content = bytearray((store / layout.PLAN).read_bytes())
        content[-20] ^= 1
        (store / layout.PLAN).write_bytes(content)
    elif change == "no plan":
        (store / layout.PLAN).unlink()
    else:
        monkeypatch.setattr(manifest, "versions", lambda: {"numpy": "0"})
    if change == "more":
        with pytest.raises(ChangedError, match="some came or went"):
            build(scale.recipe(root), store, resume=True)
    else:
        build(scale.recipe(root), store, resume=True)
    assert set(fakes.values()) == {1}
    assert len(fakes) == 5 + (change == "more")


def test_shards_found_damaged_are_as_if_never_made(fakes, tmp_path, monkeypatch):
    """A resumed build that repairs a finished store is itself stopped: what it had not come to is not taken for whole."""
    root, store = volumes(tmp_path, 600), tmp_path / "pairs.zarr"
    whole = build(scale.recipe(root), store)
    for index in (1, 30):  # a byte, the size is the same
        path = store / f"hq/c/{index}/0/0"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    def stopping(scenes, imager, seeds):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(shards, "simulate_pairs", stopping)
        with pytest.raises(Stop):
            build(scale.recipe(root), store, resume=True)
    assert build(scale.recipe(root), store, resume=True).digest == whole.digest
    assert verify(store).faults == ()
