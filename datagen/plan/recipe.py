"""The recipe of a dataset: every choice that shapes it, checked where it is made, and what of it is recorded.

A recipe is read from options, from a TOML file, or written in Python; its field names are the keys of the file.
"""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ussim.errors import ConfigError
from ussim.probes import Probe
from ussim.volumes.window import window_asked

from ..sources import get_source, resolve_root, source_names
from ..sources.base import frames_asked
from ..sources.subjects import recorded
from .formats import FORMAT
from .labels import check_pattern
from .randomize import Ranges
from .resolved import Inputs, ResolvedRecipe, array_name, engine_family
from .tissues import Tissue, Tissues

# Option names, for those who write a file from what `--help` shows.
_ALIASES = {
    "sources": "source",
    "roots": "root",
    "probe": "probes",
    "angles": "n_transmits",
    "attenuation": "attenuation_db_cm_mhz",
    "phantom": "phantoms",
}


class RecipeError(ConfigError):
    """A recipe that cannot be: one line with the field, what was expected and what came."""


class Recipe(BaseModel):
    """Every choice that shapes a dataset. Frozen.

    Raises
    ------
    RecipeError
        A value is wrong; one line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # What is imaged.
    source: tuple[str, ...] = Field(min_length=1)  # names of `datagen.sources`
    root: tuple[str | None, ...] = ()  # one folder a source; None = where the source looks by itself
    subjects: str | None = None  # of files of one's own: regular expression or CSV; None: by the names' rules
    frames: Literal["first", "all"] | int = "first"  # of several at one place (echoes, b-values, time points)
    include_derived: bool = False  # phase images, maps, projections and the like, of files of one's own
    planes: tuple[Literal["axial", "coronal", "sagittal"], ...] | None = None  # None: the source's own
    every: int = Field(1, ge=1)  # every n-th slice
    min_tissue: float = Field(0.1, ge=0, lt=1)  # fraction of a slice that must be tissue
    size: int = Field(256, ge=8, le=4096)  # pixels on a side
    full: bool = True  # whole slices
    patches: bool = True  # the largest square of tissue of each slice
    segmenter: Literal["otsu", "sam2"] = "otsu"
    sam2_checkpoint: str | None = None
    window: str = "auto"  # which values become black and white: auto, voi, percentile or LOW,HIGH
    phantoms: tuple[str, ...] | None = None  # kinds of source phantom (`ussim.phantoms.names`), None: all in turn
    labels: str | None = None  # files with labels, as seen from those of the images (`datagen.plan.labels`)
    tissues: Tissues | None = None  # what labels are as tissue
    augmentations: int = Field(0, ge=0)  # variants of each image, beside the image itself
    limit: int | None = Field(None, ge=1)  # samples
    limit_full: int | None = Field(None, ge=0)
    limit_patches: int | None = Field(None, ge=0)
    folds: int | None = Field(None, ge=1)  # None: 5, or as many as leave none empty
    seed: int = Field(0, ge=0, lt=2**63)

    # How it is imaged.
    probes: tuple[str, ...] = Field(min_length=1)  # preset names or paths to probe files
    transmit: Literal["plane", "diverging"] | None = None  # None, here and below: the probe's own
    n_transmits: int | None = Field(None, ge=1)
    max_angle_deg: float | None = Field(None, ge=0, lt=90)
    width_deg: float | None = Field(None, gt=0, lt=180)  # of a diverging wave
    attenuation_db_cm_mhz: float = Field(0.0, ge=0, allow_inf_nan=False)
    mean_distance_wavelengths: float = Field(1.0, gt=0, allow_inf_nan=False)  # between scatterers, shortest wavelengths
    dynamic_range_db: float = Field(40.0, gt=0, allow_inf_nan=False)  # of the scatterers and of the display
    snr_db: float | None = Field(None, allow_inf_nan=False)  # of the channel data; None = no noise
    tgc: bool | None = None  # None: where there is attenuation
    randomize: Ranges | None = None
    engine: str = "auto"
    speckle_draws: int = Field(1, ge=1, le=256)  # independent draws of the scatterers of each image
    keep: tuple[Literal["envelope"], ...] = ()  # beside the LQ image

    # How it is stored; does not shape the content.
    samples_per_shard: int | None = Field(None, ge=1)

    # How it is read; does not shape the content either.
    max_memory: float | None = Field(None, gt=0)  # GB that reading one volume may take; None: 4, or $USSIM_MAX_MEMORY

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise RecipeError(_one_line(error)) from None

    @field_validator("source", "root", "planes", "probes", "phantoms", "keep", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        if isinstance(value, str | Path):
            return (str(value),)
        if isinstance(value, list | tuple):
            return tuple(str(item) if isinstance(item, Path) else item for item in value)
        return value

    @field_validator("root", mode="before")
    @classmethod
    def _no_root(cls, value: Any) -> Any:
        return () if value is None else value

    @field_validator("frames", mode="before")
    @classmethod
    def _frames(cls, value: Any) -> Any:
        return frames_asked(value)

    @field_validator("window")
    @classmethod
    def _window(cls, value: str) -> str:
        return window_asked(value)

    @field_validator("planes")
    @classmethod
    def _no_planes(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return value or None

    @field_validator("labels")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        return None if value is None else check_pattern(value)

    @field_validator("tissues", mode="before")
    @classmethod
    def _tissues(cls, value: Any) -> Any:
        return read_toml(value) if isinstance(value, str | Path) else value

    @field_validator("phantoms")
    @classmethod
    def _known_phantoms(cls, kinds: tuple[str, ...] | None) -> tuple[str, ...] | None:
        from ussim.phantoms import check_name

        if kinds and len({check_name(kind) for kind in kinds}) < len(kinds):
            raise ValueError(f"phantoms: expected each kind once, got {', '.join(kinds)}")
        return tuple(check_name(kind) for kind in kinds) if kinds else None

    @field_validator("source")
    @classmethod
    def _known_sources(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in source_names():
                raise ValueError(f"unknown source {name!r}{_near(name, source_names())}: {', '.join(source_names())}")
        if len(set(names)) < len(names):
            raise ValueError(f"each source once, got {', '.join(names)}")
        return names

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.root and len(self.root) != len(self.source):
            raise ValueError(
                f"root: expected one folder a source ({len(self.source)}: {', '.join(self.source)}), got {len(self.root)}"
            )
        if "phantom" in self.source and self.limit is None and self.limit_full is None:
            raise ValueError("limit: source phantom has no end: expected a number of samples (--limit N), got none")
        if "phantom" in self.source and not self.full:
            raise ValueError("full: source phantom gives whole images, no patches: expected full, got patches alone")
        self._check_labels()
        self._check_ranges()
        own = {"nifti", "dicom", "npy", "image", "labels"}
        if self.subjects is not None and not set(self.source) <= own:
            known = ", ".join(name for name in self.source if name not in own)
            raise ValueError(
                f"subjects: for files of your own ({', '.join(sorted(own))}); {known} has its own subjects"
            )
        if not (self.full or self.patches):
            raise ValueError("full, patches: expected at least one of the two kinds of image, got neither")
        if self.segmenter == "sam2" and not self.sam2_checkpoint:
            raise ValueError("sam2_checkpoint: expected the path of a SAM 2 checkpoint with segmenter sam2, got none")
        names = [probe.name for probe in self.load_probes()]
        keys = [array_name(name) for name in names]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise ValueError(f"probes: expected each probe once, got {names[i]!r} twice")
        return self

    def _check_ranges(self) -> None:
        from ussim.chain import LONGEST_JITTER

        ranges = self.randomize
        if ranges is None:
            return
        if ranges.noise_bandwidth is not None and self.snr_db is None and ranges.snr_db is None:
            raise ValueError("randomize.noise_bandwidth: expected snr_db with it, got no noise")
        if ranges.jitter_ns is not None:
            share = 0.0 if ranges.center_frequency_fraction is None else ranges.center_frequency_fraction[1]
            highest = max(probe.center_frequency for probe in self.load_probes()) * (1 + max(share, 0.0))
            longest = 1e9 * LONGEST_JITTER / highest
            if ranges.jitter_ns[1] > longest:
                raise ValueError(
                    f"randomize.jitter_ns: expected at most {LONGEST_JITTER:g} periods of the center frequency "
                    f"({longest:.3g} ns), got {list(ranges.jitter_ns)}"
                )

    def _check_labels(self) -> None:
        sources = [get_source(name) for name in self.source]
        own = [source.name for source in sources if source.is_labels or source.labels]
        if len(own) > 1 or (own and self.labels is not None):
            other = f"source {own[1]}" if len(own) > 1 else "labels"
            raise ValueError(f"labels: source {own[0]} has labels of its own, {other} others: build them apart")
        if self.tissues is None:
            if any(source.is_labels for source in sources):
                raise ValueError("tissues: source labels shows what labels are as tissue: expected tissues, got none")
            return
        if not own and self.labels is None:
            raise ValueError(
                "tissues: of labels: expected labels (a pattern), source labels or phantom, got none of them"
            )
        self.tissues.numbered([label for source in sources for label in source.labels])

    @classmethod
    def from_file(cls, path: str | Path, **overrides: Any) -> Recipe:
        """Return the recipe in a TOML file, fields in `overrides` replaced."""
        return cls(**(read_table(path) | overrides))

    @property
    def with_tgc(self) -> bool:
        """Whether attenuation is compensated: as asked, else where there is any."""
        if self.tgc is not None:
            return self.tgc
        return self.attenuation_db_cm_mhz > 0 or (self.randomize is not None and self.randomize.attenuates)

    @property
    def digest(self) -> str:
        """SHA-256 of the choices as they are written, roots left out.

        A store's `recipe_digest` covers the source's files and what "auto" came to as well.
        """
        return self._resolved(engine_family(self.engine), self.folds or 0, FORMAT, Inputs()).digest

    def roots(self) -> list[Path]:
        """Return the folder of each source, found as the source finds it; raises DataError where there is none."""
        given = self.root or (None,) * len(self.source)
        return [resolve_root(name, root).resolve() for name, root in zip(self.source, given, strict=True)]

    def load_probes(self) -> list[Probe]:
        """Return the probes, in order; raises ussim.ProbeError."""
        from ussim import MatrixProbe, ProbeError, load_probe

        probes = [load_probe(name) for name in self.probes]
        for probe in probes:
            if isinstance(probe, MatrixProbe):
                raise ProbeError(
                    f"probes: expected arrays of one row, {probe.name} is a matrix array: a store has planes"
                )
        return probes

    def resolve(self, engine: str, format: int = FORMAT, recorded: str | None = None) -> ResolvedRecipe:
        """Work the recipe out for a build on this machine.

        Parameters
        ----------
        engine : what "auto" came to.
        format : of the store that is resumed (`datagen.plan.formats`).
        recorded : engine of the store that is resumed, where it is of the same family: stores of before recorded the number
            of the card.

        Raises
        ------
        DataError
            The folder of a source is missing.
        """
        inputs = Inputs(
            tuple(self.roots()),
            self.subjects,
            self.sam2_checkpoint,
            None if self.max_memory is None else self.max_memory * 1e9,
            engine,
        )
        return self._resolved(recorded or engine_family(engine), self.folds or 0, format, inputs)

    def record(self, engine: str, folds: int, format: int = FORMAT) -> dict[str, Any]:
        """Return what a store records and its digest covers: plain JSON, everything resolved, nothing of this machine.

        `engine` and `folds` are what "auto" and None came to. Roots are left out (samples carry the digests of the files),
        probes are written out in full, a checkpoint is named by its digest.
        """
        return self._resolved(engine_family(engine), folds, format, Inputs()).to_dict()

    def _resolved(self, engine: str, folds: int, format: int, inputs: Inputs) -> ResolvedRecipe:
        resolved: dict[str, Any] = {
            "subjects": None if self.subjects is None else recorded(self.subjects),
            "sam2_checkpoint": self.sam2_checkpoint
            and hashlib.sha256(Path(self.sam2_checkpoint).read_bytes()).hexdigest(),
            "probes": tuple(replace(probe, path="", source="") for probe in self.load_probes()),
            "engine": engine,
            "folds": folds,
            "tgc": self.with_tgc,
        }
        as_asked = Recipe.model_fields.keys() - resolved.keys() - {"root", "samples_per_shard", "max_memory"}
        return ResolvedRecipe(
            **resolved, **{name: getattr(self, name) for name in as_asked}, format=format, inputs=inputs
        )


def read_table(path: str | Path) -> dict[str, Any]:
    """Return the fields in a TOML file, option names and hyphens understood; raises RecipeError."""
    fields = {}
    for key, value in read_toml(path).items():
        field = key.replace("-", "_")
        field = _ALIASES.get(field, field)
        if field not in Recipe.model_fields:
            known = [name for name in Recipe.model_fields]
            raise RecipeError(f"{path}: {key}: unknown key{_near(field, known)}; known: {', '.join(known)}")
        fields[field] = value
    return fields


def read_toml(path: str | Path) -> dict[str, Any]:
    """Return what a TOML file holds, unchecked; raises RecipeError where it is none."""
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: expected a TOML file: {error}") from None


def _one_line(error: ValidationError) -> str:
    """Return the first fault of a recipe: field, what is expected, what came."""
    fault = error.errors()[0]
    field = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "value_error":
        text = str(fault["ctx"]["error"])
    elif fault["type"] == "extra_forbidden" and fault["loc"][0] == "tissues":
        known = Tissue.model_fields
        return f"{_plain(field)}: unknown key{_near(str(fault['loc'][-1]), known)}; known: {', '.join(known)}"
    elif fault["type"] == "extra_forbidden":
        return f"{field}: unknown field{_near(field, Recipe.model_fields)}; known: {', '.join(Recipe.model_fields)}"
    elif fault["type"] == "missing":
        return f"{field}: expected a value, got none"
    else:
        expected = fault["msg"].removeprefix("Input should be ").removeprefix("a valid ")
        text = f"expected {expected}, got {fault['input']!r}"
    field = _plain(field)
    more = error.error_count() - 1
    return (f"{field}: {text}" if field else text) + (f" (and {more} more)" if more else "")


def _plain(field: str) -> str:
    """Return the name of a tissue's key as the file has it."""
    return field.replace("tissues.tissues.", "tissues.")


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
