"""The medium's attenuation from the echoes themselves: how they fall with depth against what a loss-free medium gives.

Speckle of even echogenicity has, at the beamformer's output, the power

    E |B y|² = a G D(p, A) exp(-2 κ(A) p) + b N

with G the loss-free model's power for white reflectivity (diffraction, directivity, aperture), p the way there and back,
κ(A) the attenuation coefficient at the carrier, D what a band about the carrier keeps more than the carrier does, and N the
power of white channel noise. a, A and b are fitted to the logarithm of the mean power of blocks all over the field; cysts
and bright targets are outliers of the fit. How far the answer can be trusted comes from the fit and from leaving out one
strip of the field after the other, along x and in depth: layers that differ, or an object that ends inside the field, show
in the latter.

What this cannot tell from attenuation: tissue that is darker or brighter with depth, a time gain that the recorder has
applied, and the focusing in elevation, which the model does not have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from ussim import physics
from ussim.arrays import to_numpy
from ussim.plan import make_plan
from ussim.types import ImageGrid, RFData

from .acoustics import F_NUMBER, EchoModel, echo_model_of, waveform_spectrum

BLOCKS = (24, 8)  # z, x: of the field; strips along x are left out in turn
BANDS = 3  # of depth, left out in turn
EDGE = 0.08  # of the field on each side, not used: echoes from beyond the grid reach it
WIDE_ENOUGH = 64  # columns, from which on every second will do
REACH = 48  # pixels in depth over which a pixel's own image is summed
OUTLIER_DB = 2.0  # from here on a block counts less: the mean power of a block of speckle scatters by about 1 dB
LIMITS = (-2.0, 4.0)  # dB/cm/MHz, of the fit: below 0 is a time gain, or tissue that brightens with depth
FLOOR_PAYS = 0.8  # of the misfit without: else a floor, which has the depth dependence of even speckle, is not fitted
STARTS = (0.0, 0.5, 1.0)  # dB/cm/MHz
TRUSTED = 0.15  # dB/cm/MHz, the standard error up to which an estimate is used


@dataclass(frozen=True)
class AttenuationEstimate:
    """A fit of the attenuation in dB/cm/MHz, below 0 where echoes rise with depth, and its standard error."""

    fit: float
    error: float

    @property
    def is_trusted(self) -> bool:
        """Whether the standard error is small enough for the value to be used."""
        return self.error <= TRUSTED

    @property
    def value(self) -> float:
        """The attenuation to use: 0 where the fit is not above 0 by two standard errors."""
        return round(self.fit, 3) if self.is_trusted and self.fit > 2 * self.error else 0.0


def estimate_attenuation(rf: RFData, grid: ImageGrid, f_number: float = F_NUMBER) -> AttenuationEstimate:
    """Estimate the attenuation of the medium from the first transmit of a recording.

    Parameters
    ----------
    rf : RFData
        Channel data without a time gain. What its acquisition says of attenuation is not used.
    grid : ImageGrid
        The field to look at; its axial step must hold the carrier (`bandpass_step`).
    f_number : float
        Of the receive aperture of B.

    Returns
    -------
    AttenuationEstimate
        With an infinite error where the field is too small, or empty.
    """
    grid = ImageGrid(x=grid.x[::2] if len(grid.x) >= WIDE_ENOUGH else grid.x, z=grid.z)
    rows, columns = (_blocks(n, wanted) for n, wanted in zip(grid.shape, BLOCKS, strict=True))
    if min(len(rows), len(columns)) < 3:
        return AttenuationEstimate(0.0, math.inf)
    medium = replace(rf.acquisition.medium, attenuation_db_cm_mhz=0.0)
    lossless = replace(rf, acquisition=replace(rf.acquisition, medium=medium))
    model = echo_model_of(lossless, grid, f_number=f_number)
    by = model.beamform(to_numpy(rf.samples[0]))
    power = np.array([[np.mean(np.square(by[np.ix_(r, c)])) for c in columns] for r in rows])
    expected = _Expected(model, np.array([r[len(r) // 2] for r in rows]), np.array([c[len(c) // 2] for c in columns]))
    heard = (power > 0) & (expected.signal > 1e-3 * expected.signal.max())
    if heard.sum() < 2 * len(rows):
        return AttenuationEstimate(0.0, math.inf)
    plain, noisy = (_fit(power, expected, heard, floor=floor) for floor in (False, True))
    floor = noisy.cost < FLOOR_PAYS * plain.cost
    best = noisy if floor else plain

    def jackknife(parts: list[tuple[slice, slice]]) -> float:
        left_out = []
        for part in parts:
            kept = heard.copy()
            kept[part] = False
            left_out.append(_fit(power, expected, kept, floor, start=best.attenuation).attenuation)
        n = len(left_out)
        return math.sqrt((n - 1) / n * float(np.sum(np.square(np.subtract(left_out, np.mean(left_out))))))

    bands = np.array_split(np.arange(len(rows)), BANDS)
    in_depth = jackknife([(slice(band[0], band[-1] + 1), slice(None)) for band in bands])
    across = jackknife([(slice(None), slice(strip, strip + 1)) for strip in range(len(columns))])
    return AttenuationEstimate(best.attenuation, max(best.error, in_depth, across))


def _blocks(n: int, wanted: int) -> list[np.ndarray]:
    """Pixels of each block along an axis, those at the edges in none."""
    edge = math.ceil(EDGE * n)
    inside = np.arange(edge, n - edge)
    return np.array_split(inside, min(wanted, len(inside))) if len(inside) else []


class _Expected:
    """Power at the pixels of some rows and columns, but for the two scales of the fit. Arrays (n_rows, n_columns)."""

    def __init__(self, model: EchoModel, rows: np.ndarray, columns: np.ndarray) -> None:
        nz, nx = model.grid.shape
        pixels = rows[:, None] * nx + columns
        self.signal = np.empty(pixels.shape)
        for i, row in enumerate(rows):
            near = np.arange(max(0, row - REACH) * nx, min(nz, row + REACH + 1) * nx)
            self.signal[i] = np.square(model.matrix(pixels[i], near), dtype=np.float64).sum(axis=1)
        flat = pixels.ravel()
        self.noise = np.square(model.noise_gain().ravel()[flat]).reshape(pixels.shape)
        weight = model.apodization[flat]
        arrival = (weight * model.arrival[flat]).sum(axis=1) / weight.sum(axis=1)
        acquisition = model.acquisition
        self.path = (arrival * acquisition.medium.speed_of_sound).reshape(pixels.shape)
        self.carrier = acquisition.carrier_frequency
        plan = make_plan(acquisition)
        frequency = np.linspace(*plan.band(), 257)
        spectrum = np.abs(waveform_spectrum(plan, frequency, 0.0)) ** 4  # of B y: the waveform's, matched
        self.offset, self.share = frequency - self.carrier, spectrum / spectrum.sum()

    def echoes(self, attenuation: float) -> np.ndarray:
        """Power of the echoes, over that of the nearest pixel's at the carrier."""
        coefficient = physics.attenuation(1.0, attenuation)  # Np/m/Hz
        band = np.exp(-2 * coefficient * np.multiply.outer(self.path, self.offset)) @ self.share
        return self.signal * band * np.exp(-2 * coefficient * self.carrier * (self.path - self.path.min()))


