"""DICOM files to volumes: grouping by series, ordering by position. Nothing personal is kept.

`scan_dicom` reads headers only and sorts files into series that are one volume each; `load_dicom` reads one of them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .anatomy import derived_by_type
from .budget import check_values
from .damage import told, told_of_ref, without_path
from .dicom_checks import check_claims
from .dicom_geometry import placed, step_between
from .dicom_headers import frames_of, montage_or_none, read_header, why_not, why_uncut
from .dicom_pixels import decode, digest_of_pixels, is_lost
from .files import relative
from .grouping import Frame, Grouping, Stack, group, split_label
from .values import filled_outside
from .volume import Skipped, Volume, VolumeRef, described

_CUT_SHORT = "cut short: pixels are missing"
_Key = tuple[Any, ...]
_GAP = "{count} of {n} slices cannot be read: left out, the volume has a gap"


def scan_dicom(
    files: Iterable[str | os.PathLike[str]],
    root: str | Path,
    source: str,
    include_derived: bool = False,
    choose: Callable[[int], Sequence[int]] = range,
    notes_of_all: list[str] | None = None,
) -> tuple[list[VolumeRef], list[Skipped]]:
    """Sort files into volumes by their headers.

    A series is split where orientation, matrix or pixel size change, and where one position is imaged more than once
    (phases, echoes, b-values); of so many stacks of the same slices, those in `choose(count)` are kept. What is no grey
    MR (or CT) image is skipped with a reason. What speaks against the PatientIDs is added to `notes_of_all`.
    """
    series: dict[tuple[Any, ...], list[Frame]] = defaultdict(list)
    cut_short: set[str] = set()
    identity: dict[tuple[Any, ...], Any] = {}
    skipped: list[Skipped] = []
    for file in files:
        path = os.fspath(file)
        shown = relative(path, root)
        try:
            with told(path):
                header = read_header(path)
                if header is None:
                    raise DataError("not a DICOM file")
                if reason := why_not(header, include_derived):
                    raise DataError(reason)
                check_claims(header, path, path)
                frames = frames_of(header, path)
                key = _key_of(header, path, shown)
        except DataError as error:  # of this file alone: the others are read
            skipped.append(Skipped(shown, without_path(error, path)))
            continue
        series[key] += frames
        cut_short |= {path} if header.is_cut_short else set()
        identity.setdefault(key, header)

    _drop_copies_of_files(series, skipped, root)
    joined = _join_single_images(series, identity)
    _drop_empty(series)

    refs = []
    studies: set[tuple[str, str]] = set()  # (PatientID, study) of the volumes
    used: dict[str, int] = defaultdict(int)
    for key in sorted(series):
        header = identity[key]
        subject = subject_of(header, relative(series[key][0].path, root))
        base = f"{subject}-s{_short_hash('series', str(header.get('SeriesInstanceUID') or key[2]))}"
        notes = ["a SeriesInstanceUID of its own in each slice: joined by study, number and geometry"] * (key in joined)
        if str(header.get("BurnedInAnnotation", "")).upper() == "YES":
            notes.append("BurnedInAnnotation is YES: text, perhaps a name, may be part of the picture")
        grouping = _grouped(series[key])
        skipped += [_copy(frame.path, original.path, root) for frame, original in grouping.copies]
        skipped += [Skipped(relative(frame.path, root), reason) for frame, reason in grouping.strays]
        if grouping.copies:
            notes.append(_sent_twice(grouping))
        stacks = [stack.frames for stack in grouping.stacks]
        if len(stacks) > 1:
            notes.append(f"a series of {len(stacks)} stacks (orientations, phases, echoes): split into as many volumes")
        if is_localizer(stacks):
            reason = f"localizer: three directions at right angles, {len(series[key])} images"
            skipped.append(Skipped(relative(series[key][0].path, root), reason))
            continue
        usable: list[int] = []
        for number, stack in enumerate(stacks):
            # A multi-frame file says per frame what it is: its root says MIXED. A stack is of one kind.
            if include_derived or not (why := _derived(stack[0])):
                if not is_lost(stack, sum(frame.path in cut_short for frame in stack)):
                    usable.append(number)
                    continue
                skipped += [Skipped(path, _CUT_SHORT) for path in sorted({relative(f.path, root) for f in stack})]
            else:
                skipped += [Skipped(relative(frame.path, root), why) for frame in stack]
        kept = _chosen(stacks, usable, choose)
        for number in sorted(set(usable) - kept):
            reason = "another echo, phase, b-value or time point of the same slices (all of them: --frames all)"
            skipped.append(Skipped(relative(stacks[number][0].path, root), reason))
        for number, stack in enumerate(stacks):
            if number not in kept:
                continue
            used[base] += 1
            lost = sum(frame.path in cut_short for frame in stack)
            gap = (_GAP.format(count=lost, n=len(stack)),) if lost else ()
            studies.add((str(key[0]), str(key[1]) or str(Path(relative(series[key][0].path, root)).parent)))
            refs.append(
                VolumeRef(
                    source=source,
                    subject=subject,
                    name=base if used[base] == 1 else f"{base}-{used[base]}",
                    # All files where frames share files, so that `part` counts the same stacks when they are read.
                    paths=tuple(dict.fromkeys(frame.path for frame in (series[key] if key[-1] else stack))),
                    part=number if key[-1] else 0,  # a multi-frame file holds every stack: say which
                    notes=(*notes, *grouping.stacks[number].notes, *gap),
                    splits=grouping.stacks[number].splits,
                    described=_described(header, stack),
                )
            )
    if notes_of_all is not None:
        notes_of_all += _doubts_of_patients(studies)
    return refs, skipped


def _described(header: Any, stack: Sequence[Frame]) -> str:
    """Return what a volume is, by its headers, for whoever looks."""
    first = stack[0]
    spacing = (*(first.pixel_spacing or (None, None)), first.thickness)
    if first.position is not None and first.cosines is not None:
        spacing = (*spacing[:2], step_between(stack)[0])
    shape = (int(header.Rows), int(header.Columns), len(stack))
    montage = montage_or_none(header)
    if montage:
        shape = (shape[0] // montage.down, shape[1] // montage.across, shape[2])
    return described(shape, spacing, str(header.get("SeriesDescription") or ""))


def _key_of(header: Any, path: str, shown: str) -> _Key:
    """Return what the files of one series share."""
    several = int(header.get("NumberOfFrames") or 1) > 1
    return (
        *(str(header.get(name) or "").strip() for name in ("PatientID", "StudyInstanceUID")),
        str(header.get("SeriesInstanceUID") or Path(shown).parent),
        int(header.Rows),
        int(header.Columns),
        str(header.get("ConcatenationUID") or path) if several else "",  # its parts are one volume
    )


def _doubts_of_patients(studies: Iterable[tuple[str, str]], most_visits: int = 3) -> list[str]:
    """Return a line on PatientIDs that say little: empty, or shared by more studies than a person's visits.

    No ID is named.
    """
    count = Counter(patient for patient, _ in studies)
    doubts = []
    if count[""]:
        doubts.append(f"empty in {count['']} of {count.total()} studies (each taken for a person)")
    shared = [number for patient, number in count.items() if patient and number > most_visits]
    if shared:
        each = (
            f"{len(shared)} shared by {sum(shared)} studies"
            if len(shared) > 1
            else f"one shared by {shared[0]} studies"
        )
        doubts.append(f"{each} (taken for one person{' each' * (len(shared) > 1)})")
    return [f"PatientID: {'; '.join(doubts)}; if that is wrong, --subjects says who is whom"] if doubts else []


def is_localizer(stacks: Sequence[Sequence[Frame]], most_slices: int = 15) -> bool:
    """Return True for a series of three orthogonal directions of few slices each, whatever it is called."""
    directions: list[np.ndarray] = []
    for stack in stacks:
        if len(stack) > most_slices or stack[0].cosines is None:
            return False
        normal = np.cross(stack[0].cosines[:3], stack[0].cosines[3:])
        if not any(abs(float(normal @ other)) > 0.9 for other in directions):
            directions.append(normal)
    angles = [abs(float(a @ b)) for n, a in enumerate(directions) for b in directions[:n]]
    return len(directions) == 3 and max(angles) < 0.3


def _drop_copies_of_files(series: dict[_Key, list[Frame]], skipped: list[Skipped], root: str | Path) -> None:
    """Empty the series of a multi-frame file whose frames all repeat another file's: geometry and pixels."""
    alike: dict[Any, list[_Key]] = defaultdict(list)
    for key, frames in series.items():
        if key[-1]:
            geometry = tuple((frame.index, frame.position, frame.cosines, frame.phase) for frame in frames)
            alike[key[:-1], geometry].append(key)
    for keys in alike.values():
        digest, seen = digest_of_pixels(), dict[tuple[str, ...], str]()
        for key in keys if len(keys) > 1 else ():
            pixels, path = tuple(digest(frame) for frame in series[key]), series[key][0].path
            if any(pixels) and seen.setdefault(pixels, path) != path:
                skipped.append(_copy(path, seen[pixels], root))
                series[key] = []


