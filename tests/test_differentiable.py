"""The simulator as a layer: gradients are the transpose, of any order, over any leading axes."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import ussim
from irsde.differentiable import ImagingLayer, deepinv_physics
from ussim.errors import DataError

PROBE = replace(ussim.load_probe("P4-2v"), n_elements=8)
ACQUISITION = ussim.Acquisition(PROBE, ussim.PlaneWaves(np.deg2rad([-6.0, 6.0])))
GRID = ussim.ImageGrid(x=np.linspace(-3e-3, 3e-3, 4), z=np.linspace(20e-3, 24e-3, 3))


def layer(engine, n_samples=60):
    return ImagingLayer(
        ussim.imaging_operator(
            ACQUISITION, GRID, engine, n_samples=n_samples, start_time=260 / ACQUISITION.sampling_frequency
        )
    )


def test_the_layer_is_the_operator():
    made = layer("cpu")
    image = torch.randn(GRID.shape, generator=torch.Generator().manual_seed(0))
    samples = made(image)
    assert samples.shape == (2, 8, 60)
    assert samples.dtype == torch.float32
    np.testing.assert_array_equal(samples.numpy(), made.operator.forward(image.numpy()).samples)
    np.testing.assert_array_equal(made.adjoint(samples).numpy(), made.operator.adjoint(samples.numpy()))
    assert samples.abs().max() > 0


def test_the_gradient_of_a_misfit_is_the_transpose_of_the_residual():
    made = layer("cpu")
    image = torch.randn(GRID.shape, generator=torch.Generator().manual_seed(1), requires_grad=True)
    measured = made(torch.ones(GRID.shape))
    (0.5 * (made(image) - measured) ** 2).sum().backward()
    with torch.no_grad():
        expected = made.adjoint(made(image) - measured)
    torch.testing.assert_close(image.grad, expected)


def test_gradients_of_first_and_second_order_are_exact():
    """By finite differences, in the float64 of the reference engine."""
    made = layer("reference", 12)
    scale = 1 / float(made(torch.ones(GRID.shape, dtype=torch.float64)).abs().max())
    image = torch.randn((2, *GRID.shape), dtype=torch.float64, requires_grad=True)
    samples = torch.randn((2, 8, 12), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: scale * made(x), image, fast_mode=True)
    assert torch.autograd.gradcheck(lambda y: scale * made.adjoint(y), samples, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: (scale * made(x)) ** 2, image, fast_mode=True)


def test_leading_axes_are_kept():
    made = layer("cpu")
    images = torch.randn((2, 1, *GRID.shape), generator=torch.Generator().manual_seed(2))
    samples = made(images)
    assert samples.shape == (2, 1, 2, 8, 60)
    torch.testing.assert_close(samples[1, 0], made(images[1, 0]))
    assert made.adjoint(samples).shape == images.shape
    assert made(images[:0]).shape == (0, 1, 2, 8, 60)


def test_a_network_learns_through_it():
    """Echoes alone tell a reflectivity: descent through the layer finds it, pixels further apart than they resolve."""
    grid = ussim.ImageGrid(x=[-3e-3, 3e-3], z=[20e-3, 23e-3])
    operator = ussim.imaging_operator(ACQUISITION, grid, "cpu")
    made = ImagingLayer(operator)
    truth = torch.tensor([[1.0, -0.5], [0.25, 2.0]])
    measured = made(truth)
    found = torch.zeros(grid.shape, requires_grad=True)
    optimizer = torch.optim.LBFGS([found], max_iter=30, line_search_fn="strong_wolfe")
    scale = 1 / float((measured**2).sum())

    def misfit():
        optimizer.zero_grad()
        loss = scale * ((made(found) - measured) ** 2).sum()
        loss.backward()
        return loss

    optimizer.step(misfit)
    torch.testing.assert_close(found.detach(), truth, atol=1e-2, rtol=0)


@pytest.mark.parametrize("values", [torch.zeros(3, 5), torch.zeros(4), torch.zeros(3, 4, dtype=torch.int64)])
def test_other_shapes_are_refused(values):
    with pytest.raises(DataError, match=r"expected real values \(\.\.\., 3, 4\), got"):
        layer("cpu")(values)


def test_deepinv_is_given_both_directions(monkeypatch):
    given = {}
    fake = SimpleNamespace(physics=SimpleNamespace(LinearPhysics=lambda **options: given.update(options)))
    monkeypatch.setitem(sys.modules, "deepinv", fake)
    made = layer("cpu")
    deepinv_physics(made.operator, max_iter=5)
    images = torch.randn((2, 1, *GRID.shape))
    samples = given["A"](images, anything=1)
    torch.testing.assert_close(samples, made(images))
    torch.testing.assert_close(given["A_adjoint"](samples), made.adjoint(samples))
    assert given["max_iter"] == 5


@pytest.mark.peer
def test_deepinv_finds_the_transpose():
    pytest.importorskip("deepinv")
    physics = deepinv_physics(layer("cpu").operator)
    assert abs(float(physics.adjointness_test(torch.randn((1, 1, *GRID.shape))))) < 1e-3
