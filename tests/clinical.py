"""Clinical-like files made in the tests: a cine of a sector, captions and color Doppler in every way DICOM stores it."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    generate_uid,
)

SHAPE = (120, 160)
SECRETS = ("Doe^Jane", "MRN-778812", "19610214", "General Hospital", "Dr^House", "20240131", "SN-4711")
CINE, STILL = "1.2.840.10008.5.1.4.1.1.3.1", "1.2.840.10008.5.1.4.1.1.6.1"


def sector(shape=SHAPE, left=0, width=None):
    """(rows, columns) bool: a sector whose apex lies above the picture."""
    z, x = np.indices(shape)
    width = width or shape[1]
    x, z = x - left - width / 2, z + 0.1 * shape[0]
    radius = np.hypot(x, z)
    inside = (np.abs(np.arctan2(x, z)) < 0.6) & (radius < 0.95 * shape[0]) & (radius > 0.35 * shape[0])
    return inside & (np.abs(x) < width / 2 - 2)


def grey_cine(n=3, shape=SHAPE, seed=0, inside=None):
    """(n, rows, columns) uint8: speckle in a sector that moves from frame to frame, black around."""
    rng = np.random.default_rng(seed)
    inside = sector(shape) if inside is None else inside
    field = rng.rayleigh(size=(shape[0] + n, shape[1])) * 55 + 30
    frames = np.stack([field[k : k + shape[0]] for k in range(n)])
    return np.where(inside, np.clip(frames, 12, 235), 0).astype(np.uint8)


def captioned(frames):
    """Grey frames (n, rows, columns) with white captions beside the sector."""
    picture = Image.new("L", frames.shape[:0:-1])
    draw = ImageDraw.Draw(picture)
    draw.text((3, 2), "JANE D", fill=230)
    draw.text((3, frames.shape[1] - 14), "MI 0.9", fill=230)
    return np.maximum(frames, np.asarray(picture))


def doppler_box(k, shape=SHAPE):
    """Rows and columns of the color box of frame `k`: it moves."""
    top, left = shape[0] // 2 + 2 * k, shape[1] // 2 - 10
    return slice(top, top + 12), slice(left, left + 20)


def with_doppler(frames):
    """Grey frames as RGB (n, rows, columns, 3) with flow in red and blue, and a yellow mark beside the sector."""
    colors = np.repeat(frames[..., None], 3, axis=3)
    for k, picture in enumerate(colors):
        rows, columns = doppler_box(k, frames.shape[1:])
        middle = (columns.start + columns.stop) // 2
        picture[rows, columns.start : middle] = (210, 40, 10)
        picture[rows, middle : columns.stop] = (20, 60, 220)
        picture[4:10, -12:-4] = (250, 240, 30)
    return colors


def region(box, format_=1, data=1, delta_cm=(0.02, 0.03)):
    """An item of SequenceOfUltrasoundRegions over a box (top, bottom, left, right), the last of each excluded."""
    top, bottom, left, right = box
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = format_, data, 2
    item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right - 1, bottom - 1
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3
    item.PhysicalDeltaY, item.PhysicalDeltaX = delta_cm
    return item


def dataset(n, shape=SHAPE, photometric="MONOCHROME2", **attributes):
    """A header of ultrasound with everything in it that is nobody's business."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = CINE if n > 1 else STILL
    ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = (generate_uid() for _ in range(3))
    ds.Modality, ds.Manufacturer, ds.DeviceSerialNumber = "US", "Scanner", SECRETS[6]
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = *SECRETS[:3], "F"
    ds.InstitutionName, ds.ReferringPhysicianName, ds.StudyDate = SECRETS[3:6]
    ds.StudyDescription, ds.StudyID = f"liver of {SECRETS[0]}", "1"
    private = ds.private_block(0x0011, "VENDOR", create=True)
    private.add_new(0x01, "LO", SECRETS[0])
    ds.Rows, ds.Columns = shape
    ds.SamplesPerPixel = 1 if photometric.startswith(("MONO", "PALETTE")) else 3
    ds.PhotometricInterpretation = photometric
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    if ds.SamplesPerPixel == 3:
        ds.PlanarConfiguration = 0
    if n > 1:
        ds.NumberOfFrames, ds.FrameTime = str(n), "40"
        ds.FrameIncrementPointer = 0x00181063
    for name, value in attributes.items():
        setattr(ds, name, value)
    return ds


def save(path: Path, ds, pixels=None):
    """Write a dataset with an array as its pixels, or with those that it has."""
    if pixels is not None:
        ds.PixelData = np.ascontiguousarray(pixels).tobytes() + b"\0" * (pixels.nbytes % 2)
    ds["PixelData"].VR = "OB" if ds.BitsAllocated == 8 else "OW"
    ds.save_as(path, enforce_file_format=True)
    return path


