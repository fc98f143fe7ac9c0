"""The CPU engine against the oracle, and the physics both must keep.

Tolerance of the comparisons: a pulse's tail of 3e-5 of its energy lies outside the cells' windows, and float32 phases add
about 1e-5: 2e-5 to 3e-5 is seen, 1e-4 is promised.
"""

from dataclasses import replace

import numpy as np
import pytest

import ussim
from ussim.engines.cpu.engine import ENGINE as cpu
from ussim.engines.reference import ENGINE as reference
from ussim.errors import EngineError
from ussim.plan import audible, make_plan

PROMISED = 1e-4


def scatterers_for(probe: ussim.Probe, n: int = 24, depth: float | None = None, seed: int = 0) -> ussim.Scatterers:
    """From 1 mm to the field's end (or `depth`), as wide as the field and the array, and beside them."""
    rng = np.random.default_rng(seed)
    field_x, field_z = probe.imaging.x, probe.imaging.z
    half_width = 1.3 * max(field_x[1], probe.element_x[-1])
    z = rng.uniform(1e-3, depth or field_z[1], n)
    z[0] = 1e-3
    x = rng.uniform(-half_width, half_width, n)
    x[0] = probe.element_x[3]
    return ussim.Scatterers(x, z, rng.rayleigh(size=n))


def error_of(acquisition: ussim.Acquisition, scatterers: ussim.Scatterers, **options) -> float:
    """Relative L2 error of the engine's RF."""
    expected = ussim.simulate(scatterers, acquisition, engine="reference", **options).samples
    got = ussim.simulate(scatterers, acquisition, engine="cpu", **options).samples
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def waves_for(probe: ussim.Probe, kind: str):
    plane = ussim.PlaneWaves(np.deg2rad([-10.0, 4.0]))
    depth = probe.imaging.z[1] * 0.6
    if kind == "plane":
        return plane
    if kind == "focused":
        return ussim.FocusedWaves(x=[0.0, 5e-3], z=[depth, 0.5 * depth])
    if kind == "diverging":
        behind = probe.center_of_curvature if not probe.is_flat else -20e-3
        return ussim.DivergingWaves(x=[0.0, 3e-3], z=[behind, behind])
    delays = plane.delays(probe, ussim.Medium())
    if kind == "elements off":
        delays[0, : probe.n_elements // 3] = np.nan
        delays[1, ::2] = np.nan
        return ussim.CustomTransmits(delays)
    foci = ussim.FocusedWaves(x=[-6e-3, 7e-3], z=[depth, 0.7 * depth]).delays(probe, ussim.Medium())
    foci[1, :10] = np.nan
    return ussim.CustomTransmits(foci[None])


@pytest.mark.parametrize("attenuation", [0.0, 0.7])
@pytest.mark.parametrize("kind", ["plane", "diverging", "focused", "elements off", "two foci at once"])
def test_rf_matches_the_oracle(probe, kind, attenuation):
    acquisition = ussim.Acquisition(probe, waves_for(probe, kind), ussim.Medium(1540.0, attenuation))
    assert error_of(acquisition, scatterers_for(probe)) < PROMISED


def test_rf_matches_the_oracle_to_22_cm(probe):
    acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(np.array([0.05])), ussim.Medium(1540.0, 0.7))
    deep = scatterers_for(probe, 12, depth=0.22)
    # Each alone: in the sum the shallow ones, 100 dB stronger, would hide the deep ones.
    for i in range(3):
        one = ussim.Scatterers(deep.x[i : i + 1], np.array([0.22, 0.15, 0.1])[i : i + 1], deep.reflectivity[i : i + 1])
        assert error_of(acquisition, one) < PROMISED
    assert error_of(acquisition, deep) < PROMISED


