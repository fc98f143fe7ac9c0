"""Adaptive beamformers on one cyst and two points.

Coherence factors darken what the elements do not agree on, minimum variance chooses its weights by the data, F-DMAS
correlates the channels, short-lag spatial coherence shows their coherence itself.
"""

import os

import matplotlib.pyplot as plt
import numpy as np

import ussim

SMALL = "USSIM_SMALL" in os.environ  # a quick run
probe = ussim.load_probe("L11-5v")
acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(0.0))
rng = np.random.default_rng(0)
n = 1500 if SMALL else 9000
x, z = rng.uniform(-8e-3, 8e-3, n), rng.uniform(14e-3, 28e-3, n)
echo = rng.rayleigh(1.0, n) * (np.hypot(x + 2e-3, z - 21e-3) > 3e-3)
scatterers = ussim.Scatterers(np.r_[x, 4e-3, 4.6e-3], np.r_[z, 21e-3, 21e-3], np.r_[echo, 12.0, 12.0])
nz, nx = (56, 64) if SMALL else (336, 256)
grid = ussim.ImageGrid(np.linspace(-8e-3, 8e-3, nx), np.linspace(14e-3, 28e-3, nz))

iq = ussim.demodulate(ussim.simulate(scatterers, acquisition))
methods = {
    "delay and sum": "sum",
    "coherence factor": ussim.CoherenceFactor(),
    "minimum variance": ussim.MinimumVariance(subarray=0.25),
    "delay, multiply and sum": ussim.DelayMultiplyAndSum(),
    "short-lag coherence": ussim.ShortLagSpatialCoherence(),
}
figure, axes = plt.subplots(1, 5, figsize=(13, 2.9), sharey=True, layout="constrained")
for axis, (title, combine) in zip(axes, methods.items(), strict=True):
    image = ussim.delay_and_sum(iq, grid, 1.5, combine=combine)
    coherence = title.startswith("short")  # no amplitude: shown as it is
    picture = np.clip(image.real / image.real.max(), 0, 1) if coherence else ussim.log_compress(image, 50)
    axis.imshow(picture, cmap="gray", extent=(-8, 8, 28, 14))
    axis.set(xlabel="x [mm]")
    axis.set_title(title, fontsize=10)
axes[0].set_ylabel("z [mm]")
figure.savefig("adaptive.png", dpi=110)
