"""The whole line in one call: image to B-mode."""

from __future__ import annotations

import numpy as np

from .beamform import delay_and_sum, demodulate, log_compress
from .scatterers import scatterers_from_image
from .simulation import simulate
from .types import Acquisition, ImageGrid


def bmode(
    image: np.ndarray,
    acquisition: Acquisition,
    grid: ImageGrid,
    seed: int | np.random.Generator = 0,
    *,
    mean_distance: float | None = None,
    dynamic_range_db: float = 40.0,
    f_number: float | None = None,
    engine: str = "auto",
) -> np.ndarray:
    """The simulated B-mode of an image, (nz, nx) float32 in [0, 1].

    Scatterers from the image, channel data, demodulation, delay-and-sum, log compression, each with its defaults;
    `dynamic_range_db` is that of the scatterers and of the display.
    """
    scatterers = scatterers_from_image(image, grid, acquisition, seed, mean_distance, dynamic_range_db)
    rf = simulate(scatterers, acquisition, engine)
    return log_compress(delay_and_sum(demodulate(rf), grid, f_number, engine=engine), dynamic_range_db)
