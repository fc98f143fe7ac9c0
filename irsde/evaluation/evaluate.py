"""One table of methods against images: trained runs, ensembles, classical filters, any torch file; and what it looks like.

    evaluate(models, pairs) ─► Result ─► write_report: table.md, table.csv, table-images.png, table-uncertainty.png

A row exists only for what really ran: a filter whose package is missing, or LPIPS without its weights, is listed as not run.
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsde.data import GREY_LEVEL, DataError, Subset, left_out_line, without_flat
from irsde.echo_area import echo_area
from irsde.evaluation import metrics
from irsde.evaluation.baselines import BASELINES, ToneCurve, fit_tone_curve, tune
from irsde.evaluation.breast import MASK_SUFFIXES, read_breast
from irsde.evaluation.brisque import brisque
from irsde.stacks import image_seed
from ussim.commands import console
from ussim.io.atomic import replacing

WITH_REFERENCE = ("psnr", "ssim", "aligned_psnr", "lpips")
WITHOUT_REFERENCE = ("cnr", "gcnr", "enl", "speckle_snr_db", "brisque")
HEADERS = {
    "psnr": "PSNR dB", "ssim": "SSIM", "aligned_psnr": "aligned PSNR dB", "lpips": "LPIPS", "seconds": "s/image",
    "cnr": "CNR", "gcnr": "gCNR", "enl": "ENL", "speckle_snr_db": "speckle SNR dB", "brisque": "BRISQUE",
}  # fmt: skip
PIXELS = ("field", "all")
PICTURED = 3  # images shown
FIT_PAIRS = 24  # training pairs that filters are tuned on
Image = NDArray[np.float32]


@dataclass(frozen=True)
class Method:
    """A named way to restore an LQ image. `run` takes the image, then what is marked: its probe's field (`has_field`), the
    seed of its noise (`draws`), the HQ image (`reads_hq`: upper bounds, told what they should find)."""

    name: str
    run: Callable[..., Image]
    steps: int | None = None
    note: str = ""
    draws: bool = False
    reads_hq: bool = False
    has_field: bool = False


@dataclass(frozen=True)
class Members:
    """Several restorations of an LQ image as one method: `run` gives mean and variance from image, seed and field."""

    run: Callable[[Image, int, NDArray[np.bool_] | None], tuple[Image, Image]]
    steps: int


@dataclass
class Row:
    """One method on one set of images: a value an image and metric."""

    method: str
    group: str  # probe, or the name of a folder of real images
    steps: int | None
    note: str
    values: dict[str, list[float]] = field(default_factory=dict)

    def mean(self, name: str) -> float:
        """Over the images for which the metric is a number; NaN where there is none."""
        values = self.finite(name)
        return float(values.mean()) if values.size else math.nan

    def std(self, name: str) -> float:
        """Over the images for which the metric is a number; NaN where there is none."""
        values = self.finite(name)
        return float(values.std()) if values.size else math.nan

    def finite(self, name: str) -> NDArray[np.float64]:
        """The values that are numbers: NaN is of a metric that says nothing there, infinity of equal images."""
        values = np.asarray(self.values.get(name, ()), np.float64)
        return values[np.isfinite(values)]


@dataclass(frozen=True)
class Uncertainty:
    """How well the variance over several restorations tells their error: one point an image."""

    name: str
    group: str
    variance: NDArray[np.float64]  # mean over pixels of the variance over members
    error: NDArray[np.float64]  # mean squared error of the members' mean

    def correlation(self, kind: str, n_bootstrap: int = 2000, seed: int = 0) -> tuple[float, float, float]:
        """Pearson or Spearman coefficient with its 95 % bootstrap interval over images; NaN for fewer than four."""
        from scipy import stats

        x, y = (stats.rankdata(v) if kind == "spearman" else v for v in (self.variance, self.error))
        if len(x) < 4:
            return math.nan, math.nan, math.nan
        picks = np.random.default_rng(seed).integers(0, len(x), (n_bootstrap, len(x)))
        if kind == "spearman":
            a, b = stats.rankdata(self.variance[picks], axis=1), stats.rankdata(self.error[picks], axis=1)
        else:
            a, b = x[picks], y[picks]
        drawn = _pearson(a, b)
        drawn = drawn[np.isfinite(drawn)]  # a draw of one image only has no correlation
        low, high = np.percentile(drawn, (2.5, 97.5)) if drawn.size else (math.nan, math.nan)
        return float(_pearson(x[None], y[None])[0]), float(low), float(high)


@dataclass
class Result:
    """Everything a report shows."""

    rows: list[Row] = field(default_factory=list)
    uncertainty: list[Uncertainty] = field(default_factory=list)
    pictures: dict[str, list[list[tuple[str, Image]]]] = field(
        default_factory=dict
    )  # group -> images -> (title, image)
    not_run: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # lines about pairs without contrast
    sources: list[str] = field(default_factory=list)
    pixels: str = "field"  # that PSNR and SSIM are of; "all"


def evaluate(
    models: Sequence[Any],
    tests: Sequence[Subset],
    *,
    steps: Sequence[int | None] = (None,),
    sampler: str = "posterior",
    samples: int = 1,
    seed: int = 0,
    baselines: bool = True,
    fit: Sequence[Subset] = (),
    torch_models: Sequence[tuple[str, str | Path]] = (),
    lpips_backbone: str | Path | None = None,
    n_seeds: int = 5,
    pixels: str = "field",
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
        Step counts of the diffusion models (None = all), their sampler, and how many samples the "mean of" row averages.
    seed
        Of the noise; every image has noise of its own, the same for all methods.
    fit
        Training pairs: filters are tuned on them, and a median with a fitted tone curve joins the table. Pairs of the
        subjects that are tested on are left out of them.
    torch_models
        (name, path) of TorchScript or torch.export files that map an image (1, 1, nz, nx) in [0, 1] to another.
    pixels
        What is measured: "field", the probe's field; or "all", the whole image, as the despeckling paper does.
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
    fit = _without_subjects(fit, {s for subset in tests for s in subset.subjects})
    methods = _methods(models, steps, sampler, samples, baselines, fit, torch_models, result, mask=None)
    if lpips_backbone is not None and Path(lpips_backbone).is_file():
        result.sources.append(f"LPIPS: {Path(lpips_backbone).name}, SHA-256 {_sha256(Path(lpips_backbone))}")
    diffusion = [m for m in models if m.is_diffusion]
    ensembles = _ensembles(diffusion, steps[0], sampler, n_seeds) if len(diffusion) > 1 else {}
    total = sum(map(len, tests)) * (len(methods) + len(ensembles))
    with _bar(progress, total) as advance:
        for subset in tests:
            _evaluate_subset(subset, methods, ensembles, sampler, seed, lpips_backbone, result, advance, pixels)
    return result


def evaluate_real(
    models: Sequence[Any],
    folder: str | Path,
    *,
    steps: Sequence[int | None] = (None,),
    sampler: str = "posterior",
    seed: int = 0,
    baselines: bool = True,
    torch_models: Sequence[tuple[str, str | Path]] = (),
    limit: int | None = None,
    patch_size: int = 16,
    mask_suffixes: Sequence[str] = MASK_SUFFIXES,
    result: Result | None = None,
    progress: bool = False,
) -> Result:
    """Metrics without a reference on real images with lesion masks beside them, which `mask_suffixes` tell (`read_breast`).

    CNR and gCNR are of the lesion against five calm background patches beside it, ENL and speckle SNR of those patches,
    on the grey levels of the (log-compressed) images.
    """
    result = result or Result()
    methods = _methods(models, steps, sampler, 1, baselines, (), torch_models, result, mask="auto")
    methods = [method for method in methods if not method.reads_hq]
    group = Path(folder).name
    rows = [Row(m.name, group, m.steps, m.note) for m in methods]
    cases = list(islice(read_breast(folder, mask_suffixes), limit))
    with _bar(progress, len(cases) * len(methods)) as advance:
        for i, (name, image, lesion) in enumerate(cases):
            try:
                background = metrics.background_patches(image, lesion, patch_size)
            except ValueError as error:
                result.not_run.append(f"{name}: {error}")
                continue
            shown = []
            for row, method in zip(rows, methods, strict=True):
                restored = _timed(row, method, image, image_seed(seed, i), None)
                values = {
                    "cnr": metrics.cnr(restored, lesion, background),
                    "gcnr": metrics.gcnr(restored, lesion, background),
                    "enl": metrics.enl(restored, background),
                    "speckle_snr_db": metrics.speckle_snr(restored, background, decibels=True),
                    "brisque": brisque(restored),
                }
                _add(row, values)
                shown.append((method.name, restored))
                advance()
            _show(result, group, shown)
    result.rows += rows
    return result


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


# --- the methods -----------------------------------------------------------------------------------------------------


def _methods(
    models: Sequence[Any],
    steps: Sequence[int | None],
    sampler: str,
    samples: int,
    baselines: bool,
    fit: Sequence[Subset],
    torch_models: Sequence[tuple[str, str | Path]],
    result: Result,
    mask: str | None,
) -> list[Method]:
    methods = [Method("LQ", lambda lq: lq)]
    if baselines:
        pairs = _fit_pairs(fit)
        for name, baseline in BASELINES.items():
            if not baseline.available:
                result.not_run.append(f"{name}: needs the package `{baseline.package}`")
                continue
            settings = tune(baseline, pairs) if pairs else baseline.settings[0]
            note = ", ".join([*(f"{k} {v}" for k, v in settings.items()), *filter(None, [baseline.note])])
            methods.append(Method(name, lambda lq, b=baseline, s=settings: b(lq, **s), note=note))
        if pairs:
            curve: ToneCurve = fit_tone_curve(pairs)
            methods.append(Method("median + fitted tone curve", curve, note=f"size {curve.size}"))
    for name, path in torch_models:
        methods.append(Method(name, load_torch_model(path)))
        result.sources.append(f"{name}: {Path(path).name}, SHA-256 {_sha256(Path(path))}")
    for model in models:
        methods += _model_methods(model, steps, sampler, samples, mask)
        result.sources.append(
            f"{model.name}: step {model.step}, {(model.details or {}).get('parameters', 0):,} parameters"
        )
    return methods


def _model_methods(
    model: Any, steps: Sequence[int | None], sampler: str, samples: int, mask: str | None
) -> list[Method]:
    from irsde.sample import draw_samples, field_mask, restore, restore_normalized

    def seen(field: NDArray[np.bool_] | None) -> Any:
        return mask if field is None else field_mask(model, field)

    if not model.is_diffusion:
        name = f"{model.name} ({model.config.method})"
        return [Method(name, lambda lq, field=None: restore(model, lq, mask=seen(field)), has_field=True)]
    methods = []
    for count in steps:
        n = count or model.sde.n_steps
        methods.append(Method(
            model.name,
            lambda lq, seed, field=None, n=n: restore(model, lq, n, sampler, seed, mask=seen(field)),
            n, sampler, draws=True, has_field=True,
        ))  # fmt: skip
    n = steps[0] or model.sde.n_steps
    if samples > 1:
        options: dict[str, Any] = {"steps": n, "sampler": sampler}
        methods.append(Method(
            f"{model.name}, mean of {samples} samples",
            lambda lq, seed, field=None: draw_samples(model, lq, samples, seed, mask=seen(field), **options).mean(axis=0),
            n, sampler, draws=True, has_field=True,
        ))  # fmt: skip
    if model.normalization.kind == "own":
        told = replace(model.normalization, inverse="oracle")

        def upper_bound(lq: Image, seed: int, hq: Image, field: NDArray[np.bool_] | None = None) -> Image:
            area = echo_area(lq, seen(field))
            z = restore_normalized(model, area.cut(lq), n, sampler, seed)
            restored = np.array(lq, np.float32)
            area.put(restored, told.output(z, area.cut(lq), area.cut(hq)))
            return restored

        name = f"{model.name}, told HQ mean and std"
        methods.append(Method(name, upper_bound, n, "upper bound", draws=True, reads_hq=True, has_field=True))
    return methods


def load_torch_model(path: str | Path) -> Callable[[Image], Image]:
    """A TorchScript (.pt, .pth) or torch.export (.pt2) file as a function of an image (nz, nx) in [0, 1]."""
    import warnings

    import torch

    path = Path(path)
    try:
        if path.suffix == ".pt2":
            network = torch.export.load(path).module()
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as such
                network = torch.jit.load(str(path), map_location="cpu").eval()
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise DataError(f"{path}: expected a TorchScript or torch.export (.pt2) file ({reason})") from error

    @torch.no_grad()
    def run(lq: Image) -> Image:
        out = network(torch.from_numpy(np.asarray(lq, np.float32))[None, None])
        if out.shape[-2:] != lq.shape:
            raise DataError(f"{path}: expected an image of shape {lq.shape} back, got {tuple(out.shape)}")
        return np.clip(out.reshape(-1, *lq.shape)[0].numpy(), 0, 1)

    return run


def _without_subjects(subsets: Sequence[Subset], subjects: set[str]) -> list[Subset]:
    left = [s.select([i for i, subject in enumerate(s.subjects) if subject not in subjects]) for s in subsets]
    if any(map(len, subsets)) and not any(map(len, left)):
        raise DataError("the pairs to tune filters on are all of subjects that are tested on; give others")
    return left


def _fit_pairs(fit: Sequence[Subset]) -> list[tuple[Image, Image]]:
    everywhere = [(subset, i) for subset in fit for i in range(len(subset))]
    chosen = np.unique(np.linspace(0, len(everywhere) - 1, min(FIT_PAIRS, len(everywhere))).astype(int))
    pairs = [everywhere[k][0][everywhere[k][1]] for k in chosen] if everywhere else []
    return [pair for pair in pairs if np.std(pair[1]) >= GREY_LEVEL]


def _with_contrast(tests: Sequence[Subset], result: Result, said: bool) -> list[Subset]:
    """The pairs whose LQ image varies; the others are named in the result and, if they are to be `said`, to the user."""
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
    sampler: str,
    seed: int,
    backbone: str | Path | None,
    result: Result,
    advance: Callable[[], None],
    pixels: str,
) -> None:
    rows = [Row(m.name, subset.probe, m.steps, m.note) for m in methods]
    rows += [Row(name, subset.probe, members.steps, sampler) for name, members in ensembles.items()]
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in ensembles}
    for i in range(len(subset)):
        hq, lq = subset[i]
        noise_seed = image_seed(seed, subset.indices[i])
        mask = subset.mask(i)
        field = None if mask.all() else mask
        inside = field if pixels == "field" else None
        shown = []
        for row, method in zip(rows[: len(methods)], methods, strict=True):
            restored = _timed(row, method, lq, noise_seed, hq, field)
            _add(row, _compare(restored, hq, inside, backbone, result))
            title = f"{method.name}, {method.steps} {method.note}" if method.steps else method.name
            shown.append((title, restored))
            advance()
        for row, (name, members) in zip(rows[len(methods) :], ensembles.items(), strict=True):
            started = time.perf_counter()
            mean, variance = members.run(lq, noise_seed, field)
            _add(row, {"seconds": time.perf_counter() - started, **_compare(mean, hq, inside, backbone, result)})
            region = np.s_[:, :] if inside is None else inside
            points[name].append((float(variance[region].mean()), float(((mean - hq)[region] ** 2).mean())))
            shown += [(name, mean), (f"{name}: deviation", np.sqrt(variance))]
            advance()
        _show(result, subset.probe, [*shown, ("HQ", hq)])
    result.rows += rows
    for name, pairs in points.items():
        variance, error = np.array(pairs).T
        result.uncertainty.append(Uncertainty(name, subset.probe, variance, error))


def _ensembles(models: Sequence[Any], steps: int | None, sampler: str, n_seeds: int) -> dict[str, Members]:
    """Mean and variance over models, over models with the same noise, and over seeds of one model."""
    from irsde.sample import field_mask, mean_and_variance, restore

    options: dict[str, Any] = {"steps": steps, "sampler": sampler}

    def run(members: Sequence[tuple[Any, int]]) -> Callable[..., tuple[Image, Image]]:
        """Models, each with what is added to the seed of its noise."""
        return lambda lq, seed, field: mean_and_variance(
            [restore(m, lq, seed=seed + k, mask=field_mask(m, field), **options) for m, k in members]
        )

    runs = {
        f"ensemble of {len(models)}": run([(m, k) for k, m in enumerate(models)]),
        f"ensemble of {len(models)}, same noise": run([(m, 0) for m in models]),
        f"{models[0].name}, {n_seeds} seeds": run([(models[0], k) for k in range(n_seeds)]),
    }
    return {name: Members(run, steps or models[0].sde.n_steps) for name, run in runs.items()}


@contextmanager
def _bar(shown: bool, total: int) -> Iterator[Callable[[], None]]:
    """A function to call after each restoration."""
    if not shown:
        yield lambda: None
        return
    with console.Progress("restoring", total) as progress:
        yield progress.advance


def _timed(
    row: Row, method: Method, lq: Image, seed: int, hq: Image | None, field: NDArray[np.bool_] | None = None
) -> Image:
    given = {"field": field} if method.has_field and field is not None else {}
    started = time.perf_counter()
    restored = method.run(lq, *([seed] if method.draws else []), *([hq] if method.reads_hq else []), **given)
    _add(row, {"seconds": time.perf_counter() - started})
    return np.asarray(restored, np.float32)


def _compare(
    image: Image, hq: Image, mask: NDArray[np.bool_] | None, backbone: str | Path | None, result: Result
) -> dict[str, float]:
    # A gain of zero fits any image to a constant one without error.
    varies = np.std(hq if mask is None else hq[mask], dtype=np.float64) >= GREY_LEVEL
    values = {
        "psnr": metrics.psnr(image, hq, mask=mask),
        "ssim": metrics.ssim(image, hq, mask=mask),
        "aligned_psnr": metrics.aligned_psnr(image, hq, mask=mask) if varies else math.nan,
    }
    try:
        values["lpips"] = metrics.lpips(image, hq, backbone)
    except metrics.MetricUnavailable as reason:
        if backbone is not None:
            raise DataError(str(reason)) from reason
        _once(result.not_run, str(reason))
    return values


def _add(row: Row, values: dict[str, float]) -> None:
    for name, value in values.items():
        row.values.setdefault(name, []).append(value)


def _show(result: Result, group: str, images: list[tuple[str, Image]]) -> None:
    kept = result.pictures.setdefault(group, [])
    if len(kept) < PICTURED:
        kept.append(images)


def _once(lines: list[str], line: str) -> None:
    if line not in lines:
        lines.append(line)


def _pearson(x: NDArray, y: NDArray) -> NDArray:
    """Of each row."""
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- the report ------------------------------------------------------------------------------------------------------


def write_report(result: Result, path: str | Path, title: str = "Evaluation") -> list[Path]:
    """Markdown at `path`, a CSV of every image's values and pictures beside it; returns the files written."""
    path = Path(path)
    csv_path, written = path.with_suffix(".csv"), []
    _write_csv(result, csv_path)
    pictures = _write_pictures(result, path)
    scatter = _write_scatter(result, path.with_name(f"{path.stem}-uncertainty.png"))
    lines = [f"# {title}", "", *_tables(result)]
    if result.uncertainty:
        lines += ["## Variance against error", "", *_uncertainty_table(result), ""]
        lines += [f"![variance against error]({scatter.name})", ""] if scatter else []
    for group, picture in pictures.items():
        lines += [f"## Images: {group}", "", f"![{group}]({picture.name})", ""]
    if result.left_out:
        lines += ["Pairs without contrast:", "", *(f"- {line}" for line in result.left_out), ""]
    if result.not_run:
        lines += ["Not run:", "", *(f"- {line}" for line in result.not_run), ""]
    if result.sources:
        lines += ["Weights:", "", *(f"- {line}" for line in result.sources), ""]
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
    written += [path, csv_path, *pictures.values()]
    return [*written, scatter] if scatter else written


