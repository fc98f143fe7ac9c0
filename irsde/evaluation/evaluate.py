"""One table of methods against images: trained runs, ensembles, classical filters, any torch file; and what it looks like.

    evaluate(models, pairs) ─► Result ─► table.write_report: table.md, table.csv, table-images.png, table-uncertainty.png

A row exists only for what really ran: a filter whose package is missing, or LPIPS without its weights, is listed as not run.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsde.data import GREY_LEVEL, DataError, Subset, left_out_line, without_flat
from irsde.echo_area import echo_area
from irsde.evaluation import metrics
from irsde.evaluation.breast import MASK_SUFFIXES, read_breast, unmasked
from irsde.evaluation.brisque import brisque
from irsde.evaluation.methods import Members, Method, comparison, ensembles, sha256, without_subjects
from irsde.evaluation.results import Image, Result, Row, Uncertainty
from irsde.evaluation.texture import calm_tissue, contour_ratio, drift, gcnr_null, texture_distance
from irsde.stacks import image_seed
from ussim.commands import console
from ussim.volumes.reading import read_image

PIXELS = ("field", "all")
PICTURED = 3  # images shown


def evaluate(
    models: Sequence[Any],
    tests: Sequence[Subset],
    *,
    steps: Sequence[int | None] = (None,),
    sampler: str | None = None,
    samples: int = 1,
    fidelities: Sequence[float] = (1.0,),
    seed: int = 0,
    baselines: bool = True,
    fit: Sequence[Subset] = (),
    torch_models: Sequence[tuple[str, str | Path]] = (),
    trust: bool = False,
    lpips_backbone: str | Path | None = None,
    n_seeds: int = 5,
    pixels: str = "field",
    speckle: bool = False,
    progress: bool = False,
) -> Result:
    """Restore every test image by every method and measure it against its HQ image.

    Parameters
    ----------
    models
        From `irsde.load`. Two or more diffusion models make ensemble rows, beside `n_seeds` seeds of the first alone.
    tests
        Test pairs, one subset a probe.
    steps, sampler, samples
        Step counts of the models that sample (None = their own), their sampler (None, or one that a process does not take:
        its own), and how many samples the "mean of" row averages.
    fidelities
        A row for each, from 0, the mean, to 1, a sample.
    seed
        Of the noise; every image has noise of its own, the same for all methods.
    fit
        Training pairs: filters are tuned on them, and a median with a fitted tone curve joins the table. Pairs of the
        subjects that are tested on are left out of them.
    torch_models
        (name, path) of networks that map an image (1, 1, nz, nx) in [0, 1] to another: ONNX files, folders of runs.
    trust
        `torch_models` may be TorchScript or torch.export files too, which can run code of their own when they are read.
    pixels
        What is measured: "field", the probe's field; or "all", the whole image, as the despeckling paper does.
    speckle
        Restore every draw of speckle of the pairs that have several, and split the error in bias and speckle.
    progress
        Say on standard error how far it is.

    Raises DataError if a model was trained on a subject of the test pairs.
    """
    if pixels not in PIXELS:
        raise ValueError(f"pixels: expected one of {', '.join(PIXELS)}, got {pixels!r}")
    for model in models:
        check_unseen(model, tests)
    result = Result(pixels=pixels)
    tests = _with_contrast(tests, result, progress)
    fit = without_subjects(fit, {s for subset in tests for s in subset.subjects})
    methods = comparison(models, steps, sampler, samples, baselines, fit, torch_models, trust, result, None, fidelities)
    if lpips_backbone is not None and Path(lpips_backbone).is_file():
        result.sources.append(f"LPIPS: {Path(lpips_backbone).name}, SHA-256 {sha256(Path(lpips_backbone))}")
    diffusion = [m for m in models if m.is_diffusion]
    together = ensembles(diffusion, steps[0], sampler, n_seeds) if len(diffusion) > 1 else {}
    total = sum(map(len, tests)) * (len(methods) + len(together))
    with bar(progress, total) as advance:
        for subset in tests:
            _evaluate_subset(subset, methods, together, sampler, seed, lpips_backbone, result, advance, pixels, speckle)
    return result


def evaluate_real(
    models: Sequence[Any],
    folder: str | Path,
    *,
    steps: Sequence[int | None] = (None,),
    sampler: str | None = None,
    fidelities: Sequence[float] = (1.0,),
    seed: int = 0,
    baselines: bool = True,
    torch_models: Sequence[tuple[str, str | Path]] = (),
    trust: bool = False,
    limit: int | None = None,
    patch_size: int = 16,
    mask_suffixes: Sequence[str] = MASK_SUFFIXES,
    result: Result | None = None,
    progress: bool = False,
) -> Result:
    """Metrics without a reference on real images with lesion masks beside them, which `mask_suffixes` tell (`read_breast`).

    CNR and gCNR are of the lesion against five calm background patches beside it (`metrics.calm_patches`), the null of gCNR
    of those patches against each other, ENL, speckle SNR and the contour ratio of those patches, on the grey levels of the
    (log-compressed) images; NaN where a method left them constant. Where the folder holds no mask at all, patches are of the
    whole image, and there is no CNR.
    """
    result = result or Result()
    methods = comparison(models, steps, sampler, 1, baselines, (), torch_models, trust, result, "auto", fidelities)
    methods = [method for method in methods if not method.reads_hq]
    group = Path(folder).name
    rows = [Row(m.name, group, m.steps, m.note) for m in methods]
    cases = _real_cases(folder, mask_suffixes, limit, result)
    with bar(progress, len(cases) * len(methods)) as advance:
        for i, (name, image, lesion) in enumerate(cases):
            try:
                patches = metrics.calm_patches(image, lesion, patch_size)
            except ValueError as error:
                result.not_run.append(f"{name}: {error}")
                continue
            background, echoes = patches.mask, echo_area(image).mask
            result.patches.setdefault(group, Counter()).update({"considered": patches.considered} | patches.refused)
            shown = []
            for row, method in zip(rows, methods, strict=True):
                restored = run_timed(row, method, image, image_seed(seed, i), None)
                values = {} if lesion is None else {
                    "cnr": metrics.cnr(restored, lesion, background),
                    "gcnr": metrics.gcnr(restored, lesion, background),
                }  # fmt: skip
                values |= {
                    "gcnr_null": gcnr_null(restored, patches),
                    **of_speckle(restored, background),
                    "contours": contour_ratio(restored, background),
                    "drift": drift(restored, image, echoes),
                    "brisque": brisque(restored),
                }
                add_values(row, values)
                shown.append((method.name, restored))
                advance()
            show(result, group, shown)
    result.rows += rows
    return result


def _real_cases(
    folder: str | Path, mask_suffixes: Sequence[str], limit: int | None, result: Result
) -> list[tuple[str, Image, NDArray[np.bool_] | None]]:
    """Name, image and lesion of each case; of a folder without masks the images that can be read, others are named."""
    plain = unmasked(folder) if tuple(mask_suffixes) == MASK_SUFFIXES else []
    if not plain:
        return list(islice(read_breast(folder, mask_suffixes), limit))
    cases: list[tuple[str, Image, NDArray[np.bool_] | None]] = []
    for path in plain[:limit]:
        try:
            cases.append((path.relative_to(folder).as_posix(), read_image(path), None))
        except DataError as error:
            result.not_run.append(str(error))
    if not cases:
        raise DataError(f"{folder}: no image that can be read: {result.not_run[-1]}")
    return cases


def of_speckle(image: Image, region: NDArray[np.bool_]) -> dict[str, float]:
    """ENL and speckle SNR; NaN below the rounding of 8 bits, where nothing is left whose ratio could be taken."""
    if np.std(image[region]) < GREY_LEVEL / math.sqrt(12):
        return {"enl": math.nan, "speckle_snr_db": math.nan}
    return {
        "enl": metrics.enl(image, region),
        "speckle_snr_db": metrics.speckle_snr(image, region, decibels=True),
    }


def check_unseen(model: Any, tests: Sequence[Subset]) -> None:
    """Raise DataError if the model was trained on a subject of the test pairs."""
    seen = set((model.details or {}).get("training_subjects", ()))
    known = sorted(seen & {s for subset in tests for s in subset.subjects})
    if known:
        more = f" and {len(known) - 1} more" if len(known) > 1 else ""
        raise DataError(
            f"{model.name}: was trained on subject {known[0]}{more} of the test pairs; test on another store, or on the "
            "fold that was held out (--fold)"
        )


def _with_contrast(tests: Sequence[Subset], result: Result, said: bool) -> list[Subset]:
    """Return the pairs whose LQ image varies.

    The others are named in the result and, if they are to be `said`, to the user.
    """
    kept, names = [], []
    for subset in tests:
        varied, flat = without_flat(subset, GREY_LEVEL)
        kept.append(varied)
        names += flat
    if names:
        result.left_out.append(left_out_line(names, GREY_LEVEL))
        if said:
            console.note(result.left_out[-1])
    if not any(map(len, kept)):
        raise DataError("no pairs to test on" + (f": {result.left_out[-1]}" if names else ""))
    return [subset for subset in kept if len(subset)]


# --- the loop --------------------------------------------------------------------------------------------------------


def _evaluate_subset(
    subset: Subset,
    methods: Sequence[Method],
    ensembles: Mapping[str, Members],
    sampler: str | None,
    seed: int,
    backbone: str | Path | None,
    result: Result,
    advance: Callable[[], None],
    pixels: str,
    speckle: bool,
) -> None:
    rows = [Row(m.name, subset.probe, m.steps, m.note) for m in methods]
    rows += [Row(name, subset.probe, members.steps, members.sampler) for name, members in ensembles.items()]
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in ensembles}
    for i in range(len(subset)):
        hq, lq = subset[i]
        noise_seed = image_seed(seed, subset.indices[i])
        mask = subset.mask(i)
        field = None if mask.all() else mask
        inside = field if pixels == "field" else None
        shown = []
        for row, method in zip(rows[: len(methods)], methods, strict=True):
            restored = run_timed(row, method, lq, noise_seed, hq, field)
            add_values(row, _compare(restored, hq, inside, backbone, result))
            if speckle and n_draws(subset) > 1:
                drawn = [restored]
                for k, other in enumerate(subset.pairs.draws(subset.indices[i])[1:], start=1):
                    drawn.append(run_method(method, other, image_seed(seed, subset.indices[i], k), hq, field))
                add_values(row, split_error(drawn, hq, inside))
            title = f"{method.name}, {method.steps} {method.note}" if method.steps else method.name
            shown.append((title, restored))
            advance()
        for row, (name, members) in zip(rows[len(methods) :], ensembles.items(), strict=True):
            started = time.perf_counter()
            mean, variance = members.run(lq, noise_seed, field)
            add_values(row, {"seconds": time.perf_counter() - started, **_compare(mean, hq, inside, backbone, result)})
            region = np.s_[:, :] if inside is None else inside
            points[name].append((float(variance[region].mean()), float(((mean - hq)[region] ** 2).mean())))
            shown += [(name, mean), (f"{name}: deviation", np.sqrt(variance))]
            advance()
        show(result, subset.probe, [*shown, ("HQ", hq)])
    result.rows += rows
    for name, pairs in points.items():
        variance, error = np.array(pairs).T
        result.uncertainty.append(Uncertainty(name, subset.probe, variance, error))


@contextmanager
def bar(shown: bool, total: int) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each restoration."""
    if not shown:
        yield lambda: None
        return
    with console.Progress("restoring", total) as progress:
        yield progress.advance


