"""Despeckling before and after, by the model that comes with the package."""

import os

import matplotlib.pyplot as plt

import irsde
import ussim

SMALL = "USSIM_SMALL" in os.environ  # a quick run
probe = ussim.load_probe("C5-2v")
acquisition = ussim.Acquisition(probe, ussim.imaging_waves(probe, n_transmits=3 if SMALL else None))
grid = ussim.ImageGrid.for_acquisition(acquisition, (64, 64) if SMALL else (256, 256))
phantom = ussim.phantoms.make("liver", (grid.x[0], grid.x[-1]), (grid.z[0], grid.z[-1]), seed=4)
iq = ussim.demodulate(ussim.simulate(phantom.scatterers(acquisition, seed=0), acquisition))
bmode = ussim.log_compress(ussim.envelope_image(iq, grid), 50)

clean = irsde.restore(irsde.load("despeckler"), bmode)

figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
pictures = {"scatterers' mean level": phantom.image(50), "B-mode": bmode, "restored": clean}
for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
    axis.set(title=title)
    axis.set_axis_off()
figure.savefig("despeckle.png", dpi=110)
