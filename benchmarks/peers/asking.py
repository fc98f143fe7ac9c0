"""The cases of the comparison; a toolkit is asked in a process of its own, within limits of time and memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from environments import PEERS, NotInstalledError, python_of
from timing import RESULTS, machine, write_result

import ussim

TABLES = RESULTS / "peers"
TIME_LIMIT = (
    240.0  # s of a processor, of one question; by the wall clock, on a machine that others use, four times that
)
MEMORY_LIMIT = 10e9  # bytes resident, of one question
PROBE = "L11-5v"
FEWER_THREADS = {
    "pymust": 1
}  # its work is serial: on a busy machine its BLAS's second thread spins, and all takes longer


def acquisition_of(n_transmits: int, attenuation: float = 0.5) -> ussim.Acquisition:
    """L11-5v, plane waves of -10 to 10 degrees; elements cut as MUST cuts them, so that all simulate the same."""
    angles = np.deg2rad(np.linspace(-10, 10, n_transmits)) if n_transmits > 1 else np.zeros(1)
    return ussim.Acquisition(
        ussim.load_probe(PROBE), ussim.PlaneWaves(angles), ussim.Medium(1540.0, attenuation), n_subelements="must"
    )


def scatterers_of(n: int) -> ussim.Scatterers:
    """Return random scatterers in 38 x 40 mm."""
    rng = np.random.default_rng(0)
    return ussim.Scatterers(rng.uniform(-19e-3, 19e-3, n), rng.uniform(5e-3, 45e-3, n), rng.rayleigh(size=n))


def simulation_case(scatterers: ussim.Scatterers, acquisition: ussim.Acquisition, shape=(256, 256)) -> dict[str, Any]:
    """Return scatterers, acquisition and a grid as plain arrays."""
    grid = ussim.ImageGrid(x=np.linspace(-19e-3, 19e-3, shape[1]), z=np.linspace(5e-3, 45e-3, shape[0]))
    return plain(acquisition) | {
        "x": scatterers.x,
        "z": scatterers.z,
        "reflectivity": scatterers.reflectivity,
        "sampling_frequency": acquisition.sampling_frequency,
        "n_samples": ussim.simulate(outermost(scatterers), acquisition, engine="cpu").samples.shape[2],
        "grid_x": grid.x,
        "grid_z": grid.z,
    }


def outermost(scatterers: ussim.Scatterers) -> ussim.Scatterers:
    """Return the scatterers at the ends of x and z: they make the record as long as all of them do."""
    where = [int(end(axis)) for axis in (scatterers.x, scatterers.z) for end in (np.argmin, np.argmax)]
    return ussim.Scatterers(scatterers.x[where], scatterers.z[where], np.ones(4))


def beamforming_case(n_transmits: int) -> tuple[dict[str, Any], ussim.IQData, ussim.ImageGrid]:
    """Return IQ of 1,500 scatterers and a grid of 256 x 256, as plain arrays and as ours."""
    acquisition = acquisition_of(n_transmits, 0.0)
    iq = ussim.demodulate(ussim.simulate(scatterers_of(1500), acquisition, engine="cpu"))
    grid = ussim.ImageGrid(x=np.linspace(-19e-3, 19e-3, 256), z=np.linspace(5e-3, 43e-3, 256))
    case = {"samples": iq.samples, "x": grid.x, "z": grid.z, "sampling_frequency": iq.sampling_frequency}
    return plain(acquisition) | case, iq, grid


def plain(acquisition: ussim.Acquisition) -> dict[str, Any]:
    """Return what of an acquisition every toolkit is told."""
    probe = acquisition.probe
    return {
        "probe": probe.name,
        "angles": acquisition.waves.angles,
        "delays": acquisition.transmit_delays[:, 0],
        "frequency": probe.center_frequency,
        "attenuation": acquisition.medium.attenuation_db_cm_mhz,
        "threshold_db": acquisition.threshold_db,
        "element_x": probe.element_x,
        "pitch": probe.pitch,
        "element_width": probe.element_width,
        "bandwidth": probe.bandwidth,
    }


def ask(peer: str, task: str, case: dict[str, Any], repeats: int = 3, threads: int = 2) -> tuple[dict[str, Any], Any]:
    """Return a toolkit's row and its answer; a row that `did_not_run` says why, and its answer is None."""
    try:
        python = python_of(peer)
    except NotInstalledError as error:
        return {"toolkit": peer, "did_not_run": str(error)}, None
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder) / "given.npz", Path(folder) / "answer.npz"
        np.savez(given, **case)
        command = [
            python,
            str(Path(__file__).with_name("adapters.py")),
            peer,
            task,
            str(given),
            str(answer),
            str(repeats),
        ]
        threads = min(threads, FEWER_THREADS.get(peer, threads))
        reason = watch(command, threads, ours=peer == "ussim")
        if reason or not answer.exists():
            return {"toolkit": peer, "did_not_run": reason or "no answer"}, None
        found = dict(np.load(answer))
    wall, cpu = np.atleast_2d(found["seconds"]).T
    n_transmits = len(case["delays"])
    timed = int(found.get("transmits_timed", n_transmits))
    each = float(found.get("build_seconds", 0.0))  # of what must be made for each transmit
    row = {
        "toolkit": peer,
        "version": str(found["version"]),
        "frame_s": float(wall.min() + each) * n_transmits / timed,  # of the call that others disturbed least
        "frame_cpu_s": float(cpu.min() + each) * n_transmits / timed,
        "slowest_s": float(wall.max() + each) * n_transmits / timed,
        "transmits_timed": timed,
        "calls": len(wall),
        "peak_memory_mb": float(found["peak_memory_mb"]),
    }
    row |= {key: float(found[key]) for key in ("build_seconds", "first_call_seconds") if key in found}
    return row, found["answer"]


