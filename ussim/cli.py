"""`ussim render | beamform | field | probes | doctor`.

A command turns its options (mm, degrees, dB) into SI values, calls the library, writes its files and prints one summary.
Nothing but click is imported before a command runs.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__, console

if TYPE_CHECKING:
    import numpy as np

    from .probes import Probe
    from .types import Acquisition, ImageGrid, IQData, RFData, Scatterers

DEFAULT_PROBE = "L11-5v"
SQUARE = 0.1  # an image whose proportions differ from the field's by more is worth a word


@click.group(context_settings=console.SETTINGS)
@click.version_option(__version__, message="ussim %(version)s")
def cli() -> None:
    """Ultrasound simulation: pictures of what a probe would see.

    \b
    ussim render phantom.npy                 a B-mode of any grey image
    ussim field --probe P4-2v --focus-mm 0 30
    ussim probes                             the transducers it knows
    """


def main() -> None:
    """The console script."""
    sys.exit(console.run(cli, "ussim"))


# --- options that commands share -------------------------------------------------------------------------------------


def probe_option(command: Callable) -> Callable:
    return click.option(
        "--probe",
        type=console.ProbeType(),
        default=DEFAULT_PROBE,
        metavar="NAME|FILE",
        help="A preset (see `ussim probes`) or a TOML file of your own.",
    )(command)


def grid_options(command: Callable) -> Callable:
    options = (
        click.option(
            "--depth-mm",
            type=console.Number(minimum=0),
            nargs=2,
            metavar="LOW HIGH",
            help="Depths to show.  [default: the probe's field of view]",
        ),
        click.option(
            "--width-mm",
            type=console.Number(above=0),
            metavar="W",
            help="Lateral extent, centred.  [default: the probe's field of view]",
        ),
        click.option(
            "--size", type=click.IntRange(2, 4096), default=256, metavar="N", help="Pixel rows; pixels are square."
        ),
    )
    return _apply(options, command)


def output_option(default: str) -> Callable:
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"Picture (.png, .pdf, .svg); the numbers go beside it as .npz.  [default: {default}]",
    )


def _apply(options, command: Callable) -> Callable:
    for option in reversed(options):
        command = option(command)
    return command


engine_option = click.option(
    "--engine", type=console.EngineType(), default="auto", metavar="NAME", help="auto, cpu, reference, cuda or cuda:N."
)
dynamic_range_option = click.option(
    "--dynamic-range-db", type=console.Number(above=0), default=40.0, metavar="DB", help="From white to black."
)
f_number_option = click.option(
    "--f-number",
    type=console.Number(minimum=0),
    metavar="F",
    help="Receive f-number; 0 is the full aperture.  [default: from the elements' directivity]",
)


# --- commands --------------------------------------------------------------------------------------------------------


@cli.command(short_help="Simulate the B-mode of a grey image.")
@click.argument("image", type=click.Path(path_type=Path))
@probe_option
@click.option("--transmit", type=click.Choice(["plane", "diverging"]), help="Kind of waves.  [default: the probe's]")
@click.option("--angles", type=click.IntRange(min=1), metavar="N", help="Number of waves.  [default: the probe's]")
@click.option(
    "--max-angle-deg",
    type=console.Number(minimum=0, below=90),
    metavar="DEG",
    help="The waves are steered over ± this.  [default: the probe's]",
)
@click.option(
    "--width-deg",
    type=console.Number(above=0, below=180),
    metavar="DEG",
    help="Sector of a diverging wave.  [default: the probe's]",
)
@grid_options
@dynamic_range_option
@click.option(
    "--attenuation", type=console.Number(minimum=0), default=0.0, metavar="A", help="Of the medium, dB/cm/MHz."
)
@click.option(
    "--mean-distance-wavelengths",
    type=console.Number(above=0),
    default=1.0,
    metavar="D",
    help="Between scatterers, in shortest wavelengths; 0.5 gives fully developed speckle.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="N", help="Of the random scatterers.")
@engine_option
@f_number_option
@click.option("--slice", "slice_index", type=int, metavar="N", help="Slice of a volume.")
@click.option("--plane", metavar="NAME", help="Plane of a volume: axial, coronal, sagittal.")
@click.option(
    "--channel-data",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep the echoes too (.npz), for `ussim beamform`.",
)
@output_option("IMAGE_bmode.png")
@console.verbose_option
def render(
    image: Path,
    probe: Probe,
    transmit: str | None,
    angles: int | None,
    max_angle_deg: float | None,
    width_deg: float | None,
    depth_mm: tuple[float, float] | None,
    width_mm: float | None,
    size: int,
    dynamic_range_db: float,
    attenuation: float,
    mean_distance_wavelengths: float,
    seed: int,
    engine: str,
    f_number: float | None,
    slice_index: int | None,
    plane: str | None,
    channel_data: Path | None,
    output: Path | None,
) -> None:
    """Simulate the B-mode of a grey IMAGE: NPY, PNG, JPEG, NIfTI or DICOM.

    The image is stretched onto the field of view; white scatters most, black least.

    \b
    ussim render phantom.npy
    ussim render brain.nii.gz --plane axial --slice 90 --probe C5-2v -o brain.png
    """
    import ussim

    from .physics import shortest_wavelength

    waves = ussim.imaging_waves(
        probe,
        transmit,
        angles,
        None if max_angle_deg is None else math.radians(max_angle_deg),
        None if width_deg is None else math.radians(width_deg),
    )
    acquisition = ussim.Acquisition(probe, waves, ussim.Medium(attenuation_db_cm_mhz=attenuation))
    grid = _grid(acquisition, depth_mm, width_mm, size)
    engine = _resolve(engine)
    output = _output(output, Path(f"{_stem(image)}_bmode.png"), image)
    if channel_data is not None:
        console.check_output(channel_data, image, output)
    phantom = _read_image(image, slice_index, plane)
    _say_if_stretched(phantom, grid)
    wavelength = shortest_wavelength(probe.center_frequency, probe.bandwidth, acquisition.medium.speed_of_sound)

    clock = _Clock()
    with clock("scatterers"):
        scatterers = ussim.scatterers_from_image(
            phantom,
            grid,
            acquisition,
            seed,
            mean_distance=mean_distance_wavelengths * wavelength,
            dynamic_range_db=dynamic_range_db,
        )
    expected = _expected_seconds(scatterers, acquisition) if engine == "reference" else None
    doing = f"simulating {len(scatterers):,} scatterers, {_count(acquisition)} on {probe.name}"
    with clock("simulate", doing, expected):
        rf = ussim.simulate(scatterers, acquisition, engine)
    if channel_data is not None:
        rf.save(channel_data)
    with clock("beamform", f"beamforming {_pixels(grid)}"):
        picture = _beamform(rf, grid, dynamic_range_db, f_number=f_number, engine=engine)

    settings = {
        "image": image.name,
        "slice": slice_index,
        "plane": plane,
        "n_scatterers": len(scatterers),
        "mean_distance_wavelengths": mean_distance_wavelengths,
        "seed": seed,
        "dynamic_range_db": dynamic_range_db,
        "f_number": f_number,
        "engine": engine,
    }
    _write_bmode(output, picture, grid, acquisition, settings, dynamic_range_db)
    console.result(f"{output}: {_summary(acquisition, grid)}; {len(scatterers):,} scatterers, engine {engine}, {clock}")
    if channel_data is not None:
        console.result(f"{channel_data}: channel data {rf.samples.shape}")
        console.note(f"next: ussim beamform {channel_data}")
    elif mean_distance_wavelengths > 0.5:
        console.note(
            "next: --mean-distance-wavelengths 0.5 for fully developed speckle, --probe to see with another array"
        )
    else:
        console.note(
            "next: --probe to see it with another array (ussim probes), --channel-data FILE to keep the echoes"
        )


@cli.command(short_help="Beamform channel data to a B-mode.")
@click.argument("channel_data", type=click.Path(path_type=Path))
@grid_options
@dynamic_range_option
@f_number_option
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
    "--interpolation",
    type=click.Choice(["nearest", "linear", "quadratic", "lanczos3", "lanczos5"]),
    default="linear",
    help="Between samples.",
)
@click.option("--normalize", is_flag=True, help="Divide each pixel by the number of elements that see it.")
@engine_option
@output_option("CHANNEL_DATA_bmode.png")
@console.verbose_option
def beamform(
    channel_data: Path,
    depth_mm: tuple[float, float] | None,
    width_mm: float | None,
    size: int,
    dynamic_range_db: float,
    f_number: float | None,
    transmits: str | None,
    compounding: str,
    interpolation: str,
    normalize: bool,
    engine: str,
    output: Path | None,
) -> None:
    """Beamform CHANNEL_DATA (.npz, as rf.save or `ussim render --channel-data` writes it) to a B-mode.

    \b
    ussim beamform echoes.npz --f-number 1.5 -o bmode.png
    ussim beamform echoes.npz --transmits 7 -o one_wave.png
    """
    import ussim

    data = ussim.load_channel_data(channel_data)
    if transmits is not None:
        data = _select(data, _transmit_numbers(transmits, data.acquisition.n_transmits))
    acquisition = data.acquisition
    grid = _grid(acquisition, depth_mm, width_mm, size)
    engine = _resolve(engine)
    output = _output(output, Path(f"{channel_data.stem}_bmode.png"), channel_data)
    clock = _Clock()
    with clock("beamform", f"beamforming {_count(acquisition)} onto {_pixels(grid)}"):
        picture = _beamform(
            data,
            grid,
            dynamic_range_db,
            compounding,
            f_number=f_number,
            engine=engine,
            interpolation=interpolation,
            normalize=normalize,
        )
    settings = {
        "channel_data": channel_data.name,
        "transmits": transmits,
        "compounding": compounding,
        "interpolation": interpolation,
        "normalize": normalize,
        "dynamic_range_db": dynamic_range_db,
        "f_number": f_number,
        "engine": engine,
    }
    _write_bmode(output, picture, grid, acquisition, settings, dynamic_range_db)
    console.result(f"{output}: {_summary(acquisition, grid)}; engine {engine}, {clock}")


@cli.command(short_help="Draw the pressure field of a transmit.")
@probe_option
@click.option(
    "--focus-mm",
    type=console.Number(),
    nargs=2,
    multiple=True,
    metavar="X Z",
    help="Focus there; given twice or more, all at once (multi-line transmission).",
)
@click.option(
    "--plane-deg", type=console.Number(above=-90, below=90), metavar="DEG", help="A plane wave at this angle."
)
@click.option(
    "--diverging-deg",
    type=console.Number(above=-180, below=180),
    nargs=2,
    metavar="TILT WIDTH",
    help="A circular wave over this sector (flat arrays).",
)
@click.option(
    "--source-mm", type=console.Number(), nargs=2, metavar="X Z", help="A circular wave from a virtual source behind."
)
@click.option(
    "--attenuation", type=console.Number(minimum=0), default=0.0, metavar="A", help="Of the medium, dB/cm/MHz."
)
@grid_options
@dynamic_range_option
@engine_option
@output_option("PROBE_field.png")
@console.verbose_option
def field(
    probe: Probe,
    focus_mm: tuple[tuple[float, float], ...],
    plane_deg: float | None,
    diverging_deg: tuple[float, float] | None,
    source_mm: tuple[float, float] | None,
    attenuation: float,
    depth_mm: tuple[float, float] | None,
    width_mm: float | None,
    size: int,
    dynamic_range_db: float,
    engine: str,
    output: Path | None,
) -> None:
    """Draw the RMS pressure of one transmit, in dB of its maximum.

    \b
    ussim field --probe P4-2v --focus-mm 0 30 -o focus.png
    ussim field --probe L11-5v --plane-deg 10
    """
    import numpy as np

    import ussim

    from . import figures
    from .types import to_numpy

    medium = ussim.Medium(attenuation_db_cm_mhz=attenuation)
    waves, words = _one_transmit(probe, medium, focus_mm, plane_deg, diverging_deg, source_mm)
    acquisition = ussim.Acquisition(probe, waves, medium)
    if depth_mm is None and probe.imaging is not None:  # from the array on, where the wave is made
        depth_mm = 0.0, 1e3 * probe.imaging.z[1]
    grid = _grid(acquisition, depth_mm, width_mm, size)
    if grid.z[0] == 0:  # the element surfaces themselves: half a pixel below
        grid = ussim.ImageGrid(x=grid.x, z=grid.z + (grid.z[1] - grid.z[0]) / 2)
    engine = _resolve(engine)
    output = _output(output, Path(f"{probe.name.replace('/', '-')}_field.png"))
    clock = _Clock()
    with clock("field", f"computing the field of {words} on {_pixels(grid)}"):
        pressure = to_numpy(ussim.pressure_field(acquisition, grid, engine=engine))[0]
    row, column = np.unravel_index(np.argmax(pressure), pressure.shape)
    peak = 1e3 * grid.x[column], 1e3 * grid.z[row]
    figure = figures.pressure_figure(pressure, grid, probe, f"{probe.name}, {words}", dynamic_range_db)
    settings = {"transmit": words, "engine": engine}
    _write(output, figure, {"pressure": pressure, "x": grid.x, "z": grid.z}, acquisition, settings)
    console.result(f"{output}: {probe.name}, {words}; highest at x = {peak[0]:.1f}, z = {peak[1]:.1f} mm; {clock}")


@cli.command(short_help="List the probes, or describe one.")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON (SI units) for other programs.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Draw the probe NAME there.")
@console.verbose_option
def probes(name: str | None, as_json: bool, output: Path | None) -> None:
    """List the probes, or say everything about the one called NAME (or in the TOML file NAME).

    \b
    ussim probes
    ussim probes C5-2v -o c5-2v.png
    """
    import ussim

    from .io import probe_to_dict

    if name is None:
        if output is not None:
            raise click.UsageError("-o draws one probe: give its NAME")
        known = [ussim.load_probe(preset) for preset in ussim.probe_names()]
        console.result(json.dumps([probe_to_dict(probe) for probe in known], indent=2) if as_json else _table(known))
        return
    probe = console.ProbeType().convert(name, None, click.get_current_context())
    if output is not None:
        from . import figures

        console.check_output(output)
        acquisition = ussim.Acquisition(probe, ussim.imaging_waves(probe))
        figures.save_figure(figures.probe_figure(acquisition), output)
    console.result(json.dumps(probe_to_dict(probe), indent=2) if as_json else _describe(probe))


@cli.command(short_help="Check this machine and installation.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for other programs.")
@console.verbose_option
def doctor(as_json: bool) -> int:
    """Check this machine and installation: packages, processor, GPU, demo data, codecs, and the engines' agreement.

    Ends with 0 when everything that the CPU work needs is in order.

    \b
    ussim doctor
    """
    from .doctor import examine, healthy

    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            console.result(str(finding))
    if as_json:
        console.result(json.dumps([finding.__dict__ for finding in findings], indent=2))
    if healthy(findings):
        console.note("healthy")
        return console.ExitCode.DONE
    console.note("not healthy: see the lines marked FAIL")
    return console.ExitCode.DEVICE


# --- steps -----------------------------------------------------------------------------------------------------------


class _Clock:
    """Times the steps of a command and says on stderr which one runs."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str, description: str | None = None, expected: float | None = None) -> Iterator[None]:
        started = time.perf_counter()
        if description is None:
            yield
        else:
            with console.working(description, expected):
                yield
        self.seconds[name] = time.perf_counter() - started

    def __str__(self) -> str:
        total = console.duration(sum(self.seconds.values()))
        if len(self.seconds) == 1:
            return total
        return f"{total} ({', '.join(f'{name} {console.duration(spent)}' for name, spent in self.seconds.items())})"


