"""Scatterers from an image: density, law of the reflectivity, alignment, reproducibility."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

import ussim


@pytest.fixture
def acquisition():
    return ussim.Acquisition(ussim.load_probe("L11-5v"), ussim.PlaneWaves(0.0))


@pytest.fixture
def grid(acquisition):
    return ussim.ImageGrid.for_acquisition(acquisition, shape=(64, 48))


def test_mean_nearest_neighbour_is_the_mean_distance(acquisition, grid):
    scatterers = ussim.scatterers_from_image(np.ones(grid.shape), grid, acquisition, seed=1, mean_distance=0.2e-3)
    points = np.column_stack([scatterers.x, scatterers.z])
    nearest = cKDTree(points).query(points, k=2)[0][:, 1]
    assert nearest.mean() == pytest.approx(0.2e-3, rel=0.01)  # 14,000 scatterers: 0.3 % standard error
    assert nearest.min() > 0.1 * 0.2e-3
    area = np.ptp(grid.x) * np.ptp(grid.z)
    assert len(scatterers) == pytest.approx(0.4 * area / 0.2e-3**2, rel=0.01)


def test_default_count_on_the_default_field(acquisition, grid):
    scatterers = ussim.scatterers_from_image(np.ones(grid.shape), grid, acquisition)
    assert len(scatterers) == pytest.approx(27_000, rel=0.01)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_reflectivity_is_rayleigh_with_a_mean_set_by_the_grey_level(acquisition, grid, level):
    scatterers = ussim.scatterers_from_image(np.full(grid.shape, level), grid, acquisition, seed=2, dynamic_range_db=40)
    strength = scatterers.reflectivity
    assert strength.mean() == pytest.approx(10 ** (2 * (level - 1)), rel=0.015)  # 27,000 draws: 0.3 % standard error
    assert strength.mean() / strength.std() == pytest.approx(1.913, rel=0.02)  # sqrt(pi / (4 - pi))


def test_image_is_laid_over_the_grid(acquisition, grid):
    image = np.zeros(grid.shape)
    image[10:20, 30:40] = 1.0
    scatterers = ussim.scatterers_from_image(image, grid, acquisition, seed=3)
    inside = (
        (scatterers.x > grid.x[30])
        & (scatterers.x < grid.x[39])
        & (scatterers.z > grid.z[10])
        & (scatterers.z < grid.z[19])
    )
    bright = scatterers.reflectivity > 0.3
    assert bright[inside].mean() > 0.9
    outside = (
        (scatterers.x < grid.x[29])
        | (scatterers.x > grid.x[40])
        | (scatterers.z < grid.z[9])
        | (scatterers.z > grid.z[20])
    )
    assert not bright[outside].any()


def test_same_seed_same_scatterers(acquisition, grid):
    image = np.linspace(0, 1, 64 * 48).reshape(64, 48)
    one, same, other = (ussim.scatterers_from_image(image, grid, acquisition, seed=s) for s in (5, 5, 6))
    for name in ("x", "z", "reflectivity"):
        assert getattr(one, name).tobytes() == getattr(same, name).tobytes()
    assert not np.array_equal(one.x, other.x[: len(one)])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3)), "2-D"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.full((4, 4), 7.0), r"\[0, 1\]"),
    ],
)
def test_bad_images_are_refused(acquisition, grid, image, message):
    with pytest.raises(ValueError, match=message):
        ussim.scatterers_from_image(image, grid, acquisition)


def test_uint8_is_grey_in_255ths(acquisition, grid):
    levels = np.full(grid.shape, 128, dtype=np.uint8)
    one = ussim.scatterers_from_image(levels, grid, acquisition)
    same = ussim.scatterers_from_image(levels / 255, grid, acquisition)
    assert one.reflectivity.tobytes() == same.reflectivity.tobytes()
