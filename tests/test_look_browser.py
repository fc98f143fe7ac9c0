"""Both pages in Chromium: what a person does with mouse and keyboard, at 1400 and 420 px; skipped where there is none."""

import os
import re
import shlex
import shutil
from contextlib import contextmanager

import pytest
from datasets import PROBE, fast_recipe, write_stacks
from test_look import PROBE as SMALL_PROBE
from test_look import served

import datagen
from datagen.show.look import browse
from ussim.look import bmode
from ussim.look.bench import Bench

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright (pip install playwright)")
if CHROMIUM is None:
    pytest.skip("needs Chromium (Debian's package chromium)", allow_module_level=True)
WIDTHS = pytest.mark.parametrize("width", [1400, 420])
PATIENCE = 120_000  # ms: the kernels may have to be compiled


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as running:
        made = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@contextmanager
def opened(chromium, server, width):
    """Open a page; afterwards nothing was wrong in it, nobody else was asked, and nothing sticks out of the window."""
    page = chromium.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(PATIENCE)
    wrong, asked = [], []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(server.url)
    yield page
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    labels = page.evaluate(
        "[...document.querySelectorAll('input, select, button')].filter(e => !e.labels?.length && "
        "!e.getAttribute('aria-label') && !e.textContent.trim()).map(e => e.id || e.outerHTML)"
    )
    assert labels == []
    page.close()
    assert wrong == []
    assert all(url.startswith((server.url, "data:", "blob:")) for url in asked)


def status_of(page, words):
    """Wait until the line below the picture has some words, and return it."""
    page.locator("#status", has_text=re.compile(words)).wait_for()
    return page.inner_text("#status")


# --- ussim look ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench_server():
    paths, latest = bmode.routes(lambda: Bench(probe=SMALL_PROBE, engine="cpu", rows=64), {"probe": "small"})
    with served(paths) as server:
        yield server
    latest.close()


@WIDTHS
def test_a_draft_then_the_picture_then_a_point(chromium, bench_server, width):
    with opened(chromium, bench_server, width) as page:
        page.wait_for_selector("body[data-shown=sharp]")
        page.wait_for_selector("body[data-point]")
        assert not page.is_visible("#draft")
        page.evaluate(
            "window.seen = []; new MutationObserver(() => seen.push(document.body.dataset.shown + !$('#draft').hidden))"
            ".observe(document.body, { attributes: true })"
        )
        page.select_option("#subject", "wires")
        page.locator("#view[aria-label*=wires]:not([aria-label*=draft])").wait_for()
        assert not page.is_visible("#draft")
        states = page.evaluate("seen")
        assert states.index("drafttrue") < states.index("sharpfalse")
        before = page.get_attribute("body", "data-point")
        page.focus("#view")
        for _ in range(3):
            page.keyboard.press("ArrowDown")
        page.wait_for_selector(f"body:not([data-point='{before}'])")
        assert float(page.get_attribute("body", "data-point").split(",")[1]) > float(before.split(",")[1])
        assert "mm" in page.inner_text("#facts")


@WIDTHS
def test_the_hand_on_a_slider_is_followed(chromium, bench_server, width):
    """Many moves of a slider: the last one is what is shown."""
    with opened(chromium, bench_server, width) as page:
        page.wait_for_selector("body[data-shown=sharp]")
        page.focus("#n_transmits")
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        assert page.inner_text("#n_transmits_out") == "7"
        assert "7 " in status_of(page, "^picture: 7 ")
        page.focus("#range")
        page.keyboard.press("ArrowLeft")
        assert page.inner_text("#range_out") == "49 dB"
        page.locator("#view[aria-label*='49 dB']").wait_for()


def test_the_command_that_the_page_names_is_one(chromium, bench_server):
    from ussim.commands.cli import cli

    render = cli.get_command(None, "render")
    with opened(chromium, bench_server, 1400) as page:
        page.wait_for_selector("body[data-shown=sharp]")
        page.select_option("#probe", "L11-5v")
        page.select_option("#transmit", "focused")
        page.focus("#attenuation")
        page.keyboard.press("ArrowRight")
        page.uncheck("#f_auto")
        page.fill("#depth_high", "30")
        page.click("#speckle")
        page.click("#arrange")
        page.select_option("#distance", "2")
        words = shlex.split(page.inner_text("#command"))
        status_of(page, "^(draft|picture)")
    assert words[:2] == ["ussim", "render"]
    context = render.make_context("render", words[2:])
    given = context.params
    assert given["attenuation"] == 0.1
    assert given["seed"] == 1
    assert len(words) > 16


