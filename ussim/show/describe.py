"""Probes and transmit sequences in words, for terminals and the titles of pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..acquisition import Acquisition
    from ..probes import Probe


def describe_probe(probe: Probe) -> str:
    """Return the probe in one line: "L11-5v: 128 elements, pitch 0.3 mm, 7.6 MHz, 77 %, flat"."""
    kind = "flat" if probe.is_flat else f"convex, radius {1e3 * probe.radius:.4g} mm"
    return (
        f"{probe.name}: {probe.n_elements} elements, pitch {1e3 * probe.pitch:.4g} mm, "
        f"{probe.center_frequency / 1e6:.4g} MHz, {100 * probe.bandwidth:.3g} %, {kind}"
    )


def describe_waves(acquisition: Acquisition) -> str:
    """Return the transmit sequence in a few words: "15 plane waves, -10 to 10°"."""
    waves, n = acquisition.waves, acquisition.n_transmits
    kind = type(waves).__name__.removesuffix("Waves").removesuffix("Transmits").lower()
    text = f"{n} {kind} {'wave' if n == 1 else 'waves'}"
    angles = getattr(waves, "angles", None)
    if angles is None:
        angles = getattr(waves, "tilts", None)
    if angles is None:
        return text
    low, high = np.rad2deg([np.min(angles), np.max(angles)])
    return f"{text}, {low:.3g}°" if n == 1 else f"{text}, {low:.3g} to {high:.3g}°"


def describe_excitation(acquisition: Acquisition) -> str:
    """Return what is transmitted and received beside the default, each with a comma before it: ", 5-cycle sine at 4 MHz"."""
    a, text = acquisition, ""
    at = "" if a.transmit_frequency is None else f" at {a.carrier_frequency / 1e6:.4g} MHz"
    if a.waveform is not None:
        text += f", waveform of {1e6 * a.waveform.duration:.3g} µs{at}"
    elif a.is_continuous:
        text += f", continuous wave{at}"
    elif a.frequency_sweep is not None:
        text += f", chirp of {a.frequency_sweep / 1e6:.4g} MHz in {1e6 * a.excitation_duration:.3g} µs{at}"
    elif a.n_cycles != 1 or at:
        text += f", {a.n_cycles:g}-cycle sine{at}"
    if a.impulse_response is not None:
        text += f", measured {'pulse-echo' if a.impulse_response.ways == 2 else 'one-way'} response"
    if a.receive_mask is not None:
        live = a.receiving.sum(axis=1)
        text += f", {live.min()} of {a.probe.n_elements} elements receive"
        if live.min() != live.max():
            text = text.replace(f"{live.min()} of", f"{live.min()} to {live.max()} of")
    return text


def describe_imperfections(acquisition: Acquisition) -> str:
    """Return what makes the data a real scanner's, each with a comma before it: ", aberration of 50 ns RMS over 4 mm"."""
    a, text = acquisition, ""
    if a.medium.backscatter_exponent:
        text += f", backscatter with f^{a.medium.backscatter_exponent:g}"
    if a.aberration is not None:
        screen = a.aberration
        text += f", aberration of {1e9 * screen.rms_delay:.3g} ns RMS over {1e3 * screen.correlation_length:.3g} mm"
    if a.element_errors is not None:
        if a.element_errors.gain_spread_db:
            text += f", gains ±{a.element_errors.gain_spread_db:.3g} dB"
        dead = int((a.element_gains == 0).sum())
        text += f", {dead} of {a.probe.n_elements} elements dead" if dead else ""
    chain = a.receive_chain
    if chain is None:
        return text
    if chain.snr_db is not None:
        text += f", noise {chain.snr_db:.3g} dB below the echoes"
    if chain.compensation or chain.time_gain is not None:
        gain = chain.time_gain
        text += ", time gain" + (
            "" if gain is None else f" of {gain.gains_db.min():.3g} to {gain.gains_db.max():.3g} dB"
        )
    text += f", jitter {1e9 * chain.jitter:.3g} ns" if chain.jitter else ""
    return text if chain.n_bits is None else f"{text}, {chain.n_bits} bits"


def probe_table(known: list[Probe]) -> str:
    """Return the probes, one per line."""
    rows = [("name", "MHz", "bandwidth", "elements", "pitch mm", "radius mm", "field of view mm", "transmit")]
    for probe in known:
        imaging = probe.imaging
        assert imaging is not None  # every preset has one
        view = f"{1e3 * imaging.x[0]:g} to {1e3 * imaging.x[1]:g} x {1e3 * imaging.z[0]:g} to {1e3 * imaging.z[1]:g}"
        rows.append(
            (
                probe.name,
                f"{probe.center_frequency / 1e6:.4g}",
                f"{100 * probe.bandwidth:.3g} %",
                str(probe.n_elements),
                f"{1e3 * probe.pitch:.4g}",
                "flat" if probe.is_flat else f"{1e3 * probe.radius:.4g}",
                view,
                f"{imaging.n_transmits} {imaging.transmit} ±{math.degrees(imaging.max_angle):.3g}°",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def probe_sheet(probe: Probe) -> str:
    """Everything about a probe, a value a line."""

    def millimeters(value: float) -> str:
        return "infinite" if math.isinf(value) else f"{1e3 * value:.6g} mm"

    aperture = probe.element_x[-1] - probe.element_x[0] + probe.element_width
    lines = [
        ("name", probe.name),
        ("source", probe.source or "not given"),
        ("center frequency", f"{probe.center_frequency / 1e6:.6g} MHz"),
        ("bandwidth", f"{100 * probe.bandwidth:.4g} % (pulse-echo, -6 dB)"),
        ("elements", str(probe.n_elements)),
        ("pitch", millimeters(probe.pitch)),
        ("element width", f"{millimeters(probe.element_width)} (kerf {millimeters(probe.kerf)})"),
        ("element height", millimeters(probe.element_height)),
        ("elevation focus", millimeters(probe.elevation_focus)),
        ("radius", "infinite (flat array)" if probe.is_flat else millimeters(probe.radius)),
        ("aperture", millimeters(aperture)),
        ("baffle", str(probe.baffle)),
    ]
    if not probe.is_flat:
        lines.append(("sagitta", millimeters(probe.element_z.max() - probe.element_z.min())))
    if probe.imaging is not None:
        imaging = probe.imaging
        x, z = [1e3 * edge for edge in imaging.x], [1e3 * edge for edge in imaging.z]
        waves = f"{imaging.n_transmits} {imaging.transmit} waves over ±{math.degrees(imaging.max_angle):.4g}°"
        if imaging.transmit == "diverging":
            waves += f", {math.degrees(imaging.width):.4g}° wide"
        lines.append(("field of view", f"x {x[0]:g} to {x[1]:g} mm, z {z[0]:g} to {z[1]:g} mm"))
        lines.append(("transmits", waves))
    lines.append(("file", Path(probe.path).name))
    width = max(len(key) for key, _ in lines)
    return "\n".join(f"{key.ljust(width)}  {value}" for key, value in lines)
