"""A restored cine as a derived DICOM image: new UIDs, regions and frame times kept, nobody's name unless asked for."""

from __future__ import annotations

import copy
import warnings
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from ussim import __version__
from ussim.errors import DataError

from .cine import Cine

ULTRASOUND, ULTRASOUND_CINE = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1"
RETIRED = ("1.2.840.10008.5.1.4.1.1.6", "1.2.840.10008.5.1.4.1.1.3")  # their forerunners, still found
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
CAPTURED_FRAMES = {(8, 1): f"{CAPTURE}.2", (16, 1): f"{CAPTURE}.3", (8, 3): f"{CAPTURE}.4"}  # bits, channels
LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81")  # JPEG, JPEG-LS near-lossless
LARGEST = 2**32 - 2  # bytes of a pixel element

# What says how a picture was made and what its pixels mean, and nothing of whom it shows, where, when or by whom.
KEPT = (
    "SpecificCharacterSet Modality Manufacturer ManufacturerModelName BodyPartExamined ImageLaterality PatientOrientation "
    "TransducerType TransducerApplicationCodeSequence MechanicalIndex BoneThermalIndex CranialThermalIndex "
    "SoftTissueThermalIndex DepthOfScanField FocusDepth NumberOfStages NumberOfViewsInStage StageNumber ViewNumber "
    "PixelSpacing PixelSpacingCalibrationType PixelAspectRatio NominalScannedPixelSpacing "
    "LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod ConversionType"
)
# The timing of frames: of several frames alone.
TIMING = (
    "FrameTime FrameTimeVector FrameIncrementPointer FrameDelay CineRate RecommendedDisplayFrameRate StartTrim StopTrim "
    "EffectiveDuration ActualFrameDuration PreferredPlaybackSequencing"
)
IN_REGION = (
    "RegionSpatialFormat RegionDataType RegionFlags RegionLocationMinX0 RegionLocationMinY0 RegionLocationMaxX1 "
    "RegionLocationMaxY1 ReferencePixelX0 ReferencePixelY0 PhysicalUnitsXDirection PhysicalUnitsYDirection "
    "ReferencePixelPhysicalValueX ReferencePixelPhysicalValueY PhysicalDeltaX PhysicalDeltaY TransducerFrequency "
    "PulseRepetitionFrequency DopplerCorrectionAngle SteeringAngle"
)
# Type 2 attributes: there, and empty.
EMPTY = (
    "StudyDate StudyTime AccessionNumber ReferringPhysicianName StudyID SeriesNumber PatientName PatientID PatientBirthDate "
    "PatientSex"
)
# Of the file that was read, where identity is kept: what the new pixels make untrue.
UNTRUE = (
    "PixelData FloatPixelData DoubleFloatPixelData ExtendedOffsetTable ExtendedOffsetTableLengths PixelPresentation "
    "SmallestImagePixelValue LargestImagePixelValue PixelPaddingValue PixelPaddingRangeLimit WindowCenter WindowWidth "
    "WindowCenterWidthExplanation VOILUTFunction VOILUTSequence ModalityLUTSequence RescaleSlope RescaleIntercept "
    "RescaleType PlanarConfiguration IconImageSequence ICCProfile ColorSpace DigitalSignaturesSequence "
    "MACParametersSequence EncryptedAttributesSequence DataSetTrailingPadding PixelDataProviderURL"
)


