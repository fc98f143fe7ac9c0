"""Clinical files read: color models, palettes, regions, pages, orientation; what is echo and what is left alone."""

from __future__ import annotations

import clinical
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from irsde.frames.cine import open_cine
from irsde.frames.color import colored
from irsde.frames.opening import open_source
from irsde.frames.restoring import Restored
from irsde.frames.sinks import open_sink
from ussim.errors import DataError

GREY = clinical.captioned(clinical.grey_cine())
ROWS, COLUMNS = clinical.SHAPE


def everything(path, **options):
    """A cine and all its frames: grey levels as 0 to 255 (not rounded), and where they are in color."""
    cine = open_cine(open_source(path), **options)
    batches = list(cine.batches(2))
    masks = None if batches[0].colored is None else np.concatenate([batch.colored for batch in batches])
    return cine, np.concatenate([batch.grey for batch in batches]) * 255, masks


# --- DICOM -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "tolerance"),
    [("rgb", 0), ("planes", 0), ("rle", 0), ("ybr", 1), ("ybr422", 1), ("partial", 2), ("jpeg", 12)],
    # YBR: rounding of luma; partial: of 219 steps; JPEG at quality 95: speckle and captions, 1 on average (below)
)
def test_grey_stored_as_color_is_grey(tmp_path, how, tolerance):
    colors = np.repeat(GREY[..., None], 3, axis=3)
    cine, grey, _ = everything(clinical.write_colors(tmp_path / "c.dcm", colors, how))
    assert cine.shape == GREY.shape
    assert not cine.has_color
    error = np.abs(grey - GREY)
    assert error.max() <= tolerance + 1e-3
    assert error.mean() <= 1


@pytest.mark.parametrize("how", ["rgb", "planes", "rle", "ybr", "ybr422", "partial", "jpeg"])
def test_flow_and_marks_are_told_from_grey_in_every_color_model(tmp_path, how):
    path = clinical.write_colors(tmp_path / "c.dcm", clinical.with_doppler(GREY), how)
    cine, grey, masks = everything(path)
    assert cine.has_color
    for k in range(len(GREY)):
        flow = np.zeros(clinical.SHAPE, bool)
        flow[clinical.doppler_box(k)] = True
        assert masks[k][flow].all()
        far = flow.copy()
        far[max(0, clinical.doppler_box(k)[0].start - 8) : clinical.doppler_box(k)[0].stop + 8] = True  # JPEG's blocks
        far[:12, -24:] = True  # the yellow mark
        assert not masks[k][~far].any()
        assert np.abs(grey[k] - GREY[k])[~far].mean() < 1
    assert any("in color in 3 of 3 frames (color Doppler, marks): not restored" in note for note in cine.notes)


def test_grey_of_either_polarity_and_of_a_file_without_preamble(tmp_path):
    for photometric, stored in (("MONOCHROME2", GREY), ("MONOCHROME1", 255 - GREY)):
        _, grey, _ = everything(clinical.write_grey(tmp_path / "g.dcm", stored, photometric))
        np.testing.assert_allclose(grey, GREY, atol=1e-3)
    whole = (tmp_path / "g.dcm").read_bytes()
    (tmp_path / "bare.dcm").write_bytes(whole[132:])
    np.testing.assert_allclose(everything(tmp_path / "bare.dcm")[1], GREY, atol=1e-3)
    ds = clinical.read(tmp_path / "g.dcm")  # and without the group that says how the file is encoded
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.save_as(tmp_path / "barer.dcm")
    encoded = (tmp_path / "barer.dcm").read_bytes()
    start = encoded.index(b"\x08\x00\x08\x00")  # ImageType, the first of the dataset
    (tmp_path / "barer.dcm").write_bytes(encoded[start:])
    np.testing.assert_allclose(everything(tmp_path / "barer.dcm")[1], GREY, atol=1e-3)


