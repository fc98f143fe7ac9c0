"""A picture of some pairs: HQ beside LQ, with axes in mm and a decibel bar."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from ..make.pairs import make_imager
from ..store.loader import Pairs

ROWS = 4


def preview_figure(pairs: Pairs, probe: str, n_rows: int = ROWS) -> Any:
    """Return a figure of `n_rows` pairs of one probe, spread over the store; `pairs` holds that probe alone."""
    from ussim.show.figures import pairs_figure

    grid = make_imager(next(known for known in pairs.recipe.settings if known.probe.name == probe)).grid
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(n_rows, len(pairs))).round().astype(int))
    rows = pairs.samples
    titles = [str(rows[i]["id"]) for i in chosen]
    return pairs_figure([pairs[int(i)] for i in chosen], grid, pairs.recipe.dynamic_range_db, titles)


def preview_png(pairs: Pairs, probe: str, n_rows: int = ROWS) -> bytes:
    """`preview_figure` as the content of a PNG file."""
    content = io.BytesIO()
    preview_figure(pairs, probe, n_rows).savefig(content, format="png", dpi=100, metadata={"Software": "ussim"})
    return content.getvalue()
