"""Facts that a user adds to a file: arguments of `load_channel_data`, options of a command, or a TOML file.

A TOML file of facts is in users' units:

    probe = "L11-5v"          # a preset, or the path of a probe's TOML file
    sampling_mhz = 31.25
    angles_deg = [-10, 0, 10] # plane waves, one transmit each
    start_us = 5.2            # time of the first sample after the first element fires
    speed_of_sound = 1540     # m/s
    demodulation_mhz = 7.6    # of IQ
    clock = "first"           # time 0: the first element fires, or "center": the wave passes the array's center
    axes = "samples,elements,transmits"
    variable = "RF"
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ConfigError
from ...probes import Probe, load_probe

ROLES = ("frames", "transmits", "elements", "samples")
LARGEST_FILE = 1 << 20  # bytes of a TOML file of facts
# Key of a TOML file -> fact, and what to multiply it by.
KEYS: dict[str, tuple[str, float | None]] = {
    "probe": ("probe", None),
    "sampling_mhz": ("sampling_frequency", 1e6),
    "angles_deg": ("angles", math.pi / 180),
    "start_us": ("start_time", 1e-6),
    "speed_of_sound": ("speed_of_sound", 1.0),
    "demodulation_mhz": ("demodulation_frequency", 1e6),
    "clock": ("clock", None),
    "axes": ("axes", None),
    "variable": ("variable", None),
}


@dataclass(frozen=True, eq=False)
class Facts:
    """Facts known of channel data beside their file; None: nothing. SI units.

    Attributes
    ----------
    probe : the array.
    sampling_frequency : Hz.
    angles : (n_transmits,) of plane waves, rad.
    start_time : time of the first sample, s: one, or (n_transmits,).
    speed_of_sound : of the medium, m/s.
    demodulation_frequency : carrier taken away from IQ, Hz.
    clock : when time is 0, "first" or "center" as of `PlaneWaves`.
    axes : what the axes of the array are, some order of `ROLES`.
    """

    probe: Probe | None = None
    sampling_frequency: float | None = None
    angles: np.ndarray | None = None
    start_time: float | np.ndarray | None = None
    speed_of_sound: float | None = None
    demodulation_frequency: float | None = None
    clock: str | None = None
    axes: tuple[str, ...] | None = None


def facts_from(given: Mapping[str, Any]) -> tuple[Facts, str | None]:
    """Facts from keyword arguments, and the name of the variable where a TOML file (`facts`) gives one.

    Raises
    ------
    ConfigError
        A name is unknown, a value cannot be, or the file cannot be read.
    """
    given = dict(given)
    file = given.pop("facts", None)
    merged = {} if file is None else read_facts(file)
    known = {f.name for f in fields(Facts)}
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ConfigError(
                f"{name}: no such fact of channel data{f'; did you mean {near[0]}?' if near else '.'} "
                f"Expected {', '.join(sorted(known))}, facts"
            )
        if value is not None:
            merged[name] = value
    variable = merged.pop("variable", None)
    return Facts(**{name: _checked(name, value) for name, value in merged.items()}), variable


def read_facts(path: str | Path) -> dict[str, Any]:
    """Return the facts of a TOML file, in SI units, by name.

    Raises
    ------
    ConfigError
        It is not such a file.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise ConfigError(f"{path}: expected a small TOML file of facts, got more than {LARGEST_FILE >> 20} MB")
        table = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected a TOML file of facts, got {error}") from None
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise ConfigError(f"{path}: {key}: unknown key{hint} Expected {', '.join(KEYS)}")
        name, factor = KEYS[key]
        if factor is None:
            if not isinstance(value, str):
                raise ConfigError(f"{path}: {key}: expected text in quotes, got {value!r}")
            if name == "probe" and value.lower().endswith(".toml"):
                value = str(Path(path).parent / value)
            values[name] = value
            continue
        numbers = value if isinstance(value, list) else [value]
        if not numbers or any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
            raise ConfigError(f"{path}: {key}: expected a number, got {value!r}")
        scaled = [n / 1e6 if factor == 1e-6 else n * factor for n in numbers]
        values[name] = scaled if isinstance(value, list) else scaled[0]
    return values


def _checked(name: str, value: Any) -> Any:
    if name == "probe":
        return value if isinstance(value, Probe) else load_probe(str(value))
    if name == "axes":
        return _axes(value)
    if name == "clock":
        if value not in ("first", "center"):
            raise ConfigError(
                f'clock: expected "first" (element to fire) or "center" (of the array passed), got {value!r}'
            )
        return value
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"{name}: expected numbers, got {value!r}") from None
    if not np.isfinite(numbers).all() or numbers.size == 0:
        raise ConfigError(f"{name}: expected finite numbers, got {value!r}")
    if name == "angles":
        return np.atleast_1d(numbers)
    if name == "start_time":
        return float(numbers) if numbers.ndim == 0 else numbers
    if numbers.ndim or numbers <= 0:
        raise ConfigError(f"{name}: expected a number above 0, got {value!r}")
    return float(numbers)


def _axes(value: Any) -> tuple[str, ...]:
    axes = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else tuple(value)
    if len(set(axes)) < len(axes) or not set(axes) <= set(ROLES) or not {"elements", "samples"} <= set(axes):
        raise ConfigError(
            f"axes: expected elements, samples and where there are such axes transmits and frames, in the array's order "
            f'("samples,elements,frames"), got {value!r}'
        )
    return axes
