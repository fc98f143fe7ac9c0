"""The structs that the kernels read, as NumPy dtypes: one table has one row per struct, its fields by name.

A test holds each against its declaration in `simulate.cu` or `beamform.cu`.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def _struct(kind: type, names: str) -> np.dtype:
    return np.dtype([(name, kind) for name in names.split()])


BOX = np.dtype([*_struct(np.int32, "n first_bin n_bins start begin spectrum segment").descr, ("square_y", np.float32)])
SIGHT = _struct(np.float32, "dx dz distance offset")
PHYSICS = _struct(
    np.float32,
    "samples_per_meter minimum_distance baffle half_width_wavenumber half_width_per_cycle sub_width loss_per_cycle "
    "wavenumber_per_cycle lens_height lens_vergence",
)
POSITION = _struct(np.float32, "x x_rest z z_rest")
ELEMENT = np.dtype([("at", POSITION), *_struct(np.float32, "sine cosine delay delay_rest").descr])
DAS = _struct(
    np.float32,
    "samples_per_meter samples_per_metre_rest cycles_per_sample cycles_per_sample_rest cos_acceptance "
    "double_f_number a0 a1 a2 flat",
)


def table(struct: np.dtype, **fields: Any) -> np.ndarray:
    """Return a table of structs of the fields given, all of one shape; those not given are 0.

    Raises
    ------
    ValueError
        The struct has no such field.
    """
    rows = np.zeros(np.broadcast_shapes(*(np.shape(value) for value in fields.values())), struct)
    for name, value in fields.items():
        rows[name] = value
    return rows


def plain(rows: np.ndarray) -> np.ndarray:
    """Return a table of structs as numbers of the one type that its fields have, (..., numbers per struct), without a copy.

    CuPy has no structured arrays; the kernels read the same bytes.
    """
    base = np.int32 if rows.dtype == BOX else np.float32
    return np.ascontiguousarray(rows).view(base).reshape(*rows.shape, -1)
