"""The observation of a posterior sampler without an SVD: channel data y = H o + n on a grid, H that of the simulator.

H is `ussim.imaging_operator`: matrix-free, exact, with its exact transpose. y is real RF and not beamformed, so that white
noise of the channels stays white (B n, which DDRM takes for white, is not), and not demodulated: reflectivity is real, one
number a pixel, and IQ data would hold what RF does within the filter's band, their noise colored by that filter.

Noise is what H cannot explain: the channels' own, echoes from outside the grid, and what falls between pixels. Its standard
deviation is that of the residual of a least-squares fit, over time; y and H are divided by it (whitened), and both grow by
a margin, in which echoes from beyond the field find their place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import uniform_filter, uniform_filter1d

from ussim.acquisition import Acquisition
from ussim.arrays import to_numpy
from ussim.operator import ImagingOperator, imaging_operator
from ussim.types import ImageGrid, RFData

from .acoustics import EchoModel, echo_model
from .ddrm import BLOCK, block_levels

MARGIN = 1.4e-3  # m, of the grid beyond the field on each side
FIT_ITERATIONS = 8  # of conjugate gradients, of the fit whose residual is the noise
NOISE_WINDOW = 2e-6  # s, over which the noise is taken as even
LOWEST_NOISE = 0.03  # of the rms of the channel data there: points between pixels, and a record without noise
PEAK = 12.0  # brightest point over the reflectivity's scale, at most: what priors of `irsde drus-train` have seen

Solve = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class ChannelModel:
    """Whitened channel data and operator of one transmit.

    Attributes
    ----------
    field : ImageGrid
        What is asked for.
    grid : ImageGrid
        The field and its margin: what o lives on.
    inside : tuple of slice
        The field's rows and columns of the grid.
    data : np.ndarray
        (n_elements, n_samples) y over the noise.
    noise : np.ndarray
        (n_samples,) standard deviation of the noise, in the units of the recording.
    operator : ImagingOperator
        H, exact, not yet over the noise.
    delays : EchoModel
        H in delay form, a tenth of the time: within 2 to 10 % of it (`acoustics`).
    scale : float
        The reflectivity that priors know as 1.
    """

    field: ImageGrid
    grid: ImageGrid
    inside: tuple[slice, slice]
    data: np.ndarray
    noise: np.ndarray
    operator: ImagingOperator
    delays: EchoModel
    scale: float = 1.0

    def around(self, image: np.ndarray) -> np.ndarray:
        """Return an image (nz, nx) of the field with its edges drawn out over the margin."""
        rows, columns = self.inside
        if rows.start is None:
            return image
        beyond = [(s.start, n - s.stop) for s, n in zip((rows, columns), self.grid.shape, strict=True)]
        return np.pad(image, beyond, mode="edge")

    def forward(self, image: np.ndarray) -> np.ndarray:
        """Return H o over the noise, (n_elements, n_samples), of an image (nz, nx)."""
        return to_numpy(self.operator.forward(image).samples)[0] / self.noise

    def adjoint(self, data: np.ndarray) -> np.ndarray:
        """Return the transpose of `forward`, an image (nz, nx)."""
        return np.asarray(self.operator.adjoint((data / self.noise)[None]))

    def quick_forward(self, image: np.ndarray) -> np.ndarray:
        """Return `forward` by the delay form."""
        return self.delays.forward(image) / self.noise

    def quick_adjoint(self, data: np.ndarray) -> np.ndarray:
        """Return the transpose of `quick_forward`."""
        return self.delays.adjoint(data / self.noise)


def channel_model(
    rf: RFData,
    grid: ImageGrid,
    engine: str = "auto",
    margin: float = MARGIN,
    noise_level: float | None = None,
    max_memory: float | None = None,
) -> ChannelModel:
    """Return the model of a recording of one transmit on a grid.

    Parameters
    ----------
    rf : RFData
        Of one transmit (`recordings.single`); a time gain is taken out.
    grid : ImageGrid
        Evenly spaced, in front of the array.
    engine : str
        Of H, as in `ussim.simulate`.
    margin : float
        Of the grid of o beyond the field, m, as far as there is room in front of the array.
    noise_level : float, optional
        Standard deviation of the noise over the rms of the channel data, the same at all times; None measures it.
    max_memory : float, optional
        As in `ussim.imaging_operator`.
    """
    rf = on_clock(rf)
    acquisition = replace(rf.acquisition, sampling_frequency=rf.sampling_frequency)
    wide, inside = _widened(grid, acquisition, margin)
    start, n = float(rf.start_times[0]), rf.samples.shape[-1]
    samples = to_numpy(rf.samples[0]).astype(np.float64)
    model = ChannelModel(
        field=grid,
        grid=wide,
        inside=inside,
        data=samples,
        noise=np.ones(n),
        operator=imaging_operator(acquisition, wide, engine, n, start, max_memory),
        delays=echo_model(acquisition, wide, 0, n, start),
    )
    rms = math.sqrt(float(np.mean(samples**2))) or 1.0
    noise = np.full(n, rms * noise_level) if noise_level else _noise(model, rms)
    return replace(model, data=samples / noise, noise=noise, scale=_scale(model.delays, samples, inside))


def on_clock(rf: RFData) -> RFData:
    """Return the record from time 0 at the earliest, on multiples of the sampling period: what the operator's record is on.

    Samples in between are those of the band-limited signal.
    """
    rate = rf.sampling_frequency
    start = float(rf.start_times[0]) * rate
    first = max(0, math.ceil(start - 1e-9))
    samples = to_numpy(rf.samples)
    shift = first - start
    if abs(shift - round(shift)) > 1e-6:
        n = samples.shape[-1]
        padded = np.fft.rfft(samples, 2 * n, axis=-1)
        turned = padded * np.exp(2j * np.pi * np.fft.rfftfreq(2 * n) * (shift % 1))
        samples = np.fft.irfft(turned, 2 * n, axis=-1)[..., :n]
    samples = samples[..., math.floor(shift + 1e-6) :]
    if samples.shape[-1] < 2:
        raise ValueError(f"rf: expected echoes after time 0, got a record that ends at {rf.start_times[0]:g} s")
    return RFData(samples.astype(np.float32), rf.acquisition, rate, first / rate)


def conjugate_gradients(apply: Solve, b: np.ndarray, iterations: int, tolerance: float) -> tuple[np.ndarray, float]:
    """Return x with M x = b to a residual of rms `tolerance`, or after so many iterations, and that rms.

    M is symmetric and positive definite, of the shape of `b`; the start is 0 (Hestenes & Stiefel 1952).
    """
    x, residual = np.zeros_like(b), b.copy()
    direction, power = b.copy(), float(np.vdot(b, b))
    for _ in range(iterations):
        if power <= tolerance**2 * b.size:
            break
        answer = apply(direction)
        step = power / float(np.vdot(direction, answer))
        x += step * direction
        residual -= step * answer
        before, power = power, float(np.vdot(residual, residual))
        direction = residual + power / before * direction
    return x, math.sqrt(power / b.size)


def _widened(grid: ImageGrid, acquisition: Acquisition, margin: float) -> tuple[ImageGrid, tuple[slice, slice]]:
    """Return the grid with its margin, and where the field is in it."""
    axes, inside = [], []
    for axis, lowest in ((grid.z, 0.5 * float(grid.z[0])), (grid.x, -math.inf)):
        step = float(axis[1] - axis[0])
        after = max(0, round(margin / step))
        before = min(after, max(0, math.floor((axis[0] - lowest) / step))) if math.isfinite(lowest) else after
        axes.append(axis[0] + step * np.arange(-before, len(axis) + after))
        inside.append(slice(before, before + len(axis)))
    wide = ImageGrid(x=axes[1], z=axes[0])
    x, z = wide.mesh()
    if acquisition.probe.is_behind(x, z).any():  # a curved array: its corners lie deeper than its middle
        return grid, (slice(None), slice(None))
    return wide, (inside[0], inside[1])


def _noise(model: ChannelModel, rms: float) -> np.ndarray:
    """Return (n_samples,) the rms over the elements of what a least-squares fit leaves, evened over time."""
    ridge = 0.01 * float(model.delays.pixel_energy.mean())
    b = model.delays.adjoint(model.data)

    def normal(image: np.ndarray) -> np.ndarray:
        return model.delays.adjoint(model.delays.forward(image)) + ridge * image

    found, _ = conjugate_gradients(normal, b, FIT_ITERATIONS, 0.0)
    left = model.data - model.forward(found)
    window = max(3, round(NOISE_WINDOW * model.delays.acquisition.sampling_frequency))
    power, loud = (uniform_filter1d(np.mean(a**2, axis=0), window) for a in (left, model.data))
    return np.sqrt(np.maximum(power, (LOWEST_NOISE**2) * np.maximum(loud, 0.01 * rms**2)))


def _scale(delays: EchoModel, samples: np.ndarray, inside: tuple[slice, slice]) -> float:
    """Return the standard deviation of the reflectivity where the image is bright, or a point's over `PEAK` if that is more.

    From the matched filter H' y over the energy of each pixel's echo: of a lone point its reflectivity, of tissue as many
    times its own as a resolution cell has pixels, to the root.
    """
    energy = delays.pixel_energy
    heard = energy > 1e-3 * energy.max()
    safe = np.where(heard, energy, 1.0)

    def matched(data: np.ndarray) -> np.ndarray:
        return np.where(heard, delays.adjoint(data) / safe, 0.0)[inside]

    found = matched(samples)
    if not found.any():
        return 1.0
    white = np.random.default_rng(0).standard_normal((2, *energy.shape))
    tissue = np.sqrt(uniform_filter(np.mean([matched(delays.forward(w)) ** 2 for w in white], axis=0), BLOCK))
    levels = block_levels(found / np.maximum(tissue, 0.05 * tissue.max()), lambda b: np.sqrt(np.mean(b**2, axis=-1)))
    return max(float(np.quantile(levels, 0.9)), float(levels.max()) / 4, float(np.abs(found).max()) / PEAK)
