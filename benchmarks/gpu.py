"""Compounded frames per second on an NVIDIA card: 15 plane waves, 20,000 scatterers, 256 x 256 B-mode, stage by stage.

What is measured, through the public functions: wall time from scatterers in host memory to the B-mode on the card
(`frames_s`) and, as uint8, on the host (`end_to_end`), device synchronised at both ends, the median of some runs after a
warm-up; for batches of 1 to 64 images; and for one batch the time of each kernel by CUDA events, with the rates reached and
the limits that the card's arithmetic and memory set (operations and bytes are counted from the cells, see docs/gpu.md).
Generating scatterers, on the host, is timed apart. Agreement with the `reference` engine is checked first.

Delay-and-sum is also timed on the workload of mach's rotating-disk benchmark (32 frames of 128 channels, one plane wave,
noise as data: the time does not depend on it), beside mach (`mach-beamform`) where that can be imported, and the simulation
beside FastSIMUS's CUDA path (one launch a transmit) where that can.

    python benchmarks/gpu.py                        # results to benchmarks/results/gpu.json
    python benchmarks/gpu.py --tune                 # also try other block shapes of the simulation
    python benchmarks/gpu.py --host --output x.json # no card: the script's own logic at tiny size; no figure means anything

Needs this repository, numpy, scipy, numba and CuPy (`pip install ".[cuda13]"`).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # the repository need not be installed

from timing import machine, write_result  # noqa: E402

import ussim  # noqa: E402
from ussim.arrays import to_numpy  # noqa: E402
from ussim.engines.cuda import cupy as cuda  # noqa: E402
from ussim.engines.cuda.simulate import Simulator, Tuning  # noqa: E402
from ussim.errors import EngineError  # noqa: E402
from ussim.plan import audible, make_plan  # noqa: E402
from ussim.simulation import record_length  # noqa: E402

RF_TOLERANCE = 1e-4  # relative L2 from the float64 oracle
DAS_TOLERANCE = 1e-5
DISK_F_NUMBER = 1.0  # as mach's benchmark has it
# FP32 TFLOP/s (no tensor cores) and TB/s by the makers' sheets; a card that is not here: from its clocks.
CARDS = {
    "H200": (67.0, 4.8),
    "H100 80GB HBM3": (67.0, 3.35),
    "H100 PCIe": (51.0, 2.0),
    "A100": (19.5, 2.0),
    "RTX 5090": (104.8, 1.79),
    "RTX 4090": (82.6, 1.008),
    "L40S": (91.6, 0.864),
    "T4": (8.1, 0.32),
}
DRY_RUN = "kernels compiled for the host: no time here says anything of a card"
BUDGETS = (0.03e9, 0.1e9, 0.5e9, 2e9, None)  # bytes in flight: small ones stay in the card's cache
TUNINGS = tuple(
    Tuning(points, frequencies, groups) for points, frequencies in ((1, 2), (1, 4), (2, 2)) for groups in (4, 6, 8)
)

Peak = tuple[float | None, float | None]  # TFLOP/s, TB/s; None where not known


@dataclass(frozen=True)
class Size:
    """Amount of work."""

    probe: str = "L11-5v"
    n_transmits: int = 15
    n_scatterers: int = 20_000
    shape: tuple[int, int] = (256, 256)
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    repeats: int = 7
    disk: tuple[int, int, int, int] = (32, 128, 334, 256)  # frames, channels, samples, pixels a side


TINY = Size("P4-2v", 2, 12, (12, 16), (1, 2), 1, (3, 128, 334, 12))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=None)
    parser.add_argument("--tune", action="store_true", help="try other block shapes of the simulation kernels")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--host", action="store_true", help="dry run without a card, tiny")
    parser.add_argument(
        "--every-kernel", action="store_true", help="run each kernel once, tiny, for a checker; no times"
    )
    parser.add_argument("--output", type=Path, default=None, help="default: benchmarks/results/gpu.json")
    arguments = parser.parse_args()
    size = TINY if arguments.host else Size()
    if arguments.repeats:
        size = Size(**{**asdict(size), "repeats": arguments.repeats})
    with ExitStack() as stack:
        if arguments.host:
            print(f"dry run, {DRY_RUN}")
            stack.callback(pretend_a_card(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        try:
            stack.enter_context(cuda.engine(arguments.device).backend.device())  # the current one, for peers too
            if arguments.every_kernel:
                run_every_kernel(cuda.engine(arguments.device))
                return 0
            output = arguments.output or (None if arguments.host else HERE / "results" / "gpu.json")
            for result in measure(size, arguments):
                if output:
                    write_result(output, result)
        except EngineError as error:
            print(error, file=sys.stderr)
            return 6
    if output:
        print(f"written: {output}")
    return 0


def measure(size: Size, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All of it, as far as it has come after each part, "complete" with the last. A part that fails leaves its reason."""
    engine = cuda.engine(arguments.device)
    work = Workload(size, engine)
    result: dict[str, Any] = {"dry_run": DRY_RUN} if arguments.host else {}
    result |= {
        "complete": False,
        "card": describe_card(engine),
        "machine": machine(("ussim", "numpy", "scipy", "numba", "cupy-cuda13x", "cupy-cuda12x")),
        "workload": {**asdict(size), "n_samples": work.n_samples},
    }
    peak = result["card"]["peak_tflop_s"], result["card"]["peak_tb_s"]
    print(f"{result['card']['name']}, CUDA {result['card']['runtime']}, CuPy {result['card']['cupy']}")
    result["agreement"] = work.check()
    result["counted"] = work.count(peak)
    result["scatterers_on_host_s"] = work.time_scatterers()
    result["frames"] = []
    yield result
    for batch in size.batches:
        row = attempt(lambda batch=batch: work.time_batch(batch))
        row["batch"] = batch
        result["frames"].append(row)
        print(
            f"  batch {batch}: "
            + (row.get("failed") or f"{row['frames_s']:.1f} frames/s, {row['end_to_end']['frames_s']:.1f} to the host")
            + f"  {row.get('stages_ms_a_frame', '')}"
        )
        yield result
    result["kernels"] = attempt(lambda: work.time_kernels(min(8, size.batches[-1]), peak))
    for name, row in result["kernels"].items():
        print(f"  {name}: {row}")
    yield result
    result["delay_and_sum_disk"] = attempt(lambda: work.time_disk(peers=not arguments.no_peers))
    print(f"  delay-and-sum, disk: {result['delay_and_sum_disk']}")
    yield result
    if not arguments.no_peers:
        result["fastsimus"] = attempt(work.time_fastsimus)
        print(f"  FastSIMUS: {result['fastsimus']}")
        yield result
    if arguments.tune:
        result["tuning"] = work.tune()
    result["complete"] = True
    yield result


