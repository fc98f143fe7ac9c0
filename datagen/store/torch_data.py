"""Pairs for a torch `DataLoader`: batches read whole shards, and shuffling keeps to a few shards at a time.

    dataset = datagen.open_pairs("pairs.zarr", probe="L11-5v").fold(0, complement=True).torch()
    batches = dataset.batches(16, seed=0, n_workers=2)
    loader = DataLoader(dataset, batch_sampler=batches, num_workers=2, multiprocessing_context="spawn")
    for hq, lq in loader:  # each pass in another order; under torch.distributed each process has a part of its own

For training loops of one's own: `irsde` draws its batches itself. Nothing else in the package imports torch but the
segmenter SAM 2, while it runs (`plan.segment`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import islice, zip_longest
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from .layout import lq_key

DTYPES = ("float32", "uint8")


class Sharded(Protocol):
    """Pairs that lie in shards, as `datagen.open_pairs` returns them."""

    items: np.ndarray  # (len, 2): index of the sample in the store, index of the probe in `probes`
    drawn: np.ndarray  # (len,): which draw of its scatterers a pair's LQ image is
    probes: tuple[str, ...]

    @property
    def samples_per_shard(self) -> int:
        """How many consecutive samples of the store lie in one file."""

    def read_shard(self, key: str, shard: int) -> np.ndarray:
        """Read all images of an array in one shard, (k, H, W)."""

    def __len__(self) -> int: ...


class Batched(Dataset):
    """Pairs as tensors, in batches that keep to few shards.

    Attributes
    ----------
    pairs : Sharded or Streamed
        Where the images come from.
    dtype : str
        "float32" or "uint8".
    """

    def __init__(self, pairs: Any, dtype: str) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
        self.pairs = pairs
        self.dtype = dtype

    def __len__(self) -> int:
        return len(self.pairs)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        mixed: int = 8,
        n_workers: int = 1,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> ShardBatches:
        """Return a batch sampler whose batches come from few shards; `n_workers` as of the DataLoader.

        See `ShardBatches`.
        """
        return ShardBatches(
            self, batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last, mixed=mixed, n_workers=n_workers,
            rank=rank, world_size=world_size,
        )  # fmt: skip

    def _as_tensor(self, image: np.ndarray) -> torch.Tensor:
        """(1, H, W) of an (H, W) uint8 image, its own memory."""
        tensor = torch.from_numpy(image[None])
        return tensor.clone() if self.dtype == "uint8" else tensor.float().div_(255)


class TorchPairs(Batched):
    """(hq, lq) of each pair as tensors (1, H, W): float32 in [0, 1], or uint8 to be scaled on the device.

    Each worker opens the store for itself and keeps the shards it read last.

    Parameters
    ----------
    dtype : "float32" or "uint8".
    cache_bytes : of decoded shards that a worker keeps.
    """

    def __init__(self, pairs: Sharded, *, dtype: str = "float32", cache_bytes: int = 64 << 20) -> None:
        super().__init__(pairs, dtype)
        self.cache_bytes = cache_bytes
        self._cache: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.__getitems__([int(index)])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return what a DataLoader asks for: a batch at once, so that each shard is looked at once."""
        return [
            (self._tensor("hq", sample), self._tensor(self._lq[probe], sample, draw))
            for sample, probe, draw in self._at(indices)
        ]

    @property
    def _lq(self) -> list[str]:
        return [lq_key(name) for name in self.pairs.probes]

    def _at(self, indices: Sequence[int]) -> list[tuple[int, int, int]]:
        chosen = np.asarray(indices, dtype=np.int64)
        places = zip(self.pairs.items[chosen], self.pairs.drawn[chosen], strict=True)
        return [(int(sample), int(probe), int(draw)) for (sample, probe), draw in places]

    def _tensor(self, key: str, sample: int, draw: int = 0) -> torch.Tensor:
        shard, offset = divmod(sample, self.pairs.samples_per_shard)
        stored = self._shard(key, shard)[offset]
        return self._as_tensor(stored[draw] if stored.ndim == 3 else stored)

    def _shard(self, key: str, shard: int) -> np.ndarray:
        """Return a decoded shard, of the cache or read."""
        images = self._cache.get((key, shard))
        if images is None:
            images = self.pairs.read_shard(key, shard)
            self._cache[key, shard] = images
            while len(self._cache) > 2 and sum(kept.nbytes for kept in self._cache.values()) > self.cache_bytes:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end((key, shard))
        return images

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": OrderedDict()}


