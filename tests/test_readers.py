"""Files to volumes: orientation, order, spacing, codecs, and no identifier kept. Real MRI where there is some, else
files made from a phantom with a known place in the patient (tests/trees.py)."""

from __future__ import annotations

import gzip
import pickle

import nibabel as nib
import numpy as np
import pydicom
import pytest
import trees
from PIL import Image
from pydicom.data import get_testdata_file

from datagen.sources import Selection, get_source
from ussim.errors import DataError
from ussim.volumes.dicom import load_dicom, scan_dicom
from ussim.volumes.dicom_headers import read_header
from ussim.volumes.files import natural, walk
from ussim.volumes.nifti import load_nifti
from ussim.volumes.pictures import load_npy, load_pictures
from ussim.volumes.reading import read_image
from ussim.volumes.volume import Volume, VolumeRef


def ref(*paths, **fields) -> VolumeRef:
    return VolumeRef("test", "subject", "volume", tuple(str(path) for path in paths), **fields)


def series(folder):
    refs, skipped = scan_dicom(walk(folder), folder, "dicom")
    return refs, {item.path: item.reason for item in skipped}


def assert_in_place(volume: Volume) -> None:
    """Every voxel of a canonical volume shows the tissue that is there: no axis swapped or flipped."""
    assert volume.orientation == "RAS"
    assert trees.misplaced(volume) < 0.02  # rounding to integers, and float32 positions at the edges


# --- volumes ---------------------------------------------------------------------------------------------------------


def test_planes_show_right_on_the_left_and_superior_up(tmp_path):
    volume = load_nifti(ref(trees.write_nifti(tmp_path / "v.nii", shape=(64, 60, 40), spacing=(1.6, 1.6, 3.0))))
    for plane, index in (("axial", 16), ("coronal", 34), ("sagittal", 45)):
        image, pixel = volume.slice(plane, index)
        rows, columns = np.nonzero(np.abs(image - 700) < 1)  # the liver: right, anterior, inferior
        down, across = rows.mean() / image.shape[0] - 0.5, columns.mean() / image.shape[1] - 0.5
        if plane == "axial":
            assert down < 0
            assert across < 0
            assert pixel == pytest.approx((1.6, 1.6))
        else:
            assert down > 0  # inferior is below
            assert across < 0  # the patient's right, or anterior, is on the left
            assert pixel == pytest.approx((3.0, 1.6))
        assert image.shape == volume.slice_shape(plane)


def test_planes_of_thick_slices_are_the_acquired_one_only(tmp_path):
    volume = load_nifti(ref(trees.write_nifti(tmp_path / "v.nii", spacing=(1.6, 1.6, 6.0))))
    assert volume.planes() == ("axial", "coronal", "sagittal")
    assert volume.square_planes() == ("axial",)


def test_a_slice_or_plane_that_is_not_there_is_refused(tmp_path):
    volume = load_nifti(ref(trees.write_nifti(tmp_path / "v.nii")))
    with pytest.raises(DataError, match="there are 0 to 11"):
        volume.slice("axial", 12)
    with pytest.raises(DataError, match="no 'acquired' plane"):
        volume.slice("acquired", 0)


def test_voxels_that_are_not_numbers_are_refused():
    voxels = np.zeros((2, 3, 3), np.float32)
    voxels[1, 1, 1] = np.nan
    with pytest.raises(DataError, match="1 of 18 values are NaN"):
        Volume("npy", "s", "v", voxels, (None, None, None), "acquired", "")


# --- NIfTI -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIL", "ASR", "SLA"])
def test_nifti_of_any_orientation_is_canonical(tmp_path, axes):
    lengths = {"R": 40, "L": 40, "A": 44, "P": 44, "S": 20, "I": 20}
    shape = tuple(lengths[axis] for axis in axes)
    spacing = tuple(5.0 if axis in "SI" else 2.0 for axis in axes)
    volume = load_nifti(ref(trees.write_nifti(tmp_path / "v.nii.gz", axes, shape, spacing)))
    assert volume.voxels.shape == (40, 44, 20)
    assert volume.spacing == pytest.approx((2.0, 2.0, 5.0))
    assert volume.voxels.dtype == np.int16
    assert_in_place(volume)


@pytest.mark.parametrize(("name", "compressed", "note"), [
    ("v.nii.gz", False, "uncompressed file named .gz"),
    ("v.nii", True, "gzip file not named .gz"),
    ("v.nii.gz", True, ""),
    ("v.nii", False, ""),
])  # fmt: skip
def test_compression_is_told_by_the_bytes_not_the_name(tmp_path, name, compressed, note):
    volume = load_nifti(ref(trees.write_nifti(tmp_path / name, compressed=compressed)))
    assert volume.notes == ((note,) if note else ())
    assert_in_place(volume)


def test_lost_voxel_size_and_orientation_are_noted(tmp_path):
    volume = load_nifti(ref(trees.write_nifti(tmp_path / "v.nii", lost_spacing=True)))
    assert any("1 x 1 x 1 mm" in note for note in volume.notes)
    assert any("no orientation" in note for note in volume.notes)


