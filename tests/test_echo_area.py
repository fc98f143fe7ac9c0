"""What is echo in a picture, and that nothing else decides what the echoes become."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from speckle_pairs import SpecklePairs
from test_restore import make_model
from torch import nn

from irsde.echo_area import EchoPairs, echo_area
from irsde.group_norm import PooledGroupNorm, pooled_norms, pooling, release, replace_group_norms
from irsde.sample import Sampling, draw_samples, restore, restore_batch

RNG = np.random.default_rng(0)
ECHO = np.clip(SpecklePairs(n=1)[0][1] * 0.8 + 0.1, 0, 1).astype(np.float32)  # no black of its own
ROWS, COLUMNS = ECHO.shape


def sector(shape=(ROWS, COLUMNS)):
    """(nz, nx) bool of a phased array's sector, its apex above the picture."""
    z, x = np.indices(shape)
    x = x - shape[1] / 2
    z = z + 0.2 * shape[0]
    return (np.abs(np.arctan2(x, z)) < 0.6) & (np.hypot(x, z) < 1.1 * shape[0]) & (np.hypot(x, z) > 0.3 * shape[0])


def bordered(grey=0.0, above=20, below=9, left=31, right=3, caption=None):
    """A picture with the echoes inside a border, and where those lie."""
    picture = np.full((ROWS + above + below, COLUMNS + left + right), grey, np.float32)
    inside = slice(above, above + ROWS), slice(left, left + COLUMNS)
    picture[inside] = ECHO
    if caption is not None:
        picture[4:11, 4 : 4 + 60 : 3] = caption
    return picture, inside


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.mark.parametrize("grey", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("caption", [None, 0.9])
def test_the_area_is_what_the_border_encloses(grey, caption):
    picture, inside = bordered(grey, caption=caption)
    area = echo_area(picture)
    expected = np.zeros(picture.shape, bool)
    expected[inside] = True
    np.testing.assert_array_equal(area.mask, expected)
    assert area.box == inside


def test_the_area_of_a_noisy_border_is_the_same():
    picture, inside = bordered(3 / 255)
    noisy = np.round(picture * 255 + RNG.integers(-2, 3, picture.shape)) / 255  # as JPEG leaves it
    assert echo_area(np.where(picture == np.float32(3 / 255), noisy, picture)).box == inside


def test_a_picture_without_border_is_echo_everywhere():
    speckle = np.clip(0.3 * RNG.rayleigh(size=(120, 150)) - 0.2, 0, 1)  # a third of it black, in grains
    assert (speckle == 0).mean() > 0.15
    for image in (speckle, ECHO, np.zeros((60, 60)), np.ones((5, 9)), np.eye(40) > 0):
        assert echo_area(image.astype(np.float32)).mask.all()


def test_a_sector_is_the_area_and_a_black_cyst_in_it_too():
    inside = sector((160, 200))
    picture = np.where(inside, np.clip(RNG.normal(0.5, 0.1, inside.shape), 0.05, 1), 0)
    z, x = np.indices(inside.shape)
    cyst = np.hypot(z - 90, x - 100) < 15
    picture[cyst] = 0
    found = echo_area(picture).mask
    assert found[cyst].all()
    np.testing.assert_array_equal(found, inside)


@pytest.mark.parametrize(
    ("mask", "said"),
    [("some", "auto"), (np.ones((3, 3), bool), "shape of the image"), (np.zeros(ECHO.shape, bool), "at least 2 x 2")],
)
def test_masks_that_cannot_be_are_refused(mask, said):
    with pytest.raises(ValueError, match=said):
        echo_area(ECHO, mask)


# --- restoring -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", ["shared", "own", "none"])
@pytest.mark.parametrize("sampler", ["posterior", "ddim"])
def test_border_and_caption_change_no_echo_and_are_not_changed(normalization, sampler):
    from irsde.data import Normalization

    model = make_model(normalization=Normalization(normalization))
    alone = restore(model, ECHO, 3, sampler)
    for options in ({}, {"grey": 0.3}, {"caption": 0.9}, {"above": 2 * ROWS, "left": 2 * COLUMNS}):
        picture, inside = bordered(**options)
        restored = restore(model, picture, 3, sampler)
        np.testing.assert_array_equal(restored[inside], alone)
        around = np.ones(picture.shape, bool)
        around[inside] = False
        np.testing.assert_array_equal(restored[around], picture[around])


def test_what_surrounds_a_sector_changes_no_echo(model):
    inside = sector()
    results = []
    for grey in (0.0, 0.4):
        picture = np.where(inside, ECHO, np.float32(grey))
        restored = restore(model, picture, 3, mask=inside)
        np.testing.assert_array_equal(restored[~inside], picture[~inside])
        results.append(restored[inside])
    np.testing.assert_array_equal(*results)
    assert np.abs(results[0] - ECHO[inside]).max() > 0


def test_pictures_with_different_borders_are_restored_together_as_alone(model):
    stack = np.zeros((3, ROWS + 29, COLUMNS + 34), np.float32)
    stack[0], _ = bordered()
    stack[1], _ = bordered(above=9, below=20)
    stack[2] = np.clip(RNG.normal(0.5, 0.1, stack[2].shape), 0, 1)
    together = restore_batch(model, stack, [5, 5, 7], Sampling(3))
    for image, seed, restored in zip(stack, [5, 5, 7], together, strict=True):
        np.testing.assert_allclose(restored, restore(model, image, 3, seed=seed), atol=1e-5)
    with pytest.raises(ValueError, match="one seed per image"):
        restore_batch(model, stack, [5], Sampling(3))


def test_a_white_caption_over_the_echoes_moves_the_rest_less_than_another_seed(model):
    """Letters count as echoes: the network sees them, and its group normalizations too."""
    image = np.clip(RNG.normal(0.45, 0.12, (192, 192)), 0.05, 1).astype(np.float32)
    written = image.copy()
    written[8:16, 8:100:3] = written[20:28, 8:80:3] = 1  # two lines, 1 % of the picture
    far = np.indices(image.shape)[0] > 28 + 64  # below them
    options = {"steps": 3, "sampler": "ddim"}
    alone, other = (restore(model, image, seed=seed, **options) for seed in (0, 1))
    moved = np.sqrt(np.mean((restore(model, written, **options) - alone)[far] ** 2))
    assert 0 < moved < 0.25 * np.sqrt(np.mean((other - alone)[far] ** 2))  # 0.13 seen


# --- tiles -----------------------------------------------------------------------------------------------------------


def test_pooled_statistics_are_those_of_the_whole():
    torch.manual_seed(0)
    whole = torch.randn(2, 8, 12, 10) * 3 + torch.arange(12.0)[:, None]
    norm = PooledGroupNorm(4, 8)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    expected = norm(whole)
    parts = (whole[:, :, :5], whole[:, :, 5:])
    with pooling([norm]):
        own = torch.cat([norm(part) for part in parts], dim=2)
    assert (own - expected).abs().max() > 0.5  # the fault: each part by its own
    torch.testing.assert_close(torch.cat([norm(part) for part in parts], dim=2), expected)
    torch.testing.assert_close(norm(parts[0].flatten(2)), expected[:, :, :5].flatten(2))  # as attention shows it
    release([norm])
    torch.testing.assert_close(
        norm(parts[0]), nn.functional.group_norm(parts[0], 4, norm.weight, norm.bias), rtol=0, atol=0
    )


def test_every_group_norm_of_the_network_pools_and_keeps_its_name(model):
    names = {name for name, module in model.network.named_modules() if isinstance(module, nn.GroupNorm)}
    assert len(names) == len(pooled_norms(model.network)) > 10
    plain = nn.Sequential(nn.GroupNorm(2, 4), nn.Sequential(nn.GroupNorm(2, 4)))
    keys, weights = list(plain.state_dict()), [p.clone() for p in plain.parameters()]
    replace_group_norms(plain)
    assert list(plain.state_dict()) == keys
    assert len(pooled_norms(plain)) == 2
    for a, b in zip(plain.parameters(), weights, strict=True):
        torch.testing.assert_close(a, b)


def test_tiles_have_the_grey_level_of_the_whole(model):
    """An image that is dark on one side and bright on the other. Tiles that are normalized each by itself move as a whole;
    what is left is below what the sampler's own noise does."""
    z, x = np.indices((160, 160))
    image = np.clip(0.15 + 0.6 * (x > 80) + RNG.normal(0, 0.06, z.shape), 0, 1).astype(np.float32)
    options = {"steps": 2, "sampler": "ddim"}
    whole = restore(model, image, **options)
    pooled = restore(model, image, tile=64, overlap=16, **options)
    noise = draw_samples(model, image, 2, **options)

    def shift(a, b):
        """RMS difference of local means, 16 x 16 pixels."""
        return float(np.sqrt(np.mean((a - b).reshape(10, 16, 10, 16).mean(axis=(1, 3)) ** 2)))

    norms = pooled_norms(model.network)
    assert all(norm.pooled is None and norm.gathered is None for norm in norms)  # nothing stays behind
    assert shift(whole, pooled) < 0.5 * shift(*noise)
    network = model.network
    for norm in norms:
        norm.finish = lambda: None  # statistics are gathered and never used: as it was
    try:
        apart = restore(model, image, tile=64, overlap=16, **options)
        assert shift(whole, pooled) < 0.75 * shift(whole, apart)  # 0.66 seen; a trained network: 0.25
    finally:
        for norm in pooled_norms(network):
            del norm.finish


# --- training --------------------------------------------------------------------------------------------------------


class SectorPairs(SpecklePairs):
    """Pairs whose field is a sector, black around it."""

    around = 0.0

    def __getitem__(self, i):
        return tuple(np.where(self.mask(i), image, np.float32(self.around)) for image in super().__getitem__(i))

    def mask(self, i):
        return sector(super().mask(i).shape)


def tiny(**changes):
    from irsde.config import TrainConfig

    settings = {"preset": "tiny", "patch_size": 32, "batch_size": 2, "steps": 3, "n_steps": 10, "device": "cpu"}
    return TrainConfig.create(store="s", validate_every=0, log_every=1, **(settings | changes))


def test_training_sees_of_a_sector_what_restoring_shows_the_network():
    pairs = SectorPairs(n=2)
    cut = EchoPairs(pairs, 32)
    for i in range(2):
        hq, lq = pairs[i]
        area = echo_area(lq, pairs.mask(i))
        for found, image in zip(cut[i], (hq, lq), strict=True):
            np.testing.assert_array_equal(found, area.cut(image))
        np.testing.assert_array_equal(cut.mask(i), area.mask[area.box])
    full = SpecklePairs(n=2)
    for found, image in zip(EchoPairs(full, 32)[1], full[1], strict=True):
        assert found is image  # nothing is done where the field is the picture


def test_a_field_smaller_than_the_patch_is_cut_wider():
    class Small(SpecklePairs):
        def mask(self, i):
            mask = np.zeros(super().mask(i).shape, bool)
            mask[50:60, 3:20] = True
            return mask

    hq, lq = EchoPairs(Small(n=1), 32)[0]
    assert hq.shape == lq.shape == (32, 32)
    whole = EchoPairs(Small(n=1), 500)[0][0]
    assert whole.shape == Small(n=1)[0][0].shape  # no wider than the image


@pytest.mark.parametrize("normalization", ["shared", "own", "none"])
def test_what_surrounds_a_sector_changes_no_training(tmp_path, normalization):
    from irsde.training import train

    rows = []
    for around in (0.0, 0.6):
        pairs = SectorPairs()
        pairs.around = around
        out = tmp_path / f"{around}"
        train(tiny(normalization=normalization), out, pairs=[pairs], report=lambda line: None)
        rows.append([line.rsplit(",", 3)[0].split(",")[:2] for line in (out / "metrics.csv").read_text().splitlines()])
    assert rows[0] == rows[1]  # steps and losses


def test_a_run_of_an_older_format_keeps_its_statistics():
    from irsde.config import FORMAT, TrainConfig

    for older in range(1, FORMAT):
        known = TrainConfig.create(store="s", preset="tiny").to_dict()
        for name in ("statistics", "overlays", "recipe", "sigma_unit", "clamp"):
            del known[name]
        config = TrainConfig.from_record({"format": older, "config": known})
        assert (config.statistics, config.overlays, config.recipe, config.clamp) == ("image", 0.0, "default", True)


def test_overlays_are_on_both_images_and_on_training_patches_alone():
    from irsde.data import Augmentation, Normalization, TrainingBatches, whole

    subsets, augmentation = [whole(SpecklePairs(size=48))], Augmentation(48, flip_lateral=False)
    plain, always, half = (
        TrainingBatches(subsets, Normalization("none"), augmentation, 8, 0, share) for share in (0.0, 1.0, 0.5)
    )
    changed = []
    for k in range(8):
        (hq, lq), (hq_with, lq_with) = plain[k], always[k]
        both = (hq != hq_with).flatten(1).any(1) & (lq != lq_with).flatten(1).any(1)
        assert both.float().mean() > 0.9  # of a caption beside the patch nothing is seen
        solid = ((hq_with == 0) & (lq_with == 0) & (hq != 0)).flatten(1).any(1)
        assert ((hq_with - lq_with).abs() <= (hq - lq).abs() + 1e-6).all()  # pasted alike: nothing else differs
        assert torch.equal(always[k][0], hq_with)  # the seed and the number decide
        changed += [(lq != half[k][1]).flatten(1).any(1), solid]
    assert 0.3 < torch.cat(changed[::2]).float().mean() < 0.7
    assert torch.cat(changed[1::2]).any()


def test_statistics_are_those_of_the_image_below_an_overlay():
    from irsde.data import Augmentation, Normalization, TrainingBatches, whole

    pairs = SpecklePairs(n=1, size=48)
    batches = [
        TrainingBatches([whole(pairs)], Normalization(kind), Augmentation(48, flip_lateral=False), 1, 0, 1.0)
        for kind in ("shared", "own", "none")
    ]
    for k in range(6):
        shared, own, grey = (batch[k] for batch in batches)
        hq, lq = pairs[0]
        for place, image in ((0, hq), (1, lq)):
            # float32 of values up to about 5
            torch.testing.assert_close(shared[place], (grey[place] - lq.mean()) / float(lq.std()), atol=1e-4, rtol=0)
            torch.testing.assert_close(own[place], (grey[place] - image.mean()) / float(image.std()), atol=1e-4, rtol=0)


def test_a_store_is_restored_as_the_run_was_trained(model):
    from irsde.sample import field_mask, restore_members

    mask = sector()
    assert field_mask(model, mask) is mask
    older = dataclasses.replace(model, config=dataclasses.replace(model.config, statistics="image"))
    assert field_mask(older, mask) is None
    picture = np.where(mask, ECHO, 0)[None]
    for member, expected in ((model, mask), (older, None)):
        together, _ = restore_members([member], picture, [[3]], sampling=Sampling(2), field=mask)
        np.testing.assert_array_equal(together[0], restore(member, picture[0], 2, seed=3, mask=expected))