def _tables(result: Result) -> list[str]:
    lines = []
    for group in dict.fromkeys(row.group for row in result.rows):
        rows = [row for row in result.rows if row.group == group]
        names = [n for n in (*WITH_REFERENCE, *WITHOUT_REFERENCE) if any(n in r.values for r in rows) or n == "lpips"]
        if not any("psnr" in r.values for r in rows):
            names.remove("lpips")
        n_images = max((len(v) for row in rows for v in row.values.values()), default=0)
        header = ["method", "steps", *(HEADERS[n] for n in names), HEADERS["seconds"], "setting"]
        lines += [f"## {group}: {n_images} images", "", "| " + " | ".join(header) + " |"]
        lines.append("|" + "|".join(["---", *["---:"] * (len(header) - 2), "---"]) + "|")
        for row in rows:
            cells = [row.method, str(row.steps or ""), *(_cell(row, n) for n in names)]
            seconds = float(np.median(row.values["seconds"])) if row.values.get("seconds") else math.nan
            lines.append("| " + " | ".join([*cells, f"{seconds:.3g}", row.note]) + " |")
        lines += ["", *_not_in_the_means(rows, names, n_images)]
    lines += ["Mean over images (± standard deviation); time: median over images, one at a time.", ""]
    if any("psnr" in row.values for row in result.rows):
        where = "all pixels" if result.pixels == "all" else "the pixels in the probe's field"
        lines += [f"PSNR and SSIM are over {where}, LPIPS is over all.", ""]
    if any("enl" in row.values for row in result.rows):  # on amplitudes speckle has ENL 3.66, here far more
        lines += ["CNR, gCNR, ENL and speckle SNR are of log-compressed grey levels, not of amplitudes.", ""]
    return lines


