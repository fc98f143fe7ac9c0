"""`ussim beamform` and `ussim convert` on recordings of others, one command each."""

import json

import numpy as np
import pytest
import twins
from PIL import Image

import ussim
from ussim.commands import console
from ussim.commands.cli import cli

PROBE = ussim.Probe("recorded", 5.208e6, 0.67, 32, 0.3e-3, 0.27e-3)
ANGLES = np.deg2rad([-16.0, 0.0, 16.0])
CENTERED = ussim.Acquisition(PROBE, ussim.PlaneWaves(ANGLES, time_reference="center"), sampling_frequency=20.832e6)
RATE = 20.832e6


@pytest.fixture(scope="module")
def wire():
    """Two frames (2, 3, 32, n) of a wire at 8 mm, then at 9 mm."""
    rfs = [ussim.simulate(ussim.Scatterers([0.0], [z], [1.0]), CENTERED, n_samples=320) for z in (8e-3, 9e-3)]
    return np.stack([rf.samples for rf in rfs])


@pytest.fixture
def here(tmp_path, monkeypatch, wire):
    """A folder with the wire in the files of each format."""
    monkeypatch.chdir(tmp_path)
    for name, (write, suffix) in twins.FORMATS.items():
        write(tmp_path / f"{name.replace(' ', '')}{suffix}", CENTERED, wire, RATE, 0.0)
    np.save("bare.npy", wire.transpose(3, 2, 1, 0))  # samples, elements, transmits, frames
    toml = ["name = 'recorded'", "center_frequency = 5.208e6", "bandwidth = 0.67", "n_elements = 32", "pitch = 0.3e-3"]
    (tmp_path / "probe.toml").write_text("\n".join([*toml, "element_width = 0.27e-3"]))
    return tmp_path


