"""Speckle tracking on a rotating disk: both components of the motion, without Doppler's angle."""

import os

import matplotlib.pyplot as plt
import numpy as np

import ussim

SMALL = "USSIM_SMALL" in os.environ  # a quick run
probe, rate = ussim.load_probe("L11-5v"), 500.0  # frames per second
acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(np.deg2rad([-8.0, 0.0, 8.0])))
disk = ussim.flow.rotating_disk(acquisition, z=20e-3, radius=7e-3, angular_velocity=10.0)
n = 120 if SMALL else 300
grid = ussim.ImageGrid(np.linspace(-8e-3, 8e-3, n), np.linspace(12e-3, 28e-3, n))

frames = ussim.simulate_frames(disk, acquisition, n_frames=2 if SMALL else 4, prf=3 * rate, frame_interval=1 / rate)
images = ussim.delay_and_sum(ussim.demodulate(frames), grid)
found = ussim.track_speckle(images, grid, block=2.5e-3)

x, z = np.meshgrid(found.x, found.z)
inside = np.hypot(x, z - 20e-3) < 6e-3
figure, axis = plt.subplots(figsize=(5, 4.6), layout="constrained")
axis.imshow(ussim.log_compress(images[0], 40), cmap="gray", extent=(-8, 8, 28, 12))
velocity_x, velocity_z = found.displacement_x * rate, found.displacement_z * rate
speed = np.hypot(velocity_x, velocity_z)
arrows = axis.quiver(
    1e3 * x[inside],
    1e3 * z[inside],
    velocity_x[inside],
    velocity_z[inside],
    1e3 * speed[inside],
    angles="xy",
    cmap="plasma",
)
axis.set(xlabel="x [mm]", ylabel="z [mm]", title="10 rad/s")
figure.colorbar(arrows, label="speed found [mm/s]")
figure.savefig("tracking.png", dpi=110)
