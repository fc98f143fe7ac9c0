"""Sampled signals that enter the model in place of its formulas: what drives the elements, how an element responds.

Both are centered on time 0 as the built-in pulses are: of n samples the one at (n - 1) / 2 is at time 0. A signal with
another zero is brought there by zeros on its shorter side. Between the samples it is what a band-limited signal is; above
half its rate it has no spectrum.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import physics
from .shown import Shown


@dataclass(frozen=True, eq=False, repr=False)
class Waveform(Shown):
    """A sampled signal, centered on time 0.

    Attributes
    ----------
    samples : np.ndarray
        (n,) real; of an excitation, 1 is the amplitude of the built-in sine.
    rate : float
        Samples per second, Hz.
    duration : float
        Length, s.
    key : tuple
        Equal for signals of equal content.

    Raises
    ------
    ValueError
        The samples are not one row of finite real numbers of which one is not 0, or the rate is not above 0.
    """

    samples: np.ndarray
    rate: float

    def __post_init__(self) -> None:
        samples = np.array(self.samples)
        if samples.ndim != 1 or samples.size == 0 or samples.dtype.kind not in "fiub":
            raise ValueError(
                f"expected (samples, rate) with real samples (n,), got shape {samples.shape} {samples.dtype}"
            )
        samples = samples.astype(np.float64)
        if not np.all(np.isfinite(samples)) or not samples.any():
            raise ValueError("expected finite samples, not all 0")
        if not isinstance(self.rate, int | float | np.number) or not 0 < float(self.rate) < np.inf:
            raise ValueError(f"expected (samples, rate) with the rate in Hz above 0, got {self.rate!r}")
        samples.flags.writeable = False
        object.__setattr__(self, "samples", samples)
        object.__setattr__(self, "rate", float(self.rate))

    def __iter__(self) -> Iterator[Any]:
        """Unpack as (samples, rate)."""
        return iter((self.samples, self.rate))

    @property
    def key(self) -> tuple[Hashable, ...]:
        """Equal for signals of equal content."""
        return (self.samples.tobytes(), self.rate)

    @property
    def duration(self) -> float:
        """Length in s."""
        return len(self.samples) / self.rate

    def spectrum(self, frequency: np.ndarray) -> np.ndarray:
        """Compute the conjugate Fourier transform: the sign of `physics.excitation_spectrum`.

        Parameters
        ----------
        frequency : np.ndarray
            Hz, of any shape.

        Returns
        -------
        np.ndarray
            complex, s, of the same shape.
        """
        return physics.sampled_spectrum(frequency, self.samples, self.rate)


@dataclass(frozen=True, eq=False, repr=False)
class ImpulseResponse(Waveform):
    """A measured response of the elements, in place of the model's band-pass; scaled so that its spectrum peaks at 1.

    Attributes
    ----------
    samples : np.ndarray
        (n,) real, of any scale.
    rate : float
        Samples per second, Hz.
    ways : int
        1: of one way, which counts twice in an echo; 2: pulse-echo, as measured on a reflector with a short spike. Its
        magnitude is shared evenly between the ways, its phase is given to the way back. 1 by default.
    duration : float
        Length, s.
    key : tuple
        Equal for responses of equal content and ways.

    Raises
    ------
    ValueError
        `ways` is neither 1 nor 2, or as `Waveform`.
    """

    ways: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ways not in (1, 2):
            raise ValueError(f"ways: expected 1 or 2 (pulse-echo), got {self.ways!r}")
        n = max(4096, 4 * len(self.samples))
        object.__setattr__(self, "_peak", float(np.abs(np.fft.rfft(self.samples, n)).max() / self.rate))

    @property
    def key(self) -> tuple[Hashable, ...]:
        """Equal for responses of equal content and ways."""
        return (*super().key, self.ways)

    def transmit(self, frequency: np.ndarray) -> np.ndarray:
        """Compute the response on the way out.

        Parameters
        ----------
        frequency : np.ndarray
            Hz, of any shape.

        Returns
        -------
        np.ndarray
            Without unit, of the same shape; complex where `ways` is 1.
        """
        spectrum = self._normalized(frequency)
        return spectrum if self.ways == 1 else np.sqrt(np.abs(spectrum))

    def receive(self, frequency: np.ndarray) -> np.ndarray:
        """Compute the response on the way back.

        Parameters
        ----------
        frequency : np.ndarray
            Hz, of any shape.

        Returns
        -------
        np.ndarray
            complex, without unit, of the same shape.
        """
        spectrum = self._normalized(frequency)
        if self.ways == 1:
            return spectrum
        magnitude = np.sqrt(np.abs(spectrum))
        phase: np.ndarray = np.divide(spectrum, magnitude, out=np.zeros_like(spectrum), where=magnitude > 0)
        return phase

    def _normalized(self, frequency: np.ndarray) -> np.ndarray:
        normalized: np.ndarray = self.spectrum(frequency) / self._peak  # type: ignore[attr-defined]
        return normalized


def as_waveform(name: str, value: Any, kind: type[Waveform], lowest_rate: float) -> Waveform | None:
    """Return None, or the signal of a pair (samples, rate) whose rate reaches twice the carrier.

    Raises
    ------
    ValueError
        It is neither, named after the argument `name`.
    """
    if value is None:
        return None
    try:
        if not isinstance(value, Waveform) and (not isinstance(value, tuple | list) or len(value) != 2):
            raise ValueError(f"expected (samples, rate), got {type(value).__name__}")
        waveform = value if isinstance(value, kind) else kind(*value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if waveform.rate < lowest_rate:
        raise ValueError(
            f"{name}: expected a rate of at least {lowest_rate:g} Hz, twice the carrier, got {waveform.rate:g} Hz"
        )
    return waveform
