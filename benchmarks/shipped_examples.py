"""Simulate the examples that the shipped despeckler is trained and tested on, from MRI that may be passed on and phantoms.

    python benchmarks/shipped_examples.py -o runs/shipped/examples.npz
    python benchmarks/shipped_examples.py -o runs/smoke.npz --first 8

MRI: the test files of pydicom and nibabel (the `demo` source), and of --data (its README has sources and licences) the knee,
the abdomen, the MNI template and the T1 slice. Two draws of speckle each, 128 pixels a side, all four main probes. Shards
(--shard k/n) can run beside each other; --join makes one file of theirs. One core takes about 15 minutes.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from irsde_learning import REPOSITORY

from datagen.sources.demo import Demo
from irsde.shipped.examples import Example, joined, load_examples, plan, save, simulate, slices_of

# subject -> file under --data, its planes, every n-th slice
FILES: dict[str, tuple[str, tuple[str, ...] | None, int]] = {
    "knee": ("mri_nifti/knee_mese_te1.nii.gz", None, 1),
    "brain-mni": ("mri_nifti/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz", None, 8),
    "brain-dipy": ("mri_npy/dipy_t1_coronal_slice.npy", None, 1),
    "abdomen-totalsegmentator": ("mri_nifti/abdomen_totalseg_example_mr_3mm.nii.gz", ("axial",), 1),
}
TRAINING = {
    "abdomen-pydicom": 36,
    "brain-nibabel": 32,
    "knee": 48,
    "brain-mni": 56,
    "brain-dipy": 24,
    "abdomen-totalsegmentator": 44,
}
PHANTOMS, TESTS, SEED = 180, 1, 0
FIRST = 288  # of the plan, in an order drawn at random, and every test


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".npz")
    parser.add_argument(
        "--first", type=int, default=FIRST, help="of the plan, in an order drawn at random; beside tests"
    )
    parser.add_argument("--shard", default="0/1", metavar="K/N", help="every n-th example from the k-th on")
    parser.add_argument("--join", type=Path, nargs="+", help="shards to put together, in place of simulating")
    arguments = parser.parse_args()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    if arguments.join:
        save(arguments.output, joined(load_examples(path) for path in arguments.join))
        return 0
    slices = {"abdomen-pydicom": [], "brain-nibabel": []} | {name: [] for name in FILES}
    demo = {ref.name: Path(ref.files[0]) for ref in Demo().find().volumes}
    slices["abdomen-pydicom"], slices["brain-nibabel"] = slices_of(demo["abdomen"]), slices_of(demo["brain"])
    for subject, (name, planes, every) in FILES.items():
        slices[subject] = slices_of(arguments.data / name, planes, every)
    k, n = map(int, arguments.shard.split("/"))
    chosen = ordered({subject: len(own) for subject, own in slices.items()}, arguments.first)[k::n]
    began = time.monotonic()

    def say(done: int) -> None:
        if done % 10 == 0 or done == len(chosen):
            print(f"{done} of {len(chosen)}, {time.monotonic() - began:.0f} s", file=sys.stderr)

    save(arguments.output, simulate(chosen, slices, advance=say))
    return 0


def ordered(n_slices: dict[str, int], first: int) -> list[Example]:
    """Return the first examples of the plan in an order drawn at random, a bit of everything, and all tests."""
    drawn = plan(n_slices, TRAINING, PHANTOMS, TESTS, SEED)
    order = np.random.default_rng(1).permutation(len(drawn))
    return [drawn[k] for place, k in enumerate(order) if place < first or drawn[k].split == "test"]


if __name__ == "__main__":
    raise SystemExit(main())
