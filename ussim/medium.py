"""The medium that sound travels through."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .doors import check_speed

HIGHEST_EXPONENT = 6.0  # of backscatter: 4 is that of Rayleigh, none is higher but by chance


@dataclass(frozen=True)
class Medium:
    """A homogeneous medium with attenuation linear in frequency.

    Attributes
    ----------
    speed_of_sound : float
        m/s, 1540 by default.
    attenuation_db_cm_mhz : float
        dB/cm/MHz, at least 0; 0 by default.
    backscatter_exponent : float
        n of a backscatter coefficient (an intensity) in proportion to f^n: echoes have the amplitude (f / f_c)^(n/2), 1 at
        the probe's center frequency f_c. 4 of Rayleigh scatterers, 1 to 2 of most soft tissue; 0, the default: scatterers
        without a size, as in MUST. Of echoes alone, not of the pressure.

    Raises
    ------
    ValueError
        A value is out of range.
    """

    speed_of_sound: float = 1540.0
    attenuation_db_cm_mhz: float = 0.0
    backscatter_exponent: float = 0.0

    def __post_init__(self) -> None:
        check_speed(self.speed_of_sound)
        if not (np.isfinite(self.attenuation_db_cm_mhz) and self.attenuation_db_cm_mhz >= 0):
            raise ValueError(
                f"attenuation_db_cm_mhz: expected a number of at least 0, got {self.attenuation_db_cm_mhz!r}"
            )
        if not (np.isfinite(self.backscatter_exponent) and 0 <= self.backscatter_exponent <= HIGHEST_EXPONENT):
            raise ValueError(
                f"backscatter_exponent: expected a number of 0 to {HIGHEST_EXPONENT:g}, got {self.backscatter_exponent!r}"
            )
