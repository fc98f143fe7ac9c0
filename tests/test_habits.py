"""What the repository says of itself: one version, every package, every target, every tool pinned, every path there."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import ussim

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
YAML = sorted(
    path
    for folder in (".github", ".")
    for path in (REPOSITORY / folder).glob("**/*.yml" if folder != "." else ".*.yaml")
)
PACKAGES = ("ussim", "datagen", "irsde")
PINS = dict(line.split("==") for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if "==" in line)


def test_the_version_is_written_once():
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "ussim.__version__"}
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == ussim.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", ussim.__version__)


def test_every_package_is_installed_with_its_types():
    listed = set(PROJECT["tool"]["setuptools"]["packages"]) - {
        "ussim.presets",
        "datagen.show.templates",
    }  # no Python in them
    folders = (path.parent for package in PACKAGES for path in (REPOSITORY / package).rglob("__init__.py"))
    assert listed == {".".join(folder.relative_to(REPOSITORY).parts) for folder in folders}
    data = PROJECT["tool"]["setuptools"]["package-data"]
    for package in PACKAGES:
        assert "py.typed" in data[package]
        assert (REPOSITORY / package / "py.typed").is_file()
    for package, patterns in data.items():
        folder = REPOSITORY / ("probes" if package == "ussim.presets" else package.replace(".", "/"))
        assert all(any(folder.glob(pattern)) for pattern in patterns), package


def targets() -> dict[str, str]:
    """The targets of the Makefile and their recipes."""
    return dict(re.findall(r"^([\w-]+):[^=\n]*\n((?:\t.*\n)*)", MAKEFILE, re.MULTILINE))


def test_every_declared_target_does_something():
    declared = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE).group(1).split()
    assert {name for name, recipe in targets().items() if recipe} == set(declared)


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(str(path.relative_to(REPOSITORY)) for path in YAML)]
)
def test_targets_that_are_named_exist(page):
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|^ *|run: )make ([\w-]+)", text, re.MULTILINE))
    assert named <= set(targets())


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_configuration_files_parse_and_name_files_that_exist(path):
    text = path.read_text(encoding="utf-8")
    assert isinstance(yaml.safe_load(text), dict)
    for name in re.findall(r"\b(?:tests|benchmarks|docs)/[\w./-]+", text):
        assert (REPOSITORY / name).exists(), name


def test_the_hooks_check_what_make_check_checks():
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    tools = {hook["entry"].split()[0] for hook in hooks if hook["language"] == "system"}
    assert tools == set(re.findall(r"\$\(BIN\)/([\w-]+)", targets()["check"]))
    assert tools <= set(PINS)


def test_every_tool_of_the_test_extra_is_pinned():
    names = {
        re.match(r"[\w-]+", requirement).group().lower()
        for requirement in PROJECT["project"]["optional-dependencies"]["test"]
    }
    assert names <= {name.lower() for name in PINS}


def test_paths_of_the_guide_to_contributing_exist():
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = [
        path for path in re.findall(r"[\w.-]+(?:/[\w.-]*\w)+", re.sub(r"\]\([^)]*\)", "", text)) if "NAME" not in path
    ]
    assert len(set(paths)) > 15
    made = {".venv/bin/activate", "build/site"}  # by `make test` and `make docs`
    assert {path for path in paths if not (REPOSITORY / path).exists()} <= made


def test_what_is_skipped_is_counted_by_reason(tmp_path):
    shutil.copy(REPOSITORY / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('i', range(3))\n"
        "def test_a(i): pytest.skip('needs a card')\n"
        "@pytest.mark.skip(reason='needs nvcc')\n"
        "def test_b(): pass\n"
        "def test_c(): pytest.importorskip('no_such_module')\n"
        "def test_d(): pass\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    for workers in ([], ["-n", "2"]):
        done = subprocess.run([*command, *workers], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        _, title, list_of_reasons = done.stdout.partition(" 5 skipped ")
        assert title, done.stdout
        counts = {reason: int(count) for count, reason in re.findall(r"^ +(\d+)  (.+)$", list_of_reasons, re.MULTILINE)}
        assert counts.pop("needs a card") == 3
        assert counts.pop("needs nvcc") == 1
        (missing,) = counts
        assert "no_such_module" in missing


QUESTIONS = {"What", "How", "Which", "Where", "When", "Who", "Why", "Whether"}


def test_documentation_of_modules_and_classes_opens_with_what_they_are():
    """A question word opens a riddle; a noun phrase says what the thing is."""
    riddles = []
    for package in (*PACKAGES, "benchmarks"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in (tree, *(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef))):
                text = ast.get_docstring(node)
                if text and text.split()[0].rstrip(",:") in QUESTIONS:
                    riddles.append(f"{path.relative_to(REPOSITORY)}: {text.splitlines()[0]}")
    assert not riddles
