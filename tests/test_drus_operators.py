"""Operators in their singular basis, and the cache of their factors."""

import logging

import numpy as np
import pytest
from scipy.ndimage import convolve1d

torch = pytest.importorskip("torch")

import ussim  # noqa: E402
from irsde import drus  # noqa: E402
from irsde.drus import cache, operators  # noqa: E402

SHAPE = (24, 20)


def patchwise(shape, patch_shape, seed=0):
    """An operator of random dense patches, and the matrices."""
    corners = operators.patch_corners(shape, patch_shape)
    n = patch_shape[0] * patch_shape[1]
    matrices = np.random.default_rng(seed).standard_normal((len(corners), n, n)) / np.sqrt(n)
    u, s, vt = np.linalg.svd(matrices)
    return drus.PatchwiseOperator(shape, corners, patch_shape, u, s, vt), matrices


def of_kind(kind):
    """An operator and its own matrix as a function on images."""
    rng = np.random.default_rng(1)
    if kind == "separable":
        axial, lateral = rng.standard_normal((24, 24)), rng.standard_normal((20, 20))
        return drus.SeparableOperator(axial, lateral), lambda x: axial @ x @ lateral.T
    if kind == "dense":
        matrix = rng.standard_normal((480, 480))
        return drus.DenseOperator.from_matrix(matrix, SHAPE), lambda x: (matrix @ x.ravel()).reshape(SHAPE)
    if kind == "identity":
        return drus.IdentityOperator(SHAPE), lambda x: x
    operator, matrices = patchwise(SHAPE, (12, 10))

    def blend(x):
        out = np.zeros(SHAPE)
        for matrix, weight, (z, c) in zip(matrices, operator.weights.numpy(), operator.corners, strict=True):
            part = np.s_[z : z + 12, c : c + 10]
            out[part] += weight * (matrix @ x[part].ravel()).reshape(12, 10)
        return out

    return operator, blend


