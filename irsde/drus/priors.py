"""Priors of the reflectivity o = m ∘ p: an analytic one, and a DDPM in diffusers' folder format (own or the user's)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irsde import models
from irsde.checkpoints import DamagedError, read_tensors
from irsde.network import reflect_pad
from ussim.errors import DataError
from ussim.io.atomic import replacing

from .ddrm import vp_sigmas
from .operators import blend_weights, patch_corners

PRIOR_FILE = "prior.json"  # beside a network of ours: the units that it was trained in
SETTINGS = ("bright_std", "variance", "patch")  # of a prior, beside its network
DEFAULT_BRIGHT_STD = 0.9  # o scaled to a maximum of 4 over 65,536 pixels has this standard deviation where p = 1


class PriorError(DataError):
    """A prior that cannot be read: the message says what was expected, what came, and what to do."""


class GaussianPrior:
    """Independent o ~ N(0, p²): the exact denoiser v x / (v + s²), v = p². In the units of the data.

    With the true map as `standard_deviation` it knows the answer: a bound for tests and a warning beside scores.
    """

    bright_std: float | None = None

    def __init__(self, standard_deviation: float | np.ndarray = 1.0) -> None:
        self.variance = torch.as_tensor(np.square(standard_deviation), dtype=torch.float32)
        self.sigmas = vp_sigmas()

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """Return the expected clean image of `x` with noise of standard deviation `sigma`."""
        return self.denoise_with_variance(x, sigma)[0]

    def denoise_with_variance(self, x: torch.Tensor, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the expected clean image, and the variance of each pixel about it."""
        variance = self.variance.to(x.device, x.dtype)
        share = variance / (variance + sigma**2)
        return share * x, (share * sigma**2).expand_as(x)


