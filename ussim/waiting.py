"""One line for who waits: said once in a process, and only where the wait is longer than half a second."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DELAY = 0.5  # s; what is done sooner is not spoken of

_say: Callable[[str], None] | None = None
_said: set[str] = set()


def announce(say: Callable[[str], None]) -> None:
    """Call `say` with one line when something makes this process wait longer than half a second."""
    global _say
    _say = say


@contextmanager
def taking(text: str) -> Iterator[None]:
    """Say the text, once in a process, if the block takes longer than half a second."""
    timer = threading.Timer(DELAY, _tell, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _tell(text: str) -> None:
    if _say is not None and text not in _said:
        _said.add(text)
        _say(text)
