"""Options that commands of `ussim` share. Imports nothing but click."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from ..near import did_you_mean
from . import console


def demodulation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the carrier and the pass band of demodulation, and time-gain compensation."""
    gain = click.option(
        "--tgc/--no-tgc", default=False, help="Amplify echoes by the medium's attenuation of the carrier."
    )
    return apply((band_options, gain), command)


def band_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the carrier and the pass band of demodulation."""
    options = (
        click.option(
            "--carrier-mhz",
            type=console.Number(above=0),
            metavar="MHZ",
            help="Carrier that demodulation takes away.  [default: the probe's center frequency]",
        ),
        click.option(
            "--bandwidth-percent",
            type=console.Number(above=0, maximum=200),
            metavar="PERCENT",
            help="Pass band of demodulation, of the carrier; 200 leaves the pulse as it is.  [default: the probe's]",
        ),
    )
    return apply(options, command)


DEFAULT_PROBE = "L11-5v"


def probe_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option of the probe."""
    return click.option(
        "--probe",
        type=console.ProbeType(),
        default=DEFAULT_PROBE,
        metavar="NAME|FILE",
        help="A preset (see `ussim probes`) or a TOML file of your own.",
    )(command)


def waves_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the transmits of an image, which `steps.transmit_sequence` takes."""
    options = (
        click.option(
            "--transmit",
            type=click.Choice(["plane", "diverging", "focused"]),
            help="Kind of waves.  [default: the probe's]",
        ),
        click.option(
            "--angles",
            "--lines",
            "angles",
            type=click.IntRange(min=1),
            metavar="N",
            help="Number of waves, or of scan lines.  [default: the probe's; 64 lines]",
        ),
        focus_options,
        click.option(
            "--max-angle-deg",
            type=console.Number(minimum=0, below=90),
            metavar="DEG",
            help="The waves are steered over ± this.  [default: the probe's]",
        ),
        click.option(
            "--width-deg",
            type=console.Number(above=0, below=180),
            metavar="DEG",
            help="Sector of a diverging wave.  [default: the probe's]",
        ),
    )
    return apply(options, command)


def one_wave_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add one transmit, which `steps.one_transmit` takes."""
    options = (
        click.option(
            "--focus-mm",
            type=console.Number(),
            nargs=2,
            multiple=True,
            metavar="X Z",
            help="Focus there; given twice or more, all at once (multi-line transmission).",
        ),
        click.option(
            "--plane-deg", type=console.Number(above=-90, below=90), metavar="DEG", help="A plane wave at this angle."
        ),
        click.option(
            "--diverging-deg",
            type=console.Number(above=-180, below=180),
            nargs=2,
            metavar="TILT WIDTH",
            help="A circular wave over this sector (flat arrays).",
        ),
        click.option(
            "--source-mm",
            type=console.Number(),
            nargs=2,
            metavar="X Z",
            help="A circular wave from a virtual source behind.",
        ),
    )
    return apply(options, command)


def focus_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the depth of focus and the aperture of a focused scan."""
    options = (
        click.option(
            "--focus-depth-mm",
            type=console.Number(above=0),
            metavar="MM",
            help="Of --transmit focused, from the array along each line.",
        ),
        click.option(
            "--transmit-f-number",
            type=console.Number(minimum=0),
            metavar="F",
            help="Of --transmit focused: depth of focus over aperture; 0 fires all elements.  [default: 2]",
        ),
    )
    return apply(options, command)


def speed_option(help_text: str, default: float | None = None) -> Callable[..., Any]:
    """Give the option of a speed of sound."""
    return click.option(
        "--speed-of-sound", type=console.Number(above=0), default=default, metavar="M/S", help=help_text
    )


attenuation_option = click.option(
    "--attenuation", type=console.Number(minimum=0), default=0.0, metavar="DB/CM/MHZ", help="Of the medium."
)
medium_speed_option = speed_option("Speed of sound of the medium.", 1540.0)
sub_elements_option = click.option(
    "--sub-elements",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Parts that an element is computed as.  [default: as its width needs]",
)


def grid_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the field and the pixels of a picture."""
    options = (
        click.option(
            "--depth-mm",
            type=console.Number(minimum=0),
            nargs=2,
            metavar="LOW HIGH",
            help="Depths to show, from z = 0: of a convex probe the chord through its outermost elements, not the apex."
            "  [default: the probe's field of view]",
        ),
        click.option(
            "--width-mm",
            type=console.Number(above=0),
            metavar="MM",
            help="Lateral extent, centered.  [default: the probe's field of view]",
        ),
        click.option(
            "--size", type=click.IntRange(2, 4096), default=256, metavar="N", help="Pixel rows; pixels are square."
        ),
    )
    return apply(options, command)


