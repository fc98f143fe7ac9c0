"""DICOM files to volumes: grouping by series, ordering by position, decoding, orientation. Nothing personal is kept.

`scan_dicom` reads headers only and sorts files into series that are one volume each; `load_dicom` reads one of them.
Classic files (one slice each) and multi-frame ones (enhanced MR: geometry in per-frame functional groups) are both
turned into `Frame`s first and treated alike from there. Attribute names are those of DICOM PS3.3.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import re
import warnings
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .anatomy import GE_IMAGE_KIND, derived_by_header, derived_by_type
from .budget import check_unpacked, check_values
from .damage import told, told_of_ref, without_path
from .dicom_checks import check_claims, check_deflated, check_pixels, directions, display_window, padded
from .files import relative, sha256_of
from .grouping import PHASE_KEYS, Frame, Grouping, Stack, group, split_label
from .montage import TAGS as _MONTAGE_TAGS
from .montage import WORDS, Montage, NotCut, montage_of, word_of
from .values import absurd, filled_outside, finite, finite_or_none, floats, inverted, narrowed, positive, positive_pair
from .volume import ACQUIRED, CANONICAL, Skipped, Volume, VolumeRef, described

# Read from a header; everything else in the file is left alone.
_TAGS = (
    "SOPClassUID SOPInstanceUID Modality ImageType SeriesDescription PatientID StudyInstanceUID SeriesInstanceUID "
    "InstanceNumber SeriesNumber SliceLocation ConcatenationUID ConcatenationFrameOffsetNumber "
    "ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness SpacingBetweenSlices "
    "Rows Columns BitsAllocated NumberOfFrames SamplesPerPixel PhotometricInterpretation BurnedInAnnotation EchoTime "
    "EchoNumbers TemporalPositionIdentifier AcquisitionNumber DiffusionBValue TriggerTime InversionTime FlipAngle "
    "AcquisitionTime ContentTime RescaleSlope RescaleIntercept SharedFunctionalGroupsSequence "
    "PerFrameFunctionalGroupsSequence PlanePositionSequence PlaneOrientationSequence PixelMeasuresSequence "
    "PixelValueTransformationSequence MRImageFrameTypeSequence CTImageFrameTypeSequence FrameType FrameContentSequence "
    "TemporalPositionIndex "
    "ComplexImageComponent FrameAcquisitionNumber MREchoSequence EffectiveEchoTime MRDiffusionSequence"
)

_READ: list[Any] = [*_TAGS.split(), GE_IMAGE_KIND]

_NOT_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.7": "secondary capture",
    "1.2.840.10008.5.1.4.1.1.66.4": "segmentation",
    "1.2.840.10008.5.1.4.1.1.66.5": "surface segmentation",
    "1.2.840.10008.5.1.4.1.1.66.6": "tractography",
    "1.2.840.10008.5.1.4.1.1.66.1": "spatial registration",
    "1.2.840.10008.5.1.4.1.1.66.3": "spatial registration",
    "1.2.840.10008.5.1.4.1.1.66": "raw data",
    "1.2.840.10008.5.1.4.1.1.4.2": "spectroscopy",
    "1.2.840.10008.5.1.4.1.1.481": "radiotherapy object",
    "1.3.12.2.1107.5.9.1": "raw data (Siemens CSA non-image)",
    "1.2.840.10008.5.1.4.1.1.11": "presentation state",
    "1.2.840.10008.5.1.4.1.1.88": "structured report",
    "1.2.840.10008.5.1.4.1.1.104": "encapsulated document",
    "1.2.840.10008.1.3.10": "DICOMDIR",
}
_FIRST_GROUPS = (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08")  # 2 or 8, in either byte order
_UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")  # implicit, explicit, big-endian
_CUT_SHORT = "cut short: pixels are missing"
_LOCALIZERS = ("localizer", "localiser", "scout", "survey", "3 plane loc", "3-plane loc", "3plane loc", "plane_loc")


_Key = tuple[Any, ...]
_Decoded = tuple[np.ndarray, list[Frame], tuple[float, float] | None]
_GAP = "{count} of {n} slices cannot be read: left out, the volume has a gap"


class DamagedPixels(DataError):
    """Pixels of one file that cannot be decoded: cut short or damaged."""


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
                if not _unreadable(stack, sum(frame.path in cut_short for frame in stack)):
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
    """What a volume is, by its headers, for whoever looks."""
    first = stack[0]
    spacing = (*(first.pixel_spacing or (None, None)), first.thickness)
    if first.position is not None and first.cosines is not None:
        spacing = (*spacing[:2], _step(stack)[0])
    shape = (int(header.Rows), int(header.Columns), len(stack))
    montage = _montage(header)
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
    """A line on PatientIDs that say little: empty, or shared by more studies than a person's visits. No ID is named."""
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
    """True for a series of three orthogonal directions of few slices each, whatever it is called."""
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
        digest, seen = _digest_of(), dict[tuple[str, ...], str]()
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


