"""Sources: each collection in miniature, with its oddities, found once, put in the right place, and with its terms."""

from __future__ import annotations

import pickle
import re
import shutil

import numpy as np
import pytest
import trees
from PIL import Image

from datagen.plan.recipe import Recipe
from datagen.plan.samples import make_plan
from datagen.plan.slices import hq_slices
from datagen.sources import Selection, get_source, resolve_root, source_names
from datagen.sources.inspect import inspect
from ussim.errors import DataError
from ussim.volumes.volume import Found, VolumeRef

COLLECTIONS = [(name, make) for name, makers in trees.TREES.items() for make in makers]


def names(found) -> list[str]:
    return [ref.name for ref in found]


# --- what all sources promise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", source_names())
def test_every_source_says_its_licence_citation_and_terms(name):
    source = get_source(name)
    assert source.name == name
    for text in (source.title, source.licence, source.citation, source.terms, source.layout):
        assert text
        assert text == text.strip()


def test_only_open_and_own_images_may_be_passed_on():
    """By each collection's terms; Duke Breast's is CC BY-NC 4.0, and whose the files of one's own are, their owner knows."""
    ours = {"demo", "phantom"}
    own = {name for name in source_names() if not get_source(name).where and name not in ours}
    assert own == {"dicom", "image", "labels", "nifti", "npy"}
    passed_on = {name for name in source_names() if get_source(name).redistributable is True}
    assert passed_on == own | ours | {"duke-breast"}
    assert {name for name in source_names() if get_source(name).redistributable is False} == set(
        source_names()
    ) - passed_on


def test_unknown_source_names_the_near_miss():
    with pytest.raises(DataError, match=r"unknown source 'mrnett' \(did you mean 'mrnet'\?\)"):
        get_source("mrnett")


@pytest.mark.parametrize(("name", "make"), COLLECTIONS)
def test_a_collection_is_found_the_same_twice_and_loads(tmp_path, name, make):
    make(tmp_path)
    source = get_source(name)
    found = source.find(tmp_path)
    assert found.refs == source.find(tmp_path).refs
    assert len(found) > 0
    assert [(ref.subject, ref.name) for ref in found] == sorted((ref.subject, ref.name) for ref in found)
    assert len(pickle.dumps(found.refs[0])) < 4000  # small enough to send to a worker by the thousand
    for ref in found:
        volume = source.load(pickle.loads(pickle.dumps(ref)))
        assert (volume.source, volume.subject, volume.name) == (name, ref.subject, ref.name)
        assert len(volume.file_sha256) == 64
        # A collection is cut in planes it has, one of another in each volume's own.
        assert set(source.default_planes or volume.planes()) & set(volume.planes())


@pytest.mark.parametrize(("name", "make"), COLLECTIONS)
def test_a_collection_is_the_right_way_round(tmp_path, name, make):
    """Whatever the storage order, every voxel shows what is at that place in the patient."""
    make(tmp_path)
    source = get_source(name)
    found = source.find(tmp_path)
    assert len(found) > 0
    for ref in found:
        assert trees.misplaced(source.load(ref)) < 0.02  # rounding at the edges of the organs


@pytest.mark.parametrize(("name", "make"), COLLECTIONS)
def test_inspect_recognises_the_collection(tmp_path, name, make):
    make(tmp_path)
    inspection = inspect(tmp_path)
    assert inspection.source == name
    found = get_source(name).find(tmp_path)
    assert inspection.n_volumes == len(found)
    text = "\n".join(inspection.lines())
    assert get_source(name).licence in text
    assert not re.search(r"\b1 volumes", text)


@pytest.mark.parametrize(("name", "make"), COLLECTIONS)
def test_a_collection_gives_images(tmp_path, name, make):
    make(tmp_path)
    source = get_source(name)
    images = [
        image.image
        for ref in source.find(tmp_path)
        for image in hq_slices(source.load(ref), source.default_planes, every=2, size=64)
    ]
    assert len(images) >= 3
    assert all(image.shape == (64, 64) and image.dtype == np.uint8 and image.max() > 60 for image in images)


