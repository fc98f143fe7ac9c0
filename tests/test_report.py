"""The report: complete in itself, usable by keyboard and in a narrow window."""

import base64
import html
import io
import json
import re
import shutil
import subprocess
from collections import Counter

import numpy as np
import pytest
from datasets import PROBE, fast_recipe, write_stacks
from PIL import Image

import datagen
from datagen.cli import cli
from datagen.make.build import build
from datagen.show import report as report_module
from datagen.show.charts import ticks
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
    assert all(source.startswith("data:image/") for source in sources)
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
    assert [part.depth for part in parts] == [(band + 0.5) / 8 for band in range(8)]
    # Each block has 64 independent pixels: the median of the ratio over 160 blocks is within 2 %.
    assert all(abs(part.median / 1.913 - 1) < 0.03 for part in parts)
    textured = rng.uniform(size=lq.shape)
    assert all(part.n_blocks == 0 for part in speckle(textured, lq, np.ones(lq.shape, bool), 60.0))


def test_numbers_sources_and_licence_come_first(report):
    page = report.read_text()
    places = [
        page.index(text)
        for text in ("<dt>samples</dt>", "<h2>Made of", "Licence:", "<h2>Contact sheets", 'id="gallery"')
    ]
    assert places == sorted(places)


def test_each_hq_image_is_in_the_page_once(path, report):
    page = report.read_text()
    gallery = page[page.index('<div id="gallery">') : page.index("<dialog")]
    pictures = re.findall(r'src="(data:[^"]*)"', gallery)
    assert len(pictures) == 6 + 12  # HQ of six samples, LQ of each under two probes
    assert gallery.count('class="hq"') == 12
    assert [int(place) for place in re.findall(r'data-same="(\d+)"', gallery)] == [0, 2, 4, 6, 8, 10]


def test_charts_have_axes_with_units(report):
    page = report.read_text()
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(charts) == 4  # grey levels and speckle of two probes
    for chart, words in zip(charts, (("level (dB)", "pixels (%)"), ("depth (mm)", "speckle SNR")) * 2, strict=True):
        assert all(word in chart for word in words)
        numbers = [float(text) for text in re.findall(r">(-?[\d.]+)</text>", chart)]
        assert len(numbers) >= 6
    assert "center frequency (MHz)" in page
    assert "pixel, lateral x depth (mm)" in page


@pytest.mark.parametrize(("low", "high", "expected"), [
    (-40, 0, [-40, -30, -20, -10, 0]),
    (0, 2.5, [0, 0.5, 1, 1.5, 2, 2.5]),
    (0, 0.031, [0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03]),
    (1.3, 119, [20, 40, 60, 80, 100]), (3, 3, [3]),
])  # fmt: skip
def test_ticks_are_round_numbers(low, high, expected):
    np.testing.assert_allclose(ticks(low, high), expected, atol=1e-12)


def test_a_contact_sheet_has_the_same_samples_in_the_same_places(path):
    pairs = datagen.open_pairs(path)
    sheets = report_module._sheets(pairs, [0, 2, 5])
    assert [sheet["name"] for sheet in sheets] == ["HQ", *PROBES]
    images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(s["picture"].partition(",")[2])))) for s in sheets]
    assert {image.shape for image in images} == {(18, 3 * 18)}  # 16 pixels and a gap of 2
    for image, at in zip(
        images, (lambda i: pairs[2 * i][0], lambda i: pairs[2 * i][1], lambda i: pairs[2 * i + 1][1]), strict=True
    ):
        for place, sample in enumerate((0, 2, 5)):
            shown = image[:16, 18 * place : 18 * place + 16] / 255
            assert np.abs(shown - at(sample)).mean() < 0.03  # JPEG at quality 92


def test_what_was_left_out_is_shown(tmp_path):
    from datagen.store import layout

    root = write_stacks(tmp_path / "stacks")
    stack = np.load(root / "subject1/stack.npy")
    stack[1:3] = 0
    stack[2, 38:42, 38:42] = 200  # next to no tissue
    np.save(root / "subject1/stack.npy", stack)
    build(fast_recipe(root), tmp_path / "pairs.zarr")
    skipped = datagen.open_pairs(tmp_path / "pairs.zarr").attributes["skipped"]
    kept = json.loads((tmp_path / "pairs.zarr" / layout.LEFT_OUT).read_text())
    assert {example["reason"] for example in kept} == set(skipped)
    page = write_report(tmp_path / "pairs.zarr", tmp_path / "r.html").read_text()
    for reason, count in skipped.items():
        assert f"{count} image{'s' * (count != 1)}: {reason}" in page
    pictures = re.findall(r'<div><img src="data:image/png;base64,([^"]*)" alt="left out', page)
    assert len(pictures) == len(kept) >= 1
    assert all(max(Image.open(io.BytesIO(base64.b64decode(picture))).size) == 80 for picture in pictures)
    (tmp_path / "pairs.zarr" / layout.LEFT_OUT).unlink()  # as of a store of before
    assert 'alt="left out' not in write_report(tmp_path / "pairs.zarr", tmp_path / "r.html").read_text()


def test_a_report_of_many_samples_has_the_size_of_one_of_few(path, tmp_path, monkeypatch):
    """What set-aside samples and notes add is bounded: the first are named, the others counted."""
    few = write_report(path, tmp_path / "few.html", 4).stat().st_size
    rows = (tmp_path / "rows.csv", 2_000)
    text = (path / "samples.csv").read_text().splitlines()
    header, line = text[0].split(","), text[1].split(",")
    line[header.index("set_aside")] = "its volume was lost"
    copy = shutil.copytree(path, tmp_path / "pairs.zarr")
    (copy / "samples.csv").write_text("\n".join([*text, *[",".join(line)] * rows[1]]) + "\n")
    many = write_report(copy, tmp_path / "many.html", 4)
    assert many.stat().st_size < few + 20_000
    assert "1980 more samples" in many.read_text()