def test_a_picture_of_ones_own_is_opened(chromium, bench_server, tmp_path):
    from PIL import Image

    Image.linear_gradient("L").save(tmp_path / "it's a gradient.png")
    with opened(chromium, bench_server, 1400) as page:
        page.wait_for_selector("body[data-shown=sharp]")
        page.set_input_files("#file", tmp_path / "it's a gradient.png")
        page.locator("#view[aria-label*='gradient.png']").wait_for()
        assert page.input_value("#subject") == "image"
        shlex.split(page.inner_text("#command"))
        (tmp_path / "no.png").write_bytes(b"no picture")
        page.set_input_files("#file", tmp_path / "no.png")
        assert "expected a picture that browsers know" in status_of(page, "expected")


# --- datagen look ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store_server(tmp_path_factory):
    root = tmp_path_factory.mktemp("browse")
    write_stacks(root / "stacks", n_subjects=3, n_slices=4)
    datagen.build(fast_recipe(root / "stacks", probes=(PROBE, "C5-2v")), root / "pairs.zarr")
    browser = browse.Browser(root / "pairs.zarr")
    paths, latest = browse.routes(browser)
    with served(paths) as server:
        yield server
    latest.close()
    browser.close()


@WIDTHS
def test_pairs_are_looked_through(chromium, store_server, width):
    with opened(chromium, store_server, width) as page:
        page.wait_for_selector("body[data-shown='0']")
        page.wait_for_selector("body[data-speckle]")
        total = int(page.inner_text("#matched").split()[0])
        page.keyboard.press("j")
        page.wait_for_selector("body[data-shown='1']")
        page.keyboard.press("k")
        page.wait_for_selector("body[data-shown='0']")
        page.select_option("#probe", "C5-2v")
        page.locator("#matched", has_text=re.compile(f"^{total // 2} pairs match")).wait_for()
        page.wait_for_selector("body[data-speckle=C5-2v]")
        assert page.inner_text("#lq_side") == "LQ: C5-2v"
        page.fill("#subject", "no such subject")
        assert "no pair matches" in status_of(page, "no pair")
        page.fill("#subject", "")
        page.select_option("#probe", "")
        page.locator("#matched", has_text=re.compile(f"^{total} pairs match")).wait_for()


@WIDTHS
def test_the_divider_moves_by_keyboard_and_pointer(chromium, store_server, width):
    with opened(chromium, store_server, width) as page:
        page.wait_for_selector("body[data-shown]")
        view = page.locator("#view")
        view.focus()
        page.keyboard.press("ArrowRight")
        assert view.get_attribute("aria-valuenow") == "52"
        page.keyboard.press("End")
        assert view.get_attribute("aria-valuenow") == "100"
        page.keyboard.press("m")
        assert view.get_attribute("aria-valuenow") == "50"
        box = view.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
        page.mouse.up()
        assert 5 < int(view.get_attribute("aria-valuenow")) < 45


def test_more_pairs_than_a_page_are_turned(chromium, store_server):
    with opened(chromium, store_server, 1400) as page:
        page.wait_for_selector("body[data-shown]")
        total = int(page.inner_text("#matched").split()[0])
        assert total > 24
        page.keyboard.press("]")
        page.locator("#where", has_text=re.compile("^25 to")).wait_for()
        page.wait_for_selector("body[data-shown='24']")
        page.keyboard.press("k")
        page.wait_for_selector("body[data-shown='23']")
        assert page.is_disabled("#back")


def test_pictures_of_both_pages_can_be_kept(chromium, bench_server, store_server):
    """With LOOK_PICTURES=FOLDER in the environment: screenshots to look at; what they hold is no blank page either way."""
    for name, server in (("ussim", bench_server), ("datagen", store_server)):
        for width in (1400, 420):
            with opened(chromium, server, width) as page:
                page.wait_for_selector("body[data-shown=sharp]" if name == "ussim" else "body[data-speckle]")
                folder = os.environ.get("LOOK_PICTURES")
                kept = None if folder is None else os.path.join(folder, f"{name}-{width}.png")
                content = page.screenshot(full_page=True, path=kept)
                assert len(content) > 30_000
