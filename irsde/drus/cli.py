"""`irsde drus` and `irsde drus-train`: options in, one function called, a table printed."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ussim.commands import console, grammar
from ussim.commands.options import figure_options, figure_size

if TYPE_CHECKING:
    from ussim.acquisition import Acquisition
    from ussim.types import ImageGrid

    from .conditions import Fact
    from .imaging import Case

OPERATORS = ("kronecker", "patchwise", "dense")
SAMPLERS = ("ddrm", "daps")
LOCAL, PATH = "local", click.Path(path_type=Path)
ESTIMATE = "estimate"


class Attenuation(click.ParamType):
    """dB/cm/MHz of at least 0, or "estimate"."""

    name = f"number|{ESTIMATE}"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Turn what was typed into the value."""
        if value == ESTIMATE:
            return value
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            self.fail(f'expected dB/cm/MHz of at least 0, or "{ESTIMATE}", got {value}', parameter, context)
        return number


class DrusCommand(grammar.Command):
    """The command whose --depth-mm was once one number, the middle of the field; it still may be."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        """Parse the command line."""
        for i, word in enumerate(arguments):
            values = arguments[i + 1 : i + 3]
            if word == "--depth-mm" and values and not all(map(_is_number, [*values, ""][:2])):
                arguments = [*arguments[:i], "--center-depth-mm", *arguments[i + 1 :]]
        return super().parse_args(context, arguments)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


@click.command(
    "drus",
    cls=DrusCommand,
    loads="PyTorch",
    context_settings=console.SETTINGS,
    short_help="Image one transmit by diffusion.",
)
@click.argument("recording", type=PATH, required=False)
@grammar.section("Recording or phantom")
@click.option("--phantom", type=click.Choice(["occlusion", "scatterers"]), help="Simulate this test phantom.")
@click.option("--picmus", type=PATH, help="A PICMUS data set (HDF5), RF or IQ.")
@click.option("--picmus-phantom", type=PATH, help="Its phantom file: where the scores are read.")
@click.option(
    "--noise",
    type=console.Number(minimum=0),
    default=0.3,
    metavar="RATIO",
    help="Channel noise of a phantom, over the rms of the RF.",
)
@click.option(
    "--transmits", type=click.IntRange(1), default=31, help="Plane waves of the DAS with many (odd for a phantom)."
)
@grammar.section("Diffusion")
@click.option(
    "--prior",
    metavar="DIR",
    help='A folder of `irsde drus-train` or diffusers, or "local" (no network).  [default: the shipped one, `irsde models`]',
)
@click.option(
    "--sampler",
    type=click.Choice(SAMPLERS),
    default="ddrm",
    help="ddrm: in the singular basis of BH, --operator. daps: on the channel data, by the simulator's own operator, an "
    "exact posterior; 3 to 7 times as long.",
)
@click.option(
    "--operator", "kind", type=click.Choice(OPERATORS), default="kronecker", help="How --sampler ddrm factors BH."
)
@click.option(
    "--samples",
    type=click.IntRange(2),
    default=20,
    show_default=True,
    help="Posterior samples C; the paper's Table I: 20.",
)
@click.option(
    "--chains",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Chains averaged to a sample; a network of as many channels couples them (the authors': 3).",
)
@click.option(
    "--steps", type=click.IntRange(1, 1000), help="Evaluations of the prior per sample.  [default: ddrm 50, daps 20]"
)
@click.option(
    "--batch-size", type=click.IntRange(1), help="Samples through the prior at once (memory).  [default: all]"
)
@click.option(
    "--beta",
    type=console.Number(above=0),
    default=0.5,
    metavar="EXPONENT",
    help="Exponent of the variance image: var^(1 / (2 beta)).",
)
@click.option(
    "--noise-level",
    type=console.Number(minimum=0),
    metavar="RATIO",
    help="ddrm: error of By over its rms for white tissue; daps: noise of the channel data over their rms.  "
    "[default: estimated]",
)
@click.option(
    "--deno-noise-level",
    type=console.Number(above=0),
    metavar="RATIO",
    help="Of DENO, over the brightness of By.  [default: the authors' for a PICMUS set by its name, else estimated]",
)
@grammar.section("Physics of the recording")
@click.option(
    "--attenuation",
    type=Attenuation(),
    metavar="DB/CM/MHZ|estimate",
    help='Of the medium; "estimate": from how the echoes fall with depth.  [default: the file\'s, else estimated; 0 of a '
    "phantom]",
)
@click.option(
    "--tgc-db",
    type=console.Number(minimum=-120, maximum=120),
    default=0.0,
    show_default=True,
    help="Time gain that the recording has had, dB from its first sample to its last (linear in dB over time): taken out.",
)
@click.option(
    "--time-zero-us",
    type=console.Number(),
    help="Time of a recording's first sample, µs, on the clock of the firing times.  [default: the file's, else 0]",
)
@click.option(
    "--lens-us",
    type=console.Number(minimum=0),
    default=0.0,
    show_default=True,
    help="Time that sound takes through the probe's lens, one way, µs: a recording's echoes are late by twice that.",
)
@grammar.section("Image")
@click.option(
    "--f-number",
    type=console.Number(above=0),
    default=1.4,
    show_default=True,
    metavar="F",
    help="Receive aperture of By (DENO, DRUS), Tukey(0.25).",
)
@click.option(
    "--das-f-number",
    type=console.Number(above=0),
    default=1.75,
    show_default=True,
    metavar="F",
    help="Receive aperture of the DAS images, Tukey(0.25).",
)
@click.option(
    "--depth-mm",
    type=console.Number(minimum=0),
    nargs=2,
    metavar="LOW HIGH",
    help="Depths to image.  [default: 36 mm about the middle, or what was recorded]",
)
@click.option(
    "--width-mm", type=console.Number(above=0), help="Lateral extent, centered; goes with --depth-mm.  [default: 36]"
)
@click.option(
    "--field-mm",
    type=console.Number(above=0),
    nargs=2,
    metavar="WIDTH DEPTH",
    help="Size of the field about its middle, in place of --depth-mm.  [default: 36 36, or as deep as was recorded]",
)
@click.option(
    "--pixels",
    type=click.IntRange(16),
    nargs=2,
    metavar="ROWS COLUMNS",
    help="Of the field, in place of its size.  [default: the carrier's]",
)
@click.option(
    "--center-depth-mm",
    type=console.Number(above=0),
    help="Depth of the field's middle, with --field-mm or --pixels.  [default: 28, or the middle of what was recorded]",
)
@click.option(
    "--gcnr-bins", type=click.IntRange(2), default=64, show_default=True, help="Of the histograms that gCNR compares."
)
@grammar.section("Computation")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the noise.")
@click.option("--device", default="auto", help="Of torch: auto, cpu, cuda, cuda:N.")
@click.option("--engine", type=console.EngineType(), default="auto", help="Of ussim, for a phantom and for H.")
@grammar.section("Output")
@click.option(
    "-o", "--output", type=PATH, required=True, help="Picture; scores and images go beside it as .json and .npz."
)
@figure_options
@console.verbose_option
def drus(
    recording: Path | None,
    phantom: str | None,
    picmus: Path | None,
    picmus_phantom: Path | None,
    output: Path,
    prior: str | None,
    **options: Any,
) -> None:
    """Image one transmit by diffusion: DAS, DENO, DRUSmean, DRUSvar and despeckled DRUSmean side by side at 60 dB.

    \b
    irsde drus --phantom occlusion --pixels 128 64 -o drus.png
    irsde drus channel_data.npz --prior priors/a -o drus.png
    irsde drus --picmus contrast_speckle_expe_dataset_rf.hdf5 --picmus-phantom ..._phantom.hdf5 -o drus.png
    """
    if sum(value is not None for value in (recording, phantom, picmus)) != 1:
        raise click.UsageError("expected one of: a recording, --phantom NAME, --picmus FILE")
    if picmus_phantom is not None and picmus is None:
        raise click.UsageError("--picmus-phantom goes with --picmus")
    _settle_depths(options)
    if options["pixels"] and options["field_mm"]:
        raise click.UsageError(
            "expected one of --field-mm and --pixels: the step between pixels is that of the carrier"
        )
    if phantom is not None and (options["time_zero_us"] is not None or options["lens_us"] or options["tgc_db"]):
        raise click.UsageError(
            "--time-zero-us, --lens-us and --tgc-db describe a recording; a phantom is simulated without"
        )
    if phantom is not None and options["attenuation"] == ESTIMATE:
        raise click.UsageError("--attenuation: a phantom is simulated with dB/cm/MHz that you say")
    inputs = [path for path in (recording, picmus, picmus_phantom) if path is not None]
    console.check_picture(output, *inputs, beside=".json", others=[output.with_suffix(".npz")])
    from ussim.io.atomic import replacing
    from ussim.show.figures import save_figure
    from ussim.show.printing import PAGE_CM

    from . import imaging

    options["device"] = _check_device(options["device"])
    prior = prior or _shipped_prior()
    denoiser = _load_prior(prior, options["device"])
    sampler = _sampler(options)
    case, facts = _load_case(recording, phantom, picmus, picmus_phantom, options)
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
            denoise_level=options["deno_noise_level"],
            f_number=options["f_number"],
            das_f_number=options["das_f_number"],
            chains=options["chains"],
            batch_size=options["batch_size"],
            device=options["device"],
            progress=stages.report,
            sampler=sampler,
            engine=options["engine"],
        )
    images = dict(result.images)
    settings = {key: options[key] for key in ("seed", "steps", "f_number")}
    analytic = imaging.with_analytic_prior(case, result, **settings)
    scores = imaging.score(case, {**images, **analytic}, options["gcnr_bins"])
    figure = imaging.comparison_figure(images, case.grid, case.name)
    size = figure_size()
    width_cm = PAGE_CM if size["width_cm"] is None else size["width_cm"]
    save_figure(figure, output, settings | {"case": case.name, "prior": str(prior)}, width_cm, size["dpi"])
    record = {
        "case": case.name,
        "prior": str(prior),
        "sampler": sampler,
        "operator": "ussim.imaging_operator" if result.operator is None else options["kind"],
        "operator_relative_residual": None if result.operator is None else result.operator.relative_residual,
        "noise_level": result.noise_level,
        "deno_noise_level": result.denoise_level,
        "physics": {fact.name: fact.to_dict() for fact in facts},
        "noise_autocorrelation": dict(
            zip(("axial", "lateral"), (c.tolist() for c in result.noise_correlation), strict=True)
        ),
        **{key: options[key] for key in ("samples", "chains", "steps", "beta", "seed", "noise", "gcnr_bins")},
        "scores": scores,
    }
    _write_images(output.with_suffix(".npz"), result.images, case.grid, record)
    with replacing(output.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(_finite(record), indent=2) + "\n", encoding="utf-8")
    table = imaging.score_table(scores)
    if table:
        console.result(table)
    for objects in imaging.unscored(scores):
        console.warn(f"{objects} not scored: outside the field, or not to be measured. --depth-mm, --width-mm move it")
    if analytic:
        console.note("true-map prior: N(0, p²) with the phantom's own p, a bound and not a method")
    how = f"{sampler}, the simulator's operator"
    if result.operator is not None:
        how = f"{options['kind']} operator, residual {100 * result.operator.relative_residual:.0f} %"
    console.note(f"{output}: {how}, noise level {result.noise_level:.3f} (DENO {result.denoise_level:.3f})")


@click.command(
    "drus-train",
    cls=grammar.Command,
    loads="PyTorch",
    context_settings=console.SETTINGS,
    short_help="Train the prior of DRUS.",
)
@grammar.section("Training")
@click.option("-o", "--out", type=PATH, required=True, help="Folder of the prior.")
@click.option("--iterations", type=click.IntRange(1), default=4000, help="About half a second each on two cores.")
@click.option("--batch-size", type=click.IntRange(1), default=8, help="Maps per step.")
@click.option("--size", type=click.IntRange(16), default=64, help="Pixels a side of the training maps.")
@click.option("--channels", default="32,64,64,128", metavar="N,N,...", help="Of the network's levels, finest first.")
@click.option("--learning-rate", type=console.Number(above=0), default=6e-4, metavar="RATE", help="Of Adam.")
@click.option(
    "--mri",
    type=PATH,
    multiple=True,
    help="MRI slices to learn from (.npy, .dcm, .nii); may repeat.  [default: those of pydicom]",
)
@click.option(
    "--data",
    type=click.Choice(("speckle", "mixture")),
    default="speckle",
    help="speckle under random shapes, layers and MRI; or that, phantoms and sparse points together (docs/drus.md).",
)
@click.option(
    "--variance/--no-variance", default=False, help="Also learn how sure it is: what --sampler daps resolves by."
)
@click.option("--init", default="", metavar="DIR", help="Begin with the weights of this prior, of the same network.")
@click.option("--groups", type=click.IntRange(1), help="Of the normalizations.  [default: 16, or the finest channels]")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of weights, maps and noise.")
@click.option("--device", default="auto", help="Of torch: auto, cpu, cuda, cuda:N.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--overwrite", is_flag=True, help="Delete the run in --out and begin again.")
@console.verbose_option
def drus_train(
    out: Path,
    iterations: int,
    channels: str,
    groups: int | None,
    mri: tuple[Path, ...],
    device: str,
    resume: bool,
    overwrite: bool,
    **options: Any,
) -> None:
    """Train the DDPM prior of DRUS on white noise under random echogenicity maps; the test phantoms are not among them.

    \b
    irsde drus-train --out priors/a
    irsde drus-train --out priors/b --data mixture --variance
    """
    try:
        levels = tuple(int(c) for c in channels.split(","))
    except ValueError:
        raise click.UsageError(f"--channels: expected whole numbers with commas between, got {channels!r}") from None
    multiple = 2 ** (len(levels) - 1)
    groups = groups or min(levels[0], 16)
    if any(c < 1 or c % groups for c in levels) or options["size"] % multiple:
        raise click.UsageError(
            f"expected --channels divisible by {groups} and --size divisible by {multiple}, "
            f"got {channels} and {options['size']}"
        )
    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite exclude each other: go on with the run, or begin it again")
    device = _check_device(device)
    from . import train

    config = train.PriorConfig(
        iterations=iterations,
        channels=levels,
        groups=groups,
        slices=tuple(str(path) for path in mri),
        **options,
    )
    if overwrite:
        from irsde.run_folder import start_again

        start_again(out, mri, console.note)
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


def _write_images(path: Path, images: dict[str, Any], grid: ImageGrid, record: dict[str, Any]) -> None:
    """Write each image (nz, nx) in linear amplitude, the pixels' places in m, and how they came about."""
    import numpy as np

    from ussim.io.atomic import replacing

    arrays = {re.sub(r"\W+", "_", name).strip("_").lower(): np.asarray(image) for name, image in images.items()}
    settings = json.dumps(_finite(record) | {"images": dict(zip(arrays, images, strict=True))})
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays, x=grid.x, z=grid.z, settings=np.array(settings))  # type: ignore[arg-type]


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


