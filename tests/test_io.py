"""Channel-data files: what is read is what was written, and a bad file is told in words."""

import contextlib
import errno
import json
import os
import resource

import numpy as np
import pytest

import ussim
from ussim.io import channel_data as io
from ussim.io.atomic import replacing
from ussim.io.plain import acquisition_from_dict, acquisition_to_dict

PROBE = ussim.Probe("small", 3e6, 0.7, 16, 0.3e-3, 0.25e-3, radius=0.05, baffle=1.75, source="a test")
TIMES = np.linspace(0, 1e-6, 16) / 3  # thirds: not a round decimal
WAVES = {
    "plane": ussim.PlaneWaves(np.deg2rad([-10.0, 0.1]), apodization=np.hanning(16)),
    "sources": ussim.DivergingWaves(x=np.array([0.0, 1e-3]), z=np.array([-0.02, -0.03])),
    "focused": ussim.FocusedWaves(x=np.array([0.0, 1e-3]), z=np.array([0.02, 0.03]), apodization=np.ones((2, 16)) / 3),
    "custom": ussim.CustomTransmits(np.stack([TIMES, np.where(np.arange(16) < 4, np.nan, TIMES)])),
    "several foci": ussim.CustomTransmits(np.tile(TIMES, (2, 3, 1))),
}


def acquisition(waves="plane", **options):
    return ussim.Acquisition(PROBE, WAVES[waves], ussim.Medium(1480.0, 0.5), **options)


def rf_data(samples=None, **options):
    waves = acquisition(**options)
    if samples is None:
        samples = np.random.default_rng(0).standard_normal((2, 16, 50), dtype=np.float32)
    return ussim.RFData(samples, waves, waves.sampling_frequency, 1 / 3e6)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "echoes.npz"
    rf_data().save(path)
    return path