@pytest.mark.parametrize("kind", ["separable", "dense", "patchwise", "identity"])
def test_factors_give_the_operators_own_matrix(kind):
    operator, apply = of_kind(kind)
    x = np.random.default_rng(2).standard_normal(SHAPE)
    expected = apply(x)
    image = torch.as_tensor(x, dtype=torch.float32)
    error = np.linalg.norm(operator.apply(image).numpy() - expected) / np.linalg.norm(expected)
    assert error < 1e-5  # float32
    np.testing.assert_allclose(operator.V(operator.Vt(image)).numpy(), x, atol=1e-5)  # V Vᵀ = I
    stack = operator.apply(torch.stack([image, 2 * image]))  # a stack is treated image by image
    np.testing.assert_allclose(stack[1].numpy(), 2 * expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    if kind != "patchwise":  # an overlapping frame has no Vᵀ V = I
        spectrum = torch.as_tensor(x, dtype=torch.float32).reshape(operator.singular_values.shape)
        torch.testing.assert_close(operator.Ut(operator.U(spectrum)), spectrum, atol=1e-5, rtol=0)


def test_kernels_act_along_their_axes():
    operator = operators.section_iii((32, 40), threshold=0.0)
    offsets = np.arange(-3, 4)
    lateral = np.exp(-(offsets**2) / 2.88)
    axial = (-1.0) ** offsets * lateral
    assert axial.sum() == pytest.approx(-0.002466, rel=1e-3)  # what the axial kernel is divided by: a gain of 1200
    delta = np.zeros((32, 40))
    delta[10, 25] = 1
    expected = convolve1d(
        convolve1d(delta, axial / axial.sum(), 0, mode="constant"), lateral / lateral.sum(), 1, mode="constant"
    )
    answer = operator.apply(torch.as_tensor(delta, dtype=torch.float32)).numpy()
    assert np.linalg.norm(answer - expected) < 1e-5 * np.linalg.norm(expected)
    assert np.abs(answer[10 - 3 : 10 + 4, 25]).min() > 1e-3 * np.abs(answer).max()  # axial along axis 0


@pytest.mark.parametrize(("taps", "null", "condition"), [(6, 0.332, 71), (7, 0.289, 1.7e4)])
def test_null_space_of_the_numerical_study(taps, null, condition):
    operator = operators.section_iii((256, 256), taps=taps, relative=False)
    assert float((operator.singular_values == 0).double().mean()) == pytest.approx(null, abs=5e-4)
    values = operators.section_iii((256, 256), taps=taps, threshold=0.0).singular_values.double()
    assert float(values[:, 0].max() / values[:, 0].min()) == pytest.approx(condition, rel=0.05)


def test_six_taps_are_those_of_the_reference_loop():
    """Output i sums inputs i-3 .. i+2 with taps 0 .. 5: a point at 10 reaches rows 8 to 13."""
    operator = operators.section_iii((32, 40), taps=6, threshold=0.0)
    delta = torch.zeros(32, 40)
    delta[10, 25] = 1
    answer = operator.apply(delta).abs().numpy()
    reached = answer > 1e-4 * answer.max()
    assert np.flatnonzero(reached.any(axis=1)).tolist() == list(range(8, 14))
    assert np.flatnonzero(reached.any(axis=0)).tolist() == list(range(23, 29))


def test_relative_threshold_does_not_depend_on_gain():
    summed = operators.section_iii((64, 64)).singular_values
    plain = operators.section_iii((64, 64), sum_normalized=False).singular_values
    np.testing.assert_array_equal(summed == 0, plain == 0)


def test_nearest_kronecker_of_a_product_is_the_product():
    rng = np.random.default_rng(0)
    a, c = rng.standard_normal(300), rng.standard_normal(200)
    left, right, residual = operators.nearest_kronecker(np.outer(a, c))
    np.testing.assert_allclose(np.outer(left, right), np.outer(a, c), atol=1e-9)
    assert residual < 1e-6
    noisy = np.outer(a, c) + rng.standard_normal((300, 200))
    *_, residual = operators.nearest_kronecker(noisy)
    s = np.linalg.svd(noisy, compute_uv=False)
    assert residual == pytest.approx(np.sqrt(1 - s[0] ** 2 / np.sum(s**2)), rel=1e-6)
    with pytest.raises(ValueError, match="zero"):
        operators.nearest_kronecker(np.zeros((4, 4)))


@pytest.mark.parametrize(("shape", "patch_shape"), [((50, 33), (16, 16)), ((16, 40), (16, 12)), ((8, 8), (8, 8))])
def test_patches_cover_and_their_weights_sum_to_one(shape, patch_shape):
    corners = operators.patch_corners(shape, patch_shape)
    total = np.zeros(shape)
    for (z, x), weight in zip(corners, operators.blend_weights(shape, corners, patch_shape), strict=True):
        total[z : z + patch_shape[0], x : x + patch_shape[1]] += weight
    np.testing.assert_allclose(total, 1)
    for axis in (0, 1):
        starts = np.unique([corner[axis] for corner in corners])
        assert starts[-1] == shape[axis] - patch_shape[axis]
        assert np.all(np.diff(starts) <= patch_shape[axis] / 2)


def test_patches_share_one_noise():
    operator, _ = patchwise(SHAPE, (12, 10))
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(operator.V(operator.Vt(noise)), noise, atol=1e-5, rtol=0)


def test_cache_is_used_and_damage_is_found(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("USSIM_CACHE", str(tmp_path))
    calls = []

    def compute():
        calls.append(1)
        return {"a": np.arange(100.0)}

    for _ in range(2):
        np.testing.assert_array_equal(cache.cached("key", compute)["a"], np.arange(100.0))
    assert len(calls) == 1
    (path,) = tmp_path.iterdir()  # one file, no leftovers
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole.replace(np.float64(50).tobytes(), np.float64(51).tobytes()), b""):
        path.write_bytes(damaged)
        with caplog.at_level(logging.WARNING):
            np.testing.assert_array_equal(cache.cached("key", compute)["a"], np.arange(100.0))
        assert "damaged" in caplog.text
        caplog.clear()
    assert len(calls) == 4


def test_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("USSIM_CACHE", str(tmp_path / "file" / "folder"))
    with caplog.at_level(logging.WARNING):
        assert cache.cached("key", lambda: {"a": np.ones(3)})["a"].sum() == 3
    assert "USSIM_CACHE" in caplog.text


@pytest.mark.parametrize("argument", ["taps", "shapes"])
def test_bad_arguments_are_named(argument):
    if argument == "taps":
        with pytest.raises(ValueError, match="taps"):
            operators.section_iii((8, 8), taps=5)
    else:
        with pytest.raises(ValueError, match="square"):
            drus.SeparableOperator(np.ones((3, 4)), np.eye(3))
        with pytest.raises(ValueError, match="expected U"):
            drus.DenseOperator((2, 2), np.eye(3), np.ones(3), np.eye(3))


def test_what_is_transmitted_and_received_names_the_operator():
    """Each field that shapes BH has a name of its own, and a masked element no gain."""
    from irsde.drus.acoustics import echo_model
    from irsde.drus.build import acquisition_digest

    probe = ussim.Probe("small", 3e6, 0.7, 8, 0.3e-3, 0.25e-3)
    grid = ussim.ImageGrid(np.linspace(-1e-3, 1e-3, 4), np.linspace(8e-3, 10e-3, 5))
    signal, mask = (np.hanning(33) * np.cos(0.9 * np.arange(33)), 20e6), np.arange(8) != 3
    changes = [
        {},
        {"transmit_frequency": 2.5e6},
        {"waveform": signal},
        {"impulse_response": signal},
        {"impulse_response": ussim.ImpulseResponse(*signal, ways=2)},
        {"receive_mask": mask},
    ]
    acquisitions = [ussim.Acquisition(probe, ussim.PlaneWaves(0.0), **change) for change in changes]
    assert len({acquisition_digest(a, grid) for a in acquisitions}) == len(changes)
    _check_every_field(probe, grid, signal, mask, acquisition_digest)
    gains = [echo_model(a, grid).gain for a in (acquisitions[0], acquisitions[-1])]
    assert not gains[1][:, 3].any()
    assert np.array_equal(gains[1][:, mask], gains[0][:, mask])


def _check_every_field(probe, grid, signal, mask, acquisition_digest):
    """A field of `Acquisition` that a cache does not know would serve it stale operators and tables."""
    from dataclasses import fields, replace

    others = {
        "probe": replace(probe, pitch=0.31e-3),
        "waves": ussim.PlaneWaves(0.1),
        "medium": ussim.Medium(1500.0),
        "sampling_frequency": 13e6,
        "n_cycles": 2.0,
        "frequency_sweep": 1e6,
        "threshold_db": -80.0,
        "receive_delays": np.arange(8) * 1e-8,
        "full_frequency_directivity": True,
        "n_subelements": 3,
        "transmit_frequency": 2.5e6,
        "waveform": signal,
        "impulse_response": signal,
        "receive_mask": mask,
        "aberration": ussim.PhaseScreen(40e-9, 5e-3),
        "element_errors": ussim.ElementErrors(1.0),
        "receive_chain": ussim.ReceiveChain(n_bits=8),
    }
    acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(0.0))
    assert {f.name for f in fields(acquisition)} == others.keys()
    changed = [acquisition, *(replace(acquisition, **{name: value}) for name, value in others.items())]
    assert len({a.key() for a in changed}) == len(changed)
    assert len({acquisition_digest(a, grid) for a in changed}) == len(changed)
    again = ussim.Acquisition(replace(probe), ussim.PlaneWaves([0.0]))
    assert (again.key(), acquisition_digest(again, grid)) == (acquisition.key(), acquisition_digest(acquisition, grid))
