"""The report of a calibration: one HTML file with its pictures in it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..io.atomic import replacing
from . import pictures
from .findings import Estimate, Findings

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(calibration: Findings, path: str | PathLike[str]) -> None:
    """Write the report, which appears when it is complete.

    Raises
    ------
    ValueError
        The name does not end in .html.
    """
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{path}: expected a name ending in .html, got {Path(path).suffix!r}")
    text = render(calibration)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render(calibration: Findings) -> str:
    """Return the report as HTML."""
    from jinja2 import Environment

    template = (resources.files(__package__) / "report.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made = pictures.of_wires if calibration.phantom == "wires" else pictures.of_speckle
    return environment.from_string(template).render(
        name=calibration.probe.name,
        summary=_summary(calibration),
        rows=[_row(estimate) for estimate in calibration.estimates.values()],
        elements=_elements(calibration),
        fit=_fit(calibration),
        cannot_tell=calibration.cannot_tell,
        pictures=[
            {"title": title, "words": words, "data": _embedded(figure)} for title, words, figure in made(calibration)
        ],
        wires=list(_wires(calibration)),
    )


def _summary(calibration: Findings) -> str:
    recording = calibration.recording
    told = sum(estimate.told for estimate in calibration.estimates.values())
    on = f"{len(calibration.wires)} wires" if calibration.phantom == "wires" else "speckle"
    return (
        f"{recording.probe.name}, {recording.probe.n_elements} elements, {recording.n_transmits} transmits: fitted to a "
        f"recording of {on}. It tells {told} of {len(calibration.estimates)} numbers."
    )


def _row(estimate: Estimate) -> dict[str, str]:
    spread = estimate.uncertainty / estimate.per_unit
    return {
        "words": estimate.words,
        "value": f"{estimate.value / estimate.per_unit:.{estimate.digits}f}",
        "uncertainty": "" if estimate.held else f"{spread:.2g}",
        "start": f"{estimate.start / estimate.per_unit:.6g}",
        "unit": estimate.unit,
        "note": f"held: {estimate.held}" if estimate.held else "" if estimate.told else "not told",
    }


def _elements(calibration: Findings) -> str:
    dead = calibration.dead
    words = f"Dead elements, from 0: {', '.join(map(str, dead))}." if len(dead) else "No element is dead."
    alive = np.setdiff1d(np.flatnonzero(np.isfinite(calibration.gains)), dead)
    if len(alive):
        gains, spread = calibration.gains[alive], calibration.gain_uncertainty[alive]
        words += (
            f" Gains of the others: {gains.min():.2f} to {gains.max():.2f} of their mean (± {np.median(spread):.2g})."
        )
    late = calibration.delays[np.isfinite(calibration.delays)]
    if late.size:
        words += (
            f" Their delays: {1e9 * late.min():.1f} to {1e9 * late.max():.1f} ns "
            f"(± {1e9 * np.nanmedian(calibration.delay_uncertainty):.2g})."
        )
    return words


def _fit(calibration: Findings) -> str:
    if calibration.phantom == "speckle":
        return f"Misfit: {10 / np.log(10) * calibration.misfit:.2g} dB RMS of the spectra's levels."
    words = f"Misfit: {100 * calibration.misfit:.2g} % of the echoes' RMS"
    if calibration.noise > 0:
        words += f"; the record away from the echoes: {100 * calibration.noise:.2g} %"
    return words + "."


def _wires(calibration: Findings) -> Iterator[dict[str, str]]:
    if calibration.phantom != "wires":
        return
    views, residual = calibration.pictures["model"].views, calibration.pictures["residual"]
    levels = 20 * np.log10(np.abs(calibration.pictures["state"].amplitudes))
    for k, (x, z) in enumerate(1e3 * calibration.wires):
        mine = views.wire == k
        share = (residual[mine] ** 2).sum() / (views.samples[mine] ** 2).sum()
        yield {
            "x": f"{x:.2f}",
            "z": f"{z:.2f}",
            "level": f"{levels[k] - levels.max():.1f}",
            "left": f"{100 * share:.2g}",
            "channels": str(int(views.used[mine].sum())),
        }


def _embedded(figure: Figure) -> str:
    """Return a picture as a data URL."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": "ussim"}, bbox_inches="tight")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
