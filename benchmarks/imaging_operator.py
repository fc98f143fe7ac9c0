"""The simulator's transpose: how exact it is, and how long it takes beside the forward.

    python benchmarks/imaging_operator.py

For four probes, 15 plane waves and 20,000 points: |<Hx, y> - <x, H'y>| / (|Hx| |y|), and processor seconds of H and H' in
turns, all threads together. Result: benchmarks/results/imaging_operator.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from timing import RESULTS, machine, write_result

import ussim

PROBES = ("L11-5v", "L12-3v", "C5-2v", "P4-2v")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "imaging_operator.json")
    arguments = parser.parse_args()
    rows = [measure(name, arguments.points, arguments.repeats) for name in PROBES]
    for row in rows:
        print(
            f"{row['probe']:8} forward {row['forward_cpu_s']:.2f} s, adjoint {row['adjoint_cpu_s']:.2f} s "
            f"(x {row['ratio']:.2f}), mismatch {row['mismatch']:.1e}"
        )
    result = {"points": arguments.points, "rows": rows, "machine": machine(("numpy", "numba"))}
    write_result(arguments.output, result)
    return 0


def measure(name: str, n_points: int, repeats: int) -> dict:
    """One probe's row."""
    random = np.random.default_rng(0)
    probe = ussim.load_probe(name)
    assert probe.imaging is not None
    waves = ussim.PlaneWaves(np.deg2rad(np.linspace(-10, 10, 15)))
    acquisition = ussim.Acquisition(probe, waves, ussim.Medium(1540.0, 0.5))
    x, z = (random.uniform(*extent, n_points) for extent in (probe.imaging.x, probe.imaging.z))
    reflectivity = random.standard_normal(n_points)
    operator = ussim.imaging_operator(acquisition, ussim.Scatterers(x, z, reflectivity), engine="cpu")
    samples = random.standard_normal(operator.data_shape).astype(np.float32)
    echoes, projected = operator.forward(reflectivity).samples, operator.adjoint(samples)  # compiled, and compared
    norms = float(np.linalg.norm(echoes)) * float(np.linalg.norm(samples))
    difference = np.vdot(echoes.astype(np.float64), samples) - np.vdot(reflectivity, projected.astype(np.float64))
    seconds: dict[str, list[float]] = {"forward": [], "adjoint": []}
    for _ in range(repeats):
        for way, call, argument in (
            ("forward", operator.forward, reflectivity),
            ("adjoint", operator.adjoint, samples),
        ):
            before = time.process_time()
            call(argument)
            seconds[way].append(time.process_time() - before)
    forward, adjoint = (statistics.median(seconds[way]) for way in ("forward", "adjoint"))
    return {
        "probe": name,
        "mismatch": float(abs(difference)) / norms,
        "forward_cpu_s": forward,
        "adjoint_cpu_s": adjoint,
        "ratio": adjoint / forward,
        "runs_s": seconds,
    }


if __name__ == "__main__":
    sys.exit(main())
