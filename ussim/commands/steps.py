"""The steps that the commands of `ussim` are made of: from options to values, from results to files and words."""

from __future__ import annotations

import dataclasses
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

import ussim

from ..arrays import to_numpy
from ..beamform import UNSEEN_SHARE, UnseenWarning
from ..beamforming.adaptive import OWN_WEIGHTS, SUM, is_coherence, resolve_combination
from ..beamforming.apertures import automatic_f_number, unseen_share
from ..engines import get_engine
from ..errors import DataError
from ..io.atomic import replacing
from ..io.plain import acquisition_to_dict
from ..show.describe import describe_excitation, describe_imperfections, describe_waves
from ..show.figures import bmode_figure, save_figure
from ..volumes.own import bare_path
from ..waiting import announce
from . import console
from .options import figure_size

STRETCH = 0.1  # an image whose proportions differ from the field's by more than this (in ln) is worth a word


# --- steps -----------------------------------------------------------------------------------------------------------


class Clock:
    """Times the steps of a command and says on stderr which one runs."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(
        self, name: str, description: str | None = None, expected: float | None = None
    ) -> Iterator[Callable[[int, int], None]]:
        """Give what the step calls with its parts done and their total."""
        started = time.perf_counter()
        if description is None:
            yield lambda done, total: None
        else:
            with console.tracking(description, expected) as progress:
                yield progress
        self.seconds[name] = time.perf_counter() - started

    def __str__(self) -> str:
        total = console.duration(sum(self.seconds.values()))
        if len(self.seconds) == 1:
            return total
        return f"{total} ({', '.join(f'{name} {console.duration(spent)}' for name, spent in self.seconds.items())})"


def make_grid(
    acquisition: ussim.Acquisition, depth_mm: tuple[float, float] | None, width_mm: float | None, size: int
) -> ussim.ImageGrid:
    """Square pixels over the field of view, `size` rows."""
    if depth_mm is not None and not depth_mm[0] < depth_mm[1]:
        raise click.UsageError(f"--depth-mm: expected LOW below HIGH, got {depth_mm[0]:g} {depth_mm[1]:g}")
    z = None if depth_mm is None else (depth_mm[0] / 1e3, depth_mm[1] / 1e3)
    x = None if width_mm is None else (-width_mm / 2e3, width_mm / 2e3)
    imaging = acquisition.probe.imaging
    if imaging is None and (x is None or z is None):
        raise click.UsageError(
            f"{acquisition.probe.name} has no [imaging] field of view: give --depth-mm and --width-mm"
        )
    (left, right), (top, bottom) = x or imaging.x, z or imaging.z  # type: ignore[union-attr]
    columns = max(2, round(size * (right - left) / (bottom - top)))
    if columns > 16 * size:
        raise click.UsageError(
            f"--width-mm: expected at most 16 times the depth shown, got {1e3 * (right - left):g} mm "
            f"over {1e3 * (bottom - top):g} mm"
        )
    return ussim.ImageGrid.for_acquisition(acquisition, (size, columns), x, z)


def make_polar(acquisition: ussim.Acquisition, depth: tuple[float, float] | None, size: int) -> ussim.PolarGrid:
    """Lay radii by angles over a probe's sector, `size` rows, square half way down; depth (low, high) m along a beam."""
    if acquisition.probe.beam_apex is None:
        raise click.UsageError(f"--polar: expected a convex or phased probe, got {acquisition.probe.name}")
    grid = ussim.PolarGrid.for_acquisition(acquisition, (size, 2), depth)
    arc = float(np.ptp(grid.angle) * grid.radius.mean())
    columns = round(size * arc / float(np.ptp(grid.radius)))
    low, high = grid.angle
    return dataclasses.replace(grid, angle=np.linspace(low, high, min(max(columns, 2), 16 * size)))


def axes_of(grid: ussim.ImageGrid | ussim.PolarGrid) -> dict[str, Any]:
    """Return what a file of numbers says of the places of an image's rows and columns, m and rad."""
    if isinstance(grid, ussim.PolarGrid):
        return {"radius": grid.radius, "angle": grid.angle, "apex": grid.apex}
    return {"x": grid.x, "z": grid.z}


