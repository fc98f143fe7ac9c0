"""One case, every method: DAS with one and many transmits, denoising, DRUSmean, DRUSvar, despeckled DRUSmean.

A `Case` is channel data, the grid to image on, and what is known of the truth; `reconstruct` makes the images,
`score` reads them, `comparison_figure` puts them side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ussim.acquisition import Acquisition
from ussim.beamform import delay_and_sum
from ussim.demodulation import demodulate
from ussim.probes import Probe, load_probe
from ussim.simulation import simulate
from ussim.transmits import PlaneWaves
from ussim.types import ImageGrid, RFData, Scatterers

from . import ddrm
from .acoustics import F_NUMBER, bandpass_step, echo_model_of
from .build import operator as build_operator
from .despeckle import srad
from .operators import IdentityOperator, SpectralOperator
from .phantoms import LAYOUTS, Layout
from .priors import GaussianPrior
from .recordings import PicmusPhantom, single
from .regions import (
    DYNAMIC_RANGE_DB,
    PICMUS_GUARD,
    Regions,
    contrast_scores,
    disc_regions,
    layout_regions,
    rectangle,
    target_widths,
    to_decibels,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LATERAL_STEP = 2.0  # axial pixels a lateral one: the field varies more slowly across than along
SCATTERERS_PER_CELL = 8.0  # of a simulated phantom, a resolution cell: speckle is fully developed
DENOISE_FLOOR = 0.12  # noise level of DENO over the brightness of By: what the authors use on PICMUS (0.11 to 0.16)
N_CYCLES = 2.5


@dataclass(frozen=True, eq=False)
class Case:
    """What there is to image."""

    name: str
    rf: RFData  # all transmits
    grid: ImageGrid
    regions: Regions | None = None
    targets: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))  # (n, 2) x, z of points, m
    truth: np.ndarray | None = None  # (nz, nx) echogenicity


@dataclass(frozen=True, eq=False)
class Result:
    """Images (nz, nx) by method, real and not yet logarithmic, and how they came about."""

    images: dict[str, np.ndarray]
    operator: SpectralOperator
    noise_level: float  # over the reflectivity's scale
    samples: np.ndarray  # (n_samples, nz, nx)
    noise_correlation: tuple[np.ndarray, np.ndarray]  # axial and lateral autocorrelation of B n, by pixels


def imaging_grid(acquisition: Acquisition, shape: tuple[int, int], depth: float) -> ImageGrid:
    """`shape` pixels about (0, `depth`), axial step by `bandpass_step`, lateral twice that."""
    step = bandpass_step(acquisition)
    nz, nx = shape
    z = depth + (np.arange(nz) - (nz - 1) / 2) * step
    if z[0] <= 0:
        raise ValueError(
            f"grid: {nz} rows of {1e3 * step:.3f} mm about {1e3 * depth:g} mm reach behind the probe: fewer rows"
        )
    return ImageGrid(x=(np.arange(nx) - (nx - 1) / 2) * LATERAL_STEP * step, z=z)


def phantom_case(
    name: str,
    shape: tuple[int, int] = (256, 128),
    noise: float = 0.0,
    n_transmits: int = 31,
    seed: int = 0,
    probe: Probe | None = None,
    depth: float = 28e-3,
    engine: str = "auto",
) -> Case:
    """RF of a test layout by `ussim.simulate`: scatterers anywhere (not on pixels), the whole acoustic model (not H).

    `n_transmits` plane waves over ±16 degrees, 0 among them; `noise` is the standard deviation of white noise on the
    channels over the rms of the channel data.

    Raises
    ------
    ValueError
        Unknown layout, even number of transmits, or negative noise.
    """
    if name not in LAYOUTS:
        raise ValueError(f"phantom: expected {' or '.join(LAYOUTS)}, got {name!r}")
    if n_transmits < 1 or n_transmits % 2 == 0:
        raise ValueError(f"n_transmits: expected an odd number, so that 0 degrees is one, got {n_transmits}")
    if not noise >= 0:
        raise ValueError(f"noise: expected a number of at least 0, got {noise!r}")
    probe = probe or load_probe("L11-4v")
    angles = np.deg2rad(np.linspace(-16, 16, n_transmits)) if n_transmits > 1 else np.zeros(1)
    acquisition = Acquisition(probe, PlaneWaves(angles), n_cycles=N_CYCLES)
    grid = imaging_grid(acquisition, shape, depth)
    layout = LAYOUTS[name](grid)
    rng = np.random.default_rng([seed, 1])
    rf = simulate(_scatterers(layout, grid, acquisition, rng), acquisition, engine=engine).to_numpy()
    if noise > 0:
        rms = math.sqrt(float(np.mean(np.square(rf.samples, dtype=np.float64))))
        noisy = rf.samples + noise * rms * rng.standard_normal(rf.samples.shape, dtype=np.float32)
        rf = RFData(noisy, acquisition, rf.sampling_frequency, rf.start_time)
    contrast = name == "occlusion"
    return Case(
        name=f"{name} phantom",
        rf=rf,
        grid=grid,
        regions=layout_regions(layout, grid, lateral_resolution(acquisition)) if contrast else None,
        targets=np.zeros((0, 2)) if contrast else layout.centers,
        truth=layout.map(grid),
    )


def recording_case(
    name: str,
    rf: RFData,
    phantom: PicmusPhantom | None = None,
    shape: tuple[int, int] = (256, 128),
    depth: float | None = None,
) -> Case:
    """A recording, imaged about `depth` (None: the middle of what was recorded), scored where a phantom file says how."""
    acquisition = rf.acquisition
    if depth is None:
        first = float(rf.start_times.mean())
        last = first + rf.samples.shape[2] / rf.sampling_frequency
        depth = acquisition.medium.speed_of_sound * (first + last) / 4
        depth = max(depth, (shape[0] / 2 + 1) * bandpass_step(acquisition))
    grid = imaging_grid(acquisition, shape, depth)
    if phantom is None:
        return Case(name, rf, grid)
    x, z = (phantom.occlusions[:, i] for i in (0, 1))
    inside_field = (x > grid.x[0]) & (x < grid.x[-1]) & (z > grid.z[0]) & (z < grid.z[-1])
    discs = disc_regions(
        grid,
        phantom.occlusions[inside_field],
        phantom.occlusion_radii[inside_field],
        phantom.lateral_resolution,
        PICMUS_GUARD,
    )
    speckle = [
        rectangle(grid, (c[0], c[1]), s[0], s[1]) for c, s in zip(phantom.roi_centers, phantom.roi_sizes, strict=True)
    ]
    regions = Regions(*discs, speckle) if len(phantom.occlusions) or speckle else None
    return Case(name, rf, grid, regions, phantom.targets)


def reconstruct(
    case: Case,
    prior: ddrm.Prior,
    kind: str = "kronecker",
    n_samples: int = 10,
    steps: int = 50,
    seed: int = 0,
    beta: float = 0.5,
    noise_level: float | None = None,
    batch_size: int | None = None,
    device: str = "cpu",
    progress: Callable[[str, int, int], None] | None = None,
) -> Result:
    """Every method on the case. `noise_level` is in units of the reflectivity's scale, None estimates it;
    `progress(stage, done, total)`."""
    flat = single(case.rf)
    operator = build_operator(flat.acquisition, case.grid, kind, progress=_stage(progress, "SVD of the patches"))
    model = echo_model_of(flat, case.grid)
    by = model.beamform(flat.samples[0]).astype(np.float32)
    scale = ddrm.reflectivity_scale(operator, by)
    images = {"DAS, 1 transmit": np.abs(delay_and_sum(demodulate(flat), case.grid, F_NUMBER))}
    if case.rf.acquisition.n_transmits > 1:
        many = np.abs(delay_and_sum(demodulate(case.rf), case.grid, F_NUMBER))
        images[f"DAS, {case.rf.acquisition.n_transmits} transmits"] = many
    options: dict[str, Any] = {
        "n_samples": n_samples,
        "steps": steps,
        "seed": seed,
        "batch_size": batch_size,
        "device": device,
    }

    identity = IdentityOperator(case.grid.shape)
    bright = ddrm.reflectivity_scale(identity, by)
    floor = max(ddrm.estimate_noise(identity, by), DENOISE_FLOOR * bright)
    denoised = ddrm.sample(identity, by, prior, noise_level=floor, progress=_stage(progress, "DENO"), **options)
    images["DENO"] = np.abs(ddrm.mean(denoised))

    level = ddrm.estimate_noise(operator, by) if noise_level is None else noise_level * _gain(operator) * scale
    samples = ddrm.sample(operator, by, prior, noise_level=level, progress=_stage(progress, "DRUS"), **options) / scale
    average = np.abs(ddrm.mean(samples))
    images["DRUSmean"] = average
    images["DRUSvar"] = ddrm.variance_image(samples, beta)
    images["DRUSmean + SRAD"] = srad(average)
    return Result(images, operator, level / (_gain(operator) * scale), samples, model.noise_correlation())


def with_analytic_prior(case: Case, result: Result, seed: int = 0, steps: int = 50) -> dict[str, np.ndarray]:
    """DRUSmean and DRUSvar under N(0, p²) with the true p: a prior that knows the answer, to be shown as such."""
    if case.truth is None:
        return {}
    flat = single(case.rf)
    by = echo_model_of(flat, case.grid).beamform(flat.samples[0]).astype(np.float32)
    scale = ddrm.reflectivity_scale(result.operator, by)
    level = result.noise_level * _gain(result.operator) * scale
    prior = GaussianPrior(case.truth)
    samples = ddrm.sample(
        result.operator,
        by,
        prior,
        n_samples=len(result.samples),
        steps=steps,
        seed=seed,
        noise_level=level,
        scale=scale,
    )
    return {
        "DRUSmean, true-map prior": np.abs(ddrm.mean(samples)),
        "DRUSvar, true-map prior": ddrm.variance_image(samples),
    }


def score(case: Case, images: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Scores by method: gCNR and SNR (mean, standard deviation), axial and lateral width in mm; what the case allows."""
    table: dict[str, dict[str, float]] = {}
    for name, image in images.items():
        row: dict[str, float] = {}
        if case.regions is not None:
            contrast, speckle = contrast_scores(image, case.regions)
            for key, values in (("gCNR", contrast), ("SNR", speckle)):
                if values.size:
                    row[key], row[f"{key} sd"] = float(values.mean()), float(values.std())
        if len(case.targets):
            axial, lateral = target_widths(image, case.grid, case.targets, envelope=not name.startswith("DAS"))
            for key, values in (("axial FWHM [mm]", axial), ("lateral FWHM [mm]", lateral)):
                kept = values[np.isfinite(values)]
                row[key] = 1e3 * float(kept.mean()) if kept.size else math.nan
                row[f"{key} n"] = float(kept.size)
        table[name] = row
    return table


