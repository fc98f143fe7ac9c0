"""Sampling the posterior by H and its transpose alone: against closed forms, on whitened channel data, and what resolves."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import ussim  # noqa: E402
from irsde import drus, models  # noqa: E402
from irsde.cli import cli  # noqa: E402
from irsde.drus import channels, daps, imaging, mixture, phantoms, recordings, train  # noqa: E402
from irsde.drus.cli import SAMPLERS  # noqa: E402

SHAPE = (6, 5)


def dense_model(matrix, data, scale=1.0):
    """A model of any matrix, its noise already white."""
    grid = SimpleNamespace(shape=SHAPE)

    def forward(image):
        return matrix @ image.ravel()

    def adjoint(y):
        return (matrix.T @ y).reshape(SHAPE)

    return SimpleNamespace(
        grid=grid, inside=(slice(0, SHAPE[0]), slice(0, SHAPE[1])), data=data, scale=scale,
        forward=forward, adjoint=adjoint, quick_forward=forward, quick_adjoint=adjoint,
    )  # fmt: skip


@pytest.fixture(scope="module")
def case():
    """Speckle of a small field, its channel data noisy."""
    probe = ussim.load_probe("L11-4v")
    acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(0.0))
    grid = imaging.imaging_grid(acquisition, (24, 16), 15e-3)
    rng = np.random.default_rng(0)
    image = rng.standard_normal(grid.shape)
    clean = ussim.imaging_operator(acquisition, grid, "cpu").forward(image)
    rms = np.sqrt(np.mean(clean.samples**2))
    noisy = clean.samples + 0.3 * rms * rng.standard_normal(clean.samples.shape).astype(np.float32)
    rf = ussim.RFData(noisy, acquisition, clean.sampling_frequency, clean.start_time)
    return SimpleNamespace(grid=grid, image=image, rf=rf, sigma=0.3 * rms)


@pytest.mark.parametrize("steps", [2, 5])
@pytest.mark.parametrize("condition", [1.0, 1e2])
def test_gaussian_posterior_is_drawn_exactly(steps, condition):
    rng = np.random.default_rng(1)
    n = SHAPE[0] * SHAPE[1]
    u, _, vt = np.linalg.svd(rng.standard_normal((40, n)), full_matrices=False)
    matrix = 3 * u * np.geomspace(1, 1 / condition, n) @ vt
    deviation = np.geomspace(0.05, 2, n).reshape(SHAPE)
    truth = deviation * rng.standard_normal(SHAPE)
    data = matrix @ truth.ravel() + rng.standard_normal(40)
    covariance = np.linalg.inv(matrix.T @ matrix + np.diag(1 / deviation.ravel() ** 2))
    mean = covariance @ matrix.T @ data
    samples = drus.sample_posterior(dense_model(matrix, data), drus.GaussianPrior(deviation), 2000, steps, seed=0)
    samples = samples.reshape(2000, n)
    error = (samples.mean(axis=0) - mean) / np.sqrt(np.diag(covariance))
    # Of means over 2,000 draws: 1 / sqrt(2000) = 0.022 standard deviations each, and what the solver leaves.
    assert np.sqrt(np.mean(error**2)) < 0.05
    chance = np.sqrt(np.trace(covariance) / 2000)  # expected of the norm of the mean of so many draws
    assert np.linalg.norm(samples.mean(axis=0) - mean) < 0.02 * np.linalg.norm(mean) + chance
    # The variance: 3.2 % is the error of 2,000 draws, three times that; DDRM's is off by up to 16 times (test_drus_ddrm).
    np.testing.assert_allclose(samples.var(axis=0), np.diag(covariance), rtol=0.13)


def test_without_an_operator_it_denoises():
    rng = np.random.default_rng(0)
    deviation, sigma = 1.5, 0.5
    data = rng.standard_normal(30) / sigma
    samples = drus.sample_posterior(dense_model(np.eye(30) / sigma, data), drus.GaussianPrior(deviation), 2000, 3)
    gain = deviation**2 / (deviation**2 + sigma**2)
    np.testing.assert_allclose(samples.mean(axis=0).ravel(), gain * sigma * data, atol=5 * 0.5 / 2000**0.5)
    assert samples.var(axis=0).mean() == pytest.approx(gain * sigma**2, rel=0.03)


def test_a_sample_depends_on_its_seed_and_number_alone():
    rng = np.random.default_rng(0)
    model = dense_model(rng.standard_normal((40, 30)), rng.standard_normal(40))
    few, many = (drus.sample_posterior(model, drus.GaussianPrior(), n, 2, seed=3) for n in (2, 4))
    np.testing.assert_allclose(many[:2], few, atol=1e-5)
    assert np.abs(many[0] - many[1]).max() > 0.1
    for n, steps in ((0, 2), (2, 0), (2, 2000)):
        with pytest.raises(ValueError, match="expected"):
            drus.sample_posterior(model, drus.GaussianPrior(), n, steps)


def test_conjugate_gradients_solve():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((8, 8))
    matrix, b = a @ a.T + np.eye(8), rng.standard_normal(8)
    found, left = channels.conjugate_gradients(lambda x: matrix @ x, b, 30, 1e-9)
    np.testing.assert_allclose(found, np.linalg.solve(matrix, b), rtol=1e-7)
    assert left < 1e-9
    assert channels.conjugate_gradients(lambda x: x, np.zeros(3), 5, 0.1)[1] == 0


def test_model_has_its_transpose_and_knows_its_noise(case):
    model = drus.channel_model(case.rf, case.grid, "cpu")
    assert model.grid.shape > case.grid.shape
    np.testing.assert_allclose(model.grid.x[model.inside[1]], case.grid.x, atol=1e-12)
    np.testing.assert_allclose(model.grid.z[model.inside[0]], case.grid.z, atol=1e-12)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(model.grid.shape), rng.standard_normal(model.data.shape)
    for forward, adjoint in ((model.forward, model.adjoint), (model.quick_forward, model.quick_adjoint)):
        there, back = np.vdot(forward(x), y), np.vdot(x, adjoint(y))
        assert there == pytest.approx(back, abs=1e-5 * np.linalg.norm(forward(x)) * np.linalg.norm(y))
    exact, quick = model.forward(x), model.quick_forward(x)
    assert np.linalg.norm(exact - quick) < 0.15 * np.linalg.norm(
        exact
    )  # the delay form: 2 to 10 %, more near the array
    # The noise that was added, within what 8 iterations leave of the echoes where there are some.
    assert np.median(model.noise) == pytest.approx(case.sigma, rel=0.15)
    told = drus.channel_model(case.rf, case.grid, "cpu", noise_level=0.5)
    np.testing.assert_allclose(told.noise, 0.5 * np.sqrt(np.mean(case.rf.samples**2)), rtol=1e-3)
    assert model.scale == pytest.approx(1.0, rel=0.5)  # the reflectivity's deviation


def test_scale_of_a_lone_point_is_a_share_of_it(case):
    point = np.zeros(case.grid.shape)
    point[12, 8] = 7.0
    rf = ussim.imaging_operator(case.rf.acquisition, case.grid, "cpu").forward(point)
    model = drus.channel_model(rf, case.grid, "cpu")
    assert model.scale == pytest.approx(7.0 / channels.PEAK, rel=0.3)
    silent = ussim.RFData(np.zeros_like(rf.samples), rf.acquisition, rf.sampling_frequency, rf.start_time)
    assert drus.channel_model(silent, case.grid, "cpu").scale == 1.0


def test_samples_explain_the_channel_data(case):
    model = drus.channel_model(case.rf, case.grid, "cpu")
    prior = drus.GaussianPrior(1.0)
    samples = drus.sample_posterior(model, prior, 2, 3, seed=0)
    full = np.zeros(model.grid.shape)
    full[model.inside] = samples[0]
    misfit = (model.data - model.forward(full)).ravel()
    # Nothing echoes in the margin, but a sample has some there: what it leaves is a little over the noise.
    assert np.sqrt(np.mean(misfit**2)) == pytest.approx(1.0, abs=0.35)
    assert np.corrcoef(samples.mean(axis=0).ravel(), case.image.ravel())[0, 1] > 0.5


@pytest.mark.parametrize("start", [0.0, -3.0, 2.0, -2.5, 0.25])  # samples
def test_records_are_put_on_the_operators_clock(start):
    acquisition = ussim.Acquisition(ussim.load_probe("L11-4v"), ussim.PlaneWaves(0.0))
    rate, frequency = acquisition.sampling_frequency, acquisition.carrier_frequency
    n = 400

    def wave(time):  # a pulse in the middle of the record
        return np.exp(-(((time - 200 / rate) * 0.1 * rate) ** 2)) * np.cos(2 * np.pi * frequency * time)

    time = (start + np.arange(n)) / rate
    samples = np.broadcast_to(wave(time), (1, acquisition.probe.n_elements, n)).astype(np.float32)
    found = channels.on_clock(ussim.RFData(samples, acquisition, rate, start / rate))
    at = found.start_time * rate
    assert at >= 0
    assert at == pytest.approx(round(at))
    expected = wave((at + np.arange(found.samples.shape[-1])) / rate)
    np.testing.assert_allclose(found.samples[0, 0], expected, atol=2e-3)
    late = ussim.RFData(samples, acquisition, rate, -(n + 3) / rate)
    with pytest.raises(ValueError, match="after time 0"):
        channels.on_clock(late)


def test_a_prior_that_is_sure_resolves_what_das_does_not(case):
    """Two points half a beam's width apart, in depth of 15 mm: one blob in DAS, two under the true map."""
    acquisition = case.rf.acquisition
    grid = imaging.imaging_grid(acquisition, (24, 24), 15e-3)
    image = np.zeros(grid.shape)
    image[12, [11, 13]] = 1.0
    rf = ussim.imaging_operator(acquisition, grid, "cpu").forward(image)
    model = drus.channel_model(rf, grid, "cpu")
    das = imaging.windowed_das(rf, grid)
    truth = np.zeros(grid.shape)
    truth[11:14, 10:15] = 1.0  # where something may echo
    mean = np.abs(drus.mean(drus.sample_posterior(model, drus.GaussianPrior(model.around(truth)), 4, 8)))
    between = mean[12, 12] / mean[12, [11, 13]].min()
    assert between < 0.3
    assert das[12, 12] / das[12, [11, 13]].min() > 0.7


