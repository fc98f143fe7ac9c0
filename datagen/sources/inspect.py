"""Contents of a folder: which collection, how many volumes and subjects, and what is odd about it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ussim.errors import DataError
from ussim.volumes.files import walk
from ussim.volumes.volume import Found

from . import Selection, get_source, under_terms
from .base import NothingFound
from .known import archives

# Collections first: their trees also look like generic ones.
_COLLECTIONS = ("mrnet", "brainmetshare", "duke-breast", "umd", "duke-liver")
_SHOWN = 10  # lines of a kind, so that the report stays a page
_GENERIC = ("nifti", "dicom", "npy", "image")


@dataclass(frozen=True)
class Inspection:
    """The result of looking at one folder."""

    root: str
    source: str  # what to pass as --source
    title: str
    n_volumes: int
    n_subjects: int
    subjects: tuple[str, ...]  # how it was told whose each volume is, a line per rule
    oddities: tuple[str, ...]  # of the collection, then of single volumes with how many have each
    skipped: tuple[tuple[str, int, str], ...]  # reason, how many, the first path
    examples: tuple[str, ...]  # names of the first volumes
    also: tuple[tuple[str, int], ...]  # other sources that would read this folder, with their number of volumes
    licence: str
    citation: str
    terms: str
    redistributable: bool
    sizes: tuple[tuple[str, int], ...] = ()  # size, voxel size and series of the volumes, how many of each
    is_own: bool = False  # files of one's own, whose terms their owner knows

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}

    def lines(self) -> list[str]:
        """Return the report as text."""
        passed_on = "may be passed on under these terms" if self.redistributable else "are not to be passed on"
        lines = [
            f"{self.root}: {self.title} (--source {self.source})",
            f"  {_count(self.n_volumes)} of {_count(self.n_subjects, 'subject')}: {', '.join(self.examples)}"
            + (", ..." if self.n_volumes > len(self.examples) else ""),
        ]
        lines += [f"  size: {size} ({_count(count)})" for size, count in self.sizes[:_SHOWN]]
        lines += [f"  subjects: {rule}" for rule in self.subjects]
        lines += [f"  odd: {oddity}" for oddity in self.oddities[:_SHOWN]]
        lines += [f"  skipped: {count} x {reason} (first: {path})" for reason, count, path in self.skipped[:_SHOWN]]
        for what, entries in (("sizes", self.sizes), ("odd", self.oddities), ("skipped", self.skipped)):
            if len(entries) > _SHOWN:
                lines.append(f"  {what}: {len(entries) - _SHOWN} more lines; --json has them all")
        lines += [f"  also readable with --source {source}: {_count(count)}" for source, count in self.also]
        if self.is_own:
            return lines
        lines += [
            f"  licence: {self.licence}",
            f"  terms: {self.terms}; derived images {passed_on}",
            f"  cite: {self.citation}",
        ]
        return lines


def inspect(root: str | Path, selection: Selection | None = None) -> Inspection:
    """Recognize the collection under `root` and list what was found and what is odd. Reads names and headers only.

    Raises
    ------
    DataError
        The folder does not exist, or nothing in it can be used.
    """
    path = Path(root).expanduser()
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    hits: list[tuple[str, Found]] = []
    fault: DataError | None = None
    why = ""
    for name in (*_COLLECTIONS, *_GENERIC):
        if hits and (hits[0][0] in _COLLECTIONS):
            break
        try:
            hits.append((name, get_source(name, selection).find(path)))
        except NothingFound as error:
            if name != "dicom":  # which looks at every file, whatever it is called
                why = why or error.reason
            continue
        except DataError as error:
            if name in _COLLECTIONS:  # something is wrong with it; it is not a folder of one's own for that
                raise
            fault = fault or error
    if not hits and fault:
        raise fault
    if not hits:
        said = _kinds(path) + (f", {why}" if why else "")
        packed = [item.path for item in archives(path)]
        count = _count(len(packed), "packed archive")
        raise DataError(
            f"{path}: no MRI found, but {count} (the first: {packed[0]}): unpack and look again"
            if packed
            else f"{path}: no MRI found{said}; expected a known collection ({', '.join(_COLLECTIONS)}) or NIfTI, "
            "DICOM, NPY or picture files"
        )
    # Of the generic sources the one with most files, since a picture or two beside a DICOM tree is common.
    hits.sort(key=lambda hit: -sum(len(ref.paths) for ref in hit[1]))
    name, found = hits[0]
    source = under_terms(get_source(name), path)
    notes = Counter(note for ref in found for note in ref.notes)
    skipped = Counter(item.counted_as for item in found.skipped)
    first = {item.counted_as: item.shown for item in reversed(found.skipped)}
    return Inspection(
        root=str(root),
        source=name,
        title=get_source(name).title,
        n_volumes=len(found),
        n_subjects=len({ref.subject for ref in found}),
        subjects=found.subjects,
        oddities=(*found.notes, *(f"{note} ({_count(count)})" for note, count in notes.most_common())),
        skipped=tuple((reason, count, first[reason]) for reason, count in skipped.most_common()),
        examples=tuple(ref.name for ref in found.refs[:5]),
        also=tuple((other, len(hit)) for other, hit in hits[1:]),
        licence=source.licence,
        citation=source.citation,
        terms=source.terms,
        redistributable=source.redistributable,
        sizes=tuple(Counter(ref.described for ref in found if ref.described).most_common()),
        is_own=name in _GENERIC and source.licence == get_source(name).licence,
    )


def _kinds(root: Path) -> str:
    """Return what lies under a folder by suffix, most frequent first: " in 12 files (7 .xml, 5 .txt)"."""
    kinds = Counter(_suffix(path.name) for path in walk(root))
    if not kinds:
        return ": no file in it"
    said = ", ".join(
        f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]
    )
    more = f", {len(kinds) - _SHOWN} more kinds" if len(kinds) > _SHOWN else ""
    return f" in {_count(kinds.total(), 'file')} ({said}{more})"


def _suffix(name: str) -> str:
    """Return the last words of a name that say its kind; the numbers that end a name like MR.1.3.12 do not."""
    found = re.search(r"\.[a-z0-9]*[a-z][a-z0-9]*(\.(gz|bz2|xz|zip))?$", name.lower())
    return found.group() if found and found.start() else "without suffix"


def _count(number: int, what: str = "volume") -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
