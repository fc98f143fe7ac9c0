"""The Python of the README and of the guide runs as it stands, their commands parse, their pictures and links are there."""

import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = {
    str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8")
    for path in (
        *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "tests/fixtures/README.md")),
        *sorted((REPOSITORY / "docs").rglob("*.md")),
    )
}
PROGRAMS = ("ussim", "datagen", "irsde")


def python(page):
    return re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL)


def commands(text):
    """Lines of shell blocks and of indented ones that run one of the programs; as words."""
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    for line in lines + re.findall(rf"^    ((?:{'|'.join(PROGRAMS)}) .*)$", text, re.MULTILINE):
        words = shlex.split(line, comments=True)
        if "-m" in words:  # accelerate launch ... -m irsde train
            words = words[words.index("-m") + 1 :]
        if words and words[0] in PROGRAMS:
            yield words


def links(page):
    return sorted(set(re.findall(r"\]\((?!http)([^)]+)\)", PAGES[page])))


BLOCKS = python("README.md")


def test_simulation_example():
    names = {}
    exec(BLOCKS[0], names)
    bmode, grid = names["bmode"], names["grid"]
    assert bmode.shape == (256, 256)
    x, z = grid.mesh()
    cyst = np.hypot(x, z - 25e-3) < 4e-3
    ring = (np.hypot(x, z - 25e-3) > 6e-3) & (np.hypot(x, z - 25e-3) < 10e-3)
    assert bmode[cyst].mean() < bmode[ring].mean() - 0.3  # a cyst is dark


def test_excitation_examples():
    """The chirp is compressed from 10 µs to the page's 0.3 µs, and the line keeps its envelope."""
    from scipy.signal import hilbert

    names = {}
    for block in python("docs/excitation.md"):
        exec(block, names)
    widths = []
    for data in (names["rf"], names["short"]):
        envelope = np.abs(hilbert(data.samples[0, 64]))
        widths.append(np.count_nonzero(envelope > envelope.max() / 2) / data.sampling_frequency)
    assert widths[0] > 6e-6  # the slopes of the probe's band take its ends
    assert widths[1] == pytest.approx(0.3e-6, abs=0.1e-6)
    assert np.abs(names["iq"]).max() == pytest.approx(1.0, abs=0.01)  # the filter's ripple


def test_dataset_example(tmp_path, monkeypatch):
    import nibabel

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mri").mkdir()
    row, column = np.mgrid[:64, :64]
    head = (1000 * (np.hypot(row - 32, column - 32) < 28)).astype(np.int16)
    head[20:30, 20:30] = 400
    volume = nibabel.Nifti1Image(np.repeat(head[:, :, None], 2, axis=2), np.diag([2.0, 2.0, 5.0, 1.0]))
    nibabel.save(volume, tmp_path / "mri" / "head.nii.gz")
    names = {}
    exec(BLOCKS[1], names)
    assert names["hq"].shape == names["lq"].shape == (256, 256)
    assert 0 <= names["lq"].min() < names["lq"].max() <= 1


def test_guide_python(tmp_path, monkeypatch):
    from speckle_pairs import SpecklePairs

    from irsde.config import TrainConfig
    from irsde.evaluation.methods import load_torch_model
    from irsde.training import train

    monkeypatch.chdir(tmp_path)
    pairs = SpecklePairs(n=2)
    settings = {"preset": "tiny", "patch_size": 32, "steps": 1, "validate_every": 0, "device": "cpu", "n_steps": 20}
    train(TrainConfig.create(store="none", **settings), tmp_path / "runs" / "a", pairs=[pairs])
    shutil.copytree(tmp_path / "runs" / "a", tmp_path / "runs" / "b")
    using, own_model = python("docs/despeckling.md")
    names = {"lq": pairs[0][1]}
    exec(using, names)
    assert names["clean"].shape == names["mean"].shape == names["variance"].shape == (64, 64)
    assert names["variance"].max() > 0
    exec(own_model, {})
    lq = np.full((40, 56), 0.5, np.float32)
    np.testing.assert_allclose(load_torch_model("mean.pt2", trust=True)(lq)[2:-2, 2:-2], 0.5, atol=1e-6)


def test_recordings_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in python("docs/recordings.md"):
        exec(block, names)
    assert names["file"].format == "zea"
    assert names["found"].is_right


def test_drus_python(tmp_path, monkeypatch):
    import ussim
    from irsde.drus import train
    from irsde.drus.imaging import imaging_grid

    monkeypatch.chdir(tmp_path)
    train.train(train.PriorConfig(iterations=1, batch_size=1, size=16, channels=(16, 16)), "priors/a")
    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves(0.0))
    grid = imaging_grid(acquisition, (32, 16), 30e-3)
    rf = ussim.simulate(ussim.Scatterers([0.0], [30e-3], [1.0]), acquisition)
    names = {"acquisition": acquisition, "grid": grid, "rf": rf}
    exec(python("docs/drus.md")[0], names)
    assert names["echogenicity"].shape == (32, 16)
    assert names["echogenicity"].min() > 0


def program_of(name):
    """The click group of a program."""
    return import_module("ussim.commands.cli" if name == "ussim" else f"{name}.cli").cli


@pytest.mark.parametrize("words", [pytest.param(w, id=" ".join(w)) for page in PAGES.values() for w in commands(page)])
def test_commands_parse(words, tmp_path, monkeypatch):
    if "my-probe.toml" in words:  # the file that the page has
        (toml,) = re.findall(r"```toml\n(.*?)```", PAGES["docs/how-to/probe.md"], re.DOTALL)
        (tmp_path / "my-probe.toml").write_text(toml, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
    program, name, *arguments = words
    command = program_of(program).get_command(None, name)
    assert command is not None, f"no command {name!r}"
    command.make_context(name, arguments)  # raises a usage error for options or values that are not there


@pytest.mark.parametrize(("page", "target"), [(page, target) for page in PAGES for target in links(page)])
def test_local_links_lead_somewhere(page, target):
    file, _, anchor = target.partition("#")
    path = (REPOSITORY / page).parent / file if file else REPOSITORY / page
    assert path.exists()
    if anchor:
        headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings]


def codes_of(text):
    """The table of exit codes: code -> meaning."""
    table = text.partition("## Exit codes")[2]
    return {int(code): meaning for code, meaning in re.findall(r"^\| (\d+) \| (.+) \|$", table, re.MULTILINE)}


def test_the_table_of_exit_codes_is_the_programs():
    from ussim.commands.console import ExitCode

    codes = codes_of(PAGES["docs/command-line.md"])
    assert list(codes) == [int(code) for code in ExitCode]
    assert len(set(codes.values())) == len(codes)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_table_of_commands_is_the_programs(program):
    group = program_of(program)
    listed = re.findall(rf"^\| `{program} ([\w-]+)[^`]*` \| .+ \|$", PAGES["docs/command-line.md"], re.MULTILINE)
    assert sorted(listed) == sorted(group.list_commands(None))
    help_of = {name: group.get_command(None, name).get_short_help_str() for name in listed}
    assert all(help_of.values())


def test_the_options_of_build_are_all_in_its_table():
    from datagen.cli import cli

    page = PAGES["docs/command-line.md"].partition("## datagen build")[2].partition("\n## ")[0]
    options = {
        name for option in cli.get_command(None, "build").params for name in option.opts if name.startswith("--")
    }
    assert options - {"--help", "--verbose", "--quiet"} == set(re.findall(r"`(?:-\w`/`)?(--[\w-]+)`", page))