def run_every_kernel(engine: cuda.CudaEngine) -> None:
    """Each kernel once, at tiny size, every array an allocation of its own: what a memory checker looks at."""
    if hasattr(engine.backend.array_module.cuda, "set_allocator"):
        engine.backend.array_module.cuda.set_allocator(None)
    work = Workload(TINY, engine)
    work.bmodes(work.media)
    medium, grid = work.media[0], ussim.ImageGrid.for_acquisition(work.acquisition, (6, 8))
    ussim.pressure_field(work.acquisition, grid, engine=work.name)
    ussim.delay_and_sum(work.simulate([medium]), grid, engine=work.name)  # of RF
    operator = ussim.imaging_operator(work.acquisition, grid, engine=work.name)
    operator.rmatvec(operator.matvec(np.ones(grid.x.size * grid.z.size)))
    engine.backend.device().synchronize()
    print("every kernel has run once")


class Workload:
    """The acquisition, its images, and what is timed of them."""

    def __init__(self, size: Size, engine: cuda.CudaEngine) -> None:
        self.size, self.engine, self.xp = size, engine, engine.backend.array_module
        probe = ussim.load_probe(size.probe)
        waves = ussim.imaging_waves(probe, n_transmits=size.n_transmits)
        self.acquisition = ussim.Acquisition(probe, waves, ussim.Medium(1540.0, 0.5), n_subelements="must")
        self.grid = ussim.ImageGrid.for_acquisition(self.acquisition, size.shape)
        self.plan = make_plan(self.acquisition)
        self.n_samples = record_length(self.acquisition, self.grid)
        self.name = f"cuda:{engine.backend.device().id}"
        rng = np.random.default_rng(0)
        (x0, x1), (z0, z1), n = probe.imaging.x, probe.imaging.z, size.n_scatterers
        self.media = [
            ussim.Scatterers(rng.uniform(x0, x1, n), rng.uniform(z0, z1, n), rng.rayleigh(size=n))
            for _ in range(max(size.batches))
        ]

    # --- what is timed -----------------------------------------------------------------------------------------------

    def simulate(self, media) -> ussim.RFData:
        return ussim.simulate_stack(media, self.acquisition, self.name, n_samples=self.n_samples)

    def beamform(self, iq: ussim.IQData) -> Any:
        return ussim.delay_and_sum(iq, self.grid, engine=self.name)

    def compress(self, images) -> Any:
        return ussim.log_compress(images, per_image=True)

    def bmodes(self, media) -> Any:
        return self.compress(self.beamform(ussim.demodulate(self.simulate(media))))

    def time_batch(self, batch: int) -> dict[str, Any]:
        """Frames a second of a batch: B-modes on the card and, as uint8, on the host; the time of each stage.

        And the same medium by medium.
        """
        media = self.media[:batch]
        on_card = self.time(lambda: self.bmodes(media))
        on_host = self.time(lambda: np.round(to_numpy(self.bmodes(media)) * 255).astype(np.uint8))
        one_by_one = self.time(lambda: [self.bmodes([medium]) for medium in media])
        rf = self.simulate(media)
        iq = ussim.demodulate(rf)
        images = self.beamform(iq)
        stages = {
            "simulate": lambda: self.simulate(media),
            "demodulate": lambda: ussim.demodulate(rf),
            "delay_and_sum": lambda: self.beamform(iq),
            "log_compress": lambda: self.compress(images),
        }
        return {
            "frames_s": batch / on_card["median_s"],
            **on_card,
            "end_to_end": {"frames_s": batch / on_host["median_s"], **on_host},
            "one_by_one_frames_s": batch / one_by_one["median_s"],
            "stages_ms_a_frame": {
                name: round(1e3 * self.time(stage)["median_s"] / batch, 4) for name, stage in stages.items()
            },
        }

    def time_scatterers(self) -> dict[str, float]:
        image = np.random.default_rng(0).random(self.size.shape)
        return time_calls(
            lambda: ussim.scatterers_from_image(image, self.grid, self.acquisition), self.size.repeats, lambda: None
        )

    def time_kernels(self, batch: int, peak: Peak) -> dict[str, Any]:
        """Milliseconds a frame of each kernel and transform of the simulation, and what the two large ones reach."""
        media = self.media[:batch]
        self.simulate(media)
        events: list[tuple[str, Any, Any]] = []
        backend, event = self.engine.backend, self.xp.cuda.Event
        heard = [audible(medium, self.acquisition) for medium in media]
        simulator = Simulator(backend, self.plan)
        launch, transform = simulator.launch, backend.inverse_transform

        def timed(name: str, function: Callable, *arguments: Any) -> None:
            start, end = event(), event()
            start.record()
            function(*arguments)
            end.record()
            events.append((name, start, end))

        simulator.launch = lambda name, *rest: timed(name, launch, name, *rest)
        backend.inverse_transform = lambda *rest: timed("transforms", transform, *rest)
        try:
            simulator.echoes(heard, self.n_samples)
            events.clear()
            simulator.echoes(heard, self.n_samples)
            self.synchronize()
        finally:
            backend.inverse_transform = transform
        milliseconds: dict[str, float] = {}
        for name, start, end in events:
            elapsed = float(self.xp.cuda.get_elapsed_time(start, end))
            milliseconds[name] = milliseconds.get(name, 0.0) + elapsed / batch
        counted = simulator.count_work(heard)
        both = (milliseconds["transmit"] + milliseconds["receive"]) * batch / 1e3
        whole = sum(milliseconds.values()) * batch / 1e3
        reached = counted["flop"] / both / 1e12
        moved = counted["bytes"] / whole / 1e12
        return {
            "batch": {"frames": batch},
            "ms_a_frame": milliseconds,
            "transmit_and_receive": {"tflop_s": reached, "fraction_of_peak": reached / peak[0] if peak[0] else None},
            "simulation": {"tb_s": moved, "fraction_of_peak": moved / peak[1] if peak[1] else None},
        }

    def tune(self) -> list[dict[str, Any]]:
        """Return the simulation of a batch with other block shapes and in less memory, fastest first."""
        media = [audible(medium, self.acquisition) for medium in self.media[: min(8, self.size.batches[-1])]]
        rows = []
        for tuning in TUNINGS:
            row = attempt(lambda tuning=tuning: self.time_tuning(tuning, media))
            rows.append({**asdict(tuning), **row})
        simulator = Simulator(self.engine.backend, self.plan)
        for budget in BUDGETS:
            row = attempt(lambda b=budget: self.time(lambda: simulator.echoes(media, self.n_samples, max_memory=b)))
            rows.append({"max_memory": budget, **row})
        rows.sort(key=lambda row: row.get("median_s", np.inf))
        for row in rows:
            print(f"  tuning {row}")
        return rows

    def time_tuning(self, tuning: Tuning, media) -> dict[str, Any]:
        simulator = Simulator(self.engine.backend, self.plan, tuning=tuning)
        return self.time(lambda: simulator.echoes(media, self.n_samples))

    # --- what is counted and checked ---------------------------------------------------------------------------------

    def count(self, peak: Peak) -> dict[str, float | None]:
        """Operations and bytes of one frame's simulation and the times they need at the card's peaks."""
        heard = [audible(self.media[0], self.acquisition)]
        counted = Simulator(self.engine.backend, self.plan).count_work(heard)
        return {
            **counted,
            "ms_at_peak_arithmetic": counted["flop"] / peak[0] / 1e9 if peak[0] else None,
            "ms_at_peak_memory": counted["bytes"] / peak[1] / 1e9 if peak[1] else None,
        }

    def check(self) -> dict[str, float]:
        """Relative errors of RF and of the beamformed image from the reference engine, on a few scatterers."""
        few = ussim.Scatterers(*(getattr(self.media[0], name)[:12] for name in ("x", "z", "reflectivity")))
        rf = ussim.simulate(few, self.acquisition, "reference", n_samples=self.n_samples)
        errors = {"rf": relative_error(to_numpy(self.simulate([few]).samples[0]), rf.samples)}
        small = ussim.ImageGrid.for_acquisition(self.acquisition, (24, 24))
        iq = ussim.demodulate(rf)
        got, expected = (to_numpy(ussim.delay_and_sum(iq, small, engine=name)) for name in (self.name, "reference"))
        errors["delay_and_sum"] = relative_error(got, expected)
        if not (errors["rf"] < RF_TOLERANCE and errors["delay_and_sum"] < DAS_TOLERANCE):
            raise SystemExit(f"expected RF within {RF_TOLERANCE:g} of the reference, got {errors}: nothing is timed")
        return errors

    # --- peers -------------------------------------------------------------------------------------------------------

    def time_disk(self, peers: bool) -> dict[str, Any]:
        """Delay-and-sum of mach's rotating-disk workload: pixel-channels a second, ours and mach's."""
        n_frames, n_channels, n_samples, side = self.size.disk
        probe = ussim.Probe("disk", 5e6, 0.6, n_channels, 0.298e-3, 0.25e-3)
        medium = ussim.Medium(1480.0)
        acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(0.0), medium, sampling_frequency=20e6 / 3)
        grid = ussim.ImageGrid(x=np.linspace(-12.5e-3, 12.5e-3, side), z=np.linspace(10e-3, 35e-3, side))
        rng = np.random.default_rng(0)
        shape = (n_frames, 1, n_channels, n_samples)
        data = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
        samples = self.engine.backend.to_device(data)
        iq = ussim.IQData(samples, acquisition, acquisition.sampling_frequency, 5e6, start_time=9.95e-6)
        ours = self.time(lambda: ussim.delay_and_sum(iq, grid, DISK_F_NUMBER, engine=self.name))
        total = n_frames * n_channels * grid.x.size * grid.z.size
        result: dict[str, Any] = {
            "pixel_channels": total,
            "ussim": {**ours, "pixel_channels_s": total / ours["median_s"]},
        }
        if peers:
            result["mach"] = attempt(lambda: self.time_mach(iq, grid, total))
        return result

    def time_mach(self, iq: ussim.IQData, grid: ussim.ImageGrid, total: int) -> dict[str, Any]:
        """Mach on the same data in its own layout (channels, samples, frames), its taper off."""
        import mach

        xp, probe, speed_of_sound = self.xp, iq.acquisition.probe, iq.acquisition.medium.speed_of_sound
        x, z = grid.mesh()
        points = np.stack([x.ravel(), np.zeros(x.size), z.ravel()], axis=1)
        elements = np.stack([probe.element_x, np.zeros(probe.n_elements), probe.element_z], axis=1)
        channels = xp.ascontiguousarray(iq.samples[:, 0].transpose(1, 2, 0))
        coordinates = [xp.asarray(a.astype(np.float32)) for a in (elements, points, z.ravel() / speed_of_sound)]
        out = xp.zeros((x.size, iq.samples.shape[0]), dtype=np.complex64)

        def run() -> None:
            out.fill(0)  # mach adds to what is there
            mach.beamform(
                channels,
                *coordinates,
                out,
                rx_start_s=iq.start_time,
                sampling_freq_hz=iq.sampling_frequency,
                f_number=DISK_F_NUMBER,
                sound_speed_m_s=speed_of_sound,
                modulation_freq_hz=iq.demodulation_frequency,
                tukey_alpha=0.0,
            )

        timing = self.time(run)
        expected = to_numpy(ussim.delay_and_sum(iq, grid, DISK_F_NUMBER, engine=self.name))
        image = to_numpy(out).T.reshape(expected.shape)
        return {
            **timing,
            "pixel_channels_s": total / timing["median_s"],
            "difference_from_ussim": relative_error(image, expected),
            "version": getattr(mach, "__version__", "unknown"),
        }

    def time_fastsimus(self) -> dict[str, Any]:
        """FastSIMUS's CUDA path on the workload, one launch a transmit, everything that can be made before left out."""
        import fast_simus
        from fast_simus.transducer_presets import L11_5v

        xp, medium = self.xp, self.media[0]
        parameters, tissue = L11_5v(), fast_simus.MediumParams(attenuation=0.5)
        points = xp.asarray(np.stack([medium.x, medium.z], axis=1).astype(np.float32))
        strength = xp.asarray(medium.reflectivity.astype(np.float32))
        delays = [xp.asarray(row[0].astype(np.float32)) for row in self.acquisition.transmit_delays]
        plan = fast_simus.simus_precompute(
            points,
            strength,
            delays[0],
            parameters,
            tissue,
            fs=self.acquisition.sampling_frequency,
            db_thresh=self.acquisition.threshold_db,
        )

        def run(rows=delays) -> list[Any]:
            return [fast_simus.simus_compute(points, strength, row, plan, parameters, tissue).rf for row in rows]

        timing = self.time(run)
        rf = to_numpy(run(delays[:1])[0]).T.astype(np.float64)
        ours = to_numpy(self.simulate([medium]).samples)[0, 0].astype(np.float64)
        n = min(rf.shape[-1], ours.shape[-1])
        rf, ours = rf[:, :n], ours[:, :n]
        ours *= np.vdot(ours, rf) / np.vdot(ours, ours)  # its scale depends on the length of its transform
        simulation = self.time(lambda: self.simulate([medium]))
        return {
            **timing,
            "difference_from_ussim": relative_error(ours, rf),
            "ussim_simulate_s": simulation["median_s"],
            "ussim_is_times_as_fast": timing["median_s"] / simulation["median_s"],
        }

    # --- helpers -----------------------------------------------------------------------------------------------------

    def time(self, function: Callable[[], Any]) -> dict[str, Any]:
        return time_calls(function, self.size.repeats, self.synchronize)

    def synchronize(self) -> None:
        self.engine.backend.device().synchronize()


