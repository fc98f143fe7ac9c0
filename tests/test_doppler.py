"""Doppler and speckle tracking: on points, on flow phantoms whose velocities are known, and on a disk that was recorded."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

import ussim

PROBE = ussim.Probe("small", 5e6, 0.6, 64, 0.3e-3, 0.27e-3)
ONE = ussim.Acquisition(PROBE, ussim.PlaneWaves([0.0]))
PRF = 4000.0
GRID = ussim.ImageGrid(x=np.linspace(-4e-3, 4e-3, 33), z=np.linspace(10e-3, 20e-3, 101))


def images(moving, acquisition=ONE, n_frames=6, prf=PRF, grid=GRID, **options):
    """Complex images of a sequence, and their rate."""
    frames = ussim.simulate_frames(moving, acquisition, n_frames, prf, "cpu")
    return ussim.delay_and_sum(ussim.demodulate(frames), grid, engine="cpu", **options), frames.frame_rate


def turning(cycles, n_frames=8, shape=(4, 5)):
    """Images whose phase turns by so many cycles per frame."""
    phase = np.exp(2j * np.pi * np.multiply.outer(np.arange(n_frames), np.broadcast_to(cycles, shape)))
    return phase.astype(np.complex64)


# --- color -----------------------------------------------------------------------------------------------------------


def test_velocity_is_the_phase_of_a_frame():
    """A quarter of a cycle per frame is half of the Nyquist velocity; phases that rise come closer."""
    limit = ussim.nyquist_velocity(PRF, ONE)
    assert limit == pytest.approx(1540 * PRF / (4 * 5e6))
    cycles = np.array([[-0.45, -0.25, 0.0, 0.1, 0.25]] * 4)
    velocity, power = ussim.color_doppler(3 * turning(cycles), PRF, ONE)
    np.testing.assert_allclose(velocity, 2 * limit * cycles, atol=1e-6)
    np.testing.assert_allclose(power, 9, rtol=1e-6)
    twice = ussim.color_doppler(turning(0.1), PRF, ONE, lag=2).velocity
    np.testing.assert_allclose(twice, 0.2 * limit, atol=1e-6)
    lower = ussim.color_doppler(turning(0.1), PRF, ONE, frequency=2.5e6).velocity
    np.testing.assert_allclose(lower, 0.4 * limit, atol=1e-6)
    aliased = ussim.color_doppler(turning(0.6), PRF, ONE).velocity  # 0.6 of a cycle looks as -0.4
    np.testing.assert_allclose(aliased, -0.8 * limit, atol=1e-6)


@pytest.mark.parametrize("velocity", [-0.12, 0.08])
def test_a_point_is_as_fast_as_it_is(velocity):
    """Positive towards the array; by the carrier 5 % too slow, as a pulse of one period has its energy lower (see below)."""
    moving = ussim.MovingScatterers([0.0], [15e-3], [1.0], 0.0, velocity)
    frames, rate = images(moving)
    frequency = ussim.echo_frequency(frames, ONE, GRID, smoothing=1)
    measured, power = ussim.color_doppler(frames, rate, ONE, frequency=frequency)
    brightest = np.unravel_index(power.argmax(), power.shape)
    along = ussim.beam_directions(ONE, GRID)[0, 1][brightest] / 2  # of a wide aperture: 0.99
    assert measured[brightest] == pytest.approx(-velocity * along, rel=2e-3)  # the second order of one frame's motion
    by_carrier = ussim.color_doppler(frames, rate, ONE).velocity[brightest]
    assert by_carrier == pytest.approx(measured[brightest] * frequency[brightest] / 5e6, rel=1e-5)
    assert 0.93 < frequency[brightest] / 5e6 < 0.99


def test_power_is_that_of_what_moves():
    still = ussim.Scatterers([-2e-3], [13e-3], [30.0])
    moving = ussim.MovingScatterers([2e-3, -2e-3], [16e-3, 13e-3], [1.0, 30.0], 0.0, [0.1, 0.0])
    frames, _ = images(moving)
    wall = np.hypot(*np.subtract(GRID.mesh(), [[[-2e-3]], [[13e-3]]])) < 1e-3
    blood = np.hypot(*np.subtract(GRID.mesh(), [[[2e-3]], [[16e-3]]])) < 1e-3
    raw = ussim.power_doppler(frames)
    assert raw[wall].max() > 100 * raw[blood].max()
    assert len(still) == len(moving.still)
    filtered = ussim.power_doppler(ussim.wall_filter(frames))
    assert filtered[blood].max() > 1e4 * filtered[wall].max()


def test_spread_is_zero_of_one_velocity_and_grows_with_many():
    steady = ussim.velocity_spread(turning(0.1), PRF, ONE)
    rng = np.random.default_rng(0)
    noisy = turning(0.1, 64) + 0.3 * (rng.standard_normal((64, 4, 5)) + 1j * rng.standard_normal((64, 4, 5)))
    assert steady.max() < 2e-3 * ussim.nyquist_velocity(PRF, ONE)  # the root of float32's rounding
    assert (ussim.velocity_spread(noisy, PRF, ONE) > 10 * steady.max()).all()
    assert not ussim.velocity_spread(np.zeros((3, 2, 2), complex), PRF, ONE).any()


def test_smoothing_averages_the_autocorrelation_not_the_velocities():
    cycles = np.full((9, 9), 0.45)
    cycles[4, 4] = -0.45  # next to it around the circle: the mean is there, not at 0
    velocity = ussim.color_doppler(turning(cycles, shape=(9, 9)), PRF, ONE, smoothing=3).velocity
    limit = ussim.nyquist_velocity(PRF, ONE)
    assert np.abs(np.abs(velocity) - 0.9 * limit).max() < 0.1 * limit


# --- walls -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_polynomial_filter_removes_polynomials_of_its_order(order):
    time = np.linspace(0, 1, 12)
    rng = np.random.default_rng(1)
    shape = rng.standard_normal((order + 1, 3, 4)) + 1j * rng.standard_normal((order + 1, 3, 4))
    wall = np.einsum("kt,kzx->tzx", np.vander(time, order + 1).T, shape)
    assert np.abs(ussim.wall_filter(wall, order)).max() < 1e-12
    assert np.abs(ussim.wall_filter(wall + time[:, None, None] ** (order + 1), order)).max() > 1e-4
    blood = turning(0.3, 12, (3, 4)).astype(complex)
    kept = ussim.wall_filter(wall + blood, order)
    assert np.linalg.norm(kept) > 0.8 * np.linalg.norm(blood)
    np.testing.assert_allclose(kept, ussim.wall_filter(blood, order), atol=1e-12)


def test_singular_components_are_removed_the_largest_first():
    rng = np.random.default_rng(2)
    wall = np.exp(2j * np.pi * 0.02 * np.arange(10))[:, None, None] * rng.standard_normal((6, 7))  # it moves, too
    blood = 1e-2 * turning(0.3, 10, (6, 7)) * rng.standard_normal((6, 7))
    kept = ussim.wall_filter(wall + blood, 1, method="svd")
    assert np.linalg.norm(kept - blood) < 0.4 * np.linalg.norm(blood)
    np.testing.assert_array_equal(ussim.wall_filter(blood, 0, method="svd"), blood)


# --- vessels and disks -----------------------------------------------------------------------------------------------


def test_the_mean_profile_of_a_vessel_is_the_parabola_it_was_given():
    vessel = ussim.flow.parabolic_vessel(
        ONE, 0.0, 15e-3, 3e-3, np.deg2rad(30), 0.3, length=18e-3, tissue_db=20.0, seed=3
    )
    frames, rate = images(vessel, n_frames=20)
    frames = ussim.wall_filter(frames)
    frequency = ussim.echo_frequency(frames, ONE, GRID)
    velocity = ussim.color_doppler(frames, rate, ONE, smoothing=5, frequency=frequency).velocity
    x, z = GRID.mesh()
    share = vessel.distance(x, z) / vessel.radius
    edges = np.linspace(-0.9, 0.9, 13)
    profile = np.array([velocity[(share >= a) & (share < b)].mean() for a, b in pairwise(edges)])
    middles = (edges[:-1] + edges[1:]) / 2
    parabola = -0.3 * np.sin(vessel.angle) * (1 - middles**2)
    assert np.linalg.norm(profile - parabola) < 0.05 * np.linalg.norm(parabola)
    assert profile.mean() == pytest.approx(parabola.mean(), rel=0.05)


def test_vectors_from_two_angles():
    acquisition = dataclasses.replace(ONE, waves=ussim.PlaneWaves(np.deg2rad([-14.0, 14.0])))
    vessel = ussim.flow.parabolic_vessel(acquisition, 0.0, 15e-3, 3e-3, np.deg2rad(15), 0.4, length=18e-3, seed=1)
    frames, rate = images(vessel, acquisition, n_frames=12, prf=16e3, compounding="none")
    assert rate == pytest.approx(8e3)
    frequency = ussim.echo_frequency(frames, acquisition, GRID)
    got = ussim.vector_doppler(frames, rate, acquisition, GRID, smoothing=9, frequency=frequency)
    x, z = GRID.mesh()
    inside = (np.abs(vessel.distance(x, z)) < 0.7 * vessel.radius) & (np.abs(x) < 3e-3)
    for measured, true in zip(got, vessel.velocity(x, z), strict=True):
        assert measured[inside].mean() == pytest.approx(true[inside].mean(), rel=0.07)
    middle = inside & (np.abs(vessel.distance(x, z)) < 0.3 * vessel.radius)
    side = inside & ~middle & (np.abs(vessel.distance(x, z)) > 0.6 * vessel.radius)
    assert got.x[side].mean() < 0.75 * got.x[middle].mean()  # 0.6 of the speed there


def test_directions_of_beams():
    grid = ussim.ImageGrid(x=[-1e-3, 0.0, 1e-3], z=[12e-3, 15e-3])
    angles = np.deg2rad([-10.0, 0.0, 10.0])
    acquisition = dataclasses.replace(ONE, waves=ussim.PlaneWaves(angles))
    got = ussim.beam_directions(acquisition, grid, 8.0)  # a narrow aperture looks straight up
    np.testing.assert_allclose(got[:, 0], np.sin(angles)[:, None, None] + np.zeros((3, 2, 3)), atol=0.02)
    np.testing.assert_allclose(got[:, 1], (1 + np.cos(angles))[:, None, None] + np.zeros((3, 2, 3)), atol=5e-3)
    left = np.arange(64) < 32
    halved = ussim.beam_directions(dataclasses.replace(ONE, receive_mask=left), grid, 1.0)
    assert (halved[0, 0] > 0.1).all()  # from the left: to the right
    none = ussim.beam_directions(dataclasses.replace(ONE, receive_mask=np.arange(64) < 2), grid, 4.0)
    assert np.isnan(none).all()


def test_vectors_are_solved_exactly_and_not_from_one_direction():
    rng = np.random.default_rng(4)
    directions = rng.standard_normal((3, 2, 4, 5))
    x, z = rng.standard_normal((2, 4, 5))
    seen = -(directions[:, 0] * x + directions[:, 1] * z) / 2
    got = ussim.velocity_from_beams(seen, directions)
    np.testing.assert_allclose(got.x, x, atol=1e-4)
    np.testing.assert_allclose(got.z, z, atol=1e-4)
    directions[1:] = directions[0]
    assert np.isnan(ussim.velocity_from_beams(seen, directions).x).all()


# --- tracking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "down"), [(0.0, 0.0), (2.3, -1.6), (-0.4, 4.7)])
def test_speckle_that_shifts_is_followed(right, down):
    from scipy.ndimage import gaussian_filter, shift

    rng = np.random.default_rng(5)
    speckle = np.abs(gaussian_filter(rng.standard_normal((2, 80, 80)), (0, 2, 3))[0])
    grid = ussim.ImageGrid(x=1e-4 * np.arange(80), z=2e-4 * np.arange(80))
    frames = np.stack([shift(speckle, (k * down, k * right), order=3) for k in range(3)])
    got = ussim.track_speckle(frames, grid, (5e-3, 2.5e-3))
    inner = (slice(1, -1), slice(1, -1))
    # Cubic interpolation in the test and in the tracker; a twentieth of a pixel is the tracker's step
    np.testing.assert_allclose(got.displacement_x[inner] / 1e-4, right, atol=0.08)
    np.testing.assert_allclose(got.displacement_z[inner] / 2e-4, down, atol=0.08)
    assert got.similarity[inner].min() > 0.97
    assert got.displacement_x.shape == (len(got.z), len(got.x))


def test_a_block_of_nothing_moves_nowhere_known():
    grid = ussim.ImageGrid(x=1e-4 * np.arange(32), z=1e-4 * np.arange(32))
    got = ussim.track_speckle(np.zeros((2, 32, 32)), grid, 1e-3)
    assert np.isnan(got.displacement_x).all()


# --- a disk that was recorded ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def disk(shared):
    """Frames of a rotating disk, 10 mm in radius, under one plane wave (MUST's PWI_disk): 32 at 10 kHz."""
    path = shared / "data" / "us_channel" / "pymust_PWI_disk.mat"
    if not path.is_file():
        pytest.skip("needs the recording of a disk in the shared reference data")
    return ussim.open_channel_data(path)


def test_a_recorded_disk_turns_as_one_piece(disk, capsys):
    """Speed in proportion to the radius: by color Doppler, and by tracking, which sees both components, at the same rate."""
    assert disk.frame_rate == pytest.approx(10e3)
    grid = ussim.ImageGrid(x=np.linspace(-11e-3, 11e-3, 111), z=np.linspace(12e-3, 34e-3, 111))
    acquisition = disk.acquisition
    near = ussim.delay_and_sum(ussim.demodulate(disk.stack(range(8))), grid, engine="cpu")
    velocity = ussim.color_doppler(near, disk.frame_rate, acquisition, smoothing=5).velocity
    x, z = grid.mesh()
    inside = np.hypot(x + 0.75e-3, z - 23.3e-3) < 9e-3
    rate, offset = np.polyfit(x[inside], -velocity[inside], 1)
    assert np.corrcoef(x[inside], velocity[inside])[0, 1] < -0.98
    diameter = inside & (np.abs(z - 23.3e-3) < 1e-3)  # there all of the velocity is along the beam
    assert np.corrcoef(np.abs(x + offset / rate)[diameter], np.abs(velocity[diameter]))[0, 1] > 0.98
    rate /= ussim.beam_directions(acquisition, grid)[0, 1][inside].mean() / 2  # of which the aperture sees 0.99

    iq = ussim.demodulate(disk.stack(range(0, 32, 4)))
    assert iq.frame_rate == pytest.approx(2.5e3)
    slow = ussim.delay_and_sum(iq, grid, engine="cpu")
    tracked = ussim.track_speckle(np.sqrt(abs(slow)), grid, 4e-3)
    kept = np.hypot(tracked.x + 0.75e-3, tracked.z[:, None] - 23.3e-3) < 8e-3
    there_x, there_z = np.meshgrid(tracked.x, tracked.z)
    down, left = (d[kept] * iq.frame_rate for d in (tracked.displacement_z, -tracked.displacement_x))
    assert np.corrcoef(there_x[kept], down)[0, 1] > 0.98
    assert np.corrcoef(there_z[kept], left)[0, 1] > 0.95  # speckle is wide: coarser across
    turned = np.polyfit(there_x[kept], down, 1)[0], np.polyfit(there_z[kept], left, 1)[0]
    with capsys.disabled():
        print(
            f"\nrotating disk: {rate:.1f} rad/s by color Doppler, {turned[0]:.1f} and {turned[1]:.1f} by speckle tracking "
            f"(the file: PRF {disk.frame_rate:g} Hz, c {acquisition.medium.speed_of_sound:g} m/s, no rate)"
        )
    assert turned == pytest.approx((rate, rate), rel=0.05)


# --- doors -----------------------------------------------------------------------------------------------------------

FRAMES = np.ones((4, 3, 3), complex)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ussim.color_doppler(FRAMES.real, PRF, ONE), "frames: expected complex images"),
        (lambda: ussim.color_doppler(FRAMES[0], PRF, ONE), r"expected \(n_frames, ..., nz, nx\)"),
        (lambda: ussim.color_doppler(FRAMES[:1], PRF, ONE), "at least 2 frames"),
        (lambda: ussim.color_doppler(FRAMES, PRF, ONE, lag=4), "at least 5 frames"),
        (lambda: ussim.color_doppler(FRAMES, PRF, ONE, lag=0), "lag: expected"),
        (lambda: ussim.color_doppler(FRAMES, 0.0, ONE), "prf: expected"),
        (lambda: ussim.color_doppler(FRAMES, PRF, ONE, frequency=-1.0), "frequency: expected Hz"),
        (lambda: ussim.color_doppler(FRAMES, PRF, ONE, smoothing=0), "smoothing: expected pixels"),
        (lambda: ussim.color_doppler(FRAMES * np.nan, PRF, ONE), "NaN or infinity"),
        (lambda: ussim.wall_filter(FRAMES, 3), "order: expected a whole number of 0 to 2"),
        (lambda: ussim.wall_filter(FRAMES, 4, method="svd"), "order: expected a whole number of 0 to 3"),
        (lambda: ussim.wall_filter(FRAMES, method="mean"), "method: expected one of polynomial, svd"),
        (lambda: ussim.echo_frequency(FRAMES, ONE, GRID), "images of the grid's"),
        (lambda: ussim.vector_doppler(FRAMES, PRF, ONE, GRID), "n_transmits, nz, nx"),
        (lambda: ussim.velocity_from_beams(np.ones((2, 3, 3)), np.ones((2, 3, 3))), "directions: expected"),
        (lambda: ussim.beam_directions(ONE, GRID, -1.0), "f_number: expected"),
        (lambda: ussim.track_speckle(np.ones((2, 3, 3)), GRID), "images: expected two frames"),
        (lambda: ussim.track_speckle(np.ones((2, *GRID.shape)), GRID, 1e-4), "block: expected m of 4 to"),
        (lambda: ussim.track_speckle(np.ones((2, *GRID.shape)), GRID, overlap=1.0), "overlap: expected a share"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(call, said):
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.peer
def test_color_doppler_is_that_of_must():
    pymust = pytest.importorskip("pymust")
    rng = np.random.default_rng(6)
    frames = rng.standard_normal((7, 12, 13)) + 1j * rng.standard_normal((7, 12, 13))
    param = pymust.utils.Param()
    param.fc, param.c, param.PRF = 5e6, 1540.0, PRF
    for smoothing, lag in ((1, 1), (5, 1), (3, 2)):
        velocity, variance = pymust.iq2doppler(frames.transpose(1, 2, 0), param, smoothing, lag)
        np.testing.assert_allclose(
            ussim.color_doppler(frames, PRF, ONE, smoothing=smoothing, lag=lag).velocity, velocity, atol=1e-6
        )
        assert variance.shape == (12, 13)
