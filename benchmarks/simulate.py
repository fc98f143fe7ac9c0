"""Channel data of a frame: this engine, PyMUST and FastSIMUS on one machine, the same scatterers, the same answer.

Workload: L11-5v, 15 plane waves (-10 to 10 degrees), attenuation 0.5 dB/cm/MHz, 20,000 scatterers in 38 x 40 mm, -100 dB.
Measured: wall time of `ussim.simulate` (all of it: checks, cells, spectra, record), warm. PyMUST and FastSIMUS simulate one
transmit a call and share nothing between calls: one transmit is timed and multiplied by 15. Excluded: imports, compilation.
First the answers are compared on a small medium; a peer that disagrees is not timed.

    python benchmarks/simulate.py                                     # PyMUST takes minutes
    python benchmarks/simulate.py --fastsimus-python PATH/bin/python  # an environment with fastsimus and jax
    python benchmarks/simulate.py --quick                             # a smoke test: a small medium, seconds

Operations are counted as the engine does them: a complex product is three real ones, padding of vectors left out. The peak
is what the cores do when they run fused multiply-adds on registers alone, measured by this script.

Result: benchmarks/results/simulate.json.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numba as nb
import numpy as np
from timing import RESULTS, machine, peak_memory_mb, time_calls, write_result

import ussim
from ussim.cells import make_cells
from ussim.engines.cpu.kernels.layout import LANES
from ussim.engines.cpu.kernels.simd import compiled, fma, load, store
from ussim.plan import make_plan

N_TRANSMITS = 15
AGREEMENT = 3e-4  # relative L2: PyMUST computes in float32 (5e-5) and fades samples below -100 dB
FASTSIMUS_AGREEMENT = 3e-2  # its float32 frequency step loses up to 1.5e-2 of RF


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scatterers", type=int, default=20_000, help="of the main workload")
    parser.add_argument("--must-scatterers", type=int, help="time PyMUST on fewer, scaled up linearly (default: all)")
    parser.add_argument("--no-must", action="store_true", help="leave PyMUST out")
    parser.add_argument("--fastsimus-python", metavar="PATH", help="Python of an environment with fastsimus and jax")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a small medium, few repeats")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "simulate.json")
    arguments = parser.parse_args()
    n = 300 if arguments.quick else arguments.scatterers
    repeats = 2 if arguments.quick else arguments.repeats

    acquisition = workload_acquisition(N_TRANSMITS)
    scatterers = workload_scatterers(n)
    timing = time_calls(lambda: ussim.simulate(scatterers, acquisition, engine="cpu"), repeats)
    operations = count_operations(scatterers, acquisition)
    peak = measure_peak()
    threads = nb.config.NUMBA_NUM_THREADS
    rate = operations / timing["median_s"] / 1e9
    result = {
        "workload": {
            "probe": "L11-5v",
            "transmits": N_TRANSMITS,
            "scatterers": n,
            "attenuation_db_cm_mhz": 0.5,
            "threshold_db": -100,
            "n_samples": ussim.simulate(scatterers, acquisition, engine="cpu").samples.shape[2],
        },
        "machine": machine(("ussim", "numba", "numpy", "scipy", "PyMUST")),
        "ussim": {
            **timing,
            "threads": threads,
            "gflop": operations / 1e9,
            "gflop_s": rate,
            "fma_peak_gflop_s_a_core": peak,
            "fraction_of_peak": rate / (peak * threads),
            "fraction_of_peak_in_cpu_time": operations / timing["cpu_s"] / 1e9 / peak,
            "peak_memory_mb": peak_memory_mb(),
        },
        "oracle": {"relative_error": error_against_oracle()},
    }
    report_ours(result)
    result["scaling"] = scaling(arguments.quick)
    if not arguments.no_must:
        timed = min(n, 100) if arguments.quick else min(n, arguments.must_scatterers or n)
        result["pymust"] = time_pymust(acquisition, scatterers, timed)
        report_peer("PyMUST", result["pymust"], timing["median_s"])
    if arguments.fastsimus_python:
        result["fastsimus"] = time_fastsimus(arguments.fastsimus_python, acquisition, scatterers)
        report_peer("FastSIMUS", result["fastsimus"], timing["median_s"])
    write_result(arguments.output, result)
    print(f"written: {arguments.output}")
    return 0


# --- the workload ----------------------------------------------------------------------------------------------------


def workload_acquisition(n_transmits: int) -> ussim.Acquisition:
    angles = np.deg2rad(np.linspace(-10, 10, n_transmits)) if n_transmits > 1 else np.zeros(1)
    return ussim.Acquisition(
        ussim.load_probe("L11-5v"), ussim.PlaneWaves(angles), ussim.Medium(1540.0, 0.5), n_subelements="must"
    )


def workload_scatterers(n: int) -> ussim.Scatterers:
    rng = np.random.default_rng(0)
    return ussim.Scatterers(rng.uniform(-19e-3, 19e-3, n), rng.uniform(5e-3, 45e-3, n), rng.rayleigh(size=n))


def count_operations(scatterers: ussim.Scatterers, acquisition: ussim.Acquisition) -> float:
    """Floating-point operations on scatterers x elements x frequencies.

    The recurrence (4 multiply-adds and 2 additions a sub-element), the sum of its parts, and two complex products a
    transmit (6 multiply-adds).
    """
    plan = make_plan(acquisition)
    cells = make_cells(scatterers.x, scatterers.z, plan, LANES)
    n_sub = plan.sub_x.shape[1]
    each = n_sub * (8 + 2) + 1 + acquisition.n_transmits * 2 * 3 * 2
    return float(np.sum(np.diff(cells.first) * cells.n_bins)) * acquisition.probe.n_elements * each


@compiled
def _fma_chains(numbers, n):
    """N times twelve independent multiply-adds of sixteen: enough to hide their latency."""
    a, b = load(numbers, 0), load(numbers, LANES)
    s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11 = a, b, a, b, a, b, a, b, a, b, a, b
    for _ in range(n):
        s0, s1, s2, s3 = fma(s0, a, b), fma(s1, a, b), fma(s2, a, b), fma(s3, a, b)
        s4, s5, s6, s7 = fma(s4, a, b), fma(s5, a, b), fma(s6, a, b), fma(s7, a, b)
        s8, s9, s10, s11 = fma(s8, a, b), fma(s9, a, b), fma(s10, a, b), fma(s11, a, b)
    store(numbers, 0, s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7 + s8 + s9 + s10 + s11)


@compiled
def _fewer_chains(numbers, n):
    """N times six: what AVX2's 16 registers of half the width hold, twice that many chains."""
    a, b = load(numbers, 0), load(numbers, LANES)
    s0, s1, s2, s3, s4, s5 = a, b, a, b, a, b
    for _ in range(n):
        s0, s1, s2, s3, s4, s5 = (
            fma(s0, a, b),
            fma(s1, a, b),
            fma(s2, a, b),
            fma(s3, a, b),
            fma(s4, a, b),
            fma(s5, a, b),
        )
    store(numbers, 0, s0 + s1 + s2 + s3 + s4 + s5)


