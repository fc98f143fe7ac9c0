"""Names, walks and checksums of files: what every source needs and no format owns."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import DataError

# Left behind by operating systems and archive tools; never data.
_JUNK_NAMES = {"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"}


def walk(root: Path, closed: list[tuple[Path, str]] | None = None) -> Iterator[Path]:
    """Every file under `root` in natural order, without hidden files and what macOS and Windows leave behind.

    Folders that cannot be listed are passed over, added to `closed` with the reason; Zarr stores are no data of ours.
    """
    if root.is_file():
        yield root
        return

    def refused(error: OSError) -> None:
        if closed is not None:
            closed.append((Path(error.filename), error.strerror or str(error)))

    visited = set()  # a link may point at a folder above it
    for folder, folders, files in os.walk(root, onerror=refused, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        if "zarr.json" in files:  # a store of images, perhaps the one that is being made of what lies here
            folders.clear()
            continue
        folders[:] = sorted((name for name in folders if not is_junk(name)), key=natural)
        for name in sorted(files, key=natural):
            if not is_junk(name):
                yield Path(folder) / name


def folders_named(base: Path, pattern: str, depth: int) -> list[Path]:
    """Folders whose whole name matches the regular expression, `base` itself or at most `depth` levels below it.

    What lies under a match is not searched, so a large collection costs a listing of its upper folders.
    """
    found, level = [], [base]
    for _ in range(depth + 1):
        deeper = []
        for folder in level:
            if re.fullmatch(pattern, folder.name, re.IGNORECASE):
                found.append(folder)
            else:
                deeper += subfolders(folder)
        level = deeper
    return found


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, in natural order, without junk; none where it is a file."""
    children = [child for child in children_of(folder) if os.path.isdir(child)]
    return sorted(children, key=lambda child: natural(child.name))


def files_in(folder: Path, *suffixes: str) -> list[Path]:
    """Return the files in a folder (not below it) with one of the suffixes, or any; in natural order, without junk."""
    children = [
        child
        for child in children_of(folder)
        if os.path.isfile(child) and (not suffixes or child.name.lower().endswith(suffixes))
    ]
    return sorted(children, key=lambda child: natural(child.name))


def children_of(folder: Path) -> list[Path]:
    """Return what lies in a folder, without junk; nothing where it is a file, or cannot be listed."""
    try:
        return [folder / name for name in os.listdir(folder) if not is_junk(name)]
    except OSError:
        return []


def printable(name: str) -> str:
    """Return a name of a file as text that any output takes: bytes that are not UTF-8 as %E9."""
    return "".join(f"%{ord(letter) - 0xDC00:02X}" if "\udc80" <= letter <= "\udcff" else letter for letter in name)


def is_junk(name: str) -> bool:
    """Return True for hidden files, macOS resource forks (`._x`) and the like."""
    return name in _JUNK_NAMES or name.startswith(".")


def natural(name: str) -> list[tuple[int, int | str]]:
    """Sort key under which slice_2 comes before slice_10."""
    parts: list[tuple[int, int | str]] = []
    digits = ""
    for character in name + "\0":
        if character.isascii() and character.isdigit():
            digits += character
            continue
        if digits:
            parts.append((0, int(digits)))
            digits = ""
        parts.append((1, character))
    return parts


def relative(path: str | Path, root: str | Path) -> str:
    """`path` as seen from `root`, with forward slashes and `printable`; the name alone where `root` is the file itself."""
    inside = os.path.relpath(path, root).replace(os.sep, "/")
    return printable(Path(path).name if inside == "." else inside)


def stem(path: str | Path) -> str:
    """Return a file's name without its image extensions: `a/b.nii.gz` is `b`."""
    name = printable(Path(path).name)
    suffixes = (
        ".nii.gz .nii .hdr.gz .hdr .img.gz .img .mgh.gz .mgh .mgz .nrrd .nhdr .mha .mhd .npy .dicom.gz .dcm.gz .dicom .dcm "
        ".png .jpg .jpeg .bmp .tif .tiff"
    )
    for suffix in suffixes.split():
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def sha256_of(paths: Sequence[str]) -> str:
    """SHA-256 of a file; of the sorted digests where there are several, so that their order does not matter."""
    digests = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from None
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()
