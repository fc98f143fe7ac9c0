"""Restoration: reproducible, the same in tiles; ensembles and their variance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from speckle_pairs import SpecklePairs

from irsde.config import TrainConfig
from irsde.data import Normalization
from irsde.network import DnCNN, Model, build_network, build_sde
from irsde.sample import Sampling, draw_samples, ensemble, restore, restore_normalized, tiled
from irsde.sde import IRSDE

PAIRS = SpecklePairs(n=2)
LQ = PAIRS[0][1]


def make_model(seed=0, normalization=None, **changes):
    """An untrained network: what it restores is no good, but everything around it is the same."""
    torch.manual_seed(seed)
    config = TrainConfig.create(store="none", **({"preset": "tiny", "n_steps": 10} | changes))
    sde = build_sde(config)
    return Model(config, build_network(config, sde).eval(), sde, normalization or Normalization(), f"m{seed}")


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.mark.parametrize("sampler", ["posterior", "sde", "ode", "ddim"])
def test_seed_decides_the_result(model, sampler):
    a, b, c = (restore(model, LQ, 4, sampler, seed) for seed in (0, 0, 1))
    assert a.shape == LQ.shape
    assert a.dtype == np.float32
    assert 0 <= a.min() <= a.max() <= 1
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 1e-3


def test_an_image_is_restored_alike_alone_or_in_a_stack(model):
    stack = np.stack([PAIRS[0][1], PAIRS[1][1]])
    np.testing.assert_array_equal(restore(model, stack, 3)[1], restore(model, stack[1], 3))


def test_one_model_with_one_noise_has_no_variance(model):
    mean, variance = ensemble([model, model, model], LQ, same_noise=True, steps=3, sampler="ddim")
    assert variance.max() == 0
    np.testing.assert_allclose(mean, restore(model, LQ, 3, "ddim"), atol=1e-6)


def test_one_model_with_several_seeds_has_sampler_variance(model):
    samples = draw_samples(model, LQ, 5, steps=4)
    assert samples.shape == (5, *LQ.shape)
    assert samples.var(axis=0).max() > 0
    np.testing.assert_array_equal(samples[2], restore(model, LQ, 4, seed=2))


def test_ensemble_is_mean_and_unbiased_variance_over_models():
    models = [make_model(seed) for seed in range(3)]
    mean, variance = ensemble(models, LQ, seed=4, steps=2)
    each = np.stack([restore(m, LQ, 2, seed=4 + k) for k, m in enumerate(models)])
    np.testing.assert_allclose(mean, each.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(variance, each.var(axis=0, ddof=1), atol=1e-6)


def test_tiles_of_a_pixelwise_function_are_seamless():
    def predict(x, lq, t):
        return x * t + lq**2

    x, lq = torch.randn(1, 1, 70, 45), torch.randn(1, 1, 70, 45)
    torch.testing.assert_close(tiled(predict, 32, 8)(x, lq, 3), predict(x, lq, 3), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tiled(predict, 128, 8)(x, lq, 3), predict(x, lq, 3))
    with pytest.raises(ValueError, match="overlap"):
        tiled(predict, 16, 16)


def test_tiles_bound_what_the_network_sees():
    largest = []

    def predict(x, lq, t):
        largest.append(tuple(x.shape[-2:]))
        return x

    tiled(predict, 32, 8)(torch.zeros(1, 1, 100, 20), torch.zeros(1, 1, 100, 20), 1)
    assert set(largest) == {(32, 20)}


def test_tiles_of_a_local_network_differ_where_they_are_blended_alone():
    """A network that sees four pixels far: elsewhere tiles give the whole image, and borders count next to nothing."""
    torch.manual_seed(0)
    config = TrainConfig.create(store="none", method="dncnn")
    local = Model(config, DnCNN(depth=4, channels=8).eval(), IRSDE(10), Normalization(), "local")
    whole, parts = (restore_normalized(local, LQ[None], [0], Sampling(tile=n, overlap=16))[0] for n in (64, 32))
    assert np.abs(whole - local.normalization.input(LQ)).mean() > 0.5  # the network does something
    near = np.zeros(64, bool)
    near[[*range(12, 20), *range(28, 36), *range(44, 52)]] = True  # tiles begin at 0, 16 and 32
    blended = near[:, None] | near
    difference = np.abs(whole - parts)
    assert difference[~blended].max() < 1e-6  # float32
    assert difference.max() < 0.01  # 0.004 by raised cosines; 0.03 without weights


def test_tiled_restoration_of_a_network_that_looks_far_is_near_the_whole(model):
    """DDIM from the same noise; what differs is the attention's and the group norms' view, small for two steps."""
    whole, parts = (restore(model, LQ, 2, "ddim", tile=n, overlap=16) for n in (64, 48))
    assert np.abs(whole - parts).mean() < 0.02  # 0.0115; images that have nothing in common differ by 0.4


def test_clamping_keeps_predictions_in_the_range_of_grey_levels(model):
    z = restore_normalized(model, LQ[None], [0], Sampling(2, "ddim", clamp=True))[0]
    low, high = model.normalization.bounds(LQ)
    assert low - 1e-5 <= z.min()
    assert z.max() <= high + 1e-5


@pytest.mark.parametrize(
    ("bad", "said"),
    [(np.zeros((4, 4), np.uint8), "uint8"), (np.full((16, 16), 2.0), "0, 1"), (np.zeros(5), "shape"),
     (np.full((16, 16), np.nan), "0, 1"), (np.zeros((0, 4)), "shape")],
)  # fmt: skip
def test_bad_images_are_refused(model, bad, said):
    with pytest.raises(ValueError, match=said):
        restore(model, bad)


def test_bad_options_are_refused(model):
    with pytest.raises(ValueError, match="between 1 and 10 steps"):
        restore(model, LQ, 11)
    with pytest.raises(ValueError, match="posterior, sde, ode, ddim"):
        restore(model, LQ, 2, "euler")
    with pytest.raises(ValueError, match="at least one sample"):
        draw_samples(model, LQ, 0)
