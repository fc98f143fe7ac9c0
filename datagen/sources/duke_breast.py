"""Duke-Breast-Cancer-MRI (TCIA): dynamic contrast-enhanced breast MRI of 922 patients.

    Duke-Breast-Cancer-MRI/Breast_MRI_NNN/<study>/<series>/*.dcm

`<study>` and `<series>` are UIDs ("classic" download) or words ("descriptive": `3.000000-ax t1-95549`). What a series is
(pre, post_1 to post_4, T1) is said by the mapping sheet Breast-Cancer-MRI-filepath_filename-mapping (.xlsx, or saved as
.csv), since the scanners' own descriptions differ. Without the sheet every series is taken, under its folder's name.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ussim.errors import DataError
from ussim.volumes.dicom import load_dicom
from ussim.volumes.files import files_in, folders_named, relative, subfolders
from ussim.volumes.volume import Found, Skipped, Volume, VolumeRef

from .base import Source
from .duke_liver import series_reason
from .known import archives, without_repeats

_SHEET = "Breast-Cancer-MRI-filepath_filename-mapping"
_COLUMNS = ("original_path_and_filename", "classic_path", "descriptive_path")


class DukeBreast(Source):
    """Breast MRI, DICOM, one pre- and three or four post-contrast series a patient."""

    name = "duke-breast"
    title = "Duke-Breast-Cancer-MRI"
    licence = "CC BY-NC 4.0"
    citation = (
        "Saha A., Harowicz M. R., Grimm L. J. et al. (2021). Dynamic contrast-enhanced magnetic resonance images of "
        "breast cancer patients with tumor locations. The Cancer Imaging Archive, doi:10.7937/TCIA.e3sv-re93"
    )
    terms = "not for commercial use; cite; the TCIA data usage policy holds (no attempt to identify anyone)"
    redistributable = True
    layout = "Duke-Breast-Cancer-MRI/Breast_MRI_NNN/<study>/<series>/*.dcm"
    where = "https://doi.org/10.7937/TCIA.e3sv-re93"
    folders = ("Duke-Breast-Cancer-MRI",)
    default_planes = ("axial",)

    def find(self, root: str | Path | None) -> Found:
        """List the volumes under a root, by the layout above."""
        base = self.base(root)
        patients = folders_named(base, r"Breast_MRI_\d+", depth=3)
        sheet = find_sheet(base, patients)
        sequences = read_sheet(sheet) if sheet and patients else {}
        refs: list[VolumeRef] = []
        skipped: list[Skipped] = []
        for patient in patients:
            for series in (series for study in subfolders(patient) for series in subfolders(study)):
                files = files_in(series, ".dcm")
                sequence = sequences.get((patient.name, series.name))
                reason = series_reason(files)
                if not reason and sheet and sequence is None:
                    reason = "not in the mapping sheet"
                if reason:
                    skipped.append(Skipped(relative(series, base), reason))
                    continue
                name = f"{patient.name}-{sequence or _short(series.name)}"
                refs.append(VolumeRef(self.name, patient.name, name, tuple(str(path) for path in files)))
        notes = [] if sheet else [f"no mapping sheet ({_SHEET}.xlsx): series go by their folders' names"]
        refs, repeats = without_repeats(base, refs)
        return self.some(base, Found(refs, [*skipped, *repeats, *archives(base)], notes))

    def load(self, ref: VolumeRef) -> Volume:
        """Read one volume."""
        return load_dicom(ref)


def find_sheet(base: Path, patients: list[Path]) -> Path | None:
    """Return the mapping sheet: in the root, beside or above the patients' folders, or in a folder next to them.

    A .csv saved from it is preferred, since the .xlsx has three quarters of a million rows and takes a minute to read.
    """
    places = [
        base,
        *({patient.parent for patient in patients[:1]} | {patient.parent.parent for patient in patients[:1]}),
    ]
    places += [child for place in places[:1] for child in subfolders(place)]
    for suffix in (".csv", ".xlsx"):
        for place in places:
            if (place / (_SHEET + suffix)).is_file():
                return place / (_SHEET + suffix)
    return None


def read_sheet(sheet: Path) -> dict[tuple[str, str], str]:
    """(patient, series folder) -> sequence, for the classic and the descriptive names of the folder alike.

    The original path is `<prefix>/Breast_MRI_001/pre/<file>`. Paths in the sheet hold doubled slashes.
    """
    rows: Iterator[Sequence[object]] = _csv_rows(sheet) if sheet.suffix == ".csv" else _xlsx_rows(sheet)
    header = [str(cell or "").strip() for cell in next(rows, ())]
    missing = [column for column in _COLUMNS if column not in header]
    if missing:
        raise DataError(f"{sheet}: expected the columns {', '.join(_COLUMNS)}; {', '.join(missing)} missing")
    original, *paths = (header.index(column) for column in _COLUMNS)
    sequences: dict[tuple[str, str], str] = {}
    for row in rows:
        parts = _parts(row[original])
        if len(parts) < 3:
            continue
        for column in paths:
            folders = _parts(row[column])
            if len(folders) >= 2:
                sequences[parts[1], folders[-2]] = parts[-2]
    return sequences


def _parts(cell: object) -> list[str]:
    return [part.strip() for part in re.split(r"[/\\]+", str(cell or "")) if part.strip()]


def _csv_rows(sheet: Path) -> Iterator[list[str]]:
    with open(sheet, newline="", encoding="utf-8-sig") as file:
        yield from csv.reader(file)


def _xlsx_rows(sheet: Path) -> Iterator[tuple[object, ...]]:
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = load_workbook(sheet, read_only=True, data_only=True)
    except (InvalidFileException, OSError, KeyError, ValueError) as error:
        raise DataError(f"{sheet}: not a readable Excel file: {error}") from None
    try:
        for row in book.worksheets[0].iter_rows(values_only=True):
            yield tuple(row)
    finally:
        book.close()


def _short(folder: str) -> str:
    """Return a series folder's name; of a UID the last digits."""
    return folder.rsplit(".", 1)[-1][-10:] if re.fullmatch(r"[\d.]{20,}", folder) else folder
