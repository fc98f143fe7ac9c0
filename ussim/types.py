"""The values that pass between the steps: scatterers, image grid, channel data. SI units.

Plain frozen dataclasses, checked where they are built, so that the code behind them need not check again. What the data
were acquired with is an `Acquisition` (`ussim.acquisition`).
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .acquisition import Acquisition
from .arrays import to_numpy
from .doors import LARGEST_REFLECTIVITY, check_count, check_frequency, check_real, check_times, own
from .io.archive import write_record
from .io.formats import writer_of
from .io.formats.recording import Recording
from .probes import one_row
from .reach import check_reach
from .shown import Shown, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .probes import Probe


@dataclass(frozen=True, eq=False, repr=False)
class Scatterers(Shown):
    """Point scatterers. Those behind the array give no echo.

    Without `y` the model has two dimensions: x and z, amplitudes as 1/sqrt(distance). With it, it has three: amplitudes as
    1/distance, and what the elements' height and lens focus in elevation (`physics.elevation_beam`).

    Attributes
    ----------
    x, z : np.ndarray
        (n,) lateral position and depth, m; float32 stays, anything else becomes float64.
    reflectivity : np.ndarray
        (n,) amplitude, of either sign, without unit.
    y : np.ndarray, optional
        (n,) elevation, m, 0 in the plane of the image; none by default. Needs a probe with an element_height.

    Raises
    ------
    ValueError
        The arrays are not one-dimensional, of one length and finite.
    """

    x: np.ndarray
    z: np.ndarray
    reflectivity: np.ndarray
    y: np.ndarray | None = None

    if TYPE_CHECKING:  # lists and numbers become arrays

        def __init__(
            self,
            x: ArrayLike,
            z: ArrayLike,
            reflectivity: ArrayLike,
            y: ArrayLike | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        names = ("x", "z", "reflectivity") if self.y is None else ("x", "z", "reflectivity", "y")
        for name in names:
            values = getattr(self, name)
            check_real(name, values)
            single = getattr(values, "dtype", None) == np.float32
            object.__setattr__(self, name, own(f"Scatterers: {name}", values, np.float32 if single else np.float64))
        shapes = [getattr(self, name).shape for name in names]
        if self.x.ndim != 1 or len(set(shapes)) > 1:
            raise ValueError(
                f"Scatterers: expected {', '.join(names[:-1])} and {names[-1]} of one length, got shapes "
                f"{', '.join(map(str, shapes))}"
            )
        for name in names:
            if not bool(np.isfinite(getattr(self, name)).all()):
                raise ValueError(f"Scatterers: {name}: expected finite numbers, got NaN or infinity")
        if len(self.x) and float(abs(self.reflectivity).max()) > LARGEST_REFLECTIVITY:
            raise ValueError(
                f"Scatterers: reflectivity: expected magnitudes of at most {LARGEST_REFLECTIVITY:g} (echoes are float32), "
                f"got {float(abs(self.reflectivity).max()):g}"
            )

    def __len__(self) -> int:
        return len(self.x)

    def select(self, which: np.ndarray | slice) -> Scatterers:
        """Return some of the scatterers.

        Parameters
        ----------
        which : np.ndarray or slice
            Their numbers, or (n,) bool.

        Returns
        -------
        Scatterers
        """
        y = None if self.y is None else self.y[which]
        return Scatterers(self.x[which], self.z[which], self.reflectivity[which], y)

    def join(self, other: Scatterers) -> Scatterers:
        """Return these scatterers and others after them; where only one of both has a y, the rest lie at y = 0.

        Parameters
        ----------
        other : Scatterers
            Those that follow.

        Returns
        -------
        Scatterers
        """
        x, z, reflectivity = (
            np.concatenate([getattr(self, name), getattr(other, name)]) for name in ("x", "z", "reflectivity")
        )
        if self.y is None and other.y is None:
            return Scatterers(x, z, reflectivity)
        y = [np.zeros(len(part)) if part.y is None else part.y for part in (self, other)]
        return Scatterers(x, z, reflectivity, np.concatenate(y))


@dataclass(frozen=True, eq=False, repr=False)
class ImageGrid(Shown):
    """Pixel centers of an image: columns at `x`, rows at `z`.

    Depth is from z = 0: the face of a flat array; of a convex one the chord through its outermost elements, not its apex,
    which lies radius + center_of_curvature (`Probe`) deeper.

    Attributes
    ----------
    x : np.ndarray
        (nx,) lateral positions, m, increasing; 0 is the middle of the array.
    z : np.ndarray
        (nz,) depths, m, increasing.
    y : np.ndarray, optional
        (ny,) elevations, m, increasing, of a volume; none by default: one plane.
    shape : tuple of int
        (nz, nx), or (nz, ny, nx) of a volume.

    Raises
    ------
    ValueError
        An axis is not finite and increasing, or (in `for_acquisition`) the field of view is not known.
    """

    x: np.ndarray
    z: np.ndarray
    y: np.ndarray | None = None

    if TYPE_CHECKING:  # lists and numbers become arrays

        def __init__(
            self,
            x: ArrayLike,
            z: ArrayLike,
            y: ArrayLike | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in ("x", "z") if self.y is None else ("x", "z", "y"):
            axis = own(f"ImageGrid: {name}", getattr(self, name))
            if axis.ndim != 1 or axis.size == 0 or not np.all(np.isfinite(axis)) or np.any(np.diff(axis) <= 0):
                raise ValueError(f"ImageGrid: {name}: expected finite increasing positions in m, got {axis!r}")
            object.__setattr__(self, name, axis)

    @classmethod
    def for_acquisition(
        cls,
        acquisition: Acquisition,
        shape: tuple[int, int] = (256, 256),
        x: tuple[float, float] | None = None,
        z: tuple[float, float] | None = None,
    ) -> ImageGrid:
        """Lay pixels over the probe's default field of view, or over extents of one's own.

        Parameters
        ----------
        acquisition : Acquisition
            Its probe has the default field of view.
        shape : (int, int)
            (nz, nx) pixels, (256, 256) by default.
        x : (float, float), optional
            Lateral extent (low, high), m; the probe's by default.
        z : (float, float), optional
            Depths (low, high), m, from z = 0; the probe's by default.

        Returns
        -------
        ImageGrid

        Raises
        ------
        ValueError
            The probe has no default field of view and `x` or `z` is missing, or a value is out of range.
        """
        imaging = acquisition.probe.imaging
        if imaging is None and (x is None or z is None):
            raise ValueError(
                f"{acquisition.probe.name} has no default field of view ([imaging] in its file): give x and z in m"
            )
        if min(shape) < 1:
            raise ValueError(f"shape: expected (nz, nx) of at least 1, got {shape}")
        x = x if x is not None else imaging.x  # type: ignore[union-attr]
        z = z if z is not None else imaging.z  # type: ignore[union-attr]
        for name, extent in (("x", x), ("z", z)):
            if not extent[0] < extent[1]:
                raise ValueError(f"{name}: expected (low, high) in m with low < high, got {tuple(extent)}")
        for n in shape:
            check_count("shape", n)
        check_reach("for_acquisition", np.asarray(x, dtype=float), np.asarray(z, dtype=float), acquisition)
        return cls(x=np.linspace(x[0], x[1], shape[1]), z=np.linspace(z[0], z[1], shape[0]))

    def plot(self, image: ArrayLike, dynamic_range_db: float = 40.0, title: str = "") -> Figure:
        """Draw an image on this grid, axes in mm: a picture that a notebook shows.

        Parameters
        ----------
        image : array-like
            (nz, nx) grey levels in [0, 1] as `log_compress` gives them; or the complex image or envelope of
            `delay_and_sum`, which is compressed here.
        dynamic_range_db : float
            From white to black, dB, above 0; 40 by default.
        title : str
            Above the image; none by default.

        Returns
        -------
        matplotlib.figure.Figure
            `figure.savefig(path)` keeps it.
        """
        one_plane(self, "plot")
        values = to_numpy(np.asarray(image) if isinstance(image, list | tuple) else image)
        if np.iscomplexobj(values) or (values.size and values.dtype.kind == "f" and values.max() > 1):
            largest = np.abs(values).max() or 1.0
            decibels = 20 * np.log10(np.maximum(np.abs(values) / largest, 10 ** (-dynamic_range_db / 20)))
            values = 1 + decibels / dynamic_range_db
        return draw("bmode_figure", values, self, dynamic_range_db, title)

    def plot_pressure(
        self, pressure: ArrayLike, probe: Probe, dynamic_range_db: float = 40.0, title: str = ""
    ) -> Figure:
        """Draw the field of `pressure_field` on this grid, in dB of its maximum, and the array that makes it.

        Parameters
        ----------
        pressure : array-like
            (nz, nx) RMS pressure of one transmit.
        probe : Probe
            The array.
        dynamic_range_db : float
            From the maximum down, dB, above 0; 40 by default.
        title : str
            Above the field; none by default.

        Returns
        -------
        matplotlib.figure.Figure
            `figure.savefig(path)` keeps it.
        """
        one_plane(self, "plot_pressure")
        return draw("pressure_figure", np.asarray(to_numpy(pressure)), self, probe, title, dynamic_range_db)

    @property
    def shape(self) -> tuple[int, int]:
        """(nz, nx), the shape of an image on this grid; (nz, ny, nx) of a volume."""
        if self.y is None:
            return len(self.z), len(self.x)
        volume: Any = (len(self.z), len(self.y), len(self.x))  # typed as a plane: those that take planes refuse it
        return volume  # type: ignore[no-any-return]

    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x and z of every pixel, each of the grid's shape, m."""
        if self.y is None:
            x, z = np.meshgrid(self.x, self.z)
        else:
            z, _, x = np.meshgrid(self.z, self.y, self.x, indexing="ij")
        return x, z


