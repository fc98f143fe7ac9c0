"""What makes echoes those of a real scanner: each part by its physics, in files, in words, and in all engines alike."""

import dataclasses
import json

import numpy as np
import pytest

import ussim
from ussim import physics
from ussim.engines.reference import ENGINE as reference
from ussim.io.plain import acquisition_from_dict, acquisition_to_dict
from ussim.plan import make_plan
from ussim.receive import noise_shape
from ussim.show.describe import describe_imperfections

PROBE = dataclasses.replace(ussim.load_probe("P4-2v"), n_elements=24, path="")
PLAIN = ussim.Acquisition(PROBE, ussim.PlaneWaves(np.deg2rad([-5.0, 5.0])))
POINTS = ussim.Scatterers([0.0, 4e-3, -3e-3], [30e-3, 42e-3, 51e-3], [1.0, -0.7, 0.5])
PARTS = {
    "backscatter": {"medium": ussim.Medium(backscatter_exponent=3.0)},
    "aberration": {"aberration": ussim.PhaseScreen(60e-9, 3e-3, seed=5)},
    "element errors": {"element_errors": ussim.ElementErrors(3.0, dead=(2,), dead_fraction=0.1, seed=6)},
    "noise": {"receive_chain": ussim.ReceiveChain(snr_db=20.0)},
    "time gain": {"receive_chain": ussim.ReceiveChain(time_gain=ussim.TimeGain([0.0, 30e-3, 60e-3], [0.0, 3.0, 20.0]))},
    "jitter": {"receive_chain": ussim.ReceiveChain(jitter=4e-9)},
}
ALL = {
    "medium": ussim.Medium(1540.0, 0.3, backscatter_exponent=2.0),
    **PARTS["aberration"],
    **PARTS["element errors"],
    "receive_chain": ussim.ReceiveChain(
        30.0, 1.2, ussim.TimeGain([0.0, 50e-3], [0.0, 10.0]), True, 2e-9, 14, None, 3.0, 8
    ),
}


def channels(n_records=0, n_samples=4000, acquisition=PLAIN, start_time=0.0):
    """Gaussian samples as channel data, one record or a stack."""
    shape = (*([n_records] if n_records else []), acquisition.n_transmits, acquisition.probe.n_elements, n_samples)
    samples = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return ussim.RFData(samples, acquisition, acquisition.sampling_frequency, start_time)


def tone(frequency, n_samples=4000):
    """A sine in every channel, faded in and out so that the record has no edges."""
    rf = channels(n_samples=n_samples)
    wave = np.sin(2 * np.pi * frequency * np.arange(n_samples) / rf.sampling_frequency) * np.hanning(n_samples)
    return dataclasses.replace(rf, samples=np.broadcast_to(wave, rf.samples.shape).copy())


def passed(rf, **chain):
    return ussim.apply_receive_chain(rf, ussim.ReceiveChain(**chain))


def rms(values):
    return float(np.sqrt(np.mean(np.asarray(values, dtype=np.float64) ** 2)))


# --- noise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bandwidth", [None, 0.4, 2.0])
def test_noise_has_its_level_and_its_spectrum(bandwidth):
    rf = channels()
    noise = passed(rf, snr_db=14.0, noise_bandwidth=bandwidth).samples.astype(np.float64) - rf.samples
    level = rms(rf.samples) * 10 ** (-14 / 20)
    # 192,000 samples, a fifth of them independent at a bandwidth of 0.4: an RMS is certain to 0.4 %.
    assert abs(rms(noise) / level - 1) < 0.015
    frequency = np.fft.rfftfreq(noise.shape[-1], 1 / rf.sampling_frequency)
    power = (np.abs(np.fft.rfft(noise, axis=-1)) ** 2).mean(axis=(0, 1)) / noise.shape[-1] / level**2
    if bandwidth == 2.0:
        expected = np.ones(len(frequency))
    else:
        width = PROBE.bandwidth if bandwidth is None else bandwidth
        expected = physics.probe_spectrum(frequency, PROBE.center_frequency, width) ** 2
        edges = PROBE.center_frequency * (1 + np.array([-0.5, 0.5]) * width)
        np.testing.assert_allclose(np.interp(edges, frequency, expected), 0.5, rtol=0.01)  # full width at half power
        expected *= len(frequency) / expected.sum()
    for part in np.array_split(np.arange(1, len(frequency) - 1), 25):  # 80 bins of 48 channels each: certain to 1.6 %
        if expected[part].mean() > 1e-3:
            assert abs(power[part].mean() / expected[part].mean() - 1) < 0.08
        else:
            assert power[part].mean() < 2e-3


