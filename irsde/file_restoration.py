"""Work of `irsde restore` on one file: a picture or cine batch by batch, a volume slice by slice; and its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from numpy.typing import NDArray

from ussim.commands import console
from ussim.errors import DataError

if TYPE_CHECKING:
    from irsde.frames.cine import Parts
    from irsde.frames.source import Source
    from irsde.intervals import Intervals
    from irsde.network import Model
    from irsde.sample import Sampling
    from irsde.stacks import Window

WINDOWS = ("auto", "voi", "percentile")


def parse_regions(words: Sequence[str]) -> Parts:
    """--region: "auto", None for all, or numbers of regions and rectangles (left, top, right, bottom)."""
    if len(words) == 1 and words[0] in ("auto", "all"):
        return "auto" if words[0] == "auto" else None
    parts: list[int | tuple[int, int, int, int]] = []
    for word in words:
        try:
            numbers = [int(number) for number in word.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) == 1 and numbers[0] > 0:
            parts.append(numbers[0])
        elif len(numbers) == 4 and 0 <= numbers[0] < numbers[2] - 1 and 0 <= numbers[1] < numbers[3] - 1:
            parts.append((numbers[0], numbers[1], numbers[2], numbers[3]))
        else:
            raise click.UsageError(
                "--region: expected auto, all, the number of a region of the file, or LEFT,TOP,RIGHT,BOTTOM in pixels, the "
                f"last two excluded, got {word!r}"
            )
    return parts


def parse_window(word: str) -> Window:
    """--window: one of `WINDOWS`, or the two values that become black and white."""
    if word in WINDOWS:
        return word
    try:
        low, high = (float(number) for number in word.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise click.UsageError(f"--window: expected {', '.join(WINDOWS)} or LOW,HIGH, got {word!r}")
    return low, high


@dataclass(frozen=True)
class Request:
    """Wish for a restoration: how pictures are read, and how often and by what they are restored."""

    parts: Parts
    window: Window
    n_samples: int
    seed: int
    sampling: Sampling
    interval: Intervals | None = None


def restore_file(
    models: Sequence[Model],
    path: Path,
    output: Path,
    *,
    slice_index: int | None = None,
    plane: str | None = None,
    parts: Parts = "auto",
    window: Window = "auto",
    keep_identity: bool = False,
    n_samples: int = 1,
    seed: int = 0,
    sampling: Sampling,
    interval: Intervals | None = None,
) -> None:
    """Restore an image, a cine, or all slices of a volume to one file, and variance and bounds to files beside it."""
    from irsde.frames.opening import open_source
    from irsde.stacks import is_dicom

    source = open_source(path)
    if is_dicom(output) and (source is None or source.header is None):
        raise click.UsageError(
            f"{output}: DICOM is written of pictures and cines read from DICOM alone, got {path}; use -o NAME.nii.gz"
        )
    if keep_identity and not is_dicom(output):
        raise click.UsageError(f"--keep-identity is of -o NAME.dcm, got {output}")
    request = Request(parts, window, n_samples, seed, sampling, interval)
    if source is None:
        _restore_volume(models, path, output, slice_index, plane, request)
    elif plane is not None:
        raise DataError(f"{path}: no {plane!r} plane here: a file of pictures has frames (--slice N)")
    else:
        _restore_frames(models, source, output, slice_index, keep_identity, request)


def _restore_frames(
    models: Sequence[Model],
    source: Source,
    output: Path,
    slice_index: int | None,
    keep_identity: bool,
    request: Request,
) -> None:
    from irsde.frames.cine import open_cine
    from irsde.frames.restoring import restore_cine
    from irsde.frames.sinks import open_sink
    from irsde.stacks import is_dicom

    otherwise = ", or restore all of them with -o NAME.npy, NAME.nii.gz" + " or NAME.dcm" * (source.header is not None)
    cine = open_cine(source, slice_index, request.parts, request.window, output.suffix.lower() == ".png", otherwise)
    n, rows, columns = cine.shape
    low, high = cine.grey
    if n > 1:
        console.note(
            f"{source.name}: {n} frames of {rows} x {columns} pixels; 0 and 1 are {low:g} and {high:g} of the file"
        )
    for oddity in cine.notes:
        console.note(f"{source.name}: {oddity}")
    if cine.has_color and not (is_dicom(output) or output.suffix.lower() == ".png"):
        console.note(f"{output}: holds grey alone; DICOM and PNG keep the color")
    if is_dicom(output) and str(source.header.get("BurnedInAnnotation")).upper() != "NO":
        console.note(f"{output}: captions of the picture are kept; a name may be among them (BurnedInAnnotation YES)")
    members = len(models) * request.n_samples
    largest = 0.0
    with console.Progress("restoring", n * members) as progress:
        method = _method(models, request)
        with open_sink(output, cine, members > 1, method, keep_identity, request.interval) as add:
            for part in restore_cine(models, cine, request.n_samples, request.seed, request.sampling, progress.advance):
                add(part)
                if part.variance is not None:
                    largest = max(largest, float(part.variance.max()))
    if members > 1:
        say_deviation(output, largest)


def _restore_volume(
    models: Sequence[Model],
    path: Path,
    output: Path,
    slice_index: int | None,
    plane: str | None,
    request: Request,
) -> None:
    from irsde.sample import restore_stack
    from irsde.stacks import bounds_of, open_stack, write_stack

    otherwise = ", or restore all of them with -o NAME.npy or -o NAME.nii.gz"
    stack = open_stack(path, slice_index, plane, output.suffix.lower() == ".png", otherwise, request.window)
    n, rows, columns = stack.shape
    mask = _mask(request.parts, (rows, columns))
    if n > 1:
        low, high = stack.grey
        console.note(
            f"{path}: {n} {stack.plane} slices of {rows} x {columns} pixels; 0 and 1 are {low:g} and {high:g} of the file"
        )
        for oddity in stack.volume.notes:
            console.note(f"{path}: {oddity}")
    with console.Progress("restoring", n * len(models) * request.n_samples) as progress:
        mean, variance = restore_stack(
            models, stack, request.n_samples, request.seed, request.sampling, mask, progress.advance
        )
    write_stack(output, stack, mean, variance)
    if request.interval is not None:
        for path, bound in zip(bounds_of(output), request.interval.bounds(mean, variance), strict=True):
            write_stack(path, stack, bound, None)
    if variance is not None:
        say_deviation(output, float(variance.max()))


def _mask(parts: Parts, shape: tuple[int, int]) -> NDArray[np.bool_] | str | None:
    """Return the mask of --region in slices of a shape (nz, nx)."""
    if parts is None or isinstance(parts, str):
        return parts
    mask = np.zeros(shape, dtype=bool)
    for part in parts:
        if isinstance(part, int):
            raise click.UsageError("--region N is of a DICOM file that lists its regions; name LEFT,TOP,RIGHT,BOTTOM")
        left, top, right, bottom = part
        if bottom > shape[0] or right > shape[1]:
            raise click.UsageError(f"--region: expected at most {shape[1]} x {shape[0]} pixels, got {right} x {bottom}")
        mask[top:bottom, left:right] = True
    return mask


def say_deviation(path: Path, variance: float) -> None:
    """Note the largest deviation, given the largest variance."""
    console.note(f"{path.name}: largest standard deviation over members {variance**0.5:.3g}")


def _method(models: Sequence[Model], request: Request) -> str:
    """Models, steps and noise in words, for the description of a DICOM file."""
    names = ", ".join(f"{model.config.method} {model.name} step {model.step}" for model in models)
    if not any(model.is_diffusion for model in models):
        return names
    process = next(model.sde for model in models if model.is_diffusion)
    steps, sampler = (
        request.sampling.steps or process.default_steps,
        request.sampling.sampler or process.default_sampler,
    )
    drawn = f", mean of {request.n_samples} samples" if request.n_samples > 1 else ""
    fidelity = f", fidelity {request.sampling.fidelity:g}" if request.sampling.fidelity < 1 else ""
    return f"{names}, {sampler} sampler, {steps} steps{drawn}{fidelity}, seed {request.seed}"
