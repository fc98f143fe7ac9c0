"""A picture of some pairs: HQ beside LQ, with axes in mm and a decibel bar."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from ..store.loader import Pairs

ROWS = 4


def preview_figure(pairs: Pairs, probe: str, n_rows: int = ROWS) -> Any:
    """A figure of `n_rows` pairs of one probe, spread over the store; `pairs` holds that probe alone."""
    from ussim import ImageGrid
    from ussim.show.figures import pairs_figure

    from ..plan.recipe import probe_of_record

    imaging = probe_of_record(pairs.attributes["recipe"]["probes"][probe]).imaging
    size = pairs.attributes["recipe"]["size"]
    grid = ImageGrid(x=np.linspace(imaging.x[0], imaging.x[1], size), z=np.linspace(imaging.z[0], imaging.z[1], size))
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(n_rows, len(pairs))).round().astype(int))
    titles = [pairs.samples[i]["id"] for i in chosen]
    return pairs_figure([pairs[int(i)] for i in chosen], grid, pairs.attributes["recipe"]["dynamic_range_db"], titles)


def preview_png(pairs: Pairs, probe: str, n_rows: int = ROWS) -> bytes:
    """`preview_figure` as the content of a PNG file."""
    content = io.BytesIO()
    preview_figure(pairs, probe, n_rows).savefig(content, format="png", dpi=100)
    return content.getvalue()
