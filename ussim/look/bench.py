"""Stages of the page of `ussim look`: settings to a B-mode in stages, each kept; and how a point looks at the cursor.

    subject -> scatterers -> IQ data -> envelope -> grey levels

A stage is made again only where a setting that it depends on changed: the dynamic range costs one log, the f-number one
beamforming. A draft (3 transmits, scatterers two wavelengths apart, 128 rows) comes before the picture itself.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from .. import phantoms, physics
from ..acquisition import Acquisition
from ..arrays import to_numpy
from ..beamform import UnseenWarning, log_compress
from ..beamforming.apertures import automatic_f_number
from ..demodulation import demodulate
from ..errors import ConfigError
from ..imaging import envelope_image
from ..medium import Medium
from ..probes import Probe, load_probe, probe_names
from ..receive import time_gain_compensation
from ..resolution import PointSpread, point_spread
from ..scatterers import scatterers_from_image
from ..show.describe import describe_probe, describe_waves
from ..simulation import simulate
from ..transmits import focused_scan, imaging_waves
from ..types import ImageGrid, IQData, Scatterers
from .cache import Cache

OWN = "image"  # the subject that is the user's own picture
TRANSMITS = ("plane", "diverging", "focused")
DRAFT_TRANSMITS, DRAFT_DISTANCE, DRAFT_ROWS = 3, 2.0, 128
ROWS = 256
OWN_RANGE_DB = 40.0  # from white to black of a picture of one's own: that of its scatterers
LARGEST_PICTURE = 1024  # pixels on a side of a picture sent by the page
Check = Callable[..., None]


@dataclass(frozen=True)
class View:
    """Settings of a picture: what the page's controls say. Hashable, checked where it is made.

    Attributes
    ----------
    probe : str
        One of the bench's probes.
    subject : str
        The kind of a phantom, or "image".
    phantom_seed : int or None
        Of another arrangement of the phantom.
    transmit : str or None
        One of TRANSMITS; None is the probe's.
    n_transmits : int or None
        None is the probe's.
    focus_mm : float
        Depth of focus of focused waves.
    depth_mm : (float, float) or None
        Of the field; None is the probe's.
    attenuation_db_cm_mhz : float
        Of the medium.
    tgc : bool
        Amplify what the medium attenuates.
    f_number : float or None
        Of the receive aperture; None is from the elements' directivity.
    dynamic_range_db : float
        Of the picture.
    mean_distance_wavelengths : float
        Between scatterers.
    seed : int
        Of the draw of scatterers.
    draft : bool
        Whether a quick, coarse picture is asked for.
    """

    probe: str = "L11-5v"
    subject: str = "cysts"
    phantom_seed: int | None = None
    transmit: str | None = None
    n_transmits: int | None = None
    focus_mm: float = 25.0
    depth_mm: tuple[float, float] | None = None
    attenuation_db_cm_mhz: float = 0.0
    tgc: bool = True
    f_number: float | None = None
    dynamic_range_db: float = 50.0
    mean_distance_wavelengths: float = 1.0
    seed: int = 0
    draft: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError where a value is out of range."""
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and low <= value <= high):
                raise ConfigError(f"{name}: expected a number from {low:g} to {high:g}, got {value!r}")
            if value is not None and name in _WHOLE and value != int(value):
                raise ConfigError(f"{name}: expected a whole number, got {value!r}")
        if self.transmit is not None and self.transmit not in TRANSMITS:
            raise ConfigError(f"transmit: expected one of {', '.join(TRANSMITS)}, got {self.transmit!r}")
        if self.depth_mm is not None:
            depth = self.depth_mm
            if not (len(depth) == 2 and all(map(_is_number, depth)) and 0 <= depth[0] < depth[1] <= 400):
                raise ConfigError(f"depth_mm: expected LOW below HIGH, 0 to 400, got {depth!r}")
            if depth[1] - depth[0] < 2:
                raise ConfigError(f"depth_mm: expected at least 2 mm, got {depth[1] - depth[0]:g}")
        if self.transmit == "focused" and self.focus_mm <= 0:
            raise ConfigError(f"focus_mm: expected a number above 0, got {self.focus_mm!r}")

    @classmethod
    def of(cls, values: Mapping[str, Any], **fixed: Any) -> View:
        """Return the view that some fields of JSON describe; the rest is as by default.

        Raises
        ------
        ConfigError
            A name is unknown, or a value is of another type or out of range.
        """
        known = cls.__dataclass_fields__
        unknown = [name for name in values if name not in known]
        if unknown:
            raise ConfigError(f"settings: expected names of {', '.join(known)}, got {unknown[0]!r}")
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        } | fixed
        for name, kind in (("probe", str), ("subject", str), ("tgc", bool), ("draft", bool)):
            if name in fields and not isinstance(fields[name], kind):
                raise ConfigError(f"{name}: expected a {kind.__name__}, got {fields[name]!r}")
        if not isinstance(fields.get("depth_mm"), tuple | None):
            raise ConfigError(f"depth_mm: expected [LOW, HIGH], got {fields['depth_mm']!r}")
        return cls(**fields)


