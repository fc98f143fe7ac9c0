"""BrainMetShare (Stanford): brain metastases MRI, four sequences a patient, in two forms.

    brainmetshare-3/{train,test}/Mets_NNN/{t1_pre,t1_gd,bravo,flair,seg}.nii.gz
    stanford_release_brainmask/mets_stanford_releaseMask_{train,test}/Mets_NNN/{0,1,2,3,seg}/<slice>.png

Sequences of a patient may differ in slices and, in the test set, be missing. The second form is skull-stripped pictures:
its background is exactly black, and its folders are numbers, taken here as 0 bravo, 1 t1_pre, 2 t1_gd, 3 flair.
"""

from __future__ import annotations

from pathlib import Path

from ussim.errors import DataError
from ussim.volumes.files import files_in, folders_named, relative, stem, subfolders
from ussim.volumes.nifti import NIFTI_SUFFIXES, load_nifti, open_nifti
from ussim.volumes.pictures import PICTURE_SUFFIXES, load_pictures
from ussim.volumes.volume import Found, Skipped, Volume, VolumeRef

from .base import Source
from .known import archives, without_repeats

_SEQUENCES = ("bravo", "t1_pre", "t1_gd", "flair")  # in the order of the numbered folders


class BrainMetShare(Source):
    """Brain MRI in four sequences, NIfTI or pictures."""

    name = "brainmetshare"
    title = "BrainMetShare"
    licence = "Stanford University dataset research use agreement"
    citation = (
        "Grøvik E., Yi D., Iv M. et al. (2020). Deep learning enables automatic detection and segmentation of brain "
        "metastases on multisequence MRI. Journal of Magnetic Resonance Imaging 51(1): 175-182"
    )
    terms = "register with Stanford AIMI and accept the research use agreement; do not pass the images on"
    redistributable = False
    layout = "{train,test}/Mets_NNN/{bravo,t1_pre,t1_gd,flair}.nii.gz, or .../Mets_NNN/{0,1,2,3}/<slice>.png"
    where = "https://aimi.stanford.edu/brainmetshare"
    folders = ("brainmetshare-3", "brainmetshare", "stanford_release_brainmask")
    default_planes = ("axial",)

    def find(self, root: str | Path | None) -> Found:
        """List the volumes under a root, by the layout above."""
        base = self.base(root)
        refs: list[VolumeRef] = []
        skipped: list[Skipped] = []
        slices: dict[Path, set[int]] = {}
        n_missing = n_uneven = 0
        patients = folders_named(base, r"Mets_\d+", depth=4)
        for patient in patients:
            counts = self._nifti(base, patient, refs, skipped) or self._pictures(base, patient, refs, skipped)
            if not counts:
                skipped.append(Skipped(relative(patient, base), "no sequence in it"))
                continue
            slices[patient] = set(counts.values())
            n_missing += len(counts) < len(_SEQUENCES)
            n_uneven += len(slices[patient]) > 1
        notes = []
        if n_missing:
            notes.append(f"{n_missing} of {len(patients)} patients lack one of the four sequences")
        if n_uneven:
            notes.append(f"{n_uneven} of {len(patients)} patients have sequences that differ in slices")
        refs, repeats = without_repeats(base, refs)
        return self.some(base, Found(refs, [*skipped, *repeats, *archives(base)], notes))

    def load(self, ref: VolumeRef) -> Volume:
        """Read one volume."""
        return load_nifti(ref) if ref.paths[0].lower().endswith(NIFTI_SUFFIXES) else load_pictures(ref)

    def _nifti(self, base: Path, patient: Path, refs: list[VolumeRef], skipped: list[Skipped]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for path in files_in(patient, *NIFTI_SUFFIXES):
            sequence = stem(path).lower()
            if sequence == "seg":
                continue
            if sequence not in _SEQUENCES:
                skipped.append(Skipped(relative(path, base), f"expected one of {', '.join(_SEQUENCES)}"))
                continue
            try:
                with open_nifti(path) as (image, notes):
                    counts[sequence] = image.shape[2] if len(image.shape) > 2 else 1
            except DataError as error:
                skipped.append(Skipped(relative(path, base), str(error).removeprefix(f"{path}: ")))
                continue
            refs.append(self._ref(patient, sequence, (str(path),), "", tuple(notes)))
        return counts

    def _pictures(self, base: Path, patient: Path, refs: list[VolumeRef], skipped: list[Skipped]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for folder in subfolders(patient):
            name = folder.name.lower()
            if name == "seg":
                continue
            sequence = _SEQUENCES[int(name)] if name in ("0", "1", "2", "3") else name
            files = files_in(folder, *PICTURE_SUFFIXES)
            if sequence not in _SEQUENCES or not files:
                reason = "no pictures" if sequence in _SEQUENCES else f"expected 0 to 3 or {', '.join(_SEQUENCES)}"
                skipped.append(Skipped(relative(folder, base), reason))
                continue
            counts[sequence] = len(files)
            notes = (f"folder {name} taken as {sequence}",) if name.isdigit() else ()
            refs.append(self._ref(patient, sequence, tuple(str(path) for path in files), "axial", notes))
        return counts

    def _ref(
        self, patient: Path, sequence: str, paths: tuple[str, ...], orientation: str, notes: tuple[str, ...]
    ) -> VolumeRef:
        split = "test" if "test" in patient.parent.name.lower() else "train"
        return VolumeRef(
            self.name, patient.name, f"{split}-{patient.name}-{sequence}", paths, orientation=orientation, notes=notes
        )
