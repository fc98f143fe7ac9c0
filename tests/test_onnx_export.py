"""Export to ONNX: what the file does is what `restore` does, for images of any size; and what cannot be exported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from speckle_pairs import SpecklePairs  # noqa: E402
from test_restore import make_model  # noqa: E402

import irsde  # noqa: E402
from irsde import onnx_export  # noqa: E402
from irsde.cli import cli  # noqa: E402
from irsde.config import TrainConfig  # noqa: E402
from irsde.data import Normalization  # noqa: E402
from irsde.evaluation.foreign import load_torch_model  # noqa: E402
from irsde.onnx_export import EQUAL, Unrolled, count_draws, export, noise_of, runner  # noqa: E402
from irsde.sample import Sampling, restore  # noqa: E402
from irsde.shipped import network  # noqa: E402
from irsde.training import train  # noqa: E402
from ussim.errors import ConfigError, DataError  # noqa: E402

EXAMPLE = Path(__file__).resolve().parents[1] / "docs" / "examples" / "restore_onnx.py"
SIZES = [(48, 40), (64, 96), (37, 51)]  # multiples of what the U-Net halves, and none
METHODS = {
    "unet": ({"method": "unet"}, Sampling(), 0),
    "dncnn": ({"method": "dncnn"}, Sampling(), 0),
    "ddim": ({}, Sampling(3, "ddim"), 1),
    "ode, not clamped": ({}, Sampling(2, "ode", clamp=False), 1),
    "posterior": ({}, Sampling(3, "posterior"), 4),
    "flow": ({"method": "flow", "skip": "smooth"}, Sampling(2), 1),
    "pmrf": ({"method": "pmrf"}, Sampling(2, fidelity=0.5), 1),
    "mean of pmrf": ({"method": "pmrf"}, Sampling(2, fidelity=0.0), 0),
    "sde": ({"condition": "concat", "precondition": False}, Sampling(2, "sde"), 2),
}


def images():
    rng = np.random.default_rng(1)
    return [rng.random(size).astype(np.float32) ** 2 for size in SIZES]


@pytest.mark.parametrize("name", METHODS)
def test_file_restores_as_restore_does(tmp_path, name):
    changes, sampling, n_draws = METHODS[name]
    model = make_model(**changes)
    facts = export(model, tmp_path / "m.onnx", sampling)
    assert int(facts["noise_draws"]) == n_draws
    run = runner((tmp_path / "m.onnx").read_bytes(), "m.onnx")
    for lq in images():
        expected = restore(
            model, lq, sampling.steps, sampling.sampler, 3, sampling.clamp, mask=None, fidelity=sampling.fidelity
        )
        assert np.abs(expected - lq).max() > 1e-3  # the network did something
        np.testing.assert_allclose(run(lq[None, None], 3)[0, 0], expected, atol=EQUAL)


@pytest.mark.parametrize("strength", [1.0, 0.3])
@pytest.mark.parametrize("size", [(40, 30), (64, 48), (131, 202)])  # narrower than the guard reaches, traced, wider
def test_shipped_model_is_exported(tmp_path, size, strength):
    """Of a picture that is dark on one side: what the guard sees beyond a border is no rounding."""
    model = irsde.load("despeckler", device="cpu")
    export(model, tmp_path / "m.onnx", Sampling(strength=strength))
    lq = np.random.default_rng(2).random(size).astype(np.float32) * np.linspace(0, 1, size[1], dtype=np.float32)
    lq[:5] = 1
    expected = restore(model, lq, mask=None, strength=strength)
    assert np.abs(expected - lq).max() > 0.1
    found = runner((tmp_path / "m.onnx").read_bytes(), "m.onnx")(lq[None, None], 0)[0, 0]
    np.testing.assert_allclose(found, expected, atol=EQUAL)


def test_mirroring_of_a_traced_image_is_that_of_another(monkeypatch):
    image = torch.rand(1, 1, 7, 30)
    expected = network._mirrored(image, 10)
    monkeypatch.setattr(torch.jit, "is_tracing", lambda: True)
    torch.testing.assert_close(network._mirrored(image, 10), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "normalization",
    [
        Normalization("none"),
        Normalization("own", "lq"),
        Normalization("own", "train_mean", hq_mean=0.3, hq_std=0.2),
        Normalization("own", "minmax"),
        Normalization("shared", floor=0.4),  # above the image's own deviation
    ],
    ids=lambda n: f"{n.kind}-{n.inverse}-{n.floor:.1g}",
)
def test_normalization_is_inside(tmp_path, normalization):
    model = make_model(normalization=normalization)
    sampling = Sampling(2, "ddim")
    export(model, tmp_path / "m.onnx", sampling)
    run = runner((tmp_path / "m.onnx").read_bytes(), "m.onnx")
    for lq in images():
        expected = restore(model, lq, 2, "ddim", seed=0, mask=None)
        np.testing.assert_allclose(run(lq[None, None], 0)[0, 0], expected, atol=EQUAL)


def test_noise_is_that_of_restore_and_matters(tmp_path):
    model = make_model()
    export(model, tmp_path / "m.onnx", Sampling(2, "ddim"))
    run = runner((tmp_path / "m.onnx").read_bytes(), "m.onnx")
    lq = images()[0][None, None]
    assert np.abs(run(lq, 0) - run(lq, 1)).max() > 1e-3
    assert noise_of(5, 2, (4, 3)).shape == (1, 2, 4, 3)
    assert count_draws(Unrolled(model, Sampling(4))) == 5  # the start and every bridge


def test_file_says_what_it_is(tmp_path):
    export(make_model(), tmp_path / "m.onnx", Sampling(3, "ddim"))
    content = onnx.load(tmp_path / "m.onnx")
    said = {entry.key: entry.value for entry in content.metadata_props}
    assert said["steps"] == "3"
    assert said["sampler"] == "ddim"
    assert content.opset_import[0].version == onnx_export.OPSET == int(said["opset"])
    sides = [axis.dim_param for axis in content.graph.input[0].type.tensor_type.shape.dim[2:]]
    assert sides == ["nz", "nx"]
    export(make_model(), tmp_path / "again.onnx", Sampling(3, "ddim"))
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "m.onnx").read_bytes()


def test_exported_run_is_a_row_of_evaluate(tmp_path):
    model = make_model()
    export(model, tmp_path / "m.onnx", Sampling(2, "ddim"))
    lq = images()[2]
    found = load_torch_model(tmp_path / "m.onnx")(lq)
    np.testing.assert_allclose(found, restore(model, lq, 2, "ddim", seed=0, mask=None), atol=EQUAL)


def test_what_cannot_be_exported_is_said_and_not_written(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    with pytest.raises(ConfigError, match="oracle"):
        export(make_model(normalization=Normalization("own", "oracle")), path)
    with pytest.raises(ConfigError, match="tone"):
        export(make_model(method="unet"), path, Sampling(tone="mri"))
    monkeypatch.setattr(onnx_export, "grey_levels", lambda n, z, mean, std: z)  # a file that is wrong
    with pytest.raises(DataError, match="nothing written"):
        export(make_model(method="unet"), path)
    assert not path.exists()


def test_run_is_exported_and_restored_without_torch(tmp_path):
    pairs = SpecklePairs(n=2)
    settings = {"preset": "tiny", "patch_size": 32, "steps": 1, "validate_every": 0, "device": "cpu", "n_steps": 20}
    train(TrainConfig.create(store="none", **settings), tmp_path / "run", pairs=[pairs])
    command = ["export", str(tmp_path / "run"), "-o", str(tmp_path / "m.onnx"), "--steps", "2", "--sampler", "ddim"]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    grey = np.uint8(np.rint(255 * pairs[0][1]))
    Image.fromarray(grey).save(tmp_path / "image.png")
    code = (
        "import runpy, sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    line = [sys.executable, "-c", code, str(EXAMPLE), "m.onnx", "image.png", "clean.png"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    noise = np.random.default_rng(0).standard_normal((1, 1, *grey.shape), dtype=np.float32)
    session = onnxruntime.InferenceSession((tmp_path / "m.onnx").read_bytes())
    expected = session.run(None, {"image": np.float32(grey / 255)[None, None], "noise": noise})[0][0, 0]
    found = np.asarray(Image.open(tmp_path / "clean.png"), float) / 255
    np.testing.assert_allclose(found, expected, atol=0.6 / 255)  # 8 bits
    assert len(EXAMPLE.read_text().splitlines()) <= 22
