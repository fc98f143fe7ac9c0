"""Adaptive beamforming: what coherence is and is not, limits that are the plain sum, the CPU against the literal engine."""

import math
from dataclasses import replace

import numpy as np
import pytest
from test_beamform import random_iq, relative

import ussim
from ussim.beamforming.adaptive import COMBINATIONS, kernel_times, resolve_combination
from ussim.resolution import point_spread

NAMES = tuple(COMBINATIONS)
MAGNITUDES = tuple(name for name in NAMES if name != "slsc")
GRID = ussim.ImageGrid(x=np.linspace(-15e-3, 15e-3, 13), z=np.linspace(5e-3, 60e-3, 11))
POINT = ussim.ImageGrid(x=[2e-3], z=[30e-3])


def plane(name="P4-2v", n=1, **options):
    return ussim.Acquisition(
        ussim.load_probe(name), ussim.PlaneWaves(np.linspace(-0.1, 0.1, n) if n > 1 else 0.0), **options
    )


def alike(acquisition, grid=POINT, n_samples=700):
    """IQ data that are 1 on all elements when delayed to a point: its echo, of a pulse that never ends."""
    iq = random_iq(acquisition, n_samples)
    probe, c = acquisition.probe, acquisition.medium.speed_of_sound
    (x,), (z,) = grid.x, grid.z
    there = ussim.beamform.transmit_time(acquisition, grid.x, grid.z)[:, 0]
    back = np.hypot(x - probe.element_x, z - probe.element_z) / c
    turn = np.exp(-2j * np.pi * iq.demodulation_frequency * (there[:, None] + back))
    return replace(iq, samples=np.broadcast_to(turn[..., None], iq.samples.shape).astype(np.complex64))


def image(iq, grid=GRID, **options):
    return ussim.delay_and_sum(iq, grid, **{"engine": "cpu", "f_number": 0.0, **options})


# --- an echo alike on all elements -----------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["cpu", "reference"])
@pytest.mark.parametrize("name", MAGNITUDES)
def test_of_an_echo_alike_on_all_elements_every_method_gives_the_sum(name, engine):
    iq = alike(plane(n=3))
    for normalize in (False, True):
        expected = image(iq, POINT, normalize=normalize)
        assert abs(expected[0, 0]) == pytest.approx(3 if normalize else 3 * 64, rel=1e-5)
        # float32 samples, and MV's loading of a covariance of rank one: 1e-7 each, times 64 elements at most
        assert abs(image(iq, POINT, combine=name, normalize=normalize, engine=engine)[0, 0]) == pytest.approx(
            abs(expected[0, 0]), rel=1e-5
        )


@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_coherence_of_an_echo_alike_on_all_elements_is_one(engine):
    assert image(alike(plane()), POINT, combine="slsc", engine=engine)[0, 0] == pytest.approx(1, abs=1e-6)


def test_a_simulated_point_is_coherent_in_its_place_and_not_beside_it():
    acquisition = plane("L11-5v", 5)
    iq = ussim.demodulate(ussim.simulate(ussim.Scatterers([0.0], [20e-3], [1.0]), acquisition, "cpu"))
    grid = ussim.ImageGrid(x=[0.0, 0.8e-3], z=[20e-3])
    factor = np.abs(image(iq, grid, f_number=None, combine="cf") / image(iq, grid, f_number=None))[0]
    assert factor[0] > 0.95  # less than 1 by the directivity, which makes outer elements fainter
    assert factor[1] < 0.2
    coherence = image(iq, grid, f_number=None, combine="slsc,lags=0.3")[0]
    assert coherence[0] > 0.9
    assert coherence[1] < 0.6


# --- noise -----------------------------------------------------------------------------------------------------------


