"""Measurements that the defaults of imaging rest on: receive aperture, detection grid, speckle.

    python benchmarks/imaging_defaults.py aperture|grid|speckle -o benchmarks/results/NAME.json

aperture: points, a cyst and the worst lobe under three rules of the receive aperture. "directivity": an element counts
within the angle at which its sensitivity falls to 0.71; "steered": within that angle of the least angle that any element
has to the pixel; "all": every element. null: the image is black there. grid: how far the brightest pixel of a point lies
below its true peak at 256 rows, and the speckle's mean / standard deviation, for ways of resampling the envelope. speckle:
the same ratio for every preset at its default distance and at half of it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import ussim
from ussim import imaging, physics
from ussim.plan import Beamforming


def directivity_f_number(probe) -> float:
    shortest = physics.shortest_wavelength(probe.center_frequency, probe.bandwidth, 1540.0)
    return physics.automatic_f_number(probe.element_width, shortest)


# --- receive aperture ------------------------------------------------------------------------------------------------

SECTOR = [(50e-3, angle) for angle in (0, 20, 32, 40, 45)]  # range, degrees
LINEAR = [(8e-3, 0.0), (25e-3, 0.0), (25e-3, 0.9), (25e-3, 1.3)]  # depth, lateral position in half apertures
APERTURES = {"P4-2v": SECTOR, "P6-3": SECTOR, "LA530": LINEAR, "L12-3v": LINEAR, "L11-5v": LINEAR}


@contextmanager
def acceptance(cosine):
    """Beamforming with another cosine of acceptance per pixel (the reference engine takes arrays)."""
    kept = Beamforming.cos_acceptance
    Beamforming.cos_acceptance = property(lambda _: cosine)
    try:
        yield
    finally:
        Beamforming.cos_acceptance = kept


def steered_cosine(probe, grid):
    x, z = grid.mesh()
    dx, dz = x[..., None] - probe.element_x, z[..., None] - probe.element_z
    angle = np.abs(np.arctan2(dx, dz) - probe.element_angle).min(axis=-1)
    return np.cos(np.minimum(angle + math.atan(1 / (2 * directivity_f_number(probe))), math.pi))


def images(iq, grid) -> dict[str, np.ndarray]:
    probe = iq.acquisition.probe
    found = {
        "directivity": ussim.delay_and_sum(iq, grid, directivity_f_number(probe), engine="cpu"),
        "all": ussim.delay_and_sum(iq, grid, 0, engine="cpu"),
    }
    with acceptance(steered_cosine(probe, grid)):
        found["steered"] = ussim.delay_and_sum(iq, grid, 1.0, engine="reference")
    return {rule: np.abs(image) for rule, image in found.items()}


def db(ratio) -> float | None:
    return round(20 * math.log10(float(ratio)), 2) if ratio > 1e-4 else None


def aperture() -> list[dict]:
    rows = []
    for name, places in APERTURES.items():
        probe = ussim.load_probe(name)
        half = probe.element_x[-1]
        sector = places is SECTOR
        waves = (
            ussim.imaging_waves(probe, "diverging", 7, math.radians(15), math.radians(90))
            if sector
            else ussim.imaging_waves(probe, "plane", 7, math.radians(10))
        )
        acquisition = ussim.Acquisition(probe, waves)
        if sector:
            area = ussim.ImageGrid(x=np.linspace(-48e-3, 48e-3, 193), z=np.linspace(10e-3, 70e-3, 121))
        else:
            area = ussim.ImageGrid(x=np.linspace(-1.6 * half, 1.6 * half, 161), z=np.linspace(4e-3, 40e-3, 145))
        for first, second in places:
            if sector:
                x, z = first * math.sin(math.radians(second)), first * math.cos(math.radians(second))
            else:
                x, z = second * half, first
            point = ussim.Scatterers(x=np.array([x]), z=np.array([z]), reflectivity=np.ones(1))
            iq = ussim.demodulate(ussim.simulate(point, acquisition, "cpu"))
            near = ussim.ImageGrid(
                x=np.linspace(x - 5e-3, x + 5e-3, 81), z=np.linspace(max(z - 5e-3, 1e-3), z + 5e-3, 81)
            )
            local, whole = images(iq, near), images(iq, area)
            px, pz = area.mesh()
            far = np.hypot(px - x, pz - z) > 6e-3
            # A cyst there: speckle everywhere but in a disk.
            rng = np.random.default_rng(1)
            n = 12000
            sx = rng.uniform(x - 9e-3, x + 9e-3, n)
            sz = rng.uniform(max(z - 9e-3, 2e-3), z + 9e-3, n)
            kept = np.hypot(sx - x, sz - z) > 3e-3
            disk = ussim.Scatterers(x=sx[kept], z=sz[kept], reflectivity=rng.rayleigh(size=kept.sum()))
            cyst = images(ussim.demodulate(ussim.simulate(disk, acquisition, "cpu")), near)
            nx, nz = near.mesh()
            distance = np.hypot(nx - x, nz - z)
            for rule in local:
                at = np.unravel_index(local[rule].argmax(), near.shape)
                power = cyst[rule] ** 2
                inside, outside = power[distance < 2e-3].mean(), power[(distance > 3.8e-3) & (distance < 5e-3)].mean()
                rows.append(
                    {
                        "probe": name,
                        "pitch_wavelengths": round(probe.pitch * probe.center_frequency / 1540, 2),
                        "x_mm": round(1e3 * x, 1),
                        "z_mm": round(1e3 * z, 1),
                        "rule": rule,
                        "peak_db": db(local[rule].max() / local["all"].max()),
                        "error_mm": round(1e3 * math.hypot(near.x[at[1]] - x, near.z[at[0]] - z), 2),
                        "lobe_db": db(whole[rule][far].max() / local[rule].max()) if local[rule].any() else None,
                        "cyst_db": round(10 * math.log10(inside / outside), 1) if inside > 0 < outside else None,
                    }
                )
                print(rows[-1], flush=True)
    return rows


# --- detection grid --------------------------------------------------------------------------------------------------


def pooled(image: np.ndarray, grid, nz: int, nx: int) -> dict[str, np.ndarray]:
    cells = np.abs(image).reshape(grid.shape[0], nz, grid.shape[1], nx)
    return {
        "mean": cells.mean(axis=(1, 3)),
        "rms": np.sqrt((cells**2).mean(axis=(1, 3))),
        "max": cells.max(axis=(1, 3)),
    }


def speckle_snr(envelope: np.ndarray, block: int = 32) -> float:
    """Mean / standard deviation, the median over blocks of the inner three quarters: brightness varies over an image."""
    rows, columns = envelope.shape
    inner = envelope[rows // 8 : -(rows // 8), columns // 8 : -(columns // 8)]
    ratios = [
        inner[i : i + block, j : j + block].mean() / inner[i : i + block, j : j + block].std()
        for i in range(0, inner.shape[0] - block + 1, block)
        for j in range(0, inner.shape[1] - block + 1, block)
    ]
    return round(float(np.median(ratios)), 2)


def grid() -> list[dict]:
    rows = []
    for name in ("L14-5W/60", "L12-3v", "L11-5v", "C5-2v", "P4-2v"):
        probe = ussim.load_probe(name)
        acquisition = ussim.Acquisition(probe, ussim.imaging_waves(probe))
        asked = ussim.ImageGrid.for_acquisition(acquisition)
        nz, nx = imaging.fine_factors(probe, asked, 1540.0)
        rng = np.random.default_rng(0)
        (left, right), (top, bottom) = probe.imaging.x, probe.imaging.z
        columns, lines = np.meshgrid(
            np.linspace(0.75 * left, 0.75 * right, 6), np.linspace(top + 6e-3, bottom - 3e-3, 6)
        )
        x = (columns + rng.uniform(-5e-4, 5e-4, columns.shape)).ravel()
        z = (lines + rng.uniform(-5e-4, 5e-4, lines.shape)).ravel()
        points = ussim.Scatterers(x=x, z=z, reflectivity=np.ones(x.size))
        iq = ussim.demodulate(ussim.simulate(points, acquisition, "cpu"))
        true = []
        for px, pz in zip(x, z, strict=True):
            near = ussim.ImageGrid(x=np.linspace(px - 4e-4, px + 4e-4, 41), z=np.linspace(pz - 4e-4, pz + 4e-4, 81))
            true.append(np.abs(ussim.delay_and_sum(iq, near, engine="cpu")).max())
        scatterers = ussim.scatterers_from_image(np.ones((256, 256)), asked, acquisition, 0)
        speckle = ussim.demodulate(ussim.simulate(scatterers, acquisition, "cpu"))
        seconds, found = {}, []
        for data in (iq, speckle):
            started = time.perf_counter()
            center = np.abs(ussim.delay_and_sum(data, asked, engine="cpu"))
            seconds["center"] = time.perf_counter() - started
            started = time.perf_counter()
            fine = ussim.delay_and_sum(data, imaging.refine(asked, nz, nx), engine="cpu")
            seconds["fine"] = time.perf_counter() - started
            found.append({"center": center} | pooled(fine, asked, nz, nx))
        px, pz = asked.mesh()
        for way in found[0]:
            losses = [
                db(found[0][way][(np.abs(px - x[i]) < 1e-3) & (np.abs(pz - z[i]) < 1e-3)].max() / true[i])
                for i in range(x.size)
            ]
            rows.append(
                {
                    "probe": name,
                    "fine": [nz, nx],
                    "way": way,
                    "peak_median_db": round(float(np.median(losses)), 2),
                    "peak_worst_db": round(float(np.min(losses)), 2),
                    "peak_spread_db": round(float(np.std(losses)), 2),
                    "speckle_snr": speckle_snr(found[1][way]),
                    "seconds": round(seconds["center" if way == "center" else "fine"], 2),
                }
            )
            print(rows[-1], flush=True)
    return rows


# --- speckle ---------------------------------------------------------------------------------------------------------


def speckle() -> list[dict]:
    rows = []
    for name in ussim.probe_names():
        probe = ussim.load_probe(name)
        acquisition = ussim.Acquisition(probe, ussim.imaging_waves(probe))
        asked = ussim.ImageGrid.for_acquisition(acquisition)
        wavelength = physics.shortest_wavelength(probe.center_frequency, probe.bandwidth, 1540.0)
        row = {"probe": name}
        for distance in (1.0, 0.5):
            ratios = {"center": [], "image": []}
            for seed in range(2 if distance == 1.0 else 1):
                scatterers = ussim.scatterers_from_image(
                    np.ones((256, 256)), asked, acquisition, seed, distance * wavelength
                )
                iq = ussim.demodulate(ussim.simulate(scatterers, acquisition, "cpu"))
                ratios["center"].append(speckle_snr(ussim.envelope_image(iq, asked, fine=(1, 1), engine="cpu")))
                ratios["image"].append(speckle_snr(ussim.envelope_image(iq, asked, engine="cpu")))
            for key, values in ratios.items():
                row[f"{key} at {distance:g}"] = round(float(np.mean(values)), 2)
        row["fine"] = imaging.fine_factors(probe, asked, 1540.0)
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("aperture", "grid", "speckle"))
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    rows = {"aperture": aperture, "grid": grid, "speckle": speckle}[arguments.table]()
    if arguments.output is not None:
        arguments.output.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