def _load_case(
    recording: Path | None,
    phantom: str | None,
    picmus: Path | None,
    picmus_phantom: Path | None,
    options: dict[str, Any],
) -> tuple[Case, tuple[Fact, ...]]:
    """Return what to image, and the physics that it rests on; which is printed."""
    from . import conditions, imaging, recordings

    if phantom is not None:
        case = _phantom_case(phantom, options)
        attenuation = case.rf.acquisition.medium.attenuation_db_cm_mhz
        source = "default" if options["attenuation"] is None else "option"
        medium = conditions.Fact("attenuation", attenuation, conditions.ATTENUATION_UNIT, source, "as simulated")
        return case, _report(case, (medium,), (), options)
    asked = conditions.Asked(
        attenuation_db_cm_mhz=None if options["attenuation"] == ESTIMATE else options["attenuation"],
        estimate=options["attenuation"] == ESTIMATE,
        tgc_db=options["tgc_db"],
        time_zero=None if options["time_zero_us"] is None else options["time_zero_us"] * 1e-6,
        lens_delay=options["lens_us"] * 1e-6,
    )
    file = picmus or recording
    assert file is not None  # one of the three is given
    targets = recordings.read_picmus_phantom(picmus_phantom) if picmus_phantom is not None else None
    if picmus is not None:
        found = recordings.open_picmus(picmus, max_angles=options["transmits"])
    else:
        found = recordings.open_recording(file)
    clocked = conditions.clocked(found, asked)
    depth = None if options["center_depth_mm"] is None else options["center_depth_mm"] * 1e-3
    shape = _asked_shape(clocked.rf.acquisition, options) or imaging.default_shape(clocked.rf, depth)
    case = imaging.recording_case(file.stem, clocked.rf, targets, shape, depth)
    outside = imaging.unrecorded(clocked.rf, case.grid)
    if outside:
        console.warn(f"{outside}: --depth-mm and --width-mm move the field, --time-zero-us the clock")
    with console.working("attenuation of the medium"):
        settled = conditions.attenuated(clocked.rf, case.grid, found.stated, asked, options["f_number"])
    for warning in (*clocked.warnings, *settled.warnings):
        console.warn(warning)
    case = replace(case, rf=settled.rf)
    return case, _report(case, (*settled.facts, *clocked.facts), found.assumed, options)


