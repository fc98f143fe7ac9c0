"""Demodulation: MUST's arrays, the filter, sampling below twice the carrier, what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat
from scipy.signal import butter, filtfilt

import ussim
from ussim.demodulation import filter_law
from ussim.engines.cpu.beamform import mix_and_filter
from ussim.plan import FILTER_ORDER


def channel_data(samples, probe, sampling_frequency=None, start_time=0.0):
    """RFData of one transmit of all elements at once."""
    acquisition = ussim.Acquisition(probe, ussim.CustomTransmits(np.zeros((len(samples), probe.n_elements))))
    return ussim.RFData(samples, acquisition, sampling_frequency or 4 * probe.center_frequency, start_time)


def pulse_train(time, frequency, bandwidth=0.3):
    """A few Gaussian-modulated pulses and their complex envelope about `frequency`."""
    envelope = np.zeros_like(time, dtype=complex)
    for delay, amplitude in ((4e-6, 1.0), (7.3e-6, 0.5), (11.1e-6, 0.8)):
        shape = np.exp(-(((time - delay) * bandwidth * frequency * 2.0) ** 2))
        envelope += amplitude * shape * np.exp(-2j * np.pi * frequency * delay)
    return (envelope * np.exp(2j * np.pi * frequency * time)).real, envelope


@pytest.mark.parametrize("name", ["L11-5v", "L12-3v", "C5-2v", "P4-2v"])
def test_matches_must(golden, name):
    arrays, probe = golden(f"beamform_{name}"), ussim.load_probe(name)
    # complex64 of the same float64 arithmetic: equal but for the order of the filter's sums (seen: 0 to 1e-7).
    for law in ("plane_+0deg", "plane_+10deg"):
        rf = channel_data(arrays[f"RFin_{law}"].T[None], probe)
        iq = ussim.demodulate(rf).samples[0, arrays["channels"]].T
        expected = arrays[f"IQ_rf2iq_{law}"]
        assert np.linalg.norm(iq - expected) < 2e-7 * np.linalg.norm(expected)
    # Without a bandwidth MUST passes half the sampling frequency: at 4 samples per period, a bandwidth of 2.
    rf = channel_data(arrays["RFin_plane_+0deg"].T[None], probe)
    iq = ussim.demodulate(rf, bandwidth=2.0).samples[0, arrays["channels"]].T
    expected = arrays["IQ_rf2iq_nobandwidth_plane_+0deg"]
    assert np.linalg.norm(iq - expected) < 2e-7 * np.linalg.norm(expected)


@pytest.mark.parametrize("n_samples", [1, 2, 10, 19, 500])
def test_filter_is_filtfilt_with_its_edges(n_samples):
    probe = ussim.load_probe("P4-2v")  # 64 elements x 3 transmits: whole blocks of lanes; 17 below: a rest
    probe = ussim.Probe("short", probe.center_frequency, probe.bandwidth, 17, probe.pitch, probe.element_width)
    samples = np.random.default_rng(0).standard_normal((3, 17, n_samples))
    iq = ussim.demodulate(channel_data(samples, probe, start_time=3e-6))
    time = 3e-6 + np.arange(n_samples) / iq.sampling_frequency
    mixed = 2 * samples * np.exp(-2j * np.pi * probe.center_frequency * time)
    expected = filtfilt(*butter(5, probe.bandwidth / 4), mixed, padlen=min(18, n_samples - 1))
    # complex64; records shorter than the edge (18) are extended by what there is
    assert np.abs(iq.samples - expected).max() < 1e-6 * np.abs(expected).max()
    assert iq.samples.dtype == np.complex64
    assert iq.start_time == 3e-6


def test_the_order_of_the_filter_is_written_once():
    """The kernels are compiled for it: a literal left in one of them, or another order, would read beside its arrays."""
    engines = Path(ussim.__file__).parent / "engines"
    for file, function in (("cpu/kernels/beamform.py", "def _filter_in_place"), ("cuda/beamform.cu", "struct Filter")):
        kernel = (engines / file).read_text(encoding="utf-8").partition(function)[2].partition('extern "C"')[0]
        assert "FILTER_ORDER" in kernel
        assert re.findall(r"\b[2-9]\b|#define FILTER", kernel) == []
    law = filter_law(5e6, 0.6, 20e6, 0.0, 50)
    rows = law.numerator, law.denominator, law.steady
    assert [len(row) for row in rows] == [FILTER_ORDER + 1, FILTER_ORDER + 1, FILTER_ORDER]
    short = [row[:-1] for row in rows]
    with pytest.raises(ValueError, match="expected a filter of order 5, got 4"):
        mix_and_filter(np.zeros((1, 50)), law.carrier, *short, law.edge, np.zeros((1, 50), np.complex64))


@pytest.mark.parametrize("ratio", [4.0, 2.5, 5.37, 4 / 3, 4 / 5])
def test_envelope_and_phase_at_any_sampling_ratio(ratio):
    probe = ussim.Probe("narrow", 5e6, 0.35, 1, 0.3e-3, 0.25e-3)
    sampling_frequency = ratio * probe.center_frequency
    time = 1e-6 + np.arange(int(16e-6 * sampling_frequency)) / sampling_frequency
    rf, envelope = pulse_train(time, probe.center_frequency, bandwidth=0.1)
    iq = ussim.demodulate(channel_data(rf[None, None], probe, sampling_frequency, 1e-6), bandwidth=0.35)
    middle = slice(5, -5)
    # The filter passes a Gaussian pulse of a third of its width to 1 %; the rest is the end of the record.
    assert np.abs(iq.samples[0, 0] - envelope)[middle].max() < 0.02


def test_rf_comes_back_from_iq():
    probe = ussim.load_probe("L11-5v")
    time = np.arange(600) / (4 * probe.center_frequency)
    rf, _ = pulse_train(time, probe.center_frequency, bandwidth=0.1)
    iq = ussim.demodulate(channel_data(np.tile(rf, (1, 128, 1)), probe))
    back = (iq.samples * np.exp(2j * np.pi * iq.demodulation_frequency * time)).real
    assert np.abs(back - rf).max() < 1e-3  # what the Butterworth filter takes of a narrow pulse


def test_record_that_folds_its_band_is_refused():
    probe = ussim.load_probe("L11-5v")  # 77 % of 7.6 MHz
    samples = np.zeros((1, 128, 50), np.float32)
    with pytest.raises(ValueError, match=r"folds the band .* onto itself.*at most 0\.667"):
        ussim.demodulate(channel_data(samples, probe, 4 / 3 * probe.center_frequency))
    with pytest.raises(ValueError, match="folds"):
        ussim.demodulate(channel_data(samples, probe, 2 * probe.center_frequency), bandwidth=0.1)
    ussim.demodulate(channel_data(samples, probe, 4 / 3 * probe.center_frequency), bandwidth=0.6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frequency": -1.0}, "frequency: expected a carrier"),
        ({"frequency": float("nan")}, "frequency: expected a carrier"),
        ({"bandwidth": 0.0}, r"bandwidth: expected a fraction"),
        ({"bandwidth": 77.0}, r"bandwidth: expected a fraction"),
    ],
)
def test_bad_values_are_refused(options, message):
    samples = np.zeros((1, 64, 50), np.float32)
    with pytest.raises(ValueError, match=message):
        ussim.demodulate(channel_data(samples, ussim.load_probe("P4-2v")), **options)


def test_nan_in_the_record_is_refused():
    samples = np.zeros((1, 64, 300), np.float32)
    samples[0, 5, 200] = np.nan
    with pytest.raises(ValueError, match="expected finite samples"):
        ussim.demodulate(channel_data(samples, ussim.load_probe("P4-2v")))


def test_real_recording_sampled_below_twice_its_carrier_shows_the_disk(shared):
    """A rotating disk (radius 10 mm) recorded at 4/3 of the carrier, first sample at 9.95 µs (MUST's PWI_disk)."""
    path = shared / "data" / "us_channel" / "pymust_PWI_disk.mat"
    if not path.is_file():
        pytest.skip(f"needs {path.name} of the shared data")
    recording = loadmat(path, squeeze_me=True)
    parameters = recording["param"]
    value = {key: float(parameters[key]) for key in ("fc", "fs", "c", "t0", "pitch", "width", "bandwidth")}
    probe = ussim.Probe("disk", value["fc"], value["bandwidth"] / 100, 128, value["pitch"], value["width"])
    acquisition = ussim.Acquisition(probe, ussim.CustomTransmits(np.zeros((1, 128))), ussim.Medium(value["c"]))
    rf = ussim.RFData(recording["RF"][:, :, 0].T[None].astype(np.float32), acquisition, value["fs"], value["t0"])
    grid = ussim.ImageGrid(x=np.arange(-125, 126) * 1e-4, z=np.arange(100, 351) * 1e-4)
    energy = np.abs(ussim.delay_and_sum(ussim.demodulate(rf), grid)) ** 2
    x, z = grid.mesh()
    radius = np.hypot(x + 0.9e-3, z - 22.6e-3)  # its center, read off the image
    # Speckle inside, water outside (seen: 20 dB)
    assert energy[radius < 9e-3].mean() > 50 * energy[radius > 12e-3].mean()


def test_sampling_at_the_carrier_is_told_apart_from_too_wide_a_band():
    """At f_s = f_c every band folds, so that a narrower one is no advice."""
    probe = ussim.load_probe("L11-5v")
    rf = channel_data(np.ones((1, probe.n_elements, 64)), probe, sampling_frequency=probe.center_frequency)
    with pytest.raises(ValueError, match=r"however narrow: .* Sample at 4 x the carrier"):
        ussim.demodulate(rf)
