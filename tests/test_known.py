"""A known collection stays known, whatever was done to its folders; repeats and packed archives are named."""

from __future__ import annotations

import re
import shutil
import zipfile

import numpy as np
import pytest
import trees

from datagen import Recipe
from datagen.plan.samples import COPIED, make_plan
from datagen.sources import get_source
from datagen.sources.inspect import inspect
from ussim.errors import DataError


def renamed(root, **changes):
    for old, new in changes.items():
        for path in sorted(root.rglob(old), key=lambda path: -len(path.parts)):
            path.rename(path.with_name(new))
    return root


@pytest.mark.parametrize("name", [name for name, makers in trees.TREES.items()])
def test_two_copies_of_a_collection_are_one(tmp_path, name):
    """The second copy is skipped with both paths; it is not taken for files of one's own."""
    tree = tmp_path / "tree"
    trees.TREES[name][0](tree)
    before = get_source(name).find(tree)
    (top,) = [child for child in tree.iterdir() if child.is_dir() and child.name != "__MACOSX"]
    shutil.copytree(top, tree / "copy" / top.name)
    found = get_source(name).find(tree)
    part = (
        f"{top.name}-" if name == "duke-liver" else ""
    )  # there the parts of a release are told apart by their folders
    assert [ref.name for ref in found] == [part + ref.name for ref in before]
    copies = [item for item in found.skipped if item.reason.startswith("a copy of ")]
    assert len(copies) >= len(before) > 0
    assert "copy/" in copies[0].path + copies[0].reason
    assert inspect(tree).source == name


def test_mrnet_val_beside_valid_with_other_data_under_one_name(tmp_path):
    base = trees.mrnet(tmp_path) / "MRNet-v1.0" / "MRNet-v1.0"
    shutil.copytree(base / "val", base / "valid")
    changed = np.load(base / "valid" / "axial" / "1130.npy") // 2
    np.save(base / "valid" / "axial" / "1130.npy", changed)
    inspection = inspect(tmp_path)
    assert inspection.source == "mrnet"
    said = {reason: (count, first) for reason, count, first in inspection.skipped}
    count, first = said["other data under the name of another file"]
    assert count == 1
    assert first == (
        "MRNet-v1.0/MRNet-v1.0/valid/axial/1130.npy: other data under the name of "
        "MRNet-v1.0/MRNet-v1.0/val/axial/1130.npy"
    )
    assert said["a copy of another file"][1].endswith(": a copy of MRNet-v1.0/MRNet-v1.0/val/coronal/1130.npy")


@pytest.mark.parametrize("inside", ["MRNet-v1.0/MRNet-v1.0/train", "MRNet-v1.0/MRNet-v1.0/train/axial", "../.."])
def test_mrnet_from_a_root_too_deep_or_too_high(tmp_path, inside):
    tree = trees.mrnet(tmp_path / "a" / "b")
    inspection = inspect(tree / inside)
    assert (inspection.source, inspection.redistributable) == ("mrnet", False)
    assert inspection.n_volumes == 11


def test_mrnet_in_capitals(tmp_path):
    base = renamed(trees.mrnet(tmp_path), train="TRAIN", axial="Axial", val="Valid")
    for path in list(base.rglob("*.npy")):
        path.rename(path.with_suffix(".NPY"))
    assert (inspect(tmp_path).source, inspect(tmp_path).n_volumes) == ("mrnet", 11)


def test_what_looks_like_a_collection_is_never_ones_own_without_saying_so(tmp_path):
    folder = tmp_path / "MRNet-v1.0" / "knees"
    folder.mkdir(parents=True)
    np.save(folder / "a.npy", trees.slices("axial", 3))
    inspection = inspect(folder)
    assert inspection.source == "npy"
    assert not inspection.redistributable
    assert any(oddity.startswith("looks like mrnet: its terms hold") for oddity in inspection.oddities)
    assert "share neither the data nor the link" in inspection.terms


def test_an_archive_left_packed_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "MRNet-v1.0.zip", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(DataError, match=r"1 packed archive \(the first: MRNet-v1.0.zip\): unpack"):
        inspect(tmp_path)
    trees.write_nifti(tmp_path / "kim.nii", shape=(8, 8, 8))
    assert inspect(tmp_path).skipped == (("packed archive, not looked into: unpack it", 1, "MRNet-v1.0.zip"),)