def test_noise_is_independent_between_channels_transmits_and_records():
    rf = channels(3, n_samples=1000)
    noise = (passed(rf, snr_db=0.0).samples - rf.samples).reshape(-1, 1000)
    correlation = np.corrcoef(noise)[np.triu_indices(len(noise), 1)]
    # The band leaves some 400 independent samples of 1000: a correlation of one pair is 0.05, the largest of 10,000 0.25.
    assert np.abs(correlation).max() < 0.3
    assert rms(correlation) < 0.08


def test_a_seed_is_a_noise_and_other_parts_do_not_move_it():
    rf = channels(n_samples=500)
    first, again = (passed(rf, snr_db=10.0, seed=4).samples for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert rms(first - passed(rf, snr_db=10.0, seed=5).samples) > 0.3
    fine = passed(rf, snr_db=10.0, seed=4, n_bits=24).samples
    np.testing.assert_allclose(fine, first, atol=2 * np.abs(first).max() / 2**23)
    # Of a stack, record i has stream i: the first is that of one record alone.
    stack = dataclasses.replace(rf, samples=np.stack([rf.samples, rf.samples]))
    two = passed(stack, snr_db=10.0, seed=4).samples
    np.testing.assert_array_equal(two[0], first)
    assert rms(two[1] - first) > 0.3


def test_silence_stays_silent_and_masked_channels_too():
    silent = dataclasses.replace(channels(n_samples=100), samples=np.zeros((2, 24, 100), np.float32))
    out = passed(silent, snr_db=20.0, jitter=1e-9, n_bits=8).samples
    assert not out.any()
    masked = dataclasses.replace(PLAIN, receive_mask=np.arange(24) != 7)
    rf = passed(channels(acquisition=masked, n_samples=100), snr_db=0.0)
    assert not rf.samples[:, 7].any()
    assert rf.samples[:, 8].all()


# --- time gain -------------------------------------------------------------------------------------------------------


def test_time_gain_is_undone_by_its_inverse():
    curve = ussim.TimeGain([5e-3, 20e-3, 60e-3], [-3.0, 8.0, 30.0])
    rf = channels(start_time=np.array([0.0, 1e-5]))
    out = ussim.apply_time_gain(rf, curve)
    back = ussim.apply_time_gain(out, curve.inverse())
    np.testing.assert_allclose(back.samples, rf.samples, rtol=4e-7)  # two roundings of float32
    for transmit, start in enumerate((0.0, 1e-5)):
        depth = 1540.0 * (start + np.arange(4000) / rf.sampling_frequency) / 2
        gain_db = 20 * np.log10(out.samples[transmit, 0] / rf.samples[transmit, 0])
        np.testing.assert_allclose(gain_db, np.interp(depth, curve.depths, curve.gains_db), atol=1e-5)
    in_chain = passed(rf, time_gain=curve)
    np.testing.assert_array_equal(in_chain.samples, out.samples)


def test_compensation_in_the_chain_is_that_after_it():
    lossy = dataclasses.replace(PLAIN, medium=ussim.Medium(1540.0, 0.7))
    rf = channels(acquisition=lossy)
    np.testing.assert_array_equal(passed(rf, compensation=True).samples, ussim.time_gain_compensation(rf).samples)


# --- elements --------------------------------------------------------------------------------------------------------


def test_a_dead_element_neither_sends_nor_hears():
    dead = (3, 17)
    errors = dataclasses.replace(PLAIN, element_errors=ussim.ElementErrors(dead=dead))
    alive = ~np.isin(np.arange(24), dead)
    known = dataclasses.replace(
        PLAIN, waves=ussim.PlaneWaves(PLAIN.waves.angles, apodization=alive.astype(float)), receive_mask=alive
    )
    delays = PLAIN.transmit_delays[:, 0]  # of the whole array, on which the delays of a part begin later
    known = dataclasses.replace(known, waves=ussim.CustomTransmits(delays, apodization=alive.astype(float)))
    got, expected = (ussim.simulate(POINTS, a, "reference", n_samples=900).samples for a in (errors, known))
    assert not got[:, list(dead)].any()
    assert np.abs(got[:, alive]).max(axis=(0, 2)).all()
    np.testing.assert_array_equal(got, expected)


def test_elements_send_as_well_as_they_hear():
    """Reciprocity: what element a sends to b is what b sends to a, gains and all."""
    few = dataclasses.replace(PROBE, n_elements=6)
    errors = ussim.ElementErrors(6.0, seed=3)
    acquisition = ussim.Acquisition(few, ussim.SyntheticAperture(), element_errors=errors)
    samples = ussim.simulate(POINTS, acquisition, "reference", n_samples=900).samples
    np.testing.assert_allclose(samples, samples.swapaxes(0, 1), atol=1e-9 * np.abs(samples).max())
    plain = ussim.simulate(POINTS, dataclasses.replace(acquisition, element_errors=None), "reference", n_samples=900)
    gains = errors.gains(6)
    expected = plain.samples * gains[:, None, None] * gains[None, :, None]
    np.testing.assert_allclose(samples, expected, atol=1e-9 * np.abs(expected).max())


def test_gains_are_spread_as_asked_and_so_many_are_dead():
    gains = ussim.ElementErrors(2.0, dead=(0, 9), dead_fraction=0.05, seed=1).gains(4000)
    assert (gains == 0).sum() == 202
    assert gains[0] == gains[9] == 0
    levels = 20 * np.log10(gains[gains > 0])
    assert abs(levels.std() / 2 - 1) < 0.04  # of 3800 numbers: certain to 1.2 %
    assert abs(levels.mean()) < 0.13
    np.testing.assert_array_equal(ussim.ElementErrors().gains(5), np.ones(5))


# --- converter and clock ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_bits", [6, 10])
def test_rounding_errs_uniformly_by_step_over_sqrt_12(n_bits):
    rf = channels()
    out = passed(rf, n_bits=n_bits, full_scale=6.0).samples.astype(np.float64)
    step = 6.0 / 2 ** (n_bits - 1)
    error = (out - rf.samples)[np.abs(rf.samples) < 6.0 - step]
    # 192,000 errors, of 10 bits known to the 5e-7 of a float32 at 6.
    assert abs(rms(error) / (step / np.sqrt(12)) - 1) < 0.01
    assert abs(error.mean()) < 0.01 * step
    assert np.abs(error).max() <= 0.501 * step
    counts, _ = np.histogram(error, bins=10, range=(-step / 2, step / 2))
    assert np.abs(counts / counts.mean() - 1).max() < 0.03  # uniform: 19,200 a bin, certain to 0.7 %
    np.testing.assert_allclose(out / step, np.rint(out / step), atol=1e-4)


def test_full_scale_is_that_of_each_record_or_as_given():
    rf = channels(2, n_samples=300)
    rf = dataclasses.replace(rf, samples=rf.samples * np.array([1.0, 100.0], np.float32)[:, None, None, None])
    for record, given in zip(passed(rf, n_bits=4).samples, rf.samples, strict=True):
        step = np.abs(given).max() / 8
        assert len(np.unique(np.rint(record / step))) <= 16
        assert np.abs(record - given).max() <= 1.001 * step  # the largest of all has no level above it
    clipped = passed(rf, n_bits=12, headroom_db=-6.0).samples
    for record, given in zip(clipped, rf.samples, strict=True):
        assert np.isclose(np.abs(record).max(), np.abs(given).max() * 10 ** (-6 / 20), rtol=1e-3)
    assert np.abs(passed(rf, n_bits=12, full_scale=0.5).samples).max() == 0.5


def test_the_error_of_jitter_grows_as_the_frequency():
    jitter = 2e-9
    for frequency in np.array([0.5, 1.0, 1.5]) * PROBE.center_frequency:
        rf = tone(frequency)
        error = passed(rf, jitter=jitter).samples.astype(np.float64) - rf.samples
        # 192,000 samples under a window: certain to 0.3 %; the window itself bends the sine by less.
        assert abs(rms(error) / (2 * np.pi * frequency * jitter * rms(rf.samples)) - 1) < 0.01


def test_samples_are_those_of_the_times_that_were_meant():
    """The longest jitter that is allowed, against the sine at the true times."""
    frequency = PROBE.center_frequency
    jitter = 0.02 / frequency
    rf = dataclasses.replace(tone(frequency), samples=tone(frequency).samples.astype(np.float64))
    got = passed(rf, jitter=jitter).samples
    rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(0, 1)))
    error = jitter * np.stack([rng.standard_normal((24, 4000), dtype=np.float32) for _ in range(2)])
    place = np.arange(4000) + error * rf.sampling_frequency
    window = 0.5 - 0.5 * np.cos(2 * np.pi * place / 3999)
    inside = (place > 0) & (place < 3999)
    expected = np.sin(2 * np.pi * frequency * place / rf.sampling_frequency) * window * inside
    # The series' rest, x^5 / 120 for Gaussian x of RMS 0.13, is 8e-6 of the amplitude.
    assert rms(got - expected) < 8e-6
    assert rms(got - rf.samples) > 0.05


