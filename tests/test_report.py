"""The report: complete in itself, usable by keyboard and in a narrow window."""

import json
import re
import shutil
import subprocess
from collections import Counter

import numpy as np
import pytest
from datasets import PROBE, fast_recipe, write_stacks

import datagen
from datagen.cli import cli
from datagen.make.build import build
from datagen.show.report import speckle, spread, timing, write_report
from datagen.store.location import open_storage
from ussim.commands import console

PROBES = (PROBE, "PA4-2/20")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    build(fast_recipe(write_stacks(folder / "stacks"), probes=PROBES, limit=6), folder / "pairs.zarr")
    return folder / "pairs.zarr"


@pytest.fixture(scope="module")
def report(path):
    return write_report(path, path.parent / "report.html")


def test_the_report_fetches_nothing(report):
    page = report.read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert "@import" not in page
    assert "url(" not in page


def test_the_report_says_what_the_store_holds(path, report):
    page = report.read_text()
    attributes = datagen.open_pairs(path).attributes
    assert attributes["licence"]
    for text in (attributes["digest"], attributes["recipe_digest"], attributes["licence"], *PROBES):
        assert text in page
    assert page.count("<figure") == 12


def test_the_report_counts_samples_and_their_seconds(path, report):
    page = report.read_text()
    cells = dict(re.findall(r"<tr><th>([^<]*)</th><td>([^<]*)</td></tr>", page))
    took = timing(open_storage(path))
    assert (took["samples"], took["machines"], took["runs"]) == (6, 1, 1)
    assert took["seconds"] > 0
    assert cells["work"] == f"{took['seconds']:.1f} s for 6 samples"
    assert cells["a sample"].startswith(f"{took['seconds'] / 6:.3f} s; ")
    assert cells["machines"] == "1, in 1 run"
    rows = {(row["source"], row["id"]): row for row in datagen.open_pairs(path).samples}.values()
    folds = ", ".join(f"{fold}: {n}" for fold, n in sorted(Counter(row["fold"] for row in rows).items()))
    full, patches = (sum(row["kind"] == kind for row in rows) for kind in ("full", "patch"))
    counts = (*(len({row[key] for row in rows}) for key in ("subject", "volume")), full, patches, folds, 0)
    assert full + patches == 6
    made = re.search(r"<tr><td>npy</td>(.*?)</tr>", page)
    assert made.group(1) == "".join(f"<td>{value}</td>" for value in counts)


def test_the_gallery_takes_from_every_group(path):
    pairs = datagen.open_pairs(path)
    groups = {(row["probe"], row["fold"], row["kind"]) for row in pairs.samples}
    chosen = spread(pairs, len(groups))
    assert {tuple(pairs.samples[i][key] for key in ("probe", "fold", "kind")) for i in chosen} == groups


def test_developed_speckle_measures_1_91():
    rng = np.random.default_rng(0)
    amplitude = rng.rayleigh(size=(20, 64, 64)) * 0.02
    lq = np.clip(1 + 20 * np.log10(amplitude) / 60, 0, 1)
    parts = speckle(np.full(lq.shape, 0.5), lq, np.ones(lq.shape, bool), 60.0)
    # Each block has 64 independent pixels: the median of the ratio over hundreds of blocks is within 2 %.
    assert all(abs(part.median / 1.913 - 1) < 0.03 for part in parts)
    textured = rng.uniform(size=lq.shape)
    assert all(part.n_blocks == 0 for part in speckle(textured, lq, np.ones(lq.shape, bool), 60.0))


def test_a_name_cannot_write_into_the_page(path, tmp_path):
    from datagen.show import report as module

    pairs = datagen.open_pairs(path)
    pairs.attributes["source"] = "<script>alert(1)</script>"
    assert "<script>alert" not in module.render(open_storage(path), pairs)


# --- in a browser ----------------------------------------------------------------------------------------------------

TRIAL = """
<script>
const found = {};
const pair = () => document.activeElement.closest(".pair");
const press = key => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
found.shown = document.querySelector("#shown").textContent;
found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
found.columns = getComputedStyle(document.querySelector("#gallery")).gridTemplateColumns.split(" ").length;
press("j");
found.first = pair().parentElement === document.querySelector("#gallery figure");
press("j"); press("k");
found.back = pair().parentElement === document.querySelector("#gallery figure");
const input = document.activeElement;
input.value = 80; input.dispatchEvent(new Event("input", { bubbles: true }));
found.divider = pair().style.getPropertyValue("--at");
press("Enter");
found.enlarged = document.querySelector("dialog").open && !!pair().closest("dialog");
press("j");
found.next = pair().closest("figure").querySelector("figcaption").textContent
  === document.querySelectorAll("#gallery figure")[1].querySelector("figcaption").textContent;
document.querySelector("dialog").close();
const select = document.querySelector("[data-filter=probe]");
select.value = "PROBE"; select.dispatchEvent(new Event("change"));
found.filtered = document.querySelector("#shown").textContent;
found.loaded = [...document.images].every(image => image.complete && image.naturalWidth === 16);
document.title = JSON.stringify(found);
</script>
"""


@pytest.mark.parametrize("width", [1200, 500])  # headless Chromium's narrowest window is 500
def test_the_report_works_by_keyboard_and_on_a_narrow_window(report, tmp_path, width):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("needs Chromium (Debian's package chromium)")
    trial = TRIAL.replace("PROBE", PROBE)
    page = tmp_path / "trial.html"
    page.write_text(report.read_text().replace("</body>", f"{trial}</body>"))
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         f"--window-size={width},900", "--virtual-time-budget=3000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    title = re.search(r"<title>(\{.*\})</title>", done.stdout)
    assert title, done.stderr[-2000:]
    found = json.loads(title.group(1))
    assert found.pop("columns") == (1 if width < 560 else 4)
    assert found == {
        "shown": "12 of 12 pairs shown", "overflow": 0, "first": True, "back": True, "divider": "80%",
        "enlarged": True, "next": True, "filtered": "6 of 12 pairs shown", "loaded": True,
    }  # fmt: skip


# --- commands ---------------------------------------------------------------------------------------------------------


def test_the_commands(path, tmp_path, capsys):
    assert console.run(cli, "datagen", ["report", str(path), "-o", str(tmp_path / "r.html")]) == 0
    assert "open it in a browser" in capsys.readouterr().out
    given = ["export", str(path), "--format", "webdataset", "-o", str(tmp_path / "tars")]
    assert console.run(cli, "datagen", given) == 0
    assert console.run(cli, "datagen", given) == 3
    assert "choose another folder" in capsys.readouterr().err