def field_grid(
    acquisition: ussim.Acquisition, depth_mm: tuple[float, float] | None, width_mm: float | None, size: int
) -> ussim.ImageGrid:
    """Square pixels from the array on, where the wave is made, to the end of the field of view."""
    if depth_mm is None and acquisition.probe.imaging is not None:
        depth_mm = 0.0, 1e3 * acquisition.probe.imaging.z[1]
    grid = make_grid(acquisition, depth_mm, width_mm, size)
    if grid.z[0] == 0:  # the element surfaces themselves: half a pixel below
        grid = ussim.ImageGrid(x=grid.x, z=grid.z + (grid.z[1] - grid.z[0]) / 2)
    return grid


def resolve_engine(engine: str) -> str:
    """Return the engine's name with "auto" decided, found to be there before the work begins."""
    module = get_engine(engine)
    announce(console.note)
    return module.name if engine == "auto" else engine


def input_files(probe: ussim.Probe, *files: Path) -> list[Path]:
    """Return what a command reads, and so may not write: its files, and that of a probe of the user's own."""
    return [*files, *([Path(probe.path)] if probe.path else [])]


def stem(path: Path) -> str:
    """Return a file's name without its suffix, or both of .nii.gz."""
    name = path.name[: -len(".gz")] if path.name.lower().endswith(".nii.gz") else path.name
    return Path(name).stem


def check_subject(
    image: Path | None,
    phantom: str | None,
    phantom_seed: int | None,
    slice_index: int | None,
    plane: str | None,
    scatterer_range_db: float | None,
) -> None:
    """Refuse a `render` of nothing, of two things, or with an option that belongs to the other of them."""
    if (image is None) == (phantom is None):
        got = "neither" if image is None else "both"
        raise click.UsageError(f"expected an IMAGE or --phantom NAME, got {got}")
    if phantom is None and phantom_seed is not None:
        raise click.UsageError("--phantom-seed goes with --phantom")
    others = {"--slice": slice_index, "--plane": plane, "--scatterer-range-db": scatterer_range_db}
    for option, value in others.items():
        if phantom is not None and value is not None:
            raise click.UsageError(f"{option} goes with an IMAGE, not with --phantom")


def make_phantom(
    name: str, grid: ussim.ImageGrid, acquisition: ussim.Acquisition, seed: int | None
) -> ussim.phantoms.Phantom:
    """Make a phantom over the grid, its shadows along the probe's beams."""
    x, z = ((float(axis[0]), float(axis[-1])) for axis in (grid.x, grid.z))
    return ussim.phantoms.make(name, x, z, seed, apex=ussim.phantoms.beam_apex(acquisition.probe))


def read_grey(path: Path, slice_index: int | None, plane: str | None) -> np.ndarray:
    """Return the grey image (n_rows, n_columns) in [0, 1] that a file holds. Raises DataError whatever is wrong with it."""
    from ussim.volumes.reading import read_image

    try:
        return read_image(path, slice_index, plane)
    except ValueError as error:
        raise DataError(str(error)) from error


