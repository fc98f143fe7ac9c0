"""The figures of the pages on physics, axes and performance (python docs/figures.py)."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ussim
from ussim import physics

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "benchmarks" / "results"
SPEED = 1540.0


def elements() -> plt.Figure:
    """Draw obliquity, directivity and their product, and what cutting an element does."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 2.9), layout="constrained")
    angle = np.deg2rad(np.linspace(-89, 89, 400))
    for baffle, words in (("soft", 0.0), ("rigid", np.inf), ("impedance ratio 1.75", 1.75)):
        values = [physics.obliquity(float(np.cos(a)), words) for a in angle]
        axes[0].plot(np.rad2deg(angle), values, label=baffle)
    axes[0].set(title="obliquity O(θ)", xlabel="θ [°]")
    axes[0].legend(frameon=False, fontsize=7)
    for name in ("L11-5v", "P4-2v", "C5-2v"):
        probe = ussim.load_probe(name)
        half = np.pi * probe.center_frequency / SPEED * probe.element_width
        axes[1].plot(np.rad2deg(angle), [physics.directivity(float(np.sin(a)), half) for a in angle], label=name)
    axes[1].set(title="directivity D(θ) of a whole element", xlabel="θ [°]")
    axes[1].legend(frameon=False, fontsize=7)
    probe = ussim.load_probe("L11-5v")
    x = np.linspace(-12e-3, 12e-3, 240)
    grid = ussim.ImageGrid(x=x, z=np.array([8e-3, 8.1e-3]))
    weights = np.zeros(probe.n_elements)
    weights[probe.n_elements // 2] = 1.0
    for count in (1, 2, 4, 8):
        waves = ussim.PlaneWaves(0.0, apodization=weights)
        field = ussim.pressure_field(ussim.Acquisition(probe, waves, n_subelements=count), grid)[0, 0]
        axes[2].plot(1e3 * x, 20 * np.log10(field / field.max()), label=f"{count} part{'s' * (count > 1)}")
    axes[2].set(title="one element's pressure at 8 mm [dB]", xlabel="x [mm]", ylim=(-20, 1))
    axes[2].legend(frameon=False, fontsize=7)
    return figure


def pulses() -> plt.Figure:
    """Draw spectra and two-way pulses."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 2.9), layout="constrained")
    for name in ("L11-5v", "P4-2v"):
        probe = ussim.load_probe(name)
        frequency = np.linspace(1.0, 2 * probe.center_frequency, 500)
        response = physics.probe_spectrum(frequency, probe.center_frequency, probe.bandwidth)
        axes[0].plot(1e-6 * frequency, 40 * np.log10(np.maximum(response, 1e-6)), label=name)
    axes[0].axhline(-6, color="0.7", linewidth=0.8)
    axes[0].set(title="pulse-echo response B²(f) [dB]", xlabel="f [MHz]", ylim=(-60, 2))
    axes[0].legend(frameon=False, fontsize=7)
    probe = ussim.load_probe("L11-5v")
    for cycles in (1, 3):
        t, pulse = ussim.pulse(ussim.Acquisition(probe, ussim.PlaneWaves(0.0), n_cycles=cycles), ways=2)
        axes[1].plot(1e6 * t, pulse, label=f"{cycles} cycle{'s' * (cycles > 1)}")
    axes[1].axvline(0, color="0.7", linewidth=0.8)
    axes[1].set(title="two-way pulse of L11-5v", xlabel="t [µs]")
    axes[1].legend(frameon=False, fontsize=7)
    depth = np.linspace(0, 0.1, 100)
    for frequency in (2.5e6, 5e6, 10e6):
        loss = 8.69 * physics.attenuation(frequency, 0.5) * 2 * depth
        axes[2].plot(1e3 * depth, -loss, label=f"{1e-6 * frequency:g} MHz")
    axes[2].set(title="0.5 dB/cm/MHz, there and back [dB]", xlabel="depth [mm]")
    axes[2].legend(frameon=False, fontsize=7)
    return figure


def beams() -> plt.Figure:
    """Draw firing times and pressure of a plane, a diverging and a focused wave."""
    probe = ussim.load_probe("P4-2v")
    grid = ussim.ImageGrid(x=np.linspace(-25e-3, 25e-3, 160), z=np.linspace(1e-3, 60e-3, 160))
    sequences = {
        "plane, 15°": ussim.PlaneWaves(np.deg2rad(15)),
        "diverging, 60° wide": ussim.DivergingWaves(tilts=0.0, width=np.deg2rad(60)),
        "focused at 35 mm": ussim.FocusedWaves(x=0.0, z=35e-3),
    }
    figure, axes = plt.subplots(2, 3, figsize=(10, 5), layout="constrained", height_ratios=(1, 2.4))
    for (above, below), (title, waves) in zip(axes.T, sequences.items(), strict=True):
        above.plot(1e3 * probe.element_x, 1e6 * waves.delays(probe, ussim.Medium())[0])
        above.set(title=title, xlim=(-25, 25))
        pressure = ussim.pressure_field(ussim.Acquisition(probe, waves), grid)[0]
        level = 20 * np.log10(np.maximum(pressure / pressure.max(), 1e-4))
        below.imshow(level, vmin=-30, vmax=0, cmap="inferno", extent=(-25, 25, 60, 1), aspect="auto")
        below.set(xlabel="x [mm]")
    axes[0, 0].set_ylabel("τ [µs]")
    axes[1, 0].set_ylabel("z [mm]")
    return figure


def slices() -> plt.Figure:
    """Draw the beam in elevation, and cysts in a plane, as cylinders in a slab and as spheres in a volume."""
    probe = ussim.load_probe("L11-5v")
    figure, axes = plt.subplots(1, 4, figsize=(10.8, 3.1), layout="constrained", width_ratios=(0.8, 1, 1, 1))
    acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(np.deg2rad([-5.0, 0.0, 5.0])))
    column = ussim.ImageGrid(x=np.array([0.0]), z=np.linspace(2e-3, 50e-3, 60))
    offsets = np.linspace(-5e-3, 5e-3, 41)
    beam = np.array([ussim.pressure_field(acquisition, column, y=y)[1, :, 0] for y in offsets])
    level = 20 * np.log10(beam.T / beam.max(axis=0)[:, None])
    settings = {"cmap": "inferno", "interpolation": "bilinear", "aspect": "auto"}
    axes[0].imshow(level, vmin=-30, vmax=0, extent=(-5, 5, 50, 2), **settings)
    axes[0].axhline(1e3 * probe.elevation_focus, color="w", linewidth=0.6, linestyle=":")
    axes[0].set(title="pressure across the plane", xlabel="y [mm]", ylabel="z [mm]")
    grid = ussim.ImageGrid(x=np.linspace(-7e-3, 7e-3, 140), z=np.linspace(28e-3, 42e-3, 140))
    z, y, x = np.meshgrid(grid.z, np.linspace(-4e-3, 4e-3, 41), grid.x, indexing="ij")
    holes = [(-3e-3, 32e-3, 1.2e-3), (3e-3, 32e-3, 2e-3), (-2.5e-3, 38e-3, 2.5e-3), (3.5e-3, 38e-3, 1.2e-3)]
    spheres = np.full(x.shape, 0.75)
    for center_x, center_z, radius in holes:
        spheres[np.sqrt((x - center_x) ** 2 + y**2 + (z - center_z) ** 2) < radius] = 0.0
    plane, distance = spheres[:, 20], 0.25e-3
    pictures = {
        "a plane": ussim.bmode(plane, acquisition, grid, mean_distance=distance / 2),
        "a slab of 8 mm": ussim.bmode(plane, acquisition, grid, mean_distance=distance, thickness=8e-3),
        "spheres in 8 mm": ussim.bmode(spheres, acquisition, grid, mean_distance=distance, thickness=8e-3),
    }
    for axis, (title, picture) in zip(axes[1:], pictures.items(), strict=True):
        axis.imshow(picture, vmin=0, vmax=1, cmap="gray", extent=(-7, 7, 42, 28))
        axis.set(title=title, xlabel="x [mm]")
    return figure


def frame() -> plt.Figure:
    """Draw the axes of a flat and of a convex array."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for axis, name in zip(axes, ("L11-5v", "C5-2v"), strict=True):
        probe = ussim.load_probe(name)
        x, z = 1e3 * probe.element_x, 1e3 * probe.element_z
        axis.plot(x, z, linewidth=5, color="tab:blue", solid_capstyle="butt")
        axis.set_xlim(-36, 46)
        axis.annotate("", (44, 0), (-32, 0), arrowprops={"arrowstyle": "->"})
        axis.annotate("", (0, 26), (0, -4), arrowprops={"arrowstyle": "->"})
        axis.text(44, 1, "x: lateral", ha="right", va="top")
        axis.text(1, 25, "z: depth", va="bottom")
        axis.plot(0, 0, "ko")
        axis.text(-1, -1, "(0, 0)", ha="right", va="bottom")
        axis.plot(12, 18, "o", color="tab:orange")
        axis.text(13, 18, "a pixel: image[iz, ix]", va="center", color="tab:orange")
        axis.text(x[0], z[0] - 1.5, "element 0", color="tab:blue", va="bottom", ha="center", fontsize=8)
        axis.text(
            x[-1],
            z[-1] - 1.5,
            f"element {probe.n_elements - 1}",
            color="tab:blue",
            va="bottom",
            ha="center",
            fontsize=8,
        )
        axis.set(title=name, xlim=(-36, 38), ylim=(28, -7), xlabel="mm", ylabel="mm", aspect="equal")
    return figure


def record() -> plt.Figure:
    """Draw the echo of one point, and the time that its middle has."""
    probe = ussim.load_probe("P4-2v")
    acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(np.deg2rad(10)))
    point = ussim.Scatterers([3e-3], [25e-3], [1.0])
    delays = acquisition.transmit_delays.ravel()
    rf = ussim.simulate(point, acquisition)
    t = rf.start_time + np.arange(rf.samples.shape[-1]) / rf.sampling_frequency
    figure, axis = plt.subplots(figsize=(9, 3.2), layout="constrained")
    level = np.abs(rf.samples[0]) / np.abs(rf.samples).max()
    extent = (1e6 * t[0], 1e6 * t[-1], probe.n_elements - 0.5, -0.5)
    axis.imshow(20 * np.log10(np.maximum(level, 1e-3)), cmap="gray_r", vmin=-40, vmax=0, extent=extent, aspect="auto")
    back = np.hypot(probe.element_x - point.x, point.z) / SPEED
    there = np.min(delays + np.hypot(probe.element_x - point.x, point.z) / SPEED)
    axis.plot(
        1e6 * (there + back),
        np.arange(probe.n_elements),
        color="tab:red",
        linewidth=1,
        label="delay + (there + back) / c",
    )
    axis.plot(1e6 * delays, np.arange(probe.n_elements), color="tab:blue", label="firing times")
    axis.set(xlabel="time [µs], sample k at start_time + k / sampling_frequency", ylabel="element", xlim=(-1, 45))
    axis.legend(frameon=False, fontsize=8, loc="upper center")
    return figure