def _not_in_the_means(rows: Sequence[Row], names: Sequence[str], n_images: int) -> list[str]:
    """Which metrics are no numbers for some of the images, and why."""
    lines = []
    for name in names:
        values = np.array([row.values[name] for row in rows if len(row.values.get(name, ())) == n_images], np.float64)
        undefined, infinite = (
            int(test(values).any(axis=0).sum()) if values.size else 0 for test in (np.isnan, np.isinf)
        )
        why = "their HQ image is constant" if name == "aligned_psnr" else "it is not defined for them"
        if undefined:
            lines.append(f"{HEADERS[name]}: {undefined} of {n_images} images left out, {why}.")
        if infinite:
            lines.append(
                f"{HEADERS[name]}: {infinite} of {n_images} images left out of the mean of a method whose result equals HQ."
            )
    return [*lines, ""] if lines else []


def _cell(row: Row, name: str) -> str:
    if not row.finite(name).size:
        return "n/a"
    digits = 3 if name in ("ssim", "lpips", "cnr", "gcnr") else 2
    return f"{row.mean(name):.{digits}f} ± {row.std(name):.{digits}f}"


def _uncertainty_table(result: Result) -> list[str]:
    lines = ["| members | images | probe | Pearson [95 %] | Spearman [95 %] |", "|---|---:|---|---|---|"]
    for u in result.uncertainty:
        cells = []
        for kind in ("pearson", "spearman"):
            r, low, high = u.correlation(kind)
            cells.append("n/a" if math.isnan(r) else f"{r:.2f} [{low:.2f}, {high:.2f}]")
        lines.append(f"| {u.name} | {len(u.error)} | {u.group} | {cells[0]} | {cells[1]} |")
    lines += [
        "",
        "Per image: mean over pixels of the members' variance (n - 1), against the squared error of their mean.",
    ]
    return lines


