"""Compiled functions as Python calls them: declared arguments, loaded at the first call."""

from __future__ import annotations

import os
import struct
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any, Generic, NamedTuple, ParamSpec, get_args, get_origin, get_type_hints

import numpy as np

P = ParamSpec("P")
WORDS = {int: "q", float: "d", bool: "q"}  # a number in the block of arguments
SWITCH = "USSIM_KERNELS"  # "numba": compile the sources here, whatever is shipped


class Number(NamedTuple):
    """An argument that is a number: int64, float64 or bool."""

    kind: type

    @property
    def words(self) -> str:
        """Words of the block, as `struct` writes them."""
        return WORDS[self.kind]


class Array(NamedTuple):
    """An argument that is a C-contiguous array."""

    dtype: np.dtype[Any]
    ndim: int

    @property
    def words(self) -> str:
        """Words of the block: address and shape."""
        return "Q" + "q" * self.ndim

    def __str__(self) -> str:
        return f"a C-contiguous array of {self.dtype} with {self.ndim} axes"


class Group(NamedTuple):
    """An argument that is a tuple; `kind` is its class."""

    kind: type
    members: tuple[Number | Array | Group, ...]

    @property
    def words(self) -> str:
        """Words of the block."""
        return "".join(member.words for member in self.members)


def declared(hint: Any) -> Number | Array | Group:
    """Read a type from an annotation: a number, `Annotated[np.ndarray, dtype, ndim]`, or a tuple of these.

    Raises
    ------
    TypeError
        The annotation is none of these.
    """
    if hint in WORDS:
        return Number(hint)
    if get_origin(hint) is tuple:
        return Group(tuple, tuple(map(declared, get_args(hint))))
    if isinstance(hint, type) and issubclass(hint, tuple):
        return Group(hint, tuple(map(declared, get_type_hints(hint, include_extras=True).values())))
    kind, *facts = get_args(hint) or (None,)
    if kind is not np.ndarray or len(facts) != 2:
        raise TypeError(
            f"kernel: expected int, float, bool, Annotated[np.ndarray, dtype, ndim] or a tuple, got {hint!r}"
        )
    return Array(np.dtype(facts[0]), int(facts[1]))


def _leaves(types: tuple[Number | Array | Group, ...]) -> list[Number | Array]:
    """Return the types with the members of tuples in their places."""
    flat: list[Number | Array] = []
    for type_ in types:
        flat += _leaves(type_.members) if isinstance(type_, Group) else [type_]
    return flat


def _spread(values: tuple[Any, ...], types: tuple[Number | Array | Group, ...]) -> list[Any]:
    """Return the values with the members of tuples in their places."""
    flat: list[Any] = []
    for value, type_ in zip(values, types, strict=True):
        flat += _spread(value, type_.members) if isinstance(type_, Group) else [value]
    return flat


class Kernel(Generic[P]):
    """A compiled function; it is loaded when it is first called.

    Attributes
    ----------
    name : of the function, and of its bitcode.
    module : in which the function is written.
    arguments : their types, in order.
    reason : why Numba compiles it here; empty where the shipped bitcode runs, None before the first call.
    """

    def __init__(self, module: str, function: Callable[P, None]) -> None:
        self.name, self.module, self.__doc__ = function.__name__, module, function.__doc__
        hints = get_type_hints(function, include_extras=True)
        hints.pop("return")
        self.arguments = tuple(map(declared, hints.values()))
        self._names = tuple(hints)
        self._flat = _leaves(self.arguments)
        self._block = struct.Struct("=" + "".join(argument.words for argument in self.arguments))
        self._run: Callable[..., None] | None = None
        self.reason: str | None = None

    def __call__(self, *arguments: P.args, **named: P.kwargs) -> None:
        """Run the kernel, without the interpreter's lock.

        Raises
        ------
        TypeError
            An array is not of the declared type: nothing is converted. Or an argument is missing.
        MemoryError
            The kernel could not get its buffers.
        """
        if len(arguments) + len(named) != len(self._names):
            raise TypeError(
                f"{self.name}: expected {len(self._names)} arguments, got {len(arguments) + len(named)}: "
                f"{', '.join(self._names)}"
            )
        values = arguments + tuple(named[name] for name in self._names[len(arguments) :])
        for value, type_ in zip(_spread(values, self.arguments), self._flat, strict=True):
            if isinstance(type_, Array) and not (
                value.dtype == type_.dtype and value.ndim == type_.ndim and value.flags.c_contiguous
            ):
                raise TypeError(f"{self.name}: expected {type_}, got {value.dtype} of shape {value.shape}")
        (self._run or self._load())(*values)

    def _load(self) -> Callable[..., None]:
        with _lock:
            if self._run is None:
                try:
                    self._run, self.reason = self.by_llvm(), ""
                except ImportError as error:
                    self._run, self.reason = self.by_numba(), str(error)
            return self._run

    def by_llvm(self) -> Callable[..., None]:
        """Return what runs the shipped bitcode.

        Raises
        ------
        ImportError
            It is of other sources, or not for this machine, or the user wants Numba.
        """
        for name, value in ((SWITCH, "numba"), ("NUMBA_DISABLE_JIT", "1")):
            if os.environ.get(name) == value:
                raise ImportError(f"{name}={value}")
        from . import machine, shipped

        if not shipped.is_current():
            raise ImportError("the kernels' sources are not those of the shipped bitcode")
        call = machine.load(self.name)
        return lambda *values: self._call(call, _spread(values, self.arguments))

    def _call(self, call: Callable[[bytes], int], flat: list[Any]) -> None:
        words: list[Any] = []
        for value, type_ in zip(flat, self._flat, strict=True):
            if isinstance(type_, Array):
                words.append(value.__array_interface__["data"][0])
                words += value.shape
            else:
                words.append(value)
        if call(self._block.pack(*words)):
            raise MemoryError(f"kernel {self.name}: memory ran out")

    def by_numba(self) -> Callable[..., None]:
        """Return the function as Numba compiles it here, with what it calls: half a minute for all, kept on disk."""
        from ....compiling import keep_on_disk
        from .shipped import sources_digest

        function: Callable[..., None] = getattr(import_module(self.module), self.name)
        keep_on_disk(function, sources_digest())
        return function


_lock = threading.RLock()


def kernel(module: str) -> Callable[[Callable[P, None]], Kernel[P]]:
    """Declare a kernel: the function of the same name in `module`, beside the decorated one, takes these arguments."""

    def declare(function: Callable[P, None]) -> Kernel[P]:
        return Kernel(f"{sys.modules[function.__module__].__name__}.{module}", function)

    return declare
