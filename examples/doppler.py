"""Color Doppler of a vessel with laminar flow.

Scatterers that move between firings turn the phase of the images; lag-one autocorrelation makes it a velocity along the
beam. Steering the wave gives a vessel that runs across the beam a component to measure.
"""

import os

import matplotlib.pyplot as plt
import numpy as np

import ussim

SMALL = "USSIM_SMALL" in os.environ  # a quick run
probe, prf = ussim.load_probe("L11-5v"), 6000.0  # Hz
acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(np.deg2rad(10.0)))
vessel = ussim.flow.parabolic_vessel(
    acquisition, z=18e-3, radius=3e-3, angle=np.deg2rad(20), peak_velocity=0.4, length=20e-3, tissue_db=20.0
)
n = 64 if SMALL else 200
grid = ussim.ImageGrid(np.linspace(-7e-3, 7e-3, n), np.linspace(12e-3, 24e-3, n))

frames = ussim.simulate_frames(vessel, acquisition, n_frames=4 if SMALL else 16, prf=prf)
images = ussim.delay_and_sum(ussim.demodulate(frames), grid)  # (n_frames, nz, nx)
blood = ussim.wall_filter(images, order=1)
found = ussim.color_doppler(blood, frames.frame_rate, acquisition, smoothing=5)

x, z = 1e3 * grid.x, 1e3 * grid.z
extent = (x[0], x[-1], z[-1], z[0])
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
axes[0].imshow(ussim.log_compress(images[0], 50), cmap="gray", extent=extent)
axes[0].set(title="B-mode", xlabel="x [mm]", ylabel="z [mm]")
axes[1].imshow(ussim.log_compress(images[0], 50), cmap="gray", extent=extent)
strong = found.power > found.power.max() / 50
velocity = np.where(strong, 100 * found.velocity, np.nan)
color = axes[1].imshow(velocity, cmap="RdBu_r", vmin=-15, vmax=15, extent=extent)
axes[1].set(title="towards the array, of 40 cm/s peak", xlabel="x [mm]")
figure.colorbar(color, ax=axes[1], label="velocity [cm/s]")
figure.savefig("doppler.png", dpi=110)
