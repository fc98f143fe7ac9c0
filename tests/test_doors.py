"""What enters a value: arrays of its own, real numbers, SI units; what physics allows is never refused."""

import ast
import dataclasses
import inspect
import textwrap
from dataclasses import replace

import numpy as np
import pytest

import ussim

N = 8
PROBE = ussim.Probe("eight", 5e6, 0.6, N, 0.3e-3, 0.25e-3)
WAVES = ussim.PlaneWaves([0.0, 0.1])
ACQUISITION = ussim.Acquisition(PROBE, WAVES)
# Arguments that make one of each value class that holds arrays; a new class needs a row (the first test says so).
VALUES = {
    "PlaneWaves": [{"angles": np.zeros(2), "apodization": np.ones(N), "elevation_angles": np.full(2, 0.1)}],
    "DivergingWaves": [
        {"tilts": np.zeros(2), "width": np.ones(2), "apodization": np.ones((2, N))},
        {"x": np.zeros(2), "z": np.full(2, -5e-3), "apodization": np.ones(N), "y": np.zeros(2)},
    ],
    "FocusedWaves": [{"x": np.zeros(2), "z": np.full(2, 5e-3), "apodization": np.ones(N), "y": np.zeros(2)}],
    "CustomTransmits": [{"delays": np.zeros((2, N)), "apodization": np.ones(N)}],
    "SyntheticAperture": [{"elements": np.arange(2), "apodization": np.ones(N)}],
    "Acquisition": [
        {"probe": PROBE, "waves": WAVES, "receive_delays": np.zeros(N), "receive_mask": np.ones(N, dtype=bool)}
    ],
    "Scatterers": [
        {"x": np.zeros(3), "z": np.full(3, 5e-3), "reflectivity": np.ones(3)},
        {key: np.full(3, 5e-3, np.float32) for key in ("x", "z", "reflectivity", "y")},
    ],
    "MovingScatterers": [
        {
            "x": np.zeros(3),
            "z": np.full(3, 5e-3),
            "reflectivity": np.ones(3),
            "velocity_x": np.ones(3),
            "velocity_z": np.full(3, 0.1),
            "y": np.zeros(3),
            "velocity_y": np.full(3, 0.2),
        }
    ],
    "ImageGrid": [{"x": np.arange(3) * 1e-4, "z": np.arange(1, 4) * 1e-4, "y": np.arange(2) * 1e-4}],
    "PointGrid": [{"x": np.zeros(3), "z": np.full(3, 5e-3)}],
    "PolarGrid": [{"radius": np.arange(1, 4) * 1e-2, "angle": np.arange(3) * 0.1}],
    "TimeGain": [{"depths": np.arange(3) * 1e-2, "gains_db": np.array([0.0, 6.0, 20.0])}],
    "Waveform": [{"samples": np.array([0.0, 1.0, -1.0, 0.0]), "rate": 20e6}],
    "ImpulseResponse": [{"samples": np.array([0.0, 1.0, -1.0, 0.0]), "rate": 20e6}],
    "RFData": [
        {
            "samples": np.zeros((2, N, 5), np.float32),
            "acquisition": ACQUISITION,
            "sampling_frequency": 20e6,
            "start_time": np.zeros(2),
            "firing_times": np.zeros(2),
        }
    ],
    "IQData": [
        {
            "samples": np.zeros((2, N, 5), np.complex64),
            "acquisition": ACQUISITION,
            "sampling_frequency": 20e6,
            "demodulation_frequency": 5e6,
            "start_time": np.zeros(2),
            "firing_times": np.zeros(2),
        }
    ],
}
COMBINATIONS = {
    "CoherenceFactor",
    "GeneralizedCoherenceFactor",
    "MinimumVariance",
    "DelayMultiplyAndSum",
    "ShortLagSpatialCoherence",
}
LARGE = {("RFData", "samples"), ("IQData", "samples")}  # channel data are too large to copy: they stay the caller's
WITHOUT_ARRAYS = {
    "ElementErrors",
    "PhaseScreen",
    "ReceiveChain",
    "Probe",
    "MatrixProbe",
    "Imaging",
    "Medium",
    *COMBINATIONS,
}
RESULTS = {"Calibration", "DepthResolution", "TimeZero"}  # made by the library, which hands their arrays over


