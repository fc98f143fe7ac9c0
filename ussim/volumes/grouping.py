"""Grouping of images to volumes: frames of a series to stacks in which every position occurs once.

Positions repeat where a series holds echoes, phases, b-values or time points. An attribute splits such a series only where
each of its values covers about all positions; groups may be unequal, a group of one image is no volume, and a second copy
of an image is dropped only where its pixels are equal too.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .files import natural

# What tells the images at one position apart, tried in this order.
PHASE_KEYS = (
    "ImageType",
    "TemporalPositionIdentifier",
    "EchoTime",
    "EchoNumbers",
    "DiffusionBValue",
    "InversionTime",
    "TriggerTime",
    "AcquisitionNumber",
    "FlipAngle",
    "AcquisitionTime",
    "ContentTime",
)
_TIMES = ("TriggerTime", "AcquisitionTime", "ContentTime")  # may differ in two copies of one image
_WHOLE = 0.75  # of the positions: a value that covers fewer is an attribute of slices, not of a volume

Digest = Callable[["Frame"], str]  # of a frame's pixels; "" where it says nothing (an empty or unreadable picture)


@dataclass(frozen=True)
class Frame:
    """One image: a whole classic file, or one frame of a multi-frame file."""

    path: str
    index: int  # frame in the file, from 0
    position: tuple[float, ...] | None  # mm, of the center of the first pixel, patient axes (LPS)
    cosines: tuple[float, ...] | None  # direction of a row, then of a column (LPS)
    pixel_spacing: tuple[float, float] | None  # mm between rows, between columns
    thickness: float | None  # mm
    slope: float
    intercept: float
    order: int  # InstanceNumber, or the frame's number
    phase: tuple[str, ...]  # one value for each of PHASE_KEYS
    location: float | None = None  # SliceLocation in mm: serves where there is no position

    def depth(self) -> float | None:
        """Distance along the slices' normal in mm."""
        if self.position is None or self.cosines is None:
            return None
        normal = np.cross(self.cosines[:3], self.cosines[3:])
        return float(np.dot(normal, self.position))


@dataclass(frozen=True)
class Stack:
    """Frames of one volume in the order of their positions, and how they were told from the rest of the series."""

    frames: tuple[Frame, ...]
    splits: tuple[tuple[str, str], ...] = ()  # attribute and value; ("order", "2") where only their order tells
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grouping:
    """The stacks of one series, the copies that were dropped, and images that belong to no volume, with reasons."""

    stacks: tuple[Stack, ...]
    copies: tuple[tuple[Frame, Frame], ...] = ()  # (the copy, what it is a copy of)
    strays: tuple[tuple[Frame, str], ...] = ()


def group(frames: Sequence[Frame], digest: Digest | None = None) -> Grouping:
    """Sort the frames of one series into stacks of one orientation and pixel size in which every position occurs once."""
    alike: list[list[Frame]] = []
    for frame in sorted(frames, key=_by_number):
        for others in alike:
            if _close(frame.cosines, others[0].cosines, 0.01) and _close(
                frame.pixel_spacing, others[0].pixel_spacing, 0.001
            ):
                others.append(replace(frame, cosines=others[0].cosines))  # one normal, so that distances compare
                break
        else:
            alike.append([frame])
    stacks: list[Stack] = []
    copies: list[tuple[Frame, Frame]] = []
    strays: list[tuple[Frame, str]] = []
    for images in alike:
        placed = _placed(_usable_positions(images))
        if placed is None:
            stacks.append(Stack(tuple(images)))
            continue
        kept, dropped = _without_copies(placed, digest)
        copies += dropped
        found, odd = _stacks(kept)
        stacks += found
        strays += odd
    return Grouping(tuple(stacks), tuple(copies), tuple(strays))


def _by_number(frame: Frame) -> tuple[int, list[list[tuple[int, int | str]]], int]:
    """Sort key: `t1/a` before its copy `t1 (1)/a`."""
    return frame.order, [natural(part) for part in frame.path.split(os.sep)], frame.index


