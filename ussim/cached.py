"""Files that may be lost: what took long to make, kept in the user's cache folder for the next process.

`USSIM_CACHE` names another folder. Where none can be written, a folder of the user's own among the temporary files serves,
and without that nothing is kept and nothing fails.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from contextlib import suppress
from functools import cache as once
from pathlib import Path

from .io.atomic import replacing

DIGEST = hashlib.sha256().digest_size


def cache_directory() -> Path:
    """`USSIM_CACHE`, else the platform's user cache directory for ussim."""
    override = os.environ.get("USSIM_CACHE")
    if override:
        return Path(override)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "ussim"


def read(name: str) -> bytes | None:
    """Return a kept file; None where there is none, or where it is not whole."""
    folder = _place()
    try:
        content = (folder / name).read_bytes() if folder else b""
    except OSError:
        return None
    whole = len(content) > DIGEST and content[:DIGEST] == hashlib.sha256(content[DIGEST:]).digest()
    return content[DIGEST:] if whole else None


def keep(name: str, content: bytes) -> None:
    """Keep a file, if that is possible, its digest first."""
    folder = _place()
    if folder is not None:
        with suppress(OSError), replacing(folder / name) as temporary:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)


@once
def _place() -> Path | None:
    """Return the folder of code that may be run: one in which nobody else can write, unless the user names another."""
    folder = cache_directory() / "code"
    if os.environ.get("USSIM_CACHE"):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        return folder
    return private_folder(folder) or private_folder(temporary_folder("ussim"))


def temporary_folder(name: str) -> Path:
    """Return the path of this user's own folder of that name among the temporary files; it need not be there."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"{name}-{user}"


def private_folder(folder: Path) -> Path | None:
    """Return the folder, made where it was not, if it is this user's and nobody else can write to it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return None
    if not hasattr(os, "getuid"):  # Windows: the temporary files are the user's own, and modes say nothing
        return folder if stat.S_ISDIR(found.st_mode) else None
    own = found.st_uid == os.getuid() and not found.st_mode & 0o022
    return folder if own and stat.S_ISDIR(found.st_mode) else None
