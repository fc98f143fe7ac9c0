"""Collections in miniature, each with the oddities of the real one, made from one phantom with a known place in the patient.

Every file samples `tissue` at the positions its header claims, so a reader that gets orientation or spacing right finds
the liver on the patient's right, the spine behind and the heart above, whatever way the slices were stored.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np

RIGHT_LIVER = (22.0, 8.0, -12.0)  # mm to Right, Anterior, Superior
LEFT_HEART = (-14.0, 14.0, 28.0)
SPINE = (0.0, -24.0)  # Right, Anterior


def tissue(right, anterior, superior):
    """Grey values of a body at positions in mm (RAS), 0 to 1000; arrays of one shape."""
    body = (right / 50) ** 2 + (anterior / 40) ** 2 + (superior / 70) ** 2 < 1
    values = np.where(body, 300.0 + 60 * np.sin(right / 4) * np.cos(anterior / 5) * np.cos(superior / 6), 4.0)
    spheres = [(*RIGHT_LIVER, 13, 700), (*LEFT_HEART, 11, 950)]
    for r0, a0, s0, radius, grey in spheres:
        inside = (right - r0) ** 2 + (anterior - a0) ** 2 + (superior - s0) ** 2 < radius**2
        values = np.where(inside & body, grey, values)
    spine = (right - SPINE[0]) ** 2 + (anterior - SPINE[1]) ** 2 < 7**2
    return np.where(spine & body, 80.0, values)


def slices(plane: str, n_slices: int = 5, shape=(64, 64), pixel=(1.6, 1.6), step: float = 6.0) -> np.ndarray:
    """Stack (slice, row, column) uint16 as displayed: radiological, superior or anterior up; slices to R, A or S."""
    rows = -(np.arange(shape[0]) - (shape[0] - 1) / 2) * pixel[0]  # towards Superior, or Anterior in axial slices
    columns = (np.arange(shape[1]) - (shape[1] - 1) / 2) * pixel[1]
    across = (np.arange(n_slices) - (n_slices - 1) / 2) * step
    along, down, right = np.meshgrid(across, rows, columns, indexing="ij")
    if plane == "axial":
        values = tissue(-right, down, along)
    elif plane == "coronal":
        values = tissue(-right, along, down)
    else:
        values = tissue(along, -right, down)
    return np.rint(values).astype(np.uint16)


def write_dicom(path: Path, pixels: np.ndarray, position, cosines, pixel_spacing=(1.6, 1.6), **tags) -> Path:
    """One classic MR image; `tags` override or add attributes, None removes one."""
    dataset = _mr_dataset("1.2.840.10008.5.1.4.1.1.4")
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelSpacing = list(pixel_spacing)
    dataset.ImagePositionPatient = [float(f"{value:.6f}") for value in position]
    dataset.ImageOrientationPatient = list(cosines)
    _finish(dataset, pixels, tags)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


# Direction of a row and of a column in DICOM's axes (Left, Posterior, Superior) of the three standard planes.
COSINES = {"axial": (1, 0, 0, 0, 1, 0), "coronal": (1, 0, 0, 0, 0, -1), "sagittal": (0, 1, 0, 0, 0, -1)}


def write_series(
    folder: Path,
    plane: str = "axial",
    n_slices: int = 5,
    step: float = 6.0,
    shape=(64, 64),
    pixel_spacing=(1.6, 1.6),
    cosines=None,
    name=lambda index: f"IM{index:04d}.dcm",
    gain=lambda index: 1.0,
    **tags,
) -> list[Path]:
    """A series of classic files; file names and instance numbers need not follow the positions."""
    cosines = COSINES[plane] if cosines is None else cosines
    row, column = np.array(cosines[:3], float), np.array(cosines[3:], float)
    normal = np.cross(row, column)
    uid = tags.pop("SeriesInstanceUID", f"1.2.826.0.1.3680043.10.1.{abs(hash_of(folder))}")
    paths = []
    for index in range(n_slices):
        center = normal * step * (index - (n_slices - 1) / 2)
        position = center - row * pixel_spacing[1] * (shape[1] - 1) / 2 - column * pixel_spacing[0] * (shape[0] - 1) / 2
        i, j = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
        points = position + row * pixel_spacing[1] * j[..., None] + column * pixel_spacing[0] * i[..., None]
        pixels = np.rint(tissue(-points[..., 0], -points[..., 1], points[..., 2]) * gain(index)).astype(np.uint16)
        one = {key: value(index) if callable(value) else value for key, value in tags.items()}
        paths.append(
            write_dicom(
                folder / name(index),
                pixels,
                position,
                cosines,
                pixel_spacing,
                **{
                    "SeriesInstanceUID": uid,
                    "SOPInstanceUID": f"{uid}.{index + 1}",
                    "InstanceNumber": index + 1,
                    **one,
                },
            )
        )
    return paths


def write_enhanced(path: Path, n_slices: int = 4, n_phases: int = 2, step: float = 5.0) -> Path:
    """Enhanced MR: one file, geometry and rescale in functional groups, phases interleaved, slices from the top down."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    dataset = _mr_dataset("1.2.840.10008.5.1.4.1.1.4.1")
    shape, pixel = (64, 64), 1.6
    frames, groups = [], []
    for slice_index in reversed(range(n_slices)):
        superior = step * (slice_index - (n_slices - 1) / 2)
        for phase in range(n_phases):
            stack = slices("axial", 1, shape, (pixel, pixel))  # at superior = 0; move it
            right = -(np.arange(shape[1]) - (shape[1] - 1) / 2) * pixel
            anterior = -(np.arange(shape[0]) - (shape[0] - 1) / 2) * pixel
            a, r = np.meshgrid(anterior, right, indexing="ij")
            stack = tissue(r, a, np.full(r.shape, superior)) * (1 + phase)
            frames.append(np.rint(stack / 2).astype(np.uint16))
            group = Dataset()
            place = Dataset()
            place.ImagePositionPatient = [-(shape[1] - 1) / 2 * pixel, -(shape[0] - 1) / 2 * pixel, superior]
            group.PlanePositionSequence = Sequence([place])
            content = Dataset()
            content.TemporalPositionIndex = phase + 1
            group.FrameContentSequence = Sequence([content])
            scale = Dataset()
            scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = 2.0, 0.0, "US"
            group.PixelValueTransformationSequence = Sequence([scale])
            groups.append(group)
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [pixel, pixel], 3.0
    orientation.ImageOrientationPatient = list(COSINES["axial"])
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([orientation])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    dataset.NumberOfFrames = len(frames)
    dataset.Rows, dataset.Columns = shape
    _finish(dataset, np.stack(frames), {})
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_nifti(
    path: Path,
    axes: str = "RAS",
    shape=(64, 64, 12),
    spacing=(1.6, 1.6, 6.0),
    compressed: bool | None = None,
    lost_spacing: bool = False,
    label: bool = False,
) -> Path:
    """A NIfTI volume with the voxel axes named (`"PIL"`: the first runs to Posterior, ...).

    `compressed` None follows the name. `lost_spacing` writes 1 x 1 x 1 mm and no orientation into the header.
    """
    import nibabel as nib
    from nibabel.orientations import axcodes2ornt

    orientation = axcodes2ornt(tuple(axes))
    affine = np.eye(4)
    affine[:3, :3] = 0
    for voxel_axis, (patient_axis, sign) in enumerate(orientation):
        affine[int(patient_axis), voxel_axis] = sign * spacing[voxel_axis]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    points = index @ affine[:3, :3].T + affine[:3, 3]
    values = tissue(points[..., 0], points[..., 1], points[..., 2])
    voxels = (values > 500).astype(np.uint8) if label else np.rint(values).astype(np.int16)
    image = nib.Nifti1Image(voxels, np.eye(4) if lost_spacing else affine)
    if lost_spacing:
        image.set_sform(None, 0)
        image.set_qform(None, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = image.to_bytes()
    compressed = str(path).endswith(".gz") if compressed is None else compressed
    # mtime 0: the same bytes each time
    path.write_bytes(gzip.compress(raw, mtime=0) if compressed else raw)
    return path


def mrnet(root: Path) -> Path:
    """Double folder, `valid` renamed, an id that lost its zeros, slices that vary, a plane missing, label sheets."""
    base = root / "MRNet-v1.0" / "MRNet-v1.0"
    exams = {"train": ("0000", "0001", "12"), "val": ("1130",)}
    for split, names in exams.items():
        for number, exam in enumerate(names):
            for plane in ("axial", "coronal", "sagittal"):
                if (exam, plane) == ("0001", "coronal"):
                    continue
                stack = slices(plane, 3 + number, (64, 64)) // 4  # 0 to 250
                folder = base / split / plane
                folder.mkdir(parents=True, exist_ok=True)
                np.save(folder / f"{exam}.npy", stack.astype(np.uint8))
    (base / "train-acl.csv").write_text("0000,1\n0001,0\n12,0\n")
    (base / "train" / "axial" / "._0000.npy").write_bytes(b"\0\5\x16\7")
    (base / "train" / "axial" / "notes.txt").write_text("not an exam")
    return root


def duke_liver(root: Path) -> Path:
    """Two patients, three series, .dicom files whose names sort wrongly, masks that are DICOM too."""
    for patient, series in (("0001", "4"), ("0001", "11"), ("0002", "7")):
        folder = root / "Segmentation" / patient / series
        write_series(folder / "images", PatientID=f"liver-{patient}", name=lambda index: f"{9 - index}.dicom")
        write_series(folder / "masks", name=lambda index: f"{index}.dicom", gain=lambda index: 0.001)
    (root / "Segmentation" / "0002" / "8" / "images").mkdir(parents=True)
    return root


def brainmetshare_nifti(root: Path) -> Path:
    """Sequences that differ in slices, test patients without masks and with a sequence missing."""
    base = root / "brainmetshare-3"
    for sequence, count in (("t1_pre", 12), ("t1_gd", 12), ("bravo", 10), ("flair", 12)):
        write_nifti(base / "train" / "Mets_001" / f"{sequence}.nii.gz", shape=(64, 64, count))
    write_nifti(base / "train" / "Mets_001" / "seg.nii.gz", label=True)
    for sequence in ("t1_pre", "bravo", "flair"):
        write_nifti(base / "test" / "Mets_106" / f"{sequence}.nii.gz")
    return root


def brainmetshare_pictures(root: Path) -> Path:
    """Numbered folders of skull-stripped pictures, names that only sort naturally, empty first and last slices."""
    from PIL import Image

    base = root / "stanford_release_brainmask" / "mets_stanford_releaseMask_train" / "Mets_002"
    stack = slices("axial", 12, step=14.0)
    stack = np.where(stack < 10, 0, stack // 4).astype(np.uint8)
    for folder in ("0", "1", "2", "3", "seg"):
        (base / folder).mkdir(parents=True)
        for index, image in enumerate(stack):
            Image.fromarray(image).save(base / folder / f"{index}.png")
    return root


def duke_breast(root: Path, form: str = "classic", sheet: str | None = "xlsx") -> Path:
    """Prone patients, a slice order that is reversed, a turned one, a mapping sheet with doubled slashes, a LICENSE."""
    base = root / "Duke-Breast-Cancer-MRI"
    rows = [("original_path_and_filename", "classic_path", "descriptive_path", "note")]
    for number, cosines in ((1, (1, 0, 0, 0, 1, 0)), (2, (-1, 0, 0, 0, -1, 0))):
        patient = f"Breast_MRI_{number:03d}"
        for order, (sequence, words) in enumerate(
            (("pre", "ax 3d dyn"), ("post_1", "Ph1ax 3d dyn"), ("post_2", "Ph2ax 3d dyn"), ("loc", "localizer"))
        ):
            uid = f"1.3.6.1.4.1.14519.5.2.1.186051415.{number}.{order + 100}"
            study = f"1.3.6.1.4.1.14519.5.2.1.186051415.{number}"
            classic = f"{study}/{uid}"
            descriptive = f"01-01-1990-NA-MRI BREAST BILATERAL-9753{number}/{order + 3}.000000-{words}-9554{order}"
            folder = base / patient / (classic if form == "classic" else descriptive)
            write_series(
                folder,
                cosines=cosines,
                SeriesInstanceUID=uid,
                SeriesDescription=words,
                PatientID=patient,
                name=lambda index: f"1-{9 - index:02d}.dcm",
            )
            if sequence == "loc":
                continue
            for index in range(5):
                rows.append(
                    (
                        f"DICOM_Images/{patient}/{sequence}/{patient}_{index}.dcm",
                        f"Duke-Breast-Cancer-MRI/{patient}//{classic}/1-{index}.dcm",
                        f"Duke-Breast-Cancer-MRI/{patient}/{descriptive}//1-{index}.dcm",
                        "",
                    )
                )
    (base / "LICENSE").write_text("CC BY-NC 4.0")
    name = "Breast-Cancer-MRI-filepath_filename-mapping"
    if sheet == "xlsx":
        from openpyxl import Workbook

        book = Workbook()
        for row in rows:
            book.active.append(row)
        book.save(root / f"{name}.xlsx")
    elif sheet == "csv":
        with open(root / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    return root


def umd(root: Path) -> Path:
    """Raw NIfTI named .gz, `_seq` for `_seg`, a digit too many, lost voxel sizes, DICOM beside NIfTI, macOS files."""
    base = root / "UMD"
    geometry = {"axes": "PIL", "shape": (64, 64, 9), "spacing": (1.6, 1.6, 6.0)}

    def dicom(case: str) -> None:
        write_series(base / case, "sagittal", 9, name=lambda index: f"{case}_{index + 1:02d}.dcm")

    for case in ("UMD_221129_001", "UMD_221129_002", "UMD_221129_037", "UMD_221129_040", "UMD_221129_041"):
        folder = base / case
        if case != "UMD_221129_041":  # DICOM only
            lost = case == "UMD_221129_040"
            write_nifti(folder / f"{case}_t2.nii.gz", **geometry, lost_spacing=lost, compressed=case[-1] != "2")
        dicom(case)
    write_nifti(base / "UMD_221129_001" / "UMD_221129_001_seg.nii.gz", **geometry, label=True)
    write_nifti(
        base / "UMD_221129_002" / "UMD_221129_002_seq.nii.gz",
        **geometry,
        label=True,
        compressed=False,
        lost_spacing=True,
    )
    write_nifti(base / "UMD_221129_037" / "UMD_2221129_037_seg.nii.gz", **geometry, label=True, compressed=False)
    (base / "UMD_221129_001" / "._UMD_221129_001_t2.nii.gz").write_bytes(b"\0\5\x16\7")
    (base / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    junk = root / "__MACOSX" / "UMD" / "UMD_221129_001"
    junk.mkdir(parents=True)
    (junk / "._UMD_221129_001_t2.nii.gz").write_bytes(b"\0\5\x16\7")
    return root


def misplaced(volume) -> float:
    """Fraction of a volume's voxels that do not show the tissue at their place: 0 where no axis is swapped or flipped.

    A bare stack is compared with `slices` of its plane; 8-bit files hold a quarter of the phantom's values.
    """
    if volume.orientation == "RAS":
        centered = [
            (np.arange(n) - (n - 1) / 2) * step for n, step in zip(volume.voxels.shape, volume.spacing, strict=True)
        ]
        expected = tissue(*np.meshgrid(*centered, indexing="ij"))
    else:
        n_slices, *shape = volume.voxels.shape
        step = 14.0 if volume.source == "brainmetshare" else 6.0
        expected = slices(volume.orientation, n_slices, tuple(shape), step=step) // 4
        if volume.source == "brainmetshare":
            expected = np.where(expected < 3, 0, expected)  # skull-stripped
    return float((np.abs(volume.voxels - expected) > 1).mean())


# Each collection in miniature: name of the source -> the trees that it must read.
TREES = {
    "mrnet": (mrnet,),
    "duke-liver": (duke_liver,),
    "brainmetshare": (brainmetshare_nifti, brainmetshare_pictures),
    "duke-breast": (duke_breast, lambda root: duke_breast(root, "descriptive", "csv")),
    "umd": (umd,),
}


def hash_of(path: Path) -> int:
    """A number that depends on the last folders of a path only, so that trees are the same wherever they are made."""
    import zlib

    return zlib.crc32("/".join(path.parts[-3:]).encode())


def _mr_dataset(sop_class: str):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop_class
    dataset.Modality = "MR"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "MRN-0012345"
    dataset.InstitutionName = "General Hospital"
    dataset.StudyInstanceUID = "1.2.826.0.1.3680043.10.7"
    dataset.SeriesInstanceUID = "1.2.826.0.1.3680043.10.7.1"
    dataset.SOPInstanceUID = "1.2.826.0.1.3680043.10.7.1.1"
    dataset.SeriesDescription = "t1_vibe"
    dataset.SliceThickness = 3.0
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    return dataset


def _finish(dataset, pixels: np.ndarray, tags: dict) -> None:
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.astype("<u2").tobytes()
    for key, value in tags.items():
        if value is None:
            del dataset[key]
        else:
            setattr(dataset, key, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
