"""A recipe worked out: what a store records of it, with types, and the parts of it that each step takes.

A `ResolvedRecipe` is made once, from a `Recipe` that is to be built or from the record in a store that exists. It is a
dictionary at the disk only: `to_dict` writes the record, `from_dict` reads it, of every format there has been.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ussim.probes import Imaging, Probe

from ..sources import Selection, get_source
from .formats import rules_of
from .randomize import Ranges
from .tissues import Tissues

if TYPE_CHECKING:
    import ussim

KINDS = ("full", "patch")
# Fields that are recorded only where they say other than the default: later than stores that are to keep their digests.
_WHERE_USED = {
    "subjects": None,
    "frames": "first",
    "include_derived": False,
    "window": "auto",
    "phantoms": None,
    "speckle_draws": 1,
    "keep": (),
    "labels": None,
    "tissues": None,
}


@dataclass(frozen=True)
class Cutting:
    """Rules by which volumes are cut into images: the part of a recipe that a worker needs for it. Hashable."""

    planes: tuple[tuple[str, tuple[str, ...]], ...]  # of each source
    every: int
    min_tissue: float
    size: int
    kinds: tuple[str, ...]
    augmentations: int
    segmenter: str
    sam2_checkpoint: str | None
    seed: int
    window: str = "auto"  # `ussim.volumes.window`
    dynamic_range_db: float = 40.0  # of HQ images that are made of levels in dB
    labels: str | None = None  # pattern of the files with labels (`datagen.plan.labels`)
    tissues: Tissues | None = None


@dataclass(frozen=True)
class Settings:
    """Settings of a probe: hashable, picklable, everything that shapes a simulated image beside the image and its seed."""

    probe: Probe
    engine: str  # "cpu", "cuda", "cuda:1" or "reference"; "auto" has been resolved
    size: int  # pixels on a side
    transmit: str | None = None  # None, here and below: the probe's own
    n_transmits: int | None = None
    max_angle_deg: float | None = None
    width_deg: float | None = None
    speed_of_sound: float = 1540.0  # m/s
    speed_of_sound_error: float = 0.0  # of the scanner, as a fraction
    attenuation_db_cm_mhz: float = 0.0
    mean_distance_wavelengths: float = 1.0
    dynamic_range_db: float = 40.0
    f_number: float | None = None
    snr_db: float | None = None
    tgc: bool = False
    format: int = 1  # of the dataset, the rules of which hold (`datagen.plan.formats`)
    keep: tuple[str, ...] = ()  # what is kept beside the LQ image: "envelope"
    # Drawn for a sample (`datagen.plan.randomize`).
    zoom: float = 1.0  # the field is this many times smaller than the probe's own
    zoom_x: float = 0.5  # where in it, 0 to 1
    zoom_z: float = 0.5
    n_cycles: float = 1.0
    scatterer_range_db: float | None = None  # None: dynamic_range_db
    gain_db: float = 0.0  # of the display
    backscatter_exponent: float = 0.0
    aberration_ns: float = 0.0
    aberration_length_mm: float = 4.0
    gain_spread_db: float = 0.0
    dead_fraction: float = 0.0
    noise_bandwidth: float = 2.0  # white
    tgc_spread_db: float = 0.0
    jitter_ns: float = 0.0
    n_bits: int | None = None
    headroom_db: float = 0.0
    hardware_seed: int = 0  # which screen, gains, dead elements and sliders

    def grid(self, acquisition: ussim.Acquisition | None = None) -> ussim.ImageGrid:
        """Return the pixel centers of an image: over the probe's field of view, or the part of it that is imaged (`zoom`).

        Parameters
        ----------
        acquisition : of the images, against which the field is checked; None = a plane wave.
        """
        import ussim

        acquisition = acquisition or ussim.Acquisition(self.probe, ussim.PlaneWaves(0.0))
        grid = ussim.ImageGrid.for_acquisition(acquisition, shape=(self.size, self.size))
        if self.zoom == 1:
            return grid
        axes = []
        for axis, place in ((grid.x, self.zoom_x), (grid.z, self.zoom_z)):
            extent = (axis[-1] - axis[0]) / self.zoom
            first = axis[0] + place * (axis[-1] - axis[0] - extent)
            axes.append(np.linspace(first, first + extent, axis.size))
        return ussim.ImageGrid(x=axes[0], z=axes[1])

    def with_drawn(self, drawn: dict[str, float]) -> Settings:
        """Return these settings with what was drawn for one sample (`datagen.plan.randomize`)."""
        values: dict[str, Any] = dict(drawn)
        probe = dataclasses.replace(
            self.probe,
            center_frequency=self.probe.center_frequency * (1 + values.pop("center_frequency_fraction", 0.0)),
            bandwidth=self.probe.bandwidth * (1 + values.pop("bandwidth_fraction", 0.0)),
        )
        return dataclasses.replace(self, probe=probe, **values)


@dataclass(frozen=True)
class Inputs:
    """Places of a recipe's inputs on this machine, and the way they are read; recorded nowhere."""

    roots: tuple[Path, ...] = ()  # one per source
    subjects: str | None = None  # regular expression or CSV file
    sam2_checkpoint: str | None = None  # path
    max_memory: float | None = None  # bytes that reading one volume may take; None = `ussim.volumes.budget`
    engine: str | None = None  # that computes: the recorded one, by the number of a card where one was given


