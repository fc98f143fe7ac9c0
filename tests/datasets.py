"""Small datasets for the tests of `datagen`: stacks of discs, a recipe that takes a fraction of a second a sample."""

from pathlib import Path

import numpy as np

import datagen

PROBE = "P4-2v"
FAST = {"probes": PROBE, "size": 16, "n_transmits": 1, "mean_distance_wavelengths": 8.0, "min_tissue": 0.05}


def write_stacks(root: Path, n_subjects: int = 3, n_slices: int = 4) -> Path:
    """One NPY stack (slice, row, column) a subject: a bright body with dark discs, different in every slice."""
    row, column = np.mgrid[:80, :80]
    for subject in range(n_subjects):
        rng = np.random.default_rng(subject)
        stack = np.zeros((n_slices, 80, 80), np.uint8)
        for image in stack:
            image[np.hypot(row - 40, column - 40) < 38] = 200
            for y, x, radius in zip(*rng.uniform(25, 55, (2, 4)), rng.uniform(2, 6, 4), strict=True):
                image[np.hypot(row - y, column - x) < radius] = 120
        path = root / f"subject{subject}" / "stack.npy"
        path.parent.mkdir(parents=True)
        np.save(path, stack)
    return root


def fast_recipe(root, **changes) -> datagen.Recipe:
    """A recipe over `write_stacks` (and other roots) that is quick to simulate."""
    return datagen.Recipe(**({"source": "npy", "root": root} | FAST | changes))
