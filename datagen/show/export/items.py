"""The pairs of a store as exports write them: images, names of files, and what is known of each, one after the other."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ...identity import stable_hash
from ...plan.resolved import Settings, array_name
from ...store.layout import TEXT_COLUMNS, Row, Value
from ...store.loader import Pairs
from .terms import Licence

if TYPE_CHECKING:
    import ussim

SPLITS = ("train", "test")
# Facts that are whole numbers; `TEXT_COLUMNS` and seeds are text, and all others may have a fraction.
WHOLE = frozenset((
    "slice", "box_row0", "box_column0", "box_row1", "box_column1", "augmentation", "augmentation_flip",
    "augmentation_quarter_turns", "fold", "scatterers", "draw", "n_transmits",
))  # fmt: skip


@dataclass(frozen=True, eq=False)
class Item:
    """One pair.

    Attributes
    ----------
    key : name of its sample as that of a file.
    drawn : name of its LQ image as that of a file: the key, and which draw of its scatterers it is where there are several.
    probe : name of its probe's arrays.
    split : "train" or "test".
    facts : what is known of it, plain values; seeds are text, since most programs hold numbers of 53 bits.
    images : "hq", "lq" (uint8), "mask" (bool); where there are such "labels" (uint16), "envelope" (float16, dB), and
        "hq_polar", "lq_polar".
    """

    index: int
    key: str
    drawn: str
    probe: str
    split: str
    facts: dict[str, Any]
    images: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Shown:
    """Choice of what is exported, and how."""

    stored: Pairs
    name: str  # of the dataset
    licences: list[Licence]
    test_fold: int
    polar: bool = False
    root: tuple[str | None, ...] | None = None
    creator: str | None = None
    url: str | None = None

    @cached_property
    def pairs(self) -> Pairs:
        """A pair for each draw."""
        return self.stored.every_draw()

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def has_envelopes(self) -> bool:
        """Whether the store keeps the envelopes."""
        return "envelope" in self.pairs.recipe.keep

    @cached_property
    def has_sectors(self) -> bool:
        """Whether there are polar images."""
        shown = (each for each in self.pairs.recipe.settings if each.probe.name in self.pairs.probes)
        return self.polar and any(apex_of(each) is not None for each in shown)

    @property
    def kinds(self) -> list[str]:
        """The images that an item may have."""
        more = {"labels": self.pairs.has_labels, "envelope": self.has_envelopes}
        polar = ["hq_polar", "lq_polar"] if self.has_sectors else []
        return ["hq", "lq", "mask", *(name for name, there in more.items() if there), *polar]

    def count(self) -> dict[tuple[str, str], int]:
        """How many pairs there are of each split and probe, (split, name of the probe's arrays) -> number, none of 0."""
        is_test = self._is_test()
        names = [array_name(name) for name in self.pairs.probes]
        counts = {
            (split, name): int(((self.pairs.items[:, 1] == probe) & (is_test == (split == "test"))).sum())
            for split in SPLITS
            for probe, name in enumerate(names)
        }
        return {place: number for place, number in counts.items() if number}

    @cached_property
    def columns(self) -> list[str]:
        """The names of the facts of all pairs: those of the first pair of each probe."""
        _, first = np.unique(self.pairs.items[:, 1], return_index=True)
        names = (name for index in first for name in self.pairs.metadata(int(index)) if name != "set_aside")
        return list(dict.fromkeys(["split", *names, *(polar_facts(None) if self.has_sectors else ())]))

    @property
    def splits(self) -> list[str]:
        """The splits that have pairs."""
        return [split for split in SPLITS if any(place[0] == split for place in self.count())]

    def items(self, split: str | None = None) -> Iterator[Item]:
        """Yield the pairs in order, of one split or of all; the store is read a shard at a time."""
        pairs = self.pairs
        is_test = self._is_test()
        chosen = np.flatnonzero(is_test == (split == "test")) if split else np.arange(len(pairs))
        step = max(1, pairs.samples_per_shard * len(pairs.probes))
        for first in range(0, len(chosen), step):
            indices = chosen[first : first + step]
            for index, hq, lq in zip(indices, *pairs.read(indices), strict=True):
                yield self._item(int(index), hq, lq, SPLITS[int(is_test[index])])

    def _item(self, index: int, hq: np.ndarray, lq: np.ndarray, split: str) -> Item:
        pairs = self.pairs
        facts = pairs.metadata(index)
        facts.pop("set_aside")  # none of them are exported
        key = key_of(facts)
        drawn = f"{key}__draw{facts['draw']}" if "draw" in facts else key
        images = {"hq": hq, "lq": lq, "mask": pairs.mask(index)}
        if pairs.has_labels:
            images["labels"] = pairs.labels(index)
        if self.has_envelopes:
            images["envelope"] = pairs.envelope(index).astype(np.float16)
        if self.has_sectors:
            images |= self._polar(index, hq, lq)
            facts |= polar_facts(sector_of(pairs.settings(index)))
        told = {name: told_as(name, value) for name, value in ({"split": split} | facts).items()}
        return Item(index, key, drawn, array_name(str(facts["probe"])), split, told, images)

    def _polar(self, index: int, hq: np.ndarray, lq: np.ndarray) -> dict[str, np.ndarray]:
        import ussim

        settings = self.pairs.settings(index)
        sector = sector_of(settings)
        if sector is None:
            return {}
        there = ussim.to_polar(np.stack([hq, lq]), self.pairs.grid(index), sector)
        return {"hq_polar": there[0], "lq_polar": there[1]}

    def _is_test(self) -> np.ndarray:
        """Which pairs are of the test fold: none where there is no other fold."""
        folds = self.pairs.folds[self.pairs.items[:, 0]]
        return (folds == self.test_fold) & (self.pairs.n_folds > 1)


def apex_of(settings: Settings) -> float | None:
    """Return the depth, m, that the beams of a sector probe run from; None of a probe without a sector."""
    from ussim.phantoms import beam_apex

    return beam_apex(settings.probe)


@lru_cache(maxsize=64)
def sector_of(settings: Settings) -> ussim.PolarGrid | None:
    """Return the largest sector in a probe's images; None of a probe without one."""
    import ussim

    apex = apex_of(settings)
    return None if apex is None else ussim.PolarGrid.within(settings.grid(), apex)


def type_of(fact: str) -> str:
    """Return the type of a fact: "string", "int64" or "float64", the same for all pairs."""
    if fact in TEXT_COLUMNS or fact in ("probe", "split") or fact.startswith("seed"):
        return "string"
    return "int64" if fact in WHOLE or fact.startswith("crc32_") else "float64"


def told_as(fact: str, value: Value) -> Value:
    """Return a fact as its type; seeds, which most programs cannot hold, as text that `int(seed, 0)` reads."""
    if isinstance(value, int) and fact.startswith("seed"):
        return f"{value:#018x}"
    return float(value) if isinstance(value, int) and type_of(fact) == "float64" else value


def polar_facts(sector: ussim.PolarGrid | None) -> dict[str, float | None]:
    """Return where the samples of polar images lie; nothing of a probe without them."""
    numbers: list[float | None] = [None] * 5
    if sector is not None:
        radii, angles = 1e3 * sector.radius[[0, -1]], np.rad2deg(sector.angle[[0, -1]])
        numbers = [round(float(number), 6) for number in (*radii, *angles, 1e3 * sector.apex)]
    names = ("radius_min_mm", "radius_max_mm", "angle_min_deg", "angle_max_deg", "apex_z_mm")
    return {f"polar_{name}": number for name, number in zip(names, numbers, strict=True)}


def key_of(row: Row) -> str:
    """Return a sample's name as that of a file: no other sample has it."""
    name = str(row["id"])
    plain = "".join(c if c.isalnum() or c in "-_" else "_" for c in name.replace("/", "__"))
    return plain if plain.replace("__", "/") == name else f"{plain}-{stable_hash(name):016x}"


def png(image: np.ndarray) -> bytes:
    """Return an image as a PNG file: 8-bit grey, 16-bit of labels, black and white of a mask."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(image).save(content, format="PNG")
    return content.getvalue()


def npy(array: np.ndarray) -> bytes:
    """Return an array as an NPY file."""
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()
