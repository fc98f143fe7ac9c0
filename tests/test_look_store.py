"""The page of `datagen look` without a browser: filters, rows and images read when asked, a million pairs, errors."""

import io
import json
import shutil
import time

import numpy as np
import pytest
from datasets import PROBE, fast_recipe, write_stacks
from PIL import Image
from test_look import asked, served

import datagen
from datagen.show.look.browse import Browser, routes
from datagen.store import layout
from datagen.store.layout import StoreError
from datagen.store.location import open_storage
from ussim.commands import console
from ussim.errors import ConfigError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("look")
    write_stacks(root / "stacks", n_subjects=3, n_slices=2)
    datagen.build(fast_recipe(root / "stacks", probes=(PROBE, "C5-2v")), root / "pairs.zarr")
    return root / "pairs.zarr"


@pytest.fixture
def browser(store):
    made = Browser(store)
    made.rows.wait()
    yield made
    made.close()


def test_all_pairs_are_there_with_their_rows(browser, store):
    pairs = datagen.open_pairs(store)
    listed = browser.list_pairs({"from": 0, "count": 100})
    assert listed["matched"] == len(pairs) == len(listed["pairs"])
    for got, expected in zip(listed["pairs"], pairs.samples, strict=True):
        assert got["facts"]["id"] == expected["id"]
        assert got["probe"] == expected["probe"]
        assert str(got["facts"]["seed"]) == str(expected["seed"])


def test_a_number_that_scripts_would_round_is_text(browser):
    for pair in browser.list_pairs({})["pairs"]:
        for name, value in pair["facts"].items():
            assert not isinstance(value, int) or abs(value) <= 2**53, name


@pytest.mark.parametrize("column", ["source", "fold", "kind", "plane", "probe", "subject"])
def test_a_filter_keeps_what_has_that_value(browser, store, column):
    pairs = datagen.open_pairs(store)
    for value in {str(row[column]) for row in pairs.samples}:
        wanted = [row["id"] for row in pairs.samples if str(row[column]) == value]
        listed = browser.list_pairs({column: value, "count": 100})
        assert [pair["facts"]["id"] for pair in listed["pairs"]] == wanted
    if column != "probe":
        assert browser.list_pairs({column: "nothing"})["matched"] == 0


def test_filters_hold_together_and_a_subject_is_found_by_a_part(browser, store):
    row = datagen.open_pairs(store).samples[0]
    part = row["subject"][2:].upper()
    listed = browser.list_pairs({"subject": part, "kind": row["kind"], "probe": "C5-2v"})
    assert {pair["facts"]["subject"] for pair in listed["pairs"]} == {row["subject"]}
    assert {pair["probe"] for pair in listed["pairs"]} == {"C5-2v"}


def test_pages_of_pairs_follow_each_other(browser):
    whole = [pair["number"] for pair in browser.list_pairs({"count": 100})["pairs"]]
    parts = [
        pair["number"]
        for first in range(0, len(whole), 5)
        for pair in browser.list_pairs({"from": first, "count": 5})["pairs"]
    ]
    assert parts == whole
    assert browser.list_pairs({"from": 10**6})["pairs"] == []


def test_images_are_those_of_the_store(browser, store):
    pairs = datagen.open_pairs(store)
    for number in (0, 1, len(pairs) - 1):
        for which, expected in zip(("hq", "lq"), pairs[number], strict=True):
            with Image.open(io.BytesIO(browser.image(which, str(number)))) as picture:
                np.testing.assert_array_equal(np.asarray(picture), np.round(255 * expected))


@pytest.mark.parametrize(
    ("which", "number", "draw"),
    [
        ("mask", "0", "0"),
        ("hq", "-1", "0"),
        ("hq", "999", "0"),
        ("lq", "../x", "0"),
        ("lq", "0", "1"),
        ("lq", "1e3", "0"),
    ],
)
def test_an_image_that_is_not_there_is_one_line(browser, which, number, draw):
    with pytest.raises(ConfigError, match="expected"):
        browser.image(which, number, draw)


@pytest.mark.parametrize(
    "values",
    [
        {"count": 0},
        {"count": 1000},
        {"from": -1},
        {"from": "a"},
        {"probe": "x"},
        {"path": "/etc"},
        {"kind": 3},
        {"fold": None},
    ],
)
def test_a_wrong_request_is_one_line(browser, values):
    with pytest.raises(ConfigError, match="expected"):
        browser.list_pairs(values)


def test_speckle_is_that_of_the_report(browser, store):
    from datagen.show.report import speckle

    measured = browser.speckle({"probe": PROBE}, lambda: None)
    pairs = datagen.open_pairs(store, probe=PROBE)
    hq, lq = (np.stack(images) for images in zip(*pairs, strict=True))
    masks = np.stack([pairs.mask(i) for i in range(len(pairs))])
    expected = speckle(hq, lq, masks, pairs.recipe.dynamic_range_db)
    assert measured["n"] == len(pairs)
    assert [part["blocks"] for part in measured["parts"]] == [part.n_blocks for part in expected]
    assert [part["median"] for part in measured["parts"]] == [part.median for part in expected]


