"""The figure of docs/realism.md: cysts as an ideal scanner sees them, and as seven real ones do (python docs/realism.py)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ussim

PROBE = ussim.load_probe("L11-5v")
IDEAL = ussim.Acquisition(PROBE, ussim.imaging_waves(PROBE, n_transmits=5))
GRID = ussim.ImageGrid(x=np.linspace(-16e-3, 16e-3, 161), z=np.linspace(5e-3, 40e-3, 176))
CURVE = ussim.TimeGain([0.0, 12e-3, 20e-3, 28e-3, 40e-3], [0.0, 8.0, -8.0, 8.0, 0.0])
SPEED_ERROR = 0.05
# What changes of the acquisition, under the title of its panel.
SCANNERS = {
    "none of it": {},
    "noise 5 dB below the echoes": {"receive_chain": ussim.ReceiveChain(snr_db=5.0)},
    "time gain off by ±8 dB": {"receive_chain": ussim.ReceiveChain(time_gain=CURVE)},
    "5 bits, clipped by 20 dB": {"receive_chain": ussim.ReceiveChain(n_bits=5, headroom_db=-20.0)},
    "20 % dead, gains ±6 dB": {"element_errors": ussim.ElementErrors(6.0, dead_fraction=0.2)},
    "backscatter with $f^4$": {"medium": ussim.Medium(backscatter_exponent=4.0)},
    "aberration, 50 ns over 4 mm": {"aberration": ussim.PhaseScreen(50e-9, 4e-3)},
    "speed of sound off by 5 %": {},
}


def main() -> None:
    """Draw the panels."""
    x, z = ((float(axis[0]), float(axis[-1])) for axis in (GRID.x, GRID.z))
    scatterers = ussim.phantoms.cysts(x, z).scatterers(IDEAL, 0)
    figure, axes = plt.subplots(2, 4, figsize=(10, 5.8), sharex=True, sharey=True, layout="constrained")
    extent = (1e3 * x[0], 1e3 * x[1], 1e3 * z[1], 1e3 * z[0])
    for axis, (title, changes) in zip(axes.flat, SCANNERS.items(), strict=True):
        acquisition = replace(IDEAL, **changes)
        believed = acquisition.medium.speed_of_sound * (1 + (SPEED_ERROR if "speed" in title else 0.0))
        rf = ussim.simulate(scatterers, ussim.with_steering_speed(acquisition, believed))
        envelope = ussim.envelope_image(ussim.demodulate(rf), GRID, speed_of_sound=believed)
        axis.imshow(ussim.log_compress(envelope, 50), cmap="gray", vmin=0, vmax=1, extent=extent)
        axis.set_title(title, fontsize=9)
    for axis in axes[:, 0]:
        axis.set_ylabel("z [mm]")
    for axis in axes[1]:
        axis.set_xlabel("x [mm]")
    path = Path(__file__).with_name("images") / "realism.webp"
    figure.savefig(path, dpi=90, pil_kwargs={"quality": 70, "method": 6})


if __name__ == "__main__":
    main()
