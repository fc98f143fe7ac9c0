"""Two workers with a card each, emulated on the host: one that dies ends the build in order, and the store resumes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from datasets import FAST, PROBE, write_stacks

import datagen
from datagen.cli import cli
from datagen.make.cluster import Cluster
from datagen.make.progress import Watcher
from ussim.commands import console

HOST_CUDA = Path(__file__).parent / "host_cuda"


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """Where the compiled kernels are kept, so that both workers of every test find them."""
    sys.path.insert(0, str(HOST_CUDA))
    from backend import find_compiler

    if find_compiler() is None:
        pytest.skip("needs a C++ compiler")
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="module")
def cards(tmp_path_factory, kernels):
    """A scheduler's address with two workers, and the folder of their faults."""
    from distributed import LocalCluster

    faults = tmp_path_factory.mktemp("faults")
    environment = {
        **dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
        "HOST_CUDA_KERNELS": str(kernels),
        "HOST_CUDA_FAULT": str(faults),
    }
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        env=environment,
        preload=[str(HOST_CUDA / "worker.py"), "datagen.make.cluster"],
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        yield cluster.scheduler_address, faults


def build(root, out, address, capsys, *options):
    """Run `datagen build` on the workers; return its exit code and what it printed."""
    arguments = ["build", "--source", "npy", "--root", root, "--probe", PROBE, "--engine", "cuda", "-o", out]
    arguments += [
        "--limit",
        4,
        "--size",
        FAST["size"],
        "--angles",
        FAST["n_transmits"],
        "--min-tissue",
        FAST["min_tissue"],
    ]
    arguments += ["--mean-distance-wavelengths", FAST["mean_distance_wavelengths"], "--scheduler", address, *options]
    code = console.run(cli, "datagen", [str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.slow
def test_a_card_that_dies_among_two_ends_the_build_and_the_store_resumes(tmp_path, cards, capsys):
    address, faults = cards
    root, out = write_stacks(tmp_path / "stacks", n_subjects=2, n_slices=2), tmp_path / "pairs.zarr"
    code, said, _ = build(root, tmp_path / "whole.zarr", address, capsys)
    assert code == 0
    (faults / "dies-1").write_text("0")  # from now on, whatever it did before
    code, _, errors = build(root, out, address, capsys)
    assert code == 6
    assert "cudaErrorIllegalAddress" in errors
    assert "worker 1" in errors
    assert "Traceback" not in errors
    with pytest.raises(datagen.DataError, match="unfinished"):
        datagen.open_pairs(out)
    (faults / "dies-1").unlink()
    code, resumed, _ = build(root, out, address, capsys, "--resume")
    assert code == 0
    assert [line for line in resumed.splitlines() if line.startswith("digest:")] == [
        line for line in said.splitlines() if line.startswith("digest:")
    ]
    assert "set aside" not in resumed


def test_a_finished_shard_whose_worker_died_before_it_was_heard_is_made_apart(tmp_path, monkeypatch):
    """Dask runs it again, and blames it where that worker was killed by another task."""
    from distributed import KilledWorker

    class Future:
        status = "finished"  # as it was seen before the result was asked for

        def result(self):
            raise KilledWorker("task", None, 3)

    apart = []
    monkeypatch.setattr(Cluster, "make_apart", lambda self, job: apart.append(job) or {"rows": []})
    assert Cluster(None, Watcher())._outcome(Future(), "the shard") == {"rows": []}
    assert apart == ["the shard"]
