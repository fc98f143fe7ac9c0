"""Time that a process waits before it computes, beside another checkout, and the speed of its kernels in both.

    python benchmarks/startup.py --before ../other-checkout

Seconds of a core (user and system, all threads), so that a busy machine matters little: the first `ussim render` with empty
caches, later ones, an import, a worker's start (its imports, and by how much its first sample takes longer than others), and
the peak of memory. Then each kernel in one thread, the two checkouts in turns: `ratio` is that of the fastest runs, after
over before. Result: benchmarks/results/startup.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from timing import RESULTS, machine, write_result

HERE = Path(__file__).resolve().parents[1]
PIPES: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
RENDER = """
import sys
from ussim.commands.cli import main
sys.argv = ["ussim", "render", "slice.png", "-o", "picture.png"]
sys.exit(main())
"""
IMPORT = "import ussim; ussim.simulate, ussim.demodulate, ussim.delay_and_sum, ussim.scatterers_from_image"
WORKER = """
import time
import numpy as np
start = time.process_time()
import ussim
from ussim.engines import get_engine
get_engine("cpu")
probe = ussim.load_probe("P4-2v")
acquisition = ussim.Acquisition(probe, ussim.PlaneWaves([0.0]))
grid = ussim.ImageGrid.for_acquisition(acquisition, (64, 64))
grey = np.random.default_rng(0).random((64, 64))
def sample():
    begin = time.process_time()
    points = ussim.scatterers_from_image(grey, grid, acquisition, mean_distance=2e-3, seed=0)
    iq = ussim.demodulate(ussim.simulate(points, acquisition, engine="cpu"))
    ussim.log_compress(ussim.delay_and_sum(iq, grid))
    return time.process_time() - begin
imported = time.process_time() - start
first, *others = [sample() for _ in range(4)]
print(imported + first - min(others))
"""
KERNELS = """
import sys, time
import numpy as np, ussim
rng = np.random.default_rng(0)
probe = ussim.load_probe("L11-5v")
acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(np.deg2rad(np.linspace(-15, 15, 15))))
grid = ussim.ImageGrid.for_acquisition(acquisition, (160, 160))
x, z = rng.uniform(-15e-3, 15e-3, 4000), rng.uniform(5e-3, 35e-3, 4000)
points = ussim.Scatterers(x, z, rng.normal(size=4000))
rf = ussim.simulate(points, acquisition, engine="cpu")
iq = ussim.demodulate(rf)
operator = ussim.imaging_operator(acquisition, ussim.ImageGrid.for_acquisition(acquisition, (50, 50)), "cpu")
echoes = operator.forward(rng.normal(size=(50, 50)))
single = ussim.Acquisition(probe, ussim.PlaneWaves([0.0]))
full = ussim.Acquisition(probe, ussim.PlaneWaves([0.0, 0.1]), full_frequency_directivity=True)
works = {
    "simulate, 15 transmits": lambda: ussim.simulate(points, acquisition, engine="cpu"),
    "simulate, 1 transmit": lambda: ussim.simulate(points, single, engine="cpu"),
    "simulate, full directivity": lambda: ussim.simulate(points, full, engine="cpu"),
    "pressure field": lambda: ussim.pressure_field(single, grid, engine="cpu"),
    "adjoint": lambda: operator.adjoint(echoes),
    "demodulate": lambda: ussim.demodulate(rf),
    "delay and sum, linear": lambda: ussim.delay_and_sum(iq, grid),
    "delay and sum, lanczos3": lambda: ussim.delay_and_sum(iq, grid, interpolation="lanczos3"),
}
if hasattr(ussim, "MinimumVariance"):
    small = ussim.ImageGrid.for_acquisition(acquisition, (48, 48))
    works |= {
        "coherence factor": lambda: ussim.delay_and_sum(iq, small, combine=ussim.CoherenceFactor()),
        "minimum variance": lambda: ussim.delay_and_sum(iq, small, combine=ussim.MinimumVariance()),
    }
for work in works.values():
    work()
