"""Damaged and hostile files, each made small, that a folder of good ones may hold: `FILES[source][name](folder)`."""

from __future__ import annotations

import gzip
import json
import resource
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless
from trees import slices, write_dicom, write_nifti, write_series

POSITION, COSINES = (-50.4, -50.4, 0.0), (1, 0, 0, 0, 1, 0)
EMPTY_MEMBER = gzip.compress(bytes(10_000_000), mtime=0)  # 10 MB of zeros in 10 kB; members follow each other in a file


def good(source: str, folder: Path) -> None:
    """Write what makes one good volume, or two images, for a source."""
    folder.mkdir(parents=True, exist_ok=True)
    if source == "nifti":
        write_nifti(folder / "good.nii.gz")
    elif source == "dicom":
        write_series(folder / "good")
    elif source == "npy":
        np.save(folder / "good.npy", slices("axial"))
    else:
        write_png(folder / "good.png", slices("axial", 1)[0] // 4)


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an 8-bit grey picture."""
    from PIL import Image

    Image.fromarray(image.astype(np.uint8)).save(path)


# --- NIfTI -----------------------------------------------------------------------------------------------------------


def header(shape: tuple[int, ...], code: int = 4, bits: int = 16) -> bytes:
    """Return a NIfTI-1 header (352 bytes) with these sizes, right or not."""
    raw = bytearray(352)
    struct.pack_into("<i", raw, 0, 348)
    struct.pack_into("<8h", raw, 40, len(shape), *shape, *(1,) * (7 - len(shape)))
    struct.pack_into("<2h", raw, 70, code, bits)
    struct.pack_into("<8f", raw, 76, 1, *(1.0,) * 7)
    struct.pack_into("<3f", raw, 108, 352, 1, 0)
    struct.pack_into("<2h", raw, 252, 1, 1)
    struct.pack_into("<12f", raw, 280, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    raw[344:348] = b"n+1\0"
    return bytes(raw)


def short_nifti(folder: Path) -> None:
    """Write the beginning of a header."""
    (folder / "bad.nii").write_bytes(header((64, 64, 5))[:200])


def short_packed(folder: Path) -> None:
    """Write the beginning of a header, in gzip."""
    (folder / "bad.nii.gz").write_bytes(gzip.compress(header((64, 64, 5))[:200]))


def huge_nifti(folder: Path) -> None:
    """Write a header that claims 20,000 voxels each way."""
    (folder / "bad.nii").write_bytes(header((20_000, 20_000, 20_000)) + bytes(1000))


def huge_packed(folder: Path) -> None:
    """Write a header that claims 20,000 voxels each way, in gzip."""
    (folder / "bad.nii.gz").write_bytes(gzip.compress(header((20_000, 20_000, 20_000)) + bytes(1000)))


def bomb_nifti(folder: Path) -> None:
    """Write 9 GB of zeros in 9 MB of gzip, as the header says."""
    members = gzip.compress(header((30_000, 30_000, 10), 2, 8), mtime=0) + EMPTY_MEMBER * 900
    (folder / "bad.nii.gz").write_bytes(members)


def negative_nifti(folder: Path) -> None:
    """Write a header with a negative size."""
    (folder / "bad.nii").write_bytes(header((64, -64, 5)) + bytes(5 * 64 * 64 * 2))


def offset_nifti(folder: Path) -> None:
    """Write a header whose voxels begin far beyond the end, at an odd place."""
    raw = bytearray(header((64, 64, 5)) + bytes(5 * 64 * 64 * 2))
    struct.pack_into("<f", raw, 108, np.nan)
    (folder / "bad.nii").write_bytes(raw)


def bomb_nrrd(folder: Path) -> None:
    """Write an NRRD of 9 GB of zeros in 9 MB of gzip."""
    text = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 30000 30000 10\nencoding: gzip\n\n"
    (folder / "bad.nrrd").write_bytes(text.encode() + EMPTY_MEMBER * 900)


def bomb_meta(folder: Path) -> None:
    """Write a MetaImage of 9 GB of zeros in 9 MB of zlib."""
    text = "ObjectType = Image\nNDims = 3\nDimSize = 30000 30000 10\nElementType = MET_UCHAR\nCompressedData = True\n"
    (folder / "bad.mha").write_bytes(f"{text}ElementDataFile = LOCAL\n".encode() + EMPTY_MEMBER * 900)


def bomb_mgh(folder: Path) -> None:
    """Write an MGH volume of 9 GB of zeros in 9 MB of gzip."""
    raw = struct.pack(">7i", 1, 30_000, 30_000, 10, 1, 0, 0).ljust(284, b"\0")
    (folder / "bad.mgz").write_bytes(gzip.compress(raw, mtime=0) + EMPTY_MEMBER * 900)


# --- NPY and pictures ------------------------------------------------------------------------------------------------


def npz_named_npy(folder: Path) -> None:
    """Write several arrays under the name of one."""
    with open(folder / "bad.npy", "wb") as file:
        np.savez(file, a=np.zeros(3))


def npy_of_shape(shape: str, descr: str = "<i2", body: bytes = b"") -> Callable[[Path], None]:
    """Return what writes an .npy header with a shape that is as it is told."""

    def write(folder: Path) -> None:
        text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        (folder / "bad.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + body)

    return write


def large_npy(folder: Path) -> None:
    """Write a whole stack of 9 GB, most of it a hole in the file."""
    npy_of_shape("(10, 30000, 30000)", "|u1")(folder)
    with open(folder / "bad.npy", "r+b") as file:
        file.truncate(128 + 9_000_000_000)


def png_of(rows: int, columns: int) -> Callable[[Path], None]:
    """Return what writes a grey picture of so many pixels, all of them black."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    def write(folder: Path) -> None:
        start = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0))
        data = chunk(b"IDAT", zlib.compress(bytes(10_000_000)))
        (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + start + data + chunk(b"IEND", b""))

    return write