def test_noise_has_a_coherence_factor_of_one_over_n_and_no_spatial_coherence():
    acquisition = plane()
    n = acquisition.probe.n_elements
    # Points far apart in depth: independent samples of a record of white noise
    grid = ussim.ImageGrid(x=[0.0], z=np.linspace(5e-3, 90e-3, 400))
    noise = random_iq(acquisition, 1500)
    power = np.abs(image(noise, grid, combine=ussim.CoherenceFactor()) / image(noise, grid))
    # The factor of noise is beta distributed, (1, n - 1): mean 1/n, deviation nearly the same; linear interpolation
    # between samples leaves it alone. 400 points: 4 standard errors.
    assert power.mean() == pytest.approx(1 / n, abs=4 / n / 20)
    coherence = image(noise, grid, combine=ussim.ShortLagSpatialCoherence(lags=0.1, kernel=0))
    assert coherence.std() > 0.01
    # cos of a random angle between neighbors: deviation 0.7 / √(6 lags x 60 pairs) = 0.037 per point
    assert abs(coherence.mean()) < 4 * 0.037 / 20
    assert np.abs(coherence).max() < 6 * 0.037


@pytest.mark.parametrize(("name", "gain"), [("cf", 3), ("gcf", 1.5), ("dmas", 1.5), ("mv", 0.8)])
def test_noise_is_darkened_and_an_echo_is_not(name, gain):
    """Signal to noise in amplitude, over that of the sum; nothing to gain for minimum variance, as white noise is white."""
    acquisition = plane()
    echo, noise = alike(acquisition), random_iq(acquisition, 700)
    grid = ussim.ImageGrid(x=[2e-3], z=np.linspace(20e-3, 60e-3, 60))

    def snr(combine):
        return abs(image(echo, POINT, combine=combine)[0, 0]) / np.abs(image(noise, grid, combine=combine)).mean()

    assert gain * snr("sum") < snr(name)


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_minimum_variance_of_infinite_loading_is_the_sum(engine):
    iq = random_iq(plane(n=2), 700)
    whole = ussim.MinimumVariance(subarray=1, loading=math.inf)
    for options in ({}, {"f_number": 1.5, "normalize": True}, {"compounding": "none"}):
        found = image(iq, combine=whole, engine=engine, **options)
        assert relative(found, image(iq, engine="reference", **options)) < 1e-6
    n, length = 64, 24
    half = ussim.MinimumVariance(subarray=length / n, loading=math.inf)
    ramp = np.convolve(np.ones(length), np.ones(n - length + 1)) * n / (length * (n - length + 1))
    expected = image(iq, engine="reference", apodization=ramp)
    assert relative(image(iq, combine=half, engine=engine), expected) < 1e-6
    nearly = image(iq, combine=replace(half, loading=1e6), engine=engine)
    assert relative(nearly, expected) < 1e-4  # off by R / (loading x power)


@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_generalized_coherence_is_between_the_coherence_factor_and_the_sum(engine):
    iq = random_iq(plane(), 1000)
    cf, total = image(iq, combine="cf", engine=engine), image(iq, engine="reference")
    assert relative(image(iq, combine=ussim.GeneralizedCoherenceFactor(0), engine=engine), cf) < 1e-6
    assert relative(image(iq, combine=ussim.GeneralizedCoherenceFactor(32), engine=engine), total) < 1e-6
    factors = [
        np.abs(image(iq, combine=f"gcf,order={order}", engine=engine) / total).max(axis=None) for order in (0, 2, 8, 31)
    ]
    assert factors == sorted(factors)
    assert factors[-1] < 1
    root = image(iq, combine="cf,exponent=0.5", engine=engine)
    assert relative(np.abs(root) ** 2, np.abs(cf * total)) < 1e-5


def test_minimum_variance_passes_the_echo_and_keeps_an_interferer_out():
    """Two plane waves across the aperture, delayed: the pixel's own, and a hundredfold one from a side lobe."""
    acquisition = plane()
    iq = alike(acquisition)
    n = acquisition.probe.n_elements
    turns = 3.5 * (np.arange(n) / n - 0.5)  # cycles across the aperture: amid a side lobe of the sum
    tilted = 30 * np.exp(2j * np.pi * turns)[:, None]
    both = replace(iq, samples=(iq.samples * (1 + tilted)).astype(np.complex64))
    expected = abs(image(iq, POINT)[0, 0])
    assert abs(image(both, POINT) - image(iq, POINT))[0, 0] > 2 * expected
    # The residue of an interferer of power P against loading: about loading / L of its amplitude
    method = ussim.MinimumVariance(subarray=0.5, loading=1e-6)
    assert abs(image(both, POINT, combine=method)[0, 0]) == pytest.approx(expected, rel=0.05)