OPTIONS = {
    "rigid": {"baffle": "rigid"},
    "impedance ratio": {"baffle": 1.75},
    "full-frequency directivity": {"full_frequency_directivity": True},
    "1 sub-element": {"n_subelements": 1},
    "3 sub-elements": {"n_subelements": 3, "full_frequency_directivity": True},
    "4 sub-elements": {"n_subelements": 4},
    "3 cycles": {"n_cycles": 3},
    "6.5 cycles": {"n_cycles": 6.5},
    "20 cycles": {"n_cycles": 20},
    "40 cycles": {"n_cycles": 40},
    "80 cycles": {"n_cycles": 80, "medium": ussim.Medium(1540.0, 0.5)},
    "bandwidth of 180 %": {"bandwidth": 1.8},
    "bandwidth of 20 %": {"bandwidth": 0.2},
    "threshold of -60 dB": {"threshold_db": -60.0},
    "chirp": {"n_cycles": 8, "frequency_sweep": 3e6},
    "sampled at 5 f_c": {"sampling_frequency": 5 * 7.6e6},
    "sampled at 8 f_c": {"sampling_frequency": 8 * 7.6e6},
    "receive delays": {"receive_delays": np.linspace(0, 1e-6, 128)},
    "apodization": {"apodization": np.hanning(128)},
    "slow": {"medium": ussim.Medium(1450.0, 0.3)},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_match_the_oracle(name):
    options = dict(OPTIONS[name])
    probe = ussim.load_probe("L11-5v")
    if "baffle" in options:
        probe = replace(probe, baffle=options.pop("baffle"))
    probe = replace(probe, bandwidth=options.pop("bandwidth", probe.bandwidth))
    waves = ussim.PlaneWaves(np.deg2rad([-8.0, 3.0]), options.pop("apodization", None))
    acquisition = ussim.Acquisition(probe, waves, **options)
    assert error_of(acquisition, scatterers_for(probe, 10)) < PROMISED


@pytest.mark.parametrize("n_elements", [1, 2, 7, 37])
def test_any_number_of_elements(n_elements):
    probe = replace(ussim.load_probe("P4-2v"), n_elements=n_elements)
    acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(np.array([0.0, 0.1])))
    assert error_of(acquisition, scatterers_for(ussim.load_probe("P4-2v"), 20)) < PROMISED


@pytest.mark.parametrize("n_transmits", [1, 2, 3, 15, 18, 40])
def test_any_number_of_transmits(n_transmits):
    """Each of the ways that lanes are used: on scatterers for the few, on transmits for the many, both."""
    probe = replace(ussim.load_probe("P4-2v"), n_elements=12)
    waves = ussim.PlaneWaves(np.linspace(-0.2, 0.2, n_transmits))
    acquisition = ussim.Acquisition(probe, waves)
    assert error_of(acquisition, scatterers_for(ussim.load_probe("P4-2v"), 40)) < PROMISED


@pytest.mark.parametrize(
    ("x", "z"),
    [
        (np.zeros(300), np.full(300, 0.03)),  # all at one point
        (np.array([-0.05, 0.05]), np.array([0.02, 0.02])),  # far apart
        (np.array([0.0, 0.0]), np.array([0.001, 0.12])),
        (np.linspace(-0.06, 0.06, 50), np.full(50, 0.02)),  # a line, beyond the array
        (np.array([0.01]), np.array([0.0])),  # in the array's plane: grazing incidence
        (np.array([0.00015, 0.01]), np.array([0.0, 0.03])),  # on an element
    ],
    ids=["one point", "far apart", "in depth", "line", "in the plane", "on an element"],
)
def test_odd_layouts_match_the_oracle(x, z):
    probe = ussim.load_probe("P4-2v")
    acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(np.array([0.0, 0.1])), ussim.Medium(1540.0, 0.3))
    assert error_of(acquisition, ussim.Scatterers(x, z, np.linspace(1, 2, len(x)))) < PROMISED


def test_receive_delays_delay():
    """The whole echo comes later, and the record is long enough for it."""
    probe, samples = ussim.load_probe("P4-2v"), 40
    waves, point = ussim.PlaneWaves(np.zeros(1)), ussim.Scatterers(np.zeros(1), np.array([0.05]), np.ones(1))
    plain = ussim.Acquisition(probe, waves)
    late = np.full(probe.n_elements, samples / plain.sampling_frequency)
    rf = simulate(point, plain)
    delayed = simulate(point, replace(plain, receive_delays=late))
    assert delayed.shape[2] == rf.shape[2] + samples
    np.testing.assert_array_equal(delayed[:, :, samples:], rf)


@pytest.fixture
def acquisition() -> ussim.Acquisition:
    waves = ussim.PlaneWaves(np.deg2rad([-10.0, 0.0, 10.0]))
    return ussim.Acquisition(ussim.load_probe("P4-2v"), waves, ussim.Medium(1540.0, 0.5))


