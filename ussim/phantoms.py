"""Procedural phantoms: what lies where in a field, how strongly it scatters, and what it is called.

    phantom = ussim.phantoms.cysts()                      the regular arrangement, over 38 x 38 mm
    phantom = ussim.phantoms.make("vessel", x, z, seed=7)  another one for each seed, over a field of one's own
    scatterers = phantom.scatterers(acquisition, seed=0)

Without a seed a phantom is the regular one of its kind, to measure on; a seed moves, scales and mixes what is in it, so that
there is no end to them. Levels are in dB of scatterer amplitude, 0 dB the brightest tissue.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .acquisition import Acquisition
from .probes import Probe
from .scatterers import scatterers_from_image
from .shown import Shown, draw
from .types import ImageGrid, Scatterers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOOR_DB = -60.0  # what scatters this little does not scatter at all
FIELD_X, FIELD_Z = (-19e-3, 19e-3), (5e-3, 43e-3)  # m, the default field: that of a linear array of 38 mm
ROWS = 384

Extent = tuple[float, float]


@dataclass(frozen=True, eq=False, repr=False)
class Phantom(Shown):
    """A map of echo strength with names for what is in it, and single points.

    Attributes
    ----------
    name : str
        The kind: a key of `KINDS`.
    grid : ImageGrid
        The pixel centers of the maps, m.
    level_db : np.ndarray
        (nz, nx) float32, dB of scatterer amplitude: 0 is the brightest tissue, FLOOR_DB scatters nothing.
    labels : np.ndarray
        (nz, nx) uint8: 0 is unnamed tissue, k is `label_names[k - 1]`.
    label_names : tuple of str
        What the labels are called.
    points : np.ndarray
        (n, 3) single scatterers: x and z, m, and level, dB.
    """

    name: str
    grid: ImageGrid
    level_db: np.ndarray
    labels: np.ndarray
    label_names: tuple[str, ...]
    points: np.ndarray

    def image(self, dynamic_range_db: float = 40.0) -> np.ndarray:
        """Return the grey image of the levels, its points as dots two pixels wide.

        Parameters
        ----------
        dynamic_range_db : float
            From white (0 dB) to black, dB, above 0.

        Returns
        -------
        np.ndarray
            (nz, nx) float32 in [0, 1].
        """
        if not (np.isfinite(dynamic_range_db) and dynamic_range_db > 0):
            raise ValueError(f"dynamic_range_db: expected dB above 0, got {dynamic_range_db!r}")
        grey = np.clip(1 + self.level_db / dynamic_range_db, 0, 1)
        for x, z, level in self.points:
            spread = 2 * (self.grid.z[1] - self.grid.z[0]) ** 2
            dot = np.exp(-((self.grid.x - x) ** 2 + (self.grid.z[:, None] - z) ** 2) / spread)
            grey = np.maximum(grey, dot * np.clip(1 + level / dynamic_range_db, 0, 1))
        return grey.astype(np.float32)

    def plot(self, dynamic_range_db: float = 60.0) -> Figure:
        """Draw the phantom as `image` gives it, axes in mm.

        Parameters
        ----------
        dynamic_range_db : float
            From white (0 dB) to black, dB, above 0; 60 by default.

        Returns
        -------
        matplotlib.figure.Figure
            `figure.savefig(path)` keeps it.
        """
        return draw("bmode_figure", self.image(dynamic_range_db), self.grid, dynamic_range_db)

    def scatterers(
        self,
        acquisition: Acquisition,
        seed: int | np.random.Generator = 0,
        mean_distance: float | None = None,
        thickness: float | None = None,
    ) -> Scatterers:
        """Draw scatterers that follow the levels, and add the points.

        Parameters
        ----------
        acquisition : Acquisition
            Its probe bounds the scatterers; with the medium it gives their default distance.
        seed : int or np.random.Generator
            Of the draw: another draw of the same phantom for each.
        mean_distance : float, optional
            m between neighbors, as `scatterers_from_image` takes it.
        thickness : float, optional
            Of a slab in elevation, m, as `scatterers_from_image` takes it; the points lie in its middle.

        Returns
        -------
        Scatterers
            None where the level is FLOOR_DB.
        """
        grey = 1 - self.level_db / FLOOR_DB
        drawn = scatterers_from_image(grey, self.grid, acquisition, seed, mean_distance, -FLOOR_DB, thickness)
        heard = drawn.reflectivity > 0
        # Black tissue is FLOOR_DB below white in that draw, times a Rayleigh variable: here it is silent.
        column = np.clip(np.searchsorted(self.grid.x, drawn.x), 0, self.grid.x.size - 1)
        row = np.clip(np.searchsorted(self.grid.z, drawn.z), 0, self.grid.z.size - 1)
        heard &= grey[row, column] > 0
        points = self.points[~acquisition.probe.is_behind(self.points[:, 0], self.points[:, 1])]
        return drawn.select(heard).join(Scatterers(points[:, 0], points[:, 1], 10 ** (points[:, 2] / 20)))


def names() -> list[str]:
    """Return the kinds of phantom that `make` takes."""
    return list(KINDS)


def make(
    name: str,
    x: Extent = FIELD_X,
    z: Extent = FIELD_Z,
    seed: int | None = None,
    rows: int = ROWS,
    apex: float | None = None,
) -> Phantom:
    """Make the phantom of that kind over a field.

    Parameters
    ----------
    name : str
        One of `names()`.
    x, z : (float, float)
        Lateral extent and depths of the field (low, high), m.
    seed : int, optional
        None is the regular arrangement, a number one of endlessly many.
    rows : int
        Of the maps; pixels are square.
    apex : float, optional
        Depth z, m, that beams run from, for the shadows; None for beams straight down (see `beam_apex`).

    Returns
    -------
    Phantom

    Raises
    ------
    ValueError
        There is no such kind, the field is empty, the rows are too few or too many, or the apex is not above its end.
    """
    return KINDS[check_name(name)](x, z, seed, rows, apex)


def check_name(name: str) -> str:
    """Return the name of a kind as `KINDS` has it; raises ValueError with the near miss where there is none."""
    if name.lower() in KINDS:
        return name.lower()
    near = difflib.get_close_matches(name.lower(), KINDS, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(f"unknown phantom {name!r}{hint}; expected one of {', '.join(KINDS)}")


def beam_apex(probe: Probe) -> float | None:
    """Return the depth, m, that a probe's beams run from; None where they run straight down."""
    return probe.beam_apex


