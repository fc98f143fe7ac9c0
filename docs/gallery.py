"""The gallery: run every example, keep its picture small, write docs/gallery.md (python docs/gallery.py [NAME ...])."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).resolve().parent
EXAMPLES = DOCS.parent / "examples"
PICTURES = DOCS / "images" / "gallery"
WIDTH = 720  # pixels
MOST = 60_000  # bytes per picture

HEAD = """# Gallery

Each picture is the end of a short script in `examples/`. Run it from any folder (`python examples/psf.py`); it
writes the picture there. With
`USSIM_SMALL=1` in the environment it takes fewer pixels and a few seconds. This page is made by `python
docs/gallery.py` from the scripts'
docstrings.
"""


def examples() -> list[Path]:
    """Return the scripts, by name."""
    return sorted(EXAMPLES.glob("*.py"))


def entry(script: Path) -> str:
    """Return the part of the page about one script."""
    text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    summary, _, more = text.partition("\n\n")
    title = script.stem.replace("_", " ").capitalize()
    parts = [f"## {title}", f"**{summary}**", more.replace("\n", " ")]
    parts.append(f"[![{summary}](images/gallery/{script.stem}.webp)](../examples/{script.name})")
    parts.append(f"[examples/{script.name}](../examples/{script.name})")
    return "\n\n".join(part for part in parts if part)


def page() -> str:
    """Return docs/gallery.md."""
    return "\n".join([HEAD, "\n\n".join(entry(script) for script in examples())]) + "\n"


def keep_small(picture: Path, thumbnail: Path) -> None:
    """Write a picture as WebP, at most `WIDTH` pixels wide and `MOST` bytes large."""
    image = Image.open(picture).convert("RGB")
    image.thumbnail((WIDTH, 10 * WIDTH), Image.Resampling.LANCZOS)
    for quality in range(90, 20, -5):
        image.save(thumbnail, quality=quality, method=6)
        if thumbnail.stat().st_size < MOST:
            return
    raise ValueError(f"{picture}: more than {MOST} bytes at any quality")


def main(names: list[str]) -> None:
    """Run the examples named, or all."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"MPLBACKEND": "Agg"}
    environment.pop("USSIM_SMALL", None)
    for script in examples():
        if names and script.stem not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, script], cwd=folder, check=True, env=environment)
            keep_small(Path(folder, f"{script.stem}.png"), PICTURES / f"{script.stem}.webp")
    (DOCS / "gallery.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
