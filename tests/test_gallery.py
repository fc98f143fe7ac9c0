"""The gallery: each example runs and ends in a picture, and the page and its pictures are those of the scripts."""

import importlib.util
import runpy
from pathlib import Path

import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]


def _gallery():
    spec = importlib.util.spec_from_file_location("gallery", REPOSITORY / "docs" / "gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GALLERY = _gallery()
EXAMPLES = GALLERY.examples()
LEARNED = {"despeckle", "drus"}  # by PyTorch


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_an_example_ends_in_a_picture(script, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    if script.stem in LEARNED:
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("USSIM_SMALL", "1")
    monkeypatch.setattr("matplotlib.rcParams", plt.rcParams.copy())
    plt.switch_backend("Agg")
    runpy.run_path(str(script), run_name="__main__")
    plt.close("all")
    with Image.open(f"{script.stem}.png") as picture:
        low, high = picture.convert("L").getextrema()
        assert picture.width > 300
        assert high - low > 100  # not an empty sheet


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_an_example_is_short_and_has_a_small_picture(script):
    assert len(script.read_text(encoding="utf-8").splitlines()) < 60
    thumbnail = GALLERY.PICTURES / f"{script.stem}.webp"
    assert thumbnail.stat().st_size < GALLERY.MOST, "python docs/gallery.py makes it"


def test_the_page_is_made_of_the_scripts():
    assert (REPOSITORY / "docs" / "gallery.md").read_text(encoding="utf-8") == GALLERY.page(), (
        "run python docs/gallery.py"
    )
    pictures = {path.stem for path in GALLERY.PICTURES.glob("*.webp")}
    assert pictures == {script.stem for script in EXAMPLES}
