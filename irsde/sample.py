"""Using trained models: restore an image, draw several restorations, average an ensemble. No HQ image is ever asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from irsde.echo_area import echo_area
from irsde.group_norm import PooledGroupNorm, pooled_norms, pooling, release
from irsde.network import Model
from irsde.shipped.tone import toned
from ussim.errors import DataError

if TYPE_CHECKING:
    from irsde.stacks import Stack

Predict = Callable[[Tensor, Tensor, int], Tensor]

TILE, OVERLAP = 512, 64  # pixels; larger images are restored in tiles
TONES = ("bmode", "mri")
GATHERINGS = 1  # passes over the tiles that gather statistics, before the one that predicts


@dataclass(frozen=True)
class Sampling:
    """Settings by which a model's images are drawn; the arguments of `restore` in one value.

    Attributes
    ----------
    steps : int, optional
        Evaluations of the network; None = as many as it was trained with.
    sampler : str, optional
        One of `irsde.sde.SAMPLERS`, of a flow one of `irsde.flow.FLOW_SAMPLERS`; None = the process's own.
    clamp : bool, optional
        Keep the predicted HQ image within the range of grey levels; None = as the run's settings say.
    tile, overlap : int
        Largest image side the network sees at once, and what neighboring tiles share, pixels.
    fidelity : float
        Between 0, the mean, and 1, a sample: mean + fidelity (sample - mean).
    strength : float
        Share of what the model changes that is changed: 0 gives the image back, 1 is the model's own.
    tone : str
        "bmode", grey levels of the picture itself, or "mri", those of MRI by the curve that is stored with the model.
    probe : str, optional
        Whose curve of tone "mri" it is; None = the mean one.
    """

    steps: int | None = None
    sampler: str | None = None
    clamp: bool | None = None
    tile: int = TILE
    overlap: int = OVERLAP
    fidelity: float = 1.0
    strength: float = 1.0
    tone: str = "bmode"
    probe: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.fidelity <= 1:
            raise ValueError(f"fidelity: expected a number from 0, the mean, to 1, a sample, got {self.fidelity}")
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength: expected 0 to 1, got {self.strength}")
        if self.tone not in TONES:
            raise ValueError(f"tone: expected one of {', '.join(TONES)}, got {self.tone!r}")


DEFAULT = Sampling()


def restore(
    model: Model,
    lq: ArrayLike,
    steps: int | None = None,
    sampler: str | None = None,
    seed: int = 0,
    clamp: bool | None = None,
    tile: int = TILE,
    overlap: int = OVERLAP,
    mask: ArrayLike | str | None = "auto",
    fidelity: float = 1.0,
    strength: float = 1.0,
    tone: str = "bmode",
    probe: str | None = None,
) -> NDArray[np.float32]:
    """Restore each LQ image.

    Parameters
    ----------
    model
        From `irsde.load`. Supervised models ignore `steps`, `sampler`, `seed`, `clamp` and `fidelity`.
    lq
        (nz, nx) or (n, nz, nx) grey levels in [0, 1].
    steps
        Evaluations of the network, a sub-sequence of the steps it was trained with; None = all, of a flow 5.
    sampler
        "posterior" (None), "sde", "ode" or "ddim", see `IRSDE.reverse_step`; of a flow "euler" (None) or "posterior".
    seed
        Of the noise. The same seed gives an image the same noise whatever images come with it.
    clamp
        Keep the predicted HQ image inside the range that grey levels in [0, 1] have in network units; None = as the run's
        settings say, which is yes unless its recipe does not.
    tile, overlap
        Largest image side the network sees at once, and how much neighboring tiles share, in pixels.
    mask
        Where there is echo, (nz, nx) bool; "auto" finds border, captions beside the echoes, and the outside of a sector (see
        `irsde.echo_area`); None = everywhere. What is not echo is neither looked at nor changed. Of a pair of
        a store, give `field_mask(model, ...)`.
    fidelity
        1 draws a sample, 0 gives the mean: what the first stage predicts, or the HQ image that a process without one expects
        at its start. Between them mean + fidelity (sample - mean), the best trade of PSNR against texture (Freirich et al.
        2021).
    strength, tone, probe
        How much of the change is made, and in which grey levels; see `Sampling`.

    Returns
    -------
    Restored grey levels in [0, 1], the shape of `lq`, float32.
    """
    sampling = Sampling(steps, sampler, clamp, tile, overlap, fidelity, strength, tone, probe)
    restored = np.concatenate([_restore_echoes(model, image[None], [seed], sampling, mask) for image in _images(lq)])
    return restored[0] if np.ndim(lq) == 2 else restored


def restore_batch(
    model: Model,
    images: NDArray[np.float32],
    seeds: Sequence[int],
    sampling: Sampling = DEFAULT,
    mask: ArrayLike | str | None = "auto",
) -> NDArray[np.float32]:
    """Restore LQ images (n, nz, nx) together, each with noise from a seed of its own; what `restore` gives one by one.

    Equal to `restore` to rounding: how a convolution is summed depends on the size of the batch.
    """
    return _restore_echoes(model, _images(images), seeds, sampling, mask)


def field_mask(model: Model, mask: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    """Return what `restore` is to be given as mask of a store's image, by the statistics that the model is trained on.

    Parameters
    ----------
    mask : (nz, nx) bool, the probe's field.
    """
    return mask if model.config.statistics == "echoes" else None


def draw_samples(model: Model, lq: ArrayLike, n_samples: int, seed: int = 0, **options: Any) -> NDArray[np.float32]:
    """`n_samples` restorations of one LQ image (nz, nx) with noise of its own each: (n_samples, nz, nx)."""
    if n_samples < 1:
        raise ValueError(f"expected at least one sample, got {n_samples}")
    return np.stack([restore(model, lq, seed=seed + k, **options) for k in range(n_samples)])


def ensemble(
    models: Sequence[Model], lq: ArrayLike, seed: int = 0, same_noise: bool = False, **options: Any
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and variance (unbiased) over models of the restorations of one LQ image, each (nz, nx).

    Each model draws noise of its own (`seed`, `seed` + 1, ...), unless `same_noise`: then what varies is the model alone.
    """
    return mean_and_variance(
        [restore(m, lq, seed=seed + (0 if same_noise else k), **options) for k, m in enumerate(models)]
    )


