"""Run the tests and say which share of each package's lines they ran; exit code 1 where it is less than 90 %.

    python tests/measure_coverage.py              # the default tests, on two processes; `make coverage`
    python tests/measure_coverage.py tests/test_io.py -n 0

What child processes run counts (`[tool.coverage.run]`), and so do the CPU kernels: compiled they cannot be traced, but
`test_plain_kernels.py` runs them as plain Python.
"""

from __future__ import annotations

import subprocess
import sys

LEAST = 90.0  # per cent of a package's lines
PACKAGES = ("ussim", "datagen", "irsde")


def main() -> int:
    tests = sys.argv[1:] or ["-n", "2", "--dist", "loadfile"]
    done = subprocess.run([sys.executable, "-m", "pytest", "--cov", "--cov-report=", *tests])
    shares = {package: report(package, "--format=total", "--precision=1") for package in PACKAGES}
    for package in PACKAGES:
        print(report(package))
    print("\n".join(f"{package}: {share} % of lines" for package, share in shares.items()))
    return done.returncode or int(any(float(share) < LEAST for share in shares.values()))


def report(package: str, *options: str) -> str:
    command = [sys.executable, "-m", "coverage", "report", f"--include={package}/*", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