# --- drawing ---------------------------------------------------------------------------------------------------------


class _Canvas:
    """The maps while they are painted. Distances are in m, below 0 inside; positions u, v are shares of the field."""

    def __init__(self, x: Extent, z: Extent, seed: int | None, rows: int, apex: float | None, level_db: float) -> None:
        for key, (low, high) in (("x", x), ("z", z)):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"{key}: expected a field (low, high) in m, got ({low!r}, {high!r})")
        if not 16 <= rows <= 4096:
            raise ValueError(f"rows: expected 16 to 4096, got {rows!r}")
        if apex is not None and not (math.isfinite(apex) and apex < z[1]):
            raise ValueError(f"apex: expected a depth above the field's end ({z[1]:g} m), got {apex!r}")
        self.width, self.depth = x[1] - x[0], z[1] - z[0]
        self.pixel = self.depth / (rows - 1)
        columns = int(np.clip(round(self.width / self.pixel) + 1, 16, 16 * rows))
        self.grid = ImageGrid(np.linspace(*x, columns), np.linspace(*z, rows))
        self.x, self.z = self.grid.x[None, :], self.grid.z[:, None]
        self.unit = min(self.width, self.depth) / 38e-3  # sizes below are for 38 mm
        self.apex = apex
        self.regular = seed is None
        self.rng = np.random.default_rng(0 if seed is None else seed)
        self.level = np.full((rows, columns), float(level_db))
        self.labels = np.zeros((rows, columns), np.uint8)
        self.names: list[str] = []
        self.points: list[tuple[float, float, float]] = []

    def about(self, value: float, spread: float) -> float:
        """`value` in a regular phantom; uniform within ± `spread` of it in another."""
        return value if self.regular else value + spread * float(self.rng.uniform(-1, 1))

    def millimeters(self, value: float, spread: float = 0.0) -> float:
        """Return a length for a field of 38 mm, mm, as m in this field; ± `spread` (a share of it) where not regular."""
        return 1e-3 * self.unit * self.about(value, spread * value)

    def at(self, u: float, v: float, spread: float = 0.0) -> tuple[float, float]:
        """Return the position x, z, m, of shares of the field."""
        u, v = self.about(u, spread), self.about(v, spread)
        return self.grid.x[0] + u * self.width, self.grid.z[0] + v * self.depth

    def texture(self, across: float, down: float, slope: np.ndarray | float = 0.0) -> np.ndarray:
        """Smooth noise of standard deviation 1, correlated over `across` by `down` m, sheared by a depth of `slope`, m."""
        from scipy.ndimage import gaussian_filter, map_coordinates

        noise: np.ndarray = gaussian_filter(
            self.rng.standard_normal(self.level.shape), (down / self.pixel, across / self.pixel), mode="wrap"
        )
        noise /= noise.std()
        if np.any(slope):
            rows, columns = np.indices(noise.shape)
            noise = map_coordinates(noise, (rows - slope / self.pixel, columns), order=1, mode="grid-wrap")
        return noise

    def disc(self, center: tuple[float, float], radius: float) -> np.ndarray:
        return np.hypot(self.x - center[0], self.z - center[1]) - radius

    def ellipse(self, center: tuple[float, float], along: float, across: float, angle: float = 0.0) -> np.ndarray:
        """To first order: exact on the outline."""
        cos, sin = math.cos(angle), math.sin(angle)
        dx, dz = self.x - center[0], self.z - center[1]
        p, q = cos * dx + sin * dz, cos * dz - sin * dx
        reach = np.hypot(p / along, q / across)
        slope = np.hypot(p / along**2, q / across**2)
        return np.where(slope > 0, reach * (reach - 1) / np.maximum(slope, 1e-30), -min(along, across))

    def below(self, depth: np.ndarray | float) -> np.ndarray:
        """Everything deeper than a depth, m, that may differ by column."""
        below: np.ndarray = depth - self.z + 0 * self.x
        return below

    def band(self, depth: np.ndarray | float, thickness: float) -> np.ndarray:
        """Return a band about a depth, m, that may differ by column."""
        within: np.ndarray = np.abs(self.z - depth) - thickness / 2 + 0 * self.x
        return within

    def wave(self, v: float, height_mm: float, n_waves: float = 1.0) -> np.ndarray:
        """Depths (1, nx), m, of a line about the share `v` of the field that rises and falls by `height_mm`."""
        phase = self.about(0.0, math.pi)
        u = (self.x - self.grid.x[0]) / self.width
        height = self.millimeters(height_mm, 0.4)
        depth: np.ndarray = (
            self.grid.z[0] + self.about(v, 0.03) * self.depth + height * np.sin(2 * math.pi * n_waves * u + phase)
        )
        return depth

    def paint(self, distance: np.ndarray, level_db: np.ndarray | float, label: str = "") -> None:
        """Set the level inside an outline, its edge one pixel wide, and give it a name."""
        cover = np.clip(0.5 - distance / self.pixel, 0, 1)
        self.level += cover * (level_db - self.level)
        if label:
            if label not in self.names:
                self.names.append(label)
            self.labels[distance < 0] = self.names.index(label) + 1

    def shade(self, center: tuple[float, float], radius: float, loss_db: float, label: str) -> None:
        """Darken what lies behind a disc, as seen along the beams."""
        if self.apex is None:
            aside, behind, half = np.abs(self.x - center[0]) + 0 * self.z, self.z - center[1] + 0 * self.x, radius
        else:
            own = math.atan2(center[0], center[1] - self.apex)
            reach = math.hypot(center[0], center[1] - self.apex)
            range_ = np.hypot(self.x, self.z - self.apex)
            aside = np.abs(np.arctan2(self.x, self.z - self.apex) - own) * range_
            behind, half = range_ - reach, radius * range_ / reach
        soft = np.clip((half - aside) / (0.4 * radius) + 0.5, 0, 1) * np.clip((behind - radius) / radius, 0, 1)
        self.level = self.level - loss_db * soft
        if label not in self.names:
            self.names.append(label)
        self.labels[(soft > 0.5) & (self.labels == 0)] = self.names.index(label) + 1

    def finish(self, name: str) -> Phantom:
        level = np.clip(self.level, FLOOR_DB, 0).astype(np.float32)
        points = np.asarray(self.points, np.float64).reshape(-1, 3)
        return Phantom(name, self.grid, level, self.labels, tuple(self.names), points)


