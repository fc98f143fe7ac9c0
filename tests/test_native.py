"""Shipped kernels: they belong to the sources, are the same each time, run without Numba, and nothing depends on a cache."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pytest

import ussim
from ussim import cached, waiting
from ussim.engines.cpu import kernels
from ussim.engines.cpu.native import machine, shipped
from ussim.engines.cpu.native.kernel import Array, Group, Kernel, Number, declared

ROOT = Path(ussim.__file__).parents[1]
RESULTS = """
import hashlib, sys
import numpy as np, ussim

medium = ussim.Medium(attenuation_db_cm_mhz=0.5)
acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves([-0.1, 0.1]), medium)
rng = np.random.default_rng(0)
points = ussim.Scatterers(rng.uniform(-5e-3, 5e-3, 40), rng.uniform(20e-3, 30e-3, 40), rng.normal(size=40))
grid = ussim.ImageGrid(x=np.linspace(-5e-3, 5e-3, 24), z=np.linspace(20e-3, 30e-3, 24))
rf = ussim.simulate(points, acquisition, engine="cpu")
iq = ussim.demodulate(rf)
image = ussim.delay_and_sum(iq, grid, interpolation="lanczos3")
for result in (rf.samples, iq.samples, image):
    print(hashlib.sha256(result.tobytes()).hexdigest())
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"numba", "llvmlite"}))
"""


def run(program, *arguments, cwd=ROOT, **environment):
    """Run a program in a process of its own; its output, and the seconds of CPU that it took."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("USSIM_", "NUMBA_CPU"))}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=kept | {"PYTHONPATH": str(cwd)} | environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.fixture(scope="module")
def usual():
    """What `RESULTS` prints where all is well."""
    done, _ = run(RESULTS)
    *digests, compilers = done.stdout.splitlines()
    assert compilers == "llvmlite"
    return digests


# --- what is shipped -------------------------------------------------------------------------------------------------


def test_what_is_shipped_was_made_of_the_sources_at_hand():
    advice = "kernels or physics.py changed: run `python -m ussim.engines.cpu.native.export` and commit what it writes"
    assert shipped.index()["sources"] == shipped.sources_digest(), advice
    names = {kernel.name for kernel in kernels.KERNELS}
    assert {path.stem for path in shipped.FOLDER.glob("*.bc")} == names == set(shipped.index()["kernels"])
    for name in names:
        assert hashlib.sha256(shipped.bitcode(name)).hexdigest() == shipped.index()["kernels"][name]


def test_every_kernel_of_the_engine_is_declared():
    declared_names = [name for name, value in vars(kernels).items() if isinstance(value, Kernel)]
    assert declared_names == [kernel.name for kernel in kernels.KERNELS]


def test_the_pinned_numba_is_the_one_that_exported():
    pins = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    assert shipped.index()["numba"] == pins["numba"]


def exporter_is_here():
    made = shipped.index()
    here = ".".join(map(str, sys.version_info[:2])), metadata.version("numba")
    return here == (made["python"], made["numba"]) and sys.platform == "linux" and os.uname().machine == "x86_64"


@pytest.mark.skipif(not exporter_is_here(), reason="bytes are promised of the Python and Numba that exported")
def test_an_export_gives_the_same_bytes_whatever_the_folder_and_the_seed(tmp_path):
    for package in ("ussim", "probes"):
        shutil.copytree(ROOT / package, tmp_path / "elsewhere" / package, ignore=shutil.ignore_patterns("__pycache__"))
    made = tmp_path / "elsewhere" / shipped.FOLDER.relative_to(ROOT)
    for path in made.iterdir():
        path.unlink()
    run(
        "from ussim.engines.cpu.native import export; export.main()",
        cwd=tmp_path / "elsewhere",
        PYTHONHASHSEED="7",
    )
    assert {path.name for path in made.iterdir()} == {path.name for path in shipped.FOLDER.iterdir()}
    for path in made.iterdir():
        assert path.read_bytes() == (shipped.FOLDER / path.name).read_bytes(), path.name