def time_calls(function: Callable[[], Any], repeats: int, synchronize: Callable[[], None]) -> dict[str, Any]:
    """Seconds, the device idle before and after: median, fastest, slowest, all. Two calls before them do not count."""
    runs = []
    for k in range(repeats + 2):
        synchronize()
        start = time.perf_counter()
        function()
        synchronize()
        if k >= 2:
            runs.append(time.perf_counter() - start)
    return {"median_s": statistics.median(runs), "min_s": min(runs), "max_s": max(runs), "runs_s": runs}


def attempt(function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Its result, or why there is none: a part that fails (memory, a missing peer) does not take the rest along."""
    try:
        return function()
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}


def relative_error(value: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(value - expected) / np.linalg.norm(expected))


def describe_card(engine: cuda.CudaEngine) -> dict[str, Any]:
    """Name, capability, memory, versions, and peak rates by the maker's sheet or the card's clocks."""
    report = cuda.cuda_report()
    device = engine.backend.device()
    card = {**report["devices"][device.id], **{key: report[key] for key in ("driver", "cupy", "runtime", "nvrtc")}}
    for part, (tflop_s, tb_s) in CARDS.items():
        if part in card["name"]:
            return card | {"peak_tflop_s": tflop_s, "peak_tb_s": tb_s, "peaks_from": f"data sheet of {part}"}
    try:
        attributes = device.attributes
        lanes = 64 if card["compute_capability"] in ("7.5", "8.0") else 128
        flop_s = 2.0 * lanes * attributes["MultiProcessorCount"] * attributes["ClockRate"] * 1e3
        byte_s = 2.0 * attributes["GlobalMemoryBusWidth"] / 8 * attributes["MemoryClockRate"] * 1e3
        return card | {"peak_tflop_s": flop_s / 1e12, "peak_tb_s": byte_s / 1e12, "peaks_from": "clocks"}
    except (AttributeError, KeyError, RuntimeError):
        return card | {"peak_tflop_s": None, "peak_tb_s": None, "peaks_from": "unknown"}


def pretend_a_card(folder: Path) -> Callable[[], None]:
    """`import cupy` gives the stand-in of the tests; returns what undoes it."""
    sys.path.insert(0, str(HERE.parent / "tests" / "host_cuda"))
    from cupy_on_host import install

    return install(folder)


if __name__ == "__main__":
    sys.exit(main())
