"""Ways to make an image of the same echoes: a point, a cyst and speckle under each, in one table.

7 plane waves on L11-5v. Widths are those of a point at 20 mm, at -6 and -20 dB. The cyst (4 mm, empty) lies at 20 mm in
fully developed speckle; gCNR is that of its middle and of speckle at its depth, of decibels cut at -60 (of the coherence
itself for "slsc", which has no contrast in dB), contrast the ratio of mean envelopes. Speckle mean / standard deviation is
1.91 where the envelope is Rayleigh's. A second table has widths at -6 dB over depth of a scan focused at 20 mm, imaged by
lines and after the fact, and of synthetic aperture. Seconds are processor time of the image of the cyst, 281 x 361 pixels,
compilation left out.

    python benchmarks/imaging.py [--scatterers 40000] [--out benchmarks/results]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from timing import machine

import ussim
from irsde.evaluation.metrics import cnr, gcnr, speckle_snr
from ussim.resolution import point_spread

MM = 1e-3
DEPTH, RADIUS, RANGE_DB = 20 * MM, 2 * MM, 60.0
DEPTHS = (10 * MM, 20 * MM, 32 * MM)
FIELD = (-9 * MM, 9 * MM), (13 * MM, 27 * MM)  # of the scatterers, x and z
METHODS: dict[str, dict[str, Any]] = {
    "sum": {},
    "sum, Hann": {"apodization": "hann"},
    "sum, Tukey": {"apodization": "tukey"},
    "cf": {"combine": "cf"},
    "gcf": {"combine": "gcf"},
    "mv": {"combine": "mv"},
    "mv, one time": {"combine": "mv,kernel=0"},
    "dmas": {"combine": "dmas"},
    "slsc": {"combine": "slsc"},
}


def phantom(n: int, seed: int = 0) -> ussim.Scatterers:
    """Speckle with an empty cyst."""
    rng = np.random.default_rng(seed)
    (left, right), (top, bottom) = FIELD
    x, z = rng.uniform(left, right, n), rng.uniform(top, bottom, n)
    outside = np.hypot(x, z - DEPTH) > RADIUS
    return ussim.Scatterers(x[outside], z[outside], rng.normal(size=n)[outside])


def decibels(envelope: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Envelope in dB of its mean over the region, cut at -RANGE_DB."""
    return 20 * np.log10(np.maximum(envelope / envelope[region].mean(), 10 ** (-RANGE_DB / 20)))


def judged(image: np.ndarray, grid: ussim.ImageGrid, linear: bool) -> dict[str, float | None]:
    """Contrast, CNR and gCNR of the cyst, and the statistics of the speckle beside it."""
    x, z = grid.mesh()
    inside = np.hypot(x, z - DEPTH) < 0.75 * RADIUS
    beside = (np.abs(z - DEPTH) < 0.75 * RADIUS) & (np.abs(x) > 1.5 * RADIUS)
    envelope = np.abs(image) if not linear else image.clip(0)
    shown = image if linear else decibels(envelope, beside)
    contrast = 20 * np.log10(max(envelope[inside].mean(), 1e-9) / envelope[beside].mean())
    return {
        "contrast_db": None if linear else round(float(contrast), 1),
        "cnr": round(cnr(shown, inside, beside), 2),
        "gcnr": round(gcnr(shown, inside, beside), 3),
        "speckle_snr": round(speckle_snr(envelope, beside), 2),
    }


def methods(n: int, images: dict[str, np.ndarray], grid: ussim.ImageGrid) -> list[dict[str, Any]]:
    """Return a row per method; the images of the cyst go into `images`."""
    acquisition = ussim.Acquisition(ussim.load_probe("L11-5v"), ussim.PlaneWaves(np.deg2rad(np.linspace(-12, 12, 7))))
    iq = ussim.demodulate(ussim.simulate(phantom(n), acquisition, "cpu"))
    few = ussim.ImageGrid(grid.x[:2], grid.z[:2])
    rows = []
    for name, options in METHODS.items():
        ussim.delay_and_sum(iq, few, engine="cpu", **options)  # compilation
        started = time.process_time()
        images[name] = ussim.delay_and_sum(iq, grid, engine="cpu", **options)
        spent = time.process_time() - started
        spread = point_spread(acquisition, 0.0, DEPTH, engine="cpu", **options)
        six, twenty = spread.widths(-6), spread.widths(-20)
        row = {
            "method": name,
            "lateral_6db_mm": round(six[0] / MM, 3),
            "lateral_20db_mm": round(twenty[0] / MM, 3),
            "axial_6db_mm": round(six[1] / MM, 3),
            **judged(images[name], grid, name == "slsc"),
            "seconds": round(spent, 2),
        }
        rows.append({key: None if value != value else value for key, value in row.items()})
        print(row, flush=True)
    return rows


