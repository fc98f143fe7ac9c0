"""Optional packages that are not installed: one line that says what installs them, exit code 6; and the table of them."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from datasets import fast_recipe, write_stacks

import datagen
from ussim import extras
from ussim.errors import ExitCode, MissingPackageError, UssimError

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Of the standard library by another name in some releases, or inside a package of the table (`from numpy` needs no row).
GROUND = {"numpy", "click", "ussim", "datagen", "irsde"}
BUILTINS = {"packaging": "comes with dask", "yaml": "comes with dask"}


def without(names, *arguments, cwd=None):
    """Run a program in a process that has no such packages."""
    command = [sys.executable, str(ROOT / "tests/without.py"), names, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=300
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a small pairs store, an image, a phantom file of HDF5's first bytes and an ONNX file's name."""
    folder = tmp_path_factory.mktemp("work")
    datagen.build(fast_recipe(write_stacks(folder / "mri")), folder / "pairs.zarr")
    np.save(folder / "image.npy", np.random.default_rng(0).random((32, 32)).astype(np.float32))
    (folder / "picmus.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (folder / "model.onnx").write_bytes(b"")
    return folder


TRAIN = "irsde train --data pairs.zarr --out run --preset tiny --steps 1 --patch-size 16 --batch-size 1 --device cpu"
EVALUATE = "irsde evaluate --data pairs.zarr --limit 1 -o table.md"
CASES = [
    ("torch", TRAIN, "PyTorch", "ussim[train]"),
    ("torch", "irsde restore run image.npy -o clean.npy", "PyTorch", "ussim[train]"),
    ("torch", EVALUATE, "PyTorch", "ussim[train]"),
    ("torch", "irsde drus --phantom occlusion -o drus.png", "PyTorch", "ussim[train]"),
    ("torch", "irsde drus-train --out prior", "PyTorch", "ussim[train]"),
    ("diffusers", TRAIN, "diffusers", "ussim[train]"),
    ("accelerate", TRAIN, "accelerate", "ussim[train]"),
    ("safetensors", TRAIN, "safetensors", "ussim[train]"),
    ("h5py", "irsde drus --picmus picmus.hdf5 -o drus.png", "h5py", "h5py"),
    ("onnxruntime", EVALUATE + " --torch-model net=model.onnx", "ONNX Runtime", "ussim[onnx]"),
    ("onnxruntime", EVALUATE + " --onnx-model net=model.onnx", "ONNX Runtime", "ussim[onnx]"),
    ("cupy", "ussim render image.npy --engine cuda -o b.png", "CuPy", "ussim[cuda13]"),
    ("matplotlib", "ussim field --probe P4-2v -o field.png", "Matplotlib", "matplotlib"),
    ("zarr", "datagen verify pairs.zarr", "Zarr", "zarr"),
    ("jinja2", "datagen report pairs.zarr -o report.html", "Jinja2", "jinja2"),
    ("distributed", "datagen build --source npy --root mri --probe C5-2v --out y.zarr --workers 2", "distributed", "dask"),
]  # fmt: skip


@pytest.mark.parametrize(("names", "line", "name", "requirement"), CASES)
def test_a_missing_package_is_one_line_that_says_what_installs_it(work, names, line, name, requirement):
    ended = without(names, *line.split(), cwd=work)
    said = ended.stderr.strip().splitlines()
    assert ended.returncode == ExitCode.DEVICE, ended.stderr
    assert sum("error:" in each for each in said) == 1, ended.stderr
    assert name in said[-1]
    assert "pip install" in said[-1]
    assert requirement in said[-1]
    assert "defect" not in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (work / "run").exists()  # nothing begun that could not be ended


def test_help_and_a_picture_need_nothing_optional(work):
    optional = ",".join(name for name, (_, how) in extras.PACKAGES.items() if how.startswith("ussim["))
    for program in ("ussim", "datagen", "irsde"):
        assert without(optional, program, "--help").returncode == 0
    ended = without(optional, "ussim", "render", "image.npy", "-o", "bmode.png", "--size", "32", cwd=work)
    assert ended.returncode == 0, ended.stderr


def test_filters_without_their_package_are_not_run_and_the_others_are(work):
    ended = without("pywt", *EVALUATE.split(), cwd=work)
    assert ended.returncode == 0, ended.stderr
    table = (work / "table.md").read_text(encoding="utf-8")
    for name in ("NLM", "wavelet + median", "wavelet + Butterworth", "wavelet + ideal"):
        assert f"{name}: PyWavelets is not installed: pip install 'ussim[train]'" in table
    for name in ("median", "SRAD", "OBNLM"):
        assert re.search(rf"^\| {name} \|", table, re.MULTILINE), table


def test_a_package_without_tensorboard_trains(work, tmp_path):
    ended = without(
        "tensorboard,torchmetrics,pywt,deepinv",
        *TRAIN.replace("--out run", f"--out {tmp_path / 'run'}").split(),
        cwd=work,
    )
    assert ended.returncode == 0, ended.stderr
    assert "no tensorboard here" in ended.stderr


@pytest.mark.parametrize(
    ("code", "package"),
    [
        ("import irsde; irsde.restore", "PyTorch"),
        ("import irsde; irsde.drus.load_prior", "PyTorch"),
        ("from irsde import train", "PyTorch"),
    ],
)
def test_in_python_the_first_use_of_a_name_says_it_too(code, package):
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r}); import without; without.uninstall({{'torch'}})\n"
        f"from ussim import UssimError\ntry:\n    exec({code!r})\nexcept ImportError as error:\n"
        "    assert isinstance(error, UssimError); print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert ended.stdout == f"{package} is not installed: pip install 'ussim[train]'\n", ended.stderr


