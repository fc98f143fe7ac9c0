"""Volumes to HQ images: the exact square, the tissue, grey levels, and what is left out with its reason."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import trees
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.morphology import disk

from datagen.plan.segment import sam2_segmenter
from datagen.plan.slices import (
    MIN_SIDE,
    Unusable,
    chosen_planes,
    hq_patch,
    hq_slice,
    hq_slices,
    largest_square,
    resize,
    square_box,
)
from ussim.errors import DataError, MissingPackageError
from ussim.volumes.grey import foreground, grey_range, to_unit
from ussim.volumes.nifti import load_nifti
from ussim.volumes.volume import Volume, VolumeRef


def volume_of(voxels, spacing=(None, None, None), orientation="acquired") -> Volume:
    return Volume("npy", "subject", "volume", np.asarray(voxels), spacing, orientation, "")


def phantom(tmp_path, **geometry) -> Volume:
    path = trees.write_nifti(tmp_path / "v.nii", **geometry)
    return load_nifti(VolumeRef("nifti", "s", "v", (str(path),)))


# --- the largest square ----------------------------------------------------------------------------------------------


def brute_force_side(mask) -> int:
    """Try every corner and every side."""
    n_rows, n_columns = mask.shape
    for side in range(min(n_rows, n_columns), 0, -1):
        for row in range(n_rows - side + 1):
            for column in range(n_columns - side + 1):
                if mask[row : row + side, column : column + side].all():
                    return side
    return 0


@settings(max_examples=300, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3).map(bool)))
def test_largest_square_is_as_large_as_any_and_inside(mask):
    row0, col0, row1, col1 = largest_square(mask)
    assert row1 - row0 == col1 - col0 == brute_force_side(mask)
    assert mask[row0:row1, col0:col1].all()


def test_largest_square_of_a_disk_is_inscribed():
    for radius in (10, 40, 100):
        row0, col0, row1, col1 = largest_square(disk(radius))
        assert abs((row1 - row0) - radius * np.sqrt(2)) <= 1.5  # whole pixels
        # In the middle: of several largest squares the most central is taken.
        assert abs((row0 + row1) / 2 - radius - 0.5) <= 0.5
        assert abs((col0 + col1) / 2 - radius - 0.5) <= 0.5


def test_largest_square_of_nothing_and_everything():
    assert largest_square(np.zeros((5, 7), bool)) == (0, 0, 0, 0)
    assert largest_square(np.ones((5, 7), bool)) == (0, 1, 5, 6)
    assert largest_square(np.ones((1, 1), bool)) == (0, 0, 1, 1)


def test_largest_square_visits_each_row_once():
    """Linear in the pixels: a mask of 16 times the pixels needs no more than a row's work a row. Counted, not timed."""
    calls = []

    class Counting(np.ndarray):
        def __getitem__(self, index):
            calls.append(index)
            return super().__getitem__(index)

    for n in (32, 128):
        calls.clear()
        mask = np.ones((n, n), bool)
        largest_square(mask.view(Counting))
        assert len(calls) <= n + 2


# --- tissue ----------------------------------------------------------------------------------------------------------


def test_foreground_is_one_region_without_holes():
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:128, :128]
    body = (rows - 64) ** 2 + (columns - 60) ** 2 < 45**2
    hole = (rows - 64) ** 2 + (columns - 60) ** 2 < 12**2
    speck = (rows - 8) ** 2 + (columns - 118) ** 2 < 4**2
    image = np.where(body & ~hole, 0.5, 0.0) + np.where(speck, 0.9, 0.0) + 0.03 * rng.random((128, 128))
    mask = foreground(image)
    assert not mask[8, 118]  # the speck is a small region
    assert mask[64, 60]  # the hole is filled
    assert (mask ^ body).sum() < 0.03 * body.sum()  # the edge is a pixel wide


def test_foreground_keeps_dark_tissue_beside_bright_fat():
    rows, columns = np.mgrid[:128, :128]
    distance = np.hypot(rows - 64, columns - 64)
    image = np.where(distance < 50, 0.15, 0.005)  # muscle, air
    image[(distance > 44) & (distance < 50)] = 1.0  # fat
    image[:, 100:][distance[:, 100:] < 50] = 1.0
    assert foreground(image)[distance < 42].mean() > 0.99


