"""Which images are one volume: every attribute that tells echoes and time points apart, with images lost, extra, twice."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
import trees
from test_readers import ref, series

from ussim.errors import DataError
from ussim.volumes.dicom import load_dicom
from ussim.volumes.files import walk
from ussim.volumes.grouping import PHASE_KEYS

N = 6
UID = "1.2.3.4"
VALUES = {
    "ImageType": [["ORIGINAL", "PRIMARY", "M", "ECHO1"], ["ORIGINAL", "PRIMARY", "M", "ECHO2"]],
    "TriggerTime": [0, 400],
    "AcquisitionTime": ["101010", "101112"],
    "ContentTime": ["101010", "101112"],
}


def phases(folder, attribute=None, count=2, **tags):
    """Series of `count` phases in one SeriesInstanceUID; phase p is p times as bright."""
    for phase in range(1, count + 1):
        values = VALUES.get(attribute, [1, 2, 3])
        own = {attribute: values[phase - 1]} if attribute else {}
        trees.write_series(
            folder / str(phase),
            n_slices=N,
            gain=lambda index, phase=phase: phase,
            SeriesInstanceUID=UID,
            SOPInstanceUID=lambda index, phase=phase: f"{UID}.{phase}.{index}",
            InstanceNumber=lambda index, phase=phase: N * (phase - 1) + index + 1,
            **own,
            **tags,
        )


def edit(path, change):
    """Write a file anew with its header changed."""
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


def loaded(folder):
    refs, skipped = series(folder)
    return [load_dicom(item) for item in refs], refs, skipped


def assert_phases(volumes, counts):
    """Each volume is of one phase only: the liver's grey is that of its phase in every slice that shows it."""
    assert [volume.voxels.shape[2] for volume in volumes] == counts
    for phase, volume in enumerate(volumes, 1):
        assert volume.voxels[0, 0].max() == pytest.approx(4 * phase)  # air, in every slice of this phase and no other
        assert volume.voxels[0, 0].min() == pytest.approx(4 * phase)


@pytest.mark.parametrize("attribute", PHASE_KEYS)
@pytest.mark.parametrize("fault", ["none", "one less", "half", "one twice"])
def test_every_attribute_splits_phases_of_unequal_size(tmp_path, attribute, fault):
    phases(tmp_path, attribute)
    if fault == "one less":
        (tmp_path / "2" / "IM0003.dcm").unlink()
    if fault == "half":
        for index in (3, 4, 5):
            (tmp_path / "2" / f"IM{index:04d}.dcm").unlink()
    if fault == "one twice":
        (tmp_path / "again.dcm").write_bytes((tmp_path / "1" / "IM0002.dcm").read_bytes())
    volumes, refs, skipped = loaded(tmp_path)
    assert_phases(volumes, [N, {"one less": N - 1, "half": N - 3}.get(fault, N)])
    assert [item.splits[0][0] for item in refs] == [attribute] * 2
    missing = [note for note in volumes[1].notes if "missing at" in note]
    assert bool(missing) == (fault in ("one less", "half"))
    if fault == "one less":
        assert f"{N - 1} of {N} slices; missing at 3 mm" in missing[0]
    assert len(skipped) == (fault == "one twice")


@pytest.mark.parametrize("attribute", PHASE_KEYS)
def test_an_attribute_of_each_slice_splits_nothing(tmp_path, attribute):
    """Twelve slices with a time of their own, one of them sent twice: one volume, not thirteen."""
    values = {"ImageType": lambda i: ["ORIGINAL", "PRIMARY", "M", f"E{i}"]}
    own = values.get(attribute, lambda i: f"10101{i}" if "Time" in attribute else i + 1)
    trees.write_series(tmp_path, n_slices=N, **{attribute: own})
    (tmp_path / "copy.dcm").write_bytes((tmp_path / "IM0002.dcm").read_bytes())
    volumes, _, skipped = loaded(tmp_path)
    assert [volume.voxels.shape[2] for volume in volumes] == [N]
    assert skipped == {"copy.dcm": "the same image as IM0002.dcm"}
    assert any("1 image sent twice" in note for note in volumes[0].notes)


