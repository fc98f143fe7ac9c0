"""The page of an export: YAML that hubs read, then what a person wants to know, with a picture and lines to copy."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from ...store.loader import Pairs
from ..preview import preview_png
from .items import Shown

PICTURE = "preview.png"
_SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"), (10**12, "n>1M"))


@dataclass(frozen=True)
class Page:
    """Page that says what a format holds.

    Attributes
    ----------
    files : which files there are, in Markdown.
    example : lines of Python that read a pair.
    configs : name -> split -> pattern of files, as hubs read them.
    sections : (title, Markdown) of what else is to be said.
    """

    files: str
    example: tuple[str, ...]
    configs: dict[str, dict[str, str]] = field(default_factory=dict)
    sections: tuple[tuple[str, str], ...] = ()
    tags: tuple[str, ...] = ()
    licence_file: str = "LICENSE"
    picture: str = ""


def title(shown: Shown) -> str:
    """Return what the dataset is, in a line."""
    kinds = {source.name for source in shown.pairs.sources}
    what = "Phantom" if kinds == {"phantom"} else "MRI"
    return f"{what} and simulated ultrasound pairs ({shown.pairs.attributes['source']})"


def describe(shown: Shown) -> str:
    """Return what the pairs are, in a few lines."""
    pairs, recipe = shown.stored, shown.stored.recipe
    subjects = len({(row["source"], row["subject"]) for row in pairs.samples})
    draws = f", {pairs.n_draws} draws of the scatterers of each" if pairs.n_draws > 1 else ""
    return (
        f"{len(pairs)} pairs of {subjects} subjects, {recipe.size} x {recipe.size} pixels, 8-bit grey: an image (HQ) and "
        f"its simulated B-mode (LQ) under {', '.join(pairs.probes)}{draws}, pixel for pixel on one grid. Simulated with the "
        f"engine {recipe.engine}: {recipe.dynamic_range_db:g} dB, attenuation {recipe.attenuation_db_cm_mhz:g} dB/cm/MHz, "
        f"seed {recipe.seed}. Simulations: not for diagnosis."
    )


def text(shown: Shown, page: Page) -> str:
    """Return the page."""
    lines = [*_front_matter(shown, page), "", f"# {title(shown)}", "", describe(shown), ""]
    if page.picture:
        lines += [f"![Pairs: HQ, and LQ simulated from it]({page.picture})", ""]
    lines += ["```python", *page.example, "```", "", "## Files", "", page.files]
    lines += ["A mask is white where a pixel lies inside the field of the probe.", *_labels(shown)]
    if "lq_polar" in shown.kinds:
        lines.append(
            "Polar images show the largest sector in the image of a convex or phased probe: rows are radii, columns angles."
        )
    lines += [
        f"Subjects are kept apart: the split `test` is fold {shown.test_fold} of {shown.pairs.n_folds}, `train` the others. "
        "Split by `fold`, not at random.",
        "",
    ]
    for name, content in page.sections:
        lines += [f"## {name}", "", content, ""]
    lines += ["## Sources and licence", ""]
    for source in shown.pairs.sources:
        lines.append(f"- {source.title}. Licence: {source.licence}. Terms: {source.terms}. Cite: {source.citation}")
    lines += ["", f"Passed on under {_licences(shown)}; see [{page.licence_file}]({page.licence_file}).", ""]
    lines += [f"Digest of the store: `{shown.pairs.attributes['digest']}`", ""]
    return "\n".join(lines)


def write_picture(pairs: Pairs, folder: Path) -> bool:
    """Draw some pairs of a store, of one probe; returns whether there is one to draw."""
    if not len(pairs):
        return False
    (folder / PICTURE).write_bytes(preview_png(pairs, pairs.probes[0]))
    return True


def _front_matter(shown: Shown, page: Page) -> list[str]:
    size = next(name for limit, name in _SIZES if len(shown) < limit)
    lines = ["---", *_licence_lines(shown, page), f"pretty_name: {json.dumps(title(shown))}"]
    lines += [f"size_categories: [{size}]", "task_categories: [image-to-image]"]
    lines.append(f"tags: [{', '.join(('ultrasound', 'speckle', 'simulation', 'medical', *page.tags))}]")
    if page.configs:
        lines.append("configs:")
        for name, splits in page.configs.items():
            lines += [f"- config_name: {json.dumps(name)}", *(["  default: true"] if name == "default" else [])]
            lines.append("  data_files:")
            for split, pattern in splits.items():
                lines += [f"  - split: {split}", f"    path: {json.dumps(pattern)}"]
    return [*lines, "---"]


def _licence_lines(shown: Shown, page: Page) -> list[str]:
    """Return the licence as hubs know it, or as "other" with its name and text."""
    ids = [licence.spdx for licence in shown.licences]
    if all(ids):
        named = [str(name).lower() for name in ids]
        return [f"license: {named[0]}" if len(named) == 1 else f"license: [{', '.join(named)}]"]
    return ["license: other", f"license_name: {json.dumps(_licences(shown))}", f"license_link: {page.licence_file}"]


def _licences(shown: Shown) -> str:
    return "; ".join(licence.spdx or licence.text for licence in shown.licences)


def _labels(shown: Shown) -> list[str]:
    """Return what the values of the labels are called."""
    if not shown.pairs.has_labels:
        return []
    names = ", ".join(f"{value} {name}" for value, name in sorted(shown.pairs.label_names.items()))
    return [f"Labels: 0 unnamed, {names}."]
