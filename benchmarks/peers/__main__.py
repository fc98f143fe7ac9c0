"""Every claim, one after the other, and the tables of README and the site: `make bench`, under 20 minutes on two cores.

python benchmarks/peers [CLAIM ...]
"""

from __future__ import annotations

import sys
import time

import accuracy
import beamforming
import end_to_end
import memory
import scaling
import simulation

CLAIMS = {script.__name__: script for script in (simulation, beamforming, end_to_end, accuracy, memory, scaling)}


def main(names: list[str]) -> None:
    """Measure the claims named, or all; then fill the pages."""
    start = time.monotonic()
    for name in names or CLAIMS:
        print(f"{name} ({time.monotonic() - start:.0f} s)", flush=True)
        CLAIMS[name].main()
    import page_tables

    page_tables.main()
    print(f"all in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