@pytest.mark.parametrize("syntax", ["big endian", "deflated", "implicit", "JPEG 2000", "gzip"])
def test_other_encodings(tmp_path, syntax):
    """Each read, and written again with all its attributes."""
    path = clinical.write_encoded(tmp_path / "c.dcm", clinical.with_doppler(GREY), syntax)
    cine, grey, _ = everything(path)
    expected = clinical.with_doppler(GREY)
    np.testing.assert_allclose(grey, np.rint(expected @ np.array([0.2125, 0.7154, 0.0721])), atol=1e-3)
    with open_sink(tmp_path / "o.dcm", cine, with_variance=False, keep_identity=True) as add:
        for batch in cine.batches(2):
            add(Restored(batch, batch.grey, None, np.zeros(batch.grey.shape, bool)))
    after = clinical.read(tmp_path / "o.dcm")
    np.testing.assert_array_equal(after.pixel_array, expected)
    assert after.SequenceOfUltrasoundRegions[0].RegionLocationMaxX1 == COLUMNS - 1
    assert after.PatientID == clinical.SECRETS[1]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_twelve_and_sixteen_bits_have_their_full_range_or_a_window(tmp_path, photometric):
    top = 4095
    values = GREY.astype(np.uint16) * 16
    stored = top - values if photometric == "MONOCHROME1" else values
    path = clinical.write_grey(
        tmp_path / "g.dcm", stored, photometric, BitsStored=12, HighBit=11, WindowCenter="1024.5", WindowWidth="2049"
    )
    cine, grey, _ = everything(path)
    assert cine.grey == (0, top)
    np.testing.assert_allclose(grey, values / top * 255, atol=1e-3)
    _, grey, _ = everything(path, window=(100.0, 2000.0))
    np.testing.assert_allclose(grey, np.clip((values.astype(float) - 100) / 1900, 0, 1) * 255, atol=1e-2)
    cine, _, _ = everything(path, window="voi")
    assert cine.grey == (0, 2048)  # PS3.3 C.11.2.1.2: center - 0.5 -+ (width - 1) / 2
    cine, _, _ = everything(path, window="percentile")
    inside = values[values > 0]
    assert cine.grey == pytest.approx(tuple(np.percentile(inside, (0.5, 99.5))), rel=0.03)  # of a sample


def test_rescale_slope_is_applied_before_the_window(tmp_path):
    path = clinical.write_grey(tmp_path / "g.dcm", GREY, RescaleSlope="2", RescaleIntercept="-10")
    cine, grey, _ = everything(path)
    assert cine.grey == (-10, 500)
    np.testing.assert_allclose(grey, GREY, atol=1e-3)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("scale", [1, 256, 257])
def test_palettes_are_applied(tmp_path, bits, scale):
    """A table that turns grey around; 16-bit entries as the whole range (257), in the high byte (256), or in the low one."""
    table = np.repeat(255 - np.arange(256)[:, None], 3, axis=1) * (scale if bits == 16 else 1)
    cine, grey, _ = everything(clinical.write_palette(tmp_path / "p.dcm", 255 - GREY, table, bits))
    assert not cine.has_color
    np.testing.assert_allclose(grey, GREY, atol=1e-3)


def test_a_palette_of_65536_entries_and_colors(tmp_path):
    table = np.repeat((np.arange(65536) & 0xFF00)[:, None], 3, axis=1)
    table[255 * 256 + 7] = (65535, 0, 0)
    indices = GREY.astype(np.uint16) * 256
    indices[:, 60:70, 60:90] = 255 * 256 + 7
    cine, _, masks = everything(clinical.write_palette(tmp_path / "p.dcm", indices, table))
    assert cine.has_color
    assert masks[:, 60:70, 60:90].all()
    assert masks[0].sum() == 12 * 32  # with the pixels beside


def test_a_table_for_the_upper_values_alone(tmp_path):
    """MONOCHROME2 with a supplemental palette (PS3.3 C.7.6.19): values from 200 on are flow."""
    stored = np.minimum(GREY, 199)
    stored[:, 60:70, 60:90] = 230
    path = clinical.write_palette(
        tmp_path / "p.dcm", stored, np.tile([65535, 0, 0], (56, 1)), PixelPresentation="COLOR"
    )
    ds = clinical.read(path)
    ds.PhotometricInterpretation = "MONOCHROME2"
    for name in ("Red", "Green", "Blue"):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [56, 200, 16])
    cine, grey, masks = everything(clinical.save(path, ds))
    assert cine.has_color
    assert masks[:, 60:70, 60:90].all()
    np.testing.assert_allclose(grey[:, :50], stored[:, :50] / 199 * 255, atol=0.51)  # whole numbers


