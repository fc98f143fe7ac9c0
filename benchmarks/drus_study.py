"""The numerical study of DRUSvar (its Fig. 2 and 3) as curves over noise levels.

Measures gCNR and SNR on the occlusion layout and FWHM on the scatterer layout for |y|, DRUSmean and DRUSvar, with the
prior given. Not a timing. Simulated with the model that the sampler is given, as the paper does: for channel data of
another simulator see `irsde drus --phantom`; the pictures and scores of these beside the results were made by

    irsde drus-train --out priors/a --iterations 2000
    irsde drus-train --out priors/a --iterations 2000
    irsde drus --phantom occlusion --prior priors/a --samples 20 $F -o benchmarks/results/drus_occlusion_a.png
    irsde drus --phantom scatterers --prior priors/a --samples 10 $F -o benchmarks/results/drus_scatterers_a.png
    irsde drus disk.mat --attenuation 0 --center-depth-mm 23 --prior priors/a --samples 10 $F \
        -o benchmarks/results/drus_disk_a.png

with DAS of a full aperture of f-number 1.4; disk.mat is PyMUST's PWI_disk.mat. Those named `_local` were made without
--prior, `_patchwise` with --operator patchwise.

    python benchmarks/drus_study.py                             # 128 x 128, 3 levels, 2 realisations, no network
    python benchmarks/drus_study.py --prior priors/a            # with a prior of `irsde drus-train`
    python benchmarks/drus_study.py --prior priors/a --full     # 256 x 256, all levels, 9 realisations: hours on a CPU

Results: benchmarks/results/drus_study_<prior>[_full].json and .png. A stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path

import drus_separable as study
import numpy as np

from irsde.drus import priors
from irsde.drus.regions import to_decibels
from ussim.commands import console

RESULTS = Path(__file__).parent / "results"
LABELS = {"y": "o", "DRUSmean": "s", "DRUSvar": "^"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="local", help='folder of a trained prior, "local" (no network)')
    parser.add_argument("--full", action="store_true", help="the paper's size: 256 x 256, all levels, 9 realisations")
    parser.add_argument("--layouts", nargs="+", choices=sorted(study.LEVELS), default=sorted(study.LEVELS))
    parser.add_argument("--realizations", type=int, default=None)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()

    prior = (
        priors.LocalVariancePrior()
        if arguments.prior == "local"
        else priors.load_prior(arguments.prior, arguments.device)
    )
    name = f"drus_study_{Path(arguments.prior).name}{'_full' if arguments.full else ''}"
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    levels = study.LEVELS if arguments.full else study.FEW_LEVELS
    record = {"prior": arguments.prior, "machine": platform.processor() or platform.machine(), "layouts": {}}
    images = {}
    for layout in arguments.layouts:
        config = study.StudyConfig(
            layout=layout,
            levels=levels[layout],
            n_realizations=arguments.realizations or (9 if arguments.full else 2),
            n=256 if arguments.full else 128,
        )
        started = time.time()
        outcome = run_resumable(config, prior, path.with_suffix(f".{layout}.part"), arguments)
        record["layouts"][layout] = {
            "config": asdict(config),
            "curves": outcome["curves"],
            "seconds": round(time.time() - started, 1),
        }
        images[layout] = outcome["images"]
    record["beta"] = [study.fit_beta(level, prior, device=arguments.device) for level in (0.02, 0.08, 0.23)]
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    draw(record, images, path.with_suffix(".png"))
    for layout in arguments.layouts:
        path.with_suffix(f".{layout}.part").unlink(missing_ok=True)
    print(table(record))
    return 0


def run_resumable(config: study.StudyConfig, prior, part: Path, arguments) -> dict:
    """Level by level, each kept on disk as it is done."""
    import pickle

    done: dict = {"config": asdict(config), "prior": arguments.prior, "curves": [], "images": {}}
    if part.is_file():
        with open(part, "rb") as file:
            before = pickle.load(file)
        if before["config"] == done["config"] and before["prior"] == done["prior"]:
            done = before
    finished = {entry["level"] for entry in done["curves"]}
    with console.Progress(config.layout, len(config.levels), done=len(finished)) as bar:
        for level in config.levels:
            if level in finished:
                continue
            single = study.StudyConfig(**{**asdict(config), "levels": (level,)})
            outcome = study.run(single, prior, device=arguments.device)
            done["curves"] += outcome["curves"]
            done["images"].update(outcome["images"])
            with open(part, "wb") as file:
                pickle.dump(done, file)
            bar.advance(note=f"level {level:g}")
    return done


def table(record: dict) -> str:
    """Every level as a Markdown row."""
    lines = []
    for layout, result in record["layouts"].items():
        scores = list(result["curves"][0]["methods"]["y"])
        lines += ["", f"{layout}", "", "| level | score | " + " | ".join(study.METHODS) + " |", "|---" * 5 + "|"]
        for entry in result["curves"]:
            for score in scores:
                cells = []
                for method in study.METHODS:
                    value = entry["methods"][method][score]
                    cells.append("n/a" if value["mean"] is None else f"{value['mean']:.3f} ± {value['std']:.3f}")
                lines.append(f"| {entry['level']:g} | {score} | " + " | ".join(cells) + " |")
    fits = ", ".join(f"{fit['beta']:.2f} at level {fit['level']:g}" for fit in record["beta"])
    lines += ["", f"fitted beta (sd of the samples ∝ p^beta over 28 dB; 0.5 is assumed): {fits}"]
    return "\n".join(lines)


def draw(record: dict, images: dict, path: Path) -> None:
    """Draw one row per layout: its two curves, then the three images at the first and second level."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layouts = list(record["layouts"])
    figure = Figure(figsize=(22, 4.2 * len(layouts)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.atleast_2d(figure.subplots(len(layouts), 8, width_ratios=[1.3, 1.3] + [1] * 6, squeeze=False))
    for row, layout in zip(axes, layouts, strict=True):
        curves = record["layouts"][layout]["curves"]
        for axis, score in zip(row, curves[0]["methods"]["y"], strict=False):
            for method, marker in LABELS.items():
                kept = [c for c in curves if c["methods"][method][score]["mean"] is not None]
                values = [c["methods"][method][score] for c in kept]
                axis.errorbar(
                    [c["level"] for c in kept],
                    [v["mean"] for v in values],
                    [v["std"] for v in values],
                    marker=marker,
                    capsize=3,
                    label=method,
                )
            axis.set_xlabel("noise level")
            axis.set_ylabel(score)
        row[0].legend()
        extent = (-18, 18, 46, 10)
        shown = [(level, method) for level in list(images[layout])[:2] for method in study.METHODS]
        for axis, (level, method) in zip(row[2:], shown, strict=False):
            axis.imshow(to_decibels(images[layout][level][method]), cmap="gray", vmin=-60, vmax=0, extent=extent)
            axis.set_title(f"{method}, level {level:g}")
            axis.set_xlabel("lateral [mm]")
        row[2].set_ylabel("depth [mm]")
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    sys.exit(main())
