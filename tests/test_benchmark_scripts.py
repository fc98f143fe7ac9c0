"""Benchmarks find what they import: modules move, and a script that nobody runs for weeks would tell last."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_imports(name, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (FOLDER / f"{error.name}.py").exists() or error.name.split(".")[0] in ("ussim", "datagen", "irsde"):
            raise
        pytest.skip(f"needs {error.name}")
