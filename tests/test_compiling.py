"""Compilation by Numba where nothing can be kept: each case in a process of its own, with a copy of the package.

`USSIM_KERNELS` has Numba compile what is shipped compiled.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ussim
from ussim.compiling import _forgiving

# Demodulation compiles in seconds, by the same decorator as everything else.
PROGRAM = """
import sys, numpy as np, ussim
from ussim import waiting
waiting.DELAY = 0.01
waiting.announce(lambda text: print("SAID", text))
acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves([0.0]))
samples = np.random.default_rng(0).standard_normal((1, 64, 400)).astype(np.float32)
iq = ussim.demodulate(ussim.RFData(samples, acquisition, acquisition.sampling_frequency))
np.save(sys.argv[1], iq.samples)
"""


@pytest.fixture
def installed(tmp_path):
    """A copy of the package in which Numba can keep nothing, whoever runs this: `__pycache__` is a file."""
    home = tmp_path / "installed"
    for package in ("ussim", "probes"):
        source = Path(ussim.__file__).parent.parent / package
        shutil.copytree(source, home / package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("ussim", "ussim/engines", "ussim/engines/cpu", "ussim/engines/cpu/kernels"):
        (home / folder / "__pycache__").write_text("")
    (tmp_path / "file").write_text("")
    (tmp_path / "tmp").mkdir()
    return home


@pytest.fixture
def run(installed, tmp_path):
    """run(**environment): the process, and the samples that it computed."""

    def call(**environment):
        kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "PYTHONPATH")}
        nowhere = str(tmp_path / "file" / "cache")  # below a file: not even root can make it
        environment = kept | {
            "USSIM_KERNELS": "numba", "PYTHONPATH": str(installed),
            "XDG_CACHE_HOME": nowhere, "HOME": nowhere, "TMPDIR": str(tmp_path / "tmp"),
        } | environment  # fmt: skip
        out = tmp_path / "out.npy"
        out.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-B", "-c", PROGRAM, out],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        return done, np.load(out)

    return call


def expected():
    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves([0.0]))
    samples = np.random.default_rng(0).standard_normal((1, 64, 400)).astype(np.float32)
    return ussim.demodulate(ussim.RFData(samples, acquisition, acquisition.sampling_frequency)).samples


def test_a_read_only_installation_keeps_its_code_among_the_temporary_files(run, tmp_path):
    done, samples = run()
    np.testing.assert_array_equal(samples, expected())
    assert done.stderr.count("UserWarning") == 1
    assert "NUMBA_CACHE_DIR" in done.stderr
    (folder,) = (tmp_path / "tmp").iterdir()
    assert folder.stat().st_mode & 0o077 == 0  # what is read there is run
    assert any(folder.rglob("*.nbc"))
    assert "SAID compiling" in done.stdout
    done, samples = run()  # the second run finds what the first one kept
    np.testing.assert_array_equal(samples, expected())
    assert "SAID" not in done.stdout


@pytest.mark.parametrize("obstacle", ["file", "open to all"])
def test_without_any_folder_each_run_compiles(run, tmp_path, obstacle):
    folder = tmp_path / "tmp" / f"ussim-numba-{os.getuid()}"
    if obstacle == "file":
        folder.write_text("")
    else:  # somebody else may have put code there
        folder.mkdir()
        folder.chmod(0o777)
    done, samples = run()
    np.testing.assert_array_equal(samples, expected())
    assert done.stderr.count("UserWarning") == 1
    assert "every run compiles again" in done.stderr
    assert not any(folder.rglob("*.nbc"))


def test_the_folder_of_the_user_is_used_and_may_be_damaged(run, tmp_path):
    place = {"NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    done, _ = run(**place)
    assert done.stderr == ""
    for index in (tmp_path / "kept").rglob("*.nbi"):
        index.write_bytes(index.read_bytes()[:-20])
    done, samples = run(**place)
    np.testing.assert_array_equal(samples, expected())
    assert "cannot be kept or read" in done.stderr
    assert "Traceback" not in done.stderr
    done, _ = run(**place)  # and is whole again
    assert (done.stderr, done.stdout) == ("", "")


def test_what_another_release_left_is_compiled_anew_without_a_word():
    flushed = []

    def load():
        raise ModuleNotFoundError("No module named 'ussim.engines.simd'", name="ussim.engines.simd")

    assert _forgiving(load, lambda: flushed.append(True))() is None  # a warning would be an error here
    assert flushed == [True]
