"""A montage: from echoes to the image, what each transmit shows and what they show together, in one figure."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import to_numpy
from ..beamform import log_compress
from ..demodulation import demodulate
from ..imaging import envelope_image
from ..motion import one_transmit
from ..types import ImageGrid, IQData, RFData
from .describe import describe_waves
from .figures import decibel_bar, draw_channels, image_row, show_grey

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SINGLES = 6  # transmits that are shown alone
ACROSS = 4  # panels in a row


def montage_figure(
    data: RFData,
    grid: ImageGrid,
    dynamic_range_db: float = 40.0,
    iq: IQData | None = None,
    compounded: np.ndarray | None = None,
    n_singles: int = SINGLES,
    **options: Any,
) -> Figure:
    """Return the echoes of one transmit, the images of single transmits, and the compounded one.

    Each image is in dB of its own maximum.

    Parameters
    ----------
    data : RFData
        (n_transmits, n_elements, n_samples), one record.
    grid : ImageGrid
        Pixel centers, m.
    dynamic_range_db : float
        From white to black, dB; 40 by default.
    iq : IQData, optional
        What is beamformed; `demodulate(data)` by default.
    compounded : np.ndarray, optional
        (nz, nx) in [0, 1], where it has been made already.
    n_singles : int
        Transmits at most that are shown alone, evenly spread over the sequence; 6 by default.
    **options
        Those of `delay_and_sum`.

    Returns
    -------
    Figure
    """
    iq = demodulate(data) if iq is None else iq
    n = data.acquisition.n_transmits
    chosen = chosen_transmits(n, n_singles)
    columns = min(ACROSS, len(chosen) + 2)
    rows = math.ceil((len(chosen) + 2) / columns)
    figure, axes = image_row(grid, columns, rows)
    figure.suptitle(f"{data.acquisition.probe.name}, {describe_waves(iq.acquisition)}")
    middle = chosen[len(chosen) // 2]
    draw_channels(axes[0], data, middle)
    axes[0].set_title(f"echoes of {name_of(iq, middle)}")
    for axis, transmit in zip(axes[1:], chosen, strict=False):
        alone = _alone(iq, transmit)
        show_grey(axis, log_compress(to_numpy(envelope_image(alone, grid, **options)), dynamic_range_db), grid)
        axis.set_title(name_of(iq, transmit))
    if compounded is None:
        compounded = log_compress(to_numpy(envelope_image(iq, grid, **options)), dynamic_range_db)
    last = axes[len(chosen) + 1]
    show_grey(last, compounded, grid)
    last.set_title(f"{n} compounded" if n > 1 else "image")
    decibel_bar(figure, last, dynamic_range_db)
    for i, axis in enumerate(axes):
        axis.set_visible(i < len(chosen) + 2)
        if i > 0 and i % columns:
            axis.set_ylabel("")
    return figure


def chosen_transmits(n_transmits: int, most: int) -> list[int]:
    """Return the numbers of transmits at most so many, evenly spread over a sequence, its first and last among them."""
    return [int(i) for i in np.unique(np.round(np.linspace(0, n_transmits - 1, min(most, n_transmits))).astype(int))]


def name_of(data: RFData | IQData, transmit: int) -> str:
    """Return a transmit in words: its number from 0, and its angle where it has one."""
    waves = data.acquisition.waves
    angles = getattr(waves, "angles", None)
    angles = getattr(waves, "tilts", None) if angles is None else angles
    degrees = "" if angles is None else f", {np.rad2deg(np.atleast_1d(angles)[transmit]):.3g}°"
    return f"transmit {transmit}{degrees}"


def _alone(data: IQData, transmit: int) -> IQData:
    """Return the data of one transmit."""
    chosen = slice(transmit, transmit + 1)
    start = data.start_time if np.ndim(data.start_time) == 0 else data.start_times[chosen]
    fired = None if data.firing_times is None else data.firing_times[..., chosen]
    return replace(
        data,
        samples=data.samples[chosen],
        acquisition=one_transmit(data.acquisition, transmit),
        start_time=start,
        firing_times=fired,
    )
