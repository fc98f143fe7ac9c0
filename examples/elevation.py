"""Elevation: a probe hears a slice that has a thickness, and what lies beside the plane fills small cysts.

Both pictures have the same two spheres without echoes. In the plane they are dark; in a slab 6 mm thick the one at the
lens's depth (dotted) stays so, the deeper one fills with what lies before and behind it.
"""

import os

import matplotlib.pyplot as plt
import numpy as np

import ussim

SMALL = "USSIM_SMALL" in os.environ  # a quick run
probe = ussim.load_probe("L11-5v")
acquisition = ussim.Acquisition(probe, ussim.imaging_waves(probe, n_transmits=1 if SMALL else 7))
n, density = (48, 2) if SMALL else (192, 24)  # pixels; scatterers per square millimeter
grid = ussim.ImageGrid(np.linspace(-5e-3, 5e-3, n), np.linspace(13e-3, 43e-3, 3 * n))
focus = probe.elevation_focus
spheres = [(focus, 2e-3), (2 * focus, 2e-3)]  # depth, radius


def tissue(thickness):
    """Return scatterers of a slab, the spheres left out; a thickness of 0 is the plane alone."""
    rng = np.random.default_rng(0)
    count = int(density * 12 * 32 * max(1, thickness / 1e-3))
    x, z = rng.uniform(-6e-3, 6e-3, count), rng.uniform(12e-3, 44e-3, count)
    y = rng.uniform(-0.5, 0.5, count) * thickness
    outside = np.all([x**2 + y**2 + (z - depth) ** 2 > radius**2 for depth, radius in spheres], axis=0)
    return ussim.Scatterers(x[outside], z[outside], rng.rayleigh(size=outside.sum()), y[outside])


figure, axes = plt.subplots(1, 3, figsize=(8, 6.5), sharey=True, layout="constrained")
depth = ussim.ImageGrid(np.zeros(1), grid.z)
beside = np.linspace(-3e-3, 3e-3, 13 if SMALL else 61)
beam = np.stack([ussim.pressure_field(acquisition, depth, y=y).reshape(-1, len(grid.z))[0] for y in beside], axis=-1)
beam = 20 * np.log10(beam / beam.max(axis=1, keepdims=True))
axes[0].imshow(beam, vmin=-30, vmax=0, cmap="magma", extent=(-3, 3, 43, 13), aspect="auto")
axes[0].axhline(1e3 * focus, color="white", linestyle=":")
axes[0].set(title="beam across the plane", xlabel="y [mm]", ylabel="z [mm]")
for axis, thickness in zip(axes[1:], (0.0, 6e-3), strict=True):
    iq = ussim.demodulate(ussim.simulate(tissue(thickness), acquisition))
    axis.imshow(
        ussim.log_compress(ussim.delay_and_sum(iq, grid), 50), cmap="gray", extent=(-5, 5, 43, 13), aspect="auto"
    )
    axis.set(title=f"slab of {1e3 * thickness:.0f} mm" if thickness else "plane", xlabel="x [mm]")
figure.savefig("elevation.png", dpi=110)