def _digest_of() -> Callable[[Frame], str]:
    """A function that gives the digest of a frame's stored pixels; "" where they cannot be read or are all equal."""
    known: dict[str, tuple[str, ...]] = {}  # of all frames of a file, which is read once

    def digest_of_image(image: np.ndarray) -> str:
        if image.min() == image.max():
            return ""
        return hashlib.sha256(str((image.shape, image.dtype)).encode() + image.tobytes()).hexdigest()

    def digest(frame: Frame) -> str:
        if frame.path not in known:
            try:
                known[frame.path] = tuple(map(digest_of_image, _pixels(frame.path, "")[1]))
            except DataError:
                known[frame.path] = ()
        of_file = known[frame.path]
        return of_file[frame.index] if frame.index < len(of_file) else ""

    return digest


def _derived(frame: Frame) -> str:
    return derived_by_type(re.findall(r"[^'\[\],]+", frame.phase[0]))


def _grouped(frames: Sequence[Frame]) -> Grouping:
    """Stacks of plain images first, then of each kind of derived ones: neither decides how the other is sorted."""
    kinds: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        kinds[_derived(frame)].append(frame)
    if len(kinds) == 1:
        return group(frames, _digest_of())
    stacks: list[Stack] = []
    copies: list[tuple[Frame, Frame]] = []
    strays: list[tuple[Frame, str]] = []
    for kind in sorted(kinds):
        part = group(kinds[kind], _digest_of())
        said = (("ImageType", kind or "plain"),)
        stacks += [replace(stack, splits=(*said, *stack.splits)) for stack in part.stacks]
        copies += part.copies
        strays += part.strays
    return Grouping(tuple(stacks), tuple(copies), tuple(strays))


def _chosen(
    stacks: Sequence[Sequence[Frame]], usable: Sequence[int], choose: Callable[[int], Sequence[int]]
) -> set[int]:
    """The numbers of the stacks that are kept: of those that image the same slices, as `choose` says."""
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
        A file is missing, damaged, in colour, or its compression has no decoder here.
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
        if uncut := _why_uncut(header):  # opened by name: what is looked for in a folder was refused before
            ref = replace(ref, notes=(*ref.notes, uncut))
    grouping = _grouped(frames)
    if ref.part >= len(grouping.stacks):
        raise DataError(f"{ref.name}: part {ref.part} asked for; the files hold {len(grouping.stacks)}")
    stack = grouping.stacks[ref.part]
    if not ref.splits and (len(ref.paths) > 1 or ref.source == "file"):  # files that nobody has sorted yet
        ref = replace(ref, notes=(*ref.notes, *_what_is_left(grouping, ref.part), *stack.notes))
    check_values(ref.name, (len(stack.frames), largest), 2)
    oddities: list[str] = []
    pixels, cut, window = _decode(stack.frames, voi, ref.name, oddities)
    pixels = filled_outside(pixels, oddities)
    ref = replace(ref, notes=(*ref.notes, *oddities))
    readable = [frame for frame in stack.frames if frame not in cut]
    gap = _GAP.format(count=len(cut), n=len(stack.frames))
    if cut and gap not in ref.notes:
        ref = replace(ref, notes=(*ref.notes, gap))
    return replace(_volume(ref, readable, pixels), window=window)


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


