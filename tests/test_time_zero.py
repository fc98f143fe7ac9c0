"""Time zero is judged by the image: a wrong one is found, a right one is left alone."""

from dataclasses import replace

import numpy as np
import pytest

import ussim

PROBE = ussim.load_probe("L11-4v")
PERIOD = 1 / PROBE.center_frequency
ANGLES = np.deg2rad([-16.0, -8.0, 0.0, 8.0, 16.0])
WIRES = np.array([[0.0, 12e-3], [-8e-3, 18e-3], [7e-3, 24e-3], [1e-3, 32e-3]])
GRID = ussim.ImageGrid(x=np.linspace(-15e-3, 15e-3, 151), z=np.linspace(5e-3, 38e-3, 301))


@pytest.fixture(scope="module")
def wires():
    """Noisy RF of four wires, clocked from the passage through the array's center."""
    acquisition = ussim.Acquisition(PROBE, ussim.PlaneWaves(ANGLES, time_reference="center"))
    rf = ussim.simulate(ussim.Scatterers(*WIRES.T, np.ones(4)), acquisition)
    noise = np.random.default_rng(0).standard_normal(rf.samples.shape)
    return replace(rf, samples=(rf.samples + 0.01 * rf.samples.max() * noise).astype(np.float32))


def one(rf, i):
    """The record of one transmit."""
    waves = ussim.PlaneWaves(ANGLES[i : i + 1], time_reference="center")
    return replace(rf, samples=rf.samples[i : i + 1], acquisition=replace(rf.acquisition, waves=waves))


def test_the_right_time_zero_is_left_alone(wires):
    found = ussim.check_time_zero(wires, GRID)
    assert found.is_right
    assert abs(found.wavelengths) < 0.3  # the pulse is long, and the wavefronts of 38 mm curve little
    assert found.transmit_wavelengths < 0.1
    assert found.shift == pytest.approx(found.wavelengths * PERIOD)
    assert sorted(map(tuple, np.round(1e3 * found.points[:4]))) == sorted(map(tuple, np.round(1e3 * WIRES)))
    assert "4 bright points: best focused" in str(found)


@pytest.mark.parametrize("periods", [-1.5, -1.0, 1.0, 1.5])
@pytest.mark.parametrize("transmits", ["all", "one"])
def test_a_shift_of_all_transmits_is_found(wires, periods, transmits):
    rf = wires if transmits == "all" else one(wires, 2)
    found = ussim.check_time_zero(replace(rf, start_time=rf.start_time + periods * PERIOD), GRID)
    assert not found.is_right
    assert found.wavelengths == pytest.approx(-periods, abs=0.4)


def test_a_clock_that_begins_with_another_element_is_found(wires):
    """As MUST's and Verasonics' does: by 5.2 mm at 16 degrees, and the compound image shows the middle transmit alone."""
    wrong = replace(wires, acquisition=replace(wires.acquisition, waves=ussim.PlaneWaves(ANGLES)))
    found = ussim.check_time_zero(wrong, GRID)
    assert not found.is_right
    late = PROBE.element_x[-1] * np.sin(np.abs(ANGLES)) / 1540
    np.testing.assert_allclose(found.transmit_shifts, -late, atol=0.15 * late.max())  # the slant of the way, 4 %
    assert "agree within" in str(found)


def test_angles_of_the_other_sign_are_found(wires):
    flipped = ussim.PlaneWaves(-ANGLES, time_reference="center")
    found = ussim.check_time_zero(replace(wires, acquisition=replace(wires.acquisition, waves=flipped)), GRID)
    assert not found.is_right


def test_one_transmit_that_is_late_is_named(wires):
    late = wires.start_times + np.array([0, 0, 0, 0, 1.0]) * PERIOD
    found = ussim.check_time_zero(replace(wires, start_time=late), GRID)
    assert not found.is_right
    np.testing.assert_allclose(found.transmit_shifts / PERIOD, [0, 0, 0, 0, 1.0], atol=0.15)


def test_a_narrow_aperture_cannot_tell():
    probe = ussim.Probe("narrow", 3e6, 0.7, 8, 0.3e-3, 0.25e-3)
    acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(0.0))
    rf = ussim.simulate(ussim.Scatterers([0.0], [60e-3], [1.0]), acquisition)
    found = ussim.check_time_zero(rf, ussim.ImageGrid(x=np.linspace(-9e-3, 9e-3, 61), z=np.linspace(50e-3, 70e-3, 201)))
    assert np.isnan(found.shift)
    assert found.is_right
    assert "cannot tell" in str(found)


def test_nothing_to_judge_by():
    acquisition = ussim.Acquisition(PROBE, ussim.PlaneWaves(0.0))
    silent = ussim.RFData(np.zeros((1, 128, 900), np.float32), acquisition, acquisition.sampling_frequency)
    with pytest.raises(ValueError, match="expected points that echo"):
        ussim.check_time_zero(silent, GRID)
    with pytest.raises(ValueError, match="expected one record"):
        ussim.check_time_zero(replace(silent, samples=silent.samples[None]), GRID)
