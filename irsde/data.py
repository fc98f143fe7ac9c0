"""From a pairs store to what the network sees: splits by subject, normalisation and its inverse, training batches.

A pairs object, as `datagen.open_pairs` returns it for one probe, has `len`, `[i]` giving (hq, lq) float32 (nz, nx) in
[0, 1], `samples`, one dictionary a pair with `subject` and `fold`, `probes`, and `mask(i)`, True inside the probe's field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

FLOOR = 1e-6  # of the [0, 1] range: what the standard deviation of a constant image is taken for


class DataError(ValueError):
    """Pairs or files that cannot be used: which, why, what to do."""

    exit_code = 3


# --- pairs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Subset:
    """Some pairs of one probe, in order."""

    pairs: Any
    probe: str
    indices: tuple[int, ...]
    subjects: tuple[str, ...]  # whose each pair is, as "source/subject"

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self.pairs[self.indices[i]]

    def mask(self, i: int) -> NDArray[np.bool_]:
        """(nz, nx), the pixels inside the probe's field."""
        return self.pairs.mask(self.indices[i])

    def select(self, places: Sequence[int] | NDArray) -> Subset:
        """The pairs at these places of this subset."""
        return Subset(
            self.pairs, self.probe, tuple(self.indices[k] for k in places), tuple(self.subjects[k] for k in places)
        )


def whole(pairs: Any) -> Subset:
    """All pairs of one probe."""
    if len(pairs.probes) != 1:
        raise DataError(f"expected the pairs of one probe, got those of {', '.join(pairs.probes)}")
    subjects = tuple(f"{row.get('source', '')}/{row['subject']}" for row in pairs.samples)
    return Subset(pairs, pairs.probes[0], tuple(range(len(pairs))), subjects)


def split(pairs: Any, fold: int | None) -> tuple[Subset, Subset]:
    """(training pairs, held-out pairs) of one probe: the subjects of `fold` are held out; with None nobody is.

    Raises DataError if the fold does not exist, or if a subject lies in two folds, which would leak it into training.
    """
    everything = whole(pairs)
    folds = [int(row["fold"]) for row in pairs.samples]
    home: dict[str, int] = {}
    for subject, k in zip(everything.subjects, folds, strict=True):
        if home.setdefault(subject, k) != k:
            raise DataError(f"subject {subject} is in folds {home[subject]} and {k}: build the store anew, by subject")
    if fold is None:
        return everything, everything.select([])
    if fold not in folds:
        raise DataError(f"fold {fold}: expected one of {sorted(set(folds))}")
    if set(folds) == {fold}:
        raise DataError(f"fold {fold} holds every pair, nothing is left to train on: build with more subjects")
    held_out = np.array(folds) == fold
    return everything.select(np.flatnonzero(~held_out)), everything.select(np.flatnonzero(held_out))


def open_store(store: str, probes: Sequence[str] = ()) -> list[Any]:
    """The pairs of each probe of a store; () = every probe it has."""
    import datagen

    names = datagen.open_pairs(store, probe=list(probes) or None).probes
    return [datagen.open_pairs(store, probe=name) for name in names]


