"""Claim: a frame of channel data is so much arithmetic, done at this fraction of what the cores can; and the peers' times.

L11-5v, 15 plane waves (-10 to 10 degrees), 0.5 dB/cm/MHz, 2,000 scatterers in 38 x 40 mm, spectra cut at -100 dB. Measured:
from arrays to RF in memory, the fastest of up to four calls, so that compilation and other users of the machine count
little. PyMUST and FastSIMUS share nothing between transmits: one is timed, times 15. Anchors that do not depend on the
machine come first: the operations of the frame, and the fraction of the multiply-adds that the cores do on registers alone.
`benchmarks/simulate.py` has the same at 20,000 scatterers, where peers take minutes.
"""

from __future__ import annotations

import numpy as np
from asking import acquisition_of, ask, difference, not_here, save, scatterers_of, simulation_case
from simulate import count_operations, measure_peak

import ussim

N_SCATTERERS, N_TRANSMITS = 2_000, 15
TOOLKITS = ("ussim", "fastsimus", "pymust", "zea")


def at_full_size(acquisition: ussim.Acquisition, peak: float) -> dict[str, float]:
    """Return the anchors of a frame of 20,000 scatterers, where the arithmetic is nearly all."""
    scatterers = scatterers_of(20_000)
    row, _ = ask("ussim", "simulate", simulation_case(scatterers, acquisition))
    gflop = count_operations(scatterers, acquisition) / 1e9
    return {
        "gflop_of_20000_scatterers": gflop,
        "frame_s_of_20000_scatterers": row["frame_s"],
        "fraction_of_peak_in_cpu_time_of_20000_scatterers": gflop / row["frame_cpu_s"] / peak,
    }


def main() -> None:
    """Measure and write."""
    acquisition, scatterers = acquisition_of(N_TRANSMITS), scatterers_of(N_SCATTERERS)
    expected = ussim.simulate(scatterers, acquisition, engine="cpu").samples.astype(np.float64)
    operations, peak = count_operations(scatterers, acquisition), measure_peak()
    rows = []
    for toolkit in TOOLKITS:
        row, rf = ask(toolkit, "simulate", simulation_case(scatterers, acquisition))
        if rf is not None:
            row["differs_from_ussim"] = difference(rf, expected)
            row["gflop_s"] = operations / 1e9 / row["frame_s"]
            row["fraction_of_peak_in_cpu_time"] = operations / 1e9 / row["frame_cpu_s"] / peak
            row["times_ussim"] = row["frame_cpu_s"] / (rows[0] if rows else row)["frame_cpu_s"]
        rows.append(row)
    rows += not_here("simulate", set(TOOLKITS))
    anchors = {"gflop": operations / 1e9, "fma_peak_gflop_s_per_core": peak, **at_full_size(acquisition, peak)}
    workload = {"scatterers": N_SCATTERERS, "transmits": N_TRANSMITS}
    save("simulation", __doc__, {"workload": workload, "anchors": anchors, "rows": rows})


if __name__ == "__main__":
    main()
