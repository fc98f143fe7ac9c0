"""A trained model as one ONNX file: grey levels in, grey levels out, its steps unrolled, images of any size.

    image (1, 1, nz, nx) in [0, 1]  ─► restored (1, 1, nz, nx) in [0, 1]
    noise (1, n, nz, nx), of models that draw: standard normal, one channel per draw

The file does what `irsde.restore` does with the same noise, of the whole image at once (no tiles, echo everywhere). Noise is
an input because no two programs draw the same: that of `restore` is what `noise_of` returns.

PyTorch's exporter by tracing is used: its newer one proves sizes at export, and the padding of a U-Net to what it can halve
is more than it can prove. Nothing of torchvision or onnxscript is needed.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import ussim
from irsde.data import FLOOR, Normalization
from irsde.network import Model
from irsde.sample import Sampling, drawn, restore
from ussim.errors import ConfigError, DataError
from ussim.extras import installed, needs
from ussim.io.atomic import replacing

OPSET = 17  # ONNX Runtime 1.14 and later run it
TRACED = (64, 48)  # pixels of the image that is traced: any size will do
TESTED = (53, 71)  # of the one that is compared: no multiple of anything
EQUAL = 1e-4  # grey levels between the file's result and `restore`'s


class Unrolled(nn.Module):
    """A model with its normalization and its steps, as a function of tensors.

    Parameters
    ----------
    model : from `irsde.load`.
    sampling : steps, sampler, clamp, fidelity and strength; the rest of it concerns tiles and tone.
    """

    def __init__(self, model: Model, sampling: Sampling) -> None:
        super().__init__()
        self.network = model.network
        self.model, self.sampling = model, sampling
        self.n_draws = 0  # of the last call

    def forward(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        """Restore (1, 1, nz, nx) in [0, 1]."""
        mean, std = statistics(self.model.normalization, image)
        z_lq = ((image.double() - mean) / std).float()
        z = self._drawn(z_lq, noise, mean, std) if self.model.is_diffusion else self.network(z_lq)
        restored = grey_levels(self.model.normalization, z, mean, std)
        return restored if self.sampling.strength == 1 else image + self.sampling.strength * (restored - image)

    def _drawn(self, z_lq: Tensor, noise: Tensor | None, mean: Tensor, std: Tensor) -> Tensor:
        self.n_draws = 0
        clamped = self.model.config.clamp if self.sampling.clamp is None else self.sampling.clamp
        bounds = limits(self.model.normalization, mean, std) if clamped else None

        def draw() -> Tensor:
            self.n_draws += 1
            assert noise is not None
            first = min(self.n_draws, noise.shape[1]) - 1
            return noise[:, first : first + 1]

        whole = replace(self.sampling, tile=max(TRACED), overlap=0)
        return drawn(self.model, z_lq, whole, (), draw, bounds)


def export(model: Model, path: str | Path, sampling: Sampling | None = None, opset: int = OPSET) -> dict[str, str]:
    """Write a model as ONNX.

    Parameters
    ----------
    model : from `irsde.load`.
    path : the file, .onnx.
    sampling : steps, sampler and fidelity of a model that draws, strength; None = as `irsde.restore` has them.
    opset : of ONNX.

    Returns
    -------
    What the file says of itself: strings by name, its `metadata_props`.

    Raises
    ------
    ConfigError
        The run's normalization asks for the HQ image, or the tone is not that of the picture itself.
    DataError
        ONNX Runtime, where it is installed, makes something else of the file than `irsde.restore` does: nothing is written.
    """
    onnx = needs("onnx")
    if model.normalization.kind == "own" and model.normalization.inverse == "oracle":
        raise ConfigError(f"{model.name}: the oracle inverse reads the HQ image, which the file would not have")
    sampling = sampling or Sampling()
    if sampling.tone != "bmode":
        raise ConfigError(f'tone: a file has "bmode" alone, got {sampling.tone!r}; restore by `irsde restore --tone`')
    unrolled = Unrolled(model, sampling).eval().cpu()
    n_draws = count_draws(unrolled)
    content = onnx.load_from_string(_traced(unrolled, n_draws, opset))
    facts = _facts(model, sampling, n_draws, opset)
    onnx.helper.set_model_props(content, facts)
    content.producer_name, content.producer_version = "ussim", ussim.__version__
    onnx.checker.check_model(content)
    written = content.SerializeToString(deterministic=True)
    if installed("onnxruntime"):
        _compare(written, model, sampling, n_draws)
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(written)
    return facts


def noise_of(seed: int, n_draws: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return the noise (1, n_draws, nz, nx) that `irsde.restore` draws with a seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([torch.randn((1, 1, *shape), generator=generator) for _ in range(n_draws)], 1).numpy()


def count_draws(unrolled: Unrolled) -> int:
    """Return how often a model draws noise for one image."""
    if not unrolled.model.is_diffusion:
        return 0
    with torch.inference_mode():
        unrolled(torch.full((1, 1, *TRACED), 0.5), torch.zeros(1, 1, *TRACED))
    return unrolled.n_draws


# --- grey levels, as `irsde.data.Normalization` has them ---------------------------------------------------------------


def statistics(normalization: Normalization, image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, float64, that bring an image into network units."""
    image = image.double()
    if normalization.kind == "none":
        return torch.zeros_like(image[:, :, :1, :1]), torch.ones_like(image[:, :, :1, :1])
    mean = image.mean((-2, -1), keepdim=True)
    variance = torch.square(image - mean).mean((-2, -1), keepdim=True)
    return mean, variance.sqrt().clamp(min=max(normalization.floor, FLOOR))


