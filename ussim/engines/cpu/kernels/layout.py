"""Layout of what the kernels read and write: constants, types of arguments, tuples of them. No compiler is imported here.

Arrays of `cells` and `echoes` are flat float32, their layout given as [axes], the last axis 16 lanes. A complex number is
two vectors (real, imaginary) or, where a product follows, three (their sum as well: `simd.complex_outer`).
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np

LANES = 16
LINE = 64  # bytes of a cache line and of one vector
ROWS = 8  # rows of `complex_outer`: 3 x 8 sums, 3 vectors and 5 temporaries fill AVX-512's 32 registers
NARROW_SUMS = 6  # of these sums at once where each takes two of AVX2's 16 registers, or four of 64-bit Arm's 32
BATCH = 4  # frequencies a load of the recurrence's state
PAIR = 2 * LANES  # floats of a complex vector in two parts
TRIPLE = 3 * LANES  # and in three
STATE = 2 * PAIR  # floats of a recurrence: a complex vector, and what the next frequency adds to 1 in its factor
NODE = 2 * PAIR  # floats of the beam in elevation at one frequency: itself and its slope, complex
BEAM = LANES + 3 * NODE  # of one segment of it: the inverse distance, and three nodes
LONGEST_SEGMENT = 64  # frequencies; lengths are multiples of BATCH
TILES = 2  # tiles of scatterers whose echoes are summed in registers at a time
WIDE = TILES * LANES
TABLE = 2048  # steps of the interpolation table; linear between them: weights to 1e-6
ROUNDING = 1.5 * 2**23  # added to a float32 below 2**22, it leaves the nearest whole number in the low bits
ROUNDING_BITS = 0x4B400000
GROUP = 8  # pixels interpolated before they are added up: their values stay close, the stores have landed
POINTS = 64  # points at once in the search for first arrivals

# Arrays as kernels take them: C-contiguous, dtype and number of axes.
Boolx2 = Annotated[np.ndarray, "bool", 2]
Int64x1 = Annotated[np.ndarray, "int64", 1]
Int64x2 = Annotated[np.ndarray, "int64", 2]
Float32x1 = Annotated[np.ndarray, "float32", 1]
Float32x2 = Annotated[np.ndarray, "float32", 2]
Float32x3 = Annotated[np.ndarray, "float32", 3]
Float64x1 = Annotated[np.ndarray, "float64", 1]
Float64x2 = Annotated[np.ndarray, "float64", 2]
Float64x3 = Annotated[np.ndarray, "float64", 3]
Complex64x1 = Annotated[np.ndarray, "complex64", 1]
Complex64x2 = Annotated[np.ndarray, "complex64", 2]
Complex64x3 = Annotated[np.ndarray, "complex64", 3]
Complex128x1 = Annotated[np.ndarray, "complex128", 1]


class Elements(NamedTuple):
    """The plan as the compiled functions take it; arrays and numbers float64."""

    sub_x: Float64x2  # (n_elements, n_subelements) m
    sub_y: Float64x2  # of a matrix array
    sub_z: Float64x2
    sine: Float64x1  # (n_elements,) of the normal
    cosine: Float64x1
    x: Float64x1  # (n_elements,) m
    z: Float64x1
    receive_fraction: Float64x1  # (n_elements,) receive delay beyond whole samples, samples
    delays: Float64x3  # (n_transmits, n_foci, n_elements) samples
    weights: Float64x3  # (n_transmits, n_foci, n_elements)
    minimum_distance: float  # m
    baffle: float
    half_width_wavenumber: float  # k L / 2 at the center frequency
    half_width_per_hertz: float  # k L / 2 at 1 Hz
    half_height_wavenumber: float  # of a matrix array, whose sub-elements have a directivity along their height too
    half_height_per_hertz: float
    speed_of_sound: float  # m/s
    attenuation_db_cm_mhz: float
    full_directivity: bool
    elevated: bool  # in three dimensions, with the beam of the elements' height and lens
    matrix: bool  # in three dimensions, of a matrix array
    lens_height: float  # m
    lens_vergence: float  # 1/m, of the focus in elevation; 0 without a lens
    beam_weights: Float32x1  # [length of a segment][frequency in it][6] float32: `elevation.segment_weights`


class Cell(NamedTuple):
    """One cell, for the compiled functions."""

    points: (
        Float32x2  # (4, n_tiles * 16) float32: x and z from the center, reflectivity, y² less the center's; a matrix: y
    )
    center: Float64x1  # (3,) m: x, z, |y|; of a matrix array y
    element_reference: Int64x1  # (n_elements,) samples
    transmit_reference: Int64x1  # (n_transmits,) samples
    first_bin: int
    window_length: int
    rate: float  # Hz
    factor: Complex64x1  # (n_bins,) complex64: S B² and the scale
    segment: Int64x1  # (n_elements,) frequencies of a segment of the beam in elevation; (0,) in two dimensions


class Workspace(NamedTuple):
    """One thread's buffers."""

    waves: Float32x1  # [tile][element][sub-element][re, im, step - 1 (re, im)]
    # k L / 2 sin θ per Hz, [tile][element][sub-element], for full-frequency directivity only; of a matrix array in the first
    # half, the same of the heights in the second.
    widths: Float32x1
    lens: Float32x1  # [tile][element][1 / distance, three nodes]: the beam in elevation, in three dimensions only
    drive_waves: Float32x1  # [focus][element][group][re, im, step - 1 (re, im)]
    drive: Float32x1  # [frequency][element][3][group]: group and lane number the transmits
    field: Float32x1  # [frequency][element][3][tile of two]
    pressure: Float32x1  # [transmit][3]
    rows: Float32x1  # [transmit in group][2]: the same in two parts
    source: Float32x1  # [group][scatterer of two tiles][3]: lanes on transmits
    sums: Float32x1  # [frequency][group][element][3], then [frequency][left-over transmit][element][3]


