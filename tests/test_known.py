"""A known collection stays known, whatever was done to its folders; repeats and packed archives are named."""

from __future__ import annotations

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
    assert [ref.name for ref in found] == [ref.name for ref in before] or name == "duke-liver"
    if name != "duke-liver":  # parts of one release are told apart by their folders there
        copies = [item for item in found.skipped if item.reason.startswith("a copy of ")]
        assert len(copies) >= len(before)
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
    plan = make_plan(recipe, "cpu")
    assert len({sample.ref.subject for sample in plan.samples}) == 1
    assert len({sample.pixels for sample in plan.samples}) == len(plan.samples)
    assert plan.skipped[COPIED] == len(plan.samples)
    (note,) = [note for note in plan.notes if "built once" in note]
    assert "kim/a.nii" in note
    assert "lee/b.nii.gz" in note


def test_a_mixed_folder_reads_as_a_plain_report(tmp_path):
    for person, series, tags in (
        ("kim", "t1", {}),
        ("kim", "t2", {"SeriesDescription": "t2_tse"}),
        ("lee", "t1", {}),
        ("lee", "phase", {"ImageType": ["ORIGINAL", "PRIMARY", "P"]}),
        ("lee", "loc", {"SeriesDescription": "localizer"}),
        ("lee", "labels", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}),
    ):
        trees.write_series(tmp_path / person / series, PatientID=person, StudyInstanceUID=f"1.2.{len(person)}", **tags)
    shutil.copytree(tmp_path / "kim" / "t1", tmp_path / "kim" / "t1 (1)")
    with zipfile.ZipFile(tmp_path / "old.zip", "w") as archive:
        archive.writestr("a", "b")
    inspection = inspect(tmp_path)
    lines = inspection.lines()
    print("\n".join(lines))
    assert len(lines) < 40
    assert (inspection.n_volumes, inspection.n_subjects) == (3, 2)
    text = "\n".join(lines)
    for words in ("PatientID", "5 x phase image", "5 x localizer", "5 x segmentation", "old.zip", "the same image as"):
        assert words in text, words


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
    plan = make_plan(recipe, "cpu")
    assert len(plan.samples) == 4
    assert plan.skipped[COPIED] == 4


def test_a_plan_says_the_rule_and_what_voxels_give_away(tmp_path):
    import nibabel as nib

    trees.write_nifti(tmp_path / "kim" / "a.nii")
    image = nib.load(trees.write_nifti(tmp_path / "lee" / "b.nii", label=True))
    labels = np.asarray(image.dataobj).astype(np.int16)
    labels[10:50, 10:50] += 2  # a large region beside the small ones
    nib.save(nib.Nifti1Image(labels, image.affine), tmp_path / "lee" / "b.nii")
    plan = make_plan(Recipe(source="nifti", root=tmp_path, probes="P4-2v", planes="axial", patches=False), "cpu")
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