def test_jitter_is_bounded_by_the_period():
    with pytest.raises(ValueError, match=r"jitter: expected at most 0\.02 periods"):
        dataclasses.replace(PLAIN, receive_chain=ussim.ReceiveChain(jitter=0.021 / PROBE.center_frequency))


# --- tissue ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [1.0, 4.0])
def test_the_backscatter_exponent_is_seen_in_the_spectrum(exponent):
    scattering = dataclasses.replace(PLAIN, medium=ussim.Medium(backscatter_exponent=exponent))
    point = ussim.Scatterers([0.0], [40e-3], [1.0])
    plain, colored = (ussim.simulate(point, a, "reference", n_samples=1024).samples for a in (PLAIN, scattering))
    frequency = np.fft.rfftfreq(1024, 1 / PLAIN.sampling_frequency)
    band = np.abs(frequency / PROBE.center_frequency - 1) < 0.4
    ratio = np.abs(np.fft.rfft(colored)[..., band]) / np.abs(np.fft.rfft(plain)[..., band])
    slope, level = np.polyfit(np.log(frequency[band] / PROBE.center_frequency), 2 * np.log(ratio).mean(axis=(0, 1)), 1)
    assert abs(slope - exponent) < 1e-3  # exact but for what the record cuts off
    assert abs(level) < 1e-3  # 1 at the center frequency
    # The pressure is not the scatterers' matter.
    grid = ussim.ImageGrid(x=np.linspace(-1e-3, 1e-3, 3), z=np.linspace(20e-3, 30e-3, 3))
    fields = [ussim.pressure_field(a, grid, engine="reference") for a in (PLAIN, scattering)]
    np.testing.assert_array_equal(*fields)


