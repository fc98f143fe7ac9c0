"""Display of the expected image and its speckle as a scanner makes it: looks, gain, tone, sharpness; random, for training.

    look = draw_look(rng)
    lq, other, expected = show(expected_db, [speckle_db, other_db], look, rng)

Everything is done to the speckled and to the expected image alike, so that one stays the mean of the other.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from irsde.target import displayed_mean

Image = NDArray[np.float32]
SPAN_DB = 130.0  # below the largest, tabulated


@dataclass(frozen=True)
class Look:
    """One scanner's picture.

    Attributes
    ----------
    speckle : share of the speckle about the expected image: frames and angles are compounded.
    dynamic_range : dB from white to black.
    reference : dB of white over the percentile below.
    percentile : of the first speckled image.
    gain : dB more at the end of the depth than at its start, and in its middle.
    gamma : exponent of the grey levels.
    curve : slope of an S-curve about the middle grey, less than 0 flatter.
    black : grey level of black.
    blur : pixels, standard deviation, in depth and across; 0 = none.
    sharpen : share of what a blur takes away that is added.
    quality : of JPEG; 0 = none.
    """

    speckle: float = 1.0
    dynamic_range: float = 50.0
    reference: float = 0.0
    percentile: float = 99.0
    gain: tuple[float, float] = (0.0, 0.0)
    gamma: float = 1.0
    curve: float = 0.0
    black: float = 0.0
    blur: tuple[float, float] = (0.0, 0.0)
    sharpen: float = 0.0
    quality: int = 0

    def tone(self, level: NDArray) -> NDArray:
        """Grey levels of levels relative to white, 0 white and -1 black."""
        grey = np.clip(1 + level, 0, 1) ** self.gamma
        if self.curve:
            grey = grey + self.curve * grey * (1 - grey) * (2 * grey - 1)
        return self.black + (1 - self.black) * grey


PLAIN = Look(dynamic_range=40.0, percentile=100.0)  # of the pairs that `datagen build` makes


def draw_look(rng: np.random.Generator) -> Look:
    """Draw a scanner's picture; one in four is a plain one of the simulation."""
    if rng.random() < 1 / 4:
        brightest = rng.random() < 0.7
        return Look(
            dynamic_range=float(rng.uniform(35, 65)), percentile=100.0 if brightest else float(rng.uniform(99, 100))
        )
    blurs, sharpens, coded = rng.random(3)
    return Look(
        speckle=float(rng.choice((1.0, rng.uniform(0.2, 1.0)), p=(0.3, 0.7))),
        dynamic_range=float(rng.uniform(30, 80)),
        reference=float(rng.uniform(-6, 10)),
        percentile=float(rng.uniform(97, 100)),
        gain=(float(rng.uniform(-10, 10)), float(rng.uniform(-5, 5))),
        gamma=float(np.exp(rng.uniform(np.log(0.6), np.log(1.65)))),
        curve=float(rng.uniform(-0.8, 1.0)) if rng.random() < 0.4 else 0.0,
        black=float(rng.uniform(0, 0.08)) if rng.random() < 0.3 else 0.0,
        blur=(float(rng.uniform(0.3, 0.9)), float(rng.uniform(0.3, 1.3))) if blurs < 0.3 else (0.0, 0.0),
        sharpen=float(rng.uniform(0.2, 1.0)) if sharpens < 0.25 else 0.0,
        quality=int(rng.integers(35, 96)) if coded < 0.4 else 0,
    )


def show(
    expected_db: Image, speckle_db: Sequence[Image], look: Look, rng: np.random.Generator | None = None
) -> tuple[list[Image], Image]:
    """Return the speckled images and the expected one as a scanner shows them.

    Parameters
    ----------
    expected_db : (nz, nx), dB.
    speckle_db : (nz, nx) each, dB about the expected image.

    Returns
    -------
    Speckled images, coded in 8 bits, the first as JPEG where the look has it; and the expected image, their mean.
    """
    depth = np.linspace(-1, 1, expected_db.shape[0], dtype=np.float32)[:, None]
    expected = expected_db + np.float32(0.5 * look.gain[0]) * depth + np.float32(look.gain[1]) * (1 - depth**2)
    white = float(np.percentile(expected + look.speckle * speckle_db[0], look.percentile)) + look.reference
    mean = displayed_mean(
        lambda level: look.tone(level / look.dynamic_range), -SPAN_DB, 40.0, look.speckle, 341
    )  # every half dB
    shown = [look.tone((expected + look.speckle * s - white) / look.dynamic_range) for s in speckle_db]
    images = [_optics(image.astype(np.float32), look) for image in (*shown, mean(expected - white))]
    *lqs, clean = images
    lqs = [np.round(lq * 255) / np.float32(255) for lq in lqs]
    if look.quality:
        lqs[0] = jpeg(lqs[0], look.quality)
    return lqs, clean


def _optics(image: Image, look: Look) -> Image:
    """Blur or sharpen; linear, so that the mean stays the mean, but for what is cut off."""
    if look.blur != (0.0, 0.0):
        image = ndimage.gaussian_filter(image, look.blur, mode="nearest")
    if look.sharpen:
        image = image + np.float32(look.sharpen) * (image - ndimage.gaussian_filter(image, 1.0, mode="nearest"))
        image = np.clip(image, 0, 1)
    return image


def jpeg(image: Image, quality: int) -> Image:
    """Return an image in [0, 1] after coding and decoding it."""
    from PIL import Image as picture

    with io.BytesIO() as file:
        picture.fromarray(np.round(image * 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
        file.seek(0)
        return np.asarray(picture.open(file), np.float32) / np.float32(255)
