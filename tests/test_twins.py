"""Files of others hold what was written into them: twins of one acquisition in each format, read back exactly."""

import h5py
import numpy as np
import pytest
import twins

import ussim

PROBE = ussim.Probe("recorded", 5.208e6, 0.67, 32, 0.3e-3, 0.27e-3)
ANGLES = np.deg2rad([-16.0, 0.0, 16.0])
CENTERED = ussim.Acquisition(PROBE, ussim.PlaneWaves(ANGLES, time_reference="center"), ussim.Medium(1500.0))
RATE, START, CARRIER = 20.832e6, 3.1e-6, 5.208e6
WIRE = ussim.Scatterers([1e-3], [12e-3], [1.0])
TIME = 2e-12  # s: times of zea and of 1e-5 s in float32
FACTS = {"picmus": {"probe": PROBE}}  # PICMUS has one probe, L11-4v


def frames(kind, n=3):
    rng = np.random.default_rng(7)
    rf = rng.standard_normal((n, 3, 32, 60)).astype(np.float32)
    return rf if kind == "rf" else (rf + 1j * rng.standard_normal(rf.shape)).astype(np.complex64)


@pytest.fixture
def twin(tmp_path):
    def write(name, samples, start=START, **options):
        writer, suffix = twins.FORMATS[name]
        path = tmp_path / f"{name}{suffix}"
        writer(path, CENTERED, samples, RATE, start, CARRIER if np.iscomplexobj(samples) else 0.0, **options)
        return path

    return write


@pytest.mark.parametrize("kind", ["rf", "iq"])
@pytest.mark.parametrize("name", twins.FORMATS)
def test_a_twin_reads_back_exactly(twin, name, kind):
    samples = frames(kind)
    file = ussim.open_channel_data(twin(name, samples), **FACTS.get(name, {}))
    assert (file.n_frames, file.n_samples) == (3, 60)
    for i, data in enumerate(file):
        assert type(data) is (ussim.RFData if kind == "rf" else ussim.IQData)
        if (name, kind) == ("zea", "iq"):  # the carrier begins with zea's clock; 2e-12 s of it in float32 are 6e-5 rad
            turn = np.exp(2j * np.pi * CARRIER * (data.start_times - START))[:, None, None]
            np.testing.assert_allclose(data.samples * turn, samples[i], rtol=0, atol=5e-4)
        else:
            np.testing.assert_array_equal(data.samples, samples[i])
    acquisition = file.acquisition
    assert file.sampling_frequency == pytest.approx(RATE, rel=1e-7)
    assert acquisition.medium.speed_of_sound == 1500
    probe = acquisition.probe
    for key in ("center_frequency", "bandwidth", "pitch", "element_width"):
        assert getattr(probe, key) == pytest.approx(getattr(PROBE, key), rel=1e-6), key
    assert (probe.n_elements, probe.is_flat) == (32, True)
    # Whatever the clock, an element fires this long before sample 0.
    ahead = data.start_times[:, None] - acquisition.transmit_delays[:, 0]
    np.testing.assert_allclose(ahead, START - CENTERED.transmit_delays[:, 0], rtol=0, atol=TIME)


@pytest.fixture(scope="module")
def wire():
    """RF of a wire, sampled from START on."""
    rf = ussim.simulate(WIRE, ussim.Acquisition(PROBE, CENTERED.waves, CENTERED.medium, sampling_frequency=RATE))
    first = round(START * RATE)
    assert rf.start_time == 0
    return rf.samples[None, :, :, first:], first / RATE


@pytest.mark.parametrize("kind", ["rf", "iq"])
@pytest.mark.parametrize("name", twins.FORMATS)
def test_the_b_mode_of_a_twin_is_that_of_its_source(twin, wire, name, kind):
    samples, start = wire
    source = ussim.RFData(samples[0], CENTERED, RATE, start)
    if kind == "iq":
        source = ussim.demodulate(source, CARRIER)
        samples = source.samples[None]
    grid = ussim.ImageGrid(x=np.linspace(-2e-3, 4e-3, 25), z=np.linspace(9e-3, 15e-3, 61))

    def image(data):  # of the full aperture: rounding must not decide whether an element at its edge counts
        return abs(ussim.delay_and_sum(data, grid, f_number=0))

    expected = image(source if kind == "iq" else ussim.demodulate(source))
    read = ussim.load_channel_data(twin(name, samples, start), **FACTS.get(name, {}))
    got = image(read if kind == "iq" else ussim.demodulate(read))
    assert np.abs(got - expected).max() < 1e-5 * expected.max()  # float32 times and phases of some formats
    row, column = np.unravel_index(got.argmax(), got.shape)
    assert (grid.x[column], grid.z[row]) == pytest.approx((1e-3, 12e-3), abs=0.13e-3)


