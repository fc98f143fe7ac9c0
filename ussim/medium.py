"""The medium that sound travels through."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .doors import check_speed


@dataclass(frozen=True)
class Medium:
    """A homogeneous medium with attenuation linear in frequency.

    Attributes
    ----------
    speed_of_sound : float
        m/s, 1540 by default.
    attenuation_db_cm_mhz : float
        dB/cm/MHz, at least 0; 0 by default.

    Raises
    ------
    ValueError
        A value is out of range.
    """

    speed_of_sound: float = 1540.0
    attenuation_db_cm_mhz: float = 0.0

    def __post_init__(self) -> None:
        check_speed(self.speed_of_sound)
        if not (np.isfinite(self.attenuation_db_cm_mhz) and self.attenuation_db_cm_mhz >= 0):
            raise ValueError(
                f"attenuation_db_cm_mhz: expected a number of at least 0, got {self.attenuation_db_cm_mhz!r}"
            )
