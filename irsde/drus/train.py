"""Training the unconditional DDPM prior on reflectivity maps o = m ∘ p: white noise m on random echogenicity maps p.

The network is diffusers' UNet2DModel with the linear schedule of DDPM (Ho et al. 2020) and noise prediction; what is
written is a folder that `load_prior` and diffusers read. A run that was stopped goes on where its last checkpoint was.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..training import ExistsError, ResumeError
from . import mixture
from .phantoms import load_slices, training_map
from .priors import DEFAULT_BRIGHT_STD, PRIOR_FILE, PriorError, load_prior

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"
DATA = {  # what a prior is trained on -> in words
    "speckle": "random shapes, layers and MRI slices",
    "mixture": "sparse points, points in speckle, tissue, discs, layers, MRI slices and procedural phantoms",
}
VARIANCE_WEIGHT = 0.05  # of the variance's loss beside the noise's


@dataclass(frozen=True)
class PriorConfig:
    """A training run: the network, the data and the schedule."""

    iterations: int = 4000
    batch_size: int = 8
    size: int = 64  # px a side; the network is convolutional: other sizes can be sampled
    channels: tuple[int, ...] = (32, 64, 64, 128)
    layers_per_block: int = 1
    groups: int = 16
    attention: bool = False  # in the middle: what it learns at one size does not carry over to another
    learning_rate: float = 6e-4
    warmup: int = 100
    ema_decay: float = 0.998
    gain: tuple[float, float] = (0.6, 1.5)  # range of the factor on o: data are never scaled quite as training images
    seed: int = 0
    slices: tuple[str, ...] = ()  # MRI files; none: those that pydicom ships
    data: str = "speckle"  # of DATA
    init: str = ""  # a prior whose weights are the first, as `load_prior` takes it; none: random ones
    variance: bool = (
        False  # a second output, of the noise's variance: what the sampler "daps" takes for the spread of o
    )

    def __post_init__(self) -> None:
        if self.data not in DATA:
            raise ValueError(f"data: expected {' or '.join(DATA)}, got {self.data!r}")


def train(
    config: PriorConfig,
    out: str | Path,
    resume: bool = False,
    device: str | torch.device = "cpu",
    checkpoint_every: int = 200,
    report: Callable[[int, int, float, float], None] | None = None,
) -> Path:
    """Train a prior into the folder `out`; `report(iteration, iterations, loss, seconds_left)` is called every 20 steps.

    Raises
    ------
    ExistsError
        `out` holds a run and `resume` was not asked for.
    ResumeError
        `out` holds a run with other settings.
    """
    from diffusers import DDPMScheduler
    from diffusers.training_utils import EMAModel

    out = Path(out)
    _claim(config, out, resume)
    torch.manual_seed(config.seed)
    network = _first(config).to(device)
    scheduler: Any = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", prediction_type="epsilon")
    average = EMAModel(network.parameters(), decay=config.ema_decay)
    average.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    first = _restore(out, network, average, optimizer, device) if resume else 0
    draw = _draws(config)
    started, losses = time.monotonic(), []
    network.train()
    for i in range(first, config.iterations):
        rng = np.random.default_rng([config.seed, i])  # by iteration: a resumed run sees what an unbroken one would
        images = torch.as_tensor(draw(rng), device=device)
        noise = torch.as_tensor(rng.standard_normal(images.shape, dtype=np.float32), device=device)
        t = torch.as_tensor(rng.integers(0, 1000, len(images)), device=device)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _rate(i, config)
        loss = _loss(network(scheduler.add_noise(images, noise, t), t).sample, noise)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.step(network.parameters())
        losses.append(loss.item())
        done = i + 1
        if done % 20 == 0 or done == config.iterations:
            elapsed = time.monotonic() - started
            left = elapsed / (done - first) * (config.iterations - done)
            mean_loss = float(np.mean(losses[-100:]))
            _log(out, iteration=done, loss=mean_loss, seconds=round(elapsed, 1))
            if report is not None:
                report(done, config.iterations, mean_loss, left)
        if done % checkpoint_every == 0 or done == config.iterations:
            _save(out, done, network, average, optimizer)
            _export(out, config, network, average, scheduler, done)
    return out


def build_network(config: PriorConfig) -> Any:
    """UNet2DModel of one channel in and out, and one more out for the variance."""
    from diffusers import UNet2DModel

    levels = len(config.channels)
    return UNet2DModel(
        sample_size=config.size,
        in_channels=1,
        out_channels=2 if config.variance else 1,
        layers_per_block=config.layers_per_block,
        block_out_channels=config.channels,
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        norm_num_groups=config.groups,
        add_attention=config.attention,
        attention_head_dim=min(32, config.channels[-1]),
    )


def _first(config: PriorConfig) -> Any:
    """Return the network that a run begins with.

    Raises
    ------
    PriorError
        The prior to begin with is not there, or its network is another.
    """
    network = build_network(config)
    if config.init:
        given = load_prior(config.init).network.state_dict()
        try:
            network.load_state_dict(given)
        except RuntimeError:
            raise PriorError(f"{config.init}: its network is another than the one that was asked for") from None
    return network.requires_grad_(True)


def batch(config: PriorConfig, rng: np.random.Generator, slices: list[np.ndarray]) -> np.ndarray:
    """(batch_size, 1, size, size) float32 reflectivity maps g (m ∘ p), standard deviation 0.9 g where p = 1."""
    shape = (config.size, config.size)
    images = np.empty((config.batch_size, 1, *shape), dtype=np.float32)
    for image in images:
        gain = DEFAULT_BRIGHT_STD * math.exp(rng.uniform(*np.log(config.gain)))
        image[0] = gain * rng.standard_normal(shape) * training_map(shape, rng, slices)
    return images


def _draws(config: PriorConfig) -> Callable[[np.random.Generator], np.ndarray]:
    """Return what gives the images of an iteration."""
    slices = load_slices(config.slices)
    if config.data == "speckle":
        return lambda rng: batch(config, rng, slices)
    maps = mixture.Maps(slices, config.seed)
    return lambda rng: mixture.batch(config.batch_size, config.size, config.gain, rng, maps)


def _loss(answer: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error of the noise and, where a second output says its variance v, the mean of log v + e² / v.

    Minimal where v is the expected squared error e² of the first output, which it does not touch.
    """
    predicted = answer[:, :1]
    loss = torch.nn.functional.mse_loss(predicted, noise)
    if answer.shape[1] == 1:
        return loss
    log_variance = torch.nn.functional.logsigmoid(answer[:, 1:])
    error = torch.square(predicted.detach() - noise)
    misfit = log_variance + (error + 1e-6) * torch.exp(-log_variance).clamp(max=1e6)
    return loss + VARIANCE_WEIGHT * misfit.mean()


