"""Firing times: MUST's golden laws, and what each wave must do."""

import numpy as np
import pytest

import ussim

# 1e-12 s: a thousandth of the finest time that matters (a sample is 3e-8 s); float64 leaves 1e-20.
TIME_TOLERANCE = 1e-12
LAWS = {
    "plane_-10deg": ussim.PlaneWaves(np.deg2rad([-10.0])),
    "plane_+0deg": ussim.PlaneWaves(np.zeros(1)),
    "plane_+10deg": ussim.PlaneWaves(np.deg2rad([10.0])),
    "focus_x5mm_z30mm": ussim.FocusedWaves(x=np.array([5e-3]), z=np.array([30e-3])),
    "virtualsource_x2mm_zm20mm": ussim.DivergingWaves(x=np.array([2e-3]), z=np.array([-20e-3])),
    "circular_tilt-10deg_width60deg": ussim.DivergingWaves(tilts=np.deg2rad([-10.0]), width=np.deg2rad(60)),
    "circular_tilt+0deg_width60deg": ussim.DivergingWaves(tilts=np.zeros(1), width=np.deg2rad(60)),
    "circular_tilt+10deg_width60deg": ussim.DivergingWaves(tilts=np.deg2rad([10.0]), width=np.deg2rad(60)),
}
MEDIUM = ussim.Medium()


@pytest.mark.parametrize("law", LAWS)
def test_delays_equal_must(golden, probe, law):
    arrays = golden(f"txdelay_{probe.name}")
    if f"delays_{law}" not in arrays:
        assert not probe.is_flat  # MUST has no circular waves by angle on convex arrays
        assert law.startswith("circular")
        return
    np.testing.assert_allclose(LAWS[law].delays(probe, MEDIUM), arrays[f"delays_{law}"], rtol=0, atol=TIME_TOLERANCE)


def test_no_golden_law_is_left_out(golden, probe):
    stored = {key.removeprefix("delays_") for key in golden(f"txdelay_{probe.name}") if key.startswith("delays_")}
    assert stored <= set(LAWS)


def test_each_transmit_starts_at_zero(any_probe):
    delays = ussim.imaging_waves(any_probe).delays(any_probe, MEDIUM)
    np.testing.assert_array_equal(delays.min(axis=1), 0)


def test_a_focused_wave_arrives_from_all_elements_at_once(any_probe):
    x, z = 3e-3, 40e-3
    delays = ussim.FocusedWaves(x=x, z=z).delays(any_probe, MEDIUM)[0]
    arrival = delays + np.hypot(any_probe.element_x - x, any_probe.element_z - z) / MEDIUM.speed_of_sound
    assert np.ptp(arrival) < TIME_TOLERANCE


def test_a_plane_wave_reaches_its_front_from_all_elements_at_once(any_probe):
    angle = np.deg2rad(7.0)
    delays = ussim.PlaneWaves(angle).delays(any_probe, MEDIUM)[0]
    along = any_probe.element_x * np.sin(angle) + any_probe.element_z * np.cos(angle)
    assert np.ptp(delays - along / MEDIUM.speed_of_sound) < TIME_TOLERANCE


def test_opposite_angles_mirror(any_probe):
    delays = ussim.PlaneWaves(np.deg2rad([-8.0, 8.0])).delays(any_probe, MEDIUM)
    np.testing.assert_allclose(delays[0], delays[1][::-1], rtol=0, atol=TIME_TOLERANCE)


def test_the_centre_of_curvature_fires_all_elements_together():
    probe = ussim.load_probe("C5-2v")
    delays = ussim.DivergingWaves(x=0.0, z=probe.center_of_curvature).delays(probe, MEDIUM)
    assert np.abs(delays).max() < TIME_TOLERANCE
    center = ussim.imaging_waves(probe, "diverging", n_transmits=1).delays(probe, MEDIUM)
    assert np.abs(center).max() < TIME_TOLERANCE


def test_delays_scale_with_the_speed_of_sound(probe):
    slow, fast = ussim.Medium(1000.0), ussim.Medium(2000.0)
    waves = ussim.PlaneWaves(np.deg2rad(5.0))
    np.testing.assert_allclose(waves.delays(probe, slow), 2 * waves.delays(probe, fast), rtol=1e-12)


def test_custom_transmits_keep_their_times_and_elements_off():
    probe = ussim.load_probe("P4-2v")
    times = np.tile(np.linspace(1e-6, 2e-6, 64), (2, 3, 1))
    times[0, 1, :10] = np.nan
    delays = ussim.CustomTransmits(times).delays(probe, MEDIUM)
    assert delays.shape == (2, 3, 64)
    assert np.isnan(delays[0, 1, :10]).all()
    np.testing.assert_array_equal(delays, times)
    from_first = ussim.CustomTransmits(times, time_reference="first").delays(probe, MEDIUM)
    np.testing.assert_array_equal(from_first, times - np.nanmin(times, axis=(1, 2), keepdims=True))
    acquisition = ussim.Acquisition(probe, ussim.CustomTransmits(times[:, 1]))
    assert not acquisition.transmit_weights[0, :10].any()
    assert acquisition.transmit_weights[1].all()


