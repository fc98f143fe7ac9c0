"""Identity of a sample, and what follows from that alone: its seed, its fold, its rank in every choice.

Nothing here depends on order, on other samples or on the number of workers, so that adding data moves nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from ussim.errors import ConfigError

DEFAULT_FOLDS = 5


class FoldError(ConfigError):
    """A number of folds that leaves one empty; the message suggests another."""


def stable_hash(*parts: str) -> int:
    """Return a 63-bit number of some text: the same on every machine, every run."""
    text = "\0".join(parts).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def sample_id(source: str, volume: str, plane: str, index: int, kind: str, augmentation: int) -> str:
    """Return the name of a sample: unique in a store, the same wherever the data lies."""
    return f"{source}/{volume}/{plane}-{index:04d}/{kind}" + (f"/v{augmentation}" if augmentation else "")


def sample_seed(recipe_seed: int, identifier: str) -> int:
    """Return the seed of a sample's random streams, below 2^63."""
    sequence = np.random.SeedSequence([recipe_seed, stable_hash(identifier)])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def fold_of(source: str, subject: str, folds: int) -> int:
    """Return the fold of a subject: all its volumes, slices and patches go together."""
    return stable_hash(source, subject) % folds


def choose_folds(subjects: Iterable[tuple[str, str]], asked: int | None) -> int:
    """Return the number of folds: as asked, else 5, else as many below 5 as leave none empty.

    Parameters
    ----------
    subjects : (source, subject) of every sample.

    Raises
    ------
    FoldError
        The number asked for leaves a fold empty.
    """
    everyone = set(subjects)

    def filled(folds: int) -> int:
        return len({fold_of(source, subject, folds) for source, subject in everyone})

    most = asked or DEFAULT_FOLDS
    suggestion = next(folds for folds in range(most, 0, -1) if filled(folds) == folds or folds == 1)
    if asked is not None and suggestion != asked:
        raise FoldError(
            f"folds: {asked} folds leave {asked - filled(asked)} empty with {len(everyone)} subjects; use --folds "
            f"{suggestion}"
        )
    return suggestion