def value_classes():
    named = {name: getattr(ussim, name) for name in ussim.__all__}
    return {name: value for name, value in named.items() if inspect.isclass(value) and dataclasses.is_dataclass(value)}


def test_every_value_class_is_covered():
    """A new class with a row missing, or a new array argument missing in its row, fails here."""
    assert set(value_classes()) == set(VALUES) | WITHOUT_ARRAYS | RESULTS
    for name, rows in VALUES.items():
        taken = set().union(*(row for row in rows))
        for key, parameter in inspect.signature(value_classes()[name]).parameters.items():
            assert key in taken or "Array" not in str(parameter.annotation).replace("ndarray", "Array"), (name, key)


@pytest.mark.parametrize(("name", "row"), [(name, row) for name, rows in VALUES.items() for row in rows])
def test_a_value_holds_arrays_of_its_own(name, row):
    given = {key: entry.copy() if isinstance(entry, np.ndarray) else entry for key, entry in row.items()}
    value = value_classes()[name](**given)
    held = {key.lstrip("_"): entry for key, entry in vars(value).items() if isinstance(entry, np.ndarray)}
    for key, entry in given.items():
        if not isinstance(entry, np.ndarray) or (name, key) in LARGE:
            continue
        assert not np.shares_memory(held[key], entry), key
        assert not held[key].flags.writeable, key
        base = held[key].base
        assert base is None or not base.flags.writeable, key  # nor through the array that it views
        before = held[key].copy()
        entry[...] = 1
        np.testing.assert_array_equal(held[key], before)


def test_angles_reused_after_the_waves_were_made_change_nothing(tmp_path):
    angles = np.array([-0.1, 0.1])
    acquisition = ussim.Acquisition(PROBE, ussim.PlaneWaves(angles))
    rf = ussim.RFData(np.zeros((2, N, 5), np.float32), acquisition, 20e6)
    angles *= 2
    rf.save(tmp_path / "rf.npz")
    loaded = ussim.load_channel_data(tmp_path / "rf.npz").acquisition
    np.testing.assert_array_equal(loaded.transmit_delays, acquisition.transmit_delays)


MASKED = np.ma.masked_array([0.0, 0.1], mask=[False, True])


@pytest.mark.parametrize("bad", [np.array([0.01, 0.01 + 1j]), MASKED], ids=["complex", "masked"])
@pytest.mark.parametrize(
    "make",
    [
        lambda bad: ussim.Scatterers(np.zeros(2), np.full(2, 0.01), bad),
        lambda bad: ussim.Scatterers(bad, np.full(2, 0.01), np.ones(2)),
        lambda bad: ussim.ImageGrid(x=bad, z=[0.01, 0.02]),
        lambda bad: ussim.PlaneWaves(bad),
        lambda bad: ussim.PlaneWaves([0.0], apodization=bad),
        lambda bad: ussim.FocusedWaves(0.0, bad),
        lambda bad: ussim.DivergingWaves(x=0.0, z=bad),
        lambda bad: ussim.CustomTransmits(bad),
        lambda bad: ussim.scatterers_from_image(
            np.tile(bad, (2, 1)) if bad.dtype.kind == "c" else MASKED[None], GRID, ACQUISITION
        ),
    ],
)
def test_complex_and_masked_arrays_are_refused(make, bad):
    with pytest.raises(ValueError, match=r"got complex ones|got a masked one"):
        make(bad)


GRID = ussim.ImageGrid(x=np.linspace(-2e-3, 2e-3, 9), z=np.linspace(5e-3, 10e-3, 11))
MM = ussim.ImageGrid(x=1e3 * GRID.x, z=1e3 * GRID.z)
POINT = ussim.Scatterers([0.0], [8e-3], [1.0])
FAR = ussim.Scatterers([0.0], [20.0], [1.0])


