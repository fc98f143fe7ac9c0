"""Variants before simulation: the same picture turned, nothing invented, nothing degraded, drawn from a generator."""

from __future__ import annotations

import math

import numpy as np
import pytest

from datagen.plan.augment import Augmentation, apply_augmentation, augment, draw_augmentation
from datagen.plan.slices import resize


@pytest.fixture
def picture():
    """A smooth 128 x 128 picture that no symmetry leaves unchanged."""
    rows, columns = np.mgrid[:128, :128] / 128
    return np.rint(255 * (0.2 + 0.5 * columns * rows + 0.3 * np.sin(5 * rows) ** 2)).astype(np.uint8)


def test_no_augmentation_changes_nothing(picture):
    assert np.array_equal(apply_augmentation(picture, Augmentation()), picture)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
def test_flips_and_quarter_turns_are_exact(picture, flip, quarter_turns):
    expected = np.rot90(picture[:, ::-1] if flip else picture, quarter_turns)
    assert np.array_equal(apply_augmentation(picture, Augmentation(flip, quarter_turns)), expected)


def test_the_same_generator_gives_the_same_variant(picture):
    first, again, other = (augment(picture, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_variants_cover_flips_turns_angles_and_scales():
    rng = np.random.default_rng(0)
    drawn = [draw_augmentation(rng, max_angle=0.2, min_scale=0.7) for _ in range(400)]
    assert {(one.flip, one.quarter_turns) for one in drawn} == {(f, q) for f in (False, True) for q in range(4)}
    angles = np.array([one.angle for one in drawn])
    scales = np.array([one.scale for one in drawn])
    assert -0.2 <= angles.min() < -0.18
    assert 0.18 < angles.max() <= 0.2
    assert 0.7 <= scales.min() < 0.72
    assert 0.98 < scales.max() <= 1


def test_nothing_is_invented_at_the_corners():
    """A bright picture with a dark rim one pixel beyond what may be shown: the rim never enters, nor does black."""
    rng = np.random.default_rng(1)
    bright = np.full((64, 64), 200, np.uint8)
    for _ in range(100):
        assert (augment(bright, rng, max_angle=math.pi / 4, min_scale=0.3) == 200).all()


def test_values_stay_within_those_of_the_picture():
    rng = np.random.default_rng(2)
    noise = rng.integers(40, 200, (64, 64)).astype(np.uint8)
    for _ in range(20):
        variant = augment(noise, rng)
        assert variant.dtype == np.uint8
        assert variant.min() >= noise.min()
        assert variant.max() <= noise.max()


def test_a_point_lands_where_geometry_says():
    """The center stays; a point beside it turns the other way within the turned square, and is magnified."""
    n, angle = 129, math.radians(10)
    rows, columns = np.mgrid[:n, :n]
    spot = np.exp(-((rows - 64) ** 2 + (columns - 90) ** 2) / (2 * 3**2))  # 26 pixels right of the center
    variant = apply_augmentation(spot, Augmentation(angle=angle, scale=1.0))
    side = n / (math.cos(angle) + math.sin(angle))
    row, column = np.unravel_index(variant.argmax(), variant.shape)
    found = np.array([row - 64, column - 64])
    expected = 26 * n / side * np.array([-math.sin(angle), math.cos(angle)])
    assert np.abs(found - expected).max() <= 1.0  # whole pixels


def test_a_variant_is_as_sharp_as_the_mri_allows():
    """Interpolated once and not blurred: a sine of 8 pixels per period keeps 97 % of its amplitude."""
    columns = np.arange(256)
    sine = np.tile(0.5 + 0.4 * np.sin(2 * np.pi * columns / 8), (256, 1))
    variant = apply_augmentation(sine, Augmentation(angle=0.0, scale=0.8))
    middle = variant[100:156, 40:216]
    assert (middle.max() - middle.min()) / 0.8 > 0.97  # cubic splines lose 1 to 2 % at this period


def test_final_size_in_one_step_equals_the_resized_picture(picture):
    small = apply_augmentation(picture, Augmentation(), size=64)
    assert small.shape == (64, 64)
    expected = resize(picture / np.float32(255), (64, 64)) * 255
    assert np.abs(small - expected)[2:-2, 2:-2].max() < 1.5  # two roundings; the filters differ at the border
    assert apply_augmentation(picture, Augmentation(scale=0.9), size=200).shape == (200, 200)


def test_floating_point_pictures_stay_so(picture):
    variant = augment(picture.astype(np.float32) / 255, np.random.default_rng(0))
    assert variant.dtype == np.float32
    assert 0 <= variant.min() < variant.max() <= 1


def test_what_makes_no_sense_is_refused(picture):
    with pytest.raises(ValueError, match=r"expected a square image, got shape \(128, 64\)"):
        augment(picture[:, :64], np.random.default_rng(0))
    with pytest.raises(ValueError, match="max_angle: expected rad in"):
        draw_augmentation(np.random.default_rng(0), max_angle=2.0)
    with pytest.raises(ValueError, match="min_scale: expected a fraction"):
        draw_augmentation(np.random.default_rng(0), min_scale=0.0)
