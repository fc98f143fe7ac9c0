"""Programs that know nothing of this repository read what was exported, from another folder, each in a process of its own.

A module of the tests is called `datasets`, as Hugging Face's package is: there, the package is meant.
"""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest


def run(code: str, cwd: Path, *packages: str) -> dict:
    """Run a program that prints one line of JSON, warnings as errors of its own left alone; returns what it printed."""
    for package in packages:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            pytest.skip(f"needs {package}")
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(cwd / ".cache"), "HF_HOME": str(cwd / ".cache")}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | offline
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
