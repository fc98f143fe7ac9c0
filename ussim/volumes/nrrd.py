"""Volume files that no library in use reads whole: NRRD and MetaImage; and which files make one volume.

Both come out as a `Block`, which looks to `reading` like an image of nibabel: a NIfTI header, an affine, voxels on demand.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .budget import DEFLATE, check_values, inflate
from .damage import told

PAIRS = {".hdr": ".img", ".hdr.gz": ".img.gz"}
NRRD = (".nrrd", ".nhdr")
META = (".mha", ".mhd")
_MOST = 2**40  # bytes; more is a damaged header
_FAR = 2.0**40  # mm, bytes, voxels: no true header has a number this large
_BZIP2 = DEFLATE * 50  # most bytes that one byte of a bzip2 stream stands for, rounded up

_META_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_NRRD_TYPES = {
    "i1": ("signed char", "int8"),
    "u1": ("uchar", "unsigned char", "uint8"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16"),
    "i4": ("int", "signed int", "int32"),
    "u4": ("uint", "unsigned int", "uint32"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64"),
    "f4": ("float",),
    "f8": ("double",),
}
_LPS = np.array([-1.0, -1.0, 1.0])  # Left, Posterior, Superior to Right, Anterior, Superior
_SPACES = {"left-posterior-superior": _LPS, "left-anterior-superior": np.array([-1.0, 1.0, 1.0])}
_SPACES["right-anterior-superior"] = np.ones(3)
_SPACES |= {"lps": _SPACES["left-posterior-superior"], "las": _SPACES["left-anterior-superior"], "ras": np.ones(3)}
_UNITS = {"mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "cm": 10.0, "m": 1000.0, "um": 1e-3, "µm": 1e-3}


@dataclass(frozen=True)
class Block:
    """Geometry of a volume file, and its voxels when they are asked for."""

    header: Any  # a NIfTI header: shape, number type, voxel size
    affine: np.ndarray
    raw: Callable[[], np.ndarray]  # values as stored, of the header's shape
    notes: tuple[str, ...] = ()


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the files that make the volume whose header is `path`: itself, and what holds its voxels.

    Raises
    ------
    DataError
        One of them is missing, or the header cannot be read.
    """
    lower = path.name.lower()
    for header, data in PAIRS.items():
        if lower.endswith((header, data)):
            stem = path.name[: -len(header)]
            return _beside(path, stem, (".hdr", ".hdr.gz")), _beside(path, stem, (".img", ".img.gz"))
    if lower.endswith(".nhdr"):
        return (path, *_data_files(path, _nrrd_header(path)))
    if lower.endswith(".mhd"):
        return path, _meta_data(path, _meta_header(path)[0])
    return (path,)


def open_block(path: Path) -> Block:
    """Read the header of an NRRD or MetaImage file; raises DataError where it is damaged or not served."""
    with told(str(path)):
        return _open_nrrd(path) if path.name.lower().endswith(NRRD) else _open_meta(path)


def _beside(path: Path, stem: str, suffixes: tuple[str, ...]) -> Path:
    """Return the file of that name with one of the suffixes, in any case."""
    for child in sorted(path.parent.iterdir()):
        if child.name.startswith(stem) and child.name[len(stem) :].lower() in suffixes:
            return child
    raise DataError(f"{path}: one of a pair, and the other, {stem}{suffixes[0]}, is not there")


def _block(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, affine: np.ndarray, raw: Callable[..., Any], notes: list[str]
) -> Block:
    from nibabel.nifti2 import Nifti2Header
    from nibabel.spatialimages import HeaderDataError

    if min(shape, default=0) < 1 or math.prod(shape) * dtype.itemsize > _MOST:
        raise DataError(f"{path}: damaged header: size {shape}")
    check_values(str(path), shape[:3], dtype.itemsize)
    header = Nifti2Header(endianness=">" if dtype.byteorder == ">" else "<")
    try:
        header.set_data_dtype(dtype)
        header.set_data_shape(shape)
        header.set_sform(affine, code=1)
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        header.set_zooms((*(float(size) for size in lengths), *(1.0,) * 7)[: len(shape)])
    except (HeaderDataError, ValueError) as error:
        raise DataError(f"{path}: damaged header: {' '.join(str(error).split())}") from None
    return Block(header, affine, raw, tuple(notes))


