"""Pictures: axes in mm where the pixels are, decibel bars, files that are whole."""

import numpy as np
import pytest

import ussim
from ussim.show import figures
from ussim.show.describe import describe_waves

PROBE = ussim.load_probe("C5-2v")
ACQUISITION = ussim.Acquisition(PROBE, ussim.imaging_waves(PROBE))
GRID = ussim.ImageGrid.for_acquisition(ACQUISITION, (31, 61))  # 2 mm a row, 1 mm a column
IMAGE = np.random.default_rng(0).random(GRID.shape, dtype=np.float32)


def image_of(axes):
    (image,) = axes.get_images()
    return image


def test_bmode_lies_where_its_pixels_are():
    figure = figures.bmode_figure(IMAGE, GRID, 40, "title")
    axes, bar = figure.axes[0], figure.axes[0].child_axes[0]
    assert image_of(axes).get_extent() == pytest.approx([-30.5, 30.5, 76, 14])  # outer edges of the outer pixels
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # depth downwards
    assert axes.get_aspect() == 1
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("lateral [mm]", "depth [mm]")
    assert bar.get_ylim() == (-40, 0)
    np.testing.assert_array_equal(image_of(axes).get_array(), IMAGE)


def test_a_pixel_is_drawn_at_its_position(tmp_path):
    image = np.zeros(GRID.shape, np.float32)
    image[20, 45] = 1
    figure = figures.bmode_figure(image, GRID, 40)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    place = axes.transData.transform((1e3 * GRID.x[45], 1e3 * GRID.z[20]))
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., 0]
    assert pixels[pixels.shape[0] - 1 - int(place[1]), int(place[0])] == 255


def test_pairs_share_one_field():
    figure = figures.pairs_figure([(IMAGE, IMAGE), (IMAGE, IMAGE)], GRID, 40, ["knee 3", "knee 4"])
    pictures = [axes for axes in figure.axes if axes.get_images() and axes.get_title()]
    assert [axes.get_title() for axes in pictures] == ["HQ   knee 3", "LQ (simulated)", "HQ   knee 4", "LQ (simulated)"]
    assert len({tuple(image_of(axes).get_extent()) for axes in pictures}) == 1


def test_bytes_are_drawn_as_grey_levels():
    figure = figures.bmode_figure(np.full(GRID.shape, 255, np.uint8), GRID, 40)
    assert image_of(figure.axes[0]).get_array().max() == 1


def test_pressure_is_in_decibels_of_its_maximum():
    pressure = np.ones(GRID.shape)
    pressure[3, 4] = 10.0
    pressure[5, 6] = 0.0
    level = image_of(figures.pressure_figure(pressure, GRID, PROBE, "field", 40).axes[0]).get_array()
    assert level[3, 4] == 0
    assert level[0, 0] == pytest.approx(-20)
    assert level[5, 6] == pytest.approx(-40)
    silent = image_of(figures.pressure_figure(np.zeros(GRID.shape), GRID, PROBE).axes[0])
    assert silent.get_array().max() == pytest.approx(silent.get_clim()[0])  # the floor


def test_a_probe_is_drawn_to_scale(any_probe):
    acquisition = ussim.Acquisition(any_probe, ussim.imaging_waves(any_probe))
    figure = figures.probe_figure(acquisition)
    geometry, delays = figure.axes
    assert len(geometry.lines) == any_probe.n_elements + (not any_probe.is_flat)
    assert geometry.lines[0].get_xdata().mean() == pytest.approx(1e3 * any_probe.element_x[0])
    assert geometry.get_aspect() == 1
    assert len(delays.lines) == 15
    assert any_probe.name in figure.get_suptitle()


def test_a_convex_probe_shows_where_depths_are_counted_from():
    probe = ussim.load_probe("C5-2v")
    geometry = figures.probe_figure(ussim.Acquisition(probe, ussim.imaging_waves(probe))).axes[0]
    chord = geometry.lines[-1]
    assert list(chord.get_ydata()) == [0, 0]
    assert probe.element_z[[0, -1]] == pytest.approx(0, abs=1e-9)
    (label,) = geometry.texts
    apex = probe.radius + probe.center_of_curvature  # the array's middle element is within a pitch of it
    assert 1e3 * apex == pytest.approx(1e3 * probe.element_z.max(), abs=0.05)
    assert f"{1e3 * apex:.1f} mm" in label.get_text()


@pytest.mark.parametrize(
    ("waves", "words"),
    [
        (ussim.PlaneWaves(np.deg2rad([-10, 0, 10])), "3 plane waves, -10 to 10°"),
        (ussim.PlaneWaves(np.deg2rad([5.0])), "1 plane wave, 5°"),
        (ussim.FocusedWaves(x=[0, 0], z=0.03), "2 focused waves"),
        (ussim.CustomTransmits(np.zeros(128)), "1 custom wave"),
    ],
)
def test_waves_in_words(waves, words):
    assert describe_waves(ussim.Acquisition(PROBE, waves)) == words


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_the_suffix_is_the_format(tmp_path, suffix, start):
    path = tmp_path / f"a.{suffix}"
    figures.save_figure(figures.bmode_figure(IMAGE, GRID, 40), path)
    assert path.read_bytes().startswith(start)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_picture_of_one_result_is_the_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        figures.save_figure(figures.bmode_figure(IMAGE, GRID, 40, "title"), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_wrong_pictures_are_refused_in_words(tmp_path):
    with pytest.raises(ValueError, match=r"expected an image of shape \(31, 61\) for this grid, got \(5, 5\)"):
        figures.bmode_figure(np.zeros((5, 5)), GRID, 40)
    with pytest.raises(ValueError, match=r"ending in \.png, \.pdf or \.svg, got '\.xyz'"):
        figures.save_figure(figures.bmode_figure(IMAGE, GRID, 40), tmp_path / "a.xyz")
