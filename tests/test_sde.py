"""The SDE against golden numbers, exact identities and an oracle that knows the answer."""

from __future__ import annotations

import math

import pytest
import torch

from irsde import config
from irsde.sde import IRSDE, LOSSES, SAMPLERS, Sampler, cosine_theta

HQ, LQ, LAMBDA = 1.3, -0.4, 10 / 255


@pytest.fixture
def sde():
    return IRSDE(n_steps=100, max_sigma=LAMBDA)


def images(value, n=1):
    return torch.full((n, 1, 1, 1), value, dtype=torch.float64)


# --- schedule --------------------------------------------------------------------------------------------------------


def test_schedule_has_the_golden_numbers(sde):
    # Tolerances are the rounding of the published digits, 1e-5 at most but for the four of 1.0194.
    golden = {0: 0.000614, 1: 0.001695, 50: 0.50616, 100: 0.999767}
    for t, theta in golden.items():
        assert float(sde.theta[t]) == pytest.approx(theta, abs=5e-6 if t == 50 else 5.1e-7)
    assert sde.dt == pytest.approx(0.104094, abs=5.1e-7)
    for t, integral, digits in [(0, 0.0, 0.0), (1, 1.764e-4, 5e-8), (50, 1.0194, 5e-5), (100, 5.29832, 5e-6)]:
        assert float(sde.theta_integral[t]) == pytest.approx(integral, abs=digits)
    golden = {1: 0.01878, 2: 0.03204, 5: 0.07699, 10: 0.17046, 25: 0.52177, 50: 0.93263, 75: 0.99824, 100: 0.99999}
    for t, ratio in golden.items():
        assert float(sde.sigma_bar[t]) / LAMBDA == pytest.approx(ratio, abs=1e-5)


def test_what_is_left_of_the_hq_image_is_delta(sde):
    assert math.exp(-float(sde.theta_integral[-1])) == pytest.approx(0.005, abs=1e-7)


@pytest.mark.parametrize(
    ("n_steps", "dt", "first"), [(50, 0.206142, 1.047e-3), (20, 0.500816, 1.173e-2), (10, 0.958654, 6.915e-2)]
)
def test_schedules_retrained_with_fewer_steps(n_steps, dt, first):
    sde = IRSDE(n_steps=n_steps)
    assert sde.dt == pytest.approx(dt, abs=5.1e-7)
    assert float(sde.theta_integral[1]) == pytest.approx(first, rel=5e-4)  # four digits
    assert len(cosine_theta(n_steps)) == n_steps + 1


@pytest.mark.parametrize("bad", [{"n_steps": 0}, {"max_sigma": 0}, {"max_sigma": math.inf}, {"delta": 1.0}])
def test_impossible_schedules_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        IRSDE(**bad)


# --- forward ---------------------------------------------------------------------------------------------------------


def test_exact_transitions_compose_to_the_marginal(sde):
    generator = torch.Generator().manual_seed(0)
    n = 20_000
    x, lq = images(HQ, n), images(LQ, n)
    for t in range(1, 101):
        mean, std = sde.transition(x, lq, t, t - 1)
        x = mean + std * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        if t in (10, 50, 100):
            mean, std = sde.marginal(images(HQ), images(LQ), t)
            assert abs(float(x.mean() - mean)) < 3 * float(std) / math.sqrt(n)  # 3 standard errors
            assert abs(float(x.std() / std) - 1) < 3 / math.sqrt(2 * n)


def test_euler_maruyama_forward_agrees_to_its_own_accuracy(sde):
    generator = torch.Generator().manual_seed(1)
    x = images(HQ, 200_000)  # standard error of the std: .16 %
    for t in range(1, 101):
        step = float(sde.theta[t]) * sde.dt
        x = (
            x
            + step * (LQ - x)
            + LAMBDA * math.sqrt(2 * step) * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        )
        if t in (50, 100):  # the scheme itself is off by .6 % in the mean at 50 and 2.65 % in std at 100
            mean, std = sde.marginal(images(HQ), images(LQ), t)
            assert abs(float(x.mean() - mean)) < 0.01 * abs(HQ - LQ)
            assert abs(float(x.std() / std) - 1) < 0.03


