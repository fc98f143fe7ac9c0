"""The vectors of sixteen: each operation against NumPy."""

import os
import subprocess
import sys

import numpy as np
import pytest

from ussim import physics
from ussim.engines.cpu.kernels import simd
from ussim.engines.cpu.kernels.layout import LANES, LINE, ROWS, aligned_empty
from ussim.engines.cpu.kernels.simd import (
    compiled,
    complex_outer,
    cosine_sine,
    exp,
    exp_minus_one,
    fma,
    load,
    store,
    total,
    transpose_block,
    turn_minus_one,
)

_incidence, _obliquity, _directivity = map(compiled, (physics.incidence, physics.obliquity, physics.directivity))


@compiled
def _elementary(x, out):
    for i in range(0, len(x), LANES):
        value = load(x, i)
        cosine, sine = cosine_sine(value)
        store(out[0], i, cosine)
        store(out[1], i, sine)
        store(out[2], i, exp(value))
        store(out[3], i, np.sinc(value))
        re, im = turn_minus_one(value)
        store(out[4], i, re)
        store(out[5], i, im)
        store(out[6], i, exp_minus_one(value))


@compiled
def _arithmetic(x, y, out):
    a, b = load(x, 0), load(y, 0)
    store(out[0], 0, fma(a, b, -b) / (1 - np.abs(a)))
    store(out[1], 0, np.where(a < 0.5, np.maximum(a, b), 2.0))
    store(out[2], 0, np.sqrt(np.abs(a)) + np.rint(b * 10))
    out[3][0] = total(a)


@compiled
def _transpose(source, target):
    transpose_block(source, 3, 20, target, 5, 17)


@compiled
def _outer(sums, scalars, vectors, n, rows):
    complex_outer(sums, 0, scalars, 0, 8, 1, 24, vectors, 0, LANES, 3 * LANES, n, rows)


@compiled
def _amplitude(dx, dz, sine, cosine, baffle, half_width_wavenumber, out):
    for i in range(0, len(dx), LANES):
        sin_theta, cos_theta = _incidence(load(dx, i), load(dz, i), sine, cosine)
        store(out, i, _obliquity(cos_theta, baffle) * _directivity(sin_theta, half_width_wavenumber))


def test_elementary_functions():
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [rng.uniform(-30, 30, 4000), rng.uniform(-0.1, 0.1, 4000), [0, 0.125, 0.25, 0.5, 0.75, 1, -0.5, 2]]
    )
    x = np.append(x, np.zeros(-len(x) % LANES)).astype(np.float32)
    out = np.zeros((7, len(x)), dtype=np.float32)
    _elementary(x, out)
    exact = x.astype(np.float64)
    turn = np.exp(2j * np.pi * exact)
    # A few units in the last place of float32 (6e-8).
    np.testing.assert_allclose(out[0], turn.real, atol=2e-7)
    np.testing.assert_allclose(out[1], turn.imag, atol=2e-7)
    np.testing.assert_allclose(out[2], np.exp(exact), rtol=3e-7)
    np.testing.assert_allclose(out[3], np.sinc(exact), atol=4e-7)
    small = np.abs(exact) < 0.1
    np.testing.assert_allclose(out[4][small], -2 * np.sin(np.pi * exact[small]) ** 2, rtol=6e-7, atol=1e-30)
    np.testing.assert_allclose(out[5][small], np.sin(2 * np.pi * exact[small]), rtol=6e-7, atol=1e-30)
    np.testing.assert_allclose(out[6][small], np.expm1(exact[small]), rtol=3e-7, atol=1e-30)


def test_arithmetic_mixes_vectors_and_numbers():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, LANES)).astype(np.float32)
    out = np.zeros((4, LANES), dtype=np.float32)
    _arithmetic(x, y, out)
    np.testing.assert_allclose(out[0], (x * y - y) / (1 - np.abs(x)), rtol=1e-5)
    np.testing.assert_array_equal(out[1], np.where(x < 0.5, np.maximum(x, y), 2.0).astype(np.float32))
    np.testing.assert_allclose(out[2], np.sqrt(np.abs(x)) + np.rint(y * 10), rtol=1e-6)
    np.testing.assert_allclose(out[3, 0], x.sum(dtype=np.float64), rtol=1e-5)


