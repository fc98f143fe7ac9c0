"""Lessons of a run: stores opened, split, rid of pairs that teach nothing, measured, compared with the run's record.

All of it is done before a run folder is claimed, so that a wrong setting leaves nothing behind.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irsde.config import TrainConfig
from irsde.data import (
    DataError,
    Normalization,
    Subset,
    left_out_line,
    measure,
    normalization_of,
    open_stores,
    split_all,
    without_flat,
)
from irsde.echo_area import EchoPairs
from ussim.errors import ChangedError


class ResumeError(ChangedError):
    """A run that cannot be continued as asked: other settings, other pairs."""


@dataclass(frozen=True, eq=False)
class Lessons:
    """Pairs to train on, one subset per probe and store, and what was found out about them."""

    training: list[Subset]
    held_out: list[Subset]
    normalization: Normalization
    digests: list[str]  # of the stores, in order
    left_out: list[list[str]]  # per probe and store, names of pairs whose images hardly vary


def prepare(
    config: TrainConfig,
    out: Path,
    record: dict[str, Any] | None,
    pairs: Sequence[Any] | None,
    report: Callable[[str], None],
) -> Lessons:
    """Open, split, check and measure the pairs of a run.

    Parameters
    ----------
    record : of the run that is resumed; its store must hold the images that it held.
    pairs : pairs objects of one probe each, in place of opening the config's stores.
    report : gets a line about pairs that are left out.

    Raises
    ------
    DataError
        The pairs cannot be used with this config.
    ResumeError
        They are not those that the run was started with.
    """
    opened = list(pairs) if pairs is not None else open_stores(config.stores, config.probes)
    digests = list(dict.fromkeys(d for p in opened if (d := getattr(p, "attributes", {}).get("digest"))))
    _compare_digests(config, out, record, digests)
    if config.draws == "every":
        opened = [p.every_draw() if hasattr(p, "every_draw") else p for p in opened]
    if config.statistics == "echoes":
        opened = [EchoPairs(p, config.patch_size) for p in opened]
    parts = split_all(opened, config.fold)
    # Scanning a large store takes minutes: where its digest is as it was, so are the pairs that were left out.
    if record and digests and "left_out" in record:
        left_out = record["left_out"]
        parts = [(_without(a, names), _without(b, names)) for (a, b), names in zip(parts, left_out, strict=True)]
    else:
        parts, left_out = _without_flat(parts, config)
    if any(left_out):
        report(left_out_line([name for names in left_out for name in names], config.floor))
    training = [a for a, _ in parts if len(a)]
    _check_patches(config, training)
    normalization = measure(config.normalization, config.inverse, training, floor=config.floor)
    if record and normalization_of(record) != normalization:
        raise ResumeError(f"{out}: the pairs in {', '.join(config.stores)} are not those this run was started with")
    return Lessons(training, [b for _, b in parts if len(b)], normalization, digests, left_out)


# --- where stores are ------------------------------------------------------------------------------------------------


def places(stores: Sequence[str], run: Path) -> list[dict[str, str]]:
    """Return where the stores of a run are, as seen from its folder and from the root; URLs as they are."""
    return [_place(store, run) for store in stores]


def recorded_stores(record: dict[str, Any], run: Path) -> tuple[str, ...]:
    """Return the stores of a run that is resumed: where they are from its folder, else where they were."""
    recorded = record.get("stores")
    if not recorded:
        given = record["config"]["store"]
        return (given,) if isinstance(given, str) else tuple(given)
    return tuple(_find(place, run) for place in recorded)


def _place(store: str, run: Path) -> dict[str, str]:
    if "://" in store:
        return {"url": store}
    absolute = os.path.realpath(store)
    try:
        return {"relative": Path(os.path.relpath(absolute, os.path.realpath(run))).as_posix(), "absolute": absolute}
    except ValueError:  # on another drive
        return {"absolute": absolute}


def _find(place: dict[str, str], run: Path) -> str:
    if "url" in place:
        return place["url"]
    beside = os.path.normpath(os.path.join(os.path.realpath(run), place["relative"])) if "relative" in place else None
    return beside if beside and os.path.exists(beside) else place["absolute"]


# --- helpers ---------------------------------------------------------------------------------------------------------


def _compare_digests(config: TrainConfig, out: Path, record: dict[str, Any] | None, digests: list[str]) -> None:
    """Raise ResumeError where a store is not what it was, by its place in the row of stores."""
    recorded = (record or {}).get("store_digests", digests)
    if recorded == digests:
        return
    if len(recorded) != len(digests):
        raise ResumeError(
            f"{out}: was started with {len(recorded)} stores, got {len(digests)} ({', '.join(config.stores)}); give the "
            "same, or choose another --out"
        )
    changed = next(k for k, pair in enumerate(zip(recorded, digests, strict=True)) if pair[0] != pair[1])
    store = config.stores[changed] if len(config.stores) == len(digests) else ", ".join(config.stores)
    raise ResumeError(
        f"{out}: {store} holds other images than when this run was started (digest {digests[changed]}, was "
        f"{recorded[changed]}); choose another --out"
    )


def _without_flat(
    parts: Sequence[tuple[Subset, Subset]], config: TrainConfig
) -> tuple[list[tuple[Subset, Subset]], list[list[str]]]:
    also_hq = config.normalization == "own"
    kept, left_out = [], []
    for training, held_out in parts:
        (a, flat_a), (b, flat_b) = (without_flat(subset, config.floor, also_hq) for subset in (training, held_out))
        kept.append((a, b))
        left_out.append(flat_a + flat_b)
    return kept, left_out


def _without(subset: Subset, names: Sequence[str]) -> Subset:
    """Return the pairs of other names."""
    kept = [i for i in range(len(subset)) if subset.name(i) not in names] if names else range(len(subset))
    return subset if len(kept) == len(subset) else subset.select(kept)


def _check_patches(config: TrainConfig, training: Sequence[Subset]) -> None:
    for subset in training:
        shape = subset[0][0].shape
        if min(shape) < config.patch_size:
            raise DataError(
                f"patch size {config.patch_size} is larger than the images {shape}: use a smaller --patch-size"
            )