# --- the table -------------------------------------------------------------------------------------------------------


@cache
def third_party():
    """Package -> the files of this project that import it."""
    found = {}
    for file in (path for package in ("ussim", "datagen", "irsde") for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            else:
                continue
            for name in names:
                found.setdefault(name.partition(".")[0], set()).add(file.relative_to(ROOT).as_posix())
    return {name: files for name, files in found.items() if name not in sys.stdlib_module_names}


def test_every_package_that_is_imported_has_its_row():
    lacking = {n: f for n, f in third_party().items() if n not in extras.PACKAGES and n not in GROUND | set(BUILTINS)}
    assert not lacking


def test_every_row_names_what_pyproject_installs():
    """An extra that exists and holds the package, or a requirement of the package itself."""
    extra = PROJECT["optional-dependencies"]
    other = {"bm3d"}  # by the user's choice: its licence
    held = {"pywt": "PyWavelets", "imageio_ffmpeg": "imageio-ffmpeg", "cupy": "cupy-cuda13x[ctk]"}
    core = [re.split(r"[<>=~!]", each)[0].lower() for each in PROJECT["dependencies"]]
    for package, (_, requirement) in extras.PACKAGES.items():
        inside = re.fullmatch(r"ussim\[(\w+)\]", requirement)
        if inside:
            names = [re.split(r"[<>=~!]", each)[0] for each in extra[inside[1]]]
            assert held.get(package, package) in names, package
        else:
            assert requirement in other or requirement.lower() in core, package


def test_needs_gives_the_module_or_says_what_is_wrong(monkeypatch, tmp_path):
    assert extras.needs("zarr.storage").MemoryStore
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingPackageError, match=r"^h5py is not installed: pip install 'h5py', or do without$"):
        extras.needs("h5py", "or do without")
    with pytest.raises(UssimError):
        extras.needs("h5py")
    for text, reason in (
        ("raise OSError('libfoo.so: no such file')", "libfoo"),
        ("import no_such_thing", "no_such_thing"),
    ):
        (tmp_path / "bm3d.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "bm3d", raising=False)
        with pytest.raises(
            MissingPackageError, match=rf"bm3d cannot be imported \(.*{reason}.*\): pip install --force"
        ):
            extras.needs("bm3d")


def test_on_an_intel_mac_pytorch_is_said_not_to_exist(monkeypatch):
    monkeypatch.setattr(extras.sys, "platform", "darwin")
    monkeypatch.setattr(extras.platform, "machine", lambda: "x86_64")
    assert "no PyTorch for Intel Macs" in extras.how_to_install("torch")
    assert "Intel" not in extras.how_to_install("diffusers")
    monkeypatch.setattr(extras.platform, "machine", lambda: "arm64")
    assert "Intel" not in extras.how_to_install("torch")
