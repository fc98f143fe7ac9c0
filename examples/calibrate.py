"""A probe fitted to a recording of wires: what the file says wrongly is found through the simulator."""

import os
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

import ussim

SMALL = "USSIM_SMALL" in os.environ  # a quick run
nominal = ussim.load_probe("P4-2v")
true = replace(nominal, name="scanner", center_frequency=2.9e6, bandwidth=0.6)
angles = ussim.PlaneWaves(np.deg2rad([-8.0, 0.0, 8.0]))
waves = ussim.CustomTransmits(
    angles.delays(nominal, ussim.Medium(1540.0))
)  # as the scanner fires, which assumes 1540 m/s
depths = np.linspace(20e-3, 60e-3, 3 if SMALL else 5)
wires = ussim.Scatterers(np.linspace(-8e-3, 8e-3, depths.size), depths, np.ones(depths.size))
rf = ussim.simulate(wires, ussim.Acquisition(true, waves, ussim.Medium(1520.0), sampling_frequency=16e6))
noise = 0.02 * rf.samples.std() * np.random.default_rng(0).standard_normal(rf.samples.shape)
said = ussim.Acquisition(nominal, waves, ussim.Medium(1540.0), sampling_frequency=16e6)  # what the file says
recorded = ussim.RFData(np.float32(rf.samples + noise), said, 16e6)

found = ussim.calibrate(recorded, "wires", element_delays=False)
print(found)

again = ussim.simulate(wires, found.acquisition, n_samples=rf.samples.shape[-1])
t = 1e6 * np.arange(rf.samples.shape[-1]) / 16e6
near = slice(*np.searchsorted(t, [25, 31]))
figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
for data, style, label in ((recorded, "-", "recorded"), (again, "--", "simulated with what was found")):
    line = data.samples[1, 32, near]
    axis.plot(t[near], line / np.abs(line).max(), style, label=label)
fitted = found.acquisition
axis.set_title(
    f"{fitted.probe.center_frequency / 1e6:.2f} MHz (true 2.90), {fitted.medium.speed_of_sound:.0f} m/s (true 1520)"
)
axis.set(xlabel="time [µs]", ylabel="echo, normalized")
axis.legend(frameon=False, fontsize=8)
figure.savefig("calibrate.png", dpi=110)
