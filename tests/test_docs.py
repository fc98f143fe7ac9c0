"""The site: every page's Python runs, at a reduced size; every page is in the menu; it builds without a warning."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
PAGES = {str(path.relative_to(DOCS)): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def blocks(page):
    """The fenced Python of a page; that of a list is indented."""
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in BLOCK.findall(PAGES[page])]


# Pages whose Python another test runs.
ELSEWHERE = {
    "clinical.md": "test_clinical_restore.py",
    "clusters.md": "test_clusters.py",
    "despeckling.md": "test_readme.py",
    "drus.md": "test_readme.py",
    "excitation.md": "test_readme.py",
    "recordings.md": "test_readme.py",
}
TORCH = {"datasets.md", "operator.md", "shipped.md", "tutorials/despeckle.md", "tutorials/variance.md"}

# What a page is made smaller by: its own text -> what is run.
SMALLER = {
    "datasets.md": [
        ("limit=100_000", "limit=4, size=32, folds=2"),
        ("batches(16,", "batches(2,"),
        ("n_workers=2", "n_workers=0"),
        ('num_workers=2, multiprocessing_context="spawn"', "num_workers=0"),
    ],
    "exports.md": [("slice(10, 20)", "slice(10, 100)")],
    "how-to/resume.md": [("limit=2, size=64", "limit=2, size=32")],
    "tutorials/cluster.md": [("limit=4, size=64", "limit=2, size=32")],
    "tutorials/dataset.md": [("limit=2, size=64", "limit=2, size=32")],
    "tutorials/despeckle.md": [
        ("limit=4, size=64", "limit=2, size=48"),
        ("steps=20,", "steps=1,"),
        ("(128, 128)", "(64, 64)"),
    ],
}


CHEAP = "P4-2v"  # a frame of it is a sixth of the work of one of L11-5v


def a_store(path, **options):
    import datagen

    settings = {"source": "demo", "probes": (CHEAP,), "limit": 2, "size": 32, "patches": False} | options
    datagen.build(datagen.Recipe(**settings), path)


def prepare_calibration():
    import ussim

    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves(np.deg2rad([-6.0, 6.0])))
    wires = ussim.Scatterers([-5e-3, 0.0, 5e-3], [20e-3, 35e-3, 50e-3], np.ones(3))
    rf = ussim.simulate(wires, acquisition)
    noise = 1e-2 * rf.samples.std() * np.random.default_rng(0).standard_normal(rf.samples.shape)
    ussim.RFData(np.float32(rf.samples + noise), acquisition, rf.sampling_frequency).save("wires.npz")


def prepare_command_line():
    np.savez("phantom_bmode.npz", bmode=np.zeros((2, 2)), settings=np.array('{"seed": 0}'))


def prepare_datasets():
    a_store(f"demo-{CHEAP}.zarr", speckle_draws=4, limit=1)


def prepare_exports():
    pytest.importorskip("pyarrow")
    from click.testing import CliRunner

    from datagen.cli import cli

    a_store("pairs.zarr", limit=4, folds=2)
    done = CliRunner().invoke(cli, ["export", "pairs.zarr", "--format", "parquet", "-o", "shared"])
    assert done.exit_code == 0, done.output


def prepare_gpu():
    import ussim

    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves(0.0))
    point = ussim.Scatterers([0.0], [30e-3], [1.0])
    grid = ussim.ImageGrid(np.linspace(-5e-3, 5e-3, 8), np.linspace(25e-3, 35e-3, 8))
    return {"ussim": ussim, "acquisition": acquisition, "media": [point, point], "grid": grid}


def prepare_shipped():
    return {"image": np.random.default_rng(0).random((32, 32), np.float32)}


def prepare_dataset_tutorial():
    a_store("demo.zarr")


PREPARED = {
    "calibration.md": prepare_calibration,
    "command-line.md": prepare_command_line,
    "datasets.md": prepare_datasets,
    "exports.md": prepare_exports,
    "gpu.md": prepare_gpu,
    "shipped.md": prepare_shipped,
    "tutorials/dataset.md": prepare_dataset_tutorial,
}
ALONE = {"exports.md"}  # imports Hugging Face's `datasets`, whose name a file beside this one has
HERE = [page for page in PAGES if blocks(page) and page not in ELSEWHERE]


BUILDING = {page for page in HERE if re.search(r"datagen\.|\.zarr", "".join(blocks(page)))}


def as_run(page, code):
    """Return a page's code as a test runs it: a cheap probe in pages that build, the processor for a card."""
    for said, run in SMALLER.get(page, []):
        code = code.replace(said, run)
    if page in BUILDING:
        code = code.replace("L11-5v", CHEAP)
    return code.replace('engine="cuda"', 'engine="cpu"').replace("per_image=True).get()", "per_image=True)")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what is imported here first
