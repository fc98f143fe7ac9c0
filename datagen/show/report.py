"""One HTML file that shows a dataset: what it was made of, how it looks, what its speckle is like, what was set aside.

The file is complete in itself: pictures, styles and script are inside, nothing is fetched.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..make.pairs import make_imager
from ..plan.resolved import Settings
from ..plan.samples import BETWEEN_NOTES
from ..store import layout
from ..store.loader import Pairs, open_pairs
from ..store.location import Storage, open_storage
from .charts import Axis, Line, chart, ticks
from .survey import survey

MEASURED = 200  # pairs per probe whose grey levels and speckle are measured
BLOCK = 8  # the side of an image over this is the side of the blocks speckle is measured in; bands of depth, too
FLAT = 0.05  # standard deviation of HQ in [0, 1] below which a block counts as homogeneous
DEVELOPED = 1.91  # mean/std of the amplitude of fully developed speckle: sqrt(pi / (4 - pi))
SHEET = 24  # samples of a contact sheet
THUMB = 96  # pixels of a side there
LISTED = 20  # volumes, notes and samples that are listed one by one
OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class Speckle:
    """Mean over standard deviation of the amplitude in homogeneous blocks of one band of the depth."""

    depth: float  # middle of the band, as a share of the image's depth
    n_blocks: int
    median: float | None  # None where there is no such block
    quartiles: tuple[float, float] | None


@dataclass(frozen=True)
class Sight:
    """A probe and the field that its images show, in mm; no field where it was drawn for each sample."""

    name: str
    settings: Settings
    x: tuple[float, float] | None
    z: tuple[float, float] | None
    pixel: tuple[float, float] | None

    @classmethod
    def of(cls, settings: Settings, drawn: bool) -> Sight:
        """Return it of a probe's settings."""
        if drawn:
            return cls(settings.probe.name, settings, None, None, None)
        imager = make_imager(settings)
        x, z = (1e3 * axis for axis in (imager.grid.x, imager.grid.z))
        return cls(
            settings.probe.name,
            settings,
            (float(x[0]), float(x[-1])),
            (float(z[0]), float(z[-1])),
            imager.pixel_size_mm,
        )


