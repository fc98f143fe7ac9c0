"""The hops of one sample from the command to the written chunk: `python tests/walk.py [FOLDER OF THE PACKAGES]`.

A hop is a call between functions of different files of `datagen` that hands the sample on: an argument or the result is the
sample in one of its forms, from the reference of its volume to the record of its shard. A pair of functions counts once, and
what stands inside a function counts as that function.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

FORMS = {
    "VolumeRef",
    "Volume",
    "Found",
    "VolumeSamples",
    "HQSlice",
    "Sample",
    "Plan",
    "Job",
    "Made",
    "Pair",
    "ShardRecord",
}
BUILD = "build --source demo --probe C5-2v --limit 1 --size 32 --engine cpu --out"


def holds_sample(value, depth=2):
    """Whether a value is a sample in one of its forms, or begins with one."""
    if isinstance(value, np.ndarray):
        return value.ndim >= 2 and value.dtype != bool  # fields of view are of all samples
    if isinstance(value, list | tuple | dict) and value and depth:
        return holds_sample(next(iter(value.values() if isinstance(value, dict) else value)), depth - 1)
    return type(value).__name__ in FORMS


def hops(root, out):
    """Build one sample; return the ((file, function), (file, function)) of each hop, in order."""
    found, is_written = {}, False
    package = Path(root).resolve() / "datagen"

    def place(code):
        path = Path(code.co_filename)
        inside = path.is_relative_to(package) and code.co_name != "<module>"
        return (str(path.relative_to(package)), code.co_qualname.split(".<locals>")[0]) if inside else None

    def watch(frame, event, value):
        nonlocal is_written
        if is_written or event not in ("call", "return") or not (here := place(frame.f_code)):
            return
        code, caller = frame.f_code, frame.f_back
        while caller is not None and not (there := place(caller.f_code)):  # through click, map, decorators
            caller = caller.f_back
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        handed = [frame.f_locals.get(name) for name in names] if event == "call" else [value]
        if caller is not None and there[0] != here[0] and any(map(holds_sample, handed)):
            found[there, here] = None
        is_written = event == "return" and code.co_name == "write_shard"

    from datagen.cli import cli

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        cli([*BUILD.split(), str(out)], standalone_mode=False)
    finally:
        sys.setprofile(before)
    assert is_written
    return list(found)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]).resolve()
    sys.path.insert(0, str(folder))
    with tempfile.TemporaryDirectory() as temporary:
        way = hops(folder, Path(temporary) / "pairs.zarr")
    for (one, caller), (other, called) in way:
        print(f"{one:24} {caller:20} -> {other:24} {called}")
    print(len(way), "hops")
