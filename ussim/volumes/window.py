"""Grey window of a volume: evidence weighed, and what the choice was made by.

percentile   of the foreground, what is padding left aside (`grey_range`)
voi          the window that the files say an image is to be shown with: DICOM's VOI window, NIfTI's cal_min and cal_max
LOW,HIGH     the values given
auto         percentile; the files' window where the other would leave most of the greys unused
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError, DataError
from .grey import grey_range, sampled, tissue_threshold, to_unit, without_padding
from .volume import Volume

CHOICES = ("auto", "voi", "percentile")
USED_SHARE = 0.25  # of the greys: an image whose anatomy lies in fewer is reported, and `auto` looks for another window
NOISE = 0.1  # of white: a slice that stays below, and below what the volume has for tissue, shows noise


@dataclass(frozen=True)
class Window:
    """Black and white of a volume."""

    low: float
    high: float
    by: str  # "percentile", "voi" or "given"
    noise: float = 0.0  # grey in [0, 1] below which a whole slice is noise
    used: float = 1.0  # share of the greys that the middle 98 % of the foreground takes
    notes: tuple[str, ...] = ()

    @property
    def grey(self) -> tuple[float, float]:
        """The values that become black and white."""
        return self.low, self.high


def window_asked(text: str) -> str:
    """Return a choice of window as it is recorded; raises ConfigError where it is none."""
    if text in CHOICES:
        return text
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = np.nan
    if not (np.isfinite([low, high]).all() and low < high):
        raise ConfigError(
            f"window: expected auto, voi, percentile or LOW,HIGH (numbers, the lower first), got {text!r}"
        )
    return f"{low:g},{high:g}"


def window_of(volume: Volume, choice: str = "auto") -> Window:
    """Return the window of a volume.

    Parameters
    ----------
    choice : "auto", "voi", "percentile" or "LOW,HIGH".

    Raises
    ------
    DataError
        All voxels have the same value, or the files have no window and "voi" was asked for.
    """
    values = sampled(volume)
    kept, padding = without_padding(values)
    notes = [] if padding is None else [f"padding of {padding:g} around the image: no part of the grey range"]
    if choice == "voi" and volume.window is None:
        raise DataError(f"{volume.source} {volume.name}: no VOI window in its files: --window percentile or LOW,HIGH")
    automatic = grey_range(volume)
    if choice in ("auto", "percentile"):
        low, high, by = *automatic, "percentile"
    elif choice == "voi" and volume.window is not None:
        low, high, by = *volume.window, "voi"
    else:
        low, high = (float(part) for part in choice.split(","))
        by = "given"
    threshold = tissue_threshold(kept)
    tissue = kept[kept > threshold]
    used = _used(tissue, (low, high))
    if choice == "auto" and used < USED_SHARE and volume.window is not None:
        other = _used(tissue, volume.window)
        if other > used:
            low, high, by, used = *volume.window, "voi", other
            notes.append("window of the files used: by percentiles most of the greys would be unused")
    if used < USED_SHARE:
        notes.append(f"the anatomy takes {used:.0%} of the greys between {low:g} and {high:g}: --window sets others")
    noise = float(np.clip((threshold - low) / (high - low), 0, NOISE))
    return Window(low, high, by, noise, used, tuple(notes))


def is_noise(image: np.ndarray, window: Window) -> bool:
    """Return whether a slice in [0, 1] holds nothing above the noise of its volume: 99 % of it are darker."""
    return window.noise > 0 and float(np.percentile(image, 99)) < window.noise


def _used(values: np.ndarray, grey: tuple[float, float]) -> float:
    """Share of the greys that the middle 98 % of some values take."""
    if not values.size:
        return 0.0
    first, last = np.percentile(to_unit(values, grey), (1, 99))
    return float(last - first)
