"""The networks: the paper's conditional U-Net (diffusers' UNet2DModel), a supervised U-Net and DnCNN; and loading a run.

All take an image of any size (reflect-padded to what the U-Net can halve, cropped again) as tensors (n, 1, nz, nx).
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irsde import models
from irsde.checkpoints import DamagedError, read_checkpoint, read_tensors
from irsde.config import FORMAT, TrainConfig
from irsde.data import DataError, Normalization, normalization_of
from irsde.flow import RectifiedFlow, VelocityPredictor, track_rms
from irsde.group_norm import replace_group_norms
from irsde.sde import IRSDE
from irsde.smoothing import smoothed
from irsde.two_stage import TwoStage, one_stage_loss, two_stage_loss
from ussim.errors import DeviceError
from ussim.near import did_you_mean

# "paper" has 56,572,865 parameters; its decoder has one residual block a level more than its encoder, as diffusers builds
# it. `fold` gathers 2 x 2 pixels into channels first, so that no layer works at full resolution, where a CPU is slowest.
SHAPES: dict[str, dict[str, Any]] = {
    "paper": {"channels": (64, 128, 256, 512), "blocks": 2, "groups": 32, "head": 64, "fold": 1},
    "small": {"channels": (32, 64, 128), "blocks": 2, "groups": 16, "head": 64, "fold": 2},
    "tiny": {"channels": (16, 32), "blocks": 1, "groups": 8, "head": 16, "fold": 2},
}
LAST = 8  # channels at full resolution before the last convolution of a U-Net with a smoothed skip
DNCNN = {"paper": (17, 64), "small": (12, 32), "tiny": (6, 16)}  # layers, channels
DESPECKLER = {"paper": (48, 96, 192), "small": (24, 48, 96), "tiny": (16, 32, 64)}  # channels of the levels


class NoisePredictor(nn.Module):
    """ε̂(x, lq, t) for the SDE.

    `condition` "difference" shows the network [x - lq, lq], "concat" [x, lq] (the paper's). With `precondition` its
    output F is scaled so that input and target have unit variance at every time if HQ - LQ has `difference_rms` d (the
    scheme of Karras et al. 2022, sec. 5, for this SDE): ε̂ = s/v (x - lq) + a d/sqrt(v) F, v = (a d)² + s². An error of F
    then never grows on its way to the predicted x(0), where a plain prediction's grows up to 200 λ times.

    With `skip` "smooth", which needs `precondition`, the smoothed lq (`irsde.smoothing`) takes the place of lq in HQ - LQ:
    what the network adds to where it expects nothing. `tracked` makes d a buffer that is learned with the weights.
    """

    def __init__(
        self,
        unet: nn.Module,
        sde: IRSDE,
        condition: str = "difference",
        precondition: bool = False,
        difference_rms: float = 1.0,
        skip: str = "plain",
        tracked: bool = False,
    ):
        super().__init__()
        self.unet, self.sde, self.condition = unet, sde, condition
        self.precondition, self.skip = precondition, skip
        track_rms(self, difference_rms, tracked)

    def forward(self, x: Tensor, lq: Tensor, t: int | Tensor) -> Tensor:
        """Predicted noise (n, 1, nz, nx) at times t of the schedule it is trained on, one an image or one for all."""
        t = torch.as_tensor(t).expand(len(x))
        away = x - lq
        if not self.precondition:
            return self.unet(torch.cat([away if self.condition == "difference" else x, lq], 1), t.to(x.device))
        index = t.cpu()
        decay = torch.exp(-self.sde.theta_integral[index])
        if self.skip == "smooth":
            away = away - decay.to(x.device, x.dtype).view(-1, 1, 1, 1) * (smoothed(lq) - lq)
        a, s = decay * torch.as_tensor(self.difference_rms, device="cpu"), self.sde.sigma_bar[index]
        v = a**2 + s**2
        skip, gain, scale = ((q.to(x.device, x.dtype)).view(-1, 1, 1, 1) for q in (s / v, a / v.sqrt(), 1 / v.sqrt()))
        first = away * scale if self.condition == "difference" else lq + away * scale
        return skip * away + gain * self.unet(torch.cat([first, lq], 1), t.to(x.device))


class Regressor(nn.Module):
    """A supervised baseline: the HQ image at once from the LQ image, as LQ plus a learned difference.

    With `skip` "smooth" the difference is to the smoothed LQ image (`irsde.smoothing`).
    """

    def __init__(self, body: nn.Module, skip: str = "plain"):
        super().__init__()
        self.body, self.skip = body, skip

    def forward(self, lq: Tensor) -> Tensor:
        """Predict from the tensors (n, 1, nz, nx)."""
        return (smoothed(lq) if self.skip == "smooth" else lq) + self.body(lq)


class UNet(nn.Module):
    """UNet2DModel for any image size; t = 0 where no time is given."""

    def __init__(
        self,
        in_channels: int,
        channels: tuple[int, ...],
        blocks: int,
        groups: int,
        head: int,
        fold: int,
        last: int = 0,  # channels at full resolution before a last 3 x 3 convolution; 0 = none, the U-Net's output as it is
    ):
        super().__init__()
        from diffusers import UNet2DModel

        levels = len(channels)
        self.fold, self.multiple = fold, fold * 2 ** (levels - 1)
        self.model: Any = UNet2DModel(
            in_channels=in_channels * fold**2,
            out_channels=fold**2 * max(last, 1),
            layers_per_block=blocks,
            block_out_channels=channels,
            down_block_types=("DownBlock2D",) * levels,
            up_block_types=("UpBlock2D",) * levels,
            add_attention=True,
            attention_head_dim=head,
            norm_num_groups=groups,
            act_fn="silu",
            freq_shift=0,
            flip_sin_to_cos=True,
            center_input_sample=False,
        )
        replace_group_norms(self)
        self.last = nn.Conv2d(last, 1, 3, padding=1) if last else nn.Identity()

    def forward(self, image: Tensor, t: Tensor | int = 0) -> Tensor:
        """Predict from the tensors (n, 1, nz, nx)."""
        height, width = image.shape[-2:]
        bottom, right = -height % self.multiple, -width % self.multiple
        image = reflect_pad(image, bottom, right)
        out = self.model(F.pixel_unshuffle(image, self.fold), t, return_dict=False)[0]
        return self.last(F.pixel_shuffle(out, self.fold))[..., :height, :width]


class DnCNN(nn.Sequential):
    """Zhang et al. 2017: convolution and ReLU, then convolution, batch normalization and ReLU, then convolution."""

    def __init__(self, depth: int = 17, channels: int = 64):
        layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
        super().__init__(*layers, nn.Conv2d(channels, 1, 3, padding=1))


def reflect_pad(image: Tensor, bottom: int, right: int) -> Tensor:
    """Mirror (…, nz, nx) beyond its last row and column, repeatedly where it is smaller than the padding."""
    if torch.jit.is_tracing():  # of any size: what is compared below would stay as it is for the traced one
        return _mirrored(_mirrored(image, -2, bottom), -1, right)
    while bottom or right:
        rows, columns = min(bottom, image.shape[-2] - 1), min(right, image.shape[-1] - 1)
        if (bottom and not rows) or (right and not columns):
            raise ValueError(f"expected an image of at least 2 x 2 pixels, got {tuple(image.shape[-2:])}")
        image = F.pad(image, (0, columns, 0, rows), mode="reflect")
        bottom, right = bottom - rows, right - columns
    return image


def _mirrored(image: Tensor, axis: int, more: int) -> Tensor:
    """Mirror an axis of at least 2 pixels beyond its end, by operations alone."""
    last = image.shape[axis] - 1
    place = torch.remainder(torch.arange(last + 1 + more, device=image.device), 2 * last)
    return image.index_select(axis, torch.minimum(place, 2 * last - place))


# --- methods ---------------------------------------------------------------------------------------------------------

Process = IRSDE | RectifiedFlow


@dataclass(frozen=True)
class Method:
    """A way to learn to restore.

    Attributes
    ----------
    network : callable
        (config, process, root mean square of HQ - LQ) -> the untrained network.
    process : callable
        (config, λ in network units) -> what it draws samples along.
    loss : callable, optional
        (network, process, kind of loss, HQ, LQ, t, noise) -> mean; None: supervised, no process and no noise.
    two_stages : bool
        The network is a `TwoStage`: what the process starts from is a mean that the network predicts, not the LQ image.
    """

    network: Callable[[TrainConfig, Any, float], nn.Module]
    process: Callable[[TrainConfig, float], Process]
    loss: Callable[..., Tensor] | None = None
    two_stages: bool = False


def _irsde(config: TrainConfig, max_sigma: float) -> IRSDE:
    return IRSDE(config.n_steps, max_sigma, config.delta)


def _flow(config: TrainConfig, max_sigma: float) -> RectifiedFlow:
    return RectifiedFlow(config.n_steps, max_sigma)


def _unet(config: TrainConfig, in_channels: int) -> UNet:
    shape = SHAPES[config.preset] | ({"channels": config.channels} if config.channels else {})
    return UNet(in_channels, **shape, last=LAST if config.skip == "smooth" else 0)


def _regressor(config: TrainConfig, process: Any = None, difference_rms: float = 1.0) -> Regressor:
    return Regressor(_unet(config, 1), config.skip)


def _dncnn(config: TrainConfig, process: Any = None, difference_rms: float = 1.0) -> Regressor:
    return Regressor(DnCNN(*DNCNN[config.preset]), config.skip)


def _noise(config: TrainConfig, process: Any, difference_rms: float) -> NoisePredictor:
    return NoisePredictor(_unet(config, 2), process, config.condition, config.precondition, difference_rms, config.skip)


def _velocity(config: TrainConfig, process: Any, difference_rms: float) -> VelocityPredictor:
    return VelocityPredictor(_unet(config, 2), process, config.condition, config.skip, difference_rms)


def _mean_then_noise(config: TrainConfig, process: Any, difference_rms: float) -> TwoStage:
    # The mean is smooth as it is: the second stage starts from it.
    stage = NoisePredictor(
        _unet(config, 2), process, config.condition, config.precondition, difference_rms, tracked=True
    )
    return TwoStage(_regressor(config), stage, process, config.mean is not None)


def _mean_then_velocity(config: TrainConfig, process: Any, difference_rms: float) -> TwoStage:
    stage = VelocityPredictor(_unet(config, 2), process, config.condition, "plain", difference_rms, tracked=True)
    return TwoStage(_regressor(config), stage, process, config.mean is not None)


def _despeckler(config: TrainConfig, process: Any = None, difference_rms: float = 1.0) -> nn.Module:
    from irsde.shipped.network import Despeckler

    return Despeckler(config.channels or DESPECKLER[config.preset])


METHODS: dict[str, Method] = {
    "irsde": Method(_noise, _irsde, one_stage_loss),
    "unet": Method(_regressor, _irsde),
    "dncnn": Method(_dncnn, _irsde),
    "pmrf": Method(_mean_then_velocity, _flow, two_stage_loss, two_stages=True),
    "flow": Method(_velocity, _flow, one_stage_loss),
    "irsde-mean": Method(_mean_then_noise, _irsde, two_stage_loss, two_stages=True),
    "despeckler": Method(_despeckler, _irsde),
}


def build_network(config: TrainConfig, sde: Process | None = None, difference_rms: float = 1.0) -> nn.Module:
    """Return the untrained network that a config asks for, by its method's row of `METHODS`."""
    return METHODS[config.method].network(config, sde or build_sde(config), difference_rms)


def build_sde(config: TrainConfig, normalization: Normalization | None = None) -> Any:
    """Return the process that a config asks for, an `IRSDE` or a `RectifiedFlow`, its λ in network units.

    Of grey levels, by what one is on average over the pairs.
    """
    max_sigma = config.max_sigma
    if config.sigma_unit == "grey" and normalization is not None:
        max_sigma /= normalization.grey_unit
    return METHODS[config.method].process(config, max_sigma)


# --- trained models --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network with what is needed to use it. `details` is the run's record: subjects, parameters, versions."""

    config: TrainConfig
    network: nn.Module
    sde: Any  # the process: an IRSDE, or a RectifiedFlow
    normalization: Normalization
    name: str = "model"
    step: int = 0
    details: dict[str, Any] | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    @property
    def is_diffusion(self) -> bool:
        """Whether it samples; else it maps an image to one."""
        return METHODS[self.config.method].loss is not None

    @property
    def has_mean(self) -> bool:
        """Whether its samples start from a mean that its network predicts."""
        return METHODS[self.config.method].two_stages

    def save_pretrained(self, folder: str | Path, half: bool = True, **also: Any) -> Path:
        """Write config.json and model.safetensors, a folder that `irsde.load` and hubs take.

        Parameters
        ----------
        half : weights in float16, else float32.
        **also : further entries of config.json.
        """
        from safetensors.torch import save

        from ussim.io.atomic import replacing

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            name: value.detach().cpu().to(torch.float16 if half and value.is_floating_point() else value.dtype)
            for name, value in self.network.state_dict().items()
        }
        with replacing(folder / models.WEIGHTS) as temporary:
            temporary.write_bytes(save({name: value.contiguous() for name, value in tensors.items()}))
        record = {
            "_class_name": type(self.network).__name__,
            "format": FORMAT,
            **(self.details or {}),
            "config": self.config.to_dict(),
            "normalization": dataclasses.asdict(self.normalization),
            "step": self.step,
            **also,
        }
        with replacing(folder / models.RECORD) as temporary:  # last: with it the folder is whole
            temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
        return folder


