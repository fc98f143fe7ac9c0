"""Scatterers with an elevation y: MUST's arrays first, then physics, then the fast engines against the reference."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.fft import irfft
from scipy.spatial import cKDTree

import ussim
from ussim import physics
from ussim.elevation import beam_of, segment_weights
from ussim.engines import reference
from ussim.engines.cuda.backend import read_source
from ussim.plan import audible, make_plan

PROBES = ("L11-5v", "L12-3v", "C5-2v", "P4-2v")
GOLDEN_TOLERANCE = 1e-4
# Of MUST's beam, evaluated at one frequency in twenty: 3.1e-2 at most (P4-2v), 0.5e-2 to 2e-2 mostly.
STEPS_TOLERANCE = 4e-2
TAGS = [f"{law}_att{attenuation}" for law in ("plane_+0deg", "focus_x5mm_z30mm") for attenuation in ("0", "0.5")]


def relative_error(value, expected):
    return np.linalg.norm(value - expected) / np.linalg.norm(expected)


class Stepped(reference.Geometry):
    """MUST's beam in elevation: evaluated at some of the frequencies, held until the next of them."""

    held: np.ndarray

    def step(self, k):
        self.held = reference.Geometry.beam(self, k)

    def beam(self, k):
        return self.held


def stepped_rf(plan, scatterers, frequency, first_bin, n_fft, channels):
    """RF (n_channels, n_fft / 2) of the first transmit by MUST's own frequencies, in MUST's scale."""
    geometry = Stepped(plan, scatterers.x, scatterers.z, scatterers.y)
    renewed = set(np.round(np.linspace(1, len(frequency), max(3, round(len(frequency) / 20)))).astype(int) - 1)
    spectrum = np.zeros((len(channels), n_fft // 2 + 1), complex)
    for i, f in enumerate(frequency):
        if i in renewed:
            geometry.step(2 * np.pi * f / plan.acquisition.medium.speed_of_sound)
        response = geometry.response(f)
        pressure = reference.transmitted_pressure(plan, response, f)[0] * scatterers.reflectivity
        spectrum[:, first_bin + i] = plan.response(np.array([f])) * (pressure @ response)[channels]
    return irfft(np.conj(spectrum), n_fft, axis=-1)[:, : n_fft // 2] * plan.acquisition.sampling_frequency / n_fft


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("tag", TAGS)
def test_rf_equals_must(shared, name, tag):
    path = shared / "golden" / f"simus_elev_{name}.npz"
    if not path.is_file():
        pytest.skip("needs the golden arrays with an elevation")
    with np.load(path) as file:
        check_beside_must(dict(file), name, tag)


@pytest.mark.parametrize("tag", ["plane_+0deg_att0", "focus_x5mm_z30mm_att0.5"])
def test_rf_equals_must_of_the_small_set(tag):
    with np.load(Path(__file__).parent / "fixtures" / "simus_elev_P4-2v.npz") as file:
        check_beside_must(dict(file), "P4-2v", tag)


def check_beside_must(arrays, name, tag):
    """Compare RF with MUST's: closely where the beam is held as there, within what that costs where it is exact."""
    law, _, attenuation = tag.rpartition("_att")
    waves = ussim.PlaneWaves(0.0) if law.startswith("plane") else ussim.FocusedWaves(x=5e-3, z=30e-3)
    medium = ussim.Medium(attenuation_db_cm_mhz=float(attenuation))
    acquisition = ussim.Acquisition(ussim.load_probe(name), waves, medium, n_subelements="must")
    scatterers = ussim.Scatterers(arrays["scat_x"], arrays["scat_z"], arrays["scat_RC"], arrays["scat_y"])
    frequency, n_full = arrays[f"freqs_selected_{law}"], int(arrays[f"nfreq_full_{law}"])
    n_fft, expected = 2 * (n_full - 1), arrays[f"RFf64_{tag}"].T
    first_bin = round(frequency[0] / (2 * acquisition.probe.center_frequency) * (n_full - 1))
    stepped = stepped_rf(make_plan(acquisition, True), scatterers, frequency, first_bin, n_fft, arrays["channels"])
    assert relative_error(stepped, expected) < GOLDEN_TOLERANCE
    rf = ussim.simulate(scatterers, acquisition, "reference", n_samples=expected.shape[1])
    exact = rf.samples[0][arrays["channels"]] / n_fft
    assert relative_error(exact, expected) < STEPS_TOLERANCE


# --- physics ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_array():
    return ussim.Probe("small", 3e6, 0.7, 8, 0.3e-3, 0.25e-3, element_height=6e-3, elevation_focus=25e-3)


def cloud(probe, n, seed=0, height=0.5, depth=None):
    """Scatterers over the probe's field from near its face on, |y| up to `height` element heights."""
    rng = np.random.default_rng(seed)
    x, z = (probe.imaging.x, probe.imaging.z) if probe.imaging is not None else ((-5e-3, 5e-3), (0.0, 30e-3))
    near = max(0.2 * z[0], 1e-3)
    y = rng.uniform(-height, height, n) * probe.element_height
    return ussim.Scatterers(rng.uniform(*x, n), rng.uniform(near, depth or z[1], n), rng.normal(size=n), y)


def samples(scatterers, acquisition, engine="reference", **options):
    return np.asarray(ussim.simulate(scatterers, acquisition, engine, **options).samples)


def test_rf_is_reciprocal(small_array):
    delays = np.full((2, 8), np.nan)
    delays[0, 1] = delays[1, 6] = 0.0
    acquisition = ussim.Acquisition(small_array, ussim.CustomTransmits(delays), ussim.Medium(attenuation_db_cm_mhz=0.5))
    rf = samples(cloud(small_array, 20), acquisition)
    np.testing.assert_allclose(rf[0, 6], rf[1, 1], rtol=0, atol=1e-12 * np.abs(rf).max())


def test_rf_is_linear_and_the_same_from_both_sides_of_the_plane(small_array):
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(np.deg2rad([-5.0, 5.0])))
    one, two = cloud(small_array, 12, seed=1), cloud(small_array, 9, seed=2)
    parts = [samples(part, acquisition, n_samples=1500) for part in (one, two)]
    both = samples(one.join(two), acquisition, n_samples=1500)
    np.testing.assert_allclose(both, parts[0] + parts[1], rtol=0, atol=1e-12 * np.abs(both).max())
    mirrored = samples(ussim.Scatterers(one.x, one.z, one.reflectivity, -one.y), acquisition, n_samples=1500)
    np.testing.assert_array_equal(mirrored, parts[0])


def test_an_element_of_any_height_is_a_line_in_two_dimensions(small_array):
    """The Gaussians are 0.95 at the middle of the aperture; a line's field in three dimensions has sqrt(2πi / k) beside."""
    tall = replace(small_array, element_height=0.9, elevation_focus=math.inf)
    x, z = np.array([0.0, 3e-3, -2e-3]), np.array([5e-3, 20e-3, 40e-3])
    acquisition = ussim.Acquisition(tall, ussim.PlaneWaves(0.0), ussim.Medium(attenuation_db_cm_mhz=0.5))
    flat = reference.Geometry(make_plan(acquisition), x, z)
    deep = reference.Geometry(make_plan(acquisition, True), x, z, np.zeros(3))
    for frequency in (2e6, 3e6, 4e6):
        k = 2 * np.pi * frequency / 1540
        expected = 0.95 * np.sqrt(2j * np.pi / k) * flat.response(frequency)
        # The height's edges are 450 mm away, and sub-elements share the mean of their distances.
        np.testing.assert_allclose(deep.response(frequency), expected, rtol=2e-2)


def test_a_low_element_spreads_as_a_point(small_array):
    low = replace(small_array, n_elements=1, element_height=0.1e-3, elevation_focus=math.inf)
    plan = make_plan(ussim.Acquisition(low, ussim.PlaneWaves(0.0)), True)
    geometry = reference.Geometry(plan, np.zeros(2), np.array([20e-3, 40e-3]), np.zeros(2))
    near, far = np.abs(geometry.response(3e6)).ravel()
    assert near / far == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize("height", [5e-3, 10e-3])
def test_the_lens_focuses_at_its_depth_with_a_beam_of_its_aperture(small_array, height):
    """At the focus an aperture of height h has sinc(h y / (λ f)): the integral h on the axis, and 1.21 λ f / h at -6 dB."""
    lens = replace(small_array, n_elements=1, element_height=height)
    plan = make_plan(ussim.Acquisition(lens, ussim.PlaneWaves(0.0)), True)
    y = np.linspace(-6e-3, 6e-3, 2401)
    geometry = reference.Geometry(plan, np.zeros(y.size), np.full(y.size, 25e-3), y)
    field = np.abs(geometry.beam(2 * np.pi * 3e6 / 1540))[:, 0]
    assert field[1200] == pytest.approx(height, rel=0.02)  # four Gaussians are no rectangle
    width = np.ptp(y[field > field.max() / 2])
    assert width == pytest.approx(1.21 * 1540 / 3e6 * 25e-3 / height, rel=0.05)


def test_a_point_beside_the_plane_is_heard_as_late_as_must_hears_it(small_array):
    """The way in three dimensions, and y² / 2r once more each way, which MUST counts twice."""
    acquisition = ussim.Acquisition(replace(small_array, n_elements=1), ussim.PlaneWaves(0.0))
    y, z = 4e-3, 25e-3  # at the focus: the beam itself has no phase
    rf = samples(ussim.Scatterers([0.0], [z], [1.0], [y]), acquisition)[0, 0]
    from scipy.signal import hilbert

    middle = samples(ussim.Scatterers([0.0], [z], [1.0], [0.0]), acquisition)[0, 0]
    arrivals = [np.argmax(np.abs(hilbert(trace))) / acquisition.sampling_frequency for trace in (middle, rf)]
    r = math.hypot(y, z)
    assert arrivals[1] - arrivals[0] == pytest.approx(
        2 * (r + y * y / (2 * r) - z) / 1540, abs=0.15e-6
    )  # half a period


# --- engines ---------------------------------------------------------------------------------------------------------

WITH_HEIGHT = [name for name in ussim.probe_names() if math.isfinite(ussim.load_probe(name).element_height)]


def sequence(probe):
    """A plane and a diverging or tilted wave, and a focused one."""
    kinds = [ussim.PlaneWaves(np.deg2rad([0.0, 7.0])), ussim.FocusedWaves(x=5e-3, z=30e-3)]
    return ussim.CustomTransmits(np.concatenate([kind.delays(probe, ussim.Medium()) for kind in kinds]))


@pytest.mark.parametrize("name", WITH_HEIGHT)
@pytest.mark.parametrize(("attenuation", "height"), [(0.0, 0.5), (0.5, 3.0)])
def test_the_cpu_engine_equals_the_reference(name, attenuation, height):
    """Scatterers from 1 mm on, in the beam and far beside it: 3e-5 to 7e-5 seen."""
    probe = ussim.load_probe(name)
    acquisition = ussim.Acquisition(probe, sequence(probe), ussim.Medium(attenuation_db_cm_mhz=attenuation))
    points = cloud(probe, 40, height=height)
    rf = samples(points, acquisition, "cpu")
    assert relative_error(rf, samples(points, acquisition, n_samples=rf.shape[-1])) < 1e-4


OPTIONS = {
    "full directivity": {"full_frequency_directivity": True},
    "three cycles": {"n_cycles": 3},
    "receive delays": {"receive_delays": np.linspace(0, 1e-6, 8)},
    "many transmits": {"waves": ussim.PlaneWaves(np.deg2rad(np.linspace(-9, 9, 18)))},
    "sub-elements": {"n_subelements": 3},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_engines_agree_whatever_the_acquisition(small_array, option, engine):
    settings = {"waves": ussim.PlaneWaves(0.05)} | OPTIONS[option]
    acquisition = ussim.Acquisition(small_array, **settings)
    plan, points = make_plan(acquisition, True), cloud(small_array, 24, seed=5)
    expected = reference.ENGINE.simulate(points, plan, 1400)
    assert relative_error(np.asarray(engine.simulate(points, plan, 1400)), expected) < 1e-4
    record = np.random.default_rng(0).normal(size=expected.shape)
    back = np.asarray(engine.adjoint(points, plan, record))
    # Echoes of noise are small beside it: float32 sums of thousands of samples.
    assert relative_error(back, reference.ENGINE.adjoint(points, plan, record)) < 5e-4


@pytest.fixture(params=["cpu", "cuda on the host"])
def engine(request):
    if request.param == "cpu":
        from ussim.engines import get_engine

        return get_engine("cpu")
    return request.getfixturevalue("host_engine")


@pytest.fixture(scope="session")
def host_engine(tmp_path_factory):
    """The kernels of graphics cards, compiled as C++."""
    sys.path.insert(0, str(Path(__file__).parent / "host_cuda"))
    from backend import HostBackend, find_compiler

    from ussim.engines.cuda.engine import GpuEngine

    if find_compiler() is None:
        pytest.skip("needs a C++ compiler")
    return GpuEngine(HostBackend(tmp_path_factory.mktemp("kernels")))


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("height", [0.5, 3.0])
def test_kernels_of_cards_equal_the_reference(name, height, host_engine):
    probe = ussim.load_probe(name)
    acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(np.deg2rad([-5.0, 5.0])), ussim.Medium(1540.0, 0.5))
    plan, points = make_plan(acquisition, True), cloud(probe, 16, height=height, depth=30e-3)
    points = audible(points, acquisition)
    expected = reference.ENGINE.simulate(points, plan, 1500)
    assert relative_error(np.asarray(host_engine.simulate(points, plan, 1500)), expected) < 1e-4
    flat = ussim.Scatterers(points.x, points.z, points.reflectivity)  # of the same acquisition, in two dimensions
    expected = reference.ENGINE.simulate(flat, make_plan(acquisition), 1500)
    assert relative_error(np.asarray(host_engine.simulate(flat, make_plan(acquisition), 1500)), expected) < 1e-4


@pytest.mark.parametrize("y", [0.0, -3e-3])
def test_the_pressure_of_a_plane_beside_the_middle(small_array, y, engine):
    plan = make_plan(ussim.Acquisition(small_array, ussim.PlaneWaves(0.1)), True)
    grid = ussim.ImageGrid(x=np.linspace(-3e-3, 3e-3, 7), z=np.linspace(0.0, 30e-3, 8))
    expected = reference.ENGINE.pressure_field(plan, grid, -60.0, y=y)
    assert relative_error(np.asarray(engine.pressure_field(plan, grid, -60.0, y=y)), expected) < 1e-4
    public = ussim.pressure_field(plan.acquisition, grid, engine="reference", y=y)
    np.testing.assert_array_equal(public, expected)


def test_threads_and_company_change_no_byte(small_array):
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(0.0))
    points = cloud(small_array, 300)
    assert samples(points, acquisition, "cpu").tobytes() == samples(points, acquisition, "cpu").tobytes()
    media = ussim.simulate_stack([points, points], acquisition, "cpu")
    assert media.samples[1].tobytes() == samples(points, acquisition, "cpu").tobytes()


def test_a_polynomial_goes_through_the_nodes_of_a_segment():
    """Exact up to degree five; the card's kernels write it out with whole numbers."""
    rng = np.random.default_rng(0)
    polynomial = np.polynomial.Polynomial(rng.normal(size=6))
    known = np.array([[polynomial(t), polynomial.deriv()(t)] for t in (0, 0.5, 1)]).ravel()
    t = np.arange(12) / 12
    np.testing.assert_allclose(known @ segment_weights(12), polynomial(t), atol=1e-12)
    source = read_source("simulate.cu")
    f0, d0, f1, d1, f2, d2 = known
    names = {"f0": f0, "d0": d0, "f1": f1, "d1": d1, "f2": f2, "d2": d2}
    for line in re.findall(r"const float ([^;]+);", source[source.index("float quintic(") :])[:4]:
        for part in line.split(", "):
            name, formula = part.split(" = ")
            names[name] = eval(formula.replace("f ", " ").replace("f)", ")"), {}, names)
    written = sum(names[f"a{i}"] * t**i for i in range(2, 6)) + f0 + d0 * t
    np.testing.assert_allclose(written, polynomial(t), atol=1e-12)


def test_the_cards_have_the_same_gaussians():
    calls = re.findall(r"add_gaussian\(node, ([^a]+)angle", read_source("physics.cuh"))
    numbers = [[float(n.rstrip("f")) for n in call.split(", ")[:4]] for call in calls]
    known = zip(physics.BEAM_AMPLITUDES, physics.BEAM_DECAYS, strict=True)
    assert numbers == [[a.real, a.imag, b.real, b.imag] for a, b in known]


def test_the_beam_of_an_acquisition_is_made_once(small_array):
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(0.0))
    assert beam_of(make_plan(acquisition, True)) is beam_of(make_plan(replace(acquisition), True))
    other = replace(acquisition, probe=replace(small_array, element_height=5e-3))
    assert beam_of(make_plan(other, True)) is not beam_of(make_plan(acquisition, True))


