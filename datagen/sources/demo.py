"""Real MRI that ordinary dependencies ship, so that a first dataset needs no download.

Two volumes: an abdominal MR slice from pydicom's test files (a DICOM file) and a skull-stripped brain from nibabel's (a
4-D NIfTI file; its first frame is used).
"""

from __future__ import annotations

from pathlib import Path

from ussim.errors import DataError
from ussim.volumes.dicom import load_dicom, scan_dicom
from ussim.volumes.nifti import load_nifti
from ussim.volumes.volume import Found, Volume, VolumeRef

from .base import Source


class Demo(Source):
    """An abdominal slice (pydicom) and a brain (nibabel)."""

    name = "demo"
    title = "the demonstration data (test files of pydicom and nibabel)"
    licence = "MIT (pydicom and nibabel, which ship the files)"
    citation = "pydicom, https://github.com/pydicom/pydicom; NiBabel, https://github.com/nipy/nibabel"
    terms = "the MIT licences of pydicom and nibabel"
    redistributable = True
    layout = "the test files that pydicom and nibabel install with themselves"
    default_planes = ("axial",)
    needs_root = False

    def find(self, root: str | Path | None = None) -> Found:
        """List the volumes under a root, by the layout above."""
        abdomen, brain = _abdomen(), _brain()
        refs, _ = scan_dicom([abdomen], abdomen.parent, self.name, include_derived=True)
        return Found(
            [
                VolumeRef(self.name, refs[0].subject, "abdomen", (str(abdomen),)),
                VolumeRef(self.name, "nibabel-example4d", "brain", (str(brain),)),
            ]
        )

    def load(self, ref: VolumeRef) -> Volume:
        """Read one volume."""
        return load_dicom(ref) if ref.name == "abdomen" else load_nifti(ref)


def _abdomen() -> Path:
    from pydicom.data import get_testdata_file

    file = get_testdata_file("examples_overlay.dcm", download=False)
    if file is None:
        raise _stripped("pydicom", "pydicom/data/test_files/examples_overlay.dcm")
    return Path(str(file))


def _brain() -> Path:
    import nibabel

    path = Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz"
    if not path.is_file():
        raise _stripped("nibabel", "nibabel/tests/data/example4d.nii.gz")
    return path


def _stripped(package: str, file: str) -> DataError:
    return DataError(
        f"demo: {package} is installed without its test file {file} (some distributions strip it); "
        f"reinstall it from PyPI (pip install --force-reinstall --no-deps {package}) or use --source nifti or dicom"
    )
