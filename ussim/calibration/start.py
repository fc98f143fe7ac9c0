"""Start of the fit: positions, speed and time zero from arrival times, the band from the echoes' mean spectrum.

Arrival times are those of envelopes, which know no periods: what they give is well within half a period of the truth, so
that the fit of the waveforms cannot slip by one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.optimize import least_squares
from scipy.signal import hilbert

from ..acquisition import Acquisition
from ..arrays import to_numpy
from ..types import RFData
from .model import Model
from .parameters import Values, fitted_bounds
from .views import apart, choose_transmits, echo_times, received_level

SEARCH = 5.0  # periods about where an echo is expected, at first
FAINTEST_PICK = 0.2  # of a wire's loudest element
CLEAR = 4.0  # times the median of a channel's envelope
FEWEST_PICKS = 0.05  # of a wire's channels
SPEED_RANGE = 0.15  # of the file's speed of sound


def from_arrivals(
    rf: RFData, acquisition: Acquisition, x: np.ndarray, z: np.ndarray
) -> tuple[Values, np.ndarray, np.ndarray, np.ndarray]:
    """Return the numbers with speed of sound and time zero fitted to the arrivals.

    Beside them the wires' positions, m, and by how much the arrivals of each wire are off in the median, in periods.
    """
    values = Values.of(acquisition)
    period = 1 / acquisition.probe.center_frequency
    envelope = np.abs(hilbert(np.asarray(to_numpy(rf.samples), dtype=np.float64), axis=-1))
    wire, transmit = choose_transmits(acquisition, x, z)
    heard = received_level(acquisition, x, z)
    heard = heard / heard.max(axis=1, keepdims=True)
    weight = np.where(heard > FAINTEST_PICK, heard, 0.0)[wire] * acquisition.receiving[transmit]
    speed, later = values.speed_of_sound, 0.0
    for search in (SEARCH, SEARCH, 2.5, 1.5):
        times = echo_times(acquisition, x, z, speed) + later
        expected = times[transmit, wire]
        picked, seen = _pick(envelope, rf, transmit, expected, search * period)
        seen &= apart(times, wire, transmit) > 2 * search * period
        sigma = np.where(seen, weight, 0.0) / period
        speed, later, x, z = _fit_arrivals(acquisition, wire, transmit, picked, sigma, speed, later, x, z)
    off = np.abs(echo_times(acquisition, x, z, speed)[transmit, wire] + later - picked) / period
    astray = np.array([_median(off[wire == k], sigma[wire == k] > 0) for k in range(len(x))])
    return replace(values, speed_of_sound=float(speed), time_zero=float(later)), x, z, astray


def _median(values: np.ndarray, seen: np.ndarray) -> float:
    """Return the median of the values seen, infinite where they are too few to judge by."""
    return float(np.median(values[seen])) if seen.mean() > FEWEST_PICKS else np.inf


def _pick(
    envelope: np.ndarray, rf: RFData, transmit: np.ndarray, expected: np.ndarray, search: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the times of the envelopes' peaks within `search` s of the expected ones, and where there is one."""
    rate, n = rf.sampling_frequency, envelope.shape[-1]
    middle = (expected - rf.start_times[transmit][:, None]) * rate
    half = max(2, int(np.ceil(search * rate)))
    first = np.rint(middle).astype(int) - half
    inside = (first >= 1) & (first + 2 * half + 2 <= n)
    index = np.clip(first[:, :, None] + np.arange(2 * half + 1), 1, n - 2)
    element = np.arange(envelope.shape[1])[None, :]
    cut = envelope[transmit[:, None, None], element[..., None], index]
    top = np.take_along_axis(index, cut.argmax(axis=-1)[..., None], axis=-1)[..., 0]
    low, peak, high = (envelope[transmit[:, None], element, top + i] for i in (-1, 0, 1))
    bend = low - 2 * peak + high
    offset = np.where(bend < 0, 0.5 * (low - high) / np.where(bend < 0, bend, -1.0), 0.0)
    time = rf.start_times[transmit][:, None] + (top + np.clip(offset, -1, 1)) / rate
    clear = peak > CLEAR * np.median(envelope, axis=-1)[transmit[:, None], element]
    return time, inside & clear