# --- values ----------------------------------------------------------------------------------------------------------


def test_scatterers_carry_their_elevation():
    points = ussim.Scatterers([0, 1e-3], [0.02, 0.03], [1, 2], [1e-3, -1e-3])
    assert points.select(np.array([1])).y.tolist() == [-1e-3]
    flat = ussim.Scatterers([0.0], [0.01], [1.0])
    assert points.join(flat).y.tolist() == [1e-3, -1e-3, 0.0]
    assert flat.join(flat).y is None
    assert "y=" in repr(points)
    with pytest.raises(ValueError, match="x, z, reflectivity and y of one length"):
        ussim.Scatterers([0, 1e-3], [0.02, 0.03], [1, 2], [1e-3])
    with pytest.raises(ValueError, match="y: expected finite"):
        ussim.Scatterers([0.0], [0.02], [1], [np.nan])


def test_wrong_elevations_are_one_line(small_array):
    line = ussim.Acquisition(ussim.Probe("line", 3e6, 0.7, 8, 0.3e-3, 0.25e-3), ussim.PlaneWaves(0.0))
    point = ussim.Scatterers([0.0], [0.02], [1.0], [0.0])
    grid = ussim.ImageGrid(x=[0.0], z=[0.02])
    for call in (
        lambda: ussim.simulate(point, line),
        lambda: ussim.pressure_field(line, grid, y=0.0),
        lambda: ussim.imaging_operator(line, point),
    ):
        with pytest.raises(ValueError, match="expected a probe with an element_height, line has none"):
            call()
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(0.0))
    with pytest.raises(ValueError, match="with all of them or with none"):
        ussim.simulate_batch([point, ussim.Scatterers([0.0], [0.02], [1.0])], acquisition, "cpu")
    with pytest.raises(ValueError, match="mm"):
        ussim.simulate(ussim.Scatterers([0.0], [0.02], [1.0], [50.0]), acquisition)
    with pytest.raises(ValueError, match="y: expected finite meters"):
        ussim.pressure_field(acquisition, grid, y=math.nan)


