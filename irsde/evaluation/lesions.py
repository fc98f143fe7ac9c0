"""Lesions whose contrast is known: how much of it a method keeps, which it loses, and whether it makes one.

The regular phantom `lesions` of `ussim.phantoms`, discs of known contrast in uniform speckle, is simulated with another draw
of speckle for each case. Measured are its discs of -2, -4 and -8 dB, and the gaps between discs, where there is none.
Contrast is in dB of the display, mean inside against mean in a ring around.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ussim
from irsde.data import GREY_LEVEL
from irsde.evaluation.evaluate import add_values, bar, run_timed, show
from irsde.evaluation.methods import comparison
from irsde.evaluation.metrics import gcnr
from irsde.evaluation.results import Result, Row
from irsde.stacks import image_seed

LEVELS_DB = (-2, -4, -8)
RANGE_DB = 40.0  # of the display: that of `datagen`'s pairs
MARGIN, WIDTH = 1.1, 1.45  # radii of a disc: where the ring that it is compared with begins and ends
CORE = 0.85  # of the radius: what counts as inside
GAP = 0.75  # radius of a place without a disc, of that of a disc
KEPT = 0.5  # of the contrast before: a lesion of less is lost
MADE_DB = 1.0  # of contrast more than before, where there is no lesion: one is made
SEEN_DB = 0.5  # of contrast in the input, below which speckle alone decides
Image = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Site:
    """A place of a phantom: its level, dB about the tissue (0 where there is no disc), pixels inside and around it."""

    level: int
    inside: NDArray[np.bool_]
    around: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Case:
    """A simulated B-mode, (nz, nx) in [0, 1], with its sites."""

    lq: Image
    sites: tuple[Site, ...]


def lesion_cases(probe: str, n_cases: int, size: int = 128, seed: int = 0) -> Iterator[Case]:
    """Simulate the phantom under a probe, each time with other speckle.

    Parameters
    ----------
    probe : str
        Name of a preset, or path to a probe file.
    n_cases : int
        How many draws of speckle.
    size : int
        Pixels on a side.
    """
    loaded = ussim.load_probe(probe)
    acquisition = ussim.Acquisition(loaded, ussim.imaging_waves(loaded), ussim.Medium())
    grid = ussim.ImageGrid.for_acquisition(acquisition, (size, size))
    x, z = (float(grid.x[0]), float(grid.x[-1])), (float(grid.z[0]), float(grid.z[-1]))
    phantom = ussim.phantoms.make("lesions", x, z, apex=ussim.phantoms.beam_apex(loaded))
    for k in range(n_cases):
        scatterers = phantom.scatterers(acquisition, np.random.default_rng([seed, k]))
        envelope = ussim.envelope_image(ussim.demodulate(ussim.simulate(scatterers, acquisition)), grid)
        shown = np.clip(1 + 20 * np.log10(np.maximum(envelope / envelope.max(), 1e-9)) / RANGE_DB, 0, 1)
        lq = shown.astype(np.float32)
        yield Case(lq, tuple(site for site in _sites(phantom, grid) if lq[site.around].mean() > 10 * GREY_LEVEL))


def contrast_db(image: Image, site: Site) -> float:
    """Return the contrast of a site in dB of the display, negative where it is darker than around."""
    return float(RANGE_DB * (image[site.inside].mean() - image[site.around].mean()))


def measure_case(image: Image, case: Case) -> dict[str, float]:
    """Return what became of the lesions of a case in a restored image.

    Returns
    -------
    dict
        `kept_2`, `kept_4`, `kept_8`: contrast over that before, in percent. `lost`: percent of the lesions with less than
        half of theirs. `made`: percent of the places without one that gained over 1 dB of contrast. `lesion_gcnr`: mean of
        the lesions; `null_gcnr`: of the places without one.
    """
    values: dict[str, float] = {}
    lost, made, there, nowhere = [], [], [], []
    for site in case.sites:
        before, after = contrast_db(case.lq, site), contrast_db(image, site)
        overlap = gcnr(image, site.inside, site.around)
        if site.level == 0:
            made.append(abs(after) > abs(before) + MADE_DB)
            nowhere.append(overlap)
            continue
        there.append(overlap)
        if before < -SEEN_DB:
            values[f"kept_{-site.level}"] = 100 * after / before
            lost.append(after / before < KEPT)
    values |= {"lost": 100 * _mean(lost), "made": 100 * _mean(made)}
    absent = {f"kept_{-level}": math.nan for level in LEVELS_DB}
    return absent | values | {"lesion_gcnr": _mean(there), "null_gcnr": _mean(nowhere)}


def evaluate_lesions(
    models: Sequence[Any],
    probes: Sequence[str],
    n_cases: int = 4,
    *,
    size: int = 128,
    steps: Sequence[int | None] = (None,),
    sampler: str | None = None,
    fidelities: Sequence[float] = (1.0,),
    seed: int = 0,
    baselines: bool = True,
    torch_models: Sequence[tuple[str, str | Path]] = (),
    trust: bool = False,
    result: Result | None = None,
    progress: bool = False,
) -> Result:
    """Simulate lesions of known contrast under each probe, restore them by every method and measure what became of them.

    Parameters are those of `evaluate`; `n_cases` draws of speckle are simulated for each probe, `size` pixels on a side.
    """
    result = result or Result()
    methods = comparison(models, steps, sampler, 1, baselines, (), torch_models, trust, result, "auto", fidelities)
    methods = [method for method in methods if not method.reads_hq]
    with bar(progress, len(probes) * n_cases * len(methods)) as advance:
        for probe in probes:
            group = f"lesions, {probe}"
            rows = [Row(m.name, group, m.steps, m.note) for m in methods]
            for i, case in enumerate(lesion_cases(probe, n_cases, size, seed)):
                shown = []
                for row, method in zip(rows, methods, strict=True):
                    restored = run_timed(row, method, case.lq, image_seed(seed, i), None)
                    add_values(row, measure_case(restored, case))
                    shown.append((method.name, restored))
                    advance()
                show(result, group, shown)
            result.rows += rows
    return result


def _sites(phantom: ussim.phantoms.Phantom, grid: ussim.ImageGrid) -> Iterator[Site]:
    """Yield the discs of the wanted levels, and the gaps between four discs."""
    named = [re.fullmatch(r"lesion ([+-]\d+) dB", name) for name in phantom.label_names]
    discs = {}
    for k, found in enumerate(named):
        rows, columns = np.nonzero(phantom.labels == k + 1)
        center = phantom.grid.x[columns].mean(), phantom.grid.z[rows].mean()
        if found:
            discs[int(found[1])] = center
    area = (phantom.labels == 1).sum() * np.diff(phantom.grid.x[:2])[0] * np.diff(phantom.grid.z[:2])[0]
    radius = math.sqrt(area / math.pi)
    places = [(level, discs[level], radius) for level in LEVELS_DB]
    xs, zs = (np.sort([center[axis] for center in discs.values()]).reshape(3, 3).mean(axis=1) for axis in (0, 1))
    gaps = [(0, ((xs[i] + xs[i + 1]) / 2, (zs[j] + zs[j + 1]) / 2), GAP * radius) for i in (0, 1) for j in (0, 1)]
    for level, (x, z), r in [*places, *gaps]:
        distance = np.hypot(grid.x - x, grid.z[:, None] - z) / r
        yield Site(level, distance <= CORE, (distance >= MARGIN) & (distance <= WIDTH))


def _mean(values: list) -> float:
    return float(np.mean(values)) if values else math.nan