def rf_data(sampling_frequency=20e6, start_time=0.0, probe=PROBE):
    acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(0.0))
    return ussim.RFData(np.ones((1, probe.n_elements, 400), np.float32), acquisition, sampling_frequency, start_time)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(PROBE, pitch=0.3, element_width=0.25), r"pitch: expected m, got 0.3 m \(mm\? write 0.3e-3\)"),
        (lambda: replace(PROBE, center_frequency=7.6), r"center_frequency: expected Hz.*write 7.6e6"),
        (lambda: replace(PROBE, element_height=5.0), r"element_height: expected m.*write 5e-3"),
        (lambda: ussim.Medium(1.54), r"speed_of_sound: expected m/s.*write 1540"),
        (lambda: ussim.Medium(1e-6), r"speed_of_sound: expected m/s"),
        (lambda: ussim.delay_and_sum(rf_data(), GRID, speed_of_sound=1e-6), r"speed_of_sound: expected m/s"),
        (lambda: ussim.Medium(154_000.0), r"speed_of_sound: expected m/s"),
        (lambda: rf_data(30.4), r"sampling_frequency: expected Hz.*write 30.4e6"),
        (lambda: rf_data(start_time=10.0), r"start_time: expected s.*write 10e-6"),
        (lambda: ussim.Acquisition(PROBE, WAVES, sampling_frequency=30.4), r"sampling_frequency: expected Hz"),
        (lambda: ussim.Acquisition(PROBE, WAVES, transmit_frequency=5.0), r"transmit_frequency: expected Hz"),
        (lambda: ussim.Acquisition(PROBE, WAVES, receive_delays=np.ones(N)), r"receive_delays: expected s"),
        (lambda: ussim.Acquisition(PROBE, ussim.CustomTransmits(np.arange(N))), r"delays: expected s, got 7 s"),
        (lambda: ussim.ImageGrid.for_acquisition(ACQUISITION, (8, 8), (-20, 20), (5, 43)), r"positions in m.*mm\?"),
        (lambda: ussim.delay_and_sum(rf_data(), ussim.ImageGrid(x=[0.0], z=[20.0])), r"grid: expected positions in m"),
        (lambda: ussim.delay_and_sum(rf_data(), MM), r"grid: its echoes come"),
        (lambda: ussim.delay_and_sum(rf_data(start_time=0.1), GRID), r"grid: its echoes come"),
        (lambda: ussim.simulate(FAR, ACQUISITION), r"Scatterers: expected positions in m, got some 20 m away"),
        (lambda: ussim.simulate_batch([FAR], ACQUISITION), r"Scatterers: expected positions in m"),
        (
            lambda: ussim.pressure_field(ACQUISITION, ussim.ImageGrid(x=[0.0], z=[20.0])),
            r"grid: expected positions in m",
        ),
        (lambda: ussim.Scatterers([0.0], [0.01], [1e38]), r"reflectivity: expected magnitudes of at most 1e\+30"),
        (lambda: ussim.Acquisition(PROBE, WAVES, n_subelements=2.5), r"n_subelements: expected a whole number"),
        (lambda: ussim.Acquisition(PROBE, WAVES, n_subelements=True), r"n_subelements: expected a whole number"),
        (lambda: ussim.Acquisition("L11-5", WAVES), r"unknown probe 'L11-5'"),
        (lambda: ussim.Acquisition(None, WAVES), r"probe: expected a Probe, got None"),
        (lambda: ussim.Acquisition(PROBE, WAVES, 1540.0), r"medium: expected a Medium, got 1540"),
        (
            lambda: ussim.Acquisition(replace(PROBE, n_elements=1), ussim.DivergingWaves(tilts=0.0, width=1.0)),
            r"a sector is made by several elements, eight has 1",
        ),
    ],
)
def test_other_units_and_kinds_are_one_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("center_frequency", "pitch", "height", "speed", "depth"),
    [
        (50e3, 3.4e-3, 10e-3, 343.0, 10.0),  # air-coupled, ranging 10 m
        (1e3, 0.5, 0.5, 1500.0, 200.0),  # low-frequency sonar
        (200e3, 5e-3, 50e-3, 1500.0, 500.0),  # multibeam sonar
        (1e6, 1e-3, 20e-3, 1500.0, 30.0),  # inspection sonar
        (1e6, 60e-3, 60e-3, 1540.0, 0.15),  # one large therapy element
        (2.25e6, 25e-3, 25e-3, 5900.0, 1.0),  # immersion transducer on steel
        (5e6, 0.6e-3, 10e-3, 5900.0, 5.0),  # long steel bar
        (25e6, 25.4e-3, 25.4e-3, 1480.0, 0.1),  # one-inch transducer
        (100e6, 8e-6, 1e-3, 1540.0, 5e-3),  # intravascular
        (1e9, 1e-6, 50e-6, 1500.0, 100e-6),  # acoustic microscope
        (5e6, 0.5e-3, 10e-3, 17_500.0, 0.05),  # diamond
        (1e6, 0.5e-3, 10e-3, 150.0, 0.05),  # heavy gas
    ],
)
def test_plausible_setups_are_accepted(center_frequency, pitch, height, speed, depth):
    probe = ussim.Probe("any", center_frequency, 0.6, 4, pitch, 0.9 * pitch, element_height=height)
    acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(0.0), ussim.Medium(speed))
    grid = ussim.ImageGrid.for_acquisition(acquisition, (3, 3), (-depth / 10, depth / 10), (depth / 2, depth))
    two_way = 2 * depth / speed
    samples = np.ones((1, 4, 50), np.float32)
    for rate, start in (
        (0.5 * center_frequency, 0.9 * two_way),
        (100 * center_frequency, two_way),
        (50 / two_way, 0.0),
    ):
        if rate >= 1e-3 * center_frequency:
            image = ussim.delay_and_sum(ussim.RFData(samples, acquisition, rate, start), grid, f_number=0.0)
            assert image.shape == (3, 3)


