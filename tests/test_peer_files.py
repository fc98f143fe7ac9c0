"""Files of channel data go both ways between ussim and the packages that their formats are of."""

import numpy as np
import pytest

import ussim

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]  # theirs

ANGLES = np.deg2rad([-16.0, 0.0, 16.0])
PROBE = ussim.Probe("recorded", 5.208e6, 0.67, 32, 0.3e-3, 0.27e-3)
RATE, CARRIER = 20.832e6, 5.208e6
ACQUISITION = ussim.Acquisition(PROBE, ussim.PlaneWaves(ANGLES), ussim.Medium(1500.0), sampling_frequency=RATE)
SAMPLES = np.random.default_rng(0).standard_normal((2, 3, 32, 60)).astype(np.float32)


@pytest.fixture
def zea(monkeypatch):
    """The package on the backend that is there."""
    if "KERAS_BACKEND" not in __import__("os").environ:
        monkeypatch.setenv("KERAS_BACKEND", "torch")
    return pytest.importorskip("zea", exc_type=ImportError)


def test_zea_takes_our_files(tmp_path, zea):
    ussim.RFData(SAMPLES, ACQUISITION, RATE, 3e-6).save(tmp_path / "ours.hdf5")
    with zea.File(tmp_path / "ours.hdf5") as file:
        file.validate_spec()
        np.testing.assert_array_equal(file["data/raw_data"][..., 0], SAMPLES.transpose(0, 1, 3, 2))
        parameters = file.load_parameters()
        assert parameters.sampling_frequency == RATE
        # zea's own time of sample 0 after the firing, less the time to the middle of the pulse
        np.testing.assert_allclose(parameters.initial_times - parameters.t_peak, 3e-6, atol=1e-11)
        np.testing.assert_allclose(parameters.t0_delays, ACQUISITION.transmit_delays[:, 0], atol=1e-12)


def test_we_take_the_files_of_zea(tmp_path, zea):
    single = np.float32
    scan = {
        "sampling_frequency": single(RATE),
        "center_frequency": single(CARRIER),
        "demodulation_frequency": single(CARRIER),
        "initial_times": np.full(3, 3e-6, single),
        "t0_delays": ACQUISITION.transmit_delays[:, 0].astype(single),
        "tx_apodizations": np.ones((3, 32), single),
        "focus_distances": np.full(3, np.inf, single),
        "transmit_origins": np.zeros((3, 3), single),
        "polar_angles": ANGLES.astype(single),
        "sound_speed": single(1500),
    }
    positions = np.stack([PROBE.element_x, 0 * PROBE.element_x, 0 * PROBE.element_x], axis=1).astype(single)
    data = {"raw_data": SAMPLES.transpose(0, 1, 3, 2)[..., None]}
    probe = {"name": "mine", "probe_geometry": positions}
    zea.File.create(str(tmp_path / "theirs.hdf5"), data=data, scan=scan, probe=probe)
    file = ussim.open_channel_data(tmp_path / "theirs.hdf5")
    np.testing.assert_array_equal(file.frame(1).samples, SAMPLES[1])
    np.testing.assert_allclose(file.acquisition.waves.angles, ANGLES, atol=1e-7)
    assert file.start_time == pytest.approx(3e-6 - 1 / CARRIER, abs=1e-11)


def test_pyuff_takes_our_files(tmp_path):
    pyuff = pytest.importorskip("pyuff_ustb")
    ussim.RFData(SAMPLES, ACQUISITION, RATE, 3e-6).save(tmp_path / "ours.uff")
    read = pyuff.Uff(str(tmp_path / "ours.uff")).read("channel_data")
    np.testing.assert_array_equal(read.data, SAMPLES.transpose(3, 2, 1, 0))
    assert (read.sampling_frequency, read.sound_speed, read.N_elements) == (RATE, 1500, 32)
    np.testing.assert_allclose([wave.source.azimuth for wave in read.sequence], ANGLES)
    # The first sample's time after the passage through the origin
    first = (PROBE.element_x * np.sin(ANGLES)[:, None]).min(axis=1) / 1500
    np.testing.assert_allclose([read.initial_time + wave.delay for wave in read.sequence], 3e-6 + first, atol=1e-12)


@pytest.mark.parametrize("kind", ["rf", "iq"])
def test_we_take_the_files_of_pyuff(tmp_path, kind):
    pyuff = pytest.importorskip("pyuff_ustb")
    samples = SAMPLES if kind == "rf" else (SAMPLES * (1 + 2j)).astype(np.complex64)
    waves = [
        pyuff.Wave(
            source=pyuff.Point(distance=np.inf, azimuth=angle, elevation=0.0),
            origin=pyuff.Point(distance=0.0, azimuth=0.0, elevation=0.0),
            wavefront=pyuff.Wavefront.plane,
            sound_speed=1500.0,
            delay=0.0,
        )
        for angle in ANGLES
    ]
    data = pyuff.ChannelData(
        sampling_frequency=RATE,
        initial_time=3e-6,
        sound_speed=1500.0,
        modulation_frequency=0.0 if kind == "rf" else CARRIER,
        sequence=waves,
        probe=pyuff.LinearArray(N=32, pitch=0.3e-3, element_width=0.27e-3, element_height=5e-3),
        pulse=pyuff.Pulse(center_frequency=CARRIER, fractional_bandwidth=0.67),
        data=samples.transpose(3, 2, 1, 0),
    )
    data.write(str(tmp_path / "theirs.uff"), "channel_data", ignore_missing_compulsory_fields=True)
    file = ussim.open_channel_data(tmp_path / "theirs.uff")
    np.testing.assert_array_equal(file.frame(1).samples, samples[1])
    np.testing.assert_allclose(file.acquisition.waves.angles, ANGLES)
    assert (file.start_time, file.acquisition.waves.time_reference) == (3e-6, "center")
