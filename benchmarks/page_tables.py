"""Tables of README and the site made of files in benchmarks/results, between `<!-- table NAME -->` and `<!-- end -->`.

    python benchmarks/page_tables.py

A test compares the pages with what this would write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
PLACE = re.compile(r"(<!-- table ([\w/]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
Row = dict[str, Any]


def load(name: str) -> dict[str, Any]:
    """Return a file of results."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | None, digits: int = 2) -> str:
    """Return a number to some significant digits, without an exponent between 0.001 and a million."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    return f"{round(value, digits - 1 - exponent):,.{max(digits - 1 - exponent, 0)}f}"


def measured_on(result: dict[str, Any]) -> str:
    """Return a line that names the machine of a file."""
    machine = result["machine"]
    return f"{machine['processor']}, {machine['cores']} cores, load {machine['load_1min']} from others included."


def name_of(row: Row) -> str:
    """Return a toolkit and its version."""
    return " ".join(filter(None, (row["toolkit"], row.get("version") if row["toolkit"] != "ussim" else "")))


def each(rows: list[Row], cells: Callable[[Row], list[str]], width: int) -> list[list[str]]:
    """Return the cells of each row; of one that did not run, why."""

    def line(row: Row) -> list[str]:
        return [row["did_not_run"], *[""] * (width - 1)] if "did_not_run" in row else cells(row)

    return [[name_of(row), *line(row)] for row in rows]


def simulate() -> str:
    """Frame of 20,000 scatterers, of benchmarks/simulate.py."""
    result = load("simulate")
    ours, timed = result["ussim"], "one transmit timed, times 15; RF within "
    rate = f"{ours['gflop_s']:.0f} GFLOP/s, {100 * ours['fraction_of_peak']:.0f} % of the measured FMA peak; "
    rows = [["ussim, `cpu`", number(ours["median_s"]), f"{rate}{ours['peak_memory_mb']:.0f} MB in all"]]
    for name, peer in (("FastSIMUS 0.0.1 on JAX, CPU", "fastsimus"), ("PyMUST 0.1.9", "pymust")):
        found = result[peer]
        rows.append([name, f"{found['all_transmits_s']:.0f}", f"{timed}{found['difference_from_ussim']:.0e} of ours"])
    return f"{table(['', 'seconds per frame', ''], rows)}\n\n{measured_on(result)}"


def beamform() -> str:
    """Frame's IQ onto an image, of benchmarks/beamform.py."""
    rows = []
    found = load("beamform")["rows"]
    demodulation = next(row["seconds_median"] for row in found if row.get("step") == "demodulate")
    for row in found:
        if "step" in row:
            continue
        aperture = "automatic f-number" if row["f_number"] else "all elements"
        name = " ".join(filter(None, (row["package"], row.get("version"))))
        said = ""
        if row["package"] == "ussim":
            said = f"{row['seconds_median']:.3f} s per frame" + (
                f"; demodulation {demodulation:.3f} s" if row["f_number"] else ""
            )
        elif "build_seconds" in row:
            said = f"a sparse matrix, and {row['build_seconds']:.1f} s to build it, per transmit"
        rows.append([f"{name}, {aperture}", number(row["nominal_rate"], 3 if row["package"] == "ussim" else 2), said])
    rows.sort(key=lambda row: -float(row[1].replace(",", "")))
    return table(["", "rate", ""], rows)


def simulation() -> str:
    """Frame of channel data."""
    result = load("peers/simulation")
    anchors, workload = result["anchors"], result["workload"]

    def cells(row: Row) -> list[str]:
        timed = "" if row["transmits_timed"] == workload["transmits"] else ", one transmit timed, times 15"
        return [
            number(row["frame_s"]) + timed,
            number(row["frame_cpu_s"]),
            f"{number(100 * row['fraction_of_peak_in_cpu_time'])} %",
            number(row["times_ussim"]),
            number(row["peak_memory_mb"]),
            number(row["differs_from_ussim"]),
        ]

    head = [
        "",
        "s per frame",
        "CPU s",
        "of the FMA peak, by CPU time",
        "CPU, times ussim",
        "peak MB",
        "RF differs from ussim by",
    ]
    share = 100 * anchors["fraction_of_peak_in_cpu_time_of_20000_scatterers"]
    said = (
        f"The frame is {number(anchors['gflop'], 3)} GFLOP by our count. One of 20,000 scatterers is "
        f"{number(anchors['gflop_of_20000_scatterers'], 3)} GFLOP and takes "
        f"{number(anchors['frame_s_of_20000_scatterers'])} s, {share:.0f} % of the measured FMA peak by CPU time "
        f"({anchors['fma_peak_gflop_s_per_core']:.0f} GFLOP/s per core)."
    )
    return f"{said}\n\n{table(head, each(result['rows'], cells, 6))}\n\n{measured_on(result)}"


def beamforming() -> str:
    """Frame onto an image."""
    result = load("peers/beamforming")

    def cells(row: Row) -> list[str]:
        applied = f" ({number(row['applied_s'])} with its matrices made before)" if "applied_s" in row else ""
        return [
            number(row["frame_s"]) + applied,
            number(row["rate"]),
            number(row["times_ussim"]),
            number(row["peak_memory_mb"]),
            number(row["differs_from_reference"]),
        ]

    head = [
        "",
        "s per frame",
        "transmits x channels x pixels per s",
        "CPU, times ussim",
        "peak MB",
        "differs from float64",
    ]
    return f"{table(head, each(result['rows'], cells, 5))}\n\n{measured_on(result)}"


