"""Arrays in host memory and on graphics cards: which is which, home again, and what fails on the way.

CuPy is not imported here: an array says itself whose it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .errors import EngineError


def to_numpy(array: Any) -> np.ndarray:
    """Return a NumPy array of a NumPy or CuPy one."""
    if not is_on_device(array):
        return np.asarray(array)
    with device_errors("cuda"):  # the copy waits for all that was queued, and reports its failures
        host: np.ndarray = array.get()
        return host


@contextmanager
def device_of(array: Any) -> Iterator[None]:
    """Make the device that holds an array current while the context lasts; nothing for host arrays.

    Raises
    ------
    EngineError
        The device fails.
    """
    if not is_on_device(array):
        yield
        return
    with device_errors("cuda"), array.device:
        yield


def is_on_device(array: Any) -> bool:
    """Return whether an array lies on a graphics card (a CuPy array)."""
    return type(array).__module__.partition(".")[0] == "cupy"


def as_float_array(values: Any) -> Any:
    """Return a floating array (float32 and CuPy arrays stay what they are, anything else becomes float64)."""
    if is_on_device(values):
        return values
    array = np.asarray(values)
    return array if array.dtype == np.float32 else array.astype(np.float64, copy=False)


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
    """Return whether CuPy raised an error, or a CUDA library could not be loaded."""
    if type(error).__module__.partition(".")[0] in ("cupy", "cupy_backends", "cupyx"):
        return True
    return isinstance(error, ImportError | OSError) and any(word in str(error) for word in ("libcu", "libnv", "cupy"))
