"""`irsde train | restore | models | evaluate | export | drus | drus-train`.

A command turns its options into one config or a few arguments, calls the library, and prints what it wrote. torch and
diffusers are imported when a command runs, never for `--help`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irsde import recipes
from irsde.config import (
    DRAWS,
    FLOW_LOSSES,
    FLOW_SAMPLERS,
    INVERSES,
    LOSSES,
    METHODS,
    NORMALIZATIONS,
    PRESETS,
    SAMPLERS,
    SCHEDULES,
    SIGMA_UNITS,
    SKIPS,
    STATISTICS,
    TrainConfig,
    read_settings,
)
from irsde.presets import TrainCommand, preset_for, recipe_warning
from ussim import __version__
from ussim.commands import console, grammar

if TYPE_CHECKING:
    from irsde.network import Model
    from irsde.sample import Sampling

ELSEWHERE = {  # command -> module that defines it
    "export": "irsde.export_cli",
    "drus": "irsde.drus.cli",
    "drus-train": "irsde.drus.cli",
    "calibrate-intervals": "irsde.interval_cli",
}


class Group(grammar.Group):
    """A group some of whose commands are imported when they are asked for."""

    def list_commands(self, context: click.Context) -> list[str]:
        """List the commands, those of other modules too."""
        return [*super().list_commands(context), *ELSEWHERE]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return a command, its module imported when it is asked for."""
        if name not in ELSEWHERE:
            return super().get_command(context, name)
        found = vars(import_module(ELSEWHERE[name])).values()
        return next((c for c in found if isinstance(c, click.Command) and c.name == name), None)


@click.group(cls=Group, context_settings=console.SETTINGS)
@click.version_option(__version__, message="irsde %(version)s")
def cli() -> None:
    """Despeckling by mean-reverting diffusion, and variance imaging with diffusion priors.

    \b
    irsde train --data pairs.zarr --probe L11-5v --out runs/a --preset small
    irsde restore image.png -o clean.png
    irsde restore runs/a image.png -o clean.png
    irsde evaluate runs/* --data test.zarr --probe L11-5v -o table.md
    """


def main() -> None:
    """Run the console script."""
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return console.run(cli, "irsde", arguments)


# --- train -----------------------------------------------------------------------------------------------------------


