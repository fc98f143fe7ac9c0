"""Movies of B-modes: a picture whose image changes, as an animated GIF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..beamforming.scan_convert import PolarGrid
from ..io.atomic import replacing
from ..types import ImageGrid
from .figures import bmode_figure

FRAMES_PER_SECOND = 10


def save_movie(
    path: str | Path,
    bmodes: Sequence[np.ndarray],
    grid: ImageGrid | PolarGrid,
    dynamic_range_db: float,
    titles: Sequence[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write B-modes of the grid's shape, in [0, 1], as an animated GIF, which appears when it is complete.

    Raises
    ------
    OSError
        The file cannot be written; nothing is left of it.
    """
    from PIL import Image

    figure = bmode_figure(bmodes[0], grid, dynamic_range_db, titles[0])
    axes = figure.axes[0]
    pages = []
    for i, (bmode, title) in enumerate(zip(bmodes, titles, strict=True)):
        axes.images[0].set_data(bmode)
        axes.set_title(title)
        figure.canvas.draw()
        pages.append(Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()).convert("L"))  # type: ignore[attr-defined]
        progress(i + 1, len(bmodes))
    with replacing(path) as temporary:
        pages[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=pages[1:],
            duration=1000 // FRAMES_PER_SECOND,
            loop=0,
            optimize=False,
        )
