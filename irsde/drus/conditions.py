"""The physics of a recording, settled: by its file, by the user, from the data, or by a default; each value with its source.

    recording = clocked(recording, asked)       time zero, lens and time gain
    rf, facts = attenuated(...)                 attenuation, once the field is known

Time gain (TGC) is what the recorder amplified late echoes by: `tgc_db` from the first sample to the last, linear in dB over
time. It is taken out, so that the medium's attenuation, which is in H, explains how the echoes fall.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ussim.arrays import to_numpy
from ussim.types import ImageGrid, RFData

from .acoustics import F_NUMBER
from .attenuation import AttenuationEstimate, estimate_attenuation
from .recordings import ATTENUATION, TIME_ZERO, Recording, single

ATTENUATION_UNIT = "dB/cm/MHz"
TOLD_APART = 0.1  # dB/cm/MHz between what is used and what the echoes show, from which on a warning says so


@dataclass(frozen=True)
class Asked:
    """Facts that the user states of a recording.

    Attributes
    ----------
    attenuation_db_cm_mhz : float, optional
        Of the medium; None: the file's, or else from the data.
    estimate : bool
        The attenuation from the data, whatever the file states.
    tgc_db : float
        Time gain that the recording has had, dB from its first sample to its last.
    time_zero : float, optional
        Time of the first sample, s; None: the file's, or else 0.
    lens_delay : float
        Time that sound takes through the lens, one way, s.
    """

    attenuation_db_cm_mhz: float | None = None
    estimate: bool = False
    tgc_db: float = 0.0
    time_zero: float | None = None
    lens_delay: float = 0.0


@dataclass(frozen=True)
class Fact:
    """One value that the images rest on, in users' units, and where it comes from."""

    name: str
    value: Any
    unit: str
    source: str  # "file", "option", "estimate", "default"
    remark: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As in the file of scores."""
        return {"value": self.value, "unit": self.unit, "source": self.source, "remark": self.remark}


@dataclass(frozen=True, eq=False)
class Settled:
    """A recording ready to image, the facts, and the warnings that they call for."""

    rf: RFData
    facts: tuple[Fact, ...] = ()
    warnings: tuple[str, ...] = field(default=())


def clocked(recording: Recording, asked: Asked) -> Settled:
    """Settle when sample 0 was taken, what the lens delays, and the time gain, which is taken out."""
    rf, facts = recording.rf, []
    if asked.time_zero is not None:
        rf = replace(rf, start_time=asked.time_zero)
        facts.append(Fact("time zero", 1e6 * asked.time_zero, "µs", "option", "--time-zero-us"))
    else:
        first = 1e6 * float(np.min(rf.start_times))
        known = TIME_ZERO in recording.stated
        remark = "" if known else "the file holds none: --time-zero-us"
        facts.append(Fact("time zero", first, "µs", "file" if known else "default", remark))
    if asked.lens_delay:
        rf = replace(rf, start_time=rf.start_time - 2 * asked.lens_delay)
    facts.append(
        Fact(
            "lens",
            1e6 * asked.lens_delay,
            "µs one way",
            "option" if asked.lens_delay else "default",
            "--lens-us" if asked.lens_delay else "no file holds it: --lens-us",
        )
    )
    facts.append(
        Fact(
            "time gain of the recording",
            asked.tgc_db,
            "dB",
            "option" if asked.tgc_db else "default",
            "taken out" if asked.tgc_db else "no file holds it: --tgc-db",
        )
    )
    return Settled(without_time_gain(rf, asked.tgc_db), tuple(facts))


def without_time_gain(rf: RFData, tgc_db: float) -> RFData:
    """Return the recording before a gain of `tgc_db` from its first sample to its last, linear in dB over time."""
    if tgc_db == 0:
        return rf
    gain = 10 ** (-np.linspace(0.0, tgc_db, rf.samples.shape[-1]) / 20)
    return replace(rf, samples=(to_numpy(rf.samples) * gain).astype(np.float32))


def attenuated(
    rf: RFData, grid: ImageGrid, stated: frozenset[str], asked: Asked, f_number: float = F_NUMBER
) -> Settled:
    """Settle the medium's attenuation: as asked, as the file states, or as the echoes on the grid fall with depth.

    A file of ussim's own always states one, 0 unless somebody said more: that 0 is used, and held against the echoes.
    """
    before = rf.acquisition.medium.attenuation_db_cm_mhz
    if asked.attenuation_db_cm_mhz is not None:
        value = asked.attenuation_db_cm_mhz
        return Settled(
            _in_medium(rf, value), (Fact("attenuation", value, ATTENUATION_UNIT, "option", "--attenuation"),)
        )
    known = ATTENUATION in stated and not asked.estimate
    if known and before > 0:
        return Settled(rf, (Fact("attenuation", before, ATTENUATION_UNIT, "file"),))
    found = estimate_attenuation(single(rf), grid, f_number)
    if known:
        fact = Fact("attenuation", before, ATTENUATION_UNIT, "file", f"the echoes fall as at {_in_words(found)}")
        if found.value > TOLD_APART:
            contradiction = (
                f"attenuation: the file states {before:g} dB/cm/MHz, the echoes fall as at {_in_words(found)}: "
                "--attenuation estimate takes that, --attenuation A another"
            )
            return Settled(rf, (fact,), (contradiction,))
        return Settled(rf, (fact,))
    return _estimated(rf, grid, found)


def _estimated(rf: RFData, grid: ImageGrid, found: AttenuationEstimate) -> Settled:
    warnings = []
    if not found.is_trusted:
        remark = f"the echoes do not tell ({_in_words(found)}): --attenuation A"
        warnings.append(
            f"attenuation: neither the file nor the echoes tell ({_in_words(found)}); 0 is used: --attenuation A"
        )
        fact = Fact("attenuation", 0.0, ATTENUATION_UNIT, "default", remark)
    else:
        remark = f"the echoes fall with depth as at {_in_words(found)}, if tissue is alike over depth: --attenuation A"
        fact = Fact("attenuation", found.value, ATTENUATION_UNIT, "estimate", remark)
        if found.fit < -max(TOLD_APART, 2 * found.error):
            depth = 2 * 1e2 * (grid.z[-1] - grid.z[0])
            gain = -found.fit * 1e-6 * rf.acquisition.carrier_frequency * depth
            warnings.append(
                f"attenuation: the echoes rise with depth, by {gain:.0f} dB over the field against a medium without loss: "
                "0 is used. A time gain of the recorder? --tgc-db G takes it out"
            )
    return Settled(_in_medium(rf, fact.value), (fact,), tuple(warnings))


def in_lines(facts: tuple[Fact, ...], assumed: tuple[str, ...] = ()) -> str:
    """Return the facts as lines, and what else was taken for granted."""
    width = max(len(fact.name) for fact in facts)
    lines = []
    for fact in facts:
        value = f"{fact.value:.4g}" if isinstance(fact.value, float) else str(fact.value)
        amount = f"{value} {fact.unit}".strip()
        lines.append(f"  {fact.name:<{width}}  {amount} ({', '.join(filter(None, (fact.source, fact.remark)))})")
    lines += [f"  not in the file, taken: {words}" for words in assumed]
    return "\n".join(lines)


def _in_medium(rf: RFData, attenuation: float) -> RFData:
    medium = replace(rf.acquisition.medium, attenuation_db_cm_mhz=attenuation)
    return replace(rf, acquisition=replace(rf.acquisition, medium=medium))


def _in_words(found: AttenuationEstimate) -> str:
    if not math.isfinite(found.error):
        return "the field is too small or empty"
    return f"{found.fit:.2f} ± {found.error:.2f} dB/cm/MHz"


__all__ = ["Asked", "Fact", "Settled", "attenuated", "clocked", "in_lines", "without_time_gain"]
