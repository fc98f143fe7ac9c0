"""`ussim psf`: how wide a point is over depth, and how high the lobes beside it. Only click is imported before it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console, grammar
from .options import (
    aperture_options,
    attenuation_option,
    band_options,
    engine_option,
    figure_options,
    figure_size,
    medium_speed_option,
    probe_option,
    sub_elements_option,
    waves_options,
)

if TYPE_CHECKING:
    import ussim


@click.command(cls=grammar.Command, short_help="Measure a point's widths and lobes over depth.")
@grammar.section("Probe and waves")
@probe_option
@waves_options
@sub_elements_option
@grammar.section("Medium and points")
@attenuation_option
@medium_speed_option
@click.option(
    "--depth-mm",
    type=console.Number(),
    nargs=2,
    metavar="LOW HIGH",
    help="Depths of the points, from z = 0.  [default: the probe's field of view]",
)
@click.option("--points", type=click.IntRange(1, 100), default=8, metavar="N", help="Number of depths.")
@click.option("--lateral-mm", type=console.Number(), default=0.0, metavar="MM", help="Lateral position of the points.")
@click.option(
    "--level-db",
    type=console.Number(below=0),
    default=-6.0,
    metavar="DB",
    help="Below the peak, where widths are taken.",
)
@grammar.section("Image")
@band_options
@aperture_options
@engine_option
@grammar.section("Output")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (SI units) for other programs.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Picture (.png, .pdf, .svg), the numbers beside it as .json; or .json alone.  [default: PROBE_psf.png]",
)
@figure_options
@console.verbose_option
def psf(probe: ussim.Probe, as_json: bool, output: Path | None, **options: Any) -> None:
    """Measure the point spread function over depth: widths, side lobes and grating lobes.

    \b
    ussim psf --probe L11-5v
    ussim psf --probe P4-2v --angles 1 --f-number 0 --depth-mm 20 90 -o sharp.png
    """
    import ussim

    from ..show.figures import save_figure
    from ..show.resolution import resolution_figure
    from . import steps

    acquisition = _acquisition(probe, options)
    depths = _depths(probe, options["depth_mm"], options["points"])
    steps.check_aperture(options["apodization"], options["combine"])
    steps.check_decibels(options["combine"])
    receive = steps.receive_settings(options["carrier_mhz"], options["bandwidth_percent"], False)
    engine = steps.resolve_engine(options["engine"])
    how = {"apodization": options["apodization"], "combine": options["combine"]}
    how["engine"] = steps.combining_engine(engine, options["combine"])
    output = output or Path(f"{probe.name.replace('/', '-')}_psf.png")
    alone = output.suffix.lower() == ".json"
    if alone:
        console.check_output(output, *steps.input_files(probe))
    else:
        console.check_picture(output, *steps.input_files(probe), beside=".json")
    clock = steps.Clock()
    title = steps.title_of(acquisition)
    with clock(
        "psf", f"imaging {len(depths)} points, {steps.count_transmits(acquisition)} on {probe.name}"
    ) as progress:
        found = ussim.resolution_over_depth(
            acquisition,
            depths,
            options["lateral_mm"] / 1e3,
            options["f_number"],
            level_db=options["level_db"],
            frequency=receive["demodulation_frequency"],
            bandwidth=receive["demodulation_bandwidth"],
            progress=progress,
            **how,
        )
    settings = receive | how | {"f_number": options["f_number"]}
    record = found.to_dict() | {"settings": steps.record_of(acquisition, settings)}
    text = json.dumps(record, indent=2, allow_nan=False)
    steps.write_words(
        output.with_suffix(".json"),
        text,
        None
        if alone
        else lambda: save_figure(resolution_figure(found, title), output, record["settings"], **figure_size()),
    )
    console.result(text if as_json else f"{_table(found)}\n{output}: {title}; {clock}")


def _acquisition(probe: ussim.Probe, options: dict[str, Any]) -> ussim.Acquisition:
    import ussim

    from . import steps

    names = ("transmit", "angles", "max_angle_deg", "width_deg", "focus_depth_mm", "transmit_f_number")
    waves = steps.transmit_sequence(probe, *(options[name] for name in names))
    medium = ussim.Medium(options["speed_of_sound"], options["attenuation"])
    return ussim.Acquisition(probe, waves, medium, n_subelements=options["sub_elements"])


def _depths(probe: ussim.Probe, depth_mm: tuple[float, float] | None, n: int) -> Any:
    """Return the depths of the points, m."""
    import numpy as np

    if depth_mm is not None and not depth_mm[0] < depth_mm[1]:
        raise click.UsageError(f"--depth-mm: expected LOW below HIGH, got {depth_mm[0]:g} {depth_mm[1]:g}")
    if depth_mm is None and probe.imaging is None:
        raise click.UsageError(f"{probe.name} has no [imaging] field of view: give --depth-mm")
    if depth_mm is None:
        low, high = probe.imaging.z  # type: ignore[union-attr]
        return np.linspace(low, high, n + 1)[1:]  # not at its very top, where few elements see a point
    return np.linspace(*depth_mm, n) / 1e3 if n > 1 else np.array([sum(depth_mm) / 2e3])


def _table(found: ussim.DepthResolution) -> str:
    """Return what was found, a line per depth."""
    rows: list[tuple[str, ...]] = [("depth mm", "lateral mm", "axial mm", "side lobe dB", "grating lobe dB")]
    columns = (found.depths, found.lateral, found.axial, found.side_lobe_db, found.grating_lobe_db)
    for depth, lateral, axial, side, grating in zip(*columns, strict=True):
        levels = ["-" if value != value else f"{value:.1f}" for value in (side, grating)]
        sizes = ["-" if value != value else f"{1e3 * value:.3f}" for value in (lateral, axial)]
        rows.append((f"{1e3 * depth:.1f}", *sizes, *levels))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