@pytest.mark.parametrize("name", [name for name in source_names() if get_source(name).needs_root])
def test_an_empty_folder_says_what_was_expected(tmp_path, name):
    source = get_source(name)
    with pytest.raises(DataError) as caught:
        source.find(tmp_path)
    assert source.layout in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="does not exist"):
        source.find(tmp_path / "absent")
    with pytest.raises(DataError, match="no root given"):
        source.find(None)


def test_two_volumes_of_one_name_are_an_error():
    ref = VolumeRef("npy", "a", "same", ("x",))
    with pytest.raises(DataError, match="two volumes are both called 'same'"):
        Found([ref, ref])


# --- where the data is -----------------------------------------------------------------------------------------------


def test_root_falls_back_to_the_environment_then_the_usual_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATAGEN_ROOT", raising=False)
    with pytest.raises(DataError) as caught:
        resolve_root("mrnet", None)
    message = str(caught.value)
    for part in (
        "MRNet v1.0",
        "https://stanfordmlgroup",
        "research use agreement",
        "./MRNet-v1.0",
        "./data/MRNet-v1.0",
    ):
        assert part in message  # what to download, under which terms, and where to put it
    (tmp_path / "data" / "MRNet-v1.0").mkdir(parents=True)
    assert resolve_root("mrnet", None).resolve() == tmp_path / "data" / "MRNet-v1.0"
    (tmp_path / "MRNet-v1.0").mkdir()
    assert resolve_root("mrnet", None).resolve() == tmp_path / "MRNet-v1.0"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("DATAGEN_ROOT", str(tmp_path / "elsewhere"))
    assert resolve_root("mrnet", None) == tmp_path / "elsewhere"
    assert resolve_root("mrnet", "MRNet-v1.0").name == "MRNet-v1.0"
    with pytest.raises(DataError, match="--root absent does not exist; expected MRNet"):
        resolve_root("mrnet", "absent")
    monkeypatch.setenv("DATAGEN_ROOT", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"DATAGEN_ROOT .*gone does not exist"):
        resolve_root("mrnet", None)


# --- each collection's oddities --------------------------------------------------------------------------------------


def test_mrnet_planes_ids_and_splits(tmp_path):
    found = get_source("mrnet").find(trees.mrnet(tmp_path))
    assert "train-0012-axial" in names(found)  # 12.npy
    assert "valid-1130-sagittal" in names(found)  # under val/
    assert {ref.subject for ref in found} == {"0000", "0001", "0012", "1130"}
    assert {ref.orientation for ref in found if ref.name.endswith("coronal")} == {"coronal"}
    assert [item.path for item in found.skipped] == ["MRNet-v1.0/MRNet-v1.0/train/axial/notes.txt"]
    assert any("val: read as valid" in note for note in found.notes)
    assert "1 of 4 exams lack one of the three planes" in found.notes
    volume = get_source("mrnet").load(found[0])
    assert volume.planes() == ("axial",)
    assert "pixels taken as square" in volume.notes[0]


def test_mrnet_is_found_from_any_of_its_folders(tmp_path):
    trees.mrnet(tmp_path)
    expected = names(get_source("mrnet").find(tmp_path))
    for inside in (tmp_path / "MRNet-v1.0", tmp_path / "MRNet-v1.0" / "MRNet-v1.0"):
        assert names(get_source("mrnet").find(inside)) == expected


def test_duke_liver_masks_are_left_out_and_patients_are_subjects(tmp_path):
    found = get_source("duke-liver").find(trees.duke_liver(tmp_path))
    assert names(found) == ["0001-11", "0001-4", "0002-7"]
    assert {ref.subject for ref in found} == {"0001", "0002"}
    assert {path.split("/")[-2] for ref in found for path in ref.paths} == {"images"}
    assert [(item.path, item.reason) for item in found.skipped] == [("Segmentation/0002/8", "no DICOM files")]
    assert names(get_source("duke-liver").find(tmp_path / "Segmentation")) == names(found)