def run_timed(
    row: Row, method: Method, lq: Image, seed: int, hq: Image | None, field: NDArray[np.bool_] | None = None
) -> Image:
    """Return what a method makes of an LQ image, and add to the row how long it took."""
    started = time.perf_counter()
    restored = run_method(method, lq, seed, hq, field)
    add_values(row, {"seconds": time.perf_counter() - started})
    return restored


def run_method(
    method: Method, lq: Image, seed: int, hq: Image | None = None, field: NDArray[np.bool_] | None = None
) -> Image:
    """Return what a method makes of an LQ image, given what it takes."""
    given = {"field": field} if method.has_field and field is not None else {}
    restored = method.run(lq, *([seed] if method.draws else []), *([hq] if method.reads_hq else []), **given)
    return np.asarray(restored, np.float32)


def n_draws(subset: Subset) -> int:
    """Return how many draws of speckle the pairs of a subset have."""
    return int(getattr(subset.pairs, "n_draws", 1))


def split_error(drawn: Sequence[Image], hq: Image, mask: NDArray[np.bool_] | None = None) -> dict[str, float]:
    """Return the error of restorations of several draws of one image's speckle, in two parts.

    Their squares add up to the mean squared error of one restoration: `bias` is what the mean over all draws would miss,
    `speckle` how far one draw is from it; unbiased for few draws, root mean squares over the pixels, grey levels of 255.
    """
    stack = np.stack(drawn).astype(np.float64)[:, np.ones(hq.shape, bool) if mask is None else mask]
    truth = np.asarray(hq, np.float64)[np.ones(hq.shape, bool) if mask is None else mask]
    variance = float(stack.var(axis=0, ddof=1).mean())
    missed = float(((stack.mean(axis=0) - truth) ** 2).mean()) - variance / len(stack)
    return {"bias": 255 * math.sqrt(max(missed, 0.0)), "speckle": 255 * math.sqrt(variance)}