def _affine(path: Path, directions: np.ndarray, origin: np.ndarray, flip: np.ndarray) -> np.ndarray:
    """Affine to RAS from one direction (scaled to mm) a row; raises DataError where an axis has no length."""
    affine = np.eye(4)
    affine[:3, :3] = directions.T * flip[:, None]
    affine[:3, 3] = origin * flip
    if not (np.abs(affine) < _FAR).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(f"{path}: damaged header: directions and spacing span no volume")
    return affine


# --- NRRD ------------------------------------------------------------------------------------------------------------


def _nrrd_header(path: Path) -> dict[str, Any]:
    import nrrd

    try:
        with open(path, "rb") as file:
            header = dict(nrrd.read_header(file))
            for field in ("sizes", "type", "encoding"):
                header[field]
            return header
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # pynrrd raises many kinds on damaged headers
        reason = " ".join(str(error).split()) or "it is empty"  # of an empty file it says nothing
        raise DataError(f"{path}: damaged NRRD header: {reason}") from None


def _data_files(path: Path, header: dict[str, Any]) -> list[Path]:
    """Return the one detached data file of an NRRD header; several are not served."""
    name = str(header.get("data file", header.get("datafile", "")))
    if not name:
        return []
    if name.split()[0] == "LIST" or "%" in name:
        raise DataError(f"{path}: voxels in several files: write one file (unu save -f nrrd)")
    return [_inside(path, name)]


def _inside(path: Path, name: str) -> Path:
    """Return a data file named in a header: it has to lie beside it or below, whatever the header says."""
    data = path.parent / name
    if not data.resolve().is_relative_to(path.parent.resolve()):
        raise DataError(f"{path}: its data file {name} lies outside the header's folder: put it beside the header")
    if not data.is_file():
        raise DataError(f"{path}: its data file {name} is not there")
    return data


def _open_nrrd(path: Path) -> Block:
    import nrrd

    header = _nrrd_header(path)
    data = (_data_files(path, header) or [path])[0]
    shape = tuple(int(size) for size in header["sizes"])
    kinds = [str(kind).lower() for kind in header.get("kinds", ())] or ["domain"] * len(shape)
    space, count = _nrrd_axes(path, header, shape, kinds)
    dtype = _nrrd_type(path, header)
    packed = 1 if header["encoding"] == "raw" else _BZIP2
    if math.prod(shape) * dtype.itemsize > data.stat().st_size * packed:
        raise DataError(f"{path}: cut short: {data.stat().st_size} bytes for {shape} of {dtype}")
    order = [*space, *(axis for axis in range(len(shape)) if axis not in space)]

    def raw() -> np.ndarray:
        try:
            with open(data, "rb") as file:
                inner = header if data != path else nrrd.read_header(file)  # which leaves the file at its voxels
                inner = {key: value for key, value in inner.items() if key not in ("data file", "datafile")}
                values = nrrd.read_data(*_unpacked(path, inner, file, math.prod(shape) * dtype.itemsize))
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{path}: voxels cannot be read: {' '.join(str(error).split())}") from None
        values = values.transpose(order)
        volume: np.ndarray = values.reshape(*values.shape[:count], *(1,) * (3 - count), *values.shape[count:])
        return volume

    sizes = [shape[axis] for axis in order]
    affine, notes = _nrrd_affine(path, header, space)
    return _block(path, (*sizes[:count], *(1,) * (3 - count), *sizes[count:]), dtype, affine, raw, notes)


