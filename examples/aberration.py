"""Aberration: a body wall that delays each element by another time, and its correction.

A near-field phase screen of 50 ns rms lies on transmit and receive. A beamformer that takes the medium for homogeneous
blurs; one that knows the screen restores the points.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter1d

import ussim

SMALL = "USSIM_SMALL" in os.environ  # a quick run
probe, medium = ussim.load_probe("L11-5v"), ussim.Medium()
screen = gaussian_filter1d(np.random.default_rng(3).standard_normal(probe.n_elements), 5.0)  # correlated over 3 mm
screen *= 50e-9 / screen.std()  # s
waves = ussim.FocusedWaves(x=np.linspace(-8e-3, 8e-3, 9 if SMALL else 33), z=25e-3)
ideal = waves.delays(probe, medium)
points = ussim.Scatterers(x=[-5e-3, 0.0, 5e-3], z=[25e-3, 25e-3, 25e-3], reflectivity=[1.0, 1.0, 1.0])
grid = ussim.ImageGrid(np.linspace(-8e-3, 8e-3, 96 if SMALL else 256), np.linspace(22e-3, 28e-3, 60 if SMALL else 192))


def image_of(fired, heard):
    """Simulate with these errors, s, of firing and of hearing; beamform as if there were none."""
    recorded = ussim.Acquisition(probe, ussim.CustomTransmits(ideal + fired), medium, receive_delays=heard)
    rf = ussim.simulate(points, recorded)
    assumed = ussim.Acquisition(probe, waves, medium)
    iq = ussim.demodulate(ussim.RFData(rf.samples, assumed, rf.sampling_frequency, start_time=rf.start_time))
    return ussim.delay_and_sum(iq, grid, 1.5)


cases = {
    "homogeneous": image_of(0 * screen, 0 * screen),
    "aberrated": image_of(screen, screen - screen.min()),
    "transmit corrected": image_of(0 * screen, screen - screen.min()),
}
figure, axes = plt.subplots(1, 3, figsize=(11, 2.5), sharey=True, layout="constrained")
peak = np.abs(cases["homogeneous"]).max()
for axis, (title, image) in zip(axes, cases.items(), strict=True):
    level = 20 * np.log10(np.maximum(np.abs(image) / peak, 1e-5))
    axis.imshow(level, vmin=-50, vmax=0, cmap="gray", extent=(-8, 8, 28, 22))
    axis.set(title=f"{title}: {level.max():.1f} dB", xlabel="x [mm]")
axes[0].set_ylabel("z [mm]")
figure.savefig("aberration.png", dpi=110)
