"""Defaults of imaging: which elements receive, on what grid the envelope is found, how finely elements are divided."""

import math
from dataclasses import replace

import numpy as np
import pytest

import ussim
from ussim import imaging
from ussim.beamform import UnseenWarning
from ussim.beamforming.apertures import automatic_f_number, directivity_f_number
from ussim.plan import make_plan


def echoes(acquisition, x, z):
    x, z = np.atleast_1d(x), np.atleast_1d(z)
    points = ussim.Scatterers(x=x, z=z, reflectivity=np.ones(x.size))
    return ussim.demodulate(ussim.simulate(points, acquisition, "cpu"))


def around(x, z, half=1e-3, n=41):
    return ussim.ImageGrid(x=np.linspace(x - half, x + half, n), z=np.linspace(z - half, z + half, n))


# --- receive aperture ------------------------------------------------------------------------------------------------


def test_elements_without_grating_lobes_all_receive(any_probe):
    f_number = automatic_f_number(any_probe, 1540.0)
    fine = any_probe.pitch <= 0.7 * 1540.0 / any_probe.center_frequency
    assert f_number == (0.0 if fine else directivity_f_number(any_probe, 1540.0))


@pytest.mark.parametrize("name", ["P4-2v", "P6-3"])
@pytest.mark.parametrize("angle", [0, 32, 45])
def test_a_sector_is_imaged_to_its_edge(name, angle):
    """A point keeps its place and stands well above everything else, as with PyMUST's default of all elements."""
    probe = ussim.load_probe(name)
    waves = ussim.imaging_waves(probe, "diverging", 3, math.radians(15), math.radians(90))
    x, z = 50e-3 * math.sin(math.radians(angle)), 50e-3 * math.cos(math.radians(angle))
    iq = echoes(ussim.Acquisition(probe, waves), x, z)
    grid = around(x, z, 4e-3, 65)
    image = np.abs(ussim.delay_and_sum(iq, grid))
    np.testing.assert_array_equal(image, np.abs(ussim.delay_and_sum(iq, grid, 0)))
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert math.hypot(grid.x[column] - x, grid.z[row] - z) < 0.2e-3


@pytest.mark.parametrize("name", ["P4-2v", "L11-5v"])
def test_the_mask_takes_the_f_number_of_the_image(name):
    probe = ussim.load_probe(name)
    acquisition = ussim.Acquisition(probe, ussim.imaging_waves(probe))
    grid = ussim.ImageGrid.for_acquisition(acquisition, (40, 40), x=(-40e-3, 40e-3), z=(5e-3, 60e-3))
    default = ussim.field_mask(acquisition, grid)
    np.testing.assert_array_equal(default, ussim.field_mask(acquisition, grid, automatic_f_number(probe, 1540.0)))
    everything, narrow = ussim.field_mask(acquisition, grid, 0), ussim.field_mask(acquisition, grid, 4.0)
    assert (everything >= default).all()
    assert (default >= narrow).all()
    assert narrow.sum() < default.sum()


def test_pixels_that_no_element_sees_are_announced():
    probe = ussim.load_probe("L11-5v")
    iq = echoes(ussim.Acquisition(probe, ussim.PlaneWaves(0.0)), 0.0, 20e-3)
    beside = ussim.ImageGrid(x=np.linspace(60e-3, 80e-3, 20), z=np.linspace(5e-3, 20e-3, 20))
    with pytest.warns(
        UnseenWarning, match=r"100% of the pixels are in no element's receive aperture .* lower f_number"
    ):
        image = ussim.delay_and_sum(iq, beside)
    assert not image.any()
    ussim.delay_and_sum(iq, beside, 0)  # silent: warnings are errors here


# --- detection -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["L14-5W/60", "L12-3v"])
def test_a_point_between_pixels_is_as_bright_as_one_on_a_pixel(name):
    """At 256 rows: a peak lies at most 2 dB below the true one; at the pixel centers alone up to 7 dB."""
    probe = ussim.load_probe(name)
    acquisition = ussim.Acquisition(probe, ussim.imaging_waves(probe, n_transmits=3))
    asked = ussim.ImageGrid.for_acquisition(acquisition)
    step_x, step_z = asked.x[1] - asked.x[0], asked.z[1] - asked.z[0]
    losses = {"shipped": [], "center": []}
    for part in (0.0, 0.25, 0.5):
        x, z = asked.x[128] + 0.5 * step_x, asked.z[120] + part * step_z
        iq = echoes(acquisition, x, z)
        true = np.abs(ussim.delay_and_sum(iq, around(x, z, 0.3e-3, 61))).max()
        near = ussim.ImageGrid(x=asked.x[124:134], z=asked.z[114:128])
        for key, fine in (("shipped", None), ("center", (1, 1))):
            losses[key].append(20 * np.log10(ussim.envelope_image(iq, near, fine=fine).max() / true))
    assert min(losses["shipped"]) > -2.0
    assert min(losses["center"]) < -2.5


