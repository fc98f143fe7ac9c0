"""MRNet v1.0: knee MRI from Stanford, NumPy stacks of uint8, one per plane and exam.

    MRNet-v1.0/{train,valid}/{axial,coronal,sagittal}/NNNN.npy    (slice, 256, 256)
    MRNet-v1.0/{train,valid}-{abnormal,acl,meniscus}.csv          labels, not read here

The three planes of an exam are separate series with contrasts of their own, so each is a volume; an exam is a subject.
Voxel sizes are not part of the release: pixels are taken as square.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ussim.volumes.files import files_in, relative, subfolders
from ussim.volumes.pictures import load_npy
from ussim.volumes.volume import PLANES, Found, Skipped, Volume, VolumeRef

from .base import Source
from .known import archives, without_repeats

# Folder as found -> split; some copies rename `valid`.
_SPLITS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
_DEPTH = 4  # levels below the root that are searched


class MRNet(Source):
    """Knee MRI in three planes, 1,250 public exams."""

    name = "mrnet"
    title = "MRNet v1.0"
    licence = "Stanford University School of Medicine MRNet Dataset Research Use Agreement"
    citation = (
        "Bien N., Rajpurkar P., Ball R. L. et al. (2018). Deep-learning-assisted diagnosis for knee magnetic resonance "
        "imaging: development and retrospective validation of MRNet. PLoS Medicine 15(11): e1002699"
    )
    terms = "register and accept the research use agreement; research only; share neither the data nor the link"
    redistributable = False
    layout = "MRNet-v1.0/{train,valid}/{axial,coronal,sagittal}/NNNN.npy"
    where = "https://stanfordmlgroup.github.io/competitions/mrnet/"
    folders = ("MRNet-v1.0",)
    default_planes = PLANES

    def find(self, root: str | Path | None) -> Found:
        """List the volumes under a root, by the layout above."""
        base = self.base(root)
        refs: list[VolumeRef] = []
        skipped: list[Skipped] = []
        notes: list[str] = []
        for release in releases(base):
            for folder in subfolders(release):
                split = _SPLITS.get(folder.name.lower())
                if split is None:
                    continue
                if folder.name != split:
                    notes.append(f"{relative(folder, base)}: read as {split}")
                for child in subfolders(folder):
                    if (plane := child.name.lower()) in PLANES:
                        self._exams(base, child, split, plane, refs, skipped)
        _notice_missing_planes(refs, notes)
        refs, repeats = without_repeats(base, refs)
        return self.some(base, Found(refs, [*skipped, *repeats, *archives(base)], notes))

    def _exams(
        self, base: Path, folder: Path, split: str, plane: str, refs: list[VolumeRef], skipped: list[Skipped]
    ) -> None:
        for path in files_in(folder):
            if path.suffix.lower() != ".npy" or not path.stem.isdigit():
                skipped.append(Skipped(relative(path, base), "expected NNNN.npy"))
                continue
            exam = path.stem.zfill(4)  # an id that went through a spreadsheet has lost its zeros
            name = f"{split}-{exam}-{plane}"
            refs.append(VolumeRef(self.name, exam, name, (str(path),), orientation=plane))

    def load(self, ref: VolumeRef) -> Volume:
        """Read one volume."""
        return load_npy(ref)


def releases(base: Path) -> list[Path]:
    """Folders that hold the splits: `base`, folders below it (archives unpack to a double folder), or one above it."""
    # A root one or two levels too deep: the folder of a split, or of a plane in it.
    for above in (base, base.parent):
        if base.is_dir() and above.name.lower() in _SPLITS and _has_planes(above):
            return [above.parent]
    found, level = [], [base]
    for _ in range(_DEPTH + 1):
        deeper = []
        for folder in level:
            children = subfolders(folder)
            if any(child.name.lower() in _SPLITS and _has_planes(child) for child in children):
                found.append(folder)
            else:
                deeper += children
        level = deeper[:5000]  # some other tree, and a large one
    return found


def _has_planes(folder: Path) -> bool:
    return any(child.name.lower() in PLANES for child in subfolders(folder))


def _notice_missing_planes(refs: list[VolumeRef], notes: list[str]) -> None:
    planes = Counter(ref.subject for ref in refs)
    incomplete = sum(1 for count in planes.values() if count < len(PLANES))
    if incomplete:
        notes.append(f"{incomplete} of {len(planes)} exams lack one of the three planes")