def _copy(path: str, original: str, root: str | Path) -> Skipped:
    reason = f"the same image as {relative(original, root)}"
    return Skipped(relative(path, root), reason, "the same image as another file (equal position and pixels)")


def _sent_twice(grouping: Grouping) -> str:
    count = len(grouping.copies)
    return f"{count} image{'s' * (count != 1)} sent twice (equal position and pixels): used once"


def _join_single_images(series: dict[_Key, list[Frame]], identity: dict[_Key, Any]) -> set[_Key]:
    """Join series of one image each that share patient, study, number and geometry; return the keys of the joined."""
    alike: dict[Any, list[_Key]] = defaultdict(list)
    for key, frames in series.items():
        if len(frames) == 1 and not key[-1]:
            frame, header = frames[0], identity[key]
            words = tuple(str(header.get(name) or "") for name in ("SeriesNumber", "SeriesDescription"))
            alike[key[:2], key[3:], words, frame.cosines, frame.pixel_spacing].append(key)
    joined = set()
    for keys in alike.values():
        positions = {series[key][0].position for key in keys}
        if len(keys) > 2 and len(positions) > 2 and None not in positions:
            series[keys[0]] = [frame for key in keys for frame in series[key]]
            series.update({key: [] for key in keys[1:]})
            joined.add(keys[0])
    return joined