def _write_csv(result: Result, path: Path) -> None:
    names = (*WITH_REFERENCE, *WITHOUT_REFERENCE, "seconds")
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["group", "method", "steps", "setting", "image", *names])
        for row in result.rows:
            count = max((len(v) for v in row.values.values()), default=0)
            for i in range(count):
                values = [_number(v[i]) if i < len(v := row.values.get(n, [])) else "" for n in names]
                writer.writerow([row.group, row.method, row.steps or "", row.note, i, *values])


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def _write_pictures(result: Result, path: Path) -> dict[str, Path]:
    """One PNG a group: a method a row, an image a column."""
    from matplotlib.figure import Figure

    written = {}
    for group, images in result.pictures.items():
        figure = Figure(figsize=(2.2 * len(images), 2.4 * len(images[0])), layout="constrained")
        axes = figure.subplots(len(images[0]), len(images), squeeze=False)
        for column, shown in zip(axes.T, images, strict=True):
            for ax, (name, image) in zip(column, shown, strict=True):
                ax.imshow(image, cmap="gray", vmin=0, vmax=None if name.endswith("deviation") else 1)
                ax.set_title(name, fontsize=7)
                ax.set_axis_off()
        target = path.with_name(f"{path.stem}-images-{re.sub(r'[^A-Za-z0-9.-]+', '_', group)}.png")
        with replacing(target) as temporary:
            figure.savefig(temporary, dpi=100)
        written[group] = target
    return written


def _write_scatter(result: Result, path: Path) -> Path | None:
    if not result.uncertainty:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    ax = figure.subplots()
    for u in result.uncertainty:
        r = u.correlation("pearson")[0]
        label = f"{u.name}, {u.group}" + ("" if math.isnan(r) else f" (r = {r:.2f})")
        ax.plot(u.variance, u.error, ".", label=label)
    ax.set(xlabel="variance over members, mean over pixels", ylabel="squared error of their mean")
    ax.legend(fontsize=7)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130)
    return path