# --- scale -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sum", *NAMES])
def test_doubling_the_echoes_doubles_the_image_and_leaves_coherence_alone(name):
    iq = random_iq(plane(n=2), 700)
    twice = image(replace(iq, samples=2 * iq.samples), combine=name)
    assert relative(twice, image(iq, combine=name) * (1 if name == "slsc" else 2)) < 1e-6


def test_a_turn_of_phase_turns_the_sum_once_and_products_twice():
    iq = random_iq(plane(), 700)
    turned = replace(iq, samples=iq.samples * np.complex64(np.exp(0.7j)))
    for name in ("cf", "gcf", "mv"):
        assert relative(image(turned, combine=name), np.exp(0.7j) * image(iq, combine=name)) < 1e-5
    assert relative(image(turned, combine="dmas"), np.exp(1.4j) * image(iq, combine="dmas")) < 1e-5
    assert relative(image(turned, combine="slsc"), image(iq, combine="slsc")) < 1e-5


def test_only_linear_methods_superpose():
    one, other = random_iq(plane(), 700), random_iq(plane(), 700, seed=1)
    both = replace(one, samples=one.samples + other.samples)
    windowed = {"apodization": "hann", "f_number": 1.0}
    for options in ({}, windowed, {"combine": ussim.MinimumVariance(loading=math.inf)}):
        assert relative(image(both, **options), image(one, **options) + image(other, **options)) < 1e-5
    for name in NAMES:
        assert relative(image(both, combine=name), image(one, combine=name) + image(other, combine=name)) > 0.1


def test_products_are_those_of_the_pairs():
    acquisition = plane()
    iq = random_iq(acquisition, 700)
    channels = np.stack([image(iq, POINT, apodization=np.eye(64)[e])[0, 0] for e in range(64)]).astype(complex)
    roots = channels / np.sqrt(np.abs(channels))
    expected = sum(roots[i] * roots[j] for i in range(64) for j in range(i + 1, 64)) * 2 / 63
    assert image(iq, POINT, combine="dmas")[0, 0] == pytest.approx(expected, rel=1e-4)


# --- a point ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "narrower"), [("cf", 0.9), ("mv", 0.7), ("dmas", 0.95)])
def test_a_point_is_narrower_than_the_sum_makes_it_and_in_its_place(name, narrower):
    acquisition = plane("L11-5v", 5)
    plain = point_spread(acquisition, 1e-3, 20e-3, engine="cpu")
    spread = point_spread(acquisition, 1e-3, 20e-3, engine="cpu", combine=name)
    assert abs(spread.peak_x - 1e-3) < 0.05e-3  # a quarter of a wavelength
    assert abs(spread.peak_z - 20e-3) < 0.05e-3
    assert spread.widths(-20)[0] < narrower * plain.widths(-20)[0]


# --- engines agree ---------------------------------------------------------------------------------------------------


CASES = [
    "cf",
    "cf,exponent=0.5",
    "gcf",
    "gcf,order=5",
    "mv",
    "mv,kernel=0,subarray=0.3",
    "mv,subarray=1",
    "dmas",
    "slsc",
]
CASES += ["slsc,lags=1,kernel=2", "mv,subarray=0.001"]