def test_four_dimensional_nifti_gives_the_frame_asked_for(tmp_path):
    frames = np.arange(5 * 6 * 7 * 3, dtype=np.int16).reshape(5, 6, 7, 3)
    path = tmp_path / "fmri.nii.gz"
    nib.save(nib.Nifti1Image(frames, np.eye(4) * [2, 2, 2, 1]), path)
    assert np.array_equal(load_nifti(ref(path)).voxels, frames[..., 0])
    last = load_nifti(ref(path, part=2))
    assert np.array_equal(last.voxels, frames[..., 2])
    assert "4-D file of 3 frames: frame 2 used" in last.notes
    with pytest.raises(DataError, match="frame 3 asked for; there are 0 to 2"):
        load_nifti(ref(path, part=3))


def test_scaled_nifti_is_float32_and_right(tmp_path):
    image = nib.Nifti1Image(np.zeros((4, 5, 6)), np.eye(4))
    image.header.set_data_dtype(np.int16)
    values = np.linspace(-3.0, 7.0, 120).reshape(4, 5, 6)
    nib.save(nib.Nifti1Image(values, np.eye(4), image.header), tmp_path / "v.nii")
    volume = load_nifti(ref(tmp_path / "v.nii"))
    assert volume.voxels.dtype == np.float32
    np.testing.assert_allclose(volume.voxels, values, atol=10 / 2**16)  # one step of the 16-bit scale


def test_big_endian_nifti(tmp_path):
    values = np.arange(60, dtype=">i2").reshape(3, 4, 5)
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.save(nib.Nifti1Image(values, np.eye(4), header), tmp_path / "v.nii")
    volume = load_nifti(ref(tmp_path / "v.nii"))
    assert np.array_equal(volume.voxels, values)
    assert volume.voxels.dtype.isnative


def test_damaged_nifti_is_one_clear_line(tmp_path):
    good = trees.write_nifti(tmp_path / "good.nii.gz").read_bytes()
    cases = {
        "text.nii.gz": b"this is a letter, not an image" * 20,
        "empty.nii": b"",
        "short.nii.gz": good[: len(good) // 2],
        "cut.nii": gzip.decompress(good)[:5000],
        "gzip.nii.gz": b"\x1f\x8b" + b"\0" * 50,
    }
    for name, content in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"^volume: ") as caught:
            load_nifti(ref(path))
        assert "\n" not in str(caught.value)
        assert str(tmp_path) not in str(caught.value)  # errors may end up in a store: no paths
        with pytest.raises(DataError, match=name):
            read_image(path)
    with pytest.raises(DataError, match="volume: No such file"):
        load_nifti(ref(tmp_path / "absent.nii"))


def test_colour_nifti_is_refused(tmp_path):
    color = np.zeros((3, 4, 5), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nib.save(nib.Nifti1Image(color, np.eye(4)), tmp_path / "v.nii")
    with pytest.raises(DataError, match="color or complex"):
        load_nifti(ref(tmp_path / "v.nii"))


def test_voxel_size_comes_from_the_affine_that_gives_the_orientation(tmp_path):
    image = nib.Nifti1Image(np.ones((4, 5, 6), np.int16), np.diag([0.5, 0.5, 5.0, 1.0]))
    image.header["pixdim"][1:4] = 1.0
    (tmp_path / "v.nii").write_bytes(image.to_bytes())
    volume = load_nifti(ref(tmp_path / "v.nii"))
    assert volume.spacing == pytest.approx((0.5, 0.5, 5.0))
    assert any("differ: affine used" in note for note in volume.notes)


def test_a_singular_sform_leaves_the_qform(tmp_path):
    values = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    image = nib.Nifti1Image(values, np.diag([-2.0, 2.0, 3.0, 1.0]))
    image.set_qform(np.diag([-2.0, 2.0, 3.0, 1.0]), 1)
    image.set_sform(np.diag([-2.0, 2.0, 3.0, 1.0]), 1)
    raw = bytearray(image.to_bytes())
    raw[280:328] = bytes(48)  # srow_x, srow_y, srow_z
    (tmp_path / "v.nii").write_bytes(raw)
    volume = load_nifti(ref(tmp_path / "v.nii"))
    assert np.array_equal(volume.voxels, values[::-1])
    assert "sform in the header is singular: qform used" in volume.notes


def test_values_of_1e300_are_scaled(tmp_path):
    values = np.linspace(0, 1e300, 120).reshape(4, 5, 6)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "v.nii")
    np.testing.assert_allclose(load_nifti(ref(tmp_path / "v.nii")).voxels, values / 1e300, atol=1e-6)


