"""Figures as a journal takes them: the width asked, text of 6 to 8 points there, fonts to edit, the same bytes twice."""

import datetime
import json
import re

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

import ussim
from ussim.show import figures, printing

PROBE = ussim.load_probe("C5-2v")
ACQUISITION = ussim.Acquisition(PROBE, ussim.imaging_waves(PROBE))
GRID = ussim.ImageGrid.for_acquisition(ACQUISITION, (31, 61))
IMAGE = np.random.default_rng(0).random(GRID.shape, dtype=np.float32)
SETTINGS = {"seed": 3, "probe": "C5-2v", "note": "±10°"}


def bmode():
    return figures.bmode_figure(IMAGE, GRID, 40, "C5-2v, 15 plane waves, -10 to 10°")


def pairs():
    return figures.pairs_figure(
        [(IMAGE, IMAGE)] * 4, GRID, 40, ["a subject with a name that goes on and on/axial/12"] * 4
    )


def comparison():
    return figures.comparison_figure([IMAGE, IMAGE], GRID, 40, ["one", "two"])


def probe():
    return figures.probe_figure(ACQUISITION)


def pressure():
    return figures.pressure_figure(IMAGE + 0.01, GRID, PROBE, "C5-2v, focus at (0, 40) mm")


ALL = [bmode, pairs, comparison, probe, pressure]


def texts(figure):
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


@pytest.mark.parametrize(("draw", "width_cm"), [*((draw, 8.5) for draw in ALL), (bmode, 17.4)])
def test_text_is_of_six_to_eight_points_at_the_width_asked(draw, width_cm):
    figure = draw()
    printing.fit_width(figure, width_cm)
    assert figure.get_size_inches()[0] == pytest.approx(width_cm / 2.54)
    assert figure.get_size_inches()[1] <= printing.TALLEST_CM / 2.54
    sizes = {text.get_fontsize() for text in texts(figure)}
    assert min(sizes) >= 6
    assert max(sizes) <= 8
    figure.draw_without_rendering()
    drawn = figure.get_tightbbox()  # inches
    assert drawn.x0 > -0.01
    assert drawn.x1 < figure.get_size_inches()[0] + 0.01


@pytest.mark.parametrize("width_cm", [8.5, 17.4])
def test_the_page_of_a_pdf_is_as_wide_as_asked(tmp_path, width_cm):
    figures.save_figure(bmode(), tmp_path / "a.pdf", width_cm=width_cm)
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", (tmp_path / "a.pdf").read_bytes())
    assert float(box[1]) == pytest.approx(width_cm / 2.54 * 72, abs=0.01)


def test_dots_per_inch_are_those_asked(tmp_path):
    figures.save_figure(bmode(), tmp_path / "a.png", width_cm=8.5, dpi=100)
    figures.save_figure(bmode(), tmp_path / "b.png", width_cm=8.5)
    for name, dpi in (("a", 100), ("b", 300)):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width == int(8.5 * dpi / 2.54)


def test_the_font_of_a_pdf_is_truetype(tmp_path):
    figures.save_figure(bmode(), tmp_path / "a.pdf")
    content = (tmp_path / "a.pdf").read_bytes()
    assert b"/Type3" not in content
    assert b"/FontFile2" in content


def test_the_text_of_an_svg_is_text(tmp_path):
    figures.save_figure(bmode(), tmp_path / "a.svg")
    content = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert re.search(r"<text[^>]*>[^<]*lateral \[mm\]", content)


@pytest.mark.parametrize(
    ("draw", "suffix"), [(pairs, "png"), (bmode, "png"), (bmode, "pdf"), (bmode, "svg"), (probe, "pdf")]
)
def test_the_same_figure_makes_the_same_bytes_on_another_day(tmp_path, draw, suffix, monkeypatch):
    contents = []
    for day in (1, 400):
        moment = datetime.datetime(2026, 1, 1) + datetime.timedelta(days=day)
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(int(moment.timestamp())))
        figures.save_figure(draw(), tmp_path / f"a.{suffix}", SETTINGS)
        contents.append((tmp_path / f"a.{suffix}").read_bytes())
    assert contents[0] == contents[1]
    assert not re.search(rb"CreationDate|<dc:date>", contents[0])


def test_settings_travel_in_the_picture(tmp_path):
    for suffix in ("png", "pdf", "svg"):
        figures.save_figure(bmode(), tmp_path / f"a.{suffix}", SETTINGS)
    with Image.open(tmp_path / "a.png") as picture:
        assert json.loads(picture.text["Settings"]) == SETTINGS
        assert picture.text["Software"] == "ussim"
    assert b"C5-2v" in (tmp_path / "a.pdf").read_bytes()
    assert "&quot;seed&quot;: 3" in (tmp_path / "a.svg").read_text() or '"seed": 3' in (tmp_path / "a.svg").read_text()