def read_header(path: str | os.PathLike[str]) -> Any | None:
    """The attributes that sorting needs, as a pydicom Dataset; None where the file is not DICOM."""
    from pydicom.errors import InvalidDicomError

    with _quiet():
        try:
            return _header(path)
        except (InvalidDicomError, EOFError):
            # Files written without the 128-byte preamble are common; other files read as nonsense or not at all.
            if not _starts_like_a_dataset(path):
                return None
            try:
                header = _header(path, force=True)
                return header if "SOPClassUID" in header and "Rows" in header else None
            except Exception:  # whatever a non-DICOM file provokes in the parser
                return None
        except DataError:
            raise
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from None
        except Exception:  # pydicom raises many kinds on damaged headers
            return None


def _header(path: str | os.PathLike[str], force: bool = False) -> Any:
    """The attributes as pydicom reads them; `lacks_pixels`: no pixels follow, `is_cut_short`: fewer than there should be."""
    import pydicom

    content = unpacked(path)
    check_deflated(path, os.fspath(path))
    with content if isinstance(content, io.BytesIO) else open(path, "rb") as file:
        header = _settled(pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_READ, force=force))
        if word_of(header):
            file.seek(0)
            wanted = [*_READ, *_MONTAGE_TAGS]
            header = _settled(pydicom.dcmread(file, stop_before_pixels=True, specific_tags=wanted, force=force))
        # The parser stops at the pixels' tag (7FE0,...), in either byte order. A deflated file is unpacked elsewhere.
        syntax = header.file_meta.get("TransferSyntaxUID")
        is_deflated = syntax is not None and not syntax.is_private and syntax.is_transfer_syntax and syntax.is_deflated
        start = file.tell()
        header.lacks_pixels = not is_deflated and file.read(2) not in (b"\xe0\x7f", b"\x7f\xe0")
        left = file.seek(0, io.SEEK_END) - start
    header.is_cut_short = syntax in (None, *_UNCOMPRESSED) and left < _size_of_pixels(header)
    return header


def _size_of_pixels(header: Any) -> int:
    """Bytes that the pixels of an uncompressed file take, at least."""
    try:
        numbers = [int(header.get(name) or 1) for name in ("NumberOfFrames", "SamplesPerPixel")]
        return (
            math.prod([*numbers, *(int(header.get(name) or 0) for name in ("Rows", "Columns", "BitsAllocated"))]) // 8
        )
    except (TypeError, ValueError):
        return 0


def unpacked(path: str | os.PathLike[str]) -> Any:
    """Return what pydicom reads: the path, or the content of a gzip file that holds DICOM (.dcm.gz)."""
    if not os.fspath(path).lower().endswith(".gz"):
        return path
    try:
        with open(path, "rb") as raw:
            if raw.read(2) != b"\x1f\x8b":
                return path
        with gzip.open(path) as file:
            start = file.read(132)
            if start[128:] != b"DICM" and start[:2] not in _FIRST_GROUPS:
                return io.BytesIO(start)
            count = len(start)
            while piece := file.read(1 << 20):
                check_unpacked(os.fspath(path), count := count + len(piece))
            file.seek(0)
            return io.BytesIO(file.read())
    except (EOFError, gzip.BadGzipFile, zlib.error):  # cut short: no file of DICOM
        return io.BytesIO()


def _starts_like_a_dataset(path: str | os.PathLike[str]) -> bool:
    """True where the first tag is of group 2 or 8, in either byte order, as in files without a preamble."""
    content = unpacked(path)
    with content if isinstance(content, io.BytesIO) else open(path, "rb") as file:
        group_number = file.read(2)
    return group_number in _FIRST_GROUPS


def _settled(header: Any) -> Any:
    """Convert every value now, where warnings are silenced, and drop those that cannot be: nothing is left to warn."""
    for tag in list(header.keys()):
        try:
            element = header[tag]
        except Exception:  # pydicom raises many kinds on values that break their type's rules
            del header[tag]
            continue
        for item in element.value if element.VR == "SQ" else ():
            _settled(item)
        if element.VR == "IS" and isinstance(element.value, str):  # no whole number, kept as it was found
            del header[tag]
    return header


