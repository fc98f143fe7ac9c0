"""A calibrated probe as a TOML file: the probe, with what was measured beside it."""

from __future__ import annotations

import json
import math
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..io.atomic import replacing
from ..probes import Probe
from .findings import Estimate, Findings

NUMBERS = ("center_frequency", "bandwidth", "n_elements", "pitch", "element_width")
OPTIONAL = ("element_height", "elevation_focus", "radius", "baffle")
COMMENTS = {
    "center_frequency": "Hz",
    "bandwidth": "fraction of the center frequency, pulse-echo at -6 dB",
    "pitch": "m",
    "element_width": "m",
    "element_height": "m",
    "elevation_focus": "m",
    "radius": "m, convex",
}
UNITS = {
    "center_frequency": "Hz",
    "bandwidth": "fraction",
    "n_cycles": "cycles",
    "pulse_phase": "rad",
    "speed_of_sound": "m/s",
    "time_zero": "s, echoes are later than the clock of the recording",
    "attenuation_db_cm_mhz": "dB/cm/MHz",
}


def write_probe(calibration: Findings, path: str | PathLike[str]) -> None:
    """Write the TOML file of a calibrated probe, which appears when it is complete.

    Raises
    ------
    ValueError
        The name does not end in .toml.
    """
    if Path(path).suffix.lower() != ".toml":
        raise ValueError(f"{path}: expected a name ending in .toml, got {Path(path).suffix!r}")
    with replacing(path) as temporary:
        temporary.write_text(probe_text(calibration), encoding="utf-8")


def probe_text(calibration: Findings) -> str:
    """Return the text of the file."""
    probe = calibration.probe
    lines = [f"name = {_text(probe.name)}", f"source = {_text(probe.source)}"]
    for key in (*NUMBERS, *OPTIONAL):
        value = getattr(probe, key)
        if value == math.inf or (key == "baffle" and value == "soft"):
            continue
        estimate = calibration.estimates.get(key)
        words = [COMMENTS[key]] if key in COMMENTS else []
        if estimate is not None:
            words.append(_certainty(estimate))
        lines.append(f"{key} = {_value(value)}" + (f"  # {'; '.join(words)}" if words else ""))
    return "\n".join([*lines, "", *_imaging(probe), *_calibration(calibration)]) + "\n"


def _certainty(estimate: Estimate) -> str:
    if estimate.held:
        return f"held: {estimate.held}"
    return f"± {estimate.uncertainty:.2g}" + (
        "" if estimate.told else f", not told (the recording's file: {estimate.start:.6g})"
    )


def _imaging(probe: Probe) -> list[str]:
    imaging = probe.imaging
    if imaging is None:
        return []
    return [
        "[imaging]",
        *(
            f"{name}_mm = {_value([round(1e3 * v, 9) for v in extent])}"
            for name, extent in zip("xz", (imaging.x, imaging.z), strict=True)
        ),
        f"transmit = {_text(imaging.transmit)}",
        f"n_transmits = {imaging.n_transmits}",
        f"max_angle_deg = {_value(round(math.degrees(imaging.max_angle), 9))}",
        f"width_deg = {_value(round(math.degrees(imaging.width), 9))}",
        "",
    ]


def _calibration(calibration: Findings) -> list[str]:
    lines = [
        "[calibration]  # what the recording told, with two standard deviations; kept for the reader and for",
        "# ussim.Acquisition (n_cycles, medium, receive_delays, receive_mask): the probe above has its own part of it",
        f"phantom = {_text(calibration.phantom)}",
    ]
    for name, estimate in calibration.estimates.items():
        unit = UNITS[name]
        lines.append(
            f"{name} = {_value(estimate.value)}  # {unit}" + ("" if estimate.told else f"; {_certainty(estimate)}")
        )
        if not estimate.held:
            lines.append(f"{name}_uncertainty = {_value(estimate.uncertainty)}")
    lines.append(f"dead_elements = {_value([int(e) for e in calibration.dead])}  # from 0")
    for name, values, unit in (
        ("element_gains", calibration.gains, "of their mean"),
        ("element_gain_uncertainty", calibration.gain_uncertainty, ""),
        ("element_delays", calibration.delays, "s, mean 0"),
        ("element_delay_uncertainty", calibration.delay_uncertainty, ""),
    ):
        if np.isfinite(values).any():
            rounded = [float(f"{v:.4g}") for v in values]
            lines.append(f"{name} = {_value(rounded)}" + (f"  # {unit}" if unit else ""))
    lines.append(f"cannot_tell = [{', '.join(_text(line) for line in calibration.cannot_tell)}]")
    return lines


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, int | np.integer):
        return str(int(value))
    value = float(value)
    return repr(value) if math.isfinite(value) else {math.inf: "inf", -math.inf: "-inf"}.get(value, "nan")
