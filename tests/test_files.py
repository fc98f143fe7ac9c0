"""Files of every kind that a folder may hold: the same volume whatever the format, and what is said of the others."""

from __future__ import annotations

import gzip
import re
import shutil
import zlib
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import trees

from datagen.sources import Selection, get_source
from datagen.sources.inspect import inspect
from ussim.errors import DataError
from ussim.volumes.reading import open_volume

SPACING = (2.0, 3.0, 5.0)
ORIGIN = (-11.0, 7.0, 20.0)
AFFINE = np.array([[0, 0, -5.0, ORIGIN[0]], [2.0, 0, 0, ORIGIN[1]], [0, 3.0, 0, ORIGIN[2]], [0, 0, 0, 1]])


def voxels() -> np.ndarray:
    """A block with unlike sides, unlike corners, and one marked corner."""
    values = np.random.default_rng(3).integers(1, 900, (5, 7, 9)).astype(np.int16)
    values[0, 0, 0] = 2000
    return values


def lps(affine: np.ndarray) -> np.ndarray:
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def write_pair(path: Path, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Pair(voxels(), affine), path)
    return path


def write_mgh(path: Path) -> Path:
    nib.save(nib.MGHImage(voxels(), AFFINE), path)
    return path


def write_nrrd(path: Path, space: str = "left-posterior-superior", **options: str) -> Path:
    affine = lps(AFFINE) if space.startswith("left-posterior") else AFFINE
    header = {"space": space, "space directions": affine[:3, :3].T, "space origin": affine[:3, 3], **options}
    nrrd.write(str(path), voxels(), header)
    return path


def write_meta(path: Path, packed: bool = False, order: str = "<", data: str = "LOCAL") -> Path:
    affine = lps(AFFINE)
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    rows = (affine[:3, :3] / steps).T.ravel()
    content = voxels().astype(order + "i2").tobytes(order="F")
    content = zlib.compress(content) if packed else content
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\n"
        f"BinaryDataByteOrderMSB = {order == '>'}\nCompressedData = {packed}\n"
        f"TransformMatrix = {' '.join(map(str, rows))}\nOffset = {' '.join(map(str, affine[:3, 3]))}\n"
        f"ElementSpacing = {' '.join(map(str, steps))}\nDimSize = 5 7 9\nElementType = MET_SHORT\n"
        f"ElementDataFile = {data}\n"
    )
    path.write_bytes(header.encode() + (content if data == "LOCAL" else b""))
    if data != "LOCAL":
        (path.parent / data).write_bytes(content)
    return path


def pack(path: Path) -> Path:
    """Gzip a file, or both of a pair, in place."""
    both = [path] if path.suffix != ".hdr" else [path, path.with_suffix(".img")]
    for file in both:
        with gzip.open(f"{file}.gz", "wb") as stream:
            stream.write(file.read_bytes())
        file.unlink()
    return path.with_name(path.name + ".gz")


WRITERS = {
    "pair.hdr": write_pair,
    "pair.img": lambda path: write_pair(path.with_suffix(".hdr")).with_suffix(".img"),
    "pair.hdr.gz": lambda path: pack(write_pair(path.with_suffix(""))),
    "v.mgh": write_mgh,
    "v.mgz": write_mgh,
    "v.nrrd": write_nrrd,
    "raw.nrrd": lambda path: write_nrrd(path, encoding="raw"),
    "text.nrrd": lambda path: write_nrrd(path, encoding="ascii"),
    "ras.nrrd": lambda path: write_nrrd(path, "right-anterior-superior"),
    "v.nhdr": write_nrrd,
    "v.mha": write_meta,
    "zip.mha": lambda path: write_meta(path, packed=True),
    "big.mha": lambda path: write_meta(path, order=">"),
    "v.mhd": lambda path: write_meta(path, data="v.raw"),
    "img.mhd": lambda path: write_meta(path, data="img.img"),
    "zip.mhd": lambda path: write_meta(path, packed=True, data="zip.zraw"),
}