def test_copies_of_files_are_skipped_with_both_paths(tmp_path):
    trees.write_nifti(tmp_path / "kim" / "a.nii", shape=(8, 8, 8))
    shutil.copy(tmp_path / "kim" / "a.nii", tmp_path / "lee.nii")
    found = get_source("nifti").find(tmp_path)
    assert [ref.name for ref in found] == ["lee"]
    assert [(item.path, item.reason) for item in found.skipped] == [
        ("kim/a.nii", "a copy of lee.nii")
    ]  # files before folders


def test_equal_pixels_in_two_formats_are_built_once(tmp_path):
    """Compressed and not: other bytes, other names, the same pixels."""
    for name in ("kim/a.nii", "lee/b.nii.gz"):
        trees.write_nifti(tmp_path / name)
    recipe = Recipe(source="nifti", root=tmp_path, probes="P4-2v", planes="axial", patches=False)
    plan = make_plan(recipe.resolve("cpu"))
    assert len({sample.ref.subject for sample in plan.samples}) == 1
    assert len({sample.pixels for sample in plan.samples}) == len(plan.samples)
    assert plan.skipped[COPIED] == len(plan.samples)
    (note,) = [note for note in plan.notes if "built once" in note]
    assert "kim/a.nii" in note
    assert "lee/b.nii.gz" in note


