"""Machine code of the CUDA kernels: instructions of their inner loops, registers, shared memory. No card is needed.

NVRTC compiles the kernel files as the engine does, for several compute capabilities; `nvdisasm` lists the machine code. The
inner loop of a kernel is the innermost loop with the most multiply-adds. Of it are counted: all instructions, FFMA (fused
multiply-adds), HMMA (tensor cores) and loads from shared memory; of the kernel: registers, accesses to spilled ones, and the
blocks that a multiprocessor holds by its registers and shared memory. `step` is what a block issues for one element or
scatterer of the sum (32 x POINTS points, all its frequencies and transmits): its inner loop in each warp, and its share of
the loops that make responses and weights, at the number of passes that their items take.

    python benchmarks/sass.py                         # results to benchmarks/results/sass.json
    python benchmarks/sass.py --listing transmit 90   # the inner loop itself

Needs the wheels nvidia-cuda-nvrtc and nvidia-cuda-nvdisasm, or a CUDA toolkit: libnvrtc and nvdisasm are looked for in both.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from timing import RESULTS, write_result  # noqa: E402

import ussim  # noqa: E402
from ussim.engines.cuda.backend import read_source  # noqa: E402
from ussim.engines.cuda.beamform import ANY_SIZES  # noqa: E402
from ussim.engines.cuda.cupy import compile_options  # noqa: E402
from ussim.engines.cuda.simulate import LANES, choose_sizes  # noqa: E402
from ussim.plan import make_plan  # noqa: E402

ARCHITECTURES = (80, 86, 89, 90)
REGISTERS, SHARED = 65536, {80: 164, 86: 100, 89: 100, 90: 228}  # of a multiprocessor; KiB
PROBES = ("L11-5v", "L12-3v", "C5-2v", "P4-2v")
DAS_SIZES = [{**ANY_SIZES, "TRANSMITS": transmits, "FRAMES": frames} for transmits, frames in ((15, 2), (1, 16))]
BLOCK_MEMORY = 48 * 1024  # bytes of static shared memory


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listing", nargs=2, metavar=("KERNEL", "CC"), help="print the inner loop of a kernel")
    parser.add_argument("--probe", default=None, help="only this probe's simulation kernels")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "sass.json")
    options = parser.parse_args()
    if options.listing:
        name, capability = options.listing[0], int(options.listing[1])
        code = compiled("simulate.cu", simulation_sizes(options.probe or PROBES[0]), capability)
        print("\n".join(inner_loop(kernels(code)[name])))
        return 0
    rows = []
    for probe in (options.probe,) if options.probe else PROBES:
        sizes = simulation_sizes(probe)
        for capability in ARCHITECTURES:
            cubin, threads = compiled("simulate.cu", sizes, capability), LANES * sizes["GROUPS"]
            for name in ("transmit", "receive", "project"):
                row = row_of(name, cubin, capability, threads)
                rows.append({"probe": probe, **row, "step": step_of(name, cubin, sizes), "sizes": sizes})
    for capability in ARCHITECTURES:
        for sizes in DAS_SIZES:
            cubin = compiled("beamform.cu", sizes, capability)
            row = row_of("delay_and_sum", cubin, capability, 128)
            rows.append({"probe": "any", **row, "a_channel": channel_of(cubin, sizes), "sizes": sizes})
        for compensated in (0, 1):
            sizes = {**ANY_SIZES, "COMPENSATED": compensated}
            row = row_of("mix_and_filter", compiled("beamform.cu", sizes, capability), capability, 128)
            rows.append({"probe": "any", **row, "sizes": sizes})
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items() if key != "sizes"))
    if not options.probe:
        write_result(options.output, {"nvrtc": nvrtc_version(), "kernels": rows})
        print(f"written: {options.output}")
    return 0


def simulation_sizes(probe: str) -> dict[str, int]:
    """Return the sizes of the simulation kernels for a probe's default transmits, as many sub-elements as MUST takes."""
    preset = ussim.load_probe(probe)
    acquisition = ussim.Acquisition(preset, ussim.imaging_waves(preset), n_subelements="must")
    return choose_sizes(make_plan(acquisition), BLOCK_MEMORY)


