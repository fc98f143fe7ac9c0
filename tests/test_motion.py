"""Scatterers that move, and frames in which every transmit fires at its own time."""

import dataclasses

import numpy as np
import pytest

import ussim
from ussim.motion import firing_times, one_transmit

PROBE = ussim.Probe("small", 5e6, 0.6, 32, 0.3e-3, 0.27e-3)
ONE = ussim.Acquisition(PROBE, ussim.PlaneWaves([0.0]))
THREE = ussim.Acquisition(PROBE, ussim.PlaneWaves(np.deg2rad([-8.0, 0.0, 8.0])))
PRF = 4000.0


def relative(got, expected):
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)


def point(velocity_x=0.0, velocity_z=0.0, z=12e-3):
    return ussim.MovingScatterers([0.5e-3], [z], [1.0], velocity_x, velocity_z)


# --- when and where --------------------------------------------------------------------------------------------------


def test_transmits_fire_one_after_the_other():
    np.testing.assert_allclose(firing_times(2, 3, 1000.0), 1e-3 * np.arange(6).reshape(2, 3))
    np.testing.assert_allclose(firing_times(2, 3, 1000.0, 0.01)[1], 0.01 + 1e-3 * np.arange(3))
    frames = ussim.simulate_frames(point(), THREE, 4, 3000.0, "cpu", n_samples=64)
    assert frames.samples.shape == (4, 3, 32, 64)
    np.testing.assert_allclose(frames.firing_times, np.arange(12).reshape(4, 3) / 3000)
    assert frames.frame_rate == pytest.approx(1000)
    iq = ussim.demodulate(frames)
    assert (iq.frame_rate, iq.to_numpy().frame_rate) == (frames.frame_rate, frames.frame_rate)


@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_each_transmit_sees_the_scatterers_where_they_are_when_it_fires(engine):
    moving = point(0.4, -0.3)
    frames = ussim.simulate_frames(moving, THREE, 2, PRF, engine)
    n_samples = frames.samples.shape[-1]
    for frame in range(2):
        for transmit in range(3):
            there = moving.at((3 * frame + transmit) / PRF)
            whole = ussim.simulate(there, THREE, engine, n_samples=n_samples).samples[transmit]
            # The same model in windows for one transmit or for three: pulses are cut at 3e-5 of their energy
            assert relative(frames.samples[frame, transmit], whole) < 1e-4


def test_a_function_of_time_is_a_motion():
    moving = point(0.0, 0.5)
    by_value = ussim.simulate_frames(moving, ONE, 3, PRF, "cpu")
    by_function = ussim.simulate_frames(
        lambda t: ussim.Scatterers([0.5e-3], [12e-3 + 0.5 * t], [1.0]), ONE, 3, PRF, "cpu"
    )
    np.testing.assert_array_equal(by_value.samples, by_function.samples)


def test_what_stands_still_is_the_same_in_every_frame_and_costs_one_simulation(monkeypatch):
    still = ussim.Scatterers([-1e-3, 1e-3], [10e-3, 13e-3], [1.0, 0.5])
    mixed = ussim.MovingScatterers(
        [*still.x, 0.5e-3], [*still.z, 12e-3], [*still.reflectivity, 1.0], [0, 0, 0], [0, 0, 0.3]
    )
    assert len(mixed.still) == 2
    assert len(mixed.at(0.0)) == 1
    frames = ussim.simulate_frames(mixed, THREE, 2, PRF, "cpu")
    n_samples = frames.samples.shape[-1]
    alone = ussim.simulate_frames(point(0.0, 0.3), THREE, 2, PRF, "cpu", n_samples=n_samples)
    rests = ussim.simulate(still, THREE, "cpu", n_samples=n_samples)
    assert relative(frames.samples, alone.samples + rests.samples) < 1e-6
    given = ussim.simulate_frames(point(0.0, 0.3), THREE, 2, PRF, "cpu", n_samples=n_samples, still=still)
    assert relative(given.samples, frames.samples) < 1e-6

    def refuse(*_arguments, **_options):
        raise AssertionError("nothing moves")

    monkeypatch.setattr("ussim.motion.simulate_stack", refuse)
    resting = ussim.simulate_frames(point(), THREE, 5, PRF, "cpu")
    assert (resting.samples == resting.samples[:1]).all()


def test_silent_transmits_and_masked_channels_stay_silent():
    delays = np.zeros((3, 32))
    delays[1] = np.nan
    mask = np.ones((3, 32), bool)
    mask[2, :5] = False
    acquisition = ussim.Acquisition(PROBE, ussim.CustomTransmits(delays), receive_mask=mask)
    samples = ussim.simulate_frames(point(0.0, 0.2), acquisition, 2, PRF, "cpu").samples
    assert not samples[:, 1].any()
    assert not samples[:, 2, :5].any()
    assert samples[:, 2, 5:].any(axis=(-2, -1)).all()


