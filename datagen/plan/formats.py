"""Formats of a dataset: by which rules a store's images are made. A store keeps the format that it was begun with.

    1   MUST's sub-elements; receive aperture from the elements' directivity; envelope at the pixel centers alone
    2   converged sub-elements; all elements receive where their pitch makes no grating lobes; envelope detected on a grid
        fine enough for the band, each pixel the peak of its cell; the mask follows the f-number of the images

    3   as 2, of datasets with augmentations: the table says how each variant was made, and the size of its pixels

The number is recorded in the recipe of a store (`format`); a record without one is of format 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import ussim

FORMAT = 2  # of new stores
AUGMENTED = 3  # of new stores with augmentations


@dataclass(frozen=True)
class Rules:
    """Rules that a format settles."""

    n_subelements: Literal["must"] | None  # of an acquisition; None: converged
    fine: tuple[int, int] | None  # samples of the envelope per pixel, z and x; None: from the probe's resolution
    by_directivity: bool  # whether every probe's receive aperture is limited by its elements' directivity
    tells_variants: bool = False  # whether the table says how each variant was made

    def f_number(self, asked: float | None, probe: ussim.Probe, speed_of_sound: float) -> float | None:
        """Return the f-number of some settings as `delay_and_sum` takes it."""
        if asked is None and self.by_directivity:
            from ussim.beamforming.apertures import directivity_f_number

            return directivity_f_number(probe, speed_of_sound)
        return asked

    def mask_f_number(self, asked: float | None, acquisition: ussim.Acquisition) -> float | None:
        """Return the f-number that `field_mask` takes: format 1 knows no f-number but the directivity's there."""
        return self.f_number(
            None if self.by_directivity else asked, acquisition.probe, acquisition.medium.speed_of_sound
        )


_RULES = {
    1: Rules("must", (1, 1), True),
    2: Rules(None, None, False),
    3: Rules(None, None, False, tells_variants=True),
}


def format_for(augmentations: int, newest: int = FORMAT) -> int:
    """Return the format of a new store with so many variants of each image."""
    return AUGMENTED if augmentations and newest == FORMAT else newest


def rules_of(number: int) -> Rules:
    """Return the rules of a format; raises ValueError of one that this version does not know."""
    if number not in _RULES:
        raise ValueError(
            f"format: expected one of {', '.join(map(str, _RULES))}, got {number!r}: a store of a newer version of datagen?"
        )
    return _RULES[number]