def test_nothing_of_the_machine_that_exported_is_inside():
    for path in shipped.FOLDER.iterdir():
        content = path.read_bytes()
        for word in (str(ROOT), os.path.expanduser("~"), "site-packages", ".py", "znver", "avx"):
            assert word.encode() not in content, (path.name, word)


# --- the same results, whatever compiles them ------------------------------------------------------------------------


def test_numba_compiles_the_same_results(usual):
    done, _ = run(RESULTS, USSIM_KERNELS="numba")
    *digests, compilers = done.stdout.splitlines()
    assert compilers == "llvmlite numba"
    assert digests == usual


@pytest.mark.parametrize("cpu", ["x86-64-v3", "x86-64-v4"])
def test_every_recent_processor_gives_the_same_bytes(usual, cpu):
    """Fused products and the order of sums are written in the kernels, not chosen by the compiler."""
    features = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if {"x86-64-v3": " avx2 ", "x86-64-v4": " avx512vl "}[cpu] not in features:
        pytest.skip(f"this processor is no {cpu}")
    done, _ = run(RESULTS, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES="")
    assert done.stdout.splitlines()[:-1] == usual


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86-64 processors")
@pytest.mark.parametrize(
    ("cpu", "wide"), [("x86-64", False), ("haswell", False), ("znver3", False), ("x86-64-v4", True), ("znver4", True)]
)
def test_the_innermost_loops_hold_their_sums_in_the_registers_of_the_processor(cpu, wide):
    """24 sums of 16 numbers in AVX-512's registers; in AVX2's they would go to the stack and back with every product."""
    target = machine.target_machine(cpu, "")
    assert machine.has_wide_registers(target) is wide
    module = machine.optimized(shipped.bitcode("cell_spectrum"), target)
    assert machine.WIDE_REGISTERS not in {item.name for item in module.global_variables}
    if cpu == "x86-64":  # neither registers nor fused products for such loops
        return
    products = [loop for loop in innermost_loops(target.emit_assembly(module)) if is_outer_product(loop)]
    most = max(sum("vfmadd" in line for line in loop) for loop in products)
    assert most >= (24 if wide else 2 * 6)
    spilled = [line for loop in products for line in loop if re.search(r"\(%rsp\).*[xyz]mm|[xyz]mm.*\(%rsp\)", line)]
    assert spilled == []


def innermost_loops(assembly):
    """Bodies of the loops that are a single block, line by line."""
    lines = assembly.splitlines()
    label = 0
    for i, line in enumerate(lines):
        if re.match(r"\.?\w+:", line):
            label = i
        jump = re.match(r"\s+j\w+\s+(\S+)$", line)
        if jump and lines[label].startswith(f"{jump[1]}:"):
            yield lines[label:i]


def is_outer_product(loop):
    """Tell whether a loop does nothing but fused products of vectors."""
    others = r"\s+v(mul|add|sub|sqrt|div|fm(sub|addsub)|fnm)"
    return any("vfmadd" in line for line in loop) and not any(re.match(others, line) for line in loop)


@pytest.mark.parametrize("change", ["a kernel edited", "a formula edited", "bitcode of a newer LLVM", "no bitcode"])
def test_numba_compiles_where_the_shipped_code_cannot_be_used(monkeypatch, change):
    kernel = Kernel(kernels.mix_and_filter.module, kernels_stub("mix_and_filter"))
    if "edited" in change:
        shipped.is_current.cache_clear()
        monkeypatch.setattr(shipped, "sources_digest", lambda: "another")
        expected = "sources are not those"
    elif change == "no bitcode":
        monkeypatch.setattr(shipped, "FOLDER", Path("/nowhere"))
        expected = "No such file"
    else:
        monkeypatch.setattr(shipped, "bitcode", lambda name: b"BC\xc0\xde of tomorrow")
        expected = "mix_and_filter.bc: "
    with pytest.raises(ImportError, match=expected):
        kernel.by_llvm()
    shipped.is_current.cache_clear()


def kernels_stub(name):
    """The declaration that a kernel was made of, as far as it matters: a name and types."""

    def stub(edge: int) -> None: ...

    stub.__name__ = name
    return stub


