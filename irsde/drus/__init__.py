"""Variance imaging: one transmit's echoes in, an echogenicity map out (Zhang et al., DRUS and DRUSvar).

    operator(acquisition, grid) ─┐
    beamform(rf, grid) ──────────┴► sample(operator, by, prior) ─► mean, variance_image

Names are imported when first used: `import irsde` and the command line's help load no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "DDPMPrior": "priors",
    "DenseOperator": "operators",
    "GaussianPrior": "priors",
    "IdentityOperator": "operators",
    "PatchwiseOperator": "operators",
    "LocalVariancePrior": "priors",
    "Prior": "ddrm",
    "PriorError": "priors",
    "SeparableOperator": "operators",
    "SpectralOperator": "operators",
    "bandpass_step": "acoustics",
    "beamform": "acoustics",
    "echo_model": "acoustics",
    "estimate_noise": "ddrm",
    "load_prior": "priors",
    "mean": "ddrm",
    "measure_residual": "build",
    "operator": "build",
    "reflectivity_scale": "ddrm",
    "sample": "ddrm",
    "variance_image": "ddrm",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"irsde.drus.{_HOME[name]}"), name)
    raise AttributeError(f"module 'irsde.drus' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