def broken_png(folder: Path) -> None:
    """Write a picture that ends in the middle, its last chunk of a false kind."""
    good("image", folder)
    content = (folder / "good.png").read_bytes()
    (folder / "bad.png").write_bytes(content[:60] + bytes(40))


# --- DICOM -----------------------------------------------------------------------------------------------------------


def dicom(**tags: object) -> Callable[[Path], None]:
    """Return what writes a file of a slice with these attributes."""

    def write(folder: Path) -> None:
        uids = {"SeriesInstanceUID": "1.2.3.4", "SOPInstanceUID": "1.2.3.4.1"}
        write_dicom(folder / "bad.dcm", slices("axial", 1)[0], POSITION, COSINES, **{**uids, **tags})

    return write


def element(group: int, number: int) -> bytes:
    """Return a tag as little-endian files hold it."""
    return struct.pack("<HH", group, number)


def dicom_with(tag: bytes, old: bytes, new: bytes) -> Callable[[Path], None]:
    """Return what writes a file of a slice with other bytes after a tag."""

    def write(folder: Path) -> None:
        dicom()(folder)
        content = (folder / "bad.dcm").read_bytes()
        assert content.count(tag + old) == 1
        (folder / "bad.dcm").write_bytes(content.replace(tag + old, tag + new))

    return write


def many_frames(folder: Path) -> None:
    """Write a file of 530 kB that claims a million frames."""
    dicom(NumberOfFrames=1_000_000, PixelData=bytes(524_288))(folder)


def many_frames_packed(folder: Path) -> None:
    """Write an RLE file that claims a million frames."""
    _encapsulated(folder, 64, b"\0" * 190_000, NumberOfFrames=1_000_000)


def rle_rows(folder: Path) -> None:
    """Write an RLE file of 190 kB that claims 60,000 rows and columns."""
    run = b"\x81\0" * 47_000  # 128 zeros in two bytes
    head = struct.pack("<16I", 2, 64, 64 + len(run), *(0,) * 13)
    _encapsulated(folder, 60_000, head + run + run)


