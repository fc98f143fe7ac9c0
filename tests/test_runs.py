"""What a run starts from and what it knows: stores, initial weights, older records, pairs without contrast, full disks."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import fast_recipe, write_stacks
from speckle_pairs import SpecklePairs
from test_train import config, losses, run

import datagen
from irsde.checkpoints import newest_checkpoint
from irsde.cli import run as cli
from irsde.config import ConfigError, TrainConfig
from irsde.data import DataError, Normalization, open_stores, split_all, whole
from irsde.initial import handed_on
from irsde.lessons import recorded_stores
from irsde.network import load
from irsde.training import ExistsError, ResumeError, TrainingDiverged, train

ROOT = Path(__file__).resolve().parents[1]


class Stored(SpecklePairs):
    """Pairs with the digest of a store."""

    def __init__(self, digest="one", source="discs", **options):
        super().__init__(**options)
        self.attributes = {"digest": digest}
        for row in self.samples:
            row["source"] = source


class Changed(SpecklePairs):
    """Pairs some of whose images are replaced: {index: (hq, lq)}, None for one that stays."""

    def __init__(self, images, **options):
        super().__init__(**options)
        for i, (hq, lq) in images.items():
            self._pairs[i] = tuple(
                old if new is None else np.full_like(old, new)
                for old, new in zip(self._pairs[i], (hq, lq), strict=True)
            )


def said(function, *arguments, **options):
    """What a call reports, and what it returns."""
    lines = []
    return lines, function(*arguments, report=lines.append, **options)


def equal_weights(one, other):
    for weights in ("raw", "ema"):
        a, b = (load(folder, weights).network.state_dict() for folder in (one, other))
        assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run on subjects p0 and p2; p1 and p3 (fold 1) are held out."""
    return run(tmp_path_factory.mktemp("base") / "base", fold=1, steps=3)


# --- several stores --------------------------------------------------------------------------------------------------


def test_a_subject_of_the_fold_in_one_store_is_held_out_of_all():
    one, other = SpecklePairs(n=8, folds=2), SpecklePairs(n=8, folds=4, probe="C5-2v")
    parts = split_all([one, other], fold=3)  # the second store alone has it: p3
    for training, held_out in parts:
        assert set(held_out.subjects) == {"discs/p3"}
        assert set(training.subjects) == {"discs/p0", "discs/p1", "discs/p2"}
    with pytest.raises(DataError, match=r"fold 7: expected one of \[0, 1, 2, 3\]"):
        split_all([one, other], 7)
    everyone = [SpecklePairs(n=4, folds=1), SpecklePairs(n=4, folds=1)]
    with pytest.raises(DataError, match="nothing is left to train on"):
        split_all(everyone, 0)


def test_a_run_learns_from_several_stores_and_knows_each(tmp_path):
    def stores(*digests):
        return [Stored(d, source=f"s{k}", n=4, seed=k) for k, d in enumerate(digests)]

    settings = config(store=("a.zarr", "b.zarr"))
    folder = train(settings, tmp_path / "run", pairs=stores("one", "two"), report=lambda line: None)
    record = json.loads((folder / "config.json").read_text())
    assert record["store_digests"] == ["one", "two"]
    assert record["training_subjects"] == ["s0/p0", "s0/p1", "s1/p0", "s1/p1"]
    assert (record["training_pairs"], record["probes"]) == (8, ["L11-5v"])
    longer = config(store=("a.zarr", "b.zarr"), steps=7)
    for digests, what in ((("one", "new"), r"b\.zarr holds other images"), (("two", "one"), r"a\.zarr holds other"),
                          (("one",), "started with 2 stores, got 1")):  # fmt: skip
        with pytest.raises(ResumeError, match=what):
            train(longer, folder, True, stores(*digests), report=lambda line: None)
    train(longer, folder, True, stores("one", "two"), report=lambda line: None)
    assert load(folder).step == 7


