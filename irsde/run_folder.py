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


def write_sheet(rows: Sequence[tuple[np.ndarray, ...]], path: Path) -> None:
    """One row of images per pair (LQ, restored, HQ), grey levels in [0, 1], as a PNG."""
    from PIL import Image

    sheet = np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Image.fromarray(np.round(np.clip(sheet, 0, 1) * 255).astype(np.uint8)).save(temporary)


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _details(model: Model | None) -> dict[str, Any]:
    return (model.details or {}) if model else {}