@pytest.mark.parametrize("width", [0.0, 3.9, 61.0, float("nan")])
def test_a_width_that_no_figure_has_is_refused(tmp_path, width):
    with pytest.raises(ValueError, match="figure width: expected 4 to 60 cm, got"):
        figures.save_figure(bmode(), tmp_path / "a.png", width_cm=width)
    assert not list(tmp_path.iterdir())


def test_a_long_name_keeps_its_beginning_and_its_end():
    name = "sub-0042_ses-01_acq-highres_T1w/sagittal/118"
    short = printing.shortened(name, 21)
    assert len(short) == 21
    assert short.startswith("sub-0042_s")
    assert short.endswith("gittal/118")
    assert printing.shortened(name, 100) == name


def test_pairs_stand_in_a_grid_and_their_titles_apart():
    figure = pairs()
    figure.draw_without_rendering()
    shown = [axes for axes in figure.axes if axes.get_images()]
    places = {(round(axes.bbox.x0), round(axes.bbox.y0)) for axes in shown}
    assert len(places) == 8
    assert len({y for _, y in places}) == 2  # rows of two pairs
    for axes in shown:
        assert axes.title.get_window_extent().width < 1.15 * axes.bbox.width
    assert shown[0].get_title().endswith("/12")


# --- pressure fields -------------------------------------------------------------------------------------------------


def field(level_db):
    return 10 ** (np.asarray(level_db) / 20)


def test_the_range_of_a_field_holds_nearly_all_of_it():
    levels = -np.linspace(0, 34, GRID.shape[0] * GRID.shape[1]).reshape(GRID.shape)
    image = figures.pressure_figure(field(levels), GRID, PROBE).axes[0].get_images()[0]
    assert image.get_clim() == (-40, 0)
    assert figures.field_range_db(np.array([-3.0, 0.0])) == 20
    assert figures.field_range_db(np.linspace(-300, 0, 100)) == 80
    assert figures.pressure_figure(field(levels), GRID, PROBE, "", 55.0).axes[0].get_images()[0].get_clim() == (-55, 0)


def test_contours_lie_at_6_and_20_db():
    """A field that falls by 1 dB a row: the lines are 6 and 20 rows down."""
    levels = np.repeat(-np.arange(GRID.shape[0], dtype=float)[:, None], GRID.shape[1], axis=1)
    figure = figures.pressure_figure(field(levels), GRID, PROBE)
    (lines,) = [each for each in figure.axes[0].collections if hasattr(each, "levels")]
    assert list(lines.levels) == [-20, -6]
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        assert path.vertices[:, 1] == pytest.approx(1e3 * GRID.z[int(-level)], abs=1e-6)
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert {"-6 dB", "-20 dB"} >= set(labels)


def test_there_is_no_field_behind_a_convex_array():
    grid = ussim.ImageGrid(x=np.linspace(-30e-3, 30e-3, 61), z=np.linspace(0.5e-3, 60e-3, 60))
    pressure = np.ones(grid.shape)
    behind = PROBE.is_behind(grid.x[None, :], grid.z[:, None])
    assert 0.01 < behind.mean() < 0.2
    pressure[behind] = 1e6  # whatever is there: it is no field, and not its maximum
    figure = figures.pressure_figure(pressure, grid, PROBE)
    level = figure.axes[0].get_images()[0].get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(level), behind)
    assert level.max() == 0


def test_a_silent_field_is_drawn():
    figures.pressure_figure(np.zeros(GRID.shape), GRID, PROBE).draw_without_rendering()


def test_titles_made_shorter_say_so_and_are_of_one_size():
    image = np.zeros(GRID.shape)
    names = [f"demo/abdomen-and-more/axial-{i:04d}/patch" for i in range(7)]
    figure = figures.pairs_figure([(image, image)] * 7, GRID, 40, names)
    printing.fit_width(figure, 12)
    titles = [axes.title for axes in figure.axes if axes.get_images()]
    assert len({title.get_fontsize() for title in titles}) == 1
    for title in titles[::2]:
        assert title.get_text().count("…") == 1
        assert title.get_text().startswith("HQ")
    for room in range(4, 60):  # in one step or in many, the end of the name is kept
        assert printing.shortened(names[3], room).endswith(names[3][-1])


@pytest.mark.parametrize("n", [3, 5, 7])
def test_pairs_of_a_last_row_that_is_not_full_stand_under_those_above(n):
    image = np.zeros(GRID.shape)
    figure = figures.pairs_figure([(image, image)] * n, GRID, 40, [str(i) for i in range(n)])
    figure.draw_without_rendering()
    shown = [axes for axes in figure.axes if axes.get_images()]
    columns = sorted({round(axes.bbox.x0) for axes in shown})
    gaps = np.diff(columns)[1::2]  # between pairs
    assert len(columns) == 2 * min(int(np.ceil(np.sqrt(n))), figures.PAIRS_ACROSS)
    assert gaps.max(initial=0) < 1.25 * shown[0].bbox.width  # no bar between them