def test_a_qform_that_differs_from_the_sform_is_noted(tmp_path):
    """Other directions and other sizes, not the rounding of a quaternion."""
    for qform, differs in ((np.diag([2.0, 2, 3, 1]), True), (np.diag([-2.0, 2, 3.1, 1]), True), (None, False)):
        image = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(4, 5, 6), np.diag([-2.0, 2.0, 3.0, 1.0]))
        image.set_qform(image.affine if qform is None else qform, 1)
        image.set_sform(image.affine, 1)
        nib.save(image, tmp_path / "v.nii")
        volume = load_nifti(ref(tmp_path / "v.nii"))
        assert ("sform and qform in the header differ: sform used" in volume.notes) == differs
        assert volume.voxels[-1, 0, 0] == 0  # the sform's Left


@pytest.mark.parametrize("slope", [1e30, -1e35, 1e-35])
def test_a_nifti_slope_that_float32_cannot_hold_is_left_out(tmp_path, slope):
    values = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    image = nib.Nifti1Image(values, np.eye(4))
    image.header.set_slope_inter(slope, 0)
    raw = bytearray(image.to_bytes())
    raw[112:120] = np.array([slope, 0], "<f4").tobytes()  # scl_slope, scl_inter
    (tmp_path / "v.nii").write_bytes(raw)
    volume = load_nifti(ref(tmp_path / "v.nii"))
    assert np.array_equal(volume.voxels, values * np.sign(slope))
    assert any("in the header: values given without it" in note for note in volume.notes)


def test_nan_outside_the_body_is_outside_and_inside_is_damage(tmp_path):
    values = np.full((6, 6, 6), np.nan, np.float32)
    values[2:5, 2:5, 2:5] = np.arange(27).reshape(3, 3, 3) + 5
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "v.nii")
    volume = load_nifti(ref(tmp_path / "v.nii"))
    assert volume.voxels[0, 0, 0] == 5
    assert any("NaN, outside the body" in note for note in volume.notes)
    values[3, 3, 3] = np.nan
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "v.nii")
    with pytest.raises(DataError, match="1 of 216 values are NaN"):
        load_nifti(ref(tmp_path / "v.nii"))


# --- NPY and pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", ">i2", "uint16", "int64", "float16", "float32", "float64"])
def test_npy_of_any_real_type(tmp_path, dtype):
    stack = (np.arange(24).reshape(2, 3, 4) % 2).astype(dtype)
    np.save(tmp_path / "stack.npy", stack)
    volume = load_npy(ref(tmp_path / "stack.npy"))
    assert np.array_equal(volume.voxels, stack.astype(float))
    assert volume.voxels.dtype.isnative
    assert volume.voxels.dtype.itemsize <= 4
    assert volume.orientation == "acquired"
    assert volume.spacing == (None, None, None)
    assert any("square" in note for note in volume.notes)


@pytest.mark.parametrize("peak", [1e300, -1e300, 1e-300, 1e30])
def test_npy_values_that_float32_cannot_hold_are_scaled(tmp_path, peak):
    values = np.linspace(0, peak, 24).reshape(2, 3, 4)
    values[0, 0, 0] = np.nan  # at the border: outside
    np.save(tmp_path / "v.npy", values)
    volume = load_npy(ref(tmp_path / "v.npy"))
    lowest = np.nanmin(values)
    np.testing.assert_allclose(volume.voxels, np.nan_to_num(values, nan=lowest) / abs(peak), atol=1e-6)  # of float32
    assert any("scaled to 1" in note for note in volume.notes)


def test_nan_around_the_body_in_npy_is_outside_and_inside_is_damage(tmp_path):
    values = np.full((6, 6, 6), np.nan, np.float32)
    values[2:5, 2:5, 2:5] = np.arange(27).reshape(3, 3, 3) + 5
    np.save(tmp_path / "v.npy", values)
    volume = load_npy(ref(tmp_path / "v.npy"))
    assert volume.voxels[0, 0, 0] == 5
    assert any("NaN, outside the body" in note for note in volume.notes)
    values[3, 3, 3] = np.nan
    np.save(tmp_path / "v.npy", values)
    with pytest.raises(DataError, match="1 of 216 values are NaN"):
        load_npy(ref(tmp_path / "v.npy"))


def test_two_dimensional_npy_is_one_slice(tmp_path):
    np.save(tmp_path / "slice.npy", np.eye(5))
    volume = load_npy(ref(tmp_path / "slice.npy", orientation="sagittal"))
    assert volume.voxels.shape == (1, 5, 5)
    assert volume.planes() == ("sagittal",)


