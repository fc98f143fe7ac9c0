"""DDRM: the sampler against its own linear recursion, its limits, seeds, and the variance image."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from irsde import drus  # noqa: E402
from irsde.drus import ddrm  # noqa: E402

SHAPE = (100, 100)

# The output with the exact denoiser of N(0, 1) is N(k ȳ, sd²): S, s_y, k, sd, and the k of the exact posterior.
RECURSION = [
    (1.0, 0.02, 0.9953, 0.0569, 0.9996),
    (1.0, 0.1, 0.9829, 0.0847, 0.9901),
    (1.0, 0.5, 0.8062, 0.2482, 0.8000),
    (0.5, 0.1, 0.9589, 0.1158, 0.9615),
    (0.5, 0.5, 0.6165, 0.3431, 0.5000),
    (0.1, 0.1, 0.6165, 0.3431, 0.5000),
]


def scaled_identity(value, shape=SHAPE):
    operator = drus.IdentityOperator(shape)
    operator.singular_values = torch.full(shape, float(value))
    return operator


def recursion(error, eta=0.85, eta_b=1.0, p=1.0):
    """Gain and standard deviation of one mode of ȳ's error, each step being affine: the sampler without sampling.

    The prior is N(0, p²).
    """
    sigmas = ddrm.step_sigmas(ddrm.vp_sigmas(), 50)
    gain, variance = (1.0, sigmas[0] ** 2 - error**2) if error < sigmas[0] else (0.0, sigmas[0] ** 2)
    for s, following in itertools.pairwise(sigmas):
        shrink = p**2 / (p**2 + s**2)  # x0 = shrink x
        if np.isinf(error):
            step, kept, noise = shrink + np.sqrt(1 - eta**2) * following * (1 - shrink) / s, 0.0, eta * following
        elif error > following:
            pull = np.sqrt(1 - eta**2) * following / error
            step, kept, noise = shrink * (1 - pull), pull, eta * following
        else:
            step, kept = (1 - eta_b) * shrink, eta_b
            noise = np.sqrt(following**2 - eta_b**2 * error**2)
        gain, variance = step * gain + kept, step**2 * variance + noise**2
    return gain, np.sqrt(variance)


@pytest.mark.parametrize(("s", "noise", "gain", "deviation", "posterior"), RECURSION)
def test_samples_follow_the_linear_recursion(s, noise, gain, deviation, posterior):
    assert recursion(noise / s) == pytest.approx((gain, deviation), abs=1e-4)  # the published table's rounding
    observed = np.full(SHAPE, s, dtype=np.float32)  # ȳ = 1
    samples = drus.sample(scaled_identity(s), observed, drus.GaussianPrior(), n_samples=4, noise_level=noise)
    # 4e4 values: standard errors .17 % (mean, at worst) and .35 %.
    assert samples.mean() == pytest.approx(gain, rel=0.01)
    assert samples.std() == pytest.approx(deviation, rel=0.01)
    if s / noise >= 5:
        assert gain == pytest.approx(posterior, rel=0.02)


def test_unmeasured_modes_are_unconditional_samples():
    samples = drus.sample(scaled_identity(0), np.ones(SHAPE), drus.GaussianPrior(), n_samples=4, noise_level=0.1)
    # .84, not 1: the known bias of 50 steps at eta .85.
    assert recursion(np.inf)[1] == pytest.approx(0.8361, abs=1e-4)
    assert samples.std() == pytest.approx(0.8361, rel=0.01)
    assert abs(samples.mean()) < 4 * 0.84 / 200


@pytest.mark.parametrize(
    ("error", "p", "low", "high"),
    [
        (np.inf, 0.3, 0.9, 1.2),
        (np.inf, 3.0, 0.9, 1.2),
        (0.5, 0.1, 0.9, 1.4),
        (0.5, 0.5, 0.4, 0.7),
        (0.5, 5.0, 0.0, 0.1),
    ],
)
def test_spread_is_a_power_of_echogenicity_by_regime(error, p, low, high):
    """sd ∝ p^b: b about 1 for unmeasured modes and p far below the error, about .5 near it, 0 far above."""
    above, below = (recursion(error, p=p * h)[1] for h in (1.1, 1 / 1.1))
    assert low < np.log(above / below) / np.log(1.1**2) < high
    gain, deviation = recursion(error, p=p)
    operator, noise = (scaled_identity(0), 0.1) if np.isinf(error) else (scaled_identity(1), error)
    samples = drus.sample(operator, np.ones(SHAPE), drus.GaussianPrior(p), n_samples=4, noise_level=noise)
    assert samples.std() == pytest.approx(deviation, rel=0.01)  # 4e4 values: .35 %
    assert samples.mean() == pytest.approx(gain if np.isfinite(error) else 0.0, abs=4 * deviation / 200)


@pytest.mark.parametrize("steps", [1, 3, 50, 60, 600, 999, 1000])
def test_every_chain_starts_at_full_noise(steps):
    sigmas = ddrm.vp_sigmas()
    visited = ddrm.step_sigmas(sigmas, steps)
    assert len(visited) == steps + 1
    assert np.all(np.diff(visited) < 0)
    assert visited[-2:].tolist() == [sigmas[0], 0.0]
    if steps >= 50:
        assert visited[0] >= sigmas[980]
    if steps == 50:
        np.testing.assert_array_equal(visited[:-1], sigmas[980::-20])  # 0, 20, ..., 980: the published sequence
        assert visited[[0, -3, -2]] == pytest.approx([130.1, 0.0794, 0.0100], rel=1e-3)


@pytest.mark.parametrize("step", [20, 40])
def test_data_as_good_as_a_step_count_as_better(step):
    """Equality belongs to the branch of ȳ: S s' = s_y in the units of the tensors, float32."""
    noise = float(np.float32(ddrm.vp_sigmas()[step]))
    gain, deviation = recursion(noise * (1 - 1e-6))
    assert recursion(noise * (1 + 1e-6))[1] > 1.5 * deviation  # what the other branch would give
    observed = np.ones(SHAPE, dtype=np.float32)
    samples = drus.sample(drus.IdentityOperator(SHAPE), observed, drus.GaussianPrior(), n_samples=4, noise_level=noise)
    assert samples.mean() == pytest.approx(gain, rel=0.01)
    assert samples.std() == pytest.approx(deviation, rel=0.01)