def test_a_phase_screen_has_its_rms_and_correlation_length():
    wide = dataclasses.replace(PROBE, n_elements=1024)
    length = 5e-3
    screens = np.array([ussim.PhaseScreen(50e-9, length, seed).delays(wide) for seed in range(60)])
    np.testing.assert_allclose(np.sqrt((screens**2).mean(axis=1)), 50e-9, rtol=1e-12)
    assert np.abs(screens.mean(axis=1)).max() < 1e-20
    lags = np.arange(30)
    correlation = np.array([(screens[:, : 1024 - k] * screens[:, k:]).mean() for k in lags]) / (50e-9) ** 2
    half = np.interp(-0.5, -correlation, lags) * wide.pitch
    assert abs(2 * half / length - 1) < 0.05  # 60 screens of 60 correlation lengths
    # Elements far apart are independent, whatever less than the pitch is asked for.
    fine = ussim.PhaseScreen(50e-9, 1e-9).delays(wide)
    assert abs(np.mean(fine[1:] * fine[:-1])) / (50e-9) ** 2 < 0.15


def test_a_phase_screen_delays_both_ways():
    screen = PARTS["aberration"]["aberration"]
    delays = screen.delays(PROBE)
    as_delays = ussim.Acquisition(
        PROBE, ussim.CustomTransmits(PLAIN.transmit_delays[:, 0] + delays), receive_delays=delays
    )
    got, expected = (
        ussim.simulate(POINTS, a, "reference", n_samples=900).samples
        for a in (dataclasses.replace(PLAIN, aberration=screen), as_delays)
    )
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(make_plan(PLAIN).receive_delays, np.zeros(24))