def load(run: str | Path, weights: str = "ema", device: str = "auto") -> Model:
    """Load a model: of a run folder, of a folder that `Model.save_pretrained` wrote, or a shipped one by its name.

    Of a run its newest whole checkpoint is loaded; a warning names a damaged one that is passed over.

    Parameters
    ----------
    run : a folder; where there is none of that name, one of `irsde models`.
    weights : "ema", averaged, or "raw"; of a run folder alone.

    Raises
    ------
    DataError
        The folder is not a run, has no checkpoint yet, or none that is whole and fits its config.
    """
    run = models.find(run)
    record = read_record(run)
    config = TrainConfig.from_record(record)
    normalization = normalization_of(record)
    if weights not in ("ema", "raw"):
        raise ValueError(f'expected weights "ema" or "raw", got {weights!r}')
    sde = build_sde(config, normalization)
    network = build_network(config, sde, normalization.difference_rms)
    file = "ema.safetensors" if weights == "ema" else "weights.safetensors"

    def fill(folder: Path) -> None:
        tensors = read_tensors(folder / file)
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise DamagedError(f"{folder / file}: does not hold the weights of this run ({reason})") from error

    if (run / models.WEIGHTS).exists():
        file = models.WEIGHTS
        fill(run)
        step = int(record.get("step", 0))
    else:
        checkpoint, _ = read_checkpoint(run, fill, partial(warnings.warn, stacklevel=3))
        if checkpoint is None:
            raise DataError(f"{run}: no checkpoint yet; finish the training with `irsde train --resume`")
        step = int(checkpoint.name)
    network.to(pick_device(device)).eval().requires_grad_(False)
    return Model(config, network, sde, normalization, run.name, step, record)


def read_record(run: Path) -> dict[str, Any]:
    """config.json of a run folder."""
    path = run / "config.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("kind") == "prior":
            raise DataError(f"{run}: a prior of `irsde drus`, not a model that restores images")
        if not {"config", "normalization"} <= record.keys():
            raise ValueError("no config and normalization in it")
        written = record.get("format", 1)
        if not (isinstance(written, int) and written <= FORMAT):
            version = record.get("versions", {}).get("ussim", "of unknown version")
            raise DataError(
                f"{run}: written by ussim {version} in format {written}; this version reads up to {FORMAT}: "
                "install that version or a newer one"
            )
        return record
    except DataError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        near = did_you_mean(run.name, models.names()) if len(run.parts) == 1 else ""
        raise DataError(
            f"{run}: not a run folder (no config.json); expected what `irsde train --out` wrote{near}"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def pick_device(name: str = "auto") -> torch.device:
    """Return the device of that name: "auto" (CUDA where there is one, else the CPU), "cpu", "cuda" or "cuda:N"."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"device {name!r}: expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"device {name!r}: PyTorch finds {torch.cuda.device_count()} CUDA devices. Use --device cpu")
    return device