def one_plane(grid: object, what: str) -> None:
    """Refuse a volume where a plane is expected.

    Raises
    ------
    ValueError
        The grid has a y.
    """
    if isinstance(grid, ImageGrid) and grid.y is not None:
        raise ValueError(
            f"{what}: expected a grid of one plane, got one with {len(grid.y)} elevations (y): "
            "give ImageGrid(x, z), and image[:, j] of a volume's j-th plane"
        )


@dataclass(frozen=True, eq=False, repr=False)
class RFData(Shown):
    """Channel data as received.

    Time is that of the firing delays, `acquisition.transmit_delays`: with the waves' `time_reference` "first" it is 0 when
    the first element of a transmit fires whose apodization is not 0, with "center" when the wave passes the array's center,
    and the delays of `CustomTransmits` are kept as given. Pulses are centered: the echo of a point has the middle of its
    two-way pulse at delay + way there and back / c. Where the pulse of a recording *begins* with the firing, say by
    `pulse_time` how long after it the middle of the two-way pulse comes; `start_time` holds the difference.

    One record, or a stack of records of one acquisition: what is computed of a stack is what is computed of each of
    its records alone.

    Attributes
    ----------
    samples : np.ndarray
        (..., n_transmits, n_elements, n_samples) float32 (reference engine: float64); CuPy where computed on a card.
    acquisition : Acquisition
        What the data were acquired with.
    sampling_frequency : float
        Hz.
    start_time : float or np.ndarray
        Time of the first sample, s: one, or (n_transmits,) of each transmit; 0 by default.
    firing_times : np.ndarray, optional
        (..., n_transmits) s: when the transmits of each record fired, on one clock for all of them, which `start_time` does
        not have: time within a record begins anew with each transmit. None, the default: not known.
    frame_rate : float or None
        Records per second of a stack, from `firing_times`, Hz.
    start_times : np.ndarray
        (n_transmits,) time of each transmit's first sample, s.
    pulse_time : float
        Of the constructor alone: time from an element's firing to the middle of its two-way pulse, s; 0 by default.

    Raises
    ------
    ValueError
        The shape is not the acquisition's, or the samples are complex.
    """

    samples: np.ndarray
    acquisition: Acquisition
    sampling_frequency: float
    start_time: float | np.ndarray = 0.0
    pulse_time: InitVar[float] = 0.0
    firing_times: np.ndarray | None = None

    def __post_init__(self, pulse_time: float) -> None:
        _check_channels(self.samples, self.acquisition, self.sampling_frequency)
        if not np.isfinite(pulse_time):
            raise ValueError(f"pulse_time: expected finite seconds, got {pulse_time!r}")
        object.__setattr__(self, "sampling_frequency", float(self.sampling_frequency))
        started = _checked_start(self.start_time, self.acquisition)
        object.__setattr__(self, "start_time", _checked_start(started - pulse_time, self.acquisition))
        object.__setattr__(self, "firing_times", _checked_firings(self.firing_times, self.samples))
        if np.iscomplexobj(self.samples):
            raise ValueError("RFData: expected real samples, got complex ones (demodulated? use IQData)")

    @property
    def start_times(self) -> np.ndarray:
        """(n_transmits,) time of each transmit's first sample, s."""
        return np.broadcast_to(self.start_time, self.acquisition.n_transmits)

    @property
    def frame_rate(self) -> float | None:
        """Records per second of a stack, Hz; None of one record, or where `firing_times` are not known."""
        return frame_rate_of(self.firing_times)

    def to_numpy(self) -> RFData:
        """Return the same data in host memory."""
        return replace(self, samples=to_numpy(self.samples))

    def plot(self, transmit: int = 0, dynamic_range_db: float = 60.0) -> Figure:
        """Draw the channel data of one transmit: elements across, time down, in dB of their largest value.

        Parameters
        ----------
        transmit : int
            Which one, from 0.
        dynamic_range_db : float
            From white to black, dB, above 0; 60 by default.

        Returns
        -------
        matplotlib.figure.Figure
            `figure.savefig(path)` keeps it.
        """
        return draw("channels_figure", self, transmit, dynamic_range_db)

    def save(self, path: str | PathLike[str]) -> None:
        """Write one record to a file, which `load_channel_data` reads back.

        Parameters
        ----------
        path : str or Path
            The file. Its suffix is its format: .hdf5 is zea's (OpenH-RF has it too), .mat MUST's, .uff that of USTB; any
            other is ussim's own, .npz, which holds every acquisition exactly.

        Raises
        ------
        ValueError
            The data are a stack (a file of zea, MUST or USTB holds (n_frames, ...)), or the format has no word for them.
        """
        write = writer_of(path)
        if write is not None:
            one_row(self.acquisition.probe, f"{path}")
            write(path, _as_recording(self, path))
            return
        write_record(
            path,
            "rf",
            self.samples,
            self.acquisition,
            sampling_frequency=self.sampling_frequency,
            start_time=self.start_time,
        )


