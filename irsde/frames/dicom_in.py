"""DICOM ultrasound: frames of any color model and compression pydicom decodes, one after the other."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ussim.errors import DataError
from ussim.volumes.dicom_headers import missing_decoder, not_an_image, read_header, unpacked

from .color import ybr_partial_to_rgb
from .regions import read_regions
from .source import Picture, Source

SECTIONS = ("MR", "CT", "PT", "NM")  # modalities of slices through a body, which `datagen` reads as volumes
PALETTE = "PaletteColorLookupTable"


def is_clinical(path: Path) -> bool:
    """Tell a DICOM file of pictures as a screen shows them from slices through a body.

    Raises
    ------
    DataError
        The file is no DICOM, or its header cannot be read.
    """
    header = _short_header(path)
    modality = str(header.get("Modality") or "")
    grey = str(header.get("PhotometricInterpretation") or "MONOCHROME2").startswith("MONOCHROME")
    if modality in SECTIONS and grey:
        return False
    return bool(modality) or not grey or "ImageOrientationPatient" not in header


def open_dicom(path: Path) -> Source:
    """Read the header of a file; its pixels are read as frames are asked for.

    Raises
    ------
    DataError
        The file is damaged, encrypted, holds no image, or its compression has no decoder here.
    """
    header = _header(path)
    shape = int(header.Rows), int(header.Columns)
    n_frames = _positive(header, "NumberOfFrames") or 1
    regions, notes = read_regions(header, shape)
    photometric = str(header.get("PhotometricInterpretation") or "MONOCHROME2")
    stored = int(header.get("BitsStored") or header.get("BitsAllocated") or 8)
    low = -(2.0 ** (stored - 1)) if header.get("PixelRepresentation") else 0.0
    slope, intercept = _number(header, "RescaleSlope") or 1.0, _number(header, "RescaleIntercept") or 0.0
    ends = sorted(slope * value + intercept for value in (low, low + 2.0**stored - 1))
    show = _palette(header, path) if _has_palette(header) else partial(_grey, header, ends, (slope, intercept))
    return Source(
        name=str(path),
        n_frames=n_frames,
        shape=shape,
        decode=partial(_decode, path, n_frames, photometric, header.file_meta.TransferSyntaxUID, header.is_bare, show),
        full_range=(ends[0], ends[1])
        if photometric.startswith("MONOCHROME") and not _has_palette(header)
        else (0.0, 255.0),
        bits=16 if photometric.startswith("MONOCHROME") and stored > 8 else 8,
        stated_window=_window(header),
        regions=regions,
        pixel_size=_spacing(header),
        frame_time=_frame_time(header),
        header=header,
        notes=tuple(notes),
    )


def _short_header(path: Path) -> Any:
    header = read_header(path)
    if header is None:
        raise DataError(f"{path}: expected a DICOM file, got one that cannot be read: damaged or encrypted")
    return header


def _header(path: Path) -> Any:
    """All attributes but the pixels, once it is sure that there are some and that they can be decoded."""
    import pydicom
    from pydicom.uid import ImplicitVRLittleEndian

    with _quiet():
        try:
            with open(path, "rb"):
                header = pydicom.dcmread(unpacked(path), stop_before_pixels=True, force=True)
            header.decode()  # text in the file's character set
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from None
        except Exception as error:  # pydicom raises many kinds on damaged headers
            raise DataError(f"{path}: damaged DICOM header: {' '.join(str(error).split())}") from None
        header.is_bare = "TransferSyntaxUID" not in header.file_meta
        if header.is_bare:
            header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        nothing = not_an_image(_short_header(path), secondary_captures=True)
        if nothing and "EncryptedAttributesSequence" in header:
            nothing = "encrypted attributes: decrypt the file first"
        missing = "" if nothing else missing_decoder(header)
    if nothing:
        raise DataError(f"{path}: expected an image, got {nothing}")
    if missing:
        raise DataError(f"{path}: {missing}")
    return header


def _decode(
    path: Path, n_frames: int, photometric: str, syntax: Any, is_bare: bool, show: Any, indices: Iterable[int]
) -> Iterator[Picture]:
    """Frames of some indices, decoded as they are asked for from a file that stays on the disk.

    `is_bare`: the file does not say its transfer syntax, which is `syntax`.
    """
    from pydicom.pixels import iter_pixels

    is_compressed = syntax.is_compressed and not syntax.is_deflated
    is_partial = (
        photometric.startswith("YBR_PARTIAL") and not is_compressed
    )  # JPEG has the full range, whatever it says
    wanted = list(indices)
    options: dict[str, Any] = {"number_of_frames": n_frames, "raw": is_partial}
    if photometric.startswith("YBR_PARTIAL"):  # retired, and laid out as YBR_FULL_422
        options["photometric_interpretation"] = "YBR_FULL_422"
    content = _dataset(path, syntax) if is_bare or syntax.is_deflated else unpacked(path)
    # After the first native frame of halved chroma pydicom takes the next ones for whole: each is asked for by itself.
    halved = photometric.endswith("422") and not is_compressed
    parts = [[index] for index in wanted] if halved else [wanted]
    frames = chain.from_iterable(iter_pixels(content, indices=part, **options) for part in parts)
    for index in wanted:
        with _quiet():
            try:
                frame = next(frames)
            except StopIteration:
                raise DataError(f"{path}: expected {n_frames} frames, found {index}: the file is cut short") from None
            except OSError as error:
                raise DataError(f"{path}: {error.strerror or error}") from None
            except Exception as error:  # pydicom and its plug-ins raise many kinds on damaged pixel data
                why = " ".join(str(error).split())
                raise DataError(f"{path}: frame {index} of {n_frames} cannot be decoded: {why}") from None
        frame = frame.astype(frame.dtype.newbyteorder("="), copy=False)
        if frame.ndim == 3:
            frame = frame[..., :3] if frame.dtype == np.uint8 else (frame[..., :3] >> 8).astype(np.uint8)
            yield ybr_partial_to_rgb(frame) if is_partial else frame
        else:
            yield show(frame)


def _dataset(path: Path, syntax: Any) -> Any:
    """Return the whole file, where pydicom cannot find the pixels in it by itself."""
    import pydicom

    with _quiet():
        dataset = pydicom.dcmread(unpacked(path), force=True)
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def _grey(header: Any, ends: list[float], scale: tuple[float, float], stored: NDArray[Any]) -> NDArray[Any]:
    """Grey values of stored ones: rescaled as the header says, white bright."""
    if scale != (1.0, 0.0):
        stored = stored.astype(np.float32) * np.float32(scale[0]) + np.float32(scale[1])
    if str(header.get("PhotometricInterpretation")) == "MONOCHROME1":
        return (ends[0] + ends[1] - stored).astype(stored.dtype)
    return stored


def _has_palette(header: Any) -> bool:
    """Tell whether stored values are places in a table of colors; of MONOCHROME2 the upper ones only."""
    return str(header.get("PhotometricInterpretation")) == "PALETTE COLOR" or (
        str(header.get("PixelPresentation")) in ("COLOR", "MIXED") and f"Red{PALETTE}Descriptor" in header
    )


def _palette(header: Any, path: Path) -> Any:
    """Return a function that gives stored values the colors of the file's table, in 8 bits."""
    from pydicom import Dataset
    from pydicom.pixels import apply_color_lut

    table = Dataset()  # without what makes pydicom refuse tables for the upper values alone
    for name in ("Red", "Green", "Blue"):
        for attribute in (f"{name}{PALETTE}Descriptor", f"{name}{PALETTE}Data", f"Segmented{name}{PALETTE}Data"):
            if attribute in header:
                table[attribute] = header[attribute]
    table.file_meta = header.file_meta
    try:
        with _quiet():
            first = int(table[f"Red{PALETTE}Descriptor"].value[1])
            largest = int(apply_color_lut(np.arange(first, first + 2**16), table)[..., :3].max())
    except Exception as error:  # a table that is missing, or has another length than it says
        raise DataError(f"{path}: the palette cannot be read: {' '.join(str(error).split())}") from None
    supplemental = str(header.get("PhotometricInterpretation")) != "PALETTE COLOR"

    def colors(stored: NDArray[Any]) -> NDArray[np.uint8]:
        rgb = apply_color_lut(stored, table)[..., :3]
        rgb = (rgb if largest < 256 else rgb >> 8).astype(np.uint8)
        if not supplemental:
            return rgb
        grey = np.rint(np.clip(stored / max(first - 1, 1), 0, 1) * 255).astype(np.uint8)
        return np.where((stored < first)[..., None], grey[..., None], rgb)

    return colors


