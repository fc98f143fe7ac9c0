"""Restoring a cine batch by batch; what is not echo, or in color, comes back as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from irsde.echo_area import area_of
from irsde.network import Model
from irsde.sample import DEFAULT, Sampling, restore_members

from .cine import Batch, Cine, Image

MOST_TOGETHER = 16  # frames: small echo areas in large pictures


@dataclass(frozen=True, eq=False)
class Restored:
    """A batch and what became of it, (n, n_rows, n_columns) each; `where` is True of pixels that were restored."""

    batch: Batch
    mean: Image
    variance: Image | None
    where: NDArray[np.bool_]


def restore_cine(
    models: Sequence[Model],
    cine: Cine,
    n_samples: int = 1,
    seed: int = 0,
    sampling: Sampling = DEFAULT,
    advance: Callable[[int], None] = lambda count: None,
) -> Iterator[Restored]:
    """Restore frames a batch at a time: mean and, of several members, variance.

    Models and samples are members as in `irsde.sample.restore_members`; `advance` is told how many frames a member has just
    restored, of the last area. Each echo area is restored as a picture of its own, so that one view's brightness and noise
    do not decide the other's.
    """
    members = [model for model in models for _ in range(n_samples)]
    largest = max(area.shape[0] * area.shape[1] for area in cine.areas)
    for batch in cine.batches(min(MOST_TOGETHER, max(1, sampling.tile**2 // largest))):
        mean = batch.grey.copy()
        variance = np.zeros_like(mean) if len(members) > 1 else None
        where = np.zeros(mean.shape, bool)
        for number, area in enumerate(cine.areas):
            last = number == len(cine.areas) - 1
            done = advance if last else (lambda count: None)
            box = (slice(None), *area.box)
            masks = np.broadcast_to(area.mask[area.box], batch.grey[box].shape)
            if batch.colored is not None:
                masks = masks & ~batch.colored[box]
            usable = [k for k, mask in enumerate(masks) if mask.any() and min(area_of(mask).shape) > 1]
            places = range(batch.first, batch.first + len(batch))
            if len(usable) < len(batch) and last:
                advance((len(batch) - len(usable)) * len(members))
            if not usable:
                continue
            seeds = [
                [own for k, own in enumerate(cine.seeds(seed + m, places, number)) if k in usable]
                for m in range(len(members))
            ]
            result, spread = restore_members(
                members, batch.grey[box][usable], seeds, sampling, masks[usable], advance=done
            )
            own = masks[usable]
            where[box][usable] |= own
            mean[box][usable] = np.where(own, result, mean[box][usable])
            if variance is not None and spread is not None:
                variance[box][usable] = np.where(own, spread, 0)
        yield Restored(batch, mean, variance, where)
