"""Progress of a build: what it tells a watcher, and the count behind it."""

from __future__ import annotations

import threading

from ..store.layout import ShardRecord


class Watcher:
    """Listener to a build at work; this one says nothing."""

    def message(self, text: str) -> None:
        """Say something that is worth a line."""

    def reading(self, done: int, total: int) -> None:
        """Say that `done` of `total` volumes have been read."""

    def begin(self, total: int, done: int) -> None:
        """Say that `total` samples are wanted, `done` of which exist."""

    def progress(self, done: int, set_aside: int) -> None:
        """Say that `done` samples exist, `set_aside` of them without images."""

    def end(self) -> None:
        """Say that the last sample exists, or that the build was stopped."""


class Count:
    """Count of samples that exist: those of finished shards, and of shards at work as many as workers reported."""

    def __init__(self, there: dict[int, int], watcher: Watcher) -> None:
        self.watcher = watcher
        self.done = sum(there.values())
        self.set_aside: list[tuple[str, str]] = []  # (sample, reason)
        self.partial: dict[int, int] = {}
        self.closed = set(there)
        self.lock = threading.Lock()  # workers are heard in a thread of the client's

    def working(self, shard: int, done: int) -> None:
        """Note that a shard at work has `done` samples."""
        with self.lock:
            if shard not in self.closed:
                self.partial[shard] = done
                self._say()

    def finished(self, record: ShardRecord) -> None:
        """Note that a shard is finished."""
        with self.lock:
            self.closed.add(record.index)
            self.partial.pop(record.index, None)
            self.done += len(record.rows)
            self.set_aside += record.set_aside
            self._say()

    def _say(self) -> None:
        self.watcher.progress(self.done + sum(self.partial.values()), len(self.set_aside))
