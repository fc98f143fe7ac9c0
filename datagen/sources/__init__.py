"""Where MRI comes from: one small adapter a collection, and four generic ones.

`get_source(name)` gives a `Source` with `.find(root)` and `.load(ref)`; `resolve_root` says where its data is.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from pathlib import Path

from ussim.errors import DataError

from .base import Selection, Source, resolve
from .known import SIGNATURES, looks_like

# name -> module and class; a module is imported when its source is asked for.
_SOURCES = {
    "demo": ("demo", "Demo"),
    "mrnet": ("mrnet", "MRNet"),
    "duke-liver": ("duke_liver", "DukeLiver"),
    "brainmetshare": ("brainmetshare", "BrainMetShare"),
    "duke-breast": ("duke_breast", "DukeBreast"),
    "umd": ("umd", "UMD"),
    "nifti": ("generic", "Nifti"),
    "dicom": ("generic", "Dicom"),
    "npy": ("generic", "Npy"),
    "image": ("generic", "Image"),
}


def source_names() -> list[str]:
    """The names `get_source` takes."""
    return list(_SOURCES)


def get_source(name: str, selection: Selection | None = None) -> Source:
    """Return the source of that name; raises DataError with the near misses where there is none."""
    if name not in _SOURCES:
        near = difflib.get_close_matches(name, _SOURCES, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise DataError(f"unknown source {name!r}{hint}; expected one of {', '.join(_SOURCES)}")
    module, cls = _SOURCES[name]
    source: Source = getattr(import_module(f"{__name__}.{module}"), cls)()
    source.selection = selection or Selection()
    return source


def resolve_root(source_name: str, root: str | Path | None) -> Path:
    """The folder a source is read from: `root`, else $DATAGEN_ROOT, else the usual names in . and ./data."""
    return resolve(get_source(source_name), root)


def under_terms(source: Source, root: str | Path) -> Source:
    """Return the source whose terms hold for a folder: where files "of one's own" look like a collection, that one."""
    if not source.needs_root or source.name in SIGNATURES:
        return source
    folder = Path(root)
    collection = looks_like(folder if folder.is_dir() else folder.parent)
    return get_source(collection) if collection else source


__all__ = ["Selection", "Source", "get_source", "resolve_root", "source_names", "under_terms"]
