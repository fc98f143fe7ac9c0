"""The samples of a plan, kept small: a million of them take about 100 MB, and none of this grows faster than they do.

volumes, as they are cut ─► one packed block each ─► chosen within the limits ─► merged in order of name ─► blocks
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter, methodcaller
from typing import Any, Generic, TypeVar, overload

import numpy as np

from ussim.volumes.volume import VolumeRef

from ..identity import stable_hash

BLOCK = 256  # samples packed together: unpacked in a millisecond, a tenth of the size of each alone

Item = TypeVar("Item")  # of a dataclass with the fields `id`, `ref` and others of plain values and tuples of them


class Packed(Sequence[Item], Generic[Item]):
    """Samples in order of name: `len`, index, slice (a tuple), iteration. Picklable.

    Parameters
    ----------
    kind : dataclass of the samples.
    refs : volumes, which a packed sample names by their place here.
    used : places of the volumes that samples are of.
    blocks : of BLOCK samples each, the last one perhaps of fewer.
    """

    def __init__(
        self, kind: type[Item], refs: Sequence[VolumeRef], used: Sequence[int], blocks: Sequence[bytes], length: int
    ) -> None:
        self.kind: Callable[..., Item] = kind
        self.refs, self.used, self.blocks, self.length = tuple(refs), tuple(used), tuple(blocks), length
        self._names = _names(kind)
        self._last: tuple[int, list[Item]] = (-1, [])  # the block that was unpacked last

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Item, ...]: ...

    def __getitem__(self, index: int | slice) -> Item | tuple[Item, ...]:
        if isinstance(index, slice):
            return tuple(self[place] for place in range(*index.indices(self.length)))
        if not -self.length <= index < self.length:
            raise IndexError(f"sample {index} of {self.length}")
        block, place = divmod(index % self.length, BLOCK)
        return self._unpacked(block)[place]

    def __iter__(self) -> Iterator[Item]:
        for block in range(len(self.blocks)):
            yield from self._unpacked(block)

    def _unpacked(self, block: int) -> list[Item]:
        if self._last[0] != block:
            self._last = block, [self._item(row) for row in _unpack(self.blocks[block])]
        return self._last[1]

    def _item(self, row: list[Any]) -> Item:
        values = (tuple(value) if isinstance(value, list) else value for value in row[2:])
        return self.kind(id=row[0], ref=self.refs[row[1]], **dict(zip(self._names, values, strict=True)))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last": (-1, [])}


class Gathering(Generic[Item]):
    """Samples of volumes as they are cut, to be chosen from by their hashes.

    Parameters
    ----------
    kind : dataclass of the samples.
    kinds : values of their field `kind`.
    limits : at most so many in all, and of each kind; None = all.
    """

    def __init__(
        self, kind: type[Item], kinds: Sequence[str], limit: int | None, limits: dict[str, int | None]
    ) -> None:
        self.kind, self.kinds, self.limit, self.limits = kind, tuple(kinds), limit, limits
        self.refs: list[VolumeRef] = []
        self.holding = Counter[str | None]()  # volumes with a sample of a kind; None: of any
        self._names = _names(kind)
        self._blocks: list[bytes] = []  # one a volume
        self._firsts: list[str] = []  # their first names
        self._codes: list[np.ndarray] = []  # kind of each sample, and its hash, where there are limits
        self._hashes: list[np.ndarray] = []

    def add(self, ref: VolumeRef, samples: Iterable[Item]) -> None:
        """Add the samples of a volume, none of which has been added before."""
        place = len(self.refs)
        self.refs.append(ref)
        rows = sorted((self._row(sample, place) for sample in samples), key=itemgetter(0))
        self._firsts.append(rows[0][0] if rows else "")
        self._blocks.append(_pack(rows))
        at = 2 + self._names.index("kind")
        found = {row[at] for row in rows}
        self.holding.update([*found, *([None] if found else [])])
        if self._is_limited:
            self._codes.append(np.array([self.kinds.index(row[at]) for row in rows], dtype=np.int8))
            self._hashes.append(np.array([stable_hash(row[0]) for row in rows], dtype=np.int64))

    def packed(self) -> Packed[Item]:
        """Return the samples within the limits, in order of name."""
        kept = self._chosen()
        blocks: list[bytes] = []
        block: list[list[Any]] = []
        used: set[int] = set()
        count = 0
        for row in self._in_order(kept):
            block.append(row)
            used.add(row[1])
            count += 1
            if len(block) == BLOCK:
                blocks.append(_pack(block))
                block = []
        if block:
            blocks.append(_pack(block))
        return Packed(self.kind, self.refs, sorted(used), blocks, count)

    @property
    def _is_limited(self) -> bool:
        return self.limit is not None or any(limit is not None for limit in self.limits.values())

    def _row(self, sample: Item, place: int) -> list[Any]:
        values: Any = sample
        return [values.id, place, *(getattr(sample, name) for name in self._names)]

    def _in_order(self, kept: list[np.ndarray] | None) -> Iterator[list[Any]]:
        """Yield rows in order of name, volumes unpacked only when the first name of theirs is reached."""
        waiting: list[list[Any]] = []  # rows of volumes whose names run into each other
        for place in sorted((i for i, first in enumerate(self._firsts) if first), key=self._firsts.__getitem__):
            ready = sum(row[0] < self._firsts[place] for row in waiting)
            yield from waiting[:ready]
            rows = _unpack(self._blocks[place])
            if kept is not None:
                rows = [row for row, keep in zip(rows, kept[place], strict=True) if keep]
            waiting = sorted(waiting[ready:] + rows, key=itemgetter(0))
        yield from waiting

    def _chosen(self) -> list[np.ndarray] | None:
        """Return which samples of each volume are within the limits; None = all.

        One of each volume, then a second of each, ..., volumes and samples by their hashes.
        """
        if not self._is_limited or not self._codes:
            return None
        codes, hashes = np.concatenate(self._codes), np.concatenate(self._hashes)
        lengths = [len(part) for part in self._codes]
        rank = np.empty(len(self.refs), np.int64)  # of the volumes
        order = sorted(
            range(len(self.refs)),
            key=lambda i: (stable_hash(self.refs[i].source, self.refs[i].name), self._firsts[i]),
        )
        rank[order] = np.arange(len(order))
        volumes = np.repeat(rank, lengths)
        kept = np.ones(len(codes), bool)
        for code, kind in enumerate(self.kinds):
            limit = self.limits.get(kind)
            if limit is not None:
                kept &= (codes != code) | _first(codes == code, volumes, hashes, limit)
        if self.limit is not None:
            kept &= _first(kept, volumes, hashes, self.limit)
        return np.split(kept, np.cumsum(lengths)[:-1])


def _first(candidates: np.ndarray, volumes: np.ndarray, hashes: np.ndarray, limit: int) -> np.ndarray:
    """Return which of the candidates come first: those that are the first of their volume, then the second ones, ..."""
    places = np.flatnonzero(candidates)
    places = places[np.lexsort((hashes[places], volumes[places]))]  # stable: equal hashes in order of name
    begins = np.flatnonzero(np.diff(volumes[places], prepend=-1))
    turns = np.arange(len(places)) - np.repeat(begins, np.diff(np.append(begins, len(places))))
    chosen = np.zeros(len(candidates), bool)
    chosen[places[np.lexsort((volumes[places], turns))[:limit]]] = True
    return chosen


def _names(kind: type) -> tuple[str, ...]:
    """Return the fields of a sample beside its name and its volume."""
    fields: Any = kind
    return tuple(field.name for field in dataclasses.fields(fields) if field.name not in ("id", "ref"))


def _pack(rows: list[list[Any]]) -> bytes:
    return zlib.compress(json.dumps(rows, separators=(",", ":"), default=methodcaller("item")).encode(), 1)


def _unpack(block: bytes) -> list[list[Any]]:
    rows: list[list[Any]] = json.loads(zlib.decompress(block))
    return rows
