"""The values that pass between the steps: medium, acquisition, scatterers, image grid, channel data. SI units.

Plain frozen dataclasses, checked where they are built, so that the code behind them need not check again.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, field, fields, is_dataclass
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from .doors import (
    LARGEST_REFLECTIVITY,
    check_count,
    check_frequency,
    check_reach,
    check_real,
    check_speed,
    check_times,
    own,
)
from .engines import device_errors
from .probes import Probe, ProbeError, load_probe
from .transmits import Waves
from .waveforms import ImpulseResponse, Waveform, as_waveform

HIGHEST_THRESHOLD_DB = -60.0  # of `Acquisition.threshold_db`


@dataclass(frozen=True)
class Medium:
    """A homogeneous medium with attenuation linear in frequency.

    Attributes
    ----------
    speed_of_sound : float
        m/s, 1540 by default.
    attenuation_db_cm_mhz : float
        dB/cm/MHz, at least 0; 0 by default.

    Raises
    ------
    ValueError
        A value is out of range.
    """

    speed_of_sound: float = 1540.0
    attenuation_db_cm_mhz: float = 0.0

    def __post_init__(self) -> None:
        check_speed(self.speed_of_sound)
        if not (np.isfinite(self.attenuation_db_cm_mhz) and self.attenuation_db_cm_mhz >= 0):
            raise ValueError(
                f"attenuation_db_cm_mhz: expected a number of at least 0, got {self.attenuation_db_cm_mhz!r}"
            )


class DefaultRate(float):
    """A sampling frequency that nobody asked for: 4 center_frequency, again so after `dataclasses.replace(probe=...)`."""


@dataclass(frozen=True, eq=False)
class Acquisition:
    """Everything that shapes channel data but the scatterers.

    Attributes
    ----------
    probe : Probe
        The array; the name of a preset or a probe file's path is loaded.
    waves : PlaneWaves, DivergingWaves, FocusedWaves, CustomTransmits or SyntheticAperture
        The transmit sequence: when each element fires.
    medium : Medium
        Speed of sound and attenuation; 1540 m/s without attenuation by default.
    sampling_frequency : float, optional
        Of the channel data, Hz; 4 center_frequency of the probe by default.
    frequency_sweep : float, optional
        Hz: a linear chirp of this sweep about the carrier. None, the default: a windowed sine.
    threshold_db : float
        Spectral components below this, in dB relative to the strongest of the pulse as transmitted, are left out; at most
        -60, -100 by default. It is a choice of the model, not of speed: a higher one cuts the spectrum off, and the pulse
        would ring without end.
    receive_delays : np.ndarray, optional
        (n_elements,) s, added to the arrival times of echoes at each element; none by default.
    full_frequency_directivity : bool
        Compute the elements' directivity at each frequency rather than at the center frequency; False by default.
    n_subelements : int, "must" or None
        Parts that an element is divided into. None, the default: as many as RF needs to be within 1.5 % of converged, each
        at most 0.47 shortest wavelengths wide; "must": as MUST, one per shortest wavelength.
    transmit_frequency : float, optional
        Carrier of the built-in sine or chirp in Hz, which `demodulate` follows; the probe's center frequency by default.
        Element directivity stays that of the center frequency (but with full_frequency_directivity).
    waveform : Waveform, optional
        (samples, rate): the user's own excitation in place of sine and chirp, centred on time 0. Its scale is that of
        n_cycles = 1: one period of a sine of amplitude 1 at the carrier is the built-in excitation.
    impulse_response : ImpulseResponse, optional
        (samples, rate) of one way, or ImpulseResponse(samples, rate, ways=2) of pulse-echo, in place of the model's
        band-pass, centred on time 0 and scaled to a spectrum of peak 1.
    receive_mask : np.ndarray, optional
        (n_elements,) or (n_transmits, n_elements) bool: where it is False a channel records 0, and `delay_and_sum` leaves
        it out. None, the default: all receive.
    n_cycles : float
        Length of the excitation in periods of the carrier, 1 by default; infinity is a continuous wave, for
        `pressure_field` alone.
    carrier_frequency : float
        Frequency that the transmitted pulse is centred on, Hz.
    is_continuous : bool
        Whether the excitation never ends.
    excitation_duration : float
        Length of the excitation, s.
    n_transmits : int
        Number of transmits of the sequence.
    transmit_delays : np.ndarray
        (n_transmits, n_foci, n_elements) firing times, s, NaN where an element is off.
    transmit_weights : np.ndarray
        (n_transmits, n_elements) transmit apodization, 0 where an element is off.
    receiving : np.ndarray
        (n_transmits, n_elements) bool, False where a channel is masked.

    Raises
    ------
    ValueError
        Shapes do not agree or a value is out of range.
    """

    probe: Probe
    waves: Waves
    medium: Medium = field(default_factory=Medium)
    sampling_frequency: float = None  # type: ignore[assignment]
    n_cycles: float = 1.0
    frequency_sweep: float | None = None
    threshold_db: float = -100.0
    receive_delays: np.ndarray | None = None
    full_frequency_directivity: bool = False
    n_subelements: int | Literal["must"] | None = None
    transmit_frequency: float | None = None
    waveform: Waveform | None = None
    impulse_response: ImpulseResponse | None = None
    receive_mask: np.ndarray | None = None

    if TYPE_CHECKING:  # lists and numbers become arrays

        def __init__(
            self,
            probe: Probe | str | PathLike[str],
            waves: Waves,
            medium: Medium = ...,
            sampling_frequency: float | None = None,
            n_cycles: float = 1.0,
            frequency_sweep: float | None = None,
            threshold_db: float = -100.0,
            receive_delays: ArrayLike | None = None,
            full_frequency_directivity: bool = False,
            n_subelements: int | Literal["must"] | None = None,
            transmit_frequency: float | None = None,
            waveform: Waveform | tuple[ArrayLike, float] | None = None,
            impulse_response: ImpulseResponse | tuple[ArrayLike, float] | None = None,
            receive_mask: ArrayLike | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        given: Any = self.probe
        if isinstance(given, str | PathLike):
            object.__setattr__(self, "probe", load_probe(str(given)))
        for name, kind in (("probe", Probe), ("medium", Medium)):
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"{name}: expected a {kind.__name__}, got {getattr(self, name)!r}")
        if (
            self.sampling_frequency is None
            or self.sampling_frequency == 0
            or isinstance(self.sampling_frequency, DefaultRate)
        ):
            object.__setattr__(self, "sampling_frequency", DefaultRate(4 * self.probe.center_frequency))
        if not (np.isfinite(self.sampling_frequency) and self.sampling_frequency > 0):
            raise ValueError(f"sampling_frequency: expected Hz above 0, got {self.sampling_frequency!r}")
        check_frequency("sampling_frequency", self.sampling_frequency, self.probe.center_frequency)
        self._check_excitation()
        if not (np.isfinite(self.threshold_db) and self.threshold_db <= HIGHEST_THRESHOLD_DB):
            raise ValueError(
                f"threshold_db: expected at most {HIGHEST_THRESHOLD_DB:g} dB (a higher one makes the pulse ring and the "
                f"simulation slower), got {self.threshold_db!r}"
            )
        if isinstance(self.n_subelements, str):
            if self.n_subelements != "must":
                raise ValueError(
                    f'n_subelements: expected a whole number, "must" or None (converged), got {self.n_subelements!r}'
                )
        elif self.n_subelements is not None:
            check_count("n_subelements", self.n_subelements)
        if self.receive_delays is not None:
            delays = own("receive_delays", self.receive_delays)
            if delays.shape != (self.probe.n_elements,) or not np.all(np.isfinite(delays)):
                raise ValueError(
                    f"receive_delays: expected {self.probe.n_elements} finite times in s, got shape {delays.shape}"
                )
            check_times("receive_delays", delays, self.probe.center_frequency)
            object.__setattr__(self, "receive_delays", delays)
        check_times("delays", self.transmit_delays, self.probe.center_frequency)
        if not self.transmit_weights.any():  # which fails here, too, where the caller can see why
            raise ValueError(
                "Acquisition: expected a transmit that fires, got none: in each one every element is off (delay NaN) or has "
                "the apodization 0"
            )
        _ = self.receiving  # fails here for the same reason

    def _check_excitation(self) -> None:
        if not self.n_cycles > 0:
            raise ValueError(f"n_cycles: expected a number above 0, got {self.n_cycles!r}")
        highest = 2 * self.probe.center_frequency
        if self.transmit_frequency is not None:
            check_frequency("transmit_frequency", self.transmit_frequency, self.probe.center_frequency)
        if self.transmit_frequency is not None and not 0 < self.transmit_frequency < highest:
            raise ValueError(
                f"transmit_frequency: expected Hz between 0 and 2 center_frequency ({highest:g}), "
                f"got {self.transmit_frequency!r}"
            )
        if self.frequency_sweep is not None and not 0 < self.frequency_sweep < 2 * self.carrier_frequency:
            name = "center_frequency" if self.transmit_frequency is None else "transmit_frequency"
            raise ValueError(
                f"frequency_sweep: expected Hz between 0 and 2 {name} ({2 * self.carrier_frequency:g}), "
                f"got {self.frequency_sweep!r}"
            )
        if self.is_continuous and self.frequency_sweep is not None:
            raise ValueError("n_cycles: a chirp has an end: expected a finite number with frequency_sweep, got inf")
        if self.waveform is not None and (self.frequency_sweep is not None or self.n_cycles != 1.0):
            raise ValueError(
                "waveform: it is the whole excitation: expected no frequency_sweep and n_cycles left at 1, "
                f"got frequency_sweep={self.frequency_sweep!r}, n_cycles={self.n_cycles!r}"
            )
        for name, kind in (("waveform", Waveform), ("impulse_response", ImpulseResponse)):
            object.__setattr__(self, name, as_waveform(name, getattr(self, name), kind, 2 * self.carrier_frequency))

    def key(self) -> Hashable:
        """Return what is equal for acquisitions of equal content and differs where any field does: the key of every cache.

        Waves that are no dataclass count by the firing times and weights that they give.

        Returns
        -------
        Hashable
        """
        return self._key

    @cached_property
    def _key(self) -> Hashable:
        fired = (self.transmit_delays, self.transmit_weights) if not is_dataclass(self.waves) else ()
        return (_content(self), *map(_content, fired))

    @property
    def carrier_frequency(self) -> float:
        """Frequency that the transmitted pulse is centred on, Hz: transmit_frequency, or the probe's center frequency."""
        return self.probe.center_frequency if self.transmit_frequency is None else self.transmit_frequency

    @property
    def is_continuous(self) -> bool:
        """Whether the excitation never ends (n_cycles = inf): it has a pressure field, and no echoes in time."""
        return bool(np.isinf(self.n_cycles))

    @property
    def excitation_duration(self) -> float:
        """Length of the excitation, s."""
        return self.n_cycles / self.carrier_frequency if self.waveform is None else self.waveform.duration

    @property
    def n_transmits(self) -> int:
        """Number of transmits of the sequence."""
        return len(self.transmit_delays)

    @cached_property
    def transmit_delays(self) -> np.ndarray:
        """(n_transmits, n_foci, n_elements) firing times in s on the data's clock, NaN where an element is off."""
        delays = self.waves.delays(self.probe, self.medium)
        return delays if delays.ndim == 3 else delays[:, None, :]

    @cached_property
    def transmit_weights(self) -> np.ndarray:
        """(n_transmits, n_elements) transmit apodization, 0 where an element is off in all of a transmit's laws."""
        n_transmits, _, n_elements = self.transmit_delays.shape
        weights = self.waves.apodization
        weights = np.ones(n_elements) if weights is None else np.asarray(weights, dtype=np.float64)
        if weights.shape not in ((n_elements,), (n_transmits, n_elements)) or not np.all(np.isfinite(weights)):
            raise ValueError(
                f"apodization: expected finite weights of shape ({n_elements},) or ({n_transmits}, {n_elements}), "
                f"got shape {weights.shape}"
            )
        firing = ~np.isnan(self.transmit_delays).all(axis=1)
        return np.where(firing, weights, 0.0)

    @cached_property
    def receiving(self) -> np.ndarray:
        """(n_transmits, n_elements) bool, False where a channel is masked."""
        n_transmits, _, n_elements = self.transmit_delays.shape
        if self.receive_mask is None:
            return np.ones((n_transmits, n_elements), dtype=bool)
        given = np.asarray(self.receive_mask)
        mask = given.astype(bool)
        if given.shape not in ((n_elements,), (n_transmits, n_elements)) or not np.array_equal(mask, given):
            raise ValueError(
                f"receive_mask: expected True and False (or 1 and 0) of shape ({n_elements},) or "
                f"({n_transmits}, {n_elements}), got shape {given.shape} {given.dtype}"
            )
        if not mask.any():
            raise ValueError("receive_mask: expected at least one channel that receives, got none")
        mask.flags.writeable = False
        object.__setattr__(self, "receive_mask", mask)
        return np.broadcast_to(mask, (n_transmits, n_elements))


