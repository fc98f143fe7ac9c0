"""Small synthetic pairs with the interface of `datagen.open_pairs`: discs of grey, and the same under Rayleigh speckle."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


class SpecklePairs:
    """`n` pairs of `size` x `size`, `per_subject` of each subject, subjects dealt over `folds` folds."""

    def __init__(self, n=8, size=64, per_subject=2, folds=2, seed=0, probe="L11-5v"):
        self.probes = (probe,)
        self.samples = [
            {"source": "discs", "subject": f"p{i // per_subject}", "fold": (i // per_subject) % folds} for i in range(n)
        ]
        self._pairs = [make_pair(size, np.random.default_rng([seed, i])) for i in range(n)]

    def __len__(self):
        return len(self._pairs)

    def __getitem__(self, i):
        return self._pairs[i]

    def mask(self, i):
        return np.ones(self._pairs[i][0].shape, bool)


def make_pair(size, rng):
    """(hq, lq) float32 in [0, 1]: grey levels, and the 40 dB image of speckle of their amplitude."""
    z, x = np.mgrid[:size, :size] / size
    hq = np.full((size, size), rng.uniform(0.2, 0.5))
    for _ in range(4):
        cz, cx, radius = *rng.uniform(0, 1, 2), rng.uniform(0.1, 0.35)
        hq[(z - cz) ** 2 + (x - cx) ** 2 < radius**2] = rng.uniform(0, 1)
    field = rng.normal(size=(2, size, size)) * 10 ** (40 / 20 * (hq - 1))
    envelope = np.hypot(*ndimage.gaussian_filter(field, (0, 1, 1.3)))
    lq = 1 + 20 * np.log10(np.maximum(envelope / envelope.max(), 1e-9)) / 40
    return hq.astype(np.float32), np.clip(lq, 0, 1).astype(np.float32)
