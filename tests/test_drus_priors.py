"""Priors: coordinates, the loader of diffusers folders, the prior that needs no training, and the training run."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from irsde import drus, models  # noqa: E402
from irsde.drus import cli, ddrm, phantoms, train  # noqa: E402
from irsde.network import load  # noqa: E402
from ussim.errors import DataError  # noqa: E402

TINY = train.PriorConfig(iterations=4, batch_size=2, size=16, channels=(8, 8), groups=4)


class FakeNetwork(torch.nn.Module):
    """The exact noise of N(0, 1) in variance-preserving coordinates: x_t sqrt(1 - ᾱ_t), whose variance is 1 at every t."""

    def __init__(self, remaining, channels=1, extra=0, prediction="epsilon"):
        super().__init__()
        self.config = SimpleNamespace(in_channels=channels, block_out_channels=(1, 1, 1))
        self.remaining, self.extra, self.prediction = remaining, extra, prediction

    def forward(self, x, t):
        assert x.shape[1] == self.config.in_channels
        assert x.shape[-1] % 4 == 0
        assert x.shape[-2] % 4 == 0
        remaining = self.remaining[t]
        answer = {"epsilon": np.sqrt(1 - remaining), "sample": np.sqrt(remaining), "v_prediction": 0.0}[
            self.prediction
        ] * x
        garbage = torch.full((x.shape[0], self.extra, *x.shape[2:]), 1e6)  # a learned variance
        return SimpleNamespace(sample=torch.cat([answer, garbage], dim=1))


@pytest.mark.parametrize(
    ("channels", "extra", "prediction"),
    [(1, 0, "epsilon"), (3, 0, "epsilon"), (3, 3, "epsilon"), (1, 0, "sample"), (1, 0, "v_prediction")],
)
def test_network_sees_variance_preserving_coordinates(channels, extra, prediction):
    remaining = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    prior = drus.DDPMPrior(FakeNetwork(remaining, channels, extra, prediction), remaining, prediction)
    np.testing.assert_allclose(prior.sigmas, ddrm.vp_sigmas())
    assert prior.sigmas[[0, 20, 980]] == pytest.approx([0.0100, 0.0794, 130.1], rel=5e-3)
    x = torch.randn(2, 13, 10, generator=torch.Generator().manual_seed(0))  # neither side divides by 4
    for t in (0, 20, 400, 980):
        sigma = prior.sigmas[t]
        answer = prior.denoise(x * (1 + sigma**2) ** 0.5, sigma)
        expected = x / (1 + sigma**2) ** 0.5  # x / (1 + s²) of the analytic prior
        torch.testing.assert_close(answer, expected.float(), rtol=2e-3, atol=2e-3)


class MixingNetwork(FakeNetwork):
    """A network whose answer in each channel is that of the channels' mean."""

    def forward(self, x, t):
        return super().forward(x.mean(dim=1, keepdim=True).expand_as(x), t)


