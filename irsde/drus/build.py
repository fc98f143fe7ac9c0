"""From an acquisition and a grid to an operator: which kind, and its factors kept on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ussim.acquisition import Acquisition
from ussim.types import ImageGrid

from . import acoustics
from .cache import cached, digest
from .operators import (
    DenseOperator,
    IdentityOperator,
    PatchwiseOperator,
    SeparableOperator,
    SpectralOperator,
    nearest_kronecker,
    patch_corners,
    section_iii,
)

KINDS = ("separable", "kronecker", "dense", "patchwise", "identity")
DENSE_LIMIT = 96 * 96  # pixels; SVD of 9216 x 9216 takes minutes and 1 GB
PATCH_SHAPE = (64, 32)  # px, (z, x): a pulse is about 20 px long
CACHE_FORMAT = 4  # raise it when the model in `acoustics` changes: older files are then not used

logger = logging.getLogger(__name__)
MakeModel = Callable[[], acoustics.EchoModel]  # made when a factor is not on disk


def operator(
    acquisition: Acquisition | None,
    grid: ImageGrid,
    kind: str = "separable",
    *,
    transmit: int = 0,
    f_number: float = acoustics.F_NUMBER,
    patch_shape: tuple[int, int] = PATCH_SHAPE,
    max_pixels: int = DENSE_LIMIT,
    max_memory: float = 2e9,
    progress: Callable[[int, int], None] | None = None,
    **kernel: Any,
) -> SpectralOperator:
    """Return the operator of one transmit on the grid.

    Parameters
    ----------
    kind
        "separable": the kernels of the numerical study, in pixels, whatever the acquisition (None will do); `kernel` takes
        `taps`, `sigma`, `threshold`, `relative`, `sum_normalized`. "kronecker": the nearest Kronecker product of the real
        BH, its residual in `relative_residual`. "dense": BH itself, at most `max_pixels`. "patchwise": BH itself on
        patches of `patch_shape` pixels, half overlapping, the residual measured on 64 columns. "identity": no operator.
    f_number
        Of the receive aperture of B.
    progress
        Called with (patches done, patches).

    Raises
    ------
    ValueError
        Unknown kind, too many pixels for it, or a grid behind the array.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    if kind == "identity":
        return IdentityOperator(grid.shape)
    if kind == "separable":
        return section_iii(grid.shape, **kernel)
    if kernel:
        raise ValueError(f"kind {kind!r} takes no kernel options, got {', '.join(kernel)}")
    if acquisition is None:
        raise ValueError(f"kind {kind!r} needs an acquisition, got None")
    if not 0 <= transmit < acquisition.n_transmits:
        raise ValueError(f"transmit: expected 0..{acquisition.n_transmits - 1}, got {transmit}")
    key = acquisition_digest(acquisition, grid, transmit, f_number)

    def model() -> acoustics.EchoModel:
        return acoustics.echo_model(acquisition, grid, transmit, f_number=f_number)

    if kind == "dense":
        return _dense(model, grid, max_pixels, key)
    if kind == "kronecker":
        return _kronecker(model, max_memory, key)
    return _patchwise(model, grid, patch_shape, key, progress)


def acquisition_digest(
    acquisition: Acquisition, grid: ImageGrid, transmit: int = 0, f_number: float = acoustics.F_NUMBER
) -> str:
    """Return what BH depends on, as one name.

    The acquisition's key, less what the other transmits and a probe's name are.
    """
    probe = replace(acquisition.probe, name="any", imaging=None, source="", path="")
    alone = replace(acoustics.of_transmit(acquisition, transmit), probe=probe)
    return digest(CACHE_FORMAT, alone.key(), grid.x, grid.z, float(f_number))


def _dense(model: MakeModel, grid: ImageGrid, max_pixels: int, key: str) -> DenseOperator:
    n = grid.shape[0] * grid.shape[1]
    if n > max_pixels:
        raise ValueError(
            f'kind "dense": expected at most {max_pixels} pixels, got {grid.shape[0]} x {grid.shape[1]} = {n}. '
            'Use kind="patchwise" or "kronecker", or raise max_pixels'
        )

    def compute() -> dict[str, np.ndarray]:
        pixels = np.arange(n)
        u, s, vt = np.linalg.svd(model().matrix(pixels, pixels))
        return {"u": u, "s": s, "vt": vt}

    factors = cached(f"dense-{key}", compute)
    return DenseOperator(grid.shape, factors["u"], factors["s"], factors["vt"])


