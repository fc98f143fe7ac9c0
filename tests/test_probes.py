"""Probe presets: MUST's numbers, geometry, and files of one's own."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ussim
from ussim import physics
from ussim.beamforming.apertures import directivity_f_number
from ussim.probes import name_after, presets_folder

# getparam of PyMUST 0.1.9: center frequency, bandwidth, elements, pitch, kerf, height, elevation focus, radius.
# None: MUST says nothing. LA530 has no bandwidth there; MUST's default for a probe without one is 75 %.
MUST = {
    "L11-5v": (7.6e6, 0.77, 128, 0.300e-3, 0.030e-3, 5e-3, 18e-3, math.inf),
    "L12-3v": (7.54e6, 0.93, 192, 0.200e-3, 0.030e-3, 5e-3, 20e-3, math.inf),
    "C5-2v": (3.57e6, 0.79, 128, 0.508e-3, 0.048e-3, 13.5e-3, 60e-3, 49.57e-3),
    "P4-2v": (2.72e6, 0.74, 64, 0.300e-3, 0.050e-3, 14e-3, 60e-3, math.inf),
    "PA4-2/20": (2.5e6, 0.60, 64, 0.300e-3, 0.050e-3, 14e-3, None, None),
    "L9-4/38": (5e6, 0.65, 128, 0.3048e-3, 0.035e-3, 6e-3, None, None),
    "LA530": (3e6, None, 192, 0.245e-3, 0.030e-3, None, None, None),
    "L14-5/38": (7.2e6, 0.70, 128, 0.3048e-3, 0.025e-3, None, None, None),
    "L14-5W/60": (7.5e6, 0.65, 128, 0.472e-3, 0.025e-3, None, None, None),
    "P6-3": (4.5e6, 2 / 3, 64, 0.218e-3, 0.025e-3, None, None, None),
}
FILE = """
name = "mine"
center_frequency = 5e6
bandwidth = 0.6
n_elements = 64
pitch = 0.3e-3
element_width = 0.25e-3
[imaging]
x_mm = [-10, 10]
z_mm = [5, 40]
"""


def check_numbers(name, numbers):
    frequency, bandwidth, n_elements, pitch, kerf, height, focus, radius = numbers
    probe = ussim.load_probe(name)
    # 1e-12: the kerf is a difference of decimal fractions, everything else is the same decimal number.
    expected = [
        (probe.center_frequency, frequency),
        (probe.bandwidth, 0.75 if bandwidth is None else bandwidth),
        (probe.n_elements, n_elements),
        (probe.pitch, pitch),
        (probe.kerf, kerf),
        (probe.element_height, math.inf if height is None else height),
        (probe.elevation_focus, math.inf if focus is None else focus),
        (probe.radius, math.inf if radius is None else radius),
    ]
    for value, number in expected:
        assert value == pytest.approx(number, rel=1e-12)


@pytest.mark.parametrize("name", MUST)
def test_preset_has_the_numbers_of_must(name):
    check_numbers(name, MUST[name])


@pytest.mark.peer
@pytest.mark.parametrize("name", MUST)
def test_preset_equals_pymust(name):
    pymust = pytest.importorskip("pymust")
    given = dict(pymust.getparam(name))
    keys = ("fc", "bandwidth", "Nelements", "pitch", "kerf", "height", "focus", "radius")
    numbers = [given.get(key) for key in keys]
    numbers[1] = None if numbers[1] is None else numbers[1] / 100
    check_numbers(name, numbers)


def test_picmus_probe():
    probe = ussim.load_probe("L11-4v")
    assert (probe.n_elements, probe.pitch, probe.center_frequency, probe.bandwidth) == (128, 0.30e-3, 5.208e6, 0.67)


def test_the_presets_are_must_and_picmus():
    assert set(ussim.probe_names()) == {*MUST, "L11-4v"}


def test_element_positions_equal_must(golden, probe):
    arrays = golden(f"txdelay_{probe.name}")
    # 1e-15 m: the last bit of a float64 sum at the scale of the arc's radius.
    np.testing.assert_allclose(probe.element_x, arrays["elem_x"].ravel(), rtol=0, atol=1e-15)
    np.testing.assert_allclose(probe.element_z, arrays["elem_z"].ravel(), rtol=0, atol=1e-15)


def test_what_lies_behind_has_the_shape_that_the_positions_broadcast_to(any_probe):
    """A row of lateral positions and a column of depths make a grid, whether the array is flat or convex."""
    x, z = np.linspace(-0.01, 0.01, 5), np.linspace(-0.02, 0.02, 4)
    behind = any_probe.is_behind(x[None, :], z[:, None])
    assert behind.shape == (4, 5)
    np.testing.assert_array_equal(behind, any_probe.is_behind(*np.meshgrid(x, z)))
    assert behind[0].all()  # both depths above z = 0 lie behind every array
    assert any_probe.is_behind(np.float64(0.0), np.float64(-0.001))


def test_every_preset_names_its_source_and_images_in_front_of_itself(any_probe):
    assert any_probe.source
    imaging = any_probe.imaging
    x, z = np.meshgrid(np.linspace(*imaging.x, 20), np.linspace(*imaging.z, 20))
    assert not any_probe.is_behind(x, z).any()
    width, depth = imaging.x[1] - imaging.x[0], imaging.z[1] - imaging.z[0]
    assert width == pytest.approx(depth)  # a square, whatever the probe
    assert ussim.imaging_waves(any_probe).delays(any_probe, ussim.Medium()).shape == (15, any_probe.n_elements)


LINEAR = ("L11-4v", "L11-5v", "L12-3v", "L14-5/38", "L14-5W/60", "L9-4/38", "LA530")


def test_linear_presets_are_these():
    probes = map(ussim.load_probe, ussim.probe_names())
    assert sorted(p.name for p in probes if p.imaging.transmit == "plane" and p.is_flat) == sorted(LINEAR)


@pytest.mark.parametrize("name", LINEAR)
def test_linear_presets_image_as_wide_as_their_aperture(name):
    probe = ussim.load_probe(name)
    aperture = probe.element_x[-1] - probe.element_x[0] + probe.element_width
    assert probe.imaging.x[1] - probe.imaging.x[0] == pytest.approx(aperture, rel=0.03)  # whole mm a side


def two_way_coverage_db(probe):
    """Level of pixels of the default field in dB of the strongest.

    The sum over the default transmits of the RMS pressure there, times the sum over the elements that see it (from their
    directivity) of their sensitivity: obliquity, directivity and 1/sqrt(r) of the model.
    """
    acquisition = ussim.Acquisition(probe, ussim.imaging_waves(probe))
    right_half = 0.0, probe.imaging.x[1]  # the other is its mirror image
    grid = ussim.ImageGrid.for_acquisition(acquisition, (7, 5), x=right_half)
    # -20 dB of the spectrum is enough for a level; -60 dB would take five times as long for 0.1 dB.
    transmitted = ussim.pressure_field(acquisition, grid, threshold_db=-20.0, engine="reference").sum(axis=0)
    x, z = (axis[..., None] for axis in grid.mesh())
    dx, dz = x - probe.element_x, z - probe.element_z
    sine, cosine = physics.incidence(dx, dz, np.sin(probe.element_angle), np.cos(probe.element_angle))
    half_width = physics.wavenumber(probe.center_frequency, 1540.0) * probe.element_width / 2
    sensitivity = physics.obliquity(cosine, 0.0) * np.abs(physics.directivity(sine, half_width))
    seen = cosine >= np.cos(np.arctan(1 / (2 * directivity_f_number(probe, 1540.0))))
    received = (seen * sensitivity / np.sqrt(np.hypot(dx, dz))).sum(axis=-1)
    two_way = transmitted * received
    return 20 * np.log10(two_way / two_way.max())


def test_the_default_field_is_covered(any_probe):
    """No pixel more than 20 dB below the strongest; the presets' files give the level of the weakest."""
    weakest = two_way_coverage_db(any_probe).min()
    assert weakest > -20
    text = presets_folder().joinpath(any_probe.path.rpartition("/")[2]).read_text()
    written = float(text.partition("weakest pixel is ")[2].partition(" dB")[0])
    assert weakest == pytest.approx(written, abs=1.0)  # written in whole dB, from a finer grid


