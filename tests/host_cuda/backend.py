"""The engine's kernels compiled as C++ and run on the host: what CuPy and a card are to `CudaEngine`, without either."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.fft

from ussim.engines.cuda.backend import read_source

HERE = Path(__file__).parent
FLAGS = ("-std=c++17", "-O2", "-march=native", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-fPIC", "-shared", "-w")


def find_compiler() -> str | None:
    """A C++ compiler, or None."""
    return shutil.which(os.environ.get("CXX", "g++"))


class HostBackend:
    """NumPy arrays and kernels in shared libraries, built in `folder`, one for each set of sizes."""

    array_module = np
    name = "host"
    n_processors = 1
    shared_memory = 48 * 1024
    double_cost = 2

    def __init__(self, folder: Path, memory: float = 256e6) -> None:
        self.folder = Path(folder)
        self.memory = memory
        self.launches: list[str] = []
        self._libraries: dict[str, ctypes.CDLL] = {}

    def kernels(self, file: str, sizes: Mapping[str, int | str]):
        """A function (name, grid, threads, *arguments) that runs a kernel of the file."""
        return self.kernels_of_source(read_source(file), sizes)

    def kernels_of_source(self, source: str, sizes: Mapping[str, int | str]):
        """`kernels` of a file's text."""
        library = self._library(source, sizes)

        def launch(name: str, grid: tuple[int, ...], threads: int, *arguments) -> None:
            self.launches.append(name)
            shape = (ctypes.c_int * 3)(*(*grid, 1, 1)[:3])
            held = [_by_value(argument) for argument in arguments]
            pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(value) for value in held))
            if getattr(library, f"launch_{name}")(shape, threads, pointers):
                raise RuntimeError(f"{name}: only some threads of a block reached a barrier")

        return launch

    def to_device(self, array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array)

    def to_host(self, array: np.ndarray) -> np.ndarray:
        return np.asarray(array)

    def inverse_transform(self, spectra: np.ndarray, out: np.ndarray) -> None:
        """out (batch, n) float32 = n irfft of spectra (batch, n / 2 + 1), which may be overwritten."""
        out[...] = scipy.fft.irfft(spectra, out.shape[-1], norm="forward")

    def forward_transform(self, windows: np.ndarray, out: np.ndarray) -> None:
        """out (batch, n / 2 + 1) complex64 = rfft of windows (batch, n), which may be overwritten."""
        out[...] = scipy.fft.rfft(windows, axis=-1)

    def mark(self):
        return lambda: None  # kernels run where they are launched

    def free_memory(self) -> float:
        return self.memory

    def device(self):
        """Nothing to choose here."""
        return contextlib.nullcontext()

    def _library(self, source: str, sizes: Mapping[str, int | str]) -> ctypes.CDLL:
        names = re.findall(r"__global__ void (?:__launch_bounds__\([\w, ]+\) )?(\w+)\(", source)
        text = "\n".join(
            [
                *(f"#define {key} {value}" for key, value in sizes.items()),
                (HERE / "cuda_on_host.h").read_text(),
                source.replace('extern "C" __global__', "__global__"),
                *(f"HOST_KERNEL({name})" for name in names),
            ]
        )
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        if key not in self._libraries:
            path = self.folder / f"kernels_{key}.so"
            if not path.exists():
                code = path.with_suffix(f".{os.getpid()}.cpp")
                code.write_text(text)
                made = path.with_suffix(f".{os.getpid()}")  # other processes look into the folder, too
                command = [str(find_compiler()), *FLAGS, "-o", str(made), str(code)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise RuntimeError(f"the host compiler refused a kernel file:\n{done.stderr[:4000]}")
                made.replace(path)
            self._libraries[key] = ctypes.CDLL(str(path))
        return self._libraries[key]


def _by_value(argument):
    """What a kernel argument is in C: a pointer to an array's data, or a number of the NumPy scalar's type."""
    if isinstance(argument, np.ndarray):
        if not argument.flags.c_contiguous:
            raise TypeError("kernel argument: expected a contiguous array")
        return ctypes.c_void_p(argument.ctypes.data)
    if isinstance(argument, np.generic):
        return np.ctypeslib.as_ctypes_type(argument.dtype)(argument.item())
    raise TypeError(f"kernel argument: expected an array or a NumPy scalar, got {type(argument).__name__}")
