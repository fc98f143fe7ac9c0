"""Group normalization of an image that a network sees in tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class PooledGroupNorm(nn.GroupNorm):
    """Group normalization (Wu & He 2018) that can use statistics of a whole image while it sees a tile of it.

    Its mean and variance are those of what it is shown, so two tiles of one image are normalized differently and what
    comes out of them differs by whole grey levels. Inside `pooling`, tiles add to the statistics; afterwards, until
    `release`, those are used in place of a tile's own.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5):
        super().__init__(num_groups, num_channels, eps)
        self.gathered: Tensor | None = None  # (n, groups, 3) float64: count, mean, sum of squared deviations
        self.pooled: Tensor | None = None  # (n, groups, 2): mean and variance to use
        self.is_gathering = False

    def forward(self, x: Tensor) -> Tensor:
        """Normalize by the statistics in use."""
        if self.is_gathering:
            self._gather(x)
        if self.pooled is None:
            return super().forward(x)
        mean, variance = (part.unsqueeze(-1) for part in self.pooled.to(x).unbind(-1))
        groups = x.reshape(len(x), self.num_groups, -1)
        normal = ((groups - mean) * (variance + self.eps).rsqrt()).reshape(x.shape)
        shape = (1, -1, *(1,) * (x.ndim - 2))
        return normal * self.weight.view(shape) + self.bias.view(shape)

    def _gather(self, x: Tensor) -> None:
        groups = x.reshape(len(x), self.num_groups, -1).double()
        n = torch.full((*groups.shape[:2],), groups.shape[-1], dtype=torch.float64, device=x.device)
        variance, mean = torch.var_mean(groups, dim=-1, correction=0)
        new = torch.stack([n, mean, n * variance], dim=-1)
        self.gathered = new if self.gathered is None else _combine(self.gathered, new)

    def finish(self) -> None:
        """Make the gathered statistics those in use."""
        if self.gathered is not None:
            n, mean, squares = self.gathered.unbind(-1)
            self.pooled = torch.stack([mean, squares / n], dim=-1)
        self.gathered = None


def _combine(a: Tensor, b: Tensor) -> Tensor:
    """Statistics of two sets together, by Chan, Golub & LeVeque (1983)."""
    (n_a, mean_a, squares_a), (n_b, mean_b, squares_b) = a.unbind(-1), b.unbind(-1)
    n, away = n_a + n_b, mean_b - mean_a
    return torch.stack([n, mean_a + away * n_b / n, squares_a + squares_b + away**2 * n_a * n_b / n], dim=-1)


def replace_group_norms(network: nn.Module) -> None:
    """Put a `PooledGroupNorm` in the place of every GroupNorm of a network, with its weights."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.GroupNorm:
                pooled = PooledGroupNorm(child.num_groups, child.num_channels, child.eps)
                pooled.load_state_dict(child.state_dict())
                setattr(module, name, pooled)


def pooled_norms(network: nn.Module) -> list[PooledGroupNorm]:
    """Return the group normalizations of a network whose statistics can be pooled."""
    return [module for module in network.modules() if isinstance(module, PooledGroupNorm)]


@contextmanager
def pooling(norms: Sequence[PooledGroupNorm]) -> Iterator[None]:
    """Gather statistics of all that is shown while the context lasts; use them from then on."""
    for norm in norms:
        norm.is_gathering = True
    try:
        yield
    finally:
        for norm in norms:
            norm.is_gathering = False
            norm.finish()


def release(norms: Sequence[PooledGroupNorm]) -> None:
    """Return to the statistics of what is shown."""
    for norm in norms:
        norm.pooled = norm.gathered = None
