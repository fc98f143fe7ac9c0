"""Extreme inputs that the values accept, one after the other: run by test_silence.py in a process of its own, where a kernel
that reads beyond its arrays cannot take the tests with it.

Prints a line per case: its name and "finite", or the error's class. Anything else, a crash above all, fails the test.
"""

from __future__ import annotations

import itertools
import sys
import warnings
from pathlib import Path

import numpy as np

import ussim
from ussim.arrays import to_numpy

PROBE = ussim.Probe("small", 3e6, 0.7, 16, 0.3e-3, 0.25e-3)
N = PROBE.n_elements
GRID = ussim.ImageGrid(x=np.linspace(-3e-3, 3e-3, 9), z=np.linspace(5e-3, 15e-3, 11))
MANY = np.deg2rad(np.linspace(-10, 10, 18))  # more than the lanes of a vector
SILENT_ROWS = np.repeat([[1.0], [0.0], [1.0]], N, axis=1)
HALF_OFF = np.where(np.arange(N) < 8, np.nan, 1e-6)


def waves():
    """Transmit sequences, by name."""
    yield "plane", ussim.PlaneWaves(MANY)
    yield "silent row", ussim.PlaneWaves([-0.1, 0.0, 0.1], apodization=SILENT_ROWS)
    yield "silent focus", ussim.FocusedWaves(x=[-1e-3, 0, 1e-3], z=10e-3, apodization=SILENT_ROWS)
    yield "off and weight 0", ussim.CustomTransmits([HALF_OFF, np.zeros(N)], [np.isnan(HALF_OFF), np.ones(N)])
    yield "all off", ussim.CustomTransmits([np.zeros(N), np.full(N, np.nan)])
    yield "one element", ussim.CustomTransmits(np.where(np.arange(N) == 3, 0.0, np.nan))
    for delay in (0.1, -0.1, 10.0, -10.0, 1e30, 1e300):
        yield f"delays {delay:g}", ussim.CustomTransmits(np.full((2, N), delay))
        yield f"a delay of {delay:g}", ussim.CustomTransmits(np.where(np.arange(N) == 5, delay, 0.0))
    yield "laws far apart", ussim.CustomTransmits(np.stack([np.zeros(N), np.full(N, 0.2)])[None])
    yield "huge weights", ussim.PlaneWaves(0.0, apodization=np.full(N, 1e30))
    yield "far focus", ussim.FocusedWaves(x=0.0, z=1e12)
    yield "close focus", ussim.FocusedWaves(x=0.1e-3, z=1e-9)


def acquisitions():
    """Acquisitions, by name."""
    for name, sequence in waves():
        yield name, lambda sequence=sequence: ussim.Acquisition(PROBE, sequence)
    plane = ussim.PlaneWaves(0.0)
    for delay in (1e-3, 10.0, -10.0, 1e300):
        yield (
            f"receive delay {delay:g}",
            lambda delay=delay: ussim.Acquisition(PROBE, plane, receive_delays=np.linspace(0, delay, N)),
        )
    for speed in (10.0, 1e300):
        yield f"speed {speed:g}", lambda speed=speed: ussim.Acquisition(PROBE, plane, ussim.Medium(speed))
    yield "loss 1e6", lambda: ussim.Acquisition(PROBE, plane, ussim.Medium(1540.0, 1e6))
    yield "threshold -1e-9", lambda: ussim.Acquisition(PROBE, plane, threshold_db=-1e-9)
    yield "rate 1 Hz", lambda: ussim.Acquisition(PROBE, plane, sampling_frequency=1.0)


def grids():
    """Image grids, by name."""
    yield "one pixel", ussim.ImageGrid(x=[0.0], z=[10e-3])
    yield "behind", ussim.ImageGrid(x=GRID.x, z=GRID.z - 1.0)
    yield "on an element", ussim.ImageGrid(x=PROBE.element_x, z=[0.0, 1e-300, 1e-9])
    yield "20 m", ussim.ImageGrid(x=[-20.0, 0.0, 20.0], z=[1e-3, 20.0])
    yield "20 km", ussim.ImageGrid(x=[-2e4, 0.0, 2e4], z=[1e-3, 2e4])
    yield "1e30 m", ussim.ImageGrid(x=[0.0], z=[1e-3, 1e30])
    yield "1e300 m", ussim.ImageGrid(x=[-1e300, 1e300], z=[1e-3, 1e300])


