"""The catalogue of phantoms, as a linear probe sees them."""

import os

import matplotlib.pyplot as plt

import ussim

SMALL = "USSIM_SMALL" in os.environ  # a quick run
probe = ussim.load_probe("L11-5v")
acquisition = ussim.Acquisition(probe, ussim.imaging_waves(probe, n_transmits=3 if SMALL else None))
grid = ussim.ImageGrid.for_acquisition(acquisition, (64, 64) if SMALL else (256, 256))
names = ussim.phantoms.names()[: 2 if SMALL else None]

figure, axes = plt.subplots(2, (len(names) + 1) // 2, figsize=(12, 5.2), layout="constrained", squeeze=False)
for axis, name in zip(axes.flat, names, strict=False):
    phantom = ussim.phantoms.make(name)
    iq = ussim.demodulate(ussim.simulate(phantom.scatterers(acquisition), acquisition))
    axis.imshow(ussim.log_compress(ussim.envelope_image(iq, grid), 45), cmap="gray")
    axis.set_title(name)
for axis in axes.flat:
    axis.set_axis_off()
figure.savefig("phantoms.png", dpi=110)