def score_table(scores: dict[str, dict[str, float]]) -> str:
    """The scores as a Markdown table."""
    keys = [key for key in next(iter(scores.values()), {}) if not key.endswith((" sd", " n"))]
    if not keys:
        return ""
    lines = ["| method | " + " | ".join(keys) + " |", "|---" * (len(keys) + 1) + "|"]
    for name, row in scores.items():
        cells = []
        for key in keys:
            value = "n/a" if math.isnan(row.get(key, math.nan)) else f"{row[key]:.3f}"
            if f"{key} sd" in row:
                value += f" ± {row[f'{key} sd']:.3f}"
            if f"{key} n" in row:
                value += f" (n = {row[f'{key} n']:.0f})"
            cells.append(value)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def comparison_figure(
    images: dict[str, np.ndarray], grid: ImageGrid, title: str = "", dynamic_range_db: float = DYNAMIC_RANGE_DB
) -> Figure:
    """The images side by side, each over its own maximum, 20 log10 (of a variance too, as the authors show it)."""
    from ussim.show.figures import decibel_bar, image_row, show_grey

    rows = math.ceil(len(images) / 6)
    columns = math.ceil(len(images) / rows)
    figure, axes = image_row(grid, columns, rows)
    for axis, (name, image) in zip(axes, images.items(), strict=False):
        show_grey(axis, 1 + to_decibels(image, dynamic_range_db) / dynamic_range_db, grid)
        axis.set_title(name)
    for axis in axes[len(images) :]:
        axis.set_visible(False)
    for i, axis in enumerate(axes):
        if i % columns:
            axis.set_ylabel("")
    decibel_bar(figure, axes[len(images) - 1], dynamic_range_db)
    if title:
        figure.suptitle(title)
    return figure


