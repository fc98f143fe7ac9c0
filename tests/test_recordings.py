"""Recordings of others: bare arrays with facts, axes in any order, frames read one by one."""

import itertools

import numpy as np
import pytest

import ussim
from ussim.io.formats.axes import find_layout

PROBE = ussim.Probe("small", 3e6, 0.7, 16, 0.3e-3, 0.25e-3)
ANGLES = np.deg2rad([-10.0, 0.0, 10.0])
LENGTHS = {"frames": 4, "transmits": 3, "elements": 16, "samples": 50}
FACTS = {"probe": PROBE, "sampling_frequency": 12e6}


def numbered(*roles):
    """Samples whose value says frame, transmit, element and sample, axes in the order of `roles`."""
    order = ("frames", "transmits", "elements", "samples")
    full = np.arange(4 * 3 * 16 * 50, dtype=np.int32).reshape(4, 3, 16, 50)
    for role in set(order) - set(roles):
        full = full.take([0], axis=order.index(role))
    return full.transpose([order.index(role) for role in order if role not in roles] + [order.index(r) for r in roles])[
        (0,) * (4 - len(roles))
    ]


def expected(frame=0, transmits=3):
    return np.arange(4 * 3 * 16 * 50).reshape(4, 3, 16, 50)[frame, :transmits].astype(np.float32)


@pytest.mark.parametrize("roles", list(itertools.permutations(LENGTHS)), ids=",".join)
def test_axes_in_any_order_are_found_by_their_lengths(tmp_path, roles):
    np.save(tmp_path / "a.npy", numbered(*roles))
    file = ussim.open_channel_data(tmp_path / "a.npy", angles=ANGLES, **FACTS)
    assert (file.n_frames, len(file), file.n_samples) == (4, 4, 50)
    for i, rf in enumerate(file):
        np.testing.assert_array_equal(rf.samples, expected(i))
    np.testing.assert_array_equal(file.acquisition.waves.angles, ANGLES)


@pytest.mark.parametrize("roles", list(itertools.permutations(["elements", "samples"])), ids=",".join)
def test_one_transmit_needs_no_axis(tmp_path, roles):
    np.save(tmp_path / "a.npy", numbered(*roles))
    rf = ussim.load_channel_data(tmp_path / "a.npy", start_time=2e-6, speed_of_sound=1480.0, **FACTS)
    np.testing.assert_array_equal(rf.samples, expected(transmits=1))
    assert (rf.start_time, rf.sampling_frequency, rf.acquisition.medium.speed_of_sound) == (2e-6, 12e6, 1480.0)
    assert rf.samples.dtype == np.float32


@pytest.mark.parametrize(
    ("shape", "axes", "words"),
    [
        (
            (50, 8, 3),
            None,
            r"expected axes of 16 elements and 3 transmits beside the samples, got shape \(50, 8, 3\)",
        ),
        ((50, 16), None, "3 transmits"),
        ((16, 3, 16), None, "the axes may be .*: say which"),
        (
            (50, 16, 3),
            ("samples", "transmits", "elements"),
            "axes samples, transmits, elements .* expected 16 elements",
        ),
        ((50, 16, 3), ("samples", "elements"), "expected 3 names"),
        ((0, 16, 3), None, "expected 2 to 4 axes"),
        ((50,), None, "expected 2 to 4 axes"),
        ((2, 2, 50, 16, 3), None, "expected 2 to 4 axes"),
    ],
)
def test_axes_that_do_not_fit_are_named(shape, axes, words):
    with pytest.raises(ValueError, match=words):
        find_layout(shape, 16, 3, axes)


def test_equal_lengths_are_decided_by_the_user_or_the_format():
    assert find_layout((16, 3, 16), 16, 3, ("samples", "transmits", "elements")).roles[0] == "samples"
    usual = ("transmits", "elements", "samples")
    assert find_layout((16, 16, 90), 16, 16, usual=usual).roles == usual


def test_facts_in_a_file(tmp_path):
    np.save(tmp_path / "a.npy", numbered("samples", "elements", "transmits"))
    (tmp_path / "facts.toml").write_text(
        'probe = "L11-5v"\nsampling_mhz = 31.25\nangles_deg = [-10, 0, 10]\nstart_us = 5.2\nspeed_of_sound = 1480\n'
    )
    rf = ussim.load_channel_data(tmp_path / "a.npy", facts=tmp_path / "facts.toml", probe=PROBE)  # an argument wins
    assert rf.acquisition.probe == PROBE
    np.testing.assert_allclose(rf.acquisition.waves.angles, ANGLES)
    assert (rf.sampling_frequency, rf.start_time, rf.acquisition.medium.speed_of_sound) == (31.25e6, 5.2e-6, 1480)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sampling_mhz = 'fast'", "sampling_mhz: expected a number, got 'fast'"),
        ("sampling_hz = 1", "sampling_hz: unknown key; did you mean sampling_mhz"),
        ("probe = 5", "probe: expected text"),
        ("angles_deg = []", "angles_deg: expected a number"),
        ("= 3", "expected a TOML file of facts"),
        ("speed_of_sound = nan", "speed_of_sound: expected finite numbers"),
        ('axes = "samples,lines"', "axes: expected elements, samples"),
    ],
)
def test_facts_that_cannot_be(tmp_path, text, words):
    (tmp_path / "facts.toml").write_text(text)
    with pytest.raises(ussim.UssimError, match=words):
        ussim.load_channel_data(tmp_path / "a.npy", facts=tmp_path / "facts.toml")


