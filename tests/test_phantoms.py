"""Procedural phantoms: what is in them lies where it is said to, scatters as strongly as said, and is seen so by a probe."""

import inspect
import json
import math
import re

import numpy as np
import pytest
from click.testing import CliRunner

import ussim
from ussim import phantoms
from ussim.commands.cli import cli

NAMES = phantoms.names()
SMALL = {"x": (-8e-3, 8e-3), "z": (5e-3, 25e-3), "rows": 120}


def acquisition(probe="L11-5v", n_angles=3):
    return ussim.Acquisition(ussim.load_probe(probe), ussim.PlaneWaves(np.linspace(-0.1, 0.1, n_angles)))


def region(phantom, name):
    return phantom.labels == 1 + phantom.label_names.index(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_phantom_is_a_map_of_its_field(name):
    made = phantoms.make(name, **SMALL)
    assert made.name == name
    assert made.level_db.shape == made.labels.shape == (made.grid.z.size, made.grid.x.size) == (120, 96)
    assert (made.grid.x[0], made.grid.x[-1], made.grid.z[0], made.grid.z[-1]) == (-8e-3, 8e-3, 5e-3, 25e-3)
    assert made.level_db.dtype == np.float32
    assert phantoms.FLOOR_DB <= made.level_db.min() <= made.level_db.max() <= 0
    assert made.labels.max() <= len(made.label_names)
    assert np.isin(np.arange(1, len(made.label_names) + 1), made.labels).all(), "a name without a pixel"
    image = made.image(40.0)
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert 0.5 < image.max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_seeds_make_others_without_end(name):
    regular, again = phantoms.make(name, **SMALL), phantoms.make(name, **SMALL)
    assert np.array_equal(regular.level_db, again.level_db)
    assert np.array_equal(regular.points, again.points)
    images = [phantoms.make(name, **SMALL, seed=seed).image() for seed in (0, 1, 1, 2**40)]
    assert np.array_equal(images[1], images[2])
    for first, second in ((0, 1), (1, 3), (0, 3)):
        assert not np.array_equal(images[first], images[second])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(6))
def test_every_arrangement_is_whole(name, seed):
    made = phantoms.make(name, (-20e-3, 5e-3), (30e-3, 80e-3), seed, 64, apex=-2e-3)
    assert np.isfinite(made.level_db).all()
    assert np.isfinite(made.points).all()
    assert made.image().max() > 0.3


@pytest.mark.parametrize("name", NAMES)
def test_each_kind_is_a_function_of_its_own(name):
    function = getattr(phantoms, name)
    assert phantoms.KINDS[name] is function
    assert list(inspect.signature(function).parameters) == list(inspect.signature(phantoms.make).parameters)[1:]
    assert np.array_equal(function(**SMALL).level_db, phantoms.make(name.upper(), **SMALL).level_db)


def test_lesions_have_the_contrast_that_they_are_named_for():
    made = phantoms.lesions()
    scatterers = made.scatterers(acquisition(), seed=1, mean_distance=60e-6)
    column = np.rint(np.interp(scatterers.x, made.grid.x, np.arange(made.grid.x.size))).astype(int)
    row = np.rint(np.interp(scatterers.z, made.grid.z, np.arange(made.grid.z.size))).astype(int)
    found = made.labels[row, column]
    around = scatterers.reflectivity[found == 0].mean()
    for index, name in enumerate(made.label_names):
        step = float(name.split()[1])
        inside = scatterers.reflectivity[found == index + 1]
        # A Rayleigh mean of n scatterers is known to 0.52 / sqrt(n); a pixel's edge is blended, one part in ten.
        assert 20 * math.log10(inside.mean() / around) == pytest.approx(step, abs=0.6)
        assert made.level_db[region(made, name)].mean() == pytest.approx(-16 + step, abs=0.3)


def test_the_centers_of_discs_are_where_the_arrangement_puts_them():
    made = phantoms.cysts((-10e-3, 10e-3), (10e-3, 30e-3))
    silent = made.level_db <= phantoms.FLOOR_DB
    column = made.grid.x[np.nonzero(silent.any(axis=0))[0]]
    for u, radius in ((0.18, 1.5e-3), (0.42, 2.5e-3), (0.72, 4e-3)):
        center, radius = -10e-3 + u * 20e-3, radius * 20 / 38
        near = column[np.abs(column - center) < 1.3 * radius]
        assert near.mean() == pytest.approx(center, abs=1e-4)
        assert np.ptp(near) == pytest.approx(2 * radius, abs=3 * 20e-3 / 383)


def test_what_is_silent_holds_no_scatterer_and_points_are_added():
    made = phantoms.cysts()
    scatterers = made.scatterers(acquisition())
    center = made.grid.x[0] + 0.72 * 38e-3, made.grid.z[0] + 0.5 * 38e-3
    assert np.hypot(scatterers.x - center[0], scatterers.z - center[1]).min() > 3.8e-3
    wires = phantoms.wires()
    points = wires.scatterers(acquisition())
    assert len(points) == len(wires.points) == 26
    assert np.array_equal(points.x, wires.points[:, 0])
    assert np.array_equal(points.reflectivity, np.ones(26))


def test_points_behind_a_convex_array_are_left_out():
    convex = acquisition("C5-2v")
    wires = phantoms.wires((-30e-3, 30e-3), (0.0, 60e-3))
    points = wires.scatterers(convex)
    assert 0 < len(points) < len(wires.points)
    assert not convex.probe.is_behind(points.x, points.z).any()


