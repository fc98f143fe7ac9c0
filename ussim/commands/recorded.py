"""The steps of `ussim beamform` and `ussim convert`: a file opened with what is known of it, its frames, its field."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

import ussim

from ..beamforming.adaptive import is_coherence
from ..errors import DataError
from ..show.figures import comparison_figure
from ..show.movies import save_movie
from ..time_zero import check_time_zero
from . import console, steps

OWN = "ussim"  # format of files of our own
OWN_RANGE_DB, RECORDED_RANGE_DB = 40.0, 60.0
FINE_PITCH = 0.7  # wavelengths up to which a flat array is a phased one, whose field is a sector
SECTOR = math.radians(35)  # half of it
DEEPEST = 1.5  # apertures of a linear array: what lies deeper is mostly noise
FORMATS = (".npz", ".hdf5", ".h5", ".uff", ".mat")


def beamform(path: Path, options: dict[str, Any]) -> None:
    """Do what `ussim beamform` is asked for."""
    described = any(options[name] is not None for name in ("sampling_mhz", "angles_deg", "facts"))
    file = open_file(path, options, options["speed_of_sound"] if described else None)
    output = options["output"] or Path(f"{path.stem}_bmode.png")
    movie = output.suffix.lower() == ".gif"
    frames = frame_numbers(options["frames"], file.n_frames, every=movie)
    others = [path] if options["compare"] is None else [path, options["compare"]]
    if movie:
        console.check_output(output, *others)
        console.check_outputs([output, output.with_suffix(".npz")], others)
    else:
        console.check_picture(output, *others, beside=".npz", bare=options["bare"])
    if len(frames) > 1 and not movie:
        raise click.UsageError(f"--frames: several frames are a movie: -o {output.with_suffix('.gif')}")
    if options["bare"] and (movie or options["compare"] is not None):
        raise click.UsageError("--bare: expected one picture to write")
    if options["compare"] is not None and movie:
        raise click.UsageError("--compare: expected a picture to write, got a movie")
    steps.check_aperture(options["apodization"], options["combine"])
    if is_coherence(options["combine"]):
        if movie or options["compare"] is not None:
            raise click.UsageError("--combine slsc: a coherence has no decibels: expected one picture to write")
        if options["compounding"] == "incoherent":
            raise click.UsageError("--combine slsc: no magnitude to compound: expected --compounding coherent")
    data = chosen_transmits(file.frame(frames[0]), options)
    grid = (sector_of if options["polar"] else field_of)(file, data, options)
    settings = settings_of(path, options)
    range_db = options["dynamic_range_db"] or (OWN_RANGE_DB if file.format == OWN else RECORDED_RANGE_DB)
    settings["dynamic_range_db"] = range_db
    if file.format != OWN:
        settings |= {"format": file.format, "frames": frames}
        console.note(f"{file.format}, time 0: {file.clock}")
    for note in file.notes:
        console.note(f"taken for granted: {note}")

    engine = settings["engine"] = steps.combining_engine(steps.resolve_engine(options["engine"]), options["combine"])
    clock = steps.Clock()
    words = f"beamforming {steps.count_transmits(data.acquisition)} onto {steps.pixels(grid)}"
    steps.say_if_unseen(data.acquisition, grid, options["f_number"])
    envelopes = []
    with clock("beamform", words if len(frames) == 1 else f"{words}, {len(frames)} frames") as progress:
        for i, frame in enumerate(frames):
            record = data if i == 0 else chosen_transmits(file.frame(frame), options)
            report = progress if len(frames) == 1 else None
            envelopes.append(envelope(record, grid, options, engine, report))
            if len(frames) > 1:
                progress(i + 1, len(frames))
    pictures = steps.compressed(np.stack(envelopes), range_db, options["combine"])
    if options["check_time_zero"]:
        with clock("time zero", "checking time zero"):
            field = field_of(file, data, options)
            found = check_time_zero(steps.demodulated(data, receive_of(options)), field, engine=engine)
        settings["time_zero"] = {"shift": None if math.isnan(found.shift) else found.shift, "is_right": found.is_right}
        console.result(f"time zero: {found}")
        if not found.is_right:
            console.warn(
                "time zero is not that of the echoes: the start time (--start-us), the reference of the clock or the sign "
                "of the angles is another one than the file says (docs/time.md)"
            )
    if movie:
        titles = [f"{path.name}, frame {frame}" for frame in frames]
        arrays = {"bmode": pictures, **steps.axes_of(grid)}
        with clock("movie", f"drawing {len(frames)} frames") as progress:
            steps.write_result(
                output,
                lambda: save_movie(output, list(pictures), grid, range_db, titles, progress),
                arrays,
                data.acquisition,
                settings,
            )
    elif options["compare"] is not None:
        compare(output, path, pictures[0], grid, data.acquisition, settings, options, engine, range_db)
    else:
        steps.write_bmode(output, pictures[0], grid, data.acquisition, settings, range_db, bare=options["bare"])
    many = f", {len(frames)} frames" if movie else ""
    console.result(f"{output}: {steps.summary(data.acquisition, grid)}{many}; engine {engine}, {clock}")
    if file.n_frames > 1 and not movie:
        console.note(f"{path}: {file.n_frames} frames; --frames N shows another one, -o x.gif all of them")


def convert(source: Path, target: Path, options: dict[str, Any]) -> None:
    """Do what `ussim convert` is asked for."""
    if target.suffix.lower() not in FORMATS:
        raise click.UsageError(f"{target}: expected a name ending in {', '.join(FORMATS)}")
    console.check_output(target, source)
    file = open_file(source, options, speed_of_sound=options["speed_of_sound"])
    frames = frame_numbers(options["frames"], file.n_frames, every=True)
    if target.suffix.lower() == ".npz" and len(frames) > 1:
        raise click.UsageError(
            f"{target}: .npz holds one frame of the {len(frames)}: --frames N, or write .hdf5, .uff or .mat"
        )
    for note in file.notes:
        console.note(f"taken for granted: {note}")
    file.save(target, frames)
    shape = (file.acquisition.n_transmits, file.acquisition.probe.n_elements, file.n_samples)
    console.result(f"{target}: {len(frames)} frame{'s' if len(frames) > 1 else ''} {shape} of {source} ({file.format})")


def open_file(path: Path, options: dict[str, Any], speed_of_sound: float | None = None) -> ussim.ChannelDataFile:
    """Return the file, with what the options say of it."""

    def scaled(name: str, factor: float) -> float | None:
        return None if options[name] is None else options[name] * factor

    facts = {
        "probe": options["probe"],
        "sampling_frequency": scaled("sampling_mhz", 1e6),
        "angles": options["angles_deg"],
        "start_time": None if options["start_us"] is None else options["start_us"] / 1e6,
        "demodulation_frequency": scaled("demodulation_mhz", 1e6),
        "clock": options["clock"],
        "axes": options["axes"],
        "speed_of_sound": speed_of_sound,
        "facts": options["facts"],
    }
    return ussim.open_channel_data(path, options["variable"], **{k: v for k, v in facts.items() if v is not None})


def frame_numbers(text: str | None, n_frames: int, every: bool) -> list[int]:
    """Return the frames that "3", "0:10" or "all" means."""
    if text is None:
        return list(range(n_frames)) if every else [0]
    words = text.strip().lower()
    if words == "all":
        return list(range(n_frames))
    try:
        if ":" in words:
            first, last = (int(part) if part else None for part in words.split(":"))
            frames = list(range(n_frames))[first:last]
        else:
            frames = [int(part) for part in words.split(",")]
    except ValueError:
        frames = []
    if not frames or min(frames) < 0 or max(frames) >= n_frames:
        raise click.UsageError(f"--frames: expected N, A:B or all, of the file's 0 to {n_frames - 1}, got {text!r}")
    return frames


def field_of(
    file: ussim.ChannelDataFile, data: ussim.RFData | ussim.IQData, options: dict[str, Any]
) -> ussim.ImageGrid:
    """Square pixels over the probe's field of our own files, over what was recorded of others'."""
    depth_mm, width_mm = options["depth_mm"], options["width_mm"]
    if file.format != OWN or data.acquisition.probe.imaging is None:
        (left, right), (top, bottom) = recorded_field(data)
        if depth_mm is None:
            depth_mm = (1e3 * top, 1e3 * bottom)
        if width_mm is None:
            width_mm = 1e3 * (right - left)
            width_mm = min(width_mm, 15.9 * (depth_mm[1] - depth_mm[0]))
    return steps.make_grid(data.acquisition, depth_mm, width_mm, options["size"])


def sector_of(
    file: ussim.ChannelDataFile, data: ussim.RFData | ussim.IQData, options: dict[str, Any]
) -> ussim.PolarGrid:
    """Radii by angles of the probe's sector, over the depths of `field_of`."""
    if options["width_mm"] is not None:
        raise click.UsageError("--width-mm: a polar picture is as wide as the sector: expected --polar without it")
    probe, depth = data.acquisition.probe, None
    if options["depth_mm"] is not None:
        apex = probe.beam_apex or 0.0
        face = apex if probe.is_flat else apex + probe.radius  # z, on the middle beam
        nearest = (
            data.acquisition.medium.speed_of_sound / probe.center_frequency if probe.is_flat else 0.0
        )  # not the apex
        low, high = (1e-3 * z - face for z in options["depth_mm"])
        depth = max(low, nearest), high
        if depth[0] >= high > low:
            asked = " ".join(f"{z:g}" for z in options["depth_mm"])
            raise click.UsageError(
                f"--depth-mm: expected depths beyond the array, whose face is at {1e3 * face:.3g} mm, got {asked}"
            )
    elif file.format != OWN or probe.imaging is None:
        depth = recorded_field(data)[1]  # from the elements on
    return steps.make_polar(data.acquisition, depth, options["size"])


