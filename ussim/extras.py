"""Packages that are imported only where they are used: one message and one exit code where one of them is missing.

    onnx = needs("onnxruntime")          # or: needs("accelerate"), then the import, for the type checker

A module that imports one at its top is told of in the same words by `missing`, which every command and every package's first
use of a name goes through.
"""

from __future__ import annotations

import platform
import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from .errors import MissingPackageError

TRAIN = "ussim[train]"
# What is imported -> its name, and what pip installs it by. Those of no extra come with the package itself.
PACKAGES: dict[str, tuple[str, str]] = {
    "torch": ("PyTorch", TRAIN),
    "diffusers": ("diffusers", TRAIN),
    "accelerate": ("accelerate", TRAIN),
    "safetensors": ("safetensors", TRAIN),
    "torchmetrics": ("torchmetrics", TRAIN),
    "tensorboard": ("TensorBoard", TRAIN),
    "pywt": ("PyWavelets", TRAIN),
    "onnx": ("ONNX", "ussim[onnx]"),
    "pyarrow": ("PyArrow", "ussim[export]"),
    "onnxruntime": ("ONNX Runtime", "ussim[onnx]"),
    "cupy": ("CuPy", "ussim[cuda13]"),
    "sam2": ("SAM 2", "ussim[sam2]"),
    "bm3d": ("bm3d", "bm3d"),
    "deepinv": ("deepinv", "ussim[deepinv]"),
    "hdf5plugin": ("hdf5plugin", "ussim[zea]"),
    "imageio_ffmpeg": ("imageio-ffmpeg", "ussim[video]"),
    "h5py": ("h5py", "h5py"),
    "scipy": ("SciPy", "scipy"),
    "numba": ("Numba", "numba"),
    "llvmlite": ("llvmlite", "numba"),
    "skimage": ("scikit-image", "scikit-image"),
    "matplotlib": ("Matplotlib", "matplotlib"),
    "PIL": ("Pillow", "pillow"),
    "pydicom": ("pydicom", "pydicom"),
    "nibabel": ("NiBabel", "nibabel"),
    "nrrd": ("pynrrd", "pynrrd"),
    "zarr": ("Zarr", "zarr"),
    "dask": ("Dask", "dask[distributed]"),
    "distributed": ("dask.distributed", "dask[distributed]"),
    "fsspec": ("fsspec", "fsspec"),
    "filelock": ("filelock", "filelock"),
    "psutil": ("psutil", "psutil"),
    "tornado": ("Tornado", "tornado"),
    "pydantic": ("pydantic", "pydantic"),
    "jinja2": ("Jinja2", "jinja2"),
    "openpyxl": ("openpyxl", "openpyxl"),
    "rich": ("rich", "rich"),
}
INTEL_MAC = "; there is no PyTorch for Intel Macs any more: use Linux, Windows or a Mac of Apple's own processors"


def needs(module: str, instead: str = "") -> ModuleType:
    """Return an optional module, imported.

    Parameters
    ----------
    module : name to import; its package is a key of `PACKAGES`.
    instead : what serves without it, for the message.

    Raises
    ------
    MissingPackageError
        The package is not installed, or cannot be imported: the message names the extra that brings it.
    """
    try:
        return import_module(module)
    except (ImportError, OSError) as error:  # OSError: a library of its own that cannot be loaded
        raise missing(error, instead) or _broken(module, error) from None


def installed(module: str) -> bool:
    """Return True where a package can be found; it is not imported."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def missing(error: BaseException, instead: str = "") -> MissingPackageError | None:
    """Return the error for the user where an import failed for want of a package of `PACKAGES`; None of any other."""
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package not in PACKAGES:
        return None
    return MissingPackageError(f"{how_to_install(package)}{', ' + instead if instead else ''}", name=package)


def how_to_install(package: str) -> str:
    """Return in words that a package of `PACKAGES` is not installed, and what installs it."""
    name, requirement = PACKAGES[package]
    intel_mac = package == "torch" and (sys.platform, platform.machine()) == ("darwin", "x86_64")
    return f"{name} is not installed: pip install '{requirement}'{INTEL_MAC if intel_mac else ''}"


def _broken(module: str, error: BaseException) -> MissingPackageError:
    package = module.partition(".")[0]
    name, requirement = PACKAGES[package]
    reason = " ".join(str(error).split())
    return MissingPackageError(
        f"{name} cannot be imported ({reason}): pip install --force-reinstall '{requirement}'", name=package
    )
