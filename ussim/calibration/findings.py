"""Findings of a calibration: numbers with their uncertainties, and what could not be told."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..acquisition import Acquisition
from ..probes import Probe


@dataclass(frozen=True)
class Estimate:
    """One number of a calibration. SI units.

    Attributes
    ----------
    name : str
        As in `ussim.Acquisition` and its parts.
    words : str
        What it is.
    value : float
        As fitted; as the file has it where held; between the two where the recording does not tell it.
    uncertainty : float
        Two standard deviations (95 %), in the unit of `value`; NaN where held.
    start : float
        As the file has it.
    unit : str
        Of the report.
    per_unit : float
        SI value of one `unit`.
    held : str
        Why it was not fitted; empty where it was.
    told : bool
        Whether the recording tells it, well enough to be of use.
    span : str
        Value and uncertainty in words.
    """

    name: str
    words: str
    value: float
    uncertainty: float
    start: float
    unit: str
    per_unit: float
    held: str = ""
    told: bool = True

    @property
    def digits(self) -> int:
        """Digits after the point that mean something, in `unit`."""
        spread = self.uncertainty / self.per_unit
        return max(0, min(9, math.ceil(-math.log10(spread)) + 1)) if spread > 0 else 4

    @property
    def span(self) -> str:
        """Value and uncertainty in words."""
        value, spread = self.value / self.per_unit, self.uncertainty / self.per_unit
        return f"{value:.{self.digits}f} ± {spread:.{self.digits}f} {self.unit}"

    def __str__(self) -> str:
        """Return the line of a report."""
        if self.held:
            return f"{self.words}: {self.value / self.per_unit:.6g} {self.unit}, held: {self.held}"
        return f"{self.words}: {self.span}{'' if self.told else ', not told'}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Findings:
    """All that a calibration found; see `Calibration`, which can write it to files."""

    phantom: str
    estimates: dict[str, Estimate]
    gains: np.ndarray
    gain_uncertainty: np.ndarray
    delays: np.ndarray
    delay_uncertainty: np.ndarray
    dead: np.ndarray
    wires: np.ndarray
    correlated: tuple[tuple[str, str, float], ...]
    cannot_tell: tuple[str, ...]
    misfit: float
    noise: float
    recording: Acquisition
    start_time: np.ndarray
    acquisition: Acquisition
    pictures: dict[str, Any] = field(default_factory=dict)

    @property
    def probe(self) -> Probe:
        """The probe fitted."""
        return self.acquisition.probe

    def __str__(self) -> str:
        """Return the numbers and what could not be told, a line each."""
        lines = [str(estimate) for estimate in self.estimates.values()]
        alive = np.setdiff1d(np.arange(len(self.gains)), self.dead)
        gains = self.gains[alive][np.isfinite(self.gains[alive])]
        if gains.size:
            lines.append(f"element gains: {gains.min():.2f} to {gains.max():.2f} of their mean")
        lines.append(f"dead elements: {', '.join(map(str, self.dead)) if len(self.dead) else 'none'}")
        return "\n".join([*lines, *(f"cannot tell: {line}" for line in self.cannot_tell)])
