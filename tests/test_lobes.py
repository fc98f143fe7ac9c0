"""Resolution over depth: widths that follow wavelength, depth and aperture; lobes where gratings have them."""

import dataclasses
import json
import math

import numpy as np
import pytest

import ussim
from ussim.lobes import lobe_levels

PROBE = ussim.load_probe("P4-2v")
WAVELENGTH = 1540 / PROBE.center_frequency


@pytest.fixture(scope="module")
def phased():
    """A phased array, one plane wave, all elements."""
    acquisition = ussim.Acquisition(PROBE, ussim.PlaneWaves(0.0))
    return ussim.resolution_over_depth(acquisition, [30e-3, 45e-3, 60e-3, 75e-3], f_number=0, engine="cpu")


def test_the_lateral_width_is_lambda_z_over_d(phased):
    """Boxcar aperture on receive alone: sinc is 1/2 at 0.603, so the width at -6 dB is 1.206 λ z / D."""
    aperture = PROBE.n_elements * PROBE.pitch
    expected = 1.206 * WAVELENGTH * phased.depths / aperture
    # The one-period pulse has a carrier 5 % lower, elements at the ends hear less: up to 10 % wider together.
    np.testing.assert_allclose(phased.lateral, expected, rtol=0.12)
    slope = np.polyfit(phased.depths, phased.lateral, 1)[0]
    assert slope == pytest.approx(expected[0] / phased.depths[0], rel=0.15)


def test_the_axial_width_is_that_of_the_band_at_any_depth(phased):
    np.testing.assert_allclose(phased.axial, 0.55e-3, rtol=0.08)  # as the guide says of P4-2v
    assert abs(np.polyfit(phased.depths, phased.axial, 1)[0]) < 1e-3  # a tenth of the lateral width's slope


def test_a_boxcar_has_its_side_lobes_and_a_hann_window_lower_ones():
    """13.3 dB down in the far field of one frequency; the band smears them, at most to this."""
    narrow = dataclasses.replace(PROBE, bandwidth=0.2, path="")
    acquisition = ussim.Acquisition(narrow, ussim.PlaneWaves(0.0), n_cycles=4)
    levels = [
        ussim.resolution_over_depth(acquisition, [60e-3], f_number=0, apodization=window, engine="cpu")
        for window in (None, "hann")
    ]
    boxcar, hann = (float(level.side_lobe_db[0]) for level in levels)
    assert boxcar == pytest.approx(-13.3, abs=2.0)
    assert hann < boxcar - 10
    assert levels[1].lateral[0] > 1.3 * levels[0].lateral[0]


@pytest.mark.parametrize("pitch", [0.6e-3, 0.8e-3])
def test_a_grating_lobe_is_at_asin_lambda_over_pitch(pitch):
    coarse = dataclasses.replace(PROBE, pitch=pitch, element_width=0.2e-3, n_elements=32, bandwidth=0.3, path="")
    acquisition = ussim.Acquisition(coarse, ussim.PlaneWaves(0.0), n_cycles=3)
    found = ussim.resolution_over_depth(acquisition, [70e-3], f_number=0, engine="cpu")
    assert found.grating_angle[0] == pytest.approx(math.asin(WAVELENGTH / pitch))
    away = np.abs(found.sines) > 0.7 * WAVELENGTH / pitch
    lobe = found.sines[away][found.profiles_db[0, away].argmax()]
    # The band of 30 % spreads it over as much; its strongest part is within 7 % of the carrier's.
    assert abs(lobe) == pytest.approx(WAVELENGTH / pitch, rel=0.07)
    assert found.profiles_db[0, away].max() == pytest.approx(found.grating_lobe_db[0], abs=0.01)
    assert -40 < found.grating_lobe_db[0] < -5
    assert found.grating_lobe_db[0] > found.side_lobe_db[0] - 25


def test_half_a_wavelength_of_pitch_has_no_grating_lobe_and_a_receive_aperture_keeps_one_out(phased):
    assert np.isnan(phased.grating_lobe_db).all()
    assert np.isnan(phased.grating_angle).all()
    linear = ussim.load_probe("L11-5v")
    acquisition = ussim.Acquisition(linear, ussim.imaging_waves(linear, n_transmits=5))
    own, full = (
        ussim.resolution_over_depth(acquisition, [25e-3], f_number=f, engine="cpu").grating_lobe_db[0]
        for f in (None, 0)
    )
    assert own < full - 3


