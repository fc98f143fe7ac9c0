"""A preload script of Dask workers: each has a card of its own, emulated on the host, that may die.

A file `dies-<worker>` in $HOST_CUDA_FAULT holds after how many calls of the simulation that card fails for good.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

CALLS: list[tuple[int, ...]] = []


class CUDARuntimeError(RuntimeError):
    """What CuPy raises from the first call after a kernel has failed on."""

    __module__ = "cupy_backends.cuda.api.runtime"


def dask_setup(worker) -> None:
    """Called by Dask before the worker takes any work."""
    sys.path.insert(0, str(Path(__file__).parent))
    import cupy_on_host

    cupy_on_host.install(Path(os.environ["HOST_CUDA_KERNELS"]))

    from datagen.make import shards

    simulate, transform = shards.simulate_pairs, cupy_on_host.BACKEND.inverse_transform
    faults = Path(os.environ["HOST_CUDA_FAULT"])
    dies = faults / f"dies-{worker.name}"

    def simulate_pairs(hqs, imager, seeds):
        CALLS.append(tuple(seeds))
        with (faults / f"seen-{worker.name}").open("a") as seen:
            seen.write(f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {cupy_on_host.n_devices()} {worker.state.nthreads}\n")
        return simulate(hqs, imager, seeds)

    def inverse_transform(*arguments):
        if dies.exists() and len(CALLS) > int(dies.read_text()):
            raise CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")
        return transform(*arguments)

    shards.simulate_pairs = simulate_pairs
    cupy_on_host.BACKEND.inverse_transform = inverse_transform
