"""The input of a network, smoothed: what it starts from in place of the speckled image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
ROUNDS = 2  # of the binomial filter: a standard deviation of 1.4 pixels


def smoothed(image: Tensor) -> Tensor:
    """Return the image (n, 1, nz, nx) after `ROUNDS` of the binomial filter along both axes, its edges repeated.

    A network that adds to the plain image spends its training on canceling each pixel's speckle.
    """
    kernel = torch.tensor(BINOMIAL, dtype=image.dtype, device=image.device)
    for _ in range(ROUNDS):
        image = F.conv2d(F.pad(image, (0, 0, 2, 2), mode="replicate"), kernel.view(1, 1, 5, 1))
        image = F.conv2d(F.pad(image, (2, 2, 0, 0), mode="replicate"), kernel.view(1, 1, 1, 5))
    return image
