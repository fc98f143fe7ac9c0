"""The gate that a shipped despeckler must pass, as a table: against TV and SRAD, per probe and subject held out in turn.

    python benchmarks/shipped_gate.py --examples runs/shipped/examples.npz --folds runs/shipped/fold* \\
        --model despeckler --clinical ../shared/data/us_bmode

--folds are runs of `irsde train --recipe shipped --fold K`, each of which holds one subject out; --model is what is shipped.
Filters take, per probe, the setting that is best on the other subjects' images. All images are displayed as `datagen build`
does (40 dB below the largest) and have the probe's own field, or one zoomed 2.5 times. Measures, on grey levels of 255:

    PSNR, SSIM     to the expected B-mode (`irsde.target`), and PSNR to MRI after one rising curve fitted on other subjects
    drift          mean |difference| of local means (Gaussian, 8 pixels) of result and input
    edges          slope of the result's gradient on the expected image's where that is in its steepest 2 %
    lesions        discs of -4, -8, -16 dB: contrast kept, and CNR over the input's
    contours       p99 / median of the gradient in calm tissue (expected gradient in its lower half)
    text           mean change of captions and calipers drawn over the picture
    null           gCNR of a disc where there is none: what smoothing alone gives
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from irsde_learning import REPOSITORY
from scipy import ndimage
from timing import machine

from irsde import load, restore
from irsde.clinic.display import draw_look, show
from irsde.clinic.overlays import caption, ruler
from irsde.evaluation.baselines import BASELINES
from irsde.evaluation.metrics import gcnr, psnr, ssim
from irsde.shipped.examples import SHEET_LEVELS, lesion_sheet, load_examples
from irsde.shipped.lessons import prepare
from irsde.shipped.tone import displayed, fit_tone, toned

FILTERS = {
    "TV": [partial(BASELINES["total variation"], weight=w) for w in (0.1, 0.2, 0.3, 0.5)],
    "SRAD": [partial(BASELINES["SRAD"], iterations=n) for n in (30, 100, 300)],
}
DRIFT = 8.0  # pixels
LIMITS = {
    "drift": (None, 2.0),
    "edges": (0.95, 1.05),
    "CNR": (0.98, None),
    "-4 dB kept": (0.8, None),
    "contours": (None, 15.0),
    "text": (None, 5.0),
}
Image = np.ndarray
Method = Callable[[Image], Image]
Shown = list[tuple[Any, Image, Image, Image]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=Path, required=True)
    parser.add_argument("--folds", type=Path, nargs="*", default=[])
    parser.add_argument("--model", default="despeckler")
    parser.add_argument("--clinical", type=Path, default=REPOSITORY.parent / "shared" / "data" / "us_bmode")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "shipped")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tests = load_examples(arguments.examples).select(lambda example: example.split == "test")
    prepared = prepare(tests)
    shown = displayed(tests, prepared)
    result: dict[str, Any] = {"machine": machine(), "examples": load_examples(arguments.examples).digest()}
    result["subjects"] = held_out(arguments.folds, shown)
    model = load(arguments.model, device="cpu")
    method = partial(restore, model, mask=None)
    result["images"] = quality(method, shown, prepared)
    for name in FILTERS:  # for comparison, at a middle setting
        result[f"images, {name}"] = quality(FILTERS[name][1], shown, prepared)
    result["clinical"] = clinical(model, arguments.clinical, arguments.out / "clinical.png")
    result["seconds, 256 x 256"] = seconds(method)
    lines = report(result)
    (arguments.out / "gate.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    (arguments.out / "gate.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


# --- subjects held out -----------------------------------------------------------------------------------------------


def held_out(runs: Sequence[Path], shown: Shown) -> list[dict[str, Any]]:
    """Measure each run on the subjects it holds out, beside the filters tuned on the other subjects."""
    rows = []
    for run in runs:
        model = load(run, device="cpu")
        own: Method = partial(restore, model, mask=None)
        subjects = {name.rpartition("/")[2] for name in (model.details or {})["held_out_subjects"]}
        for probe in sorted({entry[0].probe for entry in shown}):
            of_probe = [entry for entry in shown if entry[0].probe == probe and entry[0].subject != "phantom"]
            others = [entry for entry in of_probe if entry[0].subject not in subjects]
            mine = [entry for entry in of_probe if entry[0].subject in subjects]
            if not mine:
                continue
            methods = {"model": own} | {name: best(settings, others) for name, settings in FILTERS.items()}
            row: dict[str, Any] = {"subject": ", ".join(sorted(subjects)), "probe": probe}
            for name, method in {"input": np.copy, **methods}.items():
                row[name] = measured(method, mine, others)
            rows.append(row)
            print(row["subject"], probe, row["model"], row["TV"], file=sys.stderr)
    return rows


def best(settings: Sequence[Method], shown: Shown) -> Method:
    """Return the setting of highest mean PSNR to the expected image."""
    return max(settings, key=lambda method: float(np.mean([psnr(method(lq), clean) for _, _, lq, clean in shown])))


def measured(method: Method, mine: Shown, others: Shown) -> dict[str, float]:
    """PSNR and SSIM to the expected image, PSNR to MRI after the curve fitted on the others."""
    curve = fit_tone((method(lq), hq) for _, hq, lq, _ in others)
    results = [(method(lq), hq, clean) for _, hq, lq, clean in mine]
    return {
        "psnr": float(np.mean([psnr(r, clean) for r, _, clean in results])),
        "ssim": float(np.mean([ssim(r, clean) for r, _, clean in results])),
        "mri": float(np.mean([psnr(toned(r, curve), hq) for r, hq, _ in results])),
    }


# --- what PSNR does not see ------------------------------------------------------------------------------------------


def quality(method: Method, shown: Shown, prepared: Sequence[Any]) -> dict[str, Any]:
    """Measure drift, edges, contours, lesions and text of one method."""
    results = [(entry, method(entry[2])) for entry in shown]
    rng = np.random.default_rng(0)
    twins = []
    for own in prepared:
        (lq,), _ = show(own.expected_db, [own.speckle_db[0]], draw_look(rng))
        twins.append(drift(method(lq), lq))
    return {
        "drift": mean(drift(r, entry[2]) for entry, r in results),
        "drift, scanner twins": mean(twins),
        "drift, worst twin": float(max(twins)),
        "edges": slope([(r, entry[3]) for entry, r in results if entry[0].zoom == 1 and entry[0].subject != "phantom"]),
        "contours": mean(contours(r, entry[3]) for entry, r in results),
        "contours of the input": mean(contours(entry[2], entry[3]) for entry, _ in results),
        **lesions([(entry[2], r) for entry, r in results if entry[0].image == "lesion sheet"]),
        "text": mean(text(method, entry[2], seed) for seed, entry in enumerate(shown[:24])),
    }


def mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def drift(result: Image, lq: Image, where: Image | None = None) -> float:
    difference = np.abs(ndimage.gaussian_filter(result - lq, DRIFT))
    return float((difference if where is None else difference[where]).mean() * 255)


def slope(pairs: Sequence[tuple[Image, Image]]) -> float:
    """Slope through the origin of the results' gradients on the expected ones', where these are steepest."""
    over, under = 0.0, 0.0
    for result, clean in pairs:
        wanted, got = (np.stack(np.gradient(ndimage.gaussian_filter(i, 1.0))) for i in (clean, result))
        size = np.hypot(*wanted)
        steep = size > np.quantile(size, 0.98)
        over += float((wanted * got)[:, steep].sum())
        under += float((wanted**2)[:, steep].sum())
    return over / under


def contours(image: Image, clean: Image) -> float:
    """p99 / median of the gradient where the expected image is calm, three pixels from where it is not."""
    wanted = np.hypot(*np.gradient(ndimage.gaussian_filter(clean, 1.0)))
    calm = ndimage.binary_erosion(wanted <= np.median(wanted), iterations=1)
    gradient = np.hypot(*np.gradient(image))[calm]
    return float(np.percentile(gradient, 99) / max(np.median(gradient), 1e-6))


def lesions(pairs: Sequence[tuple[Image, Image]]) -> dict[str, float]:
    """Contrast kept and CNR over the input's, of the sheets' discs, and the gCNR of a disc where there is none."""
    _, labels = lesion_sheet(len(pairs[0][0]))
    discs, n = ndimage.label(labels > 0)
    rows: dict[float, list[tuple[float, ...]]] = {level: [] for level in SHEET_LEVELS}
    null, null_input = [], []
    z, x = np.indices(labels.shape) / (labels.shape[0] - 1)
    nothing = np.hypot(z - 0.35, x - 0.35) < 0.05
    about = (np.hypot(z - 0.35, x - 0.35) > 0.07) & (np.hypot(z - 0.35, x - 0.35) < 0.11) & (labels == 0)
    for lq, result in pairs:
        for k in range(1, n + 1):
            disc = discs == k
            inside = ndimage.binary_erosion(disc, iterations=2)
            outside = ndimage.binary_dilation(disc, iterations=9) & ~ndimage.binary_dilation(disc, iterations=2)
            level = SHEET_LEVELS[int(labels[disc][0]) - 1]
            rows[level].append((*contrast(lq, inside, outside), *contrast(result, inside, outside)))
        null.append(gcnr(result, nothing, about))
        null_input.append(gcnr(lq, nothing, about))
    found: dict[str, float] = {}
    for level, values in rows.items():
        before, _, after, _ = np.mean(values, axis=0)
        found[f"{level:g} dB kept"] = after / before
        found[f"{level:g} dB CNR ratio"] = float(np.mean([abs(v[2]) / v[3] / (abs(v[0]) / v[1]) for v in values]))
    found["CNR"] = min(found[f"{level:g} dB CNR ratio"] for level in SHEET_LEVELS)
    return found | {"gCNR of no lesion": mean(null), "gCNR of no lesion, input": mean(null_input)}


def contrast(image: Image, inside: Image, outside: Image) -> tuple[float, float]:
    """Difference of means, and the standard deviation it is compared with."""
    return float(image[inside].mean() - image[outside].mean()), float(
        np.sqrt(image[inside].var() + image[outside].var())
    )


def text(method: Method, lq: Image, seed: int) -> float:
    """Mean change of what is drawn over a picture, grey levels of 255."""
    rng = np.random.default_rng(seed)
    drawn = (caption if seed % 2 else ruler)(lq.shape, rng)
    image = np.round(drawn.paste(lq) * 255) / np.float32(255)
    ink = drawn.opacity > 0.9
    return float(np.abs(method(image) - image)[ink].mean() * 255) if ink.any() else 0.0


# --- clinical images -------------------------------------------------------------------------------------------------


def clinical(model: Any, folder: Path, sheet: Path) -> dict[str, Any]:
    """Restore clinical images, draw them beside what they were, and measure the drift in their echo areas."""
    from PIL import Image as picture

    from irsde.echo_area import echo_area

    found, strips = {}, []
    for name, image in clinical_images(folder):
        area = echo_area(image)
        began = time.monotonic()
        result = restore(model, image)
        found[name] = {
            "shape": list(image.shape),
            "drift": drift(result, image, ndimage.binary_erosion(area.mask, iterations=12)),
            "changed outside": float(np.abs(result - image)[~area.mask].max(initial=0)),
            "seconds": time.monotonic() - began,
        }
        strip = np.concatenate([image, result], axis=1)
        height = 420
        size = (round(strip.shape[1] * height / strip.shape[0]), height)
        strips.append(np.asarray(picture.fromarray(np.uint8(np.round(strip * 255))).resize(size)))
    if strips:
        width = max(strip.shape[1] for strip in strips)
        rows = [np.pad(strip, ((0, 4), (0, width - strip.shape[1]))) for strip in strips]
        picture.fromarray(np.concatenate(rows)).save(sheet)
    return found


def clinical_images(folder: Path) -> Iterable[tuple[str, Image]]:
    """Yield name and grey levels in [0, 1] of the reference data's clinical images."""
    from irsde.frames.color import grey_of
    from irsde.frames.opening import open_source

    for path in sorted(folder.glob("*")):
        if path.suffix == ".npy":
            image = np.load(path).astype(np.float32) / np.float32(255)
            yield path.name, image if image.ndim == 2 else image[0]
        elif path.suffix in (".jpeg", ".png", ".dcm"):
            source = open_source(path)
            if source is not None:
                yield path.name, grey_of(next(iter(source.decode([0])))).astype(np.float32) / np.float32(255)


