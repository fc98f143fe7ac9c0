"""Movies: a picture whose images change, as an animated GIF, or as MP4 where there is ffmpeg.

A figure is made once; `write_frames` calls what changes it, and writes what it looks like then.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..beamforming.scan_convert import PolarGrid
from ..errors import DeviceError
from ..extras import needs
from ..io.atomic import replacing
from ..probes import Probe
from ..types import ImageGrid
from .figures import _bar, bmode_figure, draw_field, image_row
from .flow import doppler_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAMES_PER_SECOND = 10.0
SUFFIXES = (".gif", ".mp4")
GREYS, COLORS = "L", "P"  # kinds of pages of a GIF
LOOKED_AT = 8  # frames that a palette is made of
ELEMENTS_COLOUR = "#238636"


def nothing_said(done: int, total: int) -> None:
    """Take no notice of progress."""


def save_movie(
    path: str | Path,
    bmodes: Sequence[np.ndarray],
    grid: ImageGrid | PolarGrid,
    dynamic_range_db: float,
    titles: Sequence[str],
    progress: Callable[[int, int], None] = nothing_said,
    rate: float = FRAMES_PER_SECOND,
) -> None:
    """Write B-modes of the grid's shape, in [0, 1], as a movie, which appears when it is complete.

    Parameters
    ----------
    path : str or Path
        A name that ends in .gif or .mp4.
    bmodes : sequence of np.ndarray
        Of the grid's shape, in [0, 1].
    grid : ImageGrid or PolarGrid
        Pixel centers.
    dynamic_range_db : float
        From white to black, dB.
    titles : sequence of str
        One per frame.
    progress : callable
        Called with the frames done and their number.
    rate : float
        Frames shown per second; 10 by default.

    Raises
    ------
    OSError
        The file cannot be written; nothing is left of it.
    MissingPackageError
        An MP4 is asked for and there is no ffmpeg.
    """
    figure = bmode_figure(bmodes[0], grid, dynamic_range_db, titles[0])
    axes = figure.axes[0]

    def draw(frame: int) -> None:
        axes.images[0].set_data(bmodes[frame])
        axes.set_title(titles[frame])

    write_frames(path, figure, draw, len(bmodes), rate, progress, GREYS)


def save_doppler_movie(
    path: str | Path,
    bmodes: Sequence[np.ndarray],
    velocities: Sequence[np.ndarray],
    grid: ImageGrid,
    limit: float,
    titles: Sequence[str],
    progress: Callable[[int, int], None] = nothing_said,
    rate: float = FRAMES_PER_SECOND,
) -> None:
    """Write B-modes and velocities over them as a movie (see `save_movie`).

    Parameters
    ----------
    path : str or Path
        A name that ends in .gif or .mp4.
    bmodes : sequence of np.ndarray
        (nz, nx) in [0, 1].
    velocities : sequence of np.ndarray
        (nz, nx) m/s towards the array; NaN is not drawn.
    grid : ImageGrid
        Pixel centers, m.
    limit : float
        Velocity at the ends of the colors, m/s.
    titles : sequence of str
        One per frame.
    progress, rate
        As in `save_movie`.
    """
    figure = doppler_figure(bmodes[0], velocities[0], grid, limit, titles[0])
    left, right = figure.axes[:2]

    def draw(frame: int) -> None:
        left.images[0].set_data(bmodes[frame])
        right.images[0].set_data(bmodes[frame])
        right.images[1].set_data(np.ma.masked_invalid(100 * velocities[frame]))
        left.set_title(titles[frame])

    write_frames(path, figure, draw, len(bmodes), rate, progress)


def save_field_movie(
    path: str | Path,
    field: np.ndarray,
    grid: ImageGrid,
    times: np.ndarray,
    probe: Probe,
    title: str = "",
    progress: Callable[[int, int], None] = nothing_said,
    rate: float = FRAMES_PER_SECOND,
) -> None:
    """Write the pressure of a transmit, as `wave_field` gives it, as a movie (see `save_movie`).

    Parameters
    ----------
    path : str or Path
        A name that ends in .gif or .mp4.
    field : np.ndarray
        (n_times, nz, nx) pressure.
    grid : ImageGrid
        Points of the field, m.
    times : np.ndarray
        (n_times,) s, shown above.
    probe : Probe
        Drawn where it lies; behind it nothing is.
    title : str
        Before the time.
    progress, rate
        As in `save_movie`.
    """
    figure = field_figure(field[0], grid, probe, field_limit(field))
    axes = figure.axes[0]
    behind = probe.is_behind(grid.x[None, :], grid.z[:, None])

    def draw(frame: int) -> None:
        axes.images[0].set_data(np.ma.masked_where(behind, field[frame]))
        axes.set_title(f"{title}, {1e6 * times[frame]:.1f} µs".lstrip(", "))

    write_frames(path, figure, draw, len(field), rate, progress)


def field_figure(pressure: np.ndarray, grid: ImageGrid, probe: Probe, limit: float, title: str = "") -> Figure:
    """Return the pressure (nz, nx) of a wave at one time, red above and blue below that at rest, the array where it lies.

    Parameters
    ----------
    pressure : np.ndarray
        (nz, nx).
    grid : ImageGrid
        Points of the field, m.
    probe : Probe
        The array.
    limit : float
        Pressure at the ends of the colors.
    title : str
        Above it.

    Returns
    -------
    Figure
    """
    figure, (axes,) = image_row(grid, 1)
    shown = np.ma.masked_where(probe.is_behind(grid.x[None, :], grid.z[:, None]), pressure)
    image = draw_field(axes, shown, grid, probe, ELEMENTS_COLOUR, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.set_title(title)
    _bar(figure, axes, image, "pressure")
    bar = axes.child_axes[0]
    bar.set_yticks([-limit, 0, limit], ["low", "0", "high"])
    return figure


def field_limit(field: np.ndarray) -> float:
    """Return the pressure that the colors of a wave end at: the median of its largest over time, where there is any."""
    largest = np.abs(field).max(axis=(1, 2))
    under_way = largest[largest > 0.05 * largest.max()]
    return float(np.median(under_way)) if under_way.size else 1.0


# --- files -----------------------------------------------------------------------------------------------------------


def check_movie(path: str | Path) -> None:
    """Find out before the work whether a movie of this name can be made.

    Raises
    ------
    ValueError
        Its suffix is neither .gif nor .mp4.
    MissingPackageError
        It is an MP4 and there is no ffmpeg.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: expected a movie name ending in .gif or .mp4, got {suffix!r}")
    if suffix == ".mp4":
        find_ffmpeg()


