"""Build the sdist and from it the wheel, install the wheel alone in an empty environment, and build a dataset there.

    python tests/check_dist.py         # leaves both files in dist/; `make dist-check` runs it

Everything but the two files happens in a temporary folder, so that nothing of the checkout is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
IN_WHEEL = {
    "ussim/py.typed", "datagen/py.typed", "irsde/py.typed", "ussim/presets/l11-5v.toml", "ussim/engines/cuda/simulate.cu",
    "ussim/engines/cuda/physics.cuh", "ussim/engines/cpu/native/bitcode/index.json",
    "ussim/engines/cpu/native/bitcode/cell_spectrum.bc", "datagen/show/templates/report.html",
    "irsde/models/despeckler/model.safetensors", "irsde/models/despeckler/config.json", "irsde/models/despeckler/card.md",
    "irsde/models/reflectivity/model.safetensors", "irsde/models/reflectivity/config.json",
    "irsde/models/reflectivity/card.md",
    "irsde/evaluation/brisque.npz", "irsde/evaluation/brisque-LICENSE.txt",
}  # fmt: skip
IN_SDIST = {"CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "constraints.txt", "pyproject.toml", "Makefile",
            "tests/conftest.py", "tests/fixtures/make_golden.py", "tests/fixtures/simus2d_P4-2v.npz",
            "docs/command-line.md", "probes/l11-5v.toml"}  # fmt: skip
PACKAGES = {"ussim", "datagen", "irsde"}
INSTALLED = """
import importlib.metadata, datagen, irsde, ussim
assert importlib.metadata.version("ussim") == ussim.__version__, ussim.__version__
assert len(ussim.probe_names()) == 11, ussim.probe_names()
print(ussim.__file__)
"""


def main() -> None:
    dist = REPOSITORY / "dist"
    dist.mkdir(exist_ok=True)
    for old in dist.iterdir():
        old.unlink()
    # The wheel is built from the sdist: a file that the sdist lacks is missing in both.
    run(sys.executable, "-m", "build", "--outdir", dist, REPOSITORY)
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    check_contents(sdist, wheel)
    with tempfile.TemporaryDirectory() as folder:
        check_installed(wheel, Path(folder))
    print(f"{sdist.name} and {wheel.name}: built, installed alone, and a dataset built and verified with them")


def check_contents(sdist: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.partition("/")[0] for name in names}
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    faults = [
        f"{kind}: {words} {sorted(wrong)}"
        for kind, words, wrong in (
            ("wheel", "lacks", IN_WHEEL - names),
            (
                "wheel",
                "holds other top-level names than the packages:",
                {t for t in tops - PACKAGES if "dist-info" not in t},
            ),
            ("sdist", "lacks", IN_SDIST - held),
            ("sdist", "holds compiled files", {name for name in held if name.endswith((".pyc", ".nbi", ".nbc"))}),
        )
        if wrong
    ]
    if faults:
        raise SystemExit("\n".join(faults))


def check_installed(wheel: Path, folder: Path) -> None:
    """Install the wheel in an environment of its own, and use it from a folder that holds nothing else."""
    venv.create(folder / "venv", with_pip=True)
    scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python, work = scripts / "python", folder / "work"
    work.mkdir()
    constraint = ("--constraint", REPOSITORY / "constraints.txt")
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *constraint, wheel, cwd=work)
    run(python, "-c", INSTALLED, cwd=work)
    build = ("build", "--source", "demo", "--probe", "C5-2v", "--limit", "2", "--out", "pairs.zarr")
    run(scripts / "datagen", *build, cwd=work)
    run(scripts / "datagen", "verify", "pairs.zarr", cwd=work)
    run(scripts / "ussim", "probes", cwd=work)
    run(scripts / "irsde", "--help", cwd=work)


def run(*command: object, cwd: Path | None = None) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: exit code {done.returncode}")


if __name__ == "__main__":
    main()
