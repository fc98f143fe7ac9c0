"""Labels as tissue: how bright, how densely scattering, how absorbing. The file behind `--tissues`.

    time_gain_db_cm_mhz = 0.5        # attenuation that the scanner makes up for (its time-gain curve)

    [liver]                          # one table per tissue, by its name
    label = 5                        # its number in the label maps, or several; not needed where the source has names
    echogenicity_db = -14            # of scatterer amplitude: 0 is white; without it the image's own grey levels stay
    density = 1.0                    # scatterers relative to the recipe's, as bright together; 0 is silent
    attenuation_db_cm_mhz = 0.5      # without it: as the time-gain curve has it
    color = [200, 80, 60]            # in pictures

Attenuation shapes the ultrasound image alone, not HQ: what the tissues on the way take beyond the time gain, both ways, at
the probe's center frequency, darkens the scatterers behind them (`datagen.make.pairs`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ussim.errors import DataError
from ussim.volumes.segmentation import LARGEST

from ..sources.scene import Label, Scene, color_of

SOFT_TISSUE = 0.5  # dB/cm/MHz: what time-gain curves are made for


class Tissue(BaseModel):
    """One tissue; which numbers in label maps it has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: tuple[int, ...] = ()  # () = by name, of a source whose labels have names
    echogenicity_db: float | None = Field(None, ge=-120, le=0)  # None: as the image has it
    density: float = Field(1.0, ge=0, le=16)
    attenuation_db_cm_mhz: float | None = Field(None, ge=0, le=100)  # None: as the time gain
    color: tuple[int, int, int] | None = None

    @field_validator("label", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value

    @field_validator("label")
    @classmethod
    def _numbers(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(not 0 <= number <= LARGEST for number in value):
            raise ValueError(f"label: expected whole numbers of 0 to {LARGEST}, got {list(value)}")
        return value

    @field_validator("color")
    @classmethod
    def _grey(cls, value: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
        if value is not None and not all(0 <= part <= 255 for part in value):
            raise ValueError(f"color: expected red, green, blue of 0 to 255, got {list(value)}")
        return value


class Tissues(BaseModel):
    """All tissues of a dataset, and what the scanner's time-gain curve is made for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time_gain_db_cm_mhz: float = Field(SOFT_TISSUE, ge=0, le=20)
    tissues: dict[str, Tissue]

    @model_validator(mode="before")
    @classmethod
    def _tables(cls, values: Any) -> Any:
        """Return the tables of a file, each by its tissue's name, as one field; what a store records is so already."""
        if not isinstance(values, dict) or "tissues" in values:
            return values
        gain = {name: value for name, value in values.items() if name == "time_gain_db_cm_mhz"}
        rest = {name: value for name, value in values.items() if name not in gain}
        odd = [name for name, value in rest.items() if not isinstance(value, dict | Tissue)]
        if odd:
            raise ValueError(
                f"tissues.{odd[0]}: expected a table [NAME] per tissue, or time_gain_db_cm_mhz, got {rest[odd[0]]!r}"
            )
        return gain | {"tissues": rest}

    @model_validator(mode="after")
    def _consistent(self) -> Tissues:
        if not self.tissues:
            raise ValueError("tissues: expected at least one table [NAME], got none")
        owner: dict[int, str] = {}
        for name, tissue in self.tissues.items():
            for number in tissue.label:
                if number in owner:
                    raise ValueError(f"tissues.{name}: label {number} is {owner[number]!r} already")
                owner[number] = name
        return self

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @property
    def absorbs(self) -> bool:
        """Whether any tissue attenuates otherwise than the time gain makes up for."""
        return any(self._loss(tissue) for tissue in self.tissues.values())

    def numbered(self, known: Iterable[Label]) -> dict[int, Tissue]:
        """Return the tissue of each label: by its number, else by its name among those known.

        Raises
        ------
        ValueError
            A tissue has neither.
        """
        names = {label.name: label.value for label in known}
        found: dict[int, Tissue] = {}
        for name, tissue in self.tissues.items():
            if not tissue.label and name not in names:
                among = f"; known names: {', '.join(names)}" if names else ""
                raise ValueError(f"tissues.{name}.label: expected its number in the label maps, got none{among}")
            found |= dict.fromkeys(tissue.label or (names[name],), tissue)
        return found

    def labels(self) -> list[Label]:
        """Return what the tissues call their labels, 0 left out."""
        return [
            Label(number, name, tissue.color or color_of(number))
            for name, tissue in self.tissues.items()
            for number in tissue.label
            if number
        ]

    def painted(
        self, grey: np.ndarray | None, labels: np.ndarray, known: Iterable[Label], span_db: float
    ) -> np.ndarray:
        """Return the grey image, uint8, with the brightness of each tissue in its place.

        Parameters
        ----------
        grey : of the shape of the labels, uint8; None where there are labels alone.
        span_db : from white to black, dB.

        Raises
        ------
        DataError
            There are labels alone, and one of them has no brightness.
        """
        numbered = self.numbered(known)
        levels = np.zeros(LARGEST + 1, np.uint8)
        own = np.zeros(LARGEST + 1, bool)
        for number, tissue in numbered.items():
            if tissue.echogenicity_db is not None:
                levels[number] = round(255 * min(max(1 + tissue.echogenicity_db / span_db, 0), 1))
                own[number] = True
        if grey is None:
            own[0] = True  # around what has a label there is nothing, unless a tissue says otherwise
            missing = [int(number) for number in np.unique(labels) if not own[number]]
            if missing:
                raise DataError(
                    f"label {missing[0]} has no brightness: expected a tissue with label = {missing[0]} and echogenicity_db"
                    + (f" (and for {len(missing) - 1} more labels)" if len(missing) > 1 else "")
                )
            return levels[labels]
        return np.where(own[labels], levels[labels], grey)

    def scene(self, scene: Scene, known: Iterable[Label], alone: bool) -> Scene:
        """Return a scene with what its labels say of density and attenuation.

        Parameters
        ----------
        alone : whether there are labels alone, so that what has none is silent.
        """
        if scene.labels is None:
            return scene
        numbered = self.numbered(known)
        density = np.ones(LARGEST + 1, np.float32)
        density[0] = 0 if alone else 1
        loss = np.zeros(LARGEST + 1, np.float32)
        said = np.zeros(LARGEST + 1, bool)
        for number, tissue in numbered.items():
            density[number], loss[number], said[number] = tissue.density, self._loss(tissue), True
        dense = density[scene.labels]
        if scene.density is not None:  # what is silent stays so where no tissue says otherwise
            dense = np.where(said[scene.labels], dense, scene.density)
        return Scene(
            scene.hq,
            scene.labels,
            dense if (dense != 1).any() else None,
            scene.points,
            loss[scene.labels] if self.absorbs else None,
        )

    def _loss(self, tissue: Tissue) -> float:
        own = tissue.attenuation_db_cm_mhz
        return 0.0 if own is None else own - self.time_gain_db_cm_mhz
