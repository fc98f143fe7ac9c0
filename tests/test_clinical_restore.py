"""Clinical files restored and written: echoes are restored, nothing else changes, and nobody's name goes along."""

from __future__ import annotations

import re
import tracemalloc

import clinical
import nibabel as nib
import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image
from pydicom.pixels import apply_color_lut
from test_restore import make_model

from irsde.cli import run
from irsde.frames.cine import open_cine
from irsde.frames.opening import open_source
from irsde.frames.restoring import restore_cine
from irsde.frames.sinks import open_sink
from irsde.sample import Sampling, restore

GREY = clinical.captioned(clinical.grey_cine())
COLORS = clinical.with_doppler(GREY)
ROWS, COLUMNS = clinical.SHAPE
STEPS = ["--steps", "1", "--sampler", "ddim"]


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture
def restored(model, monkeypatch):
    """restored(input, output, ...): the exit code of `irsde restore`, with an untrained network as the run."""
    monkeypatch.setattr("irsde.network.load", lambda *arguments: model)

    def command(source, output, *options):
        return run(["restore", "run", str(source), "-o", str(output), *STEPS, *options])

    return command


def echoes(path):
    """(rows, columns) bool: the echo area of a file."""
    return np.logical_or.reduce([area.mask for area in open_cine(open_source(path)).areas])


# --- what is restored ------------------------------------------------------------------------------------------------


def test_a_clinical_cine_by_one_command(tmp_path, restored, capsys):
    """RGB, captions, a sector, color Doppler that moves, a list of regions: DICOM in, DICOM out."""
    regions = [clinical.region((0, ROWS, 0, COLUMNS)), clinical.region((110, 120, 0, 30), 4, 10)]
    path = clinical.write_colors(tmp_path / "cine.dcm", COLORS, SequenceOfUltrasoundRegions=regions)
    assert restored(path, tmp_path / "clean.dcm") == 0
    said = capsys.readouterr().err
    assert "region 1 (2-D tissue, 160 x 120 pixels) restored" in said
    assert "region 2 (waveform ECG, 30 x 10 pixels) left as it is" in said
    assert "in color in 3 of 3 frames (color Doppler, marks): not restored, put back as it is" in said
    assert "captions of the picture are kept; a name may be among them" in said
    after = clinical.read(tmp_path / "clean.dcm").pixel_array
    assert after.shape == COLORS.shape
    area = echoes(path)
    for k in range(3):
        flow = np.zeros(clinical.SHAPE, bool)
        flow[clinical.doppler_box(k)] = True
        np.testing.assert_array_equal(after[k][flow], COLORS[k][flow])
        np.testing.assert_array_equal(after[k][~area], COLORS[k][~area])  # captions, border, the yellow mark
        changed = (after[k] != COLORS[k]).any(axis=2)
        assert changed[area & ~flow].mean() > 0.5
        assert (np.ptp(after[k][changed].astype(int), axis=1) == 0).all()  # what was restored is grey


def test_echoes_are_what_restoring_the_picture_alone_gives(tmp_path, model):
    path = clinical.write_colors(tmp_path / "c.dcm", COLORS)
    cine = open_cine(open_source(path))
    (area,) = cine.areas
    parts = list(restore_cine([model], cine, seed=5, sampling=Sampling(2)))
    (batch,) = list(cine.batches(16))
    for k in range(3):
        mask = area.mask & ~batch.colored[k]
        alone = restore(
            model, GREY_OF_COLORS[k] / np.float32(255), 2, seed=cine.seeds(5, range(k, k + 1))[0], mask=mask
        )
        result = parts[0].mean[k]
        np.testing.assert_allclose(result, alone, atol=1e-4)  # float32: batches are summed in another order
        np.testing.assert_array_equal(parts[0].where[k], mask)


GREY_OF_COLORS = np.rint(COLORS @ np.array([0.2125, 0.7154, 0.0721])).astype(np.float32)


def test_flow_decides_nothing_of_the_echoes(tmp_path, model):
    """The same echoes under flow of another color: what is restored beside it is the same to the last bit."""
    other = COLORS.copy()
    for k in range(3):
        other[k][clinical.doppler_box(k)] = (0, 250, 90)
    results = []
    for colors in (COLORS, other):
        path = clinical.write_colors(tmp_path / "c.dcm", colors)
        (part,) = restore_cine([model], open_cine(open_source(path)), sampling=Sampling(1))
        results.append((part.mean[part.where], part.where))
    np.testing.assert_array_equal(results[0][1], results[1][1])
    np.testing.assert_array_equal(results[0][0], results[1][0])


