"""Delay-and-sum against PyMUST, ustb and ultraspy on one machine, on the same data, after each gave the same image.

What is measured: from demodulated channel data in memory to the compounded complex image, delays included; compiled code is
warm (the first call's time is given apart). 15 plane waves over ±10 degrees, L11-5v, 128 channels, 256 x 256 pixels, linear
interpolation, all elements (f-number 0), which every package does alike; ours also with its automatic f-number, which skips
elements. PyMUST builds a sparse matrix for one transmit and applies it: one is timed, its 15 transmits are 15 times that.

Rate: transmits x channels x pixels per second ("nominal": elements outside the aperture counted as if they were summed).
Images differ by design: ultraspy takes the first element's arrival where MUST and ours interpolate the aperture four times;
ustb takes the plane wave of an endless array, also where the real one sends no ray.

    python benchmarks/beamform.py [--peers-python PATH] [--only ours pymust ustb ultraspy] [--repeat 5]

Peers run in the interpreter given, so that they need not be installed beside this package (`pip install .[peers]`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

RESULTS = Path(__file__).parent / "results" / "beamform.json"
SPEED_OF_SOUND = 1540.0
N_SCATTERERS = 1500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument("--only", nargs="+", default=["ours", *PEERS], choices=["ours", *PEERS])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--worker", nargs=3, metavar=("PEER", "CASE", "ANSWER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        run_peer(*options.worker, options.repeat)
        return
    iq, grid, case = make_case()
    import ussim

    expected = ussim.delay_and_sum(iq, grid, 0)
    rows: list[dict] = []
    if "ours" in options.only:
        rows += time_ours(iq, grid, options.repeat)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.npz"
        np.savez(path, **case)
        for peer in PEERS:
            if peer in options.only:
                rows.append(ask_peer(peer, options, path, Path(folder) / f"{peer}.npz", expected))
    report = {
        "what": " ".join(" ".join(__doc__.split("\n\n")[1:3]).split()),
        "machine": machine(),
        "pixel_channels": n_channels_of(case),
        "rows": rows,
    }
    if options.out.exists():  # rows of packages not asked for stay
        old = json.loads(options.out.read_text())["rows"]
        rows += [row for row in old if row["package"] not in ("ussim" if o == "ours" else o for o in options.only)]
        report["rows"] = rows
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    for row in rows:
        print(json.dumps(row))


def make_case():
    """Demodulated echoes of some scatterers, the grid, and both as plain arrays."""
    import ussim

    probe = ussim.load_probe("L11-5v")
    acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(np.deg2rad(np.linspace(-10, 10, 15))))
    rng = np.random.default_rng(0)
    x, z = rng.uniform(-19e-3, 19e-3, N_SCATTERERS), rng.uniform(5e-3, 43e-3, N_SCATTERERS)
    scatterers = ussim.Scatterers(x=x, z=z, reflectivity=rng.rayleigh(1, N_SCATTERERS))
    iq = ussim.demodulate(ussim.simulate(scatterers, acquisition))
    grid = ussim.ImageGrid.for_acquisition(acquisition, (256, 256))
    case = {
        "samples": iq.samples,
        "delays": acquisition.transmit_delays[:, 0],
        "angles": acquisition.waves.angles,
        "x": grid.x,
        "z": grid.z,
        "element_x": probe.element_x,
        "sampling_frequency": iq.sampling_frequency,
        "frequency": iq.demodulation_frequency,
        "pitch": probe.pitch,
        "element_width": probe.element_width,
        "bandwidth": probe.bandwidth,
    }
    return iq, grid, case


def time_ours(iq, grid, repeat: int) -> list[dict]:
    """Ours with all elements and with the automatic f-number, and the demodulation before."""
    import ussim
    from ussim.beamforming.apertures import automatic_f_number

    probe = iq.acquisition.probe
    x, z = grid.mesh()
    rows = []
    for f_number in (0.0, automatic_f_number(probe, SPEED_OF_SOUND)):
        seconds = timed(lambda f_number=f_number: ussim.delay_and_sum(iq, grid, f_number), repeat)
        nominal = iq.samples.shape[0] * iq.samples.shape[1] * x.size
        half = z / (2 * f_number) if f_number else np.full_like(z, np.inf)
        summed = iq.samples.shape[0] * sum(int((np.abs(x - e) <= half).sum()) for e in probe.element_x)
        rows.append({"package": "ussim", "f_number": round(f_number, 3), **spread(seconds)})
        fastest = rows[-1]["seconds_min"]
        rows[-1] |= {"nominal_rate": nominal / fastest, "summed_rate": summed / fastest}
        rows[-1]["nominal_rate_a_processor_second"] = nominal / rows[-1]["cpu_seconds_min"]
    rf = ussim.RFData(np.ascontiguousarray(iq.samples.real), iq.acquisition, iq.sampling_frequency)
    rows.append({"package": "ussim", "step": "demodulate", **spread(timed(lambda: ussim.demodulate(rf), repeat))})
    return rows


def ask_peer(peer: str, options, case: Path, answer: Path, expected: np.ndarray) -> dict:
    """One peer's row: timed in its own interpreter, its image compared with ours."""
    command = [
        options.peers_python,
        __file__,
        "--repeat",
        str(options.repeat),
        "--worker",
        peer,
        str(case),
        str(answer),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""})
    if done.returncode or not answer.exists():
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        return {"package": peer, "did_not_run": reason}
    result = dict(np.load(answer))
    row = {"package": peer, "version": str(result["version"]), "f_number": 0.0, **spread(result["seconds"])}
    for key in ("build_seconds", "transmits_timed", "first_call_seconds"):
        if key in result:
            row[key] = float(result[key])
    compared = expected if "expected_transmit" not in result else one_transmit(case, int(result["expected_transmit"]))
    row["image_differs_from_ours_by"] = float(np.linalg.norm(result["image"] - compared) / np.linalg.norm(compared))
    transmits = float(result.get("transmits_timed", 15))
    arrays = np.load(case)
    pixel_channels = n_channels_of(arrays) * transmits / len(arrays["samples"])
    row["nominal_rate"] = pixel_channels / row["seconds_min"]
    if "build_seconds" in row:
        row["nominal_rate_with_build"] = pixel_channels / (row["seconds_min"] + row["build_seconds"])
    return row