def write_report(
    path: str | Path, out: str | Path, n_pairs: int = 48, *, on_step: OnStep = lambda done, total: None
) -> Path:
    """Write the report of a finished store.

    Parameters
    ----------
    n_pairs : in the gallery, spread evenly over sources, probes, folds and kinds.
    on_step : called with the number of steps done and their total.

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
        temporary.write_text(render(storage, pairs, n_pairs, on_step), encoding="utf-8")
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return out


def render(storage: Storage, pairs: Pairs, n_pairs: int = 48, on_step: OnStep = lambda done, total: None) -> str:
    """Return the report as HTML: of any number of samples in one pass over their table, and the few that are shown."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("datagen.show"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    total = 2 + len(pairs.probes) + n_pairs
    found = survey(storage, max(SHEET, -(-n_pairs // len(pairs.probes))))
    on_step(1, total)
    probes = []
    for name in pairs.probes:
        probes.append(_measure(pairs, name))
        on_step(1 + len(probes), total)
    sheets = _sheets(pairs, found.chosen)
    on_step(2 + len(probes), total)
    labels = _labels(pairs)
    cards: list[dict[str, Any]] = []
    for index in _pairs_of(pairs, found.chosen, n_pairs):
        cards.append(_card(pairs, index, labels, cards))
        on_step(2 + len(probes) + len(cards), total)
    on_step(total, total)
    attributes = pairs.attributes
    return environment.get_template("report.html").render(
        name=Path(storage.url).name,
        attributes=attributes,
        recipe=_recipe_rows(attributes["recipe"]),
        counts=found.counts,
        n_subjects=sum(len(count.subjects) for count in found.counts),
        n_volumes=sum(len(count.volumes) for count in found.counts),
        probes=probes,
        developed=DEVELOPED,
        timing=timing(storage),
        survey=found,
        left_out=_left_out(storage, attributes.get("skipped", {})),
        odd=odd(storage),
        listed=LISTED,
        sheets=sheets,
        labels=labels,
        cards=cards,
        filters={key: sorted({card["row"][key] for card in cards}) for key in ("source", "probe", "fold", "kind")},
    )


def spread(pairs: Pairs, count: int) -> list[int]:
    """`count` pairs in turn from every combination of source, fold and kind, chosen by hash, each under every probe."""
    return _pairs_of(pairs, survey(open_storage(pairs.url), -(-count // len(pairs.probes))).chosen, count)


def speckle(hq: np.ndarray, lq: np.ndarray, masks: np.ndarray, dynamic_range_db: float) -> list[Speckle]:
    """Speckle statistics of pairs (k, H, W) in [0, 1], by bands of the depth.

    Blocks inside the field where HQ is nearly flat and LQ neither black nor white. Divided by the reflectivity that HQ
    stands for, the amplitude there should follow a Rayleigh law, whose mean is 1.91 standard deviations where many
    scatterers share a resolution cell.
    """
    n, size, _ = hq.shape
    side = max(4, size // BLOCK)
    bands = []
    for row in range(0, size - side + 1, side):
        values: list[float] = []
        for column in range(0, size - side + 1, side):
            block = np.s_[:, row : row + side, column : column + side]
            flat = hq[block].reshape(n, -1).std(axis=1) < FLAT
            inside = masks[block].reshape(n, -1).all(axis=1)
            level = lq[block].reshape(n, -1)
            seen = ((level > 0) & (level < 1)).mean(axis=1) > 0.9  # what is clipped has no amplitude to measure
            used = flat & inside & seen
            amplitude = 10 ** (dynamic_range_db / 20 * (level[used] - hq[block].reshape(n, -1)[used]))
            if len(amplitude):
                values += list(amplitude.mean(axis=1) / amplitude.std(axis=1))
        quartiles = np.quantile(values, (0.25, 0.5, 0.75)).tolist() if values else None
        bands.append(
            Speckle(
                (row + side / 2) / size,
                len(values),
                quartiles[1] if quartiles else None,
                (quartiles[0], quartiles[2]) if quartiles else None,
            )
        )
    return bands


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


def _pairs_of(pairs: Pairs, samples: Sequence[int], count: int) -> list[int]:
    """Return at most `count` pairs: those of some samples, each under every probe."""
    first = np.searchsorted(pairs.items[:, 0], samples)
    return [int(i) + probe for i in first for probe in range(len(pairs.probes))][:count]


def _measure(pairs: Pairs, probe: str) -> dict[str, Any]:
    """Field, grey levels and speckle of some pairs of one probe, and their charts."""
    mine = pairs.select(np.flatnonzero(pairs.items[:, 1] == pairs.probes.index(probe)))
    chosen = np.unique(np.linspace(0, len(mine) - 1, min(MEASURED, len(mine))).round().astype(int))
    hq, lq = mine.read(chosen)
    masks = np.stack([mine.mask(int(i)) for i in chosen])
    settings = next(known for known in pairs.recipe.settings if known.probe.name == probe)
    sight = Sight.of(settings, pairs.recipe.randomize is not None)
    range_db = pairs.recipe.dynamic_range_db
    bands = speckle(hq / 255.0, lq / 255.0, masks, range_db)
    levels = {"hq": hq, "lq": lq[masks]}
    return {
        "name": probe,
        "n": len(chosen),
        "sight": sight,
        "field": float(masks.mean()),
        "levels": {
            kind: {"mean": float(of.mean()) / 255, "black": float((of == 0).mean())} for kind, of in levels.items()
        },
        "histogram": _histogram(levels, range_db, f"grey levels under {probe}"),
        "speckle": bands,
        "depth": [_depth(sight, band.depth) for band in bands],
        "chart": _speckle_chart(bands, sight, f"speckle SNR by depth under {probe}"),
    }


def _depth(sight: Sight, share: float) -> float:
    """Return a share of the depth in mm; in % where the field is another one for each sample."""
    return 100 * share if sight.z is None else sight.z[0] + share * (sight.z[1] - sight.z[0])


def _histogram(levels: dict[str, np.ndarray], range_db: float, title: str, bins: int = 51) -> str:
    """Return a chart of how often each level is used, black left out, which is told in words."""
    lines = []
    for name, values in levels.items():
        counts = np.bincount(values.ravel(), minlength=256)[1:].astype(float)
        shares = 100 * counts.reshape(bins, -1).sum(axis=1) / max(values.size, 1)
        places = -range_db * (1 - (np.arange(bins) + 0.5) / bins)
        lines.append(Line(name, list(zip(places.tolist(), shares.tolist(), strict=True))))
    top = max(max(share for _, share in line.points) for line in lines) or 1.0
    return chart(
        Axis(-range_db, 0, ticks(-range_db, 0), "level (dB), black to white"),
        Axis(0, top * 1.05, ticks(0, top), "pixels (%)"),
        lines,
        title,
    )


def _speckle_chart(bands: list[Speckle], sight: Sight, title: str) -> str:
    """Return a chart of the median and the quartiles of each band of the depth."""
    known = [
        (_depth(sight, band.depth), band.median, band.quartiles) for band in bands if band.median and band.quartiles
    ]
    ends = (0.0, 100.0) if sight.z is None else sight.z
    highest = max([2.5, *(quartiles[1] for _, _, quartiles in known)])
    return chart(
        Axis(*ends, ticks(*ends), "depth (% of the image)" if sight.z is None else "depth (mm)"),
        Axis(0, highest, ticks(0, highest), "speckle SNR"),
        [Line("lq", [(z, median) for z, median, _ in known], [quartiles for *_, quartiles in known])],
        title,
        level=DEVELOPED,
    )


def _sheets(pairs: Pairs, samples: Sequence[int]) -> list[dict[str, str]]:
    """Return a sheet of the HQ images of some samples, and one of their images under each probe, in the same places."""
    chosen = list(samples)[:SHEET]
    indices = _pairs_of(pairs, chosen, len(chosen) * len(pairs.probes))
    sheets: list[dict[str, str]] = []
    for position, probe in enumerate(pairs.probes):
        hq, lq = pairs.read(indices[position :: len(pairs.probes)])
        if not sheets:
            sheets.append({"name": "HQ", "picture": _picture(_tiled(hq))})
        sheets.append({"name": probe, "picture": _picture(_tiled(lq))})
    return sheets


def _tiled(images: np.ndarray, columns: int = 6) -> np.ndarray:
    """Return images (k, H, W) side by side, each THUMB pixels or less."""
    from PIL import Image

    side = min(THUMB, images.shape[1])
    columns = min(columns, len(images))
    sheet = np.zeros((-(-len(images) // columns) * (side + 2), columns * (side + 2)), np.uint8)
    for i, image in enumerate(images):
        row, column = (place * (side + 2) for place in divmod(i, columns))
        sheet[row : row + side, column : column + side] = np.asarray(Image.fromarray(image).resize((side, side)))
    return sheet


def _left_out(storage: Storage, skipped: dict[str, int]) -> list[dict[str, Any]]:
    """Return why images were left out, how many, and pictures of some."""
    shown: dict[str, list[dict[str, Any]]] = {}
    try:
        for example in json.loads(storage.read(layout.LEFT_OUT)):
            shown.setdefault(str(example["reason"]), []).append(example)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # a store of before they were kept, or damaged: the counts say what matters
    return [{"reason": reason, "count": count, "shown": shown.get(reason, [])} for reason, count in skipped.items()]


def _labels(pairs: Pairs) -> dict[int, dict[str, str]]:
    """Return name and color (CSS) of each label, by its value; nothing where samples have no labels."""
    colors = pairs.label_colors
    return {
        value: {"name": name, "color": "#" + bytes(colors[value]).hex()} for value, name in pairs.label_names.items()
    }


def _card(pairs: Pairs, index: int, labels: dict[int, Any], before: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a pair of the gallery; its HQ image only where no card before it has it."""
    row = pairs.row(index)
    hq, lq = pairs.read([index])
    same = next((i for i, card in enumerate(before) if card["row"]["id"] == row["id"]), None)
    card: dict[str, Any] = {"row": row, "lq": _picture(lq[0]), "same": same}
    if same is None:
        card["hq"] = _picture(hq[0])
        if labels:
            card["overlay"] = _overlay(pairs.labels(index), labels)
    return card


def _overlay(values: np.ndarray, labels: dict[int, Any]) -> str:
    """Return labels as a data URL: a PNG in their colors, transparent where nothing is labelled."""
    from PIL import Image

    present = [int(value) for value in np.unique(values) if int(value) in labels]
    places = np.zeros(values.shape, np.uint8)
    palette = [0, 0, 0]
    for number, value in enumerate(present[:255], start=1):
        places[values == value] = number
        palette += bytes.fromhex(labels[value]["color"][1:])
    picture = Image.fromarray(places, mode="P")
    picture.putpalette(palette)
    content = io.BytesIO()
    picture.save(content, format="PNG", transparency=0)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def _picture(image: np.ndarray) -> str:
    """Return an image as a data URL.

    JPEG at this quality is within 2 grey levels of most pixels and a third of PNG's size.
    """
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(image).save(content, format="JPEG", quality=92)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
