"""Options that make simulated echoes those of a real scanner, and the parts of an acquisition that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from . import console
from .options import apply

if TYPE_CHECKING:
    import ussim

ABERRATION_LENGTH_MM = 4.0  # of the breast
NEEDS = {"noise_bandwidth_percent": "snr_db", "headroom_db": "bits", "aberration_length_mm": "aberration_ns"}


def realism_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command is given them by the names that `realistic` takes."""
    options = (
        click.option(
            "--snr-db",
            type=console.Number(minimum=-100, maximum=300),
            metavar="DB",
            help="Noise that far below the echoes, by RMS.  [default: no noise]",
        ),
        click.option(
            "--noise-bandwidth-percent",
            type=console.Number(minimum=1, maximum=200),
            metavar="PERCENT",
            help="Width of the noise's power spectrum, of the center frequency; 200 is white.  [default: the probe's]",
        ),
        click.option(
            "--tgc-curve-db",
            metavar="DB,DB,...",
            help="Time gain before the converter, at depths spread evenly from z = 0 to the end of the picture."
            "  [default: none]",
        ),
        click.option(
            "--jitter-ns",
            type=console.Number(minimum=0, maximum=1e6),
            default=0.0,
            metavar="NS",
            help="RMS error of the sampling times.",
        ),
        click.option(
            "--bits", type=click.IntRange(2, 24), metavar="N", help="Of the converter.  [default: no rounding]"
        ),
        click.option(
            "--headroom-db",
            type=console.Number(minimum=-200, maximum=200),
            metavar="DB",
            help="Full scale of --bits above the largest echo; below 0 clips.  [default: 0]",
        ),
        click.option(
            "--gain-spread-db",
            type=console.Number(minimum=0, maximum=40),
            default=0.0,
            metavar="DB",
            help="Standard deviation of the elements' gains, each way.",
        ),
        click.option(
            "--dead-percent",
            type=console.Number(minimum=0, below=100),
            default=0.0,
            metavar="PERCENT",
            help="Elements that neither send nor hear.",
        ),
        click.option(
            "--backscatter-exponent",
            type=console.Number(minimum=0, maximum=6),
            default=0.0,
            metavar="EXPONENT",
            help="n of tissue that scatters with f^n: 4 of Rayleigh scatterers, 1 to 2 of most tissue.",
        ),
        click.option(
            "--aberration-ns",
            type=console.Number(minimum=0, maximum=1e6),
            default=0.0,
            metavar="NS",
            help="RMS delay of a phase screen at the array, each way: 43 of an abdominal wall, 67 of breast.",
        ),
        click.option(
            "--aberration-length-mm",
            type=console.Number(above=0, maximum=1000),
            metavar="MM",
            help=f"Its correlation length along the array.  [default: {ABERRATION_LENGTH_MM:g}]",
        ),
        click.option(
            "--speed-error-percent",
            type=console.Number(above=-50, below=50),
            default=0.0,
            metavar="PERCENT",
            help="The scanner takes the speed of sound for so much more than the medium's.",
        ),
        click.option(
            "--hardware-seed",
            type=click.IntRange(min=0),
            metavar="N",
            help="Of noise, jitter, gains, dead elements and aberration.  [default: --seed]",
        ),
    )
    return apply(options, command)


def realistic(
    acquisition: ussim.Acquisition, options: dict[str, Any], deepest: float, seed: int
) -> tuple[ussim.Acquisition, ussim.Acquisition]:
    """Return an acquisition with what the options ask for, and what the scanner takes it for, which beamforms.

    Parameters
    ----------
    options : values of `realism_options`.
    deepest : end of the picture, m.
    seed : where no other is given.
    """
    import ussim

    def is_asked(name: str) -> bool:
        return options[name] is not None and (options[name] != 0 or name == "snr_db")  # 0 dB is a noise, 0 ns no screen

    for name, needed in NEEDS.items():
        if options[name] is not None and not is_asked(needed):
            raise click.UsageError(f"--{name.replace('_', '-')} goes with --{needed.replace('_', '-')}")
    seed = seed if options["hardware_seed"] is None else options["hardware_seed"]
    changes: dict[str, Any] = {}
    if options["backscatter_exponent"]:
        changes["medium"] = replace(acquisition.medium, backscatter_exponent=options["backscatter_exponent"])
    if options["aberration_ns"]:
        length = options["aberration_length_mm"] or ABERRATION_LENGTH_MM
        changes["aberration"] = ussim.PhaseScreen(options["aberration_ns"] / 1e9, length / 1e3, seed)
    if options["gain_spread_db"] or options["dead_percent"]:
        changes["element_errors"] = ussim.ElementErrors(
            options["gain_spread_db"], dead_fraction=options["dead_percent"] / 100, seed=seed
        )
    if any(is_asked(name) for name in ("snr_db", "tgc_curve_db", "jitter_ns", "bits")):
        width, curve = options["noise_bandwidth_percent"], options["tgc_curve_db"]
        changes["receive_chain"] = ussim.ReceiveChain(
            snr_db=options["snr_db"],
            noise_bandwidth=None if width is None else width / 100,
            time_gain=None if curve is None else _curve(curve, deepest),
            jitter=options["jitter_ns"] / 1e9,
            n_bits=options["bits"],
            headroom_db=options["headroom_db"] or 0.0,
            seed=seed,
        )
    if changes:
        acquisition = replace(acquisition, **changes)
    if not options["speed_error_percent"]:
        return acquisition, acquisition
    speed = acquisition.medium.speed_of_sound * (1 + options["speed_error_percent"] / 100)
    believed = replace(acquisition, medium=replace(acquisition.medium, speed_of_sound=speed))
    return ussim.with_steering_speed(acquisition, speed), believed


def _curve(text: str, deepest: float) -> ussim.TimeGain:
    """Return the curve of "0,6,12"."""
    import numpy as np

    import ussim

    try:
        gains = [float(part) for part in text.split(",")]
        return ussim.TimeGain(np.linspace(0, deepest, len(gains)) if len(gains) > 1 else [0.0], gains)
    except ValueError:
        raise click.UsageError(f"--tgc-curve-db: expected decibels, as in 0,6,12; got {text!r}") from None