@pytest.mark.parametrize("max_sigma", [0.2, 1.0, 10 / 255])
def test_start_of_sampling_has_the_standard_deviation_asked_for(max_sigma):
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(1, 1, 300, 300, generator=generator)
    lq = torch.rand(1, 1, 300, 300, generator=generator)
    assert float((IRSDE(max_sigma=max_sigma).initial(lq, noise) - lq).std()) == pytest.approx(max_sigma, rel=0.01)


@pytest.mark.parametrize(("t", "s"), [(100, 99), (100, 90), (60, 35), (10, 1), (1, 0)])
def test_posterior_is_bayes_rule_of_marginal_and_transition(sde, t, s):
    """p(x_s | x_t, x_0) from p(x_s | x_0) and p(x_t | x_s): precisions add, means weigh by them."""
    hq, lq, x = images(HQ), images(LQ), images(0.37)
    before, spread = sde.marginal(hq, lq, s)
    offset, noise = sde.transition(images(0.0), lq, t, s)
    slope = sde.transition(images(1.0), lq, t, s)[0] - offset
    variance = 1 / (1 / spread**2 + (slope / noise) ** 2) if s else 0 * spread
    best = variance * (before / spread**2 + slope * (x - offset) / noise**2) if s else hq
    mean, std = sde.posterior(x, hq, lq, t, s)
    assert float(mean) == pytest.approx(float(best), abs=1e-12)
    assert float(std) == pytest.approx(math.sqrt(float(variance)), rel=1e-9)


@pytest.mark.parametrize(("t", "s"), [(100, 99), (100, 50), (50, 20), (10, 1), (1, 0)])
def test_ddim_stays_on_the_path_of_its_noise(sde, t, s):
    noise = images(-0.8)
    step = sde.reverse_step(sde.perturb(images(HQ), images(LQ), t, noise), images(LQ), noise, t, s, "ddim")
    assert float(step) == pytest.approx(float(sde.perturb(images(HQ), images(LQ), s, noise)), abs=1e-12)


def test_score_is_the_gradient_of_the_log_density(sde):
    x = images(0.1).requires_grad_()
    mean, std = sde.marginal(images(HQ), images(LQ), 30)
    (-((x - mean) ** 2) / (2 * std**2)).sum().backward()
    noise = sde.noise_of(x.detach(), images(HQ), images(LQ), 30)
    assert float(sde.score(noise, 30)) == pytest.approx(float(x.grad), rel=1e-12)


def test_one_time_an_image_equals_one_call_each(sde):
    hq, lq, noise = (torch.randn(3, 1, 4, 4, dtype=torch.float64) for _ in range(3))
    t = torch.tensor([1, 40, 100])
    together = sde.perturb(hq, lq, t, noise)
    for i, ti in enumerate(t.tolist()):
        assert torch.equal(together[i], sde.perturb(hq[i : i + 1], lq[i : i + 1], ti, noise[i : i + 1])[0])


# --- losses ----------------------------------------------------------------------------------------------------------


# t, g_t / λ, ε*_t - ε for HQ - LQ = 1.7 and λ = 10/255
WEIGHTS_AND_OFFSETS = [
    (1, 0.019, None),
    (10, 0.039, -0.006),
    (25, 0.063, -0.080),
    (50, 0.113, -0.196),
    (75, None, -0.058),
    (100, 0.208, None),
]


def _gain_and_target(sde, t, noise):
    """g_t and ε*_t with ml loss = g_t |ε̂ - ε*_t|: the Euler step equals the best x(t-1) exactly at ε̂ = ε*."""
    hq, lq = images(HQ), images(LQ)
    x = sde.perturb(hq, lq, t, images(noise))
    theta, s = sde.theta[t], sde.sigma_bar[t]
    gain = 2 * sde.max_sigma**2 * theta * sde.dt / s
    best = sde.posterior(x, hq, lq, t, t - 1)[0]
    return x, float(gain), float((x - theta * sde.dt * (lq - x) - best) / gain)