def test_npy_that_is_no_stack_is_refused(tmp_path):
    arrays = {
        "color": (np.zeros((32, 32, 3)), "looks like a color picture"),
        "movie": (np.zeros((2, 3, 4, 5)), r"got shape \(2, 3, 4, 5\)"),
        "complex": (np.zeros((2, 3, 4), complex), "expected real numbers, got complex128"),
        "empty": (np.zeros((0, 3, 4)), r"got shape \(0, 3, 4\)"),
        "nan": (np.full((2, 3, 4), np.nan), "24 of 24 values are NaN"),
        "words": (np.array([["a", "b"]]), "expected real numbers, got <U1"),
    }
    for name, (array, reason) in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(DataError, match=reason):
            load_npy(ref(tmp_path / f"{name}.npy"))
    np.save(tmp_path / "objects.npy", np.array([{}, None], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("not numbers")
    np.savez(tmp_path / "several.npz", a=np.eye(2))
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    not_numbers = "not an .npy file of numbers"
    for name, reason in {"objects": not_numbers, "text": not_numbers, "several": "several arrays"}.items():
        with pytest.raises(DataError, match=reason):
            load_npy(ref(tmp_path / f"{name}.npy"))


def test_pictures_of_every_mode_become_grey(tmp_path):
    grey = np.arange(0, 240, 5, dtype=np.uint8).reshape(6, 8)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    pictures = {
        "grey.png": Image.fromarray(grey),
        "rgb.png": Image.fromarray(rgb),
        "rgba.png": Image.fromarray(np.dstack([rgb, np.full_like(grey, 255)])),
        "la.png": Image.fromarray(np.dstack([grey, np.full_like(grey, 255)]), "LA"),
        "palette.png": Image.fromarray(rgb).quantize(256),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / name)
        np.testing.assert_allclose(load_pictures(ref(tmp_path / name)).voxels[0], grey, atol=1, err_msg=name)
    Image.fromarray(grey.astype(np.uint16) * 256).save(tmp_path / "deep.png")
    assert np.array_equal(load_pictures(ref(tmp_path / "deep.png")).voxels[0], grey.astype(np.uint16) * 256)
    Image.fromarray(grey > 100).save(tmp_path / "bits.png")
    assert np.array_equal(load_pictures(ref(tmp_path / "bits.png")).voxels[0], (grey > 100) * 255)


def test_pictures_of_different_sizes_are_no_stack(tmp_path):
    for side in (4, 5):
        Image.fromarray(np.zeros((side, side), np.uint8)).save(tmp_path / f"{side}.png")
    with pytest.raises(DataError, match="differ in size"):
        load_pictures(ref(tmp_path / "4.png", tmp_path / "5.png"))


# --- DICOM -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_dicom_slices_are_ordered_by_position_whatever_they_are_called(tmp_path, plane):
    trees.write_series(
        tmp_path / "s", plane, 7, name=lambda index: f"{(index * 3) % 7}.dcm", InstanceNumber=lambda i: -i
    )
    (only,), skipped = series(tmp_path)
    volume = load_dicom(only)
    assert not skipped
    assert volume.square_planes() == (plane,)
    assert volume.n_slices(plane) == 7
    assert volume.spacing[{"sagittal": 0, "coronal": 1, "axial": 2}[plane]] == pytest.approx(
        6.0
    )  # not SliceThickness 3
    assert_in_place(volume)


@pytest.mark.parametrize("cosines", [(-1, 0, 0, 0, -1, 0), (1, 0, 0, 0, -1, 0), (0, 1, 0, 1, 0, 0)])
def test_dicom_rows_that_run_the_other_way_are_turned_back(tmp_path, cosines):
    trees.write_series(tmp_path, cosines=cosines)
    (only,), _ = series(tmp_path)
    assert_in_place(load_dicom(only))


def test_knee_dicom_equals_the_nifti_of_the_same_series(shared):
    """Big-endian files with names out of order against a NIfTI stored as P, I, L."""
    (only,), _ = series(shared / "data" / "mri_dicom" / "knee_mese_te1")
    dicom = load_dicom(only)
    nifti = load_nifti(ref(shared / "data" / "mri_nifti" / "knee_mese_te1.nii.gz"))
    assert np.array_equal(dicom.voxels, nifti.voxels)
    assert dicom.spacing == pytest.approx(nifti.spacing, rel=1e-5)  # float32 in the NIfTI header
    assert dicom.spacing == pytest.approx((4.0, 0.625, 0.625), rel=1e-4)
    assert dicom.square_planes() == ("sagittal",)


def test_compressed_files_decode_to_the_uncompressed_values(shared):
    folder = shared / "data" / "mri_dicom" / "codecs"
    plain, *packed = (
        load_dicom(ref(folder / name)).voxels
        for name in ("emri_small.dcm", "emri_small_RLE.dcm", "emri_small_jpeg_2k_lossless.dcm")
    )
    assert plain.shape == (10, 64, 64)
    for voxels in packed:
        assert np.array_equal(voxels, plain)


@pytest.mark.parametrize("name", ["MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_RLE.dcm",
                                  "MR_small_jp2klossless.dcm", "MR_small_padded.dcm",
                                  "MR_small_jpeg_ls_lossless.dcm"])  # fmt: skip
def test_one_picture_in_every_transfer_syntax(name):
    reference = load_dicom(ref(get_testdata_file("MR_small.dcm", download=False)))
    assert np.array_equal(load_dicom(ref(get_testdata_file(name, download=False))).voxels, reference.voxels)


def test_a_decoder_that_is_not_there_is_named(monkeypatch):
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGLSLossless

    monkeypatch.setattr(type(get_decoder(JPEGLSLossless)), "is_available", False)
    with pytest.raises(DataError, match=r"JPEG-LS Lossless.*pip install python-gdcm"):
        load_dicom(ref(get_testdata_file("MR_small_jpeg_ls_lossless.dcm", download=False)))


def test_an_ordinary_install_decodes_jpeg_lossless(shared):
    """The values of a real echocardiogram whose overlay text is white and whose border is black."""
    path = shared / "data" / "us_bmode" / "pydicom_philips_echo_JPEGlossless.dcm"
    image = load_dicom(ref(path)).voxels
    assert sorted(image.shape)[1:] == [768, 1024]
    assert image.dtype == np.uint8
    assert (image.min(), image.max()) == (0, 255)
    assert np.median(image) == 0


def test_jpeg_lossless_decodes_to_what_was_packed(tmp_path):
    import gdcm

    trees.write_series(tmp_path / "plain", n_slices=1)
    plain = tmp_path / "plain" / "IM0000.dcm"
    for kind, syntax in {
        "lossless": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        "ls": gdcm.TransferSyntax.JPEGLSLossless,
    }.items():
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(plain))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(tmp_path / f"{kind}.dcm"))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        assert np.array_equal(load_dicom(ref(tmp_path / f"{kind}.dcm")).voxels, load_dicom(ref(plain)).voxels)


