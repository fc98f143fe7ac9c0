"""Pictures: B-modes, HQ|LQ pairs, pressure fields, probes. Axes in mm, depth downwards, decibels where they are meant.

Each function returns a matplotlib `Figure` of its own (no pyplot, no state shared between pictures); `save_figure` writes
it. matplotlib is imported when a picture is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..acquisition import Acquisition
from ..arrays import to_numpy
from ..beamforming.scan_convert import PolarGrid
from ..io.atomic import replacing
from ..transmits import imaging_waves
from ..types import ImageGrid, IQData, RFData
from .describe import describe_probe, describe_waves
from .printing import editable, fit_width, shortened, stamp

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..probes import Probe

IMAGE_HEIGHT = 4.6  # inches of an image's axis
DPI, PRINT_DPI = 150, 300
PAIRS_ACROSS = 3  # in a grid of pairs
CONTOURS_DB = (-20.0, -6.0)  # of a pressure field
FIELD_LEFT_OUT = 0.02  # of a field's pixels that may lie below its range
FIELD_RANGES_DB = 20.0, 80.0
NOTHING_COLOUR = "#d9dde2"  # where there is no field
TITLE_LETTER = 7.0  # points that a letter of a title takes
FIELD_COLOUR, ELEMENT_COLOUR = "#1f6feb", "#111111"


def bmode_figure(
    bmode: np.ndarray, grid: ImageGrid | PolarGrid, dynamic_range_db: float | None, title: str = ""
) -> Figure:
    """Return a B-mode of the grid's shape, in [0, 1], with its decibel bar; without a range, a coherence and its own bar."""
    figure, (axes,) = image_row(grid, 1)
    show_grey(axes, bmode, grid)
    axes.set_title(title)
    if dynamic_range_db is None:
        _bar(figure, axes, axes.images[0], "coherence")
    else:
        decibel_bar(figure, axes, dynamic_range_db)
    return figure


def comparison_figure(
    images: Sequence[np.ndarray], grid: ImageGrid | PolarGrid, dynamic_range_db: float, titles: Sequence[str]
) -> Figure:
    """Two B-modes in [0, 1] side by side, and the first less the second in dB where one of them shows something."""
    figure, axes = image_row(grid, 3)
    for axis, image, title in zip(axes, images, titles, strict=False):
        show_grey(axis, image, grid)
        axis.set_title(title)
    difference = dynamic_range_db * (images[0] - images[1])
    shown = np.where((images[0] > 0) | (images[1] > 0), difference, np.nan)
    limit = dynamic_range_db / 2
    scale = _draw(axes[2], shown, grid, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes[2].set_title("difference")
    axes[1].set_ylabel("")
    axes[2].set_ylabel("")
    decibel_bar(figure, axes[1], dynamic_range_db)
    _bar(figure, axes[2], scale, "dB")
    return figure


def pairs_figure(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    grid: ImageGrid,
    dynamic_range_db: float,
    titles: Sequence[str] = (),
) -> Figure:
    """HQ beside LQ, the pairs in a grid: images (nz, nx) in [0, 1] on one grid; `titles` name the pairs."""
    across = min(math.ceil(math.sqrt(len(pairs))), PAIRS_ACROSS)
    figure, axes = image_row(grid, 2 * across, math.ceil(len(pairs) / across))
    figure.draw_without_rendering()
    letters = int(axes[0].bbox.width / figure.dpi * 72 / TITLE_LETTER) - len("HQ   ")
    for pair, (hq, lq) in enumerate(pairs):
        left, right = axes[2 * pair : 2 * pair + 2]
        show_grey(left, hq, grid)
        show_grey(right, lq, grid)
        title = shortened(titles[pair], letters) if pair < len(titles) else ""
        left.set_title(f"HQ   {title}".rstrip())
        right.set_title("LQ (simulated)")
        right.set_ylabel("")
        right.set_yticklabels([])
        if pair % across:
            left.set_ylabel("")
        if pair % across == across - 1:  # a bar further left would push its column aside
            decibel_bar(figure, right, dynamic_range_db)
        if pair < len(pairs) - across:
            left.set_xlabel("")
            right.set_xlabel("")
    for axis in axes[2 * len(pairs) :]:
        axis.set_visible(False)
    return figure


def pressure_figure(
    pressure: np.ndarray, grid: ImageGrid, probe: Probe, title: str = "", dynamic_range_db: float | None = None
) -> Figure:
    """RMS pressure (nz, nx) in dB of its maximum, contours at -6 and -20 dB, the array drawn where it lies.

    Behind the array there is no field, and none is drawn. Without a range it is what holds nearly all of the field.
    """
    pressure = to_numpy(pressure)
    behind = probe.is_behind(grid.x[None, :], grid.z[:, None])
    seen = np.where(behind, 0.0, pressure)
    largest = seen.max() or 1.0  # silence is at the floor
    exact = 20 * np.log10(np.maximum(seen / largest, 1e-10))
    if dynamic_range_db is None:
        dynamic_range_db = field_range_db(exact[~behind])
    level = np.ma.masked_where(behind, np.maximum(exact, -dynamic_range_db))
    figure, (axes,) = image_row(grid, 1)
    image = draw_field(axes, level, grid, probe, "#3fb950", cmap="inferno", vmin=-dynamic_range_db, vmax=0)
    _draw_contours(axes, grid, level, dynamic_range_db)
    axes.set_title(title)
    _bar(figure, axes, image, "RMS pressure [dB]")
    return figure


def draw_field(axes: Axes, values: np.ndarray, grid: ImageGrid, probe: Probe, array_color: str, **colors: Any) -> Any:
    """Draw what a field is on a grid, and the array where it lies, above the picture's top if need be."""
    axes.set_facecolor(NOTHING_COLOUR)
    image = _draw(axes, values, grid, **colors)
    axes.plot(1e3 * probe.element_x, 1e3 * probe.element_z, color=array_color, linewidth=2.5, solid_capstyle="butt")
    left, right, bottom, top = _extent(grid)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, min(top, -0.5))
    return image


