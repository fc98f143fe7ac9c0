"""Folders of one's own: NIfTI, DICOM, NPY and pictures, with no collection's layout behind them.

Who is a subject is read from the names of folders and files by the rules of `subjects.py`, or told by the user. DICOM
says it itself (PatientID, hashed).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ussim.errors import DataError
from ussim.volumes.anatomy import derived_by_intent, derived_by_name, derived_by_sidecar, label_reason
from ussim.volumes.damage import told, without_path
from ussim.volumes.dicom import load_dicom, scan_dicom
from ussim.volumes.files import relative, stem, walk
from ussim.volumes.nifti import VOLUME_SUFFIXES, four_d_note, load_nifti, open_nifti
from ussim.volumes.nrrd import PAIRS, files_of
from ussim.volumes.pictures import PICTURE_SUFFIXES, load_npy, load_pictures, npy_header, picture_header
from ussim.volumes.volume import Found, Skipped, Volume, VolumeRef, described

from .base import Source, frames_chosen
from .known import ARCHIVES, LOOKS_LIKE, archives, looks_like, without_copies
from .subjects import assign_subjects, subject_from


class _Own(Source):
    """Files of the user's own: nothing is known here that forbids passing them on, and nothing that allows it."""

    licence = "as the owner of the files says"
    citation = "none known: name the origin of the files yourself"
    terms = "those under which you hold the files"
    redistributable = True

    def _reason(self, shown: str) -> str:
        """Return why a file is no anatomy, by its path under the root; "" where it may be."""
        return label_reason(shown) or ("" if self.selection.include_derived else derived_by_name(shown))

    @staticmethod
    def _files(base: Path, skipped: list[Skipped]) -> Iterator[Path]:
        """Every file under the root; folders that cannot be listed are among the skipped in the end."""
        closed: list[tuple[Path, str]] = []
        yield from walk(base, closed)
        skipped += [Skipped(relative(folder, base), f"folder cannot be opened: {why}") for folder, why in closed]


class Nifti(_Own):
    """Every volume file (NIfTI, Analyze, MGH, NRRD, MetaImage) under a folder, or a single one."""

    name = "nifti"
    title = "NIfTI files of your own"
    layout = "a folder with .nii, .nii.gz, .hdr/.img, .mgz, .nrrd or .mha files, or one such file"

    def find(self, root: str | Path | None) -> Found:
        """List the volumes under a root, by the layout above."""
        base = self.base(root)
        refs: list[VolumeRef] = []
        skipped: list[Skipped] = []
        if base.is_file() and base.name.lower().endswith(tuple(PAIRS.values())):
            with suppress(DataError):  # said below, as of any other file
                base = files_of(base)[0]
        seen: set[Path] = set()  # files of volumes that have been met
        for path in _headers_first(self._files(base, skipped)):
            if not path.name.lower().endswith(VOLUME_SUFFIXES) or path in seen:
                continue
            shown = relative(path, base)
            derived = not self.selection.include_derived
            reason = label_reason(shown) or (derived and (derived_by_name(shown) or derived_by_sidecar(path)))
            if reason:
                skipped.append(Skipped(shown, reason))
                continue
            try:
                with told(str(path)):
                    files = files_of(path)
                    seen.update(files)
                    with open_nifti(files[0]) as (image, notes):
                        shape = image.header.get_data_shape()
                        code = int(image.header["intent_code"]) if "intent_code" in image.header else 0
                        reason = derived_by_intent(code)
                        size = described(shape[:3], [float(step) for step in image.header.get_zooms()[:3]])
            except DataError as error:
                skipped.append(Skipped(shown, without_path(error, path)))
                continue
            if len(shape) < 2:
                skipped.append(Skipped(shown, f"not a volume: shape {shape}"))
                continue
            if reason and (derived or "statistical" not in reason):
                skipped.append(Skipped(shown, reason))
                continue
            n_frames = math.prod(shape[3:])
            ref = replace(
                _ref(self, base, path, tuple(notes)), paths=tuple(str(file) for file in files), described=size
            )
            for part in frames_chosen(n_frames, self.selection.frames):
                said = (*ref.notes, four_d_note(n_frames, part)) if n_frames > 1 else ref.notes
                name = f"{ref.name}-frame{part:03d}" if part else ref.name
                refs.append(replace(ref, name=name, part=part, notes=said))
        return _some(self, base, refs, skipped)

    def load(self, ref: VolumeRef) -> Volume:
        """Read one volume."""
        return load_nifti(ref)


class Npy(_Own):
    """Every NumPy stack (slice, row, column), or single slice, under a folder."""

    name = "npy"
    title = "NPY files of your own"
    layout = "a folder with .npy files of shape (slice, row, column) or (row, column), or one such file"

    def find(self, root: str | Path | None) -> Found:
        """List the volumes under a root, by the layout above."""
        base = self.base(root)
        refs: list[VolumeRef] = []
        skipped: list[Skipped] = []
        for path in self._files(base, skipped):
            if path.suffix.lower() != ".npy":
                continue
            shown = relative(path, base)
            try:
                shape, dtype = npy_header(path)
            except DataError as error:
                skipped.append(Skipped(shown, without_path(error, path)))
                continue
            if len(shape) not in (2, 3) or dtype.kind not in "buif" or 0 in shape:
                skipped.append(Skipped(shown, f"expected 2 or 3 dimensions, got shape {shape} of {dtype}"))
            elif reason := self._reason(shown):
                skipped.append(Skipped(shown, reason))
            else:
                refs.append(replace(_ref(self, base, path), described=described(shape)))
        return _some(self, base, refs, skipped)

    def load(self, ref: VolumeRef) -> Volume:
        """Read one volume."""
        return load_npy(ref)


