"""From a pairs store to what the network sees: splits by subject, normalization and its inverse, training batches.

A pairs object, as `datagen.open_pairs` returns it for one probe, has `len`, `[i]` giving (hq, lq) float32 (nz, nx) in
[0, 1], `samples`, one dictionary a pair with `subject` and `fold`, `probes`, and `mask(i)`, True inside the probe's field.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ussim.errors import DataError

FLOOR = 1e-6  # of the [0, 1] range: the smallest number that is divided by, whatever a run's own floor
GREY_LEVEL = 1 / 255  # of 8 bits, in the [0, 1] range
NAMED = 3  # pairs that a message names; it counts the others


# --- pairs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Subset:
    """Some pairs of one probe, in order."""

    pairs: Any
    probe: str
    indices: tuple[int, ...]
    subjects: tuple[str, ...]  # whose each pair is, as "source/subject"
    names: tuple[str, ...] = ()  # of each pair, for messages

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self.pairs[self.indices[i]]

    def mask(self, i: int) -> NDArray[np.bool_]:
        """(nz, nx), the pixels inside the probe's field."""
        return self.pairs.mask(self.indices[i])

    def select(self, places: Sequence[int] | NDArray) -> Subset:
        """Return the pairs at these places of this subset."""
        return Subset(
            self.pairs,
            self.probe,
            tuple(self.indices[k] for k in places),
            tuple(self.subjects[k] for k in places),
            tuple(self.names[k] for k in places) if self.names else (),
        )

    def name(self, i: int) -> str:
        """Probe and id of a pair, as a message names it."""
        return f"{self.probe} {(self.names or self.indices)[i]}"


def whole(pairs: Any) -> Subset:
    """All pairs of one probe."""
    if len(pairs.probes) != 1:
        raise DataError(f"expected the pairs of one probe, got those of {', '.join(pairs.probes)}")
    rows = pairs.samples
    subjects = tuple(f"{row.get('source', '')}/{row['subject']}" for row in rows)
    # Of several speckle draws the first goes by the image's own name.
    names = tuple(
        str(row.get("id", i)) + (f" draw {row['draw']}" if row.get("draw") else "") for i, row in enumerate(rows)
    )
    return Subset(pairs, pairs.probes[0], tuple(range(len(pairs))), subjects, names)


def split(pairs: Any, fold: int | None) -> tuple[Subset, Subset]:
    """(training pairs, held-out pairs) of one probe: the subjects of `fold` are held out; with None nobody is.

    Raises DataError if the fold does not exist, or if a subject lies in two folds, which would leak it into training.
    """
    return split_all([pairs], fold)[0]


def split_all(opened: Sequence[Any], fold: int | None) -> list[tuple[Subset, Subset]]:
    """(training pairs, held-out pairs) of several probes or stores.

    A subject that is in `fold` in one of them is held out of all: stores deal their subjects each on its own.

    Raises
    ------
    DataError
        The fold is in none of them or holds every pair, or a subject lies in two folds of one of them.
    """
    everything = [whole(pairs) for pairs in opened]
    folds = [[int(row["fold"]) for row in pairs.samples] for pairs in opened]
    for subset, own in zip(everything, folds, strict=True):
        home: dict[str, int] = {}
        for subject, k in zip(subset.subjects, own, strict=True):
            if home.setdefault(subject, k) != k:
                raise DataError(
                    f"subject {subject} is in folds {home[subject]} and {k}: build the store anew, by subject"
                )
    if fold is None:
        return [(subset, subset.select([])) for subset in everything]
    known = sorted({k for own in folds for k in own})
    if fold not in known:
        raise DataError(f"fold {fold}: expected one of {known}")
    absent = {
        subject
        for subset, own in zip(everything, folds, strict=True)
        for subject, k in zip(subset.subjects, own, strict=True)
        if k == fold
    }
    parts = []
    for subset in everything:
        held_out = np.array([subject in absent for subject in subset.subjects], dtype=bool)
        parts.append((subset.select(np.flatnonzero(~held_out)), subset.select(np.flatnonzero(held_out))))
    if not any(len(training) for training, _ in parts):
        raise DataError(f"fold {fold} holds every pair, nothing is left to train on: build with more subjects")
    return parts


def open_store(store: str, probes: Sequence[str] = ()) -> list[Any]:
    """Return the pairs of each probe of a store; () = every probe it has."""
    import datagen

    names = datagen.open_pairs(store, probe=list(probes) or None).probes
    return [datagen.open_pairs(store, probe=name) for name in names]


