"""`ussim calibrate`. Nothing but click is imported before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import console, grammar
from .options import speed_option
from .recordings import facts_options


@click.command(cls=grammar.Command, short_help="Fit a probe to a recording.")
@click.argument("recording", type=click.Path(path_type=Path))
@grammar.section("What was recorded, and what is fitted")
@click.option(
    "--phantom",
    type=click.Choice(["wires", "speckle"]),
    default="wires",
    help="What was recorded: wires (or points) in a medium that scatters little, or homogeneous speckle.",
)
@click.option(
    "--frame", type=click.IntRange(min=0), default=0, metavar="N", help="Which of a recording's frames, from 0."
)
@click.option("--name", metavar="NAME", help="Of the probe fitted.  [default: the recording's, -calibrated]")
@click.option(
    "--element-delays/--no-element-delays",
    default=True,
    help="Fit by how many ns each element is late (wires).",
)
@grammar.section("Output")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="The probe, for any --probe.  [default: RECORDING_probe.toml]",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="Numbers, uncertainties and pictures.  [default: RECORDING_calibration.html]",
)
@facts_options
@speed_option("Of the medium, to start from, in place of the file's.  [default: the file's; 1540]")
@console.verbose_option
def calibrate(
    recording: Path,
    phantom: str,
    name: str | None,
    element_delays: bool,
    output: Path | None,
    report: Path | None,
    speed_of_sound: float | None,
    **facts: Any,
) -> None:
    """Fit probe, pulse, medium and clock to a RECORDING of a phantom, by least squares through the simulator.

    Center frequency, bandwidth, length and phase of the pulse, speed of sound, time zero, attenuation, gains and delays of
    the elements and which are dead, each with its uncertainty. What the recording does not tell is named.

    \b
    ussim calibrate wires.npz --phantom wires -o probe.toml --report report.html
    """
    import ussim

    from .recorded import frame_numbers, open_file
    from .steps import Clock

    output = output or Path(f"{recording.stem}_probe.toml")
    report = report or Path(f"{recording.stem}_calibration.html")
    for path, suffixes in ((output, (".toml",)), (report, (".html", ".htm"))):
        if path.suffix.lower() not in suffixes:
            raise click.UsageError(f"{path}: expected a name ending in {suffixes[0]}")
        console.check_output(path, recording)
    console.check_outputs([output, report], [recording])
    file = open_file(recording, facts, speed_of_sound)
    frames = frame_numbers(facts["frames"], file.n_frames, every=False)
    if len(frames) > 1:
        raise click.UsageError(f"--frames: expected one frame to calibrate on, got {len(frames)}")
    data = file.frame(frames[0])
    clock = Clock()
    try:
        with clock("calibrate"):
            found = ussim.calibrate(
                data,
                phantom,
                name=name,
                element_delays=element_delays,
                progress=lambda words: console.note(f"{words} ..."),
            )
    except ussim.DataError as error:
        raise ussim.DataError(str(error).replace("recording:", f"{recording}:", 1)) from error
    found.save_report(report)
    found.save_probe(output)
    console.result(str(found))
    console.result(f"{output}: {found.probe.name}; {report}; {clock}")
    console.note(f"next: datagen build --source demo --probe {output}")