def test_two_views_are_restored_as_two_pictures(tmp_path, model):
    """One view's brightness must not decide the other's."""
    half = COLUMNS // 2
    inside = clinical.sector(clinical.SHAPE, 0, half) | clinical.sector(clinical.SHAPE, half, half)
    frames = clinical.grey_cine(1, inside=inside)
    regions = [clinical.region((0, ROWS, 0, half)), clinical.region((0, ROWS, half, COLUMNS))]
    results = []
    for left in (1.0, 0.4):
        frames_now = frames.copy()
        frames_now[..., :half] = (frames[..., :half] * left).astype(np.uint8)
        path = clinical.write_grey(tmp_path / "d.dcm", frames_now, SequenceOfUltrasoundRegions=regions)
        (part,) = restore_cine([model], open_cine(open_source(path)), sampling=Sampling(1))
        results.append(part.mean[0])
    np.testing.assert_array_equal(results[0][:, half:], results[1][:, half:])
    assert np.abs(results[0][:, :half] - results[1][:, :half]).max() > 0.01


def test_a_frame_alone_is_the_frame_of_the_cine(tmp_path, restored):
    path = clinical.write_colors(tmp_path / "c.dcm", COLORS, "jpeg")
    assert restored(path, tmp_path / "all.npy") == 0
    assert restored(path, tmp_path / "one.npy", "--slice", "1") == 0
    assert restored(path, tmp_path / "one.png", "--slice", "1") == 0
    whole, one = np.load(tmp_path / "all.npy"), np.load(tmp_path / "one.npy")
    assert whole.shape == (3, ROWS, COLUMNS)
    np.testing.assert_allclose(one, whole[1], atol=1e-4)  # batches are summed in another order
    assert np.asarray(Image.open(tmp_path / "one.png")).shape == (ROWS, COLUMNS, 3)  # with its colors


def test_a_frame_that_is_all_color_comes_back(tmp_path, restored):
    colors = COLORS.copy()
    colors[1] = (200, 20, 20)
    path = clinical.write_colors(tmp_path / "c.dcm", colors)
    assert restored(path, tmp_path / "o.dcm", "--region", "20,30,140,110") == 0
    np.testing.assert_array_equal(clinical.read(tmp_path / "o.dcm").pixel_array[1], colors[1])


# --- derived DICOM ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mono1", "mono2", "16 bits", "planes", "jpeg", "palette", "rgb grey", "still"])
def test_the_written_pixels_are_the_restored_grey(tmp_path, model, kind):
    path = tmp_path / "c.dcm"
    colors = np.repeat(GREY[..., None], 3, axis=3)
    table = np.repeat(np.arange(256)[:, None], 3, axis=1) * 257
    {
        "mono1": lambda: clinical.write_grey(path, 255 - GREY, "MONOCHROME1"),
        "mono2": lambda: clinical.write_grey(path, GREY),
        "16 bits": lambda: clinical.write_grey(path, GREY.astype(np.uint16) * 257),
        "planes": lambda: clinical.write_colors(path, COLORS, "planes"),
        "jpeg": lambda: clinical.write_colors(path, colors, "jpeg"),
        "palette": lambda: clinical.write_palette(path, GREY, table),
        "rgb grey": lambda: clinical.write_colors(path, colors),
        "still": lambda: clinical.write_grey(path, GREY[:1]),
    }[kind]()
    cine, parts = open_cine(open_source(path)), []
    with open_sink(tmp_path / "o.dcm", cine, with_variance=False) as add:
        for part in restore_cine([model], cine, sampling=Sampling(1)):
            parts.append(part)
            add(part)
    mean, where = (np.concatenate([getattr(part, name) for part in parts]) for name in ("mean", "where"))
    written = clinical.read(tmp_path / "o.dcm")
    pixels = written.pixel_array.reshape(*mean.shape, -1)
    top = 65535 if kind == "16 bits" else 255
    assert written.BitsStored == (16 if kind == "16 bits" else 8)
    assert written.PhotometricInterpretation == ("RGB" if kind == "planes" else "MONOCHROME2")
    for channel in range(pixels.shape[-1]):
        np.testing.assert_array_equal(pixels[..., channel][where], np.rint(mean * top)[where])
    assert where.any()
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["c.dcm", "o.dcm"]