# --- to measure on ---------------------------------------------------------------------------------------------------


def wires(
    x: Extent = FIELD_X, z: Extent = FIELD_Z, seed: int | None = None, rows: int = ROWS, apex: float | None = None
) -> Phantom:
    """Make points in water: a column down the middle and three rows, for widths and positions (arguments as `make`)."""
    canvas = _Canvas(x, z, seed, rows, apex, FLOOR_DB)
    column = [(0.5, v) for v in np.linspace(0.08, 0.92, 8)]
    lines = [(u, v) for v in (column[1][1], column[4][1], column[6][1]) for u in (0.1, 0.23, 0.37, 0.63, 0.77, 0.9)]
    for u, v in [*column, *lines]:
        canvas.points.append((*canvas.at(u, v, 0.03), canvas.about(0.0, 6.0)))
    return canvas.finish("wires")


def cysts(
    x: Extent = FIELD_X, z: Extent = FIELD_Z, seed: int | None = None, rows: int = ROWS, apex: float | None = None
) -> Phantom:
    """Make anechoic discs of three sizes in uniform speckle, and one bright disc (arguments as `make`)."""
    canvas = _Canvas(x, z, seed, rows, apex, -14.0)
    for v in (0.2, 0.5, 0.8):
        for u, radius in ((0.18, 1.5), (0.42, 2.5), (0.72, 4.0)):
            canvas.paint(canvas.disc(canvas.at(u, v, 0.03), canvas.millimeters(radius, 0.25)), FLOOR_DB, "cyst")
    canvas.paint(canvas.disc(canvas.at(0.92, 0.35, 0.02), canvas.millimeters(1.8, 0.2)), 0.0, "bright disc")
    return canvas.finish("cysts")


