"""The wave of a transmit as it travels: its front at c t, its energy that of the pressure field, its symmetry."""

import dataclasses

import numpy as np
import pytest

import ussim
from ussim.propagation import crossing_times

PROBE = dataclasses.replace(ussim.load_probe("P4-2v"), n_elements=24, path="")
SPEED = 1540.0
GRID = ussim.ImageGrid(x=np.linspace(-6e-3, 6e-3, 7), z=np.linspace(10e-3, 40e-3, 6))
WAVES = {
    "plane": ussim.PlaneWaves(np.deg2rad([10.0, -15.0])),
    "focused": ussim.FocusedWaves(x=[0.0, 4e-3], z=25e-3),
    "diverging": ussim.DivergingWaves(tilts=np.deg2rad([0.0, 10.0]), width=np.deg2rad(60.0)),
    "several at once": ussim.CustomTransmits(
        ussim.FocusedWaves(x=[-4e-3, 4e-3], z=25e-3).delays(PROBE, ussim.Medium())[None].repeat(2, axis=0)
    ),
}


def energy(field, step):
    return np.sqrt((field.astype(np.float64) ** 2).sum(axis=0) * step)


@pytest.mark.parametrize("waves", WAVES)
@pytest.mark.parametrize("changes", [{}, {"medium": ussim.Medium(SPEED, 1.5)}, {"full_frequency_directivity": True}])
def test_its_energy_is_that_of_the_pressure_field(waves, changes):
    acquisition = ussim.Acquisition(PROBE, WAVES[waves], **changes)
    step = 1 / (8 * PROBE.center_frequency)
    times = np.arange(-4e-6, 60e-6, step)
    field = ussim.wave_field(acquisition, GRID, times, 1)
    expected = ussim.pressure_field(acquisition, GRID, engine="reference")[1]
    # Tables read along straight lines: 3e-4 at the band's end, and what is left out of a pulse's ends.
    np.testing.assert_allclose(energy(field, step), expected, rtol=2e-3)


def test_attenuation_wears_the_pulse_as_the_model_says():
    """The table of worn pulses against the sum over frequency, wave for wave."""
    acquisition = ussim.Acquisition(PROBE, WAVES["plane"], ussim.Medium(SPEED, 2.0), n_subelements=1)
    times = np.linspace(5e-6, 30e-6, 40)
    field = ussim.wave_field(acquisition, GRID, times)
    from ussim.plan import make_plan
    from ussim.propagation import _literal

    x, z = (axis.ravel() for axis in GRID.mesh())
    literal = 2 * np.sqrt(PROBE.element_width / 2) * _literal(make_plan(acquisition), 0, x, z, times)
    expected = literal.reshape(field.shape)
    assert np.linalg.norm(field - expected) < 1e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize("angle", [0.0, 12.0])
def test_a_plane_front_is_at_c_t(angle):
    """On a line down through the aperture, the crest is where x sin θ + z cos θ = c (t - delay of the middle)."""
    probe = ussim.load_probe("P4-2v")
    acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(np.deg2rad([angle])))
    grid = ussim.ImageGrid(x=np.array([0.0]), z=np.linspace(2e-3, 40e-3, 1521))  # 25 µm
    times = np.array([9e-6, 13e-6, 20e-6])
    field = np.abs(ussim.wave_field(acquisition, grid, times)[:, :, 0])
    middle = np.nanmean(acquisition.transmit_delays)
    found = grid.z[field.argmax(axis=1)] * np.cos(np.deg2rad(angle)) / (times - middle)
    # The highest of a pulse's crests is within a quarter of a wavelength (0.14 mm) of its middle, at depths from 12 mm on.
    np.testing.assert_allclose(found, SPEED, rtol=0.14 / 12)
    assert np.ptp(field.max(axis=1)) < 0.3 * field.max()  # a plane wave stays as high as it is


