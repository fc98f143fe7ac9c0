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
import itertools
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
from irsde_learning import REPOSITORY, Tee
from irsde_pairs import Pairs, study_pairs, write_table
from numpy.typing import NDArray
from timing import machine, write_result

from irsde.config import TrainConfig
from irsde.evaluation import metrics
from irsde.evaluation.texture import calm_tissue, contour_ratio, texture_distance
from irsde.network import load
from irsde.sample import Sampling, restore, restore_batch
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
SHOWN_STEPS = 5  # in the figures
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
        rows.append(
            {"images": group, "method": "LQ", **measured(test, np.stack([test[i][1] for i in range(len(test))]))}
        )
        for name, model in models.items():
            for row, restored in outcomes(model, test):
                rows.append({"images": group, "method": name, **row, **measured(test, restored)})
                console.note(str(rows[-1]))
    checks = checked(rows)
    write_result(arguments.out / "summary.json", {
        "command": " ".join(["python", "benchmarks/irsde_flow.py", *sys.argv[1:]]),
        "training": {"pairs": len(pairs["mri"]) + len(pairs["phantoms"]), "steps": arguments.training_steps, "seed": 0,
                     "channels": arguments.channels,
                     "parameters": {name: (model.details or {})["parameters"] for name, model in models.items()}},
        "checks": checks,
        "rows": rows,
        "machine": machine(("ussim", "torch", "diffusers", "numpy")),
    })  # fmt: skip
    planes(rows, arguments.out / "planes.png")
    images(models, pairs["test"], arguments.out / "images.png")
    console.result(str(write_table(arguments.out, table(rows, models, checks, arguments))))
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


def outcomes(model: Any, test: Pairs) -> Iterator[tuple[dict[str, Any], NDArray]]:
    """Yield the images restored by a model at each step count and fidelity, and how often they ran a network.

    A fidelity between mean and sample is their mixture, as in `restore`; every image has a seed of its own.
    """
    lq, seeds = np.stack([test[i][1] for i in range(len(test))]), range(len(test))
    mean = restore_batch(model, lq, seeds, Sampling(fidelity=0.0 if model.is_diffusion else 1.0), None)
    if not model.is_diffusion:
        yield {"steps": None, "fidelity": None, "passes": 1}, mean
        return
    yield {"steps": None, "fidelity": 0.0, "passes": 1}, mean
    for steps in STEPS:
        sample = restore_batch(model, lq, seeds, Sampling(steps), None)
        for fidelity in FIDELITIES[1:]:
            passes = steps + (model.has_mean or fidelity < 1)
            yield {"steps": steps, "fidelity": fidelity, "passes": passes}, mean + fidelity * (sample - mean)


def measured(test: Pairs, images: NDArray) -> dict[str, float]:
    """Return the means over images of the first draw of speckle."""
    values: dict[str, list[float]] = {name: [] for name in MEASURES}
    for i, image in enumerate(images):
        hq = test[i][0]
        values["psnr"].append(metrics.psnr(image, hq))
        values["ssim"].append(metrics.ssim(image, hq))
        values["texture_db"].append(texture_distance(image, hq))
        values["contours"].append(contour_ratio(image, calm_tissue(hq)))
    return {name: round(float(np.nanmean(found)), 4) for name, found in values.items()}