def lateral_profile(acquisition):
    """Amplitude across a point at 40 mm, under what the scanner takes for the acquisition."""
    rf = ussim.simulate(ussim.Scatterers([0.0], [40e-3], [1.0]), acquisition, "cpu")
    grid = ussim.ImageGrid(x=np.linspace(-12e-3, 12e-3, 121), z=np.linspace(38e-3, 42e-3, 41))
    return np.abs(ussim.delay_and_sum(ussim.demodulate(rf), grid, f_number=0, engine="cpu")).max(axis=0)


def test_aberration_widens_a_point_and_weakens_it():
    probe = ussim.load_probe("P4-2v")
    sharp = ussim.Acquisition(probe, ussim.imaging_waves(probe, n_transmits=7))
    clean = lateral_profile(sharp)
    width = (clean > clean.max() / 10).sum()
    for seed in range(3):
        blurred = lateral_profile(dataclasses.replace(sharp, aberration=ussim.PhaseScreen(70e-9, 3e-3, seed)))
        assert blurred.max() < 0.8 * clean.max()
        assert (blurred > blurred.max() / 10).sum() > 1.5 * width  # at -20 dB


@pytest.mark.parametrize(
    "nothing",
    [
        {"aberration": ussim.PhaseScreen(0.0, 3e-3)},
        {"element_errors": ussim.ElementErrors()},
        {"receive_chain": ussim.ReceiveChain()},
        {"medium": ussim.Medium(backscatter_exponent=0.0)},
    ],
)
@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_a_part_that_does_nothing_changes_no_byte(nothing, engine):
    with_part = dataclasses.replace(PLAIN, **nothing)
    got, expected = (ussim.simulate(POINTS, a, engine, n_samples=700).samples for a in (with_part, PLAIN))
    assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("error", [-0.03, 0.04])
def test_a_speed_of_sound_error_shifts_depths_by_its_ratio(error):
    believed = 1540.0 * (1 + error)
    acquisition = dataclasses.replace(PLAIN, waves=ussim.PlaneWaves(0.0))
    fired = ussim.with_steering_speed(acquisition, believed)
    depth = 40e-3
    rf = ussim.simulate(ussim.Scatterers([0.0], [depth], [1.0]), fired, "reference")
    z = np.linspace(37e-3, 43e-3, 601)
    grid = ussim.ImageGrid(x=np.array([0.0]), z=z)
    image = ussim.delay_and_sum(ussim.demodulate(rf), grid, f_number=4.0, speed_of_sound=believed, engine="reference")
    seen = z[np.abs(image[:, 0]).argmax()]
    # At f-number 4 the aperture's curvature, wrong by the same ratio, moves the peak by less than 0.1 mm.
    assert abs(seen - depth * (1 + error)) < 1e-4
    assert abs(seen - depth) > 1e-3
    assert ussim.with_steering_speed(acquisition, 1540.0) is acquisition


def test_a_steering_speed_keeps_apodization_and_all_else():
    weights = np.hanning(24)
    acquisition = ussim.Acquisition(PROBE, ussim.PlaneWaves(0.1, apodization=weights), **ALL)
    fired = ussim.with_steering_speed(acquisition, 1500.0)
    np.testing.assert_array_equal(fired.transmit_weights[0], weights)
    np.testing.assert_allclose(fired.transmit_delays * 1500, acquisition.transmit_delays * 1540, atol=1e-12)
    assert fired.aberration is acquisition.aberration
    assert fired.medium.speed_of_sound == 1540.0


