"""Probes: geometry and bandwidth of a transducer array, read from the presets in `probes/*.toml` or a file of one's own.

A preset names its source and carries two things beside the transducer: the default field of view for imaging and the
default transmit sequence (`[imaging]`), both chosen so that the field is covered two-way.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from dataclasses import dataclass, field, fields
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .doors import probe_fault
from .errors import ConfigError
from .shown import Shown, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ProbeError(ConfigError):
    """A probe that cannot be: the message names the file, the key, what was expected and what came."""


@dataclass(frozen=True)
class Imaging:
    """Imaging defaults of a probe.

    Attributes
    ----------
    x : (float, float)
        Lateral extent of the field of view, m.
    z : (float, float)
        Axial extent of the field of view, m, from z = 0 (of a convex array the chord, see `Probe`).
    transmit : str
        "plane" (the default) or "diverging".
    n_transmits : int
        Number of transmits, 15 by default.
    max_angle : float
        The steering (plane) or tilt (diverging) runs over ± this, rad; 10 degrees by default.
    width : float
        Sector width of a diverging wave, rad; 75 degrees by default.
    """

    x: tuple[float, float]
    z: tuple[float, float]
    transmit: str = "plane"
    n_transmits: int = 15
    max_angle: float = math.radians(10.0)
    width: float = math.radians(75.0)


@dataclass(frozen=True, repr=False)
class Probe(Shown):
    """A one-dimensional array: flat (`radius` infinite: linear, phased) or convex. SI units.

    Elements are numbered left to right. A flat array lies on z = 0; a convex one has its outermost elements at z = 0 and
    its apex at z = +sagitta, as in MUST (Garcia 2021, "Make the most of MUST").

    Attributes
    ----------
    name : str
        As in messages and figures.
    center_frequency : float
        Hz.
    bandwidth : float
        Fraction of the center frequency, pulse-echo at -6 dB, in (0, 2).
    n_elements : int
        Number of elements.
    pitch : float
        Between element centers, along the chord between neighbors, m.
    element_width : float
        Active width, at most the pitch, m.
    element_height : float
        Extent in elevation, m; infinite by default.
    elevation_focus : float
        Depth of the elevation focus, m; infinite (none) by default.
    radius : float
        Radius of curvature, m; infinite, of a flat array, by default.
    baffle : str or float
        "soft" (the default), "rigid", or the impedance ratio medium / baffle, at least 0.
    imaging : Imaging, optional
        Default field of view and transmit sequence; none by default.
    source : str
        Where the values come from; empty by default.
    path : str
        File that the probe was read from; empty by default.
    is_flat : bool
        Whether the array is linear or phased rather than convex.
    kerf : float
        Gap between neighboring elements, m.
    center_of_curvature : float
        z of the center of curvature of a convex array, m, negative; the apex lies at center_of_curvature + radius.
    beam_apex : float or None
        z that the probe's beams run from, m; None where they run straight down.
    element_angle : np.ndarray
        (n_elements,) angle of each element's normal to the z axis, rad.
    element_x, element_z : np.ndarray
        (n_elements,) lateral position and depth of the element centers, m.
    element_y : np.ndarray
        (n_elements,) elevation of the element centers, m: 0.
    is_matrix : bool
        Whether the elements lie in several rows (`MatrixProbe`).

    Raises
    ------
    ProbeError
        A value is out of range.
    """

    name: str
    center_frequency: float
    bandwidth: float
    n_elements: int
    pitch: float
    element_width: float
    element_height: float = math.inf
    elevation_focus: float = math.inf
    radius: float = math.inf
    baffle: str | float = "soft"
    imaging: Imaging | None = None
    source: str = ""
    path: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        where = self.path or f"probe {self.name!r}"
        if not _can_name_a_file(self.name):
            raise ProbeError(
                f'{where}: name: expected a word such as "L11-5v", which folders and columns can be named after, '
                f"got {self.name!r}"
            )
        for key in ("center_frequency", "pitch", "element_width", "element_height", "elevation_focus", "radius"):
            value = getattr(self, key)
            if not (isinstance(value, int | float) and value > 0):
                raise ProbeError(f"{where}: {key}: expected a number above 0, got {value!r}")
        if not (isinstance(self.n_elements, int) and self.n_elements >= 1):
            raise ProbeError(f"{where}: n_elements: expected a whole number of at least 1, got {self.n_elements!r}")
        if not (isinstance(self.bandwidth, int | float) and 0 < self.bandwidth < 2):
            percent = isinstance(self.bandwidth, int | float) and 2 <= self.bandwidth < 200
            raise ProbeError(
                f"{where}: bandwidth: expected a fraction of the center frequency in (0, 2), got {self.bandwidth!r}"
                + (f" (percent? write {self.bandwidth / 100:g})" if percent else "")
            )
        if self.element_width > self.pitch:
            raise ProbeError(
                f"{where}: element_width: expected at most the pitch ({self.pitch:g} m), got {self.element_width:g} m"
            )
        if not (self.baffle in ("soft", "rigid") or (isinstance(self.baffle, int | float) and self.baffle >= 0)):
            raise ProbeError(
                f'{where}: baffle: expected "soft", "rigid" or an impedance ratio of at least 0, got {self.baffle!r}'
            )
        fault = probe_fault(self.center_frequency, self.pitch, self.element_height)
        if fault is not None:
            raise ProbeError(f"{where}: {fault}")
        if not self.is_flat and (self.pitch >= 2 * self.radius or self._span >= math.pi):
            raise ProbeError(f"{where}: radius: expected an arc of less than half a circle, got {self.radius:g} m")

    @property
    def is_flat(self) -> bool:
        """Whether the array is linear or phased rather than convex."""
        return math.isinf(self.radius)

    @property
    def is_matrix(self) -> bool:
        """Whether the elements lie in several rows: `MatrixProbe`."""
        return False

    @property
    def kerf(self) -> float:
        """Gap between neighboring elements, m."""
        return self.pitch - self.element_width

    @property
    def _span(self) -> float:
        """Angle between the first and the last element of a convex array seen from its center of curvature, rad."""
        return 2 * math.asin(self.pitch / (2 * self.radius)) * (self.n_elements - 1)

    @property
    def center_of_curvature(self) -> float:
        """Z of the center of curvature of a convex array (x = 0), m: negative, behind the array."""
        return -self.radius * math.cos(self._span / 2)

    @property
    def beam_apex(self) -> float | None:
        """Z that the probe's beams run from (x = 0), m; None of a linear array, whose beams run straight down.

        The center of curvature of a convex array; the face of a phased one, which is one whose default waves diverge.
        """
        if not self.is_flat:
            return self.center_of_curvature
        return 0.0 if self.imaging is not None and self.imaging.transmit == "diverging" else None

    def plot(self) -> Figure:
        """Draw the array, its default field and the firing times of its default transmits.

        Returns
        -------
        matplotlib.figure.Figure
            `figure.savefig(path)` keeps it.
        """
        return draw("default_figure", self)

    @cached_property
    def element_angle(self) -> np.ndarray:
        """(n_elements,) angle of each element's normal to the z axis, rad."""
        if self.is_flat:
            return np.zeros(self.n_elements)
        return np.linspace(-self._span / 2, self._span / 2, self.n_elements)

    @cached_property
    def element_x(self) -> np.ndarray:
        """(n_elements,) lateral position of the element centers, m."""
        if self.is_flat:
            return (np.arange(self.n_elements) - (self.n_elements - 1) / 2) * self.pitch
        x: np.ndarray = self.radius * np.sin(self.element_angle)
        return x

    @cached_property
    def element_z(self) -> np.ndarray:
        """(n_elements,) depth of the element centers, m."""
        if self.is_flat:
            return np.zeros(self.n_elements)
        z: np.ndarray = self.radius * np.cos(self.element_angle) + self.center_of_curvature
        return z

    @cached_property
    def element_y(self) -> np.ndarray:
        """(n_elements,) elevation of the element centers, m: 0 of one row."""
        return np.zeros(self.n_elements)

    def is_behind(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Tell which points lie behind the array: z < 0, or inside the circle that a convex array lies on.

        Parameters
        ----------
        x, z : np.ndarray
            Lateral position and depth of the points, m, of shapes that broadcast.

        Returns
        -------
        np.ndarray
            bool, of the shape that x and z broadcast to.
        """
        x, z = np.broadcast_arrays(x, z)
        behind = z < 0
        if not self.is_flat:
            behind = behind | (np.hypot(x, z - self.center_of_curvature) <= self.radius)
        return np.asarray(behind)


@dataclass(frozen=True, repr=False, kw_only=True)
class MatrixProbe(Probe):
    """A matrix array: a flat grid of rectangular elements, in rows along x, row after row along y. SI units.

    Its model has three dimensions (MUST's `simus3`): waves, points and grids have a y. Elements are numbered along x first:
    element i lies in column i % n_columns of row i // n_columns.

    Attributes
    ----------
    name : str
        As in messages and figures.
    center_frequency : float
        Hz.
    bandwidth : float
        Fraction of the center frequency, pulse-echo at -6 dB, in (0, 2).
    n_elements : int
        Number of elements, of all rows together.
    pitch : float
        Between element centers of one row, m.
    element_width : float
        Active width, along x, at most the pitch, m.
    element_height : float
        Active height, along y, at most the row_pitch, m.
    elevation_focus, radius : float
        Infinite: no lens, no curvature.
    baffle : str or float
        "soft" (the default), "rigid", or the impedance ratio medium / baffle, at least 0.
    imaging : Imaging, optional
        Default field of view and transmit sequence; none by default.
    source : str
        Where the values come from; empty by default.
    path : str
        File that the probe was read from; empty by default.
    n_rows : int
        Number of rows; `n_elements` is a multiple of it.
    row_pitch : float
        Between the centers of neighboring rows, m.
    n_columns : int
        Elements per row.
    is_flat, is_matrix : bool
        True.
    kerf : float
        Gap between neighboring elements of one row, m.
    center_of_curvature : float
        Of no account: minus infinity.
    beam_apex : float or None
        z that the probe's beams run from, m; None where they run straight down.
    element_angle : np.ndarray
        (n_elements,) angle of each element's normal to the z axis, rad: 0.
    element_x, element_y, element_z : np.ndarray
        (n_elements,) lateral position, elevation and depth (0) of the element centers, m.

    Raises
    ------
    ProbeError
        A value is out of range.
    """

    n_rows: int
    row_pitch: float

    def __post_init__(self) -> None:
        super().__post_init__()
        where = self.path or f"probe {self.name!r}"
        whole = isinstance(self.n_rows, int) and not isinstance(self.n_rows, bool) and self.n_rows >= 1
        if not whole or self.n_elements % self.n_rows:
            raise ProbeError(
                f"{where}: n_rows: expected a whole number that divides n_elements ({self.n_elements}), got {self.n_rows!r}"
            )
        if not (isinstance(self.row_pitch, int | float) and 0 < self.row_pitch < math.inf):
            raise ProbeError(f"{where}: row_pitch: expected m above 0, got {self.row_pitch!r}")
        if self.element_height > self.row_pitch:
            raise ProbeError(
                f"{where}: element_height: expected at most the row_pitch ({self.row_pitch:g} m), "
                f"got {self.element_height:g} m"
            )
        if not self.is_flat or math.isfinite(self.elevation_focus):
            raise ProbeError(f"{where}: expected neither a radius nor an elevation_focus: a matrix array is flat")

    @property
    def is_matrix(self) -> bool:
        """Whether the elements lie in several rows: they do."""
        return True

    @property
    def n_columns(self) -> int:
        """Elements per row."""
        return self.n_elements // self.n_rows

    @cached_property
    def element_x(self) -> np.ndarray:
        """(n_elements,) lateral position of the element centers, m."""
        return np.tile((np.arange(self.n_columns) - (self.n_columns - 1) / 2) * self.pitch, self.n_rows)

    @cached_property
    def element_y(self) -> np.ndarray:
        """(n_elements,) elevation of the element centers, m."""
        return np.repeat((np.arange(self.n_rows) - (self.n_rows - 1) / 2) * self.row_pitch, self.n_columns)

    def plot(self) -> Figure:
        """Refuse to draw: figures are of one row."""
        one_row(self, "a figure of the probe")
        return super().plot()


def one_row(probe: Probe, what: str) -> None:
    """Refuse a matrix array where elements in one row are expected.

    Raises
    ------
    ValueError
        The probe is a matrix array.
    """
    if probe.is_matrix:
        raise ValueError(
            f"{what}: expected an array of one row, {probe.name} is a matrix array ({probe.n_elements} elements): of those "
            "there are simulate, pressure_field, demodulate and delay_and_sum"
        )


def probe_names() -> list[str]:
    """Return the names of the presets, sorted.

    Returns
    -------
    list of str
    """
    return sorted(_presets(), key=str.lower)


def load_probe(name: str | Path) -> Probe:
    """Load the probe of a preset or of a TOML file.

    Parameters
    ----------
    name : str or Path
        A preset's name, in any case, or the path of a TOML file.

    Returns
    -------
    Probe

    Raises
    ------
    ProbeError
        The name is unknown (near misses are given) or the file is not a valid probe.
    """
    presets = {preset.lower(): path for preset, path in _presets().items()}
    preset = presets.get(str(name).lower())
    if preset is not None:
        return _read(preset)
    path = Path(name)
    if path.suffix.lower() == ".toml" or path.is_file():
        if not path.is_file():
            raise ProbeError(f"{path}: no such file")
        return _read(path)
    near = difflib.get_close_matches(str(name).lower(), presets, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(load_probe(match).name for match in near)}?" if near else ""
    raise ProbeError(
        f"unknown probe {str(name)!r}.{hint} Expected one of {', '.join(probe_names())}, or a path to a TOML file"
    )


# --- reading ---------------------------------------------------------------------------------------------------------

_MATRIX_KEYS = {"n_rows", "row_pitch"}
_TRANSDUCER_KEYS = {f.name for f in fields(MatrixProbe)} - {"imaging", "path"}
_IMAGING_KEYS = {"x_mm", "z_mm", "transmit", "n_transmits", "max_angle_deg", "width_deg"}


def presets_folder() -> Any:
    """Return the folder of the presets: `ussim/presets` where the package is installed, `probes` in a checkout."""
    installed = resources.files("ussim") / "presets"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[1] / "probes"


def _presets() -> dict[str, Any]:
    """Preset name -> its file. The name is written in the file: a name may hold a slash, a file name may not."""
    files = [entry for entry in presets_folder().iterdir() if entry.name.endswith(".toml")]
    return {_first_name(entry): entry for entry in files}


def _first_name(entry: Any) -> str:
    for line in entry.read_text(encoding="utf-8").splitlines():
        if line.startswith("name"):
            name: str = line.split("=", 1)[1].strip().strip('"')
            return name
    stem: str = entry.name.removesuffix(".toml")
    return stem


def _read(path: Any) -> Probe:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProbeError(f"{path}: expected a TOML file, got {error}") from None
    imaging = table.pop("imaging", None)
    if not isinstance(table.pop("calibration", {}), dict):  # measured beside the probe: for the reader of the file
        raise ProbeError(f"{path}: calibration: expected a table [calibration]")
    _check_keys(path, "", table, _TRANSDUCER_KEYS)
    required = ["name", "center_frequency", "bandwidth", "n_elements", "pitch", "element_width"]
    kind = MatrixProbe if _MATRIX_KEYS & set(table) else Probe
    if kind is MatrixProbe:
        required += ["element_height", *sorted(_MATRIX_KEYS)]
    for key in required:
        if key not in table:
            raise ProbeError(f"{path}: {key}: expected a value, got none (required: {', '.join(required)})")
    for key in ("name", "source"):
        if not isinstance(table.get(key, ""), str):
            raise ProbeError(f"{path}: {key}: expected text in quotes, got {table[key]!r}")
    for key in sorted(_TRANSDUCER_KEYS - {"name", "source", "baffle"}):
        if key in table and (isinstance(table[key], bool) or not isinstance(table[key], int | float)):
            raise ProbeError(f"{path}: {key}: expected a number, got {table[key]!r}")
    try:
        return kind(**table, imaging=_read_imaging(path, imaging), path=str(path))
    except TypeError as error:
        raise ProbeError(f"{path}: {error}") from None


def name_after(path: Path) -> str:
    """Return a name for the probe of a recording that does not say which it was: that of its file, if it can be one."""
    return path.stem if _can_name_a_file(path.stem) else f"probe of {path.name}"


def _can_name_a_file(name: str) -> bool:
    """Tell whether arrays and files can have a name: neither empty, nor a path, nor what a store has a use for."""
    parts = name.replace("\\", "/").split("/")
    words = all(part == part.strip() and part.strip(".") for part in parts)
    return words and name.isprintable() and name not in ("zarr.json", "c") and len(name.encode()) <= 100


def _read_imaging(path: Any, table: dict[str, Any] | None) -> Imaging | None:
    if table is None:
        return None
    if not isinstance(table, dict):
        raise ProbeError(f"{path}: imaging: expected a table [imaging], got {table!r}")
    _check_keys(path, "imaging.", table, _IMAGING_KEYS)
    extents = {}
    for key in ("x_mm", "z_mm"):
        value = table.get(key)
        if not (
            isinstance(value, list)
            and len(value) == 2
            and all(isinstance(v, int | float) and math.isfinite(v) for v in value)
            and value[0] < value[1]
        ):
            raise ProbeError(f"{path}: imaging.{key}: expected [low, high] in mm, got {value!r}")
        extents[key] = (value[0] / 1e3, value[1] / 1e3)  # divided: 43 mm is the float64 nearest to 0.043 m
    transmit = table.get("transmit", "plane")
    if transmit not in ("plane", "diverging"):
        raise ProbeError(f'{path}: imaging.transmit: expected "plane" or "diverging", got {transmit!r}')
    numbers = {"n_transmits": 15, "max_angle_deg": 10.0, "width_deg": 75.0}
    for key in numbers:
        value = table.get(key, numbers[key])
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ProbeError(f"{path}: imaging.{key}: expected a number of at least 0, got {value!r}")
        numbers[key] = value
    if numbers["n_transmits"] != int(numbers["n_transmits"]) or numbers["n_transmits"] < 1:
        raise ProbeError(
            f"{path}: imaging.n_transmits: expected a whole number of at least 1, got {numbers['n_transmits']}"
        )
    for key, limit in (("max_angle_deg", 90), ("width_deg", 180)):
        if numbers[key] >= limit:
            raise ProbeError(f"{path}: imaging.{key}: expected degrees below {limit}, got {numbers[key]}")
    return Imaging(
        x=extents["x_mm"],
        z=extents["z_mm"],
        transmit=transmit,
        n_transmits=int(numbers["n_transmits"]),
        max_angle=math.radians(numbers["max_angle_deg"]),
        width=math.radians(numbers["width_deg"]),
    )


def _check_keys(path: Any, prefix: str, table: dict[str, Any], known: set[str]) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else "."
            raise ProbeError(f"{path}: {prefix}{key}: unknown key{hint} Expected {', '.join(sorted(known))}")