@pytest.fixture
def speckle() -> ussim.Scatterers:
    rng = np.random.default_rng(7)
    return ussim.Scatterers(rng.uniform(-0.02, 0.02, 3000), rng.uniform(0.03, 0.08, 3000), rng.rayleigh(size=3000))


def simulate(scatterers, acquisition, **options) -> np.ndarray:
    return ussim.simulate(scatterers, acquisition, engine="cpu", **options).samples


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_dense_speckle_matches_the_oracle(acquisition, speckle):
    some = ussim.Scatterers(speckle.x[:400], speckle.z[:400], speckle.reflectivity[:400])
    assert error_of(acquisition, some) < PROMISED


def test_no_scatterers_give_silence(acquisition):
    none = ussim.Scatterers(np.zeros(0), np.zeros(0), np.zeros(0))
    rf = simulate(none, acquisition, n_samples=100)
    assert rf.shape == (3, 64, 100)
    assert not rf.any()


def test_scatterers_of_no_reflectivity_change_nothing(acquisition, speckle):
    far = ussim.Scatterers(
        np.append(speckle.x, [0.1, -0.1]), np.append(speckle.z, [0.2, 0.15]), np.append(speckle.reflectivity, [0, 0])
    )
    np.testing.assert_array_equal(
        simulate(far, acquisition, n_samples=1200), simulate(speckle, acquisition, n_samples=1200)
    )


def test_linear_in_reflectivity(acquisition, speckle):
    twice = ussim.Scatterers(speckle.x, speckle.z, -2 * speckle.reflectivity)
    # A power of two scales every float32 exactly.
    np.testing.assert_array_equal(simulate(twice, acquisition), -2 * simulate(speckle, acquisition))
    other = replace(speckle, reflectivity=np.roll(speckle.reflectivity, 1))
    both = replace(speckle, reflectivity=speckle.reflectivity + 0.3 * other.reflectivity)
    apart = simulate(speckle, acquisition) + np.float32(0.3) * simulate(other, acquisition)
    assert relative(simulate(both, acquisition), apart) < 2e-6  # float32 sums in another order


def test_two_calls_are_one(acquisition, speckle):
    halves = [
        ussim.Scatterers(speckle.x[part], speckle.z[part], speckle.reflectivity[part])
        for part in (slice(0, 1000), slice(1000, None))
    ]
    apart = sum(simulate(half, acquisition, n_samples=1400) for half in halves)
    # The cells differ, and with them windows and frequency grids: each within 3e-5 of the truth.
    assert relative(apart, simulate(speckle, acquisition, n_samples=1400)) < 6e-5


def test_mirrored_scatterers_mirror_rf(acquisition, speckle):
    mirrored = ussim.Scatterers(-speckle.x, speckle.z, speckle.reflectivity)
    # Cells are cut at the same places but for ties, float32 roundings differ.
    assert relative(simulate(mirrored, acquisition)[::-1, ::-1], simulate(speckle, acquisition)) < 6e-5


def test_record_length_and_start_only_cut(acquisition, speckle):
    """The cells do not depend on the record: the same samples, bit for bit."""
    whole = simulate(speckle, acquisition, n_samples=2000)
    np.testing.assert_array_equal(simulate(speckle, acquisition, n_samples=700), whole[:, :, :700])
    start = 345
    late = simulate(speckle, acquisition, n_samples=601, start_time=start / acquisition.sampling_frequency)
    np.testing.assert_array_equal(late, whole[:, :, start : start + 601])


def test_reciprocity():
    """Firing one element and listening on another is the same as the other way round (rigid or soft, attenuated or not)."""
    probe = replace(ussim.load_probe("P4-2v"), n_elements=16)
    waves = ussim.CustomTransmits(np.where(np.eye(16, dtype=bool), 0.0, np.nan))
    acquisition = ussim.Acquisition(probe, waves, ussim.Medium(1540.0, 0.5))
    rng = np.random.default_rng(1)
    points = ussim.Scatterers(rng.uniform(-0.01, 0.01, 50), rng.uniform(0.01, 0.04, 50), rng.rayleigh(size=50))
    rf = simulate(points, acquisition)
    assert relative(rf.transpose(1, 0, 2), rf) < 5e-6  # float32: transmit and receive sum in another order