def test_truncated_pixel_data_is_one_clear_line():
    path = get_testdata_file("MR_truncated.dcm", download=False)
    with pytest.raises(DataError, match="pixels cannot be read") as caught:
        load_dicom(ref(path))
    assert "\n" not in str(caught.value)


def test_enhanced_multi_frame_is_sorted_split_and_scaled(tmp_path):
    trees.write_enhanced(tmp_path / "enhanced.dcm", n_slices=4, n_phases=2, step=5.0)
    refs, _ = series(tmp_path)
    assert [item.part for item in refs] == [0, 1]
    assert len({item.name for item in refs}) == 2
    first, second = (load_dicom(item) for item in refs)
    assert first.voxels.shape == (64, 64, 4)
    assert first.spacing == pytest.approx((1.6, 1.6, 5.0))
    assert_in_place(first)
    np.testing.assert_allclose(second.voxels, 2 * first.voxels, atol=2)  # the phantom's second phase is twice as bright


@pytest.mark.parametrize(
    "attribute", ["EchoTime", "TemporalPositionIdentifier", "AcquisitionNumber", "DiffusionBValue"]
)
def test_several_images_at_a_position_are_split(tmp_path, attribute):
    for phase in (1, 2, 3):
        trees.write_series(
            tmp_path / str(phase),
            gain=lambda index, phase=phase: phase,
            SeriesInstanceUID="1.2.3.4",
            SOPInstanceUID=lambda index, phase=phase: f"1.2.3.4.{phase}.{index}",
            InstanceNumber=lambda index, phase=phase: 3 * index + phase,
            **{attribute: phase},
        )
    refs, _ = series(tmp_path)
    assert len(refs) == 3
    volumes = [load_dicom(item) for item in refs]
    assert all(volume.voxels.shape == (64, 64, 5) for volume in volumes)
    assert [volume.voxels.max() for volume in volumes] == [700 * 1, 700 * 2, 700 * 3]
    assert "a series of 3 stacks (orientations, phases, echoes): split into as many volumes" in volumes[0].notes


def test_phases_that_nothing_tells_apart_are_split_by_their_order(tmp_path):
    for phase in (1, 2):
        trees.write_series(
            tmp_path / str(phase),
            gain=lambda index, phase=phase: phase,
            SeriesInstanceUID="1.2.3.4",
            SOPInstanceUID=lambda index, phase=phase: f"1.2.3.4.{phase}.{index}",
            InstanceNumber=lambda index, phase=phase: 100 * phase + index,
        )
    refs, _ = series(tmp_path)
    assert [load_dicom(item).voxels.max() for item in refs] == [700, 1400]


def test_a_series_of_two_orientations_is_two_volumes(tmp_path):
    for plane in ("axial", "sagittal"):
        trees.write_series(
            tmp_path / plane,
            plane,
            SeriesInstanceUID="1.2.3.4",
            SOPInstanceUID=lambda index, plane=plane: f"1.2.3.4.{len(plane)}.{index}",
        )
    refs, _ = series(tmp_path)
    assert sorted(load_dicom(item).square_planes() for item in refs) == [("axial",), ("sagittal",)]


def test_cosines_that_differ_in_the_last_digits_are_one_series(tmp_path):
    """Around a rounding boundary: 0.0999 and 0.1001."""
    trees.write_series(tmp_path, ImageOrientationPatient=lambda i: [1, 0.0999 + 0.0002 * (i % 2), 0, 0, 1, 0])
    (only,), _ = series(tmp_path)
    assert load_dicom(only).voxels.shape == (64, 64, 5)


