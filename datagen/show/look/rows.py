"""The rows of a store for the page: few bytes of each in memory, found while the page is already used."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ussim.errors import ConfigError

from ...store import layout, read
from ...store.layout import Attributes, Row
from ...store.location import Storage

COLUMNS = ("source", "subject", "fold", "kind", "plane")
NOTICED = 4096  # rows between two notes of how far it is
MOST_VALUES = 300  # of a column that a menu offers


class Rows:
    """Source, subject, fold, kind and plane of each sample: a code of four bytes each.

    The table is read in a thread of its own; what is found so far can be asked for.
    """

    def __init__(self, storage: Storage, attributes: Attributes) -> None:
        self.storage, self.attributes = storage, attributes
        self.total = attributes.n_samples
        self.found = 0
        self.failure = ""
        self._codes = {name: np.zeros(self.total, np.int32) for name in COLUMNS}
        self._numbers: dict[str, dict[str, int]] = {name: {} for name in COLUMNS}
        self._set_aside = np.zeros(self.total, bool)
        self._closed = False
        self._thread = threading.Thread(target=self._find, daemon=True, name="rows")

    def start(self) -> Rows:
        """Begin to read the table."""
        self._thread.start()
        return self

    def wait(self) -> Rows:
        """Wait until all of the table is read."""
        self._thread.join()
        return self

    def close(self) -> None:
        """Stop reading."""
        self._closed = True
        if self._thread.is_alive():
            self._thread.join()

    def _find(self) -> None:
        try:
            text = io.TextIOWrapper(io.BytesIO(self.storage.read(layout.SAMPLES)), encoding="utf-8", newline="")
            table = csv.reader(text)
            header = next(table)
            places = [(header.index(name), self._codes[name], self._numbers[name]) for name in COLUMNS]
            aside = header.index("set_aside")
            n = 0
            for i, row in enumerate(table):
                for place, codes, numbers in places:
                    codes[i] = numbers.setdefault(row[place], len(numbers))
                self._set_aside[i] = row[aside] != ""
                n = i + 1
                if n % NOTICED == 0:
                    self.found = n
                    if self._closed:
                        return
            self.found = n
            if n != self.total:
                raise IndexError
        except (OSError, ValueError, IndexError, csv.Error, StopIteration) as error:
            self.failure = f"{layout.SAMPLES} is damaged ({type(error).__name__}); `datagen verify` says where"

    def values(self) -> dict[str, list[str]]:
        """Return the values of each column found so far, in order; of a column with very many none."""
        found = {name: list(numbers) for name, numbers in self._numbers.items()}
        return {name: _in_order(values) if len(values) <= MOST_VALUES else [] for name, values in found.items()}

    def counts(self) -> dict[str, int]:
        """Return how many values each column has, and how many samples are set aside, found so far."""
        return {name: len(numbers) for name, numbers in self._numbers.items()} | {
            "set_aside": int(self._set_aside[: self.found].sum())
        }

    def match(self, asked: Mapping[str, Any]) -> np.ndarray:
        """Return the samples found so far that are as asked, in order.

        Parameters
        ----------
        asked : value of each column of COLUMNS, as text; of `subject` a part of it; "" or no key: any. Samples set aside
            are left out unless `set_aside` is True.

        Raises
        ------
        ConfigError
            A column is none of these, or its value is no text.
        """
        found = self.found
        kept = np.ones(found, bool) if asked.get("set_aside") is True else ~self._set_aside[:found]
        for name, value in asked.items():
            if name == "set_aside":
                continue
            if name not in COLUMNS or not isinstance(value, str) or len(value) > 300:
                raise ConfigError(f"filter: expected text for one of {', '.join(COLUMNS)}, got {name!r}")
            if value == "":
                continue
            numbers = dict(self._numbers[name])
            if name == "subject":
                codes = [code for text, code in numbers.items() if value.lower() in text.lower()]
            else:
                codes = [numbers[value]] if value in numbers else []
            kept &= np.isin(self._codes[name][:found], codes)
        return np.flatnonzero(kept)

    def read(self, samples: Iterable[int]) -> list[Row]:
        """Return the rows of some samples, read from the records of their shards.

        Raises
        ------
        StoreError
            A record is missing or damaged.
        """
        per_shard = self.attributes.samples_per_shard
        records: dict[int, layout.ShardRecord] = {}
        rows = []
        for sample in samples:
            shard, place = divmod(int(sample), per_shard)
            if shard not in records:
                records[shard] = _record(self.storage, shard)
            rows.append(records[shard].rows[place])
        return rows


def _record(storage: Storage, index: int) -> layout.ShardRecord:
    record = read.read_record(storage, index)
    if record is None:
        raise layout.StoreError(
            f"the record of shard {index} is missing or damaged; `datagen build --resume` redoes it"
        )
    return record


def _in_order(values: list[str]) -> list[str]:
    return sorted(values, key=lambda text: (0, int(text), "") if text.isdecimal() else (1, 0, text))
