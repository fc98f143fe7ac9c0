"""Values in a notebook: one line, a table, a picture; never their arrays."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import ussim


def values():
    """One of each value that holds arrays, by name."""
    probe = ussim.load_probe("L11-5v")
    acquisition = ussim.Acquisition(probe, ussim.imaging_waves(probe))
    grid = ussim.ImageGrid.for_acquisition(acquisition)
    phantom = ussim.phantoms.cysts((-0.019, 0.019), (0.005, 0.043))
    return {
        "probe": probe,
        "acquisition": acquisition,
        "waves": acquisition.waves,
        "diverging": ussim.imaging_waves(ussim.load_probe("P4-2v")),
        "focused": ussim.focused_scan(probe, 0.02),
        "custom": ussim.CustomTransmits(np.zeros((3, 128))),
        "synthetic": ussim.SyntheticAperture(),
        "waveform": ussim.Waveform(np.sin(np.arange(100.0)), 100e6),
        "impulse": ussim.ImpulseResponse(np.sin(np.arange(100.0)), 100e6),
        "grid": grid,
        "phantom": phantom,
        "scatterers": phantom.scatterers(acquisition, 0),
        "rf": ussim.RFData(np.ones((15, 128, 100), np.float32), acquisition, 20e6),
        "iq": ussim.IQData(np.ones((15, 128, 100), np.complex64), acquisition, 20e6, 7.6e6),
    }


VALUES = values()


@pytest.mark.parametrize("name", VALUES)
def test_a_repr_is_a_line(name):
    text = repr(VALUES[name])
    assert text.startswith(f"{type(VALUES[name]).__name__}(")
    assert "\n" not in text
    assert len(text) < 400
    assert "array(" not in text


@pytest.mark.parametrize("name", VALUES)
def test_a_table_is_small_and_escaped(name):
    html = VALUES[name]._repr_html_()
    assert html.startswith("<table>")
    assert html.count("<tr>") == html.count("</tr>") >= bool(name != "synthetic")
    assert len(html) < 4000
    assert "<15" not in html  # of an array's size: as &lt;


def test_what_a_repr_says():
    assert repr(VALUES["grid"]) == "ImageGrid(x=<256: -0.019 to 0.019>, z=<256: 0.005 to 0.043>)"
    assert repr(VALUES["waves"]) == "PlaneWaves(angles=<15: -0.1745 to 0.1745>)"
    assert "samples=<15 x 128 x 100 float32>" in repr(VALUES["rf"])


def pictures():
    grid, probe = VALUES["grid"], VALUES["probe"]
    return {
        "grey": lambda: grid.plot(np.zeros(grid.shape, np.float32)),
        "uint8": lambda: grid.plot(np.zeros(grid.shape, np.uint8)),
        "complex": lambda: grid.plot(np.full(grid.shape, 2 + 1j), dynamic_range_db=60, title="compound"),
        "pressure": lambda: grid.plot_pressure(np.ones(grid.shape), probe),
        "phantom": VALUES["phantom"].plot,
        "probe": probe.plot,
        "rf": VALUES["rf"].plot,
        "iq": lambda: VALUES["iq"].plot(transmit=-1),
    }


@pytest.mark.parametrize("name", pictures())
def test_plots_are_figures(name, tmp_path):
    from matplotlib.figure import Figure

    figure = pictures()[name]()
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "x.png", dpi=30)
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_a_complex_image_is_shown_in_decibels_of_its_maximum():
    grid = ussim.ImageGrid(x=np.linspace(-1e-3, 1e-3, 3), z=np.linspace(1e-3, 2e-3, 2))
    image = np.array([[1j, 10, 0.1], [100, -1, 0]])
    (shown,) = (axes.images[0].get_array() for axes in grid.plot(image, 40.0).axes[:1])
    # 40 dB: 100 is white, 10 half, 1 black and below
    assert np.allclose(shown, [[0, 0.5, 0], [1, 0, 0]])


def test_a_wrong_plot_is_one_clear_error():
    with pytest.raises(ValueError, match=r"expected an image of shape \(256, 256\)"):
        VALUES["grid"].plot(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="transmit: expected 0 to 14, got 15"):
        VALUES["rf"].plot(15)


def test_values_import_no_matplotlib():
    code = "import sys, ussim; repr(ussim.load_probe('L11-5v')); sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