def test_what_is_no_grey_mr_image_is_skipped_with_its_reason(tmp_path):
    trees.write_series(tmp_path / "good")
    pixels = np.ones((64, 64), np.uint16)

    def odd(name, **tags):
        trees.write_dicom(
            tmp_path / name, pixels, (0, 0, 0), trees.COSINES["axial"], SOPInstanceUID=f"1.9.{name[0]}", **tags
        )

    odd("1.dcm", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    odd("2.dcm", SeriesDescription="3-plane LOC")
    odd("3.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    odd("4.dcm", Modality="US")
    odd("5.dcm", PhotometricInterpretation="PALETTE COLOR")
    odd("6.dcm", ImageType=["ORIGINAL", "PRIMARY", "P", "ND"])
    odd("7.dcm", Rows=0)
    (tmp_path / "8.dcm").write_text("a note")
    (tmp_path / "9.dcm").write_bytes((tmp_path / "good" / "IM0001.dcm").read_bytes())
    refs, skipped = series(tmp_path)
    assert len(refs) == 1
    assert len(refs[0].paths) == 5
    for name, reason in {
        "1.dcm": "localizer",
        "2.dcm": "localizer",
        "3.dcm": "secondary capture",
        "4.dcm": "modality US",
        "5.dcm": "color",
        "6.dcm": "phase image",
        "7.dcm": "no image",
        "8.dcm": "not a DICOM file",
    }.items():
        assert reason in skipped[name]
    assert sum("the same image as" in reason for reason in skipped.values()) == 1


def test_rescale_of_each_slice_is_undone(tmp_path):
    """Philips scales each slice on its own: stored values are comparable only after the modality LUT."""
    slopes = [0.5, 1.0, 2.0, 4.0, 1.5]
    trees.write_series(
        tmp_path, gain=lambda i: 1 / slopes[i], RescaleSlope=lambda i: slopes[i], RescaleIntercept=lambda i: 0.0
    )
    (only,), _ = series(tmp_path)
    volume = load_dicom(only)
    assert volume.voxels.dtype == np.float32
    # A stored value is rounded to a whole number, which the slope makes up to 2 wide.
    assert np.abs(volume.voxels - load_unscaled(tmp_path)).max() <= 2


@pytest.mark.parametrize("size", [1e300, 1e-300, 1e30])
def test_absurd_rescale_slopes_keep_their_ratios(tmp_path, size):
    trees.write_series(tmp_path, RescaleSlope=lambda i: size * (1 + i % 2), RescaleIntercept=0.0)
    (only,), _ = series(tmp_path)
    volume = load_dicom(only)
    expected = load_unscaled(tmp_path / "b") * np.array([0.5, 1.0, 0.5, 1.0, 0.5])
    np.testing.assert_allclose(volume.voxels, expected, rtol=1e-6)  # float32
    assert any("in the header: values given without it" in note for note in volume.notes)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("peak", [26, 26e299])
def test_dicom_of_floats_with_nan_around_the_body(tmp_path, photometric, peak):
    """Parametric maps hold float32 or float64; outside is dark, whichever way the grey runs."""
    image = np.full((6, 6), np.nan)
    image[2:5, 2:5] = np.arange(9).reshape(3, 3) * peak / 8
    path = trees.write_dicom(
        tmp_path / "f.dcm", np.zeros((6, 6), np.uint16), (0, 0, 0), trees.COSINES["axial"],
        PhotometricInterpretation=photometric,
    )  # fmt: skip
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.BitsAllocated, dataset.DoubleFloatPixelData = 64, image.tobytes()
    dataset.save_as(path)
    volume = load_dicom(ref(path))
    scale = 1 if peak == 26 else peak
    assert volume.voxels.max() == pytest.approx(peak / scale)
    assert volume.voxels.min() == 0
    assert np.count_nonzero(volume.voxels == 0) == 36 - 8
    assert any("NaN, outside the body" in note for note in volume.notes)


def load_unscaled(tmp_path):
    trees.write_series(tmp_path / "plain")
    (only,), _ = series(tmp_path / "plain")
    return load_dicom(only).voxels


def test_monochrome1_is_inverted(tmp_path):
    trees.write_series(tmp_path / "s", PhotometricInterpretation="MONOCHROME1")
    (only,), _ = series(tmp_path)
    inverted = load_dicom(only).voxels
    assert np.array_equal(inverted, 704 - load_unscaled(tmp_path / "other"))  # the phantom runs from 4 to 700


def test_padding_pixels_do_not_stand_out(tmp_path):
    pixels = np.full((64, 64), 300, np.uint16)
    pixels[0] = 63536
    pixels[1] = 7
    path = trees.write_dicom(tmp_path / "p.dcm", pixels, (0, 0, 0), trees.COSINES["axial"], PixelPaddingValue=63536)
    assert load_dicom(ref(path)).voxels.max() == 300
    assert load_dicom(ref(path)).voxels.min() == 7


def test_window_is_applied_where_asked(tmp_path):
    trees.write_series(tmp_path, WindowCenter=300, WindowWidth=100)
    (only,), _ = series(tmp_path)
    image = load_dicom(only, voi=True).voxels
    plain = load_dicom(only).voxels
    assert image[plain < 240].max() == image.min()
    assert image[plain > 360].min() == image.max()


def test_missing_slices_are_noted(tmp_path):
    paths = trees.write_series(tmp_path, n_slices=8)
    paths[3].unlink()
    (only,), _ = series(tmp_path)
    volume = load_dicom(only)
    assert volume.spacing[2] == pytest.approx(6.0)
    assert any("slices may be missing" in note for note in volume.notes)


def test_files_without_position_keep_the_order_of_their_numbers(tmp_path):
    trees.write_series(
        tmp_path,
        gain=lambda index: 1 + index,
        name=lambda index: f"{9 - index}.dcm",
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        PixelSpacing=None,
    )
    (only,), _ = series(tmp_path)
    volume = load_dicom(only)
    assert volume.orientation == "acquired"
    assert volume.spacing[1:] == (None, None)
    brightness = [volume.slice("acquired", index)[0].max() for index in range(5)]
    assert np.argsort(brightness).tolist() != [4, 3, 2, 1, 0]
    assert len(volume.notes) == 2


def test_file_without_preamble_is_read(tmp_path):
    trees.write_series(tmp_path)
    for path in tmp_path.iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.file_meta
        dataset.save_as(path, implicit_vr=True, little_endian=True)
    (only,), _ = series(tmp_path)
    assert_in_place(load_dicom(only))


def test_oblique_series_is_noted(tmp_path):
    tilt = np.deg2rad(25)
    trees.write_series(tmp_path, cosines=(1, 0, 0, 0, np.cos(tilt), np.sin(tilt)))
    (only,), _ = series(tmp_path)
    assert any(note.startswith("oblique: 25 degrees") for note in load_dicom(only).notes)


@pytest.mark.parametrize(("tags", "reason"), [
    ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "montage of slices tiled in one picture (Siemens MOSAIC)"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "VFRAME"]}, "montage of slices tiled in one picture (UIH VFRAME)"),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66"}, "raw data"),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "segmentation"),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.2"}, "spectroscopy"),
])  # fmt: skip
def test_montages_and_raw_data_are_skipped_by_their_names(tmp_path, tags, reason):
    trees.write_series(tmp_path, n_slices=1, **tags)
    refs, skipped = series(tmp_path)
    assert not refs
    assert skipped["IM0000.dcm"].startswith(reason)


