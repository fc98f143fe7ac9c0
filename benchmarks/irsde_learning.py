"""Is learning real? A small IR-SDE, trained within an hour on two cores, against every filter that needs no training.

Builds pairs from the MRI of the shared reference data, trains the `small` preset on all subjects but one, and restores
images of that one. Baselines are tuned on the training pairs; a median followed by the best grey-level curve is among
them, so that learning a curve is not enough. Passes if the headline sampler, at every step count, beats every baseline
in PSNR, SSIM and affine-aligned PSNR and the LQ image by 3 dB. Not a timing: the table's seconds are of one image.

    python benchmarks/irsde_learning.py                     # all of it; a stopped run goes on where it was
    python benchmarks/irsde_learning.py --training-steps 20 --pairs 5 --test-images 1 --preset tiny \\
        --work runs/smoke --out runs/smoke/results      # does it run

Work (pairs, checkpoints, log.txt) goes to --work; table, curves, images and summary.json to --out.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import sys
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from timing import machine, write_result

import datagen
from datagen.make.progress import Watcher
from irsde.config import TrainConfig
from irsde.data import Subset, open_store, split
from irsde.evaluation.evaluate import evaluate
from irsde.evaluation.results import Result, Row
from irsde.evaluation.table import write_report
from irsde.network import load
from irsde.training import train
from ussim.commands import console

REPOSITORY = Path(__file__).resolve().parents[1]
STEP_COUNTS = (100, 50, 20, 10, 5)
METRICS = ("psnr", "ssim", "aligned_psnr")
LEARNED_CURVE = "median + fitted tone curve"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mri", type=Path, default=REPOSITORY.parent / "shared" / "data" / "mri_nifti")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "irsde_learning")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "irsde_learning")
    parser.add_argument("--probe", default="L11-5v")
    parser.add_argument("--pairs", type=int, default=320, help="training and test pairs together")
    parser.add_argument("--test-subject", default="nibabel_example4d", help="held out: never trained on")
    parser.add_argument("--test-images", type=int, default=12, help="evenly spread over that subject's")
    parser.add_argument("--minutes", type=float, default=58.0, help="of training")
    parser.add_argument("--training-steps", type=int, help="in place of what fits into --minutes")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--loss", default=None, help="default: the preset's")
    parser.add_argument("--max-sigma", type=float, default=0.2)
    parser.add_argument("--sampler", default="posterior", help="of the headline rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    with open(arguments.work / "log.txt", "a", encoding="utf-8") as log, redirect_stderr(Tee(sys.stderr, log)):
        return run(arguments)


def run(arguments: argparse.Namespace) -> int:
    store = build_pairs(arguments)
    pairs = open_store(str(store), (arguments.probe,))[0]
    fold = fold_of(pairs, arguments.test_subject)
    training, held_out = split(pairs, fold)
    others = sorted(set(held_out.subjects) - {s for s in held_out.subjects if s.endswith("/" + arguments.test_subject)})
    if others:
        console.note(f"also held out with {arguments.test_subject}: {', '.join(others)}")
    console.note(f"{len(training)} training pairs of {len(set(training.subjects))} subjects, {len(held_out)} held out")

    folder = arguments.work / "irsde"
    config = planned(arguments, store, fold, pairs)
    train(config, folder, resume=True)

    tests = evenly(held_out, arguments.test_images)
    result = measure(arguments, folder, training, tests)
    return report(arguments, config, folder, training, tests, result)


# --- stages ----------------------------------------------------------------------------------------------------------


def build_pairs(arguments: argparse.Namespace) -> Path:
    """Return the pairs store; finished if it is there."""
    store = arguments.work / "pairs.zarr"
    recipe = datagen.Recipe(
        source="nifti",
        root=arguments.mri,
        probes=(arguments.probe,),
        planes=("axial", "coronal", "sagittal"),
        limit=arguments.pairs,
        seed=arguments.seed,
    )
    summary = datagen.build(recipe, store, resume=True, watcher=Building())
    console.note(f"{store.name}: {summary.n_samples} pairs of {summary.n_subjects} subjects")
    return store


def fold_of(pairs: Any, subject: str) -> int:
    """Return the fold that a subject fell in."""
    folds = {row["subject"]: int(row["fold"]) for row in pairs.samples}
    if subject not in folds:
        raise SystemExit(f"--test-subject: expected one of {', '.join(sorted(folds))}, got {subject}")
    return folds[subject]


def planned(arguments: argparse.Namespace, store: Path, fold: int, pairs: Any) -> TrainConfig:
    """Return the training config.

    How many steps fit into the time is measured once and kept, since the schedule needs it.
    """
    plan = arguments.work / "plan.json"
    if plan.exists():
        return TrainConfig(**json.loads(plan.read_text(encoding="utf-8")))
    given: dict[str, Any] = {"loss": arguments.loss} if arguments.loss else {}
    config = TrainConfig.create(
        store=str(store),
        probes=(arguments.probe,),
        fold=fold,
        preset=arguments.preset,
        max_sigma=arguments.max_sigma,
        mixed_precision="bf16",  # 1.5 times as fast as float32 on CPUs with AVX512-BF16; the weights stay float32
        batch_size=4,
        learning_rate=1e-3,
        warmup=200,
        validate_every=1000,
        checkpoint_every=500,
        device=arguments.device,
        seed=arguments.seed,
        **given,
    )
    config = replace(config, steps=arguments.training_steps or steps_that_fit(config, arguments, pairs))
    partial = plan.with_suffix(".partial")
    partial.write_text(json.dumps(config.to_dict(), indent=1), encoding="utf-8")
    os.replace(partial, plan)
    return config


def steps_that_fit(config: TrainConfig, arguments: argparse.Namespace, pairs: Any) -> int:
    """Return steps in `minutes`, from a short trial; 5 % of the time is left for checkpoints and sample sheets."""
    trial, steps = arguments.work / "speed", 60
    shutil.rmtree(trial, ignore_errors=True)
    train(replace(config, steps=steps, log_every=20, validate_every=0), trial, pairs=[pairs])
    with open(trial / "metrics.csv", newline="", encoding="utf-8") as file:
        times = [int(row["step"]) / float(row["steps_per_second"]) for row in csv.DictReader(file)]
    shutil.rmtree(trial)
    rate = (steps - 20) / (times[-1] - times[0])  # without the first steps, which allocate
    fitting = max(100, int(0.95 * rate * 60 * arguments.minutes))
    console.note(f"{rate:.2f} steps per second: {fitting} steps in {arguments.minutes:g} minutes")
    return fitting


def measure(arguments: argparse.Namespace, folder: Path, training: Subset, tests: Subset) -> Result:
    """Return the table: filters, the headline sampler and the deterministic one at each step count, and averaged samples."""
    model = load(folder, device=arguments.device)
    counts = [n for n in STEP_COUNTS if n <= model.sde.n_steps]
    result = evaluate([model], [tests], steps=counts, sampler=arguments.sampler, fit=[training], progress=True)
    averaged: dict[str, Any] = {"steps": (10,), "sampler": "posterior", "samples": 8}
    others: list[dict[str, Any]] = [{"steps": counts, "sampler": "ddim"}] if arguments.sampler != "ddim" else []
    for options in (*others, averaged):
        more = evaluate([model], [tests], baselines=False, progress=True, **options)
        known = {(row.method, row.steps, row.note) for row in result.rows}
        result.rows += [row for row in more.rows if (row.method, row.steps, row.note) not in known]
        for shown, extra in zip(*(r.pictures[tests.probe] for r in (result, more)), strict=True):
            shown[-1:-1] = [(title, image) for title, image in extra[1:-1] if ", 10 ddim" in title or "mean" in title]
    return result


def report(
    arguments: argparse.Namespace, config: TrainConfig, folder: Path, training: Subset, tests: Subset, result: Result
) -> int:
    """Write table, curves and summary; 0 if the claim holds, 1 if not."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_report(result, arguments.out / "table.md", f"IR-SDE ({config.preset}) on a subject it was not trained on")
    curves(folder / "metrics.csv", arguments.out / "curves.png")
    lq, *others = result.rows
    learned = [row for row in others if row.steps]
    filters = [row for row in others if not row.steps]
    headline = [row for row in learned if row.note == arguments.sampler and row.method == folder.name]
    least = {name: min(row.mean(name) for row in headline) for name in METRICS}  # of all step counts
    checks = {f"beats every filter in {name}": least[name] > max(row.mean(name) for row in filters) for name in METRICS}
    checks["3 dB over LQ"] = least["psnr"] - lq.mean("psnr") >= 3
    curve = next(row for row in filters if row.method == LEARNED_CURVE)
    checks["beats a median with a fitted tone curve"] = all(least[n] > curve.mean(n) for n in METRICS)
    with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    summary = {
        "command": " ".join(["python", "benchmarks/irsde_learning.py", *sys.argv[1:]]),
        "passed": all(checks.values()),
        "checks": checks,
        "headline": {"sampler": arguments.sampler, "least_of_all_step_counts": least},
        "rows": [numbers(row) for row in result.rows],
        "training": {
            "pairs": len(training),
            "subjects": sorted(set(training.subjects)),
            "steps": int(last["step"]),
            "steps_per_second": float(last["steps_per_second"]),
            "settings": {k: v for k, v in config.to_dict().items() if k != "store"},
        },
        "test": {"images": len(tests), "subjects": sorted(set(tests.subjects))},
        "machine": machine(("ussim", "torch", "diffusers", "numpy")),
    }
    write_result(arguments.out / "summary.json", summary)
    for text, passed in checks.items():
        console.result(f"{'yes' if passed else 'NO '}  {text}")
    console.result(str(arguments.out / "table.md"))
    return 0 if summary["passed"] else 1