def rgb_to_ybr(colors, partial=False):
    """(..., 3) uint8 by PS3.3 C.7.6.3.1.2, written here apart from what is tested."""
    r, g, b = (colors[..., k].astype(float) for k in range(3))
    y = 0.299 * r + 0.587 * g + 0.114 * b
    cb, cr = (b - y) / 1.772, (r - y) / 1.402
    ybr = [16 + y * 219 / 255, 128 + cb * 224 / 255, 128 + cr * 224 / 255] if partial else [y, 128 + cb, 128 + cr]
    return np.rint(np.clip(np.stack(ybr, axis=-1), 0, 255)).astype(np.uint8)


def halved(ybr):
    """Pixels pairwise as Y1 Y2 Cb Cr (4:2:2)."""
    pairs = ybr.reshape(*ybr.shape[:-2], -1, 2, 3).astype(float)
    chroma = np.rint(pairs[..., 1:].mean(axis=-2))
    return np.concatenate([pairs[..., 0], chroma], axis=-1).astype(np.uint8)


def write_colors(path: Path, colors, how="rgb", **attributes):
    """RGB frames (n, rows, columns, 3) uint8 in one of the ways that scanners store them."""
    n, shape = len(colors), colors.shape[1:3]
    if how == "rgb":
        return save(path, dataset(n, shape, "RGB", **attributes), colors)
    if how == "planes":
        ds = dataset(n, shape, "RGB", **attributes)
        ds.PlanarConfiguration = 1
        return save(path, ds, colors.transpose(0, 3, 1, 2))
    if how == "ybr":
        return save(path, dataset(n, shape, "YBR_FULL", **attributes), rgb_to_ybr(colors))
    if how == "ybr422":
        return save(path, dataset(n, shape, "YBR_FULL_422", **attributes), halved(rgb_to_ybr(colors)))
    if how == "partial":
        return save(path, dataset(n, shape, "YBR_PARTIAL_422", **attributes), halved(rgb_to_ybr(colors, partial=True)))
    if how == "rle":
        ds = dataset(n, shape, "RGB", **attributes)
        ds.PixelData = colors.tobytes()
        ds["PixelData"].VR = "OB"
        ds.compress(RLELossless, generate_instance_uid=False)
        return save(path, ds)
    assert how == "jpeg"
    ds = dataset(n, shape, "YBR_FULL_422", LossyImageCompression="01", **attributes)
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    frames = []
    for picture in colors:
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "JPEG", quality=95, subsampling="4:2:2")
        frames.append(stream.getvalue())
    ds.PixelData = encapsulate(frames)
    return save(path, ds)


def write_encoded(path: Path, colors, how):
    """RGB frames in encodings that are rare for ultrasound."""
    ds = dataset(len(colors), colors.shape[1:3], "RGB")
    ds.SequenceOfUltrasoundRegions = [region((0, colors.shape[1], 0, colors.shape[2]))]
    ds.PixelData = colors.tobytes()
    ds["PixelData"].VR = "OB"
    syntaxes = {"big endian": ExplicitVRBigEndian, "deflated": DeflatedExplicitVRLittleEndian,
                "implicit": ImplicitVRLittleEndian}  # fmt: skip
    ds.file_meta.TransferSyntaxUID = syntaxes.get(how, ExplicitVRLittleEndian)
    if how == "JPEG 2000":
        ds.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    save(path, ds)
    if how != "gzip":
        return path
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    return packed


def write_grey(path: Path, frames, photometric="MONOCHROME2", **attributes):
    """Grey frames (n, rows, columns) of 8 or 16 bits."""
    ds = dataset(len(frames), frames.shape[1:], photometric)
    if frames.dtype == np.uint16:
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit = 15
    for name, value in attributes.items():
        setattr(ds, name, value)
    return save(path, ds, frames)


def write_palette(path: Path, indices, table, bits=16, **attributes):
    """Frames of places in a table (entries, 3) of 8- or 16-bit values."""
    ds = dataset(len(indices), indices.shape[1:], "PALETTE COLOR", **attributes)
    if indices.dtype == np.uint16:
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit = 15
    for k, name in enumerate(("Red", "Green", "Blue")):
        values = np.ascontiguousarray(table[:, k]).astype("<u2" if bits == 16 else np.uint8)
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [len(table) % 2**16, 0, bits])
        setattr(ds, f"{name}PaletteColorLookupTableData", values.tobytes())
    return save(path, ds, indices)


def read(path: Path):
    """A written file as pydicom sees it."""
    return pydicom.dcmread(path)
