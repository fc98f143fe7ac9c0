"""Engines: the same model, computed on different machines.

An engine is a module, or an object, with these functions, all on checked arguments:

    simulate(scatterers, plan, n_samples, start_sample, max_memory) -> (n_transmits, n_elements, n_samples)
    pressure_field(plan, grid, threshold_db, max_memory) -> (n_transmits, nz, nx)
    delay_and_sum(samples (..., n_transmits, n_elements, n_samples), beamforming) -> (..., nz, nx)
    arrival_bounds(...), see `cpu_beamform`

`reference` is the oracle: float64 NumPy, literal. `cpu` is the fast one on any machine. `cuda` runs on an NVIDIA card, by
number as `cuda:1`; it has `simulate_batch` and `mix_and_filter` besides, and its arrays stay on the card.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

ENGINES = ("auto", "cpu", "cuda", "reference")


class EngineError(RuntimeError):
    """No such engine or device, or not enough memory: the message says what to use instead."""


def get_engine(name: str = "auto") -> Any:
    """The engine of that name: "auto" is "cuda" where a device answers and "cpu" elsewhere; "cuda:1" is the second card.

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
        from . import cuda

        if base == "cuda" or cuda.device_count():
            return cuda.engine(int(index or 0))
        base = "cpu"
    return import_module(f"{__name__}.{base}")


def engine_of(array: Any) -> Any:
    """The engine whose device holds an array; None for arrays in host memory."""
    from ..types import is_on_device

    if not is_on_device(array):
        return None
    from . import cuda

    return cuda.engine(array.device.id)
