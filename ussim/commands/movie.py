"""`ussim movie`: the wave of a transmit, or the frames of a recording. Only click is imported before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from . import console, grammar
from .options import (
    DEFAULT_PROBE,
    attenuation_option,
    demodulation_options,
    dynamic_range_of,
    engine_option,
    f_number_option,
    grid_options,
    one_wave_options,
    speed_option,
    sub_elements_option,
)
from .recordings import facts_options

# Options of the one kind of movie alone, with what they are where not given.
OF_A_WAVE = {
    "focus_mm": (),
    "plane_deg": None,
    "diverging_deg": None,
    "source_mm": None,
    "sub_elements": None,
    "attenuation": 0.0,
    "time_us": None,
    "pictures": None,
}
OF_A_RECORDING = {
    **dict.fromkeys(
        ("sampling_mhz", "angles_deg", "start_us", "clock", "demodulation_mhz", "axes", "variable", "facts")
    ),
    **dict.fromkeys(("frames", "dynamic_range_db", "carrier_mhz", "bandwidth_percent", "f_number", "ensemble")),
    **dict.fromkeys(("frame_rate_hz", "wall_order", "smoothing")),
    "tgc": False,
    "doppler": False,
    "engine": "auto",
}
OF_DOPPLER = ("ensemble", "frame_rate_hz", "wall_order", "smoothing")
PICTURES, ENSEMBLE, SMOOTHING = 60, 8, 5


@click.command(cls=grammar.Command, short_help="Make a movie of a wave, or of the frames of a recording.")
@click.argument("channel_data", type=click.Path(path_type=Path), required=False)
@grammar.section("Wave, without CHANNEL_DATA")
@one_wave_options
@sub_elements_option
@attenuation_option
@click.option(
    "--time-us",
    type=console.Number(),
    nargs=2,
    metavar="LOW HIGH",
    help="Times to show, from the firing on.  [default: until the wave has left the picture]",
)
@click.option(
    "--pictures", type=click.IntRange(2, 2000), metavar="N", help=f"Frames of the wave.  [default: {PICTURES}]"
)
@facts_options
@grammar.section("Doppler")
@click.option("--doppler", is_flag=True, help="Draw velocities over the frames, as `ussim doppler` does.")
@click.option(
    "--ensemble",
    type=click.IntRange(min=2),
    metavar="N",
    help=f"Frames that each velocity is of, the last of them shown.  [default: {ENSEMBLE}]",
)
@click.option(
    "--frame-rate-hz",
    type=console.Number(above=0),
    metavar="RATE",
    help="Frames per second, Hz.  [default: that of the file]",
)
@click.option(
    "--wall-order",
    type=click.IntRange(min=0),
    metavar="N",
    help="Of the polynomial in time that is removed with the walls.  [default: nothing is removed]",
)
@click.option(
    "--smoothing",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Pixels that the autocorrelation is averaged over.  [default: {SMOOTHING}]",
)
@grammar.section("Image")
@grid_options
@dynamic_range_of("40; 60 of a recording of another program")
@demodulation_options
@speed_option("Of the medium, or for the way to a pixel and back.  [default: 1540; that of the file]")
@f_number_option
@engine_option
@grammar.section("Output")
@click.option(
    "--shown-hz",
    type=console.Number(minimum=0.1, maximum=100),
    default=10.0,
    metavar="RATE",
    help="Frames shown per second.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Movie: .gif, or .mp4 where there is ffmpeg (pip install 'ussim[video]').  "
    "[default: PROBE_wave.gif; CHANNEL_DATA.gif]",
)
@console.verbose_option
def movie(channel_data: Path | None, **options: Any) -> None:
    """Make a movie: of the pressure of one transmit as it travels, or of the frames of CHANNEL_DATA.

    \b
    ussim movie --probe L11-5v --focus-mm 0 20 -o focus.gif
    ussim movie recording.hdf5 -o frames.mp4
    ussim movie PWI_disk.mat --doppler -o disk.gif
    """
    from . import filmed

    if channel_data is None:
        _refuse(options, OF_A_RECORDING, "goes with CHANNEL_DATA")
        options["probe"] = options["probe"] or console.ProbeType().convert(DEFAULT_PROBE, None, None)
        source = click.get_current_context().get_parameter_source("size")
        size = None if source is ParameterSource.DEFAULT else options["size"]
        filmed.wave(options | {"pictures": options["pictures"] or PICTURES, "size": size})
        return
    _refuse(options, OF_A_WAVE, "goes without CHANNEL_DATA")
    if not options["doppler"]:
        _refuse(options, dict.fromkeys(OF_DOPPLER), "goes with --doppler")
    ensemble, smoothing = options["ensemble"] or ENSEMBLE, options["smoothing"] or SMOOTHING
    filmed.recording(channel_data, options | {"ensemble": ensemble, "smoothing": smoothing})


def _refuse(options: dict[str, Any], others: dict[str, Any], why: str) -> None:
    """Refuse options of the other kind of movie."""
    for name, otherwise in others.items():
        if options[name] != otherwise:
            raise click.UsageError(f"--{name.replace('_', '-')} {why}")
