"""Intervals that hold the HQ grey level of a pixel as often as they say: from samples, corrected on a calibration subject.

    evaluation.coverage.fit_intervals(models, subsets) ─► Intervals ─► intervals.bounds(mean, variance)

Split conformal prediction (Vovk et al. 2005; Romano et al. 2019): where calibration and test pixels are exchangeable, the
share below the interval and the share above it are each (1 - level) / 2, whatever the model. Pixels of another *subject* are
not quite that: `irsde evaluate --interval` tells what the coverage was of each.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsde.data import DataError
from irsde.network import Model
from irsde.run_folder import INTERVALS
from irsde.sample import Sampling
from ussim.io.atomic import replacing

FILE = INTERVALS  # in a run folder
FORMAT = 1
N_BINS = 6  # of the mean's grey level, each with a correction of its own
LEAST = 200  # pixels of a bin, below which it joins its neighbor
FEWEST_GROUPS = 4  # subjects, or images, of which each is left out in turn
MOST_GROUPS = 12  # times that the numbers are fitted at one level
GROUP_PIXELS = 20_000  # of a group, in that
HALVINGS = 6  # of the range of levels
HIGHEST_LEVEL = 0.995
HALF = 0.5 / 255  # of the grey levels that an HQ image has: as little is no miss


@dataclass(frozen=True)
class Intervals:
    """Widths of intervals: factors of the samples' standard deviation, by the grey level of their mean.

    Attributes
    ----------
    level : float
        Share of pixels that the intervals hold.
    edges : tuple of float
        n - 1 grey levels between n bins of the mean.
    below, above : tuple of float
        For each bin, how many scales the interval reaches below and above the mean. The scale is
        sqrt(variance + floor²).
    floor : float
        Of the scale, grey levels in [0, 1]; all of it where there is one member and no variance.
    n_samples, steps, sampler, fidelity
        How the samples were drawn; they have to be so again.
    subjects : tuple of str
        Whom it was calibrated on.
    n_pixels : int
        How many pixels of them.
    models : tuple of str
        The runs whose samples these are.
    """

    level: float
    edges: tuple[float, ...]
    below: tuple[float, ...]
    above: tuple[float, ...]
    floor: float
    n_samples: int
    steps: int | None = None
    sampler: str | None = None
    fidelity: float = 1.0
    subjects: tuple[str, ...] = ()
    n_pixels: int = 0
    models: tuple[str, ...] = ()

    def bounds(self, mean: NDArray, variance: NDArray | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Lower and upper bound of each pixel, grey levels in [0, 1], of the shape of `mean`."""
        below, above = reach(asdict(self), mean, 0 if variance is None else variance)
        lower, upper = mean - below, mean + above
        return tuple(np.clip(bound, 0, 1).astype(np.float32) for bound in (lower, upper))  # type: ignore[return-value]

    def sampling(self, tile: int = 512) -> Sampling:
        """How members are to be drawn."""
        return Sampling(self.steps, self.sampler, tile=tile, overlap=min(64, tile // 4), fidelity=self.fidelity)

    def check_models(self, models: Sequence[Model]) -> list[Model]:
        """Return the models; raises DataError where they are not those that the intervals were calibrated with."""
        names = tuple(model.name for model in models)
        if names != self.models:
            raise DataError(
                f"intervals of the runs {', '.join(self.models)}, got {', '.join(names)}: use those runs, or calibrate anew "
                "(irsde calibrate-intervals)"
            )
        return list(models)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1), encoding="utf-8")


