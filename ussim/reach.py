"""Reach of sound: positions and times that no acquisition can have to do with."""

from __future__ import annotations

import math

import numpy as np

from .acquisition import Acquisition

FAR = 50_000.0  # wavelengths to the farthest point; sound of less than LOW_FREQUENCY goes further
FAR_LOW = 200_000.0
LOW_FREQUENCY = 500e3  # Hz


def check_reach(name: str, x: np.ndarray, z: np.ndarray, acquisition: Acquisition, y: np.ndarray | None = None) -> None:
    """Refuse positions farther away than sound of this frequency goes."""
    if x.size == 0 or z.size == 0:
        return
    frequency, speed = acquisition.probe.center_frequency, acquisition.medium.speed_of_sound
    farthest = math.hypot(*(float(np.abs(axis).max()) for axis in (x, z, y) if axis is not None))
    far = FAR if frequency >= LOW_FREQUENCY else FAR_LOW
    if farthest * frequency / speed > far:
        raise ValueError(
            f"{name}: expected positions in m, got some {farthest:g} m away, "
            f"{farthest * frequency / speed:,.0f} wavelengths of {acquisition.probe.name} (mm? divide them by 1000)"
        )