def output_option(default: str, movie: bool = False) -> Callable[..., Any]:
    """Give the option of a picture to write, or of a movie."""
    kinds = "Picture (.png, .pdf, .svg) or, of several frames, movie (.gif)" if movie else "Picture (.png, .pdf, .svg)"
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"{kinds}; the numbers go beside it as .npz, or alone into a .mat.  [default: {default}]",
    )


def figure_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the size of a figure on paper, which `figure_size` returns; the command itself is not given it."""

    def keep(context: click.Context, parameter: click.Parameter, value: float | None) -> None:
        context.meta[f"ussim.{parameter.name}"] = value

    options = (
        click.option(
            "--figure-width-cm",
            type=console.Number(minimum=4, maximum=60),
            metavar="CM",
            expose_value=False,
            callback=keep,
            help="Width on paper, text 6 to 8 points there: 8.5 and 17.4 are one and two columns of most journals."
            "  [default: as its images need]",
        ),
        click.option(
            "--dpi",
            type=console.Number(minimum=30, maximum=2400),
            metavar="N",
            expose_value=False,
            callback=keep,
            help="Pixels per inch of a PNG.  [default: 150; 300 with --figure-width-cm]",
        ),
    )
    return apply(options, command)


def figure_size() -> dict[str, float | None]:
    """Return what the options of `figure_options` say, as `save_figure` takes it; nothing where no command runs."""
    context = click.get_current_context(silent=True)
    meta = {} if context is None else context.meta
    return {"width_cm": meta.get("ussim.figure_width_cm"), "dpi": meta.get("ussim.dpi")}


def apply(options: Sequence[Callable[..., Any]], command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, the first one first."""
    for option in reversed(options):
        command = option(command)
    return command


class CombinationType(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases alone
    """A way to combine elements, with parameters as in mv,loading=0.1; the value is what was typed."""

    name = "combination"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        """Check what was typed."""
        from ..beamforming.adaptive import COMBINATIONS, SUM, resolve_combination

        text = str(value)
        try:
            resolve_combination(text)
        except ValueError as error:
            near = did_you_mean(text.partition(",")[0], (SUM, *COMBINATIONS))
            self.fail(f"{error}{near}", parameter, context)
        return text

    def shell_complete(self, context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
        """Return the names that begin as typed."""
        from click.shell_completion import CompletionItem

        from ..beamforming.adaptive import COMBINATIONS, SUM

        return [CompletionItem(name) for name in (SUM, *COMBINATIONS) if name.startswith(incomplete)]


def aperture_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the receive f-number, the window over the aperture, and what is made of its elements."""
    options = (
        f_number_option,
        click.option(
            "--apodization",
            type=click.Choice(["boxcar", "hann", "hamming", "blackman", "tukey"]),
            default="boxcar",
            help="Window over the receive aperture: lower side lobes for a wider main lobe.",
        ),
        click.option(
            "--combine",
            type=CombinationType(),
            default="sum",
            metavar="NAME[,KEY=VALUE...]",
            help="What is made of the elements of an aperture: sum, cf or gcf (coherence factors), mv (minimum variance), "
            "dmas (delay-multiply-and-sum), slsc (spatial coherence, on a linear scale).",
        ),
    )
    return apply(options, command)


bare_option = click.option(
    "--bare",
    is_flag=True,
    help="Write the picture alone too, a pixel for a pixel (NAME_bare.png): what other programs read.",
)
engine_option = click.option(
    "--engine", type=console.EngineType(), default="auto", metavar="NAME", help="auto, cpu, reference, cuda or cuda:N."
)


def dynamic_range_of(default: str) -> Callable[..., Any]:
    """Give the option of the picture's range, None where the command finds it."""
    return click.option(
        "--dynamic-range-db",
        type=console.Number(above=0),
        metavar="DB",
        help=f"Of the picture, from white to black.  [default: {default}]",
    )


dynamic_range_option = click.option(
    "--dynamic-range-db",
    type=console.Number(above=0),
    default=40.0,
    metavar="DB",
    help="Of the picture, from white to black.",
)
f_number_option = click.option(
    "--f-number",
    type=console.Number(minimum=0),
    metavar="F",
    help="Receive f-number; 0 is the full aperture.  [default: from the elements' directivity]",
)
