"""Beamforming on a graphics card: what `beamform.cu` needs, in float64 NumPy, and the launches."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import numpy as np

from ...arrivals import ArrivalBounds
from ...beamforming.grids import AnyGrid
from ...plan import FILTER_EDGE, FILTER_ORDER, Beamforming, FilterLaw
from ...types import ImageGrid
from . import structs
from .backend import Backend

THREADS = 128
TILE_COLUMNS, TILE_ROWS = 32, THREADS // 32  # pixels of a block
TABLE = 2048
MAX_TRANSMITS = 16  # sums in registers; more transmits go in groups
MAX_SUMS = 32  # complex, in registers
FOR_AN_ELEMENT, FOR_A_CHANNEL, FOR_A_FRAME = 70, 8, 12  # instructions of `delay_and_sum`, about (benchmarks/sass.py)
LARGEST_GROUP = 2**29  # samples of the transmits of a thread: 32 bits count them
FARTHEST = 2.0**29  # samples, of a transmit's arrival: the kernel adds to it
COARSE = 2.0**22  # coarse positions are multiples of 1 / COARSE m
KEPT_GRIDS = 4
COSTLY_DOUBLE = 32  # operations of float32 in the time of one of float64: above the 15 of a pair of float32
COMPOUNDINGS = ("coherent", "incoherent", "none")  # as COMPOUNDING of beamform.cu counts them
FILTER = {"FILTER_ORDER": FILTER_ORDER, "FILTER_EDGE": FILTER_EDGE}
ANY_SIZES = FILTER | {
    "TRANSMITS": 1,
    "FRAMES": 1,
    "TAPS": 2,
    "LINEAR": 1,
    "IQ": 1,
    "MASKED": 0,
    "WEIGHTED": 0,
    "COMPOUNDING": 0,
    "POINTS": 0,
    "WINDOWED": 0,
    "COMPENSATED": 0,
}


def frames_at_once(n_frames: int, transmits: int) -> int:
    """Return the frames of a thread, at most as many as there are: those of the fewest instructions.

    What is made for a channel serves all its frames; the last ones of a number that does not divide are made twice.
    """
    sums = [n for n in (1, 2, 4, 8, 16) if n <= min(n_frames, max(2, MAX_SUMS // transmits))]
    channel = FOR_A_CHANNEL + FOR_AN_ELEMENT / transmits
    return min(sums, key=lambda n: (-(-n_frames // n) * (channel + FOR_A_FRAME * n), -n), default=1)


class Beamformer:
    """Delay-and-sum, demodulation and first arrivals on a backend; tables of the last few grids are kept."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._grids: OrderedDict[Hashable, _GridTables] = OrderedDict()
        self._kept_weights: tuple[np.ndarray, Any] | None = None

    def delay_and_sum(self, samples: np.ndarray, beamforming: Beamforming) -> np.ndarray:
        """Images (..., nz, nx), complex64 or float32 as the samples (..., n_transmits, n_elements, n_samples) are."""
        xp, b = self.backend.array_module, beamforming
        complex_data = np.iscomplexobj(samples)
        data = xp.ascontiguousarray(self.backend.to_device(samples), np.complex64 if complex_data else np.float32)
        n_transmits, n_elements, n_samples = data.shape[-3:]
        n_frames = math.prod(data.shape[:-3])
        tables = self._tables(b, n_samples)
        most = min(MAX_TRANSMITS, max(1, LARGEST_GROUP // (n_elements * n_samples)))
        transmits = math.ceil(n_transmits / math.ceil(n_transmits / most))
        frames = frames_at_once(n_frames, transmits)
        linear = b.interpolation.n_taps == 2
        launch = self.backend.kernels(
            "beamform.cu",
            {
                **ANY_SIZES,
                "TRANSMITS": transmits,
                "FRAMES": frames,
                "TAPS": b.interpolation.n_taps,
                "LINEAR": int(linear),
                "IQ": int(complex_data),
                "MASKED": int(b.acquisition.receive_mask is not None),
                "WEIGHTED": int(b.weights is not None),
                "COMPOUNDING": COMPOUNDINGS.index(b.compounding),
                "POINTS": int(not isinstance(b.grid, ImageGrid)),
                "WINDOWED": int(b.is_windowed),
            },
        )
        nz, nx = b.rows_and_columns
        images = xp.zeros((n_frames, *b.image_shape), dtype=data.dtype)  # transmits without weight are not written
        launch(
            "delay_and_sum",
            (-(-nx // TILE_COLUMNS) * -(-nz // TILE_ROWS), -(-n_frames // frames)),
            THREADS,
            data,
            *tables.arrays,
            self._weights(b),
            np.int32(n_frames),
            np.int32(n_transmits),
            np.int32(n_elements),
            np.int32(n_samples),
            np.int32(nx),
            np.int32(nz),
            np.int32(b.interpolation.first_tap),
            np.int32(b.normalize),
            images,
        )
        if b.progress is not None:
            self.backend.mark()()
            b.progress(1, 1)
        images = images.reshape(*data.shape[:-3], *b.image_shape)
        result: np.ndarray = images if b.has_phase else xp.ascontiguousarray(images.real)
        return result

    def mix_and_filter(self, samples: np.ndarray, law: FilterLaw) -> np.ndarray:
        """filtfilt(samples x carrier): (..., n_samples) real -> complex64."""
        xp = self.backend.array_module
        data = xp.ascontiguousarray(self.backend.to_device(samples), np.float32)
        n_samples = data.shape[-1]
        n_channels = math.prod(data.shape[:-1])
        out: np.ndarray = xp.empty(data.shape, dtype=np.complex64)
        order = len(law.denominator) - 1
        rows = law.numerator, law.denominator, law.steady
        padded = (np.pad(np.asarray(row, np.float64), (0, FILTER_ORDER - order)) for row in rows)
        sizes = ANY_SIZES | {"COMPENSATED": int(self.backend.double_cost >= COSTLY_DOUBLE)}
        self.backend.kernels("beamform.cu", sizes)(
            "mix_and_filter",
            (-(-n_channels // THREADS),),
            THREADS,
            data,
            self.backend.to_device(np.asarray(law.carrier, np.complex64)),
            *(self.backend.to_device(row) for row in padded),
            np.int64(n_channels),
            np.int32(n_samples),
            np.int32(law.edge),
            out,
        )
        return out

    def arrival_bounds(
        self,
        x: np.ndarray,
        z: np.ndarray,
        source_x: np.ndarray,
        source_z: np.ndarray,
        delays: np.ndarray,
        speed_of_sound: float,
        with_last: bool = True,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """First and last arrival (n_laws, n_points) float64 s at points, in host memory."""
        xp = self.backend.array_module
        first, last = (xp.empty((len(delays), len(x)), dtype=np.float64) for _ in range(2))
        self.backend.kernels("beamform.cu", ANY_SIZES)(
            "arrival_bounds",
            (min(-(-len(x) // THREADS), 65535),),
            THREADS,
            *(self.backend.to_device(np.asarray(a, np.float64)) for a in (x, z, source_x, source_z, delays)),
            np.int32(len(x)),
            np.int32(len(source_x)),
            np.int32(len(delays)),
            np.float64(1 / speed_of_sound),
            first,
            last,
        )
        return self.backend.to_host(first), self.backend.to_host(last) if with_last else None

    def _weights(self, b: Beamforming) -> Any:
        """Return the transmit weights on the device: the last ones stay there if nobody can write to them."""
        if b.weights is None:
            return self.backend.to_device(np.zeros(1, np.float32))
        if b.weights.flags.writeable:
            return self.backend.to_device(b.weights)
        if self._kept_weights is None or self._kept_weights[0] is not b.weights:
            self._kept_weights = b.weights, self.backend.to_device(b.weights)
        return self._kept_weights[1]

    def _tables(self, b: Beamforming, n_samples: int) -> _GridTables:
        key = (
            b.acquisition.key(),
            type(b.grid),
            *(axis.tobytes() for axis in _axes(b.grid)),
            b.speed_of_sound,
            b.sampling_frequency,
            b.start_time.tobytes(),
            n_samples,
            b.demodulation_frequency,
            b.f_number,
            b.window,
            None if b.gains is None else b.gains.tobytes(),
            b.interpolation.n_taps,
            b.interpolation.first_tap,
            b.interpolation.shift,
        )
        if key not in self._grids:
            self._grids[key] = _GridTables(self.backend, b, n_samples, self.arrival_bounds)
        self._grids.move_to_end(key)
        while len(self._grids) > KEPT_GRIDS:
            self._grids.popitem(last=False)
        return self._grids[key]


class _GridTables:
    """Tables that delay-and-sum reads beside the samples, on the device, in the order of the kernel's arguments."""

    def __init__(self, backend: Backend, b: Beamforming, n_samples: int, arrival_bounds: ArrivalBounds) -> None:
        probe = b.acquisition.probe
        x, z = (axis.reshape(b.rows_and_columns) for axis in b.grid.mesh())
        index = b.transmit_samples(x, z, n_samples, arrival_bounds)
        whole = np.floor(index)
        receive_delay = b.receive_delays * b.sampling_frequency
        angle = probe.element_angle
        elements = structs.table(
            structs.ELEMENT,
            at=_positions(probe.element_x, probe.element_z),
            sine=np.sin(angle),
            cosine=np.cos(angle),
            delay=np.rint(receive_delay),
            delay_rest=receive_delay - np.rint(receive_delay),
        )
        samples_per_meter, samples_per_metre_rest = _rounded(b.sampling_frequency / b.speed_of_sound)
        cycles_per_sample, cycles_per_sample_rest = _rounded(b.demodulation_frequency / b.sampling_frequency)
        das = structs.table(
            structs.DAS,
            samples_per_meter=samples_per_meter,
            samples_per_metre_rest=samples_per_metre_rest,
            cycles_per_sample=cycles_per_sample,
            cycles_per_sample_rest=cycles_per_sample_rest,
            cos_acceptance=b.cos_acceptance,
            double_f_number=2 * b.f_number,
            **b.window._asdict(),
        )
        fraction = np.arange(TABLE + 2) / TABLE
        tables = (
            *(structs.plain(table) for table in _places(b.grid)),
            (~probe.is_behind(x, z)).astype(np.uint8),
            np.clip(whole, -FARTHEST, FARTHEST).astype(np.int32),
            (index - whole).astype(np.float32),
            b.transmit_phases.astype(np.float32),
            structs.plain(elements),
            b.interpolation.weights(fraction).astype(np.float32),
            structs.plain(das),
            b.acquisition.receiving.astype(np.uint8),
            b.live.astype(np.float32),
            b.element_gains.astype(np.float32),
        )
        self.arrays = tuple(backend.to_device(table) for table in tables)


def _axes(grid: AnyGrid) -> tuple[np.ndarray, np.ndarray]:
    """Return x and z of columns and rows, or of all points where those are not lines of the axes."""
    return (grid.x, grid.z) if isinstance(grid, ImageGrid) else grid.mesh()


def _places(grid: AnyGrid) -> tuple[np.ndarray, np.ndarray]:
    """Return `Position`s of columns and of rows, or of all points in the place of the first."""
    x, z = (axis.ravel() for axis in _axes(grid))
    if isinstance(grid, ImageGrid):
        return _positions(x, np.zeros(len(x))), _positions(np.zeros(len(z)), z)
    return _positions(x, z), _positions(np.zeros(1), np.zeros(1))


def _positions(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return (n,) structs `Position`."""
    (x, x_rest), (z, z_rest) = _split(x), _split(z)
    return structs.table(structs.POSITION, x=x, x_rest=x_rest, z=z, z_rest=z_rest)


def _rounded(value: float) -> tuple[float, float]:
    """Return a number as float32 rounds it, and the rest."""
    rounded = float(np.float32(value))
    return rounded, value - rounded


def _split(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coarse positions, whose differences are exact in float32, and the rest."""
    coarse = np.rint(position * COARSE) / COARSE
    return coarse, position - coarse
