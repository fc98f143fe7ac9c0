"""Kernels of the CPU engine as Python calls them: names, arguments and their types. Nothing is compiled or loaded on import.

Each is written for Numba, under the same name, in the module that its line names; `native` makes it run. docs/kernels.md
says what to do after an edit.
"""

from __future__ import annotations

from ..native.kernel import Kernel, kernel
from .layout import (
    Aperture,
    Arrivals,
    Cell,
    Clock,
    Complex64x1,
    Complex64x2,
    Complex64x3,
    Complex128x1,
    Elements,
    Float32x1,
    Float32x2,
    Float32x3,
    Float64x1,
    Float64x2,
    Int64x1,
    Int64x2,
    Pixels,
    Points,
    Transmits,
    Workspace,
)


@kernel("cells")
def cell_spectrum(elements: Elements, cell: Cell, space: Workspace, n_full: int, n_left: int, out: Float32x1) -> None:
    """Spectrum of a cell's echoes."""


@kernel("cells")
def cell_power(elements: Elements, cell: Cell, space: Workspace, out: Float32x1) -> None:
    """Power of the pressure at a cell's points."""


@kernel("cells")
def cell_adjoint(
    elements: Elements, cell: Cell, space: Workspace, back: Workspace, spectra: Float32x1, out: Float32x1
) -> None:
    """Projection of echoes on a cell's points."""


@kernel("echoes")
def add_cells(
    record: Float32x1,
    shape: tuple[int, int, int],
    part: tuple[int, int],
    spectra: Float32x1,
    spectrum_size: int,
    windows: Int64x2,
    transmit_at: Int64x2,
    element_at: Int64x2,
    twiddles: Float32x2,
    twiddles_at: Int64x1,
    x: Float32x1,
    y: Float32x1,
    rows: Float32x1,
) -> None:
    """Echoes of cells, added to the record."""


@kernel("echoes")
def take_echoes(
    record: Float32x1,
    shape: tuple[int, int, int],
    window: tuple[int, int, int, int],
    transmit_at: Int64x1,
    element_at: Int64x1,
    twiddles: Float32x2,
    x: Float32x1,
    y: Float32x1,
    rows: Float32x1,
    out: Float32x1,
) -> None:
    """Spectra of the record within a cell's window."""


@kernel("beamform")
def sum_tiles(
    samples: Float32x3,
    pixels: Pixels,
    transmits: Transmits,
    aperture: Aperture,
    clock: Clock,
    image: Complex64x3,
    watch: Int64x1,
    worker: int,
    n_workers: int,
) -> None:
    """Delay-and-sum of every n_workers-th tile."""


@kernel("beamform")
def extreme_arrivals(
    x: Float64x1,
    z: Float64x1,
    source_x: Float64x1,
    source_z: Float64x1,
    delays: Float64x2,
    slowness: float,
    sign: float,
    out: Float64x2,
    watch: Int64x1,
    worker: int,
    n_workers: int,
) -> None:
    """First or last arrivals at every n_workers-th chunk of points."""


@kernel("beamform")
def mix_and_filter(
    singles: Float32x2,
    doubles: Float64x2,
    carrier: Complex128x1,
    numerator: Float64x1,
    denominator: Float64x1,
    steady: Float64x1,
    edge: int,
    out: Complex64x2,
    watch: Int64x1,
    worker: int,
    n_workers: int,
) -> None:
    """Demodulation of every n_workers-th block of channels."""


@kernel("adaptive")
def align(
    samples: Float32x3,
    points: Points,
    transmits: Arrivals,
    aperture: Aperture,
    clock: Clock,
    shifts: Float64x1,
    channels: Complex64x3,
    counts: Float32x2,
    watch: Int64x1,
    worker: int,
    n_workers: int,
) -> None:
    """Channels delayed to every n_workers-th chunk of points."""


@kernel("adaptive")
def weigh_by_coherence(
    channels: Complex64x3,
    counts: Float32x2,
    scales: Float64x1,
    order: int,
    exponent: float,
    out: Complex64x1,
    watch: Int64x1,
    worker: int,
    n_workers: int,
) -> None:
    """Sum of channels times their coherence, at every n_workers-th point."""


@kernel("adaptive")
def multiply_pairs(
    channels: Complex64x3,
    counts: Float32x2,
    scales: Float64x1,
    out: Complex64x1,
    watch: Int64x1,
    worker: int,
    n_workers: int,
) -> None:
    """Delay, multiply and sum at every n_workers-th point."""


@kernel("adaptive")
def correlate_short_lags(
    channels: Complex64x3,
    counts: Float32x2,
    most: Int64x1,
    out: Complex64x1,
    watch: Int64x1,
    worker: int,
    n_workers: int,
) -> None:
    """Short-lag spatial coherence of every n_workers-th point."""


@kernel("adaptive")
def minimize_variance(
    channels: Complex64x3,
    counts: Float32x2,
    lengths: Int64x1,
    loading: float,
    times_n: bool,
    out: Complex64x1,
    watch: Int64x1,
    worker: int,
    n_workers: int,
) -> None:
    """Minimum variance of every n_workers-th point."""


KERNELS: tuple[Kernel[...], ...] = (
    cell_spectrum,
    cell_power,
    cell_adjoint,
    add_cells,
    take_echoes,
    sum_tiles,
    extreme_arrivals,
    mix_and_filter,
    align,
    weigh_by_coherence,
    multiply_pairs,
    correlate_short_lags,
    minimize_variance,
)
