"""Flows and two stages: they reach a known target, in one step without noise, and lie between the mean and a sample."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from speckle_pairs import SpecklePairs
from test_restore import make_model
from test_train import config, losses, run

from irsde import config as settings
from irsde.config import ConfigError, TrainConfig
from irsde.data import DataError, Normalization
from irsde.evaluation.evaluate import evaluate
from irsde.flow import FLOW_LOSSES, FLOW_SAMPLERS, RectifiedFlow, VelocityPredictor
from irsde.network import METHODS, Model, NoisePredictor, build_network, load
from irsde.sample import Sampling, restore
from irsde.sde import IRSDE
from irsde.smoothing import smoothed
from irsde.training import ResumeError

LQ = SpecklePairs(n=1)[0][1]
SAMPLING = ("irsde", "pmrf", "flow", "irsde-mean")


class Silent(torch.nn.Module):
    """A U-Net that adds nothing: what is left is the fixed part of a predictor."""

    def forward(self, image, t=0):
        return torch.zeros_like(image[:, :1])


def silent(process, rms, skip="plain"):
    if isinstance(process, RectifiedFlow):
        return VelocityPredictor(Silent(), process, skip=skip, difference_rms=rms)
    return NoisePredictor(Silent(), process, precondition=True, difference_rms=rms, skip=skip)


# --- the flow --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", FLOW_SAMPLERS)
def test_a_flow_between_gaussians_reaches_its_target(sampler):
    """From N(μ, σ²) to N(μ, d²): there the fixed part of the predictor is the exact velocity."""
    flow, d = RectifiedFlow(n_steps=100, max_sigma=0.3), 0.8
    start = torch.full((1, 1, 200, 200), 0.5)
    torch.manual_seed(0)
    reached = flow.sample(silent(flow, d), start, 100, sampler)
    # 40,000 draws know the mean to 0.004 and the deviation to 0.4 %; 100 straight steps bend the way by 2 %.
    assert float(reached.mean()) == pytest.approx(0.5, abs=0.016)
    assert float(reached.std()) == pytest.approx(d, rel=0.03)


def test_the_way_is_straight_and_its_velocity_leads_home():
    flow = RectifiedFlow(10, 0.4)
    hq, start, noise = (torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(k)) for k in range(3))
    velocity = hq - start - 0.4 * noise
    for t in (10, 7, 1):
        x = flow.perturb(hq, start, t, noise)
        torch.testing.assert_close(flow.predicted_hq(x, start, velocity, t), hq)
        torch.testing.assert_close(flow.velocity_of(x, hq, t), velocity, atol=1e-4, rtol=1e-4)
        assert float(flow.loss("velocity_l2", velocity, x, hq, start, noise, torch.tensor(t))) < 1e-10
    torch.testing.assert_close(flow.perturb(hq, start, 10, noise), flow.initial(start, noise))


@pytest.mark.parametrize("process", [RectifiedFlow(10, 0.4), IRSDE(10, 0.4)], ids=["flow", "irsde"])
@pytest.mark.parametrize("skip", ["plain", "smooth"])
def test_one_step_of_a_network_that_adds_nothing_is_the_image_it_adds_to(process, skip):
    start = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = smoothed(start) if skip == "smooth" else start
    guess = process.guess(silent(process, 0.7, skip), start, lambda: torch.ones_like(start))
    # Of IR-SDE a share of the noise is left, for delta = 0.005 of HQ - LQ is still in x(T): a d² / v λ = 0.8 %.
    torch.testing.assert_close(guess, expected, atol=1e-5 if isinstance(process, RectifiedFlow) else 0.01, rtol=0)


@pytest.mark.parametrize("name", ["irsde", "flow"])
def test_scaled_inputs_and_targets_have_unit_variance_at_every_time(name):
    process = RectifiedFlow(10, 0.4) if name == "flow" else IRSDE(10, 0.4)
    seen = []

    class Watching(Silent):
        def forward(self, image, t=0):
            seen.append(image[:, 0].std())
            return super().forward(image, t)

    network = silent(process, 0.7)
    network.unet = Watching()
    torch.manual_seed(0)
    start = torch.zeros(1, 1, 300, 300)
    for t in (10, 6, 1):
        hq, noise = 0.7 * torch.randn_like(start), torch.randn_like(start)
        network(process.perturb(hq, start, t, noise), start, t)
    assert torch.stack(seen) == pytest.approx(1, abs=0.02)  # 90,000 draws: 0.24 %


def test_smoothing_keeps_the_mean_and_is_binomial():
    point = torch.zeros(1, 1, 17, 17)
    point[0, 0, 8, 8] = 1
    kernel = np.convolve([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    np.testing.assert_allclose(smoothed(point)[0, 0, 4:13, 4:13], np.outer(kernel, kernel), atol=1e-7)
    torch.testing.assert_close(smoothed(torch.full((1, 1, 3, 2), 0.3)), torch.full((1, 1, 3, 2), 0.3))


# --- methods ---------------------------------------------------------------------------------------------------------


def test_the_tables_and_the_names_of_the_settings_agree():
    assert tuple(METHODS) == settings.METHODS
    assert tuple(FLOW_SAMPLERS) == settings.FLOW_SAMPLERS
    assert tuple(FLOW_LOSSES) == settings.FLOW_LOSSES
    assert tuple(name for name, method in METHODS.items() if method.two_stages) == settings.TWO_STAGES
    assert {name for name in METHODS if isinstance(make_process(name), RectifiedFlow)} == set(settings.FLOWS)


def make_process(method):
    return METHODS[method].process(TrainConfig.create(store="none", preset="tiny", method=method), 0.2)


def sampling_model(method, **changes):
    made = TrainConfig.create(store="none", preset="tiny", n_steps=10, method=method, **changes)
    process = METHODS[method].process(made, 0.2)
    torch.manual_seed(0)
    return Model(made, build_network(made, process).eval(), process, Normalization(), method)


@pytest.mark.parametrize("method", SAMPLING)
def test_fidelity_goes_from_the_mean_to_a_sample(method):
    model = sampling_model(method)
    mean, half, sample = (restore(model, LQ, 3, fidelity=f, clamp=False) for f in (0.0, 0.5, 1.0))
    np.testing.assert_array_equal(sample, restore(model, LQ, 3, clamp=False))
    assert np.abs(sample - mean).max() > 1e-3
    inside = (mean > 0.02) & (mean < 0.98) & (sample > 0.02) & (sample < 0.98)  # not cut off at black or white
    if model.has_mean:
        np.testing.assert_allclose(half[inside], (mean + sample)[inside] / 2, atol=1e-5)


@pytest.mark.parametrize("method", ["pmrf", "irsde-mean"])
def test_fidelity_0_is_the_mean_of_the_supervised_network(method):
    model = sampling_model(method)
    supervised = TrainConfig.create(store="none", preset="tiny", method="unet", skip="smooth")
    network = build_network(supervised)
    network.load_state_dict(model.network.mean.state_dict())
    alone = restore(Model(supervised, network.eval(), None, Normalization()), LQ)
    for seed in (0, 1):
        np.testing.assert_allclose(restore(model, LQ, 3, seed=seed, fidelity=0), alone, atol=1e-6)


@pytest.mark.parametrize("method", SAMPLING)
def test_a_method_restores_in_tiles_as_in_one(method):
    model = sampling_model(method)
    image = np.tile(LQ, (2, 2))
    whole, tiled = (restore(model, image, 2, tile=tile, overlap=32, mask=None) for tile in (512, 96))
    assert np.abs(whole - tiled).mean() < 0.02  # attention and the gathered statistics end at a tile


@pytest.mark.parametrize("fidelity", [-0.1, 1.5, float("nan")])
def test_a_fidelity_beyond_mean_and_sample_is_refused(fidelity):
    with pytest.raises(ValueError, match="from 0, the mean, to 1, a sample"):
        Sampling(fidelity=fidelity)


def test_a_sampler_of_another_process_is_refused():
    with pytest.raises(ValueError, match="unknown sampler 'ddim' of a flow; expected one of euler, posterior"):
        restore(sampling_model("flow"), LQ, sampler="ddim")


def test_old_runs_are_as_they_were():
    """Settings that came later are off in a record without them, and the seed gives the same weights."""
    record = TrainConfig.create(store="none", preset="tiny").to_dict()
    older = {name: value for name, value in record.items() if name not in ("skip", "channels", "mean")}
    assert TrainConfig.from_record({"config": older, "format": 3}) == TrainConfig.create(store="none", preset="tiny")
    assert not any("last" in name for name in make_model().network.state_dict())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "pmrf", "loss": "noise_l1"}, "loss: expected one of velocity_l2, velocity_l1"),
        ({"method": "irsde", "loss": "velocity_l2"}, "loss: expected one of noise_l1"),
        ({"method": "unet", "mean": "runs/a"}, "mean: goes with method pmrf or irsde-mean"),
        ({"preset": "paper", "skip": "smooth"}, "skip: 'smooth' needs precondition"),
        ({"channels": (16, 20)}, "channels: expected two numbers or more, each a multiple of 8"),
        ({"channels": (16,)}, "channels: expected two numbers or more"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig.create(store="none", **({"preset": "tiny"} | given))


def test_channels_are_those_of_every_u_net():
    made = TrainConfig.create(store="none", preset="tiny", method="pmrf", channels=(8, 16))
    network = build_network(made)
    for unet in (network.mean.body, network.stage.unet):
        assert unet.model.config.block_out_channels == (8, 16)


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["pmrf", "flow", "irsde-mean"])
def test_a_method_trains_resumes_and_restores(tmp_path, method):
    whole = run(tmp_path / "whole", method=method, validate_every=6)
    part = run(tmp_path / "part", method=method, steps=3, schedule="constant")
    with pytest.raises(ResumeError, match="other settings"):
        run(part, method="irsde", resume=True)
    straight = run(tmp_path / "straight", method=method, schedule="constant")
    run(part, method=method, schedule="constant", resume=True)
    assert losses(part) == losses(straight)  # to the same loss, the running mean square with it
    model = load(whole)
    assert model.is_diffusion
    assert np.isfinite(restore(model, LQ, 2)).all()
    assert (whole / "samples" / "000006.png").exists()


def test_a_second_stage_on_a_trained_mean_leaves_it_as_it_is(tmp_path):
    mean = run(tmp_path / "unet", method="unet", skip="smooth", steps=3)
    folder = run(tmp_path / "pmrf", method="pmrf", mean=str(mean), steps=3)
    model = load(folder)
    np.testing.assert_array_equal(restore(model, LQ, fidelity=0), restore(load(mean), LQ))
    record = json.loads((folder / "config.json").read_text())
    assert record["mean"]["step"] == 3
    assert "init" not in record
    with open(folder / "metrics.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 3


@pytest.mark.parametrize(
    ("of_mean", "of_run", "error", "message"),
    [
        ({"method": "unet"}, {}, ConfigError, "has skip 'plain', this run 'smooth'"),
        ({"method": "irsde"}, {}, ConfigError, "expected a run of method unet"),
        ({"method": "unet", "skip": "smooth"}, {"fold": 0}, DataError, "was trained on subject"),
    ],
)
def test_a_mean_that_does_not_fit_is_refused(tmp_path, of_mean, of_run, error, message):
    mean = run(tmp_path / "mean", steps=1, **of_mean)
    with pytest.raises(error, match=message):
        run(tmp_path / "pmrf", method="pmrf", mean=str(mean), steps=1, **of_run)
    assert not (tmp_path / "pmrf" / "config.json").exists()


def test_the_second_stage_learns_how_far_hq_is_from_the_mean():
    made = config(method="pmrf")
    process = METHODS["pmrf"].process(made, 0.2)
    network = build_network(made, process, 2.0).train()
    hq, lq, noise = (torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(k)) for k in range(3))
    for _ in range(400):
        with torch.no_grad():
            mean = network(hq, lq, torch.full((4,), 5), noise)[0]
    assert float(network.stage.difference_rms) == pytest.approx(float((hq - mean).std()), rel=0.1)
    before = network.state_dict()["stage.difference_rms"].clone()
    network.eval()(hq, lq, torch.full((4,), 5), noise)
    assert network.stage.difference_rms == before


def test_a_table_has_a_row_for_each_fidelity_and_each_process_its_sampler():
    from irsde.data import whole

    models = [sampling_model("pmrf"), make_model()]
    result = evaluate(
        models[:1], [whole(SpecklePairs(n=1, size=64))], steps=(2,), fidelities=(0.2, 1.0), baselines=False
    )
    assert [r.note for r in result.rows if r.steps] == ["euler, fidelity 0.2", "euler"]
    result = evaluate(
        models, [whole(SpecklePairs(n=1, size=64))], steps=(2,), sampler="ddim", baselines=False, n_seeds=2
    )
    notes = {r.method: r.note for r in result.rows}
    assert (notes["pmrf"], notes["m0"]) == ("euler", "ddim")
