"""`ussim demo | render | look | beamform | convert | field | movie | psf | probes | calibrate | doctor`.

A command turns its options (mm, degrees, dB) into SI values, calls the library, writes its files and prints one summary.
Nothing but click is imported before a command runs.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..errors import ExitCode
from . import console, grammar
from .calibrate import calibrate
from .demo import demo
from .doppler import doppler
from .look import look
from .movie import movie
from .options import (
    aperture_options,
    attenuation_option,
    bare_option,
    demodulation_options,
    dynamic_range_of,
    dynamic_range_option,
    engine_option,
    figure_options,
    figure_size,
    grid_options,
    medium_speed_option,
    one_wave_options,
    output_option,
    probe_option,
    sub_elements_option,
    waves_options,
)
from .psf import psf
from .realism import realism_options
from .recordings import beamform, convert

if TYPE_CHECKING:
    from ..probes import Probe


@click.group(cls=grammar.Group, context_settings=console.SETTINGS)
@click.version_option(__version__, message="ussim %(version)s")
def cli() -> None:
    """Ultrasound simulation: pictures of what a probe would see.

    \b
    ussim demo                               a small dataset and two pictures, from nothing
    ussim render --phantom cysts             a B-mode without a file of one's own
    ussim render phantom.npy                 a B-mode of any grey image
    ussim field --probe P4-2v --focus-mm 0 30
    ussim probes                             the transducers it knows
    ussim look                               a page in the browser, to try all of it
    """


cli.add_command(demo)
cli.add_command(beamform)
cli.add_command(convert)
cli.add_command(doppler)
cli.add_command(calibrate)
cli.add_command(look)
cli.add_command(movie)
cli.add_command(psf)


def main() -> None:
    """Run the console script."""
    sys.exit(console.run(cli, "ussim"))


# --- commands --------------------------------------------------------------------------------------------------------


@cli.command(short_help="Simulate the B-mode of a grey image.")
@click.argument("image", type=click.Path(path_type=Path), required=False)
@grammar.section("Image or phantom")
@click.option(
    "--phantom",
    type=console.PhantomType(),
    metavar="NAME",
    help="In place of IMAGE: wires, cysts, lesions, layers, muscle, vessel, calcifications, liver, heart or fetus.",
)
@click.option(
    "--phantom-seed", type=click.IntRange(min=0), metavar="N", help="Another arrangement.  [default: the regular one]"
)
@click.option("--slice", "slice_index", type=int, metavar="N", help="Slice of a volume.  [default: the only one]")
@click.option("--plane", metavar="NAME", help="Plane of a volume: axial, coronal, sagittal.  [default: as acquired]")
@grammar.section("Probe and waves")
@probe_option
@waves_options
@sub_elements_option
@grammar.section("Medium and scatterers")
@attenuation_option
@medium_speed_option
@click.option(
    "--scatterer-range-db",
    type=console.Number(above=0),
    metavar="DB",
    help="Of the scatterers, from white to black of IMAGE.  [default: --dynamic-range-db]",
)
@click.option(
    "--mean-distance-wavelengths",
    type=console.Number(above=0),
    default=1.0,
    metavar="D",
    help="Between scatterers, in shortest wavelengths; 0.5 gives fully developed speckle.",
)
@click.option(
    "--thickness-mm",
    type=console.Number(above=0),
    metavar="MM",
    help="Scatterers fill a slab this thick in elevation, of which the elements' height and lens see a part: three "
    "dimensions.  [default: two]",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="N", help="Of the random scatterers.")
@grammar.section("A real scanner")
@realism_options
@grammar.section("Image")
@grid_options
@dynamic_range_option
@demodulation_options
@aperture_options
@engine_option
@grammar.section("Output")
@click.option(
    "--channel-data",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep the echoes too, for `ussim beamform`: .npz, .mat (MUST), .hdf5 (zea), .uff.",
)
@click.option(
    "--montage",
    is_flag=True,
    help="Draw the echoes of one transmit, the images of single transmits and the compounded one in one figure.",
)
@output_option("IMAGE_bmode.png")
@bare_option
@figure_options
@console.verbose_option
def render(
    image: Path | None,
    phantom: str | None,
    phantom_seed: int | None,
    probe: Probe,
    transmit: str | None,
    angles: int | None,
    focus_depth_mm: float | None,
    transmit_f_number: float | None,
    max_angle_deg: float | None,
    width_deg: float | None,
    depth_mm: tuple[float, float] | None,
    width_mm: float | None,
    size: int,
    dynamic_range_db: float,
    attenuation: float,
    speed_of_sound: float,
    sub_elements: int | None,
    scatterer_range_db: float | None,
    carrier_mhz: float | None,
    bandwidth_percent: float | None,
    tgc: bool,
    mean_distance_wavelengths: float,
    thickness_mm: float | None,
    seed: int,
    engine: str,
    f_number: float | None,
    apodization: str,
    combine: str,
    slice_index: int | None,
    plane: str | None,
    channel_data: Path | None,
    montage: bool,
    output: Path | None,
    bare: bool,
    **realism: Any,
) -> None:
    """Simulate the B-mode of a grey IMAGE: NPY, PNG, JPEG, NIfTI or DICOM.

    The image is stretched onto the field of view; white scatters most, black least. Without an image of your own, a
    phantom is made for that field.

    \b
    ussim render --phantom cysts
    ussim render phantom.npy
    ussim render brain.nii.gz --plane axial --slice 90 --probe C5-2v -o brain.png
    """
    import ussim

    from ..physics import shortest_wavelength
    from . import steps
    from .realism import realistic

    steps.check_subject(image, phantom, phantom_seed, slice_index, plane, scatterer_range_db)
    waves = steps.transmit_sequence(
        probe, transmit, angles, max_angle_deg, width_deg, focus_depth_mm, transmit_f_number
    )
    medium = ussim.Medium(speed_of_sound, attenuation)
    acquisition = ussim.Acquisition(probe, waves, medium, n_subelements=sub_elements)
    steps.check_aperture(apodization, combine)
    steps.check_montage(montage, output, combine)
    receive = steps.receive_settings(carrier_mhz, bandwidth_percent, tgc)
    grid = steps.make_grid(acquisition, depth_mm, width_mm, size)
    acquisition, believed = realistic(acquisition, realism, float(grid.z[-1]), seed)
    engine = steps.resolve_engine(engine)
    output = console.check_picture(
        output or Path(f"{phantom if image is None else steps.stem(image)}_bmode.png"),
        *steps.input_files(probe, *([] if image is None else [image])),
        beside=".npz",
        others=[] if channel_data is None else [channel_data],
        bare=bare,
    )
    wavelength = shortest_wavelength(probe.center_frequency, probe.bandwidth, acquisition.medium.speed_of_sound)

    clock = steps.Clock()
    mean_distance = mean_distance_wavelengths * wavelength
    thickness = None if thickness_mm is None else thickness_mm / 1e3
    if phantom is not None:
        made = steps.make_phantom(phantom, grid, acquisition, phantom_seed)
        with clock("scatterers"):
            scatterers = made.scatterers(acquisition, seed, mean_distance, thickness)
    elif image is not None:
        grey = steps.read_grey(image, slice_index, plane)
        steps.say_if_stretched(grey, grid)
        with clock("scatterers"):
            scatterers = ussim.scatterers_from_image(
                grey, grid, acquisition, seed, mean_distance, scatterer_range_db or dynamic_range_db, thickness
            )
    expected = steps.expected_seconds(scatterers, acquisition) if engine == "reference" else None
    doing = f"simulating {len(scatterers):,} scatterers, {steps.count_transmits(acquisition)} on {probe.name}"
    with clock("simulate", doing, expected) as progress:
        rf = ussim.simulate(scatterers, acquisition, engine, progress=progress)
    if channel_data is not None:
        rf.save(channel_data)
    with clock("beamform", f"beamforming {steps.pixels(grid)}") as progress:
        iq = steps.demodulated(dataclasses.replace(rf, acquisition=believed), receive)
        how: dict[str, Any] = {"f_number": f_number, "apodization": apodization, "combine": combine}
        how["engine"] = steps.combining_engine(engine, combine)
        picture = steps.beamform_bmode(iq, grid, dynamic_range_db, progress=progress, **how)
    figure = None
    if montage:
        with clock("montage", "beamforming single transmits"):
            figure = steps.make_montage(rf, iq, picture, grid, dynamic_range_db, how)

    settings = {
        "image": None if image is None else image.name,
        "phantom": phantom,
        "phantom_seed": phantom_seed,
        "slice": slice_index,
        "plane": plane,
        "n_scatterers": len(scatterers),
        "mean_distance_wavelengths": mean_distance_wavelengths,
        "thickness_mm": thickness_mm,
        "seed": seed,
        "dynamic_range_db": dynamic_range_db,
        "scatterer_range_db": None if image is None else scatterer_range_db or dynamic_range_db,
        "f_number": f_number,
        "apodization": apodization,
        "combine": combine,
        "engine": engine,
        "beamforming_speed_of_sound": believed.medium.speed_of_sound,
        **receive,
    }
    title = steps.title_of(believed)
    steps.write_bmode(
        output, picture, grid, acquisition, settings, dynamic_range_db, bare=bare, title=title, figure=figure
    )
    speed = believed.medium.speed_of_sound
    wrong = "" if speed == acquisition.medium.speed_of_sound else f"steered and beamformed for {speed:.0f} m/s, "
    console.result(
        f"{output}: {steps.summary(believed, grid)}; {wrong}{len(scatterers):,} scatterers, engine {engine}, {clock}"
    )
    if channel_data is not None:
        console.result(f"{channel_data}: channel data {rf.samples.shape}")
        console.note(f"next: ussim beamform {shlex.quote(str(channel_data))}")
    elif mean_distance_wavelengths > 0.5:
        console.note(
            "next: --mean-distance-wavelengths 0.5 for fully developed speckle, --probe to see with another array"
        )
    else:
        console.note(
            "next: --probe to see it with another array (ussim probes), --channel-data FILE to keep the echoes"
        )


@cli.command(short_help="Draw the pressure field of a transmit.")
@grammar.section("Probe and wave")
@probe_option
@one_wave_options
@sub_elements_option
@grammar.section("Medium")
@attenuation_option
@medium_speed_option
@grammar.section("Image")
@grid_options
@dynamic_range_of("what holds 98 % of the field")
@engine_option
@grammar.section("Output")
@output_option("PROBE_field.png")
@figure_options
@console.verbose_option
def field(
    probe: Probe,
    focus_mm: tuple[tuple[float, float], ...],
    plane_deg: float | None,
    diverging_deg: tuple[float, float] | None,
    source_mm: tuple[float, float] | None,
    attenuation: float,
    speed_of_sound: float,
    sub_elements: int | None,
    depth_mm: tuple[float, float] | None,
    width_mm: float | None,
    size: int,
    dynamic_range_db: float | None,
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

    from ..arrays import to_numpy
    from ..show import figures
    from . import steps

    medium = ussim.Medium(speed_of_sound, attenuation)
    waves, words = steps.one_transmit(probe, medium, focus_mm, plane_deg, diverging_deg, source_mm)
    acquisition = ussim.Acquisition(probe, waves, medium, n_subelements=sub_elements)
    grid = steps.field_grid(acquisition, depth_mm, width_mm, size)
    engine = steps.resolve_engine(engine)
    default = Path(f"{probe.name.replace('/', '-')}_field.png")
    output = console.check_picture(output or default, *steps.input_files(probe), beside=".npz")
    clock = steps.Clock()
    with clock("field", f"computing the field of {words} on {steps.pixels(grid)}") as progress:
        pressure = to_numpy(ussim.pressure_field(acquisition, grid, engine=engine, progress=progress))[0]
    row, column = np.unravel_index(np.argmax(pressure), pressure.shape)
    peak = 1e3 * grid.x[column], 1e3 * grid.z[row]
    figure = figures.pressure_figure(pressure, grid, probe, f"{probe.name}, {words}", dynamic_range_db)
    settings = {"transmit": words, "engine": engine}
    steps.write_result(output, figure, {"pressure": pressure, "x": grid.x, "z": grid.z}, acquisition, settings)
    console.result(f"{output}: {probe.name}, {words}; highest at x = {peak[0]:.1f}, z = {peak[1]:.1f} mm; {clock}")


@cli.command(short_help="List the probes, or describe one.")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON (SI units) for other programs.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Draw the probe NAME there.")
@figure_options
@console.verbose_option
def probes(name: str | None, as_json: bool, output: Path | None) -> None:
    """List the probes, or say everything about the one called NAME (or in the TOML file NAME).

    \b
    ussim probes
    ussim probes C5-2v -o c5-2v.png
    """
    import ussim

    from ..io.plain import probe_to_dict
    from ..show.describe import probe_sheet, probe_table

    if name is None:
        if output is not None:
            raise click.UsageError("-o draws one probe: give its NAME")
        known = [ussim.load_probe(preset) for preset in ussim.probe_names()]
        console.result(
            json.dumps([probe_to_dict(probe) for probe in known], indent=2) if as_json else probe_table(known)
        )
        return
    probe = console.ProbeType().convert(name, None, click.get_current_context())
    if output is not None:
        from ..show import figures
        from . import steps

        console.check_picture(output, *steps.input_files(probe))
        acquisition = ussim.Acquisition(probe, ussim.imaging_waves(probe))
        figures.save_figure(figures.probe_figure(acquisition), output, {"probe": probe.name}, **figure_size())
    console.result(json.dumps(probe_to_dict(probe), indent=2) if as_json else probe_sheet(probe))


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
        return ExitCode.DONE
    console.note("not healthy: see the lines marked FAIL")
    return ExitCode.DEVICE