class Image(_Own):
    """Pictures, one slice each: a subfolder of same-sized pictures is one stack, in natural order of the names."""

    name = "image"
    title = "pictures of your own"
    layout = "a folder with .png, .jpg, .bmp or .tif files (a subfolder is a stack of slices), or one such file"

    def find(self, root: str | Path | None) -> Found:
        """List the volumes under a root, by the layout above."""
        base = self.base(root)
        refs: list[VolumeRef] = []
        skipped: list[Skipped] = []
        stacks: dict[tuple[Path, tuple[int, int], str], list[Path]] = defaultdict(list)
        for path in self._files(base, skipped):
            if path.suffix.lower() not in PICTURE_SUFFIXES:
                continue
            if reason := self._reason(relative(path, base)):
                skipped.append(Skipped(relative(path, base), reason))
                continue
            try:
                size, mode = picture_header(path)
            except DataError as error:
                skipped.append(Skipped(relative(path, base), without_path(error, path)))
                continue
            stacks[path.parent, size, mode].append(path)
        for (folder, (columns, rows), _), paths in stacks.items():
            picture = described((rows, columns))
            if folder == base or base.is_file() or len(paths) == 1:
                refs += [replace(_ref(self, base, path), described=picture) for path in paths]
                continue
            name = relative(folder, base)
            if len([key for key in stacks if key[0] == folder]) > 1:
                name += "/" + stem(paths[0])  # pictures of several sizes lie in this folder
            files = tuple(str(path) for path in paths)
            stack = described((len(paths), rows, columns))
            refs.append(VolumeRef(self.name, subject_from(base, paths[0]), name, files, described=stack))
        return _some(self, base, refs, skipped)

    def load(self, ref: VolumeRef) -> Volume:
        """Read one volume."""
        return load_pictures(ref)


class Dicom(_Own):
    """Every MR series under a folder, whatever the files are called."""

    name = "dicom"
    title = "DICOM files of your own"
    layout = "a folder with DICOM files of MR series (any names and nesting), or one such file"

    def find(self, root: str | Path | None) -> Found:
        """List the volumes under a root, by the layout above."""
        base = self.base(root)
        doubts: list[str] = []
        closed: list[Skipped] = []
        refs, skipped = scan_dicom(
            (path for path in self._files(base, closed) if not path.name.lower().endswith(ARCHIVES)),
            base,
            self.name,
            self.selection.include_derived,
            lambda count: frames_chosen(count, self.selection.frames),
            doubts,
        )
        return _some(self, base, refs, [*skipped, *closed], () if self.selection.subjects else doubts, by_name=False)

    def load(self, ref: VolumeRef) -> Volume:
        """Read one volume."""
        return load_dicom(ref)


def _headers_first(paths: Iterable[Path]) -> list[Path]:
    """Files of voxels (.img) last: a header of any format may name them."""
    return sorted(paths, key=lambda path: path.name.lower().endswith(tuple(PAIRS.values())))


def _ref(source: Source, root: Path, path: Path, notes: tuple[str, ...] = ()) -> VolumeRef:
    name = stem(path) if root.is_file() else str(Path(relative(path, root)).with_name(stem(path)).as_posix())
    return VolumeRef(source.name, subject_from(root, path), name, (str(path),), notes=notes)


def _some(
    source: Source,
    root: Path,
    refs: list[VolumeRef],
    skipped: list[Skipped],
    doubts: Iterable[str] = (),
    by_name: bool = True,
) -> Found:
    """Return what was found with its subjects: as the user says, else as names say, else (DICOM) as the files said."""
    override = source.selection.subjects
    packed = archives(root)
    if by_name:
        refs, copies = without_copies(root, _unique(refs, root))
        skipped = [*skipped, *copies]
    notes = list(doubts)
    rules: tuple[str, ...] = ()
    if refs and (by_name or override is not None):
        assigned = assign_subjects((relative(path, root) for ref in refs for path in _naming(ref)), override)
        notes += [f"subjects: {text}" for text in assigned.warnings]
        rules = assigned.described()
        refs = [replace(ref, subject=_only_subject(ref, root, assigned.subjects, override is not None)) for ref in refs]
    elif refs:
        rules = ("by the PatientID in the files, hashed",)
    collection = looks_like(root if root.is_dir() else root.parent)
    if collection:
        notes.append(LOOKS_LIKE.format(collection=collection))
    return source.some(root, Found(refs, [*skipped, *packed], notes, rules))


def _naming(ref: VolumeRef) -> tuple[str, ...]:
    """Return the files whose names say whose a volume is: of a header and its voxels the header, of a stack all."""
    return ref.paths[:1] if ref.source == Nifti.name else ref.paths


def _only_subject(ref: VolumeRef, root: Path, subjects: dict[str, str], told: bool) -> str:
    names = list(dict.fromkeys(subjects[relative(path, root)] for path in _naming(ref)))
    if len(names) > 1 and told:
        raise DataError(f"{ref.name}: one volume, but its files are given several subjects: {', '.join(sorted(names))}")
    return names[0]


def _unique(refs: list[VolumeRef], root: Path) -> list[VolumeRef]:
    """Tell `a.nii` and `a.nii.gz` apart by their full names."""
    count = Counter(ref.name for ref in refs)
    return [replace(ref, name=relative(ref.paths[0], root)) if count[ref.name] > 1 else ref for ref in refs]
