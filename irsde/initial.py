"""Starting from another run's weights: what it hands on, and whether it may."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from irsde.config import HANDED_ON, SHARED_WITH_MEAN, ConfigError, TrainConfig
from irsde.data import DataError
from irsde.network import Model, load, read_record


def handed_on(run: str | Path) -> dict[str, Any]:
    """Return settings of a run without which its weights would mean something else."""
    config = TrainConfig.from_record(read_record(Path(run)))
    return {name: getattr(config, name) for name in HANDED_ON}


def of_mean(run: str | Path) -> dict[str, Any]:
    """Return settings of a run that one which takes its network as mean has to share."""
    config = TrainConfig.from_record(read_record(Path(run)))
    return {name: getattr(config, name) for name in SHARED_WITH_MEAN}


def load_mean(config: TrainConfig, held_out: Iterable[str], report: Callable[[str], None]) -> Model | None:
    """Return the supervised model whose averaged weights are the mean of a run of two stages; None where it trains one.

    Parameters and errors are those of `load_initial`.
    """
    if config.mean is None:
        return None
    model = load(config.mean, device="cpu")
    if model.config.method != "unet":
        raise ConfigError(f"mean: expected a run of method unet, {config.mean} is of method {model.config.method}")
    for name in SHARED_WITH_MEAN:
        own, theirs = getattr(config, name), getattr(model.config, name)
        if own != theirs:
            raise ConfigError(f"mean: {config.mean} has {name} {theirs!r}, this run {own!r}; give both the same")
    _check_unseen(model, config.mean, held_out)
    report(f"the mean is that of {config.mean}, step {model.step}; it is not trained further")
    return model


def load_initial(config: TrainConfig, held_out: Iterable[str], report: Callable[[str], None]) -> Model | None:
    """Return the model whose averaged weights a run starts from; None where it starts at random.

    Parameters
    ----------
    held_out : subjects that this run holds out.
    report : gets a line that says what it starts from, and which settings differ.

    Raises
    ------
    ConfigError
        Its network has another shape.
    DataError
        It is no run with a whole checkpoint, or was trained on a subject that is held out now.
    """
    if config.init is None:
        return None
    model = load(config.init, device="cpu")
    own, theirs = ((c.method, c.preset) for c in (config, model.config))
    if own != theirs:
        raise ConfigError(
            f"init: expected a run of method {own[0]} and preset {own[1]}, as this one, {config.init} is of method "
            f"{theirs[0]} and preset {theirs[1]}; use --method {theirs[0]} --preset {theirs[1]}, or another --init"
        )
    _check_unseen(model, config.init, held_out)
    different = [
        f"{name} {getattr(model.config, name)} -> {getattr(config, name)}"
        for name in HANDED_ON
        if getattr(model.config, name) != getattr(config, name)
    ]
    changed = f"; other settings than it had: {', '.join(different)}" if different else ""
    report(f"starting from the averaged weights of {config.init}, step {model.step}{changed}")
    return model


def _check_unseen(model: Model, run: str, held_out: Iterable[str]) -> None:
    """Raise DataError if the model was trained on a subject that is held out now."""
    known = sorted(set((model.details or {}).get("training_subjects", ())) & set(held_out))
    if known:
        more = f" and {len(known) - 1} more" if len(known) > 1 else ""
        raise DataError(
            f"{run}: was trained on subject {known[0]}{more} of those held out now; hold out the fold that it held "
            "out, or none"
        )