def field_range_db(level_db: np.ndarray) -> float:
    """Return the range, dB, that holds all but FIELD_LEFT_OUT of a field's levels: a whole number of tens, 20 to 80."""
    if level_db.size == 0 or level_db.max() < 0:
        return FIELD_RANGES_DB[0]
    wanted = 10 * math.ceil(-float(np.quantile(level_db, FIELD_LEFT_OUT)) / 10)
    return float(min(max(wanted, FIELD_RANGES_DB[0]), FIELD_RANGES_DB[1]))


def _draw_contours(axes: Axes, grid: ImageGrid, level: np.ndarray, dynamic_range_db: float) -> None:
    """Draw where the field is 6 and 20 dB below its maximum, as far as it is shown."""
    least = float(level.min()) if level.count() else 0.0  # type: ignore[attr-defined]
    levels = [line for line in CONTOURS_DB if max(least, -dynamic_range_db) < line]
    if not levels or min(level.shape) < 2 or level.max() < 0:
        return
    lines = axes.contour(
        1e3 * grid.x, 1e3 * grid.z, level, levels=levels, colors="white", linewidths=0.9, linestyles="solid"
    )
    axes.clabel(lines, fmt=lambda value: f"{value:.0f} dB", fontsize=9)


def channels_figure(data: RFData | IQData, transmit: int = 0, dynamic_range_db: float = 60.0) -> Figure:
    """Return the channel data of one transmit in dB of their largest value, elements across and time down."""
    figure = new_figure(5.4, IMAGE_HEIGHT + 0.85)
    axes = figure.subplots()
    _bar(figure, axes, draw_channels(axes, data, transmit, dynamic_range_db), "dB")
    return figure


