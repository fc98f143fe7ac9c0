"""A folder of PNG files that loads as pairs: `train/metadata.csv` and `test/metadata.csv` name the images of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...store import layout
from .card import Page
from .items import Item, Shown, npy, png

METADATA = "metadata.csv"


def write(shown: Shown, out: Path, on_pair: Callable[[int, int], None]) -> Page:
    """Write the images and a table for each split; images that several pairs share are written once."""
    done = 0
    for split in shown.splits:
        rows = []
        for item in shown.items(split):
            names = places(item, shown.pairs.has_own_masks)
            for kind, name in names.items():
                path = out / split / name
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    content = npy(item.images[kind]) if kind == "envelope" else png(item.images[kind])
                    path.write_bytes(content)
            # Arrays are no images: their column must not look like one to loaders of image folders.
            columns = {f"{kind}_file{'' if kind == 'envelope' else '_name'}": name for kind, name in names.items()}
            blank = {f"{kind}_file_name": None for kind in shown.kinds if kind not in item.images}
            rows.append(columns | blank | item.facts)
            done += 1
            on_pair(done, len(shown))
        (out / split / METADATA).write_text(layout.format_table(rows), encoding="utf-8")
    masks = "mask/<PROBE>/<key>.png" if shown.pairs.has_own_masks else "mask/<PROBE>.png"
    more = {
        "labels": ", `labels/<key>.png` (16 bit)",
        "envelope": ", `envelope/<PROBE>/<key>.npy` (dB, float16)",
        "lq_polar": ", `hq_polar/<PROBE>/<key>.png`, `lq_polar/<PROBE>/<key>.png`",
    }
    said = "".join(text for kind, text in more.items() if kind in shown.kinds)
    return Page(
        files=f"`train/` and `test/`, in each `hq/<key>.png`, `lq/<PROBE>/<key>.png`, `{masks}`{said}; `metadata.csv` "
        "has a row for each pair: its files, subject, fold, pixels in mm.",
        configs={"default": {split: f"{split}/**" for split in shown.splits}},
        example=("from datasets import load_dataset", f'pair = load_dataset("{shown.name}", split="train")[0]', PAIR),
    )


PAIR = 'hq, lq = pair["hq"], pair["lq"]  # PIL images'


def places(item: Item, own_masks: bool, suffix: str = ".png") -> dict[str, str]:
    """Return where the images of a pair lie, by kind: what several pairs have in common under one name."""
    of_probe = {kind: f"{kind}/{item.probe}/{item.key}{suffix}" for kind in ("mask", "hq_polar")}
    of_probe |= {kind: f"{kind}/{item.probe}/{item.drawn}{suffix}" for kind in ("lq", "lq_polar")}
    of_sample = {kind: f"{kind}/{item.key}{suffix}" for kind in ("hq", "labels")}
    known = of_sample | of_probe | {"envelope": f"envelope/{item.probe}/{item.drawn}.npy"}
    if not own_masks:
        known["mask"] = f"mask/{item.probe}{suffix}"
    return {kind: known[kind] for kind in item.images}