@dataclass(frozen=True, eq=False, repr=False)
class IQData(Shown):
    """Demodulated channel data: RF(t) = Re[IQ(t) exp(2πi demodulation_frequency t)]. One record or a stack, as `RFData`.

    Attributes
    ----------
    samples : np.ndarray
        (..., n_transmits, n_elements, n_samples) complex64; CuPy where computed on a card.
    acquisition : Acquisition
        What the data were acquired with.
    sampling_frequency : float
        Hz.
    demodulation_frequency : float
        Carrier that was taken away, Hz.
    start_time : float or np.ndarray
        Time of the first sample, s: one, or (n_transmits,) of each transmit; 0 by default.
    firing_times : np.ndarray, optional
        (..., n_transmits) s: when the transmits of each record fired, on one clock for all of them, which `start_time` does
        not have: time within a record begins anew with each transmit. None, the default: not known.
    frame_rate : float or None
        Records per second of a stack, from `firing_times`, Hz.
    start_times : np.ndarray
        (n_transmits,) time of each transmit's first sample, s.

    Raises
    ------
    ValueError
        The shape is not the acquisition's, or the samples are real.
    """

    samples: np.ndarray
    acquisition: Acquisition
    sampling_frequency: float
    demodulation_frequency: float
    start_time: float | np.ndarray = 0.0
    firing_times: np.ndarray | None = None

    def __post_init__(self) -> None:
        _check_channels(self.samples, self.acquisition, self.sampling_frequency)
        object.__setattr__(self, "sampling_frequency", float(self.sampling_frequency))
        object.__setattr__(self, "start_time", _checked_start(self.start_time, self.acquisition))
        object.__setattr__(self, "firing_times", _checked_firings(self.firing_times, self.samples))
        if not np.isfinite(self.demodulation_frequency):
            raise ValueError(f"demodulation_frequency: expected Hz, got {self.demodulation_frequency!r}")
        check_frequency("demodulation_frequency", self.demodulation_frequency, self.acquisition.probe.center_frequency)
        if not np.iscomplexobj(self.samples):
            raise ValueError("IQData: expected complex samples, got real ones (not demodulated? use ussim.demodulate)")

    @property
    def start_times(self) -> np.ndarray:
        """(n_transmits,) time of each transmit's first sample, s."""
        return np.broadcast_to(self.start_time, self.acquisition.n_transmits)

    @property
    def frame_rate(self) -> float | None:
        """Records per second of a stack, Hz; None of one record, or where `firing_times` are not known."""
        return frame_rate_of(self.firing_times)

    def to_numpy(self) -> IQData:
        """Return the same data in host memory."""
        return replace(self, samples=to_numpy(self.samples))

    def plot(self, transmit: int = 0, dynamic_range_db: float = 60.0) -> Figure:
        """Draw the channel data of one transmit: elements across, time down, in dB of their largest value.

        Parameters
        ----------
        transmit : int
            Which one, from 0.
        dynamic_range_db : float
            From white to black, dB, above 0; 60 by default.

        Returns
        -------
        matplotlib.figure.Figure
            `figure.savefig(path)` keeps it.
        """
        return draw("channels_figure", self, transmit, dynamic_range_db)

    def save(self, path: str | PathLike[str]) -> None:
        """Write one record to a file, which `load_channel_data` reads back.

        Parameters
        ----------
        path : str or Path
            The file. Its suffix is its format: .hdf5 is zea's (OpenH-RF has it too), .mat MUST's, .uff that of USTB; any
            other is ussim's own, .npz, which holds every acquisition exactly.

        Raises
        ------
        ValueError
            The data are a stack (a file of zea, MUST or USTB holds (n_frames, ...)), or the format has no word for them.
        """
        write = writer_of(path)
        if write is not None:
            one_row(self.acquisition.probe, f"{path}")
            write(path, _as_recording(self, path))
            return
        write_record(
            path,
            "iq",
            self.samples,
            self.acquisition,
            sampling_frequency=self.sampling_frequency,
            start_time=self.start_time,
            demodulation_frequency=self.demodulation_frequency,
        )


