"""The simulator as a linear operator: its forward is `simulate`, its adjoint the exact transpose, on every engine."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.linalg import lsqr

import ussim
from ussim.arrays import to_numpy
from ussim.engines import get_engine
from ussim.engines.cuda import cupy as cuda
from ussim.operator import ImagingOperator
from ussim.plan import make_plan

PROBES = ("L11-5v", "L12-3v", "C5-2v", "P4-2v")
CARD = pytest.param("card", marks=pytest.mark.gpu)
ADJOINT = {
    "reference": 1e-12,  # float64
    "cpu": 1e-6,  # float32, relative to |Hx| |y|: 1e-9 seen, as rounding averages out
    "host": 1e-6,
    "card": 1e-6,
}


def waves(kind: str, probe: ussim.Probe):
    if kind == "plane":
        return ussim.PlaneWaves(np.deg2rad([-8.0, 0.0, 5.0]))
    if kind == "diverging":
        return ussim.DivergingWaves(x=[-5e-3, 4e-3], z=[-15e-3, -20e-3])
    if kind == "focused":
        return ussim.FocusedWaves(x=[2e-3], z=[35e-3])
    if kind == "one element at a time":
        return ussim.SyntheticAperture()
    delays = np.full((18, probe.n_elements), np.nan)  # more than a vector of transmits, elements off
    for i in range(18):
        delays[i, 2 * i : 2 * i + 20] = 1e-7 * np.arange(20)
    return ussim.CustomTransmits(delays)


def scatterers(probe: ussim.Probe, n: int, seed: int = 0) -> ussim.Scatterers:
    random = np.random.default_rng(seed)
    x, z = random.uniform(*probe.imaging.x, n), random.uniform(*probe.imaging.z, n)
    return ussim.Scatterers(x, z, random.standard_normal(n))


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """The CUDA engine's kernels compiled as C++."""
    sys.path.insert(0, str(Path(__file__).parent / "host_cuda"))
    from backend import HostBackend, find_compiler

    from ussim.engines.cuda.engine import GpuEngine

    if find_compiler() is None:
        pytest.skip("needs a C++ compiler")
    return GpuEngine(HostBackend(tmp_path_factory.mktemp("kernels")))


@pytest.fixture
def engine_of(request):
    def engine(name):
        if name == "card" and not cuda.device_count():
            pytest.skip(f"needs an NVIDIA card: {cuda.cuda_report()['problem']}")
        return request.getfixturevalue("host") if name == "host" else get_engine("cuda" if name == "card" else name)

    return engine


def mismatch(engine, medium: ussim.Scatterers, acquisition: ussim.Acquisition, n_samples: int, start: int = 0) -> float:
    """|<Hx, y> - <x, H'y>| / (|Hx| |y|)."""
    plan = make_plan(acquisition)
    echoes = to_numpy(engine.simulate(medium, plan, n_samples, start)).astype(np.float64)
    samples = np.random.default_rng(1).standard_normal(echoes.shape).astype(np.float32)
    projected = to_numpy(engine.adjoint(medium, plan, samples, start)).astype(np.float64)
    difference = np.vdot(echoes, samples.astype(np.float64)) - np.vdot(medium.reflectivity, projected)
    return abs(difference) / (np.linalg.norm(echoes) * np.linalg.norm(samples))


@pytest.mark.parametrize("kind", ["plane", "diverging", "focused", "elements off"])
@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("engine", ["reference", "cpu", "host", CARD])
def test_the_adjoint_is_the_transpose(engine, name, kind, engine_of):
    probe = ussim.load_probe(name)
    acquisition = ussim.Acquisition(probe, waves(kind, probe), ussim.Medium(1540.0, 0.5))
    few = engine == "reference"
    medium = scatterers(probe, 15 if few else 150)
    assert mismatch(engine_of(engine), medium, acquisition, 700 if few else 1500) < ADJOINT[engine]


