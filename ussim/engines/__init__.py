"""Engines: the same model, computed on different machines, behind one door (`protocol.Engine`).

`reference` is the oracle: float64 NumPy, literal. `cpu` is the fast one on any machine. `cuda` runs on an NVIDIA card, by
number as `cuda:1`; its arrays stay on the card. Each is imported when it is asked for.
"""

from __future__ import annotations

from typing import Any

from ..arrays import is_on_device
from ..errors import EngineError
from .protocol import Engine

__all__ = ["ENGINES", "Engine", "engine_of", "get_engine"]

ENGINES = ("auto", "cpu", "cuda", "reference")


def get_engine(name: str = "auto") -> Engine:
    """Return the engine of that name: "auto" is "cuda" where a device answers and "cpu" elsewhere.

    "cuda:1" is the second card.

    Raises
    ------
    EngineError
        The name is unknown, or the card cannot be used: the message says why.
    """
    base, colon, index = name.partition(":")
    if base not in ENGINES or (colon and not (base == "cuda" and index.isdecimal())):
        raise EngineError(
            f"unknown engine {name!r}: expected one of {', '.join(ENGINES)}, or cuda:N for the card number N"
        )
    if base in ("auto", "cuda"):
        from .cuda import cupy as cuda

        if base == "cuda" or cuda.device_count():
            return cuda.engine(int(index or 0))
    if base == "reference":
        from .reference import ENGINE as reference

        return reference
    from .cpu.engine import ENGINE as cpu

    return cpu


def engine_of(array: Any) -> Engine:
    """Return the engine whose device holds an array: of arrays in host memory the CPU's."""
    if not is_on_device(array):
        return get_engine("cpu")
    from .cuda import cupy as cuda

    return cuda.engine(array.device.id)
