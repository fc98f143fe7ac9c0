"""Files that would run code when they are read: refused or read as numbers, whichever door they come to."""

from __future__ import annotations

import ast
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from irsde import checkpoints
from irsde.cli import run
from irsde.drus import cache, priors
from irsde.drus.phantoms import load_slices
from irsde.evaluation.foreign import load_torch_model
from irsde.evaluation.perceptual import load_lpips
from ussim.errors import ConfigError, UssimError
from ussim.volumes.pictures import _read_npy

ROOT = Path(__file__).resolve().parents[1]


class Hostile:
    """Unpickled, it makes a file."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.fixture
def marker(tmp_path):
    """A folder that a hostile file makes when it is obeyed; it may not be there after the test."""
    path = tmp_path / "obeyed"
    yield path
    assert not path.exists(), "the file's code was run"


def weights(path, marker):
    torch.save({"weight": Hostile(marker)}, path)
    return path


def array(path, marker):
    np.save(path, np.array([Hostile(marker)], dtype=object), allow_pickle=True)
    return path


def test_the_files_are_hostile(tmp_path):
    """That the tests below could fail: each kind of file, read carelessly, makes its folder."""
    torch.load(weights(tmp_path / "w.pt", tmp_path / "one"), weights_only=False)
    np.load(array(tmp_path / "a.npy", tmp_path / "two"), allow_pickle=True)
    assert (tmp_path / "one").is_dir()
    assert (tmp_path / "two").is_dir()


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.pt2", "m.bin", "m.PT2", "m", "m.onnx.pt"])
def test_a_network_that_can_run_code_is_refused_unread_unless_trusted(tmp_path, marker, name, capsys):
    path = weights(tmp_path / name, marker)
    with pytest.raises(ConfigError, match=r"may run any code when it is read; give it as ONNX .*add --trust"):
        load_torch_model(path)
    line = ["evaluate", "--data", str(tmp_path), "--torch-model", f"net={path}", "-o", str(tmp_path / "t.md")]
    assert run(line) == 2
    assert "--trust" in capsys.readouterr().err


def test_a_file_that_is_only_named_onnx_runs_nothing(tmp_path, marker):
    pytest.importorskip("onnxruntime")
    with pytest.raises(UssimError, match="expected an ONNX network"):
        load_torch_model(weights(tmp_path / "m.onnx", marker))


def test_weights_are_read_as_numbers_at_every_door(tmp_path, marker):
    path = weights(tmp_path / "state.pt", marker)
    with pytest.raises(UssimError, match=r"state\.pt"):
        checkpoints.read_state(path)
    with pytest.raises(UssimError, match=r"state\.pt"):
        load_lpips(str(path))


def test_a_prior_of_pickled_weights_runs_nothing(tmp_path, marker):
    from diffusers import UNet2DModel

    down, up = ("DownBlock2D",) * 2, ("UpBlock2D",) * 2
    network = UNet2DModel(
        8, 1, 1, block_out_channels=(32, 32), down_block_types=down, up_block_types=up, layers_per_block=1
    )
    network.save_pretrained(tmp_path / "prior")
    for file in (tmp_path / "prior").glob("*.safetensors"):
        file.unlink()
    weights(tmp_path / "prior" / "diffusion_pytorch_model.bin", marker)
    with pytest.raises(UssimError, match="the weights cannot be read"):
        priors.load_prior(tmp_path / "prior")


def test_a_cache_of_pickles_is_made_anew(tmp_path, marker, monkeypatch, caplog):
    monkeypatch.setenv("USSIM_CACHE", str(tmp_path))
    array(tmp_path / "checksum.npy", marker)
    with zipfile.ZipFile(tmp_path / "drus-key.npz", "w") as archive:
        archive.write(tmp_path / "checksum.npy", "checksum.npy")
    assert cache.cached("key", lambda: {"a": np.ones(2)})["a"].sum() == 2
    assert "made again" in caplog.text


def test_arrays_of_objects_are_refused(tmp_path, marker):
    path = array(tmp_path / "a.npy", marker)
    for read in (lambda: _read_npy(str(path)), lambda: load_slices([path])):
        with pytest.raises(UssimError, match=r"a\.npy: not an \.npy file of numbers"):
            read()


# --- every call, in every file ----------------------------------------------------------------------------------------


def calls():
    for package in ("ussim", "datagen", "irsde"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    options = {each.arg: ast.unparse(each.value) for each in node.keywords}
                    yield file.relative_to(ROOT).as_posix(), ast.unparse(node.func), options


def test_every_call_that_reads_says_that_it_reads_numbers():
    found = {"torch.load": 0, "np.load": 0}
    for file, name, options in calls():
        if name in found:
            found[name] += 1
            expected = {"torch.load": ("weights_only", "True"), "np.load": ("allow_pickle", "False")}[name]
            assert options.get(expected[0]) == expected[1], f"{file}: {name}({options})"
        if name.endswith(".from_pretrained"):
            assert options.get("local_files_only") == "True", f"{file}: {name}"
            assert "trust_remote_code" not in options, file
        if name in ("torch.jit.load", "torch.export.load"):
            assert file == "irsde/evaluation/foreign.py"
        assert name not in ("pickle.load", "pickle.loads", "joblib.load", "eval", "exec", "yaml.load"), (
            f"{file}: {name}"
        )
    assert min(found.values()) >= 3