def _unpacked(path: Path, header: dict[str, Any], file: Any, n_bytes: int) -> tuple[dict[str, Any], Any]:
    """Return a compressed NRRD as a raw one, unpacked no further than its header says: what pynrrd unpacks has no bound."""
    encoding = header["encoding"]
    skipped = header.get("byteskip", header.get("byte skip", 0))
    if encoding not in ("gzip", "gz", "bzip2", "bz2") or not 0 <= skipped <= n_bytes:
        return header, file
    for _ in range(min(header.get("lineskip", header.get("line skip", 0)), 1000)):
        file.readline()
    content: bytes
    if encoding in ("gzip", "gz"):
        content = inflate(str(path), file, n_bytes + skipped)
    else:
        import bz2

        content = bz2.BZ2Decompressor().decompress(file.read(), n_bytes + skipped)
    plain = {key: value for key, value in header.items() if key not in ("lineskip", "line skip")}
    return plain | {"encoding": "raw"}, io.BytesIO(content)


def _nrrd_type(path: Path, header: dict[str, Any]) -> np.dtype:
    name = str(header["type"]).lower().removesuffix("_t")
    code = next((code for code, names in _NRRD_TYPES.items() if name in names), None)
    if code is None:
        raise DataError(f"{path}: expected real grey values, got type {name}")
    return np.dtype((">" if str(header.get("endian")).lower() == "big" else "<") + code)


def _nrrd_axes(path: Path, header: dict[str, Any], shape: tuple[int, ...], kinds: list[str]) -> tuple[list[int], int]:
    """Return the spatial axes, up to three, and how many there are."""
    directions = header.get("space directions")
    if directions is not None:
        space = [axis for axis, row in enumerate(directions) if row is not None and np.isfinite(row).all()]
    else:
        space = [axis for axis in range(len(shape)) if kinds[axis : axis + 1] in (["domain"], ["space"], ["???"])]
    space = space[:3]
    if len(space) < 2:
        raise DataError(f"{path}: expected a volume, got axes of kinds {', '.join(kinds)}")
    for axis in range(len(shape)):
        if axis not in space and any(
            word in kinds[axis] for word in ("color", "vector", "matrix", "normal", "complex")
        ):
            raise DataError(f"{path}: expected real grey values, got an axis of kind {kinds[axis]}")
    return space, len(space)


def _nrrd_affine(path: Path, header: dict[str, Any], space: list[int]) -> tuple[np.ndarray, list[str]]:
    notes = []
    name = str(header.get("space", "")).lower().removesuffix("-time")
    units = [str(unit).lower() for unit in header.get("space units", ())]
    scale = _UNITS.get(units[0], 1.0) if units else 1.0
    directions = header.get("space directions")
    flip = _SPACES.get(name)
    if directions is not None and np.asarray(directions).shape[1] == 3:
        rows = np.array([directions[axis] for axis in space], float) * scale
        if len(rows) == 2:
            rows = np.vstack([rows, _unit(np.cross(rows[0], rows[1]))])
        if flip is None:
            notes.append(f"space {name or 'not named'} in the header: axes taken as Right, Anterior, Superior")
        origin = np.array(header.get("space origin", np.zeros(3)), float) * scale
        return _affine(path, rows, np.nan_to_num(origin), np.ones(3) if flip is None else flip), notes
    notes.append("no orientation in the header: axes taken as Right, Anterior, Superior")
    steps = [float(step) for step in header.get("spacings", ())]
    lengths = [steps[axis] if axis < len(steps) and 0 < steps[axis] < np.inf else 0.0 for axis in space]
    if not all(lengths):
        notes.append("no voxel size in the header: voxels taken as cubes")
        lengths = [1.0] * len(space)
    return _affine(path, np.diag([*lengths, 1.0][:3]), np.zeros(3), np.ones(3)), notes


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / (np.linalg.norm(vector) or 1.0)


# --- MetaImage -------------------------------------------------------------------------------------------------------


def _meta_header(path: Path) -> tuple[dict[str, str], int]:
    """Fields of a MetaImage header by their names in lower case, and where the voxels begin in the file."""
    fields: dict[str, str] = {}
    try:
        with open(path, "rb") as file:
            for _ in range(1000):
                key, equals, value = file.readline(4096).decode("latin-1").partition("=")
                if not equals:
                    break
                fields[key.strip().lower()] = value.strip()
                if key.strip().lower() == "elementdatafile":
                    return fields, file.tell()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    raise DataError(f"{path}: damaged MetaImage header: no ElementDataFile in it")