def test_the_digest_follows_every_file_that_is_compiled_in(tmp_path, monkeypatch):
    folder = tmp_path / "kernels"
    shutil.copytree(shipped.KERNELS, folder)
    monkeypatch.setattr(shipped, "KERNELS", folder)
    before = shipped.sources_digest.__wrapped__()
    assert before == shipped.sources_digest()
    for file in sorted(folder.glob("*.py")):
        kept = file.read_bytes()
        file.write_bytes(kept.replace(b"\n", b"\r\n"))  # as Git may check it out
        assert shipped.sources_digest.__wrapped__() == before
        file.write_bytes(kept + b"# edited\n")
        assert shipped.sources_digest.__wrapped__() != before
        file.write_bytes(kept)
    monkeypatch.setattr("ussim.plan.FILTER_ORDER", 6)
    assert shipped.sources_digest.__wrapped__() != before


# --- the cache -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [b"", b"short", None, "one bit"])
def test_a_spoiled_cache_is_made_anew(tmp_path, usual, damage):
    place = {"USSIM_CACHE": str(tmp_path)}
    program = re.sub(r"image = .*\n", "", RESULTS).replace(", image)", ")")
    run(program, **place)
    files = sorted((tmp_path / "code").glob("*.o"))
    made = ["add_cells", "cell_spectrum", "mix_and_filter"]
    assert [path.name.rpartition("-")[0] for path in files] == made
    whole = [path.read_bytes() for path in files]
    path = files[-1]  # of mix_and_filter
    content = path.read_bytes()
    if damage is None:
        path.unlink()
    elif damage == "one bit":
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    else:
        path.write_bytes(damage)
    done, _ = run(program, **place)
    assert done.stdout.splitlines()[:2] == usual[:2]
    assert done.stderr == ""
    assert [file.read_bytes() for file in files] == whole


def test_nothing_needs_a_disk_that_can_be_written(tmp_path, usual):
    (tmp_path / "file").write_text("")
    nowhere = str(tmp_path / "file" / "below")  # not even root can make it
    done, _ = run(RESULTS, HOME=nowhere, XDG_CACHE_HOME=nowhere, USSIM_CACHE=nowhere)
    assert done.stdout.splitlines()[:-1] == usual
    assert done.stderr == ""


@pytest.mark.parametrize("obstacle", ["a file", "open to all", "a link"])
def test_code_that_others_could_have_written_is_not_run(tmp_path, monkeypatch, obstacle):
    monkeypatch.delenv("USSIM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cached.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    folder = tmp_path / "cache" / "ussim" / "code"
    folder.parent.mkdir(parents=True)
    (tmp_path / "tmp").mkdir()
    if obstacle == "a file":
        folder.write_text("")
    elif obstacle == "a link":
        (tmp_path / "theirs").mkdir()
        folder.symlink_to(tmp_path / "theirs")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    cached._place.cache_clear()
    try:
        cached.keep("name.o", b"code")
        assert cached.read("name.o") == b"code"
        (kept,) = (tmp_path / "tmp").rglob("name.o")
        assert kept.parent.stat().st_mode & 0o077 == 0
        assert list(tmp_path.rglob("name.o")) == [kept]
    finally:
        cached._place.cache_clear()


def test_processes_and_threads_may_begin_at_once(tmp_path):
    program = """
import threading
import numpy as np
from ussim.engines.cpu import kernels
out = [np.zeros((1, 64)) for _ in range(4)]
def work(i):
    x = np.linspace(0, 1, 64)
    kernels.extreme_arrivals(x, x, x[:1], x[:1], np.zeros((1, 1)), 1.0, 1.0, out[i], np.zeros(2, np.int64), 0, 1)
threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert all((o == out[0]).all() for o in out) and out[0].max() > 1
"""
    environment = dict(os.environ, PYTHONPATH=str(ROOT), USSIM_CACHE=str(tmp_path))
    processes = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert [path.suffix for path in (tmp_path / "code").iterdir()] == [".o"]


# --- calling ---------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    values: Annotated[np.ndarray, "float32", 2]
    n: int


def test_declared_types():
    assert declared(float) == Number(float)
    assert declared(Annotated[np.ndarray, "int64", 2]) == Array(np.dtype("int64"), 2)
    assert declared(Pair) == Group(Pair, (Array(np.dtype("float32"), 2), Number(int)))
    assert declared(tuple[int, bool]) == Group(tuple, (Number(int), Number(bool)))
    for other in (str, np.ndarray, list[int], Annotated[int, 3]):
        with pytest.raises(TypeError, match="kernel: expected int, float, bool"):
            declared(other)


def arrivals(**changes):
    points = np.linspace(0.0, 1.0, 5)
    arguments = {
        "x": points, "z": points, "source_x": np.zeros(2), "source_z": np.zeros(2), "delays": np.zeros((3, 2)),
        "slowness": 1.0, "sign": 1.0, "out": np.zeros((3, 5)), "watch": np.zeros(2, np.int64), "worker": 0, "n_workers": 1,
    } | changes  # fmt: skip
    kernels.extreme_arrivals(**arguments)
    return arguments["out"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"x": np.zeros(5, np.float32)},
        {"x": np.zeros((5, 1))},
        {"x": np.zeros(10)[::2]},
        {"delays": np.zeros((2, 3)).T},
    ],
)
def test_an_array_of_another_kind_is_refused(wrong):
    with pytest.raises(TypeError, match="expected a C-contiguous array of float64 with"):
        arrivals(**wrong)
    with pytest.raises(TypeError, match="extreme_arrivals: expected 11 arguments, got 1: x, z, source_x"):
        kernels.extreme_arrivals(np.zeros(5))


