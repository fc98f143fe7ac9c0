"""As much of CuPy as the CUDA engine uses, over NumPy and `HostBackend`: the engine's own code, run without a card.

`install(folder)` puts it where `import cupy` finds it and returns how to take it away again.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
from backend import HostBackend

MEMORY = 4_000_000_000


class _Device(contextlib.nullcontext):
    mem_info = (MEMORY, MEMORY)

    def __init__(self, index: int = 0) -> None:
        super().__init__(self)
        self.id = index

    def synchronize(self) -> None:
        """All work is done when it is asked for."""


class ndarray(np.ndarray):
    """A NumPy array that says it is CuPy's."""

    __module__ = "cupy"
    device = _Device(0)

    def get(self) -> np.ndarray:
        return np.array(self)


def _device_array(function):
    return lambda *arguments, **options: function(*arguments, **options).view(ndarray)


C2R = 0x2C  # of cuFFT


def n_devices() -> int:
    """Cards of the machine, or those that a process is to see."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return len(visible.split(",")) if visible else int(os.environ.get("HOST_CUDA_DEVICES", "1"))


class _RawModule:
    def __init__(self, code: str, options: tuple[str, ...]) -> None:
        self._code = code
        self._sizes = dict(option.removeprefix("-D").split("=") for option in options if option.startswith("-D"))

    def compile(self) -> None:
        self._launch = BACKEND.kernels_of_source(self._code, self._sizes)

    def get_function(self, name: str):
        def call(grid, block, arguments):
            self._launch(name, grid, block[0], *arguments)

        return call


class _Plan1d:
    def __init__(self, n: int, kind: int, batch: int) -> None:
        self.kind, self.shape, self.spectra = kind, (batch, n), (batch, n // 2 + 1)
        self.work_area = SimpleNamespace(mem=SimpleNamespace(size=8 * n * batch))

    def fft(self, source, out, direction: int) -> None:
        if self.kind == C2R:
            assert (source.shape, out.shape, direction) == (self.spectra, self.shape, 1)
            BACKEND.inverse_transform(source, out)
        else:
            assert (source.shape, out.shape, direction) == (self.shape, self.spectra, -1)
            BACKEND.forward_transform(source, out)


class _Event:
    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        pass

    def record(self) -> None:
        import time

        self.time = time.perf_counter()

    def synchronize(self) -> None:
        """Nothing to wait for."""


BACKEND: HostBackend


def install(folder: Path):
    """Make `import cupy` find this, with a driver; returns a function that undoes it."""
    global BACKEND
    BACKEND = HostBackend(folder, MEMORY)
    cupy = ModuleType("cupy")
    cupy.__version__ = "on the host"
    cupy.__spec__ = SimpleNamespace(name="cupy")
    cupy.ndarray = ndarray
    for name in ("zeros", "empty", "empty_like", "sqrt", "stack", "abs"):
        setattr(cupy, name, _device_array(getattr(np, name)))
    cupy.asarray = lambda array, dtype=None: (
        array if isinstance(array, ndarray) and dtype in (None, array.dtype) else np.array(array, dtype).view(ndarray)
    )
    cupy.fft = SimpleNamespace(
        **{name: _device_array(getattr(np.fft, name)) for name in ("fft", "ifft", "rfft", "irfft")}
    )
    cupy.ascontiguousarray = _device_array(np.ascontiguousarray)
    cupy.asnumpy = np.array
    cupy.RawModule = _RawModule
    cupy.get_default_memory_pool = lambda: SimpleNamespace(
        free_bytes=lambda: 0, get_limit=lambda: 0, used_bytes=lambda: 0
    )
    properties = {"name": b"host", "major": 0, "minor": 0, "multiProcessorCount": 1, "sharedMemPerBlock": 48 * 1024}
    cupy.cuda = ModuleType("cupy.cuda")
    cupy.cuda.Device = _Device
    cupy.cuda.Event = _Event
    cupy.cuda.get_elapsed_time = lambda start, end: 1e3 * (end.time - start.time)
    cupy.cuda.runtime = SimpleNamespace(
        getDeviceCount=n_devices,
        getDeviceProperties=lambda index: properties,
        deviceGetAttribute=lambda attribute, index: {87: 2}[attribute],
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
    )
    cupy.cuda.cufft = SimpleNamespace(Plan1d=_Plan1d, CUFFT_C2R=C2R, CUFFT_R2C=0x2A, CUFFT_INVERSE=1, CUFFT_FORWARD=-1)
    cupy.cuda.nvrtc = SimpleNamespace(getVersion=lambda: (13, 0))
    added = {"cupy": cupy, "cupy.cuda": cupy.cuda}
    sys.modules.update(added)

    from ussim.engines.cuda import cupy as cuda

    found = cuda._has_driver
    cuda._has_driver = lambda: True
    cuda.engine.cache_clear()

    def undo() -> None:
        for name in added:
            sys.modules.pop(name, None)
        cuda._has_driver = found
        cuda.engine.cache_clear()

    return undo
