"""Tables of README and the site are those of the files; toolkits are asked within limits, and a failure is a row."""

import importlib
import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"
CLAIMS = ("simulation", "beamforming", "end_to_end", "accuracy", "memory", "scaling")


@pytest.fixture(scope="module")
def load():
    """Import a script of benchmarks, which is no package."""
    before, names = list(sys.path), set(sys.modules)
    sys.path[:0] = [str(REPOSITORY / "benchmarks"), str(REPOSITORY / "benchmarks" / "peers")]
    yield importlib.import_module
    sys.path[:] = before
    for name in set(sys.modules) - names:  # `memory`, `timing`: names that others may mean
        if str(REPOSITORY / "benchmarks") in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_pages_quote_the_files(load):
    tables = load("page_tables")
    quoted = set()
    for page in tables.PAGES:
        text = page.read_text(encoding="utf-8")
        assert tables.filled(text) == text, f"{page.name}: run python benchmarks/page_tables.py"
        quoted |= {match[2] for match in tables.PLACE.finditer(text)}
    assert quoted == set(tables.TABLES)


@pytest.mark.parametrize(
    ("value", "said"), [(0.1234, "0.12"), (12345.6, "12,000"), (3e-5, "3.0e-05"), (0, "0"), (9.96, "10")]
)
def test_numbers_are_rounded(load, value, said):
    assert load("page_tables").number(value) == said


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_toolkit_has_a_row(load, claim):
    found = json.loads((RESULTS / "peers" / f"{claim}.json").read_text())
    assert {row["toolkit"] for row in found["rows"]} == {"ussim", *load("environments").PEERS}
    assert {"processor", "cores", "load_1min"} <= set(found["machine"])
    (script,) = (REPOSITORY / "benchmarks" / "peers").glob(f"{claim}.py")
    assert found["what"] == " ".join(load(script.stem).__doc__.split())


def test_the_estimate_follows_from_its_files(load):
    script = load("scale_estimate")
    found = json.loads((RESULTS / "scale_estimate.json").read_text())
    again = json.loads(json.dumps(script.result(found["pair"])))
    assert again == found, "run python benchmarks/scale_estimate.py"
    assert f"{script.CARD_FRAMES_PER_S:.0f} to 130" in (REPOSITORY / "docs" / "gpu.md").read_text(encoding="utf-8")
    assert all(row["kind"] == "not measured" for row in found["rows"] if row["machine"] != "laptop")


def test_more_pairs_cost_more_and_no_card_beats_the_scheduler(load):
    rows = json.loads((RESULTS / "scale_estimate.json").read_text())["rows"]
    for few, many in pairwise(rows):
        if few["machine"] == many["machine"]:
            assert many["hours"] == pytest.approx(100 * few["hours"])
            assert many["storage_gb"] == pytest.approx(100 * few["storage_gb"])
    assert all(row["scheduler_share"] <= 1 for row in rows)


@pytest.fixture
def asking(load):
    return load("asking")


def test_ours_is_asked_as_a_peer_is(asking):
    import ussim

    scatterers, acquisition = asking.scatterers_of(5), asking.acquisition_of(2)
    row, rf = asking.ask("ussim", "simulate", asking.simulation_case(scatterers, acquisition), repeats=1, threads=1)
    expected = ussim.simulate(scatterers, acquisition, engine="reference").samples
    assert asking.difference(rf, expected) < 1e-4  # what every engine promises
    assert row["frame_s"] > 0
    assert row["peak_memory_mb"] > 50  # of its own process, not of this one


def test_what_cannot_be_had_is_a_row(asking):
    row, answer = asking.ask("USTB", "beamform", {"delays": np.zeros((1, 1))})
    assert answer is None
    assert "MATLAB" in row["did_not_run"]


@pytest.mark.parametrize(
    ("limit", "code", "said"),
    [
        ({"TIME_LIMIT": 0.5}, "import time; time.sleep(60)", "stopped after"),
        ({"MEMORY_LIMIT": 1e8}, "x = b'1' * 300_000_000\nimport time; time.sleep(60)", "stopped at"),
        ({}, "raise MemoryError('Out of memory allocating 73586768452 bytes.')", "needs 74 GB"),
        ({}, "raise SystemExit(3)", "exit code 3"),
    ],
)
def test_a_failure_is_said_in_few_words(asking, monkeypatch, limit, code, said):
    for name, value in limit.items():
        monkeypatch.setattr(asking, name, value)
    assert said in asking.watch([sys.executable, "-c", code], threads=1, ours=False)


def test_a_difference_knows_no_scale(asking):
    rng = np.random.default_rng(0)
    rf = rng.standard_normal((2, 3, 50))
    assert asking.difference(-7.0 * rf[:1, :, :40], rf) < 1e-12
    assert asking.difference(rng.standard_normal((2, 3, 50)), rf) > 0.9