def test_arguments_by_name_and_read_only():
    points = np.linspace(0.0, 1.0, 5)
    points.flags.writeable = False
    np.testing.assert_allclose(arrivals(x=points), np.hypot(points, points) * np.ones((3, 1)), rtol=1e-15)


def test_memory_that_is_not_there_is_an_error_of_python():
    many = 10**13
    with pytest.raises(MemoryError, match="extreme_arrivals: memory ran out"):
        arrivals(source_x=np.zeros(0), source_z=np.zeros(0), delays=np.zeros((many, 0)))


# --- what a user waits for -------------------------------------------------------------------------------------------


def test_a_wait_is_spoken_of_when_it_is_longer_than_half_a_second(monkeypatch):
    said = []
    monkeypatch.setattr(waiting, "DELAY", 0.05)
    monkeypatch.setattr(waiting, "_said", set())
    monkeypatch.setattr(waiting, "_say", None)
    with waiting.taking("to nobody"):
        time.sleep(0.15)
    waiting.announce(said.append)
    with waiting.taking("short"):
        pass
    for _ in range(2):
        with waiting.taking("long"):
            time.sleep(0.15)
    time.sleep(0.1)
    assert said == ["long"]
    monkeypatch.setattr(waiting, "_say", None)


RENDER = """
import sys
from ussim.commands import cli, console
assert console.run(cli.cli, "ussim", ["render", *sys.argv[1:]]) == 0
heavy = ("numba", "scipy")
print(*[name for name in heavy if name in sys.modules])
"""


@pytest.fixture
def picture(tmp_path):
    from PIL import Image

    grey = np.random.default_rng(0).integers(0, 255, (256, 256), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "slice.png")
    return tmp_path / "slice.png"


def test_a_render_loads_neither_compiler_of_numba_nor_scipy(picture, tmp_path):
    options = ("--size", "32", "--angles", "1", "--width-mm", "5", "--depth-mm", "5", "10", "--engine", "cpu")
    done, _ = run(RENDER, picture, *options, "-o", tmp_path / "out.png")
    assert done.stdout.splitlines()[-1] == ""


@pytest.mark.slow
def test_a_first_render_takes_six_seconds_of_a_core_and_a_later_one_three_and_a_half(picture, tmp_path):
    """Of one core: 2.9 GHz with AVX-512 as measured in docs; half as much again for a slower one."""
    place = {"USSIM_CACHE": str(tmp_path / "cache"), "NUMBA_NUM_THREADS": "1"}
    spent = [run(RENDER, picture, "-o", tmp_path / "out.png", **place)[1] for _ in range(3)]
    assert spent[0] < 6.0, spent
    assert min(spent[1:]) < 3.5, spent
