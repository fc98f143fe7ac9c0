"""Engines: the same model, computed on different machines.

An engine is a module with these functions, all on checked arguments:

    simulate(scatterers, plan, n_samples, start_sample, max_memory) -> (n_transmits, n_elements, n_samples)
    pressure_field(plan, grid, threshold_db, max_memory) -> (n_transmits, nz, nx)
    delay_and_sum(...), see `ussim.beamform`

`reference` is the oracle: float64 NumPy, literal. `cpu` is the fast one.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

ENGINES = ("auto", "cpu", "reference")


class EngineError(RuntimeError):
    """No such engine or device, or not enough memory: the message says what to use instead."""


def get_engine(name: str = "auto") -> ModuleType:
    """The engine module of that name; "auto" is the fastest that this machine has."""
    if name not in ENGINES:
        raise EngineError(f"unknown engine {name!r}: expected one of {', '.join(ENGINES)}")
    return import_module(f"{__name__}.{'cpu' if name == 'auto' else name}")
