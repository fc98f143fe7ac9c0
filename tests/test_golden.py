"""The golden arrays in `fixtures`: small, complete, and what their script makes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

FIXTURES = Path(__file__).parent / "fixtures"
PROBES = ("L11-5v", "L12-3v", "C5-2v", "P4-2v")
KINDS = ("txdelay", "pulse_pfield", "simus2d", "beamform")


def test_the_small_set_is_small_and_whole():
    files = {path.stem: path.stat().st_size for path in FIXTURES.glob("*.npz")}
    others = {"simus2d_options_L11-5v", "simus3_matrix", "simus_elev_P4-2v"}
    assert set(files) == {f"{kind}_{name}" for kind in KINDS for name in PROBES} | others
    assert sum(files.values()) < 3e6


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.npz")), ids=lambda path: path.stem)
def test_every_array_is_finite_and_says_something(path):
    with np.load(path, allow_pickle=False) as arrays:
        for name, values in arrays.items():
            off = np.isnan(values)
            assert off.sum() == (32 if name == "delays_NaN" else 0), name
            assert np.isfinite(values[~off]).all(), name
            assert values.size == 1 or np.ptp(values[~off]) > 0 or name == "delays_plane_+0deg" or "elem_z" in name, (
                name
            )


@pytest.mark.peer
@pytest.mark.parametrize("name", PROBES)
def test_pymust_makes_them_again(name):
    pytest.importorskip("pymust")
    spec = importlib.util.spec_from_file_location("make_golden", FIXTURES / "make_golden.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for stem, arrays in script.make((name,)).items():
        with np.load(FIXTURES / f"{stem}.npz", allow_pickle=False) as stored:
            assert set(arrays) == set(stored), stem
            for key, made in arrays.items():
                scale = np.nanmax(np.abs(made)) or 1.0
                # float32 in places, and another build of NumPy or SciPy sums in another order
                np.testing.assert_allclose(stored[key], made, rtol=0, atol=1e-6 * scale, err_msg=f"{stem} {key}")
