"""Sheets of images: native pixels, names that are legible, one zoom a column, a scale on maps; curves of a training."""

import csv

import numpy as np
import pytest
from PIL import Image

from ussim.show import sheets


def images(n, shape=(64, 48), seed=0):
    return [np.random.default_rng(seed + i).random(shape) for i in range(n)]


def test_a_pixel_of_an_image_is_a_pixel_of_the_sheet():
    rows = [[("LQ", images(2)[0]), ("HQ", images(2)[1])], [("LQ", images(2, seed=5)[0]), ("HQ", images(2, seed=5)[1])]]
    sheet = np.asarray(sheets.image_sheet(rows))
    left, top = sheets.GAP, sheets.GAP + sheets.STRIP
    for row in rows:
        for column, (_, image) in enumerate(row):
            x = left + column * (48 + sheets.GAP)
            np.testing.assert_array_equal(sheet[top : top + 64, x : x + 48], np.round(255 * image))
        top += 64 + sheets.STRIP + sheets.GAP


def test_every_image_has_its_name_above_it():
    for names in (["LQ", "restored"], ["a method with a very long name that does not fit"] * 2):
        sheet = np.asarray(sheets.image_sheet([list(zip(names, images(2), strict=True))]))
        for column in range(2):
            x = sheets.GAP + column * (48 + sheets.GAP)
            strip = sheet[sheets.GAP : sheets.GAP + sheets.STRIP, x : x + 48]
            assert (strip < 128).sum() > 10  # letters
        assert (sheet[: sheets.GAP + sheets.STRIP, sheets.GAP + 48 : 2 * sheets.GAP + 48] == sheets.PAPER).all()


def test_the_zoom_is_a_part_of_the_image_enlarged_and_the_same_in_a_column():
    shapes = np.zeros((64, 64))
    shapes[40:52, 8:20] = np.random.default_rng(0).random((12, 12)) > 0.5  # where the edges are
    rows = [[("one", shapes)], [("two", 1 - shapes)]]
    sheet = np.asarray(sheets.image_sheet(rows, zoom=True))
    x, tall = sheets.GAP + 64 + 2, 64 + sheets.STRIP + sheets.GAP
    part = sheets._part(0, rows)
    assert part[0].start < 52
    assert part[0].stop > 40
    assert part[1].start < 20
    assert part[1].stop > 8
    for row, image in enumerate((shapes, 1 - shapes)):
        top = sheets.GAP + sheets.STRIP + row * tall
        zoomed = sheet[top : top + 64, x : x + 64]
        np.testing.assert_array_equal(zoomed, np.round(255 * image[part]).repeat(4, axis=0).repeat(4, axis=1))


def test_images_of_several_sizes_and_small_ones_have_no_zoom_and_no_fault():
    rows = [
        [("a", np.zeros((16, 16))), ("b", np.ones((64, 64)))],
        [("c", np.zeros((16, 16))), ("d", np.ones((40, 64)))],
    ]
    assert sheets.image_sheet(rows, zoom=True).size == (
        16 + 64 + 3 * sheets.GAP,
        64 + 40 + 2 * sheets.STRIP + 3 * sheets.GAP,
    )


@pytest.mark.parametrize("shape", [(64, 48), (8, 200), (1, 1)])
def test_a_map_has_its_scale(shape):
    values = 0.083 * np.random.default_rng(0).random(shape)
    values.flat[0] = 0.083
    sheet = np.asarray(sheets.scaled_map(values, "standard deviation"))
    top, left = sheets.GAP + sheets.STRIP, sheets.GAP
    expected = np.round(255 * values / values.max())
    np.testing.assert_array_equal(sheet[top : top + shape[0], left : left + shape[1]], expected)
    bar = sheet[top : top + max(shape[0], 2 * sheets.STRIP), left + shape[1] + sheets.GAP + 4].astype(int)
    assert bar[0] == 255
    assert bar[-1] == 0
    assert (np.diff(bar) <= 0).all()
    beside = sheet[:, left + shape[1] + sheets.GAP + 14 :]
    assert (beside < 128).sum() > 20  # the numbers


def test_a_map_of_zeros_is_black():
    sheet = np.asarray(sheets.scaled_map(np.zeros((40, 40)), "deviation"))
    assert (sheet[sheets.GAP + sheets.STRIP :][:40, sheets.GAP : sheets.GAP + 40] == 0).all()


# --- of a run --------------------------------------------------------------------------------------------------------


def metrics(path, rows):
    from irsde.run_folder import COLUMNS

    with open(path / "metrics.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def row(step, **more):
    return {
        "step": step,
        "loss": 1 / step,
        "learning_rate": 1e-4,
        "gradient_norm": 1.0,
        "steps_per_second": 3.0,
        **more,
    }


def test_curves_are_drawn_of_what_there_is(tmp_path):
    pytest.importorskip("torch")
    from irsde.run_folder import write_curves

    metrics(tmp_path, [row(step) for step in range(1, 50)])
    write_curves(tmp_path)
    with Image.open(tmp_path / "curves.png") as picture:
        narrow = picture.size
        assert picture.text["Software"] == "ussim"
    metrics(tmp_path, [row(step, held_out_loss=1 / step, held_out_psnr=20 + step) for step in range(1, 50)])
    write_curves(tmp_path)
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 1.3 * narrow[0]  # a panel more
    content = (tmp_path / "curves.png").read_bytes()
    write_curves(tmp_path)
    assert (tmp_path / "curves.png").read_bytes() == content


@pytest.mark.parametrize(
    "rows", [[], [row(1)], [row(1) | {"loss": 0.0}, row(2, held_out_psnr="inf", held_out_loss=0.1)]]
)
def test_few_or_odd_rows_make_no_fault(tmp_path, rows):
    pytest.importorskip("torch")
    from irsde.run_folder import write_curves

    metrics(tmp_path, rows)
    write_curves(tmp_path)
    assert (tmp_path / "curves.png").exists() == bool(rows)


def test_a_sample_sheet_says_what_stands_where(tmp_path):
    pytest.importorskip("torch")
    from irsde.run_folder import write_sheet

    write_sheet([tuple(images(3, (32, 32)))], tmp_path / "samples" / "1.png")
    with Image.open(tmp_path / "samples" / "1.png") as picture:
        strip = np.asarray(picture)[: sheets.GAP + sheets.STRIP]
    for column in range(3):
        x = sheets.GAP + column * (32 + sheets.GAP)
        assert (strip[:, x : x + 32] < 128).sum() > 5
