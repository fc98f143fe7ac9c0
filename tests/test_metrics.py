"""Metrics against values known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import erf

from irsde.evaluation import metrics


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_psnr_and_ssim_of_equal_images(rng):
    image = rng.random((32, 32))
    assert metrics.psnr(image, image) == math.inf
    assert metrics.ssim(image, image) == pytest.approx(1.0, abs=1e-12)


def test_psnr_of_a_tenth_is_twenty_decibels(rng):
    image = 0.8 * rng.random((32, 32))
    assert metrics.psnr(image + 0.1, image) == pytest.approx(20.0, abs=1e-9)


def test_psnr_of_images_of_bytes(rng):
    image = rng.random((64, 64))
    rounded = np.round(image * 255).astype(np.uint8)
    # Rounding to 8 bits: mean squared error 1 / (12 · 255²), 58.9 dB.
    assert metrics.psnr(rounded / 255, image) == pytest.approx(20 * math.log10(255) + 10 * math.log10(12), abs=0.2)
    darker = np.maximum(rounded, 40) - np.uint8(40)
    in_bytes = metrics.psnr(darker, rounded, data_range=255)  # differences must not wrap around
    assert in_bytes == pytest.approx(metrics.psnr(darker / 255, rounded / 255), abs=1e-9)


def test_aligned_psnr_ignores_gain_and_offset_only(rng):
    image = rng.random((32, 32))
    assert metrics.aligned_psnr(0.5 * image + 0.2, image) > 200  # rounding only
    assert metrics.aligned_psnr(np.full((32, 32), 0.3), image) == pytest.approx(-10 * math.log10(image.var()))


def test_metrics_look_inside_the_mask_only(rng):
    image, mask = rng.random((40, 40)), np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    spoiled = np.where(mask, image, 0.0)
    assert metrics.psnr(spoiled, image, mask=mask) == math.inf
    assert metrics.aligned_psnr(spoiled, image, mask=mask) > 200
    assert metrics.ssim(spoiled, image, mask=mask) < 1  # windows at the edge of the mask reach outside


def test_ssim_is_wangs_gaussian_window_with_unit_range(rng):
    a, b = rng.random((24, 24)), rng.random((24, 24))
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for z in range(5, 19):
        for x in range(5, 19):
            p, q = a[z - 5 : z + 6, x - 5 : x + 6], b[z - 5 : z + 6, x - 5 : x + 6]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq, c = (
                (window * (p - mp) ** 2).sum(),
                (window * (q - mq) ** 2).sum(),
                (window * (p - mp) * (q - mq)).sum(),
            )
            values.append((2 * mp * mq + 1e-4) * (2 * c + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    assert metrics.ssim(a, b) == pytest.approx(np.mean(values), abs=1e-9)
    assert metrics.ssim(a, b, data_range=2.0) > metrics.ssim(a, b) + 0.01  # the wrong range flatters


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        metrics.psnr(np.zeros((4, 4)), np.zeros((4, 5)))


def test_speckle_statistics_in_each_domain(rng):
    amplitude = rng.rayleigh(size=(1000, 1000))  # standard error of the ratios: 1e-3
    assert metrics.speckle_snr(amplitude) == pytest.approx(1.913, abs=0.01)
    assert metrics.enl(amplitude) == pytest.approx(3.66, abs=0.03)
    assert metrics.enl(amplitude**2) == pytest.approx(1.0, abs=0.01)
    assert metrics.speckle_snr(np.abs(rng.normal(size=(1000, 1000)))) == pytest.approx(1.324, abs=0.01)
    decibels = metrics.speckle_snr(amplitude, decibels=True)
    assert decibels == pytest.approx(20 * math.log10(1.913), abs=0.05)
    assert decibels == pytest.approx(10 * math.log10(metrics.enl(amplitude)), abs=1e-6)  # one region: the same number


def test_cnr_linear_and_decibel_forms(rng):
    image = rng.normal(size=(400, 400))
    left = np.zeros(image.shape, bool)
    left[:, :200] = True
    image[left] += 3
    assert metrics.cnr(image, left, ~left) == pytest.approx(3 / math.sqrt(2), abs=0.02)
    assert metrics.cnr(image, left, ~left, decibels=True) == pytest.approx(20 * math.log10(3), abs=0.1)


@pytest.mark.parametrize("separation", [1.0, 2.0, 4.0])
def test_gcnr_of_two_gaussians(rng, separation):
    image = rng.normal(size=(2, 200_000))
    image[1] += separation
    inside = np.zeros(image.shape, bool)
    inside[0] = True
    assert metrics.gcnr(image, inside, ~inside) == pytest.approx(erf(separation / (2 * math.sqrt(2))), abs=0.01)


@pytest.mark.parametrize(("ratio", "expected"), [(2, 0.4725), (4, 0.7793)])
def test_gcnr_of_rayleigh_regions_survives_compression(rng, ratio, expected):
    image = rng.rayleigh(size=(2, 200_000))
    image[1] *= ratio
    inside = np.zeros(image.shape, bool)
    inside[0] = True
    for bins in (64, 256):
        linear, compressed = (metrics.gcnr(shown, inside, ~inside, bins) for shown in (image, np.log(image)))
        assert linear == pytest.approx(expected, abs=0.01)
        assert compressed == pytest.approx(linear, abs=0.02)


@pytest.mark.parametrize(
    ("n", "bins", "bias"),
    [(500, 20, 0.08), (500, 100, 0.21), (500, 256, 0.32), (5000, 20, 0.03), (5000, 100, 0.06), (5000, 256, 0.10),
     (1400, 64, 0.10), (1400, 256, 0.20)],
)  # fmt: skip
def test_gcnr_of_one_distribution_is_biased_as_stated(rng, n, bins, bias):
    inside = np.zeros((2, n), bool)
    inside[0] = True
    found = np.mean([metrics.gcnr(rng.normal(size=(2, n)), inside, ~inside, bins) for _ in range(10)])
    assert found == pytest.approx(bias, abs=0.025)  # stated from one draw each, which spreads by .02


def test_fwhm_of_a_gaussian_on_the_display_grid():
    """The recipe's own numbers, of which a better interpolation would give neither: 0.368 to 0.409 mm for 0.400 mm.

    At ten phases of the grid, in a window of 27 pixels: the fine samples are 0.0136 mm apart, so a width is 27 to 30 of
    them; a few phases between these ten lose one more.
    """
    spacing = 36 / 255
    widths = []
    for phase in np.arange(10) / 10:
        x = (np.arange(-13, 14) + phase) * spacing
        widths.append(metrics.fwhm(np.exp(-(x**2) / (2 * 0.17**2)), spacing))
    assert min(widths) == pytest.approx(0.368, abs=5e-4)
    assert max(widths) == pytest.approx(0.409, abs=5e-4)


def test_fwhm_on_a_fine_grid():
    spacing = 36 / 255 / 20
    x = np.arange(-240, 241) * spacing
    assert metrics.fwhm(np.exp(-(x**2) / (2 * 0.17**2)), spacing) == pytest.approx(0.400, abs=0.005)
    carrier = np.exp(-(x**2) / (2 * 0.17**2)) * np.cos(2 * np.pi * x / 0.2)
    # The carrier's maxima lie nearer the center than the envelope's values there, 0.2 dB low at -6 dB: 0.01 mm narrower.
    assert metrics.fwhm(carrier, spacing, envelope=True) == pytest.approx(0.400, abs=0.02)


def test_fwhm_is_nan_where_the_lobe_is_cut():
    assert math.isnan(metrics.fwhm(np.linspace(0, 1, 20), 0.1))
    assert math.isnan(metrics.fwhm(np.zeros(20), 0.1))


def test_background_patches_are_calm_and_beside_the_lesion(rng):
    image = rng.random((96, 128))
    image[30:46, 96:112] = 0.5 + 0.05 * rng.random((16, 16))  # one calm patch
    lesion = np.zeros(image.shape, bool)
    lesion[30:60, 20:60] = True
    patches = metrics.background_patches(image, lesion, size=16, count=3)
    assert patches.sum() == 3 * 256
    assert not (patches & lesion).any()
    rows = np.flatnonzero(patches.any(axis=1))
    assert rows.min() >= 30
    assert rows.max() < 60
    assert patches[34:44, 100:110].any()


def test_background_patches_are_not_the_black_beside_the_image(rng):
    image = rng.uniform(0.2, 0.8, (96, 128))
    image[:, :40] = 0.0
    lesion = np.zeros(image.shape, bool)
    lesion[30:60, 60:80] = True
    assert not metrics.background_patches(image, lesion, size=16, count=5)[:, :32].any()


def log_speckle(rng, shape, mean=0.5):
    """Fully developed speckle as a B-mode of 60 dB shows it, in 8 bits."""
    decibels = 20 * np.log10(rng.rayleigh(size=shape) + 1e-9)
    return np.round(np.clip(mean + decibels / 60, 0, 1) * 255) / 255


def caption(patch):
    patch = patch.copy()
    patch[3:13, 3:5] = patch[3:13, 8:10] = patch[7:9, 3:10] = 0.8  # an H, in light grey
    return patch


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda speckle: speckle, ""),
        (lambda speckle: 0.5 + (speckle - 0.5) / 8, ""),  # smoothed
        (lambda speckle: np.zeros_like(speckle), "black"),
        (lambda speckle: np.where(np.arange(16) < 3, 0, speckle), "black"),
        (lambda speckle: np.ones_like(speckle), "saturated"),
        (lambda speckle: np.where(np.arange(16) < 1, 1, speckle), "saturated"),
        (lambda speckle: np.full_like(speckle, 0.4), "constant"),
        (lambda speckle: 0.4 + speckle / 1000, "constant"),
        (lambda speckle: caption(np.full_like(speckle, 0.1)), "text or lines"),
        (lambda speckle: caption(0.2 + (speckle - 0.5) / 8), "text or lines"),
    ],
)
def test_a_patch_without_speckle_is_told(make, why):
    for seed in range(20):
        patch = make(np.clip(log_speckle(np.random.default_rng(seed), (16, 16)), 0.02, 0.98))
        assert metrics.not_speckle(patch) == why, seed


def test_patches_without_speckle_are_refused_and_counted(rng):
    """They are the calmest there are: an ENL of millions came from them."""
    image = np.clip(log_speckle(rng, (96, 128)), 0.02, 0.98)
    lesion = np.zeros(image.shape, bool)
    lesion[32:64, 48:80] = True
    image[32:48, :16], image[32:48, 16:32], image[48:64, :16] = 0.0, 1.0, 0.4
    image[48:64, 16:32] = caption(np.full((16, 16), 0.1))
    found = metrics.calm_patches(image, lesion, size=16, count=5)
    assert found.refused == {"black": 1, "saturated": 1, "constant": 1, "text or lines": 1}
    assert found.considered == 12
    assert not found.mask[:, :32].any()
    assert found.mask.sum() == 5 * 256
    assert metrics.enl(image, found.mask) < 100
    image[32:64] = 0.4
    with pytest.raises(ValueError, match=r"shows speckle \(12 constant\)"):
        metrics.calm_patches(image, lesion, size=16, count=5)


def test_background_patches_need_room():
    with pytest.raises(ValueError, match="smaller patch"):
        metrics.background_patches(np.zeros((32, 32)), np.ones((32, 32), bool))


def test_empty_region_is_refused():
    with pytest.raises(ValueError, match="empty"):
        metrics.enl(np.ones((4, 4)), np.zeros((4, 4), bool))


def test_lpips_without_weights_is_unavailable(tmp_path, rng):
    image = rng.random((64, 64))
    with pytest.raises(metrics.MetricUnavailable, match="AlexNet"):
        metrics.lpips(image, image)
    with pytest.raises(metrics.MetricUnavailable, match="cannot be read"):
        metrics.lpips(image, image, backbone=tmp_path / "missing.pth")


def test_lpips_reads_a_backbone_in_torchvision_layout(tmp_path, rng):
    """The layout only: these weights are random, so the value means nothing and is compared with the definition."""
    torch = pytest.importorskip("torch")
    from torch import nn

    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU()]
    layers += [nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(), nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU()]
    layers += [nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU()]
    features = nn.Sequential(*layers)
    path = tmp_path / "alexnet.pth"
    torch.save({f"features.{k}": v for k, v in features.state_dict().items()}, path)
    a, b = rng.random((64, 64)), rng.random((64, 64))
    assert metrics.lpips(a, a, backbone=path) == 0
    assert metrics.lpips(a, b, backbone=path) == pytest.approx(metrics.lpips(b, a, backbone=path), rel=1e-5)

    from irsde.evaluation import perceptual

    heads = perceptual._read(perceptual._head_file())
    with torch.no_grad():
        x = torch.tensor(np.stack([a, b]), dtype=torch.float32)[:, None].repeat(1, 3, 1, 1) * 2 - 1
        mean, std = torch.tensor([[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]]).view(2, 1, 3, 1, 1)
        x = (x - mean) / std
        expected = 0.0
        for k, end in enumerate((2, 5, 8, 10, 12)):
            f = features[:end](x)
            f = f / f.norm(dim=1, keepdim=True)
            weight = heads[f"lin{k}.model.1.weight"].view(1, -1, 1, 1)
            expected += float(((f[:1] - f[1:]) ** 2 * weight).sum(1).mean())
    assert metrics.lpips(a, b, backbone=path) == pytest.approx(expected, rel=1e-4)
