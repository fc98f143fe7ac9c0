"""Pairs in forms that others read, each with a dataset card, a licence file and a picture.

    items ─► png | webdataset | parquet | nifti | openh_rf ─► card

Refused where the source forbids passing its images on: what is simulated from an image is a derivative of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from ussim.errors import DataError

from ...store.loader import open_pairs
from . import card
from .items import Shown
from .terms import LicenceError, check_licence, licence_text

FORMATS = ("png", "webdataset", "parquet", "nifti", "openh-rf")

__all__ = ["FORMATS", "LicenceError", "check_licence", "export"]


def export(
    path: str | Path,
    out: str | Path,
    kind: str,
    *,
    probe: str | None = None,
    licence: str | None = None,
    test_fold: int = 0,
    polar: bool = False,
    root: tuple[str | None, ...] | None = None,
    creator: str | None = None,
    url: str | None = None,
    on_pair: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write the pairs of a finished store to a new folder.

    Parameters
    ----------
    kind : one of FORMATS. "png": train/ and test/ with metadata.csv; "webdataset": tars; "parquet": Hugging Face's images,
        with Croissant metadata; "nifti": .nii.gz in mm; "openh-rf": zea HDF5 of the channel data, simulated again.
    probe : of the images, None = all.
    licence : under which you pass on files of your own; a collection's licence cannot be replaced.
    test_fold : the fold that is the split "test"; the others are "train".
    polar : beside the images of sector probes also those of their largest sector in polar coordinates.
    root : of each source, to simulate again what its HQ image alone does not describe ("openh-rf").
    creator, url : of the dataset, for its Croissant metadata.
    on_pair : called with the number of pairs written and their total.

    Raises
    ------
    LicenceError
        A source of the store forbids redistribution.
    DataError
        The folder is there already, or the store has no such fold.
    OSError
        It cannot be written; nothing is left of it.
    """
    if kind not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {kind!r}")
    pairs = open_pairs(path, probe=probe)
    terms = check_licence(pairs.sources, licence)
    if not 0 <= test_fold < pairs.n_folds:
        raise DataError(f"test_fold: expected 0 to {pairs.n_folds - 1}, got {test_fold}")
    out = Path(out)
    if out.exists():
        raise DataError(f"{out}: is there already; choose another folder")
    shown = Shown(pairs, out.name, terms, test_fold, polar, root, creator, url)
    write = import_module(f"{__name__}.{kind.replace('-', '_')}").write
    temporary = out.with_name(f".{out.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        page = write(shown, temporary, on_pair)
        picture = card.PICTURE if card.write_picture(open_pairs(path, probe=pairs.probes[0]), temporary) else ""
        page = replace(page, picture=picture)
        (temporary / page.licence_file).write_text(licence_text(terms, pairs.sources), encoding="utf-8")
        (temporary / "README.md").write_text(card.text(shown, page), encoding="utf-8")
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out