@pytest.mark.parametrize("page", HERE)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    if page in TORCH:
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("Agg")
    names = {"__name__": "__main__"} | (PREPARED.get(page, dict)() or {})
    text = "\n".join(blocks(page))
    for said, _ in SMALLER.get(page, []):
        assert said in text, f"{page} no longer says {said!r}"
    text = as_run(page, text)
    if page in ALONE:
        done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return
    for index, code in enumerate(blocks(page)):
        exec(compile(as_run(page, code), f"{page}, block {index + 1}", "exec"), names)
    plt.close("all")


def test_pages_run_elsewhere_are_run_there():
    for page, test in ELSEWHERE.items():
        assert blocks(page)
        assert Path(page).name in (REPOSITORY / "tests" / test).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_read_alike_here_and_on_the_site(page):
    """GitHub forgives what the site's Markdown does not: a tag that is none, parts of a list indented by less than four."""
    prose = re.sub(r"^( *)```.*?^\1```", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"`[^`]*`|^    .*$", "", prose, flags=re.MULTILINE)
    tags = set(re.findall(r"</?([A-Za-z]\w*)", prose))
    assert tags <= {"div", "br", "https"}, f"{page}: write < between backticks"
    assert not re.search(r"\n\n {1,3}\S", PAGES[page]), f"{page}: indent what belongs to a list by four"


def test_every_page_is_in_the_menu():
    text = re.sub(r"!!python/\S+", "", (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))

    def files(part):
        if isinstance(part, str):
            return [part]
        return [file for value in (part.values() if isinstance(part, dict) else part) for file in files(value)]

    listed = files(yaml.safe_load(text)["nav"])
    assert len(listed) == len(set(listed))
    assert set(listed) - set(PAGES) == {"contributing.md", "changes.md"}  # from the top of the repository
    assert set(PAGES) <= set(listed)


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    site = tmp_path / "site"
    reference = (site / "reference" / "ussim.html").read_text(encoding="utf-8")
    options = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    import datagen
    import ussim

    assert all(f'id="ussim.{name}"' in reference for name in ussim.__all__)
    pairs = (site / "reference" / "datagen.html").read_text(encoding="utf-8")
    assert all(f"datagen.{name}" in pairs for name in datagen.__all__)
    assert "--mean-distance-wavelengths" in options
    assert "<math" in (site / "physics.html").read_text(encoding="utf-8")
    assert "https://fonts" not in (site / "index.html").read_text(encoding="utf-8")  # nothing comes from the network
    shutil.rmtree(site)


def figures():
    spec = importlib.util.spec_from_file_location("figures", DOCS / "figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FIGURES


@pytest.mark.parametrize("name", figures())
def test_a_figure_is_drawn_and_small(name):
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    figure = figures()[name]()
    assert figure.axes
    plt.close(figure)
    assert (DOCS / "images" / f"{name}.webp").stat().st_size < 60_000


def test_performance_quotes_its_files():
    import json

    page = PAGES["performance.md"]
    found = json.loads((REPOSITORY / "benchmarks" / "results" / "simulate.json").read_text())
    ours = found["ussim"]
    quoted = [f"{ours['median_s']:.2f}", f"{ours['gflop_s']:.0f}", f"{100 * ours['fraction_of_peak']:.0f} %"]
    quoted += [f"{ours['gflop']:.0f} GFLOP", f"{found['fastsimus']['all_transmits_s']:.0f}"]
    quoted += [f"{found['pymust']['all_transmits_s']:.0f}"] + [f"{row['median_s']:.2f}" for row in found["scaling"]]
    assert [number for number in quoted if f" {number}" not in page] == []