def test_samples_set_aside_are_hidden_unless_asked_for(store, tmp_path):
    shutil.copytree(store, tmp_path / "pairs.zarr")
    table = tmp_path / "pairs.zarr" / layout.SAMPLES
    rows = layout.parse_table(table.read_text())
    rows[1]["set_aside"] = "could not be simulated"
    table.write_text(layout.format_table(rows))
    browser = Browser(tmp_path / "pairs.zarr")
    browser.rows.wait()
    assert browser.list_pairs({})["matched"] == 2 * (len(rows) - 1)
    assert browser.list_pairs({"set_aside": True})["matched"] == 2 * len(rows)
    assert browser.progress()["counts"]["set_aside"] == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda table: b"id,source\n\xff\xfe",
        lambda table: b"",
        lambda table: table.splitlines(True)[0],
        lambda table: b"".join(table.splitlines(True)[:-1]),
        lambda table: table + table.splitlines(True)[-1],
        lambda table: table.replace(b"set_aside", b"other"),
    ],
    ids=["bytes", "empty", "no rows", "a row less", "a row more", "no column"],
)
def test_a_damaged_table_is_said_and_ends_nothing(store, tmp_path, damage):
    shutil.copytree(store, tmp_path / "pairs.zarr")
    table = tmp_path / "pairs.zarr" / layout.SAMPLES
    table.write_bytes(damage(table.read_bytes()))
    browser = Browser(tmp_path / "pairs.zarr")
    browser.rows.wait()
    assert "samples.csv is damaged" in browser.progress()["failure"]
    assert browser.list_pairs({"count": 1})["matched"] % 2 == 0


def test_a_million_pairs_open_at_once(store, tmp_path, monkeypatch):
    """The page has its facts and its first rows before the table is read; the table's bytes do not stay in memory."""
    n = 500_000
    large = tmp_path / "pairs.zarr"
    shutil.copytree(store, large)
    document = json.loads((large / "zarr.json").read_text())
    document["attributes"]["n_samples"] = n
    per_shard = document["attributes"]["samples_per_shard"]
    document["attributes"]["n_shards"] = -(-n // per_shard)
    (large / "zarr.json").write_text(json.dumps(document))
    header, *lines = (large / layout.SAMPLES).read_text().splitlines()
    reading = []
    kind = type(open_storage(store))
    original = kind.read

    def read(self, key):
        if key == layout.SAMPLES:
            reading.append(key)
            while len(reading) < 2:  # until the test lets it go on
                time.sleep(0.01)
            return ("\n".join([header, *lines * (n // len(lines) + 1)][: n + 1]) + "\n").encode()
        return original(self, key)

    monkeypatch.setattr(kind, "read", read)
    started = time.process_time()
    browser = Browser(large)
    described = browser.describe()
    spent = time.process_time() - started
    assert described["n_samples"] == n
    assert described["found"] == 0
    assert browser.list_pairs({})["pairs"] == []
    assert spent < 2  # s of processor; a table of so many rows takes longer to parse
    reading.append("go")
    browser.rows.wait()
    listed = browser.list_pairs({"kind": "full", "count": 1})  # the copy has the first shards alone
    assert 0 < listed["matched"] <= 2 * n
    assert len(listed["pairs"]) == 1
    assert listed["found"] == n
    held = sum(codes.nbytes for codes in browser.rows._codes.values())
    assert held <= 20 * n


def test_the_routes_answer(store):
    browser = Browser(store)
    browser.rows.wait()
    paths, latest = routes(browser)
    with served(paths) as server:
        assert b"datagen look" in asked(server, "")[2]
        facts = json.loads(asked(server, "facts")[2])
        assert facts["fields"][PROBE]["z_mm"][1] > facts["fields"][PROBE]["z_mm"][0] > 0
        listed = json.loads(asked(server, "pairs", json.dumps({"kind": "full", "tab": "a"}).encode())[2])
        assert listed["pairs"]
        status, headers, content = asked(server, f"image/lq/{listed['pairs'][0]['number']}.png")
        assert (status, headers["Content-Type"], content[:4]) == (200, "image/png", b"\x89PNG")
        assert json.loads(asked(server, "speckle", json.dumps({"probe": PROBE}).encode())[2])["n"] > 0
        assert asked(server, "image/hq/99999.png")[0] == 400
        assert asked(server, "progress")[0] == 200
    latest.close()
    browser.close()


@pytest.mark.parametrize("name", ["missing.zarr", "."])
def test_no_store_is_one_line(name, tmp_path, capsys, monkeypatch):
    from datagen.cli import cli

    monkeypatch.chdir(tmp_path)
    assert console.run(cli, "datagen", ["look", name, "--no-browser"]) == StoreError.exit_code
    messages = capsys.readouterr().err.strip()
    assert "no store of pairs here" in messages
    assert "\n" not in messages
