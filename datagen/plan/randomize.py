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
    zoom = [1, 5]                              # the field is this many times smaller than the probe's own
    zoom_x = [0, 1]                            # where in the probe's own: 0 left, 1 right, 0.5 where not drawn
    zoom_z = [0, 1]                            # 0 near the probe, 1 at the far end, 0.5 where not drawn
    n_transmits = [1, 15]                      # whole numbers
    width_deg = [50, 80]                       # of a diverging wave
    n_cycles = [1, 3]                          # of the carrier in the excitation
    scatterer_range_db = [30, 60]              # of the scatterers alone; dynamic_range_db is then the display's
    gain_db = [-10, 10]                        # of the display: white is this far below the brightest echo
    backscatter_exponent = [0, 4]              # n of tissue that scatters with f^n
    aberration_ns = [0, 70]                    # RMS delay of a phase screen at the array, each way
    aberration_length_mm = [2, 8]              # its correlation length, 4 where not drawn
    gain_spread_db = [0, 3]                    # standard deviation of the elements' gains, each way
    dead_fraction = [0, 0.05]                  # of the elements
    noise_bandwidth = [0.5, 1.5]               # of the noise, of the center frequency; 2, white, where not drawn
    tgc_spread_db = [0, 4]                     # standard deviation of eight time-gain sliders about their right places
    jitter_ns = [0, 0.5]                       # RMS of the sampling times' errors
    n_bits = [8, 14]                           # of the converter; whole numbers
    headroom_db = [-6, 12]                     # its full scale above the largest echo; below 0 clips

Which screen, gains, dead elements and sliders a sample has is drawn with them: `hardware_seed` of the table of samples.
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
    # New ones at the end: each has its place in the random stream.
    "zoom": (1.0, 10.0),
    "zoom_x": (0.0, 1.0),
    "zoom_z": (0.0, 1.0),
    "n_transmits": (1.0, 1024.0),
    "width_deg": (1.0, 179.0),
    "n_cycles": (0.5, 32.0),
    "scatterer_range_db": (1.0, 200.0),
    "gain_db": (-60.0, 60.0),
    "backscatter_exponent": (0.0, 6.0),
    "aberration_ns": (0.0, 1000.0),
    "aberration_length_mm": (0.1, 100.0),
    "gain_spread_db": (0.0, 20.0),
    "dead_fraction": (0.0, 0.9),
    "noise_bandwidth": (0.01, 2.0),
    "tgc_spread_db": (0.0, 20.0),
    "jitter_ns": (0.0, 100.0),
    "n_bits": (2.0, 24.0),
    "headroom_db": (-60.0, 60.0),
}
# What is drawn in a machine of its own for each sample, and the number that says which.
_HARDWARE = ("aberration_ns", "gain_spread_db", "dead_fraction", "tgc_spread_db")
HARDWARE_SEED = "hardware_seed"
# What means nothing without another.
_NEEDS = {"aberration_length_mm": "aberration_ns", "headroom_db": "n_bits"}
# Places in the random stream.
_PLACES = (*list(_BOUNDS)[:18], HARDWARE_SEED, *list(_BOUNDS)[18:])
_ALWAYS = frozenset(list(_BOUNDS)[:10])  # recorded also where they are not drawn, as the first stores did
_WHOLE = frozenset({"n_transmits", "n_bits"})  # drawn among whole numbers, both ends included


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
    zoom: Range = None
    zoom_x: Range = None
    zoom_z: Range = None
    n_transmits: Range = None
    width_deg: Range = None
    n_cycles: Range = None
    scatterer_range_db: Range = None
    gain_db: Range = None
    backscatter_exponent: Range = None
    aberration_ns: Range = None
    aberration_length_mm: Range = None
    gain_spread_db: Range = None
    dead_fraction: Range = None
    noise_bandwidth: Range = None
    tgc_spread_db: Range = None
    jitter_ns: Range = None
    n_bits: Range = None
    headroom_db: Range = None

    @model_validator(mode="after")
    def _within_bounds(self) -> Ranges:
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not least <= value[0] <= value[1] <= most:
                raise ValueError(
                    f"randomize.{name}: expected [low, high] with {least:g} <= low <= high <= {most:g}, got {list(value)}"
                )
            if value is not None and name in _WHOLE and any(limit != int(limit) for limit in value):
                raise ValueError(f"randomize.{name}: expected whole numbers [low, high], got {list(value)}")
        for name, needed in _NEEDS.items():
            if getattr(self, name) is not None and getattr(self, needed) is None:
                raise ValueError(f"randomize.{name}: expected {needed} with it, got none")
        if not self.names:
            raise ValueError(f"randomize: expected at least one range of {', '.join(_BOUNDS)}, got none")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """What is drawn, in a fixed order."""
        asked = tuple(name for name in _BOUNDS if getattr(self, name) is not None)
        return (*asked, HARDWARE_SEED) if self.has_hardware else asked

    @property
    def has_hardware(self) -> bool:
        """Tell whether each sample has a machine of its own."""
        return any(getattr(self, name) is not None for name in _HARDWARE)

    @property
    def attenuates(self) -> bool:
        """Whether attenuation may be drawn above 0."""
        return self.attenuation_db_cm_mhz is not None and self.attenuation_db_cm_mhz[1] > 0

    def record(self) -> dict[str, list[float] | None]:
        """Return what a store records: the first ten ranges always, later ones where they are drawn."""
        values = self.model_dump(mode="json")
        return {name: limits for name, limits in values.items() if name in _ALWAYS or limits is not None}

    def draw(self, rng: np.random.Generator) -> dict[str, float]:
        """One value a range. Each has a number of the stream to itself, so that adding a range changes no other value."""
        values: dict[str, float] = {}
        for name in _PLACES:
            share = rng.random()
            if name == HARDWARE_SEED:
                seed = int(share * 2**31)
                continue
            limits = getattr(self, name)
            if limits is not None and name in _WHOLE:
                values[name] = int(limits[0] + share * (limits[1] - limits[0] + 1))
            elif limits is not None:
                # Six digits are what the table of samples records: the drawn value is the recorded one.
                values[name] = float(f"{limits[0] + share * (limits[1] - limits[0]):.6g}")
        return values | {HARDWARE_SEED: seed} if self.has_hardware else values
