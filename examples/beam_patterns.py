"""Beam patterns: the pressure of a plane, a focused, a diverging and a two-focus transmit."""

import os

import matplotlib.pyplot as plt
import numpy as np

import ussim

SMALL = "USSIM_SMALL" in os.environ  # a quick run
probe = ussim.load_probe("P4-2v")
n = 64 if SMALL else 250
grid = ussim.ImageGrid(x=np.linspace(-35e-3, 35e-3, n), z=np.linspace(1e-3, 80e-3, n))
foci = ussim.FocusedWaves(x=[-15e-3, 15e-3], z=[50e-3, 50e-3])
transmits = {
    "plane, 10°": ussim.PlaneWaves(np.deg2rad(10.0)),
    "focus at 50 mm": ussim.FocusedWaves(x=0.0, z=50e-3),
    "diverging, 60° wide": ussim.DivergingWaves(tilts=0.0, width=np.deg2rad(60)),
    "two foci at once": ussim.CustomTransmits(foci.delays(probe, ussim.Medium())[None]),
}

figure, axes = plt.subplots(1, 4, figsize=(12, 3.8), sharey=True, layout="constrained")
for axis, (title, waves) in zip(axes, transmits.items(), strict=True):
    pressure = ussim.pressure_field(ussim.Acquisition(probe, waves), grid)[0]
    level = 20 * np.log10(np.maximum(pressure / pressure.max(), 1e-4))
    picture = axis.imshow(level, vmin=-30, vmax=0, cmap="inferno", extent=(-35, 35, 80, 1))
    axis.set(title=title, xlabel="x [mm]")
axes[0].set_ylabel("z [mm]")
figure.colorbar(picture, ax=axes, label="RMS pressure [dB]")
figure.savefig("beam_patterns.png", dpi=110)
