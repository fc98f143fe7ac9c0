"""One pass over the table of samples: what is counted of a dataset, and which of its samples are shown.

However many samples there are, what is kept is a handful of numbers per source and the few samples that are shown.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field

from ..identity import stable_hash
from ..store import read
from ..store.location import Storage

SHOWN = 20  # samples that were set aside, by name
_COLUMNS = ("id", "source", "subject", "volume", "kind", "fold", "set_aside")


@dataclass
class SourceCount:
    """Counts of one source of a dataset."""

    source: str
    subjects: set[str] = field(default_factory=set)
    volumes: set[str] = field(default_factory=set)
    kinds: Counter[str] = field(default_factory=Counter)
    folds: Counter[int] = field(default_factory=Counter)
    set_aside: int = 0


@dataclass(frozen=True)
class Survey:
    """Counts of a dataset, and the samples of it that are shown."""

    counts: list[SourceCount]  # by name of the source
    chosen: list[int]  # samples, in order
    set_aside: list[tuple[str, str]]  # the first SHOWN: sample, reason
    n_set_aside: int


def survey(storage: Storage, n_chosen: int) -> Survey:
    """Read the table of samples once.

    Parameters
    ----------
    n_chosen : samples to show: in turn from every combination of source, fold and kind, by hash; none that is set aside.
    """
    counts: dict[str, SourceCount] = {}
    best: dict[
        tuple[str, str, str], list[tuple[int, int]]
    ] = {}  # of each combination, the lowest hashes: (-hash, sample)
    set_aside: list[tuple[str, str]] = []
    for sample, (name, source, subject, volume, kind, fold, why) in enumerate(read.each_row(storage, _COLUMNS)):
        count = counts.setdefault(source, SourceCount(source))
        count.subjects.add(subject)
        count.volumes.add(volume)
        count.kinds[kind] += 1
        count.folds[int(fold)] += 1
        if why:
            count.set_aside += 1
            if len(set_aside) < SHOWN:
                set_aside.append((name, why))
            continue
        heap = best.setdefault((source, fold, kind), [])
        entry = (-stable_hash(name), sample)
        if len(heap) < n_chosen:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)
    ranked = [(turn, sample) for heap in best.values() for turn, (_, sample) in enumerate(sorted(heap, reverse=True))]
    return Survey(
        counts=[counts[source] for source in sorted(counts)],
        chosen=sorted(sample for _, sample in sorted(ranked)[:n_chosen]),
        set_aside=set_aside,
        n_set_aside=sum(count.set_aside for count in counts.values()),
    )
