"""What is anatomy: images stay, what is derived from them or drawn on them is skipped with its reason, kind by kind."""

from __future__ import annotations

import copy
import json
from collections import Counter
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
    from ussim.volumes.dicom_headers import read_header, why_not

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
    assert [item.reason for item in found.skipped] == ["phase image"] * 4
    # The second of each two frames is the brighter one in `write_enhanced`.
    assert get_source("dicom").load(only).voxels.max() > 1000
    both = get_source("dicom", Selection(include_derived=True, frames="all")).find(tmp_path)
    assert len(both) == 2


def write_mixed(path, kinds, n_slices=6):
    """Enhanced file with MIXED at its root; `kinds` = one (FrameType value, EchoTime, slices, gain) per stack."""
    from pydicom import dcmread
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    trees.write_enhanced(path, n_slices=n_slices, n_phases=1)
    dataset = dcmread(path)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "MIXED", "NONE"]
    images, groups = [], []
    for kind, echo_time, chosen, gain in kinds:
        for index in chosen:
            group = copy.deepcopy(dataset.PerFrameFunctionalGroupsSequence[index])
            what, echo = Dataset(), Dataset()
            what.FrameType = ["ORIGINAL", "PRIMARY", kind, "NONE"]
            echo.EffectiveEchoTime = echo_time
            group.MRImageFrameTypeSequence, group.MREchoSequence = Sequence([what]), Sequence([echo])
            del group.FrameContentSequence
            groups.append(group)
            images.append(dataset.pixel_array[index] * gain)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    dataset.NumberOfFrames = len(images)
    dataset.PixelData = np.stack(images).astype("<u2").tobytes()
    dataset.save_as(path)
    return path


ALL = range(6)


@pytest.mark.parametrize("kinds", [
    # As many phase frames as magnitude frames, at two echo times.
    [("M", 10, ALL, 1), ("M", 20, ALL, 2), ("P", 10, ALL, 9), ("P", 20, ALL, 9)],
    # Phase of a few slices; real and imaginary parts of fewer still.
    [("M", 10, ALL, 1), ("M", 20, ALL, 2), ("P", 10, [2, 3], 9), ("R", 10, [1], 9), ("I", 10, [1], 9)],
    # Phase at times of its own, between magnitude frames.
    [("P", 5, ALL, 9), ("M", 10, ALL, 1), ("P", 15, [0, 1, 2], 9), ("M", 20, ALL, 2), ("P", 10, ALL, 9)],
    # Nothing but the kind tells frames apart.
    [("M", 10, ALL, 1), ("P", 10, [4, 5], 9), ("P", 10, [4, 5], 8), ("T2 MAP", 10, ALL, 9)],
])  # fmt: skip
def test_magnitude_frames_of_a_mixed_file_are_kept_whatever_lies_among_them(tmp_path, kinds):
    write_mixed(tmp_path / "e.dcm", kinds)
    expected = [gain for kind, _, _, gain in kinds if kind == "M"]
    dicom = get_source("dicom", Selection(frames="all"))
    found = dicom.find(tmp_path)
    volumes = [dicom.load(ref) for ref in found]
    assert [volume.voxels.shape[2] for volume in volumes] == [6] * len(expected)
    air = [float(volume.voxels[0, 0].max()) for volume in volumes]
    assert air == [4.0 * gain for gain in expected]  # grey 4 in `tissue`: no slice of another kind is among them
    assert all(float(volume.voxels[0, 0].min()) == grey for volume, grey in zip(volumes, air, strict=True))
    derived = {
        "P": "phase image",
        "R": "real part",
        "I": "imaginary part",
        "T2 MAP": "T1, T2 or other quantitative map",
    }
    count = Counter()
    for kind, _, chosen, _ in kinds:
        if kind in derived:
            count[derived[kind]] += len(chosen)
    assert Counter(item.reason for item in found.skipped) == count  # each frame, by its own reason
    (first,) = get_source("dicom").find(tmp_path)
    assert dicom.load(first).voxels[0, 0].max() == 4.0
    everything = get_source("dicom", Selection(frames="all", include_derived=True)).find(tmp_path)
    assert {ref.name for ref in found} <= {ref.name for ref in everything}


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
