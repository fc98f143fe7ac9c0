"""Doors of values: real numbers in arrays of their own, in SI units.

Units are checked by ratios that no physics allows, far outside of what is in use (sonar, air, steel, microscopes): a probe
in mm, a frequency in MHz, a time in µs ends in one line that says so.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from .arrays import is_on_device

WATER = 1540.0  # m/s, for wavelengths where no medium is known
SPEEDS = 100.0, 20_000.0  # m/s: heavy gases have 130, diamond 18,000
LOWEST_FREQUENCY = 100.0  # Hz
LARGEST_ELEMENT = 1.0  # m
LARGE_ELEMENT = 0.03, 300.0  # m and wavelengths: elements larger than both do not exist; half a wavelength in mm is 500
PERIODS = 1e6  # a time of more is not in seconds: 0.13 s at 7.6 MHz
LOWEST_RATIO = 1e-3  # of a sampling or carrier frequency to the center frequency
LARGEST_REFLECTIVITY = 1e30  # float32 ends at 3e38: sums of echoes must stay below


def own(name: str, values: Any, dtype: Any = np.float64) -> Any:
    """Copy values to a read-only array that nobody else holds; CuPy arrays, which know no such flag, stay as they are.

    Raises
    ------
    ValueError
        The values are complex, masked or no numbers.
    """
    if is_on_device(values):
        if values.dtype.kind == "c":
            raise ValueError(f"{name}: expected real numbers, got complex ones: take .real or abs() of them first")
        return values
    check_real(name, values)
    try:
        array = np.array(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: expected numbers in a regular array, got {type(values).__name__} ({error})"
        ) from None
    array.flags.writeable = False
    return array


def check_real(name: str, values: Any) -> None:
    """Refuse what NumPy would drop without a word: imaginary parts and masks."""
    if np.ma.isMaskedArray(values):
        raise ValueError(
            f"{name}: expected a plain array, got a masked one: fill it, values.filled(0), or drop the rest"
        )
    if not isinstance(values, np.ndarray):
        try:
            values = np.asarray(values)
        except ValueError:
            return  # ragged: refused where it is converted
    if values.dtype.kind == "c":
        raise ValueError(f"{name}: expected real numbers, got complex ones: take .real or abs() of them first")


def check_count(name: str, value: Any) -> None:
    """Refuse anything but a whole number of at least 1."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")


def check_speed(value: Any) -> float:
    """Return the speed of sound as a float, m/s."""
    speed = float(value) if isinstance(value, numbers.Real) else math.nan
    if not SPEEDS[0] <= speed <= SPEEDS[1]:
        hint = f" (km/s? write {1e3 * speed:g})" if SPEEDS[0] <= 1e3 * speed <= SPEEDS[1] else ""
        raise ValueError(
            f"speed_of_sound: expected m/s above 0, in {SPEEDS[0]:g} to {SPEEDS[1]:g}, got {value!r}{hint}"
        )
    return speed


def probe_fault(center_frequency: float, pitch: float, element_height: float) -> str | None:
    """Return what is wrong with the units of a probe, or None."""
    if center_frequency < LOWEST_FREQUENCY:
        return f"center_frequency: expected Hz, got {center_frequency:g} Hz (MHz? write {center_frequency:g}e6)"
    size, wavelengths = LARGE_ELEMENT
    if pitch > LARGEST_ELEMENT or (pitch > size and pitch * center_frequency / WATER > wavelengths):
        return f"pitch: expected m, got {pitch:g} m (mm? write {pitch:g}e-3)"
    if LARGEST_ELEMENT < element_height < math.inf:
        return f"element_height: expected m, got {element_height:g} m (mm? write {element_height:g}e-3)"
    return None


def check_frequency(name: str, value: float, center_frequency: float) -> None:
    """Refuse a frequency that is not 0 and next to nothing beside the center frequency."""
    if 0 < abs(value) < LOWEST_RATIO * center_frequency:
        raise ValueError(
            f"{name}: expected Hz, got {value:g} Hz for a center frequency of {center_frequency:g} Hz "
            f"(MHz? write {value:g}e6)"
        )


def check_times(name: str, times: np.ndarray, center_frequency: float) -> None:
    """Refuse times (NaN = none) of millions of periods."""
    largest = float(np.max(np.abs(times), initial=0.0, where=~np.isnan(times)))
    if largest * center_frequency > PERIODS:
        raise ValueError(f"{name}: expected s, got {largest:g} s (µs? write {largest:g}e-6)")
