"""Time and memory of planning, building, resuming, opening and checking a million samples, none simulated.

    python benchmarks/scale.py [--counts 10000 100000 1000000] [--kills 20] [-o benchmarks/results/scale]

What the pipeline itself costs is what is left when reading MRI and simulating cost nothing: volumes give 200 samples each
without being read, an image is a constant of 8 x 8 pixels, and the engine returns it. Each step runs in a process of its
own, so that its peak memory is its own. Excluded: what a sample really costs (reading, cutting, simulating, compressing
and writing 256 x 256 pixels).

Each step's wall clock and processor time (`_s`, `_cpu_s`):

plan       seconds and peak memory until every sample has its name, seed and fold
manifest   bytes of the plan that the store keeps, so that a stopped build need not make it again
build      seconds, peak memory; all files are really written
resume     seconds until a build that was stopped with a hundredth of its shards missing knows what is left to make
open       seconds of `open_pairs`, reads of files and bytes read
access     microseconds of `pairs[i]` at random places
verify     seconds of `datagen verify`
scheduler  a build on two Dask workers whose engine sleeps 5 ms a sample: processor time of the process that schedules
           and collects, less what an idle scheduler takes in that time, over the time that the samples sleep
crowd      a build on a thousand workers, threads of one process, whose engine sleeps 0.3 s a sample: processor time of all
           but the engine, peak memory
kills      a build of 2,000 samples killed (SIGKILL) after random numbers of shards and resumed until it ends: its
           digest is that of an undisturbed one
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from timing import RESULTS, machine, peak_memory_mb, write_result

from datagen import Recipe, build, open_pairs
from datagen.identity import sample_id, sample_seed
from datagen.make import pairs as simulation
from datagen.make import shards
from datagen.make.progress import Watcher
from datagen.make.verify import verify
from datagen.plan import samples as planning
from datagen.plan.resolved import Cutting
from datagen.sources.scene import Scene
from datagen.store.location import LocalStorage
from ussim.volumes.volume import VolumeRef

PER_VOLUME = 200  # samples: a hundred slices, each whole and as a patch
SIZE = 8
SLEEP = 5e-3  # s a sample, of the engine by which the scheduler's share is measured: faster than any real one


class Fake:
    """Stands in for reading, cutting and simulating, in this process; a Dask plugin, for those of workers."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds  # that an image takes

    def setup(self, worker: Any = None) -> None:
        """Put the fakes in place."""
        planning.cut_volume = cut_volume
        shards.scene_of = scene_of
        shards.simulate_pairs = self.simulate

    def simulate(self, scenes: list[Scene], imager: Any, seeds: list[int]) -> list[simulation.Pair]:
        """Return the images as they are, after the time that they take."""
        time.sleep(self.seconds * len(scenes))
        return [simulation.Pair(scene.hq, 1) for scene in scenes]


def scene_of(sample: planning.Sample, cutting: Cutting) -> Scene:
    """Return an image of one grey level."""
    return Scene(np.full((SIZE, SIZE), sample.seed % 251, np.uint8))


class Stopwatch:
    """Wall clock and processor time since it was made: on a busy machine the second says what a step needs."""

    def __init__(self) -> None:
        self.began = time.perf_counter(), time.process_time()

    def figures(self, name: str) -> dict[str, float]:
        """Return the seconds of a step so far."""
        return {
            f"{name}_s": time.perf_counter() - self.began[0],
            f"{name}_cpu_s": time.process_time() - self.began[1],
        }