def test_stores_are_opened_by_their_probes(monkeypatch):
    known = {"a": ("L11-5v", "P4-2v"), "b": ("C5-2v",), "c": ("C5-2v",)}

    def open_pairs(url, probe=None):
        names = known[url] if probe is None else ([probe] if isinstance(probe, str) else probe)
        pairs = Stored("same" if url in "bc" else url, n=2, probe=names[0])
        pairs.probes = tuple(names)
        return pairs

    monkeypatch.setattr(datagen, "open_pairs", open_pairs)
    assert [p.probes for p in open_stores(("a", "b"))] == [("L11-5v",), ("P4-2v",), ("C5-2v",)]
    assert [p.probes for p in open_stores(("a", "b"), ("c5-2V", "L11-5v"))] == [("L11-5v",), ("C5-2v",)]
    with pytest.raises(DataError, match="b: expected one of the probes L11-5v, it has C5-2v"):
        open_stores(("a", "b"), ("L11-5v",))
    with pytest.raises(DataError, match="no probe L12-3v in a, b"):
        open_stores(("a", "b"), ("L11-5v", "C5-2v", "L12-3v"))
    with pytest.raises(DataError, match="c: holds the same images as b; give each store once"):
        open_stores(("b", "c"))


@pytest.mark.parametrize("store", [5, [], ["a", 5], [""], ""])
def test_stores_are_paths(store):
    with pytest.raises(ConfigError, match=r"store(\.1)?: expected"):
        TrainConfig.create(store=store)


def test_one_store_is_one_store():
    assert TrainConfig.create(store=["a"]) == TrainConfig.create(store=Path("a")) == TrainConfig.create(store="a")
    assert TrainConfig.create(store=("a", "b")).stores == ("a", "b")


# --- where stores are ------------------------------------------------------------------------------------------------


def test_stores_are_found_beside_a_moved_run_or_where_they_were(tmp_path, monkeypatch):
    (tmp_path / "home" / "data.zarr").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home")
    folder = run(Path("runs/a"), store=("data.zarr", "s3://bucket/data.zarr"), steps=1)

    def found(run_folder):
        return recorded_stores(json.loads((run_folder / "config.json").read_text()), run_folder)

    first = str(tmp_path / "home" / "data.zarr")
    assert found(folder) == (first, "s3://bucket/data.zarr")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tmp_path / "home" / "runs", tmp_path / "alone" / "deeper" / "runs")
    assert found(tmp_path / "alone" / "deeper" / "runs" / "a")[0] == first  # the run alone: where it was
    (tmp_path / "home").rename(tmp_path / "moved")  # both together
    assert found(tmp_path / "moved" / "runs" / "a")[0] == str(tmp_path / "moved" / "data.zarr")
    assert found(tmp_path / "alone" / "deeper" / "runs" / "a")[0] == first  # gone: named as it was known
    assert recorded_stores({"config": {"store": "old.zarr"}}, folder) == ("old.zarr",)


def test_runs_on_stores_of_datagen_move_and_resume(tmp_path, monkeypatch, capsys):
    """From building to resuming by the commands alone: a black image, a move, and a store that was built anew."""
    import zarr

    def build(name, seed):
        recipe = fast_recipe(write_stacks(tmp_path / "stacks" / name, 2, 2), seed=seed)
        datagen.build(recipe, tmp_path / "home" / name)

    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a.zarr", "b.zarr")):
        build(name, seed)
    zarr.open_group(tmp_path / "home" / "a.zarr")["lq/P4-2v"][1] = 0
    black = datagen.open_pairs("home/a.zarr").samples[1]["id"]
    options = ["--preset", "tiny", "--patch-size", "16", "--batch-size", "2", "--n-steps", "5", "--validate-every", "0"]
    stores = ["--data", "home/a.zarr", "--data", "home/b.zarr"]
    assert cli(["train", *stores, "--out", "home/runs/x", "--steps", "2", "--device", "cpu", *options]) == 0
    assert (
        f"1 pair left out, whose grey levels have a standard deviation below 1 of 255: P4-2v {black}\n"
        in capsys.readouterr().err
    )
    (tmp_path / "home").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved" / "runs")
    assert cli(["train", "--out", "x", "--resume", "--steps", "3"]) == 0
    assert load(Path("x")).step == 3
    shutil.rmtree(tmp_path / "moved" / "b.zarr")
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(tmp_path / "stacks")
    (tmp_path / "home").mkdir()
    build("b.zarr", 7)
    (tmp_path / "home" / "b.zarr").rename(tmp_path / "moved" / "b.zarr")
    assert cli(["train", "--out", "moved/runs/x", "--resume", "--steps", "4"]) == 5
    assert (
        f"{tmp_path / 'moved' / 'b.zarr'} holds other images than when this run was started" in capsys.readouterr().err
    )


