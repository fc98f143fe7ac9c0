"""Frames, pixels and grey levels of a source that are restored, found in one pass over its frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsde.echo_area import EchoArea, area_of, echo_area
from irsde.stacks import Window, image_seed
from ussim.errors import DataError

from .color import colored, grey_of
from .regions import Region, echo_regions, left_alone
from .source import Source

Image = NDArray[np.float32]
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom in pixels, the last two excluded
Parts = str | None | Sequence["int | Rectangle"]  # "auto", None for all, or numbers of regions and rectangles
PERCENTILES = (0.5, 99.5)
SAMPLE = 250_000  # values that are enough for percentiles
SPREAD = 32  # frames that decide the echo area
ALMOST_ALL = 0.95  # of the echo area: so much color is a tinted map, not Doppler over grey


@dataclass(frozen=True, eq=False)
class Batch:
    """Frames that follow each other.

    Attributes
    ----------
    first : position of the first in the cine.
    grey : (n, n_rows, n_columns) grey levels in [0, 1].
    colored : (n, n_rows, n_columns) bool, pixels in color; None where the cine has none.
    colors : (n, n_rows, n_columns, 3) uint8, the pictures as they were; None likewise.
    """

    first: int
    grey: Image
    colored: NDArray[np.bool_] | None
    colors: NDArray[np.uint8] | None

    def __len__(self) -> int:
        return len(self.grey)


@dataclass(frozen=True, eq=False)
class Cine:
    """Frames of a source to be restored.

    Attributes
    ----------
    indices : which of the source's frames.
    grey : the source's values that are 0 and 1.
    areas : the echo areas, of the whole frame; each is restored as a picture of its own.
    has_color : whether a frame has pixels in color, so that pictures of it need three channels.
    pixel_size : mm of a row and a column; None where not known.
    """

    source: Source
    indices: range
    grey: tuple[float, float]
    areas: tuple[EchoArea, ...]
    has_color: bool
    pixel_size: tuple[float, float] | None
    notes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows and columns."""
        return (len(self.indices), *self.source.shape)

    def batches(self, size: int) -> Iterator[Batch]:
        """Decode the frames, `size` of them at a time."""
        low, high = self.grey
        pending: list[NDArray[Any]] = []
        for position, picture in enumerate(_frames(self.source, self.indices), 1):
            pending.append(picture)
            if len(pending) == size or position == len(self.indices):
                grey = (np.stack([grey_of(p) for p in pending]).astype(np.float32) - low) / np.float32(high - low)
                masks, colors = None, None
                if self.has_color:
                    masks = np.stack([_nothing(p) if (own := colored(p)) is None else own for p in pending])
                    colors = np.stack([p if p.ndim == 3 else np.repeat(p[..., None], 3, axis=2) for p in pending])
                first = position - len(pending)
                pending = []
                yield Batch(first, np.clip(grey, 0, 1, out=grey), masks, colors)

    def seeds(self, seed: int, positions: range, area: int = 0) -> list[int]:
        """Seeds of the frames' noise: of a lone picture `seed` itself, else what `seed`, frame and area give."""
        if self.source.n_frames == 1 and area == 0:
            return [seed]
        return [image_seed(seed, self.indices[k], *([area] if area else [])) for k in positions]


@dataclass(eq=False)
class _Survey:
    """Findings about the frames: grey of frames evenly spread, color of those that are restored."""

    brightest: NDArray[Any]  # (n_rows, n_columns), over the frames
    lowest: float
    highest: float
    sample: list[NDArray[Any]]  # some of the values
    n_colored: NDArray[np.int32]  # frames in which a pixel is colored
    frames_with_color: int = 0

    @classmethod
    def of(cls, shape: tuple[int, int]) -> _Survey:
        """Return the survey of no frame."""
        return cls(np.full(shape, -np.inf, np.float32), np.inf, -np.inf, [], np.zeros(shape, np.int32))

    def add_grey(self, grey: NDArray[Any], step: int) -> None:
        np.maximum(self.brightest, grey, out=self.brightest)
        self.lowest, self.highest = min(self.lowest, float(grey.min())), max(self.highest, float(grey.max()))
        self.sample.append(grey.ravel()[::step].copy())  # a view would keep the frame

    def add_color(self, picture: NDArray[Any]) -> None:
        mask = colored(picture)
        if mask is not None:
            self.n_colored += mask
            self.frames_with_color += 1


