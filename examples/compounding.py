"""Plane-wave compounding, from 1 to 31 angles.

More angles, coherently summed, fill cysts less and narrow the point spread function; the price is the frame rate.
"""

import os

import matplotlib.pyplot as plt
import numpy as np

import ussim

SMALL = "USSIM_SMALL" in os.environ  # a quick run
counts = (1, 3) if SMALL else (1, 3, 7, 15, 31)

probe = ussim.load_probe("L11-5v")
phantom = ussim.phantoms.cysts()
figure, axes = plt.subplots(1, len(counts), figsize=(13, 3.2), sharey=True, layout="constrained")
for axis, n in zip(axes, counts, strict=True):
    angles = np.deg2rad(np.linspace(-16, 16, n)) if n > 1 else 0.0
    acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(angles))
    grid = ussim.ImageGrid.for_acquisition(acquisition, (64, 64) if SMALL else (256, 256))
    iq = ussim.demodulate(ussim.simulate(phantom.scatterers(acquisition), acquisition))
    bmode = ussim.log_compress(ussim.envelope_image(iq, grid), 50)
    x, z = 1e3 * grid.x, 1e3 * grid.z
    axis.imshow(bmode, cmap="gray", extent=(x[0], x[-1], z[-1], z[0]))
    axis.set(title=f"{n} plane wave{'s' * (n > 1)}", xlabel="x [mm]")
axes[0].set_ylabel("z [mm]")
figure.savefig("compounding.png", dpi=110)
