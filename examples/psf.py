"""The point spread function of each probe.

A wire at the middle of each probe's default field, seen by its default transmits: the beam is wider than the pulse is long,
and widest where the aperture looks small.
"""

import os

import matplotlib.pyplot as plt
import numpy as np

import ussim
from ussim.resolution import point_spread

SMALL = "USSIM_SMALL" in os.environ  # a quick run
names = ussim.probe_names()[: 2 if SMALL else None]

figure, axes = plt.subplots(2, (len(names) + 1) // 2, figsize=(11, 4.6), layout="constrained", squeeze=False)
for axis in axes.flat[len(names) :]:
    axis.remove()
for axis, name in zip(axes.flat, names, strict=False):
    probe = ussim.load_probe(name)
    acquisition = ussim.Acquisition(probe, ussim.imaging_waves(probe))
    spread = point_spread(acquisition, x=0.0, z=float(np.mean(probe.imaging.z)))
    level = 20 * np.log10(np.maximum(spread.envelope, 1e-4))
    x, z = 1e3 * spread.grid.x, 1e3 * spread.grid.z
    axis.imshow(level, vmin=-40, vmax=0, cmap="gray", extent=(x[0], x[-1], z[-1], z[0]))
    lateral, axial = 1e3 * np.array(spread.widths())
    axis.set_title(f"{name}\n{lateral:.2f} x {axial:.2f} mm", fontsize=9)
    axis.tick_params(labelsize=7)
figure.savefig("psf.png", dpi=110)
