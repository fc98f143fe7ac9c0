"""Data and loss of `irsde train --recipe shipped`: the rest is the training of every other run.

A batch has, beside LQ, two images: the expected one and another draw of LQ. What is validated, and shown in the sample
sheets, are pairs as `datagen build` displays them, with the expected image in the place of HQ.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from irsde.clinic.display import PLAIN, show
from irsde.shipped.examples import Example, load_examples
from irsde.shipped.lessons import Prepared, lesson, prepare

OTHER_DRAW = (
    0.3  # share of the loss that is squared error to another draw: its mean is the same, and it knows no anatomy
)


class ExamplePairs:
    """Examples of one probe as pairs: (expected image, LQ), displayed as `datagen build` does."""

    def __init__(self, probe: str, plan: Sequence[Example], prepared: Sequence[Prepared], folds: dict[str, int]):
        self.probes, self.prepared = (probe,), list(prepared)
        self.samples = [
            {
                "source": "examples",
                "subject": example.subject,
                "fold": folds.get(example.subject, -1),
                "id": f"{example.subject}-{example.image}-{example.seed}",
            }
            for example in plan
        ]
        self.attributes: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.prepared)

    def __getitem__(self, i: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        (lq,), expected = show(self.prepared[i].expected_db, [self.prepared[i].speckle_db[0]], PLAIN)
        return expected, lq

    def mask(self, i: int) -> NDArray[np.bool_]:
        """(nz, nx) bool: all pixels are inside the probe's field."""
        return np.ones(self.prepared[i].expected_db.shape, bool)


def open_examples(files: Sequence[str], probes: Sequence[str] = ()) -> list[ExamplePairs]:
    """Return the training examples of files as pairs, one object per probe.

    Folds are subjects, in the order of their names: `--fold k` holds out the k-th. Phantoms are always trained on.
    """
    wanted = {name.lower() for name in probes}
    pairs = []
    for file in files:
        examples = load_examples(Path(file)).select(lambda example: example.split == "train")
        subjects = sorted({example.subject for example in examples.plan} - {"phantom"})
        folds = {subject: k for k, subject in enumerate(subjects)}
        for probe in sorted({example.probe for example in examples.plan}):
            if wanted and probe.lower() not in wanted:
                continue
            own = examples.select(lambda example, probe=probe: example.probe == probe)  # type: ignore[misc]
            opened = ExamplePairs(probe, own.plan, prepare(own), folds)
            opened.attributes["digest"] = examples.digest()
            pairs.append(opened)
    return pairs


class LessonBatches(torch.utils.data.Dataset):
    """Item k is batch k of a run: ((n, 2, z, x) expected image and another draw, (n, 1, z, x) LQ), by seed and k alone."""

    def __init__(self, subsets: Sequence[Any], patch_size: int, batch_size: int, seed: int):
        self.places = [(subset, i) for subset in subsets for i in subset.indices]
        self.patch_size, self.batch_size, self.seed = patch_size, batch_size, seed

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, 5, k])
        drawn = []
        for subset, i in self._chosen(k):
            whole = getattr(subset.pairs, "pairs", subset.pairs)  # what `EchoPairs` cuts
            drawn.append(lesson(whole.prepared[i], self.patch_size, rng))
        lq, other, clean = (np.stack(part) for part in zip(*drawn, strict=True))
        return torch.from_numpy(np.stack([clean, other], axis=1)), torch.from_numpy(lq[:, None])

    def names(self, k: int, broken: bool = False) -> list[str]:
        """Return the examples of batch k, as a message names them; none is broken."""
        return [] if broken else [f"{s.probe} {s.pairs.samples[i]['id']}" for s, i in self._chosen(k)]

    def _chosen(self, k: int) -> list[tuple[Any, int]]:
        """Return what is visited in batch k: every example once, in a new order each time."""
        n, chosen = len(self.places), []
        for position in range(k * self.batch_size, (k + 1) * self.batch_size):
            turn, place = divmod(position, n)
            order = np.random.default_rng([self.seed, 1, turn]).permutation(n)
            chosen.append(self.places[order[place]])
        return chosen


def lesson_loss(out: Tensor, wanted: Tensor) -> Tensor:
    """Return the loss of a batch: out (n, 1, z, x), wanted (n, 2, z, x) the expected image and another draw."""
    clean, other = wanted[:, :1], wanted[:, 1:]
    return (1 - OTHER_DRAW) * ((out - clean) ** 2).mean() + OTHER_DRAW * ((out - other) ** 2).mean()
