"""`ussim look`: a page in the browser to look and try. Only click is imported before it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ExitCode
from . import console, grammar
from .options import apply, engine_option

if TYPE_CHECKING:
    from ..look.server import Server
    from ..probes import Probe


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every command that serves a page."""
    options = (
        click.option(
            "--browser/--no-browser", default=True, help="Open the page in the browser, or only print its address."
        ),
        click.option(
            "--port",
            type=click.IntRange(0, 65535),
            default=0,
            metavar="N",
            help="Port to listen on; 0 finds a free one.",
        ),
    )
    return apply(options, command)


def run(server: Server, browser: bool, close: Callable[[], None]) -> int:
    """Serve a page until ctrl-C, which is how it ends: exit code 0."""

    def ready(url: str) -> None:
        console.result(url)
        console.note("on this machine alone; ctrl-C ends it")

    try:
        server.serve(ready, browser)
    except KeyboardInterrupt:
        console.note("ended")
        return ExitCode.DONE
    finally:
        close()
    return ExitCode.DONE


@click.command(cls=grammar.Command, short_help="Look at a B-mode in the browser, and try.")
@click.argument("image", type=click.Path(path_type=Path), required=False)
@click.option(
    "--phantom",
    type=console.PhantomType(),
    metavar="NAME",
    help="To begin with, in place of IMAGE.  [default: cysts]",
)
@click.option(
    "--probe",
    type=console.ProbeType(),
    default="L11-5v",
    metavar="NAME|FILE",
    help="To begin with: a preset (see `ussim probes`) or a TOML file of your own.",
)
@click.option("--slice", "slice_index", type=int, metavar="N", help="Slice of a volume.")
@click.option("--plane", metavar="NAME", help="Plane of a volume: axial, coronal, sagittal.")
@click.option("--size", type=click.IntRange(64, 1024), default=256, metavar="N", help="Pixel rows of the picture.")
@engine_option
@server_options
@console.verbose_option
def look(
    image: Path | None,
    phantom: str | None,
    probe: Probe,
    slice_index: int | None,
    plane: str | None,
    size: int,
    engine: str,
    browser: bool,
    port: int,
) -> int:
    """Look at the B-mode of a phantom or of a grey IMAGE in the browser: probe, waves, depth and more to try.

    The page shows a draft at once and the picture when the hand rests; a click into it shows how a point looks there,
    and how wide. It is served to this machine alone, at an address that holds a token. ctrl-C ends it (exit code 0).

    \b
    ussim look
    ussim look brain.nii.gz --plane axial --slice 90 --probe C5-2v
    """
    if image is not None and phantom is not None:
        raise click.UsageError("expected an IMAGE or --phantom NAME, got both")
    if image is None and (slice_index is not None or plane is not None):
        raise click.UsageError("--slice and --plane go with an IMAGE")
    from ..look.bmode import routes
    from ..look.server import Server

    grey = None
    if image is not None:
        from . import steps

        grey = steps.read_grey(image, slice_index, plane)
    if probe.imaging is None:
        raise click.UsageError(f"{probe.name}: expected a probe with an [imaging] field of view, got one without")

    def make_bench() -> Any:
        from ..look.bench import Bench

        return Bench(grey, "" if image is None else image.name, probe, engine, rows=size)

    initial = {"probe": probe.name, "subject": "image" if image is not None else phantom or "cysts"}
    paths, latest = routes(make_bench, initial)
    return run(Server(paths, port), browser, latest.close)