def _compare(
    image: Image, hq: Image, mask: NDArray[np.bool_] | None, backbone: str | Path | None, result: Result
) -> dict[str, float]:
    # A gain of zero fits any image to a constant one without error.
    varies = np.std(hq if mask is None else hq[mask], dtype=np.float64) >= GREY_LEVEL
    values = {
        "psnr": metrics.psnr(image, hq, mask=mask),
        "ssim": metrics.ssim(image, hq, mask=mask),
        "aligned_psnr": metrics.aligned_psnr(image, hq, mask=mask) if varies else math.nan,
        "texture_db": texture_distance(image, hq, mask) if min(hq.shape) >= 16 else math.nan,
        "contours": contour_ratio(image, calm_tissue(hq, mask)),
    }
    try:
        values["lpips"] = metrics.lpips(image, hq, backbone)
    except metrics.MetricUnavailable as reason:
        if backbone is not None:
            raise DataError(str(reason)) from reason
        _once(result.not_run, str(reason))
    return values


def add_values(row: Row, values: dict[str, float]) -> None:
    """Append the values of one image to a row."""
    for name, value in values.items():
        row.values.setdefault(name, []).append(value)


def show(result: Result, group: str, images: list[tuple[str, Image]]) -> None:
    """Keep what the methods made of an image, of the first few of a group."""
    kept = result.pictures.setdefault(group, [])
    if len(kept) < PICTURED:
        kept.append(images)


def _once(lines: list[str], line: str) -> None:
    if line not in lines:
        lines.append(line)
