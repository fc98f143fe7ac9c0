"""Linear operators in their singular basis: what the DDRM sampler needs of the imaging model B y = B H o + B n.

An operator M = U S Vᵀ maps an image to an image of the same shape; every method takes a stack (..., nz, nx) of torch
tensors. Four kinds: `SeparableOperator` (axial x lateral: the kernels of section III, or the nearest Kronecker product of
a real BH), `DenseOperator` (any matrix, exact), `PatchwiseOperator` (dense patches, blended where they overlap) and
`IdentityOperator` (denoising only). How the matrices come from an acquisition is `acoustics`' business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

SECTION_III_SIGMA = 1.2  # px, of the kernels of the numerical study (0.1694 mm on the paper's grid)
SECTION_III_THRESHOLD = 0.03  # singular values of an axis below this are taken as zero


class SpectralOperator(Protocol):
    """M = U S Vᵀ. Spectral arrays have the shape of `singular_values`; images are (..., nz, nx)."""

    shape: tuple[int, int]  # (nz, nx)
    singular_values: torch.Tensor
    relative_residual: float  # ‖M - BH‖ / ‖BH‖ in the Frobenius norm; 0 where M is the model itself

    def V(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Return the image V s of a spectrum."""

    def Vt(self, image: torch.Tensor) -> torch.Tensor:
        """Return the spectrum V' x of an image."""

    def U(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Return the observation U s of a spectrum."""

    def Ut(self, image: torch.Tensor) -> torch.Tensor:
        """Return the spectrum U' y of an observation."""

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """Return H x = U S V' x."""

    def to(self, device: str | torch.device) -> SpectralOperator:
        """Return the operator on a device."""


class _Operator:
    """Base of all kinds: M = U S Vᵀ by its factors, and moving to a device."""

    shape: tuple[int, int]
    singular_values: torch.Tensor
    relative_residual: float = 0.0

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """M x."""
        return self.U(self.singular_values * self.Vt(image))  # type: ignore[attr-defined]

    def to(self, device: str | torch.device) -> Any:
        """Return the same operator with its factors on `device`."""
        moved = object.__new__(type(self))
        moved.__dict__.update(
            {k: v.to(device) if isinstance(v, torch.Tensor | _Operator) else v for k, v in self.__dict__.items()}
        )
        return moved


class IdentityOperator(_Operator):
    """M = I: plain denoising (the DENO baseline)."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.singular_values = torch.ones(shape)

    def V(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Return the image V s of a spectrum."""
        return spectrum

    Vt = U = Ut = V


class SeparableOperator(_Operator):
    """M X = A X Cᵀ: `axial` A (nz, nz) acts on columns, `lateral` C (nx, nx) on rows. Two small SVDs, exact.

    `threshold` sets to zero the singular values of an axis below it: relative to the axis's largest, or absolute when
    `relative` is False (as the reference does, where the gain of a kernel then decides what is cut).
    """

    def __init__(
        self,
        axial: np.ndarray,
        lateral: np.ndarray,
        threshold: float = 0.0,
        relative: bool = True,
        relative_residual: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if (
            axial.ndim != 2
            or axial.shape[0] != axial.shape[1]
            or lateral.ndim != 2
            or lateral.shape[0] != lateral.shape[1]
        ):
            raise ValueError(f"expected square axial and lateral matrices, got {axial.shape} and {lateral.shape}")
        self.shape = (axial.shape[0], lateral.shape[0])
        self.relative_residual = relative_residual
        factors = []
        for matrix in (axial, lateral):
            u, s, vt = np.linalg.svd(np.asarray(matrix, dtype=np.float64))
            s[s < threshold * (s[0] if relative else 1.0)] = 0.0
            factors.append([torch.as_tensor(np.ascontiguousarray(f), dtype=dtype) for f in (u, s, vt)])
        (self.axial_u, axial_s, self.axial_vt), (self.lateral_u, lateral_s, self.lateral_vt) = factors
        self.singular_values = torch.outer(axial_s, lateral_s)

    def V(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Return the image V s of a spectrum."""
        return self.axial_vt.T @ spectrum @ self.lateral_vt

    def Vt(self, image: torch.Tensor) -> torch.Tensor:
        """Return the spectrum V' x of an image."""
        return self.axial_vt @ image @ self.lateral_vt.T

    def U(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Return the observation U s of a spectrum."""
        return self.axial_u @ spectrum @ self.lateral_u.T

    def Ut(self, image: torch.Tensor) -> torch.Tensor:
        """Return the spectrum U' y of an observation."""
        return self.axial_u.T @ image @ self.lateral_u


class DenseOperator(_Operator):
    """Any matrix (nz nx, nz nx) over images flattened row by row (x fastest), by its full SVD. Exact, and large."""

    def __init__(
        self,
        shape: tuple[int, int],
        u: np.ndarray,
        s: np.ndarray,
        vt: np.ndarray,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        n = shape[0] * shape[1]
        if u.shape != (n, n) or vt.shape != (n, n) or s.shape != (n,):
            raise ValueError(f"expected U ({n}, {n}), S ({n},), Vt ({n}, {n}), got {u.shape}, {s.shape}, {vt.shape}")
        self.shape = shape
        self.u, self.singular_values, self.vt = (torch.as_tensor(f, dtype=dtype) for f in (u, s, vt))

    @classmethod
    def from_matrix(
        cls, matrix: np.ndarray, shape: tuple[int, int], dtype: torch.dtype = torch.float32
    ) -> DenseOperator:
        """Decompose a matrix."""
        return cls(shape, *np.linalg.svd(matrix), dtype=dtype)

    def V(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Return the image V s of a spectrum."""
        return self._image(spectrum @ self.vt)

    def Vt(self, image: torch.Tensor) -> torch.Tensor:
        """Return the spectrum V' x of an image."""
        return image.flatten(-2) @ self.vt.T

    def U(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Return the observation U s of a spectrum."""
        return self._image(spectrum @ self.u.T)

    def Ut(self, image: torch.Tensor) -> torch.Tensor:
        """Return the spectrum U' y of an observation."""
        return image.flatten(-2) @ self.u

    def _image(self, flat: torch.Tensor) -> torch.Tensor:
        return flat.reshape(*flat.shape[:-1], *self.shape)


class PatchwiseOperator(_Operator):
    """Dense operators on overlapping patches of one size, blended with weights that fall to zero at inner patch edges.

    Vᵀ and Uᵀ analyse every patch; V and U synthesise by weighted overlap-add, the weights summing to one, so V Vᵀ = I on
    images and M is the blend of the patches' own matrices. Noise drawn as an image and analysed by Vᵀ is the same noise in
    all patches: the seams of one sample agree.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        corners: Sequence[tuple[int, int]],
        patch_shape: tuple[int, int],
        u: np.ndarray,
        s: np.ndarray,
        vt: np.ndarray,
        relative_residual: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.shape, self.patch_shape, self.relative_residual = shape, patch_shape, relative_residual
        self.corners = list(corners)
        self.u, self.singular_values, self.vt = (torch.as_tensor(f, dtype=dtype) for f in (u, s, vt))
        self.weights = torch.as_tensor(blend_weights(shape, corners, patch_shape), dtype=dtype)

    def V(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Return the image V s of a spectrum."""
        return self._blend(torch.einsum("...pk,pkn->...pn", spectrum, self.vt))

    def Vt(self, image: torch.Tensor) -> torch.Tensor:
        """Return the spectrum V' x of an image."""
        return torch.einsum("pkn,...pn->...pk", self.vt, self._cut(image))

    def U(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Return the observation U s of a spectrum."""
        return self._blend(torch.einsum("pnk,...pk->...pn", self.u, spectrum))

    def Ut(self, image: torch.Tensor) -> torch.Tensor:
        """Return the spectrum U' y of an observation."""
        return torch.einsum("pnk,...pn->...pk", self.u, self._cut(image))

    def _cut(self, image: torch.Tensor) -> torch.Tensor:
        height, width = self.patch_shape
        patches = [image[..., z : z + height, x : x + width].flatten(-2) for z, x in self.corners]
        return torch.stack(patches, dim=-2)

    def _blend(self, patches: torch.Tensor) -> torch.Tensor:
        height, width = self.patch_shape
        image = patches.new_zeros(*patches.shape[:-2], *self.shape)
        weighted = patches.reshape(*patches.shape[:-1], height, width) * self.weights
        for i, (z, x) in enumerate(self.corners):
            image[..., z : z + height, x : x + width] += weighted[..., i, :, :]
        return image


def section_iii(
    shape: tuple[int, int],
    taps: int = 7,
    sigma: float = SECTION_III_SIGMA,
    threshold: float = SECTION_III_THRESHOLD,
    relative: bool = True,
    sum_normalized: bool = True,
) -> SeparableOperator:
    """Return the kernels of the numerical study.

    Lateral Gaussian, axial Gaussian on a carrier at the grid's Nyquist frequency.

    Zero-padded Toeplitz matrices of 7 taps; `taps=6` drops the last one, as the authors' code does. Each kernel is divided
    by its sum (`sum_normalized`), which for the axial one is -0.0025: a gain of about 1200 that cancels in the noise
    level but not in an absolute threshold (`relative=False` reproduces that).
    """
    if taps not in (6, 7):
        raise ValueError(f"taps: expected 7 (the paper) or 6 (its code), got {taps!r}")
    offsets = np.arange(-3, 4)
    lateral = np.exp(-(offsets**2) / (2 * sigma**2))
    axial = np.cos(np.pi * offsets) * lateral
    if sum_normalized:
        lateral, axial = lateral / lateral.sum(), axial / axial.sum()
    matrices = [
        np.sum([np.diag(np.full(n - abs(k), kernel[k + 3]), k) for k in range(-3, taps - 3) if abs(k) < n], axis=0)
        for n, kernel in zip(shape, (axial, lateral), strict=True)
    ]
    return SeparableOperator(matrices[0], matrices[1], threshold=threshold, relative=relative)


def nearest_kronecker(
    rearranged: np.ndarray, n_iterations: int = 100, tolerance: float = 1e-7
) -> tuple[np.ndarray, np.ndarray, float]:
    """Leading singular pair of the rearranged matrix: M ≈ A ⊗ C (Van Loan & Pitsianis 1993).

    `rearranged` is (entries of A, entries of C): row (z, z'), column (x, x'). Returns A's and C's entries and the relative
    Frobenius residual ‖M - A ⊗ C‖ / ‖M‖.
    """
    right = np.abs(rearranged).sum(axis=0, dtype=np.float64).astype(rearranged.dtype) + np.finfo(np.float32).tiny
    right /= np.linalg.norm(right)
    value = 0.0
    for _ in range(n_iterations):
        left = rearranged @ right
        previous, value = value, float(np.linalg.norm(left))
        if value == 0.0:
            raise ValueError(
                "the operator is zero: no pixel of the grid echoes. Check the grid against the probe's field"
            )
        left /= value
        right = rearranged.T @ left
        value = float(np.linalg.norm(right))
        right /= value
        if abs(value - previous) <= tolerance * value:
            break
    energy = float(np.vdot(rearranged, rearranged))
    residual = math.sqrt(max(0.0, 1.0 - value**2 / energy))
    return left * math.sqrt(value), right * math.sqrt(value), residual


def patch_corners(shape: tuple[int, int], patch_shape: tuple[int, int]) -> list[tuple[int, int]]:
    """(z, x) of patches that cover the image with at least half overlap, the last ones flush with the edge."""
    starts = []
    for n, size in zip(shape, patch_shape, strict=True):
        count = 1 if n == size else math.ceil((n - size) / (size / 2)) + 1
        starts.append(np.unique(np.round(np.linspace(0, n - size, count)).astype(int)))
    return [(int(z), int(x)) for z in starts[0] for x in starts[1]]


def blend_weights(
    shape: tuple[int, int], corners: Sequence[tuple[int, int]], patch_shape: tuple[int, int]
) -> np.ndarray:
    """(n_patches, height, width) weights, a squared sine across each patch, divided by their sum over the patches."""
    height, width = patch_shape
    window = np.outer(*(np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in (height, width))) + 1e-6
    total = np.zeros(shape)
    for z, x in corners:
        total[z : z + height, x : x + width] += window
    return np.stack([window / total[z : z + height, x : x + width] for z, x in corners])
