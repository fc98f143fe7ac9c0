"""One training per run folder: a lock that names its holder and outlives no dead one."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from irsde.data import DataError

LIFE = 3600.0  # s without a sign of life after which a holder on another host is taken for dead
PULSE = 30.0  # s between signs of life


class RunLock:
    """A held lock; `beat` is the sign of life that other hosts go by."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = time.monotonic()

    def beat(self) -> None:
        """Say that the holder is alive, at most once in `PULSE` seconds."""
        if time.monotonic() - self._last >= PULSE:
            self._last = time.monotonic()
            with suppress(FileNotFoundError):  # deleted by hand, as the message to others suggests
                os.utime(self._path)


@contextmanager
def hold(run: Path, report: Callable[[str], None]) -> Iterator[RunLock]:
    """Hold the lock of a run folder while the context lasts.

    A lock whose process is gone from this host, or that has shown no sign of life for an hour on another, is taken over; a
    line says so.

    Raises
    ------
    DataError
        Another training is at work in the folder: the message names host and process.
    """
    path = run / "lock.json"
    new = [folder for folder in (run, *run.parents) if not folder.exists()]
    try:
        run.mkdir(parents=True, exist_ok=True)
        _take(path, report)
        try:
            yield RunLock(path)
        finally:
            if _holder(path) == _myself():
                path.unlink(missing_ok=True)
    finally:
        with suppress(OSError):  # where nothing was written, as if the folder had never been asked for
            for folder in new:
                folder.rmdir()


def _take(path: Path, report: Callable[[str], None]) -> None:
    """Write the lock; raises DataError where another holds it."""
    for _ in range(2):
        try:
            with open(path, "x", encoding="utf-8") as file:
                json.dump(_myself(), file)
            return
        except FileExistsError:
            _take_over(path, report)
        except OSError as error:  # half a lock would name nobody, and keep everybody out for an hour
            path.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    raise DataError(f"{path.parent}: another training took this run folder just now; choose another --out")


def _take_over(path: Path, report: Callable[[str], None]) -> None:
    """Remove a lock whose holder is dead; raises DataError where it is not."""
    holder = _holder(path)
    try:
        silence = time.time() - path.stat().st_mtime
    except FileNotFoundError:  # let go meanwhile
        return
    who = f"process {holder.get('process')} on {holder.get('host')}"
    if holder.get("host") == platform.node():
        if _is_alive(holder):
            raise DataError(
                f"{path.parent}: {who} is training in this folder; wait for it, stop it, or choose another --out"
            )
    elif silence < LIFE:
        raise DataError(
            f"{path.parent}: {who} is training in this folder (last sign of life {silence:.0f} s ago); wait for it, or if "
            f"it has ended delete {path}"
        )
    report(f"{path.parent}: {who} ended without letting go of this folder; going on")
    path.unlink(missing_ok=True)


def _myself() -> dict[str, Any]:
    return {"host": platform.node(), "process": os.getpid(), "started": _start_of(os.getpid())}


def _holder(path: Path) -> dict[str, Any]:
    """Return who holds a lock; empty where it cannot be read, as when its writer was killed in the middle."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return holder if isinstance(holder, dict) else {}
    except (OSError, ValueError):
        return {}


def _is_alive(holder: dict[str, Any]) -> bool:
    """Return whether the process is there, and is not another that was given its number since."""
    process, started = holder.get("process"), holder.get("started")
    return isinstance(process, int) and started is not None and _start_of(process) == started


def _start_of(process: int) -> float | None:
    """Return when a process of this host was started, s; None where there is none."""
    import psutil  # comes with dask.distributed

    try:
        return round(psutil.Process(process).create_time(), 1)
    except psutil.Error:
        return None
