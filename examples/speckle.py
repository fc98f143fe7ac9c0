"""Speckle statistics: how many scatterers per resolution cell make the Rayleigh distribution."""

import os

import matplotlib.pyplot as plt
import numpy as np

import ussim

SMALL = "USSIM_SMALL" in os.environ  # a quick run
probe = ussim.load_probe("L11-5v")
acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(0.0))
n = 80 if SMALL else 240
grid = ussim.ImageGrid(np.linspace(-6e-3, 6e-3, n), np.linspace(15e-3, 27e-3, 2 * n))
wavelength = 1540.0 / probe.center_frequency
rng = np.random.default_rng(0)

figure, axes = plt.subplots(1, 4, figsize=(12, 3.2), layout="constrained")
for axis, distance in zip(axes, (4.0, 1.5, 0.5), strict=False):
    count = int(16e-3 * 16e-3 / (distance * wavelength) ** 2)
    x, z = rng.uniform(-8e-3, 8e-3, count), rng.uniform(13e-3, 29e-3, count)
    rf = ussim.simulate(ussim.Scatterers(x, z, rng.standard_normal(count)), acquisition)
    envelope = np.abs(ussim.delay_and_sum(ussim.demodulate(rf), grid))
    axis.imshow(ussim.log_compress(envelope, 50), cmap="gray", extent=(-6, 6, 27, 15))
    axis.set_title(f"{distance:g} λ apart: SNR {envelope.mean() / envelope.std():.2f}", fontsize=10)
    bins = np.linspace(0, 4, 40)
    axes[3].hist(
        (envelope / np.sqrt((envelope**2).mean() / 2)).ravel(),
        bins,
        density=True,
        histtype="step",
        label=f"{distance:g} λ",
    )
amplitude = np.linspace(0, 4, 100)
axes[3].plot(amplitude, amplitude * np.exp(-(amplitude**2) / 2), "k--", label="Rayleigh")
axes[3].set_title("Rayleigh: SNR 1.91", fontsize=10)
axes[3].legend(frameon=False, fontsize=8)
figure.savefig("speckle.png", dpi=110)