def test_default_waves_are_those_of_the_preset_and_can_be_changed():
    linear, phased = ussim.load_probe("L11-5v"), ussim.load_probe("P4-2v")
    np.testing.assert_allclose(np.rad2deg(ussim.imaging_waves(linear).angles), np.linspace(-10, 10, 15))
    diverging = ussim.imaging_waves(phased)
    np.testing.assert_allclose(np.rad2deg(diverging.tilts), np.linspace(-15, 15, 15))
    np.testing.assert_allclose(np.rad2deg(diverging.width), 75)
    assert ussim.imaging_waves(linear, n_transmits=1).angles.tolist() == [0]
    assert isinstance(ussim.imaging_waves(phased, "plane"), ussim.PlaneWaves)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: ussim.PlaneWaves(np.deg2rad(100)), "within ±π/2 .90 degrees., got 1.745 rad .100 degrees."),
        (lambda p: ussim.PlaneWaves([0.0, np.nan]), "angles: expected finite numbers"),
        (lambda p: ussim.DivergingWaves(tilts=0.5), "expected tilts and width, or x and z"),
        (lambda p: ussim.DivergingWaves(tilts=np.deg2rad(60), width=np.deg2rad(75)), "within ±π/2"),
        (lambda p: ussim.DivergingWaves(tilts=0.0, width=0.0), "more than 0 rad"),
        (lambda p: ussim.DivergingWaves(x=0.0, z=0.02).delays(p, MEDIUM), "virtual sources behind the P4-2v array"),
        (lambda p: ussim.FocusedWaves(x=0.0, z=-0.02).delays(p, MEDIUM), "foci in front of the P4-2v array"),
        (lambda p: ussim.CustomTransmits(np.zeros(3)).delays(p, MEDIUM), "the 64 elements of P4-2v, got 3"),
        (lambda p: ussim.CustomTransmits(np.full((2, 64), np.nan)), "no transmit has a firing element"),
        (lambda p: ussim.CustomTransmits([np.inf]), "got an infinite one"),
        (lambda p: ussim.imaging_waves(p, "focused"), 'expected "plane" or "diverging"'),
        (lambda p: ussim.imaging_waves(p, n_transmits=0), "at least 1 transmit"),
        (
            lambda p: ussim.DivergingWaves(tilts=0.0, width=1.0).delays(ussim.load_probe("C5-2v"), MEDIUM),
            "C5-2v is convex. Give virtual sources",
        ),
    ],
)
def test_a_wrong_wave_is_refused_in_words(make, words):
    with pytest.raises(ValueError, match=words):
        make(ussim.load_probe("P4-2v"))


@pytest.mark.parametrize("name", ["L11-5v", "C5-2v", "P4-2v"])
def test_a_focused_scan_walks_along_the_array(name):
    probe = ussim.load_probe(name)
    waves = ussim.focused_scan(probe, 0.04, n_lines=9, f_number=2.5)
    fires = waves.apodization
    assert fires.shape == (9, probe.n_elements)
    assert set(np.unique(fires)) <= {0.0, 1.0}
    np.testing.assert_array_equal(fires, fires[::-1, ::-1])  # mirrored like the lines
    np.testing.assert_allclose(waves.x, -waves.x[::-1], atol=1e-12)
    width = fires[4].sum() * probe.pitch
    assert abs(width - 0.04 / 2.5) <= 2 * probe.pitch
    if probe.is_flat:
        expected = 0.04 * np.ones(9) if name == "L11-5v" else None
        if expected is not None:
            np.testing.assert_allclose(waves.z, expected)
        else:
            np.testing.assert_allclose(np.hypot(waves.x, waves.z), 0.04)
    else:  # below the surface along the normals
        distance = np.hypot(waves.x, waves.z - probe.center_of_curvature)
        np.testing.assert_allclose(distance, probe.radius + 0.04)
    assert np.all(np.isfinite(ussim.Acquisition(probe, waves).transmit_delays))


def test_a_focused_scan_fires_at_least_one_element_and_all_at_f_number_0():
    probe = ussim.load_probe("L11-5v")
    assert ussim.focused_scan(probe, 1e-3, f_number=50.0).apodization.sum(axis=1).min() >= 1
    assert ussim.focused_scan(probe, 0.03, f_number=0.0).apodization.all()
    with pytest.raises(ValueError, match="focus_depth: expected a number above 0"):
        ussim.focused_scan(probe, -0.03)
    with pytest.raises(ValueError, match="at least 1 line"):
        ussim.focused_scan(probe, 0.03, n_lines=0)