def row_of(name: str, cubin: bytes, capability: int, threads: int | None) -> dict[str, Any]:
    """Return what is counted of one kernel."""
    lines, (registers, shared) = kernels(cubin)[name], resources(cubin)[name]
    loop = inner_loop(lines)
    kinds = Counter(opcode(line) for line in loop)
    everywhere = Counter(opcode(line) for line in lines)
    row = {
        "kernel": name,
        "compute_capability": capability / 10,
        "inner_loop": {
            "instructions": len(loop),
            "ffma": kinds["FFMA"],
            "hmma": kinds["HMMA"],
            "loads_shared": kinds["LDS"],
            "dfma": kinds["DFMA"],
            "mufu": kinds["MUFU"],
        },
        "ffma_share": round(kinds["FFMA"] / len(loop), 3) if loop else 0.0,
        "kernel_instructions": sum(everywhere.values()) - everywhere[""],
        "local_memory": everywhere["LDL"] + everywhere["STL"],
        "registers": registers,
        "shared_memory": shared,
    }
    if threads:
        by_registers = REGISTERS // (-(-registers // 8) * 8 * threads)
        row["blocks"] = min(by_registers, SHARED[capability] * 1024 // (shared + 1024))  # 1 KiB is the system's
    return row


def resources(cubin: bytes) -> dict[str, tuple[int, int]]:
    """Return the registers per thread and bytes of static shared memory of each kernel."""
    text = disassembled(cubin)
    counted = re.findall(r"EIATTR_REGCOUNT.*?index@\((\w+)\)\s+/\*\w+\*/\s+\.word\s+0x([0-9a-f]+)", text, re.DOTALL)
    shared = {
        name: int(size) for name, size in re.findall(r"^\.nv\.shared\.(\w+):\s+\.zero\s+(\d+)", text, re.MULTILINE)
    }
    return {name: (int(registers, 16), shared.get(name, 0)) for name, registers in counted}


def step_of(name: str, cubin: bytes, sizes: dict[str, int]) -> dict[str, float]:
    """Warp instructions for one inner step of a simulation kernel's block, by part."""
    lines = kernels(cubin)[name]
    found = loops_of(lines)
    products = max(found, key=lambda loop: count(lines, loop, "FFMA") / (1 + inner_loops(loop, found)))
    outer = min(
        (loop for loop in found if loop[0] < products[0] and products[1] < loop[1]), key=lambda loop: loop[1] - loop[0]
    )
    staging = [loop for loop in found if outer[0] < loop[0] and loop[1] < outer[1] and loop != products]
    staging = [a for a in staging if not any(b[0] <= a[0] and a[1] <= b[1] and a != b for b in staging)]
    responses = max(staging, key=lambda loop: count(lines, loop, "MUFU"))
    weights = max((loop for loop in staging if loop != responses), key=lambda loop: loop[1] - loop[0])
    items = {
        "transmit": sizes["TRANSMITS"],
        "receive": sizes["GROUPS"] * sizes["TRANSMITS"] * sizes["FREQUENCIES"] // 2,
        "project": sizes["GROUPS"] * sizes["TRANSMITS"],
    }[name]
    passes = math.ceil(items * sizes["INNER"] / LANES) / sizes["INNER"]
    part = {
        "products": sizes["GROUPS"] * count(lines, products),
        "responses": sizes["POINTS"] * count(lines, responses),
        "weights": round(passes * count(lines, weights), 1),
    }
    return {**part, "all": round(sum(part.values()), 1)}


def channel_of(cubin: bytes, sizes: dict[str, int]) -> float:
    """Warp instructions of `delay_and_sum` per channel of 32 pixels: an element's, where its channels need no test."""
    loop = inner_loop(kernels(cubin)["delay_and_sum"])
    tested = 0
    block: list[str] = []
    for line in loop:
        block.append(line)
        if opcode(line) in ("BRA", "BSYNC"):  # loads under a predicate: of records that are read over their ends
            loads = sum(opcode(each) == "LDG" and "@" in each for each in block)
            tested += len(block) if loads >= sizes["TRANSMITS"] * sizes["FRAMES"] else 0
            block = []
    return round((len(loop) - tested) / (sizes["TRANSMITS"] * sizes["FRAMES"]), 1)


def count(lines: list[str], loop: tuple[int, int], kind: str = "") -> int:
    """Instructions of a loop, all or of a kind."""
    return sum(bool(found) and kind in ("", found) for found in map(opcode, lines[loop[0] : loop[1] + 1]))


def inner_loops(loop: tuple[int, int], loops: list[tuple[int, int]]) -> int:
    """Return how many loops lie within one."""
    return sum(loop[0] <= begin and end <= loop[1] and (begin, end) != loop for begin, end in loops)


def opcode(line: str) -> str:
    """FFMA of `/*0a30*/  @!P0 FFMA.FTZ R4, ... ;`; empty for what is no instruction."""
    found = re.match(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ +)?([A-Z0-9_]+)", line)
    return found[1] if found else ""


def loops_of(lines: list[str]) -> list[tuple[int, int]]:
    """First and last line of what lies between a label and a branch back to it."""
    labels: dict[str, int] = {}
    found = []
    for at, line in enumerate(lines):
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = at
        branch = re.search(r"\bBRA(?:\.\w+)* .*`\((\.L_x_\d+)\)", line)
        if branch and branch[1] in labels and at - labels[branch[1]] > 2:
            found.append((labels[branch[1]], at))
    return found


def inner_loop(lines: list[str]) -> list[str]:
    """Return the instructions of the loop with no other one inside and the most multiply-adds."""
    found = loops_of(lines)
    innermost = [loop for loop in found if not inner_loops(loop, found)]
    best = max(
        innermost, key=lambda loop: sum(count(lines, loop, kind) for kind in ("FFMA", "HMMA", "DFMA")), default=None
    )
    return [] if best is None else [line for line in lines[best[0] : best[1] + 1] if opcode(line)]


@cache
def disassembled(cubin: bytes) -> str:
    """Return what nvdisasm says of a cubin."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([find("nvdisasm"), file.name], check=True, capture_output=True, text=True).stdout


@cache
def kernels(cubin: bytes) -> dict[str, list[str]]:
    """Return the machine code of each kernel, a line an instruction or label."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in disassembled(cubin).splitlines():
        if section := re.match(r"\.section\s+\.text\.(\w+)", line.strip()):
            current = found.setdefault(section[1], [])
        elif re.match(r"\s*\.section\s", line):
            current = []
        current.append(line)
    return found


@cache
def nvrtc() -> ctypes.CDLL:
    return ctypes.CDLL(find("libnvrtc.so"))


def nvrtc_version() -> str:
    major, minor = ctypes.c_int(), ctypes.c_int()
    nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def compiled(file: str, sizes: dict[str, Any], capability: int) -> bytes:
    """Return the cubin that NVRTC makes of a kernel file."""
    library, program = nvrtc(), ctypes.c_void_p()
    source = read_source(file).encode()
    _check(library.nvrtcCreateProgram(ctypes.byref(program), source, file.encode(), 0, None, None), "create")
    options = [f"-arch=sm_{capability}", "-ftz=true", *compile_options(sizes)]  # the first two as CuPy adds them
    arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = library.nvrtcCompileProgram(program, len(options), arguments)
    size = ctypes.c_size_t()
    if failed:
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, log)
        raise SystemExit(f"{file}: {log.value.decode()}")
    _check(library.nvrtcGetCUBINSize(program, ctypes.byref(size)), "size")
    cubin = ctypes.create_string_buffer(size.value)
    _check(library.nvrtcGetCUBIN(program, cubin), "cubin")
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return cubin.raw


def find(name: str) -> str:
    """Return a program on the path, or a file of NVIDIA's wheels or of a toolkit."""
    if on_path := shutil.which(name):
        return on_path
    for folder in (Path(sysconfig.get_path("purelib")) / "nvidia", Path("/usr/local/cuda")):
        for path in sorted(folder.rglob(f"{name}*")) if folder.is_dir() else ():
            if path.is_file() and "builtins" not in path.name and "alt" not in path.name:
                return str(path)
    raise SystemExit(f"{name}: not found; pip install nvidia-cuda-nvrtc nvidia-cuda-nvdisasm, or a CUDA toolkit")


def _check(code: int, what: str) -> None:
    if code:
        raise SystemExit(f"NVRTC: {what}: error {code}")


if __name__ == "__main__":
    sys.exit(main())
