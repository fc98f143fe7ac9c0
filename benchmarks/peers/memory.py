"""Claim: memory does not grow with the number of scatterers.

Largest resident memory of the whole process, imports included, that simulates one plane wave of L11-5v, at 500 and 4,000
scatterers, and of ours at 200,000. A toolkit that wants more than 10 GB is stopped, and its row says so.
"""

from __future__ import annotations

from asking import acquisition_of, ask, not_here, save, scatterers_of, simulation_case

COUNTS = (500, 4_000)
TOOLKITS = ("ussim", "fastsimus", "pymust", "zea")


def main() -> None:
    """Measure and write."""
    rows = []
    for toolkit in TOOLKITS:
        for n in (*COUNTS, *((200_000,) if toolkit == "ussim" else ())):
            row, _ = ask(toolkit, "simulate", simulation_case(scatterers_of(n), acquisition_of(1)), repeats=0)
            kept = ("toolkit", "version", "peak_memory_mb", "did_not_run")
            rows.append({"scatterers": n} | {key: row[key] for key in kept if key in row})
    rows += not_here("simulate", set(TOOLKITS))
    save("memory", __doc__, {"workload": {"transmits": 1}, "rows": rows})


if __name__ == "__main__":
    main()
