"""The simulator as a layer of a network: `ussim.imaging_operator` with gradients in PyTorch, and for deepinv."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ussim.errors import DataError
from ussim.extras import needs
from ussim.operator import ImagingOperator


class ImagingLayer(torch.nn.Module):
    """H: reflectivity (..., *image_shape) -> channel data (..., *data_shape), differentiable as often as is asked.

    Its gradient is the exact transpose, so that it costs one more run of the simulator. What is computed, is computed by the
    engine of the operator, in its precision, on its device; tensors come back where they came from.

    Attributes
    ----------
    operator : ImagingOperator
        From `ussim.imaging_operator`.
    """

    def __init__(self, operator: ImagingOperator) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, reflectivity: Tensor) -> Tensor:
        """Simulate the channel data of reflectivities.

        Parameters
        ----------
        reflectivity : Tensor
            (..., *operator.image_shape), real.

        Returns
        -------
        Tensor
            (..., *operator.data_shape), of the dtype and on the device of `reflectivity`.

        Raises
        ------
        DataError
            The last axes are not those of the operator's images.
        """
        return _Apply.apply(_checked(reflectivity, self.operator.image_shape), self.operator, False)

    def adjoint(self, samples: Tensor) -> Tensor:
        """Project channel data on the points: H' y.

        Parameters
        ----------
        samples : Tensor
            (..., *operator.data_shape), real.

        Returns
        -------
        Tensor
            (..., *operator.image_shape), of the dtype and on the device of `samples`.

        Raises
        ------
        DataError
            The last axes are not those of the operator's channel data.
        """
        return _Apply.apply(_checked(samples, self.operator.data_shape), self.operator, True)


def deepinv_physics(operator: ImagingOperator, **options: Any) -> Any:
    """Return the operator as a `deepinv.physics.LinearPhysics`.

    Parameters
    ----------
    operator : ImagingOperator
        From `ussim.imaging_operator`.
    **options
        For `LinearPhysics`: `noise_model`, `max_iter`, ...

    Returns
    -------
    deepinv.physics.LinearPhysics
        Of images (n, 1, nz, nx) and measurements (n, 1, n_transmits, n_elements, n_samples).
    """
    needs("deepinv")
    import deepinv

    layer = ImagingLayer(operator)
    return deepinv.physics.LinearPhysics(
        A=lambda x, **kwargs: layer(x), A_adjoint=lambda y, **kwargs: layer.adjoint(y), **options
    )


class _Apply(torch.autograd.Function):
    """H, or its transpose, whose gradient is the other one."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, operator: ImagingOperator, transposed: bool) -> Tensor:
        ctx.operator, ctx.transposed = operator, transposed
        source, target = operator.image_shape, operator.data_shape
        if transposed:
            source, target = target, source
        run: Callable[[np.ndarray], np.ndarray] = operator.rmatvec if transposed else operator.matvec
        leading = values.shape[: values.ndim - len(source)]
        rows = values.detach().to("cpu", torch.float64).reshape(-1, math.prod(source)).numpy()
        done = np.stack([run(row) for row in rows]) if len(rows) else np.zeros((0, math.prod(target)))
        return torch.from_numpy(done).to(values.device, values.dtype).reshape(*leading, *target)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Apply.apply(gradients[0], ctx.operator, not ctx.transposed), None, None


def _checked(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(values.shape[max(0, values.ndim - len(shape)) :]) != shape or not values.is_floating_point():
        axes = ", ".join(map(str, shape))
        raise DataError(f"expected real values (..., {axes}), got {tuple(values.shape)} {values.dtype}")
    return values