# --- a record of the first release -----------------------------------------------------------------------------------

FIRST = {  # config.json as version 0.1.0 wrote it for the run of `config()`, numbers of its normalization left out
    "config": {
        "store": "none", "probes": [], "fold": None, "method": "irsde", "preset": "tiny", "n_steps": 10, "max_sigma": 0.2,
        "delta": 0.005, "normalization": "shared", "inverse": "lq", "loss": "balanced_l1", "condition": "difference",
        "precondition": True, "batch_size": 2, "patch_size": 32, "steps": 6, "learning_rate": 0.001, "betas": [0.9, 0.99],
        "schedule": "cosine", "warmup": 0, "clip_norm": 1.0, "ema_decay": 0.999, "flip_lateral": True, "flip_axial": False,
        "rotate": False, "mixed_precision": "no", "gradient_accumulation": 1, "compile": False, "channels_last": False,
        "device": "cpu", "seed": 0, "workers": 0, "log_every": 1, "checkpoint_every": 3, "validate_every": 0
    },
    "parameters": 165428, "probes": ["L11-5v"], "training_subjects": ["discs/p0", "discs/p1", "discs/p2", "discs/p3"],
    "held_out_subjects": [], "training_pairs": 8, "python": "3.11.9", "versions": {"torch": "2.9.0", "numpy": "2.3.0"}
}  # fmt: skip


def test_a_run_of_the_first_release_is_read_and_resumed_as_it_was(tmp_path):
    """That release knew no floor: a black pair stays among those that a step draws, as it was when the run began. Nor did it
    know overlays and the field's statistics.
    """
    pairs = Changed({5: (None, 0.0)})
    whole_run = run(tmp_path / "whole", pairs, floor=0.0, overlays=0.0, statistics="image")
    folder = tmp_path / "old"
    shutil.copytree(whole_run, folder)
    shutil.rmtree(folder / "checkpoints" / "000006")
    record = json.loads((folder / "config.json").read_text())
    numbers = {name: value for name, value in record["normalization"].items() if name != "floor"}
    (folder / "config.json").write_text(json.dumps(FIRST | {"normalization": numbers}))
    for checkpoint in (folder / "checkpoints").iterdir():
        (checkpoint / "digests.json").unlink()
    model = load(folder)
    assert (model.config.floor, model.normalization.floor, model.config.init) == (0.0, 0.0, None)
    settings = TrainConfig.from_record(json.loads((folder / "config.json").read_text()))
    train(settings, folder, resume=True, pairs=[pairs], report=lambda line: None)
    assert losses(folder) == losses(whole_run)
    equal_weights(folder, whole_run)


# --- starting from another run ---------------------------------------------------------------------------------------


def test_a_run_starts_from_the_averaged_weights_of_another(base, tmp_path):
    lines, folder = said(train, config(init=str(base), fold=1, learning_rate=1e-12, steps=1), tmp_path / "a",
                         pairs=[Stored("mine", source="mine")])  # fmt: skip
    assert lines[0] == f"starting from the averaged weights of {base}, step 3"
    ours, theirs = (load(path).network.state_dict() for path in (folder, base))
    raw = load(base, "raw").network.state_dict()
    assert all(torch.allclose(ours[k], theirs[k], atol=1e-8) for k in ours)
    assert not all(torch.allclose(ours[k], raw[k], atol=1e-8) for k in ours)
    record = json.loads((folder / "config.json").read_text())
    assert record["init"] == {"run": str(base), "step": 3}
    assert record["training_subjects"] == ["discs/p0", "discs/p2", "mine/p0", "mine/p2"]  # it has seen them all