def curves(table: Path, target: Path) -> None:
    """Training and held-out loss, and the PSNR of restored held-out patches, over steps."""
    from matplotlib.figure import Figure

    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([int(r["step"]) for r in rows], [float(r["loss"]) for r in rows], lw=0.7, label="training")
    held = [r for r in rows if r["held_out_loss"]]
    steps = [int(r["step"]) for r in held]
    left.plot(steps, [float(r["held_out_loss"]) for r in held], "o-", ms=3, label="held out")
    left.set(xlabel="step", ylabel="loss", yscale="log")
    left.legend()
    right.plot(steps, [float(r["held_out_psnr"]) for r in held], "o-", ms=3)
    right.set(xlabel="step", ylabel="PSNR of held-out patches, dB")
    figure.savefig(target, dpi=130)


# --- helpers ---------------------------------------------------------------------------------------------------------


def evenly(subset: Subset, n: int) -> Subset:
    """`n` pairs spread over a subset."""
    return subset.select(np.unique(np.linspace(0, len(subset) - 1, min(n, len(subset))).astype(int)))


def numbers(row: Row) -> dict[str, Any]:
    """Return a row's means, and the median time of an image."""
    values = {name: round(row.mean(name), 4) for name in METRICS}
    seconds = round(float(np.median(row.values["seconds"])), 4)
    return {"method": row.method, "steps": row.steps, "setting": row.note, **values, "seconds": seconds}


class Building(Watcher):
    """Lines of progress while pairs are simulated."""

    def begin(self, total: int, done: int) -> None:
        self.bar = console.Progress("simulating", total, done)
        self.bar.__enter__()

    def progress(self, done: int, set_aside: int) -> None:
        self.bar.advance(done - self.bar.done)

    def end(self) -> None:
        if hasattr(self, "bar"):
            self.bar.__exit__()


class Tee:
    """Writes to a stream and to a log file; not a terminal, so progress comes in lines."""

    def __init__(self, *streams: TextIO) -> None:
        self.streams = streams

    def write(self, text: str) -> int:
        for stream in self.streams:
            stream.write(text)
            stream.flush()
        return len(text)

    def flush(self) -> None:
        for stream in self.streams:
            stream.flush()

    def isatty(self) -> bool:
        return False


if __name__ == "__main__":
    sys.exit(main())