def lateral_resolution(acquisition: Acquisition) -> float:
    """λ f# of the receive aperture, m: what the regions' guard is measured in."""
    return acquisition.medium.speed_of_sound / acquisition.carrier_frequency * F_NUMBER


def _scatterers(layout: Layout, grid: ImageGrid, acquisition: Acquisition, rng: np.random.Generator) -> Scatterers:
    """Points of the layout: a uniform cloud of N(0, 1) reflectivities but for the discs, or one point a disc's centre."""
    if layout.name == "scatterers":
        jitter = rng.uniform(-0.5, 0.5, layout.centers.shape) * [np.diff(grid.x).mean(), np.diff(grid.z).mean()]
        x, z = (layout.centers + jitter).T
        return Scatterers(x, z, np.ones(len(x)))
    pulse = acquisition.n_cycles * acquisition.medium.speed_of_sound / (2 * acquisition.carrier_frequency)
    cell = lateral_resolution(acquisition) * pulse
    margin = 2e-3  # m: echoes from beyond the field reach its edges
    low = np.array([grid.x[0] - margin, max(grid.z[0] - margin, 1e-3)])
    high = np.array([grid.x[-1] + margin, grid.z[-1] + margin])
    points = rng.uniform(low, high, (int(SCATTERERS_PER_CELL * np.prod(high - low) / cell), 2))
    reflectivity = rng.standard_normal(len(points))
    for center in layout.centers:
        reflectivity[np.hypot(*(points - center).T) < layout.radius] = 0
    kept = reflectivity != 0
    return Scatterers(points[kept, 0], points[kept, 1], reflectivity[kept])


def _gain(operator: SpectralOperator) -> float:
    """Rms of M's answer to a white image of variance one: ‖M‖ / sqrt(pixels)."""
    return float(operator.singular_values.double().norm()) / math.sqrt(operator.singular_values.numel())


def _stage(progress: Callable[[str, int, int], None] | None, stage: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(stage, done, total)