def test_cells_fine_enough_are_detected_at_their_centres():
    probe = ussim.load_probe("P4-2v")
    iq = echoes(ussim.Acquisition(probe, ussim.imaging_waves(probe, n_transmits=2)), 3e-3, 50e-3)
    grid = ussim.ImageGrid.for_acquisition(iq.acquisition)
    assert imaging.fine_factors(probe, grid, 1540.0) == (1, 1)
    np.testing.assert_array_equal(ussim.envelope_image(iq, grid), np.abs(ussim.delay_and_sum(iq, grid)))


def test_fine_samples_are_spread_over_the_cells():
    grid = ussim.ImageGrid(x=np.array([0.0, 1.0, 3.0]), z=np.array([2.0, 3.0]))
    fine = imaging.refine(grid, 2, 3)
    np.testing.assert_allclose(fine.z, [1.75, 2.25, 2.75, 3.25])
    np.testing.assert_allclose(fine.x, [-1 / 3, 0, 1 / 3, 0.75, 1.25, 1.75, 2 + 1 / 3, 3, 3 + 2 / 3])
    image = np.arange(4 * 9.0).reshape(4, 9)
    np.testing.assert_array_equal(imaging.peaks(image, 2, 3), [[11, 14, 17], [29, 32, 35]])
    np.testing.assert_array_equal(imaging.peaks(image[None], 2, 3)[0], imaging.peaks(image, 2, 3))


def test_a_single_row_or_column_has_no_cells_to_refine():
    probe = ussim.load_probe("L14-5W/60")
    assert imaging.fine_factors(probe, ussim.ImageGrid(x=np.zeros(1), z=np.zeros(1)), 1540.0) == (1, 1)


# --- sub-elements ----------------------------------------------------------------------------------------------------


def test_sub_elements_are_enough(any_probe):
    """RF within 1.5 % of what four times as many give: the tolerance that the default states."""
    rng = np.random.default_rng(0)
    (left, right), (top, bottom) = any_probe.imaging.x, any_probe.imaging.z
    points = ussim.Scatterers(rng.uniform(left, right, 60), rng.uniform(top, bottom, 60), rng.rayleigh(size=60))
    acquisition = ussim.Acquisition(any_probe, ussim.imaging_waves(any_probe, n_transmits=1))
    n = make_plan(acquisition).sub_x.shape[1]
    coarse = ussim.simulate(points, acquisition, "cpu").samples
    fine = ussim.simulate(points, replace(acquisition, n_subelements=4 * n), "cpu").samples
    shared = min(coarse.shape[-1], fine.shape[-1])
    difference = coarse[..., :shared].astype(float) - fine[..., :shared]
    assert np.linalg.norm(difference) < 0.015 * np.linalg.norm(fine)


def test_sub_elements_of_must(any_probe):
    acquisition = ussim.Acquisition(any_probe, ussim.PlaneWaves(0.0), n_subelements="must")
    shortest = 1540.0 / (any_probe.center_frequency * (1 + any_probe.bandwidth / 2))
    assert make_plan(acquisition).sub_x.shape[1] == math.ceil(any_probe.element_width / shortest)


def test_unknown_sub_elements_and_thresholds_are_refused():
    probe = ussim.load_probe("P4-2v")
    with pytest.raises(ValueError, match='n_subelements: expected a whole number, "must" or None'):
        ussim.Acquisition(probe, ussim.PlaneWaves(0.0), n_subelements="field2")
    for threshold in (-59.0, -30.0, -6.0, 0.0, math.nan):
        with pytest.raises(ValueError, match="threshold_db: expected at most -60 dB"):
            ussim.Acquisition(probe, ussim.PlaneWaves(0.0), threshold_db=threshold)
