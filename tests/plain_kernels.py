"""The CPU kernels as plain Python: run with NUMBA_DISABLE_JIT=1, they must give what `reference` gives.

    NUMBA_DISABLE_JIT=1 python tests/plain_kernels.py

The compiler is out of the way: a debugger stops in the kernels, an index beside an array is an IndexError, and coverage
sees each of their lines. Vectors of sixteen are NumPy arrays here; the functions below stand in for those of `simd` that
are LLVM.
"""

from __future__ import annotations

import sys

import numpy as np

import ussim
from ussim.beamforming.adaptive import COMBINATIONS
from ussim.engines.cpu.kernels import simd
from ussim.engines.cpu.kernels.layout import LANES, ROWS


def load(array, index):
    """array[index : index + 16], which must lie in the array."""
    assert 0 <= index <= len(array) - LANES, (index, len(array))
    return array[index : index + LANES].copy()


def store(array, index, value):
    assert 0 <= index <= len(array) - LANES, (index, len(array))
    array[index : index + LANES] = value


def transpose_block(source, source_at, source_step, target, target_at, target_step):
    rows = np.stack([load(source, source_at + i * source_step) for i in range(LANES)])
    for j in range(LANES):
        store(target, target_at + j * target_step, rows[:, j])


def complex_outer(sums, at, scalars, s_at, s_part, s_row, s_step, vectors, v_at, v_part, v_step, n, rows):
    assert 1 <= rows <= ROWS
    for j in range(rows):
        for part in range(3):
            total = load(sums, at + 3 * LANES * j + LANES * part)
            for k in range(n):
                scalar = scalars[s_at + s_part * part + s_row * j + s_step * k]
                total = total + scalar * load(vectors, v_at + v_part * part + v_step * k)
            store(sums, at + 3 * LANES * j + LANES * part, total)


simd.load, simd.store, simd.transpose_block, simd.complex_outer = load, store, transpose_block, complex_outer
simd.fma = lambda a, b, c: np.asarray(a * b + c, np.float32)
simd.total = lambda value: np.float32(np.sum(value))
simd._rough_root = lambda value: (1 / np.sqrt(value)).astype(np.float32)
simd._two_to_the = lambda exponent: np.exp2(exponent).astype(np.float32)


def relative(value, expected):
    return float(np.linalg.norm(value - expected) / np.linalg.norm(expected))


def main() -> None:
    radius = float(sys.argv[1]) if sys.argv[1:] else np.inf
    probe = ussim.Probe("small", 3e6, 0.6, 5, 0.4e-3, 0.3e-3, element_height=4e-3, elevation_focus=8e-3, radius=radius)
    rng = np.random.default_rng(0)
    points = ussim.Scatterers(rng.uniform(-2e-3, 2e-3, 18), rng.uniform(6e-3, 7e-3, 18), rng.normal(size=18))
    grid = ussim.ImageGrid(x=np.linspace(-2e-3, 2e-3, 5), z=np.linspace(5e-3, 8e-3, 6))
    for n_transmits, options in (
        (2, {}),
        (17, {"full_frequency_directivity": True}),
    ):  # a rest of few, a group and a rest
        waves = ussim.PlaneWaves(np.linspace(-0.2, 0.2, n_transmits))
        medium = ussim.Medium(attenuation_db_cm_mhz=0.5)
        acquisition = ussim.Acquisition(probe, waves, medium, n_subelements=2, **options)
        rf = ussim.simulate(points, acquisition, engine="cpu")
        oracle = ussim.simulate(points, acquisition, engine="reference", n_samples=rf.samples.shape[-1])
        show("rf", n_transmits, relative(rf.samples, oracle.samples), 1e-4)  # as test_engine_cpu.py allows
        if np.isinf(probe.radius):
            raised = ussim.Scatterers(points.x, points.z, points.reflectivity, rng.uniform(-2e-3, 2e-3, 18))
            deep = ussim.simulate(raised, acquisition, engine="cpu")
            oracle = ussim.simulate(raised, acquisition, engine="reference", n_samples=deep.samples.shape[-1])
            show("rf with an elevation", n_transmits, relative(deep.samples, oracle.samples), 1e-4)
        iq = ussim.demodulate(rf)
        for method in ("linear", "lanczos3"):
            for compounding in ("coherent", "incoherent", "none"):
                same = {"interpolation": method, "compounding": compounding}
                images = [ussim.delay_and_sum(iq, grid, engine=engine, **same) for engine in ("cpu", "reference")]
                show(f"image, {method}, {compounding}", n_transmits, relative(*images), 1e-5)
        for combine in ("sum", *COMBINATIONS) if n_transmits == 2 else ():
            taper = {} if combine in ("mv", "slsc") else {"apodization": "hann", "f_number": 0.8}
            images = [
                ussim.delay_and_sum(iq, grid, combine=combine, engine=engine, **taper)
                for engine in ("cpu", "reference")
            ]
            show(f"image, {combine}", n_transmits, relative(*images), 1e-5)
        fields = [ussim.pressure_field(acquisition, grid, engine=engine) for engine in ("cpu", "reference")]
        show("field", n_transmits, relative(*fields), 1e-4)


def show(what: str, n_transmits: int, error: float, allowed: float) -> None:
    print(f"{what}, {n_transmits} transmits: {error:.1e}")
    assert error < allowed, (what, n_transmits, error)


if __name__ == "__main__":
    main()
