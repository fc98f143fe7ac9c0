"""Sinks of restored frames, batch by batch: PNG, NPY, NIfTI or DICOM; a file appears under its name when it is whole."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from irsde.stacks import beside, bounds_of, companions, is_dicom, is_nifti, write_png
from ussim.io.atomic import replacing

from .cine import Cine, Image
from .dicom_out import refuse_if_too_large, write_dicom
from .source import quantized

if TYPE_CHECKING:
    from irsde.intervals import Intervals

    from .restoring import Restored

Add = Callable[["Restored"], None]


@contextmanager
def open_sink(
    path: Path,
    cine: Cine,
    with_variance: bool,
    method: str = "",
    keep_identity: bool = False,
    interval: Intervals | None = None,
) -> Iterator[Add]:
    """Give a function that takes restored batches in their order; files are whole when the block ends without an error.

    PNG and DICOM show what is in color as it was; NPY and NIfTI hold grey levels in [0, 1], of colors the luminance. The
    variance goes into a second file as `irsde.stacks.companions` names it, of DICOM as NPY.

    Parameters
    ----------
    method
        How the frames were restored, for the DICOM file's description.
    keep_identity
        Keep in a DICOM file who and what study it is of; otherwise nothing of it is written.
    interval
        Write the bounds of its intervals into files beside too; what was not restored is its own bound.
    """
    with ExitStack() as opened:
        if is_dicom(path):
            add = opened.enter_context(_dicom(path, cine, method, keep_identity))
        elif path.suffix.lower() == ".png":
            add = _png(path, cine)
        else:
            add = _only_mean(opened.enter_context(_array(path, cine, "restored")))
        spread = opened.enter_context(_array(companions(path)[0], cine, "variance")) if with_variance else None

        bounds = [opened.enter_context(_array(p, cine, p.stem)) for p in bounds_of(path)] if interval else []

        def add_both(part: Restored) -> None:
            add(part)
            if interval:
                for write, bound in zip(bounds, interval.bounds(part.mean, part.variance), strict=True):
                    write(np.where(part.where, bound, part.mean))
            if spread is not None and part.variance is not None:
                spread(part.variance)
                if cine.shape[0] == 1 and not is_nifti(path):
                    deviation = np.sqrt(part.variance[0])
                    write_png(beside(path, "uncertainty", ".png"), deviation / max(float(deviation.max()), 1e-12))

        yield add_both


def _only_mean(add: Callable[[Image], None]) -> Add:
    return lambda part: add(part.mean)


def painted(part: Restored) -> NDArray[np.uint8]:
    """Pictures (n, n_rows, n_columns, 3): grey where they were restored, elsewhere what they were."""
    assert part.batch.colors is not None
    return np.where(part.where[..., None], quantized(part.mean, 8)[..., None], part.batch.colors)


def _png(path: Path, cine: Cine) -> Add:
    from PIL import Image as picture

    def add(part: Restored) -> None:
        if not cine.has_color:
            write_png(path, part.mean[0], cine.source.bits if cine.source.header is None else 8)
            return
        with replacing(path) as temporary:
            picture.fromarray(painted(part)[0]).save(temporary)

    return add


@contextmanager
def _array(path: Path, cine: Cine, what: str) -> Iterator[Callable[[Image], None]]:
    """NPY (frame, row, column), of one frame (row, column), or NIfTI along column, row, frame; float32."""
    with ExitStack() as opened:
        temporary = opened.enter_context(replacing(path))
        file: Any = opened.enter_context(open(temporary, "wb"))
        if is_nifti(path):
            if path.name.lower().endswith(".gz"):
                file = opened.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0))
            _nifti_header(cine, what).write_to(file)
        else:
            header = {
                "descr": "<f4",
                "fortran_order": False,
                "shape": cine.shape if cine.shape[0] > 1 else cine.shape[1:],
            }
            np.lib.format.write_array_header_1_0(file, header)
        # In NIfTI too: its first axis, columns, runs fastest, which is the order of a picture's pixels.
        yield lambda images: file.write(np.ascontiguousarray(images, "<f4").tobytes())


def _nifti_header(cine: Cine, what: str) -> Any:
    """Return the header of frames that stand upright in viewers as axial slices; between frames there is no distance: 1."""
    import nibabel as nib

    n, rows, columns = cine.shape
    row, column = cine.pixel_size or (1.0, 1.0)
    affine = np.diag([-column, -row, 1.0, 1.0])
    affine[2, 3] = cine.indices[0]
    kind = nib.Nifti1Image if max(cine.shape) < 2**15 else nib.Nifti2Image
    header = kind(np.broadcast_to(np.float32(0), (columns, rows, n)), affine).header
    header.set_xyzt_units("mm")
    low, high = cine.grey
    seconds = cine.source.frame_time if n > 1 else None
    apart = f"; frames {seconds * 1e3:.4g} ms apart" if seconds else ""
    said = {
        "restored": f"restored; 0 to 1 was {low:.6g} to {high:.6g}", "variance": "variance over restorations (n - 1)"
    }.get(what, f"bound of an interval; 0 to 1 was {low:.6g} to {high:.6g}")  # fmt: skip
    header["descrip"] = (said + apart).encode()[:79]
    header["cal_max"] = 0.0 if what == "variance" else 1.0
    header.set_slope_inter(1, 0)
    return header


@contextmanager
def _dicom(path: Path, cine: Cine, method: str, keep_identity: bool) -> Iterator[Add]:
    """Pixels go to a file beside `path` first: a DICOM header says how many there are before the first."""
    refuse_if_too_large(cine)
    with replacing(path) as temporary:
        pixels = temporary.with_name(temporary.name + ".pixels")
        try:
            with open(pixels, "w+b") as file:

                def add(part: Restored) -> None:
                    frames = painted(part) if cine.has_color else quantized(part.mean, cine.source.bits)
                    file.write(frames.astype(frames.dtype.newbyteorder("<"), copy=False).tobytes())

                yield add
                file.flush()
                file.seek(0)
                write_dicom(temporary, cine, file, method, keep_identity)
        finally:
            pixels.unlink(missing_ok=True)
