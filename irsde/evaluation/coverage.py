"""Calibration of intervals on subjects that no model was trained on, and how often they hold on others.

See `irsde.intervals` for the intervals themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from irsde.data import DataError, Subset
from irsde.evaluation.evaluate import check_unseen
from irsde.evaluation.results import Coverage
from irsde.intervals import FEWEST_GROUPS, HALF, Intervals, fit, level_of_groups
from irsde.network import Model
from irsde.sample import Sampling, restore_members
from irsde.stacks import image_seed


def fit_intervals(
    models: Sequence[Model],
    subsets: Sequence[Subset],
    *,
    level: float = 0.9,
    n_samples: int = 8,
    steps: int | None = None,
    sampler: str | None = None,
    fidelity: float = 1.0,
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> Intervals:
    """Calibrate the intervals of models on pairs of subjects that none was trained on.

    Parameters
    ----------
    models
        From `irsde.load`; their samples are put together. Of supervised ones the width is the same everywhere in a bin of
        grey levels.
    subsets
        Calibration pairs; every subject counts the same.
    level
        Share of pixels that the intervals are to hold, of a subject that was not calibrated on: measured on each of these
        left out in turn, where there are enough, or on each image left out.
    n_samples, steps, sampler, fidelity, seed
        How samples are drawn, per model.

    Raises
    ------
    DataError
        There are no pairs, or a model was trained on a subject of them.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a share of the pixels between 0 and 1, got {level}")
    if not any(map(len, subsets)):
        raise DataError("no pairs to calibrate on")
    for model in models:
        check_unseen(model, subsets)
    if not any(model.is_diffusion and fidelity > 0 for model in models):
        n_samples = 1  # all would be the same
    sampling = Sampling(steps, sampler, fidelity=fidelity)
    subjects = sorted({s for subset in subsets for s in subset.subjects})
    errors, means, variances, owners = [], [], [], []
    images: list[NDArray] = []
    for subset in subsets:
        for i in range(len(subset)):
            hq, lq = subset[i]
            inside = subset.mask(i)
            mean, variance = members_of(models, lq, inside, n_samples, image_seed(seed, subset.indices[i]), sampling)
            errors.append((hq - mean)[inside])
            means.append(mean[inside])
            variances.append(variance[inside])
            owners.append(np.full(len(errors[-1]), subjects.index(subset.subjects[i])))
            images.append(np.full(len(errors[-1]), len(images)))
            advance(1)
    who = np.concatenate(owners)
    _, index, count = np.unique(who, return_inverse=True, return_counts=True)
    off, middle, spread = (np.concatenate(part).astype(np.float64) for part in (errors, means, variances))
    groups = who if len(subjects) >= FEWEST_GROUPS else np.concatenate(images)
    widened = level_of_groups(off, middle, spread, level, groups, seed)
    numbers = fit(off, middle, spread, widened, (1 / count)[index]) | {"level": level}
    names = tuple(model.name for model in models)
    return Intervals(
        **numbers, n_samples=n_samples, steps=steps, sampler=sampler, fidelity=fidelity, subjects=tuple(subjects),
        n_pixels=len(who), models=names,
    )  # fmt: skip


def members_of(
    models: Sequence[Model],
    lq: NDArray[np.float32],
    field: NDArray[np.bool_],
    n_samples: int,
    seed: int,
    sampling: Sampling,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and variance, (nz, nx) each, of the samples of one LQ image of a store."""
    members = [model for model in models for _ in range(n_samples)]
    seeds = [[seed + k] for k in range(len(members))]
    mean, variance = restore_members(members, lq[None], seeds, sampling, field=field)
    return mean[0], np.zeros_like(mean[0]) if variance is None else variance[0]


def coverage(
    intervals: Intervals,
    models: Sequence[Model],
    subsets: Sequence[Subset],
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> list[Coverage]:
    """Return the coverage of each subject, and of all of them together where there are several (each counts the same)."""
    found: dict[str, list[tuple[int, float, float, float]]] = {}
    for subset in subsets:
        for i in range(len(subset)):
            hq, lq = subset[i]
            inside = subset.mask(i)
            noise_seed = image_seed(seed, subset.indices[i])
            mean, variance = members_of(models, lq, inside, intervals.n_samples, noise_seed, intervals.sampling())
            low, high = intervals.bounds(mean, variance)
            # The HQ image has 256 grey levels: half of one is no miss.
            beneath, beyond = (hq < low - HALF)[inside], (hq > high + HALF)[inside]
            values = (
                int(inside.sum()),
                float(beneath.mean()),
                float(beyond.mean()),
                float((high - low)[inside].mean()),
            )
            found.setdefault(subset.subjects[i], []).append(values)
            advance(1)
    rows = []
    for subject, images in found.items():
        pixels, below, above, width = np.array(images).T
        below, above, width = (float(np.average(part, weights=pixels)) for part in (below, above, width))
        rows.append(Coverage(subject, len(images), int(pixels.sum()), 1 - below - above, below, above, width))
    if len(rows) > 1:
        means = {
            name: float(np.mean([getattr(r, name) for r in rows])) for name in ("inside", "below", "above", "width")
        }
        rows.append(Coverage("all", sum(r.images for r in rows), sum(r.pixels for r in rows), **means))
    return rows
