"""Windows, macOS and the lowest versions, as far as a POSIX machine can tell: modules, code pages, names of `os`, bounds."""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from ussim.commands import encoding

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PROGRAMS = {"ussim": "ussim.commands.cli", "datagen": "datagen.cli", "irsde": "irsde.cli"}
POSIX_ONLY = {
    "fork", "forkpty", "getuid", "geteuid", "getgid", "getegid", "getgroups", "getpgid", "getppgid", "killpg", "lchown",
    "chown", "mkfifo", "nice", "openpty", "pread", "pwrite", "sched_getaffinity", "sched_setaffinity", "setsid", "setuid",
    "statvfs", "sysconf", "uname", "wait3", "wait4", "WEXITSTATUS", "WIFSIGNALED", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC",
    "SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "SIGTSTP", "SIGCONT", "alarm", "setitimer", "pause",
    "pthread_kill", "pthread_sigmask", "sigwait",
}  # fmt: skip


def sources():
    for package in PROGRAMS:
        for file in sorted((ROOT / package).rglob("*.py")):
            yield file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8")


# --- Windows ---------------------------------------------------------------------------------------------------------


def test_all_three_programs_work_without_the_modules_of_posix_in_a_western_code_page():
    """Building, its lock, training and its lock, tables and pictures; as `python tests/smoke.py` does on Windows itself."""
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "NO_COLOR": "1"}
    ended = subprocess.run(
        [sys.executable, str(ROOT / "tests/smoke.py"), "--without", "posix"],
        env=environment, capture_output=True, text=True, encoding="cp1252", timeout=900,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_names_that_posix_alone_has_are_asked_for_first():
    """`os.getuid` and its like stand behind `hasattr` in the same file, or are not used."""
    for file, text in sources():
        for node in ast.walk(ast.parse(text)):
            if (
                isinstance(node, ast.Attribute)
                and ast.unparse(node.value) in ("os", "signal")
                and node.attr in POSIX_ONLY
            ):
                assert f'hasattr({ast.unparse(node.value)}, "{node.attr}")' in text, (
                    f"{file}:{node.lineno}: {node.attr}"
                )


def test_text_is_read_and_written_in_utf_8_whatever_the_system_prefers():
    for file, text in sources():
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            options = {each.arg for each in node.keywords}
            binary = any(
                isinstance(a, ast.Constant) and re.fullmatch(r"[rwxa]\+?b\+?", str(a.value)) for a in node.args
            )
            if name == "open" or name.endswith((".read_text", ".write_text")):
                assert "encoding" in options or binary, f"{file}:{node.lineno}: {name}"


@pytest.mark.parametrize("page", ["cp1252", "cp437", "cp850", "iso8859-5"])
def test_every_help_can_be_written_in_any_code_page(page, monkeypatch):
    """No command's help stops at a letter, and a Greek one is written by its name."""
    from importlib import import_module

    for program, module in PROGRAMS.items():
        cli = import_module(module).cli
        context = click.Context(cli, info_name=program)
        for words in ([], *([name] for name in cli.list_commands(context))):
            stream = io.TextIOWrapper(io.BytesIO(), encoding=page)
            monkeypatch.setattr(sys, "stdout", stream)
            monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding=page))
            code = _run(cli, program, [*words, "--help"])
            stream.flush()
            shown = stream.buffer.getvalue().decode(page)
            monkeypatch.undo()
            assert code == 0
            assert "Usage:" in shown
            if (program, words, page) == ("irsde", ["train"], "cp1252"):
                assert re.search(r"\blambda, in units", shown)


def _run(cli, program, arguments):
    from ussim.commands import console

    return console.run(cli, program, arguments)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("λ of 0.2", b"lambda of 0.2"),
        ("ᾱ Ω → 1 − ½ ≥ é", b"alpha Omega -> 1 - \xbd >= \xe9"),
        ("日本", b"??"),
        ("plain \udcff", b"plain ?"),
    ],
)
def test_letters_that_a_code_page_lacks(text, expected, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    encoding.use_nearest()
    stream.write(text)
    stream.flush()
    assert stream.buffer.getvalue() == expected


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_programs_run_as_modules(program):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-m", program, "--help"], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0
    assert ended.stdout.startswith(f"Usage: {program} ")


def test_a_lock_is_let_go_when_its_holder_is_killed(tmp_path):
    """By the system, not by the holder: nobody has to delete a file."""
    from datagen.store.location import LocalStorage
    from ussim.errors import DataError

    program = (
        f"from datagen.store.location import LocalStorage\nimport time\n"
        f"with LocalStorage({str(tmp_path)!r}).exclusively():\n    print('held', flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        storage = LocalStorage(tmp_path)
        with pytest.raises(DataError, match="another build is writing"), storage.exclusively():
            pass
        holder.kill()
    with storage.exclusively():
        pass


# --- the lowest versions ---------------------------------------------------------------------------------------------


def requirements():
    extras = PROJECT["optional-dependencies"]
    return [Requirement(text) for text in (*PROJECT["dependencies"], *extras["train"], *extras["onnx"])]


def test_the_lowest_versions_are_the_bounds_themselves():
    """What the CI's job on the lowest versions installs is what pyproject.toml promises to work with."""
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    names = [requirement.name for requirement in requirements()]
    assert len(names) == len(set(names))
    for requirement in requirements():
        (bound,) = requirement.specifier
        assert bound.operator == ">="
        assert Version(pins[requirement.name]) == Version(bound.version), requirement.name
    assert set(pins) - set(names) == {"distributed"}  # Dask's own, of the same version


def test_continuous_integration_runs_the_smoke_on_the_lowest_versions_and_on_windows():
    text = (ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8")
    assert "constraints-lowest.txt" in text
    assert text.count("python tests/smoke.py") >= 2


# --- the demo --------------------------------------------------------------------------------------------------------


def test_the_demo_makes_a_store_and_two_pictures(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-m", "ussim", "demo", "first", "--limit", "2"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "first" / "pairs.zarr" / "zarr.json").is_file()
    assert (tmp_path / "first" / "pairs.png").is_file()
    assert (tmp_path / "first" / "slice.png").is_file()
    assert re.findall(r"^\$ (\w+ \w+)", ended.stderr, re.MULTILINE) == [
        "datagen build",
        "datagen preview",
        "ussim render",
    ]
    assert "ussim demo demo" in (ROOT / "Makefile").read_text(encoding="utf-8")