def lesions(
    x: Extent = FIELD_X, z: Extent = FIELD_Z, seed: int | None = None, rows: int = ROWS, apex: float | None = None
) -> Phantom:
    """Make discs of low contrast, -16 to +8 dB about uniform speckle, for what is lost or made (arguments as `make`)."""
    canvas = _Canvas(x, z, seed, rows, apex, -16.0)
    steps = [-16, -8, -4, -2, 2, 4, 8, -6, 6] if canvas.regular else list(canvas.rng.uniform(-16, 8, 9).round(1))
    places = [(u, v) for v in (0.2, 0.5, 0.8) for u in (0.2, 0.5, 0.8)]
    for (u, v), step in zip(places, steps, strict=True):
        disc = canvas.disc(canvas.at(u, v, 0.03), canvas.millimeters(3.5, 0.3))
        canvas.paint(disc, -16.0 + step, f"lesion {step:+g} dB")
    return canvas.finish("lesions")


# --- like a body -----------------------------------------------------------------------------------------------------


def layers(
    x: Extent = FIELD_X, z: Extent = FIELD_Z, seed: int | None = None, rows: int = ROWS, apex: float | None = None
) -> Phantom:
    """Make skin, fat with septa, fascia and muscle in layers (arguments as `make`)."""
    canvas = _Canvas(x, z, seed, rows, apex, -10.0)
    canvas.paint(canvas.below(canvas.grid.z[0]), -6.0, "skin")
    _fat_and_muscle(canvas, canvas.wave(0.07, 0.2), canvas.wave(0.38, 1.0))
    deep = canvas.wave(0.82, 0.8)
    canvas.paint(canvas.below(deep), -22.0 + 1.5 * canvas.texture(3e-3 * canvas.unit, 0.4e-3 * canvas.unit), "bed")
    canvas.paint(canvas.band(deep, canvas.millimeters(0.5)), -4.0, "fascia")
    return canvas.finish("layers")


def muscle(
    x: Extent = FIELD_X, z: Extent = FIELD_Z, seed: int | None = None, rows: int = ROWS, apex: float | None = None
) -> Phantom:
    """Make pennate muscle: slanted fibers on both sides of a bright tendon sheet (arguments as `make`)."""
    canvas = _Canvas(x, z, seed, rows, apex, -20.0)
    sheet = canvas.wave(0.5, 1.0, 0.5)
    tilt = canvas.about(0.25, 0.12)
    fibers = []
    for side in (1.0, -1.0):
        slope = side * tilt * (canvas.x - canvas.grid.x[0])
        fibers.append(canvas.texture(5e-3 * canvas.unit, 0.22e-3 * canvas.unit, slope + 0 * canvas.z))
    canvas.paint(-np.ones_like(canvas.level), -20.0 + 6.0 * fibers[0], "muscle")
    canvas.paint(canvas.below(sheet), -20.0 + 6.0 * fibers[1], "muscle")
    canvas.paint(canvas.band(sheet, canvas.millimeters(0.7, 0.3)), -2.0, "tendon")
    for v in (0.06, 0.95):
        canvas.paint(canvas.band(canvas.wave(v, 0.5), canvas.millimeters(0.6, 0.3)), -3.0, "fascia")
    return canvas.finish("muscle")