# --- all of it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", PARTS)
def test_the_cpu_engine_is_as_the_reference(part):
    acquisition = dataclasses.replace(PLAIN, **PARTS[part])
    got, expected = (ussim.simulate(POINTS, acquisition, e, n_samples=900).samples for e in ("cpu", "reference"))
    # 1e-4 is the tolerance of RF; noise is the same but for its level.
    assert np.linalg.norm(got - expected) < 1e-4 * np.linalg.norm(expected)
    plain = ussim.simulate(POINTS, PLAIN, "reference", n_samples=900).samples
    assert np.linalg.norm(expected - plain) > 1e-2 * np.linalg.norm(plain)  # it does something


def test_all_parts_together_agree_to_a_level_of_the_converter():
    """Where two engines differ by 3e-5 a sample may round to the neighboring level: a step of few samples, no more."""
    acquisition = dataclasses.replace(PLAIN, **ALL)
    got, expected = (ussim.simulate(POINTS, acquisition, e, n_samples=900).samples for e in ("cpu", "reference"))
    fine = dataclasses.replace(acquisition, receive_chain=dataclasses.replace(ALL["receive_chain"], n_bits=24))
    a, b = (ussim.simulate(POINTS, fine, e, n_samples=900).samples for e in ("cpu", "reference"))
    assert np.linalg.norm(a - b) < 1e-4 * np.linalg.norm(b)
    step = np.abs(b).max() * 10 ** (3 / 20) / 2**13
    assert np.abs(got - expected).max() < 1.1 * step  # full scale follows the record's own largest sample
    assert np.mean(np.abs(got - expected) > 0.5 * step) < 0.1


def test_a_batch_and_a_stack_hear_the_same_noise():
    acquisition = dataclasses.replace(PLAIN, receive_chain=ussim.ReceiveChain(snr_db=10.0))
    media = [POINTS, POINTS]
    batch = ussim.simulate_batch(media, acquisition, "reference", n_samples=700)
    stack = ussim.simulate_stack(media, acquisition, "reference", n_samples=700)
    alone = ussim.simulate(POINTS, acquisition, "reference", n_samples=700)
    np.testing.assert_array_equal(stack.samples, np.stack([each.samples for each in batch]))
    np.testing.assert_array_equal(batch[0].samples, alone.samples)
    assert rms(batch[1].samples - batch[0].samples) > 0.1 * rms(alone.samples)
    assert ussim.simulate_batch([], acquisition, "reference", n_samples=700) == []


def test_frames_of_what_moves_hear_a_noise_each():
    """The chain comes once, after all echoes of a frame have been added up; a transmit of dead elements records noise."""
    moving = ussim.MovingScatterers([0.0], [30e-3], [1.0], 0.0, 0.05)
    few = dataclasses.replace(PROBE, n_elements=4)
    acquisition = ussim.Acquisition(few, ussim.SyntheticAperture(), element_errors=ussim.ElementErrors(dead=(1,)))
    noisy = dataclasses.replace(acquisition, receive_chain=ussim.ReceiveChain(snr_db=20.0, seed=2))
    frames = [ussim.simulate_frames(moving, a, 3, 4000.0, "reference", n_samples=700) for a in (acquisition, noisy)]
    assert not frames[0].samples[:, 1].any()
    again = ussim.apply_receive_chain(frames[0], noisy.receive_chain)
    np.testing.assert_array_equal(frames[1].samples, again.samples)
    np.testing.assert_array_equal(frames[1].firing_times, frames[0].firing_times)
    assert frames[1].acquisition.receive_chain is noisy.receive_chain
    noise = frames[1].samples - frames[0].samples
    assert abs(20 * np.log10(rms(frames[0].samples) / rms(noise)) - 20) < 0.2
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.05


def test_simulate_is_the_chain_after_the_echoes():
    chain = ALL["receive_chain"]
    acquisition = dataclasses.replace(PLAIN, **ALL)
    echoes = ussim.simulate(POINTS, dataclasses.replace(acquisition, receive_chain=None), "reference", n_samples=600)
    before = echoes.samples.copy()
    got = ussim.apply_receive_chain(echoes, chain)
    np.testing.assert_array_equal(echoes.samples, before)
    np.testing.assert_array_equal(got.samples, ussim.simulate(POINTS, acquisition, "reference", n_samples=600).samples)
    assert got.acquisition.receive_chain is chain
    with pytest.raises(ValueError, match="through no receive chain, got some that have"):
        ussim.apply_receive_chain(got, chain)
    with pytest.raises(ValueError, match="expected RFData"):
        ussim.apply_receive_chain(ussim.demodulate(echoes), chain)
    with pytest.raises(ValueError, match=r"seeds: expected one per record \(1\), got 0"):
        ussim.apply_receive_chain(echoes, chain, seeds=[])


