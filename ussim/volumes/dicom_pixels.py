"""Pixels of DICOM files: decoded, scaled as their headers say, and digests by which equal images are found."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from .dicom_checks import check_pixels, display_window, padded
from .dicom_headers import missing_decoder, montage_or_none, quiet, read_header, unpacked
from .grouping import Frame
from .montage import word_of
from .values import absurd, inverted, narrowed

_Decoded = tuple[np.ndarray, list[Frame], tuple[float, float] | None]


class DamagedPixels(DataError):
    """Pixels of one file that cannot be decoded: cut short or damaged."""


def digest_of_pixels() -> Callable[[Frame], str]:
    """Return a function that gives the digest of a frame's stored pixels; "" where they cannot be read or are all equal."""
    known: dict[str, tuple[str, ...]] = {}  # of all frames of a file, which is read once

    def digest_of_image(image: np.ndarray) -> str:
        if image.min() == image.max():
            return ""
        return hashlib.sha256(str((image.shape, image.dtype)).encode() + image.tobytes()).hexdigest()

    def digest(frame: Frame) -> str:
        if frame.path not in known:
            try:
                known[frame.path] = tuple(map(digest_of_image, _pixels(frame.path, "")[1]))
            except DataError:
                known[frame.path] = ()
        of_file = known[frame.path]
        return of_file[frame.index] if frame.index < len(of_file) else ""

    return digest


def decode(frames: Sequence[Frame], voi: bool, name: str, notes: list[str]) -> _Decoded:
    """Pixels of the frames in their order, (n_readable, n_rows, n_columns), the frames that are cut short, the VOI window.

    A damaged file costs its slice, unless most of them are.
    """
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    images: list[np.ndarray] = []
    paths = list(dict.fromkeys(frame.path for frame in frames))
    opened: dict[str, tuple[Any, np.ndarray]] = {}
    is_inverted = False
    windows: list[tuple[float, float]] = []  # the files' own, in the values they give
    cut: list[Frame] = []
    # Slices keep their scales relative to each other.
    scale = absurd(number for frame in frames for number in (frame.slope, frame.intercept))
    if scale:
        notes.append(f"scale {scale:g} in the header: values given without it")
    for frame in frames:
        if frame.path not in opened:
            opened.clear()  # frames of one file follow each other, so one file is held at a time
            # Not the file's name, which may be a person's: the error may end up in a store.
            label = name if len(paths) == 1 else f"{name}: file {paths.index(frame.path) + 1} of {len(paths)}"
            try:
                opened[frame.path] = _pixels(frame.path, label)
            except DamagedPixels:
                cut.append(frame)
                if is_lost(frames, len(cut)):
                    raise
                continue
        dataset, stored = opened[frame.path]
        image = stored[frame.index]
        outside = padded(image, dataset)
        with quiet():
            if "ModalityLUTSequence" in dataset:
                image = apply_modality_lut(image, dataset)
            elif scale or (frame.slope, frame.intercept) != (1.0, 0.0):
                slope, intercept = (number / (scale or 1.0) for number in (frame.slope, frame.intercept))
                image = (image * slope + intercept).astype(np.float32)
            if voi:
                image = apply_voi_lut(image, dataset)
        if outside.any() and not outside.all():
            image = np.where(outside, image[~outside].min(), image)
        windows += [] if voi else display_window(dataset, frame.index, scale)
        is_inverted |= str(dataset.get("PhotometricInterpretation")) == "MONOCHROME1"
        images.append(image)
    if len({image.shape for image in images}) > 1:
        raise DataError(f"{name}: slices differ in size: {sorted({image.shape for image in images})}")
    pixels = np.stack(images)
    if pixels.dtype.kind == "f":
        pixels = narrowed(pixels, notes)
    # Slices have windows of their own where they were scaled apart; one holds for all of them here.
    window = tuple(float(value) for value in np.median(windows, axis=0)) if windows else None
    if is_inverted and window is not None:
        least, most = float(np.fmin.reduce(pixels, axis=None)), float(np.fmax.reduce(pixels, axis=None))
        window = (least + most - window[1], least + most - window[0])
    return (inverted(pixels) if is_inverted else pixels), cut, window  # type: ignore[return-value]


def is_lost(frames: Sequence[Frame], n_cut: int) -> bool:
    """Return whether a volume is lost with so many damaged slices; fewer cost themselves only."""
    return n_cut > 0 and (len({frame.path for frame in frames}) < 3 or 2 * n_cut > len(frames))


def _pixels(path: str, label: str) -> tuple[Any, np.ndarray]:
    """Return a file and its stored values as (n_frames, n_rows, n_columns) in the machine's byte order."""
    import pydicom
    from pydicom.uid import ImplicitVRLittleEndian

    with quiet():
        try:
            dataset = pydicom.dcmread(unpacked(path), force=True)
            if "TransferSyntaxUID" not in dataset.file_meta:
                dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            missing = missing_decoder(dataset)
            if missing:
                raise DataError(f"{label}: {missing}")
            check_pixels(dataset, label)
            stored = dataset.pixel_array
        except DataError:
            raise
        except OSError as error:
            raise DataError(f"{label}: {error.strerror or error}") from None
        except Exception as error:  # pydicom and its plug-ins raise many kinds on damaged pixel data
            raise DamagedPixels(f"{label}: pixels cannot be read: {' '.join(str(error).split())}") from None
    if stored.ndim == 2:
        # From a header whose values have been checked, as the frames were.
        montage = montage_or_none(read_header(path)) if word_of(dataset) else None
        stored = montage.cut(stored) if montage else stored[np.newaxis]
    if stored.ndim != 3:
        raise DataError(f"{label}: expected grey pixels, got shape {stored.shape}")
    return dataset, stored.astype(stored.dtype.newbyteorder("="), copy=False)
