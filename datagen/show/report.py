"""One HTML file that shows a dataset: what it was made of, how it looks, what its speckle is like, what was set aside.

The file is complete in itself: pictures, styles and script are inside, nothing is fetched.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..identity import stable_hash
from ..plan.samples import BETWEEN_NOTES
from ..store import layout, read
from ..store.layout import Row
from ..store.loader import Pairs, open_pairs
from ..store.location import Storage, open_storage

MEASURED = 200  # pairs per probe whose grey levels and speckle are measured
BLOCK = 8  # the side of an image over this is the side of the blocks speckle is measured in
FLAT = 0.05  # standard deviation of HQ in [0, 1] below which a block counts as homogeneous
DEPTHS = ("near", "middle", "far")  # thirds of the depth
DEVELOPED = 1.91  # mean/std of the amplitude of fully developed speckle: sqrt(pi / (4 - pi))


@dataclass(frozen=True)
class Speckle:
    """Mean over standard deviation of the amplitude in homogeneous blocks of one third of the depth."""

    depth: str
    n_blocks: int
    median: float | None  # None where there is no such block
    quartiles: tuple[float, float] | None


def write_report(path: str | Path, out: str | Path, n_pairs: int = 48) -> Path:
    """Write the report of a finished store.

    Parameters
    ----------
    n_pairs : in the gallery, spread evenly over sources, probes, folds and kinds.

    Raises
    ------
    StoreError
        There is no store, or it is unfinished.
    OSError
        The file cannot be written.
    """
    storage = open_storage(path)
    pairs = open_pairs(path)
    out = Path(out)
    temporary = out.with_name(f".{out.name}.part")
    try:
        temporary.write_text(render(storage, pairs, n_pairs), encoding="utf-8")
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return out


def render(storage: Storage, pairs: Pairs, n_pairs: int = 48) -> str:
    """Return the report as HTML."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("datagen.show"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    table = read.read_samples(storage)
    attributes = pairs.attributes
    return environment.get_template("report.html").render(
        name=Path(storage.url).name,
        attributes=attributes,
        recipe=_recipe_rows(attributes["recipe"]),
        counts=_counts(table),
        probes=[_measure(pairs, name) for name in pairs.probes],
        developed=DEVELOPED,
        timing=timing(storage),
        set_aside=[row for row in table if row["set_aside"]],
        odd=odd(storage),
        cards=[_card(pairs, int(i)) for i in spread(pairs, n_pairs)],
        filters={key: sorted({row[key] for row in pairs.samples}) for key in ("source", "probe", "fold", "kind")},
    )


def spread(pairs: Pairs, count: int) -> list[int]:
    """`count` pairs in turn from every combination of source, probe, fold and kind, chosen by hash, in order."""
    rows = pairs.samples
    turn = Counter[tuple]()
    ranked = []
    for i in sorted(range(len(rows)), key=lambda i: stable_hash(str(rows[i]["id"]), str(rows[i]["probe"]))):
        group = tuple(rows[i][key] for key in ("source", "probe", "fold", "kind"))
        ranked.append((turn[group], i))
        turn[group] += 1
    return sorted(i for _, i in sorted(ranked)[:count])