def test_a_restored_file_is_a_new_image_of_nobody(tmp_path, restored):
    regions = [clinical.region((0, ROWS, 0, COLUMNS))]
    regions[0].private_block(0x0011, "VENDOR", create=True).add_new(0x01, "LO", clinical.SECRETS[0])
    path = clinical.write_colors(tmp_path / "c.dcm", COLORS, SequenceOfUltrasoundRegions=regions)
    assert restored(path, tmp_path / "o.dcm", "--seed", "4") == 0
    before, after = clinical.read(path), clinical.read(tmp_path / "o.dcm")
    content = (tmp_path / "o.dcm").read_bytes()
    for secret in (*clinical.SECRETS, *(before[f"{k}InstanceUID"].value for k in ("SOP", "Study", "Series"))):
        assert secret.encode() not in content
    assert list(after.ImageType) == ["DERIVED", "SECONDARY"]
    assert "posterior" not in after.DerivationDescription
    assert "irsde m0" in after.DerivationDescription
    assert "ddim sampler, 1 steps, seed 4" in after.DerivationDescription
    assert len({after.SOPInstanceUID, after.SeriesInstanceUID, after.StudyInstanceUID, before.StudyInstanceUID}) == 4
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
    assert after.SOPClassUID == clinical.CINE
    assert (after.PatientName, after.PatientID, after.StudyDate) == ("", "", "")
    assert after.PatientIdentityRemoved == "YES"
    assert "SourceImageSequence" not in after
    assert not any(element.tag.is_private for element in after.iterall())
    assert after.BurnedInAnnotation == "YES"  # nobody said that there is none
    assert (after.FrameTime, after.NumberOfFrames, after.FrameIncrementPointer) == (40, 3, 0x00181063)
    assert after.Modality == "US"
    assert after.SequenceOfUltrasoundRegions[0].PhysicalDeltaX == 0.03
    assert after.SequenceOfUltrasoundRegions[0].RegionLocationMaxX1 == COLUMNS - 1


@pytest.mark.parametrize(("said", "expected"), [(None, "YES"), ("YES", "YES"), ("NO", "NO")])
def test_the_tag_of_burned_in_captions_is_the_sources_word(tmp_path, restored, capsys, said, expected):
    attributes = {"BurnedInAnnotation": said} if said else {}
    path = clinical.write_grey(tmp_path / "c.dcm", GREY, **attributes)
    assert restored(path, tmp_path / "o.dcm") == 0
    assert clinical.read(tmp_path / "o.dcm").BurnedInAnnotation == expected
    assert ("a name may be among them" in capsys.readouterr().err) == (expected == "YES")


def test_identity_is_kept_where_it_is_asked_for(tmp_path, restored):
    table = np.repeat(np.arange(256)[:, None], 3, axis=1) * 257
    path = clinical.write_palette(
        tmp_path / "c.dcm", GREY, table, WindowCenter="30", WindowWidth="40", InstanceNumber="7"
    )
    assert restored(path, tmp_path / "o.dcm", "--keep-identity") == 0
    before, after = clinical.read(path), clinical.read(tmp_path / "o.dcm")
    for name in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "InstitutionName"):
        assert after[name].value == before[name].value
    assert after.SeriesInstanceUID != before.SeriesInstanceUID
    assert after.SOPInstanceUID != before.SOPInstanceUID
    (reference,) = after.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == before.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == before.SOPClassUID
    assert "PatientIdentityRemoved" not in after
    assert after.InstanceNumber == 7
    # What the new pixels would make untrue is gone: a viewer would apply it a second time.
    assert not [e.keyword for e in after if "Palette" in e.keyword or "Window" in e.keyword]
    assert after.PhotometricInterpretation == "MONOCHROME2"


def test_one_frame_of_a_cine_is_a_still_image(tmp_path, restored):
    path = clinical.write_colors(tmp_path / "c.dcm", COLORS, "jpeg")
    assert restored(path, tmp_path / "o.dcm", "--slice", "2") == 0
    after = clinical.read(tmp_path / "o.dcm")
    assert after.SOPClassUID == clinical.STILL
    assert not {"NumberOfFrames", "FrameTime", "FrameIncrementPointer"} & {e.keyword for e in after}
    assert "frame 2 of 3" in after.DerivationDescription
    assert after.LossyImageCompression == "01"
    assert after.pixel_array.shape == (ROWS, COLUMNS, 3)


def test_a_secondary_capture_stays_one(tmp_path, restored):
    path = clinical.write_grey(tmp_path / "c.dcm", GREY, SOPClassUID="1.2.840.10008.5.1.4.1.1.7.2", Modality="OT")
    assert restored(path, tmp_path / "o.dcm") == 0
    assert clinical.read(tmp_path / "o.dcm").SOPClassUID == "1.2.840.10008.5.1.4.1.1.7.2"
    path = clinical.write_colors(tmp_path / "c.dcm", COLORS, SOPClassUID="1.2.840.10008.5.1.4.1.1.7.4", Modality="OT")
    assert restored(path, tmp_path / "o.dcm") == 0
    assert clinical.read(tmp_path / "o.dcm").SOPClassUID == "1.2.840.10008.5.1.4.1.1.7.4"