def _encapsulated(folder: Path, side: int, frame: bytes, **tags: object) -> None:
    from pydicom.encaps import encapsulate

    dicom(Rows=side, Columns=side)(folder)
    dataset = pydicom.dcmread(folder / "bad.dcm")
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.file_meta.TransferSyntaxUID = RLELossless
    dataset["PixelData"].VR = "OB"
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(folder / "bad.dcm")


def deflated(folder: Path) -> None:
    """Write a deflated file of 1.2 MB that unpacks to 1.2 GB."""
    side = 24_000
    _deflated(folder / "bad.dcm", Rows=side, Columns=side, PixelData=b"")
    content = (folder / "bad.dcm").read_bytes()
    start, end = content.index(b"DICM") + 4, len(content)
    # The dataset follows the group of the file's meta information.
    length = struct.unpack_from("<I", content, start + 8)[0]
    body = zlib.decompressobj(-15).decompress(content[start + 12 + length : end])
    pixels = body.index(element(0x7FE0, 0x0010))
    packer = zlib.compressobj(wbits=-15)
    raw = body[:pixels] + element(0x7FE0, 0x0010) + b"OW\0\0" + struct.pack("<I", side * side * 2)
    packed = packer.compress(raw)
    for _ in range(side * side * 2 // 12_000_000):
        packed += packer.compress(bytes(12_000_000))
    (folder / "bad.dcm").write_bytes(content[: start + 12 + length] + packed + packer.flush())


def _deflated(path: Path, **tags: object) -> None:
    dicom(**tags)(path.parent)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)


def packed_dicom(folder: Path) -> None:
    """Write a .dcm.gz that unpacks to 9 GB."""
    dicom()(folder)
    content = (folder / "bad.dcm").read_bytes()
    (folder / "bad.dcm").unlink()
    (folder / "bad.dcm.gz").write_bytes(gzip.compress(content) + EMPTY_MEMBER * 900)


FILES: dict[str, dict[str, Callable[[Path], None]]] = {
    "nifti": {
        "short header": short_nifti,
        "short header in gzip": short_packed,
        "20,000 voxels each way": huge_nifti,
        "20,000 voxels each way in gzip": huge_packed,
        "9 GB in gzip": bomb_nifti,
        "negative size": negative_nifti,
        "offset NaN": offset_nifti,
        "9 GB of NRRD": bomb_nrrd,
        "9 GB of MetaImage": bomb_meta,
        "9 GB of MGH": bomb_mgh,
    },
    "npy": {
        "npz": npz_named_npy,
        "9 GB, a hole": large_npy,
        "shape beyond memory": npy_of_shape("(20000, 20000, 20000)"),
        "shape beyond 64 bits": npy_of_shape("(9223372036854775807, 9223372036854775807, 8)"),
        "shape negative": npy_of_shape("(-1, 64, 64)"),
        "shape of words": npy_of_shape("('a', 64, 64)"),
        "shape unclosed": npy_of_shape("((((("),
        "type unknown": npy_of_shape("(1, 64, 64)", "zz"),
        "empty": lambda folder: (folder / "bad.npy").write_bytes(b"") and None,
    },
    "image": {
        "900 Mpixel": png_of(30_000, 30_000),
        "120 Mpixel": png_of(10_000, 12_000),
        "broken": broken_png,
    },
    "dicom": {
        "orientation of zeros": dicom(ImageOrientationPatient=[0, 0, 0, 0, 0, 0]),
        "parallel orientation": dicom(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]),
        "VR ZZ": dicom_with(element(0x0028, 0x0010), b"US", b"ZZ"),
        "Rows as LO": dicom_with(element(0x0028, 0x0010), b"US\x02\0\x40\0", b"LO\x02\0ab"),
        "frames -3": dicom(NumberOfFrames=-3),
        "a million frames": many_frames,
        "a million frames, RLE": many_frames_packed,
        "60,000 rows, RLE": rle_rows,
        "deflated": deflated,
        "9 GB in gzip": packed_dicom,
        "16 bit named 7": dicom(BitsAllocated=7),
        "samples per pixel -1": dicom_with(element(0x0028, 0x0002), b"US\x02\0\x01\0", b"SS\x02\0\xff\xff"),
        "position of words": dicom_with(element(0x0020, 0x0032), b"DS", b"LO"),
    },
}  # fmt: skip


