"""Options of `ussim render` and `ussim beamform` for what lies between echoes and picture. Imports nothing but click."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from . import console


def demodulation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the carrier and the pass band of demodulation, and time-gain compensation."""
    options = (
        click.option(
            "--carrier-mhz",
            type=console.Number(above=0),
            metavar="MHZ",
            help="Carrier that demodulation takes away.  [default: the probe's centre frequency]",
        ),
        click.option(
            "--bandwidth-percent",
            type=console.Number(above=0, maximum=200),
            metavar="PERCENT",
            help="Pass band of demodulation, of the carrier; 200 leaves the pulse as it is.  [default: the probe's]",
        ),
        click.option(
            "--tgc/--no-tgc", default=False, help="Amplify echoes by the medium's attenuation of the carrier."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def focus_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the depth of focus and the aperture of a focused scan."""
    options = (
        click.option(
            "--focus-depth-mm",
            type=console.Number(above=0),
            metavar="MM",
            help="Of --transmit focused, from the array along each line.",
        ),
        click.option(
            "--transmit-f-number",
            type=console.Number(minimum=0),
            metavar="F",
            help="Of --transmit focused: depth of focus over aperture; 0 fires all elements.  [default: 2]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def speed_option(help_text: str, default: float | None = None) -> Callable[..., Any]:
    """Give the option of a speed of sound."""
    return click.option(
        "--speed-of-sound", type=console.Number(above=0), default=default, metavar="M/S", help=help_text
    )


medium_speed_option = speed_option("Speed of sound of the medium, m/s.", 1540.0)
sub_elements_option = click.option(
    "--sub-elements",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Parts that an element is computed as.  [default: as its width needs]",
)
