"""Claim: from scatterers to a B-mode of 256 x 256 pixels in this time, each toolkit by its own steps.

L11-5v, 3 plane waves, 0.5 dB/cm/MHz, 500 scatterers, all elements. PyMUST: simus, rf2iq, a matrix per transmit. zea:
simulate_rf, delays and sum of RF, envelope; its pulse and its spreading are its own, so its picture is not held to ours.
What a toolkit lacks is a row.
"""

from __future__ import annotations

from asking import acquisition_of, ask, not_here, save, scatterers_of, simulation_case

N_SCATTERERS, N_TRANSMITS = 500, 3
TOOLKITS = ("ussim", "pymust", "zea")


def main() -> None:
    """Measure and write."""
    case = simulation_case(scatterers_of(N_SCATTERERS), acquisition_of(N_TRANSMITS))
    rows = []
    for toolkit in TOOLKITS:
        row, _ = ask(toolkit, "image", case)
        if "frame_s" in row:
            row["times_ussim"] = row["frame_cpu_s"] / (rows[0] if rows else row)["frame_cpu_s"]
        rows.append(row)
    rows += not_here("image", set(TOOLKITS))
    workload = {"scatterers": N_SCATTERERS, "transmits": N_TRANSMITS, "pixels": 256 * 256}
    save("end_to_end", __doc__, {"workload": workload, "rows": rows})


if __name__ == "__main__":
    main()
