"""A result on paper: Markdown, a CSV of every image's values, and pictures."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from irsde.evaluation.results import Result, Row, percent
from ussim.io.atomic import replacing

WITH_REFERENCE = ("psnr", "ssim", "aligned_psnr", "texture_db", "contours", "bias", "speckle", "lpips")
WITHOUT_REFERENCE = ("cnr", "gcnr", "gcnr_null", "enl", "speckle_snr_db", "drift", "brisque")
LESIONS = ("kept_2", "kept_4", "kept_8", "lost", "made", "lesion_gcnr", "null_gcnr")
HEADERS = {
    "psnr": "PSNR dB", "ssim": "SSIM", "aligned_psnr": "aligned PSNR dB", "lpips": "LPIPS", "seconds": "s/image",
    "texture_db": "texture dB", "bias": "bias", "speckle": "speckle",
    "contours": "contours", "gcnr_null": "gCNR of none", "drift": "drift",
    "kept_2": "kept of -2 dB, %", "kept_4": "kept of -4 dB, %", "kept_8": "kept of -8 dB, %", "lost": "lost, %",
    "made": "made, %", "lesion_gcnr": "gCNR of lesions", "null_gcnr": "gCNR of none",
    "cnr": "CNR", "gcnr": "gCNR", "enl": "ENL", "speckle_snr_db": "speckle SNR dB", "brisque": "BRISQUE",
}  # fmt: skip


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
    if result.coverage:
        lines += ["## Coverage of intervals", "", *_coverage_table(result), ""]
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
        every = (*WITH_REFERENCE, *WITHOUT_REFERENCE, *LESIONS)
        names = [n for n in every if any(n in r.values for r in rows) or n == "lpips"]
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
    if any("texture_db" in row.values for row in result.rows):
        lines += [
            "Texture: distance of the local power spectra to those of HQ. Contours: steepness of the steepest hundredth of "
            "calm tissue over its median; speckle has 3 to 7.", "",
        ]  # fmt: skip
    if any("speckle" in row.values for row in result.rows):
        lines += [
            "Bias and speckle: root mean squares, of 255, of what the mean over the draws of speckle misses, and of how far "
            "one draw is from that mean.", "",
        ]  # fmt: skip
    if any("made" in row.values for row in result.rows):
        lines += [
            "Lesions: contrast of discs of known level over that in LQ; lost: less than half of it is left; made: over 1 dB "
            "more contrast than in LQ where there is none. GCNR rises by smoothing alone: read it beside that of none.", "",
        ]  # fmt: skip
    if any("drift" in row.values for row in result.rows):
        lines += ["Drift: mean distance of the local means to those of LQ, grey levels of 255.", ""]
    if any("enl" in row.values for row in result.rows):  # on amplitudes speckle has ENL 3.66, here far more
        lines += ["CNR, gCNR, ENL and speckle SNR are of log-compressed grey levels, not of amplitudes.", ""]
        lines += [_patches(group, counts) for group, counts in result.patches.items()] + [""]
    return lines


def _not_in_the_means(rows: Sequence[Row], names: Sequence[str], n_images: int) -> list[str]:
    """Return which metrics are no numbers for some of the images, and why."""
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


def _patches(group: str, counts: Counter[str]) -> str:
    """Return how the patches were chosen, and what was refused."""
    reasons = {why: n for why, n in counts.items() if why != "considered"}
    named = f" ({', '.join(f'{n} {why}' for why, n in sorted(reasons.items()))})" if reasons else ""
    return (
        f"{group}: ENL and speckle SNR are of the five calmest patches beside each lesion that show speckle; "
        f"{sum(reasons.values())} of {counts['considered']} refused{named}."
    )


def _cell(row: Row, name: str) -> str:
    if not row.finite(name).size:
        return "n/a"
    digits = 3 if name in ("ssim", "lpips", "cnr", "gcnr", "gcnr_null", "lesion_gcnr", "null_gcnr") else 2
    middle = f" (median {row.median(name):.{digits}f})" if name in WITHOUT_REFERENCE else ""
    return f"{row.mean(name):.{digits}f} ± {row.std(name):.{digits}f}{middle}"


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


def _coverage_table(result: Result) -> list[str]:
    lines = [
        "| subject | images | inside | below | above | mean width, grey levels |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {c.subject} | {c.images} | {percent(c.inside)} | {percent(c.below)} | {percent(c.above)} | {255 * c.width:.1f} |"
        for c in result.coverage
    ]
    return [
        *lines,
        "",
        f"Shares of the pixels whose HQ grey level the interval holds, or lies below or above it. {result.intervals}",
    ]


def _write_csv(result: Result, path: Path) -> None:
    names = (*WITH_REFERENCE, *WITHOUT_REFERENCE, *LESIONS, "seconds")
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