@pytest.mark.parametrize("name", ["l11-5v", "L11-5V", "L11-5v"])
def test_a_name_may_be_in_any_case(name):
    assert ussim.load_probe(name).name == "L11-5v"


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(FILE)
    probe = ussim.load_probe(path)
    assert (probe.name, probe.n_elements, probe.imaging.z) == ("mine", 64, (0.005, 0.04))
    assert ussim.load_probe(str(path)) == probe


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("pitch = 0.3e-3", "pich = 0.3e-3", "pich: unknown key; did you mean pitch?"),
        ("pitch = 0.3e-3", "", "pitch: expected a value, got none"),
        ("pitch = 0.3e-3", "pitch = -1", "pitch: expected a number above 0, got -1"),
        ("pitch = 0.3e-3", 'pitch = "wide"', "pitch: expected a number, got 'wide'"),
        ("pitch = 0.3e-3", "pitch = 0.1e-3", "element_width: expected at most the pitch"),
        ("bandwidth = 0.6", "bandwidth = 60", "(percent? write 0.6)"),
        ("n_elements = 64", "n_elements = 64.5", "n_elements: expected a whole number"),
        ('name = "mine"', "name = 5", "name: expected text in quotes, got 5"),
        ("bandwidth = 0.6", 'bandwidth = 0.6\nbaffle = "hard"', 'baffle: expected "soft", "rigid"'),
        ("bandwidth = 0.6", "bandwidth = 0.6\nradius = 1e-4", "radius: expected an arc of less than half a circle"),
        ("bandwidth = 0.6", "bandwidth = 0.6\nradius = 3e-3", "radius: expected an arc of less than half a circle"),
        ("x_mm = [-10, 10]", "x_mm = [10, -10]", "imaging.x_mm: expected [low, high] in mm"),
        ("x_mm = [-10, 10]", "", "imaging.x_mm: expected [low, high] in mm, got None"),
        (
            "x_mm = [-10, 10]",
            'x_mm = [-10, 10]\ntransmit = "plain"',
            'imaging.transmit: expected "plane" or "diverging"',
        ),
        ("x_mm = [-10, 10]", "x_mm = [-10, 10]\nn_transmits = 2.5", "imaging.n_transmits: expected a whole number"),
        (
            "x_mm = [-10, 10]",
            "x_mm = [-10, 10]\nmax_angle_deg = 95",
            "imaging.max_angle_deg: expected degrees below 90",
        ),
        ("x_mm = [-10, 10]", "x_mm = [-10, 10]\nangle = 5", "imaging.angle: unknown key"),
        ("[imaging]", "[imaging", "expected a TOML file"),
    ],
)
def test_a_bad_file_is_told_by_file_key_and_value(tmp_path, old, new, words):
    path = tmp_path / "mine.toml"
    path.write_text(FILE.replace(old, new))
    with pytest.raises(ussim.ProbeError) as caught:
        ussim.load_probe(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_imaging_value_instead_of_a_table(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(f"imaging = 3{FILE.partition('[imaging]')[0]}")
    with pytest.raises(ussim.ProbeError, match=r"imaging: expected a table \[imaging\], got 3"):
        ussim.load_probe(path)


def test_an_unknown_name_lists_near_misses_and_all_names():
    with pytest.raises(ussim.ProbeError, match=r"unknown probe 'L11-5'. Did you mean L11-5v") as caught:
        ussim.load_probe("L11-5")
    assert all(name in str(caught.value) for name in ussim.probe_names())
    with pytest.raises(ussim.ProbeError, match="no such file"):
        ussim.load_probe("absent.toml")


FILES = {
    "disk.mat": "disk",
    "c.mat": "probe of c.mat",
    "a/ b.mat": "probe of  b.mat",
    "zarr.json.mat": "probe of zarr.json.mat",
}


@pytest.mark.parametrize("file", FILES)
def test_a_recording_that_names_no_probe_names_it_itself(file):
    found = name_after(Path(file))
    assert found == FILES[file]
    assert replace(ussim.load_probe("L11-5v"), name=found).name == found  # can be a probe's
