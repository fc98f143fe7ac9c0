"""Recipes of others: exactly their settings, what they leave open, and what was not followed."""

from __future__ import annotations

import json

import pytest
from speckle_pairs import SpecklePairs

from irsde import recipes
from irsde.config import PRESETS, ConfigError, TrainConfig
from irsde.network import build_sde, load
from irsde.training import train

TINY = {"preset": "tiny", "patch_size": 32, "batch_size": 2, "steps": 2, "n_steps": 10, "device": "cpu"}


def test_the_paper_is_as_it_says():
    config = TrainConfig.create(store="s", recipe="paper")
    said = {
        "method": "irsde", "preset": "paper", "normalization": "own", "statistics": "image", "condition": "concat",
        "loss": "noise_l1", "precondition": False, "clip_norm": 0.0, "ema_decay": 0.0, "clamp": False, "overlays": 0.0,
        "batch_size": 4, "sigma_unit": "grey",
    }  # fmt: skip
    assert {name: getattr(config, name) for name in said} == said
    assert config.max_sigma == 10 / 255
    assert recipes.changes(config.to_dict()) == {}


def test_irsde_is_its_public_configuration():
    config = TrainConfig.create(store="s", recipe="irsde")
    public = {
        "normalization": "none", "condition": "difference", "loss": "ml_l1", "n_steps": 100, "delta": 0.005,
        "steps": 700_000, "learning_rate": 1e-4, "betas": (0.9, 0.99), "schedule": "multistep", "warmup": 0,
        "batch_size": 4, "patch_size": 128, "flip_lateral": True, "flip_axial": True, "rotate": True, "seed": 0,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in public} == public
    assert build_sde(config).max_sigma == pytest.approx(10 / 255)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_names_every_setting_that_makes_a_training(name):
    known = set(TrainConfig.create(store="s").to_dict())
    where_and_how_fast = {
        "store",
        "probes",
        "draws",
        "fold",
        "recipe",
        "init",
        "compile",
        "channels_last",
        "device",
        "workers",
    }
    guards = {"floor", "log_every"}
    assert set(recipes.settings_of(name)) == known - where_and_how_fast - guards
    assert set(recipes.RECIPES[name].open) <= known


def test_our_default_has_no_recipe():
    config = TrainConfig.create(store="s", preset="small")
    assert config.recipe == recipes.DEFAULT
    assert recipes.lines(config.to_dict()) == []
    assert recipes.record(config.to_dict()) is None
    assert {name: getattr(config, name) for name in PRESETS["small"]} == PRESETS["small"]


def test_explicit_settings_win_and_are_said():
    config = TrainConfig.create(store="s", recipe="paper", preset="tiny", steps=7)
    assert (config.preset, config.steps, config.loss) == ("tiny", 7, "noise_l1")  # the preset's own loss does not
    said = "\n".join(recipes.lines(config.to_dict()))
    assert "preset paper -> tiny, steps 700000 -> 7" in said
    assert "left open" in said
    assert "steps 700000," not in said  # not IR-SDE's value any more
    assert "learning_rate 0.0001" in said
    kept = recipes.record(config.to_dict())
    assert kept["not_followed"]["steps"] == {"recipe": 700_000, "run": 7}
    assert kept["left_open"]["learning_rate"] == 1e-4


@pytest.mark.parametrize(
    "bad", [{"recipe": "papers"}, {"recipe": 1}, {"sigma_unit": "db"}, {"overlays": 2.0}, {"statistics": ""}]
)
def test_what_is_no_recipe_is_refused_by_name(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        TrainConfig.create(store="s", **bad)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_trains_says_itself_and_is_kept(tmp_path, name):
    lines: list[str] = []
    config = TrainConfig.create(store="s", recipe=name, **TINY)
    train(config, tmp_path / "run", pairs=[SpecklePairs()], report=lines.append)
    assert lines[0] == f"recipe {name}: {recipes.RECIPES[name].source}"
    assert any("not followed in preset paper -> tiny" in line for line in lines)
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["config"]["recipe"] == record["recipe"]["name"] == name
    assert record["recipe"]["not_followed"]["steps"] == {"recipe": 700_000, "run": 2}
    assert TrainConfig.from_record(record) == config
    assert load(tmp_path / "run").config == config


def test_lambda_of_grey_levels_is_in_the_networks_units(tmp_path):
    import numpy as np

    pairs = SpecklePairs()
    config = TrainConfig.create(store="s", recipe="paper", **TINY)
    train(config, tmp_path / "run", pairs=[pairs], report=lambda line: None)
    deviation = np.mean([pairs[i][1].std(dtype=np.float64) for i in range(len(pairs))])
    assert load(tmp_path / "run").sde.max_sigma == pytest.approx(10 / 255 / deviation, rel=1e-6)
    plain = TrainConfig.create(store="s", **TINY)
    assert build_sde(plain).max_sigma == plain.max_sigma


def test_no_averaging_keeps_the_weights_as_they_are(tmp_path):
    import torch

    train(
        TrainConfig.create(store="s", recipe="paper", **TINY),
        tmp_path,
        pairs=[SpecklePairs()],
        report=lambda line: None,
    )
    raw, averaged = (load(tmp_path, weights).network.state_dict() for weights in ("raw", "ema"))
    assert all(torch.equal(raw[name], averaged[name]) for name in raw)


def test_a_recipe_is_not_changed_on_resuming(tmp_path):
    from irsde.training import ResumeError

    train(TrainConfig.create(store="s", **TINY), tmp_path, pairs=[SpecklePairs()], report=lambda line: None)
    other = TrainConfig.create(store="s", recipe="irsde", **TINY)
    with pytest.raises(ResumeError, match="recipe: 'default' -> 'irsde'"):
        train(other, tmp_path, resume=True, pairs=[SpecklePairs()])