def recorded_field(data: ussim.RFData | ussim.IQData) -> tuple[tuple[float, float], tuple[float, float]]:
    """((left, right), (top, bottom)) that the samples cover, m: as wide as the array, or the sector that it sees."""
    acquisition, probe = data.acquisition, data.acquisition.probe
    speed = acquisition.medium.speed_of_sound
    wavelength = speed / probe.center_frequency
    fired = np.nanmean(acquisition.transmit_delays, axis=(1, 2))
    first = data.start_times - fired
    last = first + data.samples.shape[-1] / data.sampling_frequency
    top = max(float(first.min()) * speed / 2, 3 * wavelength)
    bottom = float(last.min()) * speed / 2
    half = float(probe.element_x[-1] - probe.element_x[0] + probe.element_width) / 2
    if probe.is_flat and probe.pitch > FINE_PITCH * wavelength:
        deepest = max(DEEPEST * 2 * half, 2 * top)
        if bottom > deepest:
            console.note(f"{1e3 * bottom:.3g} mm deep recorded, shown to {1e3 * deepest:.3g} mm; --depth-mm shows more")
            bottom = deepest
    else:
        spread = math.tan(float(probe.element_angle[-1]) if not probe.is_flat else SECTOR)
        half = half + bottom * spread
    if not bottom > top:
        raise DataError(
            f"expected samples of echoes, got those of {1e6 * float(first.min()):.3g} to {1e6 * float(last.min()):.3g} µs "
            "after the firing: another start time is said by --start-us"
        )
    return (-half, half), (top, bottom)