@pytest.mark.parametrize(("t", "weight", "offset"), WEIGHTS_AND_OFFSETS)
def test_maximum_likelihood_loss_is_a_weighted_noise_loss(sde, t, weight, offset):
    x, gain, target = _gain_and_target(sde, t, 0.7)
    hq, lq = images(HQ), images(LQ)
    for noise_hat in (-1.0, 0.2, 0.7):
        loss = sde.loss("ml_l1", images(noise_hat), x, hq, lq, images(0.7), torch.tensor([t]))
        assert float(loss) == pytest.approx(gain * abs(noise_hat - target), abs=1e-6)
    if weight:
        assert gain / sde.max_sigma == pytest.approx(weight, abs=5e-4)  # golden numbers carry three decimals
    if offset:
        assert _gain_and_target(sde, t, 0.0)[2] == pytest.approx(offset, abs=5e-4)


def test_balanced_loss_weighs_what_the_noisy_image_leaves_open():
    """The best linear guess of ε from x(t) costs the same at every time if HQ - LQ has unit variance."""
    sde, generator = IRSDE(max_sigma=0.2), torch.Generator().manual_seed(3)
    hq, noise = (torch.randn(1, 1, 400, 400, generator=generator, dtype=torch.float64) for _ in range(2))
    lq = torch.zeros_like(hq)
    for t in (2, 30, 60, 100):
        x = sde.perturb(hq, lq, t, noise)
        a, s = math.exp(-float(sde.theta_integral[t])), float(sde.sigma_bar[t])
        loss = sde.loss("balanced_l1", s / (a**2 + s**2) * x, x, hq, lq, noise, torch.tensor([t]))
        assert float(loss) == pytest.approx(math.sqrt(2 / math.pi), rel=0.01)  # mean |N(0, 1)|


def test_noise_loss_of_zero_output_is_trivial(sde):
    noise = torch.randn(1, 1, 400, 400, generator=torch.Generator().manual_seed(4))
    loss = sde.loss("noise_l1", torch.zeros_like(noise), noise, noise, noise, noise, torch.tensor([5]))
    assert float(loss) == pytest.approx(math.sqrt(2 / math.pi), rel=0.01)


# --- samplers with an oracle -----------------------------------------------------------------------------------------


def run_oracle(steps, sampler, n=1, dtype=torch.float64, last_noise=True, max_sigma=LAMBDA):
    """Errors of x(0) over n runs where the noise is predicted from the true HQ image."""
    sde, generator = IRSDE(n_steps=100, max_sigma=max_sigma), torch.Generator().manual_seed(steps)
    hq, lq = images(HQ, n).to(dtype), images(LQ, n).to(dtype)
    asked = []

    def oracle(x, lq, t):
        asked.append(t)
        return sde.noise_of(x, hq, lq, t)

    def draw():
        return torch.randn(lq.shape, generator=generator, dtype=dtype)

    x = sde.sample(oracle, lq, steps, sampler, draw, last_noise=last_noise)
    assert asked == sde.timesteps(steps)[:-1]
    return x - hq


@pytest.mark.parametrize("steps", [100, 50, 20, 10])
@pytest.mark.parametrize("sampler", ["posterior", "ddim"])
def test_exact_samplers_recover_the_hq_image(sampler, steps):
    assert float(run_oracle(steps, sampler).abs().max()) < 1e-10
    assert float(run_oracle(steps, sampler, dtype=torch.float32).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("steps", "std", "bias"), [(100, 7.4e-4, 1.7e-6), (50, 1.3e-3, 6e-6), (20, 3e-3, 3e-6), (10, 6.7e-3, 2e-4)]
)
def test_euler_maruyama_leaves_the_noise_of_its_last_step(steps, std, bias):
    error = run_oracle(steps, "sde", n=20_000)
    assert float(error.std()) == pytest.approx(std, rel=0.1)
    if steps == 100:
        assert float(error.std()) == pytest.approx(0.0188 * LAMBDA, rel=0.1)
    assert abs(float(error.mean())) < bias + 3 * std / math.sqrt(20_000)  # 3 standard errors