def test_one_transmit_keeps_the_clock():
    for waves in (
        ussim.PlaneWaves(THREE.waves.angles, time_reference="center"),
        ussim.FocusedWaves([0, 1e-3], [2e-2, 2e-2]),
    ):
        acquisition = dataclasses.replace(THREE, waves=waves)
        for transmit in range(acquisition.n_transmits):
            alone = one_transmit(acquisition, transmit)
            np.testing.assert_array_equal(alone.transmit_delays[0], acquisition.transmit_delays[transmit])


def test_progress_ends_with_all_transmits():
    said = []
    ussim.simulate_frames(point(0.1), THREE, 2, PRF, "cpu", n_samples=64, progress=lambda *step: said.append(step))
    assert said[-1] == (6, 6)
    assert [done for done, _ in said] == sorted({done for done, _ in said})


# --- physics ---------------------------------------------------------------------------------------------------------


def test_a_receding_scatterer_turns_the_phase_back():
    """The echo comes 2 v T / c later each time: its phase falls by 2 pi f times that, f where its spectrum is."""
    velocity = 0.1
    frames = ussim.simulate_frames(point(0.0, velocity), ONE, 6, PRF, "reference")
    iq = ussim.demodulate(frames, bandwidth=2).samples[:, 0, 16]
    turned = np.angle((iq[1:] * iq[:-1].conj()).sum(axis=-1))
    assert (turned < 0).all()  # away
    spectrum = np.fft.fft(iq[0])
    offset = np.fft.fftfreq(iq.shape[-1], 1 / ONE.sampling_frequency)
    frequency = 5e6 + (np.abs(spectrum) ** 2 * offset).sum() / (np.abs(spectrum) ** 2).sum()
    expected = -2 * np.pi * frequency * 2 * velocity / PRF / 1540
    # The element above the point: 1 mm aside at 12 mm, its way grows by half a percent less.
    np.testing.assert_allclose(turned, expected, rtol=0.01)


def test_energy_of_the_echoes_of_a_scatterer_that_moves():
    """It is that of a scatterer at rest there; it falls as spreading on both ways does, 1/r each in two dimensions."""
    moving = point(0.0, 50.0, z=20e-3)
    frames = ussim.simulate_frames(moving, ONE, 4, 10e3, "cpu")  # 5 mm further each time
    energy = (frames.samples.astype(np.float64) ** 2).sum(axis=(1, 2, 3))
    for frame in range(4):
        there = ussim.simulate(moving.at(frame / 10e3), ONE, "cpu", n_samples=frames.samples.shape[-1])
        assert energy[frame] == pytest.approx((there.samples.astype(np.float64) ** 2).sum(), rel=1e-5)
    assert (np.diff(energy) < 0).all()
    sideways = ussim.simulate_frames(point(0.2), ONE, 4, PRF, "cpu")  # 0.15 mm in all: nothing changes but the place
    energy = (sideways.samples.astype(np.float64) ** 2).sum(axis=(1, 2, 3))
    assert np.ptp(energy) < 0.01 * energy.mean()


def test_one_that_stands_still_and_one_that_does_not_have_the_same_first_frame():
    moving, resting = (ussim.simulate_frames(point(0.0, v), ONE, 2, PRF, "cpu", n_samples=600) for v in (0.5, 0.0))
    assert relative(moving.samples[0], resting.samples[0]) < 1e-6
    assert relative(moving.samples[1], resting.samples[1]) > 0.1


# --- doors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"velocity_x": [1.0, 2.0]}, "velocity_x: expected finite m/s, one or"),
        ({"velocity_z": np.nan}, "velocity_z: expected finite m/s"),
        ({"z": [1e-2, 2e-2]}, "of one length"),
    ],
)
def test_wrong_motion_is_refused(change, said):
    values = {"x": [0.0], "z": [1e-2], "reflectivity": [1.0], "velocity_x": 0.0, "velocity_z": 0.0}
    with pytest.raises(ValueError, match=said):
        ussim.MovingScatterers(**(values | change))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_frames": 0}, "n_frames"),
        ({"n_frames": 2.5}, "n_frames"),
        ({"prf": 0.0}, "prf: expected transmits per second"),
        ({"prf": np.nan}, "prf: expected transmits per second"),
        ({"frame_interval": 1e-4}, "frame_interval: expected at least"),
        ({"n_samples": 0}, "n_samples"),
    ],
)
def test_wrong_sequences_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        ussim.simulate_frames(point(0.1), THREE, **({"n_frames": 2, "prf": PRF, "engine": "cpu"} | options))


def test_velocities_in_other_units_are_refused():
    with pytest.raises(ValueError, match=r"velocity: expected m/s .* got 300 \(mm/s"):
        ussim.simulate_frames(point(0.0, 300.0), ONE, 2, PRF, "cpu")