def not_an_image(header: Any, secondary_captures: bool = False) -> str:
    """What a file of DICOM holds in place of an image, or "" where it holds one; of a `read_header`."""
    sop_class = str(header.get("SOPClassUID", ""))
    for prefix, what in _NOT_IMAGES.items():
        is_this = sop_class == prefix or sop_class.startswith(prefix + ".")
        if is_this and not (secondary_captures and what == "secondary capture"):
            return what
    if not header.get("Rows") or not header.get("Columns"):
        return "no image in it"
    return "a header without pixels" if getattr(header, "lacks_pixels", False) else ""


def why_not(header: Any, include_derived: bool = False) -> str:
    """Why an image is not used, or "" where it is."""
    nothing = not_an_image(header)
    if nothing:
        return nothing
    modality = str(header.get("Modality") or "MR")
    if modality not in ("MR", "CT"):
        return f"modality {modality}, expected MR"
    photometric = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
    if int(header.get("SamplesPerPixel") or 1) > 1 or not photometric.startswith("MONOCHROME"):
        return f"colour ({photometric})"
    image_type = _image_type(header)
    description = str(header.get("SeriesDescription", "")).lower()
    if uncut := _why_uncut(header):
        return f"{uncut}; convert it to single slices (dcm2niix)"
    if "LOCALIZER" in image_type or any(word in description for word in _LOCALIZERS):
        return "localizer"
    return ("" if include_derived else derived_by_header(header)) or missing_decoder(header)


def _why_uncut(header: Any) -> str:
    """Return why a montage is not cut into its slices, or ""."""
    try:
        montage_of(header)
    except NotCut as error:
        word = word_of(header)
        return (
            f"montage of slices tiled in one picture ({WORDS[word]} {word}) that its tags do not allow to cut: {error}"
        )
    return ""


def missing_decoder(header: Any) -> str:
    """What is needed to decompress the file, or "" where nothing is missing."""
    syntax = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is None:
        return ""
    if not syntax.is_transfer_syntax:  # a maker's own, or another UID by mistake
        return f"transfer syntax {syntax} cannot be decoded here; convert the files (dcmconv, gdcmconv --raw)"
    if not syntax.is_compressed or syntax.is_deflated:
        return ""
    from pydicom.pixels.decoders.base import get_decoder

    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return f"compression {syntax.name} cannot be decoded here; convert the files (dcmdjpeg, gdcmconv --raw)"
    if decoder.is_available:
        return ""
    return f"compression {syntax.name} needs a decoder that is not installed: pip install python-gdcm"


def subject_of(header: Any, path: str) -> str:
    """An anonymous subject: a salted hash of PatientID, else of the study, else of the folder.

    PatientID is often a hospital number, short enough to be guessed, so the hash is a slow one (scrypt). A secret
    $DATAGEN_SALT makes guessing impossible; without it the salt is public, and the same for everybody.
    """
    patient = str(header.get("PatientID") or "").strip()
    identifier = patient or str(header.get("StudyInstanceUID") or "") or str(Path(path).parent)
    return f"p{_slow_hash(identifier, _salt())}"


