"""Builds: the same content however they are run, stopped and resumed; what is set aside; what is refused."""

import errno
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from datasets import PROBE, fast_recipe, write_stacks

import datagen
import ussim
from datagen.make import shards
from datagen.make.build import ChangedError, ExistsError, build
from datagen.make.cluster import Cluster, Workers
from datagen.make.progress import Watcher
from datagen.plan.samples import make_plan
from datagen.store import read
from datagen.store.location import open_storage
from ussim.errors import DataError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_stacks(tmp_path_factory.mktemp("stacks"))


@pytest.fixture(scope="module")
def built(root, tmp_path_factory):
    """A finished store and its summary."""
    path = tmp_path_factory.mktemp("built") / "pairs.zarr"
    return path, build(fast_recipe(root), path)


def test_a_build_holds_what_its_summary_says(built):
    path, summary = built
    pairs = datagen.open_pairs(path)
    assert len(pairs) == summary.n_samples == 24  # 3 subjects, 4 slices, each whole and as a patch
    assert summary.set_aside == ()
    hq, lq = pairs[0]
    assert hq.shape == lq.shape == (16, 16)
    assert lq.max() == 1.0  # 0 dB is the brightest pixel
    assert len({row["seed"] for row in pairs.samples}) == 24
    attributes = read.read_document(open_storage(path))
    assert attributes["recipe"]["engine"] == "cpu"
    assert {"source", "licence", "citation", "versions", "recipe_digest"} <= attributes.keys()


def test_no_time_and_no_host_is_covered_by_the_digest(built):
    path, summary = built
    text = (path / "samples.csv").read_text() + (path / "zarr.json").read_text()
    assert os.uname().nodename not in text
    assert str(path.parent) not in text
    assert os.uname().nodename in (path / "build/log.jsonl").read_text()
    assert summary.digest == read.read_document(open_storage(path))["digest"]


@pytest.mark.parametrize("samples_per_shard", [5, 64])
def test_the_shards_do_not_shape_the_content(root, built, tmp_path, samples_per_shard):
    summary = build(fast_recipe(root, samples_per_shard=samples_per_shard), tmp_path / "pairs.zarr")
    assert summary.digest == built[1].digest


def test_threads_make_the_same_content(root, built, tmp_path):
    summary = build(fast_recipe(root), tmp_path / "pairs.zarr", workers=2, scheduler="threads")
    assert summary.digest == built[1].digest


def test_another_place_and_a_url_make_the_same_content(built, tmp_path):
    elsewhere = write_stacks(tmp_path / "elsewhere")
    summary = build(fast_recipe(elsewhere), "memory://bucket/pairs.zarr")
    assert summary.digest == built[1].digest
    assert len(datagen.open_pairs("memory://bucket/pairs.zarr")) == 24
    open_storage("memory://bucket/pairs.zarr").delete()


def test_a_stopped_build_goes_on(root, built, tmp_path, monkeypatch):
    class Stop(BaseException):
        pass

    def stop_at(count):
        simulated = []

        def stopping(hqs, imager, seeds):
            simulated.extend(seeds)
            if len(simulated) > count:
                raise Stop
            return simulate(hqs, imager, seeds)

        return stopping

    simulate = shards.simulate_pairs
    recipe = fast_recipe(root, samples_per_shard=4)
    for count in (6, 9):
        monkeypatch.setattr(shards, "simulate_pairs", stop_at(count))
        with pytest.raises(Stop):
            build(recipe, tmp_path / "pairs.zarr", resume=True)
        with pytest.raises(DataError, match="unfinished"):
            datagen.open_pairs(tmp_path / "pairs.zarr")
    monkeypatch.setattr(shards, "simulate_pairs", simulate)
    summary = build(recipe, tmp_path / "pairs.zarr", resume=True)
    assert summary.n_built == 24 - 4 - 8  # whole shards of the two runs before are kept
    assert summary.digest == built[1].digest


