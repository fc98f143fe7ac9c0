"""Small pictures of slices that were left out, some for each reason: what a report shows of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ussim.volumes.grey import to_unit
from ussim.volumes.volume import Volume
from ussim.volumes.window import Window

from .slices import to_uint8

SIDE = 112  # pixels of the longer side
EACH = 4  # of each reason


@dataclass(frozen=True)
class LeftOut:
    """Picture of a slice that was left out, and the reason."""

    reason: str  # as it is counted
    volume: str
    plane: str
    slice: int
    png: str  # base64


def left_out(volume: Volume, window: Window, plane: str, index: int, reason: str) -> LeftOut:
    """Return the picture of a slice, under the window of its volume."""
    from PIL import Image

    values, _ = volume.slice(plane, index)
    picture = Image.fromarray(to_uint8(to_unit(np.asarray(values), window.grey)))
    picture.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return LeftOut(reason, volume.name, plane, index, base64.b64encode(content.getvalue()).decode())


def some(before: tuple[LeftOut, ...], more: Iterable[LeftOut]) -> tuple[LeftOut, ...]:
    """Return at most EACH of each reason, those that came before first."""
    kept = list(before)
    for example in more:
        if sum(other.reason == example.reason for other in kept) < EACH:
            kept.append(example)
    return tuple(kept)
