"""Where Numba compiles the kernels, each exists once: whatever the user's arrays are like, none is compiled again for them.

What is shipped has one type of each argument, and takes no others.
"""

from __future__ import annotations

import threading
from dataclasses import replace

import numba
import numpy as np
import pytest

import ussim
from ussim.engines.cpu import kernels
from ussim.engines.cpu.kernels import beamform, cells, echoes
from ussim.engines.cpu.threads import n_threads

needs_compiler = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="kernels are not compiled")


ENTRIES = (  # what Python calls; what they call is compiled into them
    cells.cell_spectrum,
    echoes.add_cells,
    beamform.sum_tiles,
    beamform.extreme_arrivals,
    beamform.mix_and_filter,
)


def specializations() -> dict[str, int]:
    return {kernel.__name__: len(kernel.signatures) for kernel in ENTRIES}


@pytest.fixture(scope="module", autouse=True)
def numba_compiles():
    with pytest.MonkeyPatch.context() as patch:
        for kernel in kernels.KERNELS:
            patch.setattr(kernel, "_run", kernel.by_numba())
        yield


@pytest.fixture(scope="module")
def recorded(numba_compiles):
    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves(angles=np.deg2rad([-5.0, 0.0, 5.0])))
    points = ussim.Scatterers(x=[0.0, 2e-3], z=[30e-3, 40e-3], reflectivity=[1.0, 1.0])
    grid = ussim.ImageGrid.for_acquisition(acquisition, shape=(16, 16))
    rf = ussim.simulate(points, acquisition, engine="cpu")
    ussim.delay_and_sum(ussim.demodulate(rf), grid)
    return points, rf, grid


def frozen(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def mapped(array: np.ndarray, tmp_path) -> np.ndarray:
    np.save(tmp_path / "array.npy", array)
    return np.load(tmp_path / "array.npy", mmap_mode="r")


@needs_compiler
@pytest.mark.parametrize("kind", ["read-only", "strided", "memory-mapped", "float64", "Fortran order"])
def test_channel_data_of_any_kind_meets_the_kernels_that_are_there(recorded, kind, tmp_path):
    _, rf, grid = recorded
    make = {
        "read-only": frozen,
        "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
        "memory-mapped": lambda a: mapped(a, tmp_path),
        "float64": lambda a: a.astype(np.float64),
        "Fortran order": np.asfortranarray,
    }[kind]
    before = specializations()
    expected = ussim.demodulate(rf)
    iq = ussim.demodulate(replace(rf, samples=make(rf.samples)))
    np.testing.assert_array_equal(iq.samples, expected.samples)
    if kind != "float64":
        iq = replace(iq, samples=make(iq.samples))
    image = ussim.delay_and_sum(iq, grid)
    np.testing.assert_array_equal(image, ussim.delay_and_sum(expected, grid))
    assert specializations() == before


@needs_compiler
def test_grids_and_transmits_of_any_kind_meet_the_kernels_that_are_there(recorded):
    points, rf, grid = recorded
    probe = rf.acquisition.probe
    lone = np.full((1, probe.n_elements), np.nan)
    lone[0, 3] = 0.0
    before = specializations()
    iq = ussim.demodulate(rf)
    for axes in (
        {"x": np.linspace(-0.01, 0.01, 32)[::2], "z": np.linspace(0.01, 0.05, 32)[::2]},
        {"x": frozen(grid.x), "z": frozen(grid.z)},
    ):
        ussim.delay_and_sum(iq, ussim.ImageGrid(**axes))
    for waves in (
        ussim.CustomTransmits(delays=lone),
        ussim.CustomTransmits(delays=np.asfortranarray(np.zeros((3, 2, probe.n_elements)))),
        ussim.FocusedWaves(x=[0.0], z=[30e-3]),
    ):
        acquisition = ussim.Acquisition(probe, waves)
        ussim.delay_and_sum(ussim.demodulate(ussim.simulate(points, acquisition, engine="cpu")), grid)
    assert specializations() == before


def test_a_share_of_the_threads_is_kept_to():
    """Several workers in one process share its cores; each worker's thread has a share of its own."""
    whole = n_threads()
    shares = []

    def work():
        numba.set_num_threads(1)
        shares.append(n_threads())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert shares == [1]
    assert n_threads() == whole
