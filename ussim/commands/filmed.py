"""The steps of `ussim movie`: a wave, B-modes and Doppler of a recording, each from options to a file."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

import ussim

from ..arrays import to_numpy
from ..propagation import crossing_times
from ..show.movies import check_movie, save_doppler_movie, save_field_movie, save_movie
from . import console, recorded, steps

# Of the picture of a wave where no size is asked for: what tells its crests apart, within bounds.
LEAST_ROWS, MOST_ROWS, PIXELS_A_WAVE = 256, 640, 3.2
FRAMES_AT_ONCE = 8  # of a recording: its delays are found once for them
POWER_RANGE_DB = 20.0  # color is drawn where the power is less than this below its largest, as by `ussim doppler`


def wave(options: dict[str, Any]) -> None:
    """Write the pressure of one transmit."""
    probe, n = options["probe"], options["pictures"]
    speed = options["speed_of_sound"]
    medium = ussim.Medium(1540.0 if speed is None else speed, options["attenuation"])
    chosen = (options[name] for name in ("focus_mm", "plane_deg", "diverging_deg", "source_mm"))
    waves, words = steps.one_transmit(probe, medium, *chosen)
    acquisition = ussim.Acquisition(probe, waves, medium, n_subelements=options["sub_elements"])
    wavelength = medium.speed_of_sound / probe.center_frequency
    grid = steps.field_grid(acquisition, options["depth_mm"], options["width_mm"], options["size"] or LEAST_ROWS)
    if options["size"] is None:  # as fine as the crests are
        rows = math.ceil(LEAST_ROWS * float(grid.z[1] - grid.z[0]) / (wavelength / PIXELS_A_WAVE))
        rows = min(max(rows, LEAST_ROWS), MOST_ROWS)
        grid = steps.field_grid(acquisition, options["depth_mm"], options["width_mm"], rows)
    output = _checked(options["output"] or Path(f"{probe.name.replace('/', '-')}_wave.gif"), *steps.input_files(probe))
    if options["time_us"] is None:
        times = crossing_times(acquisition, grid, n)
    else:
        low, high = options["time_us"]
        if not low < high:
            raise click.UsageError(f"--time-us: expected LOW below HIGH, got {low:g} {high:g}")
        times = np.linspace(low / 1e6, high / 1e6, n)
    pixel = float(grid.z[1] - grid.z[0])
    if pixel > wavelength / 3:
        console.note(
            f"pixels of {1e3 * pixel:.2g} mm do not tell the crests of {1e3 * wavelength:.2g} mm apart: a larger --size, or "
            "a smaller --depth-mm, does"
        )
    clock = steps.Clock()
    with clock("wave", f"computing {n} pictures of {words} on {steps.pixels(grid)}") as progress:
        field = ussim.wave_field(acquisition, grid, times, progress=progress)
    title = f"{probe.name}, {words}"
    arrays = {"pressure": field, "time": times, **steps.axes_of(grid)}
    settings = {"transmit": words, "shown_hz": options["shown_hz"]}
    with clock("movie", f"drawing {n} pictures") as progress:
        steps.write_result(
            output,
            lambda: save_field_movie(output, field, grid, times, probe, title, progress, options["shown_hz"]),
            arrays,
            acquisition,
            settings,
        )
    span = f"{1e6 * times[0]:.3g} to {1e6 * times[-1]:.3g} µs"
    console.result(f"{output}: {title}, {n} pictures of {span}; {clock}")


def recording(path: Path, options: dict[str, Any]) -> None:
    """Write the frames of a recording."""
    described = any(options[name] is not None for name in ("sampling_mhz", "angles_deg", "facts"))
    file = recorded.open_file(path, options, options["speed_of_sound"] if described else None)
    output = _checked(options["output"] or Path(f"{path.stem}.gif"), path)
    frames = recorded.frame_numbers(options["frames"], file.n_frames, every=True)
    least = options["ensemble"] if options["doppler"] else 2
    if len(frames) < least:
        raise click.UsageError(f"{path}: expected {least} frames or more, got {len(frames)}")
    rate = _frame_rate(file, frames, options) if options["doppler"] else None
    data = steps.demodulated(file.frame(frames[0]), recorded.receive_of(options))
    grid = recorded.field_of(file, data, options)
    engine = steps.resolve_engine(options["engine"])
    range_db = options["dynamic_range_db"] or (
        recorded.OWN_RANGE_DB if file.format == recorded.OWN else recorded.RECORDED_RANGE_DB
    )
    steps.say_if_unseen(data.acquisition, grid, options["f_number"])
    settings = recorded.receive_of(options) | {
        "channel_data": path.name,
        "frames": frames,
        "f_number": options["f_number"],
        "speed_of_sound": options["speed_of_sound"],
        "dynamic_range_db": range_db,
        "engine": engine,
        "shown_hz": options["shown_hz"],
    }
    how = {"f_number": options["f_number"], "speed_of_sound": options["speed_of_sound"], "engine": engine}
    clock = steps.Clock()
    image = ussim.envelope_image if rate is None else ussim.delay_and_sum
    with clock("beamform", f"beamforming {len(frames)} frames onto {steps.pixels(grid)}") as progress:
        images = _images(file, frames, grid, image, options, how, progress)
    names = [f"{path.name}, frame {frame}" for frame in frames]
    shown = options["shown_hz"]
    save: Callable[[Callable[[int, int], None]], None]
    if rate is None:
        bmodes = ussim.log_compress(images, range_db)
        arrays = {"bmode": bmodes}

        def save(progress: Callable[[int, int], None]) -> None:
            save_movie(output, list(bmodes), grid, range_db, names, progress, shown)
    else:
        bmodes, velocities, limit = _flow(images, rate, data.acquisition, range_db, options)
        arrays = {"bmode": bmodes, "velocity": velocities}
        settings |= {"frame_rate": rate, "ensemble": least, "wall_order": options["wall_order"]}
        names = names[least - 1 :]

        def save(progress: Callable[[int, int], None]) -> None:
            save_doppler_movie(output, list(bmodes), list(velocities), grid, limit, names, progress, shown)

    with clock("movie", f"drawing {len(names)} frames") as progress:
        steps.write_result(output, lambda: save(progress), arrays | steps.axes_of(grid), data.acquisition, settings)
    console.result(f"{output}: {steps.summary(data.acquisition, grid)}, {len(names)} frames; engine {engine}, {clock}")


def _images(
    file: ussim.ChannelDataFile,
    frames: list[int],
    grid: ussim.ImageGrid,
    image: Callable[..., Any],
    options: dict[str, Any],
    how: dict[str, Any],
    progress: Callable[[int, int], None],
) -> np.ndarray:
    """Return the image of each frame, (n_frames, nz, nx); the channel data of a few frames at a time are in memory."""
    images = []
    for first in range(0, len(frames), FRAMES_AT_ONCE):
        some = frames[first : first + FRAMES_AT_ONCE]
        data = steps.demodulated(file.stack(some), recorded.receive_of(options))
        images.append(to_numpy(image(data, grid, **how)))
        progress(first + len(some), len(frames))
    return np.concatenate(images)


def _checked(output: Path, *inputs: Path) -> Path:
    """Return the path of a movie, if it and the numbers beside it can be written."""
    try:
        check_movie(output)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    console.check_outputs([output, output.with_suffix(".npz")], inputs)
    return output


def _frame_rate(file: ussim.ChannelDataFile, frames: list[int], options: dict[str, Any]) -> float:
    """Return the frames per second of a recording."""
    given = options["frame_rate_hz"]
    found = given or (None if file.frame_rate is None else file.stack(frames[:2]).frame_rate)
    if found is None:
        raise click.UsageError("the recording does not say how many frames there are per second: --frame-rate-hz")
    return float(found)


def _flow(
    images: np.ndarray, rate: float, acquisition: ussim.Acquisition, range_db: float, options: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return B-modes, velocities, m/s (NaN where nothing moves or echoes), and the limit of their colors."""
    n, order = options["ensemble"], options["wall_order"]
    velocities = []
    for last in range(n, len(images) + 1):
        ensemble = images[last - n : last]
        moving = ensemble if order is None else ussim.wall_filter(ensemble, order)
        velocity, power = ussim.color_doppler(moving, rate, acquisition, smoothing=options["smoothing"])
        velocities.append(np.where(power > power.max() * 10 ** (-POWER_RANGE_DB / 10), velocity, np.nan))
    bmodes = ussim.log_compress(np.abs(images[n - 1 :]), range_db)
    return bmodes, np.stack(velocities), ussim.nyquist_velocity(rate, acquisition)