def test_a_run_that_started_from_another_resumes_without_it(base, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    whole_run = run(tmp_path / "whole", init=str(copy))
    part = run(tmp_path / "part", init=str(copy), steps=3, schedule="constant")
    shutil.rmtree(part)
    lines = []
    train(config(init=str(copy)), part, pairs=[SpecklePairs()], report=lines.append)
    shutil.rmtree(part / "checkpoints" / "000006")
    shutil.rmtree(copy)
    run(part, resume=True, init=str(copy))
    assert losses(part) == losses(whole_run)
    equal_weights(part, whole_run)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"preset": "small"},
            ConfigError,
            "expected a run of method irsde and preset small, as this one, .* --preset tiny",
        ),
        ({"method": "unet"}, ConfigError, "is of method irsde and preset tiny; use --method irsde --preset tiny"),
        ({"fold": 0}, DataError, "was trained on subject discs/p0 and 1 more of those held out now"),
        ({"init": "nowhere"}, DataError, "nowhere: not a run folder"),
    ],
)
def test_what_cannot_be_started_from_is_one_line_and_leaves_nothing(base, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        run(tmp_path / "a", **({"init": str(base)} | changes))
    assert not (tmp_path / "a").exists()


def test_other_settings_than_those_of_the_initial_run_are_said(base, tmp_path):
    lines, _ = said(train, config(init=str(base), n_steps=20, steps=1), tmp_path / "a", pairs=[SpecklePairs()])
    assert lines[0].endswith("step 3; other settings than it had: n_steps 10 -> 20")
    assert handed_on(base)["n_steps"] == 10


# --- nothing is left behind ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"patch_size": 512}, DataError),
        ({"fold": 9}, DataError),
        ({"init": "nowhere"}, DataError),
        ({"device": "cuda:77"}, RuntimeError),
        ({"delta": 2.0}, ValueError),
        ({"betas": (1.5, 0.9)}, ValueError),
    ],
)
def test_a_wrong_setting_leaves_no_folder(tmp_path, changes, error):
    with pytest.raises(error):
        run(tmp_path / "deep" / "new", **changes)
    assert not (tmp_path / "deep").exists()


# --- pairs without contrast, and numbers that are none ---------------------------------------------------------------


def test_one_black_image_does_not_drown_the_loss(tmp_path):
    """Divided by the deviation of a black image, one pair of twelve raised the loss a thousandfold."""
    lines, folder = said(train, config(), tmp_path / "a", pairs=[Changed({3: (None, 0.0), 7: (None, 0.5)}, n=12)])
    assert lines[0] == (
        "2 pairs left out, whose grey levels have a standard deviation below 1 of 255: L11-5v 3, L11-5v 7"
    )
    assert max(loss for _, loss in losses(folder)) < 2
    record = json.loads((folder / "config.json").read_text())
    assert record["left_out"] == [["L11-5v 3", "L11-5v 7"]]
    assert record["training_pairs"] == 10
    before = run(tmp_path / "before", Changed({3: (None, 0.0)}, n=12), floor=0.0)
    assert max(loss for _, loss in losses(before)) > 100


def test_a_constant_target_is_learned_unless_it_is_divided_by(tmp_path):
    pairs = Changed({3: (0.5, None)})
    for kind, left in (("shared", 8), ("none", 8), ("own", 7)):
        folder = run(tmp_path / kind, pairs, steps=1, normalization=kind)
        assert json.loads((folder / "config.json").read_text())["training_pairs"] == left


def test_a_resumed_run_leaves_out_the_same_pairs_without_looking(tmp_path, monkeypatch):
    class Counted(Stored):
        reads = 0

        def __getitem__(self, i):
            self.reads += 1
            return super().__getitem__(i)

    def black():
        pairs = Counted(n=600, size=32)
        pairs._pairs[3] = pairs._pairs[3][0], np.zeros((32, 32), np.float32)
        return pairs

    folder = run(tmp_path / "a", first := black(), steps=1)
    lines, _ = said(train, config(steps=2), folder, resume=True, pairs=[second := black()])
    assert "1 pair left out" in lines[0]
    assert first.reads > 600 > second.reads


def test_only_black_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="no pairs to train on"):
        run(tmp_path / "a", Changed({i: (None, 0.0) for i in range(8)}))
    assert not (tmp_path / "a").exists()


def test_pairs_that_hold_no_numbers_are_named_at_the_start(tmp_path):
    with pytest.raises(DataError, match="pair L11-5v 5: expected finite grey levels"):
        run(tmp_path / "a", Changed({5: (np.nan, None)}))
    assert not (tmp_path / "a").exists()


