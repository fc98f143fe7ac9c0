"""What training pastes onto patches: the same on LQ and HQ, by the run's seed, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from irsde.clinic.overlays import Overlay, border, caption, draw_overlay, ruler, sector

SHAPE = (64, 48)
KINDS = {"border": border, "caption": caption, "ruler": ruler, "sector": sector}


def drawn(kind, seed, shape=SHAPE):
    return KINDS[kind](shape, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [SHAPE, (8, 8), (128, 128)])
def test_an_overlay_is_grey_levels_and_leaves_the_rest(kind, shape):
    image = np.random.default_rng(0).random(shape, np.float32)
    for seed in range(30):
        overlay = drawn(kind, seed, shape)
        pasted = overlay.paste(image)
        assert pasted.dtype == np.float32
        assert 0 <= pasted.min() <= pasted.max() <= 1
        np.testing.assert_array_equal(pasted[overlay.opacity == 0], image[overlay.opacity == 0])
        covered = overlay.opacity == 1
        np.testing.assert_allclose(pasted[covered], overlay.grey[covered], atol=1e-6)  # float32


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides(kind):
    first, again, other = (drawn(kind, seed).opacity for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_borders_and_sectors_are_dark_and_leave_echoes():
    for kind, darkest in (("border", 0.25), ("sector", 0.0)):
        shares = []
        for seed in range(60):
            overlay = drawn(kind, seed, (64, 64))
            levels = overlay.grey[overlay.opacity == 1]
            assert np.median(levels) <= darkest
            shares.append(np.mean(overlay.opacity == 1))
        assert max(shares) < 0.9
        assert max(shares) > 0.6  # three quarters of a picture, as clinical ones have


def test_captions_and_rulers_are_light_lines():
    for kind in ("caption", "ruler"):
        overlays = [drawn(kind, seed, (64, 64)) for seed in range(40)]
        assert all(np.all(o.grey >= 0.6) for o in overlays)
        assert 0 < np.mean([o.opacity.mean() for o in overlays]) < 0.15
    soft = drawn("caption", 1).opacity
    assert ((soft > 0.05) & (soft < 0.95)).any()  # antialiased


def test_pasting_commutes_with_normalization():
    image = np.random.default_rng(0).random(SHAPE, np.float32)
    overlay = draw_overlay(SHAPE, np.random.default_rng(5))
    mean, std = 0.4, 0.2
    expected = (overlay.paste(image) - mean) / std
    np.testing.assert_allclose(overlay.paste((image - mean) / std, mean, std), expected, atol=1e-6)  # float32


def test_an_overlay_over_another_is_pasted_in_turn():
    rng = np.random.default_rng(1)
    above, below = (Overlay(*rng.random((2, *SHAPE), np.float32)) for _ in range(2))
    image = rng.random(SHAPE, np.float32)
    np.testing.assert_allclose(above.over(below).paste(image), above.paste(below.paste(image)), atol=1e-6)  # float32


def test_every_kind_is_drawn():
    rng, found = np.random.default_rng(0), set()
    for _ in range(40):
        overlay = draw_overlay(SHAPE, rng)
        found.add((bool(np.median(overlay.grey) < 0.3), bool(np.mean(overlay.opacity) > 0.2)))
    assert {(True, True), (False, False)} <= found  # dark areas and light lines
