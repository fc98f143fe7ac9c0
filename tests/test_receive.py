"""Time-gain compensation: what the medium took comes back, to the sample."""

import dataclasses

import numpy as np
import pytest

import ussim

PROBE = ussim.load_probe("P4-2v")
LOSSY = ussim.Acquisition(PROBE, ussim.PlaneWaves([0.0]), ussim.Medium(1540.0, 0.5))


def record(n_samples=400, start_time=0.0, n_transmits=1, complex_data=False):
    acquisition = dataclasses.replace(LOSSY, waves=ussim.PlaneWaves(np.zeros(n_transmits)))
    samples = np.random.default_rng(0).standard_normal((n_transmits, 64, n_samples)).astype(np.float32)
    if complex_data:
        return ussim.IQData(
            samples * np.complex64(1 + 1j), acquisition, acquisition.sampling_frequency, 2.72e6, start_time
        )
    return ussim.RFData(samples, acquisition, acquisition.sampling_frequency, start_time)


def test_echoes_of_equal_scatterers_are_as_without_loss():
    lossless = dataclasses.replace(LOSSY, medium=ussim.Medium(1540.0, 0.0))
    for depth in (0.03, 0.06):
        scatterer = ussim.Scatterers([0.0], [depth], [1.0])
        n = ussim.simulate(scatterer, lossless, "reference").samples.shape[-1]
        wanted = np.abs(ussim.simulate(scatterer, lossless, "reference", n_samples=n).samples).max()
        got = ussim.simulate(scatterer, LOSSY, "reference", n_samples=n)
        lost = 20 * np.log10(wanted / np.abs(got.samples).max())
        again = 20 * np.log10(wanted / np.abs(ussim.time_gain_compensation(got).samples).max())
        # Loss at 2.72 MHz is 2.72 dB per centimeter of depth. High frequencies lose more than low ones: the pulse is longer
        # and its center lower, which a gain for the carrier answers to within a fifth.
        assert lost > 2.0 * 100 * depth
        assert abs(again) < 0.2 * lost


def test_the_gain_is_that_of_the_path_at_the_centre_frequency():
    rf = record(start_time=1e-5)
    before = rf.samples.copy()
    out = ussim.time_gain_compensation(rf)
    time = 1e-5 + np.arange(400) / rf.sampling_frequency
    gain_db = 0.5 * PROBE.center_frequency / 1e6 * (1540.0 * time * 100)
    np.testing.assert_array_equal(out.samples, before * (10 ** (gain_db / 20)).astype(np.float32))
    np.testing.assert_array_equal(rf.samples, before)  # the caller's stay
    assert ussim.time_gain_compensation(rf, in_place=True) is rf
    np.testing.assert_array_equal(rf.samples, out.samples)


def test_each_transmit_has_its_own_clock_and_nothing_is_amplified_before_time_zero():
    starts = np.array([-2e-5, 3e-5])
    out = ussim.time_gain_compensation(record(start_time=starts, n_transmits=2)).samples
    alone = [dataclasses.replace(record(start_time=float(s)), samples=record(n_transmits=2).samples[i : i + 1])
             for i, s in enumerate(starts)]  # fmt: skip
    for i, one in enumerate(alone):
        np.testing.assert_array_equal(out[i], ussim.time_gain_compensation(one).samples[0])
    np.testing.assert_array_equal(out[0, :, 0], record(n_transmits=2).samples[0, :, 0])


def test_iq_data_and_stacks_and_other_values():
    iq = ussim.time_gain_compensation(record(complex_data=True), 1.0, frequency=2e6, speed_of_sound=1500.0)
    assert iq.samples.dtype == np.complex64
    time = np.arange(400) / iq.sampling_frequency
    expected = record(complex_data=True).samples * (10 ** (2.0 * 1500 * time * 100 / 20)).astype(np.float32)
    np.testing.assert_allclose(iq.samples, expected, rtol=1e-6)  # the gain rounded to float32
    rf = record()
    stack = dataclasses.replace(rf, samples=np.stack([rf.samples, 2 * rf.samples]))
    out = ussim.time_gain_compensation(stack).samples
    np.testing.assert_array_equal(out[0], ussim.time_gain_compensation(rf).samples)
    assert out.shape == (2, 1, 64, 400)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"attenuation_db_cm_mhz": -0.5}, "attenuation_db_cm_mhz: expected dB/cm/MHz of at least 0, got -0.5"),
        ({"frequency": 0.0}, "frequency: expected Hz above 0"),
        ({"speed_of_sound": float("nan")}, "speed_of_sound: expected m/s above 0"),
    ],
)
def test_values_out_of_range(arguments, words):
    with pytest.raises(ValueError, match=words):
        ussim.time_gain_compensation(record(), **arguments)