@pytest.mark.parametrize(("steps", "bias"), [(100, 2.6e-8), (50, 2.2e-7), (20, 7.5e-6), (10, 1.8e-4)])
def test_euler_maruyama_without_last_noise(steps, bias):
    assert float(run_oracle(steps, "sde", last_noise=False).abs().max()) < 3 * bias  # golden numbers are of one run


@pytest.mark.parametrize(("steps", "bias"), [(100, 7.4e-4), (50, 2.7e-3), (20, 1.7e-2), (10, 7.3e-2)])
def test_probability_flow_euler_bias(steps, bias):
    error = run_oracle(steps, "ode", n=2000)
    assert abs(float(error.mean())) == pytest.approx(bias, rel=0.1)
    if steps == 100:
        assert abs(float(error.mean())) < 1e-3


def test_fewer_steps_keep_the_times_of_the_trained_schedule(sde):
    assert sde.timesteps(10) == [100, 90, 80, 70, 60, 50, 40, 30, 20, 10, 0]
    assert sde.timesteps() == list(range(100, -1, -1))
    assert len(set(sde.timesteps(97))) == 98
    with pytest.raises(ValueError, match="between 1 and 100"):
        sde.timesteps(101)


def test_bounds_tame_a_network_that_is_wrong():
    """Predicted noise that is off by .5 everywhere blows x(0) up to 100 λ; clamping keeps it in range."""
    sde, lq = IRSDE(max_sigma=0.2), torch.zeros(1, 1, 8, 8)
    bounds = (torch.tensor(-1.0), torch.tensor(1.0))
    generator = torch.Generator().manual_seed(5)

    def wrong(x, lq, t):
        return torch.full_like(x, 0.5)

    for sampler in ("posterior", "ddim"):
        x = sde.sample(wrong, lq, 10, sampler, lambda: torch.randn(lq.shape, generator=generator), bounds)
        assert float(x.abs().max()) <= 1.0 + 1e-6


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_deterministic_samplers_draw_noise_once(sampler):
    drawn = []

    def draw():
        drawn.append(1)
        return torch.zeros(1, 1, 4, 4)

    IRSDE().sample(lambda x, lq, t: torch.zeros_like(x), torch.zeros(1, 1, 4, 4), 5, sampler, draw)
    assert len(drawn) == {"posterior": 6, "sde": 5, "ode": 1, "ddim": 1}[sampler]


def test_the_command_line_knows_the_samplers_and_losses_there_are():
    assert tuple(SAMPLERS) == config.SAMPLERS
    assert tuple(LOSSES) == config.LOSSES


def test_a_sampler_of_ones_own_is_a_function_in_the_table(sde, monkeypatch):
    """One that jumps to the predicted HQ image, whatever time it is asked for, finds it with an oracle's noise."""

    def jump(sde, x, lq, noise_hat, t, s, noise):
        assert noise is None
        return sde.predicted_hq(x, lq, noise_hat, t)

    monkeypatch.setitem(SAMPLERS, "jump", Sampler(jump))
    hq, lq = images(HQ), images(LQ)
    found = sde.sample(lambda x, lq, t: sde.noise_of(x, hq, lq, t), lq, 1, "jump")
    torch.testing.assert_close(found, hq, atol=1e-4, rtol=0)  # float32, 200 λ of noise taken away again
    assert not torch.allclose(sde.sample(lambda x, lq, t: torch.zeros_like(x), lq, 1, "jump"), hq, atol=1e-2)


def test_unknown_names_are_refused(sde):
    with pytest.raises(ValueError, match="unknown sampler"):
        sde.sample(None, images(0.0), 5, "euler")
    with pytest.raises(ValueError, match="unknown loss"):
        sde.loss("l2", *[images(0.0)] * 5, torch.tensor([1]))
