"""Rates of building and reading a dataset, and its survival of interruptions.

    python benchmarks/build_dataset.py [throughput memory loader kill tcp]

throughput  samples/s in this process, with 1 and 2 worker processes and with 2 threads, from the first sample that is
            there to the last, so that starting workers and compiling are left out; and the share of processor time that
            the pipeline adds to the bare simulation of the same images.
memory      resident memory while 500 small samples are built in one process.
loader      pairs/s (256 x 256, uint8) from a warm store through a torch DataLoader of two workers, and in NumPy.
kill        a build of 1,000 small samples, killed (SIGKILL) at three random times and resumed, against one in one go.
tcp         a scheduler and two workers over TCP on this machine, one worker killed while they build.

Every part checks that what was built is the same (digest) before it reports a figure. Needs a DICOM series: --root.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from timing import RESULTS, machine, write_result

from datagen import Recipe, build, open_pairs
from datagen.make.progress import Watcher
from datagen.make.shards import Job
from datagen.plan.samples import image_of, make_plan
from datagen.store import layout, write
from datagen.store.location import open_storage

KNEE = Path(__file__).resolve().parents[2] / "shared" / "data" / "mri_dicom" / "knee_mese_te1"
SMALL = {"probes": "P4-2v", "size": 64, "n_transmits": 3}  # a fraction of a second a sample


class Stopwatch(Watcher):
    """Times at which samples were there: wall clock and processor time of this process."""

    def __init__(self) -> None:
        self.times: dict[int, tuple[float, float]] = {}

    def progress(self, done: int, set_aside: int) -> None:
        self.times.setdefault(done, (time.perf_counter(), time.process_time()))

    def seconds_a_sample(self, clock: int) -> float:
        """Between the first and the last sample that came; clock 0 is the wall's, 1 the processor's."""
        first, last = min(self.times), max(self.times)
        return (self.times[last][clock] - self.times[first][clock]) / (last - first)


def throughput(root: Path, folder: Path, n_samples: int, probe: str) -> dict[str, Any]:
    from datagen.make.pairs import make_imager, probe_seed, simulate_pair

    recipe = Recipe(source="dicom", root=root, probes=probe, limit=n_samples)
    plan = make_plan(recipe.resolve("cpu"))
    job = Job("", 0, plan.samples, plan.recipe, 1)
    imager = make_imager(job.recipe.settings[0])
    images = [(image_of(sample, job.recipe.cutting), probe_seed(sample.seed, probe)) for sample in plan.samples]
    simulate_pair(images[0][0], imager, 0)  # compiles
    cpu, wall = time.process_time(), time.perf_counter()
    for hq, seed in images:
        simulate_pair(hq, imager, seed)
    bare = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}

    results, digests = {}, set()
    ways: dict[str, dict[str, Any]] = {
        "this process": {},
        "1 worker": {"workers": 1},
        "2 workers": {"workers": 2},
        "2 threads": {"workers": 2, "scheduler": "threads"},
    }
    for name, how in ways.items():
        watch = Stopwatch()
        cpu, wall = time.process_time(), time.perf_counter()
        summary = build(recipe, folder / "pairs.zarr", overwrite=True, watcher=watch, **how)
        seconds = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
        digests.add(summary.digest)
        results[name] = {"samples_per_s": 1 / watch.seconds_a_sample(0), **seconds}
        if not how:
            cpu_a_sample = watch.seconds_a_sample(1)
    assert len(digests) == 1, "the ways of building differ"
    return {
        "probe": probe,
        "samples": len(images),
        "bare_samples_per_s": len(images) / bare["wall_s"],
        "bare_cpu_s": bare["cpu_s"],
        # Processor time of all threads, sample by sample (cut, simulate, encode, write): a busy machine's wall says little.
        "overhead": cpu_a_sample / (bare["cpu_s"] / len(images)) - 1,
        # What a build costs once: finding and cutting the slices, the field of view, the table and the digest.
        "once_cpu_s": results["this process"]["cpu_s"] - cpu_a_sample * len(images),
        "ways": results,
    }


def memory(root: Path, folder: Path, n_samples: int) -> dict[str, Any]:
    import psutil

    class Scale(Watcher):
        def __init__(self) -> None:
            self.resident: dict[int, float] = {}

        def progress(self, done: int, set_aside: int) -> None:
            self.resident[done] = psutil.Process().memory_info().rss / 1e6

    scale = Scale()
    build(_many(root, n_samples), folder / "pairs.zarr", watcher=scale)
    marks = sorted({n_samples // 10, n_samples // 2, n_samples})
    return {"samples": n_samples, "resident_mb": {str(n): scale.resident[n] for n in marks}}


def loader(root: Path, folder: Path, n_pairs: int) -> dict[str, Any]:
    from torch.utils.data import DataLoader

    path = folder / "pairs.zarr"
    _speckle_store(path, n_pairs)
    pairs = open_pairs(path)
    rates = {}
    for name, workers in (("0 workers", 0), ("2 workers", 2)):
        dataset = pairs.torch(dtype="uint8")
        batches = dataset.batches(32, seed=0, n_workers=workers)
        context = {"multiprocessing_context": "spawn", "persistent_workers": True} if workers else {}
        data = DataLoader(dataset, batch_sampler=batches, num_workers=workers, **context)
        for epoch in range(3):
            batches.set_epoch(epoch)
            started, count = None, 0
            for hq, _lq in data:
                if started is None:  # the first batch waits for the workers to start
                    started = time.perf_counter()
                    continue
                count += len(hq)
            rate = count / (time.perf_counter() - started)
            rates[name] = max(rate, rates.get(name, 0.0))
    started = time.perf_counter()
    for first in range(0, n_pairs, 256):
        pairs.read(np.arange(first, min(first + 256, n_pairs)))
    rates["NumPy, one process"] = n_pairs / (time.perf_counter() - started)
    return {"pairs": n_pairs, "samples_per_shard": pairs.samples_per_shard, "pairs_per_s": rates}


def kill(root: Path, folder: Path, n_samples: int) -> dict[str, Any]:
    recipe = _many(root, n_samples)
    whole = build(recipe, folder / "whole.zarr")
    out = folder / "killed.zarr"
    n_shards = len(list((folder / "whole.zarr/build/shards").iterdir()))
    rng = random.Random(0)
    killed_at = []
    for stop in sorted(rng.sample(range(1, n_shards - 1), 3)):
        process = subprocess.Popen([sys.executable, __file__, "--one-build", str(root), str(out), str(n_samples)])
        while process.poll() is None and len(list((out / "build/shards").glob("*.json"))) < stop:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed_at.append(len(list((out / "build/shards").glob("*.json"))))
    last = build(recipe, out, resume=True)
    assert last.digest == whole.digest, "the killed build differs"
    return {"samples": n_samples, "shards": n_shards, "killed_with_shards": killed_at, "identical": True,
            "digest": whole.digest, "left_for_the_last_run": last.n_built}  # fmt: skip


def tcp(root: Path, folder: Path, n_samples: int) -> dict[str, Any]:
    from distributed import Client

    recipe = _many(root, n_samples)
    whole = build(recipe, folder / "whole.zarr")
    environment = os.environ | {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    file = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen([*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
                                   "--scheduler-file", str(file)], **quiet)]  # fmt: skip
    try:
        worker = [*dask, "worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        processes += [subprocess.Popen(worker, **quiet) for _ in range(2)]
        deadline = time.monotonic() + 60
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        with Client(scheduler_file=str(file)) as client:
            client.wait_for_workers(2, timeout=60)
        killed = []

        class Killer(Watcher):
            def progress(self, done: int, set_aside: int) -> None:
                if done > n_samples // 4 and not killed:
                    killed.append(done)
                    processes[1].kill()

        summary = build(recipe, folder / "tcp.zarr", scheduler=str(file), watcher=Killer())
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()
    assert summary.digest == whole.digest, "the build on the cluster differs"
    return {
        "samples": n_samples,
        "worker_killed_after": killed[0],
        "identical": True,
        "set_aside": len(summary.set_aside),
    }


# --- helpers ---------------------------------------------------------------------------------------------------------


def _many(root: Path, n_samples: int) -> Recipe:
    """Return a recipe of many small samples: variants of the slices of one series."""
    return Recipe(source="dicom", root=root, limit=n_samples, augmentations=max(1, n_samples // 40), **SMALL)


def _speckle_store(path: Path, n_pairs: int) -> None:
    """Make a store of 256 x 256 images as hard to compress as simulated ones."""
    rng = np.random.default_rng(0)
    images = (np.clip(40 + 20 * np.log10(rng.rayleigh(size=(64, 256, 256))), 0, 60) * 4).astype(np.uint8)
    storage, per_shard = open_storage(path), layout.shard_size(n_pairs)
    n_shards = -(-n_pairs // per_shard)
    attributes = layout.Attributes(
        recipe=dataclasses.replace(Recipe(source="demo", probes="P4-2v").resolve("cpu"), folds=1),
        recipe_digest="0",
        source="demo",
        licence="",
        citation="",
        sources=(),
        probes={"P4-2v": "P4-2v"},
        n_samples=n_pairs,
        n_shards=n_shards,
        samples_per_shard=per_shard,
    )
    write.create(storage, attributes, {"P4-2v": np.ones((256, 256), bool)})
    for index in range(n_shards):
        count = min(per_shard, n_pairs - index * per_shard)
        arrays = {key: images[rng.permutation(64)[:count]] for key in ("hq", layout.lq_key("P4-2v"))}
        rows = [{"id": f"{index}-{i}", "fold": 0, "set_aside": ""} for i in range(count)]
        write.write_shard(storage, index, arrays, rows, per_shard)
    write.finish(storage, n_shards)


PARTS = {"throughput": throughput, "memory": memory, "loader": loader, "kill": kill, "tcp": tcp}
COUNTS = {"throughput": 24, "memory": 500, "loader": 2000, "kill": 1000, "tcp": 200}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--root", type=Path, default=KNEE, help="a DICOM series")
    parser.add_argument("--probe", default="P4-2v", help="of the throughput table")
    parser.add_argument("--count", type=int, help="samples or pairs, in place of each part's own number")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS / "datagen.json")
    arguments = parser.parse_args()
    for part in arguments.parts or PARTS:
        folder = Path(tempfile.mkdtemp(prefix="datagen-benchmark-"))
        try:
            more = (arguments.probe,) if part == "throughput" else ()
            figures = PARTS[part](arguments.root, folder, arguments.count or COUNTS[part], *more)
        finally:
            shutil.rmtree(folder)
        _keep(arguments.out, part, figures)
        print(part, figures, flush=True)


def _keep(path: Path, part: str, figures: dict[str, Any]) -> None:
    """Put a part's figures in the file of results; the other parts stay."""
    import json

    result = json.loads(path.read_text()) if path.exists() else {}
    measured = {"machine": machine(("numpy", "numba", "zarr", "dask", "torch")), **figures}
    write_result(path, result | {part: measured})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one-build"]:
        build(_many(Path(sys.argv[2]), int(sys.argv[4])), sys.argv[3], resume=True)
    else:
        main()