def test_wires_and_cysts_are_seen_in_their_places():
    waves = acquisition(n_angles=5)
    made = phantoms.make("wires", (-6e-3, 6e-3), (10e-3, 22e-3))
    grid = ussim.ImageGrid(np.linspace(-6e-3, 6e-3, 241), np.linspace(10e-3, 22e-3, 481))
    image = np.abs(
        ussim.delay_and_sum(ussim.demodulate(ussim.simulate(made.scatterers(waves), waves, "cpu")), grid, engine="cpu")
    )
    for x, z, _ in made.points:
        near = (np.abs(grid.z[:, None] - z) < 0.5e-3) & (np.abs(grid.x - x) < 0.5e-3)
        row, column = np.unravel_index(np.argmax(np.where(near, image, 0)), image.shape)
        assert abs(grid.x[column] - x) < 0.1e-3
        assert abs(grid.z[row] - z) < 0.1e-3
    made = phantoms.make("cysts", (-6e-3, 6e-3), (10e-3, 22e-3))
    image = np.abs(
        ussim.delay_and_sum(ussim.demodulate(ussim.simulate(made.scatterers(waves), waves, "cpu")), grid, engine="cpu")
    )
    x, z = made.grid.x[0] + 0.72 * 12e-3, made.grid.z[0] + 0.5 * 12e-3
    inside = np.hypot(grid.x - x, grid.z[:, None] - z) < 0.7e-3
    beside = np.hypot(grid.x - (x - 2.2e-3), grid.z[:, None] - (z + 1.9e-3)) < 0.7e-3
    assert 20 * np.log10(image[beside].mean() / image[inside].mean()) > 10


@pytest.mark.parametrize("apex", [None, 0.0, -30e-3])
def test_shadows_run_along_the_beams(apex):
    made = phantoms.calcifications((-15e-3, 15e-3), (10e-3, 50e-3), apex=apex)
    stones, shadow = region(made, "calcification"), region(made, "shadow")
    x, z = np.broadcast_arrays(made.grid.x, made.grid.z[:, None])
    bearing = x if apex is None else np.arctan2(x, z - apex)
    place = made.grid.x[0] + 0.45 * 30e-3, made.grid.z[0] + 0.45 * 40e-3  # one of the stones, near the middle
    own = place[0] if apex is None else math.atan2(place[0], place[1] - apex)
    reach = 1e-3 if apex is None else 1e-3 / (place[1] - apex)
    behind = shadow & (np.abs(bearing - own) < reach)
    assert behind.sum() > 200
    assert z[behind].min() > place[1]
    assert z[behind].max() == made.grid.z[-1]
    assert np.median(bearing[behind]) == pytest.approx(own, abs=0.1 * reach)
    assert made.level_db[behind].mean() < -35 < made.level_db[stones].mean()
    assert phantoms.beam_apex(ussim.load_probe("L11-5v")) is None
    assert phantoms.beam_apex(ussim.load_probe("P4-2v")) == 0.0
    assert phantoms.beam_apex(ussim.load_probe("C5-2v")) == ussim.load_probe("C5-2v").center_of_curvature


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "cyst"}, "unknown phantom 'cyst' (did you mean 'cysts'?)"),
        ({"x": (1e-3, 1e-3)}, "x: expected a field (low, high) in m"),
        ({"z": (0.0, np.nan)}, "z: expected a field (low, high) in m"),
        ({"rows": 4}, "rows: expected 16 to 4096, got 4"),
        ({"rows": 5000}, "rows: expected 16 to 4096, got 5000"),
        ({"apex": 1.0}, "apex: expected a depth above the field's end"),
        ({"apex": np.inf}, "apex: expected a depth above the field's end"),
    ],
)
def test_what_cannot_be_made_is_said(options, words):
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        phantoms.make(**{"name": "wires", **options})
    assert "\n" not in str(error.value)


def test_an_image_needs_a_range():
    with pytest.raises(ValueError, match="dynamic_range_db: expected dB above 0"):
        phantoms.wires().image(0)


# --- the command -----------------------------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(cli, ["render", *map(str, arguments), "--engine", "cpu"])


def test_render_makes_a_phantom_without_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("--phantom", "Cysts", "--angles", 1, "--size", 64, "--phantom-seed", 3, "--width-mm", 20)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "cysts_bmode.png").is_file()
    with np.load(tmp_path / "cysts_bmode.npz") as written:
        settings = json.loads(str(written["settings"]))
        assert written["bmode"].shape == (64, 34)
    assert (settings["phantom"], settings["phantom_seed"], settings["image"]) == ("cysts", 3, None)
    made = phantoms.make("cysts", (-10e-3, 10e-3), (5e-3, 43e-3), 3)
    assert settings["n_scatterers"] == len(made.scatterers(acquisition(n_angles=1)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "expected an IMAGE or --phantom NAME, got neither"),
        (("a.png", "--phantom", "cysts"), "expected an IMAGE or --phantom NAME, got both"),
        (("--phantom", "wire"), "did you mean 'wires'?"),
        (("a.png", "--phantom-seed", 1), "--phantom-seed goes with --phantom"),
        (("--phantom", "heart", "--slice", 1), "--slice goes with an IMAGE, not with --phantom"),
        (("--phantom", "heart", "--plane", "axial"), "--plane goes with an IMAGE, not with --phantom"),
        (("--phantom", "heart", "--scatterer-range-db", 30), "--scatterer-range-db goes with an IMAGE"),
    ],
)
def test_render_refuses_what_does_not_go_together(arguments, words):
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_help_names_every_kind():
    text = " ".join(run("--help").output.split())
    assert f"{', '.join(NAMES[:-1])} or {NAMES[-1]}" in text
