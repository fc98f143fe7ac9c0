"""The `ussim` command line: files and summaries, one line and an exit code for what is wrong."""

import contextlib
import dataclasses
import errno
import glob
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import ussim
from ussim.commands import console
from ussim.commands.cli import cli
from ussim.io.plain import acquisition_to_dict

# A field so small that the literal engine takes a blink: these tests are about the commands, not about speed.
SMALL = ("--probe", "P4-2v", "--angles", "1", "--depth-mm", "30", "36", "--width-mm", "6", "--size", "24")
QUICK = (*SMALL, "--engine", "reference", "--mean-distance-wavelengths", "3")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder with a phantom in it."""
    monkeypatch.chdir(tmp_path)
    image = np.zeros((32, 32), np.float32)
    image[8:24, 8:24] = 1
    np.save("phantom.npy", image)
    return tmp_path


@pytest.fixture
def run(here, capsys):
    """run(*arguments): exit code, stdout, stderr of `ussim ...`."""

    def run(*arguments):
        code = console.run(cli, "ussim", [str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def files(folder):
    return sorted(os.listdir(folder))


# --- what the commands make ------------------------------------------------------------------------------------------


def test_render_writes_a_picture_and_its_numbers(run, here):
    code, out, err = run("render", "phantom.npy", *QUICK)
    assert code == 0
    assert files(here) == ["phantom.npy", "phantom_bmode.npz", "phantom_bmode.png"]
    with np.load("phantom_bmode.npz") as arrays:
        assert arrays["bmode"].shape == (24, 24)
        assert 0 <= arrays["bmode"].min() < arrays["bmode"].max() == 1
        np.testing.assert_allclose(arrays["z"][[0, -1]], [0.030, 0.036])
        np.testing.assert_allclose(arrays["x"][[0, -1]], [-0.003, 0.003])
        settings = json.loads(str(arrays["settings"]))
    assert settings["engine"] == "reference"
    assert settings["acquisition"]["probe"]["name"] == "P4-2v"
    assert f"{settings['n_scatterers']} scatterers, engine reference" in out
    assert "next:" in err


def test_numbers_and_echoes_go_to_matlab(run, here):
    """In place of a picture the numbers alone; Octave and MATLAB read both; the echoes come back in single precision."""
    from scipy.io import loadmat

    code, _, err = run("render", "phantom.npy", *QUICK, "-o", "b.mat", "--channel-data", "rf.mat")
    assert code == 0, err
    assert files(here) == ["b.mat", "phantom.npy", "rf.mat"]
    run("render", "phantom.npy", *QUICK, "-o", "b.png", "--channel-data", "rf.npz")
    found = loadmat("b.mat")
    with np.load("b.npz") as arrays:
        np.testing.assert_array_equal(found["bmode"], arrays["bmode"])
        for axis in ("x", "z"):
            np.testing.assert_array_equal(found[axis], arrays[axis][None])
        assert json.loads(str(found["settings"][0])) == json.loads(str(arrays["settings"]))
    one, other = (ussim.load_channel_data(name) for name in ("rf.mat", "rf.npz"))
    np.testing.assert_array_equal(one.samples, other.samples.astype(np.float32))
    assert run("beamform", "rf.mat", "-o", "again.mat")[0] == 0
    assert (
        loadmat("again.mat")["bmode"].shape == loadmat("again.mat")["z"].shape[1:] + loadmat("again.mat")["x"].shape[1:]
    )
    assert run("field", *QUICK[:2], "--size", "16", "-o", "field.mat")[0] == 0
    assert loadmat("field.mat")["pressure"].shape[0] == 16
    code, _, err = run("render", "phantom.npy", *QUICK, "-o", "same.mat", "--channel-data", "same.mat")
    assert code == 2
    assert not os.path.exists("same.mat")


@pytest.mark.parametrize("thickness", [None, 4e-3])
def test_render_is_the_library_in_one_line(run, thickness):
    slab = () if thickness is None else ("--thickness-mm", "4")
    run("render", "phantom.npy", *QUICK, "--seed", "5", "--attenuation", "0.5", *slab)
    probe = ussim.load_probe("P4-2v")
    acquisition = ussim.Acquisition(probe, ussim.imaging_waves(probe, n_transmits=1), ussim.Medium(1540, 0.5))
    grid = ussim.ImageGrid.for_acquisition(acquisition, (24, 24), (-0.003, 0.003), (0.030, 0.036))
    distance = 3 * 1540 / (2.72e6 * 1.37)
    options = {"mean_distance": distance, "thickness": thickness, "engine": "reference"}
    expected = ussim.bmode(np.load("phantom.npy"), acquisition, grid, 5, **options)
    with np.load("phantom_bmode.npz") as arrays:
        np.testing.assert_allclose(arrays["bmode"], expected, atol=1e-6)  # the last bit of float32 at 1
        assert json.loads(str(arrays["settings"]))["thickness_mm"] == (None if thickness is None else 4.0)


def test_display_and_scatterers_have_ranges_of_their_own(run):
    render = ("render", "phantom.npy", *QUICK, "--dynamic-range-db")
    assert run(*render, "60", "--scatterer-range-db", "20", "-o", "both.png")[0] == 0
    assert run(*render, "20", "-o", "narrow.png")[0] == 0
    with np.load("both.npz") as both, np.load("narrow.npz") as narrow:
        wide, low = both["bmode"], narrow["bmode"]
        assert json.loads(str(both["settings"]))["scatterer_range_db"] == 20
    # The same scatterers on two scales: b dB below the peak is 1 - b/60 and 1 - b/20.
    np.testing.assert_allclose(np.clip(60 * (wide - 1), -20, 0), 20 * (low - 1), atol=1e-4)


def test_medium_demodulation_and_elements_reach_the_picture(run):
    options = (
        "--speed-of-sound", "1480", "--attenuation", "0.7", "--tgc", "--carrier-mhz", "2.5", "--bandwidth-percent", "120",
        "--sub-elements", "3",
    )  # fmt: skip
    code, _, err = run("render", "phantom.npy", *QUICK, *options, "--channel-data", "echoes.npz")
    assert code == 0, err
    probe = ussim.load_probe("P4-2v")
    waves, medium = ussim.imaging_waves(probe, n_transmits=1), ussim.Medium(1480, 0.7)
    acquisition = ussim.Acquisition(probe, waves, medium, n_subelements=3)
    grid = ussim.ImageGrid.for_acquisition(acquisition, (24, 24), (-0.003, 0.003), (0.030, 0.036))
    expected = ussim.bmode(
        np.load("phantom.npy"), acquisition, grid, mean_distance=3 * 1480 / (2.72e6 * 1.37), frequency=2.5e6, bandwidth=1.2,
        tgc=True, engine="reference",
    )  # fmt: skip
    grid_options = ("--depth-mm", "30", "36", "--width-mm", "6", "--size", "24", "--engine", "reference")
    demodulation = ("--tgc", "--carrier-mhz", "2.5", "--bandwidth-percent", "120")
    assert run("beamform", "echoes.npz", *grid_options, *demodulation)[0] == 0
    for name in ("phantom_bmode.npz", "echoes_bmode.npz"):
        with np.load(name) as arrays:
            np.testing.assert_allclose(arrays["bmode"], expected, atol=1e-5)  # float32
    assert run("beamform", "echoes.npz", *grid_options, "--speed-of-sound", "1500", "-o", "other.png")[0] == 0
    with np.load("other.npz") as arrays:
        assert not np.allclose(arrays["bmode"], expected, atol=0.05)


def test_a_real_scanner_reaches_the_picture_and_its_record(run):
    options = (
        "--snr-db", "20", "--noise-bandwidth-percent", "120", "--tgc-curve-db", "0,3,9", "--jitter-ns", "1", "--bits", "10",
        "--headroom-db", "3", "--gain-spread-db", "2", "--dead-percent", "5", "--backscatter-exponent", "2",
        "--aberration-ns", "50", "--aberration-length-mm", "3", "--speed-error-percent", "2", "--hardware-seed", "7",
    )  # fmt: skip
    code, out, err = run("render", "phantom.npy", *QUICK, *options, "--channel-data", "echoes.npz")
    assert code == 0, err
    assert "aberration of 50 ns RMS over 3 mm, gains ±2 dB, 3 of 64 elements dead, noise 20 dB below the echoes" in out
    assert "1 diverging wave" in out  # as the scanner sees it, not its firing times
    assert "steered and beamformed for 1571 m/s" in out
    saved = ussim.load_channel_data("echoes.npz")
    probe = ussim.load_probe("P4-2v")
    waves, medium = ussim.imaging_waves(probe, n_transmits=1), ussim.Medium(backscatter_exponent=2.0)
    grid = ussim.ImageGrid.for_acquisition(ussim.Acquisition(probe, waves), (24, 24), (-0.003, 0.003), (0.030, 0.036))
    curve = ussim.TimeGain(np.linspace(0, 0.036, 3), [0.0, 3.0, 9.0])
    acquisition = ussim.Acquisition(
        probe, waves, medium,
        aberration=ussim.PhaseScreen(50e-9, 3e-3, 7),
        element_errors=ussim.ElementErrors(2.0, dead_fraction=0.05, seed=7),
        receive_chain=ussim.ReceiveChain(20.0, 1.2, curve, jitter=1e-9, n_bits=10, headroom_db=3.0, seed=7),
    )  # fmt: skip
    fired = ussim.with_steering_speed(acquisition, 1540 * 1.02)
    scatterers = ussim.scatterers_from_image(np.load("phantom.npy"), grid, acquisition, 0, 3 * 1540 / (2.72e6 * 1.37))
    expected = ussim.simulate(scatterers, fired, "reference")
    np.testing.assert_allclose(saved.samples, expected.samples, rtol=1e-12)
    assert acquisition_to_dict(saved.acquisition) == acquisition_to_dict(fired)
    seen = dataclasses.replace(acquisition, medium=ussim.Medium(1540 * 1.02, backscatter_exponent=2.0))
    iq = ussim.demodulate(dataclasses.replace(expected, acquisition=seen))
    envelope = ussim.envelope_image(iq, grid, engine="reference")
    with np.load("phantom_bmode.npz") as arrays:
        np.testing.assert_allclose(arrays["bmode"], ussim.log_compress(envelope, 40.0), atol=1e-5)  # float32
        settings = json.loads(str(arrays["settings"]))
    assert settings["beamforming_speed_of_sound"] == 1540 * 1.02
    assert settings["acquisition"]["receive_chain"]["n_bits"] == 10


def test_noise_as_strong_as_the_echoes_is_noise(run):
    code, out, err = run("render", "phantom.npy", *QUICK, "--snr-db", "0", "--noise-bandwidth-percent", "200")
    assert code == 0, err
    assert "noise 0 dB below the echoes" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--headroom-db", "3"), "--headroom-db goes with --bits"),
        (("--noise-bandwidth-percent", "80"), "--noise-bandwidth-percent goes with --snr-db"),
        (("--aberration-length-mm", "3"), "--aberration-length-mm goes with --aberration-ns"),
        (("--tgc-curve-db", "3,x"), "--tgc-curve-db: expected decibels, as in 0,6,12; got '3,x'"),
        (("--tgc-curve-db", "0,999"), "--tgc-curve-db: expected decibels"),
        (("--jitter-ns", "100"), "--jitter-ns: expected at most 0.02 periods of the center frequency"),
        (("--tgc-curve-db", ""), "--tgc-curve-db: expected decibels"),
        (("--aberration-ns", "2e6"), "'--aberration-ns': expected a number at least 0 and at most 1e+06"),
        (("--aberration-ns", "0", "--aberration-length-mm", "3"), "--aberration-length-mm goes with --aberration-ns"),
        (("--dead-percent", "99.9"), "--dead-percent: expected an element that is alive"),
    ],
)
def test_a_scanner_that_cannot_be(run, options, words):
    code, _, err = run("render", "phantom.npy", *QUICK, *options)
    assert code == 2
    assert words in err.splitlines()[-1]


def test_a_focused_scan(run):
    options = ("--transmit", "focused", "--focus-depth-mm", "33", "--lines", "5", "--transmit-f-number", "3")
    code, _, err = run("render", "phantom.npy", *QUICK, *options, "--channel-data", "echoes.npz")
    assert code == 0, err
    waves = ussim.load_channel_data("echoes.npz").acquisition.waves
    assert isinstance(waves, ussim.FocusedWaves)
    assert waves.apodization.shape == (5, 64)
    np.testing.assert_allclose(np.hypot(waves.x, waves.z), 0.033)


def test_channel_data_beamform_to_the_same_picture(run):
    assert run("render", "phantom.npy", *QUICK, "--angles", "3", "--channel-data", "echoes.npz")[0] == 0
    grid = ("--depth-mm", "30", "36", "--width-mm", "6", "--size", "24", "--engine", "reference")
    assert run("beamform", "echoes.npz", *grid)[0] == 0
    with np.load("phantom_bmode.npz") as one, np.load("echoes_bmode.npz") as other:
        np.testing.assert_allclose(one["bmode"], other["bmode"], atol=1e-6)
    code, out, _ = run("beamform", "echoes.npz", *grid, "--transmits", "1", "-o", "middle.png")
    assert code == 0
    assert "1 diverging wave, 0°" in out
    assert run("beamform", "echoes.npz", *grid, "--compounding", "incoherent", "-o", "powers.png")[0] == 0
    with np.load("powers.npz") as arrays, np.load("middle.npz") as middle:
        assert not np.allclose(arrays["bmode"], middle["bmode"])


def test_focused_transmits_count_where_they_are_told(run):
    probe = ussim.load_probe("P4-2v")
    acquisition = ussim.Acquisition(probe, ussim.FocusedWaves(x=[-3e-3, 0.0, 3e-3], z=[34e-3] * 3))
    data = ussim.simulate(ussim.Scatterers([0.0, 2e-3], [31e-3, 36e-3], [1.0, 1.0]), acquisition, "cpu")
    data.save("focused.npz")
    grid = ("--depth-mm", "30", "38", "--width-mm", "8", "--size", "24", "--engine", "cpu")
    pictures = {}
    for weights in ("beam", "line", "none"):
        assert run("beamform", "focused.npz", *grid, "--transmit-weights", weights, "-o", f"{weights}.png")[0] == 0
        with np.load(f"{weights}.npz") as arrays:
            assert json.loads(str(arrays["settings"]))["transmit_weights"] == weights
            image = ussim.envelope_image(
                ussim.demodulate(data),
                ussim.ImageGrid(x=arrays["x"], z=arrays["z"]),
                transmit_weights=None if weights == "none" else weights,
                engine="cpu",
            )
            pictures[weights] = arrays["bmode"]
            np.testing.assert_allclose(arrays["bmode"], ussim.log_compress(image), atol=1e-6)
    assert not np.allclose(pictures["beam"], pictures["none"])
    assert not np.allclose(pictures["beam"], pictures["line"])
    assert run("beamform", "focused.npz", *grid)[0] == 0
    with np.load("focused_bmode.npz") as arrays:
        np.testing.assert_array_equal(arrays["bmode"], pictures["beam"])


def test_scan_lines_of_plane_waves_are_refused(run):
    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves([0.0]))
    ussim.simulate(ussim.Scatterers([0.0], [31e-3], [1.0]), acquisition, "cpu").save("plane.npz")
    code, out, err = run("beamform", "plane.npz", "--transmit-weights", "line")
    assert code != 0
    assert not out
    assert '"line" needs two scan lines at least' in err
    assert "Traceback" not in err
    assert not glob.glob("plane_bmode.*")


def test_field_draws_where_it_is_loudest(run):
    grid = ("--depth-mm", "20", "40", "--width-mm", "20", "--size", "21", "--engine", "reference")
    code, out, _ = run("field", "--probe", "P4-2v", "--focus-mm", "5", "28", *grid)
    assert code == 0
    with np.load("P4-2v_field.npz") as arrays:
        row, column = np.unravel_index(arrays["pressure"].argmax(), arrays["pressure"].shape)
        assert abs(arrays["x"][column] - 5e-3) <= 1e-3  # a pixel
        assert 20e-3 <= arrays["z"][row] <= 30e-3  # the loudest point of a focused wave lies at the focus or before it
    assert "focus at (5, 28) mm; highest at x = 5.0" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--plane-deg", "-10"), "plane wave at -10°"),
        (("--diverging-deg", "5", "60"), "diverging wave, tilt 5°, width 60°"),
        (("--source-mm", "2", "-20"), "diverging wave from (2, -20) mm"),
        (("--focus-mm", "-5", "30", "--focus-mm", "5", "30"), "focus at (-5, 30) mm and (5, 30) mm"),
        ((), "P4-2v, diverging wave"),
    ],
)
def test_field_of_each_kind_of_transmit(run, options, words):
    code, out, _ = run("field", "--probe", "P4-2v", *options, "--size", "8", "--engine", "reference", "-o", "f.png")
    assert code == 0
    assert words in out


def test_probes_lists_describes_and_draws(run, here):
    code, out, _ = run("probes")
    assert code == 0
    assert all(name in out for name in ussim.probe_names())
    code, out, _ = run("probes", "la530", "-o", "la530.png")
    assert code == 0
    assert "0.245 mm" in out
    assert "la530.png" in files(here)
    code, out, _ = run("probes", "C5-2v", "--json")
    assert json.loads(out)["radius"] == 49.57e-3
    code, out, _ = run("probes", "--json")
    assert len(json.loads(out)) == len(ussim.probe_names())


@pytest.mark.parametrize("command", [(), ("render",), ("beamform",), ("field",), ("probes",), ("doctor",)])
def test_help_imports_nothing_heavy(command):
    code = (
        "import sys\nfrom ussim.commands import cli, console\n"
        f"assert console.run(cli.cli, 'ussim', [*{command!r}, '--help']) == 0\n"
        "heavy = {'numpy', 'scipy', 'numba', 'matplotlib', 'rich', 'torch', 'dask', 'zarr', 'cupy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: ussim" in done.stdout


# --- what goes wrong -------------------------------------------------------------------------------------------------


def one_line(err):
    """The error: the last line on stderr, after progress; nothing may look like a traceback."""
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("render", "absent.npy"), 3, "absent.npy: no such file"),
        (("render", "text.npy"), 3, "text.npy"),
        (("render", "nan.npy"), 3, "NaN"),
        (("render", "stack.npy"), 3, "expected one image"),
        (("render", "phantom.npy", "--probe", "L11-5"), 2, "Did you mean L11-5v"),
        (("render", "phantom.npy", "--probe", "bad.toml"), 3, "bad.toml: pich: unknown key"),
        (("render", "phantom.npy", "--depth-mm", "-5", "40"), 2, "expected a number at least 0, got -5"),
        (("render", "phantom.npy", "--depth-mm", "40", "5"), 2, "expected LOW below HIGH, got 40 5"),
        (("render", "phantom.npy", "--depth-mm", "5", "nan"), 2, "got nan"),
        (("render", "phantom.npy", "--depth-mm", "5", "deep"), 2, "got deep"),
        (("render", "phantom.npy", "--max-angle-deg", "95"), 2, "below 90, got 95"),
        (("render", "phantom.npy", "--probe", "P4-2v", "--max-angle-deg", "80"), 2, "within ±π/2"),
        (("render", "phantom.npy", "--angles", "0"), 2, "x>=1"),
        (("render", "phantom.npy", "--transmit", "focused"), 2, "expected --focus-depth-mm"),
        (("render", "phantom.npy", "--focus-depth-mm", "20"), 2, "go with --transmit focused"),
        (("render", "phantom.npy", "--transmit-f-number", "2"), 2, "go with --transmit focused"),
        (("render", "phantom.npy", "--bandwidth-percent", "210"), 2, "at most 200, got 210"),
        (("render", "phantom.npy", "--speed-of-sound", "0"), 2, "above 0, got 0"),
        (("render", "phantom.npy", "--scatterer-range-db", "-3"), 2, "above 0, got -3"),
        (("render", "phantom.npy", "--attenuation", "-1"), 2, "at least 0, got -1"),
        (("render", "phantom.npy", "--dynamic-range-db", "0"), 2, "above 0, got 0"),
        (("render", "phantom.npy", "--mean-distance-wavelengths", "0"), 2, "above 0"),
        (("render", "phantom.npy", "--thickness-mm", "0"), 2, "above 0"),
        (("render", "phantom.npy", "--thickness-mm", "1e6"), 2, "away"),
        (("render", "phantom.npy", "--engine", "gpu"), 2, "expected one of auto, cpu"),
        (("render", "phantom.npy", "--engine", "cuda:x"), 2, "expected one of auto, cpu"),
        (("render", "phantom.npy", "--width-mm", "1e6"), 2, "at most 16 times the depth"),
        (("render", "phantom.npy", "-o", "absent/out.png"), 3, "absent is not a folder"),
        (("render", "phantom.npy", "-o", "phantom.npy/out.png"), 3, "is not a folder"),
        (("render", "phantom.npy", "-o", "out.gif"), 2, "ending in .png"),
        (("render", "phantom.npy", "-o", "."), 2, "got a folder"),
        (("render", "phantom.png", "-o", "phantom.png"), 2, "is the input"),
        (("render", "phantom.npy", "--slice", "3"), 3, "slice 3 asked for"),
        (("render", "phantom.npy", "--sed", "1"), 2, "--seed"),
        (("render",), 2, "expected an IMAGE or --phantom NAME, got neither"),
        (("rendr",), 2, "rendr"),
        (("beamform", "absent.npz"), 3, "absent.npz: no such file or directory"),
        (("beamform", "phantom.npy"), 3, "holds arrays alone"),
        (("field", "--plane-deg", "95"), 2, "below 90"),
        (("field", "--plane-deg", "5", "--focus-mm", "0", "30"), 2, "got several"),
        (("field", "--focus-mm", "0", "-30"), 2, "foci in front"),
        (("field", "--probe", "C5-2v", "--diverging-deg", "0", "60"), 2, "C5-2v is convex. Give virtual sources"),
        (("probes", "C52v"), 2, "unknown probe 'C52v'. Did you mean C5-2v"),
        (("probes", "-o", "x.png"), 2, "give its NAME"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_code(run, here, arguments, code, words):
    (here / "text.npy").write_text("not an array")
    (here / "phantom.png").write_bytes(b"\x89PNG")
    (here / "bad.toml").write_text('name = "bad"\npich = 1\n')
    np.save("nan.npy", np.full((8, 8), np.nan))
    np.save("stack.npy", np.zeros((3, 8, 8), np.float32))
    before = files(here)
    got, out, err = run(*arguments)
    assert (got, out) == (code, "")
    assert words in one_line(err)
    assert len(err.strip().splitlines()) == 1
    assert files(here) == before


@pytest.mark.parametrize(
    ("arguments", "name", "why"),
    [
        (("render", "phantom.npy", "-o", "echoes.png", "--channel-data", "echoes.npz"), "echoes.npz", "written twice"),
        (
            ("render", "phantom.npy", "-o", "echoes.png", "--channel-data", "./echoes.png"),
            "echoes.png",
            "written twice",
        ),
        (
            ("render", "phantom.npy", "-o", "echoes.png", "--channel-data", "link/echoes.npz"),
            "echoes.npz",
            "written twice",
        ),
        (("render", "phantom.npy", "-o", "echoes.png", "--channel-data", "Echoes.NPZ"), "Echoes.NPZ", "written twice"),
        (("render", "phantom.npy", "--channel-data", "phantom_bmode.npz"), "phantom_bmode.npz", "written twice"),
        (("render", "phantom.npy", "--channel-data", "phantom.npy"), "phantom.npy", "is the input"),
        (("render", "phantom.npy", "--channel-data", "hard.npy"), "hard.npy", "is the input"),
        (("render", "phantom.npy", "--probe", "own.toml", "--channel-data", "own.toml"), "own.toml", "is the input"),
        (("render", "numbers.npz", "-o", "numbers.png"), "numbers.npz", "is the input"),
        (("beamform", "numbers.npz", "-o", "numbers.svg"), "numbers.npz", "is the input"),
        (("beamform", "link/numbers.npz", "-o", "numbers.svg"), "numbers.npz", "is the input"),
        (("field", "--probe", "own.toml", "-o", "own.toml"), "own.toml", "is the input"),
        (("probes", "own.toml", "-o", "own.toml"), "own.toml", "is the input"),
    ],
)
def test_no_output_overwrites_another_or_an_input(run, here, arguments, name, why):
    rf = ussim.simulate(
        ussim.Scatterers([0.0], [0.03], [1.0]), ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves([0.0])),
        "reference", n_samples=8,
    )  # fmt: skip
    rf.save("numbers.npz")
    shutil.copy(ussim.load_probe("P4-2v").path, "own.toml")
    os.link("phantom.npy", "hard.npy")
    os.symlink(".", "link")
    before = {path: path.read_bytes() for path in here.iterdir() if path.is_file()}
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert name in err
    assert why in err
    assert {path: path.read_bytes() for path in here.iterdir() if path.is_file()} == before


def test_verbose_shows_the_traceback(run):
    code, _, err = run("render", "absent.npy", "-v")
    assert code == 3
    assert "Traceback" in err
    assert "absent.npy: no such file" in err.strip().splitlines()[-1]


def test_no_command_shows_the_help(run):
    code, _, err = run()
    assert code == 2
    assert "Commands:" in err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MemoryError(), 6, "out of memory"),
        (ussim.EngineError('engine "cuda" needs a device'), 6, 'engine "cuda" needs a device'),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device"), 3, "no space left on device"),
        (ZeroDivisionError("division by zero"), 1, "this is a defect"),
        (ValueError("x: expected one,\n got two"), 2, "x: expected one, got two"),
    ],
)
def test_each_failure_has_its_exit_code(run, here, monkeypatch, error, code, words):
    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr(ussim, "simulate", fail)
    got, out, err = run("render", "phantom.npy", *QUICK)
    assert (got, out) == (code, "")
    assert words in one_line(err)
    assert files(here) == ["phantom.npy"]


@contextlib.contextmanager
def files_of_at_most(n_bytes):
    """No file may grow beyond this: what a full disk does to a writer, without a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [100, 8000])  # too little for the numbers; enough for them and not for the picture