def test_the_operator_and_its_transpose_have_what_is_linear():
    acquisition = dataclasses.replace(PLAIN, **ALL)
    operator = ussim.imaging_operator(acquisition, POINTS, "reference", n_samples=700)
    echoes = operator.forward(POINTS.reflectivity)
    linear = dataclasses.replace(acquisition, receive_chain=None)
    np.testing.assert_array_equal(echoes.samples, ussim.simulate(POINTS, linear, "reference", n_samples=700).samples)
    assert echoes.acquisition.receive_chain is None
    y = np.random.default_rng(0).standard_normal(operator.shape[0])
    np.testing.assert_allclose((operator @ POINTS.reflectivity) @ y, POINTS.reflectivity @ (operator.H @ y), rtol=1e-9)


def test_a_measured_response_shapes_the_noise_too():
    response = ussim.ImpulseResponse(np.hanning(31) * np.sin(np.arange(31)), 8 * PROBE.center_frequency)
    acquisition = dataclasses.replace(PLAIN, impulse_response=response)
    rf = channels(acquisition=acquisition, n_samples=512)
    shape = noise_shape(rf, ussim.ReceiveChain(snr_db=0.0))
    frequency = np.fft.rfftfreq(512, 1 / rf.sampling_frequency)
    expected = np.abs(response.receive(frequency))
    np.testing.assert_allclose(shape / shape.max(), expected / expected.max(), rtol=1e-9)


# --- files and words -------------------------------------------------------------------------------------------------


def test_files_keep_every_part_and_those_without_are_as_they_were(tmp_path):
    acquisition = dataclasses.replace(PLAIN, **ALL)
    rf = ussim.simulate(POINTS, acquisition, "reference", n_samples=300)
    rf.save(tmp_path / "real.npz")
    back = ussim.load_channel_data(tmp_path / "real.npz")
    np.testing.assert_array_equal(back.samples, rf.samples)
    assert acquisition_to_dict(back.acquisition) == acquisition_to_dict(acquisition)
    assert back.acquisition.key() == acquisition.key()
    plain = acquisition_to_dict(PLAIN)
    assert not plain.keys() & {"aberration", "element_errors", "receive_chain"}
    assert plain["medium"].keys() == {"speed_of_sound", "attenuation_db_cm_mhz"}
    assert acquisition_from_dict(json.loads(json.dumps(plain))).key() == PLAIN.key()
    broken = acquisition_to_dict(acquisition) | {"aberration": {"rms_delay": 1e-9, "width": 3}}
    with pytest.raises(ValueError, match="aberration: expected the key 'correlation_length'"):
        acquisition_from_dict(broken)


@pytest.mark.parametrize("part", [*PARTS, "all"])
def test_each_part_has_a_key_of_its_own(part):
    changed = dataclasses.replace(PLAIN, **(ALL if part == "all" else PARTS[part]))
    assert changed.key() != PLAIN.key()
    assert acquisition_from_dict(acquisition_to_dict(changed)).key() == changed.key()


