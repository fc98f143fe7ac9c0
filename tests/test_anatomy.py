"""What is anatomy: images stay, what is derived from them or drawn on them is skipped with its reason, kind by kind."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import trees

from datagen.sources import Selection, get_source
from datagen.sources.base import frames_chosen
from ussim.volumes import anatomy as rules

REASONS = {
    # path under the root -> the reason, "" where it is an image
    "kim/t1.nii.gz": "",
    "fa_kim_t1.nii.gz": "",  # somebody called Fa
    "mask_team/kim_T1w.nii": "",
    "sub-01/anat/sub-01_T1w.nii.gz": "",
    "sub-01/fmap/sub-01_magnitude1.nii.gz": "field map, by its folder",
    "sub-01/anat/sub-01_part-phase_T2star.nii.gz": "phase image, by its name",
    "kim_gre_ph.nii.gz": "phase image, by its name",
    "kim_e2_real.nii": "real part, by its name",
    "kim_imaginary.nii": "imaginary part, by its name",
    "kim_ADC.nii.gz": "diffusion coefficient map, by its name",
    "kim_fieldmaphz.nii.gz": "field map, by its name",
    "kim_TRACEW.nii.gz": "trace image, by its name",
    "kim_FA.nii.gz": "fractional anisotropy map, by its name",
    "kim_rCBF.nii.gz": "perfusion map, by its name",
    "kim_T2map.nii": "T1, T2 or other quantitative map, by its name",
    "kim_MIP.nii": "projection (MIP), by its name",
    "Task04/labelsTr/la_003.nii.gz": "label map, by its folder",
    "kim/Masks/one.nii": "label map, by its folder",
    "kim/Segmentations/one.nii": "label map, by its folder",
    "kim/mri/aparc+aseg.nii.gz": "label map, by its name",
    "kim/brainmask.nii.gz": "label map, by its name",
    "kim/lesion-mask.nii": "label map, by its name",
    "kim/a_SEG.nii": "label map, by its name",
    "kim/kim_1Warp.nii.gz": "warp, by its name",
}


@pytest.mark.parametrize("path", REASONS)
def test_names_and_folders_say_what_is_no_anatomy(path):
    assert (rules.label_reason(path) or rules.derived_by_name(path)) == REASONS[path]


@pytest.mark.parametrize(
    ("image_type", "reason"),
    [
        (["ORIGINAL", "PRIMARY", "M", "ND"], ""),
        (["ORIGINAL", "PRIMARY", "OTHER"], ""),
        (["DERIVED", "SECONDARY", "M"], ""),  # resampled or anonymized
        (["ORIGINAL", "PRIMARY", "P", "ND"], "phase image"),
        (["ORIGINAL", "PRIMARY", "PHASE MAP", "NONE"], "phase image"),
        (["ORIGINAL", "PRIMARY", "R", "R"], "real part"),
        (["ORIGINAL", "PRIMARY", "I"], "imaginary part"),
        (["ORIGINAL", "PRIMARY", "VELOCITY"], "velocity map"),
        (["DERIVED", "PRIMARY", "DIFFUSION", "FA", "ND"], "fractional anisotropy map"),
        (["DERIVED", "PRIMARY", "DIFFUSION", "ADC"], "diffusion coefficient map"),
        (["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"], "trace image"),
        (["DERIVED", "PRIMARY", "ASL", "CBF"], "perfusion map"),
        (["DERIVED", "SECONDARY", "SUBTRACT"], "subtraction"),
        (["DERIVED", "PRIMARY", "T1", "T1 MAP"], "T1, T2 or other quantitative map"),
        (["DERIVED", "SECONDARY", "PROJECTION IMAGE"], "projection (MIP)"),
        (["DERIVED", "SECONDARY", "MPR"], "reformatted (MPR)"),
        (["DERIVED", "SECONDARY", "SCREEN SAVE"], "screen save"),
    ],
)
def test_image_types_say_what_is_derived_and_the_user_may_want_it(tmp_path, image_type, reason):
    trees.write_series(tmp_path / "plain", n_slices=2)
    trees.write_series(tmp_path / "other", n_slices=2, ImageType=image_type)
    found = get_source("dicom").find(tmp_path)
    assert {item.reason for item in found.skipped} == ({reason} if reason else set())
    assert len(found) == (1 if reason else 2)
    assert len(get_source("dicom", Selection(include_derived=True)).find(tmp_path)) == 2


@pytest.mark.parametrize(("value", "reason"), [(0, ""), (1, "phase image"), (2, "real part"), (3, "imaginary part")])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_the_private_tag_of_ge(value, reason, as_bytes):
    element = SimpleNamespace(value=value.to_bytes(2, "little") if as_bytes else value)
    assert rules.derived_by_header({rules.GE_IMAGE_KIND: element}) == reason


def test_the_private_tag_of_ge_is_read_from_a_file(tmp_path):
    from pydicom import dcmread

    (path,) = trees.write_series(tmp_path, n_slices=1)
    dataset = dcmread(path)
    dataset.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", 1)
    dataset.save_as(path)
    from ussim.volumes.dicom import read_header, why_not

    assert why_not(read_header(path)) == "phase image"


@pytest.mark.parametrize("by", ["FrameType", "ComplexImageComponent"])
def test_an_enhanced_file_says_it_per_frame(tmp_path, by):
    """The root says MIXED; one of the two stacks is phase."""
    from pydicom import dcmread
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    path = trees.write_enhanced(tmp_path / "e.dcm", n_slices=4, n_phases=2)
    dataset = dcmread(path)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "MIXED", "NONE"]
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        kind = Dataset()
        is_phase = index % 2 == 0
        third = ("P" if is_phase else "M") if by == "FrameType" else "NONE"
        kind.FrameType = ["ORIGINAL", "PRIMARY", third, "NONE"]
        if by == "ComplexImageComponent":
            kind.ComplexImageComponent = "PHASE" if is_phase else "MAGNITUDE"
        group.MRImageFrameTypeSequence = Sequence([kind])
        del group.FrameContentSequence
    dataset.save_as(path)
    (only,) = (found := get_source("dicom").find(tmp_path)).refs
    assert [item.reason for item in found.skipped] == ["phase image (4 frames)"]
    # The second of each two frames is the brighter one in `write_enhanced`.
    assert get_source("dicom").load(only).voxels.max() > 1000
    both = get_source("dicom", Selection(include_derived=True, frames="all")).find(tmp_path)
    assert len(both) == 2


def test_sidecars_and_intent_codes_of_nifti_files(tmp_path):
    import nibabel as nib

    for name, said in (("a", {"ImageType": ["ORIGINAL", "PRIMARY", "P"]}), ("b", {"ImageType": ["ORIGINAL", "M"]})):
        trees.write_nifti(tmp_path / f"{name}.nii.gz", shape=(8, 8, 8 + (name == "b")))  # no copies: they are skipped
        (tmp_path / f"{name}.json").write_text(json.dumps(said))
    (tmp_path / "b.json").write_text("{")  # damaged: says nothing
    for code, name in ((1002, "c"), (1007, "d"), (3, "e"), (0, "f")):
        image = nib.load(trees.write_nifti(tmp_path / f"{name}.nii", shape=(8, 8, 8)))
        data = np.asarray(image.dataobj)
        image = nib.Nifti1Image(data, image.affine)
        image.header["intent_code"] = code
        nib.save(image, tmp_path / f"{name}.nii")
    found = get_source("nifti").find(tmp_path)
    assert {item.path: item.reason for item in found.skipped} == {
        "a.nii.gz": "phase image, by its JSON sidecar",
        "c.nii": "label map, by its NIfTI intent",
        "d.nii": "vector field, by its NIfTI intent",
        "e.nii": "statistical map, by its NIfTI intent",
    }
    everything = get_source("nifti", Selection(include_derived=True)).find(tmp_path)
    assert {ref.name for ref in everything} == {"a", "b", "e", "f"}  # labels are never images


def test_voxels_give_a_label_map_away():
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[5:20, 5:30, 5:30], labels[22:35, 5:30, 5:30] = 1, 2
    assert rules.looks_like_labels(labels) == "looks like a label map: 3 whole values in large even regions"
    rng = np.random.default_rng(0)
    assert not rules.looks_like_labels(rng.integers(0, 16, labels.shape))  # few values, but no regions
    assert not rules.looks_like_labels(labels * rng.normal(100, 5, labels.shape))
    assert not rules.looks_like_labels(trees.slices("axial", 5).astype(np.int16))


@pytest.mark.parametrize(
    ("count", "frames", "chosen"),
    [(1, "first", [0]), (5, "first", [0]), (3, "all", [0, 1, 2]), (30, 3, [0, 10, 20]), (2, 5, [0, 1])],
)
def test_one_policy_of_frames(count, frames, chosen):
    assert frames_chosen(count, frames) == chosen


@pytest.mark.parametrize(("frames", "count"), [("first", 1), ("all", 4), (2, 2)])
def test_nifti_and_dicom_follow_the_same_policy_and_say_so(tmp_path, frames, count):
    import nibabel as nib

    data = np.stack([trees.slices("axial", 4) * (1 + n) for n in range(4)], axis=-1).astype(np.int16)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "run.nii.gz")
    found = get_source("nifti", Selection(frames=frames)).find(tmp_path)
    assert len(found) == count
    assert "4-D file of 4 frames: frame 0 used" in found[0].notes
    maxima = [int(get_source("nifti").load(ref).voxels.max()) for ref in found]
    assert maxima == sorted(set(maxima))
    for echo in range(4):
        trees.write_series(
            tmp_path / "d" / str(echo), n_slices=3, SeriesInstanceUID="1.2.3", EchoTime=10.0 * (echo + 1),
            SOPInstanceUID=lambda index, echo=echo: f"1.2.3.{echo}.{index + 1}", gain=lambda index, echo=echo: 1 + echo,
        )  # fmt: skip
    found = get_source("dicom", Selection(frames=frames)).find(tmp_path / "d")
    assert len(found) == count
    assert len(found.skipped) == 4 - count
    if found.skipped:
        assert "another echo, phase, b-value or time point of the same slices" in found.skipped[0].reason
