"""Scan conversion and its inverse: a point stays where it is, energy is kept, a sector fits in its image."""

import numpy as np
import pytest

import ussim

MM = 1e-3


def grid_of(probe, size=256):
    imaging = probe.imaging
    return ussim.ImageGrid(np.linspace(*imaging.x, size), np.linspace(*imaging.z, size))


@pytest.fixture(params=["C5-2v", "P4-2v"])
def field(request):
    """The field of a convex and of a phased probe, and the polar grid in it."""
    probe = ussim.load_probe(request.param)
    grid = grid_of(probe)
    return grid, ussim.PolarGrid.within(grid, ussim.phantoms.beam_apex(probe))


def blob(x, z, at, width):
    return np.exp(-((x - at[0]) ** 2 + (z - at[1]) ** 2) / (2 * width**2))


def centroid(image, x, z, weight=1.0):
    image = image * weight
    return (image * x).sum() / image.sum(), (image * z).sum() / image.sum()


def test_a_point_stays_where_it_is(field):
    grid, polar = field
    (x, z), (u, v) = grid.mesh(), polar.mesh()
    area = polar.radius[:, None]  # of a cell, up to a factor
    for radius, angle in ((0.3, 0.25), (0.5, 0.5), (0.7, 0.8)):
        r = polar.radius[0] + radius * np.ptp(polar.radius)
        a = polar.angle[0] + angle * np.ptp(polar.angle)
        point = r * np.sin(a), polar.apex + r * np.cos(a)
        cartesian = ussim.scan_convert(blob(u, v, point, 1 * MM), polar, grid)
        assert centroid(cartesian, x, z) == pytest.approx(point, abs=0.02 * MM)  # a tenth of a pixel
        back = ussim.to_polar(blob(x, z, point, 1 * MM), grid, polar)
        assert centroid(back, u, v, area) == pytest.approx(point, abs=0.02 * MM)


def test_energy_is_kept(field):
    grid, polar = field
    x, z = grid.mesh()
    pixel = (grid.x[1] - grid.x[0]) * (grid.z[1] - grid.z[0])
    cell = polar.radius[:, None] * (polar.radius[1] - polar.radius[0]) * (polar.angle[1] - polar.angle[0])
    r, a = polar.radius.mean(), polar.angle.mean()
    at = r * np.sin(a), polar.apex + r * np.cos(a)
    true = 2 * np.pi * (1.5 * MM) ** 2
    polar_image = ussim.to_polar(blob(x, z, at, 1.5 * MM), grid, polar)
    assert (polar_image * cell).sum() == pytest.approx(true, rel=1e-3)
    again = ussim.scan_convert(polar_image, polar, grid)
    # Linear interpolation widens a blob by the variance of its triangle, an eighth of a step squared at most: 0.2 %.
    assert again.sum() * pixel == pytest.approx(true, rel=2e-3)
    assert np.abs(again - blob(x, z, at, 1.5 * MM)).max() < 0.02


def test_the_largest_sector_lies_in_its_image(field):
    grid, polar = field
    u, v = polar.mesh()
    assert polar.shape == grid.shape
    assert grid.x[0] - 1e-9 <= u.min() < u.max() <= grid.x[-1] + 1e-9
    assert grid.z[0] - 1e-9 <= v.min() < v.max() <= grid.z[-1] + 1e-9
    assert polar.angle[0] == pytest.approx(-polar.angle[-1], abs=1e-2)  # of a field that is even left and right
    assert ussim.to_polar(np.ones(grid.shape, bool), grid, polar).all()  # no blank corner
    for factor in (0.98, 1.02):  # it cannot be moved out without leaving the image, nor turned
        beyond = ussim.PolarGrid(polar.radius * factor, polar.angle, polar.apex)
        assert not ussim.to_polar(np.ones(grid.shape, bool), grid, beyond).all()


def test_a_field_beside_the_axis_has_its_sector():
    grid = ussim.ImageGrid(np.linspace(5, 25, 64) * MM, np.linspace(30, 60, 64) * MM)
    polar = ussim.PolarGrid.within(grid, 0.0, shape=(32, 16))
    assert polar.shape == (32, 16)
    assert polar.angle[0] > 0
    assert (ussim.to_polar(np.ones(grid.shape, bool), grid, polar)).all()
    with pytest.raises(ValueError, match="apex: expected a depth above the image"):
        ussim.PolarGrid.within(grid, 40 * MM)


def test_grey_levels_and_stacks_keep_their_type(field):
    grid, polar = field
    grey = np.random.default_rng(0).integers(0, 256, (2, *grid.shape), dtype=np.uint8)
    there = ussim.to_polar(grey, grid, polar)
    assert there.dtype == np.uint8
    assert there.shape == (2, *polar.shape)
    np.testing.assert_array_equal(there[1], ussim.to_polar(grey[1], grid, polar))
    sector = ussim.scan_convert(np.full(polar.shape, 7, np.uint8), polar, grid, outside=1)
    assert set(np.unique(sector)) == {1, 7}
    with pytest.raises(ValueError, match="expected the grid's shape"):
        ussim.to_polar(grey[..., 1:], grid, polar)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (([0.0, 1.0], [0.0, 1.0]), "radius: expected m above 0"),
        (([2.0, 1.0], [0.0, 1.0]), "radius: expected finite increasing m"),
        (([1.0, 2.0], [0.0, np.nan]), "angle: expected finite increasing rad"),
        (([1.0, 2.0], [0.0, 4.0]), "within ±π"),
        (([1.0, 2.0], [0.0, 1.0], np.inf), "apex: expected a depth in m"),
    ],
)
def test_what_is_no_grid_is_refused(values, words):
    with pytest.raises(ValueError, match=words):
        ussim.PolarGrid(*values)
