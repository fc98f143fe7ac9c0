"""Graphics card as the engine sees it: where arrays live, how kernels are compiled and launched.

`cupy` has the backend for NVIDIA cards, and the tests one that runs the same kernels, compiled as C++, on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib import resources
from types import ModuleType
from typing import Any, Protocol

import numpy as np


class Launch(Protocol):
    """Runs one kernel: arrays pass as pointers, NumPy scalars by value."""

    def __call__(self, name: str, grid: tuple[int, ...], threads: int, *arguments: Any) -> None:
        """Launch a kernel."""


class Backend(Protocol):
    """Place where arrays live and kernels run. Work is queued in order; only `to_host` waits for it."""

    array_module: ModuleType  # numpy or cupy
    name: str
    n_processors: int  # blocks of kernels that keep it busy are a multiple of this
    shared_memory: int  # bytes a block may declare
    double_cost: int  # operations of float32 in the time of one of float64

    def kernels(self, file: str, sizes: Mapping[str, int | str]) -> Launch:
        """Return the kernels of a `.cu` file, compiled with these sizes (-D); compiled once."""
        ...

    def to_device(self, array: Any) -> np.ndarray:
        """Return the array, in one piece, on the device."""
        ...

    def to_host(self, array: Any) -> np.ndarray:
        """Return an array in host memory."""

    def inverse_transform(self, spectra: Any, out: Any) -> None:
        """Out (batch, n) float32 = n irfft of spectra (batch, n // 2 + 1) complex64, which may be overwritten."""
        ...

    def forward_transform(self, windows: Any, out: Any) -> None:
        """Out (batch, n // 2 + 1) complex64 = rfft of windows (batch, n) float32, which may be overwritten."""
        ...

    def free_memory(self) -> float:
        """Bytes that arrays may still take."""
        ...

    def mark(self) -> Callable[[], None]:
        """Return a place in the queue: what is returned waits until all work queued before it is done."""
        ...

    def device(self) -> AbstractContextManager[Any]:
        """Return the device, current while the context lasts."""
        ...


def read_source(file: str) -> str:
    """Return a kernel file as one text: the headers it includes put in, so that a compiler needs no search path."""
    folder = resources.files("ussim.engines.cuda")
    text = (folder / file).read_text(encoding="utf-8")
    for header in ("physics.cuh",):
        text = text.replace(f'#include "{header}"', (folder / header).read_text(encoding="utf-8"))
    return text.replace("#pragma once", "")