@cli.command(cls=TrainCommand, loads="PyTorch", short_help="Train a model on a pairs store.")
@grammar.section("Pairs")
@click.option(
    "--data",
    type=console.StoreType(),
    metavar="STORE",
    multiple=True,
    help="Pairs store that `datagen build` wrote; may repeat.",
)
@click.option(
    "--probe",
    "probes",
    multiple=True,
    type=console.PROBE_NAME,
    metavar="NAME",
    help="Probe in the store; may repeat.  [default: all it has]",
)
@click.option("--fold", type=click.IntRange(min=0), help="Hold out the subjects of this fold.  [default: none]")
@grammar.section("Run")
@click.option("-o", "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Run folder.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out; its settings stand unless given again.")
@click.option("--overwrite", is_flag=True, help="Delete the run in --out and begin again.")
@click.option("--config", type=click.Path(path_type=Path), help="TOML or JSON file of settings; options win over it.")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    help="irsde, flow; pmrf and irsde-mean on a predicted mean; or supervised.  [default: irsde]",
)
@click.option("--preset", type=click.Choice(tuple(PRESETS)), help="Network and length of the run, see below.")
@click.option(
    "--recipe",
    type=click.Choice(recipes.NAMES),
    help="Whose training: ours, the despeckling paper's, IR-SDE's public one (docs/recipes.md). A recipe's preset is paper; "
    "any option wins over it.",
)
@click.option("--init", metavar="RUN", help="Fine-tune: start from the averaged weights of this run, with its network.")
@click.option(
    "--mean", metavar="RUN", help="Run of method unet whose network is the mean of pmrf or irsde-mean, as it is."
)
@grammar.section("Training")
@click.option("--n-steps", type=click.IntRange(1), help="Steps of the diffusion.  [default: 100]")
@click.option("--steps", type=click.IntRange(1), help="Optimizer steps.")
@click.option("--batch-size", type=click.IntRange(1), help="Patches per step and process.")
@click.option("--patch-size", type=click.IntRange(8), help="Pixels, a multiple of 8.")
@click.option("--learning-rate", type=console.Number(above=0), metavar="RATE", help="Of Adam, at its largest.")
@click.option("--schedule", type=click.Choice(SCHEDULES), help="Of the learning rate over the run.")
@click.option("--warmup", type=click.IntRange(0), help="Steps of rising learning rate.")
@click.option("--clip-norm", type=console.Number(minimum=0), metavar="NORM", help="Of gradients; 0 = no limit.")
@click.option(
    "--ema-decay", type=console.Number(minimum=0, below=1), metavar="FRACTION", help="Of averaged weights, per step."
)
@click.option("--loss", type=click.Choice(LOSSES + FLOW_LOSSES), help="Of the predicted noise; of a flow, velocity.")
@grammar.section("Diffusion and images")
@click.option("--max-sigma", type=console.Number(above=0), metavar="SIGMA", help="λ, in units of --sigma-unit.")
@click.option(
    "--sigma-unit", type=click.Choice(SIGMA_UNITS), help="Of λ: the normalized image's, or grey levels in [0, 1]."
)
@click.option("--normalization", type=click.Choice(NORMALIZATIONS), help="Of grey levels, by image.")
@click.option("--inverse", type=click.Choice(INVERSES[:3]), help="Way back from --normalization own.")
@click.option(
    "--statistics",
    type=click.Choice(STATISTICS),
    help="Pixels that --normalization measures: the probe's field, what lies around it replaced by mirrored echoes; or "
    "the image as it is.",
)
@click.option("--clamp/--no-clamp", default=None, help="Restoring keeps predictions in the range of grey levels.")
@click.option(
    "--condition", type=click.Choice(("difference", "concat")), help="Network input: [x - LQ, LQ] or [x, LQ]."
)
@click.option("--precondition/--no-precondition", default=None, help="Unit variance in and out at every time.")
@click.option("--skip", type=click.Choice(SKIPS), help="What the network adds to: the LQ image, or it smoothed.")
@click.option(
    "--draws",
    type=click.Choice(DRAWS),
    help="Of a store with several speckle draws of each image: the first alone, or every draw as a pair.",
)
@click.option("--flip-axial/--no-flip-axial", default=None, help="Also flip in depth (speckle is anisotropic).")
@click.option("--rotate/--no-rotate", default=None, help="Also turn by 90 degrees (speckle is anisotropic).")
@click.option(
    "--overlays",
    type=console.Number(minimum=0, maximum=1),
    metavar="FRACTION",
    help="Share of training patches with a black border, caption, ruler or sector pasted on HQ and LQ.",
)
@grammar.section("Computation")
@click.option("--mixed-precision", type=click.Choice(("no", "bf16", "fp16")), help="Arithmetic on a card.")
@click.option("--gradient-accumulation", type=click.IntRange(1), help="Batches per optimizer step.")
@click.option("--compile/--no-compile", default=None, help="torch.compile the network.")
@click.option("--channels-last/--no-channels-last", default=None, help="Memory layout of the network.")
@click.option("--device", help="auto, cpu, cuda, cuda:N.")
@click.option("--seed", type=click.IntRange(0), help="Of weights, batches and noise.")
@click.option("--workers", type=click.IntRange(0), help="Processes that read pairs.")
@click.option("--log-every", type=click.IntRange(1), help="Steps between rows of metrics.csv.")
@click.option("--checkpoint-every", type=click.IntRange(1), help="Steps between checkpoints.")
@click.option("--validate-every", type=click.IntRange(0), help="Steps between sample sheets; 0 = none.")
@console.verbose_option
def train(
    out: Path,
    resume: bool,
    overwrite: bool,
    config: Path | None,
    data: tuple[str, ...],
    probes: tuple[str, ...],
    **given: Any,
) -> None:
    """Train a model on a pairs store.

    \b
    irsde train --data pairs.zarr --probe L11-5v --out runs/a --preset small
    irsde train --out runs/a --resume
    irsde train --data pairs.zarr --out runs/unet --method unet --fold 0
    irsde train --data mine.zarr --init runs/a --out runs/mine --steps 2000

    Several processes: torchrun --nproc_per_node N -m irsde train ..., or accelerate launch --multi_gpu.
    """
    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite exclude each other: go on with the run, or begin it again")
    settings = {name: value for name, value in given.items() if value is not None}
    settings |= ({"store": data} if data else {}) | ({"probes": probes} if probes else {})
    if config:
        settings = read_settings(config) | settings
    if resume and (out / "config.json").exists():
        from irsde.lessons import recorded_stores
        from irsde.network import read_record

        record = read_record(out)
        chosen = TrainConfig.from_record(record, **({"store": recorded_stores(record, out)} | settings))
    else:
        if "store" not in settings:
            raise click.UsageError("expected --data STORE (or `store` in --config), got neither")
        if settings.get("init"):
            from irsde.initial import handed_on

            settings = handed_on(settings["init"]) | settings
        if settings.get("mean"):
            from irsde.initial import of_mean

            settings = of_mean(settings["mean"]) | settings
        TrainConfig.create(**settings)  # what is wrong is said before anything else
        if "preset" not in settings:
            recipe, device = settings.get("recipe", recipes.DEFAULT), settings.get("device", "auto")
            if recipe == recipes.DEFAULT:
                settings["preset"], why = preset_for(device)
                console.note(why)
            elif warning := recipe_warning(recipe, device):
                console.note(warning)
        chosen = TrainConfig.create(**settings)
    with _memory():
        from irsde.training import train

        if overwrite:
            from irsde.run_folder import start_again

            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise click.UsageError("--overwrite: of several processes none may delete the run: delete it before")
            start_again(out, [*chosen.stores, *filter(None, (chosen.init, chosen.mean))], console.note)
        folder = train(chosen, out, resume)
    console.result(f"{folder}: step {chosen.steps} of {chosen.steps}")