@contextlib.contextmanager
def files_of_at_most(n_bytes):
    """No file may grow beyond this: what a full disk does to a writer, without a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("waves", WAVES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rf_comes_back_exactly(tmp_path, waves, dtype):
    options = {
        "sampling_frequency": 1e8 / 3,
        "n_cycles": 2.5,
        "frequency_sweep": 1e6 / 3,
        "threshold_db": -80.0,
        "receive_delays": TIMES,
        "full_frequency_directivity": True,
        "n_subelements": 2,
    }
    rf = rf_data(np.random.default_rng(0).standard_normal((2, 16, 50)).astype(dtype), waves=waves, **options)
    rf.save(tmp_path / "echoes.npz")
    back = ussim.load_channel_data(tmp_path / "echoes.npz")
    assert isinstance(back, ussim.RFData)
    assert back.samples.dtype == dtype
    np.testing.assert_array_equal(back.samples, rf.samples)
    assert (back.sampling_frequency, back.start_time) == (rf.sampling_frequency, rf.start_time)
    given, read = rf.acquisition, back.acquisition
    assert (read.probe, read.medium) == (given.probe, given.medium)
    assert type(read.waves) is type(given.waves)
    np.testing.assert_array_equal(read.transmit_delays, given.transmit_delays)
    np.testing.assert_array_equal(read.transmit_weights, given.transmit_weights)
    np.testing.assert_array_equal(read.receive_delays, given.receive_delays)
    for key in ("n_cycles", "frequency_sweep", "threshold_db", "full_frequency_directivity", "n_subelements"):
        assert getattr(read, key) == options[key]
    assert acquisition_to_dict(read) == acquisition_to_dict(given)


def test_waves_by_angle_come_back(tmp_path, any_probe):
    given = ussim.Acquisition(any_probe, ussim.imaging_waves(any_probe))
    plain = json.loads(json.dumps(acquisition_to_dict(given), allow_nan=False))
    read = acquisition_from_dict(plain)
    assert read.probe == given.probe
    np.testing.assert_array_equal(read.transmit_delays, given.transmit_delays)
    assert "path" not in plain["probe"]  # where a file lay says nothing about the acquisition


def test_iq_comes_back_exactly(tmp_path):
    samples = np.ones((2, 16, 9), np.complex64) * (1 + 2j) / 3
    iq = ussim.IQData(samples, acquisition(), 6e6, 3e6 + 1 / 3, 2e-6)
    iq.save(tmp_path / "iq.npz")
    back = ussim.load_channel_data(tmp_path / "iq.npz")
    assert isinstance(back, ussim.IQData)
    np.testing.assert_array_equal(back.samples, iq.samples)
    assert back.samples.dtype == np.complex64
    for key in ("sampling_frequency", "demodulation_frequency", "start_time"):
        assert getattr(back, key) == getattr(iq, key)


def test_a_stack_is_not_saved(tmp_path):
    stack = rf_data(np.zeros((3, 2, 16, 50), np.float32))
    with pytest.raises(ValueError, match=r"one record .* got a stack \(3, 2, 16, 50\): save each"):
        stack.save(tmp_path / "echoes.npz")
    assert not list(tmp_path.iterdir())


def test_waves_of_ones_own_class_are_refused_with_advice():
    class Mine(ussim.PlaneWaves):
        pass

    mine = ussim.Acquisition(PROBE, Mine(0.0))
    with pytest.raises(ValueError, match=r"got Mine\. Describe them by their delays"):
        acquisition_to_dict(mine)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.pop("probe"), "acquisition: expected the key 'probe'"),
        (lambda p: p.update(color=1), "acquisition: unknown key 'color'"),
        (lambda p: p["waves"].update(kind="Shock"), "waves: kind: expected one of PlaneWaves"),
        (lambda p: p["waves"].update(tilts=[0]), "waves: unknown key 'tilts'"),
        (lambda p: p["probe"].update(pitch=-1), "pitch: expected a number above 0"),
        (lambda p: p["medium"].update(speed_of_sound=0), "speed_of_sound: expected m/s above 0"),
        (lambda p: p.update(medium=5), "medium: expected a table of values, got int"),
    ],
)
def test_a_bad_description_is_told_in_words(change, words):
    plain = acquisition_to_dict(acquisition())
    change(plain)
    with pytest.raises(ValueError, match=words):
        acquisition_from_dict(plain)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        ussim.load_channel_data(tmp_path / "absent.npz")


@pytest.mark.parametrize("content", [b"", b"text, not an archive", b"\x93NUMPY\x01\x00"])
def test_another_kind_of_file(tmp_path, content):
    path = tmp_path / "echoes.npz"
    path.write_bytes(content)
    with pytest.raises(io.DataError, match=r"expected channel data \(.npz\).*of another kind"):
        ussim.load_channel_data(path)


def test_another_npz(tmp_path):
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(io.DataError, match="expected the arrays format, version, header, samples, got a"):
        ussim.load_channel_data(tmp_path / "other.npz")


def rewrite(path, **changes):
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **(arrays | changes))


def test_another_version(saved):
    rewrite(saved, version=np.array(99))
    with pytest.raises(io.DataError, match="version: expected 1, got 99"):
        ussim.load_channel_data(saved)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"header": np.array("{}")}, "header: expected the key 'acquisition'"),
        ({"header": np.array("not JSON")}, "Expecting value"),
        ({"samples": np.zeros((3, 16, 50))}, r"expected \(n_transmits, n_elements, n_samples\) = \(2, 16"),
        ({"samples": np.zeros((5, 2, 16, 50))}, r"expected one record, got an array of shape \(5, 2, 16, 50\)"),
        ({"samples": np.array([None, 1], dtype=object)}, "damaged"),  # a pickle is never read
        ({"format": np.array("something else")}, "format: expected 'ussim channel data'"),
    ],
)
def test_wrong_content(saved, changes, words):
    rewrite(saved, **changes)
    with pytest.raises(io.DataError, match=words):
        ussim.load_channel_data(saved)


def test_a_file_cut_short(saved):
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(io.DataError, match="cut short"):
        ussim.load_channel_data(saved)


def test_any_flipped_bit_is_noticed_or_harmless(saved):
    """A flip in the data fails its CRC. The archive's own notes (times, attributes) hold nothing of ours."""
    whole, expected = saved.read_bytes(), rf_data()
    rng = np.random.default_rng(0)
    noticed, positions = 0, rng.integers(0, len(whole), 60).tolist() + list(range(len(whole) - 300, len(whole), 7))
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        saved.write_bytes(damaged)
        try:
            back = ussim.load_channel_data(saved)
        except io.DataError:
            noticed += 1
            continue
        np.testing.assert_array_equal(back.samples, expected.samples)
        assert acquisition_to_dict(back.acquisition) == acquisition_to_dict(expected.acquisition)
    assert noticed > len(positions) / 2


def test_a_full_disk_leaves_the_old_file_and_nothing_else(saved):
    before = saved.read_bytes()
    with files_of_at_most(2000), pytest.raises(OSError, match=r"echoes\.npz") as caught:
        rf_data().save(saved)
    assert caught.value.errno in (errno.EFBIG, errno.ENOSPC)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == ["echoes.npz"]


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def write_half():
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_told_by_the_users_name(tmp_path):
    path = tmp_path / "absent" / "echoes.npz"
    with pytest.raises(FileNotFoundError) as caught:
        rf_data().save(path)
    assert caught.value.filename == str(path)


def test_a_file_with_a_threshold_of_earlier_releases_opens():
    plain = acquisition_to_dict(ussim.Acquisition(ussim.load_probe("L11-5v"), ussim.PlaneWaves(0.0)))
    assert acquisition_from_dict(plain | {"threshold_db": -40.0}).threshold_db == -60
    assert acquisition_from_dict(plain | {"threshold_db": -90.0}).threshold_db == -90