def frames_of(header: Any, path: str) -> list[Frame]:
    """The frames of one file with what functional groups, shared or their own, say of each."""
    montage = _montage(header)
    tiles = montage.positions if montage else ()
    count = int(header.get("NumberOfFrames") or 1)
    several = count > 1
    count = len(tiles) or count
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
    frames = []
    for index in range(count):
        own = per_frame[index] if index < len(per_frame) else None

        def look(sequence: str, name: str, own: Any = own) -> Any:
            for groups in (own, shared):
                if groups is not None and groups.get(sequence):
                    value = groups[sequence].value[0].get(name)
                    if value is not None and value != "":
                        return value
            return header.get(name)

        measures = "PixelMeasuresSequence"
        transform = "PixelValueTransformationSequence"
        phase = {key: header.get(key) for key in PHASE_KEYS}
        if own is not None or shared is not None:
            phase["ImageType"] = (
                look("MRImageFrameTypeSequence", "FrameType")
                or look("CTImageFrameTypeSequence", "FrameType")
                or header.get("ImageType")
            )
            component = look("MRImageFrameTypeSequence", "ComplexImageComponent")
            if derived_by_type([str(component)]):
                phase["ImageType"] = [*(phase["ImageType"] or ()), component]
            phase["TemporalPositionIdentifier"] = look("FrameContentSequence", "TemporalPositionIndex")
            phase["EchoTime"] = look("MREchoSequence", "EffectiveEchoTime")
            phase["DiffusionBValue"] = look("MRDiffusionSequence", "DiffusionBValue")
            phase["AcquisitionNumber"] = look("FrameContentSequence", "FrameAcquisitionNumber")
        frames.append(
            Frame(
                path=path,
                index=index,
                position=tiles[index] if tiles else floats(look("PlanePositionSequence", "ImagePositionPatient"), 3),
                cosines=directions(floats(look("PlaneOrientationSequence", "ImageOrientationPatient"), 6)),
                pixel_spacing=positive_pair(look(measures, "PixelSpacing")),
                thickness=positive(look(measures, "SpacingBetweenSlices"))
                or positive(look(measures, "SliceThickness")),
                slope=finite(look(transform, "RescaleSlope"), 1.0),
                intercept=finite(look(transform, "RescaleIntercept"), 0.0),
                order=index + int(finite(header.get("ConcatenationFrameOffsetNumber"), 0))
                if several
                else int(finite(header.get("InstanceNumber"), 0)),
                location=None if count > 1 else finite_or_none(header.get("SliceLocation")),
                phase=tuple(str(phase[key]) if phase[key] is not None else "" for key in PHASE_KEYS),
            )
        )
    return frames


def _montage(header: Any) -> Montage | None:
    """Return how a montage is cut; None of any other image, and of a montage that cannot be cut."""
    try:
        return montage_of(header)
    except NotCut:
        return None


def _decode(frames: Sequence[Frame], voi: bool, name: str, notes: list[str]) -> _Decoded:
    """Pixels of the frames in their order, (n_readable, n_rows, n_columns), the frames that are cut short, the VOI window.

    A damaged file costs its slice, unless most of them are.
    """
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    images: list[np.ndarray] = []
    paths = list(dict.fromkeys(frame.path for frame in frames))
    opened: dict[str, tuple[Any, np.ndarray]] = {}
    is_inverted = False
    windows: list[tuple[float, float]] = []  # the files' own, in the values they give
    cut: list[Frame] = []
    # Slices keep their scales relative to each other.
    scale = absurd(number for frame in frames for number in (frame.slope, frame.intercept))
    if scale:
        notes.append(f"scale {scale:g} in the header: values given without it")
    for frame in frames:
        if frame.path not in opened:
            opened.clear()  # frames of one file follow each other, so one file is held at a time
            # Not the file's name, which may be a person's: the error may end up in a store.
            label = name if len(paths) == 1 else f"{name}: file {paths.index(frame.path) + 1} of {len(paths)}"
            try:
                opened[frame.path] = _pixels(frame.path, label)
            except DamagedPixels:
                cut.append(frame)
                if _unreadable(frames, len(cut)):
                    raise
                continue
        dataset, stored = opened[frame.path]
        image = stored[frame.index]
        outside = padded(image, dataset)
        with _quiet():
            if "ModalityLUTSequence" in dataset:
                image = apply_modality_lut(image, dataset)
            elif scale or (frame.slope, frame.intercept) != (1.0, 0.0):
                slope, intercept = (number / (scale or 1.0) for number in (frame.slope, frame.intercept))
                image = (image * slope + intercept).astype(np.float32)
            if voi:
                image = apply_voi_lut(image, dataset)
        if outside.any() and not outside.all():
            image = np.where(outside, image[~outside].min(), image)
        windows += [] if voi else display_window(dataset, frame.index, scale)
        is_inverted |= str(dataset.get("PhotometricInterpretation")) == "MONOCHROME1"
        images.append(image)
    if len({image.shape for image in images}) > 1:
        raise DataError(f"{name}: slices differ in size: {sorted({image.shape for image in images})}")
    pixels = np.stack(images)
    if pixels.dtype.kind == "f":
        pixels = narrowed(pixels, notes)
    # Slices have windows of their own where they were scaled apart; one holds for all of them here.
    window = tuple(float(value) for value in np.median(windows, axis=0)) if windows else None
    if is_inverted and window is not None:
        least, most = float(np.fmin.reduce(pixels, axis=None)), float(np.fmax.reduce(pixels, axis=None))
        window = (least + most - window[1], least + most - window[0])
    return (inverted(pixels) if is_inverted else pixels), cut, window  # type: ignore[return-value]


