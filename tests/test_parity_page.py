"""The page beside MUST: its rows are those of the golden arrays, and its numbers are what its script computes here."""

import importlib.util
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = (REPOSITORY / "docs" / "parity.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("parity", REPOSITORY / "docs" / "parity.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def errors(table):
    """Row's words -> its errors."""
    rows = {}
    for line in table.splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        numbers = [cell for cell in cells if re.fullmatch(r"\d\.\de-\d\d", cell)]
        rows[" | ".join(cell for cell in cells if cell not in numbers)] = [float(number) for number in numbers]
    return rows


@pytest.mark.parametrize("part", ["rf_table", "option_table", "fields", "images"])
def test_the_page_says_what_is_computed(script, part):
    import matplotlib.pyplot as plt

    made = getattr(script, part)()
    figure, table = (None, made) if isinstance(made, str) else made
    if figure:
        plt.close(figure)
    said = errors("\n\n" + "\n".join(line for line in PAGE.splitlines() if line.startswith("| ")))
    found = errors(table)
    assert len(found) >= 8
    for row, values in found.items():
        assert row in said, "run python docs/parity.py"
        # Processors round differently: errors of float32, well below what the parity tests allow.
        assert values == pytest.approx(said[row], rel=0.5, abs=1e-5), row


def test_pictures_are_small():
    for name in re.findall(r"images/(parity-\w+\.webp)", PAGE):
        assert (REPOSITORY / "docs" / "images" / name).stat().st_size < 100_000