def _fit_arrivals(
    acquisition: Acquisition,
    wire: np.ndarray,
    transmit: np.ndarray,
    picked: np.ndarray,
    sigma: np.ndarray,
    speed: float,
    later: float,
    x: np.ndarray,
    z: np.ndarray,
) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Speed of sound, delay of all echoes and positions that fit the times picked, weighted by sigma, from a start."""
    scale = speed / acquisition.probe.center_frequency  # m; times in periods
    period = 1 / acquisition.probe.center_frequency
    n = len(x)

    def unpack(p: np.ndarray) -> tuple[float, float, np.ndarray, np.ndarray]:
        return speed * np.exp(p[0]), later + p[1] * period, x + p[2 : 2 + n] * scale, z + p[2 + n :] * scale

    def misfit(p: np.ndarray) -> np.ndarray:
        c, t, wx, wz = unpack(p)
        off = (echo_times(acquisition, wx, wz, c)[transmit, wire] + t - picked) * sigma
        misfit: np.ndarray = off.ravel()
        return misfit

    start = np.zeros(2 + 2 * n)
    reach = np.r_[SPEED_RANGE, 40.0, np.full(2 * n, 10.0)]
    fitted = least_squares(
        misfit, start, bounds=(-reach, reach), loss="soft_l1", f_scale=0.1, x_scale="jac", max_nfev=15
    )
    return unpack(fitted.x)


def from_spectrum(model: Model, values: Values, x: np.ndarray, z: np.ndarray, names: tuple[str, ...]) -> Values:
    """Return the numbers with center frequency and bandwidth fitted to the echoes' spectrum, and the phase that is left."""
    views = model.views
    window = np.hanning(views.samples.shape[-1] + 2)[1:-1]
    fitted = [name for name in ("center_frequency", "bandwidth") if name in names]

    def level(signals: np.ndarray) -> np.ndarray:
        power = np.abs(np.fft.rfft(signals * window, 4 * len(window), axis=-1)) ** 2
        total = power.sum(axis=1)  # (n_views, n_frequencies)
        shape = np.sqrt(total)
        unit: np.ndarray = shape / np.linalg.norm(shape, axis=-1, keepdims=True)
        return unit

    recorded = level(views.samples)

    def misfit(p: np.ndarray) -> np.ndarray:
        misfit: np.ndarray = (
            level(model.echoes(values.put(dict(zip(fitted, p, strict=True))), x, z)) - recorded
        ).ravel()
        return misfit

    if fitted:
        low, high = (np.array(b) for b in zip(*(fitted_bounds(name) for name in fitted), strict=True))
        start = np.clip([values.get(name) for name in fitted], low, high)
        found = least_squares(misfit, start, bounds=(low, high), diff_step=1e-4, x_scale=0.1, max_nfev=12)
        values = values.put(dict(zip(fitted, found.x, strict=True)))
    if "pulse_phase" in names:
        analytic = hilbert(model.echoes(values, x, z), axis=-1)
        projected = np.zeros(views.n_wires, dtype=complex)
        np.add.at(projected, views.wire, (np.conj(analytic) * views.samples).sum(axis=(1, 2)))
        values = replace(values, pulse_phase=_common_phase(projected))
    return values


def _common_phase(projected: np.ndarray) -> float:
    """Return the phase that numbers have in common but for their signs, rad: of their sum where the signs agree."""
    total = projected.sum()
    if abs(total) > 0.9 * np.abs(projected).sum():
        return float(np.angle(total))
    return float(np.angle((projected**2).sum()) / 2)
