"""Engines: the same model, computed on different machines.

An engine is a module, or an object, with a `name` and these functions, all on checked arguments:

    simulate(scatterers, plan, n_samples, start_sample, max_memory) -> (n_transmits, n_elements, n_samples)
    adjoint(points, plan, samples, start_sample, max_memory) -> (n_points,), the transpose of `simulate`
    pressure_field(plan, grid, threshold_db, max_memory) -> (n_transmits, nz, nx)
    delay_and_sum(samples (..., n_transmits, n_elements, n_samples), beamforming) -> (..., nz, nx)
    arrival_bounds(...), see `cpu.beamform`

`reference` is the oracle: float64 NumPy, literal. `cpu` is the fast one on any machine. `cuda` runs on an NVIDIA card, by
number as `cuda:1`; it has `simulate_batch` and `mix_and_filter` besides, and its arrays stay on the card.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from ..errors import DeviceError

ENGINES = ("auto", "cpu", "cuda", "reference")


class EngineError(DeviceError):
    """No such engine or device, or not enough memory: the message says what to use instead."""


@contextmanager
def device_errors(name: str) -> Iterator[None]:
    """Turn what CuPy raises into EngineError, while the context lasts.

    CuPy's errors are RuntimeErrors of its own, and a library that it cannot load is an ImportError. Kernels run
    asynchronously, so an error surfaces in whichever call comes next, a copy to the host as well; once a kernel has failed,
    the process cannot use that card again. Whoever takes such an error for one of the input loses all that follows.

    Raises
    ------
    EngineError
        In place of an error of CuPy or of a CUDA library; `name` says whose.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, EngineError) or not _is_of_device(error):
            raise
        reason = " ".join((str(error).strip() or type(error).__name__).split())
        raise EngineError(
            f'{name}: the card failed ({reason}). A process cannot use it again after that: start anew, or use engine="cpu"'
        ) from error


def _is_of_device(error: Exception) -> bool:
    """Whether CuPy raised an error, or a CUDA library could not be loaded."""
    if type(error).__module__.partition(".")[0] in ("cupy", "cupy_backends", "cupyx"):
        return True
    return isinstance(error, ImportError | OSError) and any(word in str(error) for word in ("libcu", "libnv", "cupy"))


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
        from .cuda import backend as cuda

        if base == "cuda" or cuda.device_count():
            return cuda.engine(int(index or 0))
        base = "cpu"
    return import_module(f"{__name__}.cpu.engine" if base == "cpu" else f"{__name__}.{base}")


def engine_of(array: Any) -> Any:
    """The engine whose device holds an array; None for arrays in host memory."""
    from ..types import is_on_device

    if not is_on_device(array):
        return None
    from .cuda import backend as cuda

    return cuda.engine(array.device.id)