def watch(command: list[str], threads: int, ours: bool) -> str:
    """Run a command on some cores; return why it did not end well, "" if it did."""
    number = str(threads)
    settings = {
        "OMP_NUM_THREADS": number,
        "NUMBA_NUM_THREADS": number,
        "OPENBLAS_NUM_THREADS": number,
        "JAX_PLATFORMS": "cpu",
    }
    environment = os.environ | settings | ({} if ours else {"PYTHONPATH": ""})
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=environment)
        child = psutil.Process(process.pid)
        if hasattr(child, "cpu_affinity"):  # JAX counts cores, not variables
            child.cpu_affinity(child.cpu_affinity()[:threads])
        start, most = time.monotonic(), 0.0
        while process.poll() is None:
            try:
                most, spent = max(most, child.memory_info().rss), sum(child.cpu_times()[:2])
            except psutil.NoSuchProcess:  # it has just ended
                continue
            late = spent > TIME_LIMIT or time.monotonic() - start > 4 * TIME_LIMIT
            if late or most > MEMORY_LIMIT:
                process.kill()
                process.wait()
                return f"stopped after {TIME_LIMIT:.0f} s" if late else f"stopped at {most / 1e9:.0f} GB"
            time.sleep(0.05)
        errors.seek(0)
        lines = errors.read().strip().splitlines()
    return shorter((lines or [f"exit code {process.returncode}"])[-1]) if process.returncode else ""


def shorter(error: str) -> str:
    """Return an error of a peer in few words."""
    asked = re.search(r"Out of memory allocating (\d+) bytes", error) or re.search(
        r"Unable to allocate ([\d.]+ \w+)", error
    )
    if asked:
        return f"needs {float(asked[1]) / 1e9:.0f} GB" if asked[1].isdigit() else f"needs {asked[1]}"
    return error


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the relative L2 difference over what both have, 0 to 1; the scale, by a transform's length, is fitted."""
    n_transmits, n = min(len(found), len(expected)), min(found.shape[-1], expected.shape[-1])
    ours, theirs = expected[:n_transmits, ..., :n].astype(complex), found[:n_transmits, ..., :n].astype(complex)
    scale = np.vdot(ours, theirs) / np.vdot(ours, ours)
    return float(np.linalg.norm(theirs - scale * ours) / np.linalg.norm(theirs))


def not_here(task: str, done: set[str]) -> list[dict[str, Any]]:
    """Return the rows of toolkits that have no such step, or that cannot be had."""
    without = {"simulate": "no simulator", "beamform": "no beamformer", "image": "not both simulator and beamformer"}
    rows = [{"toolkit": name, "did_not_run": peer.missing or without[task]} for name, peer in PEERS.items()]
    return [row for row in rows if row["toolkit"] not in done]


def save(name: str, what: str, result: dict[str, Any]) -> None:
    """Write a claim's file, with the machine it was measured on."""
    record = {"what": " ".join(what.split()), "machine": machine(("ussim", "numba", "numpy", "scipy")), **result}
    write_result(TABLES / f"{name}.json", record)
    for row in result["rows"]:
        print("  ", {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
