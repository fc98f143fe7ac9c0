"""`irsde calibrate-intervals`: how wide intervals have to be, measured on a subject that the runs have not seen."""

from __future__ import annotations

from pathlib import Path

import click

from irsde.config import FLOW_SAMPLERS, SAMPLERS
from ussim.commands import console


@click.command("calibrate-intervals")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option("--data", metavar="STORE", required=True, help="Pairs store; subjects that no run was trained on.")
@click.option("--probe", "probes", multiple=True, help="Probe in the store; may repeat.  [default: all it has]")
@click.option("--fold", type=click.IntRange(min=0), help="Only the subjects of this fold of the store.")
@click.option("--subject", "subjects", multiple=True, help="Only this subject; may repeat.  [default: all]")
@click.option("--limit", type=click.IntRange(1), help="This many images per probe, evenly spread.")
@click.option(
    "--level", type=console.Number(above=0, below=1), default=0.9, show_default=True, help="Share of pixels inside."
)
@click.option("--samples", type=click.IntRange(1), default=8, show_default=True, help="Per run.")
@click.option("--steps", type=click.IntRange(1), help="Network evaluations.  [default: the method's own]")
@click.option(
    "--sampler", type=click.Choice(tuple(dict.fromkeys(SAMPLERS + FLOW_SAMPLERS))), help="[default: the method's]"
)
@click.option(
    "--fidelity", type=console.Number(minimum=0, maximum=1), default=1.0, show_default=True, help="Of the samples."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the noise.")
@click.option("--weights", type=click.Choice(("ema", "raw")), default="ema", help="Averaged weights, or the last.")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:N.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="JSON.  [default: intervals.json in the first run]"
)
@console.verbose_option
def calibrate_intervals(
    runs: tuple[Path, ...],
    data: str,
    probes: tuple[str, ...],
    fold: int | None,
    subjects: tuple[str, ...],
    limit: int | None,
    level: float,
    samples: int,
    steps: int | None,
    sampler: str | None,
    fidelity: float,
    seed: int,
    weights: str,
    device: str,
    output: Path | None,
) -> None:
    """Calibrate the intervals of runs on pairs of subjects that none of them has seen.

    `irsde restore --interval` then writes lower and upper bounds, `irsde evaluate --interval` tells how often they hold.

    \b
    irsde calibrate-intervals runs/a --data pairs.zarr --fold 1
    irsde restore runs/a image.png -o clean.png --interval runs/a
    irsde evaluate runs/a --data test.zarr --interval runs/a -o table.md
    """
    from irsde.evaluation.coverage import coverage, fit_intervals
    from irsde.evaluation.results import percent
    from irsde.intervals import FILE
    from irsde.network import load

    target = output or runs[0] / FILE
    models = [load(run, weights, device) for run in runs]
    subsets = chosen(data, probes, fold, subjects, limit)
    total = sum(map(len, subsets))
    with console.Progress("calibrating", 2 * total) as bar:
        made = fit_intervals(
            models, subsets, level=level, n_samples=samples, steps=steps, sampler=sampler, fidelity=fidelity, seed=seed,
            advance=bar.advance,
        )  # fmt: skip
        again = coverage(made, models, subsets, seed + 1, bar.advance)
    made.save(target)
    console.note(
        f"{len(made.subjects)} subjects, {total} images, {made.n_pixels:,} pixels; with other noise the intervals hold "
        f"{percent(again[-1].inside)} of them. Of another subject that can be less: irsde evaluate --interval"
    )
    console.result(str(target))


def chosen(data: str, probes: tuple[str, ...], fold: int | None, subjects: tuple[str, ...], limit: int | None) -> list:
    """Return the pairs of a store to calibrate on, one subset per probe."""
    import numpy as np

    from irsde.data import DataError, open_store, split, whole

    subsets = [whole(p) if fold is None else split(p, fold)[1] for p in open_store(data, probes)]
    if subjects:
        known = sorted({s for subset in subsets for s in subset.subjects})
        names = [s for s in known if s in subjects or s.split("/")[-1] in subjects]
        if not names:
            raise DataError(f"--subject: expected some of {', '.join(known)}, got {', '.join(subjects)}")
        subsets = [s.select([i for i, own in enumerate(s.subjects) if own in names]) for s in subsets]
    if limit:
        subsets = [
            s.select(np.unique(np.linspace(0, len(s) - 1, min(limit, len(s))).astype(int))) for s in subsets if len(s)
        ]
    return subsets