def beamformings():
    """Delay-and-sums, by name."""
    rng = np.random.default_rng(0)

    def data(acquisition, n=120, rate=12e6, start=0.0, iq=True):
        samples = rng.standard_normal((acquisition.n_transmits, N, n)).astype(np.float32)
        if not iq:
            return ussim.RFData(samples, acquisition, rate, start)
        return ussim.IQData(samples.astype(np.complex64), acquisition, rate, 3e6, start)

    plane = ussim.Acquisition(PROBE, ussim.PlaneWaves(MANY))
    for name, make in acquisitions():
        for iq in (True, False):
            yield f"{name}, {'iq' if iq else 'rf'}", lambda make=make, iq=iq: (data(make(), iq=iq), GRID, {})
    for (name, grid), method in itertools.product(grids(), ("nearest", "lanczos5")):
        yield f"grid {name}, {method}", lambda grid=grid, m=method: (data(plane), grid, {"interpolation": m})
    for start in (np.nan, np.inf, 1e-3, -1e-3, 1e6, -1e6, 1e300, -1e300, np.linspace(-1, 1, 18), np.full(18, np.nan)):
        yield f"start {np.ravel(start)[0]:g}", lambda start=start: (data(plane, start=start), GRID, {})
    for rate in (1e-3, 1.0, 1e12, 1e300):
        yield f"rate {rate:g}", lambda rate=rate: (data(plane, rate=rate), GRID, {})
    for n in (1, 2):
        yield f"{n} samples", lambda n=n: (data(plane, n), GRID, {"f_number": 0, "interpolation": "lanczos3"})
    for number in (1e-300, 1e300):
        yield f"f-number {number:g}", lambda number=number: (data(plane), GRID, {"f_number": number})
    for speed in (1e-300, 1e-3, 1e300):
        yield (
            f"imaged at {speed:g} m/s",
            lambda speed=speed: (data(plane), GRID, {"speed_of_sound": speed, "f_number": 0}),
        )


def simulations(few: bool):
    """Simulations, by name; few, as a card's kernels are compiled for each number of transmits."""
    plane = ussim.Acquisition(PROBE, ussim.PlaneWaves(0.0))
    point = ussim.Scatterers([1e-3], [10e-3], [1.0])
    for name, make in () if few else acquisitions():
        yield name, lambda make=make: (point, make(), {"n_samples": 200})
    for x, z in ((0.0, 1e-300), (20.0, 20.0), (1e5, 1e5), (0.0, 1e30), (1e300, 1e300)):
        far = ussim.Scatterers([0.0, x], [10e-3, z], [1.0, 1.0])
        yield f"scatterer at {x:g}, {z:g}", lambda far=far: (far, plane, {"n_samples": 200})
    for start in (np.nan, np.inf, 1.0, 1e3, 1e300):
        yield f"from {start:g}", lambda start=start: (point, plane, {"n_samples": 10, "start_time": start})


def run(kind: str, name: str, call) -> None:
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = to_numpy(call())
        answer = "finite" if np.isfinite(result).all() else "not finite"
    except (ValueError, ussim.EngineError, MemoryError) as error:
        answer = f"{type(error).__name__}: {str(error)[:80]}"
    print(f"{kind} {name}: {answer}", flush=True)


def main(engine: str, folder: str) -> None:
    if engine == "cuda":
        sys.path.insert(0, str(Path(__file__).parent / "host_cuda"))
        from cupy_on_host import install

        install(Path(folder))
    for name, make in beamformings():

        def image(make=make):
            data, grid, options = make()
            return ussim.delay_and_sum(data, grid, engine=engine, **options)

        run("image", name, image)
    for name, make in simulations(few=engine == "cuda"):

        def echoes(make=make):
            scatterers, acquisition, options = make()
            return ussim.simulate(scatterers, acquisition, engine, max_memory=200e6, **options).samples

        run("echoes", name, echoes)
    for name, make in () if engine == "cuda" else acquisitions():
        run("pressure", name, lambda make=make: ussim.pressure_field(make(), GRID, engine=engine, max_memory=200e6))


if __name__ == "__main__":
    main(*sys.argv[1:])
