"""The guide to clusters, carried out: its scripts on local stand-ins for SLURM and Kubernetes, with one digest."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
from datasets import FAST, PROBE, fast_recipe, write_stacks

import datagen
from datagen.cli import cli
from datagen.make.build import build
from ussim.commands import console

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "clusters.md"
# What a queue, an account or an image are to SLURM and Kubernetes, nothing is to processes of this machine.
FOREIGN = {"queue", "account", "walltime", "job_script_prologue", "name", "image", "env", "resources", "worker_command"}

jobqueue = pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue (the extra test)")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")  # of dask-jobqueue


def scripts(language: str) -> list[str]:
    """The blocks of the guide in one language."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_stacks(tmp_path_factory.mktemp("stacks"))


@pytest.fixture(scope="module")
def digest(root, tmp_path_factory):
    return build(fast_recipe(root, limit=6), tmp_path_factory.mktemp("built") / "pairs.zarr").digest


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """A cluster that starts workers as a queue does: as jobs, here processes of this machine."""
    from dask_jobqueue.local import LocalCluster

    def started(**options):
        given = {name: value for name, value in options.items() if name not in FOREIGN}
        return LocalCluster(
            **given, nanny=False, local_directory=str(tmp_path_factory.mktemp("jobs")),
            scheduler_options={"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}, python=sys.executable,
        )  # fmt: skip

    return started


def test_workers_that_are_jobs_make_the_same_store(root, digest, jobs, tmp_path, capsys):
    out = tmp_path / "pairs.zarr"
    given = [
        "build",
        "--source",
        "npy",
        "--root",
        root,
        "--probe",
        PROBE,
        "-o",
        out,
        "--limit",
        6,
        "--size",
        FAST["size"],
    ]
    given += ["--angles", 1, "--mean-distance-wavelengths", FAST["mean_distance_wavelengths"]]
    given += ["--min-tissue", FAST["min_tissue"]]
    with jobs(cores=1, processes=1, memory="2GB") as cluster:
        cluster.scale(jobs=1)
        given += ["--scheduler", cluster.scheduler_address]
        assert console.run(cli, "datagen", list(map(str, given))) == 0, capsys.readouterr().err
    assert datagen.open_pairs(out).attributes["digest"] == digest


def test_the_script_for_slurm_builds_on_jobs(root, digest, jobs, tmp_path, monkeypatch, capsys):
    (script,) = (text for text in scripts("python") if "SLURMCluster" in text)
    monkeypatch.setattr(jobqueue, "SLURMCluster", jobs)
    run(script, root, tmp_path, monkeypatch)
    assert capsys.readouterr().out.strip() == digest


def test_the_script_for_slurm_asks_for_what_it_says():
    (script,) = (text for text in scripts("python") if "SLURMCluster" in text)
    options = {}

    class Asked(Exception):
        pass

    def asked(**given):
        options.update(given)
        raise Asked

    code = script.replace("from dask_jobqueue import SLURMCluster", "")
    with pytest.raises(Asked):
        exec(code, {"__name__": "__main__", "SLURMCluster": asked})
    job = jobqueue.slurm.SLURMJob(scheduler="tcp://10.0.0.1:8786", name="worker", **options).job_script()
    for line in ("#SBATCH -p cpu", "#SBATCH -A ultrasound", "#SBATCH -t 04:00:00", "#SBATCH --cpus-per-task=1"):
        assert line in job
    assert "export NUMBA_NUM_THREADS=1\nsource ~/venv/bin/activate\n" in job


def test_the_script_for_kubernetes_builds_on_workers(root, digest, tmp_path, monkeypatch, capsys):
    from distributed import LocalCluster

    (script,) = (text for text in scripts("python") if "KubeCluster" in text)

    def started(**options):
        assert options.keys() >= {"name", "image", "n_workers", "env", "worker_command"}
        return LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0")

    operator = types.ModuleType("dask_kubernetes.operator")
    operator.KubeCluster = started
    monkeypatch.setitem(sys.modules, "dask_kubernetes", types.ModuleType("dask_kubernetes"))
    monkeypatch.setitem(sys.modules, "dask_kubernetes.operator", operator)
    run(script.replace("s3://pairs/", "memory://pairs/").replace('{"endpoint_url": "https://s3.example.org"}', "None"),
        root, tmp_path, monkeypatch)  # fmt: skip
    assert capsys.readouterr().out.strip() == digest


def test_the_script_for_sbatch_is_one(tmp_path):
    (script,) = scripts("bash")
    (tmp_path / "build.sh").write_text(script)
    assert subprocess.run(["bash", "-n", tmp_path / "build.sh"], capture_output=True, text=True).stderr == ""
    tasks = [int(count) for count in re.findall(r"--ntasks=(\d+)", script)]
    assert tasks[0] == sum(tasks[1:])  # the job holds what its steps take
    (command,) = re.findall(r"datagen (build .*)", script)
    given = [
        word if word not in ("mri/", "pairs.zarr", "scheduler.json") else str(tmp_path / "none")
        for word in command.split()
    ]
    assert console.run(cli, "datagen", given) == 3  # understood; there are no files


def run(script: str, root: Path, folder: Path, monkeypatch) -> None:
    """A script of the guide, on small data."""
    small = fast_recipe(root, limit=6)
    monkeypatch.setattr(datagen, "Recipe", lambda **given: small)
    monkeypatch.chdir(folder)
    exec(script, {"__name__": "__main__"})
