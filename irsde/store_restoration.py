"""The LQ images of a pairs store, restored and written a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from irsde.network import Model
from irsde.sample import DEFAULT, Sampling, restore_members
from irsde.stacks import image_seed, write_image


def restore_store(
    members: Sequence[Model],
    names: Sequence[str],
    images: Iterable[tuple[np.ndarray, np.ndarray]],
    output: Path,
    seed: int,
    sampling: Sampling = DEFAULT,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, float]:
    """Restore images, as many together as have the pixels of one tile, and write each as it is done.

    Parameters
    ----------
    members : models; one that draws several samples comes as often.
    names : of the files in `output`, without suffix.
    images : (nz, nx) grey levels in [0, 1], all of one shape, each with its probe's field, (nz, nx) bool.
    seed : image i has noise of its own from it and i, whatever is restored together.
    advance : told how many images a member has just restored.

    Returns
    -------
    Largest standard deviation over the members of each image by its name; empty with one member.
    """
    deviations: dict[str, float] = {}
    remaining, done = iter(images), 0
    while done < len(names):
        batch = [next(remaining)]
        n_together = max(1, sampling.tile**2 // batch[0][0].size)
        batch += islice(remaining, min(n_together, len(names) - done) - 1)
        numbers = range(done, done + len(batch))
        seeds = [[image_seed(seed + k, i) for i in numbers] for k in range(len(members))]
        lq, field = (np.stack(part) for part in zip(*batch, strict=True))
        mean, variance = restore_members(members, lq, seeds, sampling, field=field, advance=advance)
        for k, i in enumerate(numbers):
            write_image(output / f"{names[i]}.png", mean[k], None if variance is None else variance[k])
            if variance is not None:
                deviations[names[i]] = float(variance[k].max()) ** 0.5
        done += len(batch)
    return deviations