def _as_recording(data: RFData | IQData, path: str | PathLike[str]) -> Recording:
    """Return the data as formats of several frames take them."""
    samples = data.samples if data.samples.ndim > 3 else data.samples[None]
    if samples.ndim > 4:
        raise ValueError(f"save: expected one record or a stack of frames, got samples of shape {data.samples.shape}")
    return Recording(
        str(path),
        "ussim",
        data.acquisition,
        data.sampling_frequency,
        data.start_time,
        n_frames=len(samples),
        n_samples=samples.shape[-1],
        read=lambda frame: to_numpy(samples[frame]),
        demodulation_frequency=data.demodulation_frequency if isinstance(data, IQData) else None,
        firing_times=None if data.firing_times is None else data.firing_times.reshape(len(samples), -1),
    )


def frame_rate_of(firing_times: np.ndarray | None) -> float | None:
    """Return records per second, the mean, of firing times (n_frames, n_transmits), s; None of less than two records."""
    if firing_times is None or firing_times.ndim != 2 or len(firing_times) < 2:
        return None
    span = float(firing_times[-1, 0] - firing_times[0, 0])
    return (len(firing_times) - 1) / span if span > 0 else None


def _checked_firings(firing_times: Any, samples: Any) -> np.ndarray | None:
    """Return the firing times as a read-only float64 array of its own: one per record and transmit."""
    if firing_times is None:
        return None
    times: np.ndarray = own("firing_times", firing_times)
    expected = tuple(samples.shape[:-2])
    if times.shape != expected or not np.all(np.isfinite(times)):
        raise ValueError(
            f"firing_times: expected finite seconds (..., n_transmits) = {expected}, as the samples have, "
            f"got {times.shape}; with samples[i] goes firing_times[i], or None"
        )
    return times