def draw_channels(axes: Axes, data: RFData | IQData, transmit: int = 0, dynamic_range_db: float = 60.0) -> Any:
    """Draw the channel data of one transmit in dB of their largest value, elements across, time down; return the image."""
    n = data.acquisition.n_transmits
    if not -n <= transmit < n:
        raise ValueError(f"transmit: expected 0 to {n - 1}, got {transmit}")
    samples = np.abs(to_numpy(data.samples)[transmit]).T
    level = 20 * np.log10(np.maximum(samples / (samples.max() or 1.0), 10 ** (-dynamic_range_db / 20)))
    start = 1e6 * float(data.start_times[transmit])
    end = start + 1e6 * samples.shape[0] / data.sampling_frequency
    extent = (0.5, samples.shape[1] + 0.5, end, start)
    image = axes.imshow(level, extent=extent, cmap="gray", vmin=-dynamic_range_db, vmax=0, aspect="auto")
    axes.set_xlabel("element")
    axes.set_ylabel("time [µs]")
    axes.set_title(f"{data.acquisition.probe.name}, transmit {transmit % n} of {n}")
    return image


def default_figure(probe: Probe) -> Figure:
    """Return a probe and how it images by default (see `probe_figure`)."""
    return probe_figure(Acquisition(probe, imaging_waves(probe)))


def probe_figure(acquisition: Acquisition) -> Figure:
    """Return a probe and how it images.

    Elements and field of view on the left, firing times of each transmit on the right.
    """
    from matplotlib.patches import Rectangle

    probe = acquisition.probe
    figure = new_figure(9.6, 4.6)
    geometry, delays = figure.subplots(1, 2, width_ratios=(1, 1.15))
    figure.suptitle(describe_probe(probe))
    if probe.imaging is not None:
        (left, right), (top, bottom) = probe.imaging.x, probe.imaging.z
        corner = 1e3 * left, 1e3 * top
        size = 1e3 * (right - left), 1e3 * (bottom - top)
        geometry.add_patch(Rectangle(corner, *size, facecolor=FIELD_COLOUR, alpha=0.15, edgecolor="none"))
        geometry.add_patch(Rectangle(corner, *size, fill=False, edgecolor=FIELD_COLOUR))
    half = probe.element_width / 2
    ends = np.array([-half, half])
    x = probe.element_x + ends[:, None] * np.cos(probe.element_angle)
    z = probe.element_z - ends[:, None] * np.sin(probe.element_angle)
    geometry.plot(1e3 * x, 1e3 * z, color=ELEMENT_COLOUR, linewidth=3, solid_capstyle="butt")
    geometry.set_aspect("equal")
    geometry.margins(0.08)
    if not probe.is_flat:
        _draw_chord(geometry, probe)
    geometry.invert_yaxis()
    _label(geometry)
    geometry.set_title("elements and field of view")

    times = 1e6 * acquisition.transmit_delays
    for transmit, laws in enumerate(times):
        shade = transmit / max(len(times) - 1, 1)
        delays.plot(np.arange(1, probe.n_elements + 1), laws.T, color=_colour(shade), linewidth=1.2)
    delays.set_xlabel("element")
    delays.set_ylabel("firing time [µs]")
    delays.set_title(describe_waves(acquisition))
    delays.margins(x=0.01)
    for side in ("top", "right"):
        delays.spines[side].set_visible(False)
    return figure


def _draw_chord(axes: Axes, probe: Probe) -> None:
    """Mark where depths are counted from: z = 0, the chord of a convex array, and how much deeper its apex lies."""
    sagitta = probe.radius + probe.center_of_curvature
    axes.axhline(0, color="0.45", linewidth=0.6)
    axes.annotate(
        f"z = 0: depths from here (apex at {1e3 * sagitta:.1f} mm)",
        (0.5, 0),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize="small",
        color="0.35",
    )


def save_figure(
    figure: Figure,
    path: str | Path,
    settings: Mapping[str, Any] | None = None,
    width_cm: float | None = None,
    dpi: float | None = None,
) -> None:
    """Write a picture; the format is the suffix's (.png, .pdf, .svg). The file appears when it is complete.

    Parameters
    ----------
    figure : Figure
        Changed where `width_cm` is given.
    path : str or Path
        A name that ends in .png, .pdf or .svg.
    settings : mapping, optional
        Kept in the file as JSON (see `printing.stamp`).
    width_cm : float, optional
        Width on paper, cm; the text is 6 to 8 points there. As wide as its images make it by default.
    dpi : float, optional
        Pixels per inch; 150 by default, 300 where a width is given.

    Raises
    ------
    ValueError
        The suffix is none that matplotlib can write.
    OSError
        The file cannot be written; nothing is left of it.
    """
    suffix = Path(path).suffix.lower().removeprefix(".")
    known = figure.canvas.get_supported_filetypes()
    if suffix not in known:
        raise ValueError(f"{path}: expected a picture name ending in .png, .pdf or .svg, got {'.' + suffix!r}")
    frame: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.1}
    if width_cm is not None:
        fit_width(figure, width_cm)
        frame = {}
    dpi = dpi or (DPI if width_cm is None else PRINT_DPI)
    if suffix == "png":
        frame["pil_kwargs"] = {"compress_level": 3}  # under half the time of 6; a speckle image is no larger for it
    with replacing(path) as temporary, editable():
        figure.savefig(temporary, dpi=dpi, format=suffix, metadata=stamp(suffix, settings), **frame)


