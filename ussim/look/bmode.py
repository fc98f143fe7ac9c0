"""The page of `ussim look`: its routes."""

from __future__ import annotations

import asyncio
import base64
import math
import time
from typing import Any

import numpy as np

from .cache import Latest
from .server import Answer, Request, Route, page

PSF_RANGE_DB = 40.0


def routes(make_bench: Any, initial: dict[str, Any]) -> tuple[dict[str, Route], Latest]:
    """Return the routes of the page, and the worker to close at the end.

    Parameters
    ----------
    make_bench : callable
        Makes the `Bench`, once and in the worker: its imports are what is slow.
    initial : dict
        Settings that the page begins with, over the defaults.
    """
    latest = Latest()
    made: list[Any] = []

    def bench() -> Any:
        if not made:
            made.append(make_bench())
        return made[0]

    async def show(request: Request) -> Answer:
        return page(__package__, "look.html")

    async def facts(request: Request) -> Answer:
        described = await latest.do(f"facts {time.monotonic_ns()}", lambda check: bench().describe())
        described["defaults"] |= initial
        return Answer.of(described)

    async def image(request: Request) -> Answer:
        values = dict(request.values)
        tab = str(values.pop("tab", ""))[:40]

        def work(check: Any) -> Answer:
            from .bench import View

            started = time.perf_counter()
            made = bench().picture(View.of(values), check)
            seconds = round(time.perf_counter() - started, 4)
            return Answer(made.grey.tobytes(), "application/octet-stream", made.facts | {"seconds": seconds})

        return await latest.do(f"image {tab}", work)

    async def point(request: Request) -> Answer:
        values = dict(request.values)
        tab = str(values.pop("tab", ""))[:40]
        x_mm, z_mm = values.pop("x_mm", None), values.pop("z_mm", None)

        def work(check: Any) -> Answer:
            from .bench import View

            started = time.perf_counter()
            spread = bench().point(View.of(values), x_mm, z_mm, check)
            return Answer.of(_point_facts(spread) | {"seconds": round(time.perf_counter() - started, 4)})

        return await latest.do(f"point {tab}", work)

    async def picture(request: Request) -> Answer:
        size, _, name = request.rest.partition("/")
        rows, _, columns = size.partition("x")
        numbers = [int(text) if text.isdecimal() and len(text) < 6 else 0 for text in (rows, columns)]

        def work(check: Any) -> Answer:
            bench().take(request.body, numbers[0], numbers[1], name)
            return Answer.of({"subjects": bench().subjects()})

        return await latest.do(f"picture {time.monotonic_ns()}", work)

    return {"": show, "facts": facts, "image": image, "point": point, "picture": picture}, latest


def _point_facts(spread: Any) -> dict[str, Any]:
    """Return the widths of a point, its profiles and its picture, mm and dB."""
    level = 20 * np.log10(np.maximum(spread.envelope, 1e-6))
    grey = np.round(255 * np.clip(1 + level / PSF_RANGE_DB, 0, 1)).astype(np.uint8)
    widths = {str(-level_db): _width_mm(spread.widths(level_db)) for level_db in (-6, -20)}
    return {
        "x_mm": 1e3 * spread.x,
        "z_mm": 1e3 * spread.z,
        "seen": bool(spread.envelope.max() > 0),
        "peak_mm": [round(1e3 * spread.peak_x, 4), round(1e3 * spread.peak_z, 4)],
        "widths_mm": widths,
        "shape": list(grey.shape),
        "field_x_mm": [1e3 * float(spread.grid.x[i] - spread.x) for i in (0, -1)],
        "field_z_mm": [1e3 * float(spread.grid.z[i] - spread.z) for i in (0, -1)],
        "grey": base64.b64encode(grey.tobytes()).decode(),
        "lateral_db": _decibels(spread.lateral),
        "axial_db": _decibels(spread.axial),
        "range_db": PSF_RANGE_DB,
    }


def _width_mm(widths: tuple[float, float]) -> list[float | None]:
    return [None if math.isnan(width) else round(1e3 * width, 4) for width in widths]


def _decibels(profile: np.ndarray) -> list[float]:
    return [round(float(level), 2) for level in 20 * np.log10(np.maximum(profile, 10 ** (-PSF_RANGE_DB / 20)))]


async def closing(latest: Latest) -> None:
    """Stop the worker without holding up the event loop."""
    await asyncio.to_thread(latest.close)