@pytest.mark.parametrize("text", ["3", "3 ", " 3", "3.0"])
def test_the_number_of_frames_is_text(tmp_path, text):
    path = clinical.write_grey(tmp_path / "g.dcm", GREY)
    whole = path.read_bytes()
    ds = clinical.dataset(3)
    assert ds.NumberOfFrames == 3
    found = whole.index(b"\x28\x00\x08\x00IS")
    padded = text + " " * (len(text) % 2)
    entry = b"\x28\x00\x08\x00IS" + len(padded).to_bytes(2, "little") + padded.encode()
    path.write_bytes(whole[:found] + entry + whole[found + 10 :])
    assert everything(path)[0].shape == GREY.shape


def test_a_frame_alone_is_the_frame_of_the_whole(tmp_path):
    for how in ("rgb", "jpeg"):
        path = clinical.write_colors(tmp_path / "c.dcm", clinical.with_doppler(GREY), how)
        _, grey, _ = everything(path)
        for index in (0, 2, -1):
            one, alone, _ = everything(path, frame=index)
            np.testing.assert_array_equal(alone[0], grey[index])
            assert one.seeds(7, range(1)) == open_cine(open_source(path)).seeds(7, range(index % 3, index % 3 + 1))
    with pytest.raises(DataError, match="slice 3 asked for; there are 0 to 2"):
        open_cine(open_source(path), 3)
    with pytest.raises(DataError, match="got 3 frames; choose one with --slice 0 to 2, or so"):
        open_cine(open_source(path), only_one=True, otherwise=", or so")


def test_a_frame_alone_has_the_echo_area_of_the_whole_unless_the_others_are_lost(tmp_path):
    frames = GREY.copy()
    frames[0] //= 60
    path = clinical.write_grey(tmp_path / "g.dcm", frames)
    whole, alone = open_cine(open_source(path)), open_cine(open_source(path), 0)
    np.testing.assert_array_equal(whole.areas[0].mask, alone.areas[0].mask)
    percentiles = [open_cine(open_source(path), k, window="percentile").grey for k in (None, 0, 1)]
    assert percentiles[0] == percentiles[1] == percentiles[2]
    path.write_bytes(path.read_bytes()[:-3000])  # the last frame is cut
    assert any("other frames cannot be read" in note for note in open_cine(open_source(path), 1).notes)


def test_slices_through_a_body_are_none_of_these(tmp_path):
    import trees

    trees.write_series(tmp_path / "s", "axial")
    for path in (*(tmp_path / "s").iterdir(), trees.write_enhanced(tmp_path / "e.dcm"), tmp_path / "s"):
        assert open_source(path) is None
    np.save(tmp_path / "v.npy", GREY)
    assert open_source(tmp_path / "v.npy") is None
    (tmp_path / "cines").mkdir()
    clinical.write_grey(tmp_path / "cines" / "a.dcm", GREY)
    with pytest.raises(DataError, match=r"got a folder with a\.dcm: restore pictures and cines one by one"):
        open_source(tmp_path / "cines")
    for name in ("none.dcm", "none.png", "none"):
        with pytest.raises(DataError, match="no such file or folder"):
            open_source(tmp_path / name)


def test_the_pictures_that_come_with_pydicom():
    """A cine in JPEG, a palette of 16 bits, flow in RGB: scanners of three makers."""
    from pydicom.data import get_testdata_file

    for name, n, has_color in (("ybr_color", 30, True), ("palette", 1, True), ("rgb_color", 1, True)):
        cine = open_cine(open_source(clinical.Path(get_testdata_file(f"examples_{name}.dcm", download=False))))
        assert cine.shape[0] == n
        assert cine.has_color == has_color
        (area,) = cine.areas
        if name == "palette":  # the curved array's fan, without the header, the caption and the grey bar beside it
            assert area.box[0].start in range(60, 72)
            assert area.box[1].start in range(320, 335)
            assert area.box[1].stop in range(590, 605)
        assert 0.05 < area.mask.mean() < 0.7


# --- regions ---------------------------------------------------------------------------------------------------------


def dual(tmp_path, *regions, **attributes):
    """Two views beside each other over a spectrum, and its file with a list of regions (top, bottom, left, right, ...)."""
    half = COLUMNS // 2
    inside = clinical.sector((ROWS, COLUMNS), 0, half) | clinical.sector((ROWS, COLUMNS), half, half)
    frames = clinical.grey_cine(inside=inside)
    frames[:, 100:] = np.random.default_rng(1).integers(10, 200, frames[:, 100:].shape)
    items = [clinical.region(*given) if isinstance(given, tuple) else given for given in regions]
    return clinical.write_grey(tmp_path / "d.dcm", frames, SequenceOfUltrasoundRegions=items, **attributes), inside


