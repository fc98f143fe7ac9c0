"""`ussim demo`: from nothing to a small dataset and its pictures, by the commands that a user would type."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import click

from ..errors import ExitCode
from . import console, grammar

PROBE = "C5-2v"


@click.command(cls=grammar.Command, short_help="Make a small dataset and its pictures, from nothing.")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default="demo")
@click.option("--limit", type=click.IntRange(1), default=12, metavar="N", help="Samples of the dataset.")
@console.verbose_option
def demo(folder: Path, limit: int) -> int:
    """Make a small dataset and its pictures in FOLDER, from MRI that came with the installed packages; in minutes.

    Each command is shown before it runs, to be typed again with other options.

    \b
    ussim demo
    """
    store, pairs, picture = folder / "pairs.zarr", folder / "pairs.png", folder / "slice.png"
    commands = (
        ("datagen", "build", "--source", "demo", "--probe", PROBE, "--limit", limit, "--out", store, "--overwrite"),
        ("datagen", "preview", store, "-o", pairs),
        ("ussim", "render", _volume(), "--plane", "axial", "--slice", 14, "--probe", PROBE, "-o", picture),
    )
    folder.mkdir(parents=True, exist_ok=True)
    for words in commands:
        program, *arguments = map(str, words)
        console.note(f"$ {shlex.join([program, *arguments])}")
        # A process each: this package imports no dataset builder, and the scripts may not be on the path.
        code = subprocess.run([sys.executable, "-m", program, *arguments]).returncode
        if code not in (ExitCode.DONE, ExitCode.PARTIAL):
            return code
    console.result(f"The dataset is {store}. Look at {pairs} (HQ | LQ) and {picture} (one B-mode).")
    return ExitCode.DONE


def _volume() -> Path:
    import nibabel

    return Path(nibabel.__path__[0]) / "tests" / "data" / "example4d.nii.gz"
