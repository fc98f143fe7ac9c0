"""Training: it learns, it resumes to the same loss, it refuses what it should, and its folder is never half a run."""

from __future__ import annotations

import csv
import errno
import json
import os
import platform
import re
import shutil
import signal

import numpy as np
import pytest
import torch
from speckle_pairs import SpecklePairs

import irsde.training
from irsde.checkpoints import newest_checkpoint
from irsde.config import FORMAT, ConfigError, TrainConfig, read_settings
from irsde.data import Augmentation, DataError, Normalization, TrainingBatches, measure, split, whole
from irsde.evaluation import metrics
from irsde.network import load
from irsde.run_lock import hold
from irsde.sample import restore
from irsde.sde import IRSDE
from irsde.training import ExistsError, ResumeError, TrainingDiverged, train


def config(**changes):
    settings = {"store": "none", "preset": "tiny", "patch_size": 32, "batch_size": 2, "steps": 6, "n_steps": 10}
    settings |= {"log_every": 1, "checkpoint_every": 3, "validate_every": 0, "device": "cpu"}
    return TrainConfig.create(**(settings | changes))


def run(out, pairs=None, resume=False, **changes):
    return train(config(**changes), out, resume=resume, pairs=[pairs or SpecklePairs()], report=lambda line: None)


def losses(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]


# --- splits, normalization, batches ----------------------------------------------------------------------------------


def test_no_subject_is_in_training_and_held_out():
    training, held_out = split(SpecklePairs(n=12), fold=1)
    assert set(training.subjects).isdisjoint(held_out.subjects)
    assert len(training) + len(held_out) == 12
    assert len(held_out) == 6


def test_a_subject_in_two_folds_is_refused():
    pairs = SpecklePairs()
    pairs.samples[1]["fold"] = 1
    with pytest.raises(DataError, match="folds 0 and 1"):
        split(pairs, fold=0)


@pytest.mark.parametrize("fold", [7, -1])
def test_a_fold_that_is_not_there_is_refused(fold):
    with pytest.raises(DataError, match=r"expected one of \[0, 1\]"):
        split(SpecklePairs(), fold)


@pytest.mark.parametrize("kind", ["shared", "none"])
def test_normalisation_round_trip(kind):
    hq, lq = SpecklePairs()[0]
    normalization = Normalization(kind)
    z_hq, z_lq = normalization.pair(hq, lq)
    np.testing.assert_allclose(normalization.output(z_hq, lq), hq, atol=1e-6)
    np.testing.assert_allclose(normalization.output(z_lq, lq), lq, atol=1e-6)
    low, high = normalization.bounds(lq)
    assert low <= z_hq.min()
    assert z_hq.max() <= high


def test_own_normalisation_needs_the_oracle_to_return_exactly():
    hq, lq = SpecklePairs()[0]
    z_hq, z_lq = Normalization("own").pair(hq, lq)
    assert z_hq.mean() == pytest.approx(0, abs=1e-5)
    assert z_hq.std() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(Normalization("own", "oracle").output(z_hq, lq, hq), hq, atol=1e-6)
    np.testing.assert_allclose(Normalization("own", "lq").output(z_lq, lq), lq, atol=1e-6)
    assert Normalization("own", "train_mean", hq_mean=0.4).output(z_hq * 0, lq) == pytest.approx(0.4)
    stretched = Normalization("own", "minmax").output(z_hq, lq)
    assert stretched.min() == 0
    assert stretched.max() == 1
    with pytest.raises(ValueError, match="upper bound"):
        Normalization("own", "oracle").output(z_hq, lq)


@pytest.mark.parametrize("kind", ["shared", "own", "none"])
def test_a_constant_image_gives_numbers(kind):
    flat = np.full((16, 16), 0.3, np.float32)
    normalization = Normalization(kind)
    for z in normalization.pair(flat, flat):
        assert np.isfinite(z).all()
    np.testing.assert_allclose(normalization.output(normalization.input(flat), flat), flat, atol=1e-6)


def test_measured_numbers_are_those_of_the_pairs():
    pairs = SpecklePairs()
    measured = measure("own", "lq", [whole(pairs)])
    assert measured.hq_mean == pytest.approx(np.mean([pairs[i][0].mean() for i in range(8)]), abs=1e-6)
    assert measured.low < -0.5
    assert measured.difference_rms > 0.1


