"""Recordings as DRUS takes them: real RF at 4 f_c or more, with the acquisition that made it.

PICMUS data sets (HDF5; Liebgott et al. 2016), MUST-style .mat files (fields RF and param), and ussim's own .npz. Each
keeps its own clock: MUST's is that of its delays, PICMUS' begins when a wave passes the array's centre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from ussim.acquisition import Acquisition
from ussim.arrays import to_numpy
from ussim.demodulation import demodulate
from ussim.errors import DataError
from ussim.io.channel_data import load_channel_data
from ussim.medium import Medium
from ussim.probes import Probe, load_probe
from ussim.transmits import CustomTransmits, PlaneWaves
from ussim.types import IQData, RFData

LOWEST_RATIO = 4.0  # f_s / f_c that H and B need
PICMUS_GROUP = "US/US_DATASET0000"
PICMUS_CENTER_FREQUENCY = 5.208e6  # Hz, where the file says 0 (RF)
PICMUS_CYCLES = 2.5


@dataclass(frozen=True, eq=False)
class PicmusPhantom:
    """What a PICMUS phantom file says of its targets. SI units; (0, 2) arrays where there are none."""

    occlusions: np.ndarray  # (n, 2) x, z
    occlusion_radii: np.ndarray  # (n,)
    roi_centers: np.ndarray  # (m, 2) x, z
    roi_sizes: np.ndarray  # (m, 2) half sizes x, z
    targets: np.ndarray  # (k, 2) x, z of point scatterers
    lateral_resolution: float


def read_recording(path: str | Path) -> RFData:
    """RF of a recording: .npz of ussim, .mat of MUST's form, .hdf5 of PICMUS.

    Raises
    ------
    FileNotFoundError
        No such file.
    DataError
        Not one of these, or a field is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    suffix = path.suffix.lower()
    if suffix == ".mat":
        return read_must(path)
    if suffix in (".h5", ".hdf5"):
        return read_picmus(path)
    data = load_channel_data(path)
    return remodulate(data) if isinstance(data, IQData) else as_fast_rf(data)


def read_must(path: str | Path, frame: int = 0) -> RFData:
    """One frame of a .mat with `RF` (samples, elements[, frames]) and `param` (fs, fc, c, pitch, ...), as MUST's examples.

    The probe is a flat array; sampling below 4 f_c goes through `ussim.demodulate` and up again.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(path, squeeze_me=True, struct_as_record=False)
        rf, param = np.asarray(content["RF"]), content["param"]
        values = {name: getattr(param, name) for name in ("fs", "fc", "pitch", "Nelements")}
    except (KeyError, AttributeError, ValueError, NotImplementedError, OSError, MatReadError) as error:
        raise DataError(f"{path}: expected a .mat with RF and param.fs, fc, pitch, Nelements, got {error}") from None
    rf = rf if rf.ndim == 3 else rf[:, :, None]
    if not 0 <= frame < rf.shape[2]:
        raise DataError(f"{path}: frame: expected 0..{rf.shape[2] - 1}, got {frame}")
    pitch, center_frequency = float(values["pitch"]), float(values["fc"])
    bandwidth = float(getattr(param, "bandwidth", 75.0)) / 100
    width = float(getattr(param, "width", pitch - float(getattr(param, "kerf", 0.1 * pitch))))
    probe = Probe(
        name=Path(path).stem,
        center_frequency=center_frequency,
        bandwidth=bandwidth,
        n_elements=int(values["Nelements"]),
        pitch=pitch,
        element_width=width,
    )
    delays = np.atleast_1d(getattr(param, "TXdelay", np.zeros(probe.n_elements))).astype(float)
    acquisition = Acquisition(
        probe=probe,
        waves=CustomTransmits(delays),
        medium=Medium(float(getattr(param, "c", 1540.0))),
        sampling_frequency=max(float(values["fs"]), LOWEST_RATIO * center_frequency),
    )
    samples = rf[:, :, frame].T[None].astype(np.float32)
    start_time = float(getattr(param, "t0", 0.0))
    return as_fast_rf(RFData(np.ascontiguousarray(samples), acquisition, float(values["fs"]), start_time))


def read_picmus(path: str | Path, max_angles: int | None = None) -> RFData:
    """A PICMUS data set (RF, or IQ that is remodulated), its angles or `max_angles` of them evenly kept, 0 among them.

    PICMUS counts time from the wave's passage through the origin, the centre of the array: so do the waves returned.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            group = file[PICMUS_GROUP] if PICMUS_GROUP in file else file["US"][next(iter(file["US"]))]
            if "sampling_frequency" not in group:
                raise KeyError("sampling_frequency")
            angles = np.ravel(group["angles"][()]).astype(float)
            kept = _kept_angles(angles, max_angles)
            real = group["data/real"][np.sort(kept)][()]
            imaginary = group["data/imag"][np.sort(kept)][()] if "data/imag" in group else np.zeros(1)
            sampling, speed, initial, modulation = (
                float(np.ravel(group[name][()])[0]) if name in group else default
                for name, default in (
                    ("sampling_frequency", math.nan),
                    ("sound_speed", 1540.0),
                    ("initial_time", 0.0),
                    ("modulation_frequency", 0.0),
                )
            )
            geometry = group["probe_geometry"][()] if "probe_geometry" in group else None
    except (OSError, KeyError, StopIteration, TypeError) as error:
        raise DataError(
            f"{path}: expected a PICMUS data set ({PICMUS_GROUP} with data/real, angles, ...): {error}"
        ) from None
    angles = angles[np.sort(kept)]
    probe = _picmus_probe(geometry)
    acquisition = Acquisition(
        probe=probe,
        waves=PlaneWaves(angles, time_reference="center"),
        medium=Medium(speed),
        sampling_frequency=max(sampling, LOWEST_RATIO * probe.center_frequency),
        n_cycles=PICMUS_CYCLES,
    )
    if real.shape[1] != probe.n_elements:
        raise DataError(f"{path}: data/real: expected (angles, {probe.n_elements} elements, samples), got {real.shape}")
    if modulation > 0 and np.any(imaginary):
        samples = (real + 1j * imaginary).astype(np.complex64)
        return remodulate(IQData(samples, acquisition, sampling, modulation, initial))
    return as_fast_rf(RFData(real.astype(np.float32), acquisition, sampling, initial))