_RANGES = {
    "phantom_seed": (0, 2**31 - 1),
    "n_transmits": (1, 256),
    "focus_mm": (1, 400),
    "attenuation_db_cm_mhz": (0, 3),
    "f_number": (0, 20),
    "dynamic_range_db": (5, 120),
    "mean_distance_wavelengths": (0.4, 8),
    "seed": (0, 2**31 - 1),
}
_WHOLE = ("phantom_seed", "n_transmits", "seed")


@dataclass(frozen=True, eq=False)
class Picture:
    """A B-mode as bytes, and facts about it for the page."""

    grey: np.ndarray  # (nz, nx) uint8
    facts: dict[str, Any]


class Bench:
    """Probes, a picture of the user's own, and the results of stages.

    Attributes
    ----------
    probes : dict
        Probes by name; those of presets that have no field of view are left out.
    image : np.ndarray or None
        (rows, columns) grey levels in [0, 1].
    """

    def __init__(
        self,
        image: np.ndarray | None = None,
        image_name: str = "",
        probe: Probe | None = None,
        engine: str = "auto",
        cache: Cache | None = None,
        rows: int = ROWS,
    ) -> None:
        known = {name: load_probe(name) for name in probe_names()}
        self.probes = {name: each for name, each in known.items() if each.imaging is not None}
        if probe is not None:
            if probe.imaging is None:
                raise ConfigError(f"{probe.name}: expected a probe with an [imaging] field of view, got one without")
            self.probes[probe.name] = probe
        self.image, self.image_name, self._image_number = image, image_name, 0
        self.engine, self.rows = engine, rows
        self.cache = cache or Cache()

    def take(self, levels: bytes, rows: int, columns: int, name: str) -> None:
        """Take a picture of the user's own that the page sent, grey levels row by row.

        Raises
        ------
        ConfigError
            It is not as large as it says, or too large.
        """
        if not (2 <= rows <= LARGEST_PICTURE and 2 <= columns <= LARGEST_PICTURE and len(levels) == rows * columns):
            raise ConfigError(
                f"picture: expected 2 to {LARGEST_PICTURE} rows and columns of bytes, got {rows} x {columns} "
                f"and {len(levels)} bytes"
            )
        self.image = np.frombuffer(levels, np.uint8).reshape(rows, columns) / 255.0
        self.image_name = name[:80]
        self._image_number += 1

    def subjects(self) -> list[str]:
        """Return the names of what can be looked at."""
        return [*([] if self.image is None else [OWN]), *phantoms.names()]

    def describe(self) -> dict[str, Any]:
        """Return what the page's controls offer, numbers in mm and degrees."""
        probes = {}
        for name, probe in self.probes.items():
            imaging = probe.imaging
            assert imaging is not None
            waves = imaging_waves(probe)
            probes[name] = {
                "words": describe_probe(probe),
                "depth_mm": [round(1e3 * z, 3) for z in imaging.z],
                "transmit": imaging.transmit,
                "transmits": list(TRANSMITS if probe.is_flat else ("plane", "diverging")),
                "n_transmits": int(np.size(Acquisition(probe, waves).transmit_delays[:, 0])),
                "f_number": round(automatic_f_number(probe, Medium().speed_of_sound), 2),
            }
        return {
            "probes": probes,
            "subjects": self.subjects(),
            "image_name": self.image_name,
            "defaults": asdict(View()),
            "ranges": {name: list(limits) for name, limits in _RANGES.items()},
        }

    # --- stages --------------------------------------------------------------------------------------------------

    def picture(self, view: View, check: Check = lambda *_: None) -> Picture:
        """Return the B-mode of a view; `check` is called from time to time, and what it raises ends the work.

        Raises
        ------
        ConfigError, ValueError
            A setting is not possible for this probe or subject.
        """
        acquisition, grid = self._acquisition(view), self._grid(view)
        key, envelope = self._envelope(view, acquisition, grid, check)
        levels = self.cache.get(("grey", key, view.dynamic_range_db), lambda: _grey(envelope, view.dynamic_range_db))
        n_scatterers = len(self._scatterers(view, acquisition, check)[1])
        f_number = view.f_number
        if f_number is None:
            f_number = automatic_f_number(acquisition.probe, acquisition.medium.speed_of_sound)
        facts = {
            "shape": list(levels.shape),
            "x_mm": [round(1e3 * float(grid.x[i]), 4) for i in (0, -1)],
            "z_mm": [round(1e3 * float(grid.z[i]), 4) for i in (0, -1)],
            "dynamic_range_db": view.dynamic_range_db,
            "draft": view.draft,
            "waves": describe_waves(acquisition),
            "n_scatterers": n_scatterers,
            "f_number": round(float(f_number), 3),
            "probe": view.probe,
        }
        return Picture(levels, facts)

    def point(self, view: View, x_mm: float, z_mm: float, check: Check = lambda *_: None) -> PointSpread:
        """Return how a point looks there, with all transmits of the view.

        Raises
        ------
        ConfigError, ValueError
            The point is behind the array or beyond what a probe reaches.
        """
        if not (_is_number(x_mm) and _is_number(z_mm) and abs(x_mm) <= 400 and 0 <= z_mm <= 400):
            raise ConfigError(f"point: expected x and z in mm, -400 to 400 and 0 to 400, got {x_mm!r}, {z_mm!r}")
        view = replace(view, draft=False)
        acquisition = self._acquisition(view)
        key = ("point", acquisition.key(), view.f_number, round(x_mm, 4), round(z_mm, 4))
        return self.cache.get(
            key,
            lambda: point_spread(
                acquisition, x_mm / 1e3, z_mm / 1e3, view.f_number, engine=self.engine, progress=check
            ),
        )

    def _probe(self, view: View) -> Probe:
        if view.probe not in self.probes:
            raise ConfigError(f"probe: expected one of {', '.join(self.probes)}, got {view.probe!r}")
        return self.probes[view.probe]

    def _acquisition(self, view: View) -> Acquisition:
        probe = self._probe(view)
        n_transmits = view.n_transmits
        if view.draft:
            n_transmits = min(DRAFT_TRANSMITS, n_transmits or DRAFT_TRANSMITS)
        if view.transmit == "focused":
            lines = view.n_transmits or (32 if view.draft else 64)
            waves: Any = focused_scan(probe, view.focus_mm / 1e3, min(lines, 32) if view.draft else lines)
        else:
            waves = imaging_waves(probe, view.transmit, n_transmits)
        return Acquisition(probe, waves, Medium(attenuation_db_cm_mhz=view.attenuation_db_cm_mhz))

    def _field(self, view: View) -> tuple[tuple[float, float], tuple[float, float]]:
        imaging = self._probe(view).imaging
        assert imaging is not None
        depth = imaging.z if view.depth_mm is None else (view.depth_mm[0] / 1e3, view.depth_mm[1] / 1e3)
        return imaging.x, depth

    def _grid(self, view: View) -> ImageGrid:
        x, (top, bottom) = self._field(view)
        rows = DRAFT_ROWS if view.draft else self.rows
        columns = int(np.clip(round(rows * (x[1] - x[0]) / (bottom - top)), 16, 4 * rows))
        z = np.linspace(top, bottom, rows)
        return ImageGrid(x=np.linspace(*x, columns), z=z if top > 0 else z + (z[1] - z[0]) / 2)

    def _scatterers(self, view: View, acquisition: Acquisition, check: Check) -> tuple[Hashable, Scatterers]:
        probe, (x, z) = acquisition.probe, self._field(view)
        distance = max(DRAFT_DISTANCE, view.mean_distance_wavelengths) if view.draft else view.mean_distance_wavelengths
        number = self._image_number if view.subject == OWN else 0
        key = ("scatterers", view.subject, number, view.phantom_seed, view.probe, x, z, distance, view.seed)
        shortest = physics.shortest_wavelength(
            probe.center_frequency, probe.bandwidth, acquisition.medium.speed_of_sound
        )

        def make() -> Scatterers:
            check()
            if view.subject == OWN and self.image is not None:
                grid = ImageGrid(x=np.linspace(*x, 256), z=np.linspace(*z, 256))
                return scatterers_from_image(
                    self.image, grid, acquisition, view.seed, distance * shortest, OWN_RANGE_DB
                )
            if view.subject not in phantoms.names():
                raise ConfigError(f"subject: expected one of {', '.join(self.subjects())}, got {view.subject!r}")
            made = self.cache.get(
                ("phantom", view.subject, view.phantom_seed, x, z, view.probe),
                lambda: phantoms.make(view.subject, x, z, view.phantom_seed, apex=phantoms.beam_apex(probe)),
            )
            return made.scatterers(acquisition, view.seed, distance * shortest)

        return key, self.cache.get(key, make)

    def _iq(self, view: View, acquisition: Acquisition, check: Check) -> tuple[Hashable, IQData]:
        scatterers_key, scatterers = self._scatterers(view, acquisition, check)
        tgc = view.tgc and view.attenuation_db_cm_mhz > 0
        key = ("iq", scatterers_key, acquisition.key(), tgc)

        def make() -> IQData:
            rf = simulate(scatterers, acquisition, self.engine, progress=check)
            if tgc:
                time_gain_compensation(rf, in_place=True)
            return demodulate(rf)

        return key, self.cache.get(key, make)

    def _envelope(
        self, view: View, acquisition: Acquisition, grid: ImageGrid, check: Check
    ) -> tuple[Hashable, np.ndarray]:
        iq_key, iq = self._iq(view, acquisition, check)
        key = ("envelope", iq_key, grid.shape, grid.z[0], grid.z[-1], view.f_number)

        def make() -> np.ndarray:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UnseenWarning)  # black, and the page says the f-number
                return to_numpy(envelope_image(iq, grid, view.f_number, engine=self.engine, progress=check))

        return key, self.cache.get(key, make)


def _grey(envelope: np.ndarray, dynamic_range_db: float) -> np.ndarray:
    if not np.any(envelope):
        return np.zeros(envelope.shape, np.uint8)
    return np.round(255 * log_compress(envelope, dynamic_range_db)).astype(np.uint8)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
