"""Fixtures that more than one test file uses, and the list of what was skipped at the end of a run."""

from __future__ import annotations

import signal
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import ussim

REPOSITORY = Path(__file__).resolve().parents[1]
MAIN_PROBES = ("L11-5v", "L12-3v", "C5-2v", "P4-2v")
# MUST's arrays: the small set that comes with the tests, and the large one where there is one.
GOLDEN_FOLDERS = {"small": REPOSITORY / "tests" / "fixtures", "large": REPOSITORY.parent / "shared" / "golden"}


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared reference data beside the repository: golden MUST arrays, MRI and ultrasound samples."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the shared reference data: no folder `shared` beside the repository")
    return folder


@cache
def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(params=[name for name, folder in GOLDEN_FOLDERS.items() if name == "small" or folder.is_dir()])
def golden(request):
    """golden(name): the arrays of <name>.npz, made with PyMUST 0.1.9 (the README of each folder says what each array is)."""
    folder = GOLDEN_FOLDERS[request.param]
    return lambda name: _load_arrays(folder / f"{name}.npz")


@pytest.fixture(params=MAIN_PROBES)
def probe(request) -> ussim.Probe:
    """Each of the four probes with golden arrays."""
    return ussim.load_probe(request.param)


@pytest.fixture(params=ussim.probe_names())
def any_probe(request) -> ussim.Probe:
    """Each preset."""
    return ussim.load_probe(request.param)


def pytest_configure() -> None:
    """Let programs that the tests start be interrupted: a shell starts what it runs in the background deaf to ctrl-C."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where only tests for a card are asked for, leave files without one: that machine may lack what they import."""
    if config.option.markexpr == "gpu" and collection_path.suffix == ".py":
        return "mark.gpu" not in collection_path.read_text(encoding="utf-8") or None
    return None


def pytest_terminal_summary(terminalreporter) -> None:
    """Count what was skipped, by reason: what a green run has not tested must not pass in silence."""
    reasons = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []))
    if reasons:
        terminalreporter.section(f"{sum(reasons.values())} skipped")
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count:5d}  {reason}")


def _reason(report) -> str:
    """Return why a test was skipped, without file and line."""
    text = str(report.longrepr if isinstance(report.longrepr, str) else report.longrepr[-1])
    return text.removeprefix("Skipped: ")