def open_stores(stores: Sequence[str], probes: Sequence[str] = ()) -> list[Any]:
    """Return the pairs of each probe of each store, of `probes` those that a store has; () = all.

    Raises
    ------
    DataError
        A store holds none of the probes, or one of them is in no store, or two stores hold the same images.
    """
    import datagen

    if len(stores) == 1:
        return open_store(stores[0], probes)
    opened: list[Any] = []
    found: set[str] = set()
    digests: dict[str, str] = {}
    for store in stores:
        known = {name.lower(): name for name in datagen.open_pairs(store).probes}
        wanted = [known[name.lower()] for name in probes if name.lower() in known]
        if probes and not wanted:
            raise DataError(
                f"{store}: expected one of the probes {', '.join(probes)}, it has {', '.join(known.values())}"
            )
        found |= {name.lower() for name in wanted}
        opened += open_store(store, wanted)
        digest = getattr(opened[-1], "attributes", {}).get("digest")
        if digest and digest in digests:
            raise DataError(f"{store}: holds the same images as {digests[digest]}; give each store once")
        digests[str(digest)] = store
    missing = [name for name in probes if name.lower() not in found]
    if missing:
        raise DataError(f"no probe {', '.join(missing)} in {', '.join(stores)}")
    return opened


# --- pairs that teach nothing ----------------------------------------------------------------------------------------


def without_flat(subset: Subset, floor: float, also_hq: bool = False) -> tuple[Subset, list[str]]:
    """Return the pairs whose LQ image varies by more than `floor`, and the names of the others.

    Normalization divides by the standard deviation of the LQ image: of a black one the pair would weigh as much as all
    others together. With `also_hq` the same is asked of the HQ image.

    Raises
    ------
    DataError
        A pair holds values that are no finite numbers.
    """
    if floor <= 0 or not len(subset):
        return subset, []
    kept: list[int] = []
    flat: list[int] = []
    for i, (hq, lq) in enumerate(_raw(subset)):
        if not (np.isfinite(hq).all() and np.isfinite(lq).all()):
            raise DataError(f"pair {subset.name(i)}: expected finite grey levels, got NaN or infinity")
        is_flat = any(np.std(image, dtype=np.float64) < floor for image in ((lq, hq) if also_hq else (lq,)))
        (flat if is_flat else kept).append(i)
    return (subset.select(kept), [subset.name(i) for i in flat]) if flat else (subset, [])


def _raw(subset: Subset, together: int = 64) -> Iterator[tuple[NDArray, NDArray]]:
    """Every (hq, lq) of a subset in [0, 1]; of a store, shard by shard."""
    if not hasattr(subset.pairs, "read"):
        yield from (subset[i] for i in range(len(subset)))
        return
    for first in range(0, len(subset), together):
        hq, lq = subset.pairs.read(subset.indices[first : first + together])
        yield from ((a / np.float32(255), b / np.float32(255)) for a, b in zip(hq, lq, strict=True))


