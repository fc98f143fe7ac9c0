"""Small charts as SVG, with axes and units: text that a browser sets, nothing that it must fetch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 340, 190  # of a chart, in its own units
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 10, 38


@dataclass(frozen=True)
class Axis:
    """Axis of a chart: its range, the values that are marked on it, what it shows and in which unit."""

    low: float
    high: float
    ticks: Sequence[float]
    label: str


@dataclass(frozen=True)
class Line:
    """Points that are joined: drawn in the style of the class `name` of the page."""

    name: str
    points: Sequence[tuple[float, float]]
    ranges: Sequence[tuple[float, float]] = ()  # from, to at each point: drawn as bars


def chart(x: Axis, y: Axis, lines: Sequence[Line], title: str, level: float | None = None) -> str:
    """Return an SVG of some lines over two axes; `level` is marked by a dashed line."""

    def at(value: float, axis: Axis, begin: float, end: float) -> float:
        share = (value - axis.low) / (axis.high - axis.low)
        return begin + (end - begin) * min(max(share, 0.0), 1.0)

    def across(value: float) -> float:
        return at(value, x, _LEFT, WIDTH - _RIGHT)

    def up(value: float) -> float:
        return at(value, y, HEIGHT - _BOTTOM, _TOP)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for value in y.ticks:
        parts.append(f'<path class="grid" d="M{_LEFT} {up(value):.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{up(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in x.ticks:
        parts.append(f'<path class="grid" d="M{across(value):.1f} {HEIGHT - _BOTTOM}v4"/>')
        parts.append(f'<text x="{across(value):.1f}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">{value:g}</text>')
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    parts.append(f'<text x="{(_LEFT + WIDTH) / 2}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x.label)}</text>')
    parts.append(f'<text transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">{escape(y.label)}</text>')
    if level is not None:
        parts.append(f'<path class="level" d="M{_LEFT} {up(level):.1f}H{WIDTH - _RIGHT}"/>')
    for line in lines:
        for (place, _), (low, high) in zip(line.points, line.ranges, strict=False):
            parts.append(f'<path class="{line.name}" d="M{across(place):.1f} {up(low):.1f}V{up(high):.1f}"/>')
        points = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in line.points)
        parts.append(f'<polyline class="{line.name}" points="{points}"/>')
    return "".join([*parts, "</svg>"])


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round values between two limits, about so many."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.75)
    first = -(-low // step)
    return [round(step * (first + i), 10) for i in range(int((high - first * step) // step) + 1)]
