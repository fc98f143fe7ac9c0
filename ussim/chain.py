"""The receive chain as a value: what the electronics between the elements and the beamformer do to echoes.

    element ─► + noise ─► time gain ─► sampling at uneven times ─► converter of n bits ─► beamformer

`ussim.simulate` of an acquisition that has one passes its echoes through it; `ussim.apply_receive_chain` does it to channel
data that have not been through any (`ussim.receive`).
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .doors import own
from .imperfections import check_range, check_seed
from .shown import Shown

SNR_DB = (-100.0, 300.0)
GAIN_DB = 200.0  # at most, either way: beyond, float32 ends
MOST_BITS = 24  # that a float32 holds exactly
LONGEST_JITTER = 0.02  # periods of the center frequency: where the series of `ussim.receive` has converged
WHITE = 2.0  # noise_bandwidth of noise up to half the sampling frequency


@dataclass(frozen=True, eq=False, repr=False)
class TimeGain(Shown):
    """A time-gain curve, as the sliders of a scanner set it: decibels over depth, straight lines between.

    Attributes
    ----------
    depths : np.ndarray
        (n,) m, increasing; the gain is constant before the first and after the last.
    gains_db : np.ndarray
        (n,) dB.

    Raises
    ------
    ValueError
        Shapes do not agree or a value is out of range.
    """

    depths: np.ndarray
    gains_db: np.ndarray

    if TYPE_CHECKING:  # lists become arrays

        def __init__(self, depths: ArrayLike, gains_db: ArrayLike) -> None: ...

    def __post_init__(self) -> None:
        depths, gains = own("depths", self.depths), own("gains_db", self.gains_db)
        if depths.ndim != 1 or depths.size == 0 or not np.all(np.isfinite(depths)) or np.any(np.diff(depths) <= 0):
            raise ValueError(f"depths: expected finite increasing depths in m, got {self.depths!r}")
        if gains.shape != depths.shape or not np.all(np.abs(gains) <= GAIN_DB):  # NaN too
            raise ValueError(
                f"gains_db: expected {depths.size} numbers of -{GAIN_DB:g} to {GAIN_DB:g} dB, one per depth, got "
                f"{self.gains_db!r}"
            )
        object.__setattr__(self, "depths", depths)
        object.__setattr__(self, "gains_db", gains)

    def inverse(self) -> TimeGain:
        """Return the curve that undoes this one.

        Returns
        -------
        TimeGain
        """
        return TimeGain(self.depths, -self.gains_db)

    def at(self, depth: np.ndarray) -> np.ndarray:
        """Return the gain at some depths.

        Parameters
        ----------
        depth : np.ndarray
            m, of any shape.

        Returns
        -------
        np.ndarray
            dB, of the same shape.
        """
        gain: np.ndarray = np.interp(depth, self.depths, self.gains_db)
        return gain


@dataclass(frozen=True, eq=False, repr=False)
class ReceiveChain(Shown):
    """The electronics between the elements and the beamformer, in the order of the signal.

    Attributes
    ----------
    snr_db : float, optional
        Ratio of the RMS of a record's echoes to that of the noise, over the whole record, dB: Gaussian noise, independent
        between channels and transmits. None, the default: no noise.
    noise_bandwidth : float, optional
        Full width of the noise's power spectrum at half its height, as a fraction of the probe's center frequency, about
        which it lies: the shape of the probe's response of one way. None, the default: the probe's own; 2: white up to half
        the sampling frequency.
    time_gain : TimeGain, optional
        Amplification over depth, of the noise too; none by default.
    compensation : bool
        Amplify by what the medium took, too, before the converter (as `time_gain_compensation`, which comes after it);
        False by default.
    jitter : float
        RMS of the sampling times' errors, s, independent between samples and channels (aperture jitter: Walden 1999,
        "Analog-to-digital converter survey and analysis", IEEE J. Sel. Areas Commun. 17): an error of RMS 2π f jitter
        relative to an echo of the frequency f. At most 0.02 periods of the center frequency; 0 by default.
    n_bits : int, optional
        Of the converter, 2 to 24: samples are rounded to 2^n_bits levels of full scale (Bennett 1948, "Spectra of quantized
        signals", Bell Syst. Tech. J. 27), and clipped beyond it. None, the default: no rounding.
    full_scale : float, optional
        Amplitude at which the converter clips, in the unit of the samples. None, the default: `headroom_db` above the
        largest sample of each record.
    headroom_db : float
        Where no `full_scale` is given, dB; below 0 clips the strongest echoes. 0 by default.
    seed : int
        Of noise and jitter: record i of a stack or batch has stream i of it. 0 by default.

    Raises
    ------
    ValueError
        A value is out of range.
    """

    snr_db: float | None = None
    noise_bandwidth: float | None = None
    time_gain: TimeGain | None = None
    compensation: bool = False
    jitter: float = 0.0
    n_bits: int | None = None
    full_scale: float | None = None
    headroom_db: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.snr_db is not None:
            check_range("snr_db", self.snr_db, *SNR_DB, "dB")
        if self.noise_bandwidth is not None:
            check_range("noise_bandwidth", self.noise_bandwidth, 0.01, WHITE, "a fraction of the center frequency")
        if self.time_gain is not None and not isinstance(self.time_gain, TimeGain):
            raise ValueError(f"time_gain: expected a TimeGain, got {self.time_gain!r}")
        check_range("jitter", self.jitter, 0.0, 1e-3, "s", "ns? write {}e-9")
        if self.n_bits is not None:
            _check_bits(self.n_bits)
        if self.full_scale is not None and not (
            isinstance(self.full_scale, numbers.Real) and 0 < float(self.full_scale) < math.inf
        ):
            raise ValueError(f"full_scale: expected an amplitude above 0, got {self.full_scale!r}")
        check_range("headroom_db", self.headroom_db, -GAIN_DB, GAIN_DB, "dB")
        check_seed(self.seed)

    def streams(self, n_records: int) -> list[np.random.SeedSequence]:
        """Return the seeds of so many records, each of its own.

        Parameters
        ----------
        n_records : int
            Of a stack or batch.

        Returns
        -------
        list of np.random.SeedSequence
        """
        return [np.random.SeedSequence(self.seed, spawn_key=(i,)) for i in range(n_records)]

    def check_jitter(self, center_frequency: float) -> None:
        """Refuse a jitter of more of a period than the model holds for.

        Parameters
        ----------
        center_frequency : float
            Of the probe, Hz.

        Raises
        ------
        ValueError
            It is longer than 0.02 periods.
        """
        longest = LONGEST_JITTER / center_frequency
        if self.jitter > longest:
            raise ValueError(
                f"jitter: expected at most {LONGEST_JITTER:g} periods of the center frequency ({longest:.3g} s), "
                f"got {self.jitter:g} s"
            )


def _check_bits(n_bits: Any) -> None:
    if isinstance(n_bits, bool) or not isinstance(n_bits, numbers.Integral) or not 2 <= int(n_bits) <= MOST_BITS:
        raise ValueError(f"n_bits: expected a whole number of 2 to {MOST_BITS}, got {n_bits!r}")
