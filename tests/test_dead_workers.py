"""Two workers with a card each, emulated on the host: one that dies ends the build in order, and the store resumes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from datasets import FAST, PROBE, fast_recipe, write_stacks

import datagen
from datagen.cli import cli
from datagen.make import cluster
from datagen.make.cluster import Cluster
from datagen.make.progress import Watcher
from datagen.make.verify import verify
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
    ) as local:
        yield local.scheduler_address, faults


def build(root, out, address, capsys, *options):
    """Run `datagen build` on the workers, on those that it starts where the address is None; return its code and output."""
    place = ("--scheduler", address) if address else ()
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
    arguments += ["--mean-distance-wavelengths", FAST["mean_distance_wavelengths"], *place, *options]
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


@pytest.fixture
def two_cards(tmp_path, kernels, monkeypatch):
    """This machine with two cards, and the folder of their faults."""
    import cupy_on_host

    faults = tmp_path / "faults"
    faults.mkdir()
    for name, value in (("DEVICES", "2"), ("KERNELS", str(kernels)), ("FAULT", str(faults))):
        monkeypatch.setenv(f"HOST_CUDA_{name}", value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(cluster, "PRELOAD", (str(HOST_CUDA / "worker.py"), *cluster.PRELOAD))
    undo = cupy_on_host.install(kernels)
    yield faults
    undo()


def digest_line(said):
    return [line for line in said.splitlines() if line.startswith("digest:")]


@pytest.mark.slow
def test_a_build_takes_every_card_and_one_that_dies_ends_it(tmp_path, two_cards, capsys):
    root, out = write_stacks(tmp_path / "stacks", n_subjects=2, n_slices=2), tmp_path / "pairs.zarr"
    (tmp_path / "recipe.toml").write_text("samples-per-shard = 1\n")
    one_by_one = ("--config", tmp_path / "recipe.toml")
    code, alone, _ = build(root, tmp_path / "alone.zarr", None, capsys, *one_by_one, "--engine", "cuda:1")
    assert code == 0
    code, said, _ = build(root, tmp_path / "whole.zarr", None, capsys, *one_by_one)
    assert code == 0
    assert digest_line(said) == digest_line(alone)
    seen = {card: set((two_cards / f"seen-{card}").read_text().splitlines()) for card in (0, 1)}
    assert seen == {card: {f"{card} 1 {cluster.CARD_THREADS}"} for card in (0, 1)}
    recipes = [datagen.open_pairs(tmp_path / name).recipe for name in ("alone.zarr", "whole.zarr")]
    assert recipes[0].digest == recipes[1].digest
    assert [recipe.engine for recipe in recipes] == ["cuda", "cuda"]

    (two_cards / "dies-1").write_text("0")
    code, _, errors = build(root, out, None, capsys, *one_by_one)
    assert code == 6
    assert "worker 1" in errors
    assert "cudaErrorIllegalAddress" in errors
    assert "Traceback" not in errors
    (two_cards / "dies-1").unlink()
    code, resumed, _ = build(root, out, None, capsys, *one_by_one, "--resume")
    assert code == 0
    assert digest_line(resumed) == digest_line(alone)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--workers", 3), 6, "--workers: expected at most one per card, 2, got 3; leave it out"),
        (("--engine", "cuda:1", "--workers", 1), 2, 'engine "cuda:1" is one card, workers have one each'),
        (("--engine", "cuda:2"), 6, 'engine "cuda:2": no such device, there is cuda:0 to cuda:1'),
    ],
)
def test_more_workers_than_cards_and_workers_on_one_card_are_refused_in_a_line(
    tmp_path, two_cards, capsys, options, code, message
):
    root = write_stacks(tmp_path / "stacks", n_subjects=1, n_slices=1)
    ended, _, errors = build(root, tmp_path / "pairs.zarr", None, capsys, *options)
    assert ended == code
    assert message in " ".join(errors.split())
    assert "Traceback" not in errors
    assert not (tmp_path / "pairs.zarr").exists()


def test_a_store_that_recorded_the_number_of_its_card_resumes_on_any(tmp_path, two_cards, monkeypatch):
    root, out = write_stacks(tmp_path / "stacks"), tmp_path / "old.zarr"
    recipe = fast_recipe(root, limit=2, samples_per_shard=1, engine="cuda:1")
    with monkeypatch.context() as patch:
        patch.setattr("datagen.plan.recipe.engine_family", str)  # as it was
        whole = datagen.build(recipe, out)
    assert datagen.open_pairs(out).attributes["recipe"]["engine"] == "cuda:1"
    for shard in (out / "lq").rglob("1"):
        shutil.rmtree(shard)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # there is no second card any more
    again = datagen.build(fast_recipe(root, limit=2, samples_per_shard=1, engine="cuda"), out, resume=True)
    assert (again.n_built, again.digest) == (1, whole.digest)
    report = verify(out, resimulate=2, root=str(root), seed=0)
    assert (report.faults, report.n_resimulated) == ((), 2)
    with pytest.raises(datagen.ChangedError, match='engine "cuda:1" -> "cpu"'):
        datagen.build(fast_recipe(root, limit=2, samples_per_shard=1, engine="cpu"), out, resume=True)


def test_cards_are_those_that_the_process_may_see(two_cards, monkeypatch):
    assert cluster._cards("cuda", None) == cluster._cards("auto", 2) == ["0", "1"]
    assert cluster._cards("cuda:1", None) == cluster._cards("cpu", 4) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5ab1")
    assert cluster._cards("cuda", None) == ["3", "GPU-5ab1"]


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
