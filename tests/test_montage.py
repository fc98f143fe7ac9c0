"""Montages (MOSAIC, VFRAME): cut into slices that lie where those of single files do, or skipped with a reason."""

from __future__ import annotations

import gzip
import struct
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
import trees
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from test_readers import ref, series

from datagen.sources import Selection, get_source
from ussim.volumes import dicom_pixels
from ussim.volumes.dicom import load_dicom

MOSAIC, VFRAME = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], ["ORIGINAL", "PRIMARY", "M", "VFRAME"]


def csa(tags):
    """A CSA header (the newer form, SV10) of names with text values."""
    content = b"SV10\4\3\2\1" + struct.pack("<2I", len(tags), 77)
    for name, (vr, values) in tags.items():
        content += struct.pack("<64si4s3i", name.encode(), len(values), vr.encode(), 0, len(values), 77)
        for value in values:
            text = value.encode() + b"\0"
            content += struct.pack("<4i", len(text), len(text), 77, len(text)) + text + b"\0" * (-len(text) % 4)
    return content


def montage(paths, out, word="MOSAIC", backwards=False, **tags):
    """One picture of the classic files of a series; `backwards`: their order is against the normal of the image."""
    images = [pydicom.dcmread(path) for path in paths]
    if backwards:
        images.reverse()
    across = int(np.ceil(np.sqrt(len(images))))
    down = across if word == "MOSAIC" else -(-len(images) // across)
    rows, columns = images[0].pixel_array.shape
    picture = np.full((down * rows, across * columns), 9, np.uint16)
    for number, image in enumerate(images):
        r, c = divmod(number, across)
        picture[r * rows : (r + 1) * rows, c * columns : (c + 1) * columns] = image.pixel_array
    dataset = images[0]
    dataset.Rows, dataset.Columns = picture.shape
    dataset.PixelData = picture.tobytes()
    positions = [list(image.ImagePositionPatient) for image in images]
    row, column = (np.array(dataset.ImageOrientationPatient[n : n + 3], float) for n in (0, 3))
    normal = np.cross(row, column) * (-1 if backwards else 1)
    if word == "MOSAIC":
        dataset.ImageType = MOSAIC
        spacing = [float(size) for size in dataset.PixelSpacing]
        # As the scanner writes it: the corner of a picture as large as the montage, around the center of the slice.
        corner = np.array(positions[0], float) - row * spacing[1] * (picture.shape[1] - columns) / 2
        corner -= column * spacing[0] * (picture.shape[0] - rows) / 2
        dataset.ImagePositionPatient = [float(f"{value:.6f}") for value in corner]
        dataset.SpacingBetweenSlices = 6.0
        header = {
            "NumberOfImagesInMosaic": ("US", [str(len(images))]),
            "SliceNormalVector": ("FD", [f"{value:.8f}" for value in normal]),
        }
        dataset.private_block(0x29, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", csa(header))
    else:
        dataset.ImageType = VFRAME
        block = dataset.private_block(0x65, "Image Private Header", create=True)
        block.add_new(0x50, "DS", str(len(images)))
        items = [Dataset() for _ in positions]
        for item, position in zip(items, positions, strict=True):
            item.ImagePositionPatient = position
        block.add_new(0x51, "SQ", Sequence(items))
        del dataset.ImagePositionPatient
    for name, value in tags.items():
        setattr(dataset, name, value)
    out.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(out)
    return out


@pytest.mark.parametrize("word", ["MOSAIC", "VFRAME"])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("plane", "n_slices"), [("axial", 4), ("coronal", 5), ("sagittal", 7), ("axial", 2)])
def test_slices_of_a_montage_lie_where_those_of_single_files_do(tmp_path, word, backwards, plane, n_slices):
    paths = trees.write_series(tmp_path / "single", plane=plane, n_slices=n_slices, shape=(40, 48))
    (single,), _ = series(tmp_path / "single")
    montage(paths, tmp_path / "montage" / "a.dcm", word, backwards)
    (only,), skipped = series(tmp_path / "montage")
    assert not skipped
    volume, expected = load_dicom(only), load_dicom(single)
    assert np.array_equal(volume.voxels, expected.voxels)
    assert volume.spacing == pytest.approx(expected.spacing)
    assert np.allclose(volume.file_affine, expected.file_affine, atol=2e-5)  # mm: positions have six decimals
    assert volume.planes() == expected.planes()


def test_an_oblique_montage(tmp_path):
    angle = np.radians(20)
    cosines = (1, 0, 0, 0, round(float(np.cos(angle)), 6), round(float(np.sin(angle)), 6))
    paths = trees.write_series(tmp_path / "single", n_slices=6, cosines=cosines)
    (single,), _ = series(tmp_path / "single")
    montage(paths, tmp_path / "montage" / "a.dcm", backwards=True)
    (only,), _ = series(tmp_path / "montage")
    volume, expected = load_dicom(only), load_dicom(single)
    assert np.array_equal(volume.voxels, expected.voxels)
    assert np.allclose(volume.file_affine, expected.file_affine, atol=1e-4)


def scanners_own() -> list[Path]:
    """Two volumes of a Siemens diffusion scan that NiBabel brings along."""
    import nibabel

    folder = Path(nibabel.__file__).parent / "nicom" / "tests" / "data"
    paths = [folder / f"siemens_dwi_{number}.dcm.gz" for number in (0, 1000)]
    if not all(path.is_file() for path in paths):
        pytest.skip("NiBabel is installed without its test data")
    return paths


def test_a_scanners_own_mosaic_lies_where_nibabel_puts_it(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "experimental", at import
        from nibabel.nicom.dicomwrappers import wrapper_from_data
    path = scanners_own()[0]
    (tmp_path / path.name).write_bytes(path.read_bytes())
    (only,), _ = series(tmp_path)
    volume = load_dicom(only)
    with gzip.open(path) as file:
        dataset = pydicom.dcmread(file)
    nibabels = wrapper_from_data(dataset)
    image = nibabels.get_data()  # (row, column, slice)
    affine = np.diag([-1, -1, 1, 1]) @ nibabels.affine  # LPS to RAS
    for row, column, slice_index in [(0, 0, 0), (10, 90, 3), (64, 64, 24), (127, 5, 47)]:
        place = affine @ (row, column, slice_index, 1)
        ours = np.rint(np.linalg.solve(volume.file_affine, place)).astype(int)
        assert np.allclose(volume.file_affine @ ours, place, atol=1e-3)  # mm
        assert tuple(ours[:3]) == (column, row, slice_index)
    assert volume.voxels.shape == (128, 128, 48)
    assert np.array_equal(np.sort(volume.voxels, axis=None), np.sort(image, axis=None))
    turned = volume.voxels[::-1, ::-1]  # to Left, Posterior, Superior, as columns, rows and slices of this scan run
    assert np.array_equal(turned, image.transpose(1, 0, 2))


def test_time_points_of_a_mosaic_follow_the_policy_of_frames(tmp_path):
    paths = trees.write_series(tmp_path / "single", n_slices=5)
    for time in range(3):
        montage(
            paths, tmp_path / "m" / f"{time}.dcm", AcquisitionNumber=time + 1, InstanceNumber=time + 1,
            SOPInstanceUID=f"1.2.3.{time}", RescaleSlope=time + 1.0, RescaleIntercept=0.0,
        )  # fmt: skip
    one = get_source("dicom").find(tmp_path / "m")
    assert len(one) == 1
    assert len(one.skipped) == 2
    three = get_source("dicom", Selection(frames="all")).find(tmp_path / "m")
    peaks = [float(load_dicom(item).voxels.max()) for item in three]
    assert peaks == [peaks[0], 2 * peaks[0], 3 * peaks[0]]
    assert [load_dicom(item).voxels.shape for item in three] == [(64, 64, 5)] * 3


def test_time_points_that_nothing_tells_apart_are_read_once_each(tmp_path, monkeypatch):
    """Whether they are copies is seen by their pixels, slice by slice: not file by file for each slice."""
    paths = trees.write_series(tmp_path / "single", n_slices=5)
    for time in range(3):
        montage(paths, tmp_path / "m" / f"{time}.dcm", InstanceNumber=time + 1, RescaleSlope=1.0, RescaleIntercept=0.0)
        changed = pydicom.dcmread(tmp_path / "m" / f"{time}.dcm")
        changed.PixelData = (changed.pixel_array + np.uint16(time)).tobytes()
        changed.save_as(tmp_path / "m" / f"{time}.dcm")
    opened, pixels = [], dicom_pixels._pixels
    monkeypatch.setattr(dicom_pixels, "_pixels", lambda path, label: opened.append(path) or pixels(path, label))
    found = get_source("dicom", Selection(frames="all")).find(tmp_path / "m")
    assert sorted(opened) == [str(tmp_path / "m" / f"{time}.dcm") for time in range(3)]
    lowest = [int(load_dicom(item).voxels.min()) for item in found]
    assert lowest == [4, 5, 6]  # air is 4


def without_csa(dataset):
    del dataset[0x00291010]


def of_count(count):
    def change(dataset):
        vector = {"SliceNormalVector": ("FD", ["0", "0", "1"])}
        dataset[0x00291010].value = csa({"NumberOfImagesInMosaic": ("US", [count]), **vector})

    return change


def with_normal(*values):
    def change(dataset):
        count = {"NumberOfImagesInMosaic": ("US", ["5"])}
        dataset[0x00291010].value = csa({**count, "SliceNormalVector": ("FD", list(values))})

    return change


def without(*names):
    def change(dataset):
        for name in names:
            delattr(dataset, name)

    return change


def with_number_alone(dataset):
    without_csa(dataset)
    dataset.private_block(0x19, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 5)


def damaged(dataset):
    dataset[0x00291010].value = dataset[0x00291010].value[:40]


def without_positions(dataset):
    del dataset[0x00651051]


def one_position_less(dataset):
    del dataset[0x00651051].value[-1]


@pytest.mark.parametrize(("word", "change", "reason"), [
    ("MOSAIC", without_csa, "no number of slices"),
    ("MOSAIC", damaged, "no number of slices"),
    ("MOSAIC", of_count("0"), "0 slices, expected 2"),
    ("MOSAIC", of_count("1"), "1 slices, expected 2"),
    ("MOSAIC", of_count("200"), "200 slices do not fit into 120 x 144 pixels"),
    ("MOSAIC", with_number_alone, "no SliceNormalVector"),
    ("MOSAIC", with_normal(), "no SliceNormalVector"),
    ("MOSAIC", with_normal("1", "0", "0"), "SliceNormalVector is not across its slices"),
    ("MOSAIC", without("ImagePositionPatient"), "no ImagePositionPatient"),
    ("MOSAIC", without("ImageOrientationPatient"), "no ImageOrientationPatient"),
    ("MOSAIC", without("PixelSpacing"), "no PixelSpacing"),
    ("MOSAIC", without("SpacingBetweenSlices", "SliceThickness"), "no distance between slices"),
    ("VFRAME", without_positions, "no positions of its slices"),
    ("VFRAME", one_position_less, "5 slices, but positions of 4"),
    ("VFRAME", without("ImageOrientationPatient"), "no ImageOrientationPatient"),
])  # fmt: skip
def test_a_montage_whose_tags_do_not_suffice_is_skipped_with_what_is_missing(tmp_path, word, change, reason):
    paths = trees.write_series(tmp_path / "single", n_slices=5, shape=(40, 48))
    path = montage(paths, tmp_path / "m" / "a.dcm", word)
    assert len(series(path.parent)[0]) == 1  # as it is, it is cut
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    refs, skipped = series(path.parent)
    assert not refs
    assert skipped["a.dcm"].startswith("montage of slices tiled in one picture (")
    assert reason in skipped["a.dcm"]
    volume = load_dicom(ref(path))  # asked for by name: the picture as it is, and what it is
    assert volume.n_slices(volume.planes()[0]) == 1
    assert reason in volume.notes[0]


def test_slice_thickness_serves_where_no_gap_is_given(tmp_path):
    paths = trees.write_series(tmp_path / "single", n_slices=4, step=3.0)
    dataset = pydicom.dcmread(montage(paths, tmp_path / "m" / "a.dcm"))
    del dataset.SpacingBetweenSlices
    dataset.save_as(tmp_path / "m" / "a.dcm")
    (only,), _ = series(tmp_path / "m")
    assert load_dicom(only).spacing == pytest.approx((1.6, 1.6, 3.0))


def test_frames_of_a_file_that_kept_the_word_are_no_montage(tmp_path):
    """Newer Siemens scanners store the slices as frames and leave MOSAIC in ImageType."""
    path = trees.write_enhanced(tmp_path / "a.dcm", n_slices=4, n_phases=1)
    dataset = pydicom.dcmread(path)
    dataset.ImageType = MOSAIC
    dataset.save_as(path)
    (only,), skipped = series(tmp_path)
    assert not skipped
    assert load_dicom(only).voxels.shape == (64, 64, 4)


def test_a_mosaic_of_implicit_vr_is_cut(tmp_path):
    """Nobody says there what private values are: the number of UIH's slices comes as bytes."""
    paths = trees.write_series(tmp_path / "single", n_slices=5)
    for word in ("MOSAIC", "VFRAME"):
        path = montage(paths, tmp_path / word / "a.dcm", word)
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        dataset.save_as(path, implicit_vr=True, little_endian=True)
        (only,), _ = series(tmp_path / word)
        assert load_dicom(only).voxels.shape == (64, 64, 5)