def test_foreground_of_nothing_is_empty():
    assert not foreground(np.zeros((64, 64))).any()
    assert not foreground(np.full((64, 64), 0.3)).any()


# --- grey levels -----------------------------------------------------------------------------------------------------


def test_grey_range_is_of_the_whole_series_and_ignores_rare_extremes():
    rng = np.random.default_rng(0)
    voxels = rng.uniform(100, 200, (6, 64, 64))
    voxels[:, :, :20] = rng.uniform(0, 5, (6, 64, 20))  # air
    voxels[3, 30, 30] = 1e5  # one hot voxel
    low, high = grey_range(volume_of(voxels))
    assert low == pytest.approx(0, abs=1)
    assert high == pytest.approx(200, abs=1)
    unit = to_unit(voxels, (low, high))
    assert (unit.min(), unit.max()) == (0, 1)
    assert unit.dtype == np.float32


def test_grey_range_does_not_depend_on_scale_or_offset():
    voxels = trees.slices("axial", 3).astype(np.float64)
    low, high = grey_range(volume_of(voxels))
    for scale, offset in ((0.001, 0.0), (7.0, -300.0)):
        scaled = grey_range(volume_of(voxels * scale + offset))
        assert scaled == pytest.approx((low * scale + offset, high * scale + offset), rel=1e-4)


def test_grey_range_of_one_value_is_refused():
    with pytest.raises(DataError, match="all voxels have the value 3"):
        grey_range(volume_of(np.full((2, 64, 64), 3)))


# --- squares ---------------------------------------------------------------------------------------------------------


def test_square_box_is_square_in_millimetres():
    assert square_box((96, 128), (None, None)) == (0, 16, 96, 112)
    assert square_box((96, 128), (1.0, 1.0), "pad") == (-16, 0, 112, 128)
    row0, col0, row1, col1 = square_box((40, 100), (3.0, 1.0))
    assert ((row1 - row0) * 3.0, (col1 - col0) * 1.0) == (99.0, 100.0)  # whole pixels of 100 mm
    assert (row0, col0) == (3, 0)


def test_full_slices_are_the_centre_square_resized(tmp_path):
    volume = phantom(tmp_path, shape=(90, 64, 5))
    image = hq_slice(volume, "axial", 2, size=128)
    assert image.image.shape == (128, 128)
    assert image.image.dtype == np.uint8
    assert image.box == (0, 13, 64, 77)
    assert image.kind == "full"
    assert image.pixel_size_mm == pytest.approx((1.6, 1.6))
    native = hq_slice(volume, "axial", 2, size=None)
    assert native.image.shape == (64, 64)
    assert np.abs(resize(native.image / np.float32(255), (128, 128)) * 255 - image.image).mean() < 1  # rounding


def test_padded_slices_hold_the_whole_slice_on_black(tmp_path):
    volume = phantom(tmp_path, shape=(90, 64, 5))
    image = hq_slice(volume, "axial", 2, size=None, fit="pad")
    assert image.image.shape == (90, 90)
    assert not image.image[:13].any()
    assert not image.image[77:].any()


def test_stretched_pixels_come_out_square(tmp_path):
    """Pixels of 1.6 x 3.2 mm: the spine, a circle of 14 mm, stays a circle."""
    volume = phantom(tmp_path, shape=(50, 100, 5), spacing=(3.2, 1.6, 6.0))
    image = hq_slice(volume, "axial", 0, size=200)
    row0, col0, row1, col1 = image.box
    assert (row1 - row0) * 1.6 == (col1 - col0) * 3.2
    bright = image.image > 200  # the liver, cut through
    height, width = (np.ptp(axis) + 1 for axis in np.nonzero(bright))
    assert height == pytest.approx(width, rel=0.2)  # a pixel of 3.2 mm in 20 mm
    native = hq_slice(volume, "axial", 0, size=None)
    assert native.image.shape[0] == native.image.shape[1]


def test_resize_does_not_alias_or_overshoot():
    fine = np.indices((256, 256)).sum(axis=0) % 2  # a chequerboard beyond what 64 pixels can show
    small = resize(fine.astype(np.float32), (64, 64))
    assert np.abs(small[4:-4, 4:-4] - 0.5).max() < 0.05
    step = np.zeros((32, 32), np.float32)
    step[:, 16:] = 1
    large = resize(step, (128, 128))
    assert (large.min(), large.max()) == (0, 1)