def open_cine(
    source: Source,
    frame: int | None = None,
    parts: Parts = "auto",
    window: Window = "auto",
    only_one: bool = False,
    otherwise: str = "",
) -> Cine:
    """Find what is to be restored in a source; every frame is decoded once, so a damaged one is found before the work.

    Parameters
    ----------
    frame
        This frame alone, counted from the end if negative; None = all.
    parts
        "auto": the 2-D regions that the file lists, else the picture, and in it the echoes (`echo_area`); None: all pixels;
        else numbers in the file's list and rectangles.
    window
        Values that become 0 and 1. "auto" = 0 and 255 of 8 bits, the full range of 16; "voi" = the file's own window;
        "percentile" = 0.5 and 99.5 % of the values in the echo area.
    only_one
        Refuse several frames; `otherwise` then says what else to do.

    Raises
    ------
    DataError
        A frame is damaged or not there, no region is of echoes, the window is empty, or all is in color.
    """
    indices = _chosen(source, frame, only_one, otherwise)
    regions, notes = _regions(source, parts)
    survey, oddities = _look(source, indices)
    notes += oddities
    low, high = _bounds(source, survey)
    projection = np.clip((survey.brightest - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)
    areas = _areas(source, parts, regions, projection)
    if window != "auto":
        low, high = _window(source, survey, areas, window)
    notes += _say_color(source, survey, areas, len(indices))
    if source.bits == 16 and window == "auto" and survey.highest - low < 0.13 * (high - low):
        notes.append(
            f"grey values up to {survey.highest:g} of {high:g}: shown dark; --window {low:g},{survey.highest:g} shows them "
            "from black to white"
        )
    sizes = {region.pixel_size for region in regions if region.pixel_size}
    if len(sizes) > 1:
        notes.append("regions with pixels of different size: the first region's is written")
    size = next((region.pixel_size for region in regions if region.pixel_size), source.pixel_size)
    return Cine(
        source, indices, (low, high), areas, survey.frames_with_color > 0, size, (*source.notes, *notes)
    )  # fmt: skip


def _chosen(source: Source, frame: int | None, only_one: bool, otherwise: str) -> range:
    count = source.n_frames
    if frame is None:
        if only_one and count > 1:
            raise DataError(
                f"{source.name}: expected one image, got {count} frames; choose one with --slice 0 to {count - 1}{otherwise}"
            )
        return range(count)
    if not -count <= frame < count:
        raise DataError(f"{source.name}: slice {frame} asked for; there are 0 to {count - 1} (frames)")
    return range(frame % count, frame % count + 1)


def _frames(source: Source, indices: Iterable[int]) -> Iterator[NDArray[Any]]:
    """Yield the pictures of some frames, checked."""
    for index, picture in zip(indices, source.decode(indices), strict=True):
        if picture.shape[:2] != source.shape:
            raise DataError(
                f"{source.name}: frame {index}: expected {source.shape[1]} x {source.shape[0]} pixels, got "
                f"{picture.shape[1]} x {picture.shape[0]}"
            )
        if picture.dtype.kind == "f" and not np.isfinite(picture).all():
            raise DataError(f"{source.name}: frame {index} holds NaN or infinity; repair the file")
        yield picture


def _nothing(picture: NDArray[Any]) -> NDArray[np.bool_]:
    return np.zeros(picture.shape[:2], bool)


def _look(source: Source, indices: range) -> tuple[_Survey, list[str]]:
    """Decode every frame once, keep a frame's worth of each fact, and say what is odd.

    The echo area and the window come from frames spread over the whole source, so that a frame has them alone, too.
    """
    spread = range(0, source.n_frames, -(-source.n_frames // SPREAD))
    step = max(1, len(spread) * source.shape[0] * source.shape[1] // SAMPLE)
    survey = _Survey.of(source.shape)
    whole = len(indices) == source.n_frames
    picture = None
    for index, picture in zip(indices, _frames(source, indices), strict=True):
        survey.add_color(picture)
        if whole and index in spread:
            survey.add_grey(grey_of(picture), step)
    if whole or picture is None:
        return survey, []
    around = _Survey.of(source.shape)
    notes = []
    try:
        for other in _frames(source, spread):
            around.add_grey(grey_of(other), step)
    except DataError as error:
        around = _Survey.of(source.shape)
        around.add_grey(grey_of(picture), step)
        notes = [f"other frames cannot be read, so echo area and window are of this one alone ({error})"]
    around.n_colored, around.frames_with_color = survey.n_colored, survey.frames_with_color
    return around, notes


def _bounds(source: Source, survey: _Survey) -> tuple[float, float]:
    """Values that are 0 and 1 unless a window is asked for."""
    if source.full_range is not None:
        return source.full_range
    if survey.lowest >= 0 and survey.highest <= 1:
        return 0.0, 1.0
    return survey.lowest, survey.highest if survey.highest > survey.lowest else survey.lowest + 1.0


def _window(source: Source, survey: _Survey, areas: Sequence[EchoArea], window: Window) -> tuple[float, float]:
    if window == "voi":
        if source.stated_window is None:
            raise DataError(f"{source.name}: --window voi: the file states none; name LOW,HIGH")
        return source.stated_window
    if window == "percentile":
        sample = np.concatenate(survey.sample)
        values = sample[sample > survey.lowest]  # the border is the lowest
        low, high = np.percentile(values if values.size else sample, PERCENTILES)
        return float(low), float(max(high, low + 1e-6 * max(abs(low), 1.0)))
    low, high = (float(value) for value in window)
    return low, high


def _regions(source: Source, parts: Parts) -> tuple[list[Region], list[str]]:
    """Return the regions of the file's list that are restored, and what is said of them."""
    listed = {region.number: region for region in source.regions}
    if parts is None:
        return [], []
    if parts == "auto":
        if not listed:
            return [], []
        chosen = echo_regions(source.regions)
        if not chosen:
            raise DataError(
                f"{source.name}: no 2-D region of tissue to restore: region {'; '.join(map(str, source.regions))}; "
                "--region N chooses one, --region all the whole frame"
            )
        others = [str(r) for r in source.regions if r not in chosen and not r.is_echo]
        said = [f"region {'; '.join(map(str, chosen))} restored"]
        return chosen, said + ([f"region {'; '.join(others)} left as it is"] if others else [])
    numbers = [part for part in parts if isinstance(part, int)]
    for number in numbers:
        if number not in listed:
            there = f"regions {'; '.join(map(str, source.regions))}" if listed else "no list of regions"
            raise DataError(f"{source.name}: --region {number}: the file has {there}")
    return [listed[number] for number in numbers], []


def _areas(source: Source, parts: Parts, regions: Sequence[Region], projection: Image) -> tuple[EchoArea, ...]:
    """Return the echo areas in the frame; no pixel is in two of them."""
    if parts is None:
        return (echo_area(projection, None),)
    boxes = [region.box for region in regions]
    if not isinstance(parts, str):
        rectangles = [part for part in parts if not isinstance(part, int)]
        for _, _, right, bottom in rectangles:
            if bottom > source.shape[0] or right > source.shape[1]:
                raise DataError(
                    f"{source.name}: --region: expected at most {source.shape[1]} x {source.shape[0]} pixels, got "
                    f"{right} x {bottom}"
                )
        boxes += [(slice(top, bottom), slice(left, right)) for left, top, right, bottom in rectangles]
    elif not regions:
        return (echo_area(projection),)
    taken = left_alone(source.regions, regions, source.shape)
    areas = []
    for number, box in enumerate(boxes):
        mask = np.zeros(source.shape, bool)
        # A rectangle is taken as it is named; a scanner's region holds a sector, and captions beside it.
        mask[box] = echo_area(projection[box]).mask if number < len(regions) else True
        mask &= ~taken
        if mask.sum() < 4 or min(area_of(mask).shape) < 2:
            continue
        taken |= mask
        areas.append(area_of(mask))
    if not areas:
        raise DataError(f"{source.name}: --region: expected at least 2 x 2 pixels of echo, got less")
    return tuple(areas)


def _say_color(source: Source, survey: _Survey, areas: Sequence[EchoArea], n_frames: int) -> list[str]:
    if not survey.frames_with_color:
        return []
    inside = np.logical_or.reduce([area.mask for area in areas])
    share = float(survey.n_colored[inside].sum()) / (n_frames * int(inside.sum()))
    if share > ALMOST_ALL:
        raise DataError(
            f"{source.name}: {share:.0%} of the echo area is in color: a tinted map, or no B-mode; store it in grey, or "
            "name another part with --region"
        )
    of = f" of {n_frames} frames" if n_frames > 1 else ""
    count = f"in {survey.frames_with_color}{of} " if n_frames > 1 else ""
    if share == 0:
        return [f"color outside the echo area {count}(captions, bars) stays as it is"]
    percent = f"{share:.1%}" if share >= 0.001 else "less than 0.1%"
    return [f"{percent} of the echo area is in color {count}(color Doppler, marks): not restored, put back as it is"]