class Poisoned(SpecklePairs):
    """Pair 2 holds infinity once the training has begun."""

    begun = False

    def __getitem__(self, i):
        hq, lq = super().__getitem__(i)
        return (hq + np.float32("inf"), lq) if self.begun and i == 2 else (hq, lq)

    def begin(self, line):
        self.begun = line.startswith("irsde (")


def test_a_loss_that_is_no_number_names_its_pair_and_keeps_the_checkpoint(tmp_path):
    pairs = Poisoned()
    folder = run(tmp_path / "a", pairs, steps=3)
    before = {path.name: path.read_bytes() for path in newest_checkpoint(folder).iterdir()}
    with pytest.raises(
        TrainingDiverged, match=r"the loss is (nan|inf) at step \d; .* of step 3\. Not finite: L11-5v 2$"
    ):
        train(config(steps=12), folder, resume=True, pairs=[pairs], report=pairs.begin)
    assert {path.name: path.read_bytes() for path in newest_checkpoint(folder).iterdir()} == before
    assert TrainingDiverged.exit_code == 3


def test_a_gradient_that_is_no_number_is_not_saved(tmp_path, monkeypatch):
    """The loss of that step is finite: its weights would have gone into the checkpoint."""
    import irsde.training

    compute = irsde.training._Run._loss

    def steep(self, network, hq, lq, number):
        loss = compute(self, network, hq, lq, number)
        return loss + (next(network.parameters()).sum() * 0).sqrt() if number == 2 else loss

    monkeypatch.setattr(irsde.training._Run, "_loss", steep)
    with pytest.raises(
        TrainingDiverged, match=r"the gradient is nan at step 3; there is no checkpoint yet\. It saw the pairs"
    ):
        run(tmp_path / "a", steps=6)
    assert newest_checkpoint(tmp_path / "a") is None


def test_normalisation_divides_by_one_grey_level_at_least():
    hq, lq = SpecklePairs()[0]
    z_hq, z_lq = Normalization().pair(hq, np.zeros_like(lq))
    assert z_hq.max() <= 255
    assert np.all(z_lq == 0)


# --- full disks ------------------------------------------------------------------------------------------------------