def one_transmit(case: Path, i: int) -> np.ndarray:
    """Our image of one transmit of the case."""
    import ussim

    arrays = np.load(case)
    acquisition = ussim.Acquisition(ussim.load_probe("L11-5v"), ussim.CustomTransmits(arrays["delays"][i]))
    rate, frequency = float(arrays["sampling_frequency"]), float(arrays["frequency"])
    iq = ussim.IQData(arrays["samples"][i : i + 1], acquisition, rate, frequency)
    return ussim.delay_and_sum(iq, ussim.ImageGrid(x=arrays["x"], z=arrays["z"]), 0)


# --- peers, each on plain arrays -------------------------------------------------------------------------------------


def run_peer(peer: str, case: str, answer: str, repeat: int) -> None:
    """In the peers' interpreter: image and times of one peer."""
    np.savez(answer, **PEERS[peer](SimpleNamespace(**np.load(case)), repeat))


def run_pymust(case, repeat: int) -> dict:
    """Return the matrix of one (the middle) transmit, built and applied."""
    import pymust
    from pymust.utils import Param

    i = len(case.samples) // 2
    parameters = Param()
    parameters.fs, parameters.fc, parameters.c = float(case.sampling_frequency), float(case.frequency), SPEED_OF_SOUND
    parameters.pitch, parameters.width = float(case.pitch), float(case.element_width)
    parameters.bandwidth, parameters.Nelements, parameters.fnumber = 100 * float(case.bandwidth), len(case.element_x), 0
    iq = case.samples[i].T
    x, z = np.meshgrid(case.x, case.z)
    start = time.perf_counter()
    matrix = pymust.dasmtx(1j * np.array(iq.shape), x, z, case.delays[i : i + 1], parameters).tocsr()
    build = time.perf_counter() - start
    column = iq.flatten(order="F")
    seconds = timed(lambda: matrix @ column, repeat)
    image = (matrix @ column).reshape(x.shape, order="F")
    return {
        "image": image,
        "seconds": seconds,
        "build_seconds": build,
        "transmits_timed": 1,
        "expected_transmit": i,
        "version": version("pymust"),
    }