def test_firing_times_are_those_of_the_records():
    with pytest.raises(ValueError, match=r"firing_times: expected finite seconds .* = \(2, 3\)"):
        ussim.RFData(np.zeros((2, 3, 32, 8)), THREE, 20e6, firing_times=np.zeros((3, 2)))
    data = ussim.RFData(np.zeros((3, 32, 8)), THREE, 20e6, firing_times=np.zeros(3))
    assert data.frame_rate is None


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["frames.mat", "frames.hdf5"])
def test_files_keep_when_transmits_fired(tmp_path, name):
    frames = ussim.simulate_frames(point(0.0, 0.2), THREE, 4, PRF, "cpu")
    frames.save(tmp_path / name)
    file = ussim.open_channel_data(tmp_path / name)
    assert file.frame_rate == pytest.approx(PRF / 3, rel=1e-6)  # float32 in a zea file
    np.testing.assert_allclose(file.firing_times, frames.firing_times, atol=1e-9)
    stack = file.stack([1, 3])
    assert stack.samples.shape[0] == 2
    assert stack.frame_rate == pytest.approx(PRF / 6, rel=1e-6)
    file.save(tmp_path / f"again_{name}", [0, 1])
    assert ussim.open_channel_data(tmp_path / f"again_{name}").frame_rate == pytest.approx(PRF / 3, rel=1e-6)
    assert file.frame(2).firing_times.shape == (3,)


def test_a_pause_between_frames_is_kept_where_the_format_can(tmp_path):
    frames = ussim.simulate_frames(point(0.0, 0.2), THREE, 3, PRF, "cpu", frame_interval=5e-3)
    for name, rate in (("frames.hdf5", 200.0), ("frames.mat", None)):
        frames.save(tmp_path / name)
        got = ussim.open_channel_data(tmp_path / name).frame_rate
        assert got == (rate if rate is None else pytest.approx(rate, rel=1e-6))


# --- flow phantoms ---------------------------------------------------------------------------------------------------


def test_blood_moves_as_the_vessel_says_and_fills_it_at_any_time():
    vessel = ussim.flow.parabolic_vessel(ONE, 0.0, 15e-3, 3e-3, np.deg2rad(30), 0.3, length=12e-3, tissue_db=20.0)
    before, after = vessel.at(0.0), vessel.at(1e-4)
    moved = np.hypot(after.x - before.x, after.z - before.z) < 1e-3  # the others came in again at the other end
    velocity = vessel.velocity(before.x, before.z)
    assert moved.mean() > 0.99
    for axis, got in zip(velocity, ((after.x - before.x), (after.z - before.z)), strict=True):
        np.testing.assert_allclose(got[moved] / 1e-4, axis[moved], atol=1e-9)
    later = vessel.at(1.0)
    assert np.abs(vessel.distance(later.x, later.z)).max() <= 3e-3 + 1e-12
    along = (later.x - vessel.x) * np.cos(vessel.angle) + (later.z - vessel.z) * np.sin(vessel.angle)
    assert np.abs(np.histogram(along, 6, (-6e-3, 6e-3))[0] / (len(along) / 6) - 1).max() < 0.35
    assert np.abs(vessel.distance(vessel.still.x, vessel.still.z)).min() > 3e-3
    assert vessel.still.reflectivity.mean() == pytest.approx(10 * vessel.reflectivity.mean(), rel=0.15)


def test_a_disk_turns_about_its_center():
    disk = ussim.flow.rotating_disk(ONE, 1e-3, 15e-3, 4e-3, 50.0, seed=3)
    for time in (0.0, 0.01, 0.7):
        there = disk.at(time)
        radius = np.hypot(there.x - 1e-3, there.z - 15e-3)
        np.testing.assert_allclose(radius, np.hypot(disk.start_x, disk.start_z), rtol=1e-9)
    quarter = disk.at(np.pi / 2 / 50)  # from the x axis towards depth
    np.testing.assert_allclose(quarter.z - 15e-3, disk.start_x, atol=1e-12)
    np.testing.assert_allclose(disk.velocity(np.array([3e-3]), np.array([15e-3])), [[0.0], [0.1]], atol=1e-12)


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        ("parabolic_vessel", {"radius": 0.0}, "radius: expected m above 0"),
        ("parabolic_vessel", {"angle": np.nan}, "angle: expected a finite number"),
        ("parabolic_vessel", {"tissue_db": np.inf}, "tissue_db"),
        ("rotating_disk", {"radius": -1.0}, "radius: expected m above 0"),
        ("rotating_disk", {"mean_distance": 0.0}, "mean_distance: expected m above 0"),
    ],
)
def test_wrong_phantoms_are_refused(make, options, said):
    with pytest.raises(ValueError, match=said):
        getattr(ussim.flow, make)(ONE, **options)