def limits(normalization: Normalization, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest value that a normalized HQ image can take."""
    if normalization.kind == "own":
        return torch.full_like(mean, normalization.low).float(), torch.full_like(mean, normalization.high).float()
    return (-mean / std).float(), ((1 - mean) / std).float()


def grey_levels(normalization: Normalization, z: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return a result in network units back to grey levels in [0, 1]."""
    if normalization.kind == "own" and normalization.inverse == "minmax":
        low, high = (_percentile(z, share) for share in (0.01, 0.99))
        return ((z - low) / (high - low).clamp(min=FLOOR)).clamp(0, 1)
    if normalization.kind == "own" and normalization.inverse == "train_mean":
        mean, std = torch.full_like(mean, normalization.hq_mean), torch.full_like(std, normalization.hq_std)
    return (z * std.float() + mean.float()).clamp(0, 1)


def _percentile(z: Tensor, share: float) -> Tensor:
    """Return the value (1, 1, 1, 1) below which a share of the pixels lies, between neighbors in proportion."""
    ordered = torch.sort(z.reshape(-1)).values
    place = torch.ones_like(ordered).double().sum() - 1  # the number of pixels, as a tensor that is traced
    place = place * share
    below = place.floor()
    ends = [ordered.gather(0, end.long().reshape(1)).double() for end in (below, place.ceil())]
    return (ends[0] + (place - below) * (ends[1] - ends[0])).float().reshape(1, 1, 1, 1)


# --- the file ----------------------------------------------------------------------------------------------------------


def _traced(unrolled: Unrolled, n_draws: int, opset: int) -> bytes:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((1, 1, *TRACED), generator=generator)
    names, inputs = ["image"], [image]
    if n_draws:
        names.append("noise")
        inputs.append(torch.randn((1, n_draws, *TRACED), generator=generator))
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # Of sizes that Python compares, all the same for any image, and of the exporter's age.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            unrolled,
            tuple(inputs),
            stream,  # type: ignore[arg-type]
            input_names=names,
            output_names=["restored"],
            dynamic_axes={name: {2: "nz", 3: "nx"} for name in (*names, "restored")},
            opset_version=opset,
            dynamo=False,
        )
    return stream.getvalue()


def _facts(model: Model, sampling: Sampling, n_draws: int, opset: int) -> dict[str, str]:
    facts: dict[str, Any] = {
        "model": model.name,
        "method": model.config.method,
        "training_step": model.step,
        "input": "grey levels in [0, 1], (1, 1, nz, nx)",
        "noise_draws": n_draws,
        "opset": opset,
        "ussim": ussim.__version__,
    }
    if n_draws:
        steps = len(model.sde.timesteps(sampling.steps)) - 1
        sampler = sampling.sampler or model.sde.default_sampler
        facts |= {"steps": steps, "sampler": sampler, "fidelity": sampling.fidelity}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}


def _compare(content: bytes, model: Model, sampling: Sampling, n_draws: int) -> None:
    """Raise DataError where the file and `restore` differ on an image of another size than the traced one."""
    run = runner(content, "the exported file")
    lq = np.random.default_rng(0).random(TESTED).astype(np.float32)
    found = run(lq[None, None], 0)[0, 0]
    options = {name: getattr(sampling, name) for name in ("steps", "sampler", "clamp", "fidelity", "strength")}
    expected = restore(model, lq, tile=max(TESTED), overlap=0, mask=None, **options)
    error = float(np.abs(found - expected).max())
    if not error <= EQUAL:
        raise DataError(
            f"{model.name}: ONNX Runtime makes something else of the exported file than `restore` does (largest difference "
            f"{error:.2g} grey levels, expected at most {EQUAL:g}); nothing written"
        )


def runner(content: bytes, name: str) -> Callable[[NDArray[np.float32], int], NDArray]:
    """Return an ONNX network as a function of an image (1, 1, nz, nx) and a seed.

    It may have a second input called "noise" (1, n, nz, nx), which is drawn as `restore` draws it.

    Raises
    ------
    DataError
        It is no such network; when called, it does not run on an image.
    """
    runtime = needs("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is said by the error
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        inputs = {each.name: each.shape for each in session.get_inputs()}
        images = [each for each in inputs if each != "noise"]
        if len(images) != 1:
            raise ValueError(f"{len(images)} inputs")
        n_draws = int(inputs["noise"][1]) if "noise" in inputs else 0
    except Exception as error:  # ONNX Runtime's own classes, of no common base
        raise DataError(f"{name}: expected an ONNX network of one image (1, 1, nz, nx) ({_reason(error)})") from None

    def run(image: NDArray[np.float32], seed: int) -> NDArray:
        given = {images[0]: image}
        if n_draws:
            given["noise"] = noise_of(seed, n_draws, (image.shape[-2], image.shape[-1]))
        try:
            return np.asarray(session.run(None, given)[0])
        except Exception as error:  # as above
            raise DataError(f"{name}: does not run on an image of shape {image.shape} ({_reason(error)})") from None

    return run


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