def chosen_transmits(data: ussim.RFData | ussim.IQData, options: dict[str, Any]) -> ussim.RFData | ussim.IQData:
    """Return the data of the transmits asked for."""
    if options["transmits"] is None:
        return data
    return steps.select_transmits(data, steps.transmit_numbers(options["transmits"], data.acquisition.n_transmits))


def receive_of(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of demodulation."""
    return steps.receive_settings(options["carrier_mhz"], options["bandwidth_percent"], options["tgc"])


def envelope(
    data: ussim.RFData | ussim.IQData,
    grid: ussim.ImageGrid | ussim.PolarGrid,
    options: dict[str, Any],
    engine: str,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return the envelope (nz, nx) of one record."""
    weights = "line" if options["scan_lines"] else options["transmit_weights"]
    return steps.beamform_envelope(
        steps.demodulated(data, receive_of(options)),
        grid,
        options["compounding"],
        progress,
        speed_of_sound=options["speed_of_sound"],
        f_number=options["f_number"],
        apodization=options["apodization"],
        combine=options["combine"],
        engine=engine,
        interpolation=options["interpolation"],
        normalize=options["normalize"],
        transmit_weights=None if weights == "none" else weights,
    )


def settings_of(path: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Return what is written beside the picture."""
    return {
        "channel_data": path.name,
        "transmits": options["transmits"],
        "compounding": options["compounding"],
        "transmit_weights": "line" if options["scan_lines"] else options["transmit_weights"],
        "interpolation": options["interpolation"],
        "normalize": options["normalize"],
        "speed_of_sound": options["speed_of_sound"],
        **receive_of(options),
        "f_number": options["f_number"],
        "apodization": options["apodization"],
        "combine": options["combine"],
        "polar": options["polar"],
    }


def compare(
    output: Path,
    path: Path,
    picture: np.ndarray,
    grid: ussim.ImageGrid | ussim.PolarGrid,
    acquisition: ussim.Acquisition,
    settings: dict[str, Any],
    options: dict[str, Any],
    engine: str,
    range_db: float,
) -> None:
    """Beamform the other file onto the same pixels, draw both, and say by how much they differ."""
    other = options["compare"]
    described = any(options[name] is not None for name in ("sampling_mhz", "angles_deg", "facts"))
    file = open_file(other, options, options["speed_of_sound"] if described else None)
    data = chosen_transmits(file.frame(frame_numbers(options["frames"], file.n_frames, every=False)[0]), options)
    second = steps.compressed(envelope(data, grid, options, engine), range_db, options["combine"])
    shown = (picture > 0) | (second > 0)
    difference = range_db * (picture - second)[shown]
    figure = comparison_figure([picture, second], grid, range_db, [path.name, other.name])
    arrays = {"bmode": picture, "other": second, **steps.axes_of(grid)}
    rms = float(np.sqrt(np.mean(difference**2))) if difference.size else 0.0
    settings = settings | {"compare": other.name, "rms_difference_db": rms}
    steps.write_result(output, figure, arrays, acquisition, settings)
    mean = float(np.mean(difference)) if difference.size else 0.0
    console.result(
        f"{path.name} and {other.name}: {rms:.3g} dB apart (RMS), {mean:+.3g} dB on average, each of its own maximum"
    )
