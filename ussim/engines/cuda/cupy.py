"""The engine on NVIDIA cards, through CuPy: kernels compiled by NVRTC for the card in hand, transforms by cuFFT.

What is computed is in `engine`; this module finds the card and speaks to it. CuPy is imported when a card is asked for.
"""

from __future__ import annotations

import ctypes
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np

from ...errors import EngineError
from .backend import Launch, read_source
from .engine import GpuEngine
from .simulate import Tuning

KEPT_TRANSFORMS = 1024  # cuFFT plans: those of a dozen acquisitions
WORK_AREAS = 512e6  # bytes that the plans kept may hold together
SINGLE_TO_DOUBLE = 87  # cudaDevAttrSingleToDoublePrecisionPerfRatio
TRANSFORM_ROWS = 8192  # transforms a plan: cuFFT's work area, kept with the plan, may be as large as its data
DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
INSTALL = 'pip install "ussim[cuda13]" (driver 580 or newer) or "ussim[cuda12]" (525 or newer)'


class CudaEngine(GpuEngine):
    """`GpuEngine` on one NVIDIA card."""

    def __init__(self, device: int = 0, tuning: Tuning | None = None) -> None:
        super().__init__(CupyBackend(device), tuning)
        self.name = f"cuda:{device}" if device else "cuda"


@cache
def engine(device: int = 0) -> CudaEngine:
    """Return the engine of a card; made once, as its compiled kernels and tables are worth keeping.

    Raises
    ------
    EngineError
        No driver, no CuPy or no such device: the message says what is missing and where it comes from.
    """
    return CudaEngine(device)


def compile_options(sizes: Mapping[str, int | str]) -> tuple[str, ...]:
    """Return what NVRTC is told beside the architecture: no contraction (see `physics.cuh`), and the sizes."""
    return ("--std=c++17", "--fmad=false", *(f"-D{name}={value}" for name, value in sizes.items()))


def device_count() -> int:
    """NVIDIA devices that answer, 0 where the driver or CuPy is missing."""
    if not _has_driver() or find_spec("cupy") is None:
        return 0
    try:
        count: int = _cupy().cuda.runtime.getDeviceCount()
        return count
    except (EngineError, RuntimeError):
        return 0


def cuda_report() -> dict[str, Any]:
    """Return what there is to compute on: for `ussim doctor`. Never raises.

    Keys: driver (CUDA version that it supports, or None), cupy, runtime, nvrtc (versions or None), devices (a list of name,
    compute_capability, memory, free_memory in bytes), problem (why engine "cuda" cannot be used, or None).
    """
    report: dict[str, Any] = dict.fromkeys(("driver", "cupy", "runtime", "nvrtc", "problem"))
    report["devices"] = []
    try:
        cupy = _cupy()
        from cupy.cuda import nvrtc

        report["cupy"] = cupy.__version__
        runtime = cupy.cuda.runtime
        report["driver"] = _dotted(runtime.driverGetVersion()) if _has_driver() else None
        report["runtime"] = _dotted(runtime.runtimeGetVersion())
        report["nvrtc"] = ".".join(str(part) for part in nvrtc.getVersion())
        _require_device(cupy, 0)
        for index in range(runtime.getDeviceCount()):
            properties = runtime.getDeviceProperties(index)
            with cupy.cuda.Device(index) as device:
                free, total = device.mem_info
            report["devices"].append(
                {
                    "name": _text(properties["name"]),
                    "compute_capability": f"{properties['major']}.{properties['minor']}",
                    "memory": total,
                    "free_memory": free,
                }
            )
    except Exception as error:  # a report says what is wrong, whatever it is
        report["problem"] = str(error) or type(error).__name__
    return report


# --- the card, for `engine` ---------------------------------------------------------------------------------------------


