"""Fixtures that more than one test file uses."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

import ussim

REPOSITORY = Path(__file__).resolve().parents[1]
MAIN_PROBES = ("L11-5v", "L12-3v", "C5-2v", "P4-2v")


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


@pytest.fixture
def golden(shared):
    """golden(name): the arrays of shared/golden/<name>.npz, made with PyMUST 0.1.9 (its README says what each is)."""

    def read(name: str) -> dict[str, np.ndarray]:
        path = shared / "golden" / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"needs shared/golden/{name}.npz")
        return _load_arrays(path)

    return read


@pytest.fixture(params=MAIN_PROBES)
def probe(request) -> ussim.Probe:
    """Each of the four probes with golden arrays."""
    return ussim.load_probe(request.param)


@pytest.fixture(params=ussim.probe_names())
def any_probe(request) -> ussim.Probe:
    """Each preset."""
    return ussim.load_probe(request.param)
