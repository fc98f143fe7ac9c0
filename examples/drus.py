"""DRUS: what varies between samples of the reflectivity is speckle, and how much it varies is echogenicity."""

import os

import matplotlib.pyplot as plt
import numpy as np

import ussim
from irsde import drus
from irsde.drus.imaging import imaging_grid

SMALL = "USSIM_SMALL" in os.environ  # a quick run
probe = ussim.load_probe("P4-2v")
acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(0.0))
grid = imaging_grid(acquisition, (48, 24) if SMALL else (128, 64), 40e-3)

rng = np.random.default_rng(0)
width, depth = grid.x[-1] - grid.x[0], grid.z[-1] - grid.z[0]
n = 1000 if SMALL else 6000
x, z = rng.uniform(grid.x[0], grid.x[-1], n), rng.uniform(grid.z[0], grid.z[-1], n)
echo = rng.standard_normal(n) * (np.hypot(x, z - 40e-3) > width / 5)
rf = ussim.simulate(ussim.Scatterers(x, z, echo), acquisition)

operator = drus.operator(acquisition, grid, kind="kronecker")
by = drus.beamform(rf, grid)
prior = drus.LocalVariancePrior()  # needs no training; drus.load_prior("reflectivity") is a trained one
samples = drus.sample(operator, by, prior, n_samples=4 if SMALL else 20, steps=5 if SMALL else 50, seed=0)
pictures = {
    "delay and sum": ussim.delay_and_sum(ussim.demodulate(rf), grid),
    "mean of the samples": drus.mean(samples),
    "their variance": drus.variance_image(samples),
}
figure, axes = plt.subplots(1, 3, figsize=(9, 4.2), sharey=True, layout="constrained")
for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
    level = 20 * np.log10(np.maximum(np.abs(picture) / np.percentile(np.abs(picture), 99.5), 1e-4))
    axis.imshow(level, vmin=-40, vmax=0, cmap="gray", extent=1e3 * np.array([*grid.x[[0, -1]], *grid.z[[-1, 0]]]))
    axis.set(title=title, xlabel="x [mm]")
axes[0].set_ylabel("z [mm]")
figure.savefig("drus.png", dpi=110)