def test_coupled_chains_have_a_channel_each():
    remaining = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    prior = drus.DDPMPrior(MixingNetwork(remaining, 3, extra=3), remaining)
    apart = drus.DDPMPrior(FakeNetwork(remaining, 3), remaining)
    x = torch.randn(2, 3, 13, 10, generator=torch.Generator().manual_seed(0))
    sigma = prior.sigmas[400]
    shrunk = 1 / (1 + sigma**2)
    torch.testing.assert_close(apart.denoise_coupled(x, sigma), (x * shrunk).float(), rtol=2e-3, atol=2e-3)
    # x0 = (x - noise · answer) / signal in each channel, the answer being one for all.
    mixed = x - x.mean(dim=1, keepdim=True) * sigma**2 * shrunk
    torch.testing.assert_close(prior.denoise_coupled(x, sigma), mixed.float(), rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(prior.denoise(x[:, 0], sigma), (x[:, 0] * shrunk).float(), rtol=2e-3, atol=2e-3)


def test_network_prior_samples_as_the_analytic_one():
    remaining = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    network = drus.DDPMPrior(FakeNetwork(remaining), remaining)
    observed = np.random.default_rng(0).standard_normal((12, 12)).astype(np.float32)
    options = {"n_samples": 3, "noise_level": 0.3, "scale": 1.0}
    identity = drus.IdentityOperator((12, 12))
    np.testing.assert_allclose(
        drus.sample(identity, observed, network, **options),
        drus.sample(identity, observed, drus.GaussianPrior(), **options),
        atol=2e-3,  # float32 at s = 130
    )


def test_samples_come_in_the_units_of_the_data():
    rng = np.random.default_rng(0)
    observed = rng.standard_normal((48, 48)).astype(np.float32)
    identity, prior = drus.IdentityOperator((48, 48)), drus.LocalVariancePrior()
    plain = drus.sample(identity, observed, prior, n_samples=2, noise_level=0.1, steps=10)
    louder = drus.sample(identity, 1e6 * observed, prior, n_samples=2, noise_level=1e5, steps=10)
    np.testing.assert_allclose(louder, 1e6 * plain, rtol=1e-3, atol=1e3)
    assert drus.reflectivity_scale(identity, observed) == pytest.approx(1, rel=0.15)  # a 90 % quantile of block levels


def test_local_prior_keeps_tissue_and_empties_the_dark():
    rng = np.random.default_rng(0)
    echogenicity = np.ones((64, 64))
    echogenicity[:, 32:] = 0.01
    clean = rng.standard_normal((64, 64)) * echogenicity * 0.9
    prior = drus.LocalVariancePrior()
    noisy = torch.as_tensor(clean + 0.3 * rng.standard_normal((64, 64)), dtype=torch.float32)[None]
    answer = prior.denoise(noisy, 0.3).numpy()[0]
    assert np.std(answer[:, :28] - clean[:, :28]) < 0.3  # better than the data
    assert np.std(answer[:, 36:]) < 0.1
    torch.testing.assert_close(prior.denoise(torch.full((1, 32, 32), 50.0), 130.0), torch.zeros(1, 32, 32))


def test_training_resumes_as_if_unbroken(tmp_path):
    train.train(TINY, tmp_path / "whole", checkpoint_every=2)
    stopped = []

    def stop(done, *_):
        stopped.append(done)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_log", lambda *a, **k: None)
        save = train._save
        patch.setattr(train, "_save", lambda *a: (save(*a), stop(a[1])))
        with pytest.raises(KeyboardInterrupt):
            train.train(TINY, tmp_path / "broken", checkpoint_every=2)
    assert stopped == [2]
    train.train(TINY, tmp_path / "broken", resume=True, checkpoint_every=2)
    whole, broken = (torch.load(tmp_path / name / train.CHECKPOINT, weights_only=True) for name in ("whole", "broken"))
    assert whole["iteration"] == broken["iteration"] == 4
    for name, value in whole["network"].items():
        torch.testing.assert_close(broken["network"][name], value)
    with pytest.raises(train.ExistsError, match="--resume"):
        train.train(TINY, tmp_path / "whole")
    with pytest.raises(train.ResumeError, match="batch_size was 2, now 3"):
        train.train(train.PriorConfig(**{**vars(TINY), "batch_size": 3}), tmp_path / "whole", resume=True)
    # What was written is a prior, for us and for diffusers.
    prior = drus.load_prior(tmp_path / "whole")
    assert prior.bright_std == pytest.approx(0.9)
    assert np.isfinite(prior.denoise(torch.ones(1, 9, 7), 0.5).numpy()).all()
    assert diffusers.UNet2DModel.from_pretrained(tmp_path / "whole" / "unet").config.in_channels == 1
    log = [json.loads(line) for line in (tmp_path / "whole" / train.LOG).read_text().splitlines()]
    assert log[-1]["iteration"] == 4


def test_folders_that_are_no_prior_are_named(tmp_path):
    with pytest.raises(drus.PriorError, match="drus-train"):
        drus.load_prior(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    with pytest.raises(drus.PriorError, match="UNet2DModel, got 'AutoencoderKL'"):
        drus.load_prior(tmp_path)
    with pytest.raises(drus.PriorError, match="prediction_type"):
        drus.DDPMPrior(FakeNetwork(np.ones(3)), np.full(3, 0.5), "noise")


def test_training_maps_fill_their_range_and_are_not_the_test_layouts():
    slices = phantoms.load_slices()
    maps = [phantoms.training_map((64, 64), np.random.default_rng(i), slices) for i in range(40)]
    assert all(m.max() == pytest.approx(1) and m.min() >= 0 for m in maps)
    assert any((m == 0).any() for m in maps)
    layout = phantoms.occlusion(phantoms.paper_grid(64)).map(phantoms.paper_grid(64)).ravel()
    assert max(np.corrcoef(layout, m.ravel())[0, 1] for m in maps if m.std() > 0) < 0.5
    batch = train.batch(train.PriorConfig(size=32, batch_size=3), np.random.default_rng(0), slices)
    assert batch.shape == (3, 1, 32, 32)
    assert batch.dtype == np.float32


def test_mri_files_of_every_kind_are_read(shared):
    folder = shared / "data" / "mri_npy"
    slices = phantoms.load_slices(
        [folder / "knee_mese_te1_slice11_i16.npy", shared / "data" / "mri_nifti" / "knee_mese_te1.nii.gz"]
    )
    assert len(slices) > 10
    assert all(s.ndim == 2 and s.min() >= 0 and s.max() <= 1 for s in slices)
    with pytest.raises(ValueError, match="no such file"):
        phantoms.load_slices([folder / "none.npy"])


# --- priors as a folder of safetensors, and the one of the package -------------------------------------------------------


def test_saved_prior_is_the_trained_one_in_half_precision(tmp_path):
    config = train.PriorConfig(iterations=2, batch_size=2, size=16, channels=(8, 8), groups=4, variance=True)
    train.train(config, tmp_path / "run")
    trained = drus.load_prior(tmp_path / "run")
    folder = drus.save_prior(trained, tmp_path / "saved", summary="a trial")
    saved = drus.load_prior(folder)
    assert (saved.variance, saved.patch, saved.bright_std) == (trained.variance, trained.patch, trained.bright_std)
    np.testing.assert_allclose(saved.sigmas, trained.sigmas, rtol=1e-4)
    x = torch.randn(1, 21, 30, generator=torch.Generator().manual_seed(0))
    for sigma in (0.1, 1.0, 10.0):
        for found, expected in zip(
            saved.denoise_with_variance(x, sigma), trained.denoise_with_variance(x, sigma), strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=0, atol=2e-3 * (1 + sigma**2))  # 11 bits of a weight
    assert json.loads((folder / "config.json").read_text())["summary"] == "a trial"
    other = drus.DDPMPrior(FakeNetwork(np.linspace(0.9, 0.1, 1000)), np.linspace(0.9, 0.1, 1000))
    with pytest.raises(ValueError, match="linear betas"):
        drus.save_prior(other, tmp_path / "other")


def test_package_has_a_prior_that_knows_how_sure_it_is():
    prior = drus.load_prior(models.PRIOR)
    assert prior.variance
    generator = torch.Generator().manual_seed(0)
    points = torch.zeros(1, 64, 64)
    points[0, 20, 30], points[0, 44, 12] = 6.0, -6.0
    noisy = points + 0.5 * torch.randn(points.shape, generator=generator)
    mean, variance = prior.denoise_with_variance(noisy, 0.5)
    # Points on an empty ground: three quarters of the noise gone, and sure that nothing echoes there.
    assert float((mean - points).square().mean()) < 0.25 * 0.25
    assert float(variance.median()) < 0.02
    tissue = 0.9 * torch.randn(1, 64, 64, generator=generator)
    noisy = tissue + 0.5 * torch.randn(points.shape, generator=generator)
    mean, variance = prior.denoise_with_variance(noisy, 0.5)
    best = 0.81 * 0.25 / (0.81 + 0.25)  # of Wiener's filter, which knows that all of it is tissue
    # A network that has to find that out on its own: within a third.
    assert float((mean - tissue).square().mean()) < 1.35 * best
    assert float(variance.mean()) == pytest.approx(best, rel=0.6)


def test_fields_narrower_than_a_square_go_through_it():
    prior = drus.load_prior(models.PRIOR)
    noisy = torch.randn(1, 70, 20, generator=torch.Generator().manual_seed(0))
    mean, variance = prior.denoise_with_variance(noisy, 0.5)
    assert mean.shape == variance.shape == (1, 70, 20)
    assert float(mean.std()) > 0.3


def test_what_is_no_prior_is_said(tmp_path):
    with pytest.raises(drus.PriorError, match="another kind"):
        drus.load_prior(models.DEFAULT)
    with pytest.raises(DataError, match="prior of `irsde drus`"):
        load(models.PRIOR)
    for name, broken in (("config.json", "{}"), ("config.json", "["), ("model.safetensors", "pickle")):
        folder = tmp_path / f"{name}{len(broken)}"
        shutil.copytree(models.HOME / models.PRIOR, folder)
        (folder / name).write_text(broken)
        with pytest.raises(drus.PriorError, match="prior"):
            drus.load_prior(folder)
    with pytest.raises(drus.PriorError, match="drus-train"):
        drus.load_prior(tmp_path / "nowhere")


def test_command_uses_the_packages_prior_unasked(monkeypatch):
    assert cli._shipped_prior() == models.PRIOR
    monkeypatch.setattr(models, "names", list)
    assert cli._shipped_prior() == cli.LOCAL