def vessel(
    x: Extent = FIELD_X, z: Extent = FIELD_Z, seed: int | None = None, rows: int = ROWS, apex: float | None = None
) -> Phantom:
    """Make an artery along its length: bright walls, a silent lumen, plaque on the far wall (arguments as `make`)."""
    canvas = _Canvas(x, z, seed, rows, apex, -14.0)
    _fat_and_muscle(canvas, canvas.wave(0.0, 0.0), canvas.wave(0.12, 0.5))
    middle = canvas.wave(0.55, 0.8, 0.5) + canvas.about(0.0, 0.08) * (canvas.x - canvas.x.mean())
    bore = canvas.millimeters(6.5, 0.25)
    wall = canvas.millimeters(0.9, 0.2)
    canvas.paint(canvas.band(middle, bore + 4 * wall), -8.0 + canvas.texture(3e-3, 0.3e-3), "")
    canvas.paint(canvas.band(middle, bore + 2 * wall), -22.0, "wall")
    canvas.paint(canvas.band(middle, bore + 0.6 * wall), -3.0, "wall")
    canvas.paint(canvas.band(middle, bore), FLOOR_DB, "lumen")
    if canvas.regular or canvas.rng.random() < 0.7:
        u = canvas.about(0.68, 0.2)
        column = int(u * (canvas.grid.x.size - 1))
        center = (float(canvas.grid.x[column]), float(middle[0, column]) + bore / 2)
        bump = canvas.ellipse(center, canvas.millimeters(4.5, 0.4), canvas.millimeters(1.8, 0.4))
        canvas.paint(np.maximum(bump, canvas.band(middle, bore)), -15.0, "plaque")
    return canvas.finish("vessel")


def calcifications(
    x: Extent = FIELD_X, z: Extent = FIELD_Z, seed: int | None = None, rows: int = ROWS, apex: float | None = None
) -> Phantom:
    """Make bright stones of 0.5 to 2 mm with the shadows behind them (arguments as `make`)."""
    canvas = _Canvas(x, z, seed, rows, apex, -16.0)
    canvas.level += 1.5 * canvas.texture(2.5e-3 * canvas.unit, 2e-3 * canvas.unit)
    for u, v, radius in ((0.2, 0.25, 0.5), (0.45, 0.45, 1.0), (0.8, 0.3, 2.0), (0.65, 0.65, 0.7)):
        center, radius = canvas.at(u, v, 0.06), canvas.millimeters(radius, 0.4)
        canvas.paint(canvas.ellipse(center, 1.3 * radius, radius), 0.0, "calcification")
        canvas.shade(center, radius, canvas.about(28.0, 10.0), "shadow")
    return canvas.finish("calcifications")


def liver(
    x: Extent = FIELD_X, z: Extent = FIELD_Z, seed: int | None = None, rows: int = ROWS, apex: float | None = None
) -> Phantom:
    """Make parenchyma with vessels cut across and along, and lesions of any contrast (arguments as `make`)."""
    canvas = _Canvas(x, z, seed, rows, apex, -18.0)
    canvas.level += 1.2 * canvas.texture(3e-3 * canvas.unit, 3e-3 * canvas.unit)
    for _ in range(3 if canvas.regular else int(canvas.rng.integers(1, 5))):
        center = canvas.at(*canvas.rng.uniform(0.1, 0.9, 2))
        level, radius = float(canvas.rng.uniform(-30, -8)), canvas.millimeters(float(canvas.rng.uniform(2, 6)))
        shape = canvas.ellipse(
            center, radius, radius * float(canvas.rng.uniform(0.6, 1)), float(canvas.rng.uniform(0, 3))
        )
        canvas.paint(shape, level + canvas.texture(1e-3, 1e-3), "lesion")
    for _ in range(7):
        center, radius = canvas.at(*canvas.rng.uniform(0.05, 0.95, 2)), float(canvas.rng.uniform(0.5, 2.2))
        along, angle = radius * float(canvas.rng.uniform(1, 6)), float(canvas.rng.uniform(-1, 1))
        tube = canvas.ellipse(center, canvas.millimeters(along), canvas.millimeters(radius), angle)
        canvas.paint(tube - canvas.millimeters(0.35), -8.0)  # the wall
        canvas.paint(tube, -48.0, "vessel")
    return canvas.finish("liver")