def load_intervals(path: str | Path) -> Intervals:
    """Return the intervals of a JSON file, or of a run folder that holds one.

    Raises
    ------
    DataError
        There is none, or it cannot be read.
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            raise ValueError("another format")
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        made = Intervals(**fields)
        numbers = np.array([*made.edges, *made.below, *made.above, made.level, made.floor], np.float64)
        if not (np.isfinite(numbers).all() and len(made.below) == len(made.above) == len(made.edges) + 1):
            raise ValueError("bins and numbers do not fit")
        return made
    except FileNotFoundError as error:
        raise DataError(f"{path}: no intervals here; make them with `irsde calibrate-intervals`") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not what `irsde calibrate-intervals` writes ({error})") from error


def reach(numbers: dict[str, Any], mean: NDArray, variance: NDArray | int) -> tuple[NDArray, NDArray]:
    """Return how far the interval of each pixel reaches below and above its mean, by the numbers of `fit`."""
    scale = np.sqrt(variance + np.float64(numbers["floor"]) ** 2)
    place = np.searchsorted(numbers["edges"], mean)
    return np.asarray(numbers["below"])[place] * scale, np.asarray(numbers["above"])[place] * scale


def corrected_quantile(scores: NDArray, share: float, weights: NDArray | None = None) -> float:
    """Return the score that a new one exceeds with probability of at most 1 - `share`, if it is exchangeable with these.

    The ceil((n + 1) share)-th smallest of n; with `weights`, of the same count, their quantile instead of ranks.
    """
    order = np.argsort(scores, kind="stable")
    if weights is None:
        rank = math.ceil((len(scores) + 1) * share)
        return float(scores[order[min(rank, len(scores)) - 1]])
    share = min(1.0, share * (1 + 1 / len(scores)))
    summed = np.cumsum(weights[order])
    return float(scores[order[min(np.searchsorted(summed, share * summed[-1]), len(scores) - 1)]])


def fit(
    errors: NDArray, mean: NDArray, variance: NDArray, level: float, weights: NDArray | None = None
) -> dict[str, Any]:
    """Return the numbers of `Intervals` for pixels with these errors (HQ - mean); one-dimensional, of one length."""
    floor = max(0.5 * float(np.sqrt(np.median(variance))), 1 / 255)
    if variance.max() == 0:
        floor = max(float(np.sqrt(np.mean(errors**2))), 1 / 255)
    scores = errors / np.sqrt(variance + floor**2)
    edges = np.unique(np.quantile(mean, np.linspace(0, 1, N_BINS + 1)[1:-1]))
    if len(mean) < LEAST * N_BINS:
        edges = edges[:0]
    place = np.searchsorted(edges, mean)
    share = (1 + level) / 2
    below, above = [], []
    for k in range(len(edges) + 1):
        own = place == k if (place == k).sum() >= LEAST else np.full(len(mean), True)
        weight = None if weights is None else weights[own]
        below.append(corrected_quantile(-scores[own], share, weight))
        above.append(corrected_quantile(scores[own], share, weight))
    return {
        "level": level,
        "edges": tuple(map(float, edges)),
        "below": tuple(below),
        "above": tuple(above),
        "floor": floor,
    }


def level_of_groups(
    errors: NDArray, mean: NDArray, variance: NDArray, level: float, groups: NDArray, seed: int = 0
) -> float:
    """Return the level to fit at, so that pixels of a group left out are held as often as `level` says; at least that.

    Pixels of one subject (or image) resemble each other, and a new one's are not among them: quantiles over pixels take
    many pixels of few groups for many draws. Each group is left out in turn (leave-one-out cross-conformal calibration;
    Vovk 2015), and the level is widened until the mean over them is right. Of fewer than `FEWEST_GROUPS` it is as it was.
    """
    names = np.unique(groups)
    if len(names) < FEWEST_GROUPS:
        return level
    rng = np.random.default_rng(seed)
    folds = np.searchsorted(names, groups) % MOST_GROUPS
    kept = np.concatenate(
        [
            rng.choice(own, min(GROUP_PIXELS, len(own)), replace=False)
            for own in (np.flatnonzero(groups == name) for name in names)
        ]
    )
    errors, mean, variance, folds, groups = (part[kept] for part in (errors, mean, variance, folds, groups))
    _, index, count = np.unique(groups, return_inverse=True, return_counts=True)
    weights = (1 / count)[index]

    def held(wanted: float) -> float:
        inside = np.zeros(len(errors), bool)
        for fold in np.unique(folds):
            out = folds == fold
            numbers = fit(errors[~out], mean[~out], variance[~out], wanted, weights[~out])
            below, above = reach(numbers, mean[out], variance[out])
            inside[out] = (errors[out] >= -below - HALF) & (errors[out] <= above + HALF)
        return float(np.average(inside, weights=weights))

    low, high = level, max(level, HIGHEST_LEVEL)
    if held(low) >= level:
        return level
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if held(middle) >= level else (middle, high)
    return high