LEFT, RIGHT, BELOW = (0, 100, 0, 80), (0, 100, 80, 160), (100, 120, 0, 160)


def test_two_views_are_two_areas_and_a_spectrum_is_none(tmp_path):
    path, inside = dual(tmp_path, (BELOW, 3, 3), (LEFT,), (RIGHT,))
    cine = open_cine(open_source(path))
    assert len(cine.areas) == 2
    for area, (_, _, left, right) in zip(cine.areas, (LEFT, RIGHT), strict=True):
        expected = inside.copy()
        expected[:, :left] = expected[:, right:] = expected[100:] = False
        assert (area.mask != expected).sum() < 0.03 * expected.sum()  # pixels at the rim
    assert cine.pixel_size == pytest.approx((0.2, 0.3))
    assert any(
        n.startswith("region 2 (2-D tissue, 80 x 100 pixels); 3 (") and n.endswith("restored") for n in cine.notes
    )
    assert "region 1 (spectral PW Doppler, 160 x 20 pixels) left as it is" in cine.notes


def test_a_region_by_number_and_by_rectangle(tmp_path):
    path, _ = dual(tmp_path, (LEFT,), (RIGHT, 1, 1, (0.05, 0.05)), (BELOW, 2, 1))
    source = open_source(path)
    cine = open_cine(source, parts=[2])
    assert len(cine.areas) == 1
    assert not cine.areas[0].mask[:, :80].any()
    assert cine.pixel_size == pytest.approx((0.5, 0.5))
    cine = open_cine(source, parts=[3])  # M-mode, because it was asked for
    assert cine.areas[0].box == (slice(100, 120), slice(0, 160))
    cine = open_cine(source, parts=[(10, 20, 50, 90), 2])
    assert [area.box for area in cine.areas][1] == (slice(20, 90), slice(10, 50))
    assert cine.areas[1].mask.sum() == 40 * 70
    with pytest.raises(DataError, match=r"--region 4: the file has regions 1 \(2-D tissue.*3 \(M-mode tissue"):
        open_cine(source, parts=[4])
    with pytest.raises(DataError, match="at most 160 x 120 pixels, got 161 x 90"):
        open_cine(source, parts=[(10, 20, 161, 90)])
    with pytest.raises(DataError, match="no list of regions"):
        open_cine(open_source(clinical.write_grey(tmp_path / "g.dcm", GREY)), parts=[1])


@pytest.mark.parametrize(
    ("regions", "n_areas", "said"),
    [
        ([(LEFT,), (LEFT,)], 1, ""),  # listed twice
        ([((0, 100, 0, 160),), ((30, 60, 40, 60), 1, 2)], 1, ""),  # a color box over its tissue
        ([((0, 100, 0, 160), 1, 2)], 1, ""),  # color flow alone holds the tissue too
        ([((0, 130, 0, 160),)], 1, "reaches beyond the 160 x 120 picture: cut off there"),
        ([((0, 121, 0, 161),)], 1, ""),  # the pixel after the last, as some scanners write
        ([((0, 480, 0, 640),)], 1, "which somebody resized: ignored, and its pixel size with it"),
        ([((200, 300, 10, 90),)], 1, "lies outside the picture: ignored"),
        ([Dataset()], 1, "has no place: ignored"),
    ],
)
def test_lists_of_regions_as_they_are_found(tmp_path, regions, n_areas, said):
    cine = open_cine(open_source(dual(tmp_path, *regions)[0]))
    assert len(cine.areas) == n_areas
    assert (said == "") == (not any(("region 1 (" in n and "restored" not in n) or "ignored" in n for n in cine.notes))
    assert any(said in note for note in cine.notes) or not said
    if "resized" in said:
        assert cine.pixel_size is None


def test_a_file_of_spectra_alone_is_refused_and_says_what_to_do(tmp_path):
    path, _ = dual(tmp_path, (BELOW, 3, 3))
    with pytest.raises(DataError, match=r"no 2-D region of tissue.*1 \(spectral PW Doppler.*--region N.*--region all"):
        open_cine(open_source(path))
    assert open_cine(open_source(path), parts=None).areas[0].mask.all()


