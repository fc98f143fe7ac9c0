"""Full-matrix capture: each element fires alone, so that every pixel can be a transmit focus afterwards."""

import os

import matplotlib.pyplot as plt
import numpy as np

import ussim

SMALL = "USSIM_SMALL" in os.environ  # a quick run
probe = ussim.load_probe("P4-2v")
n = 64 if SMALL else 256
grid = ussim.ImageGrid(np.linspace(-20e-3, 20e-3, n), np.linspace(10e-3, 60e-3, n))
x = np.tile([-12e-3, -4e-3, 4e-3, 12e-3], 4)
z = np.repeat([17e-3, 29e-3, 41e-3, 53e-3], 4)
wires = ussim.Scatterers(x, z, np.ones(16))
sequences = {
    "one plane wave": ussim.PlaneWaves(0.0),
    "one focus at 35 mm": ussim.FocusedWaves(x=0.0, z=35e-3),
    "64 single elements": ussim.SyntheticAperture(),
}

figure, axes = plt.subplots(1, 3, figsize=(10, 4.3), sharey=True, layout="constrained")
for axis, (title, waves) in zip(axes, sequences.items(), strict=True):
    iq = ussim.demodulate(ussim.simulate(wires, ussim.Acquisition(probe, waves)))
    image = ussim.delay_and_sum(iq, grid, f_number=1.0, transmit_weights=None)
    axis.imshow(ussim.log_compress(image, 50), cmap="gray", extent=(-20, 20, 60, 10))
    axis.set(title=title, xlabel="x [mm]")
axes[0].set_ylabel("z [mm]")
figure.savefig("full_matrix.png", dpi=110)