class Streamed(Protocol):
    """Pairs that are made when they are read, as `datagen.make.stream` has them."""

    items: np.ndarray
    probes: tuple[str, ...]
    samples_per_shard: int

    @property
    def recipe_digest(self) -> str:
        """Digest of the recipe and of every sample's identity."""

    def read(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Hq and lq of several pairs, each (k, H, W) uint8, in the order given."""

    def fold(self, k: int, *, complement: bool = False) -> Streamed:
        """Return the pairs of a fold, or all others."""

    def every_draw(self) -> Streamed:
        """Return a pair for each draw of each pair."""

    def __len__(self) -> int: ...


class TorchStream(Batched):
    """(hq, lq) of pairs that are made when they are asked for, as tensors (1, H, W): see `datagen.stream`.

    Parameters
    ----------
    pairs : that are made when they are read.
    dtype : "float32" in [0, 1], or "uint8" to be scaled on the device.
    """

    def __init__(self, pairs: Streamed, *, dtype: str = "float32") -> None:
        super().__init__(pairs, dtype)
        self._shares_cores = False

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        position = int(index)
        if not -len(self) <= position < len(self):
            raise IndexError(f"pair {position} of {len(self)}")
        return self.__getitems__([position])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return what a DataLoader asks for: a batch at once, so that a card simulates all of it together."""
        self._share_cores()
        hq, lq = self.pairs.read(indices)
        return [(self._as_tensor(one), self._as_tensor(other)) for one, other in zip(hq, lq, strict=True)]

    def fold(self, k: int, *, complement: bool = False) -> TorchStream:
        """Return the pairs of the subjects in fold `k`; with `complement`, all others (to train on)."""
        return TorchStream(self.pairs.fold(k, complement=complement), dtype=self.dtype)

    def every_draw(self) -> TorchStream:
        """Return a pair for each draw of each pair's scatterers: the same HQ image, another LQ image."""
        return TorchStream(self.pairs.every_draw(), dtype=self.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it: which pairs these are. Where a pass stands is the sampler's to say."""
        return {"recipe_digest": self.pairs.recipe_digest, "n_pairs": len(self)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Check that these are the pairs of a checkpoint; raises ValueError where they are others."""
        if state != self.state_dict():
            raise ValueError(
                f"state: expected one of these pairs, {self.state_dict()}, got {state}: the recipe or its files changed"
            )

    def _share_cores(self) -> None:
        """In a worker of a DataLoader leave the others their share of the cores."""
        worker = torch.utils.data.get_worker_info()
        if worker is not None and not self._shares_cores:
            from ussim.engines.cpu.threads import share_threads

            share_threads(worker.num_workers)
            self._shares_cores = True


class ShardBatches(Sampler[list[int]]):
    """Batches of indices: shards in random order, `mixed` of them poured together and shuffled.

    Every pair comes once an epoch, and each pass has another order, which follows from seed, epoch and workers. A batch is
    cut from one pool, so a worker reads `mixed` shards for many batches, not one shard for each pair.

    Several processes (`rank` of `world_size`; from `torch.distributed` where neither is given) have parts of each epoch of
    their own, cut between shards but for one at each cut, all with the same number of batches: where the pairs do not
    divide, a part is filled up with one pair of its own, or with `drop_last` shortened. What shares batches out itself must
    be given all of them: `world_size=1` for Accelerate's `prepare`; Lightning is told `use_distributed_sampler=False`.

    To go on where a run stopped: `set_epoch(epoch, n_batches_done)`, or `load_state_dict` of the `state_dict` that the
    checkpoint kept. torchdata's StatefulDataLoader does so by itself.
    """

    def __init__(
        self,
        dataset: Batched,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        mixed: int = 8,
        n_workers: int = 1,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if min(batch_size, mixed) < 1:
            raise ValueError(f"batch_size, mixed: expected at least 1, got {batch_size}, {mixed}")
        if rank is None and world_size == 1:
            rank = 0
        if (rank is None) != (world_size is None) or not 0 <= (rank or 0) < (world_size or 1):
            raise ValueError(f"rank, world_size: expected both, 0 <= rank < world_size, got {rank}, {world_size}")
        self._place = None if rank is None or world_size is None else (rank, world_size)
        self.batch_size, self.shuffle, self.seed, self.drop_last, self.mixed = (
            batch_size,
            shuffle,
            seed,
            drop_last,
            mixed,
        )
        self.n_workers = max(1, n_workers)
        self.epoch, self.first_batch = 0, 0
        self._begun: Pass | None = None
        shards = dataset.pairs.items[:, 0] // dataset.pairs.samples_per_shard
        order = np.argsort(shards, kind="stable")
        self._shards = np.split(order, np.flatnonzero(np.diff(shards[order])) + 1) if len(order) else []

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the pass over the data that comes next, and which of its batches it begins with."""
        self.epoch, self.first_batch = epoch, first_batch

    @property
    def place(self) -> tuple[int, int]:
        """Rank of this process, and how many there are."""
        if self._place is not None:
            return self._place
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1

    def __len__(self) -> int:
        n_pairs, (_, world_size) = sum(len(shard) for shard in self._shards), self.place
        part = n_pairs // world_size if self.drop_last else -(-n_pairs // world_size)
        total = part // self.batch_size if self.drop_last else -(-part // self.batch_size)
        return max(total - self.first_batch, 0)

    def __iter__(self) -> Pass:
        begun = Pass(self, self.epoch, self.first_batch)
        self.set_epoch(self.epoch + 1)  # whoever sets none has another order in the next pass
        self._begun = begun
        return begun

    def state_dict(self, n_batches_done: int | None = None) -> dict[str, Any]:
        """Return the pass under way, and how many of its batches are done.

        Parameters
        ----------
        n_batches_done : of this pass, by the training's own count; None = those handed out. A DataLoader with workers draws
            some ahead of the training: give the count there.
        """
        state = self._begun.state_dict() if self._begun is not None else self._state(self.epoch, self.first_batch)
        return state if n_batches_done is None else state | {"first_batch": n_batches_done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next pass be the one of the state, from the batch on that was next.

        Raises
        ------
        ValueError
            The state is of batches drawn by other options, which are not the same batches.
        """
        self._begun = None
        self.set_epoch(*self._place_in(state))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_begun": None}

    def _state(self, epoch: int, first_batch: int) -> dict[str, Any]:
        return {"epoch": epoch, "first_batch": first_batch, "drawn_by": self._drawn_by}

    def _place_in(self, state: dict[str, Any]) -> tuple[int, int]:
        """Return (epoch, first batch) of a state."""
        if state.get("drawn_by") != self._drawn_by:
            raise ValueError(f"state: expected batches drawn by {self._drawn_by}, got {state.get('drawn_by')}")
        return int(state["epoch"]), int(state["first_batch"])

    @property
    def _drawn_by(self) -> dict[str, Any]:
        """What the batches of a pass follow from."""
        options = ("batch_size", "shuffle", "seed", "drop_last", "mixed", "n_workers")
        rank, world_size = self.place
        n_pairs = sum(len(shard) for shard in self._shards)
        chosen = {name: getattr(self, name) for name in options}
        return chosen | {"rank": rank, "world_size": world_size, "n_pairs": n_pairs}

    def _part(self, shards: list[np.ndarray]) -> list[np.ndarray]:
        """Return what this process reads of an epoch's shards; as many pairs as every other."""
        rank, world_size = self.place
        if world_size == 1 or not shards:
            return shards
        pairs = np.concatenate(shards)
        shard = np.repeat(np.arange(len(shards)), [len(each) for each in shards])
        begin, end = (len(pairs) * k // world_size for k in (rank, rank + 1))
        if self.drop_last:
            end = begin + len(pairs) // world_size
        part = np.arange(begin, end)
        if not self.drop_last and len(part) < -(-len(pairs) // world_size):
            part = np.append(part, begin - (begin == len(pairs)) if not len(part) else part[-1])
        cuts = np.flatnonzero(np.diff(shard[part])) + 1
        return [piece for piece in np.split(pairs[part], cuts) if len(piece)]

    def _epoch(self, epoch: int) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, epoch])
        shards = [self._shards[i] for i in rng.permutation(len(self._shards))] if self.shuffle else self._shards
        shards = self._part(shards)
        pools = [np.concatenate(shards[first : first + self.mixed]) for first in range(0, len(shards), self.mixed)]
        if self.shuffle:
            pools = [rng.permutation(pool) for pool in pools]
        rest: list[int] = []
        # A DataLoader gives batch i to worker i mod n: each worker gets pools of its own, and no shard is read by two.
        for first in range(0, len(pools), self.n_workers):
            streams = []
            for pool in pools[first : first + self.n_workers]:
                whole = len(pool) // self.batch_size * self.batch_size
                streams.append(pool[:whole].reshape(-1, self.batch_size).tolist())
                rest += pool[whole:].tolist()
            for turn in zip_longest(*streams):
                yield from (batch for batch in turn if batch is not None)
        for begin in range(0, len(rest), self.batch_size):
            batch = rest[begin : begin + self.batch_size]
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch


class Pass(Iterator[list[int]]):
    """One pass over the batches; it knows how far it is."""

    def __init__(self, batches: ShardBatches, epoch: int, first_batch: int) -> None:
        self._batches = batches
        self._go_to(epoch, first_batch)

    def __next__(self) -> list[int]:
        batch = next(self._left)
        self._done += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Return which pass it is, and how many of its batches were handed out."""
        return self._batches._state(self._epoch, self._done)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where another pass was."""
        self._go_to(*self._batches._place_in(state))
        self._batches.set_epoch(self._epoch + 1)

    def _go_to(self, epoch: int, done: int) -> None:
        self._epoch, self._done = epoch, done
        self._left = islice(self._batches._epoch(epoch), done, None)