def _grid(
    acquisition: Acquisition, depth_mm: tuple[float, float] | None, width_mm: float | None, size: int
) -> ImageGrid:
    """Square pixels over the field of view, `size` rows."""
    import ussim

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


def _resolve(engine: str) -> str:
    """The engine's name with "auto" decided, found to be there before the work begins."""
    from .engines import get_engine

    module = get_engine(engine)
    return module.__name__.rpartition(".")[2] if engine == "auto" else engine


def _output(output: Path | None, default: Path, *inputs: Path) -> Path:
    """Where the picture goes; the .npz beside it must be free to be written too."""
    path = console.check_output(default if output is None else output, *inputs)
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise click.UsageError(f"{path}: expected a picture name ending in .png, .pdf or .svg")
    console.check_output(path.with_suffix(".npz"), *inputs)
    return path


def _stem(path: Path) -> str:
    """A file's name without its suffix, or both of .nii.gz."""
    stem = path.name[: -len(".gz")] if path.name.lower().endswith(".nii.gz") else path.name
    return Path(stem).stem


def _read_image(path: Path, slice_index: int | None, plane: str | None) -> np.ndarray:
    from datagen.readers import read_image

    from .io import DataError

    try:
        return read_image(path, slice_index, plane)
    except ValueError as error:  # the file is what is wrong, whichever check it failed
        raise DataError(str(error)) from error


