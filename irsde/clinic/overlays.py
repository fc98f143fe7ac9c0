"""Borders, captions, rulers and sectors, drawn as scanners draw them: training pastes them onto LQ and HQ alike.

So that a network can learn that they are no echoes and come back as they went in. Statistics of the grey levels are those
of the echoes alone, before anything is pasted.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLACK_BORDERS = 0.8  # of the borders; the others are of one dark grey
CAPTIONED_BORDERS = 0.5
WIDEST_BORDER = 0.75  # of the patch, two sides together by 5 % more
CHARACTERS = np.array(list(string.ascii_letters + string.digits + ".:-/ "))


@dataclass(frozen=True, eq=False)
class Overlay:
    """Overlay drawn over a picture.

    Attributes
    ----------
    opacity : (nz, nx) float32 in [0, 1], 0 where the picture stays.
    grey : (nz, nx) float32 in [0, 1], the level that is drawn.
    """

    opacity: NDArray[np.float32]
    grey: NDArray[np.float32]

    def paste(self, image: NDArray, mean: float = 0.0, std: float = 1.0) -> NDArray[np.float32]:
        """Return a picture (nz, nx) with the overlay on it, in the units (grey level - mean) / std that it has."""
        drawn = (self.grey - np.float32(mean)) / np.float32(std)
        return (image + self.opacity * (drawn - image)).astype(np.float32)

    def over(self, below: Overlay) -> Overlay:
        """Return this overlay drawn on another one."""
        opacity = self.opacity + below.opacity * (1 - self.opacity)
        mixed = self.opacity * self.grey + below.opacity * (1 - self.opacity) * below.grey
        return Overlay(opacity, np.divide(mixed, opacity, out=np.zeros_like(mixed), where=opacity > 0))


def draw_overlay(shape: tuple[int, int], rng: np.random.Generator) -> Overlay:
    """Draw a border, a caption, a ruler or a sector for a patch (nz, nx), all four alike often."""
    kinds: tuple[Callable[[tuple[int, int], np.random.Generator], Overlay], ...] = (border, caption, ruler, sector)
    return kinds[int(rng.integers(len(kinds)))](shape, rng)


def border(shape: tuple[int, int], rng: np.random.Generator) -> Overlay:
    """Draw a border along one side or two, up to four fifths of the patch, half of them with a caption in it."""
    covered = np.zeros(shape, dtype=bool)
    widest = WIDEST_BORDER
    for side in rng.permutation(4)[: int(rng.integers(1, 3))]:
        share = rng.uniform(0.05, widest)
        widest = max(0.05, widest - share)
        n = max(1, round(share * shape[side % 2]))
        strip = slice(None, n) if side < 2 else slice(-n, None)
        covered[(strip, slice(None)) if side % 2 == 0 else (slice(None), strip)] = True
    level = 0.0 if rng.random() < BLACK_BORDERS else rng.uniform(0, 0.25)
    drawn = _of(covered, level)
    if rng.random() < CAPTIONED_BORDERS:
        text = caption(shape, rng)
        drawn = Overlay(text.opacity * covered, text.grey).over(drawn)
    return drawn


def caption(shape: tuple[int, int], rng: np.random.Generator) -> Overlay:
    """Draw one to three lines of light letters and digits, antialiased."""
    from PIL import Image, ImageDraw

    picture = Image.new("L", shape[::-1])
    pen = ImageDraw.Draw(picture)
    size = int(rng.integers(7, 17))
    x, y = int(rng.integers(-size, max(1, shape[1] // 2))), int(rng.integers(0, max(1, shape[0] - size)))
    for line in range(int(rng.integers(1, 4))):
        text = "".join(rng.choice(CHARACTERS, int(rng.integers(2, 13))))
        pen.text((x, y + line * (size + 2)), text, fill=255, font=_font(size))
    return _light(np.asarray(picture, np.float32) / np.float32(255), rng)


def ruler(shape: tuple[int, int], rng: np.random.Generator) -> Overlay:
    """Draw a scale with ticks down or across the patch, or two caliper marks joined by a dotted line."""
    opacity = np.zeros(shape, np.float32)
    if rng.random() < 0.5:
        scale = opacity if rng.random() < 0.5 else opacity.T  # down or across, in place
        at, spacing = int(rng.integers(0, scale.shape[1])), int(rng.integers(4, 17))
        for tick, row in enumerate(range(int(rng.integers(0, spacing)), scale.shape[0], spacing)):
            scale[row, at : at + (6 if tick % 5 == 0 else 3)] = 1
        if rng.random() < 0.5:
            scale[:, at] = 1
    else:
        ends = rng.uniform(0, 1, (2, 2)) * (np.array(shape) - 1)
        for along in np.arange(0, 1, int(rng.integers(2, 6)) / max(float(np.hypot(*(ends[1] - ends[0]))), 1.0)):
            opacity[tuple(np.round(ends[0] + along * (ends[1] - ends[0])).astype(int))] = 1
        for z, x in np.round(ends).astype(int):
            opacity[max(0, z - 3) : z + 4, x] = opacity[z, max(0, x - 3) : x + 4] = 1
    return _light(opacity, rng)


def sector(shape: tuple[int, int], rng: np.random.Generator) -> Overlay:
    """Draw black outside of a sector or a wedge whose edges cross the patch."""
    z, x = np.indices(shape, np.float32)
    depth, width = shape
    apex_z, apex_x = -rng.uniform(0.05, 1.5) * depth, rng.uniform(0.2, 0.8) * width
    angle, radius = np.arctan2(x - apex_x, z - apex_z), np.hypot(x - apex_x, z - apex_z)
    middle = np.arctan2(rng.uniform(0.3, 0.7) * width - apex_x, 0.5 * depth - apex_z)
    half = rng.uniform(0.3, 0.9) * np.arctan2(0.5 * width, 0.5 * depth - apex_z)
    near, far = -apex_z + rng.uniform(-0.2, 0.2) * depth, -apex_z + rng.uniform(0.7, 1.3) * depth
    inside = (np.abs(angle - middle) < half) & (radius > near) & (radius < far)
    return _of(~inside, 0.0)


def _of(covered: NDArray[np.bool_], level: float) -> Overlay:
    """One grey level over some pixels."""
    return Overlay(covered.astype(np.float32), np.full(covered.shape, level, np.float32))


def _light(opacity: NDArray[np.float32], rng: np.random.Generator) -> Overlay:
    """Lines of one light grey."""
    return Overlay(opacity, np.full(opacity.shape, rng.uniform(0.6, 1.0), np.float32))


@cache
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size=size)