@pytest.mark.parametrize("name", twins.FORMATS)
def test_a_wire_at_each_angle_alone_is_where_it_is(twin, wire, name):
    """A clock that begins elsewhere by the steering moves the wire at +-16 degrees: 1.5 mm of this array."""
    data = ussim.load_channel_data(twin(name, *wire), **FACTS.get(name, {}))
    grid = ussim.ImageGrid(x=np.linspace(0, 2e-3, 21), z=np.linspace(11e-3, 13e-3, 81))
    images = np.abs(ussim.delay_and_sum(ussim.demodulate(data), grid, f_number=1.4, compounding="none"))
    for image in images:
        row, column = np.unravel_index(image.argmax(), image.shape)
        assert (grid.x[column], grid.z[row]) == pytest.approx((1e-3, 12e-3), abs=0.1e-3)


def test_only_the_frame_asked_for_is_read(twin, monkeypatch):
    path = twin("zea", frames("rf"), compression="gzip")
    read = []
    take = h5py.Dataset.__getitem__
    monkeypatch.setattr(
        h5py.Dataset, "__getitem__", lambda self, index: read.append((self.name, index)) or take(self, index)
    )
    file = ussim.open_channel_data(path)
    assert not [name for name, _ in read if name.endswith("raw_data")]
    np.testing.assert_array_equal(file.frame(2).samples, frames("rf")[2])
    assert [index for name, index in read if name.endswith("raw_data")] == [2]


def test_earlier_zea_files(twin):
    file = ussim.open_channel_data(twin("zea", frames("rf"), legacy=True))
    np.testing.assert_array_equal(file.frame(1).samples, frames("rf")[1])
    assert file.acquisition.probe.center_frequency == pytest.approx(5.208e6, rel=1e-7)
    assert any("bandwidth" in note for note in file.notes)


def test_zea_channels_that_are_some_of_the_elements(twin):
    path = twin("zea", frames("rf"))
    with h5py.File(path, "r+") as file:
        track = file["tracks/track_0"]
        raw = track["data/raw_data"][:, :, :, 4:20]
        del track["data/raw_data"]
        track["data/raw_data"] = raw
    with pytest.raises(ussim.DataError, match="expected 32 elements, as the probe has, got 16 channels"):
        ussim.load_channel_data(path)
    with h5py.File(path, "r+") as file:
        file["tracks/track_0/scan/rx_aperture_indices"] = np.tile(np.arange(4, 20), (3, 1))
    rf = ussim.load_channel_data(path, frame=1)
    np.testing.assert_array_equal(rf.samples[:, 4:20], frames("rf")[1][:, 4:20])
    assert not rf.samples[:, :4].any()
    np.testing.assert_array_equal(rf.acquisition.receiving[0], (np.arange(32) >= 4) & (np.arange(32) < 20))


def test_the_pulse_of_a_zea_file_has_its_peak_where_the_waveform_has_it(twin):
    path = twin("zea", frames("rf"))
    plain = ussim.open_channel_data(path).start_time
    with h5py.File(path, "r+") as file:
        time = np.arange(400) / 250e6
        pulse = np.exp(-(((time - 0.6e-6) / 1e-7) ** 2)) * np.cos(2 * np.pi * 5.208e6 * time)
        file["tracks/track_0/scan/waveforms_two_way"] = np.tile(pulse.astype(np.float32), (3, 1))
    assert ussim.open_channel_data(path).start_time - plain == pytest.approx(1 / 5.208e6 - 0.6e-6, abs=5e-9)