def _check_channels(samples: np.ndarray, acquisition: Acquisition, sampling_frequency: float) -> None:
    expected = (acquisition.n_transmits, acquisition.probe.n_elements)
    if samples.ndim < 3 or samples.shape[-3:-1] != expected or 0 in samples.shape:
        raise ValueError(
            f"channel data: expected (n_transmits, n_elements, n_samples) = ({expected[0]}, {expected[1]}, ...), or a stack "
            f"of such records, got {samples.shape}"
        )
    if not (np.isfinite(sampling_frequency) and sampling_frequency > 0):
        raise ValueError(f"sampling_frequency: expected Hz above 0, got {sampling_frequency!r}")
    check_frequency("sampling_frequency", sampling_frequency, acquisition.probe.center_frequency)


def _checked_start(start_time: Any, acquisition: Acquisition) -> float | np.ndarray:
    """Return the start time as a float, or as a read-only (n_transmits,) float64 array of its own."""
    times: np.ndarray = own("start_time", start_time)
    if times.shape not in ((), (acquisition.n_transmits,)) or not np.all(np.isfinite(times)):
        raise ValueError(
            f"start_time: expected finite seconds, one or ({acquisition.n_transmits},) of each transmit, got {start_time!r}"
        )
    check_times("start_time", times, acquisition.probe.center_frequency)
    if times.ndim == 0:
        return float(times)
    return times
