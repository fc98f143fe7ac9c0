"""A randomized dataset: phantoms, probes' fields, transmits and noise drawn for each sample."""

import os

import matplotlib.pyplot as plt

import datagen

SMALL = "USSIM_SMALL" in os.environ  # a quick run
recipe = datagen.Recipe(
    source="phantom",
    probes=("L11-5v",),
    limit=2 if SMALL else 12,
    size=64 if SMALL else 192,
    patches=False,
    seed=7,
    randomize=datagen.Ranges(zoom=[1, 2.5], n_transmits=[1, 15], snr_db=[10, 40], dynamic_range_db=[35, 60]),
)
datagen.build(recipe, "sheet.zarr", overwrite=True)
pairs = datagen.open_pairs("sheet.zarr", probe="L11-5v")

figure, axes = plt.subplots(4, 6, figsize=(11, 7.6), layout="constrained")
for index in range(len(pairs)):
    hq, lq = pairs[index]
    row, column = divmod(index, 6)
    axes[2 * row, column].imshow(hq, cmap="gray", vmin=0, vmax=1)
    axes[2 * row + 1, column].imshow(lq, cmap="gray", vmin=0, vmax=1)
for axis in axes.flat:
    axis.set_axis_off()
figure.suptitle("HQ above LQ")
figure.savefig("contact_sheet.png", dpi=110)
