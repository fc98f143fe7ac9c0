"""The acoustic model, one formula a function: START HERE.

Linear acoustics, single scattering, far field of each sub-element: SIMUS (Garcia 2022, "SIMUS: an open-source simulator
for medical ultrasound imaging. Part I: theory & examples", Comput. Methods Programs Biomed. 218), in two dimensions, or
in three with the focusing of an element's height and lens.

Each function is plain NumPy arithmetic that works on scalars and arrays alike: the reference engine calls it on arrays,
the CPU engine compiles it with Numba and calls it on scalars. SI units; frequency in Hz; x lateral, y elevation, z depth.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

Real = TypeVar("Real", float, np.ndarray)  # numbers where Numba compiles a formula, arrays where NumPy runs it

GRAZING = 1.1921e-7  # obliquity factor at and beyond 90 degrees: float32's epsilon, as in MUST
NEPER_DB = 8.69  # dB a neper, MUST's rounding of 20 / ln 10


# --- one sub-element and one point -----------------------------------------------------------------------------------


def incidence(dx: Real, dz: Real, sin_element: Real, cos_element: Real) -> tuple[Real, Real]:
    """Sine and cosine of the angle θ between an element's normal and a point at (dx, dz) from it.

    θ = arcsin(dx / d) - θ_e (Garcia 2022; MUST's form): by |dz|, so that a point behind the tangent is folded. At d = 0,
    where there is no angle, both are 0: grazing.
    """
    distance = np.maximum(np.sqrt(dx * dx + dz * dz), 1e-12)
    sine, cosine = dx / distance, np.abs(dz) / distance
    return sine * cos_element - cosine * sin_element, cosine * cos_element + sine * sin_element


def obliquity(cos_theta: Real, baffle: float) -> Real:
    """Obliquity factor of an element in a baffle (Selfridge et al. 1980; Garcia 2022).

    `baffle` is an impedance ratio: 0 gives a soft baffle (its limit is cos θ by convention), infinity a rigid one.
    """
    if baffle == 0.0:
        factor = cos_theta
    elif baffle == np.inf:
        factor = cos_theta * 0 + 1
    else:
        factor = cos_theta / (cos_theta + baffle)
    return np.where(cos_theta <= 0, GRAZING, factor)  # type: ignore[return-value]  # of a number it is one, too


def directivity(sin_theta: Real, half_width_wavenumber: float) -> Real:
    """sinc(k L/2 sin θ) of a line source of length L (Garcia 2022); `half_width_wavenumber` is k L / 2."""
    return np.sinc(half_width_wavenumber * sin_theta / np.pi)


def attenuation(frequency: Real, attenuation_db_cm_mhz: float) -> Real:
    """Attenuation coefficient κ in nepers a meter, linear in frequency (Garcia 2022)."""
    return attenuation_db_cm_mhz / NEPER_DB * frequency / 1e6 * 1e2


def wavenumber(frequency: float, speed_of_sound: float) -> float:
    """K = 2π f / c in rad/m."""
    return 2 * np.pi * frequency / speed_of_sound


# --- elevation -------------------------------------------------------------------------------------------------------

# The aperture in elevation, 1 over |y| < height / 2, as a sum of Gaussians A exp(-B (y / height)²): the form of Wen &
# Breazeale 1988 ("A diffraction beam field expressed as the superposition of Gaussian beams", J. Acoust. Soc. Am. 83),
# the four terms that MUST takes, in conjugate pairs.
BEAM_AMPLITUDES = 0.187 + 0.275j, 0.288 - 1.954j, 0.187 - 0.275j, 0.288 + 1.954j
BEAM_DECAYS = 4.558 - 25.59j, 8.598 - 7.924j, 4.558 + 25.59j, 8.598 + 7.924j


def elevation_beam(
    wavenumber: float | np.ndarray, distance: np.ndarray, square_y: float | np.ndarray, height: float, focus: float
) -> np.ndarray:
    """Complex field that an element's height and lens make of a line through its center, m (Garcia 2022).

    Fresnel's integral over the height, for an aperture of Gaussians, relative to the phase of `elevation_path` and the
    distance; `focus` is the lens's, infinite without one.

    Parameters
    ----------
    wavenumber : rad/m.
    distance : m, element to point in three dimensions.
    square_y : m², of the point's elevation.
    """
    field = np.zeros((), dtype=np.complex128)
    curvature = 0.5j * wavenumber * (1 / focus - 1 / distance)
    for amplitude, decay in zip(BEAM_AMPLITUDES, BEAM_DECAYS, strict=True):
        spread = 1 / (curvature + decay / height**2)
        exponent = -((wavenumber / distance) ** 2) * square_y / 4 * spread
        field = field + amplitude * np.sqrt(np.pi * spread) * np.exp(exponent)
    return field


def elevation_path(distance: Real, square_y: Real) -> Real:
    """Way that the elevation adds to the distance in the phase, m: Fresnel's y² / 2r (Garcia 2022; MUST's form).

    The distance in three dimensions holds this already, and MUST counts it again: an echo from y is y² / 2r later each
    way than it is far.
    """
    way: Real = square_y / (2 * distance)
    return way


# --- spectra ---------------------------------------------------------------------------------------------------------


def excitation_spectrum(
    frequency: np.ndarray, center_frequency: float, n_cycles: float, frequency_sweep: float | None = None
) -> np.ndarray:
    """Spectrum S(f) of the excitation: a windowed sine (Garcia 2022) or a linear chirp, of n_cycles / f_c seconds.

    Both are 2/T times the conjugate Fourier transform of sin(2π f_c t + π sweep/T t²) on |t| <= T/2, so that a chirp of
    vanishing sweep is the sine.
    """
    duration = n_cycles / center_frequency
    if frequency_sweep is None:
        return 1j * (
            np.sinc(duration * (frequency - center_frequency)) - np.sinc(duration * (frequency + center_frequency))
        )
    from scipy.special import fresnel

    rate = frequency_sweep / duration

    def chirp(
        offset: np.ndarray,
    ) -> np.ndarray:  # ∫ exp(i (π rate t² - 2π offset t)) dt over |t| <= T/2, the square completed
        stretch = np.sqrt(2 * rate)
        upper = fresnel(stretch * (duration / 2 - offset / rate))
        lower = fresnel(stretch * (-duration / 2 - offset / rate))
        cosine, sine = upper[1] - lower[1], upper[0] - lower[0]
        transform: np.ndarray = np.exp(-1j * np.pi * offset**2 / rate) / stretch * (cosine + 1j * sine)
        return transform

    transform = (chirp(frequency - center_frequency) - np.conj(chirp(-frequency - center_frequency))) / 2j
    spectrum: np.ndarray = 2 / duration * np.conj(transform)
    return spectrum


def sampled_spectrum(frequency: np.ndarray, samples: np.ndarray, rate: float) -> np.ndarray:
    """Conjugate Fourier transform of a signal of n samples, the one at (n - 1) / 2 at time 0; 0 from half the rate on.

    ∫ w(t) exp(2πi f t) dt as Σ_n w_n exp(2πi f t_n) / rate. On a uniform grid of frequencies by the chirp-z transform
    (Rabiner, Schafer & Rader 1969), elsewhere term by term.
    """
    from scipy.signal import czt

    frequency = np.asarray(frequency, dtype=np.float64)
    n = len(frequency)
    step = (frequency[-1] - frequency[0]) / (n - 1) if n > 1 else 0.0
    even = n > 2 and np.allclose(np.diff(frequency), step, rtol=1e-6, atol=0)
    if even:
        ratio, start = np.exp(2j * np.pi * step / rate), np.exp(-2j * np.pi * frequency[0] / rate)
        spectrum = czt(samples, n, ratio, start)
    else:
        powers = np.arange(len(samples))
        spectrum = np.array([np.exp(2j * np.pi * f / rate * powers) @ samples for f in frequency])
    spectrum = spectrum * np.exp(-2j * np.pi * frequency * (len(samples) - 1) / 2 / rate) / rate
    return np.where(np.abs(frequency) < rate / 2, spectrum, 0)


def probe_spectrum(frequency: np.ndarray, center_frequency: float, bandwidth: float) -> np.ndarray:
    """Return the one-way response B(f) of a probe (Garcia 2022).

    It is the square root of the pulse-echo response, a generalized normal window whose -6 dB width is the bandwidth.
    """
    width = bandwidth * center_frequency
    power = np.log(126) / np.log(2 * center_frequency / width)
    scale = width / 2 / np.log(2) ** (1 / power)
    gaussian: np.ndarray = np.exp(-0.5 * (np.abs(frequency - center_frequency) / scale) ** power)
    return gaussian


def backscatter(frequency: np.ndarray, center_frequency: float, exponent: float) -> np.ndarray:
    """Amplitude (f / f_c)^(n/2) of the echo of tissue whose backscatter coefficient goes with f^n.

    Insana et al. 1990, "Describing small-scale structure in random media using pulse-echo ultrasound", JASA 87.
    """
    amplitude: np.ndarray = (np.abs(frequency) / center_frequency) ** (exponent / 2)
    return amplitude


# --- imaging ---------------------------------------------------------------------------------------------------------


def shortest_wavelength(center_frequency: float, bandwidth: float, speed_of_sound: float) -> float:
    """λ_min = c / (f_c (1 + bandwidth/2)), m."""
    return speed_of_sound / (center_frequency * (1 + bandwidth / 2))


def automatic_f_number(element_width: float, wavelength: float) -> float:
    """f# at whose edge an element's sensitivity cos α sinc(π width sin α / λ) falls to 0.71 (-3 dB) (Perrot et al.

    2021, "So you think you can DAS?", Ultrasonics 111).
    """
    from .numerics import bracketed_root

    def excess(angle: float) -> float:
        excess: float = np.cos(angle) * np.sinc(element_width * np.sin(angle) / wavelength) - 0.71
        return excess

    f_number: float = 1 / (2 * np.tan(bracketed_root(excess, 1e-6, np.pi / 2)))
    return f_number
