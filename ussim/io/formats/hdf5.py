"""HDF5 files that are not trusted: nothing is followed out of the file, and no more is read than the file can hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DataError
from .sizes import check_declared, check_small, check_uncompressed, file_size, n_bytes

if TYPE_CHECKING:
    import h5py

MAGIC = b"\x89HDF\r\n\x1a\n"
# What reading a damaged file raises, by which of its bytes are wrong.
DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)


@contextmanager
def opened(path: str | Path) -> Iterator[h5py.File]:
    """Open an HDF5 file to read; whatever goes wrong in the block is told as damage of the file.

    Raises
    ------
    DataError
        It is no HDF5 file, or damaged.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except DataError:
        raise
    except DAMAGE as error:
        text = str(error).splitlines()[0].strip("'\"") if str(error) else type(error).__name__
        raise DataError(f"{path}: {text}") from None


def find(group: Any, name: str) -> Any:
    """Return the group or data set of a name ("data/real"), None where there is none. No link is followed."""
    import h5py

    for part in name.strip("/").split("/"):
        if not isinstance(group, h5py.Group):
            return None
        link = group.get(part, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):  # a soft one may lead to one that leads out
            target = getattr(link, "filename", getattr(link, "path", "somewhere"))
            raise ValueError(f"{name}: expected data in the file, got a link to {target}, which is not followed")
        group = group.get(part)
    return group


def data_set(group: Any, name: str) -> h5py.Dataset | None:
    """Return the data set of a name, its samples in this file, or None."""
    import h5py

    found = find(group, name)
    if found is None:
        return None
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{name}: expected an array, got a group")
    if found.external or found.is_virtual:
        raise ValueError(f"{name}: expected data in the file, got data in another one, which is not read")
    return found


def numbers(group: Any, name: str) -> np.ndarray | None:
    """Return a small table of numbers as float64, None where there is none.

    Raises
    ------
    ValueError
        It is no table of numbers, or too large to be one.
    """
    found = data_set(group, name)
    if found is None:
        return None
    if found.shape is None or found.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected numbers, got {found.dtype}")
    check_small(name, found.shape)
    _check_filters(found, name)
    return np.asarray(found[()], dtype=np.float64)


def number(group: Any, name: str, default: float | None = None) -> float:
    """One finite number; `default` where there is none.

    Raises
    ------
    ValueError
        It is missing and has no default, or no finite number.
    """
    found = numbers(group, name)
    if found is None or found.size == 0:
        if default is None:
            raise ValueError(f"{name}: expected a number, got none")
        return default
    value = float(found.ravel()[0])
    if not np.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value}")
    return value


def text(group: Any, name: str) -> str:
    """Return a short text, empty where there is none."""
    found = data_set(group, name)
    if found is None or found.shape is None or found.size != 1 or found.dtype.kind not in "OS":
        return ""
    value = found[()]
    value = value.ravel()[0] if isinstance(value, np.ndarray) else value
    return value.decode("utf-8", "replace")[:200] if isinstance(value, bytes) else str(value)[:200]


def arrays_of(file: h5py.File, most: int = 200) -> Iterator[str]:
    """Names of the data sets in a file, groups before what is deeper, `most` at most. No link is followed."""
    import h5py

    groups, count = [""], 0
    for parent in groups:
        for name in find(file, parent) if parent else file:
            count += 1
            if count > most:
                return
            path = f"{parent}/{name}" if parent else name
            link = file.get(path, getlink=True)
            kind = file.get(path, getclass=True) if isinstance(link, h5py.HardLink) else None
            if kind is h5py.Group and path.count("/") < 4 and name != "#refs#":
                groups.append(path)
            elif kind is h5py.Dataset:
                yield path


@dataclass(frozen=True)
class Stored:
    """An array in an HDF5 file that is opened at each reading: nothing stays open, and it can be handed to a process."""

    path: str
    name: str

    def __getitem__(self, index: Any) -> np.ndarray:
        with opened(self.path) as file:
            found = data_set(file, self.name)
            if found is None:
                raise ValueError(f"{self.name}: expected an array, got none")
            check_stored(found, index)
            return as_complex(found[index])


def check_stored(array: h5py.Dataset, index: Any = ()) -> None:
    """Hold what will be read of an array, the numbers and whole axes of `index`, against what is stored of it.

    Raises
    ------
    ValueError
        It is not stored, its storage cannot hold it, or it is compressed in a way that cannot be read here.
    """
    stored, size = array.id.get_storage_size(), file_size(array.file.filename)
    index = index if isinstance(index, tuple) else (index,)
    needed = n_bytes([n for i, n in enumerate(array.shape) if i >= len(index) or isinstance(index[i], slice)], 1)
    needed *= array.dtype.itemsize
    if stored == 0:
        raise ValueError(
            f"{array.name}: expected samples, got an array of shape {array.shape} of which none are stored"
        )
    check_uncompressed(array.name, stored, size)
    if array.chunks is None:
        check_uncompressed(array.name, n_bytes(array.shape, array.dtype.itemsize), stored)
    else:
        check_declared(array.name, max(needed, n_bytes(array.chunks, array.dtype.itemsize)), stored)
    _check_filters(array, array.name)


def _check_filters(array: h5py.Dataset, name: str) -> None:
    import h5py

    plan = array.id.get_create_plist()
    for code in [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]:
        if not h5py.h5z.filter_avail(code):
            with suppress(ImportError):
                import hdf5plugin  # noqa: F401  registers its filters
        if not h5py.h5z.filter_avail(code):
            raise ValueError(
                f'{name}: compressed by HDF5 filter {code}, which is not here: pip install "ussim[zea]" (hdf5plugin)'
            )


def number_type(dtype: np.dtype) -> np.dtype | None:
    """Return the type of an array's numbers: MATLAB's pairs of real and imaginary part are complex.

    None of what are no numbers.
    """
    if dtype.kind in "fiuc":
        return dtype
    if dtype.names in (("real", "imag"), ("r", "i")) and all(dtype[i].kind == "f" for i in range(2)):
        return np.dtype(np.complex64 if dtype[0].itemsize <= 4 else np.complex128)
    return None


def as_complex(values: np.ndarray) -> np.ndarray:
    """MATLAB's pairs as complex numbers; other arrays as they are."""
    names = values.dtype.names
    return values if names is None else values[names[0]] + 1j * values[names[1]]