def _expected_seconds(scatterers: Scatterers, acquisition: Acquisition, n_tried: int = 20) -> float | None:
    """How long the literal engine will take, from a few scatterers: its work is in proportion to their number."""
    import ussim

    if len(scatterers) < 10 * n_tried:
        return None
    tried = slice(None, None, len(scatterers) // n_tried)
    few = ussim.Scatterers(scatterers.x[tried], scatterers.z[tried], scatterers.reflectivity[tried])
    started = time.perf_counter()
    ussim.simulate(few, acquisition, "reference")
    return (time.perf_counter() - started) * len(scatterers) / len(few)


def _say_if_stretched(image: np.ndarray, grid: ImageGrid) -> None:
    rows, columns = image.shape
    width, depth = grid.x[-1] - grid.x[0], grid.z[-1] - grid.z[0]
    if abs(math.log((columns / rows) / (width / depth))) > SQUARE:
        console.note(
            f"the image of {rows} x {columns} pixels is stretched onto {1e3 * depth:.3g} x {1e3 * width:.3g} mm; "
            f"--width-mm {1e3 * depth * columns / rows:.3g} would keep its proportions"
        )


def _beamform(
    data: RFData | IQData, grid: ImageGrid, dynamic_range_db: float, compounding: str = "coherent", **options: Any
) -> np.ndarray:
    """Channel data to the B-mode on the host, (nz, nx) in [0, 1]; `options` are those of `delay_and_sum`."""
    import numpy as np

    import ussim

    from .types import to_numpy

    iq = data if isinstance(data, ussim.IQData) else ussim.demodulate(data)
    if compounding == "coherent":
        image = to_numpy(ussim.delay_and_sum(iq, grid, **options))
    else:
        power = np.zeros(grid.shape)
        for i in range(iq.acquisition.n_transmits):
            power += np.abs(to_numpy(ussim.delay_and_sum(_select(iq, [i]), grid, **options))) ** 2
        image = np.sqrt(power)
    return ussim.log_compress(image, dynamic_range_db)


def _one_transmit(probe, medium, focus_mm, plane_deg, diverging_deg, source_mm) -> tuple[Any, str]:
    """The transmit that the options of `field` ask for, and its name in words."""
    import numpy as np

    import ussim

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


def _transmit_numbers(text: str, n_transmits: int) -> list[int]:
    """The numbers in "0,7,14"."""
    parts = [part.strip() for part in text.split(",")]
    chosen = [int(part) for part in parts if part.isdecimal()]
    if len(chosen) < len(parts) or len(set(chosen)) < len(chosen) or max(chosen) >= n_transmits:
        raise click.UsageError(
            f"--transmits: expected different numbers of 0 to {n_transmits - 1}, as in 0,7; got {text!r}"
        )
    return chosen


def _select(data: RFData | IQData, transmits: list[int]) -> RFData | IQData:
    """The channel data of some transmits, their acquisition with it."""
    import dataclasses

    import numpy as np

    waves, values = data.acquisition.waves, {}
    for entry in dataclasses.fields(waves):  # type: ignore[arg-type]
        value = getattr(waves, entry.name)
        one_for_all = value is None or (entry.name == "apodization" and np.ndim(value) == 1)
        values[entry.name.removeprefix("_")] = value if one_for_all else value[transmits]
    acquisition = dataclasses.replace(data.acquisition, waves=type(waves)(**values))
    return dataclasses.replace(data, samples=data.samples[transmits], acquisition=acquisition)


# --- results ---------------------------------------------------------------------------------------------------------


def _write_bmode(output, picture, grid, acquisition, settings, dynamic_range_db) -> None:
    from . import figures

    title = f"{acquisition.probe.name}, {figures.describe_waves(acquisition)}"
    figure = figures.bmode_figure(picture, grid, dynamic_range_db, title)
    _write(output, figure, {"bmode": picture, "x": grid.x, "z": grid.z}, acquisition, settings)


def _write(output: Path, figure, arrays: dict[str, Any], acquisition: Acquisition, settings: dict[str, Any]) -> None:
    """The picture, and beside it an .npz of the arrays and the settings as JSON text."""
    import numpy as np

    from .figures import save_figure
    from .io import acquisition_to_dict, replacing

    record = settings | {"acquisition": acquisition_to_dict(acquisition), "ussim": __version__}
    with replacing(output.with_suffix(".npz")) as temporary:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays, settings=np.array(json.dumps(record, allow_nan=False)))
        save_figure(figure, output)  # inside: both files appear, or neither