class LocalVariancePrior:
    """Needs no training: o ~ N(0, v) with v the local mean of x² less the noise, then Wiener's filter v x / (v + s²).

    The window (a Gaussian) widens with the noise; an excess over s² within `confidence` standard errors of a local mean
    counts as nothing, and v is bounded, so that pure noise stays where the chain starts.
    """

    def __init__(
        self, narrowest: float = 1.5, widest: float = 12.0, confidence: float = 1.0, largest: float = 4.0
    ) -> None:
        self.sigmas = vp_sigmas()
        self.bright_std: float | None = DEFAULT_BRIGHT_STD
        self.narrowest, self.widest = narrowest, widest  # px, standard deviation of the window
        self.confidence, self.largest = confidence, largest

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """Return the expected clean image of `x` with noise of standard deviation `sigma`."""
        return self.denoise_with_variance(x, sigma)[0]

    def denoise_with_variance(self, x: torch.Tensor, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the expected clean image, and the variance of each pixel about it."""
        window = min(self.widest, self.narrowest + 2.0 * sigma)
        effective = 4 * np.pi * window**2  # pixels in a Gaussian mean
        floor = sigma**2 * (1 + self.confidence * (2 / effective) ** 0.5)
        variance = (_blur(x**2, window) - floor).clamp(0.0, self.largest)
        share = variance / (variance + sigma**2)
        return share * x, share * sigma**2


class DDPMPrior:
    """A diffusers network trained on variance-preserving noise: x_t = sqrt(ᾱ) (o + s n), s = sqrt((1 - ᾱ) / ᾱ).

    Networks of three channels see the image three times and answer with their mean; those that also predict a variance
    have that half dropped, unless `variance` says that it is the logarithm of odds of the noise's variance, as `irsde
    drus-train --variance` trains it. Heights and widths that the network cannot halve are padded by reflection. With
    `patch` an image that is larger goes through the network in half-overlapping squares of so many pixels a side, all in
    one batch, and is blended: its group normalizations then see what they were trained on.
    """

    def __init__(
        self,
        network: Any,
        alphas_cumprod: np.ndarray,
        prediction_type: str = "epsilon",
        bright_std: float = DEFAULT_BRIGHT_STD,
        variance: bool = False,
        patch: int | None = None,
    ) -> None:
        if prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise PriorError(
                f'prediction_type: expected "epsilon", "v_prediction" or "sample", got {prediction_type!r}'
            )
        self.network = network.eval().requires_grad_(False)
        self.alphas_cumprod = np.asarray(alphas_cumprod, dtype=np.float64)
        self.sigmas = np.sqrt((1 - self.alphas_cumprod) / self.alphas_cumprod)
        self.prediction_type = prediction_type
        self.bright_std: float | None = bright_std
        self.channels = int(network.config.in_channels)
        self.variance, self.patch = variance, patch
        self.multiple = 2 ** (len(network.config.block_out_channels) - 1)

    def to(self, device: str | torch.device) -> DDPMPrior:
        """Return the prior on a device."""
        self.network.to(device)
        return self

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """Return the expected clean image of `x` with noise of standard deviation `sigma`."""
        return self.denoise_coupled(x[:, None].expand(-1, self.channels, -1, -1), sigma).mean(dim=1)

    def denoise_coupled(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """As `denoise`, of images (n, channels, nz, nx) that the network sees together, each in a channel of its own."""
        return self._denoised(x, sigma)[0]

    def denoise_with_variance(self, x: torch.Tensor, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the expected clean image of a stack (n, nz, nx), and the variance of each pixel about it.

        By a network that does not say it, s² b² / (s² + b²) as PiGDM has it, b that of the brightest reflectivity.
        """
        if self.variance:
            mean, logit = self._denoised(x[:, None], sigma)
            return mean[:, 0], sigma**2 * torch.sigmoid(logit[:, 0])
        bright = self.bright_std or 1.0
        mean = self.denoise(x, sigma)
        return mean, torch.full_like(mean, (sigma * bright) ** 2 / (sigma**2 + bright**2))

    def _denoised(self, x: torch.Tensor, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the clean images (n, channels, nz, nx), and the network's further channels."""
        t = int(np.abs(np.log(self.sigmas / sigma)).argmin())
        signal, noise = np.sqrt(self.alphas_cumprod[t]), np.sqrt(1 - self.alphas_cumprod[t])
        scaled = signal * x
        height, width = x.shape[-2:]
        if self.patch and (height > self.patch or width > self.patch):
            both = self._in_patches(scaled, t)
        else:
            below, right = -height % self.multiple, -width % self.multiple
            padded = reflect_pad(scaled, below, right)
            both = self.network(padded, t).sample[..., :height, :width]
        answer, more = both[:, : self.channels], both[:, self.channels :]
        if self.prediction_type == "epsilon":
            return (scaled - noise * answer) / signal, more
        if self.prediction_type == "v_prediction":
            return signal * scaled - noise * answer, more
        return answer, more

    def _in_patches(self, images: torch.Tensor, t: int) -> torch.Tensor:
        """Return the network's answer to images (n, channels, nz, nx) cut into squares, blended."""
        assert self.patch is not None
        size = self.patch
        low, right = (max(0, size - n) for n in images.shape[-2:])
        padded = reflect_pad(images, low, right)  # of a field narrower than half a square, more than once
        height, width = padded.shape[-2:]
        corners = patch_corners((height, width), (size, size))
        parts = torch.stack([padded[..., z : z + size, x : x + size] for z, x in corners], dim=1)
        answers = self.network(parts.flatten(0, 1), t).sample.unflatten(0, parts.shape[:2])
        weights = torch.as_tensor(blend_weights((height, width), corners, (size, size))).to(answers)
        whole = answers.new_zeros(len(images), answers.shape[2], height, width)
        for i, (z, x) in enumerate(corners):
            whole[..., z : z + size, x : x + size] += weights[i] * answers[:, i]
        return whole[..., : images.shape[-2], : images.shape[-1]]


def load_prior(folder: str | Path, device: str | torch.device = "cpu") -> DDPMPrior:
    """Return a shipped prior, or that of a folder of diffusers: a pipeline (`unet/`, `scheduler/`) or a network alone.

    Without a scheduler, linear betas from 1e-4 to 0.02 over 1,000 steps and noise prediction are assumed.

    Parameters
    ----------
    folder
        Where there is none of that name, one of `irsde models`.
    device
        Of torch.

    Raises
    ------
    PriorError
        No such folder, or not a UNet2DModel.
    """
    folder = models.find(folder)
    if (folder / models.WEIGHTS).is_file():
        return _saved(folder).to(device)
    from diffusers import DDPMScheduler, UNet2DModel

    root = folder / "unet" if (folder / "unet").is_dir() else folder
    if not (root / "config.json").is_file():
        raise PriorError(
            f"{folder}: expected a diffusers folder (unet/config.json or config.json), found none. "
            "Train a prior with `irsde drus-train --out FOLDER`"
        )
    config = json.loads((root / "config.json").read_text(encoding="utf-8"))
    if config.get("_class_name") != "UNet2DModel":
        raise PriorError(f"{root}: expected a UNet2DModel, got {config.get('_class_name')!r}")
    try:
        network = UNet2DModel.from_pretrained(str(root), local_files_only=True)
    except OSError as error:
        raise PriorError(f"{root}: the weights cannot be read: {str(error).splitlines()[0]}") from None
    scheduler_folder = folder / "scheduler"
    if scheduler_folder.is_dir():
        scheduler = DDPMScheduler.from_pretrained(str(scheduler_folder), local_files_only=True)
    else:
        scheduler = DDPMScheduler(beta_schedule="linear")
    settings_file = folder / PRIOR_FILE
    settings = json.loads(settings_file.read_text(encoding="utf-8")) if settings_file.is_file() else {}
    prior = DDPMPrior(
        network,
        scheduler.alphas_cumprod.numpy(),
        scheduler.config.prediction_type,
        bright_std=float(settings.get("bright_std", DEFAULT_BRIGHT_STD)),
        variance=bool(settings.get("variance", False)),
        patch=settings.get("patch"),
    )
    return prior.to(device)


def save_prior(prior: DDPMPrior, folder: str | Path, **also: Any) -> Path:
    """Write config.json and model.safetensors, float16, the folder that `load_prior` takes and the package ships.

    Parameters
    ----------
    prior : DDPMPrior
        Of a schedule of linear betas that predicts noise, as `irsde drus-train` makes it.
    folder : str or Path
        Made where there is none.
    **also
        Further entries of config.json.

    Raises
    ------
    ValueError
        A prior of another schedule or prediction.
    """
    from safetensors.torch import save

    if prior.prediction_type != "epsilon" or not np.allclose(prior.sigmas, vp_sigmas(), rtol=1e-4):
        raise ValueError("prior: expected one of linear betas that predicts noise, as `irsde drus-train` makes it")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().half().contiguous() for name, value in prior.network.state_dict().items()}
    with replacing(folder / models.WEIGHTS) as temporary:
        temporary.write_bytes(save(tensors))
    network = {name: value for name, value in dict(prior.network.config).items() if not name.startswith("_")}
    record = {"_class_name": "UNet2DModel", "kind": "prior", **{name: getattr(prior, name) for name in SETTINGS}}
    with replacing(folder / models.RECORD) as temporary:  # last: with it the folder is whole
        temporary.write_text(json.dumps(record | also | {"network": network}, indent=1) + "\n", encoding="utf-8")
    return folder


def _saved(folder: Path) -> DDPMPrior:
    """Return what `save_prior` wrote."""
    from diffusers import UNet2DModel

    path = folder / models.RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("kind") != "prior":
            raise PriorError(
                f"{folder}: expected a prior, got a model of another kind, {record.get('kind', 'unnamed')}"
            )
        network = UNet2DModel.from_config(record["network"])
        settings = {name: record[name] for name in SETTINGS}
        network.load_state_dict({name: value.float() for name, value in read_tensors(folder / models.WEIGHTS).items()})
    except PriorError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, DamagedError) as error:
        raise PriorError(f"{folder}: cannot be read as a prior ({str(error).splitlines()[0]})") from None
    return DDPMPrior(network, 1 / (1 + vp_sigmas() ** 2), **settings)


def _blur(images: torch.Tensor, width: float) -> torch.Tensor:
    """Gaussian mean of each image (n, nz, nx), edges reflected."""
    for axis in (-2, -1):
        half = min(int(3 * width + 0.5), images.shape[axis] - 1)
        offsets = torch.arange(-half, half + 1, dtype=images.dtype, device=images.device)
        kernel = torch.exp(-(offsets**2) / (2 * width**2))
        shape = (1, 1, -1, 1) if axis == -2 else (1, 1, 1, -1)
        padding = (0, 0, half, half) if axis == -2 else (half, half, 0, 0)
        padded = torch.nn.functional.pad(images[:, None], padding, mode="reflect")
        images = torch.nn.functional.conv2d(padded, (kernel / kernel.sum()).reshape(shape))[:, 0]
    return images
