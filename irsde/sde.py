"""The mean-reverting stochastic differential equation of IR-SDE (Luo et al. 2023), its losses and its reverse steps.

    dx = θ(t) (μ - x) dt + σ(t) dW,   σ(t)² = 2 λ² θ(t)

x(0) is the HQ image, μ the LQ image, λ = `max_sigma` the standard deviation the process settles at. With θ̄ the integral
of θ, a = exp(-θ̄) and s = λ sqrt(1 - a²), everything is Gaussian in closed form:

    x(t) = μ + a (x(0) - μ) + s ε,   score = -ε / s

A network predicts ε from x(t), μ and t; every sampler below turns that prediction into one step back in time. Images are
tensors (n, 1, nz, nx) in the units the network sees; t is an integer index 0 .. n_steps, one for all images or one each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


class IRSDE:
    """Schedule, marginal, losses and reverse steps.

    `max_sigma` is used as it is given, in the units of the tensors (the reference code divides values of 1 and more by 255;
    this one never does). `delta` is what is left of HQ - LQ at the last step: exp(-θ̄_T).
    """

    default_sampler, preview_sampler = "posterior", "ddim"

    def __init__(self, n_steps: int = 100, max_sigma: float = 0.2, delta: float = 0.005):
        if n_steps < 1 or int(n_steps) != n_steps:
            raise ValueError(f"expected n_steps to be a whole number of at least 1, got {n_steps}")
        if not (max_sigma > 0 and math.isfinite(max_sigma)):
            raise ValueError(f"expected max_sigma > 0, got {max_sigma}")
        if not 0 < delta < 1:
            raise ValueError(f"expected 0 < delta < 1, got {delta}")
        self.n_steps, self.max_sigma, self.delta = int(n_steps), float(max_sigma), float(delta)
        self.theta = torch.from_numpy(cosine_theta(self.n_steps))  # (n_steps + 1,) float64
        integral = torch.cumsum(self.theta, 0) - self.theta[0]
        self.dt = -math.log(delta) / float(integral[-1])
        self.theta_integral = integral * self.dt  # θ̄, (n_steps + 1,) float64, from 0 to -ln(delta)
        self.sigma_bar = self.max_sigma * torch.sqrt(-torch.expm1(-2 * self.theta_integral))  # s, same shape

    @property
    def default_steps(self) -> int:
        """Steps that restoring takes where none are asked for: all."""
        return self.n_steps

    @property
    def samplers(self) -> tuple[str, ...]:
        """The names of the samplers that it takes."""
        return tuple(SAMPLERS)

    # --- forward -----------------------------------------------------------------------------------------------------

    def marginal(self, hq: Tensor, lq: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of x(t) given x(0) = hq (Luo et al. 2023, Prop. 3.1)."""
        return lq + (hq - lq) * self.decay(t, lq), self.at(self.sigma_bar, t, lq)

    def transition(self, x: Tensor, lq: Tensor, t: int | Tensor, s: int | Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of x(t) given x(s) = x at the earlier time s < t."""
        elapsed = self.at(self.theta_integral, t, lq) - self.at(self.theta_integral, s, lq)
        return lq + (x - lq) * torch.exp(-elapsed), self.max_sigma * torch.sqrt(-torch.expm1(-2 * elapsed))

    def perturb(self, hq: Tensor, lq: Tensor, t: int | Tensor, noise: Tensor) -> Tensor:
        """x(t) for a given standard normal `noise`."""
        mean, std = self.marginal(hq, lq, t)
        return mean + std * noise

    def score(self, noise: Tensor, t: int | Tensor) -> Tensor:
        """Gradient of the log density of x(t) given x(0), from the (predicted) noise; t > 0."""
        return -noise / self.at(self.sigma_bar, t, noise)

    def predicted_hq(self, x: Tensor, lq: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """x(0) from x(t) and the predicted noise. An error of the noise comes back s/a times larger: 200 λ at t = T."""
        return lq + (x - lq - self.at(self.sigma_bar, t, x) * noise) / self.decay(t, x)

    def noise_of(self, x: Tensor, hq: Tensor, lq: Tensor, t: int | Tensor) -> Tensor:
        """Return the noise that explains x(t) if x(0) is `hq`: the inverse of `predicted_hq`; t > 0."""
        return (x - lq - (hq - lq) * self.decay(t, x)) / self.at(self.sigma_bar, t, x)

    # --- losses ------------------------------------------------------------------------------------------------------

    def loss(self, kind: str, noise_hat: Tensor, x: Tensor, hq: Tensor, lq: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return the mean absolute error of the prediction `noise_hat` at x = x(t), in one of the measures of `LOSSES`."""
        if kind not in LOSSES:
            raise ValueError(f"unknown loss {kind!r}; expected one of {', '.join(LOSSES)}")
        return LOSSES[kind](self, noise_hat, x, hq, lq, noise, t)

    def posterior(self, x: Tensor, hq: Tensor, lq: Tensor, t: int | Tensor, s: int | Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of x(s) between x(t) = x and x(0) = hq, s < t (Luo et al. 2023, Prop. 3.2)."""
        tb_t, tb_s = self.at(self.theta_integral, t, x), self.at(self.theta_integral, s, x)
        a = torch.exp(tb_s - tb_t)
        open_t, open_s, open_step = -torch.expm1(-2 * tb_t), -torch.expm1(-2 * tb_s), -torch.expm1(2 * (tb_s - tb_t))
        mean = lq + (a * open_s * (x - lq) + torch.exp(-tb_s) * open_step * (hq - lq)) / open_t
        return mean, self.max_sigma * torch.sqrt(open_step * open_s / open_t)

    # --- reverse -----------------------------------------------------------------------------------------------------

    def initial(self, lq: Tensor, noise: Tensor) -> Tensor:
        """x(T): the LQ image with stationary noise; the delta (HQ - LQ) that is left of the HQ image is ignored."""
        return lq + self.max_sigma * noise

    def reverse_step(
        self,
        x: Tensor,
        lq: Tensor,
        noise_hat: Tensor,
        t: int,
        s: int,
        sampler: str = "posterior",
        noise: Tensor | None = None,
    ) -> Tensor:
        """Return x(s) from x(t) and the predicted noise, s < t, by one of `SAMPLERS`.

        `noise` is fresh standard normal noise for those that take some; None adds none.
        """
        if sampler not in SAMPLERS:
            raise ValueError(f"unknown sampler {sampler!r}; expected one of {', '.join(SAMPLERS)}")
        return SAMPLERS[sampler].step(self, x, lq, noise_hat, t, s, noise)

    def timesteps(self, steps: int | None = None) -> list[int]:
        """Return `steps` + 1 indices from T down to 0, evenly spread over this schedule (never a schedule of its own)."""
        return respaced(self.n_steps, self.n_steps if steps is None else steps)

    def guess(
        self,
        predict_noise: Callable[[Tensor, Tensor, int], Tensor],
        lq: Tensor,
        draw: Callable[[], Tensor],
        bounds: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Return the HQ image that the network expects at t = T, in one evaluation: near the posterior mean."""
        x = self.initial(lq, draw())
        hq = self.predicted_hq(x, lq, predict_noise(x, lq, self.n_steps), self.n_steps)
        return hq if bounds is None else hq.clamp(*bounds)

    def sample(
        self,
        predict_noise: Callable[[Tensor, Tensor, int], Tensor],
        lq: Tensor,
        steps: int | None = None,
        sampler: str | None = None,
        draw: Callable[[], Tensor] | None = None,
        bounds: tuple[Tensor, Tensor] | None = None,
        last_noise: bool = False,
    ) -> Tensor:
        """x(0) for each LQ image: from `initial` through the reverse steps of `timesteps(steps)`.

        `predict_noise(x, lq, t)` is the network; `draw()` returns fresh standard normal noise of lq's shape. `bounds`, the
        lowest and highest value an HQ image can take, clamp the predicted x(0) and with it the noise. `last_noise` keeps
        the noise that Euler-Maruyama adds in its last step, as the reference code does.
        """
        sampler = sampler or self.default_sampler
        if sampler not in SAMPLERS:
            raise ValueError(f"unknown sampler {sampler!r}; expected one of {', '.join(SAMPLERS)}")
        rule = SAMPLERS[sampler]
        draw = draw or (lambda: torch.randn_like(lq))
        x = self.initial(lq, draw())
        times = self.timesteps(steps)
        for t, s in itertools.pairwise(times):
            noise_hat = predict_noise(x, lq, t)
            if bounds is not None:
                hq = self.predicted_hq(x, lq, noise_hat, t).clamp(*bounds)
                noise_hat = self.noise_of(x, hq, lq, t)
            fresh = draw() if rule.draws and (s > 0 or last_noise or rule.draws_last) else None
            x = self.reverse_step(x, lq, noise_hat, t, s, sampler, fresh)
        return x

    # --- the tables at a time ----------------------------------------------------------------------------------------

    def decay(self, t: int | Tensor, like: Tensor) -> Tensor:
        """Return a = exp(-θ̄(t)) in the dtype and on the device of `like`, as `at` does."""
        return torch.exp(-self.at(self.theta_integral, t, like))

    def at(self, table: Tensor, t: int | Tensor, like: Tensor) -> Tensor:
        """table[t] in the dtype and on the device of `like`; one t an image becomes (n, 1, 1, ...)."""
        index = torch.as_tensor(t, device="cpu")
        value = table[index].to(like.device, like.dtype)
        return value.reshape(-1, *[1] * (like.ndim - 1)) if index.ndim else value


# --- losses: (sde, predicted noise, x(t), HQ, LQ, noise, t) -> mean ----------------------------------------------------


def noise_l1(sde: IRSDE, noise_hat: Tensor, x: Tensor, hq: Tensor, lq: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return the mean of |ε̂ - ε| (the despeckling paper, eq. 4)."""
    return (noise_hat - noise).abs().mean()


def ml_l1(sde: IRSDE, noise_hat: Tensor, x: Tensor, hq: Tensor, lq: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return the distance of one Euler step back from the most likely x(t-1) (Luo et al. 2023, eq. 14)."""
    theta, s = sde.at(sde.theta, t, x), sde.at(sde.sigma_bar, t, x)
    drift = theta * (lq - x) + 2 * sde.max_sigma**2 * theta * noise_hat / s
    return (x - drift * sde.dt - sde.posterior(x, hq, lq, t, t - 1)[0]).abs().mean()


def balanced_l1(sde: IRSDE, noise_hat: Tensor, x: Tensor, hq: Tensor, lq: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return the mean of |ε̂ - ε| over its share a / sqrt(a² + s²), so that all times weigh alike.

    The share is what x(t) leaves open if HQ - LQ has unit variance. For exact samplers, as `noise_l1` is.
    """
    a, s = sde.decay(t, x), sde.at(sde.sigma_bar, t, x)
    return ((noise_hat - noise) * torch.sqrt(a**2 + s**2) / a).abs().mean()


LOSSES: dict[str, Callable[..., Tensor]] = {"noise_l1": noise_l1, "ml_l1": ml_l1, "balanced_l1": balanced_l1}


# --- samplers: (sde, x(t), LQ, predicted noise, t, s, fresh noise or None) -> x(s), s < t --------------------------------
# The Euler steps go with networks trained on `ml_l1`, whose target contains the discretization; the others with `noise_l1`.

Step = Callable[[IRSDE, Tensor, Tensor, Tensor, int, int, "Tensor | None"], Tensor]


def bridge_step(sde: IRSDE, x: Tensor, lq: Tensor, noise_hat: Tensor, t: int, s: int, noise: Tensor | None) -> Tensor:
    """Draw from the Gaussian bridge to the predicted x(0) (Luo et al. 2023, Prop. 3.2)."""
    mean, std = sde.posterior(x, sde.predicted_hq(x, lq, noise_hat, t), lq, t, s)
    return mean if noise is None else mean + std * noise


def euler_maruyama_step(
    sde: IRSDE, x: Tensor, lq: Tensor, noise_hat: Tensor, t: int, s: int, noise: Tensor | None
) -> Tensor:
    """Take an Euler-Maruyama step of the reverse-time SDE (Luo et al. 2023)."""
    elapsed, pull = _drift(sde, noise_hat, x, t, s)
    x = x - (lq - x) * elapsed - 2 * pull
    return x if noise is None else x - sde.max_sigma * torch.sqrt(2 * elapsed) * noise


def euler_step(sde: IRSDE, x: Tensor, lq: Tensor, noise_hat: Tensor, t: int, s: int, noise: Tensor | None) -> Tensor:
    """Take an Euler step of the probability flow."""
    elapsed, pull = _drift(sde, noise_hat, x, t, s)
    return x - (lq - x) * elapsed - pull


def flow_step(sde: IRSDE, x: Tensor, lq: Tensor, noise_hat: Tensor, t: int, s: int, noise: Tensor | None) -> Tensor:
    """Solve the probability flow exactly for a constant predicted x(0), as DDIM does."""
    mean, std = sde.marginal(sde.predicted_hq(x, lq, noise_hat, t), lq, s)
    return mean + std * noise_hat


def _drift(sde: IRSDE, noise_hat: Tensor, x: Tensor, t: int, s: int) -> tuple[Tensor, Tensor]:
    """Return the integral of θ over the step, and -σ² score dt / 2."""
    elapsed = sde.at(sde.theta_integral, t, x) - sde.at(sde.theta_integral, s, x)
    return elapsed, sde.max_sigma**2 * elapsed * noise_hat / sde.at(sde.sigma_bar, t, x)


@dataclass(frozen=True)
class Sampler:
    """A way back in time.

    Attributes
    ----------
    step : callable
        From x(t) to x(s).
    draws : bool
        It takes fresh noise.
    draws_last : bool
        In the last step, to t = 0, too.
    """

    step: Step
    draws: bool = False
    draws_last: bool = False


SAMPLERS = {
    "posterior": Sampler(bridge_step, draws=True, draws_last=True),
    "sde": Sampler(euler_maruyama_step, draws=True),
    "ode": Sampler(euler_step),
    "ddim": Sampler(flow_step),
}


# --- schedule --------------------------------------------------------------------------------------------------------


def cosine_theta(n_steps: int, offset: float = 0.008) -> np.ndarray:
    """θ_0 .. θ_T of the IR-SDE code: one less the *cumulative* cosine α over a grid of T + 3 points without its ends.

    Not the ratio of neighboring α that DDPM's betas are made of. float64, (n_steps + 1,); θ_0 is not 0.
    """
    grid = np.arange(n_steps + 3) / (n_steps + 2)
    alpha = np.cos((grid + offset) / (1 + offset) * np.pi / 2) ** 2
    return 1 - (alpha / alpha[0])[1:-1]


def respaced(n_steps: int, steps: int) -> list[int]:
    """Return `steps` + 1 times from `n_steps` down to 0, evenly spread and rounded."""
    if not 1 <= steps <= n_steps:
        raise ValueError(f"expected between 1 and {n_steps} steps (what the network was trained with), got {steps}")
    return [int(i) for i in np.round(np.linspace(n_steps, 0, steps + 1))]
