"""`ussim beamform | convert`: channel data of our own, and recordings of others. Only click is imported before one runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from . import console, grammar
from .options import (
    aperture_options,
    apply,
    bare_option,
    demodulation_options,
    dynamic_range_of,
    engine_option,
    figure_options,
    grid_options,
    output_option,
    speed_option,
)


class Angles(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases alone
    """Angles in degrees, "-10,0,10", or low, high and number, "-16:16:75"; the value is a list in radians."""

    name = "angles"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Turn what was typed into the value."""
        if not isinstance(value, str):
            return value
        import numpy as np

        try:
            if ":" in value:
                low, high, number = value.split(":")
                if not 1 <= int(number) <= 10_000:
                    raise ValueError
                degrees = np.linspace(float(low), float(high), int(number))
            else:
                degrees = np.array([float(part) for part in value.split(",")])
        except ValueError:
            self.fail(f"expected degrees as in -10,0,10 or LOW:HIGH:NUMBER, got {value!r}", parameter, context)
        if not (np.abs(degrees) < 90).all():
            self.fail(f"expected degrees between -90 and 90, got {value!r}", parameter, context)
        return np.deg2rad(degrees).tolist()


def facts_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what a file of channel data may not say of itself."""
    options = (
        grammar.section("What the recording does not say"),
        click.option(
            "--probe",
            type=console.ProbeType(),
            metavar="NAME|FILE",
            help="Array of a file that does not say it: a preset (see `ussim probes`) or a TOML file.",
        ),
        click.option(
            "--sampling-mhz",
            type=console.Number(above=0),
            metavar="MHZ",
            help="Sampling frequency, where the file is silent.",
        ),
        click.option(
            "--angles-deg",
            type=Angles(),
            metavar="A[,A...]|LOW:HIGH:N",
            help="Plane waves of the transmits, where the file is silent.  [default: 0]",
        ),
        click.option(
            "--start-us", type=console.Number(), metavar="US", help="Time of the first sample, in place of the file's."
        ),
        click.option(
            "--clock",
            type=click.Choice(["first", "center"]),
            help="Time 0: the first element fires, or the wave passes the array's center.  [default: the file's; first]",
        ),
        click.option(
            "--demodulation-mhz",
            type=console.Number(above=0),
            metavar="MHZ",
            help="Carrier that IQ was demodulated at, where the file is silent.",
        ),
        click.option(
            "--axes",
            metavar="NAMES",
            help='What the axes of an array are, as in "samples,elements,frames".  [default: found by their lengths]',
        ),
        click.option("--variable", metavar="NAME", help="Array in the file (zea: track), where there are several."),
        click.option(
            "--facts", type=click.Path(path_type=Path), metavar="FILE", help="TOML file of these (docs/recordings.md)."
        ),
        click.option(
            "--frames", metavar="N|A:B|all", help="Frames of the file, from 0.  [default: 0; all of a movie or a file]"
        ),
    )
    return apply(options, command)


@click.command(cls=grammar.Command, short_help="Beamform channel data to a B-mode.")
@click.argument("channel_data", type=click.Path(path_type=Path))
@facts_options
@grammar.section("Image")
@grid_options
@click.option(
    "--polar",
    is_flag=True,
    help="Radii by angles of the sector that a convex or phased probe scans: a picture without empty corners.",
)
@dynamic_range_of("40; 60 of a recording of another program")
@demodulation_options
@speed_option("For the way to a pixel and back.  [default: that of the file]")
@aperture_options
@click.option(
    "--transmits",
    metavar="N[,N...]",
    help="Compound only these transmits, counted from 0.  [default: all of them]",
)
@click.option(
    "--compounding",
    type=click.Choice(["coherent", "incoherent"]),
    default="coherent",
    help="Sum the transmits with their phases, or their powers (less speckle, less resolution).",
)
@click.option(
    "--transmit-weights",
    type=click.Choice(["beam", "line", "none"]),
    default="beam",
    help="Where a focused transmit counts: within its beam, on its scan line (interpolated between lines), or everywhere. "
    "Other transmits count everywhere, and have no scan lines.",
)
@click.option("--scan-lines", is_flag=True, help="The same as --transmit-weights line.")
@click.option(
    "--interpolation",
    type=click.Choice(["nearest", "linear", "quadratic", "lanczos3", "lanczos5"]),
    default="linear",
    help="Between samples.",
)
@click.option("--normalize", is_flag=True, help="Divide each pixel by the number of elements that see it.")
@click.option(
    "--check-time-zero",
    is_flag=True,
    help="Find the shift of time zero that focuses the brightest points best; warn where it is not near 0.",
)
@click.option(
    "--compare",
    type=click.Path(path_type=Path),
    metavar="OTHER",
    help="Other channel data on the same pixels: both pictures and their difference in dB, side by side.",
)
@engine_option
@grammar.section("Output")
@output_option("CHANNEL_DATA_bmode.png", movie=True)
@bare_option
@figure_options
@console.verbose_option
def beamform(channel_data: Path, **options: Any) -> None:
    """Beamform CHANNEL_DATA to a B-mode: of ussim (.npz), PICMUS, zea or OpenH-RF, UFF, MUST (.mat), or a bare array.

    \b
    ussim beamform echoes.npz --f-number 1.5 -o bmode.png
    ussim beamform contrast_speckle_expe_dataset_rf.hdf5 --check-time-zero
    ussim beamform rf.npy --probe L11-5v --sampling-mhz 31.25 --angles-deg -10:10:15
    ussim beamform recording.mat -o movie.gif
    ussim beamform heart.npz --polar --bare
    """
    from . import recorded

    recorded.beamform(channel_data, options)


@click.command(cls=grammar.Command, short_help="Convert a file of channel data to another format.")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@facts_options
@speed_option("Of the medium, in place of the file's.  [default: the file's; 1540]")
@console.verbose_option
def convert(source: Path, target: Path, **options: Any) -> None:
    """Convert channel data from IN to OUT, whose suffix is its format: .hdf5 (zea, OpenH-RF), .uff, .mat (MUST) or .npz.

    \b
    ussim convert carotid_cross_expe_dataset_iq.hdf5 carotid.npz
    ussim convert rf.npy echoes.hdf5 --probe L11-5v --sampling-mhz 31.25
    """
    from . import recorded

    recorded.convert(source, target, options)
