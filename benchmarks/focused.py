"""Contrast of cysts under focused transmits: every transmit at every pixel, masked by hand, the default beams, scan lines.

64 foci at 24 mm on L11-5v, cysts of 6 mm at 15 and 33 mm, all elements on each focus or a walking aperture of F/2.5.
Contrast is the mean power within 2.5 mm of a cyst's center over that beside it at the same depths, before compression. The
mask by hand counts a transmit where |x - x_focus| is within |z - 24 mm| / (2 F), or a waist of one wavelength times F.

    python benchmarks/focused.py [--scatterers 30000] [--out benchmarks/results]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from timing import machine

import ussim

DEPTH, N_FOCI, F_NUMBER = 24e-3, 64, 2.5
CYSTS, RADIUS = (15e-3, 33e-3), 3e-3


def phantom(n: int, seed: int = 0) -> ussim.Scatterers:
    """Speckle over the probe's field, and two cysts without any."""
    rng = np.random.default_rng(seed)
    x, z = rng.uniform(-19e-3, 19e-3, n), rng.uniform(5e-3, 43e-3, n)
    outside = np.all([np.hypot(x, z - cyst) > RADIUS for cyst in CYSTS], axis=0)
    return ussim.Scatterers(x[outside], z[outside], rng.rayleigh(size=n)[outside])


def acquisitions() -> dict[str, ussim.Acquisition]:
    """Return the two sequences, with one row of foci."""
    probe, medium = ussim.load_probe("L11-5v"), ussim.Medium()
    foci = ussim.FocusedWaves(x=np.linspace(-18e-3, 18e-3, N_FOCI), z=np.full(N_FOCI, DEPTH))
    on = np.abs(probe.element_x - foci.x[:, None]) <= DEPTH / (2 * F_NUMBER)
    walking = ussim.CustomTransmits(np.where(on, foci.delays(probe, medium), np.nan))
    return {
        "full aperture": ussim.Acquisition(probe, foci, medium),
        f"walking F/{F_NUMBER:g}": ussim.Acquisition(probe, walking, medium),
    }


def mask_by_hand(acquisition: ussim.Acquisition, grid: ussim.ImageGrid) -> np.ndarray:
    """(n_transmits, nz, nx) 0 or 1."""
    probe = acquisition.probe
    aperture = probe.element_x[-1] - probe.element_x[0]
    f_number = F_NUMBER if isinstance(acquisition.waves, ussim.CustomTransmits) else DEPTH / aperture
    x, z = grid.mesh()
    waist = acquisition.medium.speed_of_sound / probe.center_frequency * f_number
    half = np.maximum(np.abs(z - DEPTH) / (2 * f_number), waist)
    return (np.abs(x - np.linspace(-18e-3, 18e-3, N_FOCI)[:, None, None]) <= half).astype(np.float32)


def contrast_db(image: np.ndarray, grid: ussim.ImageGrid, cyst: float) -> float:
    """Mean power inside a cyst over that beside it."""
    x, z = grid.mesh()
    power = np.abs(image.astype(np.complex128)) ** 2
    beside = (np.abs(z - cyst) < 2.5e-3) & (np.abs(x) > RADIUS + 0.6e-3) & (np.abs(x) < 7.5e-3)
    return float(10 * np.log10(power[np.hypot(x, z - cyst) < 2.5e-3].mean() / power[beside].mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scatterers", type=int, default=30_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    medium = phantom(options.scatterers)
    grid = ussim.ImageGrid(x=np.linspace(-8e-3, 8e-3, 161), z=np.linspace(11e-3, 37e-3, 521))
    rows, images = [], {}
    print(f"{'transmits':16} {'counted':22} {'15 mm':>8} {'33 mm':>8}")
    for name, acquisition in acquisitions().items():
        iq = ussim.demodulate(ussim.simulate(medium, acquisition, "cpu"))
        ways = {
            "everywhere": {"transmit_weights": None},
            "mask by hand": {"transmit_weights": mask_by_hand(acquisition, grid)},
            "beam (default)": {},
            "scan lines": {"transmit_weights": "line"},
        }
        for way, weights in ways.items():
            image = ussim.delay_and_sum(iq, grid, engine="cpu", **weights)
            images[name, way] = image
            found = [contrast_db(image, grid, cyst) for cyst in CYSTS]
            rows.append({"transmits": name, "counted": way, "contrast_db": [round(value, 2) for value in found]})
            print(f"{name:16} {way:22} {found[0]:8.1f} {found[1]:8.1f}", flush=True)
    report = {"probe": "L11-5v", "foci": N_FOCI, "focus_depth": DEPTH, "cysts": CYSTS, "scatterers": len(medium)}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "focused.json").write_text(
        json.dumps(report | {"rows": rows, "machine": machine()}, indent=1) + "\n"
    )
    draw(images, grid, options.out / "focused.png")


def draw(images: dict[tuple[str, str], np.ndarray], grid: ussim.ImageGrid, path: Path) -> None:
    """Draw the pictures side by side, down to 50 dB below the brightest percent."""
    figure, axes = plt.subplots(2, len(images) // 2, figsize=(8, 7), layout="constrained")
    extent = [1e3 * grid.x[0], 1e3 * grid.x[-1], 1e3 * grid.z[-1], 1e3 * grid.z[0]]
    for axis, ((name, way), image) in zip(axes.ravel(), images.items(), strict=True):
        envelope = np.abs(image)
        decibels = 20 * np.log10(np.maximum(envelope / np.percentile(envelope, 99), 1e-6))
        axis.imshow(decibels, vmin=-50, vmax=0, cmap="gray", extent=extent)
        axis.set_title(f"{name},\n{way}", fontsize=8)
        axis.tick_params(labelsize=6)
    figure.savefig(path, dpi=50)


if __name__ == "__main__":
    main()