def labelled(folder):
    """A store of the stacks with their discs as labels, one of them of a name that is also markup."""
    root = write_stacks(folder / "stacks")
    for path in sorted(root.rglob("stack.npy")):
        stack = np.load(path)
        np.save(path.with_name("map.npy"), np.where(stack == 200, 1, np.where(stack == 120, 3, 0)).astype(np.uint8))
    tissues = {"<liver>": {"label": 1, "color": [200, 30, 40]}, "disc": {"label": 3, "color": [9, 8, 7]}}
    recipe = fast_recipe(root, labels="map.npy", tissues=tissues, probes=PROBES, limit=6, patches=False)
    build(recipe, folder / "pairs.zarr")
    return folder / "pairs.zarr"


def test_labels_are_shown_over_hq(tmp_path):
    pairs = datagen.open_pairs(labelled(tmp_path))
    page = write_report(tmp_path / "pairs.zarr", tmp_path / "r.html").read_text()
    for text in ("&lt;liver&gt;", "#c81e28", "disc", "#090807"):
        assert text in page
    assert "<liver>" not in page
    overlays = re.findall(r'class="overlay" src="data:image/png;base64,([^"]*)"', page)
    assert len(overlays) == 6  # once a sample, for both probes
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(o))).convert("RGBA")) for o in overlays]
    colors = np.zeros((4, 4), np.uint8)
    colors[1], colors[3] = (200, 30, 40, 255), (9, 8, 7, 255)
    expected = [colors[pairs.labels(index)] for index in range(0, 12, 2)]
    for picture in shown:
        visible = np.where(picture[..., 3:] == 0, 0, picture)
        assert any(np.array_equal(visible, other) for other in expected)
    assert all(np.unique(picture.reshape(-1, 4), axis=0).shape[0] >= 2 for picture in shown)


def test_a_report_that_is_no_page_is_refused_in_a_line(path, tmp_path, capsys):
    assert console.run(cli, "datagen", ["report", str(path), "-o", str(tmp_path / "r.pdf")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "r.pdf: expected a name ending in .html" in line
    assert not list(tmp_path.iterdir())


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
found.scheme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
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
const button = document.querySelector("#gallery .enlarge");
const size = button.getBoundingClientRect();
found.finger = Math.min(size.width, size.height) >= 44; // CSS pixels
button.scrollIntoView();
const seen = button.getBoundingClientRect();
found.reached = document.elementFromPoint(seen.left + seen.width / 2, seen.top + seen.height / 2) === button;
button.click();
found.by_button = document.querySelector("dialog").open;
document.querySelector("dialog form button:not([type])").click();
found.closed = !document.querySelector("dialog").open;
const light = color => {
  const linear = v => v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(linear);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = light(getComputedStyle(document.body).backgroundColor);
const contrast = color => (Math.max(light(color), ground) + 0.05) / (Math.min(light(color), ground) + 0.05);
const others = ".pair, .enlarge, select, button, script, option";
const texts = [...document.querySelectorAll("body *")].filter(e => !e.closest(others)
  && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()));
found.contrast = Math.min(...texts.map(e => contrast(getComputedStyle(e)[e.closest("svg") ? "fill" : "color"]))) >= 4.5;
const select = document.querySelector("[data-filter=probe]");
select.value = "PROBE"; select.dispatchEvent(new Event("change"));
found.filtered = document.querySelector("#shown").textContent;
found.loaded = [...document.images].every(image => image.complete && image.naturalWidth >= 16);
parent.document.title = JSON.stringify(found);
</script>
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 420])
def test_the_report_works_by_keyboard_and_finger_in_a_wide_and_a_narrow_window(report, tmp_path, width, scheme):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("needs Chromium (Debian's package chromium)")
    trial = report.read_text().replace("</body>", f"{TRIAL.replace('PROBE', PROBE)}</body>")
    frame = f'<iframe style="border: 0; width: {width}px; height: 900px" srcdoc="{html.escape(trial)}"></iframe>'
    page = tmp_path / "trial.html"  # in a frame, since a window of Chromium's is at least 500 pixels wide
    page.write_text(f"<!doctype html><title>none</title><body style='margin: 0'>{frame}", encoding="utf-8")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         f"--blink-settings=preferredColorScheme={int(scheme == 'light')}",
         f"--window-size={width},900", "--virtual-time-budget=3000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    title = re.search(r"<title>(\{.*\})</title>", done.stdout)
    assert title, done.stderr[-2000:]
    found = json.loads(title.group(1))
    assert found.pop("columns") == (1 if width < 560 else 4)
    assert found.pop("scheme") == scheme
    assert found == {
        "shown": "12 of 12 pairs shown", "overflow": 0, "first": True, "back": True, "divider": "80%",
        "enlarged": True, "next": True, "finger": True, "reached": True, "by_button": True, "closed": True, "contrast": True,
        "filtered": "6 of 12 pairs shown", "loaded": True,
    }  # fmt: skip


# --- commands ---------------------------------------------------------------------------------------------------------


def test_the_commands(path, tmp_path, capsys):
    assert console.run(cli, "datagen", ["report", str(path), "-o", str(tmp_path / "r.html")]) == 0
    assert "open it in a browser" in capsys.readouterr().out
    given = ["export", str(path), "--format", "webdataset", "-o", str(tmp_path / "tars")]
    assert console.run(cli, "datagen", given) == 0
    assert console.run(cli, "datagen", given) == 3
    assert "choose another folder" in capsys.readouterr().err
