"""Variance imaging: one transmit's echoes in, an echogenicity map out (Zhang et al., DRUS and DRUSvar).

    operator(acquisition, grid) ─┐
    beamform(rf, grid) ──────────┴► sample(operator, by, prior) ─► mean, variance_image
    channel_model(rf, grid) ──────► sample_posterior(model, prior) ─► the same, without an SVD

Names are imported when first used: `import irsde` and the command line's help load no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ussim.lazy import attach

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
    "ChannelModel": "channels",
    "bandpass_step": "acoustics",
    "channel_model": "channels",
    "beamform": "acoustics",
    "echo_model": "acoustics",
    "estimate_attenuation": "attenuation",
    "estimate_noise": "ddrm",
    "load_prior": "priors",
    "mean": "ddrm",
    "measure_residual": "build",
    "operator": "build",
    "reflectivity_scale": "ddrm",
    "sample": "ddrm",
    "save_prior": "priors",
    "sample_posterior": "daps",
    "variance_image": "ddrm",
}
__all__ = [
    "ChannelModel",
    "DDPMPrior",
    "DenseOperator",
    "GaussianPrior",
    "IdentityOperator",
    "LocalVariancePrior",
    "PatchwiseOperator",
    "Prior",
    "PriorError",
    "SeparableOperator",
    "SpectralOperator",
    "bandpass_step",
    "beamform",
    "channel_model",
    "echo_model",
    "estimate_attenuation",
    "estimate_noise",
    "load_prior",
    "mean",
    "measure_residual",
    "operator",
    "reflectivity_scale",
    "sample",
    "sample_posterior",
    "save_prior",
    "variance_image",
]

if TYPE_CHECKING:
    from .acoustics import bandpass_step, beamform, echo_model
    from .attenuation import estimate_attenuation
    from .build import measure_residual, operator
    from .channels import ChannelModel, channel_model
    from .daps import sample_posterior
    from .ddrm import Prior, estimate_noise, mean, reflectivity_scale, sample, variance_image
    from .operators import DenseOperator, IdentityOperator, PatchwiseOperator, SeparableOperator, SpectralOperator
    from .priors import DDPMPrior, GaussianPrior, LocalVariancePrior, PriorError, load_prior, save_prior
else:  # what is not listed above is unknown to a type checker
    __getattr__, __dir__ = attach(__name__, _HOME)