@pytest.fixture
def run(here, capsys):
    def run(*arguments):
        code = console.run(cli, "ussim", [str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


BARE = ("--probe", "probe.toml", "--sampling-mhz", "20.832", "--angles-deg", "-16:16:3")
SMALL = ("--size", "64", "--engine", "cpu", "--f-number", "1")
FILES = {
    "picmus.hdf5": ("--probe", "probe.toml"),
    "zea.hdf5": (),
    "uff.uff": (),
    "must.mat": (),
    "must7.3.mat": (),
    "bare.npy": (*BARE, "--clock", "center"),
}


def brightest(name):
    with np.load(name) as arrays:
        bmode = arrays["bmode"]
        row, column = np.unravel_index(bmode.reshape(-1, *bmode.shape[-2:])[0].argmax(), bmode.shape[-2:])
        return arrays["x"][column], arrays["z"][row]


@pytest.mark.parametrize("name", FILES)
def test_a_recording_is_beamformed_by_one_command(run, name):
    code, out, err = run("beamform", name, *FILES[name], *SMALL, "-o", "a.png")
    assert code == 0, err
    assert "a.png: " in out
    assert "--frames N shows another one" in err
    assert "time 0: " in err
    with np.load("a.npz") as arrays:
        settings = json.loads(str(arrays["settings"]))
        # as wide as the array, as deep as was recorded: 320 samples
        assert np.ptp(arrays["x"]) == pytest.approx(31 * 0.3e-3 + 0.27e-3, rel=0.02)
        assert arrays["z"][-1] == pytest.approx(320 / RATE * 770, rel=0.15)
    assert (settings["dynamic_range_db"], settings["frames"]) == (60.0, [0])
    assert brightest("a.npz") == pytest.approx((0, 8e-3), abs=0.2e-3)
    assert run("beamform", name, *FILES[name], *SMALL, "--frames", "1", "--transmits", "1", "-o", "b.png")[0] == 0
    assert brightest("b.npz")[1] == pytest.approx(9e-3, abs=0.4e-3)


def test_the_picture_is_the_library_s(run):
    grid = ("--depth-mm", "5", "11", "--width-mm", "6", "--size", "24", "--engine", "cpu", "--dynamic-range-db", "50")
    assert run("beamform", "zea.hdf5", *grid, "-o", "a.png")[0] == 0
    rf = ussim.load_channel_data("zea.hdf5")
    pixels = ussim.ImageGrid(x=np.linspace(-3e-3, 3e-3, 24), z=np.linspace(5e-3, 11e-3, 24))
    expected = ussim.log_compress(ussim.envelope_image(rf, pixels), 50)
    with np.load("a.npz") as arrays:
        np.testing.assert_allclose(arrays["bmode"], expected, atol=1e-6)


def test_frames_are_a_movie(run, here):
    code, out, err = run("beamform", "zea.hdf5", *SMALL, "-o", "a.gif")
    assert code == 0, err
    assert "2 frames" in out
    with Image.open("a.gif") as movie:
        assert movie.n_frames == 2
        pages = []
        for i in range(2):
            movie.seek(i)
            pages.append(np.asarray(movie.convert("L"), dtype=float))
    assert np.abs(pages[0] - pages[1]).max() > 100
    with np.load("a.npz") as arrays:
        assert arrays["bmode"].shape[0] == 2
        assert arrays["bmode"].max() == 1
        places = [arrays["z"][np.unravel_index(b.argmax(), b.shape)[0]] for b in arrays["bmode"]]
    assert places == pytest.approx([8e-3, 9e-3], abs=0.2e-3)


def test_two_files_are_compared(run):
    code, out, err = run("beamform", "zea.hdf5", "--compare", "uff.uff", *SMALL, "--f-number", "0", "-o", "a.png")
    assert code == 0, err
    assert "zea.hdf5 and uff.uff: " in out
    with np.load("a.npz") as arrays:
        np.testing.assert_allclose(arrays["bmode"], arrays["other"], atol=1e-3)  # of 60 dB: float32 times
        assert json.loads(str(arrays["settings"]))["rms_difference_db"] < 0.05


def test_time_zero_is_checked(run):
    code, out, err = run("beamform", "uff.uff", *SMALL, "--check-time-zero", "-o", "a.png")
    assert code == 0, err
    assert "time zero: " in out
    assert "is another one than the file says" not in err
    code, out, err = run("beamform", "bare.npy", *BARE, *SMALL, "--check-time-zero", "-o", "b.png")
    assert code == 0
    assert "wavelengths" in out
    assert (
        "time zero is not that of the echoes" in err
    )  # the file's begins with the center, the option's with an element


def test_the_speed_of_sound_of_an_array_is_its_medium_s(run, wire):
    grid = ("--depth-mm", "5", "11", "--width-mm", "6", "--size", "24", "--engine", "cpu", "--dynamic-range-db", "50")
    code, _, err = run("beamform", "bare.npy", *FILES["bare.npy"], *grid, "--speed-of-sound", "1450", "-o", "a.png")
    assert code == 0, err
    waves = ussim.PlaneWaves(ANGLES, time_reference="center")
    acquisition = ussim.Acquisition(PROBE, waves, ussim.Medium(1450.0), sampling_frequency=RATE)
    pixels = ussim.ImageGrid(x=np.linspace(-3e-3, 3e-3, 24), z=np.linspace(5e-3, 11e-3, 24))
    expected = ussim.log_compress(ussim.envelope_image(ussim.RFData(wire[0], acquisition, RATE), pixels), 50)
    with np.load("a.npz") as arrays:
        np.testing.assert_allclose(arrays["bmode"], expected, atol=1e-5)


def test_facts_come_from_a_file_too(run, here):
    lines = ['probe = "probe.toml"', "sampling_mhz = 20.832", "angles_deg = [-16, 0, 16]"]
    (here / "facts.toml").write_text("\n".join(lines))
    assert run("beamform", "bare.npy", *BARE, *SMALL, "-o", "a.png")[0] == 0
    code, _, err = run("beamform", "bare.npy", "--facts", "facts.toml", *SMALL, "-o", "b.png")
    assert code == 0, err
    with np.load("a.npz") as one, np.load("b.npz") as other:
        np.testing.assert_array_equal(one["bmode"], other["bmode"])


@pytest.mark.parametrize("target", ["a.hdf5", "a.uff", "a.mat", "a.npz"])
@pytest.mark.parametrize("source", [name for name in FILES if name != "bare.npy"])
def test_every_format_converts(run, wire, source, target):
    frames = ("--frames", "1") if target == "a.npz" else ()
    code, out, err = run("convert", source, target, *FILES[source], *frames)
    if source.startswith("must") and target == "a.uff":  # its times are given by element: no plane wave is said
        assert (code, "save as .npz or .hdf5" in err) == (2, True)
        return
    if source not in ("must.mat", "must7.3.mat") and target == "a.mat" and code:
        assert "one start time for all transmits" in err  # zea counts each from its first element
        assert source == "zea.hdf5"
        return
    assert code == 0, err
    assert f"{target}: " in out
    file = ussim.open_channel_data(target)
    assert file.n_frames == (1 if frames else 2)
    np.testing.assert_array_equal(file.frame(file.n_frames - 1).samples, wire[1])
    grid = ussim.ImageGrid(x=np.linspace(-1e-3, 1e-3, 21), z=np.linspace(8e-3, 10e-3, 41))
    image = np.abs(ussim.delay_and_sum(ussim.demodulate(file.frame(file.n_frames - 1)), grid, f_number=1))
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert (grid.x[column], grid.z[row]) == pytest.approx((0, 9e-3), abs=0.15e-3)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("beamform", "zea.hdf5", "--frames", "2"), 2, "--frames: expected N, A:B or all, of the file's 0 to 1"),
        (("beamform", "zea.hdf5", "--frames", "x"), 2, "--frames: expected N, A:B or all"),
        (("beamform", "zea.hdf5", "--frames", "all", "-o", "a.png"), 2, "several frames are a movie: -o a.gif"),
        (
            ("beamform", "zea.hdf5", "--compare", "uff.uff", "-o", "a.gif"),
            2,
            "expected a picture to write, got a movie",
        ),
        (("beamform", "zea.hdf5", "-o", "zea.hdf5"), 2, "is the input"),
        (("beamform", "bare.npy"), 3, "say what they were acquired with, --probe NAME|FILE and --sampling-mhz MHZ"),
        (("beamform", "bare.npy", *BARE[:4]), 3, "the axes may be|expected axes of 32 elements"),
        (("beamform", "bare.npy", *BARE, "--axes", "samples,lines"), 2, "axes: expected elements, samples"),
        (("beamform", "bare.npy", "--angles-deg", "ten"), 2, "expected degrees as in -10,0,10"),
        (("beamform", "bare.npy", "--angles-deg", "-95,0"), 2, "expected degrees between -90 and 90"),
        (("beamform", "zea.hdf5", "--start-us", "-100"), 3, "another start time is said by --start-us"),
        (("beamform", "zea.hdf5", "--variable", "track_7"), 3, "variable: expected a track, track_0"),
        (("beamform", "zea.hdf5", "--facts", "none.toml"), 3, "none.toml"),
        (("convert", "zea.hdf5", "a.npz"), 2, ".npz holds one frame of the 2: --frames N"),
        (("convert", "zea.hdf5", "a.png"), 2, "expected a name ending in .npz, .hdf5"),
        (("convert", "zea.hdf5", "zea.hdf5"), 2, "is the input"),
        (("convert", "none.hdf5", "a.npz"), 3, "none.hdf5: no such file"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_code(run, here, arguments, code, words):
    import re

    before = sorted(here.iterdir())
    got, out, err = run(*arguments)
    assert (got, out) == (code, "")
    assert any(re.search(re.escape(part), err) for part in words.split("|")) or words in err, err
    assert len(err.strip().splitlines()) == 1, err
    assert sorted(here.iterdir()) == before


def test_a_disk_that_rotates(run, shared):
    recording = shared / "data" / "us_channel" / "pymust_PWI_disk.mat"
    code, out, err = run("beamform", recording, "-o", "disk.png")
    assert code == 0, err
    assert "38.1 mm wide, 7.36 to 44.4 mm deep" in out
    with np.load("disk.npz") as arrays:
        x, z = np.meshgrid(arrays["x"], arrays["z"])
        level = 60 * arrays["bmode"]
        disk, water = np.hypot(x + 1e-3, z - 22e-3) < 9e-3, np.hypot(x + 1e-3, z - 22e-3) > 13e-3
    assert np.median(level[disk]) > np.median(level[water]) + 12


def test_doppler_of_a_point_that_recedes(run):
    moving = ussim.MovingScatterers([0.0], [8e-3], [1.0], 0.0, 0.1)
    ussim.simulate_frames(moving, CENTERED, 4, 9000.0, "cpu").save("moving.mat")
    code, out, err = run("doppler", "moving.mat", *SMALL, "-o", "a.png")
    assert code == 0, err
    assert "4 frames at 3000 Hz" in out
    with np.load("a.npz") as arrays:
        brightest = np.unravel_index(arrays["power"].argmax(), arrays["power"].shape)
        assert arrays["velocity"][brightest] == pytest.approx(-0.1, rel=0.12)  # carrier, f/1 and 16 degrees: 9 % slow
    silent = ussim.MovingScatterers([0.0], [8e-3], [0.0], 0.0, 0.1)
    ussim.simulate_frames(silent, CENTERED, 4, 9000.0, "cpu").save("silent.mat")
    code, out, err = run("doppler", "silent.mat", *SMALL, "-o", "silent.png")
    assert (code, "nothing echoes" in out, "warning" in err) == (0, True, False), out + err
    code, _, err = run("doppler", "zea.hdf5", *SMALL)
    assert (code, "--frame-rate-hz" in err) == (2, True)
    assert run("doppler", "zea.hdf5", *SMALL, "--frame-rate-hz", "1000", "--wall-order", "0", "-o", "b.png")[0] == 0


# --- sectors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["P4-2v", "C5-2v"])
def test_a_sector_is_beamformed_to_radii_by_angles(run, name):
    """A point on a beam lies in that beam's column, at its distance from the apex; no pixel is left out."""
    probe = ussim.load_probe(name)
    acquisition = ussim.Acquisition(probe, ussim.imaging_waves(probe, n_transmits=3))
    polar = ussim.PolarGrid.for_acquisition(acquisition, (65, 3))
    radius, angle = polar.radius[32], 0.5 * polar.angle[-1]
    point = ussim.Scatterers([radius * np.sin(angle)], [polar.apex + radius * np.cos(angle)], [1.0])
    ussim.simulate(point, acquisition, "cpu").save("point.npz")
    code, out, err = run("beamform", "point.npz", "--polar", "--bare", "--size", "96", "--engine", "cpu", "-o", "a.png")
    assert code == 0, err
    assert "mm from the apex" in out
    assert "receive aperture" not in err
    with np.load("a.npz") as arrays:
        assert set(arrays) >= {"bmode", "radius", "angle", "apex"}
        bmode, steps = arrays["bmode"], [np.diff(arrays[axis]).mean() for axis in ("radius", "angle")]
        row, column = np.unravel_index(bmode.argmax(), bmode.shape)
        assert arrays["apex"] == polar.apex
        assert arrays["radius"][row] == pytest.approx(
            radius, abs=1.1 * steps[0]
        )  # a pulse that is cut by the band: a pixel
        assert arrays["angle"][column] == pytest.approx(angle, abs=0.51 * steps[1])
        np.testing.assert_allclose(arrays["angle"][[0, -1]], polar.angle[[0, -1]])
        assert steps[0] == pytest.approx(steps[1] * arrays["radius"].mean(), rel=0.02)  # square half way down
    from PIL import Image

    with Image.open("a_bare.png") as picture:
        assert picture.size == bmode.shape[::-1]
    assert run("beamform", "point.npz", "--polar", "--compare", "point.npz", "--size", "16", "-o", "b.png")[0] == 0
    face = 1e3 * (polar.apex + (0 if probe.is_flat else probe.radius))
    assert run("beamform", "point.npz", "--polar", "--depth-mm", face + 30, face + 60, "-o", "c.png")[0] == 0
    with np.load("c.npz") as arrays:  # depths on the middle beam
        np.testing.assert_allclose(arrays["apex"] + arrays["radius"][[0, -1]], [face / 1e3 + 30e-3, face / 1e3 + 60e-3])
    code, _, err = run("beamform", "point.npz", "--polar", "--width-mm", "20")
    assert (code, "as wide as the sector" in err) == (2, True)
    if not probe.is_flat:
        code, _, err = run("beamform", "point.npz", "--polar", "--depth-mm", "0", "1")
        assert (code, "whose face is at 10.1 mm, got 0 1" in err) == (2, True), err


def test_a_linear_array_has_no_sector(run):
    code, _, err = run("beamform", "zea.hdf5", "--polar")
    assert (code, "--polar: expected a convex or phased probe" in err) == (2, True)


# --- the aperture's elements -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("combine", ["cf", "gcf,order=1", "mv,kernel=0", "dmas", "slsc"])
def test_elements_are_combined_as_asked(run, combine):
    code, _, err = run("beamform", "zea.hdf5", *SMALL, "--combine", combine, "-o", "a.png")
    assert code == 0, err
    with np.load("a.npz") as arrays:
        assert json.loads(str(arrays["settings"]))["combine"] == combine
        assert arrays["bmode"].min() >= 0
        assert arrays["bmode"].max() == pytest.approx(1, abs=0.2 if combine == "slsc" else 0)
    x, z = brightest("a.npz")
    if combine != "slsc":  # which is as coherent beside a point as in it
        assert abs(x) < 0.3e-3
        assert z == pytest.approx(8e-3, abs=0.3e-3)


def test_a_window_makes_another_picture(run):
    pictures = []
    for window in ("boxcar", "hann"):
        assert run("beamform", "zea.hdf5", *SMALL, "--apodization", window, "-o", "a.png")[0] == 0
        with np.load("a.npz") as arrays:
            pictures.append(arrays["bmode"])
            assert json.loads(str(arrays["settings"]))["apodization"] == window
    assert np.abs(pictures[0] - pictures[1]).max() > 0.05


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--combine", "vm"], "--combine"),
        (["--combine", "mv,loading=0"], "loading: expected from"),
        (["--combine", "mv", "--apodization", "hann"], "--apodization: --combine mv weighs the elements itself"),
        (["--combine", "slsc", "--frames", "all", "-o", "a.gif"], "--combine slsc: a coherence has no decibels"),
        (["--combine", "slsc", "--compounding", "incoherent"], "--combine slsc: no magnitude to compound"),
    ],
)
def test_what_elements_cannot_be_asked_for_is_one_line(run, words, said):
    code, _, err = run("beamform", "zea.hdf5", *SMALL, *words)
    assert code == 2
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err