def _kronecker(model: MakeModel, max_memory: float, key: str) -> SeparableOperator:
    def compute() -> dict[str, np.ndarray]:
        tensor, outside = model().banded(max_memory)
        nz, bands_z, nx, bands_x = tensor.shape
        axial, lateral, residual = nearest_kronecker(tensor.reshape(nz * bands_z, nx * bands_x))
        return {
            "axial": _from_bands(axial.reshape(nz, bands_z)),
            "lateral": _from_bands(lateral.reshape(nx, bands_x)),
            "residual": np.array(np.hypot(residual, outside)),
        }

    factors = cached(f"kronecker-{key}", compute)
    residual = float(factors["residual"])
    logger.info("nearest Kronecker product: relative residual %.1f %%", 100 * residual)
    return SeparableOperator(factors["axial"], factors["lateral"], relative_residual=residual)


def _patchwise(
    make_model: MakeModel,
    grid: ImageGrid,
    patch_shape: tuple[int, int],
    key: str,
    progress: Callable[[int, int], None] | None,
) -> PatchwiseOperator:
    height, width = (min(p, n) for p, n in zip(patch_shape, grid.shape, strict=True))
    if height * width > DENSE_LIMIT:
        raise ValueError(f"patch_shape: expected at most {DENSE_LIMIT} pixels, got {height} x {width}")
    corners = patch_corners(grid.shape, (height, width))
    model: acoustics.EchoModel | None = None
    factors: dict[str, list[np.ndarray]] = {"u": [], "s": [], "vt": []}
    for done, (z, x) in enumerate(corners):
        pixels = (np.arange(z, z + height)[:, None] * grid.shape[1] + np.arange(x, x + width)).ravel()

        def compute(pixels: np.ndarray = pixels) -> dict[str, np.ndarray]:
            nonlocal model
            model = model or make_model()
            u, s, vt = np.linalg.svd(model.matrix(pixels, pixels))
            return {"u": u, "s": s, "vt": vt}

        patch = cached(f"patch-{key}-{z}-{x}-{height}x{width}", compute)
        for name, value in factors.items():
            value.append(patch[name])
        if progress is not None:
            progress(done + 1, len(corners))
    u, s, vt = (np.stack(factors[name]) for name in ("u", "s", "vt"))
    operator = PatchwiseOperator(grid.shape, corners, (height, width), u, s, vt)

    def measure() -> dict[str, np.ndarray]:
        exact = model or make_model()
        return {"residual": np.array(measure_residual(operator, exact))}

    operator.relative_residual = float(cached(f"patch-residual-{key}-{height}x{width}", measure)["residual"])
    return operator


def _from_bands(bands: np.ndarray) -> np.ndarray:
    """(n, n) matrix from its rows' entries about the diagonal (n, 2 b + 1)."""
    n, half = len(bands), bands.shape[1] // 2
    matrix = np.zeros((n, n))
    for offset in range(-half, half + 1):
        rows = np.arange(max(0, -offset), min(n, n - offset))
        matrix[rows, rows + offset] = bands[rows, offset + half]
    return matrix


def measure_residual(
    operator: SpectralOperator, model: acoustics.EchoModel, n_columns: int = 64, seed: int = 0
) -> float:
    """‖M - BH‖ / ‖BH‖ over randomly chosen columns: the response to single pixels, exact BH against the operator's."""
    import torch

    n = model.n_pixels
    columns = np.sort(np.random.default_rng(seed).choice(n, min(n_columns, n), replace=False))
    exact = model.matrix(np.arange(n), columns).T
    points = np.zeros((len(columns), n), dtype=np.float32)
    points[np.arange(len(columns)), columns] = 1
    images = torch.as_tensor(points.reshape(-1, *model.grid.shape)).to(operator.singular_values.dtype)
    answer = operator.apply(images).numpy().reshape(len(columns), n)
    return float(np.linalg.norm(answer - exact) / np.linalg.norm(exact))