def roofline() -> plt.Figure:
    """Draw the rate against the measured peak, and how time grows."""
    result = json.loads((RESULTS / "simulate.json").read_text(encoding="utf-8"))
    ours, threads = result["ussim"], result["ussim"]["threads"]
    peak = ours["fma_peak_gflop_s_a_core"] * threads
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.3), layout="constrained")
    # The least that has to move: scatterers in, channel data out. All else is a cell's and stays in the caches.
    given, made = result["workload"], 128 * result["workload"]["n_samples"] * 4
    moved = 3 * 8 * given["scatterers"] + given["transmits"] * made
    intensity = np.geomspace(1, 2e4, 100)  # flop per byte
    axes[0].loglog(
        intensity, np.minimum(peak, 10 * intensity), color="0.4", label="measured FMA peak; 10 GB/s of memory"
    )
    axes[0].loglog(1e9 * ours["gflop"] / moved, ours["gflop_s"], "o", color="tab:red", label="ussim, 20,000 scatterers")
    for name, color in (("fastsimus", "tab:blue"), ("pymust", "tab:green")):
        rate = ours["gflop"] / result[name]["all_transmits_s"]  # of the same frame, by our count of its work
        axes[0].loglog(1e9 * ours["gflop"] / moved, rate, "o", color=color, label=f"{name}, the same frame")
    axes[0].set(title="roofline", xlabel="flop per byte that has to move", ylabel="GFLOP/s", ylim=(0.05, 2 * peak))
    axes[0].legend(frameon=False, fontsize=7)
    rows = [row for row in result["scaling"] if row["transmits"] == 15]
    axes[1].loglog([row["scatterers"] for row in rows], [row["median_s"] for row in rows], "o-")
    axes[1].set(title="15 transmits", xlabel="scatterers", ylabel="seconds per frame")
    rows = sorted((row for row in result["scaling"] if row["scatterers"] == 20000), key=lambda row: row["transmits"])
    axes[2].plot([row["transmits"] for row in rows], [row["median_s"] for row in rows], "o-")
    axes[2].set(title="20,000 scatterers", xlabel="transmits", ylabel="seconds per frame", ylim=(0, None))
    return figure


FIGURES = {
    "physics-elements": elements,
    "physics-pulses": pulses,
    "physics-beams": beams,
    "elevation": slices,
    "axes": frame,
    "record": record,
    "roofline": roofline,
}


def main() -> None:
    """Draw them all."""
    for name, draw in FIGURES.items():
        figure = draw()
        figure.savefig(DOCS / "images" / f"{name}.webp", dpi=100, pil_kwargs={"quality": 85, "method": 6})
        plt.close(figure)


if __name__ == "__main__":
    main()