# --- parts -----------------------------------------------------------------------------------------------------------


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="compressed")
    FigureCanvasAgg(figure)
    return figure


def image_row(grid: ImageGrid | PolarGrid, n_columns: int, n_rows: int = 1) -> tuple[Figure, list[Any]]:
    """Return a figure of equal images, sized so that the grid's proportions fill it; axes row by row."""
    left, right, bottom, top = _extent(grid)
    width = min(max(IMAGE_HEIGHT * (right - left) / (bottom - top) / _aspect(grid), 2.0), 12.0)
    figure = new_figure(n_columns * (width + 0.55) + 0.95, n_rows * (IMAGE_HEIGHT + 0.85))
    return figure, list(figure.subplots(n_rows, n_columns, squeeze=False).ravel())


def show_grey(axes: Axes, image: np.ndarray, grid: ImageGrid | PolarGrid) -> None:
    """Draw an image in grey, axes in mm; of a polar grid in mm and degrees."""
    image = to_numpy(image)
    if image.shape != grid.shape:
        raise ValueError(f"picture: expected an image of shape {grid.shape} for this grid, got {image.shape}")
    if image.dtype == np.uint8:
        image = image / 255.0
    _draw(axes, image, grid, cmap="gray", vmin=0, vmax=1)


def _draw(axes: Axes, image: np.ndarray, grid: ImageGrid | PolarGrid, **colors: Any) -> Any:
    """Draw an image on its grid and name the axes; `colors` are those of `imshow`."""
    _label(axes, isinstance(grid, PolarGrid))
    return axes.imshow(image, extent=_extent(grid), aspect=_aspect(grid), **colors)


def _label(axes: Axes, polar: bool = False) -> None:
    axes.set_xlabel("angle [°]" if polar else "lateral [mm]")
    axes.set_ylabel("radius [mm]" if polar else "depth [mm]")


def decibel_bar(figure: Figure, axes: Axes, dynamic_range_db: float) -> None:
    """Draw the bar of grey levels in dB."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(-dynamic_range_db, 0), "gray")
    _bar(figure, axes, scale, "dB")


def _bar(figure: Figure, axes: Axes, scale: Any, label: str) -> None:
    """Draw a color bar as tall as the image beside it."""
    figure.colorbar(scale, cax=axes.inset_axes((1.03, 0, 0.045, 1)), label=label)


def _extent(grid: ImageGrid | PolarGrid) -> tuple[float, float, float, float]:
    """(left, right, bottom, top) of the pixels' outer edges in mm; left and right of a polar grid in degrees."""
    across, down = (
        (np.rad2deg(grid.angle), 1e3 * grid.radius) if isinstance(grid, PolarGrid) else (1e3 * grid.x, 1e3 * grid.z)
    )
    edges = []
    for axis in (across, down):
        half = (axis[-1] - axis[0]) / max(axis.size - 1, 1) / 2 or 0.5
        edges.append((axis[0] - half, axis[-1] + half))
    (left, right), (top, bottom) = edges
    return left, right, bottom, top


def _aspect(grid: ImageGrid | PolarGrid) -> float:
    """Return how many units of the columns' axis are as long as one of the rows': degrees a mm half way down a sector."""
    return float(np.rad2deg(1e-3 / grid.radius.mean())) if isinstance(grid, PolarGrid) else 1.0


def _colour(shade: float) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](0.05 + 0.8 * shade)