@pytest.mark.parametrize("compounding", ["coherent", "incoherent", "none"])
@pytest.mark.parametrize("name", CASES)
def test_cpu_matches_the_reference(name, compounding):
    if name.startswith("slsc") and compounding == "incoherent":
        pytest.skip("coherences are no magnitudes")
    probe = ussim.load_probe("C5-2v")
    mask = np.random.default_rng(2).random((3, probe.n_elements)) > 0.3
    mask[:, 5] = False
    acquisition = plane("C5-2v", 3, receive_mask=mask, receive_delays=np.linspace(0, 0.4e-6, probe.n_elements))
    iq = random_iq(acquisition, 500, start_time=12e-6)  # echoes of the grid begin before the record and end after it
    grid = ussim.ImageGrid(x=np.linspace(-31e-3, 29e-3, 5), z=np.linspace(-2e-3, 42e-3, 6))
    weights = np.random.default_rng(1).uniform(-1, 1, (3, *grid.shape)) * np.array([0, 1, 1])[:, None, None]
    options = {"combine": name, "compounding": compounding, "interpolation": "lanczos3", "transmit_weights": weights}
    for more in ({"f_number": 0.0, "normalize": True}, {"f_number": 1.2}):
        found, expected = (image(iq, grid, engine=engine, **options, **more) for engine in ("cpu", "reference"))
        assert found.shape == expected.shape == ((3, *grid.shape) if compounding == "none" else grid.shape)
        real = compounding == "incoherent" or name.startswith("slsc")
        assert found.dtype == (np.float32 if real else np.complex64)
        assert expected.any()
        assert (
            relative(found, expected) < 1e-5
        )  # channels in float32, interpolation by table: 1e-6; MV solves with them
        assert not found[..., probe.is_behind(*grid.mesh())].any()


@pytest.mark.parametrize("window", ["hann", "tukey", "array"])
@pytest.mark.parametrize("name", ["cf", "gcf", "dmas"])
def test_windows_weigh_the_channels_that_are_summed(name, window):
    iq = random_iq(plane(), 700)
    window = np.random.default_rng(0).uniform(0, 1, 64).round(1) if window == "array" else window
    for f_number in (0.0, 1.0):
        options = {"combine": name, "apodization": window, "f_number": f_number, "normalize": True}
        found, expected = (image(iq, engine=engine, **options) for engine in ("cpu", "reference"))
        assert relative(found, expected) < 1e-5
        assert relative(found, image(iq, **options | {"apodization": None})) > 0.05


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_a_stack_gives_each_records_image(engine, name):
    acquisition = plane(n=2)
    records = [random_iq(acquisition, 300, seed=k) for k in range(2)]
    stack = replace(records[0], samples=np.stack([record.samples for record in records])[:, None])
    grid = ussim.ImageGrid(x=np.linspace(-15e-3, 15e-3, 5), z=np.linspace(5e-3, 15e-3, 4))
    for record, found in zip(records, image(stack, grid, combine=name, engine=engine)[:, 0], strict=True):
        np.testing.assert_array_equal(found, image(record, grid, combine=name, engine=engine))


@pytest.mark.parametrize("name", NAMES)
def test_points_in_blocks_give_the_same_image(monkeypatch, name):
    from ussim.engines.cpu import adaptive

    iq = random_iq(plane(n=2), 700)
    whole = image(iq, combine=name)
    monkeypatch.setattr(adaptive, "BLOCK_BYTES", 8 * 64 * 5 * 7)  # seven points, of five times
    np.testing.assert_array_equal(image(iq, combine=name), whole)


@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_a_transmit_that_never_fires_is_not_heard_in_an_axial_kernel(engine):
    probe = ussim.load_probe("P4-2v")
    on = np.ones((2, probe.n_elements))
    on[1] = 0
    both = ussim.Acquisition(probe, ussim.PlaneWaves([0.0, 0.1], apodization=on))
    iq = random_iq(both, 700)
    alone = replace(iq, samples=iq.samples[:1], acquisition=plane())
    for combine in ("slsc,kernel=10", "mv,kernel=10"):
        assert relative(image(iq, combine=combine, engine=engine), image(alone, combine=combine, engine=engine)) < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_empty_records_give_an_empty_image(name):
    iq = random_iq(plane(), 100)
    assert not image(replace(iq, samples=0 * iq.samples), combine=name).any()