def test_batches_depend_on_seed_and_number_alone():
    subsets, augmentation = [whole(SpecklePairs()), whole(SpecklePairs(n=3, seed=5))], Augmentation(32)
    a, b = (TrainingBatches(subsets, Normalization(), augmentation, 2, seed=s) for s in (0, 1))
    assert torch.equal(a[7][0], TrainingBatches(subsets, Normalization(), augmentation, 2, seed=0)[7][0])
    assert not torch.equal(a[7][0], b[7][0])
    assert a[0][0].shape == (2, 1, 32, 32)
    assert a[0][0].dtype == torch.float32


def test_each_pass_visits_every_pair_of_every_probe_once():
    class Numbered(SpecklePairs):
        def __getitem__(self, i):
            value = np.full((8, 8), self.start + i, np.float32)
            return value, value

    first, second = Numbered(n=4), Numbered(n=3)
    first.start, second.start = 0, 4
    batches = TrainingBatches([whole(first), whole(second)], Normalization("none"), Augmentation(8), 1, seed=0)
    for turn in (0, 7):
        assert sorted(int(batches[turn + k][0][0, 0, 0, 0]) for k in range(7)) == list(range(7))


def test_default_flips_are_lateral_only():
    ramp = np.arange(16, dtype=np.float32).reshape(4, 4)
    seen = {Augmentation(4)(ramp, ramp, np.random.default_rng(k))[0].tobytes() for k in range(40)}
    assert seen == {ramp.tobytes(), ramp[:, ::-1].tobytes()}
    every = Augmentation(4, True, True, True)
    assert len({every(ramp, ramp, np.random.default_rng(k))[0].tobytes() for k in range(100)}) == 8


def test_patch_larger_than_the_images_is_refused():
    with pytest.raises(DataError, match="smaller --patch-size"):
        TrainingBatches([whole(SpecklePairs(size=32))], Normalization(), Augmentation(64), 1, 0)[0]


# --- configs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [{"method": "gan"}, {"preset": "huge"}, {"max_sigma": 0}, {"patch_size": 30}, {"color": 1}, {"inverse": "minmax"}],
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ConfigError, match=r"expected|goes with"):
        TrainConfig.create(store="none", **bad)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"flip_axial": "no"}, "flip_axial: expected a valid boolean, got 'no'"),
        ({"flip_axial": 1}, "flip_axial: expected a valid boolean, got 1"),
        ({"steps": 2.5}, "steps: expected a valid integer, got 2.5"),
        ({"steps": "7"}, "steps: expected a valid integer, got '7'"),
        ({"checkpoint_every": 0}, "checkpoint_every: expected at least 1, got 0"),
        ({"validate_every": -1}, "validate_every: expected at least 0, got -1"),
        ({"learning_rate": "fast"}, "learning_rate: expected a valid number, got 'fast'"),
        ({"betas": [0.9]}, "betas"),
        ({"seed": None}, "seed: expected a valid integer, got None"),
        ({"device": {"name": "cpu"}}, "device: expected a valid string"),
    ],
)
def test_settings_of_another_type_are_refused_by_name(tmp_path, bad, said):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"store": "none", "preset": "tiny"} | bad))
    with pytest.raises(ConfigError, match=re.escape(said)):
        TrainConfig.create(**read_settings(path))


def test_settings_keep_their_values_through_a_file(tmp_path):
    path = tmp_path / "a.json"
    chosen = config(learning_rate=1, betas=(0.5, 0.75), fold=2, probes=("L11-5v", "C5-2v"), compile=True)
    path.write_text(json.dumps(chosen.to_dict()))
    assert TrainConfig.create(**read_settings(path)) == chosen
    assert isinstance(chosen.probes, tuple)