def _window(header: Any) -> tuple[float, float] | None:
    """Values that the file's first window shows as black and white (PS3.3 C.11.2.1.2)."""
    try:
        center, width = (float(np.atleast_1d(header.get(name))[0]) for name in ("WindowCenter", "WindowWidth"))
    except (TypeError, ValueError):
        return None
    if str(header.get("VOILUTFunction") or "LINEAR") == "LINEAR":
        center, width = center - 0.5, width - 1
    return (center - width / 2, center + width / 2) if np.isfinite(center) and 0 < width < np.inf else None


def _spacing(header: Any) -> tuple[float, float] | None:
    """PixelSpacing, else the pixel size in mm that a secondary capture names."""
    for name in ("PixelSpacing", "NominalScannedPixelSpacing"):
        try:
            row, column = (float(value) for value in header.get(name))
        except (TypeError, ValueError):
            continue
        if 0 < row < np.inf and 0 < column < np.inf:
            return row, column
    return None


def _frame_time(header: Any) -> float | None:
    """Seconds between frames: their own number, else the first of a list, else a rate."""
    milliseconds = _number(header, "FrameTime")
    if milliseconds:
        return milliseconds / 1e3
    try:
        vector = [float(value) for value in np.atleast_1d(header.get("FrameTimeVector"))]
    except (TypeError, ValueError):
        vector = []
    if len(vector) > 1 and vector[1] > 0:
        return vector[1] / 1e3
    rate = _number(header, "CineRate") or _number(header, "RecommendedDisplayFrameRate")
    return 1 / rate if rate else None


def _number(header: Any, name: str) -> float:
    """Return a number that is not 0, or 0.0 where there is none."""
    try:
        value = float(header.get(name))
    except (TypeError, ValueError):
        return 0.0
    return value if np.isfinite(value) else 0.0


def _positive(header: Any, name: str) -> int:
    """Return a count, also one that was stored as text; 0 where there is none."""
    return max(0, int(_number(header, name)))


def _quiet() -> warnings.catch_warnings:  # type: ignore[type-arg]
    """Without pydicom's warnings about values that do not matter here."""
    return warnings.catch_warnings(action="ignore")
