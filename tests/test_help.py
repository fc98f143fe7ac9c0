"""`help()` documents every public name: each parameter, field, property and method of `ussim.__all__`."""

from __future__ import annotations

import dataclasses
import inspect
import re
from functools import cached_property

import pytest

import ussim

CLASSES = [name for name in ussim.__all__ if inspect.isclass(getattr(ussim, name))]
FUNCTIONS = [name for name in ussim.__all__ if inspect.isfunction(getattr(ussim, name))]
ENTRY = re.compile(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*) : \S", re.MULTILINE)


def documented(value) -> set[str]:
    """Names that have an entry `name : type`, or `name, other : type`, in the docstring."""
    entries = ENTRY.findall(inspect.getdoc(value) or "")
    # **options is listed without a type, as numpydoc has it
    entries += re.findall(r"^(\*{1,2}\w+)$", inspect.getdoc(value) or "", re.MULTILINE)
    return {name.strip(" *") for entry in entries for name in entry.split(",")}


def parameters(function) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self", "cls"}


def own_members(kind: type) -> dict[str, object]:
    """Public members that the package defines: those of `object` and of the built-in exceptions are not ours to document."""
    classes = [base for base in reversed(kind.__mro__) if base.__module__.split(".")[0] == "ussim"]
    members = {name: member for base in classes for name, member in vars(base).items()}
    return {name: member for name, member in members.items() if not name.startswith("_")}


def attributes(kind: type) -> set[str]:
    names = {name for name, member in own_members(kind).items() if isinstance(member, property | cached_property)}
    if dataclasses.is_dataclass(kind):
        names |= {field.name for field in dataclasses.fields(kind) if not field.name.startswith("_")}
        names |= parameters(kind)
    return names


def methods() -> list[str]:
    found = []
    for name in CLASSES:
        kind = getattr(ussim, name)
        found += [f"{name}.{member}" for member in own_members(kind) if callable(getattr(kind, member))]
    return found


def look_up(path: str):
    value = ussim
    for name in path.split("."):
        value = getattr(value, name)
    return value


def test_every_public_name_is_a_class_a_function_or_a_module_of_such():
    assert sorted([*CLASSES, *FUNCTIONS, "flow", "phantoms"]) == sorted(ussim.__all__)
    from ussim import flow, phantoms

    kinds = [getattr(phantoms, name) for name in phantoms.names()]
    for function in (phantoms.make, phantoms.names, phantoms.beam_apex, phantoms.Phantom.scatterers, *kinds):
        assert inspect.getdoc(function)
    assert parameters(phantoms.make) - documented(phantoms.make) == set()
    assert attributes(phantoms.Phantom) - documented(phantoms.Phantom) == set()
    for function in (flow.parabolic_vessel, flow.rotating_disk):
        assert parameters(function) - documented(function) == set()
    for kind in (flow.ParabolicVessel, flow.RotatingDisk):
        assert attributes(kind) - documented(kind) == set()


@pytest.mark.parametrize("name", CLASSES)
def test_help_of_a_class_says_every_field_and_property(name):
    kind = getattr(ussim, name)
    # dataclasses write a docstring of their own, the signature, where there is none
    assert (kind.__doc__ or "").strip()
    assert not kind.__doc__.startswith(f"{name}(")
    assert attributes(kind) - documented(kind) == set()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_help_of_a_function_says_every_parameter_and_what_it_returns(name):
    function = getattr(ussim, name)
    assert parameters(function) - documented(function) == set()
    assert "\nReturns\n-------\n" in inspect.getdoc(function)


@pytest.mark.parametrize("path", methods())
def test_help_of_a_method_says_every_parameter(path):
    method = look_up(path)
    assert (method.__doc__ or "").strip()
    assert parameters(method) - documented(method) == set()


@pytest.mark.parametrize("name", CLASSES)
def test_properties_have_a_docstring(name):
    members = own_members(getattr(ussim, name))
    empty = [m for m, value in members.items() if isinstance(value, property | cached_property) and not value.__doc__]
    assert empty == []