def _meta_data(path: Path, fields: dict[str, str]) -> Path:
    name = fields["elementdatafile"]
    if name.upper() == "LOCAL":
        return path
    if name.upper().startswith("LIST") or "%" in name:
        raise DataError(f"{path}: voxels in several files: write one .mha")
    return _inside(path, name)


def _open_meta(path: Path) -> Block:
    fields, start = _meta_header(path)
    data = _meta_data(path, fields)

    def numbers(*names: str) -> np.ndarray:
        text = next((fields[name] for name in names if name in fields), "")
        try:
            found = np.array([float(word) for word in text.split()])
        except ValueError:
            found = np.array([np.nan])
        if not (np.abs(found) < _FAR).all():
            raise DataError(f"{path}: damaged MetaImage header: {names[0]} = {text}")
        return found

    def true(*names: str) -> bool:
        return any(fields.get(name, "").lower() in ("true", "1") for name in names)

    size = numbers("dimsize")
    n = len(size)
    if not 2 <= n <= 7 or not ((size >= 1).all() and size.max() < 2**31):
        raise DataError(f"{path}: damaged MetaImage header: DimSize = {fields.get('dimsize', '')}")
    kind = _META_TYPES.get(fields.get("elementtype", ""))
    channels = fields.get("elementnumberofchannels", "1")
    if kind is None or channels != "1" or fields.get("binarydata", "True").lower() not in ("true", "1"):
        what = f"{fields.get('elementtype', 'no ElementType')}, {channels} channels"
        raise DataError(f"{path}: expected binary real grey values, got {what}")
    dtype = np.dtype((">" if true("binarydatabyteordermsb", "elementbyteordermsb") else "<") + kind)
    shape = tuple(int(count) for count in size)
    n_bytes = math.prod(shape) * dtype.itemsize
    offset = numbers("headersize")
    if data != path:
        start = int(offset[0]) if len(offset) and offset[0] > 0 else 0
        if len(offset) and offset[0] == -1:
            start = max(0, data.stat().st_size - n_bytes)
    packed = true("compresseddata")
    there = data.stat().st_size - start
    if n_bytes > there * (DEFLATE if packed else 1):
        raise DataError(f"{path}: cut short: {max(there, 0)} bytes for {shape} of {dtype}")

    def raw() -> np.ndarray:
        with open(data, "rb") as file:
            file.seek(start)
            content = inflate(str(path), file, n_bytes) if packed else file.read(n_bytes)  # no more than asked
        if len(content) < n_bytes:
            raise DataError(f"{path}: cut short: {len(content)} of {n_bytes} bytes of voxels")
        values = np.frombuffer(content, dtype).reshape(shape, order="F")
        return values[..., np.newaxis] if n == 2 else values

    affine, notes = _meta_affine(path, n, numbers)
    return _block(path, (*shape, 1)[: max(3, n)], dtype, affine, raw, notes)


def _meta_affine(path: Path, n: int, numbers: Callable[..., np.ndarray]) -> tuple[np.ndarray, list[str]]:
    notes = []
    steps = numbers("elementspacing", "elementsize")
    if len(steps) != n or not (steps > 0).all():
        notes.append("no voxel size in the header: voxels taken as cubes")
        steps = np.ones(n)
    matrix, origin = numbers("transformmatrix", "orientation", "rotation"), numbers("offset", "position", "origin")
    if len(matrix) != n * n:
        notes.append("no orientation in the header: axes taken as Left, Posterior, Superior")
        matrix = np.eye(n)
    rows, place, m = np.eye(3), np.zeros(3), min(n, 3)
    rows[:m, :m] = matrix.reshape(n, n)[:m, :m] * steps[:m, None]  # a row is the direction of an axis
    if len(origin) == n:
        place[:m] = origin[:m]
    return _affine(path, rows, place, _LPS), notes
