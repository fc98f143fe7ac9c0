"""UMD, uterine myoma MRI: sagittal T2 of 300 patients, NIfTI and DICOM side by side.

    UMD/UMD_221129_NNN/UMD_221129_NNN_t2.nii.gz, ..._seg.nii.gz, ..._NN.dcm

What is odd in the release: 34 files are uncompressed NIfTI named .nii.gz, 33 label maps are called `_seq` and carry a
voxel size of 1 x 1 x 1 mm (about 0.45 x 0.45 x 5 mm in truth), one name has a digit too many (`UMD_2221129_037`), and
the archive holds macOS files. A case is its folder; the DICOM files are read only where the NIfTI image is missing or
has lost its voxel size, so that nothing is counted twice. Slices are 10 times as far apart as pixels: sagittal only.
"""

from __future__ import annotations

import re
from pathlib import Path

from ussim.errors import DataError
from ussim.volumes.dicom import load_dicom
from ussim.volumes.dicom_headers import read_header
from ussim.volumes.files import files_in, folders_named, relative, stem
from ussim.volumes.nifti import NIFTI_SUFFIXES, load_nifti, open_nifti
from ussim.volumes.volume import Found, Skipped, Volume, VolumeRef

from .base import Source
from .duke_liver import why_not_curated
from .known import archives, without_repeats


class UMD(Source):
    """Pelvic MRI, sagittal T2."""

    name = "umd"
    title = "UMD (uterine myoma MRI dataset)"
    licence = "as stated on figshare, doi:10.6084/m9.figshare.23541312"
    citation = (
        "Pan H., Chen M., Bai W. et al. (2024). Large-scale uterine myoma MRI dataset covering all FIGO types with "
        "pixel-level annotations. Scientific Data 11: 410; doi:10.1038/s41597-024-03170-x"
    )
    terms = "cite the paper and keep to the licence on the figshare page; check it before passing images on"
    redistributable = False
    layout = "UMD/UMD_221129_NNN/UMD_221129_NNN_t2.nii.gz"
    where = "https://doi.org/10.6084/m9.figshare.23541312"
    folders = ("UMD",)
    default_planes = ("sagittal",)

    def find(self, root: str | Path | None) -> Found:
        """List the volumes under a root, by the layout above."""
        base = self.base(root)
        refs: list[VolumeRef] = []
        skipped: list[Skipped] = []
        counts = {"raw": 0, "seq": 0, "unit": 0, "typo": 0, "dicom": 0}
        for case in folders_named(base, r"UMD_\d+_\d+", depth=3):
            self._case(base, case, refs, skipped, counts)
        wording = {
            "raw": "{} files are uncompressed NIfTI named .gz",
            "seq": "{} label maps are named _seq instead of _seg",
            "unit": "{} files say 1 x 1 x 1 mm",
            "typo": "{} files do not carry their folder's name",
            "dicom": "{} DICOM files lie beside NIfTI images and are not counted twice",
        }
        notes = [text.format(counts[key]) for key, text in wording.items() if counts[key]]
        refs, repeats = without_repeats(base, refs)
        return self.some(base, Found(refs, [*skipped, *repeats, *archives(base)], notes))

    def load(self, ref: VolumeRef) -> Volume:
        """Read one volume."""
        return load_nifti(ref) if ref.paths[0].lower().endswith(NIFTI_SUFFIXES) else load_dicom(ref)

    def _case(
        self, base: Path, case: Path, refs: list[VolumeRef], skipped: list[Skipped], counts: dict[str, int]
    ) -> None:
        image: tuple[Path, tuple[str, ...]] | None = None
        lost_size = False
        for path in files_in(case, *NIFTI_SUFFIXES):
            name = stem(path)
            counts["typo"] += not name.startswith(case.name)
            counts["seq"] += name.lower().endswith("_seq")
            try:
                with open_nifti(path) as (header, notes):
                    is_unit = tuple(header.header.get_zooms()[:3]) == (1.0, 1.0, 1.0)
            except DataError as error:
                skipped.append(Skipped(relative(path, base), str(error).removeprefix(f"{path}: ")))
                continue
            counts["raw"] += "uncompressed file named .gz" in notes
            counts["unit"] += is_unit
            if re.search(r"_t2$", name, re.IGNORECASE):
                image, lost_size = (path, tuple(notes)), is_unit
        slices = [path for path in files_in(case, ".dcm") if _is_image(path)]
        if image and not (lost_size and slices):
            counts["dicom"] += len(slices)
            refs.append(VolumeRef(self.name, case.name, case.name, (str(image[0]),), notes=image[1]))
        elif slices:
            why = "NIfTI image without its voxel size" if image else "no NIfTI image"
            paths = tuple(str(path) for path in slices)
            refs.append(VolumeRef(self.name, case.name, case.name, paths, notes=(f"{why}: read from DICOM",)))
        else:
            skipped.append(Skipped(relative(case, base), "no ..._t2.nii.gz and no DICOM files"))


def _is_image(path: Path) -> bool:
    header = read_header(path)
    return header is not None and not why_not_curated(header)