def _unreadable(frames: Sequence[Frame], n_cut: int) -> bool:
    """Whether a volume is lost with so many damaged slices; fewer cost themselves only."""
    return n_cut > 0 and (len({frame.path for frame in frames}) < 3 or 2 * n_cut > len(frames))


def _pixels(path: str, label: str) -> tuple[Any, np.ndarray]:
    """A file and its stored values as (n_frames, n_rows, n_columns) in the machine's byte order."""
    import pydicom
    from pydicom.uid import ImplicitVRLittleEndian

    with _quiet():
        try:
            dataset = pydicom.dcmread(unpacked(path), force=True)
            if "TransferSyntaxUID" not in dataset.file_meta:
                dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            missing = missing_decoder(dataset)
            if missing:
                raise DataError(f"{label}: {missing}")
            check_pixels(dataset, label)
            stored = dataset.pixel_array
        except DataError:
            raise
        except OSError as error:
            raise DataError(f"{label}: {error.strerror or error}") from None
        except Exception as error:  # pydicom and its plug-ins raise many kinds on damaged pixel data
            raise DamagedPixels(f"{label}: pixels cannot be read: {' '.join(str(error).split())}") from None
    if stored.ndim == 2:
        # From a header whose values have been checked, as the frames were.
        montage = _montage(read_header(path)) if word_of(dataset) else None
        stored = montage.cut(stored) if montage else stored[np.newaxis]
    if stored.ndim != 3:
        raise DataError(f"{label}: expected grey pixels, got shape {stored.shape}")
    return dataset, stored.astype(stored.dtype.newbyteorder("="), copy=False)


def _volume(ref: VolumeRef, frames: Sequence[Frame], pixels: np.ndarray) -> Volume:
    """Give pixels (slice, row, column) their place in the patient."""
    from nibabel.orientations import apply_orientation, io_orientation

    notes = list(ref.notes)
    first = frames[0]
    rows, columns = first.pixel_spacing or (None, None)
    if first.pixel_spacing is None:
        notes.append("no pixel spacing in the file: pixels taken as square")
    digest = sha256_of(ref.paths)
    common: dict[str, Any] = {"source": ref.source, "subject": ref.subject, "name": ref.name, "file_sha256": digest}
    if first.position is None or first.cosines is None:
        step, by = _location_step(frames)
        notes.append(f"no position or orientation in the file: slices in the order of their {by}")
        return Volume(
            **common,
            voxels=pixels,
            spacing=(step or first.thickness, rows, columns),
            orientation=ref.orientation or ACQUIRED,
            notes=tuple(notes),
        )
    step, irregular = _step(frames)
    notes += irregular
    row_direction, column_direction = np.array(first.cosines[:3]), np.array(first.cosines[3:])
    affine = np.eye(4)
    affine[:3, 0] = row_direction * (columns or 1.0)
    affine[:3, 1] = column_direction * (rows or 1.0)
    affine[:3, 2] = np.cross(row_direction, column_direction) * (step or 1.0)
    affine[:3, 3] = first.position
    affine[:2] *= -1  # DICOM's axes run to Left and Posterior, NIfTI's to Right and Anterior
    orientation = io_orientation(affine)
    tilt = obliquity_degrees(affine)
    if tilt > 10:
        notes.append(f"oblique: {tilt:.0f} degrees off the anatomical axes; planes are the closest ones")
    shift = _shift(frames, affine)
    only_plane = ""
    if shift is not None:
        degrees = float(np.degrees(np.arctan2(np.linalg.norm(shift), step or 1.0)))
        only_plane = ("sagittal", "coronal", "axial")[int(orientation[2, 0])]
        notes.append(f"tilted gantry: slices shifted by {degrees:.0f} degrees, only the {only_plane} plane is cut")
        affine[:3, 2] += shift
    voxels = apply_orientation(pixels.transpose(2, 1, 0), orientation)
    spacing: list[float | None] = [None, None, None]
    for size, (axis, _) in zip((columns, rows, step), orientation, strict=True):
        spacing[int(axis)] = size
    return Volume(
        **common,
        voxels=voxels,
        spacing=(spacing[0], spacing[1], spacing[2]),
        orientation=CANONICAL,
        notes=tuple(notes),
        file_affine=affine,
        only_plane=only_plane,
    )


