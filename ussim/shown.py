"""Values as a notebook shows them: a line, a small table, a picture; their arrays by size and range alone."""

from __future__ import annotations

import dataclasses
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 70  # letters of a nested value


class Shown:
    """Base of values whose fields are arrays: a short `repr`, and a table where HTML is shown."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={text}' for name, text in entries(self))})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(text)}</td></tr>"
            for name, text in entries(self)
        )
        return f"<table><caption><b>{escape(type(self).__name__)}</b></caption>{rows}</table>"


def entries(value: Any) -> list[tuple[str, str]]:
    """Return the fields of a dataclass that differ from their defaults, each with its value in short."""
    shown = []
    for field in dataclasses.fields(value):
        held = getattr(value, field.name)
        if not field.repr or held is None or _is_default(held, field):
            continue
        shown.append((field.name.removeprefix("_"), short(held)))
    return shown


def short(value: Any) -> str:
    """Return a value in a few words: an array by its size, type and range."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _of_array(value)
    if isinstance(value, Shown):
        inner = ", ".join(f"{name}={text}" for name, text in entries(value))
        return f"{type(value).__name__}({_cut(inner)})"
    name = getattr(value, "name", None)
    if dataclasses.is_dataclass(value) and isinstance(name, str):
        return f"{type(value).__name__}({name!r})"
    return f"{value:.6g}" if isinstance(value, float) else _cut(repr(value))


def draw(figure: str, *arguments: Any, **options: Any) -> Figure:
    """Return a figure of `ussim.show.figures`, which is imported now; so is matplotlib."""
    drawn: Figure = getattr(import_module("ussim.show.figures"), figure)(*arguments, **options)
    return drawn


def _of_array(array: Any) -> str:
    size = " x ".join(str(n) for n in array.shape) or "one"
    if isinstance(array, np.ndarray) and array.ndim == 1 and array.size and array.dtype.kind in "iuf":
        low, high = float(np.nanmin(array)), float(np.nanmax(array))
        return f"<{size}: {low:.4g} to {high:.4g}>" if low < high else f"<{size}: {low:.4g}>"
    return f"<{size} {array.dtype}>"


def _is_default(value: Any, field: Any) -> bool:
    """Return whether a plain value is what it would be without being given."""
    plain = isinstance(value, bool | int | float | str)
    return plain and field.default is not dataclasses.MISSING and field.default == value


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
