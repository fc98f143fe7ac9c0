"""A figure as a journal takes it: of the width asked, its text 6 to 8 points there, fonts that can be edited, no dates.

The same figure makes the same bytes, whenever and wherever it is written. What made it travels in the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..volumes.own import SOFTWARE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SETTINGS = "Settings"  # text chunk of a PNG that holds the settings, JSON
COLUMN_CM, PAGE_CM = 8.5, 17.4  # one and two columns of most journals
WIDTHS_CM = 4.0, 60.0
SMALLEST_TEXT, LARGEST_TEXT = 6.0, 8.0  # points
TALLEST_CM = 23.0  # of a page
TEXT_SCALE = 0.68  # from the figures' text on a screen to print: 12 and 10 points become 8 and 6.8
MARGIN_INCHES = 0.03
_CM = 1 / 2.54  # inches


def stamp(suffix: str, settings: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Return the metadata of a picture: what wrote it and its settings, and no date.

    Parameters
    ----------
    suffix : str
        Of the file, without its dot.
    settings : mapping, optional
        Of the command, values as JSON has them: a text chunk of a PNG, the subject of a PDF, the description of an SVG.

    Returns
    -------
    dict or None
        As matplotlib and `PngInfo` take it; None where the format holds none.
    """
    text = None if settings is None else json.dumps(settings, allow_nan=False, sort_keys=True)
    if suffix == "png":
        return {"Software": SOFTWARE} | ({} if text is None else {SETTINGS: text})
    if suffix == "pdf":
        return {"Creator": SOFTWARE, "CreationDate": None} | ({} if text is None else {"Subject": text})
    if suffix in ("svg", "svgz"):
        return {"Creator": SOFTWARE, "Date": None} | ({} if text is None else {"Description": text})
    return None


@contextmanager
def editable() -> Iterator[None]:
    """Write the text of a PDF in TrueType fonts (Type 42) and that of an SVG as text, with ids that hold from run to run."""
    import matplotlib

    fonts: dict[Any, Any] = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": SOFTWARE}
    with matplotlib.rc_context(fonts):
        yield


def fit_width(figure: Figure, width_cm: float) -> None:
    """Make a figure exactly as wide as asked, its text 6 to 8 points at that size, and as tall as what is in it.

    Raises
    ------
    ValueError
        The width is not one that a figure can have.
    """
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

    low, high = WIDTHS_CM
    if not low <= width_cm <= high:
        raise ValueError(f"figure width: expected {low:g} to {high:g} cm, got {width_cm!r}")
    figure.draw_without_rendering()  # the ticks' labels exist from then on
    for text in figure.findobj(Text):
        text.set_fontsize(min(max(TEXT_SCALE * float(text.get_fontsize()), SMALLEST_TEXT), LARGEST_TEXT))
    for axes in _all_axes(figure):
        size = min(max(TEXT_SCALE * 10.0, SMALLEST_TEXT), LARGEST_TEXT)
        axes.tick_params(labelsize=size, length=2, width=0.5, pad=2)
        axes.xaxis.labelpad = axes.yaxis.labelpad = 1.5
        for spine in axes.spines.values():
            spine.set_linewidth(0.5)
        for line in axes.findobj(Line2D):
            line.set_linewidth(TEXT_SCALE * line.get_linewidth())
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(w_pad=MARGIN_INCHES, h_pad=MARGIN_INCHES)
    wide, tall = figure.get_size_inches()
    width, tallest = width_cm * _CM, TALLEST_CM * _CM
    height = min(1.3 * width * tall / wide, tallest)  # so tall that the width is what limits the images
    for _ in range(3):
        figure.set_size_inches(width, height)
        figure.draw_without_rendering()
        _keep_titles_apart(figure)
        height = min(figure.get_tightbbox().height + 2 * MARGIN_INCHES, height)
    figure.set_size_inches(width, height)
    figure.draw_without_rendering()


def shortened(text: str, most: int) -> str:
    """Return a text of at most so many letters: what identifies a name stands at its beginning and its end."""
    if len(text) <= most:
        return text
    kept = max(most - 1, 2)
    return f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"


def _keep_titles_apart(figure: Figure) -> None:
    """Make the titles that are wider than their room smaller, then shorter: of one axes the figure, of several their own."""
    titles = [(figure._suptitle, figure.bbox.width)] if figure._suptitle is not None else []  # type: ignore[attr-defined]
    for axes in figure.axes:
        place = axes.get_subplotspec()
        is_alone = place is None or place.get_gridspec().ncols == 1
        room = 2 * min(axes.bbox.x1 + axes.bbox.x0, 2 * figure.bbox.width - axes.bbox.x1 - axes.bbox.x0) / 2
        titles.append((axes.title, room if is_alone else 1.12 * axes.bbox.width))
    wide = [title for title, room in titles if title.get_window_extent().width > room]
    if any(title is not figure._suptitle for title in wide):  # type: ignore[attr-defined]
        wide += [axes.title for axes in figure.axes]  # titles of one figure are alike
    for title in wide:
        title.set_fontsize(SMALLEST_TEXT)
    for title, room in titles:
        whole = title.get_text()
        most = len(whole)
        while title.get_window_extent().width > room and most > 6:
            most -= 1
            title.set_text(shortened(whole, most))


def _all_axes(figure: Figure) -> list[Any]:
    """Return the axes of a figure and those inset in them, as the color bars are."""
    return [inner for axes in figure.axes for inner in (axes, *axes.child_axes)]
