"""The three programs do their first work, as modules, in an empty folder: on the lowest versions, on other systems.

python tests/smoke.py             # ussim, datagen, irsde
python tests/smoke.py --no-train  # where PyTorch is not installed
python tests/smoke.py --without posix    # or packages, by commas: tests/without.py
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SIMULATE = (
    "ussim --help", "datagen build --help", "ussim probes", "ussim render --phantom cysts --size 48 --angles 1 -o cysts.png",
    "ussim field --probe P4-2v -o field.png",
    "datagen build --source demo --probe C5-2v --limit 2 --size 64 --folds 2 --out pairs.zarr", "datagen info pairs.zarr",
    "datagen verify pairs.zarr", "datagen preview pairs.zarr -o pairs.png", "datagen report pairs.zarr -o report.html",
)  # fmt: skip
TRAIN = (
    "irsde train --help",
    "irsde train --data pairs.zarr --fold 0 --out run --preset tiny --steps 2 --patch-size 32 --batch-size 1 --n-steps 4 "
    "--device cpu",
    "irsde train --out run --resume --steps 3",
    "irsde restore run cysts.npy -o clean.png --steps 2",
    "irsde restore cysts.npy -o shipped.png",
    "irsde models despeckler",
    "irsde evaluate run --data pairs.zarr --fold 0 --limit 1 -o table.md",
)  # fmt: skip
PICTURE = "import numpy as np; np.save('cysts.npy', np.load('cysts.npz')['bmode'])"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-train", action="store_true")
    parser.add_argument("--without")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for line in SIMULATE:
            _run(line, folder, asked.without)
        subprocess.run([sys.executable, "-c", PICTURE], cwd=folder, check=True)
        for line in () if asked.no_train else TRAIN:
            _run(line, folder, asked.without)
    print("smoke: all programs ran")


def _run(line: str, folder: str, without: str | None) -> None:
    how = ["-m"] if without is None else [str(ROOT / "tests" / "without.py"), without]
    environment = dict(os.environ)
    if without is not None:
        environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run([sys.executable, *how, *line.split()], cwd=folder, env=environment, capture_output=True)
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise SystemExit(f"{line}: exit code {done.returncode}\n{said}")
    print(f"ok  {line}", flush=True)


if __name__ == "__main__":
    main()
