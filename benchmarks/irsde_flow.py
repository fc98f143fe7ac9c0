"""Do samples earn their place? Flows, IR-SDE and a supervised U-Net of the same size and budget, on a subject held out.

Learns from MRI slices and phantoms together (`irsde_pairs`), each network for the same number of optimizer steps:

    unet          supervised, absolute error; unet+skip: its output added to the smoothed image
    irsde         as it is; irsde+skip: with the smoothed skip
    irsde-mean    IR-SDE that starts from a mean; pmrf: a rectified flow that starts from it (Ohayon et al. 2024)
    flow          a rectified flow from the LQ image

The two stages are one training of half as many steps: with the same channels it costs what the others cost. The size is that
of one network; `total` in the table counts both. Measured: PSNR, SSIM and texture distance at each fidelity and step count.

    python benchmarks/irsde_flow.py
    python benchmarks/irsde_flow.py --training-steps 20 --n-mri 8 --n-phantoms 4 --n-tests 2 \\
        --work runs/smoke --out runs/smoke/results          # does it run
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
from irsde_learning import REPOSITORY, Tee
from irsde_pairs import Pairs, study_pairs
from timing import machine, write_result

from irsde.config import TrainConfig
from irsde.data import whole
from irsde.evaluation import metrics
from irsde.evaluation.texture import calm_tissue, contour_ratio, texture_distance
from irsde.network import load
from irsde.sample import restore
from irsde.training import train
from ussim.commands import console

METHODS: dict[str, dict[str, Any]] = {
    "unet": {"method": "unet"},
    "unet+skip": {"method": "unet", "skip": "smooth"},
    "irsde": {"method": "irsde"},
    "irsde+skip": {"method": "irsde", "skip": "smooth"},
    "irsde-mean": {"method": "irsde-mean"},
    "pmrf": {"method": "pmrf"},
    "flow": {"method": "flow"},
}
TWO_STAGES = ("irsde-mean", "pmrf")
FIDELITIES, STEPS = (0.0, 0.2, 0.5, 1.0), (1, 2, 5)
MEASURES = ("psnr", "ssim", "texture_db", "contours")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "irsde_flow")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "irsde_flow")
    parser.add_argument("--n-mri", type=int, default=160, help="cuts of MRI slices to learn from")
    parser.add_argument("--n-phantoms", type=int, default=160, help="phantoms to learn from")
    parser.add_argument("--n-tests", type=int, default=12, help="images of the unseen subject, and as many phantoms")
    parser.add_argument("--training-steps", type=int, default=1500, help="of each network of one stage")
    parser.add_argument("--channels", type=int, nargs="+", default=[24, 48])
    parser.add_argument("--only", nargs="+", choices=tuple(METHODS), help="train these, and write no table")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with open(arguments.work / "log.txt", "a", encoding="utf-8") as log, redirect_stderr(Tee(sys.stderr, log)):
        return run(arguments)


def run(arguments: argparse.Namespace) -> int:
    pairs = study_pairs(arguments.work, arguments.data, arguments.n_mri, arguments.n_phantoms, arguments.n_tests)
    models = {name: trained(arguments, pairs, name) for name in arguments.only or METHODS}
    if arguments.only:
        return 0
    rows = []
    for group in ("mri", "phantom"):
        test = pairs["test"].select(lambda row, group=group: row["source"] == group)
        rows.append({"images": group, "method": "LQ", **measured(test, lambda lq, seed: lq)})
        for name, model in models.items():
            for steps, fidelity in settings(model):
                options = {"steps": steps, "fidelity": fidelity} if steps else {}
                values = measured(test, lambda lq, seed, m=model, o=options: restore(m, lq, seed=seed, mask=None, **o))
                rows.append({"images": group, "method": name, "steps": steps, "fidelity": fidelity, **values})
                console.note(str(rows[-1]))
    checks = checked(rows)
    write_result(arguments.out / "summary.json", {
        "command": " ".join(["python", "benchmarks/irsde_flow.py", *sys.argv[1:]]),
        "training": {"pairs": len(pairs["mri"]) + len(pairs["phantoms"]), "steps": arguments.training_steps,
                     "channels": arguments.channels,
                     "parameters": {name: (model.details or {})["parameters"] for name, model in models.items()}},
        "checks": checks,
        "rows": rows,
        "machine": machine(("ussim", "torch", "diffusers", "numpy")),
    })  # fmt: skip
    (arguments.out / "table.md").write_text(table(rows, models, checks, arguments), encoding="utf-8")
    console.result(str(arguments.out / "table.md"))
    return 0


def trained(arguments: argparse.Namespace, pairs: dict[str, Pairs], name: str) -> Any:
    """Return a network; from its run folder if it is there."""
    steps = arguments.training_steps // (2 if name in TWO_STAGES else 1)
    config = TrainConfig.create(
        store="study", preset="tiny", channels=tuple(arguments.channels), patch_size=64, batch_size=4, steps=steps,
        warmup=min(100, steps // 5), overlays=0.0, validate_every=0, log_every=25, checkpoint_every=250, device="cpu",
        mixed_precision="bf16", learning_rate=2e-3, **METHODS[name],
    )  # fmt: skip
    folder = arguments.work / name
    train(config, folder, resume=True, pairs=[pairs["mri"], pairs["phantoms"]])
    return load(folder, device="cpu")


def settings(model: Any) -> list[tuple[int | None, float | None]]:
    """Step counts and fidelities of a model; the mean needs no steps."""
    if not model.is_diffusion:
        return [(None, None)]
    return [(1, 0.0), *((steps, f) for f in FIDELITIES[1:] for steps in STEPS)]


def measured(test: Pairs, run: Any) -> dict[str, float]:
    """Return the means over images and their first draw of speckle, and the median time of one."""
    values: dict[str, list[float]] = {name: [] for name in (*MEASURES, "seconds")}
    subset = whole(test)
    for i in range(len(subset)):
        hq, lq = subset[i]
        started = time.perf_counter()
        image = run(lq, i)
        values["seconds"].append(time.perf_counter() - started)
        values["psnr"].append(metrics.psnr(image, hq))
        values["ssim"].append(metrics.ssim(image, hq))
        values["texture_db"].append(texture_distance(image, hq))
        values["contours"].append(contour_ratio(image, calm_tissue(hq)))
    means = {name: float(np.nanmean(found)) for name, found in values.items() if name != "seconds"}
    return {name: round(value, 4) for name, value in means.items()} | {"seconds": float(np.median(values["seconds"]))}


def checked(rows: list[dict[str, Any]]) -> dict[str, dict[str, bool | float]]:
    """Return what was asked: PSNR near the U-Net's at fidelity 0.2, and a texture nearer than both at fidelity 1."""
    found = {}
    for group in ("mri", "phantom"):
        own = [row for row in rows if row["images"] == group]
        unet = max((row for row in own if row["method"].startswith("unet")), key=lambda row: row["psnr"])
        irsde = [row for row in own if row["method"] == "irsde" and row["fidelity"] == 1]
        nearest = min([unet["texture_db"], *(row["texture_db"] for row in irsde)])
        for name in (*TWO_STAGES, "flow", "irsde+skip"):
            rows_of = [row for row in own if row["method"] == name]
            gap = max(row["psnr"] for row in rows_of if row["fidelity"] == 0.2) - unet["psnr"]
            texture = min(row["texture_db"] for row in rows_of if row["fidelity"] == 1)
            found[f"{name}, {group}"] = {
                "PSNR over the better U-Net's at fidelity 0.2, dB": round(gap, 3), "at least -0.2 dB": gap >= -0.2,
                "texture distance at fidelity 1, dB": round(texture, 3), "nearest of U-Nets and IR-SDE, dB": nearest,
                "texture nearer than both": texture < nearest,
            }  # fmt: skip
    return found


