"""Training recipes of others, as settings: the despeckling paper's, and the public configuration of IR-SDE.

A recipe names every setting it knows, so that a better default of ours never changes it. What its source leaves open, and
what is otherwise here than there, is part of it: `irsde train` says so, and config.json keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT = "default"  # no recipe: the preset's settings


@dataclass(frozen=True)
class TrainingRecipe:
    """Training settings of one source.

    Attributes
    ----------
    source : where it is published.
    settings : of `TrainConfig`, by name.
    open : settings that the source leaves open; their values are those of `filled_by`.
    filled_by : whose values those are.
    otherwise : what is not here as it is there.
    """

    source: str
    settings: dict[str, Any]
    open: tuple[str, ...] = ()
    filled_by: str = ""
    otherwise: tuple[str, ...] = ()


_IRSDE: dict[str, Any] = {
    "method": "irsde",
    "preset": "paper",
    "n_steps": 100,
    "max_sigma": 10 / 255,
    "sigma_unit": "grey",
    "delta": 0.005,
    "normalization": "none",
    "inverse": "lq",
    "statistics": "image",
    "loss": "ml_l1",
    "condition": "difference",
    "precondition": False,
    "skip": "plain",
    "channels": (),
    "mean": None,
    "clamp": False,
    "batch_size": 4,
    "patch_size": 128,
    "steps": 700_000,
    "learning_rate": 1e-4,
    "betas": (0.9, 0.99),
    "schedule": "multistep",
    "warmup": 0,
    "clip_norm": 0.0,
    "ema_decay": 0.0,
    "flip_lateral": True,
    "flip_axial": True,
    "rotate": True,
    "overlays": 0.0,
    "mixed_precision": "no",
    "gradient_accumulation": 1,
    "checkpoint_every": 5000,
    "validate_every": 5000,
    "seed": 0,
}
RECIPES: dict[str, TrainingRecipe] = {
    "paper": TrainingRecipe(
        "IRSDE-Despeckle, arXiv 2602.22717",
        _IRSDE | {"normalization": "own", "loss": "noise_l1", "condition": "concat"},
        open=(
            *(
                "n_steps",
                "max_sigma",
                "sigma_unit",
                "delta",
                "inverse",
                "patch_size",
                "steps",
                "learning_rate",
                "betas",
            ),
            *("schedule", "flip_lateral", "flip_axial", "rotate", "seed"),
        ),
        filled_by="IR-SDE's public configuration",
        otherwise=(
            "the decoder has one residual block per level more than the encoder, which the paper calls its mirror",
        ),
    ),
    "irsde": TrainingRecipe(
        "Luo et al. 2023, options/train/ir-sde.yml of its deraining",
        _IRSDE,
        otherwise=(
            "the network is the despeckling paper's, one channel, not IR-SDE's ConditionalUNet",
            "the averaged weights that IR-SDE stores and does not evaluate are not made",
        ),
    ),
}
SHIPPED = "shipped"
OURS: dict[str, TrainingRecipe] = {
    SHIPPED: TrainingRecipe(
        "the model that comes with the package (docs/shipped.md)",
        _IRSDE
        | {
            "method": "despeckler",
            "preset": "small",
            "normalization": "own",
            "statistics": "echoes",
            "floor": 0.02,
            "batch_size": 8,
            "patch_size": 96,
            "steps": 2000,
            "learning_rate": 2e-3,
            "betas": (0.9, 0.999),
            "schedule": "cosine",
            "warmup": 100,
            "clip_norm": 1.0,
            "ema_decay": 0.998,
            "flip_axial": False,
            "rotate": False,
            "overlays": 0.4,
            "mixed_precision": "bf16",
            "channels_last": True,
            "checkpoint_every": 250,
            "validate_every": 500,
        },
    )
}
ALL = RECIPES | OURS
NAMES = (DEFAULT, *ALL)


def settings_of(name: str) -> dict[str, Any]:
    """Return the settings of a recipe; none of the default."""
    return dict(ALL[name].settings) if name in ALL else {}


def changes(settings: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return in what the settings of a run depart from its recipe: name -> (the recipe's, the run's)."""
    recipe = settings_of(settings["recipe"])
    return {name: (value, settings[name]) for name, value in recipe.items() if settings[name] != value}


def lines(settings: Mapping[str, Any]) -> list[str]:
    """Return what is to be said of a run's recipe, a line each; nothing of the default."""
    name = settings["recipe"]
    if name not in ALL:
        return []
    recipe, changed = ALL[name], changes(settings)
    said = [recipe.source]
    left = ", ".join(f"{key} {_short(recipe.settings[key])}" for key in recipe.open if key not in changed)
    if left:
        said.append(f"left open by the source, values of {recipe.filled_by}: {left}")
    said += recipe.otherwise
    if changed:
        told = ", ".join(f"{key} {_short(old)} -> {_short(new)}" for key, (old, new) in changed.items())
        said.append(f"not followed in {told}")
    return [f"recipe {name}: {text}" for text in said]


def record(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what config.json keeps of a run's recipe; None of the default."""
    if settings["recipe"] not in ALL:
        return None
    recipe, changed = ALL[settings["recipe"]], changes(settings)
    return {
        "name": settings["recipe"],
        "source": recipe.source,
        "left_open": {key: recipe.settings[key] for key in recipe.open},
        "filled_by": recipe.filled_by,
        "otherwise": list(recipe.otherwise),
        "not_followed": {key: {"recipe": old, "run": new} for key, (old, new) in changed.items()},
    }


def _short(value: Any) -> str:
    """Return a value as a message shows it."""
    if isinstance(value, tuple):
        return "/".join(map(_short, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
