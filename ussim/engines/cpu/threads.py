"""Compiled kernels in threads, with progress, and gone within a moment when the caller is interrupted.

Python's threads rather than Numba's: kernels may be called from threads and after a fork, and compile faster. They run
without the interpreter's lock, so the calling thread stays free to hear ctrl-C and to report.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...plan import Progress

INTERVAL = 0.1  # s between looks at a running kernel
STOP, FINISHED = 0, 1  # places in a kernel's `watch`: not 0 = leave; steps finished by each worker, from there on


_heard: list[int] | None = None  # signals that `_held_back` holds back, None outside of it


@contextmanager
def _held_back() -> Iterator[None]:
    """Hold ctrl-C back until `_raise_if_heard` or the end of the block.

    An exception between a lock's taking and its release, as Python raises ctrl-C in the midst of `wait`, leaves the lock
    taken, and the workers wait for it without end. Handlers of others, which raise nothing here, stay as they are.
    """
    global _heard
    is_default = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not is_default:
        yield
        return
    heard: list[int] = []
    _heard = heard
    signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        yield
    finally:
        _heard = None
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if heard:
            raise KeyboardInterrupt


def _raise_if_heard() -> None:
    """Raise the ctrl-C that is held back, where no lock is taken."""
    if _heard and threading.current_thread() is threading.main_thread():
        _heard.clear()
        raise KeyboardInterrupt


def n_threads() -> int:
    """Return this thread's share of the cores: that of `share_of_this_thread`, `share_threads` or `numba.set_num_threads`.

    Without any, NUMBA_NUM_THREADS: by default the cores that the process may use. Numba is asked only where it is loaded
    and its own threads were started: asking starts them, and a fork after that is unsafe.
    """
    share = getattr(_of_this_thread, "share", _share)
    if share:
        return int(share)
    if getattr(sys.modules.get("numba.np.ufunc.parallel"), "_is_initialized", False):
        return int(sys.modules["numba"].get_num_threads())
    return _n_cores()


def _n_cores() -> int:
    """NUMBA_NUM_THREADS as Numba reads it, which may be set in the program too."""
    if "numba" in sys.modules:
        return int(sys.modules["numba"].config.NUMBA_NUM_THREADS)
    asked = os.environ.get("NUMBA_NUM_THREADS", "")
    if asked.strip().isdecimal() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_share = 0  # of several processes; 0 where there is one
_of_this_thread = threading.local()


def share_of_this_thread(n: int) -> None:
    """Let kernels that this thread calls run in n threads: others of the process have their own share."""
    _of_this_thread.share = n


def as_input(array: np.ndarray) -> np.ndarray:
    """Return a read-only C-contiguous view, a copy where it takes one: a kernel is compiled for one kind of array only."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def share_threads(n_processes: int) -> None:
    """Leave each of several processes its share of the cores, from here on in this one; what the user set stays."""
    global _share
    if "NUMBA_NUM_THREADS" not in os.environ:
        _share = max(1, n_threads() // n_processes)


def in_threads(
    kernel: Callable[..., None],
    arguments: tuple[Any, ...],
    progress: Progress | None = None,
    done: int = 0,
    total: int = 0,
) -> None:
    """Run kernel(*arguments, watch, worker, n_workers) in every worker's thread.

    A kernel looks at watch[STOP] before each of its tiles, and counts the steps of it in watch[FINISHED + worker].
    `done` steps of `total` were finished before.
    """
    n_workers = n_threads()
    watch = np.zeros(FINISHED + n_workers, np.int64)
    with _held_back(), ThreadPoolExecutor(n_workers) as pool:
        try:
            tasks = [pool.submit(kernel, *arguments, watch, worker, n_workers) for worker in range(n_workers)]
            waiting: set[Future[Any]] = set(tasks)
            while waiting:
                _, waiting = wait(waiting, INTERVAL)
                _raise_if_heard()
                if progress is not None:
                    progress(done + int(watch[FINISHED:].sum()), total)
            for task in tasks:
                task.result()
        except BaseException:  # ctrl-C, or whatever `progress` raised
            watch[STOP] = 1
            raise


@contextmanager
def workers(n: int) -> Iterator[ThreadPoolExecutor]:
    """Give a pool of n threads; whatever ends the block early takes the tasks that have not begun with it."""
    with _held_back():
        pool = ThreadPoolExecutor(n)
        try:
            yield pool
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        pool.shutdown()


def finish(tasks: Sequence[Future[Any]], progress: Progress | None = None) -> None:
    """Wait for all tasks, raise what one of them raised, report how many are done."""
    waiting: set[Future[Any]] = set(tasks)
    while waiting:
        done, waiting = wait(waiting, INTERVAL)
        _raise_if_heard()
        for task in done:
            task.result()
        if progress is not None:
            progress(len(tasks) - len(waiting), len(tasks))