@pytest.mark.parametrize("form", ["explicit", "implicit", "no preamble", "gzip"])
def test_headers_without_pixels_are_skipped_by_that_name(tmp_path, form):
    """And only those: files that end within their pixels are told when they are read."""
    paths = trees.write_series(tmp_path, n_slices=5)
    for path in paths:
        dataset = pydicom.dcmread(path)
        if path == paths[0]:
            del dataset.PixelData
        if form == "no preamble":
            del dataset.file_meta
        options = {"implicit_vr": True, "little_endian": True} if form in ("implicit", "no preamble") else {}
        if form == "implicit":
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        dataset.save_as(path, **options)
        if form == "gzip":
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    (only,), skipped = series(tmp_path)
    assert skipped == {paths[0].name + ".gz" * (form == "gzip"): "a header without pixels"}
    assert load_dicom(only).voxels.shape[2] == 4


def test_a_deflated_file_holds_pixels(tmp_path):
    for path in trees.write_series(tmp_path):
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
        dataset.save_as(path)
    (only,), skipped = series(tmp_path)
    assert not skipped
    assert_in_place(load_dicom(only))


def test_dotted_names_without_a_preamble_are_read(tmp_path):
    for number, path in enumerate(trees.write_series(tmp_path)):
        dataset = pydicom.dcmread(path)
        del dataset.file_meta
        path.unlink()
        dataset.save_as(tmp_path / f"MR.1.3.12.{number}", implicit_vr=True, little_endian=True)
    (only,), _ = series(tmp_path)
    assert_in_place(load_dicom(only))


def test_values_that_break_their_types_rules_warn_nobody():
    header = read_header(get_testdata_file("badVR.dcm", download=False))
    assert "NumberOfFrames" not in header
    assert (header.Modality, header.Rows, header.Columns) == ("RTDOSE", 10, 10)
    assert sum(element.value is not None for element in header) > 10


# --- nobody is named ------------------------------------------------------------------------------------------------


PERSONAL = """InstitutionName InstitutionAddress StationName OperatorsName PatientName PatientID PatientBirthDate
    PatientAge PatientAddress AccessionNumber StudyID StudyDate StudyTime DeviceSerialNumber StudyInstanceUID
    SeriesInstanceUID SOPInstanceUID FrameOfReferenceUID"""