def test_an_operator_has_the_elevation_of_its_points(small_array):
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(0.0))
    points = cloud(small_array, 10)
    operator = ussim.imaging_operator(acquisition, points, "cpu")
    rf = operator.forward(points.reflectivity).samples
    np.testing.assert_array_equal(rf, samples(points, acquisition, "cpu", n_samples=rf.shape[-1]))


# --- slabs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def field():
    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves(0.0))
    return acquisition, ussim.ImageGrid(x=np.linspace(-8e-3, 8e-3, 33), z=np.linspace(30e-3, 50e-3, 41))


def test_a_slab_is_filled_at_the_mean_distance(field):
    acquisition, grid = field
    slab = ussim.scatterers_from_image(np.ones(grid.shape), grid, acquisition, mean_distance=0.7e-3, thickness=9e-3)
    points = np.column_stack([slab.x, slab.y, slab.z])
    nearest = cKDTree(points).query(points, k=2)[0][:, 1]
    inside = (
        (np.abs(slab.x) < 7e-3) & (np.abs(slab.y) < 3.5e-3) & (np.abs(slab.z - 40e-3) < 9e-3)
    )  # neighbors all around
    assert nearest[inside].mean() == pytest.approx(0.7e-3, rel=0.02)  # of 1300: 0.9 % of a standard error
    assert nearest.min() > 0.07e-3
    assert -4.5e-3 <= slab.y.min() < -4e-3
    assert 4e-3 < slab.y.max() <= 4.5e-3
    assert abs(np.corrcoef(slab.y, slab.x)[0, 1]) < 0.05
    assert slab.reflectivity.mean() == pytest.approx(1.0, rel=0.05)


