"""Layout of what the kernels read and write: constants, and tuples of arrays. No compiler is imported here.

Arrays of `cells` and `echoes` are flat float32, their layout given as [axes], the last axis 16 lanes. A complex number is
two vectors (real, imaginary) or, where a product follows, three (their sum as well: `simd.complex_outer`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LANES = 16
LINE = 64  # bytes of a cache line and of one vector
ROWS = 8  # rows of `complex_outer`: 3 x 8 sums, 3 vectors and 5 temporaries fill AVX-512's 32 registers
BATCH = 4  # frequencies a load of the recurrence's state
PAIR = 2 * LANES  # floats of a complex vector in two parts
TRIPLE = 3 * LANES  # and in three
STATE = 2 * PAIR  # floats of a recurrence: a complex vector, and what the next frequency adds to 1 in its factor
TILES = 2  # tiles of scatterers whose echoes are summed in registers at a time
WIDE = TILES * LANES
TABLE = 2048  # steps of the interpolation table; linear between them: weights to 1e-6
ROUNDING = 1.5 * 2**23  # added to a float32 below 2**22, it leaves the nearest whole number in the low bits
ROUNDING_BITS = 0x4B400000
GROUP = 8  # pixels interpolated before they are added up: their values stay close, the stores have landed
POINTS = 64  # points at once in the search for first arrivals


class Elements(NamedTuple):
    """The plan as the compiled functions take it; arrays and numbers float64."""

    sub_x: np.ndarray  # (n_elements, n_subelements) m
    sub_z: np.ndarray
    sine: np.ndarray  # (n_elements,) of the normal
    cosine: np.ndarray
    x: np.ndarray  # (n_elements,) m
    z: np.ndarray
    receive_fraction: np.ndarray  # (n_elements,) receive delay beyond whole samples, samples
    delays: np.ndarray  # (n_transmits, n_foci, n_elements) samples
    weights: np.ndarray  # (n_transmits, n_foci, n_elements)
    minimum_distance: float  # m
    baffle: float
    half_width_wavenumber: float  # k L / 2 at the center frequency
    half_width_per_hertz: float  # k L / 2 at 1 Hz
    speed_of_sound: float  # m/s
    attenuation_db_cm_mhz: float
    full_directivity: bool


class Cell(NamedTuple):
    """One cell, for the compiled functions."""

    points: np.ndarray  # (3, n_tiles * 16) float32: x and z from the center, reflectivity
    center: np.ndarray  # (2,) m
    element_reference: np.ndarray  # (n_elements,) samples
    transmit_reference: np.ndarray  # (n_transmits,) samples
    first_bin: int
    window_length: int
    rate: float  # Hz
    factor: np.ndarray  # (n_bins,) complex64: S B² and the scale


class Workspace(NamedTuple):
    """One thread's buffers."""

    waves: np.ndarray  # [tile][element][sub-element][re, im, step - 1 (re, im)]
    widths: np.ndarray  # [tile][element][sub-element]: k L / 2 sin θ a Hz, for full-frequency directivity only
    drive_waves: np.ndarray  # [focus][element][group][re, im, step - 1 (re, im)]
    drive: np.ndarray  # [frequency][element][3][group]: group and lane number the transmits
    field: np.ndarray  # [frequency][element][3][tile of two]
    pressure: np.ndarray  # [transmit][3]
    rows: np.ndarray  # [transmit in group][2]: the same in two parts
    source: np.ndarray  # [group][scatterer of two tiles][3]: lanes on transmits
    sums: np.ndarray  # [frequency][group][element][3], then [frequency][left-over transmit][element][3]


class Transmits(NamedTuple):
    """Some rows of the image as the transmits see them, for the compiled functions."""

    positions: np.ndarray  # (n_transmits, rows, nx) samples from the record's first to the wave's arrival
    phases: np.ndarray  # (n_transmits,) cycles
    weights: np.ndarray  # (n_transmits, rows, nx) float32, used if `weighted`
    weighted: bool
    compounding: int  # place in COMPOUNDINGS


class Pixels(NamedTuple):
    """Some rows of the image."""

    x: np.ndarray  # (rows, nx) m
    z: np.ndarray
    in_front: np.ndarray  # (rows, nx) bool, of the array
    tile_rows: int
    tile_columns: int


class Points(NamedTuple):
    """Some points in front of the array."""

    x: np.ndarray  # (n_points,) m
    z: np.ndarray


class Arrivals(NamedTuple):
    """Some points as the transmits see them."""

    positions: np.ndarray  # (n_transmits, n_points) samples from the record's first to the wave's arrival
    phases: np.ndarray  # (n_transmits,) cycles
    weights: np.ndarray  # (n_transmits, n_points) float32, used if `weighted`
    weighted: bool
    margin: float  # samples outside the record, from where on nothing is heard


class Taper(NamedTuple):
    """How elements of an aperture count: by weights of their own, and by a window (`beamforming.windows.Window`)."""

    used: bool  # otherwise all count alike
    gains: np.ndarray  # (n_elements,)
    double_f_number: float
    a0: float
    a1: float
    a2: float
    flat: float


class Aperture(NamedTuple):
    """The elements as they receive."""

    x: np.ndarray  # (n_elements,) m
    z: np.ndarray
    sine: np.ndarray  # of the normal
    cosine: np.ndarray
    delays: np.ndarray  # (n_elements,) s
    receiving: np.ndarray  # (n_transmits, n_elements) bool
    live: np.ndarray  # (n_elements,) share of the transmits that each receives
    cos_acceptance: float
    normalize: bool  # divide by the number of elements that see a pixel, or the sum of their weights
    taper: Taper


class Clock(NamedTuple):
    """Samples to meters and cycles, and the taps between samples."""

    speed_of_sound: float  # m/s
    sampling_frequency: float  # Hz
    frequency: float  # Hz, of demodulation
    first_tap: int  # samples from the one before
    table: np.ndarray  # (TABLE + 2, n_taps) weights over the fraction of a sample


def aligned_empty(n: int) -> np.ndarray:
    """(n,) float32 uninitialised, beginning on a cache line."""
    raw = np.empty(4 * n + LINE, dtype=np.uint8)
    skip = -raw.ctypes.data % LINE
    return raw[skip : skip + 4 * n].view(np.float32)
