"""The command line: the way through, one line and the right exit code for each thing that can be wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import PROBE, write_stacks

from datagen.cli import cli
from ussim.commands import console

FAST = ["--size", "16", "--angles", "1", "--mean-distance-wavelengths", "8", "--min-tissue", "0.05"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_stacks(tmp_path_factory.mktemp("stacks"))


@pytest.fixture
def run(capsys):
    """run(arguments...) -> exit code, stdout, stderr."""

    def call(*arguments):
        code = console.run(cli, "datagen", [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(code), captured.out, captured.err

    return call


def build(run, root, out, *options):
    return run("build", "--source", "npy", "--root", root, "--probe", PROBE, "-o", out, *FAST, *options)


def test_the_guide_has_the_options_of_inspect_and_their_defaults():
    guide = (Path(__file__).parents[1] / "docs" / "command-line.md").read_text()
    section = guide.partition("\n## datagen inspect")[2].partition("\n## ")[0]
    shared = {"subjects", "frames", "include_derived"}
    options = {option.name: option for option in cli.commands["inspect"].params}
    assert shared <= set(options)
    for option in options.values():
        if option.name not in ("root", "verbose", "quiet"):
            assert option.opts[0] in section
    build_options = {option.name: option for option in cli.commands["build"].params}
    for name in shared:
        assert build_options[name].opts == options[name].opts
        assert build_options[name].default == options[name].default


def test_from_build_to_verify(run, root, tmp_path):
    out = tmp_path / "pairs.zarr"
    code, text, messages = build(run, root, out, "--limit", 4)
    assert code == 0, messages
    assert "4 samples of 3 subjects" in text
    assert f"next: datagen verify {out}" in text
    assert (out / "preview" / f"{PROBE}.png").stat().st_size > 10_000
    digest = next(line.split()[1] for line in text.splitlines() if line.startswith("digest:"))
    assert run("info", out, "--digest") == (0, digest + "\n", "")
    code, text, _ = run("info", out)
    assert "4 (" in text
    assert json.loads(run("info", out, "--json")[1])["recipe"]["limit"] == 4
    code, text, messages = run("verify", out, "--resimulate", 1, "--root", root)
    assert code == 0, messages
    assert "1 simulated again" in text
    code, text, _ = build(run, root, out, "--limit", 4, "--resume")
    assert code == 0
    assert "all there already" in text
    code, _, messages = run("preview", out, "-o", tmp_path / "pairs.png")
    assert code == 0, messages
    assert (tmp_path / "pairs.png").exists()


def test_no_output_overwrites_a_store_or_an_input(run, root, tmp_path):
    out = tmp_path / "pairs.zarr"
    assert build(run, root, out, "--limit", 2)[0] == 0
    mri = out / "mri"
    write_stacks(mri)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for words, code, arguments in (
        ("ending in .html", 2, ("report", out, "-o", out / "samples.csv")),
        ("picture name", 2, ("preview", out, "-o", out / "zarr.json")),
        ("there already", 3, ("export", out, "--format", "png", "-o", out)),
        (
            "would delete the input",
            2,
            ("build", "--source", "npy", "--root", mri, "--probe", PROBE, "-o", out, "--overwrite"),
        ),
    ):
        got, text, messages = run(*arguments)
        assert (got, text) == (code, ""), messages
        assert words in messages
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_damaged_store_fails_verification(run, root, tmp_path):
    out = tmp_path / "pairs.zarr"
    build(run, root, out, "--limit", 1)
    shard = out / "hq/c/0/0/0"
    content = bytearray(shard.read_bytes())
    content[30] ^= 1
    shard.write_bytes(content)
    code, text, messages = run("verify", out)
    assert code == 3
    assert "FAULT sample npy/" in text
    assert "--resume" in messages


def test_a_dry_run_writes_nothing(run, root, tmp_path):
    code, text, messages = build(run, root, tmp_path / "pairs.zarr", "--dry-run")
    assert code == 0, messages
    assert "24 samples (12 slices, 12 patches) of 3 subjects" in text
    assert "size: about" in text
    assert "time: about" in text
    assert list(tmp_path.iterdir()) == []


def test_a_file_holds_the_recipe_and_options_win(run, root, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'source = "npy"\nroot = "{root}"\nprobe = "{PROBE}"\nsize = 16\nangles = 1\nlimit = 3\n'
        "mean-distance-wavelengths = 8\nmin-tissue = 0.05\n"
    )
    code, text, messages = run("build", "--config", recipe, "--limit", 2, "-o", tmp_path / "pairs.zarr")
    assert code == 0, messages
    assert "2 samples" in text


@pytest.mark.parametrize(("limit", "code"), [(24, 4), (3, 7)], ids=["a small share", "a large share"])
def test_a_sample_set_aside_ends_with_a_code_of_its_own(run, root, tmp_path, monkeypatch, limit, code):
    from datagen.make import shards

    simulate, first = shards.simulate_pairs, []

    def failing(hqs, imager, seeds):
        (seed,) = seeds
        if seed in (first or first.append(seed) or first):
            raise RuntimeError("broken")
        return simulate(hqs, imager, seeds)

    monkeypatch.setattr(shards, "simulate_pairs", failing)
    ended, text, messages = build(run, root, tmp_path / "pairs.zarr", "--limit", limit)
    assert ended == code, messages
    assert "set aside: npy/" in messages
    assert "RuntimeError: broken" in messages
    assert f"{limit - 1} samples" in text
    assert ("incomplete: 33% of the samples are set aside" in messages) == (code == 7)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--source", "nowhere"], 2, "unknown source 'nowhere'"),
        (["--probe", "C5-3v"], 2, "C5-2v"),
        (["--root", "{tmp}/none"], 3, "does not exist"),
        (["--root", "{tmp}"], 3, "no usable volume"),
        (["--size", "-1"], 2, "size"),
        (["--max-angle-deg", "95"], 2, "95"),
        (["--attenuation", "-1"], 2, "attenuation"),
        (["--folds", "40"], 2, "use --folds"),
        (["--engine", "gpu"], 2, "engine"),
        (["--randomize", "{tmp}/none.toml"], 2, "none.toml"),
        (["--config", "{tmp}/none.toml"], 2, "none.toml"),
        (["--scheduler", "somewhere"], 3, "scheduler"),
        (["--min-tissue", "0.99", "--no-patches"], 3, "too little tissue"),
        (["-o", "{tmp}/file/pairs.zarr"], 3, "cannot be written"),
        (["-o", "{tmp}"], 2, "left alone"),
        (["--workers", "0"], 2, "workers"),
    ],
)
def test_what_is_wrong_is_one_line_and_a_code(run, root, tmp_path, options, code, words):
    (tmp_path / "file").write_text("not a folder")
    given = [option.format(tmp=tmp_path) for option in options]
    got, _, messages = build(run, root, tmp_path / "pairs.zarr", *given) if "--root" not in options else run(
        "build", "--source", "npy", "--probe", PROBE, "-o", tmp_path / "pairs.zarr", *FAST, *given
    )  # fmt: skip
    assert got == code, messages
    errors = [line for line in messages.splitlines() if "error:" in line]
    assert len(errors) == 1, messages
    assert words in errors[0]
    assert "Traceback" not in messages


def test_what_is_missing_is_asked_for(run):
    code, _, messages = run("build", "--probe", PROBE)
    assert code == 2
    assert "--source is missing" in messages
    code, _, messages = run("info", "none.zarr")
    assert code == 3
    assert "no store of pairs" in messages


def test_the_output_and_the_recipe_are_guarded(run, root, tmp_path):
    out = tmp_path / "pairs.zarr"
    build(run, root, out, "--limit", 1)
    code, _, messages = build(run, root, out, "--limit", 1)
    assert code == 2
    assert "--overwrite" in messages
    code, _, messages = build(run, root, out, "--limit", 2, "--resume")
    assert code == 5
    assert "limit 1 -> 2" in messages


@pytest.mark.parametrize("command", [[], ["build"], ["verify"], ["info"], ["inspect"], ["preview"]])
def test_help_imports_nothing_heavy(command):
    code = (
        "import sys\nfrom datagen.cli import main\n"
        f"sys.argv = ['datagen', *{command!r}, '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print([m for m in ('numpy', 'zarr', 'pydantic', 'numba', 'dask', 'torch', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_nothing_that_names_the_patient_reaches_the_store(run, tmp_path):
    """The demo's abdomen is a DICOM file that names an institution and a patient's study."""
    import pydicom
    from pydicom.data import get_testdata_file

    file = get_testdata_file("examples_overlay.dcm", download=False)
    if file is None:
        pytest.skip("needs the test files that come with pydicom")
    out = tmp_path / "pairs.zarr"
    code, _, messages = run("build", "--source", "demo", "--probe", PROBE, "--limit", 2, "-o", out, *FAST)
    assert code == 0, messages
    header = pydicom.dcmread(file, stop_before_pixels=True)
    tags = ("InstitutionName", "PatientName", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber")
    names = {tag: str(header.get(tag, "")).encode() for tag in tags}
    assert len(names["InstitutionName"]) > 3
    named = {tag: name for tag, name in names.items() if len(name) > 3}  # shorter ones are found by chance
    assert set(named) >= {"InstitutionName", "StudyInstanceUID", "SeriesInstanceUID"}
    contents = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert len(contents) > 10
    assert [(tag, path) for tag, name in named.items() for path, content in contents.items() if name in content] == []


def test_the_demo_is_a_dozen_samples(run, tmp_path):
    code, text, messages = run("build", "--source", "demo", "--probe", PROBE, "--dry-run", *FAST)
    assert code == 0, messages
    assert "12 samples" in text
    assert "2 subjects, 2 volumes" in text