def run_ustb(case, repeat: int) -> dict:
    from ustb.enums import Dimension, Wavefront
    from ustb.midprocess import DAS

    x, z = (axis.ravel() for axis in np.meshgrid(case.x, case.z))
    n_elements = len(case.element_x)

    def wave(angle):
        # ustb's time zero is when the front passes the origin; ours when the first element fires.
        lead = abs(np.sin(angle)) * case.element_x[-1] / SPEED_OF_SOUND
        source = SimpleNamespace(x=0.0, y=0.0, z=0.0, azimuth=angle, elevation=0.0, distance=np.inf)
        return SimpleNamespace(wavefront=Wavefront.plane, source=source, sound_speed=SPEED_OF_SOUND, delay=-lead)

    nothing = np.zeros(n_elements)
    das = DAS()
    das.scan = SimpleNamespace(x=x, y=np.zeros_like(x), z=z, N_pixels=x.size, reference_distance=np.zeros_like(x))
    das.channel_data = SimpleNamespace(
        data=np.ascontiguousarray(case.samples.transpose(2, 1, 0)),
        N_channels=n_elements,
        N_waves=len(case.angles),
        N_frames=1,
        sampling_frequency=float(case.sampling_frequency),
        initial_time=0.0,
        modulation_frequency=float(case.frequency),
        sound_speed=SPEED_OF_SOUND,
        sequence=[wave(angle) for angle in case.angles],
        probe=SimpleNamespace(x=case.element_x, y=nothing, z=nothing, N_elements=n_elements),
    )
    das.dimension = Dimension.both
    return answer_of(das.go, lambda out: out.data.reshape(len(case.z), len(case.x)), repeat, version("ustb"))


def run_ultraspy(case, repeat: int) -> dict:
    os.environ["ULTRASPY_CPU_LIB"] = "numba"
    from ultraspy.beamformers.das import DelayAndSum
    from ultraspy.scan import GridScan

    n_transmits, n_elements, _ = case.samples.shape
    geometry = np.zeros((3, n_transmits, n_elements))
    geometry[0] = case.element_x
    beamformer = DelayAndSum(is_iq=True, on_gpu=False)
    for name, value in {
        "emitted_probe": geometry,
        "received_probe": geometry,
        "emitted_thetas": np.zeros((n_transmits, n_elements)),
        "received_thetas": np.zeros((n_transmits, n_elements)),
        "delays": case.delays,
        "transmissions_idx": list(range(n_transmits)),
        "sound_speed": SPEED_OF_SOUND,
        "f_number": 0.0,
        "t0": 0.0,
        "sampling_freq": float(case.sampling_frequency),
        "central_freq": float(case.frequency),
    }.items():
        beamformer.update_setup(name, value)
    beamformer.update_option("emitted_aperture", False)
    scan = GridScan(case.x, case.z, on_gpu=False)
    return answer_of(lambda: beamformer.beamform(case.samples, scan), lambda out: out.T, repeat, version("ultraspy"))


PEERS = {"pymust": run_pymust, "ustb": run_ustb, "ultraspy": run_ultraspy}


# --- helpers ---------------------------------------------------------------------------------------------------------


def answer_of(run, to_image, repeat: int, package_version: str) -> dict:
    start = time.perf_counter()
    image = to_image(run())
    first = time.perf_counter() - start
    return {
        "image": image,
        "seconds": timed(run, repeat),
        "first_call_seconds": first,
        "version": package_version,
    }


def timed(run, repeat: int) -> list[tuple[float, float]]:
    """Wall and processor seconds (of all threads) of each of `repeat` calls, after one that is not counted."""
    run()
    seconds = []
    for _ in range(repeat):
        start, start_cpu = time.perf_counter(), time.process_time()
        run()
        seconds.append((time.perf_counter() - start, time.process_time() - start_cpu))
    return seconds


def spread(seconds) -> dict:
    wall, cpu = np.array(seconds).T
    return {
        "seconds_min": float(wall.min()),
        "seconds_median": float(np.median(wall)),
        "seconds_max": float(wall.max()),
        "cpu_seconds_min": float(cpu.min()),  # of all threads: what a machine shared with others says least wrongly
        "n": len(wall),
        "load_average": os.getloadavg()[0],
    }


def n_channels_of(case) -> int:
    """Return transmits x channels x pixels."""
    return int(np.prod(case["samples"].shape[:2])) * len(case["x"]) * len(case["z"])


def version(package: str) -> str:
    from importlib.metadata import version as installed

    return installed(package)


def machine() -> dict:
    import numba

    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        model = next(
            (
                line.split(":", 1)[1].strip()
                for line in Path("/proc/cpuinfo").read_text().splitlines()
                if "model name" in line
            ),
            model,
        )
    return {
        "cpu": model,
        "threads": numba.config.NUMBA_NUM_THREADS,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
    }


if __name__ == "__main__":
    main()