def checked(rows: list[dict[str, Any]]) -> dict[str, dict[str, bool | float]]:
    """Return what was asked, against each U-Net: PSNR near its at fidelity 0.2, texture nearer at fidelity 1."""
    found = {}
    for group, unet in itertools.product(("mri", "phantom"), ("unet", "unet+skip")):
        own = [row for row in rows if row["images"] == group]
        mean = next(row for row in own if row["method"] == unet)
        irsde = [row["texture_db"] for row in own if row["method"] == "irsde" and row["fidelity"] == 1]
        nearest = min(mean["texture_db"], *irsde)
        for name in (*TWO_STAGES, "flow", "irsde+skip"):
            rows_of = [row for row in own if row["method"] == name]
            gap = max(row["psnr"] for row in rows_of if row["fidelity"] == 0.2) - mean["psnr"]
            texture = min(row["texture_db"] for row in rows_of if row["fidelity"] == 1)
            found[f"{name}, {group}, {unet}"] = {
                "PSNR over the U-Net's at fidelity 0.2, dB": round(gap, 3), "at least -0.2 dB": gap >= -0.2,
                "texture distance at fidelity 1, dB": round(texture, 3), "nearer of U-Net and IR-SDE, dB": nearest,
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
        header = ["method", "total", "fidelity", "steps", "passes", "PSNR dB", "SSIM", "texture dB", "contours"]
        lines += [f"## {title}", "", "| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
        for row in [row for row in rows if row["images"] == group]:
            total = f"{models[row['method']].details['parameters']:,}" if row["method"] in models else ""
            shown = [row["method"], total, "" if row.get("fidelity") is None else f"{row['fidelity']:g}"]
            shown += ["" if row.get(key) is None else str(row[key]) for key in ("steps", "passes")]
            shown += [f"{row['psnr']:.2f}", f"{row['ssim']:.3f}", f"{row['texture_db']:.2f}", f"{row['contours']:.1f}"]
            lines.append("| " + " | ".join(shown) + " |")
        lines.append("")
    header = list(next(iter(checks.values())))
    lines += [
        "## What was asked",
        "",
        "| method, images, U-Net | " + " | ".join(header) + " |",
        "|---|" + "---:|" * len(header),
    ]
    for name, values in checks.items():
        cells = ["yes" if v is True else "no" if v is False else f"{v:.2f}" for v in values.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "", "![PSNR over texture distance](planes.png)", "", f"![a sample of each, {SHOWN_STEPS} steps](images.png)",
        "", "Texture distance: mean distance of the local power spectra to those of HQ, dB (`irsde.evaluation.texture`).",
        "Passes: of a network. Contours: steepness of the steepest hundredth of calm tissue over its median.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def planes(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw PSNR over texture distance: a panel for each kind of test, a line over fidelities for each method."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(9, 3.6), layout="constrained")
    for ax, (group, title) in zip(made.subplots(1, 2), (("mri", "unseen brain"), ("phantom", "phantoms")), strict=True):
        for k, name in enumerate(METHODS):
            own = [row for row in rows if (row["images"], row["method"]) == (group, name)]
            line = [row for row in own if row["fidelity"] in (None, 0.0) or row["steps"] == SHOWN_STEPS]
            ax.plot([r["texture_db"] for r in line], [r["psnr"] for r in line], ".-", color=f"C{k}", label=name)
        ax.set(title=title, xlabel="texture distance, dB", ylabel="PSNR, dB")
    ax.legend(fontsize="small")
    made.suptitle(f"fidelity {', '.join(f'{f:g}' for f in FIDELITIES)} from right to left, {SHOWN_STEPS} steps")
    made.savefig(path, dpi=130)


def images(models: dict[str, Any], test: Pairs, path: Path) -> None:
    """Draw the first brain and the first phantom: LQ, a sample of each method in few steps, HQ."""
    from matplotlib.figure import Figure

    places = [next(i for i, row in enumerate(test.samples) if row["source"] == kind) for kind in ("mri", "phantom")]
    made = Figure(figsize=(1.4 * (len(models) + 2), 3.2), layout="constrained")
    for axes, i in zip(made.subplots(len(places), len(models) + 2), places, strict=True):
        hq, lq = test[i]
        shown = {"LQ": lq}
        for name, model in models.items():
            options = {"steps": SHOWN_STEPS} if model.is_diffusion else {}
            shown[name] = restore(model, lq, seed=i, mask=None, **options)
        for ax, (name, image) in zip(axes, (shown | {"HQ": hq}).items(), strict=True):
            ax.imshow(image, cmap="gray", vmin=0, vmax=1)
            ax.set_title(name, fontsize=8)
            ax.axis("off")
    made.savefig(path, dpi=130)


if __name__ == "__main__":
    sys.exit(main())
