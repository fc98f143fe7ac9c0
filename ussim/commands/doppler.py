"""`ussim doppler`: color Doppler of the frames of a recording. Only click is imported before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import console, grammar
from .options import (
    demodulation_options,
    dynamic_range_of,
    engine_option,
    f_number_option,
    figure_options,
    grid_options,
    output_option,
    speed_option,
)
from .recordings import facts_options


@click.command(cls=grammar.Command, short_help="Draw the color Doppler of a recording.")
@click.argument("channel_data", type=click.Path(path_type=Path))
@facts_options
@grammar.section("Doppler")
@click.option(
    "--frame-rate-hz",
    type=console.Number(above=0),
    metavar="RATE",
    help="Frames per second, Hz.  [default: that of the file]",
)
@click.option(
    "--wall-order",
    type=click.IntRange(min=-1),
    default=-1,
    metavar="N",
    help="Of the polynomial in time that is removed with the walls: 0 is what stands still; -1 removes nothing.",
)
@click.option(
    "--smoothing",
    type=click.IntRange(min=1),
    default=5,
    metavar="N",
    help="Pixels that the autocorrelation is averaged over.",
)
@click.option(
    "--power-range-db",
    type=console.Number(above=0),
    default=20.0,
    metavar="DB",
    help="Color is drawn where the power is less than this below its largest.",
)
@grammar.section("Image")
@grid_options
@dynamic_range_of("40; 60 of a recording of another program")
@demodulation_options
@speed_option("For the way to a pixel and back.  [default: that of the file]")
@f_number_option
@engine_option
@grammar.section("Output")
@output_option("CHANNEL_DATA_doppler.png")
@figure_options
@console.verbose_option
def doppler(channel_data: Path, **options: Any) -> None:
    """Draw velocities along the beam over the B-mode, from the frames of CHANNEL_DATA (.mat of MUST, zea .hdf5, UFF).

    \b
    ussim doppler PWI_disk.mat -o disk.png
    ussim doppler vessel.hdf5 --wall-order 1 --frames 0:16
    """
    import numpy as np

    import ussim

    from ..arrays import to_numpy
    from ..show.flow import doppler_figure
    from . import recorded, steps

    described = any(options[name] is not None for name in ("sampling_mhz", "angles_deg", "facts"))
    file = recorded.open_file(channel_data, options, options["speed_of_sound"] if described else None)
    output = console.check_picture(
        options["output"] or Path(f"{channel_data.stem}_doppler.png"), channel_data, beside=".npz"
    )
    frames = recorded.frame_numbers(options["frames"], file.n_frames, every=True)
    if len(frames) < 2:
        raise click.UsageError(f"{channel_data}: expected two frames or more, got {len(frames)}")
    rate = options["frame_rate_hz"] or (None if file.frame_rate is None else file.stack(frames[:2]).frame_rate)
    if rate is None:
        raise click.UsageError(f"{channel_data}: it does not say how many frames there are per second: --frame-rate-hz")
    data = steps.demodulated(file.stack(frames), recorded.receive_of(options))
    grid = recorded.field_of(file, data, options)
    engine = steps.resolve_engine(options["engine"])
    clock = steps.Clock()
    with clock("beamform", f"beamforming {len(frames)} frames onto {steps.pixels(grid)}") as progress:
        speed = options["speed_of_sound"]
        images = ussim.delay_and_sum(
            data, grid, options["f_number"], speed_of_sound=speed, engine=engine, progress=progress
        )
    images = to_numpy(images)
    moving = images if options["wall_order"] < 0 else ussim.wall_filter(images, options["wall_order"])
    velocity, power = ussim.color_doppler(moving, rate, data.acquisition, smoothing=options["smoothing"])
    range_db = options["dynamic_range_db"] or (
        recorded.OWN_RANGE_DB if file.format == recorded.OWN else recorded.RECORDED_RANGE_DB
    )
    bmode = ussim.log_compress(np.sqrt(ussim.power_doppler(images)), range_db)
    limit = ussim.nyquist_velocity(rate, data.acquisition)
    shown = np.where(power > power.max() * 10 ** (-options["power_range_db"] / 10), velocity, np.nan)
    figure = doppler_figure(bmode, shown, grid, limit, f"{channel_data.name}, {len(frames)} frames")
    settings = recorded.receive_of(options) | {
        "channel_data": channel_data.name,
        "f_number": options["f_number"],
        "speed_of_sound": options["speed_of_sound"],
        "frames": frames,
        "frame_rate": rate,
        "wall_order": options["wall_order"],
        "smoothing": options["smoothing"],
        "dynamic_range_db": range_db,
        "engine": engine,
    }
    seen = shown[np.isfinite(shown)]
    drawn = f"drawn {seen.min():.3g} to {seen.max():.3g} m/s towards the array" if seen.size else "nothing echoes"
    arrays = {"velocity": velocity, "power": power, "bmode": bmode, "x": grid.x, "z": grid.z}
    steps.write_result(output, figure, arrays, data.acquisition, settings)
    console.result(f"{output}: {len(frames)} frames at {rate:g} Hz, Nyquist velocity {limit:.3g} m/s, {drawn}; {clock}")
