"""Whole files under a folder or a URL: read, written so that a file is there in full or not at all, listed, deleted."""

from __future__ import annotations

import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from ussim.errors import DataError, MissingPackageError

_TEMPORARY = "build/tmp"
_LOCK = "build/lock"
_PART = 1 << 20  # bytes of a file that is read in parts
_TOGETHER = 64  # files that are fetched at a time


class Address(str):
    """A URL with the options of its file system: travels as a string does, to workers too."""

    options: dict[str, Any]

    def __new__(cls, url: str, options: dict[str, Any] | None = None) -> Address:
        """Return a URL with options; None: none."""
        address = super().__new__(cls, url)
        address.options = dict(options or {})
        return address


def options_of(url: str) -> dict[str, Any]:
    """Return the options of a URL's file system, none of a plain string."""
    return url.options if isinstance(url, Address) else {}


class Storage(ABC):
    """Files by key (a relative path with forward slashes)."""

    url: str  # as the user gave it; absolute where it is a folder

    @abstractmethod
    def read(self, key: str) -> bytes:
        """Return the whole file; raises FileNotFoundError."""

    @abstractmethod
    def write(self, key: str, content: bytes) -> None:
        """Write the whole file: a reader sees what was there before, or all of it; raises OSError."""

    @abstractmethod
    def write_parts(self, key: str, parts: Iterable[bytes]) -> None:
        """Write the whole file, as `write` does, of parts that are not all in memory."""

    @abstractmethod
    def read_parts(self, key: str) -> Iterator[bytes]:
        """Yield the whole file in parts, none of them empty; raises FileNotFoundError."""

    def read_many(self, keys: Iterable[str]) -> Iterator[bytes | OSError]:
        """Yield whole files, in order; in place of one that cannot be read, the error."""
        for key in keys:
            try:
                yield self.read(key)
            except OSError as error:
                yield error

    @abstractmethod
    def sizes(self) -> Callable[[str], int | None]:
        """Return a function that tells the bytes of a file, None where there is none: as of now, of any number of files."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Remove a file, where there is one."""

    @abstractmethod
    def append(self, key: str, line: str) -> None:
        """Add a line to a log, as well as the storage can."""

    @abstractmethod
    def read_log(self, key: str) -> list[str]:
        """Return the lines of a log; none where there is no log."""

    @abstractmethod
    def exists(self) -> bool:
        """Return whether anything is there at all."""

    def check_writable(self) -> None:
        """Raise DataError where nothing can be written, as far as can be told without writing."""
        return

    @abstractmethod
    def names(self, prefix: str) -> list[str]:
        """Return the names of the files directly under `prefix`, sorted."""

    @abstractmethod
    def delete(self) -> None:
        """Remove everything but what keeps other builds out (`exclusively`)."""

    @abstractmethod
    def clean(self) -> None:
        """Remove what an interrupted writer left behind."""

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Keep other builds out while inside; raises DataError where one is at work."""
        yield


class LocalStorage(Storage):
    """A folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self.url = str(self.folder)

    def read(self, key: str) -> bytes:
        """Return the bytes of a file of the store."""
        return (self.folder / key).read_bytes()

    def write(self, key: str, content: bytes) -> None:
        """Put a file in place, whole or not at all."""
        self.write_parts(key, (content,))

    def write_parts(self, key: str, parts: Iterable[bytes]) -> None:
        """Put a file in place, whole or not at all, part by part."""
        target = self.folder / key
        temporary = self.folder / _TEMPORARY / uuid.uuid4().hex
        for path in (target, temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def read_parts(self, key: str) -> Iterator[bytes]:
        """Yield a file of the store in parts."""
        with (self.folder / key).open("rb") as file:
            while part := file.read(_PART):
                yield part

    def sizes(self) -> Callable[[str], int | None]:
        """Return a function that tells the bytes of a file."""

        def size(key: str) -> int | None:
            try:
                return os.stat(f"{self.url}/{key}").st_size
            except OSError:
                return None

        return size

    def remove(self, key: str) -> None:
        """Remove a file."""
        (self.folder / key).unlink(missing_ok=True)

    def append(self, key: str, line: str) -> None:
        """Add a line to a log."""
        target = self.folder / key
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def read_log(self, key: str) -> list[str]:
        """Return the lines of a log, none where there is no log."""
        path = self.folder / key
        return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []

    def exists(self) -> bool:
        """Tell whether anything is there."""
        temporary, lock = self.folder / _TEMPORARY, self.folder / _LOCK
        return self.folder.is_file() or any(
            path.is_file() and temporary not in path.parents and path != lock for path in self.folder.rglob("*")
        )

    def check_writable(self) -> None:
        """Raise an error where nothing can be written."""
        there = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        if not there.is_dir():
            raise DataError(f"{self.url}: cannot be written: {there} is a file")
        if not os.access(there, os.W_OK | os.X_OK):
            raise DataError(f"{self.url}: cannot be written: no permission for {there}")

    def names(self, prefix: str) -> list[str]:
        """List the files under a prefix."""
        folder = self.folder / prefix
        return sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []

    def delete(self) -> None:
        """Remove all of the store."""
        # The lock stays: whoever else is about to write this store has to meet it.
        lock = self.folder / _LOCK
        for path in [*self.folder.iterdir(), *lock.parent.glob("*")] if self.folder.is_dir() else ():
            if path in (lock, lock.parent):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def clean(self) -> None:
        """Remove what interrupted writes left."""
        shutil.rmtree(self.folder / _TEMPORARY, ignore_errors=True)

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Hold the lock of the store."""
        from filelock import FileLock, Timeout

        path = self.folder / _LOCK
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)  # let go by the system, however the process ends
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise DataError(f"{self.url}: another build is writing this store; wait for it, or stop it") from None
        try:
            yield
        finally:
            lock.release()


class RemoteStorage(Storage):
    """A prefix of an fsspec file system (s3://, gs://, memory://, ...), whose files appear whole by nature."""

    def __init__(self, url: str) -> None:
        import fsspec

        options = options_of(url)
        self.url = Address(url.rstrip("/"), options)
        try:
            self.files, self.root = fsspec.core.url_to_fs(str(self.url), **options)
        except ImportError as error:  # fsspec's words: which package serves such addresses
            raise MissingPackageError(f"{url}: cannot be opened: {error}") from None
        except (ValueError, TypeError) as error:  # an address, or an option, that the file system does not know
            raise DataError(f"{url}: cannot be opened: {error}") from None

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """Say in a line what the file system fails with: no answer, no credentials, whatever its library calls it."""
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            words = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{self.url}: cannot be reached: {words}") from None

    def _path(self, key: str) -> str:
        return f"{self.root}/{key}"

    def read(self, key: str) -> bytes:
        """Return the bytes of a file of the store."""
        with self._plainly():
            return self.files.cat_file(self._path(key))

    def write(self, key: str, content: bytes) -> None:
        """Put a file in place, whole or not at all."""
        path = self._path(key)
        with self._plainly():
            self.files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self.files.pipe_file(path, content)

    def write_parts(self, key: str, parts: Iterable[bytes]) -> None:
        """Put a file in place, whole or not at all, part by part."""
        path = self._path(key)
        self.files.makedirs(path.rpartition("/")[0], exist_ok=True)
        with self.files.transaction, self.files.open(path, "wb") as file:  # dropped where the parts fail
            for part in parts:
                file.write(part)

    def read_parts(self, key: str) -> Iterator[bytes]:
        """Yield a file of the store in parts."""
        with self.files.open(self._path(key), "rb", block_size=_PART) as file:
            while part := file.read(_PART):
                yield part

    def read_many(self, keys: Iterable[str]) -> Iterator[bytes | OSError]:
        """Yield whole files, in order, as many at a time as the file system fetches together."""
        following = iter(keys)
        while some := [self._path(key) for key in islice(following, _TOGETHER)]:
            with self._plainly():
                found = self.files.cat(some, on_error="return")
            for path in some:
                content = found[path]
                known = isinstance(content, bytes | OSError)
                yield content if known else OSError(f"{path}: {content}")

    def sizes(self) -> Callable[[str], int | None]:
        """Return a function that tells the bytes of a file, by one listing of everything."""
        with self._plainly():
            self.files.invalidate_cache(self.root)
            listed = self.files.find(self.root, detail=True)
        return lambda key: listed.get(self._path(key), {}).get("size")

    def remove(self, key: str) -> None:
        """Remove a file."""
        if self.files.exists(self._path(key)):
            self.files.rm_file(self._path(key))

    def append(self, key: str, line: str) -> None:
        """Add a line to a log."""
        # Object stores cannot append: one small file a line.
        self.write(f"{key}.d/{uuid.uuid4().hex}", (line + "\n").encode())

    def read_log(self, key: str) -> list[str]:
        """Return the lines of a log, none where there is no log."""
        lines = self.read_many(f"{key}.d/{name}" for name in self.names(f"{key}.d"))
        return [line.decode().strip() for line in lines if isinstance(line, bytes)]

    def exists(self) -> bool:
        """Tell whether anything is there."""
        with self._plainly():
            self.files.invalidate_cache(self.root)
            return bool(self.files.exists(self.root))

    def names(self, prefix: str) -> list[str]:
        """List the files under a prefix."""
        try:
            with self._plainly():
                entries: list[dict[str, Any]] = self.files.ls(self._path(prefix), detail=True, refresh=True)
        except FileNotFoundError:
            return []
        return sorted(entry["name"].rpartition("/")[2] for entry in entries if entry["type"] == "file")

    def delete(self) -> None:
        """Remove all of the store."""
        if self.exists():
            self.files.rm(self.root, recursive=True)

    def clean(self) -> None:
        """Remove what interrupted writes left."""
        pass


def open_storage(url: str | Path, options: dict[str, Any] | None = None) -> Storage:
    """Return the storage at a path, or at an fsspec URL ("scheme://...").

    Parameters
    ----------
    options : of the URL's file system, as fsspec takes them; None = those that the URL carries (`Address`), or none.
    """
    text = str(url)
    if "://" not in text:
        return LocalStorage(text)
    if text.startswith("file://"):
        return LocalStorage(text.removeprefix("file://"))
    return RemoteStorage(
        Address(text, options if options is not None else options_of(url) if isinstance(url, str) else {})
    )
