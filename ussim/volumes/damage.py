"""Damaged and hostile files: whatever a parser makes of one becomes one line about that file, and nothing else stops."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps

from ..errors import DataError, UssimError
from .volume import Volume, VolumeRef

_log = logging.getLogger(__name__)


@contextmanager
def told(where: str) -> Iterator[None]:
    """Turn any failure inside into a DataError that names the file; errors that are told already, and ctrl-C, pass.

    Parsers raise many kinds on bytes that nobody wrote on purpose, and what they warn of is no news for a user.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (UssimError, ImportError):
        raise
    except OSError as error:
        raise DataError(f"{where}: {error.strerror or error}") from None
    except MemoryError:
        raise DataError(f"{where}: needs more memory than there is") from None
    except Exception as error:
        _log.debug("%s", where, exc_info=True)
        raise DataError(f"{where}: damaged: {_said(error)}") from None


def told_of_ref(load: Callable[..., Volume]) -> Callable[..., Volume]:
    """Make a function that loads the volume of a `VolumeRef` raise nothing but DataError."""

    @wraps(load)
    def loaded(ref: VolumeRef, *arguments: object, **options: object) -> Volume:
        with told(ref.name):
            return load(ref, *arguments, **options)

    return loaded


def without_path(error: BaseException, path: str | os.PathLike[str]) -> str:
    """Return an error's words without the path they begin with, for where the path stands beside them."""
    return str(error).removeprefix(f"{os.fspath(path)}: ").replace(f"{os.path.dirname(path)}/", "")


def _said(error: Exception) -> str:
    """Return the kind of an error and its first words."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:200]}" if words else type(error).__name__
