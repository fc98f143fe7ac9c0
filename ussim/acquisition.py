"""The acquisition: probe, waves, medium and sampling, everything that shapes channel data but the scatterers."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from .chain import ReceiveChain
from .doors import check_count, check_frequency, check_speed, check_times, own
from .imperfections import ElementErrors, PhaseScreen
from .medium import Medium
from .probes import Probe, load_probe
from .shown import Shown
from .transmits import CustomTransmits, Waves
from .waveforms import ImpulseResponse, Waveform, as_waveform

HIGHEST_THRESHOLD_DB = -60.0  # of `Acquisition.threshold_db`


class DefaultRate(float):
    """A sampling frequency that nobody asked for: 4 center_frequency, again so after `dataclasses.replace(probe=...)`."""


@dataclass(frozen=True, eq=False, repr=False)
class Acquisition(Shown):
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
        (samples, rate): the user's own excitation in place of sine and chirp, centered on time 0. Its scale is that of
        n_cycles = 1: one period of a sine of amplitude 1 at the carrier is the built-in excitation.
    impulse_response : ImpulseResponse, optional
        (samples, rate) of one way, or ImpulseResponse(samples, rate, ways=2) of pulse-echo, in place of the model's
        band-pass, centered on time 0 and scaled to a spectrum of peak 1.
    receive_mask : np.ndarray, optional
        (n_elements,) or (n_transmits, n_elements) bool: where it is False a channel records 0, and `delay_and_sum` leaves
        it out. None, the default: all receive.
    aberration : PhaseScreen, optional
        A phase screen in front of the array, on transmit and receive, that the beamformer does not know; none by default.
    element_errors : ElementErrors, optional
        Gains of the elements and dead ones, on transmit and receive, that the beamformer does not know; none by default.
    receive_chain : ReceiveChain, optional
        Noise, time gain, jitter and converter that channel data have passed through; `simulate` passes them. None by
        default.
    n_cycles : float
        Length of the excitation in periods of the carrier, 1 by default; infinity is a continuous wave, for
        `pressure_field` alone.
    carrier_frequency : float
        Frequency that the transmitted pulse is centered on, Hz.
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
    element_gains : np.ndarray
        (n_elements,) amplitude of each element's gain of one way, 0 of a dead one.
    nominal : Acquisition
        The same without what the scanner does not know: aberration, element errors, receive chain.
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
    aberration: PhaseScreen | None = None
    element_errors: ElementErrors | None = None
    receive_chain: ReceiveChain | None = None

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
            aberration: PhaseScreen | None = None,
            element_errors: ElementErrors | None = None,
            receive_chain: ReceiveChain | None = None,
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
        self._check_imperfections()

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

    def _check_imperfections(self) -> None:
        parts = {"aberration": PhaseScreen, "element_errors": ElementErrors, "receive_chain": ReceiveChain}
        for name, kind in parts.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ValueError(f"{name}: expected {kind.__name__}, got {value!r}")
        if self.aberration is not None:
            check_times("aberration", self.aberration.delays(self.probe), self.probe.center_frequency)
        if self.element_errors is not None and not (self.transmit_weights * self.element_gains).any():
            raise ValueError("element_errors: expected an element that is alive among those that fire, got none")
        if self.receive_chain is not None:
            self.receive_chain.check_jitter(self.probe.center_frequency)

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
        """Frequency that the transmitted pulse is centered on, Hz: transmit_frequency, or the probe's center frequency."""
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
    def element_gains(self) -> np.ndarray:
        """(n_elements,) amplitude of each element's gain of one way, 1 without `element_errors`."""
        n_elements = self.probe.n_elements
        return np.ones(n_elements) if self.element_errors is None else self.element_errors.gains(n_elements)

    @property
    def nominal(self) -> Acquisition:
        """The acquisition as the scanner knows it: without aberration, element errors and the receive chain."""
        return replace(self, aberration=None, element_errors=None, receive_chain=None)

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


def with_steering_speed(acquisition: Acquisition, speed_of_sound: float) -> Acquisition:
    """Return an acquisition whose scanner takes another speed of sound for the medium's: its firing times are for that one.

    The waves travel at the medium's own speed. Images have the scanner's error where they are beamformed with it too:
    `delay_and_sum(..., speed_of_sound=speed_of_sound)`.

    Parameters
    ----------
    acquisition : Acquisition
        Probe, waves and the true medium.
    speed_of_sound : float
        That the scanner steers and focuses with, m/s.

    Returns
    -------
    Acquisition
        Its waves are CustomTransmits; the same one where the speeds are equal.

    Raises
    ------
    ValueError
        The speed is out of range.
    """
    check_speed(speed_of_sound)
    medium = acquisition.medium
    if speed_of_sound == medium.speed_of_sound:
        return acquisition
    delays = acquisition.waves.delays(acquisition.probe, replace(medium, speed_of_sound=speed_of_sound))
    return replace(acquisition, waves=CustomTransmits(delays, acquisition.waves.apodization))


def _content(value: Any) -> Hashable:
    """Return what a value consists of, down to numbers, words and the bytes of arrays."""
    if is_dataclass(value):
        return (type(value).__name__, *((f.name, _content(getattr(value, f.name))) for f in fields(value)))
    if isinstance(value, np.ndarray):
        return (value.shape, value.dtype.str, value.tobytes())
    if isinstance(value, list | tuple):
        return tuple(map(_content, value))
    return value if isinstance(value, Hashable) else repr(value)
