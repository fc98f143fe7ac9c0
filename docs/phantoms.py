"""The figure of the phantoms: each as an image and as the L11-5v sees it (python docs/phantoms.py)."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt

import ussim

RANGE_DB = 45.0


def main() -> None:
    probe = ussim.load_probe("L11-5v")
    acquisition = ussim.Acquisition(probe, ussim.imaging_waves(probe))
    grid = ussim.ImageGrid.for_acquisition(acquisition, (256, 256))
    millimeters = 1e3 * grid.x[0], 1e3 * grid.x[-1], 1e3 * grid.z[-1], 1e3 * grid.z[0]
    names = ussim.phantoms.names()
    figure, axes = plt.subplots(4, len(names) // 2, figsize=(11, 9.4), sharex=True, sharey=True, layout="constrained")
    for index, name in enumerate(names):
        row, column = divmod(index, len(names) // 2)
        phantom = ussim.phantoms.make(name)
        iq = ussim.demodulate(ussim.simulate(phantom.scatterers(acquisition), acquisition))
        seen = ussim.log_compress(ussim.envelope_image(iq, grid), RANGE_DB)
        for axis, picture in zip(axes[2 * row : 2 * row + 2, column], (phantom.image(), seen), strict=True):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=millimeters)
        axes[2 * row, column].set_title(name, fontsize=10)
    for axis in axes[:, 0]:
        axis.set_ylabel("z [mm]")
    for axis in axes[-1]:
        axis.set_xlabel("x [mm]")
    figure.savefig(Path(__file__).parent / "images" / "phantoms.png", dpi=80)


if __name__ == "__main__":
    main()