# --- doors -----------------------------------------------------------------------------------------------------------


def test_names_mean_values():
    assert resolve_combination("sum") is None
    assert resolve_combination("mv") == ussim.MinimumVariance()
    assert resolve_combination("mv, loading=0.1, subarray=0.4") == ussim.MinimumVariance(subarray=0.4, loading=0.1)
    assert resolve_combination("gcf,order=3") == ussim.GeneralizedCoherenceFactor(3)
    assert resolve_combination(ussim.DelayMultiplyAndSum()) == ussim.DelayMultiplyAndSum()
    assert resolve_combination("mv,loading=inf").loading == math.inf


def test_an_axial_kernel_is_as_long_as_said():
    assert kernel_times(ussim.CoherenceFactor(), 5e6) == [0.0]
    assert kernel_times(ussim.MinimumVariance(kernel=0), 5e6) == [0.0]
    times = kernel_times(ussim.MinimumVariance(kernel=1), 5e6)
    assert np.ptp(times) == pytest.approx(2 / 5e6)  # a wavelength of depth, there and back
    assert times[len(times) // 2] == 0


@pytest.mark.parametrize(
    ("combine", "message"),
    [
        ("capon", "combine: expected one of sum, cf, gcf, mv, dmas, slsc, got 'capon'"),
        (None, "combine: expected one of sum, cf, gcf, mv, dmas, slsc, got None"),
        ("sum,order=1", "combine: expected one of"),
        ("mv,load=1", "combine: mv takes subarray, loading, kernel, got 'load=1'"),
        ("dmas,order=1", "combine: dmas takes no parameter, got 'order=1'"),
        ("mv,loading=much", "combine: mv: expected a number, as in loading=1, got 'loading=much'"),
        ("gcf,order=1.5", "combine: gcf: expected a number"),
        ("mv,loading=0", "MinimumVariance: loading: expected from 1e-09 to inf, got 0.0"),
        ("mv,loading=nan", "MinimumVariance: loading: expected from"),
        ("mv,subarray=1.5", "MinimumVariance: subarray: expected above 0 to 1, got 1.5"),
        ("gcf,order=-1", "GeneralizedCoherenceFactor: order: expected a whole number from 0, got -1"),
        ("slsc,lags=0", "ShortLagSpatialCoherence: lags: expected above 0 to 1, got 0.0"),
        ("slsc,kernel=1e9", "ShortLagSpatialCoherence: kernel: expected from 0 to 20"),
        ("cf,exponent=0", "CoherenceFactor: exponent: expected above 0 to 10, got 0.0"),
    ],
)
def test_bad_combinations_are_refused(combine, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        image(random_iq(plane(), 20), combine=combine)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"combine": "mv", "apodization": "hann"}, '"mv" weighs the elements itself: expected apodization None'),
        ({"combine": "slsc", "apodization": np.ones(64)}, '"slsc" weighs the elements itself'),
        ({"combine": "slsc", "compounding": "incoherent"}, "expected compounding coherent or none"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        image(random_iq(plane(), 20), **options)


def test_rf_data_are_refused():
    iq = random_iq(plane(), 20)
    rf = ussim.RFData(iq.samples.real.copy(), iq.acquisition, iq.sampling_frequency)
    with pytest.raises(ValueError, match='combine: "cf" needs IQData, whose samples have phases'):
        image(rf, combine="cf")


def test_an_envelope_of_coherences_is_not_negative():
    iq = random_iq(plane(), 1000)
    grid = ussim.ImageGrid(x=np.linspace(-15e-3, 15e-3, 60), z=np.linspace(30e-3, 60e-3, 60))
    assert image(iq, grid, combine="slsc").min() < 0
    detected = ussim.envelope_image(iq, grid, combine="slsc", engine="cpu")
    assert detected.min() == 0 < detected.max() <= 1
    assert ussim.envelope_image(iq, grid, combine="mv", engine="cpu").min() > 0
