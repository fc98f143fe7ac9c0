"""Receive apodization and f-number: the same echoes, four ways of listening.

A small f-number uses more elements: narrow, with side lobes and clutter near the array. A window over the aperture trades
width for side lobes.
"""

import os

import matplotlib.pyplot as plt
import numpy as np

import ussim

SMALL = "USSIM_SMALL" in os.environ  # a quick run
probe = ussim.load_probe("L11-5v")
acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(np.deg2rad(np.linspace(-8, 8, 5))))
scatterers = ussim.Scatterers(x=[-6e-3, 0.0, 6e-3], z=[15e-3, 20e-3, 25e-3], reflectivity=[1.0, 1.0, 1.0])
grid = ussim.ImageGrid(
    np.linspace(-10e-3, 10e-3, 80 if SMALL else 320), np.linspace(12e-3, 28e-3, 120 if SMALL else 480)
)
ways = {
    "f-number 1, box": (1.0, None),
    "f-number 3, box": (3.0, None),
    "f-number 1, Hann": (1.0, "hann"),
    "f-number 1, Tukey": (1.0, "tukey"),
}

iq = ussim.demodulate(ussim.simulate(scatterers, acquisition))
figure, axes = plt.subplots(1, 4, figsize=(12, 3.2), sharey=True, layout="constrained")
for axis, (title, (f_number, window)) in zip(axes, ways.items(), strict=True):
    image = ussim.delay_and_sum(iq, grid, f_number, apodization=window)
    axis.imshow(ussim.log_compress(image, 60), cmap="gray", extent=(-10, 10, 28, 12))
    axis.set(title=title, xlabel="x [mm]")
axes[0].set_ylabel("z [mm]")
figure.savefig("apodization.png", dpi=110)