def _drop_empty(series: dict[_Key, list[Frame]]) -> None:
    for key in [key for key, frames in series.items() if not frames]:
        del series[key]


def _derived(frame: Frame) -> str:
    return derived_by_type(re.findall(r"[^'\[\],]+", frame.phase[0]))


def _grouped(frames: Sequence[Frame]) -> Grouping:
    """Stacks of plain images first, then of each kind of derived ones: neither decides how the other is sorted."""
    kinds: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        kinds[_derived(frame)].append(frame)
    if len(kinds) == 1:
        return group(frames, digest_of_pixels())
    stacks: list[Stack] = []
    copies: list[tuple[Frame, Frame]] = []
    strays: list[tuple[Frame, str]] = []
    for kind in sorted(kinds):
        part = group(kinds[kind], digest_of_pixels())
        said = (("ImageType", kind or "plain"),)
        stacks += [replace(stack, splits=(*said, *stack.splits)) for stack in part.stacks]
        copies += part.copies
        strays += part.strays
    return Grouping(tuple(stacks), tuple(copies), tuple(strays))


def _chosen(
    stacks: Sequence[Sequence[Frame]], usable: Sequence[int], choose: Callable[[int], Sequence[int]]
) -> set[int]:
    """Return the numbers of the stacks that are kept: of those that image the same slices, as `choose` says."""
    places: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for number in usable:
        first, last = stacks[number][0], stacks[number][-1]
        depths = [None if frame.depth() is None else round(frame.depth() or 0.0) for frame in (first, last)]
        place = (first.pixel_spacing, first.cosines and tuple(round(value, 2) for value in first.cosines), *depths)
        places[place if depths[0] is not None else (number,)].append(number)
    return {numbers[index] for numbers in places.values() for index in choose(len(numbers))}