class Transmits(NamedTuple):
    """Some rows of the image as the transmits see them, for the compiled functions."""

    positions: Float64x3  # (n_transmits, rows, nx) samples from the record's first to the wave's arrival
    phases: Float64x1  # (n_transmits,) cycles
    weights: Float32x3  # (n_transmits, rows, nx) float32, used if `weighted`
    weighted: bool
    compounding: int  # place in COMPOUNDINGS


class Pixels(NamedTuple):
    """Some rows of the image."""

    x: Float64x2  # (rows, nx) m
    z: Float64x2
    in_front: Boolx2  # (rows, nx) bool, of the array
    tile_rows: int
    tile_columns: int


class Points(NamedTuple):
    """Some points in front of the array."""

    x: Float64x1  # (n_points,) m
    z: Float64x1


class Arrivals(NamedTuple):
    """Some points as the transmits see them."""

    positions: Float64x2  # (n_transmits, n_points) samples from the record's first to the wave's arrival
    phases: Float64x1  # (n_transmits,) cycles
    weights: Float32x2  # (n_transmits, n_points) float32, used if `weighted`
    weighted: bool
    margin: float  # samples outside the record, from where on nothing is heard


class Taper(NamedTuple):
    """Weights of the elements of an aperture: of their own, and by a window (`beamforming.windows.Window`)."""

    used: bool  # otherwise all count alike
    gains: Float64x1  # (n_elements,)
    double_f_number: float
    a0: float
    a1: float
    a2: float
    flat: float


class Aperture(NamedTuple):
    """The elements as they receive."""

    x: Float64x1  # (n_elements,) m
    z: Float64x1
    sine: Float64x1  # of the normal
    cosine: Float64x1
    delays: Float64x1  # (n_elements,) s
    receiving: Boolx2  # (n_transmits, n_elements) bool
    live: Float64x1  # (n_elements,) share of the transmits that each receives
    cos_acceptance: float
    normalize: bool  # divide by the number of elements that see a pixel, or the sum of their weights
    taper: Taper


class Clock(NamedTuple):
    """Samples to meters and cycles, and the taps between samples."""

    speed_of_sound: float  # m/s
    sampling_frequency: float  # Hz
    frequency: float  # Hz, of demodulation
    first_tap: int  # samples from the one before
    table: Float32x2  # (TABLE + 2, n_taps) weights over the fraction of a sample


def aligned_empty(n: int) -> np.ndarray:
    """(n,) float32 uninitialised, beginning on a cache line."""
    raw = np.empty(4 * n + LINE, dtype=np.uint8)
    skip = -raw.ctypes.data % LINE
    return raw[skip : skip + 4 * n].view(np.float32)