@dataclass(frozen=True)
class ResolvedRecipe:
    """Every choice that shapes a dataset, nothing left open; fields as those of `Recipe`."""

    source: tuple[str, ...]
    planes: tuple[str, ...] | None
    every: int
    min_tissue: float
    size: int
    full: bool
    patches: bool
    segmenter: str
    sam2_checkpoint: str | None  # SHA-256 of the file
    augmentations: int
    limit: int | None
    limit_full: int | None
    limit_patches: int | None
    folds: int  # 0 until the plan has settled it, where none were asked for
    seed: int
    probes: tuple[Probe, ...]
    transmit: str | None
    n_transmits: int | None
    max_angle_deg: float | None
    width_deg: float | None
    attenuation_db_cm_mhz: float
    mean_distance_wavelengths: float
    dynamic_range_db: float
    snr_db: float | None
    tgc: bool
    randomize: Ranges | None
    engine: str  # its family: the card's number shapes nothing (stores of before have "cuda:1")
    # From here on what the first stores did not record.
    subjects: str | None = None  # the expression itself, or the digest of a table
    frames: str | int = "first"
    include_derived: bool = False
    window: str = "auto"
    phantoms: tuple[str, ...] | None = None  # kinds of source phantom, None: all
    speckle_draws: int = 1
    keep: tuple[str, ...] = ()
    labels: str | None = None
    tissues: Tissues | None = None
    format: int = 1
    inputs: Inputs = dataclasses.field(default=Inputs(), compare=False)

    @cached_property
    def selection(self) -> Selection:
        """The part that `find` of a source needs to know."""
        count = self.limit if self.limit is not None else self.limit_full
        return Selection(self.inputs.subjects, self.frames, self.include_derived, count, self.seed, self.phantoms)

    @cached_property
    def cutting(self) -> Cutting:
        """The rules by which volumes are cut into images."""
        wanted = (self.full and self.limit_full != 0, self.patches and self.limit_patches != 0)
        checkpoint = self.inputs.sam2_checkpoint
        return Cutting(
            planes=tuple((name, self.planes or get_source(name).default_planes) for name in self.source),
            every=self.every,
            min_tissue=self.min_tissue,
            size=self.size,
            kinds=tuple(kind for kind, kept in zip(KINDS, wanted, strict=True) if kept),
            augmentations=self.augmentations,
            segmenter=self.segmenter,
            sam2_checkpoint=None if checkpoint is None else str(Path(checkpoint).resolve()),
            seed=self.seed,
            window=self.window,
            dynamic_range_db=self.dynamic_range_db,
            labels=self.labels,
            tissues=self.tissues,
        )

    @cached_property
    def settings(self) -> tuple[Settings, ...]:
        """The settings of each probe."""
        names = {item.name for item in dataclasses.fields(Settings)} - {"probe"}
        common = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name in names}
        common["engine"] = self.inputs.engine or engine_family(self.engine)
        return tuple(Settings(probe=probe, **common) for probe in self.probes)

    @property
    def fields_are_fixed(self) -> bool:
        """Whether all images of a probe are of one field of view."""
        return self.randomize is None or self.randomize.zoom is None

    @property
    def tells_variants(self) -> bool:
        """Whether the table of samples says how each variant of an image was made."""
        return rules_of(self.format).tells_variants

    @cached_property
    def has_labels(self) -> bool:
        """Whether samples have labels."""
        sources = [get_source(name) for name in self.source]
        return self.labels is not None or any(source.is_labels or source.labels for source in sources)

    @property
    def digest(self) -> str:
        """SHA-256 of the record."""
        return digest(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return what a store records: plain JSON, nothing of this machine."""
        record = {item.name: plain(getattr(self, item.name)) for item in dataclasses.fields(self)}
        del record["inputs"]
        record["probes"] = {probe.name: probe_record(probe) for probe in self.probes}
        record["randomize"] = None if self.randomize is None else self.randomize.record()
        record["tissues"] = None if self.tissues is None else self.tissues.model_dump(mode="json")
        for name, default in _WHERE_USED.items():
            if getattr(self, name) == default:
                del record[name]
        if self.format == 1:  # which knew of no other
            del record["format"]
        return record

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> ResolvedRecipe:
        """Return the recipe that a store records, of this format or an older one."""
        known = {item.name for item in dataclasses.fields(cls)}
        values = {name: _tuples(value) for name, value in record.items() if name in known}
        values["probes"] = tuple(probe_of_record(numbers) for numbers in record["probes"].values())
        values["randomize"] = None if record["randomize"] is None else Ranges(**record["randomize"])
        if record.get("tissues") is not None:
            values["tissues"] = Tissues(**record["tissues"])
        return cls(**values)


def engine_family(name: str) -> str:
    """Return what a store records of an engine's name: "cuda" of "cuda:1"."""
    return name.partition(":")[0]


def probe_record(probe: Probe) -> dict[str, Any]:
    """Return a probe's numbers as plain JSON, without where it was read from."""
    return plain(dataclasses.asdict(probe))


def probe_of_record(record: dict[str, Any]) -> Probe:
    """Return the probe that `probe_record` wrote out."""

    def number(value: Any) -> Any:
        return float(value) if value in ("inf", "-inf") else _tuples(value)

    values = {key: number(value) for key, value in record.items() if key != "imaging"}
    imaging = record.get("imaging")
    return Probe(
        **values, imaging=None if imaging is None else Imaging(**{key: number(item) for key, item in imaging.items()})
    )


def plain(value: Any) -> Any:
    """Return a value as JSON has it: infinities as the text "inf", tuples as lists, no paths."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key not in ("path", "source")}
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def array_name(probe_name: str) -> str:
    """Return a probe's name as one component of a path in a store: "PA4-2/20" is kept under `PA4-2_20`."""
    return probe_name.replace("/", "_").replace("\\", "_")


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def canonical_json(value: Any) -> str:
    """One spelling of a JSON value, whatever the order of its keys: what digests are computed over."""
    return _CANONICAL.encode(value)


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return what changed between two records, one short text a field."""
    changed = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    texts = []
    for key in changed:
        old, new = (canonical_json(record.get(key)) for record in (before, after))
        if key == "probes":
            old, new = (", ".join(record.get(key) or {}) for record in (before, after))
            texts.append(f"probes {old} -> {new}" if old != new else "probes (the numbers of a probe changed)")
        else:
            texts.append(f"{key} {old} -> {new}")
    return texts