def test_precise_data_are_returned():
    observed = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    identity = drus.IdentityOperator(SHAPE)
    samples = drus.sample(identity, observed, drus.GaussianPrior(), n_samples=2, noise_level=1e-3)
    assert np.sqrt(np.mean((samples - observed) ** 2)) < 0.1  # a VP/VE mix-up would be of the order of 1


@pytest.mark.parametrize("s", [0.0, 1.0])
@pytest.mark.parametrize("noise", [0.0, float(np.float32(ddrm.vp_sigmas()[20]))])  # none; exactly that of a step
def test_no_nan_at_the_edges(s, noise):
    operator = scaled_identity(s, (16, 16))
    operator.singular_values[::2] = 0
    observed = np.ones((16, 16), dtype=np.float32)
    samples = drus.sample(operator, observed, drus.GaussianPrior(), n_samples=2, noise_level=noise)
    assert np.isfinite(samples).all()
    if noise == 0 and s == 1:
        np.testing.assert_allclose(samples[:, 1::2], 1, atol=1e-6)  # exact data: exact answer


def test_operator_that_sees_nothing_leaves_the_prior():
    operator = drus.SeparableOperator(np.zeros((40, 40)), np.zeros((40, 40)), threshold=0.03)
    samples = drus.sample(operator, np.zeros((40, 40)), drus.GaussianPrior(), n_samples=4)
    assert samples.std() == pytest.approx(0.8361, rel=0.03)  # 6,400 values: .9 %
    assert np.isfinite(drus.sample(operator, np.ones((40, 40)), drus.LocalVariancePrior(), n_samples=1)).all()