def split_label(splits: Sequence[tuple[str, str]]) -> str:
    """Return how one stack of several is called: `EchoTime 20`."""
    return ", ".join(f"number {value} in order" if key == "order" else f"{key} {value}" for key, value in splits)


_Placed = list[tuple[float, Frame]]  # position along the normal in 0.01 mm (or a slice's number), frame


def _usable_positions(frames: list[Frame]) -> list[Frame]:
    """Without positions that an anonymizer has blanked: the same in all slices although their locations differ."""
    positions = {frame.position for frame in frames}
    if len(frames) == 1 or len(positions) > 1 or positions == {None}:
        return frames
    locations = {frame.location for frame in frames}
    zero = not any(frames[0].position or ())
    alone = len({frame.order for frame in frames}) == len({frame.path for frame in frames}) == len(frames)
    times = [PHASE_KEYS.index(key) for key in _TIMES]
    phases = {tuple(value for number, value in enumerate(f.phase) if number not in times) for f in frames}
    if len(locations) > 1 or (zero and alone and len(phases) == 1):
        return [replace(frame, position=None) for frame in frames]
    return frames


def _placed(frames: list[Frame]) -> _Placed | None:
    """Frames by their place: position, else SliceLocation, else InstanceNumber; None where none of them tells."""
    depths = [frame.depth() for frame in frames]
    if None in depths:
        depths = [frame.location for frame in frames]
    if None in depths or (len(set(depths)) == 1 and frames[0].depth() is None):
        depths = [float(frame.order) for frame in frames]
        if len(set(depths)) == 1:
            return None
    places = [round(depth or 0.0, 2) for depth in depths]
    # Stable: in order within a position.
    return sorted(zip(places, frames, strict=True), key=lambda item: item[0])


def _without_copies(placed: _Placed, digest: Digest | None) -> tuple[_Placed, list[tuple[Frame, Frame]]]:
    """Drop images that repeat another at the same place, with equal pixels and equal attributes but for their times."""
    times = [PHASE_KEYS.index(key) for key in _TIMES]
    same: dict[tuple[float, tuple[str, ...]], list[Frame]] = defaultdict(list)
    for place, frame in placed:
        same[place, tuple(value for n, value in enumerate(frame.phase) if n not in times)].append(frame)
    dropped: list[tuple[Frame, Frame]] = []
    for frames in same.values():
        if len(frames) == 1 or digest is None:
            continue
        seen: dict[str, Frame] = {}
        for frame in frames:
            pixels = digest(frame)
            if pixels and seen.setdefault(pixels, frame) is not frame:
                dropped.append((frame, seen[pixels]))
    lost = {(frame.path, frame.index) for frame, _ in dropped}
    return [(place, frame) for place, frame in placed if (frame.path, frame.index) not in lost], dropped


def _stacks(placed: _Placed) -> tuple[list[Stack], list[tuple[Frame, str]]]:
    """Stacks of frames of one orientation; short ones named with what they lack, single images left out."""
    places = sorted({place for place, _ in placed})
    stacks: list[Stack] = []
    strays: list[tuple[Frame, str]] = []
    for splits, part in _split(placed, (), strays):
        missing = sorted(set(places) - {place for place, _ in part})
        if len(part) == 1 and len(places) > 2:
            reason = f"one image of {split_label(splits)} where a volume has {len(places)} slices: no volume"
            strays.append((part[0][1], reason))
            continue
        notes: tuple[str, ...] = ()
        if missing:
            where = ", ".join(f"{place:g}" for place in missing[:5]) + (", ..." if len(missing) > 5 else "")
            notes = (f"{split_label(splits)}: {len(part)} of {len(places)} slices; missing at {where} mm",)
        stacks.append(Stack(tuple(frame for _, frame in part), splits, notes))
    return stacks, strays


_Parts = list[tuple[tuple[tuple[str, str], ...], _Placed]]


