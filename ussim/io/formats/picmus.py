"""PICMUS files (HDF5; Liebgott et al. 2016, IEEE IUS): data sets of plane waves, scans and phantoms.

A data set is `data/real` and `data/imag` (angles, elements, samples), `angles` [rad], `sampling_frequency`, `initial_time`,
`modulation_frequency` (0 of RF), `sound_speed` and `probe_geometry` (3, elements) in the group US/US_DATASET0000.
Time 0 is when the plane wave passes the origin, the center of the array, on its way; `initial_time` is that of sample 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...acquisition import Acquisition
from ...errors import DataError
from ...medium import Medium
from ...probes import Probe, load_probe
from ...transmits import PlaneWaves
from .axes import find_layout
from .facts import Facts
from .geometry import middle_of, probe_at
from .hdf5 import Stored, data_set, find, number, numbers, opened
from .recording import TIME_ZERO, Recording

GROUP = "US/US_DATASET0000"
CYCLES = 2.5  # of the excitation
USUAL = ("frames", "transmits", "elements", "samples")
CLOCK = "the wave passes the center of the array"


@dataclass(frozen=True, eq=False)
class PicmusPhantom:
    """Targets of a PICMUS phantom file. SI units; (0, 2) arrays where there are none."""

    occlusions: np.ndarray  # (n, 2) x, z
    occlusion_radii: np.ndarray  # (n,)
    roi_centers: np.ndarray  # (m, 2) x, z
    roi_sizes: np.ndarray  # (m, 2) half sizes x, z
    targets: np.ndarray  # (k, 2) x, z of point scatterers
    lateral_resolution: float


def group_of(file: Any) -> Any:
    """Return the group that holds a PICMUS object, None where there is none."""
    group = find(file, GROUP)
    if group is None:
        parent = find(file, "US")
        first = next(iter(parent), None) if parent is not None and hasattr(parent, "keys") else None
        group = None if first is None else find(parent, first)
    return group if hasattr(group, "keys") else None


def open_picmus(path: Path, variable: str | None, facts: Facts) -> Recording:
    """Open a PICMUS data set, RF or IQ."""
    with opened(path) as file:
        group = group_of(file)
        held = sorted(group) if group is not None else []
        if not {"data", "sampling_frequency"} <= set(held):
            kind = (
                "a phantom"
                if any(n.startswith("phantom_") for n in held)
                else "a scan"
                if "x_axis" in held
                else "no data"
            )
            raise DataError(
                f"{path}: expected a PICMUS data set ({GROUP} with data/real, angles, sampling_frequency, ...), "
                f"got {kind} ({', '.join(held[:8]) or 'nothing'})"
            )
        found = numbers(group, "angles")
        angles = facts.angles if found is None else found.ravel()
        if angles is None or not angles.size:
            raise DataError(f"{path}: expected a PICMUS data set with angles, got none: say them, --angles-deg")
        real = data_set(group, "data/real")
        if real is None:
            raise DataError(f"{path}: expected a PICMUS data set with data/real, got none")
        rate, start = number(group, "sampling_frequency"), number(group, "initial_time", 0.0)
        speed, carrier = number(group, "sound_speed", 1540.0), number(group, "modulation_frequency", 0.0)
        notes: list[str] = []
        positions = _positions(group)
        probe = _probe(positions, real.shape, notes) if facts.probe is None else facts.probe
        if "sound_speed" not in held and facts.speed_of_sound is None:
            notes.append("speed of sound 1540 m/s (sound_speed)")
        words = f"{probe.n_elements} elements and {len(angles)} angles"
        try:
            layout = find_layout(real.shape, probe.n_elements, len(angles), facts.axes, USUAL, words)
        except ValueError as error:
            raise DataError(f"{path}: data/real: {error}") from None
        imaginary = data_set(group, "data/imag") if carrier > 0 else None
        if imaginary is not None and imaginary.shape != real.shape:
            raise DataError(f"{path}: data/imag: expected shape {real.shape} of data/real, got {imaginary.shape}")
        if imaginary is not None and not np.any(Stored(str(path), imaginary.name)[0]):  # RF all the same
            imaginary = None
        names = [array.name for array in (real, imaginary) if array is not None]
    start_time: Any = start
    if positions is not None and abs(middle_of(positions)) > 1e-9:  # the origin is not the center of this array
        start_time = start - middle_of(positions) * np.sin(angles) / speed
    parts = [Stored(str(path), name) for name in names]

    def read(frame: int) -> np.ndarray:
        samples = [layout.read(part, frame) for part in parts]
        return samples[0] if len(samples) == 1 else samples[0] + 1j * samples[1]

    acquisition = Acquisition(
        probe,
        PlaneWaves(angles, time_reference="center"),
        Medium(speed),
        sampling_frequency=rate,
        n_cycles=CYCLES,
    )
    return Recording(
        str(path),
        "PICMUS",
        acquisition,
        rate,
        start_time,
        n_frames=layout.length("frames"),
        n_samples=layout.length("samples"),
        read=read,
        demodulation_frequency=carrier if imaginary is not None else None,
        clock=CLOCK,
        notes=tuple(notes),
        stated=frozenset({TIME_ZERO}) if "initial_time" in held else frozenset(),
    )


def picmus_scan(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixel positions x and z of a PICMUS scan file, m.

    Raises
    ------
    DataError
        Not such a file.
    """
    with opened(path) as file:
        group = group_of(file)
        axes = [None if group is None else numbers(group, name) for name in ("x_axis", "z_axis")]
    if axes[0] is None or axes[1] is None:
        raise DataError(f"{path}: expected a PICMUS scan with x_axis and z_axis, got none")
    return axes[0].ravel(), axes[1].ravel()