def heart(
    x: Extent = FIELD_X, z: Extent = FIELD_Z, seed: int | None = None, rows: int = ROWS, apex: float | None = None
) -> Phantom:
    """Make a heart-like short axis: a ring of muscle, two silent chambers, a bright sac (arguments as `make`)."""
    canvas = _Canvas(x, z, seed, rows, apex, -20.0)
    canvas.level += 2.0 * canvas.texture(3e-3 * canvas.unit, 1e-3 * canvas.unit)
    center = canvas.at(0.55, 0.52, 0.04)
    outer, wall = canvas.millimeters(13.0, 0.12), canvas.millimeters(3.6, 0.25)
    squeeze, turn = canvas.about(0.9, 0.08), canvas.about(0.2, 0.5)
    sac = canvas.ellipse(center, outer, squeeze * outer, turn)
    right = (center[0] - 0.95 * outer, center[1] - 0.35 * outer)
    canvas.paint(canvas.ellipse(right, 0.75 * outer, 0.55 * outer, turn), -52.0, "right ventricle")
    canvas.paint(sac - canvas.millimeters(0.8), -4.0)
    canvas.paint(sac, -16.0 + 2.5 * canvas.texture(1.5e-3 * canvas.unit, 0.7e-3 * canvas.unit), "myocardium")
    inside = canvas.ellipse(center, outer - wall, squeeze * (outer - wall), turn)
    canvas.paint(inside, -52.0, "left ventricle")
    for side in (1.0, -1.0):
        place = (center[0] + side * 0.42 * (outer - wall), center[1] + 0.45 * (outer - wall))
        canvas.paint(canvas.disc(place, canvas.millimeters(1.7, 0.25)), -14.0, "papillary muscle")
    return canvas.finish("heart")


def fetus(
    x: Extent = FIELD_X, z: Extent = FIELD_Z, seed: int | None = None, rows: int = ROWS, apex: float | None = None
) -> Phantom:
    """Make a fetal-like head in fluid: skull, midline, ventricles, under a uterine wall (arguments as `make`)."""
    canvas = _Canvas(x, z, seed, rows, apex, FLOOR_DB)
    near, far = canvas.wave(0.14, 1.2, 0.5), canvas.wave(0.93, 1.0, 0.5)
    tissue = -18.0 + 3.0 * canvas.texture(2e-3 * canvas.unit, 0.8e-3 * canvas.unit)
    canvas.paint(-np.ones_like(canvas.level), tissue, "uterine wall")
    canvas.paint(np.maximum(canvas.below(near), -canvas.below(far)), FLOOR_DB, "amniotic fluid")
    center, turn = canvas.at(0.5, 0.54, 0.03), canvas.about(0.15, 0.4)
    along, across = canvas.millimeters(14.0, 0.1), canvas.millimeters(10.5, 0.1)
    head = canvas.ellipse(center, along, across, turn)
    canvas.paint(head, -2.0, "skull")
    canvas.paint(head + canvas.millimeters(1.0), -28.0 + 2.0 * canvas.texture(1.5e-3, 0.8e-3), "brain")
    middle = canvas.ellipse(center, 0.86 * along, canvas.millimeters(0.35), turn)
    for side in (1.0, -1.0):
        off = side * 0.4 * across
        place = (center[0] - math.sin(turn) * off, center[1] + math.cos(turn) * off)
        canvas.paint(canvas.ellipse(place, 0.45 * along, 0.16 * across, turn), -55.0, "ventricle")
        canvas.paint(canvas.ellipse(place, 0.2 * along, 0.1 * across, turn), -10.0, "choroid plexus")
    canvas.paint(middle, -5.0, "midline")
    return canvas.finish("fetus")


def _fat_and_muscle(canvas: _Canvas, top: np.ndarray, fascia: np.ndarray) -> None:
    """Fat with septa from one line to the next, muscle with fibers from there down."""
    septa = canvas.texture(3e-3 * canvas.unit, 0.35e-3 * canvas.unit)
    canvas.paint(canvas.below(top), -28.0 + 10.0 * np.clip(septa - 0.8, 0, 1.5), "fat")
    slope = canvas.about(0.1, 0.1) * (canvas.x - canvas.grid.x[0]) + 0 * canvas.z
    fibers = canvas.texture(4e-3 * canvas.unit, 0.25e-3 * canvas.unit, slope)
    canvas.paint(canvas.below(fascia), -20.0 + 5.0 * fibers, "muscle")
    canvas.paint(canvas.band(fascia, canvas.millimeters(0.6, 0.3)), -4.0, "fascia")


KINDS: dict[str, Callable[[Extent, Extent, int | None, int, float | None], Phantom]] = {
    function.__name__: function
    for function in (wires, cysts, lesions, layers, muscle, vessel, calcifications, liver, heart, fetus)
}
