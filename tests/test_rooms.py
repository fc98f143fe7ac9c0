"""Who may import whom: no circle, no import that runs up, type-checking and function-level imports included.

A package's wings are listed from the ground up; a module imports from its own wing and from those before it. Libraries that
a plain use must not load have their rooms too.
"""

import ast
import builtins
import importlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import ussim

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ussim", "datagen", "irsde")
LAZY = ("ussim", "datagen", "irsde", "irsde.drus", "irsde.frames")  # names are imported when first used
# Each wing: modules, or a folder of them by its name and a dot. What comes first is imported by what comes after.
WINGS = {
    "ussim": [
        (
            "the ground",
            "errors extras near shown lazy waiting cached compiling numerics physics interpolation arrays doors io.atomic",
        ),
        ("what there is", "probes medium waveforms transmits imperfections chain acquisition"),
        ("the values that pass", "reach io.plain io.archive io.formats. types"),
        ("laws", "foci arrivals beamforming."),
        ("the plan", "plan elevation cells"),
        ("engines", "engines."),
        (
            "public steps",
            "scatterers phantoms flow receive pulses compression demodulation simulation motion operator matrix beamform "
            "time_zero imaging resolution lobes propagation doppler tracking",
        ),
        ("files in", "io. volumes."),
        ("words and pictures", "show."),
        ("pages", "look."),
        ("what a recording tells", "calibration."),
        ("the package", "ussim"),
        ("commands", "commands. __main__"),
    ],
    "datagen": [
        ("the ground", "identity"),
        ("where files are", "store.location"),
        ("the data", "sources."),
        ("what will be made", "plan."),
        ("what is on disk", "store."),
        ("making it", "make."),
        ("looking at it", "show."),
        ("the package", "datagen"),
        ("commands", "cli __main__"),
    ],
    "irsde": [
        (
            "the ground",
            "errors recipes target clinic. models. config echo_area sde flow smoothing group_norm differentiable",
        ),
        ("pairs and stacks", "data stacks run_lock checkpoints shipped."),
        ("models", "network two_stage lessons initial run_folder"),
        ("restoring", "sample onnx_export intervals frames. file_restoration store_restoration"),
        ("judging", "evaluation."),
        ("learning", "training"),
        ("variance imaging", "drus."),
        ("the package", "irsde"),
        ("commands", "presets interval_cli export_cli cli __main__"),
    ],
}
# Where a library may be imported; the rest does without it, or is given what was made with it.
LIBRARIES = {
    "cupy": ["ussim/engines/cuda/cupy.py"],
    "torch": ["irsde/", "datagen/store/torch_data.py", "datagen/plan/segment.py"],
    "dask": ["datagen/make/cluster.py"],
    "distributed": ["datagen/make/cluster.py"],
    "tornado": ["ussim/look/server.py"],
}


@cache
def modules():
    """Module name -> its file."""
    found = {}
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imported(module, file):
    """(name, line) of every import in a file, wherever it stands; `from a import b` is a.b where that is a module."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield (inner if inner in modules() else base), node.lineno


@cache
def graph():
    """Module -> {module of the three packages that it imports: line}."""
    return {
        module: {name: line for name, line in imported(module, file) if name in modules() and name != module}
        for module, file in modules().items()
    }


def circle_from(start):
    """A way from a module back to it, or None."""
    ways, seen = [[start]], set()
    while ways:
        way = ways.pop(0)
        for name in graph()[way[-1]]:
            if name == start:
                return [*way, start]
            if name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return None


def floor(module):
    """(package, number of the wing): what is more specific counts, a module by its name before its folder."""
    package, _, inner = module.partition(".")
    fits = []
    for number, (_, words) in enumerate(WINGS[package]):
        for word in words.split():
            whole = inner == word or (not inner and word == package) or f"{inner}." == word
            if whole or (word.endswith(".") and inner.startswith(word)):
                fits.append((not word.endswith("."), len(word), number))
    return PACKAGES.index(package), (max(fits)[2] if fits else None)


def test_every_module_has_a_floor():
    homeless = [module for module in modules() if floor(module)[1] is None]
    assert not homeless, "expected a row of WINGS with each new module"
    words = {f"{package}.{word}": None for package in WINGS for _, row in WINGS[package] for word in row.split()}
    gone = [w for w in words if not any(m == w or f"{m}." == w or m.startswith(w) for m in modules())]
    assert [w for w in gone if w.split(".")[1] not in PACKAGES] == []


def test_there_is_no_circle():
    circles = {frozenset(way): way for module in graph() if (way := circle_from(module))}
    assert not [" -> ".join(way) for way in circles.values()]


def test_no_import_runs_up():
    up = [
        f"{module}:{line} imports {name}"
        for module, names in graph().items()
        for name, line in names.items()
        if floor(name) > floor(module)
    ]
    assert not up


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_heavy_library_stays_in_its_room(library):
    strangers = [
        f"{file.relative_to(ROOT)}:{line}"
        for module, file in modules().items()
        for name, line in imported(module, file)
        if name.partition(".")[0] == library
        and not any(str(file.relative_to(ROOT)).startswith(room) for room in LIBRARIES[library])
    ]
    assert not strangers


def test_benchmarks_are_imported_by_nobody():
    names = {file.stem for file in (ROOT / "benchmarks").glob("*.py")} | {"benchmarks"}
    hits = [(m, name) for m, file in modules().items() for name, _ in imported(m, file) if name in names]
    assert not hits


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_a_simulation_walks_down_from_the_public_step_to_the_engine(name):
    """Each call from one file to another goes to a lower wing: step, engine, plan, values, physics; none comes back up."""
    files = {str(file): module for module, file in modules().items()}
    acquisition = ussim.Acquisition("L11-5v", ussim.PlaneWaves(0.0))
    scatterers = ussim.Scatterers([0.0], [0.02], [1.0])
    hops = []

    def note(frame, event, _):
        if event == "call" and frame.f_back is not None:
            caller, called = (files.get(f.f_code.co_filename) for f in (frame.f_back, frame))
            if caller and called and caller != called:
                hops.append((caller, called, frame.f_code.co_name))

    sys.setprofile(note)
    try:
        ussim.simulate(scatterers, acquisition, engine=name)
    finally:
        sys.setprofile(None)
    assert [called for caller, called, function in hops if function == "simulate"] == [
        "ussim.engines.reference" if name == "reference" else "ussim.engines.cpu.engine"
    ]
    assert {"make_plan", "get_engine"} <= {function for _, _, function in hops}
    assert not [hop for hop in hops if floor(hop[1]) > floor(hop[0])]


# --- names ---------------------------------------------------------------------------------------------------------

TWICE = """
import importlib, sys
for first in sys.argv[1:]:
    importlib.import_module(first)
