"""Small computations of `numerics` against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.fft import next_fast_len
from scipy.interpolate import make_interp_spline
from scipy.ndimage import map_coordinates
from scipy.optimize import brentq
from scipy.signal import butter, lfilter_zi

import ussim
from ussim import numerics, physics
from ussim.plan import FILTER_ORDER


def test_lengths_are_scipys():
    assert [numerics.fast_length(n) for n in range(1, 5000)] == [next_fast_len(n, real=True) for n in range(1, 5000)]
    assert numerics.fast_length(2**20 + 1) == next_fast_len(2**20 + 1, real=True)


@pytest.mark.parametrize("order", [1, 2, FILTER_ORDER, 8])
def test_filters_are_scipys_to_the_last_bit(order):
    """Recorded IQ stays what it was."""
    for cutoff in np.linspace(0.002, 0.998, 250):
        law = butter(order, cutoff)
        if order == FILTER_ORDER:
            for mine, its in zip(numerics.butterworth(order, cutoff), law, strict=True):
                np.testing.assert_array_equal(mine, its)
            np.testing.assert_array_equal(numerics.steady_state(*law), lfilter_zi(*law))
        mine = numerics.butterworth(order, cutoff)
        np.testing.assert_allclose(np.concatenate(mine), np.concatenate(law), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7, 64, 128, 193])
def test_splines_are_scipys(n):
    rows, at = np.random.default_rng(n).normal(size=(3, n)), np.linspace(0, n - 1, 4 * n)
    expected = make_interp_spline(np.arange(n), rows, k=min(3, n - 1), axis=1)(at)
    np.testing.assert_allclose(
        numerics.spline(rows, at), expected, rtol=0, atol=1e-14
    )  # float64, sums of some ten terms
    cubic = np.polyval([0.3, -1.0, 2.0, 5.0], np.arange(n))
    if n > 3:
        found = numerics.spline(cubic[None], at)[0]
        np.testing.assert_allclose(found, np.polyval([0.3, -1.0, 2.0, 5.0], at), rtol=1e-12)


def test_grey_levels_are_scipys_to_the_last_bit():
    rng = np.random.default_rng(0)
    image = rng.random((40, 50))
    row, column = rng.uniform(0, 39, 5000), rng.uniform(0, 49, 5000)
    row[:3], column[:3] = (0, 39, 39), (0, 49, 0)
    expected = map_coordinates(image, [row, column], order=1, mode="nearest")
    np.testing.assert_array_equal(numerics.bilinear(image, row, column), expected)
    np.testing.assert_array_equal(numerics.bilinear(image[:1, :1], np.array([-1.0, 3.0]), np.zeros(2)), image[0, 0])


def test_roots_are_scipys():
    root = numerics.bracketed_root(np.cos, 1.0, 2.0)
    assert root == pytest.approx(np.pi / 2, rel=2e-16)
    assert numerics.bracketed_root(lambda x: x - 0.25, 0.0, 1.0) == 0.25
    for name in ussim.probe_names():
        probe = ussim.load_probe(name)
        wavelength = physics.shortest_wavelength(probe.center_frequency, probe.bandwidth, 1540.0)

        def excess(angle, width=probe.element_width, wavelength=wavelength):
            return np.cos(angle) * np.sinc(width * np.sin(angle) / wavelength) - 0.71

        expected = 1 / (2 * np.tan(brentq(excess, 1e-6, np.pi / 2)))
        # brentq ends within 2e-12 of the angle.
        assert physics.automatic_f_number(probe.element_width, wavelength) == pytest.approx(expected, rel=1e-11)