print(*works, sep="|", flush=True)
for line in sys.stdin:
    begin = time.process_time()
    works[line.strip()]()
    print(time.process_time() - begin, flush=True)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, metavar="FOLDER", help="Another checkout.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=15, help="Of the kernels, in turns.")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "startup.json")
    arguments = parser.parse_args()
    trees = {"before": arguments.before.resolve(), "after": HERE}
    with tempfile.TemporaryDirectory() as folder:
        places = {name: place(Path(folder) / name, tree) for name, tree in trees.items()}
        starts = {name: start_up(*where, arguments.repeats) for name, where in places.items()}
        ratios = kernels(places, arguments.rounds)
    for key in starts["after"]:
        print(f"{key:24} before {starts['before'][key]:8.2f}, after {starts['after'][key]:8.2f}")
    for name, row in ratios.items():
        print(f"{name:28} {row['before_s']:.3f} s -> {row['after_s']:.3f} s (x {row['ratio']:.3f})")
    packages = ("numpy", "scipy", "numba", "llvmlite", "matplotlib")
    write_result(arguments.output, {**starts, "kernels": ratios, "machine": machine(packages)})
    return 0


def place(folder: Path, tree: Path) -> tuple[Path, dict[str, str]]:
    """Make a folder to work in, with empty caches; return it and the environment."""
    folder.mkdir()
    grey = np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8)
    Image.fromarray(grey).save(folder / "slice.png")
    own = {
        "PYTHONPATH": str(tree), "USSIM_CACHE": str(folder / "cache"), "NUMBA_CACHE_DIR": str(folder / "numba"),
        "MPLCONFIGDIR": str(folder / "matplotlib"), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1",
    }  # fmt: skip
    environment = os.environ | own
    spent("import matplotlib.font_manager", folder, environment)  # its own list of fonts, made once
    return folder, environment


def spent(program: str, folder: Path, environment: dict[str, str]) -> tuple[float, float, str]:
    """Run a program; seconds of CPU, peak of memory in MB, output."""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        output = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{folder.name}: ended with {process.returncode}"
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3, output


def start_up(folder: Path, environment: dict[str, str], repeats: int) -> dict[str, float]:
    spent(IMPORT, folder, environment)  # .pyc files
    bare = statistics.median(spent("pass", folder, environment)[0] for _ in range(repeats))
    first, first_memory, _ = spent(RENDER, folder, environment)
    later = [spent(RENDER, folder, environment) for _ in range(repeats)]
    spent(WORKER, folder, environment)
    return {
        "first render, s": first,
        "first render, MB": first_memory,
        "later render, s": statistics.median(run[0] for run in later),
        "later render, MB": statistics.median(run[1] for run in later),
        "import, s": statistics.median(spent(IMPORT, folder, environment)[0] for _ in range(repeats)) - bare,
        "worker, s": statistics.median(float(spent(WORKER, folder, environment)[2]) for _ in range(repeats)),
    }


def kernels(places: dict[str, tuple[Path, dict[str, str]]], rounds: int) -> dict[str, dict[str, float]]:
    """Run each work in both checkouts by turns, a process each that has compiled everything before."""
    processes = {
        name: subprocess.Popen(
            [sys.executable, "-c", KERNELS],
            cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name, (folder, environment) in places.items()
    }  # fmt: skip
    names = {name: process.stdout.readline().strip().split("|") for name, process in processes.items()}  # type: ignore[union-attr]
    seconds: dict[str, dict[str, list[float]]] = {}
    for work in (work for work in names["before"] if work in names["after"]):
        seconds[work] = {name: [] for name in processes}
        for turn in range(rounds):
            for name in sorted(processes, reverse=turn % 2 == 1):
                process = processes[name]
                assert process.stdin is not None
                assert process.stdout is not None
                print(work, file=process.stdin, flush=True)
                seconds[work][name].append(float(process.stdout.readline()))
    for process in processes.values():
        process.communicate()
    best = {work: {name: min(runs) for name, runs in both.items()} for work, both in seconds.items()}
    return {
        work: {"before_s": both["before"], "after_s": both["after"], "ratio": both["after"] / both["before"]}
        for work, both in best.items()
    }


if __name__ == "__main__":
    sys.exit(main())