def measure_peak() -> float:
    """GFLOP/s of one core on multiply-adds between registers, in its own processor time, all cores at work at once."""

    def run(_) -> float:
        numbers = np.full(2 * LANES, 0.5, dtype=np.float32)
        rates = []
        for _ in range(9):
            for chains, count, n in ((_fma_chains, 12, 500_000), (_fewer_chains, 6, 1_000_000)):
                start = time.thread_time()
                chains(numbers, n)
                rates.append(n * count * LANES * 2 / (time.thread_time() - start) / 1e9)
                numbers[:] = 0.5
        return max(rates)

    for chains in (_fma_chains, _fewer_chains):
        chains(np.full(2 * LANES, 0.5, dtype=np.float32), 1)
    with ThreadPoolExecutor(nb.config.NUMBA_NUM_THREADS) as pool:
        return float(np.mean(list(pool.map(run, range(nb.config.NUMBA_NUM_THREADS)))))


def error_against_oracle() -> float:
    """Relative L2 error of RF against the float64 oracle, 40 scatterers of the workload, 3 transmits."""
    acquisition, scatterers = workload_acquisition(3), workload_scatterers(40)
    expected = ussim.simulate(scatterers, acquisition, engine="reference").samples
    got = ussim.simulate(scatterers, acquisition, engine="cpu").samples
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def scaling(quick: bool) -> list[dict]:
    """Wall and processor time over scatterers at 15 transmits, and over transmits at 20,000 scatterers."""
    cases = [(n, N_TRANSMITS) for n in (1_000, 5_000, 20_000, 50_000, 100_000, 200_000)]
    cases += [(20_000, a) for a in (1, 3, 7, 31)]
    if quick:
        cases = [(100, N_TRANSMITS), (300, 1)]
    rows = []
    for n, n_transmits in cases:
        scatterers, acquisition = workload_scatterers(n), workload_acquisition(n_transmits)
        timing = time_calls(
            lambda s=scatterers, a=acquisition: ussim.simulate(s, a, engine="cpu"), repeats=3 if n <= 50_000 else 1
        )
        rows.append({"scatterers": n, "transmits": n_transmits, **timing, "peak_memory_mb": peak_memory_mb()})
        print(
            f"  {n:7d} scatterers, {n_transmits:2d} transmits: {timing['median_s']:7.3f} s ({timing['cpu_s']:.3f} s CPU)"
        )
    return rows