def over_depth() -> list[dict[str, Any]]:
    """Return lateral widths of points over depth, by transmit beamforming."""
    probe = ussim.load_probe("L11-5v")
    x = probe.pitch * np.arange(-24, 25)
    on = np.abs(probe.element_x - x[:, None]) <= DEPTH / 2 / 1.5
    scan = ussim.Acquisition(probe, ussim.FocusedWaves(x, np.full(len(x), DEPTH), apodization=on.astype(float)))
    single = ussim.Acquisition(probe, ussim.SyntheticAperture(np.arange(16, 112, 4)))
    plane = ussim.Acquisition(probe, ussim.PlaneWaves(np.deg2rad(np.linspace(-12, 12, 7))))
    ways = (
        ("focused at 20 mm, scan lines", scan, {"transmit_weights": "line"}),
        ("focused at 20 mm, retrospective", scan, {"transmit_weights": "beam"}),
        ("synthetic aperture, 24 elements", single, {}),
        ("7 plane waves", plane, {}),
    )
    rows = []
    for name, acquisition, options in ways:
        spreads = [point_spread(acquisition, 0.0, depth, engine="cpu", **options) for depth in DEPTHS]
        rows.append({"transmits": name, "lateral_6db_mm": [round(s.widths()[0] / MM, 3) for s in spreads]})
        rows[-1]["off_by_mm"] = round(
            max(float(np.hypot(s.peak_x, s.peak_z - d)) for s, d in zip(spreads, DEPTHS, strict=True)) / MM, 3
        )
        print(rows[-1], flush=True)
    return rows


def markdown(rows: list[dict[str, Any]], depths: list[dict[str, Any]]) -> str:
    """Return both tables."""
    text = "# Images of the same echoes\n\n" + __doc__.split("\n\n    python")[0] + "\n\n"
    heads = (
        "method | lateral -6 dB, mm | -20 dB | axial -6 dB | contrast, dB | CNR | gCNR | speckle mean / std | seconds"
    )
    text += f"| {heads} |\n|" + "---|" * len(rows[0]) + "\n"
    text += "".join("| " + " | ".join("-" if v is None else str(v) for v in row.values()) + " |\n" for row in rows)
    text += (
        "\n| transmits | "
        + " | ".join(f"{1e3 * d:g} mm" for d in DEPTHS)
        + " | peak off by, mm |\n|"
        + "---|" * 5
        + "\n"
    )
    for row in depths:
        cells = [row["transmits"], *row["lateral_6db_mm"], row["off_by_mm"]]
        text += "| " + " | ".join(map(str, cells)) + " |\n"
    return text


def draw(images: dict[str, np.ndarray], grid: ussim.ImageGrid, path: Path) -> None:
    """Draw the cyst under each method, 60 dB; of "slsc" the coherence from 0 to 1."""
    figure, axes = plt.subplots(2, (len(images) + 1) // 2, figsize=(10, 4), layout="constrained")
    extent = [1e3 * grid.x[0], 1e3 * grid.x[-1], 1e3 * grid.z[-1], 1e3 * grid.z[0]]
    for axis, (name, image) in zip(axes.ravel(), images.items(), strict=False):
        linear = name == "slsc"
        shown = image if linear else 20 * np.log10(np.abs(image) / np.abs(image).max() + 1e-9)
        axis.imshow(shown, vmin=0 if linear else -RANGE_DB, vmax=1 if linear else 0, cmap="gray", extent=extent)
        axis.set_title(name, fontsize=8)
        axis.tick_params(labelsize=6)
    for axis in axes.ravel()[len(images) :]:
        axis.axis("off")
    figure.savefig(path, dpi=80)


def main() -> None:
    """Make the tables and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scatterers", type=int, default=40_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    grid = ussim.ImageGrid(x=np.linspace(-7 * MM, 7 * MM, 281), z=np.linspace(15.5 * MM, 24.5 * MM, 361))
    images: dict[str, np.ndarray] = {}
    rows, depths = methods(options.scatterers, images, grid), over_depth()
    options.out.mkdir(parents=True, exist_ok=True)
    report = {"probe": "L11-5v", "scatterers": options.scatterers, "methods": rows, "depths": depths}
    (options.out / "imaging.json").write_text(json.dumps(report | {"machine": machine()}, indent=1) + "\n")
    (options.out / "imaging.md").write_text(markdown(rows, depths), encoding="utf-8")
    draw(images, grid, options.out / "imaging.png")


if __name__ == "__main__":
    main()
