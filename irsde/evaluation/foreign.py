"""Networks that were not trained here, as functions of an image: ONNX and runs as they are, other files for those who ask.

A TorchScript or torch.export file holds a program beside its weights, and loading it may run any code with the rights of its
reader. ONNX and safetensors hold numbers and named operations alone, so nothing else is loaded unless it is `trusted`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsde.data import DataError
from ussim.errors import ConfigError

Image = NDArray[np.float32]
Network = Callable[[NDArray[np.float32]], NDArray]  # (1, 1, nz, nx) -> the same, grey levels in [0, 1]


def load_torch_model(path: str | Path, trust: bool = False) -> Callable[[Image], Image]:
    """Load a network as a function of an image (nz, nx) in [0, 1].

    One that `irsde export` wrote draws its noise as `irsde.restore` does with seed 0.

    Parameters
    ----------
    path : an ONNX file (.onnx) or the folder of a run; with `trust`, a TorchScript (.pt, .pth) or torch.export (.pt2) file.
    trust : load files that may run code of their own when they are read.

    Raises
    ------
    ConfigError
        Such a file, and it is not trusted; nothing of it has been read.
    DataError
        No such file, or not of its kind; when called, an image of another shape came back.
    """
    path = Path(path)
    check_trusted(path, trust)
    if path.is_dir():
        return _run_folder(path)
    network = _onnx(path) if path.suffix.lower() == ".onnx" else _torch(path)

    def run(lq: Image) -> Image:
        out = network(np.asarray(lq, np.float32)[None, None])
        if out.shape[-2:] != lq.shape or out.size != lq.size:
            raise DataError(f"{path}: expected an image of shape {lq.shape} back, got {tuple(out.shape)}")
        return np.clip(out.reshape(lq.shape), 0, 1).astype(np.float32)

    return run


def check_trusted(path: str | Path, trust: bool) -> None:
    """Raise ConfigError where loading a file may run code of its own and it is not trusted; reads nothing."""
    path = Path(path)
    if trust or path.is_dir() or path.suffix.lower() == ".onnx":
        return
    raise ConfigError(
        f"{path}: not loaded, as a TorchScript or torch.export file may run any code when it is read; give it as ONNX "
        "(.onnx), a run of `irsde train` as its folder, or add --trust if you know who made it"
    )


def _run_folder(path: Path) -> Callable[[Image], Image]:
    from irsde.network import load
    from irsde.sample import restore

    model = load(path)
    return lambda lq: restore(model, lq)


def _onnx(path: Path) -> Network:
    from irsde.onnx_export import runner

    run = runner(path.read_bytes(), str(path))  # the file alone: weights kept beside it would be read from anywhere
    return lambda image: run(image, 0)


def _torch(path: Path) -> Network:
    import torch

    network: Any
    try:
        if path.suffix == ".pt2":
            network = torch.export.load(path).module()
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as such
                network = torch.jit.load(str(path), map_location="cpu").eval()
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise DataError(f"{path}: expected a TorchScript or torch.export (.pt2) file ({reason})") from error

    def run(image: NDArray[np.float32]) -> NDArray:
        with torch.no_grad():
            return network(torch.from_numpy(image)).numpy()

    return run
