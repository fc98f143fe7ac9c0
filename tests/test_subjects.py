"""Who was imaged, as names of real archives and of ordinary folders say it: one person, one subject."""

from __future__ import annotations

import pytest

from datagen.sources.subjects import assign_subjects, recorded
from ussim.errors import DataError

# Files of one layout, each person's on a line: every line is one subject, no two lines share one.
LAYOUTS = {
    "nnU-Net": [
        ("Dataset001_Hip/imagesTr/case_0001_0000.nii.gz", "Dataset001_Hip/imagesTr/case_0001_0001.nii.gz"),
        ("Dataset001_Hip/imagesTr/case_0002_0000.nii.gz", "Dataset001_Hip/imagesTr/case_0002_0001.nii.gz"),
    ],
    "nnU-Net, one channel": [("Dataset001/imagesTr/a_0000.nii.gz",), ("Dataset001/imagesTr/b_0000.nii.gz",)],
    "Decathlon": [
        ("Task04_Hippocampus/imagesTr/hippocampus_001.nii.gz",),
        ("Task04_Hippocampus/imagesTr/hippocampus_003.nii.gz",),
        ("Task04_Hippocampus/imagesTs/hippocampus_002.nii.gz",),
    ],
    "Decathlon, four digits": [("imagesTr/la_0000.nii.gz",), ("imagesTr/la_0001.nii.gz",)],
    "flat, sequence last": [
        ("PAT01_T1.nii.gz", "PAT01_FLAIR.nii.gz", "PAT01_t2w.nii"),
        ("PAT02_T1.nii.gz", "PAT02_FLAIR.nii.gz"),
    ],
    "flat, visits": [("kim_visit1_T1.nii", "kim_visit2_T1.nii", "kim_baseline.nii"), ("lee_visit1_T1.nii",)],
    "sequence folders": [("T1/PAT01.nii", "FLAIR/PAT01.nii"), ("T1/PAT02.nii", "FLAIR/PAT02.nii")],
    "site folders": [("siteA/PAT01/T1.nii", "siteA/PAT01/T2.nii"), ("siteB/PAT07/T1.nii",)],
    "sites by name": [("MGH/P001/t1.nii", "MGH/P001/t2.nii"), ("MGH/P002/t1.nii",), ("BWH/P003/t1.nii",)],
    "BraTS 2020": [
        ("MICCAI/BraTS20_Training_001/BraTS20_Training_001_t1ce.nii", "BraTS20_Training_001_flair.nii"),
        ("MICCAI/BraTS20_Training_002/BraTS20_Training_002_t1ce.nii",),
    ],
    "BraTS 2023, two time points": [
        ("BraTS-GLI-00005-100/BraTS-GLI-00005-100-t1n.nii.gz", "BraTS-GLI-00005-101/BraTS-GLI-00005-101-t2f.nii.gz"),
        ("BraTS-GLI-00006-100/BraTS-GLI-00006-100-t1n.nii.gz",),
    ],
    "BraTS 2018": [("HGG/Brats18_TCIA08_242_1/x_t1.nii",), ("HGG/Brats18_TCIA08_278_1/x_t1.nii",)],
    "IXI": [
        ("IXI-T1/IXI002-Guys-0828-T1.nii.gz", "IXI-T2/IXI002-Guys-0828-T2.nii.gz", "IXI-PD/IXI002-Guys-0828-PD.nii.gz"),
        ("IXI-T1/IXI012-HH-1211-T1.nii.gz",),
    ],
    "OASIS visits": [
        ("disc1/OAS1_0001_MR1/RAW/OAS1_0001_MR1_mpr-1.nii", "disc2/OAS1_0001_MR2/RAW/OAS1_0001_MR2_mpr-1.nii"),
        ("disc1/OAS1_0002_MR1/RAW/OAS1_0002_MR1_mpr-1.nii",),
    ],
    "OASIS 3": [("OAS30001_MR_d0129/anat2/a.nii", "OAS30001_MR_d0757/anat2/a.nii"), ("OAS30002_MR_d2345/anat2/a.nii",)],
    "ADNI visits": [
        (
            "ADNI/002_S_0295/MP-RAGE/2006-04-18_08_20_30.0/I13722/ADNI_002_S_0295_MR_x.nii",
            "ADNI/002_S_0295/MP-RAGE/2006-11-02_08_16_44.0/I28560/ADNI_002_S_0295_MR_y.nii",
        ),
        ("ADNI/002_S_0413/MP-RAGE/2006-05-02_12_31_52.0/I13893/ADNI_002_S_0413_MR_x.nii",),
    ],
    "TCGA": [("TCGA-02-0003/a.nii", "post/TCGA-02-0003_t1.nii"), ("TCGA-02-0006/a.nii",)],
    "BIDS": [
        ("ds1/sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz", "train/sub-01_T2w.nii"),
        ("sub-02/anat/sub-02_T1w.nii",),
    ],
    "copies": [("case0.nii", "case0 (1).nii", "case0 - Copy.nii", "backup/case0.nii"), ("case1.nii",)],
    "copied folders": [("kim/a.nii", "kim (1)/a.nii", "kim - Copy/a.nii", "backup/kim/b.nii"), ("lee/a.nii",)],
    "splits": [("train/kim/a.nii", "test/kim/b.nii"), ("train/lee/a.nii",)],
    "years": [("2021/kim/a.nii", "2022/kim/a.nii", "kim/2021-04-05/a.nii"), ("2021/lee/a.nii",)],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_person_is_one_subject(layout):
    persons = LAYOUTS[layout]
    subjects = assign_subjects([path for person in persons for path in person]).subjects
    of_each = [{subjects[path] for path in person} for person in persons]
    assert [len(names) for names in of_each] == [1] * len(persons), of_each
    assert len(set.union(*of_each)) == len(persons), of_each


def test_each_rule_says_itself_with_three_examples_of_different_persons():
    paths = [f"sub-{number:02d}/sub-{number:02d}_{name}.nii" for number in range(5) for name in ("T1w", "T2w")]
    (line,) = assign_subjects(paths).described()
    assert line.startswith("by BIDS (sub-XX), 10 files: sub-00/sub-00_T1w.nii -> sub-00, sub-01/")
    assert line.count("->") == 3


@pytest.mark.parametrize(
    ("paths", "warning"),
    [
        (["T1.nii", "a_T2.nii"], "called T1: that is no person"),
        (["imagesTr/labels.nii", "kim/a.nii"], "called labels"),
        (["kim/PAT01_T1.nii", "lee/PAT01_T2.nii"], r"PAT01 in kim, lee"),
        (["siteA/PAT01/T1.nii", "siteB/PAT01/T1.nii"], r"PAT01 in siteA, siteB\): taken as one person"),
        (["train/Kim/a.nii", "test/KIM/b.nii", "test/lee/b.nii"], r"1 of several spellings \(KIM, Kim\): one person\?"),
        ([f"things/{name}.nii" for name in "abcde"], r"all 5 files are one subject \(things\)"),
    ],
)
def test_doubt_is_said(paths, warning):
    with pytest.raises(AssertionError, match=warning):
        raise AssertionError("; ".join(assign_subjects(paths).warnings))


def test_no_warning_where_nothing_is_odd():
    assert assign_subjects(["PAT01/T1.nii", "PAT01/T2.nii", "PAT02/T1.nii", "PAT02/T2.nii"]).warnings == ()


def test_an_expression_or_a_table_of_the_users_own(tmp_path):
    paths = ["x7-a.nii", "deep/x7-b.nii", "x9-a.nii"]
    by_pattern = assign_subjects(paths, r"(x\d+)-")
    assert list(by_pattern.subjects.values()) == ["x7", "x7", "x9"]
    assert by_pattern.described()[0].startswith(r"by --subjects (x\d+)-, 3 files: ")
    table = tmp_path / "who.csv"
    table.write_text("file,subject\nx7-a.nii,kim\ndeep,kim\nx9-a,lee\n")
    assert list(assign_subjects(paths, str(table)).subjects.values()) == ["kim", "kim", "lee"]
    assert recorded(str(table)).startswith("table sha256:")
    assert "kim" not in recorded(str(table))  # a table may name persons; a store does not


@pytest.mark.parametrize(
    ("override", "table", "message"),
    [
        ("x7", None, "expected a group in parentheses"),
        ("(x7", None, "not a regular expression"),
        ("(x9)", None, r"does not match 1 of 1 files, the first: x7-a.nii; every file needs a subject"),
        ("who.csv", None, "No such file"),
        ("who.csv", "one\n", "expected rows of two columns"),
        ("who.csv", "x7-a,kim\nx7-a,lee\n", "two subjects, kim and lee"),
        ("who.csv", "x9-a,kim\n", "has no row for 1 of 1 files"),
    ],
)
def test_an_override_that_does_not_do_is_refused_in_a_line(tmp_path, monkeypatch, override, table, message):
    monkeypatch.chdir(tmp_path)
    if table is not None:
        (tmp_path / "who.csv").write_text(table)
    with pytest.raises(DataError, match=message) as caught:
        assign_subjects(["x7-a.nii"], override)
    assert "\n" not in str(caught.value)
