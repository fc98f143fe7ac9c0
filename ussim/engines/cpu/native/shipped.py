"""Shipped bitcode, the sources it belongs to, and the digest of the kernels in use."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from .... import physics, plan

FOLDER = Path(__file__).resolve().parent / "bitcode"
INDEX = FOLDER / "index.json"
KERNELS = FOLDER.parents[1] / "kernels"


def bitcode(name: str) -> bytes:
    """Return the bitcode of a kernel, as it was exported.

    Raises
    ------
    OSError
        It is not there.
    ValueError
        The file is not what the index says.
    """
    code = (FOLDER / f"{name}.bc").read_bytes()
    if hashlib.sha256(code).hexdigest() != index()["kernels"].get(name):
        raise ValueError(f"{name}.bc: is not the file that was exported; install ussim again")
    return code


@cache
def index() -> dict[str, Any]:
    """Return what is recorded of an export: {} where there is none."""
    try:
        found: dict[str, Any] = json.loads(INDEX.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def identity() -> str:
    """Return what decides the bytes of results, beside the recipe: the shipped bitcode, or sources that Numba compiles."""
    if not is_current():
        return f"sources {sources_digest()[:16]}"
    code = json.dumps(index()["kernels"], sort_keys=True)
    return f"bitcode {hashlib.sha256(code.encode()).hexdigest()[:16]}"


@cache
def is_current() -> bool:
    """Tell whether what is shipped was made of the sources at hand."""
    return bool(index()) and index()["sources"] == sources_digest()


@cache
def sources_digest() -> str:
    """Return the SHA-256 of all that is compiled in: the kernels, the formulas of `physics`, the order of the filter."""
    sources = [Path(physics.__file__), *sorted(KERNELS.glob("*.py"))]
    texts = [path.read_bytes().replace(b"\r\n", b"\n") for path in sources]
    return hashlib.sha256(b"\0".join([str(plan.FILTER_ORDER).encode(), *texts])).hexdigest()