def _summary(acquisition: Acquisition, grid: ImageGrid) -> str:
    from .figures import describe_waves

    x, z = 1e3 * grid.x, 1e3 * grid.z
    return (
        f"{acquisition.probe.name}, {describe_waves(acquisition)}, "
        f"{x[-1] - x[0]:.3g} mm wide, {z[0]:.3g} to {z[-1]:.3g} mm deep, {_pixels(grid)}"
    )


def _count(acquisition: Acquisition) -> str:
    return f"{acquisition.n_transmits} transmit{'s' if acquisition.n_transmits != 1 else ''}"


def _pixels(grid: ImageGrid) -> str:
    return f"{grid.shape[0]} x {grid.shape[1]} pixels"


def _table(known: list[Probe]) -> str:
    """The probes, one a line."""
    rows = [("name", "MHz", "bandwidth", "elements", "pitch mm", "radius mm", "field of view mm", "transmit")]
    for probe in known:
        imaging = probe.imaging
        assert imaging is not None  # every preset has one
        view = f"{1e3 * imaging.x[0]:g} to {1e3 * imaging.x[1]:g} x {1e3 * imaging.z[0]:g} to {1e3 * imaging.z[1]:g}"
        rows.append(
            (
                probe.name,
                f"{probe.center_frequency / 1e6:.4g}",
                f"{100 * probe.bandwidth:.3g} %",
                str(probe.n_elements),
                f"{1e3 * probe.pitch:.4g}",
                "flat" if probe.is_flat else f"{1e3 * probe.radius:.4g}",
                view,
                f"{imaging.n_transmits} {imaging.transmit} ±{math.degrees(imaging.max_angle):.3g}°",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _describe(probe: Probe) -> str:
    """Everything about a probe, a value a line."""

    def millimetres(value: float) -> str:
        return "infinite" if math.isinf(value) else f"{1e3 * value:.6g} mm"

    aperture = probe.element_x[-1] - probe.element_x[0] + probe.element_width
    lines = [
        ("name", probe.name),
        ("source", probe.source or "not given"),
        ("center frequency", f"{probe.center_frequency / 1e6:.6g} MHz"),
        ("bandwidth", f"{100 * probe.bandwidth:.4g} % (pulse-echo, -6 dB)"),
        ("elements", str(probe.n_elements)),
        ("pitch", millimetres(probe.pitch)),
        ("element width", f"{millimetres(probe.element_width)} (kerf {millimetres(probe.kerf)})"),
        ("element height", millimetres(probe.element_height)),
        ("elevation focus", millimetres(probe.elevation_focus)),
        ("radius", "infinite (flat array)" if probe.is_flat else millimetres(probe.radius)),
        ("aperture", millimetres(aperture)),
        ("baffle", str(probe.baffle)),
    ]
    if not probe.is_flat:
        lines.append(("sagitta", millimetres(probe.element_z.max() - probe.element_z.min())))
    if probe.imaging is not None:
        imaging = probe.imaging
        x, z = [1e3 * edge for edge in imaging.x], [1e3 * edge for edge in imaging.z]
        waves = f"{imaging.n_transmits} {imaging.transmit} waves over ±{math.degrees(imaging.max_angle):.4g}°"
        if imaging.transmit == "diverging":
            waves += f", {math.degrees(imaging.width):.4g}° wide"
        lines.append(("field of view", f"x {x[0]:g} to {x[1]:g} mm, z {z[0]:g} to {z[1]:g} mm"))
        lines.append(("transmits", waves))
    lines.append(("file", Path(probe.path).name))
    width = max(len(key) for key, _ in lines)
    return "\n".join(f"{key.ljust(width)}  {value}" for key, value in lines)
