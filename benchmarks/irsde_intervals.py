"""Coverage of 90 % intervals on a subject that was neither learned from nor calibrated on.

Takes the networks of `irsde_flow.py` and its pairs. Intervals are calibrated on an abdomen, on phantoms, or on both, and
tested on a brain and on other phantoms; errors are split in bias and speckle over three draws of speckle each.

    python benchmarks/irsde_flow.py && python benchmarks/irsde_intervals.py
"""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
from irsde_learning import REPOSITORY, Tee
from irsde_pairs import CALIBRATION, Pairs, study_pairs
from timing import machine, write_result

from irsde.data import whole
from irsde.evaluation.coverage import coverage, fit_intervals
from irsde.evaluation.evaluate import split_error
from irsde.network import load
from irsde.sample import restore
from ussim.commands import console

# Network -> how its samples are drawn.
DRAWN: dict[str, dict[str, Any]] = {
    "unet+skip": {"n_samples": 1},
    "pmrf": {"n_samples": 8, "steps": 2},
    "irsde+skip": {"n_samples": 8, "steps": 5},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "irsde_flow")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "irsde_intervals")
    parser.add_argument("--n-tests", type=int, default=12)
    parser.add_argument("--level", type=float, default=0.9)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with open(arguments.work / "log.txt", "a", encoding="utf-8") as log, redirect_stderr(Tee(sys.stderr, log)):
        return run(arguments)


def run(arguments: argparse.Namespace) -> int:
    pairs = study_pairs(arguments.work, arguments.data, n_tests=arguments.n_tests)
    abdomen, phantoms = (
        pairs["calibrate"].select(lambda row, is_mri=is_mri: (row["subject"] == CALIBRATION) == is_mri)
        for is_mri in (True, False)
    )
    calibrations: dict[str, list[Pairs]] = {"abdomen": [abdomen], "phantoms": [phantoms], "both": [abdomen, phantoms]}
    tests = {kind: pairs["test"].select(lambda row, kind=kind: row["source"] == kind) for kind in ("mri", "phantom")}
    rows, errors = [], []
    for name, options in DRAWN.items():
        model = load(arguments.work / name, device="cpu")
        for calibrated, parts in calibrations.items():
            made = fit_intervals([model], [whole(part) for part in parts], level=arguments.level, **options)
            for kind, test in tests.items():
                found = coverage(made, [model], [whole(test)], seed=1)[-1]
                rows.append({
                    "method": name, "calibrated_on": calibrated, "tested_on": kind, "inside": found.inside,
                    "below": found.below, "above": found.above, "width_grey_levels": 255 * found.width,
                })  # fmt: skip
                console.note(str(rows[-1]))
        for kind, test in tests.items():
            errors.append({"method": name, "tested_on": kind, **split(model, test, options)})
            console.note(str(errors[-1]))
    write_result(arguments.out / "summary.json", {
        "command": " ".join(["python", "benchmarks/irsde_intervals.py", *sys.argv[1:]]),
        "level": arguments.level, "drawn": DRAWN, "coverage": rows, "errors": errors,
        "machine": machine(("ussim", "torch", "diffusers", "numpy")),
    })  # fmt: skip
    (arguments.out / "table.md").write_text(table(rows, errors, arguments), encoding="utf-8")
    console.result(str(arguments.out / "table.md"))
    return 0


def split(model: Any, test: Pairs, options: dict[str, Any]) -> dict[str, float]:
    """Return bias and speckle of one restoration, root mean squares over the images."""
    steps = {"steps": options["steps"]} if "steps" in options else {}
    found = []
    for i in range(len(test)):
        drawn = [restore(model, lq, seed=10 * i + k, mask=None, **steps) for k, lq in enumerate(test.draws(i))]
        found.append(split_error(drawn, test[i][0]))
    return {name: float(np.sqrt(np.mean([row[name] ** 2 for row in found]))) for name in ("bias", "speckle")}


def table(rows: list[dict[str, Any]], errors: list[dict[str, Any]], arguments: argparse.Namespace) -> str:
    """Return the results as Markdown."""
    header = ["method", "calibrated on", "tested on", "inside", "below", "above", "width"]
    lines = [
        "# Coverage of intervals", "",
        f"Meant to hold {arguments.level:.0%} of the pixels. Calibrated on {arguments.n_tests} images of an abdomen, as "
        f"many phantoms, or both; tested on {arguments.n_tests} images of a brain, or other phantoms. Width in grey levels.",
        "", "| " + " | ".join(header) + " |", "|---|---|---|" + "---:|" * 4,
    ]  # fmt: skip
    for row in rows:
        shares = " | ".join(f"{100 * row[name]:.1f} %" for name in ("inside", "below", "above"))
        lines.append(
            f"| {row['method']} | {row['calibrated_on']} | {row['tested_on']} | {shares} | {row['width_grey_levels']:.0f} |"
        )
    lines += ["", "## Error of one restoration, grey levels of 255", "", "| method | tested on | bias | speckle |"]
    lines += ["|---|---|---:|---:|"]
    lines += [f"| {row['method']} | {row['tested_on']} | {row['bias']:.1f} | {row['speckle']:.1f} |" for row in errors]
    lines += [
        "", "Bias: what the mean over the draws of speckle misses. Speckle: how far one draw (of speckle, and of the "
        "sampler's noise) is from that mean. Their squares add up to the mean squared error.", "",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
