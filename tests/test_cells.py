"""Cells: every scatterer in one, windows that hold every echo, bands that hold the spectrum."""

import numpy as np
import pytest

import ussim
from ussim.cells import MAX_TILES, make_cells
from ussim.plan import make_plan

RNG_POINTS = 700


@pytest.fixture(params=["plane", "focused"])
def plan(probe, request):
    if request.param == "plane":
        waves = ussim.PlaneWaves(np.deg2rad([-12.0, 0.0, 12.0]))
    else:
        waves = ussim.FocusedWaves(x=[-4e-3, 4e-3], z=[0.03, 0.02])
    return make_plan(ussim.Acquisition(probe, waves, ussim.Medium(1540.0, 0.5)))


@pytest.fixture
def points(plan):
    rng = np.random.default_rng(3)
    probe = plan.acquisition.probe
    half = 1.2 * max(probe.imaging.x[1], probe.element_x[-1])
    x, z = rng.uniform(-half, half, RNG_POINTS), rng.uniform(1e-3, probe.imaging.z[1], RNG_POINTS)
    front = ~probe.is_behind(x, z)
    return x[front], z[front]


def members(cells):
    return [cells.order[a:b] for a, b in zip(cells.first[:-1], cells.first[1:], strict=True)]


def test_each_point_is_in_one_cell(plan, points):
    cells = make_cells(*points, plan)
    assert sorted(cells.order.tolist()) == list(range(len(points[0])))
    assert np.all(np.diff(cells.first) > 0)
    assert len(cells.first) == len(cells) + 1


def test_windows_hold_every_echo(plan, points):
    """First and last arrival of every path through every sub-element, exactly, against the bounds from the box."""
    x, z = points
    cells = make_cells(x, z, plan)
    acquisition = plan.acquisition
    rate = acquisition.sampling_frequency
    samples = rate / acquisition.medium.speed_of_sound
    for i, part in list(enumerate(members(cells)))[::5]:
        distance = np.hypot(x[part, None, None] - plan.sub_x, z[part, None, None] - plan.sub_z)
        distance = np.maximum(distance, plan.minimum_distance) * samples  # (n_points, n_elements, n_sub)
        low, high = distance.min(axis=-1), distance.max(axis=-1)
        back = (
            (low - cells.element_reference[i]).min(axis=-1),
            (high - cells.element_reference[i]).max(axis=-1),
        )
        delays = plan.delays[:, 0, None, :] * rate - cells.transmit_reference[i][:, None, None]
        first = (delays + low).min(axis=(0, 2)) + back[0]
        last = (delays + high).max(axis=(0, 2)) + back[1]
        pulse = plan.pulse_half_length(2 * np.hypot(x[part], z[part]).max()) * rate
        assert cells.window_start[i] <= first.min() - pulse
        assert cells.window_start[i] + cells.window_length[i] >= last.max() + pulse


def test_windows_are_far_shorter_than_the_record(plan, points):
    cells = make_cells(*points, plan)
    record = plan.echo_end(plan.longest_distance(*points)) * plan.acquisition.sampling_frequency
    assert np.median(cells.window_length) < record / 2


def test_bands_lie_in_the_acquisitions_and_hold_the_centre(plan, points):
    cells = make_cells(*points, plan)
    step = plan.acquisition.sampling_frequency / cells.window_length
    low, high = plan.band()
    first, last = cells.first_bin * step, (cells.first_bin + cells.n_bins - 1) * step
    assert np.all(cells.first_bin >= 1)
    assert np.all((first >= low) & (last <= high))
    # Attenuation moves the band down, by no more than half the bandwidth here.
    center = plan.acquisition.probe.center_frequency
    assert np.all((first < 0.7 * center) & (last > center))


def test_transform_lengths_are_fast(plan, points):
    for n in make_cells(*points, plan).window_length.tolist():
        for factor in (2, 3, 5):
            while n % factor == 0:
                n //= factor
        assert n == 1


def test_dense_media_fill_whole_tiles():
    plan = make_plan(ussim.Acquisition(ussim.load_probe("L11-5v"), ussim.PlaneWaves(np.zeros(1))))
    rng = np.random.default_rng(0)
    cells = make_cells(rng.uniform(-0.019, 0.019, 10000), rng.uniform(0.005, 0.043, 10000), plan, tile=16)
    sizes = np.diff(cells.first)
    assert np.sum(-(-sizes // 16)) <= 10000 / 16 + 1  # one tile is not full, if any
    assert 30 < sizes.mean() < 400


def test_points_at_one_place_are_bounded_by_number():
    plan = make_plan(ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves(np.zeros(1))))
    cells = make_cells(np.zeros(5000), np.full(5000, 0.03), plan)
    assert np.diff(cells.first).max() <= MAX_TILES * 16


def test_far_apart_points_part():
    plan = make_plan(ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves(np.zeros(1))))
    cells = make_cells(np.array([-0.05, 0.05]), np.array([0.03, 0.03]), plan)
    assert len(cells) == 2


def test_the_cut_is_the_same_each_time(plan, points):
    one, two = make_cells(*points, plan), make_cells(*points, plan)
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(two, name))
