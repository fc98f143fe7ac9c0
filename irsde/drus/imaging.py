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
from ussim.medium import Medium
from ussim.probes import Probe, load_probe
from ussim.receive import time_gain_compensation
from ussim.simulation import simulate
from ussim.transmits import PlaneWaves
from ussim.types import ImageGrid, IQData, RFData, Scatterers

from . import daps, ddrm
from .acoustics import F_NUMBER, TUKEY_FRACTION, bandpass_step, echo_model_of
from .build import operator as build_operator
from .channels import PEAK, ChannelModel, channel_model
from .despeckle import srad
from .operators import IdentityOperator, SpectralOperator
from .phantoms import LAYOUTS, Layout
from .priors import DDPMPrior, GaussianPrior
from .recordings import PicmusPhantom, single
from .regions import (
    DYNAMIC_RANGE_DB,
    GCNR_BINS,
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
PHANTOM_PROBE, N_CYCLES = "L11-4v", 2.5
FIELD = 36e-3, 36e-3  # m, width and depth: the authors'
FIELD_MIDDLE = 28e-3  # m, of the authors' field, 10 to 46 mm
FEWEST_PIXELS = 16  # a side
OVERHANG = 0.02  # of the field's depth that may go beyond what was recorded, unsaid
MOST_PIXELS = 120_000  # of a field that nobody asked for: H takes 3 kB a pixel and 128 elements
DAS_F_NUMBER = 1.75  # with Tukey(0.25), as in the authors' files
WINDOW_STEPS = 6  # apertures whose sum is the window of DAS
SAMPLERS = {"ddrm": 50, "daps": daps.STEPS}  # steps, unless said
OBJECTS = {  # what a score is read of
    "gCNR": "discs",
    "SNR": "regions",
    "axial FWHM [mm]": "points",
    "lateral FWHM [mm]": "points",
}
DENOISE_FLOOR = 0.12  # noise level of DENO over the brightness of By, where nobody says and the estimate is lower
DENOISE_LEVELS = {  # the authors', by words of a PICMUS file's name; in what unit they do not say: over the brightness here
    ("resolution", "simu"): 0.11,
    ("contrast", "simu"): 0.12,
    ("resolution", "expe"): 0.16,
    ("contrast", "expe"): 0.025,
    ("carotid", "cross"): 0.02,
    ("carotid", "long"): 0.05,
}


@dataclass(frozen=True, eq=False)
class Case:
    """Case to image: channel data, and the truth where it is known."""

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
    operator: SpectralOperator | None  # of the sampler "ddrm"
    noise_level: float  # over the reflectivity's scale; of "daps" that of the channel data over their rms
    denoise_level: float  # of DENO, over the brightness of By
    samples: np.ndarray  # (n_samples, nz, nx)
    noise_correlation: tuple[np.ndarray, np.ndarray]  # axial and lateral autocorrelation of B n, by pixels
    model: ChannelModel | None = None  # of the sampler "daps"


def imaging_grid(acquisition: Acquisition, shape: tuple[int, int], depth: float) -> ImageGrid:
    """`shape` pixels about (0, `depth`), axial step by `bandpass_step`, lateral twice that."""
    step = bandpass_step(acquisition)
    nz, nx = shape
    z = depth + (np.arange(nz) - (nz - 1) / 2) * step
    if z[0] <= 0:
        raise ValueError(
            f"grid: {nz} rows of {1e3 * step:.3f} mm about {1e3 * depth:g} mm reach behind the probe: "
            "a deeper middle, or fewer rows"
        )
    return ImageGrid(x=(np.arange(nx) - (nx - 1) / 2) * LATERAL_STEP * step, z=z)


def field_shape(acquisition: Acquisition, width: float, depth: float) -> tuple[int, int]:
    """Pixels (nz, nx) of `imaging_grid` over a field, m."""
    step = bandpass_step(acquisition)
    return 1 + round(depth / step), 1 + round(width / (LATERAL_STEP * step))


def default_shape(rf: RFData, middle: float | None = None) -> tuple[int, int]:
    """Pixels (nz, nx) of the field that a recording is imaged on unless said.

    The authors' 36 x 36 mm, no deeper than what was recorded, about `middle` (m) where that is given; with a short
    wavelength, as much of it as MOST_PIXELS cover.
    """
    nearest, deepest = recorded(rf)
    nearest = max(nearest, 0.0)
    depth = deepest - nearest
    if middle is not None:
        depth = 2 * (min(middle - nearest, deepest - middle) - bandpass_step(rf.acquisition))
    nz, nx = field_shape(rf.acquisition, FIELD[0], max(0.0, min(FIELD[1], depth)))
    shrink = max(1.0, math.sqrt(nz * nx / MOST_PIXELS))
    return max(FEWEST_PIXELS, int(nz / shrink)), max(FEWEST_PIXELS, int(nx / shrink))


def phantom_shape(acquisition: Acquisition, middle: float = FIELD_MIDDLE) -> tuple[int, int]:
    """Pixels (nz, nx) of a phantom's field unless said: the authors', or less where that would reach behind the probe."""
    nz, nx = field_shape(acquisition, *FIELD)
    return max(FEWEST_PIXELS, min(nz, math.floor(2 * middle / bandpass_step(acquisition)))), nx


def recorded(rf: RFData) -> tuple[float, float]:
    """Depths, m, whose echoes the first and the last sample hold."""
    first = float(rf.start_times.mean())
    half_speed = rf.acquisition.medium.speed_of_sound / 2
    return half_speed * first, half_speed * (first + rf.samples.shape[-1] / rf.sampling_frequency)


def unrecorded(rf: RFData, grid: ImageGrid) -> str:
    """In words, how far the grid goes beyond what was recorded; empty where it does not."""
    nearest, deepest = recorded(rf)
    slack = OVERHANG * (grid.z[-1] - grid.z[0])
    if grid.z[0] >= nearest - slack and grid.z[-1] <= deepest + slack:
        return ""
    return (
        f"the field is {1e3 * grid.z[0]:.1f} to {1e3 * grid.z[-1]:.1f} mm deep, the echoes recorded are from "
        f"{1e3 * nearest:.1f} to {1e3 * deepest:.1f} mm"
    )


def _middle(rf: RFData, shape: tuple[int, int]) -> float:
    """Depth, m, of a field's middle unless said.

    The authors' where all of the field was recorded, else the middle of what was; so deep that no row lies behind the
    probe.
    """
    nearest, deepest = recorded(rf)
    step = bandpass_step(rf.acquisition)
    half = (shape[0] / 2 + 1) * step
    if max(nearest, 0.0) <= FIELD_MIDDLE - half and FIELD_MIDDLE + half <= deepest:
        return FIELD_MIDDLE
    return max((nearest + deepest) / 2, half)


def phantom_case(
    name: str,
    shape: tuple[int, int] = (256, 128),
    noise: float = 0.0,
    n_transmits: int = 31,
    seed: int = 0,
    probe: Probe | None = None,
    depth: float = FIELD_MIDDLE,
    engine: str = "auto",
    attenuation_db_cm_mhz: float = 0.0,
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
    probe = probe or load_probe(PHANTOM_PROBE)
    angles = np.deg2rad(np.linspace(-16, 16, n_transmits)) if n_transmits > 1 else np.zeros(1)
    acquisition = Acquisition(probe, PlaneWaves(angles), Medium(1540.0, attenuation_db_cm_mhz), n_cycles=N_CYCLES)
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
    """Return a recording, imaged about `depth` (m; None: see `_middle`), scored where a phantom file says how."""
    grid = imaging_grid(rf.acquisition, shape, _middle(rf, shape) if depth is None else depth)
    if phantom is None:
        return Case(name, rf, grid)
    discs = disc_regions(grid, phantom.occlusions, phantom.occlusion_radii, phantom.lateral_resolution, PICMUS_GUARD)
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
    steps: int | None = None,
    seed: int = 0,
    beta: float = 0.5,
    noise_level: float | None = None,
    denoise_level: float | None = None,
    f_number: float = F_NUMBER,
    das_f_number: float = DAS_F_NUMBER,
    chains: int = 1,
    batch_size: int | None = None,
    device: str = "cpu",
    progress: Callable[[str, int, int], None] | None = None,
    sampler: str = "ddrm",
    engine: str = "auto",
) -> Result:
    """Every method on the case; `progress(stage, done, total)`.

    H holds the medium's attenuation; DAS and DENO, which know none, get the recording amplified by it over time.

    Parameters
    ----------
    noise_level
        Of B y, in units of the reflectivity's scale; None estimates it.
    denoise_level
        Of DENO, over the brightness of B y; None: the authors' for a PICMUS set by its name, else estimated.
    f_number
        Of B, Tukey(0.25).
    das_f_number
        Of the delay-and-sum images, Tukey(0.25).
    chains
        See `ddrm.sample`.
    sampler
        Of `SAMPLERS`. "ddrm": in the singular basis of BH, of the `kind` that is asked for. "daps": on the channel data, by
        the simulator's own operator; `noise_level` is then that of the channel data over their rms, and `kind`, `f_number`
        and `chains` are DENO's alone.
    steps
        None: those of the sampler.
    engine
        Of ussim, for the operator of "daps".
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler: expected {' or '.join(SAMPLERS)}, got {sampler!r}")
    flat = single(case.rf)
    operator = None
    if sampler == "ddrm":
        progressing = _stage(progress, "SVD of the patches")
        operator = build_operator(flat.acquisition, case.grid, kind, f_number=f_number, progress=progressing)
    model = echo_model_of(flat, case.grid, f_number=f_number)
    by = model.beamform(flat.samples[0]).astype(np.float32)
    amplified = time_gain_compensation(flat)
    images = {"DAS, 1 transmit": windowed_das(amplified, case.grid, das_f_number)}
    if case.rf.acquisition.n_transmits > 1:
        many = windowed_das(time_gain_compensation(case.rf), case.grid, das_f_number)
        images[f"DAS, {case.rf.acquisition.n_transmits} transmits"] = many
    options: dict[str, Any] = {
        "n_samples": n_samples,
        "seed": seed,
        "batch_size": batch_size,
        "device": device,
    }
    chain = options | {"chains": chains, "steps": (sampler == "ddrm" and steps) or SAMPLERS["ddrm"]}

    identity = IdentityOperator(case.grid.shape)
    bright = ddrm.reflectivity_scale(identity, by)
    if denoise_level is None:
        denoise_level = authors_denoise_level(case.name)
    if denoise_level is None:
        denoise_level = max(ddrm.estimate_noise(identity, by) / bright, DENOISE_FLOOR)
    progressing = _stage(progress, "DENO")
    denoised = ddrm.sample(identity, by, prior, noise_level=denoise_level * bright, progress=progressing, **chain)
    images["DENO"] = np.abs(ddrm.mean(denoised))

    progressing, channels = _stage(progress, "DRUS"), None
    if operator is None:
        channels = channel_model(flat, case.grid, engine, noise_level=noise_level)
        learned = isinstance(prior, DDPMPrior) and prior.variance  # another is exact, or knows no points
        options |= {"steps": steps or SAMPLERS["daps"], "progress": progressing, "shared": learned and n_samples > 1}
        samples = daps.sample_posterior(channels, prior, **options) / channels.scale  # type: ignore[arg-type]
        level, unit = math.sqrt(float(np.mean(channels.noise**2))), math.sqrt(float(np.mean(flat.samples**2)))
    else:
        scale = ddrm.reflectivity_scale(operator, by)
        unit = _gain(operator) * scale
        level = ddrm.estimate_noise(operator, by) if noise_level is None else noise_level * unit
        samples = ddrm.sample(operator, by, prior, noise_level=level, progress=progressing, **chain) / scale
    average = np.abs(ddrm.mean(samples))
    images["DRUSmean"] = average
    images["DRUSvar"] = ddrm.variance_image(samples, beta)
    images["DRUSmean + SRAD"] = srad(average)
    correlation = model.noise_correlation()
    return Result(images, operator, level / unit, denoise_level, samples, correlation, channels)


def authors_denoise_level(name: str) -> float | None:
    """Return the noise level of DENO that the authors use for a PICMUS set, by its file's name; None for another."""
    return next((level for words, level in DENOISE_LEVELS.items() if all(word in name for word in words)), None)


def windowed_das(rf: RFData | IQData, grid: ImageGrid, f_number: float = DAS_F_NUMBER) -> np.ndarray:
    """Envelope (nz, nx) of delay-and-sum with a Tukey(0.25) window over the receive aperture.

    The window falls from the middle outwards, so it is a mean of full apertures of several widths.
    """
    iq = rf if isinstance(rf, IQData) else demodulate(rf)
    level = (np.arange(WINDOW_STEPS) + 0.5) / WINDOW_STEPS
    width = (
        1 - TUKEY_FRACTION + TUKEY_FRACTION * np.arccos(2 * level - 1) / np.pi
    )  # of the aperture, where the window is so
    return np.abs(np.mean([delay_and_sum(iq, grid, f_number / w) for w in width], axis=0))


def with_analytic_prior(
    case: Case, result: Result, seed: int = 0, steps: int | None = None, f_number: float = F_NUMBER
) -> dict[str, np.ndarray]:
    """DRUSmean and DRUSvar under N(0, p²) with the true p: a prior that knows the answer, to be shown as such."""
    if case.truth is None:
        return {}
    n_samples = len(result.samples)
    if result.model is not None:
        channels = result.model
        prior = GaussianPrior(channels.around(case.truth))
        prior.bright_std = 1 / PEAK if len(case.targets) else 1.0
        told = daps.sample_posterior(channels, prior, n_samples, steps or SAMPLERS["daps"], seed) / channels.scale
        return _told(told)
    assert result.operator is not None
    flat = single(case.rf)
    by = echo_model_of(flat, case.grid, f_number=f_number).beamform(flat.samples[0]).astype(np.float32)
    scale = ddrm.reflectivity_scale(result.operator, by)
    level = result.noise_level * _gain(result.operator) * scale
    prior = GaussianPrior(case.truth)
    samples = ddrm.sample(
        result.operator,
        by,
        prior,
        n_samples=n_samples,
        steps=steps or SAMPLERS["ddrm"],
        seed=seed,
        noise_level=level,
        scale=scale,
    )
    return _told(samples)


def _told(samples: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "DRUSmean, true-map prior": np.abs(ddrm.mean(samples)),
        "DRUSvar, true-map prior": ddrm.variance_image(samples),
    }


def score(case: Case, images: dict[str, np.ndarray], gcnr_bins: int = GCNR_BINS) -> dict[str, dict[str, float]]:
    """Scores by method, what the case allows.

    GCNR of discs and SNR of speckle regions (mean, "sd"), axial and lateral width of points in mm; each with "n", how
    many could be scored, and "of", how many there are.
    """
    table: dict[str, dict[str, float]] = {}
    for name, image in images.items():
        row: dict[str, float] = {}
        if case.regions is not None:
            contrast, speckle = contrast_scores(image, case.regions, gcnr_bins)
            totals = len(case.regions.inside), len(case.regions.speckle)
            for key, values, total in zip(("gCNR", "SNR"), (contrast, speckle), totals, strict=True):
                if total:
                    row |= _counted(key, values, total)
        if len(case.targets):
            rf_like = not name.startswith("DAS")
            widths = target_widths(image, case.grid, case.targets, envelope=rf_like, bridge_across=False)
            for key, values in zip(("axial FWHM [mm]", "lateral FWHM [mm]"), widths, strict=True):
                row |= _counted(key, 1e3 * values[np.isfinite(values)], len(values))
        table[name] = row
    return table


def _counted(key: str, values: np.ndarray, total: int) -> dict[str, float]:
    mean, spread = (float(values.mean()), float(values.std())) if values.size else (math.nan, math.nan)
    return {key: mean, f"{key} sd": spread, f"{key} n": float(values.size), f"{key} of": float(total)}


def unscored(scores: dict[str, dict[str, float]]) -> list[str]:
    """In words, what of the phantom is scored in no image, being outside the field."""
    rows = list(scores.values())
    found = []
    for key, objects in OBJECTS.items():
        totals = [row[f"{key} of"] for row in rows if f"{key} of" in row]
        most = max((row[f"{key} n"] for row in rows if f"{key} n" in row), default=0)
        if totals and most < totals[0]:
            found.append(f"{totals[0] - most:.0f} of {totals[0]:.0f} {objects}")
    return list(dict.fromkeys(found))


def score_table(scores: dict[str, dict[str, float]]) -> str:
    """Return the scores as a Markdown table, with how many objects each mean is of."""
    keys = [key for key in next(iter(scores.values()), {}) if key in OBJECTS]
    if not keys:
        return ""
    counts = {
        key: {(row[f"{key} n"], row[f"{key} of"]) for row in scores.values() if f"{key} n" in row} for key in keys
    }
    titles = [f"{key} ({_count(key, *counts[key].copy().pop())})" if len(counts[key]) == 1 else key for key in keys]
    lines = ["| method | " + " | ".join(titles) + " |", "|---" * (len(keys) + 1) + "|"]
    for name, row in scores.items():
        cells = []
        for key in keys:
            if math.isnan(row.get(key, math.nan)):
                value = "n/a"
            elif OBJECTS[key] == "points":
                value = f"{row[key]:.3f}"
            else:
                value = f"{row[key]:.3f} ± {row[f'{key} sd']:.3f}"
            if len(counts[key]) > 1 and f"{key} n" in row:
                value += f" ({_count(key, row[f'{key} n'], row[f'{key} of'])})"
            cells.append(value)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _count(key: str, n: float, of: float) -> str:
    return f"{n:.0f} of {of:.0f} {OBJECTS[key]}"


def comparison_figure(
    images: dict[str, np.ndarray], grid: ImageGrid, title: str = "", dynamic_range_db: float = DYNAMIC_RANGE_DB
) -> Figure:
    """Return the images three in a row, each over its own maximum, 20 log10 (of a variance too, as the authors show it)."""
    from ussim.show.figures import decibel_bar, image_row, show_grey

    columns = len(images) if len(images) < 4 else 2 if len(images) == 4 else 3  # six, as there are, stand 3 x 2
    rows = math.ceil(len(images) / columns)
    figure, axes = image_row(grid, columns, rows)
    for axis, (name, image) in zip(axes, images.items(), strict=False):
        show_grey(axis, 1 + to_decibels(image, dynamic_range_db) / dynamic_range_db, grid)
        axis.set_title(name)
    for axis in axes[len(images) :]:
        axis.set_visible(False)
    for i, axis in enumerate(axes):
        if i % columns:
            axis.set_ylabel("")
        if i + columns < len(images):
            axis.set_xlabel("")
        if i < len(images) and i % columns == columns - 1:
            decibel_bar(figure, axis, dynamic_range_db)
    if title:
        figure.suptitle(title)
    return figure


def lateral_resolution(acquisition: Acquisition) -> float:
    """λ f# of the receive aperture, m: what the regions' guard is measured in."""
    return acquisition.medium.speed_of_sound / acquisition.carrier_frequency * F_NUMBER


def _scatterers(layout: Layout, grid: ImageGrid, acquisition: Acquisition, rng: np.random.Generator) -> Scatterers:
    """Points of the layout: a uniform cloud of N(0, 1) reflectivities but for the discs, or one point a disc's center."""
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