@pytest.mark.parametrize("attribute", PHASE_KEYS)
def test_one_more_image_of_any_attribute_is_no_volume_and_disturbs_none(tmp_path, attribute):
    phases(tmp_path, attribute)
    third = {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ECHO3"], "TriggerTime": 800}
    value = third.get(attribute, "101314" if "Time" in attribute and attribute in VALUES else 3)
    path = tmp_path / "more.dcm"
    path.write_bytes((tmp_path / "1" / "IM0002.dcm").read_bytes())

    def change(dataset):
        setattr(dataset, attribute, value)
        dataset.SOPInstanceUID, dataset.InstanceNumber = "1.2.9", 99
        dataset.PixelData = (dataset.pixel_array * 3).tobytes()

    edit(path, change)
    volumes, refs, skipped = loaded(tmp_path)
    assert_phases(volumes, [N, N])
    assert [item.splits[0][0] for item in refs] == [attribute] * 2
    assert list(skipped) == ["more.dcm"]
    assert skipped["more.dcm"].startswith(f"one image of {attribute} ")


def test_a_second_image_with_other_pixels_is_no_copy_and_no_volume(tmp_path):
    trees.write_series(tmp_path, n_slices=N, SeriesInstanceUID=UID, AcquisitionNumber=1)
    trees.write_series(
        tmp_path / "b", n_slices=1, SeriesInstanceUID=UID, gain=lambda i: 2, AcquisitionNumber=2,
        ImagePositionPatient=[-50.4, -50.4, 3.0], SOPInstanceUID="1.2.9", InstanceNumber=9,
    )  # fmt: skip
    volumes, _, skipped = loaded(tmp_path)
    assert_phases(volumes, [N])
    assert skipped["b/IM0000.dcm"] == f"one image of AcquisitionNumber 2 where a volume has {N} slices: no volume"


@pytest.mark.parametrize("layout", ["phase after phase", "slice after slice"])
@pytest.mark.parametrize("lost", [(1, 0), (1, 3), (2, 5), None])
def test_an_image_lost_among_phases_that_nothing_tells_apart_shifts_no_other(tmp_path, layout, lost):
    phases(tmp_path)
    if layout == "slice after slice":
        for phase in (1, 2):
            for index, path in enumerate(sorted((tmp_path / str(phase)).iterdir())):
                edit(path, lambda dataset, n=2 * index + phase: setattr(dataset, "InstanceNumber", n))
    counts = [N, N]
    if lost:
        (tmp_path / str(lost[0]) / f"IM{lost[1]:04d}.dcm").unlink()
        counts[lost[0] - 1] -= 1
    volumes, refs, _ = loaded(tmp_path)
    assert_phases(volumes, counts)
    assert [item.splits for item in refs] == [(("order", "1"),), (("order", "2"),)]


def test_where_nothing_tells_whose_an_image_is_it_is_left_out(tmp_path):
    phases(tmp_path)
    for path in walk(tmp_path):
        edit(path, lambda dataset: delattr(dataset, "InstanceNumber"))
    (tmp_path / "1" / "IM0003.dcm").unlink()
    volumes, _, skipped = loaded(tmp_path)
    assert_phases(volumes, [N - 1, N - 1])
    assert "nothing tells which volume" in skipped["2/IM0003.dcm"]


def test_two_attributes_together(tmp_path):
    for time in (1, 2):
        phases(tmp_path / str(time), "EchoTime", TemporalPositionIdentifier=time)
    for path in walk(tmp_path / "2"):  # not copies of the first time point
        edit(path, lambda dataset: setattr(dataset, "PixelData", (dataset.pixel_array + 1).tobytes()))
    _, refs, _ = loaded(tmp_path)
    assert {key for item in refs for key, _ in item.splits} == {"TemporalPositionIdentifier", "EchoTime"}
    assert len({item.splits for item in refs}) == len(refs) == 4


@pytest.mark.parametrize("uid", ["", "1.2.3"])
def test_a_constant_or_empty_instance_uid_costs_no_slice(tmp_path, uid):
    for path in trees.write_series(tmp_path, n_slices=N):
        edit(path, lambda dataset: setattr(dataset, "SOPInstanceUID", uid))
    volumes, _, skipped = loaded(tmp_path)
    assert [volume.voxels.shape[2] for volume in volumes] == [N]
    assert not skipped


def test_patients_under_one_series_uid_are_several(tmp_path):
    for number, patient in enumerate(("A", "B", "C")):
        trees.write_series(
            tmp_path / patient, n_slices=N, SeriesInstanceUID=UID, PatientID=patient, gain=lambda i, n=number: n + 1
        )
    volumes, refs, _ = loaded(tmp_path)
    assert len({item.subject for item in refs}) == 3
    assert [volume.voxels.shape[2] for volume in volumes] == [N] * 3


def test_a_series_uid_of_its_own_in_each_slice_is_joined(tmp_path):
    for number, path in enumerate(trees.write_series(tmp_path, n_slices=N, SeriesNumber=4)):
        edit(path, lambda dataset, n=number: setattr(dataset, "SeriesInstanceUID", f"1.2.3.{n}"))
    volumes, _, _ = loaded(tmp_path)
    assert [volume.voxels.shape[2] for volume in volumes] == [N]
    assert any("joined by study, number and geometry" in note for note in volumes[0].notes)


@pytest.mark.parametrize("tags", [
    {"ImagePositionPatient": None},
    {"ImagePositionPatient": [0.0, 0.0, 0.0]},
])  # fmt: skip
def test_slice_location_orders_slices_without_a_position(tmp_path, tags):
    trees.write_series(
        tmp_path, n_slices=N, gain=lambda i: i + 1, InstanceNumber=lambda i: -i, SliceLocation=lambda i: 6.0 * i, **tags
    )
    (volume,), _, _ = loaded(tmp_path)
    assert volume.voxels.min(axis=(1, 2)).tolist() == [4 * (index + 1) for index in range(N)]
    assert volume.spacing[0] == 6.0


def test_blank_positions_without_a_location_go_by_number(tmp_path):
    trees.write_series(tmp_path, n_slices=N, gain=lambda i: i + 1, ImagePositionPatient=[0.0, 0.0, 0.0])
    (volume,), _, _ = loaded(tmp_path)
    assert volume.voxels.min(axis=(1, 2)).tolist() == [4 * (index + 1) for index in range(N)]


def test_a_file_cut_short_costs_its_slice(tmp_path):
    paths = trees.write_series(tmp_path, n_slices=N)
    paths[2].write_bytes(paths[2].read_bytes()[:-3000])
    (volume,), _, _ = loaded(tmp_path)
    assert volume.voxels.shape[2] == N - 1
    assert any("1 of 6 slices cannot be read: left out" in note for note in volume.notes)
    assert any("slices may be missing" in note for note in volume.notes)


def test_files_cut_short_of_which_no_volume_is_left_are_skipped_before_they_are_read(tmp_path):
    whole = trees.write_enhanced(tmp_path / "frames" / "a.dcm", n_slices=4, n_phases=1)
    whole.write_bytes(whole.read_bytes()[:-100])
    paths = trees.write_series(tmp_path / "files", n_slices=N)
    for path in paths[: N // 2 + 1]:
        path.write_bytes(path.read_bytes()[:-100])
    refs, skipped = series(tmp_path)
    assert not refs
    assert set(skipped.values()) == {"cut short: pixels are missing"}
    with pytest.raises(DataError, match="pixels cannot be read"):
        load_dicom(ref(whole))


def test_the_parts_of_a_concatenation_are_one_volume(tmp_path):
    whole = pydicom.dcmread(trees.write_enhanced(tmp_path / "whole.dcm", n_slices=4, n_phases=1))
    groups, pixels = list(whole.PerFrameFunctionalGroupsSequence), whole.pixel_array
    (expected,), _, _ = loaded(tmp_path)
    for part in (0, 1):
        whole.PerFrameFunctionalGroupsSequence = groups[2 * part : 2 * part + 2]
        whole.NumberOfFrames, whole.PixelData = 2, pixels[2 * part : 2 * part + 2].tobytes()
        whole.ConcatenationUID, whole.ConcatenationFrameOffsetNumber = "1.2.7", 2 * part
        whole.SOPInstanceUID = f"1.2.7.{part}"
        whole.save_as(tmp_path / "parts" / f"{part}.dcm") if part else (
            (tmp_path / "parts").mkdir(),
            whole.save_as(tmp_path / "parts" / "0.dcm"),
        )
    (volume,), _, _ = loaded(tmp_path / "parts")
    assert np.array_equal(volume.voxels, expected.voxels)


def test_a_collection_that_takes_one_stack_says_which_it_leaves(tmp_path):
    phases(tmp_path, "EchoTime")
    volume = load_dicom(ref(*walk(tmp_path)))
    assert "the files make 2 volumes: number 1 (EchoTime 1) is used; left out: EchoTime 2" in [
        note.replace("1.0", "1").replace("2.0", "2") for note in volume.notes
    ]


@pytest.mark.parametrize(("n_slices", "is_one"), [(3, True), (20, False)])
def test_three_orthogonal_directions_of_few_slices_are_a_localizer(tmp_path, n_slices, is_one):
    for number, plane in enumerate(("axial", "coronal", "sagittal")):
        for index, path in enumerate(trees.write_series(tmp_path / plane, plane, n_slices, SeriesInstanceUID=UID)):
            edit(path, lambda dataset, uid=f"1.2.{number}.{index}": setattr(dataset, "SOPInstanceUID", uid))
    refs, skipped = series(tmp_path)
    assert len(refs) == (0 if is_one else 3)
    assert [reason.split(":")[0] for reason in skipped.values()] == ["localizer"] * is_one
