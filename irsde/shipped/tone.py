"""Grey levels of MRI from those of a restored picture: a rising curve of 64 levels per probe, fitted behind the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from irsde.clinic.display import PLAIN, show
from irsde.shipped.examples import Example, Examples
from irsde.shipped.lessons import Prepared
from irsde.target import monotone

LEVELS = 64
Image = NDArray[np.float32]


def displayed(examples: Examples, prepared: Sequence[Prepared]) -> list[tuple[Example, Image, Image, Image]]:
    """Return each example as `datagen build` displays it: (example, HQ, LQ, expected image)."""
    shown = []
    for example, hq, own in zip(examples.plan, examples.hq, prepared, strict=True):
        (lq,), expected = show(own.expected_db, [own.speckle_db[0]], PLAIN)
        shown.append((example, hq.astype(np.float32) / np.float32(255), lq, expected))
    return shown


def fit_tone(pairs: Iterable[tuple[Image, Image]]) -> list[float]:
    """Return the rising curve that brings restored images nearest to HQ images in squared error: its value per level.

    Parameters
    ----------
    pairs : (restored, HQ), each (nz, nx) in [0, 1].
    """
    total, count = np.zeros(LEVELS), np.zeros(LEVELS)
    for restored, hq in pairs:
        index = np.minimum((restored * LEVELS).astype(int), LEVELS - 1).ravel()
        total += np.bincount(index, hq.ravel(), LEVELS)
        count += np.bincount(index, minlength=LEVELS)
    return [round(float(value), 4) for value in monotone(total / np.maximum(count, 1), count)]


def toned(image: Image, curve: Sequence[float]) -> Image:
    """Return an image in [0, 1] after a curve."""
    centers = (np.arange(len(curve)) + 0.5) / len(curve)
    return np.interp(image, centers, curve).astype(np.float32)


def fit_tones(
    restore: Callable[[Image], Image], shown: Sequence[tuple[Example, Image, Image, Image]]
) -> dict[str, list[float]]:
    """Return the curve of each probe, and "all" of all, on images of MRI."""
    results = [(example.probe, restore(lq), hq) for example, hq, lq, _ in shown if example.subject != "phantom"]
    curves = {"all": fit_tone((restored, hq) for _, restored, hq in results)}
    for probe in sorted({probe for probe, _, _ in results}):
        curves[probe] = fit_tone((restored, hq) for own, restored, hq in results if own == probe)
    return curves