# --- priors that say how sure they are ---------------------------------------------------------------------------------


class Sure(torch.nn.Module):
    """No noise found, and the odds of its variance those of 1 to 3."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(in_channels=1, block_out_channels=(1, 1))

    def forward(self, x, t):
        more = torch.full_like(x, float(np.log(1 / 3)))
        return SimpleNamespace(sample=torch.cat([0 * x, more], dim=1))


def test_echogenicity_keeps_a_point_and_evens_tissue():
    """Mean power of four chains in tissue has a relative deviation of sqrt(2 / 4); the window takes most of that away."""
    rng = np.random.default_rng(5)
    point = np.full((64, 48), 1e-4)
    point[30, 20] = 100.0
    found = daps.echogenicity(point)
    assert found[30, 20] == pytest.approx(100.0)
    assert found[30, 22] < 1e-3  # and its neighbors are not lit by it
    tissue = np.mean(rng.standard_normal((4, 64, 48)) ** 2, axis=0)
    found = daps.echogenicity(tissue)
    assert np.mean(found) == pytest.approx(1, abs=0.05)
    assert np.std(found) < 0.2 < np.std(tissue)
    assert np.isfinite(daps.echogenicity(np.zeros((20, 12)))).all()


def test_chains_that_share_their_echogenicity_resolve_points_of_an_unsure_prior():
    """Two echoes among 20 x 20 pixels behind a blur of 3 pixels: a flat prior leaves them wide, and no map was told."""
    rows, columns = np.indices((20, 20))
    kernel = np.exp(-(np.subtract.outer(np.arange(20), np.arange(20)) ** 2) / (2 * 1.5**2))
    truth = np.zeros((20, 20))
    truth[5, 6], truth[13, 12] = 5.0, -5.0

    def forward(image):
        return kernel @ image @ kernel.T / 0.2

    data = forward(truth) + np.random.default_rng(0).standard_normal((20, 20))
    model = SimpleNamespace(
        grid=SimpleNamespace(shape=(20, 20)), inside=(slice(0, 20), slice(0, 20)), data=data, scale=1.0,
        forward=forward, adjoint=forward, quick_forward=forward, quick_adjoint=forward,
    )  # fmt: skip
    near = (np.hypot(rows - 5, columns - 6) < 4) | (np.hypot(rows - 13, columns - 12) < 4)

    def concentration(shared):
        samples = drus.sample_posterior(model, drus.GaussianPrior(1.0), 4, 24, seed=0, shared=shared)
        power = np.mean(samples**2, axis=0)
        return (power[5, 6] + power[13, 12]) / power[near].sum()

    assert concentration(True) > 2 * concentration(False)


def test_variance_of_the_noise_is_that_of_the_reflectivity():
    remaining = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    prior = drus.DDPMPrior(Sure(), remaining, variance=True, patch=16)
    x = torch.randn(2, 21, 37, generator=torch.Generator().manual_seed(0))
    mean, variance = prior.denoise_with_variance(x, 0.5)
    torch.testing.assert_close(mean, x)  # patches that are blended are whole again
    torch.testing.assert_close(variance, torch.full_like(x, 0.25 * 0.25))
    torch.testing.assert_close(prior.denoise(x, 0.5), x)
    unsure = drus.DDPMPrior(Sure(), remaining, bright_std=2.0)
    torch.testing.assert_close(unsure.denoise_with_variance(x, 0.5)[1], torch.full_like(x, 0.25 * 4 / 4.25))


def test_local_prior_is_surer_where_it_is_dark():
    x = torch.zeros(1, 48, 48)
    x[:, :, 24:] = torch.randn(1, 48, 24, generator=torch.Generator().manual_seed(0))
    variance = drus.LocalVariancePrior().denoise_with_variance(x, 0.2)[1]
    assert float(variance[0, 10:38, 36:].mean()) == pytest.approx(0.04 / 1.04, rel=0.1)
    assert float(variance[0, 10:38, :12].max()) == 0.0


# --- the mixture -------------------------------------------------------------------------------------------------------


def test_points_between_pixels_echo_where_they_are(case):
    """Channel data of a point between pixels, against those of what the grid holds of it."""
    acquisition, grid = case.rf.acquisition, case.grid
    wide = imaging.imaging_grid(acquisition, (40, 24), 15e-3)
    step_z, step_x = (float(axis[1] - axis[0]) for axis in (wide.z, wide.x))
    row, column = 20.5, 12.5
    x, z = wide.x[0] + column * step_x, wide.z[0] + row * step_z
    operator = ussim.imaging_operator(acquisition, wide, "cpu")
    n = operator.data_shape[-1]
    exact = ussim.simulate(ussim.Scatterers([x], [z], [1.0]), acquisition, engine="cpu", n_samples=n).samples
    held = np.outer(mixture.axial_kernel(np.arange(40) - row), mixture.lateral_kernel(np.arange(24) - column))
    nearest = np.zeros(wide.shape)
    nearest[20, 12] = 1.0

    def error(image):
        return np.linalg.norm(operator.forward(image).samples - exact) / np.linalg.norm(exact)

    assert error(held) < 0.6  # a wide pulse has a part beyond the band that rows half a carrier's cycle apart hold
    assert error(nearest) > 1.0
    assert grid.shape == (24, 16)


def test_kernels_hold_a_point_on_a_pixel_as_that_pixel():
    offsets = np.arange(-8, 9)
    for kernel in (mixture.axial_kernel, mixture.lateral_kernel):
        np.testing.assert_allclose(kernel(offsets), offsets == 0, atol=1e-12)


def test_mixture_has_every_kind_and_points_stand_out():
    assert sum(mixture.SHARES.values()) == pytest.approx(1)
    maps = mixture.Maps(phantoms.load_slices(), 0)
    for kind in mixture.SHARES:
        image = mixture.reflectivity(kind, (48, 32), np.random.default_rng(2), maps)
        assert image.shape == (48, 32)
        assert np.isfinite(image).all()
    points = mixture.reflectivity("points", (48, 48), np.random.default_rng(5), maps)
    assert np.abs(points).max() > 0.8
    assert np.median(np.abs(points)) < 0.05 * np.abs(points).max()  # an empty ground
    config = train.PriorConfig(size=32, batch_size=3, data="mixture")
    a, b = (train._draws(config)(np.random.default_rng(0)) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert a.shape == (3, 1, 32, 32)
    with pytest.raises(ValueError, match="speckle or mixture"):
        train.PriorConfig(data="points")


def test_variance_is_learned_beside_the_noise():
    """Noise of two levels, left and right: v that minimizes the loss is its variance; the first output is not touched."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(64, 1, 4, 8, generator=generator) * torch.tensor([0.3] * 4 + [0.8] * 4)
    answer = torch.zeros(1, 2, 4, 8, requires_grad=True)
    optimizer = torch.optim.Adam([answer], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        train._loss(answer.expand(64, -1, -1, -1), noise).backward()
        optimizer.step()
    found = torch.sigmoid(answer.detach()[0, 1]).mean(dim=0)
    assert found[:4].mean() == pytest.approx(0.09, rel=0.15)
    assert found[4:].mean() == pytest.approx(0.64, rel=0.15)


def test_trained_prior_says_how_sure_it_is_and_old_runs_resume(tmp_path):
    tiny = {"iterations": 2, "batch_size": 2, "size": 16, "channels": (8, 8), "groups": 4}
    train.train(train.PriorConfig(**tiny, data="mixture", variance=True), tmp_path / "new")
    prior = drus.load_prior(tmp_path / "new")
    assert prior.variance
    assert prior.patch == 16
    mean, variance = prior.denoise_with_variance(torch.randn(1, 20, 24), 0.5)
    assert mean.shape == variance.shape == (1, 20, 24)
    assert 0 < variance.min() <= variance.max() <= 0.25
    train.train(train.PriorConfig(**tiny), tmp_path / "old")
    settings = json.loads((tmp_path / "old" / "config.json").read_text())
    before = {name: value for name, value in settings.items() if name not in ("data", "variance", "init")}
    (tmp_path / "old" / "config.json").write_text(json.dumps(before))
    train.train(train.PriorConfig(**tiny), tmp_path / "old", resume=True)
    further = train.PriorConfig(**tiny | {"iterations": 1, "learning_rate": 1e-9}, init=str(tmp_path / "old"))
    train.train(further, tmp_path / "further")
    x = torch.randn(1, 16, 16)
    before, after = (drus.load_prior(tmp_path / name).denoise(x, 0.5) for name in ("old", "further"))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4)  # it begins where the other ended
    with pytest.raises(drus.PriorError, match="network is another"):
        train.train(train.PriorConfig(**tiny, init=str(tmp_path / "new")), tmp_path / "other")
    with pytest.raises(train.ResumeError, match="data was 'speckle', now 'mixture'"):
        train.train(train.PriorConfig(**tiny, data="mixture"), tmp_path / "old", resume=True)
    assert not drus.load_prior(tmp_path / "old").variance


