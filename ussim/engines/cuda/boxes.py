"""Boxes of the CUDA engine: squares of a fixed lattice (cubes, of |y|, in three dimensions), their windows and spectra.

They belong to the acquisition, not to the image: made once, they serve every image of a dataset.
"""

from __future__ import annotations

import math

import numpy as np

from ...cells import MAX_TURNS, PulseLength, windows_of_boxes
from ...plan import Plan
from . import structs

WINDOW_COST = 100  # memory traffic of a cell's window, in scatterers computed meanwhile (docs/gpu.md)
SIDES = 0.25e-3 * 2.0 ** (np.arange(17) / 2)  # m, lattices to choose from: 0.25 to 64 mm
SEGMENT = 4  # frequencies that the beam in elevation is a polynomial over, at least
REACH = 20e-3  # m: the pulse's length after attenuation is taken in steps of this distance


class Boxes:
    """Windows and references of the boxes seen so far."""

    def __init__(self, plan: Plan, receive: bool, threshold_db: float | None) -> None:
        self._plan, self._receive, self._threshold_db = plan, receive, threshold_db
        self._index: dict[tuple[float, int, int, int], int] = {}
        self._pulses: dict[int, PulseLength] = {}
        self._spectrum_begin: dict[int, int] = {}
        self._spectra: list[np.ndarray] = []
        n_transmits, n_elements = plan.acquisition.n_transmits, plan.acquisition.probe.n_elements
        self._box = np.zeros(0, structs.BOX)
        self._sight = np.zeros((0, n_elements), structs.SIGHT)
        self._element_reference = np.zeros((0, n_elements), np.int32)
        self._transmit_reference = np.zeros((0, n_transmits), np.int32)

    def __len__(self) -> int:
        return len(self._box)

    def window_length(self, box: np.ndarray) -> np.ndarray:
        """Return the samples of the windows of boxes."""
        counts: np.ndarray = self._box["n"][box].astype(np.int64)
        return counts

    def n_bins(self, box: np.ndarray) -> np.ndarray:
        """Return the frequencies of boxes."""
        counts: np.ndarray = self._box["n_bins"][box].astype(np.int64)
        return counts

    def tables(self) -> dict[str, np.ndarray]:
        """Return the tables of all boxes seen so far."""
        return {
            "box": structs.plain(self._box),
            "sight": structs.plain(self._sight),
            "element_reference": self._element_reference,
            "transmit_reference": self._transmit_reference,
            "spectrum": np.concatenate(self._spectra) if self._spectra else np.zeros(1, np.complex64),
        }

    def find(self, side: float, ix: np.ndarray, iz: np.ndarray, iy: np.ndarray) -> np.ndarray:
        """Numbers of the boxes (ix, iz, iy) of the lattice of this side; new ones are made. In two dimensions iy is 0."""
        keys = [(side, *place) for place in zip(ix.tolist(), iz.tolist(), iy.tolist(), strict=True)]
        new = [key for key in keys if key not in self._index]
        if new:
            self._index |= {key: len(self) + k for k, key in enumerate(new)}
            self._make(side, *(np.array([key[axis] for key in new]) for axis in (1, 2, 3)))
        return np.array([self._index[key] for key in keys], dtype=np.int32)

    def _make(self, side: float, ix: np.ndarray, iz: np.ndarray, iy: np.ndarray) -> None:
        plan, probe = self._plan, self._plan.acquisition.probe
        center_x, center_z, half = (ix + 0.5) * side, (iz + 0.5) * side, np.full(len(ix), side / 2)
        center_y = (iy + 0.5) * side if plan.lens is not None else np.zeros(len(ix))
        windows = self.windows(center_x, center_z, half, center_y)
        element_reference, transmit_reference, start, length, first_bin, n_bins, segment = windows
        dx, dz = center_x[:, None] - probe.element_x, center_z[:, None] - probe.element_z
        distance = np.hypot(dx, dz) if plan.lens is None else np.hypot(np.hypot(dx, dz), center_y[:, None])
        per_meter = plan.acquisition.sampling_frequency / plan.acquisition.medium.speed_of_sound
        offset = distance * per_meter - element_reference
        sight = structs.table(structs.SIGHT, dx=dx, dz=dz, distance=distance, offset=offset)
        spectrum = np.array([self._spectrum(int(n)) for n in length])
        box = structs.table(
            structs.BOX,
            n=length,
            first_bin=first_bin,
            n_bins=n_bins,
            start=start % length,
            begin=start,
            spectrum=spectrum,
            segment=0 if plan.lens is None else segment.min(axis=1).astype(np.int64) // 2 * 2,
            square_y=center_y**2,
        )
        for name, rows in (
            ("_box", box),
            ("_sight", sight),
            ("_element_reference", element_reference),
            ("_transmit_reference", transmit_reference),
        ):
            table = getattr(self, name)
            setattr(self, name, np.concatenate([table, rows.astype(table.dtype)]))

    def windows(
        self, center_x: np.ndarray, center_z: np.ndarray, half: np.ndarray, center_y: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """`windows_of_boxes`, the pulse's length looked up so that a box's window depends on the box alone."""
        probe = self._plan.acquisition.probe
        farthest = np.hypot(
            np.abs(center_x) + half + np.abs(probe.element_x).max(),
            np.abs(center_z) + half + np.abs(probe.element_z).max(),
        )
        if self._plan.lens is not None:
            farthest = np.hypot(farthest, center_y + half)
        step = np.ceil(farthest / REACH).astype(int)
        fields: tuple[np.ndarray, ...] = ()
        for reach in np.unique(step):
            if reach not in self._pulses:
                self._pulses[reach] = PulseLength(self._plan, np.zeros(1), np.full(1, 1.0001 * reach * REACH))
            at = np.flatnonzero(step == reach)
            level = () if self._plan.lens is None else (center_y[at], half[at], SEGMENT)
            part = windows_of_boxes(
                self._plan,
                self._pulses[reach],
                center_x[at],
                center_z[at],
                half[at],
                half[at],
                self._receive,
                self._threshold_db,
                *level,
            )
            fields = fields or tuple(np.zeros((len(step), *f.shape[1:]), f.dtype) for f in part)
            for whole, rows in zip(fields, part, strict=True):
                whole[at] = rows
        return fields

    def _spectrum(self, n: int) -> int:
        """Return where the spectrum table for windows of n samples begins; made if new.

        Echoes: width f_s / n S B B, so that the unscaled inverse transform is the integral over frequency. Pressure:
        sqrt(width df) S B, so that the sum of squares is the integral.
        """
        if n not in self._spectrum_begin:
            plan, acquisition = self._plan, self._plan.acquisition
            frequency = np.arange(n // 2 + 1) * (acquisition.sampling_frequency / n)
            scale = plan.width * acquisition.sampling_frequency / n
            spectrum = plan.excitation(frequency)
            spectrum = spectrum * (scale * plan.response(frequency) if self._receive else math.sqrt(scale))
            self._spectrum_begin[n] = sum(len(table) for table in self._spectra)
            self._spectra.append(spectrum.astype(np.complex64))
        return self._spectrum_begin[n]


class Sides:
    """Sides of the lattice that suits a number of scatterers."""

    def __init__(self, plan: Plan, receive: bool, boxes: Boxes, tile: int) -> None:
        self._boxes, self._tile = boxes, tile
        speed = plan.acquisition.medium.speed_of_sound
        self._per_meter = (2 if receive else 1) * plan.acquisition.sampling_frequency / speed
        longest = 2 * MAX_TURNS * speed / plan.band()[1]  # diagonal of a box
        self._sides = SIDES[SIDES * math.sqrt(2) <= longest] if SIDES[0] * math.sqrt(2) <= longest else SIDES[:1]
        self._lone: dict[tuple[int, ...], float] = {}

    def choose(self, x: np.ndarray, z: np.ndarray, height: np.ndarray) -> float:
        """Return the side that makes the work least, for points spread evenly.

        Transmit computes whole tiles, receive points. `height` is |y|, 0 in two dimensions.
        """
        extent = (x.min(), x.max(), z.min(), z.max(), height.min(), height.max())
        columns = np.floor(extent[1] / self._sides) - np.floor(extent[0] / self._sides) + 1
        rows = np.floor(extent[3] / self._sides) - np.floor(extent[2] / self._sides) + 1
        layers = np.floor(extent[5] / self._sides) - np.floor(extent[4] / self._sides) + 1
        n_boxes = np.minimum(columns * rows * layers, len(x))
        window = self._lone_window(extent) + self._per_meter * 2 * self._sides
        n_points = len(x) / n_boxes
        padded = np.maximum(n_points + self._tile / 2, self._tile)
        work = n_boxes * ((n_points + padded) / 2 + WINDOW_COST) * window
        return float(self._sides[np.argmin(work)])

    def _lone_window(self, extent: tuple[float, ...]) -> float:
        """Mean window of a cell of one point over an extent (to a centimeter), samples."""
        key = tuple(int(np.rint(edge * 100)) for edge in extent)
        if key not in self._lone:
            x, z = np.meshgrid(np.linspace(key[0], key[1], 3) / 100, np.linspace(key[2], key[3], 4)[1:] / 100)
            height = np.full(x.size, (key[4] + key[5]) / 200)
            length = self._boxes.windows(x.ravel(), z.ravel(), np.zeros(x.size), height)[3]
            self._lone[key] = float(length.mean())
        return self._lone[key]
