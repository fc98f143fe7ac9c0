"""Paired ultrasound datasets from MRI: slices as the clean target, their simulated B-mode as what is to be restored.

    recipe = datagen.Recipe(source="nifti", root="mri/", probes=("L11-5v", "C5-2v"), seed=0)
    datagen.build(recipe, "pairs.zarr")
    hq, lq = datagen.open_pairs("pairs.zarr", probe="L11-5v")[0]

Names are imported when first used, so that `import datagen` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ussim.lazy import attach

_HOME = {
    "ChangedError": "pipeline",
    "DataError": "volumes",
    "Pairs": "loader",
    "Ranges": "randomize",
    "Recipe": "recipe",
    "RecipeError": "recipe",
    "Summary": "pipeline",
    "build": "pipeline",
    "get_source": "sources",
    "open_pairs": "loader",
    "source_names": "sources",
}
__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from .loader import Pairs, open_pairs
    from .pipeline import ChangedError, Summary, build
    from .randomize import Ranges
    from .recipe import Recipe, RecipeError
    from .sources import get_source, source_names
    from .volumes import DataError


__getattr__, __dir__ = attach(__name__, _HOME)