def speckle(hq: np.ndarray, lq: np.ndarray, masks: np.ndarray, dynamic_range_db: float) -> list[Speckle]:
    """Speckle statistics of pairs (k, H, W) in [0, 1], by thirds of the depth.

    Blocks inside the field where HQ is nearly flat and LQ neither black nor white. Divided by the reflectivity that HQ
    stands for, the amplitude there should follow a Rayleigh law, whose mean is 1.91 standard deviations where many
    scatterers share a resolution cell.
    """
    n, size, _ = hq.shape
    side = max(4, size // BLOCK)
    found: dict[str, list[float]] = {depth: [] for depth in DEPTHS}
    for row in range(0, size - side + 1, side):
        depth = DEPTHS[min(2, 3 * (row + side // 2) // size)]
        for column in range(0, size - side + 1, side):
            block = np.s_[:, row : row + side, column : column + side]
            flat = hq[block].reshape(n, -1).std(axis=1) < FLAT
            inside = masks[block].reshape(n, -1).all(axis=1)
            level = lq[block].reshape(n, -1)
            seen = ((level > 0) & (level < 1)).mean(axis=1) > 0.9  # what is clipped has no amplitude to measure
            used = flat & inside & seen
            amplitude = 10 ** (dynamic_range_db / 20 * (level[used] - hq[block].reshape(n, -1)[used]))
            if len(amplitude):
                found[depth] += list(amplitude.mean(axis=1) / amplitude.std(axis=1))
    return [
        Speckle(
            depth,
            len(values),
            float(np.median(values)) if values else None,
            (float(np.quantile(values, 0.25)), float(np.quantile(values, 0.75))) if values else None,
        )
        for depth, values in found.items()
    ]


def odd(storage: Storage) -> list[tuple[str, int]]:
    """Return what is odd about the volumes, by the table of them: a note, and how many have it; the most frequent first."""
    try:
        rows = csv.DictReader(io.StringIO(storage.read(layout.VOLUMES).decode()))
    except FileNotFoundError:  # of a store from before there was one
        return []
    notes = Counter(note for row in rows for note in row["notes"].split(BETWEEN_NOTES) if note)
    return notes.most_common()


def timing(storage: Storage) -> dict[str, Any]:
    """Return how long the shards took, of the build's log: samples, seconds of work, seconds per sample, machines."""
    entries = []
    for line in storage.read_log("build/log.jsonl"):
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue  # a line that a stopped build left unfinished
    shards = [entry for entry in entries if entry.get("event") == "shard"]
    seconds = sum(entry["seconds"] for entry in shards)
    samples = sum(entry["samples"] for entry in shards)
    return {
        "samples": samples,
        "seconds": seconds,
        "seconds_a_sample": seconds / samples if samples else None,
        "machines": len({entry["host"] for entry in shards}),
        "runs": sum(entry.get("event") == "begin" for entry in entries),
        "slowest": max((entry["seconds"] / entry["samples"] for entry in shards), default=None),
    }


# --- helpers ---------------------------------------------------------------------------------------------------------


def _recipe_rows(recipe: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the recipe's choices as text, the probes' numbers left to the store."""

    def text(value: Any) -> str:
        if isinstance(value, dict) and "tissues" in value:
            return ", ".join(value["tissues"])
        if isinstance(value, dict):  # ranges to draw from
            drawn = {name: limits for name, limits in value.items() if limits is not None}
            return ", ".join(f"{name} {limits[0]:g} to {limits[1]:g}" for name, limits in drawn.items())
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

    return [
        (key.replace("_", " "), text(value)) for key, value in recipe.items() if value is not None and key != "probes"
    ]


def _counts(table: list[Row]) -> list[dict[str, Any]]:
    """Volumes, subjects and samples of each source."""
    rows = []
    for source in sorted({str(row["source"]) for row in table}):
        mine = [row for row in table if row["source"] == source]
        rows.append(
            {
                "source": source,
                "subjects": len({row["subject"] for row in mine}),
                "volumes": len({row["volume"] for row in mine}),
                "full": sum(row["kind"] == "full" for row in mine),
                "patch": sum(row["kind"] == "patch" for row in mine),
                "folds": dict(sorted(Counter(row["fold"] for row in mine).items())),
                "set_aside": sum(bool(row["set_aside"]) for row in mine),
            }
        )
    return rows


def _measure(pairs: Pairs, probe: str) -> dict[str, Any]:
    """Grey levels and speckle of some pairs of one probe."""
    position = pairs.probes.index(probe)
    mine = pairs.select(np.flatnonzero(pairs.items[:, 1] == position))
    chosen = np.unique(np.linspace(0, len(mine) - 1, min(MEASURED, len(mine))).round().astype(int))
    hq, lq = mine.read(chosen)
    masks = np.stack([mine.mask(int(i)) for i in chosen])
    size = hq.shape[1]
    statistics = speckle(hq / 255.0, lq / 255.0, masks, pairs.recipe.dynamic_range_db)
    return {
        "name": probe,
        "n": len(chosen),
        "size": size,
        "field": float(masks.mean()),
        "histogram": {"HQ": _histogram(hq), "LQ": _histogram(lq[masks])},
        "speckle": statistics,
    }


def _histogram(levels: np.ndarray, width: int = 256, height: int = 80) -> dict[str, Any]:
    """Return the outline of a histogram of grey levels, as points of an SVG.

    Black, which dwarfs all others, is told in words.
    """
    counts = np.bincount(levels.ravel(), minlength=256).astype(float)
    black = counts[0] / max(counts.sum(), 1)
    top = max(counts[1:].max(), 1.0)
    points = " ".join(f"{x},{height - height * min(counts[x] / top, 1):.1f}" for x in range(1, 256))
    return {"points": f"1,{height} {points} {width - 1},{height}", "black": black, "mean": float(levels.mean() / 255)}


def _card(pairs: Pairs, index: int) -> dict[str, Any]:
    hq, lq = pairs.read([index])
    return {"row": pairs.samples[index], "hq": _picture(hq[0]), "lq": _picture(lq[0])}


def _picture(image: np.ndarray) -> str:
    """Return an image as a data URL.

    JPEG at this quality is within 2 grey levels of most pixels and a third of PNG's size.
    """
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(image).save(content, format="JPEG", quality=92)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
