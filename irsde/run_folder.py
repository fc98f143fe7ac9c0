"""The files of a run folder besides its checkpoints: the record, the rows of metrics, the sample sheets.

A file appears under its name when it is whole, and a full disk ends in an error that names the file.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from irsde import recipes
from irsde.config import FORMAT, TrainConfig
from irsde.lessons import Lessons, places
from irsde.network import Model
from irsde.run_lock import hold
from ussim.errors import ExistsError
from ussim.io.atomic import replacing

INTERVALS = "intervals.json"  # what `irsde calibrate-intervals` keeps beside the run
COLUMNS = ("step", "loss", "learning_rate", "gradient_norm", "steps_per_second", "held_out_loss", "held_out_psnr")
SHEET = ("LQ", "restored", "HQ")  # images of a row of a sample sheet
ALWAYS = COLUMNS[:5]  # what no whole row lacks
PACKAGES = ("ussim", "torch", "diffusers", "accelerate", "numpy")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give the error of a disk the name of what was being written, where it has none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def start(
    out: Path,
    config: TrainConfig,
    lessons: Lessons,
    origins: Mapping[str, Model | None],
    n_parameters: int,
    n_processes: int,
) -> None:
    """Make a run folder: its record is written last. `origins` are the models whose weights it starts from, by setting."""
    for name in ("checkpoints", "samples"):
        (out / name).mkdir(parents=True, exist_ok=True)
    _write_rows(out / "metrics.csv", [])
    training_subjects = {s for subset in lessons.training for s in subset.subjects}
    seen = {s for model in origins.values() for s in _details(model).get("training_subjects", ())}
    record: dict[str, Any] = {
        "format": FORMAT,
        "config": config.to_dict(),
        "recipe": recipes.record(config.to_dict()),
        "stores": places(config.stores, out),
        "store_digests": lessons.digests,
        "left_out": lessons.left_out,
        "processes": n_processes,
        "normalization": asdict(lessons.normalization),
        "parameters": n_parameters,
        "probes": list(dict.fromkeys(subset.probe for subset in lessons.training)),
        # Of the runs it starts from too: their weights have seen them.
        "training_subjects": sorted(training_subjects | seen),
        "held_out_subjects": sorted({s for subset in lessons.held_out for s in subset.subjects}),
        "training_pairs": sum(map(len, lessons.training)),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }
    for setting, model in origins.items():
        if model:
            record[setting] = {"run": os.path.realpath(getattr(config, setting)), "step": model.step}
    with replacing(out / "config.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")


def start_again(out: Path, keep: Iterable[str | Path], report: Callable[[str], None]) -> None:
    """Delete the run in a folder, if there is one that nobody trains in and that holds nothing of `keep`.

    Raises
    ------
    ExistsError
        The folder holds something else, or what the new run is to be made of.
    DataError
        A training is at work in it.
    """
    if not (out / "config.json").exists():
        return
    known = {"checkpoints", "metrics.csv", "samples", "lock.json", "tensorboard", INTERVALS}  # and of a prior:
    known |= {
        "checkpoint.pt",
        "unet",
        "scheduler",
        "prior.json",
        "log.jsonl",
        *(["config.json"] if _is_run(out) else []),
    }
    # Hidden files are what an end in the midst of writing left; hidden folders are of other programs, as a repository is.
    other = sorted(p.name for p in out.iterdir() if p.name not in known and (p.is_dir() or not p.name.startswith(".")))
    if other:
        raise ExistsError(
            f"{out}: holds {other[0]}, which is of no run; delete the folder by hand, or choose another --out"
        )
    for path in keep:
        if os.path.exists(path) and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(out)):
            raise ExistsError(f"{out}: holds {path}, which the new run needs; choose another --out")
    with hold(out, report):
        pass
    shutil.rmtree(out)


def _is_run(out: Path) -> bool:
    """Return whether the record in a folder is that of a training, of a model or of a prior."""
    try:
        record = json.loads((out / "config.json").read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(record, dict) and ({"format", "config"} <= record.keys() or "iterations" in record)


def append_row(out: Path, row: Mapping[str, float]) -> None:
    """Add a row to metrics.csv."""
    path = out / "metrics.csv"
    with naming(path), open(path, "a", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, COLUMNS).writerow(row)


def drop_rows_after(out: Path, step: int) -> None:
    """Remove rows cut short and rows after the last checkpoint of an interrupted run, which will be written again."""
    path, rows = out / "metrics.csv", []
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            whole = (row for row in csv.DictReader(file) if all(row[name] for name in ALWAYS))
            rows = [row for row in whole if row["step"].isdigit() and int(row["step"]) <= step]
    _write_rows(path, rows)


def write_sheet(rows: Sequence[tuple[np.ndarray, ...]], path: Path, names: Sequence[str] = SHEET) -> None:
    """One row of images per pair (LQ, restored, HQ), grey levels in [0, 1], as a PNG; `names` stand over them."""
    from ussim.show.sheets import image_sheet

    sheet = image_sheet([list(zip(names, row, strict=True)) for row in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        sheet.save(temporary)


def write_curves(out: Path) -> None:
    """Draw the rows of metrics.csv as curves.png: loss, held-out loss and PSNR, and the learning rate, over steps."""
    from ussim.show.figures import new_figure, save_figure

    with open(out / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if all(row[name] for name in ALWAYS)]
    if not rows:
        return

    def column(name: str) -> tuple[list[int], list[float]]:
        found = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
        return [step for step, _ in found], [value for _, value in found]

    panels: list[tuple[str, list[tuple[str, str]], bool]] = [
        ("loss", [("loss", "training"), ("held_out_loss", "held out")], True),
        ("held-out PSNR [dB]", [("held_out_psnr", "held out")], False),
        ("learning rate", [("learning_rate", "")], False),
    ]
    panels = [panel for panel in panels if any(column(name)[0] for name, _ in panel[1])]
    figure = new_figure(4.2 * len(panels), 3.4)
    for axes, (title, curves, is_log) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        values = []
        for name, label in curves:
            steps, levels = column(name)
            values += levels
            if steps:
                axes.plot(
                    steps, levels, "o-" if len(steps) < 30 else "-", markersize=3, linewidth=1.2, label=label or None
                )
        if is_log and values and min(values) > 0:
            axes.set_yscale("log")
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)
        if sum(bool(column(name)[0]) for name, _ in curves) > 1:
            axes.legend(frameon=False)
    save_figure(figure, out / "curves.png", {"rows": len(rows), "last_step": int(rows[-1]["step"])})


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _details(model: Model | None) -> dict[str, Any]:
    return (model.details or {}) if model else {}