def test_more_than_dicom_holds_is_refused_before_the_work(tmp_path, restored, capsys, monkeypatch):
    monkeypatch.setattr("irsde.frames.dicom_out.LARGEST", 2 * ROWS * COLUMNS)
    path = clinical.write_grey(tmp_path / "c.dcm", GREY)
    assert restored(path, tmp_path / "o.dcm") == 3
    assert "DICOM holds 4.3: use -o NAME.nii.gz or --slice N" in capsys.readouterr().err
    assert restored(path, tmp_path / "o.dcm", "--slice", "1") == 0


def test_a_derived_file_can_be_restored_again(tmp_path, restored):
    path = clinical.write_colors(tmp_path / "c.dcm", COLORS)
    assert restored(path, tmp_path / "o.dcm") == 0
    assert restored(tmp_path / "o.dcm", tmp_path / "p.dcm") == 0
    assert clinical.read(tmp_path / "p.dcm").pixel_array.shape == COLORS.shape


# --- NIfTI, NPY, PNG -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["o.nii", "o.nii.gz"])
def test_nifti_has_the_pixel_size_of_the_region(tmp_path, restored, name):
    path = clinical.write_grey(
        tmp_path / "c.dcm", GREY, SequenceOfUltrasoundRegions=[clinical.region((0, 120, 0, 160))]
    )
    assert restored(path, tmp_path / name) == 0
    assert restored(path, tmp_path / "o.npy") == 0
    image = nib.load(tmp_path / name)
    assert image.shape == (COLUMNS, ROWS, 3)
    assert image.header.get_zooms()[:2] == pytest.approx((0.3, 0.2))
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32).transpose(2, 1, 0), np.load(tmp_path / "o.npy"))
    assert b"frames 40 ms apart" in bytes(image.header["descrip"])
    from ussim.volumes.reading import read_image

    np.testing.assert_array_equal(read_image(tmp_path / name, 1, "axial"), np.load(tmp_path / "o.npy")[1])


def test_several_members_write_their_variance_beside(tmp_path, restored, capsys):
    path = clinical.write_grey(tmp_path / "c.dcm", GREY)
    for name, beside in (("o.dcm", "o-variance.npy"), ("o.npy", "o-variance.npy"), ("o.nii", "o-variance.nii")):
        assert restored(path, tmp_path / name, "--samples", "2") == 0
        assert (tmp_path / beside).exists()
        assert "largest standard deviation over members" in capsys.readouterr().err
    variance = np.load(tmp_path / "o-variance.npy")
    assert variance.shape == GREY.shape
    area = echoes(path)
    assert variance[:, area].max() > 0
    assert not variance[:, ~area].any()
    np.testing.assert_array_equal(nib.load(tmp_path / "o-variance.nii").get_fdata().transpose(2, 1, 0), variance)
    assert restored(path, tmp_path / "one.png", "--samples", "2", "--slice", "0") == 0
    assert (tmp_path / "one-uncertainty.png").exists()


def test_pages_and_windows(tmp_path, restored, capsys):
    values = GREY.astype(np.uint16) * 16
    pages = [Image.fromarray(frame) for frame in values]
    pages[0].save(tmp_path / "t.tif", save_all=True, append_images=pages[1:])
    np.save(tmp_path / "v.npy", values)
    outside = ~clinical.sector()
    for source in ("t.tif", "v.npy"):
        assert restored(tmp_path / source, tmp_path / "o.npy", "--window", "0,4080") == 0
        assert "0 and 1 are 0 and 4080 of the file" in capsys.readouterr().err
        after = np.load(tmp_path / "o.npy")
        np.testing.assert_allclose(after[:, :8][:, outside[:8]], (GREY / 255)[:, :8][:, outside[:8]], atol=1e-6)


