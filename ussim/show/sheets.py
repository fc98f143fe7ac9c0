"""Sheets of images in their own pixels: a name over each, a zoom beside it; a map with its scale. No matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .printing import shortened

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

LETTERS = 12  # pixels, size of the names
STRIP = 18  # pixels, of a strip that holds a name
GAP = 6  # pixels between images
PAPER, INK, FRAME = 255, 20, 128  # grey levels
ZOOM = 4  # of a part: a quarter of the image, as tall as all of it
SMALLEST_ZOOMED = 32  # pixels a side; smaller images have no zoom beside them

Named = tuple[str, np.ndarray]


def image_sheet(rows: Sequence[Sequence[Named]], zoom: bool = False) -> Image:
    """Return a sheet of images (nz, nx) in [0, 1], each in its own pixels with its name above.

    Parameters
    ----------
    rows : sequence of sequences of (str, np.ndarray)
        Names and images, a row at a time.
    zoom : bool
        Draw beside each image a part of it, enlarged without smoothing and framed in the image; the same in a column.

    Returns
    -------
    PIL.Image.Image
        Grey; a pixel of an image is a pixel of the sheet.
    """
    from PIL import Image, ImageDraw

    across = max(map(len, rows))
    parts = [_part(column, rows) if zoom else None for column in range(across)]
    cells = [[_cell(image, part) for (_, image), part in zip(row, parts, strict=False)] for row in rows]
    widths = [max(row[i].width for row in cells if i < len(row)) for i in range(across)]
    heights = [max(cell.height for cell in row) for row in cells]
    sheet = Image.new("L", (sum(widths) + GAP * (len(widths) + 1), sum(heights) + GAP * (len(heights) + 1)), PAPER)
    pen = ImageDraw.Draw(sheet)
    top = GAP
    for row, named, height in zip(cells, rows, heights, strict=True):
        left = GAP
        for cell, (name, _), width in zip(row, named, widths, strict=False):
            sheet.paste(cell, (left, top))
            pen.text((left, top + 1), _fitted(pen, name, width), fill=INK, font=_font())
            left += width + GAP
        top += height + GAP
    return sheet


def scaled_map(values: np.ndarray, name: str) -> Image:
    """Return a map (nz, nx) of values from 0 on in grey, white its largest, its scale on the right and its name above.

    Parameters
    ----------
    values : np.ndarray
        (nz, nx), finite and not negative.
    name : str
        Of the values.

    Returns
    -------
    PIL.Image.Image
        The map lies at (GAP, GAP + STRIP), a pixel for each value.
    """
    from PIL import Image, ImageDraw

    largest = float(values.max())
    rows, columns = values.shape
    height, bar, label = max(rows, 2 * STRIP), 10, f"{largest:.3g}"
    pen = ImageDraw.Draw(Image.new("L", (1, 1)))
    room = int(max(pen.textlength(label, font=_font()), pen.textlength("0", font=_font()))) + 4
    size = (columns + 3 * GAP + bar + room, height + STRIP + 2 * GAP)
    sheet = Image.new("L", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    top, left = GAP + STRIP, columns + 2 * GAP
    sheet.paste(_grey(values / (largest or 1.0)), (GAP, top))
    sheet.paste(_grey(np.repeat(np.linspace(1, 0, height)[:, None], bar, axis=1)), (left, top))
    pen.rectangle((left - 1, top - 1, left + bar, top + height), outline=FRAME)
    pen.text((GAP, GAP), _fitted(pen, name, size[0] - 2 * GAP), fill=INK, font=_font())
    pen.text((left + bar + 4, top - 2), label, fill=INK, font=_font())
    pen.text((left + bar + 4, top + height - LETTERS - 2), "0", fill=INK, font=_font())
    return sheet


def _cell(image: np.ndarray, part: tuple[slice, slice] | None) -> Image:
    """Return an image under an empty strip for its name, and its part beside it."""
    from PIL import Image, ImageDraw

    rows, columns = image.shape
    whole = _grey(image)
    if part is None:
        cell = Image.new("L", (columns, rows + STRIP), PAPER)
        cell.paste(whole, (0, STRIP))
        return cell
    enlarged = _grey(image[part])
    enlarged = enlarged.resize((ZOOM * enlarged.width, ZOOM * enlarged.height), Image.Resampling.NEAREST)
    cell = Image.new("L", (columns + 2 + enlarged.width, max(rows, enlarged.height) + STRIP), PAPER)
    pen = ImageDraw.Draw(whole)
    (top, bottom), (left, right) = ((s.start, s.stop) for s in part)
    pen.rectangle((left - 1, top - 1, right, bottom), outline=PAPER)
    cell.paste(whole, (0, STRIP))
    cell.paste(enlarged, (columns + 2, STRIP))
    return cell


def _part(column: int, rows: Sequence[Sequence[Named]]) -> tuple[slice, slice] | None:
    """Return what of a column's images is enlarged: the quarter (a side) whose edges are strongest in the first of them."""
    shapes = {row[column][1].shape for row in rows if column < len(row)}
    image = np.asarray(next(row for row in rows if column < len(row))[column][1], np.float64)
    if len(shapes) > 1 or min(image.shape) < SMALLEST_ZOOMED:
        return None
    high, wide = (n // ZOOM for n in image.shape)
    smooth = image[: high * ZOOM, : wide * ZOOM].reshape(high, ZOOM, wide, ZOOM).mean(axis=(1, 3))
    edges = sum(np.abs(gradient) for gradient in np.gradient(smooth))
    best, place = -1.0, (0, 0)
    window = max(high // ZOOM, 1), max(wide // ZOOM, 1)
    for row in range(window[0] // 2, high - window[0] - window[0] // 2 + 1):
        for start in range(window[1] // 2, wide - window[1] - window[1] // 2 + 1):
            found = float(edges[row : row + window[0], start : start + window[1]].sum())
            if found > best:
                best, place = found, (row, start)
    top, left = ZOOM * place[0], ZOOM * place[1]
    return slice(top, top + image.shape[0] // ZOOM), slice(left, left + image.shape[1] // ZOOM)


def _grey(image: np.ndarray) -> Image:
    from PIL import Image

    return Image.fromarray(np.round(255 * np.clip(image, 0, 1)).astype(np.uint8))


def _fitted(pen: ImageDraw, name: str, room: float) -> str:
    """Return a name, its middle left out where it is longer than its room."""
    text = name
    for most in range(len(name), 3, -1):
        text = shortened(name, most)
        if pen.textlength(text, font=_font()) <= room:
            break
    return text


def _font() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(LETTERS)
