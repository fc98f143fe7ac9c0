"""Small pairs for the studies of learning: MRI slices and phantoms under one probe, with several draws of speckle each.

A ninth of the probe's field and few transmits, so that a pair costs a fraction of a second; kept in one .npz file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import ussim
from datagen.plan.slices import hq_slices, resize, to_uint8
from ussim.commands import console
from ussim.volumes.reading import open_volume

PROBE, ZOOM, TRANSMITS, RANGE_DB = "L11-5v", 3.0, 3, 40.0
PHANTOMS = ("lesions", "liver", "layers", "muscle", "vessel", "calcifications", "heart", "fetus", "cysts")
# Subject -> file below the shared reference data. Two brains, two abdomens, a knee, a head.
MRI = {
    "brain-mni": "mri_nifti/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
    "brain-nibabel": "mri_nifti/nibabel_example4d.nii.gz",
    "abdomen": "mri_nifti/abdomen_totalseg_example_mr_3mm.nii.gz",
    "knee": "mri_nifti/knee_mese_te1.nii.gz",
    "head": "mri_npy/dipy_t1_coronal_slice.npy",
}
SCALES = (0.5, 1.0)  # side of a random cut, of the square slice


@dataclass(frozen=True, eq=False)
class Pairs:
    """A pairs object as `irsde` takes it: hq (n, nz, nx) and lq (n, draws, nz, nx), uint8; the draw that is shown."""

    hq: np.ndarray
    lq: np.ndarray
    samples: list[dict[str, Any]]
    draw: int | None = 0  # None: every draw is a pair of its own
    probes: tuple[str, ...] = (PROBE,)

    def __len__(self) -> int:
        return len(self.hq)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        draw = self.draw or 0
        return self.hq[i] / np.float32(255), self.lq[i, draw] / np.float32(255)

    def mask(self, i: int) -> np.ndarray:
        """Return the field: every pixel."""
        return np.ones(self.hq.shape[1:], bool)

    def draws(self, i: int) -> np.ndarray:
        """Return every LQ image of a pair, (draws, nz, nx) in [0, 1]."""
        return self.lq[i] / np.float32(255)

    def select(self, keep: Callable[[dict[str, Any]], bool] | Sequence[int]) -> Pairs:
        """Return some pairs, by a question or by their places."""
        places = [i for i, row in enumerate(self.samples) if keep(row)] if callable(keep) else list(keep)
        return Pairs(self.hq[places], self.lq[places], [self.samples[i] for i in places], self.draw, self.probes)

    def every_draw(self) -> Pairs:
        """Return a pair for each draw of speckle."""
        n = self.lq.shape[1]
        rows = [row | {"id": f"{row['id']}-{k}"} for row in self.samples for k in range(n)]
        return Pairs(np.repeat(self.hq, n, 0), self.lq.reshape(-1, 1, *self.lq.shape[2:]), rows)


def small_pairs(
    path: Path, data: Path, counts: dict[str, int], n_phantoms: int, size: int = 64, n_draws: int = 2, seed: int = 0
) -> Pairs:
    """Return the pairs in a file, simulated first where there is none.

    Parameters
    ----------
    counts : subject of `MRI` -> cuts of its slices.
    n_phantoms : each a subject of its own.
    """
    if not path.exists():
        plan = [(name, k) for name, n in counts.items() for k in range(n)]
        plan += [(PHANTOMS[k % len(PHANTOMS)], k) for k in range(n_phantoms)]
        slices = {name: [s.image for s in hq_slices(open_volume(data / MRI[name]), None, 1, 0.2)] for name in counts}
        made = []
        with console.Progress("simulating", len(plan)) as bar:
            for name, k in plan:
                made.append(_simulate(name, k, slices.get(name, ()), size, n_draws, seed))
                bar.advance()
        rows = [
            {"id": f"{name}-{k}", "subject": name if name in MRI else f"phantom-{k}", "source": "mri" if name in MRI else
             "phantom", "fold": 0}
            for name, k in plan
        ]  # fmt: skip
        hq, lq = (np.stack(part) for part in zip(*made, strict=True))
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, hq=hq, lq=lq, samples=json.dumps(rows))
    with np.load(path) as file:
        return Pairs(file["hq"], file["lq"], json.loads(str(file["samples"])))


def _simulate(
    name: str, k: int, slices: Sequence[np.ndarray], size: int, n_draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Grey image and draws of its B-mode, uint8."""
    rng = np.random.default_rng([seed, k, *name.encode()])
    probe = ussim.load_probe(PROBE)
    acquisition = ussim.Acquisition(probe, ussim.imaging_waves(probe, n_transmits=TRANSMITS), ussim.Medium())
    extents = []
    for low, high in (probe.imaging.x, probe.imaging.z):
        start = low + rng.random() * (high - low) * (1 - 1 / ZOOM)
        extents.append((start, start + (high - low) / ZOOM))
    grid = ussim.ImageGrid.for_acquisition(acquisition, (size, size), *extents)
    if len(slices):
        image = slices[int(rng.integers(len(slices)))]
        side = round(rng.uniform(*SCALES) * min(image.shape))
        row, column = (int(rng.integers(n - side + 1)) for n in image.shape)
        grey = resize(image[row : row + side, column : column + side].astype(np.float32) / 255, (size, size))
    else:
        phantom = ussim.phantoms.make(name, *extents, seed=int(rng.integers(2**31)), rows=2 * size)
        grey = resize(phantom.image(RANGE_DB), (size, size))
    hq = to_uint8(grey)
    draws = []
    for _ in range(n_draws):
        scatterers = ussim.scatterers_from_image(hq, grid, acquisition, rng, dynamic_range_db=RANGE_DB)
        image = ussim.envelope_image(ussim.demodulate(ussim.simulate(scatterers, acquisition)), grid)
        draws.append(to_uint8(np.clip(1 + 20 * np.log10(np.maximum(image / image.max(), 1e-6)) / RANGE_DB, 0, 1)))
    return hq, np.stack(draws)


TRAINING, CALIBRATION, TESTING = ("brain-mni", "knee", "head"), "abdomen", "brain-nibabel"


def study_pairs(work: Path, data: Path, n_mri: int = 160, n_phantoms: int = 160, n_tests: int = 12) -> dict[str, Pairs]:
    """Return the pairs of a study: to learn from "mri" and "phantoms"; "calibrate" and "test", of both, with three draws.

    No MRI subject is in two of them; every phantom is a subject of its own.
    """
    shares = {name: n_mri // 2 if name == TRAINING[0] else n_mri // 4 for name in TRAINING}
    test = small_pairs(
        work / "test.npz", data, {CALIBRATION: n_tests, TESTING: n_tests}, 2 * n_tests, n_draws=3, seed=1
    )
    phantoms = [i for i, row in enumerate(test.samples) if row["source"] == "phantom"]
    return {
        "mri": small_pairs(work / "mri.npz", data, shares, 0, n_draws=1),
        "phantoms": small_pairs(work / "phantoms.npz", data, {}, n_phantoms, n_draws=1),
        "calibrate": test.select(
            [i for i, row in enumerate(test.samples) if row["subject"] == CALIBRATION] + phantoms[:n_tests]
        ),
        "test": test.select(
            [i for i, row in enumerate(test.samples) if row["subject"] == TESTING] + phantoms[n_tests:]
        ),
    }