# --- memory, and what goes wrong -------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path):
    """Peak of what is allocated while a cine is looked at and written: the same for 20 and for 200 frames."""
    peaks = []
    for n in (20, 200):
        colors = np.tile(COLORS, (n // 2, 1, 1, 1))[:n]
        path = clinical.write_colors(tmp_path / f"{n}.dcm", colors, "rle")
        del colors
        for name in ("o.dcm", "o.npy", "o.nii.gz"):
            tracemalloc.start()
            cine = open_cine(open_source(path))
            with open_sink(tmp_path / name, cine, with_variance=False) as add:
                for part in unchanged(cine):
                    add(part)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert clinical.read(tmp_path / "o.dcm").pixel_array.shape == (n, ROWS, COLUMNS, 3)
    frame = ROWS * COLUMNS * 3
    for few, many in zip(peaks[:3], peaks[3:], strict=True):
        assert many < few + 20 * frame  # 180 more frames; a sample of the values is kept for percentiles


def unchanged(cine):
    """Batches restored by a model that changes nothing."""
    from irsde.frames.restoring import Restored

    for batch in cine.batches(4):
        yield Restored(batch, batch.grey, None, np.zeros(batch.grey.shape, bool))


@pytest.mark.parametrize("name", ["o.dcm", "o.npy", "o.nii.gz"])
def test_nothing_is_left_of_what_could_not_be_finished(tmp_path, model, monkeypatch, name):
    path = clinical.write_colors(tmp_path / "c.dcm", COLORS)
    (tmp_path / name).write_text("what was there")
    monkeypatch.setattr("irsde.network.load", lambda *arguments: model)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("irsde.frames.restoring.restore_members", full)
    assert run(["restore", "run", str(path), "-o", str(tmp_path / name), *STEPS]) == 3
    assert (tmp_path / name).read_text() == "what was there"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["c.dcm", name])


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [(["--region", "2"], 3, "--region 2: the file has no list of regions"),
     (["--region", "0"], 2, "the number of a region of the file, or LEFT,TOP,RIGHT,BOTTOM"),
     (["--region", "auto", "--region", "1"], 2, "got 'auto'"),
     (["--region", "0,0,161,100"], 3, "at most 160 x 120 pixels, got 161 x 100"),
     (["--window", "9,2"], 2, "expected auto, voi, percentile or LOW,HIGH, got '9,2'"),
     (["--window", "voi"], 3, "the file states none; name LOW,HIGH"),
     (["--plane", "axial"], 3, "no 'axial' plane here: a file of pictures has frames"),
     (["--slice", "3"], 3, "there are 0 to 2")],
)  # fmt: skip
def test_wrong_options_are_one_line(tmp_path, restored, capsys, options, code, said):
    path = clinical.write_colors(tmp_path / "c.dcm", COLORS)
    assert restored(path, tmp_path / "o.dcm", *options) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert said in lines[-1]
    assert not (tmp_path / "o.dcm").exists()


def test_dicom_is_written_of_clinical_dicom_alone(tmp_path, restored, capsys):
    Image.fromarray(GREY[0]).save(tmp_path / "p.png")
    np.save(tmp_path / "v.npy", GREY)
    for name in ("p.png", "v.npy"):
        assert restored(tmp_path / name, tmp_path / "o.dcm") == 2
        assert "read from DICOM alone" in capsys.readouterr().err
    path = clinical.write_grey(tmp_path / "c.dcm", GREY)
    assert restored(path, tmp_path / "o.nii", "--keep-identity") == 2
    assert "--keep-identity is of -o NAME.dcm" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["cut", "jpeg", "native", "encrypted", "attributes", "report", "header", "video"])
def test_files_that_cannot_be_read_end_in_one_line(tmp_path, restored, capsys, what):
    from test_frames import damaged

    path = damaged(tmp_path, what)
    assert restored(path, tmp_path / "o.dcm") == 3
    said = capsys.readouterr().err.strip().splitlines()
    assert str(path) in said[-1]
    assert not any("Traceback" in line for line in said)
    assert not (tmp_path / "o.dcm").exists()


def test_the_python_of_the_guide_runs(tmp_path, model, monkeypatch):
    import irsde

    (block,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "clinical.md").read_text("utf-8"), re.DOTALL)
    clinical.write_colors(tmp_path / "cine.dcm", COLORS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(irsde, "load", lambda run: model, raising=False)
    exec(block.replace("Sampling(20", "Sampling(1"), {})
    assert clinical.read(tmp_path / "clean.dcm").pixel_array.shape == COLORS.shape


def test_the_palette_is_the_one_that_pydicom_applies():
    """The curved array's picture that comes with pydicom: its colors outside the echoes are the table's."""
    from pydicom.data import get_testdata_file

    path = clinical.Path(get_testdata_file("examples_palette.dcm", download=False))
    (batch,) = open_cine(open_source(path)).batches(1)
    ds = clinical.read(path)
    np.testing.assert_array_equal(batch.colors[0], apply_color_lut(ds.pixel_array, ds) // 256)
