"""Training batches of the shipped model: cuts of examples, resampled to another grain and shown by another scanner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from irsde.clinic.display import draw_look, show
from irsde.clinic.overlays import border, caption, ruler, sector
from irsde.shipped.examples import Examples
from irsde.target import expected_image, grain_covariance

Image = NDArray[np.float32]
GRAIN = ((1.1, 5.0), (1.3, 12.0))  # pixels, width of the speckle's autocorrelation at half height, in depth and across
ZOOM = (0.6, 2.4)  # pixels of a cut over those of the example
RATIO = 1.6  # between the zooms of the two axes, at most
OVERLAYS = 0.4
KINDS, SHARES = (caption, ruler, border, sector), (0.4, 0.35, 0.15, 0.1)
JITTER = 0.3  # of the standardization: a cut's mean and deviation are not those of the picture that it is of
FLOOR = 0.02  # of grey levels in [0, 1]: the smallest standard deviation that is divided by


@dataclass(frozen=True, eq=False)
class Prepared:
    """One example taken apart.

    Attributes
    ----------
    expected_db : (nz, nx).
    speckle_db : (draws, nz, nx), about it.
    grain : pixels, width of the speckle's autocorrelation at half height, in depth and across.
    """

    expected_db: Image
    speckle_db: Image
    grain: tuple[float, float]


def prepare(examples: Examples) -> list[Prepared]:
    """Fit the expected image of each example."""
    prepared = []
    for example, hq, envelope in zip(examples.plan, examples.hq, examples.envelope_db, strict=True):
        expected = expected_image(envelope, hq, example.contrast).expected_db
        speckle = envelope.astype(np.float32) - expected
        widths = 2.355 * np.sqrt(np.diag(grain_covariance(speckle - speckle.mean(axis=0))))
        prepared.append(Prepared(expected, speckle, (float(widths[0]), float(widths[1]))))
    return prepared


def lesson(example: Prepared, patch: int, rng: np.random.Generator) -> tuple[Image, Image, Image]:
    """Draw one cut: LQ, another draw, and the expected image, in units of LQ's mean and standard deviation."""
    sides = _sides(example, patch, rng)
    start = [int(rng.integers(n - side + 1)) for n, side in zip(example.expected_db.shape, sides, strict=True)]
    cut = (slice(start[0], start[0] + sides[0]), slice(start[1], start[1] + sides[1]))
    flip = slice(None, None, 1 if rng.random() < 0.5 else -1)
    order = rng.permutation(len(example.speckle_db))[:2]
    layers = [example.expected_db[cut], *(example.speckle_db[k][cut] for k in order)]
    expected, first, second = (resampled(np.ascontiguousarray(layer[:, flip]), patch) for layer in layers)
    (lq, other), clean = show(expected, [first, second], draw_look(rng), rng)
    if rng.random() < OVERLAYS:
        for _ in range(int(rng.integers(1, 3))):
            overlay = KINDS[int(rng.choice(len(KINDS), p=SHARES))](lq.shape, rng)
            lq, other, clean = (overlay.paste(image) for image in (lq, other, clean))
    mean, std = statistics(lq)
    mean, std = mean + JITTER * std * rng.uniform(-1, 1), std * np.exp(JITTER * rng.uniform(-1, 1))
    return tuple(((image - mean) / std).astype(np.float32) for image in (lq, other, clean))  # type: ignore[return-value]


def statistics(image: Image) -> tuple[float, float]:
    """Mean and standard deviation by which an image is standardized."""
    return float(image.mean(dtype=np.float64)), max(float(image.std(dtype=np.float64)), FLOOR)


def resampled(image: Image, side: int) -> Image:
    """Return an image stretched or shrunk to a square."""
    from PIL import Image as picture

    if image.shape == (side, side):
        return image
    return np.asarray(picture.fromarray(image).resize((side, side), picture.Resampling.BICUBIC))


def _sides(example: Prepared, patch: int, rng: np.random.Generator) -> tuple[int, int]:
    """Rows and columns to cut, so that the grain comes out as a clinical picture may have it; one in three as it is."""
    if rng.random() < 1 / 3:
        return patch, patch
    zoom = np.exp(rng.uniform(*np.log(ZOOM)))
    ratio = np.exp(rng.uniform(-0.5, 0.5) * np.log(RATIO))
    sides = []
    for n, grain, limits, factor in zip(
        example.expected_db.shape, example.grain, GRAIN, (zoom * ratio, zoom / ratio), strict=True
    ):
        factor = np.clip(factor, limits[0] / grain, max(limits[1] / grain, patch / n))
        sides.append(int(np.clip(round(patch / factor), 16, n)))
    return sides[0], sides[1]
