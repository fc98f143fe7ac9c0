"""Innermost loop of the simulator on wide and narrow registers, against the multiply-adds that the processor can do.

Measured, in turn, one thread each, by processor time: code for x86-64-v4 (AVX-512) and x86-64-v3 (AVX2) on the machine at
hand, the latter also with all sums of `complex_outer` at once, as AVX-512's registers hold them. The peak is that of
multiply-adds between registers alone, compiled for the same processor. Counted in the machine code, also of processors that
are not at hand: vectors that the loops of the products keep on the stack.

    python benchmarks/registers.py           # a minute or two; needs AVX-512
    python benchmarks/registers.py --quick   # a smoke test

Result: benchmarks/results/registers.json.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
from simulate import N_TRANSMITS, count_operations, measure_peak, workload_acquisition, workload_scatterers
from timing import RESULTS, machine, write_result

import ussim
from ussim.engines.cpu.kernels import simd
from ussim.engines.cpu.kernels.layout import LANES, NARROW_SUMS, ROWS, TRIPLE, WIDE, aligned_empty
from ussim.engines.cpu.kernels.simd import compiled, complex_outer
from ussim.engines.cpu.native import machine as native
from ussim.engines.cpu.native import shipped

N_ELEMENTS = 128
LINUX, APPLE, ARM = "x86_64-unknown-linux-gnu", "arm64-apple-macosx", "aarch64-unknown-linux-gnu"
MEASURED = {  # processor as LLVM names it; whether all sums are held at once though registers are narrow
    "x86-64-v4": ("x86-64-v4", False),
    "x86-64-v3": ("x86-64-v3", False),
    "x86-64-v3, all sums at once": ("x86-64-v3", True),
}
COUNTED = {
    "x86-64-v4": LINUX,
    "znver4": LINUX,
    "x86-64-v3": LINUX,
    "znver3": LINUX,
    "alderlake": LINUX,
    "apple-m1": APPLE,
    "neoverse-n1": ARM,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="one round, a small medium")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "registers.json")
    arguments = parser.parse_args()
    n = 500 if arguments.quick else 20_000
    if arguments.serve:
        serve(arguments.serve[0] == "True", int(arguments.serve[1]))
        return 0
    result = {
        "machine": machine(("ussim", "numba", "llvmlite")),
        "sums_at_once": {"wide": 3 * ROWS, "narrow": NARROW_SUMS},
        "measured": measure(1 if arguments.quick else arguments.rounds, n),
        "counted": count(),
    }
    write_result(arguments.output, result)
    print(f"written: {arguments.output}")
    return 0


# --- measured --------------------------------------------------------------------------------------------------------


def measure(rounds: int, n_scatterers: int) -> dict[str, dict[str, float]]:
    """Median over the rounds of each kind of code's rates, GFLOP/s of processor time, and their fractions of its peak."""
    workers = {}
    for name, (cpu, at_once) in MEASURED.items():
        one = dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"), "1")
        workers[name] = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(at_once), str(n_scatterers)],
            env=os.environ | one | {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            assert worker.stdin
            assert worker.stdout
            print(file=worker.stdin, flush=True)
            words = worker.stdout.readline().split()
            rows[name].append(dict(zip(words[::2], map(float, words[1::2]), strict=True)))
    for worker in workers.values():
        worker.communicate()
    found: dict[str, dict[str, float]] = {}
    for name, runs in rows.items():
        rates = {what: statistics.median(run[what] for run in runs) for what in runs[0]}
        found[name] = {f"{what}_gflop_s": rate for what, rate in rates.items()}
        found[name] |= {f"{what}_of_peak": rate / rates["peak"] for what, rate in rates.items() if what != "peak"}
        said = ", ".join(f"{what} {rate:.1f} ({rate / rates['peak']:.0%})" for what, rate in rates.items())
        print(f"{name}: {said} GFLOP/s")
    return found


def serve(at_once: bool, n_scatterers: int) -> None:
    """Print the rates in this process, one line for each that comes in."""
    if at_once:
        simd._wide.value = True
    acquisition, scatterers = workload_acquisition(N_TRANSMITS), workload_scatterers(n_scatterers)
    operations = count_operations(scatterers, acquisition)
    rng = np.random.default_rng(0)
    drive, field, source, sums = (
        aligned_empty(n) for n in (N_ELEMENTS * TRIPLE, N_ELEMENTS * 3 * WIDE, WIDE * TRIPLE, N_ELEMENTS * TRIPLE)
    )
    for numbers in (drive, field, source):
        numbers[:] = rng.normal(size=len(numbers))
    products = 400 * N_TRANSMITS * N_ELEMENTS * 3 * 2 * LANES
    echoes = 200 * N_ELEMENTS * WIDE * 3 * 2 * LANES

    def rates() -> dict[str, float]:
        found = {
            "peak": measure_peak(),
            "transmit": rate(products, lambda: _transmit(sums, drive, field, N_TRANSMITS, 400)),
            "receive": rate(echoes, lambda: _receive(sums, field, source, 200)),
        }
        if not at_once:  # the shipped kernels hold what fits
            found["simulate"] = rate(operations, lambda: ussim.simulate(scatterers, acquisition, engine="cpu"), 1)
        return found

    rates()
    for _ in sys.stdin:
        print(*(word for what, value in rates().items() for word in (what, f"{value:.3f}")), flush=True)


def rate(operations: float, work: Callable[[], object], times: int = 25) -> float:
    """GFLOP/s of this process's processor time, the best of some short calls, as the peak is."""
    seconds = []
    for _ in range(times):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return operations / min(seconds) / 1e9


@compiled
def _transmit(sums, drive, field, n_transmits, times):
    """Pressure of 16 scatterers from transmits and elements, as in `cells`."""
    for _ in range(times):
        sums[: n_transmits * TRIPLE] = 0
        for a in range(0, n_transmits, ROWS):
            rows = min(ROWS, n_transmits - a)
            complex_outer(
                sums, a * TRIPLE, drive, a, LANES, 1, TRIPLE, field, 0, WIDE, 3 * WIDE, N_ELEMENTS, rows
            )  # fmt: skip


@compiled
def _receive(sums, field, source, times):
    """Echoes of 16 transmits from 32 scatterers to elements, as in `cells`."""
    sums[:] = 0
    for _ in range(times):
        for e in range(0, N_ELEMENTS, ROWS):
            complex_outer(
                sums, e * TRIPLE, field, e * 3 * WIDE, WIDE, 3 * WIDE, 1, source, 0, LANES, TRIPLE, WIDE, ROWS
            )  # fmt: skip


# --- counted ---------------------------------------------------------------------------------------------------------


def count() -> dict[str, dict[str, object]]:
    """Multiply-adds in the loops of `cell_spectrum` that do nothing else, and vectors these keep on the stack."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    ask, found = native.has_wide_registers, {}
    for cpu, triple in COUNTED.items():
        target = native.target_machine(cpu, "", triple)
        wide = ask(target)
        row: dict[str, object] = {"wide": wide}
        for key, answer in {"as_compiled": wide, "all_sums_at_once": True}.items():
            native.has_wide_registers = lambda target, answer=answer: answer
            try:
                module = native.optimized(shipped.bitcode("cell_spectrum"), target)
            finally:
                native.has_wide_registers = ask
            loops = list(_products(target.emit_assembly(module)))
            multiply_adds = sum(len(re.findall(r"\b(?:vfmadd|fmla)", loop)) for loop in loops)
            on_stack = sum(len(re.findall(r"\(%rsp\).*[xyz]mm|[xyz]mm.*\(%rsp\)|\bq\d+.*\[sp", loop)) for loop in loops)
            row[key] = {"multiply_adds": multiply_adds, "vectors_on_stack": on_stack}
        found[cpu] = row
        print(f"{cpu}: {row}")
    return found


def _products(assembly: str) -> Iterator[str]:
    """Loops of one block whose arithmetic is multiply-adds alone."""
    lines, label = assembly.splitlines(), 0
    for i, line in enumerate(lines):
        if re.match(r"\.?\w+:", line):
            label = i
        jump = re.match(r"\s+(?:j\w+|b\.\w+|cbn?z\s+\w+,)\s+(\S+)$", line)
        if jump and lines[label].startswith(f"{jump[1]}:"):
            loop = "\n".join(lines[label:i])
            others = r"^\s+(v(mul|add|sub|sqrt|div|fm(sub|addsub)|fnm)|f(mul|add|sub|sqrt|div|mls))"
            if re.search(r"\b(vfmadd|fmla)", loop) and not re.search(others, loop, re.M):
                yield loop


if __name__ == "__main__":
    sys.exit(main())