# --- peers -----------------------------------------------------------------------------------------------------------


def one_transmit(acquisition: ussim.Acquisition) -> ussim.Acquisition:
    return replace(acquisition, waves=ussim.PlaneWaves(acquisition.waves.angles[:1]))


def time_pymust(acquisition: ussim.Acquisition, scatterers: ussim.Scatterers, n_timed: int) -> dict:
    """Agreement on 60 scatterers, then the time of one transmit of `n_timed` scatterers, once: it takes minutes."""
    import pymust

    single = one_transmit(acquisition)

    def run(medium: ussim.Scatterers) -> np.ndarray:
        param = pymust.getparam("L11-5v")
        param.fs = acquisition.sampling_frequency
        param.attenuation = acquisition.medium.attenuation_db_cm_mhz
        param.c = acquisition.medium.speed_of_sound
        options = pymust.utils.Options()
        options.dBThresh = acquisition.threshold_db
        options.ParPool = False
        return pymust.simus(medium.x, medium.z, medium.reflectivity, single.transmit_delays[0], param, options)[0]

    few = part_of(scatterers, 60)
    agreement = compare(few, single, run(few), AGREEMENT, "PyMUST")
    start = time.perf_counter()
    run(part_of(scatterers, n_timed))
    seconds = time.perf_counter() - start
    return peer_row(agreement, seconds, n_timed, len(scatterers))


FASTSIMUS_SCRIPT = """
import sys, time
import numpy as np
import jax.numpy as jnp
import fast_simus
from fast_simus.transducer_presets import L11_5v
data = np.load(sys.argv[1])
params, medium = L11_5v(), fast_simus.MediumParams(attenuation=float(data["attenuation"]))
def run(n):
    points = jnp.asarray(np.stack([data["x"][:n], data["z"][:n]], axis=-1), dtype=jnp.float32)
    answer = fast_simus.simus(points, jnp.asarray(data["reflectivity"][:n], dtype=jnp.float32),
                              jnp.asarray(data["delays"], dtype=jnp.float32), params, medium,
                              fs=float(data["fs"]), db_thresh=float(data["threshold"]))
    return np.asarray(answer.rf)
few = run(int(data["few"]))
run(int(data["n"])) if int(data["warm"]) else None
start = time.perf_counter()
run(int(data["n"]))
np.savez(sys.argv[2], few=few, seconds=time.perf_counter() - start)
"""


