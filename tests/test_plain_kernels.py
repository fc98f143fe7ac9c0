"""The CPU kernels with the compiler switched off: no index beside an array, and the reference's results."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("radius", ["inf", "30e-3"])
def test_plain_kernels_give_what_the_reference_gives(radius):
    script = Path(__file__).parent / "plain_kernels.py"
    environment = dict(os.environ, NUMBA_DISABLE_JIT="1")
    done = subprocess.run([sys.executable, script, radius], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == 22 + 2 * (radius == "inf")  # and two with an elevation