@pytest.fixture
def nifti(tmp_path: Path) -> Path:
    folder = tmp_path / "reference"
    folder.mkdir()
    nib.save(nib.Nifti1Image(voxels(), AFFINE), folder / "v.nii")
    return folder / "v.nii"


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_volume_of_its_nifti(name: str, nifti: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kim"
    folder.mkdir()
    path = WRITERS[name](folder / name)
    expected = open_volume(nifti)
    source = get_source("nifti")
    found = source.find(folder)
    assert len(found) == 1, found.refs
    assert not found.skipped
    for volume in (open_volume(path), source.load(found[0])):
        assert np.array_equal(volume.voxels, expected.voxels)
        assert volume.voxels[-1, 0, 0] == 2000  # the marked corner: Right, Posterior, Inferior
        np.testing.assert_allclose(volume.spacing, (5.0, 2.0, 3.0), rtol=1e-6)
        np.testing.assert_allclose(volume.file_affine, AFFINE, atol=1e-4)  # NIfTI keeps float32
        assert volume.notes == expected.notes


def test_analyze_is_read_with_its_sizes_and_says_that_sides_are_a_guess(tmp_path: Path) -> None:
    image = nib.AnalyzeImage(voxels(), None)
    image.header.set_zooms(SPACING)
    nib.save(image, tmp_path / "v.hdr")
    found = get_source("nifti").find(tmp_path)
    assert len(found) == 1
    volume = open_volume(tmp_path / "v.hdr")
    assert np.array_equal(volume.voxels, voxels()[::-1])  # stored Left to Right by the format's custom
    assert volume.spacing == SPACING
    assert any("Analyze says nothing of orientation" in note for note in volume.notes)


def test_sizes_alone_are_read_and_frames_counted(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "v.nrrd"), voxels(), {"spacings": np.array(SPACING)})
    volume = open_volume(tmp_path / "v.nrrd")
    assert np.array_equal(volume.voxels, voxels())
    assert volume.spacing == SPACING
    assert any("no orientation" in note for note in volume.notes)
    rows = np.vstack([[np.nan] * 3, np.diag(SPACING)])
    frames = np.stack([voxels(), voxels() + 1])
    header = {"space": "RAS", "kinds": ["list", "domain", "domain", "domain"], "space directions": rows}
    nrrd.write(str(tmp_path / "v.nrrd"), frames, header)
    volume = open_volume(tmp_path / "v.nrrd")
    assert np.array_equal(volume.voxels, voxels())
    assert any("2 frames" in note for note in volume.notes)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("keep", [0, 3, 0.5, 0.9])
