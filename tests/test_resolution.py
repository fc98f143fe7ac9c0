"""How a point looks: widths of known profiles, and of points where theory says how wide they are."""

import math

import numpy as np
import pytest

import ussim
from ussim.resolution import point_spread, width


def test_the_width_of_a_triangle_is_between_its_crossings():
    x = np.linspace(-1, 1, 201)
    assert width(x, 1 - abs(x), 20 * math.log10(0.5)) == pytest.approx(1.0)
    assert width(x, 1 - abs(x), -20) == pytest.approx(1.8)


@pytest.mark.parametrize("n", [41, 40])
def test_the_width_of_a_gaussian(n):
    x = np.linspace(-4, 4, n)
    exact = 2 * math.sqrt(2 * math.log(10) * 6 / 20)
    assert width(x, np.exp(-(x**2) / 2)) == pytest.approx(exact, rel=0.03)  # samples of 0.2, straight lines between


def test_a_side_lobe_does_not_widen_the_main_lobe():
    x = np.linspace(-3, 3, 601)
    lobes = np.abs(np.sinc(x)) + 0.8 * np.exp(-((x - 2.5) ** 2) / 0.02)
    assert width(x, lobes) == pytest.approx(width(x, np.abs(np.sinc(x))), rel=1e-6)


@pytest.mark.parametrize("profile", [np.zeros(9), np.ones(9), np.linspace(0, 1, 9)])
def test_what_does_not_fall_has_no_width(profile):
    assert math.isnan(width(np.arange(9.0), profile))


@pytest.mark.parametrize(("level", "n"), [(0, 9), (6, 9), (float("nan"), 9), (-6, 8)])
def test_a_width_that_cannot_be_is_refused(level, n):
    with pytest.raises(ValueError, match="expected"):
        width(np.arange(9.0), np.ones(n), level)


@pytest.fixture(scope="module")
def acquisition():
    return ussim.Acquisition("L11-5v", ussim.PlaneWaves(np.deg2rad([0.0])))


def test_one_plane_wave_focuses_as_wide_as_its_receive_aperture_lets_it(acquisition):
    """Lateral -6 dB width of a receive aperture alone: 1.2 wavelengths x f-number, of the carrier, within a fifth."""
    for f_number in (1.5, 3.0):
        lateral, axial = point_spread(acquisition, 0.0, 25e-3, f_number, engine="cpu").widths()
        wavelength = 1540 / acquisition.probe.center_frequency
        assert lateral == pytest.approx(1.2 * wavelength * f_number, rel=0.2)
        assert axial == pytest.approx(0.185e-3, rel=0.05)  # of the probe's band, as the guide says


def test_the_point_lies_where_it_is(acquisition):
    spread = point_spread(acquisition, 3e-3, 20e-3, 2.0, engine="cpu")
    assert spread.peak_x == pytest.approx(3e-3, abs=0.1e-3)
    assert spread.peak_z == pytest.approx(20e-3, abs=0.05e-3)
    assert spread.envelope.max() == 1
    assert np.isfinite(spread.widths(-20)).all()


def test_a_point_behind_the_array_is_refused():
    acquisition = ussim.Acquisition("C5-2v", ussim.PlaneWaves(np.deg2rad([0.0])))
    with pytest.raises(ValueError, match=r"point: expected one in front of the array, got x = 0, z = 5 mm"):
        point_spread(acquisition, 0.0, 5e-3)


def test_a_point_that_no_element_receives_has_no_width(acquisition):
    spread = point_spread(acquisition, 60e-3, 10e-3, 4.0, engine="cpu")
    assert spread.envelope.max() == 0
    assert all(map(math.isnan, spread.widths()))
