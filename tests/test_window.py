"""Black and white of a volume: padding is no anatomy, the files' window is evidence, slices of noise are no images."""

import csv

import numpy as np
import pytest
from datasets import fast_recipe, write_stacks
from trees import slices, write_nifti, write_series

from datagen import Recipe
from datagen.make.build import build
from datagen.plan.samples import make_plan
from datagen.plan.slices import hq_slices
from datagen.sources import get_source
from ussim.errors import ConfigError, DataError
from ussim.volumes.volume import Volume
from ussim.volumes.window import window_of


def padded_head(folder, **tags):
    """A series as a CT-like console writes it: raw 0 around a circle, rescaled to -19,595, all else near 0."""
    rows, columns = np.indices((64, 64)) - 31.5
    outside = rows**2 + columns**2 > 30**2
    stack = np.where(outside, 0, slices("axial") // 2 + 2040).astype(np.uint16)  # -72 to +4,700 after rescaling
    settings = {"RescaleSlope": "9.57", "RescaleIntercept": "-19595", **tags}
    write_series(folder, gain=lambda index: 1.0, **settings)
    import pydicom

    for path, image in zip(sorted(folder.glob("*.dcm")), stack, strict=True):
        dataset = pydicom.dcmread(path)
        dataset.PixelData = image.tobytes()
        dataset.save_as(path)
    (ref,) = get_source("dicom").find(folder)
    return get_source("dicom").load(ref)


def bare(voxels, window=None):
    return Volume("file", "", "bare", voxels, (None, None, None), "acquired", "", window=window)


def greys(volume, **options):
    return np.concatenate([cut.image.ravel() for cut in hq_slices(volume, size=64, min_tissue=0.02, **options)])


def test_padding_far_below_the_rest_is_no_part_of_the_grey_range(tmp_path):
    volume = padded_head(tmp_path)
    assert volume.voxels.min() == pytest.approx(-19595, abs=1)
    window = window_of(volume)
    assert window.low > -200
    assert any("padding of -19595" in note for note in window.notes)
    body = greys(volume)
    assert np.median(body) < 140  # where the padding was black, all of the body was above 226
    assert np.percentile(body, 5) < 30


@pytest.mark.parametrize("limit", [None, 3])
def test_padding_that_the_file_names_is_black(tmp_path, limit):
    volume = padded_head(tmp_path, PixelPaddingValue=0, **({} if limit is None else {"PixelPaddingRangeLimit": limit}))
    assert volume.voxels.min() > -200
    assert window_of(volume).low > -200


def test_air_that_a_mask_set_to_zero_is_no_padding():
    voxels = np.where(np.indices((5, 64, 64))[2] < 40, 0, 400 + np.random.default_rng(0).normal(0, 60, (5, 64, 64)))
    assert window_of(bare(voxels.astype(np.float32))).low == 0


def test_the_window_of_the_files_is_taken_where_percentiles_leave_the_greys_unused():
    rng = np.random.default_rng(0)
    voxels = rng.normal(100, 5, (5, 64, 64)).astype(np.float32)
    voxels[:, :20] = 0.0
    voxels[:, -3:, -3:] = 4000.0  # a few voxels of metal
    window = window_of(bare(voxels, window=(80.0, 120.0)))
    assert (window.grey, window.by) == ((80.0, 120.0), "voi")
    assert any("window of the files used" in note for note in window.notes)
    plain = window_of(bare(voxels))
    assert plain.by == "percentile"
    assert any("--window sets others" in note for note in plain.notes)


def test_a_window_may_be_asked_for(tmp_path):
    volume = padded_head(tmp_path, WindowCenter="400", WindowWidth="1000")
    assert volume.window == (-100.0, 900.0)
    assert window_of(volume, "voi").grey == (-100.0, 900.0)
    assert window_of(volume, "-50,500").grey == (-50.0, 500.0)
    assert window_of(volume, "percentile").by == "percentile"
    with pytest.raises(DataError, match="no VOI window in its files"):
        window_of(bare(volume.voxels), "voi")
    recipe = Recipe(source="dicom", root=tmp_path, probes="L11-5v", size=32, window="-50,500", patches=False)
    (row,) = make_plan(recipe.resolve("cpu")).volumes
    assert (row["grey_low"], row["grey_high"], row["window"]) == ("-50", "500", "given")
    assert recipe.resolve("cpu").to_dict()["window"] == "-50,500"
    assert "window" not in Recipe(source="dicom", root=tmp_path, probes="L11-5v").resolve("cpu").to_dict()


def test_the_window_of_inverted_images_is_inverted_with_them(tmp_path):
    plain = padded_head(tmp_path / "plain", WindowCenter="400", WindowWidth="1000")
    dark = padded_head(
        tmp_path / "dark", WindowCenter="400", WindowWidth="1000", PhotometricInterpretation="MONOCHROME1"
    )
    total = float(plain.voxels.min() + plain.voxels.max())
    assert dark.window == pytest.approx((total - 900.0, total + 100.0))


def test_nifti_says_its_window_too(tmp_path):
    import nibabel as nib

    path = write_nifti(tmp_path / "head.nii")
    image = nib.load(path)
    image.header["cal_min"], image.header["cal_max"] = 10, 600
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), tmp_path / "other.nii")
    source = get_source("nifti")
    assert [source.load(ref).window for ref in source.find(tmp_path)] == [None, (10.0, 600.0)]


@pytest.mark.parametrize("text", ["bright", "5", "5,1", "1,inf", "1,2,3"])
def test_a_window_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="window: expected auto, voi, percentile or LOW,HIGH"):
        Recipe(source="demo", probes="L11-5v", window=text)


def test_slices_of_noise_are_no_images():
    rng = np.random.default_rng(0)
    body = np.isin(np.arange(9), (3, 4, 5))[:, None, None]
    voxels = np.abs(rng.normal(0, 12, (9, 64, 64))) + slices("axial", 9) * body
    skipped = []
    cuts = list(
        hq_slices(
            bare(voxels.astype(np.float32)),
            size=64,
            min_tissue=0.02,
            patches=True,
            on_skip=lambda plane, index, kind, reason: skipped.append((index, kind, reason)),
        )
    )
    assert {cut.index for cut in cuts} == {3, 4, 5}
    assert {(index, kind) for index, kind, reason in skipped if "noise" in reason} == {
        (index, kind) for index in (0, 1, 2, 6, 7, 8) for kind in ("full", "patch")
    }
    assert min(np.percentile(cut.image, 99) for cut in cuts) > 25  # a tenth of white


def test_the_store_says_what_was_black_and_white_in_each_volume(tmp_path):
    root = write_stacks(tmp_path / "stacks")
    build(fast_recipe(root, limit=3), tmp_path / "pairs.zarr")
    rows = list(csv.DictReader((tmp_path / "pairs.zarr" / "volumes.csv").read_text().splitlines()))
    assert rows
    for row in rows:
        assert float(row["grey_low"]) < float(row["grey_high"])
        assert row["window"] == "percentile"
        assert "no voxel size" in row["notes"]