@dataclass(frozen=True, eq=False)
class Scatterers:
    """Point scatterers. Those behind the array give no echo.

    Attributes
    ----------
    x, z : np.ndarray
        (n,) lateral position and depth, m; float32 stays, anything else becomes float64.
    reflectivity : np.ndarray
        (n,) amplitude, of either sign, without unit.

    Raises
    ------
    ValueError
        The arrays are not one-dimensional, of one length and finite.
    """

    x: np.ndarray
    z: np.ndarray
    reflectivity: np.ndarray

    if TYPE_CHECKING:  # lists and numbers become arrays

        def __init__(
            self,
            x: ArrayLike,
            z: ArrayLike,
            reflectivity: ArrayLike,
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in ("x", "z", "reflectivity"):
            values = getattr(self, name)
            check_real(name, values)
            single = getattr(values, "dtype", None) == np.float32
            object.__setattr__(self, name, own(f"Scatterers: {name}", values, np.float32 if single else np.float64))
        if self.x.ndim != 1 or not (self.x.shape == self.z.shape == self.reflectivity.shape):
            raise ValueError(
                "Scatterers: expected x, z and reflectivity of one length, got shapes "
                f"{self.x.shape}, {self.z.shape}, {self.reflectivity.shape}"
            )
        for name in ("x", "z", "reflectivity"):
            if not bool(np.isfinite(getattr(self, name)).all()):
                raise ValueError(f"Scatterers: {name}: expected finite numbers, got NaN or infinity")
        if len(self.x) and float(abs(self.reflectivity).max()) > LARGEST_REFLECTIVITY:
            raise ValueError(
                f"Scatterers: reflectivity: expected magnitudes of at most {LARGEST_REFLECTIVITY:g} (echoes are float32), "
                f"got {float(abs(self.reflectivity).max()):g}"
            )

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, eq=False)
class ImageGrid:
    """Pixel centres of an image: columns at `x`, rows at `z`.

    Depth is from z = 0: the face of a flat array; of a convex one the chord through its outermost elements, not its apex,
    which lies radius + center_of_curvature (`Probe`) deeper.

    Attributes
    ----------
    x : np.ndarray
        (nx,) lateral positions, m, increasing; 0 is the middle of the array.
    z : np.ndarray
        (nz,) depths, m, increasing.
    shape : tuple of int
        (nz, nx).

    Raises
    ------
    ValueError
        An axis is not finite and increasing, or (in `for_acquisition`) the field of view is not known.
    """

    x: np.ndarray
    z: np.ndarray

    if TYPE_CHECKING:  # lists and numbers become arrays

        def __init__(
            self,
            x: ArrayLike,
            z: ArrayLike,
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in ("x", "z"):
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

    @property
    def shape(self) -> tuple[int, int]:
        """(nz, nx), the shape of an image on this grid."""
        return len(self.z), len(self.x)

    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x and z of every pixel, each (nz, nx), m."""
        x, z = np.meshgrid(self.x, self.z)
        return x, z


@dataclass(frozen=True, eq=False)
class RFData:
    """Channel data as received.

    Time is that of the firing delays, `acquisition.transmit_delays`: with the waves' `time_reference` "first" it is 0 when
    the first element of a transmit fires whose apodization is not 0, with "center" when the wave passes the array's centre,
    and the delays of `CustomTransmits` are kept as given. Pulses are centred: the echo of a point has the middle of its
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

    def __post_init__(self, pulse_time: float) -> None:
        _check_channels(self.samples, self.acquisition, self.sampling_frequency)
        if not np.isfinite(pulse_time):
            raise ValueError(f"pulse_time: expected finite seconds, got {pulse_time!r}")
        object.__setattr__(self, "sampling_frequency", float(self.sampling_frequency))
        started = _checked_start(self.start_time, self.acquisition)
        object.__setattr__(self, "start_time", _checked_start(started - pulse_time, self.acquisition))
        if np.iscomplexobj(self.samples):
            raise ValueError("RFData: expected real samples, got complex ones (demodulated? use IQData)")

    @property
    def start_times(self) -> np.ndarray:
        """(n_transmits,) time of each transmit's first sample, s."""
        return np.broadcast_to(self.start_time, self.acquisition.n_transmits)

    def to_numpy(self) -> RFData:
        """Return the same data in host memory."""
        return RFData(to_numpy(self.samples), self.acquisition, self.sampling_frequency, self.start_time)

    def save(self, path) -> None:
        """Write one record to a file, which `load_channel_data` reads back.

        Parameters
        ----------
        path : str or Path
            The .npz file.

        Raises
        ------
        ValueError
            The data are a stack.
        """
        from .io.channel_data import save_channel_data

        save_channel_data(self, path)


@dataclass(frozen=True, eq=False)
class IQData:
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

    def __post_init__(self) -> None:
        _check_channels(self.samples, self.acquisition, self.sampling_frequency)
        object.__setattr__(self, "sampling_frequency", float(self.sampling_frequency))
        object.__setattr__(self, "start_time", _checked_start(self.start_time, self.acquisition))
        if not np.isfinite(self.demodulation_frequency):
            raise ValueError(f"demodulation_frequency: expected Hz, got {self.demodulation_frequency!r}")
        check_frequency("demodulation_frequency", self.demodulation_frequency, self.acquisition.probe.center_frequency)
        if not np.iscomplexobj(self.samples):
            raise ValueError("IQData: expected complex samples, got real ones (not demodulated? use ussim.demodulate)")

    @property
    def start_times(self) -> np.ndarray:
        """(n_transmits,) time of each transmit's first sample, s."""
        return np.broadcast_to(self.start_time, self.acquisition.n_transmits)

    def to_numpy(self) -> IQData:
        """Return the same data in host memory."""
        return IQData(
            to_numpy(self.samples),
            self.acquisition,
            self.sampling_frequency,
            self.demodulation_frequency,
            self.start_time,
        )

    def save(self, path) -> None:
        """Write one record to a file, which `load_channel_data` reads back.

        Parameters
        ----------
        path : str or Path
            The .npz file.

        Raises
        ------
        ValueError
            The data are a stack.
        """
        from .io.channel_data import save_channel_data

        save_channel_data(self, path)


def _content(value: Any) -> Hashable:
    """What a value consists of, down to numbers, words and the bytes of arrays."""
    if is_dataclass(value):
        return (type(value).__name__, *((f.name, _content(getattr(value, f.name))) for f in fields(value)))
    if isinstance(value, np.ndarray):
        return (value.shape, value.dtype.str, value.tobytes())
    if isinstance(value, list | tuple):
        return tuple(map(_content, value))
    return value if isinstance(value, Hashable) else repr(value)


def to_numpy(array: Any) -> np.ndarray:
    """A NumPy array of a NumPy or CuPy one."""
    if not is_on_device(array):
        return np.asarray(array)
    with device_errors("cuda"):  # the copy waits for all that was queued, and reports its failures
        return array.get()


@contextmanager
def device_of(array: Any) -> Iterator[None]:
    """Make the device that holds an array current while the context lasts; nothing for host arrays.

    Raises
    ------
    EngineError
        The device fails.
    """
    if not is_on_device(array):
        yield
        return
    with device_errors("cuda"), array.device:
        yield


def is_on_device(array: Any) -> bool:
    """Whether an array lies on a graphics card (a CuPy array)."""
    return type(array).__module__.partition(".")[0] == "cupy"


def as_float_array(values: Any) -> Any:
    """A floating array (float32 and CuPy arrays stay what they are, anything else becomes float64)."""
    if is_on_device(values):
        return values
    array = np.asarray(values)
    return array if array.dtype == np.float32 else array.astype(np.float64, copy=False)


def _check_channels(samples, acquisition: Acquisition, sampling_frequency: float) -> None:
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
    """The start time as a float, or as a read-only (n_transmits,) float64 array of its own."""
    times = own("start_time", start_time)
    if times.shape not in ((), (acquisition.n_transmits,)) or not np.all(np.isfinite(times)):
        raise ValueError(
            f"start_time: expected finite seconds, one or ({acquisition.n_transmits},) of each transmit, got {start_time!r}"
        )
    check_times("start_time", times, acquisition.probe.center_frequency)
    if times.ndim == 0:
        return float(times)
    return times


__all__ = [
    "Acquisition",
    "IQData",
    "ImageGrid",
    "Medium",
    "Probe",
    "ProbeError",
    "RFData",
    "Scatterers",
    "as_float_array",
    "device_of",
    "is_on_device",
    "to_numpy",
]