# --- patches ---------------------------------------------------------------------------------------------------------


def test_patch_lies_wholly_in_the_tissue(tmp_path):
    volume = phantom(tmp_path, shape=(128, 128, 5), spacing=(0.8, 0.8, 6.0))
    patch = hq_patch(volume, "axial", 2, size=64)
    row0, col0, row1, col1 = patch.box
    assert row1 - row0 == col1 - col0 >= MIN_SIDE
    image, _ = volume.slice("axial", 2)
    assert (image[row0:row1, col0:col1] > 50).all()  # no air in it: the phantom's air is 4, its spine 80
    assert patch.kind == "patch"
    assert patch.image.shape == (64, 64)


def test_patch_of_stretched_pixels_lies_in_the_tissue_and_is_square_in_millimetres(tmp_path):
    volume = phantom(tmp_path, shape=(128, 300, 5), spacing=(0.8, 0.34, 6.0))
    image, (row_mm, column_mm) = volume.slice("axial", 2)
    row0, col0, row1, col1 = hq_patch(volume, "axial", 2, segmenter=lambda unit: image > 50).box
    assert (row1 - row0) * row_mm == pytest.approx((col1 - col0) * column_mm, abs=2 * max(row_mm, column_mm))
    assert (image[row0:row1, col0:col1] > 50).all()
    with pytest.raises(Unusable, match="the largest square inside the tissue is 0 x 0 pixels"):
        hq_patch(volume, "axial", 2, segmenter=lambda unit: np.zeros(unit.shape, bool))


# --- which slices ----------------------------------------------------------------------------------------------------


def test_every_nth_slice_has_the_middle_among_them():
    voxels = np.tile(trees.slices("axial", 1)[0], (11, 1, 1))
    for every in (1, 2, 3, 4):
        indices = [image.index for image in hq_slices(volume_of(voxels), every=every, size=64)]
        assert 5 in indices
        assert set(np.diff(indices)) <= {every}


def test_slices_left_out_are_reported_with_their_reasons():
    voxels = np.tile(trees.slices("axial", 1, (96, 96), (1.2, 1.2))[0], (4, 1, 1))
    voxels[0] = 4  # air
    voxels[1, :, :70] = 4  # a sliver of the body
    left_out = []
    images = list(hq_slices(volume_of(voxels), patches=True, size=64, on_skip=lambda *what: left_out.append(what)))
    assert [(image.index, image.kind) for image in images] == [(2, "full"), (2, "patch"), (3, "full"), (3, "patch")]
    assert [(index, kind) for _, index, kind, _ in left_out] == [(0, "full"), (0, "patch"), (1, "full"), (1, "patch")]
    assert "tissue fills 0% of the square, expected at least 10%" in left_out[0][3]
    assert "the largest square inside the tissue" in left_out[3][3]


def test_planes_are_those_asked_for_or_those_worth_having(tmp_path):
    thick = phantom(tmp_path, spacing=(1.6, 1.6, 6.0))
    assert chosen_planes(thick) == ("axial",)
    assert chosen_planes(thick, ("coronal", "sagittal")) == ("coronal", "sagittal")
    block = phantom(tmp_path, shape=(64, 64, 64), spacing=(1.6, 1.6, 1.6))
    assert chosen_planes(block) == ("axial", "coronal", "sagittal")
    flat = phantom(tmp_path, shape=(64, 64, 20), spacing=(1.6, 1.6, 1.6))
    assert chosen_planes(flat) == ("axial",)  # 20 rows make no image
    bare = volume_of(np.zeros((3, 64, 64)))
    assert chosen_planes(bare, ("axial",)) == ("acquired",)  # its plane is not known: it is not refused
    named = volume_of(np.zeros((3, 64, 64)), orientation="sagittal")
    assert chosen_planes(named, ("axial",)) == ()


def test_a_plane_of_few_rows_is_left_out_with_its_reason(tmp_path):
    left_out = []
    assert not list(hq_slices(phantom(tmp_path), ("coronal",), on_skip=lambda *what: left_out.append(what[3])))
    assert set(left_out) == {"12 x 64 pixels, expected at least 48 each way"}


