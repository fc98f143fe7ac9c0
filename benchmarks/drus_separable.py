"""The numerical study of the DRUSvar paper (sec. III): y = H o + noise with separable kernels, scores over noise levels.

o = m ∘ p on a test layout, scaled to a maximum of 4; the noise is one fixed white image times level x max|H o|, and the
sampler is told its level. Images compared: |y|, DRUSmean, DRUSvar.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from irsde.drus import ddrm
from irsde.drus.operators import SECTION_III_SIGMA, SeparableOperator, section_iii
from irsde.drus.phantoms import LAYOUTS, paper_grid
from irsde.drus.priors import DEFAULT_BRIGHT_STD
from irsde.drus.regions import contrast_scores, layout_regions, target_widths

LEVELS = {
    "occlusion": (0.02, 0.05, 0.08, 0.11, 0.14, 0.17, 0.20, 0.23, 0.26, 0.29, 0.32, 0.35),
    "scatterers": (0.018, 0.04, 0.06, 0.08, 0.10),
}
FEW_LEVELS = {"occlusion": (0.02, 0.08, 0.23), "scatterers": (0.018, 0.06, 0.10)}
METHODS = ("y", "DRUSmean", "DRUSvar")
PEAK = 4.0  # of |o|, over the whole image


@dataclass(frozen=True)
class StudyConfig:
    """Settings of a study: the paper's are n=256, 9 realizations, all levels, C=10."""

    layout: str = "occlusion"
    levels: tuple[float, ...] = FEW_LEVELS["occlusion"]
    n_realizations: int = 2
    n: int = 128  # px a side, over the paper's field of 36 mm
    n_samples: int = 10
    steps: int = 50
    taps: int = 7
    seed: int = 0


def observe(
    config: StudyConfig, realization: int, level: float
) -> tuple[SeparableOperator, np.ndarray, np.ndarray, float]:
    """Return the operator, the reflectivity o (nz, nx), the observation y (nz, nx) and the noise's standard deviation.

    Thresholds are absolute and kernels divided by their sums, as in the authors' code.
    """
    operator = section_iii((config.n, config.n), taps=config.taps, relative=False)
    grid = paper_grid(config.n)
    echogenicity = LAYOUTS[config.layout](grid).map(grid)
    reflectivity = np.random.default_rng([config.seed, 1, realization]).standard_normal(grid.shape) * echogenicity
    reflectivity *= PEAK / np.abs(reflectivity).max()
    clean = operator.apply(torch.as_tensor(reflectivity, dtype=torch.float32)).numpy()
    noise_std = level * float(np.abs(clean).max())
    noise = np.random.default_rng([config.seed, 2]).standard_normal(grid.shape)  # one for all levels and realisations
    return operator, reflectivity, (clean + noise_std * noise).astype(np.float32), noise_std


def run(
    config: StudyConfig, prior: ddrm.Prior, progress: Callable[[int, int], None] | None = None, device: str = "cpu"
) -> dict[str, Any]:
    """Scores by level and method, and the images of the first realisation: {"curves": ..., "images": ...}.

    `progress(runs done, runs)`.
    """
    grid = paper_grid(config.n)
    layout = LAYOUTS[config.layout](grid)
    # -6 dB width of the lateral kernel: what the regions' guard is measured in.
    resolution = 2 * math.sqrt(2 * math.log(2)) * SECTION_III_SIGMA * float(np.diff(grid.x).mean())
    regions = layout_regions(layout, grid, resolution)
    curves, images, done = [], {}, 0
    for level in config.levels:
        rows: dict[str, dict[str, list[float]]] = {method: {} for method in METHODS}
        for realization in range(config.n_realizations):
            operator, _, y, noise_std = observe(config, realization, level)
            samples = ddrm.sample(
                operator,
                y,
                prior,
                n_samples=config.n_samples,
                steps=config.steps,
                seed=config.seed + 1000 * realization,
                noise_level=noise_std,
                scale=1.0 if prior.bright_std is None else DEFAULT_BRIGHT_STD / prior.bright_std,
                device=device,
            )
            made = {"y": np.abs(y), "DRUSmean": np.abs(ddrm.mean(samples)), "DRUSvar": ddrm.variance_image(samples)}
            if realization == 0:
                images[level] = made
            for method, image in made.items():
                for key, values in _scores(config.layout, image, grid, layout, regions).items():
                    rows[method].setdefault(key, []).extend(values.tolist())
            done += 1
            if progress is not None:
                progress(done, len(config.levels) * config.n_realizations)
        curves.append({"level": level, "methods": {method: _summary(rows[method]) for method in METHODS}})
    return {"curves": curves, "images": images}


def fit_beta(
    level: float,
    prior: ddrm.Prior,
    n: int = 128,
    n_strips: int = 8,
    step_db: float = 4.0,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, Any]:
    """Return how the spread of the samples follows echogenicity: sd ∝ p^beta over strips from 0 dB down.

    DRUSvar assumes beta = 0.5 throughout; DDRM has about 1 for weak modes and 0 for well measured ones. Returns the strips'
    p and sd (rms over their middle), and beta by least squares in logarithms.
    """
    operator = section_iii((n, n), relative=False)
    strip = np.arange(n) * n_strips // n
    echogenicity = 10 ** (-step_db * strip / 20)
    reflectivity = DEFAULT_BRIGHT_STD * np.random.default_rng([seed, 3]).standard_normal((n, n)) * echogenicity
    clean = operator.apply(torch.as_tensor(reflectivity, dtype=torch.float32)).numpy()
    noise_std = level * float(np.abs(clean).max())
    y = (clean + noise_std * np.random.default_rng([seed, 2]).standard_normal((n, n))).astype(np.float32)
    samples = ddrm.sample(operator, y, prior, seed=seed, noise_level=noise_std, scale=1.0, device=device)
    variance = ddrm.variance_image(samples)
    middle = (strip == np.roll(strip, 3)) & (strip == np.roll(strip, -3))  # a kernel's half length from the neighbors
    p = 10 ** (-step_db * np.arange(n_strips) / 20)
    sd = np.sqrt([variance[8:-8, (strip == k) & middle].mean() for k in range(n_strips)])
    return {"level": level, "p": p.tolist(), "sd": sd.tolist(), "beta": float(np.polyfit(np.log(p), np.log(sd), 1)[0])}


def _scores(name: str, image: np.ndarray, grid, layout, regions) -> dict[str, np.ndarray]:
    if name == "occlusion":
        contrast, speckle = contrast_scores(image, regions)
        return {"gCNR": contrast, "SNR": speckle}
    axial, lateral = target_widths(image, grid, layout.centers)
    return {"axial FWHM [mm]": 1e3 * axial, "lateral FWHM [mm]": 1e3 * lateral}


def _summary(values: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float | int | None]]:
    """Mean, standard deviation and count of what could be measured."""
    summary: dict[str, dict[str, float | int | None]] = {}
    for key, column in values.items():
        kept = np.asarray(column)[np.isfinite(column)]
        summary[key] = {
            "mean": float(kept.mean()) if kept.size else None,
            "std": float(kept.std()) if kept.size else None,
            "n": int(kept.size),
            "of": len(column),
        }
    return summary
