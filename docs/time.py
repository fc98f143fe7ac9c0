"""The figure of docs/time.md: one plane wave on the clocks of five toolkits (python docs/time.py)."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ussim

ANGLE = np.deg2rad(15)
FIRING = slice(16, 48)  # of 64 elements: a sub-aperture
PROBE = ussim.load_probe("P4-2v")


def main() -> None:
    medium = ussim.Medium()
    whole = ussim.PlaneWaves(ANGLE).delays(PROBE, medium)[0]
    weights = np.zeros(PROBE.n_elements)
    weights[FIRING] = 1
    panels = {
        "MUST; CustomTransmits:\ndelays as given": ussim.CustomTransmits(whole, weights),
        'Verasonics, zea; "first":\nthe first element fires': ussim.PlaneWaves(ANGLE, weights),
        'Field II, USTB, PICMUS; "center":\nthe wave passes the center': ussim.PlaneWaves(
            ANGLE, weights, time_reference="center"
        ),
    }
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharey=True, layout="constrained")
    x = 1e3 * PROBE.element_x
    for axis, (title, waves) in zip(axes, panels.items(), strict=True):
        delays = 1e6 * waves.delays(PROBE, medium)[0]
        axis.plot(x, delays, color="0.75", linewidth=1.5, label="elements that are off")
        axis.plot(x[FIRING], delays[FIRING], color="tab:blue", linewidth=3, label="elements that fire")
        axis.axhline(0, color="black", linewidth=0.8)
        axis.axvline(0, color="black", linewidth=0.8, linestyle=":")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("x [mm]")
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    axes[0].set_ylabel("firing time [µs]")
    axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(Path(__file__).with_name("images") / "time.png", dpi=110)


if __name__ == "__main__":
    main()
