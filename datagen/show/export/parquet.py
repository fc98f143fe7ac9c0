"""Parquet files as Hugging Face `datasets` has them: images as PNG in columns, a row for each pair; Croissant beside them.

data/<PROBE>/train-00000-of-00002.parquet      rows of the pairs; the schema says which columns are images
croissant.json                                 the same for other readers (`export.croissant`)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ussim.extras import needs

from . import croissant
from .card import Page
from .items import Item, Shown, png, type_of

if TYPE_CHECKING:
    import pyarrow

PER_FILE = 2000  # pairs: 0.3 GB of 256 x 256 pixels
PER_GROUP = 50  # pairs that a reader takes at once


def write(shown: Shown, out: Path, on_pair: Callable[[int, int], None]) -> Page:
    """Write the Parquet files of each split and probe, then their Croissant metadata."""
    needs("pyarrow")
    counts = shown.count()
    names = list(dict.fromkeys(probe for _, probe in counts))
    features = _features(shown)
    schema = _schema(features)
    done = 0
    for split in shown.splits:
        writers = {
            probe: _Writer(out / "data" / probe, split, number, schema)
            for (each, probe), number in counts.items()
            if each == split
        }
        try:
            for item in shown.items(split):
                writers[item.probe].add(_row(item, features))
                done += 1
                on_pair(done, len(shown))
        finally:
            for writer in writers.values():
                writer.close()
    files = sorted(path.relative_to(out).as_posix() for path in (out / "data").rglob("*.parquet"))
    (out / croissant.FILE).write_text(croissant.text(shown, features, out, files), encoding="utf-8")
    configs = {"default": {split: f"data/*/{split}-*.parquet" for split in shown.splits}}
    if len(names) > 1:
        for name in names:
            splits = [split for split in shown.splits if (split, name) in counts]
            configs[name] = {split: f"data/{name}/{split}-*.parquet" for split in splits}
    more = {"labels": ", `labels` (16 bit)", "lq_polar": ", `hq_polar` and `lq_polar` of sector probes"}
    said = "".join(text for kind, text in more.items() if kind in shown.kinds)
    kept = "; `envelope`, dB, as lists" if shown.has_envelopes else ""
    return Page(
        files=f"`data/<PROBE>/*.parquet`, a row for each pair: the images `hq`, `lq`, `mask`{said}{kept}; subject, fold, "
        "seed (as text), pixels in mm. `croissant.json` describes the columns.",
        configs=configs,
        example=(
            "from datasets import load_dataset",
            f'pairs = load_dataset("{shown.name}", split="train", streaming=True)',
            "pair = next(iter(pairs))",
            'hq, lq = pair["hq"], pair["lq"]  # PIL images',
        ),
    )


class _Writer:
    """The files of one split and probe, PER_FILE pairs each; as many of them as there will be is in their names."""

    def __init__(self, folder: Path, split: str, n_pairs: int, schema: pyarrow.Schema) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._split, self._schema = folder, split, schema
        self._n_files = -(-n_pairs // PER_FILE)
        self._rows: list[dict[str, Any]] = []
        self._n_written = 0
        self._file: Any = None

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == PER_GROUP or (self._n_written + len(self._rows)) % PER_FILE == 0:
            self._flush()

    def close(self) -> None:
        if self._rows:
            self._flush()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _flush(self) -> None:
        import pyarrow
        from pyarrow import parquet

        if self._n_written % PER_FILE == 0:
            if self._file is not None:
                self._file.close()
            name = f"{self._split}-{self._n_written // PER_FILE:05d}-of-{self._n_files:05d}.parquet"
            self._file = parquet.ParquetWriter(self._folder / name, self._schema, write_page_index=True)
        self._file.write_table(pyarrow.Table.from_pylist(self._rows, self._schema), row_group_size=PER_GROUP)
        self._n_written += len(self._rows)
        self._rows = []


def _features(shown: Shown) -> dict[str, dict[str, Any]]:
    """Return what each column is, as `datasets` writes it."""
    features: dict[str, dict[str, Any]] = {}
    for kind in shown.kinds:
        number = {"dtype": "float16", "_type": "Value"}
        rows = {"feature": {"feature": number, "_type": "List"}, "_type": "List"}
        features[kind] = rows if kind == "envelope" else {"_type": "Image"}
    features |= {name: {"dtype": type_of(name), "_type": "Value"} for name in shown.columns}
    return features


def _schema(features: dict[str, dict[str, Any]]) -> pyarrow.Schema:
    """Return the columns as Arrow has them, with what `datasets` says of them."""
    import pyarrow

    def arrow(feature: dict[str, Any]) -> Any:
        if feature["_type"] == "Image":
            return pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
        if feature["_type"] == "List":
            return pyarrow.list_(arrow(feature["feature"]))
        return getattr(pyarrow, feature["dtype"])()

    fields = [pyarrow.field(name, arrow(feature)) for name, feature in features.items()]
    return pyarrow.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})


def _row(item: Item, features: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a pair as a row; of kinds that it does not have nothing."""
    row: dict[str, Any] = {name: item.facts.get(name) for name in features}
    for kind, image in item.images.items():
        row[kind] = list(map(np.asarray, image)) if kind == "envelope" else {"bytes": png(image), "path": None}
    return row
