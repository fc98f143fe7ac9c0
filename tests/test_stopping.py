"""Being stopped while a cluster starts: one line, exit 130 or 143; volumes and workers that are lost are named."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from datasets import PROBE, fast_recipe, write_stacks

from datagen.make.build import build
from datagen.make.cluster import DEADLY, Cluster, Workers, _noticing_lost_workers
from datagen.make.progress import Watcher
from ussim.commands.stopping import Terminated, deferred, terminable


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_waits_for_the_end_of_what_must_not_be_cut(number, kind):
    before = signal.getsignal(number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    reached = []

    def work():
        with terminable(), deferred():
            os.kill(os.getpid(), number)
            time.sleep(0.01)
            reached.append(True)

    try:
        with pytest.raises(kind):
            work()
    finally:
        signal.signal(number, before)
    assert reached
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == set()


def test_sigterm_ends_what_it_comes_in():
    heard = []

    def work():
        with terminable():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
            heard.append("never")

    with pytest.raises(Terminated):
        work()
    assert not heard
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_fork_dies_of_sigterm_as_ever():
    with terminable():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(1)
        _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGTERM


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
@pytest.mark.parametrize("children", [1, 3])  # the tracker of resources, then workers: the cluster is half there
def test_a_signal_while_a_cluster_starts_is_one_line(tmp_path, number, code, word, children):
    import psutil

    root, out = write_stacks(tmp_path / "stacks"), tmp_path / "pairs.zarr"
    options = ["--source", "npy", "--root", str(root), "--probe", PROBE, "--size", "16", "--angles", "1"]
    arguments = [sys.executable, "-c", "from datagen.cli import main; main()", "build", *options, "--workers", "2"]
    running = subprocess.Popen([*arguments, "-o", str(out)], stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(psutil.Process(running.pid).children(recursive=True)) < children:
        time.sleep(0.005)
    if number == signal.SIGINT:
        os.killpg(running.pid, number)  # as a terminal does: the children are asked too
    else:
        running.send_signal(number)
    _, messages = running.communicate(timeout=120)
    assert running.returncode == code, messages
    lines = [line for line in messages.splitlines() if line and "workers at" not in line]
    assert len(lines) == 1, messages
    assert f"datagen: {word}; what is finished stays" in lines[0]


class Dead:
    """A future whose worker died, or one that calls."""

    def __init__(self, call=None):
        self.call = call

    def result(self):
        from distributed import KilledWorker

        if self.call is None:
            raise KilledWorker("task", None, 3)
        return self.call()

    def cancel(self):
        pass


def test_a_volume_that_kills_its_worker_while_planning_is_named_and_set_aside(tmp_path, monkeypatch):
    root, path = write_stacks(tmp_path / "stacks"), tmp_path / "pairs.zarr"

    class Client:
        def nthreads(self):
            return {"worker": 1}

        def submit(self, function, ref, pure):
            return Dead() if ref.name == deadly else Dead(lambda: function(ref))

    from datagen.sources import get_source

    deadly = get_source("npy").find(root)[0].name
    monkeypatch.setattr(
        Workers, "map", lambda self, *arguments: Cluster.map(Cluster(Client(), self.watcher), *arguments)
    )
    summary = build(fast_recipe(root), path)
    assert summary.unreadable == ((f"npy: {deadly}", DEADLY),)
    assert summary.n_samples


def test_workers_that_are_all_lost_are_said_to_be():
    class Client:
        status = "running"

        def nthreads(self):
            return {}

        def scheduler_info(self):
            return {"address": "tcp://here:8786"}

    said, heard = [], threading.Event()

    class Listener(Watcher):
        def message(self, text):
            said.append(text)
            heard.set()

    with _noticing_lost_workers(Client(), Listener(), interval=0.01):
        assert heard.wait(10)
        time.sleep(0.1)
    assert said == ["no worker is left at tcp://here:8786; waiting for one: `dask worker tcp://here:8786` starts one"]


def test_a_scheduler_that_is_lost_is_one_line(tmp_path):
    """A scheduler of somebody else's is killed while its worker is at work."""
    import socket

    root, out = write_stacks(tmp_path / "stacks"), tmp_path / "pairs.zarr"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"

    def dask(what, *options):
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *options, "--no-dashboard"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    scheduler = dask("scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2])
    worker = dask("worker", address, "--nthreads", "1")
    try:
        time.sleep(1)
        options = ["--source", "npy", "--root", str(root), "--probe", PROBE, "--size", "128", "--angles", "7"]
        arguments = [sys.executable, "-c", "from datagen.cli import main; main()", "build", *options, "-o", str(out)]
        arguments += ["--scheduler", address]
        running = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and running.poll() is None and not list(out.glob("build/shards/*.json")):
            time.sleep(0.05)
        scheduler.kill()
        _, messages = running.communicate(timeout=120)
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()
    assert running.returncode == 3, messages
    lines = messages.splitlines()
    assert lines[-1] == (
        "datagen: error: the scheduler was lost; start it again and run the same command with --resume"
    ), messages
    said = ("workers at", "reading volumes:", "samples:", "24 samples of 3 volumes")  # the times before them vary
    assert all(any(part in line for part in said) for line in lines[:-1]), messages
