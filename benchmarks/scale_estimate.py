"""Time, memory, storage and price of datasets of 10^4, 10^6 and 10^8 pairs, from what one pair was measured to cost.

    python benchmarks/scale_estimate.py --measure    # builds 12 pairs: what a pair costs here; then the table
    python benchmarks/scale_estimate.py              # the table alone

Measured: processor time and bytes of a pair (L11-5v, 15 plane waves, 256 x 256 pixels, built-in MRI, defaults) and the peak
memory of the process that builds; what planning, scheduling and collecting add (scale.json). Not measured: any card. Its
frames per second are those that docs/gpu.md derives from the count of instructions, for 20,000 scatterers, taken over by
the number of scatterers of such an image. Prices are parameters below. Beyond 10^6 pairs the figures are extended linearly.

Result: benchmarks/results/scale_estimate.json; docs/scale.md has its table (benchmarks/page_tables.py).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from timing import RESULTS, machine, peak_memory_mb, write_result

FILE = RESULTS / "scale_estimate.json"
COUNTS = (10**4, 10**6, 10**8)
PROBE = "L11-5v"
CARD_FRAMES_PER_S = 110.0  # docs/gpu.md, scatterers to B-mode, H100, 20,000 scatterers: the lower end of the estimate
CARD_SCATTERERS = 20_000
LAPTOP_CORES = 8
PRICES = {
    "core_hour": 0.04,
    "card_hour": 2.5,
    "gb_month": 0.023,
}  # US dollars: round numbers of cloud lists; put in yours
MOST_MEASURED = 10**6


def measure(n_pairs: int = 12) -> dict[str, Any]:
    """Build pairs one after the other in this process; return what one of them costs."""
    import ussim
    from datagen import Recipe, build

    with tempfile.TemporaryDirectory() as folder:
        build(Recipe(source="demo", probes=(PROBE,), limit=1), Path(folder) / "first.zarr")  # compiled, read
        costs = {}
        for n in (n_pairs // 4, n_pairs):  # the difference is free of what a build costs once
            start, wall = time.process_time(), time.perf_counter()
            store = Path(folder) / f"{n}.zarr"
            made = build(Recipe(source="demo", probes=(PROBE,), limit=n), store)
            arrays = [path for name in ("hq", "lq") for path in (store / name).rglob("*") if path.is_file()]
            costs[made.n_built] = (
                time.process_time() - start,
                time.perf_counter() - wall,
                sum(p.stat().st_size for p in arrays),
            )
    (few, less), (many, more) = sorted(costs.items())
    cpu, wall, size = ((b - a) / (many - few) for a, b in zip(less, more, strict=True))
    acquisition = ussim.Acquisition(ussim.load_probe(PROBE), ussim.imaging_waves(ussim.load_probe(PROBE)))
    grid = ussim.ImageGrid.for_acquisition(acquisition, shape=(256, 256))
    scatterers = len(ussim.scatterers_from_image(np.ones((256, 256)), grid, acquisition, seed=0))
    return {
        "pairs": many,
        "cpu_s_per_pair": cpu,
        "wall_s_per_pair": wall,
        "bytes_per_pair": size,
        "scatterers_of_an_image": scatterers,
        "process_peak_mb": peak_memory_mb(),
        "machine": machine(("numpy", "numba", "zarr")),
    }


def pipeline(scale: dict[str, Any]) -> dict[str, float]:
    """Return what a million samples that cost nothing show: processor time and memory per sample, and fixed memory."""
    few, many = (scale["rows"][str(n)] for n in (10**5, 10**6))
    n = many["samples"] - few["samples"]
    per_sample = (many["build_peak_mb"] - few["build_peak_mb"]) / n
    return {
        "cpu_s_per_pair": (many["build_cpu_s"] - few["build_cpu_s"]) / n,
        "scheduler_cpu_s_per_pair": scale["scheduler"]["scheduler_us_per_sample"] * 1e-6,
        "memory_mb": few["build_peak_mb"] - per_sample * few["samples"],
        "memory_mb_per_pair": per_sample,
        "manifest_bytes_per_pair": 1e6 * many["manifest_mb"] / many["samples"],
        "table_bytes_per_pair": 1e6 * many["table_mb"] / many["samples"],
    }


def estimates(pair: dict[str, Any], overhead: dict[str, float]) -> list[dict[str, Any]]:
    """Return a row per machine and number of pairs."""
    card_s = pair["scatterers_of_an_image"] / CARD_SCATTERERS / CARD_FRAMES_PER_S
    stored = pair["bytes_per_pair"] + overhead["manifest_bytes_per_pair"] + overhead["table_bytes_per_pair"]
    machines = [  # name, seconds per pair, dollars per hour, workers, measured
        ("laptop", pair["cpu_s_per_pair"] / LAPTOP_CORES, LAPTOP_CORES * PRICES["core_hour"], LAPTOP_CORES, True),
        ("one H100", card_s, PRICES["card_hour"], 1, False),
        ("64 GPUs", card_s / 64, 64 * PRICES["card_hour"], 64, False),
    ]
    rows = []
    for name, seconds, per_hour, workers, measured in machines:
        for count in COUNTS:
            # One scheduler hands out and collects: no number of workers is faster than it.
            each = max(seconds, overhead["scheduler_cpu_s_per_pair"])
            hours = count * each / 3600
            rows.append(
                {
                    "machine": name,
                    "pairs": count,
                    "hours": hours,
                    "scheduler_share": overhead["scheduler_cpu_s_per_pair"] / each,
                    "scheduler_memory_gb": (overhead["memory_mb"] + overhead["memory_mb_per_pair"] * count) / 1e3,
                    "worker_memory_gb": workers * pair["process_peak_mb"] / 1e3,
                    "storage_gb": stored * count / 1e9,
                    "compute_usd": hours * per_hour,
                    "storage_usd_per_month": stored * count / 1e9 * PRICES["gb_month"],
                    "measured": measured and count <= MOST_MEASURED,
                    "kind": "not measured" if not measured else "from measured costs",
                }
            )
    return rows


def main() -> None:
    """Measure if asked, compute, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="build pairs here first")
    arguments = parser.parse_args()
    pair = measure() if arguments.measure else json.loads(FILE.read_text())["pair"]
    write_result(FILE, result(pair))
    import page_tables

    page_tables.main()


def result(pair: dict[str, Any]) -> dict[str, Any]:
    """Return all that the file holds, from the cost of a pair and the other files."""
    overhead = pipeline(json.loads((RESULTS / "scale.json").read_text()))
    parameters = {
        "laptop_cores": LAPTOP_CORES,
        "card_frames_per_s": CARD_FRAMES_PER_S,
        "card_scatterers": CARD_SCATTERERS,
        "prices_usd": PRICES,
    }
    return {"pair": pair, "pipeline": overhead, "parameters": parameters, "rows": estimates(pair, overhead)}


if __name__ == "__main__":
    main()