def _split(placed: _Placed, splits: tuple[tuple[str, str], ...], strays: list[tuple[Frame, str]]) -> _Parts:
    """Parts in which every position occurs once, by the first attribute that splits cleanly, else by several."""
    if _differ(placed):
        return [(splits, placed)]
    candidates = [_by_value(placed, number) for number in range(len(PHASE_KEYS))]
    wholes = [groups if _are_volumes(groups, placed) else {} for groups in candidates]
    clean = [
        bool(groups) and len({len(part) for part in groups.values()}) == 1 and all(map(_differ, groups.values()))
        for groups in wholes
    ]
    for wanted in (clean, [bool(groups) for groups in wholes]):
        if any(wanted):
            number = wanted.index(True)
            groups = wholes[number]
            parts: _Parts = []
            for value in sorted(groups, key=natural):
                parts += _split(groups[value], (*splits, (PHASE_KEYS[number], value)), strays)
            return parts
    return [((*splits, ("order", str(n))), part) for n, part in enumerate(_by_order(placed, strays), 1)]


def _by_value(placed: _Placed, number: int) -> dict[str, _Placed]:
    groups: dict[str, _Placed] = defaultdict(list)
    for place, frame in placed:
        groups[frame.phase[number]].append((place, frame))
    return groups


def _are_volumes(groups: dict[str, _Placed], placed: _Placed) -> bool:
    """Return True where each group covers about all positions, or all but one do: a scan that was cut short."""
    places = {place for place, _ in placed}
    covered = [{place for place, _ in part} for part in groups.values()]
    whole = [part for part in covered if len(part) >= max(_WHOLE * len(places), min(2, len(places)))]
    short = [part for part in covered if part not in whole]
    if len(groups) < 2 or not whole or len(short) > 1:
        return False
    # A short group lies where the others do; if it fills a hole, the attribute is one of slices.
    return all(len(part & set().union(*whole)) >= _WHOLE * len(part) for part in short)


def _by_order(placed: _Placed, strays: list[tuple[Frame, str]]) -> list[_Placed]:
    """Parts of frames that no attribute tells apart: by their numbers, where these tell without doubt."""
    at: dict[float, _Placed] = defaultdict(list)
    for place, frame in placed:
        at[place].append((place, frame))
    most = max(map(len, at.values()))
    if any(len(images) < most for images in at.values()):
        phases = _phases_by_number(placed, most, len(at))
        if phases:
            parts: dict[int, _Placed] = defaultdict(list)
            for phase, item in zip(phases, placed, strict=True):
                parts[phase].append(item)
            return [parts[phase] for phase in sorted(parts)]
        reason = "fewer images at its position than elsewhere, and nothing tells which volume it belongs to"
        strays += [(frame, reason) for images in at.values() if len(images) < most for _, frame in images]
    whole = [images for images in at.values() if len(images) == most]
    return [[images[n] for images in whole] for n in range(most)]


def _phases_by_number(placed: _Placed, n_phases: int, n_places: int) -> list[int]:
    """Return the phase of each frame by its InstanceNumber, phase after phase or slice after slice; [] where in doubt."""
    orders = [frame.order for _, frame in placed]
    places = [place for place, _ in placed]
    if len(set(orders)) < len(orders):
        return []
    steps = Counter(
        b - a for (p, a), (q, b) in zip(*(sorted(zip(places, orders, strict=True))[n:] for n in (0, 1)), strict=False)
        if p == q
    )  # fmt: skip
    for start in (1, 0, min(orders)):
        for period in (n_places, steps.most_common(1)[0][0]):
            phases = [(order - start) // period for order in orders]
            if len(set(phases)) == n_phases and _one_to_one(places, [(order - start) % period for order in orders]):
                return phases
        phases = [(order - start) % n_phases for order in orders]
        if len(set(phases)) == n_phases and _one_to_one(places, [(order - start) // n_phases for order in orders]):
            return phases
    return []


def _one_to_one(first: Sequence[float], second: Sequence[float]) -> bool:
    pairs = set(zip(first, second, strict=True))
    return len(pairs) == len(set(first)) == len(set(second))


def _differ(placed: _Placed) -> bool:
    return len({place for place, _ in placed}) == len(placed)


def _close(first: Sequence[float] | None, second: Sequence[float] | None, tolerance: float) -> bool:
    if first is None or second is None:
        return first is second
    return all(abs(a - b) <= tolerance for a, b in zip(first, second, strict=True))