def test_no_identifier_of_a_dicom_file_is_kept(tmp_path):
    """Every personal value of pydicom's examples_overlay.dcm, the institution's name first."""
    path = get_testdata_file("examples_overlay.dcm", download=False)
    header = pydicom.dcmread(path, stop_before_pixels=True)
    personal = [str(header[keyword].value) for keyword in PERSONAL.split()]
    assert "AKH - WIEN" in personal
    (only,) = get_source("dicom", Selection(include_derived=True)).find(path)  # it is a reformatted plane
    volume = get_source("dicom").load(only)
    voxels, fields = volume.voxels, {**vars(volume)}
    fields.pop("voxels")
    kept = pickle.dumps((only, fields)) + repr((only, fields)).encode()
    for value in personal:
        assert value.encode() not in kept, value
    assert voxels.shape == (484, 300, 1)


def test_subjects_are_salted_hashes_of_the_patient(tmp_path, monkeypatch):
    for number, patient in enumerate(("MRN-1", "MRN-1", "MRN-2")):
        trees.write_series(tmp_path / str(number), PatientID=patient, StudyInstanceUID=f"1.2.{number}")
    subjects = [item.subject for item in sorted(series(tmp_path)[0], key=lambda item: item.paths)]
    assert subjects[0] == subjects[1] != subjects[2]
    assert not any("MRN" in subject for subject in subjects)
    monkeypatch.setenv("DATAGEN_SALT", "a secret")
    assert series(tmp_path)[0][0].subject not in subjects


def test_text_burned_into_the_picture_is_warned_about(tmp_path):
    trees.write_series(tmp_path, BurnedInAnnotation="YES")
    (only,), _ = series(tmp_path)
    assert any("BurnedInAnnotation" in note for note in load_dicom(only).notes)


# --- one image for `ussim render` -----------------------------------------------------------------------------------


def test_read_image_scales_by_what_the_values_are(tmp_path):
    ramp = np.linspace(0, 1, 64 * 64).reshape(64, 64)
    np.save(tmp_path / "fraction.npy", ramp)
    np.testing.assert_allclose(read_image(tmp_path / "fraction.npy"), ramp, atol=1e-6)
    np.save(tmp_path / "bytes.npy", np.rint(ramp * 255).astype(np.uint8))
    np.testing.assert_allclose(read_image(tmp_path / "bytes.npy"), ramp, atol=0.5 / 255 + 1e-6)
    np.save(tmp_path / "mask.npy", ramp > 0.5)
    assert set(np.unique(read_image(tmp_path / "mask.npy"))) == {0, 1}
    np.save(tmp_path / "scanner.npy", trees.slices("axial", 1)[0].astype(np.int16))
    image = read_image(tmp_path / "scanner.npy")
    assert image.dtype == np.float32
    assert (image.min(), image.max()) == (0, 1)


def test_read_image_of_several_slices_says_how_to_choose(tmp_path):
    np.save(tmp_path / "stack.npy", np.zeros((7, 8, 9)))
    with pytest.raises(DataError, match=r"expected one image, got 7 acquired slices; choose one with --slice 0 to 6"):
        read_image(tmp_path / "stack.npy")
    assert read_image(tmp_path / "stack.npy", slice_index=6).shape == (8, 9)
    with pytest.raises(DataError, match="there are 0 to 6"):
        read_image(tmp_path / "stack.npy", slice_index=7)
    path = trees.write_nifti(tmp_path / "v.nii.gz")
    with pytest.raises(DataError, match=r"12 axial slices.*--plane: coronal, sagittal"):
        read_image(path)
    assert read_image(path, 5).shape == (64, 64)
    assert read_image(path, 30, plane="coronal").shape == (12, 64)


def test_read_image_opens_dicom_files_and_folders(tmp_path):
    trees.write_series(tmp_path / "s")
    assert read_image(tmp_path / "s" / "IM0002.dcm").shape == (64, 64)
    assert read_image(tmp_path / "s", slice_index=2).shape == (64, 64)
    np.testing.assert_allclose(
        read_image(tmp_path / "s" / "IM0002.dcm") > 0.5, read_image(tmp_path / "s", slice_index=2) > 0.5
    )


def test_read_image_refuses_what_it_cannot_open(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "text.dcm").write_text("hello")
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "nan.npy", np.array([[0.0, np.nan], [1.0, 0.5]]))
    for name, message in {
        "absent.npy": "no such file",
        "notes.txt": "expected .npy, .npz, .mat, .png",
        "text.npy": "not an .npy file",
        "text.png": "not a picture",
        "text.dcm": "not a readable DICOM file",
        "empty": "expected a folder with one DICOM series, got 0",
        "nan.npy": "NaN",
    }.items():
        with pytest.raises(DataError, match=message):
            read_image(tmp_path / name)


def test_natural_order():
    names = ["slice_10", "slice_2", "slice_2b", "Slice_1", "3", "21"]
    assert sorted(names, key=natural) == ["3", "21", "Slice_1", "slice_2", "slice_2b", "slice_10"]