def test_a_full_disk_leaves_nothing_half_written(run, here, room):
    with files_of_at_most(room):
        code, out, err = run("render", "phantom.npy", *QUICK)
    assert (code, out) == (3, "")
    assert "phantom_bmode" in one_line(err)
    assert "too large" in one_line(err)
    assert files(here) == ["phantom.npy"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_small_disk(run, here):
    disk = here / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        code, out, err = run("render", "phantom.npy", *QUICK, "-o", disk / "out.png")
        assert (code, out) == (3, "")
        assert "no space left on device" in one_line(err)
        assert files(disk) == []
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    "command",
    [
        ("render", "phantom.npy", "--engine", "reference"),
        ("field", "--probe", "L11-5v", "--size", "4000", "--engine", "cpu"),
    ],
)
def test_ctrl_c(here, command):
    """The real signal to a real process, in the middle of work that would take minutes."""
    hear = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{hear}; from ussim.commands.cli import main; main()"
    arguments = [sys.executable, "-c", program, *command]
    with subprocess.Popen(arguments, cwd=here, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline().startswith(("simulating", "computing"))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert out == ""
    assert one_line(err) == "ussim: interrupted; nothing half-written is left"
    assert files(here) == ["phantom.npy"]


# --- progress --------------------------------------------------------------------------------------------------------


def test_progress_in_plain_lines_says_what_is_left(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.Progress("pairs", total=40, done=10) as progress:
        for _ in range(30):
            now[0] += 4.0
            progress.advance(note="loss 0.1")
    lines = undated(capsys.readouterr().err)
    assert lines[0] == "pairs: 13/40 (32 %), 1 min 48 s left, loss 0.1"  # 27 more at 4 s; the 10 of before do not count
    assert lines[-1] == "pairs: 40/40 (100 %), 2 min 00 s"
    assert len(lines) == len(set(lines)) == 10


def undated(text):
    """Lines without the time of day that each begins with."""
    lines = text.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d \S", line) for line in lines)
    return [line[9:] for line in lines]


def test_a_night_in_plain_lines_is_short(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.Progress("training", total=36000) as progress:
        for _ in range(36000):  # ten hours
            now[0] += 1.0
            progress.advance()
    lines = undated(capsys.readouterr().err)
    assert 60 < len(lines) < 130
    assert [line for line in lines if "36000/36000" in line] == lines[-1:]


def test_a_share_in_plain_lines(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.tracking("simulating") as report:
        for done in range(41):
            report(done, 40)
            now[0] += 4.0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "simulating"
    assert undated("\n".join(lines[1:]))[0] == "simulating: 8 %, 2 min 28 s left"  # 3 of 40 after 12 s
    assert len(lines) == 13


def test_progress_of_unknown_length(capsys):
    with console.Progress("shards", total=0) as progress:
        progress.advance()
    assert undated(capsys.readouterr().err)[0].startswith("shards: 1, 0.0 s")


def test_progress_on_a_terminal_is_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with console.Progress("pairs", total=2) as progress:
        progress.advance(2)
    with console.working("simulating", expected=90):
        pass
    with console.tracking("beamforming") as report:
        report(1, 4)
        time.sleep(0.2)  # the bar is drawn ten times a second
    text = capsys.readouterr().err
    assert "beamforming" in text
    assert "25 %" in text
    assert "2/2" in text
    assert "simulating (about 1 min 30 s)" in text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.6, "1 min 00 s"), (130, "2 min 10 s"), (11100, "3 h 05 min")],
)
def test_durations(seconds, words):
    assert console.duration(seconds) == words


# --- doctor ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick_doctor(monkeypatch):
    """The examination without its simulation, which compiles the cpu engine."""
    from ussim.commands import doctor

    monkeypatch.setattr(doctor, "_engines_agree", lambda: iter([doctor.Finding("engine cpu", doctor.OK, "1e-5")]))
    return doctor


def test_doctor_reports_a_healthy_machine(run, quick_doctor):
    code, out, err = run("doctor")
    assert code == 0, out
    assert "healthy" in err
    for subject in (
        "Python",
        "numpy",
        "processor",
        "kernel threads",
        "kernels",
        "memory",
        "CUDA",
        "demo data",
        "DICOM",
        "probe presets",
    ):
        assert subject in out
    code, out, _ = run("doctor", "--json")
    assert {finding["state"] for finding in json.loads(out)} <= {"ok", "note"}


def test_doctor_finds_the_demo_data_without_pytest(monkeypatch, quick_doctor):
    for name in [name for name in sys.modules if name.startswith("nibabel.testing")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pytest", None)  # `nibabel.testing` imports it
    assert quick_doctor._nibabel_example("example4d.nii.gz")
    assert quick_doctor._nibabel_example("no such file") is None


def test_doctor_is_not_healthy_where_the_engines_differ(run, quick_doctor, monkeypatch):
    failed = quick_doctor.Finding("engine cpu", quick_doctor.FAIL, "0.5 from the reference")
    monkeypatch.setattr(quick_doctor, "_engines_agree", lambda: iter([failed]))
    code, out, err = run("doctor")
    assert code == 6
    assert "FAIL  engine cpu" in out
    assert "not healthy" in err


@pytest.mark.slow
def test_doctor_compares_the_engines(run):
    code, out, _ = run("doctor")
    assert code == 0, out
    assert "from the reference" in out
