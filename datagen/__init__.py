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
    "ChangedError": "ussim.errors",
    "DataError": "ussim.errors",
    "Pairs": "store.loader",
    "Ranges": "plan.randomize",
    "Recipe": "plan.recipe",
    "RecipeError": "plan.recipe",
    "Summary": "make.build",
    "build": "make.build",
    "get_source": "sources",
    "open_pairs": "store.loader",
    "source_names": "sources",
    "stream": "make.stream",
}
__all__ = [
    "ChangedError",
    "DataError",
    "Pairs",
    "Ranges",
    "Recipe",
    "RecipeError",
    "Summary",
    "build",
    "get_source",
    "open_pairs",
    "source_names",
    "stream",
]

if TYPE_CHECKING:
    from ussim.errors import ChangedError, DataError

    from .make.build import Summary, build
    from .make.stream import stream
    from .plan.randomize import Ranges
    from .plan.recipe import Recipe, RecipeError
    from .sources import get_source, source_names
    from .store.loader import Pairs, open_pairs
else:  # what is not listed above is unknown to a type checker
    __getattr__, __dir__ = attach(__name__, _HOME)