def end_to_end() -> str:
    """Scatterers to B-mode."""
    result = load("peers/end_to_end")

    def cells(row: Row) -> list[str]:
        return [number(row[key]) for key in ("frame_s", "frame_cpu_s", "times_ussim", "peak_memory_mb")]

    head = ["", "s per image", "CPU s", "CPU, times ussim", "peak MB"]
    return f"{table(head, each(result['rows'], cells, 4))}\n\n{measured_on(result)}"


def accuracy() -> str:
    """Errors."""
    result = load("peers/accuracy")

    def cells(row: Row) -> list[str]:
        moved = row.get("wire_displacement_um")
        return [number(row["rf_differs_from_reference"]), "no beamformer" if moved is None else number(moved)]

    return table(["", "RF differs from float64 by", "wires are off by, µm"], each(result["rows"], cells, 2))


def grouped(rows: list[Row], columns: dict[Any, str], key: Callable[[Row], Any], value: str) -> str:
    """Return a row per toolkit, a column per case."""
    toolkits = list(dict.fromkeys(row["toolkit"] for row in rows))
    lines = []
    for toolkit in toolkits:
        found = {key(row): row for row in rows if row["toolkit"] == toolkit}
        first = next(iter(found.values()))
        if value not in first and len(found) == 1:
            lines.append([name_of(first), first["did_not_run"], *[""] * (len(columns) - 1)])
            continue
        named = next((row for row in found.values() if "version" in row), first)
        cells = [found.get(case, {}) for case in columns]
        values = [number(row[value]) if value in row else row.get("did_not_run", "") for row in cells]
        lines.append([name_of(named), *values])
    return table(["", *columns.values()], lines)


def memory() -> str:
    """Peak memory over scatterers."""
    result = load("peers/memory")
    columns = {500: "500 scatterers, MB", 4_000: "4,000", 200_000: "200,000"}
    made = grouped(result["rows"], columns, lambda row: row.get("scatterers"), "peak_memory_mb")
    return f"{made}\n\n{measured_on(result)}"


def scaling() -> str:
    """Time over scatterers, transmits and threads."""
    result = load("peers/scaling")
    rows = result["rows"]
    columns = {
        (row["scatterers"], row["transmits"], row["threads"]): (
            f"{row['scatterers']:,} scatterers, {row['transmits']} tx, {row['threads']} threads"
        )
        for row in rows
        if "scatterers" in row
    }
    made = grouped(
        rows, columns, lambda row: tuple(row.get(k) for k in ("scatterers", "transmits", "threads")), "frame_cpu_s"
    )
    return f"{made}\n\n{measured_on(result)}"


def scale() -> str:
    """Datasets of three sizes on three machines."""
    result = load("scale_estimate")
    pair, parameters = result["pair"], result["parameters"]
    rows = [
        [
            row["machine"] + (" (not measured)" if row["kind"] == "not measured" else ""),
            f"{row['pairs']:,}" + (" (extended)" if row["pairs"] > 10**6 else ""),
            duration(row["hours"]),
            number(100 * row["scheduler_share"]) + " %",
            f"{number(row['scheduler_memory_gb'])} + {number(row['worker_memory_gb'])} GB",
            size(row["storage_gb"]),
            f"${number(row['compute_usd'])}",
            f"${number(row['storage_usd_per_month'])}",
        ]
        for row in result["rows"]
    ]
    head = [
        "on",
        "pairs",
        "time",
        "of it scheduling",
        "memory: scheduler + workers",
        "storage",
        "computing",
        "storage a month",
    ]
    prices = parameters["prices_usd"]
    said = (
        f"One pair: {number(pair['cpu_s_per_pair'], 3)} s of a processor, {number(pair['bytes_per_pair'] / 1e3, 3)} kB, "
        f"{pair['scatterers_of_an_image']:,} scatterers ({measured_on(pair)}) "
        f"Parameters: {parameters['laptop_cores']} cores of a laptop, ${prices['core_hour']} per core and hour, "
        f"${prices['card_hour']} per card and hour, ${prices['gb_month']} per GB and month; "
        f"{parameters['card_frames_per_s']:.0f} frames of {parameters['card_scatterers']:,} scatterers per second and card "
        "(not measured)."
    )
    return f"{table(head, rows)}\n\n{said}"


def duration(hours: float) -> str:
    """Return a time in the unit that suits it."""
    if hours < 1 / 60:
        return f"{number(3600 * hours)} s"
    if hours < 1:
        return f"{number(60 * hours)} min"
    return f"{number(hours)} h" if hours < 48 else f"{number(hours / 24)} days"


def size(gigabytes: float) -> str:
    """Return a size in GB or TB."""
    return f"{number(gigabytes)} GB" if gigabytes < 1000 else f"{number(gigabytes / 1000)} TB"


TABLES = {"scale": scale, "simulate": simulate, "beamform": beamform}
TABLES |= {f"peers/{make.__name__}": make for make in (simulation, beamforming, end_to_end, accuracy, memory, scaling)}


def filled(text: str) -> str:
    """Return a page with its tables as the files have them."""
    return PLACE.sub(lambda match: f"{match[1]}{TABLES[match[2]]()}\n{match[4]}", text)


def main() -> None:
    """Write the pages."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if filled(text) != text:
            page.write_text(filled(text), encoding="utf-8")
            print(f"written: {page.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
