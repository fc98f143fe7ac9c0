"""Whole volumes: every slice restored as it would be alone, and written where it was cut from."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import trees
from test_restore import make_model

from irsde.sample import Sampling, restore, restore_stack
from irsde.stacks import companions, image_seed, open_stack, to_nifti, write_nifti, write_stack
from ussim.errors import DataError
from ussim.volumes.reading import read_image

EVERY = slice(None)


def tissue_at(image):
    """The phantom of `trees` where a NIfTI file says that its voxels lie."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in image.shape), indexing="ij"), axis=-1)
    points = nib.affines.apply_affine(image.affine, index)
    return trees.tissue(points[..., 0], points[..., 1], points[..., 2])


def in_place(image, grey):
    """Fraction of voxels that show the phantom's tissue at their place, in grey levels of the window `grey`."""
    low, high = grey
    expected = np.clip((tissue_at(image) - low) / (high - low), 0, 1)
    return np.mean(np.abs(np.asarray(image.dataobj) - expected) < 0.01)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIL", "ASR"])
def test_nifti_keeps_shape_affine_and_place(tmp_path, axes, plane):
    path = trees.write_nifti(tmp_path / "v.nii.gz", axes, shape=(20, 22, 12), spacing=(4.0, 3.5, 6.0))
    stack = open_stack(path, plane=plane)
    write_nifti(tmp_path / "out.nii.gz", to_nifti(stack, stack.images(EVERY), "as it was", 1.0))
    before, after = nib.load(path), nib.load(tmp_path / "out.nii.gz")
    assert after.shape == before.shape
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-5)  # float32 in the file
    assert after.header.get_zooms() == pytest.approx(before.header.get_zooms())
    assert after.get_data_dtype() == np.float32
    low, high = stack.grey
    expected = np.clip((np.asarray(before.dataobj) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(np.asarray(after.dataobj), expected, atol=1e-6)


@pytest.mark.parametrize("axes", ["RAS", "PIL"])
def test_one_slice_lies_where_it_was_cut(tmp_path, axes):
    path = trees.write_nifti(tmp_path / "v.nii", axes, shape=(40, 42, 12), spacing=(2.2, 2.0, 6.0))
    for plane, index in (("axial", 5), ("coronal", 17), ("sagittal", -9)):
        stack = open_stack(path, index, plane)
        image = to_nifti(stack, stack.images(EVERY), "one slice")
        assert sorted(image.shape)[0] == 1
        assert in_place(image, stack.grey) > 0.99  # float32 positions at the edges of the tissue


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_dicom_series_becomes_a_nifti_in_its_place(tmp_path, plane):
    trees.write_series(tmp_path / "s", plane, shape=(48, 40), pixel_spacing=(2.4, 2.0))
    stack = open_stack(tmp_path / "s")
    assert stack.plane == plane
    assert stack.shape == (5, 48, 40)
    image = to_nifti(stack, stack.images(EVERY), "a series")
    assert image.header.get_zooms() == pytest.approx((2.0, 2.4, 6.0))
    assert in_place(image, stack.grey) > 0.99  # float32 positions at the edges of the tissue


def test_multi_frame_dicom_is_a_volume_and_says_which_of_its_stacks(tmp_path):
    path = trees.write_enhanced(tmp_path / "e.dcm")
    stack = open_stack(path)
    assert stack.shape == (4, 64, 64)
    assert any("make 2 volumes: number 1 (TemporalPositionIdentifier 1) is used" in note for note in stack.volume.notes)
    assert in_place(to_nifti(stack, stack.images(EVERY), "phase 1"), stack.grey) > 0.99


def test_bare_stack_reads_back_as_displayed(tmp_path):
    np.save(tmp_path / "v.npy", np.random.default_rng(0).random((3, 6, 5), np.float32))
    stack = open_stack(tmp_path / "v.npy")
    write_nifti(tmp_path / "v.nii", to_nifti(stack, stack.images(EVERY), "a stack"))
    for i in range(3):
        np.testing.assert_array_equal(
            read_image(tmp_path / "v.nii", i, "axial"), read_image(tmp_path / "v.npy", i)
        )  # fmt: skip


def test_all_slices_have_the_grey_window_of_a_single_one(tmp_path):
    path = trees.write_nifti(tmp_path / "v.nii")
    stack = open_stack(path)
    assert stack.plane == "axial"  # 6 mm between slices of 1.6 mm pixels
    for i, image in enumerate(stack.images(EVERY)):
        np.testing.assert_array_equal(image, read_image(path, i))


@pytest.mark.parametrize("sampler", ["posterior", "ddim"])
def test_a_slice_is_restored_alike_alone_and_in_the_volume(tmp_path, sampler):
    """In batches of 5 and of 1: convolutions of another batch size are summed in another order."""
    path = trees.write_nifti(tmp_path / "v.nii", shape=(24, 20, 7))
    models = [make_model(seed) for seed in (0, 1)]
    options = {"n_samples": 2, "seed": 3, "sampling": Sampling(4, sampler, tile=50, overlap=8)}
    counts = []
    volume = restore_stack(models, open_stack(path), advance=counts.append, **options)
    assert counts == [5] * 4 + [2] * 4  # 2500 pixels together, four members
    for index in (0, 6):
        alone = restore_stack(models, open_stack(path, index), **options)
        for one, of_all in zip(alone, volume, strict=True):
            np.testing.assert_allclose(one[0], of_all[index], atol=1e-4)  # float32: 2e-7 seen
    assert volume[1].min() >= 0
    assert volume[1].max() > 0


def test_slices_differ_in_their_noise(tmp_path):
    """Noise that repeats from slice to slice would look like structure; it depends on seed and index alone."""
    image = np.random.default_rng(0).random((20, 24), np.float32)
    np.save(tmp_path / "v.npy", np.stack([image] * 3))
    model = make_model()
    restored, variance = restore_stack([model], open_stack(tmp_path / "v.npy"), seed=5, sampling=Sampling(3))
    assert variance is None
    assert np.abs(restored[0] - restored[1]).max() > 1e-3
    np.testing.assert_allclose(restored[2], restore(model, image, 3, seed=image_seed(5, 2)), atol=1e-4)  # as above


def test_a_lone_image_has_the_noise_of_the_seed_itself(tmp_path):
    image = np.random.default_rng(0).random((20, 24), np.float32)
    np.save(tmp_path / "i.npy", image)
    model = make_model()
    restored, _ = restore_stack([model], open_stack(tmp_path / "i.npy"), seed=5, sampling=Sampling(3))
    np.testing.assert_array_equal(restored[0], restore(model, image, 3, seed=5))


def test_supervised_models_restore_volumes_too(tmp_path):
    path = trees.write_nifti(tmp_path / "v.nii", shape=(24, 20, 3))
    model = make_model(method="dncnn")
    stack = open_stack(path)
    restored, _ = restore_stack([model], stack)
    np.testing.assert_allclose(restored, restore(model, stack.images(EVERY)), atol=1e-5)  # order of sums


def test_files_that_are_written(tmp_path):
    np.save(tmp_path / "v.npy", np.random.default_rng(0).random((3, 16, 18), np.float32))
    stack, one = open_stack(tmp_path / "v.npy"), open_stack(tmp_path / "v.npy", 1)
    images, single = stack.images(EVERY), one.images(EVERY)
    for name, volume, shape in (("a.npy", stack, (3, 16, 18)), ("b.npy", one, (16, 18))):
        data = volume.images(EVERY)
        write_stack(tmp_path / name, volume, data, data / 4)
        assert np.load(tmp_path / name).shape == np.load(tmp_path / f"{name[0]}-variance.npy").shape == shape
    for name in ("c.nii", "c2.NII.GZ"):
        write_stack(tmp_path / name, stack, images, images / 4)
        first = (tmp_path / name).read_bytes()
        write_stack(tmp_path / name, stack, images, images / 4)
        assert (tmp_path / name).read_bytes() == first
        assert (first[:2] == b"\x1f\x8b") == name.endswith("GZ")
        assert companions(tmp_path / name)[0].exists()
    write_stack(tmp_path / "d.png", one, single, single / 4)
    assert {p.name for p in tmp_path.glob("[bcd]*-*")} == {
        "b-variance.npy", "b-uncertainty.png", "c-variance.nii", "c2-variance.NII.GZ", "d-variance.npy",
        "d-uncertainty.png",
    }  # fmt: skip


def test_a_file_that_cannot_be_finished_does_not_appear(tmp_path, monkeypatch):
    np.save(tmp_path / "v.npy", np.zeros((2, 8, 8), np.uint8))
    stack = open_stack(tmp_path / "v.npy")
    (tmp_path / "out.nii.gz").write_text("what was there")

    def full(self, stream):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib.Nifti1Image, "to_stream", full)
    with pytest.raises(OSError, match="space") as caught:
        write_stack(tmp_path / "out.nii.gz", stack, stack.images(EVERY), None)
    assert str(caught.value.filename).endswith("out.nii.gz")
    assert (tmp_path / "out.nii.gz").read_text() == "what was there"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [({"only_one": True, "otherwise": ", or -o NAME.npy"}, "12 axial slices.*--slice 0 to 11.*-o NAME.npy"),
     ({"slice_index": 12}, "there are 0 to 11"), ({"slice_index": -13}, "there are 0 to 11")],
)  # fmt: skip
def test_slices_that_are_not_there_are_refused(tmp_path, options, said):
    path = trees.write_nifti(tmp_path / "v.nii")
    with pytest.raises(DataError, match=said):
        open_stack(path, **options)
    np.save(tmp_path / "v.npy", np.zeros((2, 8, 8), np.uint8))
    with pytest.raises(DataError, match="no 'coronal' plane here; choose from acquired"):
        open_stack(tmp_path / "v.npy", plane="coronal")