@pytest.mark.parametrize("engine", ["cpu", "host", CARD])
@pytest.mark.parametrize(
    "options",
    [
        {"full_frequency_directivity": True},
        {"receive_delays": np.linspace(0, 3.3e-7, 128)},
        {"n_subelements": 3},
        {"n_cycles": 6.5},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_of_the_acquisition_have_their_transpose(engine, options, engine_of):
    probe = ussim.load_probe("L11-5v")
    acquisition = ussim.Acquisition(probe, waves("plane", probe), ussim.Medium(1540.0, 0.3), **options)
    medium, engine = scatterers(probe, 100), engine_of(engine)
    assert mismatch(engine, medium, acquisition, 1200, 300) < 1e-6
    samples = np.random.default_rng(2).standard_normal((3, 128, 1200)).astype(np.float32)
    plan = make_plan(acquisition)
    expected = get_engine("reference").adjoint(medium, plan, samples, 300)
    error = to_numpy(engine.adjoint(medium, plan, samples, 300)) - expected
    assert np.linalg.norm(error) < 1e-4 * np.linalg.norm(expected)  # what the engines promise; 3e-5 seen


@pytest.mark.parametrize("name", PROBES)
def test_the_host_compiled_adjoint_is_that_of_the_cpu(host, name):
    probe = ussim.load_probe(name)
    acquisition = ussim.Acquisition(probe, waves("plane", probe), ussim.Medium(1540.0, 0.5))
    medium, plan = scatterers(probe, 500), make_plan(acquisition)
    samples = np.random.default_rng(2).standard_normal((3, probe.n_elements, 1500)).astype(np.float32)
    expected = get_engine("cpu").adjoint(medium, plan, samples)
    assert np.linalg.norm(host.adjoint(medium, plan, samples) - expected) < 1e-4 * np.linalg.norm(expected)


def test_full_matrix_capture_has_its_transpose():
    probe = replace(ussim.load_probe("P4-2v"), n_elements=16)
    acquisition = ussim.Acquisition(probe, waves("one element at a time", probe))
    assert mismatch(get_engine("cpu"), scatterers(probe, 60), acquisition, 900) < 1e-6


# --- the operator ----------------------------------------------------------------------------------------------------


@pytest.fixture
def acquisition():
    probe = replace(ussim.load_probe("P4-2v"), n_elements=32)
    return ussim.Acquisition(probe, ussim.PlaneWaves(np.deg2rad([-6.0, 6.0])))


@pytest.fixture
def grid():
    return ussim.ImageGrid(x=np.linspace(-6e-3, 6e-3, 9), z=np.linspace(20e-3, 32e-3, 7))


def test_forward_is_simulate_and_the_operator_is_linear(acquisition, grid):
    operator = ussim.imaging_operator(acquisition, grid, engine="cpu")
    image = np.random.default_rng(0).standard_normal(grid.shape)
    x, z = (axis.ravel() for axis in grid.mesh())
    rf = ussim.simulate(
        ussim.Scatterers(x, z, image.ravel()), acquisition, engine="cpu", n_samples=operator.data_shape[-1]
    )
    assert operator.shape == (rf.samples.size, image.size)
    assert operator.dtype == np.float32
    assert np.array_equal(operator.forward(image).samples, rf.samples)
    flat = operator @ image.ravel()
    assert np.array_equal(flat, rf.samples.ravel())
    other = np.random.default_rng(1).standard_normal(image.size)
    both = operator @ (image.ravel() + 2 * other)
    assert np.linalg.norm(both - flat - 2 * (operator @ other)) < 1e-6 * np.linalg.norm(both)


def test_the_adjoint_of_rf_data_is_an_image_with_its_peak_at_the_point(acquisition, grid):
    operator = ussim.imaging_operator(acquisition, grid, engine="cpu")
    image = np.zeros(grid.shape)
    image[3, 6] = 1.0
    back = operator.adjoint(operator.forward(image))
    assert back.shape == grid.shape
    assert np.unravel_index(back.argmax(), back.shape) == (3, 6)
    assert np.array_equal(operator.H @ operator.forward(image).samples.ravel(), back.ravel())


def test_least_squares_with_the_operator_gives_the_reflectivity_back(acquisition, grid):
    operator = ussim.imaging_operator(acquisition, grid, engine="cpu")
    truth = np.random.default_rng(0).standard_normal(grid.shape)
    found = lsqr(operator, operator.forward(truth).samples.ravel(), iter_lim=40)[0]
    assert np.linalg.norm(found - truth.ravel()) < 1e-2 * np.linalg.norm(truth)  # points 1.5 mm apart: well posed


def test_points_behind_the_array_echo_nothing(acquisition):
    grid = ussim.ImageGrid(x=[0.0, 1e-3], z=[-5e-3, 20e-3])
    operator = ussim.imaging_operator(acquisition, grid, engine="cpu")
    back = operator.adjoint(np.random.default_rng(0).standard_normal(operator.data_shape))
    assert np.array_equal(back[0], [0, 0])
    assert np.all(back[1] != 0)
    behind = operator.forward([[1.0, 2.0], [0.0, 0.0]])
    assert not behind.samples.any()


def test_positions_a_window_in_time_and_channels_that_do_not_receive(acquisition):
    mask = np.ones(32, bool)
    mask[5:9] = False
    masked = replace(acquisition, receive_mask=mask)
    points = scatterers(masked.probe, 40)
    start = 400 / masked.sampling_frequency
    operator = ussim.imaging_operator(masked, points, engine="cpu", n_samples=500, start_time=start)
    assert operator.image_shape == (40,)
    rf = operator.forward(points.reflectivity)
    expected = ussim.simulate(points, masked, engine="cpu", n_samples=500, start_time=start)
    assert np.array_equal(rf.samples, expected.samples)
    assert np.array_equal(rf.start_times, expected.start_times)
    samples = np.random.default_rng(0).standard_normal(operator.data_shape)
    kept = samples.copy()
    left, right = np.vdot(rf.samples, samples), np.vdot(points.reflectivity, operator.adjoint(samples))
    assert abs(left - right) < 1e-6 * np.linalg.norm(rf.samples) * np.linalg.norm(samples)
    assert np.array_equal(samples, kept)  # the caller's own


def test_the_budget_cuts_the_work_and_not_the_result(acquisition):
    points = scatterers(acquisition.probe, 400)
    wide = ussim.imaging_operator(acquisition, points, engine="cpu")
    tight = ussim.imaging_operator(acquisition, points, engine="cpu", max_memory=6e6)
    samples = np.random.default_rng(0).standard_normal(wide.data_shape)
    assert np.array_equal(wide.adjoint(samples), tight.adjoint(samples))
    hopeless = ussim.imaging_operator(acquisition, points, engine="cpu", max_memory=1e3)
    with pytest.raises(ussim.EngineError, match=r"max_memory: expected at least \d+ MB"):
        hopeless.adjoint(samples)


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda operator: operator.forward(np.zeros(3)), "reflectivity: expected 63 numbers"),
        (lambda operator: operator.forward(np.full((7, 9), np.nan)), "reflectivity: expected real finite numbers"),
        (lambda operator: operator.adjoint(np.zeros((2, 32, 7))), "samples: expected"),
        (
            lambda operator: operator.adjoint(np.zeros(operator.data_shape, complex)),
            "samples: expected real finite numbers",
        ),
    ],
)
def test_what_does_not_fit_is_said(acquisition, grid, use, words):
    with pytest.raises(ValueError, match=words):
        use(ussim.imaging_operator(acquisition, grid, engine="cpu"))


def test_no_points_is_an_operator_of_no_columns(acquisition):
    operator = ImagingOperator(acquisition, ussim.Scatterers(np.zeros(0), np.zeros(0), np.zeros(0)), engine="cpu")
    assert operator.shape[1] == 0
    assert operator.adjoint(np.zeros(operator.data_shape)).shape == (0,)


def test_progress_reaches_the_end_and_ends_the_work(acquisition, grid):
    seen: list[tuple[int, int]] = []

    def note(done, total):
        seen.append((done, total))

    def stop(done, total):
        raise KeyboardInterrupt

    operator = ussim.imaging_operator(acquisition, grid, engine="cpu", progress=note)
    operator.adjoint(np.ones(operator.data_shape))
    assert seen[-1][0] == seen[-1][1]
    with pytest.raises(KeyboardInterrupt):
        ussim.imaging_operator(acquisition, grid, engine="cpu", progress=stop).adjoint(np.ones(operator.data_shape))
