"""The networks: the paper's size, any image size, both inputs, and a scaling that keeps errors small."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from irsde.config import TrainConfig
from irsde.data import Normalization
from irsde.network import DeviceError, DnCNN, Model, UNet, build_network, pick_device, reflect_pad
from irsde.sample import restore
from irsde.sde import IRSDE


def network(**changes):
    torch.manual_seed(0)
    return build_network(TrainConfig.create(store="none", **({"preset": "tiny"} | changes))).eval()


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_paper_preset_is_the_papers_network():
    paper = network(preset="paper")
    assert count(paper) == 56_572_865
    modules = list(paper.modules())
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in modules)
    assert {m.num_groups for m in modules if isinstance(m, nn.GroupNorm)} == {32}
    assert sum(type(m).__name__ == "Attention" for m in modules) == 1
    assert sum(type(m).__name__ == "Downsample2D" for m in modules) == 3


def test_small_presets_are_small():
    assert count(network(preset="small")) < 4_000_000
    assert count(network(preset="tiny")) < 300_000
    assert count(build_network(TrainConfig.create(store="none", method="dncnn"))) == count(DnCNN(17, 64))


def test_torchvision_is_not_needed():
    network()
    assert "torchvision" not in sys.modules


@pytest.mark.parametrize("method", ["irsde", "unet", "dncnn"])
@pytest.mark.parametrize("shape", [(32, 32), (37, 50), (5, 9)])
def test_any_image_size(method, shape):
    lq = torch.rand(2, 1, *shape)
    out = network(method=method)(lq, lq, 3) if method == "irsde" else network(method=method)(lq)
    assert out.shape == lq.shape
    assert torch.isfinite(out).all()


def test_padding_mirrors_and_repeats():
    image = torch.tensor([[1.0, 2.0, 3.0]]).repeat(3, 1)[None, None]
    assert reflect_pad(image, 0, 6)[0, 0, 0].tolist() == [1, 2, 3, 2, 1, 2, 3, 2, 1]
    with pytest.raises(ValueError, match="at least 2 x 2"):
        reflect_pad(torch.ones(1, 1, 1, 4), 3, 0)


def test_padding_does_not_show_in_the_result():
    """A constant image has no border: every pixel of the padded result is a whole image's."""
    torch.manual_seed(0)
    unet = UNet(1, (16, 32), 1, 8, 16, 2)
    image = torch.full((1, 1, 30, 27), 0.3)
    padded = torch.full((1, 1, 32, 28), 0.3)
    torch.testing.assert_close(unet(image), unet(padded)[..., :30, :27])


@pytest.mark.parametrize("condition", ["difference", "concat"])
@pytest.mark.parametrize("precondition", [True, False])
def test_time_may_be_one_number_or_one_an_image(condition, precondition):
    net = network(condition=condition, precondition=precondition)
    x, lq = torch.randn(2, 1, 16, 16), torch.randn(2, 1, 16, 16)
    both = net(x, lq, torch.tensor([7, 90]))
    torch.testing.assert_close(both[:1], net(x[:1], lq[:1], 7), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(both[1:], net(x[1:], lq[1:], 90), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(net(x, lq, 7), net(x, lq, torch.tensor([7, 7])))


def test_differences_do_not_depend_on_the_absolute_level_of_x():
    """With [x - lq, lq] the network sees the same if x and lq are swapped for others with the same difference and lq."""
    net = network(condition="difference", precondition=False)
    x, lq = torch.randn(1, 1, 16, 16), torch.randn(1, 1, 16, 16)
    seen = []
    net.unet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    net(x, lq, 5)
    torch.testing.assert_close(seen[0], torch.cat([x - lq, lq], 1))


@pytest.mark.parametrize("max_sigma", [0.2, 1.0])
def test_network_is_shown_noise_of_lambda_in_its_own_units_at_times_of_its_training(max_sigma):
    """What reaches the network of a restoration: LQ of mean 0 and std 1, λ of noise about it, t of the 100-step schedule."""
    seen = []

    class Recorder(nn.Module):
        def forward(self, x, lq, t):
            seen.append((x, lq, t))
            return torch.zeros_like(x)

    config = TrainConfig.create(store="none", max_sigma=max_sigma)
    recorder = Recorder()
    recorder.weight = nn.Parameter(torch.zeros(1))  # tells the device
    model = Model(config, recorder, IRSDE(config.n_steps, max_sigma), Normalization())
    lq = np.random.default_rng(0).uniform(0.1, 0.6, (200, 200)).astype(np.float32)
    restore(model, lq, steps=10, sampler="ddim")
    x, z, _ = seen[0]
    assert float(z.mean()) == pytest.approx(0, abs=1e-5)
    assert float(z.std(correction=0)) == pytest.approx(1, abs=1e-5)
    assert float((x - z).std()) == pytest.approx(max_sigma, rel=0.01)  # standard error .35 %
    assert [int(t) for *_, t in seen] == [100, 90, 80, 70, 60, 50, 40, 30, 20, 10]


def test_preconditioned_input_and_target_have_unit_variance():
    sde, rms = IRSDE(max_sigma=0.2), 0.6
    config = TrainConfig.create(store="none", preset="tiny")
    net = build_network(config, sde, rms)
    generator = torch.Generator().manual_seed(0)
    difference, noise = (torch.randn(1, 1, 256, 256, generator=generator) for _ in range(2))
    lq = torch.zeros_like(noise)
    for t in (1, 20, 50, 80, 100):
        x = sde.perturb(lq + rms * difference, lq, t, noise)
        seen = []
        hook = net.unet.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[0]))
        handle = net.unet.register_forward_hook(lambda module, inputs, out: torch.ones_like(out))
        with torch.no_grad():
            one = net(x, lq, t)
        hook.remove()
        handle.remove()
        handle = net.unet.register_forward_hook(lambda module, inputs, out: torch.zeros_like(out))
        with torch.no_grad():
            zero = net(x, lq, t)
        handle.remove()
        target = (noise - zero) / (one - zero)
        assert float(seen[0][:, :1].std()) == pytest.approx(1, abs=0.02)
        assert float(target.std()) == pytest.approx(1, abs=0.02)
        worst = sde.predicted_hq(x, lq, one, t) - sde.predicted_hq(x, lq, zero, t)
        assert float(worst.abs().max()) <= rms * 1.001  # an output error of 1 is at most rms in x(0), at any time


def test_plain_prediction_amplifies_errors_as_documented():
    sde = IRSDE(max_sigma=0.2)
    x = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    error = sde.predicted_hq(x, x, x + 1, 100) - sde.predicted_hq(x, x, x, 100)
    assert float(error.abs().max()) == pytest.approx(200 * 0.2, rel=1e-3)


def test_devices():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda")
    with pytest.raises(DeviceError, match="CUDA devices"):
        pick_device("cuda:99")
    with pytest.raises(DeviceError, match="expected auto"):
        pick_device("abacus")
