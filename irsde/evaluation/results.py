"""Results of an evaluation: a value for each method, image and metric, and how well variances tell errors."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]


@dataclass
class Row:
    """One method on one set of images: a value an image and metric."""

    method: str
    group: str  # probe, or the name of a folder of real images
    steps: int | None
    note: str
    values: dict[str, list[float]] = field(default_factory=dict)

    def mean(self, name: str) -> float:
        """Over the images for which the metric is a number; NaN where there is none."""
        values = self.finite(name)
        return float(values.mean()) if values.size else math.nan

    def median(self, name: str) -> float:
        """Over the images for which the metric is a number; NaN where there is none."""
        values = self.finite(name)
        return float(np.median(values)) if values.size else math.nan

    def std(self, name: str) -> float:
        """Over the images for which the metric is a number; NaN where there is none."""
        values = self.finite(name)
        return float(values.std()) if values.size else math.nan

    def finite(self, name: str) -> NDArray[np.float64]:
        """Return the values that are numbers: NaN is of a metric that says nothing there, infinity of equal images."""
        values = np.asarray(self.values.get(name, ()), np.float64)
        return values[np.isfinite(values)]


@dataclass(frozen=True)
class Uncertainty:
    """Variance over several restorations against their error: one point per image."""

    name: str
    group: str
    variance: NDArray[np.float64]  # mean over pixels of the variance over members
    error: NDArray[np.float64]  # mean squared error of the members' mean

    def correlation(self, kind: str, n_bootstrap: int = 2000, seed: int = 0) -> tuple[float, float, float]:
        """Pearson or Spearman coefficient with its 95 % bootstrap interval over images; NaN for fewer than four."""
        from scipy import stats

        x, y = (stats.rankdata(v) if kind == "spearman" else v for v in (self.variance, self.error))
        if len(x) < 4:
            return math.nan, math.nan, math.nan
        picks = np.random.default_rng(seed).integers(0, len(x), (n_bootstrap, len(x)))
        if kind == "spearman":
            a, b = stats.rankdata(self.variance[picks], axis=1), stats.rankdata(self.error[picks], axis=1)
        else:
            a, b = x[picks], y[picks]
        drawn = _pearson(a, b)
        drawn = drawn[np.isfinite(drawn)]  # a draw of one image only has no correlation
        low, high = np.percentile(drawn, (2.5, 97.5)) if drawn.size else (math.nan, math.nan)
        return float(_pearson(x[None], y[None])[0]), float(low), float(high)


@dataclass(frozen=True)
class Coverage:
    """Share of HQ grey levels that intervals held, over the pixels of one subject.

    Attributes
    ----------
    subject : str
    images, pixels : int
    inside, below, above : float
        Shares of the pixels whose HQ grey level the interval holds, or lies below or above it.
    width : float
        Mean width, grey levels in [0, 1].
    """

    subject: str
    images: int
    pixels: int
    inside: float
    below: float
    above: float
    width: float


@dataclass
class Result:
    """Everything a report shows."""

    rows: list[Row] = field(default_factory=list)
    uncertainty: list[Uncertainty] = field(default_factory=list)
    pictures: dict[str, list[list[tuple[str, Image]]]] = field(
        default_factory=dict
    )  # group -> images -> (title, image)
    not_run: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # lines about pairs without contrast
    sources: list[str] = field(default_factory=list)
    patches: dict[str, Counter[str]] = field(
        default_factory=dict
    )  # group of real images -> patches: images, kept, refused
    coverage: list[Coverage] = field(default_factory=list)
    intervals: str = ""  # what they are, in words
    pixels: str = "field"  # that PSNR and SSIM are of; "all"


def percent(share: float) -> str:
    """Return a share in words."""
    return f"{share:.1%}".replace("%", " %")


def _pearson(x: NDArray, y: NDArray) -> NDArray:
    """Of each row."""
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
