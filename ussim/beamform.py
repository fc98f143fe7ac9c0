"""Beamforming: from channel data to a compounded image, straight onto Cartesian pixels, and its log compression.

Delay-and-sum as in Perrot, Polichetti, Varray & Garcia 2021, "So you think you can DAS? A viewpoint on delay-and-sum
beamforming", Ultrasonics 111: a pixel is the sum, over transmits and over the elements of its receive aperture, of what the
element recorded when the echo of that pixel came in.

    delay_and_sum ─► plan.Beamforming ─► engines.get_engine ─► Engine.delay_and_sum ─► kernels (`engines.cpu.kernels`,
    `beamform.cu`), which asks `arrivals` for the times of the transmits

In place of the sum over the elements may stand another combination of them (`beamforming.adaptive`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from . import matrix
from .acquisition import Acquisition
from .arrays import device_of, is_on_device, to_numpy
from .arrivals import arrival_times
from .beamforming.adaptive import (
    OWN_WEIGHTS,
    Combination,
    ShortLagSpatialCoherence,
    name_of,
    resolve_combination,
)
from .beamforming.apertures import automatic_f_number, reached, unseen_share
from .beamforming.grids import AnyGrid
from .beamforming.weights import resolve_weights
from .beamforming.windows import resolve_apodization
from .doors import check_speed
from .engines import engine_of, get_engine
from .interpolation import INTERPOLATIONS
from .plan import Beamforming
from .probes import one_row
from .reach import check_reach
from .types import IQData, RFData, one_plane

RECORDS = 30.0  # a grid whose times are more than this many records away has nothing to do with them
COMPOUNDINGS = ("coherent", "incoherent", "none")
UNSEEN_SHARE = 0.25  # of the pixels in front of the array without an element, above which `delay_and_sum` warns


class UnseenWarning(UserWarning):
    """Many pixels have no element in their receive aperture."""


def delay_and_sum(
    data: IQData | RFData,
    grid: AnyGrid,
    f_number: float | None = None,
    *,
    apodization: str | np.ndarray | None = None,
    combine: str | Combination = "sum",
    interpolation: str = "linear",
    normalize: bool = False,
    speed_of_sound: float | None = None,
    transmit_weights: str | np.ndarray | None = "beam",
    compounding: str = "coherent",
    engine: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Beamform channel data onto a grid, compounded over the transmits, focused ones within their beams.

    IQ data are rotated by exp(2πi f_0 τ), τ the two-way time; RF data are summed as they are. Samples outside the record
    count as zero, whatever channels hold that the acquisition's receive_mask leaves out is not read, pixels behind the
    array are 0.

    Parameters
    ----------
    data : IQData or RFData
        (..., n_transmits, n_elements, n_samples): one record or a stack.
    grid : ImageGrid, PolarGrid or PointGrid
        Pixel centers: a Cartesian grid, a polar one, or any points; for linear, phased and convex arrays alike.
    f_number : float, optional
        Receive aperture: an element counts where the pixel is within atan(1 / (2 f_number)) of its normal, which is
        |x - x_e| <= z / (2 f_number) on a flat array. None: all elements where they are at most 0.7 wavelengths apart, else
        from the elements' directivity (`automatic_f_number`); 0: all elements.
    apodization : str, np.ndarray or None
        Weights of the elements in the receive aperture. "boxcar" (None): all count alike. "hann", "hamming", "blackman" or
        "tukey" (flat over its inner half): a window that moves and grows with the aperture, over the tangent of the angle to
        the element's normal; where `f_number` is 0, over the whole array. Or weights (n_elements,), at least 0.
    combine : str or a value of `beamforming.adaptive`
        How the elements' delayed samples make a pixel. "sum"; "cf" and "gcf", the sum times a coherence factor; "mv",
        minimum variance; "dmas", delay-multiply-and-sum; "slsc", short-lag spatial coherence. Parameters as in
        "mv,loading=0.1", or by a value as `MinimumVariance(loading=0.1)`. All but the sum need IQ data and the engines
        "cpu" or "reference"; "auto" is the CPU's then. They combine the elements after the sum over transmits, or of
        each transmit where `compounding` is not coherent.
    interpolation : str
        "nearest", "linear", "quadratic", "lanczos3" or "lanczos5".
    normalize : bool
        Divide each pixel by the number of elements in its aperture (MUST does not: shallow rows are darker), or the sum of
        their apodization, of those that the acquisition's receive_mask lets receive; of a mask that changes with the
        transmit, by the mean over transmits. A coherence ("slsc") is the same with and without.
    speed_of_sound : float, optional
        For the way from the array to a pixel and back, m/s; the acquisition's medium by default. When elements fired is not
        affected, so that focused waves come together elsewhere, nearer at a higher speed: arrivals change there from the
        first to the last.
    transmit_weights : str, np.ndarray or None
        How much each transmit counts at each pixel. "beam": a focused one within its beam (`beam_weights`), others, plane
        and diverging waves, everywhere. "line": scan lines, each pixel from the lines of the two focused transmits
        beside it (`line_weights`). None: all everywhere. Or finite weights (n_transmits,) or (n_transmits, nz, nx).
    compounding : str
        "coherent": the sum of the transmits' images. "incoherent", of IQ data: the root of the sum of their powers, with
        less speckle and less resolution. "none": the images themselves, weighted.
    engine : str
        As in `simulate`.
    progress : callable, optional
        As in `simulate`.

    Returns
    -------
    np.ndarray
        (..., nz, nx), of a volume (nz, ny, nx), complex64 of IQ data, float32 of RF data, of "incoherent" and of "slsc" (the
        reference engine: complex128, float64), an image per record, (..., *grid.shape) of other grids; with "none"
        (..., n_transmits, nz, nx); on a card where the engine is "cuda", of a matrix array in host memory.

    Warns
    -----
    UnseenWarning
        More than a quarter of the pixels in front of the array have no element in their receive aperture.

    Raises
    ------
    ValueError
        A value is out of range or of no known name.
    EngineError
        The engine is on a card, and `combine` is not the sum.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation: expected one of {', '.join(INTERPOLATIONS)}, got {interpolation!r}")
    speed_of_sound = _check_speed(speed_of_sound, data.acquisition)
    if f_number is None:
        f_number = automatic_f_number(data.acquisition.probe, speed_of_sound)
    if not (math.isfinite(f_number) and f_number >= 0):
        raise ValueError(f"f_number: expected a number of at least 0 (0 = all elements) or None, got {f_number!r}")
    if compounding not in COMPOUNDINGS:
        raise ValueError(f"compounding: expected one of {', '.join(COMPOUNDINGS)}, got {compounding!r}")
    if compounding == "incoherent" and isinstance(data, RFData):
        raise ValueError(
            "compounding: incoherent needs IQData, whose magnitude is an envelope: use ussim.demodulate first"
        )
    combination = resolve_combination(combine)
    _check_combination(combination, data, compounding, apodization)
    is_matrix = data.acquisition.probe.is_matrix
    if is_matrix:
        matrix.check_apodization(apodization, f_number)
    else:
        one_plane(grid, "delay_and_sum of an array of one row")
    window, gains = resolve_apodization(apodization, data.acquisition.probe, f_number)
    weights = (matrix.resolve_weights if is_matrix else resolve_weights)(transmit_weights, data.acquisition, grid)
    _check_record(data, grid, speed_of_sound)
    unseen = unseen_share(data.acquisition, grid, f_number)
    if unseen > UNSEEN_SHARE:
        warnings.warn(
            f"{unseen:.0%} of the pixels are in no element's receive aperture (f-number {f_number:.2f}) and stay black: "
            "narrow the grid, or give a lower f_number (0: all elements)",
            UnseenWarning,
            stacklevel=2,
        )
    if combination is not None and engine == "auto":
        engine = "cpu"
        if is_on_device(data.samples):
            warnings.warn(
                f'combine "{name_of(combination)}" is computed on the CPU: samples are copied there, and the image is there',
                stacklevel=2,
            )
    there = engine == "auto" and is_on_device(data.samples)
    machine = engine_of(data.samples) if there else get_engine(engine)
    asked = Beamforming(
        acquisition=data.acquisition,
        grid=grid,
        speed_of_sound=speed_of_sound,
        sampling_frequency=data.sampling_frequency,
        start_time=data.start_times,
        demodulation_frequency=data.demodulation_frequency if isinstance(data, IQData) else 0.0,
        f_number=float(f_number),
        interpolation=INTERPOLATIONS[interpolation],
        normalize=normalize,
        weights=weights,
        compounding=compounding,
        progress=progress,
        window=window,
        gains=gains,
        combination=combination,
    )
    samples = data.samples if machine.on_device else to_numpy(data.samples)
    return matrix.delay_and_sum(machine, samples, asked) if is_matrix else machine.delay_and_sum(samples, asked)


def log_compress(image: np.ndarray, dynamic_range_db: float = 40.0, *, per_image: bool = False) -> np.ndarray:
    """Compress to B-mode (MUST's `bmode`): decibels below the maximum, 0 dB -> 1, -dynamic_range_db and less -> 0.

    Parameters
    ----------
    image : np.ndarray
        Any shape: complex, or an envelope (real, not negative).
    dynamic_range_db : float
        Above 0.
    per_image : bool
        Of a stack (..., nz, nx), the maximum of each image; otherwise that of the whole array, which keeps the brightness of
        images comparable.

    Returns
    -------
    np.ndarray
        float32 in [0, 1] of the same shape; an image of zeros gives zeros.

    Raises
    ------
    ValueError
        The range is not above 0, the image has negative values or values that are not finite, or `per_image` and no axes
        (nz, nx).
    """
    if not (math.isfinite(dynamic_range_db) and dynamic_range_db > 0):
        raise ValueError(f"dynamic_range_db: expected dB above 0, got {dynamic_range_db!r}")
    with device_of(image):
        image = image if is_on_device(image) else to_numpy(image)
        detected = abs(image)
        if per_image and detected.ndim < 2:
            raise ValueError(f"log_compress: per_image: expected images (..., nz, nx), got the shape {detected.shape}")
        if detected.size == 0:
            return np.zeros_like(detected, dtype=np.float32)
        has_negative = image.dtype.kind != "c" and (image < 0).any()
        largest = detected.max(axis=(-2, -1) if per_image else None, keepdims=True)
        is_finite = np.isfinite(largest).all()
        if not is_on_device(image):
            _check_image(has_negative, is_finite)
        floor = 10 ** (-dynamic_range_db / 20)
        with np.errstate(invalid="ignore"):
            decibels = 20 * np.log10(np.maximum(detected / (largest + (largest == 0)), floor))
            grey: np.ndarray = np.clip(1 + decibels / dynamic_range_db, 0, 1).astype(np.float32) * (largest > 0)
        if is_on_device(image):  # the answer is waited for once, when all is queued
            _check_image(has_negative, is_finite)
        return grey


def _check_image(has_negative: Any, is_finite: Any) -> None:
    """Raise ValueError where an image is not to be compressed; both answers may lie on a card."""
    if bool(has_negative):
        raise ValueError(
            "log_compress: expected a complex image or an envelope, got a real one with negative values: an RF image. "
            "Demodulate the channel data first, or detect the image along depth with ussim.envelope"
        )
    if not bool(is_finite):
        raise ValueError("log_compress: expected a finite image, got NaN or infinity")


def envelope(image: np.ndarray) -> np.ndarray:
    """Detect the envelope of an image.

    Parameters
    ----------
    image : np.ndarray
        (..., nz, nx): complex, as beamformed from IQ data; or real, an RF image whose rows lie less than a quarter of a
        wavelength apart.

    Returns
    -------
    np.ndarray
        Of the same shape and precision: the magnitude of a complex image; of a real one that of its analytic signal along
        depth (Hilbert transform).

    Raises
    ------
    ValueError
        A real image has no axes (nz, nx).
    """
    if np.iscomplexobj(image):
        with device_of(image):
            return abs(image)
    from scipy.signal import hilbert

    samples = to_numpy(image)
    if samples.ndim < 2:
        raise ValueError(f"envelope: expected an image (..., nz, nx), got the shape {samples.shape}")
    envelope: np.ndarray = abs(hilbert(samples, axis=-2)).astype(
        samples.dtype if samples.dtype.kind == "f" else np.float64, copy=False
    )
    return envelope


def transmit_time(
    acquisition: Acquisition,
    x: np.ndarray,
    z: np.ndarray,
    speed_of_sound: float | None = None,
    engine: str = "auto",
) -> np.ndarray:
    """Arrival of each transmit's wave at points, s on the clock of its firing delays; infinity of a silent transmit.

    The first arrival: min over firing elements of τ_e + d_e/c, the aperture interpolated to four sources an element (MUST's
    `dasmtx`). Two kinds of transmit need more:

    - A focused wave, `FocusedWaves` or `CustomTransmits` whose times describe a focus: beyond its focus the ray through the
      focus arrives last, not first: all elements' waves have gone by when it comes. The time is the first arrival in the
      cone before the focus, the last one in the cone beyond it, and between the two cones, which no ray reaches, it passes
      from one to the other linearly in the angle about the focus (after Nguyen & Prager 2016, IEEE TMI 35:98): no jump
      anywhere. Between the cones there are edge waves alone, from the first arrival and from the last, and no single time
      places both: their echoes are displaced there, by 0.8 mm beside a focus of the full L11-5v. `delay_and_sum` leaves
      them out (`transmit_weights="beam"`).
    - Several simultaneous laws (multi-line transmission): a point listens to the law whose arrivals at it from all elements
      lie closest together, the beam that is concentrated there.

    Parameters
    ----------
    acquisition : Acquisition
    x, z : np.ndarray
        Points in m, of shapes that broadcast.
    speed_of_sound : float, optional
        m/s; the acquisition's medium by default.
    engine : str
        As in `simulate`.

    Returns
    -------
    np.ndarray
        (n_transmits, *shape) float64.
    """
    one_row(acquisition.probe, "transmit_time")
    bounds = get_engine(engine).arrival_bounds
    return arrival_times(acquisition, x, z, _check_speed(speed_of_sound, acquisition), bounds)


def field_mask(acquisition: Acquisition, grid: AnyGrid, f_number: float | None = None) -> np.ndarray:
    """Tell which pixels are in the probe's field: in front of the array, reached by a transmit, seen by an element.

    Within reach of a transmit: a ray of its wave passes there, that is, the arrival τ_e + d_e/c has its extremum inside the
    firing aperture and not at its end; or the pixel lies just outside, where a wave of quadratic phase continued past the
    aperture's end would be at most a quarter period away from the end's own (Fresnel parameter 1, 14 dB below the open
    field); or all elements' waves arrive within half a period (a focus). Seen by an element: one at least counts by the
    `f_number`, which is as in `delay_and_sum`, and is not silenced by the receive mask in all transmits.

    Parameters
    ----------
    acquisition : Acquisition
        Probe, waves, medium and sampling.
    grid : ImageGrid, PolarGrid or PointGrid
        Pixel centers, m.
    f_number : float, optional
        As in `delay_and_sum`.

    Returns
    -------
    np.ndarray
        (nz, nx) bool, the grid's shape.
    """
    one_row(acquisition.probe, "field_mask")
    one_plane(grid, "field_mask")
    x, z = grid.mesh()
    check_reach("grid", x, z, acquisition)
    return reached(acquisition, x, z, f_number)


def _check_speed(speed_of_sound: float | None, acquisition: Acquisition) -> float:
    return acquisition.medium.speed_of_sound if speed_of_sound is None else check_speed(speed_of_sound)


def _check_combination(
    combination: Combination | None, data: IQData | RFData, compounding: str, apodization: str | np.ndarray | None
) -> None:
    """Refuse what a combination cannot be asked for."""
    if combination is None:
        return
    name = name_of(combination)
    if isinstance(data, RFData):
        raise ValueError(f'combine: "{name}" needs IQData, whose samples have phases: use ussim.demodulate first')
    if isinstance(combination, OWN_WEIGHTS) and not (apodization is None or np.array_equal(apodization, "boxcar")):
        raise ValueError(f'combine: "{name}" weighs the elements itself: expected apodization None')
    if isinstance(combination, ShortLagSpatialCoherence) and compounding == "incoherent":
        raise ValueError(f'combine: "{name}" is no magnitude to compound: expected compounding coherent or none')


def _check_record(data: IQData | RFData, grid: AnyGrid, speed_of_sound: float) -> None:
    """Refuse a record whose times are beyond all reason for the pixels."""
    x, z = grid.mesh()
    check_reach("grid", x, z, data.acquisition)
    starts = np.asarray(data.start_time)
    first, last = float(starts.min()), float(starts.max()) + data.samples.shape[-1] / data.sampling_frequency
    nearest = 2 * float(np.abs(z).min()) / speed_of_sound
    farthest = 2 * math.hypot(float(np.abs(x).max()), float(np.abs(z).max())) / speed_of_sound
    probe = data.acquisition.probe
    slack = 2 * float(np.hypot(probe.element_x, probe.element_z).max()) / speed_of_sound
    if nearest > RECORDS * max(last, slack) or first > RECORDS * (farthest + slack):
        raise ValueError(
            f"grid: its echoes come {1e6 * nearest:.4g} to {1e6 * farthest:.4g} µs after the transmit, the record runs from "
            f"{1e6 * first:.4g} to {1e6 * last:.4g} µs: expected a grid in m, start_time in s and sampling_frequency in Hz"
        )