def cut_volume(ref: VolumeRef, cutting: Cutting) -> planning.VolumeSamples:
    """Return the samples of a volume that nobody reads."""
    digest = hashlib.sha256(ref.name.encode()).hexdigest()
    made = []
    for index in range(PER_VOLUME // 2):
        for kind in ("full", "patch"):
            identifier = sample_id(ref.source, ref.name, "axial", index, kind, 0)
            pixels = f"{kind} {hashlib.sha256(identifier.encode()).hexdigest()}"
            seed = sample_seed(cutting.seed, identifier)
            made.append(
                planning.Sample(
                    identifier, ref, "axial", index, kind, (0, 0, 256, 256), 0, seed, (0.5, 0.5), digest, pixels
                )
            )
    return planning.VolumeSamples(ref, tuple(made), file_sha256=digest)


def recipe(root: Path) -> Recipe:
    """Return the recipe of all benchmarks here."""
    return Recipe(source="npy", root=root, probes="P4-2v", size=SIZE, n_transmits=1)


def write_volumes(root: Path, n_samples: int) -> None:
    """One small file a volume: found, never read."""
    root.mkdir(parents=True)
    for number in range(-(-n_samples // PER_VOLUME)):
        np.save(root / f"subject{number:06d}.npy", np.full((2, 8, 8), number, np.uint16))


# --- steps, each in a process of its own -----------------------------------------------------------------------------


def plan(root: Path, store: Path) -> dict[str, Any]:
    """Plan alone."""
    resolved = recipe(root).resolve("cpu")
    took = Stopwatch()
    made = planning.make_plan(resolved)
    return took.figures("plan") | {"samples": len(made.samples), "digest": made.digest}


def build_all(root: Path, store: Path) -> dict[str, Any]:
    """Plan and build."""
    took = Stopwatch()
    summary = build(recipe(root), store)
    manifest = store / "build/plan"
    return took.figures("build") | {
        "manifest_mb": manifest.stat().st_size / 1e6 if manifest.exists() else None,
        "table_mb": (store / "samples.csv").stat().st_size / 1e6,
        "digest": summary.digest,
    }


def resume(root: Path, store: Path) -> dict[str, Any]:
    """Resume a build that was stopped with a hundredth of its shards missing: seconds to the first of them, and in all."""
    document = json.loads((store / "zarr.json").read_text())
    attributes = document["attributes"]
    document["attributes"] = {
        name: value
        for name, value in attributes.items()
        if name not in ("digest", "files_digest", "whole_digest", "n_set_aside")
    } | {"complete": False}
    document.pop("consolidated_metadata", None)
    (store / "zarr.json").write_text(json.dumps(document))
    missing = max(1, attributes["n_shards"] // 100)
    for index in np.random.default_rng(0).permutation(attributes["n_shards"])[:missing]:
        (store / f"build/shards/{index:06d}.json").unlink()

    class Begun(Watcher):
        figures: dict[str, float]

        def begin(self, total: int, done: int) -> None:
            self.figures = took.figures("resume")

    begun = Begun()
    took = Stopwatch()
    summary = build(recipe(root), store, resume=True, watcher=begun)
    return {
        **begun.figures,
        **took.figures("resume_to_end"),
        "remade": summary.n_built,
        "resumed_digest": summary.digest,
    }


def open_store(root: Path, store: Path) -> dict[str, Any]:
    """Open, and read pairs at random places."""
    reads: list[int] = []
    read = LocalStorage.read

    def counted(self: LocalStorage, key: str) -> bytes:
        content = read(self, key)
        reads.append(len(content))
        return content

    open_pairs(store)  # imports
    LocalStorage.read = counted  # type: ignore[method-assign]
    took = Stopwatch()
    pairs = open_pairs(store)
    figures = took.figures("open")
    places = np.random.default_rng(0).integers(0, len(pairs), 500)
    pairs[0]
    took = Stopwatch()
    for place in places:
        pairs[int(place)]
    each = {name: 1e6 * seconds / len(places) for name, seconds in took.figures("access").items()}
    return {
        **figures,
        "open_reads": len(reads),
        "open_read_mb": sum(reads) / 1e6,
        "access_us": each["access_s"],
        "access_cpu_us": each["access_cpu_s"],
    }


def check(root: Path, store: Path) -> dict[str, Any]:
    """Verify."""
    took = Stopwatch()
    report = verify(store)
    assert not report.faults, report.faults[:3]
    return took.figures("verify")


STEPS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "plan": plan,
    "build": build_all,
    "resume": resume,
    "open": open_store,
    "verify": check,
}


def run_step(name: str, root: Path, store: Path) -> dict[str, Any]:
    """Run a step in a process of its own; its figures, and the peak of its memory."""
    done = subprocess.run(
        [sys.executable, __file__, "--step", name, str(root), str(store)], stdout=subprocess.PIPE, text=True, check=True
    )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(folder: Path, n_samples: int, keep: Callable[[dict[str, Any]], None]) -> None:
    """All steps on one number of samples; `keep` is told what is known after each."""
    root, store = folder / "volumes", folder / "pairs.zarr"
    write_volumes(root, n_samples)
    figures: dict[str, Any] = {"samples": n_samples}
    for name in STEPS:
        figures |= run_step(name, root, store)
        assert figures.pop("resumed_digest", figures["digest"]) == figures["digest"], "the resumed store differs"
        keep(figures)
        print(n_samples, name, figures, flush=True)


# --- the scheduler, and kills ----------------------------------------------------------------------------------------


def scheduler(folder: Path, n_samples: int = 10_000) -> dict[str, Any]:
    """Processor time of the process that plans, schedules and collects, while two workers sleep a sample's time."""
    from distributed import Client, LocalCluster

    root = folder / "volumes"
    write_volumes(root, n_samples)
    Fake().setup()

    class Clock(Watcher):
        began: tuple[float, float]
        ended: tuple[float, float]

        def begin(self, total: int, done: int) -> None:
            self.began = (time.perf_counter(), time.process_time())

        def end(self) -> None:
            self.ended = (time.perf_counter(), time.process_time())

    clock = Clock()
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(_plugin())
        wall, cpu = time.perf_counter(), time.process_time()
        time.sleep(10)
        idle = (time.process_time() - cpu) / (time.perf_counter() - wall)  # of a scheduler that has nothing to do
        build(recipe(root), folder / "pairs.zarr", client, watcher=clock)
    wall, cpu = (after - before for before, after in zip(clock.began, clock.ended, strict=True))
    work = cpu - idle * wall
    if work <= 0:
        raise SystemExit("the scheduler took less than an idle one: the machine was stopped or busy; run this again")
    return {
        "samples": n_samples,
        "engine_s_per_sample": SLEEP,
        "wall_s": wall,
        "idle_cpu_share": idle,
        "scheduler_cpu_s": cpu,
        "scheduler_us_per_sample": work / n_samples * 1e6,
        "scheduler_share": work / (n_samples * SLEEP),
    }


def _plugin() -> Any:
    """Return what puts the fakes in place on a worker."""
    from distributed.diagnostics.plugin import WorkerPlugin

    return type("FakePlugin", (Fake, WorkerPlugin), {})(SLEEP)


def crowd(root: Path, store: Path, threads: int = 1000) -> dict[str, Any]:
    """Build on as many workers as threads of this process."""
    from distributed import Client

    Fake(0.3).setup()
    start, cpu = time.perf_counter(), time.process_time()
    with Client(processes=False, n_workers=1, threads_per_worker=threads, dashboard_address=None) as client:
        made = build(recipe(root), store, client)
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    assert made.n_built == made.n_samples
    return {"samples": made.n_samples, "threads": threads, "wall_s": seconds, "cpu_s": cpu_s}


def crowds(folder: Path, counts: tuple[int, ...] = (20_000, 100_000)) -> list[dict[str, Any]]:
    """Return what builds of some sizes on a thousand workers take, each in a process of its own."""
    rows = []
    for count in counts:
        root = folder / f"volumes-{count}"
        write_volumes(root, count)
        rows.append(run_step("crowd", root, folder / f"{count}.zarr"))
        print(rows[-1], flush=True)
    return rows


def kills(folder: Path, count: int, n_samples: int = 2000) -> dict[str, Any]:
    """Kill a build after a random number of further shards until it has been killed `count` times, then let it end."""
    root, store = folder / "volumes", folder / "killed.zarr"
    write_volumes(root, n_samples)
    whole = run_step("build", root, folder / "whole.zarr")["digest"]
    rng = random.Random(0)
    command = [sys.executable, __file__, "--step", "slow", str(root), str(store)]
    shards_when_killed: list[int] = []

    def finished() -> int:
        return len(list((store / "build/shards").glob("*.json")))

    while len(shards_when_killed) < count:
        process = subprocess.Popen(command)
        wanted = finished() + rng.randint(0, 10)  # by work done: a busy machine would be killed before it began
        while process.poll() is None and not ((store / "build").exists() and finished() >= wanted):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        if process.poll() is not None:
            shutil.rmtree(store)  # it ended before: again from the start
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
        shards_when_killed.append(finished())
    last = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])
    assert last["digest"] == whole, "the killed build differs"
    return {"samples": n_samples, "kills": count, "shards_when_killed": shards_when_killed, "identical": True}


def build_slowly(root: Path, store: Path) -> dict[str, Any]:
    """Build with an engine that takes a little time, going on with what is there."""
    Fake(1e-3).setup()
    return {"digest": build(recipe(root), store, resume=True).digest}


# --- results ---------------------------------------------------------------------------------------------------------

COLUMNS = {
    "samples": "samples",
    "plan_cpu_s": "plan (s)",
    "plan_peak_mb": "its peak (MB)",
    "manifest_mb": "manifest (MB)",
    "build_cpu_s": "build (s)",
    "build_peak_mb": "its peak (MB)",
    "resume_cpu_s": "resume (s)",
    "open_cpu_s": "open (s)",
    "open_reads": "its reads",
    "access_cpu_us": "pairs[i] (us)",
    "verify_cpu_s": "verify (s)",
    "verify_peak_mb": "its peak (MB)",
}


def table(rows: list[dict[str, Any]]) -> str:
    """Return the figures as Markdown."""

    def text(value: Any) -> str:
        return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3g}"

    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "|" + " ---: |" * len(COLUMNS)]
    lines += ["| " + " | ".join(text(row.get(key)) for key in COLUMNS) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write JSON and Markdown: what is not measured stays as it was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="*", default=[10**4, 10**5, 10**6], help="samples")
    parser.add_argument("--kills", type=int, default=20, help="0: none")
    parser.add_argument("--no-scheduler", action="store_true")
    parser.add_argument("--crowd", action="store_true", help="builds on a thousand workers, too")
    parser.add_argument("--folder", type=Path, help="where the stores are made; default: the system's temporary folder")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS / "scale", help="without a suffix")
    arguments = parser.parse_args()
    file = arguments.out.with_suffix(".json")
    result: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"rows": {}}

    def keep(**found: Any) -> None:
        result.update(found, machine=machine(("numpy", "zarr", "dask", "distributed")))
        write_result(file, result)
        arguments.out.with_suffix(".md").write_text(words(result), encoding="utf-8")

    def keep_row(figures: dict[str, Any]) -> None:
        rows = result["rows"] | {str(figures["samples"]): figures}
        keep(rows=dict(sorted(rows.items(), key=lambda item: int(item[0]))))

    def measured(what: Callable[..., Any], *given: Any) -> Any:
        folder = Path(tempfile.mkdtemp(prefix="datagen-scale-", dir=arguments.folder))
        try:
            return what(folder, *given)
        finally:
            shutil.rmtree(folder)

    if not arguments.no_scheduler:
        keep(scheduler=measured(scheduler))
    if arguments.crowd:
        keep(crowd=measured(crowds))
    if arguments.kills:
        keep(kills=measured(kills, arguments.kills))
    for count in arguments.counts:
        measured(measure, count, keep_row)