class CupyBackend:
    """CuPy arrays and kernels on one card. Work is queued on the current stream."""

    def __init__(self, device: int = 0) -> None:
        cupy = _cupy()
        _require_device(cupy, device)
        self.array_module = cupy
        self._index = device
        properties = cupy.cuda.runtime.getDeviceProperties(device)
        self.name = f"cuda:{device} ({_text(properties['name'])})"
        self.n_processors = int(properties["multiProcessorCount"])
        self.shared_memory = int(properties["sharedMemPerBlock"])  # what static arrays may take
        self.double_cost = int(cupy.cuda.runtime.deviceGetAttribute(SINGLE_TO_DOUBLE, device))
        self._modules: dict[tuple[Any, ...], Launch] = {}
        self._transforms: OrderedDict[tuple[int, int, int], Any] = OrderedDict()

    def kernels(self, file: str, sizes: Mapping[str, int | str]) -> Launch:
        """Return the kernels of a file, compiled by NVRTC with these sizes (CuPy keeps the result on disk)."""
        key = (file, *sorted(sizes.items()))
        if key not in self._modules:
            module = self.array_module.RawModule(code=read_source(file), options=compile_options(sizes))
            try:
                module.compile()
            except Exception as error:  # no NVRTC beside CuPy, or one that does not know the card
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise EngineError(f"{self.name}: {file} could not be compiled ({reason}): {INSTALL}") from None

            find = cache(module.get_function)  # which asks the driver each time

            def launch(name: str, grid: tuple[int, ...], threads: int, *arguments: Any) -> None:
                find(name)((*grid, 1, 1)[:3], (threads, 1, 1), arguments)

            self._modules[key] = launch
        return self._modules[key]

    def to_device(self, array: Any) -> np.ndarray:
        """Return an array on the card, contiguous."""
        array = self.array_module.asarray(array)
        if array.device.id != self._index:
            array = array.copy()  # onto the device that is current
        contiguous: np.ndarray = self.array_module.ascontiguousarray(array)
        return contiguous

    def to_host(self, array: Any) -> np.ndarray:
        """Return an array in host memory."""
        host: np.ndarray = self.array_module.asnumpy(array)
        return host

    def inverse_transform(self, spectra: Any, out: Any) -> None:
        """Out (batch, n) = n irfft of spectra (batch, n // 2 + 1), by cuFFT itself: cupy.fft would copy and scale."""
        from cupy.cuda import cufft

        self._transform(out.shape[-1], spectra, out, cufft.CUFFT_C2R, cufft.CUFFT_INVERSE)

    def forward_transform(self, windows: Any, out: Any) -> None:
        """Out (batch, n // 2 + 1) = rfft of windows (batch, n)."""
        from cupy.cuda import cufft

        self._transform(windows.shape[-1], windows, out, cufft.CUFFT_R2C, cufft.CUFFT_FORWARD)

    def _transform(self, n: int, source: Any, out: Any, kind: int, direction: int) -> None:
        from cupy.cuda import cufft

        for first in range(0, len(out), TRANSFORM_ROWS):
            rows = slice(first, first + TRANSFORM_ROWS)
            key = n, len(out[rows]), kind
            if key not in self._transforms:
                self._transforms[key] = cufft.Plan1d(n, kind, key[1])
            self._transforms.move_to_end(key)
            self._transforms[key].fft(source[rows], out[rows], direction)
        held = sum(_work_area(plan) for plan in self._transforms.values())
        while len(self._transforms) > KEPT_TRANSFORMS or (held > WORK_AREAS and len(self._transforms) > 1):
            held -= _work_area(self._transforms.popitem(last=False)[1])

    def free_memory(self) -> float:
        """Bytes free on the card or held unused by CuPy's pool, within the pool's limit if it has one."""
        pool = self.array_module.get_default_memory_pool()
        with self.device() as device:  # the pool answers for the current one
            free = float(device.mem_info[0] + pool.free_bytes())
            limit = pool.get_limit()
            return min(free, float(limit - pool.used_bytes())) if limit else free

    def mark(self) -> Callable[[], None]:
        """Mark this point of the work; the function returned waits for it."""
        event = self.array_module.cuda.Event(disable_timing=True)
        event.record()
        wait: Callable[[], None] = event.synchronize
        return wait

    def device(self) -> Any:
        """Return the card."""
        return self.array_module.cuda.Device(self._index)


def _cupy() -> Any:
    """Return the package, which needs a driver to be of use."""
    if find_spec("cupy") is None:
        raise EngineError(f'engine "cuda" needs CuPy, which is not installed: {INSTALL}, or use engine="cpu"')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "default"
            )  # what CuPy warns of on import is to be seen, and is no reason to do without a card
            import cupy
    except Exception as error:  # a CuPy for another CUDA, a library it cannot load
        raise EngineError(
            f'engine "cuda": CuPy {_installed("cupy")} cannot be imported ({error}): {INSTALL}, or use engine="cpu"'
        ) from None
    return cupy


def _require_device(cupy: Any, index: int) -> None:
    """Raise EngineError where the card cannot be used."""
    if not _has_driver():
        raise EngineError(
            f'engine "cuda": no NVIDIA driver found ({DRIVER}); install one for the card, or use engine="cpu"'
        )
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except RuntimeError as error:
        raise EngineError(f'engine "cuda": the driver answers "{error}"; {INSTALL}, or use engine="cpu"') from None
    if count == 0:
        raise EngineError('engine "cuda": the driver finds no NVIDIA device; use engine="cpu"')
    if index >= count:
        devices = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise EngineError(f'engine "cuda:{index}": no such device, there is {devices}')


def _work_area(plan: Any) -> int:
    """Return the bytes of device memory that a cuFFT plan holds."""
    return int(getattr(getattr(plan.work_area, "mem", None), "size", 0))


@cache
def _has_driver() -> bool:
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return False
    return True


def _dotted(number: int) -> str:
    """13000 -> "13.0"."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _installed(prefix: str) -> str:
    for name in (f"{prefix}-cuda13x", f"{prefix}-cuda12x", prefix):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "of unknown version"