# --- restore ---------------------------------------------------------------------------------------------------------


def model_options(command: Callable) -> Callable:
    """Add the options of every command that restores by a model."""
    options = (
        grammar.section("Model"),
        click.option(
            "--sampler",
            type=click.Choice(tuple(dict.fromkeys(SAMPLERS + FLOW_SAMPLERS))),
            help="Of a flow euler or posterior, of IR-SDE the others.  [default: posterior; of a flow euler]",
        ),
        click.option("--seed", type=click.IntRange(0), default=0, help="Of the noise."),
        click.option(
            "--weights", type=click.Choice(("ema", "raw")), default="ema", help="Averaged weights, or the last."
        ),
        click.option("--device", default="auto", help="auto, cpu, cuda, cuda:N."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@cli.command(loads="PyTorch", short_help="Restore an image, a cine, a volume or a store.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="[RUN...] IMAGE")
@grammar.section("What is read and written")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help=".png (one image), .npy, .nii, .nii.gz, or .dcm of what was DICOM; of a store, a folder.",
)
@click.option("--slice", "slice_index", type=int, metavar="N", help="Slice or frame of a volume.  [default: all]")
@click.option(
    "--plane", type=click.Choice(("axial", "coronal", "sagittal")), help="Plane of a volume.  [default: as acquired]"
)
@click.option(
    "--probe",
    type=console.PROBE_NAME,
    metavar="NAME",
    help="Probe of a pairs store, or whose curve --tone mri takes.  [default: the first; the mean curve]",
)
@click.option("--limit", type=click.IntRange(1), help="First images of a pairs store only.  [default: all]")
@click.option(
    "--strength",
    type=console.Number(minimum=0, maximum=1),
    default=1.0,
    metavar="FRACTION",
    help="Share of what the model changes that is changed: 0 gives the picture back.",
)
@click.option(
    "--tone",
    type=click.Choice(("bmode", "mri")),
    default="bmode",
    show_default=True,
    help="Grey levels of the result: the picture's own, or MRI's by the curve that is stored with the model, for pictures "
    "of 40 dB as `datagen build` simulates them.",
)
@click.option(
    "--tile",
    type=click.IntRange(32),
    default=512,
    help="Largest side the network sees at once, pixels; bounds memory. Larger images take twice the time: a first pass "
    "gathers the statistics that all tiles share. Near tile borders the result still differs a little from the untiled one.",
)
@click.option(
    "--region",
    "regions",
    multiple=True,
    metavar="auto|all|N|LEFT,TOP,RIGHT,BOTTOM",
    default=("auto",),
    help="Pixels to restore; may repeat. auto: the 2-D regions that a DICOM file lists, and in them, or in the picture, the "
    "echoes without border, captions beside them and the outside of a sector; N: region N of the file's list, from 1; or a "
    "rectangle in pixels. The others, and what is in color, stay as they are. Of a pairs store: its probe's field, or all "
    "by a run with --statistics image.",
)
@click.option(
    "--window",
    metavar="auto|voi|percentile|LOW,HIGH",
    default="auto",
    help="Values of the file that become black and white. auto: 0 and 255 of 8 bits, the full range of 16-bit pictures, "
    "percentiles of the foreground of volumes; voi: the DICOM file's own window; or two values.",
)
@click.option(
    "--keep-identity",
    is_flag=True,
    help="Keep patient, study and device in -o NAME.dcm, and name the file read as its source.  [default: nothing of them]",
)
@model_options
@click.option("--steps", type=click.IntRange(1), help="Network evaluations.  [default: as trained]")
@click.option("--samples", type=click.IntRange(1), default=1, help="Draw several; write their mean and variance.")
@click.option(
    "--fidelity",
    type=console.Number(minimum=0, maximum=1),
    default=1.0,
    metavar="FRACTION",
    help="From 0, the mean, to 1, a sample; of methods that sample.",
)
@click.option(
    "--interval",
    type=click.Path(path_type=Path),
    metavar="RUN|FILE",
    help="Write lower and upper bounds too: run, or JSON file, of calibrate-intervals. Sets how samples are drawn.",
)
@console.verbose_option
def restore(
    runs: tuple[Path, ...],
    output: Path,
    steps: int | None,
    samples: int,
    slice_index: int | None,
    plane: str | None,
    probe: str | None,
    limit: int | None,
    strength: float,
    tone: str,
    tile: int,
    regions: tuple[str, ...],
    window: str,
    keep_identity: bool,
    sampler: str | None,
    seed: int,
    weights: str,
    device: str,
    fidelity: float,
    interval: Path | None,
) -> None:
    """Restore a picture, a cine or a volume (PNG, JPEG, TIFF, NPY, NIfTI, DICOM), or every LQ image of a pairs store.

    A cine (DICOM ultrasound, TIFF of several pages) is restored frame by frame where it is echo: the rest of each frame, and
    what is in color, stays as it is. -o NAME.dcm writes a derived DICOM image without the patient's data.

    A volume (NIfTI, a stack in NPY, a multi-frame DICOM file or a folder with a DICOM series) is restored slice by slice;
    --slice N gives the same pixels as that slice of the whole. NIfTI keeps axes and affine of the file read, NPY is
    (slice, row, column). Both hold float32 in [0, 1], where 0 and 1 are two values of the file, the same for all slices:
    0 and 255 of 8 bits, 0 and 1 of fractions, else percentiles of the foreground.

    Without a run the model that comes with the package restores (`irsde models`). Several runs are an ensemble: their
    mean is written, and as with --samples the variance beside it.

    \b
    irsde restore image.png -o clean.png
    irsde restore image.png -o clean.png --strength 0.5
    irsde restore runs/a image.png -o clean.png
    irsde restore runs/fold* image.npy -o clean.npy --steps 20 --sampler ddim
    irsde restore runs/a cine.dcm -o clean.dcm
    irsde restore runs/a volume.nii.gz -o clean.nii.gz
    irsde restore runs/a test.zarr --probe L11-5v -o restored/
    """
    *folders, image = runs
    is_store = (image / "zarr.json").exists()
    if not is_store and (image / "config.json").exists():
        raise click.UsageError(f"expected an image after the run folder, got none ({image} is a run)")
    if not folders:
        folders = [_shipped_model()]
    if is_store and output.exists() and not output.is_dir():
        raise click.UsageError(f"{output}: expected a folder for the images of a store, got a file")
    if is_store and any(console.is_inside(output, given) for given in runs):
        raise click.UsageError(f"{output}: is an input, or lies in one; choose another folder")
    if is_store and (slice_index is not None or plane):
        raise click.UsageError("--slice and --plane are of a volume, got a pairs store")
    if not is_store and image.exists() and ((probe and tone == "bmode") or limit):
        raise click.UsageError(f"--probe and --limit are of a pairs store, got {image}")
    if is_store and interval:
        raise click.UsageError("--interval is of pictures, cines and volumes, got a pairs store")
    if not is_store:
        _check_outputs(output, image, len(folders) * samples > 1, interval is not None)
    from irsde.file_restoration import parse_regions, parse_window, restore_file

    if is_store and keep_identity:
        raise click.UsageError("--keep-identity is of -o NAME.dcm, got a pairs store")
    chosen: dict[str, Any] = {"parts": parse_regions(regions), "window": parse_window(window)}
    with _memory():
        from irsde.network import load
        from irsde.sample import Sampling

        models = [load(folder, weights, device) for folder in folders]
        sampling = Sampling(
            steps, sampler, tile=tile, overlap=min(64, tile // 4), fidelity=fidelity, strength=strength, tone=tone,
            probe=probe,
        )  # fmt: skip
        if interval is not None:
            from irsde.intervals import load_intervals

            chosen["interval"] = made = load_intervals(interval)
            models, samples, sampling = made.check_models(models), made.n_samples, made.sampling(tile)
        if is_store:
            _restore_store(models, image, probe, limit, output, samples, seed, sampling)
        else:
            restore_file(
                models, image, output, slice_index=slice_index, plane=plane, keep_identity=keep_identity, n_samples=samples,
                seed=seed, sampling=sampling, **chosen,
            )  # fmt: skip
    console.result(str(output))


def _shipped_model() -> Path:
    """Return the name of the model that restores where no run is named, as a path."""
    from irsde import models

    if models.DEFAULT not in models.names():
        raise click.UsageError(
            "expected at least one run folder and then an image: this install has no model of its own"
        )
    return Path(models.DEFAULT)


def _check_outputs(output: Path, image: Path, with_variance: bool, with_bounds: bool) -> None:
    """Every file that will be written can be."""
    from irsde.stacks import SUFFIXES, bounds_of, companions, is_dicom

    if not (output.name.lower().endswith(SUFFIXES) or is_dicom(output)):
        names = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise click.UsageError(f"{output}: expected a name that ends in {names}, or in .dcm of what was DICOM")
    more = [*(companions(output) if with_variance else []), *(bounds_of(output) if with_bounds else [])]
    console.check_outputs([output, *more], [image])


def _restore_store(
    models: list[Model],
    store: Path,
    probe: str | None,
    limit: int | None,
    output: Path,
    n_samples: int,
    seed: int,
    sampling: Sampling,
) -> None:
    """Every LQ image of a pairs store to a PNG in a folder, those together that one tile holds."""
    from irsde.store_restoration import restore_store

    members = [model for model in models for _ in range(n_samples)]
    names, images = _store_images(store, probe, limit)
    output.mkdir(parents=True, exist_ok=True)
    with console.Progress("restoring", len(names) * len(members)) as progress:
        deviations = restore_store(members, names, images, output, seed, sampling, progress.advance)
    console.note(f"{len(names)} images restored")
    if deviations:
        ordered = sorted(deviations.values())
        largest = max(deviations, key=lambda name: deviations[name])
        console.note(
            f"largest standard deviation over {len(members)} members, of an image: median {ordered[len(ordered) // 2]:.3g}, "
            f"at most {deviations[largest]:.3g} ({largest}.png)"
        )


def _store_images(path: Path, probe: str | None, limit: int | None) -> tuple[list[str], Iterator[tuple[Any, Any]]]:
    """Names of LQ images, and each with its probe's field."""
    import datagen

    pairs = datagen.open_pairs(path, probe=probe)
    if len(pairs.probes) > 1:
        pairs = datagen.open_pairs(path, probe=pairs.probes[0])
    n = min(len(pairs), limit or len(pairs))
    return [f"{i:06d}" for i in range(n)], ((pairs[i][1], pairs.mask(i)) for i in range(n))


# --- models ----------------------------------------------------------------------------------------------------------


def _shelf() -> list[str]:
    from irsde.models import names

    return names()


@cli.command(short_help="List the models that come with the package.")
@click.argument("name", required=False, type=console.NameType("model", _shelf))
@click.option("--json", "as_json", is_flag=True, help="Print JSON for other programs.")
@console.verbose_option
def models(name: str | None, as_json: bool) -> None:
    """List the models that come with the package; of one by its NAME, show its card.

    A card says what a model was trained on and under which licenses, by which recipe and command, what was measured, and
    what it is not for.

    \b
    irsde models
    irsde models despeckler
    """
    from irsde import models as shelf

    try:
        known = [shelf.shipped(own) for own in ([name] if name is not None else shelf.names())]
    except KeyError as error:
        raise click.UsageError(str(error.args[0])) from None
    if as_json:
        facts = [{"name": m.name, "kind": m.kind, "bytes": m.size, "summary": m.summary} for m in known]
        if name is not None:
            facts[0]["card"] = known[0].card
        console.result(json.dumps(facts if name is None else facts[0], indent=2))
    elif name is not None:
        console.result(known[0].card.rstrip())
    else:
        for model in known:
            console.result(f"{model.name}: {model.kind}, {model.size / 1e6:.1f} MB; {model.summary}")


# --- evaluate --------------------------------------------------------------------------------------------------------


@cli.command(loads="PyTorch", short_help="Measure runs and classical filters; write one table.")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN]...")
@grammar.section("Test images")
@click.option(
    "--data",
    type=console.StoreType(),
    metavar="STORE",
    help="Pairs store to test on: subjects that no run was trained on.",
)
@click.option(
    "--probe",
    "probes",
    multiple=True,
    type=console.PROBE_NAME,
    metavar="NAME",
    help="Probe in the store; may repeat.  [default: all it has]",
)
@click.option("--fold", type=click.IntRange(min=0), help="Only subjects of this fold of the store.  [default: all]")
@click.option(
    "--real",
    type=click.Path(path_type=Path),
    help="Folder of real images with lesion masks beside them, sub-folders too (BrEaST, BUSI).",
)
@click.option(
    "--mask-suffix",
    "mask_suffixes",
    multiple=True,
    metavar="SUFFIX",
    help="End of a mask's name, before a number if it has one; may repeat.  [default: _tumor, _other, _mask]",
)
@click.option("--limit", type=click.IntRange(1), help="This many images per probe, evenly spread.  [default: all]")
@grammar.section("Table")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Markdown; CSV and PNG go beside it."
)
@click.option(
    "--save",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep every restored image, float32 .npy in [0, 1]: DIR/PROBE/METHOD/INDEX.npy.",
)
@click.option(
    "--steps", type=click.IntRange(1), multiple=True, help="Network evaluations; may repeat.  [default: as trained]"
)
@click.option("--samples", type=click.IntRange(1), default=1, help="Add a row for the mean of this many samples.")
@click.option(
    "--fidelity",
    "fidelities",
    type=console.Number(minimum=0, maximum=1),
    multiple=True,
    default=(1.0,),
    metavar="FRACTION",
    help="From 0, the mean, to 1, a sample; may repeat, a row for each.",
)
@click.option(
    "--pixels",
    type=click.Choice(("field", "all")),
    default="field",
    show_default=True,
    help="Measured pixels of a pair: in the probe's field, or all, as the despeckling paper does.",
)
@click.option("--speckle", is_flag=True, help="Split errors in bias and speckle, over the draws that pairs have.")
@click.option(
    "--lesions",
    type=click.IntRange(1),
    metavar="N",
    help="Lesions kept, lost and made in N phantoms per probe.  [default: none]",
)
@click.option(
    "--interval",
    type=click.Path(path_type=Path),
    metavar="RUN|FILE",
    help="Coverage of the intervals of this run, or JSON file.",
)
@click.option("--n-seeds", type=click.IntRange(2), default=5, help="Seeds of one model, beside an ensemble of runs.")
@click.option("--baselines/--no-baselines", default=True, help="Classical filters.")
@click.option(
    "--fit-data",
    type=console.StoreType(),
    metavar="STORE",
    help="Training pairs: tune the filters, fit a tone curve to a median.",
)
@click.option("--onnx-model", multiple=True, metavar="NAME=FILE", help="A network of your own, as ONNX; may repeat.")
@click.option("--torch-model", multiple=True, metavar="NAME=FILE", help="ONNX file or run; may repeat.")
@click.option(
    "--trust", is_flag=True, help="Load TorchScript and torch.export files too: they can run code of their own."
)
@click.option("--lpips-backbone", type=click.Path(path_type=Path), help="ImageNet AlexNet weights (.pth).")
@model_options
@console.verbose_option
def evaluate(
    runs: tuple[Path, ...],
    data: str | None,
    probes: tuple[str, ...],
    fold: int | None,
    real: Path | None,
    mask_suffixes: tuple[str, ...],
    output: Path,
    save: Path | None,
    steps: tuple[int, ...],
    samples: int,
    n_seeds: int,
    pixels: str,
    baselines: bool,
    fit_data: str | None,
    onnx_model: tuple[str, ...],
    torch_model: tuple[str, ...],
    trust: bool,
    lpips_backbone: Path | None,
    limit: int | None,
    fidelities: tuple[float, ...],
    speckle: bool,
    lesions: int | None,
    interval: Path | None,
    sampler: str | None,
    seed: int,
    weights: str,
    device: str,
) -> None:
    """Measure runs, their ensemble and classical filters on pairs or on real images; write one table.

    \b
    irsde evaluate runs/* --data test.zarr --probe L11-5v --probe C5-2v -o table.md
    irsde evaluate runs/a --data test.zarr --steps 100 --steps 20 --steps 5 --sampler ddim -o steps.md
    irsde evaluate runs/a --real BrEaST/ -o real.md
    irsde evaluate runs/a --real Dataset_BUSI_with_GT/ --mask-suffix _mask -o busi.md
    """
    if data is None and real is None and lesions is None:
        raise click.UsageError("expected --data STORE, --real FOLDER or --lesions N, got none of them")
    if data is None and (speckle or interval):
        raise click.UsageError("--speckle and --interval are of the pairs of --data STORE")
    if mask_suffixes and (real is None or not all(mask_suffixes)):
        raise click.UsageError("--mask-suffix is of the images of --real FOLDER, and not empty")
    if output.suffix.lower() in (".csv", ".png"):
        raise click.UsageError(f"{output}: expected the name of the Markdown file; CSV and PNG go beside it")
    sources: list[str | Path] = [*runs, *(given for given in (data, real) if given is not None)]
    if save is not None and any(console.is_inside(save, given) for given in sources):
        raise click.UsageError(f"{save}: is an input, or lies in one; choose another folder")
    named = [_name_and_file("--onnx-model", text) for text in onnx_model]
    for _, file in named:
        if file.suffix.lower() != ".onnx":
            raise click.UsageError(f"--onnx-model: expected a file .onnx, got {file}")
    named += [_name_and_file("--torch-model", text) for text in torch_model]
    read = [file for _, file in named] + ([] if lpips_backbone is None else [lpips_backbone])
    console.check_outputs([output, output.with_suffix(".csv")], read)
    with _memory():
        from irsde.evaluation.breast import MASK_SUFFIXES
        from irsde.evaluation.evaluate import evaluate as compare
        from irsde.evaluation.evaluate import evaluate_real
        from irsde.evaluation.foreign import check_trusted
        from irsde.evaluation.results import Result
        from irsde.evaluation.table import write_report
        from irsde.network import load

        for _, file in named:
            check_trusted(file, trust)
        models = [load(folder, weights, device) for folder in runs]
        options: dict[str, Any] = {
            "steps": steps or (None,), "sampler": sampler, "seed": seed, "baselines": baselines, "torch_models": named,
            "trust": trust, "save": save, "fidelities": fidelities,
        }  # fmt: skip
        result = Result()
        if data is not None:
            tests = _subsets(data, probes, fold, limit)
            fit = _subsets(fit_data, probes, None, None) if fit_data else []
            result = compare(
                models, tests, samples=samples, fit=fit, lpips_backbone=lpips_backbone, n_seeds=n_seeds, pixels=pixels,
                speckle=speckle, progress=True, **options,
            )  # fmt: skip
            if interval is not None:
                _cover(result, models, tests, interval, seed)
        if lesions is not None:
            from irsde.evaluation.lesions import evaluate_lesions

            known = probes or tuple(dict.fromkeys(p for m in models for p in (m.details or {}).get("probes", ())))
            evaluate_lesions(models, known or ("L11-5v",), lesions, result=result, progress=True, **options)
        if real is not None:
            suffixes = mask_suffixes or MASK_SUFFIXES
            evaluate_real(models, real, limit=limit, mask_suffixes=suffixes, result=result, progress=True, **options)
        written = write_report(result, output)
    for path in [*written, *([save] if save is not None else [])]:
        console.result(str(path))


def _cover(result: Any, models: list[Model], tests: list[Any], path: Path, seed: int) -> None:
    """Add to a result how often the intervals in a file hold."""
    from irsde.evaluation.coverage import coverage
    from irsde.intervals import load_intervals

    made = load_intervals(path)
    with console.Progress("intervals", sum(map(len, tests))) as bar:
        result.coverage = coverage(made, made.check_models(models), tests, seed, bar.advance)
    result.intervals = f"They are meant to hold {made.level:.0%}, calibrated on {', '.join(made.subjects)}."


def _subsets(store: str, probes: tuple[str, ...], fold: int | None, limit: int | None) -> list[Any]:
    import numpy as np

    from irsde.data import open_store, split, whole

    opened = [whole(p) if fold is None else split(p, fold)[1] for p in open_store(store, probes)]
    if limit is None:
        return opened
    return [s.select(np.unique(np.linspace(0, len(s) - 1, min(limit, len(s))).astype(int))) for s in opened]


def _name_and_file(option: str, text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise click.UsageError(f"{option}: expected NAME=FILE, got {text!r}")
    return name, Path(path)


@contextmanager
def _memory() -> Iterator[None]:
    """PyTorch's out-of-memory error as the one that the command line knows."""
    try:
        yield
    except RuntimeError as error:
        if type(error).__name__ == "OutOfMemoryError" or "not enough memory" in str(error):
            reason = str(error).split(". ")[0]
            raise MemoryError(f"{reason}: use a smaller --batch-size, --patch-size or --tile") from error
        raise
