"""Headers of DICOM files: read without the pixels, what speaks against an image, and the frames that they describe.

Classic files (one slice each) and multi-frame ones (enhanced MR: geometry in per-frame functional groups) are both
turned into `Frame`s. Attribute names are those of DICOM PS3.3. Nothing personal is kept.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import DataError
from .anatomy import GE_IMAGE_KIND, derived_by_header, derived_by_type
from .budget import check_unpacked
from .dicom_checks import check_deflated, directions
from .grouping import PHASE_KEYS, Frame
from .montage import TAGS as _MONTAGE_TAGS
from .montage import WORDS, Montage, NotCut, montage_of, word_of
from .values import finite, finite_or_none, floats, positive, positive_pair

# Read from a header; everything else in the file is left alone.
_TAGS = (
    "SOPClassUID SOPInstanceUID Modality ImageType SeriesDescription PatientID StudyInstanceUID SeriesInstanceUID "
    "InstanceNumber SeriesNumber SliceLocation ConcatenationUID ConcatenationFrameOffsetNumber "
    "ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness SpacingBetweenSlices "
    "Rows Columns BitsAllocated NumberOfFrames SamplesPerPixel PhotometricInterpretation BurnedInAnnotation EchoTime "
    "EchoNumbers TemporalPositionIdentifier AcquisitionNumber DiffusionBValue TriggerTime InversionTime FlipAngle "
    "AcquisitionTime ContentTime RescaleSlope RescaleIntercept SharedFunctionalGroupsSequence "
    "PerFrameFunctionalGroupsSequence PlanePositionSequence PlaneOrientationSequence PixelMeasuresSequence "
    "PixelValueTransformationSequence MRImageFrameTypeSequence CTImageFrameTypeSequence FrameType FrameContentSequence "
    "TemporalPositionIndex "
    "ComplexImageComponent FrameAcquisitionNumber MREchoSequence EffectiveEchoTime MRDiffusionSequence"
)
_READ: list[Any] = [*_TAGS.split(), GE_IMAGE_KIND]
_NOT_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.7": "secondary capture",
    "1.2.840.10008.5.1.4.1.1.66.4": "segmentation",
    "1.2.840.10008.5.1.4.1.1.66.5": "surface segmentation",
    "1.2.840.10008.5.1.4.1.1.66.6": "tractography",
    "1.2.840.10008.5.1.4.1.1.66.1": "spatial registration",
    "1.2.840.10008.5.1.4.1.1.66.3": "spatial registration",
    "1.2.840.10008.5.1.4.1.1.66": "raw data",
    "1.2.840.10008.5.1.4.1.1.4.2": "spectroscopy",
    "1.2.840.10008.5.1.4.1.1.481": "radiotherapy object",
    "1.3.12.2.1107.5.9.1": "raw data (Siemens CSA non-image)",
    "1.2.840.10008.5.1.4.1.1.11": "presentation state",
    "1.2.840.10008.5.1.4.1.1.88": "structured report",
    "1.2.840.10008.5.1.4.1.1.104": "encapsulated document",
    "1.2.840.10008.1.3.10": "DICOMDIR",
}
_FIRST_GROUPS = (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08")  # 2 or 8, in either byte order
_UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")  # implicit, explicit, big-endian
_LOCALIZERS = ("localizer", "localiser", "scout", "survey", "3 plane loc", "3-plane loc", "3plane loc", "plane_loc")


def read_header(path: str | os.PathLike[str]) -> Any | None:
    """Return the attributes that sorting needs, as a pydicom Dataset; None where the file is not DICOM."""
    from pydicom.errors import InvalidDicomError

    with quiet():
        try:
            return _header(path)
        except (InvalidDicomError, EOFError):
            # Files written without the 128-byte preamble are common; other files read as nonsense or not at all.
            if not _starts_like_a_dataset(path):
                return None
            try:
                header = _header(path, force=True)
                return header if "SOPClassUID" in header and "Rows" in header else None
            except Exception:  # whatever a non-DICOM file provokes in the parser
                return None
        except DataError:
            raise
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from None
        except Exception:  # pydicom raises many kinds on damaged headers
            return None


def _header(path: str | os.PathLike[str], force: bool = False) -> Any:
    """Return the attributes as pydicom reads them.

    `lacks_pixels`: no pixels follow, `is_cut_short`: fewer than there should be.
    """
    import pydicom

    content = unpacked(path)
    check_deflated(path, os.fspath(path))
    with content if isinstance(content, io.BytesIO) else open(path, "rb") as file:
        header = _settled(pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_READ, force=force))
        if word_of(header):
            file.seek(0)
            wanted = [*_READ, *_MONTAGE_TAGS]
            header = _settled(pydicom.dcmread(file, stop_before_pixels=True, specific_tags=wanted, force=force))
        # The parser stops at the pixels' tag (7FE0,...), in either byte order. A deflated file is unpacked elsewhere.
        syntax = header.file_meta.get("TransferSyntaxUID")
        is_deflated = syntax is not None and not syntax.is_private and syntax.is_transfer_syntax and syntax.is_deflated
        start = file.tell()
        header.lacks_pixels = not is_deflated and file.read(2) not in (b"\xe0\x7f", b"\x7f\xe0")
        left = file.seek(0, io.SEEK_END) - start
    header.is_cut_short = syntax in (None, *_UNCOMPRESSED) and left < _size_of_pixels(header)
    return header


def _size_of_pixels(header: Any) -> int:
    """Bytes that the pixels of an uncompressed file take, at least."""
    try:
        numbers = [int(header.get(name) or 1) for name in ("NumberOfFrames", "SamplesPerPixel")]
        return (
            math.prod([*numbers, *(int(header.get(name) or 0) for name in ("Rows", "Columns", "BitsAllocated"))]) // 8
        )
    except (TypeError, ValueError):
        return 0


def unpacked(path: str | os.PathLike[str]) -> Any:
    """Return what pydicom reads: the path, or the content of a gzip file that holds DICOM (.dcm.gz)."""
    if not os.fspath(path).lower().endswith(".gz"):
        return path
    try:
        with open(path, "rb") as raw:
            if raw.read(2) != b"\x1f\x8b":
                return path
        with gzip.open(path) as file:
            start = file.read(132)
            if start[128:] != b"DICM" and start[:2] not in _FIRST_GROUPS:
                return io.BytesIO(start)
            count = len(start)
            while piece := file.read(1 << 20):
                check_unpacked(os.fspath(path), count := count + len(piece))
            file.seek(0)
            return io.BytesIO(file.read())
    except (EOFError, gzip.BadGzipFile, zlib.error):  # cut short: no file of DICOM
        return io.BytesIO()


def _starts_like_a_dataset(path: str | os.PathLike[str]) -> bool:
    """Return True where the first tag is of group 2 or 8, in either byte order, as in files without a preamble."""
    content = unpacked(path)
    with content if isinstance(content, io.BytesIO) else open(path, "rb") as file:
        group_number = file.read(2)
    return group_number in _FIRST_GROUPS


def _settled(header: Any) -> Any:
    """Convert every value now, where warnings are silenced, and drop those that cannot be: nothing is left to warn."""
    for tag in list(header.keys()):
        try:
            element = header[tag]
        except Exception:  # pydicom raises many kinds on values that break their type's rules
            del header[tag]
            continue
        for item in element.value if element.VR == "SQ" else ():
            _settled(item)
        if element.VR == "IS" and isinstance(element.value, str):  # no whole number, kept as it was found
            del header[tag]
    return header


def not_an_image(header: Any, secondary_captures: bool = False) -> str:
    """Return what a file of DICOM holds in place of an image, or "" where it holds one; of a `read_header`."""
    sop_class = str(header.get("SOPClassUID", ""))
    for prefix, what in _NOT_IMAGES.items():
        is_this = sop_class == prefix or sop_class.startswith(prefix + ".")
        if is_this and not (secondary_captures and what == "secondary capture"):
            return what
    if not header.get("Rows") or not header.get("Columns"):
        return "no image in it"
    return "a header without pixels" if getattr(header, "lacks_pixels", False) else ""


def why_not(header: Any, include_derived: bool = False) -> str:
    """Return why an image is not used, or "" where it is."""
    nothing = not_an_image(header)
    if nothing:
        return nothing
    modality = str(header.get("Modality") or "MR")
    if modality not in ("MR", "CT"):
        return f"modality {modality}, expected MR"
    photometric = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
    if int(header.get("SamplesPerPixel") or 1) > 1 or not photometric.startswith("MONOCHROME"):
        return f"color ({photometric})"
    image_type = _image_type(header)
    description = str(header.get("SeriesDescription", "")).lower()
    if uncut := why_uncut(header):
        return f"{uncut}; convert it to single slices (dcm2niix)"
    if "LOCALIZER" in image_type or any(word in description for word in _LOCALIZERS):
        return "localizer"
    return ("" if include_derived else derived_by_header(header)) or missing_decoder(header)


def why_uncut(header: Any) -> str:
    """Return why a montage is not cut into its slices, or ""."""
    try:
        montage_of(header)
    except NotCut as error:
        word = word_of(header)
        return (
            f"montage of slices tiled in one picture ({WORDS[word]} {word}) that its tags do not allow to cut: {error}"
        )
    return ""


def missing_decoder(header: Any) -> str:
    """Return what is needed to decompress the file, or "" where nothing is missing."""
    syntax = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is None:
        return ""
    if not syntax.is_transfer_syntax:  # a maker's own, or another UID by mistake
        return f"transfer syntax {syntax} cannot be decoded here; convert the files (dcmconv, gdcmconv --raw)"
    if not syntax.is_compressed or syntax.is_deflated:
        return ""
    from pydicom.pixels.decoders.base import get_decoder

    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return f"compression {syntax.name} cannot be decoded here; convert the files (dcmdjpeg, gdcmconv --raw)"
    if decoder.is_available:
        return ""
    return f"compression {syntax.name} needs a decoder that is not installed: pip install python-gdcm"


def _image_type(header: Any) -> list[str]:
    value = header.get("ImageType") or []
    return [str(item).upper() for item in ([value] if isinstance(value, str) else value)]


def frames_of(header: Any, path: str) -> list[Frame]:
    """Return the frames of one file with what functional groups, shared or their own, say of each."""
    montage = montage_or_none(header)
    tiles = montage.positions if montage else ()
    count = int(header.get("NumberOfFrames") or 1)
    several = count > 1
    count = len(tiles) or count
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
    frames = []
    for index in range(count):
        own = per_frame[index] if index < len(per_frame) else None

        def look(sequence: str, name: str, own: Any = own) -> Any:
            for groups in (own, shared):
                if groups is not None and groups.get(sequence):
                    value = groups[sequence].value[0].get(name)
                    if value is not None and value != "":
                        return value
            return header.get(name)

        measures = "PixelMeasuresSequence"
        transform = "PixelValueTransformationSequence"
        phase = {key: header.get(key) for key in PHASE_KEYS}
        if own is not None or shared is not None:
            phase["ImageType"] = (
                look("MRImageFrameTypeSequence", "FrameType")
                or look("CTImageFrameTypeSequence", "FrameType")
                or header.get("ImageType")
            )
            component = look("MRImageFrameTypeSequence", "ComplexImageComponent")
            if derived_by_type([str(component)]):
                phase["ImageType"] = [*(phase["ImageType"] or ()), component]
            phase["TemporalPositionIdentifier"] = look("FrameContentSequence", "TemporalPositionIndex")
            phase["EchoTime"] = look("MREchoSequence", "EffectiveEchoTime")
            phase["DiffusionBValue"] = look("MRDiffusionSequence", "DiffusionBValue")
            phase["AcquisitionNumber"] = look("FrameContentSequence", "FrameAcquisitionNumber")
        frames.append(
            Frame(
                path=path,
                index=index,
                position=tiles[index] if tiles else floats(look("PlanePositionSequence", "ImagePositionPatient"), 3),
                cosines=directions(floats(look("PlaneOrientationSequence", "ImageOrientationPatient"), 6)),
                pixel_spacing=positive_pair(look(measures, "PixelSpacing")),
                thickness=positive(look(measures, "SpacingBetweenSlices"))
                or positive(look(measures, "SliceThickness")),
                slope=finite(look(transform, "RescaleSlope"), 1.0),
                intercept=finite(look(transform, "RescaleIntercept"), 0.0),
                order=index + int(finite(header.get("ConcatenationFrameOffsetNumber"), 0))
                if several
                else int(finite(header.get("InstanceNumber"), 0)),
                location=None if count > 1 else finite_or_none(header.get("SliceLocation")),
                phase=tuple(str(phase[key]) if phase[key] is not None else "" for key in PHASE_KEYS),
            )
        )
    return frames


def montage_or_none(header: Any) -> Montage | None:
    """Return how a montage is cut; None of any other image, and of a montage that cannot be cut."""
    try:
        return montage_of(header)
    except NotCut:
        return None


@contextmanager
def quiet() -> Iterator[None]:
    """Without pydicom's warnings about values that do not matter here (odd dates, lengths, names)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