def test_words_and_the_scanners_own_view():
    acquisition = dataclasses.replace(PLAIN, **ALL)
    assert describe_imperfections(acquisition) == (
        ", backscatter with f^2, aberration of 60 ns RMS over 3 mm, gains ±3 dB, 3 of 24 elements dead, noise 30 dB below "
        "the echoes, time gain of 0 to 10 dB, jitter 2 ns, 14 bits"
    )
    assert describe_imperfections(PLAIN) == ""
    assert "aberration=PhaseScreen(rms_delay=6e-08, correlation_length=0.003, seed=5)" in repr(acquisition)
    assert "receive_chain=ReceiveChain(snr_db=30" in repr(acquisition)
    nominal = acquisition.nominal
    assert describe_imperfections(nominal) == ", backscatter with f^2"
    np.testing.assert_array_equal(nominal.transmit_delays, acquisition.transmit_delays)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: ussim.PhaseScreen(50.0, 3e-3),
            r"rms_delay: expected s of 0 to 0\.001, got 50\.0 \(ns\? write 50e-9\)",
        ),
        (lambda: ussim.PhaseScreen(-1e-9, 3e-3), "rms_delay: expected s"),
        (lambda: ussim.PhaseScreen(5e-8, 3.0), r"correlation_length: expected m .*\(mm\? write 3e-3\)"),
        (lambda: ussim.PhaseScreen(5e-8, 0.0), "correlation_length: expected m above 0"),
        (lambda: ussim.PhaseScreen(5e-8, 3e-3, -1), "seed: expected a whole number"),
        (lambda: ussim.ElementErrors(float("nan")), "gain_spread_db: expected dB"),
        (lambda: ussim.ElementErrors(dead=(1, 1)), "dead: expected different numbers"),
        (lambda: ussim.ElementErrors(dead=(-1,)), "dead: expected different numbers"),
        (lambda: ussim.ElementErrors(dead_fraction=5), r"dead_fraction: expected a share .*\(percent\? write 5e-2\)"),
        (
            lambda: dataclasses.replace(PLAIN, element_errors=ussim.ElementErrors(dead=(24,))),
            "numbers of 0 to 23, got 24",
        ),
        (lambda: dataclasses.replace(PLAIN, element_errors=ussim.ElementErrors(dead_fraction=1.0)), "24 of 24 dead"),
        (lambda: dataclasses.replace(PLAIN, element_errors=3), "element_errors: expected ElementErrors"),
        (lambda: dataclasses.replace(PLAIN, aberration=(50e-9, 3e-3)), "aberration: expected PhaseScreen"),
        (lambda: ussim.ReceiveChain(snr_db=float("inf")), "snr_db: expected dB"),
        (
            lambda: ussim.ReceiveChain(noise_bandwidth=70),
            "noise_bandwidth: expected a fraction of the center frequency",
        ),
        (lambda: ussim.ReceiveChain(n_bits=10.5), "n_bits: expected a whole number of 2 to 24"),
        (lambda: ussim.ReceiveChain(n_bits=32), "n_bits: expected a whole number of 2 to 24"),
        (lambda: ussim.ReceiveChain(full_scale=0.0), "full_scale: expected an amplitude above 0"),
        (lambda: ussim.ReceiveChain(jitter=1.0), r"jitter: expected s .*\(ns\? write 1e-9\)"),
        (lambda: ussim.ReceiveChain(time_gain=[0, 5]), "time_gain: expected a TimeGain"),
        (lambda: ussim.TimeGain([0.0, 0.0], [1.0, 2.0]), "depths: expected finite increasing depths"),
        (lambda: ussim.TimeGain([0.0, 0.1], [1.0]), "gains_db: expected 2 numbers"),
        (lambda: ussim.TimeGain([0.0], [np.nan]), "gains_db: expected 1 numbers"),
        (lambda: ussim.Medium(backscatter_exponent=-1.0), "backscatter_exponent: expected a number of 0 to 6"),
        (lambda: ussim.with_steering_speed(PLAIN, 1.5), r"speed_of_sound: expected m/s"),
    ],
)
def test_what_cannot_be_is_one_line(make, words):
    with pytest.raises(ValueError, match=rf"^[^\n]*{words}[^\n]*$"):
        make()


def test_the_reference_engine_takes_part():
    """The plan of the engines has the parts, and what beamforms has not."""
    acquisition = dataclasses.replace(PLAIN, **PARTS["aberration"], **PARTS["element errors"])
    plan = make_plan(acquisition)
    assert (plan.weights[:, :, 2] == 0).all()
    assert plan.receive_delays.any()
    assert acquisition.receive_delays is None
    assert acquisition.transmit_weights.all()
    heard = reference.simulate(POINTS, plan, 600)
    assert heard[:, 2].any()  # what the engine gives is taken from dead channels after it