# --- normalisation ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Normalization:
    """How grey levels in [0, 1] become network units and back; statistics are those of whole images, never of a patch.

    "shared" (default): (v - mean(LQ)) / std(LQ) for both images; exactly invertible at test time. "own": each image by its
    own mean and std, as the despeckling paper does; the way back must guess the HQ image's: `inverse` takes the LQ's
    ("lq"), the average over the training pairs ("train_mean"), stretches the result's 1 to 99 % range over [0, 1]
    ("minmax"), or is told ("oracle", an upper bound that leaks the answer). "none": as they are.
    """

    kind: str = "shared"
    inverse: str = "lq"
    hq_mean: float = 0.5  # the rest is measured on training pairs, see `measure`
    hq_std: float = 0.25
    low: float = -4.0  # range of normalised HQ images; used where the range cannot be derived
    high: float = 4.0
    difference_rms: float = 1.0  # of normalised HQ - LQ

    def pair(self, hq: NDArray, lq: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Both images of a training pair in network units."""
        if self.kind == "own":
            return _standardize(hq, *statistics(hq)), _standardize(lq, *statistics(lq))
        mean, std = self._of(lq)
        return _standardize(hq, mean, std), _standardize(lq, mean, std)

    def input(self, lq: NDArray) -> NDArray[np.float32]:
        """The LQ image in network units."""
        return _standardize(lq, *self._of(lq))

    def output(self, z: NDArray, lq: NDArray, hq: NDArray | None = None) -> NDArray[np.float32]:
        """A result in network units back to grey levels in [0, 1]. `hq` is read by the "oracle" inverse only."""
        if self.kind == "own" and self.inverse == "minmax":
            low, high = np.percentile(z, (1, 99))
            grey = (z - low) / max(high - low, FLOOR)
        else:
            mean, std = self._of(lq)
            if self.kind == "own" and self.inverse == "train_mean":
                mean, std = self.hq_mean, self.hq_std
            if self.kind == "own" and self.inverse == "oracle":
                if hq is None:
                    raise ValueError("the oracle inverse needs the HQ image: it is an upper bound, not a method")
                mean, std = statistics(hq)
            grey = z * std + mean
        return np.clip(grey, 0, 1).astype(np.float32)

    def bounds(self, lq: NDArray) -> tuple[float, float]:
        """Lowest and highest value that a normalised HQ image can take: what predictions are clamped to."""
        if self.kind == "own":
            return self.low, self.high
        mean, std = self._of(lq)
        return -mean / std, (1 - mean) / std

    def _of(self, lq: NDArray) -> tuple[float, float]:
        return (0.0, 1.0) if self.kind == "none" else statistics(lq)


def statistics(image: NDArray) -> tuple[float, float]:
    """Mean and standard deviation, the latter at least FLOOR."""
    return float(np.mean(image, dtype=np.float64)), max(float(np.std(image, dtype=np.float64)), FLOOR)


def measure(kind: str, inverse: str, subsets: Sequence[Subset], limit: int = 256) -> Normalization:
    """The normalisation with its numbers measured on up to `limit` training pairs, evenly spread."""
    everywhere = [(subset, i) for subset in subsets for i in range(len(subset))]
    if not everywhere:
        raise DataError("no pairs to train on")
    plain = Normalization(kind, inverse)
    means, stds, squares, lows, highs = [], [], [], [], []
    for k in np.unique(np.linspace(0, len(everywhere) - 1, min(limit, len(everywhere))).astype(int)):
        subset, i = everywhere[k]
        hq, lq = subset[i]
        z_hq, z_lq = plain.pair(hq, lq)
        mean, std = statistics(hq)
        means.append(mean)
        stds.append(std)
        squares.append(np.mean((z_hq - z_lq) ** 2, dtype=np.float64))
        lows.append(z_hq.min())
        highs.append(z_hq.max())
    return Normalization(
        kind, inverse, float(np.mean(means)), float(np.mean(stds)), float(min(lows)), float(max(highs)),
        max(float(np.sqrt(np.median(squares))), FLOOR),
    )  # fmt: skip


def _standardize(image: NDArray, mean: float, std: float) -> NDArray[np.float32]:
    return ((np.asarray(image, np.float64) - mean) / std).astype(np.float32)


# --- training batches ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Augmentation:
    """Random patch of `patch_size`, and which symmetries are drawn."""

    patch_size: int
    flip_lateral: bool = True
    flip_axial: bool = False
    rotate: bool = False

    def __call__(self, hq: NDArray, lq: NDArray, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
        size = self.patch_size
        if min(hq.shape) < size:
            raise DataError(f"patch size {size} is larger than the images {hq.shape}: use a smaller --patch-size")
        z, x = (int(rng.integers(0, n - size + 1)) for n in hq.shape)
        hq, lq = hq[z : z + size, x : x + size], lq[z : z + size, x : x + size]
        lateral, axial, turns = rng.random() < 0.5, rng.random() < 0.5, int(rng.integers(4))
        if self.flip_lateral and lateral:
            hq, lq = hq[:, ::-1], lq[:, ::-1]
        if self.flip_axial and axial:
            hq, lq = hq[::-1], lq[::-1]
        if self.rotate:
            hq, lq = np.rot90(hq, turns), np.rot90(lq, turns)
        return hq, lq


class TrainingBatches(torch.utils.data.Dataset):
    """Item k is batch k of a run: its pairs, patches and flips depend on the seed and k alone, so a run can resume anywhere.

    Pairs are visited in a new random order each pass over all probes. Items are (hq, lq), each (batch, 1, n, n) float32.
    """

    def __init__(
        self,
        subsets: Sequence[Subset],
        normalization: Normalization,
        augmentation: Augmentation,
        batch_size: int,
        seed: int,
    ):
        self.subsets = list(subsets)
        self.normalization, self.augmentation = normalization, augmentation
        self.batch_size, self.seed = batch_size, seed
        self.ends = np.cumsum([len(subset) for subset in subsets])
        if not len(self.ends) or self.ends[-1] == 0:
            raise DataError("no pairs to train on")

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        n = int(self.ends[-1])
        batch = [self._patch(position, n) for position in range(k * self.batch_size, (k + 1) * self.batch_size)]
        hq, lq = (torch.from_numpy(np.stack(images)[:, None]) for images in zip(*batch, strict=True))
        return hq, lq

    def _patch(self, position: int, n: int) -> tuple[NDArray, NDArray]:
        turn, place = divmod(position, n)
        index = int(np.random.default_rng([self.seed, 1, turn]).permutation(n)[place])
        part = int(np.searchsorted(self.ends, index, side="right"))
        subset = self.subsets[part]
        hq, lq = subset[index - (int(self.ends[part - 1]) if part else 0)]
        z_hq, z_lq = self.normalization.pair(hq, lq)
        return self.augmentation(z_hq, z_lq, np.random.default_rng([self.seed, 2, position]))