def test_a_volume_lies_plane_behind_plane(field):
    acquisition, grid = field
    volume = np.zeros((*grid.shape[:1], 3, grid.shape[1]))
    volume[:, 2] = 1.0  # at the largest y
    volume[:20, 1] = 1.0  # and the nearer half of the middle
    slab = ussim.scatterers_from_image(volume, grid, acquisition, mean_distance=1e-3, thickness=6e-3)
    bright = slab.reflectivity > 0.15  # a bilinear edge is 20 dB down in its middle
    assert bright[slab.y > 2.5e-3].mean() > 0.9
    assert not bright[slab.y < -2e-3].any()
    middle = np.abs(slab.y) < 0.5e-3
    assert bright[middle & (slab.z < 38e-3)].mean() > 0.9
    assert bright[middle & (slab.z > 42e-3)].mean() < 0.1
    flat = ussim.scatterers_from_image(np.ones(grid.shape), grid, acquisition, mean_distance=1e-3)
    assert flat.y is None


def test_points_of_a_phantom_lie_in_the_middle_of_its_slab(field):
    acquisition, grid = field
    wires = ussim.phantoms.wires((grid.x[0], grid.x[-1]), (grid.z[0], grid.z[-1]))
    slab = wires.scatterers(acquisition, mean_distance=1e-3, thickness=4e-3)
    assert (slab.y[-len(wires.points) :] == 0).all()
    assert wires.scatterers(acquisition, mean_distance=1e-3).y is None