def find_ffmpeg() -> str:
    """Return the ffmpeg on the path, or that of the package imageio-ffmpeg.

    Raises
    ------
    MissingPackageError
        There is neither.
    """
    found = shutil.which("ffmpeg")
    return found or str(needs("imageio_ffmpeg", "or put ffmpeg on the path, or write a .gif").get_ffmpeg_exe())


def write_frames(
    path: str | Path,
    figure: Figure,
    draw: Callable[[int], None],
    n_frames: int,
    rate: float = FRAMES_PER_SECOND,
    progress: Callable[[int, int], None] = nothing_said,
    kind: str = COLORS,
) -> None:
    """Write a movie of a figure that `draw` changes; the file appears when it is complete.

    Parameters
    ----------
    path : str or Path
        A name that ends in .gif or .mp4.
    figure : Figure
        As big in pixels as the movie.
    draw : callable
        Called with the number of each frame: makes the figure that frame's.
    n_frames : int
        How many.
    rate : float
        Frames per second; a GIF has whole hundredths of a second per frame.
    progress : callable
        Called with the frames done and their number.
    kind : str
        Of a GIF: "L" for greys, "P" for colors.

    Raises
    ------
    ValueError, MissingPackageError
        As `check_movie`.
    DeviceError
        ffmpeg fails.
    OSError
        The file cannot be written; nothing is left of it.
    """
    check_movie(path)
    if Path(path).suffix.lower() == ".mp4":
        _write_mp4(path, figure, draw, n_frames, rate, progress)
    else:
        _write_gif(path, figure, draw, n_frames, rate, progress, kind)


def _write_gif(
    path: str | Path,
    figure: Figure,
    draw: Callable[[int], None],
    n_frames: int,
    rate: float,
    progress: Callable[[int, int], None],
    kind: str,
) -> None:
    palette = None if kind == GREYS else _palette(figure, draw, n_frames)
    pages = []
    for i in range(n_frames):
        draw(i)
        page = _page(figure)
        pages.append(page.convert("L") if palette is None else page.quantize(palette=palette, dither=0))
        progress(i + 1, n_frames)
    with replacing(path) as temporary:
        pages[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=pages[1:],
            duration=max(20, 10 * round(100 / rate)),  # ms; players take less than 20 for slow
            loop=0,
            optimize=False,
        )


def _page(figure: Figure) -> Any:
    """Return what a figure looks like, as a PIL image."""
    from PIL import Image

    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())  # type: ignore[attr-defined]


def _palette(figure: Figure, draw: Callable[[int], None], n_frames: int) -> Any:
    """Return 256 colors that serve all frames: colors that changed from frame to frame would flicker."""
    from PIL import Image

    pages = []
    for frame in np.unique(np.linspace(0, n_frames - 1, LOOKED_AT).astype(int)):
        draw(int(frame))
        pages.append(np.asarray(_page(figure)))
    return Image.fromarray(np.concatenate(pages)).quantize(256)


def _write_mp4(
    path: str | Path,
    figure: Figure,
    draw: Callable[[int], None],
    n_frames: int,
    rate: float,
    progress: Callable[[int, int], None],
) -> None:
    import matplotlib
    from matplotlib.animation import FFMpegWriter

    program: dict[Any, Any] = {"animation.ffmpeg_path": find_ffmpeg()}
    with replacing(path) as temporary, matplotlib.rc_context(program):
        writer = FFMpegWriter(fps=rate, codec="h264", extra_args=["-f", "mp4"])  # type: ignore[arg-type]
        try:
            with writer.saving(figure, str(temporary), figure.dpi):
                for i in range(n_frames):
                    draw(i)
                    writer.grab_frame()
                    progress(i + 1, n_frames)
        except (subprocess.CalledProcessError, BrokenPipeError) as error:
            said = str(getattr(error, "stderr", None) or error).strip().splitlines()
            raise DeviceError(f"ffmpeg failed ({said[-1] if said else error}): write a .gif instead") from None