# --- the command -------------------------------------------------------------------------------------------------------


def test_command_samples_by_the_simulators_operator(tmp_path):
    line = [
        "drus",
        "--phantom",
        "scatterers",
        "--pixels",
        "40",
        "20",
        "--transmits",
        "1",
        "--samples",
        "2",
        "--steps",
        "2",
        "--engine",
        "cpu",
    ]
    output = tmp_path / "drus.png"
    result = CliRunner().invoke(cli, [*line, "-o", str(output)])
    assert result.exit_code == 0, result.output
    record = json.loads(output.with_suffix(".json").read_text())
    assert (record["sampler"], record["prior"], record["operator"]) == ("ddrm", models.PRIOR, "kronecker")  # unasked
    assert tuple(imaging.SAMPLERS) == SAMPLERS  # named twice, as the command imports no torch
    result = CliRunner().invoke(cli, [*line, "--sampler", "daps", "-o", str(output)])
    assert result.exit_code == 0, result.output
    record = json.loads(output.with_suffix(".json").read_text())
    assert record["sampler"] == "daps"
    assert record["prior"] == models.PRIOR
    assert record["operator"] == "ussim.imaging_operator"
    assert {"DRUSmean", "DRUSvar", "DRUSmean, true-map prior"} <= record["scores"].keys()
    for option in (["--chains", "3"], ["--operator", "patchwise"]):
        result = CliRunner().invoke(cli, [*line, "--sampler", "daps", *option, "-o", str(output)])
        assert result.exit_code == 2
        assert option[0] in result.output
    with pytest.raises(ValueError, match="ddrm or daps"):
        imaging.reconstruct(None, drus.LocalVariancePrior(), sampler="dps")


def test_one_remodulation_serves_drus_and_calibration():
    from ussim.calibration.recording import as_rf

    acquisition = ussim.Acquisition(ussim.load_probe("L11-4v"), ussim.PlaneWaves(0.0))
    rf = ussim.simulate(ussim.Scatterers([0.0], [15e-3], [1.0]), acquisition, engine="cpu")
    iq = ussim.demodulate(rf)
    slow = replace(iq, samples=iq.samples[..., ::2], sampling_frequency=iq.sampling_frequency / 2)
    ours, theirs = recordings.remodulate(slow), as_rf(slow)
    assert ours.sampling_frequency == theirs.sampling_frequency >= 4 * acquisition.probe.center_frequency
    np.testing.assert_allclose(ours.samples, theirs.samples, atol=1e-6 * np.abs(theirs.samples).max())
    whole = recordings.remodulate(
        iq
    )  # on its own clock: nothing is interpolated, and the filter of `demodulate` is left
    assert np.linalg.norm(whole.samples - rf.samples) < 0.25 * np.linalg.norm(rf.samples)
