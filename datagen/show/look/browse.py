"""The page of `datagen look`: its routes. Images and rows are read from their shard when they are asked for."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np

from ussim.errors import ConfigError
from ussim.look.cache import Cache, Latest
from ussim.look.server import Answer, Request, Route, page

from ...store import read
from ...store.layout import Row
from ...store.loader import Pairs
from ...store.location import open_storage
from ..report import DEVELOPED, speckle
from .rows import Rows

MOST_ROWS = 100  # that one request may ask for
MEASURED = 64  # pairs whose speckle is measured at once
HIDDEN = ("file_sha256", "set_aside")  # columns that are no facts to look at
IMAGES = ("hq", "lq")
LARGEST_NUMBER = 2**53  # that JavaScript holds


class Browser:
    """A finished store that is looked through.

    Attributes
    ----------
    rows : Rows
        Begun.
    pairs : Pairs
        All pairs: number sample * probes + probe.
    """

    def __init__(self, path: str | Path, cache: Cache | None = None) -> None:
        self.storage = open_storage(path)
        self.attributes = read.require_complete(self.storage)
        self.probes = tuple(self.attributes.probes)
        self.rows = Rows(self.storage, self.attributes).start()
        n, across = self.attributes.n_samples, len(self.probes)
        items = np.stack([np.repeat(np.arange(n), across), np.tile(np.arange(across), n)], axis=1)
        self.pairs = Pairs(
            self.storage.url, read.read_document(self.storage), self.probes, np.zeros(0, np.int64), items
        )
        self.cache = cache or Cache(64 << 20)

    def describe(self) -> dict[str, Any]:
        """Return what the page says of the store, and what of its rows is found so far."""
        from ...make.pairs import make_imager

        attributes, recipe = self.attributes, self.attributes.recipe
        fields = {}
        for settings in recipe.settings:
            grid = make_imager(settings).grid
            fields[settings.probe.name] = {
                "x_mm": [round(1e3 * float(grid.x[i]), 3) for i in (0, -1)],
                "z_mm": [round(1e3 * float(grid.z[i]), 3) for i in (0, -1)],
            }
        return {
            "name": Path(self.storage.url.rstrip("/")).name,
            "n_samples": attributes.n_samples,
            "probes": list(self.probes),
            "fields": fields,
            "size": recipe.size,
            "dynamic_range_db": recipe.dynamic_range_db,
            "draws": self.pairs.n_draws,
            "engine": recipe.engine,
            "licence": attributes.licence,
            "citation": attributes.citation,
            "digest": attributes.digest,
            "folds": recipe.folds,
            "developed": DEVELOPED,
        } | self.progress()

    def progress(self) -> dict[str, Any]:
        """Return how much of the table is read, and the values found."""
        rows = self.rows
        return {
            "found": rows.found,
            "total": rows.total,
            "failure": rows.failure,
            "values": rows.values(),
            "counts": rows.counts(),
        }

    def list_pairs(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return some pairs that are as asked: their number, and their rows.

        Raises
        ------
        ConfigError
            A filter or a number is out of range.
        """
        asked = dict(asked)
        first, count = (_whole(asked.pop(name, default), name) for name, default in (("from", 0), ("count", 24)))
        if not 1 <= count <= MOST_ROWS:
            raise ConfigError(f"count: expected 1 to {MOST_ROWS}, got {count}")
        probes = self._probes(asked.pop("probe", ""))
        samples = self.rows.match(asked)
        total = len(samples) * len(probes)
        numbers = np.arange(min(first, total), min(first + count, total))
        shown = samples[numbers // len(probes)]
        rows = self.rows.read(shown)
        return {
            "matched": total,
            "from": first,
            "found": self.rows.found,
            "total": self.rows.total,
            "pairs": [
                self._facts(row, int(sample) * len(self.probes) + (probe := probes[int(n) % len(probes)]), probe)
                for n, sample, row in zip(numbers, shown, rows, strict=True)
            ],
        }

    def image(self, which: str, number: str, draw: str = "0") -> bytes:
        """Return an image of a pair as PNG.

        Raises
        ------
        ConfigError
            There is no such image.
        """
        if which not in IMAGES or not (number.isdecimal() and len(number) < 12 and int(number) < len(self.pairs)):
            raise ConfigError(f"image: expected hq or lq and 0 to {len(self.pairs) - 1}, got {which!r}, {number!r}")
        if not (draw.isdecimal() and len(draw) < 6 and int(draw) < self.pairs.n_draws):
            raise ConfigError(f"draw: expected 0 to {self.pairs.n_draws - 1}, got {draw!r}")
        key = which, int(number) // (len(self.probes) if which == "hq" else 1), int(draw)

        def make() -> bytes:
            image = self.pairs.pair(int(number), int(draw))[IMAGES.index(which)]
            return _png(np.round(255 * image).astype(np.uint8))

        return self.cache.get(key, make)

    def speckle(self, asked: dict[str, Any], check: Any) -> dict[str, Any]:
        """Return the speckle by depth of pairs of one probe that are as asked, spread over all of them."""
        asked = dict(asked)
        (probe, *others) = self._probes(asked.pop("probe", ""))
        if others:
            raise ConfigError("speckle: expected one probe, got several")
        samples = self.rows.match(asked)
        if len(samples) == 0:
            return {"probe": self.probes[probe], "n": 0, "parts": []}
        chosen = np.unique(samples[np.linspace(0, len(samples) - 1, min(MEASURED, len(samples))).round().astype(int)])
        hq, lq, masks = [], [], []
        for sample in chosen:
            check()
            number = int(sample) * len(self.probes) + probe
            pair = self.pairs.pair(number)
            hq.append(pair[0])
            lq.append(pair[1])
            masks.append(self.pairs.mask(number))
        parts = speckle(np.stack(hq), np.stack(lq), np.stack(masks), self.attributes.recipe.dynamic_range_db)
        return {
            "probe": self.probes[probe],
            "n": len(chosen),
            "parts": [
                {"depth": part.depth, "blocks": part.n_blocks, "median": part.median, "quartiles": part.quartiles}
                for part in parts
            ],
        }

    def close(self) -> None:
        """Stop reading the table."""
        self.rows.close()

    def _facts(self, row: Row, number: int, probe: int) -> dict[str, Any]:
        """Return what the page says of a pair: the columns of other probes and checksums left out."""
        name = self.probes[probe]
        others = [other for other in self.probes if other != name]
        facts = {
            column: str(value) if isinstance(value, int) and abs(value) > LARGEST_NUMBER else value
            for column, value in row.items()
            if column not in HIDDEN and not column.startswith("crc32_") and not column.endswith(tuple(others or ["\0"]))
        }
        facts = {column.removesuffix(name).rstrip("_ "): value for column, value in facts.items()}
        return {"number": number, "probe": name, "set_aside": row["set_aside"], "facts": facts}

    def _probes(self, name: Any) -> list[int]:
        if name == "":
            return list(range(len(self.probes)))
        if name not in self.probes:
            raise ConfigError(f"probe: expected one of {', '.join(self.probes)}, got {name!r}")
        return [self.probes.index(name)]


def routes(browser: Browser) -> tuple[dict[str, Route], Latest]:
    """Return the routes of the page, and the worker to close at the end."""
    latest = Latest()

    async def alone(work: Any) -> Any:
        """Do what no newer request replaces."""
        return await latest.do(f"read {time.monotonic_ns()}", lambda check: work())

    async def show(request: Request) -> Answer:
        return page(__package__, "look.html")

    async def facts(request: Request) -> Answer:
        return Answer.of(await alone(browser.describe))

    async def progress(request: Request) -> Answer:
        return Answer.of(browser.progress())

    async def pairs(request: Request) -> Answer:
        values = dict(request.values)
        tab = str(values.pop("tab", ""))[:40]
        return Answer.of(await latest.do(f"pairs {tab}", lambda check: browser.list_pairs(values)))

    async def image(request: Request) -> Answer:
        which, _, number = request.rest.partition("/")
        draw = str(request.values.get("draw", "0"))
        return Answer(await alone(lambda: browser.image(which, number.removesuffix(".png"), draw)), "image/png")

    async def statistics(request: Request) -> Answer:
        values = dict(request.values)
        tab = str(values.pop("tab", ""))[:40]
        return Answer.of(await latest.do(f"speckle {tab}", lambda check: browser.speckle(values, check)))

    return {
        "": show,
        "facts": facts,
        "progress": progress,
        "pairs": pairs,
        "image": image,
        "speckle": statistics,
    }, latest


def _whole(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 40:
        raise ConfigError(f"{name}: expected a whole number of at least 0, got {value!r}")
    return value


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(image).save(content, format="PNG", compress_level=1)
    return content.getvalue()
