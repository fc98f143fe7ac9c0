"""Scene of one sample: the HQ picture, and beside it what a grey level cannot say."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Label:
    """Name of one value of the labels, and its color in pictures."""

    value: int
    name: str
    color: tuple[int, int, int]  # red, green, blue, 0 to 255


@dataclass(frozen=True, eq=False)
class Scene:
    """A square image and what is known of it, all on its pixels.

    Attributes
    ----------
    hq : np.ndarray
        (n, n) uint8, the picture: what the network is to find.
    labels : np.ndarray, optional
        (n, n) uint16, what lies where; 0 is unnamed.
    density : np.ndarray, optional
        (n, n) float32, scatterers relative to the recipe's; 0 is silent, None is 1 everywhere.
    points : np.ndarray, optional
        (k, 3) single scatterers: place across and down as shares 0 to 1 of the image from edge to edge, and level, dB.
    loss : np.ndarray, optional
        (n, n) float32, dB/cm/MHz that echoes lose beyond what the time gain makes up for; below 0 they gain.
    """

    hq: np.ndarray
    labels: np.ndarray | None = None
    density: np.ndarray | None = None
    points: np.ndarray | None = None
    loss: np.ndarray | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the grey levels say all that shapes an ultrasound image of it."""
        return self.density is None and self.points is None and self.loss is None

    def picture(self, dynamic_range_db: float) -> np.ndarray:
        """Return the HQ image with its points as dots two pixels wide; white is 0 dB, black -`dynamic_range_db`."""
        if self.points is None or not len(self.points):
            return self.hq
        n = len(self.hq)
        place = np.arange(n)
        grey = self.hq.astype(np.float32)
        for x, z, level in self.points:
            dot = np.exp(-((place - (x * n - 0.5)) ** 2 + (place[:, None] - (z * n - 0.5)) ** 2) / 2)
            grey = np.maximum(grey, dot * 255 * np.clip(1 + level / dynamic_range_db, 0, 1))
        return np.rint(grey).astype(np.uint8)


def color_of(value: int) -> tuple[int, int, int]:
    """Return the color of a label that has none of its own: hues a golden angle apart, so that neighbors differ."""
    hue = value * 0.6180339887498949 % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.65, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)
