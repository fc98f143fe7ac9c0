"""Diversified imaging: ranges from which a sample's acquisition is drawn, so that a network meets more than one machine.

The file behind `--randomize` names ranges, each [low, high], drawn uniformly and independently for each sample and probe:

    speed_of_sound = [1480, 1600]              # m/s of the medium
    speed_of_sound_error = [-0.03, 0.03]       # the beamformer believes this fraction more than the medium has
    attenuation_db_cm_mhz = [0.0, 0.8]
    snr_db = [20, 60]                          # of the channel data
    dynamic_range_db = [35, 60]                # of the scatterers and of the display
    max_angle_deg = [6, 16]
    mean_distance_wavelengths = [0.5, 1.2]     # between scatterers
    center_frequency_fraction = [-0.05, 0.05]  # jitter of the probe
    bandwidth_fraction = [-0.1, 0.1]
    f_number = [0.8, 2.0]
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

Range = tuple[float, float] | None

# What a drawn value may be, beyond low <= high.
_BOUNDS = {
    "speed_of_sound": (500.0, 5000.0),
    "speed_of_sound_error": (-0.5, 0.5),
    "attenuation_db_cm_mhz": (0.0, 20.0),
    "snr_db": (-40.0, 200.0),
    "dynamic_range_db": (1.0, 200.0),
    "max_angle_deg": (0.0, 89.0),
    "mean_distance_wavelengths": (0.05, 20.0),
    "center_frequency_fraction": (-0.5, 0.5),
    "bandwidth_fraction": (-0.9, 0.9),
    "f_number": (0.1, 20.0),
}


class Ranges(BaseModel):
    """Ranges (low, high) of what is drawn for each sample; None is not drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    speed_of_sound: Range = None
    speed_of_sound_error: Range = None
    attenuation_db_cm_mhz: Range = None
    snr_db: Range = None
    dynamic_range_db: Range = None
    max_angle_deg: Range = None
    mean_distance_wavelengths: Range = None
    center_frequency_fraction: Range = None
    bandwidth_fraction: Range = None
    f_number: Range = None

    @model_validator(mode="after")
    def _within_bounds(self) -> Ranges:
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not least <= value[0] <= value[1] <= most:
                raise ValueError(
                    f"randomize.{name}: expected [low, high] with {least:g} <= low <= high <= {most:g}, got {list(value)}"
                )
        if not self.names:
            raise ValueError(f"randomize: expected at least one range of {', '.join(_BOUNDS)}, got none")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """What is drawn, in a fixed order."""
        return tuple(name for name in _BOUNDS if getattr(self, name) is not None)

    @property
    def attenuates(self) -> bool:
        """Whether attenuation may be drawn above 0."""
        return self.attenuation_db_cm_mhz is not None and self.attenuation_db_cm_mhz[1] > 0

    def draw(self, rng: np.random.Generator) -> dict[str, float]:
        """One value a range. Each has a number of the stream to itself, so that adding a range changes no other value."""
        place = rng.random(len(_BOUNDS))
        values = {}
        for share, name in zip(place, _BOUNDS, strict=True):
            limits = getattr(self, name)
            if limits is not None:
                # Six digits are what the table of samples records: the drawn value is the recorded one.
                values[name] = float(f"{limits[0] + share * (limits[1] - limits[0]):.6g}")
        return values
