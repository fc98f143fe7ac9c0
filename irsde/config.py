"""Every choice of a training run, in one place that needs no torch: what `irsde train` reads, saves and compares."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irsde import recipes
from ussim.errors import ConfigError

METHODS = ("irsde", "unet", "dncnn", "pmrf", "flow", "irsde-mean", "despeckler")  # the rows of `irsde.network.METHODS`
NORMALIZATIONS = ("shared", "own", "none")
INVERSES = ("lq", "train_mean", "minmax", "oracle")
SCHEDULES = ("multistep", "cosine", "constant")
# The names of the tables in `irsde.sde`, which loads torch.
SAMPLERS = ("posterior", "sde", "ode", "ddim")
LOSSES = ("noise_l1", "ml_l1", "balanced_l1")
# Those of the tables in `irsde.flow`.
FLOW_SAMPLERS = ("euler", "posterior")
FLOW_LOSSES = ("velocity_l2", "velocity_l1")
FLOWS = ("pmrf", "flow")  # methods that take them
TWO_STAGES = ("pmrf", "irsde-mean")  # methods whose samples start from a mean
SKIPS = ("plain", "smooth")
SIGMA_UNITS = ("network", "grey")
STATISTICS = ("echoes", "image")
DRAWS = ("first", "every")

# The published recipe leaves its optimizer's numbers open; "paper" fills them with IR-SDE's (Luo et al. 2023). "small" and
# "tiny" are for CPUs: half-resolution inside, shorter runs, a network output scaled to unit variance at every time.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"learning_rate": 1e-4, "schedule": "multistep", "steps": 700_000, "patch_size": 128},
    "small": {
        "learning_rate": 5e-4,
        "schedule": "cosine",
        "steps": 20_000,
        "patch_size": 64,
        "batch_size": 8,
        "loss": "balanced_l1",
        "precondition": True,
    },
    "tiny": {
        "learning_rate": 1e-3,
        "schedule": "cosine",
        "steps": 4_000,
        "patch_size": 64,
        "loss": "balanced_l1",
        "precondition": True,
    },
}
# What a method sets otherwise than the preset.
METHOD_SETTINGS: dict[str, dict[str, Any]] = {
    "pmrf": {"loss": "velocity_l2", "precondition": True, "skip": "smooth"},
    "flow": {"loss": "velocity_l2", "precondition": True, "skip": "smooth"},
    "irsde-mean": {"loss": "balanced_l1", "precondition": True, "skip": "smooth"},
}
# Of a run folder; 2 records this number, the version of ussim, and the digest of the store; 3 the training's recipe.
FORMAT = 3
# Of settings that came after a format: how runs of that format behaved. {1: {"new_setting": value}, ...}
_BEFORE_3 = {"statistics": "image", "overlays": 0.0}
DEFAULTS_BEFORE: dict[int, dict[str, Any]] = {1: {"floor": 0.0, **_BEFORE_3}, 2: _BEFORE_3}
# What an initial run hands on with its weights: without it they would mean something else.
HANDED_ON = (
    "method", "preset", "n_steps", "max_sigma", "sigma_unit", "delta", "normalization", "inverse", "statistics", "loss",
    "condition", "precondition", "skip", "channels",
)  # fmt: skip
# What the run named by `mean` has to have as well: its network becomes a part of this one's.
SHARED_WITH_MEAN = ("preset", "channels", "skip", "normalization", "inverse", "statistics", "floor")
# What may differ between the run that is resumed and the command that resumes it.
FREE_ON_RESUME = ("steps", "log_every", "checkpoint_every", "validate_every", "workers", "device", "store")


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Lengths in pixels, times in optimizer steps. `create` fills what the preset knows."""

    store: str | tuple[str, ...]  # the pairs store, or several, which are learned from together
    probes: tuple[str, ...] = ()  # which simulated images to learn from; () = all the store has
    draws: str = "first"  # of a store with several speckle draws of each image: the first, or a pair for "every" draw
    fold: int | None = None  # subjects of this fold are held out; None trains on all
    # "irsde", "flow"; on a predicted mean "pmrf", "irsde-mean"; or supervised: "unet", "dncnn", "despeckler"
    method: str = "irsde"
    preset: str = "paper"  # network size: "paper", "small", "tiny"
    channels: tuple[int, ...] = ()  # of each level of the U-Net, in place of the preset's
    recipe: str = "default"  # whose training it is: ours, or one of `irsde.recipes`
    init: str | None = None  # run folder whose averaged weights training starts from; None = at random
    mean: str | None = None  # run of method "unet" whose network is the mean of "pmrf", "irsde-mean"; None = train one
    n_steps: int = 100  # T of the SDE
    max_sigma: float = 0.2  # λ, in sigma_unit
    sigma_unit: str = "network"  # "network": what the network sees; "grey": grey levels of [0, 1]
    delta: float = 0.005
    normalization: str = "shared"  # "shared": LQ mean and std for both images; "own": each its own; "none"
    inverse: str = "lq"  # for "own" only: whose mean and std bring the result back
    floor: float = 1 / 255  # smallest standard deviation that is divided by; pairs below it are left out. 0 = neither
    statistics: str = "echoes"  # means and deviations over the probe's field; "image": with what lies around it
    loss: str = "noise_l1"  # "noise_l1", "ml_l1", "balanced_l1"; of flows "velocity_l2", "velocity_l1"
    condition: str = "difference"  # network input: "difference" [x - lq, lq] or "concat" [x, lq]
    precondition: bool = False  # scale input and output to unit variance at every time (Karras et al. 2022, sec. 5)
    skip: str = "plain"  # what the network's output is added to: the image; or "smooth", the image smoothed
    clamp: bool = True  # restoring keeps predictions in the range of grey levels
    batch_size: int = 4
    patch_size: int = 128
    steps: int = 700_000
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    schedule: str = "multistep"  # halved at 2/7, 4/7, 6/7 of the run; "cosine" to 1 %; "constant"
    warmup: int = 0
    clip_norm: float = 1.0  # 0 = off
    ema_decay: float = 0.999
    flip_lateral: bool = True
    flip_axial: bool = False  # speckle is anisotropic: these two are against the physics
    rotate: bool = False
    overlays: float = 0.2  # share of patches with a border, caption, ruler or sector pasted on HQ and LQ
    mixed_precision: str = "no"  # "no", "bf16", "fp16"
    gradient_accumulation: int = 1
    compile: bool = False
    channels_last: bool = False
    device: str = "auto"
    seed: int = 0
    workers: int = 0
    log_every: int = 50
    checkpoint_every: int = 1000
    validate_every: int = 1000  # also writes a sample sheet; 0 = never

    def __post_init__(self) -> None:
        object.__setattr__(self, "probes", tuple(self.probes))
        object.__setattr__(self, "betas", tuple(self.betas))
        object.__setattr__(self, "channels", tuple(self.channels))
        if not isinstance(self.store, str):
            stores = tuple(map(os.fspath, self.store)) if isinstance(self.store, Sequence) else (os.fspath(self.store),)
            object.__setattr__(self, "store", stores[0] if len(stores) == 1 else stores)
        if not self.stores or "" in self.stores:
            raise ConfigError(f"store: expected one pairs store or several, got {self.store!r}")
        for name, choices in (
            ("method", METHODS),
            ("draws", DRAWS),
            ("preset", tuple(PRESETS)),
            ("recipe", recipes.NAMES),
            ("sigma_unit", SIGMA_UNITS),
            ("statistics", STATISTICS),
            ("normalization", NORMALIZATIONS),
            ("inverse", INVERSES[:3]),
            ("loss", FLOW_LOSSES if self.method in FLOWS else LOSSES),
            ("skip", SKIPS),
            ("condition", ("difference", "concat")),
            ("schedule", SCHEDULES),
            ("mixed_precision", ("no", "bf16", "fp16")),
        ):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}: expected one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in (
            "n_steps",
            "batch_size",
            "patch_size",
            "steps",
            "gradient_accumulation",
            "log_every",
            "checkpoint_every",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("warmup", "seed", "workers", "validate_every", "clip_norm"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: expected at least 0, got {getattr(self, name)}")
        if not 0 < self.delta < 1:
            raise ConfigError(f"delta: expected 0 < delta < 1, got {self.delta}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas: expected two numbers, 0 <= beta < 1, got {self.betas}")
        for name in ("max_sigma", "learning_rate"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ConfigError(f"{name}: expected a positive number, got {getattr(self, name)}")
        if not 0 <= self.floor < 1:
            raise ConfigError(f"floor: expected a standard deviation of grey levels, 0 <= floor < 1, got {self.floor}")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay: expected 0 <= ema_decay < 1, got {self.ema_decay}")
        if not 0 <= self.overlays <= 1:
            raise ConfigError(f"overlays: expected a share of the patches, 0 to 1, got {self.overlays}")
        if len(self.channels) == 1 or any(n < 8 or n % 8 for n in self.channels):
            raise ConfigError(f"channels: expected two numbers or more, each a multiple of 8, got {self.channels}")
        if self.skip == "smooth" and self.method in ("irsde", "irsde-mean") and not self.precondition:
            raise ConfigError("skip: 'smooth' needs precondition with this method; use --precondition")
        if self.mean is not None and self.method not in TWO_STAGES:
            raise ConfigError(f"mean: goes with method {' or '.join(TWO_STAGES)}, got method {self.method}")
        if self.patch_size % 8:
            raise ConfigError(f"patch_size: expected a multiple of 8, got {self.patch_size}")
        if self.normalization != "own" and self.inverse != "lq":
            raise ConfigError(f"inverse: {self.inverse!r} goes with normalization 'own', got {self.normalization!r}")

    @property
    def stores(self) -> tuple[str, ...]:
        """The pairs stores, one or several."""
        return (self.store,) if isinstance(self.store, str) else self.store

    @classmethod
    def create(cls, **given: Any) -> TrainConfig:
        """Return a config whose unnamed choices are those of its recipe, its method, then its preset.

        Unknown names are refused.
        """
        preset = given.get("preset", "paper")
        if preset not in PRESETS:
            raise ConfigError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
        names = [field.name for field in dataclasses.fields(cls)]
        for name in given:
            if name not in names:
                raise ConfigError(f"unknown setting {name!r}; expected some of {', '.join(names)}")
        own = METHOD_SETTINGS.get(given.get("method", "irsde"), {})
        return _typed({**PRESETS[preset], **own, **recipes.settings_of(given.get("recipe", recipes.DEFAULT)), **given})

    @classmethod
    def from_record(cls, record: dict[str, Any], **changes: Any) -> TrainConfig:
        """Return the config of a run's config.json, what its version did not know as that version behaved.

        Raises
        ------
        ConfigError
            A setting is unknown or cannot be.
        """
        older = DEFAULTS_BEFORE.get(record.get("format", 1), {})
        given = older | record["config"] | changes
        unknown = given.keys() - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ConfigError(f"settings {', '.join(sorted(unknown))}: unknown to this version")
        return _typed(given)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return dataclasses.asdict(self)

    def differences(self, other: TrainConfig) -> list[str]:
        """Return what makes these two runs different trainings, as "name: mine -> other's"."""
        return [
            f"{name}: {value!r} -> {getattr(other, name)!r}"
            for name, value in vars(self).items()
            if name not in FREE_ON_RESUME and value != getattr(other, name)
        ]


def _typed(given: dict[str, Any]) -> TrainConfig:
    """Return a config whose settings have their declared types; raises ConfigError that names the setting."""
    from pydantic import TypeAdapter, ValidationError

    try:
        # JSON has no tuples and writes 1 for 1.0: strict in all the rest, as "no" is not False and 2.5 steps are none.
        return TypeAdapter(TrainConfig).validate_json(json.dumps(given, default=os.fspath), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):
            raise cause from None
        # Of several stores and one, the name of the kind that was tried comes last: "store.str".
        name = ".".join(str(part) for part in first["loc"] if part not in ("str", "tuple[str, ...]"))
        expected = first["msg"].removeprefix("Input should be ")
        expected = "a value more" if first["type"] == "missing" else expected
        raise ConfigError(f"{name}: expected {expected}, got {first['input']!r}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"settings: expected numbers, words, true and false ({error})") from None


def read_settings(path: Path) -> dict[str, Any]:
    """Return settings from a TOML or JSON file, for `TrainConfig.create`."""
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not valid {path.suffix.lstrip('.').upper() or 'TOML'} ({error})") from error