def words(result: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [table(list(result["rows"].values())), "Processor time; the wall clock is in the JSON beside it.\n"]
    if "scheduler" in result:
        found = result["scheduler"]
        lines.append(
            f"Scheduling and collecting take {found['scheduler_us_per_sample']:.0f} us of a processor per sample: "
            f"{found['scheduler_share']:.1%} of the work of an engine that needs {SLEEP * 1e3:g} ms.\n"
        )
    if "crowd" in result:
        few, many = result["crowd"][:2]
        each = (many["cpu_s"] - few["cpu_s"]) / (many["samples"] - few["samples"])
        lines.append(
            f"On {many['threads']:,} workers, threads of one process, {many['samples']:,} samples of 0.3 s take "
            f"{many['wall_s']:.0f} s, {each * 1e6:.0f} us of a processor per sample, all but the engine, and "
            f"{many['crowd_peak_mb']:.0f} MB ({few['crowd_peak_mb']:.0f} MB at {few['samples']:,}).\n"
        )
    if "kills" in result:
        found = result["kills"]
        lines.append(
            f"A build of {found['samples']:,} samples was killed {found['kills']} times at random and resumed: the digest "
            "is that of one that was left alone.\n"
        )
    load = result["machine"]["load_1min"]
    lines.append(
        f"{result['machine']['processor']}, {result['machine']['cores']} cores, load {load:g} while it was measured.\n"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        Fake().setup()
        name, where = sys.argv[2], (Path(sys.argv[3]), Path(sys.argv[4]))
        found = (STEPS | {"slow": build_slowly, "crowd": crowd})[name](*where)
        print(json.dumps(found | {f"{name}_peak_mb": peak_memory_mb()}))
    else:
        main()