def test_transpose_block():
    source = np.arange(400, dtype=np.float32)
    target = np.zeros(400, dtype=np.float32)
    _transpose(source, target)
    for i in range(LANES):
        for j in range(LANES):
            assert target[5 + 17 * j + i] == source[3 + 20 * i + j]


@pytest.mark.parametrize("rows", range(1, ROWS + 1))
def test_complex_outer_is_three_real_products(rows, monkeypatch):
    """Whatever the registers: the same bytes with all sums in them at once as with a few at a time."""
    n = 37
    rng = np.random.default_rng(rows)
    column = rng.normal(size=(n, rows)) + 1j * rng.normal(size=(n, rows))
    row = rng.normal(size=(n, LANES)) + 1j * rng.normal(size=(n, LANES))
    scalars = np.zeros((n, 3, 8), dtype=np.float32)
    scalars[:, :, :rows] = np.stack([column.real, column.imag, column.real + column.imag], axis=1)
    vectors = aligned_empty(n * 3 * LANES)
    vectors[:] = np.stack([row.real, row.imag, row.real + row.imag], axis=1).astype(np.float32).reshape(-1)
    outcomes = []
    for wide in (False, True):
        monkeypatch.setattr(simd._wide, "value", wide)
        sums = np.full((ROWS, 3, LANES), 5.0, dtype=np.float32)
        _outer(sums.reshape(-1), scalars.reshape(-1), vectors, n, rows)
        outcomes.append(sums.tobytes())
    assert outcomes[0] == outcomes[1]
    a, b, c = (sums[:rows] - 5).transpose(1, 0, 2).astype(np.float64)
    np.testing.assert_allclose((a - b) + 1j * (c - a - b), column.T @ row, atol=1e-4)  # float32, sums of 37 around 100
    assert np.all(sums[rows:] == 5)


@pytest.mark.parametrize("baffle", [0.0, 1.75, np.inf])
def test_the_formulas_compile_for_vectors(baffle):
    rng = np.random.default_rng(2)
    dx, dz = rng.uniform(-0.03, 0.03, 160).astype(np.float32), rng.uniform(1e-3, 0.03, 160).astype(np.float32)
    sine, cosine, half_width = np.sin(0.4), np.cos(0.4), 2.1
    out = np.zeros(160, dtype=np.float32)
    _amplitude(dx, dz, sine, cosine, baffle, half_width, out)
    sin_theta, cos_theta = physics.incidence(dx.astype(np.float64), dz.astype(np.float64), sine, cosine)
    expected = physics.obliquity(cos_theta, baffle) * physics.directivity(sin_theta, half_width)
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_aligned_empty_begins_on_a_cache_line():
    for n in (1, 16, 1000):
        buffer = aligned_empty(n)
        assert buffer.shape == (n,)
        assert buffer.dtype == np.float32
        assert buffer.ctypes.data % LINE == 0


KERNELS_OF_EACH_MODULE = """
import pkgutil
from importlib import import_module

import numba
import ussim

for module in pkgutil.walk_packages(ussim.__path__, "ussim."):
    if module.name.endswith("__main__"):
        continue
    for name, value in vars(import_module(module.name)).items():
        if isinstance(value, numba.core.dispatcher.Dispatcher) and value.py_func.__module__ == module.name:
            print(module.name, name, len(value.overloads))
"""


def test_importing_the_engine_compiles_nothing():
    done = subprocess.run([sys.executable, "-c", KERNELS_OF_EACH_MODULE], check=True, capture_output=True, text=True)
    found = [line.split() for line in done.stdout.splitlines()]
    kernels = {name for _, name, _ in found}
    # One of each file that compiles: what an engine calls, and what those call.
    assert kernels >= {"cell_spectrum", "cell_power", "add_cells", "sum_tiles", "extreme_arrivals", "mix_and_filter"}
    assert len(found) > 30
    assert [(module, name) for module, name, count in found if count != "0"] == []


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["haswell", "x86-64"])
def test_narrower_machines_give_the_same(cpu, tmp_path):
    """LLVM splits the vectors where registers are narrower (AVX2), or there is no fused multiply-add at all (SSE2)."""
    environment = dict(os.environ, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES="", NUMBA_CACHE_DIR=str(tmp_path))
    tests = ["test_dense_speckle_matches_the_oracle", "test_options_match_the_oracle", "test_any_number_of_transmits"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", " or ".join(tests)]
    here = os.path.dirname(__file__)
    done = subprocess.run(
        [*command, os.path.join(here, "test_engine_cpu.py")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
