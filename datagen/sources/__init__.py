"""Sources of images: one small adapter per collection of MRI, generic ones, and phantoms.

`get_source(name)` gives a `Source` with `.find(root)` and `.load(ref)`; `resolve_root` says where its data is.
"""

from __future__ import annotations

import difflib
import os
from importlib import import_module
from pathlib import Path

from ussim.errors import DataError

from .base import Selection, Source
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
    "phantom": ("phantom", "Phantom"),
    "labels": ("label_maps", "LabelMaps"),
}


def source_names() -> list[str]:
    """Return the names `get_source` takes."""
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
    """Return the folder a source is read from: `root`, else $DATAGEN_ROOT, else the usual names in . and ./data.

    Raises
    ------
    DataError
        There is none; the message says what to download, under which terms, and where to put it.
    """
    source = get_source(source_name)
    if not source.needs_root:
        return Path(root) if root else Path(".")
    if root:
        path, origin = Path(root).expanduser(), "--root"
    elif os.environ.get("DATAGEN_ROOT"):
        path, origin = Path(os.environ["DATAGEN_ROOT"]).expanduser(), "DATAGEN_ROOT"
    else:
        candidates = [Path(base) / folder for folder in source.folders for base in (".", "data")]
        for candidate in candidates:
            if candidate.is_dir():
                return candidate
        looked = f", put it in ./{source.folders[0]} or ./data/{source.folders[0]}, or" if source.folders else ";"
        obtain = f"Get {source.title} from {source.where} ({source.terms})" if source.where else "No folder was named"
        raise DataError(f"{source.name}: no data found. {obtain}{looked} give its folder with --root or DATAGEN_ROOT")
    if not path.exists():
        raise DataError(f"{source.name}: {origin} {path} does not exist; expected {source.layout}")
    return path


def under_terms(source: Source, root: str | Path) -> Source:
    """Return the source whose terms hold for a folder: where files "of one's own" look like a collection, that one."""
    if not source.needs_root or source.name in SIGNATURES:
        return source
    folder = Path(root)
    collection = looks_like(folder if folder.is_dir() else folder.parent)
    return get_source(collection) if collection else source


__all__ = ["Selection", "Source", "get_source", "resolve_root", "source_names", "under_terms"]