def _shift(frames: Sequence[Frame], affine: np.ndarray) -> np.ndarray | None:
    """Return the shift of each slice beside the one before (mm in RAS), where a tilted gantry shifted them; None where not.

    Under 1 degree, or a pixel from end to end, it is the rounding of positions.
    """
    if len(frames) < 2 or frames[0].position is None or frames[-1].position is None:
        return None
    moved = (np.array(frames[-1].position) - np.array(frames[0].position)) * (-1, -1, 1)
    normal = affine[:3, 2] / np.linalg.norm(affine[:3, 2])
    along = float(moved @ normal)
    beside = moved - along * normal
    pixel = float(np.linalg.norm(affine[:3, :2], axis=0).min())
    length = float(np.linalg.norm(beside))
    if length <= max(pixel, abs(along) * np.tan(np.radians(1.0))):
        return None
    return beside / (len(frames) - 1)


def obliquity_degrees(affine: np.ndarray) -> float:
    """Largest angle between a voxel axis and the anatomical axis closest to it."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.degrees(np.arccos(np.clip(np.abs(directions).max(axis=0), -1, 1))).max())


def _step(frames: Sequence[Frame]) -> tuple[float | None, list[str]]:
    """Distance between slices from their positions (not SliceThickness, which leaves out gaps), and what is odd."""
    if len(frames) == 1:
        return frames[0].thickness, []
    steps = np.diff([frame.depth() or 0.0 for frame in frames])
    step = float(np.median(steps))
    if np.ptp(steps) > max(0.05 * step, 0.02):
        return step, [f"slices {steps.min():.3g} to {steps.max():.3g} mm apart, not evenly: slices may be missing"]
    return float(np.mean(steps)), []


def _location_step(frames: Sequence[Frame]) -> tuple[float | None, str]:
    """Distance between slices whose positions are lost, by SliceLocation, and what they are ordered by."""
    locations = [frame.location for frame in frames if frame.location is not None]
    if len(locations) == len(frames) > 1 and min(np.diff(locations)) > 0:
        return float(np.median(np.diff(locations))), "SliceLocation"
    return None, "numbers"


def _image_type(header: Any) -> list[str]:
    value = header.get("ImageType") or []
    return [str(item).upper() for item in ([value] if isinstance(value, str) else value)]


def _salt() -> str:
    return os.environ.get("DATAGEN_SALT") or "datagen: public salt, set DATAGEN_SALT to a secret of your own"


@lru_cache(maxsize=100_000)
def _slow_hash(identifier: str, salt: str) -> str:
    return hashlib.scrypt(identifier.encode(), salt=salt.encode(), n=2**13, r=8, p=1, dklen=6).hex()


def _short_hash(kind: str, identifier: str) -> str:
    return hashlib.sha256(f"{_salt()}\0{kind}\0{identifier}".encode()).hexdigest()[:8]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without pydicom's warnings about values that do not matter here (odd dates, lengths, names)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
