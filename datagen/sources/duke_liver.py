"""Duke Liver Dataset v2: abdominal MRI of patients, several series each, with liver masks.

    Segmentation/00NN/<series>/images/*.dicom      one file a slice
    Segmentation/00NN/<series>/masks/*.dicom       masks are DICOM files too: left out
    <other part>/00NN/<series>/*.dicom             other parts of the release, without masks

A patient's series show one anatomy, so the patient is the subject. Files are ordered by position, not by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ussim.volumes.anatomy import derived_by_header
from ussim.volumes.dicom import load_dicom
from ussim.volumes.dicom_headers import read_header, why_not
from ussim.volumes.files import files_in, folders_named, relative, subfolders
from ussim.volumes.volume import Found, Skipped, Volume, VolumeRef

from .base import Source
from .known import archives, without_repeats

_SUFFIXES = (".dicom", ".dcm")


class DukeLiver(Source):
    """Liver MRI, DICOM, several series a patient."""

    name = "duke-liver"
    title = "Duke Liver Dataset v2"
    licence = "as agreed with the owners on Zenodo (restricted access)"
    citation = (
        "Macdonald J. A., Zhu Z., Konkel B. et al. (2023). Duke Liver Dataset: a publicly available liver MRI dataset "
        "with liver segmentation masks and series labels. Radiology: Artificial Intelligence 5(5): e220275; "
        "doi:10.5281/zenodo.7774566"
    )
    terms = "request access on Zenodo and keep to what was agreed; do not pass the images on"
    redistributable = False
    layout = "Segmentation/00NN/<series>/images/*.dicom"
    where = "https://zenodo.org/records/7774566"
    folders = ("Duke-Liver", "duke-liver", "Segmentation")

    def find(self, root: str | Path | None) -> Found:
        """List the volumes under a root, by the layout above."""
        base = self.base(root)
        refs: list[VolumeRef] = []
        skipped: list[Skipped] = []
        n_masks = 0
        patients = folders_named(base, r"\d{4}", depth=3)
        parts = {patient.parent for patient in patients}
        for patient in patients:
            for series in subfolders(patient):
                files = files_in(series / "images", *_SUFFIXES) or files_in(series, *_SUFFIXES)
                n_masks += len(files_in(series / "masks", *_SUFFIXES))
                reason = series_reason(files)
                if reason:
                    skipped.append(Skipped(relative(series, base), reason))
                    continue
                part = f"{patient.parent.name}-" if len(parts) > 1 else ""
                name = f"{part}{patient.name}-{series.name}"
                refs.append(VolumeRef(self.name, patient.name, name, tuple(str(path) for path in files)))
        notes = [f"{n_masks} mask files left out"] if n_masks else []
        refs, repeats = without_repeats(base, refs)
        return self.some(base, Found(refs, [*skipped, *repeats, *archives(base)], notes))

    def load(self, ref: VolumeRef) -> Volume:
        """Read one volume."""
        return load_dicom(ref)


def series_reason(files: list[Path]) -> str:
    """Return why a folder of DICOM files is no usable series, judged by its first file; "" where it is."""
    if not files:
        return "no DICOM files"
    header = read_header(files[0])
    return "not DICOM files" if header is None else why_not_curated(header)


def why_not_curated(header: Any) -> str:
    """Return why an image of a collection is not used: what its owners chose is taken, but for phase images."""
    derived = derived_by_header(header)
    return why_not(header, include_derived=True) or (derived if derived == "phase image" else "")
