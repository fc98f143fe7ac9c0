"""Recordings as DRUS takes them: real RF at 4 f_c or more, with the acquisition that made it.

PICMUS data sets (HDF5; Liebgott et al. 2016), MUST-style .mat files (fields RF and param), and ussim's own .npz. Each
keeps its own clock: MUST's is that of its delays, PICMUS' begins when a wave passes the array's centre. What the file does
not hold is assumed, and a `Recording` lists it: `conditions` settles the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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
from ussim.probes import Probe, load_probe, name_after
from ussim.transmits import CustomTransmits, PlaneWaves
from ussim.types import IQData, RFData

from .acoustics import of_transmit

LOWEST_RATIO = 4.0  # f_s / f_c that H and B need
PICMUS_GROUP = "US/US_DATASET0000"
PICMUS_CENTER_FREQUENCY = 5.208e6  # Hz, where the file says 0 (RF)
PICMUS_CYCLES = 2.5
SPEED_OF_SOUND = 1540.0  # m/s, where the file holds none
MUST_BANDWIDTH = 75.0  # %, where a .mat holds none: MUST's default
MUST_KERF = 0.1  # of the pitch, where a .mat holds neither width nor kerf
ATTENUATION, TIME_ZERO = "attenuation", "time zero"  # what a file may state and `conditions` asks for


@dataclass(frozen=True, eq=False)
class Recording:
    """RF with the acquisition that made it, what its file states, and what was assumed of the rest.

    Attributes
    ----------
    rf : RFData
    stated : frozenset of str
        ATTENUATION and TIME_ZERO where the file holds them.
    assumed : tuple of str
        In words: what else the file does not hold, and the value taken for it.
    """

    rf: RFData
    stated: frozenset[str]
    assumed: tuple[str, ...] = ()


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
    return open_recording(path).rf


def open_recording(path: str | Path) -> Recording:
    """The same with what the file states of its physics; raises as `read_recording`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    suffix = path.suffix.lower()
    if suffix == ".mat":
        return open_must(path)
    if suffix in (".h5", ".hdf5"):
        return open_picmus(path)
    data = load_channel_data(path)
    rf = remodulate(data) if isinstance(data, IQData) else as_fast_rf(data)
    return Recording(rf, frozenset({ATTENUATION, TIME_ZERO}))


def read_must(path: str | Path, frame: int = 0) -> RFData:
    """One frame of a .mat with `RF` (samples, elements[, frames]) and `param` (fs, fc, c, pitch, ...), as MUST's examples.

    The probe is a flat array; sampling below 4 f_c goes through `ussim.demodulate` and up again.
    """
    return open_must(path, frame).rf


def open_must(path: str | Path, frame: int = 0) -> Recording:
    """`read_must` with what the file states: `param.attenuation` (dB/cm/MHz), `param.t0` and the like."""
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
    assumed: list[str] = []

    def value(name: str, otherwise: float, words: str) -> float:
        if hasattr(param, name):
            return float(getattr(param, name))
        assumed.append(words)
        return otherwise

    if hasattr(param, "width"):
        width = float(param.width)
    else:
        kerf = value("kerf", MUST_KERF * pitch, f"elements {1e3 * (1 - MUST_KERF) * pitch:.3g} mm wide (param.width)")
        width = pitch - kerf
    bandwidth = value("bandwidth", MUST_BANDWIDTH, f"bandwidth {MUST_BANDWIDTH:g} % (param.bandwidth)")
    speed = value("c", SPEED_OF_SOUND, f"speed of sound {SPEED_OF_SOUND:g} m/s (param.c)")
    probe = Probe(
        name=name_after(Path(path)),
        center_frequency=center_frequency,
        bandwidth=bandwidth / 100,
        n_elements=int(values["Nelements"]),
        pitch=pitch,
        element_width=width,
    )
    if not hasattr(param, "TXdelay"):
        assumed.append("all elements fire at once (param.TXdelay)")
    delays = np.atleast_1d(getattr(param, "TXdelay", np.zeros(probe.n_elements))).astype(float)
    stated = {name for name, key in ((ATTENUATION, "attenuation"), (TIME_ZERO, "t0")) if hasattr(param, key)}
    attenuation = float(getattr(param, "attenuation", 0.0))
    if not (math.isfinite(attenuation) and attenuation >= 0):
        raise DataError(f"{path}: param.attenuation: expected dB/cm/MHz of at least 0, got {attenuation!r}")
    acquisition = Acquisition(
        probe=probe,
        waves=CustomTransmits(delays),
        medium=Medium(speed, attenuation),
        sampling_frequency=max(float(values["fs"]), LOWEST_RATIO * center_frequency),
    )
    samples = rf[:, :, frame].T[None].astype(np.float32)
    start_time = float(getattr(param, "t0", 0.0))
    fast = as_fast_rf(RFData(np.ascontiguousarray(samples), acquisition, float(values["fs"]), start_time))
    return Recording(fast, frozenset(stated), tuple(assumed))


def read_picmus(path: str | Path, max_angles: int | None = None) -> RFData:
    """A PICMUS data set (RF, or IQ that is remodulated), its angles or `max_angles` of them evenly kept, 0 among them.

    PICMUS counts time from the wave's passage through the origin, the centre of the array: so do the waves returned.
    """
    return open_picmus(path, max_angles).rf


def open_picmus(path: str | Path, max_angles: int | None = None) -> Recording:
    """`read_picmus` with what the file states; of attenuation none of them says a word."""
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
                    ("sound_speed", SPEED_OF_SOUND),
                    ("initial_time", 0.0),
                    ("modulation_frequency", 0.0),
                )
            )
            geometry = group["probe_geometry"][()] if "probe_geometry" in group else None
            names = set(group)
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
        rf = remodulate(IQData(samples, acquisition, sampling, modulation, initial))
    else:
        rf = as_fast_rf(RFData(real.astype(np.float32), acquisition, sampling, initial))
    stated = frozenset({TIME_ZERO}) if "initial_time" in names else frozenset()
    return Recording(rf, stated, tuple(_picmus_assumptions(probe, names)))


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
    acquisition = of_transmit(rf.acquisition, i)
    return RFData(to_numpy(rf.samples)[i : i + 1], acquisition, rf.sampling_frequency, rf.start_times[i])


def _clocked(acquisition: Acquisition, rate: float) -> Acquisition:
    return replace(acquisition, sampling_frequency=rate)


def _picmus_assumptions(probe: Probe, names: set[str]) -> Iterator[str]:
    """What no PICMUS file holds, and what this one lacks."""
    yield (
        f"probe {probe.name}: {1e-6 * probe.center_frequency:.3f} MHz, bandwidth {100 * probe.bandwidth:g} %, elements "
        f"{1e3 * probe.element_width:.3g} mm wide, pulse of {PICMUS_CYCLES:g} cycles"
    )
    if "probe_geometry" not in names:
        yield f"{probe.n_elements} elements, {1e3 * probe.pitch:.3g} mm apart (probe_geometry)"
    if "sound_speed" not in names:
        yield f"speed of sound {SPEED_OF_SOUND:g} m/s (sound_speed)"


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
    "Recording",
    "as_fast_rf",
    "open_must",
    "open_picmus",
    "open_recording",
    "read_must",
    "read_picmus",
    "read_picmus_phantom",
    "read_recording",
    "remodulate",
    "single",
]
