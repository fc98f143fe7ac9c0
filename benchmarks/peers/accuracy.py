"""Claim: RF is that of the model in float64, and wires appear where they are.

RF: L11-5v, one plane wave at -10 degrees, 40 scatterers, 0.5 dB/cm/MHz, against the `reference` engine (float64, the
formulas literally): relative L2 after one scale, since a toolkit's scale is its own. zea's pulse is another model: its
number says how far apart the models are, 1 being unrelated, and is no error. Wires: nine, 5 mm apart, imaged by each
toolkit's own steps, all elements, with 3 plane waves on pixels of 0.05 x 0.05 mm: largest distance from a wire to the
brightest point near it, by a parabola through its neighbors.
"""

from __future__ import annotations

import numpy as np
from asking import acquisition_of, ask, difference, not_here, save, scatterers_of, simulation_case

import ussim

SIMULATORS = ("ussim", "fastsimus", "pymust", "zea")
IMAGERS = ("ussim", "pymust", "zea")
WIRES = [(x, z) for x in (-5e-3, 0.0, 5e-3) for z in (20e-3, 25e-3, 30e-3)]


def displacement(image: np.ndarray, x: np.ndarray, z: np.ndarray) -> float:
    """Return the largest distance of a wire from its brightest point, m."""
    worst = 0.0
    for wire_x, wire_z in WIRES:
        near = (np.abs(x[None] - wire_x) < 1e-3) & (np.abs(z[:, None] - wire_z) < 1e-3)
        i, j = np.unravel_index(np.argmax(np.where(near, image, -np.inf)), image.shape)
        found_z = z[i] + summit(image[i - 1 : i + 2, j]) * (z[1] - z[0])
        found_x = x[j] + summit(image[i, j - 1 : j + 2]) * (x[1] - x[0])
        worst = max(worst, float(np.hypot(found_x - wire_x, found_z - wire_z)))
    return worst


def summit(values: np.ndarray) -> float:
    """Return where a parabola through three values is highest, in steps from the middle."""
    curvature = values[0] - 2 * values[1] + values[2]
    return float((values[0] - values[2]) / (2 * curvature)) if curvature else 0.0


def main() -> None:
    """Measure and write."""
    full = acquisition_of(3)
    acquisition = ussim.Acquisition(
        full.probe, ussim.PlaneWaves(full.waves.angles[:1]), full.medium, n_subelements=full.n_subelements
    )
    scatterers = scatterers_of(40)
    exact = ussim.simulate(scatterers, acquisition, engine="reference").samples
    wires = ussim.Scatterers(*np.array(WIRES).T, np.ones(len(WIRES)))
    case = simulation_case(wires, full)
    case |= {"grid_x": np.arange(-7e-3, 7e-3, 5e-5), "grid_z": np.arange(18e-3, 32e-3 - 1e-6, 5e-5)}
    rows = []
    for toolkit in SIMULATORS:
        row, rf = ask(toolkit, "simulate", simulation_case(scatterers, acquisition), repeats=0)
        row = {key: row[key] for key in ("toolkit", "version", "did_not_run") if key in row}
        if rf is not None:
            row["rf_differs_from_reference"] = difference(rf, exact)
        if toolkit in IMAGERS:
            _, image = ask(toolkit, "image", case, repeats=0)
            if image is not None:
                row["wire_displacement_um"] = 1e6 * displacement(image, case["grid_x"], case["grid_z"])
        rows.append(row)
    rows += not_here("simulate", set(SIMULATORS))
    save("accuracy", __doc__, {"rows": rows})


if __name__ == "__main__":
    main()