def _phantom_case(phantom: str, options: dict[str, Any]) -> Case:
    from ussim.acquisition import Acquisition
    from ussim.probes import load_probe
    from ussim.transmits import PlaneWaves

    from . import imaging

    probe = load_probe(imaging.PHANTOM_PROBE)
    acquisition = Acquisition(probe, PlaneWaves(0.0))
    place = {} if options["center_depth_mm"] is None else {"depth": options["center_depth_mm"] * 1e-3}
    shape = _asked_shape(acquisition, options) or imaging.phantom_shape(acquisition, *place.values())
    with console.working(f"simulating the {phantom} phantom"):
        return imaging.phantom_case(
            phantom,
            shape=shape,
            noise=options["noise"],
            n_transmits=options["transmits"],
            seed=options["seed"],
            engine=options["engine"],
            attenuation_db_cm_mhz=options["attenuation"] or 0.0,
            **place,
        )


def _settle_depths(options: dict[str, Any]) -> None:
    """Put --depth-mm and --width-mm as the size of the field and the depth of its middle."""
    depths, width = options.pop("depth_mm"), options.pop("width_mm")
    if depths is None:
        if width is not None:
            raise click.UsageError("--width-mm goes with --depth-mm LOW HIGH")
        return
    low, high = depths
    if not low < high:
        raise click.UsageError(f"--depth-mm: expected LOW below HIGH, got {low:g} {high:g}")
    others = ("field_mm", "pixels", "center_depth_mm")
    given = [f"--{name.replace('_', '-')}" for name in others if options[name] is not None]
    if given:
        raise click.UsageError(f"expected one of --depth-mm and {given[0]}, got both")
    options["field_mm"] = (36.0 if width is None else width, high - low)
    options["center_depth_mm"] = (low + high) / 2