def test_a_focused_wave_comes_together_at_its_focus():
    acquisition = ussim.Acquisition(PROBE, ussim.FocusedWaves(x=2e-3, z=25e-3))
    grid = ussim.ImageGrid(x=np.linspace(-8e-3, 8e-3, 33), z=np.array([25e-3]))
    delays = acquisition.transmit_delays[0, 0]
    arrival = delays + np.hypot(PROBE.element_x - 2e-3, 25e-3) / SPEED
    assert np.ptp(arrival) < 1e-9
    times = arrival[0] + np.linspace(-1e-6, 1e-6, 81)
    field = np.abs(ussim.wave_field(acquisition, grid, times)[:, 0])
    time, column = np.unravel_index(field.argmax(), field.shape)
    assert grid.x[column] == pytest.approx(2e-3, abs=0.6e-3)
    assert times[time] == pytest.approx(arrival[0], abs=1 / PROBE.center_frequency / 2)


def test_mirrored_waves_are_mirrored_and_times_come_in_any_order():
    acquisition = ussim.Acquisition(PROBE, ussim.PlaneWaves(np.deg2rad([-8.0, 8.0])))
    times = np.array([20e-6, 12e-6, 16e-6])
    left, right = (ussim.wave_field(acquisition, GRID, times, transmit) for transmit in (0, 1))
    np.testing.assert_allclose(left, right[:, :, ::-1], atol=1e-5 * np.abs(left).max())
    np.testing.assert_array_equal(left[1], ussim.wave_field(acquisition, GRID, [12e-6])[0])


def test_there_is_nothing_before_it_fires_after_it_has_passed_and_behind_the_array():
    acquisition = ussim.Acquisition("C5-2v", ussim.PlaneWaves(0.0), full_frequency_directivity=True)
    grid = ussim.ImageGrid(x=np.linspace(-5e-3, 5e-3, 3), z=np.linspace(1e-3, 30e-3, 5))
    field = ussim.wave_field(acquisition, grid, [-1e-3, 12e-6, 1.0])
    assert not field[[0, 2]].any()
    assert not field[1, 0].any()  # above the arc
    assert field[1].any()
    silent = ussim.Acquisition(
        PROBE, ussim.CustomTransmits(np.zeros((2, 24)), apodization=np.r_[np.zeros((1, 24)), np.ones((1, 24))])
    )
    assert not ussim.wave_field(silent, GRID, [10e-6], 0).any()
    assert crossing_times(silent, GRID, 3, 0).max() > 20e-6


@pytest.mark.parametrize("waves", WAVES)
def test_crossing_times_see_the_wave_out(waves):
    acquisition = ussim.Acquisition(PROBE, WAVES[waves])
    times = crossing_times(acquisition, GRID, 60, 1)
    assert times[0] == np.nanmin(acquisition.transmit_delays[1])
    peaks = np.abs(ussim.wave_field(acquisition, GRID, times, 1)).max(axis=(1, 2))
    assert peaks[0] < 0.05 * peaks.max()
    assert times[-1] * SPEED > GRID.z[-1]
    assert np.abs(ussim.wave_field(acquisition, GRID, times[-1:], 1)[:, :-1]).max() < 0.2 * peaks.max()


@pytest.mark.parametrize(
    ("changes", "arguments", "words"),
    [
        ({}, ([0.0], 2), r"transmit: expected a number of 0 to 1, got 2"),
        ({}, ([0.0], 0.5), r"transmit: expected a number of 0 to 1, got 0\.5"),
        ({}, ([np.nan], 0), r"times: expected finite times in s"),
        ({}, ([], 0), r"times: expected finite times in s"),
        ({}, (np.zeros((2, 2)), 0), r"times: expected finite times in s"),
        ({}, (np.zeros(10**8), 0), r"times: expected at most 1e\+09 values"),
        ({"n_cycles": np.inf}, ([0.0], 0), "n_cycles: a continuous wave"),
    ],
)
def test_what_cannot_be_is_one_line(changes, arguments, words):
    with pytest.raises(ValueError, match=rf"^[^\n]*{words}"):
        ussim.wave_field(ussim.Acquisition(PROBE, WAVES["plane"], **changes), GRID, *arguments)
