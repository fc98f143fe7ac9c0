"""Being stopped: SIGTERM ends a command as ctrl-C does, in one line, and neither comes where it would break something.

with terminable():        # around a command
    with deferred():      # around what must not be cut in the middle; children made inside do not hear ctrl-C
        ...
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(BaseException):
    """SIGTERM: the system, a scheduler of jobs or a user asks the process to end."""


@contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` where SIGTERM comes inside, if nobody else listens to it."""
    if not _is_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    owner = os.getpid()

    def terminate(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a fork, which has no command to end
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is terminate:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def deferred() -> Iterator[None]:
    """Let ctrl-C and SIGTERM wait for the end of the block, which raises what came; an error inside gives way to it.

    Processes started inside do not hear ctrl-C, which reaches a whole group: whoever started them ends them.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    if not _is_main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in numbers}
    masked = hasattr(signal, "pthread_sigmask")
    if masked:
        # The mask is inherited by threads and processes started from here. What multiprocessing starts for itself would
        # lift it, so it is started first.
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if masked:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # a signal that waited is heard here
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            raise Terminated if came[-1] == signal.SIGTERM else KeyboardInterrupt


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