def _asked_shape(acquisition: Acquisition, options: dict[str, Any]) -> tuple[int, int] | None:
    """Pixels as asked for by count or by the field's size; None: neither."""
    from . import imaging

    if options["field_mm"] is None:
        return options["pixels"]
    width, depth = (1e-3 * size for size in options["field_mm"])
    shape = imaging.field_shape(acquisition, width, depth)
    if min(shape) < imaging.FEWEST_PIXELS:
        raise click.UsageError(
            f"--field-mm: expected at least {imaging.FEWEST_PIXELS} pixels a side, got {1e3 * width:g} x {1e3 * depth:g} "
            f"mm, {shape[1]} x {shape[0]} pixels"
        )
    return shape


def _report(case: Case, facts: tuple[Fact, ...], assumed: tuple[str, ...], options: dict[str, Any]) -> tuple[Fact, ...]:
    """Print what the images rest on, and return it."""
    from . import conditions

    grid = case.grid
    width, depth = (1e3 * (axis[-1] - axis[0]) for axis in (grid.x, grid.z))
    about = f"{grid.shape[0]} x {grid.shape[1]} pixels, {1e3 * grid.z[0]:.1f} to {1e3 * grid.z[-1]:.1f} mm deep"
    size = "option" if options["field_mm"] or options["pixels"] else "default"
    facts = (
        *facts,
        _of_option("f-number of By", "f_number", options),
        _of_option("f-number of DAS", "das_f_number", options),
        conditions.Fact("field", f"{width:.1f} x {depth:.1f}", "mm", size, f"{about}: --depth-mm, --width-mm"),
    )
    console.note(f"physics of {case.name}:\n{conditions.in_lines(facts, assumed)}")
    return facts


