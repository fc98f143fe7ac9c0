"""Models that come with the package, each a folder: config.json, model.safetensors and card.md.

    irsde.load("despeckler")     irsde models     irsde restore image.png -o clean.png
    irsde.drus.load_prior("reflectivity")         irsde drus channel_data.npz -o drus.png

The same kind of folder is what `Model.save_pretrained` and `drus.save_prior` write, `irsde.load` and `drus.load_prior` read,
and a hub keeps.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ussim.near import did_you_mean

WEIGHTS, RECORD, CARD = "model.safetensors", "config.json", "card.md"
DEFAULT = "despeckler"  # what `irsde restore` uses where no run is named
PRIOR = "reflectivity"  # what `irsde drus` uses where no prior is named
HOME = Path(__file__).parent


@dataclass(frozen=True)
class Shipped:
    """A model of the package.

    Attributes
    ----------
    name : as `irsde.load` takes it.
    folder : where it is.
    kind : "despeckler" or "prior".
    summary : what it is, in one line.
    """

    name: str
    folder: Path
    kind: str
    summary: str

    @property
    def size(self) -> int:
        """Bytes of its weights."""
        return (self.folder / WEIGHTS).stat().st_size

    @property
    def record(self) -> dict[str, Any]:
        """What its config.json holds."""
        return json.loads((self.folder / RECORD).read_text(encoding="utf-8"))

    @property
    def card(self) -> str:
        """What it was trained on, by which recipe and command, what was measured, and what it is not for; Markdown."""
        return (self.folder / CARD).read_text(encoding="utf-8")


def names() -> list[str]:
    """Return the names of the models that come with the package."""
    return sorted(path.parent.name for path in HOME.glob(f"*/{WEIGHTS}"))


def shipped(name: str) -> Shipped:
    """Return a model of the package by its name.

    Raises
    ------
    KeyError
        There is no such model.
    """
    if name not in names():
        near = did_you_mean(name, names())
        raise KeyError(
            f"no shipped model {name!r}{near}; expected one of {', '.join(names()) or '(none is installed)'}"
        )
    folder = HOME / name
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    return Shipped(name, folder, record.get("kind", "despeckler"), record.get("summary", ""))


def find(run: str | Path) -> Path:
    """Return the folder of a run: the path where there is something, else the shipped model of that name, else the path."""
    path = Path(run)
    if not path.exists() and str(run) in names():
        return HOME / str(run)
    return path