@pytest.mark.parametrize("stage", range(6))
def test_a_build_stopped_at_any_write_goes_on(root, built, tmp_path, monkeypatch, stage):
    """Killed before the n-th file is in place: creation, a shard's file, its record, the table, the end."""
    from datagen.store.location import LocalStorage

    recipe = fast_recipe(root, samples_per_shard=12)
    write, written = LocalStorage.write, []

    def failing(self, key, content):
        if len(written) == (0, 3, 8, 10, 13, 14)[stage]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(key)
        write(self, key, content)

    monkeypatch.setattr(LocalStorage, "write", failing)
    with pytest.raises((DataError, OSError), match=r"(?i)no space left"):
        build(recipe, tmp_path / "pairs.zarr")
    monkeypatch.setattr(LocalStorage, "write", write)
    assert build(recipe, tmp_path / "pairs.zarr", resume=True).digest == built[1].digest, written


@pytest.mark.parametrize("damage", ["shard", "record", "table"])
def test_resuming_mends_a_finished_store(root, tmp_path, built, damage):
    recipe, path = fast_recipe(root, samples_per_shard=8), tmp_path / "pairs.zarr"
    build(recipe, path)
    assert build(recipe, path, resume=True).n_built == 0
    victim = {"shard": f"lq/{PROBE}/c/1/0/0", "record": "build/shards/000001.json", "table": "samples.csv"}[damage]
    content = (path / victim).read_bytes()
    (path / victim).write_bytes(content[: len(content) // 2])
    summary = build(recipe, path, resume=True)
    assert summary.digest == built[1].digest
    assert (path / victim).read_bytes() == content
    assert summary.n_built == (0 if damage == "table" else 8)


def test_another_recipe_engine_or_source_is_not_resumed(root, tmp_path):
    path = tmp_path / "pairs.zarr"
    build(fast_recipe(root, limit=2), path)
    with pytest.raises(ChangedError, match="seed 0 -> 1"):
        build(fast_recipe(root, limit=2, seed=1), path, resume=True)
    with pytest.raises(ChangedError, match="engine"):
        build(fast_recipe(root, limit=2, engine="reference"), path, resume=True)
    other = write_stacks(tmp_path / "other")
    for stack in other.rglob("*.npy"):
        np.save(stack, np.load(stack) // 2)
    with pytest.raises(ChangedError, match="files of the source changed"):
        build(fast_recipe(other, limit=2), path, resume=True)
    assert ChangedError.exit_code == 5


def test_what_is_there_is_not_touched_unasked(root, tmp_path):
    path = tmp_path / "pairs.zarr"
    build(fast_recipe(root, limit=1), path)
    with pytest.raises(ExistsError, match=r"--resume.*--overwrite"):
        build(fast_recipe(root, limit=1), path)
    with pytest.raises(ExistsError, match="exclude each other"):
        build(fast_recipe(root, limit=1), path, resume=True, overwrite=True)
    assert build(fast_recipe(root, limit=2), path, overwrite=True).n_samples == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    for how in ({"overwrite": True}, {"resume": True}, {}):
        with pytest.raises(ExistsError, match="left alone"):
            build(fast_recipe(root, limit=1), tmp_path / "mine", **how)
    assert (tmp_path / "mine/thesis.txt").exists()


def test_a_failing_sample_is_tried_again_then_set_aside(root, tmp_path, monkeypatch):
    plan = make_plan(fast_recipe(root, limit=6).resolve("cpu"))
    fatal, flaky = (shards.probe_seed(sample.seed, PROBE) for sample in plan.samples[1:3])
    simulate, tries = shards.simulate_pairs, []

    def failing(hqs, imager, seeds):
        (seed,) = seeds
        tries.append(seed)
        if seed == fatal or (seed == flaky and tries.count(seed) == 1):
            raise RuntimeError("broken\nsample")
        return simulate(hqs, imager, seeds)

    monkeypatch.setattr(shards, "simulate_pairs", failing)
    recipe, path = fast_recipe(root, limit=6), tmp_path / "pairs.zarr"
    summary = build(recipe, path)
    assert summary.set_aside == ((plan.samples[1].id, "RuntimeError: broken sample"),)
    assert tries.count(fatal) == shards.ATTEMPTS
    pairs = datagen.open_pairs(path)
    assert [row["id"] for row in pairs.samples] == [sample.id for sample in plan.samples if sample != plan.samples[1]]
    monkeypatch.setattr(shards, "simulate_pairs", simulate)
    assert build(recipe, path, resume=True).set_aside == ()
    assert len(datagen.open_pairs(path)) == 6


class Together:
    """Samples are made in batches, as on a card; `fail` (seeds of a call) may raise."""

    def __init__(self, monkeypatch, fail=lambda seeds: None):
        self.simulate, self.fail, self.calls = shards.simulate_pairs, fail, []
        monkeypatch.setattr(shards, "on_device", lambda engine: True)
        monkeypatch.setattr(shards, "simulate_pairs", self)

    def __call__(self, hqs, imager, seeds):
        self.calls.append(len(seeds))
        self.fail(seeds)
        return self.simulate(hqs, imager, seeds)


def test_samples_made_together_make_the_same_content(root, built, tmp_path, monkeypatch):
    seen = set()

    class Seer(Watcher):
        def progress(self, done, set_aside):
            seen.add(done)

    together = Together(monkeypatch)
    summary = build(fast_recipe(root, samples_per_shard=20), tmp_path / "pairs.zarr", watcher=Seer())
    assert together.calls == [shards.BATCH, 4, 4]
    assert summary.digest == built[1].digest
    assert seen == set(range(1, 25))
    together.calls.clear()
    drawn = fast_recipe(root, limit=2, samples_per_shard=2, randomize={"f_number": (1, 2)})
    assert build(drawn, tmp_path / "drawn.zarr").n_samples == 2
    assert together.calls == [1, 1]  # each with settings of its own


def test_a_sample_that_fails_among_others_is_set_aside_alone(root, tmp_path, monkeypatch):
    plan = make_plan(fast_recipe(root, limit=6).resolve("cpu"))
    fatal = shards.probe_seed(plan.samples[1].seed, PROBE)
    alone = build(fast_recipe(root, limit=6), tmp_path / "alone.zarr")

    def fail(seeds):
        if fatal in seeds:
            raise RuntimeError("broken")

    together = Together(monkeypatch, fail)
    recipe, path = fast_recipe(root, limit=6, samples_per_shard=6), tmp_path / "pairs.zarr"
    assert build(recipe, path).set_aside == ((plan.samples[1].id, "RuntimeError: broken"),)
    assert together.calls == [6, 1, *[1] * shards.ATTEMPTS, 1, 1, 1, 1]
    together.fail = lambda seeds: None
    assert build(recipe, path, resume=True).digest == alone.digest


def test_too_little_memory_for_a_batch_is_no_failure_of_its_samples(root, tmp_path, monkeypatch):
    alone = build(fast_recipe(root, limit=4), tmp_path / "alone.zarr")

    def fail(seeds):
        if len(seeds) > 1:
            raise ussim.EngineError("out of memory")

    together = Together(monkeypatch, fail)
    summary = build(fast_recipe(root, limit=4, samples_per_shard=4), tmp_path / "pairs.zarr")
    assert (summary.set_aside, summary.digest) == ((), alone.digest)
    assert together.calls == [4, 1, 1, 1, 1]

    def lose_the_card(seeds):
        raise ussim.EngineError("no device")

    together.fail = lose_the_card
    with pytest.raises(ussim.EngineError, match="no device"):
        build(fast_recipe(root, limit=4, samples_per_shard=4), tmp_path / "lost.zarr")
    assert together.calls[5:] == [4, 1]


def test_a_build_in_which_everything_fails_stops_early(root, tmp_path, monkeypatch):
    def failing(hqs, imager, seeds):
        raise RuntimeError("broken")

    monkeypatch.setattr(shards, "simulate_pairs", failing)
    with pytest.raises(DataError, match="all of the first 16 samples failed"):
        build(fast_recipe(root), tmp_path / "pairs.zarr")
    with pytest.raises(DataError, match="unfinished"):
        datagen.open_pairs(tmp_path / "pairs.zarr")


def _fails_on(monkeypatch, seeds_of_failures):
    """Simulation fails for the samples of some seeds."""
    simulate = shards.simulate_pairs

    def failing(hqs, imager, seeds):
        if set(seeds) & seeds_of_failures:
            raise RuntimeError("broken")
        return simulate(hqs, imager, seeds)

    monkeypatch.setattr(shards, "simulate_pairs", failing)


@pytest.mark.parametrize("samples_per_shard", [4, 24], ids=["over shards", "inside a shard"])
def test_a_build_stops_where_everything_fails_from_some_sample_on(root, tmp_path, monkeypatch, samples_per_shard):
    """As when a card dies in the middle: what was made stays, and a resumed build has the content of one in one go."""
    recipe, path = fast_recipe(root, samples_per_shard=samples_per_shard), tmp_path / "pairs.zarr"
    samples = make_plan(recipe.resolve("cpu")).samples
    assert len(samples) >= 8 + shards.HOPELESS
    with monkeypatch.context() as patched:
        _fails_on(patched, {shards.probe_seed(sample.seed, PROBE) for sample in samples[5:]})
        with pytest.raises(DataError, match=r"16 samples in a row failed, .*: broken; .*--resume"):
            build(recipe, path)
    with pytest.raises(DataError, match="unfinished"):
        datagen.open_pairs(path)
    assert build(recipe, path, resume=True).digest == build(recipe, tmp_path / "whole.zarr").digest


def test_one_damaged_volume_does_not_stop_a_build():
    streak = shards.Streak()
    failed = {"id": "a", "volume": "one", "set_aside": "cannot be read"}
    for _ in range(3 * shards.HOPELESS):
        streak.add(failed)
    streak.add(failed | {"set_aside": ""})
    for _ in range(shards.HOPELESS - 1):
        streak.add(failed)
    with pytest.raises(DataError, match="in a row"):
        streak.add(failed | {"volume": "two"})
    alone = shards.Streak(of_one_volume=True)
    for _ in range(shards.HOPELESS - 1):
        alone.add(failed)
    with pytest.raises(DataError, match="in a row"):
        alone.add(failed)


def test_an_error_of_the_card_ends_the_build(root, tmp_path, monkeypatch):
    """CuPy's errors are RuntimeErrors: taken for one of the sample, they would set aside every later sample."""
    recipe, path = fast_recipe(root, samples_per_shard=4), tmp_path / "pairs.zarr"
    simulate, calls = shards.simulate_pairs, []

    class CUDARuntimeError(RuntimeError):
        __module__ = "cupy_backends.cuda.api.runtime"

    def dying(hqs, imager, seeds):
        calls.append(seeds)
        if len(calls) > 6:
            raise CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")
        return simulate(hqs, imager, seeds)

    with monkeypatch.context() as patched:
        patched.setattr(shards, "simulate_pairs", dying)
        with pytest.raises(ussim.EngineError, match=r"the card failed .cudaErrorIllegalAddress"):
            build(recipe, path)
    assert len(calls) == 7  # no second attempt
    summary = build(recipe, path, resume=True)
    assert summary.set_aside == ()
    assert summary.n_built == summary.n_samples - 4  # the whole shard of before stays


def test_an_unreadable_volume_is_set_aside(root, tmp_path):
    mine = write_stacks(tmp_path / "stacks")
    np.save(mine / "subject1/stack.npy", np.zeros((4, 64, 64)))
    summary = build(fast_recipe(mine), tmp_path / "pairs.zarr")
    assert [volume for volume, _ in summary.unreadable] == ["npy: subject1/stack"]
    assert summary.n_samples == 16


def test_nothing_to_build_says_why(root, tmp_path):
    with pytest.raises(DataError, match=r"nothing to build.*too little tissue"):
        build(fast_recipe(root, min_tissue=0.999, patches=False), tmp_path / "pairs.zarr")
    assert not (tmp_path / "pairs.zarr").exists()


# --- which samples ---------------------------------------------------------------------------------------------------


def test_a_limit_takes_from_every_volume_before_it_takes_twice(root):
    for limit in (1, 2, 3, 5, 6):
        samples = make_plan(fast_recipe(root, limit=limit).resolve("cpu")).samples
        assert len(samples) == limit
        counts = [sum(sample.ref.subject == f"subject{i}" for sample in samples) for i in range(3)]
        assert max(counts) - min(counts) <= 1


def test_a_larger_limit_keeps_what_a_smaller_one_chose(root):
    chosen = [
        {sample.id for sample in make_plan(fast_recipe(root, limit=n).resolve("cpu")).samples} for n in (2, 5, 24)
    ]
    assert chosen[0] < chosen[1] < chosen[2]


def test_kinds_have_limits_of_their_own(root):
    samples = make_plan(fast_recipe(root, limit_full=3, limit_patches=2).resolve("cpu")).samples
    assert [sum(sample.kind == kind for sample in samples) for kind in ("full", "patch")] == [3, 2]
    samples = make_plan(fast_recipe(root, limit_full=0).resolve("cpu")).samples
    assert {sample.kind for sample in samples} == {"patch"}


def test_adding_a_subject_changes_no_other_sample(tmp_path):
    few = make_plan(fast_recipe(write_stacks(tmp_path / "few", 2), folds=1).resolve("cpu"))
    many = make_plan(fast_recipe(write_stacks(tmp_path / "many", 4), folds=1).resolve("cpu"))
    rows = {sample.id: sample.row(16, 1) for sample in many.samples}
    assert 0 < len(few.samples) < len(many.samples)
    assert all(rows[sample.id] == sample.row(16, 1) for sample in few.samples)


def test_several_sources_make_one_set(root, tmp_path):
    from PIL import Image

    for turns, subject in enumerate(("a", "b"), start=1):  # equal images are built once
        picture = tmp_path / "pictures" / subject / "slice.png"
        picture.parent.mkdir(parents=True)
        Image.fromarray(np.rot90(np.load(root / "subject0/stack.npy")[0], turns)).save(picture)
    roots = (root, tmp_path / "pictures")
    recipe = fast_recipe(roots, source=("npy", "image"), limit_full=5, limit_patches=0)
    summary = build(recipe, tmp_path / "pairs.zarr")
    rows = datagen.open_pairs(tmp_path / "pairs.zarr").samples
    assert [row["source"] for row in rows] == ["image"] * 2 + ["npy"] * 3
    assert summary.n_subjects == 5
    attributes = read.read_document(open_storage(tmp_path / "pairs.zarr"))
    assert [source["name"] for source in attributes["sources"]] == ["npy", "image"]


def test_augmented_variants_differ_and_repeat(root, tmp_path):
    recipe = fast_recipe(root, limit=6, augmentations=2, patches=False)
    build(recipe, tmp_path / "a.zarr")
    build(recipe, tmp_path / "b.zarr")
    one, two = (datagen.open_pairs(tmp_path / name) for name in ("a.zarr", "b.zarr"))
    assert {row["augmentation"] for row in one.samples} <= {0, 1, 2}
    assert len({row["crc32_hq"] for row in one.samples}) == 6
    assert [row["crc32_hq"] for row in one.samples] == [row["crc32_hq"] for row in two.samples]


def test_two_probes_see_the_same_slice_in_different_speckle(root, tmp_path):
    from ussim import load_probe

    recipe = fast_recipe(root, limit=2, probes=(PROBE, "L11-5v"), mean_distance_wavelengths=20.0)
    build(recipe, tmp_path / "pairs.zarr")
    alone = build(fast_recipe(root, limit=2, mean_distance_wavelengths=20.0), tmp_path / "alone.zarr")
    pairs = datagen.open_pairs(tmp_path / "pairs.zarr")
    assert [row["probe"] for row in pairs.samples] == [PROBE, "L11-5v"] * 2
    assert (pairs[0][0] == pairs[1][0]).all()
    assert (pairs[0][1] != pairs[1][1]).any()
    # A probe's images do not depend on what other probes there are.
    single = datagen.open_pairs(tmp_path / "alone.zarr")
    assert alone.n_samples == 2
    assert (single[0][1] == pairs[0][1]).all()
    assert load_probe("L11-5v").name in pairs.probes


def test_randomised_samples_record_what_was_drawn(root, tmp_path):
    ranges = {"speed_of_sound": (1450, 1600), "speed_of_sound_error": (-0.02, 0.02), "snr_db": (10, 40),
              "center_frequency_fraction": (-0.05, 0.05), "bandwidth_fraction": (-0.1, 0.1), "max_angle_deg": (3, 12),
              "attenuation_db_cm_mhz": (0, 0.6), "f_number": (0.8, 2), "dynamic_range_db": (35, 60),
              "mean_distance_wavelengths": (7, 9)}  # fmt: skip
    summary = build(fast_recipe(root, limit=6, randomize=ranges), tmp_path / "pairs.zarr")
    assert summary.set_aside == ()
    rows = datagen.open_pairs(tmp_path / "pairs.zarr").samples
    for name, (low, high) in ranges.items():
        values = [row[f"{name}_{PROBE}"] for row in rows]
        assert low <= min(values) < max(values) <= high
    group = read.open_group(open_storage(tmp_path / "pairs.zarr"))
    assert group[f"mask/{PROBE}"].shape == (6, 16, 16)


# --- whole processes -------------------------------------------------------------------------------------------------


def command(root, out, *options):
    given = ["--source", "npy", "--root", str(root), "--probe", PROBE, "--size", "16", "--angles", "1",
             "--mean-distance-wavelengths", "8", "--min-tissue", "0.05", "-o", str(out), *options]  # fmt: skip
    return [sys.executable, "-c", "from datagen.cli import main; main()", "build", *given]


def stop_when_shards_exist(process, out, count, how):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if len(list((out / "build/shards").glob("*.json"))) >= count:
            process.send_signal(how)
            break
        time.sleep(0.002)
    return process.communicate(timeout=120)


def test_ctrl_c_and_sigkill_lose_nothing(root, built, tmp_path):
    out = tmp_path / "pairs.zarr"
    running = subprocess.Popen(command(root, out), stderr=subprocess.PIPE, text=True)
    _, messages = stop_when_shards_exist(running, out, 1, signal.SIGINT)
    assert running.returncode == 130, messages
    assert "--resume" in messages
    assert "Traceback" not in messages
    there = len(list((out / "build/shards").glob("*.json")))
    running = subprocess.Popen(command(root, out, "--resume"), stderr=subprocess.PIPE, text=True)
    stop_when_shards_exist(running, out, there + 1, signal.SIGKILL)
    assert running.returncode == -signal.SIGKILL
    done = subprocess.run(command(root, out, "--resume"), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"digest: {built[1].digest}" in done.stdout


def test_worker_processes_make_the_same_content_though_one_is_killed(root, built, tmp_path):
    import psutil

    killed = []

    class Killer(Watcher):
        def progress(self, done, set_aside):
            if done >= 3 and not killed:
                workers = [
                    c for c in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(c.cmdline())
                ]
                killed.append(workers[0].pid)
                workers[0].kill()

    summary = build(fast_recipe(root), tmp_path / "pairs.zarr", workers=2, watcher=Killer())
    assert killed
    assert summary.set_aside == ()
    assert summary.digest == built[1].digest


def test_a_sample_that_kills_its_worker_is_set_aside(root, tmp_path, monkeypatch):
    """The cluster's part is played by a client whose task for one sample never comes back."""
    from distributed import KilledWorker

    recipe, path = fast_recipe(root, limit=4, samples_per_shard=2), tmp_path / "pairs.zarr"
    deadly = make_plan(recipe.resolve("cpu")).samples[2].id

    class Future:
        def __init__(self, call):
            self.call = call

        def result(self):
            return self.call()

    class Client:
        def submit(self, function, sample, job, pure):
            if sample.id == deadly:
                raise_it = KilledWorker("task", None, 3)
                return Future(lambda: (_ for _ in ()).throw(raise_it))
            return Future(lambda: function(sample, job))

    def run(self, jobs, count):
        for job in jobs:
            yield Cluster(Client(), Watcher()).make_apart(job)

    monkeypatch.setattr(Workers, "run", run)
    summary = build(recipe, path)
    assert [sample for sample, _ in summary.set_aside] == [deadly]
    assert "worker died" in summary.set_aside[0][1]
    assert len(datagen.open_pairs(path)) == 3
