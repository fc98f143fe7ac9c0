"""Source of pictures: frames, decoded when they are asked for, and what the file says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .regions import Region

Picture = NDArray[Any]  # (n_rows, n_columns) grey values, or (n_rows, n_columns, 3) uint8 color


@dataclass(frozen=True, eq=False)
class Source:
    """A file of frames of one size.

    Attributes
    ----------
    name : the file, as errors and messages call it.
    shape : rows and columns of a frame.
    decode : gives the frames of some indices one after the other, each in the file's own grey values or in 8-bit color.
    full_range : grey values that are black and white unless a window is stated; None = those of the values found.
    bits : 8 or 16, of a grey level where the file is written again.
    stated_window : grey values that the file itself names as black and white.
    regions : what the file lists of the frame's parts; empty where it lists none.
    frame_time : s between frames.
    header : the DICOM attributes without pixels; None of other files.
    notes : what is odd about the file.
    """

    name: str
    n_frames: int
    shape: tuple[int, int]
    decode: Callable[[Iterable[int]], Iterator[Picture]]
    full_range: tuple[float, float] | None
    bits: int = 8
    stated_window: tuple[float, float] | None = None
    regions: tuple[Region, ...] = ()
    pixel_size: tuple[float, float] | None = None  # mm, of a row and a column; of the whole frame
    frame_time: float | None = None
    header: Any = None
    notes: tuple[str, ...] = ()


def quantized(image: NDArray[np.floating], bits: int) -> NDArray[Any]:
    """Grey levels in [0, 1] as whole numbers of 8 or 16 bits."""
    top = 2**bits - 1
    return np.rint(np.clip(image, 0, 1) * top).astype(np.uint8 if bits == 8 else np.uint16)