def table(rows: list[dict[str, Any]], models: dict[str, Any], checks: dict, arguments: argparse.Namespace) -> str:
    """Return the results as Markdown."""
    lines = [
        "# Samples, means and flows of the same size and budget", "",
        f"{arguments.n_mri} cuts of MRI slices and {arguments.n_phantoms} phantoms, {arguments.training_steps} steps of 4 "
        f"patches of 64 x 64 (two stages: half as many, of both networks), channels {arguments.channels}. Tested on "
        f"{arguments.n_tests} images of a subject that was not learned from, and as many phantoms.", "",
    ]  # fmt: skip
    for group, title in (("mri", "MRI, subject held out"), ("phantom", "Phantoms")):
        header = ["method", "total", "fidelity", "steps", "PSNR dB", "SSIM", "texture dB", "contours", "s/image"]
        lines += [f"## {title}", "", "| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
        for row in [row for row in rows if row["images"] == group]:
            total = f"{models[row['method']].details['parameters']:,}" if row["method"] in models else ""
            shown = [row["method"], total, "" if row.get("fidelity") is None else f"{row['fidelity']:g}"]
            shown += ["" if row.get("steps") is None or row.get("fidelity") == 0 else str(row["steps"])]
            shown += [f"{row['psnr']:.2f}", f"{row['ssim']:.3f}", f"{row['texture_db']:.2f}", f"{row['contours']:.1f}"]
            lines.append("| " + " | ".join([*shown, f"{row['seconds']:.3f}"]) + " |")
        lines.append("")
    header = list(next(iter(checks.values())))
    lines += [
        "## What was asked",
        "",
        "| method, images | " + " | ".join(header) + " |",
        "|---|" + "---:|" * len(header),
    ]
    for name, values in checks.items():
        cells = ["yes" if v is True else "no" if v is False else f"{v:.2f}" for v in values.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "", "Texture distance: mean distance of the local power spectra to those of HQ, dB (`irsde.evaluation.texture`).",
        "Contours: steepness of the steepest hundredth of calm tissue over its median.", "",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