def expected_seconds(scatterers: ussim.Scatterers, acquisition: ussim.Acquisition, n_tried: int = 20) -> float | None:
    """Return how long the literal engine will take, from a few scatterers: its work is in proportion to their number."""
    if len(scatterers) < 10 * n_tried:
        return None
    tried = slice(None, None, len(scatterers) // n_tried)
    few = scatterers.select(tried)
    started = time.perf_counter()
    ussim.simulate(few, acquisition, "reference")
    return (time.perf_counter() - started) * len(scatterers) / len(few)


def say_if_stretched(image: np.ndarray, grid: ussim.ImageGrid) -> None:
    """Note to the user that image and field differ in proportions."""
    rows, columns = image.shape
    width, depth = grid.x[-1] - grid.x[0], grid.z[-1] - grid.z[0]
    if abs(math.log((columns / rows) / (width / depth))) > STRETCH:
        console.note(
            f"the image of {rows} x {columns} pixels is stretched onto {1e3 * depth:.3g} x {1e3 * width:.3g} mm; "
            f"--width-mm {1e3 * depth * columns / rows:.3g} would keep its proportions"
        )


def transmit_sequence(
    probe: ussim.Probe,
    transmit: str | None,
    n_transmits: int | None,
    max_angle_deg: float | None,
    width_deg: float | None,
    focus_depth_mm: float | None,
    transmit_f_number: float | None,
) -> Any:
    """Return the waves that the options of `render` ask for."""
    max_angle = None if max_angle_deg is None else math.radians(max_angle_deg)
    if transmit == "focused":
        if focus_depth_mm is None:
            raise click.UsageError("--transmit focused: expected --focus-depth-mm MM, got none")
        if width_deg is not None:
            raise click.UsageError("--width-deg goes with --transmit diverging")
        f_number = 2.0 if transmit_f_number is None else transmit_f_number
        return ussim.focused_scan(probe, focus_depth_mm / 1e3, n_transmits, f_number, max_angle)
    if focus_depth_mm is not None or transmit_f_number is not None:
        raise click.UsageError("--focus-depth-mm and --transmit-f-number go with --transmit focused")
    width = None if width_deg is None else math.radians(width_deg)
    return ussim.imaging_waves(probe, transmit, n_transmits, max_angle, width)


def receive_settings(carrier_mhz: float | None, bandwidth_percent: float | None, tgc: bool) -> dict[str, Any]:
    """Return the options of demodulation as SI values, None where the probe's own hold."""
    return {
        "demodulation_frequency": None if carrier_mhz is None else 1e6 * carrier_mhz,
        "demodulation_bandwidth": None if bandwidth_percent is None else bandwidth_percent / 100,
        "tgc": tgc,
    }


def demodulated(data: ussim.RFData | ussim.IQData, settings: dict[str, Any]) -> ussim.IQData:
    """IQ data, amplified where the settings (see `receive_settings`) ask for it."""
    frequency, bandwidth = settings["demodulation_frequency"], settings["demodulation_bandwidth"]
    if settings["tgc"]:
        if data.acquisition.medium.attenuation_db_cm_mhz == 0:
            console.warn("--tgc: the medium does not attenuate, there is nothing to compensate")
        data = ussim.time_gain_compensation(data, frequency=frequency)
    if isinstance(data, ussim.IQData):
        if frequency is not None or bandwidth is not None:
            raise click.UsageError("--carrier-mhz and --bandwidth-percent are of RF data, got data demodulated before")
        return data
    return ussim.demodulate(data, frequency, bandwidth)


def beamform_bmode(
    data: ussim.RFData | ussim.IQData,
    grid: ussim.ImageGrid,
    dynamic_range_db: float,
    compounding: str = "coherent",
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> np.ndarray:
    """Channel data to the B-mode on the host, (nz, nx) in [0, 1]; `options` are those of `delay_and_sum`."""
    say_if_unseen(data.acquisition, grid, options.get("f_number"))
    envelope = beamform_envelope(data, grid, compounding, progress, **options)
    return compressed(envelope, dynamic_range_db, options.get("combine", SUM))


def compressed(envelope: np.ndarray, dynamic_range_db: float, combine: str) -> np.ndarray:
    """Return grey levels of envelopes in [0, 1]: by their decibels; of coherences, as they are."""
    if is_coherence(combine):
        grey: np.ndarray = np.clip(envelope, 0, 1).astype(np.float32)
        return grey
    return ussim.log_compress(envelope, dynamic_range_db)


def check_aperture(apodization: str, combine: str) -> None:
    """Refuse a window where the elements are weighed otherwise."""
    if apodization != "boxcar" and isinstance(resolve_combination(combine), OWN_WEIGHTS):
        raise click.UsageError(f"--apodization: --combine {combine} weighs the elements itself: expected boxcar")


def combining_engine(engine: str, combine: str) -> str:
    """Return the engine that beamforms: the CPU's for what no card computes, and the user is told."""
    if engine.startswith("cuda") and resolve_combination(combine) is not None:
        console.note(f"--combine {combine} is computed on the CPU")
        return "cpu"
    return engine


def beamform_envelope(
    data: ussim.RFData | ussim.IQData,
    grid: ussim.ImageGrid | ussim.PolarGrid,
    compounding: str = "coherent",
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> np.ndarray:
    """Channel data to the envelope on the host, (nz, nx); `options` are those of `delay_and_sum`."""
    iq = data if isinstance(data, ussim.IQData) else ussim.demodulate(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnseenWarning)
        return to_numpy(ussim.envelope_image(iq, grid, compounding=compounding, progress=progress, **options))


def say_if_unseen(
    acquisition: ussim.Acquisition, grid: ussim.ImageGrid | ussim.PolarGrid, f_number: float | None
) -> None:
    """Note to the user that a good part of the picture is in no element's receive aperture."""
    if f_number is None:
        f_number = automatic_f_number(acquisition.probe, acquisition.medium.speed_of_sound)
    share = unseen_share(acquisition, grid, f_number)
    if share > UNSEEN_SHARE:
        console.note(
            f"{share:.0%} of the pixels are in no element's receive aperture (f-number {f_number:.2f}) and stay black; "
            "--f-number 0 takes all elements"
        )


def one_transmit(
    probe: ussim.Probe,
    medium: ussim.Medium,
    focus_mm: Any,
    plane_deg: float | None,
    diverging_deg: Any,
    source_mm: Any,
) -> tuple[Any, str]:
    """Return the transmit that the options of `field` ask for, and its name in words."""
    asked = sum((bool(focus_mm), plane_deg is not None, diverging_deg is not None, source_mm is not None))
    if asked > 1:
        raise click.UsageError("expected one of --focus-mm, --plane-deg, --diverging-deg and --source-mm, got several")
    if focus_mm:
        foci = np.array(focus_mm) / 1e3
        waves = ussim.FocusedWaves(x=foci[:, 0], z=foci[:, 1])
        words = "focus at " + " and ".join(f"({x:g}, {z:g}) mm" for x, z in focus_mm)
        if len(foci) == 1:
            return waves, words
        return ussim.CustomTransmits(waves.delays(probe, medium)[None]), words
    if diverging_deg is not None:
        tilt, width = np.deg2rad(diverging_deg)
        words = f"diverging wave, tilt {diverging_deg[0]:g}°, width {diverging_deg[1]:g}°"
        return ussim.DivergingWaves(tilts=tilt, width=width), words
    if source_mm is not None:
        x, z = np.array(source_mm) / 1e3
        return ussim.DivergingWaves(x=x, z=z), f"diverging wave from ({source_mm[0]:g}, {source_mm[1]:g}) mm"
    if plane_deg is None and probe.imaging is not None and probe.imaging.transmit == "diverging":
        return ussim.imaging_waves(probe, n_transmits=1), "diverging wave"
    return ussim.PlaneWaves(np.deg2rad([plane_deg or 0.0])), f"plane wave at {plane_deg or 0.0:g}°"


def transmit_numbers(text: str, n_transmits: int) -> list[int]:
    """Return the numbers in "0,7,14"."""
    parts = [part.strip() for part in text.split(",")]
    chosen = [int(part) for part in parts if part.isdecimal()]
    if len(chosen) < len(parts) or len(set(chosen)) < len(chosen) or max(chosen) >= n_transmits:
        raise click.UsageError(
            f"--transmits: expected different numbers of 0 to {n_transmits - 1}, as in 0,7; got {text!r}"
        )
    return chosen


def select_transmits(data: ussim.RFData | ussim.IQData, transmits: list[int]) -> ussim.RFData | ussim.IQData:
    """Return the channel data of some transmits, their acquisition with it."""
    waves, values = data.acquisition.waves, {}
    if isinstance(waves, ussim.SyntheticAperture) and waves.elements is None:
        waves = dataclasses.replace(waves, elements=np.arange(data.acquisition.n_transmits))
    for entry in dataclasses.fields(waves):  # type: ignore[arg-type]
        value = getattr(waves, entry.name)
        one_for_all = value is None or isinstance(value, str) or (entry.name == "apodization" and np.ndim(value) == 1)
        values[entry.name.removeprefix("_")] = value if one_for_all else np.asarray(value)[transmits]
    mask = data.acquisition.receive_mask
    mask = mask if mask is None or mask.ndim == 1 else mask[transmits]
    acquisition = dataclasses.replace(data.acquisition, waves=type(waves)(**values), receive_mask=mask)
    start_time = data.start_time if np.ndim(data.start_time) == 0 else data.start_times[transmits]
    fired = None if data.firing_times is None else data.firing_times[..., transmits]
    return dataclasses.replace(
        data, samples=data.samples[transmits], acquisition=acquisition, start_time=start_time, firing_times=fired
    )


# --- results ---------------------------------------------------------------------------------------------------------


def write_bmode(
    output: Path,
    picture: np.ndarray,
    grid: ussim.ImageGrid | ussim.PolarGrid,
    acquisition: ussim.Acquisition,
    settings: dict[str, Any],
    dynamic_range_db: float,
    bare: bool = False,
    title: str | None = None,
    figure: Any = None,
) -> None:
    """Write the picture, its numbers beside it, and with `bare` its pixels alone; a figure of it where one is given."""
    title = title or title_of(acquisition)
    is_linear = is_coherence(settings.get("combine", SUM))
    if figure is None:
        figure = bmode_figure(picture, grid, None if is_linear else dynamic_range_db, title)
    write_result(output, figure, {"bmode": picture, **axes_of(grid)}, acquisition, settings)
    if bare:
        write_bare(bare_path(output), picture)


def check_montage(montage: bool, output: Path | None, combine: str) -> None:
    """Refuse a montage of what has no picture, or no decibels."""
    if montage and output is not None and output.suffix.lower() == console.NUMBERS:
        raise click.UsageError(f"--montage: {output}: expected a picture name ending in .png, .pdf or .svg")
    if montage:
        check_decibels(combine)


def check_decibels(combine: str) -> None:
    """Refuse a coherence where decibels are drawn."""
    if is_coherence(combine):
        raise click.UsageError(f"--combine {combine}: a coherence has no decibels: expected another --combine")


def make_montage(
    rf: ussim.RFData,
    iq: ussim.IQData,
    picture: np.ndarray,
    grid: ussim.ImageGrid,
    dynamic_range_db: float,
    options: dict[str, Any],
) -> Any:
    """Return the figure from echoes to the picture; `options` are those of `delay_and_sum`."""
    from ..show.montage import montage_figure

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnseenWarning)
        return montage_figure(rf, grid, dynamic_range_db, iq, picture, **options)


def title_of(acquisition: ussim.Acquisition) -> str:
    """Return the title of a picture: probe and waves."""
    return f"{acquisition.probe.name}, {describe_waves(acquisition)}"


def write_bare(path: Path, picture: np.ndarray) -> None:
    """Write grey levels (nz, nx) in [0, 1] as an 8-bit PNG, a pixel for a pixel."""
    from PIL import Image

    with replacing(path) as temporary:
        Image.fromarray(np.rint(255 * picture).astype(np.uint8)).save(temporary, format="PNG")


def write_result(
    output: Path, figure: Any, arrays: dict[str, Any], acquisition: ussim.Acquisition, settings: dict[str, Any]
) -> None:
    """Write the picture (a figure, or a function that writes it) and an .npz of arrays and settings beside it; or a .mat."""
    record = record_of(acquisition, settings)
    if output.suffix.lower() == console.NUMBERS:
        write_mat(output, arrays, record)
        return
    with replacing(output.with_suffix(".npz")) as temporary:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays, settings=np.array(json.dumps(record, allow_nan=False)))
        if callable(figure):  # inside: both files appear, or neither
            figure()
        else:
            save_figure(figure, output, record, **figure_size())


def record_of(acquisition: ussim.Acquisition, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what made a result, as JSON has it."""
    return settings | {"acquisition": acquisition_to_dict(acquisition), "ussim": ussim.__version__}


def write_words(path: Path, text: str, draw: Callable[[], None] | None = None) -> None:
    """Write a text, and the figure that `draw` writes beside it: both appear, or neither."""
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
        if draw is not None:
            draw()


def write_mat(output: Path, arrays: dict[str, Any], record: dict[str, Any]) -> None:
    """Write arrays, and the settings as JSON text, to a MATLAB file; axes are rows there, in m."""
    from scipy.io import savemat

    with replacing(output) as temporary, open(temporary, "wb") as file:
        savemat(file, {**arrays, "settings": json.dumps(record, allow_nan=False)}, oned_as="row", do_compression=True)


def summary(acquisition: ussim.Acquisition, grid: ussim.ImageGrid | ussim.PolarGrid) -> str:
    """Return probe, waves and grid in a line."""
    if isinstance(grid, ussim.PolarGrid):
        angle, radius = np.rad2deg(grid.angle), 1e3 * grid.radius
        field = f"{angle[0]:.3g} to {angle[-1]:.3g}°, {radius[0]:.3g} to {radius[-1]:.3g} mm from the apex"
    else:
        x, z = 1e3 * grid.x, 1e3 * grid.z
        field = f"{x[-1] - x[0]:.3g} mm wide, {z[0]:.3g} to {z[-1]:.3g} mm deep"
    waves = f"{describe_waves(acquisition)}{describe_excitation(acquisition)}{describe_imperfections(acquisition)}"
    return f"{acquisition.probe.name}, {waves}, {field}, {pixels(grid)}"


def count_transmits(acquisition: ussim.Acquisition) -> str:
    """Return the number of transmits in words."""
    return f"{acquisition.n_transmits} transmit{'s' if acquisition.n_transmits != 1 else ''}"


def pixels(grid: ussim.ImageGrid | ussim.PolarGrid) -> str:
    """Return the size of a grid in words."""
    return f"{grid.shape[0]} x {grid.shape[1]} pixels"
