"""Despeckling with mean-reverting diffusion (IR-SDE) and variance imaging with diffusion priors (DRUS).

    pairs store ─► train ─► run folder ─► load ─► restore / ensemble ─► metrics, evaluate

Names are imported when first used: `import irsde` loads neither torch nor diffusers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ussim.lazy import attach

_HOME = {
    "IRSDE": "sde",
    "Model": "network",
    "TrainConfig": "config",
    "build_network": "network",
    "ImagingLayer": "differentiable",
    "Sampling": "sample",
    "deepinv_physics": "differentiable",
    "draw_samples": "sample",
    "ensemble": "sample",
    "evaluate": "evaluation.evaluate",
    "load": "network",
    "restore": "sample",
    "train": "training",
}
_MODULES = {
    "baselines": "evaluation.baselines",
    "data": "data",
    "drus": "drus",
    "metrics": "evaluation.metrics",
    "network": "network",
    "sample": "sample",
    "sde": "sde",
}
__all__ = [
    "IRSDE",
    "ImagingLayer",
    "Model",
    "Sampling",
    "TrainConfig",
    "baselines",
    "build_network",
    "data",
    "deepinv_physics",
    "draw_samples",
    "drus",
    "ensemble",
    "evaluate",
    "load",
    "metrics",
    "network",
    "restore",
    "sample",
    "sde",
    "train",
]

if TYPE_CHECKING:
    from . import data, drus, network, sample, sde
    from .config import TrainConfig
    from .differentiable import ImagingLayer, deepinv_physics
    from .evaluation import baselines, metrics
    from .evaluation.evaluate import evaluate
    from .network import Model, build_network, load
    from .sample import Sampling, draw_samples, ensemble, restore
    from .sde import IRSDE
    from .training import train
else:  # what is not listed above is unknown to a type checker
    __getattr__, __dir__ = attach(__name__, _HOME, _MODULES)