def test_slices_do_not_depend_on_which_are_asked_for(tmp_path):
    volume = phantom(tmp_path)
    everything = {(image.index, image.kind): image.image for image in hq_slices(volume, patches=True, size=64)}
    alone = hq_slice(volume, "axial", 5, 64)
    assert np.array_equal(everything[5, "full"], alone.image)
    with pytest.raises(DataError, match="every: expected a whole number of at least 1, got 0"):
        next(hq_slices(volume, every=0))
    with pytest.raises(DataError, match="min_tissue: expected a fraction"):
        next(hq_slices(volume, min_tissue=1.5))


def test_real_knee_series_gives_every_slice_with_tissue(shared):
    path = shared / "data" / "mri_nifti" / "knee_mese_te1.nii.gz"
    volume = load_nifti(VolumeRef("nifti", "s", "knee", (str(path),)))
    images = list(hq_slices(volume, patches=True))
    full = [image for image in images if image.kind == "full"]
    assert len(full) == 24
    patches = [image for image in images if image.kind == "patch"]
    assert len(patches) == 24
    assert {image.plane for image in images} == {"sagittal"}
    for image in images:
        row0, col0, row1, col1 = image.box
        assert row1 - row0 == col1 - col0
    for image in patches:
        # Wholly inside the leg: hardly a pixel of air, which is below 3 % of the range.
        assert (image.image < 8).mean() < 0.1
    # Anterior is left: the skin fold behind the knee opens to the right, and the patella lies left of the femur.
    middle = next(image.image for image in full if image.index == 12)
    assert middle[:, :64].mean() < middle[:, 64:192].mean()


# --- SAM 2 -----------------------------------------------------------------------------------------------------------


def test_sam2_says_what_it_needs(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="needs a checkpoint"):
        sam2_segmenter(None)
    with pytest.raises(DataError, match=r"expected one of sam2\.1_hiera_tiny\.pt"):
        sam2_segmenter(tmp_path / "weights.pt")
    checkpoint = tmp_path / "sam2.1_hiera_base_plus.pt"
    with pytest.raises(DataError, match="no such checkpoint; download"):
        sam2_segmenter(checkpoint)
    checkpoint.write_bytes(b"weights")
    monkeypatch.setitem(sys.modules, "sam2.build_sam", None)  # as if not installed
    with pytest.raises(MissingPackageError, match=r"pip install 'ussim\[sam2\]'"):
        sam2_segmenter(checkpoint)


def test_sam2_is_prompted_with_the_tissue(tmp_path, monkeypatch):
    """Against a stand-in with the package's interface: the real one needs weights that are not ours to ship."""
    pytest.importorskip("torch")
    asked = {}

    class Predictor:
        def __init__(self, model):
            asked["model"] = model

        def set_image(self, image):
            asked["image"] = image

        def predict(self, point_coords, point_labels, box, multimask_output):
            asked.update(point=point_coords, labels=point_labels, box=box)
            masks = np.zeros((3, *asked["image"].shape[:2]))
            masks[1] = asked["image"][..., 0] > 50
            return masks, np.array([0.1, 0.9, 0.3]), None

    build = types.ModuleType("sam2.build_sam")
    build.build_sam2 = lambda configuration, checkpoint, device: (configuration, device)
    predictor = types.ModuleType("sam2.sam2_image_predictor")
    predictor.SAM2ImagePredictor = Predictor
    for name, module in (("sam2", types.ModuleType("sam2")), ("sam2.build_sam", build)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "sam2.sam2_image_predictor", predictor)
    checkpoint = tmp_path / "sam2.1_hiera_base_plus.pt"
    checkpoint.write_bytes(b"weights")

    image = np.zeros((64, 80), np.float32)
    image[10:50, 20:60] = 0.8
    mask = sam2_segmenter(checkpoint, device="cpu")(image)
    assert asked["model"] == ("configs/sam2.1/sam2.1_hiera_b+.yaml", "cpu")
    assert asked["image"].shape == (64, 80, 3)
    assert asked["box"] == pytest.approx([20, 10, 59, 49], abs=3)  # x0, y0, x1, y1; the mask's edge is smoothed
    assert asked["point"][0] == pytest.approx([39.5, 29.5], abs=2)
    assert np.array_equal(mask, image > 0.5)
    assert not sam2_segmenter(checkpoint, device="cpu")(np.zeros((64, 64), np.float32)).any()
