"""Progress of the engines, and how soon they stop: ctrl-C comes from another thread, as from a terminal."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import ussim

ACQUISITION = ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves(np.deg2rad([-5.0, 5.0])))
SOON = 2.0  # s; half a second on an idle machine. The work below takes many times as long
CALLS = ("simulate", "delay_and_sum", "pressure_field")
LARGE = {"simulate": 800, "delay_and_sum": 3000, "pressure_field": 1000}


def call(name, engine, size, **options):
    """One of the long functions, with work in proportion to size²."""
    grid = ussim.ImageGrid(x=np.linspace(-0.02, 0.02, size), z=np.linspace(0.02, 0.06, size))
    if name == "pressure_field":
        return ussim.pressure_field(ACQUISITION, grid, engine=engine, **options)
    if name == "delay_and_sum":
        samples = np.random.default_rng(0).standard_normal((2, 64, 900)).astype(np.complex64)
        iq = ussim.IQData(samples, ACQUISITION, ACQUISITION.sampling_frequency, 2.72e6)
        return ussim.delay_and_sum(iq, grid, engine=engine, **options)
    x, z = (axis.ravel() for axis in grid.mesh())
    return ussim.simulate(ussim.Scatterers(x, z, np.ones(x.size)), ACQUISITION, engine, **options)


@pytest.mark.parametrize("engine", ["cpu", "reference"])
@pytest.mark.parametrize("name", CALLS)
def test_progress_rises_to_its_total_and_changes_nothing(name, engine):
    calls = []
    size = 24 if engine == "cpu" else 10
    with_progress = call(name, engine, size, progress=lambda done, total: calls.append((done, total)))
    done, totals = np.array(calls).T
    assert np.all(np.diff(done) >= 0)
    assert len(set(totals)) == 1
    assert calls[-1][0] == calls[-1][1] > 0
    without = call(name, engine, size)
    np.testing.assert_array_equal(
        getattr(with_progress, "samples", with_progress), getattr(without, "samples", without)
    )


@pytest.mark.parametrize("engine", ["cpu", "reference"])
@pytest.mark.parametrize("name", CALLS)
def test_ctrl_c_stops_at_once(name, engine):
    call(name, engine, 8)  # compiled before
    sent, before = [], signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt():
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.5, interrupt)

    def begun(done, total):
        if not sent and not timer.is_alive():
            timer.start()

    try:
        with pytest.raises(KeyboardInterrupt):
            call(name, engine, LARGE[name] if engine == "cpu" else 300, progress=begun)
        assert time.monotonic() - sent[0] < SOON
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
    assert not [thread.name for thread in threading.enumerate() if "ThreadPool" in thread.name]


@pytest.mark.parametrize("name", CALLS)
def test_what_progress_raises_ends_the_work(name):
    calls = []

    def enough(done, total):
        calls.append(done)
        raise TimeoutError("enough")

    with pytest.raises(TimeoutError, match="enough"):
        call(name, "cpu", 400, progress=enough)
    assert len(calls) == 1


def test_ctrl_c_at_any_moment_ends_work_of_many_tasks():
    """Ctrl-C that is raised while `wait` takes the tasks' locks leaves them taken: workers and caller then wait for ever."""
    code = """
import os, signal, sys, threading, time
from ussim.engines.cpu import threads
from ussim.engines.cpu.threads import finish, workers
threads.INTERVAL = 1e-4  # nearly always among the locks
for k in range(12):
    threading.Timer(0.02 + 0.003 * k, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        with workers(2) as pool:
            finish([pool.submit(time.sleep, 0.0005) for _ in range(4000)])
    except KeyboardInterrupt:
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    else:
        sys.exit("not interrupted")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
