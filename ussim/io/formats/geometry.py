"""A probe from the positions of its elements, as other programs' files give them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np

from ...probes import Probe, load_probe, probe_names

OFF = 0.1  # wavelengths in water by which an element may lie beside the place that an even array gives it
USUAL_BANDWIDTH, USUAL_WIDTH = 0.7, 0.9  # where a file is silent: fraction of the center frequency, of the pitch


def preset_named(name: str) -> Probe | None:
    """Return the preset that a name of another program means ("verasonics_l11_4v"), or None."""
    given = _plain(name)
    fitting = [preset for preset in probe_names() if _plain(preset) in given]
    return load_probe(max(fitting, key=len)) if fitting else None


def probe_at(positions: np.ndarray, base: Probe | None = None, notes: list[str] | None = None, **known: Any) -> Probe:
    """Return the flat or convex array whose elements lie at `positions`.

    Parameters
    ----------
    positions : (n_elements, 3) x, y and z, m.
    base : a preset for what is not known.
    notes : gets what was taken for granted.
    known : values of `Probe` that the file gives: name, center_frequency, and others.

    Raises
    ------
    ValueError
        They are not those of an evenly spaced flat or convex array in the plane y = 0.
    """
    notes = [] if notes is None else notes
    positions = np.asarray(positions, dtype=np.float64)
    if positions.ndim != 2 or positions.shape[1] != 3 or len(positions) == 0 or not np.isfinite(positions).all():
        raise ValueError(f"probe geometry: expected (n_elements, 3) finite positions in m, got shape {positions.shape}")
    frequency = float(known.get("center_frequency") or (base.center_frequency if base else 0.0))
    if frequency <= 0:
        raise ValueError("probe: expected a center frequency, got none: say which with --probe")
    tolerance = OFF * 1500.0 / frequency
    x, y, z = positions.T
    if np.ptp(y) > tolerance:
        raise ValueError("probe geometry: expected a one-dimensional array (all y equal), got a matrix array")
    steps = np.hypot(np.diff(x), np.diff(z))
    pitch = float(steps.mean()) if len(x) > 1 else float(known.get("element_width") or 1e-3)
    values: dict[str, Any] = {"n_elements": len(x), "pitch": pitch, "radius": _radius(x, z, tolerance)}
    values |= {name: value for name, value in known.items() if value}
    values["name"] = base.name if base is not None else name_from(values.get("name", ""))
    if base is None:
        if "bandwidth" not in values:
            values["bandwidth"] = USUAL_BANDWIDTH
            notes.append(f"bandwidth {100 * USUAL_BANDWIDTH:.0f} %")
        if "element_width" not in values:
            values["element_width"] = USUAL_WIDTH * pitch
            notes.append(f"element width {USUAL_WIDTH:g} pitch")
        values["element_width"] = min(values["element_width"], pitch)
        probe = Probe(**values)
    else:
        width = min(values.get("element_width", base.element_width), pitch)
        probe = replace(base, **values | {"element_width": width})
    miss = np.hypot(probe.element_x - (x - _middle(x)), probe.element_z - (z - z[0] if not probe.is_flat else 0 * z))
    if float(miss.max()) > tolerance:
        raise ValueError(
            f"probe geometry: expected an evenly spaced flat or convex array, its elements from left to right; element "
            f"{int(miss.argmax())} lies {1e3 * float(miss.max()):.3g} mm from where it would be"
        )
    return probe


def name_from(text: str) -> str:
    """Return a name that a probe may have, from one that a file gives: letters and digits, and a few signs between them."""
    name = re.sub(r"[^\w .+-]+", "-", text).strip(" .-")[:60].strip(" .-")
    return name if len(name) > 1 and name.isprintable() and name.isascii() else "recorded"


def middle_of(positions: np.ndarray) -> float:
    """X of the middle of an array, m: ussim counts from there."""
    return _middle(np.asarray(positions, dtype=np.float64)[:, 0])


def _middle(x: np.ndarray) -> float:
    return float(x[0] + x[-1]) / 2


def _radius(x: np.ndarray, z: np.ndarray, tolerance: float) -> float:
    """Radius of the arc through the first, the middle and the last element; infinite where they lie on a line."""
    sagitta = float(np.interp(_middle(x), x, z) if x[-1] > x[0] else z.max()) - float(z[0] + z[-1]) / 2
    if sagitta <= tolerance:
        return np.inf
    half = float(abs(x[-1] - x[0])) / 2
    # An even number of elements has none in the middle: the arc's own height is a little more than the chord's there.
    ends = (half**2 + sagitta**2) / (2 * sagitta)
    fitted = np.linalg.lstsq(np.stack([2 * x, 2 * z, np.ones_like(x)], axis=1), x**2 + z**2, rcond=None)[0]
    exact = float(np.sqrt(max(fitted[2] + fitted[0] ** 2 + fitted[1] ** 2, 0.0)))
    return exact if 0.5 < exact / ends < 2 else ends


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
