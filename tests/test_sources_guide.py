"""docs/sources.md: every row of its tables about files of one's own is held by a test, named here or made of the row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from datagen.sources.subjects import assign_subjects
from ussim.volumes.anatomy import derived_by_name, label_reason

TESTS = Path(__file__).parent
GUIDE = (TESTS.parent / "docs" / "sources.md").read_text(encoding="utf-8")

# Section -> first cell of a row -> the tests that hold it, file::test without "test_".
HELD: dict[str, dict[str, list[str]]] = {
    "Files of your own": {
        "`nifti`": [
            "readers::compression_is_told_by_the_bytes_not_the_name",
            "readers::four_dimensional_nifti_gives_the_frame_asked_for",
        ],
        "`dicom`": [
            "readers::dicom_slices_are_ordered_by_position_whatever_they_are_called",
            "readers::subjects_are_salted_hashes_of_the_patient",
        ],
        "`npy`": [
            "readers::npy_of_any_real_type",
            "readers::two_dimensional_npy_is_one_slice",
        ],
        "`image`": [
            "readers::pictures_of_every_mode_become_grey",
            "sources::a_folder_of_pictures_is_a_stack",
        ],
    },
    "Files": {
        "`.nii`, `.nii.gz`": [
            "readers::nifti_of_any_orientation_is_canonical",
        ],
        "`.hdr` + `.img` (`.gz` too)": [
            "files::every_format_gives_the_volume_of_its_nifti",
            "files::analyze_is_read_with_its_sizes_and_says_that_sides_are_a_guess",
        ],
        "`.mgz`, `.mgh`": [
            "files::every_format_gives_the_volume_of_its_nifti",
        ],
        "`.nrrd`, `.nhdr` + data": [
            "files::every_format_gives_the_volume_of_its_nifti",
            "files::sizes_alone_are_read_and_frames_counted",
        ],
        "`.mha`, `.mhd` + data": [
            "files::every_format_gives_the_volume_of_its_nifti",
            "files::a_false_header_of_metaimage",
        ],
        "`.dcm.gz`": [
            "files::dicom_in_gzip_is_the_same_series",
        ],
    },
    "What is no anatomy": {
        "phase, real, imaginary": [
            "anatomy::image_types_say_what_is_derived_and_the_user_may_want_it",
            "anatomy::an_enhanced_file_says_it_per_frame",
            "anatomy::the_private_tag_of_ge",
        ],
        "field and velocity maps": [
            "anatomy::names_and_folders_say_what_is_no_anatomy",
        ],
        "FA, ADC, trace, perfusion, subtraction, T1 and T2 maps, MIP, MPR, screen saves, parametric maps": [
            "anatomy::image_types_say_what_is_derived_and_the_user_may_want_it",
            "anatomy::names_and_folders_say_what_is_no_anatomy",
        ],
        "the same of converted files": [
            "anatomy::sidecars_and_intent_codes_of_nifti_files",
        ],
        "statistics, vectors, displacements": [
            "anatomy::sidecars_and_intent_codes_of_nifti_files",
        ],
        "label maps": [
            "anatomy::names_and_folders_say_what_is_no_anatomy",
        ],
        "warps": [
            "anatomy::names_and_folders_say_what_is_no_anatomy",
        ],
    },
    "Volumes": {
        "several echoes, phases, b-values, time points in one series": [
            "grouping::every_attribute_splits_phases_of_unequal_size",
        ],
        "one image more than the volumes have, or one sent twice": [
            "grouping::one_more_image_of_any_attribute_is_no_volume_and_disturbs_none",
        ],
        "a time, or a SeriesInstanceUID, of its own in each slice": [
            "grouping::an_attribute_of_each_slice_splits_nothing",
            "grouping::a_series_uid_of_its_own_in_each_slice_is_joined",
        ],
        "an empty or constant SOPInstanceUID": [
            "grouping::a_constant_or_empty_instance_uid_costs_no_slice",
        ],
        "one SeriesInstanceUID for several patients": [
            "grouping::patients_under_one_series_uid_are_several",
        ],
        "PatientID empty, or one for more than three studies": [
            "sources::patient_ids_that_say_little_are_said",
        ],
        "a header without pixels": [
            "readers::headers_without_pixels_are_skipped_by_that_name",
        ],
        "a file cut short": [
            "grouping::a_file_cut_short_costs_its_slice",
        ],
        "montages (Siemens MOSAIC, UIH VFRAME) with their private tags": [
            "montage::slices_of_a_montage_lie_where_those_of_single_files_do",
        ],
        "montages without them": [
            "montage::a_montage_whose_tags_do_not_suffice_is_skipped_with_what_is_missing",
        ],
        "the word MOSAIC left in a multi-frame file (Siemens XA)": [
            "montage::frames_of_a_file_that_kept_the_word_are_no_montage",
        ],
        "magnitude, phase and maps in one enhanced file (MIXED at its root)": [
            "anatomy::magnitude_frames_of_a_mixed_file_are_kept_whatever_lies_among_them",
        ],
        "a scale of each slice (Philips)": [
            "readers::rescale_of_each_slice_is_undone",
        ],
        "a scale, or values, beyond 1e30 or under 1e-30 (DICOM, NIfTI, NPY)": [
            "readers::absurd_rescale_slopes_keep_their_ratios",
            "readers::a_nifti_slope_that_float32_cannot_hold_is_left_out",
            "readers::npy_values_that_float32_cannot_hold_are_scaled",
        ],
        "NaN from the border inwards (DICOM of floats, NIfTI, NPY)": [
            "readers::dicom_of_floats_with_nan_around_the_body",
            "readers::nan_outside_the_body_is_outside_and_inside_is_damage",
            "readers::nan_around_the_body_in_npy_is_outside_and_inside_is_damage",
        ],
        "pixdim that differs from the affine": [
            "readers::voxel_size_comes_from_the_affine_that_gives_the_orientation",
        ],
        "sform and qform that differ": [
            "readers::a_qform_that_differs_from_the_sform_is_noted",
        ],
        "a singular sform": [
            "readers::a_singular_sform_leaves_the_qform",
        ],
    },
    "Copies, look-alikes, archives": {
        "files equal byte by byte": [
            "known::copies_of_files_are_skipped_with_both_paths",
        ],
        "images equal pixel by pixel in two volumes (other format, other name, a classic and an enhanced copy)": [
            "known::equal_pixels_in_two_formats_are_built_once",
            "known::a_classic_and_an_enhanced_copy_of_a_scan_are_one",
        ],
        "a collection that lies in a folder twice, MRNet's `val` beside `valid`": [
            "known::two_copies_of_a_collection_are_one",
            "known::mrnet_val_beside_valid_with_other_data_under_one_name",
        ],
        "MRNet in capitals, from a root too deep or too high": [
            "known::mrnet_in_capitals",
            "known::mrnet_from_a_root_too_deep_or_too_high",
        ],
        "a folder that is named or laid out as a collection, read by a source of one's own": [
            "known::what_looks_like_a_collection_is_never_ones_own_without_saying_so",
            "known::terms_of_a_collection_hold_for_what_looks_like_it",
        ],
        "zip, tar, 7z and rar files": [
            "known::an_archive_left_packed_is_named",
        ],
        "a volume of few whole values in large even regions": [
            "known::a_plan_says_the_rule_and_what_voxels_give_away",
            "anatomy::voxels_give_a_label_map_away",
        ],
    },
}


def rows(section: str) -> list[list[str]]:
    """The cells of the table of a section, without its head."""
    text = re.split(rf"^##+ {re.escape(section)}$", GUIDE, flags=re.MULTILINE)[1]
    text = re.split(r"^##", text, flags=re.MULTILINE)[0]
    lines = [line.strip().strip("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split(" | ")] for line in lines[2:]]


@pytest.mark.parametrize("section", HELD)
def test_each_row_of_the_guide_has_its_test(section):
    assert [row[0] for row in rows(section)] == list(HELD[section])
    for names in HELD[section].values():
        for name in names:
            file, _, test = name.partition("::")
            assert f"\ndef test_{test}(" in (TESTS / f"test_{file}.py").read_text(encoding="utf-8"), name


@pytest.mark.parametrize("row", rows("Who is whom"), ids=lambda row: row[0])
def test_each_layout_of_the_guide_gives_the_person_it_says(row):
    _, examples, subjects = row
    paths = [path.replace("...", "a.nii") for path in re.findall(r"`([^`]+)`", examples)]
    found = assign_subjects(paths).subjects
    assert {found[path] for path in paths} == set(re.findall(r"`([^`]+)`", subjects))


@pytest.mark.parametrize("row", rows("What is no anatomy"), ids=lambda row: row[0])
def test_each_name_of_the_guide_is_no_anatomy(row):
    for word in re.findall(r"`([^`]+)`", row[1]):
        path = f"{word}x.nii" if word.endswith("/") else f"kim{word}.nii" if word.startswith("_") else f"{word}/a.nii"
        if word in ("part-phase", "aparc+aseg", "brainmask"):
            path = f"sub-01_{word}.nii"
        assert label_reason(path) or derived_by_name(path), path
