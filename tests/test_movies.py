"""Movies, the montage, `ussim movie` and `ussim psf`: what is shown where, whole files, one line for what is wrong."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ussim
from ussim.commands import console
from ussim.commands.cli import cli
from ussim.show import montage, movies

ROOT = Path(__file__).resolve().parents[1]
PROBE = dataclasses.replace(ussim.load_probe("P4-2v"), n_elements=16, path="")
GRID = ussim.ImageGrid(x=np.linspace(-5e-3, 5e-3, 21), z=np.linspace(10e-3, 20e-3, 21))


def pages(path):
    """Frames of a GIF, (n, rows, columns, 3)."""
    with Image.open(path) as movie:
        found = []
        for i in range(movie.n_frames):
            movie.seek(i)
            found.append(np.asarray(movie.convert("RGB"), float))
        return np.array(found)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """run(*arguments): exit code, stdout, stderr of `ussim ...` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = console.run(cli, "ussim", [str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def flowing(tmp_path):
    """Channel data of ten frames of scatterers that come closer, as a zea file."""
    acquisition = ussim.Acquisition(PROBE, ussim.PlaneWaves(0.0))
    rng = np.random.default_rng(0)
    moving = ussim.MovingScatterers(
        rng.uniform(-3e-3, 3e-3, 60), rng.uniform(12e-3, 18e-3, 60), rng.normal(size=60), 0.0, -0.1
    )
    frames = ussim.simulate_frames(moving, acquisition, 10, 2000.0, "cpu")
    frames.save(tmp_path / "flow.hdf5")
    return tmp_path / "flow.hdf5"


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_wave_is_drawn_where_it_is_in_colors_that_do_not_flicker(tmp_path):
    field = np.zeros((5, *GRID.shape), np.float32)
    for i in range(5):
        field[i, 4 * i] = 1.0 if i % 2 else -1.0
    times = np.arange(5) * 1e-6
    movies.save_field_movie(tmp_path / "a.gif", field, GRID, times, PROBE, "a wave", rate=20)
    found = pages(tmp_path / "a.gif")
    assert len(found) == 5
    redder = found[..., 0] - found[..., 2]
    left = redder[:, :, 100:300]  # of the image; the color bar is right of it
    rows = [np.flatnonzero(np.abs(page).max(axis=1) > 50) for page in left]
    assert all(np.diff([row.mean() for row in rows]) > 20)  # downwards
    assert [np.sign(page[row].mean()) for page, row in zip(left, rows, strict=True)] == [-1, 1, -1, 1, -1]
    np.testing.assert_array_equal(found[0, :, -60:], found[3, :, -60:])  # the bar has one palette
    with Image.open(tmp_path / "a.gif") as movie:
        assert movie.info["duration"] == 50
    assert os.listdir(tmp_path) == ["a.gif"]


def test_the_limit_of_a_wave_is_the_median_of_its_heights():
    field = np.zeros((7, 2, 2))
    field[1:, 0, 0] = [1, 1, -1, 1, 9, 1]
    assert movies.field_limit(field) == 1
    assert movies.field_limit(np.zeros((3, 2, 2))) == 1


def test_mp4_is_written_where_there_is_ffmpeg(tmp_path):
    try:
        ffmpeg = movies.find_ffmpeg()
    except ussim.UssimError as error:
        pytest.skip(str(error))
    bmodes = np.zeros((4, *GRID.shape), np.float32)
    for i in range(4):
        bmodes[i, 5 * i] = 1
    movies.save_movie(tmp_path / "a.mp4", list(bmodes), GRID, 40, list("abcd"), rate=5)
    assert os.listdir(tmp_path) == ["a.mp4"]
    command = [ffmpeg, "-i", tmp_path / "a.mp4", "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    read = subprocess.run(command, capture_output=True, check=True)
    said = read.stderr.decode()
    assert "Video: h264" in said
    assert " 5 fps" in said
    frames = np.frombuffer(read.stdout, np.uint8).reshape(4, -1).astype(float)  # as many frames as were given
    assert np.abs(frames[0] - frames[3]).max() > 100


def test_an_ffmpeg_that_fails_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho no such encoder >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(movies, "find_ffmpeg", lambda: str(program))
    with pytest.raises(ussim.UssimError, match=r"^ffmpeg failed \(.*\): write a \.gif instead$"):
        movies.save_movie(tmp_path / "a.mp4", [np.zeros(GRID.shape)] * 3, GRID, 40, list("abc"))
    assert os.listdir(tmp_path) == ["ffmpeg"]


def test_without_ffmpeg_one_line_says_what_installs_it(tmp_path):
    command = [sys.executable, str(ROOT / "tests/without.py"), "imageio_ffmpeg", "ussim", "movie", "-o", "a.mp4"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": str(tmp_path), "NO_COLOR": "1"}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 6
    assert ended.stderr.strip().splitlines()[-1] == (
        "ussim: error: imageio-ffmpeg is not installed: pip install 'ussim[video]', or put ffmpeg on the path, "
        "or write a .gif"
    )
    assert not os.listdir(tmp_path)


# --- the montage -----------------------------------------------------------------------------------------------------


def test_a_montage_shows_echoes_single_transmits_and_the_image():
    acquisition = ussim.Acquisition(PROBE, ussim.PlaneWaves(np.deg2rad(np.linspace(-10, 10, 9))))
    rf = ussim.simulate(ussim.Scatterers([1e-3], [15e-3], [1.0]), acquisition, "cpu")
    figure = montage.montage_figure(rf, GRID, 40, engine="cpu")
    shown = [axes for axes in figure.axes if axes.get_visible() and axes.images]
    titles = [axes.get_title() for axes in shown]
    assert titles == [
        "echoes of transmit 5, 2.5°",
        "transmit 0, -10°", "transmit 2, -5°", "transmit 3, -2.5°", "transmit 5, 2.5°", "transmit 6, 5°", "transmit 8, 10°",
        "9 compounded",
    ]  # fmt: skip
    first, last = (np.asarray(axes.images[0].get_array()) for axes in (shown[1], shown[-1]))
    alone = ussim.Acquisition(PROBE, ussim.PlaneWaves(np.deg2rad([-10.0])))
    expected = ussim.simulate(ussim.Scatterers([1e-3], [15e-3], [1.0]), alone, "cpu")
    for got, data in ((first, expected), (last, rf)):
        np.testing.assert_allclose(
            got, ussim.log_compress(ussim.envelope_image(data, GRID, engine="cpu"), 40), atol=2e-3
        )
    assert (last > 0.5).sum() < (first > 0.5).sum()  # compounding is what makes a point small
    assert {axes.get_ylabel() for axes in shown} == {"time [µs]", "depth [mm]", ""}


def test_render_draws_a_montage(run):
    np.save("grey.npy", np.random.default_rng(0).random((16, 16)))
    small = ("--probe", "P4-2v", "--angles", "2", "--depth-mm", "30", "36", "--width-mm", "6", "--size", "24")
    words = ("render", "grey.npy", *small, "--engine", "cpu")
    assert run(*words, "-o", "plain.png")[0] == 0
    code, _, err = run(*words, "--montage", "-o", "a.png")
    assert code == 0, err
    with Image.open("a.png") as wide, Image.open("plain.png") as plain:
        assert wide.width > 2 * plain.width
    with np.load("a.npz") as one, np.load("plain.npz") as other:
        np.testing.assert_array_equal(one["bmode"], other["bmode"])
    code, _, err = run(*words, "--montage", "-o", "a.mat")
    assert (code, "--montage: a.mat: expected a picture name" in err) == (2, True)
    code, _, err = run(*words, "--montage", "--combine", "slsc")
    assert (code, "has no decibels" in err) == (2, True)


# --- ussim movie -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "rows"), [(20, 256), (60, 341), (200, 640)])
def test_the_rows_of_a_wave_tell_its_crests_apart_within_bounds(run, depth, rows):
    code, _, err = run(
        "movie", "--probe", "P4-2v", "--plane-deg", "0", "--pictures", "2", "--width-mm", "13", "--depth-mm", "0", depth
    )
    assert code == 0, err
    with np.load("P4-2v_wave.npz") as arrays:
        assert len(arrays["z"]) == rows
        wavelength = 1540 / ussim.load_probe("P4-2v").center_frequency
        fine = bool(np.diff(arrays["z"]).max() < wavelength / 3)
    assert fine == (rows < 640) == ("tell the crests" not in err)


def test_a_movie_of_a_wave(run):
    code, out, err = run("movie", "--probe", "P4-2v", "--plane-deg", "0", "--size", "24", "--pictures", "4")
    assert code == 0, err
    assert "P4-2v_wave.gif: P4-2v, plane wave at 0°, 4 pictures of 0 to " in out
    assert "do not tell the crests" in err
    assert len(pages("P4-2v_wave.gif")) == 4
    with np.load("P4-2v_wave.npz") as arrays:
        acquisition = ussim.Acquisition("P4-2v", ussim.PlaneWaves(0.0))
        grid = ussim.ImageGrid(x=arrays["x"], z=arrays["z"])
        np.testing.assert_array_equal(arrays["pressure"], ussim.wave_field(acquisition, grid, arrays["time"]))
        assert json.loads(str(arrays["settings"]))["transmit"] == "plane wave at 0°"


def test_movies_of_a_recording(run, flowing):
    field = ("--depth-mm", "11", "19", "--width-mm", "8", "--size", "16", "--engine", "cpu")
    code, out, err = run("movie", "flow.hdf5", *field)
    assert code == 0, err
    assert "10 frames" in out
    with np.load("flow.npz") as arrays:
        assert arrays["bmode"].shape == (10, 16, 16)
    code, out, err = run("movie", "flow.hdf5", *field, "--doppler", "--ensemble", "6", "-o", "d.gif")
    assert code == 0, err
    assert len(pages("d.gif")) == 5
    with np.load("d.npz") as arrays:
        velocity = arrays["velocity"]
        # As it was given, towards the array; the carrier of a one-period pulse is 5 % lower than the probe's.
        assert np.nanmedian(velocity) == pytest.approx(0.1, rel=0.1)


def test_a_few_frames_of_a_recording_are_in_memory_at_a_time(run, flowing, monkeypatch):
    """However long it is; the images are those of all frames at once."""
    file = ussim.open_channel_data(flowing)
    taken, stack = [], type(file).stack
    monkeypatch.setattr(type(file), "stack", lambda self, frames=None: taken.append(frames) or stack(self, frames))
    field = ("--depth-mm", "11", "19", "--width-mm", "8", "--size", "16", "--engine", "cpu")
    assert run("movie", "flow.hdf5", *field)[0] == 0
    assert [frame for frames in taken for frame in frames] == list(range(10))
    assert max(map(len, taken)) <= 8
    with np.load("flow.npz") as arrays:
        grid = ussim.ImageGrid(x=arrays["x"], z=arrays["z"])
        whole = ussim.envelope_image(stack(file), grid, engine="cpu")
        np.testing.assert_array_equal(arrays["bmode"], ussim.log_compress(whole, 60))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("-o", "a.avi"), 2, "a.avi: expected a movie name ending in .gif or .mp4"),
        (("--time-us", "5", "5"), 2, "--time-us: expected LOW below HIGH, got 5 5"),
        (("--time-us", "nan", "5"), 2, "expected a finite number, got nan"),
        (("--pictures", "1"), 2, "1 is not in the range"),
        (("--doppler",), 2, "--doppler goes with CHANNEL_DATA"),
        (("--frames", "0:3"), 2, "--frames goes with CHANNEL_DATA"),
        (("--focus-mm", "0", "20", "--plane-deg", "3"), 2, "expected one of --focus-mm"),
        (("absent.hdf5",), 3, "absent.hdf5: "),
        (("flow.hdf5", "--pictures", "3"), 2, "--pictures goes without CHANNEL_DATA"),
        (("flow.hdf5", "--ensemble", "3"), 2, "--ensemble goes with --doppler"),
        (("flow.hdf5", "--frames", "0"), 2, "expected 2 frames or more, got 1"),
        (("flow.hdf5", "--doppler", "--ensemble", "30"), 2, "expected 30 frames or more, got 10"),
    ],
)
def test_a_movie_that_cannot_be_is_one_line(run, flowing, words, code, said):
    before = sorted(os.listdir())
    ended = run("movie", *words)
    assert ended[0] == code
    assert said in ended[2].splitlines()[-1]
    assert sorted(os.listdir()) == before


# --- ussim psf -------------------------------------------------------------------------------------------------------


def test_psf_writes_a_figure_and_json(run):
    words = ("psf", "--probe", "P4-2v", "--angles", "1", "--points", "2", "--depth-mm", "40", "60", "--engine", "cpu")
    code, out, err = run(*words, "--f-number", "0")
    assert code == 0, err
    assert out.splitlines()[0].split("  ")[-5:] == [
        "depth mm",
        "lateral mm",
        "axial mm",
        "side lobe dB",
        "grating lobe dB",
    ]
    assert len(out.splitlines()) == 4
    with open("P4-2v_psf.json", encoding="utf-8") as file:
        found = json.load(file)
    acquisition = ussim.Acquisition("P4-2v", ussim.imaging_waves(ussim.load_probe("P4-2v"), n_transmits=1))
    expected = ussim.resolution_over_depth(acquisition, [40e-3, 60e-3], f_number=0, engine="cpu").to_dict()
    assert {name: found[name] for name in expected} == expected
    assert found["grating_angle"] == [None, None]
    assert found["settings"]["acquisition"]["probe"]["name"] == "P4-2v"
    with Image.open("P4-2v_psf.png") as picture:
        assert picture.width > 2 * picture.height
    code, out, err = run(*words, "--json", "-o", "only.json")
    assert code == 0, err
    assert json.loads(out)["depths"] == [0.04, 0.06]
    assert not Path("only.png").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--depth-mm", "30", "20"), "--depth-mm: expected LOW below HIGH, got 30 20"),
        (("--depth-mm", "-5", "20"), "--depth-mm: expected"),
        (("--points", "0"), "0 is not in the range"),
        (("--level-db", "3"), "expected a number below 0, got 3"),
        (("--lateral-mm", "inf"), "expected a finite number, got inf"),
        (("--combine", "slsc"), "--combine slsc: a coherence has no decibels"),
        (("-o", "a.gif"), "a.gif: expected a picture name"),
    ],
)
def test_a_psf_that_cannot_be_is_one_line(run, words, said):
    code, _, err = run("psf", "--probe", "P4-2v", "--angles", "1", *words)
    assert code == 2
    assert said in err.splitlines()[-1]
    assert not os.listdir()