# --- what is made of them --------------------------------------------------------------------------------------------


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the bytes of a file with one to eight faults: bits, extreme numbers, pieces lost, doubled, or cut off."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        # Headers are short and say most: half of the faults are in the first kilobyte.
        place = int(rng.integers(0, max(1, min(len(changed), 1024 if rng.random() < 0.5 else len(changed)))))
        length = int(rng.integers(1, 64))
        fault = int(rng.integers(6))
        if fault == 0 and changed:
            changed[place] ^= 1 << int(rng.integers(8))
        elif fault == 1:
            changed[place : place + length] = rng.bytes(length)
        elif fault == 2:
            extreme = (b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff\xff", b"\0\0\0\0", b"\0\0\xc0\x7f", b"\xff" * 8)
            number = extreme[int(rng.integers(len(extreme)))]
            changed[place : place + len(number)] = number
        elif fault == 3:
            del changed[place : place + length]
        elif fault == 4:
            changed[place:place] = changed[place : place + length]
        else:
            del changed[place + len(changed) // 2 :]
    return bytes(changed)


def write_mutated(source: str, folder: Path, count: int, seed: int) -> None:
    """Write files with seeded faults beside the good ones."""
    suffix, rng = (
        {"nifti": ".nii", "dicom": ".dcm", "npy": ".npy", "image": ".png"}[source],
        np.random.default_rng(seed),
    )
    for number in range(count):
        with tempfile.TemporaryDirectory() as scratch:
            if source == "dicom":
                dicom(SeriesInstanceUID=f"1.2.3.{number}", SOPInstanceUID=f"1.2.3.{number}.1")(Path(scratch))
            elif source == "nifti":
                write_nifti(Path(scratch) / ("a.nii" if number % 2 else "a.nii.gz"), shape=(60, 60, 12))
            elif source == "npy":
                np.save(Path(scratch) / "a.npy", slices("coronal"))
            else:
                write_png(Path(scratch) / "a.png", slices("coronal", 1)[0] // 4)
            (file,) = Path(scratch).iterdir()
            packed = ".gz" if file.name.endswith(".gz") else ""
            (folder / f"bad{number:05d}{suffix}{packed}").write_bytes(mutated(file.read_bytes(), rng))


def look(source: str, folder: Path) -> dict[str, object]:
    """Return what `inspect` and the plan of a build make of a folder, and the largest memory so far in bytes."""
    from datagen import Recipe
    from datagen.plan.samples import make_plan
    from datagen.sources.inspect import inspect

    found = inspect(folder)
    recipe = Recipe(source=source, root=str(folder), probes="L11-5v", size=32, every=3, patches=False, min_tissue=0.02)
    plan = make_plan(recipe.resolve("cpu"))
    return {
        "skipped": [f"{path}: {reason}" for reason, _, path in found.skipped],
        "built": sorted({sample.ref.name for sample in plan.samples}),
        "set aside": [*plan.notes, *(f"{volume}: {reason}" for volume, reason in plan.unreadable)],
        "peak": peak_memory(),
    }


def peak_memory() -> int:
    """Return the largest memory of this program so far, bytes: `ru_maxrss` begins at that of the one that started it."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(source: str, count: int, seed: int) -> None:
    """Print what is made of each hostile file of a source, or of so many mutated ones in one folder: a line of JSON each."""
    limit = 6 << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for name in list(FILES[source]) if not count else ["mutated"]:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "in"
            good(source, root)
            if count:
                write_mutated(source, root, count, seed)
            else:
                FILES[source][name](root)
            print(json.dumps({"name": name, **look(source, root)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