@told_of_ref
def load_dicom(ref: VolumeRef, voi: bool = False) -> Volume:
    """Read one volume: modality LUT, VOI where asked, MONOCHROME1 inverted, slices by position, closest canonical axes.

    Raises
    ------
    DataError
        A file is missing, damaged, in color, or its compression has no decoder here.
    """
    frames: list[Frame] = []
    largest = 0
    for path in ref.paths:
        number = ref.paths.index(path) + 1
        header = read_header(path)
        if header is None:
            raise DataError(f"{ref.name}: file {number} of {len(ref.paths)} is not a readable DICOM file")
        check_claims(
            header, path, ref.name if len(ref.paths) == 1 else f"{ref.name}: file {number} of {len(ref.paths)}"
        )
        frames += frames_of(header, path)
        largest = max(largest, int(header.Rows) * int(header.Columns))
        if uncut := why_uncut(header):  # opened by name: what is looked for in a folder was refused before
            ref = replace(ref, notes=(*ref.notes, uncut))
    grouping = _grouped(frames)
    if ref.part >= len(grouping.stacks):
        raise DataError(f"{ref.name}: part {ref.part} asked for; the files hold {len(grouping.stacks)}")
    stack = grouping.stacks[ref.part]
    if not ref.splits and (len(ref.paths) > 1 or ref.source == "file"):  # files that nobody has sorted yet
        ref = replace(ref, notes=(*ref.notes, *_what_is_left(grouping, ref.part), *stack.notes))
    check_values(ref.name, (len(stack.frames), largest), 2)
    oddities: list[str] = []
    pixels, cut, window = decode(stack.frames, voi, ref.name, oddities)
    pixels = filled_outside(pixels, oddities)
    ref = replace(ref, notes=(*ref.notes, *oddities))
    readable = [frame for frame in stack.frames if frame not in cut]
    gap = _GAP.format(count=len(cut), n=len(stack.frames))
    if cut and gap not in ref.notes:
        ref = replace(ref, notes=(*ref.notes, gap))
    return replace(placed(ref, readable, pixels), window=window)


def _what_is_left(grouping: Grouping, part: int) -> list[str]:
    """Return the notes on files that hold more than the one volume that is used."""
    notes = []
    if len(grouping.stacks) > 1:
        others = [split_label(stack.splits) for n, stack in enumerate(grouping.stacks) if n != part and stack.splits]
        left = f"; left out: {'; '.join(others[:8])}{'; ...' * (len(others) > 8)}" if others else ""
        chosen = split_label(grouping.stacks[part].splits)
        which = f"number {part + 1}{f' ({chosen})' if chosen else ''}"
        notes.append(f"the files make {len(grouping.stacks)} volumes: {which} is used{left}")
    if grouping.copies:
        notes.append(_sent_twice(grouping))
    if grouping.strays:
        notes.append(f"{len(grouping.strays)} images left out: {grouping.strays[0][1]}")
    return notes


def subject_of(header: Any, path: str) -> str:
    """Return an anonymous subject: a salted hash of PatientID, else of the study, else of the folder.

    PatientID is often a hospital number, short enough to be guessed, so the hash is a slow one (scrypt). A secret
    $DATAGEN_SALT makes guessing impossible; without it the salt is public, and the same for everybody.
    """
    patient = str(header.get("PatientID") or "").strip()
    identifier = patient or str(header.get("StudyInstanceUID") or "") or str(Path(path).parent)
    return f"p{_slow_hash(identifier, _salt())}"


def _salt() -> str:
    return os.environ.get("DATAGEN_SALT") or "datagen: public salt, set DATAGEN_SALT to a secret of your own"


@lru_cache(maxsize=100_000)
def _slow_hash(identifier: str, salt: str) -> str:
    return hashlib.scrypt(identifier.encode(), salt=salt.encode(), n=2**13, r=8, p=1, dklen=6).hex()


def _short_hash(kind: str, identifier: str) -> str:
    return hashlib.sha256(f"{_salt()}\0{kind}\0{identifier}".encode()).hexdigest()[:8]