def seconds(method: Method) -> float:
    image = np.random.default_rng(0).random((256, 256)).astype(np.float32)
    method(image)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        method(image)
        times.append(time.perf_counter() - began)
    return float(np.median(times))


# --- the table -------------------------------------------------------------------------------------------------------


def report(result: dict[str, Any]) -> list[str]:
    """Return the table in Markdown, misses named."""
    misses: list[str] = []
    lines = [
        "# The shipped despeckler at its gate",
        "",
        "Subjects held out in turn: PSNR / SSIM to the expected B-mode.",
        "",
    ]
    lines += ["| subject | probe | input | TV | SRAD | model | MRI by a curve: TV, SRAD, model |", "|" + "---|" * 7]
    for row in result["subjects"]:
        cells = [f"{row[name]['psnr']:.2f} / {row[name]['ssim']:.3f}" for name in ("input", "TV", "SRAD", "model")]
        curve = ", ".join(f"{row[name]['mri']:.2f}" for name in ("TV", "SRAD", "model"))
        lines.append(f"| {row['subject']} | {row['probe']} | {' | '.join(cells)} | {curve} |")
    lines += ["", "Mean over subjects, each held out:", ""]
    lines += ["| probe | input | TV | SRAD | model | MRI by a curve: TV, SRAD, model |", "|" + "---|" * 6]
    for probe in sorted({row["probe"] for row in result["subjects"]}):
        rows = [row for row in result["subjects"] if row["probe"] == probe]
        of = {
            name: {key: mean(row[name][key] for row in rows) for key in ("psnr", "ssim", "mri")}
            for name in ("input", "TV", "SRAD", "model")
        }
        cells = [f"{of[name]['psnr']:.2f} / {of[name]['ssim']:.3f}" for name in of]
        lines.append(
            f"| {probe} | {' | '.join(cells)} | {of['TV']['mri']:.2f}, {of['SRAD']['mri']:.2f}, {of['model']['mri']:.2f} |"
        )
        for name in ("TV", "SRAD"):
            misses += [
                f"{probe}: {key.upper()} {of['model'][key]:.3g} against {name}'s {of[name][key]:.3g}"
                for key in ("psnr", "ssim", "mri")
                if of["model"][key] <= of[name][key]
            ]
    lines += ["", "What PSNR does not see, of the shipped model and, at a middle setting, of the filters:", ""]
    lines += ["| measure | limit | model | TV | SRAD |", "|" + "---|" * 5]
    for name, value in result["images"].items():
        low, high = LIMITS.get(name.split(",")[0] if name.startswith("drift, scanner") else name, (None, None))
        limit = (
            f">= {low:g}" * (low is not None)
            + " and " * (None not in (low, high))
            + f"<= {high:g}" * (high is not None)
        )
        others = " | ".join(f"{result[f'images, {other}'][name]:.3g}" for other in FILTERS)
        lines.append(f"| {name} | {limit} | {value:.3g} | {others} |")
        if (low is not None and value < low) or (high is not None and value > high):
            misses.append(f"{name}: {value:.3g}, limit {limit}")
    lines += ["", "Clinical images (`clinical.png`, left as they were, right restored):", ""]
    lines += ["| image | pixels | drift | changed outside the echo area | s |", "|" + "---|" * 5]
    for name, row in result["clinical"].items():
        rows_columns = " x ".join(map(str, row["shape"]))
        lines.append(
            f"| {name} | {rows_columns} | {row['drift']:.2f} | {row['changed outside']:.2g} | {row['seconds']:.2f} |"
        )
        if row["drift"] > LIMITS["drift"][1]:
            misses.append(f"drift of {name}: {row['drift']:.2f}, limit 2")
    lines += ["", f"256 x 256 pixels: {result['seconds, 256 x 256']:.2f} s on this machine.", "", "## Misses", ""]
    return lines + ([f"- {miss}" for miss in misses] or ["None."])


if __name__ == "__main__":
    raise SystemExit(main())
