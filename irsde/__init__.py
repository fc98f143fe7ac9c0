"""Despeckling with mean-reverting diffusion (IR-SDE) and variance imaging with diffusion priors (DRUS).

    pairs store ─► train ─► run folder ─► load ─► restore / ensemble ─► metrics, evaluate

Names are imported when first used: `import irsde` loads neither torch nor diffusers.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_EXPORTS = {
    "IRSDE": "irsde.sde",
    "Model": "irsde.network",
    "build_network": "irsde.network",
    "load": "irsde.network",
    "TrainConfig": "irsde.train",
    "restore": "irsde.sample",
    "ensemble": "irsde.sample",
    "draw_samples": "irsde.sample",
    "evaluate": "irsde.evaluate",
}
_MODULES = ("baselines", "data", "drus", "metrics", "network", "sample", "sde")

__all__ = sorted([*_EXPORTS, *_MODULES, "train"])


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    if name in _MODULES:
        return import_module(f"irsde.{name}")
    if name == "train":
        return import_module("irsde.train").train
    raise AttributeError(f"module 'irsde' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
