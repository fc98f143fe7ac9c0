"""Labels beside images, and tissues that labels stand for: read, brought to the image's grid, cut with it, simulated."""

import shutil

import nibabel as nib
import numpy as np
import pytest
from datasets import FAST, PROBE, fast_recipe, write_stacks

import datagen
from datagen.make.build import build
from datagen.make.pairs import Settings, lost_db, make_imager, scatterers_of
from datagen.make.verify import verify
from datagen.plan.labels import label_file
from datagen.plan.tissues import Tissues
from datagen.show.report import write_report
from datagen.sources.scene import Scene
from datagen.store import read
from datagen.store.location import open_storage
from ussim.errors import ChangedError, DataError
from ussim.probes import load_probe
from ussim.volumes.nifti import load_nifti
from ussim.volumes.segmentation import load_labels, on_grid
from ussim.volumes.volume import VolumeRef

BODY, DISC = 1, 2  # labels of the stacks
TISSUES = {
    "time_gain_db_cm_mhz": 0.5,
    "body": {"label": BODY, "echogenicity_db": -10, "attenuation_db_cm_mhz": 0.5},
    "disc": {"label": DISC, "echogenicity_db": -30, "density": 0.5, "attenuation_db_cm_mhz": 3, "color": [9, 8, 7]},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Stacks, each with its labels in a folder beside it."""
    folder = write_stacks(tmp_path_factory.mktemp("data") / "stacks")
    for path in sorted(folder.rglob("stack.npy")):
        stack = np.load(path)
        labels = folder.parent / "maps" / path.parent.name / "stack.npy"
        labels.parent.mkdir(parents=True)
        np.save(labels, np.where(stack == 200, BODY, np.where(stack == 120, DISC, 0)).astype(np.uint8))
    return folder


PATTERN = "../../maps/{subject}/{name}.npy"


@pytest.fixture(scope="module")
def built(root, tmp_path_factory):
    path = tmp_path_factory.mktemp("built") / "pairs.zarr"
    return path, build(fast_recipe(root, labels=PATTERN, size=40, augmentations=1, limit=12), path)


# --- files -----------------------------------------------------------------------------------------------------------


def blob(affine, shape):
    """Labels of a place in the patient: 3 in a box, wherever the grid lies."""
    index = np.stack([*np.indices(shape), np.ones(shape)])
    right, anterior, superior, _ = np.tensordot(affine, index, 1)
    inside = (np.abs(right - 4) < 11) & (np.abs(anterior + 6) < 15) & (np.abs(superior - 2) < 9)
    return np.where(inside, 3, 0).astype(np.int16)


def write_nifti(path, affine, shape, values=None):
    nib.save(nib.Nifti1Image(blob(affine, shape) if values is None else values, affine), path)
    return path


def loaded(path):
    return load_nifti(VolumeRef("nifti", "s", "v", (str(path),)))


def grid(flips=(1, 1, 1), size=2.0, shape=(30, 32, 20)):
    affine = np.diag([*(flip * size for flip in flips), 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine, shape


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_labels_of_any_orientation_lie_on_their_image(tmp_path, flips):
    image = loaded(write_nifti(tmp_path / "image.nii.gz", *grid()))
    labels = load_labels(write_nifti(tmp_path / "labels.nii.gz", *grid(flips)))
    np.testing.assert_array_equal(on_grid(labels.volume, image), image.voxels)


def test_labels_of_another_grid_are_those_of_the_nearest_voxel(tmp_path):
    image = loaded(write_nifti(tmp_path / "image.nii.gz", *grid()))
    finer = load_labels(write_nifti(tmp_path / "fine.nii.gz", *grid((-1, 1, 1), 1.0, (70, 70, 50))))
    found = on_grid(finer.volume, image)
    assert found.shape == image.voxels.shape
    assert set(np.unique(found)) == {0, 3}
    # A border voxel may go either way: at most the box's surface, half of it on average.
    assert (found != image.voxels).mean() < 0.02
    part = load_labels(write_nifti(tmp_path / "part.nii.gz", *grid(size=2.0, shape=(10, 12, 6))))
    assert set(np.unique(on_grid(part.volume, image))) == {0, 3}  # beyond it there is nothing


def test_what_cannot_be_labels_of_an_image_is_said_in_one_line(tmp_path):
    image = loaded(write_nifti(tmp_path / "image.nii.gz", *grid()))
    far, shape = grid()
    far[0, 3] += 500
    elsewhere = load_labels(write_nifti(tmp_path / "far.nii.gz", far, shape))
    with pytest.raises(DataError, match="elsewhere in the patient"):
        on_grid(elsewhere.volume, image)
    np.save(tmp_path / "bare.npy", np.zeros((5, 6, 7), np.uint8))
    with pytest.raises(DataError, match=r"expected labels of shape \(30, 32, 20\)"):
        on_grid(load_labels(tmp_path / "bare.npy").volume, image)
    for name, values in (
        ("half", np.full((4, 50, 50), 0.5)),
        ("low", np.full((4, 50, 50), -1)),
        ("big", np.full((4, 50, 50), 70000)),
    ):
        np.save(tmp_path / f"{name}.npy", values)
        with pytest.raises(DataError, match="whole numbers of 0 to 65535"):
            load_labels(tmp_path / f"{name}.npy")
    (tmp_path / "a.txt").write_text("no labels")
    with pytest.raises(DataError, match="expected labels as"):
        load_labels(tmp_path / "a.txt")
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    with pytest.raises(DataError, match=r"a\.dcm"):
        load_labels(tmp_path / "a.dcm")


def write_seg(path, affine, values, names):
    """A DICOM segmentation of labels (x, y, z) whose axes run to Right, Anterior, Superior; empty frames left out."""
    import pydicom
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.pixels import pack_bits
    from pydicom.sequence import Sequence
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    def item(**values):
        dataset = Dataset()
        for name, value in values.items():
            setattr(dataset, name, value)
        return Sequence([dataset])

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.UID("1.2.840.10008.5.1.4.1.1.66.4")
    meta.MediaStorageSOPInstanceUID = generate_uid()
    seg = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    seg.SOPClassUID, seg.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    seg.Modality, seg.SegmentationType = "SEG", "BINARY"
    step = np.abs(np.diag(affine)[:3])
    shared = Dataset()
    shared.PlaneOrientationSequence = item(
        ImageOrientationPatient=[-1, 0, 0, 0, -1, 0]
    )  # columns to Right, rows to Anterior
    shared.PixelMeasuresSequence = item(
        PixelSpacing=[step[1], step[0]], SliceThickness=step[2], SpacingBetweenSlices=step[2]
    )
    seg.SharedFunctionalGroupsSequence = Sequence([shared])
    frames, images = [], []
    for number in names:
        for k in range(values.shape[2]):
            image = (values[:, :, k] == number).T
            if image.any():
                frame = Dataset()
                place = (affine @ [0, 0, k, 1])[:3] * (-1, -1, 1)
                frame.PlanePositionSequence = item(ImagePositionPatient=[float(v) for v in place])
                frame.SegmentIdentificationSequence = item(ReferencedSegmentNumber=number)
                frames.append(frame)
                images.append(image)
    seg.PerFrameFunctionalGroupsSequence = Sequence(frames)
    segments = []
    for number, name in names.items():
        segment = Dataset()
        segment.SegmentNumber, segment.SegmentLabel = number, name
        segments.append(segment)
    seg.SegmentSequence = Sequence(segments)
    seg.NumberOfFrames, seg.Rows, seg.Columns = len(images), values.shape[1], values.shape[0]
    seg.SamplesPerPixel, seg.PhotometricInterpretation, seg.PixelRepresentation = 1, "MONOCHROME2", 0
    seg.BitsAllocated = seg.BitsStored = 1
    seg.HighBit = 0
    seg.PixelData = pack_bits(np.stack(images).astype(np.uint8).ravel())
    seg["PixelData"].VR = "OB"
    seg.save_as(path, enforce_file_format=True)


def test_a_dicom_segmentation_lies_on_its_image_and_brings_its_names(tmp_path):
    affine, shape = grid()
    image = loaded(write_nifti(tmp_path / "image.nii.gz", affine, shape))
    values = blob(affine, shape)
    values[2:9, 3:9, 4:12] = 1
    write_seg(tmp_path / "seg.dcm", affine, values, {1: "liver", 3: "spleen"})
    found = load_labels(tmp_path / "seg.dcm")
    assert found.names == {1: "liver", 3: "spleen"}
    np.testing.assert_array_equal(on_grid(found.volume, image), values)


def test_the_file_is_found_by_a_pattern(tmp_path):
    ref = VolumeRef("nifti", "kim", "img/scan", (str(tmp_path / "img" / "scan.nii.gz"),))
    for name in ("img/scan.nii.gz", "img/scan_seg.nii.gz", "labelsTr/kim.nii.gz", "img/a[1].npy"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert label_file(ref, "{name}_seg.nii.gz").name == "scan_seg.nii.gz"
    assert label_file(ref, "../labelsTr/{subject}.nii.gz").name == "kim.nii.gz"
    assert label_file(ref, "*.nii.gz").name == "scan_seg.nii.gz"  # the image is no label map of itself
    with pytest.raises(DataError, match=r"expected one file that fits scan_mask\.nii, got 0"):
        label_file(ref, "{name}_mask.nii")
    with pytest.raises(DataError, match="got 2"):
        label_file(ref, "*")
    with pytest.raises(datagen.RecipeError, match=r"^[^\n]*\{name\}, \{subject\}, \{volume\}[^\n]*\{stem\}$"):
        datagen.Recipe(source="nifti", labels="{stem}.nii", **FAST)


# --- stores ----------------------------------------------------------------------------------------------------------


def test_labels_are_cut_augmented_and_resized_as_the_image_is(built):
    path, summary = built
    pairs = datagen.open_pairs(path)
    assert (summary.n_samples, pairs.label_names) == (12, {BODY: "label 1", DISC: "label 2"})
    assert {row["kind"] for row in pairs.samples} == {"full", "patch"}
    assert {row["augmentation"] for row in pairs.samples} == {0, 1}
    for i in range(len(pairs)):
        hq, labels = pairs[i][0], pairs.labels(i)
        grey = np.array([0.0, *(np.median(hq[labels == value]) for value in (BODY, DISC))])
        # The image is as bright as its labels say but for the outlines, one pixel to either side.
        assert np.abs(hq - grey[labels])[...].mean() < 0.06
        assert (np.abs(hq - grey[labels]) > 0.2).mean() < 0.12
    assert all(len(str(row["labels_sha256"])) == 64 for row in pairs.samples)


def test_a_store_with_labels_is_verified_and_the_same_however_it_is_run(built, root, tmp_path):
    report = verify(built[0], resimulate=4, root=str(root), seed=0)
    assert (report.faults, report.notes) == ((), ())
    recipe = fast_recipe(root, labels=PATTERN, size=40, augmentations=1, limit=12, samples_per_shard=5)
    again = build(recipe, tmp_path / "pairs.zarr", workers=2, scheduler="threads")
    assert again.digest == built[1].digest
    name = "labels/c/1/0/0"
    content = bytearray((tmp_path / "pairs.zarr" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "pairs.zarr" / name).write_bytes(content)
    assert any("labels" in fault for fault in verify(tmp_path / "pairs.zarr").faults)


def test_a_volume_without_labels_is_set_aside_and_changed_labels_are_another_dataset(root, tmp_path):
    data = shutil.copytree(root.parent, tmp_path / "data")
    (data / "maps" / "subject1" / "stack.npy").unlink()
    recipe = fast_recipe(data / "stacks", labels=PATTERN, patches=False, every=2)
    summary = build(recipe, tmp_path / "pairs.zarr")
    ((volume, reason),) = summary.unreadable
    assert "subject1" in volume
    assert reason == "labels: expected one file that fits ../../maps/subject1/stack.npy, got 0"
    labels = data / "maps" / "subject0" / "stack.npy"
    np.save(labels, np.load(labels)[:, ::-1])
    with pytest.raises(ChangedError, match="files of the source changed"):
        build(recipe, tmp_path / "pairs.zarr", resume=True)
    np.save(labels, np.load(labels)[:, :50])
    summary = build(recipe, tmp_path / "other.zarr")
    assert "labels: stack.npy: expected labels of shape (4, 80, 80), as their image, got (4, 50, 80)" in " ".join(
        reason for _, reason in summary.unreadable
    )


# --- tissues ---------------------------------------------------------------------------------------------------------


def test_label_maps_alone_make_ultrasound_by_their_tissues(root, tmp_path):
    recipe = datagen.Recipe(
        **{"source": "labels", "root": str(root.parent / "maps"), "tissues": TISSUES, "patches": False, "limit": 4}
        | FAST | {"size": 40}
    )  # fmt: skip
    path = tmp_path / "pairs.zarr"
    build(recipe, path)
    pairs = datagen.open_pairs(path)
    assert pairs.label_names == {BODY: "body", DISC: "disc"}
    assert pairs.label_colors[DISC] == (9, 8, 7)
    hq, labels = pairs[0][0], pairs.labels(0)
    for value, level in ((0, 0.0), (BODY, 1 - 10 / 40), (DISC, 1 - 30 / 40)):
        assert np.median(hq[labels == value]) == pytest.approx(level, abs=0.01)
    recorded = read.read_document(open_storage(path))["recipe"]["tissues"]
    assert recorded["tissues"]["disc"]["attenuation_db_cm_mhz"] == 3
    assert verify(path, resimulate=2, root=str(root.parent / "maps")).faults == ()
    assert build(recipe, path, resume=True).n_built == 0
    assert "body, disc" in write_report(path, tmp_path / "report.html").read_text()


def test_tissues_change_what_they_name_of_an_image_and_leave_the_rest():
    tissues = Tissues(**{"disc": TISSUES["disc"], "body": {"label": BODY, "density": 0.25}})
    grey = np.array([[10, 20, 30]], np.uint8)
    labels = np.array([[0, BODY, DISC]], np.uint16)
    np.testing.assert_array_equal(tissues.painted(grey, labels, (), 40.0), [[10, 20, round(255 * 0.25)]])
    with pytest.raises(DataError, match=r"label 1 has no brightness.*label = 1"):
        tissues.painted(None, labels, (), 40.0)
    scene = tissues.scene(Scene(grey, labels), (), alone=False)
    np.testing.assert_allclose(scene.density, [[1, 0.25, 0.5]])
    np.testing.assert_allclose(scene.loss, [[0, 0, 2.5]])
    assert tissues.scene(Scene(grey, labels), (), alone=True).density[0, 0] == 0


@pytest.mark.parametrize(
    ("tissues", "words"),
    [
        ({"liver": {"label": 1, "density": -1}}, r"tissues\.liver\.density: expected.*0.*-1"),
        ({"liver": {"label": 1, "densty": 1}}, r"tissues\.liver\.densty: unknown key \(did you mean 'density'\?\)"),
        ({"liver": {"label": 70000}}, r"0 to 65535"),
        ({"liver": {"label": 1}, "spleen": {"label": [2, 1]}}, r"label 1 is 'liver' already"),
        ({"liver": {"echogenicity_db": -3}}, r"tissues\.liver\.label: expected its number"),
        ({"liver": {"label": 1, "echogenicity_db": 5}}, r"tissues\.liver\.echogenicity_db"),
        ({"liver": 3}, r"tissues\.liver: expected a table"),
        ({}, r"at least one table"),
        ({"liver": {"label": 1, "color": [1, 2, 300]}}, r"0 to 255"),
    ],
)
def test_a_wrong_file_of_tissues_is_one_line(tissues, words):
    with pytest.raises(datagen.RecipeError, match=rf"^[^\n]*{words}[^\n]*$"):
        datagen.Recipe(source="labels", tissues=tissues, **FAST)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "labels"}, "source labels shows what labels are as tissue"),
        ({"source": "npy", "tissues": TISSUES}, "expected labels"),
        ({"source": ("phantom", "npy"), "labels": "{name}.npy", "limit": 3}, "build them apart"),
        ({"source": "phantom", "limit": 3, "tissues": {"lesoin": {"echogenicity_db": -3}}}, "known names: cyst, "),
    ],
)
def test_what_does_not_go_together_is_one_line(changes, words):
    with pytest.raises(datagen.RecipeError, match=rf"^[^\n]*{words}[^\n]*$"):
        datagen.Recipe(**FAST | changes)


def test_a_file_of_tissues_is_read_and_part_of_the_recipe(tmp_path):
    path = tmp_path / "tissues.toml"
    path.write_text('[lesion]\nechogenicity_db = -30\n["bright disc"]\ndensity = 0.5\n')
    recipe = datagen.Recipe(source="phantom", limit=3, tissues=str(path), **FAST)
    assert recipe.tissues.tissues["bright disc"].density == 0.5
    assert recipe.digest != datagen.Recipe(source="phantom", limit=3, **FAST).digest
    assert datagen.plan.resolved.ResolvedRecipe.from_dict(recipe.record("cpu", 2)).tissues == recipe.tissues


# --- physics ---------------------------------------------------------------------------------------------------------


def imager(probe, size=96):
    return make_imager(Settings(load_probe(probe), "cpu", size, n_transmits=1))


def test_a_layer_takes_what_its_thickness_says_both_ways():
    """Linear array: dB = 2 x attenuation x center frequency x thickness, the same for everything behind."""
    array = imager("L11-5v")
    grid, frequency = array.grid, array.settings.probe.center_frequency / 1e6
    loss = np.zeros(grid.shape, np.float32)
    loss[30:50] = 1.5
    thickness = 20 * 100 * (grid.z[1] - grid.z[0])  # cm
    depths = np.array([grid.z[10], grid.z[70], grid.z[90]])
    found = lost_db(loss, np.array([0.0, 3e-3, -8e-3]), depths, array)
    np.testing.assert_allclose(found, [0, *[2 * 1.5 * frequency * thickness] * 2], rtol=0.02, atol=1e-6)
    np.testing.assert_allclose(lost_db(-loss, np.zeros(3), depths, array), -lost_db(loss, np.zeros(3), depths, array))


def test_shadows_of_a_phased_array_lie_behind_the_stone_along_the_beam():
    array = imager("P4-2v")
    x, z = array.grid.mesh()
    stone = (18e-3, 40e-3)
    loss = np.where(np.hypot(x - stone[0], z - stone[1]) < 2e-3, 10.0, 0.0).astype(np.float32)
    direction = np.array(stone) / np.hypot(*stone)
    behind, beside, before = (np.array(stone) + shift for shift in (12e-3 * direction, (0.0, 12e-3), -8e-3 * direction))
    on_ray, straight_down, in_front = lost_db(loss, *np.array([behind, beside, before]).T, array)
    expected = 2 * 10 * array.settings.probe.center_frequency / 1e6 * 0.4  # dB: 4 mm of stone
    assert on_ray == pytest.approx(expected, rel=0.15)  # its outline is a pixel wide
    assert straight_down == pytest.approx(0, abs=1e-6)
    assert in_front == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("density", [0.25, 1.0, 4.0])
def test_density_changes_how_many_scatter_and_not_how_much(density):
    array = imager("L11-5v")
    hq = np.full(array.grid.shape, 200, np.uint8)
    dense = np.full(array.grid.shape, density, np.float32)
    plain = scatterers_of(Scene(hq), array, np.random.default_rng(0))
    other = scatterers_of(Scene(hq, density=dense), array, np.random.default_rng(0))
    assert len(other) / len(plain) == pytest.approx(density, rel=0.03)
    # Power of some 7,000 to 100,000 scatterers: within a few percent.
    assert np.sum(other.reflectivity**2) / np.sum(plain.reflectivity**2) == pytest.approx(1, abs=0.06)


def test_the_ultrasound_image_shows_the_shadow_and_hq_does_not(tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    row, column = np.mgrid[:96, :96]
    labels = np.where(np.hypot(row - 30, column - 48) < 8, DISC, BODY).astype(np.uint8)
    np.save(maps / "stone.npy", labels)
    tissues = {
        "body": {"label": BODY, "echogenicity_db": -14},
        "stone": {"label": DISC, "echogenicity_db": 0, "attenuation_db_cm_mhz": 8},
    }
    build(
        datagen.Recipe(source="labels", root=str(maps), tissues=tissues, probes="L11-5v", n_transmits=1, size=96, folds=1,
                       patches=False),
        tmp_path / "pairs.zarr",
    )  # fmt: skip
    hq, lq = datagen.open_pairs(tmp_path / "pairs.zarr")[0]
    behind, beside = np.s_[50:90, 44:52], np.s_[50:90, 10:30]
    assert hq[behind].mean() == pytest.approx(hq[beside].mean(), abs=0.01)
    assert lq[behind].mean() < lq[beside].mean() - 0.15  # 6 dB of 40


def test_the_commands_take_labels_and_tissues(root, tmp_path, capsys):
    from click.testing import CliRunner

    from datagen.cli import cli

    (tmp_path / "t.toml").write_text("[body]\nlabel = 1\nechogenicity_db = -10\n[disc]\nlabel = 2\ndensity = 0\n")
    arguments = [
        "build", "--source", "npy", "--root", str(root), "--labels", PATTERN, "--tissues", str(tmp_path / "t.toml"),
        "--probe", PROBE, "--size", "16", "--angles", "1", "--limit", "2", "--out", str(tmp_path / "p.zarr"),
        "--mean-distance-wavelengths", "8", "--min-tissue", "0.05",
    ]  # fmt: skip
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert datagen.open_pairs(tmp_path / "p.zarr").label_names == {1: "body", 2: "disc"}