def read_picmus_phantom(path: str | Path) -> PicmusPhantom:
    """The targets of a PICMUS phantom file.

    Raises
    ------
    DataError
        Not such a file.
    """
    import h5py

    names: dict[str, np.ndarray] = {}

    def collect(name, item) -> None:
        if isinstance(item, h5py.Dataset):
            names[name.rsplit("/", 1)[-1]] = np.ravel(item[()]) if item.dtype.kind in "fiu" else np.zeros(0)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(collect)
    except OSError as error:
        raise DataError(f"{path}: expected a PICMUS phantom (HDF5): {error}") from None
    if not any(name.startswith("phantom_") for name in names):
        raise DataError(
            f"{path}: expected a PICMUS phantom with phantom_* fields, got {', '.join(sorted(names)) or 'none'}"
        )

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


def as_fast_rf(rf: RFData) -> RFData:
    """The same RF if it has 4 samples a period or more; otherwise demodulated, and remodulated on a faster clock."""
    if rf.sampling_frequency >= LOWEST_RATIO * rf.acquisition.probe.center_frequency * (1 - 1e-9):
        return rf
    return remodulate(demodulate(rf))


def remodulate(iq: IQData) -> RFData:
    """RF(t) = Re[IQ(t) exp(2πi f_0 t)] on a clock of at least 4 f_c, a whole multiple of the recording's."""
    center = iq.acquisition.probe.center_frequency
    factor = max(1, int(np.ceil(LOWEST_RATIO * center / iq.sampling_frequency - 1e-9)))
    samples = resample_poly(to_numpy(iq.samples).astype(np.complex128), factor, 1, axis=-1)
    rate = factor * iq.sampling_frequency
    time = iq.start_times[:, None, None] + np.arange(samples.shape[-1]) / rate
    rf = np.real(samples * np.exp(2j * np.pi * iq.demodulation_frequency * time))
    return RFData(rf.astype(np.float32), _clocked(iq.acquisition, rate), rate, iq.start_time)


def single(rf: RFData) -> RFData:
    """The one transmit with the flattest delays: the 0 degree plane wave where there is one. Silent ones do not count."""
    delays, weights = rf.acquisition.transmit_delays, rf.acquisition.transmit_weights
    spans = [
        np.nanmax(law) - np.nanmin(law) if weight.any() else np.inf for law, weight in zip(delays, weights, strict=True)
    ]
    i = int(np.argmin(spans))
    before = rf.acquisition
    waves = CustomTransmits(before.transmit_delays[i : i + 1], before.transmit_weights[i : i + 1])
    if before.transmit_delays.shape[1] == 1:
        waves = CustomTransmits(before.transmit_delays[i], before.transmit_weights[i : i + 1])
    acquisition = replace(before, waves=waves)
    return RFData(to_numpy(rf.samples)[i : i + 1], acquisition, rf.sampling_frequency, rf.start_times[i])


def _clocked(acquisition: Acquisition, rate: float) -> Acquisition:
    return replace(acquisition, sampling_frequency=rate)


def _kept_angles(angles: np.ndarray, max_angles: int | None) -> np.ndarray:
    if max_angles is None or max_angles >= len(angles):
        return np.arange(len(angles))
    kept = np.round(np.linspace(0, len(angles) - 1, max_angles)).astype(int)
    kept[np.argmin(np.abs(angles[kept]))] = np.argmin(np.abs(angles))
    return np.unique(kept)


def _picmus_probe(geometry: np.ndarray | None) -> Probe:
    """The L11-4v preset with the file's number of elements and pitch."""
    probe = load_probe("L11-4v")
    if geometry is None:
        return probe
    x = np.sort(np.ravel(geometry[0] if geometry.shape[0] == 3 else geometry[:, 0]).astype(float))
    return replace(probe, n_elements=len(x), pitch=float(np.diff(x).mean()))


__all__ = [
    "PicmusPhantom",
    "as_fast_rf",
    "read_must",
    "read_picmus",
    "read_picmus_phantom",
    "read_recording",
    "remodulate",
    "single",
]