def test_settings_are_read_from_toml_and_json(tmp_path):
    (tmp_path / "a.toml").write_text('preset = "small"\nsteps = 7\n')
    (tmp_path / "a.json").write_text('{"preset": "small", "steps": 7}')
    (tmp_path / "bad.toml").write_text("steps = ")
    assert read_settings(tmp_path / "a.toml") == read_settings(tmp_path / "a.json") == {"preset": "small", "steps": 7}
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_settings(tmp_path / "bad.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings(tmp_path / "none.toml")


# --- runs ------------------------------------------------------------------------------------------------------------


def test_run_folder_says_everything(tmp_path, monkeypatch):
    evaluated, compute = [], irsde.training._Run._loss

    def remember(self, network, *batch, **options):
        loss = compute(self, network, *batch, **options)
        if not network.training:
            evaluated.append(float(loss))
        return loss

    monkeypatch.setattr(irsde.training._Run, "_loss", remember)
    folder = run(tmp_path / "a", fold=1, validate_every=6)
    record = json.loads((folder / "config.json").read_text())
    assert TrainConfig(**record["config"]) == config(fold=1, validate_every=6)
    assert set(record["training_subjects"]).isdisjoint(record["held_out_subjects"])
    assert [p.name for p in sorted((folder / "checkpoints").iterdir())] == ["000003", "000006"]
    assert {p.name for p in newest_checkpoint(folder).iterdir()} == {
        "weights.safetensors",
        "ema.safetensors",
        "state.pt",
        "digests.json",
    }
    assert not (folder / "lock.json").exists()
    assert (folder / "samples" / "000006.png").exists()
    assert list((folder / "tensorboard").iterdir())
    with open(folder / "metrics.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    model = load(folder)
    middle = np.s_[16:48, 16:48]
    held_out = [(hq[middle], lq[middle]) for hq, lq in (SpecklePairs()[i] for i in (2, 3, 6, 7))]  # subjects p1 and p3
    restored = [(restore(model, lq, 10, "ddim", mask=None), hq) for hq, lq in held_out]
    assert float(last["held_out_psnr"]) == pytest.approx(np.mean([metrics.psnr(*pair) for pair in restored]), abs=1e-3)
    assert len(evaluated) == 4
    assert float(last["held_out_loss"]) == pytest.approx(np.mean(evaluated), rel=1e-6)
    assert model.step == 6
    assert sum(p.numel() for p in model.network.parameters()) == record["parameters"]
    assert not torch.equal(next(model.network.parameters()), next(load(folder, weights="raw").network.parameters()))


@pytest.mark.parametrize(
    ("stop", "ends"), [(3, signal.SIGINT), (5, signal.SIGINT), (5, signal.SIGTERM), (5, signal.SIGHUP)]
)
def test_resumed_run_has_the_losses_of_an_uninterrupted_one(tmp_path, monkeypatch, stop, ends):
    """A signal in the middle of a step: the one that a checkpoint follows anyway (3), and one between two (5)."""
    whole_run = run(tmp_path / "whole", log_every=2)
    compute = irsde.training._Run._loss

    def interrupt(self, network, hq, lq, number):
        if number == stop - 1:
            os.kill(os.getpid(), ends)
        return compute(self, network, hq, lq, number)

    monkeypatch.setattr(irsde.training._Run, "_loss", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", log_every=2)
    monkeypatch.undo()
    assert newest_checkpoint(tmp_path / "part").name == f"{stop:06d}"
    resumed = run(tmp_path / "part", log_every=2, resume=True)
    assert losses(resumed) == losses(whole_run)
    for weights in ("raw", "ema"):
        a, b = (load(folder, weights).network.state_dict() for folder in (whole_run, resumed))
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_resume_without_a_run_starts_one(tmp_path):
    assert load(run(tmp_path / "a", resume=True)).step == 6


def test_runs_are_not_overwritten_or_mixed(tmp_path):
    folder = run(tmp_path / "a")
    with pytest.raises(ExistsError, match="--resume"):
        run(folder)
    with pytest.raises(ResumeError, match=r"max_sigma: 0\.2 -> 0\.3"):
        run(folder, resume=True, max_sigma=0.3)
    with pytest.raises(ResumeError, match="not those"):
        run(folder, SpecklePairs(seed=9), resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(ExistsError, match="something else"):
        run(tmp_path / "other")


def test_half_written_checkpoint_is_not_seen(tmp_path):
    folder = run(tmp_path / "a")
    partial = folder / "checkpoints" / ".000009.partial"
    partial.mkdir()
    (partial / "ema.safetensors").write_bytes(b"")
    assert load(folder).step == 6


def test_a_run_knows_its_format_and_its_store(trained, tmp_path):
    class Stored(SpecklePairs):
        def __init__(self, digest):
            super().__init__()
            self.attributes = {"digest": digest}

    folder = run(tmp_path / "a", Stored("one"))
    record = json.loads((folder / "config.json").read_text())
    assert (record["format"], record["store_digests"], record["processes"]) == (FORMAT, ["one"], 1)
    assert record["versions"]["ussim"]
    run(folder, Stored("one"), resume=True, steps=7)
    with pytest.raises(ResumeError, match=r"other images .*two, was one"):
        run(folder, Stored("two"), resume=True, steps=8)

    def rewritten(name, change):
        target = tmp_path / name
        shutil.copytree(folder, target)
        (target / "config.json").write_text(json.dumps(change(record | {"config": dict(record["config"])})))
        return target

    def of_before(record):
        for key in ("format", "store_digests", "processes"):
            del record[key]
        return record

    run(rewritten("before", of_before), Stored("two"), resume=True, steps=8)
    assert load(tmp_path / "before").step == 8
    newer = rewritten("newer", lambda record: record | {"format": FORMAT + 1})
    with pytest.raises(DataError, match=rf"in format {FORMAT + 1}; this version reads up to {FORMAT}"):
        load(newer)
    unknown = rewritten("unknown", lambda record: record | {"config": record["config"] | {"color": 1}})
    with pytest.raises(ConfigError, match="settings color: unknown"):
        load(unknown)


def test_folder_without_checkpoint_is_no_model(tmp_path):
    with pytest.raises(DataError, match="not a run folder"):
        load(tmp_path)
    folder = run(tmp_path / "a", steps=1)
    (folder / "checkpoints" / "000001").rename(folder / "checkpoints" / "gone")
    with pytest.raises(DataError, match="no checkpoint"):
        load(folder)


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


DAMAGES = {
    "truncated": _truncate,
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "a flipped bit": lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
}


@pytest.mark.parametrize("with_digests", [True, False], ids=["digests", "none, as of old"])
@pytest.mark.parametrize("file", ["weights.safetensors", "ema.safetensors", "state.pt"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_older_one_used(trained, tmp_path, file, damage, with_digests):
    if damage == "a flipped bit" and not with_digests:
        pytest.skip("only a digest tells")
    folder = tmp_path / "a"
    shutil.copytree(trained, folder)
    for checkpoint in (folder / "checkpoints").iterdir():
        if not with_digests:
            (checkpoint / "digests.json").unlink()
    DAMAGES[damage](folder / "checkpoints" / "000006" / file)
    lines = []
    train(config(steps=6), folder, resume=True, pairs=[SpecklePairs()], report=lines.append)
    assert any(file in line and "000006" in line and "step 3" in line for line in lines)
    assert losses(folder) == losses(trained)
    assert load(folder).step == 6
    for weights in ("raw", "ema"):
        a, b = (load(run, weights).network.state_dict() for run in (trained, folder))
        assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with checkpoints at steps 3 and 6."""
    return run(tmp_path_factory.mktemp("trained") / "a")


def test_loading_passes_over_a_damaged_checkpoint_with_a_warning(trained, tmp_path):
    folder = tmp_path / "a"
    shutil.copytree(trained, folder)
    _truncate(folder / "checkpoints" / "000006" / "ema.safetensors")
    with pytest.warns(UserWarning, match=r"000006/ema\.safetensors: damaged .* step 3"):
        assert load(folder).step == 3
    _truncate(folder / "checkpoints" / "000003" / "state.pt")
    with pytest.raises(DataError, match=r"no checkpoint is whole: .*000006/ema\.safetensors: .*000003/state\.pt: "):
        load(folder)


def test_a_run_that_lost_its_config_is_refused(trained, tmp_path):
    folder = tmp_path / "a"
    shutil.copytree(trained, folder)
    (folder / "config.json").unlink()
    before = sorted(folder.rglob("*"))
    for resume in (False, True):
        with pytest.raises(ExistsError, match=r"config\.json is lost"):
            run(folder, resume=resume)
    assert sorted(folder.rglob("*")) == before


def test_folders_that_were_removed_from_a_run_are_made_again(trained, tmp_path):
    folder = tmp_path / "a"
    shutil.copytree(trained, folder)
    shutil.rmtree(folder / "samples")
    shutil.rmtree(folder / "tensorboard")
    (folder / "metrics.csv").unlink()
    run(folder, resume=True, steps=9, validate_every=9)
    assert (folder / "samples" / "000009.png").exists()
    assert [step for step, _ in losses(folder)] == [7, 8, 9]


def test_a_full_disk_keeps_the_checkpoints_there_are(trained, tmp_path, monkeypatch):
    folder = tmp_path / "a"
    shutil.copytree(trained, folder)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left") as raised:
        run(folder, resume=True, steps=9)
    assert raised.value.filename.endswith("000009")
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["000003", "000006"]
    assert not (folder / "lock.json").exists()


def test_two_trainings_do_not_share_a_folder(trained, tmp_path):
    folder = tmp_path / "a"
    shutil.copytree(trained, folder)
    lock, lines = folder / "lock.json", []
    with hold(folder, lines.append), pytest.raises(DataError, match=rf"process {os.getpid()} on .* is training"):
        run(folder, resume=True, steps=9)
    held = {"host": platform.node(), "process": os.getpid(), "started": 1.0}  # a number that was given out again
    for stale in (json.dumps(held), json.dumps(held | {"process": 2**22 + 1})):
        lock.write_text(stale)
        with hold(folder, lines.append):
            assert json.loads(lock.read_text())["started"] != 1.0
        assert "ended without letting go" in lines.pop()
        assert not lock.exists()
    lock.write_text(json.dumps(held | {"host": "elsewhere"}))
    with pytest.raises(DataError, match="on elsewhere is training"), hold(folder, lines.append):
        pass
    assert lock.exists()
    os.utime(lock, (0, 0))  # no sign of life for long
    with hold(folder, lines.append):
        assert json.loads(lock.read_text())["host"] == platform.node()
    assert "elsewhere" in lines.pop()
    assert not lock.exists()


def test_a_refused_training_leaves_no_folder(tmp_path):
    with pytest.raises(DataError, match="patch size"):
        run(tmp_path / "new", patch_size=512, steps=1)
    assert not (tmp_path / "new" / "lock.json").exists()
    with pytest.raises(DataError, match="fold 9"):
        run(tmp_path / "other", fold=9)
    assert not (tmp_path / "other").exists()


def test_training_stops_when_the_loss_is_no_number(tmp_path):
    class Broken(SpecklePairs):
        def __getitem__(self, i):
            hq, lq = super().__getitem__(i)
            return (hq * np.float32("nan"), lq) if self.broken else (hq, lq)

    pairs = Broken()
    pairs.broken = False
    folder = run(tmp_path / "a", pairs, steps=3)
    state = newest_checkpoint(folder) / "state.pt"
    before = state.read_bytes()

    def poison(line):
        pairs.broken = True

    with pytest.raises(TrainingDiverged, match="at step 4; the last checkpoint is of step 3"):
        train(config(steps=6), folder, resume=True, pairs=[pairs], report=poison)
    assert state.read_bytes() == before


@pytest.mark.parametrize("method", ["unet", "dncnn"])
def test_supervised_baselines_train_by_the_same_command(tmp_path, method):
    folder = run(tmp_path / method, method=method, steps=3)
    model = load(folder)
    assert not model.is_diffusion
    lq = SpecklePairs()[0][1]
    assert restore(model, lq).shape == lq.shape
    has_batch_norm = any(isinstance(m, torch.nn.BatchNorm2d) for m in model.network.modules())
    assert has_batch_norm == (method == "dncnn")


def test_accumulation_and_mixed_precision_run(tmp_path):
    folder = run(tmp_path / "a", steps=2, gradient_accumulation=2, mixed_precision="bf16", channels_last=True)
    assert [step for step, _ in losses(folder)] == [1, 2]
    assert all(np.isfinite(loss) for _, loss in losses(folder))


@pytest.mark.parametrize("loss", ["noise_l1", "ml_l1", "balanced_l1"])
def test_each_loss_and_input_trains(tmp_path, loss):
    folder = run(tmp_path / "a", steps=2, loss=loss, precondition=loss == "balanced_l1", condition="concat")
    assert len(losses(folder)) == 2


def test_learning_rate_schedules(tmp_path):
    def rates(schedule, warmup=0):
        folder = run(tmp_path / f"{schedule}{warmup}", steps=7, schedule=schedule, warmup=warmup, learning_rate=1e-3)
        with open(folder / "metrics.csv", newline="") as file:
            return [float(row["learning_rate"]) for row in csv.DictReader(file)]

    assert rates("multistep") == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4, 2.5e-4, 1.25e-4])
    assert rates("constant", warmup=1) == pytest.approx([5e-4] + [1e-3] * 6)
    assert rates("cosine")[0] == pytest.approx(1e-3)


# --- learning --------------------------------------------------------------------------------------------------------


def test_noise_is_predicted_as_well_as_it_can_be():
    """On x0 | μ ~ N(μ/2, .3²) per pixel the best predictor of ε is linear; the network's error is within 10 % of its.

    What it learned beyond its fixed scaling uses the time and the LQ image: other ones change its output by over 5 %.
    """
    from irsde.network import NoisePredictor, UNet

    torch.manual_seed(0)
    sde = IRSDE(n_steps=10, max_sigma=0.5)
    network = NoisePredictor(UNet(2, (16, 32), 1, 8, 16, 1), sde, "difference", True, 0.6)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)

    def batch(n, seed):
        generator = torch.Generator().manual_seed(seed)
        lq, spread, noise = (torch.randn(n, 1, 8, 8, generator=generator) for _ in range(3))
        t = torch.randint(1, 11, (n,), generator=generator)
        hq = lq / 2 + 0.3 * spread
        return hq, lq, noise, t, sde.perturb(hq, lq, t, noise)

    for k in range(300):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - k / 300)
        _, lq, noise, t, x = batch(16, k)
        loss = ((network(x, lq, t) - noise) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    _, lq, noise, t, x = batch(256, 10_000)
    a = torch.exp(-sde.theta_integral[t]).view(-1, 1, 1, 1)
    s = sde.sigma_bar[t].view(-1, 1, 1, 1)
    best = s / ((0.3 * a) ** 2 + s**2) * (x - lq + a * lq / 2)
    with torch.no_grad():
        error = float(((network(x, lq, t) - noise) ** 2).mean())
        away = (x - lq)[:64]
        inner = [network.unet(torch.cat([away, c], 1), at) for c, at in ((lq[:64], 1), (lq[:64], 10), (lq[64:128], 1))]
    assert error < 1.1 * float(((best - noise) ** 2).mean())
    rms = float((inner[0] ** 2).mean().sqrt())
    for changed in inner[1:]:
        assert float(((changed - inner[0]) ** 2).mean().sqrt()) > 0.05 * rms


@pytest.mark.slow
def test_four_pairs_are_learned_by_heart(tmp_path):
    """A model that cannot overfit four pairs is not learning; neither is one that ignores the time or the LQ image.

    Limits: an output of zero has loss .80, this run ended at .24; its four images gained 12.8 to 19.8 dB with "posterior"
    and 11.3 to 18.8 dB with "ddim", within .1 dB whether predictions were clamped or not.
    """
    pairs = SpecklePairs(n=4, size=32, per_subject=1)
    folder = run(tmp_path / "a", pairs, steps=1500, batch_size=4, n_steps=100, log_every=100, checkpoint_every=1500,
                 loss="noise_l1", flip_lateral=False)  # fmt: skip
    assert losses(folder)[-1][1] < 0.35
    model = load(folder)
    gains = []
    for i in range(4):
        hq, lq = pairs[i]
        gains.append(metrics.psnr(restore(model, lq, sampler="posterior"), hq) - metrics.psnr(lq, hq))
    assert min(gains) > 6
    z = torch.from_numpy(np.stack([model.normalization.input(pairs[i][1]) for i in range(2)]))[:, None]
    x = z + 0.2 * torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        early, late, swapped = model.network(x, z, 1), model.network(x, z, 100), model.network(x, z.flip(0), 50)
        right = model.network(x, z, 50)
    rms = float((right**2).mean().sqrt())
    assert float(((early - late) ** 2).mean().sqrt()) > 0.05 * rms
    assert float(((right - swapped) ** 2).mean().sqrt()) > 0.05 * rms