def restore_stack(
    models: Sequence[Model],
    stack: Stack,
    n_samples: int = 1,
    seed: int = 0,
    sampling: Sampling = DEFAULT,
    mask: ArrayLike | str | None = "auto",
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Mean and, of several members, variance of every slice of a volume, each of the stack's shape.

    Slices go through the network together as long as they have no more pixels than one tile. Models and samples are
    members as in `restore_members`; `advance` is told how many images a member has just restored.
    """
    members = [model for model in models for _ in range(n_samples)]
    mean = np.empty(stack.shape, np.float32)
    variance = np.empty_like(mean) if len(members) > 1 else None
    n_together = max(1, sampling.tile**2 // (stack.shape[1] * stack.shape[2]))
    for first in range(0, len(mean), n_together):
        part = slice(first, first + n_together)
        seeds = [stack.seeds(seed + k, part) for k in range(len(members))]
        mean[part], spread = restore_members(members, stack.images(part), seeds, sampling, mask, advance=advance)
        if variance is not None:
            variance[part] = spread
    return mean, variance


def restore_members(
    members: Sequence[Model],
    images: NDArray[np.float32],
    seeds: Sequence[Sequence[int]],
    sampling: Sampling = DEFAULT,
    mask: ArrayLike | str | None = "auto",
    field: NDArray[np.bool_] | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Mean and variance over members of LQ images (n, nz, nx); no variance of a single member.

    A member is a model with noise of its own, (n_members, n) `seeds`: a model that draws several samples comes as often.
    `field`, (nz, nx) or (n, nz, nx) bool, is the probe's where the images are a store's: each model restores of it what it
    was trained on, in place of `mask`.
    """
    drawn = []
    for model, own in zip(members, seeds, strict=True):
        seen = mask if field is None else field_mask(model, field)
        drawn.append(restore_batch(model, images, own, sampling, seen))
        advance(len(images))
    return (drawn[0], None) if len(drawn) == 1 else mean_and_variance(drawn)


def mean_and_variance(samples: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Over axis 0; the variance with n - 1, zero for a single sample."""
    samples = np.asarray(samples, np.float64)
    if len(samples) == 0:
        raise ValueError("expected at least one sample")
    variance = samples.var(axis=0, ddof=1) if len(samples) > 1 else np.zeros(samples.shape[1:])
    return samples.mean(axis=0).astype(np.float32), variance.astype(np.float32)


@torch.inference_mode()
def restore_normalized(
    model: Model, images: Sequence[NDArray] | NDArray, seeds: Sequence[int], sampling: Sampling = DEFAULT
) -> NDArray[np.float32]:
    """Restore images (n, nz, nx) together, all of them; the result in network units."""
    device, tile, overlap = model.device, sampling.tile, sampling.overlap
    z_lq = torch.from_numpy(np.stack([model.normalization.input(lq) for lq in images]))[:, None].to(device)
    norms = pooled_norms(model.network)
    if not model.is_diffusion:
        multiple = getattr(model.network, "multiple", 1)  # tiles begin where its coarsest pixels do
        regress = tiled(lambda _, part, t: model.network(part), tile, overlap, norms, multiple)
        z = regress(z_lq, z_lq, 0)
    else:
        # On the CPU: the same noise on every device. One generator per image: the same noise in every batch.
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]

        def draw() -> torch.Tensor:
            return torch.cat([torch.randn((1, *z_lq.shape[1:]), generator=g) for g in generators]).to(device)

        bounds = None
        if model.config.clamp if sampling.clamp is None else sampling.clamp:
            limits = torch.tensor([model.normalization.bounds(lq) for lq in images], device=device).view(-1, 2, 1, 1, 1)
            bounds = limits[:, 0], limits[:, 1]
        z = drawn(model, z_lq, sampling, norms, draw, bounds)
    return z[:, 0].float().cpu().numpy()


def drawn(
    model: Model,
    z_lq: Tensor,
    sampling: Sampling,
    norms: Sequence[PooledGroupNorm],
    draw: Callable[[], Tensor],
    bounds: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """Return what a model that samples makes of LQ images in network units, between its mean and a sample."""
    tile, overlap, fidelity = sampling.tile, sampling.overlap, sampling.fidelity
    network: Any = model.network
    start = z_lq
    if model.has_mean:
        start = tiled(lambda _, part, t: network.mean(part), tile, overlap, norms)(z_lq, z_lq, 0)
        if fidelity == 0:
            return start if bounds is None else start.clamp(*bounds)
    predict = tiled(network.stage if model.has_mean else network, tile, overlap, norms)
    z = z_lq if fidelity == 0 else model.sde.sample(predict, start, sampling.steps, sampling.sampler, draw, bounds)
    if fidelity == 1:
        return z
    mean = start if model.has_mean else model.sde.guess(predict, start, draw, bounds)
    return mean + fidelity * (z - mean)


def tiled(
    predict: Predict, tile: int, overlap: int, norms: Sequence[PooledGroupNorm] = (), multiple: int = 1
) -> Predict:
    """Return `predict` applied to overlapping tiles one after the other, blended by raised-cosine weights at every step.

    Blending the predicted noise, not finished images, keeps one noise field for the whole image. Where the network has group
    normalizations (`norms`), a first pass over all tiles gathers their statistics, which every tile then uses: with its own,
    each tile would come out at another grey level. What still differs from the untiled image is that layers after the first
    gather from tiles that were normalized by themselves, and that attention ends at the tile. Memory beyond a few copies of
    the image is that of one tile; an image of one tile costs no second pass. Tiles begin at multiples of `multiple` pixels,
    so that a network that halves its input halves it in the same places.
    """
    if not 0 <= overlap < tile:
        raise ValueError(f"expected 0 <= overlap < tile, got overlap {overlap}, tile {tile}")

    def predict_tiles(x: Tensor, lq: Tensor, t: int) -> Tensor:
        parts = [
            (..., rows, columns)
            for rows in _spans(x.shape[-2], tile, overlap, multiple)
            for columns in _spans(x.shape[-1], tile, overlap, multiple)
        ]
        if len(parts) == 1:
            return predict(x, lq, t)
        total, weight = torch.zeros_like(x), torch.zeros_like(x[:1, :1])
        try:
            for _ in range(GATHERINGS if norms else 0):
                with pooling(norms):
                    for part in parts:
                        predict(x[part], lq[part], t)
            for part in parts:
                w = (_window(part[1], overlap)[:, None] * _window(part[2], overlap)).to(x)
                total[part] += w * predict(x[part], lq[part], t)
                weight[part] += w
        finally:
            release(norms)
        return total / weight

    return predict_tiles


def _restore_echoes(
    model: Model, images: NDArray[np.float32], seeds: Sequence[int], sampling: Sampling, mask: ArrayLike | str | None
) -> NDArray[np.float32]:
    """Images (n, nz, nx) with their echo areas restored, areas of one size together. Grey levels in [0, 1]."""
    if len(seeds) != len(images):
        raise ValueError(f"expected one seed per image, got {len(seeds)} for {len(images)}")
    masks = (
        [mask] * len(images) if mask is None or isinstance(mask, str) or np.ndim(mask) == 2 else list(np.asarray(mask))
    )
    areas = [echo_area(image, own) for image, own in zip(images, masks, strict=True)]
    restored = images.astype(np.float32)
    for shape in dict.fromkeys(area.shape for area in areas):
        places = [i for i, area in enumerate(areas) if area.shape == shape]
        cut = [areas[i].cut(images[i]) for i in places]
        z = restore_normalized(model, cut, [seeds[i] for i in places], sampling)
        for i, image, result in zip(places, cut, z, strict=True):
            result = model.normalization.output(result, image)
            areas[i].put(restored[i], finished(model, image, result, sampling))
    return restored


def finished(model: Model, lq: NDArray, result: NDArray[np.float32], sampling: Sampling) -> NDArray[np.float32]:
    """Return a result at the strength and in the tone asked for; both images are grey levels in [0, 1].

    Raises
    ------
    DataError
        Tone "mri" is asked of a model that has no such curve, or none for the probe.
    """
    if sampling.strength < 1:
        result = lq + np.float32(sampling.strength) * (result - lq)
    if sampling.tone == "bmode":
        return result
    curves = (model.details or {}).get("tone", {}).get(sampling.tone)
    if curves is None:
        raise DataError(
            f"{model.name}: has no curve to tone {sampling.tone!r}; a model that has one is in `irsde models`"
        )
    known = {name.lower(): curve for name, curve in curves.items()}
    wanted = (sampling.probe or "all").lower()
    if wanted not in known:
        raise DataError(f"{model.name}: no curve of probe {sampling.probe!r}; expected one of {', '.join(curves)}")
    return toned(result, known[wanted])


def _images(lq: ArrayLike) -> NDArray[np.float32]:
    images = np.asarray(lq)
    if images.ndim not in (2, 3) or 0 in images.shape:
        raise ValueError(f"expected images (nz, nx) or (n, nz, nx), got shape {images.shape}")
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"expected grey levels in [0, 1] as floating point, got {images.dtype}: divide by the largest")
    if not np.isfinite(images).all() or images.min() < -1e-3 or images.max() > 1 + 1e-3:
        raise ValueError(f"expected grey levels in [0, 1], got {images.min():g} to {images.max():g}")
    return images if images.ndim == 3 else images[None]


def _spans(length: int, tile: int, overlap: int, multiple: int = 1) -> list[slice]:
    """Slices of `tile` pixels from multiples of `multiple` on, neighbors sharing at least `overlap`.

    The last one ends with the image, up to `multiple` - 1 pixels longer.
    """
    if length <= tile:
        return [slice(0, length)]
    step = max(multiple, (tile - overlap) // multiple * multiple)
    last = (length - tile) // multiple * multiple
    return [*(slice(start, start + tile) for start in range(0, last, step)), slice(last, length)]


def _window(span: slice, overlap: int) -> Tensor:
    """Weights over a tile: 1, falling to almost 0 over `overlap` pixels at either end."""
    n = span.stop - span.start
    edge = torch.minimum(torch.arange(n), torch.arange(n - 1, -1, -1)) + 0.5
    return torch.sin(torch.pi / 2 * (edge / max(overlap, 1)).clamp(max=1)) ** 2
