"""Pairs made when they are asked for: what `build` would store, without a store.

    recipe ─► plan ─► pair i is cut and simulated where it is asked for ─► the pairs asked for last are kept

Nothing here knows how a pair is made: `make.shards` makes it, for a build as for a stream.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ussim.errors import DataError
from ussim.extras import needs

from ..plan.formats import FORMAT, format_for
from ..plan.recipe import Recipe
from ..plan.resolved import ResolvedRecipe, array_name
from ..plan.samples import Plan, Sample, make_plan
from ..store import layout
from ..store.layout import Row, lq_key
from ..store.loader import probe_names
from .cluster import open_workers
from .progress import Watcher
from .shards import Job, Made, make_each

if TYPE_CHECKING:
    from ..store.torch_data import TorchStream

CACHE_BYTES = 256 << 20  # of finished pairs that a process keeps: 2,000 of 256 x 256 pixels


def stream(
    recipe: Recipe,
    *,
    probe: str | Sequence[str] | None = None,
    dtype: str = "float32",
    cache_bytes: int = CACHE_BYTES,
    workers: int | None = None,
    watcher: Watcher | None = None,
) -> TorchStream:
    """Return the pairs of a recipe as a torch Dataset that makes each of them when it is asked for.

    Pair i is, byte for byte, pair i of the store that `build` would write. The volumes are read once, here, to know what
    there is; a DataLoader's workers then make their own pairs, and share the cores. On a card leave `num_workers` at 0: the
    pairs of a batch are simulated together. A sample that a build would set aside is an error when it is asked for.

    Parameters
    ----------
    recipe : as for `build`.
    probe : name of a probe of the recipe, or several; None = all. With P probes there are P pairs per sample.
    dtype : "float32" in [0, 1], or "uint8" to be scaled on the device; (1, H, W) each.
    cache_bytes : of finished pairs that each process keeps, the last ones asked for.
    workers : local processes that read the volumes; None = this one.

    Returns
    -------
    TorchStream
        `len`, `[i]` -> (hq, lq), `.batches(16, seed=0)` for a DataLoader, `.fold(k)`, `.state_dict()`.

    Raises
    ------
    MissingPackageError
        PyTorch is not installed.
    DataError, RecipeError, ussim.EngineError
        The data, the recipe, or the machine will not do.
    """
    needs("torch")
    from ..store.torch_data import TorchStream

    return TorchStream(open_stream(recipe, probe, cache_bytes, workers, watcher), dtype=dtype)


def open_stream(
    recipe: Recipe,
    probe: str | Sequence[str] | None = None,
    cache_bytes: int = CACHE_BYTES,
    workers: int | None = None,
    watcher: Watcher | None = None,
) -> StreamedPairs:
    """Return the pairs of a recipe as NumPy arrays; parameters as of `stream`."""
    if cache_bytes < 0:
        raise ValueError(f"cache_bytes: expected a number of bytes from 0, got {cache_bytes!r}")
    with open_workers("cpu", None, workers, None, watcher or Watcher()) as crew:  # which read, and compute nothing
        resolved = recipe.resolve(crew.engine(recipe.engine), format_for(recipe.augmentations, FORMAT))
        plan = make_plan(resolved, crew.map)
    names = probe_names({each.name: array_name(each.name) for each in plan.recipe.probes}, probe, "recipe")
    items = np.stack(np.divmod(np.arange(len(plan.samples) * len(names)), len(names)), axis=1)
    per_shard = recipe.samples_per_shard or layout.shard_size(len(plan.samples))
    return StreamedPairs(plan, names, items, per_shard, cache_bytes)


class StreamedPairs:
    """The pairs of a plan: `len(pairs)`, `pairs.read(indices)`; picklable, a copy begins with an empty cache.

    Attributes
    ----------
    recipe : worked out; `recipe_digest` is that of the store that `build` would write.
    probes : names.
    items : (len, 2), index of the sample in the plan, index of the probe in `probes`.
    drawn : (len,), which draw of its scatterers each pair's LQ image is: the first, unless `every_draw` made it.
    samples_per_shard : consecutive samples that batches take together: they are of the same volumes.
    """

    def __init__(
        self,
        plan: Plan,
        probes: tuple[str, ...],
        items: np.ndarray,
        samples_per_shard: int,
        cache_bytes: int,
        drawn: np.ndarray | None = None,
    ) -> None:
        self.plan = plan
        self.probes = probes
        self.items = items
        self.drawn = np.zeros(len(items), np.int64) if drawn is None else drawn
        self.samples_per_shard = samples_per_shard
        self.cache_bytes = cache_bytes
        self._cache: OrderedDict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = OrderedDict()
        self._cached_bytes = 0

    @property
    def recipe(self) -> ResolvedRecipe:
        """The recipe, worked out."""
        return self.plan.recipe

    @property
    def recipe_digest(self) -> str:
        """Digest of the recipe and of every sample's identity, as the store's."""
        return self.plan.digest

    @property
    def n_folds(self) -> int:
        """Into how many folds the subjects fall."""
        return self.recipe.folds

    @property
    def samples(self) -> list[Row]:
        """What the table of samples says of each pair before it is made, and its `probe`."""
        return [self._row(sample) | {"probe": self.probes[probe]} for sample, probe in self.items]

    def __len__(self) -> int:
        return len(self.items)

    def select(self, indices: Sequence[int] | np.ndarray) -> StreamedPairs:
        """Return some of the pairs, in the order given."""
        chosen = np.asarray(indices, dtype=np.int64)
        return self._with(self.items[chosen], self.drawn[chosen])

    def every_draw(self) -> StreamedPairs:
        """Return a pair for each draw of each pair: the same HQ image, another LQ image."""
        n_draws = self.recipe.speckle_draws
        return self._with(np.repeat(self.items, n_draws, axis=0), np.tile(np.arange(n_draws), len(self)))

    def fold(self, k: int, *, complement: bool = False) -> StreamedPairs:
        """Return the pairs of the subjects in fold `k`; with `complement`, all others (to train on)."""
        if not 0 <= k < self.n_folds:
            raise ValueError(f"fold: expected 0 to {self.n_folds - 1}, got {k!r}")
        of_sample = np.array([self._row(sample)["fold"] == k for sample in range(len(self.plan.samples))])
        return self.select(np.flatnonzero(of_sample[self.items[:, 0]] != complement))

    def read(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hq and lq of several pairs, each (k, H, W) uint8, in the order given; what is not kept is made.

        Raises
        ------
        DataError
            A pair cannot be made: its volume changed, is gone, or fails each time it is tried.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        wanted = [(int(sample), int(probe)) for sample, probe in self.items[chosen]]
        found = {key: self._cache[key] for key in wanted if key in self._cache}
        for key in found:
            self._cache.move_to_end(key)
        for probe in range(len(self.probes)):
            # In the order of the plan: those of one volume come together, and it is read once.
            missing = sorted({sample for sample, each in wanted if each == probe and (sample, probe) not in found})
            for sample, made in zip(missing, make_each(self._samples(missing), self._job(probe)), strict=True):
                found[sample, probe] = self._pair(made, probe)
                self._keep((sample, probe), found[sample, probe])
        pairs = [found[key] for key in wanted]
        lq = [each[draw] if each.ndim == 3 else each for (_, each), draw in zip(pairs, self.drawn[chosen], strict=True)]
        return np.stack([hq for hq, _ in pairs]), np.stack(lq)

    def _with(self, items: np.ndarray, drawn: np.ndarray) -> StreamedPairs:
        return StreamedPairs(self.plan, self.probes, items, self.samples_per_shard, self.cache_bytes, drawn)

    def _samples(self, indices: Sequence[int]) -> list[Sample]:
        return [self.plan.samples[index] for index in indices]

    def _job(self, probe: int) -> Job:
        """Return the job of a build that has this probe alone: seeds are a probe's own, its images are the same."""
        alone = tuple(each for each in self.recipe.probes if each.name == self.probes[probe])
        return Job("", 0, (), replace(self.recipe, probes=alone), self.samples_per_shard)

    def _pair(self, made: Made, probe: int) -> tuple[np.ndarray, np.ndarray]:
        if made.row["set_aside"]:
            raise DataError(f"{made.row['id']}: cannot be made: {made.row['set_aside']}")
        return made.images["hq"], made.images[lq_key(self.probes[probe])]

    def _row(self, sample: int) -> Row:
        return self.plan.samples[sample].row(self.recipe.size, self.recipe.folds, self.recipe.tells_variants)

    def _keep(self, key: tuple[int, int], pair: tuple[np.ndarray, np.ndarray]) -> None:
        self._cache[key] = pair
        self._cached_bytes += sum(image.nbytes for image in pair)
        while self._cached_bytes > self.cache_bytes:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= sum(image.nbytes for image in dropped)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": OrderedDict(), "_cached_bytes": 0}

    def __repr__(self) -> str:
        return f"<StreamedPairs: {len(self)} of {', '.join(self.probes)}, made when asked for>"