@dataclass(frozen=True)
class _Fit:
    attenuation: float
    error: float
    cost: float


def _fit(power: np.ndarray, expected: _Expected, kept: np.ndarray, floor: bool, start: float | None = None) -> _Fit:
    """Robust least squares over the blocks kept, with a noise floor or without."""
    level = 10 * np.log10(power[kept])
    noise = expected.noise[kept]

    def misfit(parameters: np.ndarray) -> np.ndarray:
        echoes = 10 ** (parameters[0] / 10) * expected.echoes(parameters[1])[kept]
        return 10 * np.log10(echoes + (10 ** (parameters[2] / 10) * noise if floor else 0.0)) - level

    loudest = float(np.quantile(level - 10 * np.log10(expected.signal[kept]), 0.9))
    quietest = float(np.quantile(level - 10 * np.log10(noise), 0.02))
    n = 3 if floor else 2
    low, high = [loudest - 80, LIMITS[0], quietest - 80], [loudest + 80, LIMITS[1], quietest + 80]
    options: dict[str, Any] = {"bounds": (low[:n], high[:n]), "loss": "cauchy", "f_scale": OUTLIER_DB}
    answers = [
        least_squares(misfit, [loudest, attenuation, quietest - 10][:n], **options)
        for attenuation in (STARTS if start is None else [start])
    ]
    best = min(answers, key=lambda answer: answer.cost)
    information = best.jac.T @ best.jac + 1e-12 * np.eye(n)  # a floor far below the echoes has no slope
    variance = 2 * best.cost / max(1, len(level) - n) * np.linalg.inv(information)[1, 1]
    return _Fit(float(best.x[1]), math.sqrt(max(0.0, float(variance))), float(best.cost))


__all__ = ["AttenuationEstimate", "estimate_attenuation"]