def test_brainmetshare_nifti_with_uneven_and_missing_sequences(tmp_path):
    found = get_source("brainmetshare").find(trees.brainmetshare_nifti(tmp_path))
    assert len(found) == 7
    assert not any("seg" in ref.name for ref in found)
    assert found.notes == (
        "1 of 2 patients lack one of the four sequences",
        "1 of 2 patients have sequences that differ in slices",
    )
    assert {ref.subject for ref in found} == {"Mets_001", "Mets_106"}


def test_brainmetshare_pictures_in_natural_order(tmp_path):
    found = get_source("brainmetshare").find(trees.brainmetshare_pictures(tmp_path))
    assert [ref.name for ref in found] == [f"train-Mets_002-{name}" for name in ("bravo", "flair", "t1_gd", "t1_pre")]
    bravo = get_source("brainmetshare").load(found[0])
    assert "folder 0 taken as bravo" in bravo.notes
    assert bravo.orientation == "axial"
    heart = [int((bravo.slice("axial", index)[0] > 230).sum()) for index in range(12)]
    assert np.nonzero(heart)[0].tolist() == [7, 8]  # 2.png before 10.png: the heart is 28 mm up, slices 14 mm apart
    empty: list[int] = []
    list(hq_slices(bravo, ("axial",), on_skip=lambda plane, index, kind, reason: empty.append(index)))
    assert {0, 11} <= set(empty)


@pytest.mark.parametrize("form", ["classic", "descriptive"])
@pytest.mark.parametrize("sheet", ["xlsx", "csv"])
def test_duke_breast_sequences_come_from_the_sheet(tmp_path, form, sheet):
    found = get_source("duke-breast").find(trees.duke_breast(tmp_path, form, sheet))
    assert names(found) == [f"Breast_MRI_00{n}-{name}" for n in (1, 2) for name in ("post_1", "post_2", "pre")]
    assert {item.reason for item in found.skipped} == {"localizer"}
    assert names(get_source("duke-breast").find(tmp_path / "Duke-Breast-Cancer-MRI")) == names(found)


def test_duke_breast_without_a_sheet_goes_by_folder_names(tmp_path):
    found = get_source("duke-breast").find(trees.duke_breast(tmp_path, "descriptive", None))
    assert "Breast_MRI_001-3.000000-ax 3d dyn-95540" in names(found)
    assert any("no mapping sheet" in note for note in found.notes)
    shutil.rmtree(tmp_path / "Duke-Breast-Cancer-MRI")
    assert len(get_source("duke-breast").find(trees.duke_breast(tmp_path, "classic", None))) == 6