def full(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


def fill_rows(patch):
    import irsde.run_folder

    patch.setattr(irsde.run_folder.csv.DictWriter, "writerow", full)


def fill_pictures(patch):
    from PIL import Image

    patch.setattr(Image.Image, "save", full)


def fill_tensorboard(patch):
    from torch.utils.tensorboard import SummaryWriter

    patch.setattr(SummaryWriter, "add_scalar", full)


def fill_weights(patch):
    import safetensors.torch

    patch.setattr(safetensors.torch, "save_file", full)


DISKS = {
    "metrics.csv": fill_rows,
    "samples/000009.png": fill_pictures,
    "tensorboard": fill_tensorboard,
    "checkpoints/000009": fill_weights,
    "checkpoints/000009 ": lambda patch: patch.setattr(torch, "save", full),
}


@pytest.mark.parametrize("name", DISKS)
def test_a_full_disk_names_the_file_and_keeps_the_run_whole(tmp_path, name):
    folder = run(tmp_path / "a")
    whole_run = tmp_path / "whole"
    shutil.copytree(folder, whole_run)
    with pytest.MonkeyPatch.context() as patch:
        DISKS[name](patch)
        with pytest.raises(OSError, match="No space left") as raised:
            run(folder, resume=True, steps=9, validate_every=9)
    assert raised.value.filename == str(folder / name.strip())
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == ["000003", "000006"]
    assert not [path.name for path in folder.rglob("*") if "part" in path.name or path.name == "lock.json"]
    for path in (folder, whole_run):
        run(path, resume=True, steps=9, validate_every=9)
    assert losses(folder) == losses(whole_run)
    equal_weights(folder, whole_run)


def test_a_lock_that_a_full_disk_cut_short_is_removed(tmp_path):
    import irsde.run_lock

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(irsde.run_lock.json, "dump", full)
        with pytest.raises(OSError, match="No space left") as raised:
            run(tmp_path / "a", steps=1)
    assert raised.value.filename == str(tmp_path / "a" / "lock.json")
    assert not (tmp_path / "a").exists()


def test_rows_that_were_cut_short_are_written_again(tmp_path):
    folder = run(tmp_path / "a")
    before = (folder / "metrics.csv").read_text()
    text = before.splitlines(keepends=True)
    (folder / "metrics.csv").write_text("".join(text[:-1]) + "6,0.4")
    run(folder, resume=True, steps=7)
    assert [step for step, _ in losses(folder)] == [1, 2, 3, 4, 5, 7]  # of a step before the checkpoint: not made up


# --- it must show ----------------------------------------------------------------------------------------------------

PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from speckle_pairs import SpecklePairs
import datagen
datagen.open_pairs = lambda url, probe=None: SpecklePairs(n=6)
import irsde.training
slow = irsde.training._Run._loss
def loss(self, network, hq, lq, number):
    if number == {number}:
        print("at step", number, flush=True)
        sys.stdin.readline()
    return slow(self, network, hq, lq, number)
irsde.training._Run._loss = loss
from irsde.cli import run
sys.exit(run(sys.argv[1:]))
"""


def test_a_killed_run_with_a_truncated_checkpoint_equals_an_unbroken_one(tmp_path):
    store = tmp_path / "pairs.zarr"
    store.mkdir()
    options = ["--data", str(store), "--preset", "tiny", "--patch-size", "32", "--batch-size", "2", "--n-steps", "10",
               "--steps", "9", "--checkpoint-every", "3", "--log-every", "1", "--validate-every", "0",
               "--device", "cpu"]  # fmt: skip

    def start(out, *more, stop=-1):
        program = PROGRAM.format(tests=str(ROOT / "tests"), number=stop)
        command = [sys.executable, "-c", program, "train", "--out", str(out), *more]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )

    with start(tmp_path / "unbroken", *options) as unbroken, start(tmp_path / "killed", *options, stop=6) as killed:
        assert killed.stdout.readline() == "at step 6\n"
        killed.send_signal(signal.SIGTERM)
        _, words = killed.communicate("\n", timeout=120)
        assert killed.returncode == 130, words
        assert "stopped after step 7, which is saved; go on with --resume" in words
        _, words = unbroken.communicate(timeout=120)
        assert unbroken.returncode == 0, words
    newest = newest_checkpoint(tmp_path / "killed")
    assert newest.name == "000007"
    state = newest / "weights.safetensors"
    os.truncate(state, state.stat().st_size // 2)
    with start(tmp_path / "killed", "--resume") as resumed:
        _, words = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, words
    assert re.search(r"000007/weights\.safetensors: damaged .*; using the checkpoint of step 6", words)
    assert load(tmp_path / "killed").step == load(tmp_path / "unbroken").step == 9
    equal_weights(tmp_path / "killed", tmp_path / "unbroken")
    assert losses(tmp_path / "killed") == losses(tmp_path / "unbroken")


def test_the_first_line_says_how_many_processes_there_are(tmp_path, monkeypatch):
    lines, _ = said(train, config(steps=1), tmp_path / "a", pairs=[SpecklePairs()])
    assert re.search(r"\(L11-5v\), 1 process on cpu; steps 0 to 1$", lines[0])
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")  # what its launcher sets, whatever --num_processes says
    lines, _ = said(train, config(steps=1), tmp_path / "b", pairs=[SpecklePairs()])
    assert "1 process (`accelerate launch --cpu` starts no more; torchrun --nproc_per_node N does) on cpu" in lines[0]


def test_another_number_of_processes_than_before_is_said(tmp_path):
    folder = run(tmp_path / "a", steps=1)
    record = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(record | {"processes": 2}))
    lines, _ = said(train, config(steps=2), folder, resume=True, pairs=[SpecklePairs()])
    assert "1 process (2 when it began: other batches from here on) on cpu; steps 1 to 2" in lines[0]


def test_a_run_that_another_training_wrote_meanwhile_is_kept(tmp_path):
    """The other one is over before this one, whose pairs are being read, takes the lock."""
    out = tmp_path / "a"
    with pytest.raises(ExistsError, match="another training wrote this run meanwhile"):
        train(config(steps=2), out, pairs=[Changed({3: (None, 0.0)})], report=lambda line: run(out, steps=1))
    assert load(out).step == 1


def test_pairs_are_named_by_their_id():
    pairs = SpecklePairs(n=2)
    pairs.samples[1]["id"] = "abc"
    subset = whole(pairs)
    assert [subset.name(0), subset.select([1]).name(0)] == ["L11-5v 0", "L11-5v abc"]
