"""The whole line in one call: image to B-mode."""

from __future__ import annotations

import numpy as np

from .beamform import delay_and_sum, demodulate, log_compress
from .receive import time_gain_compensation
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
    scatterer_range_db: float | None = None,
    f_number: float | None = None,
    frequency: float | None = None,
    bandwidth: float | None = None,
    tgc: bool = False,
    engine: str = "auto",
) -> np.ndarray:
    """The simulated B-mode of an image, (nz, nx) float32 in [0, 1].

    Scatterers from the image, channel data, demodulation, delay-and-sum, log compression, each with its defaults.

    Parameters
    ----------
    mean_distance : between scatterers, m (see `scatterers_from_image`).
    dynamic_range_db : of the display, from white to black.
    scatterer_range_db : of the scatterers, from white to black of the image; default `dynamic_range_db`.
    f_number : of the receive aperture (see `delay_and_sum`).
    frequency, bandwidth : carrier (Hz) and pass band (a fraction of it) of `demodulate`. The default, the probe's band,
        makes a point longer in depth than its pulse; 2 leaves the pulse as it is.
    tgc : whether to compensate the medium's attenuation (see `time_gain_compensation`).
    """
    scatterer_range_db = dynamic_range_db if scatterer_range_db is None else scatterer_range_db
    scatterers = scatterers_from_image(image, grid, acquisition, seed, mean_distance, scatterer_range_db)
    rf = simulate(scatterers, acquisition, engine)
    if tgc:
        time_gain_compensation(rf, frequency=frequency, in_place=True)
    iq = demodulate(rf, frequency, bandwidth)
    return log_compress(delay_and_sum(iq, grid, f_number, engine=engine), dynamic_range_db)