def test_gain_of_the_operator_cancels():
    rng = np.random.default_rng(0)
    operator = drus.SeparableOperator(rng.standard_normal((24, 24)), rng.standard_normal((20, 20)), threshold=0.03)
    observed = operator.apply(torch.as_tensor(rng.standard_normal((24, 20)), dtype=torch.float32)).numpy()
    louder = operator.to("cpu")
    louder.singular_values = operator.singular_values * 405
    louder.axial_u = -operator.axial_u
    options = {"prior": drus.GaussianPrior(), "n_samples": 2, "seed": 3}
    plain = drus.sample(operator, observed, noise_level=0.5, **options)
    scaled = drus.sample(louder, -405 * observed, noise_level=405 * 0.5, **options)
    np.testing.assert_allclose(scaled, plain, atol=1e-4)
    # Nor does it matter where the noise level and the scale are read from the data.
    options["prior"] = drus.LocalVariancePrior()
    plain, scaled = drus.sample(operator, observed, **options), drus.sample(louder, -405 * observed, **options)
    np.testing.assert_allclose(scaled, plain, atol=1e-4)


def test_seeds_decide_and_samples_differ():
    observed = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    identity, prior = drus.IdentityOperator((64, 64)), drus.GaussianPrior()
    ten = drus.sample(identity, observed, prior, n_samples=10, noise_level=0.3, seed=5)
    np.testing.assert_array_equal(
        ten[:3], drus.sample(identity, observed, prior, n_samples=3, noise_level=0.3, seed=5, batch_size=2)
    )
    other = drus.sample(identity, observed, prior, n_samples=1, noise_level=0.3, seed=6)
    assert not np.allclose(other[0], ten[0])
    deviations = (ten - ten.mean(axis=0)).reshape(10, -1)
    correlation = np.corrcoef(deviations)[np.triu_indices(10, 1)]
    assert ten.var(axis=0).min() > 0
    assert correlation.max() < 0.2  # independent samples about their own mean: -1/9
    assert correlation.mean() == pytest.approx(-1 / 9, abs=0.02)


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_variance_of_the_papers_model_is_a_power_of_echogenicity(p, beta):
    rng = np.random.default_rng(1)
    signal = rng.standard_normal((1, 500, 400)) * p
    samples = signal + p**beta * rng.standard_normal((10, 500, 400))
    image = drus.variance_image(samples)
    assert image.mean() == pytest.approx(p ** (2 * beta), rel=0.01)  # standard error .1 %
    assert image.mean() / image.std() == pytest.approx(np.sqrt(9 / 2), abs=0.03)  # pixel SNR of ten samples
    assert drus.variance_image(samples, beta=beta) == pytest.approx(image ** (1 / (2 * beta)))


def test_variance_is_unbiased_and_of_signed_samples():
    samples = np.stack([np.full((3, 4), 0.7), np.full((3, 4), -0.7)])
    np.testing.assert_allclose(drus.variance_image(samples), 2 * 0.7**2)
    np.testing.assert_allclose(drus.mean(samples), 0)


def test_noise_is_read_in_the_dark():
    rng = np.random.default_rng(0)
    image = rng.standard_normal((96, 96))
    image[30:60, 30:60] *= 0.3
    identity = drus.IdentityOperator(image.shape)
    # Darkest 1 % of blocks of 12 x 12: a minimum of estimates with 10 % spread each, so it reads low.
    assert drus.estimate_noise(identity, image) == pytest.approx(0.3, rel=0.2)
    identity.relative_residual = 2.0
    assert drus.estimate_noise(identity, image) == pytest.approx(2 * np.sqrt(np.mean(image**2)), rel=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"by": np.ones((4, 4))}, "expected the operator's shape"),
        ({"by": np.full((8, 8), np.nan)}, "finite"),
        ({"n_samples": 0}, "n_samples"),
        ({"steps": 1001}, "steps"),
        ({"noise_level": -1.0}, "noise_level"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"by": np.ones((8, 8)), "noise_level": 0.1, **change}
    with pytest.raises(ValueError, match=message):
        drus.sample(drus.IdentityOperator((8, 8)), prior=drus.GaussianPrior(), **arguments)
    with pytest.raises(ValueError, match="at least 2"):
        drus.variance_image(np.ones((1, 4, 4)))