def test_wrong_slabs_are_one_line(field):
    acquisition, grid = field
    image = np.ones(grid.shape)
    for thickness in (0.0, -1e-3, math.nan):
        with pytest.raises(ValueError, match="thickness: expected m above 0"):
            ussim.scatterers_from_image(image, grid, acquisition, thickness=thickness)
    with pytest.raises(ValueError, match=r"a volume .* needs a thickness"):
        ussim.scatterers_from_image(np.ones((4, 3, 4)), grid, acquisition)
    with pytest.raises(ValueError, match="a thinner slab"):
        ussim.scatterers_from_image(image, grid, acquisition, mean_distance=1e-5, thickness=5e-3)


# --- motion ----------------------------------------------------------------------------------------------------------


def test_scatterers_that_move_in_elevation(small_array):
    moving = ussim.MovingScatterers([0.0], [0.02], [1.0], 0.0, 0.0, y=[0.0], velocity_y=2.0)
    assert moving.still is None
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(0.0))
    frames = ussim.simulate_frames(moving, acquisition, n_frames=2, prf=1000.0, engine="cpu")
    there = ussim.Scatterers([0.0], [0.02], [1.0], [2e-3])
    np.testing.assert_array_equal(
        frames.samples[1], samples(there, acquisition, "cpu", n_samples=frames.samples.shape[-1])
    )
    still = ussim.Scatterers([0.0], [0.02], [1.0])
    with pytest.raises(ValueError, match="still: expected a y"):
        ussim.simulate_frames(moving, acquisition, n_frames=2, prf=1000.0, engine="cpu", still=still)
    with pytest.raises(ValueError, match="velocity_y: expected a y"):
        ussim.MovingScatterers([0.0], [0.02], [1.0], 0.0, 0.0, velocity_y=1.0)