def test_a_point_aside_is_measured_about_its_own_direction():
    acquisition = ussim.Acquisition(PROBE, ussim.PlaneWaves(0.0))
    found = ussim.resolution_over_depth(acquisition, [60e-3], x=8e-3, f_number=0, engine="cpu")
    sine = 8 / math.hypot(8, 60)
    assert found.sines[found.profiles_db[0].argmax()] == pytest.approx(sine, abs=0.02)
    assert found.lateral[0] == pytest.approx(1.206 * WAVELENGTH * 60e-3 / 19.2e-3, rel=0.15)


def test_every_preset_has_its_widths_and_lobes(any_probe):
    """One wave of the probe's own kind, in the middle of its field, with the default aperture."""
    probe = any_probe
    acquisition = ussim.Acquisition(probe, ussim.imaging_waves(probe, n_transmits=1))
    depth = float(np.mean(probe.imaging.z))
    found = ussim.resolution_over_depth(acquisition, [depth], engine="cpu")
    wavelength = 1540 / probe.center_frequency
    # Never sharper than the whole array allows, nor than the band does (0.44 c / B, of the two-way band).
    assert found.lateral[0] > wavelength * depth / (probe.n_elements * probe.pitch)
    assert found.lateral[0] < 8 * wavelength
    assert 0.3 < found.axial[0] / (1540 / (2 * probe.bandwidth * probe.center_frequency)) < 2
    assert -60 < found.side_lobe_db[0] < -10
    assert math.isnan(found.grating_angle[0]) == (wavelength > probe.pitch)
    assert not found.grating_lobe_db[0] > -15
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["depths"] == [depth]
    assert (plain["grating_angle"][0] is None) == math.isnan(found.grating_angle[0])


def test_depths_are_those_of_the_field_of_view():
    with_field = ussim.Acquisition(PROBE, ussim.PlaneWaves(0.0))
    from ussim.lobes import _checked_depths

    depths = _checked_depths(with_field, None, 0.0)
    assert len(depths) == 8
    assert depths[-1] == pytest.approx(80e-3)
    without = dataclasses.replace(with_field, probe=dataclasses.replace(PROBE, imaging=None))
    with pytest.raises(ValueError, match=r"depths: P4-2v has no \[imaging\] field of view"):
        ussim.resolution_over_depth(without)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"depths": [np.nan]}, "depths: expected finite increasing depths in m"),
        ({"depths": []}, "depths: expected finite increasing depths in m"),
        ({"depths": [0.03, 0.02]}, "depths: expected finite increasing depths in m"),
        ({"depths": [-0.01]}, "depths: expected points in front of the array"),
        ({"depths": [0.03], "x": np.inf}, "x: expected m, got inf"),
        ({"depths": [0.03], "level_db": 3.0}, "level_db: expected dB below 0"),
    ],
)
def test_what_cannot_be_is_one_line(arguments, words):
    acquisition = ussim.Acquisition(PROBE, ussim.PlaneWaves(0.0))
    with pytest.raises(ValueError, match=rf"^[^\n]*{words}"):
        ussim.resolution_over_depth(acquisition, engine="cpu", **arguments)


# --- lobes of profiles that are known --------------------------------------------------------------------------------


def test_lobes_of_a_known_profile():
    sines = np.linspace(-0.9, 0.9, 1801)
    main = -80 * (sines / 0.1) ** 2
    profile = np.maximum(main, -60.0)
    profile[np.abs(sines - 0.2) < 0.01] = -20.0
    profile[np.abs(sines + 0.6) < 0.01] = -25.0
    assert lobe_levels(sines, profile, 0.0, 0.5, 0.7) == (-20.0, -25.0)
    profile[np.abs(sines - 0.2) < 0.01] = -60.0
    assert lobe_levels(sines, profile, 0.0, 2.0, 3.0)[0] == -25.0  # no grating: a side lobe like any other
    assert math.isnan(lobe_levels(sines, profile, 0.0, 2.0, 3.0)[1])


def test_a_sinc_has_its_side_lobe_and_what_never_falls_has_none():
    sines = np.linspace(-0.9, 0.9, 3601)
    sinc = 20 * np.log10(np.maximum(np.abs(np.sinc(20 * sines)), 1e-6))
    assert lobe_levels(sines, sinc, 0.0, 2.0, 3.0)[0] == pytest.approx(-13.26, abs=0.02)
    side, grating = lobe_levels(sines, np.zeros(3601), 0.0, 2.0, 3.0)
    assert math.isnan(side)
    assert math.isnan(grating)