def time_fastsimus(python: str, acquisition: ussim.Acquisition, scatterers: ussim.Scatterers) -> dict:
    """Return the same in an environment of its own: JAX on the CPU, one transmit, compiled before it is timed."""
    single, few = one_transmit(acquisition), part_of(scatterers, 60)
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder) / "given.npz", Path(folder) / "answer.npz"
        np.savez(
            given,
            x=scatterers.x,
            z=scatterers.z,
            reflectivity=scatterers.reflectivity,
            delays=single.transmit_delays[0, 0],
            fs=acquisition.sampling_frequency,
            attenuation=acquisition.medium.attenuation_db_cm_mhz,
            threshold=acquisition.threshold_db,
            n=len(scatterers),
            few=len(few),
            warm=len(scatterers) <= 2_000,  # at full size compilation is a small part of a long run
        )
        subprocess.run([python, "-c", FASTSIMUS_SCRIPT, str(given), str(answer)], check=True)
        with np.load(answer) as arrays:
            agreement = compare(few, single, arrays["few"], FASTSIMUS_AGREEMENT, "FastSIMUS")
            return peer_row(agreement, float(arrays["seconds"]), len(scatterers), len(scatterers))


def part_of(scatterers: ussim.Scatterers, n: int) -> ussim.Scatterers:
    return ussim.Scatterers(scatterers.x[:n], scatterers.z[:n], scatterers.reflectivity[:n])


def compare(
    scatterers: ussim.Scatterers, acquisition: ussim.Acquisition, rf: np.ndarray, tolerance: float, name: str
) -> float:
    """Return the relative L2 difference of a peer's RF (n_samples, n_elements) from ours.

    Scales are fitted: theirs depends on the length of their transform.
    """
    ours = ussim.simulate(scatterers, acquisition, engine="cpu", n_samples=len(rf)).samples[0].T.astype(np.float64)
    theirs = np.asarray(rf, dtype=np.float64)
    scaled = ours * (np.vdot(ours, theirs) / np.vdot(ours, ours))
    difference = float(np.linalg.norm(scaled - theirs) / np.linalg.norm(theirs))
    if not difference < tolerance:
        raise SystemExit(f"{name}: expected RF within {tolerance:g} of ours, got {difference:.2g}: not timed")
    return difference


def peer_row(agreement: float, seconds: float, n_timed: int, n: int) -> dict:
    return {
        "difference_from_ussim": agreement,
        "scatterers_timed": n_timed,
        "one_transmit_s": seconds,
        "all_transmits_s": seconds * N_TRANSMITS * n / n_timed,
        "how": f"one transmit timed once, times {N_TRANSMITS}"
        + (f", times {n}/{n_timed} scatterers" if n_timed != n else ""),
    }


def report_ours(result: dict) -> None:
    ours, n = result["ussim"], result["workload"]["scatterers"]
    print(
        f"ussim, {n} scatterers, {N_TRANSMITS} transmits: {ours['median_s']:.3f} s "
        f"({ours['min_s']:.3f} to {ours['max_s']:.3f}; {ours['cpu_s']:.2f} s of CPU on {ours['threads']} threads)\n"
        f"  {ours['gflop_s']:.0f} GFLOP/s, {ours['fraction_of_peak']:.0%} of {ours['threads']} x "
        f"{ours['fma_peak_gflop_s_a_core']:.0f} (by CPU time {ours['fraction_of_peak_in_cpu_time']:.0%}); "
        f"peak memory {ours['peak_memory_mb']:.0f} MB; error against the oracle {result['oracle']['relative_error']:.1e}"
    )


def report_peer(name: str, peer: dict, ours: float) -> None:
    print(
        f"{name}: {peer['all_transmits_s']:.1f} s ({peer['how']}); RF within {peer['difference_from_ussim']:.1e} of ours; "
        f"ussim is {peer['all_transmits_s'] / ours:.0f} times as fast"
    )


if __name__ == "__main__":
    sys.exit(main())
