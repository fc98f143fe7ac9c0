"""BRISQUE: the authors' scores for their features, the features for images, and what it cannot measure."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage import data, transform

from irsde.evaluation import brisque as module
from irsde.evaluation.brisque import brisque, features, regress

# Features and scores of the authors' MATLAB release for two images (an image of TID2008 and a photograph), as published
# by another implementation in its tests.
PUBLISHED = [
    (
        [
            2.187, 0.305119, 0.731, 0.046159, 0.078954, 0.124348, 0.735, 0.032419, 0.086307,
            0.118338, 0.733, -0.020298, 0.112611, 0.092477, 0.73, -0.022557, 0.114732, 0.092231,
            2.103, 0.360946, 0.731, -0.055774, 0.183185, 0.116578, 0.734, -0.046589, 0.179101,
            0.123198, 0.73, -0.037948, 0.168773, 0.123828, 0.725, -0.033253, 0.165621, 0.12617,
        ],
        52.521,
    ),
    (
        [
            0.461, 0.1652788, 0.341, -0.1192659, 0.2319912, 0.0417499, 0.337, -0.1010206, 0.2127568,
            0.0502738, 0.341, -0.1070136, 0.1971343, 0.038088, 0.339, -0.097834, 0.1865236, 0.0413579,
            0.486, 0.1888571, 0.348, -0.0518405, 0.1354198, 0.0621431, 0.35, -0.0487347, 0.1329318,
            0.0642503, 0.342, -0.0046308, 0.0917469, 0.0853537, 0.341, -0.0035089, 0.0918414, 0.0869626,
        ],
        123.74,
    ),
]  # fmt: skip
CAMERA = data.camera()  # 512 x 512 bytes


def noisy(image):
    return np.clip(np.round(image + np.random.default_rng(0).normal(0, 30, image.shape)), 0, 255)


@pytest.mark.parametrize(("values", "score"), PUBLISHED)
def test_the_regression_is_the_authors(values, score):
    assert regress(values) == pytest.approx(score, abs=0.005)  # published to as many digits


@pytest.mark.parametrize(
    ("image", "score"),
    # By the features of piq 0.8.0 (rewritten in PyTorch) and the regression above: equal to 0.05.
    [(CAMERA, -7.31), (noisy(CAMERA), 68.94), (np.round(ndimage.gaussian_filter(CAMERA.astype(float), 3)), 74.15),
     (CAMERA[:201, :333], 10.14)],
    ids=["sharp", "noisy", "blurred", "odd sides"],
)  # fmt: skip
def test_scores_are_those_of_another_implementation(image, score):
    assert brisque(image / 255) == pytest.approx(score, abs=0.05)


def test_shapes_of_known_distributions_are_found():
    rng, n = np.random.default_rng(0), 1_000_000
    for shape in (0.5, 1.0, 2.0):
        size = rng.gamma(1 / shape, size=n) ** (1 / shape)
        even = size * rng.choice([-1, 1], n)
        # 1e6 samples: the heaviest tail leaves the second moment 1 % uncertain.
        assert module._shape(np.mean(np.abs(even)) ** 2, np.mean(even**2)) == pytest.approx(shape, rel=0.02)
        skewed = size * np.where(rng.random(n) < 1 / 4, -1, 3)  # widths 1 and 3, each side as probable as it is wide
        found, mean, left, right = module._asymmetric(skewed)
        assert found == pytest.approx(shape, rel=0.02)
        assert mean == pytest.approx(skewed.mean(), rel=0.02)
        assert right / left == pytest.approx(9, rel=0.04)


@pytest.mark.parametrize("shape", [(40, 52), (41, 53)])
def test_half_size_is_antialiased_bicubic(shape):
    z, x = np.mgrid[: shape[0], : shape[1]]
    slope = 2.0 * z + 3.0 * x
    half = module._halved(slope)
    assert half.shape == tuple(-(-n // 2) for n in shape)
    np.testing.assert_allclose(half[2:-2, 2:-2], (slope[::2, ::2] + 2.5)[2:-2, 2:-2])  # a plane stays a plane
    checks = (z + x) % 2 * 1.0
    half = module._halved(checks)[2:-2, 2:-2]
    np.testing.assert_allclose(half, 0.5, atol=1e-12)  # the finest pattern leaves its mean


def test_worse_images_score_higher():
    image = transform.resize(CAMERA / 255, (256, 256), anti_aliasing=True)
    scores = [brisque(ndimage.gaussian_filter(image, sigma)) for sigma in (0, 1, 2, 3)]
    assert scores == sorted(scores)


def test_no_contrast_is_no_score():
    assert math.isnan(brisque(np.zeros((40, 40))))
    assert math.isnan(brisque(np.full((40, 40), 0.5)))


@pytest.mark.parametrize("bad", [np.zeros((13, 40)), np.zeros((40, 40, 3)), np.full((40, 40), np.nan)])
def test_what_is_no_image_is_refused(bad):
    with pytest.raises(ValueError, match="BRISQUE: expected"):
        features(bad)


def test_the_notice_lies_beside_the_model():
    from importlib import resources

    notice = (resources.files("irsde.evaluation") / "brisque-LICENSE.txt").read_text(encoding="utf-8")
    assert "The University of Texas at Austin" in notice
    assert module._model()["support_vectors"].shape == (774, 36)
