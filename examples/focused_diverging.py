"""Focused lines against diverging waves, on a cardiac probe.

A focused scan fires one beam per line and is sharpest at its focus; a few diverging waves light the whole sector at once.
"""

import os

import matplotlib.pyplot as plt
import numpy as np

import ussim

SMALL = "USSIM_SMALL" in os.environ  # a quick run
probe = ussim.load_probe("P4-2v")
grid = ussim.ImageGrid(
    *(np.linspace(low, high, 64 if SMALL else 256) for low, high in ((-25e-3, 25e-3), (30e-3, 80e-3)))
)
sequences = {
    "focused at 55 mm": ussim.focused_scan(probe, focus_depth=55e-3, n_lines=16 if SMALL else 64),
    "5 diverging waves": ussim.imaging_waves(probe, n_transmits=5),
    "15 diverging waves": ussim.imaging_waves(probe),
}

rng = np.random.default_rng(0)
x, z = rng.uniform(-25e-3, 25e-3, 8000), rng.uniform(30e-3, 80e-3, 8000)
echo = rng.rayleigh(1.0, x.size) * (np.hypot(x, z - 55e-3) > 7e-3)  # a cyst of 14 mm
wires = np.repeat([-12e-3, 0.0, 12e-3], 3), np.tile([37e-3, 55e-3, 73e-3], 3)
scatterers = ussim.Scatterers(np.r_[x, wires[0]], np.r_[z, wires[1]], np.r_[echo, np.full(9, 60.0)])

figure, axes = plt.subplots(1, 3, figsize=(11, 4.1), sharey=True, layout="constrained")
for axis, (title, waves) in zip(axes, sequences.items(), strict=True):
    iq = ussim.demodulate(ussim.simulate(scatterers, ussim.Acquisition(probe, waves)))
    bmode = ussim.log_compress(ussim.envelope_image(iq, grid), 50)
    axis.imshow(bmode, cmap="gray", extent=(-25, 25, 80, 30))
    axis.set(title=title, xlabel="x [mm]")
axes[0].set_ylabel("z [mm]")
figure.savefig("focused_diverging.png", dpi=110)
