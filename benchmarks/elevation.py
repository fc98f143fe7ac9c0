"""Cost of an elevation: the same scatterers without a y and with one, and two dimensions before and after.

Workload: L11-5v, P4-2v and C5-2v, the waves of each probe's own sequence, attenuation 0.5 dB/cm/MHz, scatterers
over the field of view, their y within half an element height. Measured: processor time of `ussim.simulate` on one thread,
warm, the CPU engine. Sides take turns within a round, each in a process of its own, begun anew three times over, so that a
busy machine and a process's luck are everyone's; a ratio is the median of the rounds' ratios. Excluded: imports,
compilation, the beam's lattice (once per acquisition).

    python benchmarks/elevation.py                      # 2-D and 3-D of this checkout
    python benchmarks/elevation.py --before CHECKOUT    # and 2-D of another one, whose RF must be the same
    python benchmarks/elevation.py --quick              # a smoke test

An evaluation is one scatterer, element and frequency. With an elevation cells have another shape, so that both ratios are
told: of an evaluation, and of the whole call.

Result: benchmarks/results/elevation.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from timing import RESULTS, machine, write_result

import ussim

PROBES = ("L11-5v", "P4-2v", "C5-2v")
SAME = 1e-6  # relative L2 of RF in two dimensions, before and after


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="of an earlier state, to compare 2-D with")
    parser.add_argument("--scatterers", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="a small medium, few rounds")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "elevation.json")
    arguments = parser.parse_args()
    if arguments.worker:
        serve()
        return 0
    n, rounds = (200, 3) if arguments.quick else (arguments.scatterers, arguments.rounds)
    sides = {"2-D": None, "3-D": None} | ({"2-D before": arguments.before} if arguments.before else {})
    result: dict[str, Any] = {"machine": machine(("ussim", "numba", "numpy")), "scatterers": n, "rounds": rounds}
    for probe in PROBES:
        result[probe] = compare(probe, n, rounds, sides)
        print(probe, json.dumps(result[probe]["ratios"]))
    write_result(arguments.output, result)
    return 0


def compare(probe: str, n: int, rounds: int, sides: dict[str, Path | None]) -> dict[str, Any]:
    """Seconds of each side, by turns, and the medians of their ratios."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    facts: dict[str, dict[str, Any]] = {}
    for start in range(3):
        workers = {side: Worker(checkout, probe, n, side.startswith("3-D")) for side, checkout in sides.items()}
        for turn in range(rounds // 3):
            order = list(workers) if (start + turn) % 2 == 0 else list(workers)[::-1]
            for side in order:
                seconds[side].append(workers[side].time())
        facts = {side: worker.facts for side, worker in workers.items()}
        for worker in workers.values():
            worker.close()
    evaluations = {side: fact["evaluations"] for side, fact in facts.items()}
    slower = ratio(seconds["3-D"], seconds["2-D"])
    ratios = {
        "3-D / 2-D, the call": slower,
        "3-D / 2-D, per evaluation": slower * evaluations["2-D"] / evaluations["3-D"],
    }
    if "2-D before" in sides:
        now, before = facts["2-D"], facts["2-D before"]
        if abs(now["norm"] / before["norm"] - 1) > SAME:
            raise SystemExit(f"{probe}: RF in two dimensions is not the same")
        ratios["2-D / 2-D before"] = ratio(seconds["2-D"], seconds["2-D before"])
        ratios["same bytes in 2-D"] = now["digest"] == before["digest"]
    return {"ratios": ratios, "evaluations": evaluations, "cpu_s": seconds}


def ratio(above: list[float], below: list[float]) -> float:
    """Median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


class Worker:
    """A process that simulates when it is told to."""

    def __init__(self, checkout: Path | None, probe: str, n: int, elevated: bool) -> None:
        root = Path(ussim.__file__).parents[1] if checkout is None else checkout.resolve()
        environment = dict(os.environ, PYTHONPATH=str(root), NUMBA_NUM_THREADS="1", OMP_NUM_THREADS="1")
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--worker"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts = self._ask({"probe": probe, "n": n, "elevated": elevated})

    def time(self) -> float:
        """Simulate once; seconds of the processor."""
        seconds: float = self._ask({})["cpu_s"]
        return seconds

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: PT018
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a worker ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


def serve() -> None:
    """Answer requests: the first makes a workload, each other one simulates it."""
    import hashlib

    acquisition = points = None
    for line in sys.stdin:
        request = json.loads(line)
        if request:
            acquisition, points = workload(**request)
            rf = ussim.simulate(points, acquisition, engine="cpu").samples
            answer = {
                "evaluations": count(points, acquisition),
                "norm": float(np.linalg.norm(rf)),
                "digest": hashlib.sha256(rf.tobytes()).hexdigest(),
            }
        else:
            started = time.process_time()
            ussim.simulate(points, acquisition, engine="cpu")
            answer = {"cpu_s": time.process_time() - started}
        print(json.dumps(answer), flush=True)


def workload(probe: str, n: int, elevated: bool) -> tuple[ussim.Acquisition, ussim.Scatterers]:
    """Scatterers over the probe's field of view, and its own sequence."""
    array = ussim.load_probe(probe)
    acquisition = ussim.Acquisition(array, ussim.imaging_waves(array), ussim.Medium(attenuation_db_cm_mhz=0.5))
    rng = np.random.default_rng(0)
    x, z = rng.uniform(*array.imaging.x, n), rng.uniform(*array.imaging.z, n)
    y = rng.uniform(-0.5, 0.5, n) * array.element_height
    reflectivity = rng.normal(size=n)
    if not elevated:
        return acquisition, ussim.Scatterers(x, z, reflectivity)
    return acquisition, ussim.Scatterers(x, z, reflectivity, y)


def count(points: ussim.Scatterers, acquisition: ussim.Acquisition) -> int:
    """Scatterers times elements times frequencies, of all cells."""
    from ussim.cells import make_cells
    from ussim.engines.cpu.kernels.layout import LANES
    from ussim.plan import audible, make_plan

    heard = audible(points, acquisition)
    elevation = getattr(heard, "y", None)  # an earlier state has none
    options = {} if elevation is None else {"y": elevation}
    plan = make_plan(acquisition) if elevation is None else make_plan(acquisition, True)
    cells = make_cells(heard.x, heard.z, plan, LANES, **options)
    return int((np.diff(cells.first) * cells.n_bins).sum()) * acquisition.probe.n_elements


if __name__ == "__main__":
    sys.exit(main())
