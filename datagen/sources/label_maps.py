"""Label maps of the user's own as a source: tissues make images of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ussim.errors import DataError
from ussim.volumes.damage import told, without_path
from ussim.volumes.files import relative
from ussim.volumes.nifti import VOLUME_SUFFIXES
from ussim.volumes.nrrd import files_of
from ussim.volumes.segmentation import DICOM_SUFFIXES, load_labels
from ussim.volumes.volume import Found, Skipped, Volume, VolumeRef, named

from .generic import _headers_first, _Own, _ref, _some


class LabelMaps(_Own):
    """Every label map (NIfTI and alike, NPY, DICOM SEG) under a folder, or a single one; all numbers need tissues."""

    name = "labels"
    title = "label maps of your own"
    layout = "a folder with label maps (.nii, .nii.gz, .nrrd, .mha, .mgz, .npy, or DICOM SEG as .dcm), or one such file"
    is_labels = True

    def find(self, root: str | Path | None) -> Found:
        """List the label maps under a root, by the layout above."""
        base = self.base(root)
        refs: list[VolumeRef] = []
        skipped: list[Skipped] = []
        seen: set[Path] = set()
        for path in _headers_first(self._files(base, skipped)):
            lower = path.name.lower()
            if not lower.endswith((*VOLUME_SUFFIXES, ".npy", *DICOM_SUFFIXES)) or path in seen:
                continue
            files: tuple[Path, ...] = (path,)
            try:
                if lower.endswith(VOLUME_SUFFIXES):
                    with told(str(path)):
                        files = files_of(path)
            except DataError as error:
                skipped.append(Skipped(relative(path, base), without_path(error, path)))
                continue
            seen.update(files)
            refs.append(replace(_ref(self, base, path), paths=tuple(str(file) for file in files)))
        return _some(self, base, refs, skipped)

    def load(self, ref: VolumeRef) -> Volume:
        """Read one label map."""
        with named(ref):
            volume = load_labels(ref.paths[0]).volume
        return replace(volume, source=ref.source, subject=ref.subject, name=ref.name, notes=(*ref.notes, *volume.notes))