def refuse_if_too_large(cine: Cine) -> None:
    """Raise DataError where a file of DICOM cannot hold the frames: its pixels have 32-bit lengths."""
    n, rows, columns = cine.shape
    size = n * rows * columns * (3 if cine.has_color else cine.source.bits // 8)
    if size > LARGEST:
        raise DataError(
            f"{cine.source.name}: {n} frames are {size / 1e9:.1f} GB, DICOM holds 4.3: use -o NAME.nii.gz or --slice N"
        )


def write_dicom(path: Path, cine: Cine, pixels: BinaryIO, method: str, keep_identity: bool) -> None:
    """Write the frames in an open file as one DICOM file (PS3.3 A.6, A.7), uncompressed.

    Without `keep_identity` study, series and image get new UIDs and nothing that names a person, a place or a day is
    written; with it the study stays and the image read is named as the source.
    """
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    source = cine.source.header
    with warnings.catch_warnings(action="ignore"):  # of values that the scanner wrote
        dataset = _with_identity(source) if keep_identity else _without_identity(source)
    n, rows, columns = cine.shape
    channels, bits = (3, 8) if cine.has_color else (1, cine.source.bits)
    dataset.SOPClassUID = _sop_class(source, n, channels, bits)
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.DerivationDescription = _description(cine, method)
    dataset.SeriesDescription = "Despeckled"
    for name in ("SeriesNumber", "InstanceNumber"):
        if not dataset.get(name):
            setattr(dataset, name, "1")
    dataset.setdefault("Manufacturer", "")
    dataset.SoftwareVersions = f"ussim {__version__}"
    now = datetime.now()
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    # Captions of the picture are kept: whoever cannot say that they hold no name must not say so.
    dataset.BurnedInAnnotation = "NO" if str(source.get("BurnedInAnnotation")).upper() == "NO" else "YES"
    for name in TIMING.split():
        if n == 1 and name in dataset:
            del dataset[name]
    if n > 1:
        dataset.NumberOfFrames = n
    elif "NumberOfFrames" in dataset:
        del dataset.NumberOfFrames
    if str(source.file_meta.TransferSyntaxUID) in LOSSY:
        dataset.LossyImageCompression = "01"
    dataset.SamplesPerPixel = channels
    dataset.PhotometricInterpretation = "RGB" if channels == 3 else "MONOCHROME2"
    if channels == 3:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
    dataset.UltrasoundColorDataPresent = int(channels == 3)
    dataset.add_new(0x7FE00010, "OB" if bits == 8 else "OW", pixels)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with warnings.catch_warnings(action="ignore"):
        dataset.save_as(path, enforce_file_format=True)


def _without_identity(source: Any) -> Any:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    _copy(source, dataset, f"{KEPT} {TIMING}".split())
    if source.get("SequenceOfUltrasoundRegions"):
        items = []
        for region in source.SequenceOfUltrasoundRegions:
            item = Dataset()
            _copy(region, item, IN_REGION.split())
            items.append(item)
        dataset.SequenceOfUltrasoundRegions = items
    for name in EMPTY.split():
        setattr(dataset, name, "")
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "irsde restore: only attributes of image and device kept"
    dataset.StudyInstanceUID = generate_uid()
    return dataset


def _copy(source: Any, target: Any, names: Iterable[str]) -> None:
    """Copy attributes; those whose values break their type's rules stay behind."""
    for name in names:
        if name in source:
            try:
                target[name] = source[name]
            except Exception:  # pydicom raises many kinds on damaged values
                continue


def _with_identity(source: Any) -> Any:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import generate_uid

    # Element by element, each as a value: bytes of a big-endian file would be written as they stand.
    dataset, values = Dataset(), copy.deepcopy(source)
    deque(values.iterall(), maxlen=0)  # reads those in sequences, too
    dataset.update({element.tag: element for element in values})
    dataset.file_meta = FileMetaDataset()
    tables = [element.keyword for element in dataset if "PaletteColorLookupTable" in element.keyword]
    for name in (*UNTRUE.split(), *tables):
        if name in dataset:
            del dataset[name]
    if not source.get("StudyInstanceUID"):
        dataset.StudyInstanceUID = generate_uid()
    if source.get("SOPInstanceUID") and source.get("SOPClassUID"):
        reference, purpose = Dataset(), Dataset()
        purpose.CodeValue, purpose.CodingSchemeDesignator = "121322", "DCM"
        purpose.CodeMeaning = "Source image for image processing operation"
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
        reference.PurposeOfReferenceCodeSequence = [purpose]
        dataset.SourceImageSequence = [reference]
    return dataset


def _sop_class(source: Any, n_frames: int, channels: int, bits: int) -> str:
    """Return the class of the file read, for as many frames and channels as are written.

    Ultrasound where it is another's.
    """
    own = str(source.get("SOPClassUID") or "")
    if own == CAPTURE or own.startswith(CAPTURE + "."):
        return CAPTURE if n_frames == 1 else CAPTURED_FRAMES[bits, channels]
    if own and own not in (ULTRASOUND, ULTRASOUND_CINE, *RETIRED) and str(source.get("Modality")) != "US":
        return CAPTURE if n_frames == 1 else CAPTURED_FRAMES[bits, channels]
    return ULTRASOUND if n_frames == 1 else ULTRASOUND_CINE


def _description(cine: Cine, method: str) -> str:
    low, high = cine.grey
    window = "" if (low, high) == (0.0, 255.0) else f"; grey values {low:g} to {high:g} shown"
    place = f"frame {cine.indices[0]} of {cine.source.n_frames}; " if len(cine.indices) < cine.source.n_frames else ""
    return f"Despeckled by ussim {__version__}{': ' if method else ''}{method}; {place}echo area alone{window}"[:1024]
