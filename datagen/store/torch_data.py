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


class TorchPairs(Dataset):
    """(hq, lq) of each pair as tensors (1, H, W): float32 in [0, 1], or uint8 to be scaled on the device.

    Each worker opens the store for itself and keeps the shards it read last.

    Parameters
    ----------
    dtype : "float32" or "uint8".
    cache_bytes : of decoded shards that a worker keeps.
    """

    def __init__(self, pairs: Sharded, *, dtype: str = "float32", cache_bytes: int = 64 << 20) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
        self.pairs = pairs
        self.dtype = dtype
        self.cache_bytes = cache_bytes
        self._cache: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.__getitems__([int(index)])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return what a DataLoader asks for: a batch at once, so that each shard is looked at once."""
        return [
            (self._tensor("hq", sample), self._tensor(self._lq[probe], sample, draw))
            for sample, probe, draw in self._at(indices)
        ]

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        n_workers: int = 1,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> ShardBatches:
        """Return a batch sampler whose batches come from few shards; `n_workers` as of the DataLoader.

        See `ShardBatches`.
        """
        return ShardBatches(
            self, batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last, n_workers=n_workers, rank=rank,
            world_size=world_size,
        )  # fmt: skip

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
        image = torch.from_numpy((stored[draw] if stored.ndim == 3 else stored)[None])
        return image.clone() if self.dtype == "uint8" else image.float().div_(255)

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


class ShardBatches(Sampler[list[int]]):
    """Batches of indices: shards in random order, `mixed` of them poured together and shuffled.

    Every pair comes once an epoch, and each pass has another order, which follows from seed, epoch and workers. A batch is
    cut from one pool, so a worker reads `mixed` shards for many batches, not one shard for each pair.

    Several processes (`rank` of `world_size`; from `torch.distributed` where neither is given) have parts of each epoch of
    their own, cut between shards but for one at each cut, all with the same number of batches: where the pairs do not
    divide, a part is filled up with one pair of its own, or with `drop_last` shortened. What shares batches out itself must
    be given all of them: `world_size=1` for Accelerate's `prepare`; Lightning is told `use_distributed_sampler=False`.

    To go on where a run stopped: `set_epoch(epoch, n_batches_done)`.
    """

    def __init__(
        self,
        dataset: TorchPairs,
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

    def __iter__(self) -> Iterator[list[int]]:
        epoch, first = self.epoch, self.first_batch
        self.set_epoch(epoch + 1)  # whoever sets none has another order in the next pass
        return islice(self._epoch(epoch), first, None)

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