for package in ("ussim", "datagen", "irsde", "irsde.drus", "irsde.frames"):
    module = importlib.import_module(package)
    assert module.__all__ == sorted([*module._HOME, *getattr(module, "_MODULES", {})]), package
    for name in module.__all__:
        one, two = getattr(module, name), getattr(module, name)
        assert one is two, (package, name)
        assert isinstance(one, type(importlib)) == (name in getattr(module, "_MODULES", {})), (package, name, one)
        assert name in dir(module), (package, name)
"""


@pytest.mark.parametrize(
    "first", [[], ["irsde.training"], ["irsde.evaluation.evaluate", "irsde.sample", "ussim.beamform"]]
)
def test_every_public_name_is_what_it_was_whatever_is_imported_before(first):
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, "-c", TWICE, *first], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]


def checked_names(package):
    """{public name: module, in full, that type checkers find it in}: the imports that only they read."""
    init = modules()[package]
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            imports = [inner for inner in node.body if isinstance(inner, ast.ImportFrom)]
            bases = [
                ".".join([*([package] if inner.level else []), *filter(None, [inner.module])]) for inner in imports
            ]
            return {a.name: base for inner, base in zip(imports, bases, strict=True) for a in inner.names}
    return {}


@pytest.mark.parametrize("package", LAZY)
def test_type_checkers_find_a_name_where_a_program_does(package):
    module = importlib.import_module(package)
    homes = {name: home if home.startswith("ussim.") else f"{package}.{home}" for name, home in module._HOME.items()}
    stand_for = getattr(module, "_MODULES", {})
    found = {name: f"{base}.{name}" if name in stand_for else base for name, base in checked_names(package).items()}
    assert found == homes | {name: f"{package}.{home}" for name, home in stand_for.items()}


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import irsde; irsde.TrainConfig", ("torch", "diffusers", "zarr")),
        (
            "import ussim, datagen, irsde, irsde.drus",
            ("torch", "numba", "scipy", "zarr", "dask", "pydicom", "matplotlib"),
        ),
        ("import ussim; ussim.Acquisition", ("torch", "numba", "matplotlib", "cupy")),
    ],
)
def test_a_name_loads_no_more_than_it_needs(code, absent):
    check = f"{code}\nimport sys\nprint(*[name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""


def exceptions():
    """Every class of an exception in the three packages, and the names of its bases."""
    found = {}
    for path in (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name] = [ast.unparse(base).rpartition(".")[2] for base in node.bases]

    def above(name):
        return {name}.union(*(above(base) for base in found.get(name, ()) if base != name))

    def is_raised(name):
        kind = getattr(builtins, name, None)
        return isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, Warning)

    return {name: above(name) for name in found if any(map(is_raised, above(name)))}


def test_errors_are_one_tree():
    """An error that no command catches ends it with the code of the tree, not with one for defects."""
    outside = {name for name, above in exceptions().items() if "UssimError" not in above}
    assert outside == {"NotCut", "Superseded"}  # caught where they are raised
    assert {"DataError", "RecipeError", "StoreError", "ResumeError", "TrainingDiverged"} <= exceptions().keys()
