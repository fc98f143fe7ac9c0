"""The rectified flow (Liu et al. 2023): straight ways from a start with noise to the HQ image, their losses and steps.

    x(t) = (1 - τ) (μ + σ ε) + τ x(0),   τ = 1 - t/T,   v = dx/dτ = x(0) - μ - σ ε

x(0) is the HQ image, μ what the flow starts from: the LQ image (method `flow`), or a mean that a supervised network
predicts (`pmrf`, Ohayon et al. 2024), σ = `max_sigma` the standard deviation of the noise at the start. A network predicts v
from x(t), μ and t. Times are whole numbers T .. 0, as those of `irsde.sde.IRSDE`, whose place a `RectifiedFlow` takes in
training and restoring.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from irsde.sde import respaced
from irsde.smoothing import smoothed

DEFAULT_STEPS = 5  # of restoring; a straight way needs few


class RectifiedFlow:
    """The way from start to HQ image, its marginal, losses and steps.

    Attributes
    ----------
    n_steps : int
        T: times that training draws from.
    max_sigma : float
        Standard deviation of the noise at the start, in the units of the tensors.
    default_steps, default_sampler
        What restoring takes where nothing is asked for.
    """

    default_steps = DEFAULT_STEPS
    default_sampler = preview_sampler = "euler"

    def __init__(self, n_steps: int = 100, max_sigma: float = 0.2) -> None:
        if n_steps < 1 or int(n_steps) != n_steps:
            raise ValueError(f"expected n_steps to be a whole number of at least 1, got {n_steps}")
        if not (max_sigma > 0 and math.isfinite(max_sigma)):
            raise ValueError(f"expected max_sigma > 0, got {max_sigma}")
        self.n_steps, self.max_sigma = int(n_steps), float(max_sigma)
        self.default_steps = min(DEFAULT_STEPS, self.n_steps)

    @property
    def samplers(self) -> tuple[str, ...]:
        """The names of the samplers that it takes."""
        return tuple(FLOW_SAMPLERS)

    # --- forward -----------------------------------------------------------------------------------------------------

    def share(self, t: int | Tensor, like: Tensor) -> Tensor:
        """Return τ = 1 - t/T, the share of the HQ image in x(t), in the dtype and on the device of `like`."""
        share = 1 - torch.as_tensor(t, device="cpu").to(torch.float64) / self.n_steps
        share = share.to(like.device, like.dtype)
        return share.reshape(-1, *[1] * (like.ndim - 1)) if share.ndim else share

    def marginal(self, hq: Tensor, start: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of x(t) given x(0) = hq."""
        share = self.share(t, start)
        return start + share * (hq - start), self.max_sigma * (1 - share)

    def perturb(self, hq: Tensor, start: Tensor, t: int | Tensor, noise: Tensor) -> Tensor:
        """x(t) for a given standard normal `noise`."""
        mean, std = self.marginal(hq, start, t)
        return mean + std * noise

    def predicted_hq(self, x: Tensor, start: Tensor, velocity: Tensor, t: int | Tensor) -> Tensor:
        """x(0) from x(t) and the predicted velocity: the rest of the way at it."""
        return x + (1 - self.share(t, x)) * velocity

    def velocity_of(self, x: Tensor, hq: Tensor, t: int | Tensor) -> Tensor:
        """Return the velocity that leads from x(t) to `hq`: the inverse of `predicted_hq`; t > 0."""
        return (hq - x) / (1 - self.share(t, x))

    def loss(
        self, kind: str, velocity: Tensor, x: Tensor, hq: Tensor, start: Tensor, noise: Tensor, t: Tensor
    ) -> Tensor:
        """Return the error of the prediction `velocity` at x = x(t), in one of the measures of `FLOW_LOSSES`."""
        if kind not in FLOW_LOSSES:
            raise ValueError(f"unknown loss {kind!r}; expected one of {', '.join(FLOW_LOSSES)}")
        return FLOW_LOSSES[kind](velocity - (hq - start - self.max_sigma * noise))

    # --- along the flow ----------------------------------------------------------------------------------------------

    def initial(self, start: Tensor, noise: Tensor) -> Tensor:
        """x(T): the start with noise."""
        return start + self.max_sigma * noise

    def timesteps(self, steps: int | None = None) -> list[int]:
        """Return `steps` + 1 times from T down to 0, evenly spread; None = `default_steps`."""
        return respaced(self.n_steps, self.default_steps if steps is None else steps)

    def guess(
        self,
        predict: Callable[[Tensor, Tensor, int], Tensor],
        start: Tensor,
        draw: Callable[[], Tensor],
        bounds: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Return the HQ image that the network expects at the start, in one evaluation: near the posterior mean."""
        x = self.initial(start, draw())
        hq = self.predicted_hq(x, start, predict(x, start, self.n_steps), self.n_steps)
        return hq if bounds is None else hq.clamp(*bounds)

    def sample(
        self,
        predict: Callable[[Tensor, Tensor, int], Tensor],
        start: Tensor,
        steps: int | None = None,
        sampler: str | None = None,
        draw: Callable[[], Tensor] | None = None,
        bounds: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """x(0) for each start, through `timesteps(steps)`; arguments as those of `IRSDE.sample`."""
        sampler = sampler or self.default_sampler
        if sampler not in FLOW_SAMPLERS:
            raise ValueError(f"unknown sampler {sampler!r} of a flow; expected one of {', '.join(FLOW_SAMPLERS)}")
        rule = FLOW_SAMPLERS[sampler]
        draw = draw or (lambda: torch.randn_like(start))
        x = self.initial(start, draw())
        for t, s in itertools.pairwise(self.timesteps(steps)):
            velocity = predict(x, start, t)
            if bounds is not None:
                velocity = self.velocity_of(x, self.predicted_hq(x, start, velocity, t).clamp(*bounds), t)
            x = rule.step(self, x, start, velocity, t, s, draw() if rule.draws and s > 0 else None)
        return x


# --- losses: error of the velocity -> mean ------------------------------------------------------------------------------

# The squared one learns the mean of all velocities through a point, which makes the flow reach its target.
FLOW_LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "velocity_l2": lambda error: (error**2).mean(),
    "velocity_l1": lambda error: error.abs().mean(),
}


# --- samplers: (flow, x(t), start, predicted velocity, t, s, fresh noise or None) -> x(s), s < t --------------------------

FlowStep = Callable[[RectifiedFlow, Tensor, Tensor, Tensor, int, int, "Tensor | None"], Tensor]


@dataclass(frozen=True)
class FlowSampler:
    """A way along the flow.

    Attributes
    ----------
    step : callable
        From x(t) to x(s).
    draws : bool
        It takes fresh noise, but for the last step.
    """

    step: FlowStep
    draws: bool = False


def euler_step(
    flow: RectifiedFlow, x: Tensor, start: Tensor, velocity: Tensor, t: int, s: int, noise: Tensor | None
) -> Tensor:
    """Go straight on at the predicted velocity."""
    return x + (t - s) / flow.n_steps * velocity


def bridge_step(
    flow: RectifiedFlow, x: Tensor, start: Tensor, velocity: Tensor, t: int, s: int, noise: Tensor | None
) -> Tensor:
    """Draw x(s) from the Gaussian bridge to the predicted x(0), of a Markov chain with the marginals of the flow."""
    hq = flow.predicted_hq(x, start, velocity, t)
    (mean_t, std_t), (mean_s, std_s) = flow.marginal(hq, start, t), flow.marginal(hq, start, s)
    if noise is None:
        return mean_s + std_s * (x - mean_t) / std_t
    forgotten = 1 - (flow.share(t, x) / flow.share(s, x) * std_s / std_t) ** 2  # of the variance at s
    return mean_s + std_s * (torch.sqrt(1 - forgotten) * (x - mean_t) / std_t + torch.sqrt(forgotten) * noise)


FLOW_SAMPLERS = {"euler": FlowSampler(euler_step), "posterior": FlowSampler(bridge_step, draws=True)}


# --- the network -----------------------------------------------------------------------------------------------------


class VelocityPredictor(nn.Module):
    """v̂(x, start, t) of a flow.

    Unlike the flow of PMRF's authors, the network sees the start beside x(t). Its output F is scaled so that input and
    target have unit variance at every time if HQ - start has the root mean square d = `difference_rms` (the scheme of
    Karras et al. 2022, sec. 5, for this flow): with u = x - start = τ (HQ - start) + (1 - τ) σ ε of variance w,
    v̂ = (τ d² - (1 - τ) σ²) / w u + d σ / sqrt(w) F. One step then carries no noise of the start into the result.

    With `skip` "smooth" the smoothed start (`irsde.smoothing`) takes the place of the start in HQ - start. Where the
    start is itself predicted, d is not known before training: `tracked` makes it a buffer that is learned with the weights.
    """

    def __init__(
        self,
        unet: nn.Module,
        flow: RectifiedFlow,
        condition: str = "difference",
        skip: str = "plain",
        difference_rms: float = 1.0,
        tracked: bool = False,
    ) -> None:
        super().__init__()
        self.unet, self.flow, self.condition, self.skip = unet, flow, condition, skip
        track_rms(self, difference_rms, tracked)

    def forward(self, x: Tensor, start: Tensor, t: int | Tensor) -> Tensor:
        """Predicted velocity (n, 1, nz, nx) at times t, one an image or one for all."""
        t = torch.as_tensor(t).expand(len(x))
        share, d, sigma = self.flow.share(t, x), torch.as_tensor(self.difference_rms).to(x), self.flow.max_sigma
        ahead = smoothed(start) - start if self.skip == "smooth" else torch.zeros_like(start)
        away = x - start - share * ahead
        variance = (share * d) ** 2 + ((1 - share) * sigma) ** 2
        straight = (share * d**2 - (1 - share) * sigma**2) / variance
        first = away / variance.sqrt()
        seen = torch.cat([first if self.condition == "difference" else start + first, start], 1)
        return ahead + straight * away + d * sigma / variance.sqrt() * self.unet(seen, t.to(x.device))


def track_rms(module: nn.Module, value: float, tracked: bool) -> None:
    """Give a predictor its `difference_rms`: a number, or a buffer that is saved with the weights."""
    if tracked:
        module.register_buffer("difference_rms", torch.tensor(float(value)))
    else:
        module.difference_rms = value  # type: ignore[assignment]