def test_same_bytes_for_any_number_of_threads(acquisition, speckle, monkeypatch):
    expected = simulate(speckle, acquisition)
    for n_threads in (1, 3, 8):
        monkeypatch.setattr("numba.config.NUMBA_NUM_THREADS", n_threads)
        np.testing.assert_array_equal(simulate(speckle, acquisition), expected)


def test_same_bytes_for_any_budget(acquisition, speckle):
    np.testing.assert_array_equal(simulate(speckle, acquisition, max_memory=30e6), simulate(speckle, acquisition))


def test_a_budget_too_small_says_what_would_do(acquisition, speckle):
    with pytest.raises(EngineError, match=r"max_memory: expected at least \d+ MB .*, got 1 MB"):
        simulate(speckle, acquisition, max_memory=1e6)
    grid = ussim.ImageGrid(np.linspace(-0.01, 0.01, 5), np.linspace(0.01, 0.02, 5))
    with pytest.raises(EngineError, match=r"max_memory: expected at least \d+ MB, got 0.001 MB"):
        ussim.pressure_field(acquisition, grid, max_memory=1e3)


@pytest.mark.parametrize("kind", ["plane", "focused", "two foci at once"])
def test_pressure_field_matches_the_oracle(probe, kind):
    acquisition = ussim.Acquisition(probe, waves_for(probe, kind), ussim.Medium(1540.0, 0.3))
    x, z = probe.imaging.x, probe.imaging.z
    grid = ussim.ImageGrid(np.linspace(1.4 * x[0], 1.4 * x[1], 9), np.linspace(1e-3, z[1], 8))
    plan = make_plan(acquisition)
    expected = reference.pressure_field(plan, grid, -60.0)
    got = cpu.pressure_field(plan, grid, -60.0)
    assert got.shape == expected.shape
    # The band's edges at -60 dB fall on other bins of the two grids: 1e-3 of the amplitude there, 1e-6 of the power.
    assert np.abs(got - expected).max() < 1e-4 * expected.max()
    np.testing.assert_array_equal(got == 0, expected == 0)


def test_pressure_field_matches_must(probe, golden):
    """Both engines. MUST computes in float32: 3e-5 of the field's norm and, at single pixels beside a convex array, 6e-4 of
    its peak; on the small grid, with fewer pixels and one nearer to the elements, 1e-4 and 1.6e-3."""
    arrays = golden(f"pulse_pfield_{probe.name}")
    grid = ussim.ImageGrid(arrays["px"][0], arrays["pz"][:, 0])
    for law in ("plane_+10deg", "focus_x5mm_z30mm"):
        waves = ussim.CustomTransmits(arrays[f"delays_{law}"])
        plan = make_plan(ussim.Acquisition(probe, waves, n_subelements="must"))
        expected = arrays[f"pfield_P_{law}"]
        for engine in (cpu, reference):
            got = engine.pressure_field(plan, grid, -60.0)[0]
            coarser = 1 if got.size > 1000 else 3
            assert relative(got, expected) < coarser * 5e-5
            assert np.abs(got - expected).max() < coarser * 1e-3 * expected.max()


def test_what_attenuation_swallows_is_silent():
    """150 dB and more each way: far below float32's reach beside any other echo, and no overflow of the exponentials."""
    medium = ussim.Medium(1540.0, 12.0)
    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves(np.zeros(1)), medium)
    near = ussim.Scatterers(np.zeros(1), np.array([0.01]), np.ones(1))
    both = ussim.Scatterers(np.zeros(2), np.array([0.01, 0.3]), np.ones(2))
    # The near echo's window is another beside a far one: a pulse's tail of 3e-5.
    assert relative(simulate(both, acquisition, n_samples=6000), simulate(near, acquisition, n_samples=6000)) < 6e-5


def test_reads_float32_scatterers(acquisition, speckle):
    single = ussim.Scatterers(*(a.astype(np.float32) for a in (speckle.x, speckle.z, speckle.reflectivity)))
    kept = audible(single, acquisition)
    assert kept.x.dtype == np.float64
    # float32 positions are 4 nm off at 6 cm: 1e-5 of a wavelength each way
    assert relative(simulate(single, acquisition), simulate(speckle, acquisition)) < 2e-4
