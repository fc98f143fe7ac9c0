"""WebDataset: tar files in which the files of a pair follow each other: `<key>.hq.png`, `<key>.lq.png`, `<key>.json`, ..."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from itertools import chain, count, islice
from pathlib import Path

from .card import Page
from .items import Item, Shown, npy, png

PER_TAR = 1000  # pairs


def write(shown: Shown, out: Path, on_pair: Callable[[int, int], None]) -> Page:
    """Write the tars of each split: `train-000000.tar`, ..., PER_TAR pairs each."""
    done = 0
    for split in shown.splits:
        items = shown.items(split)
        for number in count():
            part = islice(items, PER_TAR)
            first = next(part, None)
            if first is None:
                break
            with tarfile.open(out / f"{split}-{number:06d}.tar", "w") as tar:
                for item in chain((first,), part):
                    _add(tar, item)
                    done += 1
                    on_pair(done, len(shown))
    suffixes = ", ".join(f"`<key>.{_suffix(kind)}`" for kind in shown.kinds)
    return Page(
        files=f"`train-*.tar` and `test-*.tar` with {suffixes} and `<key>.json` of each pair.",
        configs={"default": {split: f"{split}-*.tar" for split in shown.splits}},
        example=(
            "import webdataset",
            f'pairs = webdataset.WebDataset("{shown.name}/train-000000.tar").decode("pil").to_tuple("hq.png", "lq.png")',
            "hq, lq = next(iter(pairs))",
        ),
    )


def _suffix(kind: str) -> str:
    return f"{kind}.{'npy' if kind == 'envelope' else 'png'}"


def _add(tar: tarfile.TarFile, item: Item) -> None:
    """Add the files of a pair: no time, no owner, so that the same pairs are the same file."""
    key = f"{item.drawn}__{item.probe}".replace(".", "_")  # a dot would end the key
    for kind, image in item.images.items():
        _add_file(tar, f"{key}.{_suffix(kind)}", npy(image) if kind == "envelope" else png(image))
    _add_file(tar, f"{key}.json", json.dumps(item.facts).encode())


def _add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