def test_a_cut_file_is_one_line(name: str, keep: float, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    largest = max(tmp_path.iterdir(), key=lambda file: file.stat().st_size)
    content = largest.read_bytes()
    largest.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(DataError, match=r"damaged|cut short|ended before|cannot be read|not an MGH") as error:
        open_volume(tmp_path / name)
    assert name.partition(".")[0] in str(error.value)
    assert re.search(r": \S[^:]*$", str(error.value))  # it ends with a reason
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", WRITERS)
def test_a_header_of_noise_is_skipped_with_its_reason(name: str, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path / name)
    trees.write_nifti(tmp_path / "good.nii")
    path = path if not name.endswith(".img") else path.with_suffix(".hdr")
    path.write_bytes(np.random.default_rng(1).bytes(400))
    found = get_source("nifti").find(tmp_path)
    assert [ref.name for ref in found] == ["good"]
    assert {Path(item.path).name for item in found.skipped} >= {path.name}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("DimSize = 5 7 9", "DimSize = 5 7 -9", "DimSize"),
        ("DimSize = 5 7 9", "DimSize = 50000 70000 90000", "cut short"),
        ("MET_SHORT", "MET_SHORT_ARRAY", "grey values"),
        ("LOCAL", "../v.raw", "outside"),
        ("LOCAL", "absent.raw", "not there"),
        ("ElementDataFile", "Nothing", "no ElementDataFile"),
        ("ElementSpacing = 2.0", "ElementSpacing = inf", "elementspacing"),
    ],
)
def test_a_false_header_of_metaimage(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = write_meta(tmp_path / "v.mha")
    assert old.encode() in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    with pytest.raises(DataError, match=message):
        open_volume(path)


def test_a_pair_is_named_by_its_header(tmp_path: Path) -> None:
    write_pair(tmp_path / "PAT01_T1.hdr")
    write_meta(tmp_path / "PAT02_T1.mhd", data="voxels.raw")
    table = tmp_path / "who.csv"
    table.write_text("file,subject\nPAT01_T1.hdr,a\nPAT02_T1.mhd,b\n")
    by = {None: "by the file's name without sequence, visit or copy mark", str(table): "by --subjects who.csv"}
    for subjects, expected in ((None, ["PAT01", "PAT02"]), (str(table), ["a", "b"])):
        found = get_source("nifti", Selection(subjects)).find(tmp_path)
        assert [ref.subject for ref in found] == expected
        shown = f"PAT01_T1.hdr -> {expected[0]}, PAT02_T1.mhd -> {expected[1]}"
        assert found.subjects == (f"{by[subjects]}, 2 files: {shown}",)
    alone = get_source("nifti").find(tmp_path / "PAT01_T1.img")
    assert [(ref.name, ref.subject) for ref in alone] == [("PAT01_T1", "PAT01")]


@pytest.mark.parametrize("name", ["pair.hdr", "pair.img"])
def test_half_of_a_pair_names_the_other(name: str, tmp_path: Path) -> None:
    write_pair(tmp_path / "pair.hdr")
    next(file for file in tmp_path.iterdir() if file.name != name).unlink()
    with pytest.raises(DataError, match="one of a pair"):
        open_volume(tmp_path / name)


def test_dicom_in_gzip_is_the_same_series(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    trees.write_series(folder)
    packed = tmp_path / "packed"
    packed.mkdir()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            shutil.copy(file, packed / file.name)
            pack(packed / file.name)
    expected, volume = (open_volume(path) for path in (folder, packed))
    assert np.array_equal(volume.voxels, expected.voxels)
    assert volume.spacing == expected.spacing
    assert inspect(packed).source == "dicom"
    first = sorted(packed.iterdir())[0]
    assert open_volume(first).voxels.shape[:2] == expected.voxels.shape[:2]
    first.write_bytes(first.read_bytes()[:40])
    found = get_source("dicom").find(packed)
    assert [item.path for item in found.skipped] == [first.name]


@pytest.mark.parametrize(("degrees", "planes"), [(0.0, 3), (0.3, 3), (15.0, 1), (-20.0, 1)])
@pytest.mark.parametrize("plane", ["axial", "coronal"])
def test_a_tilted_gantry_leaves_the_acquired_plane(degrees: float, planes: int, plane: str, tmp_path: Path) -> None:
    cosines = np.array(trees.COSINES[plane], float)
    normal, down = np.cross(cosines[:3], cosines[3:]), cosines[3:]
    shift = 6.0 * np.tan(np.radians(degrees))

    def position(index: int) -> list[float]:
        return [float(value) for value in -40 * cosines[:3] + (shift * index - 40) * down + 6.0 * index * normal]

    trees.write_series(tmp_path, plane, n_slices=8, Modality="CT", ImagePositionPatient=position)
    volume = open_volume(tmp_path)
    assert len(volume.planes()) == planes
    assert plane in volume.planes()
    assert any("tilted gantry" in note for note in volume.notes) == (planes == 1)
    image, pixel = volume.slice(plane, 0)
    assert image.shape == (64, 64)
    assert pixel == (1.6, 1.6)
    # From index to place: the last slice lies where its file says, with its shift.
    if planes == 1:
        step = np.linalg.norm(volume.file_affine[:3, 2])
        assert step == pytest.approx(6.0 / np.cos(np.radians(degrees)), rel=1e-5)  # positions have 6 decimals
        with pytest.raises(DataError, match="no 'sagittal' plane"):
            volume.slice("sagittal", 0)


def test_a_folder_without_images_is_listed_by_kind(tmp_path: Path) -> None:
    for name in ("a.xml", "b.XML", "c.txt", "README", "MR.1.3.12", "d.csv.gz"):
        (tmp_path / name).write_text("words")
    with pytest.raises(DataError) as error:
        inspect(tmp_path)
    message = str(error.value)
    assert "no MRI found in 6 files (2 .xml, 2 without suffix, 1 .csv.gz, 1 .txt)" in message
    assert "\n" not in message
    (tmp_path / "scan.mha").write_text("words")
    with pytest.raises(DataError, match=r"1 skipped, the first: scan.mha: damaged MetaImage header"):
        inspect(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no file in it"):
        inspect(tmp_path / "none")


def test_hints_quote_paths_with_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    from datagen.cli import _print_summary
    from datagen.make.build import Summary

    fields = dict.fromkeys(Summary.__dataclass_fields__, 0) | {"probes": (), "set_aside": (), "skipped": {}}
    fields |= {"url": "my store", "unreadable": (), "notes": ()}
    _print_summary(Summary(**fields), [], "my store")
    assert "next: datagen verify 'my store'" in capsys.readouterr().out
