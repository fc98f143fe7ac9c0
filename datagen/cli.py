"""`datagen build | inspect | info | verify | preview | report | export`.

A command parses its options, calls one function and prints one summary. Nothing but click is imported before a command runs.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ussim import __version__
from ussim.commands import console, grammar
from ussim.commands.look import run as serve_page
from ussim.commands.look import server_options
from ussim.commands.options import figure_options, figure_size
from ussim.errors import ExitCode

if TYPE_CHECKING:
    from .make.build import Summary
    from .plan.recipe import Recipe

_SOURCES = "demo|mrnet|duke-liver|brainmetshare|duke-breast|umd|nifti|dicom|npy|image|phantom|labels"
DEMO_LIMIT = 12  # samples: a first look, in minutes; --limit asks for more
# Where an option has another name than its field of the recipe.
_NOTES = 12  # that a build prints
_FIELDS = {
    "probe": "probes",
    "angles": "n_transmits",
    "attenuation": "attenuation_db_cm_mhz",
    "phantom": "phantoms",
}


@click.group(cls=grammar.Group, context_settings=console.SETTINGS)
@click.version_option(__version__, message="datagen %(version)s")
def cli() -> None:
    """Paired ultrasound datasets from MRI: slices, and their simulated B-mode.

    \b
    datagen build --source demo --probe C5-2v          a small dataset, of MRI that is already here
    datagen build --source nifti --root mri/ --probe L11-5v --probe C5-2v --workers 8
    datagen verify nifti-L11-5v-C5-2v.zarr
    """


def _sources() -> list[str]:
    from .sources import source_names

    return source_names()


def main() -> None:
    """Run the console script."""
    interrupted = "what is finished stays: the same command with --resume goes on from there"
    sys.exit(console.run(cli, "datagen", interrupted=interrupted))


# --- build -----------------------------------------------------------------------------------------------------------


@cli.command(short_help="Build a dataset of pairs.")
@grammar.section("What is read")
@click.option(
    "--source",
    type=console.NameType("source", _sources),
    multiple=True,
    metavar=_SOURCES,
    help="Where the images come from; may repeat.",
)
@click.option(
    "--root",
    multiple=True,
    metavar="DIR",
    help="Its folder; may repeat, one for each --source.  [default: DATAGEN_ROOT, ./NAME, ./data/NAME]",
)
@click.option("--limit", type=int, help="At most so many samples, chosen by hash.  [default: all; of demo 12]")
@click.option("--limit-full", type=int, help="At most so many whole slices.  [default: all]")
@click.option("--limit-patches", type=int, help="At most so many patches.  [default: all]")
@click.option(
    "--subjects",
    metavar="REGEX|CSV",
    help="Whose files of your own are: an expression whose group is the person, or rows file,subject.",
)
@click.option("--frames", metavar="first|all|N", default="first", help="Of a 4-D file or echoes of the same slices.")
@click.option("--include-derived", is_flag=True, help="Phase images, maps, projections too, of files of your own.")
@click.option("--planes", multiple=True, metavar="PLANE", help="axial, coronal, sagittal; may repeat, or with commas.")
@click.option("--every", type=int, default=1, help="Take every n-th slice.")
@click.option(
    "--min-tissue", type=float, default=0.1, metavar="FRACTION", help="Fraction of a slice that must be tissue."
)
@click.option(
    "--window",
    metavar="WHICH",
    default="auto",
    help="Black and white of a volume: auto, voi (as its files say), percentile, or LOW,HIGH.",
)
@click.option("--labels", metavar="PATTERN", help="Files with labels, beside the images: {name}_seg.nii.gz.")
@click.option("--tissues", metavar="FILE.toml", help="What labels are as tissue: echo level, density, attenuation.")
@click.option("--phantom", multiple=True, metavar="KIND", help="Of source phantom; may repeat.  [default: all kinds]")
@click.option("--full/--no-full", default=True, help="Whole slices.")
@click.option("--patches/--no-patches", default=True, help="The largest square of tissue of each slice.")
@click.option("--segmenter", type=click.Choice(["otsu", "sam2"]), default="otsu", help="What finds the tissue.")
@click.option("--sam2-checkpoint", metavar="FILE", help="For --segmenter sam2.")
@click.option("--augmentations", type=int, default=0, help="Variants of each image beside the image itself.")
@click.option("--folds", type=int, help="Groups of subjects.  [default: 5, or as many as leave none empty]")
@click.option("--config", metavar="FILE.toml", help="A recipe; options given here win over it.")
@grammar.section("Probe and waves")
@click.option(
    "--probe", type=console.PROBE_NAME, multiple=True, metavar="NAME|FILE", help="A preset or a TOML file; may repeat."
)
@click.option("--transmit", type=click.Choice(["plane", "diverging"]), help="Kind of waves.  [default: the probe's]")
@click.option("--angles", type=int, help="Number of waves.  [default: the probe's]")
@click.option("--max-angle-deg", type=float, help="The waves are steered over ± this.  [default: the probe's]")
@click.option("--width-deg", type=float, help="Sector of a diverging wave.  [default: the probe's]")
@grammar.section("Scatterers, medium and receiver")
@click.option("--size", type=int, default=256, help="Pixels on a side.")
@click.option("--mean-distance-wavelengths", type=float, default=1.0, help="Between scatterers, shortest wavelengths.")
@click.option("--dynamic-range-db", type=float, default=40.0, help="Of the scatterers and of the display.")
@click.option("--attenuation", type=float, default=0.0, metavar="DB/CM/MHZ", help="Of the medium.")
@click.option("--snr-db", type=float, help="Of the channel data.  [default: no noise]")
@click.option("--tgc/--no-tgc", default=None, help="Undo the attenuation.  [default: where there is any]")
@click.option("--randomize", metavar="FILE.toml", help="Ranges to draw each sample's acquisition from.")
@click.option("--speckle-draws", type=int, default=1, help="Independent draws of the scatterers of each image.")
@click.option(
    "--keep", type=click.Choice(["envelope"]), multiple=True, help="Beside LQ: the envelope in dB; may repeat."
)
@click.option("--seed", type=int, default=0, help="Of everything that is drawn.")
@grammar.section("Computation")
@click.option("--engine", type=console.EngineType(), default="auto", help="auto, cpu, cuda, cuda:N, reference.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Local worker processes, on cards one each.  [default: one per card where there are several, else this process]",
)
@click.option("--scheduler", metavar="WHERE", help="threads, processes, an address, or a scheduler file.")
@click.option("--max-memory", type=float, metavar="GB", help="That reading one volume may take.  [default: 4]")
@grammar.section("Output")
@click.option("-o", "--out", metavar="STORE", help="Folder or URL of the store.  [default: <source>-<probe>.zarr]")
@click.option("--dry-run", is_flag=True, help="Count, and estimate bytes and time from one sample.")
@click.option("--resume", is_flag=True, help="Go on with the store that is there, if any.")
@click.option("--overwrite", is_flag=True, help="Delete the store that is there.")
@console.verbose_option
@click.pass_context
def build(context: click.Context, **options: Any) -> int:
    """Build a dataset.

    \b
    datagen build --source demo --probe C5-2v
    datagen build --source mrnet --probe L11-5v --limit 1000 --dry-run
    datagen build --config recipe.toml --workers 8 --resume
    """
    given = {name for name in options if context.get_parameter_source(name) != click.core.ParameterSource.DEFAULT}
    recipe = _recipe(options, given)
    out = options["out"] or _default_out(recipe)
    if options["dry_run"]:
        return _dry_run(recipe, out)
    from ussim.waiting import announce

    from .make import build as pipeline

    announce(console.note)
    watcher = _watcher()
    watcher.look()
    summary = pipeline.build(
        recipe,
        out,
        workers=options["workers"],
        scheduler=options["scheduler"],
        resume=options["resume"],
        overwrite=options["overwrite"],
        watcher=watcher,
    )
    _print_summary(summary, _write_previews(summary), out)
    if summary.is_incomplete:
        return ExitCode.INCOMPLETE
    return ExitCode.PARTIAL if summary.set_aside or summary.unreadable else ExitCode.DONE


def _recipe(options: dict[str, Any], given: set[str]) -> Recipe:
    """Return the recipe of the options given, over that of a file."""
    from .plan.recipe import Recipe, read_table, read_toml

    fields = read_table(options["config"]) if options["config"] else {}
    for name in given:
        field = _FIELDS.get(name, name)
        if field in Recipe.model_fields:
            fields[field] = options[name]
    if "planes" in given:
        fields["planes"] = tuple(part for item in options["planes"] for part in item.split(",") if part)
    if "randomize" in given:
        fields["randomize"] = read_toml(options["randomize"])
    if "tissues" in given:
        fields["tissues"] = read_toml(options["tissues"])
    for field, option in (("source", "--source"), ("probes", "--probe")):
        if not fields.get(field):
            raise click.UsageError(f"{option} is missing (or `{field}` in a --config file)")
    names = (fields["source"],) if isinstance(fields["source"], str) else tuple(fields["source"])
    if names == ("demo",) and not {"limit", "limit_full", "limit_patches"} & fields.keys():
        fields["limit"] = DEMO_LIMIT
    return Recipe(**fields)


def _default_out(recipe: Recipe) -> str:
    names = [*recipe.source, *(probe.name.replace("/", "_") for probe in recipe.load_probes())]
    return "-".join(names) + ".zarr"


def _dry_run(recipe: Recipe, out: str) -> int:
    """Say what a build would make; nothing is written."""
    from .make.estimate import estimate

    watcher = _watcher()
    watcher.look()
    figures = estimate(recipe, watcher)
    watcher.end()
    plan = figures.plan
    console.result(
        f"{out}: {len(plan.samples)} samples ({figures.n_full} slices, {figures.n_patches} patches) of "
        f"{len(plan.subjects)} subjects, {plan.n_volumes} volumes; {len(plan.recipe.probes)} probes; "
        f"{_folds(plan.recipe.folds)}"
    )
    console.result(f"size: about {_bytes(figures.n_bytes)}")
    console.result(
        f"time: about {console.duration(figures.seconds_a_sample * len(plan.samples))} in one process "
        f"({figures.seconds_a_sample:.3g} s a sample, engine {plan.recipe.engine}, timed on {figures.timed})"
    )
    _print_left_out(plan.skipped, plan.unreadable, plan.notes)
    return ExitCode.DONE


def _watcher() -> Any:
    """Return what a build says, on the console."""
    import time

    from .make.progress import Watcher

    class ConsoleWatcher(Watcher):
        def __init__(self) -> None:
            self.bar: console.Progress | None = None
            self.is_reading = False
            self.first = 0
            self.started = 0.0

        def message(self, text: str) -> None:
            console.note(text)

        def look(self) -> None:
            """Show on a terminal that volumes are being listed, which has no count."""
            if console.has_bar():
                self.bar = console.Progress("finding volumes", 0).__enter__()

        def reading(self, done: int, total: int) -> None:
            if not self.is_reading:
                self.end()
                self.is_reading = True
            if self.bar is None and total > 1:
                self.bar = console.Progress("reading volumes", total).__enter__()
            if self.bar is not None:
                self.bar.advance(done - self.bar.done)
            if done == total:
                self.end()

        def begin(self, total: int, done: int) -> None:
            self.end()
            self.first, self.started = done, time.monotonic()
            self.bar = console.Progress("samples", total, done).__enter__()

        def progress(self, done: int, set_aside: int) -> None:
            if self.bar is not None:
                rate = max(0, done - self.first) / max(time.monotonic() - self.started, 1e-6)
                aside = f", {set_aside} set aside" if set_aside else ""
                self.bar.advance(done - self.bar.done, note=f"{rate:.3g} samples/s{aside}")

        def end(self) -> None:
            if self.bar is not None:
                self.bar.__exit__(None, None, None)
                self.bar = None

    return ConsoleWatcher()


def _write_previews(summary: Summary) -> list[str]:
    """Return a picture of pairs in the store, one per probe."""
    from .plan.resolved import array_name
    from .show.preview import preview_png
    from .store.loader import open_pairs
    from .store.location import open_storage

    storage = open_storage(summary.url)
    written = []
    for probe in summary.probes:
        name = f"preview/{array_name(probe)}.png"
        if summary.n_built or f"{array_name(probe)}.png" not in storage.names("preview"):
            storage.write(name, preview_png(open_pairs(summary.url, probe=probe), probe))
        written.append(f"{summary.url}/{name}")
    return written


def _print_summary(summary: Summary, previews: list[str], out: str) -> None:
    there = summary.n_samples - len(summary.set_aside)
    rate = f" ({summary.n_built / summary.seconds:.3g} samples/s)" if summary.n_built else ", all there already"
    console.result(
        f"{summary.url}: {there} samples of {summary.n_subjects} subjects, {summary.n_volumes} volumes, under "
        f"{', '.join(summary.probes)}; {_folds(summary.folds)}; {console.duration(summary.seconds)}{rate}"
    )
    _print_left_out(summary.skipped, summary.unreadable, summary.notes)
    for sample, reason in summary.set_aside[:5]:
        console.note(f"set aside: {sample}: {reason}")
    if len(summary.set_aside) > 5:
        console.note(f"set aside: {len(summary.set_aside) - 5} more; all are in {summary.url}/samples.csv")
    if summary.is_incomplete:
        share = len(summary.set_aside) / summary.n_samples
        console.note(
            f"incomplete: {share:.0%} of the samples are set aside; mend the cause, then run the same command with --resume"
        )
    console.result(f"digest: {summary.digest}")
    console.result(f"picture: {', '.join(previews)}")
    again = "the same command with --resume tries the samples set aside again" if summary.set_aside else ""
    console.result(f"next: {again or f'datagen verify {shlex.quote(out)}'}")


def _print_left_out(skipped: dict[str, int], unreadable: Any, notes: Any) -> None:
    for reason, count in skipped.items():
        console.note(f"left out: {count} image{'s' * (count != 1)}, {reason}")
    for volume, reason in list(unreadable)[:5]:
        console.note(f"set aside: volume {volume}: {reason}")
    if len(unreadable) > 5:
        console.note(f"set aside: {len(unreadable) - 5} more volumes")
    shown = len(notes) if console.is_verbose() else _NOTES
    for text in list(notes)[:shown]:
        console.note(f"note: {text}")
    if len(notes) > shown:
        console.note(
            f"note: {len(notes) - _NOTES} more; -v lists them, and volumes.csv in the store those of each volume"
        )


def _folds(count: int) -> str:
    return f"{count} fold{'s' * (count != 1)}"


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


# --- looking ---------------------------------------------------------------------------------------------------------


@cli.command(short_help="Say what a folder holds, and what is odd about it.")
@click.argument("root")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for other programs.")
@click.option("--subjects", metavar="REGEX|CSV", help="Whose files of your own are, as for build.")
@click.option("--frames", metavar="first|all|N", default="first", help="Of a 4-D file or echoes of the same slices.")
@click.option("--include-derived", is_flag=True, help="Phase images, maps, projections too, of files of your own.")
@click.option("--max-memory", type=console.Number(above=0), metavar="GB", help="As for build.  [default: 4]")
@console.verbose_option
def inspect(
    root: str, as_json: bool, subjects: str | None, frames: str, include_derived: bool, max_memory: float | None
) -> None:
    """Say which collection a folder holds, what is in it, and what is odd.

    \b
    datagen inspect MRNet-v1.0
    """
    from ussim.volumes.budget import limited_memory

    from .sources.base import Selection, frames_asked
    from .sources.inspect import inspect as look

    with limited_memory(None if max_memory is None else max_memory * 1e9):
        found = look(root, Selection(subjects, frames_asked(frames), include_derived))
    console.result(json.dumps(found.as_dict(), indent=2) if as_json else "\n".join(found.lines()))


@cli.command()
@click.argument("store", type=console.StoreType(), metavar="STORE")
@click.option("--digest", is_flag=True, help="Only the digest over hq, lq, mask and samples.")
@click.option("--json", "as_json", is_flag=True, help="Print all attributes as JSON, for other programs.")
@console.verbose_option
def info(store: str, digest: bool, as_json: bool) -> None:
    """Say what a store holds.

    \b
    datagen info pairs.zarr --digest
    """
    from .store import read
    from .store.location import open_storage

    storage = open_storage(store)
    if as_json:
        console.result(json.dumps(read.read_document(storage), indent=2))
        return
    attributes = read.require_complete(storage)
    if digest:
        console.result(attributes.digest)
        return
    recipe = attributes.recipe
    samples = read.read_samples(storage)
    kinds = {kind: sum(row["kind"] == kind for row in samples) for kind in ("full", "patch")}
    subjects = {(row["source"], row["subject"]) for row in samples}
    lines = {
        "samples": f"{len(samples)} ({kinds['full']} slices, {kinds['patch']} patches), "
        f"{attributes.n_set_aside} set aside",
        "subjects": f"{len(subjects)} in {_folds(recipe.folds)}",
        "images": f"{recipe.size} x {recipe.size} uint8, HQ and LQ under {', '.join(attributes.probes)}",
        "engine": recipe.engine,
        "source": attributes.source,
        "licence": attributes.licence,
        "citation": attributes.citation,
        "recipe digest": attributes.recipe_digest,
        "digest": attributes.digest,
        "versions": ", ".join(f"{name} {version}" for name, version in attributes.versions.items()),
    }
    for name, text in lines.items():
        console.result(f"{name + ':':<15}{text}")


@cli.command(short_help="Check that a store is what was built.")
@click.argument("store", type=console.StoreType(), metavar="STORE")
@click.option(
    "--resimulate", type=click.IntRange(min=0), default=0, metavar="K", help="Simulate K random samples again."
)
@click.option(
    "--root", multiple=True, metavar="DIR", help="Of the source, as for build, to simulate again; may repeat."
)
@click.option("--seed", type=int, help="Of the draw of samples.  [default: another each time]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for other programs.")
@console.verbose_option
def verify(store: str, resimulate: int, root: tuple[str, ...], seed: int | None, as_json: bool) -> int:
    """Check that a store is what was built: every checksum, the table, the digest.

    \b
    datagen verify pairs.zarr --resimulate 3
    """
    from .make.verify import verify as check

    with console.Progress("shards", 0) as progress:

        def on_shard(done: int, total: int) -> None:
            progress.total = total
            progress.advance(done - progress.done)

        report = check(store, resimulate, root=root or None, seed=seed, on_shard=on_shard)
    for text in report.notes:
        console.note(f"note: {text}")
    if as_json:
        console.result(json.dumps(dataclasses.asdict(report), indent=2))
        return ExitCode.DATA if report.faults else ExitCode.DONE
    for text in report.faults:
        console.result(f"FAULT {text}")
    if report.faults:
        raise _fault(
            f"{store}: {len(report.faults)} faults; `datagen build ... --resume` makes the damaged shards again"
        )
    again = f", {report.n_resimulated} simulated again" if resimulate else ""
    console.result(f"{store}: {report.n_samples} samples, all as built{again}; digest {report.digest}")
    return ExitCode.DONE


def _fault(text: str) -> Exception:
    from .store.layout import StoreError

    return StoreError(text)


@cli.command()
@click.argument("store", type=console.StoreType(), metavar="STORE")
@click.option("--probe", metavar="NAME", help="Which probe's images.  [default: the first]")
@click.option("--rows", type=click.IntRange(min=1, max=50), default=4, help="Pairs in the picture.")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="PNG, PDF or SVG.")
@figure_options
@console.verbose_option
def preview(store: str, probe: str | None, rows: int, out: Path) -> None:
    """Draw some pairs, HQ beside LQ.

    \b
    datagen preview pairs.zarr -o pairs.png
    """
    from ussim.show.figures import save_figure

    from .show.preview import preview_figure
    from .store.loader import open_pairs

    console.check_picture(out)
    pairs = open_pairs(store, probe=probe)
    if len(pairs.probes) > 1:
        pairs = open_pairs(store, probe=pairs.probes[0])
    settings = {"store": pairs.attributes["digest"], "probe": pairs.probes[0], "rows": rows}
    save_figure(preview_figure(pairs, pairs.probes[0], rows), out, settings, **figure_size())
    console.result(str(out))


@cli.command(short_help="Look through a dataset in the browser.")
@click.argument("store", type=console.StoreType(), metavar="STORE")
@server_options
@console.verbose_option
def look(store: str, browser: bool, port: int) -> int:
    """Look through the pairs of a STORE in the browser: filter, HQ | LQ with a divider, facts, speckle by depth.

    Images and rows are read when they are asked for, so that a store of a million pairs opens at once. The page is served
    to this machine alone, at an address that holds a token. ctrl-C ends it (exit code 0).

    \b
    datagen look pairs.zarr
    """
    from ussim.look.server import Server

    from .show.look.browse import Browser, routes

    looked = Browser(store)
    paths, latest = routes(looked)

    def close() -> None:
        latest.close()
        looked.close()

    return serve_page(Server(paths, port), browser, close)


@cli.command(short_help="Write one HTML file that shows a dataset.")
@click.argument("store", type=console.StoreType(), metavar="STORE")
@click.option("--pairs", "n_pairs", type=click.IntRange(min=1, max=2000), default=48, help="In the gallery.")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), default="report.html", help="HTML file.")
@console.verbose_option
def report(store: str, n_pairs: int, out: Path) -> None:
    """Write one HTML file that shows a dataset: pairs, speckle, sources, what was set aside.

    \b
    datagen report pairs.zarr -o report.html
    """
    from .show.report import write_report

    if out.suffix.lower() not in (".html", ".htm"):
        raise click.UsageError(f"{out}: expected a name ending in .html")
    console.check_output(out)
    with console.Progress("report", 0) as progress:

        def on_step(done: int, total: int) -> None:
            progress.total = total
            progress.advance(done - progress.done)

        write_report(store, out, n_pairs, on_step=on_step)
    console.result(f"{out}: {_bytes(out.stat().st_size)}; open it in a browser")


@cli.command(short_help="Write the pairs in the format of other programs.")
@click.argument("store", type=console.StoreType(), metavar="STORE")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["png", "webdataset", "parquet", "nifti", "openh-rf"]),
    required=True,
    help="PNG with tables, tars, Hugging Face's Parquet, .nii.gz in mm, or channel data as zea HDF5.",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="A new folder.")
@click.option("--overwrite", is_flag=True, help="Replace the folder, if an export is in it.")
@click.option("--probe", metavar="NAME", help="Whose images.  [default: all]")
@click.option(
    "--license",
    "licence",
    metavar="NAME",
    help="Under which you pass on files of your own: CC-BY-4.0, CC0-1.0, ...",
)
@click.option("--test-fold", type=click.IntRange(min=0), default=0, metavar="K", help="Fold that is the split `test`.")
@click.option("--polar", is_flag=True, help="Polar images too, of convex and phased probes: no blank corners.")
@click.option(
    "--root", multiple=True, metavar="DIR", help="Of the source, as for build, where openh-rf needs it; may repeat."
)
@click.option("--creator", metavar="NAME", help="Of the dataset, for its Croissant metadata and card.")
@click.option("--url", metavar="URL", help="Where the dataset will be, for its Croissant metadata.")
@console.verbose_option
def export(store: str, kind: str, out: Path, root: tuple[str, ...], **options: Any) -> None:
    """Write the pairs in a form that others read, with a dataset card, a license file and a picture.

    \b
    datagen export pairs.zarr --format parquet --license CC-BY-4.0 -o shared/
    datagen export pairs.zarr --format png -o pictures/
    """
    from .show.export import export as write

    with console.Progress("pairs", 0) as progress:

        def on_pair(done: int, total: int) -> None:
            progress.total = total
            progress.advance(done - progress.done)

        write(store, out, kind, root=root or None, on_pair=on_pair, **options)
    console.result(f"{out}: {progress.done} pairs; README.md says what they are")
