"""Places of pixels: on a Cartesian grid, on a polar one, or at any points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ..doors import own
from ..types import ImageGrid
from .scan_convert import PolarGrid


@dataclass(frozen=True, eq=False)
class PointGrid:
    """Points to beamform at, in any arrangement.

    Attributes
    ----------
    x, z : np.ndarray
        Lateral position and depth, m, of one shape: that of the image.
    shape : tuple of int
        That of the points.

    Raises
    ------
    ValueError
        The arrays have no common shape or no values, or hold values that are not finite.
    """

    x: np.ndarray
    z: np.ndarray

    if TYPE_CHECKING:  # lists and numbers become arrays

        def __init__(self, x: ArrayLike, z: ArrayLike) -> None: ...

    def __post_init__(self) -> None:
        for name in ("x", "z"):
            object.__setattr__(self, name, own(f"PointGrid: {name}", getattr(self, name)))
        if self.x.shape != self.z.shape or self.x.ndim == 0 or self.x.size == 0:
            raise ValueError(
                f"PointGrid: expected x and z of one shape, with values, got {self.x.shape} and {self.z.shape}"
            )
        for name in ("x", "z"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"PointGrid: {name}: expected finite positions in m, got NaN or infinity")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the points, and of an image at them."""
        return self.x.shape

    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x and z of every point, m."""
        return self.x, self.z


AnyGrid: TypeAlias = ImageGrid | PolarGrid | PointGrid
