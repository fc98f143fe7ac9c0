"""Packages whose names are imported when first used, so that importing a package, and every `--help`, costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from .extras import missing


def attach(
    package: str, homes: Mapping[str, str], modules: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package whose names are imported when first used.

    Parameters
    ----------
    package : name of the package, its `__name__`.
    homes : public name -> the module of the package that defines it, dotted below the package, or in full from `ussim.` on.
    modules : public name -> the module of the package that it stands for.
    """
    modules = modules or {}

    def __getattr__(name: str) -> Any:
        if name not in homes and name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            if name in homes:
                home = homes[name]
                value = getattr(import_module(home if home.startswith("ussim.") else f"{package}.{home}"), name)
            else:
                value = import_module(f"{package}.{modules[name]}")
        except ModuleNotFoundError as error:
            raise missing(error) or error from None
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted([*homes, *modules])

    return __getattr__, __dir__
