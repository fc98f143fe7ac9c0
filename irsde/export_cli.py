"""`irsde export`: a model as a file that other programs run."""

from __future__ import annotations

from pathlib import Path

import click

from irsde.config import FLOW_SAMPLERS, SAMPLERS
from ussim.commands import console, grammar


@click.command(
    "export",
    cls=grammar.Command,
    loads="PyTorch",
    context_settings=console.SETTINGS,
    short_help="Write a model as ONNX.",
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="File, .onnx.")
@click.option("--steps", type=click.IntRange(1), help="Network evaluations, unrolled.  [default: as trained]")
@click.option(
    "--sampler",
    type=click.Choice(tuple(dict.fromkeys((*SAMPLERS, *FLOW_SAMPLERS)))),
    help="As of `irsde restore`.  [default: posterior, of a flow euler]",
)
@click.option(
    "--fidelity",
    type=console.Number(minimum=0, maximum=1),
    default=1.0,
    metavar="FRACTION",
    help="From 0, the mean, to 1, a sample; of methods that sample.",
)
@click.option(
    "--strength",
    type=console.Number(minimum=0, maximum=1),
    default=1.0,
    metavar="FRACTION",
    help="Share of the change that is applied.",
)
@click.option("--weights", type=click.Choice(("ema", "raw")), default="ema", help="Averaged weights, or the last.")
@click.option("--opset", type=click.IntRange(17), default=17, help="Of ONNX.")
@console.verbose_option
def export(
    run: Path,
    output: Path,
    steps: int | None,
    sampler: str | None,
    fidelity: float,
    strength: float,
    weights: str,
    opset: int,
) -> None:
    """Write a model as ONNX: grey levels (1, 1, nz, nx) in [0, 1] in and out, normalization and steps inside, of any size.

    A model that draws has a second input, noise (1, n, nz, nx), standard normal. With ONNX Runtime installed the file is
    compared with `irsde restore` before it is written: they differ by less than 1e-4.

    \b
    irsde export despeckler -o despeckler.onnx
    irsde export runs/a -o model.onnx --steps 5 --sampler ddim
    """
    if output.suffix.lower() != ".onnx":
        raise click.UsageError(f"{output}: expected a name that ends in .onnx")
    console.check_outputs([output], [])
    from irsde.network import load
    from irsde.onnx_export import export as write
    from irsde.sample import Sampling

    sampling = Sampling(steps, sampler, fidelity=fidelity, strength=strength)
    with console.working("exporting"):
        facts = write(load(run, weights, "cpu"), output, sampling, opset)
    draws = int(facts["noise_draws"])
    steps_taken = f", {facts['steps']} steps of {facts['sampler']}, {draws} draws of noise" if draws else ""
    console.note(f"{facts['method']}{steps_taken}; opset {opset}")
    console.result(str(output))
