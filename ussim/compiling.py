"""Numba functions kept on disk, wherever that is possible: a read-only installation or a full disk stops no simulation.

Numba keeps what it compiled beside the source, or in the user's cache folder, or where `NUMBA_CACHE_DIR` says. Where none of
them can be written, a folder of the user's own among the temporary files serves; without that, each run compiles again.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import cache as once
from typing import Any

import numba
from numba.core import event

from .cached import private_folder, temporary_folder
from .waiting import taking

# What reading a damaged cache raises, by which of its bytes are wrong.
DAMAGE = (OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ImportError, pickle.PickleError)
ADVICE = "set NUMBA_CACHE_DIR to a folder that can be written and stays"


def njit(*function: Callable[..., Any], cache: bool = False, **options: Any) -> Any:
    """Compile as `numba.njit` does; with `cache`, keep the result on disk where there is a place for it.

    Numba itself raises RuntimeError where there is none.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        if cache:
            keep_on_disk(dispatcher)
        return dispatcher

    return compiled(*function) if function else compiled


# --- the cache -------------------------------------------------------------------------------------------------------


def keep_on_disk(dispatcher: Any, stamp: str = "") -> None:
    """Have Numba keep what it makes of a function, and renew it when the function's file or `stamp` changes."""
    if not hasattr(dispatcher, "enable_caching"):  # NUMBA_DISABLE_JIT leaves functions as they are
        return
    _register()
    try:
        dispatcher.enable_caching()
    except RuntimeError:  # "no locator available": no folder that Numba knows of can be written
        if not _use_temporary_cache():
            return
        dispatcher.enable_caching()
    cache = dispatcher._cache
    files: Any = getattr(cache, "_cache_file", None)
    if stamp and hasattr(files, "_source_stamp"):
        files._source_stamp = (files._source_stamp, stamp)
    for name in ("load_overload", "save_overload"):
        setattr(cache, name, _forgiving(getattr(cache, name), cache.flush))


@once
def _use_temporary_cache() -> bool:
    """Have Numba keep its results in the user's own temporary folder; whether it can. Say so, once."""
    folder = private_folder(temporary_folder("ussim-numba"))
    if folder is None:
        warnings.warn(f"no folder for compiled code can be written: every run compiles again; {ADVICE}", stacklevel=2)
        return False
    warnings.warn(f"compiled code is kept in {folder}, as no other folder can be written; {ADVICE}", stacklevel=2)
    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
    os.environ["NUMBA_CACHE_DIR"] = str(folder)  # of the processes that this one starts
    return True


def _forgiving(step: Callable[..., Any], flush: Callable[[], None]) -> Callable[..., Any]:
    """Return a step of the cache that may fail (a full disk, a damaged file).

    Then there is nothing kept, and work goes on.
    """

    def attempt(*arguments: Any) -> Any:
        try:
            return step(*arguments)
        except DAMAGE as error:
            if _is_of_another_release(error):  # nothing is wrong: compile anew, and keep that
                with suppress(OSError):
                    flush()
                return None
            _warn_once(f"compiled code cannot be kept or read ({error}); {ADVICE}")
            if not isinstance(error, OSError):  # a damaged index: begin another
                with suppress(OSError):
                    flush()
            return None

    return attempt


def _is_of_another_release(error: Exception) -> bool:
    """Return True where what was kept speaks of a module of this package that is no more."""
    return isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in ("ussim", "irsde")


@once
def _warn_once(text: str) -> None:
    warnings.warn(text, stacklevel=2)


# --- saying that it compiles -----------------------------------------------------------------------------------------


class _Listener(event.Listener):
    """Hears from Numba what is really compiled: what is read from the cache makes no event."""

    def __init__(self) -> None:
        self._depth, self._block = 0, ExitStack()

    def on_start(self, event: Any) -> None:
        if not self._depth:
            self._block.enter_context(taking("compiling for this processor: up to half a minute, the first time only"))
        self._depth += 1

    def on_end(self, event: Any) -> None:
        self._depth -= 1
        if not self._depth:
            self._block.close()


@once
def _register() -> None:
    event.register("numba:compile", _Listener())