@pytest.fixture
def mixed(tmp_path):
    """Two persons and three series among what is no anatomy, a copy, an archive, damaged files and a note."""
    root = tmp_path / "mixed"
    for person, series, gain, tags in (
        ("kim", "t1", 1.0, {}),
        ("kim", "t2", 0.7, {"SeriesDescription": "t2_tse"}),
        ("lee", "t1", 0.9, {}),
        ("lee", "phase", 1.0, {"ImageType": ["ORIGINAL", "PRIMARY", "P"]}),
        ("lee", "loc", 1.0, {"SeriesDescription": "localizer"}),
        ("lee", "labels", 1.0, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}),
    ):
        tags = tags | {"PatientID": person, "StudyInstanceUID": f"1.2.{'kim lee'.index(person)}"}
        trees.write_series(root / person / series, gain=lambda _, gain=gain: gain, **tags)
    shutil.copytree(root / "kim" / "t1", root / "kim" / "t1 (1)")
    with zipfile.ZipFile(root / "old.zip", "w") as archive:
        archive.writestr("a", "b")
    damaged = root / "lee" / "t1" / "IM0002.dcm"
    damaged.write_bytes(damaged.read_bytes()[:-3000])
    (root / "lee" / "t1" / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\7" * 50)
    (root / "kim" / "notes.txt").write_text("called on Tuesday")
    return root


MIXED = [  # as `inspect` prints it, with hashes as *
    "mixed: DICOM files of your own (--source dicom)",
    "  3 volumes of 2 subjects: *, *, *",
    "  size: 64 x 64 x 5, 1.6 x 1.6 x 6 mm, t1_vibe (2 volumes)",
    "  size: 64 x 64 x 5, 1.6 x 1.6 x 6 mm, t2_tse (1 volume)",
    "  subjects: by the PatientID in the files, hashed",
    "  odd: 1 of 5 slices cannot be read: left out, the volume has a gap (1 volume)",
    "  odd: 5 images sent twice (equal position and pixels): used once (1 volume)",
    "  skipped: 5 x the same image as another file (equal position and pixels) (first: kim/t1 (1)/IM0000.dcm: the same "
    "image as kim/t1/IM0000.dcm)",
    "  skipped: 5 x segmentation (first: lee/labels/IM0000.dcm)",
    "  skipped: 5 x localizer (first: lee/loc/IM0000.dcm)",
    "  skipped: 5 x phase image (first: lee/phase/IM0000.dcm)",
    "  skipped: 1 x not a DICOM file (first: kim/notes.txt)",
    "  skipped: 1 x no image in it (first: lee/t1/broken.dcm)",
    "  skipped: 1 x packed archive, not looked into: unpack it (first: old.zip)",
]


def test_a_mixed_folder_reads_as_a_plain_report(mixed, monkeypatch):
    monkeypatch.chdir(mixed.parent)
    lines = inspect("mixed").lines()
    assert [re.sub(r"\bp[0-9a-f]{12}-s[0-9a-f]{8}\b", "*", line) for line in lines] == MIXED


def test_a_build_of_a_mixed_folder_says_the_same(mixed):
    plan = make_plan(Recipe(source="dicom", root=mixed, probes="P4-2v", planes="axial", patches=False).resolve("cpu"))
    assert plan.n_volumes == 3
    assert len(plan.subjects) == 2
    assert len(plan.samples) == 5 + 5 + 4  # one slice was cut short
    assert not plan.unreadable
    skipped = [line.removeprefix("  skipped: ") for line in MIXED if line.startswith("  skipped: ")]
    several = [f"left out dicom: {line}" for line in skipped if not line.startswith("1 x ")]
    assert [note for note in plan.notes if " x " in note] == several
    for words in ("kim/notes.txt: not a DICOM file", "old.zip: packed archive", "lee/t1/broken.dcm: no image in it"):
        assert sum(words in note for note in plan.notes) == 1
    assert "dicom: 1 of 5 slices cannot be read: left out, the volume has a gap (1 volume)" in plan.notes
    assert any("slices may be missing (1 volume)" in note for note in plan.notes)


def test_a_classic_and_an_enhanced_copy_of_a_scan_are_one(tmp_path):
    """Other files, other identifiers, the same pixels of the same person: built once."""
    from pydicom import dcmread
    from pydicom.dataset import Dataset

    trees.write_enhanced(tmp_path / "enhanced.dcm", n_slices=4, n_phases=1)
    enhanced = dcmread(tmp_path / "enhanced.dcm")
    for index, group in enumerate(enhanced.PerFrameFunctionalGroupsSequence):
        scale: Dataset = group.PixelValueTransformationSequence[0]
        trees.write_dicom(
            tmp_path / "classic" / f"{index}.dcm",
            enhanced.pixel_array[index],
            group.PlanePositionSequence[0].ImagePositionPatient,
            trees.COSINES["axial"],
            SeriesInstanceUID="1.2.9",
            SOPInstanceUID=f"1.2.9.{index}",
            RescaleSlope=scale.RescaleSlope,
            RescaleIntercept=scale.RescaleIntercept,
        )
    recipe = Recipe(source="dicom", root=tmp_path, probes="P4-2v", planes="axial", patches=False)
    plan = make_plan(recipe.resolve("cpu"))
    assert len(plan.samples) == 4
    assert plan.skipped[COPIED] == 4


def test_a_plan_says_the_rule_and_what_voxels_give_away(tmp_path):
    import nibabel as nib

    trees.write_nifti(tmp_path / "kim" / "a.nii")
    image = nib.load(trees.write_nifti(tmp_path / "lee" / "b.nii", label=True))
    labels = np.asarray(image.dataobj).astype(np.int16)
    labels[10:50, 10:50] += 2  # a large region beside the small ones
    nib.save(nib.Nifti1Image(labels, image.affine), tmp_path / "lee" / "b.nii")
    plan = make_plan(
        Recipe(source="nifti", root=tmp_path, probes="P4-2v", planes="axial", patches=False).resolve("cpu")
    )
    assert plan.subject_rules == ("nifti: by the first folder that is no split, site, sequence or format, 2 files",)
    (note,) = [note for note in plan.notes if "label map" in note]
    assert note.startswith("nifti: lee/b: looks like a label map: ")


def test_terms_of_a_collection_hold_for_what_looks_like_it(tmp_path):
    from datagen.sources import under_terms

    (tmp_path / "MRNet-v1.0").mkdir()
    assert under_terms(get_source("npy"), tmp_path).name == "mrnet"
    (tmp_path / "plain").mkdir()
    assert under_terms(get_source("npy"), tmp_path / "plain").name == "npy"
    assert under_terms(get_source("umd"), tmp_path).name == "umd"
    assert under_terms(get_source("demo"), tmp_path).name == "demo"
