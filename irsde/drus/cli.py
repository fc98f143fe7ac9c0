"""`irsde drus` and `irsde drus-train`: options in, one function called, a table printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ussim.commands import console

if TYPE_CHECKING:
    from .imaging import Case

OPERATORS = ("kronecker", "patchwise", "dense")
LOCAL, PATH = "local", click.Path(path_type=Path)


@click.command("drus", context_settings=console.SETTINGS)
@click.argument("recording", type=PATH, required=False)
@click.option("--phantom", type=click.Choice(["occlusion", "scatterers"]), help="Simulate this test phantom.")
@click.option("--picmus", type=PATH, help="A PICMUS data set (HDF5), RF or IQ.")
@click.option("--picmus-phantom", type=PATH, help="Its phantom file: where the scores are read.")
@click.option(
    "--noise", type=console.Number(minimum=0), default=0.3, help="Channel noise of a phantom, over the rms of the RF."
)
@click.option(
    "--transmits", type=click.IntRange(1), default=31, help="Plane waves of the DAS with many (odd for a phantom)."
)
@click.option("--prior", default=LOCAL, help='A folder of `irsde drus-train` or diffusers, or "local" (no network).')
@click.option("--operator", "kind", type=click.Choice(OPERATORS), default="kronecker", help="How BH is factored.")
@click.option("--samples", type=click.IntRange(2), default=10, help="Posterior samples C.")
@click.option("--steps", type=click.IntRange(1, 1000), default=50)
@click.option("--batch-size", type=click.IntRange(1), default=None, help="Samples through the prior at once (memory).")
@click.option(
    "--beta", type=console.Number(above=0), default=0.5, help="Exponent of the variance image: var^(1 / (2 beta))."
)
@click.option(
    "--noise-level",
    type=console.Number(minimum=0),
    default=None,
    help="Error of By over its rms for white tissue; none: estimated.",
)
@click.option("--pixels", type=click.IntRange(16), nargs=2, default=(256, 128), help="Rows and columns.")
@click.option("--depth-mm", type=console.Number(above=0), default=None, help="Depth of the field's middle.")
@click.option("--seed", type=click.IntRange(0), default=0)
@click.option("--device", default="cpu", help="Of torch: cpu, cuda, cuda:1.")
@click.option("--engine", type=console.EngineType(), default="auto", help="Of ussim, for a phantom.")
@click.option("-o", "--output", type=PATH, required=True, help="Picture; the scores go beside it as .json.")
@console.verbose_option
def drus(recording, phantom, picmus, picmus_phantom, output, prior, **options) -> None:
    """Image one transmit by diffusion: DAS, DENO, DRUSmean, DRUSvar and despeckled DRUSmean side by side at 60 dB.

    \b
    irsde drus --phantom occlusion --prior priors/a -o drus.png
    irsde drus channel_data.npz -o drus.png
    irsde drus --picmus contrast_speckle_expe_dataset_rf.hdf5 --picmus-phantom ..._phantom.hdf5 -o drus.png
    """
    if sum(value is not None for value in (recording, phantom, picmus)) != 1:
        raise click.UsageError("expected one of: a recording, --phantom NAME, --picmus FILE")
    if picmus_phantom is not None and picmus is None:
        raise click.UsageError("--picmus-phantom goes with --picmus")
    inputs = [path for path in (recording, picmus, picmus_phantom) if path is not None]
    console.check_picture(output, *inputs, beside=".json")
    from ussim.io.atomic import replacing
    from ussim.show.figures import save_figure

    from . import imaging

    _check_device(options["device"])
    denoiser = _load_prior(prior, options["device"])
    case = _load_case(recording, phantom, picmus, picmus_phantom, options)
    with _Stages() as stages:
        result = imaging.reconstruct(
            case,
            denoiser,
            kind=options["kind"],
            n_samples=options["samples"],
            steps=options["steps"],
            seed=options["seed"],
            beta=options["beta"],
            noise_level=options["noise_level"],
            batch_size=options["batch_size"],
            device=options["device"],
            progress=stages.report,
        )
    images = dict(result.images)
    analytic = imaging.with_analytic_prior(case, result, seed=options["seed"], steps=options["steps"])
    scores = imaging.score(case, {**images, **analytic})
    save_figure(imaging.comparison_figure(images, case.grid, case.name), output)
    record = {
        "case": case.name,
        "prior": str(prior),
        "operator": options["kind"],
        "operator_relative_residual": result.operator.relative_residual,
        "noise_level": result.noise_level,
        "noise_autocorrelation": dict(
            zip(("axial", "lateral"), (c.tolist() for c in result.noise_correlation), strict=True)
        ),
        **{key: options[key] for key in ("samples", "steps", "beta", "seed", "noise")},
        "scores": scores,
    }
    with replacing(output.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(_finite(record), indent=2) + "\n", encoding="utf-8")
    table = imaging.score_table(scores)
    if table:
        console.result(table)
    if analytic:
        console.note("true-map prior: N(0, p²) with the phantom's own p, a bound and not a method")
    console.note(
        f"{output}: {options['kind']} operator, residual {100 * result.operator.relative_residual:.0f} %, "
        f"noise level {result.noise_level:.3f}"
    )


@click.command("drus-train", context_settings=console.SETTINGS)
@click.option("--out", type=PATH, required=True, help="Folder of the prior.")
@click.option("--iterations", type=click.IntRange(1), default=4000, help="About half a second each on two cores.")
@click.option("--batch-size", type=click.IntRange(1), default=8)
@click.option("--size", type=click.IntRange(16), default=64, help="Pixels a side of the training maps.")
@click.option("--channels", default="32,64,64,128", help="Of the network's levels, finest first.")
@click.option("--learning-rate", type=console.Number(above=0), default=6e-4)
@click.option(
    "--mri", type=PATH, multiple=True, help="MRI slices to learn from (.npy, .dcm, .nii); none: those of pydicom."
)
@click.option("--seed", type=click.IntRange(0), default=0)
@click.option("--device", default="cpu", help="Of torch: cpu, cuda, cuda:1.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@console.verbose_option
def drus_train(out, iterations, channels, mri, device, resume, **options) -> None:
    """Train the DDPM prior of DRUS on white noise under random echogenicity maps; the test phantoms are not among them.

    \b
    irsde drus-train --out priors/a
    """
    try:
        levels = tuple(int(c) for c in channels.split(","))
    except ValueError:
        raise click.UsageError(f"--channels: expected whole numbers with commas between, got {channels!r}") from None
    multiple = 2 ** (len(levels) - 1)
    if any(c < 1 or c % min(levels[0], 16) for c in levels) or options["size"] % multiple:
        raise click.UsageError(
            f"expected --channels divisible by {min(levels[0], 16)} and --size divisible by {multiple}, "
            f"got {channels} and {options['size']}"
        )
    _check_device(device)
    from . import train

    config = train.PriorConfig(
        iterations=iterations,
        channels=levels,
        groups=min(levels[0], 16),
        slices=tuple(str(path) for path in mri),
        **options,
    )
    bar: console.Progress | None = None

    def report(done: int, total: int, loss: float, _seconds_left: float) -> None:
        nonlocal bar
        if bar is None:
            bar = console.Progress("training", total, done=max(0, done - 20)).__enter__()
        bar.advance(done - bar.done, note=f"loss {loss:.4f}")

    try:
        train.train(config, out, resume=resume, device=device, report=report)
    finally:
        if bar is not None:
            bar.__exit__()
    console.result(str(out))


class _Stages:
    """A progress bar a stage of the reconstruction."""

    def __init__(self) -> None:
        self._stage, self._bar = "", None

    def __enter__(self) -> _Stages:
        return self

    def report(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self.__exit__()
            self._stage, self._bar = stage, console.Progress(stage, total).__enter__()  # type: ignore[assignment]
        assert self._bar is not None
        self._bar.advance(done - self._bar.done)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.__exit__()
            self._bar = None


def _load_case(recording, phantom, picmus, picmus_phantom, options) -> Case:
    from . import imaging, recordings

    depth = None if options["depth_mm"] is None else options["depth_mm"] * 1e-3
    if phantom is not None:
        place = {} if depth is None else {"depth": depth}
        with console.working(f"simulating the {phantom} phantom"):
            return imaging.phantom_case(
                phantom,
                shape=options["pixels"],
                noise=options["noise"],
                n_transmits=options["transmits"],
                seed=options["seed"],
                engine=options["engine"],
                **place,
            )
    if picmus is not None:
        rf = recordings.read_picmus(picmus, max_angles=options["transmits"])
        targets = recordings.read_picmus_phantom(picmus_phantom) if picmus_phantom is not None else None
        return imaging.recording_case(picmus.stem, rf, targets, options["pixels"], depth)
    return imaging.recording_case(
        recording.stem, recordings.read_recording(recording), shape=options["pixels"], depth=depth
    )


def _load_prior(prior: str, device: str) -> Any:
    from . import priors

    if prior == LOCAL:
        console.note('prior "local": no network, echogenicity from local averages. Train one with `irsde drus-train`')
        return priors.LocalVariancePrior()
    return priors.load_prior(prior, device)


def _check_device(device: str) -> None:
    """One line instead of a traceback where torch has no such device."""
    import torch

    from ussim.errors import EngineError

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise EngineError(f'device "{device}": not there ({reason}). Use --device cpu') from None


def _finite(value: Any) -> Any:
    """JSON has no NaN: None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and value != value else value