def test_captions_inside_a_region_are_beside_the_echoes(tmp_path):
    ds = {"SequenceOfUltrasoundRegions": [clinical.region((0, ROWS, 0, COLUMNS))]}
    cine = open_cine(open_source(clinical.write_grey(tmp_path / "g.dcm", GREY, **ds)))
    expected = clinical.sector()
    assert (cine.areas[0].mask != expected).sum() < 0.02 * expected.sum()


def test_the_area_is_one_for_all_frames(tmp_path):
    """A frame whose echoes fade must not move the border: the area is that of the brightest values of all frames."""
    frames = GREY.copy()
    frames[1] //= 60
    cine = open_cine(open_source(clinical.write_grey(tmp_path / "g.dcm", frames)))
    expected = clinical.sector()
    assert (cine.areas[0].mask != expected).sum() < 0.02 * expected.sum()


def test_a_tinted_picture_is_refused_in_one_line(tmp_path):
    colors = np.repeat(GREY[..., None], 3, axis=3).astype(float) * (1.0, 0.8, 0.5)
    path = clinical.write_colors(tmp_path / "t.dcm", colors.astype(np.uint8))
    with pytest.raises(DataError, match="of the echo area is in color: a tinted map"):
        open_cine(open_source(path))


# --- what cannot be read ---------------------------------------------------------------------------------------------


def damaged(tmp_path, what):
    path = clinical.write_colors(tmp_path / "c.dcm", clinical.with_doppler(GREY), "jpeg")
    whole = path.read_bytes()
    if what == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif what == "frames":
        ds = clinical.read(path)
        ds.NumberOfFrames = 5
        clinical.save(path, ds)
    elif what == "jpeg":
        path.write_bytes(whole.replace(b"\xff\xc0\x00\x11", b"\xff\xc0\x00\x02"))
    elif what == "native":
        path = clinical.write_grey(tmp_path / "g.dcm", GREY)
        path.write_bytes(path.read_bytes()[:-3000])
    elif what == "encrypted":
        path.write_bytes(b"\x30\x82\x10\x00" + bytes(np.random.default_rng(0).integers(0, 256, 4096, dtype=np.uint8)))
    elif what == "attributes":
        ds = clinical.dataset(1)
        for name in ("Rows", "Columns"):
            del ds[name]
        item = Dataset()
        item.EncryptedContentTransferSyntaxUID, item.EncryptedContent = "1.2.840.10008.1.2.1", b"secret.."
        ds.EncryptedAttributesSequence = [item]
        ds.save_as(path, enforce_file_format=True)
    elif what == "report":
        ds = clinical.dataset(1)
        ds.SOPClassUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.88.11", "SR"
        ds.save_as(path, enforce_file_format=True)
    elif what == "header":
        clinical.dataset(1).save_as(path, enforce_file_format=True)
    elif what == "video":
        ds = clinical.read(path)
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"  # MPEG-4
        clinical.save(path, ds)
    elif what == "private":
        path = clinical.write_grey(tmp_path / "g.dcm", GREY)
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.113619.5.2\0\0"))  # a maker's own
    elif what == "palette":
        path = clinical.write_palette(tmp_path / "p.dcm", GREY, np.zeros((256, 3), int))
        ds = clinical.read(path)
        ds.GreenPaletteColorLookupTableData = b"\0" * 6
        clinical.save(path, ds)
    return path


