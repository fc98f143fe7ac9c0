"""Reading a store: pairs as arrays, by index, by fold, by whole shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ..plan.resolved import ResolvedRecipe, Settings, array_name
from . import layout, read
from .layout import Row, Terms
from .location import open_storage

if TYPE_CHECKING:
    import ussim

    from .torch_data import TorchPairs

Pair = tuple[np.ndarray, np.ndarray]  # hq and lq, each (H, W) float32 in [0, 1]


def open_pairs(path: str | Path, probe: str | Sequence[str] | None = None, *, include_set_aside: bool = False) -> Pairs:
    """Return the pairs of a finished store.

    Parameters
    ----------
    path : folder or fsspec URL.
    probe : name of a probe in the store (any case), or several; None = all. With P probes there are P pairs per sample.
    include_set_aside : keep the samples that could not be simulated (their images are blank).

    Raises
    ------
    StoreError
        There is no store, it is unfinished, or it has no such probe.
    """
    storage = open_storage(path)
    attributes = read.require_complete(storage)
    names = probe_names(attributes.probes, probe, storage.url)
    columns = read.read_columns(storage, ("fold", "set_aside"))
    kept = np.array([i for i, why in enumerate(columns["set_aside"]) if include_set_aside or not why], dtype=np.int64)
    items = np.stack([np.repeat(kept, len(names)), np.tile(np.arange(len(names), dtype=np.int64), len(kept))], axis=1)
    return Pairs(storage.url, read.read_document(storage), names, np.array(columns["fold"], dtype=np.int64), items)


class Pairs(Sequence[Pair]):
    """Pairs of a store: `len(pairs)`, `hq, lq = pairs[i]`, float32 in [0, 1].

    Opened where it is used: a pickled copy holds no file and no image, so it is safe in spawned and forked workers.
    """

    def __init__(
        self,
        url: str,
        attributes: dict[str, Any],
        probes: tuple[str, ...],
        folds: np.ndarray,
        items: np.ndarray,
        drawn: np.ndarray | None = None,
    ) -> None:
        self.url = url
        self.attributes = attributes  # of the store, as they are on disk
        self.recipe = ResolvedRecipe.from_dict(attributes["recipe"])
        self.probes = probes
        self.items = items  # (len, 2): index of the sample in the store, index of the probe in `probes`
        self.drawn = np.zeros(len(items), np.int64) if drawn is None else drawn  # which draw each pair's LQ image is
        self.folds = folds  # of every sample in the store
        self._table: list[Row] | None = None
        self._group: Any = None

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int | np.integer) -> Pair: ...

    @overload
    def __getitem__(self, index: slice | list[int] | np.ndarray) -> Pairs: ...

    def __getitem__(self, index: int | np.integer | slice | list[int] | np.ndarray) -> Pair | Pairs:
        """(hq, lq) of one pair, each (H, W) float32 in [0, 1]; of a slice or an array of indices, a `Pairs`."""
        if isinstance(index, slice | list | np.ndarray):
            return self.select(np.arange(len(self))[index])
        return self.pair(index)

    def pair(self, index: int | np.integer, draw: int | None = None) -> Pair:
        """Return (hq, lq) of one pair, of one of its draws; None: its own, the first unless `every_draw` made it."""
        sample, _ = self.items[_checked(index, len(self))]
        return _unit(self._array("hq")[int(sample)]), _unit(self._image(layout.lq_key, index, draw))

    def envelope(self, index: int, draw: int | None = None) -> np.ndarray:
        """(H, W) float32, dB of LQ's white: the envelope of a pair, where the store keeps it (`keep`)."""
        if "envelope" not in self.recipe.keep:
            raise layout.StoreError(f"{self.url}: no envelopes here: build with --keep envelope")
        return np.asarray(self._image(layout.envelope_key, index, draw), dtype=np.float32)

    @property
    def n_draws(self) -> int:
        """How many independent draws of its scatterers each image has."""
        return self.recipe.speckle_draws

    def draws(self, index: int) -> np.ndarray:
        """(K, H, W) float32 in [0, 1]: the LQ images of all draws of a pair's scatterers."""
        sample, probe = self.items[_checked(index, len(self))]
        images = _unit(self._array(layout.lq_key(self.probes[probe]))[int(sample)])
        return images if self.n_draws > 1 else images[None]

    def every_draw(self) -> Pairs:
        """Return a pair for each draw of each pair: the same HQ image, another LQ image."""
        each = np.repeat(np.arange(len(self)), self.n_draws)
        drawn = np.tile(np.arange(self.n_draws), len(self))
        return Pairs(self.url, self.attributes, self.probes, self.folds, self.items[each], drawn)

    @property
    def has_labels(self) -> bool:
        """Whether the samples have labels."""
        return self.recipe.has_labels

    @property
    def label_names(self) -> dict[int, str]:
        """What the values of the labels are called; 0, which is unnamed, is not among them."""
        return {label["value"]: label["name"] for label in self.attributes.get("labels", ())}

    @property
    def label_colors(self) -> dict[int, tuple[int, int, int]]:
        """Red, green and blue of each label, 0 to 255."""
        colors = {label["value"]: label["color"] for label in self.attributes.get("labels", ())}
        return {value: (red, green, blue) for value, (red, green, blue) in colors.items()}

    def labels(self, index: int) -> np.ndarray:
        """(H, W) uint16: what lies where in a pair, by the numbers of `label_names`."""
        if not self.has_labels:
            raise layout.StoreError(f"{self.url}: the samples have no labels: build with --labels")
        sample, _ = self.items[_checked(index, len(self))]
        return np.asarray(self._array(layout.LABELS)[int(sample)])

    def _image(self, key: Callable[[str], str], index: int | np.integer, draw: int | None) -> np.ndarray:
        """One image of a probe's array that may have several draws."""
        position = _checked(index, len(self))
        sample, probe = self.items[position]
        number = int(self.drawn[position]) if draw is None else int(draw)
        if not 0 <= number < self.n_draws:
            raise IndexError(f"draw {number} of {self.n_draws}")
        place = (int(sample), number) if self.n_draws > 1 else (int(sample),)
        return self._array(key(self.probes[probe]))[place]

    @property
    def samples(self) -> list[Row]:
        """The row of each pair in the table of samples, and its `probe`: `pandas.DataFrame(pairs.samples)`."""
        return [self._row(index) for index in range(len(self))]

    @property
    def _whole_table(self) -> list[Row]:
        if self._table is None:
            self._table = read.read_samples(open_storage(self.url))
        return self._table

    @property
    def sources(self) -> tuple[Terms, ...]:
        """The terms of the collections the images are of."""
        return tuple(Terms(**terms) for terms in self.attributes["sources"])

    @property
    def shape(self) -> tuple[int, int]:
        """Of an image: (z, x)."""
        return self.recipe.size, self.recipe.size

    @property
    def n_folds(self) -> int:
        """Into how many folds the subjects fall."""
        return self.recipe.folds

    def fold(self, k: int, *, complement: bool = False) -> Pairs:
        """Return the pairs of the subjects in fold `k`; with `complement`, all others (to train on)."""
        if not 0 <= k < self.n_folds:
            raise ValueError(f"fold: expected 0 to {self.n_folds - 1}, got {k!r}")
        return self.select(np.flatnonzero((self.folds[self.items[:, 0]] == k) != complement))

    def select(self, indices: Sequence[int] | np.ndarray) -> Pairs:
        """Return some of the pairs, in the order given."""
        chosen = np.asarray(indices, dtype=np.int64)
        return Pairs(self.url, self.attributes, self.probes, self.folds, self.items[chosen], self.drawn[chosen])

    @property
    def has_own_masks(self) -> bool:
        """Whether each sample has a mask of its own, as where its acquisition was drawn for it."""
        return any(self._array(layout.mask_key(name)).ndim == 3 for name in self.probes)

    def mask(self, index: int) -> np.ndarray:
        """(H, W) bool: the pixels of a pair that lie inside the probe's field."""
        sample, probe = self.items[_checked(index, len(self))]
        array = self._array(layout.mask_key(self.probes[probe]))
        return np.asarray(array[:] if array.ndim == 2 else array[int(sample)])

    def grid(self, index: int) -> ussim.ImageGrid:
        """Return the pixel centers of a pair's images, m: what `imshow` needs for its extent, as of a simulation."""
        return _grid_of(self.settings(index))

    def metadata(self, index: int) -> dict[str, Any]:
        """Return what is known of one pair: its row of the table, of the columns of the probes its own probe's, and its mm.

        Returns
        -------
        dict
            `id`, `subject`, `fold`, `seed`, ..., `probe`; what is recorded of each probe without the probe's name
            (`scatterers`, `lq_pixel_x_mm`, ...; `crc32_lq`); `x_min_mm`, `x_max_mm`, `z_min_mm`, `z_max_mm`, the first and
            last pixel centers of LQ.
        """
        row = self._row(index)
        name = array_name(str(row["probe"]))
        keys = sorted((array_name(each.name) for each in self.recipe.probes), key=len, reverse=True)
        known: dict[str, Any] = {}
        for column, value in row.items():
            owner = next((key for key in keys if column.endswith(f"_{key}")), None)
            if owner in (None, name):
                plain = column.removesuffix(f"_{owner}")
                known["crc32_lq" if plain == "crc32" else plain] = value
        grid = self.grid(index)
        ends = {"x_min": grid.x[0], "x_max": grid.x[-1], "z_min": grid.z[0], "z_max": grid.z[-1]}
        return known | {f"{name}_mm": round(1e3 * float(end), 6) for name, end in ends.items()}

    def settings(self, index: int) -> Settings:
        """Return how the probe of a pair imaged it, what was drawn for it among that."""
        _, probe = self.items[_checked(index, len(self))]
        name = self.probes[probe]
        settings = next(each for each in self.recipe.settings if each.probe.name == name)
        if self.recipe.randomize is None:
            return settings
        row: dict[str, Any] = self._row(index)
        return settings.with_drawn({each: row[f"{each}_{array_name(name)}"] for each in self.recipe.randomize.names})

    def _row(self, index: int) -> Row:
        """Return the row of a pair in the table, its probe, and which draw its LQ image is where there are several."""
        position = _checked(index, len(self))
        sample, probe = self.items[position]
        row = self._whole_table[sample] | {"probe": self.probes[probe]}
        return row | {"draw": int(self.drawn[position])} if self.n_draws > 1 else row

    def read(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hq and lq of several pairs, each (k, H, W) uint8, in the order given; every shard is read once, and whole.

        Indexing a sharded array with a list of positions would open its shards position by position.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        wanted, drawn = self.items[chosen], self.drawn[chosen]
        hq = np.empty((len(wanted), *self.shape), np.uint8)
        lq = np.empty_like(hq)
        shards = wanted[:, 0] // self.samples_per_shard
        for shard in np.unique(shards):
            here = np.flatnonzero(shards == shard)
            offset = wanted[here, 0] - shard * self.samples_per_shard
            hq[here] = self.read_shard("hq", int(shard))[offset]
            for probe in np.unique(wanted[here, 1]):
                some = wanted[here, 1] == probe
                images = self.read_shard(layout.lq_key(self.probes[probe]), int(shard))
                place = (offset[some], drawn[here[some]]) if self.n_draws > 1 else (offset[some],)
                lq[here[some]] = images[place]
        return hq, lq

    def batches(self, size: int = 64) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All pairs in order, `size` at a time: hq and lq, (k, H, W) float32 in [0, 1]."""
        for first in range(0, len(self), size):
            hq, lq = self.read(np.arange(first, min(first + size, len(self))))
            yield _unit(hq), _unit(lq)

    def torch(self, *, dtype: str = "float32", cache_bytes: int = 64 << 20) -> TorchPairs:
        """Return a torch Dataset of these pairs; see `datagen.store.torch_data`."""
        from .torch_data import TorchPairs

        return TorchPairs(self, dtype=dtype, cache_bytes=cache_bytes)

    @property
    def samples_per_shard(self) -> int:
        """How many consecutive samples of the store lie in one file."""
        return self.attributes["samples_per_shard"]

    def read_shard(self, key: str, shard: int) -> np.ndarray:
        """Read all images of an array ("hq", "lq/...") in one shard, (k, H, W) uint8; of several draws (k, K, H, W)."""
        first = shard * self.samples_per_shard
        return np.asarray(self._array(key)[first : first + self.samples_per_shard])

    def _array(self, key: str) -> Any:
        if self._group is None:
            import zarr

            self._group = zarr.open_group(self.url, mode="r")
        return self._group[key]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_group": None, "_table": None}

    def __repr__(self) -> str:
        return f"<Pairs {self.url}: {len(self)} of {', '.join(self.probes)}>"


@lru_cache(maxsize=32)
def _grid_of(settings: Settings) -> ussim.ImageGrid:
    return settings.grid()


def probe_names(known: Mapping[str, str], probe: str | Sequence[str] | None, where: str) -> tuple[str, ...]:
    """Return the probes asked for, spelled as in `known` (name -> name of its arrays), of which any case will do.

    Raises
    ------
    StoreError
        One is not known, or comes twice; `where` begins the message.
    """
    if probe is None:
        return tuple(known)
    by_name = {name.lower(): name for name in known} | {key.lower(): name for name, key in known.items()}
    names = []
    for name in (probe,) if isinstance(probe, str) else tuple(probe):
        if str(name).lower() not in by_name:
            raise layout.StoreError(f"{where}: no probe {name!r} here; expected {', '.join(known)}")
        names.append(by_name[str(name).lower()])
    if not names or len(set(names)) < len(names):
        raise layout.StoreError(f"{where}: expected one or more probes, each once, got {probe!r}")
    return tuple(names)


def _checked(index: int | np.integer, length: int) -> int:
    position = int(index)
    if not -length <= position < length:
        raise IndexError(f"pair {position} of {length}")
    return position % length


def _unit(image: Any) -> np.ndarray:
    return np.asarray(image, dtype=np.float32) / np.float32(255)
