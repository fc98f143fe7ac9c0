"""Amount of data that is enough: pairs and subjects against dB, from MRI, from phantoms and from both.

Trains a small supervised U-Net on growing parts of the same pairs (`irsde_pairs`), each with as many optimizer steps, and
tests it on a brain that it has never seen, and on phantoms. The spread is over seeds, which draw both the weights and
which pairs are learned from.

    python benchmarks/irsde_amount.py
    python benchmarks/irsde_amount.py --training-steps 10 --seeds 0 --counts 8 16 --n-mri 16 --n-phantoms 16 --n-tests 2 \\
        --work runs/smoke --out runs/smoke/results          # does it run
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
from irsde_learning import REPOSITORY, Tee
from irsde_pairs import TRAINING, Pairs, study_pairs
from timing import machine, write_result

from irsde.config import TrainConfig
from irsde.evaluation import metrics
from irsde.network import load
from irsde.sample import restore
from irsde.training import train
from ussim.commands import console

COUNTS = (50, 150, 300, 1000)
KINDS = ("mri", "phantoms", "both")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "irsde_amount")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "irsde_amount")
    parser.add_argument("--n-mri", type=int, default=1000, help="cuts of MRI slices there are")
    parser.add_argument("--n-phantoms", type=int, default=1000, help="phantoms there are")
    parser.add_argument("--n-tests", type=int, default=12)
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="pairs; those there are at most")
    parser.add_argument("--training-steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=(*KINDS, "subjects"), help="train these, and write no table")
    arguments = parser.parse_args()
    for folder in (arguments.work, arguments.out):
        folder.mkdir(parents=True, exist_ok=True)
    with open(arguments.work / "log.txt", "a", encoding="utf-8") as log, redirect_stderr(Tee(sys.stderr, log)):
        return run(arguments)


def run(arguments: argparse.Namespace) -> int:
    pairs = study_pairs(arguments.work, arguments.data, arguments.n_mri, arguments.n_phantoms, arguments.n_tests)
    tests = {name: pairs["test"].select(lambda row, name=name: row["source"] == name) for name in ("mri", "phantom")}
    rows = []
    for seed in arguments.seeds:
        for kind, count in settings(arguments, pairs):
            if arguments.only not in (None, kind):
                continue
            rows.append(measured(arguments, drawn(pairs, kind, count, seed), tests, kind, count, seed))
        for n_subjects in range(1, len(TRAINING) + 1):
            if arguments.only not in (None, "subjects"):
                break
            own = [row["subject"] in TRAINING[:n_subjects] for row in pairs["mri"].samples]
            few = pairs["mri"].select([i for i, taken in enumerate(own) if taken])
            count = min(arguments.n_mri // 4, len(few))
            part = few.select(np.random.default_rng([seed, n_subjects]).permutation(len(few))[:count].tolist())
            rows.append(measured(arguments, [part], tests, f"{n_subjects} MRI subjects", count, seed))
    if arguments.only:
        return 0
    lq = {name: float(np.mean([metrics.psnr(t[i][1], t[i][0]) for i in range(len(t))])) for name, t in tests.items()}
    write_result(arguments.out / "summary.json", {
        "command": " ".join(["python", "benchmarks/irsde_amount.py", *sys.argv[1:]]),
        "there_are": {name: len(pairs[name]) for name in ("mri", "phantoms")},
        "steps": arguments.training_steps, "lq_psnr": lq, "rows": rows,
        "machine": machine(("ussim", "torch", "diffusers", "numpy")),
    })  # fmt: skip
    (arguments.out / "table.md").write_text(table(rows, lq, arguments), encoding="utf-8")
    figure(rows, lq, arguments.out / "amount.png")
    console.result(str(arguments.out / "table.md"))
    return 0


def settings(arguments: argparse.Namespace, pairs: dict[str, Pairs]) -> list[tuple[str, int]]:
    """Return kinds and counts of which there are enough pairs."""
    there = {name: len(pairs[name]) for name in ("mri", "phantoms")}
    there["both"] = 2 * min(there.values())
    return [(kind, count) for kind in KINDS for count in arguments.counts if count <= there[kind]]


def drawn(pairs: dict[str, Pairs], kind: str, count: int, seed: int) -> list[Pairs]:
    """Return `count` pairs of a kind, half and half of both."""
    names = ("mri", "phantoms") if kind == "both" else (kind,)
    rng = np.random.default_rng([seed, count])
    return [pairs[name].select(rng.permutation(len(pairs[name]))[: count // len(names)].tolist()) for name in names]


def measured(
    arguments: argparse.Namespace, learned: list[Pairs], tests: dict[str, Pairs], kind: str, count: int, seed: int
) -> dict[str, Any]:
    """Train one network and return its PSNR on the tests; from its run folder if it was measured before."""
    folder = arguments.work / f"{kind.replace(' ', '-')}-{count}-{seed}"
    kept = folder / "psnr.json"
    if not kept.exists():
        steps = arguments.training_steps
        config = TrainConfig.create(
            store="study", preset="tiny", method="unet", skip="smooth", patch_size=64, batch_size=4, steps=steps,
            warmup=min(50, steps // 5), overlays=0.0, validate_every=0, log_every=steps, checkpoint_every=steps,
            device=arguments.device, mixed_precision="bf16", learning_rate=2e-3, seed=seed,
        )  # fmt: skip
        train(config, folder, resume=True, pairs=learned)
        model = load(folder, device=arguments.device)
        found = {name: psnr(model, test) for name, test in tests.items()}
        kept.write_text(json.dumps(found), encoding="utf-8")
    subjects = len({row["subject"] for part in learned for row in part.samples})
    return {"kind": kind, "pairs": count, "subjects": subjects, "seed": seed, **json.loads(kept.read_text("utf-8"))}


def psnr(model: Any, test: Pairs) -> float:
    """Return the mean PSNR of restored images."""
    images = (test[i] for i in range(len(test)))
    return float(np.mean([metrics.psnr(restore(model, lq, mask=None), hq) for hq, lq in images]))


def grouped(rows: list[dict[str, Any]]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Return the rows of each kind and count, of all seeds."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["kind"], row["pairs"]), []).append(row)
    return found


def table(rows: list[dict[str, Any]], lq: dict[str, float], arguments: argparse.Namespace) -> str:
    """Return the results as Markdown."""
    lines = [
        "# How much data is enough", "",
        f"Supervised U-Net with 169,000 parameters, {arguments.training_steps} steps of 4 patches of 64 x 64, smoothed "
        f"skip. PSNR in dB on {arguments.n_tests} images of a brain that was not learned from and as many phantoms; "
        f"mean and largest distance from it over {len(arguments.seeds)} seeds.", "",
        "| learned from | pairs | subjects | unseen brain | phantoms |", "|---|---:|---:|---:|---:|",
        f"| nothing (LQ) |  |  | {lq['mri']:.2f} | {lq['phantom']:.2f} |",
    ]  # fmt: skip
    for (kind, count), own in grouped(rows).items():
        cells = []
        for name in ("mri", "phantom"):
            values = np.array([row[name] for row in own])
            cells.append(f"{values.mean():.2f} ± {np.abs(values - values.mean()).max():.2f}")
        lines.append(f"| {kind} | {count} | {own[0]['subjects']} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "![pairs against dB](amount.png)", ""])


def figure(rows: list[dict[str, Any]], lq: dict[str, float], path: Path) -> None:
    """Draw PSNR over pairs, a panel for each kind of test, a line for each kind of pairs, a dot for each seed."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(8, 3.2), layout="constrained")
    for ax, (name, title) in zip(made.subplots(1, 2), (("mri", "unseen brain"), ("phantom", "phantoms")), strict=True):
        for k, kind in enumerate(KINDS):
            own = [row for row in rows if row["kind"] == kind]
            counts = sorted({row["pairs"] for row in own})
            means = [np.mean([row[name] for row in own if row["pairs"] == count]) for count in counts]
            ax.plot(counts, means, "-", color=f"C{k}", label=kind)
            ax.plot([row["pairs"] for row in own], [row[name] for row in own], ".", color=f"C{k}")
        ax.set(title=title, xlabel="pairs", ylabel="PSNR, dB", xscale="log")
        ax.legend()
    made.savefig(path, dpi=130)


if __name__ == "__main__":
    sys.exit(main())