def read_phantom(path: str | Path) -> PicmusPhantom:
    """Return the targets of a PICMUS phantom file.

    Raises
    ------
    DataError
        Not such a file.
    """
    with opened(path) as file:
        group = group_of(file)
        wanted = [] if group is None else [name for name in group if name.startswith("phantom_")]
        found = {name: numbers(group, name) for name in wanted}
        held = [] if group is None else sorted(group)
    if not found:
        raise DataError(f"{path}: expected a PICMUS phantom with phantom_* fields, got {', '.join(held) or 'none'}")
    names = {name: values.ravel() for name, values in found.items() if values is not None}

    def pairs(x: str, z: str) -> np.ndarray:
        if x not in names or z not in names:
            return np.zeros((0, 2))
        return np.stack(np.broadcast_arrays(names[x], names[z]), axis=-1).astype(float)

    lateral = float(names.get("phantom_lateralResolution", np.array([0.62e-3]))[0])
    axial = float(names.get("phantom_axialResolution", np.array([0.44e-3]))[0])
    rois = pairs("phantom_RoiCenterX", "phantom_RoiCenterZ")
    times = pairs("phantom_RoiPsfTimeX", "phantom_RoiPsfTimeZ")
    sizes = np.broadcast_to(times, rois.shape) * [lateral, axial] if len(times) else np.zeros((0, 2))
    diameters = names.get("phantom_occlusionDiameter", np.zeros(0)).astype(float)
    occlusions = pairs("phantom_occlusionCenterX", "phantom_occlusionCenterZ")
    return PicmusPhantom(
        occlusions=occlusions,
        occlusion_radii=np.broadcast_to(diameters / 2, len(occlusions))
        if diameters.size
        else np.zeros(len(occlusions)),
        roi_centers=rois if len(sizes) else np.zeros((0, 2)),
        roi_sizes=sizes,
        targets=pairs("phantom_xPts", "phantom_zPts"),
        lateral_resolution=lateral,
    )


def _positions(group: Any) -> np.ndarray | None:
    """(n_elements, 3) positions, whichever way the file has them."""
    table = numbers(group, "probe_geometry")
    if table is None:
        return None
    if table.ndim != 2 or 3 not in table.shape:
        raise ValueError(f"probe_geometry: expected (3, elements) positions in m, got shape {table.shape}")
    return table.T if table.shape[0] == 3 else table


def _probe(positions: np.ndarray | None, shape: tuple[int, ...], notes: list[str]) -> Probe:
    """Return the challenge's array, of which the files give the positions of the elements alone."""
    base = load_probe("L11-4v")
    notes.append(
        f"probe {base.name}: {1e-6 * base.center_frequency:.3f} MHz, bandwidth {100 * base.bandwidth:g} %, elements "
        f"{1e3 * base.element_width:.3g} mm wide, pulse of {CYCLES:g} cycles"
    )
    if positions is not None:
        return probe_at(positions, base)
    probe = base if base.n_elements in shape else replace(base, n_elements=shape[-2])
    notes.append(f"{probe.n_elements} elements, {1e3 * probe.pitch:.3g} mm apart (probe_geometry)")
    return probe