def _rate(i: int, config: PriorConfig) -> float:
    """Linear warm-up, then half a cosine down to nothing."""
    warm = min(1.0, (i + 1) / config.warmup)
    return warm * 0.5 * (1 + math.cos(math.pi * i / config.iterations))


def _claim(config: PriorConfig, out: Path, resume: bool) -> None:
    """Write the settings into a new folder, or compare them with those of the run there."""
    settings = json.loads(json.dumps(asdict(config)))
    path = out / "config.json"
    if path.is_file():
        if not resume:
            raise ExistsError(f"{out} holds a training run: give --resume to go on with it, or another --out")
        before = json.loads(json.dumps(asdict(PriorConfig()))) | json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name in settings if settings[name] != before.get(name)]
        if changed:
            name = changed[0]
            raise ResumeError(
                f"{out}: {name} was {before.get(name)!r}, now {settings[name]!r}; resume takes the same settings"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _restore(
    out: Path, network: Any, average: Any, optimizer: torch.optim.Optimizer, device: str | torch.device
) -> int:
    """Take up the last checkpoint, if there is one; the number of iterations done."""
    path = out / CHECKPOINT
    if not path.is_file():
        return 0
    state = torch.load(path, map_location=device, weights_only=True)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    average.load_state_dict(state["average"])
    return int(state["iteration"])


def _save(out: Path, iteration: int, network: Any, average: Any, optimizer: torch.optim.Optimizer) -> None:
    temporary = out / (CHECKPOINT + ".part")
    torch.save(
        {
            "iteration": iteration,
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average.state_dict(),
        },
        temporary,
    )
    os.replace(temporary, out / CHECKPOINT)


def _export(out: Path, config: PriorConfig, network: Any, average: Any, scheduler: Any, iteration: int) -> None:
    """Write the averaged network in diffusers' layout, and the units that it was trained in."""
    average.store(network.parameters())
    average.copy_to(network.parameters())
    network.save_pretrained(out / "unet")
    average.restore(network.parameters())
    scheduler.save_pretrained(out / "scheduler")
    settings = {
        "bright_std": DEFAULT_BRIGHT_STD,
        "iterations": iteration,
        "data": DATA[config.data],
        "variance": config.variance,
        "patch": config.size if config.data == "mixture" else None,
    }
    (out / PRIOR_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _log(out: Path, **values: float) -> None:
    with open(out / LOG, "a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")
