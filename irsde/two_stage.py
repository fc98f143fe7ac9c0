"""Two stages in one network: the mean of what an HQ image can be, then a process that starts from it and draws one.

The mean is what has the highest PSNR, and is smoother than any HQ image; a sample has the texture of one, and up to 3 dB
less. Between the two, `mean + fidelity (sample - mean)` is the best trade there is (Freirich et al. 2021).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

MEMORY = 0.99  # of the running mean square of HQ - mean, per step


class TwoStage(nn.Module):
    """A supervised network `mean`, and a predictor `stage` of a process that starts from what it gives.

    The mean is trained with the squared error, which the posterior mean makes least; the second stage takes it as it is, and
    sends no gradient into it. A `frozen` mean is not trained at all.

    Attributes
    ----------
    mean : nn.Module
        LQ -> mean.
    stage : nn.Module
        (x(t), mean, t) -> prediction, with a buffer `difference_rms`.
    """

    def __init__(self, mean: nn.Module, stage: nn.Module, process: Any, frozen: bool = False) -> None:
        super().__init__()
        self.mean, self.stage, self.process, self.frozen = mean, stage, process, frozen
        if frozen:
            self.mean.requires_grad_(False)

    def forward(self, hq: Tensor, lq: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean, what the second stage starts from, its x(t) and what it predicts there."""
        mean = self.mean(lq)
        start = mean.detach().to(hq.dtype)
        if self.training:
            with torch.no_grad():
                squares = ((hq - start) ** 2).mean()
                rms = self.stage.difference_rms
                rms.copy_(torch.sqrt(MEMORY * rms**2 + (1 - MEMORY) * squares))  # type: ignore[operator, union-attr]
        x = self.process.perturb(hq, start, t, noise)
        return mean, start, x, self.stage(x, start, t)


def two_stage_loss(
    network: nn.Module, process: Any, kind: str, hq: Tensor, lq: Tensor, t: Tensor, noise: Tensor
) -> Tensor:
    """Return the squared error of the mean plus the loss of the second stage."""
    mean, start, x, predicted = network(hq, lq, t, noise)
    loss = process.loss(kind, predicted, x, hq, start, noise, t)
    return loss + ((mean - hq) ** 2).mean() if mean.requires_grad else loss


def one_stage_loss(
    network: nn.Module, process: Any, kind: str, hq: Tensor, lq: Tensor, t: Tensor, noise: Tensor
) -> Tensor:
    """Return the loss of a process that starts from the LQ image."""
    x = process.perturb(hq, lq, t, noise)
    return process.loss(kind, network(x, lq, t), x, hq, lq, noise, t)
