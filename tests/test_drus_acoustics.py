"""H, B and BH against ussim's own simulation, and against each other."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import ussim  # noqa: E402
from irsde import drus  # noqa: E402
from irsde.drus import acoustics  # noqa: E402

ACQUISITION = ussim.Acquisition(ussim.load_probe("L11-4v"), ussim.PlaneWaves(np.zeros(1)), n_cycles=2.5)
STEP = drus.bandpass_step(ACQUISITION)


def grid_about(depth, shape, acquisition=ACQUISITION, x=0.0):
    step = drus.bandpass_step(acquisition)
    nz, nx = shape
    return ussim.ImageGrid(x=x + (np.arange(nx) - nx // 2) * 2 * step, z=depth + (np.arange(nz) - nz // 2) * step)


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("USSIM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def model():
    return drus.echo_model(ACQUISITION, grid_about(20e-3, (32, 20)))


ACQUISITIONS = {
    "plane": ACQUISITION,
    "steered, attenuated": ussim.Acquisition(
        ussim.load_probe("L11-5v"),
        ussim.PlaneWaves(np.deg2rad([8.0])),
        ussim.Medium(1500.0, 0.5),
    ),
    "convex": ussim.Acquisition(ussim.load_probe("C5-2v"), ussim.PlaneWaves(np.zeros(1))),
    "diverging": ussim.Acquisition(
        ussim.load_probe("P4-2v"), ussim.DivergingWaves(tilts=np.zeros(1), width=np.deg2rad(60))
    ),
}


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_model_matches_the_simulation(name):
    acquisition = ACQUISITIONS[name]
    grid = grid_about(35e-3, (3, 3), acquisition)
    model = drus.echo_model(acquisition, grid)
    image = np.zeros(grid.shape)
    image[1, 1] = 2.0
    point = ussim.Scatterers(grid.x[[1]], grid.z[[1]], np.array([2.0]))
    expected = ussim.simulate(point, acquisition, engine="reference", n_samples=model.n_samples).samples[0]
    answer = model.forward(image)
    # Delay form against the full field: edge waves and sub-elements make 6 to 20 % of the channel data.
    assert np.linalg.norm(answer - expected) < 0.2 * np.linalg.norm(expected)
    # Beamformed they average out: time, sign and scale agree.
    seen, modelled = model.beamform(expected)[1, 1], model.beamform(answer)[1, 1]
    assert seen == pytest.approx(modelled, rel=0.06)


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_adjoint(name):
    acquisition = ACQUISITIONS[name]
    model = drus.echo_model(acquisition, grid_about(35e-3, (8, 6), acquisition), start_time=5e-6)
    rng = np.random.default_rng(0)
    x = rng.standard_normal(model.grid.shape)
    y = rng.standard_normal((acquisition.probe.n_elements, model.n_samples))
    left, right = np.vdot(model.forward(x), y), np.vdot(x, model.adjoint(y))
    assert left == pytest.approx(right, rel=1e-6)


def test_entries_are_b_of_h(model):
    pixels = np.array([3 * 20 + 4, 16 * 20 + 10, 31 * 20 + 19])
    columns = model.matrix(np.arange(model.n_pixels), pixels)
    for i, pixel in enumerate(pixels):
        image = np.zeros(model.grid.shape)
        image.flat[pixel] = 1
        expected = model.beamform(model.forward(image)).ravel()
        # Linear interpolation of the sampled path, 32 samples per period: 0.7 %.
        assert np.linalg.norm(columns[:, i] - expected) < 0.015 * np.linalg.norm(expected)


def test_noise_gain_is_that_of_beamformed_noise(model):
    rng = np.random.default_rng(0)
    images = np.stack([model.beamform(rng.standard_normal((128, model.n_samples))) for _ in range(40)])
    assert np.sqrt(np.mean((images / model.noise_gain()) ** 2)) == pytest.approx(
        1, abs=0.05
    )  # 40 x some 100 free pixels
    axial, lateral = model.noise_correlation()
    np.testing.assert_allclose([axial[0], lateral[0]], 1)
    assert np.abs(axial[1:]).max() > 0.3  # colored: DRUS's assumption of white noise is reported against this


@pytest.mark.parametrize("kind", ["dense", "kronecker", "patchwise"])
def test_point_target_is_where_it_was(kind):
    grid = grid_about(28e-3, (32, 20))
    point = ussim.Scatterers(np.array([0.0]), np.array([28e-3]), np.ones(1))
    rf = ussim.simulate(point, ACQUISITION)
    by = drus.beamform(rf, grid)
    operator = drus.operator(ACQUISITION, grid, kind)
    samples = drus.sample(operator, by, drus.LocalVariancePrior(), n_samples=4, steps=20)
    row, column = np.unravel_index(np.abs(drus.mean(samples)).argmax(), grid.shape)
    assert abs(row - 16) <= 1
    assert abs(column - 10) <= 1


def test_kinds_agree_and_report_their_residual(model):
    dense = drus.operator(ACQUISITION, model.grid, "dense")
    assert drus.measure_residual(dense, model) < 1e-4  # float32
    pixels = np.arange(model.n_pixels)
    x = np.random.default_rng(0).standard_normal(model.grid.shape).astype(np.float32)
    expected = (model.matrix(pixels, pixels) @ x.ravel()).reshape(x.shape)
    answer = dense.apply(torch.as_tensor(x)).numpy()
    assert np.linalg.norm(answer - expected) < 1e-5 * np.linalg.norm(expected)

    kronecker = drus.operator(ACQUISITION, model.grid, "kronecker")
    assert 0.05 < kronecker.relative_residual < 0.2
    measured = drus.measure_residual(kronecker, model, n_columns=model.n_pixels)
    assert measured == pytest.approx(kronecker.relative_residual, rel=0.15)  # the share outside the band is estimated

    patches = drus.operator(ACQUISITION, model.grid, "patchwise", patch_shape=(20, 12))
    assert patches.singular_values.shape == (9, 240)


def test_factors_come_from_the_cache(monkeypatch):
    grid = grid_about(15e-3, (10, 8))
    first = drus.operator(ACQUISITION, grid, "kronecker")

    def fail(*arguments, **options):
        raise AssertionError("computed again")

    monkeypatch.setattr(acoustics, "echo_model", fail)
    again = drus.operator(ACQUISITION, grid, "kronecker")
    torch.testing.assert_close(first.singular_values, again.singular_values)
    with pytest.raises(AssertionError, match="computed again"):  # another acquisition is another key
        drus.operator(ACQUISITIONS["steered, attenuated"], grid, "kronecker")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "sparse"}, "kind: expected one of"),
        ({"kind": "dense", "max_pixels": 10}, "at most 10 pixels"),
        ({"kind": "kronecker", "max_memory": 1e3}, "max_memory"),
        ({"kind": "kronecker", "taps": 6}, "no kernel options"),
        ({"kind": "dense", "transmit": 1}, "transmit"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        drus.operator(ACQUISITION, grid_about(16e-3, (12, 8)), **arguments)


def test_grid_behind_the_probe_is_refused():
    with pytest.raises(ValueError, match="behind"):
        drus.echo_model(ACQUISITION, ussim.ImageGrid(x=np.zeros(1), z=np.array([-1e-3])))
