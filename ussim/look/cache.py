"""Cache that keeps a page quick: results of stages within a bound, and one worker for the newest request of each line."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

Result = TypeVar("Result")
LARGEST = 256 << 20  # bytes that the results of stages may take
MOST_LINES = 64  # of requests that are told apart: tabs of a browser, twice


class Superseded(Exception):  # no error: a newer request came, or the server ends
    """The work is not wanted any more."""


class Cache:
    """Results by key, the least recently used dropped where their bytes pass a bound.

    Attributes
    ----------
    limit : int
        Bytes.
    n_bytes : int
        Of the results kept, at most `limit`.
    """

    def __init__(self, limit: int = LARGEST) -> None:
        self.limit = limit
        self.n_bytes = 0
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Result]) -> Result:
        """Return the result kept under a key, or make it and keep it."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                value: Result = self._kept[key][0]
                return value
        value = make()
        self._keep(key, value)
        return value

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def _keep(self, key: Hashable, value: Any) -> None:
        size = bytes_of(value)
        with self._lock:
            if key in self._kept or size > self.limit:
                return
            self._kept[key] = value, size
            self.n_bytes += size
            while self.n_bytes > self.limit:
                _, (_, dropped) = self._kept.popitem(last=False)
                self.n_bytes -= dropped


def bytes_of(value: Any) -> int:
    """Return about how much memory a result takes: its arrays, those in its fields, and a little for the rest."""
    if isinstance(value, np.ndarray):
        return value.nbytes + 128
    if isinstance(value, bytes | str):
        return len(value) + 64
    if isinstance(value, tuple | list):
        return sum(map(bytes_of, value)) + 64
    fields = getattr(value, "__dict__", None) or {}
    return sum(item.nbytes for item in fields.values() if isinstance(item, np.ndarray)) + 1024


class Latest:
    """One worker thread: of each line of requests it does the newest one, and stops those that it replaces."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="look")
        self._newest: OrderedDict[str, int] = OrderedDict()
        self._count = 0
        self._closed = False

    async def do(self, line: str, work: Callable[[Callable[..., None]], Result]) -> Result:
        """Return what `work(check)` returns; it calls `check` from time to time.

        Raises
        ------
        Superseded
            A newer request of the line came before this one was done.
        """
        self._count += 1
        ticket = self._count
        self._newest[line] = ticket
        self._newest.move_to_end(line)
        while len(self._newest) > MOST_LINES:
            self._newest.popitem(last=False)

        def check(*_: Any) -> None:
            if self._closed or self._newest.get(line) != ticket:
                raise Superseded

        def run() -> Result:
            check()
            result = work(check)
            check()
            return result

        return await asyncio.get_running_loop().run_in_executor(self._worker, run)

    def close(self) -> None:
        """Stop what is being done, and wait for its end."""
        self._closed = True
        self._worker.shutdown(wait=True, cancel_futures=True)
