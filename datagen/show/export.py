"""Pairs in forms that others read: a folder of PNG files, or WebDataset shards, with a dataset card.

Refused where the source forbids passing its images on: what is simulated from an image is a derivative of it.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ussim.errors import DataError

from ..plan.resolved import array_name
from ..store import layout
from ..store.layout import Row, Terms
from ..store.loader import Pairs, open_pairs

FORMATS = ("png", "webdataset")
OWN = ("nifti", "dicom", "npy", "image")  # sources of the user's own files: who owns them says what may be done
PER_TAR = 1000  # pairs


class LicenceError(DataError):
    """The source forbids what was asked for."""


def export(
    path: str | Path,
    out: str | Path,
    kind: str,
    *,
    probe: str | None = None,
    licence: str | None = None,
    overwrite: bool = False,
    on_pair: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write the pairs of a finished store to a new folder.

    Parameters
    ----------
    kind : "png": hq/*.png, lq/<PROBE>/*.png, mask/, samples.csv; "webdataset": pairs-000000.tar with
        <key>.hq.png, <key>.lq.png, <key>.mask.png and <key>.json.
    probe : of the images, None = all.
    licence : under which you pass on files of your own; a collection's licence cannot be replaced.
    overwrite : replace the folder where an export is in it; anything else there is left alone.
    on_pair : called with the number of pairs written and their total.

    Raises
    ------
    LicenceError
        A source of the store forbids redistribution.
    DataError
        The folder is there already.
    OSError
        It cannot be written; nothing is left of it.
    """
    if kind not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {kind!r}")
    pairs = open_pairs(path, probe=probe)
    licences = check_licence(pairs.sources, licence)
    out = Path(out)
    if out.exists() and not (overwrite and _is_export(out)):
        instead = "" if overwrite or not _is_export(out) else ", or give --overwrite"
        raise DataError(f"{out}: is there already; choose another folder{instead}")
    temporary = out.with_name(f".{out.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        writer = _write_folder if kind == "png" else _write_tars
        writer(pairs, temporary, on_pair)
        (temporary / "README.md").write_text(card(pairs, licences, kind), encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def _is_export(folder: Path) -> bool:
    """Return whether a folder is what `export` writes: a card that names this program, and nothing of Zarr's."""
    card = folder / "README.md"
    is_ours = card.is_file() and "datagen" in card.read_text(encoding="utf-8", errors="replace")
    return is_ours and not (folder / "zarr.json").exists()


def check_licence(sources: Sequence[Terms], licence: str | None) -> list[str]:
    """Return the licences that the images are passed on under; raises LicenceError where they may not be."""
    licences = []
    for source in sources:
        if source.name in OWN:
            licences.append(licence or source.licence)
        elif source.redistributable:
            licences.append(source.licence)
        else:
            raise LicenceError(
                f"{source.title}: export refused: its images, and what is simulated from them, may not be passed on "
                f"({source.licence}; {source.terms})"
            )
    return sorted(set(licences))


def card(pairs: Pairs, licences: list[str], kind: str) -> str:
    """Return a dataset card: YAML that hubs read, then what a person wants to know."""
    attributes, recipe = pairs.attributes, pairs.recipe
    subjects = len({(row["source"], row["subject"]) for row in pairs.samples})
    title = "MRI and simulated ultrasound pairs"
    masks = "mask/<PROBE>/<key>.png" if pairs.has_own_masks else "mask/<PROBE>.png"
    size = next(name for limit, name in _SIZES if len(pairs) < limit)
    lines = [
        "---",
        "license: other",
        f"license_name: {json.dumps('; '.join(licences))}",
        f"pretty_name: {json.dumps(title + ' (' + attributes['source'] + ')')}",
        f"size_categories: [{size}]",
        "task_categories: [image-to-image]",
        "tags: [ultrasound, speckle, simulation, MRI]",
        "---",
        "",
        f"# {title}",
        "",
        f"{len(pairs)} pairs of {subjects} subjects, {recipe.size} x {recipe.size} pixels, 8-bit grey: a slice of "
        f"MRI (HQ) and its simulated B-mode (LQ) under {', '.join(pairs.probes)}, pixel for pixel on one grid.",
        "",
        f"Simulated with the engine {recipe.engine}: {recipe.dynamic_range_db:g} dB, attenuation "
        f"{recipe.attenuation_db_cm_mhz:g} dB/cm/MHz, seed {recipe.seed}. Simulations: not for diagnosis.",
        "",
        "## Files",
        "",
        {
            "png": f"`hq/<key>.png`, `lq/<PROBE>/<key>.png`, `{masks}`; `samples.csv` has a row for each key.",
            "webdataset": "`pairs-*.tar` with `<key>.hq.png`, `<key>.lq.png`, `<key>.mask.png` and `<key>.json`.",
        }[kind],
        "A mask is white where a pixel lies inside the field of the probe.",
        "Subjects are kept apart by `fold`: split by it, not at random.",
        "",
        "## Sources",
        "",
    ]
    for source in pairs.sources:
        lines.append(f"- {source.title}. Licence: {source.licence}. Terms: {source.terms}. Cite: {source.citation}")
    lines += ["", f"Digest of the store: `{attributes['digest']}`", ""]
    return "\n".join(lines)


_SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"), (10**12, "n>1M"))


def _write_folder(pairs: Pairs, out: Path, on_pair: Callable[[int, int], None]) -> None:
    for done, (row, hq, lq) in enumerate(_images(pairs), start=1):
        key = _key(row)
        for place, image in (("hq", hq), (f"lq/{array_name(str(row['probe']))}", lq)):
            path = out / place / f"{key}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():  # one HQ serves all probes
                path.write_bytes(_png(image))
        name = array_name(str(row["probe"]))
        path = out / (f"mask/{name}/{key}.png" if pairs.has_own_masks else f"mask/{name}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(_png(pairs.mask(done - 1)))
        on_pair(done, len(pairs))
    rows: dict[str, Row] = {}
    for row in pairs.samples:
        rows[str(row["id"])] = {"key": _key(row), **{k: v for k, v in row.items() if k != "probe"}}
    (out / layout.SAMPLES).write_text(layout.format_table(list(rows.values())), encoding="utf-8")


def _write_tars(pairs: Pairs, out: Path, on_pair: Callable[[int, int], None]) -> None:
    images = _images(pairs)
    done = 0
    for number in range(-(-len(pairs) // PER_TAR)):
        with tarfile.open(out / f"pairs-{number:06d}.tar", "w") as tar:
            for _ in range(min(PER_TAR, len(pairs) - done)):
                row, hq, lq = next(images)
                key = f"{_key(row)}__{array_name(str(row['probe']))}".replace(".", "_")  # a dot would end the key
                for suffix, content in (
                    ("hq.png", _png(hq)),
                    ("lq.png", _png(lq)),
                    ("mask.png", _png(pairs.mask(done))),
                    ("json", json.dumps(row).encode()),
                ):
                    entry = tarfile.TarInfo(f"{key}.{suffix}")  # no time, no owner: the same pairs are the same file
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
                done += 1
                on_pair(done, len(pairs))


def _images(pairs: Pairs) -> Iterator[tuple[Row, np.ndarray, np.ndarray]]:
    """Row, hq and lq of each pair, read a shard at a time."""
    rows = pairs.samples
    step = max(1, pairs.samples_per_shard * len(pairs.probes))
    for first in range(0, len(pairs), step):
        indices = np.arange(first, min(first + step, len(pairs)))
        yield from zip((rows[i] for i in indices), *pairs.read(indices), strict=True)


def _key(row: Row) -> str:
    """Return a sample's name as that of a file."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in str(row["id"]).replace("/", "__"))


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(image).save(content, format="PNG")
    return content.getvalue()