def test_a_fact_of_another_name_is_told():
    with pytest.raises(ValueError, match="angle: no such fact of channel data; did you mean angles"):
        ussim.load_channel_data("a.npy", angle=1)


def test_what_is_missing_is_asked_for(tmp_path):
    np.save(tmp_path / "a.npy", numbered("samples", "elements"))
    with pytest.raises(
        ussim.DataError, match=r"holds arrays alone \(a \(50, 16\)\): .*--probe NAME\|FILE and --sampling-mhz"
    ):
        ussim.load_channel_data(tmp_path / "a.npy")
    with pytest.raises(ussim.DataError, match=r"what they were acquired with, --sampling-mhz MHZ \("):
        ussim.load_channel_data(tmp_path / "a.npy", probe=PROBE)


def test_one_of_several_arrays(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, rf=numbered("samples", "elements"), noise=np.zeros((60, 16)), angle=np.zeros(3), text=np.array("x"))
    with pytest.raises(ussim.DataError, match=r"several arrays may be channel data, rf \(50, 16\), noise \(60, 16\)"):
        ussim.load_channel_data(path, **FACTS)
    rf = ussim.load_channel_data(path, variable="rf", **FACTS)
    np.testing.assert_array_equal(rf.samples, expected(transmits=1))
    with pytest.raises(ussim.DataError, match="variable: expected one of rf, noise, angle, text, got 'RF'"):
        ussim.load_channel_data(path, variable="RF", **FACTS)
    with pytest.raises(ussim.DataError, match="text: expected an array of numbers"):
        ussim.load_channel_data(path, variable="text", **FACTS)


def test_iq_of_an_array(tmp_path):
    np.save(tmp_path / "a.npy", (numbered("samples", "elements") * (1 + 1j)).astype(np.complex64))
    file = ussim.open_channel_data(tmp_path / "a.npy", **FACTS)
    assert file.frame().demodulation_frequency == PROBE.center_frequency
    assert any("--demodulation-mhz" in note for note in file.notes)
    iq = ussim.load_channel_data(tmp_path / "a.npy", demodulation_frequency=2.5e6, **FACTS)
    assert (type(iq), iq.demodulation_frequency) == (ussim.IQData, 2.5e6)


def test_the_clock_of_an_array_is_said(tmp_path):
    np.save(tmp_path / "a.npy", numbered("samples", "elements", "transmits"))
    for clock in ("first", "center"):
        rf = ussim.load_channel_data(tmp_path / "a.npy", angles=ANGLES, clock=clock, **FACTS)
        assert rf.acquisition.waves.time_reference == clock
    rf.save(tmp_path / "a.npz")
    assert ussim.load_channel_data(tmp_path / "a.npz", clock="first").acquisition.waves.time_reference == "first"
    with pytest.raises(ussim.UssimError, match='clock: expected "first"'):
        ussim.load_channel_data(tmp_path / "a.npy", angles=ANGLES, clock="last", **FACTS)
    given = ussim.Acquisition(PROBE, ussim.CustomTransmits(np.zeros((3, 16))))
    ussim.RFData(rf.samples, given, 12e6).save(tmp_path / "b.npz")
    with pytest.raises(ussim.DataError, match="clock: its firing times are given by element"):
        ussim.load_channel_data(tmp_path / "b.npz", clock="center")


def test_only_the_frame_asked_for_is_read(tmp_path):
    path = tmp_path / "a.npy"
    big = np.lib.format.open_memmap(path, "w+", np.float32, (200, 16, 100_000))  # 1.3 GB, most of it holes in the file
    big[7] = 5
    del big
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rf = ussim.load_channel_data(path, frame=7, **FACTS)
    assert float(rf.samples.min()) == 5
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100 << 10  # KiB; a frame is 6.4 MB
    with pytest.raises(ussim.DataError, match="frame: expected 0 to 199, got 200"):
        ussim.load_channel_data(path, frame=200, **FACTS)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e35])
def test_samples_that_are_no_samples(tmp_path, value):
    samples = numbered("samples", "elements").astype(np.float32)
    samples[3, 4] = value
    np.save(tmp_path / "a.npy", samples)
    with pytest.raises(ussim.DataError, match=r"frame 0: expected (finite samples|samples of a converter)"):
        ussim.load_channel_data(tmp_path / "a.npy", **FACTS)


def test_what_a_file_says_gives_way_to_what_the_user_says(tmp_path):
    acquisition = ussim.Acquisition(PROBE, ussim.PlaneWaves(ANGLES))
    rf = ussim.RFData(np.ones((3, 16, 50), np.float32), acquisition, acquisition.sampling_frequency, 1e-6)
    rf.save(tmp_path / "a.npz")
    back = ussim.load_channel_data(tmp_path / "a.npz", start_time=2e-6, speed_of_sound=1450, angles=ANGLES / 2)
    assert (back.start_time, back.acquisition.medium.speed_of_sound) == (2e-6, 1450)
    np.testing.assert_array_equal(back.acquisition.waves.angles, ANGLES / 2)
    for facts, words in [
        ({"angles": [0.0]}, "angles: expected 3, one of each transmit, got 1"),
        ({"probe": "L11-5v"}, "probe: expected one of 16 elements, as the file has, got L11-5v of 128"),
        ({"demodulation_frequency": 3e6}, "it is of IQ data, and the file holds RF"),
    ]:
        with pytest.raises(ussim.DataError, match=words):
            ussim.load_channel_data(tmp_path / "a.npz", **facts)