def test_a_picmus_scan_and_phantom_are_not_taken_for_data(tmp_path):
    from ussim.io.formats.picmus import picmus_scan

    with h5py.File(tmp_path / "scan.hdf5", "w") as file:
        file["US/US_DATASET0000/x_axis"] = np.linspace(-18e-3, 18e-3, 5)
        file["US/US_DATASET0000/z_axis"] = np.linspace(5e-3, 50e-3, 7)
    with pytest.raises(ussim.DataError, match=r"expected a PICMUS data set .* got a scan"):
        ussim.load_channel_data(tmp_path / "scan.hdf5")
    x, z = picmus_scan(tmp_path / "scan.hdf5")
    assert (x[0], z[-1], len(z)) == (-18e-3, 50e-3, 7)
    with h5py.File(tmp_path / "phantom.hdf5", "w") as file:
        file["US/US_DATASET0000/phantom_xPts"] = [0.0]
    with pytest.raises(ussim.DataError, match="got a phantom"):
        ussim.load_channel_data(tmp_path / "phantom.hdf5")
    with pytest.raises(ussim.DataError, match="expected a PICMUS scan"):
        picmus_scan(tmp_path / "phantom.hdf5")


def test_bare_hdf5_arrays_with_facts(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["acquired/rf"] = frames("rf").transpose(3, 0, 2, 1)
        file["acquired/time"] = np.arange(60.0)
    facts = {"probe": PROBE, "sampling_frequency": RATE, "angles": ANGLES}
    with pytest.raises(ussim.DataError, match="say what they were acquired with"):
        ussim.load_channel_data(tmp_path / "a.h5")
    with pytest.raises(ussim.DataError, match=r"the axes may be .* say which"):  # 3 frames, 3 transmits
        ussim.load_channel_data(tmp_path / "a.h5", **facts)
    axes = "samples,frames,elements,transmits"
    rf = ussim.load_channel_data(tmp_path / "a.h5", frame=2, axes=axes, **facts)
    np.testing.assert_array_equal(rf.samples, frames("rf")[2])


def test_must_delays_of_one_transmit_and_its_scalars_at_the_top(tmp_path):
    from scipy.io import savemat

    flat = {"fs": RATE, "fc": 5e6, "pitch": 3e-4, "Nelements": 32, "SIG": frames("rf")[0, 0].T}
    savemat(tmp_path / "a.mat", flat)
    file = ussim.open_channel_data(tmp_path / "a.mat")
    assert (file.sampling_frequency, file.acquisition.n_transmits, file.acquisition.probe.bandwidth) == (RATE, 1, 0.75)
    assert any("0°" in note for note in file.notes)
    savemat(tmp_path / "b.mat", flat | {"noise": frames("rf")[0, 1].T})
    with pytest.raises(ussim.DataError, match=r"several arrays may be channel data, SIG \(60, 32\), noise \(60, 32\)"):
        ussim.load_channel_data(tmp_path / "b.mat")
    np.testing.assert_array_equal(
        ussim.load_channel_data(tmp_path / "b.mat", variable="noise").samples[0], frames("rf")[0, 1]
    )


@pytest.mark.parametrize("kind", ["rf", "iq"])
def test_compressed_matlab_files(tmp_path, kind):
    from scipy.io import savemat

    samples, name = frames(kind), "RF" if kind == "rf" else "IQ"
    content = {
        name: samples.transpose(3, 2, 1, 0),
        "param": twins.param_of(CENTERED, RATE, START),
        "note": "text",
        "c": 1500.0,
    }
    savemat(tmp_path / "a.mat", content | {"cells": np.array([1, "x"], dtype=object)}, do_compression=True)
    file = ussim.open_channel_data(tmp_path / "a.mat")
    np.testing.assert_array_equal(np.stack([data.samples for data in file]), samples)


def test_whole_numbers_of_a_converter(tmp_path):
    from scipy.io import savemat

    samples = np.random.default_rng(0).integers(-2048, 2048, (60, 32, 3, 4)).astype(np.int16)
    savemat(tmp_path / "a.mat", {"RF": samples, "param": twins.param_of(CENTERED, RATE, START)})
    rf = ussim.load_channel_data(tmp_path / "a.mat", frame=2)
    np.testing.assert_array_equal(rf.samples, samples[..., 2].transpose(2, 1, 0))
    assert rf.samples.dtype == np.float32


# --- writing -------------------------------------------------------------------------------------------------------------

WAVES = {
    "plane": ussim.PlaneWaves(ANGLES),
    "focused": ussim.FocusedWaves(x=[-2e-3, 0.0, 2e-3], z=[15e-3, 15e-3, 15e-3]),
    "diverging": ussim.DivergingWaves(x=[-2e-3, 0.0, 2e-3], z=[-15e-3, -15e-3, -15e-3]),
}


@pytest.mark.parametrize("array", ["flat", "convex"])
@pytest.mark.parametrize("waves", WAVES)
@pytest.mark.parametrize("kind", ["rf", "iq"])
@pytest.mark.parametrize("suffix", [".npz", ".hdf5", ".mat", ".uff"])
def test_what_is_saved_comes_back_on_any_clock(tmp_path, suffix, kind, waves, array):
    probe = PROBE if array == "flat" else ussim.Probe("bent", 5.208e6, 0.67, 32, 0.3e-3, 0.27e-3, radius=0.03)
    acquisition = ussim.Acquisition(probe, WAVES[waves], ussim.Medium(1500.0), sampling_frequency=RATE)
    samples = frames(kind)[0]
    data = (
        ussim.RFData(samples, acquisition, RATE, START)
        if kind == "rf"
        else ussim.IQData(samples, acquisition, RATE, CARRIER, START)
    )
    path = tmp_path / f"a{suffix}"
    data.save(path)
    back = ussim.load_channel_data(path)
    assert type(back) is type(data)
    np.testing.assert_allclose(
        back.samples * (1 if kind == "rf" else np.exp(2j * np.pi * CARRIER * _shift(back, data))[:, None, None]),
        samples,
        rtol=0,
        atol=0 if kind == "rf" and suffix != ".x" else 5e-4,  # 2e-12 s of float32 times at 5 MHz: 6e-5 rad
    )
    ahead = back.start_times[:, None] - back.acquisition.transmit_delays[:, 0]
    np.testing.assert_allclose(ahead, START - acquisition.transmit_delays[:, 0], rtol=0, atol=3e-12)
    assert back.acquisition.probe.n_elements == 32
    assert back.acquisition.probe.radius == pytest.approx(probe.radius, rel=1e-3)
    if suffix == ".npz":
        np.testing.assert_array_equal(back.samples, data.samples)


def _shift(back, data):
    """How much later the clock of a file reads than that of the source, (n_transmits,) s."""
    return (back.start_times - data.start_times) % (1 / CARRIER)


def test_frames_are_saved_where_a_format_has_them(tmp_path):
    acquisition = ussim.Acquisition(PROBE, ussim.PlaneWaves(ANGLES), sampling_frequency=RATE)
    stack = ussim.RFData(frames("rf"), acquisition, RATE)
    for suffix in (".hdf5", ".mat", ".uff"):
        stack.save(tmp_path / f"a{suffix}")
        axes = {"axes": "samples,elements,transmits,frames"} if suffix == ".mat" else {}
        file = ussim.open_channel_data(tmp_path / f"a{suffix}", **axes)
        np.testing.assert_array_equal(np.stack([rf.samples for rf in file]), frames("rf"))
    with pytest.raises(ValueError, match="a file holds one record"):
        stack.save(tmp_path / "a.npz")


@pytest.mark.parametrize("suffix", [".hdf5", ".mat", ".uff"])
def test_what_a_format_has_no_word_for_is_refused_with_advice(tmp_path, suffix):
    laws = np.zeros((1, 2, 32))
    acquisition = ussim.Acquisition(PROBE, ussim.CustomTransmits(laws), sampling_frequency=RATE)
    data = ussim.RFData(np.ones((1, 32, 9), np.float32), acquisition, RATE)
    with pytest.raises(ValueError, match=r"save as \.npz"):
        data.save(tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "..", "a/b\\c", "x\n" * 300, "zarr.json/c", "Sonde für Ärzte", "my probe (2)"])
def test_names_of_files_and_probes_become_names_of_probes(twin, name):
    path = twin("zea", frames("rf"))
    with h5py.File(path, "r+") as file:
        del file["probe/name"]
        file["probe/name"] = name
    given = ussim.open_channel_data(path).acquisition.probe.name
    assert given
    assert not set(given) & set("/\\\n")
    odd = path.with_name("  (1).mat")
    odd.write_bytes(twin("must", frames("rf")).read_bytes())
    assert ussim.open_channel_data(odd).acquisition.probe.n_elements == 32
