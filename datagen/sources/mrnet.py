"""MRNet v1.0: knee MRI from Stanford, NumPy stacks of uint8, one a plane and exam.

    MRNet-v1.0/{train,valid}/{axial,coronal,sagittal}/NNNN.npy    (slice, 256, 256)
    MRNet-v1.0/{train,valid}-{abnormal,acl,meniscus}.csv          labels, not read here

The three planes of an exam are separate series with contrasts of their own, so each is a volume; an exam is a subject.
Voxel sizes are not part of the release: pixels are taken as square.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ..files import files_in, relative, subfolders
from ..readers import load_npy
from ..volumes import PLANES, Found, Skipped, Volume, VolumeRef
from .base import Source

# Folder as found -> split; some copies rename `valid`.
_SPLITS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}


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
                for plane in PLANES:
                    self._exams(base, folder / plane, split, plane, refs, skipped)
        _notice_missing_planes(refs, notes)
        return self.some(base, Found(refs, skipped, notes))

    def _exams(
        self, base: Path, folder: Path, split: str, plane: str, refs: list[VolumeRef], skipped: list[Skipped]
    ) -> None:
        for path in files_in(folder):
            if path.suffix != ".npy" or not path.stem.isdigit():
                skipped.append(Skipped(relative(path, base), "expected NNNN.npy"))
                continue
            exam = path.stem.zfill(4)  # an id that went through a spreadsheet has lost its zeros
            name = f"{split}-{exam}-{plane}"
            refs.append(VolumeRef(self.name, exam, name, (str(path),), orientation=plane))

    def load(self, ref: VolumeRef) -> Volume:
        return load_npy(ref)


def releases(base: Path) -> list[Path]:
    """Folders that hold the splits: `base` itself or up to two levels below (archives unpack to a double folder)."""
    level = [base]
    for _ in range(3):
        hits = [
            folder
            for folder in level
            if any((folder / split / plane).is_dir() for split in _SPLITS for plane in PLANES)
        ]
        if hits:
            return hits
        level = [child for folder in level for child in subfolders(folder)]
    return []


def _notice_missing_planes(refs: list[VolumeRef], notes: list[str]) -> None:
    planes = Counter(ref.subject for ref in refs)
    incomplete = sum(1 for count in planes.values() if count < len(PLANES))
    if incomplete:
        notes.append(f"{incomplete} of {len(planes)} exams lack one of the three planes")
