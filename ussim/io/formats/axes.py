"""Axes of an array of channel data: frames, transmits, elements and samples in any order, found by their lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from .facts import ROLES


@dataclass(frozen=True)
class Layout:
    """Meaning of each axis of an array of channel data.

    Attributes
    ----------
    shape : of the array.
    roles : one of `ROLES` per axis.
    """

    shape: tuple[int, ...]
    roles: tuple[str, ...]

    def length(self, role: str) -> int:
        """Length along a role's axis, 1 where there is none."""
        return self.shape[self.roles.index(role)] if role in self.roles else 1

    def read(self, array: Any, frame: int) -> np.ndarray:
        """Read one frame of an array (of NumPy, of a file) as (n_transmits, n_elements, n_samples); the rest stays there."""
        chosen = tuple(frame if role == "frames" else slice(None) for role in self.roles)
        left = [role for role in self.roles if role != "frames"]
        samples = np.asarray(array[chosen])
        if "transmits" not in left:
            samples, left = samples[None], ["transmits", *left]
        return samples.transpose([left.index(role) for role in ("transmits", "elements", "samples")])


def find_layout(
    shape: Sequence[int],
    n_elements: int,
    n_transmits: int,
    axes: Sequence[str] | None = None,
    usual: Sequence[str] = (),
    words: str = "",
) -> Layout:
    """Tell which axis is what.

    Parameters
    ----------
    shape : of the array.
    n_elements, n_transmits : lengths of these axes; an axis of transmits may be missing where there is one.
    axes : what the user says they are.
    usual : order of the format, which decides where lengths leave it open.
    words : what the lengths come from, for the message: "128 elements of L11-5v".

    Raises
    ------
    ValueError
        No order fits, or several do.
    """
    shape = tuple(int(n) for n in shape)
    words = words or f"{n_elements} elements and {n_transmits} {'transmit' if n_transmits == 1 else 'transmits'}"
    if 0 in shape or not 2 <= len(shape) <= 4:
        raise ValueError(f"expected 2 to 4 axes (samples, elements, transmits, frames) with {words}, got shape {shape}")
    if axes is not None:
        if len(axes) != len(shape):
            raise ValueError(f"axes: expected {len(shape)} names for an array of shape {shape}, got {', '.join(axes)}")
        layout = Layout(shape, tuple(axes))
        if not _fits(layout, n_elements, n_transmits):
            raise ValueError(f"axes {', '.join(axes)} of shape {shape}: expected {words}")
        return layout
    fitting = [Layout(shape, roles) for roles in permutations(ROLES, len(shape))]
    fitting = [layout for layout in fitting if _fits(layout, n_elements, n_transmits)]
    if not fitting:
        raise ValueError(f"expected axes of {words} beside the samples, got shape {shape}")
    most = max(map(_likelihood, fitting))
    best = [layout for layout in fitting if _likelihood(layout) == most]
    if len(best) > 1:  # of equal lengths: the format's own order
        ranks = {role: i for i, role in enumerate(usual)}
        best = [layout for layout in best if usual and _in_order([ranks[role] for role in layout.roles])] or best
    if len(best) > 1:
        orders = " or ".join(",".join(layout.roles) for layout in best[:2])
        raise ValueError(f"shape {shape}: the axes may be {orders}: say which (axes, --axes)")
    return best[0]


def _fits(layout: Layout, n_elements: int, n_transmits: int) -> bool:
    return (
        {"elements", "samples"} <= set(layout.roles)
        and layout.length("elements") == n_elements
        and layout.length("transmits") == n_transmits
    )


def _likelihood(layout: Layout) -> tuple[int, bool]:
    """Return samples are the longest axis that is left; an axis of length 1 is that of the transmits."""
    return layout.length("samples"), "transmits" in layout.roles


def _in_order(ranks: Sequence[int]) -> bool:
    return list(ranks) == sorted(ranks)