@pytest.mark.parametrize(
    ("what", "said"),
    [("cut", "frame|damaged"), ("frames", "frame"), ("jpeg", "cannot be decoded"), ("native", "cannot be decoded"),
     ("attributes", "encrypted attributes"), ("report", "expected an image, got structured report"),
     ("header", "a header without pixels"), ("video", "MPEG-4.*cannot be decoded here"),
     ("private", "cannot be decoded here"), ("palette", "palette")],
)  # fmt: skip
def test_damaged_encrypted_and_other_files_are_one_line(tmp_path, what, said):
    path = damaged(tmp_path, what)
    with pytest.raises(DataError, match=said) as caught:
        open_cine(open_source(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


# --- pictures --------------------------------------------------------------------------------------------------------


def test_pages_of_a_tiff_are_frames(tmp_path):
    pages = [Image.fromarray(frame) for frame in GREY]
    pages[0].save(tmp_path / "t.tif", save_all=True, append_images=[*pages[1:], Image.new("L", (20, 10))])
    cine, grey, _ = everything(tmp_path / "t.tif")
    np.testing.assert_allclose(grey, GREY, atol=1e-3)
    assert "1 of 4 pages have another size than the first: left out" in cine.notes
    np.testing.assert_allclose(everything(tmp_path / "t.tif", frame=-1)[1][0], GREY[2], atol=1e-3)


@pytest.mark.parametrize("name", ["p.png", "p.tif"])
def test_sixteen_bits_of_a_picture(tmp_path, name):
    values = GREY[0].astype(np.uint16) * 16
    Image.fromarray(values).save(tmp_path / name)
    cine, grey, _ = everything(tmp_path / name)
    assert cine.grey == (0, 65535)
    np.testing.assert_allclose(grey[0], values / 65535 * 255, atol=1e-3)
    assert any(f"up to {values.max()} of 65535: shown dark; --window 0,{values.max()}" in note for note in cine.notes)
    _, grey, _ = everything(tmp_path / name, window=(0.0, 4080.0))
    np.testing.assert_allclose(grey[0], GREY[0], atol=1e-2)


def test_fractions_in_a_tiff_stay_and_other_numbers_have_their_own_range(tmp_path):
    fractions = GREY[0].astype(np.float32) / 255
    Image.fromarray(fractions).save(tmp_path / "f.tif")
    np.testing.assert_allclose(everything(tmp_path / "f.tif")[1][0], GREY[0], atol=1e-3)
    Image.fromarray(fractions * 50 - 20).save(tmp_path / "f.tif")
    cine, _, _ = everything(tmp_path / "f.tif")
    assert cine.grey == pytest.approx((-20, fractions.max() * 50 - 20))
    fractions[3, 4] = np.nan
    Image.fromarray(fractions).save(tmp_path / "f.tif")
    with pytest.raises(DataError, match="NaN"):
        everything(tmp_path / "f.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["o.jpg", "o.png", "o.tif"])
def test_a_picture_is_upright_as_its_exif_says(tmp_path, name, orientation):
    undo = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270}  # fmt: skip
    picture = Image.fromarray(GREY[0])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = picture.transpose(undo[orientation]) if orientation in undo else picture
    stored.save(tmp_path / name, exif=exif, **({"quality": 95} if name == "o.jpg" else {}))
    _, grey, _ = everything(tmp_path / name)
    assert grey.shape[1:] == clinical.SHAPE
    assert np.abs(grey[0] - GREY[0]).mean() < 2


def test_palettes_and_transparency_of_pictures(tmp_path):
    picture = Image.fromarray(GREY[0])
    picture.convert("P").save(tmp_path / "p.png")
    np.testing.assert_allclose(everything(tmp_path / "p.png")[1][0], GREY[0], atol=1e-3)
    alpha = Image.new("L", picture.size, 255)
    alpha.paste(0, (0, 0, 80, 120))
    for mode in ("LA", "RGBA"):
        transparent = picture.convert(mode)
        transparent.putalpha(alpha)
        transparent.save(tmp_path / "a.png")
        cine, grey, _ = everything(tmp_path / "a.png", parts=None)
        assert not cine.has_color
        assert not grey[0][:, :80].any()
        np.testing.assert_allclose(grey[0][:, 80:], GREY[0][:, 80:], atol=1e-3)
    Image.fromarray(clinical.with_doppler(GREY)[0]).save(tmp_path / "c.png")
    assert everything(tmp_path / "c.png")[0].has_color


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"])
def test_what_is_no_picture_is_one_line(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.png: .*(picture|cannot|truncated)"):
        open_cine(open_source(tmp_path / "x.png"))
    Image.fromarray(GREY[0]).save(tmp_path / "y.png")
    (tmp_path / "y.png").write_bytes((tmp_path / "y.png").read_bytes()[:600])
    with pytest.raises(DataError, match=r"y\.png"):
        open_cine(open_source(tmp_path / "y.png"))


def test_color_is_what_differs_between_channels_by_more_than_the_tolerance():
    picture = np.full((9, 9, 3), 100, np.uint8)
    picture[4, 4] = (100, 104, 110)
    assert colored(picture) is None
    picture[4, 4, 2] = 111
    assert colored(picture).sum() == 9
    assert colored(picture[..., 0]) is None
