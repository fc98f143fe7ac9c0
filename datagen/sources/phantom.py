"""Procedural phantoms as a source: no files, no end, and the outlines of what is in them as labels."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ussim import phantoms
from ussim.errors import DataError
from ussim.volumes.volume import ACQUIRED, Found, Volume, VolumeRef

from ..identity import stable_hash
from .base import Source
from .scene import Label, Scene, color_of

SIDE = 384  # pixels of a phantom before it is resized, as the pixels of an MRI
# Labels of all kinds of phantom. Stores hold the numbers: new names go to the end.
NAMES = (
    "cyst", "bright disc", "lesion", "skin", "fat", "muscle", "fascia", "bed", "tendon", "wall", "lumen", "plaque",
    "calcification", "shadow", "vessel", "right ventricle", "myocardium", "left ventricle", "papillary muscle",
    "uterine wall", "amniotic fluid", "skull", "brain", "ventricle", "choroid plexus", "midline",
)  # fmt: skip


class Phantom(Source):
    """Phantoms of `ussim.phantoms`: one subject each, of all kinds in turn, another for each seed."""

    name = "phantom"
    title = "procedural phantoms (ussim.phantoms)"
    licence = "CC0-1.0"
    citation = "ussim.phantoms: procedural phantoms for ultrasound"
    terms = "made by this program of no one's data: anyone may use the images and pass them on"
    redistributable = True
    layout = "nothing: phantoms are made, so many as are asked for"
    default_planes = (ACQUIRED,)
    needs_root = False
    makes_images = True
    side = SIDE
    labels = tuple(Label(value, name, color_of(value)) for value, name in enumerate(NAMES, start=1))

    def find(self, root: str | Path | None = None) -> Found:
        """List so many phantoms as are selected: the first are the same however many there are."""
        count = self.selection.count
        if count is None:
            raise DataError("phantom: there is no end of phantoms: expected how many are wanted, got no limit")
        kinds = self.selection.kinds or tuple(phantoms.names())
        refs = []
        for turn in range(count):
            number, place = divmod(turn, len(kinds))
            name = f"{kinds[place]}-{number:07d}"
            refs.append(VolumeRef(self.name, name, name, (f"{name} of seed {self.selection.seed}",)))
        return Found(refs)

    def load(self, ref: VolumeRef) -> Volume:
        """Make one phantom as a volume of one slice, its grey levels over 40 dB."""
        grey = self.scene(ref, 40.0).hq
        return Volume(
            ref.source, ref.subject, ref.name, grey[None], (None, None, None), ACQUIRED, self.identity(ref), ref.notes
        )

    def identity(self, ref: VolumeRef) -> str:
        """SHA-256 of what a phantom is made of: its kind, its number, the recipe's seed."""
        return hashlib.sha256(f"ussim.phantoms {ref.paths[0]}".encode()).hexdigest()

    def scene(self, ref: VolumeRef, dynamic_range_db: float) -> Scene:
        """Make one phantom: its image, its labels, what is silent in it and its points."""
        kind = ref.name.rpartition("-")[0]
        side = (0.0, 38e-3)  # m: sizes are shares of the field, whose own size the probe settles
        made = phantoms.make(kind, side, side, _seed(ref), SIDE)
        grey = np.clip(1 + made.level_db / dynamic_range_db, 0, 1)
        numbers = np.zeros(len(made.label_names) + 1, np.uint16)
        for number, name in enumerate(made.label_names, start=1):
            numbers[number] = NAMES.index("lesion" if name.startswith("lesion") else name) + 1
        silent = made.level_db <= phantoms.FLOOR_DB
        points = made.points.copy()
        # From pixel centers, of which the outermost lie on the field's ends, to shares from edge to edge.
        points[:, :2] = (points[:, :2] / side[1] * (SIDE - 1) + 0.5) / SIDE
        return Scene(
            np.rint(grey * 255).astype(np.uint8),
            numbers[made.labels],
            np.where(silent, 0, 1).astype(np.float32) if silent.any() else None,
            points if len(points) else None,
        )


def _seed(ref: VolumeRef) -> int:
    return stable_hash("phantom", ref.paths[0])
