"""Ways to combine what the elements of an aperture heard of a pixel: the plain sum is one of them.

Delayed, an echo from the pixel is alike on all elements, and echoes from elsewhere are not. The methods here weigh a pixel
by how much alike the channels are (coherence factors), choose weights by their covariance (minimum variance), multiply them
in pairs (delay-multiply-and-sum), or show their likeness itself (short-lag spatial coherence). Each is a value with its
parameters; engines compute them from the delayed channels s_i, i = 1 .. N, of the elements in the pixel's aperture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

SPACING = 0.5  # carrier periods between the times of an axial kernel: below the coherence time of any pulse in use
LONGEST_KERNEL = 20.0  # wavelengths


@dataclass(frozen=True)
class CoherenceFactor:
    """The sum, weighted by the coherent share of the energy: |Σ s_i|² / (N Σ |s_i|²) (Mallart & Fink 1994, JASA 96:3721).

    1 for an echo alike on all elements, 1/N on average for noise.

    Attributes
    ----------
    exponent : float
        Of the factor, above 0; 1 by default, less is milder.
    """

    exponent: float = 1.0

    def __post_init__(self) -> None:
        _check(self, "exponent", self.exponent, 0.0, 10.0, open_low=True)


@dataclass(frozen=True)
class GeneralizedCoherenceFactor:
    """The sum, weighted by the share of the energy at low spatial frequencies (Li & Li 2003, IEEE TUFFC 50:128).

    Σ_{|k| <= M0} |S_k|² / Σ_k |S_k|², S the discrete Fourier transform of the channels over the aperture. Speckle, whose
    echoes are not alike on all elements, is darkened less than by the coherence factor, which is M0 = 0.

    Attributes
    ----------
    order : int
        M0, the highest frequency that counts, from 0; 2 by default.
    """

    order: int = 2

    def __post_init__(self) -> None:
        if isinstance(self.order, bool) or self.order != int(self.order) or not 0 <= self.order <= 1024:
            raise ValueError(f"GeneralizedCoherenceFactor: order: expected a whole number from 0, got {self.order!r}")


@dataclass(frozen=True)
class MinimumVariance:
    """Weights w = R⁻¹1 / (1ᴴR⁻¹1): the least power of all that pass an echo from the pixel (Capon's beamformer).

    As Synnevåg, Austeng & Holm 2007, IEEE TUFFC 54:1606: R is the covariance of subarrays of L elements, averaged over
    the N - L + 1 of them (spatial smoothing) and over an axial kernel (temporal smoothing, Synnevåg et al. 2009, TUFFC
    56:1868), with ε I added, ε = loading tr(R) / L (diagonal loading). The pixel is N times the mean of wᴴs over the
    subarrays, so that it is as bright as a sum.

    Attributes
    ----------
    subarray : float
        L / N, above 0 and at most 1; 0.5 by default. Shorter is more robust and less sharp.
    loading : float
        ε over the mean power of an element, above 0; 0.01 by default. The more, the nearer to the plain sum, which
        infinity is (of subarrays: the sum with a trapezoidal window).
    kernel : float
        Axial length over which R is averaged, wavelengths of the carrier, 0 (one time alone) to 20; 1 by default. It keeps
        the statistics of speckle.
    """

    subarray: float = 0.5
    loading: float = 0.01
    kernel: float = 1.0

    def __post_init__(self) -> None:
        _check(self, "subarray", self.subarray, 0.0, 1.0, open_low=True)
        _check(self, "loading", self.loading, 1e-9, math.inf)
        _check(self, "kernel", self.kernel, 0.0, LONGEST_KERNEL)

    def length(self, n: int) -> int:
        """Return L, the elements of a subarray.

        Parameters
        ----------
        n : int
            Elements in the aperture.

        Returns
        -------
        int
        """
        return min(n, max(1, round(self.subarray * n)))


@dataclass(frozen=True)
class DelayMultiplyAndSum:
    """The sum over pairs of channels of their products, each of the dimension of a channel (F-DMAS).

    Σ_{i<j} ŝ_i ŝ_j, |ŝ|² = |s|, as Matrone, Savoia, Caliano & Magenes 2015, IEEE TMI 34:940. Of demodulated channels
    ŝ = s / √|s| is complex (Shen & Hsieh 2019, Ultrasonics 96:165): the products then hold the second harmonic alone, which
    of RF channels a filter takes out, and the phase of the pixel is twice that of the sum. Times 2 / (N - 1): N equal
    channels give what their sum gives.
    """


@dataclass(frozen=True)
class ShortLagSpatialCoherence:
    """The mean correlation of channels that lie at most M elements apart (Lediju, Trahey, Byram & Dahl 2011, TUFFC 58:1377).

    (1/M) Σ_{m=1}^{M} 1/(N-m) Σ_i Re Σ_t s_i(t) s*_{i+m}(t) / √(Σ_t |s_i|² Σ_t |s_{i+m}|²), t over an axial kernel. A
    picture of likeness, not of brightness: real, 1 for an echo alike on all elements, about 0 for noise, below 0 for
    channels in opposition. To be shown on a linear scale.

    Attributes
    ----------
    lags : float
        M / N, above 0 and at most 1; 0.1 by default.
    kernel : float
        Axial length of t, wavelengths of the carrier, 0 (one time alone) to 20; 1 by default.
    """

    lags: float = 0.1
    kernel: float = 1.0

    def __post_init__(self) -> None:
        _check(self, "lags", self.lags, 0.0, 1.0, open_low=True)
        _check(self, "kernel", self.kernel, 0.0, LONGEST_KERNEL)

    def most(self, n: int) -> int:
        """Return M, the longest lag.

        Parameters
        ----------
        n : int
            Elements in the aperture.

        Returns
        -------
        int
        """
        return max(0, min(n - 1, max(1, round(self.lags * n))))


Combination = (
    CoherenceFactor | GeneralizedCoherenceFactor | MinimumVariance | DelayMultiplyAndSum | ShortLagSpatialCoherence
)
COMBINATIONS: Mapping[str, type[Combination]] = MappingProxyType(
    {
        "cf": CoherenceFactor,
        "gcf": GeneralizedCoherenceFactor,
        "mv": MinimumVariance,
        "dmas": DelayMultiplyAndSum,
        "slsc": ShortLagSpatialCoherence,
    }
)
SUM = "sum"
OWN_WEIGHTS = MinimumVariance, ShortLagSpatialCoherence  # no window has a say in them
COHERENCES = (ShortLagSpatialCoherence,)  # pictures of likeness: real, at most 1, without phase and decibels


def resolve_combination(combine: str | Combination) -> Combination | None:
    """Return the combination that a name or a value means, None for the plain sum.

    Parameters
    ----------
    combine : str or Combination
        "sum", "cf", "gcf", "mv", "dmas" or "slsc", which have their default parameters; with others as in
        "mv,loading=0.1,subarray=0.4"; or a value of one of the classes here.

    Raises
    ------
    ValueError
        The name or a parameter is unknown, or its value out of range.
    """
    if not isinstance(combine, str):
        if isinstance(combine, Combination):
            return combine
        raise ValueError(f"combine: expected one of {', '.join((SUM, *COMBINATIONS))}, got {combine!r}")
    name, *pairs = (word.strip() for word in combine.split(","))
    if name == SUM and not pairs:
        return None
    if name not in COMBINATIONS:
        raise ValueError(f"combine: expected one of {', '.join((SUM, *COMBINATIONS))}, got {combine!r}")
    kind = COMBINATIONS[name]
    known = {entry.name: int if isinstance(entry.default, int) else float for entry in fields(kind)}
    values: dict[str, Any] = {}
    for pair in pairs:
        key, _, text = pair.partition("=")
        if key not in known:
            words = ", ".join(known) or "no parameter"
            raise ValueError(f"combine: {name} takes {words}, got {pair!r}")
        try:
            values[key] = known[key](text)
        except ValueError:
            raise ValueError(f"combine: {name}: expected a number, as in {key}=1, got {pair!r}") from None
    return kind(**values)


def name_of(combination: Combination | None) -> str:
    """Return the short name of a combination."""
    if combination is None:
        return SUM
    return next(name for name, kind in COMBINATIONS.items() if kind is type(combination))


def is_coherence(combine: str | Combination) -> bool:
    """Tell whether pictures by a combination are coherences, to be shown on a linear scale."""
    return isinstance(resolve_combination(combine), COHERENCES)


def kernel_times(combination: Combination, frequency: float) -> list[float]:
    """Return the times of an axial kernel about a pixel's own, s: half a carrier period apart, the middle one 0.

    A kernel of one wavelength in depth is two periods long, there and back.
    """
    length = getattr(combination, "kernel", 0.0)
    half = round(length / SPACING)
    return [step * SPACING / frequency for step in range(-half, half + 1)]


def _check(value: object, name: str, given: float, low: float, high: float, open_low: bool = False) -> None:
    real = isinstance(given, int | float) and not isinstance(given, bool)
    if not real or not (low < given if open_low else low <= given) or not given <= high:
        bounds = f"above {low:g}" if open_low else f"from {low:g}"
        raise ValueError(f"{type(value).__name__}: {name}: expected {bounds} to {high:g}, got {given!r}")