def test_acquisition_takes_the_name_of_a_probe():
    assert ussim.Acquisition("l11-5v", WAVES).probe == ussim.load_probe("L11-5v")


def test_a_default_rate_follows_the_probe_and_a_given_one_stays():
    other = replace(PROBE, center_frequency=3e6)
    assert ACQUISITION.sampling_frequency == 20e6
    assert replace(ACQUISITION, probe=other).sampling_frequency == 12e6
    asked = ussim.Acquisition(PROBE, WAVES, sampling_frequency=20e6)
    assert replace(asked, probe=other).sampling_frequency == 20e6
    assert replace(replace(ACQUISITION, n_cycles=2.0), probe=other).sampling_frequency == 12e6


@pytest.mark.parametrize("center_frequency", [1e3, 5e6, 400e6])
def test_the_step_of_a_pulse_follows_the_frequency(center_frequency):
    """At 1 kHz steps of 1 ns would take gigabytes, at 400 MHz they would be 2.5 per period."""
    time, wave = ussim.pulse(
        ussim.Acquisition(replace(PROBE, center_frequency=center_frequency, pitch=1e-6, element_width=1e-6), WAVES)
    )
    per_period = 1 / (center_frequency * (time[1] - time[0]))
    assert 20 * (1 - 1e-9) <= per_period <= 1000 * (1 + 1e-9)
    assert len(wave) < 20_000
    assert np.abs(wave).max() == 1.0


@pytest.mark.parametrize(
    "cls",
    [
        ussim.PlaneWaves,
        ussim.DivergingWaves,
        ussim.FocusedWaves,
        ussim.SyntheticAperture,
        ussim.Acquisition,
        ussim.Scatterers,
        ussim.ImageGrid,
    ],
)
def test_what_type_checkers_read_is_what_is_called(cls):
    """Constructors written out for type checkers, which take lists and numbers, have the fields in their order."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    (written,) = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    ]  # fmt: skip
    arguments = [*written.args.args, *written.args.kwonlyargs]
    parameters = inspect.signature(cls).parameters
    assert [argument.arg for argument in arguments[1:]] == list(parameters)
    required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    assert len(arguments) - 1 - len(written.args.defaults) == len(required)