def test_duke_breast_sheet_with_other_columns_is_refused(tmp_path):
    trees.duke_breast(tmp_path, "classic", None)
    (tmp_path / "Breast-Cancer-MRI-filepath_filename-mapping.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="expected the columns original_path_and_filename, classic_path"):
        get_source("duke-breast").find(tmp_path)


def test_umd_oddities_are_survived_and_counted(tmp_path):
    found = get_source("umd").find(trees.umd(tmp_path))
    assert names(found) == [f"UMD_221129_{case}" for case in ("001", "002", "037", "040", "041")]
    assert found.notes == (
        "3 files are uncompressed NIfTI named .gz",
        "1 label maps are named _seq instead of _seg",
        "2 files say 1 x 1 x 1 mm",
        "1 files do not carry their folder's name",
        "27 DICOM files lie beside NIfTI images and are not counted twice",
    )
    assert not any("__MACOSX" in path or "._" in path or "_seg" in path for ref in found for path in ref.paths)
    for ref in found:
        volume = get_source("umd").load(ref)
        assert volume.voxels.shape == (9, 64, 64)
        assert volume.spacing == pytest.approx((6.0, 1.6, 1.6))  # from DICOM where the NIfTI has lost it
        assert volume.square_planes() == ("sagittal",)


# --- generic sources and the demo ------------------------------------------------------------------------------------


def test_demo_is_two_real_volumes_with_enough_images():
    source = get_source("demo")
    found = source.find(None)
    assert names(found) == ["brain", "abdomen"]
    assert len({ref.subject for ref in found}) == 2
    full = {ref.name: list(hq_slices(source.load(ref), source.default_planes)) for ref in found}
    assert len(full["brain"]) == 24
    assert len(full["abdomen"]) == 1
    for image in (image.image for images in full.values() for image in images):
        assert image.shape == (256, 256)
        assert 5 < image.mean() < 130  # neither black nor burnt out
        assert image.max() > 200


def test_a_stripped_demo_says_what_to_do(monkeypatch, tmp_path):
    import nibabel
    import pydicom.data

    monkeypatch.setattr(pydicom.data, "get_testdata_file", lambda *args, **kwargs: None)
    with pytest.raises(DataError, match=r"pydicom is installed without its test file.*reinstall"):
        get_source("demo").find(None)
    monkeypatch.undo()
    monkeypatch.setattr(nibabel, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(DataError, match=r"nibabel is installed without its test file.*example4d"):
        get_source("demo").find(None)


def test_subjects_of_loose_files_come_from_their_folders(tmp_path):
    files = ("train/sub-01_T1w.nii", "train/sub-01_T2w.nii", "test/kim/a.nii", "test/kim/b.nii.gz", "lone.nii")
    for number, name in enumerate(files):
        trees.write_nifti(tmp_path / name, shape=(8, 8, 8 + number))  # no two the same: copies are skipped
    trees.write_nifti(tmp_path / "kim" / "a_seg.nii", shape=(8, 8, 8))
    found = get_source("nifti").find(tmp_path)
    subjects = {ref.name: ref.subject for ref in found}
    assert subjects == {
        "train/sub-01_T1w": "sub-01",
        "train/sub-01_T2w": "sub-01",
        "test/kim/a": "kim",
        "test/kim/b": "kim",
        "lone": "lone",
    }
    assert [(item.path, item.reason) for item in found.skipped] == [("kim/a_seg.nii", "label map, by its name")]


def test_inspect_says_who_is_whom_by_which_rule(tmp_path):
    for number, name in enumerate(("PAT01_T1.nii", "PAT01_FLAIR.nii", "PAT02_T1.nii", "T1.nii")):
        trees.write_nifti(tmp_path / name, shape=(8, 8, 8 + number))
    lines = inspect(tmp_path).lines()
    assert (
        "  subjects: by the file's name without sequence, visit or copy mark, 4 files: PAT01_FLAIR.nii -> PAT01, "
        "PAT02_T1.nii -> PAT02, T1.nii -> T1"
    ) in lines
    assert any('odd: subjects: 1 "subject" called T1' in line for line in lines)
    told = inspect(tmp_path, Selection(subjects="(PAT0|T)"))
    assert told.n_subjects == 2
    assert "by --subjects (PAT0|T), 4 files" in told.subjects[0]


def test_dicom_subjects_are_the_patient_ids_unless_told(tmp_path):
    for number in (1, 2):
        trees.write_series(tmp_path / f"a{number}", PatientID=str(number))
    assert get_source("dicom").find(tmp_path).subjects == ("by the PatientID in the files, hashed",)
    told = get_source("dicom", Selection(subjects=r"^(a)\d")).find(tmp_path)
    assert {ref.subject for ref in told} == {"a"}


@pytest.mark.parametrize(("patients", "says"), [
    (["A", "B", "B", "B"], ""),  # visits
    (["", "", "A"], "empty in 2 of 3 studies (each taken for a person)"),
    (["X"] * 5, "one shared by 5 studies (taken for one person)"),
    (["X"] * 4 + ["Y"] * 4, "2 shared by 8 studies (taken for one person each)"),
    (["", "X", "X", "X", "X"], "empty in 1 of 5 studies (each taken for a person); one shared by 4 studies"),
])  # fmt: skip
def test_patient_ids_that_say_little_are_said(tmp_path, patients, says):
    for number, patient in enumerate(patients):
        trees.write_series(tmp_path / f"s{number}", PatientID=patient, StudyInstanceUID=f"1.2.3.{number}")
    found = get_source("dicom").find(tmp_path)
    (note,) = found.notes or ("",)
    assert says in note
    assert bool(note) == bool(says)
    assert not says or note in inspect(tmp_path).oddities
    told = get_source("dicom", Selection(subjects=r"^(s\d)")).find(tmp_path).notes
    assert not any("PatientID" in line for line in told)


def test_build_says_that_patient_ids_are_shared(tmp_path):
    for number in range(4):
        trees.write_series(tmp_path / f"s{number}", StudyInstanceUID=f"1.2.3.{number}", gain=lambda i, n=number: n + 1)
    notes = make_plan(Recipe(source="dicom", root=str(tmp_path), probes="P4-2v", limit=4).resolve("cpu")).notes
    assert any("PatientID: one shared by 4 studies" in note for note in notes)


def test_one_name_in_two_formats_is_two_volumes(tmp_path):
    for name in ("a.nii", "a.nii.gz"):
        trees.write_nifti(tmp_path / name, shape=(8, 8, 8))
    assert names(get_source("nifti").find(tmp_path)) == ["a.nii", "a.nii.gz"]


def test_a_single_file_may_be_the_root(tmp_path):
    path = trees.write_nifti(tmp_path / "knee.nii.gz", shape=(8, 8, 8))
    (only,) = get_source("nifti").find(path)
    assert (only.name, only.subject) == ("knee", "knee")


def test_files_that_do_not_fit_are_skipped_with_reasons(tmp_path):
    np.save(tmp_path / "good.npy", np.zeros((2, 3, 4)))
    np.save(tmp_path / "movie.npy", np.zeros((2, 3, 4, 5)))
    (tmp_path / "text.npy").write_text("no")
    found = get_source("npy").find(tmp_path)
    assert names(found) == ["good"]
    assert {item.path for item in found.skipped} == {"movie.npy", "text.npy"}
    (tmp_path / "bad.nii").write_text("no")
    with pytest.raises(DataError, match=r"no usable volume.*1 skipped, the first: bad.nii: not a NIfTI file"):
        get_source("nifti").find(tmp_path)


def test_a_folder_of_pictures_is_a_stack(tmp_path):
    for name in ("kim/slice_2.png", "kim/slice_10.png", "kim/slice_1.png", "alone.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        grey = int(name.removesuffix(".png").rsplit("_")[-1]) if "slice" in name else 0
        Image.fromarray(np.full((9, 9), grey, np.uint8)).save(tmp_path / name)
    found = get_source("image").find(tmp_path)
    assert [(ref.name, ref.subject, len(ref.paths)) for ref in found] == [("alone", "alone", 1), ("kim", "kim", 3)]
    assert get_source("image").load(found[1]).voxels[:, 0, 0].tolist() == [1, 2, 10]


def test_a_link_to_a_folder_above_does_not_loop(tmp_path):
    trees.write_nifti(tmp_path / "a" / "v.nii", shape=(8, 8, 8))
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert names(get_source("nifti").find(tmp_path)) == ["a/v"]


def test_the_same_files_have_the_same_hash_wherever_they_lie(tmp_path):
    for place in ("here", "there/deeper"):
        trees.write_series(tmp_path / place / "s", SeriesInstanceUID="1.2.3")
    hashes, volume_names = set(), set()
    for place in ("here", "there"):
        (only,) = get_source("dicom").find(tmp_path / place)
        hashes.add(get_source("dicom").load(only).file_sha256)
        volume_names.add(only.name)
    assert len(hashes) == len(volume_names) == 1


def test_inspect_says_what_else_a_folder_holds(tmp_path):
    trees.write_series(tmp_path / "scan")
    np.save(tmp_path / "extra.npy", np.zeros((2, 3, 4)))
    inspection = inspect(tmp_path)
    assert inspection.source == "dicom"
    assert inspection.also == (("npy", 1),)
    assert inspection.as_dict()["n_volumes"] == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no MRI found: no file in it; expected a known collection"):
        inspect(tmp_path / "empty")
