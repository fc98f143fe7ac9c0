"""The one command for a machine with a card: what it makes of its parts, tried where there is none."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import gpu_report  # noqa: E402

CARD = {"name": "A card", "compute_capability": "9.0", "memory": 80 * 2**30, "free_memory": 79 * 2**30}


def a_run(tmp_path, seconds=300.0, report=None):
    report = report or {"devices": [CARD], "problem": None}
    return gpu_report.Run(tmp_path, time.monotonic() + seconds, lambda: report)


def junit(path, **counts):
    counts = " ".join(f'{key}="{value}"' for key, value in counts.items())
    path.write_text(f'<?xml version="1.0"?><testsuites><testsuite name="pytest" {counts}></testsuite></testsuites>')
    return path


def test_without_a_card_it_fails_and_says_why(tmp_path):
    if gpu_report.cuda_report()["problem"] is None:
        pytest.skip("there is a card")
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "gpu_report.py"), str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 6
    assert ended.stderr.startswith('gpu: error: engine "cuda"')
    assert ended.stderr.count("\n") == 1
    assert json.loads((tmp_path / "out" / "card.json").read_text())["problem"]


def test_a_card_is_written_down(tmp_path, capsys):
    assert a_run(tmp_path).card() is None
    assert json.loads((tmp_path / "card.json").read_text())["devices"] == [CARD]
    assert "A card, compute capability 9.0, 80 GiB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("counts", "faults"),
    [
        ({"tests": 57, "failures": 0, "errors": 0, "skipped": 0}, []),
        ({"tests": 57, "failures": 0, "errors": 0, "skipped": 57}, ["tests: 57 skipped"]),
        ({"tests": 57, "failures": 2, "errors": 1, "skipped": 0}, ["tests: 2 failures", "tests: 1 errors"]),
        ({"tests": 0, "failures": 0, "errors": 0, "skipped": 0}, ["tests: none ran"]),
    ],
)
def test_a_run_of_tests_is_good_only_if_all_passed(tmp_path, counts, faults):
    assert gpu_report.judge(junit(tmp_path / "tests.xml", **counts)) == faults


def test_tests_that_were_skipped_are_a_fault(tmp_path):
    """Those for a card, run here: all skipped, which pytest itself ends with 0."""
    if gpu_report.cuda_report()["problem"] is None:
        pytest.skip("there is a card")
    faults = a_run(tmp_path).tests(("-m", "gpu", "-k", "formulas or doctor"))
    assert faults == ["tests: 1 skipped"]
    assert a_run(tmp_path).tests(("-m", "gpu", "-k", "no_such_test")) == ["tests: none ran"]


def test_only_files_with_tests_for_a_card_are_collected_for_it():
    """Where pydantic, zarr, Dask and the rest are missing, the others could not be."""
    blocked = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('pydantic', 'zarr', 'dask', 'nibabel', 'pydicom', 'click', 'matplotlib',\n"
        "                                      'PIL', 'torch', 'rich', 'skimage'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "import pytest\n"
        "sys.exit(pytest.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", blocked, "-m", "gpu", "--collect-only", "-p", "no:cacheprovider", "-q"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout
    files = set(re.findall(r"^(tests/\w+\.py)", ended.stdout, re.MULTILINE))
    assert files == set(gpu_report.TESTS)


def test_a_part_that_does_not_end_is_stopped_and_leaves_its_output(tmp_path):
    endless = [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(600)"]
    begun = time.monotonic()
    assert a_run(tmp_path, seconds=3).run("slow", endless) == "slow: not done when the time was over"
    assert time.monotonic() - begun < 60
    assert (tmp_path / "slow.txt").read_text() == "begun\n"
    assert a_run(tmp_path, seconds=0).run("late", endless) == "late: no time left"
    assert a_run(tmp_path).run("absent", ["no-such-program"]) == "absent: no-such-program is not installed"
    assert a_run(tmp_path).run("bad", [sys.executable, "-c", "raise SystemExit(3)"]) == "bad: ended with 3"


def test_checkers_see_every_kernel(tmp_path, monkeypatch):
    """The workload that compute-sanitizer runs launches each kernel of the files, here compiled for the host."""
    import gpu

    sys.path.insert(0, str(REPOSITORY / "tests" / "host_cuda"))
    backend = pytest.importorskip("backend")
    if backend.find_compiler() is None:
        pytest.skip("needs a C++ compiler")
    launched = set()
    compiled = backend.HostBackend.kernels_of_source

    def listening(self, source, sizes):
        launch = compiled(self, source, sizes)
        return lambda name, *rest: (launched.add(name), launch(name, *rest))[1]

    monkeypatch.setattr(backend.HostBackend, "kernels_of_source", listening)
    undo = gpu.pretend_a_card(tmp_path)
    try:
        gpu.run_every_kernel(gpu.cuda.engine(0))
    finally:
        undo()
    folder = REPOSITORY / "ussim" / "engines" / "cuda"
    kernels = set()
    for path in folder.glob("*.cu"):
        kernels |= set(re.findall(r"__global__ void(?: __launch_bounds__\([^)]*\))? (\w+)\(", path.read_text()))
    assert len(kernels) > 8
    assert launched == kernels
    assert set(gpu_report.PROFILED.split("|")) <= kernels
