"""Imperfections of tissue and elements that a scanner does not know: they enter echoes, and no beamformer takes them out.

Both are frozen parts of an `Acquisition`, drawn from a seed, the same for every record of it.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .shown import Shown

if TYPE_CHECKING:
    from .probes import Probe

LONGEST_CORRELATION = 1.0  # m: a longer one is in mm
STEPS = 8  # of the noise that a screen is smoothed from, per correlation length
SHORTEST = 0.25  # of the pitch: elements that far apart are independent, whatever shorter length is asked for
MOST_SPREAD_DB = 40.0
_SCREEN, _GAINS, _DEAD = 1, 2, 3  # streams of a seed: one seed serves all parts


@dataclass(frozen=True, eq=False, repr=False)
class PhaseScreen(Shown):
    """A near-field phase screen: a random delay per element, on transmit and on receive, that the beamformer lacks.

    Tissue at the array, a few mm thick, of uneven speed of sound: an aberrator with no diffraction inside (O'Donnell & Flax
    1988, "Phase-aberration correction using signals from point reflectors and diffuse scatterers: measurements", IEEE Trans.
    UFFC 35). Its arrival times were measured through abdominal walls, about 43 ns RMS with a correlation length of 7.9 mm
    (Hinkelman et al. 1994, J. Acoust. Soc. Am. 95), breast, 67 ns and 4.3 mm (1995, vol. 97), and the chest wall, 21 ns and
    2.5 mm (1997, vol. 101).

    Attributes
    ----------
    rms_delay : float
        s, over the aperture, of mean 0: of each way. 0 is no screen.
    correlation_length : float
        m along the array: full width at half maximum of the delays' autocorrelation, a Gaussian. Of one longer than the
        aperture what remains is a tilt.
    seed : int
        Which screen it is; 0 by default.

    Raises
    ------
    ValueError
        A value is out of range.
    """

    rms_delay: float
    correlation_length: float
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("rms_delay", self.rms_delay, 0.0, 1e-3, "s", "ns? write {}e-9")
        check_range("correlation_length", self.correlation_length, 0.0, LONGEST_CORRELATION, "m", "mm? write {}e-3")
        if self.correlation_length == 0:
            raise ValueError("correlation_length: expected m above 0, got 0")
        check_seed(self.seed)

    def delays(self, probe: Probe) -> np.ndarray:
        """Draw the delay of each element.

        Parameters
        ----------
        probe : Probe
            The array.

        Returns
        -------
        np.ndarray
            (n_elements,) s, of mean 0 and RMS `rms_delay`; all 0 of a single element.
        """
        if self.rms_delay == 0 or probe.n_elements == 1:
            return np.zeros(probe.n_elements)
        length = max(self.correlation_length, SHORTEST * probe.pitch)
        place = (np.arange(probe.n_elements) - (probe.n_elements - 1) / 2) * probe.pitch / length  # along the array
        reach = place[-1] + 2.0  # the Gaussian has fallen to 2e-10
        steps = math.ceil(STEPS * reach)
        lattice = np.arange(-steps, steps + 1) / STEPS
        white = np.random.default_rng([self.seed, _SCREEN]).standard_normal(len(lattice))
        # A Gaussian smoothed over g has the autocorrelation g * g, wider by sqrt(2).
        smooth = np.exp(-8 * math.log(2) * (place[:, None] - lattice) ** 2) @ white
        smooth -= smooth.mean()
        delays: np.ndarray = smooth * (self.rms_delay / np.sqrt((smooth**2).mean()))
        return delays


@dataclass(frozen=True, eq=False, repr=False)
class ElementErrors(Shown):
    """Elements of uneven gain, and dead ones: each sends as well as it hears, and the beamformer takes all for equal.

    To a dead channel that the beamformer knows and leaves out belongs `Acquisition.receive_mask`.

    Attributes
    ----------
    gain_spread_db : float
        Standard deviation of the elements' gains of one way, dB, normally distributed about 0 dB; 0 by default.
    dead : tuple of int
        Numbers of elements, from 0, that neither send nor hear; none by default.
    dead_fraction : float
        Share of the elements, rounded to a whole number of them, that are dead beside those, drawn at random; 0 by default.
    seed : int
        Of gains and dead elements; 0 by default.

    Raises
    ------
    ValueError
        A value is out of range.
    """

    gain_spread_db: float = 0.0
    dead: tuple[int, ...] = ()
    dead_fraction: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("gain_spread_db", self.gain_spread_db, 0.0, MOST_SPREAD_DB, "dB")
        check_range("dead_fraction", self.dead_fraction, 0.0, 1.0, "a share", "percent? write {}e-2")
        given: Any = self.dead
        numbers_of = np.atleast_1d(np.asarray(given if given is not None else ())).ravel()
        whole = numbers_of.size == 0 or (
            numbers_of.dtype.kind in "iuf" and bool(np.all((numbers_of == np.rint(numbers_of)) & (numbers_of >= 0)))
        )
        if not whole or len(set(numbers_of.tolist())) < numbers_of.size:
            raise ValueError(f"dead: expected different numbers of elements, from 0, got {given!r}")
        object.__setattr__(self, "dead", tuple(int(e) for e in numbers_of))
        check_seed(self.seed)

    def gains(self, n_elements: int) -> np.ndarray:
        """Draw the gain of each element, of one way.

        Parameters
        ----------
        n_elements : int
            Of the array.

        Returns
        -------
        np.ndarray
            (n_elements,) amplitudes, 0 of a dead element.

        Raises
        ------
        ValueError
            A dead element is not of the array, or none is alive.
        """
        if self.dead and max(self.dead) >= n_elements:
            raise ValueError(f"dead: expected numbers of 0 to {n_elements - 1}, got {max(self.dead)}")
        levels, order = (np.random.default_rng([self.seed, stream]) for stream in (_GAINS, _DEAD))
        gains: np.ndarray = 10 ** (self.gain_spread_db * levels.standard_normal(n_elements) / 20)
        others = np.setdiff1d(np.arange(n_elements), self.dead)
        count = min(round(self.dead_fraction * n_elements), len(others))
        gains[list(self.dead)] = 0.0
        gains[order.permutation(others)[:count]] = 0.0
        if not gains.any():
            raise ValueError(
                f"element_errors: expected an element that is alive, got {n_elements} of {n_elements} dead"
            )
        return gains


def check_range(name: str, value: Any, low: float, high: float, unit: str, hint: str = "") -> None:
    """Refuse anything but a real number of low to high; `hint` is for one that is larger, as in another unit."""
    number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    if not low <= number <= high:
        more = f" ({hint.format(f'{number:g}')})" if hint and number > high else ""
        raise ValueError(f"{name}: expected {unit} of {low:g} to {high:g}, got {value!r}{more}")


def check_seed(seed: Any) -> None:
    """Refuse anything but a whole number of at least 0."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(f"seed: expected a whole number of at least 0, got {seed!r}")
