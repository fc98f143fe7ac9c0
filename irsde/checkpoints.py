"""Checkpoints of a run: written whole, recognized as whole, the newest that is.

    runs/a/checkpoints/000500/   weights.safetensors, ema.safetensors, state.pt, digests.json (SHA-256 of the others)

A folder is written beside its place and renamed, so that one with a number was complete once. What a full disk, a copy or a
crash of the machine did to it later is told by its digests; checkpoints of earlier versions have none and are tried as they
are.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from irsde.data import DataError

KEEP = 2  # checkpoints of a run
DIGESTS = "digests.json"
FILES = ("weights.safetensors", "ema.safetensors", "state.pt")


class DamagedError(DataError):
    """A file of a checkpoint that cannot be used."""


def numbered(run: Path) -> list[Path]:
    """Return the checkpoint folders of a run, the latest step last."""
    folders = (path for path in run.glob("checkpoints/*") if path.name.isdigit() and path.is_dir())
    return sorted(folders, key=lambda path: int(path.name))


def newest_checkpoint(run: Path) -> Path | None:
    """Return the checkpoint folder of the latest step, whole or not; None where there is none."""
    return next(reversed(numbered(run)), None)


def write_checkpoint(
    run: Path, step: int, weights: Mapping[str, Tensor], ema: Mapping[str, Tensor], state: Mapping[str, Any]
) -> Path:
    """Write the checkpoint of a step, then remove all but the newest `KEEP` up to it.

    Raises
    ------
    OSError
        The disk is full or the folder cannot be written; no checkpoint is lost then.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    final = run / "checkpoints" / f"{step:06d}"
    partial = final.with_name(f".{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for name, tensors in zip(FILES, (weights, ema), strict=False):
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial / name)
        torch.save(dict(state), partial / "state.pt")
        digests = {name: _digest(partial / name) for name in FILES}
        (partial / DIGESTS).write_text(json.dumps(digests, indent=1), encoding="utf-8")
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror or str(error), str(final)) from error
        raise DataError(
            f"{final}: the checkpoint cannot be written ({_first_line(error)}); is the disk full?"
        ) from error
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    for old in [path for path in numbered(run) if int(path.name) <= step][:-KEEP]:
        shutil.rmtree(old)
    return final


def read_checkpoint(
    run: Path, read: Callable[[Path], Any], report: Callable[[str], None]
) -> tuple[Path, Any] | tuple[None, None]:
    """Return the newest checkpoint that is whole, and what `read` makes of it.

    Parameters
    ----------
    read : called with a folder; may raise DamagedError.
    report : gets a line for each damaged one that is passed over.

    Returns
    -------
    The folder and the result; None and None where there is no checkpoint at all.

    Raises
    ------
    DataError
        There are checkpoints, and none is whole: every fault is named.
    """
    faults: list[str] = []
    for folder in reversed(numbered(run)):
        fault = damage(folder)
        if fault is None:
            try:
                result = read(folder)
            except DamagedError as error:
                fault = str(error)
            else:
                for line in faults:
                    report(f"{line}; using the checkpoint of step {int(folder.name)}")
                return folder, result
        faults.append(fault)
    if faults:
        raise DataError(f"no checkpoint is whole: {'; '.join(faults)}")
    return None, None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; raises DamagedError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise DamagedError(f"{path}: {_first_line(error)}") from error


def read_state(path: Path) -> dict[str, Any]:
    """Return what `write_checkpoint` was given as state; raises DamagedError."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of zip, pickle or torch, as the damage has it
        raise DamagedError(f"{path}: {_first_line(error)}") from error


def damage(folder: Path) -> str | None:
    """Return the first file of a checkpoint that is missing or not as it was written, and how; None where all are."""
    for name in FILES:
        if not (folder / name).is_file():
            return f"{folder / name}: missing"
    path = folder / DIGESTS
    if not path.exists():
        return None
    try:
        digests = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name in FILES if digests[name] != _digest(folder / name)]
    except (ValueError, KeyError, TypeError):
        return f"{path}: cannot be read"
    return f"{folder / changed[0]}: damaged (not the bytes that were written)" if changed else None


def set_aside_after(run: Path, step: int) -> None:
    """Rename the checkpoints of later steps, which were found damaged, so that they are not in the way of new ones."""
    for folder in numbered(run):
        if int(folder.name) > step:
            target = folder.with_name(f"{folder.name}.damaged")
            shutil.rmtree(target, ignore_errors=True)
            folder.rename(target)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
