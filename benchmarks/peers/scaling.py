"""Claim: more transmits of the same scatterers cost little, scatterers grow linearly, threads add no work.

Seconds of a processor per frame of L11-5v, 0.5 dB/cm/MHz (the wall clock is in the file): over scatterers (one plane wave,
two threads), over transmits (500 scatterers, all of them simulated), over threads (2,000 scatterers, one plane wave).
"""

from __future__ import annotations

from asking import acquisition_of, ask, not_here, save, scatterers_of, simulation_case

TOOLKITS = ("ussim", "fastsimus", "pymust", "zea")
CASES = [  # what varies, scatterers, transmits, threads
    ("scatterers", 500, 1, 2),
    ("scatterers", 1_000, 1, 2),
    ("scatterers", 2_000, 1, 2),
    ("scatterers", 4_000, 1, 2),
    ("transmits", 500, 4, 2),
    ("transmits", 500, 16, 2),
    ("threads", 2_000, 1, 1),
]


def main() -> None:
    """Measure and write."""
    rows = []
    for toolkit in TOOLKITS:
        for varies, n, transmits, threads in CASES:
            case = simulation_case(scatterers_of(n), acquisition_of(transmits)) | {"every_transmit": True}
            row, _ = ask(toolkit, "simulate", case, repeats=3 if toolkit == "ussim" else 1, threads=threads)
            where = {"varies": varies, "scatterers": n, "transmits": transmits, "threads": threads}
            kept = ("toolkit", "version", "frame_s", "frame_cpu_s", "did_not_run")
            rows.append(where | {key: row[key] for key in kept if key in row})
    rows += not_here("simulate", set(TOOLKITS))
    save("scaling", __doc__, {"rows": rows})


if __name__ == "__main__":
    main()