def _of_option(name: str, key: str, options: dict[str, Any]) -> Fact:
    from . import conditions

    given = click.get_current_context().get_parameter_source(key) is not click.core.ParameterSource.DEFAULT
    option = f"--{key.replace('_', '-')}"
    return conditions.Fact(name, options[key], "", "option" if given else "default", f"Tukey(0.25): {option}")


def _shipped_prior() -> str:
    """Return the name of the prior that is used where none is named; the one without a network where none is shipped."""
    from irsde import models

    return models.PRIOR if models.PRIOR in models.names() else LOCAL


def _sampler(options: dict[str, Any]) -> str:
    """Return the sampler asked for; refuse the options that it has not."""
    source = click.get_current_context().get_parameter_source("kind")
    of_ddrm = [f"--{name}" for name, given in (
        ("chains", options["chains"] > 1), ("operator", source is not click.core.ParameterSource.DEFAULT)
    ) if given]  # fmt: skip
    if options["sampler"] == "daps" and of_ddrm:
        raise click.UsageError(f"{' and '.join(of_ddrm)}: of --sampler ddrm, got daps")
    return str(options["sampler"])


def _load_prior(prior: str, device: str) -> Any:
    from . import priors

    if prior == LOCAL:
        console.note('prior "local": no network, echogenicity from local averages. Train one with `irsde drus-train`')
        return priors.LocalVariancePrior()
    return priors.load_prior(prior, device)


def _check_device(device: str) -> str:
    """Return the device that "auto" or a name is; one line instead of a traceback where torch has no such device."""
    import torch

    from irsde.network import pick_device
    from ussim.errors import EngineError

    device = str(pick_device(device))
    try:
        torch.empty(1, device=device)
        return device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise EngineError(f'device "{device}": not there ({reason}). Use --device cpu') from None


def _finite(value: Any) -> Any:
    """JSON has no NaN: None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and value != value else value