def named(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def left_out_line(names: Sequence[str], floor: float) -> str:
    """Return what is said of pairs that were left out."""
    return (
        f"{len(names)} pair{'s' if len(names) > 1 else ''} left out, whose grey levels have a standard deviation below "
        f"{floor * 255:.3g} of 255: {named(names)}"
    )


# --- normalization ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Normalization:
    """Map of grey levels in [0, 1] to network units and back; statistics are those of whole images, never of a patch.

    "shared" (default): (v - mean(LQ)) / std(LQ) for both images; exactly invertible at test time. "own": each image by its
    own mean and std, as the despeckling paper does; the way back must guess the HQ image's: `inverse` takes the LQ's
    ("lq"), the average over the training pairs ("train_mean"), stretches the result's 1 to 99 % range over [0, 1]
    ("minmax"), or is told ("oracle", an upper bound that leaks the answer). "none": as they are.
    """

    kind: str = "shared"
    inverse: str = "lq"
    hq_mean: float = 0.5  # the rest is measured on training pairs, see `measure`
    hq_std: float = 0.25
    low: float = -4.0  # range of normalized HQ images; used where the range cannot be derived
    high: float = 4.0
    difference_rms: float = 1.0  # of normalized HQ - LQ
    floor: float = GREY_LEVEL  # smallest standard deviation that is divided by
    lq_std: float = field(default=1.0, compare=False)  # of LQ images; records before format 3 lack it

    @property
    def grey_unit(self) -> float:
        """What 1 of the network's units is in grey levels of [0, 1], on average."""
        return 1.0 if self.kind == "none" else self.lq_std

    def units(self, hq: NDArray, lq: NDArray) -> tuple[tuple[float, float], tuple[float, float]]:
        """Mean and standard deviation that bring HQ, and those that bring LQ, of a training pair into network units."""
        return (self._measured(hq), self._measured(lq)) if self.kind == "own" else (self._of(lq),) * 2

    def pair(self, hq: NDArray, lq: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Both images of a training pair in network units."""
        of_hq, of_lq = self.units(hq, lq)
        return _standardize(hq, *of_hq), _standardize(lq, *of_lq)

    def input(self, lq: NDArray) -> NDArray[np.float32]:
        """Return the LQ image in network units."""
        return _standardize(lq, *self._of(lq))

    def output(self, z: NDArray, lq: NDArray, hq: NDArray | None = None) -> NDArray[np.float32]:
        """Return a result in network units back to grey levels in [0, 1]. `hq` is read by the "oracle" inverse only."""
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
                mean, std = self._measured(hq)
            grey = z * std + mean
        return np.clip(grey, 0, 1).astype(np.float32)

    def bounds(self, lq: NDArray) -> tuple[float, float]:
        """Lowest and highest value that a normalized HQ image can take: what predictions are clamped to."""
        if self.kind == "own":
            return self.low, self.high
        mean, std = self._of(lq)
        return -mean / std, (1 - mean) / std

    def _of(self, lq: NDArray) -> tuple[float, float]:
        return (0.0, 1.0) if self.kind == "none" else self._measured(lq)

    def _measured(self, image: NDArray) -> tuple[float, float]:
        """Mean and standard deviation, the latter at least the floor."""
        mean, std = (float(f(image, dtype=np.float64)) for f in (np.mean, np.std))
        return mean, max(std, self.floor, FLOOR)


def measure(
    kind: str, inverse: str, subsets: Sequence[Subset], limit: int = 256, floor: float = GREY_LEVEL
) -> Normalization:
    """Return the normalization with its numbers measured on up to `limit` training pairs, evenly spread."""
    everywhere = [(subset, i) for subset in subsets for i in range(len(subset))]
    if not everywhere:
        raise DataError("no pairs to train on")
    plain = Normalization(kind, inverse, floor=floor)
    means, stds, squares, lows, highs, lq_stds = [], [], [], [], [], []
    for k in np.unique(np.linspace(0, len(everywhere) - 1, min(limit, len(everywhere))).astype(int)):
        subset, i = everywhere[k]
        hq, lq = subset[i]
        z_hq, z_lq = plain.pair(hq, lq)
        mean, std = plain._measured(hq)
        means.append(mean)
        stds.append(std)
        lq_stds.append(plain._measured(lq)[1])
        squares.append(np.mean((z_hq - z_lq) ** 2, dtype=np.float64))
        lows.append(z_hq.min())
        highs.append(z_hq.max())
    return Normalization(
        kind, inverse, float(np.mean(means)), float(np.mean(stds)), float(min(lows)), float(max(highs)),
        max(float(np.sqrt(np.median(squares))), FLOOR), floor, float(np.mean(lq_stds)),
    )  # fmt: skip


def normalization_of(record: dict[str, Any]) -> Normalization:
    """Return the normalization in a run's record; one without a floor is of a version that had none."""
    return Normalization(**({"floor": 0.0} | record["normalization"]))


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
        """Augment a pair of patches."""
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

    A share of `overlays` of the patches has a border, caption, ruler or sector pasted on HQ and LQ alike (see
    `irsde.clinic.overlays`). Pairs are visited in a new random order each pass over all probes. Items are (hq, lq), each
    (batch, 1, n, n) float32.
    """

    def __init__(
        self,
        subsets: Sequence[Subset],
        normalization: Normalization,
        augmentation: Augmentation,
        batch_size: int,
        seed: int,
        overlays: float = 0.0,
    ):
        self.subsets = list(subsets)
        self.normalization, self.augmentation = normalization, augmentation
        self.batch_size, self.seed, self.overlays = batch_size, seed, overlays
        self.ends = np.cumsum([len(subset) for subset in subsets])
        if not len(self.ends) or self.ends[-1] == 0:
            raise DataError("no pairs to train on")

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        batch = [self._patch(position) for position in range(k * self.batch_size, (k + 1) * self.batch_size)]
        hq, lq = (torch.from_numpy(np.stack(images)[:, None]) for images in zip(*batch, strict=True))
        return hq, lq

    def names(self, k: int, broken: bool = False) -> list[str]:
        """Return the pairs of batch k, as a message names them; with `broken` those that hold NaN or infinity alone."""
        places = [self._place(p) for p in range(k * self.batch_size, (k + 1) * self.batch_size)]
        if broken:
            places = [(s, i) for s, i in places if not all(np.isfinite(image).all() for image in s[i])]
        return list(dict.fromkeys(subset.name(i) for subset, i in places))

    def _place(self, position: int) -> tuple[Subset, int]:
        """Return the subset, and the place in it, of the pair that is visited at a position of the run."""
        turn, place = divmod(position, int(self.ends[-1]))
        index = int(np.random.default_rng([self.seed, 1, turn]).permutation(int(self.ends[-1]))[place])
        part = int(np.searchsorted(self.ends, index, side="right"))
        return self.subsets[part], index - (int(self.ends[part - 1]) if part else 0)

    def _patch(self, position: int) -> tuple[NDArray, NDArray]:
        subset, i = self._place(position)
        hq, lq = subset[i]
        pair = self.augmentation(*self.normalization.pair(hq, lq), np.random.default_rng([self.seed, 2, position]))
        rng = np.random.default_rng([self.seed, 4, position])
        if rng.random() >= self.overlays:
            return pair
        from irsde.clinic.overlays import draw_overlay

        overlay = draw_overlay(pair[0].shape, rng)
        of_hq, of_lq = self.normalization.units(hq, lq)
        return overlay.paste(pair[0], *of_hq), overlay.paste(pair[1], *of_lq)
